"""Mapping a function over a lane axis: the axis is added to its recording.

The function is recorded once, on one lane. `map_graph` makes of its graph another one in which
every value that depends on a mapped input has the lanes as its first axis: an operation of scalars
becomes one of vectors, so that a scalar program over a million points runs as array code. Values
that are the same for all lanes stay as they are. The new graph is replayed, in whatever
transformation the call stands.

Start reading at `vmap`, then `_Mapper`, which has one method for each kind of operator.
"""

import math
import operator

import numpy as np

from fastgrad import _trees
from fastgrad._arguments import name_of
from fastgrad._core import core
from fastgrad._core.program import Plan
from fastgrad._operators.plain import ALONG, ENTRY, PLAIN
from fastgrad._operators.rule import OPERATORS
from fastgrad._operators.shaped import SHAPED
from fastgrad._operators.signature import parsed

from ._array_effects import NOTHING, changed_array, may_change
from ._graph import (
    INPUT,
    MANY,
    NAMES,
    STOP,
    WEAK,
    Builder,
    GuardError,
    Loop,
    Slot,
    filled,
    has_slots,
    same_bits,
    same_graph,
)
from ._record import record
from ._replay import LANE, Replay
from .transforms import _LEAVES, _built, _Derivative, _flat, _function, of_programs

__all__ = ["map_graph", "vmap"]

Tensor = core.Tensor
_ALL = slice(None)
_BOOL, _INTP, _FLOAT64 = np.dtype(np.bool_).num, np.dtype(np.intp).num, np.dtype(np.float64).num


class Unmappable(Exception):
    """A graph holds what only the function itself can do: it is called lane by lane."""


# ---- graphs ---------------------------------------------------------------------------------

def map_graph(graph, mapped, lanes, everything=()):
    """A graph with lanes in front of some inputs.

    Parameters
    ----------
    graph : Graph
    mapped : list of bool
        Which inputs have lanes.
    lanes : int
        How many.
    everything : sequence of int
        Places of outputs that shall have lanes whether they depend on a mapped input or not.

    Returns
    -------
    Graph
    list of bool
        Which outputs have lanes.

    Raises
    ------
    ValueError
        If the function took a decision that depends on a mapped input.
    """
    build = Builder()
    rows = graph.nodes.tolist()
    inputs = []
    for i, has in zip(graph.inputs, mapped):
        shape, dtype = graph.shape(i), graph.dtype(i)
        inputs.append((build.input((lanes, *shape) if has else shape, dtype,
                                   bool(rows[i][3] & WEAK) and not has), has))
    mapper = _Mapper(build, graph, lanes)
    outputs = mapper.run(inputs, rows)
    for k in everything:
        outputs[k] = mapper.with_lanes(*outputs[k], graph.shape(graph.outputs[k])), True
    kinds = ["array" if has else kind for (_, has), kind in zip(outputs, graph.kinds)]
    made = build.graph([i for i, _ in outputs], kinds, mapper.guards)
    return made, [has for _, has in outputs]


