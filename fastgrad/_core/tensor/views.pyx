"""Writing in place: versions of a Tensor, views that see them."""

cdef int tensor_become(Tensor t, Tensor made) except -1:
    """Let t stand for the node of `made`, a Tensor that nobody else has."""
    cdef uint32_t old = t.id
    cdef FgNode *old_node = t.node
    cdef FgTape *old_tape = t.tape
    if made.parent is not None:
        made.fresh()
    t.id = made.id
    t.node = made.node
    t.tape = made.tape
    t.node.handle = <void *>t
    t.version += 1
    if made.extra is not None and made.extra.made is not None:
        made_put(t, <Made>made.extra.made)
    made.id = FG_NO_ID
    handle_drop(old, old_node, old_tape)
    return 0


cdef int tensor_renew(Tensor t, FgValue *value) except -1:
    """Give a leaf a value of its own to change: a new one (taken over), or, with NULL, the same.
    Recorded consumers keep the old node, whose gradient goes on to t."""
    cdef FgNode *old = t.node
    cdef FgNode *n
    cdef uint32_t id
    cdef uint32_t old_id = t.id
    if old.refs == 1:
        if value != NULL:
            node_replace(old, value)
        t.version += 1
        return 0
    try:
        n = leaf_append(&id)
    except BaseException:
        if value != NULL:
            value_release(value)
        raise
    n.dtype = old.dtype
    n.rank = old.rank
    n.flags = old.flags & ~FG_RETAINED
    n.attr = old.attr
    if old.flags & FG_ARGUMENT:
        n.c = old.c
    if is_parameter(old) and not old.flags & FG_ARGUMENT:
        n.flags &= ~FG_NEEDS_GRAD
        leaf_require(n, True)
    if n.rank:
        n.shape = shape_ref(old.shape)
        n.value = value if value != NULL else value_ref(old.value)
    else:
        n.re = old.re
        n.im = old.im                   # (the whole number of an integer)
    n.handle = <void *>t
    t.id = id
    t.node = n
    t.version += 1
    if old.flags & FG_ARGUMENT:
        # Its adjoint is asked for by its number, not through the Tensor.
        handle_drop(old_id, old, NULL)
        return 0
    # The old version has no handle but holds the Tensor, until its consumers have gone.
    old.flags |= FG_RETAINED
    Py_INCREF(t)
    old.refs -= 1
    return 0


cdef int view_of(Tensor y, Tensor parent, tuple how) except -1:
    """Remember that y is a view of parent, as it would be in NumPy."""
    if y is parent or y.parent is not None:
        return 0
    y.parent = parent
    y.extras().how = how
    y.extra.seen = parent.version
    y.extra.root = parent if parent.parent is None else parent.extra.root
    y.extra.root_seen = y.extra.root.version
    y.extra.readonly = how[0] == "broadcast" or (len(how) == 3 and how[2]) or (
        parent.parent is not None and parent.extra.readonly)
    return 0


cdef int view_refresh(Tensor t) except -1:
    """Derive anew what is out of date between the root and t, without recursion."""
    cdef Tensor root = t.extra.root
    cdef Tensor p
    cdef list stale = []
    while t.parent is not None and t.extra.root_seen != root.version:
        stale.append(t)
        t = t.parent
    while stale:
        t = stale.pop()
        p = t.parent
        if p.version != t.extra.seen:
            tensor_become(t, view_derive(p, t.extra.how))
            t.extra.seen = p.version
        t.extra.root_seen = root.version
    return 0


@cython.final
@cython.no_gc
cdef class Held:
    """A place in the index of a view that depends on an input of a recording."""
    cdef Tensor place
    cdef int64_t version
    cdef object number


cdef object held_index(object index):
    """The index of a view as it is now: Tensors in it may be changed."""
    if type(index) is tuple:
        return tuple([held_item(i) if isinstance(i, Tensor) else i for i in index])
    return held_item(index) if isinstance(index, Tensor) else index


