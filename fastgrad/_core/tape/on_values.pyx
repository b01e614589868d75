"""Functions without derivative, which are recorded for programs as calls, and recordings as rows of
a graph."""

cdef object derived(str name, object function, tuple args, dict kwargs):
    """function(*args, **kwargs) on the values of Tensors, as Tensors; taken down where it depends
    on an input. `name` is what programs call the function."""
    cdef list operands = []
    cdef Recorder r = recorder()
    cdef object result
    if r is None:
        return looked(derived_wrapped(function(*[derived_value(x) for x in args],
                                               **{k: derived_value(x) for k, x in kwargs.items()})),
                      args, kwargs, name, function)
    if name not in CALLED:
        name = None
    row = PLAIN.get(name)
    lengths = () if row is None else row.lengths
    args = tuple([length_settled(r, name, x) if k in lengths else x for k, x in enumerate(args)])
    kwargs = {k: length_settled(r, name, x) if k in LENGTH_NAMES else x for k, x in kwargs.items()}
    if row is not None and row.counted is not None:
        for x in row.counted(*args, **kwargs):
            if isinstance(x, Tensor) and (<Tensor>x).node.dtype == FG_BOOL and is_traced(x):
                r.guard(<Tensor>x, "count", int(np.count_nonzero(tensor_value(<Tensor>x))))
            elif holds_traced(x):
                int(derived("numpy.count_nonzero", np.count_nonzero, (x,), {}))
    elif row is not None and row.axes == "counted" and (
            holds_traced(args) or holds_traced(list(kwargs.values()))):
        r.refuse(f"the shape of what {name} returns depends on values")
    template = tuple([derived_slot(r, x, operands) for x in args])
    options = tuple([(k, derived_slot(r, x, operands)) for k, x in kwargs.items()])
    try:
        result = function(*[derived_value(x) for x in args],
                          **{k: derived_value(x) for k, x in kwargs.items()})
    except Exception:                   # the function may catch it, and go another way
        r.refuse(f"{getattr(function, '__name__', 'a function')} raised an error")
        raise
    if not operands:
        return derived_wrapped(result)
    if name is None:
        r.refuse(f"{getattr(function, '__name__', function)} of a recorded value is used")
        return derived_wrapped(result)
    if isinstance(result, (tuple, list)):
        return type(result)([derived_node(r, y, (name, template, options, k), operands)
                             for k, y in enumerate(result)])
    return derived_node(r, result, (name, template, options, None), operands)


cdef bint holds_traced(object x) except -1:
    """Whether a value depends on an input, or one in a list or tuple."""
    if type(x) is list or type(x) is tuple:
        for y in x:
            if holds_traced(y):
                return True
        return False
    return is_traced(x)


cdef object length_settled(Recorder r, str name, object x):
    """An argument that tells a shape, integers of Python's in place of Tensors of one."""
    if not holds_traced(x):
        return x
    if type(x) is list or type(x) is tuple:
        return type(x)([length_settled(r, name, y) for y in x])
    if (<Tensor>x).node.rank == 0 and not is_float((<Tensor>x).node.dtype):
        return decided(<Tensor>x, "int", int(tensor_value(<Tensor>x)))
    r.refuse(f"the shape of what {name} returns depends on values")
    return np.array(tensor_value(<Tensor>x))


cdef object derived_value(object x):
    """x with the value in place of each Tensor, in nested lists and tuples too."""
    if isinstance(x, Tensor):
        return tensor_value(<Tensor>x)
    if type(x) is list or type(x) is tuple:
        descend()
        try:
            return type(x)([derived_value(y) for y in x])
        finally:
            ascend()
    if PyArray_Check(x):
        refuse_kind(x)
        if x.dtype.hasobject:           # as out=, NumPy 2.4 reads what it has not written
            raise TypeError(dtype_message(np.dtype(object)))
    return x


