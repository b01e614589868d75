"""Forward mode with numbers: the tangent sweep over a recorded tape, several tangents (lanes) at
once, and the stream, which computes tangents while a function runs and forgets its operations.

A stream holds no more than the nodes of a few segments: whenever the tape opens a new segment, all
living operations get their tangents and become duals, a value and a tangent without operands. So
a loop of any length is differentiated in constant memory, and recording costs what it always does.
"""

# The tangents of one node, `lanes` of them: a scalar's number where there is one lane, else
# numbers in memory; an array's memory where there is one lane, else memory with a pointer for
# each lane.

cdef void tangents_drop(FgNode *n, FgAdjoint t, int lanes) noexcept:
    cdef int l
    cdef FgValue **bundle
    if n.rank == 0:
        if lanes > 1:
            value_release(t.value)
    elif lanes == 1:
        value_release(t.value)
    else:
        bundle = <FgValue **>t.value.data
        for l in range(lanes):
            if bundle[l] != NULL:
                value_release(bundle[l])
        value_release(t.value)


cdef void tangent_release(FgNode *n) noexcept:
    """A dual dies."""
    tangents_drop(n, n.tangent, 1)
    second_release(n)
    n.a = n.b = n.c = FG_NO_ID


cdef inline FgValue *lane_value(FgAdjoint *t, int lane, int lanes) noexcept nogil:
    """One tangent of an array."""
    return t.value if lanes == 1 else (<FgValue **>t.value.data)[lane]


cdef inline double lane_number(FgAdjoint *t, int lane, int lanes) noexcept nogil:
    """One tangent of a scalar."""
    return t.number if lanes == 1 else (<double *>t.value.data)[lane]


cdef FgValue *bundle_new(int lanes) except NULL:
    cdef FgValue *v = pool_take(lanes * 8)
    memset(v.data, 0, lanes * 8)
    return v


# ---- one operation --------------------------------------------------------------------------

cdef int tangent_scalar(FgNode *n, FgAdjoint **t, int lanes, FgAdjoint *out) except -1:
    """dy = sum of partial times tangent, each product zero where a factor is."""
    cdef double u = node_at(n.a).re if n.a else n.constant
    cdef double v = node_at(n.b).re if n.b else n.constant
    cdef double w = node_at(n.c).re if n.c else n.constant
    cdef double tie = 0.0 if n.flags & FG_LITERAL else 0.5
    cdef double p, x, total = 0
    cdef double *y
    cdef double *s
    cdef int k, l
    if lanes == 1:
        for k in range(3):
            if t[k] != NULL and t[k].number != 0:
                total += scalar_term(n.op, k, n.dtype, t[k].number, u, v, w, n.re, tie)
        out.number = round_to(n.dtype, total)
        return 0
    out.value = bundle_new(lanes)
    y = <double *>out.value.data
    for k in range(3):
        if t[k] == NULL:
            continue
        p = fg_partial(n.op, k, n.dtype, u, v, w, n.re, tie)
        s = <double *>t[k].value.data
        if p - p == 0:
            for l in range(lanes):
                y[l] += s[l] * p
        else:
            for l in range(lanes):
                y[l] += 0 if s[l] == 0 else s[l] * p
    if n.dtype == FG_FLOAT32:
        for l in range(lanes):
            y[l] = <float>y[l]
    return 0


