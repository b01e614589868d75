/* Strided memory, seen in the order of its elements: how its axes become a walk, and what is copied
 * and added along one. Both extensions include it. */
#ifndef FG_WALK_H
#define FG_WALK_H

#include <string.h>

#include "fg.h"
#include "graph.h"

/* A strided array in the order of its elements, axes that run on joined. There is at least one. */
typedef struct FgWalk {
    int32_t rank;
    const int64_t *dims, *strides;
} FgWalk;

/* The strides of contiguous memory. */
static inline void fg_strides_plain(int32_t rank, const int64_t *dims, int64_t item,
                                    int64_t *strides)
{
    for (int32_t k = rank - 1; k >= 0; k--) {
        strides[k] = item;
        item *= dims[k];
    }
}

/* Those of an array of `own` axes as if broadcast to another shape. */
static inline void fg_strides_broadcast(int32_t rank, int32_t own, const int64_t *dims,
                                        const int64_t *own_strides, int64_t *strides)
{
    for (int32_t k = 0; k < rank; k++) {
        const int32_t j = k - (rank - own);
        strides[k] = j >= 0 && dims[j] != 1 ? own_strides[j] : 0;
    }
}

/* Where a basic index (graph.h) begins, and its strides, in an array with strides `own`. An empty
 * slice may start past the end; nothing is read there. */
static inline int64_t fg_index_apply(const int64_t *items, int64_t count, const int64_t *own,
                                     int64_t *strides)
{
    int64_t offset = 0;
    for (int axis = 0; count > 0; count--, items += FG_INDEX_FIELDS) {
        if (items[0] == FG_INDEX_NEW) {
            *strides++ = 0;
            continue;
        }
        offset += items[1] * own[axis];
        if (items[0] == FG_INDEX_SLICE) *strides++ = items[2] * own[axis];
        axis++;
    }
    return offset;
}

/* ---- walks -------------------------------------------------------------------------------- */

/* One more axis at the end of a walk; what the axis before runs on into is a part of that one. */
static inline int32_t fg_walk_longer(int32_t rank, int64_t *dims, int64_t *strides, int64_t dim,
                                     int64_t stride)
{
    if (dim == 1) return rank;
    if (rank && strides[rank - 1] == stride * dim) {
        dims[rank - 1] *= dim;
        strides[rank - 1] = stride;
        return rank;
    }
    dims[rank] = dim;
    strides[rank] = stride;
    return rank + 1;
}

static inline FgWalk fg_walk_made(int32_t rank, int64_t *dims, int64_t *strides)
{
    if (rank == 0) {
        dims[0] = 1;
        strides[0] = 0;
    }
    return (FgWalk){ rank ? rank : 1, dims, strides };
}

/* Over memory with strides `from`. `to_dims`, `to_strides`: room for a walk, at least of one axis. */
static inline FgWalk fg_walk_over(int32_t rank, const int64_t *dims, const int64_t *from,
                                  int64_t *to_dims, int64_t *to_strides)
{
    int32_t r = 0;
    for (int32_t k = 0; k < rank; k++)
        r = fg_walk_longer(r, to_dims, to_strides, dims[k], from[k]);
    return fg_walk_made(r, to_dims, to_strides);
}

/* An array seen as rows to be reduced: the kept axes count the rows, those of the mask run along
 * them. */
static inline FgWalk fg_walk_rows(int32_t rank, const int64_t *dims, const int64_t *from,
                                  uint64_t mask, int64_t *to_dims, int64_t *to_strides,
                                  int64_t *rows, int64_t *length)
{
    int32_t r = 0;
    *rows = *length = 1;
    for (uint64_t reduced = 0; reduced < 2; reduced++)
        for (int32_t k = 0; k < rank; k++) {
            if ((mask >> k & 1) != reduced) continue;
            *(reduced ? length : rows) *= dims[k];
            r = fg_walk_longer(r, to_dims, to_strides, dims[k], from[k]);
        }
    return fg_walk_made(r, to_dims, to_strides);
}

static inline char *fg_walk_seek(const FgWalk *w, char *p, int64_t start, int64_t *index)
{
    for (int32_t i = w->rank - 1; i >= 0; i--) {
        index[i] = start % w->dims[i];
        start /= w->dims[i];
        p += index[i] * w->strides[i];
    }
    return p;
}