class _Mapper:
    """Appends the mapped nodes of one graph to a Builder."""

    def __init__(self, build, graph, lanes):
        self.build, self.graph, self.lanes, self.add = build, graph, lanes, build.add
        self.guards = []
        self.lane_numbers = {}          # rank -> node

    def run(self, inputs, rows=None):
        """Map all nodes; `inputs` and the answer are pairs (node, whether it has lanes)."""
        graph = self.graph
        rows = graph.nodes.tolist() if rows is None else rows
        self.rows = rows
        self.new = new = [None] * len(rows)         # numbers of the mapped nodes
        self.has = has = [False] * len(rows)        # whether they have lanes
        shapes, attrs, lists = graph.shapes, graph.attrs, graph.operands.tolist()
        add, lanes = self.add, self.lanes
        lines = len(self.build.lines) - 1
        self.build.lines += graph.lines[1:]
        guards = {}
        for guard in graph.guards:
            guards.setdefault(guard.node, []).append(guard)
        for i, row in enumerate(rows):
            op, dtype, rank, flags, a, b, c, shape, attr, line, constant = row
            name = NAMES[op]
            shape, attribute = shapes[shape], attrs[attr]
            self.build.line = line and line + lines
            if name == "leaf":
                if flags & INPUT:
                    new[i], has[i] = inputs[int(constant)]
                else:
                    new[i] = add("leaf", (), shape, dtype, attribute, flags, constant)
            else:
                operands = lists[a:a + b] if flags & MANY else [k for k in (a, b, c) if k >= 0]
                for k in operands:
                    if has[k]:
                        break
                else:
                    new[i] = add(name, [new[k] for k in operands], shape, dtype, attribute,
                                 flags & ~MANY, constant)
                    if i in guards:
                        self.guards += [guard._replace(node=new[i]) for guard in guards[i]]
                    continue
                has[i] = True
                if name in core.functions:
                    if rank:
                        moved = [self.spread(k, rank) for k in operands]
                    else:
                        moved = [new[k] for k in operands]
                    new[i] = add(name, moved, (lanes, *shape), dtype, None,
                                 flags & ~(WEAK | MANY), constant)
                else:
                    rule = getattr(self, "map_" + name, self.shifted)
                    new[i] = rule(i, operands, shape, dtype, attribute,
                                  flags & ~(WEAK | MANY | STOP), constant)
                    if flags & STOP:
                        whole = (lanes, *shape) if has[i] else shape
                        new[i] = add("reshape", [new[i]], whole, dtype, None, STOP, 0.0)
            if i in guards:
                for guard in guards[i]:
                    if has[i] and guard.kind != "all":
                        raise _decision(guard)
                self.guards += [guard._replace(node=new[i]) for guard in guards[i]]
        return [(new[i], has[i]) for i in graph.outputs]

    # ---- helpers ----------------------------------------------------------------------------

    def shape(self, k):
        """The shape of a value of the graph: that of one lane."""
        return self.graph.shapes[self.rows[k][7]]

    def dtype(self, k):
        return self.rows[k][1]

    def reshaped(self, node, shape, dtype):
        return self.add("reshape", [node], shape, dtype)

    def spread(self, k, rank):
        """Value k, ready to be broadcast against lanes of that rank."""
        node, own = self.new[k], self.rows[k][2]
        if not self.has[k] or own >= rank:
            return node
        shape = self.shape(k)
        return self.reshaped(node, (self.lanes, *(1,) * (rank - own), *shape), self.dtype(k))

    def with_lanes(self, node, has, shape, dtype=None):
        """A value with lanes, repeated if it has none."""
        if has:
            return node
        if dtype is None:
            dtype = self.build._nodes[node][1]
        return self.add("broadcast", [node], (self.lanes, *shape), dtype)

    def value(self, k):
        """Value k with lanes."""
        return self.with_lanes(self.new[k], self.has[k], self.shape(k), self.dtype(k))

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

    # ---- one array --------------------------------------------------------------------------

    def shifted(self, i, operands, shape, dtype, attribute, flags, constant):
        """The same operator behind the axis of lanes."""
        name = NAMES[self.rows[i][0]]
        return self.add(name, [self.new[operands[0]]], (self.lanes, *shape), dtype,
                        SHAPED[name].behind(attribute))

    def map_broadcast(self, i, operands, shape, dtype, attribute, flags, constant):
        return self.widened(operands[0], shape)

    # ---- several arrays ---------------------------------------------------------------------

    def map_concatenate(self, i, operands, shape, dtype, axis, flags, constant):
        lanes = self.lanes
        if axis is not None:
            return self.add("concatenate", [self.value(k) for k in operands], (lanes, *shape),
                            dtype, axis + 1)
        return self.packed([(self.new[k], self.has[k], self.dtype(k)) for k in operands], dtype)

    def packed(self, entries, dtype):
        """Scalars, each with lanes or without, as lanes of vectors."""
        columns = [self.reshaped(node, (self.lanes, 1), own) if has
                   else self.add("broadcast", [node], (self.lanes, 1), own)
                   for node, has, own in entries]
        columns = [column if own == dtype else self.add("cast", [column], (self.lanes, 1), dtype)
                   for column, (_, _, own) in zip(columns, entries)]
        return self.add("concatenate", columns, (self.lanes, len(entries)), dtype, 1)

    def map_matmul(self, i, operands, shape, dtype, attribute, flags, constant):
        (a, b), lanes = operands, self.lanes
        x, y = self.new[a], self.new[b]
        s, t = self.shape(a), self.shape(b)
        p, q = len(s), len(t)
        whole = (lanes, *shape)

        def product(x, y, shape):
            return self.add("matmul", [x, y], shape, dtype)

        if self.has[a] and not self.has[b] and q <= 2:
            if p == 2 and q == 2:
                # One product of matrices in place of one a lane.
                rows = self.reshaped(x, (lanes * s[0], s[1]), dtype)
                return self.reshaped(product(rows, y, (lanes * s[0], t[1])), whole, dtype)
            return product(x, y, whole)
        if self.has[b] and not self.has[a]:
            if p == 1 and q == 1:
                return product(y, x, whole)
            if p == 2 and q == 1:
                turned = self.add("transpose", [x], (s[1], s[0]), dtype, (1, 0))
                return product(y, turned, whole)
            if q >= 2 and q >= p:
                return product(x, y, whole)
        if p == 1 and q == 1:
            product = self.add("multiply", [x, y], (lanes, *s), dtype)
            return self.add("sum", [product], whole, dtype, (1,))
        # As matrices, with as many axes.
        matrix_a, matrix_b = s if p > 1 else (1, *s), t if q > 1 else (*t, 1)
        rank = max(len(matrix_a), len(matrix_b))
        if self.has[a]:
            x = self._as(x, s, (1,) * (rank - len(matrix_a)) + matrix_a, dtype)
        if self.has[b]:
            y = self._as(y, t, (1,) * (rank - len(matrix_b)) + matrix_b, dtype)
        if not self.has[a] and p == 1:
            x = self.reshaped(x, matrix_a, dtype)
        if not self.has[b] and q == 1:
            y = self.reshaped(y, matrix_b, dtype)
        batch = np.broadcast_shapes(matrix_a[:-2], matrix_b[:-2])
        result = (lanes, *batch, matrix_a[-2], matrix_b[-1])
        return self._back(product(x, y, result), result, whole, dtype)

    def _as(self, node, shape, wanted, dtype):
        return node if shape == wanted else self.reshaped(node, (self.lanes, *wanted), dtype)

    def _back(self, node, shape, wanted, dtype):
        return node if shape == wanted else self.reshaped(node, wanted, dtype)

    # ---- indices ----------------------------------------------------------------------------

    def lane_index(self, rank):
        """The numbers of the lanes, to index beside arrays with lanes and that many axes more."""
        if rank not in self.lane_numbers:
            numbers = np.arange(self.lanes).reshape((self.lanes,) + (1,) * rank)
            self.lane_numbers[rank] = self.build.constant(numbers)
        return self.lane_numbers[rank]

    def _parsed(self, index, operands, rank):
        """What an index consists of, Ellipsis written out: pairs of a kind and a part."""
        parts, consumed = [], 0
        for part in _tuple(index):
            if part is Ellipsis or part is None or isinstance(part, slice):
                consumed += isinstance(part, slice)
                parts.append((".", part))
                continue
            if isinstance(part, Slot):
                k = operands[part.operand]
                if self.dtype(k) == _BOOL:
                    if self.has[k]:
                        raise ValueError(
                            "vmap: a boolean mask that differs between lanes selects another "
                            "number of entries in each; write fnp.where(mask, x, 0.0) in place of "
                            "x[mask]")
                    consumed += self.rows[k][2]
                    parts.append(("mask", part))
                    continue
                consumed += 1
                parts.append(("array", part))
                continue
            array = np.asarray(part)
            if array.dtype == np.bool_:
                if array.ndim == 0:
                    raise Unmappable("an index that holds True or False")
                parts += [("array", numbers) for numbers in array.nonzero()]
                consumed += array.ndim
                continue
            consumed += 1
            parts.append(("array", array))
        full = []
        for kind, part in parts:
            if part is Ellipsis:
                full += [(".", _ALL)] * (rank - consumed)
            else:
                full.append((kind, part))
        full += [(".", _ALL)] * (rank - consumed if not any(
            part is Ellipsis for _, part in parts) else 0)
        return full

    def picked(self, index, operands, shape, lanes_inside, part):
        """How an index by arrays picks from something with lanes, or by arrays with lanes.

        Parameters
        ----------
        index : the attribute, in which Slots count through `operands`.
        shape : tuple
            Of one lane of what is indexed.
        lanes_inside : bool
            Whether it has lanes.
        part : tuple
            The shape that the index picks, of one lane.

        Returns
        -------
        index : tuple
        slots : list of int
            The nodes that its Slots stand for, counting from 0.
        order : tuple
            Axis k of (lanes, *part) is axis order[k] of what the new index picks.
        """
        parts = self._parsed(index, operands, len(shape))
        arrays = [at for at, (kind, _) in enumerate(parts) if kind != "."]
        if not arrays:
            return (_ALL, *_tuple(index)), [], tuple(range(len(part) + 1))
        together = arrays[-1] - arrays[0] + 1 == len(arrays)
        before = arrays[0] if together else 0           # axes of the part before the arrays' own
        slots, numbers = [], {}

        def slot(node):
            if node not in numbers:
                numbers[node] = len(slots)
                slots.append(node)
            return Slot(numbers[node])

        differ = any(kind == "array" and isinstance(item, Slot) and self.has[operands[item.operand]]
                     for kind, item in parts)
        count = len(part)
        if not differ:
            made = [_ALL] + [slot(self.new[operands[item.operand]]) if isinstance(item, Slot)
                             else item for _, item in parts]
            if together:
                return tuple(made), slots, tuple(range(count + 1))
            # Arrays that stand apart put their axes first, before the lanes.
            own = count - sum(kind == "." for kind, _ in parts)
            return tuple(made), slots, (own, *range(own), *range(own + 1, count + 1))
        if any(kind == "mask" for kind, _ in parts):
            raise Unmappable("a mask beside indices that differ between lanes")
        rank = count - sum(kind == "." for kind, _ in parts)    # of the arrays, broadcast
        made = []
        for kind, item in parts:
            if kind == "array" and isinstance(item, Slot):
                k = operands[item.operand]
                item = slot(self.spread(k, rank))
            made.append(item)
        inside = tuple(range(1, rank + 1))
        if lanes_inside:
            made.insert(0, slot(self.lane_index(rank)))
            together = together and before == 0
            axes = (0, *range(rank + 1, rank + 1 + before), *inside, *range(rank + 1 + before,
                                                                           count + 1))
            return tuple(made), slots, axes
        if not together:
            return tuple(made), slots, tuple(range(count + 1))
        # The lanes come where the arrays stand.
        return tuple(made), slots, (before, *range(before), *range(before + 1, count + 1))

    def part_shape(self, index, operands, shape):
        """The shape that an index picks of one lane."""
        stand_ins = [np.zeros(self.shape(k), np.intp) for k in operands]
        for part in _tuple(index):
            if isinstance(part, Slot) and self.dtype(operands[part.operand]) == _BOOL:
                raise Unmappable("a mask that is computed")
        return np.broadcast_to(np.zeros(()), shape)[filled(_tuple(index), stand_ins)].shape

    def map_gather(self, i, operands, shape, dtype, index, flags, constant):
        a = operands[0]
        if not self.shape(a):
            raise Unmappable("an array index into a number")
        index, slots, order = self.picked(index, operands, self.shape(a), self.has[a], shape)
        picked = [0] * len(order)
        whole = (self.lanes, *shape)
        for k, axis in enumerate(order):
            picked[axis] = whole[k]
        node = self.add("gather", [self.new[a], *slots], picked, dtype, _shifted(index, 1))
        return self.transposed(node, picked, order, dtype)

    def arranged(self, k, part, order):
        """Value k with lanes, broadcast to the part, its axes in the order of the index."""
        node = self.widened(k, part)
        back = tuple(int(axis) for axis in np.argsort(order))
        return self.transposed(node, (self.lanes, *part), back, self.dtype(k))

    def map_scatter(self, i, operands, shape, dtype, index, flags, constant):
        a = operands[0]
        columns = self._columns(a, index, shape)
        if columns is not None:
            return self.packed(columns, dtype)
        part = self.part_shape(index, operands, shape)
        index, slots, order = self.picked(index, operands, shape, True, part)
        return self.add("scatter", [self.arranged(a, part, order), *slots],
                        (self.lanes, *shape), dtype, _shifted(index, 1))

    def _columns(self, a, index, shape):
        """A vector whose entries are scattered one by one, as gradients of entries are, entry by
        entry: columns that are joined, without any index at run time. None where it is not so."""
        if self.graph.name(a) != "concatenate" or self.graph.attribute(a) is not None:
            return None
        if type(index) is tuple:
            index = index[0] if len(index) == 1 else None
        if type(index) is not np.ndarray or index.ndim != 1 or len(shape) != 1 or (
                index.dtype.kind not in "iu" or shape[0] > 4 * len(index) + 16):
            return None
        entries = {}
        dtype = self.dtype(a)
        for place, k in zip(index.tolist(), self.graph.operands_of(a)):
            entry = self.new[k], self.has[k]
            known = entries.get(place % shape[0])
            if known is not None:
                has = known[1] or entry[1]
                both = [known[0], entry[0]]
                entry = self.add("add", both, (self.lanes,) if has else (), dtype), has
            entries[place % shape[0]] = entry
        zero = None
        if len(entries) < shape[0]:
            zero = self.build.constant(core.dtype_of_number(dtype).type(0))
        return [(*entries.get(k, (zero, False)), dtype) for k in range(shape[0])]

    def map_assign(self, i, operands, shape, dtype, index, flags, constant):
        a, value = operands[:2]
        target = self.value(a)
        whole = (self.lanes, *shape)
        if _is_basic(index):
            index = (_ALL, *_tuple(index))
            rank = np.broadcast_to(np.zeros(()), whole)[index].ndim - 1
            own, given = self.shape(value), self.spread(value, rank)
            if len(own) > rank:
                # Axes of length 1 in front, which an assignment overlooks.
                own = own[len(own) - rank:]
                given = self.reshaped(given, (self.lanes, *own) if self.has[value] else own,
                                      self.dtype(value))
            return self.add("assign", [target, given], whole, dtype, index)
        part = self.part_shape(index, operands, shape)
        index, slots, order = self.picked(index, operands, shape, True, part)
        return self.add("assign", [target, self.arranged(value, part, order), *slots], whole, dtype,
                        _shifted(index, 2))

    # ---- calls ------------------------------------------------------------------------------

    def map_call(self, i, operands, shape, dtype, attribute, flags, constant):
        name, args, kwargs, which = attribute
        args, kwargs = tuple(args), tuple(kwargs)
        whole = (self.lanes, *shape)
        if name == "fastgrad.all_finite":
            # Of all lanes at once: one decision, which a guard remembers.
            self.has[i] = False
            return self.add("call", [self.new[k] for k in operands], (), dtype, attribute)
        if name.startswith("fastgrad.weights_"):
            array, kind, axes = args
            return self.add("call", [self.new[k] for k in operands], whole, dtype, (
                name, (array, kind, tuple([axis + 1 for axis in axes])), kwargs, which))
        if name in OPERATORS:
            slots = self._batched(parsed(OPERATORS[name].signature), operands, args)
            return self.add("call", slots, whole, dtype, attribute)
        plain = PLAIN.get(name)
        axes = plain and plain.axes
        if axes is ENTRY and which is None and not kwargs and all(
                isinstance(arg, (Slot, int, float, np.generic)) or np.ndim(arg) == 0
                for arg in args):
            slots = [self.spread(k, len(shape)) for k in operands]
            return self.add("call", slots, whole, dtype, (name, args, kwargs, which))
        if axes is ALONG and which is None:
            made = self._along_axes(plain, operands, args, dict(kwargs), shape)
            if made is not None:
                node, args, kwargs, picked = made
                node = self.add("call", [node], picked, dtype, (name, args, kwargs, None))
                return self._back(node, picked, whole, dtype)
        quoted = (name, _quoted(args), _quoted(kwargs), which,
                  tuple([self.has[k] for k in operands]), self.lanes)
        return self.add("call", [self.new[k] for k in operands], whole, dtype,
                        ("fastgrad.lanes", (quoted, *map(Slot, range(len(operands)))), (), None))

    def _batched(self, signature, operands, args):
        """The operands of an operator, lanes in front of their batch axes."""
        batch = [(self.shape(operands[x.operand]) if isinstance(x, Slot) else np.shape(x))[
            :-len(core) or None] for x, core in zip(args, signature.operands)]
        most, slots = max(map(len, batch)), []
        for x, own in zip(args, batch):
            if isinstance(x, Slot):
                k = operands[x.operand]
                slots.append(self.new[k])
                if self.has[k] and len(own) < most:
                    slots[-1] = self.reshaped(
                        self.new[k], (self.lanes, *(1,) * (most - len(own)), *self.shape(k)),
                        self.dtype(k))
        return slots

    def _along_axes(self, plain, operands, args, kwargs, shape):
        """The operand, the arguments and the shape of a reduction or an ordering with lanes."""
        # What is None is not told.
        kwargs = {key: value for key, value in kwargs.items() if value is not None or key == "axis"}
        if args[2:] == (None,) * len(args[2:]):
            args = args[:2]
        if len(operands) != 1 or not args or not isinstance(args[0], Slot) or len(args) > 2 or (
                not set(kwargs) <= {"axis", "keepdims", "kind", "stable", "dtype"}):
            return None
        k, = operands
        if len(args) == 2:
            if "axis" in kwargs:
                return None
            kwargs["axis"] = args[1]
        own, lanes, node = self.shape(k), self.lanes, self.new[k]
        axis = kwargs.pop("axis", plain.axis)
        keep = kwargs.get("keepdims", False)
        if keep not in (True, False) or has_slots(axis):
            return None
        if axis is None or not own:
            flat = math.prod(own)
            node = self.reshaped(node, (lanes, flat), self.dtype(k))
            kwargs.pop("keepdims", None)
            kwargs["axis"] = 1
            picked = (lanes, flat) if plain.keeps else (lanes,)
            return node, (Slot(0),), tuple(kwargs.items()), picked
        axes = axis if isinstance(axis, tuple) else (axis,)
        moved = tuple([operator.index(n) % len(own) + 1 for n in axes])
        kwargs["axis"] = moved if isinstance(axis, tuple) else moved[0]
        return node, (Slot(0),), tuple(kwargs.items()), (lanes, *shape)

    # ---- loops ------------------------------------------------------------------------------

    def map_custom(self, i, operands, shape, dtype, loop, flags, constant):
        if not isinstance(loop, Loop):
            raise Unmappable(repr(loop))
        return _map_loop(self, i, operands, loop)

    def map_result(self, i, operands, shape, dtype, attribute, flags, constant):
        nodes = self.new[operands[0]]
        node, has = nodes[int(constant)]
        self.has[i] = has
        return node


