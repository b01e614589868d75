"""The entries of reverse mode: backward, gradients, grad and value_and_grad."""


# ---- running a sweep ------------------------------------------------------------------------

cdef Subgraph sweep_from(Sweep *s, Tensor t, Operand *seed, list targets, bint strict,
                         uint32_t floor):
    """Run a reverse sweep with numbers from a recorded Tensor, for the targets (Arguments flagged
    as wanted) or, with None, for everything. Afterwards the adjoints of leaves
    and wanted nodes are in s, until sweep_end, which the caller owes in any case. Where numbers do
    not do, because of a rule of the user's, of a result that is not finite, or (strict) of something
    that an enclosing transformation differentiates, the answer is the graph for a sweep with Tensors."""
    cdef FgNode *root = t.node
    cdef uint32_t id = t.id
    cdef bint prune = targets is not None
    cdef FgTape *tape = directory[id >> FG_SEGMENT_BITS].tape
    cdef Visited visited
    cdef FgValue *v
    cdef int found
    visited_begin(&visited)
    try:
        if (prune or strict or tape.consumed or tape.stale or tape.duals
                or tape.customs > (tape.rules if s.rules else 0) or roots_retained
                or mode().recorder != NULL):
            mark(s, id)
            found = sweep_survey(s, &visited, targets, floor)
            if (found & (FOUND_CUSTOM | (FOUND_OUTER | FOUND_PARAMETER if strict else 0))
                    or mode().recorder != NULL or not node_finite(root, id, seed)):
                return subgraph_visited(s, &visited, [argument_of(t)], found)
        elif not node_finite(root, id, seed):
            mark(s, id)
            found = sweep_survey(s, &visited, targets, floor)
            return subgraph_visited(s, &visited, [argument_of(t)], found)
        if root.rank == 0:
            mark(s, id)
            adjoint_slot(s, id).number = 1 if seed == NULL else seed.number
        else:
            mark(s, id)
            adjoint_slot(s, id).value = NULL
            if seed == NULL:
                v = number_value(1, root.dtype)
            elif seed.shape == NULL:
                v = number_value(seed.number, root.dtype)
            else:
                v = value_copy(seed.shape, seed.value, root.dtype)
            adjoint_slot(s, id).value = v
        sweep_run(s)
    finally:
        visited_clear(&visited)
    return None


cdef int seed_check(object seed, str what) except -1:
    """Refuse booleans, which NumPy takes for 0 and 1."""
    if type(seed) is float or seed is None:
        return 0
    dtype = getattr(seed, "dtype", None)
    if isinstance(seed, bool) or isinstance(dtype, np.dtype) and dtype.kind == "b":
        raise TypeError(f"{what}: the seed is a bool{'' if dtype is None else ' array'}; it must "
                        f"be a float: write {'float(seed)' if dtype is None else '.astype(float)'}")
    return 0


cdef Tensor seed_tensor(Tensor root, object seed, str what):
    """The adjoint to start a recorded sweep from."""
    cdef Operand x
    cdef Tensor t
    if seed is None:
        seed_operand(root, None, what, &x)
        if root.node.rank == 0:
            return scalar_constant(1, root.node.dtype, root.node.flags & FG_WEAK)
        return tensor_shaped(root.node.shape, number_value(1, root.node.dtype), root.node.dtype)
    t = seed if isinstance(seed, Tensor) else tensor(seed)
    if t.shape != root.shape:
        raise ValueError(f"{what}: the seed has shape {t.shape}, the result {root.shape}; they must "
                         "be equal")
    return t if t.node.dtype == root.node.dtype else cast(t, root.dtype)


cdef int emit_from(Subgraph g, Tensor root, Tensor seed, bint recorded) except -1:
    """Run a reverse sweep with Tensors, recorded itself or not."""
    cdef int before = mode().not_recording
    if not recorded:
        mode().not_recording = 1
    try:
        g.finite = finite_from([argument_of(root)], [seed])
        g.add(root.id, seed)
        emit_reverse(g)
    finally:
        mode().not_recording = before
    return 0


