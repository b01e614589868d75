"""The matrix product, its adjoint with numbers (`reverse_`) and recorded (`pull_`), and its tangent
(`forward_`). How BLAS is reached stands in rules/blas.pyx."""


cdef object push_matmul(object left, object right):
    """a @ b for every combination of ranks that NumPy has."""
    cdef Operand x[2]
    cdef Operand before[2]
    cdef int weak, dtype, i
    cdef bint held = False
    cdef FgShape *shape = NULL
    cdef FgValue *v = NULL
    cdef double number = 0
    left, right = operand_settled(left), operand_settled(right)
    operand_clear(&x[0])
    operand_clear(&x[1])
    try:
        operand_ready(left, &x[0])
        operand_ready(right, &x[1])
        for i in range(2):
            if x[i].shape == NULL:
                raise ValueError(
                    f"matmul: input operand {i} is a scalar; shapes {shape_text(x[0].shape)} and "
                    f"{shape_text(x[1].shape)}: multiply with * instead")
        memcpy(before, x, sizeof(before))
        operands_hold(before, 2)
        held = True
        dtype = common_dtype(x, 2, &weak)
        if dtype == -2 and (x[0].needs or x[1].needs):
            return derived("numpy.matmul", np.matmul, (left, right), {})
        if dtype == -2:
            return made_joined(
                mask_noted(tensor_constant(np.matmul(operand_ndarray(&x[0]),
                                                     operand_ndarray(&x[1]))), x, 2),
                "numpy.matmul", np.matmul, (left, right))
        for i in range(2):
            operand_convert(&x[i], dtype)
            if x[i].value == NULL:
                x[i].value = value_of(x[i].node, x[i].id)
        shape = matmul_shape(x[0].shape, x[1].shape)
        try:
            v = matmul_value(x[0].shape, x[0].value, x[1].shape, x[1].value, shape, dtype)
        except BaseException:
            if shape != NULL:
                shape_release(shape)
            raise
        if shape == NULL:
            number = scalar_number(v.data, dtype)
            value_release(v)
            v = NULL
        return made_product(
            push_shaped(FG_matmul, dtype, 0, shape, v, number, &x[0], &x[1], 0, 0), x)
    finally:
        operands_drop(x, 2)
        if held:
            operands_let_go(before, 2)


cdef FgShape *matmul_shape(FgShape *a, FgShape *b) except? NULL:
    """The shape of a @ b; NULL for a scalar."""
    cdef int64_t dims[66]
    cdef int ra = a.rank - 2 if a.rank > 2 else 0
    cdef int rb = b.rank - 2 if b.rank > 2 else 0
    cdef int r = ra if ra > rb else rb
    cdef int i, n = 0
    cdef int64_t p, q
    if a.dims[a.rank - 1] != (b.dims[0] if b.rank == 1 else b.dims[b.rank - 2]):
        raise ValueError(f"matmul: shapes {shape_text(a)} and {shape_text(b)} do not match: the "
                         f"last axis of the first has length {a.dims[a.rank - 1]}, the "
                         f"{'only' if b.rank == 1 else 'second last'} axis of the second "
                         f"{b.dims[0] if b.rank == 1 else b.dims[b.rank - 2]}")
    for i in range(r):
        p = a.dims[i - (r - ra)] if i >= r - ra else 1
        q = b.dims[i - (r - rb)] if i >= r - rb else 1
        if p != q and p != 1 and q != 1:
            raise ValueError(f"matmul: the batch axes of shapes {shape_text(a)} and "
                             f"{shape_text(b)} could not be broadcast together")
        dims[n] = q if p == 1 else p
        n += 1
    if a.rank > 1:
        dims[n] = a.dims[a.rank - 2]
        n += 1
    if b.rank > 1:
        dims[n] = b.dims[b.rank - 1]
        n += 1
    if n == 0:
        return NULL
    return shape_new(n, dims)


