/* Sums, whose bits do not depend on where blocks begin, and the other reductions, row after row. */
#include "run.h"

/* ---- sums --------------------------------------------------------------------------------- */

static void total_flush(FgTotal *t)
{
    if (t->filled == 0) return;
    for (int half = 8; half > 0; half /= 2)
        for (int k = 0; k < half; k++) t->lane[k] += t->lane[k + half];
    fg_pairs_add(&t->blocks, t->lane[0]);
    memset(t->lane, 0, sizeof(t->lane));
    t->filled = 0;
}

double total_value(FgTotal *t)
{
    total_flush(t);
    return fg_pairs_value(&t->blocks);
}

/* Blocks begin at multiples of 16 and do not cross a multiple of 512, or are multiples of it. */
void total_block(FgTotal *t, const char *p, int64_t n, int dtype)
{
    const FgLoops *loops = loops_of(dtype);
    const int64_t item = fg_item(dtype);
    if (t->filled == 0)
        for (; n >= 512; n -= 512, p += 512 * item) fg_pairs_add(&t->blocks, loops->sum(p, 512));
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

/* ---- other reductions --------------------------------------------------------------------- */

/* A place to work: together rows of an operand, and their maxima behind them. */
static double *tops(const FgStep *s, char *block, int64_t together)
{
    const int64_t nbytes = together * s->length * fg_item(s->dtype);
    return (double *)(void *)(block + ((nbytes + 7) & ~(int64_t)7));
}

int run_weights(FgFrame *f, const FgStep *s)
{
    const int64_t item = fg_item(s->dtype), together = fg_rows_together(s->length);
    char room[8], *data = pointer_to(f, &s->in[0], room), *block = f->memory[s->extra];
    for (int64_t start = 0; start < s->rows && s->length; start += together) {
        const int64_t n = s->rows - start < together ? s->rows - start : together;
        fg_walk_gather(&s->walk, data, start * s->length, n * s->length, block, item);
        fg_rows_weigh(s->op, loops_of(s->dtype), block, n, s->length, tops(s, block, together),
                      NULL, 0, s->dtype == FG_FLOAT64);
        fg_walk_scatter(&s->back, f->memory[s->out.place], start * s->length, n * s->length, block,
                        item);
    }
    return FG_RUN_DONE;
}

int run_rows(FgFrame *f, const FgStep *s)
{
    const int64_t item = fg_item(s->dtype), together = fg_rows_together(s->length);
    char room[8], result[8], *data = pointer_to(f, &s->in[0], room), *block = f->memory[s->extra];
    char *out = s->out.place < 0 ? result : f->memory[s->out.place];
    for (int64_t start = 0; start < s->rows; start += together) {
        const int64_t n = s->rows - start < together ? s->rows - start : together;
        fg_walk_gather(&s->walk, data, start * s->length, n * s->length, block, item);
        fg_rows_reduce(s->op, loops_of(s->dtype), block, n, s->length, tops(s, block, together),
                       out, start, s->dtype == FG_FLOAT64);
    }
    if (s->out.place < 0) f->registers[s->out.reg] = fg_number_at(out, s->dtype);
    return FG_RUN_DONE;
}