def _map_loop(mapper, i, operands, loop):
    """The nodes of a loop with lanes: pairs (node, whether it has lanes), one for each result."""
    lanes, body = mapper.lanes, loop.body
    carries, sequences = loop.carries, loop.sequences
    has = [mapper.has[k] for k in operands]
    while True:
        # A carry has lanes as soon as one of its steps has.
        if loop.kind == "while" and map_graph(
                loop.condition, has[:carries] + has[carries + sequences:], lanes)[1][0]:
            has[:carries] = [True] * carries
        found = map_graph(body, has, lanes)[1]
        grown = [one or other for one, other in zip(has[:carries], found)]
        if grown == has[:carries]:
            break
        has[:carries] = grown
    moved = []
    for place, k in enumerate(operands):
        node, dtype, own = mapper.new[k], mapper.dtype(k), mapper.shape(k)
        if place < carries and has[place]:
            node = mapper.value(k)
        elif has[place] and place < carries + sequences:
            axes = (1, 0, *range(2, len(own) + 1))
            node = mapper.transposed(node, (lanes, *own), axes, dtype)
        moved.append(node)
    everything = [k for k in range(carries) if has[k]]
    condition = loop.condition
    if loop.kind == "while" and map_graph(condition, has[:carries] + has[carries:], lanes)[1][0]:
        condition = _any_lane(condition, has, lanes)
        mapped = _where_it_holds(loop, has, lanes)
        found = [True] * carries
    else:
        if condition is not None:
            condition = map_graph(condition, has[:carries] + has[carries + sequences:], lanes)[0]
        mapped, found = map_graph(body, has, lanes, everything)
    made = mapper.add("custom", moved, (), _FLOAT64, loop._replace(body=mapped,
                                                                   condition=condition))
    results = []
    for place, output in enumerate(mapped.outputs):
        row = mapped.nodes[output]
        shape, dtype = mapped.shape(output), int(row["dtype"])
        if place >= carries:
            shape = (loop.length, *shape)
        flags = WEAK if place < carries and row["flags"] & WEAK and not found[place] else 0
        node = mapper.add("result", [made], shape, dtype, None, flags, float(place))
        if place >= carries and found[place]:
            node = mapper.transposed(node, shape, (1, 0, *range(2, len(shape))), dtype)
        results.append((node, found[place]))
    return results


