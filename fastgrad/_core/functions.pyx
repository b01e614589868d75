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
        result = binary(op, <object>args[0], <object>args[1])
        if op == FG_multiply or op == FG_power:
            result = raised_by(op, result, <object>args[0], <object>args[1])
        if result is NotImplemented:
            a, b = <object>args[0], <object>args[1]
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


# ---- shaped functions -----------------------------------------------------------------------

cdef int operand_tensor_ready(Tensor t, Operand *x) except -1:
    operand_clear(x)
    operand_tensor(t, x)
    if x.shape != NULL and x.value == NULL:
        x.value = value_of(x.node, x.id)
    return 0


cdef int dims_of(object shape, int64_t *dims, str name) except -1:
    """The lengths that a tuple or list gives; returns how many."""
    cdef tuple lengths = tuple(shape)       # one's __index__ might change a list
    cdef int i
    if len(lengths) > 64:
        raise ValueError(f"{name}: at most 64 dimensions are supported")
    for i in range(<int>len(lengths)):
        dims[i] = PyNumber_AsSsize_t(lengths[i], <PyObject *>ValueError)
    return <int>len(lengths)


cdef Tensor reshape_tensor(Tensor t, object shape):
    cdef Operand x
    cdef int64_t dims[64]
    cdef int rank
    if not isinstance(shape, (tuple, list)):
        shape = (shape,)
    rank = dims_of(shape, dims, "reshape")
    operand_tensor_ready(t, &x)
    return push_reshape(&x, rank, dims)


def reshape(a, shape):
    """The entries of `a` in another shape, one length of which may be -1."""
    cdef Tensor y, t
    a = known(a)
    if not isinstance(a, Tensor):
        return np.reshape(a, shape)
    t = <Tensor>a
    y = reshape_tensor(t, shape)
    if y.node.rank == 0 if t.node.rank else is_point(t):
        view_of(y, t, ("reshape", y.shape))
    elif t.node.rank and shares(t, y):
        view_of(y, t, ("reshape", y.shape))
    return y


def ravel(a):
    """The entries of `a` along one axis: a view of memory without gaps, else a copy."""
    cdef Operand x
    cdef int64_t size
    cdef Tensor y
    a = known(a)
    if not isinstance(a, Tensor):
        return np.ravel(a)
    operand_tensor_ready(<Tensor>a, &x)
    size = x.shape.size if x.shape != NULL else 1
    y = push_reshape(&x, 1, &size, True)
    if x.shape != NULL and shares(<Tensor>a, y):
        view_of(y, <Tensor>a, ("reshape", y.shape))
    return y


def runs_on(Tensor t):
    """Whether the entries lie in memory in their order, without gaps."""
    t.fresh()
    return t.node.rank == 0 or t.node.shape.size == 0 or value_of(t.node, t.id).contiguous


def own(Tensor a):
    """`a` itself, or a copy where it is a view: for what may be written to without consequences."""
    return a if a.parent is None else a.clone()


def picked_view(a, places, bint readonly):
    """The entries of `a` at places that are told by their numbers, as a view of them."""
    cdef Tensor t, y
    a = known(a)
    if not isinstance(a, Tensor):
        raise TypeError("picked_view: only Tensors have views of that kind")
    t = <Tensor>a
    y = reshape_tensor(t, (t.size,))[vouch(places)]
    if y.node.rank and y.node.shape.size:
        view_of(y, t, ("item", tuple([vouch(i) for i in np.unravel_index(places, t.shape)]),
                       readonly))
    return y


cdef bint shares(Tensor t, Tensor y) noexcept:
    """Whether y's memory is t's, so that NumPy would call it a view."""
    cdef FgValue *a = t.node.value
    cdef FgValue *b = y.node.value
    if a == NULL or b == NULL:
        return False
    return (a.base if a.base != NULL else a) == (b.base if b.base != NULL else b)


