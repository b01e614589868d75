/* Matrices: products, and what else NumPy's inner loops compute without Python. */
#include <math.h>

#include "alloc.h"
#include "run.h"

/* Calls an inner loop for the last of the batch axes, at each index of those before it. strides: of
 * each operand along all of them. */
static void run_lanes(const FgCallInfo *info, char **data, int32_t count, int64_t *dims,
                      int64_t *steps, int32_t axes, const int64_t *lengths, const int64_t *strides)
{
    int64_t index[64];
    char *moved[FG_INNER_OPERANDS];     /* by NumPy's loops                                       */
    dims[0] = axes ? lengths[axes - 1] : 1;
    for (int32_t k = 0; k < count; k++) steps[k] = axes ? strides[k * axes + axes - 1] : 0;
    for (int32_t i = 0; i < axes - 1; i++) index[i] = 0;
    for (;;) {
        memcpy(moved, data, (size_t)count * sizeof(char *));
        info->loop(info->context, moved, dims, steps, info->auxdata);
        int32_t i = axes - 2;
        for (; i >= 0; i--) {
            int last = ++index[i] == lengths[i];
            for (int32_t k = 0; k < count; k++)
                data[k] += (last ? 1 - lengths[i] : 1) * strides[k * axes + i];
            if (!last) break;
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

int run_matmul(FgFrame *f, const FgStep *s)
{
    const FgOperand *x[2] = { &s->in[0], &s->in[1] };
    const int64_t item = fg_item(s->dtype);
    const int32_t ra = x[0]->rank, rb = x[1]->rank, rank = ra > rb ? ra : rb;
    const int32_t axes = rank > 2 ? rank - 2 : 0;
    const int64_t m = ra > 1 ? x[0]->dims[ra - 2] : 1, k = x[0]->dims[ra - 1];
    const int64_t n = rb > 1 ? x[1]->dims[rb - 1] : 1;
    int64_t dims[4] = { 1, m, k, n };
    int64_t steps[9] = { 0, 0, 0, ra > 1 ? x[0]->strides[ra - 2] : 0, x[0]->strides[ra - 1],
                         x[1]->strides[rb > 1 ? rb - 2 : 0], rb > 1 ? x[1]->strides[rb - 1] : 0,
                         n * item, item };
    int64_t strides[3 * 64];
    char rooms[3][8], *data[3];
    char *out = s->out.place < 0 ? rooms[2] : f->memory[s->out.place];
    if (m * k * n == 0) {
        if (s->out.size) memset(out, 0, (size_t)(s->out.size * item));
    } else if (s->out.size) {
        for (int32_t j = 0; j < 2; j++) {
            data[j] = pointer_to(f, x[j], rooms[j]);
            fg_strides_broadcast(axes, x[j]->rank - 2, x[j]->dims, x[j]->strides,
                                 strides + j * axes);
        }
        data[2] = out;
        fg_strides_plain(axes, s->out.dims, m * n * item, strides + 2 * axes);
        run_lanes(fg_vm_matmul[s->dtype == FG_FLOAT64], data, 3, dims, steps, axes, s->out.dims,
                  strides);
    }
    if (s->out.place < 0) f->registers[s->out.reg] = fg_number_at(out, s->dtype);
    return FG_RUN_DONE;
}

/* The memory of all results of a call; its head tells whether they are there. */
static char *inner_room(FgFrame *f, const FgInner *c)
{
    if (f->rooms == NULL) f->rooms = fg_calloc((size_t)f->plan->step_count, sizeof(char *));
    if (f->rooms == NULL) return NULL;
    if (f->rooms[c->first] == NULL) {
        f->rooms[c->first] = fg_chunk(c->room);
        if (f->rooms[c->first] != NULL) *f->rooms[c->first] = 0;
    }
    return f->rooms[c->first];
}

/* 0: not done, or not to the end. (NaN tells of a singular matrix as well, of which NumPy's
 * function knows what to say.) */
int run_inner(FgFrame *f, const FgStep *s)
{
    const FgInner *c = s->inner;
    char *data[FG_INNER_OPERANDS], *room = NULL, *out = f->memory[s->out.place];
    int64_t dims[1 + 2 * FG_INNER_OPERANDS], steps[3 * FG_INNER_OPERANDS];
    if (c->results > 1 && (room = inner_room(f, c)) == NULL) return 0;
    if (c->first == s - f->plan->steps) {
        for (int32_t k = 0; k < c->operands; k++)
            data[k] = f->memory[s->in[k].place] + s->in[k].offset;
        for (int32_t k = 0; k < c->results; k++)
            data[c->operands + k] = room ? room + c->at[k] : out;
        const double *first = (const void *)(room ? room + c->at[0] : out);
        memcpy(dims, c->dims, sizeof dims);
        memcpy(steps, c->steps, sizeof steps);
        if (room) *room = 0;
        run_lanes(c->info, data, c->operands + c->results, dims, steps, c->axes, c->lengths,
                  c->strides);
        for (int64_t k = 0; k < c->lanes; k++)
            if (isnan(first[k * c->lane])) return 0;
        if (room) *room = 1;
    }
    if (room == NULL) return 1;
    if (*room) memcpy(out, room + c->at[c->which], (size_t)s->out.size * sizeof(double));
    return *room;
}