cdef object held_item(Tensor i):
    cdef Held held
    number = scalar_python(i.node)
    if not is_traced(i):
        return number
    held = Held.__new__(Held)
    held.place, held.version, held.number = i, i.version, number
    return held


cdef object released_index(object index):
    """What `held_index` was given."""
    if type(index) is tuple:
        return tuple([held_place(i) if type(i) is Held else i for i in index])
    return held_place(index) if type(index) is Held else index


cdef object held_place(Held held):
    if held.place.version == held.version:
        return held.place
    unreplayable("the index of a view is changed")
    return held.number


cdef Tensor view_derive(Tensor p, tuple how):
    cdef Operand x
    if how[0] == "item":
        operand_clear(&x)
        operand_tensor(p, &x)
        if x.shape != NULL and x.value == NULL:
            x.value = value_of(x.node, x.id)
        return push_item(&x, released_index(how[1]))
    if how[0] == "reshape":
        return reshape_tensor(p, how[1])
    if how[0] == "transpose":
        return transpose_tensor(p, how[1])
    if how[0] == "broadcast":
        return broadcast_to(p.detach() if not p.requires_grad else p, how[1])
    return flip_tensor(p, how[1])


cdef int view_write(Tensor t) except -1:
    """A view has been assigned to: its parent, and the parent's parent, get the new entries."""
    cdef Tensor view = t
    cdef Tensor p
    cdef tuple how
    while t.parent is not None:
        p = t.parent
        how = t.extra.how
        if how[0] == "item":
            push_assign(p, index_settled(released_index(how[1])), t)
        elif how[0] == "reshape":
            push_assign(p, Ellipsis, reshape_tensor(t, p.shape))
        elif how[0] == "transpose":
            push_assign(p, Ellipsis, transpose_tensor(t, tuple(np.argsort(how[1]))))
        else:
            push_assign(p, Ellipsis, flip_tensor(t, how[1]))
        t.extra.seen = p.version
        t = p
    while view.parent is not None:
        view.extra.root_seen = t.version
        view = view.parent
    return 0


cdef bint has_dots(object index) noexcept:
    """Whether an ellipsis is in an index."""
    cdef Py_ssize_t k
    if type(index) is not tuple:
        return index is Ellipsis
    for k in range(PyTuple_GET_SIZE(index)):
        if PyTuple_GET_ITEM(index, k) == <PyObject *>Ellipsis:
            return True
    return False


cdef bint is_fancy(object index) except -1:
    """Whether indexing with it copies in NumPy."""
    if type(index) is not tuple:
        index = (index,)
    for i in index:
        if not (i is None or i is Ellipsis or PySlice_Check(i) or PyLong_CheckExact(i)
                or isinstance(i, np_integer) or is_index_tensor(i)):
            return True
    return False


cdef int change_guard(Tensor t, str what) except -1:
    """What may not be changed, t itself or what it is a view of: nothing has been changed yet."""
    if t.parent is not None:
        if t.extra.readonly:
            raise ValueError(f"{what}: a broadcast Tensor, or a diagonal, is read-only as in NumPy"
                             "; change a copy")
        t = t.extra.root
    if t.extra is not None and t.extra.source is not None:
        source_guard(t, what)
    leaf_guard(t, what)
    return outside_guard(t)


cdef int source_guard(Tensor t, str what) except -1:
    """What asarray(a) has made of an ndarray is a itself in NumPy: nothing is written to it as
    long as somebody else has the array, or what it is a view of."""
    cdef object a = t.extra.source
    cdef Py_ssize_t held
    while a is not None:
        held = 2                                        # by one who has it, and by the name here
        if mode().recorder != NULL:
            held += (<Recorder>mode().recorder).holds(a)
        if not PyArray_Check(a) or Py_REFCNT(a) > held:
            raise ValueError(f"{what}: the Tensor stands for an ndarray{user_line()}, which would "
                             "not see what is written; change a copy, fnp.array(a) "
                             "(fastgrad.numpy)")
        a = a.base
    t.extra.source = None
    return 0


