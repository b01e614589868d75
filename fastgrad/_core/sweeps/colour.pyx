"""Sparse derivatives: what a recorded graph looks like, rows of index lists, and colourings.

fastgrad/transforms/sparse.py finds out which inputs each output depends on and what to do with it; here is
what has to be fast. Lists of rows are two arrays, as in scipy's csr format: the entries of row i
are ``columns[starts[i]:starts[i + 1]]``, with int64 starts and int32 columns.
"""

import hashlib

# ---- the structure of a graph ---------------------------------------------------------------

cdef struct Words:              # what waits for being digested
    uint64_t word[512]
    int used


cdef int words_put(Words *w, object digest, uint64_t x) except -1:
    w.word[w.used] = x
    w.used += 1
    if w.used == 512:
        words_flush(w, digest)
    return 0


cdef int words_flush(Words *w, object digest) except -1:
    digest.update((<char *>w.word)[:w.used * 8])
    w.used = 0
    return 0


cdef int words_shape(Words *w, object digest, FgNode *n) except -1:
    cdef int i
    words_put(w, digest, n.rank)
    for i in range(n.rank):
        words_put(w, digest, <uint64_t>n.shape.dims[i])
    return 0


cdef int digest_index(object digest, object index) except -1:
    """An index as an attribute keeps it, arrays by what they contain."""
    if isinstance(index, tuple) and any([isinstance(item, np.ndarray) for item in index]):
        digest.update(b"(%d" % len(index))
        for item in index:
            digest_index(digest, item)
    elif isinstance(index, np.ndarray):
        digest.update(f"{index.dtype.str}{index.shape}".encode())
        digest.update(np.ascontiguousarray(index))
    else:
        digest.update(repr(index).encode())
    return 0


cdef int digest_zeros(object digest, FgNode *n) except -1:
    """Where a constant matrix has entries."""
    value = graph_value(n)
    if value is not None:
        digest.update(np.packbits(np.not_equal(value, 0)))
    return 0


def fingerprint(Trace trace):
    """128 bits that tell recorded graphs apart whose operators, operands, shapes, dtypes, axes or
    indices differ, or the zeros of constant factors of a matrix product. All other numbers do not
    count. For traces of one argument."""
    cdef Subgraph g = trace.subgraph()
    cdef Words w
    cdef FgNode *n
    cdef Slot *slot
    cdef Argument a
    cdef int64_t i
    cdef int k, count
    cdef uint32_t x
    cdef bint ids
    cdef object digest = hashlib.blake2b(digest_size=16)
    cdef uint32_t *position = <uint32_t *>fg_malloc((g.mask + 1) * sizeof(uint32_t))
    if position == NULL:
        raise MemoryError()
    w.used = 0
    try:
        for a in trace.inputs:
            words_put(&w, digest, a.node.dtype)
            words_shape(&w, digest, a.node)
            slot = g.find(a.id)
            if slot != NULL:
                position[slot - g.slots] = 0
        for i in range(g.count - 1, -1, -1):
            position[g.find(g.ids[i]) - g.slots] = <uint32_t>(g.count - i)
        for i in range(g.count - 1, -1, -1):
            n = node_at(g.ids[i])
            words_put(&w, digest, <uint64_t>n.op | <uint64_t>n.dtype << 16
                      | <uint64_t>n.index << 32)
            words_shape(&w, digest, n)
            count = operand_count(n)
            for k in range(count):
                x = operand_at(n, k)
                slot = g.find(x) if x else NULL
                words_put(&w, digest, position[slot - g.slots] if slot != NULL else ~<uint64_t>0)
                if slot == NULL and x and n.op == FG_matmul:
                    words_shape(&w, digest, node_at(x))
                    words_flush(&w, digest)
                    digest_zeros(digest, node_at(x))
            if n.op < FG_ELEMENTWISE_END:
                continue
            if n.attr == 0 or n.op == FG_dual:
                if n.op == FG_item or n.op == FG_assign:
                    words_put(&w, digest, <uint64_t><int64_t>n.constant)
                continue
            ids = n.op == FG_concatenate or n.op == FG_custom
            words_put(&w, digest, <uint64_t>attr_count(n.attr))
            for k in range(1 if ids else <int>attr_count(n.attr)):
                words_put(&w, digest, <uint64_t>attr_items(n.attr)[k])
            if n.op != FG_custom and attrs[n.attr].owner != NULL:
                words_flush(&w, digest)
                digest_index(digest, attr_object(n.attr))
        for y, end in zip(trace.outputs, trace.ends):
            if end is None:
                digest_index(digest, np.shape(y))
                continue
            n = (<Argument>end).node
            slot = g.find((<Argument>end).id)
            words_put(&w, digest, position[slot - g.slots] if slot != NULL else ~<uint64_t>0)
            words_put(&w, digest, n.dtype)
            words_shape(&w, digest, n)
        words_flush(&w, digest)
    finally:
        fg_free(position)
    return digest.digest()


