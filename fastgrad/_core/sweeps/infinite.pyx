"""Results that are not finite: which zero wins against an infinity.

In the chain rule's product an exact zero wins over infinity and NaN, which keeps what a mask does not
take out of a gradient. Of a result that is not finite only the zero does that comes later in the
chain: an adjoint in reverse mode, a partial in forward mode. So the underflow inside of log(exp(-x*x))
gives NaN at x = 40 and no zero that a minimiser takes for convergence.

A reverse sweep asks before it starts, and where the answer is no it is run with Tensors (emit.pyx),
whose products have it as a third operand (the row `chain`). A forward sweep learns at its end, entry
by entry: there are two tangents, and the result settles which (the row `settle`). A stream, which
forgets its operations, keeps the second one from the first zero on that meets an infinity. A program
takes all results for finite, asks at each run, and has an exact plan for the others (program/assume.pyx).
"""

# ---- before a reverse sweep -----------------------------------------------------------------

cdef bint node_finite(FgNode *n, uint32_t id, Operand *seed) except -1:
    """Whether all entries of a result that a sweep starts from are: those that the seed (NULL: of
    ones) takes."""
    cdef FgValue *v
    cdef object at
    if not is_float(n.dtype):                       # finite, and no floats in memory
        return True
    if n.rank == 0:
        return isfinite(n.re) or seed != NULL and seed.number == 0
    v = n.value if n.value != NULL else value_of(n, id)
    if v.contiguous and not v.uniform and loops_of(n.dtype).finite(v.data, n.shape.size):
        return True
    at = np.isfinite(node_ndarray(n))
    return at.all() or seed != NULL and not np.any(operand_ndarray(seed)[~at] if seed.shape != NULL
                                                   else seed.number)


cdef Tensor finite_from(list roots, list seeds):
    """Whether the results (Arguments) are finite where a seed (a Tensor; None: zero) takes them, as a
    Tensor: None if they are, and for a program, which has to ask at each run, what it asks."""
    cdef Tensor d, zero = None, seed
    cdef Argument y
    cdef Operand x
    cdef Py_ssize_t k
    if mode().recorder == NULL:
        for k in range(len(roots)):
            y, seed = roots[k], seeds[k]
            if seed is not None:
                operand_tensor_ready(seed, &x)
                if x.shape != NULL and x.value == NULL:
                    x.value = value_of(x.node, x.id)
                if not node_finite(y.node, y.id, &x):
                    return scalar_constant(0, FG_BOOL, 0)
        return None
    for k in range(len(roots)):
        y, seed = roots[k], seeds[k]
        if seed is None:
            continue
        d = node_tensor(y.id).detach()
        d = emit_two(FG_subtract, d, d)             # 0 or NaN
        if not is_one(seed):
            d = emit_two(FG_weigh, seed.detach(), d)
        if d.node.rank:
            d = fit(d, NULL)
        zero = d if zero is None else emit_two(FG_add, zero, d)
    return None if zero is None else <Tensor?>binary(FG_equal, zero, 0.0)


# ---- after a forward sweep ------------------------------------------------------------------

cdef Tensor settled_by(Tensor y, Tensor t, Tensor other):
    """t where y is finite, else the other: entry by entry of a result."""
    cdef Arg x[3]
    cdef Tensor d = y.detach()
    cdef Tensor finite
    if mode().recorder == NULL:
        finite = tensor_constant(np.asarray(np.isfinite(tensor_ndarray(y))))
    else:
        d = emit_two(FG_subtract, d, d)             # 0 or NaN
        finite = <Tensor?>binary(FG_equal, d, 0.0)
    x[0] = arg_tensor(t)
    x[1] = arg_tensor(other)
    x[2] = arg_tensor(finite)
    return emit(FG_settle, 3, x)


# ---- in a stream ----------------------------------------------------------------------------

# The second tangent of a dual: of a scalar it is NaN, or there is none, as `index` says. That of an
# array stands under this number in a table.
cdef enum:
    SECONDS = 65536              # as many as `index` can tell

cdef FgValue *second_tangents[SECONDS]
cdef int second_next = 1


cdef int second_put(FgNode *n, FgValue *other) except -1:
    """Keep the second tangent of what has become a dual; NULL: there is none."""
    global second_next
    cdef int k
    n.index = other != NULL
    if other == NULL or n.rank == 0:
        return 0
    for k in range(SECONDS):
        second_next = second_next + 1 if second_next + 1 < SECONDS else 1
        if second_tangents[second_next] == NULL:
            second_tangents[second_next] = other
            n.index = <uint16_t>second_next
            return 0
    value_release(other)
    n.index = 0
    raise MemoryError("more than 65,534 arrays of a stream have two tangents")


cdef void second_release(FgNode *n) noexcept:
    """A dual dies."""
    if n.index and n.rank:
        value_release(second_tangents[n.index])
        second_tangents[n.index] = NULL
    n.index = 0


cdef bint read_finite(FgNode *n, uint32_t *ids, int count) except -1:
    """Whether all is finite that an element-wise operation still holds of operands and result."""
    cdef int k
    cdef FgNode *x
    for k in range(count + 1):
        if k < count and not ids[k]:
            continue
        x = node_at(ids[k]) if k < count else n
        if (x.rank and x.value != NULL or not x.rank) and not node_finite(x, FG_NO_ID, NULL):
            return False
    return True


cdef bint scalar_second(FgNode *n, FgNode *x, int which, double u, double v, double w,
                       double tie) noexcept nogil:
    """Whether an operand of a scalar operation, a dual, makes its second tangent NaN: it has one, or
    its tangent is a zero that meets an infinity or NaN."""
    cdef double p = fg_partial(n.op, which, n.dtype, u, v, w, n.re, tie)
    if x.index and p != 0:
        return True
    return x.tangent.number == 0 and p - p != 0


