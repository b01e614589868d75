/* Fused operators for what every machine has (x86-64: SSE2). */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include "vm.h"
#define FG_VECTOR
#define FG_ISA base
#include "fmath.h"
#include "vm_block.inc"