# ---- rows of index lists --------------------------------------------------------------------

cdef struct Ints:               # a list that grows
    int32_t *item
    int64_t used, size


cdef inline int ints_put(Ints *list_, int32_t x) except -1:
    cdef void *grown
    if list_.used == list_.size:
        grown = fg_grown(list_.item, &list_.size, sizeof(int32_t))
        if grown == NULL:
            raise MemoryError()
        list_.item = <int32_t *>grown
    list_.item[list_.used] = x
    list_.used += 1
    return 0


cdef object ints_array(Ints *list_):
    """As an ndarray of its own."""
    cdef ndarray out = np.empty(list_.used, dtype=np.int32)
    if list_.used:
        memcpy(PyArray_DATA(out), list_.item, list_.used * sizeof(int32_t))
    return out


cdef const int64_t *starts_of(ndarray a) except NULL:
    if a is None or PyArray_TYPE(a) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(a):
        raise TypeError("starts must be contiguous int64")
    return <const int64_t *>PyArray_DATA(a)


cdef int32_t *columns_of(ndarray a) except NULL:
    if a is None or PyArray_TYPE(a) != cnp.NPY_INT32 or not cnp.PyArray_ISCARRAY_RO(a):
        raise TypeError("columns must be contiguous int32")
    return <int32_t *>PyArray_DATA(a)


cdef int64_t pattern_of(ndarray starts, ndarray columns, int64_t width, bint holes=False) except -1:
    """How many rows there are, once it is sure that they lie in the columns, and these below
    `width` (with `holes` below zero, too)."""
    cdef int64_t rows = PyArray_DIMS(starts)[0] - 1 if PyArray_NDIM(starts) == 1 else -1
    cdef const int64_t *start = starts_of(starts)
    cdef const int32_t *column = columns_of(columns)
    cdef int64_t count = PyArray_DIMS(columns)[0] if PyArray_NDIM(columns) == 1 else -1
    cdef int64_t i
    if rows < 0 or count < 0 or rows >= 1 << 31 or not 0 <= width < 1 << 31:
        raise ValueError("a pattern is not of two vectors, or has more rows or columns than 2**31")
    if start[0] != 0 or start[rows] != count:
        raise ValueError(f"the rows of a pattern do not go from 0 to {count}")
    for i in range(rows):
        if start[i] > start[i + 1]:
            raise ValueError(f"row {i} of a pattern ends before it begins")
    for i in range(count):
        if column[i] >= width or (column[i] < 0 and not holes):
            raise ValueError(f"a pattern has column {column[i]} of {width}")
    return rows


cdef int order_of(ndarray order, int64_t count, bint whole, str what) except -1:
    """Check numbers below `count`, none of them twice; with `whole` all of them."""
    cdef const int32_t *x = columns_of(order)
    cdef int64_t i, n = PyArray_DIMS(order)[0] if PyArray_NDIM(order) == 1 else -1
    cdef ndarray seen = np.zeros(count + 1, dtype=np.uint8)
    cdef uint8_t *met = <uint8_t *>PyArray_DATA(seen)
    if n < 0 or (whole and n != count):
        raise ValueError(f"{what} is no vector of {count} numbers")
    for i in range(n):
        if not 0 <= x[i] < count or met[x[i]]:
            raise ValueError(f"{what} has {x[i]} twice, or not below {count}")
        met[x[i]] = 1
    return 0


