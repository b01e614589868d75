/* Running plans: frames, and one function for each kind of step. Nothing here knows Python; a step
 * that does is handed back through fg_vm_python. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "vm.h"
#include "pool.h"

const FgKernels **fg_vm_kernels;
const FgCallInfo *fg_vm_matmul[2];
FgPythonStep fg_vm_python;
int (*fg_vm_signals)(FgFrame *root);

/* Elements of a block run that go to one thread: many blocks, and a power of two of the blocks of
 * a sum, so that sums do not depend on how many threads there are. */
enum { PART = 32768 };

extern const FgFusedLoops fg_fused_base;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
extern const FgFusedLoops fg_fused_avx2, fg_fused_avx512;
#endif

/* For the instruction set that the core has chosen. */
static const FgFusedLoops *fused_loops(void)
{
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    const char *isa = (*fg_vm_kernels)->isa;
    if (strcmp(isa, "avx2") == 0) return &fg_fused_avx2;
    if (strcmp(isa, "avx512") == 0) return &fg_fused_avx512;
#endif
    return &fg_fused_base;
}

static const FgLoops *loops_of(int dtype)
{
    return dtype == FG_FLOAT64 ? &(*fg_vm_kernels)->f64 : &(*fg_vm_kernels)->f32;
}

/* Look now and then whether a signal has come. The caller's thread alone may do so. */
static int interrupted(FgFrame *f, int64_t work)
{
    enum { SELDOM = 4000000 };
    FgFrame *root = f->root;
    if ((root->since += work) >= SELDOM) {
        root->since = 0;
        if (fg_vm_signals(root)) root->stop = 1;
    }
    return root->stop;
}

/* ---- frames ------------------------------------------------------------------------------- */

FgFrame *fg_frame_new(const FgPlan *plan)
{
    FgFrame *f = fg_calloc(1, sizeof(FgFrame));
    if (f == NULL) return NULL;
    f->plan = plan;
    f->root = f;
    f->broken = -1;
    f->registers = fg_malloc((plan->registers + 1) * sizeof(double));
    f->memory = fg_calloc((size_t)plan->place_count + 1, sizeof(char *));
    f->loops = fg_calloc((size_t)plan->loop_count + 1, sizeof(FgLoopFrame));
    f->arrays = fg_chunk(plan->frame_bytes + 64);
    if (f->registers == NULL || f->memory == NULL || f->loops == NULL || f->arrays == NULL) {
        fg_frame_free(f);
        return NULL;
    }
    if (plan->registers) memcpy(f->registers, plan->numbers, plan->registers * sizeof(double));
    for (int32_t k = 0; k < plan->place_count; k++) {
        const FgPlace *p = &plan->places[k];
        if (p->kind == FG_PLACE_FRAME) f->memory[k] = f->arrays + p->offset;
        else if (p->kind == FG_PLACE_CONSTANT) f->memory[k] = (char *)(uintptr_t)p->data;
    }
    return f;
}

void fg_frame_free(FgFrame *f)
{
    for (int k = 0; k < FG_THREADS_MAX; k++) fg_chunk_free(f->blocks[k]);
    for (int32_t k = 0; f->loops != NULL && k < f->plan->loop_count; k++) {
        if (f->loops[k].body != NULL) fg_frame_free(f->loops[k].body);
        if (f->loops[k].condition != NULL) fg_frame_free(f->loops[k].condition);
        fg_chunk_free(f->loops[k].scratch);
    }
    for (int32_t k = 0; f->rooms != NULL && k < f->plan->step_count; k++) fg_chunk_free(f->rooms[k]);
    fg_free(f->rooms);
    fg_free(f->loops);
    fg_free(f->registers);
    fg_free(f->memory);
    fg_chunk_free(f->arrays);
    fg_free(f);
}

/* ---- strided memory ----------------------------------------------------------------------- */

static void number_store(char *p, double x, int dtype)
{
    if (dtype == FG_FLOAT64) memcpy(p, &x, 8);
    else if (dtype == FG_FLOAT32) *(float *)(void *)p = (float)x;
    else *p = x != 0;
}

/* The memory of an operand; a number is put down in `room`. */
static char *pointer_to(const FgFrame *f, const FgOperand *x, char *room)
{
    if (x->place >= 0) return f->memory[x->place] + x->offset;
    number_store(room, f->registers[x->reg], x->dtype);
    return room;
}

static void copy_run(char *to, int64_t to_stride, const char *from, int64_t stride, int64_t n,
                     int64_t item)
{
    if (to_stride == item && stride == item) {
        memcpy(to, from, (size_t)(n * item));
    } else if (item == 8) {
        for (int64_t i = 0; i < n; i++, to += to_stride, from += stride)
            *(uint64_t *)(void *)to = *(const uint64_t *)(const void *)from;
    } else if (item == 4) {
        for (int64_t i = 0; i < n; i++, to += to_stride, from += stride)
            *(uint32_t *)(void *)to = *(const uint32_t *)(const void *)from;
    } else {
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_stride, from + i * stride, (size_t)item);
    }
}

