/* Sums, whose bits do not depend on where blocks begin, and the other reductions, row after row. */
#include <math.h>
#include <string.h>

#include "run.h"

/* ---- sums --------------------------------------------------------------------------------- */

void total_add(FgTotal *t, double x)
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

double total_value(FgTotal *t)
{
    double x = 0;
    int i = 0;
    total_flush(t);
    for (int64_t bits = t->count; bits; bits >>= 1, i++) if (bits & 1) x += t->part[i];
    return x;
}

/* Blocks begin at multiples of 16 and do not cross a multiple of 512, or are multiples of it. */
void total_block(FgTotal *t, const char *p, int64_t n, int dtype)
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

int run_weights(FgFrame *f, const FgStep *s)
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

int run_rows(FgFrame *f, const FgStep *s)
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
