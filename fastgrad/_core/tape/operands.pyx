"""Recording: look at the operands, infer shape and dtype, compute the value, append a node.

Every element-wise operator takes one of two ways. Scalars keep their value in the node and are
computed by a switch. Arrays are computed by the kernels, at once where they are small; large
recorded results wait (FG_PENDING) until somebody looks, so that a whole run of operations goes
through the cache block by block instead of through memory operation by operation.
"""

# Results from this many elements on wait: below, a run's operands stay in cache anyway.
cdef int64_t LAZY = 4096
# Loops over this many elements run without the GIL.
cdef int64_t UNLOCK = 32768

cdef enum:
    STREAM_BYTES = 1 << 24      # array results that may wait for their tangents in forward mode


# One operand, looked at once.
cdef struct Operand:
    uint32_t id                 # its node, or FG_NO_ID
    FgNode *node
    FgShape *shape              # NULL: a scalar
    FgValue *value              # NULL: a scalar, or still pending
    double number
    uint8_t dtype
    uint8_t weak                # a Python number, or a Tensor that stands for one
    uint8_t strong              # weak, but of a function's making: takes part in promotion
    uint8_t literal             # written as a number: decides ties (maximum, minimum)
    uint8_t needs               # a derivative is to be recorded with respect to it (for a program:
                                # it is to be recorded at all)
    uint8_t owned               # shape and value are references of the operand itself
    uint8_t foreign             # the memory is the user's: to be copied before it is kept
    uint8_t held                # counted by operands_hold
    void *keeper                # a Tensor that only this operand holds, or NULL
    void *source                # the object that was looked at, borrowed, or NULL
    uint32_t looked             # a constant: the leaves it was computed from (FG_REACH), or 0


cdef inline void operand_clear(Operand *x) noexcept:
    x.id = FG_NO_ID
    x.node = NULL
    x.shape = NULL
    x.value = NULL
    x.keeper = NULL
    x.source = NULL
    x.weak = x.strong = x.literal = x.needs = x.owned = x.foreign = x.held = 0
    x.looked = 0
    x.dtype = FG_FLOAT64


cdef inline void operand_drop(Operand *x) noexcept:
    if x.owned:
        if x.value != NULL:
            value_release(x.value)
        if x.shape != NULL:
            shape_release(x.shape)
        x.owned = 0
    if x.keeper != NULL:
        Py_DECREF(<object>x.keeper)
        x.keeper = NULL


cdef void operands_drop(Operand *x, int count) noexcept:
    cdef int i
    for i in range(count):
        operand_drop(&x[i])


cdef void operands_hold(Operand *x, int count) noexcept:
    """Before a loop of ours or of NumPy's runs without the GIL: another thread may assign to the
    Tensors meanwhile."""
    cdef int i
    for i in range(count):
        if x[i].node != NULL:
            x[i].node.refs += 1
        if x[i].shape != NULL and x[i].value != NULL and not x[i].owned:
            shape_ref(x[i].shape)
            value_ref(x[i].value)
            x[i].node.uses += 1         # so that the value stays with the node
            x[i].held = 1


cdef void operands_let_go(Operand *x, int count) noexcept:
    cdef int i
    cdef FgTape *tape
    for i in range(count):
        if x[i].held:
            x[i].held = 0
            shape_release(x[i].shape)
            value_release(x[i].value)
            use_drop(x[i].node, x[i].id)
        if x[i].node != NULL:
            tape = directory[x[i].id >> FG_SEGMENT_BITS].tape
            if tape != NULL and tape.busy:
                queue_push(tape, x[i].id)       # another thread's, which sweeps
            else:
                node_drop(x[i].id)


cdef inline bint is_float(int dtype) noexcept nogil:
    return dtype == FG_FLOAT64 or dtype == FG_FLOAT32


cdef int operand_tensor(Tensor t, Operand *x) except -1:
    cdef FgNode *n
    if t.parent is not None:
        t.refresh()
    n = t.node
    x.id = t.id
    x.node = n
    x.dtype = n.dtype
    x.weak = (n.flags & FG_WEAK) != 0
    x.strong = (n.flags & FG_WEAK) == FG_PYTHON
    x.literal = 0
    x.owned = x.foreign = 0
    x.needs = (n.flags & FG_NEEDS_GRAD) != 0 and get_recording()
    x.looked = 0
    if not x.needs:
        x.looked = reach_looked(n)
    elif n.flags & FG_CONSUMED:
        tape_of_thread().stale = 1      # a sweep has to look before it leaps
    if t.tape != NULL and t.tape != get_thread_tape():
        if x.needs:
            raise thread_error(t.tape)
        if n.flags & FG_PENDING:
            value_of(t.node, t.id)
    if get_keeping() and mode().recorder != NULL and not x.needs:
        x.needs = (<Recorder>mode().recorder).traced(t)
    if n.rank:
        x.shape = n.shape
        x.value = n.value
    else:
        x.shape = NULL
        x.value = NULL
        x.number = n.re
    return 0


