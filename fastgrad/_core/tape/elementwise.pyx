"""Element-wise operators: their nodes, and results that wait to be computed together."""

cdef inline unsigned int node_reads(FgNode *n) noexcept:
    """Which of A, B, C, Y the partials that will be wanted look at."""
    cdef unsigned int reads = 0
    if n.op >= FG_ELEMENTWISE_END:
        return shaped_reads(n)
    if n.rank == 0:
        return 0                # scalars keep their values anyway
    if n.a and node_at(n.a).flags & FG_NEEDS_GRAD:
        reads |= fg_op_info[n.op].reads[0]
    if n.b and node_at(n.b).flags & FG_NEEDS_GRAD:
        reads |= fg_op_info[n.op].reads[1]
    if n.c and node_at(n.c).flags & FG_NEEDS_GRAD:
        reads |= fg_op_info[n.op].reads[2]
    return reads


cdef inline unsigned int node_holds(FgNode *n) noexcept:
    """Whose values it keeps alive: what its partials read and, while it waits, all operands."""
    if n.flags & FG_PENDING:
        return node_reads(n) | FG_A | FG_B | FG_C
    return node_reads(n)


cdef inline Tensor scalar_constant(double number, int dtype, int flags):
    """A scalar Tensor that nothing was recorded for."""
    cdef uint32_t id
    cdef FgNode *n = leaf_append(&id)
    n.dtype = <uint8_t>dtype
    n.flags = <uint16_t>(FG_LEAF | flags)
    n.re = number
    return tensor_new(id, n, NULL)


cdef uint32_t reaches = 0       # leaves numbered so far


cdef double births = 0          # the same, never beginning anew


cdef inline uint32_t reach_new() noexcept:
    """The number of another leaf."""
    global reaches, births
    reaches = reaches % 0xffff + 1
    births += 1
    return FG_REACH(reaches, reaches)


cdef inline uint32_t reach_of(FgNode *x) noexcept nogil:
    """Which leaves a node that requires a gradient depends on; shaped operators do not say."""
    if x.attr and (x.op < FG_ELEMENTWISE_END or x.op == FG_leaf or x.op == FG_dual):
        return x.attr
    return FG_REACH_ANY


cdef uint32_t reach_operands(uint32_t *ids) noexcept:
    """Which leaves the operands of an operation depend on."""
    cdef uint32_t reach = FG_REACH_NONE
    cdef int k
    for k in range(3):
        if ids[k] and node_at(ids[k]).flags & FG_NEEDS_GRAD:
            reach = fg_reach_both(reach, reach_of(node_at(ids[k])))
    return reach


cdef inline Tensor push_scalar(int op, int dtype, int flags, uint32_t a, FgNode *na,
                               uint32_t b, FgNode *nb, double constant, double value):
    """Record one scalar operation of one or two operands; ids of constants are FG_NO_ID."""
    cdef FgTape *tape = get_thread_tape()
    cdef FgNode *n
    cdef uint32_t id
    if tape == NULL:
        tape = tape_of_thread()
    n = node_append(tape, &id)
    node_set(n, op, dtype, 0, flags, a, b, FG_NO_ID)
    n.re = value
    n.constant = constant
    n.attr = FG_REACH_NONE
    if a:
        na.refs += 1
        n.attr = reach_of(na)
    if b:
        nb.refs += 1
        n.attr = fg_reach_both(n.attr, reach_of(nb))
    return tensor_new(id, n, tape)


cdef inline bint operands_differ(Operand *x, int count) noexcept:
    """Whether NumPy may have to convert an operand, which it does without the GIL."""
    cdef int i, dtype = -1
    for i in range(count):
        if x[i].shape == NULL and x[i].weak:
            continue
        if not is_float(x[i].dtype) or (dtype >= 0 and x[i].dtype != dtype):
            return True
        dtype = x[i].dtype
    return False


