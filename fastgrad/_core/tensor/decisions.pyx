"""Decisions that Python code takes outside of transformations: the guards of a history.

What has no derivative leaves no trace on the tape, and a program made of a history has to compute
it anew: so a mask, an integer, a value that was detached remember what they were made of (`Made`),
and a decision remembers the value it was taken by. `Recorder.of_history` computes the value once
more, recorded, and guards it.

None of this may keep alive what would be gone without it. An expression holds the nodes it was made
of; of these, and of what they were computed from, only a few may have nobody else who needs them
(OWN_NODES, OWN_BYTES), and somebody must have a leaf of them. `made_prune` lets go of the others,
and of the oldest where there are many. A decision that has been let go of is still known to have
been taken (`decision_put`): histories that depend on it are refused.
"""

cdef enum:
    MADE = 64                   # expressions that are known at a time (one bit each in made_prune)
    WALK = 256                  # nodes that one look at them may visit
    VIEWS = 16                  # that are views of each other
    OWN_NODES = 64
    OWN_BYTES = 1 << 16
    SMALL_NODES = 1 << 16       # below both of these, what expressions could keep alive is little, ...
    SMALL_BYTES = 1 << 20       # ... and the oldest goes when a new one needs its place

cdef extern from *:
    int __builtin_ctzll(unsigned long long x) nogil

cdef extern from "Python.h":    # sys._getframe costs as much as all the rest of a decision
    ctypedef struct PyFrameObject:
        pass
    ctypedef struct PyCodeObject:
        pass
    PyFrameObject *PyEval_GetFrame()
    PyCodeObject *PyFrame_GetCode(PyFrameObject *frame)     # owned
    int PyFrame_GetLasti(PyFrameObject *frame)

cdef void *made_known[MADE]     # borrowed: an expression takes itself out when it dies
cdef int made_next = 0          # where the next one is looked for a place
cdef int made_count = 0         # how many there are
cdef int made_limit = 1         # how many there may be before somebody looks which must go
cdef bint made_pruning = False
cdef list decisions_taken = []  # of Taken, oldest first
cdef object UNKNOWN = object()  # an operand that cannot be computed anew


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Kept:
    """A node with its value."""
    cdef uint32_t id
    cdef FgNode *node
    cdef FgTape *tape

    def __dealloc__(self):
        if self.id:
            self.node.uses -= 1
            if self.tape != NULL and self.tape.busy:
                queue_push(self.tape, self.id)
            else:
                handle_released(self.node, self.id)


cdef Kept held_of(uint32_t id, FgNode *n):
    cdef Kept h = Kept.__new__(Kept)
    n.refs += 1
    n.uses += 1
    h.id = id
    h.node = n
    h.tape = directory[id >> FG_SEGMENT_BITS].tape
    return h


cdef enum:
    MADE_ITSELF = -1            # the operand
    MADE_CALL = -2              # a function that programs know by name
    MADE_ITEM = -3
    MADE_DETACHED = -4
    MADE_VIEW = -5
    MADE_REDUCED = -6
    MADE_PRODUCT = -7


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Made:
    """How a value without derivative was computed."""
    cdef int op                 # an element-wise operator, or one of the above
    cdef int slot
    cdef object name, function, part
    cdef tuple args             # numbers, arrays, Kept and Made; None: let go
    cdef uint32_t id            # of the Tensor that it tells of, as long as that is the same
    cdef int64_t version

    def __cinit__(self):
        self.slot = -1

    def __dealloc__(self):
        made_leave(self)

    cdef void let_go(self):
        made_leave(self)
        self.args = self.function = None


cdef void made_leave(Made m) noexcept:
    global made_count
    if m.slot >= 0:
        made_known[m.slot] = NULL
        m.slot = -1
        made_count -= 1


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Taken:
    """A decision, and by what."""
    cdef uint32_t reach
    cdef double time
    cdef FgTape *tape
    cdef uint64_t place
    cdef str kind
    cdef object outcome, line   # the line: as text, or as code ...
    cdef int at                 # ... and instruction
    cdef Made made


cdef inline bint made_wanted() noexcept:
    """Whether histories may begin here."""
    return mode().depth == 0 and mode().recorder == NULL and not get_keeping()


