"""Partial derivatives as recorded operations: the formulas of the operator table, read as Python.

A sweep that is itself recorded cannot use the compiled partials; it needs operations that can be
differentiated again. The text of a partial is parsed once, when it is first needed, into a few
steps over rows of the same table. So the table stays the only list of formulas, and it is closed:
the partials of a partial are rows too.
"""

cdef enum:
    PARTIAL_UNREAD = 0
    PARTIAL_ZERO = 1
    PARTIAL_ONE = 2
    PARTIAL_MINUS = 3           # -1
    PARTIAL_STEPS = 4           # anything else
    PARTIAL_NONE = 5            # the operand is no path for a derivative

    FORMULA_STEPS = 16

    # Where a step, or the result, comes from.
    FROM_A = 0                  # and B, C
    FROM_Y = 3
    FROM_TIE = 4
    FROM_NUMBER = 5
    FROM_STEP = 6               # and the steps after the first


cdef struct FormulaStep:
    int op, arity
    int source[3]
    double number[3]


cdef struct Formula:
    int kind
    int steps
    int result                  # from where
    double number
    FormulaStep step[FORMULA_STEPS]


cdef Formula *formulas = NULL   # 3 * operator + operand


cdef int formulas_setup() except -1:
    global formulas
    formulas = <Formula *>fg_calloc(3 * FG_ELEMENTWISE_END, sizeof(Formula))
    if formulas == NULL:
        raise MemoryError()
    return 0


cdef Formula *formula_of(int op, int which) except NULL:
    """The partial of an element-wise operator with respect to one of its operands."""
    cdef Formula *f = &formulas[3 * op + which]
    cdef Formula own
    if f.kind == PARTIAL_UNREAD:
        formula_read(&own, op, which)
        f[0] = own              # whole: Python runs while it is read, in other threads, too
    return f


cdef int formula_read(Formula *f, int op, int which) except -1:
    import ast
    cdef const FgOpInfo *info = &fg_op_info[op]
    if info.props & FG_STEPS or (info.props & FG_MASK and which == 2):
        f.kind, f.steps, f.result, f.number = PARTIAL_ZERO, 0, FROM_NUMBER, 0
        return 0
    if info.props & FG_BESIDE and info.partial[which].decode().strip() == "K(0)":
        f.kind, f.steps, f.result, f.number = PARTIAL_NONE, 0, FROM_NUMBER, 0
        return 0
    f.steps = 0
    f.result = formula_part(f, ast.parse(info.partial[which].decode().strip(), mode="eval").body,
                            &f.number, info.partial[which].decode())
    f.kind = PARTIAL_STEPS
    if f.result == FROM_NUMBER and f.number == 0:
        f.kind = PARTIAL_ZERO
    elif f.result == FROM_NUMBER and f.number == 1:
        f.kind = PARTIAL_ONE
    elif f.result == FROM_NUMBER and f.number == -1:
        f.kind = PARTIAL_MINUS
    return 0


cdef int formula_part(Formula *f, object part, double *number, str text) except -1:
    """Append the steps of a part of a formula; tells where its value comes from."""
    import ast
    cdef int op, source
    cdef list operands
    number[0] = 0
    if isinstance(part, ast.Name):
        return {"a": FROM_A, "b": FROM_A + 1, "c": FROM_A + 2, "y": FROM_Y, "tie": FROM_TIE}[part.id]
    if isinstance(part, ast.Call) and part.func.id == "K":
        number[0] = ast.literal_eval(part.args[0])
        return FROM_NUMBER
    if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub):
        op, operands = FG_negative, [part.operand]
    elif isinstance(part, ast.BinOp):
        op = {ast.Add: FG_add, ast.Sub: FG_subtract, ast.Mult: FG_multiply,
              ast.Div: FG_divide}[type(part.op)]
        operands = [part.left, part.right]
    elif isinstance(part, ast.Call) and part.func.id[:3] == "fg_":
        op, operands = (<Row>functions[part.func.id[3:]].__self__).op, part.args
    else:
        raise SystemError(f"fastgrad: the formula {text!r} of the operator table cannot be read")
    return formula_step(f, op, operands, number, text)


