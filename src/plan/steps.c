/* Pass 7: a step for each group, in their order, with all that it takes to run it. */
#include <string.h>

#include "plan.h"

FgOperand plan_operand_for(Planner *p, int32_t x)
{
    const Spot *s = &p->spots[x];
    const FgDims *d = dims_of(p, x);
    FgOperand o = { .dtype = p->nodes[x].dtype, .rank = d->rank, .size = d->size, .dims = d->dims,
                    .contiguous = s->contiguous, .offset = s->offset, .node = x };
    if (s->number) {
        o.place = -1;
        o.reg = register_of(p, s->base);
        o.contiguous = 0;
        o.offset = 0;
        o.strides = strides_new(p, d->rank);
    } else {
        o.place = p->place[s->base];
        o.strides = plan_strides_of(p, x);
    }
    return o;
}

/* The walk over memory with these strides as if broadcast to a shape. */
FgWalk plan_walk_new(Planner *p, const FgDims *shape, const FgDims *own, const int64_t *strides)
{
    int64_t *dims = KEEP(int64_t, shape->rank), *steps = KEEP(int64_t, shape->rank), wide[64];
    fg_strides_broadcast(shape->rank, own->rank, own->dims, strides, wide);
    return fg_walk_over(shape->rank, shape->dims, wide, dims, steps);
}

static void scalars_step(Planner *p, FgStep *step, const int32_t *nodes, int32_t count)
{
    FgScalarOp *ops = SCRATCH(FgScalarOp, count);
    for (int32_t k = 0; k < count; k++) {
        const FgGraphNode *n = &p->nodes[nodes[k]];
        int32_t few[3], *list, arity = operands_of(p, nodes[k], few, &list);
        FgScalarOp *op = &ops[k];
        uint32_t x[3] = { 0, 0, 0 };
        for (int32_t j = 0; j < arity && j < 3; j++) x[j] = register_of(p, p->spots[list[j]].base);
        op->op = n->op;
        op->dtype = is_compare(n->op) ? p->nodes[list[0]].dtype : n->dtype;
        op->flags = n->flags & FG_GRAPH_LITERAL ? FG_SCALAR_TIE : 0;
        op->a = x[0];
        op->b = x[1];
        op->c = x[2];
        if (n->op == FG_cast && n->dtype == FG_BOOL) {          /* whether it is not 0            */
            op->op = FG_not_equal;
            op->dtype = FG_FLOAT64;
            op->b = register_of(p, (int32_t)p->count);          /* the register that holds 0      */
        } else if (n->op == FG_cast) {
            op->op = FG_positive;
        } else if (n->op == FG_call) {                          /* numbers 0 and 1                */
            static const uint16_t as[] = { FG_multiply, FG_maximum, FG_not_equal, FG_is_zero };
            op->op = as[attribute_of(p, nodes[k])->numbers[0] - FG_BLOCK_AND];
            op->dtype = FG_FLOAT64;
        }
        op->y = register_of(p, nodes[k]);
    }
    step->count = count;
    step->work = count;
    step->in = (void *)ops;             /* built when all registers are known                     */
}

static void operands_step(Planner *p, FgStep *step, int32_t i)
{
    int32_t few[3], *list, count = operands_of(p, i, few, &list);
    step->in = KEEP(FgOperand, count);
    for (int32_t k = 0; k < count; k++) step->in[k] = plan_operand_for(p, list[k]);
    step->count = count;
    step->out = plan_operand_for(p, i);
    step->dtype = p->nodes[i].dtype;
    step->work = step->out.size;
    for (int32_t k = 0; k < count; k++) step->work += step->in[k].size;
}

static FgWalk rows_walk(Planner *p, FgStep *step, const FgOperand *x, int64_t mask)
{
    int64_t *dims = KEEP(int64_t, x->rank), *strides = KEEP(int64_t, x->rank);
    return fg_walk_rows(x->rank, x->dims, x->strides, (uint64_t)mask, dims, strides, &step->rows,
                        &step->length);
}

static void rows_step(Planner *p, FgStep *step, int64_t mask, int32_t at)
{
    step->walk = rows_walk(p, step, &step->in[0], mask);
    if (step->kind == FG_STEP_WEIGHTS) step->back = rows_walk(p, step, &step->out, mask);
    int64_t row = step->length * fg_item(step->in[0].dtype);
    step->extra = plan_place_extra(p, step->node, fg_rows_together(step->length) * (row + 8) + 64,
                                   at);
}

