"""The graph's operators that are not element-wise: what moves entries, reductions, the product.

One record an operator. Whoever reads graphs in Python asks it: replays and Taylor series `step`,
sparsity and formulas `move` and `goes`, explanations the rest.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from fastgrad._core import core
from fastgrad._graph import filled, has_slots

__all__ = ["SHAPED", "GraphOperator", "How"]


ROWS = {row.name: row for row in core.operators()}


class How(NamedTuple):
    """What an operator needs besides operands; the nodes of a Trace have it, too."""
    shape: tuple            # of the result
    dtype: np.dtype
    attribute: object       # see `Graph.attrs`; in a Trace concatenate has (axis, lengths)


class GraphOperator(NamedTuple):
    """What is known of an operator that is not element-wise.

    Attributes
    ----------
    name : str
    step : callable
        Of a How: the function of Tensors that it is.
    move : callable or None
        Of a How: the same for arrays of numbers, which stand for entries; -1 and None, for a whole
        operand, for zeros. None: it does more than moving entries.
    goes : callable or None
        Of a How and the shape of the one operand: for each of its entries the number of that of the
        result which it goes into, in an array that broadcasts to the shape.
    behind : callable or None
        Of the attribute: what it is when operand and result have another axis in front. None: that
        takes more than another attribute.
    linear, bilinear, reduces : bool
        As the table of operators says.
    words : tuple of str, callable or None
        The letter of its Jacobian, and what that is; None: the identity. A function gets the node
        and which operand it is.
    option : str
        What an explanation writes beside the operands: "shape", "attribute", "index" or nothing.
    """
    name: str
    step: Any
    move: Any = None
    goes: Any = None
    behind: Any = None
    words: Any = None
    option: str = ""

    linear = property(lambda self: ROWS[self.name].linear)
    bilinear = property(lambda self: ROWS[self.name].bilinear)
    reduces = property(lambda self: ROWS[self.name].reduces)

    def route(self, how, k, shapes):
        """Which entry of the result each entry of operand k goes to: numbers of both, in pairs."""
        numbers = _numbers(shapes[k])
        if self.goes is not None:
            return np.broadcast_to(self.goes(how, shapes[k]), shapes[k]).ravel(), numbers.ravel()
        given = [numbers if i == k else None for i in range(len(shapes))]
        taken = np.ravel(self.move(how)(*given))
        rows = np.flatnonzero(taken >= 0)
        return rows, taken[rows]


def _numbers(shape):
    return np.arange(math.prod(shape)).reshape(shape)


# ---- what moves entries ---------------------------------------------------------------------

def _moves(name, step, words=None, option="", move=None, behind=None):
    """Views do the same with arrays as with Tensors, and need no `move` of their own."""
    return GraphOperator(name, step, move or step, behind=behind, words=words,
                         option=option)


def _axes_behind(axes):
    return tuple([k + 1 for k in axes])


def _index_behind(index):
    return (slice(None), *(index if type(index) is tuple else (index,)))


def _picked(how):
    index = how.attribute
    if not has_slots(index):
        return lambda x, *_: x[index]
    return lambda *x: x[0][filled(index, x)]


def _scattered(how):
    return lambda *x: core.scatter(x[0], filled(how.attribute, x), how.shape)


def _embedded(how):
    def move(x):
        whole = np.full(how.shape, -1, x.dtype)
        whole[how.attribute] = x.reshape(whole[how.attribute].shape)
        return whole
    return move


def _replaced(how):
    def move(before, value):
        whole = np.full(how.shape, -1, value.dtype) if before is None else before.copy()
        whole[how.attribute] = -1 if value is None else value
        return whole
    return move


def _joined(how):
    axis = how.attribute[0] if type(how.attribute) is tuple else how.attribute
    return lambda *x: core.concatenate(x, axis) if getattr(x[0], "ndim", 0) else core.pack(x)


def _beside(how):
    axis, lengths = how.attribute

    def move(*parts):
        whole = np.full(how.shape, -1, next(x.dtype for x in parts if x is not None))
        start = 0
        for x, length in zip(parts, lengths):
            if x is not None:
                whole[(slice(None),) * axis + (slice(start, start + length),)] = x
            start += length
        return whole
    return move


_ORDER = "P", "the same entries in another order"
_ROWS = "R", "rows of the identity"
_COLUMNS = "C", "columns of the identity"


# ---- what reduces ---------------------------------------------------------------------------

def _reduction(name, function):
    def step(how):
        axes, rank = how.attribute, len(how.shape)
        return lambda x: function(x, axes, keepdims=rank == x.ndim and bool(axes))

    def goes(how, shape):
        return _numbers([1 if k in how.attribute else n for k, n in enumerate(shape)])
    return GraphOperator(name, step, goes=goes, behind=_axes_behind,
                         words=("J", f"a row for each {name}"))


SHAPED = {row.name: row for row in (
    _moves("reshape", lambda how: lambda x: core.reshape(x, how.shape), option="shape",
           behind=lambda nothing: None),
    _moves("transpose", lambda how: lambda x: core.transpose(x, how.attribute),
           lambda node, k: _ORDER if len(node.shape) > 1 else None,
           behind=lambda axes: (0, *_axes_behind(axes))),
    _moves("broadcast", lambda how: lambda x: core.broadcast_to(x, how.shape),
           ("B", "repeats entries"), "shape"),
    _moves("flip", lambda how: lambda x: core.flip(x, how.attribute), _ORDER, "attribute",
           behind=_axes_behind),
    _moves("item", lambda how: lambda x: x[how.attribute], _ROWS, "index", behind=_index_behind),
    _moves("gather", _picked, _ROWS, "index"),
    _moves("cast", lambda how: lambda x: core.cast(x, how.dtype), move=lambda how: lambda x: x,
           behind=lambda nothing: None),
    _moves("place", lambda how: lambda x: core.place(x, how.attribute, how.shape), _COLUMNS,
           move=_embedded, behind=_index_behind),
    _moves("assign", lambda how: lambda *x: core.assigned(x[0], filled(how.attribute, x), x[1]),
           lambda node, k: _COLUMNS if k else ("Z", "the identity, rows of what was replaced 0"),
           "index", _replaced),
    _moves("concatenate", _joined, lambda node, k: (f"C{k}", _COLUMNS[1]), move=_beside),
    GraphOperator("scatter", _scattered, goes=lambda how, shape: _numbers(how.shape)[how.attribute],
                  words=_COLUMNS),
    _reduction("sum", core.sum),
    _reduction("prod", core.prod),
    _reduction("max", core.max),
    _reduction("min", core.min),
    _reduction("logsumexp", core.logsumexp),
    GraphOperator("matmul", lambda how: core.matmul,
                  words=("K", "a block for each matrix product")),
)}
