"""What the arguments of a function are called, and which of them a transformation is asked for.

Nothing of the core is used here: the core and the numeric twin use it."""

import functools
import inspect

from fastgrad._core import trees

__all__ = ["Names", "argument_of", "called", "name_of", "no_parameters"]


def name_of(f):
    """How messages call a function. Never its repr: that of a partial prints all that is bound."""
    name = getattr(f, "__name__", None)
    if isinstance(name, str):
        return name
    kind = type(f)
    if isinstance(f, functools.partial):
        return f"{kind.__name__} of {name_of(f.func)}"
    return kind.__name__


def no_parameters(f):
    """Whether a function takes no arguments at all."""
    try:
        return not inspect.signature(f).parameters
    except (TypeError, ValueError):
        return False


class Names:
    """Finds the arguments that argnames names, call by call."""

    def __init__(self, name, f, argnames, argnums=None):
        self.name, self.f = name, f
        self.single = isinstance(argnames, str)
        self.names = (argnames,) if self.single else argnames
        if type(self.names) not in (tuple, list) or not all(
                [isinstance(x, str) for x in self.names]):
            raise TypeError(f"{name}: argnames must be a str or a tuple of str, not "
                            f"{trees.shown(argnames)}")
        self.names = tuple(self.names)
        if argnums is not None and not (type(argnums) is int and argnums == 0):
            raise TypeError(f"{name}: give argnums or argnames, not both")
        if len(set(self.names)) != len(self.names):
            raise TypeError(f"{name}: argnames={argnames!r} names an argument twice")
        self.places, self.defaults, self.open = {}, {}, True
        try:
            parameters = inspect.signature(f).parameters.values()
        except (TypeError, ValueError):         # functions written in C may have none
            parameters = ()
        else:
            self.open = any([p.kind is p.VAR_KEYWORD for p in parameters])
        for k, p in enumerate(parameters):
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                self.places[p.name] = k
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                self.defaults[p.name] = p.default
        for x in self.names:
            if not self.open and x not in self.places and x not in self.defaults:
                known = ", ".join(map(repr, {**self.places, **self.defaults})) or "none"
                raise TypeError(f"{name}: argnames={argnames!r}: {name_of(f)} has no argument "
                                f"{x!r}; its arguments are {known}")

    def find(self, args, kwargs):
        """The arguments by position and by keyword, argnums, and which of the names stand at the
        end, because they are not given by position."""
        args, kwargs, numbers, moved = list(args), dict(kwargs), [], []
        count = len(args)
        for x in self.names:
            if x in kwargs:
                value = kwargs.pop(x)
            elif self.places.get(x, count) < count:
                numbers.append(self.places[x])
                continue
            elif self.defaults.get(x, inspect.Parameter.empty) is not inspect.Parameter.empty:
                value = self.defaults[x]
            else:
                raise TypeError(f"{self.name}: the call gives no argument {x!r}, which argnames "
                                "names")
            numbers.append(len(args))
            moved.append(x)
            args.append(value)
        return args, kwargs, numbers[0] if self.single else tuple(numbers), tuple(moved)

    def function(self, count, moved):
        """f, of so many arguments by position, of which the last ones go by those names."""
        f, count = self.f, count - len(moved)
        if not moved:
            return f

        def call(*args, **kwargs):
            return f(*args[:count], **dict(zip(moved, args[count:])), **kwargs)

        functools.update_wrapper(call, f)
        call._argument_labels = {count + k: repr(x) for k, x in enumerate(moved)}
        return call


def called(name, f, args, kwargs, argnums, argnames):
    """f, its arguments and argnums as they are after argnames has been looked at."""
    if argnames is None:
        return f, args, kwargs, argnums
    if argnums is not None:
        raise TypeError(f"{name}: give argnums or argnames, not both")
    finder = Names(name, f, argnames)
    args, kwargs, numbers, moved = finder.find(args, kwargs)
    return finder.function(len(args), moved), args, kwargs, numbers


def argument_of(f, i):
    """How messages call an argument."""
    labels = getattr(f, "_argument_labels", None) or getattr(
        getattr(f, "__wrapped__", None), "_argument_labels", None)      # of a gradient
    return f"argument {labels[i] if labels and i in labels else i}"
