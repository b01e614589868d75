/* A few threads that share large pieces of work. */
#ifndef FG_POOL_H
#define FG_POOL_H

#include <stdint.h>

#define FG_THREADS_MAX 64

/* Calls work(context, part, thread) once for each part from 0 to parts - 1, in any order and in
 * several threads, the caller's among them, and returns when all are done. thread is below
 * FG_THREADS_MAX and below `parts`, and no two parts run at the same time with the same number, so
 * that it may choose among pieces of scratch memory. (It is below fg_threads(), too, as long as
 * nobody changes that meanwhile.) A call from inside `work`, or while another thread has the pool,
 * does all parts itself, in their order, as thread 0. */
void fg_parallel(void (*work)(void *context, int64_t part, int thread), void *context,
                 int64_t parts);

/* How many threads may share the work, the caller counted: at first as many as there are
 * processors that this process may use, and at most FG_THREADS_MAX. */
int fg_threads(void);

/* n is brought between 1 and FG_THREADS_MAX, or to 1 where the platform has no POSIX threads. */
void fg_set_threads(int n);

/* How many have been started so far, without the caller's. */
int fg_threads_started(void);

#endif
