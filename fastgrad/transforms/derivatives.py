"""Transformations: functions that take a function and return its derivative."""

import functools
import sys
import types

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import Names, argument_of, called, name_of
from fastgrad._run import (
    Run,
    counted,
    differentiable,
    flat,
    function_given,
    matching,
    numbers_of,
    pair_of,
    positions_of,
)

__all__ = ["Derivative", "elementwise_grad", "grad", "jvp", "jvp_of", "linearize", "named",
           "of_programs", "stop_gradient", "value_and_grad", "vjp"]


def of_programs(transformation):
    """Let a transformation of a program (`fastgrad.compile`) be a program again: it is made of the
    transformation of the function."""
    @functools.wraps(transformation)
    def transform(f, *args, **kwargs):
        if hasattr(type(f), "_transformed"):
            return f._transformed(transform, transformation, args, kwargs)
        name, option = transformation.__name__, transformation.__code__.co_varnames[1]
        if "argnum" in kwargs and option == "argnums":
            raise TypeError(f"{name}: the argument is called argnums; write "
                            f"argnums={kwargs['argnum']!r}")
        if args and isinstance(args[0], (float, np.ndarray, np.inexact, core.Tensor)):
            raise TypeError(f"{name}: {option} must be an int or a tuple of ints, not "
                            f"{trees.shown(args[0])}; the arguments are those of the function "
                            f"that is returned: write fg.{name}(f)(x)")
        return transformation(f, *args, **kwargs)
    return transform


def named(transformation=None, *, behind=0):
    """Let a transformation take `argnames`: how many arguments a call has, and which of them by
    keyword, tells what they are by number. `behind`: of the result's arguments, those that are not
    f's."""
    if transformation is None:
        return functools.partial(named, behind=behind)

    @functools.wraps(transformation)
    def transform(f, argnums=0, *args, argnames=None, **options):
        if argnames is None:
            return transformation(f, argnums, *args, **options)
        name = transformation.__name__
        finder = Names(name, function_given(name, f), argnames, argnums)
        made = {}

        def derivative(*call, **kwargs):
            last = call[len(call) - behind:]
            call, kwargs, numbers, moved = finder.find(call[:len(call) - behind], kwargs)
            key = numbers, len(call), moved
            if key not in made:
                made[key] = transformation(finder.function(len(call), moved), numbers, *args,
                                           **options)
            return made[key](*call, *last, **kwargs)

        return Derivative(getattr(sys.modules[transformation.__module__], name), f, derivative,
                           (argnums, *args), **options, argnames=argnames)
    return transform


