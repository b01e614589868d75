"""An axis of lanes in front of operators for which more has to change than the attribute.

`GraphOperator.lanes` in shaped.py names these rules; transforms/vmap.py asks them. Each gets the
`Lanes`, the numbers of the operands in the graph that is mapped, and a How of one lane; it returns
the node with lanes.
"""

import numpy as np

from fastgrad._core import core
from fastgrad._operators.slots import Slot

from .index import picked

__all__ = ["Lanes", "Unmappable", "assigned", "gathered", "joined", "multiplied", "repeated",
           "scattered"]

_ALL = slice(None)


class Unmappable(Exception):
    """A graph holds what only the function itself can do: it is called lane by lane."""


class Lanes:
    """Appends the nodes of one graph, `rows`, to a Builder, with lanes: `new` is the new node of
    each, and `has` tells whether it has lanes."""

    def __init__(self, build, graph, lanes):
        self.build, self.graph, self.lanes, self.add = build, graph, lanes, build.add
        self.guards = []
        self.lane_numbers = {}          # rank -> node

    def shape(self, k):
        """The shape of a value of the graph: that of one lane."""
        return self.graph.shapes[self.rows[k][7]]

    def dtype(self, k):
        return self.rows[k][1]

    def reshaped(self, node, shape, dtype, flags=0):
        return self.add("reshape", [node], shape, dtype, None, flags)

    def spread(self, k, rank):
        """Value k, ready to be broadcast against lanes of that rank."""
        node, own = self.new[k], self.rows[k][2]
        if not self.has[k] or own >= rank:
            return node
        shape = self.shape(k)
        return self.reshaped(node, (self.lanes, *(1,) * (rank - own), *shape), self.dtype(k))

    def with_lanes(self, node, has, shape):
        """A value with lanes, repeated if it has none."""
        if has:
            return node
        return self.add("broadcast", [node], (self.lanes, *shape), self.build._nodes[node][1])

    def value(self, k):
        """Value k with lanes."""
        return self.with_lanes(self.new[k], self.has[k], self.shape(k))

    def widened(self, k, shape):
        """Value k with lanes, broadcast to a shape of one lane. It may have more leading axes of
        length 1 than that, as a value that is assigned may."""
        own, dtype = self.shape(k), self.dtype(k)
        node, has = self.new[k], self.has[k]
        if len(own) > len(shape):
            own = own[len(own) - len(shape):]
            node = self.reshaped(node, (self.lanes, *own) if has else own, dtype)
        if has and len(own) < len(shape):
            own = (1,) * (len(shape) - len(own)) + own
            node = self.reshaped(node, (self.lanes, *own), dtype)
        if has and own == shape:
            return node
        return self.add("broadcast", [node], (self.lanes, *shape), dtype)

    def transposed(self, node, shape, axes, dtype):
        """Axis k of the result is axis axes[k]; `shape` is that of the operand."""
        if axes == tuple(range(len(axes))):
            return node
        return self.add("transpose", [node], [shape[k] for k in axes], dtype, axes)

    def lane_index(self, rank):
        """The numbers of the lanes, to index beside arrays with lanes and that many axes more."""
        if rank not in self.lane_numbers:
            numbers = np.arange(self.lanes).reshape((self.lanes,) + (1,) * rank)
            self.lane_numbers[rank] = self.build.constant(numbers)
        return self.lane_numbers[rank]


def repeated(m, operands, how):
    return m.widened(operands[0], how.shape)


def joined(m, operands, how):
    if how.attribute is not None:
        return m.add("concatenate", [m.value(k) for k in operands], (m.lanes, *how.shape),
                     how.dtype, how.attribute + 1)
    return _packed(m, [(m.new[k], m.has[k], m.dtype(k)) for k in operands], how.dtype)


def _packed(m, entries, dtype):
    """Scalars, each with lanes or without, as lanes of vectors."""
    columns = []
    for node, has, own in entries:
        column = m.add("reshape" if has else "broadcast", [node], (m.lanes, 1), own)
        columns.append(column if own == dtype else m.add("cast", [column], (m.lanes, 1), dtype))
    return m.add("concatenate", columns, (m.lanes, len(entries)), dtype, 1)


