"""The reverse sweep: adjoints from a seed down to the leaves.

Nodes are visited newest first, and only those that a mark has reached, so the cost follows the
subgraph and not the tape. The strong zero and the undoing of broadcasts live here, once, for
every element-wise operator: scalars in `sweep_scalar`, arrays in groups (`sweep_group`), which go
through the cache block by block and never store an adjoint that only the group itself needs.
"""

cdef enum:
    GROUP = 32                  # array nodes in a group
    TARGETS = 3 * GROUP

# A leaf, or a node whose adjoint was asked for, and the adjoint so far.
cdef struct Gathered:
    uint32_t id
    FgAdjoint adjoint
    void *made                  # backward(): the new .grad (owned) in place of another (borrowed),
    void *replaced              # both found before any .grad is changed; or NULL

cdef struct Sweep:
    FgTape *tape
    FgSegment *segment          # no mark lies above it
    int word                    # nor above this word of its marks
    int64_t pending             # marks
    bint retain                 # leave the graph as it is
    bint pruned                 # `feeds` says which nodes matter
    bint foreign                # wanted nodes may be arguments of an enclosing transformation
    Gathered *gathered          # open addressing; id 0: free
    uint32_t gathered_mask
    uint32_t gathered_count
    uint32_t latest             # the id last looked up there, ...
    Gathered *latest_entry      # ... and its entry
    Gathered first[8]           # enough for most, without asking for memory
    uint32_t streamed           # the newest dual found that was an operation once, or FG_NO_ID
    bint bare                   # a survey is on its way: marks have no adjoints yet
    bint rules                  # Python rules that can be are a part of the sweep
    PyObject *cotangents        # a dict: number of a node with such a rule -> those of its results
    uint32_t visiting           # the scalar node whose adjoint is being handed on, if that may fail


cdef int sweep_begin(Sweep *s, FgTape *tape, bint retain) except -1:
    if tape.busy:
        raise RuntimeError("fastgrad: a reverse sweep is already running on this tape")
    if tape.waiting:
        run_flush_needed(tape)
    # While it is set, handles that are dropped (by the collector, by other threads, by
    # destructors that run in between) wait on the tape's queue.
    tape.busy = 1
    s.tape = tape
    s.segment = NULL
    s.word = 0
    s.pending = 0
    s.retain = retain
    s.pruned = False
    s.foreign = False
    s.bare = False
    s.rules = False
    s.cotangents = NULL
    s.visiting = FG_NO_ID
    s.streamed = FG_NO_ID
    s.gathered = s.first
    s.gathered_mask = 7
    s.gathered_count = 0
    s.latest = FG_NO_ID
    memset(s.first, 0, sizeof(s.first))
    return 0


cdef Gathered *gathered_at(Sweep *s, uint32_t id) noexcept nogil:
    """Its entry, or the free place where it belongs."""
    cdef uint32_t i = (id * <uint32_t>2654435769) >> 7 & s.gathered_mask
    while s.gathered[i].id and s.gathered[i].id != id:
        i = (i + 1) & s.gathered_mask
    return &s.gathered[i]


cdef Gathered *gathered_new(Sweep *s, uint32_t id) except NULL:
    """A new entry, adjoint zero (an array: NULL); it keeps the node alive."""
    cdef Gathered *old = s.gathered
    cdef Gathered *e
    cdef Gathered *grown
    cdef uint32_t i, size = s.gathered_mask + 1
    if fg_fails():
        raise MemoryError()
    if s.gathered_count * 2 >= size:
        grown = <Gathered *>fg_calloc(size * 4, sizeof(Gathered))
        if grown == NULL:
            raise MemoryError()
        s.gathered = grown
        s.gathered_mask = size * 4 - 1
        s.latest = FG_NO_ID
        for i in range(size):
            if old[i].id:
                gathered_at(s, old[i].id)[0] = old[i]
        if old != s.first:
            fg_free(old)
    e = gathered_at(s, id)
    e.id = id
    e.adjoint.number = 0
    e.adjoint.value = NULL
    s.gathered_count += 1
    node_at(id).refs += 1
    return e