/* Past `run` elements of the innermost axis, which end it or end the block. */
static inline char *fg_walk_step(const FgWalk *w, char *p, int64_t *index, int64_t run)
{
    int32_t i = w->rank - 1;
    index[i] += run;
    p += run * w->strides[i];
    while (index[i] == w->dims[i] && i > 0) {
        p -= w->dims[i] * w->strides[i];
        index[i--] = 0;
        index[i]++;
        p += w->strides[i];
    }
    return p;
}

/* What follows is done for elements start to start + n of a walk over `data`, run after run along the
 * innermost axis: `run` elements from p on, `stride` bytes apart. */
#define FG_EACH_RUN(w, data, start, n, ...) \
    int64_t index[64]; \
    const int64_t stride = (w)->strides[(w)->rank - 1], axis = (w)->dims[(w)->rank - 1]; \
    char *p = (n) > 0 ? fg_walk_seek(w, data, start, index) : NULL; \
    for (int64_t left = n, run; left > 0; left -= run, p = fg_walk_step(w, p, index, run)) { \
        run = axis - index[(w)->rank - 1] < left ? axis - index[(w)->rank - 1] : left; \
        __VA_ARGS__ \
    }

static inline void fg_copy_run(char *to, int64_t to_stride, const char *from, int64_t stride,
                               int64_t n, int64_t item)
{
    if (to_stride == item && stride == item) {
        memcpy(to, from, (size_t)(n * item));
    } else if (item == 8) {
        for (int64_t i = 0; i < n; i++, to += to_stride, from += stride) memcpy(to, from, 8);
    } else if (item == 4) {
        for (int64_t i = 0; i < n; i++, to += to_stride, from += stride) memcpy(to, from, 4);
    } else if (item == 1) {
        for (int64_t i = 0; i < n; i++, to += to_stride, from += stride) *to = *from;
    } else {
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_stride, from + i * stride, (size_t)item);
    }
}

/* Elements of a walk, to contiguous memory. */
static inline void fg_walk_gather(const FgWalk *w, char *data, int64_t start, int64_t n, char *out,
                                  int64_t item)
{
    FG_EACH_RUN(w, data, start, n,
        fg_copy_run(out, item, p, stride, run, item);
        out += run * item;
    )
}

/* The other way round. */
static inline void fg_walk_scatter(const FgWalk *w, char *data, int64_t start, int64_t n,
                                   const char *from, int64_t item)
{
    FG_EACH_RUN(w, data, start, n,
        fg_copy_run(p, stride, from, item, run, item);
        from += run * item;
    )
}

#define FG_ADD_RUN(to, type) \
    for (int64_t i = 0; i < run; i++) *(to *)(void *)(p + i * stride) += ((const type *)block)[i]

/* Add a block to the doubles that the walk visits, whatever the block is, so that sums of floats over
 * broadcast axes lose nothing. */
static inline void fg_walk_sum(const FgWalk *w, char *data, int64_t start, int64_t n,
                               const void *from, int dtype, const FgLoops *loops)
{
    const char *block = from;
    FG_EACH_RUN(w, data, start, n,
        if (stride == 0) *(double *)(void *)p += loops->sum(block, run);
        else if (dtype != FG_FLOAT64) FG_ADD_RUN(double, float);
        else if (stride == 8) loops->accumulate(p, block, run);
        else FG_ADD_RUN(double, double);
        block += run * (dtype == FG_FLOAT64 ? 8 : 4);
    )
}

/* Add a block to elements of its own dtype, no two of which are the same. */
static inline void fg_walk_add(const FgWalk *w, char *data, int64_t start, int64_t n,
                               const void *from, int dtype, const FgLoops *loops)
{
    const char *block = from;
    const int64_t item = dtype == FG_FLOAT64 ? 8 : 4;
    FG_EACH_RUN(w, data, start, n,
        if (stride == item) loops->accumulate(p, block, run);
        else if (item == 8) FG_ADD_RUN(double, double);
        else FG_ADD_RUN(float, float);
        block += run * item;
    )
}
#undef FG_ADD_RUN

#endif
