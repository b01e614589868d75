/* From a graph to a plan.
 *
 * fg_plan_new at the end of the file names the passes in their order; each is one walk over the
 * nodes. Values keep the numbers of their nodes throughout: a node that turns out to equal another
 * one points to it (`same`), one that nobody needs is skipped.
 */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "vm.h"
#include "scalar.h"

enum { UNIFORM = 1u << 16 };        /* a leaf: all entries are the number in `constant`           */

/* What is to be done for a node. */
enum {
    K_NONE, K_LEAF, K_VIEW, K_SCALAR, K_LANES, K_SUM, K_ROWS, K_LOAD, K_MATMUL, K_COPY, K_PACK,
    K_FINITE, K_WEIGHTS, K_ROWS_AT, K_LOOP, K_RESULT, K_PYTHON
};

/* Where a value is: in the memory of the node `base`, or the number that node `base` is. */
typedef struct Spot {
    int32_t base;
    uint8_t number, contiguous;
    int64_t offset;
    const int64_t *strides;
} Spot;

/* A step in the making. */
typedef struct Group {
    int32_t level, before;          /* before: the group of the same space made before this one   */
    int64_t space;                  /* how many elements its nodes have; below 0: see SPACE_...   */
    int32_t after;                  /* a guard that must come first, or -1                        */
    int32_t node, last;             /* its first and its last node                                */
    uint8_t kind;
    int32_t place;                  /* in the order of execution                                  */
} Group;

enum { SPACE_SCALARS = -1, SPACE_LOADS = -2, SPACE_ALONE = -3 };

typedef struct Planner {
    jmp_buf out_of_memory;
    FgChunk *temporary;
    FgPlan *plan;
    const FgSource *source;
    const FgLoops *f32, *f64;
    int64_t count;
    FgGraphNode *nodes;
    int32_t *operands;
    int32_t *same, *group, *place, *reg;
    uint8_t *needed, *kind, *outside;
    uint8_t *again;                 /* 1: computed in each run that needs it, never stored; 2: kept  */
    Spot *spots;
    Group *groups;
    int32_t group_count, step_count;
    int32_t *order;                 /* groups in order of execution                               */
    int32_t *table;                 /* of merged nodes                                            */
    int32_t mask;
    struct { int64_t space; int32_t newest; } *spaces;
    int32_t space_mask;
} Planner;

/* ---- memory ------------------------------------------------------------------------------- */

static void *take(Planner *p, FgChunk **chunks, size_t nbytes)
{
    nbytes = (nbytes + 15) & ~(size_t)15;
    FgChunk *chunk = *chunks;
    if (chunk == NULL || chunk->size - chunk->used < nbytes) {
        size_t size = nbytes > 65536 ? nbytes : 65536;
        chunk = fg_calloc(1, sizeof(FgChunk) + size + 16);
        if (chunk == NULL) longjmp(p->out_of_memory, 1);
        chunk->size = size;
        if (*chunks != NULL && nbytes > 65536) {        /* the rest of the last one still serves  */
            chunk->next = (*chunks)->next;
            (*chunks)->next = chunk;
            chunk->used = nbytes;
            return (char *)(((uintptr_t)(chunk + 1) + 15) & ~(uintptr_t)15);
        }
        chunk->next = *chunks;
        *chunks = chunk;
    }
    void *memory = (char *)(((uintptr_t)(chunk + 1) + 15) & ~(uintptr_t)15) + chunk->used;
    chunk->used += nbytes;
    return memory;
}

static void chunks_free(FgChunk *chunk)
{
    while (chunk != NULL) {
        FgChunk *next = chunk->next;
        fg_free(chunk);
        chunk = next;
    }
}

#define SCRATCH(type, n) ((type *)take(p, &p->temporary, sizeof(type) * (size_t)((n) + 1)))
#define KEEP(type, n) ((type *)take(p, &p->plan->memory, sizeof(type) * (size_t)((n) + 1)))

/* ---- looking at nodes --------------------------------------------------------------------- */

int64_t fg_item(int dtype)
{
    static const uint8_t items[] = { 1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 4, 8 };
    return dtype < 13 ? items[dtype] : 0;
}

static int is_float(int dtype) { return dtype == FG_FLOAT64 || dtype == FG_FLOAT32; }
/* What a register can hold. */
static int is_number(int dtype) { return is_float(dtype) || dtype == FG_BOOL; }
static int is_value(int op) { return op < FG_ELEMENTWISE_END; }
static int is_compare(int op) { return op >= FG_ELEMENTWISE_END && op < FG_COMPARE_END; }
static const FgDims *dims_of(const Planner *p, int32_t i)
{
    return &p->source->shapes[p->nodes[i].shape];
}
static const FgAttribute *attribute_of(const Planner *p, int32_t i)
{
    return &p->source->attributes[p->nodes[i].attr];
}

/* The operands of a node, at most 3 of them copied to `few`. */
static int32_t operands_of(const Planner *p, int32_t i, int32_t *few, int32_t **list)
{
    FgGraphNode *n = &p->nodes[i];
    if (n->flags & FG_GRAPH_MANY) {
        *list = p->operands + n->a;
        return n->b;
    }
    int32_t count = 0;
    if (n->a >= 0) few[count++] = n->a;
    if (n->b >= 0) few[count++] = n->b;
    if (n->c >= 0) few[count++] = n->c;
    *list = few;
    return count;
}

static int is_constant(const Planner *p, int32_t i)
{
    return p->nodes[i].op == FG_leaf && (p->nodes[i].flags & UNIFORM);
}

static int is_the_number(const Planner *p, int32_t i, double value)
{
    return i >= 0 && is_constant(p, i) && memcmp(&p->nodes[i].constant, &value, 8) == 0;
}

double fg_number_at(const char *data, int dtype)
{
    switch (dtype) {
    case FG_FLOAT64: { double x; memcpy(&x, data, 8); return x; }
    case FG_FLOAT32: { float x; memcpy(&x, data, 4); return x; }
    case FG_BOOL: return *data != 0;
    case 1: return *(const int8_t *)data;
    case 2: return *(const uint8_t *)data;
    case 3: { int16_t x; memcpy(&x, data, 2); return x; }
    case 4: { uint16_t x; memcpy(&x, data, 2); return x; }
    case 5: { int32_t x; memcpy(&x, data, 4); return x; }
    case 6: { uint32_t x; memcpy(&x, data, 4); return x; }
    case 7: case 9: { int64_t x; memcpy(&x, data, 8); return (double)x; }
    default: { uint64_t x; memcpy(&x, data, 8); return (double)x; }
    }
}

/* ---- pass 1: what is needed --------------------------------------------------------------- */

static void mark_needed(Planner *p)
{
    const FgSource *s = p->source;
    memset(p->needed, 0, p->count);
    for (int64_t k = 0; k < s->output_count; k++) p->needed[p->same[s->outputs[k]]] = 1;
    for (int64_t k = 0; k < s->guard_count; k++) p->needed[p->same[s->guards[k].node]] = 1;
    for (int64_t i = p->count - 1; i >= 0; i--) {
        int32_t few[3], *list;
        if (!p->needed[i]) continue;
        int32_t n = operands_of(p, (int32_t)i, few, &list);
        for (int32_t k = 0; k < n; k++) p->needed[p->same[list[k]]] = 1;
    }
}

/* ---- pass 2: simplify, fold, merge -------------------------------------------------------- */

/* Constant arrays of equal entries are numbers. */
static void leaf_settle(Planner *p, FgGraphNode *n)
{
    const FgAttribute *x = &p->source->attributes[n->attr];
    if (n->flags & FG_GRAPH_INPUT) return;
    if (x->kind != FG_ATTR_DATA) {
        if (is_number(n->dtype)) n->flags |= UNIFORM;
        return;                         /* a number as it stands                                  */
    }
    const char *data = x->data;
    int64_t item = fg_item(n->dtype), size = p->source->shapes[n->shape].size;
    if (!is_number(n->dtype) || size == 0) return;
    if (size > 1 && memcmp(data, data + item, (size_t)((size - 1) * item)) != 0) return;
    n->constant = fg_number_at(data, n->dtype);
    n->flags |= UNIFORM;
    n->attr = 0;
}

static void become_constant(FgGraphNode *n, double value)
{
    n->op = FG_leaf;
    n->flags = UNIFORM;
    n->a = n->b = n->c = -1;
    n->attr = 0;
    n->constant = value;
}

/* The value of an element-wise operator of constants. In an array it is computed by the loops,
 * whose last bits differ from libm's. */
static double fold_value(Planner *p, const FgGraphNode *n, const double *x)
{
    if (n->rank == 0) return fg_value(n->op, n->dtype, x[0], x[1], x[2]);
    _Alignas(64) char memory[4][64];
    const FgLoops *loops = n->dtype == FG_FLOAT64 ? p->f64 : p->f32;
    for (int k = 0; k < 3; k++) loops->fill(memory[k], x[k], 64 / fg_item(n->dtype));
    loops->value[n->op](memory[0], memory[1], memory[2], memory[3], 1);
    return fg_number_at(memory[3], n->dtype);
}

