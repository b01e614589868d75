"""Reductions: everything along axes beyond the core's sum, prod, max, min and logsumexp.

Inside this module `max` and `min` are NumPy's.
"""

import builtins
import functools
import math

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from fastgrad._core import core

from ._create import cast, lift, part
from ._dispatch import VALUES, Tensor, axes_of, evaluated, implements, kind_of, refuse
from ._index import diagonals_of
from ._shape import broadcast_to

__all__ = ["average", "diff", "max", "mean", "min", "prod", "ptp", "std", "trace", "trapezoid",
           "var"]

_add, _subtract, _multiply, _divide, _power, _square, _sqrt, _abs = (
    core.functions[name] for name in "add subtract multiply divide power square sqrt abs".split())
_log2, _exp2, _trunc, _clip, _equal, _where = (
    core.functions[name] for name in "log2 exp2 trunc clip equal where".split())


def _count(name, a, axis):
    """How many entries of `a` one entry of the result is made of; errors name the function."""
    if axis is None:
        return a.size
    return math.prod([a.shape[k] for k in axes_of(name, axis, a.ndim)])


@implements(np.mean)
def mean(a, axis=None, dtype=None, out=None, keepdims=False, *, where=True):
    """Arithmetic mean along axes. As `numpy.mean`.

    Examples
    --------
    >>> fg.grad(fnp.mean)(np.ones(4))
    array([0.25, 0.25, 0.25, 0.25])
    """
    refuse("mean", out)
    a = cast("mean", lift(a), dtype)
    if where is not True:
        return _divide(core.sum(core.only("mean", a, where, 0.0), axis=axis, keepdims=keepdims),
                       _count_where(a, axis, keepdims, where))
    count = float(_count("mean", a, axis))
    return _divide(core.sum(a, axis=axis, keepdims=keepdims), count)


def _count_where(a, axis, keepdims, where):
    """How many entries of `a` each entry of the result is made of, in the dtype of `a`."""
    counts = evaluated(np.sum, (broadcast_to(where, a.shape),),
                       {"axis": axis, "keepdims": keepdims})
    return core.cast(counts, a.dtype)


@implements(np.var)
def var(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None,
        correction=None):
    """Variance along axes, with `ddof` (or `correction`) subtracted from the count.

    As `numpy.var`, in two passes: the mean first, then the mean of the squared deviations.

    Examples
    --------
    >>> fg.grad(fnp.var)(np.array([1.0, 3.0]))
    array([-1.,  1.])
    """
    refuse("var", out)
    deviations, count = _deviations("var", a, axis, dtype, ddof, keepdims, where, mean, correction)
    return _divide(core.sum(_square(deviations), axis=axis, keepdims=keepdims), count)


def _deviations(name, a, axis, dtype, ddof, keepdims, where, mean, correction):
    """The deviations from the mean, 0 where a mask leaves an entry out, and what the sum of their
    squares is divided by."""
    if correction is not None:
        if ddof != 0:
            raise ValueError(f"{name}: ddof and correction can't be provided simultaneously.")
        ddof = correction
    a = cast(name, lift(a), dtype)
    if where is not True:
        known = core.only(name, a, where, 0.0)
        count = _count_where(a, axis, True, where)
        if mean is None:
            mean = _divide(core.sum(known, axis=axis, keepdims=True), count)
        left = count if keepdims else _count_where(a, axis, False, where)
        return (core.only(name, _subtract(a, mean), where, 0.0),
                core.functions["maximum"](left - ddof, 0))
    count = _count(name, a, axis)
    if mean is None:
        mean = _divide(core.sum(a, axis=axis, keepdims=True), float(count))
    return _subtract(a, mean), float(builtins.max(count - ddof, 0))


@implements(np.std)
def std(a, axis=None, dtype=None, out=None, ddof=0, keepdims=False, *, where=True, mean=None,
        correction=None):
    """Standard deviation along axes; where it vanishes, the gradient is 0. As `numpy.std`.

    Examples
    --------
    >>> fg.grad(fnp.std)(np.array([1.0, 3.0]))
    array([-0.5,  0.5])
    >>> fg.grad(fnp.std)(np.ones(2))
    array([0., 0.])
    """
    refuse("std", out)
    deviations, count = _deviations("std", a, axis, dtype, ddof, keepdims, where, mean, correction)
    return root_of_powers(deviations, 2, axis, keepdims, count)


