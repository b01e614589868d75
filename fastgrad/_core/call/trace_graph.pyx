"""A Trace as a graph of Python objects, and the commonest jvp."""

Node = namedtuple("Node", "op operands value shape dtype attribute tie", defaults=(None, 0.5))
Node.__doc__ = """One recorded operation, for code that reads a graph.

op : name of its row, "argument", or "constant".
operands : numbers of nodes.
value : ndarray or float; None where it was freed.
attribute : shaped operators: axes, index, ...; for "sum" the reduced axes.
tie : element-wise operators with ties: the weight of one.
"""


cdef object graph_nodes(Trace trace):
    cdef Subgraph g = trace.subgraph()
    cdef list nodes = []
    cdef dict number = {}
    cdef int64_t i
    cdef int k
    cdef FgNode *n
    cdef uint32_t id, x
    cdef list operands
    for a in trace.inputs:
        id = (<Argument>a).id
        if id not in number:
            number[id] = len(nodes)
        nodes.append(graph_leaf("argument", (<Argument>a).node))
    for i in range(g.count - 1, -1, -1):
        id = g.ids[i]
        if id in number:
            continue
        n = node_at(id)
        if n.op == FG_dual or n.op == FG_leaf:
            continue
        operands = []
        for k in range(operand_count(n) if n.op >= FG_ELEMENTWISE_END else fg_op_info[n.op].arity):
            x = operand_at(n, k)
            if x and x in number:
                operands.append(number[x])
                continue
            if not x and n.op >= FG_ELEMENTWISE_END and not is_listed(n) and not (
                    n.op == FG_assign and k < 2):
                continue
            operands.append(len(nodes))
            if x:
                nodes.append(graph_leaf("constant", node_at(x)))
            elif n.op < FG_ELEMENTWISE_END and n.flags & (FG_CONST_A << k):
                nodes.append(Node("constant", (), n.constant, (), dtypes[n.dtype]))
            else:
                nodes.append(Node("constant", (), None, None, dtypes[n.dtype]))
        number[id] = len(nodes)
        nodes.append(Node(fg_op_info[n.op].name.decode(), tuple(operands), graph_value(n),
                          tensor_dims(n), dtypes[n.dtype], graph_attribute(n),
                          0.0 if n.flags & FG_LITERAL else 0.5))
    return nodes, [number.get((<Argument>y).id) if y is not None else None for y in trace.ends]


cdef object graph_leaf(str op, FgNode *n):
    return Node(op, (), graph_value(n), tensor_dims(n), dtypes[n.dtype])


cdef object graph_value(FgNode *n):
    if n.rank == 0:
        return scalar_python(n)
    if n.value == NULL:
        return None
    a = value_ndarray(n.shape, n.value, n.dtype, False)
    a.flags.writeable = False
    return a


def partial_formulas(name):
    """The steps of each partial of an element-wise operator, for code that reads a graph.

    A tuple with one entry for each operand: ``(steps, result)``, where a step is ``(name,
    sources)``; a source, and the result, is "a", "b", "c", "y", "tie", a float, or the number of
    a step.
    """
    cdef int op = row_number(name)
    cdef int which, i, k
    cdef Formula *f
    cdef list answer = []
    if op >= FG_ELEMENTWISE_END:
        raise KeyError(f"partial_formulas: {name} has no partials")
    for which in range(fg_op_info[op].arity):
        f = formula_of(op, which)
        if f.kind == PARTIAL_ZERO:
            answer.append(((), 0.0))
            continue
        steps = []
        for i in range(f.steps):
            steps.append((fg_op_info[f.step[i].op].name.decode(),
                          tuple([source_name(f.step[i].source[k], f.step[i].number[k])
                                 for k in range(f.step[i].arity)])))
        answer.append((tuple(steps), source_name(f.result, f.number)))
    return tuple(answer)


cdef object source_name(int source, double number):
    if source <= FROM_TIE:
        return ("a", "b", "c", "y", "tie")[source]
    if source == FROM_NUMBER:
        return number
    return source - FROM_STEP


def nested():
    """Whether a function is being transformed around this call."""
    return mode().depth > 0


def settled(value):
    """A value without Tensors outside of every transformation, as it is inside one."""
    return value if mode().depth else settle(value)


def tangent_for(tangent, primal):
    """A tangent as a Tensor of the dtype of what it belongs to."""
    dtype = np.dtype(getattr(primal, "dtype", np.float64))
    if not is_float(dtype.num):
        return scalar_constant(0, FG_FLOAT64, 0)        # the argument will be refused
    return tensor_constant(np.array(tangent, dtype=dtype))


# ---- the commonest jvp ----------------------------------------------------------------------

