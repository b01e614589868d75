"""The reverse sweep itself, node by node, and arrays in groups."""

cdef int sweep_run(Sweep *s) except -1:
    """Visit every marked node, newest first."""
    cdef uint32_t id
    cdef FgNode *n
    while s.pending:
        if not s.pruned:
            sweep_scalars(s)
            if not s.pending:
                break
        id = sweep_pop(s)
        n = node_at(id)
        if n.op < FG_ELEMENTWISE_END:
            if n.rank == 0:
                sweep_scalar(s, n, id)
            else:
                s.visiting = FG_NO_ID
                sweep_group(s, n, id)
        else:
            s.visiting = FG_NO_ID
            sweep_shaped(s, n, id)
    s.visiting = FG_NO_ID
    return 0


cdef int sweep_scalars(Sweep *s) except -1:
    """Visit scalar nodes as long as they follow each other within one word of marks: what
    `sweep_scalar` does, with the segment at hand. Most scalar programs are run through here."""
    cdef FgSegment *segment
    cdef FgNode *nodes
    cdef FgAdjoint *adjoints
    cdef uint64_t *word
    cdef uint64_t bits
    cdef uint32_t base, id, i
    cdef FgNode *n
    cdef double g, u, v
    cdef bint retain = s.retain
    if s.pending == 0:
        return 0
    sweep_peek(s)
    segment = s.segment
    nodes = segment.nodes
    adjoints = segment.adjoints
    base = segment.slot << FG_SEGMENT_BITS
    word = &segment.marks[s.word]
    while True:
        bits = word[0]
        if bits == 0:
            return 0
        i = <uint32_t>(s.word << 6 | (63 - clz(<int64_t>bits)))
        n = &nodes[i]
        if (n.rank or n.op >= FG_ELEMENTWISE_END or n.c or n.dtype != FG_FLOAT64
                or n.flags & (FG_WANTED | FG_RETAINED)):
            return 0
        word[0] = bits & ~(<uint64_t>1 << (i & 63))
        segment.marked -= 1
        s.pending -= 1
        g = adjoints[i].number
        u = node_at(n.a).re if n.a else n.constant
        v = node_at(n.b).re if n.b else n.constant
        id = n.a
        if id:
            if id - base < FG_SEGMENT:
                scalar_near(s, segment, id - base, n, 0, g, u, v)
            else:
                s.visiting = base | i
                scalar_operand(s, n, 0, id, g, u, v, n.constant)
        id = n.b
        if id:
            if id - base < FG_SEGMENT:
                scalar_near(s, segment, id - base, n, 1, g, u, v)
            else:
                s.visiting = base | i
                if not retain:
                    n.a = FG_NO_ID      # it is done with
                scalar_operand(s, n, 1, id, g, u, v, n.constant)
        if retain:
            continue
        n.a = FG_NO_ID
        n.b = FG_NO_ID
        if n.refs:
            consumed(s, n, base | i)
            continue
        s.tape.live -= 1
        segment.live -= 1
        place_free(segment, i)
        if segment.live == 0:
            segment_recycle(segment)


cdef inline void scalar_near(Sweep *s, FgSegment *segment, uint32_t j, FgNode *n, int which,
                             double g, double u, double v) noexcept:
    """`scalar_operand` for an operand in the same segment."""
    cdef double t = 0
    cdef uint64_t bit = <uint64_t>1 << (j & 63)
    cdef uint64_t *word = &segment.marks[j >> 6]
    if g != 0:
        t = scalar_term(n.op, which, FG_FLOAT64, g, u, v, n.constant, n.re,
                        0.0 if n.flags & FG_LITERAL else 0.5)
    if word[0] & bit:
        segment.adjoints[j].number += t
    else:
        word[0] |= bit
        segment.marked += 1
        s.pending += 1
        segment.adjoints[j].number = t
    if not s.retain:
        segment.nodes[j].refs -= 1