cdef object derived_slot(Recorder r, object x, list operands):
    """The same with a slot in place of each Tensor that depends on an input."""
    if PyArray_Check(x):
        t = r.array_operand(x)
        x = x if t is None else t
    if isinstance(x, Tensor):
        if r.traced(<Tensor>x):
            operands.append(x)
            return SLOT(len(operands) - 1)
        return np.array(tensor_value(<Tensor>x))
    if type(x) is list or type(x) is tuple:
        descend()
        try:
            return type(x)([derived_slot(r, y, operands) for y in x])
        finally:
            ascend()
    return np.array(x) if PyArray_Check(x) else x


cdef object derived_wrapped(object result):
    """Arrays and NumPy scalars as Tensors, also in tuples; all else as it is."""
    cdef bint scalar = isinstance(result, np_generic)
    if PyArray_Check(result) or scalar:
        if result.dtype.kind in "fc" or result.dtype.num < KNOWN_DTYPES and dtype_known[
                <int>result.dtype.num]:
            result = tensor_constant(result)    # which complains of other floating dtypes
            return result if scalar else point_made(result)
        return result
    if type(result) is list or type(result) is tuple:
        descend()
        try:
            return type(result)([derived_wrapped(y) for y in result])
        finally:
            ascend()
    return result


def looked(result, args, kwargs=None, name=None, function=None):
    """Let Tensors without derivative remember which leaves the arguments of the function that they
    were computed by depend on, and the function by the name that programs have for it; returns the
    result."""
    cdef uint32_t reach = reach_among(args)
    if kwargs:
        reach = fg_reach_both(reach, reach_among(kwargs.values()))
    if reach != FG_REACH_NONE:
        reach_put(result, reach)
        made_call(result, name, function, args, kwargs)
    return result


cdef uint32_t reach_among(object operands) except? 0:
    """Which leaves the Tensors in nested lists and tuples depend on."""
    cdef uint32_t looked_, reach = FG_REACH_NONE
    for x in operands:
        if isinstance(x, Tensor):
            looked_ = reach_looked((<Tensor>x).node)
            if looked_:
                reach = fg_reach_both(reach, looked_)
        elif type(x) is list or type(x) is tuple:
            descend()
            try:
                reach = fg_reach_both(reach, reach_among(x))
            finally:
                ascend()
    return reach


cdef int reach_put(object result, uint32_t reach) except -1:
    cdef FgNode *n
    if isinstance(result, Tensor):
        n = (<Tensor>result).node
        if n.flags & FG_LEAF and not n.flags & FG_NEEDS_GRAD:
            n.attr = reach
    elif isinstance(result, (list, tuple)):
        for x in result:
            reach_put(x, reach)
    return 0


cdef object derived_node(Recorder r, object result, tuple attribute, list operands):
    """The node of one result of a call."""
    cdef Tensor t, y
    cdef FgTape *tape = tape_of_thread()
    cdef FgNode *n
    cdef FgNode *made
    cdef uint32_t id, attr
    cdef int64_t *ids
    cdef int64_t i, count = len(operands)
    if isinstance(result, (bool, int)):
        t = derived_node(r, np.asarray(result), attribute, operands)
        r.guard(t, "bool" if isinstance(result, bool) else "int", result)
        return result
    wrapped = derived_wrapped(result)
    if not isinstance(wrapped, Tensor):
        r.refuse(f"{attribute[0]} of a recorded value returns a {type(result).__name__}")
        return result
    y = wrapped
    ids = <int64_t *>fg_malloc((count + 1) * 8)
    if ids == NULL:
        raise MemoryError()
    try:
        ids[0] = 0
        for i in range(count):
            ids[i + 1] = (<Tensor>operands[i]).id
        attr = attr_new(count + 1, ids, attribute)
        try:
            n = node_append(tape, &id)
        except BaseException:
            attr_release(attr)
            raise
        for i in range(count):
            node_at(<uint32_t>ids[i + 1]).refs += 1
    finally:
        fg_free(ids)
    made = y.node
    node_set(n, FG_call, made.dtype, made.rank, 0, FG_NO_ID, FG_NO_ID, FG_NO_ID)
    n.attr = attr
    n.constant = 0
    n.re = made.re
    n.im = made.im                  # (also the whole number of an integer)
    if made.rank:
        n.shape = shape_ref(made.shape)
        n.value = value_ref(made.value)
    t = tensor_new(id, n, tape)
    return point_made(t) if PyArray_Check(result) else t


