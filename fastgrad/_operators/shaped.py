"""The graph's operators that are not element-wise: what moves entries, reductions, the product.

One record an operator. Whoever reads graphs in Python asks it: replays and Taylor series `step`,
sparsity and formulas `move` and `goes`, lanes `behind` and `lanes`, explanations the rest.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from fastgrad._core import core
from fastgrad._operators.slots import filled, has_slots

from . import batch

__all__ = ["SHAPED", "WEIGHTS", "GraphOperator", "How", "numbered"]


ROWS = {row.name: row for row in core.operators()}


class How(NamedTuple):
    """What an operator needs besides operands; the nodes of a Trace have it, too."""
    shape: tuple            # of the result
    dtype: np.dtype
    attribute: object       # see `Graph.attrs`; in a Trace concatenate has (axis, lengths)


class GraphOperator(NamedTuple):
    """What is known of an operator that is not element-wise."""
    name: str
    step: Any               # of a How: the function of Tensors that it is
    # Of a How: the same for arrays of numbers, which stand for entries; -1 and None, for a whole
    # operand, for zeros. None: it does more than moving entries.
    move: Any = None
    # Of a How and the shape of the one operand: for each of its entries the number of that of the
    # result which it goes into, in an array that broadcasts to the shape.
    goes: Any = None
    behind: Any = None      # of the attribute: what it is when all have another axis in front
    lanes: Any = None       # where that takes more than another attribute: a rule of batch.py
    ordered: bool = False   # the entries stay in order: a result of the operand's shape is that
    converts: bool = False  # the dtype of the result is another than that of the operands
    # What is done with the entries that its attribute, an index, names: they are "read" from
    # operand 0, operand 0 is "put" there among zeros, or operand 1 has "replaced" those of operand
    # 0. Nothing where the attribute is no index.
    index: str = ""
    weighed: bool = False   # `core.reduction_weights_of` computes its partials; calls may name that
    fold: str = ""          # of what reduces: the element-wise row that combines two entries
    # Of what reduces and is not linear: `(apply, entries, their results, the numbers of these)`
    # gives its partials, in rows of the table. (See look/symbolic.py; Taylor series have no
    # numbers.)
    slopes: Any = None
    selects: bool = False   # it takes some entries, and has no path to the others
    # The letter of its Jacobian, and what that is; None: the identity. A function gets the node and
    # which operand it is.
    words: Any = None
    # Of what reduces, where its result is a number: the row of its slopes as a formula of the
    # operand a, the result y and a letter m, and what the row is.
    to_number: tuple = ()
    option: str = ""        # written beside operands: "shape", "attribute", "order" or nothing

    # As the table of operators says.
    linear = property(lambda self: ROWS[self.name].linear)
    bilinear = property(lambda self: ROWS[self.name].bilinear)
    reduces = property(lambda self: ROWS[self.name].reduces)
    listed = property(lambda self: ROWS[self.name].listed)

    def route(self, how, k, shapes):
        """Which entry of the result each entry of operand k goes to: numbers of both, in pairs."""
        numbers = numbered(shapes[k])
        if self.goes is not None:
            return np.broadcast_to(self.goes(how, shapes[k]), shapes[k]).ravel(), numbers.ravel()
        given = [numbers if i == k else None for i in range(len(shapes))]
        taken = np.ravel(self.move(how)(*given))
        rows = np.flatnonzero(taken >= 0)
        return rows, taken[rows]


def numbered(shape):
    """The number of each entry of an array of that shape."""
    return np.arange(math.prod(shape)).reshape(shape)


# ---- what moves entries ---------------------------------------------------------------------

def _moves(name, step, move=None, **more):
    """Views do the same with arrays as with Tensors, and need no `move` of their own."""
    return GraphOperator(name, step, move or step, **more)


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

def _reduction(name, function, fold, **more):
    def step(how):
        axes, rank = how.attribute, len(how.shape)
        return lambda x: function(x, axes, keepdims=rank == x.ndim and bool(axes))

    def goes(how, shape):
        return numbered([1 if k in how.attribute else n for k, n in enumerate(shape)])
    return GraphOperator(name, step, goes=goes, behind=_axes_behind, fold=fold,
                         **{"words": ("J", f"a row for each {name}"), **more})


def _others(apply, x, y, results):
    """The product of the other entries, right even where one is 0."""
    slopes = np.empty(x.size, x.dtype)
    for i, result in enumerate(results):
        slopes[i] = np.prod(x[(results == result) & (np.arange(x.size) != i)])
    return slopes


def _shares(sign):
    """Those of the entries that are the largest, or the smallest."""
    def slopes(apply, x, y, results):
        # (Formulas of an entry and of the maximum may be rounded apart.)
        if x.dtype == object:
            chosen = np.ones(x.size, object)
            for i, result in enumerate(results):
                for j in np.flatnonzero((results == result) & (np.arange(x.size) != i)):
                    chosen[i] *= 1 - apply("step", sign * (x[j] - x[i]))
        else:
            chosen = np.asarray(apply("is_zero", apply("subtract", x, y)))
        ties = np.zeros(max(results, default=0) + 1, chosen.dtype)
        np.add.at(ties, results, chosen)
        return np.asarray(apply("divide", chosen, ties[results]))
    return slopes


def _extreme(name, function, fold, sign):
    return _reduction(name, function, fold, slopes=_shares(sign), selects=True, weighed=True,
                      to_number=("m", f"{{m}} is 1 at the {fold}, 0 elsewhere"))


SHAPED = {row.name: row for row in (
    _moves("reshape", lambda how: lambda x: core.reshape(x, how.shape), option="shape",
           ordered=True, behind=lambda nothing: None),
    _moves("transpose", lambda how: lambda x: core.transpose(x, how.attribute), option="order",
           words=lambda node, k: _ORDER if len(node.shape) > 1 else None,
           behind=lambda axes: (0, *_axes_behind(axes))),
    _moves("broadcast", lambda how: lambda x: core.broadcast_to(x, how.shape), option="shape",
           words=("B", "repeats entries"), lanes=batch.repeated),
    _moves("flip", lambda how: lambda x: core.flip(x, how.attribute), option="attribute",
           words=_ORDER, behind=_axes_behind),
    _moves("item", lambda how: lambda x: x[how.attribute], index="read", words=_ROWS,
           behind=_index_behind),
    _moves("gather", _picked, index="read", words=_ROWS, lanes=batch.gathered),
    _moves("cast", lambda how: lambda x: core.cast(x, how.dtype), lambda how: lambda x: x,
           converts=True, behind=lambda nothing: None),
    _moves("place", lambda how: lambda x: core.place(x, how.attribute, how.shape), _embedded,
           index="put", words=_COLUMNS, behind=_index_behind),
    _moves("assign", lambda how: lambda *x: core.assigned(x[0], filled(how.attribute, x), x[1]),
           _replaced, index="replaced", lanes=batch.assigned, words=lambda node, k: _COLUMNS if k
           else ("Z", "the identity, rows of what was replaced 0")),
    _moves("concatenate", _joined, _beside, lanes=batch.joined,
           words=lambda node, k: (f"C{k}", _COLUMNS[1])),
    GraphOperator("scatter", _scattered, index="put", words=_COLUMNS, lanes=batch.scattered,
                  goes=lambda how, shape: numbered(how.shape)[how.attribute]),
    _reduction("sum", core.sum, "add", to_number=("ones", "a row of ones"),
               words=lambda node, k: (
                   "S", f"adds along axis {', '.join(map(str, node.attribute))}")),
    _reduction("prod", core.prod, "multiply", slopes=_others,
               to_number=("y / a", "a row: the product of the others")),
    _extreme("max", core.max, "maximum", 1),
    _extreme("min", core.min, "minimum", -1),
    _reduction("logsumexp", core.logsumexp, "logaddexp", weighed=True,
               to_number=("softmax(a)", "a row"),
               slopes=lambda apply, x, y, _: apply("exp", apply("subtract", x, y))),
    GraphOperator("matmul", lambda how: core.matmul, lanes=batch.multiplied,
                  words=("K", "a block for each matrix product")),
)}

# What calls that compute their partials are called.
WEIGHTS = {f"fastgrad.weights_{row.name}": row for row in SHAPED.values() if row.weighed}
