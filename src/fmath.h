/* The helpers that the formulas of ops.def call, for float and for double.
 *
 * A formula says fg_tanh(a); FG_TYPED turns that into fg_tanh_f32 or fg_tanh_f64 by the FG_SUFFIX
 * in force, here and in every includer that defines FG_SUFFIX, FG_REAL and K. The definitions
 * below are written in the same spelling and renamed by the same macros, so each stands here
 * once; this file includes itself for the two types.
 *
 * Everything is branch-free, so that the loops of loops.inc vectorise: choices are ?: between
 * values that are both computed, conditions are joined by & and |. With FG_VECTOR defined (the
 * isa files) the library's functions are declared as vectorisable, and those that glibc lacks or
 * gets wrong are replaced by formulas; without it (scalar.h) libm's scalar functions serve.
 */
#ifndef FG_REAL
#ifndef FG_FMATH_H
#define FG_FMATH_H

#include <math.h>
#include <stdint.h>

/* Which vector functions glibc's libmvec has: 35 (since 2.35: nearly all), 22 (since 2.22: sin,
 * cos, exp, log, pow), 0 (none: another libc, compiler or machine). */
#ifndef FG_LIBMVEC
#  if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#    if __GLIBC_PREREQ(2, 35)
#      define FG_LIBMVEC 35
#    elif __GLIBC_PREREQ(2, 22)
#      define FG_LIBMVEC 22
#    endif
#  endif
#endif
#ifndef FG_LIBMVEC
#  define FG_LIBMVEC 0
#endif

#ifdef FG_VECTOR
#define FG_SIMD1(name) \
    double name(double) __attribute__((simd("notinbranch"), const)); \
    float name##f(float) __attribute__((simd("notinbranch"), const));
#define FG_SIMD2(name) \
    double name(double, double) __attribute__((simd("notinbranch"), const)); \
    float name##f(float, float) __attribute__((simd("notinbranch"), const));
#if FG_LIBMVEC >= 22
FG_SIMD1(sin) FG_SIMD1(cos) FG_SIMD1(exp) FG_SIMD1(log) FG_SIMD2(pow)
#endif
#if FG_LIBMVEC >= 35
FG_SIMD1(tan) FG_SIMD1(tanh) FG_SIMD1(erf) FG_SIMD1(atan) FG_SIMD1(asin) FG_SIMD1(acos)
FG_SIMD1(sinh) FG_SIMD1(cosh) FG_SIMD1(asinh) FG_SIMD1(acosh) FG_SIMD1(atanh) FG_SIMD1(cbrt)
FG_SIMD1(exp2) FG_SIMD1(expm1) FG_SIMD1(log2) FG_SIMD1(log10) FG_SIMD1(log1p)
FG_SIMD2(atan2) FG_SIMD2(hypot)
#endif
#undef FG_SIMD1
#undef FG_SIMD2
#endif

#include "fmath_own.h"

/* Whose function it is. FG_LIBM: always the library's. FG_SINCE_35: the own one where libmvec is
 * older. exp and log: own where libmvec has none; and in double not libmvec's of 2.22, which take
 * 2.0 and 2.2 ns an element (AVX-512, 2.5 GHz): the own exp takes 1.25, and its 1 ulp instead of 3
 * keeps the sigmoid below 4; log by way of the newer log10 takes 1.25. */
#if defined(FG_VECTOR) && FG_LIBMVEC < 35
#define FG_SINCE_35(name) (FG_REAL)fg_own_##name
#define fg_double_log1p fg_own_log1p
#else
#define FG_SINCE_35(name) FG_LIBM(name)
#define fg_double_log1p log1p
#endif

#ifdef FG_VECTOR
#define fg_double_exp fg_own_exp
#else
#define fg_double_exp exp
#endif

#if defined(FG_VECTOR) && FG_LIBMVEC < 22
#define fg_float_exp (float)fg_own_exp
#define fg_float_log (float)fg_own_log
#define fg_double_log fg_own_log
#else
#define fg_float_exp expf
#define fg_float_log logf
#if defined(FG_VECTOR) && FG_LIBMVEC >= 35 && defined(__FMA__)
/* log(10) in two parts, both positive: with one negative an infinity would turn into NaN. */
static inline __attribute__((always_inline, unused, const)) double fg_double_log(double a)
{
    double y = log10(a);
    return __builtin_fma(y, 0x1.26bb1bbb55515p+1, y * 0x1.05ba95b58ae0bp-52);
}
#else
#define fg_double_log log
#endif
#endif

