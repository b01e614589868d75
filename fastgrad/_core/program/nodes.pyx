"""Graphs checked and brought into the numbers that the planner reads: the one checker of graphs.

Graphs come from files of strangers, too: nothing is taken on trust here, so that the planner and
the executor may. What Python computes at run time is not looked at further for a plan, which holds
its results against shape and dtype; `validate` has it looked at by graphs/check.py.
"""

cdef extern from *:
    """
    typedef struct CoreTables {
        const FgKernels **kernels;
        const FgOpInfo *ops;
        void *matmul[2];
        void *counts;
    } CoreTables;
    static const FgOpInfo *op_table;
    """
    ctypedef struct CoreTables:
        const FgKernels **kernels
        const FgOpInfo *ops
        void *matmul[2]
        void *counts
    const FgOpInfo *op_table

cdef extern from "Python.h":
    void *PyCapsule_GetPointer(object, const char *) except NULL
    bint PyFloat_CheckExact(object)
    bint PyFloat_Check(object)
    double PyFloat_AS_DOUBLE(object)
    PyObject *PyList_GET_ITEM(object, Py_ssize_t)

cdef enum:
    RANK_MAX = 64
    NODES_MAX = 0x7ffffff0
    # Operands of one call or concatenation, inputs, outputs: numbers of 32 bits.
    NESTING_MAX = 30            # loops in loops
    DEPTH_MAX = 60              # values in values; a Program nests about ten deep

MAX_DEPTH = DEPTH_MAX

cdef list dtypes = [core.dtype_of_number(k) if k in (0, 7, 11, 12) else np.dtype("?bBhHiIlLqQfd"[k])
                    for k in range(13)]
cdef dict kind_numbers = {"bool": FG_GUARD_BOOL, "int": FG_GUARD_INT, "count": FG_GUARD_COUNT,
                          "all": FG_GUARD_COUNT}
cdef dict native_calls = {"numpy.logical_and": FG_BLOCK_AND, "numpy.bitwise_and": FG_BLOCK_AND,
                          "numpy.logical_or": FG_BLOCK_OR, "numpy.bitwise_or": FG_BLOCK_OR,
                          "numpy.logical_xor": FG_BLOCK_XOR, "numpy.bitwise_xor": FG_BLOCK_XOR,
                          "numpy.logical_not": FG_BLOCK_NOT, "numpy.invert": FG_BLOCK_NOT,
                          "numpy.bitwise_not": FG_BLOCK_NOT}
cdef dict weights_calls = {"fastgrad.weights_max": FG_max, "fastgrad.weights_min": FG_min,
                           "fastgrad.weights_logsumexp": FG_logsumexp}
cdef dict compare_calls


cdef int tables_setup() except -1:
    """What the core shares: kernels, operators, the matrix product."""
    global op_table, fg_vm_kernels, compare_calls
    cdef CoreTables *t = <CoreTables *>PyCapsule_GetPointer(core.tables(), "fastgrad.tables")
    fg_vm_kernels = t.kernels
    op_table = t.ops
    fg_counts_share(t.counts)
    fg_vm_matmul[0] = <const FgCallInfo *>t.matmul[0]
    fg_vm_matmul[1] = <const FgCallInfo *>t.matmul[1]
    compare_calls = {}
    for op in range(FG_ELEMENTWISE_END, FG_COMPARE_END):
        compare_calls["numpy." + op_table[op].name.decode()] = op
    return 0


@cython.final
@cython.no_gc_clear
cdef class Checked:
    """A graph that has passed every check, in the planner's numbers."""
    cdef object graph
    cdef FgSource source
    cdef FgGraphNode *nodes
    cdef FgDims *shapes
    cdef int64_t *dims                  # of all shapes, one after the other
    cdef FgAttribute *attributes
    cdef list shape_tuples              # by number
    cdef dict known                     # attributes in numbers: which one
    cdef list kinds, decoded            # of attributes: kind, array
    cdef object inputs, outputs, operands
    cdef FgGuardRow *guards
    cdef dict loops                     # by node: what the results are
    cdef dict plans                     # of the graphs of loops, each once
    cdef int outside, nesting           # loops around it; loops in loops in it
    cdef object unfolded                # operations, each loop with its own bodies
    cdef object look                    # of `validate`, as are the next two: see there
    cdef dict seen
    cdef dict open                      # nodes to be looked at in Python
    cdef int assumed                    # ASSUME_...
    cdef bint guards_assume             # a guard that does not hold may do so under fewer assumptions

    def __dealloc__(self):
        fg_free(self.nodes)
        fg_free(self.shapes)
        fg_free(self.dims)
        fg_free(self.attributes)
        fg_free(self.guards)

    cdef object fault(self, int64_t i, str what):
        name = ""
        if 0 <= self.nodes[i].op < FG_OPS:
            name = f" ({op_table[self.nodes[i].op].name.decode()})"
        return ValueError(f"graph: node {i}{name}: {what}")