cdef object thread_error(FgTape *tape):
    return RuntimeError(
        "fastgrad: a Tensor was recorded in thread "
        f"{tape.thread:#x} and is used in thread {PyThread_get_thread_ident():#x}; a tape belongs "
        "to the thread that records it: pass `.detach()` of the Tensor, or record it there")


cdef int operand_array(ndarray a, Operand *x) except -1:
    """An ndarray of a dtype that the core holds."""
    cdef int kind = PyArray_TYPE(a)
    cdef int i
    if kind >= KNOWN_DTYPES or not dtype_known[kind]:
        raise TypeError(dtype_message(a.dtype))
    x.dtype = <uint8_t>kind
    if not array_fits(a):
        a = np.array(a, dtype=dtypes[kind], order="C")
    if PyArray_NDIM(a) == 0:
        x.number = scalar_number(PyArray_DATA(a), kind)
        return 0
    x.shape = shape_new(PyArray_NDIM(a), <const int64_t *>PyArray_DIMS(a))
    try:
        x.value = pool_take(0 if PyArray_IS_C_CONTIGUOUS(a) else PyArray_NDIM(a) * 8)
    except BaseException:
        shape_release(x.shape)
        operand_clear(x)
        raise
    x.value.contiguous = PyArray_IS_C_CONTIGUOUS(a)
    if not x.value.contiguous:
        memcpy(x.value.data, PyArray_STRIDES(a), PyArray_NDIM(a) * 8)
    x.value.data = <char *>PyArray_DATA(a)
    x.value.nbytes = 0
    Py_INCREF(a)
    x.value.owner = <void *>a
    x.owned = 1
    x.foreign = 1
    return 0


cdef double scalar_number(const void *data, int kind) noexcept:
    """The one element there, as a double."""
    if kind == FG_FLOAT64:
        return (<double *>data)[0]
    if kind == FG_FLOAT32:
        return (<float *>data)[0]
    if kind == 0 or kind == 2:
        return (<uint8_t *>data)[0]
    if kind == 1:
        return (<int8_t *>data)[0]
    if kind == 3:
        return (<int16_t *>data)[0]
    if kind == 4:
        return (<uint16_t *>data)[0]
    if kind == 5:
        return (<int32_t *>data)[0]
    if kind == 6:
        return (<uint32_t *>data)[0]
    if kind == 7 or kind == 9:
        return <double>(<int64_t *>data)[0]
    return <double>(<uint64_t *>data)[0]


cdef str dtype_message(dtype):
    if dtype.kind == "c":
        return (f"fastgrad: complex numbers ({dtype}) are not supported yet; work with the real and "
                "the imaginary part as two arrays")
    if dtype == np.float16 or dtype.kind == "f":
        return f"fastgrad: dtype {dtype} is not supported; write .astype(np.float64) or np.float32"
    if dtype.kind == "O":
        return ("fastgrad: object arrays are not supported; build the array with "
                "fastgrad.numpy.array([...]) or .astype(float)")
    return (f"fastgrad: dtype {dtype} is not supported; pass a float64 or float32 array, for example "
            "a plain field or .astype(float)")


cdef object operand_settled(object o):
    """An operand without code of its own: lists and objects with ``__array__`` become arrays before
    any operand is looked at, since that code might assign to a Tensor among the others."""
    if isinstance(o, (Tensor, float, int, np_ndarray, np_generic, complex, str, bytes, dict, set)) \
            or o is None:
        return o
    return sequence_taken(o)


cdef object sequence_taken(object o):
    """An operand that is no array as one; for a program, lists of numbers are literals."""
    if not isinstance(o, (list, tuple)):
        refuse_others(o)
    a = np.asarray(sequence_array(o))
    if mode().recorder != NULL and isinstance(o, (list, tuple)):
        by_value(o)
        vouch(a)
    return a


