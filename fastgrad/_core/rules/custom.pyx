"""Rules of the user's, and of operators with a record: a custom node, and a node for each result.

A custom node holds the identities of its operands as concatenate does, and an object with
`pull(cotangents) -> list` and `push(tangents) -> list`; both take and return Tensors, None being
zero."""


def custom(rule, operands, results):
    """Record results that were computed elsewhere, with the rule to differentiate them.

    `operands`: Tensors; `results`: arrays or unrecorded Tensors; returns a list of Tensors.
    """
    cdef int i
    cdef int count = <int>len(operands)
    cdef bint needs = False, numeric = bool(getattr(rule, "numeric", False))
    cdef Tensor t, r
    cdef FgTape *tape
    cdef FgNode *n
    cdef FgNode *y
    cdef uint32_t id, at, attr
    cdef int64_t *ids
    cdef list made = []
    if type(operands) is not list or len(results) > 0xffff:
        raise TypeError("custom: operands is a list of Tensors, and results are at most 65,535")
    for o in operands:
        t = <Tensor?>o
        t.fresh()
        needs = needs or (t.node.flags & FG_NEEDS_GRAD and get_recording()) or is_traced(t)
    results = [x if isinstance(x, Tensor) else tensor_constant(np.array(x)) for x in results]
    if not needs:
        return results
    if len(results) > 0x10000:
        raise ValueError(f"{rule!r}: a function with a rule of its own may have 65536 results, not "
                         f"{len(results)}; return them in arrays")
    tape = tape_of_thread()
    ids = <int64_t *>fg_malloc((count + 1) * 8)
    if ids == NULL:
        raise MemoryError()
    try:
        ids[0] = len(results)
        for i in range(count):
            t = <Tensor>operands[i]
            ids[i + 1] = t.id if t.node.flags & FG_NEEDS_GRAD or mode().recorder != NULL else 0
            if t.tape != NULL and t.tape != tape and t.node.flags & FG_NEEDS_GRAD:
                raise thread_error(t.tape)
        attr = attr_new(count + 1, ids, rule)
        try:
            n = node_append(tape, &id)
        except BaseException:
            attr_release(attr)
            raise
        node_set(n, FG_custom, FG_FLOAT64, 0, 0, FG_NO_ID, FG_NO_ID, FG_NO_ID)
        n.re = 0
        n.constant = numeric        # (of a custom node: whether it is counted there)
        n.handle = NULL
        n.attr = attr
        tape.customs += 1
        tape.rules += numeric
        for i in range(count):
            if ids[i + 1]:
                node_at(<uint32_t>ids[i + 1]).refs += 1
    finally:
        fg_free(ids)
    try:
        for i in range(len(results)):
            r = <Tensor>results[i]
            if not is_float(r.node.dtype) and mode().recorder == NULL:
                made.append(r)
                continue
            if r.node.rank:
                value_of(r.node, r.id)
            y = node_append(tape, &at)
            node_set(y, FG_result, r.node.dtype, r.node.rank, r.node.flags & FG_WEAK, id, FG_NO_ID,
                     FG_NO_ID)
            y.index = <uint16_t>i
            y.constant = 0
            node_at(id).refs += 1
            if r.node.rank:
                y.shape = shape_ref(r.node.shape)
                y.value = value_ref(r.node.value)
            else:
                y.re = r.node.re
                y.im = r.node.im        # an integer keeps all its bits there
            made.append(tensor_new(at, y, tape))
            if mode().recorder != NULL and not hasattr(rule, "loop"):
                # What the rule's function computed has been taken down, too. A graph that is
                # itself differentiated later on would know nothing of the rule, but for operators.
                if (<Recorder>mode().recorder).known is None and not hasattr(rule, "operator"):
                    unreplayable("a function with a derivative rule of its own is used")
                (<Recorder>mode().recorder).aliases[at] = argument_of(r)
    finally:
        node_drop(id)
    return made


cdef list custom_operands(FgNode *n):
    """The ids of a custom node's operands, 0 for those that are not recorded."""
    return [attr_items(n.attr)[i] for i in range(1, attr_count(n.attr))]


# ---- a sweep with numbers -------------------------------------------------------------------

cdef bint rule_of_numbers(FgNode *n) except -1:
    """Whether the rule of a custom node may be run in the middle of a sweep with numbers: it uses what
    it is given alone, so that it meets no node of the tape that is swept."""
    return n.constant != 0


cdef int reverse_result(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                        double number) except -1:
    """A result's adjoint waits until the rule is run."""
    cdef FgValue *g = adjoint[0]
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


