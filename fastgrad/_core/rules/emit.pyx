"""Sweeps that are recorded: adjoints and tangents as Tensors, rules as operations of the same tape.

What the compiled sweeps (reverse.pyx, tangent.pyx) do with numbers is done here with operations, so
that the result can be differentiated again: reverse over reverse, forward over reverse, any
nesting. The same code serves, without recording, the operators whose rule is Python code.
"""

# ---- what a sweep walks over ----------------------------------------------------------------

# The nodes between some results and the wanted ones, and one object for each: its adjoint or
# tangent. Open addressing by id; id 0: free. Neighbours in the tape are neighbours here, so that a
# sweep goes through memory in order; where two segments meet, one moves on by a whole segment.
cdef enum:
    NEXT_SLOT = FG_SEGMENT + 1

cdef struct Slot:
    uint32_t id
    PyObject *tensor            # owned, or NULL
    PyObject *entries           # a list of (place, scalar) still to be added, or NULL
    bint keep                   # its adjoint will be asked for
    bint by_value               # an as_written: the root is asked for (rules/roots.pyx)


@cython.final
@cython.no_gc
cdef class Subgraph:
    """Recorded nodes that results depend on, newest first, kept alive as long as it lives."""
    cdef uint32_t *ids
    cdef int64_t count
    cdef Slot *slots
    cdef uint32_t mask
    cdef FgTape *tape           # made inside a stream: its tape, whose operations it holds
    cdef int found              # FOUND_...: what else it depends on
    cdef bint pruned            # only what leads to the wanted nodes is there
    cdef Tensor finite          # whether what the sweep starts from is; None: it is

    def __dealloc__(self):
        cdef int64_t i
        self.clear()
        for i in range(self.count):
            node_drop(self.ids[i])
        if self.tape != NULL:
            self.tape.held -= 1
            tape_forget(self.tape)
        fg_free(self.ids)
        fg_free(self.slots)

    cdef int clear(self) except -1:
        """Forget adjoints and tangents."""
        cdef uint32_t i
        cdef PyObject *o
        if self.slots == NULL:
            return 0
        for i in range(self.mask + 1):
            o = self.slots[i].tensor
            self.slots[i].tensor = NULL
            if o != NULL:
                Py_DECREF(<object>o)
            o = self.slots[i].entries
            self.slots[i].entries = NULL
            if o != NULL:
                Py_DECREF(<object>o)
        return 0

    cdef Slot *find(self, uint32_t id) noexcept:
        """Its slot; NULL where its derivative is not asked for."""
        cdef uint32_t i = id & self.mask
        while self.slots[i].id != id:
            if self.slots[i].id == FG_NO_ID:
                return NULL
            i = (i + NEXT_SLOT) & self.mask
        return &self.slots[i]

    cdef void enter(self, uint32_t id) noexcept:
        cdef uint32_t i = id & self.mask
        while self.slots[i].id and self.slots[i].id != id:
            i = (i + NEXT_SLOT) & self.mask
        self.slots[i].id = id
        self.slots[i].keep = (node_at(id).flags & (FG_WANTED | FG_RETAINED)) != 0

    cdef Tensor get(self, uint32_t id):
        """The adjoint or tangent of a node; None: zero."""
        cdef Slot *slot = self.find(id)
        if slot == NULL:
            return None
        if slot.entries != NULL:
            entries_settle(self, slot, node_at(id))
        return <Tensor>slot.tensor if slot.tensor != NULL else None

    cdef int put(self, uint32_t id, Tensor t) except -1:
        cdef Slot *slot = self.find(id)
        if slot != NULL and t is not None:
            Py_INCREF(t)
            slot.tensor = <PyObject *>t
        return 0

    cdef int add(self, uint32_t id, Tensor t) except -1:
        """Add to the adjoint of a node, t being of its shape or broadcast from it."""
        cdef Slot *slot = self.find(id)
        return self.add_at(slot, t) if slot != NULL and t is not None else 0

    cdef int add_at(self, Slot *slot, Tensor t) except -1:
        cdef FgNode *n = node_at(slot.id)
        cdef Tensor old
        if n.rank or t.node.rank:
            t = fit(t, n.shape if n.rank else NULL)
        if slot.tensor != NULL:
            old = <Tensor>slot.tensor
            t = emit_sum(old, t)
            Py_DECREF(old)
        Py_INCREF(t)
        slot.tensor = <PyObject *>t
        return 0

    cdef int add_entry(self, uint32_t id, int64_t place, Tensor t) except -1:
        """Add to one entry of the adjoint, or to row -1 - place: they are put in place together."""
        cdef Slot *slot = self.find(id)
        cdef list entries
        if slot == NULL or t is None:
            return 0
        if slot.entries == NULL:
            entries = []
            Py_INCREF(entries)
            slot.entries = <PyObject *>entries
        (<list>slot.entries).append((place, t))
        return 0


