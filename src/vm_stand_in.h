/* A simple runner of scalar strings. */
#ifndef FG_VM_STAND_IN_H
#define FG_VM_STAND_IN_H
#include "fg.h"
enum { FG_SCALAR_TIE = 1 };
typedef struct FgScalarOp {
    uint16_t op;
    uint8_t dtype, flags;
    uint32_t y, a, b, c;
} FgScalarOp;
typedef struct FgScalarCode FgScalarCode;
FgScalarCode *fg_scalar_build(const FgScalarOp *ops, int64_t n, uint32_t registers,
                              const uint8_t *kept);
int fg_scalar_run(const FgScalarCode *code, double *registers);
void fg_scalar_free(FgScalarCode *code);
#endif