def derive(name, function, args, kwargs):
    """`function` on the values of Tensors among the arguments, as Tensors without derivative.

    name : str or None
        What programs call it (fastgrad/graphs/replay.py); None: no program can.
    """
    return derived(name, function, args, kwargs)


def vouch(array):
    """Tell a recording that the contents of an array are the same at each run."""
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).vouch(array)
    return array


def by_value(x):
    """Tell a recording that the contents of an array, or of arrays in a sequence, are used as they
    are now: they must be the same at each run."""
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).freeze(x)


def known_array(a):
    """The Tensor that stands for an array while a program is recorded, or None."""
    return (<Recorder>mode().recorder).array_operand(a) if mode().recorder != NULL else None


def recording_program():
    """Whether a function is being recorded for a program."""
    return mode().recorder != NULL


def decides_for_others(flag):
    """Whether a value was computed from the arguments of a lane or a step, which stands for others
    that may have another."""
    if type(flag) is not Tensor:
        return False
    cdef void *r = mode().recorder
    while r != NULL:
        if (<Recorder>r).known is None and (<Recorder>r).gave(<Tensor>flag):
            return True
        r = (<Recorder>r).outer
    return False


def unreplayable(str why):
    """Tell a recording, if there is one, why it must not be replayed."""
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).refuse(why)


cdef object SLOT = None             # fastgrad.graphs.graph.Slot


def use_slots(kind):
    """Tell what stands for operands in the indices and arguments of a graph."""
    global SLOT
    SLOT = kind


def settle_plain(y):
    """A result of a recorded function as the plain function would have returned it."""
    cdef Unseen unseen = Unseen()
    try:
        return settle(y)
    finally:
        unseen.end()


# ---- from the tape to rows ------------------------------------------------------------------

