"""The shaped operators: how each computes its value and, beside it, how it hands its adjoint on.

Element-wise operators need nothing here: their rows in ops.def say it all.
"""


cdef unsigned int shaped_reads(FgNode *n) noexcept:
    """Which of A, B, Y the rule below looks at."""
    cdef unsigned int reads = 0
    if n.op == FG_matmul:
        if n.a and node_at(n.a).flags & FG_NEEDS_GRAD:
            reads |= FG_B
        if n.b and node_at(n.b).flags & FG_NEEDS_GRAD:
            reads |= FG_A
        return reads
    if n.op == FG_prod or n.op == FG_max or n.op == FG_min:
        return FG_A
    if n.op == FG_logsumexp:
        return FG_A | FG_Y
    return 0


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
    cdef bint needs = (x != NULL and x.needs) or (y != NULL and y.needs) or op == FG_concatenate
    if not needs:
        if attr:
            attr_release(attr)
        return shaped_noted(scalar_constant(number, dtype, flags & FG_WEAK) if shape == NULL
                            else tensor_of_value(shape, value, dtype), x, y)
    try:
        tape = tape_of_thread()
        if y != NULL and not y.needs and op == FG_matmul:
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
        if x != NULL and not x.needs and op == FG_matmul:
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
        if op == FG_concatenate:
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
    return (get_recorder() != NULL and x.node != NULL and x.node.flags & FG_LEAF != 0
            and not x.node.flags & FG_NEEDS_GRAD
            and x.id not in (<Recorder>get_recorder()).inputs)


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


# ---- the dispatch of the sweep --------------------------------------------------------------

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
        if n.op == FG_concatenate:
            reverse_concatenate(s, n, g)
        elif n.op == FG_matmul:
            reverse_matmul(s, n, g, number)
        elif n.op == FG_assign:
            # Takes the adjoint over: most of it goes on in the same memory.
            reverse_assign(s, n, &g)
        elif n.op == FG_custom:
            reverse_custom(s, n, id)
        elif n.op == FG_dual or not wanted(s, n.a):
            pass
        elif n.op == FG_result:
            reverse_result(s, n, g, number)
        elif n.op == FG_reshape:
            reverse_reshape(s, n, g, number)
        elif n.op == FG_transpose:
            reverse_transpose(s, n, g)
        elif n.op == FG_broadcast:
            reverse_broadcast(s, n, g)
        elif n.op == FG_flip:
            reverse_flip(s, n, g)
        elif n.op == FG_item:
            reverse_item(s, n, g, number)
        elif n.op == FG_gather:
            reverse_gather(s, n, g, number)
        elif n.op == FG_scatter:
            reverse_scatter(s, n, g)
        elif n.op == FG_cast:
            reverse_cast(s, n, g, number)
        elif n.op == FG_sum:
            reverse_sum(s, n, g, number)
        elif n.op == FG_place:
            reverse_place(s, n, g)
        elif n.op == FG_prod or n.op == FG_max or n.op == FG_min or n.op == FG_logsumexp:
            reverse_reduction(s, n, g, number)
        else:
            raise NoDerivativeError(f"{fg_op_info[n.op].name.decode()}: there is no rule for its "
                                    "derivative in reverse mode")
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


# ---- Python rules ---------------------------------------------------------------------------

cdef bint rule_of_numbers(FgNode *n) except -1:
    """Whether the rule of a custom node may be run in the middle of a sweep with numbers: it uses what
    it is given alone, so that it meets no node of the tape that is swept."""
    return n.constant != 0


