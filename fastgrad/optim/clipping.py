"""Gradients that are kept from being too large."""

import math

import numpy as np

from fastgrad._core import trees
from fastgrad._core.trees import unflatten

from .given import _check_kinds, _closed, _number, _opened, _value

__all__ = ["clip_by_global_norm", "clip_by_value", "global_norm"]


def global_norm(grads):
    """The root of the sum of the squares of all entries, computed in float64.

    Parameters
    ----------
    grads : pytree
        Floats, float32 and float64 arrays, NumPy scalars and Tensors.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If something else is among the gradients.

    Examples
    --------
    >>> fg.optim.global_norm({"w": np.array([2.0, 3.0]), "b": 6.0})
    7.0
    """
    leaves, structure = trees.numbers(grads)
    _check_kinds("grads", structure, leaves)
    with np.errstate(all="ignore"):
        return math.hypot(*[_norm(_value(leaf)) for leaf in leaves])


def clip_by_global_norm(grads, max_norm):
    """Scale the gradient down to the length `max_norm` if it is longer.

    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks",
    2013, algorithm 1, https://arxiv.org/abs/1211.5063.

    Parameters
    ----------
    grads : pytree
        As in `global_norm`.
    max_norm : float
        At least 0.

    Returns
    -------
    pytree
        New arrays and Tensors, of the same shapes and dtypes; or `grads` itself if it is not longer
        than `max_norm`, or has a NaN. Of an infinite gradient the infinite entries become NaN and
        the others 0, as in PyTorch.

    Raises
    ------
    TypeError, ValueError
        As `global_norm`, or if `max_norm` is not a number of at least 0.

    Examples
    --------
    >>> fg.optim.clip_by_global_norm({"w": np.array([2.0, 3.0]), "b": 6.0}, max_norm=3.5)
    {'w': array([1. , 1.5]), 'b': 3.0}
    """
    max_norm = _number(clip_by_global_norm, "max_norm", max_norm)
    norm = global_norm(grads)
    if not norm > max_norm:
        return grads
    return _mapped(lambda g: np.multiply(g, max_norm / norm, out=g), grads)


def clip_by_value(grads, max_value):
    """Bring each entry of the gradient into the interval from -max_value to max_value.

    Parameters
    ----------
    grads : pytree
        As in `global_norm`.
    max_value : float
        At least 0.

    Returns
    -------
    pytree
        New arrays and Tensors, of the same shapes and dtypes; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        As `clip_by_global_norm`.

    Examples
    --------
    >>> fg.optim.clip_by_value({"w": np.array([-2.0, 0.5]), "b": 6.0}, max_value=1.0)
    {'w': array([-1. ,  0.5]), 'b': 1.0}
    """
    max_value = _number(clip_by_value, "max_value", max_value)
    return _mapped(lambda g: np.clip(g, -max_value, max_value, out=g), grads)


def _norm(a):
    """The root of the sum of squares, also where the squares would not fit into float64."""
    axes = list(range(a.ndim))
    square = np.einsum(a, axes, a, axes, [], dtype=np.float64)
    if 1e-280 < square < math.inf:
        return math.sqrt(square)
    peak = float(np.max(np.abs(a), initial=0))
    return peak * _norm(a / peak) if 0 < peak < math.inf else peak


def _mapped(function, grads):
    """A gradient with the function applied to a copy of each array."""
    leaves, structure = trees.numbers(grads)
    _check_kinds("grads", structure, leaves)
    results = []
    with np.errstate(all="ignore"):
        for leaf in leaves:
            value = _opened(leaf, in_place=False)
            results.append(_closed(leaf, function(value), in_place=False))
    return unflatten(structure, results)
