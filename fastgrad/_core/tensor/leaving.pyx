"""Values that leave: what keeps its derivative, what is handed out, what is refused."""

cdef bint compiled_alone():
    """Whether all that goes on around this call is recording for programs: nothing is
    differentiated or mapped, and a value that leaves loses no derivative."""
    cdef int depth = mode().depth
    cdef void *r = mode().recorder
    while r != NULL and (<Recorder>r).plain and depth == (<Recorder>r).depth + 1:
        depth -= 1
        r = (<Recorder>r).outer
    return depth == 0


cdef bint of_programs_alone(Tensor t) except -1:
    """Whether the value depends on what a program is given and on no argument of a transformation
    that goes on inside it: an array to the plain function, whose value may leave."""
    cdef Recorder r
    if compiled_alone():
        return True
    r = maker_of(t)
    if r is None or not r.plain or r.known is None:
        return False
    return not (depends(t.id) if t.node.flags & FG_NEEDS_GRAD else comes_of_arguments(t.id))


cdef Recorder maker_of(Tensor t):
    """The innermost recording of those that go on by whose arguments the value varies: to lanes and
    steps inside of that it is always the same. The outermost, where it varies by none."""
    cdef void *r = mode().recorder
    while r != NULL and (<Recorder>r).outer != NULL and not (<Recorder>r).gave(t):
        r = (<Recorder>r).outer
    return None if r == NULL else <Recorder>r


cdef bint comes_of_arguments(uint32_t id) except -1:
    """The same as `depends` of a recorded value without derivative: an index, a comparison, what
    was detached."""
    cdef FgNode *n
    cdef list rest = [id]
    cdef set seen = set()
    while rest:
        id = rest.pop()
        if id in seen or id == FG_NO_ID:
            continue
        seen.add(id)
        n = node_at(id)
        if n.flags & FG_NEEDS_GRAD:
            if depends(id):
                return True
        elif n.op == FG_dual or n.flags & FG_CONSUMED:
            return True
        elif not n.flags & FG_LEAF:
            rest += sources_of(n)
    return False


cdef inline bint keeps_derivative(Tensor t) except -1:
    """Whether a floating value depends on an argument of a function that is being differentiated or
    mapped: as a Python number it would lose a derivative."""
    if not get_recording():
        return False
    if mode().depth == 0:
        # Another thread's may belong to a transformation that runs there.
        if ((t.tape == NULL or t.tape != get_thread_tape()) and t.node.flags & FG_NEEDS_GRAD
                and is_float(t.node.dtype) and depends(t.id)):
            if t.tape != NULL:
                raise thread_error(t.tape)
            if not t.node.flags & FG_CONSUMED and t.node.c not in (0, thread_mark()):
                raise RuntimeError(
                    "fastgrad: an argument of a function that another thread transforms is used in "
                    f"thread {PyThread_get_thread_ident():#x}; pass `.detach()` of it")
        return False
    t.fresh()
    if not t.node.flags & FG_NEEDS_GRAD or not is_float(t.node.dtype) or compiled_alone():
        return False
    return depends(t.id) and not by_steps_alone(t.id)


def number_method(str name):
    """A method of Python's numbers that Tensors answer for: statistics and fractions ask."""
    def method(Tensor t):
        return getattr(t.number_for(name, ".detach() for the number alone"), name)()
    return method


NUMBER_METHODS = {name: number_method(name) for name in ("as_integer_ratio", "hex", "is_integer")}


cdef object item_of(Tensor self, object index):
    """t[index]."""
    cdef Operand x
    cdef Tensor y
    index = index_settled(index)
    operand_clear(&x)
    operand_tensor(self, &x)
    if x.shape != NULL and x.value == NULL:
        x.value = value_of(x.node, x.id)
    y = push_item(&x, index)
    if y.node.rank == 0:
        # NumPy makes a scalar, unless the index has dots: then a 0-d array that is a view.
        if PyLong_CheckExact(index) or not has_dots(index):
            return item_made(y, self, index) if y.node.flags & FG_LEAF else y
    if ((self.node.rank or is_point(self)) and not is_fancy(index) and (
            y.node.op == FG_item or y.node.op == FG_reshape or y.node.op == FG_gather
            or y.node.flags & FG_LEAF)):
        view_of(y, self, ("item", held_index(index)))
        return y
    return item_made(y, self, index) if y.node.flags & FG_LEAF else y


