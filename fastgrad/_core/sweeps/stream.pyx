"""Forward mode in constant memory: tangents that go along while a function runs."""

cdef uint32_t streams = 0       # each forward transformation has a number
cdef dict STREAMED = {}         # tangents of the results of a user's rule, by its node


cdef Tensor dual_new(Tensor value, Tensor tangent):
    """A dual of this thread's stream: an argument and its tangent."""
    cdef FgTape *tape = tape_of_thread()
    cdef uint32_t id
    cdef FgNode *x = value.node
    cdef FgNode *n
    if x.rank:
        value_of(value.node, value.id)
        value_of(tangent.node, tangent.id)
    n = node_append(tape, &id)
    node_set(n, FG_dual, x.dtype, x.rank, FG_ARGUMENT | (x.flags & FG_WEAK), FG_NO_ID, FG_NO_ID,
             tape.stream)
    n.attr = reach_of(x)
    n.index = 0
    n.constant = 0
    tape.duals += 1                 # until it dies
    if x.rank:
        n.shape = shape_ref(x.shape)
        n.value = value_ref(x.value)
        n.tangent.value = value_ref(tangent.node.value)
    else:
        n.re = x.re
        n.tangent.number = tangent.node.re
    return tensor_new(id, n, tape)


cdef int stream_flush(FgTape *tape, bint last=False) except -1:
    """Give every living operation of the stream its tangent and let go of its operands. While a
    transformation inside the streamed function still needs its operations, nothing is done; but
    the last time it must be, whatever graphs people hold on to."""
    cdef FgSegment *s
    cdef uint32_t i
    cdef FgNode *n
    cdef int recording = mode().not_recording
    if tape.busy or tape.held and not last or tape.streaming != mode().depth:
        return 0
    if tape.waiting:
        run_flush_all(tape)
    s = tape.last
    if s == NULL:
        return 0
    while s.before != NULL and s.sequence > tape.streamed:
        s = s.before
    tape.busy = 1
    mode().not_recording = 1
    try:
        while s != NULL:
            i = 0
            while i < s.used:
                n = &s.nodes[i]
                if node_lives(n) and n.op != FG_dual and n.flags & FG_NEEDS_GRAD and not (
                        s.slot == 0 and i == 0):
                    stream_node(tape, n, (s.slot << FG_SEGMENT_BITS) | i)
                i += 1
            s = s.after
    finally:
        mode().not_recording = recording
        tape.busy = 0
        tape.stream_bytes = 0
        segments_recycle(tape)
        if tape.queued:
            queue_drain(tape)
    if tape.last != NULL:
        tape.streamed = tape.last.sequence
    return 0


cdef uint32_t reach_node(FgNode *n) noexcept:
    """Which leaves an operation of the stream depends on, shaped ones as well."""
    cdef uint32_t x, reach = FG_REACH_NONE
    cdef int k
    if n.op < FG_ELEMENTWISE_END:
        return reach_of(n)
    if n.op == FG_result:
        return reach_node(node_at(n.a))
    for k in range(operand_count(n)):
        x = operand_at(n, k)
        if x and node_at(x).flags & FG_NEEDS_GRAD:
            reach = fg_reach_both(reach, reach_of(node_at(x)))
    return reach


cdef bint is_stepped(FgNode *n) noexcept:
    """Whether an operation on duals depends on the arguments by steps alone."""
    cdef FgNode *x
    cdef int k
    if n.op < FG_ELEMENTWISE_END and fg_op_info[n.op].props & FG_STEPS:
        return True
    for k in range(operand_count(n)):
        if operand_at(n, k):
            x = node_at(operand_at(n, k))
            if x.flags & FG_NEEDS_GRAD and not (x.op == FG_dual and x.flags & FG_STEPPED):
                return False
    return True


cdef inline void stream_dual(FgTape *tape, FgNode *n, uint32_t reach, bint stepped) noexcept:
    """An operation, its operands let go of, goes on as a dual."""
    n.op = FG_dual
    n.flags = (n.flags & ~(FG_STEPPED | FG_NO_ZERO | FG_ROOTED | FG_CUBED)) | (
        FG_STEPPED if stepped else 0)
    n.attr = reach
    n.c = tape.stream
    if fg_reach_within(reach, tape.stream_reach):
        n.flags |= FG_PURE
    else:
        n.flags &= ~FG_PURE             # (FG_INSIDE until now)
        tape.duals += 1


