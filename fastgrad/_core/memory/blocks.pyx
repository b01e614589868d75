"""Element loops over whole arrays: strided and broadcast operands brought into blocks for the
kernels, and block adjoints brought back. Nothing here touches a count or a Python object, so all
of it may run without the GIL.
"""

# A strided array seen in the order of the (contiguous) result (src/walk.h).
cdef struct Walker:
    FgWalk walk                 # of the axes below
    char *data
    int item                    # bytes an element
    int boolean                 # bytes 0 and 1, to become numbers
    int64_t dims[64]
    int64_t strides[64]


# Where the kernels find one operand, block by block.
cdef enum:
    LANE_NONE = 0
    LANE_ADVANCE = 1            # contiguous memory
    LANE_FIXED = 2              # the same block again and again: a scalar
    LANE_GATHER = 3             # a walker fills a block

cdef struct Lane:
    int mode
    bint roomy                  # a kernel may read on to the end of the cache line
    int64_t item
    char *data                  # the memory, or the block
    Walker *walker


# An operand before it is known how its elements lie.
cdef struct Source:
    FgShape *shape              # NULL: a scalar
    FgValue *value
    double number
    uint8_t dtype


# Memory that lives as long as one evaluation, cut from a few chunks.
cdef enum:
    SCRATCH_CHUNK = 32768

cdef struct Scratch:
    FgValue *first              # the chunks
    char *free                  # the rest of the first one
    int64_t left


cdef inline void scratch_begin(Scratch *s) noexcept:
    s.first = NULL
    s.free = NULL
    s.left = 0


cdef inline char *scratch_take(Scratch *s, int64_t nbytes) except NULL:
    cdef char *p
    nbytes = (nbytes + 64) & ~<int64_t>63       # never nothing: NULL says failure
    if nbytes > s.left:
        scratch_more(s, nbytes)
    p = s.free
    s.free += nbytes
    s.left -= nbytes
    return p


cdef int scratch_more(Scratch *s, int64_t nbytes) except -1:
    cdef FgValue *v
    if nbytes < SCRATCH_CHUNK:
        nbytes = SCRATCH_CHUNK
    v = pool_take(nbytes)
    v.next = s.first
    s.first = v
    s.free = v.data
    s.left = nbytes
    return 0


cdef void scratch_clear(Scratch *s) noexcept:
    cdef FgValue *v = s.first
    cdef FgValue *following
    while v != NULL:
        following = v.next
        v.next = NULL
        value_release(v)
        v = following
    s.first = NULL


cdef inline const FgLoops *loops_of(int dtype) noexcept nogil:
    return &fg_kernels.f64 if dtype == FG_FLOAT64 else &fg_kernels.f32


cdef void strides_of(FgShape *shape, FgValue *value, int64_t item, int64_t *strides) noexcept nogil:
    """The strides of a value of that shape, in bytes."""
    if value.uniform:
        memset(strides, 0, shape.rank * 8)
    elif not value.contiguous:
        memcpy(strides, value_strides(value), shape.rank * 8)
    else:
        fg_strides_plain(shape.rank, shape.dims, item, strides)


cdef void walker_set(Walker *w, FgShape *out, FgShape *shape, FgValue *value, int dtype) noexcept nogil:
    """Walk `value` as if broadcast to `out`."""
    cdef int64_t own[64]
    cdef int64_t wide[64]
    w.data = value.data
    w.item = <int>item_size(dtype)
    w.boolean = dtype == FG_BOOL
    strides_of(shape, value, w.item, own)
    fg_strides_broadcast(out.rank, shape.rank, shape.dims, own, wide)
    w.walk = fg_walk_over(out.rank, out.dims, wide, w.dims, w.strides)


cdef void gather_block(Walker *w, int64_t start, int64_t n, char *out,
                       const FgLoops *loops) noexcept nogil:
    """Elements start to start + n of the walk, to contiguous memory; of booleans, which become
    numbers, no more than a block."""
    cdef char truths[FG_BLOCK]
    fg_walk_gather(&w.walk, w.data, start, n, &truths[0] if w.boolean else out, w.item)
    if w.boolean:
        loops.mask(out, <uint8_t *>truths, n)


cdef inline void scatter_block(Walker *w, int64_t start, int64_t n, const char *source,
                               int dtype) noexcept nogil:
    """Add a block to the places that the walk visits, float64 whatever the block is."""
    fg_walk_sum(&w.walk, w.data, start, n, source, dtype, loops_of(dtype))


cdef inline bint value_roomy(FgValue *v) noexcept nogil:
    """Whether it is a chunk of its own: those end with a cache line, whatever their length."""
    return v.base == NULL and v.owner == NULL and v.contiguous and not v.uniform


cdef inline int64_t padded(int64_t n, int64_t item) noexcept nogil:
    """n rounded up to whole cache lines. Kernels have a slower way for what does not fill a
    vector; where all memory is roomy they run over the end instead, and nobody reads that."""
    return ((n * item + 63) & ~<int64_t>63) // item