cdef object positive_int(object x, str what):
    if type(x) is not int and not isinstance(x, np.integer):
        raise ValueError(f"graph: {what} must be an int, not {x!r}")
    return int(x)


def exact_shape(shape):
    """The shape as a tuple of ints; ValueError for what no array can have."""
    if type(shape) is not tuple:
        raise ValueError(f"graph: a shape must be a tuple, not {shape!r}")
    if len(shape) > RANK_MAX:
        raise ValueError(f"graph: a shape has {len(shape)} axes; NumPy has at most {RANK_MAX}")
    exact = tuple([positive_int(d, "a length") for d in shape])
    size = 1
    for d in exact:
        if d < 0:
            raise ValueError(f"graph: the shape {shape} has a negative length")
        size *= max(d, 1)
    if size >= 1 << 48:
        raise ValueError(f"graph: the shape {shape} is larger than any memory")
    return exact


cdef int check_shapes(Checked c) except -1:
    """Shapes, equal ones once; returns through c.nodes their numbers."""
    cdef dict number = {}
    cdef list renumbered = []
    cdef int64_t size, total = 0, i, n
    cdef int k
    c.shape_tuples = []
    for shape in c.graph.shapes:
        exact = exact_shape(shape)
        if exact not in number:
            number[exact] = len(c.shape_tuples)
            c.shape_tuples.append(exact)
            total += len(exact)
        renumbered.append(number[exact])
    if not renumbered:
        raise ValueError("graph: there are no shapes; the first must be ()")
    n = len(c.shape_tuples)
    c.shapes = <FgDims *>fg_calloc(n + 1, sizeof(FgDims))
    c.dims = <int64_t *>fg_calloc(total + 1, 8)
    if c.shapes == NULL or c.dims == NULL:
        raise MemoryError()
    total = 0
    for i in range(n):
        shape = c.shape_tuples[i]
        size = 1
        for k in range(len(shape)):
            c.dims[total + k] = shape[k]
            size *= c.dims[total + k]
        c.shapes[i].rank = len(shape)
        c.shapes[i].size = size
        c.shapes[i].dims = c.dims + total
        total += len(shape)
    numbers = np.array(renumbered, dtype=np.int32)
    cdef int32_t[::1] numbers_view = numbers
    n = len(renumbered)
    for i in range(c.source.count):
        if c.nodes[i].shape >= n:
            raise c.fault(i, f"there is no shape {c.nodes[i].shape}")
        c.nodes[i].shape = numbers_view[c.nodes[i].shape]
        if c.nodes[i].rank != c.shapes[c.nodes[i].shape].rank:
            raise c.fault(i, f"the rank {c.nodes[i].rank} is not that of the shape "
                             f"{c.shape_tuples[c.nodes[i].shape]}")
    return 0


cdef int attribute_number(Checked c, int kind, tuple numbers) except -1:
    """The number of an attribute that consists of numbers."""
    key = (kind, numbers)
    found = c.known.get(key)
    if found is None:
        found = len(c.kinds)
        c.known[key] = found
        c.kinds.append(kind)
        c.decoded.append(np.array(numbers, dtype=np.int64))
    return found


cdef int attribute_data(Checked c, object array) except -1:
    array = np.ascontiguousarray(array)
    if array.nbytes <= 4096:
        key = (array.dtype, array.shape, array.tobytes())
        found = c.known.get(key)
        if found is not None:
            return found
        c.known[key] = len(c.kinds)
    c.kinds.append(FG_ATTR_DATA)
    c.decoded.append(array)
    return len(c.kinds) - 1


