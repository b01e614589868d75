/* `arith` at many points: y = y*x + y, 500 times from y = x, for each lane.
 *
 * A few lanes at a time go through the whole program, so that y stays in registers, and on the
 * way back what was kept of it is still in the cache.
 */

#include "repeat.h"

enum { ARITH = 500, VALUES = 32, GRADIENTS = 8 };

void arith_values(long n, const double *x, double *value, double *gradient)
{
    (void)gradient;
    for (long i = 0; i + VALUES <= n; i += VALUES) {
        double at[VALUES], y[VALUES];

        for (int j = 0; j < VALUES; j++)
            y[j] = at[j] = x[i + j];
        for (int k = 0; k < ARITH; k++)
            for (int j = 0; j < VALUES; j++)
                y[j] = y[j] * at[j] + y[j];
        for (int j = 0; j < VALUES; j++)
            value[i + j] = y[j];
    }
}

void arith_slopes(long n, const double *x, double *value, double *gradient)
{
    for (long i = 0; i + GRADIENTS <= n; i += GRADIENTS) {
        static __thread double kept[ARITH][GRADIENTS];
        double at[GRADIENTS], y[GRADIENTS], slope[GRADIENTS], total[GRADIENTS];

        for (int j = 0; j < GRADIENTS; j++) {
            y[j] = at[j] = x[i + j];
            slope[j] = 1;
            total[j] = 0;
        }
        for (int k = 0; k < ARITH; k++)
            for (int j = 0; j < GRADIENTS; j++) {
                kept[k][j] = y[j];
                y[j] = y[j] * at[j] + y[j];
            }
        for (int k = ARITH - 1; k >= 0; k--)
            for (int j = 0; j < GRADIENTS; j++) {
                total[j] += slope[j] * kept[k][j];
                slope[j] = slope[j] * at[j] + slope[j];
            }
        for (int j = 0; j < GRADIENTS; j++) {
            value[i + j] = y[j];
            gradient[i + j] = total[j] + slope[j];
        }
    }
}
