"""The graph's operators that are not element-wise: what moves entries, reductions, the product.

One record an operator. Whoever reads graphs in Python asks it: replays and Taylor series `step`,
sparsity and formulas `move` and `goes`, lanes `behind` and `lanes`, checks `fits`, explanations the
rest.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from fastgrad._core import core
from fastgrad._graph import filled, has_slots, short

from . import batch
from .index import broadcasts, picked, wrong

__all__ = ["SHAPED", "GraphOperator", "How", "axes_in"]


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
    fits : callable
        Of a How and the operands, pairs of a shape and a dtype: the shape of the result, None for a
        length that only running tells. ValueError where they do not go together.
    move : callable or None
        Of a How: the same for arrays of numbers, which stand for entries; -1 and None, for a whole
        operand, for zeros. None: it does more than moving entries.
    goes : callable or None
        Of a How and the shape of the one operand: for each of its entries the number of that of the
        result which it goes into, in an array that broadcasts to the shape.
    behind : callable or None
        Of the attribute: what it is when operand and result have another axis in front.
    lanes : callable or None
        Where that takes more than another attribute: a rule of batch.py.
    operands : int or None
        How many there are, but for those that stand in the attribute; None: as many as you like.
    converts : bool
        Whether the dtype of the result is another than that of the operands.
    linear, bilinear, reduces, listed : bool
        As the table of operators says.
    replaces : bool
        Whether operand 1 takes the place of the entries of operand 0 that the attribute names.
    fold : str
        Of what reduces: the element-wise row that combines two entries.
    slopes : callable or None
        Of what reduces and is not linear: ``(apply, entries, their results, the numbers of these)``
        gives its partials, in rows of the table. (See _symbolic.py; Taylor series have no numbers.)
    selects : bool
        Whether it takes some entries, and has no path to the others.
    words : tuple of str, callable or None
        The letter of its Jacobian, and what that is; None: the identity. A function gets the node
        and which operand it is.
    to_number : tuple of str
        Of what reduces, where its result is a number: the row of its slopes as a formula of the
        operand a, the result y and a letter m, and what the row is.
    option : str
        What an explanation writes beside the operands: "shape", "attribute", "order", "index" or
        nothing.
    """
    name: str
    step: Any
    fits: Any
    move: Any = None
    goes: Any = None
    behind: Any = None
    lanes: Any = None
    operands: int | None = 1
    converts: bool = False
    replaces: bool = False
    fold: str = ""
    slopes: Any = None
    selects: bool = False
    words: Any = None
    to_number: tuple = ()
    option: str = ""

    linear = property(lambda self: ROWS[self.name].linear)
    bilinear = property(lambda self: ROWS[self.name].bilinear)
    reduces = property(lambda self: ROWS[self.name].reduces)
    listed = property(lambda self: ROWS[self.name].listed)

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


def axes_in(axes, rank):
    """Axes of an attribute, if they are axes."""
    wrong(type(axes) is not tuple or any(type(k) is not int for k in axes), "its axes are no ints")
    for k in axes:
        wrong(not 0 <= k < rank, f"there is no axis {short(k)}")
    wrong(len(set(axes)) != len(axes), "an axis is named twice")
    return axes


# ---- what moves entries ---------------------------------------------------------------------

def _moves(name, step, fits, move=None, **more):
    """Views do the same with arrays as with Tensors, and need no `move` of their own."""
    return GraphOperator(name, step, fits, move or step, **more)


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


def _bare(how):
    wrong(how.attribute is not None, "it takes no attribute")


def _reshaped(how, operands):
    _bare(how)
    (own, _), = operands
    wrong(math.prod(own) != math.prod(how.shape),
          f"{short(own)} has not as many entries as {short(how.shape)}")
    return how.shape


def _turned(how, operands):
    (own, _), = operands
    wrong(len(axes_in(how.attribute, len(own))) != len(own), "it names not all axes")
    return tuple([own[k] for k in how.attribute])


def _repeated(how, operands):
    _bare(how)
    (own, _), = operands
    wrong(np.broadcast_shapes(own, how.shape) != how.shape,
          f"{short(own)} does not broadcast to {short(how.shape)}")
    return how.shape


def _converted(how, operands):
    _bare(how)
    return operands[0][0]


def _flipped(how, operands):
    (own, _), = operands
    axes_in(how.attribute, len(own))
    return own


def _put(how, operands):
    (own, _), = operands
    part = picked(how.attribute, how.shape, operands, basic=True).shape
    wrong(math.prod(part) != math.prod(own), f"{short(own)} is put where {short(part)} is")
    return how.shape


def _scattered_there(how, operands):
    own, part = operands[0][0], picked(how.attribute, how.shape, operands).shape
    wrong(not broadcasts(own, part), f"{short(own)} is assigned to {short(part)}")
    return how.shape


def _assigned_there(how, operands):
    (own, _), (value, _) = operands[:2]
    part = picked(how.attribute, own, operands).shape
    while len(value) > len(part) and value[0] == 1:     # NumPy leaves such axes out
        value = value[1:]
    wrong(not broadcasts(value, part), f"{short(value)} is assigned to {short(part)}")
    return own


