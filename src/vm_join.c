/* Block operations joined in pairs: see vm_kernels.h. */
#include <stdlib.h>

#include "vm.h"
#include "vm_kernels.h"

/* Operations within which an operand may have to wait for its pair: it keeps a block register. */
enum { NEAR = 8 };
#define DROPPED UINT16_MAX
#define NONE UINT32_MAX

/* How many operands of an operation are numbers of values, the first ones. */
static int operands_of(const FgBlockOp *o)
{
    return o->op == FG_BLOCK_GATHER ? 0 : o->op == FG_BLOCK_SUM ? 1 : 3;
}

/* What it is as the inner operation of a pair, or -1. */
static int inner_of(const FgBlockOp *o)
{
    const int fuse = o->op == FG_square ? FG_FUSE_MULTIPLY
                   : o->op < FG_ELEMENTWISE_END ? fg_fuse_of(o->op) : -1;
    return fuse < FG_FUSED ? fuse : -1;
}

int32_t fg_block_join(FgBlockOp *ops, int32_t count, int32_t values, const uint8_t *fixed,
                      int32_t *last)
{
    int32_t *uses = calloc((size_t)values + 1, sizeof *uses);
    int32_t *writer = malloc(((size_t)values + 1) * sizeof *writer);
    int32_t kept = 0;
    if (uses == NULL || writer == NULL) {           /* then each stays as it is */
        free(uses);
        free(writer);
        return count;
    }
    for (int32_t v = 0; v < values; v++) writer[v] = last[v] = -1;
    for (int32_t k = 0; k < count; k++) {
        const uint32_t x[3] = { ops[k].a, ops[k].b, ops[k].c };
        for (int j = 0; j < operands_of(&ops[k]); j++)
            if (x[j] != NONE) uses[x[j]]++;
        if (ops[k].y != NONE) writer[ops[k].y] = k;
    }
    for (int32_t k = 0; k < count; k++) {
        FgBlockOp *outer = &ops[k];
        int fuse = outer->op < FG_ELEMENTWISE_END ? fg_fuse_of(outer->op) : -1;
        if (fuse < 0 || fuse >= FG_FUSED) continue;
        int32_t best = -1;
        for (int j = 0; j < 2; j++) {
            const uint32_t v = j == 0 ? outer->a : outer->b;
            if (uses[v] != 1 || fixed[v] || writer[v] < 0 || k - writer[v] > NEAR) continue;
            const FgBlockOp *o = &ops[writer[v]];
            if (inner_of(o) >= 0 && o->dtype == outer->dtype && writer[v] > best) best = writer[v];
        }
        if (best < 0) continue;
        FgBlockOp *inner = &ops[best];
        if (inner->y != outer->a) fuse = fg_fuse_turned(fuse);
        const uint32_t rest = inner->y == outer->a ? outer->b : outer->a;
        outer->op = (uint16_t)(FG_BLOCK_JOINED + inner_of(inner) * FG_FUSED + fuse);
        outer->a = inner->a;
        outer->b = inner->op == FG_square ? inner->a : inner->b;
        outer->c = rest;
        inner->op = DROPPED;
    }
    for (int32_t k = 0; k < count; k++) {
        if (ops[k].op == DROPPED) continue;
        const uint32_t x[3] = { ops[k].a, ops[k].b, ops[k].c };
        for (int j = 0; j < operands_of(&ops[k]); j++)
            if (x[j] != NONE) last[x[j]] = kept;
        ops[kept++] = ops[k];
    }
    free(uses);
    free(writer);
    return kept;
}