cdef inline int sweep_scalar(Sweep *s, FgNode *n, uint32_t id) except -1:
    cdef FgSegment *segment = directory[id >> FG_SEGMENT_BITS]
    cdef double g = segment.adjoints[id & (FG_SEGMENT - 1)].number
    cdef double u, v, w
    s.visiting = id
    if n.flags & (FG_WANTED | FG_RETAINED):
        gathered_new(s, id).adjoint.number = g
    u = node_at(n.a).re if n.a else n.constant
    v = node_at(n.b).re if n.b else n.constant
    w = node_at(n.c).re if n.c else n.constant
    if n.a:
        scalar_operand(s, n, 0, n.a, g, u, v, w)
        n.a = FG_NO_ID if not s.retain else n.a
    if n.b:
        scalar_operand(s, n, 1, n.b, g, u, v, w)
        n.b = FG_NO_ID if not s.retain else n.b
    if n.c:
        scalar_operand(s, n, 2, n.c, g, u, v, w)
        n.c = FG_NO_ID if not s.retain else n.c
    if s.retain:
        return 0
    # From here on as `consume`, for what a scalar can have.
    if n.refs:
        consumed(s, n, id)
        return 0
    s.tape.live -= 1
    segment.live -= 1
    place_free(segment, id)
    if segment.live == 0:
        segment_recycle(segment)
    return 0


cdef inline int scalar_operand(Sweep *s, FgNode *n, int which, uint32_t id, double g, double u,
                               double v, double w) except -1:
    """Give one operand of a scalar node its part of the adjoint, and let go of it."""
    if not wanted(s, id):
        if not s.retain:
            operand_release(id, 0)
            if dead:
                nodes_free_later()
        return 0
    # A zero adjoint stays zero whatever the partial is; the operand counts as reached all the same.
    contribute_number(s, id, 0.0 if g == 0 else scalar_term(
        n.op, which, n.dtype, g, u, v, w, n.re, 0.0 if n.flags & FG_LITERAL else 0.5))
    if not s.retain:
        # What has been given an adjoint is marked or gathered: it does not die here.
        node_at(id).refs -= 1
    return 0


cdef inline double scalar_term(int op, int which, int dtype, double g, double u, double v, double w,
                               double y, double tie) noexcept nogil:
    """Adjoint times partial, rounded to the dtype; zero where a factor is exactly zero."""
    cdef double p = fg_partial(op, which, dtype, u, v, w, y, tie)
    cdef double t = g * p
    if t != t and p == 0:
        return 0
    return <float>t if dtype == FG_FLOAT32 else t


cdef void consume(Sweep *s, FgNode *n, uint32_t id) noexcept:
    """The node has been differentiated: free what it kept, and itself where nothing needs it."""
    operands_release(n, id)
    if dead:
        nodes_free_later()
    if n.refs == 0:
        node_free(n, id)
    else:
        consumed(s, n, id)


cdef void consumed(Sweep *s, FgNode *n, uint32_t id) noexcept:
    """A consumed node that somebody still refers to."""
    if n.refs == 1 and n.handle != NULL:
        hand_over(n, id)
    else:
        n.flags |= FG_CONSUMED
        s.tape.consumed += 1


cdef void nodes_free_later() noexcept:
    global freeing
    if not freeing:
        freeing = True
        nodes_free_all()
        freeing = False


cdef void hand_over(FgNode *n, uint32_t id) noexcept:
    """Only its Tensor is left: the value moves to a leaf, so that the segment can be recycled."""
    cdef Tensor t = <Tensor>n.handle
    cdef uint32_t leaf
    cdef FgNode *x
    try:
        x = leaf_append(&leaf)
    except BaseException:
        n.flags |= FG_CONSUMED
        directory[id >> FG_SEGMENT_BITS].tape.consumed += 1
        return
    x.dtype = n.dtype
    x.rank = n.rank
    x.flags = <uint16_t>(FG_LEAF | FG_CONSUMED
                         | (n.flags & (FG_NEEDS_GRAD | FG_WEAK | FG_INSIDE)))
    x.re = n.re
    x.im = n.im
    x.index = n.op                      # for repr
    x.handle = n.handle
    t.id = leaf
    t.node = x
    t.tape = NULL
    n.rank = 0                          # shape and value have moved
    n.handle = NULL
    n.refs = 0
    node_free(n, id)


# ---- groups of array nodes ------------------------------------------------------------------

cdef enum:
    TARGET_FULL = 1             # an array of the group's shape
    TARGET_TOTAL = 2            # a scalar: everything is summed
    TARGET_REDUCED = 3          # was broadcast: summed over the axes it had not