def distinct_rows(ndarray starts, ndarray columns, int64_t width):
    """The rows without repetitions and without what is negative, in order of appearance."""
    cdef int64_t rows = pattern_of(starts, columns, width, True)
    cdef const int64_t *start = starts_of(starts)
    cdef const int32_t *column = columns_of(columns)
    cdef ndarray new_starts = np.empty(rows + 1, dtype=np.int64)
    cdef ndarray new_columns = np.empty(start[rows], dtype=np.int32)
    cdef int64_t *first = <int64_t *>PyArray_DATA(new_starts)
    cdef int32_t *out = <int32_t *>PyArray_DATA(new_columns)
    cdef int32_t *seen = <int32_t *>fg_calloc(width + 1, sizeof(int32_t))
    cdef int64_t i, p, used = 0
    cdef int32_t x
    if seen == NULL:
        raise MemoryError()
    with nogil:
        for i in range(rows):
            first[i] = used
            for p in range(start[i], start[i + 1]):
                x = column[p]
                if x >= 0 and seen[x] != i + 1:
                    seen[x] = <int32_t>(i + 1)
                    out[used] = x
                    used += 1
        first[rows] = used
    fg_free(seen)
    return new_starts, new_columns if used == start[rows] else new_columns[:used].copy()


def expanded_rows(ndarray starts, ndarray columns, int64_t width, ndarray hub_starts,
                  ndarray hub_columns):
    """The rows with each hub replaced by what it stands for.

    A column ``width + h`` stands for the columns of row h of the hubs, among which there may be
    earlier hubs. A row is complete as soon as it has all columns, so that rows which share dense
    hubs cost what they contain.
    """
    cdef int64_t hubs = np.size(hub_starts) - 1
    cdef int64_t rows = pattern_of(starts, columns, width + hubs, True)
    cdef const int64_t *start = starts_of(starts)
    cdef const int32_t *column = columns_of(columns)
    cdef const int64_t *hub_start = starts_of(hub_starts)
    cdef const int32_t *hub_column = columns_of(hub_columns)
    cdef int64_t hub_rows = pattern_of(hub_starts, hub_columns, width + hubs, True)
    cdef ndarray new_starts = np.empty(rows + 1, dtype=np.int64)
    cdef int64_t *first = <int64_t *>PyArray_DATA(new_starts)
    cdef int32_t *seen = <int32_t *>fg_calloc(width + hubs + 1, sizeof(int32_t))
    cdef int32_t *waiting = <int32_t *>fg_malloc((hubs + 1) * sizeof(int32_t))
    cdef Ints out
    cdef int64_t i, p, stop, depth
    cdef int32_t x
    cdef const int32_t *source
    out.item = NULL
    out.used = out.size = 0
    try:
        if seen == NULL or waiting == NULL:
            raise MemoryError()
        for i in range(rows):
            first[i] = out.used
            depth = 0
            source, p, stop = column, start[i], start[i + 1]
            while True:
                while p < stop:
                    x = source[p]
                    p += 1
                    if x < 0 or seen[x] == i + 1:
                        continue
                    seen[x] = <int32_t>(i + 1)
                    if x < width:
                        ints_put(&out, x)
                    else:
                        waiting[depth] = x - <int32_t>width
                        depth += 1
                if depth == 0 or out.used - first[i] == width:
                    break
                depth -= 1
                source = hub_column
                p, stop = hub_start[waiting[depth]], hub_start[waiting[depth] + 1]
        first[rows] = out.used
        return new_starts, ints_array(&out)
    finally:
        fg_free(seen)
        fg_free(waiting)
        fg_free(out.item)


def transposed_rows(ndarray starts, ndarray columns, int64_t width):
    """For each column its rows, ascending, and where each of these entries stood."""
    cdef int64_t rows = pattern_of(starts, columns, width)
    cdef const int64_t *start = starts_of(starts)
    cdef const int32_t *column = columns_of(columns)
    cdef int64_t count = start[rows]
    cdef ndarray new_starts = np.zeros(width + 1, dtype=np.int64)
    cdef ndarray new_columns = np.empty(count, dtype=np.int32)
    cdef ndarray places = np.empty(count, dtype=np.int64)
    cdef int64_t *first = <int64_t *>PyArray_DATA(new_starts)
    cdef int32_t *row = <int32_t *>PyArray_DATA(new_columns)
    cdef int64_t *place = <int64_t *>PyArray_DATA(places)
    cdef int64_t i, p, at
    with nogil:
        for p in range(count):
            first[column[p] + 1] += 1
        for i in range(width):
            first[i + 1] += first[i]
        for i in range(rows):
            for p in range(start[i], start[i + 1]):
                at = first[column[p]]
                first[column[p]] = at + 1
                row[at] = <int32_t>i
                place[at] = p
        for i in range(width, 0, -1):       # each has moved to where the next one begins
            first[i] = first[i - 1]
        first[0] = 0
    return new_starts, new_columns, places