cdef Made made_of(Tensor t):
    """What a value was computed by, if that is known."""
    cdef Made m
    if t.extra is None:
        return None
    if t.parent is not None:
        return made_view(t)
    if t.extra.made is None:
        return None
    m = <Made>t.extra.made
    return m if m.id == t.id and m.version == t.version and m.args is not None else None


cdef Made made_view(Tensor t):
    """The same of a view, if not of a view of a view ... without end: each looks at its parent."""
    cdef Tensor parent = t.parent
    cdef Made m
    cdef int depth = 0
    while parent is not None:
        parent = parent.parent
        depth += 1
        if depth > VIEWS:
            return None
    m = made_new(MADE_VIEW, (made_operand(t.parent),))
    if m is not None:
        m.part = t.extra.how
    return m


cdef object made_operand(object x):
    """What stands for an operand in an expression, or UNKNOWN."""
    cdef Tensor t
    if isinstance(x, Tensor):
        t = x
        t.fresh()
        if t.node.flags & FG_CONSUMED:
            return UNKNOWN
        if t.node.flags & FG_NEEDS_GRAD:
            return held_of(t.id, t.node)
        if t.node.flags & FG_LEAF and not t.node.attr:
            return held_of(t.id, t.node)
        m = made_of(t)
        return UNKNOWN if m is None else m
    if PyArray_Check(x):
        return UNKNOWN if x.nbytes > OWN_BYTES or x.dtype.hasobject else np.array(x)
    if type(x) is list or type(x) is tuple:
        operands = [made_operand(y) for y in x]
        for y in operands:
            if y is UNKNOWN:
                return UNKNOWN
        return tuple(operands) if type(x) is tuple else operands
    if type(x) is slice:
        if isinstance(x.start, Tensor) or isinstance(x.stop, Tensor) or isinstance(x.step, Tensor):
            return UNKNOWN
    elif type(x) is dict:
        return UNKNOWN
    return x


cdef Made made_new(int op, tuple args):
    """An expression of such operands, in a place among the known ones; None where one is not
    known."""
    global made_next, made_count
    cdef Made m
    cdef FgTape *tape
    for x in args:
        if x is UNKNOWN:
            return None
    tape = get_thread_tape()
    if made_count >= made_limit and (pool_used > SMALL_BYTES
                                     or tape != NULL and tape.live > SMALL_NODES):
        made_prune()
    m = Made.__new__(Made)
    m.op = op
    m.args = args
    if made_count == MADE:
        (<Made>made_known[made_next]).let_go()
        if made_count == MADE:          # (what it kept alive has made another one, at its end)
            return None
    while made_known[made_next] != NULL:
        made_next = (made_next + 1) % MADE
    m.slot = made_next
    made_count += 1
    made_known[made_next] = <void *>m
    made_next = (made_next + 1) % MADE
    return m


cdef Tensor made_put(Tensor t, Made m):
    """Let a result without derivative remember how it was made."""
    if m is not None and (t.node.flags & (FG_LEAF | FG_NEEDS_GRAD)) == FG_LEAF \
            and t.parent is None:
        t.extras().made = m
        m.id = t.id
        m.version = t.version
    return t


cdef object made_taken(Operand *x):
    """What stands for an operand that has been looked at, or UNKNOWN."""
    cdef FgNode *n = x.node
    cdef Made m
    if n != NULL and x.id and not n.flags & FG_CONSUMED and (
            x.needs or n.flags & FG_NEEDS_GRAD or n.flags & FG_LEAF and not n.attr):
        return held_of(x.id, n)
    if x.looked:
        m = made_of(<Tensor>n.handle) if n != NULL and x.id and n.handle != NULL else None
        return UNKNOWN if m is None else m
    if x.needs:
        return UNKNOWN
    if x.shape == NULL:
        if not x.weak:
            return dtypes[x.dtype].type(x.number)
        return x.number if is_float(x.dtype) else int(x.number)
    if x.shape.size * item_size(x.dtype) > OWN_BYTES or x.value == NULL:
        return UNKNOWN
    return np.array(value_ndarray(x.shape, x.value, x.dtype, False))