cdef inline FgAdjoint *stream_tangent(FgTape *tape, uint32_t id) noexcept:
    cdef FgNode *x
    if not id:
        return NULL
    x = node_at(id)
    if x.op != FG_dual or x.c != tape.stream:
        return NULL
    return &x.tangent


cdef int stream_node(FgTape *tape, FgNode *n, uint32_t id) except -1:
    """From an operation to a dual, if a tangent reaches it."""
    cdef FgAdjoint *t[3]
    cdef FgAdjoint out
    cdef FgValue *other = NULL
    cdef uint32_t ids[3]
    cdef int rooted = 0
    if root_walks[n.op]:
        if n.rank == 0 and n.dtype == FG_FLOAT64 and root_walks[n.op] & 2:
            stream_beside(tape, n)
            return 0
        if stream_rooted(n):
            rooted = stream_root(tape, n, id)
    if n.op < FG_ELEMENTWISE_END and n.rank == 0 and n.dtype == FG_FLOAT64:
        stream_scalar(tape, n)
        if n.op == FG_dual:
            n.flags |= rooted
        elif rooted:
            under_release(id)
        return 0
    if is_listed(n) or n.op == FG_result:
        return stream_many(tape, n, id)
    t[0] = stream_tangent(tape, n.a)
    t[1] = stream_tangent(tape, n.b)
    t[2] = stream_tangent(tape, n.c)
    if t[0] == NULL and t[1] == NULL and t[2] == NULL:
        if rooted:
            under_release(id)
        return 0
    tangent_node(n, id, t, 1, &out)
    if second_looked(n, t, 3):
        ids[0] = n.a
        ids[1] = n.b
        ids[2] = n.c
        other = second_made(n, id, t, ids, 3, &out)
    stream_become(tape, n, id, &out, other)
    n.flags |= rooted
    return 0


cdef void stream_scalar(FgTape *tape, FgNode *n) noexcept:
    """The same for scalars, of which most streams consist: nothing but numbers."""
    cdef double total = 0
    cdef double tie = 0.0 if n.flags & FG_LITERAL else 0.5
    cdef FgNode *a = node_at(n.a) if n.a else NULL
    cdef FgNode *b = node_at(n.b) if n.b else NULL
    cdef FgNode *c = node_at(n.c) if n.c else NULL
    cdef double u = a.re if a != NULL else n.constant
    cdef double v = b.re if b != NULL else n.constant
    cdef double w = c.re if c != NULL else n.constant
    cdef bint first = a != NULL and a.op == FG_dual and a.c == tape.stream
    cdef bint second = b != NULL and b.op == FG_dual and b.c == tape.stream
    cdef bint third = c != NULL and c.op == FG_dual and c.c == tape.stream
    cdef bint other = False, stepped = False
    if not (first or second or third):
        return
    if tape.steps:
        stepped = is_stepped(n)
    if first:
        if a.tangent.number != 0:
            total = scalar_term(n.op, 0, FG_FLOAT64, a.tangent.number, u, v, w, n.re, tie)
        if a.index or a.tangent.number == 0:
            other = scalar_second(n, a, 0, u, v, w, tie)
    if second:
        if b.tangent.number != 0:
            total += scalar_term(n.op, 1, FG_FLOAT64, b.tangent.number, u, v, w, n.re, tie)
        if b.index or b.tangent.number == 0:
            other = scalar_second(n, b, 1, u, v, w, tie) or other
    if third:
        if c.tangent.number != 0:
            total += scalar_term(n.op, 2, FG_FLOAT64, c.tangent.number, u, v, w, n.re, tie)
        if c.index or c.tangent.number == 0:
            other = scalar_second(n, c, 2, u, v, w, tie) or other
    if a != NULL:
        stream_release(a, n.a)
    if b != NULL:
        stream_release(b, n.b)
    if c != NULL:
        stream_release(c, n.c)
    stream_dual(tape, n, n.attr, stepped)
    n.tangent.number = total
    n.index = other