#define FG_REAL float
#define FG_SUFFIX _f32
#define FG_LIBM(name) name##f
#define FG_EXP(a) fg_float_exp(a)
#define FG_LOG(a) fg_float_log(a)
#define FG_BITS uint32_t
#define FG_DIGITS 24
#include "fmath.h"
#undef FG_REAL
#undef FG_SUFFIX
#undef FG_LIBM
#undef FG_EXP
#undef FG_LOG
#undef FG_BITS
#undef FG_DIGITS

#define FG_REAL double
#define FG_SUFFIX _f64
#define FG_LIBM(name) name
#define FG_EXP(a) fg_double_exp(a)
#define FG_LOG(a) fg_double_log(a)
#define FG_BITS uint64_t
#define FG_DIGITS 53
#include "fmath.h"
#undef FG_REAL
#undef FG_SUFFIX
#undef FG_LIBM
#undef FG_EXP
#undef FG_LOG
#undef FG_BITS
#undef FG_DIGITS

#endif
#else  /* ---- the helpers, for one type ---------------------------------------------------- */

#define K(x) ((FG_REAL)(x))
#define FG_NAN K(__builtin_nan(""))
#define FG_INF K(__builtin_inf())
#define FG_HELPER static inline __attribute__((always_inline, unused, const)) FG_REAL

/* ---- signs, choices, kinks ---------------------------------------------------------------- */

FG_HELPER fg_abs(FG_REAL a) { return FG_LIBM(__builtin_fabs)(a); }
FG_HELPER fg_sqrt(FG_REAL a) { return FG_LIBM(__builtin_sqrt)(a); }
FG_HELPER fg_copysign(FG_REAL a, FG_REAL b) { return FG_LIBM(__builtin_copysign)(a, b); }
FG_HELPER fg_select(FG_REAL mask, FG_REAL a, FG_REAL b) { return mask != 0 ? a : b; }
FG_HELPER fg_is_zero(FG_REAL a) { return a == 0 ? K(1) : K(0); }

#undef FG_FMADD                 /* a * b + c, rounded once where the processor can */
#ifdef __FMA__
#define FG_FMADD(a, b, c) FG_LIBM(__builtin_fma)(a, b, c)
#else
#define FG_FMADD(a, b, c) ((a) * (b) + (c))
#endif

/* The strong zero: in the chain rule a factor of 0 wins over infinity and NaN. */
FG_HELPER fg_weigh(FG_REAL a, FG_REAL b)
{
    FG_REAL product = a * b;
    return ((a != 0) & (b != 0)) ? product : K(0);
}

/* The same in a sweep of a result that may not be finite: then b, which comes earlier in the chain,
 * loses against an infinity or NaN, so that an underflow inside a logarithm gives NaN. */
FG_HELPER fg_chain(FG_REAL a, FG_REAL b, FG_REAL finite)
{
    FG_REAL product = a * b;
    return ((a != 0) & ((b != 0) | (finite == 0))) ? product : K(0);
}

/* sign, step and relu end in `a` for a NaN. */
FG_HELPER fg_sign(FG_REAL a) { return a > 0 ? K(1) : a < 0 ? K(-1) : a == 0 ? K(0) : a; }
FG_HELPER fg_step(FG_REAL a) { return a > 0 ? K(1) : a <= 0 ? K(0) : a; }
FG_HELPER fg_relu(FG_REAL a) { return a <= 0 ? K(0) : a; }
FG_HELPER fg_heaviside(FG_REAL a, FG_REAL b)
{
    return a > 0 ? K(1) : a < 0 ? K(0) : a == 0 ? b : a;
}

/* Of zeros with both signs maximum and minimum give the second operand, as NumPy does, which is
 * what the processor's instructions do. fmax and fmin give the first one, as NumPy does for
 * scalars; in arrays it gives the one or the other by their place. */
