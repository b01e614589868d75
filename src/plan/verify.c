/* The verifier: what must hold of every plan, whatever the passes did. */
#include "alloc.h"
#include "vm.h"

static const char *operand_fault(const FgPlan *plan, const FgOperand *x, int32_t at, int writes)
{
    if (x->place < 0) return x->reg < plan->registers ? NULL : "a register beyond the last one";
    if (x->place >= plan->place_count) return "a place beyond the last one";
    const FgPlace *place = &plan->places[x->place];
    if (at < place->first || at > place->last) return "an array is used when it is not alive";
    if (writes && (place->kind == FG_PLACE_INPUT || place->kind == FG_PLACE_CONSTANT))
        return "an input or a constant is written to";
    if (writes && at != place->first) return "an array is written to after its first step";
    int64_t low = x->offset, high = x->offset + fg_item(x->dtype);
    if (x->size == 0) return NULL;
    for (int32_t k = 0; k < x->rank; k++) {
        int64_t span = (x->dims[k] - 1) * x->strides[k];
        if (span < 0) low += span;
        else high += span;
    }
    return low < 0 || high > place->nbytes ? "a view reaches beyond its array" : NULL;
}

const char fg_plan_no_memory[] = "out of memory";

const char *fg_plan_verify(const FgPlan *plan)
{
    const char *fault = plan->error;
    for (int32_t k = 0; fault == NULL && k < plan->step_count; k++) {
        const FgStep *s = &plan->steps[k];
        if (s->kind == FG_STEP_BLOCKS) {
            const FgBlockRun *run = s->blocks;
            for (int32_t j = 0; fault == NULL && j < run->input_count; j++)
                fault = operand_fault(plan, &run->inputs[j].from, k, 0);
            for (int32_t j = 0; fault == NULL && j < run->output_count; j++) {
                const FgPlace *place = &plan->places[run->outputs[j].place];
                if (place->first != k || place->nbytes < run->size * run->outputs[j].item)
                    fault = "a block run writes where it may not";
            }
            for (int32_t j = 0; fault == NULL && j < run->op_count; j++)
                if (run->ops[j].y >= run->registers && run->ops[j].op != FG_BLOCK_SUM)
                    fault = "a block register beyond the last one";
        } else if (s->kind == FG_STEP_LOAD || s->kind == FG_STEP_COPY) {
            for (int32_t j = 0; fault == NULL && j < s->count; j++) {
                fault = operand_fault(plan, &s->copies[j].from, k, 0);
                if (fault == NULL) fault = operand_fault(plan, &s->copies[j].to, k, 1);
            }
        } else if (s->kind != FG_STEP_SCALARS) {
            for (int32_t j = 0; fault == NULL && j < s->count; j++)
                fault = operand_fault(plan, &s->in[j], k, 0);
            if (fault == NULL && s->kind != FG_STEP_GUARD && s->kind != FG_STEP_LOOP)
                fault = operand_fault(plan, &s->out, k, 1);
        }
    }
    /* Arrays that are alive together: those of a step against all that begin no later. */
    int32_t *alive = fg_malloc(((size_t)plan->place_count + 1) * sizeof(int32_t));
    int32_t count = 0, next = 0;
    int32_t *sorted = fg_malloc(((size_t)plan->place_count + 1) * sizeof(int32_t)), frames = 0;
    if (alive == NULL || sorted == NULL) fault = fg_plan_no_memory;
    for (int32_t k = 0; fault == NULL && k < plan->place_count; k++)
        if (plan->places[k].kind == FG_PLACE_FRAME) sorted[frames++] = k;
    for (int32_t at = 0; fault == NULL && at <= plan->step_count; at++) {
        int32_t kept = 0;
        for (int32_t k = 0; k < count; k++)
            if (plan->places[alive[k]].last >= at) alive[kept++] = alive[k];
        count = kept;
        for (next = 0; fault == NULL && next < frames && frames <= 4096; next++) {
            const FgPlace *x = &plan->places[sorted[next]];
            if (x->first != at) continue;
            if (x->offset < 0 || x->offset + x->nbytes > plan->frame_bytes)
                fault = "an array lies outside of the frame";
            for (int32_t k = 0; fault == NULL && k < count; k++) {
                const FgPlace *y = &plan->places[alive[k]];
                if (x->nbytes && y->nbytes && x->offset < y->offset + y->nbytes &&
                    y->offset < x->offset + x->nbytes)
                    fault = "two arrays that are alive share memory";
            }
            alive[count++] = sorted[next];
        }
    }
    fg_free(alive);
    fg_free(sorted);
    return fault;
}