cdef void sweep_end(Sweep *s) noexcept:
    """Let go of everything."""
    cdef uint32_t i, id
    cdef PyObject *waiting = s.cotangents
    if s.pending or s.visiting:
        sweep_give_up(s)
    for i in range(s.gathered_mask + 1):
        id = s.gathered[i].id
        if id:
            if node_at(id).rank and s.gathered[i].adjoint.value != NULL:
                value_release(s.gathered[i].adjoint.value)
            node_drop(id)
    if s.gathered != s.first:
        fg_free(s.gathered)
    s.gathered = s.first
    if waiting != NULL:
        s.cotangents = NULL
        Py_DECREF(<object>waiting)
    s.tape.busy = 0
    segments_recycle(s.tape)
    if s.tape.queued:
        queue_drain(s.tape)
    if s.tape.live == 0:
        s.tape.steps = 0
    if s.tape.orphan:
        tape_forget(s.tape)


cdef void sweep_give_up(Sweep *s) noexcept:
    """After an error: drop the adjoints of what is still marked. The node whose adjoint was handed on
    in part has let go of some operands; another sweep must not take it for a whole one."""
    cdef uint32_t id
    cdef FgNode *n
    if s.visiting and not s.retain:
        consume(s, node_at(s.visiting), s.visiting)
    while s.pending:
        id = sweep_pop(s)
        n = node_at(id)
        if not s.bare and n.rank and adjoint_slot(s, id).value != NULL:
            value_release(adjoint_slot(s, id).value)
        if n.refs == 0:
            nodes_free(id)


# ---- marks ----------------------------------------------------------------------------------

cdef inline FgAdjoint *adjoint_slot(Sweep *s, uint32_t id) noexcept nogil:
    """Where the adjoint of a marked node is."""
    return &directory[id >> FG_SEGMENT_BITS].adjoints[id & (FG_SEGMENT - 1)]


cdef inline bint mark(Sweep *s, uint32_t id) except -1:
    """Mark a recorded node; True if it was not marked before (its adjoint is then undefined)."""
    cdef FgSegment *g = directory[id >> FG_SEGMENT_BITS]
    cdef uint32_t i = id & (FG_SEGMENT - 1)
    cdef uint64_t bit = <uint64_t>1 << (i & 63)
    if g.marks[i >> 6] & bit:
        return False
    if fg_fails():
        raise MemoryError()
    if g.adjoints == NULL:
        segment_adjoints(g)
    g.marks[i >> 6] |= bit
    g.marked += 1
    s.pending += 1
    if s.segment == NULL or g.sequence > s.segment.sequence:
        s.segment = g
        s.word = FG_SEGMENT // 64 - 1
    elif g == s.segment and <int>(i >> 6) > s.word:
        s.word = i >> 6
    return True


cdef int64_t sweep_skipped = 0      # segments without a mark that sweeps have passed over


cdef inline uint32_t sweep_peek(Sweep *s) noexcept nogil:
    """The newest marked node; there must be one."""
    global sweep_skipped
    cdef FgSegment *g = s.segment
    cdef int w = s.word
    if g.marks[w] == 0:
        while g.marked == 0:
            sweep_skipped += 1
            g = g.before
            w = FG_SEGMENT // 64 - 1
        while g.marks[w] == 0:
            w -= 1
        s.segment = g
        s.word = w
    return (g.slot << FG_SEGMENT_BITS) | <uint32_t>(w << 6 | (63 - clz(<int64_t>g.marks[w])))


cdef inline uint32_t sweep_pop(Sweep *s) noexcept nogil:
    cdef uint32_t id = sweep_peek(s)
    s.segment.marks[s.word] &= ~(<uint64_t>1 << (id & 63))
    s.segment.marked -= 1
    s.pending -= 1
    return id


