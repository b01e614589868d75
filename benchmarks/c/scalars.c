/* Value and slope of `chain` and `arith`, reverse mode written out. */

#define _GNU_SOURCE         /* sincos */
#include <math.h>

#include "repeat.h"

enum { CHAIN = 333, ARITH = 500 };

/* y = sin(y)*x + y: one sincos on the way there, two products on the way back. */
void chain(long n, const double *x, double *value, double *gradient)
{
    double s[CHAIN], c[CHAIN], y = *x, at = *x, slope = 1, total = 0;

    (void)n;
    for (int i = 0; i < CHAIN; i++) {
        sincos(y, &s[i], &c[i]);
        y = s[i] * at + y;
    }
    *value = y;
    for (int i = CHAIN - 1; i >= 0; i--) {
        total += slope * s[i];
        slope = slope * at * c[i] + slope;
    }
    *gradient = total + slope;
}

/* The same, but keeping y alone: sin and cos are called again on the way back. */
void chain_again(long n, const double *x, double *value, double *gradient)
{
    double kept[CHAIN], y = *x, at = *x, slope = 1, total = 0;

    (void)n;
    for (int i = 0; i < CHAIN; i++) {
        kept[i] = y;
        y = sin(y) * at + y;
    }
    *value = y;
    for (int i = CHAIN - 1; i >= 0; i--) {
        total += slope * sin(kept[i]);
        slope = slope * at * cos(kept[i]) + slope;
    }
    *gradient = total + slope;
}

/* y = y*x + y. */
void arith(long n, const double *x, double *value, double *gradient)
{
    double kept[ARITH], y = *x, at = *x, slope = 1, total = 0;

    (void)n;
    for (int i = 0; i < ARITH; i++) {
        kept[i] = y;
        y = y * at + y;
    }
    *value = y;
    for (int i = ARITH - 1; i >= 0; i--) {
        total += slope * kept[i];
        slope = slope * at + slope;
    }
    *gradient = total + slope;
}
