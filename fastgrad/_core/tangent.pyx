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


# ---- the stream -----------------------------------------------------------------------------

cdef uint32_t streams = 0       # each forward transformation has a number
cdef dict STREAMED = {}         # tangents of the results of a user's rule, by its node


cdef Tensor dual_new(Tensor value, Tensor tangent):
    """A dual of this thread's stream: an argument and its tangent."""
    cdef FgTape *tape = tape_of_thread()
    cdef uint32_t id
    cdef FgNode *x = value.node
    cdef FgNode *n
    if x.rank:
        value_of(value.node, value.id)
        value_of(tangent.node, tangent.id)
    n = node_append(tape, &id)
    node_set(n, FG_dual, x.dtype, x.rank, FG_ARGUMENT | (x.flags & FG_WEAK), FG_NO_ID, FG_NO_ID,
             tape.stream)
    n.attr = reach_of(x)
    n.index = 0
    n.constant = 0
    tape.duals += 1                 # until it dies
    if x.rank:
        n.shape = shape_ref(x.shape)
        n.value = value_ref(x.value)
        n.tangent.value = value_ref(tangent.node.value)
    else:
        n.re = x.re
        n.tangent.number = tangent.node.re
    return tensor_new(id, n, tape)


cdef int stream_flush(FgTape *tape, bint last=False) except -1:
    """Give every living operation of the stream its tangent and let go of its operands. While a
    transformation inside the streamed function still needs its operations, nothing is done; but
    the last time it must be, whatever graphs people hold on to."""
    cdef FgSegment *s
    cdef uint32_t i
    cdef FgNode *n
    cdef int recording = mode().not_recording
    if tape.busy or tape.held and not last or tape.streaming != mode().depth:
        return 0
    if tape.waiting:
        run_flush_all(tape)
    s = tape.last
    if s == NULL:
        return 0
    while s.before != NULL and s.sequence > tape.streamed:
        s = s.before
    tape.busy = 1
    mode().not_recording = 1
    try:
        while s != NULL:
            i = 0
            while i < s.used:
                n = &s.nodes[i]
                if node_lives(n) and n.op != FG_dual and n.flags & FG_NEEDS_GRAD and not (
                        s.slot == 0 and i == 0):
                    stream_node(tape, n, (s.slot << FG_SEGMENT_BITS) | i)
                i += 1
            s = s.after
    finally:
        mode().not_recording = recording
        tape.busy = 0
        tape.stream_bytes = 0
        segments_recycle(tape)
        if tape.queued:
            queue_drain(tape)
    if tape.last != NULL:
        tape.streamed = tape.last.sequence
    return 0


cdef uint32_t reach_node(FgNode *n) noexcept:
    """Which leaves an operation of the stream depends on, shaped ones as well."""
    cdef uint32_t x, reach = FG_REACH_NONE
    cdef int k
    if n.op < FG_ELEMENTWISE_END:
        return reach_of(n)
    if n.op == FG_result:
        return reach_node(node_at(n.a))
    for k in range(operand_count(n)):
        x = operand_at(n, k)
        if x and node_at(x).flags & FG_NEEDS_GRAD:
            reach = fg_reach_both(reach, reach_of(node_at(x)))
    return reach


cdef bint is_stepped(FgNode *n) noexcept:
    """Whether an operation on duals depends on the arguments by steps alone."""
    cdef FgNode *x
    cdef int k
    if n.op < FG_ELEMENTWISE_END and fg_op_info[n.op].props & FG_STEPS:
        return True
    for k in range(operand_count(n)):
        if operand_at(n, k):
            x = node_at(operand_at(n, k))
            if x.flags & FG_NEEDS_GRAD and not (x.op == FG_dual and x.flags & FG_STEPPED):
                return False
    return True


cdef inline void stream_dual(FgTape *tape, FgNode *n, uint32_t reach, bint stepped) noexcept:
    """An operation, its operands let go of, goes on as a dual."""
    n.op = FG_dual
    n.flags = (n.flags & ~(FG_STEPPED | FG_NO_ZERO | FG_ROOTED | FG_CUBED)) | (
        FG_STEPPED if stepped else 0)
    n.attr = reach
    n.c = tape.stream
    if fg_reach_within(reach, tape.stream_reach):
        n.flags |= FG_PURE
    else:
        n.flags &= ~FG_PURE             # (FG_INSIDE until now)
        tape.duals += 1


