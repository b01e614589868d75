"""Shapes: the same entries in another order, joined, split and repeated.

Whatever NumPy does with views is composed of the core's reshape, transpose, flip, broadcast_to,
concatenate and basic indexing.
"""

import math
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from fastgrad._core import core

from ._create import along, cast, lift, lift_all, part
from ._dispatch import Tensor, as_array, axes_of, implements, refuse, values_of

__all__ = [
    "append", "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays",
    "broadcast_to", "column_stack", "concatenate", "dsplit", "dstack", "expand_dims", "flip",
    "fliplr", "flipud", "hsplit", "hstack", "matrix_transpose", "moveaxis", "ndim", "ravel",
    "repeat", "reshape", "roll", "rollaxis", "rot90", "shape", "size", "split", "squeeze", "stack",
    "swapaxes", "tile", "unstack", "vsplit", "vstack",
]

# ---- one array ------------------------------------------------------------------------------

@implements(np.shape)
def shape(a):
    """The lengths of the axes. As `numpy.shape`."""
    return lift(a).shape


@implements(np.ndim)
def ndim(a):
    """The number of axes. As `numpy.ndim`."""
    return lift(a).ndim


@implements(np.size)
def size(a, axis=None):
    """The number of entries, altogether or along axes. As `numpy.size`."""
    a = lift(a)
    if axis is None:
        return a.size
    return math.prod([a.shape[k] for k in axes_of("size", _as_tuple(axis), a.ndim)])


def _as_tuple(axis):
    """Several axes as a tuple, for functions that also take a list or an array of them."""
    return tuple(axis) if np.iterable(axis) else axis


def _order(name, a, order):
    """What `order` comes to for `a`: the axes as they are to be gone through, the slowest first."""
    forward = range(a.ndim)
    if order == "C":
        return forward
    if order not in ("F", "A", "K") or (order == "K" and name == "reshape"):
        raise ValueError(f"{name}: order must be one of 'C', 'F', 'A'"
                         f"{', or K' * (name != 'reshape')} (got {order!r})")
    if order == "F":
        return forward[::-1]
    if isinstance(a, Tensor):
        if a.ndim < 2:
            return forward
        # (NumPy's results lie as their operands do, Tensors in the order of their entries.)
        raise ValueError(f"{name}: order={order!r} goes by how NumPy's array lies in memory, which "
                         f"a Tensor does not tell{core.user_line()}; write order='C' or 'F'")
    if order == "K":
        return sorted(forward, key=lambda k: -abs(a.strides[k]))
    return forward[::-1] if a.flags.f_contiguous and not a.flags.c_contiguous else forward


@implements(np.reshape, views=True)
def reshape(a, /, shape, order="C", *, copy=None):
    """The same entries in another shape. As `numpy.reshape`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.reshape(x, (2, -1))[1, 0])(np.arange(4.0))
    array([0., 0., 1., 0.])
    """
    if not isinstance(a, Tensor):
        a = lift(a)
    if order != "C" and list(_order("reshape", a, order)) != list(range(a.ndim)):
        shape = tuple(shape) if np.iterable(shape) else (shape,)
        a = core.transpose(core.reshape(core.transpose(a), shape[::-1]))
    else:
        a = core.reshape(a, shape)
    return a.copy() if copy else a


@implements(np.ravel, views=True)
def ravel(a, order="C"):
    """All entries along one axis. As `numpy.ravel`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.ravel(x)[1])(np.ones((2, 2)))
    array([[0., 1.],
           [0., 0.]])
    """
    a = lift(a)
    return core.ravel(a if order == "C" else core.transpose(a, _order("ravel", a, order)))


@implements(np.matrix_transpose, views=True)
def matrix_transpose(x, /):
    """The last two axes exchanged. As `numpy.matrix_transpose`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.matrix_transpose(x)[0, 1])(np.ones((2, 2)))
    array([[0., 0.],
           [1., 0.]])
    """
    x = lift(x)
    if x.ndim < 2:
        raise ValueError("matrix_transpose: the array must be at least 2-dimensional, but its "
                         f"shape is {x.shape}")
    return swapaxes(x, -1, -2)