FG_HELPER fg_maximum(FG_REAL a, FG_REAL b) { return ((a > b) | (a != a)) ? a : b; }
FG_HELPER fg_minimum(FG_REAL a, FG_REAL b) { return ((a < b) | (a != a)) ? a : b; }
FG_HELPER fg_fmax(FG_REAL a, FG_REAL b) { return ((a >= b) | (b != b)) ? a : b; }
FG_HELPER fg_fmin(FG_REAL a, FG_REAL b) { return ((a <= b) | (b != b)) ? a : b; }

/* The share of `a` in the derivative. A NaN takes it all in maximum, none in fmax; two NaN are a
 * tie. */
FG_HELPER fg_weight_max(FG_REAL a, FG_REAL b, FG_REAL tie)
{
    FG_REAL weight = ((a > b) | (a != a)) ? K(1) : K(0);
    return (a == b) | ((a != a) & (b != b)) ? tie : weight;
}
FG_HELPER fg_weight_min(FG_REAL a, FG_REAL b, FG_REAL tie)
{
    FG_REAL weight = ((a < b) | (a != a)) ? K(1) : K(0);
    return (a == b) | ((a != a) & (b != b)) ? tie : weight;
}
FG_HELPER fg_weight_fmax(FG_REAL a, FG_REAL b, FG_REAL tie)
{
    FG_REAL weight = ((a > b) | (b != b)) ? K(1) : K(0);
    return (a == b) | ((a != a) & (b != b)) ? tie : weight;
}
FG_HELPER fg_weight_fmin(FG_REAL a, FG_REAL b, FG_REAL tie)
{
    FG_REAL weight = ((a < b) | (b != b)) ? K(1) : K(0);
    return (a == b) | ((a != a) & (b != b)) ? tie : weight;
}

/* Clip is minimum(maximum(a, b), c), and a itself where it equals a bound (a zero keeps its sign,
 * as in NumPy with bounds that are numbers). Its three slopes always add up to 1: on a bound, and
 * where the bounds cross, the bound has it all. A NaN operand has a NaN slope. */
FG_HELPER fg_clip(FG_REAL a, FG_REAL b, FG_REAL c)
{
    FG_REAL y = ((a >= b) | (a != a)) ? a : b;
    return ((a > c) | (b > c) | (c != c)) ? ((a != a) | (b != b)) ? y : c : y;
}
FG_HELPER fg_clip_da(FG_REAL a, FG_REAL b, FG_REAL c)
{
    return a != a ? a : ((a > b) & (a < c)) ? K(1) : K(0);
}
FG_HELPER fg_clip_db(FG_REAL a, FG_REAL b, FG_REAL c)
{
    return b != b ? b : ((a <= b) & (b < c)) ? K(1) : K(0);
}
FG_HELPER fg_clip_dc(FG_REAL a, FG_REAL b, FG_REAL c)
{
    return c != c ? c : ((a >= c) | (b >= c)) ? K(1) : K(0);
}

/* a / (b*b), whose square would over- and underflow. A subnormal quotient a / b would lack digits
 * that count in the slope if b < 1: then a is subnormal too. */
FG_HELPER fg_divide_db(FG_REAL a, FG_REAL b)
{
    const FG_REAL up = FG_DIGITS == 24 ? K(0x1p50) : K(0x1p108);
    const FG_REAL tiny = FG_DIGITS == 24 ? K(0x1p-100) : K(0x1p-900);
    const FG_REAL least = FG_DIGITS == 24 ? K(0x1p-60) : K(0x1p-500);
    FG_REAL small = ((fg_abs(a) < tiny) & (fg_abs(b) > least)) ? up : K(1);
    FG_REAL raised = a * small, slope = raised / b / b, scaled = slope * (K(1) / up);
    return raised != a ? scaled : slope;    /* said in another way, or gcc would divide twice */
}

/* ---- rounding and remainders -------------------------------------------------------------- */

