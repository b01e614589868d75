"""Linear algebra that keeps what its derivative needs, as generalised ufuncs: NumPy walks over batch
axes, casts and broadcasts. What they compute stands in src/linalg.inc."""

cdef extern from "numpy/ufuncobject.h":
    object PyUFunc_FromFuncAndDataAndSignature(
        cnp.PyUFuncGenericFunction *, void *const *, const char *, int, int, int, int, const char *,
        const char *, int, const char *)

# NumPy holds on to what its ufuncs are made of.
cdef struct MatrixLoop:
    cnp.PyUFuncGenericFunction loop
    void *which             # what the loop is told: NULL or not

cdef MatrixLoop matrix_loops[7]
cdef int matrix_loop_count = 0
cdef char float64_types[8]


# (Made once, with the loops of the instruction set that serves then.)
cdef object matrix_ufunc(const char *name, FgMatrixLoop *loop, bint which, const char *signature,
                         int operands, int results=1):
    global matrix_loop_count
    cdef MatrixLoop *made = &matrix_loops[matrix_loop_count]
    matrix_loop_count += 1
    made.loop = <cnp.PyUFuncGenericFunction>loop
    made.which = <void *>made if which else NULL
    return PyUFunc_FromFuncAndDataAndSignature(&made.loop, &made.which, float64_types, 1, operands,
                                               results, -1, name, b"", 0, signature)


matrices = {}           # by name


def pooled(*lengths):
    """A float64 array in memory of the pool, not filled. (NumPy gets large arrays as fresh pages, which
    are cleared when they are touched first: for 200 rows that takes as long as the arithmetic.)"""
    cdef int64_t dims[64]
    cdef int k, rank = <int>len(lengths)
    cdef FgShape *shape
    cdef FgValue *v = NULL
    if rank > 64:
        raise ValueError("an array has at most 64 axes")
    for k in range(rank):
        dims[k] = lengths[k]
        if dims[k] < 0:
            raise ValueError("lengths of axes are not negative")
    shape = shape_new(rank, dims)
    try:
        v = pool_take(shape.size * 8)
        return value_ndarray(shape, v, FG_FLOAT64, True)
    finally:
        shape_release(shape)
        if v != NULL:
            value_release(v)


cdef int linalg_setup() except -1:
    global fg_linalg_product
    cnp.import_ufunc()
    fg_linalg_product = matmul_info[1]
    memset(float64_types, cnp.NPY_DOUBLE, sizeof(float64_types))
    matrices["solve"] = matrix_ufunc(b"solve", fg_kernels.solve, False,
                                     b"(n,n),(n,k)->(n,k),(n,n),(n)", 2, 3)
    for name, upper in ((b"solve_again", False), (b"solve_transposed", True)):
        matrices[name.decode()] = matrix_ufunc(name, fg_kernels.solve_again, upper,
                                               b"(n,n),(n,n),(n),(n,k)->(n,k)", 4)
    for name, upper in ((b"lower", False), (b"upper", True)):
        matrices[name.decode()] = matrix_ufunc(name, fg_kernels.triangular, upper,
                                               b"(n,n),(n,k)->(n,k)", 2)
    for name, upper in ((b"cholesky_lower", False), (b"cholesky_upper", True)):
        matrices[name.decode()] = matrix_ufunc(name, fg_kernels.cholesky, upper, b"(n,n)->(n,n)", 1)
    return 0