cdef object push(int op, int arity, Operand *x):
    """Compute an element-wise operator or comparison of operands already looked at, and record it
    where a derivative will be wanted. Takes over what the operands own."""
    cdef int weak, i, dtype
    cdef FgShape *shape = NULL
    cdef Operand before[3]
    cdef bint held = operands_differ(x, arity)
    if held:
        memcpy(before, x, arity * sizeof(Operand))
        operands_hold(before, arity)
    try:
        if fg_op_info[op].props & FG_MASK:
            mask_operand(op, &x[2])
            dtype = common_dtype(x, 2, &weak)
        else:
            dtype = common_dtype(x, arity, &weak)
        if dtype == -2:
            if numpy_functions[op] is not None:
                return numpy_result(op, x, arity)
            dtype = FG_FLOAT64
        for i in range(arity):
            if not (i == 2 and fg_op_info[op].props & FG_MASK):
                operand_convert(&x[i], dtype)
        shape = common_shape(op, x, arity)
        if shape == NULL:
            return push_scalars(op, arity, x, dtype, weak_flags(x, arity) if weak else 0)
        if shape.size < UNLOCK:
            return push_array(op, arity, x, dtype, shape)
        operands_hold(x, arity)
        try:
            return push_array(op, arity, x, dtype, shape)
        finally:
            operands_let_go(x, arity)
    finally:
        operands_drop(x, arity)
        if held:
            operands_let_go(before, arity)
        if shape != NULL:
            shape_release(shape)


cdef inline int weak_flags(Operand *x, int count) noexcept:
    """Of what is made of weak operands."""
    cdef int i, flags = FG_WEAK
    for i in range(count):
        if x[i].strong:
            flags = FG_PYTHON
    return flags


cdef int mask_operand(int op, Operand *c) except -1:
    """The condition of `where`: booleans; numbers count as true where they are not zero."""
    cdef Tensor t
    if c.needs and is_float(c.dtype) and c.node.flags & FG_NEEDS_GRAD and get_recording():
        raise TypeError(f"{fg_op_info[op].name.decode()}: the condition is a recorded {dtypes[c.dtype]} "
                        "Tensor; compare it, for example `x > 0`, to say what counts as true")
    if c.needs and mode().recorder != NULL:
        if c.dtype != FG_BOOL:
            t = derived("numpy.not_equal", np.not_equal, (node_tensor(c.id), 0), {})
            operand_drop(c)
            operand_tensor(t, c)
            Py_INCREF(t)
            c.keeper = <void *>t
        return 0
    if c.shape == NULL:
        c.number = c.number != 0
    elif c.dtype != FG_BOOL:
        operand_replace(c, np.not_equal(operand_ndarray(c), 0))
    c.needs = 0
    return 0


cdef int operand_replace(Operand *x, object array) except -1:
    """Put another array of constants in the place of an operand."""
    cdef uint32_t looked = x.looked
    operand_drop(x)
    operand_clear(x)
    x.looked = looked
    operand_array(<ndarray>array, x)
    if x.shape != NULL:
        x.foreign = 0           # nobody else has it
    return 0


cdef object operand_ndarray(Operand *x):
    """The operand's present value as an ndarray (not to be written to)."""
    if x.shape == NULL:
        if x.node != NULL:
            return node_ndarray(x.node)
        return np.asarray(x.number).astype(dtypes[x.dtype])
    if x.value == NULL:
        x.value = value_of(x.node, x.id)
    return value_ndarray(x.shape, x.value, x.dtype, False)


cdef int operand_convert(Operand *x, int dtype) except -1:
    """To the dtype of the result."""
    cdef Tensor t
    if x.dtype == dtype:
        return 0
    if x.shape == NULL and not x.needs:
        if dtype == FG_FLOAT32:
            x.number = <float>x.number
        x.dtype = <uint8_t>dtype
        x.id = FG_NO_ID
        x.node = NULL
        return 0
    if x.needs:
        t = push_cast(x, dtype)
        operand_drop(x)
        operand_tensor(t, x)
        Py_INCREF(t)
        x.keeper = <void *>t
        return 0
    operand_replace(x, operand_ndarray(x).astype(dtypes[dtype]))
    return 0


