/* Vector functions of our own, for fmath.h.
 *
 * For a libmvec that lacks them, and for other libraries: what can be built from a polynomial for
 * exp and one for log, in double; float goes through double too. Everything else is then libm's
 * scalar function, element by element. The arguments are reduced so far that the polynomials
 * err by less than 2**-56. Integers are made and taken by adding 1.5 * 2**52, since SSE2 and AVX2
 * convert no 64-bit integers. */
#ifndef FG_FMATH_OWN_H
#define FG_FMATH_OWN_H

#define FG_OWN_HELPER static inline __attribute__((always_inline, unused, const)) double
#ifdef __FMA__
#define FG_FMA(a, b, c) __builtin_fma(a, b, c)
#else
#define FG_FMA(a, b, c) ((a) * (b) + (c))
#endif

/* (exp(r) - 1 - r) / r**2 for |r| <= 0.35. Even and odd powers apart: one long chain of
 * multiply-adds would wait for its own results. */
FG_OWN_HELPER fg_own_series(double r)
{
    double z = r * r, odd = 1.0 / 6227020800, even = 1.0 / 479001600;
    odd = FG_FMA(odd, z, 1.0 / 39916800);
    even = FG_FMA(even, z, 1.0 / 3628800);
    odd = FG_FMA(odd, z, 1.0 / 362880);
    even = FG_FMA(even, z, 1.0 / 40320);
    odd = FG_FMA(odd, z, 1.0 / 5040);
    even = FG_FMA(even, z, 1.0 / 720);
    odd = FG_FMA(odd, z, 1.0 / 120);
    even = FG_FMA(even, z, 1.0 / 24);
    odd = FG_FMA(odd, z, 1.0 / 6);
    even = FG_FMA(even, z, 0.5);
    return FG_FMA(odd, r, even);
}

#ifdef FG_VECTOR
#define FG_ROUND 0x1.8p52
#define FG_LN2_HIGH 0x1.62e42feep-1             /* 32 bits: exact times an exponent */
#define FG_LN2_LOW 0x1.a39ef35793c76p-33

typedef union { double real; uint64_t bits; } FgBits;

/* 2**k for an integer k in [-1022, 1023]. */
FG_OWN_HELPER fg_own_power(double k)
{
    FgBits u = { k + FG_ROUND };
    u.bits = (u.bits + 1023) << 52;
    return u.real;
}

/* exp(r) * 2**k for |r| <= 0.35 and shifted = k + FG_ROUND, in two steps of k / 2: 2**k may be
 * subnormal, or infinite where the product is not. */
FG_OWN_HELPER fg_own_scaled(double r, double shifted)
{
    FgBits k = { shifted }, low, high;
    low.bits = k.bits >> 1;
    high.bits = (k.bits - low.bits + 1023) << 52;
    low.bits = (low.bits + 1023) << 52;
    double e = 1.0 + FG_FMA(r * r, fg_own_series(r), r);
    return e * low.real * high.real;
}

/* A NaN passes, here and through the sums and products that follow. */
FG_OWN_HELPER fg_own_clamp(double x, double bound)
{
    x = x > bound ? bound : x;
    return x < -bound ? -bound : x;
}

FG_OWN_HELPER fg_own_exp(double a)
{
    double x = fg_own_clamp(a, 800.0);
    double shifted = FG_FMA(x, 1.4426950408889634074, FG_ROUND), k = shifted - FG_ROUND;
    return fg_own_scaled(FG_FMA(-k, FG_LN2_LOW, x - k * FG_LN2_HIGH), shifted);
}

FG_OWN_HELPER fg_own_exp2(double a)
{
    double x = fg_own_clamp(a, 1200.0);
    double shifted = x + FG_ROUND, k = shifted - FG_ROUND;
    return fg_own_scaled((x - k) * 0.69314718055994530942, shifted);
}

FG_OWN_HELPER fg_own_expm1(double a)
{
    double x = fg_own_clamp(a, 60.0);
    double k = FG_FMA(x, 1.4426950408889634074, FG_ROUND) - FG_ROUND;
    double high = x - k * FG_LN2_HIGH, low = k * FG_LN2_LOW, r = high - low;
    double power = fg_own_power(k);
    double y = (power - 1.0) + power * (r + (r * r * fg_own_series(r) + ((high - r) - low)));
    double large = fg_own_exp(a);
    y = a > 50.0 ? large : y;
    return __builtin_fabs(a) < 0x1p-54 ? a : a == a ? y : a;    /* and keeps -0.0 */
}

/* log(m), and in *k the exponent, for positive a = m * 2**k, m in [0.7, 1.42). f is what is to be
 * added to m - 1 before the series (log1p's rounding), relative to m. */
