"""Arrays from nothing, and Tensors from nested sequences of Tensors and numbers.

While a function is being transformed, creation functions return Tensors, so that
`out = fnp.zeros(n); out[i] = t` works; otherwise plain NumPy arrays.
"""

import functools
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from fastgrad._core import core

from ._dispatch import (
    FLOATING,
    PLAIN,
    NotComputed,
    Tensor,
    as_array,
    defer,
    deferring,
    evaluated,
    floating,
    implements,
    kind_of,
    register,
    wrapped,
)

__all__ = [
    "arange", "array", "asanyarray", "asarray", "ascontiguousarray", "astype", "copy", "empty",
    "empty_like", "eye", "full", "full_like", "identity", "linspace", "meshgrid", "ones",
    "ones_like", "tri", "zeros", "zeros_like",
]

_add, _subtract = core.functions["add"], core.functions["subtract"]
_multiply, _divide = core.functions["multiply"], core.functions["divide"]


def lift(a):
    """A Tensor as it is, nested sequences that hold one as one Tensor, all else as an ndarray."""
    if isinstance(a, Tensor):
        return a
    if isinstance(a, (list, tuple)) and (kind := kind_of(a)):
        return _joined(a) if kind == FLOATING else evaluated(np.array, (a,), {})
    if isinstance(a, np.ndarray):
        return as_array(a)
    core.by_value(a)
    return core.vouch(as_array(a))


def lift_all(arrays):
    """Arrays that stay apart, all of them as Tensors: for functions that return each of them."""
    lifted = map(lift, arrays)
    return [a if isinstance(a, Tensor) else core.tensor(a) for a in lifted]


def along(name, a, axis):
    """`a` and one of its axes, not negative; for None all entries in a row."""
    if axis is None:
        a, axis = core.reshape(a, (a.size,)), 0
    return a, normalize_axis_index(axis, a.ndim, name)


def part(a, axis, index):
    """What an index picks along one axis."""
    return core.getitem(a, (*(slice(None),) * axis, index))


def cast(name, a, dtype):
    """`a` in another floating dtype, differentiably; as it is for None."""
    if dtype is None or a.dtype == (dtype := floating(name, dtype)):
        return a
    return core.cast(a, dtype)


def _leaves(sequence, leaves):
    """Append the scalars and arrays of a nested sequence to `leaves`; return its shape."""
    shapes = set()
    for entry in sequence:
        if isinstance(entry, (list, tuple)):
            shapes.add(_leaves(entry, leaves))
            continue
        if type(entry) is not Tensor:
            # Not weak: [np.float32(1), 1.0] is float64 in NumPy.
            literal = isinstance(entry, (int, float))
            entry = as_array(entry)
            if literal:
                core.vouch(entry)
        leaves.append(entry)
        shapes.add(entry.shape)
    if len(shapes) > 1:
        raise ValueError("array: setting an array element with a sequence. The requested array "
                         "has an inhomogeneous shape: entries of the shapes "
                         f"{', '.join(map(str, sorted(shapes)))} stand side by side.")
    return (len(sequence), *(shapes.pop() if shapes else ()))


def _scalars(sequence):
    """Whether it is one of scalar Tensors, floats and ints, which the core packs."""
    return set(map(type, sequence)) <= _SCALARS and not any(
        [x.ndim for x in sequence if type(x) is Tensor])


_SCALARS = {Tensor, float, int}


def _joined(sequence):
    """Nested sequences of Tensors, arrays and numbers as one Tensor; one concatenation in all."""
    if _scalars(sequence):
        return core.pack(sequence)
    leaves = []
    shape = _leaves(sequence, leaves)
    if all(leaf.ndim == 0 for leaf in leaves):
        joined = core.pack(leaves)
        return joined if len(shape) == 1 else core.reshape(joined, shape)

    pieces, numbers = [], []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            if numbers:
                pieces.append(np.concatenate(numbers, None))
                numbers = []
            pieces.append(leaf if leaf.ndim == 1 else core.reshape(leaf, (leaf.size,)))
        else:
            numbers.append(leaf)
    if numbers:
        pieces.append(np.concatenate(numbers, None))
    joined = core.concatenate(pieces)
    return joined if len(shape) == 1 else core.reshape(joined, shape)


