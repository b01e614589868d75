"""The functions behind fastgrad.numpy: one builtin for every element-wise row of the table, and
the shaped operators. All of them give plain NumPy results where no operand is a Tensor.
"""

from collections import namedtuple

# Filled by functions_setup, from the table alone.
functions = {}                  # name of a row -> builtin
UFUNCS = {}                     # NumPy ufunc -> builtin
cdef list numpy_functions = [None] * FG_OPS     # row -> NumPy's function, or None

Operator = namedtuple("Operator", "name kind arity smooth analytic steps mask reads low high value "
                                  "partials python numpy doc inner linear bilinear reduces listed")
Operator.__doc__ = "One row of the operator table."


class NotComputed(TypeError):
    """Raised where something is asked for a value, or a shape, that it does not have yet."""


cdef class Deferred:
    """What is not computed yet: the base class of expressions (fastgrad.variable). A function that
    meets one leaves the call to its `defer(function, args, kwargs)`."""


@cython.final
@cython.binding(False)
cdef class Row:
    """What a builtin of `functions` is bound to: its row of the table."""
    cdef int op
    cdef readonly str name

    def __getattr__(self, name):
        # Builtins pickle as attributes of what they are bound to.
        if name == self.name:
            return functions[name]
        raise AttributeError(name)

    def __reduce__(self):
        return _row, (self.name,)

    def __repr__(self):
        return f"<row {self.name!r} of fastgrad's operator table>"


def _row(name):
    """Unpickle a Row."""
    return functions[name].__self__


cdef PyObject *function_call(PyObject *self, PyObject *const *args, Py_ssize_t n,
                             PyObject *names) except NULL:
    """Any element-wise function of the table."""
    cdef int op = (<Row>self).op
    cdef object result
    cdef Tensor t
    cdef FgNode *a
    if names == NULL:
        if n == 1 and fg_op_info[op].arity == 1 and fast_scalar(<object>args[0]) \
                and get_recording() and not fg_op_info[op].props & FG_STEPS:
            t = <Tensor>args[0]
            a = t.node
            result = push_scalar(op, FG_FLOAT64, a.flags & FG_PYTHON, t.id, a, FG_NO_ID, NULL, 0,
                                 fg_value(op, FG_FLOAT64, a.re, 0, 0))
            if op == FG_square:
                result = raised(result, t, 2)
        else:
            result = strong(elementwise(op, args, n))
    else:
        result = elementwise_options(op, args, n, <object>names)
    Py_INCREF(result)
    return <PyObject *>result


cdef inline object strong(object result):
    """What a function made of Python floats is NumPy's float64 and gives way no more, as
    `np.sin(2.0)` does not; `2.0 * 3.0` does."""
    if type(result) is Tensor:
        (<Tensor>result).node.flags &= ~FG_YIELDS
    return result


cdef object elementwise(int op, PyObject *const *args, Py_ssize_t n):
    """The operator applied to n arguments."""
    cdef Operand x[3]
    cdef const FgOpInfo *info = &fg_op_info[op]
    cdef int i
    cdef bint tensors = False
    cdef object a, b
    if n != info.arity:
        if n == info.arity + 1 and info.arity < 3 and <object>args[n - 1] is None:
            n -= 1              # out=None by position
        else:
            raise TypeError(f"{info.name.decode()}() takes {info.arity} positional "
                            f"argument{'s' if info.arity > 1 else ''} ({n} given)")
    for i in range(info.arity):
        tensors = tensors or isinstance(<object>args[i], Tensor)
        if isinstance(<object>args[i], Deferred):
            return (<object>args[i]).defer(functions[info.name.decode()],
                                           tuple([<object>args[k] for k in range(info.arity)]), {})
    if not tensors:
        return plain_result(op, [<object>args[i] for i in range(info.arity)])
    if info.arity == 1:
        result = unary(op, <object>args[0])
        return raised(result, <object>args[0], 2) if op == FG_square else result
    if info.arity == 2:
        a, b = listed(<object>args[0]), listed(<object>args[1])
        result = binary(op, a, b)
        if op == FG_multiply or op == FG_power:
            result = raised_by(op, result, a, b)
        if result is NotImplemented:
            raise TypeError(f"{info.name.decode()}: cannot compute with an object of type "
                            f"{type(b if isinstance(a, Tensor) else a).__name__}")
        return result
    operands = [operand_settled(<object>args[i]) for i in range(3)]
    operand_clear(&x[1])
    operand_clear(&x[2])
    try:
        for i in range(3):
            operand_of(operands[i], &x[i], False)
    except BaseException:
        operands_drop(x, 3)
        raise
    return push(op, 3, x)