cdef Tensor transpose_tensor(Tensor t, object axes):
    cdef Operand x
    cdef int order[64]
    cdef int i, rank
    cdef uint64_t seen = 0
    operand_tensor_ready(t, &x)
    if x.shape == NULL:
        return push_reshape(&x, 0, NULL)
    rank = x.shape.rank
    if axes is None:
        for i in range(rank):
            order[i] = rank - 1 - i
    else:
        if len(axes) != rank:
            raise ValueError(f"transpose: axes {tuple(axes)} don't match an array of shape "
                             f"{shape_text(x.shape)}")
        for i in range(rank):
            order[i] = axis_of(axes[i], rank, "transpose")
            if seen >> order[i] & 1:
                raise ValueError(f"transpose: repeated axis in {tuple(axes)}")
            seen |= <uint64_t>1 << order[i]
    return push_transpose(&x, order)


def transpose(a, axes=None):
    """The axes of `a` in another order, by default reversed."""
    cdef Tensor y
    a = known(a)
    if not isinstance(a, Tensor):
        return np.transpose(a, axes)
    y = transpose_tensor(<Tensor>a, axes)
    if y.node.rank or is_point(<Tensor>a):
        if axes is None:
            axes = range(y.node.rank - 1, -1, -1)
        view_of(y, <Tensor>a, ("transpose", tuple([int(i) % y.node.rank for i in axes])))
    return y


def broadcast_to(a, shape):
    """`a` repeated along new axes and axes of length 1."""
    cdef Operand x
    cdef int64_t dims[64]
    cdef FgShape *s
    cdef int i, j, rank
    cdef Tensor y
    a = known(a)
    if not isinstance(a, Tensor):
        return np.broadcast_to(a, shape)
    if not isinstance(shape, (tuple, list)):
        shape = (shape,)
    rank = dims_of(shape, dims, "broadcast_to")
    for i in range(rank):
        if dims[i] < 0:
            raise ValueError(f"broadcast_to: shape {tuple(shape)} has a negative length")
    operand_tensor_ready(<Tensor>a, &x)
    for i in range(x.shape.rank if x.shape != NULL else 0):
        j = rank - x.shape.rank + i
        if j < 0 or (x.shape.dims[i] != 1 and x.shape.dims[i] != dims[j]):
            raise ValueError("broadcast_to: operands could not be broadcast together with shape "
                             f"{shape_text(x.shape)} and requested shape {tuple(shape)}")
    if rank == 0:
        return push_reshape(&x, 0, NULL)
    s = shape_new(rank, dims)
    y = push_broadcast(&x, s)
    view_of(y, <Tensor>a, ("broadcast", tuple(shape)))
    return y


cdef Tensor flip_tensor(Tensor t, object axis):
    cdef Operand x
    cdef uint64_t mask
    operand_tensor_ready(t, &x)
    axes_of(axis, x.shape.rank if x.shape != NULL else 0, &mask, "flip")
    if x.shape == NULL:
        return push_reshape(&x, 0, NULL)
    return push_flip(&x, mask)


def flip(a, axis=None):
    """`a` with the order of the entries reversed along the axes (by default all)."""
    cdef Tensor y
    a = known(a)
    if not isinstance(a, Tensor):
        return np.flip(a, axis)
    y = flip_tensor(<Tensor>a, axis)
    if y.node.rank:
        view_of(y, <Tensor>a, ("flip", (axis,) if type(axis) is int else axis))
    return y


def concatenate(arrays, axis=0):
    """Arrays joined along an axis; None flattens them first."""
    arrays = [known(a) for a in arrays]
    if not any([isinstance(a, Tensor) for a in arrays]):
        return np.concatenate(arrays, axis)
    return push_concatenate(arrays, axis, False)


def pack(scalars):
    """A vector of scalars, of which some are Tensors."""
    return push_concatenate(scalars, 0, True)


cdef object push_ravel(object a):
    return reshape(a, (-1,)) if isinstance(a, Tensor) else np.ravel(a)


def getitem(a, index):
    """a[index]."""
    return a[index]