#if defined(__x86_64__) && !defined(__SSE4_1__)
/* SSE2 has no instruction for it: adding and taking away 2**52 (2**23) rounds to an integer. */
FG_HELPER fg_rint(FG_REAL a)
{
    const FG_REAL big = FG_DIGITS == 24 ? K(0x1p23) : K(0x1p52);
    FG_REAL x = fg_abs(a);
    FG_REAL rounded = fg_copysign((x + big) - big, a);
    return x < big ? rounded : a;
}
FG_HELPER fg_floor(FG_REAL a)
{
    FG_REAL r = fg_rint(a);
    return r > a ? r - K(1) : r;
}
FG_HELPER fg_ceil(FG_REAL a)
{
    FG_REAL r = fg_rint(a);
    return fg_copysign(r < a ? r + K(1) : r, a);
}
FG_HELPER fg_trunc(FG_REAL a)
{
    FG_REAL x = fg_abs(a), r = fg_rint(x);
    return fg_copysign(r > x ? r - K(1) : r, a);
}
#else
FG_HELPER fg_rint(FG_REAL a) { return FG_LIBM(__builtin_rint)(a); }
FG_HELPER fg_floor(FG_REAL a) { return FG_LIBM(__builtin_floor)(a); }
FG_HELPER fg_ceil(FG_REAL a) { return FG_LIBM(__builtin_ceil)(a); }
FG_HELPER fg_trunc(FG_REAL a) { return FG_LIBM(__builtin_trunc)(a); }
#endif

FG_HELPER fg_fmod(FG_REAL a, FG_REAL b) { return FG_LIBM(fmod)(a, b); }

/* As NumPy: the sign of the divisor, also of a zero. */
FG_HELPER fg_mod(FG_REAL a, FG_REAL b)
{
    FG_REAL r = fg_fmod(a, b);
    FG_REAL other = r + b;
    FG_REAL zero = fg_copysign(K(0), b);
    other = (r < 0) != (b < 0) ? other : r;
    return ((r == 0) & (b != 0)) ? zero : other;
}

/* As NumPy: from the exact remainder, since floor(a / b) is one too many where the quotient
 * rounds up to an integer. */
FG_HELPER fg_floor_divide(FG_REAL a, FG_REAL b)
{
    FG_REAL r = fg_fmod(a, b), quotient = a / b;
    FG_REAL q = (a - r) / b;
    FG_REAL less = q - K(1);
    q = ((r != 0) & ((r < 0) != (b < 0))) ? less : q;
    FG_REAL whole = fg_floor(q), more = whole + K(1);
    whole = q - whole > K(0.5) ? more : whole;
    FG_REAL zero = fg_copysign(K(0), quotient);
    whole = q == 0 ? zero : whole;
    return b == 0 ? quotient : whole;
}

/* ---- exponentials and logarithms ---------------------------------------------------------- */

/* The library's cube roots are up to 4 ulp off, and the slope is twice as much. With r, the root's
 * upper third of the digits, r*r*r is exact, a - r*r*r too, and that is
 * (y - r)(y*y + y*r + r*r). */
FG_HELPER fg_cbrt(FG_REAL a)
{
    union { FG_REAL real; FG_BITS bits; } upper;
    const FG_REAL cubed = FG_DIGITS == 24 ? K(0x1p96) : K(0x1p900);
    const FG_REAL up = FG_DIGITS == 24 ? K(0x1p32) : K(0x1p300);
    FG_REAL y = FG_LIBM(cbrt)(a), small = fg_abs(a);    /* a small cube would lose its last bits */
    FG_REAL x = a * (small < 1 ? cubed : K(1)), root = y * (small < 1 ? up : K(1));
    upper.real = root;
    upper.bits &= -((FG_BITS)1 << (FG_DIGITS - FG_DIGITS / 3));
    FG_REAL r = upper.real, rest = x - r * r * r;
    FG_REAL better = r + rest / (root * (root + r) + r * r), lowered = better * (K(1) / up);
    better = x != a ? lowered : better;
    return ((a == 0) | (small == FG_INF)) ? y : better;
}

/* 1 / (3 a*a); the squares of a and of 1 / a overflow before it does. */
FG_HELPER fg_cbrt_da(FG_REAL a)
{
    FG_REAL inverse = K(1) / a;
    return inverse * (inverse * (K(1) / K(3)));
}