def array(object, dtype=None, *, copy=True, order="K", subok=False, ndmin=0, like=None):
    """An array from nested sequences, which may hold Tensors. As `numpy.array`.

    Parameters
    ----------
    object : array_like
        Numbers, arrays and Tensors, nested in lists and tuples as deep as you like.
    dtype : dtype, optional
        float32 or float64 if a floating Tensor is among them.
    copy : bool, optional
        False and None return a Tensor as it is where they can.
    order, subok, like
        As in NumPy; without meaning for Tensors.
    ndmin : int, optional
        Axes of length 1 are put in front until the result has as many.

    Returns
    -------
    Tensor or ndarray
        A Tensor if one is among the entries, or while a function is being transformed.

    Raises
    ------
    ValueError
        If entries that stand side by side differ in shape.
    TypeError
        If `dtype` is not float32 or float64, and a floating Tensor is among the entries.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.array([x, 2 * x, 1.0]) @ fnp.array([1.0, 10.0, 100.0]))(3.0)
    21.0
    """
    kind = kind_of((object,))
    if kind == PLAIN and core.recording_program():
        return _taken_down(object, dtype, copy, ndmin)
    if kind == PLAIN:
        try:
            result = np.array(object, dtype, copy=copy, order=order, subok=subok, ndmin=ndmin,
                              like=like)
        except NotComputed:
            return defer(array, (object, dtype), {"copy": copy, "ndmin": ndmin})
        return _created(result, object)
    if isinstance(object, Tensor) and not copy and order == "C" and not core.runs_on(object):
        copy = True
    if kind != FLOATING:
        if isinstance(object, Tensor) and (dtype is None or object.dtype == dtype):
            return _with_axes(object.copy() if copy else object, ndmin)
        copy = copy or None                     # the value of a Tensor is read-only: never shared
        return evaluated(np.array, (object, dtype), {"copy": copy, "ndmin": ndmin})
    try:
        result = cast("array", object if isinstance(object, Tensor) else _joined(object), dtype)
    except NotComputed:
        return defer(array, (object, dtype), {"copy": copy, "ndmin": ndmin})
    if result is object and (copy or core.gives_way(object)):
        result = core.as_point(core.functions["positive"](object))
    return _with_axes(result, ndmin)


def _with_axes(a, ndmin):
    return a if a.ndim >= ndmin else core.reshape(a, (1,) * (ndmin - a.ndim) + a.shape)


def asarray(a, dtype=None, order=None, *, device=None, copy=None, like=None):
    """`a` as an array or Tensor, without a copy where it is one. As `numpy.asarray`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.asarray([x, x])))(3.0)
    2.0
    """
    return array(a, dtype, copy=copy, order=order or "K", like=like)


def asanyarray(a, dtype=None, order=None, *, device=None, copy=None, like=None):
    """`a` as an array or Tensor, subclasses of ndarray kept. As `numpy.asanyarray`."""
    return array(a, dtype, copy=copy, order=order or "K", subok=True, like=like)


def ascontiguousarray(a, dtype=None, *, like=None):
    """`a` as a contiguous array, or a Tensor, of at least one axis. As `numpy.ascontiguousarray`.
    """
    return array(a, dtype, copy=None, order="C", ndmin=1, like=like)


@implements(getattr(np, "astype", None), views=True)
def astype(x, dtype, /, *, copy=True, device=None):
    """The same entries in another dtype. As `numpy.astype`, of Tensors and arrays alone.

    Examples
    --------
    >>> fnp.astype(np.array([1, 2]), float)
    array([1., 2.])
    """
    return x.astype(dtype, copy=copy)


@implements(np.copy)
def copy(a, order="K", subok=False):
    """A copy, recorded. As `numpy.copy`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.copy(x) * 2)(3.0)
    2.0
    """
    return array(a)


# ---- constants ------------------------------------------------------------------------------

def _created(result, source=None):
    """An array as a Tensor while a function is being transformed, else as it is. What shares memory
    with the array it was made of stands for that array, and is not written to."""
    if not core.transforming():
        return result
    if isinstance(source, np.ndarray) and np.may_share_memory(result, source):
        return core.standing_for(wrapped(result.copy()), result)
    return wrapped(result)


def _taken_down(a, dtype, copy, ndmin):
    """What `array` makes of plain data while a program is recorded: of a known array the Tensor
    that stands for it, of anything else NumPy's result."""
    if type(a) is np.ndarray and a.dtype.char in "fd" and ndmin <= a.ndim:
        known = core.known_array(a)
        if known is not None:
            made = cast("array", known, dtype)
            return made.copy() if copy else core.standing_for(made, a) if made is known else made
    made = evaluated(np.array, (a, dtype), {"ndmin": ndmin})
    if isinstance(a, np.ndarray) and not copy and made.dtype == a.dtype:
        return core.standing_for(made, a)
    return made


def _creates(numpy_function, summary):
    """The public function for one that makes an array from sizes and numbers."""
    @functools.wraps(numpy_function)
    def function(*args, **kwargs):
        core.by_value(args)
        return _created(numpy_function(*args, **kwargs))

    function.__module__ = "fastgrad.numpy"
    function.__doc__ = f"{summary} As `numpy.{numpy_function.__name__}`."
    return function


def _creates_like(numpy_function, summary):
    """The public function for one that makes an array in the shape and dtype of another."""
    @deferring
    @functools.wraps(numpy_function)
    def function(a, *args, **kwargs):
        if kind_of((a,)):
            a = lift(a)
            return wrapped(numpy_function(np.empty(a.shape, a.dtype), *args, **kwargs))
        return _created(numpy_function(a, *args, **kwargs))

    function.__module__ = "fastgrad.numpy"
    function.__doc__ = (f"{summary} As `numpy.{numpy_function.__name__}`; "
                        "a Tensor, not recorded, if the argument is one.")
    return register(function, numpy_function)


