# Included by program.pyx: loops, guards and ends of a graph, and the graph as a whole, checked.

cdef Plan check_inside(Checked c, int64_t i, str what, object graph, list operands):
    """A graph inside of node i takes what the node gives it: (dtype, shape) of each. Where c is to be
    planned, returns its plan."""
    cdef Checked inner
    cdef Plan plan = None
    if type(graph).__name__ != "Graph":
        raise c.fault(i, f"its {what} is no graph, but {graph!r}")
    if c.outside == NESTING_MAX:
        raise c.fault(i, f"loops are nested more than {NESTING_MAX} deep")
    if c.seen is None:
        plan = planned(graph, min(c.assumed, ASSUME_FINITE), c.outside + 1)
        inner = plan.source
        c.plans[plan] = None
    else:
        inner = validated(graph, c.look, c.seen, c.outside + 1)
        if graph.guards:
            raise c.fault(i, f"its {what} has guards")
    c.nesting = max(c.nesting, inner.nesting + 1)
    if c.nesting > NESTING_MAX:
        raise c.fault(i, f"loops are nested more than {NESTING_MAX} deep")
    c.unfolded += inner.unfolded
    if len(graph.inputs) != len(operands):
        raise c.fault(i, f"its {what} has {len(graph.inputs)} inputs, not {len(operands)}")
    for k, (dtype, shape) in enumerate(operands):
        x = graph.inputs[k]
        if graph.dtype(x) != dtype or graph.shape(x) != shape:
            raise c.fault(i, f"input {k} of its {what} is {graph.dtype(x)} of shape {graph.shape(x)}, "
                             f"not {dtype} of shape {shape}")
    return plan


cdef int check_loop(Checked c, int64_t i, object loop, int count) except -1:
    """A loop's graphs fit each other and the operands."""
    cdef FgLoop *made
    cdef int k
    cdef Plan body, condition = None
    numbers = [positive_int(x, "a count of a loop")
               for x in (loop.carries, loop.sequences, loop.constants)]
    if min(numbers) < 0 or sum(numbers) != count:
        raise c.fault(i, f"it has {count} operands, not {numbers} of its three kinds")
    if loop.kind not in ("scan", "while") or (loop.kind == "while") != (loop.condition is not None):
        raise c.fault(i, f"there is no loop of the kind {loop.kind!r}")
    carries, sequences, constants = numbers
    length = -1
    if loop.kind == "scan":
        length = positive_int(loop.length, "the length of a loop")
        if not 0 <= length < 1 << 40:
            raise c.fault(i, f"it has the length {length}")
    elif sequences:
        raise c.fault(i, "a while loop has no sequences")
    operands = []
    for k in range(count):
        x = operand(c, i, k)
        if c.nodes[x].op == FG_custom:
            raise c.fault(i, "a function of several results is no operand")
        shape = c.shape_tuples[c.nodes[x].shape]
        if carries <= k < carries + sequences:
            if not shape or shape[0] != length:
                raise c.fault(i, f"a sequence of shape {shape} has not {length} entries")
            shape = shape[1:]
        operands.append((dtypes[c.nodes[x].dtype], shape))
    if type(loop.reverse) is not bool:
        raise c.fault(i, "its direction is none")
    body = check_inside(c, i, "body", loop.body, operands)
    outputs = [(loop.body.dtype(x), loop.body.shape(x)) for x in loop.body.outputs]
    if outputs[:carries] != operands[:carries] or (
            loop.condition is not None and len(outputs) != carries):
        raise c.fault(i, f"its body makes {outputs} of the carries {operands[:carries]}")
    if loop.condition is not None:
        condition = check_inside(c, i, "condition", loop.condition, operands)
        y = [(loop.condition.dtype(x), loop.condition.shape(x)) for x in loop.condition.outputs]
        if len(y) != 1 or y[0][1] != () or y[0][0].kind not in "bf":
            raise c.fault(i, "its condition makes no single truth value")
    total = 0
    for dtype, shape in outputs:
        total += dtype.itemsize * int(np.prod((max(length, 2), *[max(d, 1) for d in shape]),
                                              dtype=object))
    if total >= 1 << 52:
        raise c.fault(i, "its results are larger than any memory")
    c.loops[i] = (outputs, carries, length)
    if c.seen is not None:
        return 0
    memory = np.zeros(sizeof(FgLoop), np.uint8)
    made = <FgLoop *>PyArray_DATA(<ndarray>memory)
    made.body, made.body_owner = body.plan, <void *>body
    if condition is not None:
        made.condition, made.condition_owner = condition.plan, <void *>condition
    made.carries, made.sequences, made.constants = carries, sequences, constants
    made.length = length
    made.reverse = loop.reverse
    made.scratch = fg_loop_scratch(made)
    c.kinds.append(FG_ATTR_LOOP)
    c.decoded.append(memory)
    return len(c.kinds) - 1


