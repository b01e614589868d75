"""Memory: the buffer pool, shapes and attributes, the segments of nodes, and their lifetimes.

Nothing here knows what an operator means. All counts change with the GIL held; the loops that
run without it (memory/blocks.pyx) touch data only.
"""

# ---- the pool -------------------------------------------------------------------------------

# Four size classes per doubling, from 64 bytes on: at most a quarter of a chunk is unused.
cdef enum:
    CLASSES = 192
    HEADER = 64
    TRACE_DOMAIN = 0x66677264   # "fgrd": where tracemalloc books what the pool hands out

cdef uint8_t pool_small[65]     # the class of up to 4 kB, by cache lines
cdef FgValue *pool_free[CLASSES]
cdef int64_t pool_size[CLASSES]
cdef int64_t pool_cached = 0    # bytes in free chunks
cdef int64_t pool_used = 0      # bytes in chunks handed out
cdef int64_t pool_peak = 0
cdef int64_t pool_taken = 0     # bytes ever handed out: what tests count in place of seconds


cdef void pool_setup() noexcept:
    cdef int i
    cdef int64_t step
    for i in range(CLASSES):
        step = (<int64_t>64) << (i >> 2)
        pool_size[i] = step + (step >> 2) * (i & 3)
        # Chunks are multiples of 64, so that the data of every one is aligned.
        pool_size[i] = (pool_size[i] + 63) & ~<int64_t>63
    for i in range(1, 65):
        while pool_size[pool_small[i]] < i * 64:
            pool_small[i] += 1


cdef inline int pool_class(int64_t nbytes) noexcept nogil:
    """The smallest class whose chunks hold nbytes."""
    cdef int top, i
    if nbytes <= 4096:
        return pool_small[(nbytes + 63) >> 6]
    top = 63 - clz(nbytes)              # 2**top <= nbytes
    i = ((top - 6) << 2) + <int>((nbytes >> (top - 2)) & 3)
    while pool_size[i] < nbytes:
        i += 1
    return i


cdef FgValue *pool_take(int64_t nbytes) except NULL:
    """A chunk for nbytes of data, contents undefined, referred to once."""
    if nbytes >> 50:            # more than any machine has; from here on sizes would overflow
        raise MemoryError(f"fastgrad: no memory for {nbytes} bytes")
    if fg_fails():
        raise MemoryError()
    global pool_cached, pool_used, pool_peak, pool_taken
    cdef int i = pool_class(nbytes)
    cdef FgValue *v = pool_free[i]
    cdef int64_t size = pool_size[i] + HEADER
    if v != NULL:
        pool_free[i] = v.next
        pool_cached -= size
    else:
        v = <FgValue *>fg_chunk(size)
        if v == NULL:
            # Give the caches back before giving up.
            pool_trim(0)
            v = <FgValue *>fg_chunk(size)
            if v == NULL:
                raise MemoryError(f"fastgrad: no memory for {nbytes} bytes")
        v.size_class = <uint16_t>i
    pool_used += size
    if pool_used > pool_peak:
        pool_peak = pool_used
    pool_taken += size
    v.refs = 1
    v.contiguous = 1
    v.uniform = 0
    v.data = <char *>v + HEADER
    v.base = NULL
    v.next = NULL
    v.nbytes = nbytes
    v.owner = NULL
    census(&values_alive, 1)
    PyTraceMalloc_Track(TRACE_DOMAIN, <size_t>v, <size_t>size)
    return v


# How many there are of each: counted in checked builds alone, for the tests that look for leaks.
cdef int64_t values_alive = 0
cdef int64_t shapes_alive = 0
cdef int64_t attrs_alive = 0
cdef int64_t leaves_alive = 0
cdef int64_t blocks_kept = 0    # of fg_blocks, those that are kept for the next use


cdef inline void census(int64_t *count, int n) noexcept:
    if FG_CHECKS:
        count[0] += n


cdef inline void pool_give(FgValue *v) noexcept:
    global pool_cached, pool_used
    cdef int64_t size = pool_size[v.size_class] + HEADER
    PyTraceMalloc_Untrack(TRACE_DOMAIN, <size_t>v)
    census(&values_alive, -1)
    pool_used -= size
    if not FG_REUSES:
        fg_chunk_free(v)
        return
    v.next = pool_free[v.size_class]
    pool_free[v.size_class] = v
    pool_cached += size
    # Never keep more idle than the most that was ever needed at once: a program that needs the
    # memory again finds it warm, one that does not never holds more than twice its peak.
    if pool_cached > pool_peak + (1 << 26):
        pool_trim(pool_peak)


cdef void pool_trim(int64_t keep) noexcept:
    """Return free chunks to the system, the largest first, until at most `keep` bytes are left."""
    global pool_cached
    cdef int i = CLASSES - 1
    cdef FgValue *v
    while i >= 0 and pool_cached > keep:
        v = pool_free[i]
        if v == NULL:
            i -= 1
            continue
        pool_free[i] = v.next
        pool_cached -= pool_size[i] + HEADER
        fg_chunk_free(v)


# ---- values ---------------------------------------------------------------------------------

cdef inline FgValue *value_ref(FgValue *v) noexcept:
    v.refs += 1
    return v


