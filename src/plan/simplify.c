/* Pass 2: simplify, fold, merge. A node may become another one, or a constant. */
#include "plan.h"
#include "scalar.h"

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

void plan_simplify_all(Planner *p)
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
