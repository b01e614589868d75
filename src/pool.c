/* See pool.h. One job at a time: a caller that finds the pool taken does its work alone.
 *
 * The workers wait for `generation` to grow, at first looking again and again, since the next job
 * often comes at once and waking a thread takes longer than many a job; then asleep. A worker that
 * comes late must not meet a job that has gone: it counts itself in (`inside`), and only then
 * looks whether the job is `open`; the caller closes the job, and only then looks whether anybody
 * is inside. All of this stands on the total order of sequentially consistent operations.
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE             /* sched_getaffinity */
#endif
#include "pool.h"

#if defined(_WIN32) || defined(__STDC_NO_ATOMICS__)

void fg_parallel(void (*work)(void *context, int64_t part, int thread), void *context,
                 int64_t parts)
{
    for (int64_t part = 0; part < parts; part++) work(context, part, 0);
}

int fg_threads(void) { return 1; }
void fg_set_threads(int n) { (void)n; }
int fg_threads_started(void) { return 0; }

#else

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NANOSECONDS 10000

static struct {
    atomic_int threads;         /* as set; 0: not yet asked for                                   */
    atomic_int taken;
    atomic_int started;         /* workers; changed only by who has taken the pool                */
    atomic_uint generation;     /* of jobs                                                        */
    atomic_int open;
    atomic_int inside;          /* workers that may look at the job                               */
    atomic_int asleep;
    atomic_int awaited;         /* the caller sleeps until nobody is inside                       */
    unsigned born[FG_THREADS_MAX];      /* the generation at which a worker began                 */
    /* The job; written while it is not open and nobody is inside. */
    void (*work)(void *context, int64_t part, int thread);
    void *context;
    int64_t parts;
    int workers;                /* how many may help                                              */
    _Alignas(64) atomic_llong next;
} pool;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t begun = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static inline void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A child has none of its parent's threads but the one that forked. Whatever they were doing with
 * the pool, locks included, is forgotten. */
static void after_fork(void)
{
    mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    begun = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    finished = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    atomic_store(&pool.started, 0);
    atomic_store(&pool.open, 0);
    atomic_store(&pool.inside, 0);
    atomic_store(&pool.asleep, 0);
    atomic_store(&pool.awaited, 0);
    atomic_store(&pool.taken, 0);
}

static void prepare(void) { pthread_atfork(NULL, NULL, after_fork); }

static void take_parts(int thread)
{
    for (;;) {
        int64_t part = atomic_fetch_add(&pool.next, 1);
        if (part >= pool.parts) return;
        pool.work(pool.context, part, thread);
    }
}

static int job_has_come(unsigned seen) { return atomic_load(&pool.generation) != seen; }
static int nobody_is_inside(unsigned unused) { return (void)unused, atomic_load(&pool.inside) == 0; }

/* Looks again and again for a while; 0: it did not happen. */
static inline int spin(int (*happened)(unsigned), unsigned seen)
{
    const int64_t until = nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int k = 0; k < 32; k++) {
            if (happened(seen)) return 1;
            pause_briefly();
        }
    } while (nanoseconds() < until);
    return 0;
}

static unsigned wait_for_job(unsigned seen)
{
    unsigned generation;
    if (spin(job_has_come, seen)) return atomic_load(&pool.generation);
    pthread_mutex_lock(&mutex);
    atomic_fetch_add(&pool.asleep, 1);
    while ((generation = atomic_load(&pool.generation)) == seen)
        pthread_cond_wait(&begun, &mutex);
    atomic_fetch_sub(&pool.asleep, 1);
    pthread_mutex_unlock(&mutex);
    return generation;
}

static void *worker(void *argument)
{
    const int thread = (int)(intptr_t)argument;
    unsigned seen = pool.born[thread];
    for (;;) {
        seen = wait_for_job(seen);
        atomic_fetch_add(&pool.inside, 1);
        if (atomic_load(&pool.open) && thread <= pool.workers) take_parts(thread);
        if (atomic_fetch_sub(&pool.inside, 1) == 1 && atomic_load(&pool.awaited)) {
            pthread_mutex_lock(&mutex);
            pthread_cond_signal(&finished);
            pthread_mutex_unlock(&mutex);
        }
    }
    return NULL;
}

/* Signals are for the threads of Python's. Fewer workers than wished for are no error. */
static void start_workers(int wanted)
{
    int started = atomic_load(&pool.started);
    if (started >= wanted) return;
    sigset_t all, before;
    pthread_attr_t detached;
    pthread_once(&once, prepare);
    if (pthread_attr_init(&detached) != 0) return;
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (started < wanted) {
        pthread_t thread;
        pool.born[started + 1] = atomic_load(&pool.generation);
        if (pthread_create(&thread, &detached, worker, (void *)(intptr_t)(started + 1)) != 0) break;
        started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    atomic_store(&pool.started, started);
}

static void wait_until_done(void)
{
    if (spin(nobody_is_inside, 0)) return;
    pthread_mutex_lock(&mutex);
    atomic_store(&pool.awaited, 1);
    while (atomic_load(&pool.inside) != 0) pthread_cond_wait(&finished, &mutex);
    atomic_store(&pool.awaited, 0);
    pthread_mutex_unlock(&mutex);
}

void fg_parallel(void (*work)(void *context, int64_t part, int thread), void *context,
                 int64_t parts)
{
    int threads = fg_threads(), none = 0;
    if (threads > parts) threads = (int)parts;
    if (threads <= 1 || !atomic_compare_exchange_strong(&pool.taken, &none, 1)) {
        for (int64_t part = 0; part < parts; part++) work(context, part, 0);
        return;
    }
    start_workers(threads - 1);
    pool.work = work;
    pool.context = context;
    pool.parts = parts;
    pool.workers = threads - 1;
    atomic_store(&pool.next, 0);
    atomic_store(&pool.open, 1);
    atomic_fetch_add(&pool.generation, 1);
    if (atomic_load(&pool.asleep) > 0) {
        pthread_mutex_lock(&mutex);
        pthread_cond_broadcast(&begun);
        pthread_mutex_unlock(&mutex);
    }
    take_parts(0);
    atomic_store(&pool.open, 0);
    wait_until_done();
    atomic_store(&pool.taken, 0);
}

static int processors(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int fg_threads(void)
{
    int n = atomic_load(&pool.threads);
    if (n == 0) {
        int none = 0;
        n = processors();
        n = n < 1 ? 1 : n > FG_THREADS_MAX ? FG_THREADS_MAX : n;
        if (!atomic_compare_exchange_strong(&pool.threads, &none, n)) n = none;
    }
    return n;
}

void fg_set_threads(int n)
{
    atomic_store(&pool.threads, n < 1 ? 1 : n > FG_THREADS_MAX ? FG_THREADS_MAX : n);
}

int fg_threads_started(void) { return atomic_load(&pool.started); }

#endif
