# What a plan takes for granted, as it nearly always is, and asks after. A run that finds it is not so
# is begun anew with a plan of the same graph that assumes less.
#
# The chain rule's product is zero where one factor is (the strong zero), but NaN in a sweep of a
# result that is not finite. So a recorded sweep asks `chain(adjoint, partial, whether the result is
# finite)`. Either the results are taken for finite: then `weigh(adjoint, partial)` does. Or no zero is
# expected to meet an infinity: then it is a product like any other, and what comes out is asked.

cdef enum:
    ASSUME_NOTHING
    ASSUME_FINITE           # the results that sweeps start from are finite
    ASSUME_PLAIN            # no zero meets an infinity in a product of the chain rule


cdef bint plain_factor(Checked c, int32_t i) noexcept:
    """Whether a node is a number that is finite and not zero: then the other factor of a product may
    be zero or infinite, and no zero meets an infinity."""
    cdef FgGraphNode *n = &c.nodes[whole(c, i)]
    return (n.op == FG_leaf and n.rank == 0 and not n.flags & FG_GRAPH_INPUT and not n.attr
            and n.constant != 0 and n.constant - n.constant == 0)


cdef inline bint is_view(FgGraphNode *n) noexcept:
    return n.op == FG_broadcast or n.op == FG_reshape or n.op == FG_transpose


cdef int32_t whole(Checked c, int32_t i) noexcept:
    """The node of which this one is a view with all its entries."""
    while is_view(&c.nodes[i]):
        i = c.nodes[i].a
    return i


cdef inline bint assumable(Checked c, FgGraphNode *n) noexcept:
    """Whether a node asks if a result is finite, and the answer is not known to be no."""
    cdef FgGraphNode *finite
    if n.op != FG_chain and n.op != FG_settle:
        return False
    finite = &c.nodes[n.c]
    return finite.op != FG_leaf or finite.flags & FG_GRAPH_INPUT or not (
        finite.attr or finite.constant == 0)


cdef int32_t kept_operand(Checked c, int64_t i, int k) noexcept:
    """Operand k of what a node is under the assumptions, or -1. A product needs its factors alone. Of
    two tangents, the first is right where the result is finite, so that every zero is strong, and
    the second where no zero meets an infinity: of the first, zeros may be left out."""
    cdef FgGraphNode *n = &c.nodes[i]
    if n.op == FG_chain and (c.assumed == ASSUME_PLAIN or assumable(c, n)):
        return operand(c, i, k) if k < 2 else -1
    if n.op == FG_settle and c.assumed == ASSUME_PLAIN and c.nodes[n.b].shape == n.shape:
        return n.b if k == 0 else -1
    if n.op == FG_settle and assumable(c, n) and c.nodes[n.a].shape == n.shape:
        return n.a if k == 0 else -1
    return operand(c, i, k)


cdef list assumptions(Checked c, list guarded):
    """Make of a graph what it is under the assumptions `c.assumed`, which become fewer where more do
    not pay. Returns the nodes that have to be finite, or true, for them to hold.

    `guarded`: the nodes that the guards of the graph ask.
    """
    cdef int64_t i
    cdef FgGraphNode *n
    cdef FgGraphNode *finite
    cdef dict found = {}
    cdef list ends = None
    if c.assumed == ASSUME_NOTHING:
        return []
    for i in range(c.source.count):
        n = &c.nodes[i]
        if not assumable(c, n):
            continue
        finite = &c.nodes[n.c]
        if finite.op == FG_leaf and not finite.flags & FG_GRAPH_INPUT:
            continue                                        # known to be so
        if n.op == FG_settle or not (plain_factor(c, n.a) or plain_factor(c, n.b)):
            found[result_asked(c, whole(c, n.c))] = None
    if found and c.assumed == ASSUME_PLAIN:
        ends = plain_ends(c, guarded, list(found))
    if ends is None:
        c.assumed = ASSUME_FINITE
        c.guards_assume = found and guards_depend(c, guarded)
    for i in range(c.source.count):
        n = &c.nodes[i]
        if n.op == FG_weigh and c.assumed == ASSUME_PLAIN:
            n.op = FG_multiply
        elif n.op == FG_chain and kept_operand(c, i, 2) < 0:
            n.op = FG_multiply if c.assumed == ASSUME_PLAIN else FG_weigh
            n.c = -1
        elif n.op == FG_settle and kept_operand(c, i, 1) < 0:
            n.a, n.b, n.c = kept_operand(c, i, 0), -1, -1
            n.op = FG_positive
    return list(found) if ends is None else ends


