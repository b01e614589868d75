"""Where nodes live: segments of a tape, tapes of a thread, and what lets go of what."""

# From a segment's slot to the segment. Reserved whole (32 MB of address space, pages appear as
# they are used), so that it never moves under a running sweep.
cdef FgSegment **directory = NULL
cdef uint32_t directory_used = 0
cdef FgSegment *segments_free = NULL
cdef int64_t segments_count = 0         # existing, free ones included


cdef int arena_setup() except -1:
    global directory
    pool_setup()
    directory = <FgSegment **>fg_calloc(FG_SEGMENTS_MAX, sizeof(FgSegment *))
    if directory == NULL:
        raise MemoryError()
    return 0


cdef inline FgNode *node_at(uint32_t id) noexcept nogil:
    return &directory[id >> FG_SEGMENT_BITS].nodes[id & (FG_SEGMENT - 1)]


cdef FgSegment *segment_new() except NULL:
    global segments_free, directory_used, segments_count
    cdef FgSegment *s = segments_free
    if s != NULL:
        segments_free = s.before
    else:
        if directory_used >= FG_SEGMENTS_MAX:
            raise MemoryError("fastgrad: four thousand million operations are recorded")
        s = <FgSegment *>fg_calloc(1, sizeof(FgSegment))
        if s == NULL:
            raise MemoryError()
        s.nodes = <FgNode *>fg_chunk(FG_SEGMENT * sizeof(FgNode))
        if s.nodes == NULL:
            fg_free(s)
            raise MemoryError(f"fastgrad: no memory for another {FG_SEGMENT} operations")
        node_hide_all(s)
        s.slot = directory_used
        directory[s.slot] = s
        census(&blocks_kept, 1)
        directory_used += 1
        segments_count += 1
    s.tape = NULL
    s.before = NULL
    s.after = NULL
    # The first place of slot 0 is never handed out: id 0 says "no node".
    s.used = 1 if s.slot == 0 else 0
    s.live = 0
    s.listed = 0
    s.marked = 0
    return s


cdef void segment_recycle(FgSegment *s) noexcept:
    """All its nodes have died: back to the free ones; the open segment starts again instead."""
    global segments_free
    cdef FgTape *tape = s.tape
    if tape != NULL and tape.busy:
        # A sweep stands on it, or will walk over it.
        if not s.listed:
            s.listed = 1
            s.emptied = tape.emptied
            tape.emptied = s
        return
    if tape != NULL and tape.last == s and not tape.orphan:
        if FG_REUSES:
            s.used = 1 if s.slot == 0 else 0
            tape.sequence += 1          # what comes is newer than all that was
            s.sequence = tape.sequence
        return
    if s.before != NULL:
        s.before.after = s.after
    elif tape != NULL:
        tape.first = s.after
    if s.after != NULL:
        s.after.before = s.before
    elif tape != NULL:
        tape.last = s.before
    if not FG_REUSES:
        segment_free(s)
        return
    s.after = NULL
    s.before = segments_free
    segments_free = s


cdef void node_hide_all(FgSegment *s) noexcept:
    cdef int i
    for i in range(FG_SEGMENT if not FG_REUSES else 0):
        node_hide(&s.nodes[i])


cdef void segment_free(FgSegment *s) noexcept:
    global segments_count
    census(&blocks_kept, -2 if s.adjoints != NULL else -1)
    directory[s.slot] = NULL
    segments_count -= 1
    fg_chunk_free(s.nodes)
    fg_free(s.adjoints)
    fg_free(s)


cdef inline void place_free(FgSegment *s, uint32_t id) noexcept:
    """A node of a tape has died; the newest leaves its place to the next operation."""
    node_hide(&s.nodes[id & (FG_SEGMENT - 1)])
    if FG_REUSES and (id & (FG_SEGMENT - 1)) == s.used - 1:
        s.used -= 1


cdef void segments_recycle(FgTape *tape) noexcept:
    """Those that the sweep which has just ended emptied."""
    cdef FgSegment *s
    while tape.emptied != NULL:
        s = tape.emptied
        tape.emptied = s.emptied
        s.listed = 0
        if s.live == 0:
            segment_recycle(s)


cdef FgAdjoint *segment_adjoints(FgSegment *s) except NULL:
    if s.adjoints == NULL:
        s.adjoints = <FgAdjoint *>fg_malloc(FG_SEGMENT * sizeof(FgAdjoint))
        if s.adjoints == NULL:
            raise MemoryError()
        census(&blocks_kept, 1)
    return s.adjoints


