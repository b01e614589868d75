"""Entries picked by position: take, diagonals, triangles, sorted order, padding.

Where NumPy only moves entries, the rule asks NumPy: its function, applied to the numbers of the
entries, tells where each of them goes, for every option and with NumPy's own errors.
"""

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from fastgrad._core import core
from fastgrad.numpy._plain import flatnonzero

from ._create import along, cast, lift, lift_all, part
from ._dispatch import (
    Tensor,
    axes_of,
    evaluated,
    implements,
    refuse,
    register,
    values_of,
    wrapped,
)

__all__ = [
    "compress", "delete", "diag", "diagflat", "diagonal", "extract", "pad", "partition", "sort",
    "take", "take_along_axis", "tril", "triu",
]

_where = core.functions["where"]


def _picked(a, numpy_function, *args, **kwargs):
    """What NumPy's function does to `a`, done by picking entries."""
    numbers = core.vouch(numpy_function(np.arange(a.size).reshape(a.shape), *args, **kwargs))
    return core.getitem(core.reshape(a, (a.size,)), numbers)


def _picked_or(fill, a, numpy_function, *args, **kwargs):
    """The same for a function that puts `fill` where no entry goes; NumPy would put 0 there."""
    numbers = core.vouch(numpy_function(np.arange(1, a.size + 1).reshape(a.shape), *args, **kwargs))
    return core.getitem(core.concatenate([fill, core.reshape(a, (a.size,))]), numbers)


@implements(np.take)
def take(a, indices, axis=None, out=None, mode="raise"):
    """Entries at indices along an axis; repeated ones add up in the gradient. As `numpy.take`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.take(x, [0, 0, 2])))(np.ones(3))
    array([2., 0., 1.])
    """
    refuse("take", out)
    a, indices = lift(a), lift(indices)
    if not isinstance(indices, Tensor):
        indices = indices.astype(np.intp, copy=False)
    a, axis = along("take", a, axis)
    if mode != "raise":
        # NumPy knows the modes and their errors.
        indices = evaluated(np.take, (np.arange(a.shape[axis]), indices), {"mode": mode})
    return part(a, axis, indices)


@implements(np.take_along_axis)
def take_along_axis(arr, indices, axis=-1):
    """Entries at indices of their own for each line along an axis. As `numpy.take_along_axis`.

    Examples
    --------
    >>> x = np.array([[3.0, 1.0], [2.0, 5.0]])
    >>> order = np.argsort(x, axis=1)
    >>> fg.grad(lambda x: fnp.sum(fnp.take_along_axis(x, order, axis=1)[:, 0]))(x)
    array([[0., 1.],
           [1., 0.]])
    """
    arr, indices = lift(arr), lift(indices)
    if axis is None and indices.ndim != 1:
        raise ValueError("take_along_axis: with axis=None, `indices` must have one axis, but have "
                         f"the shape {indices.shape}")
    arr, axis = along("take_along_axis", arr, axis)
    if indices.dtype.kind not in "iu":
        raise IndexError("take_along_axis: `indices` must be an integer array, but are "
                         f"{indices.dtype}")
    if indices.ndim != arr.ndim:
        raise ValueError("take_along_axis: `indices` and `arr` must have the same number of "
                         f"dimensions, but have the shapes {indices.shape} and {arr.shape}")
    index = [core.vouch(places) for places in np.ogrid[tuple(map(slice, arr.shape))]]
    index[axis] = indices
    return core.getitem(arr, tuple(index))


@implements(np.diagonal, views=True)
def diagonal(a, offset=0, axis1=0, axis2=1):
    """The diagonals of the matrices in two axes, along the last axis. As `numpy.diagonal`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.diagonal(x, 1)))(np.ones((2, 2)))
    array([[0., 1.],
           [0., 0.]])
    """
    return diagonals_of("diagonal", lift(a), offset, axis1, axis2)


def diagonals_of(name, a, offset, axis1, axis2):
    """The diagonals for a function whose name errors shall have: a view that is read-only."""
    if a.ndim < 2:
        raise ValueError(f"{name}: an array of at least two axes is needed, not of the shape "
                         f"{a.shape}")
    return _seen(a, np.diagonal, offset, *axes_of(name, (axis1, axis2), a.ndim))


def diagonals_seen(a):
    """The diagonals of the last two axes, as a view that may be written to."""
    return _seen(a, np.diagonal, 0, -2, -1, readonly=False)


def _seen(a, numpy_function, *args, readonly=True):
    """What NumPy's function shows of `a`, as a view."""
    if not isinstance(a, Tensor):
        return _picked(a, numpy_function, *args)
    return core.picked_view(a, numpy_function(np.arange(a.size).reshape(a.shape), *args), readonly)


