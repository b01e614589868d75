"""Indices by arrays and masks, and assignment: gather, scatter, assign."""

cdef object index_plain(object index):
    """The index with Tensors and lists made arrays, arrays copied: what a node may keep."""
    if mode().recorder != NULL:
        return (<Recorder>mode().recorder).index(index)
    if type(index) is tuple:
        return tuple([index_plain_item(i) for i in index])
    return index_plain_item(index)


cdef object index_plain_item(object i):
    if isinstance(i, Tensor):
        if is_float((<Tensor>i).node.dtype):
            raise IndexError("gather: a floating-point Tensor cannot be an index; write "
                             "int(t.detach()), or .astype(int) for an array of indices")
        if mode().recorder == NULL:
            plain = np.array(tensor_value(<Tensor>i))
            if plain.ndim:
                decision_by(<Tensor>i, "same", plain)
            else:
                decision_by(<Tensor>i, "int", int(plain))
            return plain
        return np.array(tensor_value(<Tensor>i))
    if isinstance(i, list):
        return np.array(sequence_array(i), dtype=None if len(i) else np.intp)
    if isinstance(i, np.ndarray):
        refuse_kind(i)
        return np.array(i)
    return i


cdef object index_settled(object index):
    """The index without objects whose own code would run while the Tensor is looked at: that code
    might assign to it."""
    if type(index) is not tuple:
        return index_settled_item(index)
    for i in index:
        if not index_is_settled(i):
            return tuple([index_settled_item(i) for i in index])
    return index


cdef inline bint index_part_is_settled(PyObject *i) noexcept:
    return i == <PyObject *>None or PyLong_CheckExact(<object>i)


cdef bint index_is_settled(object i) noexcept:
    if PyLong_Check(i) or i is None or i is Ellipsis or isinstance(i, (np_ndarray, np_generic, Tensor)):
        return True
    return (PySlice_Check(i) and index_part_is_settled((<PySliceObject *>i).start)
            and index_part_is_settled((<PySliceObject *>i).stop)
            and index_part_is_settled((<PySliceObject *>i).step))


cdef object index_numbers(object i):
    """A list as an index without Tensors: the whole numbers and truths in it are decisions."""
    if type(i) is list:
        descend()
        try:
            return [index_numbers(part) for part in i]
        finally:
            ascend()
    if type(i) is not Tensor or (<Tensor>i).node.rank or is_float((<Tensor>i).node.dtype):
        return i
    return bool(i) if (<Tensor>i).node.dtype == FG_BOOL else int(i)


cdef object index_settled_item(object i):
    cdef Py_ssize_t start, stop, step
    if index_is_settled(i):
        return i
    if PySlice_Check(i):
        PySlice_Unpack(i, &start, &stop, &step)
        return slice(start, stop, step)
    if hasattr(type(i), "__index__"):
        return int(i.__index__())
    if isinstance(i, list):
        return vouch(index_plain_item(index_numbers(i)))
    return i if isinstance(i, (str, bytes, float, complex)) else np.asarray(i)


cdef object push_gather(Operand *x, object index):
    """x[index] with integer arrays or boolean masks in the index: a copy."""
    operands_hold(x, 1)                 # NumPy copies indices and entries without the GIL
    try:
        return push_gathered(x, index)
    finally:
        operands_let_go(x, 1)


cdef object gather_tensor(Tensor t, object index):
    cdef Operand o
    operand_tensor_ready(t, &o)
    return push_gather(&o, index)


cdef object push_gathered(Operand *x, object index):
    cdef object plain = index_plain(index)
    cdef ndarray array = np.asarray(operand_ndarray(x)[plain])
    cdef Operand y
    cdef bint needs = x.needs
    if is_live(plain):
        x.needs = needs = True          # of a table that is a constant, an entry that is none
    operand_clear(&y)
    operand_array(array, &y)
    y.foreign = 0
    try:
        if y.shape == NULL:
            return push_entry(FG_gather, x, PyArray_DATA(array),
                              attr_new(0, NULL, plain) if needs else 0, 0)
        return push_kept(FG_gather, x, shape_ref(y.shape), value_ref(y.value), 0, NULL, plain)
    finally:
        operand_drop(&y)


cdef int reverse_gather(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                        double number) except -1:
    """Entries taken several times get the sum."""
    cdef FgValue *g = adjoint[0]
    cdef FgNode *x = node_at(n.a)
    cdef FgValue *v
    cdef object index = attr_object(n.attr)
    cdef object whole, gradient
    gradient = number if n.rank == 0 else value_ndarray(n.shape, g, n.dtype, False)
    if x.rank == 0:
        contribute_number(s, n.a, round_to(n.dtype, float(np.sum(gradient))))
        return 0
    v = own_adjoint(s, n.a)
    whole = value_ndarray(x.shape, v, x.dtype, True)
    if isinstance(index, np.ndarray) and index.dtype == np.bool_:
        whole[index] += gradient
    else:
        np.add.at(whole, index, gradient)
    return 0