cdef struct GroupTarget:
    uint32_t id
    int kind
    bint fresh                  # nothing is there yet: the first contribution writes
    bint written                # in this block
    char *data
    FgValue *value              # TARGET_REDUCED: float64 sums
    Walker *walker
    Total total


cdef struct GroupStep:
    FgNode *node
    uint32_t id
    int arity
    uint32_t ids[3]             # the operands
    FgNode *operands[3]         # NULL: a constant in the node
    unsigned int reads          # what the wanted partials look at
    double tie
    Lane lane[4]                # a, b, c, y
    Lane outer                  # the adjoint from outside the group
    char *block                 # the adjoint from inside it
    bint written                # in this block
    int step[3]                 # where the operand's adjoint goes: a step of the group ...
    int target[3]               # ... or a target outside; -1: nowhere
    FgPartialLoop loop[3]


cdef inline bint reached(Sweep *s, uint32_t id) noexcept:
    """Whether an operand has been given an adjoint."""
    return node_marked(id) or gathered_at(s, id).id != 0


# The partial of a step is zero, but its operand counts as reached, as a scalar does.
cdef void step_f64(const void *g, const void *a, const void *b, const void *c, const void *y, void *out,
                   int64_t n, double tie) noexcept nogil:
    memset(out, 0, n * 8)


cdef void step_f32(const void *g, const void *a, const void *b, const void *c, const void *y, void *out,
                   int64_t n, double tie) noexcept nogil:
    memset(out, 0, n * 4)