@implements(np.diag, views=True)
def diag(v, k=0):
    """The diagonal of a matrix, or the matrix of a diagonal. As `numpy.diag`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.diag(x) @ np.array([1.0, 2.0])))(np.ones(2))
    array([1., 2.])
    """
    v = lift(v)
    return _seen(v, np.diag, k) if v.ndim != 1 else _picked_or(_zero(v), v, np.diag, k)


@implements(np.diagflat)
def diagflat(v, k=0):
    """The matrix whose diagonal has the entries of `v`. As `numpy.diagflat`."""
    v = lift(v)
    return _picked_or(_zero(v), v, np.diagflat, k)


def _zero(a):
    return core.vouch(np.zeros(1, a.dtype))


def _triangle(name, m, k, below):
    m = lift(m)
    if m.ndim == 0:
        raise ValueError(f"{name}: the array must have at least one axis")
    inside = core.vouch(np.tri(*(m.shape * 2 if m.ndim == 1 else m.shape)[-2:],
                               k if below else k - 1, bool))
    return _where(m, 0.0, inside) if below else _where(0.0, m, inside)


@implements(np.tril)
def tril(m, k=0):
    """The entries on and below a diagonal, 0 elsewhere. As `numpy.tril`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.tril(x)))(np.ones((2, 2)))
    array([[1., 0.],
           [1., 1.]])
    """
    return _triangle("tril", m, k, True)


@implements(np.triu)
def triu(m, k=0):
    """The entries on and above a diagonal, 0 elsewhere. As `numpy.triu`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.triu(x, 1)))(np.ones((2, 2)))
    array([[0., 1.],
           [0., 0.]])
    """
    return _triangle("triu", m, k, False)


@implements(np.delete)
def delete(arr, obj, axis=None):
    """Without the entries at some indices. As `numpy.delete`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.delete(x, 1)))(np.ones(3))
    array([1., 0., 1.])
    """
    arr = lift(arr)
    axis = axis if axis is None else normalize_axis_index(axis, arr.ndim, "delete")
    core.by_value(obj)
    return _picked(arr, np.delete, values_of(obj), axis)


@implements(np.compress)
def compress(condition, a, axis=None, out=None):
    """The slices for which a condition holds. As `numpy.compress`."""
    refuse("compress", out)
    a = lift(a)
    axis = axis if axis is None else normalize_axis_index(axis, a.ndim, "compress")
    core.by_value(condition)
    return _picked(a, lambda numbers: np.compress(values_of(condition), numbers, axis))


@implements(np.extract)
def extract(condition, arr):
    """The entries for which a condition holds, along one axis. As `numpy.extract`."""
    arr = lift(arr)
    return core.getitem(core.reshape(arr, (arr.size,)), flatnonzero(lift(condition)))


@implements(np.pad)
def pad(array, pad_width, mode="constant", **kwargs):
    """With a border of constants, or of entries repeated. As `numpy.pad`.

    Parameters
    ----------
    array : Tensor or array_like
    pad_width : int, pair, sequence of pairs or dict
        How many entries before and after, for each axis.
    mode : {"constant", "edge", "reflect", "symmetric", "wrap", "empty"}
        What the border is made of; "empty" makes it of zeros.
    constant_values : scalar or scalar Tensor, optional
        The constant, 0 by default; one for all sides.

    Raises
    ------
    NoDerivativeError
        For another mode, or for constants that differ between the sides.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.pad(x, 1, mode="edge")))(np.ones(3))
    array([2., 1., 2.])
    """
    array = lift(array)
    if mode in ("edge", "reflect", "symmetric", "wrap") and "reflect_type" not in kwargs:
        return _picked(array, np.pad, pad_width, mode, **kwargs)
    constant = lift(kwargs.pop("constant_values", 0.0))
    if mode not in ("constant", "empty") or kwargs or constant.size != 1:
        raise core.NoDerivativeError(
            f"numpy.pad has no derivative rule for mode={mode!r}, "
            f"{', '.join(kwargs) or 'constant_values that differ'}{core.user_line()}; write "
            "fnp.concatenate([before, x, after])")
    constant = core.reshape(constant, (1,))
    if isinstance(constant, Tensor):
        constant = cast("pad", constant, array.dtype)
    else:
        constant = core.vouch(constant.astype(array.dtype))
    return _picked_or(constant, array, np.pad, pad_width)


# ---- order ----------------------------------------------------------------------------------

_ASCENDING_ONLY = np.lib.NumpyVersion(np.__version__) < "2.5.0"


