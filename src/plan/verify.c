/* The verifier: what must hold of every plan, whatever the passes did. */
#include <string.h>

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

static int starts_before(const void *a, const void *b)
{
    const FgPlace *x = *(const FgPlace *const *)a, *y = *(const FgPlace *const *)b;
    return (x->first > y->first) - (x->first < y->first);
}

/* Arrays that are alive together: in the order of their first steps, each against its neighbours
 * among those that still are, which stand in the order of their offsets. */
static const char *memory_fault(const FgPlan *plan)
{
    const FgPlace **frames = fg_malloc(((size_t)plan->place_count + 1) * 2 * sizeof(*frames));
    const FgPlace **alive = frames + plan->place_count + 1;
    const char *fault = frames == NULL ? fg_plan_no_memory : NULL;
    int32_t count = 0, living = 0, soonest = INT32_MAX;     /* the first of these to end */
    for (int32_t k = 0; fault == NULL && k < plan->place_count; k++) {
        const FgPlace *x = &plan->places[k];
        if (x->kind != FG_PLACE_FRAME) continue;
        if (x->offset < 0 || x->offset + x->nbytes > plan->frame_bytes)
            fault = "an array lies outside of the frame";
        if (x->nbytes) frames[count++] = x;
    }
    if (fault == NULL) qsort(frames, (size_t)count, sizeof(*frames), starts_before);
    for (int32_t k = 0; fault == NULL && k < count; k++) {
        const FgPlace *x = frames[k];
        if (soonest < x->first) {
            int32_t kept = 0;
            soonest = INT32_MAX;
            for (int32_t j = 0; j < living; j++) {
                if (alive[j]->last < x->first) continue;
                alive[kept++] = alive[j];
                if (alive[j]->last < soonest) soonest = alive[j]->last;
            }
            living = kept;
        }
        if (x->last < soonest) soonest = x->last;
        int32_t at = 0, end = living;
        while (at < end) {
            int32_t middle = at + (end - at) / 2;
            if (alive[middle]->offset > x->offset) end = middle;
            else at = middle + 1;
        }
        if ((at > 0 && alive[at - 1]->offset + alive[at - 1]->nbytes > x->offset) ||
            (at < living && x->offset + x->nbytes > alive[at]->offset))
            fault = "two arrays that are alive share memory";
        memmove(alive + at + 1, alive + at, (size_t)(living++ - at) * sizeof(*alive));
        alive[at] = x;
    }
    fg_free(frames);
    return fault;
}

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
    return fault != NULL ? fault : memory_fault(plan);
}
