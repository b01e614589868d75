/* Pass 7, of block runs: element-wise operators of many nodes as operators of blocks, two of them
 * made one where the first is needed by the second alone, and the registers that they work in. */
#include "plan.h"

static int32_t value_new(BlockBuilder *b, int item, int fixed)
{
    int32_t v = b->value_count++;
    b->item[v] = (uint8_t)item;
    b->fixed[v] = (uint8_t)fixed;
    b->last[v] = -1;
    b->mask[v] = -1;
    return v;
}

/* Which values an operator reads: -1 where it has no operand, or one that is no value. */
static void values_of(const FgBlockOp *o, int32_t *x)
{
    x[0] = o->op == FG_BLOCK_GATHER ? -1 : (int32_t)o->a;
    x[1] = o->op == FG_BLOCK_SUM ? -1 : (int32_t)o->b;
    x[2] = (int32_t)o->c;
}

static void block_emit(BlockBuilder *b, int op, int dtype, int32_t y, int32_t x0, int32_t x1,
                       int32_t x2)
{
    FgBlockOp *o = &b->ops[b->count];
    *o = (FgBlockOp){ (uint16_t)op, (uint8_t)dtype, y >= 0 ? b->item[y] : 0, (uint32_t)y,
                      (uint32_t)x0, (uint32_t)x1, (uint32_t)x2 };
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
    in->from = plan_operand_for(p, x);
    in->direct = (uint8_t)direct;
    in->item = (uint8_t)item;
    int32_t v = value_new(b, item, direct || in->from.place < 0);
    in->reg = (uint32_t)v;
    if (!b->fixed[v]) {
        in->walk = plan_walk_new(p, wide, own, in->from.strides);
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
            sum->walk = plan_walk_new(p, from, from, strides);
            sum->place = p->place[i];
            sum->wide = n->dtype == FG_FLOAT64 ? sum->place
                        : plan_place_new(p, i, to->size * 8, at);
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

/* 0: there is none. `at` is where the second has the result of the first. */
static int fused_operator(int first, int second, int at)
{
    const int loops = FG_BLOCK_FUSED + (first == FG_weigh ? FG_FUSED_weigh_add : 0);
    if (first != FG_multiply && first != FG_weigh) return 0;
    if (second == FG_add) return loops + FG_FUSED_multiply_add;
    if (second == FG_subtract)
        return loops + (at == 0 ? FG_FUSED_multiply_subtract : FG_FUSED_subtract_multiply);
    return second == first ? loops + FG_FUSED_multiply_multiply : 0;
}

/* A product that only the next sum, difference or product needs is computed with it. */
static void block_fuse(Planner *p, BlockBuilder *b)
{
    int32_t *uses = SCRATCH(int32_t, b->value_count), *made = SCRATCH(int32_t, b->value_count);
    int32_t kept = 0, x[3];
    for (int32_t v = 0; v < b->value_count; v++) made[v] = -1;
    for (int32_t k = 0; k < b->count; k++) {
        values_of(&b->ops[k], x);
        for (int j = 0; j < 3; j++) if (x[j] >= 0) uses[x[j]]++;
    }
    for (int32_t k = 0; k < b->count; k++) {
        FgBlockOp *o = &b->ops[k];
        if (is_value(o->op) && (int32_t)o->b >= 0 && (int32_t)o->c < 0)
            for (int at = 1; at >= 0; at--) {
                int32_t y = (int32_t)(at ? o->b : o->a), other = (int32_t)(at ? o->a : o->b);
                if (uses[y] != 1 || b->fixed[y] || made[y] < 0) continue;
                FgBlockOp *first = &b->ops[made[y]];
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
    for (int32_t k = 0; k < b->count; k++) {
        if (b->ops[k].op == UINT16_MAX) continue;
        values_of(&b->ops[k], x);
        for (int j = 0; j < 3; j++) if (x[j] >= 0) b->last[x[j]] = kept;
        b->ops[kept++] = b->ops[k];
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
        int32_t y = (int32_t)o->y, x[3];
        int over = is_value(o->op) || o->op >= FG_BLOCK_FUSED;
        values_of(o, x);
        if (y >= 0 && !over && reg[y] < 0) reg[y] = free_count ? free_list[--free_count] : next++;
        for (int j = 0; j < 3; j++) {
            int again = (j > 0 && x[j] == x[0]) || (j > 1 && x[j] == x[1]);
            if (x[j] >= 0 && !again && b->last[x[j]] == k && !b->fixed[x[j]])
                free_list[free_count++] = reg[x[j]];
        }
        if (y >= 0 && reg[y] < 0) reg[y] = free_count ? free_list[--free_count] : next++;
        if (y >= 0 && b->last[y] < 0 && !b->fixed[y]) free_list[free_count++] = reg[y];
        if (y >= 0) o->y = (uint32_t)reg[y];
        if (o->op != FG_BLOCK_GATHER) o->a = x[0] >= 0 ? (uint32_t)reg[x[0]] : 0;
        if (o->op != FG_BLOCK_SUM) o->b = x[1] >= 0 ? (uint32_t)reg[x[1]] : 0;
        o->c = x[2] >= 0 ? (uint32_t)reg[x[2]] : 0;
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

void plan_blocks_step(Planner *p, BlockBuilder *b, FgStep *step, const int32_t *nodes,
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
