/* The kernels for that every machine of its kind has (x86-64: SSE2). The headers stand before the pragma: it is not
 * meant for them. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include "fg.h"
#define FG_VECTOR
#define FG_ISA base
#include "fmath.h"
#include "loops.inc"