def _inputs_of(build, graph, has, lanes):
    return [(build.input((lanes, *graph.shape(i)) if lane else graph.shape(i), graph.dtype(i)),
             lane) for i, lane in zip(graph.inputs, has)]


def _any_lane(condition, has, lanes):
    """A condition that holds while it holds in any lane."""
    build = Builder()
    mapper = _Mapper(build, condition, lanes)
    (node, _), = mapper.run(_inputs_of(build, condition, has, lanes))
    node = build.add("call", [node], (), np.bool_, ("numpy.any", (Slot(0),), (), None))
    return build.graph([node], ["scalar"], mapper.guards)


def _where_it_holds(loop, has, lanes):
    """The body of a loop that goes on in the lanes in which its condition holds."""
    build = Builder()
    inputs = _inputs_of(build, loop.body, has, lanes)
    holds = _Mapper(build, loop.condition, lanes)
    (condition, _), = holds.run(inputs)
    body = _Mapper(build, loop.body, lanes)
    outputs = []
    for (old, _), (new, lane), i in zip(inputs, body.run(inputs), loop.body.outputs):
        shape, dtype = loop.body.shape(i), loop.body.dtype(i)
        new = body.with_lanes(new, lane, shape)
        mask = condition
        if shape:
            mask = build.add("reshape", [condition], (lanes,) + (1,) * len(shape), np.bool_)
        if dtype.kind == "f":
            outputs.append(build.add("where", [new, old, mask], (lanes, *shape), dtype))
        else:
            outputs.append(build.add("call", [mask, new, old], (lanes, *shape), dtype, (
                "numpy.where", (Slot(0), Slot(1), Slot(2)), (), None)))
    return build.graph(outputs, None, holds.guards + body.guards)