static int fold(Planner *p, int32_t i)
{
    FgGraphNode *n = &p->nodes[i];
    int32_t few[3], *list;
    double x[3] = { 0, 0, 0 };
    if (n->op >= FG_COMPARE_END && n->op != FG_reshape && n->op != FG_transpose &&
        n->op != FG_broadcast && n->op != FG_flip && n->op != FG_cast && n->op != FG_item)
        return 0;
    int32_t count = operands_of(p, i, few, &list);
    if (count == 0 || count > 3) return 0;
    for (int32_t k = 0; k < count; k++) {
        if (!is_constant(p, list[k])) return 0;
        x[k] = p->nodes[list[k]].constant;
    }
    int from = p->nodes[list[0]].dtype;
    if (is_value(n->op)) {
        if (!is_float(n->dtype)) return 0;
        become_constant(n, fold_value(p, n, x));
    } else if (is_compare(n->op)) {
        if (!is_float(from)) return 0;
        become_constant(n, fg_compare(n->op, from, x[0], x[1]));
    } else if (n->op == FG_cast) {
        if (!is_number(n->dtype)) return 0;
        become_constant(n, n->dtype == FG_FLOAT32 ? (double)(float)x[0]
                        : n->dtype == FG_BOOL ? (double)(x[0] != 0) : x[0]);
    } else {
        become_constant(n, x[0]);
    }
    return 1;
}

/* The node's value is x, seen in the node's shape. */
static int become_view(Planner *p, int32_t i, int32_t x)
{
    FgGraphNode *n = &p->nodes[i];
    if (p->nodes[x].shape == n->shape) {
        p->same[i] = x;
        return 1;
    }
    n->op = FG_broadcast;
    n->flags &= ~(uint32_t)FG_GRAPH_MANY;
    n->a = x;
    n->b = n->c = -1;
    n->attr = 0;
    return 0;
}

static int is_identity_order(const FgAttribute *x)
{
    for (int32_t k = 0; k < x->count; k++) if (x->numbers[k] != k) return 0;
    return 1;
}

/* weigh(1, x) is x but for the sign of a zero, to which weigh itself is blind. */
static int32_t unweighed(const Planner *p, int32_t i, int32_t x, int32_t other)
{
    const FgGraphNode *n = &p->nodes[x];
    if (n->op != FG_weigh) return x;
    int32_t inner = is_the_number(p, n->a, 1.0) ? n->b : is_the_number(p, n->b, 1.0) ? n->a : -1;
    if (inner < 0 || (p->nodes[inner].shape != n->shape &&
                      p->nodes[other].shape != p->nodes[i].shape)) return x;
    return inner;
}

#define IS(x, name) (p->nodes[x].op == FG_##name)

/* Identities that hold bit for bit, NaN's sign apart. Not x + 0.0 (-0.0 becomes 0.0), not x * 0.
 * Returns 1 where node i is another one. */
static int simplify(Planner *p, int32_t i)
{
    FgGraphNode *n = &p->nodes[i];
    int32_t a = n->a, b = n->b;
    switch (n->op) {
    case FG_multiply:
        if (is_the_number(p, a, 1.0)) return become_view(p, i, b);
        if (is_the_number(p, b, 1.0)) return become_view(p, i, a);
        break;
    case FG_weigh:
        n->a = a = unweighed(p, i, a, b);
        n->b = b = unweighed(p, i, b, a);
        break;
    case FG_divide:
        if (is_the_number(p, b, 1.0)) return become_view(p, i, a);
        break;
    case FG_subtract:
        if (is_the_number(p, b, 0.0)) return become_view(p, i, a);
        if (IS(b, negative)) { n->op = FG_add; n->b = p->nodes[b].a; }
        break;
    case FG_add:
        if (is_the_number(p, a, -0.0)) return become_view(p, i, b);
        if (is_the_number(p, b, -0.0)) return become_view(p, i, a);
        if (IS(b, negative)) { n->op = FG_subtract; n->b = p->nodes[b].a; }
        else if (IS(a, negative)) { n->op = FG_subtract; n->a = b; n->b = p->nodes[a].a; }
        break;
    case FG_negative:
        if (IS(a, negative)) return become_view(p, i, p->nodes[a].a);
        break;
    case FG_positive: case FG_root_of: case FG_as_written:
        return become_view(p, i, a);
    case FG_cast:
        if (n->dtype == p->nodes[a].dtype) return become_view(p, i, a);
        break;
    case FG_reshape: case FG_broadcast:
        if (p->nodes[a].shape == n->shape) return become_view(p, i, a);
        if (IS(a, reshape) && n->op == FG_reshape) {
            n->a = p->nodes[a].a;
            if (p->nodes[n->a].shape == n->shape) return become_view(p, i, n->a);
        }
        break;
    case FG_transpose:
        if (is_identity_order(attribute_of(p, i))) return become_view(p, i, a);
        if (IS(a, transpose)) {
            const FgAttribute *outer = attribute_of(p, i), *inner = attribute_of(p, a);
            int identity = 1;
            for (int32_t k = 0; k < outer->count; k++)
                if (inner->numbers[outer->numbers[k]] != k) identity = 0;
            if (identity) return become_view(p, i, p->nodes[a].a);
        }
        break;
    case FG_sum: case FG_prod: case FG_max: case FG_min: case FG_logsumexp:
        if (p->nodes[a].rank == 0) return become_view(p, i, a);
        break;
    default:
        break;
    }
    if (n->op == FG_multiply || n->op == FG_divide || n->op == FG_weigh)
        if (IS(n->a, negative) && IS(n->b, negative)) {
            n->a = p->nodes[n->a].a;
            n->b = p->nodes[n->b].a;
        }
    return 0;
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static int may_merge(const Planner *p, int32_t i)
{
    const FgGraphNode *n = &p->nodes[i];
    if (n->op == FG_leaf) return !(n->flags & FG_GRAPH_INPUT);
    return n->op != FG_custom && attribute_of(p, i)->kind != FG_ATTR_PYTHON;
}

/* The node that computes the same, or i itself, which is then found by later ones. */
static int32_t merge(Planner *p, int32_t i)
{
    FgGraphNode *n = &p->nodes[i];
    int32_t few[3], *list, other_few[3], *other;
    if (!may_merge(p, i)) return i;
    if ((n->op == FG_add || n->op == FG_multiply || n->op == FG_weigh) && n->a > n->b) {
        int32_t x = n->a;           /* they commute bit for bit                                   */
        n->a = n->b;
        n->b = x;
    }
    int32_t count = operands_of(p, i, few, &list);
    uint64_t bits, h = mix(n->op | (uint64_t)n->dtype << 16 | (uint64_t)n->shape << 32, n->attr);
    memcpy(&bits, &n->constant, 8);
    h = mix(h, bits);
    for (int32_t k = 0; k < count; k++) h = mix(h, (uint64_t)list[k] + 1);
    for (uint32_t at = (uint32_t)(h >> 20) & p->mask;; at = (at + 1) & p->mask) {
        int32_t j = p->table[at];
        if (j < 0) {
            p->table[at] = i;
            return i;
        }
        const FgGraphNode *m = &p->nodes[j];
        if (m->op == n->op && m->dtype == n->dtype && m->shape == n->shape && m->attr == n->attr &&
            ((m->flags ^ n->flags) & (FG_GRAPH_LITERAL | UNIFORM)) == 0 &&
            memcmp(&m->constant, &n->constant, 8) == 0 &&
            operands_of(p, j, other_few, &other) == count &&
            memcmp(list, other, (size_t)count * sizeof(int32_t)) == 0)
            return j;
    }
}

static void simplify_all(Planner *p)
{
    uint32_t size = 16;
    while (size < 2 * (uint64_t)p->count) size *= 2;
    p->table = SCRATCH(int32_t, size);
    p->mask = (int32_t)(size - 1);
    memset(p->table, -1, size * sizeof(int32_t));
    for (int32_t i = 0; i < p->count; i++) {
        FgGraphNode *n = &p->nodes[i];
        p->same[i] = i;
        if (!p->needed[i]) continue;
        if (n->op == FG_leaf) {
            leaf_settle(p, n);
        } else {
            if (n->flags & FG_GRAPH_MANY) {
                for (int32_t k = n->a; k < n->a + n->b; k++)
                    p->operands[k] = p->same[p->operands[k]];
            } else {
                if (n->a >= 0) n->a = p->same[n->a];
                if (n->b >= 0) n->b = p->same[n->b];
                if (n->c >= 0) n->c = p->same[n->c];
            }
            if (simplify(p, i)) {
                p->plan->folded++;
                continue;
            }
            if (fold(p, i)) p->plan->folded++;
        }
        p->same[i] = merge(p, i);
        if (p->same[i] != i) p->plan->merged++;
    }
}

/* ---- pass 3: where values are, and what is to be done ------------------------------------- */

static int64_t *strides_new(Planner *p, int32_t rank) { return KEEP(int64_t, rank); }

static const int64_t *strides_plain(Planner *p, int32_t i)
{
    const FgDims *d = dims_of(p, i);
    int64_t *strides = strides_new(p, d->rank), step = fg_item(p->nodes[i].dtype);
    for (int32_t k = d->rank - 1; k >= 0; k--) {
        strides[k] = step;
        step *= d->dims[k];
    }
    return strides;
}

static int is_plain(const FgDims *d, const int64_t *strides, int64_t item)
{
    for (int32_t k = d->rank - 1; k >= 0; k--) {
        if (d->dims[k] != 1 && strides[k] != item) return d->size == 0;
        item *= d->dims[k];
    }
    return 1;
}

static void spot_own(Planner *p, int32_t i)
{
    Spot *s = &p->spots[i];
    s->base = i;
    s->offset = 0;
    s->number = is_constant(p, i) || (p->nodes[i].rank == 0 && is_number(p->nodes[i].dtype));
    s->contiguous = !s->number;
    s->strides = NULL;
}

static const int64_t *strides_of(Planner *p, int32_t i)
{
    Spot *s = &p->spots[i];
    if (s->strides == NULL) s->strides = strides_plain(p, i);
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
    const int64_t *own = strides_of(p, n->a);
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
        for (int32_t k = 0; k < d->rank; k++) {
            int32_t j = k - (d->rank - from->rank);
            strides[k] = j >= 0 && from->dims[j] != 1 ? own[j] : 0;
        }
    } else {                                                    /* item                           */
        int32_t axis = 0, r = 0;
        for (int32_t k = 0; k < attr->count; k += FG_INDEX_FIELDS) {
            const int64_t *index = attr->numbers + k;
            if (index[0] == FG_INDEX_NEW) {
                strides[r++] = 0;
                continue;
            }
            if (d->size) s->offset += index[1] * own[axis];
            if (index[0] == FG_INDEX_SLICE) strides[r++] = index[2] * own[axis];
            axis++;
        }
    }
    s->strides = strides;
    s->contiguous = is_plain(d, strides, fg_item(n->dtype));
    return 1;
}

