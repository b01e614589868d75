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

#include "vm.h"

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
    /* y = p op k */
    void (*number[FG_WITH_NUMBER])(const void *p, double k, void *y, int64_t n);
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

/* A joined block operation: FG_BLOCK_JOINED + inner * FG_FUSED + outer, whose operands a, b, c are
 * p, q, s of `arrays`. */
enum { FG_BLOCK_JOINED = FG_BLOCK_END };

/* Join each operation of a block run that is used by one other only, and soon, with that one.
 *
 * The operands and results of `ops` are numbers of values below `values`, or UINT32_MAX for none;
 * each value has one operation that computes it, or none (an input). fixed[v] != 0: v is an input
 * or an output. last[v] is set to the operation that reads v last, or -1. Returns how many
 * operations are left; their order stays. */
int32_t fg_block_join(FgBlockOp *ops, int32_t count, int32_t values, const uint8_t *fixed,
                      int32_t *last);

#endif
