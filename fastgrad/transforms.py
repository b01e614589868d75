"""Transformations: functions that take a function and return its derivative."""

import functools

from fastgrad._core import core

__all__ = ["elementwise_grad", "grad", "value_and_grad"]


def grad(f, argnums=0, has_aux=False):
    """The gradient of a function.

    Parameters
    ----------
    f : callable
        Takes floats, arrays (float32 or float64), or tuples, lists and dicts of them, nested at
        will; returns one number. Plain NumPy code, or code with `fastgrad.numpy`.
    argnums : int or tuple of int
        The positional arguments to differentiate with respect to.
    has_aux : bool
        Whether f returns ``(value, aux)``; aux is then returned beside the gradient.

    Returns
    -------
    callable
        With the signature of f. Returns the gradient: the structure, shapes, dtypes and kinds of
        the argument (a float for a float, an ndarray for an ndarray); a tuple of gradients where
        `argnums` is a tuple; ``(gradient, aux)`` with `has_aux`.

    Raises
    ------
    TypeError
        When called with an argument that has no derivative (integers, strings, objects), or if f
        does not return a number.
    ValueError
        If f returns an array of more than one entry.

    Warns
    -----
    UserWarning
        If the result does not depend on the arguments; the gradient is then zero.

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.grad(lambda x: x ** 3)(2.0)
    12.0
    >>> fg.grad(lambda p: (p["w"] * 2 + p["b"]) ** 2)({"w": 1.0, "b": 3.0})
    {'w': 20.0, 'b': 10.0}
    >>> fg.grad(lambda a, b: a * b, argnums=(0, 1))(2.0, 5.0)
    (5.0, 2.0)
    """
    return core.differentiated(f, argnums, has_aux, False)


def value_and_grad(f, argnums=0, has_aux=False):
    """The value and the gradient of a function, from one run.

    Parameters
    ----------
    f, argnums, has_aux
        As in `grad`.

    Returns
    -------
    callable
        With the signature of f; returns ``(value, gradient)``, or ``((value, aux), gradient)``
        with `has_aux`.

    Raises
    ------
    TypeError, ValueError
        As `grad`.

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.value_and_grad(lambda x: x ** 3)(2.0)
    (8.0, 12.0)
    """
    return core.differentiated(f, argnums, has_aux, True)


def elementwise_grad(f, argnums=0):
    """The derivative of an element-wise function, entry by entry.

    Parameters
    ----------
    f : callable
        Computes each entry of its result from the same entry of its argument, such as
        ``lambda x: np.sin(x) * x``; then the result is the diagonal of its Jacobian. For any
        other function it is the sum of the rows of the Jacobian.
    argnums : int or tuple of int
        As in `grad`.

    Returns
    -------
    callable
        With the signature of f; returns derivatives of the shapes and dtypes of the arguments.

    Raises
    ------
    TypeError
        As `grad`.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> fg.elementwise_grad(lambda x: x ** 3)(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """
    @functools.wraps(f)
    def total(*args, **kwargs):
        return core.sum(f(*args, **kwargs))

    return grad(total, argnums)