def multiplied(m, operands, how):
    """As few products as may be: of matrices that are the same for all lanes one, no one a lane."""
    (a, b), lanes, dtype = operands, m.lanes, how.dtype
    x, y = m.new[a], m.new[b]
    s, t = m.shape(a), m.shape(b)
    p, q = len(s), len(t)
    whole = (lanes, *how.shape)

    def product(x, y, shape=whole):
        return m.add("matmul", [x, y], shape, dtype)

    def as_matrices(k, node, own, shape):
        """An operand in another shape of one lane."""
        if own == shape:
            return node
        return m.reshaped(node, (lanes, *shape) if m.has[k] else shape, dtype)

    if m.has[a] and not m.has[b] and q <= 2:
        if p == q == 2:
            rows = m.reshaped(x, (lanes * s[0], s[1]), dtype)
            return m.reshaped(product(rows, y, (lanes * s[0], t[1])), whole, dtype)
        return product(x, y)
    if m.has[b] and not m.has[a]:
        if p == q == 1:
            return product(y, x)
        if p == 2 and q == 1:
            return product(y, m.add("transpose", [x], (s[1], s[0]), dtype, (1, 0)))
        if q >= 2 and q >= p:
            return product(x, y)
    if p == q == 1:
        return m.add("sum", [m.add("multiply", [x, y], (lanes, *s), dtype)], whole, dtype, (1,))
    matrix_a, matrix_b = s if p > 1 else (1, *s), t if q > 1 else (*t, 1)
    rank = max(len(matrix_a), len(matrix_b))        # as many axes where both have lanes
    ones_a, ones_b = [(1,) * (rank - len(shape)) * m.has[k]
                      for k, shape in ((a, matrix_a), (b, matrix_b))]
    x, y = as_matrices(a, x, s, ones_a + matrix_a), as_matrices(b, y, t, ones_b + matrix_b)
    batch = np.broadcast_shapes(matrix_a[:-2], matrix_b[:-2])
    result = (lanes, *batch, matrix_a[-2], matrix_b[-1])
    found = product(x, y, result)
    return found if result == whole else m.reshaped(found, whole, dtype)


# ---- indices ------------------------------------------------------------------------------------

def _with_lanes(m, index, operands, shape, inside):
    """An index of one lane, whose Slots count through the operands, with lanes; it is one of
    something of that shape, which has lanes itself (`inside`) or not.

    Beside it: the nodes that its Slots stand for, counting from 0; `part`, the shape that it picks
    of one lane; and the order of axes: axis k of (lanes, *part) is axis order[k] of what it picks.
    """
    items = index if type(index) is tuple else (index,)
    known = [(m.shape(k), core.dtype_of_number(m.dtype(k))) for k in operands]
    if any(isinstance(x, (bool, np.bool_)) or type(x) is np.ndarray and x.ndim == 0
           and x.dtype == bool for x in items):
        raise Unmappable("an index that holds True or False")
    if any(type(x) is Slot and m.has[operands[x.operand]] and known[x.operand][1] == bool
           for x in items):
        raise ValueError("vmap: a boolean mask that differs between lanes selects another number "
                         "of entries in each; write fnp.where(mask, x, 0.0) in place of x[mask]")
    part, at, rank, apart = picked(index, shape, known)
    slots = []

    def slot(node):
        if node not in slots:
            slots.append(node)
        return Slot(slots.index(node))

    axes = [*range(at or 0)], [*range(at or 0, (at or 0) + rank)], [
        *range((at or 0) + rank, len(part))]        # before those of the arrays, theirs, and behind
    if any(type(x) is Slot and m.has[operands[x.operand]] for x in items):
        made = []
        for x in items:
            if type(x) is Slot and known[x.operand][1] == bool:
                raise Unmappable("a mask beside indices that differ between lanes")
            if type(x) is Slot:
                made.append(slot(m.spread(operands[x.operand], rank)))
            else:
                array = isinstance(x, (np.ndarray, list)) and np.asarray(x)
                made += array.nonzero() if array is not False and array.dtype == bool else [x]
        if inside:
            made.insert(0, slot(m.lane_index(rank)))
            layout = -1, *axes[1], *axes[0], *axes[2]
        else:                           # the lanes come where the arrays stand
            layout = *axes[0], -1, *axes[1], *axes[2]
    else:
        made = [_ALL, *[slot(m.new[operands[x.operand]]) if type(x) is Slot else x for x in items]]
        layout = (*axes[1], -1, *axes[2]) if apart else (-1, *range(len(part)))
    return tuple(made), slots, part, tuple([layout.index(k) for k in range(-1, len(part))])


