"""A recorded function as data: what the planner plans, vmap maps, and files hold.

A `Graph` is the tape of one recording, taken out of the arena: one row of an array for each
operation, operands before their consumers, and beside it what does not fit a row. It refers to no
Tensor and no Python function, so that it can be planned, differentiated by replaying, written to a
file and sent to another process.
"""

from typing import NamedTuple

import numpy as np

from fastgrad._core import core
from fastgrad._operators.slots import short

__all__ = ["Graph", "Guard", "Loop", "NODE", "INPUT", "WEAK", "LITERAL", "MANY", "STOP", "OPS",
           "NAMES", "same_bits", "same_graph"]

# One operation, and what its flags say: src/graph.h.
NODE = np.dtype([tuple(field.split(":")) for field in core.GRAPH_LAYOUT.split()])
INPUT, WEAK, LITERAL, MANY, STOP = [core.GRAPH_FLAGS[name] for name in (
    "INPUT", "WEAK", "LITERAL", "MANY", "STOP")]

NAMES = core.operator_names()                   # by number
OPS = {name: op for op, name in enumerate(NAMES)}
_LISTED = frozenset([row.name for row in core.operators() if row.listed])       # always MANY


class Guard(NamedTuple):
    """What a recording took for granted.

    node : the number of the node whose value decided.
    kind : "bool" (its truth), "int" (its value as an integer), "count" (how many are true) or "all"
        (that all are: a decision of the library's, which lanes that differ in it may meet).
    outcome : what it was.
    line : "file.py:12", where the function looked at it.
    """

    node: int
    kind: str
    outcome: object
    line: str


class Loop(NamedTuple):
    """The attribute of a `custom` node that runs a graph again and again.

    The node's operands are the carries, the sequences and the constants; the body takes the
    carries, one entry along axis 0 of each sequence, and the constants, and returns the carries
    and what is to be stacked; the results are the last carries and the stacked arrays.

    kind : "scan" (a known number of steps) or "while" (as long as the condition holds).
    body : Graph
    carries, sequences, constants : how many of each.
    length : how many steps; None for "while".
    reverse : from the last entry to the first.
    condition : Graph or None
        Of the carries and the constants; returns one bool.
    """

    kind: str
    body: object
    carries: int
    sequences: int
    constants: int
    length: int = None
    reverse: bool = False
    condition: object = None

    def __repr__(self):
        steps = "" if self.length is None else f" of {self.length} steps"
        return (f"{self.kind}{steps}{', reversed' if self.reverse else ''} ({self.carries} "
                f"carries, {self.sequences} sequences, {self.constants} constants)")


class Graph:
    """Operations from some inputs to some outputs.

    Attributes
    ----------
    nodes : ndarray of NODE
        Operands stand before their consumers.
    operands : ndarray of int32
        Operand lists of the nodes with MANY.
    shapes : list of tuple
        What `shape` counts into; the first is ().
    attrs : list
        What `attr` counts into; the first is None. By operator:
        leaf: the ndarray, of a constant that is none scalar float;
        transpose, flip: a tuple of axes; sum, prod, max, min, logsumexp: the tuple of the axes that
        are reduced (the node's shape tells whether they are kept with length 1);
        item, place: a basic index; gather, scatter, assign: an index, in which a Slot stands for an
        array that is an operand; concatenate: the axis, or None where scalars are packed into a
        vector; call: (name, arguments with Slots, keyword arguments as a tuple of pairs, which
        result or None); custom: a rule or a loop; result: nothing (`constant` tells which).
    inputs, outputs : list of int
        Numbers of nodes.
    kinds : list of str
        Of each output: "float" (a Python float), "scalar" (a NumPy scalar) or "array".
    guards : list of Guard
    lines : list of str
        What `line` counts into: where the user's code recorded the operation; the first is "".
    """

    __slots__ = ("nodes", "operands", "shapes", "attrs", "inputs", "outputs", "kinds", "guards",
                 "lines")

    def __init__(self, nodes, operands, shapes, attrs, inputs, outputs, kinds, guards=(),
                 lines=("",)):
        self.nodes = np.ascontiguousarray(nodes, NODE)
        self.operands = np.ascontiguousarray(operands, np.int32)
        self.shapes, self.attrs = list(shapes), list(attrs)
        self.inputs, self.outputs, self.kinds = list(inputs), list(outputs), list(kinds)
        self.guards, self.lines = list(guards), list(lines)

    def __len__(self):
        return len(self.nodes)

    def __reduce__(self):
        return core.HANDED_DOWN["pickled graph"](self)

    def name(self, i):
        """The operator of node i."""
        return NAMES[self.nodes["op"][i]]

    def operands_of(self, i):
        """The numbers of the operands of node i."""
        node = self.nodes[i]
        if node["flags"] & MANY:
            return self.operands[node["a"]:node["a"] + node["b"]].tolist()
        return [int(x) for x in (node["a"], node["b"], node["c"]) if x >= 0]

    def shape(self, i):
        """The shape of the value of node i."""
        return self.shapes[self.nodes["shape"][i]]

    def dtype(self, i):
        """Its dtype."""
        return core.dtype_of_number(int(self.nodes["dtype"][i]))

    def attribute(self, i):
        """What it needs besides operands."""
        return self.attrs[self.nodes["attr"][i]]

    def constant(self, i):
        """The value of a leaf that is no input."""
        value = self.attribute(i)
        return float(self.nodes["constant"][i]) if value is None else value

    def __str__(self):
        lines = []
        for i in range(len(self)):
            node = self.nodes[i]
            name, shape = self.name(i), self.shape(i)
            if name == "leaf":
                what = (f"input {int(node['constant'])}" if node["flags"] & INPUT
                        else f"constant {short(self.constant(i))}")
            else:
                attribute = self.attribute(i)
                what = f"{name}({', '.join('%' + str(k) for k in self.operands_of(i))})"
                if attribute is not None:
                    what += f" {short(attribute)}"
            kind = "float" if node["flags"] & WEAK else str(self.dtype(i))
            lines.append(f"%{i} = {what} : {kind}{list(shape) if shape else ''}")
        for guard in self.guards:
            lines.append(f"guard {guard.kind}(%{guard.node}) == {guard.outcome}  # {guard.line}")
        lines.append(f"return {', '.join('%' + str(k) for k in self.outputs)}")
        return "\n".join(lines)


