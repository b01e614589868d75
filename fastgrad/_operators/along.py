"""Operators along an axis."""

import numpy as np

from fastgrad import numpy as fnp

from .rule import operator

__all__ = ["cumsum"]


def _arrays(rng):
    """What the laws draw for an operator along an axis."""
    for shape, axis in (((5,), None), ((4, 3), 0), ((2, 3, 4), -2), ((1,), -1), ((3, 0), 1), ((0, 2), 1)):
        yield (rng.normal(size=shape),), {"axis": axis}


cumsum = operator(
    "cumsum", "(n)->(n)", np.cumsum, along="axis", linear=(0,), method=True, draw=_arrays,
    doc="""Running sums along an axis. As `numpy.cumsum`.

    Parameters
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

    Examples
    --------
    >>> import fastgrad as fg, fastgrad.numpy as fnp, numpy as np
    >>> fg.grad(lambda x: fnp.sum(fnp.cumsum(x)))(np.ones(3))
    array([3., 2., 1.])
    """,
    vjp=(lambda g, x, y, axis: fnp.flip(cumsum(fnp.flip(g, axis), axis), axis),))