cdef inline bint weights_only(int op) noexcept:
    """Whether a row is a share in another's partial, as the step in that of relu: its own derivative
    is zero by statement, and it is not recorded. Steps that have a name are, like any operator: their
    partial is a zero that meets infinities (sweeps/infinite.pyx)."""
    return fg_op_info[op].props & (FG_STEPS | FG_INNER) == FG_STEPS | FG_INNER


cdef object push_scalars(int op, int arity, Operand *x, int dtype, int flags):
    cdef double value, constant = 0
    cdef uint32_t id
    cdef FgNode *n
    cdef FgTape *tape
    cdef int i
    cdef bint needs = False, inlined = False, program = mode().recorder != NULL
    cdef uint32_t ids[3]
    cdef double u[3]
    for i in range(3):
        ids[i] = FG_NO_ID
        u[i] = x[i].number if i < arity else 0
        if i < arity:
            needs = needs or x[i].needs
    if fg_op_info[op].kind == FG_COMPARE:
        value = fg_compare(op, dtype, u[0], u[1])
        dtype = FG_BOOL
        flags = 0
        if not program:
            return mask_made(scalar_constant(value, dtype, flags), op, arity, x)
    else:
        value = fg_value(op, dtype, u[0], u[1], u[2])
    if not needs or weights_only(op) and not program:
        return mask_made(scalar_constant(value, dtype, flags), op, arity, x)
    try:
        for i in range(arity):
            if x[i].needs:
                ids[i] = x[i].id
                x[i].node.refs += 1
            elif not inlined and not x[i].looked:       # a number in the node does not tell
                inlined = True
                constant = x[i].number
                flags |= FG_CONST_A << i
                if x[i].literal:
                    flags |= FG_LITERAL
            else:
                ids[i] = leaf_constant(&x[i])
                if x[i].literal:
                    flags |= FG_LITERAL
        tape = tape_of_thread()
        n = node_append(tape, &id)
    except BaseException:
        for i in range(3):
            if ids[i]:
                node_drop(ids[i])
        raise
    if fg_op_info[op].props & FG_STEPS:
        tape.steps += 1
    node_set(n, op, dtype, 0, flags, ids[0], ids[1], ids[2])
    if op < FG_ELEMENTWISE_END:
        n.attr = reach_operands(ids)
    n.re = value
    n.constant = constant
    return tensor_new(id, n, tape)


cdef inline Tensor mask_noted(Tensor t, Operand *x, int count):
    """A result without derivative: it remembers which leaves it depends on."""
    cdef uint32_t reach = FG_REACH_NONE
    cdef int i
    for i in range(count):
        if x[i].needs:
            reach = fg_reach_both(reach, reach_looked(x[i].node))
        elif x[i].looked:
            reach = fg_reach_both(reach, x[i].looked)
    if reach != FG_REACH_NONE:
        t.node.attr = reach
    return t


cdef inline Tensor mask_made(Tensor t, int op, int arity, Operand *x):
    """The same of an element-wise operator: outside of transformations it remembers the operands."""
    mask_noted(t, x, arity)
    if t.node.attr and made_wanted():
        made_elementwise(t, op, arity, x)
    return t


cdef inline uint32_t reach_looked(FgNode *x) noexcept:
    """Which leaves a value depends on, with a derivative or without; 0: none."""
    if x.flags & FG_NEEDS_GRAD:
        return reach_of(x) if x.op < FG_ELEMENTWISE_END or x.flags & FG_LEAF else reach_near(x, 4)
    return x.attr if x.flags & FG_LEAF else 0


cdef uint32_t reach_near(FgNode *x, int steps) noexcept:
    """The same of a shaped operation, as far as a few steps tell: it does not say itself."""
    cdef uint32_t reach = FG_REACH_NONE
    cdef uint32_t id
    cdef int k
    if not x.flags & FG_NEEDS_GRAD:
        return FG_REACH_NONE
    if x.op < FG_ELEMENTWISE_END or x.flags & FG_LEAF or x.op == FG_dual:
        return reach_of(x)
    if steps == 0 or x.flags & FG_CONSUMED or operand_count(x) > 3:
        return FG_REACH_ANY
    for k in range(operand_count(x)):
        id = operand_at(x, k)
        if id:
            reach = fg_reach_both(reach, reach_near(node_at(id), steps - 1))
    return reach


