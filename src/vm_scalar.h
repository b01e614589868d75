/* Straight-line programs of scalars: a register file of doubles and operators of ops.def.
 *
 * The caller lowers a graph to FgScalarOps, builds them once, and runs the result as often as it
 * likes and in as many threads as it likes, each with registers of its own.
 */
#ifndef FG_VM_SCALAR_H
#define FG_VM_SCALAR_H

#include "fg.h"

enum { FG_SCALAR_TIE = 1 };     /* flags: an operand was a literal; values do not care          */

/* registers[y] = op(registers[a], registers[b], registers[c]), as fg_value computes it for that
 * dtype; comparisons give 0.0 or 1.0. In float32 the operands must be floats held in doubles,
 * but for `positive`, which rounds: it is the cast. Operands beyond the arity are ignored. */
typedef struct FgScalarOp {
    uint16_t op;
    uint8_t dtype, flags;
    uint32_t y, a, b, c;
} FgScalarOp;

typedef struct FgScalarCode FgScalarCode;

/* A register is written by one operation at most, and then not read before. What no operation
 * writes is an input or a constant: it is only read, so that it may stay from run to run. Where
 * kept[r] != 0, register r has its value after the run; all other written ones have anything.
 * NULL: out of memory or, then told by *malformed, operations that break these rules. Takes time
 * linear in n. */
FgScalarCode *fg_scalar_build(const FgScalarOp *ops, int64_t n, uint32_t registers,
                              const uint8_t *kept, int *malformed);

/* Returns 0. */
int fg_scalar_run(const FgScalarCode *code, double *registers);

void fg_scalar_free(FgScalarCode *code);

/* What has become of the operations: how many instructions there are, how many bytes they take,
 * and how many registers are written. */
void fg_scalar_measure(const FgScalarCode *code, int64_t *instructions, int64_t *bytes,
                       int64_t *registers);

#endif
