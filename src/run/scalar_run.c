/* See vm_scalar.h. Read `fg_scalar_run` first: what an instruction is; then `fg_scalar_build`
 * in plan/scalar_build.c: how operations become instructions.
 *
 * What the time goes into, in a string of additions and products, is neither these nor the jumps,
 * which the processor foresees, but that each result is written to memory and read back by the
 * next instruction: 4 to 8 cycles on top of the 3 of a sum. So the last result stays in an
 * accumulator, a register of the processor, and instructions come in variants that take an operand
 * from there; of two results that are wanted soon it holds the one that is computed later. An
 * operation whose only consumer is another sum or product is done by the same instruction.
 */
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "vm_scalar_code.h"
#include "scalar.h"

/* ---- values ------------------------------------------------------------------------------- */

#define INLINE static inline __attribute__((always_inline))

/* With a constant operator the switch of all folds to one formula; where nothing is optimised it
 * would stand everywhere whole. */
#if defined(__OPTIMIZE__)
INLINE
#else
static
#endif
double value_of(int op, int dtype, double a, double b, double c)
{
    return fg_value(op, dtype, a, b, c);
}

/* fg_weigh without a branch: the compiler makes two of it, and adjoints that are zero now and then
 * are not foreseen. */
INLINE double weigh_of(double a, double b)
{
#if defined(__SSE2__)
    const __m128d zero = _mm_setzero_pd(), x = _mm_set_sd(a), y = _mm_set_sd(b);
    __m128d both = _mm_and_pd(_mm_cmpneq_sd(x, zero), _mm_cmpneq_sd(y, zero));
    return _mm_cvtsd_f64(_mm_and_pd(_mm_mul_sd(x, y), both));
#else
    return value_of(FG_weigh, FG_FLOAT64, a, b, 0.0);
#endif
}

#define of_add(p, q) ((p) + (q))
#define of_subtract(p, q) ((p) - (q))
#define of_from(p, q) ((q) - (p))
#define of_multiply(p, q) ((p) * (q))
#define of_weigh(p, q) weigh_of(p, q)
#define of_divide(p, q) ((p) / (q))
#define of_into(p, q) ((q) / (p))
#define of_maximum(p, q) value_of(FG_maximum, FG_FLOAT64, p, q, 0.0)
#define of_minimum(p, q) value_of(FG_minimum, FG_FLOAT64, p, q, 0.0)
#define of_less(p, q) ((p) < (q) ? 1.0 : 0.0)
#define of_less_equal(p, q) ((p) <= (q) ? 1.0 : 0.0)
#define of_greater(p, q) ((p) > (q) ? 1.0 : 0.0)
#define of_greater_equal(p, q) ((p) >= (q) ? 1.0 : 0.0)
#define of_equal(p, q) ((p) == (q) ? 1.0 : 0.0)
#define of_not_equal(p, q) ((p) != (q) ? 1.0 : 0.0)

/* glibc computes both at once to the same bits as each alone; of others that is not known. */
INLINE void both_f64(double a, double *sine, double *cosine)
{
#if defined(__GLIBC__)
    extern void sincos(double, double *, double *);
    sincos(a, sine, cosine);
#else
    *sine = value_of(FG_sin, FG_FLOAT64, a, 0.0, 0.0);
    *cosine = value_of(FG_cos, FG_FLOAT64, a, 0.0, 0.0);
#endif
}

INLINE void both_f32(double a, double *sine, double *cosine)
{
#if defined(__GLIBC__)
    extern void sincosf(float, float *, float *);
    float s, c;
    sincosf((float)a, &s, &c);
    *sine = (double)s;
    *cosine = (double)c;
#else
    *sine = value_of(FG_sin, FG_FLOAT32, a, 0.0, 0.0);
    *cosine = value_of(FG_cos, FG_FLOAT32, a, 0.0, 0.0);
#endif
}

/* All operators as functions: those of float32, then those of float64. */
typedef double (*Function)(double a, double b, double c);

