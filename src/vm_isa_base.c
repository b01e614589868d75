/* The fused kernels for what every machine has (x86-64: SSE2), and the choice among all. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "fg.h"
#include "vm_kernels.h"
#define FG_VECTOR
#define FG_ISA base
#include "fmath.h"
#include "vm_block_kernels.inc"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
extern const FgFusedKernels fg_fused_kernels_avx2, fg_fused_kernels_avx512;
#endif

const FgFusedKernels *fg_fused_kernels(const char *isa)
{
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    if (strcmp(isa, "avx2") == 0) return &fg_fused_kernels_avx2;
    if (strcmp(isa, "avx512") == 0) return &fg_fused_kernels_avx512;
#endif
    return strcmp(isa, "base") == 0 ? &fg_fused_kernels_base : NULL;
}

int fg_fuse_of(int op)
{
    switch (op) {
    case FG_add: return FG_FUSE_ADD;
    case FG_subtract: return FG_FUSE_SUBTRACT;
    case FG_multiply: return FG_FUSE_MULTIPLY;
    case FG_weigh: return FG_FUSE_WEIGH;
    case FG_divide: return FG_FUSE_DIVIDE;
    case FG_maximum: return FG_FUSE_MAXIMUM;
    case FG_minimum: return FG_FUSE_MINIMUM;
    default: return -1;
    }
}

/* maximum and minimum are not symmetric: of zeros of both signs they take the first. */
int fg_fuse_turned(int fuse)
{
    switch (fuse) {
    case FG_FUSE_ADD: case FG_FUSE_MULTIPLY: case FG_FUSE_WEIGH: return fuse;
    case FG_FUSE_SUBTRACT: return FG_FUSE_FROM;
    case FG_FUSE_FROM: return FG_FUSE_SUBTRACT;
    case FG_FUSE_DIVIDE: return FG_FUSE_INTO;
    case FG_FUSE_INTO: return FG_FUSE_DIVIDE;
    default: return -1;
    }
}