cdef int check_leaf(Checked c, int64_t i, object attr) except -1:
    cdef FgGraphNode *n = &c.nodes[i]
    n.attr = 0
    if n.flags & FG_GRAPH_MANY or n.a >= 0 or n.b >= 0 or n.c >= 0:
        raise c.fault(i, "a leaf has no operands")
    if n.flags & FG_GRAPH_INPUT:
        if not (0 <= n.constant < len(c.graph.inputs)) or n.constant != <int64_t>n.constant or \
                c.graph.inputs[<int64_t>n.constant] != i:
            raise c.fault(i, f"it is not input {n.constant}")
    elif attr is None:
        if n.rank or not (n.dtype == FG_FLOAT32 or n.dtype == FG_FLOAT64 or n.dtype == FG_BOOL):
            raise c.fault(i, "a constant that is no float needs an array")
        if n.dtype == FG_FLOAT32:
            n.constant = <float>n.constant
        elif n.dtype == FG_BOOL:
            n.constant = n.constant != 0
    else:
        if not isinstance(attr, np.ndarray) or attr.dtype != dtypes[n.dtype] or \
                attr.shape != c.shape_tuples[n.shape]:
            raise c.fault(i, f"its constant is no {dtypes[n.dtype]} array of shape "
                             f"{c.shape_tuples[n.shape]}")
        n.constant = 0
        n.attr = attribute_data(c, attr)
    return 0


cdef int check_guards(Checked c) except -1:
    cdef int64_t k
    cdef FgGuardRow *row
    guards = list(c.graph.guards)
    for k, guard in enumerate(guards):
        node = positive_int(guard.node, "the node of a guard")
        if not 0 <= node < c.source.count or c.nodes[node].op == FG_custom:
            raise ValueError(f"graph: guard {k}: there is no node {node}")
    assumed = assumptions(c, [guard.node for guard in guards])
    c.guards = <FgGuardRow *>fg_calloc(len(guards) + len(assumed) + 1, sizeof(FgGuardRow))
    if c.guards == NULL:
        raise MemoryError()
    for k, guard in enumerate(guards):
        row = &c.guards[k]
        node = guard.node
        if guard.kind not in kind_numbers:
            raise ValueError(f"graph: guard {k}: there is no kind {guard.kind!r}")
        row.node, row.kind = node, kind_numbers[guard.kind]
        if row.kind != FG_GUARD_COUNT and c.shapes[c.nodes[node].shape].size != 1:
            raise ValueError(f"graph: guard {k}: node {node} is no single value")
        if not isinstance(guard.outcome, (int, np.integer, np.bool_)):
            raise ValueError(f"graph: guard {k}: its outcome is {guard.outcome!r}")
        outcome = int(guard.outcome)
        if guard.kind == "all":
            if outcome != 1:
                raise ValueError(f"graph: guard {k}: its outcome is {guard.outcome!r}")
            outcome = c.shapes[c.nodes[node].shape].size
        if not -2**63 <= outcome < 2**63:
            raise ValueError(f"graph: guard {k}: its outcome is {outcome}")
        row.outcome = outcome
    for k, node in enumerate(assumed, len(guards)):
        guard_assumed(c, node, &c.guards[k])
    c.source.guards = c.guards
    c.source.guard_count = len(guards) + len(assumed)
    return 0


cdef object ends_checked(Checked c, list ends, str what):
    for x in ends:
        if not 0 <= positive_int(x, what) < c.source.count:
            raise ValueError(f"graph: {what}: there is no node {x}")
    return np.array(ends, dtype=np.int32)