@implements(np.swapaxes, views=True)
def swapaxes(a, axis1, axis2):
    """Two axes exchanged. As `numpy.swapaxes`.

    Examples
    --------
    >>> fnp.swapaxes(np.ones((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    a = lift(a)
    axes = list(range(a.ndim))
    axis1 = normalize_axis_index(axis1, a.ndim, "swapaxes: axis1")
    axis2 = normalize_axis_index(axis2, a.ndim, "swapaxes: axis2")
    axes[axis1], axes[axis2] = axis2, axis1
    return core.transpose(a, axes)


@implements(np.moveaxis, views=True)
def moveaxis(a, source, destination):
    """Axes moved to other places, the rest in their order. As `numpy.moveaxis`.

    Examples
    --------
    >>> fnp.moveaxis(np.ones((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    a = lift(a)
    source = axes_of("moveaxis: source", _as_tuple(source), a.ndim)
    destination = axes_of("moveaxis: destination", _as_tuple(destination), a.ndim)
    if len(source) != len(destination):
        raise ValueError("moveaxis: `source` and `destination` arguments must have the same number "
                         f"of elements, but have {len(source)} and {len(destination)}")
    axes = [axis for axis in range(a.ndim) if axis not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        axes.insert(place, axis)
    return core.transpose(a, axes)


@implements(np.rollaxis, views=True)
def rollaxis(a, axis, start=0):
    """An axis moved before another one. As `numpy.rollaxis`; `moveaxis` is easier to read.

    Examples
    --------
    >>> fnp.rollaxis(np.ones((2, 3, 4)), 2).shape
    (4, 2, 3)
    """
    a = lift(a)
    axis = normalize_axis_index(axis, a.ndim, "rollaxis")
    start = start if start == a.ndim else normalize_axis_index(start, a.ndim, "rollaxis: start")
    # NumPy works out the order of the axes.
    positions = np.rollaxis(np.empty(range(a.ndim)), axis, start).shape
    return core.transpose(a, positions)


@implements(np.squeeze, views=True)
def squeeze(a, axis=None):
    """Without axes of length 1. As `numpy.squeeze`.

    Examples
    --------
    >>> fnp.squeeze(np.ones((1, 3, 1))).shape
    (3,)
    """
    a = lift(a)
    if axis is None:
        return core.reshape(a, [n for n in a.shape if n != 1])
    axes = axes_of("squeeze", axis, a.ndim)
    if any(a.shape[k] != 1 for k in axes):
        raise ValueError("squeeze: cannot select an axis to squeeze out which has size not equal "
                         f"to one: axis {axis} of the shape {a.shape}; to pick an entry, index")
    return core.reshape(a, [n for k, n in enumerate(a.shape) if k not in axes])


@implements(np.expand_dims, views=True)
def expand_dims(a, axis):
    """With new axes of length 1. As `numpy.expand_dims`.

    Examples
    --------
    >>> fnp.expand_dims(np.ones(3), (0, -1)).shape
    (1, 3, 1)
    """
    a = lift(a)
    axis = tuple(axis) if isinstance(axis, (list, tuple)) else (axis,)
    rank = a.ndim + len(axis)
    axes = axes_of("expand_dims", axis, rank)
    lengths = iter(a.shape)
    return core.reshape(a, [1 if k in axes else next(lengths) for k in range(rank)])


@implements(np.broadcast_to, views=True)
def broadcast_to(array, shape, subok=False):
    """Repeated along new axes and axes of length 1. As `numpy.broadcast_to`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.broadcast_to(x, (5, 2))))(np.ones(2))
    array([5., 5.])
    """
    return core.broadcast_to(lift(array), shape)


@implements(np.broadcast_arrays, views=True)
def broadcast_arrays(*args, subok=False):
    """Arrays brought to one shape. As `numpy.broadcast_arrays`; a tuple.

    Examples
    --------
    >>> [a.shape for a in fnp.broadcast_arrays(np.ones(3), np.ones((2, 1)))]
    [(2, 3), (2, 3)]
    """
    args = lift_all(args)
    common = np.broadcast_shapes(*(a.shape for a in args))
    return tuple(a if a.shape == common else core.broadcast_to(a, common) for a in args)


def _with_one_axis(a):
    return a if a.ndim else core.reshape(a, (1,))


def _with_two_axes(a):
    return a if a.ndim >= 2 else core.reshape(a, (1, a.size))


def _with_three_axes(a):
    return (a if a.ndim >= 3 else core.reshape(a, (*a.shape, 1)) if a.ndim == 2
            else core.reshape(a, (1, a.size, 1)))


def _at_least(numpy_function, with_axes, summary):
    def rule(*arys):
        results = tuple(map(with_axes, lift_all(arys)))
        return results[0] if len(results) == 1 else results

    rule.__name__ = rule.__qualname__ = numpy_function.__name__
    rule.__doc__ = f"{summary} As `numpy.{rule.__name__}`."
    return implements(numpy_function, views=True)(rule)


atleast_1d = _at_least(np.atleast_1d, _with_one_axis, "Scalars as arrays with one axis.")
atleast_2d = _at_least(np.atleast_2d, _with_two_axes, "With at least two axes, new ones in front.")
atleast_3d = _at_least(np.atleast_3d, _with_three_axes, "With at least three axes.")


@implements(np.flip, views=True)
def flip(m, axis=None):
    """Reversed along all axes, or some. As `numpy.flip`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.flip(x)[0])(np.ones(3))
    array([0., 0., 1.])
    """
    return core.flip(lift(m), axis)


@implements(np.fliplr, views=True)
def fliplr(m):
    """Reversed along the second axis. As `numpy.fliplr`."""
    m = lift(m)
    if m.ndim < 2:
        raise ValueError(f"fliplr: input must be >= 2-d, but its shape is {m.shape}")
    return core.flip(m, 1)


@implements(np.flipud, views=True)
def flipud(m):
    """Reversed along the first axis. As `numpy.flipud`."""
    m = lift(m)
    if m.ndim < 1:
        raise ValueError("flipud: input must be >= 1-d, but is a scalar")
    return core.flip(m, 0)


@implements(np.rot90, views=True)
def rot90(m, k=1, axes=(0, 1)):
    """Turned by k right angles in the plane of two axes. As `numpy.rot90`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.rot90(x)[0, 0])(np.ones((2, 2)))
    array([[0., 1.],
           [0., 0.]])
    """
    m = lift(m)
    axes = tuple(axes)
    if len(axes) != 2:
        raise ValueError(f"rot90: len(axes) must be 2, not {len(axes)}")
    if axes[0] == axes[1] or abs(axes[0] - axes[1]) == m.ndim:
        raise ValueError(f"rot90: axes must be different, not {axes}")
    if not all(-m.ndim <= axis < m.ndim for axis in axes):
        raise ValueError(f"rot90: axes={axes} out of range for the shape {m.shape}")
    k %= 4
    if k == 2:
        return core.flip(m, axes)
    if k == 1:
        return swapaxes(core.flip(m, axes[1]), *axes)
    return core.flip(swapaxes(m, *axes), axes[1]) if k == 3 else m


@implements(np.roll)
def roll(a, shift, axis=None):
    """Entries moved along axes, what leaves at the end entering at the front. As `numpy.roll`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.roll(x, 1)[0])(np.ones(3))
    array([0., 0., 1.])
    """
    a = lift(a)
    if axis is None:
        return core.reshape(roll(core.reshape(a, (a.size,)), shift, 0), a.shape)
    axes = [normalize_axis_index(k, a.ndim, "roll")
            for k in (axis if np.iterable(axis) else (axis,))]
    pairs = ((shift, axes[0]),) if type(shift) is int is type(axis) else _pairs(shift, axes)
    moved = a
    for places, k in pairs:
        places %= a.shape[k] or 1
        if places:
            moved = core.concatenate([part(moved, k, slice(-places, None)),
                                      part(moved, k, slice(None, -places))], k)
    return a.copy() if moved is a else moved


def _pairs(shift, axes):
    pairs = np.broadcast(shift, axes)
    if pairs.ndim > 1:
        raise ValueError("roll: 'shift' and 'axis' should be scalars or 1D sequences")
    return [(int(places), int(k)) for places, k in pairs]


# ---- several arrays -------------------------------------------------------------------------

@implements(np.concatenate)
def concatenate(arrays, /, axis=0, out=None, *, dtype=None, casting="same_kind"):
    """Arrays joined along an axis, or all their entries (axis None). As `numpy.concatenate`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.concatenate([x, 3 * x]) @ np.ones(4))(np.ones(2))
    array([4., 4.])
    """
    refuse("concatenate", out)
    if isinstance(arrays, Tensor):
        arrays = unstack(arrays)
    return _stacked("concatenate", [lift(a) for a in arrays], axis, dtype, casting)


def _castable(arrays, dtype, casting):
    """Raise TypeError where NumPy would not cast one of the arrays to the dtype of the result."""
    if casting == "same_kind" and dtype is None:
        return
    dtype = np.result_type(*[a.dtype for a in arrays] if dtype is None else [dtype])
    for a in arrays:
        if not np.can_cast(a.dtype, dtype, casting):
            raise TypeError(f"Cannot cast array data from {a.dtype!r} to {dtype!r} according to "
                            f"the rule {casting!r}")


def _stacked(name, arrays, axis, dtype=None, casting="same_kind"):
    """The arrays joined, for a function whose name errors shall have."""
    _castable(arrays, dtype, casting)
    try:
        return cast(name, core.concatenate(arrays, axis), dtype)
    except ValueError as error:
        raise type(error)(str(error).replace("concatenate:", f"{name}:", 1)) from None


@implements(np.stack)
def stack(arrays, axis=0, out=None, *, dtype=None, casting="same_kind"):
    """Arrays of one shape joined along a new axis. As `numpy.stack`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.stack([x, x * x]).sum())(3.0)
    7.0
    """
    refuse("stack", out)
    arrays = [lift(a) for a in (unstack(arrays) if isinstance(arrays, Tensor) else arrays)]
    if not arrays:
        raise ValueError("stack: need at least one array to stack")
    _castable(arrays, dtype, casting)
    before = arrays[0].shape
    if any(a.shape != before for a in arrays):
        raise ValueError("stack: all input arrays must have the same shape, but there are "
                         f"{', '.join(map(str, sorted({a.shape for a in arrays})))}; "
                         "fnp.concatenate joins along an axis they have")
    axis = normalize_axis_index(axis, len(before) + 1, "stack")
    if before:
        expanded = (*before[:axis], 1, *before[axis:])
        result = core.concatenate([core.reshape(a, expanded) for a in arrays], axis)
    else:
        result = core.pack(arrays)
    return cast("stack", result, dtype)


@implements(getattr(np, "unstack", None), views=True)
def unstack(x, /, *, axis=0):
    """The parts along an axis, that axis left out, as a tuple. As `numpy.unstack`.

    Examples
    --------
    >>> [part.shape for part in fnp.unstack(np.ones((2, 3)))]
    [(3,), (3,)]
    """
    x = lift(x)
    if x.ndim == 0:
        raise ValueError("unstack: the array must be at least 1-d, but is a scalar")
    axis = normalize_axis_index(axis, x.ndim, "unstack")
    return tuple([part(x, axis, k) for k in range(x.shape[axis])])


@implements(np.vstack)
def vstack(tup, *, dtype=None, casting="same_kind"):
    """Arrays joined along the first axis, vectors as rows. As `numpy.vstack`.

    Examples
    --------
    >>> fnp.vstack([np.ones(2), np.zeros(2)]).shape
    (2, 2)
    """
    return _stacked("vstack", [_with_two_axes(lift(a)) for a in tup], 0, dtype, casting)


@implements(np.hstack)
def hstack(tup, *, dtype=None, casting="same_kind"):
    """Arrays joined along the second axis, vectors along their only one. As `numpy.hstack`.

    Examples
    --------
    >>> fnp.hstack([np.ones(2), np.zeros(1)])
    array([1., 1., 0.])
    """
    arrays = [_with_one_axis(lift(a)) for a in tup]
    return _stacked("hstack", arrays, int(not arrays or arrays[0].ndim != 1), dtype, casting)


@implements(np.dstack)
def dstack(tup):
    """Arrays joined along the third axis. As `numpy.dstack`.

    Examples
    --------
    >>> fnp.dstack([np.ones(2), np.zeros(2)]).shape
    (1, 2, 2)
    """
    return _stacked("dstack", [_with_three_axes(lift(a)) for a in tup], 2)


@implements(np.column_stack)
def column_stack(tup):
    """Vectors as the columns of a matrix, matrices beside each other. As `numpy.column_stack`.

    Examples
    --------
    >>> fnp.column_stack([np.ones(2), np.zeros(2)])
    array([[1., 0.],
           [1., 0.]])
    """
    arrays = [lift(a) for a in tup]
    arrays = [core.reshape(a, (a.size, 1)) if a.ndim < 2 else a for a in arrays]
    return _stacked("column_stack", arrays, 1)


@implements(np.append)
def append(arr, values, axis=None):
    """Values joined to the end. As `numpy.append`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.append(np.ones(2), x)[-1])(5.0)
    1.0
    """
    return _stacked("append", [lift(arr), lift(values)], axis)


@implements(np.array_split, views=True)
def array_split(ary, indices_or_sections, axis=0):
    """Parts along an axis, of lengths as equal as can be. As `numpy.array_split`; a list.

    Examples
    --------
    >>> [part.size for part in fnp.array_split(np.ones(5), 2)]
    [3, 2]
    """
    return _parts("array_split", lift(ary), indices_or_sections, axis)


def _parts(name, ary, indices_or_sections, axis):
    axis = normalize_axis_index(axis, ary.ndim, name)
    length = ary.shape[axis]
    try:
        ends = [operator.index(k) for k in indices_or_sections]
    except TypeError:
        sections = int(indices_or_sections)
        if sections <= 0:
            raise ValueError(f"{name}: number sections must be larger than 0.") from None
        each, extras = divmod(length, sections)
        ends = [each * k + min(k, extras) for k in range(1, sections)]
    return [part(ary, axis, slice(start, end))
            for start, end in zip([0, *ends], [*ends, length], strict=True)]


@implements(np.split, views=True)
def split(ary, indices_or_sections, axis=0):
    """Parts along an axis, of equal lengths or between given indices. As `numpy.split`; a list.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.split(x, 2)[1]))(np.ones(4))
    array([0., 0., 1., 1.])
    """
    return _equal_parts("split", lift(ary), indices_or_sections, axis)


def _equal_parts(name, ary, indices_or_sections, axis):
    axis = normalize_axis_index(axis, ary.ndim, name)
    if not hasattr(indices_or_sections, "__len__") and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"{name}: array split does not result in an equal division: "
                         f"{ary.shape[axis]} entries along axis {axis} in {indices_or_sections} "
                         "parts; fnp.array_split makes parts of unequal lengths")
    return _parts(name, ary, indices_or_sections, axis)


def _splits_along(axis, name, least):
    def rule(ary, indices_or_sections):
        ary = lift(ary)
        if ary.ndim < least:
            raise ValueError(f"{name} only works on arrays of {least} or more dimensions, but the "
                             f"shape is {ary.shape}")
        return _equal_parts(name, ary, indices_or_sections, min(axis, ary.ndim - 1))

    rule.__name__ = rule.__qualname__ = name
    rule.__doc__ = (f"Parts along the {('first', 'second', 'third')[axis]} axis. "
                    f"As `numpy.{name}`; a list.")
    return implements(getattr(np, name), views=True)(rule)


vsplit = _splits_along(0, "vsplit", 2)
hsplit = _splits_along(1, "hsplit", 1)
dsplit = _splits_along(2, "dsplit", 3)


# ---- repeated -------------------------------------------------------------------------------

def _spread(a, paired, shape):
    """`a` broadcast, then in another shape: memory of its own, as it may be written to."""
    result = core.reshape(core.broadcast_to(a, paired), shape)
    return core.own(result) if isinstance(result, Tensor) else result.copy()


@implements(np.tile)
def tile(A, reps):
    """The array repeated like tiles. As `numpy.tile`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.tile(x, (3, 2))))(np.ones(2))
    array([6., 6.])
    """
    A = lift(A)
    reps = [operator.index(r) for r in (reps if np.iterable(reps) else (reps,))]
    rank = max(A.ndim, len(reps))
    lengths = [1] * (rank - A.ndim) + list(A.shape)
    reps = [1] * (rank - len(reps)) + reps
    paired = [n for pair in zip(reps, lengths, strict=True) for n in pair]
    spread = core.reshape(A, [n for length in lengths for n in (1, length)])
    return _spread(spread, paired, [r * n for r, n in zip(reps, lengths, strict=True)])


@implements(np.repeat)
def repeat(a, repeats, axis=None):
    """Each entry repeated, as often as the others or each its own number. As `numpy.repeat`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.repeat(x, [1, 2, 3])))(np.ones(3))
    array([1., 2., 3.])
    """
    a, axis = along("repeat", lift(a), axis)
    core.by_value(repeats)
    repeats = as_array(values_of(repeats))
    before, length, after = a.shape[:axis], a.shape[axis], a.shape[axis + 1:]
    if repeats.size == 1 and repeats.dtype.kind in "iu" and repeats.item() >= 0:
        times = repeats.item()
        spread = core.reshape(a, (*before, length, 1, *after))
        return _spread(spread, (*before, length, times, *after),
                       (*before, length * times, *after))
    index = core.vouch(np.repeat(np.arange(length), repeats))
    return part(a, axis, index)
