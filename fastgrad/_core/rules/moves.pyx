"""Operators that move whole arrays, by memory that is shown in another way: reshape, transpose,
broadcast, flip; cast, which rounds; and concatenate.

For each: how it computes its value, how a sweep with numbers hands its adjoint on (`reverse_`), the
same recorded (`pull_`), and its tangent (`forward_`)."""


# ---- reshape --------------------------------------------------------------------------------

cdef bint strides_seen(Operand *x, int rank, const int64_t *dims, int64_t *strides) noexcept:
    """Whether an operand's memory can be seen in another shape, not empty, and how: axes that are
    joined must run on in one another (as NumPy finds views)."""
    cdef FgShape *s = x.shape
    cdef int64_t own[64]
    cdef int64_t old[64]
    cdef int64_t step[64]
    cdef int64_t joined, split
    cdef int i, count = 0, a = 0, b = 0, first, start, k
    strides_of(s, x.value, item_size(x.dtype), own)
    for i in range(s.rank):
        if s.dims[i] != 1:
            old[count] = s.dims[i]
            step[count] = own[i]
            count += 1
    while a < count and b < rank:
        first, start = a, b
        joined, split = old[a], dims[b]
        while joined != split:
            if joined < split:
                a += 1
                joined *= old[a]
            else:
                b += 1
                split *= dims[b]
        for k in range(first, a):
            if step[k] != old[k + 1] * step[k + 1]:
                return False
        strides[b] = step[a]
        for k in range(b - 1, start - 1, -1):
            strides[k] = strides[k + 1] * dims[k + 1]
        a += 1
        b += 1
    for k in range(b, rank):        # axes of length 1
        strides[k] = 0
    return True


cdef Tensor push_reshape(Operand *x, int rank, const int64_t *dims, bint running_on=False):
    """The same entries in another shape; a view where the memory allows one, with `running_on` only
    one without gaps. One of the dims may be -1."""
    cdef FgShape *shape
    cdef FgValue *v
    cdef FgValue *w
    cdef int64_t fixed[64]
    cdef int64_t strides[64]
    cdef int64_t known = 1, size = 1 if x.shape == NULL else x.shape.size
    cdef int i, free_axis = -1
    cdef Tensor t
    for i in range(rank):
        fixed[i] = dims[i]
        if dims[i] == -1 and free_axis < 0:
            free_axis = i
        elif dims[i] < 0:
            raise ValueError("reshape: can only specify one unknown dimension, got "
                             f"{dims_tuple(rank, dims)}")
        else:
            known *= dims[i]
    if free_axis >= 0:
        fixed[free_axis] = size // known if known else 0
        known *= fixed[free_axis]
    if known != size or (free_axis >= 0 and known == 0 and size):
        raise ValueError(f"reshape: cannot reshape array of size {size} with shape "
                         f"{shape_text(x.shape)} into shape {dims_tuple(rank, dims)}")
    if x.shape == NULL and rank == 0:
        t = push_shaped(FG_reshape, x.dtype, FG_PYTHON if x.weak else 0, NULL, NULL, x.number, x,
                        NULL, 0, 0)
        if not is_float(x.dtype):
            t.node.value = <FgValue *><void *>operand_whole(x)
        return t
    if rank == 0:
        w = value_contiguous(x.shape, x.value, x.dtype)
        try:
            if not is_float(x.dtype) and not x.needs:
                return whole_constant(w.data, x.dtype)
            return push_entry(FG_reshape, x, w.data, 0, 0)
        finally:
            value_release(w)
    shape = shape_new(rank, fixed)
    try:
        if x.shape == NULL:
            v = pool_take(item_size(x.dtype))
            operand_store(v.data, x, x.dtype)
        elif (x.value.contiguous or x.value.uniform or running_on or size == 0
                or not strides_seen(x, rank, fixed, strides)):
            w = value_contiguous(x.shape, x.value, x.dtype)
            try:
                v = value_view(w, w.data, rank, NULL, True)
            finally:
                value_release(w)
        else:
            v = value_strided(x.value, x.value.data, shape, strides, item_size(x.dtype))
    except BaseException:
        shape_release(shape)
        raise
    return push_shaped(FG_reshape, x.dtype, 0, shape, v, 0, x, NULL, 0, 0)