cdef object push_array(int op, int arity, Operand *x, int dtype, FgShape *shape):
    cdef unsigned int reads = 0, holds
    cdef int i, flags = 0
    cdef bint needs = False, inlined = False, wait
    cdef FgValue *out = NULL
    cdef FgNode *n
    cdef uint32_t id
    cdef uint32_t ids[3]
    cdef double constant = 0
    cdef Source source[3]
    cdef const FgOpInfo *info = &fg_op_info[op]
    cdef FgTape *tape
    cdef bint program = mode().recorder != NULL

    if info.kind != FG_COMPARE and not weights_only(op) or program:
        for i in range(arity):
            if x[i].needs:
                needs = True
                reads |= info.reads[i]
    wait = needs and shape.size >= LAZY and not get_keeping()       # who keeps has no use for runs
    for i in range(arity):
        # A pending operand can go on waiting only in a run of results of its own shape; memory
        # of the user that would not be kept anyway is not copied just for that.
        if x[i].shape == NULL:
            continue
        if wait and x[i].foreign and not reads & (FG_A << i):
            wait = False
    for i in range(arity):
        if x[i].shape != NULL and x[i].value == NULL and (
                not wait or not shape_same(x[i].shape, shape)):
            x[i].value = value_of(x[i].node, x[i].id)

    if not wait:
        for i in range(arity):
            source[i].shape = x[i].shape
            source[i].value = x[i].value
            source[i].number = x[i].number
            source[i].dtype = x[i].dtype
        out = pool_take(shape.size * (1 if info.kind == FG_COMPARE else item_size(dtype)))
        try:
            evaluate(op, dtype, shape, source, arity, out.data)
        except BaseException:
            value_release(out)
            raise
        if not needs:
            return mask_made(tensor_of_value(shape_ref(shape), out,
                                             FG_BOOL if info.kind == FG_COMPARE else dtype),
                             op, arity, x)

    holds = reads | FG_A | FG_B | FG_C if wait or get_keeping() else reads
    for i in range(3):
        ids[i] = FG_NO_ID
    try:
        for i in range(arity):
            if x[i].needs:
                ids[i] = x[i].id
                x[i].node.refs += 1
            elif x[i].shape == NULL and not inlined and not x[i].looked:
                inlined = True
                constant = x[i].number
                flags |= FG_CONST_A << i
            elif holds & (FG_A << i):
                if x[i].id:
                    ids[i] = x[i].id
                    x[i].node.refs += 1
                else:
                    ids[i] = leaf_constant(&x[i])
            if x[i].literal:
                flags |= FG_LITERAL
        tape = tape_of_thread()
        if wait and tape.waiting == FG_RUN:
            run_flush_all(tape)
        n = node_append(tape, &id)
    except BaseException:
        for i in range(3):
            if ids[i]:
                node_drop(ids[i])
        if out != NULL:
            value_release(out)
        raise
    node_set(n, op, FG_BOOL if info.kind == FG_COMPARE else dtype, shape.rank, flags, ids[0], ids[1],
             ids[2])
    if info.kind != FG_COMPARE:
        n.attr = reach_operands(ids)
    if info.props & FG_STEPS:
        tape.steps += 1
    n.shape = shape_ref(shape)
    n.value = out
    n.constant = constant
    for i in range(3):
        # A recording for a program needs the values of constants alone.
        if ids[i] and (holds & (FG_A << i) if not program else
                       reads & (FG_A << i) or node_at(ids[i]).flags & FG_LEAF):
            node_at(ids[i]).uses += 1
    if reads & FG_Y:
        n.flags |= FG_READS_SELF
        n.uses += 1
    if wait:
        n.flags |= FG_PENDING
        n.index = <uint16_t>tape.waiting
        tape.run[tape.waiting] = id
        tape.waiting += 1
    return tensor_noted(tensor_new(id, n, tape))