cdef FgValue *adjoint_array(FgNode *n, FgAdjoint *a) except NULL:
    """The adjoint of an array as memory of its own; counted once more."""
    if a.value == NULL:
        return value_zeros(n.shape, n.dtype)
    if value_unique(a.value):
        return value_ref(a.value)
    return value_copy(n.shape, a.value, n.dtype)


cdef FgValue *value_zeros(FgShape *shape, int dtype) except NULL:
    cdef FgValue *v = pool_take(shape.size * item_size(dtype))
    memset(v.data, 0, shape.size * item_size(dtype))
    return v


cdef Tensor adjoint_tensor(FgNode *n, FgAdjoint *a):
    """The same as an unrecorded Tensor."""
    if n.rank == 0:
        return scalar_constant(a.number, n.dtype, n.flags & FG_WEAK)
    return tensor_shaped(n.shape, adjoint_array(n, a), n.dtype)


cdef int accumulate_grad(Tensor t, FgNode *n, FgAdjoint *a) except -1:
    """Add an adjoint to t.grad, in place where nobody else sees the memory."""
    cdef Tensor grad = t.extra.grad if t.extra is not None else None
    cdef FgValue *v
    if grad is None:
        t.extras().grad = adjoint_tensor(n, a)
        return 0
    if n.rank == 0:
        if grad.node.flags & FG_NEEDS_GRAD or grad.node.refs > 1:
            t.extra.grad = scalar_constant(grad.node.re + a.number, n.dtype, 0)
        else:
            grad.node.re = round_to(n.dtype, grad.node.re + a.number)
        return 0
    if a.value == NULL:
        return 0
    if (value_unique(grad.node.value) and grad.node.refs == 1 and grad.node.dtype == n.dtype
            and not grad.node.flags & FG_NEEDS_GRAD):
        return value_accumulate(n.shape, grad.node.value, a.value, n.dtype)
    v = value_copy(n.shape, value_of(grad.node, grad.id), n.dtype)
    try:
        value_accumulate(n.shape, v, a.value, n.dtype)
    except BaseException:
        value_release(v)
        raise
    t.extra.grad = tensor_of_value(shape_ref(n.shape), v, n.dtype)
    return 0


cdef int grad_prepare(Tensor t, FgNode *n, Gathered *e) except -1:
    """Whatever adding an adjoint to t.grad needs memory for: `grad_add` then cannot fail, and
    backward() adds to the .grad of all leaves or of none."""
    cdef Tensor grad = t.extras().grad
    cdef Tensor made
    cdef FgValue *v = e.adjoint.value
    cdef bint own
    if grad is None:
        made = adjoint_tensor(n, &e.adjoint)
    else:
        if n.rank and v == NULL:
            return 0
        own = grad.node.refs == 1 and not grad.node.flags & FG_NEEDS_GRAD
        if n.rank == 0:
            if own:
                return 0
            made = scalar_constant(grad.node.re + e.adjoint.number, n.dtype, 0)
        elif own and value_unique(grad.node.value) and grad.node.dtype == n.dtype:
            e.adjoint.value = value_contiguous(n.shape, v, n.dtype)
            value_release(v)
            return 0
        else:
            made = tensor_shaped(n.shape, value_copy(n.shape, value_of(grad.node, grad.id), n.dtype),
                                 n.dtype)
            value_accumulate(n.shape, made.node.value, v, n.dtype)
    Py_INCREF(made)
    e.made = <void *>made
    e.replaced = <void *>grad
    return 0


cdef int grad_add(Tensor t, FgNode *n, Gathered *e) except -1:
    """Add an adjoint to t.grad. Two versions of one leaf may both have been reached: the second one
    finds another .grad than it was prepared for."""
    if e.made != NULL and e.replaced == <void *>t.extra.grad:
        t.extra.grad = <Tensor>e.made
        return 0
    return accumulate_grad(t, n, &e.adjoint)


