"""Reductions along axes: sum; prod, max, min and logsumexp, which keep their operand.

Each with its value, its adjoint with numbers (`reverse_`) and recorded (`pull_`), and its tangent
(`forward_`)."""


# ---- axes -----------------------------------------------------------------------------------

cdef inline uint64_t all_axes(int rank) noexcept nogil:
    return (<uint64_t>1 << rank) - 1 if rank < 64 else ~<uint64_t>0


cdef int axes_of(object axis, int rank, uint64_t *mask, str name) except -1:
    """The axes to reduce over as bits: an int, a tuple, or None for all."""
    cdef int a
    mask[0] = 0
    if axis is None:
        mask[0] = all_axes(rank)
        return 0
    if type(axis) is not tuple:
        if rank == 0 and name != "flip" and axis in (0, -1):
            return 0                    # which NumPy's ufuncs allow
        axis = (axis,)
    for item in axis:
        a = axis_of(item, rank, name)
        if mask[0] >> a & 1:
            raise ValueError(f"{name}: duplicate value in 'axis' {axis}")
        mask[0] |= <uint64_t>1 << a
    return 0


cdef FgShape *reduced_shape(FgShape *shape, uint64_t mask, bint keepdims) except? NULL:
    """The shape after reducing the masked axes; NULL for a scalar."""
    cdef int64_t dims[64]
    cdef int i, r = 0
    for i in range(shape.rank):
        if not mask >> i & 1:
            dims[r] = shape.dims[i]
            r += 1
        elif keepdims:
            dims[r] = 1
            r += 1
    if r == 0:
        return NULL
    return shape_new(r, dims)


cdef uint64_t reduction_mask(FgNode *n, FgNode *x) noexcept:
    """The axes that a reduction ran over."""
    return <uint64_t>attr_items(n.attr)[0] if n.attr else all_axes(x.rank)


cdef object reduction_attribute(FgNode *n):
    """The axes that were summed over, or multiplied."""
    cdef FgNode *x = node_at(n.a)
    return tuple([i for i in range(x.rank) if reduction_mask(n, x) >> i & 1])


cdef Tensor expand(Tensor t, FgNode *n, FgNode *x):
    """Something of the shape of a reduction's result, in the shape of its operand."""
    cdef uint64_t mask = reduction_mask(n, x)
    cdef int64_t dims[64]
    cdef int i
    cdef Operand o
    if x.rank == 0:
        return reshape_plain(t, ())
    if t.node.rank != x.rank and t.node.rank:
        for i in range(x.rank):
            dims[i] = 1 if mask >> i & 1 else x.shape.dims[i]
        operand_tensor_ready(t, &o)
        t = push_reshape(&o, x.rank, dims)
    return spread(t, x.shape)


cdef Tensor reduce_as(Tensor t, FgNode *n, FgNode *x):
    """Summed as a reduction's operand was reduced."""
    cdef Operand o
    if x.rank == 0:
        return reshape_plain(t, tensor_dims(n))
    operand_clear(&o)
    operand_tensor(t, &o)
    return reshape_plain(push_sum(&o, reduction_mask(n, x), False), tensor_dims(n))


# ---- sum ------------------------------------------------------------------------------------

cdef Tensor push_sum(Operand *x, uint64_t mask, bint keepdims):
    """The sum over the masked axes of a float operand."""
    cdef Total total
    cdef double number = 0
    cdef FgShape *out
    cdef FgShape *kept
    cdef FgValue *v
    cdef int64_t bits = <int64_t>mask
    if x.shape == NULL:
        return push_shaped(FG_sum, x.dtype, FG_PYTHON if x.weak else 0, NULL, NULL, x.number, x,
                           NULL, 0, 0)
    if mask == all_axes(x.shape.rank) and not keepdims:
        if x.value == NULL:
            total.count = 0
            run_flush(directory[x.id >> FG_SEGMENT_BITS].tape, x.node, &total)
            number = total_value(&total)
        elif x.shape.size >= UNLOCK:
            with nogil:
                number = sum_all(x.shape, x.value, x.dtype)
        else:
            number = sum_all(x.shape, x.value, x.dtype)
        return push_shaped(FG_sum, x.dtype, 0, NULL, NULL, round_to(x.dtype, number), x, NULL, 0, 0)
    if x.value == NULL:
        x.value = value_of(x.node, x.id)
    kept = reduced_shape(x.shape, mask, True)
    try:
        v = sum_to(x.shape, x.value, kept, x.dtype)
    finally:
        shape_release(kept)
    try:
        out = reduced_shape(x.shape, mask, keepdims)
    except BaseException:
        value_release(v)
        raise
    return push_kept(FG_sum, x, out, v, 1, &bits, None)


