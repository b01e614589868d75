"""Tensors from numbers and arrays, and their values as ndarrays."""

cdef inline Tensor tensor_new(uint32_t id, FgNode *n, FgTape *tape):
    """The handle of a node that has none; the reference counted in the node is its."""
    cdef Tensor t
    cdef PyObject *o
    global tensors_idle
    if tensors_idle:
        tensors_idle -= 1
        o = tensors[tensors_idle]
        object_refs(<void *>o, 0)
        t = <Tensor>o           # counts it
    else:
        t = tensor_fresh(id, n)
    t.id = id
    t.node = n
    t.tape = tape
    n.handle = <void *>t
    if tape != NULL and get_keeping():
        if mode().recorder != NULL:
            (<Recorder>mode().recorder).note(id, n)
        else:
            (<list>mode().kept).append(t)
    return t


cdef Tensor tensor_fresh(uint32_t id, FgNode *n):
    """One that CPython makes; where it cannot, the node goes."""
    try:
        return Tensor.__new__(Tensor)
    except BaseException:
        n.handle = NULL
        node_drop(id)
        raise


# Tensors that have died, ready for the next: making one through its type costs three times the
# recording of a scalar operation. They keep the fields that a new one starts with.
cdef enum:
    TENSORS = 256
    DYING = 40                  # destructors inside one another, of some 300 bytes of stack each
cdef PyObject *tensors[TENSORS]
cdef int tensors_idle = 0

ctypedef void (*Destructor)(PyObject *) noexcept
cdef Destructor tensor_dealloc_slowly = NULL


cdef void tensor_dealloc(PyObject *o) noexcept:
    global tensors_idle
    if (object_type(<void *>o) == <void *>Tensor
            and <void *>(<Tensor>o).parent == <void *>None
            and <void *>(<Tensor>o).extra == <void *>None
            and not object_watched(<void *>o)):
        # First the node: freeing it may free other Tensors, which come here as well.
        if (<Tensor>o).id:
            handle_drop((<Tensor>o).id, (<Tensor>o).node, (<Tensor>o).tape)
        (<Tensor>o).id = FG_NO_ID
        (<Tensor>o).version = 0
        if FG_REUSES and tensors_idle < TENSORS:
            tensors[tensors_idle] = o
            tensors_idle += 1
        else:
            tensor_dealloc_slowly(o)
        return
    if get_dying() >= DYING:
        # One Tensor owns the next (.grad, views), and so on: the C stack would run out.
        if (<Tensor>o).id:
            handle_drop((<Tensor>o).id, (<Tensor>o).node, (<Tensor>o).tape)
        (<Tensor>o).id = FG_NO_ID
        (<Tensor>o).version = <int64_t>get_put_off()
        set_put_off(<void *>o)
        return
    set_dying(get_dying() + 1)
    tensor_dealloc_slowly(o)
    while get_dying() == 1 and get_put_off() != NULL:
        o = <PyObject *>get_put_off()
        set_put_off(<void *>(<Tensor>o).version)
        tensor_dealloc_slowly(o)
    set_dying(get_dying() - 1)


cdef PyObject *tensor_refuse(PyTypeObject *type_, PyObject *args, PyObject *kwargs) except NULL:
    """What Python code finds as Tensor.__new__: an empty Tensor would have no node."""
    raise TypeError("fastgrad: make Tensors with fastgrad.tensor(data)")


cdef void tensor_setup() noexcept:
    global tensor_dealloc_slowly
    tensor_dealloc_slowly = <Destructor>(<PyTypeObject *>Tensor).tp_dealloc
    (<PyTypeObject *>Tensor).tp_dealloc = <destructor>tensor_dealloc
    (<PyTypeObject *>Tensor).tp_new = <newfunc>tensor_refuse
    (<PyTypeObject *>Tensor).tp_vectorcall = NULL       # Cython's way past tp_new


cdef Tensor tensor_of_value(FgShape *shape, FgValue *value, int dtype):
    """An unrecorded Tensor of that memory. Takes over shape and value."""
    cdef uint32_t id
    cdef FgNode *n
    try:
        n = leaf_append(&id)
    except BaseException:
        shape_release(shape)
        value_release(value)
        raise
    n.dtype = <uint8_t>dtype
    n.rank = <uint8_t>shape.rank
    n.shape = shape
    n.value = value
    return tensor_new(id, n, NULL)


