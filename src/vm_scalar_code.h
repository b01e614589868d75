/* The instructions of strings of scalar operations: what plan/scalar_build.c writes and
 * run/scalar_run.c runs. */
#ifndef FG_VM_SCALAR_CODE_H
#define FG_VM_SCALAR_CODE_H

#include "vm_scalar.h"

enum {
#define TRIPLE(inner, outer, from, last, to) DO_##inner##_##outer##_##from##last##to,
#define TOTAL(inner, from, last, to) DO_total_##inner##_##from##last##to,
#define PAIR(name, from, to) DO_##name##_##from##to,
#define SINGLE(name, from, to) DO_##name##_##from##to,
#define CHOOSE(from, to) DO_choose_##from##to,
#define CALL(arity, from, to) DO_call##arity##_##from##to,
#define BOTH(name, second, dtype, from, to) DO_both_##name##_##dtype##_##from##to,
#define TRIPLE_RUN(inner, outer) DO_run_##inner##_##outer,
#define PAIR_RUN(name) DO_run_##name,
#define SINGLE_RUN(name) DO_run_##name,
#define CHOOSE_RUN() DO_run_choose,
#define CALL_RUN(arity) DO_run_call##arity,
#define BOTH_RUN(name, second, dtype) DO_run_both_##name##_##dtype,
#define END() DO_end
#include "vm_scalar.inc"
#undef TRIPLE
#undef TOTAL
#undef PAIR
#undef SINGLE
#undef CHOOSE
#undef CALL
#undef BOTH
#undef TRIPLE_RUN
#undef PAIR_RUN
#undef SINGLE_RUN
#undef CHOOSE_RUN
#undef CALL_RUN
#undef BOTH_RUN
#undef END
};

struct FgScalarCode {
    int64_t instructions, words, written;
    uint32_t code[];
};

#endif
