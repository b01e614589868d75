/* Sums in pairs, and what reductions do with the entries of a row. Both extensions include it: eager
 * results and those of programs have the same bits. */
#ifndef FG_REDUCE_H
#define FG_REDUCE_H

#include <math.h>

#include "walk.h"

/* Sums of blocks added in pairs (a binary counter), so that the error grows with log n. */
typedef struct FgPairs {
    double part[48];
    int64_t count;              /* of blocks                                                      */
} FgPairs;

static inline void fg_pairs_add(FgPairs *t, double x)
{
    int i = 0;
    for (int64_t bits = t->count++; bits & 1; bits >>= 1) x += t->part[i++];
    t->part[i] = x;
}

static inline double fg_pairs_value(const FgPairs *t)
{
    double x = 0;
    int i = 0;
    for (int64_t bits = t->count; bits; bits >>= 1, i++) if (bits & 1) x += t->part[i];
    return x;
}

/* How many rows of a reduction are worked on at a time. */
static inline int64_t fg_rows_together(int64_t length)
{
    return length > 0 && length < FG_BLOCK ? FG_BLOCK / length : 1;
}

static inline double fg_entry(const char *p, int64_t i, int wide)
{
    return wide ? ((const double *)(const void *)p)[i]
                : (double)((const float *)(const void *)p)[i];
}

static inline void fg_entry_set(char *p, int64_t i, double x, int wide)
{
    if (wide) ((double *)(void *)p)[i] = x;
    else ((float *)(void *)p)[i] = (float)x;
}

/* Rows to exp(row - top), top being the maximum of each; an infinite one shifts by nothing. */
static inline void fg_rows_shift(const FgLoops *loops, char *block, int64_t rows, int64_t length,
                                 double *top, int wide)
{
    for (int64_t i = 0; i < rows; i++) {
        char *row = block + i * length * (wide ? 8 : 4);
        double shift = top[i] = loops->max(row, length);
        if (shift - shift != 0) shift = 0;
        for (int64_t k = 0; k < length; k++)
            fg_entry_set(row, k, fg_entry(row, k, wide) - shift, wide);
    }
    loops->value[FG_exp](block, NULL, NULL, block, rows * length);
}

/* One number a row, of rows in contiguous memory. */
static inline void fg_rows_reduce(int op, const FgLoops *loops, char *block, int64_t rows,
                                  int64_t length, double *top, char *out, int64_t at, int wide)
{
    if (op == FG_logsumexp && length) fg_rows_shift(loops, block, rows, length, top, wide);
    for (int64_t i = 0; i < rows; i++) {
        const char *row = block + i * length * (wide ? 8 : 4);
        double y = op == FG_prod ? 1 : -INFINITY;
        if (op == FG_prod) {
            for (int64_t k = 0; k < length; k++) {
                y *= fg_entry(row, k, wide);
                if (!wide) y = (double)(float)y;
            }
        } else if (length && op == FG_logsumexp) {
            /* An infinite maximum is the result; NaN comes out of the sum. */
            y = loops->sum(row, length);
            y = top[i] - top[i] != 0 && y == y ? top[i] : log(y) + top[i];
        } else if (length) {
            y = (op == FG_max ? loops->max : loops->min)(row, length);
        }
        fg_entry_set(out, at + i, y, wide);
    }
}

/* ---- adjoints ----------------------------------------------------------------------------- */

/* An entry's share g * x of a row's adjoint, exactly zero where either is. */
static inline double fg_entry_share(double g, double x) { return x == 0 || g == 0 ? 0 : g * x; }

static inline double fg_row_product(const char *row, int64_t n, int wide)
{
    double y = 1;
    for (int64_t k = 0; k < n; k++) y *= fg_entry(row, k, wide);
    return y;
}

/* Entries to `before` times the product of all others; returns the product of all. By halves:
 * n log n products, nothing stored, and overflow only where the result overflows too. */
static inline double fg_row_others(char *row, int64_t n, double before, int wide)
{
    const int64_t half = n / 2;
    if (n == 1) {
        const double x = fg_entry(row, 0, wide);
        fg_entry_set(row, 0, before, wide);
        return x;
    }
    char *second = row + half * (wide ? 8 : 4);
    const double left = fg_row_product(row, half, wide);
    const double right = fg_row_product(second, n - half, wide);
    fg_row_others(row, half, before * right, wide);
    fg_row_others(second, n - half, before * left, wide);
    return left * right;
}

/* Of prod: for each entry the product of the others, never by division, so that zeros are exact: with
 * two of them every product of others is zero, with one only its own is not. */
static inline void fg_row_weigh_prod(char *row, int64_t n, double g, int wide)
{
    int64_t zeros = 0, at = 0;
    for (int64_t k = 0; k < n; k++)
        if (fg_entry(row, k, wide) == 0) {
            zeros++;
            at = k;
        }
    if (zeros == 0 && g != 0) {
        fg_row_others(row, n, g, wide);
        return;
    }
    const int alone = zeros == 1 && g != 0;
    double others = 1;
    for (int64_t k = 0; k < n; k++) {
        if (alone && k != at) others *= fg_entry(row, k, wide);
        fg_entry_set(row, k, 0, wide);
    }
    if (alone) fg_entry_set(row, at, fg_entry_share(g, others), wide);
}

static inline void fg_row_weigh_logsumexp(char *row, int64_t n, double g, double top, int wide)
{
    double total = 0;
    for (int64_t k = 0; k < n; k++) {
        /* exp(inf) are the entries that count; all -inf: none does. */
        if (top - top != 0 && top == top)
            fg_entry_set(row, k, fg_entry(row, k, wide) > 1e300, wide);
        total += fg_entry(row, k, wide);
    }
    total = total != 0 ? 1 / total : 0;
    for (int64_t k = 0; k < n; k++)
        fg_entry_set(row, k, fg_entry_share(g, fg_entry(row, k, wide) * total), wide);
}

static inline void fg_row_weigh_extreme(char *row, int64_t n, double g, double y, int wide)
{
    int64_t ties = 0;
    for (int64_t k = 0; k < n; k++) {
        const double x = fg_entry(row, k, wide);
        ties += x == y || (x != x && y != y);
    }
    for (int64_t k = 0; k < n; k++) {
        const double x = fg_entry(row, k, wide);
        fg_entry_set(row, k, x == y || (x != x && y != y) ? g / (double)ties : 0, wide);
    }
}

/* Entries of rows to their adjoints: that of the row, g, from number `at` on, times the entry's
 * weight. g: NULL stands for ones. */
static inline void fg_rows_weigh(int op, const FgLoops *loops, char *block, int64_t rows,
                                 int64_t length, double *top, const char *g, int64_t at, int wide)
{
    if (op == FG_logsumexp) fg_rows_shift(loops, block, rows, length, top, wide);
    for (int64_t i = 0; i < rows; i++) {
        char *row = block + i * length * (wide ? 8 : 4);
        const double own = g != NULL ? fg_entry(g, at + i, wide) : 1;
        if (op == FG_prod) fg_row_weigh_prod(row, length, own, wide);
        else if (op == FG_logsumexp) fg_row_weigh_logsumexp(row, length, own, top[i], wide);
        else fg_row_weigh_extreme(row, length, own, (op == FG_max ? loops->max : loops->min)(
                                      row, length), wide);
    }
}

#endif