static void copy_strided(int32_t rank, const int64_t *dims, char *to, const int64_t *to_strides,
                         const char *from, const int64_t *strides, int64_t item)
{
    int64_t d[64], s[64], t[64], index[64] = { 0 };
    int32_t r = 0;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] == 0) return;
        if (dims[i] == 1) continue;
        if (r && s[r - 1] == strides[i] * dims[i] && t[r - 1] == to_strides[i] * dims[i]) {
            d[r - 1] *= dims[i];
            s[r - 1] = strides[i];
            t[r - 1] = to_strides[i];
        } else {
            d[r] = dims[i];
            s[r] = strides[i];
            t[r++] = to_strides[i];
        }
    }
    if (r == 0) {
        memcpy(to, from, (size_t)item);
        return;
    }
    for (r--;;) {
        copy_run(to, t[r], from, s[r], d[r], item);
        int32_t i = r - 1;
        for (; i >= 0; i--) {
            to += t[i];
            from += s[i];
            if (++index[i] < d[i]) break;
            to -= d[i] * t[i];
            from -= d[i] * s[i];
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

void fg_operand_copy(FgFrame *f, const FgOperand *x, char *out)
{
    char room[8];
    int64_t strides[64], item = fg_item(x->dtype), step = item;
    if (x->size == 0) return;
    const char *from = pointer_to(f, x, room);
    if (x->contiguous) {
        memcpy(out, from, (size_t)(x->size * item));
        return;
    }
    for (int32_t i = x->rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= x->dims[i];
    }
    copy_strided(x->rank, x->dims, out, strides, from, x->strides, item);
}

static char *walk_seek(const FgWalk *w, char *p, int64_t start, int64_t *index)
{
    for (int32_t i = w->rank - 1; i >= 0; i--) {
        index[i] = start % w->dims[i];
        start /= w->dims[i];
        p += index[i] * w->strides[i];
    }
    return p;
}

static char *walk_step(const FgWalk *w, char *p, int64_t *index, int64_t run)
{
    int32_t i = w->rank - 1;
    index[i] += run;
    p += run * w->strides[i];
    while (index[i] == w->dims[i] && i > 0) {
        p -= w->dims[i] * w->strides[i];
        index[i--] = 0;
        index[i]++;
        p += w->strides[i];
    }
    return p;
}

/* Elements start to start + n of the walk, to contiguous memory. */
static void walk_gather(const FgWalk *w, char *data, int64_t start, int64_t n, char *out,
                        int64_t item)
{
    int64_t index[64];
    const int32_t last = w->rank - 1;
    char *p = walk_seek(w, data, start, index);
    while (n > 0) {
        int64_t run = w->dims[last] - index[last];
        if (run > n) run = n;
        copy_run(out, item, p, w->strides[last], run, item);
        out += run * item;
        n -= run;
        p = walk_step(w, p, index, run);
    }
}

/* The other way round. */
static void walk_scatter(const FgWalk *w, char *data, int64_t start, int64_t n, const char *from,
                         int64_t item)
{
    int64_t index[64];
    const int32_t last = w->rank - 1;
    char *p = walk_seek(w, data, start, index);
    while (n > 0) {
        int64_t run = w->dims[last] - index[last];
        if (run > n) run = n;
        copy_run(p, w->strides[last], from, item, run, item);
        from += run * item;
        n -= run;
        p = walk_step(w, p, index, run);
    }
}

/* Add a block to the doubles that the walk visits. */
static void walk_add(const FgWalk *w, char *data, int64_t start, int64_t n, const char *from,
                     int dtype)
{
    int64_t index[64];
    const int32_t last = w->rank - 1;
    const int64_t stride = w->strides[last];
    const FgLoops *loops = loops_of(dtype);
    char *p = walk_seek(w, data, start, index);
    while (n > 0) {
        int64_t run = w->dims[last] - index[last];
        if (run > n) run = n;
        if (stride == 0) {
            *(double *)(void *)p += loops->sum(from, run);
        } else if (dtype == FG_FLOAT64 && stride == 8) {
            loops->accumulate(p, from, run);
        } else if (dtype == FG_FLOAT64) {
            const double *x = (const void *)from;
            for (int64_t i = 0; i < run; i++) *(double *)(void *)(p + i * stride) += x[i];
        } else {
            const float *x = (const void *)from;
            for (int64_t i = 0; i < run; i++) *(double *)(void *)(p + i * stride) += (double)x[i];
        }
        from += run * fg_item(dtype);
        n -= run;
        p = walk_step(w, p, index, run);
    }
}

/* ---- sums --------------------------------------------------------------------------------- */

static void total_add(FgTotal *t, double x)
{
    int i = 0;
    for (int64_t bits = t->count++; bits & 1; bits >>= 1) x += t->part[i++];
    t->part[i] = x;
}

static void total_flush(FgTotal *t)
{
    if (t->filled == 0) return;
    for (int half = 8; half > 0; half /= 2)
        for (int k = 0; k < half; k++) t->lane[k] += t->lane[k + half];
    total_add(t, t->lane[0]);
    memset(t->lane, 0, sizeof(t->lane));
    t->filled = 0;
}

static double total_value(FgTotal *t)
{
    double x = 0;
    int i = 0;
    total_flush(t);
    for (int64_t bits = t->count; bits; bits >>= 1, i++) if (bits & 1) x += t->part[i];
    return x;
}

/* Blocks begin at multiples of 16 and do not cross a multiple of 512, or are multiples of it. */
static void total_block(FgTotal *t, const char *p, int64_t n, int dtype)
{
    const FgLoops *loops = loops_of(dtype);
    const int64_t item = fg_item(dtype);
    if (t->filled == 0)
        for (; n >= 512; n -= 512, p += 512 * item) total_add(t, loops->sum(p, 512));
    int64_t i = 0;
    if (dtype == FG_FLOAT64) {
        const double *x = (const void *)p;
        for (; i + 16 <= n; i += 16) for (int k = 0; k < 16; k++) t->lane[k] += x[i + k];
        for (int k = 0; i < n; i++, k++) t->lane[k] += x[i];
    } else {
        const float *x = (const void *)p;
        for (; i + 16 <= n; i += 16) for (int k = 0; k < 16; k++) t->lane[k] += (double)x[i + k];
        for (int k = 0; i < n; i++, k++) t->lane[k] += (double)x[i];
    }
    t->filled += n;
    if (t->filled == 512) total_flush(t);
}

static double rounded_to(int dtype, double x) { return dtype == FG_FLOAT32 ? (double)(float)x : x; }

/* ---- block runs --------------------------------------------------------------------------- */

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
    switch (o->op) {
    case FG_BLOCK_MASK:
        loops_of(o->dtype)->mask(y, (const uint8_t *)a, m);
        break;
    case FG_BLOCK_WIDEN:
        for (int64_t i = 0; i < m; i++) ((double *)(void *)y)[i] = (double)narrow[i];
        break;
    case FG_BLOCK_NARROW:
        for (int64_t i = 0; i < m; i++) ((float *)(void *)y)[i] = (float)wide[i];
        break;
    case FG_BLOCK_WHOLE:
        if (o->dtype == FG_FLOAT64)
            for (int64_t i = 0; i < m; i++) ((double *)(void *)y)[i] = (double)whole[i];
        else
            for (int64_t i = 0; i < m; i++) ((float *)(void *)y)[i] = (float)whole[i];
        break;
    case FG_BLOCK_TRUTH:
        if (o->dtype == FG_FLOAT64)
            for (int64_t i = 0; i < m; i++) y[i] = wide[i] != 0;
        else
            for (int64_t i = 0; i < m; i++) y[i] = narrow[i] != 0;
        break;
    case FG_BLOCK_AND:
        for (int64_t i = 0; i < m; i++) y[i] = a[i] & b[i];
        break;
    case FG_BLOCK_OR:
        for (int64_t i = 0; i < m; i++) y[i] = a[i] | b[i];
        break;
    case FG_BLOCK_XOR:
        for (int64_t i = 0; i < m; i++) y[i] = a[i] ^ b[i];
        break;
    case FG_BLOCK_NOT:
        for (int64_t i = 0; i < m; i++) y[i] = !a[i];
        break;
    case FG_BLOCK_FINITE:
        if (o->dtype == FG_FLOAT64)
            for (int64_t i = 0; i < m; i++) y[i] = fabs(wide[i]) <= DBL_MAX;
        else
            for (int64_t i = 0; i < m; i++) y[i] = fabsf(narrow[i]) <= FLT_MAX;
        break;
    default:
        loops_of(o->dtype)->compare[o->op - FG_ELEMENTWISE_END](a, b, (uint8_t *)y, m);
    }
}

/* Elements begin to end of a run, all operators on one block, then on the next. */
static void blocks_between(FgFrame *f, const FgBlockRun *run, char *memory, int64_t begin,
                           int64_t end, int caller)
{
    char **at = (char **)(void *)memory;
    FgTotal *totals = (FgTotal *)(void *)(memory + (int64_t)run->registers * 8);
    char *slots = memory + slots_at(run);
    const int64_t slot = (int64_t)run->length * 8;
    const FgFusedLoops *fused = fused_loops();
    const FgLoops *f32 = &(*fg_vm_kernels)->f32, *f64 = &(*fg_vm_kernels)->f64;
    for (uint32_t r = 0; r < run->registers; r++) at[r] = slots + r * slot;
    for (int32_t k = 0; k < run->sum_count; k++) {
        totals[k].filled = totals[k].count = 0;
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
            if (o->op < FG_ELEMENTWISE_END) {
                const FgLoops *loops = o->dtype == FG_FLOAT64 ? f64 : f32;
                loops->value[o->op](at[o->a], at[o->b], at[o->c], at[o->y], m);
            } else if (o->op >= FG_FUSED_FIRST) {
                fused->loop[o->op - FG_FUSED_FIRST][o->dtype == FG_FLOAT64](
                    at[o->a], at[o->b], at[o->c], at[o->y], m);
            } else if (o->op == FG_BLOCK_GATHER) {
                const FgBlockInput *in = &run->inputs[o->a];
                walk_gather(&in->walk, f->memory[in->from.place] + in->from.offset, start, n,
                            at[o->y], in->item);
                pad(at[o->y], n, m, in->item);
            } else if (o->op == FG_BLOCK_SUM) {
                const FgBlockSum *sum = &run->sums[o->b];
                if (sum->all) total_block(&totals[o->b], at[o->a], n, sum->dtype);
                else walk_add(&sum->walk, f->memory[sum->wide], start, n, at[o->a], sum->dtype);
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

static int run_blocks(FgFrame *f, const FgBlockRun *run)
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
            FgTotal t = { .count = 0 };
            for (int64_t part = 0; part < parts; part++)
                total_add(&t, s.sums[part * run->sum_count + k]);
            f->registers[run->sums[k].reg] = rounded_to(run->sums[k].dtype, total_value(&t));
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

/* ---- other reductions --------------------------------------------------------------------- */

int64_t fg_rows_together(int64_t length)
{
    return length > 0 && length < FG_BLOCK ? FG_BLOCK / length : 1;
}

static double entry(const char *p, int64_t i, int dtype)
{
    return dtype == FG_FLOAT64 ? ((const double *)(const void *)p)[i]
                               : (double)((const float *)(const void *)p)[i];
}

static void entry_set(char *p, int64_t i, double x, int dtype)
{
    if (dtype == FG_FLOAT64) ((double *)(void *)p)[i] = x;
    else ((float *)(void *)p)[i] = (float)x;
}

/* One number a row, as the recorded operators compute it (rules/rules.pyx). */
static double row_value(const FgStep *s, const FgLoops *loops, const char *row, double top)
{
    double y = 1;
    switch (s->op) {
    case FG_max: return loops->max(row, s->length);
    case FG_min: return loops->min(row, s->length);
    case FG_prod:
        for (int64_t k = 0; k < s->length; k++)
            y = rounded_to(s->dtype, y * entry(row, k, s->dtype));
        return y;
    default:
        y = loops->sum(row, s->length);
        return top - top != 0 && y == y ? top : log(y) + top;
    }
}

/* Rows to exp(row - top), top being the maximum of each; an infinite one shifts by nothing. */
static void rows_shift(const FgStep *s, const FgLoops *loops, char *block, int64_t n, double *top)
{
    for (int64_t i = 0; i < n; i++) {
        char *row = block + i * s->length * fg_item(s->dtype);
        double shift = top[i] = loops->max(row, s->length);
        if (shift - shift != 0) shift = 0;
        for (int64_t k = 0; k < s->length; k++)
            entry_set(row, k, entry(row, k, s->dtype) - shift, s->dtype);
    }
    loops->value[FG_exp](block, NULL, NULL, block, n * s->length);
}

/* The partial of a row's reduction with respect to each entry, in place of the entry. */
static void row_weights(const FgStep *s, const FgLoops *loops, char *row, double top)
{
    if (s->op == FG_logsumexp) {
        double total = 0;
        for (int64_t k = 0; k < s->length; k++) {
            /* exp(inf) are the entries that count; all -inf: none does. */
            if (top - top != 0 && top == top)
                entry_set(row, k, entry(row, k, s->dtype) > 1e300, s->dtype);
            total += entry(row, k, s->dtype);
        }
        total = total != 0 ? 1 / total : 0;
        for (int64_t k = 0; k < s->length; k++) {
            double x = entry(row, k, s->dtype) * total;
            entry_set(row, k, x == 0 ? 0 : x, s->dtype);
        }
        return;
    }
    double y = s->op == FG_max ? loops->max(row, s->length) : loops->min(row, s->length);
    int64_t ties = 0;
    for (int64_t k = 0; k < s->length; k++) {
        double x = entry(row, k, s->dtype);
        ties += x == y || (x != x && y != y);
    }
    for (int64_t k = 0; k < s->length; k++) {
        double x = entry(row, k, s->dtype);
        entry_set(row, k, x == y || (x != x && y != y) ? 1 / (double)ties : 0, s->dtype);
    }
}

static int run_weights(FgFrame *f, const FgStep *s)
{
    const FgLoops *loops = loops_of(s->dtype);
    const int64_t item = fg_item(s->dtype), together = fg_rows_together(s->length);
    char room[8], *data = pointer_to(f, &s->in[0], room), *block = f->memory[s->extra];
    double *top = (double *)(void *)(block + ((together * s->length * item + 7) & ~(int64_t)7));
    for (int64_t start = 0; start < s->rows && s->length; start += together) {
        int64_t n = s->rows - start < together ? s->rows - start : together;
        walk_gather(&s->walk, data, start * s->length, n * s->length, block, item);
        if (s->op == FG_logsumexp) rows_shift(s, loops, block, n, top);
        for (int64_t i = 0; i < n; i++) row_weights(s, loops, block + i * s->length * item, top[i]);
        walk_scatter(&s->back, f->memory[s->out.place], start * s->length, n * s->length, block,
                     item);
    }
    return FG_RUN_DONE;
}

static int run_rows(FgFrame *f, const FgStep *s)
{
    const FgLoops *loops = loops_of(s->dtype);
    const int64_t item = fg_item(s->dtype), together = fg_rows_together(s->length);
    char room[8], *data = pointer_to(f, &s->in[0], room), *block = f->memory[s->extra];
    double *top = (double *)(void *)(block + ((together * s->length * item + 7) & ~(int64_t)7));
    for (int64_t start = 0; start < s->rows; start += together) {
        int64_t n = s->rows - start < together ? s->rows - start : together;
        if (s->length) walk_gather(&s->walk, data, start * s->length, n * s->length, block, item);
        if (s->op == FG_logsumexp && s->length) rows_shift(s, loops, block, n, top);
        for (int64_t i = 0; i < n; i++) {
            double y = s->length ? row_value(s, loops, block + i * s->length * item, top[i])
                       : s->op == FG_prod ? 1 : -INFINITY;
            if (s->out.place < 0) f->registers[s->out.reg] = rounded_to(s->dtype, y);
            else entry_set(f->memory[s->out.place], start + i, y, s->dtype);
        }
    }
    return FG_RUN_DONE;
}

/* ---- matrices ----------------------------------------------------------------------------- */

/* Calls an inner loop for the last of the batch axes, at each index of those before it. strides: of
 * each operand along all of them. */
static void run_lanes(const FgCallInfo *info, char **data, int32_t count, int64_t *dims, int64_t *steps,
                      int32_t axes, const int64_t *lengths, const int64_t *strides)
{
    int64_t index[64];
    char *moved[FG_INNER_OPERANDS];     /* by NumPy's loops                                       */
    dims[0] = axes ? lengths[axes - 1] : 1;
    for (int32_t k = 0; k < count; k++) steps[k] = axes ? strides[k * axes + axes - 1] : 0;
    for (int32_t i = 0; i < axes - 1; i++) index[i] = 0;
    for (;;) {
        memcpy(moved, data, (size_t)count * sizeof(char *));
        info->loop(info->context, moved, dims, steps, info->auxdata);
        int32_t i = axes - 2;
        for (; i >= 0; i--) {
            int last = ++index[i] == lengths[i];
            for (int32_t k = 0; k < count; k++)
                data[k] += (last ? 1 - lengths[i] : 1) * strides[k * axes + i];
            if (!last) break;
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

static int run_matmul(FgFrame *f, const FgStep *s)
{
    const FgOperand *x[2] = { &s->in[0], &s->in[1] };
    const int64_t item = fg_item(s->dtype);
    const int32_t ra = x[0]->rank, rb = x[1]->rank, rank = ra > rb ? ra : rb;
    const int32_t axes = rank > 2 ? rank - 2 : 0;
    const int64_t m = ra > 1 ? x[0]->dims[ra - 2] : 1, k = x[0]->dims[ra - 1];
    const int64_t n = rb > 1 ? x[1]->dims[rb - 1] : 1;
    int64_t dims[4] = { 1, m, k, n };
    int64_t steps[9] = { 0, 0, 0, ra > 1 ? x[0]->strides[ra - 2] : 0, x[0]->strides[ra - 1],
                         x[1]->strides[rb > 1 ? rb - 2 : 0], rb > 1 ? x[1]->strides[rb - 1] : 0,
                         n * item, item };
    int64_t strides[3 * 64];
    char rooms[3][8], *data[3];
    char *out = s->out.place < 0 ? rooms[2] : f->memory[s->out.place];
    if (m * k * n == 0) {
        if (s->out.size) memset(out, 0, (size_t)(s->out.size * item));
    } else if (s->out.size) {
        for (int32_t j = 0; j < 2; j++) {
            const int32_t less = axes + 2 - x[j]->rank;     /* axes that the other one has        */
            data[j] = pointer_to(f, x[j], rooms[j]);
            for (int32_t i = 0; i < axes; i++)
                strides[j * axes + i] = i < less || x[j]->dims[i - less] == 1 ? 0
                                                                             : x[j]->strides[i - less];
        }
        data[2] = out;
        int64_t size = m * n * item;
        for (int32_t i = axes - 1; i >= 0; size *= s->out.dims[i--]) strides[2 * axes + i] = size;
        run_lanes(fg_vm_matmul[s->dtype == FG_FLOAT64], data, 3, dims, steps, axes, s->out.dims, strides);
    }
    if (s->out.place < 0) f->registers[s->out.reg] = fg_number_at(out, s->dtype);
    return FG_RUN_DONE;
}

/* The memory of all results of a call; its head tells whether they are there. */
static char *inner_room(FgFrame *f, const FgInner *c)
{
    if (f->rooms == NULL) f->rooms = fg_calloc((size_t)f->plan->step_count, sizeof(char *));
    if (f->rooms == NULL) return NULL;
    if (f->rooms[c->first] == NULL) {
        f->rooms[c->first] = fg_chunk(c->room);
        if (f->rooms[c->first] != NULL) *f->rooms[c->first] = 0;
    }
    return f->rooms[c->first];
}

/* 0: not done, or not to the end. (NaN tells of a singular matrix as well, of which NumPy's function
 * knows what to say.) */
static int run_inner(FgFrame *f, const FgStep *s)
{
    const FgInner *c = s->inner;
    char *data[FG_INNER_OPERANDS], *room = NULL, *out = f->memory[s->out.place];
    int64_t dims[1 + 2 * FG_INNER_OPERANDS], steps[3 * FG_INNER_OPERANDS];
    if (c->results > 1 && (room = inner_room(f, c)) == NULL) return 0;
    if (c->first == s - f->plan->steps) {
        for (int32_t k = 0; k < c->operands; k++)
            data[k] = f->memory[s->in[k].place] + s->in[k].offset;
        for (int32_t k = 0; k < c->results; k++) data[c->operands + k] = room ? room + c->at[k] : out;
        const double *first = (const void *)(room ? room + c->at[0] : out);
        memcpy(dims, c->dims, sizeof dims);
        memcpy(steps, c->steps, sizeof steps);
        if (room) *room = 0;
        run_lanes(c->info, data, c->operands + c->results, dims, steps, c->axes, c->lengths, c->strides);
        for (int64_t k = 0; k < c->lanes; k++)
            if (isnan(first[k * c->lane])) return 0;
        if (room) *room = 1;
    }
    if (room == NULL) return 1;
    if (*room) memcpy(out, room + c->at[c->which], (size_t)s->out.size * sizeof(double));
    return *room;
}

/* ---- the rest ----------------------------------------------------------------------------- */

static int run_copy(FgFrame *f, const FgStep *s)
{
    char room[8];
    if (s->zero) memset(f->memory[s->out.place], 0, (size_t)(s->out.size * fg_item(s->out.dtype)));
    for (int32_t k = 0; k < s->count; k++) {
        const FgCopy *c = &s->copies[k];
        if (c->from.size)
            copy_strided(c->from.rank, c->from.dims, f->memory[c->to.place] + c->to.offset,
                         c->to.strides, pointer_to(f, &c->from, room), c->from.strides,
                         fg_item(c->from.dtype));
    }
    return FG_RUN_DONE;
}

/* Entries along axis 0, taken or added to zeros. What is out of bounds is left to NumPy, which
 * knows what to say. */
static int run_rows_at(FgFrame *f, const FgStep *s)
{
    const int64_t item = fg_item(s->dtype), row = s->width * item;
    const FgOperand *wide = s->op == FG_gather ? &s->in[0] : &s->out;
    const int64_t length = wide->dims[0];
    const int64_t *places = s->places;
    const char *from = f->memory[s->in[0].place] + s->in[0].offset;
    char *to = f->memory[s->out.place];
    if (places == NULL)
        places = (const void *)(f->memory[s->in[s->count - 1].place] + s->in[s->count - 1].offset);
    if (s->op == FG_scatter) memset(to, 0, (size_t)(s->out.size * item));
    for (int64_t i = 0; i < s->place_count; i++) {
        int64_t at = places[i] < 0 ? places[i] + length : places[i];
        if (at < 0 || at >= length) return fg_vm_python(f, s);
        if (s->op == FG_gather) {
            if (row == 8) memcpy(to + i * 8, from + at * 8, 8);
            else memcpy(to + i * row, from + at * row, (size_t)row);
        } else if (s->dtype == FG_FLOAT64) {
            double *y = (double *)(void *)(to + at * row);
            const double *x = (const void *)(from + i * row);
            for (int64_t k = 0; k < s->width; k++) y[k] += x[k];
        } else {
            float *y = (float *)(void *)(to + at * row);
            const float *x = (const void *)(from + i * row);
            for (int64_t k = 0; k < s->width; k++) y[k] += x[k];
        }
    }
    return FG_RUN_DONE;
}

static int run_load(FgFrame *f, const FgStep *s)
{
    for (int32_t k = 0; k < s->count; k++) {
        const FgCopy *c = &s->copies[k];
        double x = fg_number_at(f->memory[c->from.place] + c->from.offset, c->from.dtype);
        f->registers[c->to.reg] = c->to.dtype == FG_BOOL ? x != 0 : rounded_to(c->to.dtype, x);
    }
    return FG_RUN_DONE;
}

static int run_pack(FgFrame *f, const FgStep *s)
{
    char *out = f->memory[s->out.place];
    const int64_t item = fg_item(s->dtype);
    for (int32_t k = 0; k < s->count; k++)
        number_store(out + k * item, f->registers[s->in[k].reg], s->dtype);
    return FG_RUN_DONE;
}

/* Calls look(context, entry) for each entry of an operand until it returns 0. */
static int each_entry(const FgOperand *x, const char *p, int (*look)(void *context, double entry),
                      void *context)
{
    int64_t index[64] = { 0 };
    for (int64_t left = x->size; left > 0; left--) {
        if (!look(context, fg_number_at(p, x->dtype))) return 0;
        for (int32_t i = x->rank - 1; i >= 0; i--) {
            p += x->strides[i];
            if (++index[i] < x->dims[i]) break;
            p -= x->dims[i] * x->strides[i];
            index[i] = 0;
        }
    }
    return 1;
}

static int is_finite_entry(void *context, double x)
{
    (void)context;
    return x - x == 0;
}

static int count_entry(void *context, double x)
{
    *(int64_t *)context += x != 0;
    return 1;
}

/* Differences of a number and itself, 0 or NaN, in four sums that do not wait for each other. */
#define FG_ALL_FINITE(type) \
    do { \
        const type *y = (const void *)p; \
        type sum[4] = { 0, 0, 0, 0 }; \
        int64_t k = 0; \
        for (; k + 4 <= x->size; k += 4) \
            for (int j = 0; j < 4; j++) sum[j] += y[k + j] - y[k + j]; \
        for (; k < x->size; k++) sum[0] += y[k] - y[k]; \
        return sum[0] + sum[1] + sum[2] + sum[3] == 0; \
    } while (0)

static int all_finite(const FgOperand *x, const char *p)
{
    if (x->contiguous && x->dtype == FG_FLOAT64) FG_ALL_FINITE(double);
    if (x->contiguous && x->dtype == FG_FLOAT32) FG_ALL_FINITE(float);
    return each_entry(x, p, is_finite_entry, NULL);
}

static int run_finite(FgFrame *f, const FgStep *s)
{
    char room[8];
    f->registers[s->out.reg] = all_finite(&s->in[0], pointer_to(f, &s->in[0], room));
    return FG_RUN_DONE;
}

static int run_guard(FgFrame *f, const FgStep *s)
{
    char room[8];
    const FgOperand *x = &s->in[0];
    const char *p = pointer_to(f, x, room);
    int64_t met = 0;
    if (s->guard_kind == FG_GUARD_COUNT) {
        each_entry(x, p, count_entry, &met);
    } else if (s->guard_kind == FG_GUARD_FINITE) {
        met = all_finite(x, p);
    } else if (s->guard_kind == FG_GUARD_BOOL) {
        met = fg_number_at(p, x->dtype) != 0;
    } else if (x->dtype == FG_INT64) {
        memcpy(&met, p, 8);
    } else {
        double number = fg_number_at(p, x->dtype);
        if (!(number > -9.2e18 && number < 9.2e18)) return s->node;
        met = (int64_t)number;
    }
    return met == s->outcome ? FG_RUN_DONE : s->node;
}

/* ---- loops -------------------------------------------------------------------------------- */

static int64_t bytes_of(const FgOperand *x) { return x->size * fg_item(x->dtype); }
static int64_t padded(int64_t nbytes) { return (nbytes + 63) & ~(int64_t)63; }
/* A carry or an entry that is a register of the body, as far as the body looks at it. */
static int in_register(const FgOperand *x)
{
    return x->rank == 0 &&
           (x->dtype == FG_FLOAT64 || x->dtype == FG_FLOAT32 || x->dtype == FG_BOOL);
}

/* Two buffers for each carry; a row for each output that nobody wants; whole operands that do not
 * lie in order; a number for each carry, and another for what it becomes. */
int64_t fg_loop_scratch(const FgLoop *loop)
{
    const FgPlan *body = loop->body;
    int64_t total = padded(16 * loop->carries) + padded(16 * loop->sequences) + 64;
    for (int32_t k = 0; k < body->output_count; k++)
        total += (k < loop->carries ? 2 : 1) * padded(bytes_of(&body->outputs[k]));
    for (int32_t k = loop->carries; k < body->input_count; k++)
        total += padded(bytes_of(&body->inputs[k]) *
                        (k < loop->carries + loop->sequences ? loop->length : 1));
    return total;
}

static int loop_frame(FgFrame *f, const FgStep *s)
{
    FgLoopFrame *own = &f->loops[s->loop_number];
    const FgLoop *loop = s->loop;
    if (own->body == NULL) {
        own->body = fg_frame_new(loop->body);
        if (own->body == NULL) return FG_RUN_ERROR;
        own->body->owner = loop->body_owner;
    }
    if (own->condition == NULL && loop->condition != NULL) {
        own->condition = fg_frame_new(loop->condition);
        if (own->condition == NULL) return FG_RUN_ERROR;
        own->condition->owner = loop->condition_owner;
    }
    if (own->scratch == NULL) own->scratch = fg_chunk(loop->scratch);
    if (own->scratch == NULL) return FG_RUN_ERROR;
    own->body->root = f->root;
    if (own->condition != NULL) own->condition->root = f->root;
    return FG_RUN_DONE;
}

/* Let a graph's input have its value at p. */
static void bind_input(FgFrame *f, int32_t k, const char *p)
{
    const FgOperand *x = &f->plan->inputs[k];
    if (x->place >= 0) f->memory[x->place] = (char *)(uintptr_t)p;
    else if (x->reg != UINT32_MAX) f->registers[x->reg] = fg_number_at(p, x->dtype);
}

/* An operand of the loop as rows of the body's input, one after the other. */
static const char *rows_of(FgFrame *f, const FgOperand *x, char **scratch, int64_t *stride)
{
    const int64_t item = fg_item(x->dtype);
    int64_t row = item;
    int plain = x->place >= 0;
    for (int32_t k = x->rank - 1; k > 0; k--) {
        if (x->dims[k] != 1 && x->strides[k] != row) plain = 0;
        row *= x->dims[k];
    }
    *stride = row;
    if (x->size == 0) return *scratch;
    if (plain) {
        if (x->rank) *stride = x->strides[0];
        return f->memory[x->place] + x->offset;
    }
    char *copy = *scratch;
    fg_operand_copy(f, x, copy);
    *scratch += padded(bytes_of(x));
    return copy;
}

static int run_loop(FgFrame *f, const FgStep *s)
{
    const FgLoop *loop = s->loop;
    const FgPlan *body = loop->body;
    const int32_t carries = loop->carries, sequences = loop->sequences;
    const int32_t outputs = body->output_count;
    if (loop_frame(f, s) != FG_RUN_DONE) return FG_RUN_ERROR;
    FgFrame *inner = f->loops[s->loop_number].body, *test = f->loops[s->loop_number].condition;
    char *scratch = f->loops[s->loop_number].scratch;
    double *numbers = (double *)(void *)scratch;
    scratch += padded(16 * carries);
    char *first = scratch;              /* buffers of the carries: two rows of them               */
    int64_t half = 0, at;
    for (int32_t k = 0; k < carries; k++) half += padded(bytes_of(&body->outputs[k]));
    scratch += 2 * half;
    char *rows = scratch;               /* for outputs that have no other place                   */
    for (int32_t k = carries; k < outputs; k++) scratch += padded(bytes_of(&body->outputs[k]));
    at = 0;
    for (int32_t k = 0; k < carries; k++) {
        if (in_register(&s->in[k]) && s->in[k].place < 0) numbers[k] = f->registers[s->in[k].reg];
        else fg_operand_copy(f, &s->in[k], first + at);
        at += padded(bytes_of(&body->outputs[k]));
    }
    const char **sequence = (const char **)(void *)scratch;
    int64_t *strides = (int64_t *)(void *)(scratch + 8 * sequences);
    scratch += padded(16 * sequences);
    for (int32_t k = 0; k < sequences; k++)
        sequence[k] = rows_of(f, &s->in[carries + k], &scratch, &strides[k]);
    for (int32_t k = 0; k < loop->constants; k++) {
        const FgOperand *x = &s->in[carries + sequences + k];
        char room[8];
        const char *p = scratch;
        if (x->rank == 0 || (x->contiguous && x->place >= 0)) {
            p = pointer_to(f, x, room);
        } else {
            fg_operand_copy(f, x, scratch);
            scratch += padded(bytes_of(x));
        }
        bind_input(inner, carries + sequences + k, p);
        if (test != NULL) bind_input(test, carries + k, p);
    }
    int now = 0;                        /* which row of buffers has the carries                   */
    for (int64_t step = 0; loop->length < 0 || step < loop->length; step++) {
        const int64_t entry = loop->reverse ? loop->length - 1 - step : step;
        char *current = first + now * half, *next = first + !now * half, *row = rows;
        if (interrupted(f, body->work + 20)) return FG_RUN_ERROR;
        for (FgFrame *g = test != NULL ? test : inner;; g = inner) {
            at = 0;
            for (int32_t k = 0; k < carries; k++) {
                const FgOperand *x = &g->plan->inputs[k];
                if (!in_register(x)) bind_input(g, k, current + at);
                else if (x->reg != UINT32_MAX) g->registers[x->reg] = numbers[k];
                at += padded(bytes_of(&body->outputs[k]));
            }
            if (g == inner) break;
            int met = fg_run(g);
            if (met != FG_RUN_DONE) {
                if (met >= 0) { f->root->broken = met; f->root->broken_plan = g->plan; }
                return FG_RUN_ERROR;
            }
            char room[8];
            if (fg_number_at(pointer_to(g, &g->plan->outputs[0], room),
                             g->plan->outputs[0].dtype) == 0) goto done;
        }
        for (int32_t k = 0; k < sequences; k++)
            bind_input(inner, carries + k, sequence[k] + entry * strides[k]);
        at = 0;
        for (int32_t k = 0; k < outputs; k++) {
            const FgOperand *x = &body->outputs[k];
            char *to = next + at;
            if (k >= carries) {
                to = row;
                row += padded(bytes_of(x));
                if (s->results[k].place >= 0)
                    to = f->memory[s->results[k].place] + entry * bytes_of(x);
            } else {
                at += padded(bytes_of(x));
            }
            if (body->output_place[k] >= 0) inner->memory[body->output_place[k]] = to;
        }
        int met = fg_run(inner);
        if (met != FG_RUN_DONE) {
            if (met >= 0) { f->root->broken = met; f->root->broken_plan = body; }
            return FG_RUN_ERROR;
        }
        at = 0;
        for (int32_t k = 0; k < outputs; k++) {
            const FgOperand *x = &body->outputs[k];
            if (k < carries) {
                if (in_register(x) && x->place < 0) numbers[carries + k] = inner->registers[x->reg];
                else if (body->output_place[k] < 0) fg_operand_copy(inner, x, next + at);
                at += padded(bytes_of(x));
            } else if (body->output_place[k] < 0 && s->results[k].place >= 0) {
                fg_operand_copy(inner, x, f->memory[s->results[k].place] + entry * bytes_of(x));
            }
        }
        memcpy(numbers, numbers + carries, (size_t)carries * sizeof(double));
        now = !now;
    }
done:
    at = 0;
    for (int32_t k = 0; k < carries; k++) {
        const FgOperand *y = &s->results[k];
        if (y->place >= 0)
            memcpy(f->memory[y->place], first + now * half + at,
                   (size_t)bytes_of(&body->outputs[k]));
        else if (y->reg != UINT32_MAX)
            f->registers[y->reg] = numbers[k];
        at += padded(bytes_of(&body->outputs[k]));
    }
    return FG_RUN_DONE;
}

int fg_run(FgFrame *f)
{
    const FgPlan *plan = f->plan;
    for (const FgStep *s = plan->steps, *stop = s + plan->step_count; s < stop; s++) {
        int met = FG_RUN_DONE;
        if (interrupted(f, s->kind == FG_STEP_BLOCKS ? 0 : s->work)) return FG_RUN_ERROR;
        switch (s->kind) {
        case FG_STEP_SCALARS: fg_scalar_run(s->scalars, f->registers); break;
        case FG_STEP_BLOCKS: met = run_blocks(f, s->blocks); break;
        case FG_STEP_ROWS: met = run_rows(f, s); break;
        case FG_STEP_MATMUL: met = run_matmul(f, s); break;
        case FG_STEP_COPY: met = run_copy(f, s); break;
        case FG_STEP_LOAD: met = run_load(f, s); break;
        case FG_STEP_PACK: met = run_pack(f, s); break;
        case FG_STEP_FINITE: met = run_finite(f, s); break;
        case FG_STEP_WEIGHTS: met = run_weights(f, s); break;
        case FG_STEP_ROWS_AT: met = run_rows_at(f, s); break;
        case FG_STEP_LOOP: met = run_loop(f, s); break;
        case FG_STEP_GUARD: met = run_guard(f, s); break;
        default:
            if (s->inner == NULL || !run_inner(f, s)) met = fg_vm_python(f, s);
            break;
        }
        if (met != FG_RUN_DONE) return met;
    }
    return FG_RUN_DONE;
}