cdef bint guards_depend(Checked c, list guarded) except -1:
    """Whether a guard of the graph asks what depends on a product of the chain rule: where a result is
    not finite, its answer means nothing."""
    cdef int64_t i
    cdef int32_t x
    cdef int k
    cdef uint8_t[::1] depends = np.zeros(c.source.count, np.uint8)
    if not guarded:
        return False
    for i in range(c.source.count):
        depends[i] = assumable(c, &c.nodes[i])
        k = 0
        x = operand(c, i, k)
        while x >= 0:
            depends[i] = depends[i] or depends[x]
            k += 1
            x = operand(c, i, k)
    for i in guarded:
        if depends[i]:
            return True
    return False


cdef list plain_ends(Checked c, list guarded, list asked):
    """The outputs in which NaN would be seen if a zero met an infinity, where asking them costs less
    than computing and asking the results `asked`; else None.

    NaN in a product reaches every output that depends on it as long as no later operation swallows
    it, as a comparison does. Nor may one turn the sign of a zero into anything else: the strong zero
    is +0.
    """
    cdef int64_t i, count = c.source.count, saved = 0, cost = 0
    cdef int32_t x
    cdef int k
    cdef FgGraphNode *n
    cdef uint8_t[::1] flows = np.zeros(count, np.uint8)
    cdef list ends = [*guarded, *c.outputs]
    cdef uint8_t[::1] alive = reached(c, ends)
    cdef uint8_t[::1] more
    cdef dict found = {}
    c.assumed = ASSUME_FINITE
    more = reached(c, ends + asked)
    c.assumed = ASSUME_PLAIN
    for i in asked:
        saved += c.shapes[c.nodes[i].shape].size
    for i in range(count):
        n = &c.nodes[i]
        if n.op != FG_leaf:
            saved += (<int64_t>more[i] - <int64_t>alive[i]) * c.shapes[n.shape].size
        if not alive[i]:
            continue
        k = 0
        x = kept_operand(c, i, k)
        while x >= 0:
            if flows[x]:
                if not passes_nan(n, k):
                    return None
                flows[i] = True
            k += 1
            x = kept_operand(c, i, k)
        if n.op == FG_weigh or n.op == FG_chain:
            flows[i] = True
        elif n.op == FG_settle and not flows[i]:
            return None                 # its shape is not the second's, or nothing flows there
    for i in guarded:
        if flows[i]:
            return None                 # a branch that NaN takes as well
    for x in c.outputs:
        x = whole(c, x)
        if flows[x] and x not in found:
            found[x] = None
            cost += c.shapes[c.nodes[x].shape].size
    return list(found) if cost < saved else None


cdef object reached(Checked c, list ends):
    """Which nodes some depend on, as bytes."""
    cdef uint8_t[::1] alive = np.zeros(c.source.count, np.uint8)
    cdef int64_t i
    cdef int32_t x
    cdef int k
    for i in ends:
        alive[i] = True
    for i in range(c.source.count - 1, -1, -1):
        k = 0
        x = kept_operand(c, i, k) if alive[i] else -1
        while x >= 0:
            alive[x] = True
            k += 1
            x = kept_operand(c, i, k)
    return alive


cdef bint passes_nan(FgGraphNode *n, int k) noexcept:
    """Whether NaN in an entry of operand k makes NaN of every entry of a node that depends on it,
    and the sign of a zero is nothing but the sign of a zero."""
    if n.dtype != FG_FLOAT64 and n.dtype != FG_FLOAT32:
        return False
    if n.op == FG_divide or n.op == FG_gather or n.op == FG_scatter or n.op == FG_settle:
        return k == 0
    if n.op == FG_where or n.op == FG_assign:
        return k < 2
    return is_view(n) or (
        n.op == FG_weigh or n.op == FG_chain or n.op == FG_multiply or n.op == FG_add
        or n.op == FG_subtract or n.op == FG_negative or n.op == FG_positive or n.op == FG_square
        or n.op == FG_abs or n.op == FG_cast or n.op == FG_sum or n.op == FG_matmul
        or n.op == FG_concatenate or n.op == FG_flip or n.op == FG_item or n.op == FG_place)


cdef int32_t result_asked(Checked c, int32_t node) noexcept:
    """The result y of which a boolean node asks whether it is finite, by y - y == 0; or the node."""
    cdef FgGraphNode *n = &c.nodes[node]
    cdef FgGraphNode *d
    if n.op == FG_equal:
        d = &c.nodes[whole(c, n.a)]
        if d.op == FG_subtract and d.a == d.b:
            return whole(c, d.a)
    return node


cdef int guard_assumed(Checked c, int32_t node, FgGuardRow *row) except -1:
    """The guard that a node is finite or, where it is boolean, true."""
    cdef FgGraphNode *n = &c.nodes[node]
    row.node = node
    if n.dtype != FG_BOOL:
        row.kind, row.outcome = FG_GUARD_FINITE, 1
    else:
        row.kind, row.outcome = FG_GUARD_COUNT if n.rank else FG_GUARD_BOOL, c.shapes[n.shape].size
    return 0