static inline __attribute__((always_inline, unused)) double fg_own_log_parts(double a, double f,
                                                                             double *k)
{
    double scaled = a < 0x1p-1022 ? a * 0x1p54 : a;
    double offset = a < 0x1p-1022 ? -1023.0 - 54.0 : -1023.0;
    FgBits u = { scaled }, e, m;
    u.bits += UINT64_C(0x3ff0000000000000) - UINT64_C(0x3fe6a09e667f3bcd);  /* 1 - sqrt(1/2) */
    e.bits = (u.bits >> 52) | UINT64_C(0x4330000000000000);
    m.bits = (u.bits & UINT64_C(0x000fffffffffffff)) + UINT64_C(0x3fe6a09e667f3bcd);
    *k = (e.real - 0x1p52) + offset;
    double d = m.real - 1.0, s = d / (2.0 + d), z = s * s;
    /* (atanh(s) / s - 1) / z on [0, 0.0295], interpolated in the Chebyshev nodes. */
    double w = z * z, odd = 0.07665855673336498, even = 0.07308288210822193;
    even = FG_FMA(even, w, 0.09091444716878758);
    odd = FG_FMA(odd, w, 0.11111105565280363);
    even = FG_FMA(even, w, 0.14285714313000714);
    odd = FG_FMA(odd, w, 0.19999999999949725);
    even = FG_FMA(even, w, 0.3333333333333335);
    double p = FG_FMA(odd, z, even);
    /* log(1 + d) = 2 s + 2 s z p with 2 s = d - s d: the large term is exact. */
    double square = 0.5 * d * d;
    return d - (square - (s * (square + 2.0 * z * p) + f));
}

/* log outside the positive finite numbers. */
FG_OWN_HELPER fg_own_log_edges(double a, double y)
{
    y = a == 0 ? -__builtin_inf() : y;
    y = a < 0 ? __builtin_nan("") : y;
    return a < __builtin_inf() ? y : a;
}

FG_OWN_HELPER fg_own_log(double a)
{
    double k, m = fg_own_log_parts(a, -0.0, &k);
    return fg_own_log_edges(a, FG_FMA(k, FG_LN2_HIGH, FG_FMA(k, FG_LN2_LOW, m)));
}

FG_OWN_HELPER fg_own_log2(double a)
{
    double k, m = fg_own_log_parts(a, -0.0, &k);
    return fg_own_log_edges(a, k + m * 1.4426950408889634074);
}

FG_OWN_HELPER fg_own_log10(double a)
{
    double k, m = fg_own_log_parts(a, -0.0, &k);
    double high = k * 0x1.34413508p-2;          /* log10(2) in 32 bits and the rest */
    return fg_own_log_edges(a, high + (m * 0.43429448190325182765 + k * 0x1.f79fef311f12bp-34));
}

/* What 1 + a rounds off comes back relative to the sum. */
FG_OWN_HELPER fg_own_log1p(double a)
{
    double sum = 1.0 + a;
    double lost = a > 1.0 ? 1.0 - (sum - a) : a - (sum - 1.0);
    double k, m = fg_own_log_parts(sum, lost / sum, &k);
    double y = fg_own_log_edges(sum, FG_FMA(k, FG_LN2_HIGH, FG_FMA(k, FG_LN2_LOW, m)));
    return __builtin_fabs(a) < 0x1p-54 ? a : y;
}

/* Beyond 20 the smaller exponential does not count, and near 710 the larger one overflows first:
 * the square of exp(x / 2). */
FG_OWN_HELPER fg_own_sinh(double a)
{
    double x = __builtin_fabs(a), e = fg_own_expm1(x);
    double root = fg_own_exp(0.5 * x), large = 0.5 * root * root;
    double small = 0.5 * (e + e / (e + 1.0));
    return __builtin_copysign(x > 20.0 ? large : small, a);
}
FG_OWN_HELPER fg_own_cosh(double a)
{
    double x = __builtin_fabs(a), root = fg_own_exp(0.5 * x);
    double square = 0.5 * root * root;
    return x > 20.0 ? square : square + 0.25 / square;
}