cdef int formula_step(Formula *f, int op, list operands, double *number, str text) except -1:
    cdef int sources[3]
    cdef double numbers[3]
    cdef int k
    cdef int arity = <int>len(operands)
    cdef FormulaStep *step
    for k in range(arity):
        sources[k] = formula_part(f, operands[k], &numbers[k], text)
    if op == FG_negative and sources[0] == FROM_NUMBER:
        number[0] = -numbers[0]
        return FROM_NUMBER
    if f.steps == FORMULA_STEPS or arity != fg_op_info[op].arity:
        raise SystemError(f"fastgrad: the formula {text!r} of the operator table cannot be read")
    step = &f.step[f.steps]
    step.op = op
    step.arity = arity
    for k in range(arity):
        step.source[k] = sources[k]
        step.number[k] = numbers[k]
    f.steps += 1
    return FROM_STEP + f.steps - 1


# ---- emitting operations --------------------------------------------------------------------

# An operand of an emitted operation: a node, or a number.
cdef struct Arg:
    uint32_t id
    FgNode *node                # NULL: a number
    double number


cdef inline Arg arg_number(double number) noexcept:
    cdef Arg x
    x.id = FG_NO_ID
    x.node = NULL
    x.number = number
    return x


cdef inline Arg arg_node(uint32_t id) noexcept:
    cdef Arg x
    x.id = id
    x.node = node_at(id)
    x.number = 0
    return x


cdef inline Arg arg_tensor(Tensor t) noexcept:
    cdef Arg x
    x.id = t.id
    x.node = t.node
    x.number = 0
    return x


cdef Arg arg_operand(FgNode *n, int k) noexcept:
    """Operand k of a recorded element-wise operation."""
    cdef uint32_t id = n.a if k == 0 else n.b if k == 1 else n.c
    return arg_node(id) if id else arg_number(n.constant)


cdef int operand_arg(Arg *a, Operand *x) except -1:
    """The same as the recording functions take it. The node itself is meant, whatever has since
    been assigned to the Tensor that stood for it."""
    cdef FgNode *n = a.node
    operand_clear(x)
    if n == NULL:
        x.number = a.number
        x.weak = x.literal = 1
        return 0
    x.id = a.id
    x.node = n
    x.dtype = n.dtype
    x.weak = (n.flags & FG_WEAK) != 0
    x.strong = (n.flags & FG_WEAK) == FG_PYTHON
    x.needs = (n.flags & FG_NEEDS_GRAD) != 0 and get_recording() or node_traced(a.id, n)
    if n.rank:
        x.shape = n.shape
        x.value = n.value
    else:
        x.number = n.re
    return 0


cdef Tensor emit(int op, int arity, Arg *x):
    """Compute an element-wise operation and record it where one of its operands is recorded. A step
    in a partial, as the sign in that of abs, has no derivative: the second derivative of the operator
    is zero by statement."""
    cdef Operand operand[3]
    cdef double u[3]
    cdef uint32_t ids[2]
    cdef int k, flags = FG_WEAK
    cdef bint scalars = True, needs = False
    cdef double constant = 0
    cdef Tensor t
    for k in range(arity):
        u[k] = x[k].number
        if x[k].node != NULL:
            scalars = scalars and x[k].node.rank == 0 and x[k].node.dtype == FG_FLOAT64
            needs = needs or x[k].node.flags & FG_NEEDS_GRAD
            flags &= x[k].node.flags
            u[k] = x[k].node.re
    if mode().recorder != NULL:
        pass                            # what a derivative takes for constant may be recorded
    elif scalars:
        needs = needs and get_recording() and not fg_op_info[op].props & FG_STEPS
        if not needs:
            return scalar_constant(fg_value(op, FG_FLOAT64, u[0], u[1] if arity > 1 else 0,
                                            u[2] if arity > 2 else 0), FG_FLOAT64, flags)
        if arity <= 2:
            for k in range(arity):
                ids[k] = x[k].id
                if x[k].node == NULL or not x[k].node.flags & FG_NEEDS_GRAD:
                    ids[k] = FG_NO_ID
                    flags |= (FG_CONST_A << k) | (FG_LITERAL if x[k].node == NULL else 0)
                    constant = u[k]
            return push_scalar(op, FG_FLOAT64, flags, ids[0], x[0].node,
                               ids[1] if arity > 1 else FG_NO_ID, x[1].node if arity > 1 else NULL,
                               constant, fg_value(op, FG_FLOAT64, u[0], u[1] if arity > 1 else 0, 0))
    elif arity <= 2 and get_recording() and not fg_op_info[op].props & FG_STEPS:
        t = emit_arrays(op, arity, x)
        if t is not None:
            return t
    for k in range(arity):
        operand_arg(&x[k], &operand[k])
        if fg_op_info[op].props & FG_STEPS and mode().recorder == NULL:
            operand[k].needs = 0
    t = <Tensor>push(op, arity, operand)
    if fg_op_info[op].props & FG_STEPS:
        t.node.flags &= ~FG_NEEDS_GRAD
    return t