cdef object elementwise_options(int op, PyObject *const *args, Py_ssize_t n, tuple names):
    """The same with keyword arguments."""
    cdef const FgOpInfo *info = &fg_op_info[op]
    cdef int i
    cdef list values = [<object>args[i] for i in range(n)]
    cdef dict kwargs = {name: <object>args[n + i] for i, name in enumerate(names)}
    if not any([isinstance(x, Tensor) for x in values]):
        if numpy_functions[op] is not None:
            return numpy_functions[op](*values, **kwargs)
    if kwargs.get("out") is not None and isinstance(numpy_functions[op], np.ufunc):
        return array_ufunc(numpy_functions[op], "__call__", tuple(values), kwargs)
    kept = ufunc_options(info.name.decode(), kwargs)
    if typed(kept) and isinstance(numpy_functions[op], np.ufunc):
        return array_ufunc(numpy_functions[op], "__call__", tuple(values), kept)
    return functions[info.name.decode()](*values)


cdef inline object known(object a):
    """While a program is recorded, the Tensor that stands for a known array; else `a` itself."""
    if mode().recorder == NULL or not PyArray_Check(a):
        return a
    t = (<Recorder>mode().recorder).array_operand(a)
    return a if t is None else t


cdef object plain_result(int op, list args):
    """The operator on plain NumPy operands: NumPy's own function where there is one."""
    cdef Operand x[3]
    cdef int i
    cdef int count = <int>len(args)
    cdef object result
    for x_ in args:
        if isinstance(x_, (list, tuple)) and holds_tensor(x_, 0):
            raise TypeError(f"{fg_op_info[op].name.decode()}: a list that holds Tensors is not an "
                            "array; write fastgrad.numpy.array([...])")
    if mode().recorder != NULL:
        args = [known(x_) for x_ in args]
    if mode().recorder == NULL or not any([isinstance(x_, Tensor) for x_ in args]):
        if op == FG_where:
            return np.where(args[2], args[0], args[1])
        if numpy_functions[op] is not None:
            return numpy_functions[op](*args)
    for i in range(3):
        operand_clear(&x[i])
    try:
        for i in range(count):
            operand_of(args[i], &x[i], False)
    except BaseException:
        operands_drop(x, 3)
        raise
    result = push(op, count, x)
    if mode().recorder != NULL and is_traced(result):
        return result
    if (<Tensor>result).node.rank == 0:
        if (<Tensor>result).node.flags & FG_WEAK:
            return (<Tensor>result).node.re
        return result.dtype.type((<Tensor>result).node.re)
    return np.array(tensor_ndarray(result))


cdef object numpy_result(int op, Operand *x, int count):
    """Integers and booleans: computed by NumPy, not differentiated."""
    cdef list args = []
    cdef int i
    for i in range(count):
        args.append(operand_ndarray(&x[i]) if x[i].source == NULL else <object>x[i].source)
    if op == FG_where:
        return derived("numpy.where", np.where, (args[2], args[0], args[1]), {})
    with np.errstate(all="ignore"):
        return derived("numpy." + numpy_functions[op].__name__, numpy_functions[op], tuple(args), {})


# ---- the table ------------------------------------------------------------------------------

