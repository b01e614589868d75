/* Value and gradient of `vector`, sum(sin(x)*exp(-x*x) + tanh(x)*x), in blocks that stay in the
 * first cache, with glibc's vector functions (libmvec).
 *
 * The prototypes make gcc vectorise the calls without -ffast-math. sin and cos have a loop each:
 * next to each other they become one scalar sincos. The last block is padded to a multiple
 * of 8, so that every number goes through the same vector routine.
 */

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "repeat.h"

#define VECTOR __attribute__((simd("notinbranch"), const))

VECTOR double sin(double);
VECTOR double cos(double);
VECTOR double exp(double);
VECTOR double tanh(double);

enum { BLOCK = 512, MOST_THREADS = 64 };

/* n is a multiple of 8. */
static double block(int n, const double *restrict x, double *restrict gradient)
{
    double s[BLOCK], c[BLOCK], e[BLOCK], t[BLOCK], sums[8] = {0};

    for (int i = 0; i < n; i++)
        s[i] = sin(x[i]);
    for (int i = 0; i < n; i++)
        c[i] = cos(x[i]);
    for (int i = 0; i < n; i++)
        e[i] = exp(-x[i] * x[i]);
    for (int i = 0; i < n; i++)
        t[i] = tanh(x[i]);
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++)
            sums[j] += s[i + j] * e[i + j] + t[i + j] * x[i + j];
    for (int i = 0; i < n; i++)
        gradient[i] = (c[i] - 2 * x[i] * s[i]) * e[i] + (1 - t[i] * t[i]) * x[i] + t[i];
    return ((sums[0] + sums[4]) + (sums[1] + sums[5]))
        + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

void vector(long n, const double *x, double *value, double *gradient)
{
    double total = 0;
    long i = 0;

    for (; i + BLOCK <= n; i += BLOCK)
        total += block(BLOCK, x + i, gradient + i);
    if (i < n) {
        double padded[BLOCK + 8], out[BLOCK];

        memcpy(padded, x + i, (n - i) * sizeof *x);
        memset(padded + (n - i), 0, 8 * sizeof *x);         /* f(0) = 0 */
        total += block((n - i + 7) / 8 * 8, padded, out);
        memcpy(gradient + i, out, (n - i) * sizeof *x);
    }
    *value = total;
}

/* The same, shared among as many threads as there are processors. */

struct share {
    long n;
    const double *x;
    double value, *gradient;
};

static void *run(void *argument)
{
    struct share *mine = argument;

    vector(mine->n, mine->x, &mine->value, mine->gradient);
    return NULL;
}

void vector_threads(long n, const double *x, double *value, double *gradient)
{
    long threads = sysconf(_SC_NPROCESSORS_ONLN), at = 0;
    struct share shares[MOST_THREADS];
    pthread_t ids[MOST_THREADS];

    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    for (long i = 0; i < threads; i++) {
        long end = n * (i + 1) / threads / BLOCK * BLOCK;

        if (i == threads - 1)
            end = n;
        shares[i] = (struct share){end - at, x + at, 0, gradient + at};
        at = end;
    }
    for (long i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, run, &shares[i])) {
            ids[i] = pthread_self();
            run(&shares[i]);
        }
    run(&shares[0]);
    *value = shares[0].value;
    for (long i = 1; i < threads; i++) {
        if (!pthread_equal(ids[i], pthread_self()))
            pthread_join(ids[i], NULL);
        *value += shares[i].value;
    }
}

/* What libmvec's functions cost by themselves, n numbers in the first cache. */

void sines(long n, const double *x, double *value, double *gradient)
{
    for (long i = 0; i < n; i++)
        gradient[i] = sin(x[i]);
    *value = 0;
}