cdef Tensor made_elementwise(Tensor t, int op, int arity, Operand *x):
    """The same of an element-wise operator or comparison."""
    cdef tuple args = PyTuple_New(arity)
    cdef object value
    cdef int i
    for i in range(arity):
        value = made_taken(&x[i])
        if value is UNKNOWN:
            return t
        Py_INCREF(value)
        PyTuple_SET_ITEM(args, i, value)
    return made_put(t, made_new(op, args))


cdef inline bint made_asked(object result) except -1:
    """Whether a result depends on leaves without having a derivative, outside of transformations."""
    return (isinstance(result, Tensor) and (<Tensor>result).node.attr != 0
            and (<Tensor>result).node.flags & (FG_LEAF | FG_NEEDS_GRAD) == FG_LEAF and made_wanted())


cdef object made_reduced(object result, int op, Operand *x, uint64_t mask, bint keepdims):
    """The same of a sum, product, maximum and the like."""
    cdef Made m
    if made_asked(result):
        m = made_new(MADE_REDUCED, (made_taken(x),))
        if m is not None:
            m.part = op, mask, keepdims
            made_put(<Tensor>result, m)
    return result


cdef object made_product(object result, Operand *x):
    """The same of a matrix product."""
    if made_asked(result):
        made_put(<Tensor>result, made_new(MADE_PRODUCT, (made_taken(&x[0]), made_taken(&x[1]))))
    return result


cdef object made_joined(object result, object name, object function, tuple args):
    """The same of a function that programs know by name."""
    if made_asked(result):
        made_results(result, name, function, args, None)
    return result


cdef int made_call(object result, object name, object function, object args,
                   object kwargs) except -1:
    """The same of what a function has returned: of Tensors, or a decision. How many entries there
    are in a result may be one, too."""
    cdef uint32_t reach
    cdef Made m = None
    if name is not None and made_wanted():
        m = made_results(result, name, function, args, kwargs)
    row = PLAIN.get(name)
    if row is not None and row.counted is not None:
        for x in row.counted(*args, **(kwargs or {})):
            reach = reach_among((x,))
            if made_wanted():
                m = made_results(None, "numpy.count_nonzero", np.count_nonzero, (x,), None)
            decision_take(m, reach, "int", int(np.count_nonzero(derived_value(x))))
    elif row is not None and row.axes == "counted":
        decision_reach(reach_among(args))
    if isinstance(result, (bool, int)):         # np.allclose, np.count_nonzero
        reach = reach_among(args)
        if kwargs:
            reach = fg_reach_both(reach, reach_among(kwargs.values()))
        decision_take(m, reach, "bool" if isinstance(result, bool) else "int", result)
    return 0


cdef Made made_results(object result, object name, object function, object args, object kwargs):
    cdef object operands = made_operand(tuple(args))
    cdef dict options = {}
    cdef Made m = None
    if operands is UNKNOWN:
        return None
    for key, x in (kwargs or {}).items():
        x = made_operand(x)
        if x is UNKNOWN:
            return None
        options[key] = x
    several = isinstance(result, (list, tuple))
    for k, y in enumerate(result if several else (result,)):
        m = made_new(MADE_CALL, (operands, tuple(options.items())))
        m.name, m.function = name, function
        m.part = k if several else None
        if isinstance(y, Tensor):
            made_put(<Tensor>y, m)
    return m


# ---- letting go -----------------------------------------------------------------------------

cdef struct MadeVisit:
    uint32_t id
    uint32_t seen               # references from what is looked at
    uint64_t owners             # the expressions that depend on it, a bit each
    uint64_t place


# The nodes that expressions keep alive, newest first: then whoever refers to one has been seen
# before it.
cdef MadeVisit visits[WALK]
cdef int visits_count
cdef bint visits_full
cdef short visits_at[4 * WALK]  # by the number of a node: which visit it is, + 1; open addressing
cdef short visits_heap[WALK]    # those to come, the newest first
cdef int visits_left