# log2 of sums of powers that neither overflow nor underflow, with room for the derivatives, which
# divide by their powers, and for sums of as many entries as there may be; and that of the largest
# power of two by which anything is multiplied.
_ROOM = {"d": (700, 1022), "f": (80, 126)}


def root_of_powers(x, order, axis, keepdims, count=None):
    """(sum(abs(x)**order) / count)**(1 / order) along axes: the norms and the standard deviation.

    Nothing overflows or underflows on the way, and where all entries are 0 (one, of negative
    orders) every derivative is 0: not that of the root, which is infinite. What this costs is left
    out where the sum tells that there is no need. As it tells that of these values alone, a history
    or a program guards the decision; where lanes or steps share what is recorded, each scales its
    own entries, always.
    """
    low, high, room, step, largest = _bounds(order, x.dtype.char)
    total = _sum_of_powers(x, order, axis, keepdims)
    deciding = core.deciding()
    if deciding == 0 and core.within(total, low, high) or (
            not total.size or type(count) is float and count == 0):
        return _root(total, order, count)
    constant = x.detach() if x.requires_grad else x
    under = total
    if deciding == 1 and not core.recording_program():
        if _moderate(total, room):
            return _root(total, order, count)
    elif deciding < 2:
        zero = _vanish(constant, order, axis, keepdims, count)
        total = _where(1.0, total, zero)
        if _moderate(total, room) if deciding else core.within(total, low, high):
            return _rooted(_where(0.0, _root(total, order, count), zero), under, order, count)
    aligned = keepdims or axis is not None      # else a number, which meets both alike
    # Of negative orders the slope of the root is as small as 1 / scale: close to 1 leaves most
    # room.
    scale = _scale(constant, order, axis, aligned, step if order > 0 else 1.0, largest)
    x = _multiply(x, scale)
    zero = _vanish(x.detach() if x.requires_grad else x, order, axis, keepdims, count)
    total = _where(1.0, _sum_of_powers(x, order, axis, keepdims), zero)
    root = _divide(_where(0.0, _root(total, order, count), zero),
                   core.reshape(scale, total.shape) if aligned and not keepdims else scale)
    return _rooted(root, under, order, count)


@functools.lru_cache(64)
def _bounds(order, dtype):
    room, largest = _ROOM[dtype]
    step = room / builtins.max(abs(order), abs(order - 1))      # the slopes have room, too
    room = abs(order) * step
    return 2.0**-room, 2.0**room, room, step, largest


def _sum_of_powers(x, order, axis, keepdims):
    # By a sum, not a product of vectors: a sum keeps to the strong zero.
    return core.sum(_square(x) if order == 2 else _power(_abs(x), order), axis=axis,
                    keepdims=keepdims)


def _root(total, order, count):
    if count is not None:
        total = _divide(total, count)
    return _sqrt(total) if order == 2 else _power(total, 1.0 / order)


def _rooted(root, under, order, count):
    """The root, whose even powers have the derivatives of what stands under it."""
    if order != 2:
        return root
    return core.root_of(root, under if count is None else _divide(under, count))


def _moderate(total, room):
    """The same as `within`, as a decision that recordings see."""
    return core.decided_all(_abs(_log2(total)) < room)


def _vanish(x, order, axis, keepdims, count):
    """Where the root of the powers is 0: not where it is 0 / 0."""
    size = _abs(x)
    size = (core.min(size, axis, keepdims) if order < 0 else
            core.sum(size, axis=axis, keepdims=keepdims))
    if count is not None and type(count) is not float:
        size = _where(size, 1.0, count != 0)
    return _equal(size, 0.0)