# ---- tapes ----------------------------------------------------------------------------------

cdef FgTape *tape_new(uint64_t thread) except NULL:
    cdef FgTape *tape = <FgTape *>fg_calloc(1, sizeof(FgTape))
    if tape == NULL:
        raise MemoryError()
    tape.thread = thread
    decisions_forget(tape)
    return tape


cdef FgTape *tape_of_thread() except NULL:
    """The calling thread's tape, made when it first records."""
    cdef FgTape *tape = get_thread_tape()
    if tape == NULL:
        tape = tape_new(<uint64_t>PyThread_get_thread_ident())
        tape_own(tape)
        set_thread_tape(tape)
    return tape


cdef FgTape *tape_spare(FgTape *tape) except NULL:
    """Another tape of the same thread, for what is recorded while a sweep of this one waits."""
    if tape.spare == NULL:
        tape.spare = tape_new(tape.thread)
        census(&blocks_kept, 1)
    return tape.spare


cdef inline uint32_t thread_mark() noexcept nogil:
    """Tells apart threads that record; 0: the calling one has not recorded yet."""
    return <uint32_t>(<size_t><void *>get_thread_tape() >> 4)


cdef int tape_own(FgTape *tape) except -1:
    """Let a new tape end with its thread: the owner's destructor runs when the thread's state goes,
    and tells the tape so; or frees it right now, if there is no memory to keep the owner."""
    cdef PyObject *state = PyThreadState_GetDict()
    try:
        owner = TapeOwner.__new__(TapeOwner)
    except BaseException:
        fg_free(tape)
        raise
    census(&blocks_kept, 1)
    if state != NULL:
        (<TapeOwner>owner).tape = tape
        (<dict>state)["fastgrad.tape"] = owner
    return 0


cdef class TapeOwner:
    """Lives in the dictionary of a thread; orphans the thread's tape at its end."""
    cdef FgTape *tape

    def __dealloc__(self):
        if self.tape == NULL:
            return
        if get_thread_tape() == self.tape:
            set_thread_tape(NULL)
        tape_orphan(self.tape)


cdef void tape_orphan(FgTape *tape) noexcept:
    """The thread of a tape has ended."""
    cdef FgSegment *s = tape.last
    cdef FgSegment *before
    if tape.spare != NULL:
        tape_orphan(tape.spare)
        tape.spare = NULL
    tape.orphan = 1
    while s != NULL:
        before = s.before
        if s.live == 0:
            segment_recycle(s)
        s = before
    tape_forget(tape)


cdef void tape_forget(FgTape *tape) noexcept:
    """Free an orphan that nothing refers to any more."""
    if tape.orphan and tape.live == 0 and tape.busy == 0 and tape.held == 0:
        census(&blocks_kept, -1)
        fg_free(tape.queue)
        fg_free(tape)


cdef FgSegment *tape_grow(FgTape *tape) except NULL:
    """Open another segment."""
    cdef FgSegment *s
    cdef FgSegment *last
    if tape.streaming:
        stream_flush(tape)
    s = segment_new()
    last = tape.last
    s.tape = tape
    tape.sequence += 1
    s.sequence = tape.sequence
    s.before = last
    tape.last = s
    if last != NULL:
        last.after = s
        if last.live == 0:
            segment_recycle(last)
    if s.before == NULL:
        tape.first = s
    return s


cdef inline FgNode *node_append(FgTape *tape, uint32_t *id) except NULL:
    """A place for the next recorded operation, its fields still to be set."""
    cdef FgSegment *s = tape.last
    cdef uint32_t i
    if fg_fails():
        raise MemoryError()
    if s == NULL or s.used == FG_SEGMENT:
        s = tape_grow(tape)
    i = s.used
    s.used = i + 1
    s.live += 1
    tape.live += 1
    id[0] = (s.slot << FG_SEGMENT_BITS) | i
    node_show(&s.nodes[i])
    return &s.nodes[i]


cdef inline void node_set(FgNode *n, int op, int dtype, int rank, int flags, uint32_t a, uint32_t b,
                          uint32_t c) noexcept nogil:
    """The fields of a freshly recorded node, but for its value, constant and handle; it is
    referred to once, by the Tensor that will stand for it."""
    n.op = <uint16_t>op
    n.dtype = <uint8_t>dtype
    n.rank = <uint8_t>rank
    n.flags = <uint16_t>(flags | FG_NEEDS_GRAD)
    n.index = 0
    n.refs = 1
    n.uses = 0
    n.a = a
    n.b = b
    n.c = c
    n.attr = 0


