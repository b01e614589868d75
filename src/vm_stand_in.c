#if !__has_include("vm_scalar.h")
#include <stdlib.h>
#include <string.h>
#include "vm_stand_in.h"
#include "scalar.h"
struct FgScalarCode { int64_t n; FgScalarOp ops[]; };
FgScalarCode *fg_scalar_build(const FgScalarOp *ops, int64_t n, uint32_t registers,
                              const uint8_t *kept)
{
    (void)registers; (void)kept;
    FgScalarCode *code = malloc(sizeof(FgScalarCode) + (size_t)n * sizeof(FgScalarOp));
    if (code == NULL) return NULL;
    code->n = n;
    memcpy(code->ops, ops, (size_t)n * sizeof(FgScalarOp));
    return code;
}
int fg_scalar_run(const FgScalarCode *code, double *r)
{
    for (int64_t i = 0; i < code->n; i++) {
        const FgScalarOp *o = &code->ops[i];
        r[o->y] = o->op >= FG_ELEMENTWISE_END ? fg_compare(o->op, o->dtype, r[o->a], r[o->b])
                  : fg_value(o->op, o->dtype, r[o->a], r[o->b], r[o->c]);
    }
    return 0;
}
void fg_scalar_free(FgScalarCode *code) { free(code); }
#endif