cdef inline FgAdjoint *stream_tangent(FgTape *tape, uint32_t id) noexcept:
    cdef FgNode *x
    if not id:
        return NULL
    x = node_at(id)
    if x.op != FG_dual or x.c != tape.stream:
        return NULL
    return &x.tangent


cdef int stream_node(FgTape *tape, FgNode *n, uint32_t id) except -1:
    """From an operation to a dual, if a tangent reaches it."""
    cdef FgAdjoint *t[3]
    cdef FgAdjoint out
    cdef FgValue *other = NULL
    cdef uint32_t ids[3]
    cdef int rooted = 0
    if root_walks[n.op]:
        if n.rank == 0 and n.dtype == FG_FLOAT64 and root_walks[n.op] & 2:
            stream_beside(tape, n)
            return 0
        if stream_rooted(n):
            rooted = stream_root(tape, n, id)
    if n.op < FG_ELEMENTWISE_END and n.rank == 0 and n.dtype == FG_FLOAT64:
        stream_scalar(tape, n)
        if n.op == FG_dual:
            n.flags |= rooted
        elif rooted:
            under_release(id)
        return 0
    if is_listed(n) or n.op == FG_result:
        return stream_many(tape, n, id)
    t[0] = stream_tangent(tape, n.a)
    t[1] = stream_tangent(tape, n.b)
    t[2] = stream_tangent(tape, n.c)
    if t[0] == NULL and t[1] == NULL and t[2] == NULL:
        if rooted:
            under_release(id)
        return 0
    tangent_node(n, id, t, 1, &out)
    if second_looked(n, t, 3):
        ids[0] = n.a
        ids[1] = n.b
        ids[2] = n.c
        other = second_made(n, id, t, ids, 3, &out)
    stream_become(tape, n, id, &out, other)
    n.flags |= rooted
    return 0


cdef void stream_scalar(FgTape *tape, FgNode *n) noexcept:
    """The same for scalars, of which most streams consist: nothing but numbers."""
    cdef double total = 0
    cdef double tie = 0.0 if n.flags & FG_LITERAL else 0.5
    cdef FgNode *a = node_at(n.a) if n.a else NULL
    cdef FgNode *b = node_at(n.b) if n.b else NULL
    cdef FgNode *c = node_at(n.c) if n.c else NULL
    cdef double u = a.re if a != NULL else n.constant
    cdef double v = b.re if b != NULL else n.constant
    cdef double w = c.re if c != NULL else n.constant
    cdef bint first = a != NULL and a.op == FG_dual and a.c == tape.stream
    cdef bint second = b != NULL and b.op == FG_dual and b.c == tape.stream
    cdef bint third = c != NULL and c.op == FG_dual and c.c == tape.stream
    cdef bint other = False, stepped = False
    if not (first or second or third):
        return
    if tape.steps:
        stepped = is_stepped(n)
    if first:
        if a.tangent.number != 0:
            total = scalar_term(n.op, 0, FG_FLOAT64, a.tangent.number, u, v, w, n.re, tie)
        if a.index or a.tangent.number == 0:
            other = scalar_second(n, a, 0, u, v, w, tie)
    if second:
        if b.tangent.number != 0:
            total += scalar_term(n.op, 1, FG_FLOAT64, b.tangent.number, u, v, w, n.re, tie)
        if b.index or b.tangent.number == 0:
            other = scalar_second(n, b, 1, u, v, w, tie) or other
    if third:
        if c.tangent.number != 0:
            total += scalar_term(n.op, 2, FG_FLOAT64, c.tangent.number, u, v, w, n.re, tie)
        if c.index or c.tangent.number == 0:
            other = scalar_second(n, c, 2, u, v, w, tie) or other
    if a != NULL:
        stream_release(a, n.a)
    if b != NULL:
        stream_release(b, n.b)
    if c != NULL:
        stream_release(c, n.c)
    stream_dual(tape, n, n.attr, stepped)
    n.tangent.number = total
    n.index = other