# Leaves (parameters, arguments, constants) belong to no tape and have no order: dead ones are
# linked through their field `a`.
cdef FgSegment *leaves = NULL
cdef uint32_t leaves_free = FG_NO_ID


cdef FgNode *leaf_append(uint32_t *id) except NULL:
    """A place for a node outside every tape, all fields set except value and handle."""
    global leaves, leaves_free
    cdef FgNode *n
    cdef FgSegment *s
    if fg_fails():
        raise MemoryError()
    if leaves_free != FG_NO_ID:
        id[0] = leaves_free
        n = node_at(leaves_free)
        leaves_free = n.a
    else:
        s = leaves
        if s == NULL or s.used == FG_SEGMENT:
            s = segment_new()
            leaves = s
        id[0] = (s.slot << FG_SEGMENT_BITS) | s.used
        n = &s.nodes[s.used]
        s.used += 1
        s.live += 1
        node_show(n)
    census(&leaves_alive, 1)
    n.op = FG_leaf
    n.dtype = FG_FLOAT64
    n.rank = 0
    n.flags = FG_LEAF
    n.index = 0
    n.refs = 1
    n.uses = 0
    n.a = FG_NO_ID
    n.b = mode().serial
    n.c = <uint32_t>mode().depth
    n.attr = 0
    n.re = n.im = 0
    n.constant = 0
    n.handle = NULL
    return n


# ---- lifetimes ------------------------------------------------------------------------------

# Nodes to be freed, so that freeing never recurses: the last one, linked through
# themselves. Freeing needs no memory.
cdef uint32_t dead = FG_NO_ID
cdef bint freeing = False


cdef inline void dead_push(uint32_t id) noexcept:
    global dead
    node_at(id).next_dead = dead
    dead = id


cdef inline void node_replace(FgNode *n, FgValue *value) noexcept:
    """Give an array node another value (taken over). The old one goes last: with memory of the
    user's a destructor may run, which may look at the node."""
    cdef FgValue *old = n.value
    n.value = value
    value_release(old)


cdef inline void use_drop(FgNode *n, uint32_t id) noexcept:
    """One reader less of a node's value."""
    n.uses -= 1
    if n.uses == 0 and n.rank and n.handle == NULL:
        value_unneeded(n, id)


cdef void value_unneeded(FgNode *n, uint32_t id) noexcept:
    """Nobody will look at the value of an array node any more."""
    if n.value != NULL:
        node_replace(n, NULL)
    elif n.flags & FG_PENDING:
        run_settle(n, n.index, directory[id >> FG_SEGMENT_BITS].tape)


cdef inline void node_drop(uint32_t id) noexcept:
    """One reference less."""
    cdef FgNode *n = node_at(id)
    n.refs -= 1
    if n.refs == 0:
        nodes_free(id)


cdef void nodes_free(uint32_t id) noexcept:
    """Free a node that nobody refers to, and whatever only it referred to."""
    global freeing
    dead_push(id)
    if freeing:
        return                          # an owner's destructor came back here: the loop below goes on
    freeing = True
    nodes_free_all()
    freeing = False


cdef void nodes_free_all() noexcept:
    global dead
    cdef FgNode *n
    cdef uint32_t id
    while dead:
        id = dead
        n = node_at(id)
        dead = n.next_dead
        if not n.flags & FG_LEAF:
            operands_release(n, id)
        node_free(n, id)


cdef void operands_release(FgNode *n, uint32_t id) noexcept:
    """Let go of what the node was made of; operands that nothing else needs die with it."""
    cdef unsigned int reads = node_holds(n)
    cdef FgTape *tape
    cdef int64_t i, count
    cdef uint32_t attr
    if n.flags & FG_PENDING:
        n.flags &= ~FG_PENDING
        tape = directory[id >> FG_SEGMENT_BITS].tape
        run_leave(tape, n.index)
    if n.flags & FG_READS_SELF:
        n.flags &= ~FG_READS_SELF
        use_drop(n, id)
    if n.op == FG_dual:
        if n.flags & FG_ROOTED:
            under_release(id)
        if not n.flags & FG_PURE:
            directory[id >> FG_SEGMENT_BITS].tape.duals -= 1
        tangent_release(n)
        return
    if n.a:
        operand_release(n.a, reads & FG_A)
        n.a = FG_NO_ID
    if n.b:
        operand_release(n.b, reads & FG_B)
        n.b = FG_NO_ID
    if n.c:
        operand_release(n.c, reads & FG_C)
        n.c = FG_NO_ID
    if n.attr and n.op >= FG_ELEMENTWISE_END:
        attr = n.attr
        n.attr = 0
        if is_listed(n):
            count = attr_count(attr)
            for i in range(1, count):
                if attr_items(attr)[i]:
                    operand_release(<uint32_t>attr_items(attr)[i], 0)
        attr_release(attr)