cdef void visit_meet(uint32_t id, uint64_t owners) noexcept:
    global visits_count, visits_full, visits_left
    cdef int i, k
    cdef uint32_t slot = (id * <uint32_t>2654435761) >> 22
    while visits_at[slot]:
        i = visits_at[slot] - 1
        if visits[i].id == id:
            visits[i].seen += 1
            visits[i].owners |= owners
            return
        slot = (slot + 1) & (4 * WALK - 1)
    if visits_count == WALK:
        visits_full = True
        return
    visits[visits_count].id = id
    visits[visits_count].seen = 1
    visits[visits_count].owners = owners
    visits[visits_count].place = 0 if node_at(id).flags & FG_LEAF else place_of(id)
    visits_at[slot] = <short>(visits_count + 1)
    k = visits_left
    while k and visits[visits_heap[(k - 1) >> 1]].place < visits[visits_count].place:
        visits_heap[k] = visits_heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    visits_heap[k] = <short>visits_count
    visits_left += 1
    visits_count += 1


cdef int visit_held(object args, uint64_t owner, FgTape *tape, bint *gone) except -1:
    cdef Kept h
    for x in args:
        if type(x) is Kept:
            h = <Kept>x
            if h.node.flags & FG_CONSUMED:
                gone[0] = True
            elif h.tape == NULL or h.tape == tape:
                visit_meet(h.id, owner)
        elif type(x) is tuple or type(x) is list:
            visit_held(x, owner, tape, gone)
        elif type(x) is Made and (<Made>x).args is None:
            gone[0] = True
    return 0


cdef MadeVisit *visit_newest() noexcept:
    global visits_left
    cdef int k = 0, child
    cdef short best, moved
    if visits_left == 0:
        return NULL
    best = visits_heap[0]
    visits_left -= 1
    moved = visits_heap[visits_left]
    while True:
        child = 2 * k + 1
        if child >= visits_left:
            break
        if (child + 1 < visits_left and visits[visits_heap[child + 1]].place
                > visits[visits_heap[child]].place):
            child += 1
        if visits[visits_heap[child]].place <= visits[moved].place:
            break
        visits_heap[k] = visits_heap[child]
        k = child
    visits_heap[k] = moved
    return &visits[best]


cdef int made_prune() except -1:
    """Let go of the expressions that alone keep alive more than a little, and of those whose leaves
    nobody else has."""
    global made_pruning, made_limit, visits_count, visits_full, visits_left
    cdef MadeVisit *v
    cdef FgNode *n
    cdef FgTape *tape = get_thread_tape()
    cdef int nodes[MADE]
    cdef int64_t bytes_[MADE]
    cdef uint64_t alive = 0, spoilt = 0, bit
    cdef uint32_t x
    cdef int i, k
    cdef bint gone
    cdef list dropped = []
    if made_pruning:
        return 0
    made_pruning = True
    try:
        visits_count = visits_left = 0
        visits_full = False
        memset(visits_at, 0, sizeof(visits_at))
        for i in range(MADE):
            nodes[i] = 0
            bytes_[i] = 0
            if made_known[i] == NULL:
                continue
            gone = False
            m = <Made>made_known[i]
            visit_held((<Made>m).args, <uint64_t>1 << i, tape, &gone)
            if gone:
                dropped.append(m)
        while True:
            v = visit_newest()
            if v == NULL:
                break
            n = node_at(v.id)
            if n.flags & FG_CONSUMED:
                spoilt |= v.owners
            if n.refs > v.seen:
                alive |= v.owners
                continue
            if n.op == FG_custom:       # its rule holds references that are not counted here
                spoilt |= v.owners
                continue
            k = 0
            bit = v.owners
            while bit:
                i = __builtin_ctzll(bit)
                bit &= bit - 1
                nodes[i] += 1
                bytes_[i] += n.shape.size * item_size(n.dtype) if n.rank else 0
                k |= nodes[i] <= OWN_NODES
            if k and not n.flags & (FG_LEAF | FG_CONSUMED):
                for i in range(operand_count(n)):
                    x = operand_at(n, i)
                    if x:
                        visit_meet(x, v.owners)
        for i in range(MADE):
            if made_known[i] == NULL:
                continue
            m = <Made>made_known[i]
            if (nodes[i] > OWN_NODES or bytes_[i] > OWN_BYTES
                    or spoilt & <uint64_t>1 << i or nodes[i] and not alive & <uint64_t>1 << i):
                dropped.append(m)
        for m in dropped:
            (<Made>m).let_go()
        if visits_full or made_count > MADE - 8:
            for i in range(8):              # the oldest, more or less
                m = <Made>made_known[(made_next + i) % MADE] \
                    if made_known[(made_next + i) % MADE] != NULL else None
                if m is not None:
                    (<Made>m).let_go()
                    dropped.append(m)
        made_limit = made_count + 1 + (made_count >> 3)
        if dropped:
            decisions_tidy()
    finally:
        made_pruning = False
    return 0