/* Let an operand have the shape of what an index selects. */
static void window_operand(Planner *p, FgOperand *x, const FgAttribute *attr)
{
    int64_t *dims = KEEP(int64_t, attr->count), *strides = KEEP(int64_t, attr->count);
    int32_t rank = 0;
    for (int32_t j = 0; j < attr->count; j += FG_INDEX_FIELDS)
        if (attr->numbers[j] != FG_INDEX_INT) dims[rank++] = attr->numbers[j + 3];
    x->size = 1;
    for (int32_t k = 0; k < rank; k++) {
        int32_t own = k - (rank - x->rank);
        x->size *= dims[k];
        strides[k] = own >= 0 && x->dims[own] != 1 ? x->strides[own] : 0;
    }
    x->rank = rank;
    x->dims = dims;
    x->strides = strides;
    x->contiguous = 0;
}

/* A copy into the window of the result that a basic index, or a place along an axis, tells. */
static void copy_step(Planner *p, FgStep *step, int32_t i)
{
    const FgGraphNode *n = &p->nodes[i];
    const FgAttribute *attr = attribute_of(p, i);
    operands_step(p, step, i);
    step->copies = KEEP(FgCopy, step->count);
    int64_t at = 0;
    for (int32_t k = 0; k < step->count; k++) {
        FgCopy *copy = &step->copies[k];
        copy->from = step->in[k];
        copy->to = step->out;
        if (n->op == FG_concatenate) {
            int32_t along = (int32_t)attr->numbers[0];
            copy->to.dims = copy->from.dims;
            copy->to.size = copy->from.size;
            copy->to.offset = at * step->out.strides[along];
            copy->to.contiguous = 0;
            at += copy->from.dims[along];
        } else if (n->op == FG_assign && k != 1) {
            continue;                   /* all of it, as it was                                   */
        } else if (n->op == FG_assign || n->op == FG_place) {
            if (n->op == FG_assign) window_operand(p, &copy->from, attr);
            int64_t *strides = strides_new(p, copy->from.rank);
            int64_t begin = index_apply(attr, step->out.strides, strides);
            if (copy->from.size) copy->to.offset += begin;
            copy->to.dims = copy->from.dims;
            copy->to.size = copy->from.size;
            copy->to.rank = copy->from.rank;
            copy->to.strides = strides;
            copy->to.contiguous = 0;
        } else {                        /* a reshape of what does not lie in order                */
            copy->to.dims = copy->from.dims;
            copy->to.rank = copy->from.rank;
            int64_t *strides = strides_new(p, copy->from.rank);
            fg_strides_plain(copy->from.rank, copy->from.dims, fg_item(n->dtype), strides);
            copy->to.strides = strides;
        }
    }
    step->zero = n->op == FG_place;
}

/* Whoever wants no result of a loop finds no place and no register for it. */
static void loop_step(Planner *p, FgStep *step, const int32_t *nodes, int32_t count)
{
    const FgLoop *loop = attribute_of(p, nodes[0])->data;
    int32_t few[3], *list;
    step->count = operands_of(p, nodes[0], few, &list);
    step->in = KEEP(FgOperand, step->count);
    for (int32_t k = 0; k < step->count; k++) step->in[k] = plan_operand_for(p, list[k]);
    step->loop = loop;
    step->loop_number = p->plan->loop_count++;
    step->results = KEEP(FgOperand, loop->body->output_count);
    for (int32_t k = 0; k < loop->body->output_count; k++)
        step->results[k] = (FgOperand){ .place = -1, .reg = UINT32_MAX };
    for (int32_t k = 1; k < count; k++)
        step->results[(int32_t)p->nodes[nodes[k]].constant] = plan_operand_for(p, nodes[k]);
    double work = (loop->length < 0 ? 1e6 : (double)loop->length) * (double)(loop->body->work + 20);
    step->work = work_of(work);
}