cdef object rounded(int op, Tensor t):
    """round(), math.floor() and their like: Python's give an int, with which one may index, count
    and shift, and so do these where no derivative is lost; else a Tensor of whole numbers."""
    cdef object result = unary(op, t)
    if (mode().recorder != NULL and t.node.rank == 0 and is_float(t.node.dtype)
            and t.node.flags & FG_NEEDS_GRAD and handed_out(t)):
        return whole_number(result)
    return result


cdef object whole_part(Tensor t):
    """int() of the value; infinity and NaN have none."""
    try:
        return int(tensor_value(t).item())
    except Exception as error:
        note_raised(error, t)
        raise


cdef object whole_number(Tensor t):
    """The integer that a value handed out is cut off to: a guard, if programs can compare it."""
    cdef object number = whole_part(t)
    if -9_000_000_000_000_000_000 < number < 9_000_000_000_000_000_000:
        return decided(t, "int", number)
    item_number(t, ())          # (which ends the recording)
    return number


cdef bint handed_out(Tensor t) except -1:
    """Whether the value may leave though the Tensor is recorded: it is what a program is given or
    comes of that alone, so that no derivative is lost; the recording is marked by whoever looks at the
    value. The user's own parameters are Tensors in the plain function as well. A step of a loop has
    no one value: its recording ends here, and it is recorded at each step."""
    cdef Recorder r = recorder()
    if r is None or (t.node.flags & (FG_LEAF | FG_NEEDS_GRAD | FG_ARGUMENT)
                     == FG_LEAF | FG_NEEDS_GRAD) or not of_programs_alone(t):
        return False
    if of_a_step(t):
        r = maker_of(t)
        r.refuse("the value of a Tensor leaves it as a number or an array")
        raise refused_as(Unrecordable("the value of a Tensor leaves a step that is recorded once"))
    return True


cdef int note_refusal(str why, bint refused) except -1:
    """What a Tensor does not do, the plain function may have done: the recording is marked, since
    the function may catch the error. `refused`: nothing has been done in its place."""
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).refuse(why)
        (<Recorder>mode().recorder).refused += refused
    return 0


cdef int note_raised(object error, object operands) except -1:
    """What operands hold has led to an error, which the function may catch: other values may not. Of a
    lane or a step it is that of one among others."""
    if mode().recorder == NULL or isinstance(error, Unrecordable):
        return 0
    (<Recorder>mode().recorder).refuse(f"it meets an error that depends on values: {error}")
    if of_a_step(operands):
        raise refused_as(Unrecordable("one step among others meets an error")) from error
    return 0


def mark_raised(error, operands):
    """`note_raised`, of a function that is written in Python."""
    note_raised(error, operands)


cdef object settled_type(Tensor t):
    """What stands in the plain function in place of the Tensor."""
    return (float if t.node.flags & FG_WEAK and is_float(t.node.dtype) else np_ndarray
            if t.node.rank or is_point(t) else dtypes[t.node.dtype].type)


cdef object settled_value(Tensor t):
    """The value as the plain function has it."""
    cdef object a
    if t.node.flags & FG_WEAK and is_float(t.node.dtype):
        return item_number(t, ())
    a = tensor_ndarray(t)
    return a if t.node.rank or is_point(t) else a[()]


cdef bint values_serve(object args, object kwargs, object error=None) except -1:
    """Whether a function that has refused Tensors may be called with their values: `handed_out`. The
    error that said so is no refusal then."""
    cdef Recorder r = recorder()
    if r is None or not (hold_programs_alone(args) and hold_programs_alone(kwargs)):
        return False
    if of_a_step(tuple(args)) or of_a_step(tuple(kwargs.values())):
        r.refuse("a function is called that does not take Tensors in this way")
        raise refused_as(Unrecordable("a step calls a function that does not take Tensors so"))
    if getattr(error, "refused", False) is True:
        r.refused -= 1
    return True