cdef int32_t operand(Checked c, int64_t i, int k) noexcept:
    """Operand k of node i, or -1."""
    cdef FgGraphNode *n = &c.nodes[i]
    if n.flags & FG_GRAPH_MANY:
        return c.source.operands[n.a + k] if k < n.b else -1
    return n.a if k == 0 else n.b if k == 1 else n.c if k == 2 else -1


cdef int check_operands(Checked c, int64_t i) except -1:
    """Operands stand before their consumers; returns how many there are."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef int64_t k, operand_count = len(c.operands)
    if n.flags & FG_GRAPH_MANY:
        if n.a < 0 or n.b < 0 or <int64_t>n.a + n.b > operand_count:
            raise c.fault(i, "its list of operands reaches beyond the end of all lists")
        for k in range(n.b):
            if c.source.operands[n.a + k] < 0 or c.source.operands[n.a + k] >= i:
                raise c.fault(i, f"operand {k} is {c.source.operands[n.a + k]}, which does not "
                                 "stand before it")
        return n.b
    if n.a >= i or n.b >= i or n.c >= i or n.a < -1 or n.b < -1 or n.c < -1 or (
            n.a < 0 and n.b >= 0) or (n.b < 0 and n.c >= 0):
        raise c.fault(i, f"its operands are {n.a}, {n.b}, {n.c}; each must stand before it")
    return (n.a >= 0) + (n.b >= 0) + (n.c >= 0)


cdef int plain_operands(Checked c, int64_t i, int count) except -1:
    """Where a list of operands is not needed, the operands stand in the node."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef int32_t a, b, third
    if not n.flags & FG_GRAPH_MANY:
        return 0
    if count > 3:
        raise c.fault(i, f"it has {count} operands")
    a, b, third = operand(c, i, 0), operand(c, i, 1), operand(c, i, 2)
    n.a, n.b, n.c = a, b, third
    n.flags &= ~<uint32_t>FG_GRAPH_MANY
    return 0


cdef bint broadcasts_to(Checked c, uint32_t x, uint32_t wide) noexcept:
    cdef const FgDims *a = &c.shapes[x]
    cdef const FgDims *b = &c.shapes[wide]
    cdef int k
    if x == wide or a.rank == 0:
        return True
    if a.rank > b.rank:
        return False
    for k in range(a.rank):
        if a.dims[k] != 1 and a.dims[k] != b.dims[k + b.rank - a.rank]:
            return False
    return True


