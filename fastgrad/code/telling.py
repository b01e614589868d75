"""Whether a number is only told to people: printed, logged, warned of.

The value of a Tensor that Python code sees may steer what the code does next, so that a recording
in which one is seen is not replayed. What goes into `print`, or into a logger, and nowhere else
steers nothing: it is told when the function is recorded, and not when it is replayed.
"""

import bisect
import builtins
import dis
import functools
import logging
import sys
import types
import warnings

from .libraries import _known_file
from .value import origins
from .values import read

__all__ = ["only_told"]

_MISSING = object()
_LEVELS = frozenset("debug info warning warn error critical exception log".split())

# What makes a text or a number of a number, and does nothing else.
_MAKERS = frozenset(map(id, (float, int, str, repr, format, round, abs, len)))
_METHODS = frozenset("item tolist numpy detach format join strip ljust rjust center".split())
_MADE = frozenset("format operator unary item built join".split())


def only_told(until):
    """The line of the user's code that runs now, if it sees a number to tell it alone; else None.

    until : code object
        That by which the user's function was called.
    """
    frame, found = sys._getframe(1), None
    while frame is not None and frame.f_code is not until:
        file = frame.f_code.co_filename
        if file == logging.__file__:
            found = None                # what a handler does is the logger's
        elif found is None and not _known_file(file):
            found = frame
        frame = frame.f_back
    if found is None:
        return None
    frame = found
    code = read(frame.f_code)
    place = bisect.bisect_right(_offsets(frame.f_code), frame.f_lasti) - 1
    values = [value for value in code.values if value.place == place]
    if code.unknown or not values or not all(
            [_tells(value, frame) or _is_text(value, frame, set()) for value in values]):
        return None
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"


@functools.lru_cache(maxsize=1024)
def _offsets(code):
    """Where its instructions begin. (Of a call of Python code, a frame tells where it ends.)"""
    return [step.offset for step in dis.get_instructions(code)]


def _is_text(value, frame, on_the_way):
    """Whether something is made here that goes into what tells it, and nowhere else."""
    if value in on_the_way:
        return True
    on_the_way.add(value)
    if value.kind == "call":
        if not all([_makes(origin, frame) for origin in origins(value.parts[0])]):
            return False
    elif value.kind not in _MADE or value.kind == "operator" and not _never_raises(value):
        return False
    uses = read(frame.f_code).uses_of(value)
    return bool(uses) and all(
        [use.code is value.code and not (use.kind == "item" and k)
         and (_tells(use, frame) or _is_text(use, frame, on_the_way)) for use, k in uses])


def _never_raises(operator):
    """Whether an operator that makes a text does so whatever the number is: 1 / 0 is an error."""
    return operator.name in ("+", "-", "*") or operator.name == "%" and all(
        [x.kind == "constant" and isinstance(x.name, str) for x in origins(operator.parts[0])])


def _makes(origin, frame):
    if origin.kind == "attribute":
        return origin.name in _METHODS
    return id(_object(origin, frame)) in _MAKERS


def _tells(value, frame):
    """Whether a value is a call that tells."""
    if value.kind != "call" or value.name is None or "file" in value.name:
        return False
    for origin in origins(value.parts[0]):
        found = _object(origin, frame)
        if found is print or found is warnings.warn:
            continue
        if origin.kind != "attribute" or origin.name not in _LEVELS:
            return False
        if not all([_is_logger(base, frame) for base in origins(origin.parts[0])]):
            return False
    return True


def _is_logger(value, frame):
    if value.kind == "call":
        return _object(value.parts[0], frame) is logging.getLogger
    found = _object(value, frame)
    return found is logging or type(found) in (logging.Logger, logging.RootLogger)


def _object(value, frame):
    """What stands behind a name, or behind a name in a module; _MISSING for anything else."""
    found = origins(value)
    if len(found) != 1:
        return _MISSING
    value = found[0]
    if value.kind == "global":
        return frame.f_globals.get(value.name, vars(builtins).get(value.name, _MISSING))
    if value.kind == "variable":
        return frame.f_locals.get(value.name, _MISSING)
    if value.kind == "attribute":
        base = _object(value.parts[0], frame)
        if isinstance(base, types.ModuleType):
            return vars(base).get(value.name, _MISSING)
        if value.name in getattr(base, "__dict__", ()):         # self.log
            return base.__dict__[value.name]
    return _MISSING