cdef int reverse_custom(Sweep *s, FgNode *n, uint32_t id, FgValue **adjoint,
                        double number) except -1:
    """Run the rule on numbers. It may record and sweep itself, on a tape of its own: this one waits."""
    cdef object rule = attr_object(n.attr)
    cdef list ids = custom_operands(n)
    cdef list cotangents = (<dict>s.cotangents).pop(<object>id)
    cdef list needed = [o != 0 and wanted(s, <uint32_t>o) for o in ids]
    cdef list answer
    cdef Tensor t
    cdef FgNode *x
    cdef int i, before = mode().not_recording
    if True not in needed:
        return 0
    set_thread_tape(tape_spare(s.tape))
    mode().not_recording = 1
    try:
        answer = rule_answer(rule, rule.pull(cotangents, needed), len(ids))
    finally:
        mode().not_recording = before
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


cdef object custom_attribute(FgNode *n):
    return attr_object(n.attr)


cdef object result_attribute(FgNode *n):
    return n.index

shaped_rules[FG_custom] = ShapedRule(reverse_custom, NULL, NULL, custom_attribute, NULL)

shaped_rules[FG_result] = ShapedRule(reverse_result, NULL, NULL, result_attribute, NULL)


# ---- sweeps with Tensors --------------------------------------------------------------------

cdef int emit_custom_reverse(Subgraph s, FgNode *n, uint32_t id) except -1:
    cdef list cotangents, answer, ids = custom_operands(n)
    cdef object rule = attr_object(n.attr)
    cdef Slot *slot = s.find(id)
    cdef int i
    cdef Tensor t
    if slot == NULL or slot.entries == NULL:
        return 0
    cotangents = [None] * attr_items(n.attr)[0]
    entries = <list>slot.entries
    slot.entries = NULL
    Py_DECREF(entries)
    for place, t in entries:
        cotangents[place] = t if cotangents[place] is None else emit_two(FG_add, cotangents[place], t)
    needed = [x != 0 and node_at(<uint32_t>x).flags & FG_NEEDS_GRAD != 0 for x in ids]
    # (The steps of a loop are a part of this sweep.)
    answer = rule_answer(rule, rule.pull(cotangents, needed, s.finite) if hasattr(rule, "loop")
                         else rule.pull(cotangents, needed), len(ids))
    still_there(s, n, id)
    for i in range(len(ids)):
        if ids[i] and answer[i] is not None:
            s.add(ids[i], rule_tensor(rule, answer[i], node_at(ids[i])))
    return 0


cdef list rule_answer(object rule, object answer, Py_ssize_t count):
    """What a rule has returned, as a list of the right length."""
    cdef list items = list(answer)
    if len(items) != count:
        raise ValueError(f"{rule!r}: the rule returned {len(items)} derivatives, not {count}")
    return items


cdef object rule_of(FgNode *n):
    """The rule behind a result."""
    cdef uint32_t attr = node_at(n.a).attr
    return attr_object(attr) if attr else None


cdef Tensor rule_tensor(object rule, object derivative, FgNode *n):
    """One of them, if it fits the node it is for."""
    cdef Tensor t
    if derivative is None:
        return None
    if not isinstance(derivative, Tensor):
        raise TypeError(f"{rule!r}: the rule returned a {type(derivative).__name__} among its "
                        "derivatives, which must be Tensors")
    t = <Tensor>derivative
    t.fresh()
    if t.node.rank != n.rank or (n.rank and not shape_same(t.node.shape, n.shape)):
        raise ValueError(f"{rule!r}: the rule returned a derivative of shape {t.shape} for a value "
                         f"of shape {tensor_dims(n)}")
    if not is_float(t.node.dtype):
        raise TypeError(f"{rule!r}: the rule returned a derivative of dtype {t.dtype}")
    return cast_plain(t, n.dtype)


cdef Tensor custom_result(Subgraph s, FgNode *n):
    cdef Slot *slot = s.find(n.a)
    if slot == NULL or slot.entries == NULL:
        return None
    return rule_tensor(rule_of(n), (<list>slot.entries)[n.index], n)


cdef int emit_custom_forward(Subgraph s, FgNode *n, uint32_t id) except -1:
    """The tangents of the results; they wait, in order, in the slot of the node."""
    cdef list tangents = [s.get(<uint32_t>x) if x else None for x in custom_operands(n)]
    cdef object rule = attr_object(n.attr)
    cdef Slot *slot
    cdef list answer
    cdef int64_t count = attr_items(n.attr)[0]
    if not any([t is not None for t in tangents]):
        return 0
    answer = rule_answer(rule, rule.push(tangents, s.finite) if hasattr(rule, "loop")
                         else rule.push(tangents), count)
    still_there(s, n, id)
    slot = s.find(id)
    Py_INCREF(answer)
    slot.entries = <PyObject *>answer
    return 0