cdef bint of_a_step(object x) except -1:
    """Whether a value, or one in tuples and lists, is that of one lane or step among others."""
    cdef Recorder r
    if type(x) is list or type(x) is tuple:
        for y in x:
            if of_a_step(y):
                return True
        return False
    if not isinstance(x, Tensor):
        return False
    r = maker_of(<Tensor>x)
    return r is not None and r.known is None and r.traced(<Tensor>x)


cdef bint hold_programs_alone(object tree) except -1:
    """`of_programs_alone` of all Tensors in tuples, lists and dictionaries of arguments."""
    if type(tree) is tuple or type(tree) is list or type(tree) is dict:
        descend()
        try:
            for x in (tree.values() if type(tree) is dict else tree):
                if not hold_programs_alone(x):
                    return False
        finally:
            ascend()
        return True
    return not isinstance(tree, Tensor) or of_programs_alone(<Tensor>tree)


cdef object called_on_values(object function, object args, object kwargs):
    """What it returns, or raises, in the plain function; what it raises marks no recording, but the
    error itself: nobody needs to call the plain function to see whether it raises one. What it has
    written to an array is written to the Tensor."""
    cdef dict given = {}
    cdef object result
    try:
        result = function(*[handed_value(x, given) for x in args],
                          **{key: handed_value(x, given) for key, x in kwargs.items()})
    except Exception as error:
        error.of_values = True
        note_raised(error, args)
        raise
    note_refusal(f"{getattr(function, '__name__', 'a function')} of a recorded value is used", False)
    # (All are compared before one is written: views of each other would look changed.)
    for t, a in [(t, a) for t, a in given.values()
                 if a.tobytes() != tensor_value(<Tensor>t).tobytes()]:
        t[...] = a
    for t, a in given.values():
        if result is a:
            return t
    return result


cdef object method_of_values(Tensor t, str name):
    """A method of arrays that may write to what it is a method of: `t.sort()`."""
    def method(*args, **kwargs):
        if not values_serve((t, *args), kwargs):
            raise refused_as(AttributeError(f"Tensor has no attribute {name!r}"))
        return called_on_values(getattr(np_ndarray, name), (t, *args), kwargs)
    return method


cdef object served_method(Tensor t, str name, object method):
    """A method, and that of arrays where it writes: `t.clip(0, 1, out=t)`."""
    def served(*args, **kwargs):
        try:
            return method(t, *args, **kwargs)
        except (TypeError, ValueError, NotImplementedError) as error:
            if (kwargs.get("out") is None and not holds_array(args)
                    or not values_serve((t, *args), kwargs, error)):
                raise
        return called_on_values(getattr(np_ndarray, name), (t, *args), kwargs)
    return served


cdef bint holds_array(tuple args):
    """Whether one may be what a method writes to: `t.clip(0, 1, out)`."""
    for x in args:
        if PyArray_Check(x) or isinstance(x, Tensor):
            return True
    return False


cdef object handed_value(object x, dict given=None):
    """The value of a Tensor, also in tuples and lists, as the plain function has it; no recording
    is marked. With `given`, arrays are copies that may be written to: id -> Tensor, copy."""
    if isinstance(x, Tensor):
        if settled_type(<Tensor>x) is np_ndarray:
            if given is None:
                return tensor_value(<Tensor>x)
            if id(x) not in given:
                given[id(x)] = x, np.array(tensor_value(<Tensor>x))
            return given[id(x)][1]
        a = tensor_value(<Tensor>x)
        return a.item() if settled_type(<Tensor>x) is float else a[()]
    if type(x) is tuple or type(x) is list:
        descend()
        try:
            return type(x)([handed_value(y, given) for y in x])
        finally:
            ascend()
    return x


cdef struct Visit:
    uint32_t id
    int next                    # the operand to look at next

cdef int64_t depends_visited = 0    # nodes that were looked at (for tests)