cdef int reverse_result(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    """A result's adjoint waits until the rule is run."""
    cdef dict waiting
    cdef object key = n.a
    if s.cotangents == NULL:
        waiting = {}
        Py_INCREF(waiting)
        s.cotangents = <PyObject *>waiting
    waiting = <dict>s.cotangents
    if key not in waiting:
        waiting[key] = [None] * attr_items(node_at(n.a).attr)[0]
    (<list>waiting[key])[n.index] = (
        tensor_of_value(shape_ref(n.shape), value_ref(g), n.dtype) if n.rank
        else scalar_constant(number, n.dtype, n.flags & FG_WEAK))
    mark(s, n.a)
    return 0


cdef int reverse_custom(Sweep *s, FgNode *n, uint32_t id) except -1:
    """Run the rule on numbers. It may record and sweep itself, on a tape of its own: this one waits."""
    cdef object rule = attr_object(n.attr)
    cdef list ids = custom_operands(n)
    cdef list cotangents = (<dict>s.cotangents).pop(<object>id)
    cdef list needed = [o != 0 and wanted(s, <uint32_t>o) for o in ids]
    cdef list answer
    cdef Tensor t
    cdef FgNode *x
    cdef int i, before = get_not_recording()
    if True not in needed:
        return 0
    set_thread_tape(tape_spare(s.tape))
    set_not_recording(1)
    try:
        answer = rule_answer(rule, rule.pull(cotangents, needed), len(ids))
    finally:
        set_not_recording(before)
        set_thread_tape(s.tape)
    for i in range(len(ids)):
        if needed[i] and answer[i] is not None:
            x = node_at(<uint32_t>ids[i])
            t = rule_tensor(rule, answer[i], x)
            if x.rank:
                contribute_value(s, <uint32_t>ids[i], value_ref(value_of(t.node, t.id)))
            else:
                contribute_number(s, <uint32_t>ids[i], t.node.re)
    return 0


# ---- reshape, transpose, broadcast, flip: views ---------------------------------------------

cdef bint strides_seen(FgShape *s, const int64_t *own, int rank, const int64_t *dims,
                       int64_t *strides) noexcept:
    """Whether memory with those strides can be seen in another shape, not empty, and how: axes that
    are joined must run on in one another (as NumPy finds views)."""
    cdef int64_t old[64]
    cdef int64_t step[64]
    cdef int64_t joined, split
    cdef int i, count = 0, a = 0, b = 0, first, start, k
    for i in range(s.rank):
        if s.dims[i] != 1:
            old[count] = s.dims[i]
            step[count] = own[i]
            count += 1
    while a < count and b < rank:
        first, start = a, b
        joined, split = old[a], dims[b]
        while joined != split:
            if joined < split:
                a += 1
                joined *= old[a]
            else:
                b += 1
                split *= dims[b]
        for k in range(first, a):
            if step[k] != old[k + 1] * step[k + 1]:
                return False
        strides[b] = step[a]
        for k in range(b - 1, start - 1, -1):
            strides[k] = strides[k + 1] * dims[k + 1]
        a += 1
        b += 1
    for k in range(b, rank):        # axes of length 1
        strides[k] = 0
    return True


cdef Tensor push_reshape(Operand *x, int rank, const int64_t *dims, bint running_on=False):
    """The same entries in another shape; a view where the memory allows one, with `running_on` only
    one without gaps. One of the dims may be -1."""
    cdef FgShape *shape
    cdef FgValue *v
    cdef FgValue *w
    cdef int64_t fixed[64]
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int64_t known = 1, size = 1 if x.shape == NULL else x.shape.size
    cdef int i, free_axis = -1
    cdef Tensor t
    for i in range(rank):
        fixed[i] = dims[i]
        if dims[i] == -1 and free_axis < 0:
            free_axis = i
        elif dims[i] < 0:
            raise ValueError("reshape: can only specify one unknown dimension, got "
                             f"{dims_tuple(rank, dims)}")
        else:
            known *= dims[i]
    if free_axis >= 0:
        fixed[free_axis] = size // known if known else 0
        known *= fixed[free_axis]
    if known != size or (free_axis >= 0 and known == 0 and size):
        raise ValueError(f"reshape: cannot reshape array of size {size} with shape "
                         f"{shape_text(x.shape)} into shape {dims_tuple(rank, dims)}")
    if x.shape == NULL and rank == 0:
        t = push_shaped(FG_reshape, x.dtype, FG_PYTHON if x.weak else 0, NULL, NULL, x.number, x,
                        NULL, 0, 0)
        if not is_float(x.dtype):
            t.node.value = <FgValue *><void *>operand_whole(x)
        return t
    if rank == 0:
        w = value_contiguous(x.shape, x.value, x.dtype)
        try:
            if not is_float(x.dtype) and not x.needs:
                return whole_constant(w.data, x.dtype)
            t = push_shaped(FG_reshape, x.dtype, 0, NULL, NULL, scalar_number(w.data, x.dtype), x,
                            NULL, 0, 0)
            if not is_float(x.dtype):
                t.node.value = <FgValue *><void *>scalar_whole(w.data, x.dtype)
            return t
        finally:
            value_release(w)
    shape = shape_new(rank, fixed)
    try:
        if x.shape == NULL:
            v = pool_take(item_size(x.dtype))
            operand_store(v.data, x, x.dtype)
        elif (x.value.contiguous or x.value.uniform or running_on or size == 0
                or not strides_found(x, rank, fixed, own, strides)):
            w = value_contiguous(x.shape, x.value, x.dtype)
            try:
                v = value_view(w, w.data, rank, NULL, True)
            finally:
                value_release(w)
        else:
            v = value_strided(x.value, x.value.data, shape, strides, item_size(x.dtype))
    except BaseException:
        shape_release(shape)
        raise
    return push_shaped(FG_reshape, x.dtype, 0, shape, v, 0, x, NULL, 0, 0)


cdef bint strides_found(Operand *x, int rank, const int64_t *dims, int64_t *own,
                        int64_t *strides) noexcept:
    strides_of(x.shape, x.value, item_size(x.dtype), own)
    return strides_seen(x.shape, own, rank, dims, strides)


cdef int number_store(void *data, double number, int dtype) except -1:
    """One element of any dtype the core holds."""
    if dtype == FG_FLOAT64:
        (<double *>data)[0] = number
    elif dtype == FG_FLOAT32:
        (<float *>data)[0] = <float>number
    elif dtype == FG_BOOL:
        (<uint8_t *>data)[0] = number != 0
    else:
        a = np.asarray(number).astype(dtypes[dtype])
        memcpy(data, PyArray_DATA(<ndarray>a), dtype_bytes[dtype])
    return 0


cdef object operand_python(Operand *x):
    """A scalar operand as a Python number; an integer with all its bits."""
    if is_float(x.dtype):
        return x.number
    if x.node != NULL:
        return scalar_python(x.node)
    if x.source != NULL and not isinstance(<object>x.source, Tensor):
        return np.asarray(<object>x.source).item()
    return bool(x.number) if x.dtype == FG_BOOL else int(x.number)


cdef int64_t operand_whole(Operand *x) except? -1:
    """The 64 bits of a scalar integer or boolean."""
    if x.node != NULL:
        return <int64_t><size_t><void *>x.node.value if x.dtype != FG_BOOL else x.node.re != 0
    a = np.asarray(operand_python(x)).astype(dtypes[x.dtype])
    return scalar_whole(PyArray_DATA(<ndarray>a), x.dtype)


cdef int operand_store(void *data, Operand *x, int dtype) except -1:
    """A scalar operand as one element of a dtype."""
    if is_float(x.dtype) or is_float(dtype) or dtype == FG_BOOL:
        return number_store(data, x.number, dtype)
    a = np.empty(1, dtypes[dtype])
    a[0] = operand_python(x)
    memcpy(data, PyArray_DATA(<ndarray>a), dtype_bytes[dtype])
    return 0


cdef int reverse_reshape(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    cdef FgNode *x = node_at(n.a)
    if x.rank == 0:
        contribute_number(s, n.a, number if n.rank == 0 else element(g, n.dtype))
    elif n.rank == 0:
        contribute_value(s, n.a, number_value(number, n.dtype))
    elif g.uniform:
        contribute_value(s, n.a, value_ref(g))
    else:
        # Contiguous memory carries no shape: the same memory serves.
        contribute_value(s, n.a, value_contiguous(n.shape, g, n.dtype))
    return 0


cdef Tensor push_transpose(Operand *x, int *axes):
    """Axis i of the result is axis axes[i] of the operand."""
    cdef int64_t dims[64]
    cdef int64_t strides[64]
    cdef int64_t own[64]
    cdef int64_t items[64]
    cdef int i, rank = x.shape.rank
    cdef FgShape *shape
    cdef FgValue *v
    strides_of(x.shape, x.value, item_size(x.dtype), own)
    dims[0] = 0                 # or gcc takes what rank 0 does not read for forgotten
    for i in range(rank):
        dims[i] = x.shape.dims[axes[i]]
        strides[i] = own[axes[i]]
        items[i] = axes[i]
    shape = shape_new(rank, dims)
    v = seen_as(x, x.value.data, shape, strides)
    return push_kept(FG_transpose, x, shape, v, rank, items, None)


cdef FgValue *value_strided(FgValue *base, char *data, FgShape *shape, int64_t *strides,
                            int64_t item) except NULL:
    """A view; recognised as contiguous where it is."""
    cdef int i
    cdef int64_t step = item
    cdef bint contiguous = True
    for i in range(shape.rank - 1, -1, -1):
        if shape.dims[i] != 1 and strides[i] != step:
            contiguous = False
        step *= shape.dims[i]
    return value_view(base, data, shape.rank, strides, contiguous or shape.size == 0)


cdef int reverse_transpose(Sweep *s, FgNode *n, FgValue *g) except -1:
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int64_t *axes = attr_items(n.attr)
    cdef int i
    if g.uniform:
        contribute_value(s, n.a, value_ref(g))
        return 0
    strides_of(n.shape, g, item_size(n.dtype), own)
    for i in range(n.rank):
        strides[axes[i]] = own[i]
    contribute_value(s, n.a, value_strided(g, g.data, node_at(n.a).shape, strides,
                                           item_size(n.dtype)))
    return 0


cdef Tensor push_broadcast(Operand *x, FgShape *shape):
    """Repeated to `shape`, which is taken over and known to fit."""
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int i, j
    cdef FgValue *v
    if x.shape == NULL:
        try:
            v = number_value(0, FG_FLOAT64)
        except BaseException:
            shape_release(shape)
            raise
        try:
            operand_store(v.data, x, x.dtype)
        except BaseException:
            value_release(v)
            shape_release(shape)
            raise
    else:
        strides_of(x.shape, x.value, item_size(x.dtype), own)
        for i in range(shape.rank):
            j = i - (shape.rank - x.shape.rank)
            strides[i] = own[j] if j >= 0 and x.shape.dims[j] != 1 else 0
        v = seen_as(x, x.value.data, shape, strides)
    return push_shaped(FG_broadcast, x.dtype, 0, shape, v, 0, x, NULL, 0, 0)


cdef int reverse_broadcast(Sweep *s, FgNode *n, FgValue *g) except -1:
    cdef FgNode *x = node_at(n.a)
    cdef FgValue *wide
    if x.rank == 0:
        contribute_number(s, n.a, round_to(n.dtype, sum_all(n.shape, g, n.dtype)))
        return 0
    contribute_value(s, n.a, sum_to(n.shape, g, x.shape, n.dtype))
    return 0


cdef FgValue *sum_to(FgShape *shape, FgValue *v, FgShape *out, int dtype) except NULL:
    """Summed over the axes that `out` has not, or has with length 1."""
    cdef Walker w
    cdef Scratch scratch
    cdef Lane lane
    cdef Source source
    cdef FgValue *wide = pool_take(out.size * 8)
    cdef FgValue *y
    cdef int64_t start = 0, n
    cdef const FgLoops *loops = loops_of(dtype)
    memset(wide.data, 0, out.size * 8)
    scratch_begin(&scratch)
    source.shape = shape
    source.value = v
    source.dtype = <uint8_t>dtype
    try:
        walker_set(&w, shape, out, wide, FG_FLOAT64)
        lane_set(&lane, &source, shape, dtype, &scratch)
        with nogil:
            while start < shape.size:
                n = shape.size - start if shape.size - start < FG_BLOCK else FG_BLOCK
                scatter_block(&w, start, n, lane_block(&lane, start, n, loops), dtype)
                start += n
        y = value_narrow(wide, out, dtype)
    finally:
        scratch_clear(&scratch)
        value_release(wide)
    return y


cdef Tensor push_flip(Operand *x, uint64_t axes):
    cdef int64_t strides[64]
    cdef int64_t item = item_size(x.dtype)
    cdef char *data = x.value.data
    cdef FgValue *v
    cdef int i
    cdef int64_t mask = <int64_t>axes
    strides_of(x.shape, x.value, item, strides)
    for i in range(x.shape.rank):
        if axes >> i & 1 and x.shape.dims[i]:
            data += (x.shape.dims[i] - 1) * strides[i]
            strides[i] = -strides[i]
    v = value_strided(x.value, data, x.shape, strides, item)
    return push_kept(FG_flip, x, shape_ref(x.shape), v, 1, &mask, None)


cdef int reverse_flip(Sweep *s, FgNode *n, FgValue *g) except -1:
    cdef int64_t strides[64]
    cdef char *data = g.data
    cdef uint64_t axes = <uint64_t>attr_items(n.attr)[0]
    cdef int i
    if g.uniform:
        contribute_value(s, n.a, value_ref(g))
        return 0
    strides_of(n.shape, g, item_size(n.dtype), strides)
    for i in range(n.rank):
        if axes >> i & 1 and n.shape.dims[i]:
            data += (n.shape.dims[i] - 1) * strides[i]
            strides[i] = -strides[i]
    contribute_value(s, n.a, value_strided(g, data, n.shape, strides, item_size(n.dtype)))
    return 0


# ---- cast -----------------------------------------------------------------------------------

cdef Tensor push_cast(Operand *x, int dtype):
    """Between float32 and float64; for programs, from integers and booleans to them, too."""
    cdef FgValue *v
    cdef Operand y
    if x.shape == NULL:
        return push_shaped(FG_cast, dtype, 0, NULL, NULL, round_to(dtype, x.number), x, NULL, 0, 0)
    if x.value == NULL:
        x.value = value_of(x.node, x.id)
    if not is_float(x.dtype):
        operand_clear(&y)
        operand_replace(&y, operand_ndarray(x).astype(dtypes[dtype]))
        v = value_ref(y.value)
        operand_drop(&y)
    else:
        v = value_cast(x.shape, x.value, x.dtype, dtype)
    return push_shaped(FG_cast, dtype, 0, shape_ref(x.shape), v, 0, x, NULL, 0, 0)


cdef FgValue *value_cast(FgShape *shape, FgValue *value, int dtype, int to) except NULL:
    cdef FgValue *w = value_contiguous(shape, value, dtype)
    cdef FgValue *v
    cdef int64_t i
    try:
        v = pool_take(shape.size * item_size(to))
        if dtype == to:
            memcpy(v.data, w.data, shape.size * item_size(to))
        elif to == FG_FLOAT64:
            for i in range(shape.size):
                (<double *>v.data)[i] = (<float *>w.data)[i]
        else:
            for i in range(shape.size):
                (<float *>v.data)[i] = <float>(<double *>w.data)[i]
    finally:
        value_release(w)
    return v


cdef int reverse_cast(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    cdef FgNode *x = node_at(n.a)
    if n.rank == 0:
        contribute_number(s, n.a, round_to(x.dtype, number))
    else:
        contribute_value(s, n.a, value_cast(n.shape, g, n.dtype, x.dtype))
    return 0


# ---- basic indexing -------------------------------------------------------------------------

cdef enum:
    INDEX_INT = 0               # an entry of an axis, which goes away
    INDEX_SLICE = 1
    INDEX_NEW = 2               # a new axis of length 1
    INDEX_FIELDS = 4            # kind, start, step, count


cdef struct Index:
    int count                   # of items, INDEX_FIELDS numbers each
    int rank                    # of the result
    int64_t items[INDEX_FIELDS * 130]
    int64_t dims[64]            # of the result


cdef int index_parse(FgShape *shape, object index, Index *x) except -1:
    """Basic indexing as NumPy defines it. Returns 1 where the index is not basic."""
    cdef int rank = shape.rank if shape != NULL else 0
    cdef int axis = 0, used = 0, k
    cdef int64_t i, start, stop, step, n
    cdef bint dots = False
    cdef object item
    cdef Py_ssize_t a, b, c
    x.count = x.rank = 0
    if type(index) is not tuple:
        if PyLong_CheckExact(index) and rank:
            # The commonest case, without the detour of a tuple.
            index_integer(shape, x, 0, index)
            for axis in range(1, rank):
                index_add(x, INDEX_SLICE, 0, 1, shape.dims[axis])
            return 0
        index = (index,)
    for item in index:
        if item is Ellipsis:
            if dots:
                raise IndexError("item: an index can only have a single ellipsis ('...')")
            dots = True
        elif item is None:
            pass
        elif is_index_tensor(item) and is_traced(item):
            return 1                    # to a program it is a place among others
        elif PySlice_Check(item) or PyLong_CheckExact(item) or isinstance(item, np_integer) \
                or is_index_tensor(item) and not place_moves(item):
            used += 1
        else:
            return 1
    if used > rank:
        raise IndexError(f"item: too many indices for a Tensor of shape {shape_text(shape)}: it is "
                         f"{rank}-dimensional, but {used} were indexed")
    if len(index) > 128:
        raise IndexError("item: too many indices")
    for item in index:
        if item is Ellipsis:
            for k in range(rank - used):
                index_add(x, INDEX_SLICE, 0, 1, shape.dims[axis])
                axis += 1
        elif item is None:
            index_add(x, INDEX_NEW, 0, 0, 1)
        elif PySlice_Check(item):
            n = shape.dims[axis]
            PySlice_Unpack(item, &a, &b, &c)
            k = <int>0
            n = PySlice_AdjustIndices(n, &a, &b, c)
            index_add(x, INDEX_SLICE, a, c, n)
            axis += 1
        else:
            index_integer(shape, x, axis, item)
            axis += 1
    while axis < rank:
        index_add(x, INDEX_SLICE, 0, 1, shape.dims[axis])
        axis += 1
    return 0


cdef bint is_index_tensor(object o):
    return (isinstance(o, Tensor) and (<Tensor>o).node.rank == 0
            and not is_float((<Tensor>o).node.dtype) and (<Tensor>o).node.dtype != FG_BOOL)


cdef int index_integer(FgShape *shape, Index *x, int axis, object item) except -1:
    cdef int64_t i = PyNumber_AsSsize_t(item, <PyObject *>IndexError)
    cdef int64_t n = shape.dims[axis]
    if i < -n or i >= n:
        raise IndexError(f"item: index {i} is out of bounds for axis {axis} with size {n}")
    return index_add(x, INDEX_INT, i + n if i < 0 else i, 0, 0)


cdef int index_add(Index *x, int kind, int64_t start, int64_t step, int64_t count) except -1:
    cdef int64_t *p = &x.items[INDEX_FIELDS * x.count]
    p[0] = kind
    p[1] = start
    p[2] = step
    p[3] = count
    x.count += 1
    if kind != INDEX_INT:
        if x.rank == 64:
            raise IndexError("item: the result would have more than 64 dimensions")
        x.dims[x.rank] = count
        x.rank += 1
    return 0


cdef char *index_apply(const int64_t *items, int count, char *data, const int64_t *strides,
                       int64_t *out) noexcept nogil:
    """Where the indexed part begins, and its strides, in an array with those strides."""
    cdef int i, axis = 0, r = 0
    cdef const int64_t *p
    for i in range(count):
        p = &items[INDEX_FIELDS * i]
        if p[0] == INDEX_NEW:
            out[r] = 0
            r += 1
            continue
        # An empty slice may start past the end; nothing is read there.
        data += p[1] * strides[axis]
        if p[0] == INDEX_SLICE:
            out[r] = p[2] * strides[axis]
            r += 1
        axis += 1
    return data


cdef object push_item(Operand *x, object index):
    """x[index]."""
    cdef Index parsed
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int64_t item = item_size(x.dtype), flat = 0, step = 1
    cdef char *p
    cdef int i
    cdef FgShape *shape
    cdef FgValue *v
    cdef FgValue *w
    cdef Tensor t
    if index_parse(x.shape, index, &parsed):
        return push_gather(x, index)
    if x.shape == NULL:
        return push_reshape(x, parsed.rank, parsed.dims)
    strides_of(x.shape, x.value, item, own)
    p = index_apply(parsed.items, parsed.count, x.value.data, own, strides)
    if parsed.rank == 0 and not is_float(x.dtype) and not x.needs:
        return mask_noted(whole_constant(p, x.dtype), x, 1)
    if parsed.rank == 0:
        for i in range(x.shape.rank - 1, -1, -1):
            flat += parsed.items[INDEX_FIELDS * i + 1] * step
            step *= x.shape.dims[i]
        # The place among the entries is all the rule needs: it fits into the node.
        t = push_shaped(FG_item, x.dtype, 0, NULL, NULL, scalar_number(p, x.dtype), x, NULL, 0,
                        <double>flat)
        if not is_float(x.dtype):
            t.node.value = <FgValue *><void *>scalar_whole(p, x.dtype)
        return t
    shape = shape_new(parsed.rank, parsed.dims)
    v = seen_as(x, p, shape, strides)
    if x.needs and shape.size * 8 <= x.shape.size:
        # A small part is copied: were it a view, the next assignment to x would have to copy
        # all of x to keep it as it is.
        try:
            w = value_copy(shape, v, x.dtype)
        except BaseException:
            shape_release(shape)
            raise
        finally:
            value_release(v)
        v = w
    return push_kept(FG_item, x, shape, v, INDEX_FIELDS * parsed.count, parsed.items, None)


cdef int reverse_item(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    """Add to the part of the operand's adjoint, in place."""
    cdef FgNode *x = node_at(n.a)
    cdef FgValue *v = own_adjoint(s, n.a)
    if n.attr == 0:
        if n.dtype == FG_FLOAT64:
            (<double *>v.data)[<int64_t>n.constant] += number
        else:
            (<float *>v.data)[<int64_t>n.constant] += <float>number
        return 0
    return window_add(x.shape, v, n.attr, n.shape, g, n.dtype)


cdef int window_add(FgShape *shape, FgValue *v, uint32_t attr, FgShape *part, FgValue *g,
                    int dtype) except -1:
    """v[index] += g; v contiguous."""
    cdef FgValue *window = window_view(shape, v, attr, part, dtype)
    cdef Walker w
    cdef Scratch scratch
    cdef Lane lane
    cdef Source source
    cdef int64_t start = 0, n
    cdef const FgLoops *loops = loops_of(dtype)
    scratch_begin(&scratch)
    source.shape = part
    source.value = g
    source.dtype = <uint8_t>dtype
    try:
        walker_set(&w, part, part, window, dtype)
        lane_set(&lane, &source, part, dtype, &scratch)
        while start < part.size:
            n = part.size - start if part.size - start < FG_BLOCK else FG_BLOCK
            add_block(&w, start, n, lane_block(&lane, start, n, loops), dtype)
            start += n
    finally:
        scratch_clear(&scratch)
        value_release(window)
    return 0


cdef FgValue *window_view(FgShape *shape, FgValue *v, uint32_t attr, FgShape *part,
                          int dtype) except NULL:
    """v[index] as a view, the index being an attribute."""
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef char *p
    strides_of(shape, v, item_size(dtype), own)
    p = index_apply(attr_items(attr), <int>(attr_count(attr) // INDEX_FIELDS), v.data, own, strides)
    return value_strided(v, p, part, strides, item_size(dtype))


cdef void add_block(Walker *w, int64_t start, int64_t n, const char *source, int dtype) noexcept nogil:
    """Add a block to the places that the walk visits, no two of which are the same."""
    cdef int64_t index[64]
    cdef int64_t run, i
    cdef int last = w.rank - 1
    cdef char *p = walker_seek(w, start, index)
    cdef int64_t stride = w.strides[last]
    cdef const FgLoops *loops = loops_of(dtype)
    while n > 0:
        run = w.dims[last] - index[last]
        if run > n:
            run = n
        if stride == w.item:
            loops.accumulate(p, source, run)
        elif dtype == FG_FLOAT64:
            for i in range(run):
                (<double *>(p + i * stride))[0] += (<const double *>source)[i]
        else:
            for i in range(run):
                (<float *>(p + i * stride))[0] += (<const float *>source)[i]
        source += run * w.item
        n -= run
        p = walker_step(w, p, index, run)


# ---- indexing by arrays ---------------------------------------------------------------------

cdef object index_plain(object index):
    """The index with Tensors and lists made arrays, arrays copied: what a node may keep."""
    if get_recorder() != NULL:
        return (<Recorder>get_recorder()).index(index)
    if type(index) is tuple:
        return tuple([index_plain_item(i) for i in index])
    return index_plain_item(index)


cdef object index_plain_item(object i):
    if isinstance(i, Tensor):
        if is_float((<Tensor>i).node.dtype):
            raise IndexError("gather: a floating-point Tensor cannot be an index; write "
                             "int(t.detach()), or .astype(int) for an array of indices")
        if get_recorder() == NULL:
            plain = np.array(tensor_value(<Tensor>i))
            if plain.ndim:
                decision_by(<Tensor>i, "same", plain)
            else:
                decision_by(<Tensor>i, "int", int(plain))
            return plain
        return np.array(tensor_value(<Tensor>i))
    if isinstance(i, list):
        return np.array(sequence_array(i), dtype=None if len(i) else np.intp)
    if isinstance(i, np.ndarray):
        refuse_kind(i)
        return np.array(i)
    return i


cdef object index_settled(object index):
    """The index without objects whose own code would run while the Tensor is looked at: that code
    might assign to it."""
    cdef bint settled = True
    if type(index) is not tuple:
        return index if index_is_settled(index) else index_settled_item(index)
    for i in index:
        settled = settled and index_is_settled(i)
    return index if settled else tuple([i if index_is_settled(i) else index_settled_item(i)
                                        for i in index])


cdef inline bint index_part_is_settled(PyObject *i) noexcept:
    return i == <PyObject *>None or PyLong_CheckExact(<object>i)


cdef bint index_is_settled(object i) noexcept:
    if PyLong_Check(i) or i is None or i is Ellipsis or isinstance(i, (np_ndarray, np_generic, Tensor)):
        return True
    return (PySlice_Check(i) and index_part_is_settled((<PySliceObject *>i).start)
            and index_part_is_settled((<PySliceObject *>i).stop)
            and index_part_is_settled((<PySliceObject *>i).step))


cdef object index_settled_item(object i):
    cdef Py_ssize_t start, stop, step
    if PySlice_Check(i):
        PySlice_Unpack(i, &start, &stop, &step)
        return slice(start, stop, step)
    if hasattr(type(i), "__index__"):
        return int(i.__index__())
    if isinstance(i, list):
        return vouch(index_plain_item(i))
    return i if isinstance(i, (str, bytes, float, complex)) else np.asarray(i)


cdef object push_gather(Operand *x, object index):
    """x[index] with integer arrays or boolean masks in the index: a copy."""
    operands_hold(x, 1)                 # NumPy copies indices and entries without the GIL
    try:
        return push_gathered(x, index)
    finally:
        operands_let_go(x, 1)


cdef object push_gathered(Operand *x, object index):
    cdef object plain = index_plain(index)
    cdef object array = operand_ndarray(x)[plain]
    cdef object whole
    cdef Tensor t
    cdef Operand y
    cdef bint needs = x.needs
    if is_live(plain):
        x.needs = needs = True          # of a table that is a constant, an entry that is none
    operand_clear(&y)
    operand_array(np.asarray(array), &y)
    y.foreign = 0
    try:
        if y.shape == NULL:
            t = push_shaped(FG_gather, x.dtype, 0, NULL, NULL, y.number, x, NULL,
                            attr_new(0, NULL, plain) if needs else 0, 0)
            if not is_float(x.dtype):
                whole = np.ascontiguousarray(array)
                t.node.value = <FgValue *><void *>scalar_whole(PyArray_DATA(<ndarray>whole), x.dtype)
            return t
        return push_kept(FG_gather, x, shape_ref(y.shape), value_ref(y.value), 0, NULL, plain)
    finally:
        operand_drop(&y)


cdef int reverse_gather(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    """Entries taken several times get the sum."""
    cdef FgNode *x = node_at(n.a)
    cdef FgValue *v
    cdef object index = attr_object(n.attr)
    cdef object adjoint, gradient
    gradient = number if n.rank == 0 else value_ndarray(n.shape, g, n.dtype, False)
    if x.rank == 0:
        contribute_number(s, n.a, round_to(n.dtype, float(np.sum(gradient))))
        return 0
    v = own_adjoint(s, n.a)
    adjoint = value_ndarray(x.shape, v, x.dtype, True)
    if isinstance(index, np.ndarray) and index.dtype == np.bool_:
        adjoint[index] += gradient
    else:
        np.add.at(adjoint, index, gradient)
    return 0


# ---- assignment -----------------------------------------------------------------------------

cdef object push_assign(Tensor t, object index, object value):
    """t[index] = value for a Tensor that is no leaf: t goes on as a new version of itself."""
    cdef Operand x, v
    cdef Index parsed
    cdef FgValue *target
    cdef FgValue *part
    cdef FgShape *shape = NULL
    cdef object plain = None
    cdef Operand before
    cdef bint advanced, live = False
    cdef int dtype = t.node.dtype
    cdef uint32_t attr
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int64_t flat = 0, step = 1
    cdef int i
    cdef char *p
    cdef Tensor made
    operand_clear(&x)
    operand_clear(&v)
    operand_clear(&before)
    try:
        operand_of(value, &v, False)
        if (not is_float(dtype) and v.dtype != dtype and get_recorder() != NULL
                and not (v.needs and v.node.flags & FG_NEEDS_GRAD)):
            # What a graph assigns has the dtype of its place.
            if v.needs or isinstance(value, Tensor):
                value = cast(node_tensor(v.id) if v.needs else value, dtypes[dtype])
            else:
                value = vouch(np.array(value, dtypes[dtype]))
            operand_drop(&v)
            operand_of(value, &v, False)
        before = v
        operands_hold(&before, 1)       # NumPy converts and copies without the GIL
        if is_float(dtype):
            if not is_float(v.dtype) and v.shape != NULL and not v.needs:
                operand_replace(&v, operand_ndarray(&v).astype(dtypes[dtype]))
            elif v.dtype != dtype:
                operand_convert(&v, dtype)
        elif v.needs and v.node.flags & FG_NEEDS_GRAD and get_recording():
            raise TypeError(f"assign: a recorded {dtypes[v.dtype]} Tensor cannot be stored in a "
                            f"{dtypes[dtype]} Tensor; make the target with fastgrad.numpy.zeros(n)")
        operand_tensor(t, &x)
        if x.shape != NULL and x.value == NULL:
            x.value = value_of(x.node, x.id)
        if v.shape != NULL and v.value == NULL:
            v.value = value_of(v.node, v.id)
        if x.shape == NULL:
            return assign_scalar(t, &x, &v, index)
        advanced = index_parse(x.shape, index, &parsed)
        if not advanced and parsed.rank == 0:
            if v.shape != NULL and v.shape.size == 1:
                made = push_reshape(&v, 0, NULL)
                operand_drop(&v)
                operand_tensor(made, &v)
                Py_INCREF(made)
                v.keeper = <void *>made
            elif v.shape != NULL:
                raise ValueError("assign: setting an entry with an array of shape "
                                 + shape_text(v.shape))
            for i in range(x.shape.rank - 1, -1, -1):
                flat += parsed.items[INDEX_FIELDS * i + 1] * step
                step *= x.shape.dims[i]
            target = assign_memory(t, &x)
            try:
                made = assign_node(&x, &v, target, 0, <double>flat)
                operand_store(target.data + flat * item_size(x.dtype), &v, x.dtype)
            except BaseException:
                value_release(target)
                raise
            return assign_version(t, &x, made, target)
        if advanced:
            plain = index_plain(index)
            operand_tensor_ready(t, &x)
            dims = np.shape(operand_ndarray(&x)[plain])
            assign_unchanged(t, &x)
            for i in range(len(dims)):
                parsed.dims[i] = dims[i]
            parsed.rank = <int>len(dims)
            live = is_live(plain)
        shape = shape_new(parsed.rank, parsed.dims)
        if v.shape != NULL:
            fits_into(v.shape, shape)
        if live and is_literal(&x):     # at other places the constant shows again
            target = value_copy(x.shape, x.node.value, x.dtype)
        else:
            target = assign_memory(t, &x)
        x.needs = x.needs or live
        try:
            if not x.needs and not v.needs:
                attr = 0
            elif advanced:
                attr = attr_new(0, NULL, plain)
            else:
                attr = attr_new(INDEX_FIELDS * parsed.count, parsed.items, None)
            made = assign_node(&x, &v, target, attr, 0)
            if advanced:
                view = value_ndarray(x.shape, target, x.dtype, True)
                view[plain] = operand_python(&v) if v.shape == NULL else operand_ndarray(&v)
                view = None
            else:
                strides_of(x.shape, target, item_size(x.dtype), own)
                p = index_apply(parsed.items, parsed.count, target.data, own, strides)
                part = value_strided(target, p, shape, strides, item_size(x.dtype))
                try:
                    view = value_ndarray(shape, part, x.dtype, True)
                    view[...] = operand_python(&v) if v.shape == NULL else operand_ndarray(&v)
                    view = None
                finally:
                    value_release(part)
            assign_unchanged(t, &x)
        except BaseException:
            value_release(target)
            raise
        return assign_version(t, &x, made, target)
    finally:
        operand_drop(&v)
        operands_let_go(&before, 1)
        if shape != NULL:
            shape_release(shape)


cdef inline bint is_live(object plain) except -1:
    """Whether a recording knows the index for one that depends on an input: what is done with it is
    an operation, whatever it is done to."""
    return get_recorder() != NULL and id(plain) in (<Recorder>get_recorder()).indices


cdef int assign_unchanged(Tensor t, Operand *x) except -1:
    """After NumPy has run without the GIL."""
    if t.id != x.id:
        raise RuntimeError("assign: another thread has changed the Tensor meanwhile")
    return 0


cdef int fits_into(FgShape *v, FgShape *shape) except -1:
    """Whether a value of shape v can be assigned to a part of that shape; leading axes of length
    1 are allowed, as in NumPy."""
    cdef int i, extra = v.rank - shape.rank
    cdef bint fits = True
    for i in range(v.rank):
        if i < extra:
            fits = fits and v.dims[i] == 1
        else:
            fits = fits and (v.dims[i] == 1 or v.dims[i] == shape.dims[i - extra])
    if not fits:
        raise ValueError(f"assign: could not broadcast input array from shape {shape_text(v)} into "
                         f"shape {shape_text(shape)}")
    return 0


cdef FgValue *assign_memory(Tensor t, Operand *x) except NULL:
    """Memory with the present contents that may be written to: the Tensor's own where nothing
    else needs it as it is, else a copy. One reference goes to the caller."""
    cdef FgValue *v = x.node.value
    if v.refs == 1 and value_unique(v) and x.node.uses == 0:
        return value_ref(v)
    return value_copy(x.shape, v, x.dtype)


cdef inline bint is_parameter(FgNode *n) noexcept:
    """Whether it is a leaf of the user's that requires a gradient."""
    return (n.flags & (FG_LEAF | FG_NEEDS_GRAD | FG_CONSUMED)) == FG_LEAF | FG_NEEDS_GRAD


cdef Tensor assign_node(Operand *x, Operand *v, FgValue *target, uint32_t attr, double constant):
    """What t will stand for once the memory has been written to, if it needs a node of its own: made
    before, since it may fail, and the memory may be what t shows now. Takes over the attribute."""
    cdef FgNode *old = x.node
    if x.needs or v.needs:
        return push_shaped(FG_assign, x.dtype, 0, shape_ref(old.shape), value_ref(target), 0,
                           x if x.needs or get_keeping() else NULL, v, attr, constant)
    if not is_parameter(old) and old.flags & FG_NEEDS_GRAD:
        # A recorded result, changed where nothing is recorded: it has no history from here.
        return tensor_of_value(shape_ref(old.shape), value_ref(target), old.dtype)
    return None


cdef object assign_version(Tensor t, Operand *x, Tensor made, FgValue *target):
    """Let t stand for the written memory, which is taken over."""
    cdef FgNode *old = x.node
    t.version += 1
    if made is not None:
        if old.value == target:
            # Nothing reads the old version: its memory moves on to the new one.
            node_replace(old, NULL)
        value_release(target)
        tensor_become(t, made)
    elif old.value == target:
        value_release(target)
    elif old.refs == 1 or not old.flags & FG_NEEDS_GRAD and old.uses == 0:
        node_replace(old, target)
    else:
        tensor_renew(t, target)
    return None


cdef object assign_scalar(Tensor t, Operand *x, Operand *v, object index):
    """t[()] = value, t[...] = value."""
    cdef Tensor made
    if index is not Ellipsis and index != () and index != (Ellipsis,):
        raise IndexError("assign: too many indices for a Tensor of shape ()")
    if v.shape != NULL and v.shape.size != 1:
        raise ValueError(f"assign: could not broadcast input array from shape {shape_text(v.shape)} "
                         "into shape ()")
    if v.shape != NULL and v.value == NULL:
        v.value = value_of(v.node, v.id)
    made = push_reshape(v, 0, NULL)
    if made.node.dtype != x.dtype or made.node.flags & FG_WEAK and not t.node.flags & FG_WEAK:
        made = cast(made, dtypes[x.dtype])      # what is stored takes the kind of the place
    if made.node.flags & FG_NEEDS_GRAD or x.needs or not is_parameter(t.node):
        tensor_become(t, made)
    else:
        tensor_renew(t, NULL)           # a parameter, outside recording
        t.node.re = made.node.re
    return None


cdef int reverse_assign(Sweep *s, FgNode *n, FgValue **adjoint) except -1:
    """The assigned part of the adjoint goes to the value, the rest to what was there before."""
    cdef FgValue *g = adjoint[0]
    cdef FgValue *w
    cdef FgNode *x
    cdef FgShape *part = NULL
    cdef Index parsed
    cdef int64_t dims[64]
    cdef int64_t *items
    cdef int i, r = 0
    cdef int64_t flat
    cdef object index = None, view, piece, winner, places
    if not value_unique(g):
        w = value_copy(n.shape, g, n.dtype)
        value_release(g)
        g = adjoint[0] = w
    if n.attr == 0:
        flat = <int64_t>n.constant
        if n.b and wanted(s, n.b):
            contribute_number(s, n.b, (<double *>g.data)[flat] if n.dtype == FG_FLOAT64
                              else (<float *>g.data)[flat])
        if n.dtype == FG_FLOAT64:
            (<double *>g.data)[flat] = 0
        else:
            (<float *>g.data)[flat] = 0
    elif attrs[n.attr].owner == NULL:
        items = attr_items(n.attr)
        for i in range(<int>(attr_count(n.attr) // INDEX_FIELDS)):
            if items[INDEX_FIELDS * i] != INDEX_INT:
                dims[r] = items[INDEX_FIELDS * i + 3]
                r += 1
        part = shape_new(r, dims)
        try:
            w = window_view(n.shape, g, n.attr, part, n.dtype)
            try:
                view = value_ndarray(part, w, n.dtype, True)
                if n.b and wanted(s, n.b):
                    contribute_array(s, n.b, np.array(view))
                view[...] = 0
                view = None
            finally:
                value_release(w)
        finally:
            shape_release(part)
    else:
        index = attr_object(n.attr)
        view = value_ndarray(n.shape, g, n.dtype, True)
        if n.b and wanted(s, n.b):
            piece = view[index]
            # Of entries assigned twice the last one stands: only it gets the adjoint.
            places = np.empty(view.shape, dtype=np.intp)
            winner = np.arange(piece.size).reshape(piece.shape)
            places[index] = winner
            contribute_array(s, n.b, np.where(places[index] == winner, piece, 0))
        view[index] = 0
        view = None
    if n.a and wanted(s, n.a):
        adjoint[0] = NULL
        contribute_value(s, n.a, g)
    return 0


cdef int contribute_array(Sweep *s, uint32_t id, object array) except -1:
    """Add an ndarray that nobody else holds, summed over broadcast axes."""
    cdef FgNode *n = node_at(id)
    cdef Operand x
    cdef object shape = tensor_dims(n)
    cdef int extra
    if array.shape != shape:
        extra = array.ndim - len(shape)
        if extra > 0:
            array = array.sum(axis=tuple(range(extra)))
        elif extra < 0:
            # A value assigned to a part of fewer axes has leading axes of length 1 more.
            array = array.reshape((1,) * -extra + array.shape)
        axes = tuple([i for i in range(array.ndim) if shape[i] == 1
                      and array.shape[i] != 1])
        if axes:
            array = array.sum(axis=axes, keepdims=True)
        array = array.reshape(shape)
    array = np.asarray(array, dtype=dtypes[n.dtype])
    operand_clear(&x)
    operand_array(<ndarray>array, &x)
    if n.rank == 0:
        return contribute_number(s, id, x.number)
    try:
        return contribute_value(s, id, value_ref(x.value))
    finally:
        operand_drop(&x)


# ---- concatenate ----------------------------------------------------------------------------

cdef object push_concatenate(object arrays, object axis, bint scalars):
    """Arrays joined along an axis; with `scalars`, 0-d operands to a vector."""
    cdef list items = list(arrays)
    cdef int count = <int>len(items), i, weak, dtype, rank = 0
    cdef FgValue *memory
    cdef FgValue *out = NULL
    cdef Operand *x
    cdef Operand *before
    cdef bint needs = False, held = False
    cdef uint32_t attr
    cdef object parts, sizes, view
    cdef FgShape *shape
    cdef int64_t dims[64]
    cdef int along
    cdef Tensor t
    if count == 0:
        raise ValueError("concatenate: need at least one array")
    if axis is None:
        items = [push_ravel(item) for item in items]
        axis = 0
    items = [operand_settled(item) for item in items]
    memory = pool_take(2 * count * sizeof(Operand))
    x = <Operand *>memory.data
    before = x + count
    for i in range(count):
        operand_clear(&x[i])
    try:
        for i in range(count):
            operand_ready(items[i], &x[i])
            needs = needs or x[i].needs
            if x[i].shape == NULL and not scalars:
                raise ValueError("concatenate: zero-dimensional arrays cannot be concatenated; "
                                 "use fastgrad.numpy.stack or fastgrad.numpy.array([...])")
        if not scalars:                 # NumPy converts and joins without the GIL
            held = True
            for i in range(count):      # gcc 16 warns of a memcpy whose count might be negative
                before[i] = x[i]
            operands_hold(before, count)
        dtype = common_dtype(x, count, &weak)
        if dtype == -2 and needs:
            return derived("numpy.array" if scalars else "numpy.concatenate",
                           np.array if scalars else np.concatenate,
                           (items,) if scalars else (items, axis), {})
        if dtype == -2 or not needs:
            parts = [operand_ndarray(&x[i]) for i in range(count)]
            return made_joined(
                mask_noted(tensor_constant(np.array(parts) if scalars
                                           else np.concatenate(parts, axis)), x, count),
                "numpy.array" if scalars else "numpy.concatenate",
                np.array if scalars else np.concatenate, (items,) if scalars else (items, axis))
        for i in range(count):
            operand_convert(&x[i], dtype)
            if x[i].shape != NULL and x[i].value == NULL:
                x[i].value = value_of(x[i].node, x[i].id)
        rank = 1 if scalars else x[0].shape.rank
        along = axis_of(axis, rank, "concatenate")
        for i in range(rank):
            dims[i] = 1 if scalars else x[0].shape.dims[i]
        sizes = []
        for i in range(count):
            if scalars:
                sizes.append(1)
                continue
            if x[i].shape.rank != rank:
                raise ValueError(
                    "concatenate: all the input arrays must have the same number of dimensions, "
                    "but the shapes are " + ", ".join(shape_text(x[k].shape) for k in range(count)))
            for k in range(rank):
                if k != along and x[i].shape.dims[k] != dims[k]:
                    raise ValueError(
                        "concatenate: the shapes must agree except along the axis "
                        f"{along}: " + ", ".join(shape_text(x[k].shape) for k in range(count)))
            sizes.append(x[i].shape.dims[along])
        dims[along] = 0
        for i in range(count):
            dims[along] += <int64_t>sizes[i]
        shape = shape_new(rank, dims)
        try:
            out = pool_take(shape.size * item_size(dtype))
            if scalars:
                for i in range(count):
                    number_store(out.data + i * item_size(dtype), x[i].number, dtype)
            else:
                np.concatenate([operand_ndarray(&x[i]) for i in range(count)], along,
                               out=value_ndarray(shape, out, dtype, True))
            attr = concatenate_attr(x, count, along, tuple(sizes))
        except BaseException:
            shape_release(shape)
            if out != NULL:
                value_release(out)
            raise
        return push_shaped(FG_concatenate, dtype, 0, shape, out, 0, NULL, NULL, attr, 0)
    finally:
        operands_drop(x, count)
        if held:
            operands_let_go(before, count)
        value_release(memory)


cdef uint32_t concatenate_attr(Operand *x, int count, int along, tuple sizes) except 0:
    """The axis and the identities of the operands, each counted once more."""
    cdef int64_t *ids = <int64_t *>fg_calloc(count + 1, 8)
    cdef int i
    if ids == NULL:
        raise MemoryError()
    ids[0] = along
    try:
        for i in range(count):
            if x[i].needs:
                ids[i + 1] = x[i].id
                x[i].node.refs += 1
            elif get_keeping():
                ids[i + 1] = leaf_constant(&x[i])
        return attr_new(count + 1, ids, sizes)
    except BaseException:
        for i in range(count):
            if ids[i + 1]:
                node_drop(<uint32_t>ids[i + 1])
        raise
    finally:
        fg_free(ids)


cdef int axis_of(object axis, int rank, str name) except -1:
    cdef int64_t a = PyNumber_AsSsize_t(axis, NULL)      # clipped: out of bounds
    if a < -rank or a >= rank:
        raise np.exceptions.AxisError(f"{name}: axis {axis} is out of bounds for array of dimension "
                                      f"{rank}")
    return <int>(a + rank if a < 0 else a)


cdef int reverse_concatenate(Sweep *s, FgNode *n, FgValue *g) except -1:
    cdef int64_t strides[64]
    cdef int64_t at = 0
    cdef int along = <int>attr_items(n.attr)[0]
    cdef object sizes = attr_object(n.attr)
    cdef int i
    cdef uint32_t id
    cdef FgValue *whole
    strides_of(n.shape, g, item_size(n.dtype), strides)
    for i in range(len(sizes)):
        id = <uint32_t>attr_items(n.attr)[i + 1]
        if id and wanted(s, id):
            if node_at(id).rank == 0:
                contribute_number(s, id, scalar_number(g.data + at * strides[along], n.dtype))
            elif g.uniform:
                contribute_value(s, id, value_ref(g))
            else:
                contribute_value(s, id, value_strided(g, g.data + at * strides[along],
                                                      node_at(id).shape, strides,
                                                      item_size(n.dtype)))
        at += <int64_t>sizes[i]
    return 0


# ---- sum ------------------------------------------------------------------------------------

cdef int axes_of(object axis, int rank, uint64_t *mask, str name) except -1:
    """The axes to reduce over as bits: an int, a tuple, or None for all."""
    cdef int a
    mask[0] = 0
    if axis is None:
        mask[0] = (<uint64_t>1 << rank) - 1 if rank < 64 else ~<uint64_t>0
        return 0
    if type(axis) is not tuple:
        axis = (axis,)
    for item in axis:
        a = axis_of(item, rank, name)
        if mask[0] >> a & 1:
            raise ValueError(f"{name}: duplicate value in 'axis' {axis}")
        mask[0] |= <uint64_t>1 << a
    return 0


cdef FgShape *reduced_shape(FgShape *shape, uint64_t mask, bint keepdims) except? NULL:
    """The shape after reducing the masked axes; NULL for a scalar."""
    cdef int64_t dims[64]
    cdef int i, r = 0
    for i in range(shape.rank):
        if not mask >> i & 1:
            dims[r] = shape.dims[i]
            r += 1
        elif keepdims:
            dims[r] = 1
            r += 1
    if r == 0:
        return NULL
    return shape_new(r, dims)


cdef Tensor push_sum(Operand *x, uint64_t mask, bint keepdims):
    """The sum over the masked axes of a float operand."""
    cdef Total total
    cdef double number = 0
    cdef FgShape *out
    cdef FgShape *kept
    cdef FgValue *v
    cdef int64_t bits = <int64_t>mask
    cdef int rank
    if x.shape == NULL:
        return push_shaped(FG_sum, x.dtype, FG_PYTHON if x.weak else 0, NULL, NULL, x.number, x,
                           NULL, 0, 0)
    rank = x.shape.rank
    if mask == ((<uint64_t>1 << rank) - 1 if rank < 64 else ~<uint64_t>0) and not keepdims:
        if x.value == NULL:
            total.count = 0
            run_flush(directory[x.id >> FG_SEGMENT_BITS].tape, x.node, &total)
            number = total_value(&total)
        elif x.shape.size >= UNLOCK:
            with nogil:
                number = sum_all(x.shape, x.value, x.dtype)
        else:
            number = sum_all(x.shape, x.value, x.dtype)
        return push_shaped(FG_sum, x.dtype, 0, NULL, NULL, round_to(x.dtype, number), x, NULL, 0, 0)
    if x.value == NULL:
        x.value = value_of(x.node, x.id)
    kept = reduced_shape(x.shape, mask, True)
    try:
        v = sum_to(x.shape, x.value, kept, x.dtype)
    finally:
        shape_release(kept)
    try:
        out = reduced_shape(x.shape, mask, keepdims)
    except BaseException:
        value_release(v)
        raise
    return push_kept(FG_sum, x, out, v, 1, &bits, None)


cdef int reverse_sum(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    """Every entry that was summed gets the adjoint of its sum: a view, nothing is stored."""
    cdef FgNode *x = node_at(n.a)
    if x.rank == 0:
        contribute_number(s, n.a, number)
    elif n.rank == 0:
        contribute_value(s, n.a, number_value(number, n.dtype))
    elif g.uniform:
        contribute_value(s, n.a, value_ref(g))
    else:
        contribute_value(s, n.a, expand_view(x.shape, n.shape, g, <uint64_t>attr_items(n.attr)[0],
                                             n.dtype))
    return 0


cdef FgValue *expand_view(FgShape *full, FgShape *shape, FgValue *g, uint64_t mask,
                          int dtype) except NULL:
    """A reduced array seen in the shape before the reduction, kept axes or not."""
    cdef int64_t own[64]
    cdef int64_t strides[64]
    cdef int i, r = 0
    cdef bint keepdims = shape.rank == full.rank
    strides_of(shape, g, item_size(dtype), own)
    for i in range(full.rank):
        if mask >> i & 1:
            strides[i] = 0
            r += keepdims
        else:
            strides[i] = own[r]
            r += 1
    return value_strided(g, g.data, full, strides, item_size(dtype))


# ---- prod, max, min, logsumexp ---------------------------------------------------------------

# An array seen as rows to be reduced, whatever the axes: the kept axes count the rows, the
# reduced ones run along them.
cdef struct Rows:
    Walker walker
    int64_t count, length
    int64_t together            # rows that are worked on at a time


cdef void rows_set(Rows *r, FgShape *shape, FgValue *value, int dtype, uint64_t mask) noexcept nogil:
    cdef int64_t own[64]
    cdef int64_t dim
    cdef int i, k = 0
    cdef int reduced
    strides_of(shape, value, item_size(dtype), own)
    r.count = r.length = 1
    r.walker.data = value.data
    r.walker.item = <int>item_size(dtype)
    r.walker.boolean = 0
    for reduced in range(2):
        for i in range(shape.rank):
            dim = shape.dims[i]
            if <int>(mask >> i & 1) != reduced:
                continue
            if reduced:
                r.length *= dim
            else:
                r.count *= dim
            if dim == 1:
                continue
            if k and r.walker.strides[k - 1] == own[i] * dim:
                r.walker.dims[k - 1] *= dim
                r.walker.strides[k - 1] = own[i]
            else:
                r.walker.dims[k] = dim
                r.walker.strides[k] = own[i]
                k += 1
    if k == 0:
        r.walker.dims[0] = 1
        r.walker.strides[0] = 0
        k = 1
    r.walker.rank = k
    r.together = FG_BLOCK // r.length if 0 < r.length < FG_BLOCK else 1


cdef inline double entry(const char *p, int64_t i, bint wide) noexcept nogil:
    return (<const double *>p)[i] if wide else (<const float *>p)[i]


cdef inline void entry_set(char *p, int64_t i, double x, bint wide) noexcept nogil:
    if wide:
        (<double *>p)[i] = x
    else:
        (<float *>p)[i] = <float>x


cdef void rows_shift(const FgLoops *loops, char *p, int64_t count, int64_t length, double *top,
                     bint wide) noexcept nogil:
    """Rows to exp(row - top), top being the maximum of each; an infinite one shifts by nothing."""
    cdef int64_t i, k
    cdef double shift
    cdef char *row
    for i in range(count):
        row = p + i * length * (8 if wide else 4)
        top[i] = shift = loops.max(row, length)
        if shift - shift != 0:
            shift = 0
        for k in range(length):
            entry_set(row, k, entry(row, k, wide) - shift, wide)
    loops.value[FG_exp](p, NULL, NULL, p, count * length)


cdef void rows_reduce(int op, Rows *r, int dtype, char *out, char *block, double *top) noexcept nogil:
    """One number a row."""
    cdef const FgLoops *loops = loops_of(dtype)
    cdef bint wide = dtype == FG_FLOAT64
    cdef int64_t start = 0, n, i, k
    cdef double y
    cdef char *row
    while start < r.count:
        n = r.together if r.count - start > r.together else r.count - start
        gather_block(&r.walker, start * r.length, n * r.length, block, loops)
        if op == FG_logsumexp:
            rows_shift(loops, block, n, r.length, top, wide)
        for i in range(n):
            row = block + i * r.length * r.walker.item
            if op == FG_max:
                y = loops.max(row, r.length)
            elif op == FG_min:
                y = loops.min(row, r.length)
            elif op == FG_prod:
                y = 1
                for k in range(r.length):
                    y = round_to(dtype, y * entry(row, k, wide))
            else:
                # An infinite maximum is the result; NaN comes out of the sum.
                y = loops.sum(row, r.length)
                y = top[i] if top[i] - top[i] != 0 and y == y else log(y) + top[i]
            entry_set(out, start + i, y, wide)
        start += n


cdef void rows_weigh(int op, Rows *r, int dtype, const char *g, char *out, double *top) noexcept nogil:
    """Adjoint of every entry: that of its row times the entry's weight, exactly zero where either
    is. `out` has the rows one after the other."""
    cdef const FgLoops *loops = loops_of(dtype)
    cdef bint wide = dtype == FG_FLOAT64
    cdef int64_t start = 0, n, i, k, ties
    cdef double y, x, t, total
    cdef char *row
    while start < r.count:
        n = r.together if r.count - start > r.together else r.count - start
        row = out + start * r.length * r.walker.item
        gather_block(&r.walker, start * r.length, n * r.length, row, loops)
        if op == FG_logsumexp:
            rows_shift(loops, row, n, r.length, top, wide)
        for i in range(n):
            row = out + (start + i) * r.length * r.walker.item
            t = entry(g, start + i, wide)
            if op == FG_prod:
                prod_weigh(row, r.length, t, dtype)
                continue
            if op == FG_logsumexp:
                total = 0
                for k in range(r.length):
                    if top[i] - top[i] != 0 and top[i] == top[i]:
                        # exp(inf) are the entries that count; all -inf: none does.
                        entry_set(row, k, entry(row, k, wide) > 1e300, wide)
                    total += entry(row, k, wide)
                total = 1 / total if total != 0 else 0
                for k in range(r.length):
                    x = entry(row, k, wide) * total
                    entry_set(row, k, 0 if x == 0 or t == 0 else t * x, wide)
                continue
            y = loops.max(row, r.length) if op == FG_max else loops.min(row, r.length)
            ties = 0
            for k in range(r.length):
                x = entry(row, k, wide)
                ties += x == y or (x != x and y != y)
            for k in range(r.length):
                x = entry(row, k, wide)
                entry_set(row, k, t / ties if x == y or (x != x and y != y) else 0, wide)
        start += n


cdef void prod_weigh(char *row, int64_t n, double g, int dtype) noexcept nogil:
    """For each entry the product of the others: never by division, so that zeros are exact."""
    cdef bint wide = dtype == FG_FLOAT64
    cdef int64_t k
    cdef double w
    cdef int64_t zeros = 0, at = 0
    # With two zeros every product of others is zero, with one only its own is not.
    for k in range(n):
        if entry(row, k, wide) == 0:
            zeros += 1
            at = k
    if zeros > 1 or g == 0:
        for k in range(n):
            entry_set(row, k, 0, wide)
        return
    if zeros == 1:
        w = 1
        for k in range(n):
            if k != at:
                w *= entry(row, k, wide)
                entry_set(row, k, 0, wide)
        entry_set(row, at, 0 if w == 0 else g * w, wide)
        return
    prod_others(row, n, g, wide)


cdef double prod_others(char *row, int64_t n, double before, bint wide) noexcept nogil:
    """Entries to `before` times the product of all others; returns the product of all. By halves:
    n log n products, nothing stored, and overflow only where the result overflows too."""
    cdef int64_t half = n // 2
    cdef double x, left, right
    cdef int64_t item = 8 if wide else 4
    if n == 1:
        x = entry(row, 0, wide)
        entry_set(row, 0, before, wide)
        return x
    left = prod_all(row, half, wide)
    right = prod_all(row + half * item, n - half, wide)
    prod_others(row, half, before * right, wide)
    prod_others(row + half * item, n - half, before * left, wide)
    return left * right


cdef double prod_all(const char *row, int64_t n, bint wide) noexcept nogil:
    cdef double y = 1
    cdef int64_t k
    for k in range(n):
        y *= entry(row, k, wide)
    return y


cdef object push_reduction(int op, Operand *x, uint64_t mask, bint keepdims):
    """A reduction of a float operand."""
    cdef Rows r
    cdef FgShape *shape = NULL
    cdef FgValue *out = NULL
    cdef Scratch scratch
    cdef double *top
    cdef char *block
    cdef double number
    cdef int64_t bits = <int64_t>mask
    if x.shape == NULL:
        return push_reshape(x, 0, NULL)
    rows_set(&r, x.shape, x.value, x.dtype, mask)
    if r.length == 0 and (op == FG_max or op == FG_min):
        raise ValueError(f"{fg_op_info[op].name.decode()}: zero-size array of shape "
                         f"{shape_text(x.shape)} has no {fg_op_info[op].name.decode()}imum "
                         "along these axes")
    scratch_begin(&scratch)
    try:
        shape = reduced_shape(x.shape, mask, keepdims)
        out = pool_take(r.count * item_size(x.dtype))
        if r.length == 0:
            loops_of(x.dtype).fill(out.data, 1 if op == FG_prod else -INFINITY, r.count)
        elif r.count == 1 and op != FG_logsumexp and op != FG_prod and x.value.contiguous \
                and not x.value.uniform:
            number = (loops_of(x.dtype).max if op == FG_max else loops_of(x.dtype).min)(
                x.value.data, r.length)
            number_store(out.data, number, x.dtype)
        elif r.count:
            block = scratch_take(&scratch, r.together * r.length * item_size(x.dtype))
            top = <double *>scratch_take(&scratch, r.together * 8)
            with nogil:
                rows_reduce(op, &r, x.dtype, out.data, block, top)
        if shape == NULL:
            number = scalar_number(out.data, x.dtype)
            return push_shaped(op, x.dtype, 0, NULL, NULL, number, x, NULL,
                               attr_new(1, &bits, None) if x.needs else 0, 0)
        return push_kept(op, x, shape_ref(shape), value_ref(out), 1, &bits, None)
    finally:
        scratch_clear(&scratch)
        if shape != NULL:
            shape_release(shape)
        if out != NULL:
            value_release(out)


cdef int reverse_reduction(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    cdef FgNode *x = node_at(n.a)
    cdef FgValue *out = reduction_weights(n, x, g, number)
    return contribute_value(s, n.a, out)


cdef FgValue *reduction_weights(FgNode *n, FgNode *x, FgValue *g, double number) except NULL:
    """The partials of a reduction with respect to every entry, times the adjoint of its row."""
    cdef uint64_t mask = <uint64_t>attr_items(n.attr)[0]
    cdef Rows r
    cdef Scratch scratch
    cdef FgValue *out = NULL
    cdef FgValue *rows = NULL
    cdef double *top
    cdef int64_t strides[64]
    cdef int64_t step
    cdef int i, reduced
    rows_set(&r, x.shape, x.value, x.dtype, mask)
    scratch_begin(&scratch)
    try:
        out = pool_take(x.shape.size * item_size(x.dtype))
        if n.rank:
            rows = value_contiguous(n.shape, g, n.dtype)
        else:
            rows = pool_take(8)
            number_store(rows.data, number, n.dtype)
        if x.shape.size:
            top = <double *>scratch_take(&scratch, r.together * 8)
            with nogil:
                rows_weigh(n.op, &r, n.dtype, rows.data, out.data, top)
        # Back to the operand's order of axes: a view.
        step = item_size(n.dtype)
        for reduced in range(1, -1, -1):
            for i in range(x.rank - 1, -1, -1):
                if <int>(mask >> i & 1) == reduced:
                    strides[i] = step
                    step *= x.shape.dims[i]
        return value_strided(out, out.data, x.shape, strides, item_size(n.dtype))
    finally:
        scratch_clear(&scratch)
        if rows != NULL:
            value_release(rows)
        if out != NULL:
            value_release(out)


# ---- matmul ---------------------------------------------------------------------------------

cdef object push_matmul(object left, object right):
    """a @ b for every combination of ranks that NumPy has."""
    cdef Operand x[2]
    cdef Operand before[2]
    cdef int weak, dtype, i
    cdef bint held = False
    cdef FgShape *shape = NULL
    cdef FgValue *v = NULL
    cdef double number = 0
    left, right = operand_settled(left), operand_settled(right)
    operand_clear(&x[0])
    operand_clear(&x[1])
    try:
        operand_ready(left, &x[0])
        operand_ready(right, &x[1])
        for i in range(2):
            if x[i].shape == NULL:
                raise ValueError(
                    f"matmul: input operand {i} is a scalar; shapes {shape_text(x[0].shape)} and "
                    f"{shape_text(x[1].shape)}: multiply with * instead")
        memcpy(before, x, sizeof(before))
        operands_hold(before, 2)
        held = True
        dtype = common_dtype(x, 2, &weak)
        if dtype == -2 and (x[0].needs or x[1].needs):
            return derived("numpy.matmul", np.matmul, (left, right), {})
        if dtype == -2:
            return made_joined(
                mask_noted(tensor_constant(np.matmul(operand_ndarray(&x[0]),
                                                     operand_ndarray(&x[1]))), x, 2),
                "numpy.matmul", np.matmul, (left, right))
        for i in range(2):
            operand_convert(&x[i], dtype)
            if x[i].value == NULL:
                x[i].value = value_of(x[i].node, x[i].id)
        shape = matmul_shape(x[0].shape, x[1].shape)
        try:
            v = matmul_value(x[0].shape, x[0].value, x[1].shape, x[1].value, shape, dtype)
        except BaseException:
            if shape != NULL:
                shape_release(shape)
            raise
        if shape == NULL:
            number = scalar_number(v.data, dtype)
            value_release(v)
            v = NULL
        return made_product(
            push_shaped(FG_matmul, dtype, 0, shape, v, number, &x[0], &x[1], 0, 0), x)
    finally:
        operands_drop(x, 2)
        if held:
            operands_let_go(before, 2)


cdef FgShape *matmul_shape(FgShape *a, FgShape *b) except? NULL:
    """The shape of a @ b; NULL for a scalar."""
    cdef int64_t dims[66]
    cdef int ra = a.rank - 2 if a.rank > 2 else 0
    cdef int rb = b.rank - 2 if b.rank > 2 else 0
    cdef int r = ra if ra > rb else rb
    cdef int i, n = 0
    cdef int64_t p, q
    if a.dims[a.rank - 1] != (b.dims[0] if b.rank == 1 else b.dims[b.rank - 2]):
        raise ValueError(f"matmul: shapes {shape_text(a)} and {shape_text(b)} do not match: the "
                         f"last axis of the first has length {a.dims[a.rank - 1]}, the "
                         f"{'only' if b.rank == 1 else 'second last'} axis of the second "
                         f"{b.dims[0] if b.rank == 1 else b.dims[b.rank - 2]}")
    for i in range(r):
        p = a.dims[i - (r - ra)] if i >= r - ra else 1
        q = b.dims[i - (r - rb)] if i >= r - rb else 1
        if p != q and p != 1 and q != 1:
            raise ValueError(f"matmul: the batch axes of shapes {shape_text(a)} and "
                             f"{shape_text(b)} could not be broadcast together")
        dims[n] = q if p == 1 else p
        n += 1
    if a.rank > 1:
        dims[n] = a.dims[a.rank - 2]
        n += 1
    if b.rank > 1:
        dims[n] = b.dims[b.rank - 1]
        n += 1
    if n == 0:
        return NULL
    return shape_new(n, dims)


cdef FgValue *matmul_value(FgShape *a, FgValue *va, FgShape *b, FgValue *vb, FgShape *shape,
                           int dtype) except NULL:
    """The product, by NumPy's own BLAS loop."""
    cdef FgValue *v = pool_take((shape.size if shape != NULL else 1) * item_size(dtype))
    try:
        if not matmul_direct(a, va, b, vb, shape, v, dtype):
            out = value_ndarray(shape, v, dtype, True) if shape != NULL else None
            result = np.matmul(value_ndarray(a, va, dtype, False), value_ndarray(b, vb, dtype, False),
                               out=out) if shape != NULL else np.matmul(
                               value_ndarray(a, va, dtype, False), value_ndarray(b, vb, dtype, False))
            if shape == NULL:
                number_store(v.data, result, dtype)
    except BaseException:
        value_release(v)
        raise
    return v


cdef int reverse_matmul(Sweep *s, FgNode *n, FgValue *g, double number) except -1:
    """a_bar = g b', b_bar = a' g, with vectors as one-row or one-column matrices."""
    cdef object gradient, a = None, b = None
    cdef FgNode *x = node_at(n.a) if n.a else NULL
    cdef FgNode *y = node_at(n.b) if n.b else NULL
    cdef int rank_a = x.rank if x != NULL else 0
    cdef int rank_b = y.rank if y != NULL else 0
    if matmul_info[0] != NULL and rank_a <= 2 and rank_b <= 2 and n.a and n.b:
        return reverse_matmul_direct(s, n, g, number, x, y)
    gradient = value_ndarray(n.shape, g, n.dtype, False) if n.rank else np.asarray(
        number, dtype=dtypes[n.dtype])
    if x != NULL and x.value != NULL:
        a = node_ndarray(x)
    if y != NULL and y.value != NULL:
        b = node_ndarray(y)
    if n.a and wanted(s, n.a):
        reverse_matmul_one(s, n.a, gradient, b, rank_a, True)
    if n.b and wanted(s, n.b):
        reverse_matmul_one(s, n.b, gradient, a, rank_b, False)
    return 0


cdef int reverse_matmul_direct(Sweep *s, FgNode *n, FgValue *g, double number, FgNode *x,
                               FgNode *y) except -1:
    """The same without a batch, straight to BLAS: a vector is a matrix of one row or column, and
    a transposed matrix the same memory with its strides exchanged."""
    cdef int64_t item = item_size(n.dtype)
    cdef int64_t own[64]
    cdef int64_t a_m = 0, a_k, b_k, b_n = 0, g_m = 0, g_n = 0, m = 1, k, p = 1
    cdef FgValue *v
    cdef double wide
    cdef float narrow
    cdef char *gradient
    k = x.shape.dims[x.rank - 1]
    if x.rank == 2:
        m = x.shape.dims[0]
    if y.rank == 2:
        p = y.shape.dims[1]
    if n.rank == 0:
        wide = number
        narrow = <float>number
        gradient = <char *>&wide if n.dtype == FG_FLOAT64 else <char *>&narrow
    else:
        gradient = g.data
        strides_of(n.shape, g, item, own)
        if x.rank == 2:
            g_m = own[0]
        if y.rank == 2:
            g_n = own[n.rank - 1]
    if wanted(s, n.a):
        strides_of(y.shape, y.value, item, own)
        b_k = own[0]
        b_n = own[1] if y.rank == 2 else 0
        v = pool_take(m * k * item)
        matmul_raw(n.dtype, m, p, k, gradient, g_m, g_n, y.value.data, b_n, b_k, v.data)
        contribute_value(s, n.a, v)
    if wanted(s, n.b):
        strides_of(x.shape, x.value, item, own)
        a_m = own[0] if x.rank == 2 else 0
        a_k = own[x.rank - 1]
        v = pool_take(k * p * item)
        matmul_raw(n.dtype, k, m, p, x.value.data, a_k, a_m, gradient, g_m, g_n, v.data)
        contribute_value(s, n.b, v)
    return 0


cdef int reverse_matmul_one(Sweep *s, uint32_t id, object g, object other, int rank,
                            bint first) except -1:
    """The adjoint of one factor, given the adjoint of the product and the other factor."""
    cdef object p
    if other.ndim == 1 and rank == 1:
        return contribute_array(s, id, g * other)
    if other.ndim == 1:
        # Matrix times vector: the outer product of adjoint and vector.
        p = g[..., :, None] * other if first else other[:, None] * g[..., None, :]
        return contribute_array(s, id, p)
    if rank == 1:
        # A vector: contract over every other axis, the batch included.
        if first:
            p = np.matmul(other, g[..., :, None])[..., 0]
        else:
            p = np.matmul(np.swapaxes(other, -1, -2), g[..., :, None])[..., 0]
        return contribute_array(s, id, p)
    if first:
        return contribute_product(s, id, g, np.swapaxes(other, -1, -2))
    return contribute_product(s, id, np.swapaxes(other, -1, -2), g)


cdef int contribute_product(Sweep *s, uint32_t id, object p, object q) except -1:
    """Add p @ q; straight into memory of the pool where no axis was broadcast."""
    cdef FgNode *n = node_at(id)
    cdef FgValue *v
    if p.ndim == 2 and q.ndim == 2:
        v = pool_take(n.shape.size * item_size(n.dtype))
        try:
            np.matmul(p, q, out=value_ndarray(n.shape, v, n.dtype, True))
        except BaseException:
            value_release(v)
            raise
        return contribute_value(s, id, v)
    return contribute_array(s, id, np.matmul(p, q))
