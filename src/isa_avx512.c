/* The kernels for AVX-512 F, DQ, BW, VL with FMA, in full width. The headers stand before the
 * pragma: it is not meant for them. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <fenv.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <immintrin.h>
#include "alloc.h"
#include "fg.h"
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#define FG_VECTOR
#define FG_ISA avx512
#include "fmath.h"
#include "loops.inc"
#endif