cdef int lane_set(Lane *lane, Source *x, FgShape *out, int dtype, Scratch *scratch) except -1:
    """How the kernels for results of shape `out` will read operand x."""
    cdef int64_t m = out.size if out.size < FG_BLOCK else FG_BLOCK
    cdef int64_t item = item_size(dtype)
    lane.item = item
    lane.walker = NULL
    lane.roomy = True
    if x.shape == NULL or x.value.uniform:
        lane.mode = LANE_FIXED
        lane.data = scratch_take(scratch, m * item)
        loops_of(dtype).fill(lane.data, x.number if x.shape == NULL else element(x.value, dtype),
                             padded(m, item))
    elif x.value.contiguous and x.dtype != FG_BOOL and shape_same(x.shape, out):
        lane.mode = LANE_ADVANCE
        lane.data = x.value.data
        lane.roomy = value_roomy(x.value)
    else:
        lane.mode = LANE_GATHER
        lane.roomy = False
        lane.walker = <Walker *>scratch_take(scratch, sizeof(Walker))
        walker_set(lane.walker, out, x.shape, x.value, x.dtype)
        lane.data = scratch_take(scratch, m * item)
    return 0


cdef inline char *lane_block(Lane *lane, int64_t start, int64_t n, const FgLoops *loops) noexcept nogil:
    """A pointer to elements start to start + n."""
    if lane.mode == LANE_ADVANCE:
        return lane.data + start * lane.item
    if lane.mode == LANE_GATHER:
        gather_block(lane.walker, start, n, lane.data, loops)
    return lane.data


cdef int evaluate(int op, int dtype, FgShape *shape, Source *x, int arity, char *out) except -1:
    """Compute one element-wise result (or comparison) of that shape into a chunk of its own."""
    cdef Lane lane[3]
    cdef Scratch scratch
    cdef int i
    cdef bint direct = True
    cdef const FgLoops *loops = loops_of(dtype)
    scratch_begin(&scratch)
    cdef bint roomy = op < FG_ELEMENTWISE_END
    for i in range(arity, 3):
        lane[i].mode = LANE_NONE
        lane[i].data = NULL
    try:
        for i in range(arity):
            lane_set(&lane[i], &x[i], shape, dtype, &scratch)
            direct = direct and lane[i].mode == LANE_ADVANCE
            roomy = roomy and lane[i].roomy
        if shape.size >= UNLOCK:
            with nogil:
                evaluate_lanes(op, loops, lane, shape.size, out,
                               shape.size if direct else FG_BLOCK, item_size(dtype), roomy)
        else:
            evaluate_lanes(op, loops, lane, shape.size, out,
                           shape.size if direct else FG_BLOCK, item_size(dtype), roomy)
    finally:
        scratch_clear(&scratch)
    return 0


cdef void evaluate_lanes(int op, const FgLoops *loops, Lane *lane, int64_t size, char *out,
                         int64_t step, int64_t item, bint roomy) noexcept nogil:
    cdef int64_t start = 0, n
    cdef char *a
    cdef char *b
    cdef char *c
    while start < size:
        n = size - start if size - start < step else step
        a = lane_block(&lane[0], start, n, loops)
        b = lane_block(&lane[1], start, n, loops)
        c = lane_block(&lane[2], start, n, loops)
        if op < FG_ELEMENTWISE_END:
            loops.value[op](a, b, c, out + start * item, padded(n, item) if roomy else n)
        else:
            loops.compare[op - FG_ELEMENTWISE_END](a, b, <uint8_t *>out + start, n)
        start += n


cdef int copy_into(FgShape *shape, FgValue *value, int dtype, char *out) except -1:
    """The elements in C order, to contiguous memory."""
    cdef Walker w
    cdef int64_t item = item_size(dtype)
    if value.uniform and is_float(dtype):
        loops_of(dtype).fill(out, element(value, dtype), shape.size)
    elif value.contiguous and not value.uniform:
        memcpy(out, value.data, shape.size * item)
    elif shape.size:
        walker_set(&w, shape, shape, value, dtype)
        w.boolean = 0
        gather_block(&w, 0, shape.size, out, loops_of(dtype))
    return 0


cdef FgValue *value_contiguous(FgShape *shape, FgValue *value, int dtype) except NULL:
    """The value itself where it is contiguous already (counted once more), else a copy."""
    if value.contiguous and not value.uniform:
        return value_ref(value)
    return value_copy(shape, value, dtype)


cdef FgValue *value_copy(FgShape *shape, FgValue *value, int dtype) except NULL:
    cdef FgValue *v = pool_take(shape.size * item_size(dtype))
    copy_into(shape, value, dtype, v.data)
    pad(v, shape.size, item_size(dtype))
    return v


cdef inline void pad(FgValue *v, int64_t n, int64_t item) noexcept nogil:
    """Repeat the last element to the end of its cache line: kernels run over that too, and what
    happened to lie there (subnormals, NaN) may cost them a hundred times as much."""
    cdef int64_t i
    if n:
        for i in range(n, padded(n, item)):
            memcpy(v.data + i * item, v.data + (n - 1) * item, item)


# ---- sums -----------------------------------------------------------------------------------

cdef double sum_all(FgShape *shape, FgValue *value, int dtype) noexcept nogil:
    """The sum of all elements."""
    cdef Walker w
    cdef Total t
    cdef char block[8 * FG_BLOCK]
    cdef int64_t start = 0, n
    cdef const FgLoops *loops = loops_of(dtype)
    cdef char *p
    t.count = 0
    if value.uniform:
        return element(value, dtype) * shape.size
    if not value.contiguous:
        walker_set(&w, shape, shape, value, dtype)
    while start < shape.size:
        n = shape.size - start if shape.size - start < FG_BLOCK else FG_BLOCK
        if value.contiguous:
            p = value.data + start * item_size(dtype)
        else:
            p = block
            gather_block(&w, start, n, p, loops)
        total_add(&t, loops.sum(p, n))
        start += n
    return total_value(&t)
