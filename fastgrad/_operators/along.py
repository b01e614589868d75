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
    vjp=(lambda g, x, y, axis: fnp.flip(cumsum(fnp.flip(g, axis), axis), axis),))