def _scale(x, order, axis, keepdims, step, largest):
    """Powers of two that take the entries to between 2**-step and 2**step: 1 where they are there.
    A step of 350 leaves a second tangent, a square of these, in range to 1e-200."""
    if step > 1:
        step = float(int(step))
    size = _abs(x)
    if order == 2:
        size = core.sum(size, axis=axis, keepdims=keepdims)     # near enough, and faster than max
    else:
        size = (core.max if order > 0 else core.min)(size, axis, keepdims)
    most = largest // step
    return _exp2(_multiply(_clip(_trunc(_multiply(_log2(size), -1.0 / step)), -most, most), step))


@implements(np.prod)
def prod(a, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=True):
    """Product along axes; the gradient is exact also beside zeros. As `numpy.prod`.

    Examples
    --------
    >>> fg.grad(fnp.prod)(np.array([0.0, 2.0, 3.0]))
    array([6., 0., 0.])
    """
    refuse("prod", out)
    a = cast("prod", lift(a), dtype)
    result = core.prod(a if where is True else core.only("prod", a, where, 1.0), axis, keepdims)
    return result if initial is None else _multiply(result, initial)


def _extreme(name, a, axis, out, keepdims, initial, where):
    """Maximum or minimum of the entries that a mask leaves, and of a number."""
    refuse(name, out)
    if initial is None:
        raise ValueError(f"{name}: reduction operation '{name}imum' does not have an identity, so "
                         "to use a where mask one has to specify 'initial'")
    a = core.only(name, lift(a), where, initial)
    if a.size == 0:
        nothing = np.zeros(a.shape, a.dtype)
        return core.tensor(getattr(np, name)(nothing, axis=axis, keepdims=keepdims,
                                             initial=initial))
    return core.functions[f"{name}imum"](getattr(core, name)(a, axis, keepdims), initial)


@implements(np.max, np.amax)
def max(a, axis=None, out=None, keepdims=False, initial=None, where=True):
    """Maximum along axes; entries that tie share the gradient evenly. As `numpy.max`.

    Examples
    --------
    >>> fg.grad(fnp.max)(np.array([1.0, 2.0, 2.0]))
    array([0. , 0.5, 0.5])
    """
    if out is None is initial and where is True:
        return core.max(lift(a), axis, keepdims)
    return _extreme("max", a, axis, out, keepdims, initial, where)


@implements(np.min, np.amin)
def min(a, axis=None, out=None, keepdims=False, initial=None, where=True):
    """Minimum along axes; entries that tie share the gradient evenly. As `numpy.min`.

    Examples
    --------
    >>> fg.grad(fnp.min)(np.array([1.0, 2.0, 2.0]))
    array([1., 0., 0.])
    """
    if out is None is initial and where is True:
        return core.min(lift(a), axis, keepdims)
    return _extreme("min", a, axis, out, keepdims, initial, where)


@implements(np.ptp)
def ptp(a, axis=None, out=None, keepdims=False):
    """Maximum minus minimum along axes. As `numpy.ptp`.

    Examples
    --------
    >>> fg.grad(fnp.ptp)(np.array([1.0, 2.0, 5.0]))
    array([-1.,  0.,  1.])
    """
    refuse("ptp", out)
    a = lift(a)
    axis = axes_of("ptp", axis, a.ndim)
    return _subtract(core.max(a, axis, keepdims), core.min(a, axis, keepdims))


@implements(np.average)
def average(a, axis=None, weights=None, returned=False, *, keepdims=False):
    """Mean with weights, which may be Tensors. As `numpy.average`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.average(x, weights=[1.0, 3.0]))(np.ones(2))
    array([0.25, 0.75])
    """
    a = lift(a)
    if axis is not None:
        axis = axes_of("average", tuple(axis) if isinstance(axis, list) else axis, a.ndim)
    if weights is None:
        result = mean(a, axis, keepdims=keepdims)
        total = core.vouch(np.asarray(_count("average", a, axis), result.dtype))
    else:
        weights = _matching(lift(weights), a, axis)
        # Promoted before the sum, as NumPy does: integers and float32 add up in the result's dtype.
        dtype = np.result_type(a.dtype, weights.dtype, *["f8"] * (a.dtype.kind in "biu"))
        weights = (weights.astype(dtype) if not isinstance(weights, Tensor) or
                   weights.dtype.kind != "f" else cast("average", weights, dtype))
        total = core.sum(core.broadcast_to(weights, a.shape), axis=axis, keepdims=keepdims)
        if bool(evaluated(np.any, (total == 0,), {})):
            raise ZeroDivisionError("average: weights sum to zero, can't be normalized")
        result = _divide(core.sum(_multiply(a, weights), axis=axis, keepdims=keepdims), total)
    if returned:
        return result, core.broadcast_to(total, result.shape).copy()
    return result