cdef int accumulate_gathered(Sweep *s) except -1:
    """Add what a sweep has gathered to the .grad of leaves and retained results."""
    cdef uint32_t i
    cdef FgNode *n
    cdef Gathered *e
    cdef int pass_
    try:
        for pass_ in range(2):
            for i in range(s.gathered_mask + 1):
                e = &s.gathered[i]
                n = node_at(e.id) if e.id else NULL
                if n == NULL or n.handle == NULL or not n.flags & (FG_LEAF | FG_RETAINED):
                    continue
                if pass_ == 0:
                    grad_prepare(<Tensor>n.handle, n, e)
                else:
                    grad_add(<Tensor>n.handle, n, e)
    finally:
        for i in range(s.gathered_mask + 1):
            if s.gathered[i].made != NULL:
                Py_DECREF(<object>s.gathered[i].made)
                s.gathered[i].made = NULL
    return 0


cdef int seed_operand(Tensor root, object seed, str what, Operand *x) except -1:
    """The adjoint to start from: of the root's shape, or left out where that has one entry."""
    cdef int dtype = root.node.dtype
    operand_clear(x)
    if seed is None:
        if root.size != 1:
            raise ValueError(
                f"{what}: the result has shape {root.shape}, not one entry; give the adjoint to "
                f"start from, seed=..., of that shape, reduce it first (.sum()), or for an "
                "element-wise function use fastgrad.elementwise_grad")
        return 0
    seed_check(seed, what)
    operand_of(seed, x, False)
    if x.shape != NULL and x.value == NULL:
        x.value = value_of(x.node, x.id)
    if tuple(dims_tuple(x.shape.rank, x.shape.dims) if x.shape != NULL else ()) != root.shape:
        operand_drop(x)
        raise ValueError(f"{what}: the seed has shape {np.shape(plain(seed))}, the result "
                         f"{root.shape}; they must be equal")
    x.needs = 0
    operand_convert(x, dtype)
    return 0


cdef int root_check(Tensor root, str what) except -1:
    root.fresh()
    if root.node.flags & FG_CONSUMED:
        raise RuntimeError(
            f"{what}: this Tensor's graph was already differentiated and its saved values are "
            "freed; write backward(retain_graph=True) the first time, or compute it again")
    if not root.node.flags & FG_NEEDS_GRAD:
        raise RuntimeError(
            f"{what}: nothing was recorded for this Tensor: it does not depend on a Tensor with "
            "requires_grad=True, or it was computed under fg.no_grad()")
    if root.tape != NULL and root.tape != get_thread_tape():
        raise thread_error(root.tape)
    return 0


cdef int accumulate_recorded(Subgraph g) except -1:
    """Add what a recorded sweep found to the .grad of leaves and retained results."""
    cdef uint32_t i
    cdef FgNode *n
    cdef Tensor t, grad
    cdef dict made = {}         # by Tensor; set when all are there
    for i in range(g.mask + 1):
        if not g.slots[i].id:
            continue
        n = node_at(g.slots[i].id)
        if n.handle == NULL or not n.flags & (FG_LEAF | FG_RETAINED):
            continue
        grad = g.get(g.slots[i].id)
        if grad is None:
            continue
        t = <Tensor>n.handle
        before = made[id(t)][1] if id(t) in made else t.extras().grad
        made[id(t)] = t, grad if before is None else emit_two(FG_add, before, grad)
    for t, grad in made.values():
        t.extra.grad = grad
    return 0