cdef int functions_setup() except -1:
    cdef int op
    cdef PyMethodDef *method
    cdef Row row
    cdef const FgOpInfo *info
    cdef str signature
    for op in range(FG_COMPARE_END):
        info = &fg_op_info[op]
        name = info.name.decode()
        row = Row.__new__(Row)
        row.op = op
        row.name = name
        arguments = ", ".join("xyz"[:info.arity])
        signature = (f"{name}({arguments}, /)\n--\n\n" if info.arity == 3 else
                     f"{name}({arguments}, /, out=None, *, where=True, casting='same_kind', "
                     f"order='K', dtype=None, subok=True)\n--\n\n")
        doc = signature + info.doc.decode()
        method = <PyMethodDef *>fg_malloc(sizeof(PyMethodDef))
        if method == NULL:
            raise MemoryError()
        # Kept for the life of the process, like the functions themselves.
        KEPT.append(info.name)
        text = doc.encode()
        KEPT.append(text)
        method.ml_name = info.name
        method.ml_meth = <void *>function_call
        method.ml_flags = METH_FASTCALL | METH_KEYWORDS
        method.ml_doc = <const char *><bytes>text
        functions[name] = PyCFunction_NewEx(method, row, "fastgrad.numpy")
        for alias in info.numpy.decode().split(","):
            ufunc = getattr(np, alias, None) if alias else None
            if isinstance(ufunc, np.ufunc):
                UFUNCS[ufunc] = functions[name]
                if numpy_functions[op] is None:
                    numpy_functions[op] = ufunc
    numpy_functions[FG_where] = np.where
    UFUNCS[np.matmul] = matmul
    return 0


KEPT = []


def operators():
    """The operator table: a tuple of `Operator` rows in the order of the table."""
    cdef int op
    cdef const FgOpInfo *info
    cdef list rows = []
    kinds = ("unary", "binary", "ternary", "compare", "shaped")
    for op in range(FG_OPS):
        info = &fg_op_info[op]
        if info.kind == FG_SHAPED and op < FG_COMPARE_END:
            continue
        rows.append(Operator(
            info.name.decode(), kinds[<int>info.kind], info.arity, bool(info.props & FG_SMOOTH),
            bool(info.props & FG_ANALYTIC), bool(info.props & FG_STEPS),
            bool(info.props & FG_MASK),
            tuple(["".join([c for c, bit in zip("ABCY", (FG_A, FG_B, FG_C, FG_Y))
                            if info.reads[k] & bit]) for k in range(info.arity)]),
            info.low, info.high, (info.value or b"").decode(),
            tuple([(info.partial[k] or b"").decode() for k in range(info.arity)
                   if info.kind != FG_COMPARE]),
            (info.python or b"").decode(),
            tuple([s for s in (info.numpy or b"").decode().split(",") if s]),
            info.doc.decode(), bool(info.props & FG_INNER), bool(info.props & FG_LINEAR),
            bool(info.props & FG_BILINEAR), bool(info.props & FG_REDUCES),
            bool(info.props & (FG_LISTED | FG_INDEXED))))
    return tuple(rows)


def operator_names():
    """The names of all operators, by number; None where a number is not in use."""
    return tuple([fg_op_info[op].name.decode() if fg_op_info[op].name != NULL else None
                  for op in range(FG_OPS)])


def dtype_of_number(int number):
    """The dtype that nodes call by this number."""
    if not 0 <= number < len(dtypes):
        raise ValueError(f"dtype_of_number: there is no dtype {number}; they go up to "
                         f"{len(dtypes) - 1}")
    return dtypes[number]


def isa():
    """The instruction set in use: "base", "avx2" or "avx512"."""
    return fg_kernels.isa.decode()


def available_isas():
    """The instruction sets that this machine and this build can run."""
    return tuple([name for name in ("base", "avx2", "avx512")
                  if fg_isa_available(name.encode())])


def use_isa(name):
    """Use another instruction set from now on (for tests); None: the best there is."""
    cdef bytes encoded
    cdef const char *wanted = NULL
    if name is not None:
        encoded = name.encode()
        wanted = encoded
    if fg_dispatch(wanted) != 0:
        raise ValueError(f"instruction set {name!r} is not available; there are "
                         f"{', '.join(available_isas())}")


def vector_math():
    """Where vectorised transcendental functions come from: "libmvec" or "own"."""
    return fg_vector_math().decode()


cdef void *array_pointer(object a):
    return NULL if a is None else PyArray_DATA(<ndarray>a)