FG_HELPER fg_exp(FG_REAL a) { return FG_EXP(a); }
FG_HELPER fg_exp2(FG_REAL a) { return FG_SINCE_35(exp2)(a); }
FG_HELPER fg_expm1(FG_REAL a) { return FG_SINCE_35(expm1)(a); }
FG_HELPER fg_log(FG_REAL a) { return FG_LOG(a); }
FG_HELPER fg_log2(FG_REAL a) { return FG_SINCE_35(log2)(a); }
FG_HELPER fg_log10(FG_REAL a) { return FG_SINCE_35(log10)(a); }
FG_HELPER fg_log1p(FG_REAL a) { return FG_SINCE_35(log1p)(a); }

/* 1 / a from inside the domain: +inf at -0.0, NaN below. */
FG_HELPER fg_log_da(FG_REAL a)
{
    FG_REAL slope = K(1) / fg_abs(a);
    return a < 0 ? FG_NAN : slope;
}

FG_HELPER fg_power(FG_REAL a, FG_REAL b) { return FG_LIBM(pow)(a, b); }

/* b * a**(b - 1); the power 0 is constant, also at a = 0. For b < 1 it is b * a**b / a: b - 1 would
 * be half an ulp off, which counts log(a) fold, and the power overflow where the slope does not. A
 * large b times an underflowing power would lack digits: the square of half the power does not. A
 * negative a and a b so large that it is even have an odd b - 1; for an infinite one and tiny b
 * there is no power, though there is one for the rounded b - 1. What the exponent was chosen by is
 * said in another way afterwards, or gcc would compute a power for each choice. */
FG_HELPER fg_power_da(FG_REAL a, FG_REAL b)
{
    FG_REAL less = ((b < 1) & (a != 0) & (fg_abs(a) < FG_INF)) ? K(0) : K(1);
    FG_REAL part = ((fg_abs(b) > K(FG_DIGITS == 24 ? 32 : 1024)) & (a > 0)) ? K(0.5) : K(1);
    FG_REAL power = b - less, exponent = power * part;
    FG_REAL factor = fg_power(a, exponent), slope = b * factor, square = slope * factor;
    slope = exponent != power ? square : slope;
    FG_REAL quotient = slope / a, odd = fg_copysign(slope, -b);
    FG_REAL finite = ((a != 0) & (fg_abs(a) < FG_INF) & (b < FG_INF)) ? K(1) : K(0);
    slope = ((power == b) & (finite != 0)) ? quotient : slope;
    slope = ((a < 0) & (b > 1) & (b < FG_INF) & (b - power != 1) & (slope == slope)) ? odd : slope;
    slope = ((a < 0) & (b - K(1) == K(-1))) ? FG_NAN : slope;
    return b == 0 ? K(0) : slope;
}

/* y * log(a). At a = 0 the limit: 0, or -inf for negative b; at a = inf and y = 0 it is 0. */
FG_HELPER fg_power_db(FG_REAL a, FG_REAL b, FG_REAL y)
{
    FG_REAL l = fg_log(a);
    FG_REAL slope = ((l == FG_INF) & (y == 0)) ? K(0) : y * l;
    FG_REAL edge = b >= 0 ? K(0) : b < 0 ? -FG_INF : b;
    return a == 0 ? edge : slope;
}

/* For float in double: libmvec's logf alone has 3.9 ulp. */
FG_HELPER fg_xlogy(FG_REAL a, FG_REAL b)
{
    FG_REAL y = (FG_REAL)((double)a * fg_double_log((double)b));
    return ((a == 0) & (b == b)) ? K(0) : y;
}
FG_HELPER fg_xlogy_da(FG_REAL a, FG_REAL b)
{
    FG_REAL slope = fg_log(b);
    return ((a == 0) & (b == 0)) ? K(0) : slope;
}
FG_HELPER fg_xlogy_db(FG_REAL a, FG_REAL b)
{
    FG_REAL slope = a / fg_abs(b);
    slope = b < 0 ? FG_NAN : slope;
    return a == 0 ? K(0) : slope;
}

/* ---- trigonometry ------------------------------------------------------------------------- */