cdef inline Tensor tensor_noted(Tensor t):
    """A new array result; while a stream runs, large ones do not wait for a segment to fill up."""
    cdef FgTape *tape = t.tape
    if tape.streaming and t.node.rank:
        tape.stream_bytes += t.node.shape.size * item_size(t.node.dtype)
        if tape.stream_bytes > STREAM_BYTES:
            stream_flush(tape)
    return t


cdef inline bint fast_array(Tensor t) noexcept:
    """Whether t is a recorded small array in contiguous memory that may be used right here."""
    return (fast_node(t.node) and <void *>t.parent == <void *>None
            and (t.tape == NULL or t.tape == get_thread_tape()))


cdef inline bint fast_node(FgNode *n) noexcept nogil:
    return (n.rank != 0 and (n.dtype == FG_FLOAT64 or n.dtype == FG_FLOAT32)
            and (n.flags & (FG_NEEDS_GRAD | FG_CONSUMED)) == FG_NEEDS_GRAD
            and n.value != NULL and n.value.contiguous and not n.value.uniform
            and n.shape.size < LAZY)


cdef Tensor push_array_fast(int op, uint32_t left, FgNode *a, uint32_t right, FgNode *b,
                            double constant, int flags):
    """As push_array for what needs no second look: one or two operands that are `fast_node`s of
    one shape and dtype, or one and a Python number (which `flags` tells the place of)."""
    cdef FgNode *x = a if a != NULL else b
    cdef FgNode *n
    cdef FgShape *shape = x.shape
    cdef const FgLoops *loops = loops_of(x.dtype)
    cdef FgTape *tape = get_thread_tape()
    cdef FgValue *out
    cdef uint32_t id
    cdef unsigned int reads = 0
    cdef double block[FG_BLOCK]
    cdef int64_t count = shape.size
    if tape == NULL:
        tape = tape_of_thread()
    if (a == NULL or value_roomy(a.value)) and (b == NULL or value_roomy(b.value)):
        count = padded(count, item_size(x.dtype))
    if flags:
        loops.fill(block, constant, count)
    out = pool_take(shape.size * item_size(x.dtype))
    loops.value[op](a.value.data if a != NULL else <char *>block,
                    b.value.data if b != NULL else <char *>block, NULL, out.data, count)
    try:
        n = node_append(tape, &id)
    except BaseException:
        value_release(out)
        raise
    node_set(n, op, x.dtype, x.rank, flags, FG_NO_ID, FG_NO_ID, FG_NO_ID)
    n.shape = shape_ref(shape)
    n.value = out
    n.constant = constant
    n.attr = FG_REACH_NONE
    if a != NULL:
        n.a = left
        a.refs += 1
        reads = fg_op_info[op].reads[0]
        n.attr = reach_of(a)
    if b != NULL:
        n.b = right
        b.refs += 1
        reads |= fg_op_info[op].reads[1]
        n.attr = fg_reach_both(n.attr, reach_of(b))
    if reads & FG_A and a != NULL:
        a.uses += 1
    if reads & FG_B and b != NULL:
        b.uses += 1
    if reads & FG_Y:
        n.flags |= FG_READS_SELF
        n.uses = 1
    return tensor_new(id, n, tape)


# ---- results that wait ----------------------------------------------------------------------

cdef FgValue *value_of(FgNode *n, uint32_t id) except NULL:
    """The value of an array node, computed now if it was waiting; borrowed."""
    if n.flags & FG_PENDING:
        run_flush(directory[id >> FG_SEGMENT_BITS].tape, n, NULL)
    if n.value == NULL:
        raise RuntimeError(f"fastgrad: the value of {fg_op_info[n.op].name.decode()} was let go of "
                           "while it is needed; this is an error of fastgrad's, please report it")
    return n.value


