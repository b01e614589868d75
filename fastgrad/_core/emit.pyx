"""Sweeps that are recorded: adjoints and tangents as Tensors, rules as operations of the same tape.

What the compiled sweeps (sweep.pyx, tangent.pyx) do with numbers is done here with operations, so
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
    bint by_value               # an as_written: the root is asked for (roots.pyx)


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
        """Add to one entry of the adjoint: they are put in place together."""
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


cdef int entries_settle(Subgraph s, Slot *slot, FgNode *n) except -1:
    """Entries that came one by one, as one array."""
    cdef list entries = <list>slot.entries
    cdef Tensor t
    slot.entries = NULL
    Py_DECREF(entries)
    places = vouch(np.array([place for place, x in entries], dtype=np.intp))
    t = push_concatenate([x for place, x in entries], 0, True)
    t = scatter(t, places, (n.shape.size,))
    return s.add(slot.id, reshape_plain(t, tensor_dims(n)))


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


cdef int emit_shaped_reverse(Subgraph s, FgNode *n, uint32_t id, Tensor g) except -1:
    cdef FgNode *x = node_at(n.a) if n.a and n.op != FG_concatenate else NULL
    cdef int op = n.op
    cdef Operand o
    cdef Tensor t
    cdef uint64_t mask
    if op == FG_concatenate:
        return emit_concatenate_reverse(s, n, g)
    if op == FG_matmul:
        return emit_matmul_reverse(s, n, id, g)
    if op == FG_assign:
        return emit_assign_reverse(s, n, g)
    if x == NULL or s.find(n.a) == NULL:
        return 0
    if op == FG_reshape:
        t = reshape_plain(g, tensor_dims(x))
    elif op == FG_broadcast:
        t = fit(g, x.shape if x.rank else NULL)
    elif op == FG_transpose:
        t = transpose_tensor(g, tuple(np.argsort(transpose_axes(n))))
    elif op == FG_flip:
        t = flip_tensor(g, flip_axes(n))
    elif op == FG_cast:
        t = cast_plain(g, x.dtype)
    elif op == FG_sum:
        t = expand(g, n, x)
    elif op == FG_item:
        operand_tensor_ready(g, &o)
        t = push_place(&o, n.attr, x.shape)
    elif op == FG_place:
        operand_tensor_ready(g, &o)
        t = push_item(&o, item_index(n.attr))
        t = reshape_plain(t, tensor_dims(x))
    elif op == FG_gather:
        if x.rank == 0:
            t = fit(g, NULL)
        else:
            t = scatter(g, attr_object(n.attr), tensor_dims(x))
    elif op == FG_scatter:
        operand_tensor_ready(g, &o)
        t = push_gather(&o, attr_object(n.attr))
    elif op == FG_prod:
        t = emit_chain(expand(g, n, x), others(node_tensor(n.a), n, x), s.finite)
    elif op == FG_max or op == FG_min:
        t = emit_two(FG_weigh, expand(g, n, x), weights_constant(n, x))
    elif op == FG_logsumexp:
        t = emit_chain(expand(g, n, x), softmax_of(n, id, x), s.finite)
    else:
        raise NoDerivativeError(f"{fg_op_info[op].name.decode()}: there is no rule for its derivative in "
                                "reverse mode that could be recorded")
    return s.add(n.a, t)


cdef tuple transpose_axes(FgNode *n):
    return tuple([attr_items(n.attr)[i] for i in range(n.rank)])


cdef tuple flip_axes(FgNode *n):
    cdef uint64_t axes = <uint64_t>attr_items(n.attr)[0]
    return tuple([i for i in range(n.rank) if axes >> i & 1])


cdef Tensor cast_plain(Tensor t, int dtype):
    cdef Operand x
    if t.node.dtype == dtype:
        return t
    operand_tensor_ready(t, &x)
    return push_cast(&x, dtype)


cdef uint64_t reduction_mask(FgNode *n, FgNode *x) noexcept:
    """The axes that a reduction ran over."""
    if n.attr:
        return <uint64_t>attr_items(n.attr)[0]
    return (<uint64_t>1 << x.rank) - 1 if x.rank < 64 else ~<uint64_t>0


cdef Tensor expand(Tensor t, FgNode *n, FgNode *x):
    """Something of the shape of a reduction's result, in the shape of its operand."""
    cdef uint64_t mask = reduction_mask(n, x)
    cdef int64_t dims[64]
    cdef int i
    cdef Operand o
    if x.rank == 0:
        return reshape_plain(t, ())
    if t.node.rank != x.rank and t.node.rank:
        for i in range(x.rank):
            dims[i] = 1 if mask >> i & 1 else x.shape.dims[i]
        operand_tensor_ready(t, &o)
        t = push_reshape(&o, x.rank, dims)
    return spread(t, x.shape)


