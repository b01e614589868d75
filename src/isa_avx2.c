/* The kernels for AVX2 with FMA. The headers stand before the pragma: it is not meant for them. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <fenv.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <immintrin.h>
#include "alloc.h"
#include "fg.h"
#pragma GCC target("avx2,fma")
#define FG_VECTOR
#define FG_ISA avx2
#include "fmath.h"
#include "loops.inc"
#endif