void plan_step_all(Planner *p)
{
    FgPlan *plan = p->plan;
    int32_t n = p->step_count, total = 0;
    int32_t *first = SCRATCH(int32_t, p->group_count), *fill = SCRATCH(int32_t, p->group_count);
    BlockBuilder b = { 0 };
    for (int32_t i = 0; i < p->count; i++)
        if (p->needed[i] && p->group[i] >= 0) fill[p->group[i]]++;
    for (int32_t k = 0; k < n; k++) {
        int32_t g = p->order[k];
        first[g] = total;
        total += fill[g];
        fill[g] = 0;
    }
    plan->order = KEEP(int32_t, total);
    for (int32_t i = 0; i < p->count; i++)
        if (p->needed[i] && p->group[i] >= 0)
            plan->order[first[p->group[i]] + fill[p->group[i]]++] = i;
    b.value = SCRATCH(int32_t, p->count);
    b.stamp = SCRATCH(int32_t, p->count);
    b.shape = SCRATCH(int32_t, p->count);
    memset(b.stamp, -1, (size_t)p->count * sizeof(int32_t));
    plan->steps = KEEP(FgStep, n);
    plan->step_count = n;
    for (int32_t k = 0; k < n; k++) {
        int32_t g = p->order[k], i = p->groups[g].node;
        const int32_t *nodes = plan->order + first[g];
        FgStep *step = &plan->steps[k];
        step->kind = p->groups[g].kind;
        step->level = p->groups[g].level;
        step->node = i;
        step->nodes = first[g];
        step->node_count = fill[g];
        switch (step->kind) {
        case FG_STEP_SCALARS:
            scalars_step(p, step, nodes, fill[g]);
            break;
        case FG_STEP_BLOCKS:
            plan_blocks_step(p, &b, step, nodes, fill[g], g, k);
            break;
        case FG_STEP_LOAD:
            step->in = KEEP(FgOperand, fill[g]);
            step->copies = KEEP(FgCopy, fill[g]);
            for (int32_t j = 0; j < fill[g]; j++) {
                FgCopy *copy = &step->copies[j];
                const FgGraphNode *m = &p->nodes[nodes[j]];
                copy->from = plan_operand_for(p, m->a);
                int64_t none[64];
                if (m->op == FG_item)
                    copy->from.offset += index_apply(attribute_of(p, nodes[j]), copy->from.strides,
                                                     none);
                copy->from.rank = 0;
                copy->from.size = 1;
                copy->to = plan_operand_for(p, nodes[j]);
            }
            step->count = fill[g];
            step->work = fill[g];
            break;
        case FG_STEP_COPY:
            copy_step(p, step, i);
            break;
        case FG_STEP_LOOP:
            loop_step(p, step, nodes, fill[g]);
            break;
        case FG_STEP_GUARD:
            step->node = p->groups[g].place;
            step->in = KEEP(FgOperand, 1);
            step->in[0] = plan_operand_for(p, p->same[p->source->guards[step->node].node]);
            step->count = 1;
            step->outcome = p->source->guards[step->node].outcome;
            step->guard_kind = p->source->guards[step->node].kind;
            break;
        default:
            step->op = p->nodes[i].op;
            operands_step(p, step, i);
            if (step->kind == FG_STEP_ROWS) rows_step(p, step, attribute_of(p, i)->numbers[0], k);
            if (step->kind == FG_STEP_ROWS_AT) {
                const FgOperand *wide = step->op == FG_gather ? &step->in[0] : &step->out;
                const FgOperand *whole = step->op == FG_gather ? &step->out : &step->in[0];
                step->places = attribute_of(p, i)->data;
                step->width = 1;
                for (int32_t r = 1; r < wide->rank; r++) step->width *= wide->dims[r];
                step->place_count = step->width ? whole->size / step->width : 0;
            }
            if (step->kind == FG_STEP_WEIGHTS) {
                step->op = (uint16_t)attribute_of(p, i)->numbers[1];
                rows_step(p, step, attribute_of(p, i)->numbers[2], k);
            }
            if (step->kind == FG_STEP_MATMUL && step->in[0].rank && step->in[1].rank)
                step->work = work_of((double)step->out.size *
                                     (double)step->in[0].dims[step->in[0].rank - 1]);
        }
        if (step->work < 0 || step->work > (int64_t)1 << 50) step->work = (int64_t)1 << 50;
        plan->work += step->work;
        if (plan->work > (int64_t)1 << 50) plan->work = (int64_t)1 << 50;
    }
}
