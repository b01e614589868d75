"""Recording for programs: everything that depends on what a program will be given, nothing else.

Between `begin` and `end` of a Recorder every operation that a derivative is wanted for is recorded
as always, and so is whatever else is computed from the inputs: comparisons, steps, integers, values
that were detached. Such nodes do not carry FG_NEEDS_GRAD, so that sweeps take them for the
constants that they are to a derivative. `Operand.needs` then means "to be recorded".

A recording sees operands, not where they come from:

- what was made while recording and does not depend on an input is a literal (leaves carry the
  number of the recording in their field `b`);
- arrays and Tensors from outside become inputs if the caller knows them, and else the reason why
  the recording cannot be replayed;
- a value of a recorded Tensor that gets out, as a number or an ndarray, is such a reason too,
  unless it is a decision (bool, index, count): that is a guard.
"""

GRAPH_LAYOUT = (<const char *>FG_GRAPH_LAYOUT).decode()
GRAPH_FLAGS = {"INPUT": FG_GRAPH_INPUT, "WEAK": FG_GRAPH_WEAK, "LITERAL": FG_GRAPH_LITERAL,
               "MANY": FG_GRAPH_MANY, "STOP": FG_GRAPH_STOP}

cdef uint32_t recordings = 0


cdef bint place_moves(object i) except -1:
    """Whether a place in an index is left open: the body of a loop is recorded once for all i."""
    cdef Recorder r = recorder()
    return r is not None and r.places_move and r.traced(<Tensor>i)


cdef inline Recorder recorder():
    """The one at work in this thread, or None."""
    return <Recorder>mode().recorder if mode().recorder != NULL else None


cdef list live_places(object plain):
    """The nodes that an index of an operation was computed by."""
    cdef void *r = mode().recorder
    while r != NULL:
        entry = (<Recorder>r).indices.get(id(plain))
        if entry is not None:
            index = entry[1]
            return [(<Tensor>i).id for i in (index if type(index) is tuple else (index,))
                    if isinstance(i, Tensor)]
        r = (<Recorder>r).outer
    return []


@cython.final
cdef class Unseen:
    """From its making to `end` no recording for a program sees what is done, and derivatives are
    recorded as always."""
    cdef FgMode before

    def __cinit__(self):
        self.before = mode()[0]
        mode().recorder = NULL
        mode().kept = NULL
        mode().serial = 0
        mode().not_recording = 0

    cdef void end(self) noexcept:
        mode()[0] = self.before


