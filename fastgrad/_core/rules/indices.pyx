"""Operators by an index: item and place (basic indices, read and put into zeros), gather and scatter
(arrays of places), assign.

Each with its value, its adjoint with numbers (`reverse_`) and recorded (`pull_`), and its tangent
(`forward_`)."""


# ---- basic indices --------------------------------------------------------------------------

cdef struct Index:
    int count                   # of items, FG_INDEX_FIELDS numbers each
    int rank                    # of the result
    int64_t items[FG_INDEX_FIELDS * 130]
    int64_t dims[64]            # of the result


cdef int index_parse(FgShape *shape, object index, Index *x) except -1:
    """Basic indexing as NumPy defines it. Returns 1 where the index is not basic."""
    cdef int rank = shape.rank if shape != NULL else 0
    cdef int axis = 0, used = 0, k
    cdef int64_t n
    cdef bint dots = False
    cdef object item
    cdef Py_ssize_t a, b, c
    x.count = x.rank = 0
    if type(index) is not tuple:
        if PyLong_CheckExact(index) and rank:
            # The commonest case, without the detour of a tuple.
            index_integer(shape, x, 0, index)
            for axis in range(1, rank):
                index_add(x, FG_INDEX_SLICE, 0, 1, shape.dims[axis])
            return 0
        index = (index,)
    for item in index:
        if item is Ellipsis:
            if dots:
                raise IndexError("item: an index can only have a single ellipsis ('...')")
            dots = True
        elif item is None:
            pass
        elif is_index_tensor(item) and is_traced(item):
            return 1                    # to a program it is a place among others
        elif PySlice_Check(item) or PyLong_CheckExact(item) or isinstance(item, np_integer) \
                or is_index_tensor(item) and not place_moves(item):
            used += 1
        else:
            return 1
    if used > rank:
        raise IndexError(f"item: too many indices for a Tensor of shape {shape_text(shape)}: it is "
                         f"{rank}-dimensional, but {used} were indexed")
    if len(index) > 128:
        raise IndexError("item: too many indices")
    for item in index:
        if item is Ellipsis:
            for k in range(rank - used):
                index_add(x, FG_INDEX_SLICE, 0, 1, shape.dims[axis])
                axis += 1
        elif item is None:
            index_add(x, FG_INDEX_NEW, 0, 0, 1)
        elif PySlice_Check(item):
            PySlice_Unpack(item, &a, &b, &c)
            n = PySlice_AdjustIndices(shape.dims[axis], &a, &b, c)
            index_add(x, FG_INDEX_SLICE, a, c, n)
            axis += 1
        else:
            index_integer(shape, x, axis, item)
            axis += 1
    while axis < rank:
        index_add(x, FG_INDEX_SLICE, 0, 1, shape.dims[axis])
        axis += 1
    return 0


cdef bint is_index_tensor(object o):
    return (isinstance(o, Tensor) and (<Tensor>o).node.rank == 0
            and not is_float((<Tensor>o).node.dtype) and (<Tensor>o).node.dtype != FG_BOOL)


cdef int index_integer(FgShape *shape, Index *x, int axis, object item) except -1:
    cdef int64_t i = PyNumber_AsSsize_t(item, <PyObject *>IndexError)
    cdef int64_t n = shape.dims[axis]
    if i < -n or i >= n:
        raise IndexError(f"item: index {i} is out of bounds for axis {axis} with size {n}")
    return index_add(x, FG_INDEX_INT, i + n if i < 0 else i, 0, 0)


cdef int index_add(Index *x, int kind, int64_t start, int64_t step, int64_t count) except -1:
    cdef int64_t *p = &x.items[FG_INDEX_FIELDS * x.count]
    p[0] = kind
    p[1] = start
    p[2] = step
    p[3] = count
    x.count += 1
    if kind != FG_INDEX_INT:
        if x.rank == 64:
            raise IndexError("item: the result would have more than 64 dimensions")
        x.dims[x.rank] = count
        x.rank += 1
    return 0


cdef inline int64_t index_flat(Index *x, FgShape *shape) noexcept:
    """The number of the one entry that it names."""
    cdef int64_t flat = 0
    cdef int i
    for i in range(shape.rank):
        flat = flat * shape.dims[i] + x.items[FG_INDEX_FIELDS * i + 1]
    return flat


cdef object index_attribute(FgNode *n):
    """The index of an operation by an index, as Python writes it."""
    if n.attr == 0:             # one entry
        return tuple([int(i) for i in np.unravel_index(
            <int64_t>n.constant, tensor_dims(n if n.op == FG_assign else node_at(n.a)))])
    return item_index(n.attr) if attrs[n.attr].owner == NULL else attr_object(n.attr)