cdef int backward(Tensor root, object seed, bint retain, bint create) except -1:
    """Add the gradient of root to the .grad of its leaves."""
    cdef Sweep s
    cdef Operand x
    cdef FgAdjoint own
    cdef Subgraph g = None
    root_check(root, "backward")
    unreplayable("backward() is called")
    seed_operand(root, seed, "backward", &x)
    try:
        if root.tape == NULL:
            own.number = 0
            own.value = NULL
            if root.node.rank == 0:
                own.number = 1 if seed is None else x.number
            elif seed is None:
                own.value = number_value(1, root.node.dtype)
            else:
                own.value = value_copy(x.shape, x.value, root.node.dtype)
            try:
                accumulate_grad(root, root.node, &own)
            finally:
                if root.node.rank:          # else it is a number
                    value_release(own.value)
            return 0
        if not create:
            sweep_begin(&s, root.tape, retain)
            try:
                g = sweep_from(&s, root, NULL if seed is None else &x, None, mode().depth > 0,
                               FG_NO_ID)
                if g is None:
                    accumulate_gathered(&s)
            finally:
                sweep_end(&s)
        else:
            g = subgraph([argument_of(root)], None, FG_NO_ID)
        if g is not None:
            create = create or mode().recorder != NULL or (mode().depth > 0 and g.found & FOUND_OUTER)
            emit_from(g, root, seed_tensor(root, seed, "backward"), create)
            accumulate_recorded(g)
            if not retain and not create:
                subgraph_consume(g)
    finally:
        operand_drop(&x)
    return 0


def gradients(y, xs, seed=None, retain_graph=None, create_graph=False):
    """The gradients of y with respect to given Tensors, without touching any ``.grad``.

    Parameters
    ----------
    y : Tensor
        A recorded result; with more than one entry it needs a seed.
    xs : Tensor or sequence of Tensor
        Leaves or intermediate results. Only what they feed is differentiated (pruning).
    seed : array_like, optional
        The adjoint of y, of its shape.
    retain_graph : bool, optional
        Keep the graph for another sweep; by default only with `create_graph`.
    create_graph : bool
        Record the sweep, so that the gradients can be differentiated again.

    Returns
    -------
    list of Tensor, or Tensor if `xs` is one
        Of the shapes and dtypes of `xs`; zeros where y does not depend on one. Unrecorded without
        `create_graph`.

    Raises
    ------
    RuntimeError
        If nothing was recorded or the graph is gone.
    ValueError
        If the seed is missing or of another shape.

    Examples
    --------
    >>> import fastgrad as fg
    >>> w = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> h = w * w
    >>> fg.gradients(h.sum(), [w, h])
    [tensor([2., 4.]), tensor([1., 1.])]
    >>> g = fg.gradients((w * w * w).sum(), w, create_graph=True)
    >>> fg.gradients(g.sum(), w)
    tensor([ 6., 12.])
    """
    cdef Sweep s
    cdef Subgraph g = None
    cdef bint create = create_graph
    cdef bint retain = create_graph if retain_graph is None else retain_graph
    cdef Operand x
    cdef Tensor root, t
    cdef Gathered *e
    cdef FgAdjoint zero
    cdef list wanted_ = [xs] if isinstance(xs, Tensor) else list(xs)
    cdef list result = [], targets
    if not isinstance(y, Tensor):
        raise TypeError(f"gradients: y must be a Tensor, not {type(y).__name__}")
    root = <Tensor>y
    for w in wanted_:
        if not isinstance(w, Tensor):
            raise TypeError(f"gradients: xs must be Tensors, not {type(w).__name__}")
        (<Tensor>w).fresh()
        if not (<Tensor>w).node.flags & FG_NEEDS_GRAD:
            raise RuntimeError("gradients: one of xs does not require a gradient; make it with "
                               "fastgrad.tensor(..., requires_grad=True)")
    root_check(root, "gradients")
    seed_operand(root, seed, "gradients", &x)
    zero.number = 0
    zero.value = NULL
    try:
        if root.tape == NULL:
            for w in wanted_:
                t = <Tensor>w
                if t is not root:
                    result.append(adjoint_tensor(t.node, &zero))
                elif seed is None:
                    result.append(tensor_constant(np.ones(t.shape, dtype=t.dtype)))
                else:
                    result.append(tensor_constant(np.array(operand_ndarray(&x))))
            return result[0] if isinstance(xs, Tensor) else result
        targets = [argument_of(w) for w in wanted_]
        if not create:
            sweep_begin(&s, root.tape, retain)
            try:
                for w in wanted_:
                    (<Tensor>w).node.flags |= FG_WANTED
                s.foreign = True
                g = sweep_from(&s, root, NULL if seed is None else &x, targets, mode().depth > 0,
                               FG_NO_ID)
                for w in wanted_:
                    t = <Tensor>w
                    e = gathered_at(&s, t.id)
                    if g is None:
                        result.append(adjoint_tensor(t.node, &e.adjoint if e.id else &zero))
            finally:
                for w in wanted_:
                    (<Tensor>w).node.flags &= ~FG_WANTED
                sweep_end(&s)
        else:
            g = subgraph([argument_of(root)], targets, FG_NO_ID)
        if g is not None:
            create = create or mode().recorder != NULL or (mode().depth > 0 and g.found & FOUND_OUTER)
            emit_from(g, root, seed_tensor(root, seed, "gradients"), create)
            for w in wanted_:
                t = g.get((<Tensor>w).id)
                result.append(t if t is not None else zeros_like_node((<Tensor>w).node))
            if not retain and not create:
                subgraph_consume(g)
    finally:
        operand_drop(&x)
    return result[0] if isinstance(xs, Tensor) else result