cdef FgValue *matmul_value(FgShape *a, FgValue *va, FgShape *b, FgValue *vb, FgShape *shape,
                           int dtype) except NULL:
    """The product, by NumPy's own BLAS loop."""
    cdef FgValue *v = pool_take((shape.size if shape != NULL else 1) * item_size(dtype))
    try:
        if not matmul_direct(a, va, b, vb, shape, v, dtype):
            out = value_ndarray(shape, v, dtype, True) if shape != NULL else None
            result = np.matmul(value_ndarray(a, va, dtype, False), value_ndarray(b, vb, dtype, False),
                               out=out) if shape != NULL else np.matmul(
                               value_ndarray(a, va, dtype, False), value_ndarray(b, vb, dtype, False))
            if shape == NULL:
                number_store(v.data, result, dtype)
    except BaseException:
        value_release(v)
        raise
    return v


cdef int reverse_matmul(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                        double number) except -1:
    """a_bar = g b', b_bar = a' g, with vectors as one-row or one-column matrices."""
    cdef FgValue *g = adjoint[0]
    cdef object gradient, a = None, b = None
    cdef FgNode *x = node_at(n.a) if n.a else NULL
    cdef FgNode *y = node_at(n.b) if n.b else NULL
    cdef int rank_a = x.rank if x != NULL else 0
    cdef int rank_b = y.rank if y != NULL else 0
    if matmul_info[0] != NULL and rank_a <= 2 and rank_b <= 2 and n.a and n.b:
        return reverse_matmul_direct(s, n, g, number, x, y)
    gradient = value_ndarray(n.shape, g, n.dtype, False) if n.rank else np.asarray(
        number, dtype=dtypes[n.dtype])
    if x != NULL and x.value != NULL:
        a = node_ndarray(x)
    if y != NULL and y.value != NULL:
        b = node_ndarray(y)
    if n.a and wanted(s, n.a):
        reverse_matmul_one(s, n.a, gradient, b, rank_a, True)
    if n.b and wanted(s, n.b):
        reverse_matmul_one(s, n.b, gradient, a, rank_b, False)
    return 0


cdef int reverse_matmul_direct(Sweep *s, FgNode *n, FgValue *g, double number, FgNode *x,
                               FgNode *y) except -1:
    """The same without a batch, straight to BLAS: a vector is a matrix of one row or column, and
    a transposed matrix the same memory with its strides exchanged."""
    cdef int64_t item = item_size(n.dtype)
    cdef int64_t own[64]
    cdef int64_t a_m = 0, a_k, b_k, b_n = 0, g_m = 0, g_n = 0, m = 1, k, p = 1
    cdef FgValue *v
    cdef double wide
    cdef float narrow
    cdef char *gradient
    k = x.shape.dims[x.rank - 1]
    if x.rank == 2:
        m = x.shape.dims[0]
    if y.rank == 2:
        p = y.shape.dims[1]
    if n.rank == 0:
        wide = number
        narrow = <float>number
        gradient = <char *>&wide if n.dtype == FG_FLOAT64 else <char *>&narrow
    else:
        gradient = g.data
        strides_of(n.shape, g, item, own)
        if x.rank == 2:
            g_m = own[0]
        if y.rank == 2:
            g_n = own[n.rank - 1]
    if wanted(s, n.a):
        strides_of(y.shape, y.value, item, own)
        b_k = own[0]
        b_n = own[1] if y.rank == 2 else 0
        v = pool_take(m * k * item)
        matmul_raw(n.dtype, m, p, k, gradient, g_m, g_n, y.value.data, b_n, b_k, v.data)
        contribute_value(s, n.a, v)
    if wanted(s, n.b):
        strides_of(x.shape, x.value, item, own)
        a_m = own[0] if x.rank == 2 else 0
        a_k = own[x.rank - 1]
        v = pool_take(k * p * item)
        matmul_raw(n.dtype, k, m, p, x.value.data, a_k, a_m, gradient, g_m, g_n, v.data)
        contribute_value(s, n.b, v)
    return 0


