"""Branches that hold for each lane and each step: `cond` and `switch`.

Where one outcome is known, one branch is called: plain, and while something is recorded, when the
outcome becomes a guard of the program. While a lane of `vmap` or a step of a loop is recorded, it
stands for others, whose outcomes differ: both branches are recorded, and `where` chooses.
"""

import operator

import numpy as np

import fastgrad.numpy as fnp
from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of

__all__ = ["cond", "switch"]

Tensor = core.Tensor


def cond(flag, f, g, *operands):
    """``f(*operands) if flag else g(*operands)``, for each lane and step by its own flag.

    Parameters
    ----------
    flag : bool, bool scalar or Tensor of shape ()
        What decides.
    f, g : callable
        What is called where it is true, and where it is false. Where flag differs between lanes or
        steps, both are called, and must return trees of one structure, with leaves of equal shapes.
    *operands : object
        What they are called with.

    Returns
    -------
    tree
        What f or g returns.

    Raises
    ------
    TypeError
        If flag is not one bool, or f or g no function.
    ValueError
        If both are called and differ in what they return.

    Notes
    -----
    The derivative is that of the branch taken; the other has none, even if its value is NaN or
    infinite there. In a program the outcome is a guard; inside of `vmap`, `scan`, `fori_loop` and
    `while_loop`, where the flag depends on a lane or a step, both branches are computed.

    Examples
    --------
    >>> def f(x):
    ...     return fg.cond(x > 0, np.sqrt, lambda x: x * x, x)
    >>> f(4.0), fg.grad(f)(4.0), fg.grad(f)(-1.0)
    (np.float64(2.0), 0.25, -2.0)
    >>> fg.vmap(f)(np.array([4.0, -1.0]))
    array([2., 1.])
    """
    for branch in (f, g):
        _callable("cond", branch)
    dtype = getattr(flag, "dtype", None)
    if type(flag) is not bool and (dtype != np.bool_ or np.shape(flag) != ()):
        what = type(flag).__name__ if dtype is None else f"{dtype} of shape {np.shape(flag)}"
        raise TypeError(f"cond: the flag must be one bool, not {what}; write a comparison, or "
                        "fnp.any(...) or fnp.all(...) of several")
    if core.decides_for_others(flag):
        name = f"cond of {name_of(f)} and {name_of(g)}"
        return _chosen(name, [g(*operands), f(*operands)], lambda a, b: fnp.where(flag, b, a))
    return f(*operands) if flag else g(*operands)


def switch(index, branches, *operands):
    """``branches[index](*operands)``, for each lane and step by its own index.

    Parameters
    ----------
    index : int, integer scalar or Tensor of shape ()
        Which one; below 0 is the first, beyond the last the last.
    branches : sequence of callable
        See `cond`.
    *operands : object
        What they are called with.

    Returns
    -------
    tree
        What the branch returns.

    Raises
    ------
    TypeError
        If index is not one integer, or a branch no function.
    ValueError
        If there is no branch; if all are called and differ in what they return.

    Examples
    --------
    >>> branches = [np.sin, np.cos, lambda x: x * x]
    >>> fg.switch(2, branches, 3.0)
    9.0
    >>> fg.vmap(lambda i: fg.switch(i, branches, 3.0 * i))(np.array([2, 0, 9]))
    array([ 36.,   0., 729.])
    """
    branches = list(branches)
    for branch in branches:
        _callable("switch", branch)
    if not branches:
        raise ValueError("switch: there is no branch")
    last = len(branches) - 1
    if core.decides_for_others(index):
        if np.shape(index) != () or index.dtype.kind not in "iu":
            raise TypeError(f"switch: the index must be one integer, not {index.dtype} of shape "
                            f"{np.shape(index)}")
        results = [branch(*operands) for branch in branches]
        chosen = results[0]
        for k, result in enumerate(results[1:], 1):
            chosen = _chosen("switch", [chosen, result],
                             lambda a, b, k=k: fnp.where(index >= k, b, a))
        return chosen
    try:
        index = operator.index(index)
    except TypeError:
        raise TypeError("switch: the index must be one integer, not "
                        f"{type(index).__name__}") from None
    return branches[min(max(index, 0), last)](*operands)


def _callable(what, f):
    if not callable(f):
        raise TypeError(f"{what}: it needs functions, not {type(f).__name__}")


def _chosen(name, results, choose):
    """The leaves of one of two results, as a Tensor decides."""
    first, structure = trees.flatten(results[0])
    try:
        second = trees.flatten_like(structure, results[1])
    except ValueError as error:
        raise ValueError(f"{name}: the branches return different trees: {error}") from None
    leaves = []
    for a, b in zip(first, second):
        if not isinstance(a, (Tensor, np.ndarray, np.generic, float, int)):
            if a is not b and a != b:
                raise ValueError(f"{name}: the branches return {a!r} and {b!r}, between which "
                                 "nothing recorded can choose; return numbers")
            leaves.append(a)
        elif np.shape(a) != np.shape(b):
            raise ValueError(f"{name}: the branches return shapes {np.shape(a)} and {np.shape(b)}; "
                             "they must be equal")
        else:
            leaves.append(choose(a, b))
    return trees.unflatten(structure, leaves)