@cython.final
cdef class Extraction:
    """A graph under construction."""
    cdef Recorder recorder
    cdef FgGraphNode *nodes
    cdef int64_t count, size
    cdef dict numbers               # by id
    cdef list operands, shapes, attrs
    cdef dict shape_at
    cdef list looked                # what constants that were computed from leaves depend on
    cdef FgShape *last_shape
    cdef uint32_t last_shape_number

    def __dealloc__(self):
        fg_free(self.nodes)

    cdef int begin(self, Recorder r) except -1:
        self.recorder = r
        self.numbers, self.operands, self.shapes, self.attrs = {}, [], [()], [None]
        self.shape_at = {(): 0}
        self.looked = []
        for id, place in sorted(r.inputs.items(), key=second):
            self.input(<uint32_t>id, place)
        return 0

    cdef int finish(self) except -1:
        """Inputs that were found late."""
        for id, place in sorted(self.recorder.inputs.items(), key=second):
            if id not in self.numbers:
                self.input(<uint32_t>id, place)
        return 0

    cdef int looked_check(self) except -1:
        """Constants of a history must not be values of its inputs."""
        cdef FgNode *n
        for id in self.recorder.inputs:
            n = node_at(<uint32_t>id)
            for reach in self.looked:
                if n.flags & FG_NEEDS_GRAD and fg_reach_meets(<uint32_t>reach, reach_of(n)):
                    raise RuntimeError(
                        "function: a constant of this history was computed from its inputs without "
                        "a derivative (by a comparison, np.sign, .detach()), and would keep its "
                        "value; record the function with fg.compile, or write .item() where a "
                        "number is to stay as it is")
        return 0

    cdef FgGraphNode *new(self, FgNode *n) except NULL:
        """One row more, for a node of that dtype and shape."""
        cdef void *grown
        cdef FgGraphNode *g
        if self.count == self.size:
            grown = fg_grown(self.nodes, &self.size, sizeof(FgGraphNode))
            if grown == NULL:
                raise MemoryError()
            self.nodes = <FgGraphNode *>grown
        g = &self.nodes[self.count]
        memset(g, 0, sizeof(FgGraphNode))
        g.a = g.b = g.c = -1
        g.op = FG_leaf
        if n != NULL:
            g.dtype = n.dtype
            g.rank = n.rank
            if n.flags & FG_WEAK:
                g.flags = FG_GRAPH_WEAK
            if n.rank:
                g.shape = self.shape(n.shape)
        self.count += 1
        return g

    cdef uint32_t shape(self, FgShape *s) except? 0:
        if s == self.last_shape:
            return self.last_shape_number
        dims = dims_tuple(s.rank, s.dims)
        number = self.shape_at.get(dims)
        if number is None:
            number = self.shape_at[dims] = len(self.shapes)
            self.shapes.append(dims)
        self.last_shape = s
        self.last_shape_number = number
        return number

    cdef int input(self, uint32_t id, int64_t place) except -1:
        cdef FgGraphNode *g = self.new(node_at(id))
        g.flags |= FG_GRAPH_INPUT
        g.constant = <double>place
        self.numbers[id] = self.count - 1
        return 0

    cdef int64_t number(self, uint32_t id) except -1:
        """The row of a node."""
        number = self.numbers.get(id)
        if number is not None:
            return number
        cdef FgNode *n = node_at(id)
        cdef Recorder r = self.recorder
        if n.flags & FG_LEAF and (n.b == r.serial or n.handle == NULL):
            self.constant(n)
        elif not n.flags & FG_LEAF and r.own(id, n):
            self.add(id)
            return self.numbers[id]
        elif n.handle != NULL and r.capture(<Tensor>n.handle):
            self.input(id, r.inputs[id])
            return self.count - 1
        elif n.flags & FG_LEAF:
            self.constant(n)
        else:
            r.refuse("a Tensor that was recorded outside of it is used")
            self.constant(n)
        self.numbers[id] = self.count - 1
        return self.count - 1

    cdef int constant(self, FgNode *n) except -1:
        """A leaf with a value."""
        cdef FgGraphNode *g
        if n.flags & FG_LEAF and n.attr and not n.flags & FG_NEEDS_GRAD:
            self.looked.append(n.attr)
        if n.rank == 0 and is_float(n.dtype):
            self.new(n).constant = n.re
            return 0
        a = np.array(value_ndarray(n.shape, n.value, n.dtype, False)) if n.rank and n.value != NULL \
            else np.asarray(scalar_python(n), dtype=dtypes[n.dtype])
        a.flags.writeable = False
        g = self.new(n)
        g.flags &= ~FG_GRAPH_WEAK
        g.attr = len(self.attrs)
        self.attrs.append(a)
        return 0

    cdef int32_t literal(self, FgNode *n, int k) except -1:
        """The inline constant of a node."""
        cdef FgGraphNode *g = self.new(NULL)
        cdef uint32_t other
        g.dtype = n.dtype
        g.constant = n.constant
        if n.op < FG_ELEMENTWISE_END and fg_op_info[n.op].props & FG_MASK and k == 2:
            g.dtype = FG_BOOL
            g.attr = len(self.attrs)
            self.attrs.append(np.asarray(n.constant != 0))
        elif n.op >= FG_ELEMENTWISE_END:
            other = n.b if k == 0 else n.a
            g.dtype = node_at(other).dtype
        if n.flags & (FG_WEAK | FG_LITERAL) and g.dtype == FG_FLOAT64:
            g.flags |= FG_GRAPH_WEAK
        return <int32_t>(self.count - 1)

    cdef int add(self, uint32_t id) except -1:
        """A recorded node."""
        cdef FgNode *n = node_at(id)
        cdef FgGraphNode *g
        cdef int32_t numbers[3]
        cdef int k
        cdef uint32_t x
        cdef object attribute = None
        cdef list many = None
        if n.op == FG_leaf or id in self.numbers:
            return 0
        if id in self.recorder.aliases:
            self.numbers[id] = self.number((<Argument>self.recorder.aliases[id]).id)
            return 0
        if n.op == FG_as_written and self.recorder.past and root_wanted(n):
            self.numbers[id] = self.number(n.a)
            return 0
        numbers[0] = numbers[1] = numbers[2] = -1
        if n.op < FG_COMPARE_END:
            for k in range(fg_op_info[n.op].arity):
                x = n.a if k == 0 else n.b if k == 1 else n.c
                if not x and not n.flags & (FG_CONST_A << k):
                    raise forgotten(n)
                numbers[k] = <int32_t>self.number(x) if x else self.literal(n, k)
        elif is_listed(n):
            many = []
            for k in range(1, attr_count(n.attr)):
                if attr_items(n.attr)[k] == 0:
                    raise forgotten(n)
                many.append(self.number(<uint32_t>attr_items(n.attr)[k]))
            if n.op == FG_call:
                attribute = attr_object(n.attr)
            elif n.op == FG_custom:
                attribute = getattr(attr_object(n.attr), "loop", None)
            elif node_at(<uint32_t>attr_items(n.attr)[1]).rank:
                attribute = <int64_t>attr_items(n.attr)[0]
        elif n.op == FG_result:
            numbers[0] = <int32_t>self.number(n.a)
        elif fg_op_info[n.op].props & FG_INDEXED:
            if not n.a or n.op == FG_assign and not n.b:
                raise forgotten(n)
            many = [self.number(n.a)]
            if n.op == FG_assign:
                many.append(self.number(n.b))
            attribute = self.index(graph_attribute(n), many)
        else:
            if n.a:
                numbers[0] = <int32_t>self.number(n.a)
            if n.b:
                numbers[1] = <int32_t>self.number(n.b)
            attribute = graph_attribute(n)
        if many is not None:
            numbers[0] = <int32_t>len(self.operands)
            numbers[1] = <int32_t>len(many)
            self.operands.extend(many)
        g = self.new(n)
        g.op = n.op
        g.a = numbers[0]
        g.b = numbers[1]
        g.c = numbers[2]
        if many is not None:
            g.flags |= FG_GRAPH_MANY
        if n.flags & FG_LITERAL:
            g.flags |= FG_GRAPH_LITERAL
        if derivative_stops(n):
            g.flags |= FG_GRAPH_STOP
        if n.op == FG_result:
            g.constant = n.index
        if attribute is not None:
            g.attr = len(self.attrs)
            self.attrs.append(attribute)
        self.numbers[id] = self.count - 1
        return 0

    cdef object index(self, object plain, list many):
        """An index with slots for what depends on inputs."""
        entry = self.recorder.indices.get(id(plain))
        if entry is None:
            return plain
        index = entry[1]
        if type(index) is tuple:
            return tuple([self.index_part(i, p, many) for i, p in zip(index, plain)])
        return self.index_part(index, plain, many)

    cdef object index_part(self, object i, object plain, list many):
        if isinstance(i, Tensor) and self.recorder.traced(<Tensor>i):
            many.append(self.number((<Tensor>i).id))
            return SLOT(len(many) - 1)
        return plain

    cdef object rows(self):
        cdef ndarray a = np.empty(self.count * sizeof(FgGraphNode), np.uint8)
        if self.count:
            memcpy(PyArray_DATA(a), self.nodes, self.count * sizeof(FgGraphNode))
        return a
