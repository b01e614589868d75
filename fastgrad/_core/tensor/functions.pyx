"""The functions behind fastgrad.numpy that are not element-wise."""

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
