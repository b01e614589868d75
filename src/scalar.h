/* One element at a time: the operators' values, partials and comparisons as switches built from
 * ops.def. With a constant operator a switch folds to the formula. The functions are libm's
 * scalar ones and may differ from the loops' in the last bits.
 *
 * For FG_FLOAT32 the operands are floats held in double; everything is computed in float.
 */
#ifndef FG_SCALAR_H
#define FG_SCALAR_H

#include "fg.h"
#include "fmath.h"

#define FG_SCALAR static inline __attribute__((always_inline, unused))
#define K(x) ((FG_REAL)(x))

#define FG_REAL float
#define FG_SUFFIX _f32
#define FG_SCALAR_TYPED
#include "scalar.h"
#undef FG_REAL
#undef FG_SUFFIX
#define FG_REAL double
#define FG_SUFFIX _f64
#include "scalar.h"
#undef FG_REAL
#undef FG_SUFFIX
#undef FG_SCALAR_TYPED

#undef K

FG_SCALAR double fg_value(int op, int dtype, double a, double b, double c)
{
    if (dtype == FG_FLOAT32) return (double)fg_value_f32(op, (float)a, (float)b, (float)c);
    return fg_value_f64(op, a, b, c);
}

/* The partial alone: not yet multiplied with an adjoint, and without the strong zero. */
FG_SCALAR double fg_partial(int op, int which, int dtype, double a, double b, double c, double y,
                            double tie)
{
    if (dtype == FG_FLOAT32)
        return (double)fg_partial_f32(op, which, (float)a, (float)b, (float)c, (float)y,
                                      (float)tie);
    return fg_partial_f64(op, which, a, b, c, y, tie);
}

/* Floats compare as the doubles that hold them. */
FG_SCALAR int fg_compare(int op, int dtype, double a, double b)
{
    (void)dtype;
    switch (op) {
#define COMPARE(name, y, ...) case FG_##name: return (y);
#include "ops.def"
    default: return 0;
    }
}
#undef FG_SCALAR

#elif defined(FG_SCALAR_TYPED)     /* ---- from above, for one type --------------------------- */

FG_SCALAR FG_REAL FG_TYPED(fg_value)(int op, FG_REAL a, FG_REAL b, FG_REAL c)
{
    switch (op) {
#define ELEMENTWISE(name, y, ...) case FG_##name: return (y);
#include "ops.def"
    default: return K(__builtin_nan(""));
    }
}

/* One switch for all: three partials an operator, numbered 3 * op + which. */
FG_SCALAR FG_REAL FG_TYPED(fg_partial)(int op, int which, FG_REAL a, FG_REAL b, FG_REAL c,
                                       FG_REAL y, FG_REAL tie)
{
    switch (3 * op + which) {
#define UNARY(name, y_, da, ...) \
    case 3 * FG_##name: return (da);
#define BINARY(name, y_, da, db, ...) \
    case 3 * FG_##name: return (da); \
    case 3 * FG_##name + 1: return (db);
#define TERNARY(name, y_, da, db, dc, ...) \
    case 3 * FG_##name: return (da); \
    case 3 * FG_##name + 1: return (db); \
    case 3 * FG_##name + 2: return (dc);
#include "ops.def"
    default: return K(0);
    }
}

#endif
