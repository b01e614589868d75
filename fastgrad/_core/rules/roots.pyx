# Even powers of roots, which are smooth where the root is not: (sqrt(x))**2, norm(x)**2, abs(x)**4.
#
# Operator by operator the second derivative of abs(x)**2 would be 0 at 0, and so would the first one of
# sqrt(x)**2. So where a power is recorded whose base is a root, times, over or minus something, or a
# view of one, what comes out is `as_written(power, under)`: the value of the power, as it was written,
# and the derivative of what stands under the root, raised and scaled likewise. What stands under a
# root: x of sqrt(x), x**0.5 and cbrt(x); x * x of abs(x); the second operand of a `root_of`, as norms and
# standard deviations that are scaled are recorded.
#
# A sweep that is asked for the derivative with respect to the root itself goes by the value.

cdef enum:
    NODES_WALKED = 32           # from a power back to a root, at most: what a square may cost

# By operator: 1: it may be a root, or something made of one; 2: of its operands, one is no path.
cdef uint8_t root_walks[FG_OPS]
cdef int nodes_walked = 0
cdef bint raising = False           # a power of what stands under a root is on its way
cdef int roots_retained = 0         # how often retain_grad() was called of what may be a root
cdef dict UNDER = {}                # what stands under the duals that are FG_ROOTED, by node
cdef int rooted_duals = 0           # how many there are


cdef int roots_setup() except -1:
    for op in (FG_abs, FG_sqrt, FG_cbrt, FG_power, FG_hypot, FG_root_of, FG_negative, FG_multiply,
               FG_divide, FG_reshape, FG_transpose, FG_broadcast, FG_flip, FG_item, FG_gather,
               FG_cast, FG_dual):
        root_walks[op] = 1
    for op in (FG_root_of, FG_as_written):
        root_walks[op] |= 2
    return 0


cdef inline bint may_be_root(FgNode *n) noexcept:
    """(What is detached has no derivative, whatever it was made of.)"""
    return (root_walks[n.op] & 1 and n.flags & FG_NEEDS_GRAD and (n.op != FG_dual or n.flags & FG_ROOTED)
            and not n.flags & FG_CONSUMED)


cdef object raised(object result, object base, double exponent):
    """The result of raising a Tensor to a power; with the derivative of what stands under the root
    where the base is one."""
    cdef Tensor r, y, under
    cdef int order
    cdef bint first = not raising
    global nodes_walked, raising
    if type(base) is not Tensor or type(result) is not Tensor:
        return result
    r, y = base, result
    if (not may_be_root(r.node) or exponent <= 0    # (of a negative power nothing is smooth there)
            or not (y.node.flags & FG_NEEDS_GRAD or node_traced(y.id, y.node))):
        return result
    if first:
        nodes_walked = 0
    raising = True
    try:
        for order in range(2, 4):
            if (exponent % order == 0 and holds_root(r.node, order, NODES_WALKED)
                    and (not first or mode().recorder != NULL or vanishes(r))):
                under = under_root(r.node, r.id, order)
                if under is not None:
                    return push_beside(FG_as_written, y, emit_power(under, exponent / order))
    finally:
        if first:
            raising = False
    return result


cdef bint vanishes(Tensor t) except -1:
    """Whether an entry is zero. Elsewhere the root is as smooth as its powers, and in range where the
    squares of its parts are not."""
    if t.node.rank == 0:
        return t.node.re == 0
    value_of(t.node, t.id)
    return not node_ndarray(t.node).all()


