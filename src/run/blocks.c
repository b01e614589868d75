/* Block runs: all operators on one block of elements, then on the next; large ones in several
 * threads. */
#include <float.h>
#include <math.h>

#include "alloc.h"
#include "pool.h"
#include "run.h"

/* Elements of a block run that go to one thread: many blocks, and a power of two of the blocks of
 * a sum, so that sums do not depend on how many threads there are. */
enum { PART = 32768 };

static int64_t slots_at(const FgBlockRun *run)
{
    int64_t nbytes = (int64_t)run->registers * 8 + run->sum_count * (int64_t)sizeof(FgTotal);
    return (nbytes + 63) & ~(int64_t)63;
}

int64_t fg_block_bytes(const FgBlockRun *run)
{
    return slots_at(run) + (int64_t)run->registers * run->length * 8 + 64;
}

static char *block_memory(FgFrame *f, int thread)
{
    if (f->blocks[thread] == NULL) f->blocks[thread] = fg_chunk(f->plan->block_bytes + 64);
    return f->blocks[thread];
}

/* Repeat the last element up to m: what happens to lie there might be slow to compute with. */
static void pad(char *p, int64_t n, int64_t m, int64_t item)
{
    for (int64_t i = n; i < m; i++) memcpy(p + i * item, p + (n - 1) * item, (size_t)item);
}

static void block_op(const FgBlockOp *o, char **at, int64_t m)
{
    char *y = at[o->y], *a = at[o->a], *b = at[o->b];
    const double *wide = (const void *)a;
    const float *narrow = (const void *)a;
    const int64_t *whole = (const void *)a;
    double *to_wide = (void *)y;
    float *to_narrow = (void *)y;
    const int is_wide = o->dtype == FG_FLOAT64;
#define EACH(assignment) for (int64_t i = 0; i < m; i++) assignment
    switch (o->op) {
    case FG_BLOCK_MASK: loops_of(o->dtype)->mask(y, (const uint8_t *)a, m); break;
    case FG_BLOCK_WIDEN: EACH(to_wide[i] = (double)narrow[i]); break;
    case FG_BLOCK_NARROW: EACH(to_narrow[i] = (float)wide[i]); break;
    case FG_BLOCK_WHOLE:
        if (is_wide) EACH(to_wide[i] = (double)whole[i]);
        else EACH(to_narrow[i] = (float)whole[i]);
        break;
    case FG_BLOCK_TRUTH:
        if (is_wide) EACH(y[i] = wide[i] != 0);
        else EACH(y[i] = narrow[i] != 0);
        break;
    case FG_BLOCK_AND: EACH(y[i] = a[i] & b[i]); break;
    case FG_BLOCK_OR: EACH(y[i] = a[i] | b[i]); break;
    case FG_BLOCK_XOR: EACH(y[i] = a[i] ^ b[i]); break;
    case FG_BLOCK_NOT: EACH(y[i] = !a[i]); break;
    case FG_BLOCK_FINITE:
        if (is_wide) EACH(y[i] = fabs(wide[i]) <= DBL_MAX);
        else EACH(y[i] = fabsf(narrow[i]) <= FLT_MAX);
        break;
    default: loops_of(o->dtype)->compare[o->op - FG_ELEMENTWISE_END](a, b, (uint8_t *)y, m);
    }
#undef EACH
}

