/* Passes 8 and 9: what registers hold, the strings of scalar operations, and where in the frame the
 * arrays lie. */
#include "plan.h"

/* ---- pass 8: registers and scalar strings ------------------------------------------------- */

void plan_finish_scalars(Planner *p)
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
        plan->outputs[k] = plan_operand_for(p, p->same[s->outputs[k]]);
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

static int class_of(int64_t nbytes)
{
    return 63 - __builtin_clzll((unsigned long long)nbytes | 1);
}

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

/* The first of each of n lists, which are empty. */
static int32_t *lists_new(Planner *p, int32_t n)
{
    int32_t *lists = SCRATCH(int32_t, n);
    memset(lists, -1, (size_t)n * sizeof(int32_t));
    return lists;
}

/* Memory for many: holes by size class, first come first served. An array is in one list at a time:
 * of those that begin with a step, that end with it, or of holes. */
static int64_t memory_by_class(Planner *p, const int32_t *arrays, int32_t count)
{
    FgPlace *places = p->plan->places;
    int32_t *starting = lists_new(p, p->step_count + 1), *ending = lists_new(p, p->step_count + 1);
    int32_t *holes = lists_new(p, 64), *next = SCRATCH(int32_t, p->plan->place_count), after;
    int64_t total = 0;
    for (int32_t k = 0; k < count; k++) {
        next[arrays[k]] = starting[places[arrays[k]].first];
        starting[places[arrays[k]].first] = arrays[k];
    }
    for (int32_t at = 0; at <= p->step_count; at++) {
        for (int32_t x = starting[at]; x >= 0; x = after) {
            int64_t need = rounded(places[x].nbytes);
            int32_t *hole = &holes[class_of(need)];
            for (int look = 0; *hole >= 0 && look < 16 && rounded(places[*hole].nbytes) < need; look++)
                hole = &next[*hole];
            if (*hole >= 0 && rounded(places[*hole].nbytes) >= need) {
                places[x].offset = places[*hole].offset;
                *hole = next[*hole];
            } else {
                places[x].offset = total;
                total += need;
            }
            after = next[x];
            next[x] = ending[places[x].last];
            ending[places[x].last] = x;
        }
        for (int32_t x = ending[at]; x >= 0; x = after) {
            int32_t *hole = &holes[class_of(rounded(places[x].nbytes))];
            after = next[x];
            next[x] = *hole;
            *hole = x;
        }
    }
    return total;
}

void plan_memory_all(Planner *p)
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
