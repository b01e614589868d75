/* Strided memory: copied, gathered, scattered, and added to, in the order of its elements. */
#include <string.h>

#include "run.h"

static void copy_run(char *to, int64_t to_stride, const char *from, int64_t stride, int64_t n,
                     int64_t item)
{
    if (to_stride == item && stride == item) {
        memcpy(to, from, (size_t)(n * item));
    } else if (item == 8) {
        for (int64_t i = 0; i < n; i++, to += to_stride, from += stride)
            *(uint64_t *)(void *)to = *(const uint64_t *)(const void *)from;
    } else if (item == 4) {
        for (int64_t i = 0; i < n; i++, to += to_stride, from += stride)
            *(uint32_t *)(void *)to = *(const uint32_t *)(const void *)from;
    } else {
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_stride, from + i * stride, (size_t)item);
    }
}

void copy_strided(int32_t rank, const int64_t *dims, char *to, const int64_t *to_strides,
                  const char *from, const int64_t *strides, int64_t item)
{
    int64_t d[64], s[64], t[64], index[64] = { 0 };
    int32_t r = 0;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] == 0) return;
        if (dims[i] == 1) continue;
        if (r && s[r - 1] == strides[i] * dims[i] && t[r - 1] == to_strides[i] * dims[i]) {
            d[r - 1] *= dims[i];
            s[r - 1] = strides[i];
            t[r - 1] = to_strides[i];
        } else {
            d[r] = dims[i];
            s[r] = strides[i];
            t[r++] = to_strides[i];
        }
    }
    if (r == 0) {
        memcpy(to, from, (size_t)item);
        return;
    }
    for (r--;;) {
        copy_run(to, t[r], from, s[r], d[r], item);
        int32_t i = r - 1;
        for (; i >= 0; i--) {
            to += t[i];
            from += s[i];
            if (++index[i] < d[i]) break;
            to -= d[i] * t[i];
            from -= d[i] * s[i];
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

void fg_operand_copy(FgFrame *f, const FgOperand *x, char *out)
{
    char room[8];
    int64_t strides[64], item = fg_item(x->dtype), step = item;
    if (x->size == 0) return;
    const char *from = pointer_to(f, x, room);
    if (x->contiguous) {
        memcpy(out, from, (size_t)(x->size * item));
        return;
    }
    for (int32_t i = x->rank - 1; i >= 0; i--) {
        strides[i] = step;
        step *= x->dims[i];
    }
    copy_strided(x->rank, x->dims, out, strides, from, x->strides, item);
}

static char *walk_seek(const FgWalk *w, char *p, int64_t start, int64_t *index)
{
    for (int32_t i = w->rank - 1; i >= 0; i--) {
        index[i] = start % w->dims[i];
        start /= w->dims[i];
        p += index[i] * w->strides[i];
    }
    return p;
}

static char *walk_step(const FgWalk *w, char *p, int64_t *index, int64_t run)
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

/* Elements start to start + n of the walk, to contiguous memory. */
void walk_gather(const FgWalk *w, char *data, int64_t start, int64_t n, char *out,
                 int64_t item)
{
    int64_t index[64];
    const int32_t last = w->rank - 1;
    char *p = walk_seek(w, data, start, index);
    while (n > 0) {
        int64_t run = w->dims[last] - index[last];
        if (run > n) run = n;
        copy_run(out, item, p, w->strides[last], run, item);
        out += run * item;
        n -= run;
        p = walk_step(w, p, index, run);
    }
}

/* The other way round. */
void walk_scatter(const FgWalk *w, char *data, int64_t start, int64_t n, const char *from,
                  int64_t item)
{
    int64_t index[64];
    const int32_t last = w->rank - 1;
    char *p = walk_seek(w, data, start, index);
    while (n > 0) {
        int64_t run = w->dims[last] - index[last];
        if (run > n) run = n;
        copy_run(p, w->strides[last], from, item, run, item);
        from += run * item;
        n -= run;
        p = walk_step(w, p, index, run);
    }
}

/* Add a block to the doubles that the walk visits. */
void walk_add(const FgWalk *w, char *data, int64_t start, int64_t n, const char *from,
              int dtype)
{
    int64_t index[64];
    const int32_t last = w->rank - 1;
    const int64_t stride = w->strides[last];
    const FgLoops *loops = loops_of(dtype);
    char *p = walk_seek(w, data, start, index);
    while (n > 0) {
        int64_t run = w->dims[last] - index[last];
        if (run > n) run = n;
        if (stride == 0) {
            *(double *)(void *)p += loops->sum(from, run);
        } else if (dtype == FG_FLOAT64 && stride == 8) {
            loops->accumulate(p, from, run);
        } else if (dtype == FG_FLOAT64) {
            const double *x = (const void *)from;
            for (int64_t i = 0; i < run; i++) *(double *)(void *)(p + i * stride) += x[i];
        } else {
            const float *x = (const void *)from;
            for (int64_t i = 0; i < run; i++) *(double *)(void *)(p + i * stride) += (double)x[i];
        }
        from += run * fg_item(dtype);
        n -= run;
        p = walk_step(w, p, index, run);
    }
}