cdef int tangent_elementwise(FgNode *n, FgAdjoint **t, int lanes, FgAdjoint *out) except -1:
    """The same for arrays, block by block; a partial is computed once for all lanes."""
    cdef FgShape *shape = n.shape
    cdef int dtype = n.dtype
    cdef const FgLoops *loops = loops_of(dtype)
    cdef const FgOpInfo *info = &fg_op_info[n.op]
    cdef int64_t item = item_size(dtype)
    cdef int64_t m = shape.size if shape.size < FG_BLOCK else FG_BLOCK
    cdef uint32_t ids[3]
    cdef FgNode *x
    cdef FgValue *made = NULL
    cdef FgValue **outs = NULL
    cdef FgValue *single
    cdef FgPartialLoop loop[3]
    cdef Lane in_[4]
    cdef Lane *tangents
    cdef Scratch scratch
    cdef Source source
    cdef unsigned int reads = 0
    cdef int k, l, only = -1, count = 0
    cdef bint roomy = True
    cdef char *spare
    cdef char *partial = NULL
    cdef char *ones = NULL
    ids[0] = n.a
    ids[1] = n.b
    ids[2] = n.c
    for k in range(3):
        loop[k] = NULL
        if k < info.arity and t[k] != NULL:
            loop[k] = loops.partial[n.op][k]
            if loop[k] != NULL:
                reads |= info.reads[k]
                only = k
                count += 1
    if count == 1:
        x = node_at(ids[only])
        if x.rank and formula_of(n.op, only).kind == PARTIAL_ONE and shape_same(x.shape, shape):
            return tangent_share(t[only], lanes, out)
    if lanes == 1 and tangent_small(n, t, loop, reads, out):
        return 0
    scratch_begin(&scratch)
    try:
        outs = <FgValue **>scratch_take(&scratch, lanes * 8)
        memset(outs, 0, lanes * 8)
        tangents = <Lane *>scratch_take(&scratch, 3 * lanes * sizeof(Lane))
        for k in range(4):
            in_[k].mode = LANE_NONE
            in_[k].data = NULL
        for k in range(3):
            if loop[k] != NULL:
                x = node_at(ids[k])
                for l in range(lanes):
                    source.shape = x.shape if x.rank else NULL
                    source.dtype = <uint8_t>dtype
                    if x.rank:
                        source.value = lane_value(t[k], l, lanes)
                    else:
                        source.number = lane_number(t[k], l, lanes)
                    tangents[k * lanes + l].mode = LANE_NONE
                    if x.rank and source.value == NULL:
                        continue
                    lane_set(&tangents[k * lanes + l], &source, shape, dtype, &scratch)
                    roomy = roomy and tangents[k * lanes + l].roomy
            if k < info.arity and reads & (FG_A << k):
                if ids[k]:
                    x = node_at(ids[k])
                    source.shape = x.shape if x.rank else NULL
                    source.value = x.value
                    source.number = x.re
                    source.dtype = x.dtype
                else:
                    source.shape = NULL
                    source.number = n.constant
                    source.dtype = <uint8_t>dtype
                lane_set(&in_[k], &source, shape, dtype, &scratch)
                roomy = roomy and in_[k].roomy
        if reads & FG_Y:
            source.shape = shape
            source.value = n.value
            source.dtype = <uint8_t>dtype
            lane_set(&in_[3], &source, shape, dtype, &scratch)
            roomy = roomy and in_[3].roomy
        spare = scratch_take(&scratch, m * item)
        if lanes > 1:
            partial = scratch_take(&scratch, m * item)
            ones = scratch_take(&scratch, m * item)
            loops.fill(ones, 1, padded(m, item))
        for l in range(lanes):
            outs[l] = pool_take(shape.size * item)
        if shape.size * lanes >= UNLOCK:
            with nogil:
                tangent_blocks(shape.size, item, dtype, lanes, loop, in_, tangents, outs, roomy,
                               0.0 if n.flags & FG_LITERAL else 0.5, spare, partial, ones)
        else:
            tangent_blocks(shape.size, item, dtype, lanes, loop, in_, tangents, outs, roomy,
                           0.0 if n.flags & FG_LITERAL else 0.5, spare, partial, ones)
        if lanes == 1:
            out.value = outs[0]
        else:
            made = pool_take(lanes * 8)
            memcpy(made.data, outs, lanes * 8)
            out.value = made
        memset(outs, 0, lanes * 8)
    finally:
        for l in range(lanes):
            if outs != NULL and outs[l] != NULL:
                value_release(outs[l])
        scratch_clear(&scratch)
    return 0