cdef void stream_beside(FgTape *tape, FgNode *n) noexcept:
    """The same for `as_written` and `root_of`: one of the operands is no path."""
    cdef int which = n.op == FG_as_written
    cdef FgNode *x = node_at(n.b if which else n.a) if (n.b if which else n.a) else NULL
    cdef double total
    cdef bint other, stepped
    if x == NULL or x.op != FG_dual or x.c != tape.stream:
        return
    total = scalar_term(n.op, which, FG_FLOAT64, x.tangent.number, n.re, x.re, 0, n.re, 0)
    other, stepped = x.index, tape.steps and is_stepped(n)
    if n.a:
        stream_release(node_at(n.a), n.a)
    if n.b:
        stream_release(node_at(n.b), n.b)
    stream_dual(tape, n, n.attr, stepped)
    n.tangent.number = total
    n.index = other


cdef inline void stream_release(FgNode *x, uint32_t id) noexcept:
    """One consumer less of an operand. A scalar dual holds nothing but its place; the tape is
    busy: no mark is on it."""
    if (x.refs == 1 and x.op == FG_dual and x.rank == 0
            and x.flags & (FG_PURE | FG_ROOTED) == FG_PURE):
        x.refs = 0
        node_free(x, id)
    else:
        node_drop(id)


cdef void stream_become(FgTape *tape, FgNode *n, uint32_t id, FgAdjoint *tangent,
                        FgValue *other) except *:
    cdef uint32_t reach = reach_node(n)
    cdef bint stepped = tape.steps and is_stepped(n)
    operands_release(n, id)
    if dead:
        nodes_free_later()
    stream_dual(tape, n, reach, stepped)
    n.tangent = tangent[0]
    second_put(n, other)


cdef int stream_many(FgTape *tape, FgNode *n, uint32_t id) except -1:
    """The same for any number of operands. The results of a rule of the user's keep its node,
    which keeps their tangents, until they have become duals themselves."""
    cdef int count = operand_count(n)
    cdef int k
    cdef uint32_t x
    cdef FgAdjoint out, other
    cdef FgValue *second = NULL
    cdef FgValue *memory
    cdef FgAdjoint **t
    cdef uint32_t *ids
    cdef bint any_ = False, several
    cdef list tangents, others
    cdef object rule
    cdef int64_t results
    if n.op == FG_result:
        if n.a not in STREAMED:
            return 0
        tangents, others = STREAMED[n.a]
        streamed_result(n, tangents[n.index], &out)
        if others is not None:
            streamed_result(n, others[n.index], &other)
            if n.rank:
                stream_become(tape, n, id, &out, other.value)
            else:
                stream_become(tape, n, id, &out, <FgValue *>(&second_mark)
                              if other.number != other.number else NULL)
            return 0
        stream_become(tape, n, id, &out, NULL)
        return 0
    memory = pool_take(count * 16)
    try:
        t = <FgAdjoint **>memory.data
        ids = <uint32_t *>(memory.data + count * 8)
        for k in range(count):
            x = operand_at(n, k)
            ids[k] = x
            t[k] = stream_tangent(tape, x)
            any_ = any_ or t[k] != NULL
        if not any_:
            return 0
        if n.op == FG_custom:
            tangents = []
            others = []
            for k in range(count):
                tangents.append(None if t[k] == NULL else tangent_tensor(node_at(ids[k]), t[k], 0, 1))
                others.append(None if t[k] == NULL else second_tensor(node_at(ids[k]), t[k]))
            if id in STREAMED:
                return 0
            several = second_looked(n, t, count)
            rule = attr_object(n.attr)
            results = attr_items(n.attr)[0]
            n.refs += 1
            tape.busy = 0
            tape.streaming = 0
            k = mode().depth
            mode().depth = k + 1
            try:
                STREAMED[id] = (rule_answer(rule, rule.push(tangents), results),
                                rule_answer(rule, rule.push(others), results) if several else None)
            finally:
                mode().depth = k
                tape.busy = 1
                tape.streaming = k
                node_drop(id)           # the rule may have dropped the last of its results
            return 0
        tangent_shaped(n, id, t, ids, count, 1, &out)
        if second_looked(n, t, count):
            second = second_made(n, id, t, ids, count, &out)
        stream_become(tape, n, id, &out, second)
    finally:
        value_release(memory)
    return 0


cdef int streamed_result(FgNode *n, object derivative, FgAdjoint *out) except -1:
    """The tangent of a result of a rule of the user's."""
    cdef Tensor y = rule_tensor(rule_of(n), derivative, n)
    if n.rank == 0:
        out.number = 0 if y is None else y.node.re
    elif y is None:
        out.value = value_zeros(n.shape, n.dtype)
    else:
        out.value = value_ref(value_of(y.node, y.id))
    return 0