# ---- scopes ---------------------------------------------------------------------------------

@cython.final
@cython.binding(False)
cdef class no_grad:
    """A block, or a decorated function, in which nothing is recorded.

    Examples
    --------
    >>> import fastgrad as fg
    >>> w = fg.tensor(2.0, requires_grad=True)
    >>> with fg.no_grad():
    ...     y = w * 3
    >>> y.requires_grad
    False
    """
    cdef list before

    def __cinit__(self):
        self.before = []

    def __enter__(self):
        self.before.append(mode().not_recording)
        mode().not_recording = 1
        return self

    def __exit__(self, kind, error, trace):        # no tuple: that might fail
        mode().not_recording = <int>self.before.pop()
        return False

    def __call__(self, function):
        return unrecorded(function)


@cython.final
@cython.binding(False)
cdef class inside:
    """A block that is inside a transformation."""
    cdef int before
    cdef bint open

    def __enter__(self):
        if self.open:
            raise RuntimeError("inside: this block is open already")
        self.open = True
        self.before = mode().depth
        mode().depth = self.before + 1
        mode().lanes += 1

    def __exit__(self, kind, error, trace):
        if self.open:
            self.open = False
            mode().depth = self.before
            mode().lanes -= 1
        return False


def unrecorded(function):
    """The function with `no_grad` around each call."""
    @functools.wraps(function)
    def without_recording(*args, **kwargs):
        with no_grad():
            return function(*args, **kwargs)
    return without_recording


def is_recording():
    """Whether operations are recorded here (False inside `no_grad`)."""
    return get_recording()


def transforming():
    """Whether a function is being transformed or a `record` scope is open, so that creation
    functions make Tensors. (Not in the function of a user's rule, called with plain values.)"""
    return mode().depth + mode().scopes > mode().outside


def plainly(function, args, kwargs={}):
    """The result of a call with plain values, in which creation functions make plain arrays unless
    something is transformed inside it."""
    cdef int before = mode().outside
    mode().outside = mode().depth + mode().scopes
    try:
        return function(*args, **kwargs)
    finally:
        mode().outside = before