cdef int sweep_group(Sweep *s, FgNode *n, uint32_t id) except -1:
    """Differentiate a node and those marked next that have its shape, block by block."""
    cdef GroupStep *step = NULL
    cdef GroupTarget *target = NULL
    cdef int steps = 0, targets = 0, i, j, k
    cdef uint32_t x
    cdef const FgOpInfo *info
    cdef FgShape *shape = shape_ref(n.shape)
    cdef int dtype = n.dtype
    cdef const FgLoops *loops = loops_of(dtype)
    cdef int64_t item = item_size(dtype)
    cdef int64_t m = shape.size if shape.size < FG_BLOCK else FG_BLOCK
    cdef Scratch scratch
    cdef Source source
    cdef bint roomy = True, taken = False
    cdef FgValue *v
    cdef char *spare
    cdef GroupStep *p

    scratch_begin(&scratch)
    try:
        step = <GroupStep *>scratch_take(&scratch, GROUP * sizeof(GroupStep))
        target = <GroupTarget *>scratch_take(&scratch, TARGETS * sizeof(GroupTarget))
        if n.flags & (FG_WANTED | FG_RETAINED):
            v = adjoint_slot(s, id).value
            gathered_new(s, id).adjoint.value = value_ref(v)

        # Which nodes: the next marked one joins as long as it is of the same kind.
        while True:
            p = &step[steps]
            steps += 1
            taken = True
            info = &fg_op_info[n.op]
            p.node = n
            p.id = id
            p.arity = info.arity
            n.refs += 1                 # not to be freed with its last consumer, but with us
            p.tie = 0.0 if n.flags & FG_LITERAL else 0.5
            p.ids[0] = n.a
            p.ids[1] = n.b
            p.ids[2] = n.c
            p.reads = 0
            p.block = NULL
            for k in range(p.arity):
                x = p.ids[k]
                p.loop[k] = NULL
                p.operands[k] = NULL
                if not x:
                    continue
                p.operands[k] = node_at(x)
                if wanted(s, x):
                    p.loop[k] = loops.partial[n.op][k]
                    if p.loop[k] == NULL and info.props & FG_STEPS and not reached(s, x):
                        p.loop[k] = step_f64 if dtype == FG_FLOAT64 else step_f32
                    if p.loop[k] != NULL:
                        p.reads |= info.reads[k]
                        if p.operands[k].flags & FG_LEAF:
                            pass
                        elif p.operands[k].rank:
                            array_slot(s, x)
                        elif mark(s, x):
                            adjoint_slot(s, x).number = 0
            if steps == GROUP or not s.pending:
                break
            x = sweep_peek(s)
            n = node_at(x)
            if (n.op >= FG_ELEMENTWISE_END or n.rank == 0 or n.dtype != dtype
                    or n.flags & (FG_WANTED | FG_RETAINED) or not shape_same(n.shape, shape)):
                break
            id = sweep_pop(s)

        # From where, to where.
        source.dtype = <uint8_t>dtype
        for i in range(steps):
            p = &step[i]
            n = p.node
            v = adjoint_slot(s, p.id).value
            p.outer.mode = LANE_NONE
            if v != NULL:
                source.shape = shape
                source.value = v
                lane_set(&p.outer, &source, shape, dtype, &scratch)
                roomy = roomy and p.outer.roomy
            for k in range(4):
                p.lane[k].mode = LANE_NONE
                p.lane[k].data = NULL
            for k in range(p.arity):
                x = p.ids[k]
                if p.loop[k] != NULL:
                    p.step[k] = -1
                    for j in range(i + 1, steps):
                        if step[j].id == x:
                            p.step[k] = j
                            if step[j].block == NULL:
                                step[j].block = scratch_take(&scratch, m * item)
                            break
                    else:
                        for j in range(targets):
                            if target[j].id == x:
                                break
                        else:
                            j = targets
                            target[j].value = NULL
                            targets += 1
                            group_target(s, &target[j], x, shape, dtype, &scratch)
                        p.target[k] = j
                if not p.reads & (FG_A << k):
                    continue
                if p.operands[k] != NULL:
                    source.shape = p.operands[k].shape if p.operands[k].rank else NULL
                    source.value = p.operands[k].value
                    source.number = p.operands[k].re
                    source.dtype = p.operands[k].dtype
                else:
                    source.shape = NULL
                    source.number = n.constant
                lane_set(&p.lane[k], &source, shape, dtype, &scratch)
                source.dtype = <uint8_t>dtype
                roomy = roomy and p.lane[k].roomy
            if p.reads & FG_Y:
                source.shape = shape
                source.value = n.value
                lane_set(&p.lane[3], &source, shape, dtype, &scratch)
                roomy = roomy and p.lane[3].roomy
        spare = scratch_take(&scratch, m * item)

        if shape.size >= UNLOCK:
            with nogil:
                group_blocks(step, steps, target, targets, loops, shape.size, dtype, roomy, spare)
        else:
            group_blocks(step, steps, target, targets, loops, shape.size, dtype, roomy, spare)

        for j in range(targets):
            if target[j].kind == TARGET_TOTAL:
                contribute_number(s, target[j].id, round_to(dtype, total_value(&target[j].total)))
            elif target[j].kind == TARGET_REDUCED:
                v = value_narrow(target[j].value, node_at(target[j].id).shape, dtype)
                contribute_value(s, target[j].id, v)
                value_release(target[j].value)
                target[j].value = NULL
        for i in range(steps):
            v = adjoint_slot(s, step[i].id).value
            if v != NULL:
                adjoint_slot(s, step[i].id).value = NULL
                value_release(v)
        for i in range(steps):
            step[i].node.refs -= 1
            if s.retain:
                continue
            if s.pruned:
                consume(s, step[i].node, step[i].id)
            else:
                group_consume(s, &step[i])
        steps = 0
        targets = 0
    finally:
        if not taken:
            group_drop(s, id)
        for i in range(steps):
            step[i].node.refs -= 1
            group_drop(s, step[i].id)
        for j in range(targets):
            if target[j].value != NULL:
                value_release(target[j].value)
        scratch_clear(&scratch)
        shape_release(shape)
    return 0


cdef void group_drop(Sweep *s, uint32_t id) noexcept:
    """After an error: a node of the group goes without having handed its adjoint on."""
    cdef FgValue *v = adjoint_slot(s, id).value
    adjoint_slot(s, id).value = NULL
    if v != NULL:
        value_release(v)
    if node_at(id).refs == 0:
        nodes_free(id)


cdef inline void group_consume(Sweep *s, GroupStep *p) noexcept:
    """As `consume`, with what the group knows: `reads` is what the node holds, as long as nothing
    was pruned."""
    cdef FgNode *n = p.node
    cdef FgNode *x
    cdef int k
    if n.flags & FG_PENDING:
        consume(s, n, p.id)
        return
    if n.flags & FG_READS_SELF:
        n.flags &= ~FG_READS_SELF
        use_drop(n, p.id)
    for k in range(p.arity):
        x = p.operands[k]
        if x == NULL:
            continue
        x.refs -= 1
        if p.reads & (FG_A << k):
            use_drop(x, p.ids[k])
        if x.refs == 0 and not node_marked(p.ids[k]):
            dead_push(p.ids[k])
    n.a = n.b = n.c = FG_NO_ID
    if dead:
        nodes_free_later()
    if n.refs == 0:
        node_free(n, p.id)
    else:
        consumed(s, n, p.id)


