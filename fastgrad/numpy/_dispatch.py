"""How a function of the namespace meets its operands.

`implements(np.mean)` turns a rule, which composes differentiable operations, into the public
function: with a floating Tensor among the operands the rule runs, with boolean and integer
Tensors NumPy computes the value (or the rule again, where the result may be a view), and without
Tensors NumPy itself is called. The public function also answers for `np.mean(t)`. `without_rule` is
for functions nobody has written a rule for; those without derivative are in numpy/_plain.py.

Start reading here, then _create.py (Tensors from nested sequences), then any other module.
"""

import functools

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from fastgrad._core import core

Tensor = core.Tensor

PLAIN, VALUES, FLOATING = 0, 1, 2       # no Tensor; boolean or integer ones only; a floating one
Deferred, NotComputed = core.Deferred, core.NotComputed

_PYTHONS = frozenset([float, int, bool, list, tuple])
_TENSOR_DTYPES = frozenset("?bhilqBHILQfd")


def kind_of(operands):
    """PLAIN, VALUES or FLOATING: the strongest kind among operands and nested lists of them."""
    found = PLAIN
    for operand in operands:
        if isinstance(operand, Tensor):
            if operand.requires_grad or operand.dtype.kind == "f":
                return FLOATING
            found = VALUES
        elif isinstance(operand, (list, tuple)):
            # A long list of numbers is told from one that holds Tensors at the speed of C.
            types = set(map(type, operand))
            if Tensor in types or list in types or tuple in types:
                found = max(found, kind_of(operand))
                if found == FLOATING:
                    return FLOATING
    return found