cdef int check_elementwise(Checked c, int64_t i, int arity) except -1:
    """Operands of its own dtype (a comparison: of one float dtype) that broadcast to its shape."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef int count = check_operands(c, i), k, axis, expected
    cdef FgGraphNode *x
    cdef bint whole = False
    cdef bint masked = n.op < FG_ELEMENTWISE_END and op_table[n.op].props & FG_MASK
    cdef int64_t length
    cdef const FgDims *d
    if count != arity:
        raise c.fault(i, f"it has {count} operands and needs {arity}")
    plain_operands(c, i, count)
    if n.op >= FG_ELEMENTWISE_END and n.dtype != FG_BOOL:
        raise c.fault(i, f"a comparison makes bools, not {dtypes[n.dtype]}")
    expected = n.dtype if n.op < FG_ELEMENTWISE_END else c.nodes[operand(c, i, 0)].dtype
    for k in range(arity):
        x = &c.nodes[operand(c, i, k)]
        if x.dtype != (FG_BOOL if masked and k == 2 else expected):
            raise c.fault(i, f"operand {k} has the dtype {dtypes[x.dtype]}, not "
                             f"{dtypes[FG_BOOL if masked and k == 2 else expected]}")
        if not broadcasts_to(c, x.shape, n.shape):
            raise c.fault(i, f"operand {k} of shape {c.shape_tuples[x.shape]} does not broadcast "
                             f"to {c.shape_tuples[n.shape]}")
        whole = whole or x.shape == n.shape
    if whole:
        return 0
    # Every length must come from an operand.
    for axis in range(n.rank):
        length = 1
        for k in range(arity):
            d = &c.shapes[c.nodes[operand(c, i, k)].shape]
            if axis >= n.rank - d.rank and d.dims[axis - (n.rank - d.rank)] != 1:
                length = d.dims[axis - (n.rank - d.rank)]
        if length != c.shapes[n.shape].dims[axis]:
            raise c.fault(i, f"its operands do not make the shape {c.shape_tuples[n.shape]}")
    return 0


cdef tuple index_numbers(object index, tuple shape, str what):
    """A basic index as (kind, start, step, count) for each entry, and the shape of what it selects;
    None where it is not basic."""
    cdef list items = []
    cdef list out = []
    cdef int axis = 0, used = 0
    cdef bint dots = False
    if type(index) is not tuple:
        index = (index,)
    for x in index:
        if type(x) is slice or type(x) is int or isinstance(x, np.integer):
            used += 1
        elif x is Ellipsis:
            if dots:
                raise ValueError(f"{what}: the index has two ellipses")
            dots = True
        elif x is not None:
            return None
    if used > len(shape) or len(index) > 2 * RANK_MAX:
        raise ValueError(f"{what}: the index {index!r} has too many entries for the shape {shape}")
    for x in (index if dots else (*index, Ellipsis)):
        if x is Ellipsis:
            for _ in range(len(shape) - used):
                items += (FG_INDEX_SLICE, 0, 1, shape[axis])
                out.append(shape[axis])
                axis += 1
        elif x is None:
            items += (FG_INDEX_NEW, 0, 0, 1)
            out.append(1)
        elif type(x) is slice:
            try:
                start, stop, step = x.indices(shape[axis])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{what}: the slice {x!r}: {error}") from None
            length = len(range(start, stop, step))
            items += (FG_INDEX_SLICE, start if length else 0, step if length > 1 else 1, length)
            out.append(length)
            axis += 1
        else:
            k = int(x)
            if not -shape[axis] <= k < shape[axis]:
                raise ValueError(f"{what}: the index {k} is out of bounds for an axis of length "
                                 f"{shape[axis]}")
            items += (FG_INDEX_INT, k % shape[axis], 0, 0)
            axis += 1
    if len(out) > RANK_MAX:
        raise ValueError(f"{what}: the index {index!r} makes too many axes")
    return tuple(items), tuple(out)


cdef object axes_mask(Checked c, int64_t i, object axes, int rank):
    if axes is None:
        axes = range(rank)
    if type(axes) is int:
        axes = (axes,)
    mask = 0
    for a in axes:
        a = positive_int(a, "an axis")
        if not 0 <= a < rank or mask >> a & 1:
            raise c.fault(i, f"the axes {tuple(axes)} are not different axes of an operand of rank "
                             f"{rank}")
        mask |= 1 << a
    return mask if mask < 1 << 63 else mask - (1 << 64)


cdef int check_shaped(Checked c, int64_t i, object attr) except -1:
    """An operator that is not element-wise; its attribute becomes numbers."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef int count = check_operands(c, i), op = n.op, k
    cdef FgGraphNode *x
    shape = c.shape_tuples[n.shape]
    cdef bint python = op in (FG_gather, FG_scatter, FG_assign, FG_call, FG_custom)
    n.attr = 0
    if op == FG_dual or (count < 1 and op not in (FG_call, FG_custom)):
        raise c.fault(i, "it has no operands" if op != FG_dual else "it has no place in a graph")
    if not python and op != FG_concatenate:
        plain_operands(c, i, count)
        if count != 1 and not (op == FG_matmul and count == 2):
            raise c.fault(i, f"it has {count} operands")
    for k in range(0 if python or op == FG_result else count):
        x = &c.nodes[operand(c, i, k)]
        if x.dtype != n.dtype and op != FG_cast:
            raise c.fault(i, f"operand {k} has the dtype {dtypes[x.dtype]}, not {dtypes[n.dtype]}")
        if x.op == FG_custom:
            raise c.fault(i, "a function of several results is no operand")
    x = &c.nodes[operand(c, i, 0)] if count else NULL
    own = c.shape_tuples[x.shape] if count else None
    expected = shape
    if op == FG_reshape:
        if c.shapes[x.shape].size != c.shapes[n.shape].size:
            raise c.fault(i, f"{own} has not as many entries as {shape}")
    elif op == FG_broadcast:
        if not broadcasts_to(c, x.shape, n.shape):
            raise c.fault(i, f"{own} does not broadcast to {shape}")
    elif op == FG_cast:
        expected = own
    elif op == FG_transpose:
        axes = ()
        if type(attr) in (tuple, list):
            axes = tuple([positive_int(a, "an axis") for a in attr])
        if sorted(axes) != list(range(len(own))):
            raise c.fault(i, f"{attr!r} is no order of the axes of an operand of shape {own}")
        expected = tuple([own[a] for a in axes])
        n.attr = attribute_number(c, FG_ATTR_NUMBERS, axes)
    elif op == FG_flip:
        n.attr = attribute_number(c, FG_ATTR_NUMBERS, (axes_mask(c, i, attr, len(own)),))
        expected = own
    elif op == FG_sum or op == FG_prod or op == FG_max or op == FG_min or op == FG_logsumexp:
        mask = axes_mask(c, i, attr, len(own)) if own else 0
        expected = tuple([1 if mask >> k & 1 else d for k, d in enumerate(own)])
        if shape != expected:
            expected = tuple([d for k, d in enumerate(own) if not mask >> k & 1])
        if own and (op == FG_max or op == FG_min) and c.shapes[x.shape].size == 0 and \
                c.shapes[n.shape].size:
            raise c.fault(i, f"an operand of shape {own} has no {op_table[op].name.decode()}imum")
        n.attr = attribute_number(c, FG_ATTR_NUMBERS, (mask,))
    elif op == FG_item or op == FG_place:
        found = index_numbers(attr, own if op == FG_item else shape, f"graph: node {i}")
        if found is None:
            raise c.fault(i, f"{attr!r} is no basic index")
        if found[1] != (shape if op == FG_item else own):
            raise c.fault(i, f"the index {attr!r} selects the shape {found[1]}")
        n.attr = attribute_number(c, FG_ATTR_NUMBERS, found[0])
    elif op == FG_matmul:
        check_matmul(c, i)
    elif op == FG_concatenate:
        check_concatenate(c, i, attr, count)
    else:
        n.attr = check_python(c, i, attr, count)
    if expected != shape:
        raise c.fault(i, f"its operand of shape {own} does not make the shape {shape}")
    return 0