cdef inline bint wanted(Sweep *s, uint32_t id) noexcept nogil:
    """Whether an adjoint of that node is needed at all."""
    cdef FgNode *n = node_at(id)
    if not n.flags & FG_NEEDS_GRAD:
        return False
    if not s.pruned:
        return True
    if n.flags & FG_LEAF:
        return (n.flags & FG_WANTED) != 0
    return feeds_bit(id) != 0


cdef inline int operand_count(FgNode *n) noexcept nogil:
    if not is_listed(n):
        return 3 if n.op != FG_dual else 0
    return <int>attr_count(n.attr) - 1 if n.attr else 0     # a consumed one has none left


cdef inline uint32_t operand_at(FgNode *n, int k) noexcept nogil:
    if is_listed(n):
        return <uint32_t>attr_items(n.attr)[k + 1]
    return n.a if k == 0 else n.b if k == 1 else n.c


# ---- before a sweep -------------------------------------------------------------------------

cdef struct Visited:
    uint32_t *ids
    int64_t count, size
    int64_t leaves              # how often one was met


cdef inline void visited_begin(Visited *v) noexcept:
    v.ids = NULL
    v.count = v.size = v.leaves = 0


cdef int visited_add(Visited *v, uint32_t id) except -1:
    cdef void *grown
    if v.count == v.size:
        grown = fg_grown(v.ids, &v.size, sizeof(uint32_t))
        if grown == NULL:
            raise MemoryError()
        v.ids = <uint32_t *>grown
    v.ids[v.count] = id
    v.count += 1
    return 0


cdef enum:                      # what a survey finds, beside the wanted nodes
    FOUND_OUTER = 1             # something that an enclosing transformation differentiates
    FOUND_PARAMETER = 2         # a leaf of the user's that requires a gradient
    FOUND_CUSTOM = 4            # what a sweep with numbers does not do: a rule of the user's, mostly
    FOUND_GONE = 8              # something whose values are freed
    FOUND_RULE = 16             # a Python rule that is a part of a sweep with numbers


cdef inline bint older(uint32_t id, uint32_t than) noexcept nogil:
    """Whether one recorded node was recorded before another."""
    cdef FgSegment *g = directory[id >> FG_SEGMENT_BITS]
    cdef FgSegment *h = directory[than >> FG_SEGMENT_BITS]
    if g == h:
        return (id & (FG_SEGMENT - 1)) < (than & (FG_SEGMENT - 1))
    return g.sequence < h.sequence


cdef object graph_gone():
    return RuntimeError(
        "backward: a part of this graph was already differentiated and its saved values are "
        "freed; write backward(retain_graph=True) the first time, or compute the loss again")


cdef object graph_streamed():
    return RuntimeError(
        "a part of this graph was recorded in a function that fastgrad.jvp differentiates, which "
        "forgets operations as it goes; to differentiate them by other means as well, write "
        "fastgrad.linearize(f, x)[1](v) in place of fastgrad.jvp(f, (x,), (v,))")


cdef int forgotten_check(Sweep *s, list targets) except -1:
    """Raise if a stream has forgotten how a dual that was found depends on a target (Argument)."""
    cdef Argument target
    for target in targets:
        if target.node.flags & FG_LEAF or older(target.id, s.streamed):
            raise graph_streamed()
    return 0