FG_OWN_HELPER fg_own_asinh(double a)
{
    double x = __builtin_fabs(a), large = x > 0x1p60 ? 1.0 : 0.0;
    double z = large != 0 ? 0.0 : x * x;
    double y = fg_own_log1p(large != 0 ? x : x + z / (1.0 + __builtin_sqrt(1.0 + z)));
    return __builtin_copysign(y + large * 0.69314718055994530942, a);
}
FG_OWN_HELPER fg_own_acosh(double a)
{
    double large = a > 0x1p60 ? 1.0 : 0.0, t = a - 1.0;
    double root = __builtin_sqrt(t) * __builtin_sqrt(t + 2.0);      /* NaN below 1 */
    return fg_own_log1p(large != 0 ? a : t + root) + large * 0.69314718055994530942;
}
FG_OWN_HELPER fg_own_atanh(double a)
{
    double x = __builtin_fabs(a);
    return __builtin_copysign(0.5 * fg_own_log1p(2.0 * x / (1.0 - x)), a);
}

FG_OWN_HELPER fg_own_hypot(double a, double b)
{
    double x = __builtin_fabs(a), y = __builtin_fabs(b);
    double large = x > y ? x : y, small = x > y ? y : x;
    double ratio = small / large;
    double h = large * __builtin_sqrt(1.0 + ratio * ratio);
    h = large == 0 ? 0.0 : h;
    h = ((x != x) | (y != y)) ? x + y : h;
    return ((x == __builtin_inf()) | (y == __builtin_inf())) ? __builtin_inf() : h;
}
#endif
#undef FG_OWN_HELPER

#define FG_JOIN_(a, b) a##b
#define FG_JOIN(a, b) FG_JOIN_(a, b)
#define FG_TYPED(name) FG_JOIN(name, FG_SUFFIX)