def _tuple(index):
    return index if type(index) is tuple else (index,)


def _is_basic(index):
    return all(part is None or part is Ellipsis or type(part) is slice or isinstance(
        part, (int, np.integer)) for part in _tuple(index))


def _shifted(index, first):
    """The index with Slots that count through the operands from number `first` on."""
    return tuple([Slot(part.operand + first) if isinstance(part, Slot) else part for part in index])


_DECISIONS = {
    "bool": "a condition (`if`, `while`, `and`, `or`, bool()) depends on a value that differs "
            "between lanes; write fnp.where(condition, x, y), which computes both",
    "int": "int(), range() or the index of a list or NumPy array needs one integer, but the value "
           "differs between lanes; write fnp.asarray(table)[k] to look entries up, fnp.where to "
           "choose",
    "count": "a boolean mask that differs between lanes selects another number of entries in each; "
             "write fnp.where(mask, x, 0.0) in place of x[mask]",
}


def _decision(guard):
    return ValueError(f"vmap: {guard.line}: {_DECISIONS[guard.kind]}")


def _quoted(template):
    """Arguments that are not to be filled yet."""
    if isinstance(template, Slot):
        return (LANE, template.operand)
    if type(template) in (tuple, list):
        return type(template)([_quoted(part) for part in template])
    return template