cdef enum:
    FEW_ROWS = 4        # fewer are put into zeros each: a loop over n rows would cost n * n


cdef int entries_settle(Subgraph s, Slot *slot, FgNode *n) except -1:
    """Entries that came one by one, as one array."""
    cdef list entries = <list>slot.entries, rows
    cdef Tensor t
    cdef tuple dims = tensor_dims(n)
    slot.entries = NULL
    Py_DECREF(entries)
    rows = [(-1 - place, x) for place, x in entries if place < 0]
    entries = [(place, x) for place, x in entries if place >= 0]
    if entries:
        places = vouch(np.array([place for place, x in entries], dtype=np.intp))
        t = push_concatenate([x for place, x in entries], 0, True)
        t = scatter(t, places, (n.shape.size,))
        s.add(slot.id, reshape_plain(t, dims))
    if 0 < len(rows) < FEW_ROWS:
        for k, x in rows:
            s.add(slot.id, place(x, (k,), dims))
    elif rows:
        places = vouch(np.array([k for k, x in rows], dtype=np.intp))
        t = push_concatenate([reshape_plain(x, (1, *dims[1:])) for k, x in rows], 0, False)
        s.add(slot.id, scatter(t, places, dims))
    return 0


cdef Subgraph subgraph(list roots, list targets, uint32_t floor):
    """What the roots (Arguments of this thread's tape) depend on; with targets only what leads to
    these. Nodes recorded before the node `floor` belong to an enclosing transformation:
    they are not entered."""
    cdef Sweep s
    cdef bint prune = targets is not None
    cdef Argument target
    cdef Visited visited
    cdef Argument root
    cdef int found
    visited_begin(&visited)
    sweep_begin(&s, tape_of_thread(), True)
    s.rules = True
    try:
        if prune:
            for target in targets:
                target.node.flags |= FG_WANTED
        s.bare = True
        for root in roots:
            if not root.node.flags & FG_LEAF:
                mark(&s, root.id)
        found = sweep_survey(&s, &visited, targets, floor)
        return subgraph_visited(&s, &visited, roots, found)
    finally:
        if prune:
            for target in targets:
                target.node.flags &= ~FG_WANTED
        visited_clear(&visited)
        sweep_end(&s)


cdef uint32_t reach_wanted(list targets):
    """The leaves that a sweep is for, as far as their numbers tell; None: all."""
    cdef uint32_t reach = FG_REACH_NONE
    cdef Argument target
    if targets is None:
        return FG_REACH_ANY
    for target in targets:
        if not target.node.flags & FG_LEAF:
            return FG_REACH_ANY
        reach = fg_reach_both(reach, reach_of(target.node))
    return reach