static int kind_of(Planner *p, int32_t i)
{
    FgGraphNode *n = &p->nodes[i];
    int32_t few[3], *list, count;
    int dtype = n->dtype, from = 0;
    if (n->a >= 0 && !(n->flags & FG_GRAPH_MANY)) from = p->nodes[n->a].dtype;
    if (n->op == FG_leaf) return K_LEAF;
    if (n->op == FG_custom && attribute_of(p, i)->kind == FG_ATTR_LOOP) return K_LOOP;
    if (n->op == FG_result && p->kind[n->a] == K_LOOP) return K_RESULT;
    if (attribute_of(p, i)->kind == FG_ATTR_PYTHON) return K_PYTHON;
    if (attribute_of(p, i)->kind == FG_ATTR_ROWS) {
        count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (!p->spots[list[k]].contiguous || p->spots[list[k]].number) return K_PYTHON;
        return n->rank == 0 ? K_PYTHON : K_ROWS_AT;
    }
    if (is_value(n->op)) return !is_float(dtype) ? K_PYTHON : n->rank ? K_LANES : K_SCALAR;
    if (is_compare(n->op)) return !is_float(from) ? K_PYTHON : n->rank ? K_LANES : K_SCALAR;
    switch (n->op) {
    case FG_reshape: case FG_transpose: case FG_flip: case FG_broadcast: case FG_item:
        if (spot_view(p, i)) return K_VIEW;
        return n->rank == 0 && is_number(dtype) ? K_LOAD : K_COPY;
    case FG_cast:
        if (n->rank == 0 && is_number(dtype))
            return is_number(from) ? K_SCALAR : K_LOAD;
        if (is_float(dtype) && (is_number(from) || from == FG_INT64)) return K_LANES;
        return dtype == FG_BOOL && is_float(from) ? K_LANES : K_PYTHON;
    case FG_sum:
        return is_float(dtype) ? K_SUM : K_PYTHON;
    case FG_prod: case FG_max: case FG_min: case FG_logsumexp:
        return is_float(dtype) ? K_ROWS : K_PYTHON;
    case FG_matmul:
        return is_float(dtype) && fg_vm_matmul[dtype == FG_FLOAT64] != NULL ? K_MATMUL : K_PYTHON;
    case FG_place: case FG_assign:
        return K_COPY;
    case FG_concatenate:
        if (attribute_of(p, i)->numbers[0] >= 0) return K_COPY;
        count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (!is_number(p->nodes[list[k]].dtype)) return K_PYTHON;
        return K_PACK;
    case FG_call:                       /* a logical operator of booleans, or isfinite            */
        if (attribute_of(p, i)->numbers[0] == FG_CALL_WEIGHTS) return K_WEIGHTS;
        if (attribute_of(p, i)->numbers[0] == FG_CALL_ALL_FINITE ||
            (attribute_of(p, i)->numbers[0] == FG_BLOCK_FINITE && n->rank == 0)) return K_FINITE;
        return n->rank ? K_LANES : K_SCALAR;
    default:
        return K_PYTHON;
    }
}

/* ---- pass 4: which nodes run together ----------------------------------------------------- */

/* Whether a consumer in group g finds operand x among the values that the group is just working on:
 * in a block register, or in a register of the scalar string. */
static int is_inside(const Planner *p, int32_t x, int32_t g)
{
    const Spot *s = &p->spots[x];
    int32_t base = s->base;
    if (p->group[base] != g) return 0;
    if (p->kind[base] == K_SCALAR) return p->groups[g].space == SPACE_SCALARS;
    return p->kind[base] == K_LANES && s->contiguous && s->offset == 0 &&
           dims_of(p, x)->size == dims_of(p, base)->size;
}

static int32_t group_new(Planner *p, int kind, int64_t space, int32_t level, int32_t node)
{
    Group *g = &p->groups[p->group_count];
    g->kind = (uint8_t)kind;
    g->level = level;
    g->space = space;
    g->after = -1;
    g->before = -1;
    g->node = g->last = node;
    return p->group_count++;
}

static int32_t *space_newest(Planner *p, int64_t space)
{
    for (uint32_t at = (uint32_t)(mix(7, (uint64_t)space) >> 30) & p->space_mask;;
         at = (at + 1) & p->space_mask) {
        if (p->spaces[at].newest < 0) p->spaces[at].space = space;
        if (p->spaces[at].space == space) return &p->spaces[at].newest;
    }
}

/* Groups have levels, and whatever depends on a group has a higher one. So a node may join any
 * group that is above all its operands, and the highest of its operands' groups if it finds the
 * operands there inside. */
static int32_t group_for(Planner *p, int32_t i, int kind, int64_t space, const int32_t *list,
                         int32_t count)
{
    enum { LOOK_BACK = 8 };
    int32_t level = 0, own = -1;
    int inside = 1;
    for (int32_t k = 0; k < count; k++) {
        int32_t g = p->group[p->spots[list[k]].base];
        if (g >= 0 && p->groups[g].level > level) level = p->groups[g].level;
    }
    for (int32_t k = 0; k < count; k++) {
        int32_t g = p->group[p->spots[list[k]].base];
        if (g < 0 || p->groups[g].level < level) continue;
        inside = inside && (own < 0 || own == g) && is_inside(p, list[k], g);
        own = g;
    }
    if (own >= 0 && inside && p->groups[own].space == space) return own;
    int32_t *newest = space_newest(p, space), found = -1;
    int32_t g = *newest;
    for (int look = 0; g >= 0 && look < LOOK_BACK; g = p->groups[g].before, look++)
        if (p->groups[g].level > level &&
            (found < 0 || p->groups[g].level < p->groups[found].level)) found = g;
    if (found >= 0) return found;
    found = group_new(p, kind, space, level + 1, i);
    p->groups[found].before = *newest;
    *newest = found;
    return found;
}

static void group_all(Planner *p)
{
    const FgSource *s = p->source;
    int32_t few[3], *list, guard = -1, level;
    int64_t waiting = 0;
    p->groups = SCRATCH(Group, p->count + s->guard_count);
    uint32_t size = 16;
    while (size < 2 * (uint64_t)(s->shape_count + 4)) size *= 2;
    p->spaces = take(p, &p->temporary, size * sizeof(*p->spaces));
    for (uint32_t k = 0; k < size; k++) p->spaces[k].newest = -1;
    p->space_mask = (int32_t)(size - 1);
    for (int32_t i = 0; i < p->count; i++) {
        p->group[i] = -1;
        if (p->needed[i]) {
            int32_t count = operands_of(p, i, few, &list);
            spot_own(p, i);
            int kind = p->kind[i] = (uint8_t)kind_of(p, i);
            switch (kind) {
            case K_LEAF: case K_VIEW:
                break;
            case K_RESULT:
                p->group[i] = p->group[list[0]];
                break;
            case K_SCALAR:
                p->group[i] = group_for(p, i, FG_STEP_SCALARS, SPACE_SCALARS, list, count);
                break;
            case K_LANES:
                p->group[i] = group_for(p, i, FG_STEP_BLOCKS, dims_of(p, i)->size, list, count);
                break;
            case K_SUM:
                p->group[i] = group_for(p, i, FG_STEP_BLOCKS, dims_of(p, list[0])->size, list, 1);
                break;
            case K_LOAD:
                p->group[i] = group_for(p, i, FG_STEP_LOAD, SPACE_LOADS, list, count);
                break;
            default:
                level = 0;
                for (int32_t k = 0; k < count; k++) {
                    int32_t g = p->group[p->spots[list[k]].base];
                    if (g >= 0 && p->groups[g].level > level) level = p->groups[g].level;
                }
                /* What may fail or cost much comes after the guards taken before it. */
                if ((kind == K_PYTHON || kind == K_ROWS_AT) && guard >= 0 &&
                    p->groups[guard].level > level)
                    level = p->groups[guard].level;
                int32_t g = group_new(p, kind == K_ROWS ? FG_STEP_ROWS : kind == K_MATMUL
                                      ? FG_STEP_MATMUL : kind == K_COPY ? FG_STEP_COPY
                                      : kind == K_PACK ? FG_STEP_PACK : kind == K_FINITE
                                      ? FG_STEP_FINITE : kind == K_LOOP ? FG_STEP_LOOP
                                      : kind == K_WEIGHTS ? FG_STEP_WEIGHTS
                                      : kind == K_ROWS_AT ? FG_STEP_ROWS_AT
                                      : FG_STEP_PYTHON,
                                      SPACE_ALONE, level + 1, i);
                p->group[i] = g;
                if (kind == K_PYTHON || kind == K_ROWS_AT) p->groups[g].after = guard;
            }
            if (p->group[i] >= 0) p->groups[p->group[i]].last = i;
        }
        /* Guards are looked at in the order in which they were taken. */
        while (waiting < s->guard_count && s->guards[waiting].node <= i) {
            int32_t g = p->group[p->spots[p->same[s->guards[waiting].node]].base];
            level = g >= 0 ? p->groups[g].level : 0;
            if (guard >= 0 && p->groups[guard].level > level) level = p->groups[guard].level;
            g = group_new(p, FG_STEP_GUARD, SPACE_ALONE, level + 1, i);
            p->groups[g].after = guard;
            p->groups[g].place = (int32_t)waiting++;            /* until it is ordered            */
            guard = g;
        }
    }
}