# ---- functions ------------------------------------------------------------------------------

@of_programs
def vmap(f, in_axes=0, out_axes=0):
    """A function mapped over an axis of its arguments: as a loop over the entries, without one.

    Parameters
    ----------
    f : callable
        Takes floats, arrays, or trees of them, and returns such; written for one entry, a lane.
    in_axes : int, None, or tuple of int, None or trees of them
        The axis of each argument that is mapped over; None: the argument is the same for all lanes.
        A tuple has one entry for each positional argument; where that is a tree, the entry may be
        one, down to any depth. Keyword arguments are mapped over axis 0.
    out_axes : int, None, or tree of them
        Where the lanes are put in each result. None for a result that is the same for all lanes.

    Returns
    -------
    callable
        With the signature of f. Takes arguments with the mapped axes, which must have one length,
        and returns the results of all lanes, stacked.

    Raises
    ------
    ValueError
        When called, if the mapped axes differ in length, do not exist, or there are none; if f
        decides by a value that differs between lanes (`if x > 0`: write `fnp.where`).

    Notes
    -----
    f is run once a call, with Tensors for the first lane, and what it records is then done for all
    lanes at once: operations on numbers become operations on arrays. Where a recording does not
    tell all, f is called lane by lane: if a value leaves its Tensor (``x.detach().item()``), and if
    functions with a derivative rule of the user's are differentiated through the mapped function.
    What a lane writes into its arguments it writes into copies of its own; the caller's arrays
    stay.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg, fastgrad.numpy as fnp
    >>> fg.vmap(lambda x, y: fnp.dot(x, y))(np.ones((3, 2)), np.ones((3, 2)))
    array([2., 2., 2.])

    The gradient for each observation, with the same parameters:

    >>> loss = lambda theta, x, y: (theta @ x - y) ** 2
    >>> theta, X, y = np.array([1.0, 2.0]), np.eye(2), np.zeros(2)
    >>> fg.vmap(fg.grad(loss), in_axes=(None, 0, 0))(theta, X, y)
    array([[2., 0.],
           [0., 4.]])
    """
    _function("vmap", f)
    _check_axes("in_axes", in_axes)
    _check_axes("out_axes", out_axes)

    known = _Known()

    def mapped(*args, **kwargs):
        return _Call(f, in_axes, args, kwargs).run(out_axes, known)

    return _Derivative(vmap, f, mapped, (in_axes, out_axes))


def _check_axes(name, axes):
    if axes is None or hasattr(axes, "__index__") and not isinstance(axes, bool):
        return
    branch = _trees.open_branch(axes)
    if branch is None:
        raise TypeError(f"vmap: {name} holds {axes!r}; it must be an int, None, or a tree of them")
    for child in branch.children:
        _check_axes(name, child)


