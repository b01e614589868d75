/* Loops over arrays for two operations at once, and for an array and a number: what the blocks of
 * a program use beside the loops of fg.h, which read and write memory once for each operation.
 *
 * The results are those of the single loops, bit for bit: the first operation rounds before the
 * second (there is no fused multiply-add), and in float32 a number is rounded to float first.
 * Arrays are contiguous, of any alignment; y may be the same array as an operand, and operands may
 * be the same.
 */
#ifndef FG_VM_KERNELS_H
#define FG_VM_KERNELS_H

#include "fg.h"

/* `from` and `into` are subtract and divide with the operands exchanged. */
typedef enum {
    FG_FUSE_ADD, FG_FUSE_SUBTRACT, FG_FUSE_FROM, FG_FUSE_MULTIPLY, FG_FUSE_WEIGH, FG_FUSED,
    FG_FUSE_DIVIDE = FG_FUSED, FG_FUSE_INTO, FG_FUSE_MAXIMUM, FG_FUSE_MINIMUM, FG_WITH_NUMBER
} FgFuse;

/* One set per dtype and instruction set; indexed by FgFuse, the inner operation first. */
typedef struct FgFusedLoops {
    /* y = (p inner q) outer s */
    void (*arrays[FG_FUSED][FG_FUSED])(const void *p, const void *q, const void *s, void *y,
                                       int64_t n);
    /* y = (p inner k) outer s */
    void (*inner_number[FG_FUSED][FG_FUSED])(const void *p, double k, const void *s, void *y,
                                             int64_t n);
    /* y = (p inner q) outer k */
    void (*outer_number[FG_FUSED][FG_FUSED])(const void *p, const void *q, double k, void *y,
                                             int64_t n);
    /* y = p op k */
    void (*number[FG_WITH_NUMBER])(const void *p, double k, void *y, int64_t n);
    /* y = p where the byte is not 0, else k; and the other way round. */
    void (*where_number)(const void *p, double k, const uint8_t *mask, void *y, int64_t n);
    void (*where_not_number)(const void *p, double k, const uint8_t *mask, void *y, int64_t n);
} FgFusedLoops;

typedef struct FgFusedKernels {
    const char *isa;
    FgFusedLoops f32, f64;
} FgFusedKernels;

/* Those for FgKernels.isa, or NULL if there is no such instruction set. It is the caller's to have
 * asked fg_dispatch what the machine can run. */
const FgFusedKernels *fg_fused_kernels(const char *isa);

/* The FgFuse of an operator, or -1; at or above FG_FUSED for `number` only. */
int fg_fuse_of(int op);
/* The same operation with exchanged operands, or -1. */
int fg_fuse_turned(int fuse);

#endif