def _end_to_end(how, operands):
    if how.attribute is None:
        wrong(any(own for own, _ in operands), "what is packed are no scalars")
        return (len(operands),)
    shape = how.shape
    axis, = axes_in((how.attribute,), len(shape))
    for own, _ in operands:
        wrong(len(own) != len(shape) or own[:axis] != shape[:axis]
              or own[axis + 1:] != shape[axis + 1:],
              f"{short(own)} does not join to {short(shape)}")
    return (*shape[:axis], sum([own[axis] for own, _ in operands]), *shape[axis + 1:])


_ORDER = "P", "the same entries in another order"
_ROWS = "R", "rows of the identity"
_COLUMNS = "C", "columns of the identity"


# ---- what reduces ---------------------------------------------------------------------------

def _reduction(name, function, fold, **more):
    def step(how):
        axes, rank = how.attribute, len(how.shape)
        return lambda x: function(x, axes, keepdims=rank == x.ndim and bool(axes))

    def fits(how, operands):
        (own, _), = operands
        axes = axes_in(how.attribute, len(own))
        wrong(name in ("max", "min") and any(own[k] == 0 for k in axes) and math.prod(how.shape),
              "it is the extreme of no entries")
        kept = tuple([1 if k in axes else n for k, n in enumerate(own)])
        return kept if how.shape == kept else tuple(
            [n for k, n in enumerate(own) if k not in axes])

    def goes(how, shape):
        return _numbers([1 if k in how.attribute else n for k, n in enumerate(shape)])
    return GraphOperator(name, step, fits, goes=goes, behind=_axes_behind, fold=fold,
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
        if x.dtype == object:       # (Formulas of an entry and of the maximum may be rounded apart.)
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
    return _reduction(name, function, fold, slopes=_shares(sign), selects=True, to_number=(
        "m", f"{{m}} is 1 at the {fold}, 0 elsewhere"))


def _product(how, operands):
    _bare(how)
    (a, _), (b, _) = operands
    wrong(not a or not b, "an operand is a scalar")
    wrong(a[-1] != b[-2 if len(b) > 1 else 0], f"{short(a)} and {short(b)} do not match")
    return np.broadcast_shapes(a[:-2], b[:-2]) + a[-2:-1] + (b[-1:] if len(b) > 1 else ())


SHAPED = {row.name: row for row in (
    _moves("reshape", lambda how: lambda x: core.reshape(x, how.shape), _reshaped, option="shape",
           behind=lambda nothing: None),
    _moves("transpose", lambda how: lambda x: core.transpose(x, how.attribute), _turned,
           words=lambda node, k: _ORDER if len(node.shape) > 1 else None, option="order",
           behind=lambda axes: (0, *_axes_behind(axes))),
    _moves("broadcast", lambda how: lambda x: core.broadcast_to(x, how.shape), _repeated,
           words=("B", "repeats entries"), option="shape", lanes=batch.repeated),
    _moves("flip", lambda how: lambda x: core.flip(x, how.attribute), _flipped, words=_ORDER,
           option="attribute", behind=_axes_behind),
    _moves("item", lambda how: lambda x: x[how.attribute],
           lambda how, operands: picked(how.attribute, operands[0][0], operands, basic=True).shape,
           words=_ROWS, option="index", behind=_index_behind),
    _moves("gather", _picked, lambda how, operands: picked(
        how.attribute, operands[0][0], operands).shape,
           words=_ROWS, option="index", lanes=batch.gathered),
    _moves("cast", lambda how: lambda x: core.cast(x, how.dtype), _converted,
           lambda how: lambda x: x, converts=True, behind=lambda nothing: None),
    _moves("place", lambda how: lambda x: core.place(x, how.attribute, how.shape), _put,
           words=_COLUMNS, move=_embedded, behind=_index_behind),
    _moves("assign", lambda how: lambda *x: core.assigned(x[0], filled(how.attribute, x), x[1]),
           _assigned_there, _replaced, operands=2, replaces=True, lanes=batch.assigned, option="index",
           words=lambda node, k: _COLUMNS if k else (
               "Z", "the identity, rows of what was replaced 0")),
    _moves("concatenate", _joined, _end_to_end, _beside, operands=None, lanes=batch.joined,
           words=lambda node, k: (f"C{k}", _COLUMNS[1])),
    GraphOperator("scatter", _scattered, _scattered_there, lanes=batch.scattered, words=_COLUMNS,
                  goes=lambda how, shape: _numbers(how.shape)[how.attribute]),
    _reduction("sum", core.sum, "add", to_number=("ones", "a row of ones"),
               words=lambda node, k: ("S", f"adds along axis {', '.join(map(str, node.attribute))}")),
    _reduction("prod", core.prod, "multiply", slopes=_others,
               to_number=("y / a", "a row: the product of the others")),
    _extreme("max", core.max, "maximum", 1),
    _extreme("min", core.min, "minimum", -1),
    _reduction("logsumexp", core.logsumexp, "logaddexp", to_number=("softmax(a)", "a row"),
               slopes=lambda apply, x, y, _: apply("exp", apply("subtract", x, y))),
    GraphOperator("matmul", lambda how: core.matmul, _product, operands=2, lanes=batch.multiplied,
                  words=("K", "a block for each matrix product")),
)}