cdef Tensor pull_gather(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    cdef FgNode *x = node_at(n.a)
    return fit(g, NULL) if x.rank == 0 else scatter(g, attr_object(n.attr), tensor_dims(x))


cdef Tensor forward_gather(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return gather_tensor(tangents[0], attr_object(n.attr))

shaped_rules[FG_gather] = ShapedRule(
    reverse_gather, pull_gather, forward_gather, index_attribute, NULL)


cdef int reverse_scatter(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                         double number) except -1:
    piece = value_ndarray(n.shape, adjoint[0], n.dtype, False)[attr_object(n.attr)]
    return contribute_array(s, n.a, np.array(piece))


cdef Tensor pull_scatter(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    return gather_tensor(g, attr_object(n.attr))


cdef Tensor forward_scatter(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return scatter(tangents[0], attr_object(n.attr), tensor_dims(n))

shaped_rules[FG_scatter] = ShapedRule(
    reverse_scatter, pull_scatter, forward_scatter, index_attribute, NULL)


# ---- assign ---------------------------------------------------------------------------------

cdef object push_assign(Tensor t, object index, object value):
    """t[index] = value for a Tensor that is no leaf: t goes on as a new version of itself."""
    cdef Operand x, v
    cdef Index parsed
    cdef FgValue *target
    cdef FgShape *shape = NULL
    cdef object plain
    cdef Operand before
    cdef bint advanced, live = False
    cdef int dtype = t.node.dtype
    cdef uint32_t attr
    cdef int64_t flat
    cdef int i
    cdef Tensor made
    operand_clear(&x)
    operand_clear(&v)
    operand_clear(&before)
    try:
        operand_of(value, &v, False)
        if (not is_float(dtype) and v.dtype != dtype and mode().recorder != NULL
                and not (v.needs and v.node.flags & FG_NEEDS_GRAD)):
            # What a graph assigns has the dtype of its place.
            if v.needs or isinstance(value, Tensor):
                value = cast(node_tensor(v.id) if v.needs else value, dtypes[dtype])
            else:
                value = vouch(np.array(value, dtypes[dtype]))
            operand_drop(&v)
            operand_of(value, &v, False)
        before = v
        operands_hold(&before, 1)       # NumPy converts and copies without the GIL
        if is_float(dtype):
            if not is_float(v.dtype) and v.shape != NULL and not v.needs:
                operand_replace(&v, operand_ndarray(&v).astype(dtypes[dtype]))
            elif v.dtype != dtype:
                operand_convert(&v, dtype)
        elif v.needs and v.node.flags & FG_NEEDS_GRAD and get_recording():
            raise TypeError(f"assign: a recorded {dtypes[v.dtype]} Tensor cannot be stored in a "
                            f"{dtypes[dtype]} Tensor; make the target with fastgrad.numpy.zeros(n)")
        operand_tensor(t, &x)
        if x.shape != NULL and x.value == NULL:
            x.value = value_of(x.node, x.id)
        if v.shape != NULL and v.value == NULL:
            v.value = value_of(v.node, v.id)
        if x.shape == NULL:
            return assign_scalar(t, &x, &v, index)
        advanced = index_parse(x.shape, index, &parsed)
        if not advanced and parsed.rank == 0:
            if v.shape != NULL and v.shape.size == 1:
                made = push_reshape(&v, 0, NULL)
                operand_drop(&v)
                operand_tensor(made, &v)
                Py_INCREF(made)
                v.keeper = <void *>made
            elif v.shape != NULL:
                raise ValueError("assign: setting an entry with an array of shape "
                                 + shape_text(v.shape))
            flat = index_flat(&parsed, x.shape)
            target = assign_memory(t, &x)
            try:
                made = assign_node(&x, &v, target, 0, <double>flat)
                operand_store(target.data + flat * item_size(x.dtype), &v, x.dtype)
            except BaseException:
                value_release(target)
                raise
            return assign_version(t, &x, made, target)
        if advanced:
            plain = index_plain(index)
            operand_tensor_ready(t, &x)
            dims = np.shape(operand_ndarray(&x)[plain])
            assign_unchanged(t, &x)
            for i in range(len(dims)):
                parsed.dims[i] = dims[i]
            parsed.rank = <int>len(dims)
            live = is_live(plain)
        else:
            plain = index_tuple(parsed.items, parsed.count)
        shape = shape_new(parsed.rank, parsed.dims)
        if v.shape != NULL:
            fits_into(v.shape, shape)
        if live and is_literal(&x):     # at other places the constant shows again
            target = value_copy(x.shape, x.node.value, x.dtype)
        else:
            target = assign_memory(t, &x)
        x.needs = x.needs or live
        try:
            if not x.needs and not v.needs:
                attr = 0
            elif advanced:
                attr = attr_new(0, NULL, plain)
            else:
                attr = attr_new(FG_INDEX_FIELDS * parsed.count, parsed.items, None)
            made = assign_node(&x, &v, target, attr, 0)
            view = value_ndarray(x.shape, target, x.dtype, True)
            view[plain] = operand_python(&v) if v.shape == NULL else operand_ndarray(&v)
            view = None
            assign_unchanged(t, &x)
        except BaseException:
            value_release(target)
            raise
        return assign_version(t, &x, made, target)
    finally:
        operand_drop(&v)
        operands_let_go(&before, 1)
        if shape != NULL:
            shape_release(shape)


cdef inline bint is_live(object plain) except -1:
    """Whether a recording knows the index for one that depends on an input: what is done with it is
    an operation, whatever it is done to."""
    return mode().recorder != NULL and id(plain) in (<Recorder>mode().recorder).indices


cdef int assign_unchanged(Tensor t, Operand *x) except -1:
    """After NumPy has run without the GIL."""
    if t.id != x.id:
        raise RuntimeError("assign: another thread has changed the Tensor meanwhile")
    return 0


cdef int fits_into(FgShape *v, FgShape *shape) except -1:
    """Whether a value of shape v can be assigned to a part of that shape; leading axes of length
    1 are allowed, as in NumPy."""
    cdef int i, extra = v.rank - shape.rank
    cdef bint fits = True
    for i in range(v.rank):
        if i < extra:
            fits = fits and v.dims[i] == 1
        else:
            fits = fits and (v.dims[i] == 1 or v.dims[i] == shape.dims[i - extra])
    if not fits:
        raise ValueError(f"assign: could not broadcast input array from shape {shape_text(v)} into "
                         f"shape {shape_text(shape)}")
    return 0


cdef FgValue *assign_memory(Tensor t, Operand *x) except NULL:
    """Memory with the present contents that may be written to: the Tensor's own where nothing
    else needs it as it is, else a copy. One reference goes to the caller."""
    cdef FgValue *v = x.node.value
    if v.refs == 1 and value_unique(v) and x.node.uses == 0:
        return value_ref(v)
    return value_copy(x.shape, v, x.dtype)


cdef inline bint is_parameter(FgNode *n) noexcept:
    """Whether it is a leaf of the user's that requires a gradient."""
    return (n.flags & (FG_LEAF | FG_NEEDS_GRAD | FG_CONSUMED)) == FG_LEAF | FG_NEEDS_GRAD


cdef Tensor assign_node(Operand *x, Operand *v, FgValue *target, uint32_t attr, double constant):
    """What t will stand for once the memory has been written to, if it needs a node of its own: made
    before, since it may fail, and the memory may be what t shows now. Takes over the attribute."""
    cdef FgNode *old = x.node
    if x.needs or v.needs:
        return push_shaped(FG_assign, x.dtype, 0, shape_ref(old.shape), value_ref(target), 0,
                           x if x.needs or get_keeping() else NULL, v, attr, constant)
    if not is_parameter(old) and old.flags & FG_NEEDS_GRAD:
        # A recorded result, changed where nothing is recorded: it has no history from here.
        return tensor_of_value(shape_ref(old.shape), value_ref(target), old.dtype)
    return None


cdef object assign_version(Tensor t, Operand *x, Tensor made, FgValue *target):
    """Let t stand for the written memory, which is taken over."""
    cdef FgNode *old = x.node
    t.version += 1
    if made is not None:
        if old.value == target:
            # Nothing reads the old version: its memory moves on to the new one.
            node_replace(old, NULL)
        value_release(target)
        tensor_become(t, made)
    elif old.value == target:
        value_release(target)
    elif old.refs == 1 or not old.flags & FG_NEEDS_GRAD and old.uses == 0:
        node_replace(old, target)
    else:
        tensor_renew(t, target)
    return None


cdef object assign_scalar(Tensor t, Operand *x, Operand *v, object index):
    """t[()] = value, t[...] = value."""
    cdef Tensor made
    if index is not Ellipsis and index != () and index != (Ellipsis,):
        raise IndexError("assign: too many indices for a Tensor of shape ()")
    if v.shape != NULL and v.shape.size != 1:
        raise ValueError(f"assign: could not broadcast input array from shape {shape_text(v.shape)} "
                         "into shape ()")
    if v.shape != NULL and v.value == NULL:
        v.value = value_of(v.node, v.id)
    made = push_reshape(v, 0, NULL)
    if made.node.dtype != x.dtype or made.node.flags & FG_WEAK and not t.node.flags & FG_WEAK:
        made = cast(made, dtypes[x.dtype])      # what is stored takes the kind of the place
    if made.node.flags & FG_NEEDS_GRAD or x.needs or not is_parameter(t.node):
        tensor_become(t, made)
    else:
        tensor_renew(t, NULL)           # a parameter, outside recording
        t.node.re = made.node.re
    return None


cdef int reverse_assign(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                        double number) except -1:
    """The assigned part of the adjoint goes to the value, the rest to what was there before, which
    takes the memory over."""
    cdef FgValue *g = adjoint[0]
    cdef FgValue *w
    cdef char *entry
    cdef object index, view, piece
    if not value_unique(g):
        w = value_copy(n.shape, g, n.dtype)
        value_release(g)
        g = adjoint[0] = w
    if n.attr == 0:
        entry = g.data + <int64_t>n.constant * item_size(n.dtype)
        if n.b and wanted(s, n.b):
            contribute_number(s, n.b, scalar_number(entry, n.dtype))
        number_store(entry, 0, n.dtype)
    else:
        index = index_attribute(n)
        view = value_ndarray(n.shape, g, n.dtype, True)
        if n.b and wanted(s, n.b):
            piece = view[index]
            contribute_array(s, n.b, np.array(piece) if attrs[n.attr].owner == NULL
                             else np.where(last_stands(index, view.shape), piece, 0))
            piece = None
        view[index] = 0
        view = None
    if n.a and wanted(s, n.a):
        adjoint[0] = NULL
        contribute_value(s, n.a, g)
    return 0


cdef object last_stands(object index, tuple dims):
    """Of entries assigned twice the last one stands: only it gets the adjoint."""
    places = np.empty(dims, dtype=np.intp)
    piece = places[index]
    order = np.arange(piece.size).reshape(piece.shape)
    places[index] = order
    return places[index] == order


cdef Tensor pull_assign(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    cdef Operand o
    cdef Tensor t
    cdef object index = index_attribute(n)
    if n.b and s.find(n.b) != NULL:
        t = item_tensor(g, index)
        if is_live(index) and may_repeat(index):
            unreplayable("an assignment to places that depend on a value is differentiated")
        if n.attr and attrs[n.attr].owner != NULL and t.node.rank:
            stands = last_stands(index, tensor_dims(n))
            if not stands.all():
                t = emit_two(FG_multiply, t, tensor_constant(stands.astype(t.dtype)))
        s.add(n.b, fit(t, node_at(n.b).shape if node_at(n.b).rank else NULL))
    if n.a and s.find(n.a) != NULL:
        operand_tensor_ready(g, &o)
        t = push_reshape(&o, n.rank, n.shape.dims)
        push_assign(t, index, scalar_constant(0, n.dtype, 0))
        s.add(n.a, t)
    return None


cdef bint may_repeat(object index):
    """Whether an index may name an entry twice."""
    for i in (index if type(index) is tuple else (index,)):
        if isinstance(i, np_ndarray) and i.ndim and i.dtype != np.bool_:
            return True
    return False


cdef Tensor forward_assign(FgNode *n, uint32_t id, list tangents, Tensor finite):
    cdef Tensor t = tangents[0], v = tangents[1]
    cdef Operand o
    cdef object index = index_attribute(n)
    if t is None:
        t = tensor_shaped(n.shape, value_zeros(n.shape, n.dtype), n.dtype)
    else:
        operand_tensor_ready(t, &o)
        t = push_reshape(&o, n.rank, n.shape.dims)
    push_assign(t, index, scalar_constant(0, n.dtype, 0) if v is None else v)
    return t


shaped_rules[FG_assign] = ShapedRule(
    reverse_assign, pull_assign, forward_assign, index_attribute, NULL)


cdef int contribute_array(Sweep *s, uint32_t id, object array) except -1:
    """Add an ndarray that nobody else holds, summed over broadcast axes."""
    cdef FgNode *n = node_at(id)
    cdef Operand x
    cdef object shape = tensor_dims(n)
    cdef int extra
    if array.shape != shape:
        extra = array.ndim - len(shape)
        if extra > 0:
            array = array.sum(axis=tuple(range(extra)))
        elif extra < 0:
            # A value assigned to a part of fewer axes has leading axes of length 1 more.
            array = array.reshape((1,) * -extra + array.shape)
        axes = tuple([i for i in range(array.ndim) if shape[i] == 1
                      and array.shape[i] != 1])
        if axes:
            array = array.sum(axis=axes, keepdims=True)
        array = array.reshape(shape)
    array = np.asarray(array, dtype=dtypes[n.dtype])
    operand_clear(&x)
    operand_array(<ndarray>array, &x)
    if n.rank == 0:
        return contribute_number(s, id, x.number)
    try:
        return contribute_value(s, id, value_ref(x.value))
    finally:
        operand_drop(&x)
