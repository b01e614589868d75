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
        Of a How: the function of Tensors that it is. Of several operands of a linear operator one that
        is None is zero.
    move : callable or None
        Of a How and a value: the same for arrays of anything. The value stands where no entry comes
        from, and for all entries of an operand that is None.
    goes : callable or None
        Of a How and the shape of the one operand: for each of its entries the number of that of the
        result which it goes into, in an array that broadcasts to the shape.
    linear, bilinear : bool
        In all operands together; in each of two.
    reduces : bool
        Makes one entry of those along some axes, which are its attribute.
    words : tuple of str, callable or None
        The letter of its Jacobian, and what that is. A function gets the node and which operand it is.
        None: the identity.
    option : str
        What an explanation writes beside the operands: "shape", "attribute", "index" or nothing.
    """
    name: str
    step: Any
    move: Any = None
    goes: Any = None
    linear: bool = False
    bilinear: bool = False
    reduces: bool = False
    words: Any = None
    option: str = ""

    def route(self, how, k, shapes):
        """Which entry of the result each entry of operand k goes to: numbers of both, in pairs."""
        shape = shapes[k]
        numbers = _numbers(shape)
        if self.goes is not None:
            return np.broadcast_to(self.goes(how, shape), shape).ravel(), numbers.ravel()
        given = [numbers if i == k else None for i in range(len(shapes))]
        taken = np.ravel(self.move(how, -1)(*given))
        rows = np.flatnonzero(taken >= 0)
        return rows, taken[rows]


def _numbers(shape):
    return np.arange(math.prod(shape)).reshape(shape)


# ---- what moves entries ---------------------------------------------------------------------

def _moves(name, step, words=None, option="", move=None):
    """Without a `move` of its own every entry comes from somewhere, and `step` serves arrays, too."""
    return GraphOperator(name, step, move or (lambda how, blank: step(how)), linear=True, words=words,
                         option=option)


def _picked(how):
    index = how.attribute
    if not has_slots(index):
        return lambda x, *_: x[index]
    return lambda *x: x[0][filled(index, x)]


def _scattered(how):
    index, shape = how.attribute, how.shape
    return lambda *x: core.scatter(x[0], filled(index, x), shape)


def _embedded(how, blank):
    def move(x):
        whole = np.full(how.shape, blank, x.dtype)
        whole[how.attribute] = x.reshape(whole[how.attribute].shape)
        return whole
    return move


def _assigned(how):
    def step(*x):
        before, value = x[:2]
        return core.assigned(np.zeros(how.shape, how.dtype) if before is None else before,
                             filled(how.attribute, x), 0.0 if value is None else value)
    return step


def _replaced(how, blank):
    def move(before, value):
        whole = np.full(how.shape, blank, value.dtype) if before is None else before.copy()
        whole[how.attribute] = blank if value is None else value
        return whole
    return move


def _joined(how):
    if how.attribute is None:
        return lambda *parts: core.pack(parts)
    if type(how.attribute) is not tuple:
        return lambda *parts: core.concatenate(parts, how.attribute)

    def step(*parts):
        if any([x is not None and np.ndim(x) == 0 for x in parts]):
            return core.pack([0.0 if x is None else x for x in parts])
        return core.concatenate([np.zeros(shape, how.dtype) if x is None else x
                                 for x, (shape, _) in zip(parts, _parts(how))], how.attribute[0])
    return step


def _beside(how, blank):
    def move(*parts):
        whole = np.full(how.shape, blank, next(x.dtype for x in parts if x is not None))
        for x, (_, where) in zip(parts, _parts(how)):
            if x is not None:
                whole[where] = x
        return whole
    return move


def _parts(how):
    """Shape and place of each part of what is joined."""
    axis, lengths = how.attribute
    start = 0
    for length in lengths:
        yield ((*how.shape[:axis], length, *how.shape[axis + 1:]),
               (slice(None),) * axis + (slice(start, start + length),))
        start += length


_ORDER = "P", "the same entries in another order"
_ROWS = "R", "rows of the identity"
_COLUMNS = "C", "columns of the identity"


# ---- what reduces ---------------------------------------------------------------------------

def _reduction(name, function, linear=False):
    def step(how):
        axes, rank = how.attribute, len(how.shape)
        return lambda x: function(x, axes, keepdims=rank == x.ndim and bool(axes))

    def goes(how, shape):
        return _numbers([1 if k in how.attribute else n for k, n in enumerate(shape)])
    return GraphOperator(name, step, goes=goes, linear=linear, reduces=True,
                         words=("J", f"a row for each {name}"))


SHAPED = {row.name: row for row in (
    _moves("reshape", lambda how: lambda x: core.reshape(x, how.shape), option="shape"),
    _moves("transpose", lambda how: lambda x: core.transpose(x, how.attribute),
           lambda node, k: _ORDER if len(node.shape) > 1 else None),
    _moves("broadcast", lambda how: lambda x: core.broadcast_to(x, how.shape),
           ("B", "repeats entries"), "shape"),
    _moves("flip", lambda how: lambda x: core.flip(x, how.attribute), _ORDER, "attribute"),
    _moves("item", lambda how: lambda x: x[how.attribute], _ROWS, "index"),
    _moves("gather", _picked, _ROWS, "index"),
    _moves("cast", lambda how: lambda x: core.cast(x, how.dtype), move=lambda how, blank: lambda x: x),
    _moves("place", lambda how: lambda x: core.place(x, how.attribute, how.shape), _COLUMNS,
           move=_embedded),
    _moves("assign", _assigned, lambda node, k: _COLUMNS if k else (
        "Z", "the identity, rows of what was replaced 0"), "index", _replaced),
    _moves("concatenate", _joined, lambda node, k: (f"C{k}", _COLUMNS[1]), move=_beside),
    GraphOperator("scatter", _scattered, linear=True, words=_COLUMNS,
                  goes=lambda how, shape: _numbers(how.shape)[how.attribute]),
    _reduction("sum", lambda x, axes, keepdims: core.sum(x, axes, None, None, keepdims), linear=True),
    _reduction("prod", core.prod),
    _reduction("max", core.max),
    _reduction("min", core.min),
    _reduction("logsumexp", core.logsumexp),
    GraphOperator("matmul", lambda how: core.matmul, bilinear=True,
                  words=("K", "a block for each matrix product")),
)}