@cython.final
@cython.binding(False)
cdef class Recorder:
    """Takes down one run of a function.

    Parameters
    ----------
    values : list
        Floats, arrays, NumPy scalars or Tensors: the inputs.
    known : iterable or None
        Arrays and Tensors that the function is known to reach: they become inputs when they are
        used. None: whatever it uses.
    plain : bool
        Whether the program is all that the recording is for: a value that leaves loses nothing.
    """
    cdef readonly list arguments    # Tensors to call the function with
    cdef readonly list captured     # arrays and Tensors from outside, in the order of their use
    cdef readonly str reason        # why the recording must not be replayed, or None
    cdef readonly int refused       # what Tensors have refused: the function may have caught that
    cdef readonly list guards       # (id of a node, kind, outcome, line)
    cdef readonly set derived       # (dtype, size) of arrays that were computed inside, literals
    cdef public object teller       # tells whether a value that is seen is only told, or None
    cdef readonly bint leaves       # the value of a Tensor was seen by Python code
    cdef readonly bint scalars      # a NumPy scalar of unknown origin was used as a literal
    cdef public bint places_move    # an integer Tensor in an index is an operand, and no guard
    cdef bint past                  # what it holds was recorded without it
    cdef readonly bint plain        # nobody differentiates by its inputs, or maps over them
    cdef uint32_t *ids              # the recorded nodes, oldest first, each counted once
    cdef int64_t count, size
    cdef uint64_t oldest            # the place of its first node, once `survivors` was asked
    cdef uint32_t serial
    cdef dict inputs                # id of a node: its place among the inputs
    cdef list holders               # Tensors of these nodes
    cdef list left                  # numbers and Tensors (borrowed) of nodes, once they are let go
    cdef dict known                 # id of an object: the object; None: all are
    cdef dict arrays                # id of an array: (array, the Tensor that stands for it)
    cdef dict vouched               # id of an array: array
    cdef readonly dict frozen       # the same, of arrays that must have the same contents each time
    cdef list contents              # (array, what it held when it was used by value)
    cdef dict indices               # id of a plain index: (the index, the same with Tensors)
    cdef set points                 # ids of inputs, and of derivatives by them, that are 0-d arrays
    cdef dict aliases               # id of a result of a rule: the node that has its value
    cdef FgMode around
    cdef void *outer
    cdef int depth
    cdef bint open

    def __cinit__(self, list values, known=(), bint plain=False):
        global recordings
        cdef Tensor t
        recordings = recordings + 1 if recordings + 1 != 0 else 1
        self.serial = recordings
        self.arguments, self.captured, self.guards, self.holders = [], [], [], []
        self.inputs, self.arrays, self.vouched, self.indices, self.frozen = {}, {}, {}, {}, {}
        self.contents, self.points, self.derived = [], set(), set()
        self.aliases = {}
        self.known = None if known is None else {id(x): x for x in known}
        self.plain = plain
        for v in values:
            t = record_leaf(v, plain)
            self.inputs[t.id] = len(self.arguments)
            if PyArray_Check(v) and not PyArray_NDIM(v):
                self.points.add(t.id)
            self.holders.append(argument_of(t))
            self.arguments.append(t)

    def __dealloc__(self):
        cdef int64_t i
        if self.open:
            self.end()
        for i in range(self.count):
            node_drop(self.ids[i])
        fg_free(self.ids)

    def begin(self):
        """Before the function is called."""
        if self.open:
            raise RuntimeError("this recording has begun")
        self.around = mode()[0]
        self.depth, self.outer = self.around.depth, self.around.recorder
        mode().recorder = <void *>self
        mode().kept = <void *>self
        mode().serial = self.serial
        mode().depth = self.depth + 1
        mode().not_recording = 0
        self.open = True

    def end(self):
        """After it, in any case."""
        if self.open:
            self.open = False
            mode()[0] = self.around

    # ---- while the function runs ------------------------------------------------------------

    cdef int note(self, uint32_t id, FgNode *n) except -1:
        """A node that has just been recorded."""
        self.hold(id, n)
        if not carries_derivative(n):
            n.flags &= ~FG_NEEDS_GRAD
        return 0

    cdef int hold(self, uint32_t id, FgNode *n) except -1:
        """Keep a node."""
        cdef void *grown
        if self.count == self.size:
            grown = fg_grown(self.ids, &self.size, sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError()
            self.ids = <uint32_t *>grown
        self.ids[self.count] = id
        self.count += 1
        n.refs += 1
        return 0

    cdef bint own(self, uint32_t id, FgNode *n):
        """Whether the node was made by this recording, or stands for one of its inputs."""
        if n.flags & FG_LEAF:
            return n.b == self.serial or id in self.inputs
        # Nodes of one recording carry its number nowhere: the outermost recording's oldest node
        # tells them from older ones.
        if self.count == 0:
            return self.oldest != 0 and place_of(id) >= self.oldest     # it is over
        return not node_before(id, self.ids[0])

    cdef bint traced(self, Tensor t) except -1:
        """Whether the value depends on an input; one from outside becomes an input."""
        cdef uint32_t id = t.id
        if id in self.inputs:
            return True
        if t.node.flags & FG_LEAF:
            if t.node.b == self.serial:
                return False
        elif self.own(id, t.node):
            return True
        return self.capture(t)

    cdef bint capture(self, Tensor t) except -1:
        """A Tensor from outside."""
        if self.known is not None and id(t) not in self.known:
            self.refuse("a Tensor that was made outside of it is used")
            return False
        self.inputs[t.id] = len(self.arguments) + len(self.captured)
        self.captured.append(t)
        self.holders.append(argument_of(t))
        return True

    cdef Tensor array_operand(self, object a):
        """The Tensor that stands for an array from outside, or None for a literal."""
        cdef Tensor t
        entry = self.arrays.get(id(a))
        if entry is not None:
            t = entry[1]
            if not np.array_equal(a, tensor_value(t), equal_nan=a.dtype.kind == "f"):
                self.refuse("an array is changed while it is recorded")
                return None
            return t
        if self.vouches(a):
            return None
        if id(a) in self.frozen:
            self.refuse("an array is used as an operand and by value")
            return None
        if self.known is not None and id(a) not in self.known:
            t = self.view_operand(a)
            if t is not None:
                return t
            self.derive(a)
            return None
        t = tensor(a)
        self.arrays[id(a)] = (a, t)
        self.inputs[t.id] = len(self.arguments) + len(self.captured)
        self.captured.append(a)
        self.holders.append(argument_of(t))
        return t

    cdef int derive(self, object a) except -1:
        """An array that plain NumPy has computed of what the state holds: a constant, if it is no
        memory of the state's."""
        for base in self.known.values():
            if type(base) is np_ndarray and np.may_share_memory(a, base):
                self.refuse("an array is used that shows another one in a way that cannot be told "
                            "(fg.constant(array) vouches for one)")
                return 0
        self.derived.add((a.dtype, a.size))
        return 0

    cdef Py_ssize_t holds(self, object a):
        """How many references to an array this recording has, and those around it."""
        cdef Py_ssize_t count = 0
        entry = self.arrays.get(id(a))
        if entry is not None:
            count += 1
            for x in self.captured:
                count += x is a
        count += id(a) in self.vouched
        count += id(a) in self.frozen
        for x, _ in self.contents:
            count += x is a
        if self.outer != NULL:
            count += (<Recorder>self.outer).holds(a)
        return count

    @property
    def ruled(self):
        """Whether functions with a derivative rule of their own were used: of them the graph tells
        the values alone."""
        return len(self.aliases) > 0

    cdef Tensor view_operand(self, object a):
        """The Tensor that stands for a view of a known array, or None for anything else."""
        cdef Tensor t
        if a.base is None or a.size == 0:
            return None
        low, high = byte_bounds(a)
        for base in self.known.values():
            # (NumPy lets a view refer to the owner of the memory, not to the array it is a view of.)
            if (type(base) is np_ndarray and base.dtype == a.dtype and base.flags.c_contiguous
                    and base.size and byte_bounds(base)[0] <= low and high <= byte_bounds(base)[1]):
                break
        else:
            return None
        whole = self.array_operand(base)
        if whole is None:
            return None
        offset = a.__array_interface__["data"][0] - byte_bounds(base)[0]
        if a.flags.c_contiguous:
            start = offset // a.itemsize
            t = reshape_tensor(whole, (base.size,))[start:start + a.size]
            t = reshape_tensor(t, a.shape)
            self.arrays[id(a)] = (a, t)
            return t
        # Which entries it shows, told by a view of their numbers that is made in the same way.
        numbers = np.arange(base.size, dtype=np.int64)
        if base.itemsize == 8:
            places = np.ndarray(a.shape, np.int64, numbers, offset, a.strides)
        elif base.itemsize == 4:
            places = np.ndarray(a.shape, np.int32, numbers.astype(np.int32), offset, a.strides)
        else:
            return None
        if np.array_equal(places, numbers.reshape(base.shape).T):
            t = transpose_tensor(whole, None)
        else:
            t = reshape_tensor(whole, (base.size,))[vouch(places.astype(np.intp))]
        self.arrays[id(a)] = (a, t)
        return t

    cdef int refuse(self, str why) except -1:
        """The recording must not be replayed."""
        if self.reason is None:
            self.reason = why + user_line()
        return 0

    cdef int escape(self, Tensor t) except -1:
        """Its value is about to be seen by Python code."""
        if self.outer != NULL and not self.gave(t):     # the same at each lane or step
            if t.node.flags & FG_LEAF and t.node.b == self.serial:
                return 0                # a constant
            return (<Recorder>self.outer).escape(t)
        if self.traced(t) and not (self.teller is not None and self.teller()):
            self.leaves = True
            self.refuse("the value of a Tensor leaves it as a number or an array")
        return 0

    cdef bint gave(self, Tensor t) except -1:
        """Whether the value depends on an argument of this recording. What does not is computed of
        what is outside, and the same at each of its runs."""
        cdef FgNode *n
        cdef uint32_t id
        cdef list rest = [t.id]
        cdef set seen = set()
        while rest:
            id = rest.pop()
            if id in seen or id == FG_NO_ID:
                continue
            seen.add(id)
            n = node_at(id)
            place = self.inputs.get(id)
            if place is not None and place < len(self.arguments):
                return True
            if n.flags & FG_LEAF or self.count and not self.own(id, n):     # (older than any)
                continue
            if n.op == FG_dual or n.flags & FG_CONSUMED:        # (what of is not told)
                return True
            rest += sources_of(n)
            if id in self.aliases:
                rest.append((<Argument>self.aliases[id]).id)
        return False

    cdef bint made(self, Tensor t) except -1:
        """Whether the Tensor was made by this recording."""
        if t.node.flags & FG_LEAF:
            return t.node.b == self.serial
        return self.own(t.id, t.node)

    cdef int guard(self, Tensor t, str kind, object outcome) except -1:
        """A decision depends on its value."""
        if self.traced(t):
            self.guards.append((t.id, kind, outcome, decision_line()))
            self.holders.append(argument_of(t))
        if self.outer != NULL and not self.made(t):
            (<Recorder>self.outer).guard(t, kind, outcome)
        return 0

    cdef int freeze(self, object x) except -1:
        """The contents of an array are used by value."""
        if PyArray_Check(x) and not self.vouches(x):
            if self.known is not None and id(x) not in self.known:
                self.derive(x)
            elif id(x) in self.arrays:
                self.refuse("an array is used as an operand and by value")
            else:
                self.frozen[id(x)] = x
                if self.known is None:
                    self.contents.append((x, x.copy()))
        elif isinstance(x, Tensor):
            self.escape(<Tensor>x)
        elif type(x) is list or type(x) is tuple:
            for y in x:
                self.freeze(y)
        return 0

    cdef int settle(self) except -1:
        """A step or a lane stands for others, and its graph finds arrays as they are afterwards:
        none may have been changed since it was used. One that was is put back, since the caller
        will run the function itself."""
        cdef bint changed = False
        for a, t in self.arrays.values():
            changed = put_back(a, tensor_value(<Tensor>t)) or changed
        for a, copy in self.contents:
            changed = put_back(a, copy) or changed
        if changed:
            self.refuse("an array is changed after it was used")
        return 0

    def made_here(self, Tensor t):
        """Whether the Tensor was made by this recording, or is an argument of it."""
        return t.node.flags & FG_LEAF and t.id in self.inputs and bool(
            t.node.flags & FG_ARGUMENT) or self.made(t)

    def survivors(self):
        """The Tensors of this recording that somebody still has, after it. The first time its nodes
        are let go, since rules and loops among them keep Tensors themselves; from then on numbers
        of nodes may be others'."""
        cdef int64_t i, count = self.count
        cdef uint32_t id
        cdef FgNode *n
        if self.left is None:
            self.left = []
            if count:
                self.oldest = place_of(self.ids[0])
            self.arguments = []
            self.arrays, self.indices, self.aliases = {}, {}, {}
            for x in {*self.inputs, *[self.ids[i] for i in range(count)]}:
                n = node_at(<uint32_t>x)
                if n.handle != NULL and (not n.flags & FG_LEAF or n.flags & FG_ARGUMENT):
                    self.left.append((x, <size_t>n.handle))
            self.holders = []
            self.count = 0
            for i in range(count):
                node_drop(self.ids[i])
        return [<object>node_at(<uint32_t>x).handle for x, handle in self.left
                if node_has(<uint32_t>x, <size_t>handle)]

    cdef bint vouches(self, object a) except -1:
        """Whether the contents of an array, or of what it is a view of, are the same at each run."""
        if id(a) in self.vouched:
            return True
        base = a.base
        return base is not None and id(base) in self.vouched

    def vouch(self, array):
        """Its contents never change."""
        self.vouched[id(array)] = array

    # ---- indices ----------------------------------------------------------------------------

    cdef object index(self, object index):
        """An index with what it is made of as plain arrays; where these depend on inputs, the
        same with Tensors is remembered."""
        cdef bint tensors = False
        if id(index) in self.indices:
            return index
        parts = list(index) if type(index) is tuple else [index]
        whole = []
        for i in parts:
            if PyArray_Check(i):
                t = self.array_operand(i)
                i = i if t is None else t
            if isinstance(i, Tensor) and self.traced(<Tensor>i):
                tensors = True
                if (<Tensor>i).node.dtype == FG_BOOL:
                    self.guard(<Tensor>i, "count", int(np.count_nonzero(tensor_value(<Tensor>i))))
            whole.append(i)
        plain = [index_plain_item(i) for i in whole]
        for i in plain:
            if PyArray_Check(i):
                self.vouch(i)           # a node keeps it, and its derivative uses it again
        answer = tuple(plain) if type(index) is tuple else plain[0]
        if tensors:
            self.indices[id(answer)] = (answer, tuple(whole) if type(index) is tuple else whole[0])
        return answer

    # ---- the graph --------------------------------------------------------------------------

    @classmethod
    def of_history(cls, list inputs, list outputs):
        """A recorder that holds what was recorded without one, from some Tensors to others."""
        cdef Recorder r = cls([], None)
        cdef Tensor t
        cdef Subgraph g
        cdef int64_t i
        cdef FgNode *n
        cdef uint64_t newest = 0
        r.past = True
        for x in inputs:
            t = <Tensor>x
            t.fresh()
            r.inputs[t.id] = len(r.arguments)
            r.holders.append(argument_of(t))
            r.arguments.append(t)
        roots = []
        for y in outputs:
            t = <Tensor>y
            t.fresh()
            if t.tape != NULL and t.tape != get_thread_tape():
                raise thread_error(t.tape)
            if t.node.flags & FG_CONSUMED:
                raise graph_gone()
            roots.append(argument_of(t))
            if t.tape != NULL and place_of(t.id) > newest:
                newest = place_of(t.id)
        found = decisions_between(inputs, newest)
        if found is None:
            raise undecided()
        for d in found:
            made_roots((<Taken>d).made.args, roots)
        g = subgraph(roots, None, FG_NO_ID)
        for i in range(g.count - 1, -1, -1):
            n = node_at(g.ids[i])
            if n.flags & FG_CONSUMED:
                raise graph_gone()
            if g.ids[i] not in r.inputs:
                r.hold(g.ids[i], n)
        if found:
            decisions_guard(r, found)
        return r

    def graph(self, list outputs):
        """Rows, operand lists, shapes, attributes, numbers of the inputs and of the outputs, kinds
        of the outputs, and guards."""
        cdef Extraction e = Extraction.__new__(Extraction)
        cdef int64_t i
        cdef Tensor t
        e.begin(self)
        if self.past:
            wanted_mark(self.inputs, True)      # roots that are inputs: see Extraction.add
        try:
            for i in range(self.count):
                e.add(self.ids[i])
        finally:
            if self.past:
                wanted_mark(self.inputs, False)
        numbers, kinds = [], []
        for y in outputs:
            if PyArray_Check(y):
                x = self.array_operand(y)
                y = x if x is not None else tensor_constant(np.array(y))
            elif not isinstance(y, Tensor):
                y = scalar_constant(y, FG_FLOAT64, FG_WEAK) if PyFloat_CheckExact(y) \
                    else tensor_constant(np.asarray(y))
            t = <Tensor>y
            t.fresh()
            self.holders.append(argument_of(t))     # no other leaf gets its number meanwhile
            self.traced(t)
            numbers.append(e.number(t.id))
            kinds.append("array" if t.node.rank or t.id in self.points else
                         "float" if t.node.flags & FG_WEAK and is_float(t.node.dtype) else "scalar")
        if self.known is None:
            self.settle()
        guards = [(e.number(<uint32_t>node), kind, outcome, line)
                  for node, kind, outcome, line in self.guards]
        e.finish()
        if self.past:
            e.looked_check()
        inputs = [e.numbers[node] for node, place in sorted(self.inputs.items(), key=second)]
        return e.rows(), e.operands, e.shapes, e.attrs, inputs, numbers, kinds, guards


cdef int wanted_mark(dict inputs, bint wanted) except -1:
    """Mark nodes as those that a derivative is asked for, or no more."""
    for id in inputs:
        if wanted:
            node_at(<uint32_t>id).flags |= FG_WANTED
        else:
            node_at(<uint32_t>id).flags &= ~FG_WANTED
    return 0


cdef bint node_has(uint32_t id, size_t handle) noexcept:
    """Whether that Tensor stands for a node, which may be gone with its segment."""
    cdef FgSegment *s = directory[id >> FG_SEGMENT_BITS]
    cdef FgNode *n
    if s == NULL:
        return False
    n = node_at(id)
    return node_lives(n) and <size_t>n.handle == handle


cdef bint put_back(object a, object contents) except -1:
    """Whether an array does not hold the bytes it held; it does afterwards."""
    if (cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_IS_C_CONTIGUOUS(contents)
            and PyArray_TYPE(a) == PyArray_TYPE(contents)):
        if memcmp(PyArray_DATA(a), PyArray_DATA(contents), cnp.PyArray_NBYTES(a)) == 0:
            return False
    elif a.tobytes() == contents.tobytes():
        return False
    if a.flags.writeable:
        a[...] = contents
    return True


cdef bint node_before(uint32_t x, uint32_t y) noexcept:
    """Whether node x of a tape is older than node y."""
    cdef uint64_t a = directory[x >> FG_SEGMENT_BITS].sequence
    cdef uint64_t b = directory[y >> FG_SEGMENT_BITS].sequence
    return a < b or (a == b and (x & (FG_SEGMENT - 1)) < (y & (FG_SEGMENT - 1)))


cdef bint carries_derivative(FgNode *n) noexcept:
    """Whether a sweep may have to enter the node."""
    cdef int k
    cdef uint32_t x
    if (n.op == FG_call or (FG_ELEMENTWISE_END <= n.op < FG_COMPARE_END)
            or (n.op < FG_ELEMENTWISE_END and weights_only(n.op))
            or not is_float(n.dtype) or not get_recording()):
        return False
    if n.op == FG_result or n.op == FG_leaf or n.op == FG_dual:
        return True
    for k in range(operand_count(n)):
        x = operand_at(n, k)
        if x and node_at(x).flags & FG_NEEDS_GRAD:
            return True
    return False


cdef bint derivative_stops(FgNode *n) noexcept:
    """Whether the value has no derivative though its operands and its operation have: it was
    detached, or recorded inside `no_grad`."""
    cdef int k
    cdef uint32_t x
    if (n.flags & FG_NEEDS_GRAD or not is_float(n.dtype) or n.op in (FG_call, FG_custom, FG_result)
            or (n.op < FG_ELEMENTWISE_END and weights_only(n.op))):
        return False
    for k in range(operand_count(n)):
        x = operand_at(n, k)
        if x and node_at(x).flags & FG_NEEDS_GRAD and is_float(node_at(x).dtype):
            return True
    return False


cdef Tensor record_leaf(object value, bint plain):
    """The leaf that stands for an input; `plain`: unless the value says otherwise, nobody
    differentiates by it."""
    cdef Tensor t
    cdef bint point = PyArray_Check(value)
    if isinstance(value, Tensor):
        plain = plain and not keeps_derivative(<Tensor>value)
        point = is_point(<Tensor>value)
        value = tensor_value(<Tensor>value) if (<Tensor>value).node.rank else settle_unseen(value)
    if PyFloat_CheckExact(value):
        t = scalar_constant(PyFloat_AS_DOUBLE(value), FG_FLOAT64, FG_WEAK)
    else:
        t = tensor(value)
    if is_float(t.node.dtype):
        t.node.flags |= FG_NEEDS_GRAD | FG_ARGUMENT | (FG_PROGRAM if plain else 0)
        t.node.attr = reach_new()
        t.node.c = thread_mark()
    else:
        t.node.c = <uint32_t>mode().depth + 1
    return point_made(t) if point else t


cdef object settle_unseen(object t):
    """The value of a scalar Tensor, not seen by a recording."""
    cdef FgNode *n = (<Tensor>t).node
    if n.flags & FG_WEAK and is_float(n.dtype):
        return n.re
    return dtypes[n.dtype].type(scalar_python(n))


cdef bint is_traced(object x) except -1:
    """Whether a recording for a program has to take down what is done to x."""
    return (mode().recorder != NULL and isinstance(x, Tensor)
            and (<Recorder>mode().recorder).traced(<Tensor>x))


cdef object forgotten(FgNode *n):
    return RuntimeError(
        f"function: the recording of {fg_op_info[n.op].name.decode()} has let go of a constant that "
        "no derivative reads; record the function with fg.compile")


# Decisions of Python code outside of recordings for programs: which leaves they depended on, and how
# many leaves there had been by then; the last ones one by one, older ones together.
cdef struct Decision:
    uint32_t reach
    double time
    FgTape *tape                # of whose operations those from `place` on are newer
    uint64_t place

cdef enum:
    DECISIONS = 64
cdef Decision decisions[DECISIONS]
cdef int decision_next = 0
cdef Decision decisions_older


cdef inline uint64_t place_of(uint32_t id) noexcept:
    """Grows along a tape."""
    cdef uint64_t sequence = directory[id >> FG_SEGMENT_BITS].sequence
    return sequence << (FG_SEGMENT_BITS + 1) | id & (FG_SEGMENT - 1)


cdef uint64_t place_next(FgTape *tape) except? 0:
    """The place of the next operation, and no operation to come is older."""
    cdef FgSegment *s = tape.last
    if s == NULL or s.used == FG_SEGMENT:
        s = tape_grow(tape)
    if FG_REUSES and s.used and node_lives(&s.nodes[s.used - 1]):
        # Were that node to die, its place would be used again: one stays free above it.
        s.nodes[s.used].refs = 0
        s.used += 1
    return s.sequence << (FG_SEGMENT_BITS + 1) | s.used


cdef void decisions_forget(FgTape *tape) noexcept:
    """Another tape has been there before: its decisions are older than anything."""
    cdef int i
    for i in range(DECISIONS):
        if decisions[i].tape == tape:
            decisions[i].place = 0


cdef int decision_reach(uint32_t reach) except -1:
    """What Python code does next depends on a value that depends on these leaves; how is not known
    (tensor/decisions.pyx has the others)."""
    cdef FgTape *tape = get_thread_tape()
    if reach == 0 or reach == FG_REACH_NONE:
        return 0
    # (Where others stand on the tape, and where histories do not begin: older than anything.)
    decision_put(reach, births, tape,
                 place_next(tape) if tape != NULL and mode().depth == 0 and not tape.busy else 0)
    return 0


cdef void decision_put(uint32_t reach, double time, FgTape *tape, uint64_t place) noexcept:
    """Remember such a decision, and when it was taken."""
    global decision_next
    cdef Decision *last = &decisions[(decision_next + DECISIONS - 1) % DECISIONS]
    cdef Decision *oldest = &decisions[decision_next]
    if last.reach == reach and last.tape == tape and last.time:
        if time > last.time:
            last.time = time
        if place < last.place:
            last.place = place
        return
    if oldest.time:
        decisions_older.reach = fg_reach_both(decisions_older.reach, oldest.reach) \
            if decisions_older.time else oldest.reach
        decisions_older.time = oldest.time
    oldest.reach = reach
    oldest.time = time
    oldest.tape = tape
    oldest.place = place
    decision_next = (decision_next + 1) % DECISIONS


cdef bint decided_on(FgNode *n, uint64_t newest) noexcept:
    """Whether such a decision may have depended on a leaf, which was made before it, and an
    operation at that place of this thread's tape may depend on the decision."""
    cdef double birth = n.constant if n.flags & FG_LEAF else 0
    cdef uint32_t reach = reach_of(n)
    cdef int i
    for i in range(DECISIONS):
        if (decisions[i].time and decisions[i].time >= birth
                and fg_reach_meets(decisions[i].reach, reach)
                and (decisions[i].tape != get_thread_tape() or newest >= decisions[i].place)):
            return True
    return (decisions_older.time != 0 and decisions_older.time >= birth
            and fg_reach_meets(decisions_older.reach, reach))


cdef inline bint node_traced(uint32_t id, FgNode *n):
    """The same of a node, whose Tensor may stand for another one by now."""
    if mode().recorder == NULL:
        return False
    if n.flags & FG_LEAF:
        return id in (<Recorder>mode().recorder).inputs
    return True


# Names of arguments that tell the shape of a result, in any function; PLAIN has their places.
cdef object LENGTH_NAMES = frozenset((
    "axis", "axis1", "axis2", "shape", "keepdims", "n", "num", "k", "reps", "repeats", "offset",
    "ndmin", "endpoint", "retstep", "minlength", "return_index", "return_inverse", "return_counts"))

cdef list sources_of(FgNode *n):
    """The nodes that one was computed of: its operands, and the indices among its attributes."""
    cdef int k
    cdef list found = [operand_at(n, k) for k in range(operand_count(n)) if operand_at(n, k)]
    if fg_op_info[n.op].props & FG_INDEXED:
        found += live_places(graph_attribute(n))
    return found