cdef int sweep_survey(Sweep *s, Visited *v, list targets, uint32_t floor) except -1:
    """Walk the subgraph below the marks without computing: raise before anything has changed if
    a part of it is gone, and find out, with targets (Arguments flagged as wanted), which nodes one
    of these feeds. Not entered are nodes recorded before the node `floor` (FG_NO_ID: there is none)
    and those that depend on none of the targets as far as their numbers tell. Returns what else was
    found."""
    cdef uint32_t id, x
    cdef FgNode *n
    cdef FgSegment *g
    cdef int64_t i
    cdef int k, found = 0
    cdef bint prune = targets is not None
    cdef uint32_t reach = reach_wanted(targets)
    s.bare = True
    while s.pending:
        id = sweep_pop(s)
        n = node_at(id)
        visited_add(v, id)
        if n.flags & FG_CONSUMED:
            found |= FOUND_GONE
        elif n.op < FG_ELEMENTWISE_END:
            if n.op == FG_as_written and root_wanted(n):
                found |= FOUND_CUSTOM           # Tensors go by the value
            if n.a:
                found |= survey_operand(s, v, n.a, floor, reach)
            if n.b:
                found |= survey_operand(s, v, n.b, floor, reach)
            if n.c:
                found |= survey_operand(s, v, n.c, floor, reach)
        else:
            if n.op == FG_custom:
                found |= FOUND_RULE if s.rules and rule_of_numbers(n) else FOUND_CUSTOM
            elif n.op == FG_dual:
                found |= FOUND_OUTER
                if not (n.flags & (FG_ARGUMENT | FG_WANTED) or not prune and n.flags & FG_PURE
                        or prune and not fg_reach_meets(reach, reach_of(n))
                        or floor and older(id, floor)
                        or s.streamed and older(id, s.streamed)):
                    s.streamed = id
            for k in range(operand_count(n)):
                x = operand_at(n, k)
                if x:
                    found |= survey_operand(s, v, x, floor, reach)
    s.bare = False
    if found & FOUND_GONE:
        raise graph_gone()
    if s.streamed:
        if not prune:
            raise graph_streamed()
        forgotten_check(s, targets)
    if not prune:
        return found
    # Oldest first: a node feeds on what its operands do.
    for i in range(v.count - 1, -1, -1):
        id = v.ids[i]
        n = node_at(id)
        if n.flags & FG_WANTED or survey_feeds(n):
            g = directory[id >> FG_SEGMENT_BITS]
            g.feeds[(id & (FG_SEGMENT - 1)) >> 6] |= <uint64_t>1 << (id & 63)
    s.pruned = True
    return found


cdef inline int survey_operand(Sweep *s, Visited *v, uint32_t x, uint32_t floor,
                               uint32_t reach) except -1:
    """Mark an operand if it is to be entered; what it is beside that."""
    cdef FgNode *o = node_at(x)
    if not o.flags & FG_NEEDS_GRAD:
        return 0
    if not o.flags & FG_LEAF:
        if floor and older(x, floor):
            return FOUND_OUTER
        if not fg_reach_meets(reach, reach_of(o)):
            return FOUND_OUTER | FOUND_PARAMETER
        mark(s, x)
        return 0
    v.leaves += 1
    if o.flags & FG_CONSUMED:
        return FOUND_GONE
    if not o.flags & FG_WANTED or s.foreign:
        return FOUND_OUTER if o.flags & FG_ARGUMENT else FOUND_PARAMETER
    return 0


cdef inline bint survey_feeds(FgNode *n) noexcept nogil:
    """Whether one of the operands leads to a wanted node."""
    cdef int k
    cdef uint32_t x
    cdef FgNode *o
    for k in range(operand_count(n)):
        x = operand_at(n, k)
        if not x:
            continue
        o = node_at(x)
        if not o.flags & FG_NEEDS_GRAD:
            continue
        if o.flags & FG_LEAF:
            if o.flags & FG_WANTED:
                return True
        elif feeds_bit(x):
            return True
    return False


cdef inline uint64_t feeds_bit(uint32_t id) noexcept nogil:
    """Whether a wanted node feeds it, as far as it is known yet."""
    return (directory[id >> FG_SEGMENT_BITS].feeds[(id & (FG_SEGMENT - 1)) >> 6] >> (id & 63)) & 1


cdef void visited_clear(Visited *v) noexcept:
    cdef int64_t i
    cdef uint32_t id
    for i in range(v.count):
        id = v.ids[i]
        directory[id >> FG_SEGMENT_BITS].feeds[(id & (FG_SEGMENT - 1)) >> 6] = 0
    fg_free(v.ids)
    visited_begin(v)