cdef Tensor push_entry(int op, Operand *x, const void *data, uint32_t attr, double constant):
    """A scalar result of the operand's dtype: the one element there."""
    cdef Tensor t = push_shaped(op, x.dtype, 0, NULL, NULL, scalar_number(data, x.dtype), x, NULL,
                                attr, constant)
    if not is_float(x.dtype):
        t.node.value = <FgValue *><void *>scalar_whole(data, x.dtype)
    return t


cdef int number_store(void *data, double number, int dtype) except -1:
    """One element of any dtype the core holds."""
    if dtype == FG_FLOAT64:
        (<double *>data)[0] = number
    elif dtype == FG_FLOAT32:
        (<float *>data)[0] = <float>number
    elif dtype == FG_BOOL:
        (<uint8_t *>data)[0] = number != 0
    else:
        a = np.asarray(number).astype(dtypes[dtype])
        memcpy(data, PyArray_DATA(<ndarray>a), dtype_bytes[dtype])
    return 0


cdef object operand_python(Operand *x):
    """A scalar operand as a Python number; an integer with all its bits."""
    if is_float(x.dtype):
        return x.number
    if x.node != NULL:
        return scalar_python(x.node)
    if x.source != NULL and not isinstance(<object>x.source, Tensor):
        return np.asarray(<object>x.source).item()
    return bool(x.number) if x.dtype == FG_BOOL else int(x.number)


cdef int64_t operand_whole(Operand *x) except? -1:
    """The 64 bits of a scalar integer or boolean."""
    if x.node != NULL:
        return <int64_t><size_t><void *>x.node.value if x.dtype != FG_BOOL else x.node.re != 0
    a = np.asarray(operand_python(x)).astype(dtypes[x.dtype])
    return scalar_whole(PyArray_DATA(<ndarray>a), x.dtype)


cdef int operand_store(void *data, Operand *x, int dtype) except -1:
    """A scalar operand as one element of a dtype."""
    if is_float(x.dtype) or is_float(dtype) or dtype == FG_BOOL:
        return number_store(data, x.number, dtype)
    a = np.empty(1, dtypes[dtype])
    a[0] = operand_python(x)
    memcpy(data, PyArray_DATA(<ndarray>a), dtype_bytes[dtype])
    return 0


cdef int reverse_reshape(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                         double number) except -1:
    cdef FgValue *g = adjoint[0]
    cdef FgNode *x = node_at(n.a)
    if x.rank == 0:
        contribute_number(s, n.a, number if n.rank == 0 else element(g, n.dtype))
    elif n.rank == 0:
        contribute_value(s, n.a, number_value(number, n.dtype))
    elif g.uniform:
        contribute_value(s, n.a, value_ref(g))
    else:
        # Contiguous memory carries no shape: the same memory serves.
        contribute_value(s, n.a, value_contiguous(n.shape, g, n.dtype))
    return 0