cdef FgValue *value_view(FgValue *base, char *data, int rank, const int64_t *strides,
                         bint contiguous) except NULL:
    """A view of base's memory; strides in bytes, kept only where they say something."""
    cdef FgValue *v
    if base.base != NULL:
        base = base.base
    v = pool_take(0 if contiguous else rank * 8)
    if not contiguous:
        memcpy(v.data, strides, rank * 8)
    v.contiguous = contiguous
    v.data = data
    v.nbytes = 0
    v.base = value_ref(base)
    return v


cdef inline int64_t *value_strides(FgValue *v) noexcept nogil:
    """Of a view that is not contiguous."""
    return <int64_t *>(<char *>v + HEADER)


cdef inline void value_release(FgValue *v) noexcept:
    v.refs -= 1
    if v.refs == 0:
        value_free(v)


cdef void value_free(FgValue *v) noexcept:
    cdef FgValue *base
    cdef void *owner
    while True:
        base = v.base
        owner = v.owner
        pool_give(v)
        if owner != NULL:
            Py_DECREF(<object>owner)
        if base == NULL:
            return
        v = base
        v.refs -= 1
        if v.refs:
            return


# ---- shapes ---------------------------------------------------------------------------------

cdef enum:
    SMALL_RANK = 4

cdef FgShape *shape_free = NULL     # of room for SMALL_RANK axes, linked through dims[0]


cdef FgShape *shape_new(int rank, const int64_t *dims) except NULL:
    """A shape, counted once. The size of an empty array is 0."""
    global shape_free
    cdef FgShape *s
    cdef int i
    cdef int64_t size = 1
    for i in range(rank):
        if dims[i] and size > (<int64_t>1 << 58) // dims[i]:
            raise ValueError("fastgrad: array is too big: " + str(dims_tuple(rank, dims)))
        size *= dims[i]
    if fg_fails():
        raise MemoryError()
    if rank <= SMALL_RANK and shape_free != NULL:
        s = shape_free
        shape_free = <FgShape *><void *>s.dims[0]
        census(&blocks_kept, -1)
    else:
        s = <FgShape *>fg_malloc(16 + 8 * (rank if rank > SMALL_RANK else SMALL_RANK))
        if s == NULL:
            raise MemoryError()
    census(&shapes_alive, 1)
    s.refs = 1
    s.rank = rank
    s.size = size
    for i in range(rank):
        s.dims[i] = dims[i]
    return s


cdef inline FgShape *shape_ref(FgShape *s) noexcept:
    s.refs += 1
    return s


cdef void shape_release(FgShape *s) noexcept:
    global shape_free
    s.refs -= 1
    if s.refs == 0:
        census(&shapes_alive, -1)
        if FG_REUSES and s.rank <= SMALL_RANK:
            s.dims[0] = <int64_t><void *>shape_free
            shape_free = s
            census(&blocks_kept, 1)
        else:
            fg_free(s)


cdef inline bint shape_same(FgShape *s, FgShape *t) noexcept nogil:
    cdef int i
    if s == t:
        return True
    if s.rank != t.rank or s.size != t.size:
        return False
    for i in range(s.rank):
        if s.dims[i] != t.dims[i]:
            return False
    return True


cdef tuple dims_tuple(int rank, const int64_t *dims):
    return tuple([dims[i] for i in range(rank)])


# ---- attributes -----------------------------------------------------------------------------

# What does not fit into a node: axes, strides of an index, operand lists, index arrays. An
# attribute is a pool chunk of 64-bit integers and, where there is one, a Python object as owner.
cdef FgValue **attrs = NULL         # of one that is free: the number of the next one, as it stands
cdef uint32_t attrs_used = 1        # attribute 0: none
cdef int64_t attrs_size = 0
cdef uint32_t attrs_free = 0


cdef uint32_t attr_new(int64_t count, const int64_t *items, object owner) except 0:
    global attrs, attrs_used, attrs_free
    cdef FgValue *v
    cdef void *grown
    cdef uint32_t i
    if not attrs_free and attrs_used >= attrs_size:
        grown = fg_grown(attrs, &attrs_size, sizeof(FgValue *))
        if grown == NULL:
            raise MemoryError()
        attrs = <FgValue **>grown
    v = pool_take(count * 8)
    if count:
        memcpy(v.data, items, count * 8)
    if owner is not None:
        Py_INCREF(owner)
        v.owner = <void *>owner
    if attrs_free:
        i = attrs_free
        attrs_free = <uint32_t><size_t>attrs[i]
    else:
        i = attrs_used
        attrs_used += 1
    census(&attrs_alive, 1)
    attrs[i] = v
    return i


cdef inline int64_t *attr_items(uint32_t i) noexcept nogil:
    return <int64_t *>attrs[i].data


cdef inline int64_t attr_count(uint32_t i) noexcept nogil:
    return attrs[i].nbytes >> 3


cdef object attr_object(uint32_t i):
    if attrs[i].owner == NULL:
        return None
    return <object>attrs[i].owner


cdef void attr_release(uint32_t i) noexcept:
    global attrs_free
    cdef FgValue *v = attrs[i]
    census(&attrs_alive, -1)
    attrs[i] = NULL
    if FG_REUSES:
        attrs[i] = <FgValue *><size_t>attrs_free
        attrs_free = i
    value_release(v)