cdef Checked checked(object graph, int assumed, int outside, object look=None, dict seen=None):
    """A graph in the planner's numbers; ValueError where it is malformed. `look` and `seen` are those
    of `validate`."""
    cdef Checked c = Checked.__new__(Checked)
    c.graph, c.assumed, c.outside, c.look, c.seen = graph, assumed, outside, look, seen
    c.open = None if seen is None else {}
    try:
        check_parts(c)
        return c
    except (TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        # Objects of other kinds than a graph has, wherever they stand.
        raise ValueError(f"graph: it is malformed: {type(error).__name__}: {error}") from error


cdef int check_parts(Checked c) except -1:
    cdef int64_t i
    cdef FgGraphNode *n
    graph = c.graph
    nodes = graph.nodes
    if type(nodes) is not np.ndarray or nodes.dtype.itemsize != sizeof(FgGraphNode) \
            or nodes.ndim != 1 or not PyArray_IS_C_CONTIGUOUS(nodes):
        raise ValueError("graph: its nodes are no array of fastgrad's nodes")
    if len(nodes) >= NODES_MAX:
        raise ValueError(f"graph: {len(nodes)} nodes are more than can be numbered")
    c.source.count = c.unfolded = len(nodes)
    c.nodes = <FgGraphNode *>fg_malloc((c.source.count + 1) * sizeof(FgGraphNode))
    if c.nodes == NULL:
        raise MemoryError()
    memcpy(c.nodes, PyArray_DATA(<ndarray>nodes), c.source.count * sizeof(FgGraphNode))
    c.operands = np.ascontiguousarray(graph.operands, dtype=np.int32)
    if c.operands.ndim != 1:
        raise ValueError("graph: the operands are no vector")
    c.source.operands = <const int32_t *>PyArray_DATA(<ndarray>c.operands)
    for i in range(c.source.count):
        n = &c.nodes[i]
        if n.op >= FG_OPS:
            raise c.fault(i, f"there is no operator {n.op}")
        if n.dtype > FG_FLOAT64:
            raise c.fault(i, f"there is no dtype {n.dtype} in a graph")
        n.flags &= FG_GRAPH_INPUT | FG_GRAPH_WEAK | FG_GRAPH_LITERAL | FG_GRAPH_MANY
    check_shapes(c)
    if len(graph.outputs) != len(graph.kinds):
        raise ValueError(f"graph: there are {len(graph.outputs)} outputs and {len(graph.kinds)} "
                         "kinds")
    for kind in graph.kinds:
        if kind not in ("float", "scalar", "array"):
            raise ValueError(f"graph: there is no kind of output {kind!r}")
    c.inputs = ends_checked(c, graph.inputs, "inputs")
    c.outputs = ends_checked(c, graph.outputs, "outputs")
    c.known, c.kinds, c.decoded, c.loops = {}, [FG_ATTR_NONE], [None], {}
    c.plans = {}
    attrs = graph.attrs
    cdef int64_t attr_count = len(attrs)
    for i in range(c.source.count):
        n = &c.nodes[i]
        if n.attr >= attr_count:
            raise c.fault(i, f"there is no attribute {n.attr}")
        if n.op < FG_COMPARE_END:
            n.attr = 0
            check_elementwise(c, i, op_table[n.op].arity)
        elif n.op == FG_leaf:
            check_leaf(c, i, attrs[n.attr] if n.attr else None)
        else:
            check_shaped(c, i, attrs[n.attr] if n.attr else None)
    for x in graph.inputs:
        if c.nodes[<int64_t>x].op != FG_leaf or not c.nodes[<int64_t>x].flags & FG_GRAPH_INPUT:
            raise ValueError(f"graph: inputs: node {x} is no input")
    for k, (x, kind) in enumerate(zip(graph.outputs, graph.kinds)):
        n = &c.nodes[<int64_t>x]
        if n.op == FG_custom or (kind != "array" and n.rank):
            raise ValueError(f"graph: output {k}: node {x} is no {kind}")
    check_guards(c)
    c.attributes = <FgAttribute *>fg_calloc(len(c.kinds) + 1, sizeof(FgAttribute))
    if c.attributes == NULL:
        raise MemoryError()
    for i in range(len(c.kinds)):
        c.attributes[i].kind = c.kinds[i]
        if c.decoded[i] is None:
            continue
        if c.kinds[i] == FG_ATTR_DATA or c.kinds[i] == FG_ATTR_LOOP or c.kinds[i] == FG_ATTR_ROWS:
            c.attributes[i].data = PyArray_DATA(<ndarray>c.decoded[i])
        elif c.kinds[i] != FG_ATTR_NONE:
            c.attributes[i].count = len(c.decoded[i])
            c.attributes[i].numbers = <const int64_t *>PyArray_DATA(<ndarray>c.decoded[i])
    c.source.nodes = c.nodes
    c.source.shapes = c.shapes
    c.source.shape_count = len(c.shape_tuples)
    c.source.attributes = c.attributes
    c.source.inputs = <const int32_t *>PyArray_DATA(<ndarray>c.inputs)
    c.source.outputs = <const int32_t *>PyArray_DATA(<ndarray>c.outputs)
    c.source.input_count = len(graph.inputs)
    c.source.output_count = len(graph.outputs)
    c.source.kernels = fg_vm_kernels[0]
    c.source.threads_from = 32768
    return 0


def validate(graph, look, dict seen not None):
    """Check a graph, and those of its loops, in every respect that planning and running rely on.

    Parameters
    ----------
    graph : Graph
    look : callable
        ``look(graph, nodes)`` is called for each graph, with those nodes of which NumPy computes what
        the planner knows nothing of: calls, and indices that are not its own.
    seen : dict
        What was checked before, which is not again; new ones are added.

    Raises
    ------
    ValueError
        Naming the node.
    """
    validated(graph, look, seen, 0)


cdef Checked validated(object graph, object look, dict seen, int outside):
    cdef Checked c = seen.get(id(graph))
    if c is not None:
        return c
    c = checked(graph, ASSUME_NOTHING, outside, look, seen)
    look(graph, list(c.open.values()))
    c.open = None
    seen[id(graph)] = c
    seen[None] = total = seen.get(None, 0) + c.source.count
    if c.unfolded > 20_000 + 10 * total:        # a run has memory for each
        raise ValueError(f"its loops share bodies so often that they unfold to {c.unfolded} operations")
    return c


tables_setup()