@implements(np.sort)
def sort(a, axis=-1, kind=None, order=None, *, stable=None, descending=None):
    """In order; the gradient follows the permutation. As `numpy.sort`.

    Parameters
    ----------
    a, axis, kind, order, stable
        As in NumPy.
    descending : bool, optional
        The largest first, NaN last in either order. NumPy has it from 2.5 on.

    Returns
    -------
    Tensor or ndarray

    Raises
    ------
    TypeError
        If `descending` is true and NumPy is older than 2.5.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sort(x)[-1])(np.array([1.0, 5.0, 3.0]))
    array([0., 1., 0.])
    """
    a, axis = along("sort", lift(a), axis)
    options = {"stable": stable}
    if descending:
        if _ASCENDING_ONLY:
            raise TypeError(f"sort: descending= is new in NumPy 2.5, and this is {np.__version__}; "
                            "write fnp.flip(fnp.sort(a, axis), axis), which has NaN first")
        options["descending"] = True
    places = evaluated(np.argsort, (a, axis, kind, order), options)
    return take_along_axis(a, places, axis)


@implements(np.partition)
def partition(a, kth, axis=-1, kind="introselect", order=None):
    """In two parts about the entry that would stand at `kth`; the gradient follows the permutation.
    As `numpy.partition`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.partition(x, 1)[1])(np.array([3.0, 1.0, 2.0]))
    array([0., 0., 1.])
    """
    a, axis = along("partition", lift(a), axis)
    return take_along_axis(a, evaluated(np.argpartition, (a, kth, axis, kind, order), {}), axis)


# ---- functions that write to their first argument -------------------------------------------

def _writes(numpy_function, name):
    """Let NumPy's function, whose first parameter is `name`, write to Tensors that depend on
    nothing that is differentiated: to a copy, which is then assigned."""
    def function(*args, **kwargs):
        try:
            return core.unruled(numpy_function, None, args, kwargs)
        except ValueError as error:     # the value that it sees is read-only
            target = args[0] if args else kwargs.get(name)
            if not isinstance(target, Tensor) or "read-only" not in str(error):
                raise
            if core.recording_program():
                # (Of a program the core does the same then, and lets it not be replayed.)
                raise TypeError(f"numpy.{numpy_function.__name__} cannot write to this Tensor"
                                f"{core.user_line()}; write {name}[index] = values") from None
        copy = np.array(values_of(target))
        others = {key: values_of(x) for key, x in kwargs.items() if key != name}
        numpy_function(copy, *map(values_of, args[1:]), **others)
        # (What is written may depend on leaves by values that were looked at.)
        target[...] = core.looked(wrapped(copy), (*args, *kwargs.values()))

    register(function, numpy_function)


for _function, _name in {np.copyto: "dst", np.put: "a", np.place: "arr", np.putmask: "a",
                         np.fill_diagonal: "a", np.put_along_axis: "arr"}.items():
    _writes(_function, _name)


# ---- Tensor.flat ----------------------------------------------------------------------------

class Flat:
    """The entries of a Tensor in C order: what `Tensor.flat` is. As `numpy.flatiter`."""

    def __init__(self, base):
        self.base, self._entries = base, None

    def __iter__(self):
        return self

    def __next__(self):
        if self._entries is None:
            self._entries = iter(self.copy())
        return next(self._entries)

    def __len__(self):
        return self.base.size

    def __getitem__(self, key):
        found = core.reshape(self.base, (-1,))[key]
        return found.copy() if found.ndim else found        # no view, as of arrays

    def __setitem__(self, key, value):
        places = core.vouch(np.arange(self.base.size))
        places = (core.constant(places) if isinstance(key, Tensor) else places)[key]
        if isinstance(value, (list, tuple)):
            (value,) = lift_all([value])
        if getattr(value, "size", 1) != 1 and value.shape != places.shape:  # NumPy repeats it
            order = np.arange(places.size).reshape(places.shape) % value.size
            value = core.reshape(value, (-1,))[core.vouch(order)]
        self.base[tuple([x if isinstance(x, Tensor) else core.vouch(x) for x in
                         np.unravel_index(places, self.base.shape)])] = value

    def __array__(self, dtype=None, copy=None):
        return core.reshape(self.base, (-1,)).__array__(dtype, copy)

    def __array_function__(self, function, types, args, kwargs):
        args = [x.copy() if isinstance(x, Flat) else x for x in args]
        return function(*args, **{key: x.copy() if isinstance(x, Flat) else x
                                  for key, x in kwargs.items()})

    def copy(self):
        """A Tensor of one axis."""
        return self.base.flatten()


core.flat_of = Flat