def _counted_from(index, first):
    """The index with Slots that count through the operands from number `first` on."""
    return tuple([Slot(x.operand + first) if type(x) is Slot else x for x in index])


def gathered(m, operands, how):
    a = operands[0]
    if not m.shape(a):
        raise Unmappable("an array index into a number")
    index, slots, _, order = _with_lanes(m, how.attribute, operands, m.shape(a), m.has[a])
    whole, found = (m.lanes, *how.shape), [0] * len(order)
    for k, axis in enumerate(order):
        found[axis] = whole[k]
    node = m.add("gather", [m.new[a], *slots], found, how.dtype, _counted_from(index, 1))
    return m.transposed(node, found, order, how.dtype)


def _put(m, operands, how, value, before):
    """A value that is put where an index says, behind the operands `before`."""
    index, slots, part, order = _with_lanes(m, how.attribute, operands, how.shape, True)
    if None in part:
        raise Unmappable("a mask that is computed")
    back = tuple(np.argsort(order).tolist())
    node = m.transposed(m.widened(value, part), (m.lanes, *part), back, m.dtype(value))
    return m.add("assign" if before else "scatter", [*before, node, *slots],
                 (m.lanes, *how.shape), how.dtype, _counted_from(index, len(before) + 1))


def scattered(m, operands, how):
    columns = _columns(m, operands[0], how)
    return _put(m, operands, how, operands[0], []) if columns is None else _packed(
        m, columns, how.dtype)


def _columns(m, a, how):
    """A vector whose entries are scattered one by one, as gradients of entries are, entry by entry:
    columns that are joined, without any index at run time. None where it is not so."""
    index, shape, dtype = how.attribute, how.shape, m.dtype(a)
    if m.graph.name(a) != "concatenate" or m.graph.attribute(a) is not None:
        return None
    if type(index) is tuple:
        index = index[0] if len(index) == 1 else None
    if type(index) is not np.ndarray or index.ndim != 1 or len(shape) != 1 or (
            index.dtype.kind not in "iu" or shape[0] > 4 * len(index) + 16):
        return None
    entries = {}
    for place, k in zip(index.tolist(), m.graph.operands_of(a)):
        entry = m.new[k], m.has[k]
        known = entries.get(place % shape[0])
        if known is not None:
            has = known[1] or entry[1]
            entry = m.add("add", [known[0], entry[0]], (m.lanes,) if has else (), dtype), has
        entries[place % shape[0]] = entry
    zero = None
    if len(entries) < shape[0]:
        zero = m.build.constant(core.dtype_of_number(dtype).type(0))
    return [(*entries.get(k, (zero, False)), dtype) for k in range(shape[0])]


def assigned(m, operands, how):
    a, value = operands[:2]
    items = how.attribute if type(how.attribute) is tuple else (how.attribute,)
    if any(type(x) is Slot or isinstance(x, (np.ndarray, list)) for x in items):
        return _put(m, operands, how, value, [m.value(a)])
    rank = len(picked(items, how.shape, ()).shape)
    own, given = m.shape(value), m.spread(value, rank)
    if len(own) > rank:                 # axes of length 1 in front, which an assignment overlooks
        own = own[len(own) - rank:]
        given = m.reshaped(given, (m.lanes, *own) if m.has[value] else own, m.dtype(value))
    return m.add("assign", [m.value(a), given], (m.lanes, *how.shape), how.dtype, (_ALL, *items))