cdef bint holds_root(FgNode *n, int order, int depth) noexcept:
    """Whether `under_root` of a node finds something."""
    if not may_be_root(n) or depth <= 0:
        return False
    if n.op == FG_dual:
        return (n.flags & FG_CUBED != 0) == (order == 3)
    if n.op == FG_multiply or n.op == FG_divide:
        return (n.a and holds_root(node_at(n.a), order, depth // 2)
                or n.b and holds_root(node_at(n.b), order, depth // 2))
    if n.op == FG_negative or n.op >= FG_ELEMENTWISE_END:
        return n.a and holds_root(node_at(n.a), order, depth - 1)
    if n.op == FG_cbrt or order == 3:
        return n.op == FG_cbrt and order == 3
    return n.op != FG_power or not n.b and n.constant == 0.5


cdef object raised_by(int op, object result, object left, object right):
    """The same for a product or a power of two objects."""
    cdef double exponent = 0
    if op == FG_multiply:
        return raised(result, left, 2) if left is right else result
    if not python_number(right, &exponent):
        if not isinstance(right, np.number) or right.dtype.kind not in "fiu":
            return result
        exponent = float(right)
    return raised(result, left, exponent)


cdef Tensor emit_power(Tensor t, double exponent):
    """t to a power; a small one as people write it."""
    cdef Arg x[2]
    if exponent == 1:
        return t
    if exponent == 2:
        return raised(emit_one(FG_square, t), t, 2)
    if exponent == 3:
        return raised(emit_two(FG_multiply, emit_one(FG_square, t), t), t, 3)
    x[0] = arg_tensor(t)
    x[1] = arg_number(exponent)
    return raised(emit(FG_power, 2, x), t, exponent)


cdef Tensor under_root(FgNode *n, uint32_t id, int order):
    """What a node to the power `order` is, made of what stands under the root; None of no root."""
    cdef Tensor x
    global nodes_walked
    nodes_walked += 1
    if not may_be_root(n) or nodes_walked > NODES_WALKED:
        return None
    if n.op == FG_dual:
        return UNDER.get(id) if (n.flags & FG_CUBED != 0) == (order == 3) else None
    if n.op == FG_multiply or n.op == FG_divide:
        return under_product(n, order)
    if n.op == FG_cbrt:
        return with_value(n.a, id, order) if order == 3 else None
    if n.op == FG_negative or n.op >= FG_ELEMENTWISE_END:
        x = under_root(node_at(n.a), n.a, order)
        if x is None or n.op == FG_negative and order == 2:
            return x
        return emit_one(FG_negative, x) if n.op == FG_negative else forward_shaped(n, id, [x], None)
    if order == 3:
        return None
    if n.op == FG_abs:
        return emit_power(node_tensor(n.a), 2)
    if n.op == FG_hypot:
        return under_hypot(n)
    if n.op == FG_root_of:
        return with_value(n.b, id, 2) if n.b else None
    if n.op == FG_power and (n.b or n.constant != 0.5):
        return None
    return with_value(n.a, id, 2) if n.a else None


cdef Tensor with_value(uint32_t under, uint32_t root, int order):
    """What stands under a root; if its value has been let go of, with that of the root's power."""
    cdef FgNode *x = node_at(under)
    if x.rank == 0 or x.value != NULL or x.flags & FG_PENDING:
        return node_tensor(under)
    return push_beside(FG_as_written, emit_power(node_tensor(root).detach(), order),
                       tensor_valueless(under))


cdef Tensor tensor_valueless(uint32_t id):
    """A Tensor that stands for a node, of which nobody may ask the value."""
    cdef FgNode *n = node_at(id)
    n.refs += 1
    return tensor_new(id, n, directory[id >> FG_SEGMENT_BITS].tape)


cdef Tensor push_beside(int op, Tensor y, Tensor under):
    """`root_of` or `as_written`: the value of y itself. That of `under` is not looked at."""
    cdef FgNode *n
    cdef FgTape *tape
    cdef FgValue *value
    cdef uint32_t id
    cdef uint32_t ids[3]
    if y.node.rank == 0 or under.node.rank == 0:
        return emit_two(op, y, under)
    value = value_of(y.node, y.id)
    tape = tape_of_thread()
    n = node_append(tape, &id)
    ids[0] = y.id
    ids[1] = under.id
    ids[2] = FG_NO_ID
    node_set(n, op, y.node.dtype, y.node.rank, y.node.flags & FG_WEAK, ids[0], ids[1], FG_NO_ID)
    n.attr = reach_operands(ids)
    n.shape = shape_ref(y.node.shape)
    n.value = value_ref(value)
    n.constant = 0
    y.node.refs += 1
    under.node.refs += 1
    if fg_op_info[op].reads[1] & FG_A:
        y.node.uses += 1
    if op == FG_root_of:               # its value may be asked for in the place of what stands under it
        n.flags |= FG_READS_SELF
        n.uses += 1
    return tensor_noted(tensor_new(id, n, tape))


cdef Tensor under_product(FgNode *n, int order):
    """Of a product or quotient one side of which is a root."""
    cdef Arg x[2]
    cdef Arg other
    cdef Tensor under, factor = None
    cdef int k
    for k in range(2):
        x[k] = arg_operand(n, k)
        under = None if x[k].node == NULL else under_root(x[k].node, x[k].id, order)
        if under is None:
            continue
        other = arg_operand(n, 1 - k)
        if other.node == NULL:
            x[1 - k] = arg_number(other.number**order)
        else:
            factor = emit_power(node_tensor(other.id), order)
            x[1 - k] = arg_tensor(factor)
        x[k] = arg_tensor(under)
        return emit(n.op, 2, x)
    return None


cdef Tensor under_hypot(FgNode *n):
    cdef Arg x[2]
    cdef Arg side
    cdef list keep = []
    cdef int k
    for k in range(2):
        side = arg_operand(n, k)
        if side.node == NULL:
            x[k] = arg_number(side.number * side.number)
        else:
            keep.append(emit_power(node_tensor(side.id), 2))
            x[k] = arg_tensor(<Tensor>keep[len(keep) - 1])
    return emit(FG_add, 2, x)


# ---- in a sweep -----------------------------------------------------------------------------

cdef bint root_wanted(FgNode *n) noexcept:
    """Whether a sweep is asked for the derivative with respect to the base of a power (as_written),
    its root, or what stands between."""
    cdef FgNode *power = node_at(n.a) if n.a else NULL
    return power != NULL and not power.flags & FG_LEAF and root_asked(
        power.a, NODES_WALKED)


cdef bint root_asked(uint32_t id, int depth) noexcept:
    cdef FgNode *x
    cdef int order
    if not id or depth <= 0:
        return False
    x = node_at(id)
    if x.flags & (FG_WANTED | FG_RETAINED):
        return not x.flags & FG_LEAF
    if x.op == FG_multiply or x.op == FG_divide:    # the side of the root, not what it is scaled by
        for order in range(2, 4):
            if x.a and holds_root(node_at(x.a), order, depth // 2):
                return root_asked(x.a, depth // 2)
        return root_asked(x.b, depth // 2)
    if x.op == FG_negative or x.op >= FG_ELEMENTWISE_END and x.op != FG_dual and may_be_root(x):
        return root_asked(x.a, depth - 1)
    return False


# ---- in a stream ----------------------------------------------------------------------------

cdef inline bint stream_rooted(FgNode *n) except -1:
    """Whether an operation that becomes a dual is a root that vanishes somewhere, or made of one: the
    tangent is infinite there, and that of a power would be lost."""
    cdef FgNode *x
    cdef int k
    if n.op == FG_sqrt or n.op == FG_cbrt or n.op == FG_power and not n.b and n.constant == 0.5:
        if n.rank == 0:
            return n.re == 0
        return n.value == NULL or not node_ndarray(n).all()
    if not rooted_duals:
        return False
    for k in range(2 if n.op == FG_multiply or n.op == FG_divide else 1):
        if n.a if k == 0 else n.b:
            x = node_at(n.a if k == 0 else n.b)
            if x.op == FG_dual and x.flags & FG_ROOTED:
                return True
    return False


cdef int stream_root(FgTape *tape, FgNode *n, uint32_t id) except -1:
    """Keep what stands under such an operation; returns the flags of its dual."""
    cdef Tensor under = None
    cdef int order = 0, k
    cdef int recording = mode().not_recording, streaming = tape.streaming
    global nodes_walked, rooted_duals
    mode().not_recording = 0            # what is recorded now, the stream meets later
    tape.busy = 0
    tape.streaming = 0
    try:
        for k in range(2, 4):
            if under is None:
                nodes_walked = 0
                order = k
                under = under_root(n, id, order)
        if tape.waiting:            # the stream asks for values
            run_flush_all(tape)
    finally:
        tape.busy = 1
        tape.streaming = streaming
        mode().not_recording = recording
    if under is None:
        return 0
    UNDER[id] = under
    rooted_duals += 1
    return FG_ROOTED if order == 2 else FG_ROOTED | FG_CUBED


cdef void under_release(uint32_t id) noexcept:
    """A dual that is FG_ROOTED dies."""
    global rooted_duals
    rooted_duals -= 1
    UNDER.pop(id, None)


# ---- for the functions that compute a root in several operations ------------------------------

def root_of(object t, object under):
    """A Tensor, said to be the root of another: its even powers have the derivatives of that one's.

    Parameters
    ----------
    t, under : Tensor
        Of one shape and dtype; anything else is handed back as it is.
    """
    if type(t) is not Tensor or type(under) is not Tensor:
        return t
    if not ((<Tensor>under).node.flags & FG_NEEDS_GRAD and get_recording()
            or node_traced((<Tensor>under).id, (<Tensor>under).node)):
        return t
    return push_beside(FG_root_of, t, under)
