# Included by program.pyx: the number of threads (src/pool.c).

import os

cdef extern from "pool.h" nogil:
    enum: FG_THREADS_MAX
    void fg_parallel(void (*work)(void *, int64_t, int) noexcept nogil, void *context,
                     int64_t parts)
    int fg_threads()
    void fg_set_threads(int n)
    int fg_threads_started()


def set_threads(int n):
    """Let n threads share large pieces of work; n is brought into the range that there is."""
    fg_set_threads(n)


def get_threads():
    """How many threads may share the work, the caller counted."""
    return fg_threads()


def threads_started():
    """How many the pool has started so far."""
    return fg_threads_started()


cdef struct Trial:
    double *rows                    # of six
    int64_t terms


cdef void inner_part(void *context, int64_t part, int thread) noexcept nogil:
    cdef double *row = <double *>context
    row[2 + part] += 1.0


cdef void trial_part(void *context, int64_t part, int thread) noexcept nogil:
    cdef Trial *trial = <Trial *>context
    cdef double *row = trial.rows + 6 * part
    cdef double total = 0.0
    cdef int64_t k
    for k in range(trial.terms):
        total += 1.0 / <double>(part + k + 1)
    row[0] += total
    row[1] += 1.0
    row[5] = thread
    fg_parallel(inner_part, row, 3)


def try_threads(double[:, ::1] rows not None, int64_t terms):
    """Let the pool do something to each row, for the tests: add 1 / (row + 1) + 1 / (row + 2) ...
    to the first entry, 1 to the second, 1 to each of the next three by a call inside the call, and
    put the number of the thread into the last."""
    cdef Trial trial
    if rows.shape[1] != 6:
        raise ValueError(f"rows of 6 entries are needed, not of {rows.shape[1]}")
    if terms > 1 << 24:
        raise ValueError(f"terms={terms}: at most 2**24, or nobody waits for the end")
    if rows.shape[0] == 0:
        return
    trial.rows = &rows[0, 0]
    trial.terms = terms
    with nogil:
        fg_parallel(trial_part, &trial, rows.shape[0])


def threads_setup():
    """As many as FASTGRAD_NUM_THREADS says."""
    wish = os.environ.get("FASTGRAD_NUM_THREADS", "").strip()
    if not wish:
        return
    if not wish.isdecimal() or int(wish) < 1:
        raise ImportError(f"FASTGRAD_NUM_THREADS={wish!r}: give a whole number of threads, 1 or "
                          "more, or leave it unset for one on each processor")
    fg_set_threads(min(int(wish), FG_THREADS_MAX))


threads_setup()