def scatter(values, index, shape):
    """Zeros of the given shape with the values added at the indices (repeated ones add up)."""
    cdef Operand x
    cdef Operand y
    cdef object plain_index = index_plain(index)
    cdef Tensor t
    values = values if isinstance(values, Tensor) else tensor(values)
    t = <Tensor>values
    out = np.zeros(shape, dtype=t.dtype)
    places = np.arange(out.size).reshape(out.shape)[plain_index]
    flat = np.broadcast_to(places, places.shape)
    spread = broadcast_to(t, flat.shape) if t.shape != flat.shape else t
    if out.ndim == 0:
        return sum(spread)
    np.add.at(out, plain_index, tensor_value(<Tensor>spread))
    operand_clear(&y)
    operand_tensor_ready(spread, &x)
    if is_live(plain_index):
        x.needs = True
    if not x.needs:
        return tensor_constant(out)
    operand_array(out, &y)
    try:
        return push_kept(FG_scatter, &x, shape_ref(y.shape), value_ref(y.value), 0, NULL,
                         plain_index)
    finally:
        operand_drop(&y)


def place(part, index, shape):
    """Zeros of the given shape with `part` where the basic index says."""
    cdef Operand x
    cdef Index parsed
    cdef int64_t dims[64]
    cdef FgShape *whole
    cdef uint32_t attr
    cdef int i, rank
    cdef Tensor t = part if isinstance(part, Tensor) else tensor(part)
    rank = dims_of(shape, dims, "place")
    for i in range(rank):
        if dims[i] < 0:
            raise ValueError(f"place: the shape is {shape!r}")
    whole = shape_new(rank, dims)
    try:
        if index_parse(whole, index, &parsed) or parsed.rank == 0:
            raise IndexError("place: the index must be basic and leave an axis")
        t = reshape_plain(t, tuple([parsed.dims[i] for i in range(parsed.rank)]))
        operand_tensor_ready(t, &x)
        attr = attr_new(FG_INDEX_FIELDS * parsed.count, parsed.items, None)
        try:
            return push_place(&x, attr, whole)
        finally:
            attr_release(attr)
    finally:
        shape_release(whole)


def assigned(a, index, value):
    """`a` with the entries at the index replaced, as another Tensor."""
    cdef Operand x
    cdef Tensor t = a if isinstance(a, Tensor) else tensor(a)
    operand_tensor_ready(t, &x)
    t = push_reshape(&x, t.node.rank, x.shape.dims if x.shape != NULL else NULL)
    push_assign(t, index, value)
    return t


def own_copy(a):
    """A Tensor of the same value, recorded, that can be changed without the other: memory is copied
    when that happens."""
    cdef Operand x
    cdef Tensor t = a if isinstance(a, Tensor) else tensor(a)
    cdef Tensor y
    operand_tensor_ready(t, &x)
    y = push_reshape(&x, t.node.rank, x.shape.dims if x.shape != NULL else NULL)
    if t.node.rank == 0:
        y.node.flags = <uint16_t>(y.node.flags & ~FG_WEAK | t.node.flags & FG_WEAK)
        if is_point(t):
            point_made(y)
    return y


def changes_of(Tensor t):
    """How often the Tensor has been changed in place."""
    t.fresh()
    return t.version


def weak(double number):
    """A number as an unrecorded Tensor that gives way in promotion, as Python's floats do."""
    return scalar_constant(number, FG_FLOAT64, FG_WEAK)


def value_unseen(Tensor t):
    """The value of a Tensor, read-only, for computing what is recorded itself: no recording takes
    it for a value that gets out."""
    return tensor_value(t)


def operand_type(Tensor t):
    """The dtype that promotion goes by; of what stands for a Python float, a float."""
    t.fresh()
    return 0.0 if t.node.flags & FG_WEAK and is_float(t.node.dtype) else t.dtype


cdef enum:
    DECIDE_UNSEEN = 0           # only this sweep sees what is recorded
    DECIDE_TAKEN = 1            # a history or a program: a decision becomes a guard
    DECIDE_NEVER = 2            # lanes and steps share what is recorded: no decision may be taken


def deciding():
    """What becomes of a decision that a function takes here by a value: 0 nothing, as nothing is
    replayed with others; 1 a guard; 2 it must not be taken."""
    cdef Recorder r
    if mode().recorder == NULL:
        return DECIDE_TAKEN if made_wanted() else DECIDE_UNSEEN
    r = <Recorder>mode().recorder
    return DECIDE_TAKEN if r.plain and r.known is not None and r.outer == NULL else DECIDE_NEVER


