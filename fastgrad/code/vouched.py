"""Arrays whose contents never change, since the user says so."""

import weakref

import numpy as np

from fastgrad._core import core

__all__ = ["constant", "vouched"]

Tensor = core.Tensor

_vouched = {}                   # id -> weak reference


def constant(a):
    """Vouch for an array: its contents will never change.

    A compiled function compares the arrays that it reaches with copies, or reads them again at
    each call. An array that is vouched for is taken as it is at the time of recording, and neither
    compared nor read again.

    Parameters
    ----------
    a : ndarray or number

    Returns
    -------
    The same object.

    Raises
    ------
    TypeError
        For anything else; vouch for each array in a container.

    Examples
    --------
    >>> grid = fg.constant(np.linspace(0.0, 1.0, 5))
    >>> @fg.compile
    ... def f(x):
    ...     return np.sum(x * grid)
    >>> f(2.0)
    np.float64(5.0)
    """
    if isinstance(a, np.ndarray):
        key = id(a)
        _vouched[key] = weakref.ref(a, lambda _, key=key: _vouched.pop(key, None))
        core.vouch(a)
    elif not isinstance(a, (int, float, np.generic, Tensor)):
        raise TypeError(f"constant: takes an array or a number, not {type(a).__name__}; vouch for "
                        "each array in it")
    return a


def vouched(a):
    """Whether the array was given to `constant`."""
    found = _vouched.get(id(a))
    return found is not None and found() is a