#define fg_abs(...)             FG_TYPED(fg_abs)(__VA_ARGS__)
#define fg_sqrt(...)            FG_TYPED(fg_sqrt)(__VA_ARGS__)
#define fg_cbrt(...)            FG_TYPED(fg_cbrt)(__VA_ARGS__)
#define fg_cbrt_da(...)         FG_TYPED(fg_cbrt_da)(__VA_ARGS__)
#define fg_copysign(...)        FG_TYPED(fg_copysign)(__VA_ARGS__)
#define fg_select(...)          FG_TYPED(fg_select)(__VA_ARGS__)
#define fg_weigh(...)           FG_TYPED(fg_weigh)(__VA_ARGS__)
#define fg_chain(...)           FG_TYPED(fg_chain)(__VA_ARGS__)
#define fg_is_zero(...)         FG_TYPED(fg_is_zero)(__VA_ARGS__)
#define fg_sign(...)            FG_TYPED(fg_sign)(__VA_ARGS__)
#define fg_step(...)            FG_TYPED(fg_step)(__VA_ARGS__)
#define fg_relu(...)            FG_TYPED(fg_relu)(__VA_ARGS__)
#define fg_heaviside(...)       FG_TYPED(fg_heaviside)(__VA_ARGS__)
#define fg_maximum(...)         FG_TYPED(fg_maximum)(__VA_ARGS__)
#define fg_minimum(...)         FG_TYPED(fg_minimum)(__VA_ARGS__)
#define fg_fmax(...)            FG_TYPED(fg_fmax)(__VA_ARGS__)
#define fg_fmin(...)            FG_TYPED(fg_fmin)(__VA_ARGS__)
#define fg_weight_max(...)      FG_TYPED(fg_weight_max)(__VA_ARGS__)
#define fg_weight_min(...)      FG_TYPED(fg_weight_min)(__VA_ARGS__)
#define fg_weight_fmax(...)     FG_TYPED(fg_weight_fmax)(__VA_ARGS__)
#define fg_weight_fmin(...)     FG_TYPED(fg_weight_fmin)(__VA_ARGS__)
#define fg_clip(...)            FG_TYPED(fg_clip)(__VA_ARGS__)
#define fg_clip_da(...)         FG_TYPED(fg_clip_da)(__VA_ARGS__)
#define fg_clip_db(...)         FG_TYPED(fg_clip_db)(__VA_ARGS__)
#define fg_clip_dc(...)         FG_TYPED(fg_clip_dc)(__VA_ARGS__)
#define fg_divide_db(...)       FG_TYPED(fg_divide_db)(__VA_ARGS__)
#define fg_rint(...)            FG_TYPED(fg_rint)(__VA_ARGS__)
#define fg_floor(...)           FG_TYPED(fg_floor)(__VA_ARGS__)
#define fg_ceil(...)            FG_TYPED(fg_ceil)(__VA_ARGS__)
#define fg_trunc(...)           FG_TYPED(fg_trunc)(__VA_ARGS__)
#define fg_fmod(...)            FG_TYPED(fg_fmod)(__VA_ARGS__)
#define fg_mod(...)             FG_TYPED(fg_mod)(__VA_ARGS__)
#define fg_floor_divide(...)    FG_TYPED(fg_floor_divide)(__VA_ARGS__)
#define fg_exp(...)             FG_TYPED(fg_exp)(__VA_ARGS__)
#define fg_exp2(...)            FG_TYPED(fg_exp2)(__VA_ARGS__)
#define fg_expm1(...)           FG_TYPED(fg_expm1)(__VA_ARGS__)
#define fg_log(...)             FG_TYPED(fg_log)(__VA_ARGS__)
#define fg_log2(...)            FG_TYPED(fg_log2)(__VA_ARGS__)
#define fg_log10(...)           FG_TYPED(fg_log10)(__VA_ARGS__)
#define fg_log1p(...)           FG_TYPED(fg_log1p)(__VA_ARGS__)
#define fg_log_da(...)          FG_TYPED(fg_log_da)(__VA_ARGS__)
#define fg_power(...)           FG_TYPED(fg_power)(__VA_ARGS__)
#define fg_power_da(...)        FG_TYPED(fg_power_da)(__VA_ARGS__)
#define fg_power_db(...)        FG_TYPED(fg_power_db)(__VA_ARGS__)
#define fg_logaddexp(...)       FG_TYPED(fg_logaddexp)(__VA_ARGS__)
#define fg_logaddexp_da(...)    FG_TYPED(fg_logaddexp_da)(__VA_ARGS__)
#define fg_xlogy(...)           FG_TYPED(fg_xlogy)(__VA_ARGS__)
#define fg_xlogy_da(...)        FG_TYPED(fg_xlogy_da)(__VA_ARGS__)
#define fg_xlogy_db(...)        FG_TYPED(fg_xlogy_db)(__VA_ARGS__)
#define fg_sin(...)             FG_TYPED(fg_sin)(__VA_ARGS__)
#define fg_cos(...)             FG_TYPED(fg_cos)(__VA_ARGS__)
#define fg_tan(...)             FG_TYPED(fg_tan)(__VA_ARGS__)
#define fg_arcsin(...)          FG_TYPED(fg_arcsin)(__VA_ARGS__)
#define fg_arcsin_da(...)       FG_TYPED(fg_arcsin_da)(__VA_ARGS__)
#define fg_arccos(...)          FG_TYPED(fg_arccos)(__VA_ARGS__)
#define fg_arctan(...)          FG_TYPED(fg_arctan)(__VA_ARGS__)
#define fg_arctan_da(...)       FG_TYPED(fg_arctan_da)(__VA_ARGS__)
#define fg_arctan2(...)         FG_TYPED(fg_arctan2)(__VA_ARGS__)
#define fg_arctan2_da(...)      FG_TYPED(fg_arctan2_da)(__VA_ARGS__)
#define fg_hypot(...)           FG_TYPED(fg_hypot)(__VA_ARGS__)
#define fg_hypot_da(...)        FG_TYPED(fg_hypot_da)(__VA_ARGS__)
#define fg_squarable(...)       FG_TYPED(fg_squarable)(__VA_ARGS__)
#define fg_sinh(...)            FG_TYPED(fg_sinh)(__VA_ARGS__)
#define fg_cosh(...)            FG_TYPED(fg_cosh)(__VA_ARGS__)
#define fg_exp_series(...)      FG_TYPED(fg_exp_series)(__VA_ARGS__)
#define fg_rest(...)            FG_TYPED(fg_rest)(__VA_ARGS__)
#define fg_tanh(...)            FG_TYPED(fg_tanh)(__VA_ARGS__)
#define fg_tanh_da(...)         FG_TYPED(fg_tanh_da)(__VA_ARGS__)
#define fg_arcsinh(...)         FG_TYPED(fg_arcsinh)(__VA_ARGS__)
#define fg_arcsinh_da(...)      FG_TYPED(fg_arcsinh_da)(__VA_ARGS__)
#define fg_arccosh(...)         FG_TYPED(fg_arccosh)(__VA_ARGS__)
#define fg_arccosh_da(...)      FG_TYPED(fg_arccosh_da)(__VA_ARGS__)
#define fg_arctanh(...)         FG_TYPED(fg_arctanh)(__VA_ARGS__)
#define fg_arctanh_da(...)      FG_TYPED(fg_arctanh_da)(__VA_ARGS__)
#define fg_sigmoid(...)         FG_TYPED(fg_sigmoid)(__VA_ARGS__)
#define fg_sigmoid_da(...)      FG_TYPED(fg_sigmoid_da)(__VA_ARGS__)
#define fg_softplus(...)        FG_TYPED(fg_softplus)(__VA_ARGS__)
#define fg_erf(...)             FG_TYPED(fg_erf)(__VA_ARGS__)
#define fg_erf_da(...)          FG_TYPED(fg_erf_da)(__VA_ARGS__)

#endif
