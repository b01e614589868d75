/* The kernels for what every machine has (x86-64: SSE2). */
#include <fenv.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include "alloc.h"
#include "fg.h"
#define FG_VECTOR
#define FG_ISA base
#include "fmath.h"
#include "loops.inc"
