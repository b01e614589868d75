# Included by program.pyx: strings of scalar operations (src/vm_scalar.h), for the tests.

cdef extern from "vm_scalar.h" nogil:
    ctypedef struct FgScalarOp:
        uint16_t op
        uint8_t dtype, flags
        uint32_t y, a, b, c

    ctypedef struct FgScalarCode

    FgScalarCode *fg_scalar_build(const FgScalarOp *ops, int64_t n, uint32_t registers,
                                  const uint8_t *kept, int *malformed)
    int fg_scalar_run(const FgScalarCode *code, double *registers)
    void fg_scalar_free(FgScalarCode *code)
    void fg_scalar_measure(const FgScalarCode *code, int64_t *instructions, int64_t *bytes,
                           int64_t *registers)


def scalar_run(const uint8_t[::1] operations not None, double[::1] registers not None,
               const uint8_t[::1] kept not None):
    """Run FgScalarOps, given as their bytes, once over the registers.

    Returns the numbers of instructions, of bytes and of registers written, which they have become;
    ValueError where the operations break the rules of vm_scalar.h.
    """
    cdef int64_t n = operations.shape[0] // <int64_t>sizeof(FgScalarOp)
    cdef int64_t instructions, code_bytes, written
    cdef double nothing = 0.0
    cdef int malformed
    if operations.shape[0] != n * <int64_t>sizeof(FgScalarOp):
        raise ValueError(f"operations take {sizeof(FgScalarOp)} bytes each, and here are "
                         f"{operations.shape[0]}")
    if kept.shape[0] != registers.shape[0]:
        raise ValueError(f"{registers.shape[0]} registers, and {kept.shape[0]} flags whether to "
                         "keep them: give one for each")
    cdef FgScalarCode *code = fg_scalar_build(
        <const FgScalarOp *>&operations[0] if n else NULL, n, <uint32_t>registers.shape[0],
        &kept[0] if kept.shape[0] else NULL, &malformed)
    if code is NULL and not malformed:
        raise MemoryError()
    if code is NULL:
        raise ValueError("a register is written twice, or after it was read, or does not exist, or "
                         "an operator or a dtype is none")
    with nogil:
        fg_scalar_run(code, &registers[0] if registers.shape[0] else &nothing)
    fg_scalar_measure(code, &instructions, &code_bytes, &written)
    fg_scalar_free(code)
    return instructions, code_bytes, written