cdef Tensor pull_reshape(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    return reshape_plain(g, tensor_dims(node_at(n.a)))


cdef Tensor forward_reshape(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return reshape_plain(tangents[0], tensor_dims(n))

shaped_rules[FG_reshape] = ShapedRule(reverse_reshape, pull_reshape, forward_reshape, NULL, NULL)


# ---- transpose ------------------------------------------------------------------------------

cdef Tensor push_transpose(Operand *x, int *axes):
    """Axis i of the result is axis axes[i] of the operand."""
    cdef int64_t dims[64]
    cdef int64_t strides[64]
    cdef int64_t own[64]
    cdef int64_t items[64]
    cdef int i, rank = x.shape.rank
    cdef FgShape *shape
    cdef FgValue *v
    strides_of(x.shape, x.value, item_size(x.dtype), own)
    dims[0] = 0                 # or gcc takes what rank 0 does not read for forgotten
    for i in range(rank):
        dims[i] = x.shape.dims[axes[i]]
        strides[i] = own[axes[i]]
        items[i] = axes[i]
    shape = shape_new(rank, dims)
    v = seen_as(x, x.value.data, shape, strides)
    return push_kept(FG_transpose, x, shape, v, rank, items, None)


cdef FgValue *value_strided(FgValue *base, char *data, FgShape *shape, int64_t *strides,
                            int64_t item) except NULL:
    """A view; recognised as contiguous where it is."""
    cdef int i
    cdef int64_t step = item
    cdef bint contiguous = True
    for i in range(shape.rank - 1, -1, -1):
        if shape.dims[i] != 1 and strides[i] != step:
            contiguous = False
        step *= shape.dims[i]
    return value_view(base, data, shape.rank, strides, contiguous or shape.size == 0)


cdef FgValue *adjoint_seen(FgValue *g, char *data, FgShape *shape, int64_t *strides,
                           int dtype) except NULL:
    """A view of an adjoint; one number that stands for all goes on doing so."""
    return value_ref(g) if g.uniform else value_strided(g, data, shape, strides, item_size(dtype))


cdef int reverse_transpose(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                           double number) except -1:
    cdef FgValue *g = adjoint[0]
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int64_t *axes = attr_items(n.attr)
    cdef int i
    strides_of(n.shape, g, item_size(n.dtype), own)
    for i in range(n.rank):
        strides[axes[i]] = own[i]
    return contribute_value(s, n.a, adjoint_seen(g, g.data, node_at(n.a).shape, strides, n.dtype))


cdef Tensor pull_transpose(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    return transpose_tensor(g, tuple(np.argsort(transpose_axes(n))))


cdef Tensor forward_transpose(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return transpose_tensor(tangents[0], transpose_axes(n))


cdef object transpose_axes(FgNode *n):
    return tuple([attr_items(n.attr)[i] for i in range(n.rank)])

shaped_rules[FG_transpose] = ShapedRule(
    reverse_transpose, pull_transpose, forward_transpose, transpose_axes, NULL)


# ---- broadcast ------------------------------------------------------------------------------

cdef Tensor push_broadcast(Operand *x, FgShape *shape):
    """Repeated to `shape`, which is taken over and known to fit."""
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef FgValue *v
    if x.shape == NULL:
        v = NULL
        try:
            v = number_value(0, FG_FLOAT64)
            operand_store(v.data, x, x.dtype)
        except BaseException:
            if v != NULL:
                value_release(v)
            shape_release(shape)
            raise
    else:
        strides_of(x.shape, x.value, item_size(x.dtype), own)
        fg_strides_broadcast(shape.rank, x.shape.rank, x.shape.dims, own, strides)
        v = seen_as(x, x.value.data, shape, strides)
    return push_shaped(FG_broadcast, x.dtype, 0, shape, v, 0, x, NULL, 0, 0)


cdef int reverse_broadcast(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                           double number) except -1:
    cdef FgValue *g = adjoint[0]
    cdef FgNode *x = node_at(n.a)
    if x.rank == 0:
        return contribute_number(s, n.a, round_to(n.dtype, sum_all(n.shape, g, n.dtype)))
    return contribute_value(s, n.a, sum_to(n.shape, g, x.shape, n.dtype))


cdef FgValue *sum_to(FgShape *shape, FgValue *v, FgShape *out, int dtype) except NULL:
    """Summed over the axes that `out` has not, or has with length 1."""
    cdef Walker w
    cdef FgValue *wide = pool_take(out.size * 8)
    memset(wide.data, 0, out.size * 8)
    walker_set(&w, shape, out, wide, FG_FLOAT64)
    try:
        walk_add(&w, shape, v, dtype, True)
        return value_narrow(wide, out, dtype)
    finally:
        value_release(wide)


cdef int walk_add(Walker *w, FgShape *shape, FgValue *v, int dtype, bint sums) except -1:
    """Add the entries of a value to the places that a walk visits: float64 sums; or entries of its
    dtype, no two of which are the same."""
    cdef Scratch scratch
    cdef Lane lane
    cdef Source source
    cdef char *block
    cdef int64_t start = 0, n
    cdef const FgLoops *loops = loops_of(dtype)
    scratch_begin(&scratch)
    source.shape = shape
    source.value = v
    source.dtype = <uint8_t>dtype
    try:
        lane_set(&lane, &source, shape, dtype, &scratch)
        with nogil:
            while start < shape.size:
                n = shape.size - start if shape.size - start < FG_BLOCK else FG_BLOCK
                block = lane_block(&lane, start, n, loops)
                if sums:
                    fg_walk_sum(&w.walk, w.data, start, n, block, dtype, loops)
                else:
                    fg_walk_add(&w.walk, w.data, start, n, block, dtype, loops)
                start += n
    finally:
        scratch_clear(&scratch)
    return 0


cdef Tensor pull_broadcast(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    cdef FgNode *x = node_at(n.a)
    return fit(g, x.shape if x.rank else NULL)


cdef Tensor forward_broadcast(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return spread(tangents[0], n.shape)

shaped_rules[FG_broadcast] = ShapedRule(
    reverse_broadcast, pull_broadcast, forward_broadcast, NULL, NULL)


# ---- flip -----------------------------------------------------------------------------------

cdef FgValue *flip_view(FgShape *shape, FgValue *v, uint64_t axes, int dtype) except NULL:
    cdef int64_t strides[64]
    cdef char *data = v.data
    cdef int i
    strides_of(shape, v, item_size(dtype), strides)
    for i in range(shape.rank):
        if axes >> i & 1 and shape.dims[i]:
            data += (shape.dims[i] - 1) * strides[i]
            strides[i] = -strides[i]
    return adjoint_seen(v, data, shape, strides, dtype)


cdef Tensor push_flip(Operand *x, uint64_t axes):
    cdef int64_t mask = <int64_t>axes
    cdef FgValue *v = flip_view(x.shape, x.value, axes, x.dtype)
    return push_kept(FG_flip, x, shape_ref(x.shape), v, 1, &mask, None)


cdef int reverse_flip(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint, double number) except -1:
    return contribute_value(s, n.a, flip_view(n.shape, adjoint[0],
                                              <uint64_t>attr_items(n.attr)[0], n.dtype))


cdef Tensor pull_flip(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    return flip_tensor(g, flip_axes(n))


cdef Tensor forward_flip(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return flip_tensor(tangents[0], flip_axes(n))


cdef object flip_axes(FgNode *n):
    cdef uint64_t axes = <uint64_t>attr_items(n.attr)[0]
    return tuple([i for i in range(n.rank) if axes >> i & 1])

shaped_rules[FG_flip] = ShapedRule(reverse_flip, pull_flip, forward_flip, flip_axes, NULL)


# ---- cast -----------------------------------------------------------------------------------

cdef Tensor push_cast(Operand *x, int dtype):
    """Between float32 and float64; for programs, from integers and booleans to them, too."""
    cdef FgValue *v
    cdef Operand y
    if x.shape == NULL:
        return push_shaped(FG_cast, dtype, 0, NULL, NULL, round_to(dtype, x.number), x, NULL, 0, 0)
    if x.value == NULL:
        x.value = value_of(x.node, x.id)
    if not is_float(x.dtype):
        operand_clear(&y)
        operand_replace(&y, operand_ndarray(x).astype(dtypes[dtype]))
        v = value_ref(y.value)
        operand_drop(&y)
    else:
        v = value_cast(x.shape, x.value, x.dtype, dtype)
    return push_shaped(FG_cast, dtype, 0, shape_ref(x.shape), v, 0, x, NULL, 0, 0)


cdef FgValue *value_cast(FgShape *shape, FgValue *value, int dtype, int to) except NULL:
    cdef FgValue *w = value_contiguous(shape, value, dtype)
    cdef FgValue *v
    cdef int64_t i
    try:
        v = pool_take(shape.size * item_size(to))
        if dtype == to:
            memcpy(v.data, w.data, shape.size * item_size(to))
        elif to == FG_FLOAT64:
            for i in range(shape.size):
                (<double *>v.data)[i] = (<float *>w.data)[i]
        else:
            for i in range(shape.size):
                (<float *>v.data)[i] = <float>(<double *>w.data)[i]
    finally:
        value_release(w)
    return v


cdef int reverse_cast(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint, double number) except -1:
    cdef FgNode *x = node_at(n.a)
    if n.rank == 0:
        return contribute_number(s, n.a, round_to(x.dtype, number))
    return contribute_value(s, n.a, value_cast(n.shape, adjoint[0], n.dtype, x.dtype))


cdef Tensor cast_plain(Tensor t, int dtype):
    cdef Operand x
    if t.node.dtype == dtype:
        return t
    operand_tensor_ready(t, &x)
    return push_cast(&x, dtype)


cdef Tensor pull_cast(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    return cast_plain(g, node_at(n.a).dtype)


cdef Tensor forward_cast(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return cast_plain(tangents[0], n.dtype)

shaped_rules[FG_cast] = ShapedRule(reverse_cast, pull_cast, forward_cast, NULL, NULL)


# ---- concatenate ----------------------------------------------------------------------------

cdef object push_concatenate(object arrays, object axis, bint scalars):
    """Arrays joined along an axis; with `scalars`, 0-d operands to a vector."""
    cdef list items = list(arrays)
    cdef int count = <int>len(items), i, weak, dtype, rank = 0
    cdef FgValue *memory
    cdef FgValue *out = NULL
    cdef Operand *x
    cdef Operand *before
    cdef bint needs = False, held = False
    cdef uint32_t attr
    cdef object parts, sizes, name, function
    cdef tuple more
    cdef FgShape *shape
    cdef int64_t dims[64]
    cdef int along
    cdef Tensor t
    if count == 0:
        raise ValueError("concatenate: need at least one array")
    if axis is None:
        items = [push_ravel(item) for item in items]
        axis = 0
    items = [operand_settled(item) for item in items]
    memory = pool_take(2 * count * sizeof(Operand))
    x = <Operand *>memory.data
    before = x + count
    for i in range(count):
        operand_clear(&x[i])
    try:
        for i in range(count):
            operand_ready(items[i], &x[i])
            needs = needs or x[i].needs
            x[i].strong = True          # [np.float32(1), 1.0] is float64 in NumPy
            if x[i].shape == NULL and not scalars:
                raise ValueError("concatenate: zero-dimensional arrays cannot be concatenated; "
                                 "use fastgrad.numpy.stack or fastgrad.numpy.array([...])")
        if not scalars:                 # NumPy converts and joins without the GIL
            held = True
            for i in range(count):      # gcc 16 warns of a memcpy whose count might be negative
                before[i] = x[i]
            operands_hold(before, count)
        dtype = common_dtype(x, count, &weak)
        name, function, more = (("numpy.array", np.array, ()) if scalars
                                else ("numpy.concatenate", np.concatenate, (axis,)))
        if dtype == -2 and needs:
            return derived(name, function, (items, *more), {})
        if dtype == -2 or not needs:
            parts = [operand_ndarray(&x[i]) for i in range(count)]
            return made_joined(mask_noted(tensor_constant(function(parts, *more)), x, count),
                               name, function, (items, *more))
        for i in range(count):
            operand_convert(&x[i], dtype)
            if x[i].shape != NULL and x[i].value == NULL:
                x[i].value = value_of(x[i].node, x[i].id)
        rank = 1 if scalars else x[0].shape.rank
        along = axis_of(axis, rank, "concatenate")
        for i in range(rank):
            dims[i] = 1 if scalars else x[0].shape.dims[i]
        sizes = [1] * count if scalars else []
        for i in range(0 if scalars else count):
            if x[i].shape.rank != rank:
                raise ValueError(
                    "concatenate: all the input arrays must have the same number of dimensions, "
                    "but the shapes are " + ", ".join(shape_text(x[k].shape) for k in range(count)))
            for k in range(rank):
                if k != along and x[i].shape.dims[k] != dims[k]:
                    raise ValueError(
                        "concatenate: the shapes must agree except along the axis "
                        f"{along}: " + ", ".join(shape_text(x[k].shape) for k in range(count)))
            sizes.append(x[i].shape.dims[along])
        dims[along] = 0
        for size in sizes:
            dims[along] += <int64_t>size
        shape = shape_new(rank, dims)
        try:
            out = pool_take(shape.size * item_size(dtype))
            if scalars:
                for i in range(count):
                    number_store(out.data + i * item_size(dtype), x[i].number, dtype)
            else:
                np.concatenate([operand_ndarray(&x[i]) for i in range(count)], along,
                               out=value_ndarray(shape, out, dtype, True))
            attr = concatenate_attr(x, count, along, tuple(sizes))
        except BaseException:
            shape_release(shape)
            if out != NULL:
                value_release(out)
            raise
        return push_shaped(FG_concatenate, dtype, 0, shape, out, 0, NULL, NULL, attr, 0)
    finally:
        operands_drop(x, count)
        if held:
            operands_let_go(before, count)
        value_release(memory)


cdef uint32_t concatenate_attr(Operand *x, int count, int along, tuple sizes) except 0:
    """The axis and the identities of the operands, each counted once more."""
    cdef int64_t *ids = <int64_t *>fg_calloc(count + 1, 8)
    cdef int i
    if ids == NULL:
        raise MemoryError()
    ids[0] = along
    try:
        for i in range(count):
            if x[i].needs:
                ids[i + 1] = x[i].id
                x[i].node.refs += 1
            elif get_keeping():
                ids[i + 1] = leaf_constant(&x[i])
        return attr_new(count + 1, ids, sizes)
    except BaseException:
        for i in range(count):
            if ids[i + 1]:
                node_drop(<uint32_t>ids[i + 1])
        raise
    finally:
        fg_free(ids)


cdef int axis_of(object axis, int rank, str name) except -1:
    cdef int64_t a = PyNumber_AsSsize_t(axis, NULL)      # clipped: out of bounds
    if a < -rank or a >= rank:
        raise np.exceptions.AxisError(f"{name}: axis {axis} is out of bounds for array of dimension "
                                      f"{rank}")
    return <int>(a + rank if a < 0 else a)


cdef int reverse_concatenate(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                             double number) except -1:
    cdef FgValue *g = adjoint[0]
    cdef int64_t strides[64]
    cdef int64_t at = 0
    cdef int along = <int>attr_items(n.attr)[0]
    cdef object sizes = attr_object(n.attr)
    cdef int i
    cdef uint32_t x
    strides_of(n.shape, g, item_size(n.dtype), strides)
    for i in range(len(sizes)):
        x = <uint32_t>attr_items(n.attr)[i + 1]
        if x and wanted(s, x):
            if node_at(x).rank == 0:
                contribute_number(s, x, scalar_number(g.data + at * strides[along], n.dtype))
            else:
                contribute_value(s, x, adjoint_seen(g, g.data + at * strides[along],
                                                    node_at(x).shape, strides, n.dtype))
        at += <int64_t>sizes[i]
    return 0


cdef Tensor pull_concatenate(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    cdef int along = <int>attr_items(n.attr)[0]
    cdef tuple sizes = attr_object(n.attr)
    cdef int i
    cdef int64_t at = 0
    cdef uint32_t x
    cdef tuple before = (slice(None),) * along
    for i in range(len(sizes)):
        x = <uint32_t>attr_items(n.attr)[i + 1]
        if x and s.find(x) != NULL:
            s.add(x, item_tensor(g, at if node_at(x).rank == 0
                                 else before + (slice(at, at + sizes[i]),)))
        at += <int64_t>sizes[i]
    return None


cdef Tensor forward_concatenate(FgNode *n, uint32_t id, list tangents, Tensor finite):
    cdef tuple sizes = attr_object(n.attr)
    cdef int along = <int>attr_items(n.attr)[0]
    cdef int i
    cdef list parts = [], dims
    cdef bint scalars = False
    for t in tangents:
        scalars = scalars or (t is not None and (<Tensor>t).node.rank == 0)
    for i in range(len(sizes)):
        t = tangents[i]
        if t is None:
            dims = list(tensor_dims(n))
            dims[along] = sizes[i]
            t = dtypes[n.dtype].type(0) if scalars else vouch(np.zeros(dims, dtype=dtypes[n.dtype]))
        parts.append(t)
    return push_concatenate(parts, along, scalars)


cdef object concatenate_attribute(FgNode *n):
    return attr_items(n.attr)[0], attr_object(n.attr)

shaped_rules[FG_concatenate] = ShapedRule(
    reverse_concatenate, pull_concatenate, forward_concatenate, concatenate_attribute, NULL)