cdef int reverse_sum(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint, double number) except -1:
    """Every entry that was summed gets the adjoint of its sum: a view, nothing is stored."""
    cdef FgValue *g = adjoint[0]
    cdef FgNode *x = node_at(n.a)
    if x.rank == 0:
        contribute_number(s, n.a, number)
    elif n.rank == 0:
        contribute_value(s, n.a, number_value(number, n.dtype))
    else:
        contribute_value(s, n.a, expand_view(x.shape, n.shape, g, <uint64_t>attr_items(n.attr)[0],
                                             n.dtype))
    return 0


cdef FgValue *expand_view(FgShape *full, FgShape *shape, FgValue *g, uint64_t mask,
                          int dtype) except NULL:
    """A reduced array seen in the shape before the reduction, kept axes or not."""
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int i, r = 0
    cdef bint keepdims = shape.rank == full.rank
    strides_of(shape, g, item_size(dtype), own)
    for i in range(full.rank):
        if mask >> i & 1:
            strides[i] = 0
            r += keepdims
        else:
            strides[i] = own[r]
            r += 1
    return adjoint_seen(g, g.data, full, strides, dtype)


cdef Tensor pull_sum(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    return expand(g, n, node_at(n.a))


cdef Tensor forward_sum(FgNode *n, uint32_t id, list tangents, Tensor finite):
    return reduce_as(tangents[0], n, node_at(n.a))

shaped_rules[FG_sum] = ShapedRule(reverse_sum, pull_sum, forward_sum, reduction_attribute, NULL)


# ---- prod, max, min, logsumexp --------------------------------------------------------------

# An array seen as rows to be reduced, whatever the axes (src/reduce.h).
cdef struct Rows:
    FgWalk walk                 # of the axes below
    int64_t dims[64]
    int64_t strides[64]
    int64_t count, length
    int64_t together            # rows that are worked on at a time


cdef void rows_set(Rows *r, FgShape *shape, FgValue *value, int dtype, uint64_t mask) noexcept nogil:
    cdef int64_t own[64]
    strides_of(shape, value, item_size(dtype), own)
    r.walk = fg_walk_rows(shape.rank, shape.dims, own, mask, r.dims, r.strides, &r.count, &r.length)
    r.together = fg_rows_together(r.length)


cdef void rows_run(int op, Rows *r, int dtype, char *data, const char *g, char *out, char *block,
                   double *top) noexcept nogil:
    """One number a row to `out`; or with g, the adjoints of the rows, the adjoints of all entries, row
    after row."""
    cdef const FgLoops *loops = loops_of(dtype)
    cdef int64_t start = 0, n, item = item_size(dtype)
    while start < r.count:
        n = r.together if r.count - start > r.together else r.count - start
        if g != NULL:
            block = out + start * r.length * item
        fg_walk_gather(&r.walk, data, start * r.length, n * r.length, block, item)
        if g != NULL:
            fg_rows_weigh(op, loops, block, n, r.length, top, g, start, dtype == FG_FLOAT64)
        else:
            fg_rows_reduce(op, loops, block, n, r.length, top, out, start, dtype == FG_FLOAT64)
        start += n


cdef object push_reduction(int op, Operand *x, uint64_t mask, bint keepdims):
    """A reduction of a float operand."""
    cdef Rows r
    cdef FgShape *shape = NULL
    cdef FgValue *out = NULL
    cdef Scratch scratch
    cdef double *top
    cdef char *block
    cdef double number
    cdef int64_t bits = <int64_t>mask
    if x.shape == NULL:
        return push_reshape(x, 0, NULL)
    rows_set(&r, x.shape, x.value, x.dtype, mask)
    if r.length == 0 and (op == FG_max or op == FG_min):
        raise ValueError(f"{fg_op_info[op].name.decode()}: zero-size array of shape "
                         f"{shape_text(x.shape)} has no {fg_op_info[op].name.decode()}imum "
                         "along these axes")
    scratch_begin(&scratch)
    try:
        shape = reduced_shape(x.shape, mask, keepdims)
        out = pool_take(r.count * item_size(x.dtype))
        if r.count == 1 and r.length and op != FG_logsumexp and op != FG_prod and x.value.contiguous \
                and not x.value.uniform:
            number = (loops_of(x.dtype).max if op == FG_max else loops_of(x.dtype).min)(
                x.value.data, r.length)
            number_store(out.data, number, x.dtype)
        elif r.count:
            block = scratch_take(&scratch, r.together * r.length * item_size(x.dtype))
            top = <double *>scratch_take(&scratch, r.together * 8)
            with nogil:
                rows_run(op, &r, x.dtype, x.value.data, NULL, out.data, block, top)
        if shape == NULL:
            return push_entry(op, x, out.data, attr_new(1, &bits, None) if x.needs else 0, 0)
        return push_kept(op, x, shape_ref(shape), value_ref(out), 1, &bits, None)
    finally:
        scratch_clear(&scratch)
        if shape != NULL:
            shape_release(shape)
        if out != NULL:
            value_release(out)


cdef int reverse_reduction(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                           double number) except -1:
    return contribute_value(s, n.a, reduction_weights(n, node_at(n.a), adjoint[0], number))


cdef FgValue *reduction_weights(FgNode *n, FgNode *x, FgValue *g, double number) except NULL:
    """The partials of a reduction with respect to every entry, times the adjoint of its row."""
    cdef uint64_t mask = <uint64_t>attr_items(n.attr)[0]
    cdef Rows r
    cdef Scratch scratch
    cdef FgValue *out = NULL
    cdef FgValue *rows = NULL
    cdef double *top
    cdef int64_t strides[64]
    cdef int64_t step
    cdef int i, reduced
    rows_set(&r, x.shape, x.value, x.dtype, mask)
    scratch_begin(&scratch)
    try:
        out = pool_take(x.shape.size * item_size(x.dtype))
        if n.rank:
            rows = value_contiguous(n.shape, g, n.dtype)
        else:
            rows = number_value(number, n.dtype)
        if x.shape.size:
            top = <double *>scratch_take(&scratch, r.together * 8)
            with nogil:
                rows_run(n.op, &r, n.dtype, x.value.data, rows.data, out.data, NULL, top)
        # Back to the operand's order of axes: a view.
        step = item_size(n.dtype)
        for reduced in range(1, -1, -1):
            for i in range(x.rank - 1, -1, -1):
                if <int>(mask >> i & 1) == reduced:
                    strides[i] = step
                    step *= x.shape.dims[i]
        return value_strided(out, out.data, x.shape, strides, item_size(n.dtype))
    finally:
        scratch_clear(&scratch)
        if rows != NULL:
            value_release(rows)
        if out != NULL:
            value_release(out)


cdef unsigned int operand_read(FgNode *n) noexcept:
    return FG_A


cdef unsigned int operand_and_result_read(FgNode *n) noexcept:
    return FG_A | FG_Y


cdef Tensor row_partials(FgNode *n, uint32_t id):
    """The partials of prod, max, min and logsumexp with respect to every entry."""
    if n.op == FG_prod:
        return others(node_tensor(n.a), n, node_at(n.a))
    if n.op == FG_logsumexp:
        return softmax_of(n, id, node_at(n.a))
    return weights_constant(n, node_at(n.a))


cdef Tensor pull_reduction(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    cdef Tensor wide = expand(g, n, node_at(n.a))
    if n.op == FG_max or n.op == FG_min:        # they select: what they do not take has no path
        return emit_two(FG_weigh, wide, row_partials(n, id))
    return emit_chain(wide, row_partials(n, id), s.finite)


cdef Tensor forward_reduction(FgNode *n, uint32_t id, list tangents, Tensor finite):
    cdef Tensor p = row_partials(n, id)
    if n.op == FG_max or n.op == FG_min:
        p = emit_two(FG_weigh, tangents[0], p)
    else:
        p = emit_chain(p, tangents[0], finite)
    return reduce_as(p, n, node_at(n.a))

shaped_rules[FG_prod] = shaped_rules[FG_max] = shaped_rules[FG_min] = ShapedRule(
    reverse_reduction, pull_reduction, forward_reduction, reduction_attribute, operand_read)
shaped_rules[FG_logsumexp] = ShapedRule(
    reverse_reduction, pull_reduction, forward_reduction, reduction_attribute,
    operand_and_result_read)


cdef Tensor others(Tensor x, FgNode *n, FgNode *nx):
    """For each entry the product of the others along the reduced axes: the products of those
    before and of those after it, each by doubling, without a division."""
    cdef uint64_t mask = reduction_mask(n, nx)
    cdef tuple shape = x.shape
    cdef list kept, reduced, order
    cdef Tensor rows, before, after
    if nx.rank == 0:
        return scalar_constant(1, nx.dtype, 0)
    kept = [i for i in range(nx.rank) if not mask >> i & 1]
    reduced = [i for i in range(nx.rank) if mask >> i & 1]
    order = kept + reduced
    length = 1
    for i in reduced:
        length *= shape[i]
    rows = transpose_tensor(x, order)
    moved = rows.shape
    rows = reshape_tensor(rows, tuple([shape[i] for i in kept]) + (length,))
    before = products_before(rows)
    after = flip_tensor(products_before(flip_tensor(rows, (rows.ndim - 1,))), (rows.ndim - 1,))
    rows = emit_two(FG_multiply, before, after)
    return transpose_tensor(reshape_plain(rows, moved), np.argsort(order))


cdef Tensor products_before(Tensor rows):
    """The products of all entries before each along the last axis."""
    cdef int64_t length = rows.shape[rows.ndim - 1]
    cdef int64_t step = 1
    cdef Tensor p
    if length == 0:
        return rows
    p = moved_on(rows, 1)
    while step < length:
        p = emit_two(FG_multiply, p, moved_on(p, step))
        step *= 2
    return p


cdef Tensor moved_on(Tensor rows, int64_t step):
    """Entries moved towards the end of the last axis, ones put in."""
    cdef int last = rows.node.rank - 1
    cdef int64_t length = rows.node.shape.dims[last]
    cdef object ones = vouch(np.ones(rows.shape[:last] + (step if step < length else length,),
                                     dtype=rows.dtype))
    return push_concatenate([ones, item_tensor(rows, (Ellipsis, slice(0, -step)))], last, False)


cdef Tensor weights_constant(FgNode *n, FgNode *x):
    """The partials of max, min and logsumexp with respect to every entry, as constants."""
    cdef FgValue *g
    cdef FgValue *w
    if mode().recorder != NULL:
        return derived("fastgrad.weights_" + fg_op_info[n.op].name.decode(), reduction_weights_of,
                       (node_tensor(n.a), fg_op_info[n.op].name.decode(), graph_attribute(n)), {})
    g = number_value(1, n.dtype)
    try:
        w = reduction_weights(n, x, g, 1)
    finally:
        value_release(g)
    return tensor_of_value(shape_ref(x.shape), w, n.dtype)


def reduction_weights_of(array, name, axes):
    """The partials of max, min and logsumexp of an array along axes with respect to its entries.

    Files name it, with whatever operands.
    """
    cdef Tensor x = tensor(array)
    cdef Tensor y
    cdef Unseen unseen
    cdef int op = FG_max if name == "max" else FG_min if name == "min" else FG_logsumexp
    if name not in ("max", "min", "logsumexp"):
        raise ValueError(f"reduction_weights_of: name is {name!r}; it is one of 'max', 'min' and "
                         "'logsumexp'")
    if not is_float(x.node.dtype):
        raise TypeError(f"reduction_weights_of: array has dtype {x.dtype}, and no derivative; write "
                        ".astype(float)")
    if type(axes) is not tuple:
        raise TypeError(f"reduction_weights_of: axes is {axes!r}; give a tuple of ints")
    unseen = Unseen()
    try:
        leaf_require(x.node, True)
        y = reduced(op, x, axes, False)
        if y.node.op != op:                 # of no axes: nothing is reduced
            return np.ones(x.shape, x.dtype)
        return tensor_value(weights_constant(y.node, x.node))
    finally:
        leaf_require(x.node, False)
        unseen.end()

def all_finite(array):
    """Whether all entries are finite."""
    return bool(np.isfinite(array).all())


cdef Tensor softmax_of(FgNode *n, uint32_t id, FgNode *x):
    """exp(x - y): the partials of logsumexp. Where y is infinite they are constants."""
    cdef Tensor y = node_tensor(id)
    cdef Tensor d = emit_two(FG_subtract, node_tensor(n.a), expand(y, n, x))
    cdef Arg a[3]
    cdef Recorder r = recorder()
    # The body of a loop is recorded once for all values: there the choice is made by a mask.
    if not (r is not None and r.places_move) and derived("fastgrad.all_finite", all_finite, (y,), {}):
        return emit_one(FG_exp, d)
    mask = derived("numpy.isfinite", np.isfinite, (expand(y.detach(), n, x),), {})
    a[0] = arg_tensor(d)
    a[1] = arg_number(0)
    a[2] = arg_tensor(mask)
    d = emit_one(FG_exp, emit(FG_where, 3, a))
    rest = weights_constant(n, x)
    a[0] = arg_tensor(d)
    a[1] = arg_tensor(rest)
    return emit(FG_where, 3, a)

# ---- running sums ---------------------------------------------------------------------------

cdef void running_row(const char *x, cython.floating *y, int64_t n, int64_t step) noexcept nogil:
    """One addition after the other, as NumPy does, whose loop takes 3.9 ns an entry; this one 1.4."""
    cdef int64_t i
    y[0] = (<const cython.floating *>x)[0]
    cdef cython.floating total = y[0]
    for i in range(1, n):
        total += (<const cython.floating *>(x + i * step))[0]
        y[i] = total


def running_sums(ndarray a, axis):
    """`numpy.cumsum(a, axis)`, the same bits."""
    cdef int kind = PyArray_TYPE(a)
    cdef int64_t n, rows, step, i, item
    cdef ndarray y
    cdef const char *data
    cdef char *to
    cdef int ndim = PyArray_NDIM(a)
    if not is_float(kind) or not ndim or axis not in (-1, ndim - 1) or not array_fits(a) or not (
            ndim == 1 or PyArray_IS_C_CONTIGUOUS(a)):
        return np.cumsum(a, axis)
    item = item_size(kind)
    n = PyArray_DIMS(a)[ndim - 1]
    rows = a.size // n if n else 0
    step = PyArray_STRIDES(a)[0] if ndim == 1 else item
    y = np.empty((<object>a).shape, dtypes[kind])
    data, to = <const char *>PyArray_DATA(a), <char *>PyArray_DATA(y)
    with nogil:
        for i in range(rows):
            if kind == FG_FLOAT64:
                running_row(data + i * n * item, <double *>to + i * n, n, step)
            else:
                running_row(data + i * n * item, <float *>to + i * n, n, step)
    return y