def decided_all(Tensor t):
    """Whether all entries of a mask are true, as a decision. The other outcome is no guard: what
    the library does then serves any values."""
    cdef bint outcome
    t.fresh()
    outcome = bool(np.all(tensor_value(t)))
    if outcome:
        decided(t, "all", True)
    return outcome


def within(Tensor t, double low, double high):
    """Whether every value lies strictly between two bounds. Nothing remembers the question."""
    cdef int64_t i
    cdef const double *wide
    cdef const float *narrow
    t.fresh()
    if t.node.rank == 0:
        return low < t.node.re < high
    values = np.ascontiguousarray(tensor_value(t))
    if t.node.dtype == FG_FLOAT64:
        wide = <const double *>PyArray_DATA(<ndarray>values)
        for i in range(values.size):
            if not low < wide[i] < high:
                return False
    else:
        narrow = <const float *>PyArray_DATA(<ndarray>values)
        for i in range(values.size):
            if not low < narrow[i] < high:
                return False
    return True


cdef object reduced(int op, object a, object axis, bint keepdims):
    cdef Operand x
    cdef uint64_t mask
    operand_tensor_ready(<Tensor>a, &x)
    axes_of(axis, x.shape.rank if x.shape != NULL else 0, &mask, fg_op_info[op].name.decode())
    if not is_float(x.dtype):
        if op == FG_logsumexp:
            return reduced(op, cast(a, np.float64), axis, keepdims)
        function = {FG_prod: np.prod, FG_max: np.max, FG_min: np.min}[op]
        return derived("numpy." + fg_op_info[op].name.decode(), function, (a,),
                       {"axis": axis, "keepdims": keepdims})
    operands_hold(&x, 1)
    try:
        return made_reduced(push_reduction(op, &x, mask, keepdims), op, &x, mask, keepdims)
    finally:
        operands_let_go(&x, 1)


cdef inline bint mask_full(Operand *x, uint64_t mask) noexcept:
    """Whether every axis is reduced: then small operands are summed with the GIL held."""
    return x.shape.rank < 64 and mask == (<uint64_t>1 << x.shape.rank) - 1


def sum(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=None):
    """The sum over the given axes, as `numpy.sum`; of a Tensor without `out`."""
    cdef Operand x
    cdef uint64_t mask
    cdef Tensor t
    a = known(a)
    if not isinstance(a, Tensor) and (isinstance(where, Tensor) or isinstance(initial, Tensor)):
        a = constant(vouch(np.asarray(a)))        # (NumPy would ask us again)
    if not isinstance(a, Tensor):
        return np.sum(a, axis=axis, dtype=dtype, out=out, keepdims=keepdims,
                      initial=np._NoValue if initial is None else initial,
                      where=True if where is None else where)
    if out is not None:
        raise TypeError("sum: out= is not supported with Tensors; bind the result to a name instead")
    whole = dtype is not None and np.dtype(dtype).kind in "biu"
    if whole or not is_float((<Tensor>a).node.dtype) and (initial is not None or where is not None):
        return derived("numpy.sum", np.sum, (a,), {
            "axis": axis, "dtype": None if dtype is None else np.dtype(dtype).name,
            "keepdims": keepdims,
            **({} if initial is None else {"initial": initial}),
            **({} if where is None else {"where": where})})
    if where is not None and where is not True:
        return sum(only("sum", a, where, 0.0), axis, dtype, None, keepdims, initial)
    if initial is not None:
        return sum(a, axis, dtype, None, keepdims) + initial
    t = <Tensor>a
    if dtype is not None and np.dtype(dtype) != t.dtype:
        t = cast(t, dtype)
    operand_clear(&x)
    operand_tensor(t, &x)
    if not is_float(x.dtype):
        return derived("numpy.sum", np.sum, (t,), {"axis": axis, "keepdims": keepdims})
    axes_of(axis, x.shape.rank if x.shape != NULL else 0, &mask, "sum")
    if x.shape == NULL or x.shape.size < UNLOCK and mask_full(&x, mask):
        return made_reduced(push_sum(&x, mask, keepdims), FG_sum, &x, mask, keepdims)
    operands_hold(&x, 1)
    try:
        return made_reduced(push_sum(&x, mask, keepdims), FG_sum, &x, mask, keepdims)
    finally:
        operands_let_go(&x, 1)