@of_programs
@named
def grad(f, argnums=0, has_aux=False, *, argnames=None):
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
    argnames : str or tuple of str, optional
        The arguments by name instead, however a call gives them; those that it leaves out count
        with their default.

    Returns
    -------
    callable
        With the signature of f. Returns the gradient: the structure, shapes, dtypes and kinds of
        the argument (a float for a float, an ndarray for an ndarray); None in the place of what is
        no number inside of tuples, lists and dicts (strings, bools, functions, None), which f gets
        as it is; a tuple of gradients where `argnums` or `argnames` is a tuple; ``(gradient,
        aux)`` with `has_aux`.

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
        If the result does not depend on the arguments; the gradient is then zero. So do the other
        transformations; none does inside another one.

    Notes
    -----
    What f writes into an array argument that is not differentiated, the caller sees, once a call;
    so with the other transformations. What is differentiated is a copy.

    Examples
    --------
    >>> fg.grad(lambda x: x ** 3)(2.0)
    12.0
    >>> fg.grad(lambda p: (p["w"] * 2 + p["b"]) ** 2)({"w": 1.0, "b": 3.0})
    {'w': 20.0, 'b': 10.0}
    >>> fg.grad(lambda a, b: a * b, argnums=(0, 1))(2.0, 5.0)
    (5.0, 2.0)
    >>> fg.grad(lambda a, b: a * b, argnames="b")(2.0, b=5.0)
    2.0
    """
    return core.differentiated(f, argnums, has_aux, False)


@of_programs
@named
def value_and_grad(f, argnums=0, has_aux=False, *, argnames=None):
    """The value and the gradient of a function, from one run.

    Parameters
    ----------
    f, argnums, has_aux, argnames
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
    >>> fg.value_and_grad(lambda x: x ** 3)(2.0)
    (8.0, 12.0)
    """
    return core.differentiated(f, argnums, has_aux, True)


@of_programs
@named
def elementwise_grad(f, argnums=0, has_aux=False, *, argnames=None):
    """The derivative of an element-wise function, entry by entry.

    Parameters
    ----------
    f : callable
        Computes each entry of its result from the same entry of its argument, such as
        ``lambda x: np.sin(x) * x``; then the result is the diagonal of its Jacobian. For any
        other function it is the sum of the rows of the Jacobian.
    argnums, has_aux, argnames
        As in `grad`.

    Returns
    -------
    callable
        With the signature of f; returns derivatives of the shapes and dtypes of the arguments, and
        aux beside them with `has_aux`.

    Raises
    ------
    TypeError
        As `grad`, and if f returns anything but one array or number.

    Examples
    --------
    >>> fg.elementwise_grad(lambda x: x ** 3)(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """
    name = "elementwise_grad"

    def total(*args, **kwargs):
        y = f(*args, **kwargs)
        if not has_aux:
            return _sum(y)
        y, aux = pair_of(name, y)
        return _sum(y), aux

    def _sum(y):
        core.check_results(name, y)
        if not isinstance(y, (core.Tensor, np.ndarray, np.generic, int, float)):
            raise TypeError(f"{name}: the function must return one array or number, not "
                            f"{type(y).__name__}")
        return core.sum(y)

    functools.update_wrapper(total, function_given(name, f))
    derivative = core.differentiated(total, numbers_of(name, argnums), has_aux, False, name)
    return Derivative(elementwise_grad, f, derivative, (argnums, has_aux))


# ---- what transformations return ------------------------------------------------------------

class Derivative:
    """The function that a transformation returns: has the names of f, binds as a method, and
    pickles where f does."""

    def __init__(self, transformation, f, call, args, **options):
        self.__dict__.update(vars(call))
        functools.update_wrapper(self, f)
        self._call = call
        self._made = transformation, args, options

    def __call__(self, *args, **kwargs):
        return self._call(*args, **kwargs)

    def __get__(self, instance, owner=None):
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self):
        return f"<{self._made[0].__name__} of {name_of(self.__wrapped__)}>"

    def __reduce__(self):
        return core.by_name(self) or self._parts()

    def _parts(self):
        """What it is made of, as for pickle."""
        transformation, args, options = self._made
        return functools.partial(transformation, **options), (self.__wrapped__, *args)


# ---- products with the Jacobian -------------------------------------------------------------

def vjp(f, *args, argnums=None, has_aux=False, argnames=None, **kwargs):
    """The value of a function, and products of vectors with its Jacobian.

    Parameters
    ----------
    f : callable
        Takes and returns floats, arrays and trees of them.
    *args, **kwargs
        The arguments to call it with; by default it is differentiated with respect to all
        positional ones.
    argnums : int or tuple of int, optional
        Only with respect to these.
    has_aux : bool
        Whether f returns ``(value, aux)``.
    argnames : str or tuple of str, optional
        Only with respect to these, however they are given.

    Returns
    -------
    value
        What f returns.
    pull : callable
        ``pull(y_bar)`` takes a tree like the value and returns a tuple, one gradient of the inner
        product <y_bar, f> for each argument; again and again.
    aux
        Only with `has_aux`.

    Raises
    ------
    TypeError
        For arguments without derivative, and results that are no numbers.
    ValueError
        From `pull`: for a cotangent of another structure or shape than the value.

    Notes
    -----
    `pull` holds the run of f, so it does not pickle.

    Examples
    --------
    >>> y, pull = fg.vjp(lambda x: x ** 2, np.array([1.0, 2.0]))
    >>> pull(np.array([1.0, 0.0]))
    (array([2., 0.]),)
    >>> pull(np.array([0.0, 1.0]))
    (array([0., 4.]),)
    """
    run = _run_held("vjp", f, args, kwargs, argnums, argnames, has_aux)
    return (run.value(), run.pull, run.aux) if has_aux else (run.value(), run.pull)


def _run_held(name, f, args, kwargs, argnums, argnames, has_aux):
    """The run whose derivatives a function returned beside the value gives."""
    f, args, kwargs, argnums = called(name, f, args, kwargs, argnums, argnames)
    argnums = None if argnums is None else numbers_of(name, argnums)
    run = Run(name, function_given(name, f), args, kwargs, argnums, has_aux)
    run.warn()
    return run


def jvp(f, primals, tangents, *, argnums=None, has_aux=False, argnames=None, **kwargs):
    """The value of a function and its derivative along a direction, in forward mode.

    Outside of every other transformation it runs in constant memory: operations are forgotten as
    soon as they have their tangents, so a loop of any length can be differentiated.

    Parameters
    ----------
    f : callable
        Takes and returns floats, arrays and trees of them.
    primals : tuple
        The positional arguments.
    tangents : tuple
        The direction, built like `primals` (with `argnums`: like the arguments these number).
    argnums : int or tuple of int, optional
        The arguments that move; by default all.
    has_aux : bool
        Whether f returns ``(value, aux)``.
    argnames : str or tuple of str, optional
        The arguments that move by name, in `primals` or among the keyword arguments.
    **kwargs
        Keyword arguments of f.

    Returns
    -------
    value, tangent
        Of the structure of what f returns; and aux with `has_aux`.

    Raises
    ------
    TypeError
        For arguments without derivative, tangents that are no numbers, and results that are none.
    ValueError
        For too few or too many tangents, and for one of another structure or shape.

    Examples
    --------
    >>> fg.jvp(lambda x: x ** 3, (2.0,), (1.0,))
    (8.0, 12.0)
    """
    if argnames is not None and type(primals) in (tuple, list):
        f, primals, kwargs, argnums = called("jvp", f, primals, kwargs, argnums, argnames)
    return jvp_of("jvp", f, primals, tangents, argnums, has_aux, kwargs)


def jvp_of(name, f, primals, tangents, argnums, has_aux, kwargs, warn=True):
    function_given(name, f)
    for what, given in (("primals", primals), ("tangents", tangents)):
        if type(given) is not tuple and type(given) is not list:
            raise TypeError(f"{name}: {what} must be a tuple with one entry for each argument, not "
                            f"{type(given).__name__}; write ({what[:-1]},)")
    argnums = None if argnums is None else numbers_of(name, argnums)
    if argnums is None and not has_aux and len(primals) == 1 == len(tangents):
        # One float or array: the commonest call, without trees.
        answer = core.streamed(name, f, primals[0], tangents[0], kwargs, warn)
        if answer is not None:
            return answer
    positions = positions_of(name, argnums, len(primals), f)
    counted(name, tangents, len(positions))
    leaves, directions = [], []
    for i, tangent in zip(positions, tangents):
        own, structure = flat(primals[i], trees.numbers)
        leaves += own
        try:
            directions += matching(name, tangent, structure, map(np.shape, own),
                                    "vector" if name == "hvp" else "tangent", argument_of(f, i))
        except (TypeError, ValueError):
            differentiable(name, argument_of(f, i), primals[i])
            raise
    held = core.nested() or any(isinstance(x, core.Tensor) for x in leaves + directions)
    streamed = None if held else [core.tangent_for(t, x) for t, x in zip(directions, leaves)]
    run = Run(name, f, tuple(primals), kwargs, argnums, has_aux, streamed, name == "hvp")
    answer = run.trace.push(directions) if held else run.tangents
    if warn:
        run.warn()
    answer = run.outputs(answer)
    return (run.value(), answer, run.aux) if has_aux else (run.value(), answer)


def linearize(f, *args, argnums=None, has_aux=False, argnames=None, **kwargs):
    """The value of a function, and its derivative as a linear function of the direction.

    f runs once and its operations are kept; each call of the derivative is one sweep over them.

    Parameters
    ----------
    f, *args, argnums, has_aux, argnames, **kwargs
        As in `vjp`.

    Returns
    -------
    value
        What f returns.
    push : callable
        ``push(*tangents)`` takes one tangent for each argument and returns that of the value.
    aux
        Only with `has_aux`.

    Raises
    ------
    TypeError
        For arguments without derivative, tangents that are no numbers, and results that are none.
    ValueError
        From `push`: for too few or too many tangents, and for one of another structure or shape.

    Notes
    -----
    `push` holds the run of f, so it does not pickle.

    Examples
    --------
    >>> y, push = fg.linearize(lambda x: x ** 3, 2.0)
    >>> push(1.0), push(2.0)
    (12.0, 24.0)
    """
    run = _run_held("linearize", f, args, kwargs, argnums, argnames, has_aux)
    return (run.value(), run.push, run.aux) if has_aux else (run.value(), run.push)


def stop_gradient(x):
    """The same values as constants: nothing is differentiated through them.

    Parameters
    ----------
    x : float, array, Tensor, or a tree of them

    Returns
    -------
    A tree of the same structure, with Tensors detached and all else as it is.

    Examples
    --------
    >>> fg.grad(lambda x: x * fg.stop_gradient(x))(3.0)
    3.0
    """
    return trees.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, core.Tensor) else leaf, x)


core.HANDED_DOWN["vjp"] = vjp