/* A node that its own group does not need moves to the one later group that does, where its
 * operands are in memory anyway: it is stored no longer. Consumers stand after their operands, so
 * that all of a node's have moved before it is its turn. */
static void sink_all(Planner *p)
{
    enum { NOBODY = -1, SEVERAL = -2 };
    int32_t *wanted_by = SCRATCH(int32_t, p->count), few[3], *list;
    uint8_t *stored = SCRATCH(uint8_t, p->count);
    for (int32_t i = 0; i < p->count; i++) wanted_by[i] = NOBODY;
    for (int32_t i = 0; i < p->count; i++) {
        if (!p->needed[i] || p->kind[i] == K_VIEW) continue;
        int32_t count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (!is_inside(p, list[k], p->group[i])) stored[p->spots[list[k]].base] = 1;
    }
    for (int64_t k = 0; k < p->source->output_count; k++)
        wanted_by[p->spots[p->same[p->source->outputs[k]]].base] = SEVERAL;
    for (int64_t k = 0; k < p->source->guard_count; k++)
        wanted_by[p->spots[p->same[p->source->guards[k].node]].base] = SEVERAL;
    for (int32_t i = (int32_t)p->count - 1; i >= 0; i--) {
        if (!p->needed[i] || p->group[i] < 0) continue;
        int32_t count = operands_of(p, i, few, &list), to = wanted_by[i];
        int lanes = p->kind[i] == K_LANES;
        if (lanes && to >= 0 && to != p->group[i] &&
            p->groups[to].space == p->groups[p->group[i]].space) {
            int ready = 1;
            for (int32_t k = 0; k < count; k++) {
                int32_t base = p->spots[list[k]].base;
                ready = ready && (p->group[base] < 0 || p->kind[base] != K_LANES || stored[base]);
            }
            if (ready) p->group[i] = to;
        }
        for (int32_t k = 0; k < count; k++) {
            int32_t x = list[k], base = p->spots[x].base;
            int whole = p->spots[x].contiguous && p->spots[x].offset == 0 &&
                        dims_of(p, x)->size == dims_of(p, base)->size &&
                        (lanes || p->kind[i] == K_SUM);
            if (!whole) wanted_by[base] = SEVERAL;
            else if (wanted_by[base] == NOBODY) wanted_by[base] = p->group[i];
            else if (wanted_by[base] != p->group[i]) wanted_by[base] = SEVERAL;
        }
    }
}

/* About how many arithmetic operations an operator costs. */
static int cost_of(int op)
{
    switch (op) {
    case FG_add: case FG_subtract: case FG_multiply: case FG_negative: case FG_square:
    case FG_weigh: case FG_where: case FG_abs: case FG_maximum: case FG_minimum: case FG_relu: case FG_step:
    case FG_is_zero: case FG_tanh_da: case FG_cast: case FG_call:
        return 1;
    case FG_divide: case FG_reciprocal: case FG_sqrt:
        return 3;
    default:
        return is_compare(op) ? 1 : 8;
    }
}

/* Large values that several runs need are computed in each of them, where that costs less than to
 * bring them to memory and back: 16 bytes an element, as long as 20 additions. */
static void again_all(Planner *p)
{
    enum { LARGE = 32768, LIMIT = 20, NEVER = 1 << 20 };
    int32_t few[3], *list;
    int32_t *cost = SCRATCH(int32_t, p->count);
    uint8_t *crosses = SCRATCH(uint8_t, p->count), *stored = SCRATCH(uint8_t, p->count);
    for (int32_t i = 0; i < p->count; i++) {
        if (!p->needed[i] || p->group[i] < 0) continue;
        int32_t count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++) {
            int32_t x = list[k], base = p->spots[x].base;
            if (is_inside(p, x, p->group[i])) continue;
            if ((p->kind[i] == K_LANES || p->kind[i] == K_SUM) && p->spots[x].contiguous &&
                p->spots[x].offset == 0 && dims_of(p, x)->size == dims_of(p, base)->size &&
                p->groups[p->group[i]].space == dims_of(p, base)->size) crosses[base] = 1;
            else stored[base] = 1;
        }
    }
    for (int64_t k = 0; k < p->source->output_count; k++)
        stored[p->spots[p->same[p->source->outputs[k]]].base] = 1;
    for (int64_t k = 0; k < p->source->guard_count; k++)
        stored[p->spots[p->same[p->source->guards[k].node]].base] = 1;
    for (int32_t i = 0; i < p->count; i++) {
        if (p->needed[i] && p->kind[i] == K_LANES && dims_of(p, i)->size < LARGE)
            p->again[i] = stored[i] || crosses[i] ? 2 : 0;
        if (!p->needed[i] || p->kind[i] != K_LANES || dims_of(p, i)->size < LARGE) continue;
        int32_t count = operands_of(p, i, few, &list);
        cost[i] = cost_of(p->nodes[i].op);
        for (int32_t k = 0; k < count; k++) {
            int32_t base = p->spots[list[k]].base;
            if (p->kind[base] != K_LANES || stored[base]) continue;
            if (dims_of(p, base)->size < LARGE || p->spots[list[k]].offset ||
                !p->spots[list[k]].contiguous || dims_of(p, base)->size != dims_of(p, i)->size)
                cost[i] = NEVER;
            if (cost[i] < NEVER) cost[i] += cost[base];
        }
        if (cost[i] > LIMIT && crosses[i]) stored[i] = 1;
        if (cost[i] > LIMIT) cost[i] = NEVER;
        p->again[i] = stored[i] ? 2 : crosses[i];
    }
}

/* ---- pass 5: the order of the groups ------------------------------------------------------ */

static void heap_push(const Planner *p, int32_t *heap, int32_t *count, int32_t g)
{
    int32_t at = (*count)++;
    while (at && p->groups[heap[(at - 1) / 2]].last > p->groups[g].last) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = g;
}

static int32_t heap_pop(const Planner *p, int32_t *heap, int32_t *count)
{
    int32_t top = heap[0], g = heap[--*count], at = 0;
    for (int32_t child; (child = 2 * at + 1) < *count; at = child) {
        if (child + 1 < *count &&
            p->groups[heap[child + 1]].last < p->groups[heap[child]].last) child++;
        if (p->groups[heap[child]].last >= p->groups[g].last) break;
        heap[at] = heap[child];
    }
    heap[at] = g;
    return top;
}

/* Calls edge(from, to) for each dependence between groups, some of them several times. */
#define EACH_EDGE(from, to, ...) \
    for (int32_t i_ = 0; i_ < p->count; i_++) { \
        int32_t few_[3], *list_; \
        if (!p->needed[i_] || p->group[i_] < 0) continue; \
        for (int32_t k_ = operands_of(p, i_, few_, &list_) - 1; k_ >= 0; k_--) { \
            const int32_t from = p->group[p->spots[list_[k_]].base], to = p->group[i_]; \
            if (from >= 0 && from != to) { __VA_ARGS__ } \
        } \
    } \
    for (int32_t to = 0; to < p->group_count; to++) { \
        if (p->groups[to].kind == FG_STEP_GUARD) { \
            const int32_t from = p->group[p->spots[p->same[ \
                p->source->guards[p->groups[to].place].node]].base]; \
            if (from >= 0) { __VA_ARGS__ } \
        } \
        if (p->groups[to].after >= 0) { const int32_t from = p->groups[to].after; __VA_ARGS__ } \
    }