def _matching(weights, a, axis):
    """The weights in a shape that broadcasts to that of `a`."""
    if weights.shape == a.shape:
        return weights
    if axis is None:
        raise TypeError("average: axis must be specified when shapes of a and weights differ, here "
                        f"{a.shape} and {weights.shape}")
    if weights.shape != tuple(a.shape[k] for k in axis):
        raise ValueError(f"average: the shape {weights.shape} of the weights must be consistent "
                         f"with the shape {a.shape} of a along the axis {axis}")
    weights = core.transpose(weights, [int(k) for k in np.argsort(axis)])
    return core.reshape(weights, [n if k in axis else 1 for k, n in enumerate(a.shape)])


@implements(np.trace)
def trace(a, offset=0, axis1=0, axis2=1, dtype=None, out=None):
    """The sum along the diagonals. As `numpy.trace`.

    Examples
    --------
    >>> fg.grad(fnp.trace)(np.ones((2, 2)))
    array([[1., 0.],
           [0., 1.]])
    """
    refuse("trace", out)
    diagonals = diagonals_of("trace", lift(a), offset, axis1, axis2)
    return core.sum(cast("trace", diagonals, dtype), axis=-1)


@implements(np.diff, views=True)
def diff(a, n=1, axis=-1, prepend=None, append=None):
    """Differences between neighbours along an axis, n times. As `numpy.diff`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.diff(x)[0])(np.array([1.0, 2.0, 4.0]))
    array([-1.,  1.,  0.])
    """
    if n == 0:
        return lift(a)
    if kind_of((a, prepend, append)) == VALUES:
        ends = {"prepend": prepend, "append": append}
        return evaluated(np.diff, (a, n, axis),
                         {name: end for name, end in ends.items() if end is not None})
    a = lift(a)
    if n < 0:
        raise ValueError(f"diff: order must be non-negative but got {n!r}")
    if a.ndim == 0:
        raise ValueError("diff requires input that is at least one dimensional")
    axis = normalize_axis_index(axis, a.ndim, "diff")
    one = (*a.shape[:axis], 1, *a.shape[axis + 1:])
    ends = [end if end is None or lift(end).ndim else core.broadcast_to(lift(end), one)
            for end in (prepend, append)]
    if prepend is not None or append is not None:
        pieces = [lift(piece) for piece in (ends[0], a, ends[1]) if piece is not None]
        a = core.concatenate(pieces, axis)
    for _ in range(n):
        a = _subtract(part(a, axis, slice(1, None)), part(a, axis, slice(None, -1)))
    return a


@implements(np.trapezoid)
def trapezoid(y, x=None, dx=1.0, axis=-1):
    """Integral by the trapezoidal rule. As `numpy.trapezoid`.

    Examples
    --------
    >>> fg.grad(fnp.trapezoid)(np.ones(3))
    array([0.5, 1. , 0.5])
    """
    y = lift(y)
    axis = normalize_axis_index(axis, y.ndim, "trapezoid")
    if x is not None:
        x = lift(x)
        dx = diff(x, axis=axis if x.ndim > 1 else -1)
        if x.ndim == 1:
            dx = core.reshape(dx, [-1 if k == axis else 1 for k in range(y.ndim)])
    pairs = _add(part(y, axis, slice(1, None)), part(y, axis, slice(None, -1)))
    return core.sum(_divide(_multiply(dx, pairs), 2.0), axis=axis)
