"""The operators that are not element-wise: a table of what each does, and how a sweep asks it.

Element-wise operators need nothing here: their rows in ops.def say it all. Of the others, ops.def has
the name and the properties, and one file has each: its value, beside it how it hands its adjoint on,
and its tangent (moves.pyx, indices.pyx, gather.pyx, reductions.pyx, products.pyx, custom.pyx).
"""


# The sweep with numbers: to the adjoints of the operands is added what comes of the node's own, an
# array or a number. An array that is taken over is NULL afterwards.
ctypedef int (*Reverse)(Sweep *, FgNode *, uint32_t, FgValue **, double) except -1
# The same recorded: the cotangent of the one operand; with several, they are added to and None is
# returned.
ctypedef Tensor (*Pull)(Subgraph, FgNode *, uint32_t, Tensor)
# The tangent, from those of the operands (None: zero).
ctypedef Tensor (*Push)(FgNode *, uint32_t, list, Tensor)
# What the operation needs besides its operands, as Python writes it.
ctypedef object (*Attribute)(FgNode *)
# Which of A, B, Y the derivatives look at.
ctypedef unsigned int (*Reads)(FgNode *) noexcept

cdef struct ShapedRule:
    Reverse reverse
    Pull pull
    Push push
    Attribute attribute         # NULL: nothing
    Reads reads                 # NULL: nothing

cdef ShapedRule shaped_rules[FG_OPS]


cdef inline bint is_listed(FgNode *n) noexcept nogil:
    """Whether its operands stand in its attribute, any number of them."""
    return fg_op_info[n.op].props & FG_LISTED != 0


cdef inline unsigned int shaped_reads(FgNode *n) noexcept:
    return shaped_rules[n.op].reads(n) if shaped_rules[n.op].reads != NULL else 0


cdef object no_rule_of(FgNode *n, str mode):
    return NoDerivativeError(f"{fg_op_info[n.op].name.decode()}: there is no rule for its derivative "
                             f"in {mode}")


def forget_rule(name, rule):
    """Take a rule ("reverse", "pull" or "push") out of the table; returns what puts it back. For tests,
    which expect an error of every engine and never a zero."""
    cdef int op = [fg_op_info[k].name for k in range(FG_OPS)].index(name.encode())
    cdef ShapedRule before = shaped_rules[op]
    cdef ShapedRule *now = &shaped_rules[op]
    if rule == "reverse":
        now.reverse = NULL
    elif rule == "pull":
        now.pull = NULL
    elif rule == "push":
        now.push = NULL
    else:
        raise ValueError(f"forget_rule: rule={rule!r} is none of 'reverse', 'pull' and 'push'")

    def put_back():
        shaped_rules[op] = before
    return put_back


# ---- new nodes ------------------------------------------------------------------------------

cdef inline Tensor shaped_noted(Tensor t, Operand *x, Operand *y):
    """A result without derivative: it remembers which leaves it depends on."""
    if x != NULL:
        mask_noted(t, x, 1)
    if y != NULL and t.node.attr == 0:
        mask_noted(t, y, 1)
    return t


cdef Tensor push_shaped(int op, int dtype, int flags, FgShape *shape, FgValue *value, double number,
                        Operand *x, Operand *y, uint32_t attr, double constant):
    """A Tensor for the result of a shaped operator, recorded if an operand needs it. Takes over
    shape, value and attribute; a scalar result has neither shape nor value but a number."""
    cdef FgTape *tape
    cdef FgNode *n
    cdef uint32_t id, a = FG_NO_ID, b = FG_NO_ID
    cdef unsigned int reads
    cdef int64_t i
    cdef bint listed = fg_op_info[op].props & FG_LISTED != 0
    cdef bint product = fg_op_info[op].props & FG_BILINEAR != 0     # it needs both factors
    cdef bint needs = (x != NULL and x.needs) or (y != NULL and y.needs) or listed
    if not needs:
        if attr:
            attr_release(attr)
        return shaped_noted(scalar_constant(number, dtype, flags & FG_WEAK) if shape == NULL
                            else tensor_of_value(shape, value, dtype), x, y)
    try:
        tape = tape_of_thread()
        if y != NULL and not y.needs and product:
            if y.id and not is_literal(y):
                b = y.id
                y.node.refs += 1
            else:
                b = leaf_constant(y)
        elif y != NULL and y.needs and not is_literal(y):
            b = y.id
            y.node.refs += 1
        elif y != NULL and get_keeping():
            b = leaf_constant(y)
        if x != NULL and not x.needs and product:
            if x.id and not is_literal(x):
                a = x.id
                x.node.refs += 1
            else:
                a = leaf_constant(x)
        elif x != NULL and x.needs and not is_literal(x):
            a = x.id
            x.node.refs += 1
        elif x != NULL and get_keeping():
            a = leaf_constant(x)
        n = node_append(tape, &id)
    except BaseException:
        if a:
            node_drop(a)
        if b:
            node_drop(b)
        if listed:
            for i in range(1, attr_count(attr)):
                if attr_items(attr)[i]:
                    node_drop(<uint32_t>attr_items(attr)[i])
        if shape != NULL:
            shape_release(shape)
            value_release(value)
        if attr:
            attr_release(attr)
        raise
    node_set(n, op, dtype, shape.rank if shape != NULL else 0, flags, a, b, FG_NO_ID)
    n.attr = attr
    n.constant = constant
    if shape != NULL:
        n.shape = shape
        n.value = value
    else:
        n.re = number
    reads = shaped_reads(n)
    if reads & FG_A:
        node_at(n.a).uses += 1
    if reads & FG_B:
        node_at(n.b).uses += 1
    if reads & FG_Y:
        n.flags |= FG_READS_SELF
        n.uses += 1
    return tensor_noted(tensor_new(id, n, tape))