cdef int tangent_small(FgNode *n, FgAdjoint **t, FgPartialLoop *loop, unsigned int reads,
                       FgAdjoint *out) except -1:
    """One tangent of a small array whose operands all have its shape and lie in one piece: the
    kernels are called right away. Returns 0 where that is not so."""
    cdef FgNode *x
    cdef FgValue *v
    cdef FgValue *spare = NULL
    cdef char *data[4]
    cdef uint32_t ids[3]
    cdef int k
    cdef int64_t m = n.shape.size
    cdef const FgLoops *loops = loops_of(n.dtype)
    cdef double tie = 0.0 if n.flags & FG_LITERAL else 0.5
    cdef bint roomy = True, first = True
    if m >= LAZY:
        return 0
    ids[0] = n.a
    ids[1] = n.b
    ids[2] = n.c
    for k in range(3):
        data[k] = NULL
        if loop[k] == NULL and not reads & (FG_A << k):
            continue
        if not ids[k]:
            return 0
        x = node_at(ids[k])
        if x.dtype != n.dtype or not x.rank or not shape_same(x.shape, n.shape):
            return 0
        if loop[k] != NULL:
            if not plain_value(t[k].value):
                return 0
            roomy = roomy and value_roomy(t[k].value)
        if reads & (FG_A << k):
            if not plain_value(x.value):
                return 0
            data[k] = x.value.data
            roomy = roomy and value_roomy(x.value)
    data[3] = NULL
    if reads & FG_Y:
        if not plain_value(n.value):
            return 0
        data[3] = n.value.data
        roomy = roomy and value_roomy(n.value)
    v = pool_take(m * item_size(n.dtype))
    if roomy:
        m = padded(m, item_size(n.dtype))
    for k in range(3):
        if loop[k] == NULL:
            continue
        if not first and spare == NULL:
            try:
                spare = pool_take(n.shape.size * item_size(n.dtype))
            except BaseException:
                value_release(v)
                raise
        loop[k](t[k].value.data, data[0], data[1], data[2], data[3],
                v.data if first else spare.data, m, tie)
        if not first:
            loops.accumulate(v.data, spare.data, m)
        first = False
    if spare != NULL:
        value_release(spare)
    if first:
        memset(v.data, 0, n.shape.size * item_size(n.dtype))
    out.value = v
    return 1


cdef inline bint plain_value(FgValue *v) noexcept nogil:
    return v != NULL and v.contiguous and not v.uniform


cdef int tangent_share(FgAdjoint *t, int lanes, FgAdjoint *out) except -1:
    """The very tangents of an operand."""
    cdef int l
    cdef FgValue **bundle
    if lanes == 1:
        out.value = value_ref(t.value)
        return 0
    out.value = bundle_new(lanes)
    bundle = <FgValue **>out.value.data
    for l in range(lanes):
        bundle[l] = (<FgValue **>t.value.data)[l]
        if bundle[l] != NULL:
            value_ref(bundle[l])
    return 0


cdef void tangent_blocks(int64_t size, int64_t item, int dtype, int lanes, FgPartialLoop *loop,
                         Lane *in_, Lane *tangents, FgValue **outs, bint roomy, double tie,
                         char *spare, char *partial, char *ones) noexcept nogil:
    cdef int64_t start = 0, count, m
    cdef int k, l
    cdef const FgLoops *loops = loops_of(dtype)
    cdef char *x[4]
    cdef char *g
    cdef char *y
    cdef bint first
    while start < size:
        count = size - start if size - start < FG_BLOCK else FG_BLOCK
        m = padded(count, item) if roomy else count
        for k in range(4):
            x[k] = lane_block(&in_[k], start, count, loops)
        first = True
        for k in range(3):
            if loop[k] == NULL:
                continue
            if lanes > 1:
                loop[k](ones, x[0], x[1], x[2], x[3], partial, m, tie)
            for l in range(lanes):
                y = outs[l].data + start * item
                if tangents[k * lanes + l].mode == LANE_NONE:
                    if first:
                        memset(y, 0, count * item)
                    continue
                g = lane_block(&tangents[k * lanes + l], start, count, loops)
                if lanes == 1:
                    loop[k](g, x[0], x[1], x[2], x[3], y if first else spare, m, tie)
                else:
                    # dy/da of a product is b: g times the partial, by the rule of the strong zero.
                    loops.partial[FG_multiply][0](g, NULL, partial, NULL, NULL, y if first else spare,
                                                  m, 0)
                if not first:
                    loops.accumulate(y, spare, m)
            first = False
        if first:
            for l in range(lanes):
                memset(outs[l].data + start * item, 0, count * item)
        start += count