/* Operands first; else as recorded, by a group's last node, which keeps few values waiting. */
static void order_groups(Planner *p)
{
    int32_t n = p->group_count, done = 0, ready = 0;
    int32_t *waits = SCRATCH(int32_t, n), *first = SCRATCH(int32_t, n + 1);
    int32_t *heap = SCRATCH(int32_t, n);
    p->order = SCRATCH(int32_t, n);
    EACH_EDGE(from, to, first[from + 1]++; waits[to]++;)
    for (int32_t g = 0; g < n; g++) first[g + 1] += first[g];
    int32_t *consumers = SCRATCH(int32_t, first[n]), *fill = SCRATCH(int32_t, n);
    EACH_EDGE(from, to, consumers[first[from] + fill[from]++] = to;)
    int32_t *nodes = SCRATCH(int32_t, n), filled = 0;
    for (int32_t i = 0; i < p->count; i++)
        if (p->needed[i] && p->group[i] >= 0) nodes[p->group[i]]++;
    for (int32_t g = 0; g < n; g++) {
        if (nodes[g] == 0 && p->groups[g].kind != FG_STEP_GUARD) continue;
        filled++;
        if (waits[g] == 0) heap_push(p, heap, &ready, g);
    }
    while (ready) {
        int32_t g = heap_pop(p, heap, &ready);
        p->order[done++] = g;
        for (int32_t k = first[g]; k < first[g + 1]; k++)
            if (--waits[consumers[k]] == 0) heap_push(p, heap, &ready, consumers[k]);
    }
    p->step_count = done;
    if (done != filled) p->plan->error = "the groups of nodes depend on each other in a circle";
}

/* ---- pass 6: what has to be kept, and where ----------------------------------------------- */

static void note_use(Planner *p, int32_t x, int32_t at)
{
    int32_t base = p->spots[x].base;
    if (p->place[base] >= 0 && p->plan->places[p->place[base]].last < at)
        p->plan->places[p->place[base]].last = at;
}

/* What node i, which is computed again in step `at`, reads there from memory. */
static void note_again(Planner *p, int32_t i, int32_t group, int32_t at)
{
    int32_t few[3], *list, count = operands_of(p, i, few, &list);
    for (int32_t k = 0; k < count; k++) {
        int32_t base = p->spots[list[k]].base;
        if (is_inside(p, list[k], group)) continue;
        if (p->kind[base] == K_LANES && p->again[base] != 2) note_again(p, base, group, at);
        else if (at < 0) p->outside[base] = 1;
        else note_use(p, list[k], at);
    }
}

static void place_all(Planner *p)
{
    const FgSource *s = p->source;
    FgPlan *plan = p->plan;
    int32_t few[3], *list;
    int32_t *when = SCRATCH(int32_t, p->group_count);
    for (int32_t k = 0; k < p->step_count; k++) when[p->order[k]] = k;
    plan->places = KEEP(FgPlace, 2 * p->count + 1);
    plan->node_count = p->count;
    for (int32_t i = 0; i < p->count; i++) {
        p->place[i] = -1;
        if (p->needed[i]) plan->kept_count++;
    }
    for (int32_t i = 0; i < p->count; i++) {
        if (!p->needed[i] || p->kind[i] == K_VIEW) continue;
        int32_t count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (is_inside(p, list[k], p->group[i])) continue;
            else if (p->again[p->spots[list[k]].base] == 1)
                note_again(p, p->spots[list[k]].base, p->group[i], -1);
            else p->outside[p->spots[list[k]].base] = 1;
    }
    for (int64_t k = 0; k < s->output_count; k++)
        p->outside[p->spots[p->same[s->outputs[k]]].base] = 1;
    for (int64_t k = 0; k < s->guard_count; k++)
        p->outside[p->spots[p->same[s->guards[k].node]].base] = 1;
    for (int32_t i = 0; i < p->count; i++) {
        const FgGraphNode *n = &p->nodes[i];
        if (!p->needed[i] || p->kind[i] == K_VIEW || p->kind[i] == K_LOOP || p->spots[i].number ||
            (p->kind[i] == K_LANES && !p->outside[i]) || is_constant(p, i)) continue;
        FgPlace *place = &plan->places[plan->place_count];
        p->place[i] = plan->place_count++;
        place->kind = FG_PLACE_FRAME;
        place->which = -1;
        place->node = i;
        place->nbytes = dims_of(p, i)->size * fg_item(n->dtype);
        place->first = p->group[i] >= 0 ? when[p->group[i]] : 0;
        place->last = place->first;
        if (n->op == FG_leaf && n->flags & FG_GRAPH_INPUT) {
            place->kind = FG_PLACE_INPUT;
            place->which = (int32_t)n->constant;
        } else if (n->op == FG_leaf) {
            place->kind = FG_PLACE_CONSTANT;
            place->data = attribute_of(p, i)->data;
        }
    }
    for (int32_t i = 0; i < p->count; i++) {
        if (!p->needed[i] || p->group[i] < 0) continue;
        int32_t count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (p->again[p->spots[list[k]].base] != 1) note_use(p, list[k], when[p->group[i]]);
            else if (!is_inside(p, list[k], p->group[i]))
                note_again(p, p->spots[list[k]].base, p->group[i], when[p->group[i]]);
    }
    for (int32_t g = 0; g < p->group_count; g++)
        if (p->groups[g].kind == FG_STEP_GUARD)
            note_use(p, p->same[s->guards[p->groups[g].place].node], when[g]);
    plan->output_place = KEEP(int32_t, s->output_count);
    for (int32_t k = 0; k < s->output_count; k++) {
        int32_t x = p->same[s->outputs[k]], base = p->spots[x].base, at = p->place[base];
        plan->output_place[k] = -1;
        note_use(p, x, p->step_count);
        if (at >= 0 && plan->places[at].kind == FG_PLACE_FRAME && p->spots[x].contiguous &&
            p->spots[x].offset == 0 && dims_of(p, x)->size == dims_of(p, base)->size &&
            p->nodes[x].rank) {
            plan->places[at].kind = FG_PLACE_OUTPUT;
            plan->places[at].which = k;
            plan->output_place[k] = at;
        }
    }
}

/* Memory beside the values, for one step. */
static int32_t place_extra(Planner *p, int32_t node, int64_t nbytes, int32_t at)
{
    FgPlace *place = &p->plan->places[p->plan->place_count];
    place->kind = FG_PLACE_FRAME;
    place->which = -1;
    place->node = node;
    place->nbytes = nbytes;
    place->first = place->last = at;
    return p->plan->place_count++;
}

/* ---- pass 7: steps ------------------------------------------------------------------------ */

static uint32_t register_of(Planner *p, int32_t base)
{
    if (p->reg[base] < 0) p->reg[base] = (int32_t)p->plan->registers++;
    return (uint32_t)p->reg[base];
}

static FgOperand operand_for(Planner *p, int32_t x)
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
        o.strides = strides_of(p, x);
    }
    return o;
}

/* The walk over memory with these strides as if broadcast to a shape. */
static FgWalk walk_new(Planner *p, const FgDims *shape, const FgDims *own, const int64_t *strides)
{
    int64_t *dims = KEEP(int64_t, shape->rank + 1), *steps = KEEP(int64_t, shape->rank + 1);
    int32_t r = 0;
    for (int32_t i = 0; i < shape->rank; i++) {
        int64_t dim = shape->dims[i];
        int32_t j = i - (shape->rank - own->rank);
        int64_t stride = j >= 0 && own->dims[j] != 1 ? strides[j] : 0;
        if (dim == 1) continue;
        if (r && steps[r - 1] == stride * dim) {
            dims[r - 1] *= dim;
            steps[r - 1] = stride;
        } else {
            dims[r] = dim;
            steps[r++] = stride;
        }
    }
    if (r == 0) {
        dims[0] = 1;
        steps[0] = 0;
        r = 1;
    }
    return (FgWalk){ r, dims, steps };
}

static int64_t work_of(double work) { return work < 1e15 ? (int64_t)work : (int64_t)1e15; }

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

/* What a block run is made from: values in the order of their computation, one operator each. */
typedef struct BlockBuilder {
    FgBlockRun *run;
    int32_t *value, *stamp;         /* by node: the value that has it in the run of that stamp    */
    int32_t *shape;                 /* ... brought in for results of that shape                   */
    int32_t now;
    int32_t count, room;
    FgBlockOp *ops;                 /* operands and results are numbers of values                 */
    int32_t value_count;
    uint8_t *item, *fixed;          /* of a value: bytes; whether its register is its own         */
    int32_t *last;                  /* the operator that reads it last                            */
    int32_t *mask;                  /* the same as 0.0 and 1.0, or -1                             */
} BlockBuilder;

static int32_t value_new(BlockBuilder *b, int item, int fixed)
{
    int32_t v = b->value_count++;
    b->item[v] = (uint8_t)item;
    b->fixed[v] = (uint8_t)fixed;
    b->last[v] = -1;
    b->mask[v] = -1;
    return v;
}

static void block_emit(BlockBuilder *b, int op, int dtype, int32_t y, int32_t x0, int32_t x1,
                       int32_t x2)
{
    FgBlockOp *o = &b->ops[b->count];
    *o = (FgBlockOp){ (uint16_t)op, (uint8_t)dtype, y >= 0 ? b->item[y] : 0, (uint32_t)y,
                      (uint32_t)x0, (uint32_t)x1, (uint32_t)x2 };
    if (x0 >= 0 && op != FG_BLOCK_GATHER) b->last[x0] = b->count;
    if (x1 >= 0 && op != FG_BLOCK_SUM) b->last[x1] = b->count;
    if (x2 >= 0) b->last[x2] = b->count;
    b->count++;
}

static void block_node(Planner *p, BlockBuilder *b, int32_t i, int32_t group, int32_t at);