cdef Subgraph subgraph_visited(Sweep *s, Visited *visited, list roots, int found):
    """The same from a survey that has just been made."""
    cdef Subgraph g = Subgraph.__new__(Subgraph)
    cdef int64_t i
    cdef int k
    cdef uint32_t id, x, size
    cdef FgNode *n
    cdef Argument root
    if s.tape.streaming:
        g.tape = s.tape
        g.tape.held += 1
    g.found = found
    g.pruned = s.pruned
    g.ids = <uint32_t *>fg_malloc((visited.count + 1) * sizeof(uint32_t))
    if g.ids == NULL:
        raise MemoryError()
    size = power_of_two(<uint32_t>(2 * (visited.count + visited.leaves + len(roots))))
    g.slots = <Slot *>fg_calloc(size, sizeof(Slot))
    if g.slots == NULL:
        raise MemoryError()
    g.mask = size - 1
    for i in range(visited.count):
        id = visited.ids[i]
        if s.pruned and not feeds_bit(id):
            continue
        n = node_at(id)
        n.refs += 1
        g.ids[g.count] = id
        g.count += 1
        g.enter(id)
        if n.op == FG_as_written and root_wanted(n):
            g.find(id).by_value = True
        if not visited.leaves:
            continue
        for k in range(operand_count(n)):
            x = operand_at(n, k)
            if x and node_at(x).flags & FG_LEAF and wanted(s, x):
                g.enter(x)
    for root in roots:
        if root.node.flags & FG_LEAF and wanted(s, root.id):
            g.enter(root.id)
    return g


cdef uint32_t power_of_two(uint32_t size) noexcept:
    cdef uint32_t n = 16
    while n < size:
        n *= 2
    return n


cdef int subgraph_consume(Subgraph g) except -1:
    """The nodes have been differentiated and shall not be again: free what they kept."""
    cdef Sweep s
    cdef int64_t i
    cdef FgNode *n
    g.clear()
    sweep_begin(&s, tape_of_thread(), False)
    try:
        for i in range(g.count):
            n = node_at(g.ids[i])
            if n.op == FG_dual:
                node_drop(g.ids[i])
                continue
            n.refs -= 1
            consume(&s, n, g.ids[i])
        g.count = 0
    finally:
        sweep_end(&s)
    return 0


# ---- Tensors for nodes ----------------------------------------------------------------------

cdef Tensor node_tensor(uint32_t id):
    """A Tensor that stands for a node: the one there is, unless it has moved on."""
    cdef FgNode *n = node_at(id)
    cdef Tensor t
    cdef Arg a
    cdef Operand x
    if n.handle != NULL:
        t = <Tensor>n.handle
        if t.node == n and t.parent is None:
            return t
        a = arg_node(id)
        operand_arg(&a, &x)
        if x.shape != NULL and x.value == NULL:
            x.value = value_of(n, id)
        return push_reshape(&x, n.rank, n.shape.dims if n.rank else NULL)
    n.refs += 1
    return tensor_new(id, n, directory[id >> FG_SEGMENT_BITS].tape)


cdef Tensor reshape_plain(Tensor t, tuple shape):
    """Reshaped, and no view of t: nobody will assign to it."""
    return t if t.shape == shape else reshape_tensor(t, shape)


cdef Tensor fit(Tensor t, FgShape *shape):
    """Summed over the axes along which something of that shape (NULL: a scalar) was broadcast."""
    cdef Operand x
    cdef uint64_t mask = 0
    cdef int i, extra
    cdef FgNode *n = t.node
    cdef int rank = shape.rank if shape != NULL else 0
    if n.rank == rank and (rank == 0 or shape_same(n.shape, shape)):
        return t
    extra = n.rank - rank           # negative: axes of length 1 stand before
    for i in range(n.rank):
        if i < extra or (shape.dims[i - extra] == 1 and n.shape.dims[i] != 1):
            mask |= <uint64_t>1 << i
    if mask:
        operand_clear(&x)
        operand_tensor(t, &x)
        t = push_sum(&x, mask, False)
    return spread(t, shape)


cdef Tensor spread(Tensor t, FgShape *shape):
    """Broadcast to a shape (NULL: a scalar), axes of length 1 put in where they are missing."""
    cdef Operand x
    cdef FgNode *n = t.node
    cdef int rank = shape.rank if shape != NULL else 0
    cdef int64_t size = shape.size if shape != NULL else 1
    if n.rank == rank and (rank == 0 or shape_same(n.shape, shape)):
        return t
    operand_tensor_ready(t, &x)
    if (n.shape.size if n.rank else 1) == size and rank <= 64:
        return push_reshape(&x, rank, shape.dims if shape != NULL else NULL)
    return push_broadcast(&x, shape_ref(shape))