cdef int tangent_shaped(FgNode *n, uint32_t id, FgAdjoint **t, uint32_t *ids, int count, int lanes,
                        FgAdjoint *out) except -1:
    """A shaped operation lane by lane, by its rule in the table, which is not recorded here; what
    scalar code consists of without that detour."""
    cdef int l, k
    if n.rank == 0 and (n.op == FG_item or n.op == FG_sum) and node_at(n.a).rank:
        return tangent_number(n, t[0], lanes, out)
    if n.op == FG_concatenate and node_at(ids[first_of(t, count)]).rank == 0:
        return tangent_pack(n, t, count, lanes, out)
    return tangent_shaped_lanes(n, id, t, ids, count, lanes, out)


cdef int first_of(FgAdjoint **t, int count) noexcept nogil:
    """The first operand with a tangent; there is one."""
    cdef int k
    for k in range(count):
        if t[k] != NULL:
            return k
    return 0


cdef int tangent_number(FgNode *n, FgAdjoint *t, int lanes, FgAdjoint *out) except -1:
    """One entry of an array, or the sum of all."""
    cdef FgNode *x = node_at(n.a)
    cdef FgValue *v
    cdef int64_t strides[64]
    cdef int64_t offset, flat
    cdef int l, i
    cdef double number
    if lanes > 1:
        out.value = bundle_new(lanes)
    for l in range(lanes):
        v = lane_value(t, l, lanes)
        number = 0
        if v != NULL and n.op == FG_sum:
            number = round_to(n.dtype, sum_all(x.shape, v, n.dtype))
        elif v != NULL:
            flat = <int64_t>n.constant
            if n.attr:
                flat = 0
                for i in range(x.rank):
                    flat = flat * x.shape.dims[i] + attr_items(n.attr)[FG_INDEX_FIELDS * i + 1]
            if v.contiguous and not v.uniform:
                number = element_at(v.data, flat, n.dtype)
            else:
                strides_of(x.shape, v, item_size(n.dtype), strides)
                offset = 0
                for i in range(x.rank - 1, -1, -1):
                    offset += flat % x.shape.dims[i] * strides[i]
                    flat //= x.shape.dims[i]
                number = element_at(v.data + offset, 0, n.dtype)
        if lanes == 1:
            out.number = number
        else:
            (<double *>out.value.data)[l] = number
    return 0


cdef inline double element_at(const char *p, int64_t i, int dtype) noexcept nogil:
    return (<const double *>p)[i] if dtype == FG_FLOAT64 else (<const float *>p)[i]


cdef int tangent_pack(FgNode *n, FgAdjoint **t, int count, int lanes, FgAdjoint *out) except -1:
    """Scalars joined to a vector."""
    cdef FgValue *v
    cdef FgValue **bundle
    cdef int l, k
    cdef bint wide = n.dtype == FG_FLOAT64
    if lanes > 1:
        out.value = bundle_new(lanes)
    for l in range(lanes):
        try:
            v = pool_take(count * item_size(n.dtype))
        except BaseException:
            if lanes > 1:
                tangents_drop(n, out[0], lanes)
            raise
        for k in range(count):
            entry_set(v.data, k, 0 if t[k] == NULL else lane_number(t[k], l, lanes), wide)
        if lanes == 1:
            out.value = v
        else:
            bundle = <FgValue **>out.value.data
            bundle[l] = v
    return 0