/* The value that stands for operand x of a node of that shape. */
static int32_t block_value(Planner *p, BlockBuilder *b, int32_t x, uint32_t shape, int32_t group)
{
    int32_t base = p->spots[x].base;
    if (is_inside(p, x, group)) return b->value[base];
    if (p->kind[base] == K_LANES && p->again[base] != 2) {
        if (b->stamp[base] != b->now) block_node(p, b, base, group, b->now);
        b->stamp[base] = b->now;
        return b->value[base];
    }
    const FgDims *own = dims_of(p, x), *wide = &p->source->shapes[shape];
    int direct = !p->spots[x].number && p->spots[x].contiguous && own->size == wide->size;
    int item = (int)fg_item(p->nodes[x].dtype);
    if (b->stamp[x] == b->now && (direct || p->spots[x].number || b->shape[x] == (int32_t)shape))
        return b->value[x];
    FgBlockInput *in = &b->run->inputs[b->run->input_count];
    in->from = operand_for(p, x);
    in->direct = (uint8_t)direct;
    in->item = (uint8_t)item;
    int32_t v = value_new(b, item, direct || in->from.place < 0);
    in->reg = (uint32_t)v;
    if (!b->fixed[v]) {
        in->walk = walk_new(p, wide, own, in->from.strides);
        block_emit(b, FG_BLOCK_GATHER, p->nodes[x].dtype, v, b->run->input_count, -1, -1);
    }
    b->run->input_count++;
    b->stamp[x] = b->now;
    b->shape[x] = (int32_t)shape;
    b->value[x] = v;
    return v;
}

static int32_t block_mask(BlockBuilder *b, int32_t v, int dtype)
{
    if (b->mask[v] < 0 || b->item[b->mask[v]] != fg_item(dtype)) {
        int32_t y = value_new(b, (int)fg_item(dtype), 0);
        block_emit(b, FG_BLOCK_MASK, dtype, y, v, -1, -1);
        b->mask[v] = y;
    }
    return b->mask[v];
}

static void block_node(Planner *p, BlockBuilder *b, int32_t i, int32_t group, int32_t at)
{
    const FgGraphNode *n = &p->nodes[i];
    int32_t few[3], *list, x[3] = { -1, -1, -1 };
    int32_t arity = operands_of(p, i, few, &list);
    if (p->kind[i] == K_SUM) {
        FgBlockSum *sum = &b->run->sums[b->run->sum_count];
        const FgDims *from = dims_of(p, list[0]), *to = dims_of(p, i);
        x[0] = block_value(p, b, list[0], p->nodes[list[0]].shape, group);
        sum->dtype = n->dtype;
        sum->size = to->size;
        sum->all = n->rank == 0;
        if (sum->all) {
            sum->reg = register_of(p, i);
            sum->place = sum->wide = -1;
        } else {
            int64_t mask = attribute_of(p, i)->numbers[0], step = 8;
            int64_t *strides = SCRATCH(int64_t, from->rank);
            for (int32_t k = from->rank - 1; k >= 0; k--) {
                strides[k] = mask >> k & 1 ? 0 : step;
                if (!(mask >> k & 1)) step *= from->dims[k];
            }
            sum->walk = walk_new(p, from, from, strides);
            sum->place = p->place[i];
            sum->wide = n->dtype == FG_FLOAT64 ? sum->place
                        : place_extra(p, i, to->size * 8, at);
        }
        block_emit(b, FG_BLOCK_SUM, n->dtype, -1, x[0], b->run->sum_count++, -1);
        return;
    }
    for (int32_t k = 0; k < arity && k < 3; k++) {
        x[k] = block_value(p, b, list[k], n->shape, group);
        if (is_value(n->op) && p->nodes[list[k]].dtype == FG_BOOL)
            x[k] = block_mask(b, x[k], n->dtype);
    }
    int op = n->op, dtype = n->dtype, from = p->nodes[list[0]].dtype;
    if (is_compare(op)) {
        dtype = from;
    } else if (op == FG_call) {
        op = (int)attribute_of(p, i)->numbers[0];
        if (op == FG_BLOCK_FINITE) dtype = from;
    } else if (op == FG_cast) {
        op = n->dtype == FG_BOOL ? FG_BLOCK_TRUTH : from == FG_BOOL ? FG_BLOCK_MASK
             : from == FG_INT64 ? FG_BLOCK_WHOLE : from == FG_FLOAT32 ? FG_BLOCK_WIDEN
             : FG_BLOCK_NARROW;
        if (op == FG_BLOCK_TRUTH) dtype = from;
    }
    int own = p->group[i] == group && p->outside[i];
    int32_t y = value_new(b, (int)fg_item(n->dtype), own);
    if (own) {
        FgBlockOutput *out = &b->run->outputs[b->run->output_count++];
        out->place = p->place[i];
        out->reg = (uint32_t)y;
        out->item = b->item[y];
    }
    block_emit(b, op, dtype, y, x[0], x[1], x[2]);
    b->value[i] = y;
}

static int fused_operator(int first, int second, int at)
{
    int weighs = first == FG_weigh;
    if (first != FG_multiply && first != FG_weigh) return 0;
    if (second == FG_add) return weighs ? FG_FUSED_weigh_add : FG_FUSED_multiply_add;
    if (second == FG_subtract && at == 0)
        return weighs ? FG_FUSED_weigh_subtract : FG_FUSED_multiply_subtract;
    if (second == FG_subtract)
        return weighs ? FG_FUSED_subtract_weigh : FG_FUSED_subtract_multiply;
    if (second == first) return weighs ? FG_FUSED_weigh_weigh : FG_FUSED_multiply_multiply;
    return 0;
}

/* A product that only the next sum, difference or product needs is computed with it. */
static void block_fuse(Planner *p, BlockBuilder *b)
{
    int32_t *uses = SCRATCH(int32_t, b->value_count), *made = SCRATCH(int32_t, b->value_count);
    int32_t kept = 0;
    for (int32_t v = 0; v < b->value_count; v++) made[v] = -1;
    for (int32_t k = 0; k < b->count; k++) {
        const FgBlockOp *o = &b->ops[k];
        if (o->op != FG_BLOCK_GATHER && (int32_t)o->a >= 0) uses[o->a]++;
        if (o->op != FG_BLOCK_SUM && (int32_t)o->b >= 0) uses[o->b]++;
        if ((int32_t)o->c >= 0) uses[o->c]++;
    }
    for (int32_t k = 0; k < b->count; k++) {
        FgBlockOp *o = &b->ops[k];
        if (is_value(o->op) && (int32_t)o->b >= 0 && (int32_t)o->c < 0)
            for (int at = 1; at >= 0; at--) {
                int32_t x = (int32_t)(at ? o->b : o->a), other = (int32_t)(at ? o->a : o->b);
                if (uses[x] != 1 || b->fixed[x] || made[x] < 0) continue;
                FgBlockOp *first = &b->ops[made[x]];
                int op = fused_operator(first->op, o->op, at);
                if (op == 0 || first->dtype != o->dtype) continue;
                o->op = (uint16_t)op;
                o->a = first->a;
                o->b = first->b;
                o->c = (uint32_t)other;
                first->op = UINT16_MAX;
                break;
            }
        if ((int32_t)o->y >= 0) made[o->y] = k;
    }
    for (int32_t v = 0; v < b->value_count; v++) b->last[v] = -1;
    for (int32_t k = 0; k < b->count; k++) {
        FgBlockOp *o = &b->ops[k];
        if (o->op == UINT16_MAX) continue;
        if (o->op != FG_BLOCK_GATHER && (int32_t)o->a >= 0) b->last[o->a] = kept;
        if (o->op != FG_BLOCK_SUM && (int32_t)o->b >= 0) b->last[o->b] = kept;
        if ((int32_t)o->c >= 0) b->last[o->c] = kept;
        b->ops[kept++] = *o;
    }
    b->count = kept;
}

/* Values to block registers. Inputs that are read in place, filled ones and outputs have registers
 * of their own; the others take what has become free. A kernel may write over an operand of the
 * same width. */
static void block_registers(Planner *p, BlockBuilder *b)
{
    FgBlockRun *run = b->run;
    int32_t *reg = SCRATCH(int32_t, b->value_count), *free_list = SCRATCH(int32_t, b->value_count);
    int32_t free_count = 0, next = 0;
    for (int32_t v = 0; v < b->value_count; v++) reg[v] = b->fixed[v] ? next++ : -1;
    for (int32_t k = 0; k < b->count; k++) {
        FgBlockOp *o = &b->ops[k];
        int32_t y = (int32_t)o->y, x[3] = { (int32_t)o->a, (int32_t)o->b, (int32_t)o->c };
        int over = is_value(o->op) || o->op >= FG_FUSED_FIRST;
        if (o->op == FG_BLOCK_GATHER) x[0] = -1;
        if (o->op == FG_BLOCK_SUM) x[1] = -1;
        if (y >= 0 && !over && reg[y] < 0) reg[y] = free_count ? free_list[--free_count] : next++;
        for (int j = 0; j < 3; j++) {
            int again = (j > 0 && x[j] == x[0]) || (j > 1 && x[j] == x[1]);
            if (x[j] >= 0 && !again && b->last[x[j]] == k && !b->fixed[x[j]])
                free_list[free_count++] = reg[x[j]];
        }
        if (y >= 0 && reg[y] < 0) reg[y] = free_count ? free_list[--free_count] : next++;
        if (y >= 0 && b->last[y] < 0 && !b->fixed[y]) free_list[free_count++] = reg[y];
        if (y >= 0) o->y = (uint32_t)reg[y];
        if (x[0] >= 0) o->a = (uint32_t)reg[x[0]];
        if (x[1] >= 0) o->b = (uint32_t)reg[x[1]];
        if (x[2] >= 0) o->c = (uint32_t)reg[x[2]];
        if (o->op != FG_BLOCK_GATHER && x[0] < 0) o->a = 0;
        if (o->op != FG_BLOCK_SUM && x[1] < 0) o->b = 0;
        if (x[2] < 0) o->c = 0;
    }
    for (int32_t k = 0; k < run->input_count; k++)
        run->inputs[k].reg = (uint32_t)reg[run->inputs[k].reg];
    for (int32_t k = 0; k < run->output_count; k++)
        run->outputs[k].reg = (uint32_t)reg[run->outputs[k].reg];
    run->registers = (uint32_t)next;
}

