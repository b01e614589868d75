/* The instructions of strings of scalar operations: what plan/scalar_build.c writes and
 * run/scalar_run.c runs. */
#ifndef FG_VM_SCALAR_CODE_H
#define FG_VM_SCALAR_CODE_H

#include "vm_scalar.h"

enum {
#define NAME(name) DO_##name,
#include "vm_scalar.inc"
};

struct FgScalarCode {
    int64_t instructions, words, written;
    uint32_t code[];
};

#endif