cdef int check_matmul(Checked c, int64_t i) except -1:
    cdef FgGraphNode *n = &c.nodes[i]
    if n.flags & FG_GRAPH_MANY or n.b < 0:
        raise c.fault(i, "it needs two operands")
    a, b = c.shape_tuples[c.nodes[n.a].shape], c.shape_tuples[c.nodes[n.b].shape]
    cdef Py_ssize_t ra = len(a), rb = len(b)
    good = ra > 0 and rb > 0 and a[ra - 1] == b[rb - 2 if rb > 1 else 0]
    if good:
        try:
            batch = np.broadcast_shapes(a[:max(ra - 2, 0)], b[:max(rb - 2, 0)])
            good = (batch + a[max(ra - 2, 0):ra - 1] + (b[rb - 1:] if rb > 1 else ())
                    == c.shape_tuples[n.shape])
        except ValueError:
            good = False
    if not good:
        raise c.fault(i, f"{a} and {b} do not make {c.shape_tuples[n.shape]}")
    return 0


cdef int check_concatenate(Checked c, int64_t i, object axis, int count) except -1:
    cdef FgGraphNode *n = &c.nodes[i]
    shape = c.shape_tuples[n.shape]
    shapes = [c.shape_tuples[c.nodes[operand(c, i, k)].shape] for k in range(count)]
    if axis is None:
        if any(shapes) or shape != (count,):
            raise c.fault(i, f"{count} scalars make the shape ({count},), not {shape}")
        n.attr = attribute_number(c, FG_ATTR_NUMBERS, (-1,))
        return 0
    axis = positive_int(axis, "an axis")
    total = 0
    for x in shapes:
        if len(x) != len(shape) or not 0 <= axis < len(x) or \
                x[:axis] + x[axis + 1:] != shape[:axis] + shape[axis + 1:]:
            raise c.fault(i, f"an operand of shape {x} is no part along axis {axis} of {shape}")
        total += x[axis]
    if total != shape[axis]:
        raise c.fault(i, f"its operands have {total} entries along axis {axis}, not {shape[axis]}")
    n.attr = attribute_number(c, FG_ATTR_NUMBERS, (axis,))
    return 0