/* Blocks as long as what is worked on stays in the first cache, or else in the second. */
static int32_t block_length(uint32_t registers, int64_t size)
{
    int32_t length = 1024;
    while (length > 256 && (int64_t)registers * length * 8 > 24576) length /= 2;
    if ((int64_t)registers * length * 8 > 24576) {
        length = 1024;
        while (length > 64 && (int64_t)registers * length * 8 > 262144) length /= 2;
    }
    while (length > 64 && length / 2 >= size) length /= 2;
    return length;
}

static void blocks_step(Planner *p, BlockBuilder *b, FgStep *step, const int32_t *nodes,
                        int32_t count, int32_t group, int32_t at)
{
    FgBlockRun *run = KEEP(FgBlockRun, 1);
    int32_t operands = 0, few[3], *list;
    for (int32_t k = 0; k < count; k++) {
        int32_t n = operands_of(p, nodes[k], few, &list);
        operands += n;
        for (int32_t j = 0; j < n; j++)         /* what is computed again: at most 20 operators   */
            if (p->again[p->spots[list[j]].base] == 1) operands += 64;
    }
    int32_t room = count + 2 * operands;
    b->run = run;
    b->now = at;
    b->count = b->value_count = 0;
    if (room > b->room) {
        b->room = 2 * room;
        b->ops = SCRATCH(FgBlockOp, b->room);
        b->item = SCRATCH(uint8_t, b->room);
        b->fixed = SCRATCH(uint8_t, b->room);
        b->last = SCRATCH(int32_t, b->room);
        b->mask = SCRATCH(int32_t, b->room);
    }
    run->inputs = KEEP(FgBlockInput, operands);
    run->outputs = KEEP(FgBlockOutput, count);
    run->sums = KEEP(FgBlockSum, count);
    run->size = p->groups[group].space;
    for (int32_t k = 0; k < count; k++) block_node(p, b, nodes[k], group, at);
    block_fuse(p, b);
    block_registers(p, b);
    run->op_count = b->count;
    run->ops = KEEP(FgBlockOp, b->count);
    memcpy(run->ops, b->ops, (size_t)b->count * sizeof(FgBlockOp));
    run->length = block_length(run->registers, run->size);
    run->shared = run->size >= p->source->threads_from;
    for (int32_t k = 0; k < run->sum_count; k++) if (!run->sums[k].all) run->shared = 0;
    step->blocks = run;
    step->count = count;
    step->work = work_of((double)run->size * run->op_count);
    int64_t bytes = fg_block_bytes(run);
    if (bytes > p->plan->block_bytes) p->plan->block_bytes = bytes;
}

static void operands_step(Planner *p, FgStep *step, int32_t i)
{
    int32_t few[3], *list, count = operands_of(p, i, few, &list);
    step->in = KEEP(FgOperand, count);
    for (int32_t k = 0; k < count; k++) step->in[k] = operand_for(p, list[k]);
    step->count = count;
    step->out = operand_for(p, i);
    step->dtype = p->nodes[i].dtype;
    step->work = step->out.size;
    for (int32_t k = 0; k < count; k++) step->work += step->in[k].size;
}

/* An array seen as rows to be reduced: the kept axes count the rows, the reduced ones run along
 * them. */