cdef int tangent_shaped_lanes(FgNode *n, uint32_t id, FgAdjoint **t, uint32_t *ids, int count,
                              int lanes, FgAdjoint *out) except -1:
    cdef int l, k
    cdef FgValue *bundle = NULL
    cdef FgNode *x
    cdef Tensor y
    cdef list tangents
    cdef bint found
    if lanes > 1:
        bundle = bundle_new(lanes)
    try:
        for l in range(lanes):
            tangents = []
            found = False
            for k in range(count):
                if t[k] == NULL:
                    tangents.append(None)
                    continue
                x = node_at(ids[k])
                tangents.append(tangent_tensor(x, t[k], l, lanes))
                found = found or tangents[k] is not None
            if not found:
                if lanes == 1 and n.rank == 0:
                    out.number = 0
                elif lanes == 1:
                    out.value = value_zeros(n.shape, n.dtype)
                continue
            y = forward_shaped(n, id, tangents, None)
            y = spread(y, n.shape if n.rank else NULL)
            if n.rank == 0 and lanes == 1:
                out.number = y.node.re
            elif n.rank == 0:
                (<double *>bundle.data)[l] = y.node.re
            elif lanes == 1:
                out.value = value_ref(y.node.value)
            else:
                (<FgValue **>bundle.data)[l] = value_ref(y.node.value)
    except BaseException:
        if bundle != NULL:
            out.value = bundle
            tangents_drop(n, out[0], lanes)
        raise
    if lanes > 1:
        out.value = bundle
    return 0


cdef Tensor tangent_tensor(FgNode *x, FgAdjoint *t, int lane, int lanes):
    """One tangent of a node as a Tensor; None: zero."""
    cdef FgValue *v
    if x.rank == 0:
        return scalar_constant(lane_number(t, lane, lanes), x.dtype, 0)
    v = lane_value(t, lane, lanes)
    if v == NULL:
        return None
    return tensor_of_value(shape_ref(x.shape), value_ref(v), x.dtype)


# ---- over a subgraph ------------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Tangents:
    """The tangents of the nodes of a subgraph, by slot."""
    cdef Subgraph graph
    cdef FgAdjoint *tangent
    cdef uint32_t *consumers    # still to come
    cdef uint8_t *there
    cdef int lanes

    def __cinit__(self, Subgraph graph, int lanes):
        cdef int64_t size = graph.mask + 1
        self.graph = graph
        self.lanes = lanes
        self.tangent = <FgAdjoint *>fg_malloc(size * sizeof(FgAdjoint))
        self.consumers = <uint32_t *>fg_calloc(size, sizeof(uint32_t))
        self.there = <uint8_t *>fg_calloc(size, 1)
        if self.tangent == NULL or self.consumers == NULL or self.there == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef uint32_t i
        if self.there != NULL:
            for i in range(self.graph.mask + 1):
                if self.there[i]:
                    tangents_drop(node_at(self.graph.slots[i].id), self.tangent[i], self.lanes)
        fg_free(self.tangent)
        fg_free(self.consumers)
        fg_free(self.there)

    cdef FgAdjoint *at(self, uint32_t id) noexcept:
        """NULL: zero."""
        cdef Slot *slot = self.graph.find(id)
        if slot == NULL or not self.there[slot - self.graph.slots]:
            return NULL
        return &self.tangent[slot - self.graph.slots]

    cdef FgAdjoint *place(self, uint32_t id) noexcept:
        """Where to put the tangent of a node, which has none yet."""
        cdef Slot *slot = self.graph.find(id)
        self.there[slot - self.graph.slots] = 1
        return &self.tangent[slot - self.graph.slots]

    cdef inline bint has_memory(self, uint32_t id) noexcept:
        """Whether its tangents are more than a number, and worth being let go of."""
        return self.lanes > 1 or node_at(id).rank != 0

    cdef void keep(self, uint32_t id) noexcept:
        """It will be asked for after the sweep."""
        cdef Slot *slot = self.graph.find(id)
        if slot != NULL:
            self.consumers[slot - self.graph.slots] += 1

    cdef void done(self, uint32_t id) noexcept:
        """One consumer has seen it."""
        cdef Slot *slot = self.graph.find(id)
        cdef int64_t i
        if slot == NULL:
            return
        i = slot - self.graph.slots
        self.consumers[i] -= 1
        if self.consumers[i] == 0 and self.there[i]:
            self.there[i] = 0
            tangents_drop(node_at(id), self.tangent[i], self.lanes)