def by_colour(ndarray colours, int64_t count):
    """The places in a list of colours, colour after colour, those of colour -1 left out; and
    where each colour begins."""
    cdef const int32_t *colour = columns_of(colours)
    cdef int64_t size = PyArray_DIMS(colours)[0] if PyArray_NDIM(colours) == 1 else -1
    if size < 0 or not 0 <= count < 1 << 31 or (size and np.max(colours) >= count):
        raise ValueError(f"by_colour: the colours are no vector of numbers below {count}")
    cdef ndarray starts = np.zeros(count + 2, dtype=np.int64)
    cdef int64_t *next_ = <int64_t *>PyArray_DATA(starts) + 1       # behind colour -1
    cdef int64_t i
    cdef ndarray order
    cdef int64_t *place
    with nogil:
        for i in range(size):
            if colour[i] >= 0:
                next_[colour[i] + 1] += 1
        for i in range(count):
            next_[i + 1] += next_[i]
    order = np.empty(next_[count], dtype=np.intp)
    place = <int64_t *>PyArray_DATA(order)
    with nogil:
        for i in range(size):
            if colour[i] >= 0:
                place[next_[colour[i]]] = i
                next_[colour[i]] += 1
    return starts[:count + 1], order        # each has moved to where the next one begins


# ---- colourings -----------------------------------------------------------------------------

def colour_columns(ndarray starts, ndarray columns, ndarray starts_t, ndarray columns_t,
                   ndarray order):
    """Colour columns so that no row has two of one colour; -1 for empty columns.

    Greedy distance-2 colouring of the bipartite graph (Curtis, Powell and Reid 1974; Gebremedhin,
    Manne and Pothen 2005, algorithm 3.1), in the order given. Returns the colours and their number.
    """
    cdef int64_t width = np.size(starts_t) - 1
    cdef int64_t rows = pattern_of(starts, columns, width)
    pattern_of(starts_t, columns_t, rows)
    order_of(order, width, True, "the order of columns")
    cdef const int64_t *row_start = starts_of(starts)
    cdef const int32_t *column = columns_of(columns)
    cdef const int64_t *column_start = starts_of(starts_t)
    cdef const int32_t *row = columns_of(columns_t)
    cdef const int32_t *turn = columns_of(order)
    cdef ndarray colours = np.full(width, -1, dtype=np.int32)
    cdef int32_t *colour = <int32_t *>PyArray_DATA(colours)
    cdef int32_t *forbidden = <int32_t *>fg_calloc(width + 1, sizeof(int32_t))
    cdef int64_t t, p, q
    cdef int32_t v, c, count = 0
    if forbidden == NULL:
        raise MemoryError()
    with nogil:
        for t in range(width):
            v = turn[t]
            if column_start[v] == column_start[v + 1]:
                continue
            for p in range(column_start[v], column_start[v + 1]):
                for q in range(row_start[row[p]], row_start[row[p] + 1]):
                    c = colour[column[q]]
                    if c >= 0:
                        forbidden[c] = v + 1
            c = 0
            while forbidden[c] == v + 1:
                c += 1
            colour[v] = c
            if c >= count:
                count = c + 1
    fg_free(forbidden)
    return colours, count


