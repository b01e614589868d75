/* Drives the pool of src/pool.c from several threads at once, while its number is changed, and
 * checks what was done. For the thread sanitiser, which sees no Python here:
 *
 *     gcc -std=c11 -g -O1 -fsanitize=thread -Isrc tests/pool_driver.c src/pool.c -lpthread
 */
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { CALLERS = 4, JOBS = 300, PARTS = 40, INNER = 3 };

typedef struct {
    double rows[PARTS];                     /* not atomic: no two threads write one              */
    double scratch[FG_THREADS_MAX];         /* nor one of these                                  */
    int inner[PARTS][INNER];
} Job;

static atomic_int going = 1;

static void inner(void *context, int64_t part, int thread)
{
    (void)thread;
    /* A call inside of a part is done by the part's thread, or by several, where the caller of the
     * part had not got the pool and does its work alone. */
    ++((int *)context)[part];
}

static void work(void *context, int64_t part, int thread)
{
    Job *job = context;
    job->scratch[thread] = (double)part;
    for (int k = 0; k < 200; k++) job->rows[part] += job->scratch[thread] + 1;
    fg_parallel(inner, job->inner[part], INNER);
}

static void *caller(void *argument)
{
    long wrong = 0;
    (void)argument;
    for (int n = 0; n < JOBS; n++) {
        Job job = {{0}, {0}, {{0}}};
        fg_parallel(work, &job, n % PARTS);
        for (int k = 0; k < PARTS; k++) {
            wrong += job.rows[k] != (k < n % PARTS ? 200.0 * (k + 1) : 0.0);
            for (int i = 0; i < INNER; i++) wrong += job.inner[k][i] != (k < n % PARTS);
        }
    }
    return (void *)wrong;
}

static void *changer(void *argument)
{
    (void)argument;
    for (int n = 0; atomic_load(&going); n++) {
        fg_set_threads(1 + n % 6);
        if (fg_threads() < 1 || fg_threads_started() > FG_THREADS_MAX) return (void *)1;
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[CALLERS + 1];
    long wrong = 0;
    void *one;
    fg_set_threads(4);
    for (int k = 0; k <= CALLERS; k++)
        if (pthread_create(&threads[k], NULL, k < CALLERS ? caller : changer, NULL)) return 2;
    for (int k = 0; k <= CALLERS; k++) {
        if (k == CALLERS) atomic_store(&going, 0);
        pthread_join(threads[k], &one);
        wrong += (long)one;
    }
    printf("%ld wrong\n", wrong);
    return wrong != 0;
}