zeros = _creates(np.zeros, "An array of zeros.")
ones = _creates(np.ones, "An array of ones.")
empty = _creates(np.empty, "An array of arbitrary numbers, to be assigned to.")
eye = _creates(np.eye, "Ones on a diagonal, zeros elsewhere.")
identity = _creates(np.identity, "The identity matrix.")
tri = _creates(np.tri, "Ones on and below a diagonal, zeros above.")
arange = _creates(np.arange, "Evenly spaced numbers, the end left out.")
zeros_like = _creates_like(np.zeros_like, "Zeros in the shape of an array.")
ones_like = _creates_like(np.ones_like, "Ones in the shape of an array.")
empty_like = _creates_like(np.empty_like, "Arbitrary numbers in the shape of an array.")


@deferring
def full(shape, fill_value, dtype=None, order="C", *, device=None, like=None):
    """An array filled with one value, which may be a Tensor. As `numpy.full`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.full((2, 3), x)))(1.0)
    6.0
    """
    if not kind_of((fill_value,)):
        core.by_value(fill_value)
        return _created(np.full(shape, fill_value, dtype, order, like=like))
    if kind_of((fill_value,)) != FLOATING:
        return evaluated(np.full, (shape, fill_value, dtype, order), {})
    fill_value = cast("full", lift(fill_value), dtype)
    try:
        # A copy: what has been filled may be assigned to, which a broadcast view may not.
        return core.broadcast_to(fill_value, shape).copy()
    except ValueError as error:
        raise ValueError(str(error).replace("broadcast_to:", "full:", 1)) from None


@deferring
def full_like(a, fill_value, dtype=None, order="K", subok=True, shape=None, *, device=None):
    """One value, which may be a Tensor, in the shape and dtype of `a`. As `numpy.full_like`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.full_like(np.ones(3), x)))(1.0)
    3.0
    """
    if not kind_of((a, fill_value)):
        core.by_value(fill_value)
        return _created(np.full_like(a, fill_value, dtype, order, subok, shape))
    if kind_of((fill_value,)) != FLOATING:
        return evaluated(np.full_like, (a, fill_value, dtype, order, subok, shape), {})
    a = lift(a)
    return full(a.shape if shape is None else shape, fill_value, dtype or a.dtype)


register(full_like, np.full_like)


@deferring
def linspace(start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0, *,
             device=None):
    """Evenly spaced numbers between two ends, which may be Tensors. As `numpy.linspace`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.linspace(0.0, x, 5)))(1.0)
    2.5
    """
    kind = kind_of((start, stop))
    if not kind:
        core.by_value((start, stop))
        result = np.linspace(start, stop, num, endpoint, retstep, dtype, axis)
        return (_created(result[0]), result[1]) if retstep else _created(result)
    if kind != FLOATING:
        return evaluated(np.linspace, (start, stop, num, endpoint, retstep, dtype, axis), {})
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"linspace: number of samples, {num}, must be non-negative")
    intervals = num - 1 if endpoint else num
    # Python numbers stay what they are: they take the dtype of the other end.
    start, stop = (lift(end) if isinstance(end, (list, tuple)) else end for end in (start, stop))
    difference = _subtract(stop, start)
    counts = core.vouch(np.arange(num, dtype=difference.dtype)
                        .reshape((-1,) + (1,) * difference.ndim))
    step = _divide(difference, float(intervals)) if intervals > 0 else np.nan
    result = _add(_multiply(counts, step if intervals > 0 else difference), start)
    if endpoint and num > 1:
        stop = stop if isinstance(stop, Tensor) else np.asarray(stop, result.dtype)
        last = cast("linspace", core.broadcast_to(stop, (1, *difference.shape)), result.dtype)
        result = core.concatenate([core.getitem(result, slice(-1)), last])
    result = cast("linspace", result, dtype)
    if axis != 0:
        order = list(range(1, result.ndim))
        order.insert(normalize_axis_index(axis, result.ndim, "linspace"), 0)
        result = core.transpose(result, order)
    return (result, step) if retstep else result


register(linspace, np.linspace)


_LIST_OF_GRIDS = type(np.meshgrid([1.0], sparse=True, copy=False)) is list      # until NumPy 2.4


@implements(np.meshgrid, views=True)
def meshgrid(*xi, copy=True, sparse=False, indexing="xy"):
    """Coordinate matrices from coordinate vectors. As `numpy.meshgrid`; a tuple.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.meshgrid(x, np.ones(2))[0]))(np.array([1.0, 2.0, 3.0]))
    array([2., 2., 2.])
    """
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: indexing={indexing!r}; valid are 'xy' and 'ij'")
    xi = lift_all(xi)
    ndim = len(xi)
    places = list(range(ndim))
    if indexing == "xy" and ndim > 1:
        places[:2] = 1, 0
    grids = [core.reshape(x, [1] * place + [x.size] + [1] * (ndim - place - 1))
             for x, place in zip(xi, places, strict=True)]
    if not sparse:
        shape = np.broadcast_shapes(*[grid.shape for grid in grids])
        grids = [core.broadcast_to(grid, shape) for grid in grids]
    if sparse and not copy and _LIST_OF_GRIDS:
        return grids
    return tuple([grid.copy() for grid in grids] if copy else grids)