def operand_lists(nodes, operands):
    """The numbers of the operands of each of those rows."""
    lists = operands.tolist()
    return [lists[a:a + b] if flags & MANY else [k for k in (a, b, c) if k >= 0]
            for flags, a, b, c in nodes[["flags", "a", "b", "c"]].tolist()]


class Builder:
    """Makes a graph, node after node. Dtypes may be numbers."""

    line = 0                        # of the user's code, for the nodes that follow

    def __init__(self):
        self._nodes, self._operands = [], []
        self.shapes, self.attrs, self.lines = [()], [None], [""]
        self._shape_at = {(): 0}
        self.inputs = []

    def input(self, shape=(), dtype=np.float64, weak=False):
        """A leaf to be bound."""
        self.inputs.append(len(self._nodes))
        return self.add("leaf", (), shape, dtype, None, INPUT | (WEAK if weak else 0),
                         len(self.inputs) - 1)

    def constant(self, value, dtype=None):
        """A leaf with a value: a float, or an ndarray."""
        if isinstance(value, float) and dtype is None:
            return self.add("leaf", (), (), np.float64, None, WEAK, value)
        value = np.array(value, dtype)
        if value.ndim == 0 and value.dtype.char in "fd":
            return self.add("leaf", (), (), value.dtype, None, 0, float(value))
        value.flags.writeable = False
        return self.add("leaf", (), value.shape, value.dtype, value, 0, 0)

    def add(self, name, operands, shape=(), dtype=np.float64, attribute=None, flags=0,
            constant=0.0):
        """An operation."""
        if len(operands) > 3 or name in _LISTED:
            flags |= MANY
            a, b, c = len(self._operands), len(operands), -1
            self._operands += operands
        else:
            a, b, c = (*operands, -1, -1, -1)[:3]
        if type(dtype) is not int:
            dtype = np.dtype(dtype).num
        shape = tuple(map(int, shape))
        at = self._shape_at.setdefault(shape, len(self.shapes))
        if at == len(self.shapes):
            self.shapes.append(shape)
        if attribute is not None:
            self.attrs.append(attribute)
        self._nodes.append((OPS[name], dtype, len(shape), flags, a, b, c, at,
                            0 if attribute is None else len(self.attrs) - 1, self.line, constant))
        return len(self._nodes) - 1

    def graph(self, outputs, kinds=None, guards=()):
        """The graph with those outputs."""
        nodes = np.array(self._nodes, NODE)
        if kinds is None:
            kinds = ["array" if nodes["rank"][i] else "float" if nodes["flags"][i] & WEAK else
                     "scalar" for i in outputs]
        return Graph(nodes, self._operands, self.shapes, self.attrs, self.inputs, outputs, kinds,
                     guards, self.lines)


def same_graph(one, other):
    """Whether two graphs do the same with the same values."""
    return (one.outputs == other.outputs and one.inputs == other.inputs
            and one.nodes.tobytes() == other.nodes.tobytes()
            and one.operands.tobytes() == other.operands.tobytes()
            and one.shapes == other.shapes and one.kinds == other.kinds
            and one.guards == other.guards and one.lines == other.lines
            and len(one.attrs) == len(other.attrs)
            and all(map(_same_attribute, one.attrs, other.attrs)))


def same_bits(a, b):
    """Whether two arrays hold the same."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _same_attribute(one, other):
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same_attribute, one, other))
    if isinstance(one, np.ndarray):
        return same_bits(one, other)
    return same_graph(one, other) if isinstance(one, Graph) else bool(one == other)
