"""Whether a graph from elsewhere may be run.

What runs graphs trusts them: it reads memory at the numbers that stand in them. The core holds
every number against what it must be (`program.validate`), each node's shape and dtype against those
of its operands. Here is what it leaves to others: lines, which functions are called, and how, and
what indices pick. The first fault is named in a ValueError. Nothing is computed and nothing
allocated that is larger than the graph.
"""

import functools
import math

import numpy as np

from fastgrad._core import program
from fastgrad._operators.index import broadcasts, picked, slot, whole, wrong
from fastgrad._operators.rule import OPERATORS
from fastgrad._operators.shaped import SHAPED, WEIGHTS
from fastgrad._operators.signature import parsed
from fastgrad._operators.slots import Slot, short

from .replay import CALLS, LANE

__all__ = ["OWN_CALLS", "verify"]

_BOOL = np.dtype(bool)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def verify(graph, calls=None, seen=None):
    """Raise ValueError, saying what is wrong and where, unless the graph may be run.

    Parameters
    ----------
    graph : Graph
    calls : container of str, optional
        Names that `call` nodes may have; any by default.
    seen : dict, optional
        Graphs that were looked at before, which are not again; new ones are added.
    """
    program.validate(graph, functools.partial(_look, calls), {} if seen is None else seen)


def _look(calls, graph, nodes):
    """Look at what the core does not, the calls and indices `nodes` among it."""
    wrong(graph.shapes[0] != () or graph.attrs[0] is not None,
          "the first shape is not (), or the first attribute not None")
    lines = [*graph.lines, *[guard.line for guard in graph.guards]]
    wrong(not graph.lines or any(type(line) is not str for line in lines),
          "the lines are no strings")
    for guard in graph.guards:
        wrong(type(guard.outcome) is not (bool if guard.kind in ("bool", "all") else int),
              f"the guard on node {guard.node} has the outcome {short(guard.outcome)}")
    wrong(graph.nodes["line"].max(initial=0) >= len(graph.lines), "there is no such line")
    for i in nodes:
        try:
            (_Call if graph.name(i) == "call" else _index)(graph, i, calls)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise ValueError(f"node {i} ({graph.name(i)}): {error}") from None


def _operands(graph, i):
    """The shape and dtype of each operand."""
    return [(graph.shape(k), graph.dtype(k)) for k in graph.operands_of(i)]


def _index(graph, i, calls):
    """What an index picks, and what is put there."""
    operands, shape, row = _operands(graph, i), graph.shape(i), SHAPED[graph.name(i)]
    replaced, puts = row.index == "replaced", row.index != "read"
    own = 1 + replaced
    wrong(len(operands) < own, f"it has {len(operands)} operands, not {own}")
    for _, dtype in operands[:own]:
        wrong(dtype != graph.dtype(i), f"an operand is {dtype}, it is {graph.dtype(i)}")
    value, wide = operands[own - 1][0], shape if puts else operands[0][0]
    part = picked(graph.attribute(i), wide, operands).shape
    wrong(replaced and operands[0][0] != shape,
          f"its shape is {short(shape)}, not {short(operands[0][0])}")
    while replaced and len(value) > len(part) and value[0] == 1:    # as NumPy leaves axes out
        value = value[1:]
    wrong(puts and not broadcasts(value, part), f"{short(value)} is assigned to {short(part)}")
    wrong(not puts and (len(part) != len(shape) or not broadcasts(shape, part)),
          f"its shape is {short(shape)}, not {short(part)}")


