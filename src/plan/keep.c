/* Pass 6: what has to be kept, and where. */
#include "plan.h"

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

int32_t plan_place_new(Planner *p, int32_t node, int64_t nbytes, int32_t at)
{
    p->plan->places[p->plan->place_count] = (FgPlace){
        .kind = FG_PLACE_FRAME, .which = -1, .node = node, .nbytes = nbytes, .first = at, .last = at
    };
    return p->plan->place_count++;
}

void plan_place_all(Planner *p)
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
    for (int32_t i = 0; i < p->count; i++) {
        const FgGraphNode *n = &p->nodes[i];
        if (!p->needed[i] || p->kind[i] == K_VIEW || p->kind[i] == FG_STEP_LOOP || p->spots[i].number ||
            (p->kind[i] == K_LANES && !p->outside[i]) || is_constant(p, i)) continue;
        p->place[i] = plan_place_new(p, i, dims_of(p, i)->size * fg_item(n->dtype),
                                     p->group[i] >= 0 ? when[p->group[i]] : 0);
        FgPlace *place = &plan->places[p->place[i]];
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
        if (at >= 0 && plan->places[at].kind == FG_PLACE_FRAME && is_whole(p, x) &&
            p->nodes[x].rank) {
            plan->places[at].kind = FG_PLACE_OUTPUT;
            plan->places[at].which = k;
            plan->output_place[k] = at;
        }
    }
}
