/* See alloc.h: what checked builds count. */
#include "alloc.h"

#if defined(FG_CHECKED)

typedef struct Counts {
    int64_t asked, first, end, blocks;
} Counts;

static Counts own;
static Counts *counts = &own;

/* Threads of the pool ask, too. */
int fg_fails(void)
{
    const int64_t n = __atomic_add_fetch(&counts->asked, 1, __ATOMIC_RELAXED);
    return n >= counts->first && n < counts->end;
}

void fg_fail_from(int64_t first, int64_t count)
{
    counts->asked = 0;
    counts->first = first;
    counts->end = first + count;
}

int64_t fg_asked(void) { return __atomic_load_n(&counts->asked, __ATOMIC_RELAXED); }
void fg_blocks_add(int64_t n) { __atomic_add_fetch(&counts->blocks, n, __ATOMIC_RELAXED); }
int64_t fg_blocks(void) { return __atomic_load_n(&counts->blocks, __ATOMIC_RELAXED); }
void *fg_counts(void) { return counts; }
void fg_counts_share(void *other) { counts = other; }

#else

typedef int fg_nothing_to_count;

#endif