cdef int tangent_sweep(Tangents s) except -1:
    """From tangents at the wanted nodes to those at the ones that are kept; what no later node
    needs is let go of."""
    cdef Subgraph g = s.graph
    cdef int64_t i
    cdef int k, count
    cdef uint32_t id, x
    cdef FgNode *n
    for i in range(g.count):
        n = node_at(g.ids[i])
        for k in range(operand_count(n)):
            x = operand_at(n, k)
            if x and s.has_memory(x):
                s.keep(x)
    for i in range(g.count - 1, -1, -1):
        id = g.ids[i]
        n = node_at(id)
        still_there(g, n, id)
        if s.at(id) == NULL:            # else it is where a tangent starts
            tangent_visit(s, n, id)
        for k in range(operand_count(n)):
            x = operand_at(n, k)
            if x and s.has_memory(x):
                s.done(x)
    return 0


cdef int tangent_visit(Tangents s, FgNode *n, uint32_t id) except -1:
    cdef FgAdjoint *t[3]
    cdef FgAdjoint out
    cdef int k
    cdef uint32_t x
    cdef bint any_ = False
    if n.op == FG_dual or n.op == FG_leaf:
        return 0
    if is_listed(n) or n.op == FG_result:
        return tangent_visit_many(s, n, id)
    for k in range(3):
        x = n.a if k == 0 else n.b if k == 1 else n.c
        t[k] = s.at(x) if x else NULL
        any_ = any_ or t[k] != NULL
    if not any_:
        return 0
    if n.op == FG_assign and n.attr == 0:
        return tangent_visit_entry(s, n, id, t[1])
    if tangent_node(n, id, t, s.lanes, &out) == 0:
        s.place(id)[0] = out
    return 0


cdef int tangent_visit_entry(Tangents s, FgNode *n, uint32_t id, FgAdjoint *entry_) except -1:
    """The assignment of one entry: in place where no other operation needs the tangents of what
    was there before, so that filling an array in a loop costs a store a lane."""
    cdef int64_t flat = <int64_t>n.constant
    cdef Slot *slot = s.graph.find(n.a) if n.a else NULL
    cdef int64_t i = slot - s.graph.slots if slot != NULL else -1
    cdef FgAdjoint *before = s.at(n.a) if n.a else NULL
    cdef FgAdjoint out
    cdef FgValue *v
    cdef FgValue *w
    cdef int l
    cdef double number
    if before != NULL and s.consumers[i] == 1:
        out = before[0]
        s.there[i] = 0
    elif before != NULL:
        tangent_share(before, s.lanes, &out)
    elif s.lanes > 1:
        out.value = bundle_new(s.lanes)
    else:
        out.value = value_zeros(n.shape, n.dtype)
    s.place(id)[0] = out            # with the rest it goes, if there is no memory for a copy
    for l in range(s.lanes):
        v = lane_value(&out, l, s.lanes)
        if v == NULL or not value_unique(v):
            w = value_zeros(n.shape, n.dtype) if v == NULL else value_copy(n.shape, v, n.dtype)
            if v != NULL:
                value_release(v)
            v = w
            if s.lanes == 1:
                s.place(id).value = v
            else:
                (<FgValue **>out.value.data)[l] = v
        number = 0 if entry_ == NULL else lane_number(entry_, l, s.lanes)
        entry_set(v.data, flat, number, n.dtype == FG_FLOAT64)
    return 0