cdef int decisions_tidy() except -1:
    """Decisions without an expression are remembered as such."""
    cdef Taken d
    cdef list kept = []
    global decisions_taken
    for x in decisions_taken:
        d = x
        if d.made.args is None:
            decision_put(d.reach, d.time, d.tape, d.place)
        else:
            kept.append(d)
    decisions_taken = kept
    return 0


# ---- deciding -------------------------------------------------------------------------------

cdef object line_told = None


def tell_line(line):
    """Of which line the next decisions are: that of a guard, while a program is replayed. None: of
    the caller's."""
    global line_told
    line_told = line


cdef object user_code = None    # of the last decision: looking for the user's frame takes longer
                                # than all the rest

cdef int decision_frame(Taken d) except -1:
    """Code and instruction that decide."""
    global user_code
    cdef PyFrameObject *frame = PyEval_GetFrame()
    if frame == NULL:
        return 0
    d.line = <object>PyFrame_GetCode(frame)
    Py_DECREF(d.line)                   # (counted once more by the assignment)
    d.at = PyFrame_GetLasti(frame)
    if d.line is not user_code:
        found = user_frame()
        d.line = user_code = found.f_code
        d.at = found.f_lasti
    return 0


cdef str line_text(object line, int at):
    """As `user_line` has it."""
    if type(line) is str:
        return line
    code = line
    if code is None:
        return ""
    lines = [number for start, end, number in code.co_lines() if start <= at < end]
    return f"{code.co_filename}, line {lines[0]}" if lines else code.co_filename


cdef str decision_line():
    return user_line().strip(" ()") if line_told is None else line_told


cdef int decision_take(Made m, uint32_t reach, str kind, object outcome) except -1:
    """Python code decides by what an expression has given."""
    cdef Taken d
    cdef FgTape *tape = get_thread_tape()
    if reach == 0 or reach == FG_REACH_NONE:
        return 0
    if m is None or m.args is None or not made_wanted():
        return decision_reach(reach)
    if tape == NULL:                    # nothing has been recorded in this thread yet
        tape = tape_of_thread()
    if tape.busy:
        return decision_reach(reach)
    d = Taken.__new__(Taken)
    d.reach = reach
    d.time = births
    d.tape = tape
    d.place = place_next(tape)
    d.kind = kind
    d.outcome = outcome
    if line_told is None:
        decision_frame(d)
    else:
        d.line = line_told
    d.made = m
    decisions_taken.append(d)
    if len(decisions_taken) > MADE:
        d = decisions_taken.pop(0)
        decision_put(d.reach, d.time, d.tape, d.place)
    return 0


cdef int decision_by(Tensor t, str kind, object outcome) except -1:
    """The same by the value of a Tensor."""
    cdef uint32_t reach = reach_looked(t.node)
    cdef Made m
    if reach == 0 or reach == FG_REACH_NONE:
        return 0
    if not made_wanted():               # (in a transformation: a branch of each step)
        return decision_reach(reach)
    m = made_of(t) if not t.node.flags & FG_NEEDS_GRAD \
        else made_new(MADE_ITSELF, (made_operand(t),))
    return decision_take(m, reach, kind, outcome)


cdef list decisions_between(list inputs, uint64_t newest):
    """The decisions that depend on one of these and that an operation at that place may depend on;
    None where one of them cannot be computed anew."""
    cdef Taken d
    cdef FgNode *n
    cdef list found = []
    made_prune()
    for x in inputs:
        if decided_on((<Tensor>x).node, newest):
            return None
    for e in decisions_taken:
        d = e
        for x in inputs:
            n = (<Tensor>x).node
            if (d.time >= (n.constant if n.flags & FG_LEAF else 0)
                    and fg_reach_meets(d.reach, reach_of(n))):
                if d.tape != get_thread_tape():
                    return None
                if newest >= d.place:
                    found.append(d)
                break
    return found