def deferring(function):
    """Let a function that meets an expression (fastgrad.variable) be a part of one: expressions
    refuse what is done to values, and the call is left to them."""
    @functools.wraps(function)
    def deferred(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except NotComputed:
            return defer(deferred, args, kwargs)

    return deferred


def defer(function, args, kwargs):
    """The call as an expression; from within `except NotComputed`."""
    if (found := _deferred((args, *kwargs.values()))) is None:
        raise               # nothing that this call knows of
    return found.defer(function, args, kwargs)


def _deferred(operands):
    """The first expression among operands and nested lists of them."""
    for operand in operands:
        if isinstance(operand, Deferred):
            return operand
        if isinstance(operand, (list, tuple)) and (found := _deferred(operand)) is not None:
            return found
    return None


def values_of(operand):
    """`operand` with the value in place of each Tensor, in nested lists and tuples too."""
    if isinstance(operand, Tensor):
        return core.value_seen(operand)
    if isinstance(operand, (list, tuple)) and kind_of(operand):
        return type(operand)(map(values_of, operand))
    if isinstance(operand, np.ndarray):
        if type(operand) is not np.ndarray:
            refuse_kind(operand)
        if operand.dtype.hasobject:     # as out=, NumPy 2.4 reads what it has not written
            raise TypeError("fastgrad: object arrays are not supported; write .astype(float)")
    return operand


def refuse_kind(array):
    """Raise TypeError for a masked array, whose mask would be lost beside Tensors, and for
    np.matrix, whose product is another one."""
    if (why := core.array_kind(array)) is not None:
        raise TypeError(f"fastgrad: {why}")


def as_array(a):
    """`numpy.asarray` that refuses masked arrays, np.matrix, and the arrays of other tools."""
    if isinstance(a, np.ndarray):
        if type(a) is not np.ndarray:
            refuse_kind(a)
    elif type(a) not in _PYTHONS:
        core.refuse_others(a)
    return np.asarray(a)


def wrapped(result):
    """Arrays and NumPy scalars as unrecorded Tensors, also in tuples; all else as it is."""
    if isinstance(result, (np.ndarray, np.generic)):
        if result.dtype.char not in _TENSOR_DTYPES:
            return result
        # (A scalar as it is, which a Tensor tells from a 0-d array.)
        return core.constant(as_array(result) if type(result) is not np.ndarray
                             and isinstance(result, np.ndarray) else result)
    if isinstance(result, (list, tuple)):
        results = map(wrapped, result)
        return type(result)(*results) if hasattr(result, "_fields") else type(result)(results)
    return result


# What tells shapes and dtypes alone: no program depends on it. Filled by numpy/_plain.py.
OF_SHAPE = set()


def _shaped(operand):
    """An array of the operand's shape and dtype."""
    if isinstance(operand, Tensor):
        if core.gives_way(operand):
            return operand.dtype.type().item()
        return np.broadcast_to(np.zeros((), operand.dtype), operand.shape)
    return operand


def evaluated(numpy_function, args, kwargs):
    """NumPy's result on the values of the operands, as Tensors without derivative."""
    if numpy_function in OF_SHAPE:
        return numpy_function(*map(_shaped, args), **kwargs)
    name = f"numpy.{getattr(numpy_function, '__name__', None)}"
    if core.recording_program():
        return core.derive(name if core.CALLED.get(name) is numpy_function else None,
                           numpy_function, tuple(args), kwargs)
    return core.looked(wrapped(numpy_function(
        *map(values_of, args), **{key: values_of(x) for key, x in kwargs.items()})), args, kwargs,
        name, numpy_function)


def known(operand):
    """While a program is recorded, the Tensor that stands for a known array, in nested sequences
    too; anything else as it is."""
    if isinstance(operand, np.ndarray):
        tensor = core.known_array(operand)
        return operand if tensor is None else tensor
    if isinstance(operand, (list, tuple)):
        return type(operand)(map(known, operand))
    return operand


def holds_known(operands):
    """Whether one of the operands, or an entry of a list of them, is such an array."""
    return any(isinstance(x, np.ndarray) and core.known_array(x) is not None
               or isinstance(x, (list, tuple)) and holds_known(x) for x in operands)


def implements(*numpy_functions, views=False):
    """Make a rule the implementation of NumPy functions of the same parameters, here and in
    `np.f(t)`.

    The first one computes when no operand is a floating Tensor; None stands for a function that
    this NumPy does not have. With `views` what is returned may share memory with an operand: the
    rule serves boolean and integer Tensors too, as NumPy on their values would give copies.
    """
    by_rule = VALUES if views else FLOATING

    def decorate(rule):
        numpy_function = numpy_functions[0] or rule

        @functools.wraps(rule)
        def function(*args, **kwargs):
            try:                                        # costs nothing
                if args and type(args[0]) is Tensor and args[0].requires_grad:
                    return rule(*args, **kwargs)        # nearly always; the rest takes 300 ns
                kind = kind_of(args)
                if kwargs and kind != FLOATING:
                    kind = max(kind, kind_of(kwargs.values()))
                if kind >= by_rule:
                    return rule(*args, **kwargs)
                if kind == PLAIN:
                    if core.recording_program() and holds_known(args):
                        return function(*map(known, args), **kwargs)
                    return numpy_function(*args, **kwargs)
                return evaluated(numpy_function, args, kwargs)
            except NotComputed:
                return defer(function, args, kwargs)
            except (ValueError, IndexError, ArithmeticError) as error:
                core.mark_raised(error, args)
                raise

        return register(function, *numpy_functions)
    return decorate


def without_rule(numpy_function, name):
    """`numpy_function` of plain operands and Tensors without derivative; an error for others."""
    @functools.wraps(numpy_function)
    @deferring
    def function(*args, **kwargs):
        if kind_of(args) or kind_of(kwargs.values()):
            return core.unruled(numpy_function, name, args, kwargs)
        return numpy_function(*args, **kwargs)

    return function


def register(function, *numpy_functions):
    """Let `function` answer for `numpy_functions` when they meet a Tensor."""
    for numpy_function in numpy_functions:
        if numpy_function is not None:
            core.ARRAY_FUNCTIONS[numpy_function] = function
    return function


def refuse(name, out=None, where=True, **options):
    """Raise TypeError for options of NumPy's that do not exist for Tensors."""
    if out is None and where is True and not options:
        return
    if out is not None:
        raise TypeError(f"{name}: out= is not supported with Tensors, as it would overwrite a "
                        f"recorded value{core.user_line()}. Rebind instead: `y = fnp.{name}(...)`.")
    if where is not True:
        options["where"] = where
    for option, value in options.items():
        if value is not None:
            raise TypeError(f"{name}: {option}= is not supported with Tensors{core.user_line()}. "
                            "Replace what is to be left out by fnp.where(mask, x, neutral) first.")


def axes_of(name, axis, ndim):
    """An axis, or a tuple of them, as a tuple of non-negative ones; None stays None.

    Errors name the function `name`: AxisError for an axis out of range, ValueError for one that
    is there twice, TypeError for what is no int.
    """
    if axis is None:
        return None
    try:
        if not isinstance(axis, tuple):
            return (normalize_axis_index(axis, ndim, name),)
        axes = tuple([normalize_axis_index(k, ndim, name) for k in axis])
    except TypeError:
        raise TypeError(f"{name}: axis={axis!r} is neither an int nor a tuple of ints") from None
    if len(set(axes)) != len(axes):
        raise ValueError(f"{name}: duplicate value in 'axis' {axis}")
    return axes


def floating(name, dtype):
    """The dtype of a differentiable result: float32 or float64; TypeError for any other."""
    dtype = np.dtype(dtype)
    if dtype.char not in "fd":
        raise TypeError(f"{name}: a Tensor cannot become {dtype}; its derivative exists as float32 "
                        f"and float64 only. For the value alone use "
                        f"t.detach().numpy().astype({str(dtype)!r}).")
    return dtype