/* Elements begin to end of a run, all operators on one block, then on the next. */
static void blocks_between(FgFrame *f, const FgBlockRun *run, char *memory, int64_t begin,
                           int64_t end, int caller)
{
    char **at = (char **)(void *)memory;
    FgTotal *totals = (FgTotal *)(void *)(memory + (int64_t)run->registers * 8);
    char *slots = memory + slots_at(run);
    const int64_t slot = (int64_t)run->length * 8;
    const FgLoops *f32 = &(*fg_vm_kernels)->f32, *f64 = &(*fg_vm_kernels)->f64;
    for (uint32_t r = 0; r < run->registers; r++) at[r] = slots + r * slot;
    for (int32_t k = 0; k < run->sum_count; k++) {
        totals[k].filled = totals[k].blocks.count = 0;
        memset(totals[k].lane, 0, sizeof(totals[k].lane));
    }
    for (int32_t k = 0; k < run->input_count; k++) {
        const FgBlockInput *in = &run->inputs[k];
        if (in->from.place >= 0) continue;
        int64_t most = end - begin < run->length ? (end - begin + 15) & ~(int64_t)15 : run->length;
        double x = f->registers[in->from.reg];
        if (in->item == 8) f64->fill(at[in->reg], x, most);
        else if (in->item == 4) f32->fill(at[in->reg], x, most);
        else memset(at[in->reg], x != 0, (size_t)most);
    }
    for (int64_t start = begin; start < end; start += run->length) {
        const int64_t n = end - start < run->length ? end - start : run->length;
        const int64_t m = (n + 15) & ~(int64_t)15;
        if (caller ? interrupted(f, n * run->op_count) : f->root->stop) return;
        for (int32_t k = 0; k < run->input_count; k++) {
            const FgBlockInput *in = &run->inputs[k];
            if (!in->direct) continue;
            char *p = f->memory[in->from.place] + in->from.offset + start * in->item;
            if (m == n) {
                at[in->reg] = p;
                continue;
            }
            at[in->reg] = slots + in->reg * slot;
            memcpy(at[in->reg], p, (size_t)(n * in->item));
            pad(at[in->reg], n, m, in->item);
        }
        for (int32_t k = 0; k < run->output_count; k++) {
            const FgBlockOutput *out = &run->outputs[k];
            at[out->reg] = m == n ? f->memory[out->place] + start * out->item
                                  : slots + out->reg * slot;
        }
        for (const FgBlockOp *o = run->ops, *stop = o + run->op_count; o < stop; o++) {
            const FgLoops *loops = o->dtype == FG_FLOAT64 ? f64 : f32;
            if (o->op < FG_ELEMENTWISE_END) {
                loops->value[o->op](at[o->a], at[o->b], at[o->c], at[o->y], m);
            } else if (o->op >= FG_BLOCK_FUSED) {
                loops->fused[o->op - FG_BLOCK_FUSED](at[o->a], at[o->b], at[o->c], at[o->y], m);
            } else if (o->op == FG_BLOCK_GATHER) {
                const FgBlockInput *in = &run->inputs[o->a];
                fg_walk_gather(&in->walk, f->memory[in->from.place] + in->from.offset, start, n,
                               at[o->y], in->item);
                pad(at[o->y], n, m, in->item);
            } else if (o->op == FG_BLOCK_SUM) {
                const FgBlockSum *sum = &run->sums[o->b];
                if (sum->all) total_block(&totals[o->b], at[o->a], n, sum->dtype);
                else fg_walk_sum(&sum->walk, f->memory[sum->wide], start, n, at[o->a], sum->dtype,
                                 loops_of(sum->dtype));
            } else {
                block_op(o, at, m);
            }
        }
        if (m != n)
            for (int32_t k = 0; k < run->output_count; k++) {
                const FgBlockOutput *out = &run->outputs[k];
                memcpy(f->memory[out->place] + start * out->item, at[out->reg],
                       (size_t)(n * out->item));
            }
    }
}

typedef struct Shared {
    FgFrame *frame;
    const FgBlockRun *run;
    double *sums;                       /* of each part                                           */
    int failed;
} Shared;

static void shared_part(void *context, int64_t part, int thread)
{
    Shared *s = context;
    const FgBlockRun *run = s->run;
    char *memory = block_memory(s->frame, thread);
    if (memory == NULL) {
        s->failed = 1;
        return;
    }
    int64_t begin = part * PART, end = begin + PART < run->size ? begin + PART : run->size;
    blocks_between(s->frame, run, memory, begin, end, thread == 0);
    FgTotal *totals = (FgTotal *)(void *)(memory + (int64_t)run->registers * 8);
    for (int32_t k = 0; k < run->sum_count; k++)
        s->sums[part * run->sum_count + k] = total_value(&totals[k]);
}

int run_blocks(FgFrame *f, const FgBlockRun *run)
{
    char *memory = block_memory(f, 0);
    if (memory == NULL) return FG_RUN_ERROR;
    for (int32_t k = 0; k < run->sum_count; k++)
        if (!run->sums[k].all)
            memset(f->memory[run->sums[k].wide], 0, (size_t)run->sums[k].size * 8);
    FgTotal *totals = (FgTotal *)(void *)(memory + (int64_t)run->registers * 8);
    if (run->shared) {
        int64_t parts = (run->size + PART - 1) / PART;
        Shared s = { f, run, NULL, 0 };
        s.sums = fg_malloc((size_t)(parts * run->sum_count + 1) * sizeof(double));
        if (s.sums == NULL) return FG_RUN_ERROR;
        fg_parallel(shared_part, &s, parts);
        for (int32_t k = 0; k < run->sum_count; k++) {
            FgPairs t = { .count = 0 };
            for (int64_t part = 0; part < parts; part++)
                fg_pairs_add(&t, s.sums[part * run->sum_count + k]);
            f->registers[run->sums[k].reg] = rounded_to(run->sums[k].dtype, fg_pairs_value(&t));
        }
        fg_free(s.sums);
        return s.failed || f->root->stop ? FG_RUN_ERROR : FG_RUN_DONE;
    }
    blocks_between(f, run, memory, 0, run->size, 1);
    if (f->root->stop) return FG_RUN_ERROR;
    for (int32_t k = 0; k < run->sum_count; k++) {
        const FgBlockSum *sum = &run->sums[k];
        if (sum->all) {
            f->registers[sum->reg] = rounded_to(sum->dtype, total_value(&totals[k]));
        } else if (sum->dtype == FG_FLOAT32) {
            const double *wide = (const void *)f->memory[sum->wide];
            float *y = (void *)f->memory[sum->place];
            for (int64_t i = 0; i < sum->size; i++) y[i] = (float)wide[i];
        }
    }
    return FG_RUN_DONE;
}