cdef tuple item_index(uint32_t attr):
    """A basic index that an attribute keeps."""
    return index_tuple(attr_items(attr), attr_count(attr) // FG_INDEX_FIELDS)


cdef tuple index_tuple(const int64_t *items, int64_t count):
    cdef int64_t i, stop
    cdef list index = []
    for i in range(count):
        if items[0] == FG_INDEX_INT:
            index.append(items[1])
        elif items[0] == FG_INDEX_NEW:
            index.append(None)
        elif items[3] == 0:
            index.append(slice(0, 0, 1))
        else:
            stop = items[1] + items[3] * items[2]
            index.append(slice(items[1], stop if stop >= 0 else None, items[2]))
        items += FG_INDEX_FIELDS
    return tuple(index)


# ---- item -----------------------------------------------------------------------------------

cdef object push_item(Operand *x, object index):
    """x[index]."""
    cdef Index parsed
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef char *p
    cdef FgShape *shape
    cdef FgValue *v
    cdef FgValue *w
    if index_parse(x.shape, index, &parsed):
        return push_gather(x, index)
    if x.shape == NULL:
        return push_reshape(x, parsed.rank, parsed.dims)
    strides_of(x.shape, x.value, item_size(x.dtype), own)
    p = x.value.data + fg_index_apply(parsed.items, parsed.count, own, strides)
    if parsed.rank == 0 and not is_float(x.dtype) and not x.needs:
        return mask_noted(whole_constant(p, x.dtype), x, 1)
    if parsed.rank == 0:
        # The place among the entries is all the rule needs: it fits into the node.
        return push_entry(FG_item, x, p, 0, <double>index_flat(&parsed, x.shape))
    shape = shape_new(parsed.rank, parsed.dims)
    v = seen_as(x, p, shape, strides)
    if x.needs and shape.size * 8 <= x.shape.size:
        # A small part is copied: were it a view, the next assignment to x would have to copy
        # all of x to keep it as it is.
        try:
            w = value_copy(shape, v, x.dtype)
        except BaseException:
            shape_release(shape)
            raise
        finally:
            value_release(v)
        v = w
    return push_kept(FG_item, x, shape, v, FG_INDEX_FIELDS * parsed.count, parsed.items, None)


cdef object item_tensor(Tensor t, object index):
    cdef Operand o
    operand_tensor_ready(t, &o)
    return push_item(&o, index)


cdef int reverse_item(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint, double number) except -1:
    """Add to the part of the operand's adjoint, in place."""
    cdef FgValue *v = own_adjoint(s, n.a)
    if n.attr == 0:
        if n.dtype == FG_FLOAT64:
            (<double *>v.data)[<int64_t>n.constant] += number
        else:
            (<float *>v.data)[<int64_t>n.constant] += <float>number
        return 0
    return window_add(node_at(n.a).shape, v, n.attr, n.shape, adjoint[0], n.dtype)


cdef Tensor pull_item(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    cdef Operand o
    operand_tensor_ready(g, &o)
    return push_place(&o, n.attr, node_at(n.a).shape)


cdef Tensor forward_item(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return item_tensor(tangents[0], index_attribute(n))


cdef bint is_row(FgNode *n) noexcept:
    """Whether an item is one entry along the first axis, with all that there is along the others."""
    cdef int64_t *items = attr_items(n.attr)
    cdef FgNode *x = node_at(n.a)
    cdef int64_t i, count = attr_count(n.attr) // FG_INDEX_FIELDS
    if x.rank < 2 or items[0] != FG_INDEX_INT or count > x.rank:
        return False
    for i in range(1, count):
        items += FG_INDEX_FIELDS
        if (items[0] != FG_INDEX_SLICE or items[1] != 0 or items[2] != 1
                or items[3] != x.shape.dims[i]):
            return False
    return True


shaped_rules[FG_item] = ShapedRule(reverse_item, pull_item, forward_item, index_attribute, NULL)


cdef int window_add(FgShape *shape, FgValue *v, uint32_t attr, FgShape *part, FgValue *g,
                    int dtype) except -1:
    """v[index] += g; v contiguous."""
    cdef FgValue *window = window_view(shape, v, attr, part, dtype)
    cdef Walker w
    walker_set(&w, part, part, window, dtype)
    try:
        walk_add(&w, part, g, dtype, False)
    finally:
        value_release(window)
    return 0


cdef FgValue *window_view(FgShape *shape, FgValue *v, uint32_t attr, FgShape *part,
                          int dtype) except NULL:
    """v[index] as a view, the index being an attribute."""
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int64_t begin
    strides_of(shape, v, item_size(dtype), own)
    begin = fg_index_apply(attr_items(attr), attr_count(attr) // FG_INDEX_FIELDS, own, strides)
    return value_strided(v, v.data + begin, part, strides, item_size(dtype))


# ---- place ----------------------------------------------------------------------------------

cdef Tensor push_place(Operand *x, uint32_t attr, FgShape *shape):
    """Zeros of that shape, with x where the index says."""
    cdef FgValue *v = value_zeros(shape, x.dtype)
    cdef uint32_t copy = 0
    try:
        window_add(shape, v, attr, x.shape, x.value, x.dtype)
        if x.needs:
            copy = attr_new(attr_count(attr), attr_items(attr), None)
    except BaseException:
        value_release(v)
        raise
    return push_shaped(FG_place, x.dtype, 0, shape_ref(shape), v, 0, x, NULL, copy, 0)


cdef int reverse_place(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                       double number) except -1:
    """The part that was put there: a view."""
    return contribute_value(s, n.a, window_view(n.shape, adjoint[0], n.attr, node_at(n.a).shape,
                                                n.dtype))


cdef Tensor pull_place(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    return reshape_plain(item_tensor(g, item_index(n.attr)), tensor_dims(node_at(n.a)))


cdef Tensor forward_place(FgNode *n, uint32_t id, list tangents, Tensor finite):
    cdef Operand o
    operand_tensor_ready(tangents[0], &o)
    return push_place(&o, n.attr, n.shape)


shaped_rules[FG_place] = ShapedRule(reverse_place, pull_place, forward_place, index_attribute, NULL)