cdef int run_flush_all(FgTape *tape) except -1:
    """Compute what somebody may still look at, and start a new run."""
    cdef uint32_t i
    run_flush_needed(tape)
    for i in range(tape.waiting, 0, -1):
        if tape.run[i - 1]:
            run_settle(node_at(tape.run[i - 1]), i - 1, tape)
    tape.waiting = 0
    return 0


cdef int run_flush_needed(FgTape *tape) except -1:
    """Compute what waits and will be looked at: by a partial, or through a handle."""
    cdef uint32_t i
    cdef uint32_t only[FG_RUN]
    cdef FgNode *n
    run_count(tape, only)
    for i in range(tape.waiting, 0, -1):
        if tape.run[i - 1]:
            n = node_at(tape.run[i - 1])
            if n.handle != NULL or n.uses > only[i - 1]:
                run_flush(tape, n, NULL)
    return 0


cdef void run_count(FgTape *tape, uint32_t *only) noexcept:
    """For each waiting node, how many waiting consumers need its value just to be computed."""
    cdef uint32_t i
    cdef int k
    cdef unsigned int reads
    cdef uint32_t ids[3]
    cdef FgNode *n
    cdef FgNode *x
    for i in range(tape.waiting):
        only[i] = 0
    for i in range(tape.waiting):
        if not tape.run[i]:
            continue
        n = node_at(tape.run[i])
        reads = node_reads(n)
        ids[0] = n.a
        ids[1] = n.b
        ids[2] = n.c
        for k in range(3):
            if ids[k] and not reads & (FG_A << k):
                x = node_at(ids[k])
                if x.flags & FG_PENDING:
                    only[x.index] += 1


cdef struct RunStep:
    int op
    Lane lane[3]
    char *out                   # its memory, or its block
    int64_t item                # bytes to advance per element: 0 for a block


cdef int run_flush(FgTape *tape, FgNode *target, Total *total) except -1:
    """Compute a waiting node and the waiting ones it is made of, block by block.

    Values that a partial will read are stored; others live in their block only and go on waiting,
    in case somebody looks at them later. With `total` the target itself is not stored either but
    summed.
    """
    cdef uint8_t needed[FG_RUN]
    cdef uint32_t only[FG_RUN]
    cdef RunStep step[FG_RUN]
    cdef char *where_[FG_RUN]
    cdef FgValue *kept[FG_RUN]
    cdef int i, k, steps = 0
    cdef uint32_t ids[3]
    cdef unsigned int reads
    cdef FgNode *n
    cdef FgNode *x
    cdef Source source
    cdef Scratch scratch
    cdef FgShape *shape = target.shape
    cdef int dtype = target.dtype
    cdef const FgLoops *loops = loops_of(dtype)
    cdef int64_t item = item_size(dtype)
    cdef int64_t m = shape.size if shape.size < FG_BLOCK else FG_BLOCK
    cdef Lane *lane
    cdef bint roomy = True

    if tape.busy:
        raise RuntimeError("fastgrad: a Tensor is being computed or differentiated in another "
                           "thread; wait for it, or pass its `.detach()`")
    memset(needed, 0, FG_RUN)
    needed[target.index] = 1
    for i in range(target.index, -1, -1):
        kept[i] = NULL
        if needed[i]:
            n = node_at(tape.run[i])
            if n.a and node_at(n.a).flags & FG_PENDING:
                needed[node_at(n.a).index] = 1
            if n.b and node_at(n.b).flags & FG_PENDING:
                needed[node_at(n.b).index] = 1
            if n.c and node_at(n.c).flags & FG_PENDING:
                needed[node_at(n.c).index] = 1
    run_count(tape, only)

    scratch_begin(&scratch)
    try:
        for i in range(target.index + 1):
            if not needed[i]:
                continue
            n = node_at(tape.run[i])
            step[steps].op = n.op
            if (n.uses > only[i] or n.flags & FG_COMPUTED or (n == target and total == NULL)):
                kept[i] = pool_take(shape.size * item)
                where_[i] = step[steps].out = kept[i].data
                step[steps].item = item
            else:
                where_[i] = step[steps].out = scratch_take(&scratch, m * item)
                step[steps].item = 0
            ids[0] = n.a
            ids[1] = n.b
            ids[2] = n.c
            for k in range(3):
                lane = &step[steps].lane[k]
                lane.mode = LANE_NONE
                lane.data = NULL
                if ids[k]:
                    x = node_at(ids[k])
                    if x.flags & FG_PENDING:
                        lane.item = item
                        lane.roomy = True
                        lane.data = where_[x.index]
                        lane.mode = LANE_ADVANCE if kept[x.index] != NULL else LANE_FIXED
                        continue
                    source.shape = x.shape if x.rank else NULL
                    source.value = x.value
                    source.number = x.re
                    source.dtype = x.dtype
                elif n.flags & (FG_CONST_A << k):
                    source.shape = NULL
                    source.number = n.constant
                    source.dtype = <uint8_t>dtype
                else:
                    continue
                lane_set(lane, &source, shape, dtype, &scratch)
                roomy = roomy and lane.roomy
            steps += 1
        tape.busy += 1
        if shape.size >= UNLOCK:
            with nogil:
                run_blocks(step, steps, loops, shape.size, item, roomy, total)
        else:
            run_blocks(step, steps, loops, shape.size, item, roomy, total)
        tape.busy -= 1
    except BaseException:
        for i in range(target.index + 1):
            if kept[i] != NULL:
                value_release(kept[i])
        raise
    finally:
        scratch_clear(&scratch)

    # First all values are in place, then operands are let go: nothing is freed in between.
    for i in range(target.index + 1):
        if not needed[i]:
            continue
        n = node_at(tape.run[i])
        if kept[i] == NULL:
            n.flags |= FG_COMPUTED
            continue
        n.value = kept[i]
    for i in range(target.index, -1, -1):
        if needed[i] and kept[i] != NULL:
            run_settle(node_at(tape.run[i]), i, tape)
    if tape.queued:
        queue_drain(tape)
    return 0