@cython.binding(False)
cdef class record:
    """A scope that shows what is recorded inside it.

    Recording needs no scope: whatever involves a Tensor that requires a gradient is recorded.
    Inside the scope the creation functions of `fastgrad.numpy` make Tensors, and the scope itself
    tells what is held: its length is the number of recorded operations that are alive, `nbytes`
    the memory of their nodes and values, and printing it lists them.

    Examples
    --------
    >>> import fastgrad as fg
    >>> w = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> with fg.record() as tape:
    ...     loss = (w * w).sum()
    >>> len(tape)
    2
    """
    cdef FgTape *tape
    cdef uint64_t first, last   # sequence numbers of the segments recorded into
    cdef bint open

    def __enter__(self):
        if self.open:
            raise RuntimeError("record: this scope is open already")
        self.tape = tape_of_thread()
        tape_grow(self.tape)
        self.first = self.tape.last.sequence
        self.last = 0
        self.open = True
        mode().scopes += 1
        return self

    def __exit__(self, kind, error, trace):
        if not self.open:
            raise RuntimeError("record: this scope is not open")
        self.open = False
        mode().scopes -= 1
        if self.tape != get_thread_tape():
            raise RuntimeError("record: the scope was entered in another thread")
        self.last = self.tape.last.sequence
        tape_grow(self.tape)
        return False

    cdef list ids(self):
        """The living nodes, oldest first."""
        cdef FgSegment *s
        cdef uint32_t i
        cdef list found = []
        if self.tape == NULL or self.tape != get_thread_tape():
            return found
        s = self.tape.first
        while s != NULL:
            if s.sequence >= self.first and (self.open or s.sequence <= self.last):
                for i in range(1 if s.slot == 0 else 0, s.used):
                    if node_lives(&s.nodes[i]):
                        found.append((s.slot << FG_SEGMENT_BITS) | i)
            s = s.after
        return found

    def __len__(self):
        cdef FgSegment *s
        cdef Py_ssize_t count = 0
        if self.tape != NULL and self.tape == get_thread_tape():
            s = self.tape.first
            while s != NULL:
                if s.sequence >= self.first and (self.open or s.sequence <= self.last):
                    count += s.live
                s = s.after
        return count

    @property
    def nbytes(self):
        """Bytes held by the nodes and the values kept for them; shared memory counts once."""
        return tape_bytes(self.ids())

    def __str__(self):
        cdef list lines = []
        cdef FgNode *n
        cdef uint32_t x
        cdef int k
        for id in self.ids():
            n = node_at(id)
            operands = []
            for k in range(operand_count(n)):
                x = operand_at(n, k)
                if x:
                    operands.append(("leaf " if node_at(x).flags & FG_LEAF else "%") + str(x))
                elif n.op < FG_ELEMENTWISE_END and n.flags & (FG_CONST_A << k):
                    operands.append(f"{n.constant:g}")
            lines.append(f"%{id} = {fg_op_info[n.op].name.decode()}({', '.join(operands)})  "
                         f"{dtypes[n.dtype]}{list(tensor_dims(n))}  {tape_bytes([id])} bytes")
        return "\n".join(lines)

    def __repr__(self):
        return f"<tape of {len(self)} operations, {self.nbytes} bytes>"


cdef object tape_bytes(list ids):
    cdef FgNode *n
    cdef FgNode *x
    cdef FgValue *v
    cdef int k
    cdef uint32_t j
    cdef dict seen = {}
    cdef int64_t total = 0
    for id in ids:
        n = node_at(id)
        total += sizeof(FgNode)
        if n.attr and n.op >= FG_ELEMENTWISE_END and n.op != FG_dual:
            total += HEADER + attrs[n.attr].nbytes
        values_add(n, seen)
        for k in range(operand_count(n)):
            j = operand_at(n, k)
            if j and node_at(j).flags & FG_LEAF:
                values_add(node_at(j), seen)
    for size in seen.values():
        total += size
    return total


cdef int values_add(FgNode *n, dict seen) except -1:
    cdef FgValue *v
    if n.rank == 0 or n.value == NULL:
        return 0
    v = n.value.base if n.value.base != NULL else n.value
    seen[<size_t><void *>v] = HEADER + v.nbytes
    return 0