#define DEFINE(name) \
static double name##_f32(double a, double b, double c) \
{ return value_of(FG_##name, FG_FLOAT32, a, b, c); } \
static double name##_f64(double a, double b, double c) \
{ return value_of(FG_##name, FG_FLOAT64, a, b, c); }
#define ELEMENTWISE(name, ...) DEFINE(name)
#define COMPARE(name, ...) \
static double name##_f64(double a, double b, double c) \
{ (void)c; return fg_compare(FG_##name, FG_FLOAT64, a, b) ? 1.0 : 0.0; }
#include "ops.def"
#undef DEFINE

static const Function functions[2 * FG_COMPARE_END] = {
#define BOTH_DTYPES(name, f32, f64) [FG_##name] = f32, [FG_COMPARE_END + FG_##name] = f64,
#define ELEMENTWISE(name, ...) BOTH_DTYPES(name, name##_f32, name##_f64)
#define COMPARE(name, ...) BOTH_DTYPES(name, name##_f64, name##_f64)
#include "ops.def"
#undef BOTH_DTYPES
};

/* ---- running ------------------------------------------------------------------------------ */

/* Jumping from each instruction to the next is GNU C. It means an edge from each to all others,
 * each of which a coverage build would count: there, without optimisation, it is a switch as
 * elsewhere. */
#if defined(__GNUC__) && defined(__OPTIMIZE__)
#define THREADED 1
#else
#define THREADED 0
#endif

/* An instruction is its number, then the registers in the order in which the macros below take
 * them: what it reads from memory, then where it writes. */
int fg_scalar_run(const FgScalarCode *program, double *registers)
{
    const uint32_t *word = program->code;
    double *const r = registers;
    double accumulator = 0.0, total = 0.0;

#define FROM_R r[*word++]
#define FROM_A accumulator
#define FROM_T total
#define TO_R(value) do { r[*word++] = (value); } while (0)
#define TO_A(value) do { accumulator = (value); } while (0)
#define TO_T(value) do { total = (value); } while (0)
#define TO_B(value) do { accumulator = (value); r[*word++] = accumulator; } while (0)

#if THREADED
    static const void *const labels[] = {
#define NAME(name) &&do_##name,
#include "vm_scalar.inc"
    };
#define LABEL(name) do_##name:
#define NEXT goto *labels[*word++]
    NEXT;
#else
#define LABEL(name) case DO_##name:
#define NEXT continue
    for (;;) switch (*word++) {
#endif

#define RUN(name) LABEL(run_##name) for (uint32_t left = *word++; left > 0; left--)

#define ONE_TRIPLE(inner, outer, from, last, to) { \
    const double p = FROM_##from, q = FROM_R, s = FROM_##last; \
    const double t = of_##inner(p, q); \
    TO_##to(of_##outer(t, s)); }
#define TRIPLE(inner, outer, from, last, to) \
    LABEL(inner##_##outer##_##from##last##to) ONE_TRIPLE(inner, outer, from, last, to) NEXT;
#define TRIPLE_RUN(inner, outer) RUN(inner##_##outer) ONE_TRIPLE(inner, outer, R, R, R) NEXT;
#define TOTAL(inner, from, last, to) LABEL(total_##inner##_##from##last##to) { \
    const double p = FROM_##from, q = FROM_R, s = FROM_##last; \
    TO_##to(of_##inner(p, q) + s); \
    NEXT; }
#define ONE_PAIR(name, from, to) { \
    const double p = FROM_##from, q = FROM_R; \
    TO_##to(of_##name(p, q)); }
#define PAIR(name, from, to) LABEL(name##_##from##to) ONE_PAIR(name, from, to) NEXT;
#define PAIR_RUN(name) RUN(name) ONE_PAIR(name, R, R) NEXT;
#define ONE_SINGLE(name, from, to) { \
    const double p = FROM_##from; \
    TO_##to(value_of(FG_##name, FG_FLOAT64, p, 0.0, 0.0)); }
#define SINGLE(name, from, to) LABEL(name##_##from##to) ONE_SINGLE(name, from, to) NEXT;
#define SINGLE_RUN(name) RUN(name) ONE_SINGLE(name, R, R) NEXT;
#define ONE_CHOICE(from, to) { \
    const double p = FROM_##from, q = FROM_R, s = FROM_R; \
    TO_##to(p != 0 ? q : s); }
#define CHOOSE(from, to) LABEL(choose_##from##to) ONE_CHOICE(from, to) NEXT;
#define CHOOSE_RUN() RUN(choose) ONE_CHOICE(R, R) NEXT;
/* Neither accumulator is kept in calls, or it would be saved around them. */
#define ONE_CALL(arity, from, to) { \
    const double p = FROM_##from; \
    double q = 0.0, s = 0.0; \
    if (arity > 1) q = FROM_R; \
    if (arity > 2) s = FROM_R; \
    TO_##to(function(p, q, s)); }
#define CALL(arity, from, to) LABEL(call##arity##_##from##to) { \
    const Function function = functions[*word++]; \
    ONE_CALL(arity, from, to) \
    total = 0.0; \
    NEXT; }
#define CALL_RUN(arity) LABEL(run_call##arity) { \
    const Function function = functions[*word++]; \
    for (uint32_t left = *word++; left > 0; left--) ONE_CALL(arity, R, R) \
    accumulator = total = 0.0; \
    NEXT; }
#define ONE_BOTH(name, second, dtype, from, to) { \
    const double p = FROM_##from; \
    double sin, cos; \
    both_##dtype(p, &sin, &cos); \
    r[*word++] = second; \
    TO_##to(name); }
#define BOTH(name, second, dtype, from, to) \
    LABEL(both_##name##_##dtype##_##from##to) ONE_BOTH(name, second, dtype, from, to) \
    total = 0.0; \
    NEXT;
#define BOTH_RUN(name, second, dtype) \
    RUN(both_##name##_##dtype) ONE_BOTH(name, second, dtype, R, R) \
    accumulator = total = 0.0; \
    NEXT;
#define END() LABEL(end) return 0;

#include "vm_scalar.inc"
#if !THREADED
    }
#endif
}