# ---- contributions --------------------------------------------------------------------------

cdef inline int contribute_number(Sweep *s, uint32_t id, double t) except -1:
    """Add to the adjoint of a scalar node."""
    cdef FgSegment *g = directory[id >> FG_SEGMENT_BITS]
    cdef uint32_t i = id & (FG_SEGMENT - 1)
    cdef Gathered *e
    if g.tape != NULL:
        if mark(s, id):
            g.adjoints[i].number = t
        else:
            g.adjoints[i].number += t
        return 0
    if id != s.latest:
        e = gathered_at(s, id)
        if e.id == 0:
            e = gathered_new(s, id)
        s.latest = id
        s.latest_entry = e
    s.latest_entry.adjoint.number += t
    return 0


cdef FgAdjoint *array_slot(Sweep *s, uint32_t id) except NULL:
    """The adjoint of an array node, marked or gathered; its value is NULL if there is none yet."""
    cdef Gathered *e
    if directory[id >> FG_SEGMENT_BITS].tape != NULL:
        if mark(s, id):
            adjoint_slot(s, id).value = NULL
        return adjoint_slot(s, id)
    e = gathered_at(s, id)
    if e.id == 0:
        e = gathered_new(s, id)
    return &e.adjoint


cdef inline bint value_unique(FgValue *v) noexcept nogil:
    """Whether it may be written to: nobody else sees its memory."""
    return (v.refs == 1 and v.base == NULL and v.owner == NULL
            and v.contiguous and not v.uniform)


cdef int contribute_value(Sweep *s, uint32_t id, FgValue *v) except -1:
    """Add an array, of the node's own shape and dtype, to its adjoint. Takes over v, which may be
    strided, uniform or shared."""
    cdef FgAdjoint *slot
    cdef FgValue *sum_
    cdef FgNode *n = node_at(id)
    try:
        slot = array_slot(s, id)
        if slot.value == NULL:
            slot.value = value_ref(v)
            return 0
        if not value_unique(slot.value):
            sum_ = value_copy(n.shape, slot.value, n.dtype)
            value_release(slot.value)
            slot.value = sum_
        value_accumulate(n.shape, slot.value, v, n.dtype)
    finally:
        value_release(v)
    return 0


cdef int value_accumulate(FgShape *shape, FgValue *y, FgValue *x, int dtype) except -1:
    """y += x; y contiguous and its own."""
    cdef Scratch scratch
    cdef Lane lane
    cdef Source source
    cdef int64_t start = 0, n
    cdef const FgLoops *loops = loops_of(dtype)
    scratch_begin(&scratch)
    source.shape = shape
    source.value = x
    source.dtype = <uint8_t>dtype
    try:
        lane_set(&lane, &source, shape, dtype, &scratch)
        while start < shape.size:
            n = shape.size - start if shape.size - start < FG_BLOCK else FG_BLOCK
            loops.accumulate(y.data + start * lane.item, lane_block(&lane, start, n, loops), n)
            start += n
    finally:
        scratch_clear(&scratch)
    return 0


cdef FgValue *own_adjoint(Sweep *s, uint32_t id) except NULL:
    """The adjoint of an array node as memory of its own, zeros if there is none yet: for rules
    that add to a part of it. Borrowed."""
    cdef FgAdjoint *slot = array_slot(s, id)
    cdef FgNode *n = node_at(id)
    cdef FgValue *v
    if slot.value == NULL:
        v = pool_take(n.shape.size * item_size(n.dtype))
        memset(v.data, 0, n.shape.size * item_size(n.dtype))
        slot.value = v
    elif not value_unique(slot.value):
        v = value_copy(n.shape, slot.value, n.dtype)
        value_release(slot.value)
        slot.value = v
    return slot.value


# ---- the sweep ------------------------------------------------------------------------------

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
