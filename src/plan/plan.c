/* From a graph to a plan.
 *
 * plan_all names the passes in their order; each is one walk over the nodes. Values keep the
 * numbers of their nodes throughout: a node that turns out to equal another one points to it
 * (`same`), one that nobody needs is skipped.
 */
#include "alloc.h"
#include "plan.h"

static void plan_all(Planner *p)
{
    const FgSource *source = p->source;
    FgPlan *plan = p->plan;
    int64_t operands = 0;
    for (int64_t i = 0; i < p->count; i++) {
        const FgGraphNode *n = &source->nodes[i];
        if (n->flags & FG_GRAPH_MANY && (int64_t)n->a + n->b > operands) operands = n->a + n->b;
    }
    p->nodes = SCRATCH(FgGraphNode, p->count);
    memcpy(p->nodes, source->nodes, (size_t)p->count * sizeof(FgGraphNode));
    p->operands = SCRATCH(int32_t, operands);
    if (operands) memcpy(p->operands, source->operands, (size_t)operands * sizeof(int32_t));
    p->same = SCRATCH(int32_t, p->count);
    p->group = SCRATCH(int32_t, p->count);
    p->place = SCRATCH(int32_t, p->count);
    p->reg = SCRATCH(int32_t, p->count + 1);
    p->needed = SCRATCH(uint8_t, p->count);
    p->kind = SCRATCH(uint8_t, p->count);
    p->outside = SCRATCH(uint8_t, p->count);
    p->again = SCRATCH(uint8_t, p->count);
    p->spots = SCRATCH(Spot, p->count);
    for (int32_t i = 0; i < p->count; i++) p->same[i] = i;
    for (int32_t i = 0; i <= p->count; i++) p->reg[i] = -1;
    plan->input_count = (int32_t)source->input_count;
    plan->output_count = (int32_t)source->output_count;

    plan_mark_needed(p);
    plan_simplify_all(p);
    plan_mark_needed(p);
    plan_group_all(p);
    plan_sink_all(p);
    plan_again_all(p);
    plan_order_groups(p);
    if (plan->error == NULL) {
        plan_place_all(p);
        plan_step_all(p);
        plan_finish_scalars(p);
        plan_memory_all(p);
    }
}

FgPlan *fg_plan_new(const FgSource *source)
{
    Planner *p = fg_calloc(1, sizeof(Planner));
    if (p == NULL || (p->plan = fg_calloc(1, sizeof(FgPlan))) == NULL) {
        fg_free(p);
        return NULL;
    }
    p->source = source;
    p->f32 = &source->kernels->f32;
    p->f64 = &source->kernels->f64;
    p->count = source->count;
    if (setjmp(p->out_of_memory)) {     /* of the locals only p is used from here on */
        plan_chunks_free(p->temporary);
        fg_plan_free(p->plan);
        fg_free(p);
        return NULL;
    }
    plan_all(p);
    plan_chunks_free(p->temporary);
    FgPlan *plan = p->plan;
    fg_free(p);
    return plan;
}

void fg_plan_free(FgPlan *plan)
{
    for (int32_t k = 0; plan->steps != NULL && k < plan->step_count; k++)
        if (plan->steps[k].kind == FG_STEP_SCALARS && plan->steps[k].scalars != NULL)
            fg_scalar_free(plan->steps[k].scalars);
    plan_chunks_free(plan->memory);
    fg_free(plan);
}