cdef int made_roots(object args, list roots) except -1:
    """The nodes that an expression was made of."""
    cdef Argument a
    for x in args:
        if type(x) is Kept and not (<Kept>x).node.flags & FG_LEAF:
            a = Argument.__new__(Argument)
            a.id = (<Kept>x).id
            a.node = (<Kept>x).node
            a.node.refs += 1
            roots.append(a)
        elif type(x) is Made:
            made_roots((<Made>x).args, roots)
        elif type(x) is tuple or type(x) is list:
            made_roots(x, roots)
    return 0


cdef object remade_operand(Recorder r, object x):
    if type(x) is Kept:
        return node_tensor_new((<Kept>x))
    if type(x) is Made:
        return remade(r, <Made>x)
    if type(x) is list:
        return [remade_operand(r, y) for y in x]
    if type(x) is tuple:
        return tuple([remade_operand(r, y) for y in x])
    if PyArray_Check(x):
        r.vouch(x)
    return x


cdef Tensor node_tensor_new(Kept h):
    """A Tensor that stands for a node, which may have lost the one it had."""
    cdef Tensor t
    if h.node.handle != NULL:
        t = <Tensor>h.node.handle
        t.fresh()
        if t.id == h.id:
            return t
        raise undecided()
    h.node.refs += 1
    return tensor_new(h.id, h.node, h.tape)


cdef object remade(Recorder r, Made m):
    """The value of an expression once more."""
    cdef Operand x[3]
    cdef int k, count
    cdef tuple args
    if m.args is None:
        raise undecided()
    args = tuple([remade_operand(r, y) for y in m.args])
    if m.op == MADE_ITSELF:
        return args[0]
    if m.op == MADE_ITEM:
        return args[0][args[1]]
    if m.op == MADE_DETACHED:
        return args[0].detach()
    if m.op == MADE_VIEW:
        return view_derive(<Tensor>args[0], m.part)
    if m.op == MADE_PRODUCT:
        return push_matmul(args[0], args[1])
    if m.op == MADE_REDUCED:
        operand_clear(&x[0])
        operand_ready(args[0], &x[0])
        try:
            return (push_sum(&x[0], m.part[1], m.part[2]) if m.part[0] == FG_sum
                    else push_reduction(m.part[0], &x[0], m.part[1], m.part[2]))
        finally:
            operands_drop(x, 1)
    if m.op == MADE_CALL:
        if CALLED.get(m.name) is not m.function:
            raise undecided()               # programs do not know the function
        result = derived(m.name, m.function, args[0], dict(args[1]))
        return result if m.part is None else result[m.part]
    count = len(args)
    for k in range(3):
        operand_clear(&x[k])
    for k in range(count):
        operand_of(args[k], &x[k], False)
    return push(m.op, count, x)


cdef object undecided():
    return RuntimeError(
        "function: between these inputs and outputs Python code has decided by a value that "
        "depends on the inputs (a branch, an index, int()), which this recording does not tell; "
        "record the function with fg.compile")


cdef int decisions_guard(Recorder r, list found) except -1:
    """Take down each decision of a history as a guard."""
    cdef Taken d
    cdef Py_ssize_t before, i
    r.begin()
    try:
        for e in found:
            d = e
            before = len(r.guards)
            x = remade(r, d.made)
            if d.kind == "same":
                r.vouch(d.outcome)
                derived("numpy.array_equal", np.array_equal, (x, d.outcome), {})
            elif isinstance(x, Tensor):
                now = tensor_value(<Tensor>x)
                now = bool(np.all(now)) if d.kind in ("bool", "all") else int(now.item())
                if now != d.outcome:
                    raise undecided()
                r.guard(<Tensor>x, d.kind, d.outcome)
            if len(r.guards) == before or r.guards[len(r.guards) - 1][2] != (
                    True if d.kind == "same" else d.outcome):
                raise undecided()
            for i in range(before, len(r.guards)):
                r.guards[i] = (*r.guards[i][:3], line_text(d.line, d.at))
    except (TypeError, ValueError, IndexError):
        raise undecided()                   # (what was fine with the values of then)
    finally:
        r.end()
    if r.reason is not None:
        raise undecided()
    return 0