cdef int reverse_matmul_one(Sweep *s, uint32_t id, object g, object other, int rank,
                            bint first) except -1:
    """The adjoint of one factor, given the adjoint of the product and the other factor."""
    cdef object p
    if other.ndim == 1 and rank == 1:
        return contribute_array(s, id, g * other)
    if other.ndim == 1:
        # Matrix times vector: the outer product of adjoint and vector.
        p = g[..., :, None] * other if first else other[:, None] * g[..., None, :]
        return contribute_array(s, id, p)
    if rank == 1:
        # A vector: contract over every other axis, the batch included.
        if first:
            p = np.matmul(other, g[..., :, None])[..., 0]
        else:
            p = np.matmul(np.swapaxes(other, -1, -2), g[..., :, None])[..., 0]
        return contribute_array(s, id, p)
    if first:
        return contribute_product(s, id, g, np.swapaxes(other, -1, -2))
    return contribute_product(s, id, np.swapaxes(other, -1, -2), g)


cdef int contribute_product(Sweep *s, uint32_t id, object p, object q) except -1:
    """Add p @ q; straight into memory of the pool where no axis was broadcast."""
    cdef FgNode *n = node_at(id)
    cdef FgValue *v
    if p.ndim == 2 and q.ndim == 2:
        v = pool_take(n.shape.size * item_size(n.dtype))
        try:
            np.matmul(p, q, out=value_ndarray(n.shape, v, n.dtype, True))
        except BaseException:
            value_release(v)
            raise
        return contribute_value(s, id, v)
    return contribute_array(s, id, np.matmul(p, q))


cdef unsigned int factors_read(FgNode *n) noexcept:
    """Each factor by the derivative of the other, where that is asked for."""
    cdef unsigned int reads = 0
    if n.a and node_at(n.a).flags & FG_NEEDS_GRAD:
        reads |= FG_B
    if n.b and node_at(n.b).flags & FG_NEEDS_GRAD:
        reads |= FG_A
    return reads


cdef Tensor pull_matmul(Subgraph s, FgNode *n, uint32_t id, Tensor g):
    cdef FgNode *x = node_at(n.a)
    cdef FgNode *y = node_at(n.b)
    cdef Tensor a, b, wide = g
    cdef tuple dims = tensor_dims(n)
    if y.rank == 1:
        dims = dims + (1,)
    if x.rank == 1:
        dims = dims[:len(dims) - 1] + (1, dims[len(dims) - 1])
    wide = reshape_plain(g, dims)
    if s.find(n.a) != NULL:
        b = node_tensor(n.b)
        b = reshape_plain(b, (1,) + b.shape) if y.rank == 1 else swapped(b)
        a = push_matmul(wide, b)
        s.add(n.a, fit_matrix(a, x, True))
    if s.find(n.b) != NULL:
        a = node_tensor(n.a)
        a = reshape_plain(a, a.shape + (1,)) if x.rank == 1 else swapped(a)
        b = push_matmul(a, wide)
        s.add(n.b, fit_matrix(b, y, False))
    return None


cdef Tensor swapped(Tensor t):
    """The last two axes exchanged."""
    cdef int n = t.node.rank
    return transpose_tensor(t, [*range(n - 2), n - 1, n - 2])


cdef Tensor fit_matrix(Tensor t, FgNode *x, bint left):
    """A product of matrices summed to the shape of a factor, vectors among them."""
    cdef Operand o
    cdef uint64_t mask = 0
    cdef int i
    cdef int rank = t.node.rank
    if x.rank > 1:
        return fit(t, x.shape)
    for i in range(rank):
        if i != (rank - 1 if left else rank - 2):
            mask |= <uint64_t>1 << i
    operand_clear(&o)
    operand_tensor(t, &o)
    return push_sum(&o, mask, False)


cdef Tensor forward_matmul(FgNode *n, uint32_t id, list tangents, Tensor finite):
    cdef Tensor total = None, t
    if tangents[0] is not None:
        total = push_matmul(tangents[0], node_tensor(n.b))
    if tangents[1] is not None:
        t = push_matmul(node_tensor(n.a), tangents[1])
        total = t if total is None else emit_two(FG_add, total, t)
    return total

shaped_rules[FG_matmul] = ShapedRule(reverse_matmul, pull_matmul, forward_matmul, NULL, factors_read)
