"""Transformations: functions that take a function and return its derivative."""

import functools
import itertools
import math
import sys
import types

import numpy as np

from fastgrad import _trees
from fastgrad._arguments import Names, argument_of, called, name_of, no_parameters
from fastgrad._core import core

__all__ = [
    "elementwise_grad", "grad", "hessian", "hessian_diag", "hvp", "jacobian", "jvp", "laplacian",
    "linearize", "stop_gradient", "value_and_grad", "vjp",
]


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
                            f"{_trees.shown(args[0])}; the arguments are those of the function "
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
        finder = Names(name, _function(name, f), argnames, argnums)
        made = {}

        def derivative(*call, **kwargs):
            last = call[len(call) - behind:]
            call, kwargs, numbers, moved = finder.find(call[:len(call) - behind], kwargs)
            key = numbers, len(call), moved
            if key not in made:
                made[key] = transformation(finder.function(len(call), moved), numbers, *args,
                                           **options)
            return made[key](*call, *last, **kwargs)

        return _Derivative(getattr(sys.modules[transformation.__module__], name), f, derivative,
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
        y, aux = _pair(name, y)
        return _sum(y), aux

    def _sum(y):
        core.check_results(name, y)
        if not isinstance(y, (core.Tensor, np.ndarray, np.generic, int, float)):
            raise TypeError(f"{name}: the function must return one array or number, not "
                            f"{type(y).__name__}")
        return core.sum(y)

    functools.update_wrapper(total, _function(name, f))
    derivative = core.differentiated(total, _numbers(name, argnums), has_aux, False, name)
    return _Derivative(elementwise_grad, f, derivative, (argnums, has_aux))


# ---- what transformations return ------------------------------------------------------------

class _Derivative:
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


# ---- a run of a function, with trees around it ----------------------------------------------

class _Run:
    """One run of f, held for differentiation with respect to the arguments numbered argnums."""

    def __init__(self, name, f, args, kwargs, argnums, has_aux, tangents=None, gradient=False):
        self.name = name
        self.f = f
        self.has_aux = has_aux
        self.positions = positions = _positions(name, argnums, len(args), f)
        inputs = [args[i] for i in positions]
        leaves, places, self.structures, self.counts = [], [], [], []
        for i, x in zip(positions, inputs):
            own, structure = _flat(x, _trees.numbers)
            leaves += own
            where = argument_of(f, i)
            places += [where] if structure is None else [
                where + path for path in _trees.paths(structure)]
            self.structures.append(structure)
            self.counts.append(len(own))
        self.derivatives = None
        self.leaves = leaves
        if tangents is not None:
            core.stream_new()
        self.trace = trace = core.Trace(name, leaves, places, tangents)
        lifted = list(args)
        x = inputs = None
        for i, x in zip(positions, self.trees(self.structures, trace.arguments)):
            lifted[i] = x
        x = None
        try:
            trace.begin()
            if tangents is not None:
                trace.stream_begin()
            refusals = core.refusals()
            try:
                value = f(*lifted, **kwargs)
            except ValueError as error:
                core.raise_refused(error)
                raise
            core.check_refusals(refusals, f"{name} of {name_of(f)}")
            del lifted
            self.aux = None
            if has_aux:
                value, self.aux = _pair(name, value)
            if leaves or not gradient:          # else there is nothing in it, and that is right
                core.check_results(name, value)
            outputs, self.returned = _flat(value)
            del value
            trace.results(outputs)
            del outputs
            self.tangents = trace.stream_results() if tangents is not None else None
        finally:
            trace.end()                 # one call: an interrupt may come after any
        if has_aux:
            self.aux = core.settled(self.aux)

    def recorded(self):
        """Whether derivatives may have to be differentiated in their turn."""
        return core.nested() or core.is_recording() and any(
            isinstance(leaf, core.Tensor) and leaf.requires_grad for leaf in self.leaves)

    def warn(self):
        """Warn if the results do not depend on the arguments, unless inside a transformation."""
        if self.leaves and not core.nested() and not self.trace.reached \
                and self.trace.independent():
            core.warn_independent(f"{self.name} of {name_of(self.f)}")

    def __repr__(self):
        return f"<{self.name} of {name_of(self.f)}>"

    def like_inputs(self, leaves):
        """A tuple with a tree of derivatives for each argument."""
        if self.derivatives is None:
            self.derivatives = [None if x is None else _trees.bare(x) for x in self.structures]
        return self.trees(self.derivatives, leaves)

    def trees(self, structures, leaves):
        """A tuple with a tree of each structure."""
        built, at = [], 0
        for structure, count in zip(structures, self.counts):
            built.append(_built(structure, leaves[at:at + count]))
            at += count
        return tuple(built)

    def like_result(self, leaves):
        """A tree like the result."""
        return _built(self.returned, leaves)

    def value(self):
        return self.like_result(self.trace.plain())

    def pull(self, cotangent, finite=None):
        """Reverse mode: one gradient for each argument."""
        return self.like_inputs(self.trace.pull(self.cotangents(cotangent), finite))

    def push(self, *tangents, finite=None):
        """Forward mode: the derivative of the result."""
        _count(self.name, tangents, len(self.positions))
        return self.outputs(self.trace.push(self.tangent_leaves(tangents), finite))

    def outputs(self, leaves):
        """Derivatives of the results (None: there is none) as a tree like the result."""
        if any(leaf is None for leaf in leaves):
            leaves = [core.zeros_for(value) if leaf is None else leaf
                      for leaf, value in zip(leaves, self.trace.plain())]
        return self.like_result(leaves)

    def cotangents(self, tree):
        """The leaves of a tree that belongs to the results, shapes checked."""
        return _matching(self.name, tree, self.returned, self.trace.shapes, "cotangent",
                         "the result")

    def tangent_leaves(self, tangents):
        """The leaves of tangents, one tree for each argument, shapes checked."""
        shapes, leaves, at = self.trace.input_shapes, [], 0
        for i, tree, structure, count in zip(self.positions, tangents, self.structures,
                                             self.counts):
            leaves += _matching(self.name, tree, structure, shapes[at:at + count], "tangent",
                                argument_of(self.f, i))
            at += count
        return leaves


# What is certainly a leaf: most calls need no more than a look at the type.
_LEAVES = frozenset([float, np.ndarray, np.float64, np.float32, core.Tensor])


def _flat(tree, taken_apart=_trees.flatten):
    """Leaves and structure; None is the structure of a single leaf."""
    if type(tree) in _LEAVES:
        return [tree], None
    leaves, structure = taken_apart(tree)
    return leaves, None if structure == _trees.LEAF else structure


def _built(structure, leaves):
    return leaves[0] if structure is None else _trees.unflatten(structure, leaves)


def _matching(name, tree, structure, shapes, what, whose):
    """The leaves of a tree that must have that structure and those shapes."""
    try:
        leaves = [tree] if structure is None and type(tree) in _LEAVES else _trees.flatten_like(
            _trees.LEAF if structure is None else structure, tree)
    except ValueError as error:
        raise ValueError(f"{name}: the {what} is not built like {whose}: {error}") from None
    for i, (leaf, shape) in enumerate(zip(leaves, shapes)):
        if leaf is None:
            continue
        wrong = _wrong(leaf, tuple(shape))
        if wrong:
            path = "" if structure is None else _trees.paths(structure)[i]
            raise (ValueError if wrong.startswith("has shape") else TypeError)(
                f"{name}: the {what} of {whose}{path} {wrong}")
    return leaves


def _wrong(leaf, shape):
    """What is wrong with a tangent or cotangent of something of that shape."""
    if type(leaf) is not float:
        dtype = getattr(leaf, "dtype", None)
        if isinstance(leaf, bool):
            return f"is the bool {leaf}; it must be a float: write {float(leaf)}"
        if dtype is None and not isinstance(leaf, (int, float)):
            return f"must be a number or an array, not {type(leaf).__name__}"
        if dtype is not None and dtype.kind not in "fiu":
            return f"has dtype {dtype}; it must be " + (
                "float: write .astype(float)" if dtype.kind == "b" else "real")
        if type(leaf) not in _LEAVES and (why := core.array_kind(leaf)) is not None:
            return f"is a {type(leaf).__name__}; {why}"
    if np.shape(leaf) != shape:
        return f"has shape {np.shape(leaf)}, not {shape}; they must be equal"
    return ""


def _pair(name, value):
    """What a function with has_aux=True returned."""
    if type(value) is not tuple or len(value) != 2:
        raise TypeError(f"{name}: with has_aux=True the function must return (value, aux), not "
                        f"{type(value).__name__}")
    return value


def _count(name, tangents, count):
    given = len(tangents)
    if given != count:
        raise ValueError(f"{name}: {given} {'tangent' if given == 1 else 'tangents'} for {count} "
                         f"{'argument' if count == 1 else 'arguments'}; give one for each")


def _positions(name, argnums, count, f):
    """The positions of the arguments to differentiate, as a list."""
    if argnums is None:
        return list(range(count))
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    found = [i + count if i < 0 else i for i in numbers]
    if count == 0 and argnums == 0 and no_parameters(f):
        return []
    for i in found:
        if not 0 <= i < count:
            raise TypeError(f"{name}: argnums={argnums!r}, but the call has {count} positional "
                            f"argument{'' if count == 1 else 's'}")
    if len(set(found)) != len(found):
        raise TypeError(f"{name}: argnums={argnums!r} names an argument twice")
    return found


def _numbers(name, argnums):
    """argnums as an int or a tuple of ints."""
    try:
        if isinstance(argnums, (tuple, list)):
            return tuple(i.__index__() for i in argnums)
        return argnums.__index__()
    except AttributeError:
        raise TypeError(f"{name}: argnums must be an int or a tuple of ints, not "
                        f"{_trees.shown(argnums)}") from None


def _function(name, f):
    if not callable(f):
        raise TypeError(f"{name}: the first argument must be a function, not {type(f).__name__}")
    return f


def _chunk(name, chunk):
    if chunk is not None and (not hasattr(chunk, "__index__") or chunk < 1):
        raise ValueError(f"{name}: chunk={chunk!r} must be a positive int, or None")
    return chunk


def _one_of(name, option, value, choices):
    if value not in choices:
        raise ValueError(f"{name}: {option}={value!r} is not one of "
                         f"{', '.join(map(repr, choices))}")


def _selected(argnums, items):
    """One item for an int, a tuple of them for a tuple, and where there is none."""
    return tuple(items) if isinstance(argnums, tuple) or not items else items[0]


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
    f, args, kwargs, argnums = called("vjp", f, args, kwargs, argnums, argnames)
    argnums = None if argnums is None else _numbers("vjp", argnums)
    run = _Run("vjp", _function("vjp", f), args, kwargs, argnums, has_aux)
    run.warn()
    return (run.value(), run.pull, run.aux) if has_aux else (run.value(), run.pull)


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
    return _jvp("jvp", f, primals, tangents, argnums, has_aux, kwargs)


def _jvp(name, f, primals, tangents, argnums, has_aux, kwargs, warn=True):
    _function(name, f)
    for what, given in (("primals", primals), ("tangents", tangents)):
        if type(given) is not tuple and type(given) is not list:
            raise TypeError(f"{name}: {what} must be a tuple with one entry for each argument, not "
                            f"{type(given).__name__}; write ({what[:-1]},)")
    argnums = None if argnums is None else _numbers(name, argnums)
    if argnums is None and not has_aux and len(primals) == 1 == len(tangents):
        # One float or array: the commonest call, without trees.
        answer = core.streamed(name, f, primals[0], tangents[0], kwargs, warn)
        if answer is not None:
            return answer
    positions = _positions(name, argnums, len(primals), f)
    _count(name, tangents, len(positions))
    leaves, directions = [], []
    for i, tangent in zip(positions, tangents):
        own, structure = _flat(primals[i], _trees.numbers)
        leaves += own
        try:
            directions += _matching(name, tangent, structure, map(np.shape, own),
                                    "vector" if name == "hvp" else "tangent", argument_of(f, i))
        except (TypeError, ValueError):
            _arguments(name, argument_of(f, i), primals[i])
            raise
    gradient = name == "hvp"
    if core.nested() or any(isinstance(x, core.Tensor) for x in leaves + directions):
        run = _Run(name, f, tuple(primals), kwargs, argnums, has_aux, None, gradient)
        answer = run.trace.push(directions)
    else:
        directions = [core.tangent_for(t, x) for t, x in zip(directions, leaves)]
        run = _Run(name, f, tuple(primals), kwargs, argnums, has_aux, directions, gradient)
        answer = run.tangents
    if warn:
        run.warn()
    answer = run.outputs(answer)
    return (run.value(), answer, run.aux) if has_aux else (run.value(), answer)


def _arguments(name, what, x):
    """Complain if an argument has no derivative, which says more than what is wrong with its
    tangent."""
    leaves, structure = _trees.numbers(x)
    core.Trace(name, leaves, [what + path for path in _trees.paths(structure)])


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
    f, args, kwargs, argnums = called("linearize", f, args, kwargs, argnums, argnames)
    argnums = None if argnums is None else _numbers("linearize", argnums)
    run = _Run("linearize", _function("linearize", f), args, kwargs, argnums, has_aux)
    run.warn()
    return (run.value(), run.push, run.aux) if has_aux else (run.value(), run.push)


# ---- Jacobians ------------------------------------------------------------------------------

@of_programs
@named
def jacobian(f, argnums=0, has_aux=False, *, mode="auto", layout="numerator", chunk=None,
             sparse=False, argnames=None):
    """The Jacobian of a function: every output by every input.

    Parameters
    ----------
    f : callable
        Takes and returns floats, arrays and trees of them.
    argnums : int or tuple of int
        The positional arguments to differentiate with respect to.
    has_aux : bool
        Whether f returns ``(value, aux)``.
    mode : {"auto", "forward", "reverse"}
        Forward takes a tangent for each input, many in one sweep; reverse a sweep for each output.
        "auto" compares their numbers.
    layout : {"numerator", "denominator"}
        In numerator layout the shape is ``out.shape + in.shape``, so that the chain rule reads
        from left to right, (m,n) = (m,k)(k,n); in denominator layout ``in.shape + out.shape``.
    chunk : int, optional
        At most so many tangents (or gradients) at a time: bounds memory.
    sparse : bool
        Find out which entries can differ from zero, compress the columns by a colouring, and
        return a `scipy.sparse.csr_array` of shape ``(out.size, in.size)`` (extra ``scipy``), for
        one argument and one result.
    argnames : str or tuple of str, optional
        The arguments by name instead of by number.

    Returns
    -------
    callable
        With the signature of f. Returns the Jacobian, in the dtype of the argument (a float where
        argument and result are floats); for trees a tree like the result, whose leaves are trees
        like the argument. With a tuple of `argnums` these are tuples. ``(jacobian, aux)`` with
        `has_aux`.

    Raises
    ------
    ValueError
        For a mode or layout that does not exist, and a chunk that is no positive int.
    TypeError
        When called with arguments that have no derivative, or if f returns no numbers.

    Examples
    --------
    >>> f = lambda v: fnp.array([3 * v[0] ** 2 * v[1], 2 * v[0] + v[1] ** 8])
    >>> fg.jacobian(f)(np.array([2.0, 1.0]))
    array([[12., 12.],
           [ 2.,  8.]])
    >>> fg.jacobian(f, layout="denominator")(np.array([2.0, 1.0]))
    array([[12.,  2.],
           [12.,  8.]])

    A product of maps has the product of their Jacobians:

    >>> g = lambda x: fnp.array([x[0] * x[1], x[1] + x[2]])     # R^3 -> R^2
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> J = fg.jacobian(lambda x: f(g(x)))(x)
    >>> J.shape, np.allclose(J, fg.jacobian(f)(g(x)) @ fg.jacobian(g)(x))  # (2,3) = (2,2)(2,3)
    ((2, 3), True)
    """
    name = "jacobian"
    _function(name, f)
    numbers = _numbers(name, argnums)
    _one_of(name, "mode", mode, ("auto", "forward", "reverse"))
    _one_of(name, "layout", layout, ("numerator", "denominator"))
    _chunk(name, chunk)
    options = {"mode": mode, "layout": layout, "chunk": chunk, "sparse": sparse}
    if sparse:
        from fastgrad import _sparse
        derivative = _sparse.jacobian(f, numbers, has_aux, layout, chunk)
        return _Derivative(jacobian, f, derivative, (argnums, has_aux), **options)

    def derivative(*args, **kwargs):
        run = _Run(name, f, args, kwargs, numbers, has_aux)
        run.warn()
        return _tree_of(run, numbers, _blocks(run, mode, chunk), layout)

    return _Derivative(jacobian, f, derivative, (argnums, has_aux), **options)


def _tree_of(run, argnums, blocks, layout="numerator"):
    """Blocks of a Jacobian as a tree like the result of trees like the arguments."""
    rows = []
    for row, out in zip(blocks, run.trace.shapes):
        row = [_kind(_turned(block, len(out)) if layout == "denominator" else block, leaf)
               for block, leaf in zip(row, run.leaves)]
        rows.append(_selected(argnums, run.like_inputs(row)))
    result = run.like_result(rows)
    return (result, run.aux) if run.has_aux else result


def _turned(block, rank):
    """From ``out.shape + in.shape`` to ``in.shape + out.shape``."""
    block = block.transpose([*range(rank, block.ndim), *range(rank)])
    return block if isinstance(block, core.Tensor) else block.copy(order="C")


def _kind(block, leaf):
    """A derivative by `leaf` as a Tensor if that is one, a float or NumPy scalar if both are."""
    if core.nested():
        return block
    if isinstance(leaf, core.Tensor):
        return block if isinstance(block, core.Tensor) else core.constant(block)
    block = core.settled(block)
    if isinstance(leaf, np.ndarray) or np.ndim(block):
        return np.asarray(block)
    return float(block) if type(leaf) is float else block[()]


def _blocks(run, mode, chunk):
    """The Jacobian of each result by each argument, ``out.shape + in.shape``, in the dtype of the
    argument."""
    trace = run.trace
    inputs, outputs = trace.input_shapes, trace.shapes
    n, m = sum(map(math.prod, inputs)), sum(map(math.prod, outputs))
    if mode == "auto":
        mode = "forward" if n <= m else "reverse"
    if run.recorded():
        if mode == "reverse" or not core.recording_program() and trace.results_finite():
            return _blocks_recorded(trace, mode)
        ways = [_blocks_recorded(trace, way) for way in ("forward", "reverse")]
        return [[trace.rows(k, *both) if trace.differentiable(k) else both[0]
                 for both in zip(*rows)] for k, rows in enumerate(zip(*ways))]
    if mode == "reverse":
        return _blocks_reverse(trace)
    blocks = _blocks_forward(trace, n, m, chunk)
    for k, i, gradients in _rows_not_finite(trace):
        for block, gradient in zip(blocks[k], gradients):
            block.reshape((math.prod(trace.shapes[k]), -1))[i] = np.ravel(gradient)
    return blocks


def _blocks_forward(trace, n, m, chunk):
    inputs, outputs, dtypes = trace.input_shapes, trace.shapes, trace.input_dtypes
    sizes = [math.prod(shape) for shape in inputs]
    starts = [0, *itertools.accumulate(sizes)]
    # 64 MB for the tangents of a result or an argument, unless told otherwise.
    chunk = chunk or min(512, max(1, 8_000_000 // max(n, m, 1)))
    columns = [None] * len(outputs)
    for at in range(0, n, chunk):
        lanes = min(chunk, n - at)
        seeds = [_identity(start - at, size, lanes, shape, dtype) for start, size, shape, dtype
                 in zip(starts, sizes, inputs, dtypes)]
        for k, part in enumerate(trace.push_lanes(seeds, lanes)):
            if part is None:
                continue
            if columns[k] is None:
                columns[k] = np.empty((math.prod(outputs[k]), n), dtype=part.dtype)
            columns[k][:, at:at + lanes] = part.reshape(lanes, -1).T
    return [[np.ascontiguousarray(column[:, start:start + size], dtype).reshape(out + shape)
             if column is not None else np.zeros(out + shape, dtype)
             for start, size, shape, dtype in zip(starts, sizes, inputs, dtypes)]
            for column, out in zip(columns, outputs)]


def _rows_not_finite(trace):
    """Rows of the Jacobian, by reverse sweeps, where a result is not finite: a zero among the
    tangents may be an underflow, and those of a unit vector are none. Yields the result, the entry
    and the derivatives by each argument."""
    if trace.results_finite():
        return
    shapes = trace.shapes
    for k, y in enumerate(trace.plain()):
        if not trace.differentiable(k):
            continue
        for i in np.flatnonzero(~np.isfinite(np.ravel(core.settled(y)))).tolist():
            cotangents = [None] * len(shapes)
            cotangents[k] = np.zeros(shapes[k])
            cotangents[k].reshape(-1)[i] = 1
            yield k, i, trace.pull(cotangents)


def _identity(start, size, lanes, shape, dtype):
    """Row l is the unit vector number l - start; None where all rows are zero."""
    if start >= lanes or start + size <= 0:
        return None
    seeds = np.zeros((lanes, size), dtype=dtype)
    rows = np.arange(max(start, 0), min(start + size, lanes))
    seeds[rows, rows - start] = 1
    return seeds.reshape((lanes, *shape))


def _blocks_reverse(trace):
    inputs, outputs, dtypes = trace.input_shapes, trace.shapes, trace.input_dtypes
    blocks = []
    for k, out in enumerate(outputs):
        size = math.prod(out)
        rows = [np.zeros((size, *shape), dtype=dtype) for shape, dtype in zip(inputs, dtypes)]
        if trace.differentiable(k):
            seed = np.zeros(size)
            cotangents = [None] * len(outputs)
            cotangents[k] = seed.reshape(out)
            for i in range(size):
                seed[i] = 1
                for row, gradient in zip(rows, trace.pull(cotangents)):
                    row[i] = gradient
                seed[i] = 0
        blocks.append([row.reshape(out + row.shape[1:]) for row in rows])
    return blocks


def _blocks_recorded(trace, mode):
    """The same as Tensors, to be differentiated in their turn."""
    inputs, outputs, dtypes = trace.input_shapes, trace.shapes, trace.input_dtypes
    columns = [[[] for _ in inputs] for _ in outputs]
    forward = mode == "forward"
    sweep = trace.columns if forward else trace.pull
    for k, shape in enumerate(inputs if forward else outputs):
        for seed in _units(shape, dtypes[k] if forward else float):
            vectors = [None] * len(inputs if forward else outputs)
            vectors[k] = seed
            for j, part in enumerate(sweep(vectors)):
                if part is None:
                    part = core.vouch(np.zeros(outputs[j]))
                (columns[j][k] if forward else columns[k][j]).append(part)
    return [[_block(parts, -1 if forward else 0, out + shape, dtype)
             for parts, shape, dtype in zip(row, inputs, dtypes)]
            for row, out in zip(columns, outputs)]


def _block(parts, axis, shape, dtype):
    """Rows or columns put together; a single number stays what it is."""
    from fastgrad import numpy as fnp
    if not parts:
        return core.constant(np.zeros(shape, dtype))
    block = fnp.stack(parts, axis=axis).reshape(shape) if shape else parts[0]
    if not isinstance(block, core.Tensor):
        block = core.constant(block)
    return block if block.dtype == dtype else core.cast(block, dtype)


def _units(shape, dtype):
    """The arrays of that shape with a single one, each of its own memory."""
    for i in range(math.prod(shape)):
        seed = np.zeros(shape, dtype)
        seed.reshape(-1)[i] = 1
        yield seed


@of_programs
@named
def hessian(f, argnums=0, has_aux=False, *, chunk=None, sparse=False, argnames=None):
    """The matrix of second derivatives of a function that returns one number.

    Forward over reverse: the gradient is recorded once, then differentiated along many directions
    in one sweep.

    Parameters
    ----------
    f : callable
        Returns one number; takes floats, arrays and trees of them.
    argnums, has_aux, chunk, sparse, argnames
        As in `jacobian`; with `sparse` the colouring makes use of the symmetry (star colouring).

    Returns
    -------
    callable
        With the signature of f. Returns an array of shape ``x.shape + x.shape``, exactly
        symmetric; for trees a tree of trees.

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jacobian`.

    Examples
    --------
    >>> fg.hessian(lambda x: x[0] ** 3 * x[1])(np.array([1.0, 2.0]))
    array([[12.,  3.],
           [ 3.,  0.]])
    """
    name = "hessian"
    gradient, numbers = _gradient(name, f, argnums, has_aux)
    _chunk(name, chunk)
    options = {"chunk": chunk, "sparse": sparse}
    if sparse:
        from fastgrad import _sparse
        derivative = _sparse.hessian(gradient, numbers, has_aux, chunk)
        return _Derivative(hessian, f, derivative, (argnums, has_aux), **options)

    def derivative(*args, **kwargs):
        run = _Run(name, gradient, args, kwargs, numbers, has_aux, None, True)
        blocks = _blocks(run, "forward", chunk)
        if not run.recorded():
            _symmetrise(blocks, run.trace.input_shapes)
        return _tree_of(run, numbers, blocks)

    return _Derivative(hessian, f, derivative, (argnums, has_aux), **options)


def _gradient(name, f, argnums, has_aux, value=False):
    """The gradient that a transformation of second order differentiates, and argnums."""
    numbers = _numbers(name, argnums)
    return core.differentiated(_function(name, f), numbers, has_aux, value, name, 1), numbers


@of_programs
@named
def hessian_diag(f, argnums=0, has_aux=False, *, chunk=None, argnames=None):
    """The second derivatives of a function by each of its inputs: the diagonal of its Hessian.

    Exact, for about the price of the Hessian: the gradient is recorded once, then differentiated
    along each input, many in one sweep; only memory is saved.

    Parameters
    ----------
    f : callable
        Returns one number; takes floats, arrays and trees of them.
    argnums, has_aux, chunk, argnames
        As in `jacobian`.

    Returns
    -------
    callable
        With the signature of f. Returns what `grad` does: the structure, shapes, dtypes and kinds
        of the argument.

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jacobian`.

    Examples
    --------
    >>> fg.hessian_diag(lambda x: x[0] ** 3 * x[1])(np.array([1.0, 2.0]))
    array([12.,  0.])
    """
    name = "hessian_diag"
    gradient, numbers = _gradient(name, f, argnums, has_aux)
    _chunk(name, chunk)

    def derivative(*args, **kwargs):
        run = _Run(name, gradient, args, kwargs, numbers, has_aux, None, True)
        parts = [_kind(part, leaf) for part, leaf in zip(_diagonals(run, chunk), run.leaves)]
        answer = _selected(numbers, run.like_inputs(parts))
        return (answer, run.aux) if has_aux else answer

    return _Derivative(hessian_diag, f, derivative, (argnums, has_aux), chunk=chunk)


def _diagonals(run, chunk):
    """The diagonal of a square Jacobian, an array for each argument, without all of it at once;
    Tensors where they are differentiated in their turn."""
    trace = run.trace
    inputs, dtypes, found = trace.input_shapes, trace.input_dtypes, []
    if run.recorded():
        from fastgrad import numpy as fnp
        blocks = [row[k] for k, row in enumerate(_blocks(run, "forward", chunk))]
        return [fnp.diagonal(block.reshape((math.prod(shape),) * 2)).reshape(shape) if shape
                else block for block, shape in zip(blocks, inputs)]
    for k, (shape, dtype) in enumerate(zip(inputs, dtypes)):
        size = math.prod(shape)
        diagonal = np.zeros(size, dtype)
        step = chunk or min(512, max(1, 8_000_000 // max(size, 1)))
        for at in range(0, size, step):
            lanes = min(step, size - at)
            seeds = [None] * len(inputs)
            seeds[k] = _identity(-at, size, lanes, shape, dtype)
            part = trace.push_lanes(seeds, lanes)[k]
            if part is not None:
                diagonal[at:at + lanes] = np.diagonal(part.reshape(lanes, size), at)
        found.append(diagonal.reshape(shape))
    for k, i, gradients in _rows_not_finite(trace):
        found[k].reshape(-1)[i] = np.ravel(gradients[k])[i]
    return found


def _symmetrise(blocks, shapes):
    """The upper triangle becomes the lower one: they differ by rounding."""
    for i, row in enumerate(blocks):
        for j in range(i):
            rank = len(shapes[i])
            block = row[j].transpose([*range(rank, row[j].ndim), *range(rank)])
            _put_finite(blocks[j][i], block)
        size = math.prod(shapes[i])
        matrix = np.asarray(row[i]).reshape(size, size)
        _put_finite(matrix, np.where(np.tri(size, dtype=bool), matrix, matrix.T))


def _put_finite(block, other):
    """Write what is finite in both: rows of results that are not are what reverse sweeps gave."""
    np.copyto(block, other, where=np.isfinite(block) & np.isfinite(other))


@of_programs
@named(behind=1)
def hvp(f, argnums=0, has_aux=False, *, value=False, argnames=None):
    """Products of the Hessian of a function with a vector, without the Hessian.

    Forward over reverse: the gradient is differentiated along the vector, for about three times
    the price of the gradient.

    Parameters
    ----------
    f, argnums, has_aux, argnames
        As in `grad`.
    value : bool
        Whether to return the value and the gradient as well, from the same run.

    Returns
    -------
    callable
        Takes the arguments of f and, after them, the vector, built like the argument (a tuple of
        these with a tuple of `argnums` or `argnames`); returns the product, built alike, or
        ``(value, gradient, product)``; with `has_aux` aux comes last.

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jvp`.

    Examples
    --------
    >>> fg.hvp(lambda x: x[0] ** 3 * x[1])(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    array([12.,  3.])
    >>> fg.hvp(lambda x: x ** 3, value=True)(2.0, 1.0)
    (8.0, 12.0, 12.0)
    """
    name = "hvp"
    gradient, numbers = _gradient(name, f, argnums, has_aux, value)
    run = gradient

    if value and has_aux:
        def run(*args, **kwargs):
            (y, aux), slope = gradient(*args, **kwargs)
            return (y, slope), aux

    def product(*args, **kwargs):
        if len(args) < 2 and not (args and (numbers == () or no_parameters(f))):
            raise TypeError("hvp: call it with the arguments of the function and then the vector")
        *args, v = args
        positions = _positions(name, numbers, len(args), f)
        tangents = v if isinstance(numbers, tuple) or not positions else (v,)
        if type(tangents) is not tuple and type(tangents) is not list:
            raise TypeError(f"hvp: with argnums={argnums!r} the vector is a tuple, not "
                            f"{type(v).__name__}")
        moving = None if len(args) == len(tangents) == 1 else numbers
        found, slope, *aux = _jvp(name, run, args, tangents, moving, has_aux, kwargs, warn=False)
        answer = (*found, slope[1], *aux) if value else (slope, *aux)
        return answer if len(answer) > 1 else slope

    return _Derivative(hvp, f, product, (argnums, has_aux), value=value)


@of_programs
@named
def laplacian(f, argnums=0, has_aux=False, *, chunk=None, argnames=None):
    """The sum of the second derivatives of a function by each of its inputs.

    Parameters
    ----------
    f : callable
        Returns one number.
    argnums, has_aux, argnames
        As in `grad`.
    chunk : int, optional
        At most so many directions at a time: bounds memory.

    Returns
    -------
    callable
        With the signature of f; returns a number, the trace of the Hessian, in the dtype of the
        arguments (a float if they are floats).

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jacobian`.

    Examples
    --------
    >>> fg.laplacian(lambda x, y: x ** 3 + x * y ** 2, argnums=(0, 1))(1.0, 2.0)
    8.0
    >>> fg.laplacian(lambda x: np.sum(x ** 3))(np.array([1.0, 2.0]))
    np.float64(18.0)
    """
    name = "laplacian"
    gradient, numbers = _gradient(name, f, argnums, has_aux)
    _chunk(name, chunk)

    def derivative(*args, **kwargs):
        run = _Run(name, gradient, args, kwargs, numbers, has_aux, None, True)
        parts = _diagonals(run, chunk)
        if run.recorded():
            total = sum([part.sum() for part in parts], 0.0)
        else:
            total = sum([float(np.sum(part)) for part in parts], 0.0)
            if any(type(leaf) is not float for leaf in run.leaves):
                total = np.result_type(*run.trace.input_dtypes).type(total)
            if any(isinstance(leaf, core.Tensor) for leaf in run.leaves):
                total = core.constant(total)
        return (total, run.aux) if has_aux else total

    return _Derivative(laplacian, f, derivative, (argnums, has_aux), chunk=chunk)


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
    return _trees.tree_map(lambda leaf: leaf.detach() if isinstance(leaf, core.Tensor) else leaf, x)