def standing_for(object x, object array):
    """x, a Tensor that asarray has made of an array."""
    if isinstance(x, Tensor):
        (<Tensor>x).extras().source = array
    return x


cdef int leaf_guard(Tensor t, str what) except -1:
    """Parameters may only be changed where nothing is recorded."""
    if (t.node.flags & (FG_LEAF | FG_NEEDS_GRAD)) == (FG_LEAF | FG_NEEDS_GRAD) \
            and not t.node.flags & (FG_ARGUMENT | FG_CONSUMED) and get_recording():
        raise RuntimeError(f"{what}: a leaf that requires a gradient cannot be changed while "
                           "recording; write `with fg.no_grad(): ...` around it")
    return 0


class Unrecordable(RuntimeError):
    """Raised where a step or a lane that is recorded to stand for others must not go on."""


cdef int outside_guard(Tensor t) except -1:
    """A program changes nothing but what it makes."""
    cdef Recorder r = recorder()
    if r is not None and not r.made(t) and r.inputs.get(t.id, len(r.arguments)) >= len(r.arguments):
        r.refuse("a Tensor that was made outside of it is changed")
        if r.known is None:
            # The caller will run the function itself: what it changes must be changed once.
            raise Unrecordable("a Tensor that was made outside of it is changed")
    return 0


cdef int assign(Tensor t, object index, object value) except -1:
    """t[index] = value."""
    cdef Tensor v
    t.fresh()
    change_guard(t, "assign")
    value = operand_settled(value)
    if isinstance(value, Tensor):
        v = value
        v.fresh()
    push_assign(t, index_settled(index), value)
    if t.extra is not None:
        t.extra.made = None
    if isinstance(value, Tensor):
        looked_noted(t, v.node)
    if t.parent is not None:
        view_write(t)
    return 0


cdef object in_place(Tensor t, object result, str what, bint rebinding=True):
    """t op= other: a new version of t, or new contents for a leaf outside recording. With
    `rebinding` the caller binds the name to what is returned, another Tensor for a scalar."""
    cdef Tensor made
    cdef Operand x
    cdef FgValue *v
    cdef double number
    cdef bint scalar
    if not isinstance(result, Tensor):
        if not t.node.rank and not is_point(t) or not isinstance(result, (np_ndarray, np_generic)):
            return result
        if not np.can_cast(result.dtype, t.dtype, "same_kind"):
            raise TypeError(f"{what}: a {result.dtype} result does not fit into a {t.dtype} Tensor")
        result = tensor_constant(np.array(result, t.dtype))
    made = result
    if tensor_dims(made.node) != tensor_dims(t.node):
        raise ValueError(f"{what}: the result has shape {tensor_dims(made.node)}, which does not fit "
                         f"into the Tensor of shape {tensor_dims(t.node)}")
    change_guard(t, what)
    scalar = (rebinding and t.node.rank == 0 and not is_point(t)
              and not (t.node.flags & FG_LEAF and is_parameter(t.node)
                       and not t.node.flags & FG_ARGUMENT))
    if made.node.dtype != t.node.dtype and not scalar:
        if not np.can_cast(made.dtype, t.dtype, "same_kind"):
            raise TypeError(f"{what}: a {made.dtype} result does not fit into a {t.dtype} Tensor")
        made = cast(made, t.dtype)
    if is_parameter(t.node) and not (t.node.flags & FG_ARGUMENT or made.node.flags & FG_NEEDS_GRAD):
        # A parameter of the user's: it stays the leaf it is.
        if t.node.rank:
            tensor_renew(t, value_ref(made.node.value))
        else:
            number = made.node.re
            tensor_renew(t, NULL)
            t.node.re = number
        return t
    if scalar:
        return made             # rebound, as NumPy's scalars and Python's numbers are
    tensor_become(t, made)
    if t.parent is not None:
        view_write(t)
    return t