cdef int row_number(name) except -1:
    if type(name) is not str or name not in functions:
        raise KeyError(f"there is no element-wise operator {name!r}")
    return (<Row>functions[name].__self__).op


cdef int kernel_arrays(str who, int op, int needed, object first, object others,
                       object mask) except -1:
    """Kernels look at memory alone: all of one float dtype and size (a mask of any dtype: its
    bytes are read), contiguous, as C sees it. `needed` of the others must be there."""
    cdef bint masked = op < FG_ELEMENTWISE_END and fg_op_info[op].props & FG_MASK
    if (type(first) is not np_ndarray or not is_float(PyArray_TYPE(first))
            or not cnp.PyArray_ISCARRAY_RO(first)):
        raise TypeError(f"{who}: give contiguous arrays of float64 or float32")
    for k, x in enumerate(others):
        if x is None and k >= needed:
            continue
        wanted_ = getattr(x, "dtype", None) if masked and x is mask else first.dtype
        if type(x) is not np_ndarray or x.dtype != wanted_ or x.size != first.size or \
                not cnp.PyArray_ISCARRAY_RO(x):
            raise TypeError(f"{who}: give contiguous arrays, all of dtype {first.dtype} and of "
                            f"{first.size} entries")
    return 0


def kernel_value(name, a, b=None, c=None):
    """Run a value kernel on contiguous arrays of one dtype (for tests)."""
    cdef int op = row_number(name)
    kernel_arrays("kernel_value", op, fg_op_info[op].arity - 1, a, (b, c), c)
    y = np.empty_like(a, dtype=np.bool_ if op >= FG_ELEMENTWISE_END else a.dtype)
    cdef const FgLoops *loops = loops_of(PyArray_TYPE(a))
    if op >= FG_ELEMENTWISE_END:
        loops.compare[op - FG_ELEMENTWISE_END](array_pointer(a), array_pointer(b),
                                               <uint8_t *>array_pointer(y), a.size)
    else:
        loops.value[op](array_pointer(a), array_pointer(b), array_pointer(c), array_pointer(y), a.size)
    return y


def kernel_partial(name, int which, g, a=None, b=None, c=None, y=None, double tie=0.5):
    """Run a partial kernel on contiguous arrays of one dtype (for tests); None where the partial
    is zero everywhere. What it does not read may be None."""
    cdef int op = row_number(name)
    cdef int reads
    cdef FgPartialLoop loop
    if op >= FG_ELEMENTWISE_END or not 0 <= which < fg_op_info[op].arity:
        raise ValueError(f"kernel_partial: {name} has no partial {which}")
    kernel_arrays("kernel_partial", op, 0, g, (a, b, c, y), c)
    reads = fg_op_info[op].reads[which]
    for x, bit in ((a, FG_A), (b, FG_B), (c, FG_C), (y, FG_Y)):
        if x is None and reads & <int>bit:
            raise TypeError(f"kernel_partial: partial {which} of {name} reads what is None")
    loop = loops_of(PyArray_TYPE(g)).partial[op][which]
    if loop == NULL:
        return None
    out = np.empty_like(g)
    loop(array_pointer(g), array_pointer(a), array_pointer(b), array_pointer(c), array_pointer(y),
         array_pointer(out), g.size, tie)
    return out


def scalar_value(name, str dtype, double a, double b=0, double c=0):
    """Run the scalar switch for a value (for tests)."""
    return fg_value(row_number(name), scalar_dtype(dtype), a, b, c)


cdef int scalar_dtype(str dtype) except -1:
    if dtype not in ("float64", "float32"):
        raise TypeError(f"the dtype is {dtype!r}; it is 'float64' or 'float32'")
    return np.dtype(dtype).num


def scalar_partial(name, int which, str dtype, double a, double b=0, double c=0, double y=0,
                   double tie=0.5):
    """Run the scalar switch for a partial (for tests)."""
    cdef int op = row_number(name)
    if op >= FG_ELEMENTWISE_END or not 0 <= which < fg_op_info[op].arity:
        raise ValueError(f"scalar_partial: {name} has no partial {which}")
    return fg_partial(op, which, scalar_dtype(dtype), a, b, c, y, tie)
