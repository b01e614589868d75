/* Where the core's own memory comes from. Plain calls of the C library; in checked builds
 * (FG_CHECKED: debug and sanitiser builds) any allocation can be made to fail, so that tests reach
 * every place where memory may run out (tests/test_allocation.py).
 *
 * Memory is given back by the function that belongs to where it came from: fg_free for fg_malloc,
 * fg_calloc and fg_realloc; fg_chunk_free for fg_chunk.
 */
#ifndef FG_ALLOC_H
#define FG_ALLOC_H

#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(FG_CHECKED)

#define FG_CHECKS 1
/* Counts a request for memory: 1 if it is to fail. Also asked where memory is taken from a list of
 * what is free, or where mostly none is needed: those places may fail, too. */
int fg_fails(void);
/* Of the requests from now on, fail number `first` (from 1) and those after it, `count` in all. */
void fg_fail_from(int64_t first, int64_t count);
int64_t fg_asked(void);             /* requests since then                                        */
void fg_blocks_add(int64_t n);
int64_t fg_blocks(void);            /* of fg_malloc and its like, not yet given back              */
/* Both extensions count in one state: that of the core, which it hands to the other. */
void *fg_counts(void);
void fg_counts_share(void *counts);

#else

#define FG_CHECKS 0
static inline int fg_fails(void) { return 0; }
static inline void fg_fail_from(int64_t first, int64_t count) { (void)first, (void)count; }
static inline int64_t fg_asked(void) { return 0; }
static inline void fg_blocks_add(int64_t n) { (void)n; }
static inline int64_t fg_blocks(void) { return 0; }
static inline void *fg_counts(void) { return NULL; }
static inline void fg_counts_share(void *counts) { (void)counts; }

#endif

static inline void *fg_counted(void *p)
{
    if (p != NULL) fg_blocks_add(1);
    return p;
}

static inline void *fg_malloc(size_t nbytes)
{
    return fg_fails() ? NULL : fg_counted(malloc(nbytes));
}

static inline void *fg_calloc(size_t n, size_t nbytes)
{
    return fg_fails() ? NULL : fg_counted(calloc(n, nbytes));
}

static inline void *fg_realloc(void *p, size_t nbytes)
{
    if (fg_fails()) return NULL;
    return p == NULL ? fg_counted(malloc(nbytes)) : realloc(p, nbytes);
}

static inline void fg_free(void *p)
{
    if (p != NULL) fg_blocks_add(-1);
    free(p);
}

/* A table of `size` items with room for twice as many and some more, its size told so; NULL: there is
 * no memory, and the old one stands. */
static inline void *fg_grown(void *items, int64_t *size, size_t item)
{
    const int64_t more = *size * 2 + 64;
    if ((uint64_t)more > SIZE_MAX / 2 / item) return NULL;
    void *grown = fg_realloc(items, (size_t)more * item);
    if (grown != NULL) *size = more;
    return grown;
}

/* Aligned to cache lines; large chunks in huge pages, where a page fault costs a
 * five-hundredth. */
static inline void *fg_chunk(int64_t nbytes)
{
    void *p = NULL;
    const int large = nbytes >= (1 << 22);
    const size_t align = large ? (size_t)1 << 21 : 64;
    const size_t whole = ((size_t)nbytes + align - 1) & ~(align - 1);
    if (fg_fails() || posix_memalign(&p, align, large ? whole : (size_t)nbytes)) return NULL;
#if defined(__linux__)
    if (large) madvise(p, whole, MADV_HUGEPAGE);
#endif
    return p;
}

static inline void fg_chunk_free(void *p) { free(p); }

#endif