cdef void stream_beside(FgTape *tape, FgNode *n) noexcept:
    """The same for `as_written` and `root_of`: one of the operands is no path."""
    cdef int which = n.op == FG_as_written
    cdef FgNode *x = node_at(n.b if which else n.a) if (n.b if which else n.a) else NULL
    cdef double total
    cdef bint other, stepped
    if x == NULL or x.op != FG_dual or x.c != tape.stream:
        return
    total = scalar_term(n.op, which, FG_FLOAT64, x.tangent.number, n.re, x.re, 0, n.re, 0)
    other, stepped = x.index, tape.steps and is_stepped(n)
    if n.a:
        stream_release(node_at(n.a), n.a)
    if n.b:
        stream_release(node_at(n.b), n.b)
    stream_dual(tape, n, n.attr, stepped)
    n.tangent.number = total
    n.index = other


cdef inline void stream_release(FgNode *x, uint32_t id) noexcept:
    """One consumer less of an operand. A scalar dual holds nothing but its place; the tape is
    busy: no mark is on it."""
    if (x.refs == 1 and x.op == FG_dual and x.rank == 0
            and x.flags & (FG_PURE | FG_ROOTED) == FG_PURE):
        x.refs = 0
        node_free(x, id)
    else:
        node_drop(id)


cdef void stream_become(FgTape *tape, FgNode *n, uint32_t id, FgAdjoint *tangent,
                        FgValue *other) except *:
    cdef uint32_t reach = reach_node(n)
    cdef bint stepped = tape.steps and is_stepped(n)
    operands_release(n, id)
    if dead:
        nodes_free_later()
    stream_dual(tape, n, reach, stepped)
    n.tangent = tangent[0]
    second_put(n, other)


cdef int stream_many(FgTape *tape, FgNode *n, uint32_t id) except -1:
    """The same for any number of operands. The results of a rule of the user's keep its node,
    which keeps their tangents, until they have become duals themselves."""
    cdef int count = operand_count(n)
    cdef int k
    cdef uint32_t x
    cdef FgAdjoint out, other
    cdef FgValue *second = NULL
    cdef FgValue *memory
    cdef FgAdjoint **t
    cdef uint32_t *ids
    cdef bint any_ = False, several
    cdef list tangents, others
    cdef object rule
    cdef int64_t results
    if n.op == FG_result:
        if n.a not in STREAMED:
            return 0
        tangents, others = STREAMED[n.a]
        streamed_result(n, tangents[n.index], &out)
        if others is not None:
            streamed_result(n, others[n.index], &other)
            if n.rank:
                stream_become(tape, n, id, &out, other.value)
            else:
                stream_become(tape, n, id, &out, <FgValue *>(&second_mark)
                              if other.number != other.number else NULL)
            return 0
        stream_become(tape, n, id, &out, NULL)
        return 0
    memory = pool_take(count * 16)
    try:
        t = <FgAdjoint **>memory.data
        ids = <uint32_t *>(memory.data + count * 8)
        for k in range(count):
            x = operand_at(n, k)
            ids[k] = x
            t[k] = stream_tangent(tape, x)
            any_ = any_ or t[k] != NULL
        if not any_:
            return 0
        if n.op == FG_custom:
            tangents = []
            others = []
            for k in range(count):
                tangents.append(None if t[k] == NULL else tangent_tensor(node_at(ids[k]), t[k], 0, 1))
                others.append(None if t[k] == NULL else second_tensor(node_at(ids[k]), t[k]))
            if id in STREAMED:
                return 0
            several = second_looked(n, t, count)
            rule = attr_object(n.attr)
            results = attr_items(n.attr)[0]
            n.refs += 1
            tape.busy = 0
            tape.streaming = 0
            k = mode().depth
            mode().depth = k + 1
            try:
                STREAMED[id] = (rule_answer(rule, rule.push(tangents), results),
                                rule_answer(rule, rule.push(others), results) if several else None)
            finally:
                mode().depth = k
                tape.busy = 1
                tape.streaming = k
                node_drop(id)           # the rule may have dropped the last of its results
            return 0
        tangent_shaped(n, id, t, ids, count, 1, &out)
        if second_looked(n, t, count):
            second = second_made(n, id, t, ids, count, &out)
        stream_become(tape, n, id, &out, second)
    finally:
        value_release(memory)
    return 0


cdef int streamed_result(FgNode *n, object derivative, FgAdjoint *out) except -1:
    """The tangent of a result of a rule of the user's."""
    cdef Tensor y = rule_tensor(rule_of(n), derivative, n)
    if n.rank == 0:
        out.number = 0 if y is None else y.node.re
    elif y is None:
        out.value = value_zeros(n.shape, n.dtype)
    else:
        out.value = value_ref(value_of(y.node, y.id))
    return 0