def only(str name, a, where, neutral):
    """`a` with `neutral` where a mask leaves an entry out, for reductions."""
    if where is True:
        return a
    if not isinstance(where, (Tensor, np_ndarray)):
        where = np.asarray(where)
    if where.dtype.kind != "b":
        raise TypeError(f"{name}: where= must be boolean, not {where.dtype}")
    if np.broadcast_shapes(a.shape, where.shape) != a.shape:
        raise ValueError(f"{name}: where= of the shape {where.shape} does not fit an array of the "
                         f"shape {a.shape}")
    return functions["where"](a, neutral, where)


def prod(a, axis=None, keepdims=False):
    """The product over the given axes; the derivative is exact where entries are zero."""
    a = known(a)
    if not isinstance(a, Tensor):
        return np.prod(a, axis=axis, keepdims=keepdims)
    return reduced(FG_prod, a, axis, keepdims)


def max(a, axis=None, keepdims=False):
    """The maximum over the given axes; ties share the derivative evenly."""
    a = known(a)
    if not isinstance(a, Tensor):
        return np.max(a, axis=axis, keepdims=keepdims)
    return reduced(FG_max, a, axis, keepdims)


def min(a, axis=None, keepdims=False):
    """The minimum over the given axes; ties share the derivative evenly."""
    a = known(a)
    if not isinstance(a, Tensor):
        return np.min(a, axis=axis, keepdims=keepdims)
    return reduced(FG_min, a, axis, keepdims)


def logsumexp(a, axis=None, keepdims=False):
    """log(sum(exp(a))) over the given axes, without overflow."""
    if isinstance(a, Deferred):
        return a.defer(logsumexp, (a, axis, keepdims), {})
    a = known(a)
    if isinstance(a, Tensor):
        return reduced(FG_logsumexp, a, axis, keepdims)
    a = np.asarray(a)
    if a.dtype.kind != "f":
        a = a.astype(np.float64)
    result = reduced(FG_logsumexp, tensor(a, copy=False), axis, keepdims)
    return settle(result)


def matmul(a, b):
    """The matrix product a @ b for vectors, matrices and batches."""
    if isinstance(a, Deferred) or isinstance(b, Deferred):
        return (a if isinstance(a, Deferred) else b).defer(matmul, (a, b), {})
    if is_sparse(a) or is_sparse(b):
        return sparse_product(a, b)
    a, b = known(a), known(b)
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return np.matmul(a, b)
    return push_matmul(a, b)


cdef object ASTYPE = frozenset([np.dtype(c).name for c in "?bhilqBHILQfd"])


def astype(a, str dtype):
    """An array in another dtype. Files name it: of the dtypes that a graph has."""
    if dtype not in ASTYPE:
        raise TypeError(f"astype: there is no dtype {dtype!r} in a graph")
    return np.asarray(a).astype(dtype)


def cast(a, dtype):
    """`a` in another dtype; differentiable between float32 and float64."""
    cdef Operand x
    cdef Tensor t
    dtype = np.dtype(dtype)
    if not isinstance(a, Tensor):
        return np.asarray(a).astype(dtype)
    t = <Tensor>a
    if not is_float(dtype.num) or not is_float(t.node.dtype):
        if t.node.flags & FG_NEEDS_GRAD and dtype.kind in "cfO" and get_recording():
            raise TypeError(dtype_message(dtype))
        if is_float(dtype.num) and is_traced(t):
            operand_tensor_ready(t, &x)
            return push_cast(&x, dtype.num)
        return derived("numpy.astype", astype, (t, dtype.name), {})
    if dtype.num == t.node.dtype and not t.node.flags & FG_WEAK:
        return t
    operand_tensor_ready(t, &x)
    return push_cast(&x, dtype.num)


flat_of = None          # what Tensor.flat makes, registered by fastgrad.numpy


cdef int busy() noexcept nogil:
    """Whether a function is being transformed or recorded in this thread."""
    return mode().depth != 0 or mode().recorder != NULL


# For program.pyx, which has no other way to what belongs to a thread.
BUSY = PyCapsule_New(<void *>busy, "fastgrad.busy", NULL)