cdef Tensor tensor_shaped(FgShape *shape, FgValue *value, int dtype):
    """The same with a shape that somebody else holds. Takes over the value."""
    return tensor_of_value(shape_ref(shape), value, dtype)


cdef Tensor whole_constant(const void *data, int dtype):
    """A scalar Tensor of an integer or boolean: it keeps all 64 bits beside the rounded number."""
    cdef Tensor t = scalar_constant(scalar_number(data, dtype), dtype, 0)
    t.node.value = <FgValue *><void *>scalar_whole(data, dtype)
    return t


cdef int64_t scalar_whole(const void *data, int kind) noexcept:
    """The one integer there."""
    if kind >= 7:
        return (<const int64_t *>data)[0]
    return <int64_t>scalar_number(data, kind)


cdef object tensor_constant(object array):
    """An unrecorded Tensor of an ndarray (or NumPy scalar) that nobody else will write to."""
    cdef Operand x
    cdef Tensor t
    operand_clear(&x)
    operand_array(np.asarray(array), &x)
    if x.shape == NULL:
        return operand_scalar(&x, array)
    x.owned = 0
    return tensor_of_value(x.shape, x.value, x.dtype)


cdef Tensor operand_scalar(Operand *x, object array):
    """A scalar Tensor of a 0-d array that was just looked at."""
    if is_float(x.dtype) or x.dtype == FG_BOOL:
        return scalar_constant(x.number, x.dtype, 0)
    a = np.asarray(array).astype(dtypes[x.dtype])
    return whole_constant(PyArray_DATA(<ndarray>a), x.dtype)


cdef Tensor tensor_copy(Tensor t):
    cdef Tensor y = tensor_constant(np.array(tensor_ndarray(t)))
    y.node.flags |= t.node.flags & FG_WEAK
    if t.requires_grad:
        leaf_require(y.node, True)
    return y


cdef int64_t parameters = 0         # leaves of the user's that require a gradient


cdef void leaf_require(FgNode *n, bint value) noexcept:
    global parameters
    if value and not n.flags & FG_NEEDS_GRAD:
        n.flags |= FG_NEEDS_GRAD
        n.attr = reach_new()
        n.constant = births
        parameters += 1
    elif not value and n.flags & FG_NEEDS_GRAD:
        n.flags &= ~FG_NEEDS_GRAD
        parameters -= 1


def _rebuild(array, requires_grad, grad):
    """Unpickle a Tensor."""
    t = tensor(array, requires_grad=requires_grad)
    if grad is not None:
        t.grad = grad
    return t


def tensor(data, dtype=None, requires_grad=False, copy=True):
    """A Tensor of the given data.

    Parameters
    ----------
    data : array_like or Tensor
        Numbers; a nested sequence of Tensors is joined by `fastgrad.numpy.array` instead.
    dtype : dtype, optional
        float64 or float32 (integers and booleans for indices and masks); by default that of the
        data. Integers that require a gradient become float64.
    requires_grad : bool
        Whether backward() accumulates a gradient in ``.grad``.
    copy : bool
        With False an ndarray's memory is shared, and the caller promises not to write to it.

    Returns
    -------
    Tensor
        A leaf.

    Raises
    ------
    TypeError
        For complex, object and other dtypes that are not supported.

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.tensor([1.0, 2.0], requires_grad=True)
    tensor([1., 2.], requires_grad=True)
    """
    cdef Tensor t
    cdef Operand x
    refuse_kind(data)
    if isinstance(data, Tensor):
        if keeps_derivative(<Tensor>data):
            return tensor_again(<Tensor>data, dtype, requires_grad)
        data = tensor_ndarray(data)
    elif isinstance(data, (list, tuple)):
        data = sequence_array(data)
    a = np.asarray(data)
    if a.dtype.kind not in "biuf" or a.dtype == np.float16 or a.dtype.itemsize > 8:
        raise TypeError(dtype_message(a.dtype))
    if dtype is not None:
        a = a.astype(dtype, copy=False)
    if requires_grad and a.dtype.kind in "biu" and dtype is None:
        a = a.astype(np.float64)
    operand_clear(&x)
    if type(a) is not np.ndarray:
        a = np.asarray(a)
    operand_array(a, &x)
    if requires_grad and not is_float(x.dtype):
        operand_drop(&x)
        raise TypeError(f"tensor: a {a.dtype} Tensor has no derivative; use dtype=float")
    if x.shape == NULL:
        t = operand_scalar(&x, a)
    elif copy:
        try:
            t = tensor_shaped(x.shape, value_copy(x.shape, x.value, x.dtype), x.dtype)
        finally:
            operand_drop(&x)
    else:
        x.owned = 0
        t = tensor_of_value(x.shape, x.value, x.dtype)
    if requires_grad:
        leaf_require(t.node, True)
    t.node.c = 0                # the user's own, wherever it is made
    return point_made(t) if x.shape == NULL and not isinstance(data, np_generic) else t