cdef int tangent_node(FgNode *n, uint32_t id, FgAdjoint **t, int lanes, FgAdjoint *out) except -1:
    """The tangents of an operation of at most three operands."""
    cdef uint32_t ids[3]
    if n.op < FG_ELEMENTWISE_END:
        if n.rank == 0:
            return tangent_scalar(n, t, lanes, out)
        return tangent_elementwise(n, t, lanes, out)
    ids[0] = n.a
    ids[1] = n.b
    ids[2] = n.c
    return tangent_shaped(n, id, t, ids, 3, lanes, out)


cdef int tangent_visit_many(Tangents s, FgNode *n, uint32_t id) except -1:
    """Concatenate and rules of the user's: any number of operands."""
    cdef int count = operand_count(n)
    cdef int k
    cdef uint32_t x
    cdef FgAdjoint out
    cdef FgValue *memory
    cdef FgAdjoint **t
    cdef uint32_t *ids
    cdef bint any_ = False
    if n.op == FG_result:
        return tangent_visit_result(s, n, id)
    memory = pool_take(count * 16)
    try:
        t = <FgAdjoint **>memory.data
        ids = <uint32_t *>(memory.data + count * 8)
        for k in range(count):
            x = operand_at(n, k)
            ids[k] = x
            t[k] = s.at(x) if x else NULL
            any_ = any_ or t[k] != NULL
        if not any_:
            return 0
        if n.op == FG_custom:
            return tangent_visit_custom(s, n, id, t, ids, count)
        tangent_shaped(n, id, t, ids, count, s.lanes, &out)
        s.place(id)[0] = out
    finally:
        value_release(memory)
    return 0


cdef int tangent_visit_custom(Tangents s, FgNode *n, uint32_t id, FgAdjoint **t, uint32_t *ids,
                              int count) except -1:
    """The tangents of all results, a list a lane, wait in the slot of the node."""
    cdef list lanes = [], tangents
    cdef object rule = attr_object(n.attr)
    cdef Slot *slot = s.graph.find(id)
    cdef int64_t results = attr_items(n.attr)[0]
    cdef int k, l
    for l in range(s.lanes):
        tangents = []
        for k in range(count):
            tangents.append(None if t[k] == NULL else tangent_tensor(node_at(ids[k]), t[k], l, s.lanes))
        lanes.append(rule_answer(rule, rule.push(tangents), results))
        still_there(s.graph, n, id)
    Py_INCREF(lanes)
    slot.entries = <PyObject *>lanes    # there was nothing: each node is visited once
    return 0


cdef int tangent_visit_result(Tangents s, FgNode *n, uint32_t id) except -1:
    cdef Slot *slot = s.graph.find(n.a)
    cdef FgAdjoint out
    cdef Tensor y
    cdef int l
    cdef list lanes
    if slot == NULL or slot.entries == NULL:
        return 0
    out.value = NULL
    lanes = [rule_tensor(rule_of(n), (<list>answer)[n.index], n)
             for answer in <list>slot.entries]
    for y in lanes:
        if y is not None and y.node.rank:
            value_of(y.node, y.id)
    if s.lanes > 1:
        out.value = bundle_new(s.lanes)
    for l in range(s.lanes):
        y = lanes[l]
        if n.rank == 0:
            if s.lanes == 1:
                out.number = 0 if y is None else y.node.re
            else:
                (<double *>out.value.data)[l] = 0 if y is None else y.node.re
        elif s.lanes == 1:
            out.value = value_zeros(n.shape, n.dtype) if y is None else value_ref(value_of(y.node, y.id))
        elif y is not None:
            (<FgValue **>out.value.data)[l] = value_ref(value_of(y.node, y.id))
    s.place(id)[0] = out
    return 0