cdef inline void operand_release(uint32_t id, unsigned int read) noexcept:
    cdef FgNode *x = node_at(id)
    x.refs -= 1
    if read:
        use_drop(x, id)
    # A sweep still has to run through a marked node; it frees it afterwards.
    if x.refs == 0 and not node_marked(id):
        dead_push(id)


cdef inline bint node_marked(uint32_t id) noexcept nogil:
    cdef FgSegment *s = directory[id >> FG_SEGMENT_BITS]
    return s.marked != 0 and (s.marks[(id & (FG_SEGMENT - 1)) >> 6] >> (id & 63)) & 1


cdef inline void node_free(FgNode *n, uint32_t id) noexcept:
    """The place itself, operands released before."""
    global leaves_free
    cdef FgSegment *s = directory[id >> FG_SEGMENT_BITS]
    cdef FgTape *tape = s.tape
    cdef FgValue *value
    cdef void *keeper = NULL
    if (n.flags & (FG_LEAF | FG_NEEDS_GRAD | FG_ARGUMENT | FG_CONSUMED)) == FG_LEAF | FG_NEEDS_GRAD:
        leaf_require(n, False)          # one parameter less
    if n.rank:
        shape_release(n.shape)
        value = n.value
        n.value = NULL
        if value != NULL:
            value_release(value)
    if n.flags & FG_LEAF:
        if n.index and not n.flags & FG_CONSUMED and snapshots[n.index - 1].leaf == id:
            snapshots[n.index - 1].leaf = FG_NO_ID
        if n.flags & FG_RETAINED and n.handle != NULL:
            keeper = n.handle           # an old version of a parameter held the parameter
        n.handle = NULL
        n.flags = FG_LEAF
        if FG_REUSES:
            n.a = leaves_free
            leaves_free = id
        n.refs = 0
        census(&leaves_alive, -1)
        node_hide(n)
        if keeper != NULL:
            Py_DECREF(<object>keeper)
        return
    if n.flags & FG_CONSUMED:
        tape.consumed -= 1
    if n.op == FG_custom:
        tape.customs -= 1
        tape.rules -= n.constant != 0
        STREAMED.pop(id, None)
    tape.live -= 1
    s.live -= 1
    place_free(s, id)
    if s.live == 0:
        segment_recycle(s)
        if tape.orphan:
            tape_forget(tape)


cdef inline void handle_drop(uint32_t id, FgNode *n, FgTape *tape) noexcept:
    """The Tensor that stood for the node has gone."""
    n.handle = NULL
    if tape != NULL and tape.busy:
        queue_push(tape, id)
    else:
        handle_released(n, id)


cdef inline void handle_released(FgNode *n, uint32_t id) noexcept:
    """One reference less; the value goes unless a reader or a Tensor is left. What was queued need
    not have been a Tensor, and another one may stand for the node since."""
    n.refs -= 1
    if n.refs == 0:
        nodes_free(id)
    elif n.rank and n.uses == 0 and n.handle == NULL:
        value_unneeded(n, id)


cdef void queue_push(FgTape *tape, uint32_t id) noexcept:
    """A handle dropped in another thread or by the collector while the tape sweeps."""
    cdef int64_t size = tape.queue_size
    cdef void *grown
    if tape.queued == tape.queue_size:
        grown = fg_grown(tape.queue, &size, sizeof(uint32_t))
        if grown == NULL:
            return                      # the node leaks; there is no memory to say so
        census(&blocks_kept, tape.queue == NULL)
        tape.queue = <uint32_t *>grown
        tape.queue_size = <uint32_t>size
    tape.queue[tape.queued] = id
    tape.queued += 1


cdef void queue_drain(FgTape *tape) noexcept:
    cdef uint32_t id
    while tape.queued and not tape.busy:
        tape.queued -= 1
        id = tape.queue[tape.queued]
        handle_released(node_at(id), id)