cdef int operand_of(object o, Operand *x, bint operator) except -1:
    """Look at an operand of any kind. Returns 1 where an operator should answer NotImplemented."""
    operand_clear(x)
    x.source = <void *>o
    if type(o) is Tensor:
        operand_tensor(<Tensor>o, x)
    elif PyFloat_CheckExact(o):
        x.number = PyFloat_AS_DOUBLE(o)
        x.weak = x.literal = 1
    elif PyLong_Check(o):
        x.number = PyLong_AsDouble(o)
        x.weak = x.literal = 1
        x.dtype = FG_INT64
    elif isinstance(o, Tensor):
        operand_tensor(<Tensor>o, x)
    elif PyArray_Check(o):
        refuse_kind(o)
        if get_keeping() and mode().recorder != NULL:
            stand_in = (<Recorder>mode().recorder).array_operand(o)
            if stand_in is not None:
                return operand_tensor(<Tensor>stand_in, x)      # the recording keeps it
        operand_array(<ndarray>o, x)
    elif isinstance(o, np_generic):
        if mode().recorder != NULL:
            (<Recorder>mode().recorder).scalars = True
        operand_array(np.asarray(o), x)
        x.literal = 1
    elif PyComplex_Check(o):
        raise TypeError(dtype_message(np.dtype(complex)))
    elif not isinstance(o, (list, tuple)) and refuse_others(o) == 0 and operator:
        return 1
    elif o is None or isinstance(o, (str, bytes, dict, set)):
        raise TypeError(f"fastgrad: cannot compute with an object of type {type(o).__name__}")
    else:
        operand_array(sequence_taken(o), x)
    return 0


MASKED = "masked arrays are not supported; write x.filled(...), or x.data with fnp.where(mask, ...)"
MATRIX = ("numpy.matrix is not supported: its * and ** are matrix products; write np.asarray(x), "
          "and x @ y for the product")


cdef inline bint is_subclass(object o):
    return PyArray_Check(o) and type(o) is not np_ndarray


cdef str unsupported_kind(object o):
    """Why an array of that kind, which does not compute as ndarrays do, is refused; None: it is
    not."""
    # The type is asked: a property of the array itself might run code that assigns to operands.
    if hasattr(type(o), "mask"):
        return MASKED
    return MATRIX if isinstance(o, np.matrix) else None


def array_kind(o):
    """The same for anything."""
    return unsupported_kind(o) if is_subclass(o) else None


cdef int refuse_kind(object o) except -1:
    """Raise for arrays that do not compute as ndarrays do."""
    cdef str why
    if is_subclass(o):
        why = unsupported_kind(o)
        if why is not None:
            raise TypeError("fastgrad: " + why)
    return 0


cdef enum:
    DEEPEST = 500               # of some 300 bytes of stack each; a thread may have 256 kB


cdef inline int descend() except -1:
    """One level deeper into a container, until `ascend`; Ctrl-C is heard on the way."""
    if get_nested() == DEEPEST:
        raise RecursionError(f"fastgrad: a container holds itself, or is nested more than {DEEPEST} "
                             "deep")
    PyErr_CheckSignals()
    set_nested(get_nested() + 1)
    return 0


cdef inline void ascend() noexcept:
    set_nested(get_nested() - 1)


cdef object sequence_array(object o):
    """np.asarray of a nested sequence, with an error of our own where it holds Tensors."""
    if holds_tensor(o, 0):
        raise TypeError("fastgrad: a list that holds Tensors is not an array; write "
                        "fastgrad.numpy.array([...])")
    return np.asarray(o)


cdef bint holds_tensor(object o, int depth) except -1:
    if isinstance(o, Tensor):
        return True
    if isinstance(o, (list, tuple)):
        if depth > 64:
            raise RecursionError("fastgrad: a list that holds itself, or lists nested more than 64 "
                                 "deep, are not an array")
        for item in o:
            if holds_tensor(item, depth + 1):
                return True
    return False


# ---- dtype and shape ------------------------------------------------------------------------

cdef int common_dtype(Operand *x, int count, int *weak) except -1:
    """NumPy 2 promotion (NEP 50) among the operands: Python scalars give way. Returns -2 where
    the result is no float, and NumPy has to compute it."""
    cdef int i, dtype = 0
    cdef bint integers = False, weak_float = False
    weak[0] = 1
    for i in range(count):
        if not x[i].weak:
            weak[0] = 0
        elif not x[i].strong:
            weak_float = weak_float or is_float(x[i].dtype)
            continue
        if is_float(x[i].dtype):
            if x[i].dtype > dtype:
                dtype = x[i].dtype
        elif x[i].dtype != FG_BOOL:
            integers = True
    if not integers:
        if dtype:
            return dtype
        return FG_FLOAT64 if weak_float else -2
    result = np.result_type(*[(0.0 if is_float(x[i].dtype) else 0) if x[i].weak and not x[i].strong
                              else np.dtype(dtypes[x[i].dtype]) for i in range(count)])
    if result == np.float64:
        return FG_FLOAT64
    if result == np.float32:
        return FG_FLOAT32
    if result == np.float16:
        raise TypeError(dtype_message(result))
    return -2