cdef Tensor zeros_like_node(FgNode *n):
    if n.rank == 0:
        return scalar_constant(0, n.dtype, n.flags & FG_WEAK)
    return tensor_shaped(n.shape, number_value(0, n.dtype), n.dtype)


cdef int still_there(Subgraph s, FgNode *n, uint32_t id) except -1:
    """Raise if somebody has let go of a node's operands since it came into the subgraph: another
    sweep, run by Python code in between, or a stream at its end."""
    if n.flags & FG_CONSUMED:
        raise graph_gone()
    if n.op == FG_dual and s.pruned and not s.find(id).keep:
        raise graph_streamed()
    return 0


# ---- the reverse sweep ----------------------------------------------------------------------

cdef int emit_reverse(Subgraph s) except -1:
    """From adjoints put at the roots to those of everything else."""
    cdef int64_t i
    cdef int k
    cdef uint32_t id, x
    cdef FgNode *n
    cdef Tensor g, t
    cdef Slot *slot
    cdef Slot *operand
    for i in range(s.count):
        id = s.ids[i]
        n = node_at(id)
        still_there(s, n, id)
        if n.op == FG_custom:
            emit_custom_reverse(s, n, id)
            continue
        slot = s.find(id)
        if slot.entries != NULL:
            entries_settle(s, slot, n)
        if slot.tensor == NULL:
            continue
        g = <Tensor>slot.tensor
        if n.op == FG_as_written and slot.by_value:
            s.add(n.a, g)
        elif n.op < FG_ELEMENTWISE_END:
            for k in range(fg_op_info[n.op].arity):
                x = n.a if k == 0 else n.b if k == 1 else n.c
                operand = s.find(x) if x else NULL
                if operand != NULL:
                    t = emit_term(n, id, k, g, s.finite, False)
                    if t is not None:
                        s.add_at(operand, t)
        elif n.op == FG_item and n.attr == 0:
            s.add_entry(n.a, <int64_t>n.constant, g)
        elif n.op == FG_item and is_row(n):
            s.add_entry(n.a, -1 - attr_items(n.attr)[1], g)
        elif n.op == FG_result:
            s.add_entry(n.a, n.index, g)
        elif n.op != FG_dual and n.op != FG_leaf:
            emit_shaped_reverse(s, n, id, g)
        if not slot.keep:
            slot_clear(slot)
    return 0


cdef void slot_clear(Slot *slot) noexcept:
    cdef PyObject *o = slot.tensor
    slot.tensor = NULL
    if o != NULL:
        Py_DECREF(<object>o)


# ---- the tangent sweep ----------------------------------------------------------------------

cdef int emit_forward(Subgraph s) except -1:
    """From tangents put at the wanted nodes to those of everything that depends on them."""
    cdef int64_t i
    cdef uint32_t id
    cdef FgNode *n
    cdef Tensor t
    for i in range(s.count - 1, -1, -1):
        id = s.ids[i]
        n = node_at(id)
        still_there(s, n, id)
        if s.find(id).tensor != NULL:
            continue                    # where a tangent starts
        if n.op == FG_custom:
            emit_custom_forward(s, n, id)
            continue
        if n.op < FG_ELEMENTWISE_END:
            t = emit_elementwise_forward(s, n, id)
        elif n.op == FG_dual or n.op == FG_leaf:
            continue
        elif n.op == FG_result:
            t = custom_result(s, n)
        else:
            t = emit_shaped_forward(s, n, id)
        if t is not None:
            s.put(id, spread(t, n.shape if n.rank else NULL))
    return 0


cdef Tensor emit_elementwise_forward(Subgraph s, FgNode *n, uint32_t id):
    cdef int k
    cdef uint32_t x
    cdef Tensor t, term, total = None
    for k in range(fg_op_info[n.op].arity):
        x = n.a if k == 0 else n.b if k == 1 else n.c
        if not x:
            continue
        t = s.get(x)
        if t is None:
            continue
        term = emit_term(n, id, k, t, s.finite, True)
        if term is not None:
            total = term if total is None else emit_two(FG_add, total, term)
    return total