static void rows_step(Planner *p, FgStep *step, int64_t mask, int32_t at)
{
    const FgOperand *x = &step->in[0];
    FgDims *turned = SCRATCH(FgDims, 1);
    int64_t *dims = SCRATCH(int64_t, x->rank), *strides = SCRATCH(int64_t, x->rank);
    int32_t r = 0;
    step->rows = step->length = 1;
    for (int reduced = 0; reduced < 2; reduced++)
        for (int32_t k = 0; k < x->rank; k++) {
            if ((int)(mask >> k & 1) != reduced) continue;
            dims[r] = x->dims[k];
            strides[r++] = x->strides[k];
            if (reduced) step->length *= x->dims[k];
            else step->rows *= x->dims[k];
        }
    *turned = (FgDims){ x->rank, x->size, dims };
    step->walk = walk_new(p, turned, turned, strides);
    if (step->kind == FG_STEP_WEIGHTS) {
        r = 0;
        for (int reduced = 0; reduced < 2; reduced++)
            for (int32_t k = 0; k < x->rank; k++)
                if ((int)(mask >> k & 1) == reduced) strides[r++] = step->out.strides[k];
        step->back = walk_new(p, turned, turned, strides);
    }
    int64_t together = fg_rows_together(step->length);
    step->extra = place_extra(p, step->node, together * (step->length * fg_item(x->dtype) + 8) + 64,
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
            int32_t axis = 0, r = 0;
            for (int32_t j = 0; j < attr->count; j += FG_INDEX_FIELDS) {
                const int64_t *index = attr->numbers + j;
                if (index[0] == FG_INDEX_NEW) {
                    strides[r++] = 0;
                    continue;
                }
                if (copy->from.size) copy->to.offset += index[1] * step->out.strides[axis];
                if (index[0] == FG_INDEX_SLICE) strides[r++] = index[2] * step->out.strides[axis];
                axis++;
            }
            copy->to.dims = copy->from.dims;
            copy->to.size = copy->from.size;
            copy->to.rank = copy->from.rank;
            copy->to.strides = strides;
            copy->to.contiguous = 0;
        } else {                        /* a reshape of what does not lie in order                */
            copy->to.dims = copy->from.dims;
            copy->to.rank = copy->from.rank;
            int64_t *strides = strides_new(p, copy->from.rank), item = fg_item(n->dtype);
            for (int32_t r = copy->from.rank - 1; r >= 0; r--) {
                strides[r] = item;
                item *= copy->from.dims[r];
            }
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
    for (int32_t k = 0; k < step->count; k++) step->in[k] = operand_for(p, list[k]);
    step->loop = loop;
    step->loop_number = p->plan->loop_count++;
    step->results = KEEP(FgOperand, loop->body->output_count);
    for (int32_t k = 0; k < loop->body->output_count; k++)
        step->results[k] = (FgOperand){ .place = -1, .reg = UINT32_MAX };
    for (int32_t k = 1; k < count; k++)
        step->results[(int32_t)p->nodes[nodes[k]].constant] = operand_for(p, nodes[k]);
    double work = (loop->length < 0 ? 1e6 : (double)loop->length) * (double)(loop->body->work + 20);
    step->work = work_of(work);
}

static void step_all(Planner *p)
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
            blocks_step(p, &b, step, nodes, fill[g], g, k);
            break;
        case FG_STEP_LOAD:
            step->in = KEEP(FgOperand, fill[g]);
            step->copies = KEEP(FgCopy, fill[g]);
            for (int32_t j = 0; j < fill[g]; j++) {
                FgCopy *copy = &step->copies[j];
                const FgGraphNode *m = &p->nodes[nodes[j]];
                copy->from = operand_for(p, m->a);
                if (m->op == FG_item) {
                    const FgAttribute *attr = attribute_of(p, nodes[j]);
                    int32_t axis = 0;
                    for (int32_t r = 0; r < attr->count; r += FG_INDEX_FIELDS)
                        if (attr->numbers[r] == FG_INDEX_INT)
                            copy->from.offset += attr->numbers[r + 1] * copy->from.strides[axis++];
                }
                copy->from.rank = 0;
                copy->from.size = 1;
                copy->to = operand_for(p, nodes[j]);
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
            step->in[0] = operand_for(p, p->same[p->source->guards[step->node].node]);
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

/* ---- pass 8: registers and scalar strings ------------------------------------------------- */

static void finish_scalars(Planner *p)
{
    FgPlan *plan = p->plan;
    const FgSource *s = p->source;
    uint8_t *kept;
    plan->inputs = KEEP(FgOperand, s->input_count);
    plan->outputs = KEEP(FgOperand, s->output_count);
    for (int64_t k = 0; k < s->input_count; k++) {
        int32_t i = s->inputs[k];
        const FgDims *d = dims_of(p, i);
        plan->inputs[k] = (FgOperand){ .place = -1, .reg = UINT32_MAX, .dtype = p->nodes[i].dtype,
                                       .rank = d->rank, .size = d->size, .dims = d->dims,
                                       .node = i };
        if (!p->needed[i]) continue;
        if (p->spots[i].number) plan->inputs[k].reg = register_of(p, i);
        else plan->inputs[k].place = p->place[i];
    }
    for (int64_t k = 0; k < s->output_count; k++)
        plan->outputs[k] = operand_for(p, p->same[s->outputs[k]]);
    plan->numbers = KEEP(double, plan->registers);
    kept = SCRATCH(uint8_t, plan->registers);
    for (int32_t i = 0; i < p->count; i++) {
        if (!p->needed[i] || p->reg[i] < 0) continue;
        if (is_constant(p, i)) plan->numbers[p->reg[i]] = p->nodes[i].constant;
        kept[p->reg[i]] = p->outside[i];
    }
    for (int32_t k = 0; k < plan->step_count; k++) {
        FgStep *step = &plan->steps[k];
        if (step->kind != FG_STEP_SCALARS) continue;
        int malformed = 0;
        step->scalars = fg_scalar_build((void *)step->in, step->count, plan->registers, kept,
                                        &malformed);
        step->in = NULL;
        if (malformed) plan->error = "a string of scalar operations could not be built";
        else if (step->scalars == NULL) longjmp(p->out_of_memory, 1);
    }
}

/* ---- pass 9: memory ----------------------------------------------------------------------- */

static int64_t rounded(int64_t nbytes) { return (nbytes + 63) & ~(int64_t)63; }

/* What comes first: the largest; what is made first; what takes most room for longest; what is made
 * last. No rule is best for every plan. */
enum { BY_SIZE, BY_FIRST, BY_AREA, BY_LAST, ORDERS, AS_THEY_STAND };

static int goes_before(const FgPlace *a, const FgPlace *b, int order)
{
    double area = (double)a->nbytes * (a->last - a->first + 1);
    double other = (double)b->nbytes * (b->last - b->first + 1);
    if (order == BY_FIRST && a->first != b->first) return a->first < b->first;
    if (order == BY_LAST && a->last != b->last) return a->last > b->last;
    if (order == BY_AREA && area != other) return area > other;
    if (a->nbytes != b->nbytes) return a->nbytes > b->nbytes;
    return a->first < b->first;
}

/* Memory for a few arrays, one after the other, each in the smallest gap that is free as long as it
 * lives. */
static int64_t memory_in_order(Planner *p, int32_t *arrays, int32_t count, int32_t *by_offset,
                               int order)
{
    FgPlace *places = p->plan->places;
    int64_t total = 0;
    for (int32_t i = 1; order < ORDERS && i < count; i++) {     /* insertion: there are few       */
        int32_t v = arrays[i], j = i;
        for (; j > 0 && goes_before(&places[v], &places[arrays[j - 1]], order); j--)
            arrays[j] = arrays[j - 1];
        arrays[j] = v;
    }
    for (int32_t k = 0; k < count; k++) {
        FgPlace *x = &places[arrays[k]];
        int64_t need = rounded(x->nbytes), at = 0, best = -1, best_gap = INT64_MAX;
        for (int32_t j = 0; j < k; j++) {
            const FgPlace *y = &places[by_offset[j]];
            if (y->first > x->last || y->last < x->first) continue;
            if (y->offset - at >= need && y->offset - at < best_gap) {
                best = at;
                best_gap = y->offset - at;
            }
            if (y->offset + rounded(y->nbytes) > at) at = y->offset + rounded(y->nbytes);
        }
        x->offset = best >= 0 ? best : at;
        if (x->offset + need > total) total = x->offset + need;
        int32_t j = k;
        while (j > 0 && places[by_offset[j - 1]].offset > x->offset) {
            by_offset[j] = by_offset[j - 1];
            j--;
        }
        by_offset[j] = arrays[k];
    }
    return total;
}

/* The best of several orders, or the first that needs hardly more than the bound. Where none does,
 * whatever came to lie at the top goes first the next time. */
static int64_t memory_offline(Planner *p, int32_t *arrays, int32_t count)
{
    const int tries = 2000000 / (count * count + 31250);        /* 64, or a few ms' worth         */
    const FgPlace *places = p->plan->places;
    const int64_t enough = p->plan->bound + p->plan->bound / 50;
    int32_t *by_offset = SCRATCH(int32_t, count), *found = SCRATCH(int32_t, count);
    int64_t best = INT64_MAX;
    for (int order = 0; order < ORDERS + tries && best > enough; order++) {
        int64_t total = memory_in_order(p, arrays, count, by_offset,
                                        order < ORDERS ? order : AS_THEY_STAND);
        if (total < best) {
            best = total;
            memcpy(found, arrays, (size_t)count * sizeof(int32_t));
        }
        if (order < ORDERS - 1) continue;
        if (order == ORDERS - 1) memcpy(arrays, found, (size_t)count * sizeof(int32_t));
        int32_t top = 0;
        for (int32_t k = 1; k < count; k++)
            if (places[arrays[k]].offset + places[arrays[k]].nbytes >
                places[arrays[top]].offset + places[arrays[top]].nbytes) top = k;
        int32_t first = arrays[top];
        memmove(arrays + 1, arrays, (size_t)top * sizeof(int32_t));
        arrays[0] = first;
    }
    return memory_in_order(p, found, count, by_offset, AS_THEY_STAND);
}

/* The same for many: holes by size class, first come first served. */
static int64_t memory_by_class(Planner *p, const int32_t *arrays, int32_t count)
{
    FgPlace *places = p->plan->places;
    int32_t steps = p->step_count;
    int32_t *ending = SCRATCH(int32_t, steps + 1), *next = SCRATCH(int32_t, p->plan->place_count);
    int32_t *free_next = SCRATCH(int32_t, p->plan->place_count);
    int32_t heads[64];
    int64_t total = 0;
    for (int32_t k = 0; k <= steps; k++) ending[k] = -1;
    for (int k = 0; k < 64; k++) heads[k] = -1;
    int32_t at = 0;
    for (int32_t k = 0; k < count; k++) {               /* places stand in order of their nodes   */
        next[arrays[k]] = -1;
    }
    int32_t *starting = SCRATCH(int32_t, steps + 1), *start_next = SCRATCH(int32_t,
                                                                           p->plan->place_count);
    for (int32_t k = 0; k <= steps; k++) starting[k] = -1;
    for (int32_t k = 0; k < count; k++) {
        int32_t x = arrays[k];
        start_next[x] = starting[places[x].first];
        starting[places[x].first] = x;
    }
    for (at = 0; at <= steps; at++) {
        for (int32_t x = starting[at]; x >= 0; x = start_next[x]) {
            int64_t need = rounded(places[x].nbytes);
            int class = 63 - __builtin_clzll((unsigned long long)need | 1);
            int32_t previous = -1, y = heads[class];
            int look = 0;
            while (y >= 0 && look++ < 16 && rounded(places[y].nbytes) < need) {
                previous = y;
                y = free_next[y];
            }
            if (y >= 0 && rounded(places[y].nbytes) >= need) {
                if (previous < 0) heads[class] = free_next[y];
                else free_next[previous] = free_next[y];
                places[x].offset = places[y].offset;
            } else {
                places[x].offset = total;
                total += need;
            }
            int32_t end = places[x].last < steps ? places[x].last : steps;
            next[x] = ending[end];
            ending[end] = x;
        }
        for (int32_t x = ending[at]; x >= 0; x = next[x]) {
            int class = 63 - __builtin_clzll((unsigned long long)rounded(places[x].nbytes) | 1);
            free_next[x] = heads[class];
            heads[class] = x;
        }
    }
    return total;
}

static void memory_all(Planner *p)
{
    enum { FEW = 512 };
    FgPlan *plan = p->plan;
    int32_t *arrays = SCRATCH(int32_t, plan->place_count), count = 0;
    int64_t *change = SCRATCH(int64_t, p->step_count + 3), live = 0, all = 0;
    for (int32_t k = 0; k < plan->place_count; k++) {
        FgPlace *x = &plan->places[k];
        if (x->kind != FG_PLACE_FRAME) continue;
        if (x->last > p->step_count) x->last = p->step_count;
        arrays[count++] = k;
        if ((all += rounded(x->nbytes)) > (int64_t)1 << 60) {
            plan->error = "its arrays are larger than any memory";
            return;
        }
        change[x->first] += rounded(x->nbytes);
        change[x->last + 1] -= rounded(x->nbytes);
    }
    for (int32_t k = 0; k <= p->step_count; k++) {
        live += change[k];
        if (live > plan->bound) plan->bound = live;
    }
    plan->frame_bytes = count <= FEW ? memory_offline(p, arrays, count)
                                     : memory_by_class(p, arrays, count);
}

/* ---- the passes --------------------------------------------------------------------------- */

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

    mark_needed(p);
    simplify_all(p);
    mark_needed(p);
    group_all(p);
    sink_all(p);
    again_all(p);
    order_groups(p);
    if (plan->error == NULL) {
        place_all(p);
        step_all(p);
        finish_scalars(p);
        memory_all(p);
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
        chunks_free(p->temporary);
        fg_plan_free(p->plan);
        fg_free(p);
        return NULL;
    }
    plan_all(p);
    chunks_free(p->temporary);
    FgPlan *plan = p->plan;
    fg_free(p);
    return plan;
}

void fg_plan_free(FgPlan *plan)
{
    for (int32_t k = 0; plan->steps != NULL && k < plan->step_count; k++)
        if (plan->steps[k].kind == FG_STEP_SCALARS && plan->steps[k].scalars != NULL)
            fg_scalar_free(plan->steps[k].scalars);
    chunks_free(plan->memory);
    fg_free(plan);
}

/* ---- the verifier ------------------------------------------------------------------------- */

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
    int32_t *alive = fg_malloc(((size_t)plan->place_count + 1) * sizeof(int32_t)), count = 0, next = 0;
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