def _axes_of(spec, tree, what):
    """The axis of each leaf of a tree, or None, from a tree that may end earlier."""
    if spec is None or hasattr(spec, "__index__"):
        axis = spec if spec is None else operator.index(spec)
        if type(tree) is np.ndarray:
            return [axis]
        leaves, structure = _trees.flatten(tree)
        inside = structure != _trees.LEAF       # where what is no number is the same in all lanes
        return [None if inside and _trees.is_constant(leaf) else axis for leaf in leaves]
    wanted, branch = _trees.open_branch(spec), _trees.open_branch(tree)
    if branch is None or not _trees.same_branch(wanted, branch) and not (
            wanted.type in (tuple, list) and wanted.keys == branch.keys):
        raise ValueError(f"vmap: {what} is {spec!r}, which is not built like what it belongs to "
                         f"(a {type(tree).__name__})")
    axes, children = [], dict(zip(wanted.keys, wanted.children))
    for key, child in zip(branch.keys, branch.children):
        axes += _axes_of(children[key], child, what)
    return axes


class _Known:
    """The last recording of a mapped function, and what was made of it: most functions do the same
    at each call."""

    def __init__(self):
        self.last = None
        self.reached = NOTHING

    def changes(self, function, args, kwargs):
        """Whether a call changes an array from outside."""
        if self.reached.same():         # 1 us; a look at all that it names takes 5, a search 200
            return False
        self.reached = may_change(function) or NOTHING
        return self.reached is NOTHING and changed_array(function, args, kwargs) is not None

    def mapped(self, graph, count, lanes, plain):
        """What runs a graph of which `count` inputs are mapped, on plain values or on Tensors, and
        which outputs are mapped."""
        last = self.last
        kind = count, lanes, plain
        if last is None or last[1] != kind or not same_graph(last[0], graph):
            made, has = map_graph(graph, [k < count for k in range(len(graph.inputs))], lanes)
            self.last = last = graph, kind, (Plan if plain else Replay)(made), has
        return last[2:]


