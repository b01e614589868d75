/* The operator table as data, and the choice of the instruction set. */
#include <string.h>

#include "fg.h"
#include "fmath.h"

enum { NONE = FG_NONE, A = FG_A, B = FG_B, C = FG_C, Y = FG_Y };
enum {
    SMOOTH = FG_SMOOTH, ANALYTIC = FG_ANALYTIC, STEPS = FG_STEPS, MASK = FG_MASK, INNER = FG_INNER,
    TAME = FG_TAME, BESIDE = FG_BESIDE, MOVES = FG_MOVES, LINEAR = FG_LINEAR,
    BILINEAR = FG_BILINEAR, REDUCES = FG_REDUCES, LISTED = FG_LISTED, INDEXED = FG_INDEXED
};

const FgOpInfo fg_op_info[FG_OPS] = {
#define UNARY(name_, y, da, reads_a, props_, low_, high_, python_, numpy_, doc_) \
    [FG_##name_] = { .name = #name_, .kind = FG_UNARY, .arity = 1, .props = props_, \
        .reads = { reads_a }, .low = low_, .high = high_, .value = #y, .partial = { #da }, \
        .python = python_, .numpy = numpy_, .doc = doc_ },
#define BINARY(name_, y, da, db, reads_a, reads_b, props_, low_, high_, python_, numpy_, doc_) \
    [FG_##name_] = { .name = #name_, .kind = FG_BINARY, .arity = 2, .props = props_, \
        .reads = { reads_a, reads_b }, .low = low_, .high = high_, .value = #y, \
        .partial = { #da, #db }, .python = python_, .numpy = numpy_, .doc = doc_ },
#define TERNARY(name_, y, da, db, dc, reads_a, reads_b, reads_c, props_, low_, high_, python_, \
                numpy_, doc_) \
    [FG_##name_] = { .name = #name_, .kind = FG_TERNARY, .arity = 3, .props = props_, \
        .reads = { reads_a, reads_b, reads_c }, .low = low_, .high = high_, .value = #y, \
        .partial = { #da, #db, #dc }, .python = python_, .numpy = numpy_, .doc = doc_ },
#define COMPARE(name_, y, python_, numpy_, doc_) \
    [FG_##name_] = { .name = #name_, .kind = FG_COMPARE, .arity = 2, .value = #y, \
        .python = python_, .numpy = numpy_, .doc = doc_ },
#define SHAPED(name_, props_, numpy_, doc_) \
    [FG_##name_] = { .name = #name_, .kind = FG_SHAPED, .arity = 0, .props = props_, \
        .value = "", .python = "", .numpy = numpy_, .doc = doc_ },
#include "ops.def"
};

extern const FgKernels fg_kernels_base;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FG_X86 1
extern const FgKernels fg_kernels_avx2, fg_kernels_avx512;
#endif

const FgKernels *fg_kernels = &fg_kernels_base;
const FgCallInfo *fg_linalg_product;

/* gcc's builtin asks the system too whether it saves the wide registers. */
static const FgKernels *find(const char *name)
{
    if (strcmp(name, "base") == 0) return &fg_kernels_base;
#ifdef FG_X86
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (strcmp(name, "avx2") == 0) return avx2 ? &fg_kernels_avx2 : NULL;
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (strcmp(name, "avx512") == 0) return avx512 ? &fg_kernels_avx512 : NULL;
#endif
    return NULL;
}

int fg_isa_available(const char *name) { return find(name) != NULL; }

int fg_dispatch(const char *name)
{
    static const char *const best_first[] = { "avx512", "avx2", "base" };
    const FgKernels *found = name != NULL ? find(name) : NULL;
    for (int k = 0; name == NULL && found == NULL; k++) found = find(best_first[k]);
    if (found == NULL) return -1;
    fg_kernels = found;
    return 0;
}

const char *fg_vector_math(void) { return FG_LIBMVEC ? "libmvec" : "own"; }
