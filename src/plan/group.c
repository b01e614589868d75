/* Passes 4 and 5: which nodes run together, as one step, and the order of these groups. */
#include "plan.h"

/* ---- pass 4: which nodes run together ----------------------------------------------------- */

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

/* The highest level of the operands' groups. */
static int32_t level_of(const Planner *p, const int32_t *list, int32_t count)
{
    int32_t level = 0;
    for (int32_t k = 0; k < count; k++) {
        int32_t g = p->group[p->spots[list[k]].base];
        if (g >= 0 && p->groups[g].level > level) level = p->groups[g].level;
    }
    return level;
}

/* Groups have levels, and whatever depends on a group has a higher one. So a node may join any
 * group that is above all its operands, and the highest of its operands' groups if it finds the
 * operands there inside. */
static int32_t group_for(Planner *p, int32_t i, int kind, int64_t space, const int32_t *list,
                         int32_t count)
{
    enum { LOOK_BACK = 8 };
    int32_t level = level_of(p, list, count), own = -1;
    int inside = 1;
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

void plan_group_all(Planner *p)
{
    const FgSource *s = p->source;
    int32_t few[3], *list, guard = -1, level;
    int64_t waiting = 0;
    p->groups = SCRATCH(Group, p->count + s->guard_count);
    uint32_t size = 16;
    while (size < 2 * (uint64_t)(s->shape_count + 4)) size *= 2;
    p->spaces = plan_take(p, &p->temporary, size * sizeof(*p->spaces));
    for (uint32_t k = 0; k < size; k++) p->spaces[k].newest = -1;
    p->space_mask = (int32_t)(size - 1);
    for (int32_t i = 0; i < p->count; i++) {
        p->group[i] = -1;
        if (p->needed[i]) {
            int32_t count = operands_of(p, i, few, &list);
            plan_spot_own(p, i);
            int kind = p->kind[i] = (uint8_t)plan_kind_of(p, i);
            switch (kind) {
            case K_LEAF: case K_VIEW:
                break;
            case K_RESULT:
                p->group[i] = p->group[list[0]];
                break;
            case FG_STEP_SCALARS:
                p->group[i] = group_for(p, i, FG_STEP_SCALARS, SPACE_SCALARS, list, count);
                break;
            case K_LANES:
                p->group[i] = group_for(p, i, FG_STEP_BLOCKS, dims_of(p, i)->size, list, count);
                break;
            case K_SUM:
                p->group[i] = group_for(p, i, FG_STEP_BLOCKS, dims_of(p, list[0])->size, list, 1);
                break;
            case FG_STEP_LOAD:
                p->group[i] = group_for(p, i, FG_STEP_LOAD, SPACE_LOADS, list, count);
                break;
            default:
                level = level_of(p, list, count);
                /* What may fail or cost much comes after the guards taken before it. */
                if ((kind == FG_STEP_PYTHON || kind == FG_STEP_ROWS_AT) && guard >= 0 &&
                    p->groups[guard].level > level)
                    level = p->groups[guard].level;
                int32_t g = group_new(p, kind, SPACE_ALONE, level + 1, i);
                p->group[i] = g;
                if (kind == FG_STEP_PYTHON || kind == FG_STEP_ROWS_AT) p->groups[g].after = guard;
            }
            if (p->group[i] >= 0) p->groups[p->group[i]].last = i;
        }
        /* Guards are looked at in the order in which they were taken. */
        while (waiting < s->guard_count && s->guards[waiting].node <= i) {
            level = level_of(p, &p->same[s->guards[waiting].node], 1);
            if (guard >= 0 && p->groups[guard].level > level) level = p->groups[guard].level;
            int32_t g = group_new(p, FG_STEP_GUARD, SPACE_ALONE, level + 1, i);
            p->groups[g].after = guard;
            p->groups[g].place = (int32_t)waiting++;            /* until it is ordered            */
            guard = g;
        }
    }
    for (int64_t k = 0; k < s->output_count; k++)
        p->outside[p->spots[p->same[s->outputs[k]]].base] = 1;
    for (int64_t k = 0; k < s->guard_count; k++)
        p->outside[p->spots[p->same[s->guards[k].node]].base] = 1;
}

/* A node that its own group does not need moves to the one later group that does, where its
 * operands are in memory anyway: it is stored no longer. Consumers stand after their operands, so
 * that all of a node's have moved before it is its turn. */
void plan_sink_all(Planner *p)
{
    enum { NOBODY = -1, SEVERAL = -2 };
    int32_t *wanted_by = SCRATCH(int32_t, p->count), few[3], *list;
    uint8_t *stored = SCRATCH(uint8_t, p->count);
    for (int32_t i = 0; i < p->count; i++) wanted_by[i] = p->outside[i] ? SEVERAL : NOBODY;
    for (int32_t i = 0; i < p->count; i++) {
        if (!p->needed[i] || p->kind[i] == K_VIEW) continue;
        int32_t count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++)
            if (!is_inside(p, list[k], p->group[i])) stored[p->spots[list[k]].base] = 1;
    }
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
            if (!is_whole(p, x) || !(lanes || p->kind[i] == K_SUM)) wanted_by[base] = SEVERAL;
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
    case FG_weigh: case FG_where: case FG_abs: case FG_maximum: case FG_minimum: case FG_relu:
    case FG_step: case FG_is_zero: case FG_tanh_da: case FG_cast: case FG_call:
        return 1;
    case FG_divide: case FG_reciprocal: case FG_sqrt:
        return 3;
    default:
        return is_compare(op) ? 1 : 8;
    }
}

/* Large values that several runs need are computed in each of them, where that costs less than to
 * bring them to memory and back: 16 bytes an element, as long as 20 additions. */
void plan_again_all(Planner *p)
{
    enum { LARGE = 32768, LIMIT = 20, NEVER = 1 << 20 };
    int32_t few[3], *list;
    int32_t *cost = SCRATCH(int32_t, p->count);
    uint8_t *crosses = SCRATCH(uint8_t, p->count), *stored = SCRATCH(uint8_t, p->count);
    memcpy(stored, p->outside, (size_t)p->count);
    for (int32_t i = 0; i < p->count; i++) {
        if (!p->needed[i] || p->group[i] < 0) continue;
        int32_t count = operands_of(p, i, few, &list);
        for (int32_t k = 0; k < count; k++) {
            int32_t x = list[k], base = p->spots[x].base;
            if (is_inside(p, x, p->group[i])) continue;
            if ((p->kind[i] == K_LANES || p->kind[i] == K_SUM) && is_whole(p, x) &&
                p->groups[p->group[i]].space == dims_of(p, base)->size) crosses[base] = 1;
            else stored[base] = 1;
        }
    }
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
void plan_order_groups(Planner *p)
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