cdef tuple item_index(uint32_t attr):
    """A basic index that an attribute keeps, as Python writes it."""
    cdef int64_t *items = attr_items(attr)
    cdef int64_t i, stop
    cdef list index = []
    for i in range(attr_count(attr) // INDEX_FIELDS):
        if items[0] == INDEX_INT:
            index.append(items[1])
        elif items[0] == INDEX_NEW:
            index.append(None)
        elif items[3] == 0:
            index.append(slice(0, 0, 1))
        else:
            stop = items[1] + items[3] * items[2]
            index.append(slice(items[1], stop if stop >= 0 else None, items[2]))
        items += INDEX_FIELDS
    return tuple(index)


cdef Tensor push_place(Operand *x, uint32_t attr, FgShape *shape):
    """Zeros of that shape, with x where the index says."""
    cdef FgValue *v = value_zeros(shape, x.dtype)
    cdef FgValue *g = x.value
    cdef FgShape *part = x.shape
    cdef uint32_t copy = 0
    try:
        window_add(shape, v, attr, part, g, x.dtype)
        if x.needs:
            copy = attr_new(attr_count(attr), attr_items(attr), None)
    except BaseException:
        value_release(v)
        raise
    return push_shaped(FG_place, x.dtype, 0, shape_ref(shape), v, 0, x, NULL, copy, 0)


cdef int reverse_place(Sweep *s, FgNode *n, FgValue *g) except -1:
    """The part that was put there: a view."""
    return contribute_value(s, n.a, window_view(n.shape, g, n.attr, node_at(n.a).shape, n.dtype))


cdef int emit_concatenate_reverse(Subgraph s, FgNode *n, Tensor g) except -1:
    cdef int along = <int>attr_items(n.attr)[0]
    cdef tuple sizes = attr_object(n.attr)
    cdef int i
    cdef int64_t at = 0
    cdef uint32_t id
    cdef Operand o
    cdef tuple before = (slice(None),) * along
    for i in range(len(sizes)):
        id = <uint32_t>attr_items(n.attr)[i + 1]
        if id and s.find(id) != NULL:
            operand_tensor_ready(g, &o)
            if node_at(id).rank == 0:
                s.add(id, push_item(&o, at))
            else:
                s.add(id, push_item(&o, before + (slice(at, at + sizes[i]),)))
        at += <int64_t>sizes[i]
    return 0


cdef int emit_assign_reverse(Subgraph s, FgNode *n, Tensor g) except -1:
    """The assigned part of the adjoint goes to the value, the rest to what was there before."""
    cdef Operand o
    cdef Tensor t, zero
    cdef object index = assign_index(n)
    if n.b and s.find(n.b) != NULL:
        operand_tensor_ready(g, &o)
        t = push_item(&o, index)
        if is_live(index) and may_repeat(index):
            unreplayable("an assignment to places that depend on a value is differentiated")
        if n.attr and attrs[n.attr].owner != NULL and t.node.rank:
            # Of entries assigned twice the last one stands: only it gets the adjoint.
            places = np.empty(tensor_dims(n), dtype=np.intp)
            order = np.arange(t.size).reshape(t.shape)
            places[index] = order
            stands = places[index] == order
            if not stands.all():
                t = emit_two(FG_multiply, t, tensor_constant(stands.astype(t.dtype)))
        s.add(n.b, fit_value(t, node_at(n.b)))
    if n.a and s.find(n.a) != NULL:
        operand_tensor_ready(g, &o)
        t = push_reshape(&o, n.rank, n.shape.dims)
        zero = scalar_constant(0, n.dtype, 0)
        push_assign(t, index, zero)
        s.add(n.a, t)
    return 0


cdef bint may_repeat(object index):
    """Whether an index may name an entry twice."""
    for i in (index if type(index) is tuple else (index,)):
        if isinstance(i, np_ndarray) and i.ndim and i.dtype != np.bool_:
            return True
    return False


cdef Tensor fit_value(Tensor t, FgNode *v):
    """As `fit`; a value assigned to a part of fewer axes has leading axes of length 1 more."""
    return fit(t, v.shape if v.rank else NULL)


cdef object assign_index(FgNode *n):
    """The index of an assignment, as Python writes it."""
    if n.attr == 0:
        return tuple([int(i) for i in np.unravel_index(<int64_t>n.constant, tensor_dims(n))])
    if attrs[n.attr].owner != NULL:
        return attr_object(n.attr)
    return item_index(n.attr)


# ---- reductions -----------------------------------------------------------------------------

cdef Tensor weights_constant(FgNode *n, FgNode *x):
    """The partials of max, min and logsumexp with respect to every entry, as constants."""
    cdef FgValue *g
    cdef FgValue *w
    if get_recorder() != NULL:
        return derived("fastgrad.weights_" + fg_op_info[n.op].name.decode(), reduction_weights_of,
                       (node_tensor(n.a), fg_op_info[n.op].name.decode(), graph_attribute(n)), {})
    g = number_value(1, n.dtype)
    try:
        w = reduction_weights(n, x, g, 1)
    finally:
        value_release(g)
    return tensor_of_value(shape_ref(x.shape), w, n.dtype)


def reduction_weights_of(array, name, axes):
    """The partials of max, min and logsumexp of an array along axes with respect to its entries.

    Files name it, with whatever operands.
    """
    cdef Tensor x = tensor(array)
    cdef Tensor y
    cdef Unseen unseen
    cdef int op = FG_max if name == "max" else FG_min if name == "min" else FG_logsumexp
    if name not in ("max", "min", "logsumexp"):
        raise ValueError(f"reduction_weights_of: name is {name!r}; it is one of 'max', 'min' and "
                         "'logsumexp'")
    if not is_float(x.node.dtype):
        raise TypeError(f"reduction_weights_of: array has dtype {x.dtype}, and no derivative; write "
                        ".astype(float)")
    if type(axes) is not tuple:
        raise TypeError(f"reduction_weights_of: axes is {axes!r}; give a tuple of ints")
    unseen = Unseen()
    try:
        leaf_require(x.node, True)
        y = reduced(op, x, axes, False)
        if y.node.op != op:                 # of no axes: nothing is reduced
            return np.ones(x.shape, x.dtype)
        return tensor_value(weights_constant(y.node, x.node))
    finally:
        leaf_require(x.node, False)
        unseen.end()


def all_finite(array):
    """Whether all entries are finite."""
    return bool(np.isfinite(array).all())


cdef Tensor softmax_of(FgNode *n, uint32_t id, FgNode *x):
    """exp(x - y): the partials of logsumexp. Where y is infinite they are constants."""
    cdef Tensor y = node_tensor(id)
    cdef Tensor d = emit_two(FG_subtract, node_tensor(n.a), expand(y, n, x))
    cdef Arg a[3]
    cdef Recorder r = recorder()
    # The body of a loop is recorded once for all values: there the choice is made by a mask.
    if not (r is not None and r.places_move) and derived("fastgrad.all_finite", all_finite, (y,), {}):
        return emit_one(FG_exp, d)
    mask = derived("numpy.isfinite", np.isfinite, (expand(y.detach(), n, x),), {})
    a[0] = arg_tensor(d)
    a[1] = arg_number(0)
    a[2] = arg_tensor(mask)
    d = emit_one(FG_exp, emit(FG_where, 3, a))
    rest = weights_constant(n, x)
    a[0] = arg_tensor(d)
    a[1] = arg_tensor(rest)
    return emit(FG_where, 3, a)


cdef Tensor others(Tensor x, FgNode *n, FgNode *nx):
    """For each entry the product of the others along the reduced axes: the products of those
    before and of those after it, each by doubling, without a division."""
    cdef uint64_t mask = reduction_mask(n, nx)
    cdef tuple shape = x.shape
    cdef list kept, reduced, order
    cdef Tensor rows, before, after
    if nx.rank == 0:
        return scalar_constant(1, nx.dtype, 0)
    kept = [i for i in range(nx.rank) if not mask >> i & 1]
    reduced = [i for i in range(nx.rank) if mask >> i & 1]
    order = kept + reduced
    length = 1
    for i in reduced:
        length *= shape[i]
    rows = transpose_tensor(x, order)
    moved = rows.shape
    rows = reshape_tensor(rows, tuple([shape[i] for i in kept]) + (length,))
    before = products_before(rows)
    after = flip_tensor(products_before(flip_tensor(rows, (rows.ndim - 1,))), (rows.ndim - 1,))
    rows = emit_two(FG_multiply, before, after)
    return transpose_tensor(reshape_plain(rows, moved), np.argsort(order))


cdef Tensor products_before(Tensor rows):
    """The products of all entries before each along the last axis."""
    cdef int64_t length = rows.shape[rows.ndim - 1]
    cdef int64_t step = 1
    cdef Tensor p
    if length == 0:
        return rows
    p = moved_on(rows, 1)
    while step < length:
        p = emit_two(FG_multiply, p, moved_on(p, step))
        step *= 2
    return p


cdef Tensor moved_on(Tensor rows, int64_t step):
    """Entries moved towards the end of the last axis, ones put in."""
    cdef Operand o
    cdef object ones = vouch(np.ones(rows.shape[:rows.ndim - 1] + (
        min_whole(step, rows.shape[rows.ndim - 1]),), dtype=rows.dtype))
    operand_tensor_ready(rows, &o)
    part = push_item(&o, (Ellipsis, slice(0, -step)))
    return push_concatenate([ones, part], rows.ndim - 1, False)


cdef int64_t min_whole(int64_t a, int64_t b) noexcept:
    return a if a < b else b


# ---- matmul ---------------------------------------------------------------------------------

cdef Tensor swapped(Tensor t):
    """The last two axes exchanged."""
    cdef int n = t.node.rank
    return transpose_tensor(t, [*range(n - 2), n - 1, n - 2])


cdef int emit_matmul_reverse(Subgraph s, FgNode *n, uint32_t id, Tensor g) except -1:
    """a_bar = g b', b_bar = a' g, with vectors as matrices of one row or column."""
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
    return 0


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


cdef Tensor emit_shaped_forward(Subgraph s, FgNode *n, uint32_t id):
    cdef list tangents = []
    cdef int k
    cdef uint32_t x
    cdef bint any_ = False
    for k in range(operand_count(n)):
        x = operand_at(n, k)
        t = s.get(x) if x else None
        any_ = any_ or t is not None
        tangents.append(t)
    return forward_shaped(n, id, tangents, s.finite) if any_ else None


cdef Tensor forward_shaped(FgNode *n, uint32_t id, list tangents, Tensor finite):
    """The tangent of a shaped operation from those of its operands (None: zero)."""
    cdef int op = n.op
    cdef FgNode *x = node_at(n.a) if n.a and op != FG_concatenate else NULL
    cdef Operand o
    cdef Tensor t = tangents[0] if tangents else None
    if op == FG_concatenate:
        return forward_concatenate(n, tangents)
    if op == FG_matmul:
        return forward_matmul(n, tangents)
    if op == FG_assign:
        return forward_assign(n, t, tangents[1])
    if op == FG_reshape:
        return reshape_plain(t, tensor_dims(n))
    if op == FG_broadcast:
        return spread(t, n.shape)
    if op == FG_transpose:
        return transpose_tensor(t, transpose_axes(n))
    if op == FG_flip:
        return flip_tensor(t, flip_axes(n))
    if op == FG_cast:
        return cast_plain(t, n.dtype)
    if op == FG_sum:
        return reduce_as(t, n, x)
    if op == FG_scatter:
        return scatter(t, attr_object(n.attr), tensor_dims(n))
    if op == FG_prod:
        return reduce_as(emit_chain(others(node_tensor(n.a), n, x), t, finite), n, x)
    if op == FG_max or op == FG_min:
        return reduce_as(emit_two(FG_weigh, t, weights_constant(n, x)), n, x)
    if op == FG_logsumexp:
        return reduce_as(emit_chain(softmax_of(n, id, x), t, finite), n, x)
    operand_tensor_ready(t, &o)
    if op == FG_item:
        if n.attr == 0:
            return push_item(&o, tuple([int(i) for i in np.unravel_index(<int64_t>n.constant,
                                                                         tensor_dims(x))]))
        return push_item(&o, item_index(n.attr))
    if op == FG_place:
        return push_place(&o, n.attr, n.shape)
    if op == FG_gather:
        return push_gather(&o, attr_object(n.attr))
    raise NoDerivativeError(f"{fg_op_info[op].name.decode()}: there is no rule for its derivative in "
                            "forward mode")


cdef Tensor reduce_as(Tensor t, FgNode *n, FgNode *x):
    """Summed as a reduction's operand was reduced."""
    cdef Operand o
    if x.rank == 0:
        return reshape_plain(t, tensor_dims(n))
    operand_clear(&o)
    operand_tensor(t, &o)
    return reshape_plain(push_sum(&o, reduction_mask(n, x), False), tensor_dims(n))


cdef Tensor forward_concatenate(FgNode *n, list tangents):
    cdef tuple sizes = attr_object(n.attr)
    cdef int along = <int>attr_items(n.attr)[0]
    cdef int i
    cdef list parts = [], dims
    cdef bint scalars = False
    for t in tangents:
        scalars = scalars or (t is not None and (<Tensor>t).node.rank == 0)
    for i in range(len(sizes)):
        t = tangents[i]
        if t is None:
            dims = list(tensor_dims(n))
            dims[along] = sizes[i]
            t = dtypes[n.dtype].type(0) if scalars else vouch(np.zeros(dims, dtype=dtypes[n.dtype]))
        parts.append(t)
    return push_concatenate(parts, along, scalars)


cdef Tensor forward_matmul(FgNode *n, list tangents):
    cdef Tensor total = None, t
    if tangents[0] is not None:
        total = push_matmul(tangents[0], node_tensor(n.b))
    if tangents[1] is not None:
        t = push_matmul(node_tensor(n.a), tangents[1])
        total = t if total is None else emit_two(FG_add, total, t)
    return total


cdef Tensor forward_assign(FgNode *n, Tensor t, Tensor v):
    cdef Operand o
    cdef object index = assign_index(n)
    if t is None:
        t = tensor_shaped(n.shape, value_zeros(n.shape, n.dtype), n.dtype)
    else:
        operand_tensor_ready(t, &o)
        t = push_reshape(&o, n.rank, n.shape.dims)
    push_assign(t, index, scalar_constant(0, n.dtype, 0) if v is None else v)
    return t


# ---- rules of the user's --------------------------------------------------------------------

# A custom node holds the identities of its operands as concatenate does, and an object with
# `pull(cotangents) -> list` and `push(tangents) -> list`; both take and return Tensors, None
# being zero. Its results are nodes of their own.

def custom(rule, operands, results):
    """Record results that were computed elsewhere, with the rule to differentiate them.

    `operands`: Tensors; `results`: arrays or unrecorded Tensors; returns a list of Tensors.
    """
    cdef int i
    cdef int count = <int>len(operands)
    cdef bint needs = False, numeric = bool(getattr(rule, "numeric", False))
    cdef Tensor t, r
    cdef FgTape *tape
    cdef FgNode *n
    cdef FgNode *y
    cdef uint32_t id, at, attr
    cdef int64_t *ids
    cdef list made = []
    if type(operands) is not list or len(results) > 0xffff:
        raise TypeError("custom: operands is a list of Tensors, and results are at most 65,535")
    for o in operands:
        t = <Tensor?>o
        t.fresh()
        needs = needs or (t.node.flags & FG_NEEDS_GRAD and get_recording()) or is_traced(t)
    results = [x if isinstance(x, Tensor) else tensor_constant(np.array(x)) for x in results]
    if not needs:
        return results
    if len(results) > 0x10000:
        raise ValueError(f"{rule!r}: a function with a rule of its own may have 65536 results, not "
                         f"{len(results)}; return them in arrays")
    tape = tape_of_thread()
    ids = <int64_t *>fg_malloc((count + 1) * 8)
    if ids == NULL:
        raise MemoryError()
    try:
        ids[0] = len(results)
        for i in range(count):
            t = <Tensor>operands[i]
            ids[i + 1] = t.id if t.node.flags & FG_NEEDS_GRAD or get_recorder() != NULL else 0
            if t.tape != NULL and t.tape != tape and t.node.flags & FG_NEEDS_GRAD:
                raise thread_error(t.tape)
        attr = attr_new(count + 1, ids, rule)
        try:
            n = node_append(tape, &id)
        except BaseException:
            attr_release(attr)
            raise
        node_set(n, FG_custom, FG_FLOAT64, 0, 0, FG_NO_ID, FG_NO_ID, FG_NO_ID)
        n.re = 0
        n.constant = numeric        # (of a custom node: whether it is counted there)
        n.handle = NULL
        n.attr = attr
        tape.customs += 1
        tape.rules += numeric
        for i in range(count):
            if ids[i + 1]:
                node_at(<uint32_t>ids[i + 1]).refs += 1
    finally:
        fg_free(ids)
    try:
        for i in range(len(results)):
            r = <Tensor>results[i]
            if not is_float(r.node.dtype) and get_recorder() == NULL:
                made.append(r)
                continue
            if r.node.rank:
                value_of(r.node, r.id)
            y = node_append(tape, &at)
            node_set(y, FG_result, r.node.dtype, r.node.rank, r.node.flags & FG_WEAK, id, FG_NO_ID,
                     FG_NO_ID)
            y.index = <uint16_t>i
            y.constant = 0
            node_at(id).refs += 1
            if r.node.rank:
                y.shape = shape_ref(r.node.shape)
                y.value = value_ref(r.node.value)
            else:
                y.re = r.node.re
                y.im = r.node.im        # an integer keeps all its bits there
            made.append(tensor_new(at, y, tape))
            if get_recorder() != NULL and not hasattr(rule, "loop"):
                # What the rule's function computed has been taken down, too. A graph that is
                # itself differentiated later on would know nothing of the rule, but for operators.
                if (<Recorder>get_recorder()).known is None and not hasattr(rule, "operator"):
                    unreplayable("a function with a derivative rule of its own is used")
                (<Recorder>get_recorder()).aliases[at] = argument_of(r)
    finally:
        node_drop(id)
    return made


cdef list custom_operands(FgNode *n):
    """The ids of a custom node's operands, 0 for those that are not recorded."""
    return [attr_items(n.attr)[i] for i in range(1, attr_count(n.attr))]


cdef int emit_custom_reverse(Subgraph s, FgNode *n, uint32_t id) except -1:
    cdef list cotangents, answer, ids = custom_operands(n)
    cdef object rule = attr_object(n.attr)
    cdef Slot *slot = s.find(id)
    cdef int i
    cdef Tensor t
    if slot == NULL or slot.entries == NULL:
        return 0
    cotangents = [None] * attr_items(n.attr)[0]
    entries = <list>slot.entries
    slot.entries = NULL
    Py_DECREF(entries)
    for place, t in entries:
        cotangents[place] = t if cotangents[place] is None else emit_two(FG_add, cotangents[place], t)
    needed = [x != 0 and node_at(<uint32_t>x).flags & FG_NEEDS_GRAD != 0 for x in ids]
    # (The steps of a loop are a part of this sweep.)
    answer = rule_answer(rule, rule.pull(cotangents, needed, s.finite) if hasattr(rule, "loop")
                         else rule.pull(cotangents, needed), len(ids))
    still_there(s, n, id)
    for i in range(len(ids)):
        if ids[i] and answer[i] is not None:
            s.add(ids[i], rule_tensor(rule, answer[i], node_at(ids[i])))
    return 0


cdef list rule_answer(object rule, object answer, Py_ssize_t count):
    """What a rule has returned, as a list of the right length."""
    cdef list items = list(answer)
    if len(items) != count:
        raise ValueError(f"{rule!r}: the rule returned {len(items)} derivatives, not {count}")
    return items


cdef object rule_of(FgNode *n):
    """The rule behind a result."""
    cdef uint32_t attr = node_at(n.a).attr
    return attr_object(attr) if attr else None


cdef Tensor rule_tensor(object rule, object derivative, FgNode *n):
    """One of them, if it fits the node it is for."""
    cdef Tensor t
    if derivative is None:
        return None
    if not isinstance(derivative, Tensor):
        raise TypeError(f"{rule!r}: the rule returned a {type(derivative).__name__} among its "
                        "derivatives, which must be Tensors")
    t = <Tensor>derivative
    t.fresh()
    if t.node.rank != n.rank or (n.rank and not shape_same(t.node.shape, n.shape)):
        raise ValueError(f"{rule!r}: the rule returned a derivative of shape {t.shape} for a value "
                         f"of shape {tensor_dims(n)}")
    if not is_float(t.node.dtype):
        raise TypeError(f"{rule!r}: the rule returned a derivative of dtype {t.dtype}")
    return cast_plain(t, n.dtype)


cdef Tensor custom_result(Subgraph s, FgNode *n):
    cdef Slot *slot = s.find(n.a)
    if slot == NULL or slot.entries == NULL:
        return None
    return rule_tensor(rule_of(n), (<list>slot.entries)[n.index], n)


cdef int emit_custom_forward(Subgraph s, FgNode *n, uint32_t id) except -1:
    """The tangents of the results; they wait, in order, in the slot of the node."""
    cdef list tangents = [s.get(<uint32_t>x) if x else None for x in custom_operands(n)]
    cdef object rule = attr_object(n.attr)
    cdef Slot *slot
    cdef list answer
    cdef int64_t count = attr_items(n.attr)[0]
    if not any([t is not None for t in tangents]):
        return 0
    answer = rule_answer(rule, rule.push(tangents, s.finite) if hasattr(rule, "loop")
                         else rule.push(tangents), count)
    still_there(s, n, id)
    slot = s.find(id)
    Py_INCREF(answer)
    slot.entries = <PyObject *>answer
    return 0
