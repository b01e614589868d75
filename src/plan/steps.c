/* Pass 7: a step for each group, in their order, with all that it takes to run it. */
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

static void operands_in(Planner *p, FgStep *step, int32_t i)
{
    int32_t few[3], *list;
    step->count = operands_of(p, i, few, &list);
    step->in = KEEP(FgOperand, step->count);
    for (int32_t k = 0; k < step->count; k++) step->in[k] = plan_operand_for(p, list[k]);
}

static void operands_step(Planner *p, FgStep *step, int32_t i)
{
    operands_in(p, step, i);
    step->out = plan_operand_for(p, i);
    step->dtype = p->nodes[i].dtype;
    step->work = step->out.size;
    for (int32_t k = 0; k < step->count; k++) step->work += step->in[k].size;
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
    step->extra = plan_place_new(p, step->node, fg_rows_together(step->length) * (row + 8) + 64,
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
    for (int32_t k = 0; k < rank; k++) x->size *= dims[k];
    fg_strides_broadcast(rank, x->rank, x->dims, x->strides, strides);
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
        FgOperand *from = &copy->from, *to = &copy->to;
        const int whole = n->op == FG_assign && k != 1;         /* all of it, as it was           */
        *from = step->in[k];
        *to = step->out;
        if (n->op == FG_assign && !whole) window_operand(p, from, attr);
        to->rank = from->rank;
        to->dims = from->dims;
        to->size = from->size;
        if (n->op == FG_concatenate) {
            int32_t along = (int32_t)attr->numbers[0];
            to->offset = at * step->out.strides[along];
            at += from->dims[along];
        } else if (!whole) {
            int64_t *strides = strides_new(p, from->rank);
            to->strides = strides;
            if (n->op == FG_assign || n->op == FG_place) {
                int64_t begin = index_apply(attr, step->out.strides, strides);
                if (from->size) to->offset += begin;
            } else {                    /* a reshape of what does not lie in order                */
                fg_strides_plain(from->rank, from->dims, fg_item(n->dtype), strides);
            }
        }
    }
    step->zero = n->op == FG_place;
}

/* Whoever wants no result of a loop finds no place and no register for it. */
static void loop_step(Planner *p, FgStep *step, const int32_t *nodes, int32_t count)
{
    const FgLoop *loop = attribute_of(p, nodes[0])->data;
    operands_in(p, step, nodes[0]);
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

/* Numbers from memory to registers. */
static void load_step(Planner *p, FgStep *step, const int32_t *nodes, int32_t count)
{
    step->in = KEEP(FgOperand, count);
    step->copies = KEEP(FgCopy, count);
    step->work = step->count = count;
    for (int32_t k = 0; k < count; k++) {
        FgCopy *copy = &step->copies[k];
        const FgGraphNode *n = &p->nodes[nodes[k]];
        int64_t none[64];
        copy->from = plan_operand_for(p, n->a);
        if (n->op == FG_item)
            copy->from.offset += index_apply(attribute_of(p, nodes[k]), copy->from.strides, none);
        copy->from.rank = 0;
        copy->from.size = 1;
        copy->to = plan_operand_for(p, nodes[k]);
    }
}

static void guard_step(Planner *p, FgStep *step, int32_t number)
{
    const FgGuardRow *guard = &p->source->guards[number];
    step->node = number;
    step->in = KEEP(FgOperand, 1);
    step->in[0] = plan_operand_for(p, p->same[guard->node]);
    step->count = 1;
    step->outcome = guard->outcome;
    step->guard_kind = guard->kind;
}

/* Steps of one operator. */
static void operator_step(Planner *p, FgStep *step, int32_t i, int32_t at)
{
    const FgAttribute *attr = attribute_of(p, i);
    step->op = p->nodes[i].op;
    operands_step(p, step, i);
    if (step->kind == FG_STEP_ROWS) {
        rows_step(p, step, attr->numbers[0], at);
    } else if (step->kind == FG_STEP_ROWS_AT) {
        const int gathers = step->op == FG_gather;
        const FgOperand *wide = gathers ? &step->in[0] : &step->out;
        step->places = attr->data;
        step->width = 1;
        for (int32_t r = 1; r < wide->rank; r++) step->width *= wide->dims[r];
        step->place_count = step->width
                            ? (gathers ? step->out.size : step->in[0].size) / step->width : 0;
    } else if (step->kind == FG_STEP_WEIGHTS) {
        step->op = (uint16_t)attr->numbers[1];
        rows_step(p, step, attr->numbers[2], at);
    } else if (step->kind == FG_STEP_MATMUL && step->in[0].rank && step->in[1].rank) {
        step->work = work_of((double)step->out.size *
                             (double)step->in[0].dims[step->in[0].rank - 1]);
    }
}

/* The nodes of each step, one after the other, in plan->order; returns where those of a group begin,
 * and `fill` tells how many there are. */
static int32_t *nodes_by_group(Planner *p, int32_t *fill)
{
    int32_t *first = SCRATCH(int32_t, p->group_count), total = 0;
    for (int32_t i = 0; i < p->count; i++)
        if (p->needed[i] && p->group[i] >= 0) fill[p->group[i]]++;
    for (int32_t k = 0; k < p->step_count; k++) {
        first[p->order[k]] = total;
        total += fill[p->order[k]];
        fill[p->order[k]] = 0;
    }
    p->plan->order = KEEP(int32_t, total);
    for (int32_t i = 0; i < p->count; i++)
        if (p->needed[i] && p->group[i] >= 0)
            p->plan->order[first[p->group[i]] + fill[p->group[i]]++] = i;
    return first;
}

void plan_step_all(Planner *p)
{
    const int64_t most = (int64_t)1 << 50;
    FgPlan *plan = p->plan;
    int32_t *fill = SCRATCH(int32_t, p->group_count), *first = nodes_by_group(p, fill);
    BlockBuilder b = { .value = SCRATCH(int32_t, p->count), .stamp = SCRATCH(int32_t, p->count),
                       .shape = SCRATCH(int32_t, p->count) };
    memset(b.stamp, -1, (size_t)p->count * sizeof(int32_t));
    plan->step_count = p->step_count;
    plan->steps = KEEP(FgStep, plan->step_count);
    for (int32_t k = 0; k < plan->step_count; k++) {
        const int32_t g = p->order[k], i = p->groups[g].node, count = fill[g];
        const int32_t *nodes = plan->order + first[g];
        FgStep *step = &plan->steps[k];
        step->kind = p->groups[g].kind;
        step->level = p->groups[g].level;
        step->node = i;
        step->nodes = first[g];
        step->node_count = count;
        switch (step->kind) {
        case FG_STEP_SCALARS: scalars_step(p, step, nodes, count); break;
        case FG_STEP_BLOCKS: plan_blocks_step(p, &b, step, nodes, count, g, k); break;
        case FG_STEP_LOAD: load_step(p, step, nodes, count); break;
        case FG_STEP_COPY: copy_step(p, step, i); break;
        case FG_STEP_LOOP: loop_step(p, step, nodes, count); break;
        case FG_STEP_GUARD: guard_step(p, step, p->groups[g].place); break;
        default: operator_step(p, step, i, k);
        }
        if (step->work < 0 || step->work > most) step->work = most;
        plan->work = plan->work + step->work < most ? plan->work + step->work : most;
    }
}