def colour_star(ndarray starts, ndarray columns, ndarray mirror, ndarray dense, ndarray order):
    """Colour a symmetric pattern so that each entry can be read off a sum of columns.

    Neighbours have different colours, and every path of four vertices has at least three: any two
    colours then form stars, and an entry is alone of its colour in the row of the spoke (Coleman
    and More 1984). Greedy, with the two-coloured stars kept in mind (Gebremedhin, Tarafdar, Manne
    and Pothen 2007, algorithm 4.1).

    Parameters
    ----------
    starts, columns
        The pattern, symmetric, rows ascending.
    mirror
        For each entry (i, j) the number of the entry (j, i).
    dense
        Vertices that get a colour of their own each: what would make it quadratic. A path through
        one of them has its colour and two others.
    order
        All vertices.

    Returns
    -------
    colours : ndarray of int32
        -1 for empty rows.
    count : int
    column : ndarray of int32
        For each entry the column from whose colour it is read; the same for (i, j) and (j, i).
    """
    cdef int64_t n = pattern_of(starts, columns, np.size(starts) - 1)
    order_of(order, n, True, "the order of vertices")
    order_of(dense, n, False, "the list of dense vertices")
    cdef const int64_t *start = starts_of(starts)
    cdef const int32_t *column = columns_of(columns)
    if np.shape(mirror) != (start[n],) or (start[n] and not 0 <= np.min(mirror) <= np.max(
            mirror) < start[n]):
        raise ValueError(f"the mirror has not an entry's number for each of {start[n]} entries")
    cdef const int64_t *twin = starts_of(mirror)
    cdef const int32_t *turn = columns_of(order)
    cdef const int32_t *lone = columns_of(dense)
    cdef int64_t lones = PyArray_DIMS(dense)[0]
    cdef int64_t entries = start[n]
    cdef ndarray colours = np.full(n, -1, dtype=np.int32)
    cdef ndarray reads = np.empty(entries, dtype=np.int32)
    cdef int32_t *colour = <int32_t *>PyArray_DATA(colours)
    cdef int32_t *read = <int32_t *>PyArray_DATA(reads)
    cdef char *memory = <char *>fg_calloc(12 * (entries + 1) + 20 * (n + 1), 1)
    cdef int64_t *star = <int64_t *>memory          # of each entry
    cdef int64_t *nearest = star + entries + 1      # by colour: v's entry of the first such one
    cdef int32_t *met = <int32_t *>(nearest + n + 1)        # by colour: a neighbour of v has it
    cdef int32_t *forbidden = met + n + 1
    cdef int32_t *treated = forbidden + n + 1
    cdef int32_t *hub = treated + n + 1             # of each star; -1: one edge only
    cdef int64_t t, p, q, stars = 0
    cdef int32_t v, w, x, c, count = <int32_t>lones
    if memory == NULL:
        raise MemoryError()
    with nogil:
        for t in range(lones):
            colour[lone[t]] = <int32_t>t
        for t in range(n):
            v = turn[t]
            if colour[v] >= 0 or start[v] == start[v + 1]:
                continue
            for p in range(start[v], start[v + 1]):
                w = column[p]
                c = colour[w]
                if w == v or c < lones:
                    continue
                forbidden[c] = v + 1
                if met[c] == v + 1:         # v is to be the hub: no spoke of it may have another
                    q = nearest[c]
                    if treated[column[q]] != v + 1:
                        star_treat(start, column, colour, forbidden, treated, v, column[q])
                    star_treat(start, column, colour, forbidden, treated, v, w)
                    continue
                met[c] = v + 1
                nearest[c] = p
                for q in range(start[w], start[w + 1]):
                    x = column[q]
                    if x != v and x != w and colour[x] >= lones and hub[star[q]] == x:
                        forbidden[colour[x]] = v + 1
            c = <int32_t>lones
            while forbidden[c] == v + 1:
                c += 1
            colour[v] = c
            if c >= count:
                count = c + 1
            for p in range(start[v], start[v + 1]):
                w = column[p]
                if w == v or colour[w] < lones:
                    continue
                for q in range(start[w], start[w + 1]):
                    x = column[q]
                    if x != v and x != w and colour[x] == c:
                        break
                else:
                    q = -1
                if q >= 0:                  # w is the hub of v and x
                    star[p] = star[q]
                    hub[star[p]] = w
                elif nearest[colour[w]] != p:
                    star[p] = star[nearest[colour[w]]]
                    hub[star[p]] = v
                else:
                    star[p] = stars
                    hub[stars] = -1
                    stars += 1
                star[twin[p]] = star[p]
        for v in range(n):
            for p in range(start[v], start[v + 1]):
                w = column[p]
                if colour[v] < lones or colour[w] < lones:
                    read[p] = w if colour[w] < colour[v] else v
                elif v == w:
                    read[p] = v
                elif hub[star[p]] >= 0:
                    read[p] = hub[star[p]]
                else:
                    read[p] = v if v < w else w
    fg_free(memory)
    return colours, count, reads


cdef inline void star_treat(const int64_t *start, const int32_t *column, const int32_t *colour,
                            int32_t *forbidden, int32_t *treated, int32_t v,
                            int32_t w) noexcept nogil:
    """Forbid v the colours of the neighbours of w."""
    cdef int64_t p
    for p in range(start[w], start[w + 1]):
        if column[p] != w and column[p] != v and colour[column[p]] >= 0:
            forbidden[colour[column[p]]] = v + 1
    treated[w] = v + 1