FG_HELPER fg_sin(FG_REAL a) { return FG_LIBM(sin)(a); }
FG_HELPER fg_cos(FG_REAL a) { return FG_LIBM(cos)(a); }
FG_HELPER fg_tan(FG_REAL a) { return FG_LIBM(tan)(a); }
FG_HELPER fg_arcsin(FG_REAL a) { return FG_LIBM(asin)(a); }
FG_HELPER fg_arccos(FG_REAL a) { return FG_LIBM(acos)(a); }
FG_HELPER fg_arctan(FG_REAL a) { return FG_LIBM(atan)(a); }
FG_HELPER fg_arctan2(FG_REAL a, FG_REAL b) { return FG_LIBM(atan2)(a, b); }
FG_HELPER fg_hypot(FG_REAL a, FG_REAL b) { return FG_SINCE_35(hypot)(a, b); }
FG_HELPER fg_sinh(FG_REAL a) { return FG_SINCE_35(sinh)(a); }
FG_HELPER fg_cosh(FG_REAL a) { return FG_SINCE_35(cosh)(a); }

/* (exp(r) - 1 - r) / r**2 for |r| <= 0.35, even and odd powers apart. */
FG_HELPER fg_exp_series(FG_REAL r)
{
#if FG_DIGITS == 24
    FG_REAL z = r * r, odd = K(1.0 / 5040), even = K(1.0 / 40320);
    even = FG_FMADD(even, z, K(1.0 / 720));
    odd = FG_FMADD(odd, z, K(1.0 / 120));
    even = FG_FMADD(even, z, K(1.0 / 24));
    odd = FG_FMADD(odd, z, K(1.0 / 6));
    even = FG_FMADD(even, z, K(0.5));
    return FG_FMADD(odd, r, even);
#else
    return fg_own_series(r);
#endif
}

/* c - a * b, the product without its rounding. */
FG_HELPER fg_rest(FG_REAL c, FG_REAL a, FG_REAL b)
{
#ifdef __FMA__
    return FG_LIBM(__builtin_fma)(-a, b, c);
#else
    const FG_REAL split = FG_DIGITS == 24 ? K(0x1001) : K(0x8000001);       /* Dekker's halves */
    FG_REAL product = a * b, left = a * split, right = b * split;
    left = left - (left - a);
    right = right - (right - b);
    FG_REAL error = left * right - product + left * (b - right) + (a - left) * right;
    error += (a - left) * (b - right);
    FG_REAL rest = c - product;
    return rest + (c - rest - product - error);
#endif
}

/* Within 0.57 ulp from 1/2 on, since the derivative is taken from it: near sqrt(1/2) even a correctly
 * rounded y leaves 1 - y*y an error of 0.6 ulp of 1; this one leaves 0.64, and the library's left 1.4.
 * (With r*r exact in p + low 0.61, for nine instructions more in seventy.) With
 * exp(-2x) = q * (1 + p + low), where q is a power of two, numerator and denominator of
 * (1 - exp(-2x)) / (1 + exp(-2x)) are sums of two numbers each, and so is the quotient. */
FG_HELPER fg_tanh(FG_REAL a)
{
    const FG_REAL shift = FG_DIGITS == 24 ? K(0x1.8p23) : K(0x1.8p52);
    const FG_REAL ln2 = FG_DIGITS == 24 ? K(0x1.62e4p-1) : K(0x1.62e42feep-1);
    const FG_REAL ln2_rest = FG_DIGITS == 24 ? K(0x1.7f7d1cf79abcap-20) : K(0x1.a39ef35793c76p-33);
    FG_REAL x = fg_abs(a) > 20 ? K(-40) : K(-2) * fg_abs(a);
    FG_REAL k = FG_FMADD(x, K(1.4426950408889634074), shift);
    union { FG_REAL real; FG_BITS bits; } power = { k };
    power.bits = (power.bits + (FG_DIGITS == 24 ? 127 : 1023)) << (FG_DIGITS - 1);
    k -= shift;
    FG_REAL large = x - k * ln2, small = -k * ln2_rest, r = large + small;
    FG_REAL low = FG_FMADD(r * r, fg_exp_series(r), (large - r) + small), p = r + low;
    low = power.real * ((r - p) + low);
    p *= power.real;
    FG_REAL less = K(1) - power.real, more = K(1) + power.real;
    FG_REAL above = less - p, below = more + p, inverse = K(1) / below, y = above * inverse;
    FG_REAL above_low = less - above - p - low + (K(1) - less - power.real);
    FG_REAL below_low = more - below + p + low + (K(1) - more + power.real);
    y = FG_FMADD(inverse, fg_rest(above, y, below) + (above_low - y * below_low), y);
    return fg_copysign(a == a ? y : a, a);
}
FG_HELPER fg_arcsinh(FG_REAL a) { return FG_SINCE_35(asinh)(a); }
FG_HELPER fg_arccosh(FG_REAL a) { return FG_SINCE_35(acosh)(a); }
FG_HELPER fg_arctanh(FG_REAL a) { return FG_SINCE_35(atanh)(a); }

