/* Pass 3: where values are, and what is to be done for a node. Pass 4 asks for each in its turn. */
#include "plan.h"

static int is_plain(const FgDims *d, const int64_t *strides, int64_t item)
{
    for (int32_t k = d->rank - 1; k >= 0; k--) {
        if (d->dims[k] != 1 && strides[k] != item) return d->size == 0;
        item *= d->dims[k];
    }
    return 1;
}

void plan_spot_own(Planner *p, int32_t i)
{
    Spot *s = &p->spots[i];
    s->base = i;
    s->offset = 0;
    s->number = is_constant(p, i) || (p->nodes[i].rank == 0 && is_number(p->nodes[i].dtype));
    s->contiguous = !s->number;
    s->strides = NULL;
}

const int64_t *plan_strides_of(Planner *p, int32_t i)
{
    Spot *s = &p->spots[i];
    if (s->strides == NULL) {
        const FgDims *d = dims_of(p, i);
        int64_t *strides = strides_new(p, d->rank);
        fg_strides_plain(d->rank, d->dims, fg_item(p->nodes[i].dtype), strides);
        s->strides = strides;
    }
    return s->strides;
}

/* A node that shows the memory of its operand; 0 where it has to be copied. */
static int spot_view(Planner *p, int32_t i)
{
    FgGraphNode *n = &p->nodes[i];
    const FgDims *d = dims_of(p, i), *from = dims_of(p, n->a);
    Spot *s = &p->spots[i], *x = &p->spots[n->a];
    const FgAttribute *attr = attribute_of(p, i);
    if (x->number) {
        *s = *x;
        s->contiguous = 0;
        return 1;
    }
    if (n->rank == 0 && is_number(n->dtype)) return 0;          /* to a register                  */
    if (n->op == FG_reshape) {
        if (!x->contiguous) return 0;
        *s = *x;
        s->strides = NULL;
        return 1;
    }
    const int64_t *own = plan_strides_of(p, n->a);
    int64_t *strides = strides_new(p, d->rank);
    *s = *x;
    if (n->op == FG_transpose) {
        for (int32_t k = 0; k < d->rank; k++) strides[k] = own[attr->numbers[k]];
    } else if (n->op == FG_flip) {
        for (int32_t k = 0; k < d->rank; k++) {
            strides[k] = own[k];
            if (attr->numbers[0] >> k & 1 && d->dims[k]) {
                s->offset += (d->dims[k] - 1) * own[k];
                strides[k] = -own[k];
            }
        }
    } else if (n->op == FG_broadcast) {
        fg_strides_broadcast(d->rank, from->rank, from->dims, own, strides);
    } else {                                                    /* item                           */
        int64_t begin = index_apply(attr, own, strides);
        if (d->size) s->offset += begin;
    }
    s->strides = strides;
    s->contiguous = is_plain(d, strides, fg_item(n->dtype));
    return 1;
}

int plan_kind_of(Planner *p, int32_t i)
{
    FgGraphNode *n = &p->nodes[i];
    int32_t few[3], *list, count;
    int dtype = n->dtype, from = 0;
    if (n->a >= 0 && !(n->flags & FG_GRAPH_MANY)) from = p->nodes[n->a].dtype;
    if (n->op == FG_leaf) return K_LEAF;
    if (n->op == FG_custom && attribute_of(p, i)->kind == FG_ATTR_LOOP) return FG_STEP_LOOP;
    if (n->op == FG_result && p->kind[n->a] == FG_STEP_LOOP) return K_RESULT;
    if (attribute_of(p, i)->kind == FG_ATTR_PYTHON) return FG_STEP_PYTHON;
    if (attribute_of(p, i)->kind == FG_ATTR_ROWS) {
        count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (!p->spots[list[k]].contiguous || p->spots[list[k]].number) return FG_STEP_PYTHON;
        return n->rank == 0 ? FG_STEP_PYTHON : FG_STEP_ROWS_AT;
    }
    if (is_value(n->op)) return !is_float(dtype) ? FG_STEP_PYTHON : n->rank ? K_LANES : FG_STEP_SCALARS;
    if (is_compare(n->op)) return !is_float(from) ? FG_STEP_PYTHON : n->rank ? K_LANES : FG_STEP_SCALARS;
    switch (n->op) {
    case FG_reshape: case FG_transpose: case FG_flip: case FG_broadcast: case FG_item:
        if (spot_view(p, i)) return K_VIEW;
        return n->rank == 0 && is_number(dtype) ? FG_STEP_LOAD : FG_STEP_COPY;
    case FG_cast:
        if (n->rank == 0 && is_number(dtype))
            return is_number(from) ? FG_STEP_SCALARS : FG_STEP_LOAD;
        if (is_float(dtype) && (is_number(from) || from == FG_INT64)) return K_LANES;
        return dtype == FG_BOOL && is_float(from) ? K_LANES : FG_STEP_PYTHON;
    case FG_sum:
        return is_float(dtype) ? K_SUM : FG_STEP_PYTHON;
    case FG_prod: case FG_max: case FG_min: case FG_logsumexp:
        return is_float(dtype) ? FG_STEP_ROWS : FG_STEP_PYTHON;
    case FG_matmul:
        return is_float(dtype) && fg_vm_matmul[dtype == FG_FLOAT64] != NULL ? FG_STEP_MATMUL : FG_STEP_PYTHON;
    case FG_place: case FG_assign:
        return FG_STEP_COPY;
    case FG_concatenate:
        if (attribute_of(p, i)->numbers[0] >= 0) return FG_STEP_COPY;
        count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (!is_number(p->nodes[list[k]].dtype)) return FG_STEP_PYTHON;
        return FG_STEP_PACK;
    case FG_call:                       /* a logical operator of booleans, or isfinite            */
        if (attribute_of(p, i)->numbers[0] == FG_CALL_WEIGHTS) return FG_STEP_WEIGHTS;
        if (attribute_of(p, i)->numbers[0] == FG_CALL_ALL_FINITE ||
            (attribute_of(p, i)->numbers[0] == FG_BLOCK_FINITE && n->rank == 0)) return FG_STEP_FINITE;
        return n->rank ? K_LANES : FG_STEP_SCALARS;
    default:
        return FG_STEP_PYTHON;
    }
}