def streamed(str name, f, x, v, dict kwargs, bint warn):
    """Value and derivative of f at a float or an array along a direction of the same shape and
    dtype, outside of everything; None where that does not apply."""
    cdef FgTape *tape
    cdef Tensor argument, t, y
    cdef object result, value, answer
    cdef bint reached = False
    cdef uint32_t refusals = mode().refusals
    global streams
    if mode().depth or not get_recording() or type(x) is not type(v):
        return None
    if type(x) is np_ndarray:
        if (not is_float(PyArray_TYPE(x)) or PyArray_TYPE(x) != PyArray_TYPE(v) or not PyArray_NDIM(x)
                or x.shape != v.shape):
            return None
    elif type(x) is not float:
        return None
    tape = tape_of_thread()
    argument = argument_leaf(x, f"{name}: argument 0")
    t = tensor_constant(v.copy()) if type(x) is np_ndarray else scalar_constant(v, FG_FLOAT64, 0)
    streams += 1
    tape.stream = streams
    argument = dual_new(argument, t)
    t = None
    tape.streamed = directory[argument.id >> FG_SEGMENT_BITS].sequence
    tape.stream_bytes = 0
    tape.stream_reach = reach_of(argument.node)
    mode().depth = 1
    tape.streaming = 1
    try:
        try:
            result = f(argument, **kwargs) if kwargs else f(argument)
        except ValueError as error:
            raise_refused(error)
            raise
        argument = None
        if mode().refusals != refusals:
            warn_caught(f"{name} of {_arguments.name_of(f)}")
        check_results(name, result)
        stream_flush(tape, True)
        value = settle(result)
        answer = streamed_tangent(tape, result, value, &reached)
    finally:
        tape.streaming = 0
        mode().depth = 0
        mode().not_recording = 0
    if not reached and warn:
        warn_independent(f"{name} of {_arguments.name_of(f)}")
    return value, answer


cdef object wrong_result(str text):
    """The error of what a transformation does not take from its function, compiled or not."""
    error = TypeError(text)
    error.refused = "inside"
    return error


def check_results(str name, result):
    """Complain of what a function returned unless it is a tree of real numbers and arrays; views
    among them follow their parents."""
    if not check_result(name, result):
        what = "None" if result is None else f"a {type(result).__name__} without numbers"
        raise wrong_result(f"{name}: the function returned {what}; it must return numbers, arrays, "
                           "or tuples, lists and dicts of them")


cdef bint check_result(str name, object y) except -1:
    """The same for a part of it; whether there is a leaf in it."""
    cdef bint found = False
    if isinstance(y, Tensor):
        (<Tensor>y).fresh()             # while a stream still runs
        return True
    if isinstance(y, (float, int)):
        return True
    if PyArray_Check(y) or isinstance(y, np_generic):
        if array_kind(y) is not None:
            raise wrong_result(f"{name}: the function returned a {type(y).__name__}; "
                               f"{array_kind(y)}")
        if y.dtype.kind not in "fiub":
            raise wrong_result(f"{name}: the function returned an array of dtype {y.dtype}, which has "
                               "no derivative; it must return real numbers")
        return True
    children = children_of(y)
    if children is None:
        raise wrong_result(f"{name}: the function must return numbers, arrays, or tuples, lists and "
                           f"dicts of them, not {type(y).__name__}")
    descend()
    try:
        for x in children:
            found = check_result(name, x) or found
    finally:
        ascend()
    return found


cdef object streamed_tangent(FgTape *tape, object result, object value, bint *reached):
    """The tangents of what a function returned, built alike; `value` is the same without Tensors."""
    cdef Tensor y
    cdef FgAdjoint *t
    if isinstance(result, Tensor):
        y = <Tensor>result
        y.fresh()
        if is_float(y.node.dtype):
            t = stream_tangent(tape, y.id) if y.tape == tape else NULL
            if t != NULL and not y.node.flags & FG_STEPPED:
                reached[0] = True
            if y.node.rank == 0:
                number = 0.0 if t == NULL else second_settled(y.node, t.number)
                return number if y.node.flags & FG_WEAK else dtypes[y.node.dtype].type(number)
            if t != NULL and y.node.index:
                return np.array(second_settled(y.node, value_ndarray(y.node.shape, t.value,
                                                                    y.node.dtype, False)))
            if t != NULL:
                return result_ndarray(y.node.shape, t.value, y.node.dtype) if value_unique(t.value) \
                    and t.value.refs == 1 else np.array(value_ndarray(y.node.shape, t.value,
                                                                      y.node.dtype, False))
        return zeros_for(value)
    branch = None if is_leaf_type(result) else _trees.open_branch(result)
    if branch is None:
        return zeros_for(value)
    descend()
    try:
        return _trees.close_branch(branch, [
            streamed_tangent(tape, x, y_, reached)
            for x, y_ in zip(branch.children, _trees.open_branch(value).children)])
    finally:
        ascend()


def zeros_for(value):
    """The derivative of a plain value that depends on nothing: of its shape, kind and dtype, or
    float64 where that has no derivative."""
    if isinstance(value, Tensor):
        return np.zeros(value.shape) if value.ndim else 0.0
    if not (PyArray_Check(value) or isinstance(value, np_generic)):
        return 0.0
    dtype = value.dtype if is_float(value.dtype.num) else np.float64
    return np.zeros(value.shape, dtype) if PyArray_Check(value) else np.dtype(dtype).type(0)