/* (1 - a)(1 + a) instead of 1 - a*a: no cancellation near the bounds. */
FG_HELPER fg_arcsin_da(FG_REAL a) { return K(1) / fg_sqrt((K(1) - a) * (K(1) + a)); }
FG_HELPER fg_arctanh_da(FG_REAL a)
{
    FG_REAL slope = K(1) / ((K(1) - a) * (K(1) + a));
    return fg_abs(a) > 1 ? FG_NAN : slope;
}

/* 1 / (1 + a*a), whose square would overflow. The divisor has a name of its own, and that a is
 * large is said in two ways, or gcc would divide by both and choose then. */
FG_HELPER fg_arctan_da(FG_REAL a)
{
    FG_REAL large = fg_abs(a), sum = K(1) + a * a;
    FG_REAL divisor = large > K(0x1p30) ? large : sum;
    FG_REAL inverse = K(1) / divisor, square = inverse * inverse;
    return sum > K(0x1p60) ? square : inverse;
}

/* 1 - a*a rounded once: beside that of a, of which it is taken, no other rounding counts. */
FG_HELPER fg_tanh_da(FG_REAL a)
{
    FG_REAL slope = fg_rest(K(1), a, a), beyond = (K(1) - a) * (K(1) + a);  /* (halves overflow) */
    return fg_abs(a) <= 1 ? slope : beyond;
}

/* Two roots: the product would overflow, and be positive below -1. */
FG_HELPER fg_arccosh_da(FG_REAL a) { return K(1) / (fg_sqrt(a - K(1)) * fg_sqrt(a + K(1))); }
FG_HELPER fg_arcsinh_da(FG_REAL a)
{
    FG_REAL x = fg_abs(a), root = fg_sqrt(K(1) + a * a);
    FG_REAL divisor = x > K(0x1p30) ? x : root;     /* the square would overflow; named: as above */
    return K(1) / divisor;
}

/* A power of two by which numbers, the largest of that size, can be multiplied, so that the sum of
 * their squares neither overflows nor loses digits. */
FG_HELPER fg_squarable(FG_REAL size)
{
    const FG_REAL large = FG_DIGITS == 24 ? K(0x1p60) : K(0x1p500);
    const FG_REAL up = FG_DIGITS == 24 ? K(0x1p100) : K(0x1p600);
    const FG_REAL down = FG_DIGITS == 24 ? K(0x1p-80) : K(0x1p-600);
    FG_REAL scale = size > large ? down : K(1);
    return size * large < 1 ? up : scale;
}

/* b / (a*a + b*b); 0 at the origin and at infinity. */
FG_HELPER fg_arctan2_da(FG_REAL a, FG_REAL b)
{
    FG_REAL size = fg_maximum(fg_abs(a), fg_abs(b)), scale = fg_squarable(size);
    FG_REAL u = a * scale, v = b * scale;
    FG_REAL slope = v / (u * u + v * v) * scale;
    return ((size == 0) | (size == FG_INF)) ? K(0) : slope;
}