class _Call:
    """One call of a mapped function."""

    def __init__(self, f, in_axes, args, kwargs):
        self.f = f
        axes = in_axes
        if isinstance(axes, (tuple, list)):
            if len(axes) != len(args):
                raise ValueError(f"vmap: in_axes has {len(axes)} entries, but {name_of(f)} is "
                                 f"called with {len(args)} positional arguments; give one for each")
        else:
            axes = (axes,) * len(args)
        self.tree = args, kwargs
        if not kwargs and all([type(arg) in _LEAVES for arg in args]):
            self.leaves, self.structure = list(args), None
        else:
            self.leaves, self.structure = _trees.flatten(self.tree)
        self.axes = []
        for k, (axis, arg) in enumerate(zip(axes, args)):
            if type(arg) in _LEAVES and (axis is None or type(axis) is int):
                self.axes.append(axis)
            else:
                self.axes += _axes_of(axis, arg, f"in_axes[{k}]")
        self.axes += [0] * (len(self.leaves) - len(self.axes))
        self.lanes = self._lanes()
        self.mapped = [k for k, axis in enumerate(self.axes) if axis is not None]
        # Tensors to f, so that an index that differs between lanes can look entries up.
        self.shared, self.arrays = [], []
        for k, axis in enumerate(self.axes):
            leaf = self.leaves[k]
            if axis is None and isinstance(leaf, Tensor) and core.is_weak(leaf) and (
                    core.recording_program()):
                continue                # a number of Python's, which may leave
            if axis is None and (isinstance(leaf, Tensor) or type(leaf) is np.ndarray
                                 and leaf.dtype.char in "fd"):
                self.shared.append(k)
            elif axis is None and isinstance(leaf, np.ndarray) and leaf.flags.writeable:
                self.arrays.append(leaf)

    def _place(self, k):
        """How messages call leaf k."""
        path = _trees.leaves_with_paths(self.tree)[k][0]
        _, _, rest = path.partition("]")
        if path.startswith("[0]"):
            number, _, rest = rest[1:].partition("]")
            return f"argument {number}{rest}"
        return f"argument {rest[2:].partition(chr(39))[0]}{rest[2:].partition(']')[2]}"

    def _lanes(self):
        """How many lanes there are."""
        count = None
        for leaf, axis in zip(self.leaves, self.axes):
            if axis is None:
                continue
            shape = getattr(leaf, "shape", ())
            if not -len(shape) <= axis < len(shape) or count not in (None, shape[axis]):
                count = None
                break
            count = shape[axis]
        if count is None:
            self._complain()
        return count

    def _complain(self):
        """Say what is wrong with the mapped axes."""
        lengths = {}
        for k, (leaf, axis) in enumerate(zip(self.leaves, self.axes)):
            if axis is None:
                continue
            shape = getattr(leaf, "shape", ())
            if not -len(shape) <= axis < len(shape):
                if not isinstance(leaf, (Tensor, np.ndarray, np.generic, int, float)):
                    raise TypeError(f"vmap: {self._place(k)} is a {type(leaf).__name__}; only "
                                    "arrays can be mapped over: give None for it in in_axes")
                raise ValueError(
                    f"vmap: axis {axis} of {self._place(k)} does not exist: its shape is "
                    f"{tuple(shape)}; give None in in_axes for what is the same in all lanes")
            lengths[k] = shape[axis]
        if not lengths:
            raise ValueError("vmap: nothing is mapped: in_axes is None for all arguments"
                             if self.leaves else "vmap: there are no arguments to map over")
        found = "; ".join(
            f"{self._place(k)} has the shape {tuple(self.leaves[k].shape)} and length {length} "
            f"along axis {self.axes[k]}" for k, length in lengths.items())
        raise ValueError(f"vmap: the mapped axes must have one length, but {found}")

    def with_lanes_first(self, k):
        """Mapped leaf k, lanes in front."""
        leaf, axis = self.leaves[k], self.axes[k]
        if type(leaf) is np.ndarray and core.recording_program():
            # The recording around knows the array, but would not know a view of it.
            known = core.known_array(leaf)
            leaf = leaf if known is None else known
        if axis % len(leaf.shape):
            rank = len(leaf.shape)
            axis %= rank
            leaf = core.transpose(leaf, (axis, *[n for n in range(rank) if n != axis]))
        return leaf

    def run(self, out_axes, known):
        given = [self.with_lanes_first(k) for k in self.mapped]
        if known.changes(self.f, *self.tree):       # no run but those of the lanes
            return self.lane_by_lane(out_axes, given)
        try:
            shared = [self.leaves[k] for k in self.shared]
            recording = record(self.function, [_one_lane(x) for x in given] + shared, None)
            inputs = given + shared + recording.captured
            plain = not core.nested() and not any([isinstance(x, Tensor) for x in inputs])
            if recording.reason is not None:
                raise Unmappable(recording.reason)
            if recording.ruled and not plain:
                raise Unmappable("a derivative rule, which the graph does not tell")
            program, has = known.mapped(recording.graph, len(given), self.lanes, plain)
            if plain:
                results = program.run(inputs)
                if type(results) is int:
                    raise Unmappable("lanes of which some take another path")
            else:
                if core.recording_program():
                    _tell(recording)
                results = program(inputs, core.nested() or None)
        except (Unmappable, GuardError, core.Unrecordable, np.linalg.LinAlgError):
            return self.lane_by_lane(out_axes, given)       # (f may catch what one lane raises)
        axes = self.result_axes(out_axes, len(results))
        return _built(self.returned, [
            self.placed(value, lanes, axis)
            for value, lanes, axis in zip(results, has, axes)])

    def function(self, arguments):
        """f, from a list of leaves to one."""
        leaves = list(self.leaves)
        for k, argument in zip(self.mapped + self.shared, arguments):
            leaves[k] = argument
        args, kwargs = leaves, {}
        if self.structure is not None:
            args, kwargs = _trees.unflatten(self.structure, leaves)
        result = self.restoring(args, kwargs) if self.arrays else self.f(*args, **kwargs)
        core.check_results("vmap", result)
        results, self.returned = _flat(result)
        return results

    def restoring(self, args, kwargs):
        """Call f; the next lane finds the arrays as they were."""
        before = [array.copy("K") for array in self.arrays]
        written = False
        try:
            return self.f(*args, **kwargs)
        finally:
            for array, copy in zip(self.arrays, before):
                if not same_bits(array, copy):
                    array[...] = copy
                    written = True
            if written and core.recording_program():
                core.unreplayable("an array that is the same in all lanes is changed")

    def result_axes(self, out_axes, count):
        """The axis of each of so many leaves of the result."""
        if out_axes is None or hasattr(out_axes, "__index__"):
            return [out_axes] * count
        return _axes_of(out_axes, _built(self.returned, [0] * count), "out_axes")

    def placed(self, value, has, axis):
        """A result with its lanes where they are wanted."""
        if axis is None:
            if has:
                raise ValueError("vmap: out_axes is None for a result that differs between lanes; "
                                 "give the axis that the lanes shall be put at")
            return value
        shape = np.shape(value) if not isinstance(value, Tensor) else value.shape
        if not has:
            value = core.broadcast_to(value, (self.lanes, *shape))
            value = value if isinstance(value, Tensor) else np.array(value)
            shape = (self.lanes, *shape)
        rank = len(shape)
        if not -rank <= axis < rank:
            raise ValueError(f"vmap: out_axes={axis} is out of range for a result that has "
                             f"the shape {shape} with its lanes")
        axis %= rank
        if axis:
            order = [n + 1 for n in range(rank - 1)]
            order.insert(axis, 0)
            value = core.transpose(value, order)
        return value

    def lane_by_lane(self, out_axes, given):
        """What a loop over the lanes does."""
        from fastgrad import numpy as fnp

        # Tensors, as in the recording, of each lane's own.
        given = [x if isinstance(x, Tensor) else core.tensor(x) for x in given]
        shared = [self.leaves[k] for k in self.shared]
        for k, x in enumerate(shared):
            if not isinstance(x, Tensor):
                known = core.known_array(x)
                shared[k] = core.tensor(x) if known is None else known
        with core.inside():
            found = [self.function([core.own_copy(x) for x in (*[x[lane] for x in given], *shared)])
                     for lane in range(self.lanes)]
        if not found:
            raise ValueError(f"vmap: {name_of(self.f)} has to be called lane by lane, and there "
                             "are no lanes")
        results = []
        for parts, axis in zip(zip(*found), self.result_axes(out_axes, len(found[0]))):
            results.append(core.settled(self.placed(fnp.stack(parts), True, axis)))
        return _built(self.returned, results)


def _one_lane(x):
    """The first lane, or one of zeros where there is none."""
    if isinstance(x, Tensor):
        x = core.value_unseen(x)
    return x[0] if len(x) else np.zeros(x.shape[1:], x.dtype)[()]


def _tell(recording):
    """Tell the recording that goes on around a mapped function what the function used by value."""
    core.by_value(recording.frozen)
    if recording.scalars:
        core.functions["add"](core.weak(0.0), np.float64(0))