cdef bint slots_in_order(args, int count):
    """Whether the arguments of a call are just its operands."""
    return type(args) in (tuple, list) and len(args) == count and all(
        [type(x).__name__ == "Slot" and x.operand == k for k, x in enumerate(args)])


cdef int check_slots(Checked c, int64_t i, object x, int count, int depth) except -1:
    """Slots name operands that there are."""
    if depth > DEPTH_MAX:
        raise c.fault(i, "its attribute is nested too deeply")
    if type(x).__name__ == "Slot":
        if type(x.operand) is not int or not 0 <= x.operand < count:
            raise c.fault(i, f"there is no operand {x.operand!r}")
    elif type(x) in (tuple, list):
        for y in x:
            check_slots(c, i, y, count, depth + 1)
    elif type(x) is slice:
        for y in (x.start, x.stop, x.step):
            check_slots(c, i, y, count, depth + 1)
    return 0


cdef int check_python(Checked c, int64_t i, object attr, int count) except -1:
    """A node that NumPy computes, or one that has a loop of its own after all."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef FgGraphNode *x
    cdef int k
    cdef bint bools
    if n.op == FG_call:
        if type(attr) is not tuple or len(attr) != 4 or type(attr[0]) is not str:
            raise c.fault(i, f"{attr!r} is not (name, arguments, keyword arguments, which result)")
        name, args, kwargs, which = attr
        look_at(c, i, count, attr)
        check_slots(c, i, args, count, 0)
        check_slots(c, i, [value for key, value in kwargs], count, 0)
        if not kwargs and which is None and name in weights_calls:
            if type(args) in (tuple, list) and len(args) == 3 and slots_in_order(args[:1], count):
                x = &c.nodes[operand(c, i, 0)]
                if x.dtype == n.dtype and x.shape == n.shape and n.rank and (
                        x.dtype == FG_FLOAT32 or x.dtype == FG_FLOAT64):
                    return attribute_number(c, FG_ATTR_NUMBERS, (
                        FG_CALL_WEIGHTS, weights_calls[name], axes_mask(c, i, args[2], n.rank)))
        if not kwargs and which is None and n.dtype == FG_BOOL and slots_in_order(args, count):
            if name in compare_calls and count == 2:
                x = &c.nodes[operand(c, i, 0)]
                if x.dtype == c.nodes[operand(c, i, 1)].dtype and (
                        x.dtype == FG_FLOAT32 or x.dtype == FG_FLOAT64):
                    n.op = compare_calls[name]
                    check_elementwise(c, i, 2)
                    return 0
            if name == "numpy.isfinite" or name == "fastgrad.all_finite":
                x = &c.nodes[operand(c, i, 0)]
                k = FG_BLOCK_FINITE if name == "numpy.isfinite" else FG_CALL_ALL_FINITE
                if count == 1 and (x.dtype == FG_FLOAT32 or x.dtype == FG_FLOAT64) and (
                        n.rank == 0 if k == FG_CALL_ALL_FINITE else x.shape == n.shape):
                    return attribute_number(c, FG_ATTR_NUMBERS, (k,))
            bools = True
            for k in range(count):
                x = &c.nodes[operand(c, i, k)]
                bools = bools and x.dtype == FG_BOOL and broadcasts_to(c, x.shape, n.shape)
            if bools and name in native_calls and count == (1 if native_calls[name] == FG_BLOCK_NOT
                                                             else 2):
                return attribute_number(c, FG_ATTR_NUMBERS, (native_calls[name],))
    elif n.op == FG_result:
        if c.nodes[operand(c, i, 0)].op != FG_custom or not 0 <= n.constant < 2**31 \
                or n.constant != <int64_t>n.constant:
            raise c.fault(i, "it is no result of a function of several")
        found = c.loops.get(operand(c, i, 0))
        if found is None:
            return attribute_python(c)
        outputs, carries, length = found
        if n.constant >= len(outputs):
            raise c.fault(i, f"the loop has no result {n.constant}")
        dtype, shape = outputs[<int64_t>n.constant]
        if n.constant >= carries:
            shape = (length,) + shape
        if dtype != dtypes[n.dtype] or shape != c.shape_tuples[n.shape]:
            raise c.fault(i, f"the result is {dtype} of shape {shape}")
        return 0
    elif n.op == FG_custom and type(attr).__name__ == "Loop":
        return check_loop(c, i, attr, count)
    elif n.op == FG_custom and c.seen is not None:
        raise c.fault(i, "its attribute is no loop")
    elif n.op != FG_custom:
        check_slots(c, i, attr, count, 0)
    for k in range(count):
        if c.nodes[operand(c, i, k)].op == FG_custom:
            raise c.fault(i, "a function of several results is no operand")
    k = 0
    if n.rank and n.op == FG_assign and count == 2:     # (a number stands in a register)
        k = attribute_assign(c, i, attr)
    elif n.rank and (n.op == FG_gather or n.op == FG_scatter):
        k = attribute_rows(c, i, attr, count)
    if k == 0:
        if n.op == FG_gather or n.op == FG_scatter or n.op == FG_assign:
            look_at(c, i, count, attr)
        k = attribute_python(c)
    return k


cdef int look_at(Checked c, int64_t i, int count, object attr) except -1:
    """Let `validate` look at a node in Python, once for all that are the same in what it looks at."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef FgGraphNode *x
    cdef int k
    if c.open is not None:
        key = [n.op, n.dtype, n.shape, id(attr)]
        for k in range(count):
            x = &c.nodes[operand(c, i, k)]
            key += (x.dtype, x.shape)
        c.open.setdefault(tuple(key), i)
    return 0


