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
