"""Functions that are made of functions: methods, partial objects, derivatives, programs; and the
Python function innermost in them."""

import functools
import types

__all__ = ["bound_to", "innermost", "lifted", "parts_of", "rewrap"]


def _of_fastgrad(x):
    return (type(x).__module__ or "").partition(".")[0] == "fastgrad"


def parts_of(wrapper):
    """How fastgrad's derivatives are made: (maker, arguments after the function), or None."""
    if not hasattr(type(wrapper), "_parts") or not hasattr(wrapper, "__wrapped__"):
        return None
    try:
        made = wrapper._parts()
    except Exception:
        return None
    if type(made) is tuple and len(made) == 2 and made[1] and made[1][0] is wrapper.__wrapped__:
        return made[0], made[1][1:]
    return None


def innermost(function):
    """The Python function inside of methods, partial objects and derivatives; None if there is
    none that can be replaced."""
    while not isinstance(function, types.FunctionType):
        if isinstance(function, types.MethodType):
            function = function.__func__
        elif isinstance(function, functools.partial):
            function = function.func
        elif _of_fastgrad(function) and parts_of(function) is not None:
            function = function.__wrapped__
        else:
            return None
    return function


def bound_to(function):
    """The instance that the innermost function is bound to, or None."""
    while not isinstance(function, (types.FunctionType, types.MethodType)):
        if isinstance(function, functools.partial):
            function = function.func
        elif innermost(function) is not None:
            function = function.__wrapped__
        else:
            return None
    return function.__self__ if isinstance(function, types.MethodType) else None


def rewrap(function, clone, instance):
    """The same function with another one innermost, bound to another instance."""
    if isinstance(function, types.FunctionType):
        return clone
    if isinstance(function, types.MethodType):
        return types.MethodType(clone, instance)
    if isinstance(function, functools.partial):
        return functools.partial(rewrap(function.func, clone, instance), *function.args,
                                 **function.keywords)
    maker, rest = parts_of(function)
    return maker(rewrap(function.__wrapped__, clone, instance), *rest)


def lifted(state, names, values):
    """Copies of the innermost function and of its instance, in which names have other values.

    names : list of ("cell", "global" or "attribute", name)
    """
    function, instance = state.innermost, state.instance
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
    space = function.__globals__
    if any(kind == "global" for kind, _ in names):
        space = dict(space)
    if any(kind == "attribute" for kind, _ in names):
        instance = object.__new__(type(instance))
        instance.__dict__.update(state.instance.__dict__)
    for (kind, name), value in zip(names, values):
        if kind == "cell":
            cells[name] = types.CellType(value)
        elif kind == "global":
            space[name] = value
        else:
            instance.__dict__[name] = value
    clone = types.FunctionType(function.__code__, space, function.__name__, function.__defaults__,
                               tuple([cells[name] for name in function.__code__.co_freevars]))
    clone.__kwdefaults__ = function.__kwdefaults__
    clone.__dict__.update(function.__dict__)
    clone.__module__ = function.__module__
    return clone, instance