cdef inline int dependence(uint32_t id) noexcept:
    """1: on an argument of a transformation; 0: on none; -1: its operands have to be asked."""
    cdef FgNode *n = node_at(id)
    if not n.flags & FG_NEEDS_GRAD:
        return 0
    if n.flags & FG_LEAF or n.flags & FG_CONSUMED:
        return (n.flags & FG_INSIDE != 0 if n.flags & FG_CONSUMED else
                (n.flags & (FG_ARGUMENT | FG_PROGRAM)) == FG_ARGUMENT)
    if n.op == FG_dual or n.flags & FG_INSIDE:
        return 1
    if n.flags & FG_OUTSIDE and not n.flags & FG_PENDING:
        return 0
    return -1


cdef bint depends(uint32_t id) except -1:
    """Whether a recorded node depends on an argument of a transformation. The answer stays with
    every node that was asked on the way, so that a loop that asks for each of its results looks at
    each node once."""
    global depends_visited
    cdef Visit *stack = NULL
    cdef int64_t size = 0, count = 0
    cdef int known = dependence(id)
    cdef FgNode *n
    cdef uint32_t x
    if known >= 0:
        return known
    try:
        visit_push(&stack, &count, &size, id)
        while count:
            n = node_at(stack[count - 1].id)
            if stack[count - 1].next == operand_count(n):
                if not n.flags & FG_PENDING:
                    n.flags |= FG_OUTSIDE
                count -= 1
                continue
            x = operand_at(n, stack[count - 1].next)
            stack[count - 1].next += 1
            known = dependence(x) if x else 0
            if known == 0:
                continue
            if known < 0:
                visit_push(&stack, &count, &size, x)
                continue
            depends_visited += count
            while count:
                node_at(stack[count - 1].id).flags |= FG_INSIDE
                count -= 1
            return True
        return False
    finally:
        fg_free(stack)


cdef bint by_steps_alone(uint32_t id) except -1:
    """Whether each path from a recorded value to what it depends on goes through a step (floor,
    sign): the derivative is zero by statement, and the value may leave as a number."""
    cdef FgTape *tape = directory[id >> FG_SEGMENT_BITS].tape
    cdef FgNode *n
    cdef list rest = [id]
    cdef set seen = set()
    cdef int k
    if tape == NULL or not tape.steps:
        return False
    while rest:
        id = rest.pop()
        n = node_at(id)
        if id == FG_NO_ID or id in seen or not n.flags & FG_NEEDS_GRAD or not is_float(n.dtype):
            continue
        seen.add(id)
        if n.op < FG_ELEMENTWISE_END and fg_op_info[n.op].props & FG_STEPS:
            continue
        if n.flags & (FG_LEAF | FG_CONSUMED) or n.op == FG_dual and not n.flags & FG_STEPPED:
            return False
        for k in range(operand_count(n)):
            rest.append(operand_at(n, k))
    return True


cdef inline bint loses(Tensor t) except -1:
    """Whether the value alone, a number or an array, would lose a derivative."""
    return (t.node.flags & FG_NEEDS_GRAD and is_float(t.node.dtype)
            and not by_steps_alone(t.id))


cdef int visit_push(Visit **stack, int64_t *count, int64_t *size, uint32_t id) except -1:
    global depends_visited
    cdef void *grown
    depends_visited += 1
    if count[0] == size[0]:
        grown = fg_grown(stack[0], size, sizeof(Visit))
        if grown == NULL:
            raise MemoryError()
        stack[0] = <Visit *>grown
    stack[0][count[0]].id = id
    stack[0][count[0]].next = 0
    count[0] += 1
    return 0


def asked():
    """How many nodes were looked at to learn whether they depend on an argument (for tests)."""
    return depends_visited


cdef Tensor as_number(Tensor t):
    """A 0-d Tensor that nobody else has as one that stands for a Python float."""
    if t.node.dtype != FG_FLOAT64:
        t = cast(t, np.float64)
    t.node.flags |= FG_WEAK
    return t


