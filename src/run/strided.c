/* Strided memory, copied to strided memory. */
#include "run.h"

void copy_strided(int32_t rank, const int64_t *dims, char *to, const int64_t *to_strides,
                  const char *from, const int64_t *strides, int64_t item)
{
    int64_t d[64], s[64], t[64], index[64] = { 0 };
    int32_t r = 0;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] == 0) return;
        if (dims[i] == 1) continue;
        if (r && s[r - 1] == strides[i] * dims[i] && t[r - 1] == to_strides[i] * dims[i]) r--;
        else d[r] = 1;
        d[r] *= dims[i];
        s[r] = strides[i];
        t[r++] = to_strides[i];
    }
    if (r == 0) {
        memcpy(to, from, (size_t)item);
        return;
    }
    for (r--;;) {
        fg_copy_run(to, t[r], from, s[r], d[r], item);
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
    int64_t strides[64], item = fg_item(x->dtype);
    if (x->size == 0) return;
    const char *from = pointer_to(f, x, room);
    if (x->contiguous) {
        memcpy(out, from, (size_t)(x->size * item));
        return;
    }
    fg_strides_plain(x->rank, x->dims, item, strides);
    copy_strided(x->rank, x->dims, out, strides, from, x->strides, item);
}
