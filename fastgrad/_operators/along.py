"""Operators along an axis."""

import numpy as np

from fastgrad import numpy as fnp
from fastgrad._core import core

from .rule import operator

__all__ = ["cumprod", "cumsum"]


def _arrays(rng):
    """What the laws draw for an operator along an axis."""
    for shape, axis in (((5,), None), ((4, 3), 0), ((2, 3, 4), -2), ((1,), -1), ((3, 0), 1),
                        ((0, 2), 1)):
        yield (rng.normal(size=shape),), {"axis": axis}


# What the documentation of both says.
_RUNNING = """    Parameters
    ----------
    a : Tensor or array_like
    axis : int, optional
        None: of the flattened array.
    dtype : dtype, optional
        float32 or float64 of a floating Tensor.

    Returns
    -------
    Tensor
        Of the shape of `a` (None: flat); or what NumPy returns, if `a` is no Tensor.

    Raises
    ------
    AxisError
        For an axis out of range.
    TypeError
        For ``out=`` with a Tensor.
    """


cumsum = operator(
    "cumsum", "(n)->(n)", core.running_sums, numpy=np.cumsum, along="axis", linear=(0,),
    method=True, accumulates=np.add, draw=_arrays,
    doc=f"""Running sums along an axis. As `numpy.cumsum`.

{_RUNNING}
    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.cumsum(x)))(np.ones(3))
    array([3., 2., 1.])
    """,
    vjp=(lambda g, x, y, axis: fnp.flip(_sums(fnp.flip(g, axis), axis), axis),))


def _sums(x, axis):
    """NumPy's loop takes longer."""
    return core.running_sums(x, axis) if isinstance(x, np.ndarray) else cumsum(x, axis)


def _before(y):
    """The product of what stands in front of each entry."""
    return fnp.where(fnp.arange(y.shape[-1]) == 0, 1.0, fnp.roll(y, 1, -1))


def _recurrent(a, b):
    """The c with ``c[k] = a[k] * c[k - 1] + b[k]``, by products over windows that double."""
    # (Products of windows may overflow where what they are multiplied by is zero.)
    step, places, times = 1, fnp.arange(b.shape[-1]), core.functions["weigh"]
    while step < len(places):
        b = b + fnp.where(places < step, 0.0, times(a, fnp.roll(b, step, -1)))
        a, step = times(a, fnp.roll(a, step, -1)), 2 * step
    return b


def _cumprod_jvp(t, x, y, axis):
    t, x, y = [fnp.swapaxes(z, axis, -1) for z in (t, x, y)]
    return fnp.swapaxes(_recurrent(x, core.functions["weigh"](_before(y), t)), axis, -1)


def _cumprod_vjp(g, x, y, axis):
    g, x, y = [fnp.swapaxes(z, axis, -1) for z in (g, x, y)]
    after = _recurrent(fnp.roll(fnp.flip(x, -1), 1, -1), fnp.flip(g, -1))
    return fnp.swapaxes(core.functions["weigh"](_before(y), fnp.flip(after, -1)), axis, -1)


cumprod = operator(
    "cumprod", "(n)->(n)", np.cumprod, along="axis", reads="ay", method=True,
    accumulates=np.multiply,
    draw=lambda rng: [((x * (np.arange(x.size).reshape(x.shape) % 4 != 1),), options)
                      for (x,), options in _arrays(rng)],
    doc=f"""Running products along an axis. As `numpy.cumprod`.

{_RUNNING}
    Notes
    -----
    Derivatives are products of the other entries, and exact where some are zero.

    Examples
    --------
    >>> fg.jacobian(fnp.cumprod)(np.array([2.0, 0.0, 3.0]))
    array([[1., 0., 0.],
           [0., 2., 0.],
           [0., 6., 0.]])
    """, jvp=(_cumprod_jvp,), vjp=(_cumprod_vjp,))