cdef object item_recorded(Tensor t, tuple index):
    """`item` of what keeps its derivative."""
    cdef object i
    if not index:
        if t.node.rank == 0:
            return as_number(unary(FG_positive, t))
        if t.node.shape.size != 1:
            raise ValueError(f"item: a Tensor of shape {t.shape} is not one number; write "
                             ".item(i) or .tolist()")
        return as_number(reshape_tensor(t, ()))
    if len(index) == 1 and type(index[0]) is tuple:
        index = index[0]
    index = tuple([index_of(i) for i in index])
    np.broadcast_to(np.int8(0), t.shape).item(*index)       # complains as NumPy does
    if len(index) == 1 and t.node.rank != 1:
        i = index[0]
        index = tuple([int(k) for k in np.unravel_index(i + t.size if i < 0 else i, t.shape)])
    if not index:
        return as_number(unary(FG_positive, t))
    return as_number(t[index])


cdef object list_recorded(Tensor t):
    """`tolist` of what keeps its derivative."""
    cdef int64_t i
    if t.node.rank == 0:
        return as_number(unary(FG_positive, t))
    if t.node.rank == 1:
        return [as_number(t[i]) for i in range(t.node.shape.dims[0])]
    return [list_recorded(t[i]) for i in range(t.node.shape.dims[0])]


cdef Py_hash_t hash_inside(Tensor t) except? -1:
    """hash() while a function is transformed: Python's numbers and NumPy's are found by their
    value, a Tensor would be found by what it is. The user's own stay what they are, and what is
    computed from them with a derivative."""
    cdef bint inside, plain
    t.fresh()
    plain = not mode().lanes and of_programs_alone(t)
    if not t.node.flags & FG_NEEDS_GRAD:
        inside = not t.node.flags & FG_LEAF or t.node.c != 0
    elif plain:
        inside = t.node.flags & FG_ARGUMENT or (not t.node.flags & FG_LEAF
                                                and recorder().own(t.id, t.node))
    else:
        inside = depends(t.id)
    if not inside:
        return <Py_ssize_t><void *>t >> 4
    if plain and handed_out(t):
        return hash(settled_value(t))
    if of_a_step(t) and maker_of(t).plain:      # which has a number, where steps are taken one by one
        maker_of(t).refuse("the value of a Tensor leaves it as a key")
        raise refused_as(Unrecordable("a step looks something up by a Tensor"))
    raise refused(
        f"hash(): a Tensor that is computed inside a transformation is found by what it is, not by "
        f"its value{user_line()}, so it is no key of a dict, a set, a Counter or a cache; write "
        ".detach().item() for the number, .detach().tolist() for a list of them")


cdef inline Tensor looked_noted(Tensor t, FgNode *n):
    """A value without derivative: it remembers which leaves it depends on."""
    cdef uint32_t reach = reach_looked(n)
    if (reach and reach != FG_REACH_NONE
            and (t.node.flags & (FG_NEEDS_GRAD | FG_LEAF)) == FG_LEAF):
        t.node.attr = reach if t.node.attr == 0 else fg_reach_both(reach, t.node.attr)
    return t


cdef object decided(Tensor t, str kind, object outcome):
    """What Python code does next depends on the value of t."""
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).guard(t, kind, outcome)
    else:
        decision_by(t, kind, outcome)
    return outcome


cdef Tensor item_made(Tensor y, Tensor x, object index):
    """An entry of what has no derivative remembers what it is one of."""
    if y.node.attr and made_wanted():
        made_put(y, made_new(MADE_ITEM, (made_operand(x), made_operand(index))))
    return y


cdef Tensor detached(Tensor t):
    """The same value without derivative, taken down for a program."""
    cdef Operand x
    cdef int flags = t.node.flags & FG_WEAK
    operand_clear(&x)
    operand_tensor(t, &x)
    if x.shape != NULL and x.value == NULL:
        x.value = value_of(x.node, x.id)
    t = push_reshape(&x, t.node.rank, t.node.shape.dims if t.node.rank else NULL)
    t.node.flags = <uint16_t>(t.node.flags & ~(FG_NEEDS_GRAD | FG_WEAK)
                              | (flags if t.node.rank == 0 else 0))
    return t