cdef Tensor tensor_again(Tensor t, object dtype, bint requires_grad):
    """`tensor` of a Tensor that keeps its derivative."""
    if requires_grad:
        raise TypeError(
            f"tensor: this Tensor depends on what is being differentiated{user_line()}; it is "
            "recorded already, and fastgrad.tensor(t.detach(), requires_grad=True) is another leaf")
    return t.clone() if dtype is None else t.astype(dtype)


cdef Tensor point_made(Tensor t):
    """A 0-d Tensor that stands for a 0-d array: an alias sees what is done to it in place."""
    if t.node.rank == 0:
        t.extras().point = True
    return t


def as_point(Tensor t):
    """The Tensor itself, if it is 0-d from now on as a 0-d array and not as a scalar."""
    return point_made(t)


cdef inline bint is_point(Tensor t) noexcept:
    return t.node.rank == 0 and t.extra is not None and (t.extra.point or t.parent is not None)


def constant(array):
    """An unrecorded Tensor of an array; the array is copied."""
    cdef Tensor t = tensor(array)
    t.node.c = <uint32_t>mode().depth
    return t


def tensors_of(list items):
    """The items as Tensors, None among them as it is. The memory of an array that nobody but the list
    holds serves; others are copied."""
    cdef list found = []
    cdef PyObject *item
    cdef Py_ssize_t i
    for i in range(len(items)):
        item = PyList_GET_ITEM(items, i)
        if not PyArray_Check(<object>item) or type(<object>item) is not np_ndarray:
            found.append(<object>item if <object>item is None or isinstance(<object>item, Tensor)
                         else constant(np.asarray(<object>item)))
        elif held_by_list(item):
            found.append(tensor_constant(<object>item))
            (<Tensor>found[i]).node.c = <uint32_t>mode().depth
        else:
            found.append(constant(<object>item))
    return found


cdef bint held_by_list(PyObject *array) noexcept:
    """Whether nobody else can write to an array's memory: it has its own, or is the one view of what
    has."""
    cdef PyObject *base
    if refs_of(array) > 1:
        return False
    base = array_base(<ndarray><object>array)
    return base == NULL or type(<object>base) is np_ndarray and (
        refs_of(base) == 1 and array_base(<ndarray><object>base) == NULL)


def is_tensor(x):
    """Whether x is a Tensor.

    Parameters
    ----------
    x : object

    Returns
    -------
    bool

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.is_tensor(fg.tensor(1.0)), fg.is_tensor(1.0)
    (True, False)
    """
    return isinstance(x, Tensor)


def gives_way(Tensor t):
    """Whether it takes the dtype of what it is computed with, as a Python float does."""
    return t.node.flags & FG_YIELDS != 0


def give_way(Tensor t):
    """Let what stands for a Python float be one that gives way, though a function made it."""
    if t.node.flags & FG_PYTHON:
        t.node.flags |= FG_YIELDS


def is_weak(Tensor t):
    """Whether a Tensor stands for a Python float, which gives way in promotion."""
    return t.node.rank == 0 and is_float(t.node.dtype) and t.node.flags & FG_WEAK != 0


