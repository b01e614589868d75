/* What the kinds of steps share: small functions, which are to be inlined, and what one file calls
 * of another. Read fg_run in run.c first. */
#ifndef FG_RUN_H
#define FG_RUN_H

#include <string.h>

#include "vm.h"

static inline const FgLoops *loops_of(int dtype)
{
    return dtype == FG_FLOAT64 ? &(*fg_vm_kernels)->f64 : &(*fg_vm_kernels)->f32;
}

/* Look now and then whether a signal has come. The caller's thread alone may do so. */
static inline int interrupted(FgFrame *f, int64_t work)
{
    enum { SELDOM = 4000000 };
    FgFrame *root = f->root;
    if ((root->since += work) >= SELDOM) {
        root->since = 0;
        if (fg_vm_signals(root)) root->stop = 1;
    }
    return root->stop;
}

static inline void number_store(char *p, double x, int dtype)
{
    if (dtype == FG_FLOAT64) memcpy(p, &x, 8);
    else if (dtype == FG_FLOAT32) *(float *)(void *)p = (float)x;
    else *p = x != 0;
}

/* The memory of an operand; a number is put down in `room`. */
static inline char *pointer_to(const FgFrame *f, const FgOperand *x, char *room)
{
    if (x->place >= 0) return f->memory[x->place] + x->offset;
    number_store(room, f->registers[x->reg], x->dtype);
    return room;
}

static inline double rounded_to(int dtype, double x)
{
    return dtype == FG_FLOAT32 ? (double)(float)x : x;
}

/* ---- strided memory: strided.c ------------------------------------------------------------ */

void copy_strided(int32_t rank, const int64_t *dims, char *to, const int64_t *to_strides,
                  const char *from, const int64_t *strides, int64_t item);

/* ---- sums: reductions.c ------------------------------------------------------------------- */

double total_value(FgTotal *t);
void total_block(FgTotal *t, const char *p, int64_t n, int dtype);

/* ---- kinds of steps ----------------------------------------------------------------------- */

/* FG_RUN_DONE, FG_RUN_ERROR, or the number of a guard. */
int run_rows(FgFrame *f, const FgStep *s);              /* reductions.c                           */
int run_weights(FgFrame *f, const FgStep *s);
int run_blocks(FgFrame *f, const FgBlockRun *run);      /* blocks.c                               */
int run_matmul(FgFrame *f, const FgStep *s);            /* matrices.c                             */
int run_loop(FgFrame *f, const FgStep *s);              /* loops.c                                */

/* 0: not done, or not to the end. */
int run_inner(FgFrame *f, const FgStep *s);             /* matrices.c                             */

#endif