cdef inline Tensor emit_arrays(int op, int arity, Arg *x):
    """Small recorded arrays of one shape, or one and a number; None for anything else."""
    cdef FgNode *a = x[0].node
    cdef FgNode *b = x[1].node if arity == 2 else NULL
    if (a != NULL and not fast_node(a)) or (b != NULL and not fast_node(b)):
        return None
    if a != NULL and b != NULL:
        if a.dtype != b.dtype or not shape_same(a.shape, b.shape):
            return None
        return push_array_fast(op, x[0].id, a, x[1].id, b, 0, 0)
    if a != NULL and arity == 1:
        return push_array_fast(op, x[0].id, a, FG_NO_ID, NULL, 0, 0)
    if a != NULL and a.shape.size <= FG_BLOCK:
        return push_array_fast(op, x[0].id, a, FG_NO_ID, NULL, x[1].number, FG_CONST_B | FG_LITERAL)
    if b != NULL and b.shape.size <= FG_BLOCK:
        return push_array_fast(op, FG_NO_ID, NULL, x[1].id, b, x[0].number, FG_CONST_A | FG_LITERAL)
    return None


cdef inline Tensor emit_scalars(int op, uint32_t ia, FgNode *a, uint32_t ib, FgNode *b):
    """`emit` for two float64 scalars; with a constant operator nothing is looked up."""
    cdef int flags = a.flags & b.flags & FG_WEAK
    cdef double constant = 0
    cdef double value = fg_value(op, FG_FLOAT64, a.re, b.re, 0)
    cdef Arg x[2]
    if mode().recorder != NULL:
        x[0] = arg_node(ia)
        x[1] = arg_node(ib)
        return emit(op, 2, x)
    if not (a.flags | b.flags) & FG_NEEDS_GRAD or not get_recording():
        return scalar_constant(value, FG_FLOAT64, flags)
    if not a.flags & FG_NEEDS_GRAD:
        flags |= FG_CONST_A
        constant = a.re
        ia = FG_NO_ID
    elif not b.flags & FG_NEEDS_GRAD:
        flags |= FG_CONST_B
        constant = b.re
        ib = FG_NO_ID
    return push_scalar(op, FG_FLOAT64, flags, ia, a, ib, b, constant, value)


cdef inline bint wide_scalar(FgNode *n) noexcept nogil:
    return n.rank == 0 and n.dtype == FG_FLOAT64


cdef Tensor emit_sum(Tensor x, Tensor y):
    """x + y."""
    if wide_scalar(x.node) and wide_scalar(y.node):
        return emit_scalars(FG_add, x.id, x.node, y.id, y.node)
    return emit_two(FG_add, x, y)


cdef Tensor emit_one(int op, Tensor x):
    cdef Arg a = arg_tensor(x)
    return emit(op, 1, &a)