cdef void run_leave(FgTape *tape, int place) noexcept:
    """Take a node off the list of those that wait."""
    tape.run[place] = FG_NO_ID
    while tape.waiting and tape.run[tape.waiting - 1] == FG_NO_ID:
        tape.waiting -= 1


cdef void run_settle(FgNode *n, int place, FgTape *tape) noexcept:
    """A waiting node has its value, or will never need one: let go of operands that only the
    computation needed."""
    cdef unsigned int reads
    n.flags &= ~(FG_PENDING | FG_COMPUTED)
    n.index = 0
    run_leave(tape, place)
    reads = node_reads(n)
    if n.a and not reads & FG_A:
        n.a = operand_settle(n.a)
    if n.b and not reads & FG_B:
        n.b = operand_settle(n.b)
    if n.c and not reads & FG_C:
        n.c = operand_settle(n.c)


cdef uint32_t operand_settle(uint32_t id) noexcept:
    cdef FgNode *x = node_at(id)
    use_drop(x, id)
    if x.flags & FG_NEEDS_GRAD:
        return id
    node_drop(id)
    return FG_NO_ID


cdef void run_blocks(RunStep *step, int steps, const FgLoops *loops, int64_t size, int64_t item,
                     bint roomy, Total *total) noexcept nogil:
    cdef int64_t start = 0, n
    cdef int i
    cdef char *a
    cdef char *b
    cdef char *c
    cdef char *out = NULL
    while start < size:
        n = size - start if size - start < FG_BLOCK else FG_BLOCK
        for i in range(steps):
            a = lane_block(&step[i].lane[0], start, n, loops)
            b = lane_block(&step[i].lane[1], start, n, loops)
            c = lane_block(&step[i].lane[2], start, n, loops)
            out = step[i].out + start * step[i].item
            loops.value[step[i].op](a, b, c, out, padded(n, item) if roomy else n)
        if total != NULL:
            total_add(total, loops.sum(out, n))
        start += n