cdef FgShape *common_shape(int op, Operand *x, int count) except? NULL:
    """The broadcast shape, counted once more; NULL if all are scalars."""
    cdef FgShape *s = NULL
    cdef int64_t dims[64]
    cdef int i, j, rank = 0
    cdef int64_t d
    cdef bint same = True
    for i in range(count):
        if x[i].shape == NULL:
            continue
        if s == NULL:
            s = x[i].shape
        elif not shape_same(s, x[i].shape):
            same = False
        if x[i].shape.rank > rank:
            rank = x[i].shape.rank
    if s == NULL:
        return NULL
    if same:
        return shape_ref(s)
    for j in range(rank):
        dims[j] = 1
    for i in range(count):
        if x[i].shape == NULL:
            continue
        for j in range(x[i].shape.rank):
            d = x[i].shape.dims[x[i].shape.rank - 1 - j]
            if d == dims[rank - 1 - j] or d == 1:
                continue
            if dims[rank - 1 - j] != 1:
                raise ValueError(
                    f"{fg_op_info[op].name.decode()}: operands could not be broadcast together "
                    "with shapes " + " ".join(shape_text(x[i].shape) for i in range(count)))
            dims[rank - 1 - j] = d
    for i in range(count):
        if x[i].shape != NULL and x[i].shape.rank == rank:
            same = True
            for j in range(rank):
                same = same and x[i].shape.dims[j] == dims[j]
            if same:
                return shape_ref(x[i].shape)
    return shape_new(rank, dims)


cdef str shape_text(FgShape *s):
    if s == NULL:
        return "()"
    return str(dims_tuple(s.rank, s.dims)).replace(" ", "")


# ---- constants that are kept ----------------------------------------------------------------

# Large arrays of the user that recorded operations keep: one copy each, found again by where
# the array lies as long as its contents are the same. The table does not own the copies.
cdef enum:
    SNAPSHOTS = 64
    SNAPSHOT_BYTES = 4096       # smaller arrays are copied at once

cdef struct Snapshot:
    char *data
    uint32_t leaf

cdef Snapshot snapshots[SNAPSHOTS]


cdef uint32_t leaf_constant(Operand *x) except 0:
    """A leaf that keeps the operand's value as it is now; referred to once."""
    cdef uint32_t id
    cdef FgNode *n
    cdef int slot = -1
    cdef int64_t nbytes
    if x.shape != NULL and x.foreign:
        nbytes = x.shape.size * item_size(x.dtype)
        if nbytes >= SNAPSHOT_BYTES:
            slot = <int>((<uint64_t>x.value.data >> 6) * <uint64_t>0x9E3779B97F4A7C15 >> 58)
            if snapshots[slot].data == x.value.data and snapshots[slot].leaf:
                n = node_at(snapshots[slot].leaf)
                if (n.dtype == x.dtype and shape_same(n.shape, x.shape)
                        and same_contents(x, n.value)):
                    n.refs += 1
                    return snapshots[slot].leaf
    n = leaf_append(&id)
    n.dtype = x.dtype
    n.attr = x.looked
    if x.shape == NULL:
        n.re = x.number
        if not is_float(x.dtype):
            n.value = <FgValue *><void *>operand_whole(x)
    else:
        try:
            n.value = value_copy(x.shape, x.value, x.dtype) if x.foreign else value_ref(x.value)
        except BaseException:
            node_drop(id)
            raise
        n.rank = <uint8_t>x.shape.rank
        n.shape = shape_ref(x.shape)
    if slot >= 0:
        snapshots[slot].data = x.value.data
        snapshots[slot].leaf = id
        n.index = <uint16_t>(slot + 1)
    return id


cdef bint same_contents(Operand *x, FgValue *kept) noexcept:
    """Whether the user's array still equals its copy, bit for bit."""
    cdef Walker w
    cdef char block[8 * FG_BLOCK]
    cdef int64_t start = 0, n, item = item_size(x.dtype)
    if x.value.contiguous:
        return memcmp(x.value.data, kept.data, x.shape.size * item) == 0
    walker_set(&w, x.shape, x.shape, x.value, x.dtype)
    w.boolean = 0
    while start < x.shape.size:
        n = x.shape.size - start if x.shape.size - start < FG_BLOCK else FG_BLOCK
        gather_block(&w, start, n, block, loops_of(x.dtype))
        if memcmp(block, kept.data + start * item, n * item):
            return False
        start += n
    return True