cdef int attribute_assign(Checked c, int64_t i, object attr) except -1:
    """A basic index of an assignment in numbers; 0 where Python has to do it."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef FgGraphNode *x = &c.nodes[operand(c, i, 0)]
    cdef FgGraphNode *v = &c.nodes[operand(c, i, 1)]
    if x.dtype != n.dtype or v.dtype != n.dtype or x.shape != n.shape:
        return 0
    found = index_numbers(attr, c.shape_tuples[n.shape], f"graph: node {i}")
    if found is None:
        return 0
    numbers, window = found
    own = c.shape_tuples[v.shape]
    if len(own) > len(window) or np.broadcast_shapes(own, window) != window:
        return 0
    return attribute_number(c, FG_ATTR_NUMBERS, numbers)


cdef int attribute_rows(Checked c, int64_t i, object index, int count) except -1:
    """Entries along axis 0, by one array of int64: a constant, or the last operand. 0 where Python has
    to take them."""
    cdef FgGraphNode *n = &c.nodes[i]
    cdef FgGraphNode *x = &c.nodes[operand(c, i, 0)]
    cdef FgGraphNode *places
    if type(index) is tuple and len(index) == 1:
        index = index[0]
    wide = c.shape_tuples[x.shape if n.op == FG_gather else n.shape]
    whole = c.shape_tuples[n.shape if n.op == FG_gather else x.shape]
    if x.dtype != n.dtype or not wide or not (n.dtype == FG_FLOAT64 or n.dtype == FG_FLOAT32):
        return 0
    if type(index).__name__ == "Slot" and index.operand == 1 and count == 2:
        places = &c.nodes[operand(c, i, 1)]
        if places.dtype != FG_INT64 or c.shape_tuples[places.shape] + wide[1:] != whole:
            return 0
        if FG_ATTR_ROWS not in c.known:
            c.known[FG_ATTR_ROWS] = len(c.kinds)
            c.kinds.append(FG_ATTR_ROWS)
            c.decoded.append(None)
        return c.known[FG_ATTR_ROWS]
    if type(index) is not np.ndarray or index.dtype != np.int64 or count != 1 \
            or index.shape + wide[1:] != whole:
        return 0
    key = (FG_ATTR_ROWS, id(index), wide[0])
    if key in c.known:
        return c.known[key]
    if np.any(index < -wide[0]) or np.any(index >= wide[0]):
        return 0
    c.known[key] = len(c.kinds)
    c.kinds.append(FG_ATTR_ROWS)
    c.decoded.append(np.ascontiguousarray(index))
    return len(c.kinds) - 1


cdef int attribute_python(Checked c) except -1:
    return attribute_number(c, FG_ATTR_PYTHON, ())
