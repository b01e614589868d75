/* `arith` at many points: y = y*x + y, 500 times from y = x, for each lane.
 *
 * A few vectors of lanes go through the whole program at a time, so that y stays in registers and
 * additions do not wait for each other, and on the way back what was kept is still in the cache.
 * The number of lanes is a multiple of 32.
 */

#include <string.h>

#include "repeat.h"

typedef double lanes __attribute__((vector_size(32)));

enum { ARITH = 500, WIDTH = sizeof(lanes) / sizeof(double), VALUES = 8, SLOPES = 4 };

static inline lanes load(const double *x)
{
    lanes y;

    memcpy(&y, x, sizeof y);
    return y;
}

static inline void store(double *x, lanes y)
{
    memcpy(x, &y, sizeof y);
}

void arith_values(long n, const double *x, double *value, double *gradient)
{
    (void)gradient;
    for (long i = 0; i < n; i += VALUES * WIDTH) {
        lanes at[VALUES], y[VALUES];

        for (int j = 0; j < VALUES; j++)
            y[j] = at[j] = load(x + i + j * WIDTH);
        for (int k = 0; k < ARITH; k++)
#pragma GCC unroll 8
            for (int j = 0; j < VALUES; j++)
                y[j] = y[j] * at[j] + y[j];
        for (int j = 0; j < VALUES; j++)
            store(value + i + j * WIDTH, y[j]);
    }
}

void arith_slopes(long n, const double *x, double *value, double *gradient)
{
    lanes kept[ARITH][SLOPES];

    for (long i = 0; i < n; i += SLOPES * WIDTH) {
        lanes at[SLOPES], y[SLOPES], slope[SLOPES], total[SLOPES];

#pragma GCC unroll 8
        for (int j = 0; j < SLOPES; j++) {
            y[j] = at[j] = load(x + i + j * WIDTH);
            slope[j] = (lanes){0} + 1;
            total[j] = (lanes){0};
        }
        for (int k = 0; k < ARITH; k++)
#pragma GCC unroll 8
            for (int j = 0; j < SLOPES; j++) {
                kept[k][j] = y[j];
                y[j] = y[j] * at[j] + y[j];
            }
        for (int k = ARITH - 1; k >= 0; k--)
#pragma GCC unroll 8
            for (int j = 0; j < SLOPES; j++) {
                total[j] += slope[j] * kept[k][j];
                slope[j] = slope[j] * at[j] + slope[j];
            }
#pragma GCC unroll 8
        for (int j = 0; j < SLOPES; j++) {
            store(value + i + j * WIDTH, y[j]);
            store(gradient + i + j * WIDTH, total[j] + slope[j]);
        }
    }
}