class _Call:
    """A call, being looked at."""

    def __init__(self, graph, i, calls):
        self.calls, self.attribute = calls, graph.attribute(i)
        self.shape, self.dtype, self.operands = graph.shape(i), graph.dtype(i), _operands(graph, i)
        name, args, kwargs, which = self.parts(self.attribute)
        wrong(len({key for key, value in kwargs}) != len(kwargs), "a keyword argument comes twice")
        # What NumPy's functions do not take NumPy refuses when it runs; ours are not made for it.
        if name in OPERATORS:
            self.of_operator(OPERATORS[name], args, which)
        elif name.startswith("fastgrad.") and name in CALLS:
            wrong(kwargs or which is not None or not args, "it is called in another way than ours")
            wrong(name not in OWN_CALLS, f"nothing is known of {name}")
            OWN_CALLS[name](self, *args)

    def parts(self, attribute):
        """Name, arguments, keyword arguments, which result."""
        wrong(type(attribute) is not tuple or len(attribute) != 4, "it calls nothing")
        name, args, kwargs, which = attribute
        wrong(type(name) is not str or type(args) is not tuple or type(kwargs) is not tuple
              or not (which is None or whole(which) and which >= 0) or any(
                  type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not str
                  for pair in kwargs), "it calls nothing")
        wrong(self.calls is not None and name not in self.calls,
              f"there is no function {short(name)}")
        return attribute

    def is_shape(self, shape):
        wrong(self.shape != tuple(shape),
              f"its shape is {short(self.shape)}, not {short(tuple(shape))}")

    def of_operator(self, row, args, which):
        signature = parsed(row.signature)
        wrong(len(args) != len(signature.operands) or which is None or which >= row.results,
              f"{row.name} is called in another way than ours")
        shapes = [self.of_floats(x)[0] for x in args]
        if which < row.returns:
            self.is_shape(shapes[0] if row.along else signature.shapes(row.name, shapes)[which])

    def of_floats(self, x):
        """The shape and dtype of the first operand of a function that takes floats."""
        shape, dtype = slot(x, self.operands) if type(x) is Slot else (np.shape(x), getattr(
            x, "dtype", np.dtype(type(x)) if type(x) is float else None))
        # (To NumPy None is a name of float64.)
        wrong(dtype is None or dtype not in _FLOATS,
              f"its operand is {dtype}, not float32 or float64")
        return shape, dtype

    def of_weights(self, x, name=None, axes=None, *more):
        shape, dtype = self.of_floats(x)
        wrong(name != WEIGHTS[self.attribute[0]].name or more,
              f"its arguments are not an operand, a name and axes: {short(name)}")
        wrong(type(axes) is not tuple or not all(map(whole, axes)), "its axes are no ints")
        for k in axes:
            wrong(not 0 <= k < len(shape), f"there is no axis {short(k)}")
        wrong(len(set(axes)) != len(axes), "an axis is named twice")
        wrong(SHAPED[name].selects and any(shape[k] == 0 for k in axes) and math.prod(
            [n for k, n in enumerate(shape) if k not in axes]), "it is the extreme of no entries")
        self.is_shape(shape)
        wrong(dtype != self.dtype, f"an operand is {dtype}, it is {self.dtype}")

    def of_all_finite(self, x, *more):
        self.of_floats(x)
        wrong(more, "it has more than one argument")
        self.is_shape(())
        wrong(self.dtype != _BOOL, f"it is {self.dtype}, not bool")

    def of_lanes(self, called, *slots):
        wrong(slots != tuple(map(Slot, range(len(self.operands)))), "its operands are not in order")
        wrong(type(called) is not tuple or len(called) != 6, "it calls nothing for each lane")
        _, args, kwargs, _ = self.parts(called[:4])
        has, lanes = called[4:]
        wrong(type(has) is not tuple or len(has) != len(slots)
              or any(type(x) is not bool for x in has),
              "it does not tell which operands have lanes")
        shapes = self.shape, *[shape for (shape, _), own in zip(self.operands, has) if own]
        wrong(not whole(lanes) or any(shape[:1] != (lanes,) for shape in shapes),
              f"an operand or the result has not {short(lanes)} lanes")
        self.quoted((args, kwargs))

    def quoted(self, value):
        """Look at what stands for Slots in the arguments of a call for each lane."""
        if type(value) is tuple and len(value) == 2 and type(value[0]) is str and value[0] == LANE:
            slot(Slot(value[1]), self.operands)
        elif isinstance(value, (tuple, list)):
            for part in value:
                self.quoted(part)


# How the functions of ours are called that a call may name.
OWN_CALLS = {"fastgrad.all_finite": _Call.of_all_finite, "fastgrad.lanes": _Call.of_lanes,
             **dict.fromkeys(WEIGHTS, _Call.of_weights)}