# ---- values as ndarrays ---------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class ValueOwner:
    """The base of an ndarray that shows memory of the pool."""
    cdef FgValue *value

    def __dealloc__(self):
        if self.value != NULL:
            value_release(self.value)


cdef object value_ndarray(FgShape *shape, FgValue *value, int dtype, bint writable):
    """An ndarray that shows the value."""
    cdef int64_t strides[64]
    cdef ValueOwner owner
    cdef object a
    cdef bint plain = value.contiguous and not value.uniform
    if not plain:
        strides_of(shape, value, item_size(dtype), strides)
    a = PyArray_New(&PyArray_Type, shape.rank, <npy_intp *>shape.dims, dtype,
                    NULL if plain else <npy_intp *>strides, value.data, 0,
                    (NPY_ARRAY_WRITEABLE if writable else 0) | NPY_ARRAY_ALIGNED
                    | (NPY_ARRAY_C_CONTIGUOUS if plain else 0), None)
    owner = ValueOwner.__new__(ValueOwner)
    owner.value = value_ref(value)
    Py_INCREF(owner)            # SetBaseObject takes the reference, even where it fails
    PyArray_SetBaseObject(<ndarray>a, owner)
    return a


cdef object node_ndarray(FgNode *n):
    """The present value of a node, not to be written to."""
    if n.rank == 0:
        return np.asarray(scalar_python(n), dtype=dtypes[n.dtype])
    return value_ndarray(n.shape, n.value, n.dtype, False)


cdef object tensor_ndarray(Tensor t):
    """The value, for people and their code to see."""
    t.fresh()
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).escape(t)
    return tensor_value(t)


def let_go(Tensor t):
    """Make a Tensor that has outlived the recording it was made in a plain one, without history:
    where it is kept it is a constant from now on."""
    cdef Unseen unseen = Unseen()
    try:
        point = is_point(t)
        made = t.detach()
        t.parent = None
        tensor_become(t, made)
        t.node.c = 0
        if point:
            point_made(t)
    finally:
        unseen.end()


def value_seen(Tensor t):
    """The value of a Tensor, read-only, whatever it depends on; a recording takes it for one that
    gets out."""
    return tensor_ndarray(t)


cdef object item_number(Tensor t, tuple index):
    """The one entry, or the one at the index, as a Python number, whatever it depends on."""
    if index:
        return tensor_ndarray(t).item(*index)
    t.fresh()
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).escape(t)
    if t.node.rank:
        if t.node.shape.size != 1:
            raise ValueError(f"item: a Tensor of shape {t.shape} is not one number; write "
                             ".item(i) or .tolist()")
        return tensor_value(t).item()
    return scalar_python(t.node)


cdef object tensor_value(Tensor t):
    """The value, for computing what is recorded itself."""
    t.fresh()
    if t.node.rank:
        value_of(t.node, t.id)
    a = node_ndarray(t.node)
    a.flags.writeable = False
    return a


cdef object plain(object x):
    """A Tensor's value as an ndarray; anything else as it is."""
    return tensor_ndarray(<Tensor>x) if isinstance(x, Tensor) else x


cdef object scalar_python(FgNode *n):
    """A scalar node's value as a Python number."""
    if is_float(n.dtype):
        return n.re
    if n.dtype == FG_BOOL:
        return n.re != 0
    if dtypes[n.dtype].kind == "u":
        return <uint64_t><size_t><void *>n.value
    return <int64_t><size_t><void *>n.value


cdef tuple tensor_dims(FgNode *n):
    return dims_tuple(n.rank, n.shape.dims) if n.rank else ()


cdef str tensor_repr(Tensor t):
    cdef str text, extra = ""
    a = tensor_ndarray(t)
    text = np.array2string(a, separator=", ", prefix="tensor(")
    if t.node.dtype != FG_FLOAT64 and t.node.dtype != FG_BOOL and a.dtype != np.int64:
        extra += f", dtype={a.dtype}"
    elif a.size == 0:
        extra += f", shape={a.shape}" if a.shape != (0,) else ""
    if t.is_leaf and t.requires_grad:
        extra += ", requires_grad=True"
    elif t.op is not None:
        extra += f", op={t.op}"
    return f"tensor({text}{extra})"
