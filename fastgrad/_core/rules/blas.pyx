"""NumPy's own inner loop of matmul, called without the Python call around it.

NumPy hands it out through `ufunc._resolve_dtypes_and_context` and `_get_strided_loop` and calls
that unstable, so it is resolved once, tried against the public function, and left alone
(`matmul_route` says so) where anything is not as expected: then the public function serves.
"""

cdef const FgCallInfo *matmul_info[2]       # float32, float64
cdef list matmul_capsules = []      # what keeps them alive
matmul_route = "numpy.matmul"


cdef void blas_setup() noexcept:
    global matmul_route
    try:
        for i, name in enumerate(("float32", "float64")):
            dtype = np.dtype(name)
            _, capsule = np.matmul._resolve_dtypes_and_context((dtype, dtype, dtype))
            np.matmul._get_strided_loop(capsule)
            matmul_capsules.append(capsule)
            matmul_info[i] = <const FgCallInfo *>PyCapsule_GetPointer(capsule, "numpy_1.24_ufunc_call_info")
            if matmul_info[i].requires_pyapi or not matmul_agrees(dtype):
                raise RuntimeError
        matmul_route = "numpy's inner loop"
    except Exception:
        matmul_info[0] = matmul_info[1] = NULL


cdef bint matmul_agrees(dtype) except -1:
    """Try the loop against the public function, transposed operands included."""
    cdef Operand x[2]
    cdef FgShape *shape
    cdef FgValue *v
    cdef bint good = True
    for m, k, n in ((2, 3, 4), (1, 1, 1), (5, 2, 1), (33, 17, 9)):
        a = (np.arange(m * k, dtype=dtype).reshape(k, m) % 7 - 3).T
        b = np.arange(k * n, dtype=dtype).reshape(k, n) % 5 - 2
        operand_clear(&x[0])
        operand_clear(&x[1])
        operand_array(a, &x[0])
        operand_array(b, &x[1])
        shape = matmul_shape(x[0].shape, x[1].shape)
        v = pool_take(shape.size * dtype.itemsize)
        good = good and matmul_direct(x[0].shape, x[0].value, x[1].shape, x[1].value, shape, v,
                                      x[0].dtype)
        good = good and np.array_equal(value_ndarray(shape, v, x[0].dtype, False), a @ b)
        value_release(v)
        shape_release(shape)
        operands_drop(x, 2)
    return good


cdef bint matmul_direct(FgShape *a, FgValue *va, FgShape *b, FgValue *vb, FgShape *shape,
                        FgValue *out, int dtype) noexcept:
    """out = a @ b without a batch; False where this way is not open."""
    cdef int64_t sa[64]
    cdef int64_t sb[64]
    cdef int64_t item = item_size(dtype)
    if a.rank > 2 or b.rank > 2:
        return False
    strides_of(a, va, item, sa)
    strides_of(b, vb, item, sb)
    return matmul_raw(dtype, a.dims[0] if a.rank == 2 else 1, a.dims[a.rank - 1],
                      b.dims[1] if b.rank == 2 else 1, va.data, sa[0] if a.rank == 2 else 0,
                      sa[a.rank - 1], vb.data, sb[0], sb[1] if b.rank == 2 else 0, out.data)


cdef bint matmul_raw(int dtype, int64_t m, int64_t k, int64_t n, char *a, int64_t a_m, int64_t a_k,
                     char *b, int64_t b_k, int64_t b_n, char *out) noexcept:
    """(m, k) @ (k, n) to contiguous memory, operands with any strides; False where NumPy's loop
    is not to be had."""
    cdef const FgCallInfo *info = matmul_info[1 if dtype == FG_FLOAT64 else 0]
    cdef int64_t dims[4]
    cdef int64_t steps[9]
    cdef int64_t item = item_size(dtype)
    cdef char *data[3]
    if info == NULL:
        return False
    if m * k * n == 0:
        memset(out, 0, m * n * item)
        return True
    dims[0] = 1
    dims[1] = m
    dims[2] = k
    dims[3] = n
    steps[0] = steps[1] = steps[2] = 0
    steps[3] = a_m
    steps[4] = a_k
    steps[5] = b_k
    steps[6] = b_n
    steps[7] = n * item
    steps[8] = item
    data[0] = a
    data[1] = b
    data[2] = out
    if m * k * n >= UNLOCK:
        with nogil:
            info.loop(info.context, data, dims, steps, info.auxdata)
    else:
        info.loop(info.context, data, dims, steps, info.auxdata)
    return True


cdef struct CoreTables:
    const FgKernels **kernels
    const FgOpInfo *ops
    void *matmul[2]             # FgCallInfo of float32 and float64, or NULL
    void *counts                # of allocations, in checked builds

cdef CoreTables core_tables


def tables():
    """What the extension that runs programs shares with this one: kernels, table, matrix product."""
    core_tables.kernels = <const FgKernels **>&fg_kernels
    core_tables.ops = fg_op_info
    core_tables.matmul[0] = <void *>matmul_info[0]
    core_tables.matmul[1] = <void *>matmul_info[1]
    core_tables.counts = fg_counts()
    return PyCapsule_New(<void *>&core_tables, "fastgrad.tables", NULL)