/* a / sqrt(a*a + b*b); 0 at the origin, and 1 where a is infinite. */
FG_HELPER fg_hypot_da(FG_REAL a, FG_REAL b)
{
    FG_REAL size = fg_maximum(fg_abs(a), fg_abs(b)), scale = fg_squarable(size);
    FG_REAL u = a * scale, v = b * scale, one = fg_copysign(K(1), a);
    FG_REAL up = fg_maximum(scale, K(1)), down = fg_minimum(scale, K(1));   /* u may underflow */
    FG_REAL slope = a * up / fg_sqrt(u * u + v * v) * down;
    slope = fg_abs(a) == FG_INF ? one : slope;
    return size == 0 ? K(0) : slope;
}

/* ---- statistics and networks -------------------------------------------------------------- */

/* From exp(-|a|), which does not overflow and keeps its digits on both sides. */
FG_HELPER fg_sigmoid(FG_REAL a)
{
    FG_REAL e = fg_exp(-fg_abs(a));
    return (a < 0 ? e : K(1)) / (K(1) + e);
}
FG_HELPER fg_sigmoid_da(FG_REAL a)
{
    FG_REAL e = fg_exp(-fg_abs(a));
    FG_REAL d = K(1) + e;
    return e / (d * d);
}
FG_HELPER fg_softplus(FG_REAL a)
{
    FG_REAL tail = fg_log1p(fg_exp(-fg_abs(a)));
    return (a > 0 ? a : K(0)) + tail;
}

/* a - b is NaN for equal infinities, where the distance is none. The sum cancels where the result
 * is near 0 (the operands between -0.7 and 0): for float double has the digits; for double the
 * error there is an ulp of the operands, once what the difference rounds off (two-sum) is put
 * back. */
FG_HELPER fg_logaddexp(FG_REAL a, FG_REAL b)
{
    double larger = (double)(a > b ? a : b), smaller = (double)(a > b ? b : a);
    double distance = larger - smaller, back = larger - distance;
    double lost = (larger - (distance + back)) + (back - smaller);
    distance = a == b ? 0.0 : distance;
    double e = fg_double_exp(-distance), exact = e - e * lost;
    e = lost == lost ? exact : e;               /* NaN: an operand is infinite */
    FG_REAL y = (FG_REAL)(larger + fg_double_log1p(e));
    return ((a != a) | (b != b)) ? FG_NAN : y;    /* or its sign would depend on the lane */
}

/* exp(a - y) = sigmoid(a - b), which does not inherit the rounding of y; what the difference
 * rounds off (two-sum) is put back, since in a small weight it counts a - b fold. Equal
 * infinities: 1/2 each at +inf, nothing at -inf. */
FG_HELPER fg_logaddexp_da(FG_REAL a, FG_REAL b)
{
    FG_REAL d = a - b, back = a - d;
    FG_REAL lost = (a - (d + back)) + (back - b);
    FG_REAL weight = fg_sigmoid(d);
    FG_REAL tie = a == -FG_INF ? K(0) : K(0.5);
    FG_REAL exact = weight + weight * (K(1) - weight) * lost;
    weight = lost == lost ? exact : weight;         /* NaN: one is infinite, or was NaN anyway */
    return a == b ? tie : weight;
}

FG_HELPER fg_erf(FG_REAL a) { return FG_LIBM(erf)(a); }

/* 2 / sqrt(pi) * exp(-a*a). The rounding of the square would be magnified 700 fold: float squares
 * in double; double squares the upper half of the digits exactly, and the rest, x, goes through
 * the series of exp(-x), x below 1e-4. */
FG_HELPER fg_erf_da(FG_REAL a)
{
#if FG_DIGITS == 24
    double square = (double)a * (double)a;
    return (float)(1.1283791670955125739 * fg_double_exp(-square));
#else
    union { double real; int64_t bits; } upper = { a };
    upper.bits &= -(INT64_C(1) << 27);
    double high = upper.real, x = (a - high) * (a + high);
    double e = fg_double_exp(-(high * high));
    e = e - e * (x * (1.0 - x * (0.5 - x * (1.0 / 6.0))));
    return 1.1283791670955125739 * (fg_abs(a) < 30.0 ? e : a == a ? 0.0 : a);
#endif
}

#undef K
#undef FG_NAN
#undef FG_INF
#undef FG_HELPER
#endif