cdef Tensor emit_two(int op, Tensor x, Tensor y):
    cdef Arg a[2]
    a[0] = arg_tensor(x)
    a[1] = arg_tensor(y)
    return emit(op, 2, a)


cdef Tensor emit_formula(Formula *f, FgNode *n, uint32_t id, Arg *result):
    """The value of a partial at a recorded operation: in `result`, which the Tensor returned (it
    may be None) keeps alive."""
    cdef list made = [] if f.steps > 1 else None
    cdef Arg x[3]
    cdef int i, k
    cdef FormulaStep *step
    cdef Tensor t = None, mask
    for i in range(f.steps):
        step = &f.step[i]
        for k in range(step.arity):
            x[k] = formula_source(step.source[k], step.number[k], n, id, made)
            if x[k].node != NULL and x[k].node.dtype == FG_BOOL:
                # Of a mask alone a float64 would be made, whatever the operation's dtype.
                mask = cast_plain(node_tensor(x[k].id), n.dtype)
                x[k] = arg_tensor(mask)
        t = emit(step.op, step.arity, x)
        if made is not None:
            made.append(t)
    if f.steps:
        result[0] = arg_tensor(t)
        return t
    result[0] = formula_source(f.result, f.number, n, id, made)
    return None


cdef Arg formula_source(int source, double number, FgNode *n, uint32_t id, list made) noexcept:
    if source < FROM_Y:
        return arg_operand(n, source)
    if source == FROM_Y:
        return arg_node(id)
    if source == FROM_TIE:
        return arg_number(0.0 if n.flags & FG_LITERAL else 0.5)
    if source == FROM_NUMBER:
        return arg_number(number)
    return arg_tensor(<Tensor>made[source - FROM_STEP])


cdef bint is_one(Tensor t) noexcept:
    """Whether it is the number 1 that a sweep starts with."""
    return (t.node.flags & (FG_LEAF | FG_NEEDS_GRAD) == FG_LEAF and t.node.rank == 0
            and t.node.re == 1 and not node_traced(t.id, t.node))


cdef Tensor emit_chain(Tensor g, Tensor partial, Tensor finite):
    """The chain rule's product in reverse mode: an adjoint and a partial."""
    cdef Arg x[3]
    if finite is None:
        return emit_two(FG_weigh, g, partial)
    x[0] = arg_tensor(g)
    x[1] = arg_tensor(partial)
    x[2] = arg_tensor(finite)
    return emit(FG_chain, 3, x)


cdef Tensor emit_term(FgNode *n, uint32_t id, int which, Tensor g, Tensor finite, bint forward):
    """g, an adjoint or (forward) a tangent, times a partial of a recorded operation, of the shape
    that the two broadcast to; None where the partial is zero everywhere. `finite`: whether the
    result of the sweep is, as a Tensor; None: it is."""
    cdef Formula *f = formula_of(n.op, which)
    cdef Arg x[3]
    cdef Arg swapped
    cdef Tensor keep
    # What a mask does not take has no path.
    cdef bint strong = finite is None or fg_op_info[n.op].props & FG_MASK
    if f.kind == PARTIAL_NONE or f.kind == PARTIAL_ZERO and strong:
        return None
    if f.kind == PARTIAL_ONE:
        return g
    if f.kind == PARTIAL_MINUS:
        return emit_one(FG_negative, g)
    keep = emit_formula(f, n, id, &x[1])
    if keep is not None and n.rank == 0 and is_one(g) and keep.node.dtype == n.dtype:
        return keep
    if strong and x[1].node != NULL and wide_scalar(x[1].node) and wide_scalar(g.node):
        return emit_scalars(FG_weigh, g.id, g.node, x[1].id, x[1].node)
    x[0] = arg_tensor(g)
    if strong:
        return emit(FG_weigh, 2, x)
    if forward:                 # what comes later is the partial
        swapped = x[0]
        x[0] = x[1]
        x[1] = swapped
    x[2] = arg_tensor(finite)
    return emit(FG_chain, 3, x)