cdef inline double round_to(int dtype, double x) noexcept nogil:
    return <float>x if dtype == FG_FLOAT32 else x


cdef FgValue *value_narrow(FgValue *wide, FgShape *shape, int dtype) except NULL:
    """float64 sums in the dtype of the adjoint."""
    cdef FgValue *v
    cdef int64_t i
    if dtype == FG_FLOAT64:
        return value_ref(wide)
    v = pool_take(shape.size * 4)
    for i in range(shape.size):
        (<float *>v.data)[i] = <float>(<double *>wide.data)[i]
    return v


cdef int group_target(Sweep *s, GroupTarget *t, uint32_t id, FgShape *shape, int dtype,
                      Scratch *scratch) except -1:
    """How contributions to a node outside the group are collected."""
    cdef FgNode *n = node_at(id)
    cdef FgAdjoint *slot
    t.id = id
    t.written = False
    t.fresh = False
    if n.rank == 0:
        t.kind = TARGET_TOTAL
        t.total.count = 0
    elif shape_same(n.shape, shape):
        t.kind = TARGET_FULL
        slot = array_slot(s, id)
        if slot.value == NULL:
            t.fresh = True
            slot.value = pool_take(shape.size * item_size(dtype))
            t.data = slot.value.data
        else:
            t.data = own_adjoint(s, id).data
    else:
        t.kind = TARGET_REDUCED
        t.value = pool_take(n.shape.size * 8)
        t.data = t.value.data
        memset(t.data, 0, n.shape.size * 8)
        t.walker = <Walker *>scratch_take(scratch, sizeof(Walker))
        walker_set(t.walker, shape, n.shape, t.value, FG_FLOAT64)
    return 0


cdef void group_blocks(GroupStep *step, int steps, GroupTarget *target, int targets,
                       const FgLoops *loops, int64_t size, int dtype, bint roomy,
                       char *spare) noexcept nogil:
    cdef int64_t start = 0, n, m, item = item_size(dtype)
    cdef int i, j, k
    cdef char *in_[4]
    cdef char *g
    cdef char *out
    cdef GroupStep *p
    cdef GroupTarget *t
    while start < size:
        n = size - start if size - start < FG_BLOCK else FG_BLOCK
        m = padded(n, item) if roomy else n
        for i in range(steps):
            step[i].written = False
        for j in range(targets):
            target[j].written = not target[j].fresh
        for i in range(steps):
            p = &step[i]
            g = p.block
            if p.outer.mode != LANE_NONE:
                out = lane_block(&p.outer, start, n, loops)
                if p.written:
                    loops.accumulate(g, out, m)
                else:
                    g = out
            for k in range(4):
                in_[k] = lane_block(&p.lane[k], start, n, loops)
            for k in range(p.arity):
                if p.loop[k] == NULL:
                    continue
                if p.step[k] >= 0:
                    j = p.step[k]
                    if not step[j].written:
                        step[j].written = True
                        p.loop[k](g, in_[0], in_[1], in_[2], in_[3], step[j].block, m, p.tie)
                    else:
                        p.loop[k](g, in_[0], in_[1], in_[2], in_[3], spare, m, p.tie)
                        loops.accumulate(step[j].block, spare, m)
                    continue
                t = &target[p.target[k]]
                if t.kind == TARGET_FULL and not t.written:
                    t.written = True
                    p.loop[k](g, in_[0], in_[1], in_[2], in_[3], t.data + start * item, m, p.tie)
                    continue
                p.loop[k](g, in_[0], in_[1], in_[2], in_[3], spare, m, p.tie)
                if t.kind == TARGET_FULL:
                    loops.accumulate(t.data + start * item, spare, m)
                elif t.kind == TARGET_TOTAL:
                    total_add(&t.total, loops.sum(spare, n))
                else:
                    scatter_block(t.walker, start, n, spare, dtype)
        start += n