cdef bint has_zero(FgNode *x, FgAdjoint *t) except -1:
    """Whether there is an exact zero among the tangents of a dual. That there is none is kept: of its
    consumers the first one looks."""
    cdef bint found
    if x.flags & FG_NO_ZERO:
        return False
    if x.rank == 0:
        found = t.number == 0
    elif t.value.contiguous and not t.value.uniform:
        found = loops_of(x.dtype).zeros(t.value.data, x.shape.size)
    else:
        found = not value_ndarray(x.shape, t.value, x.dtype, False).all()
    if not found:
        x.flags |= FG_NO_ZERO
    return found


cdef bint partial_finite(FgNode *n, uint32_t id, int which) except -1:
    """Whether the partials of an element-wise operation are, with respect to one operand."""
    cdef Formula *f = formula_of(n.op, which)
    cdef Arg partial
    cdef Tensor keep
    if f.kind != PARTIAL_STEPS:
        return True
    keep = emit_formula(f, n, id, &partial)
    if partial.node == NULL:
        return isfinite(partial.number)
    return node_finite(partial.node, partial.id, NULL)


# By operator: in which operands a zero tangent may meet an infinite partial (bits 0 to 2), once asked
# (bit 7).
cdef uint8_t second_operands[FG_OPS]


cdef int second_read(int op) except -1:
    cdef int k, found = 128
    if op < FG_ELEMENTWISE_END:
        for k in range(fg_op_info[op].arity):
            found |= (formula_of(op, k).kind == PARTIAL_STEPS) << k
    elif op == FG_prod or op == FG_logsumexp:
        found |= 1
    second_operands[op] = <uint8_t>found
    return found


cdef inline bint second_looked(FgNode *n, FgAdjoint **t, int count) except -1:
    """Whether an operation may have a second tangent: an operand has one, or there are zeros among
    tangents that may meet an infinity. (The usual answer, no, costs one look at the tangents that no
    consumer has looked at before, and no call of what follows.)"""
    cdef int k
    cdef int among = second_operands[n.op]
    cdef FgNode *x
    if not among:
        among = second_read(n.op)
    for k in range(count):
        if t[k] != NULL:
            x = fg_dual_of(t[k])
            if x.index:
                return True
            if k < 3 and among >> k & 1 and not x.flags & FG_NO_ZERO and has_zero(x, t[k]):
                return True
    return False


cdef bint second_begins(FgNode *n, uint32_t id, FgAdjoint **t, uint32_t *ids,
                       int count) except -1:
    """Whether an operation that was looked at has a second tangent: an operand has one, or a zero
    meets an infinity."""
    cdef int k
    cdef int among = second_operands[n.op]
    for k in range(count):
        if t[k] != NULL and fg_dual_of(t[k]).index:
            return True
    for k in range(count if count < 3 else 3):
        if t[k] == NULL or not among >> k & 1 or not has_zero(fg_dual_of(t[k]), t[k]):
            continue
        if n.op >= FG_ELEMENTWISE_END:
            return not node_finite(node_at(ids[0]), ids[0], NULL)
        if fg_op_info[n.op].props & FG_TAME and read_finite(n, ids, count):
            return False
        if not partial_finite(n, id, k):
            return True
    return False


cdef Tensor second_tensor(FgNode *x, FgAdjoint *t):
    """The second tangent of a dual, or the only one, as a Tensor."""
    if x.rank == 0:
        return scalar_constant(NAN if x.index else t.number, x.dtype, 0)
    return tensor_of_value(shape_ref(x.shape),
                           value_ref(second_tangents[x.index] if x.index else t.value), x.dtype)


cdef FgValue *second_made(FgNode *n, uint32_t id, FgAdjoint **t, uint32_t *ids, int count,
                         FgAdjoint *out) except? NULL:
    """The second tangent of an operation; NULL where it is the same as the first, `out`. Of a scalar
    anything else says that it is NaN, and is not to be released."""
    cdef Tensor y = None, term, finite
    cdef int k
    cdef list tangents
    if not second_begins(n, id, t, ids, count):
        return NULL
    tangents = [None if t[k] == NULL else second_tensor(node_at(ids[k]), t[k]) for k in range(count)]
    finite = scalar_constant(0, FG_BOOL, 0)
    if n.op >= FG_ELEMENTWISE_END:
        y = forward_shaped(n, id, tangents, finite)
    else:
        for k in range(count):
            if tangents[k] is not None:
                term = emit_term(n, id, k, tangents[k], finite, True)
                if term is not None:
                    y = term if y is None else emit_two(FG_add, y, term)
    if y is None:
        return NULL
    y = spread(y, n.shape if n.rank else NULL)
    if n.rank == 0:
        return <FgValue *>(&second_mark) if y.node.re != y.node.re and out.number == out.number \
            else NULL
    value_of(y.node, y.id)
    if np.array_equal(tensor_ndarray(y), value_ndarray(n.shape, out.value, n.dtype, False), True):
        return NULL
    return value_ref(y.node.value)

cdef char second_mark = 0


cdef object second_settled(FgNode *n, object tangent):
    """The tangent of a result, a dual: the second one where it is not finite."""
    if not n.index:
        return tangent
    if n.rank == 0:
        return tangent if isfinite(n.re) else tangent * NAN
    return np.where(np.isfinite(value_ndarray(n.shape, n.value, n.dtype, False)), tangent,
                    value_ndarray(n.shape, second_tangents[n.index], n.dtype, False))