cdef Tensor push_kept(int op, Operand *x, FgShape *shape, FgValue *value, int64_t count,
                      const int64_t *items, object owner):
    """The same of one operand, with an attribute of those numbers and that object where it is
    recorded. Takes over shape and value."""
    cdef uint32_t attr = 0
    try:
        if x.needs:
            attr = attr_new(count, items, owner)
    except BaseException:
        shape_release(shape)
        value_release(value)
        raise
    return push_shaped(op, x.dtype, 0, shape, value, 0, x, NULL, attr, 0)


cdef FgValue *seen_as(Operand *x, char *data, FgShape *shape, int64_t *strides) except NULL:
    """A view of the operand's memory; where there is no memory for it, the shape is let go of."""
    try:
        return value_strided(x.value, data, shape, strides, item_size(x.dtype))
    except BaseException:
        shape_release(shape)
        raise


cdef inline bint is_literal(Operand *x):
    """Whether it is a leaf that a program holds as a constant, so that its value has to stay: a
    table, say, of which an entry is picked by a place that is none."""
    return (mode().recorder != NULL and x.node != NULL and x.node.flags & FG_LEAF != 0
            and not x.node.flags & FG_NEEDS_GRAD
            and x.id not in (<Recorder>mode().recorder).inputs)


cdef int operand_ready(object o, Operand *x) except -1:
    """An operand of a shaped operator, its value computed."""
    operand_of(o, x, False)
    if x.shape != NULL and x.value == NULL:
        x.value = value_of(x.node, x.id)
    return 0


cdef FgValue *number_value(double number, int dtype) except NULL:
    """One number that stands for a whole array."""
    cdef FgValue *v = pool_take(8)
    v.uniform = 1
    loops_of(dtype).fill(v.data, number, 1)
    return v


cdef inline double element(FgValue *v, int dtype) noexcept nogil:
    return (<double *>v.data)[0] if dtype == FG_FLOAT64 else (<float *>v.data)[0]


# ---- the sweeps -----------------------------------------------------------------------------

cdef int sweep_shaped(Sweep *s, FgNode *n, uint32_t id) except -1:
    """Hand the adjoint of a shaped node on to its operands."""
    cdef FgValue *g = NULL
    cdef double number = 0
    cdef Gathered *e
    cdef bint done = False, dual = n.op == FG_dual      # it has no operands to let go of
    n.refs += 1
    try:
        if n.rank:
            g = adjoint_slot(s, id).value
            adjoint_slot(s, id).value = NULL
        else:
            number = adjoint_slot(s, id).number
        if n.flags & (FG_WANTED | FG_RETAINED):
            e = gathered_new(s, id)
            if n.rank:
                e.adjoint.value = value_ref(g)
            else:
                e.adjoint.number = number
        if dual:
            pass
        elif shaped_rules[n.op].reverse == NULL:
            raise no_rule_of(n, "reverse mode")
        elif is_listed(n) or n.a and wanted(s, n.a) or n.b and wanted(s, n.b):
            shaped_rules[n.op].reverse(s, n, id, &g, number)
        done = True
    finally:
        n.refs -= 1
        if g != NULL:
            value_release(g)
        if n.refs == 0 and (s.retain or not done or dual):
            nodes_free(id)
    if not s.retain and not dual:
        consume(s, n, id)
    return 0


cdef int emit_shaped_reverse(Subgraph s, FgNode *n, uint32_t id, Tensor g) except -1:
    """The same recorded."""
    cdef Tensor t
    if shaped_rules[n.op].pull == NULL:
        raise no_rule_of(n, "reverse mode that could be recorded")
    if is_listed(n) or n.a and s.find(n.a) != NULL or n.b and s.find(n.b) != NULL:
        t = shaped_rules[n.op].pull(s, n, id, g)
        if t is not None:
            s.add(n.a, t)
    return 0


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
    if shaped_rules[n.op].push == NULL:
        raise no_rule_of(n, "forward mode")
    return shaped_rules[n.op].push(n, id, tangents, finite)


cdef object graph_attribute(FgNode *n):
    """What a shaped operation needs besides its operands."""
    return shaped_rules[n.op].attribute(n) if shaped_rules[n.op].attribute != NULL else None
