"""Floats that become inputs: a temperature, a step counter, a rate that changes from call to call.

A float that a function reaches by a name is compared at each call. One that changes would be
recorded again and again, so that after its first change it becomes an input of the program: a copy
of the function is recorded in which the name stands for a Tensor (`watch.lifted`). A Tensor does
what a float does in arithmetic, and not elsewhere: ``isinstance(T, float)``, ``table[T]``,
``cached(T)``, ``np.maximum(x, T)`` at a tie. So this is done only where the code tells that each
use of the name is an operand of arithmetic, or of a comparison, which becomes a guard; and where
the copy stands for all that reads the name: the function must not find itself by another way.
"""

import numpy as np

from fastgrad.code.flow import only_taken_from
from fastgrad.code.names import Scope
from fastgrad.code.values import origins, read

from .paths import differences, lifted_name, lifted_value, only_reader

__all__ = ["liftable", "stand_ins"]

# ("**" is none of them: a power with a literal exponent has a derivative of its own where the base
# vanishes, and a negative float has complex powers.)
_OPERATORS = frozenset("+ - * / += -= *= /=".split())
_COMPARISONS = frozenset("< <= > >= == !=".split())


def liftable(entry, state):
    """The floats that have changed since a recording, where that is all that has, and they may
    become inputs.

    Parameters
    ----------
    entry : Signature
    state : Watch

    Returns
    -------
    tuple of (kind, name)
    """
    for path in entry.paths:
        old = path.watch
        if old is None or len(old.tokens) != len(state.tokens):
            continue
        names = list(path.lifted)
        for k in differences(old.tokens, state.tokens):
            if k not in state.origins or old.tokens[k][0] != state.tokens[k][0]:
                break
            name = lifted_name(state, k)
            if name is None or name in entry.guarded or not _may_be_input(state, *name):
                break
            if name not in names:
                names.append(name)
        else:
            if len(names) > len(path.lifted):
                return tuple(names)
    return ()


def _may_be_input(state, kind, name):
    """Whether a Tensor does in place of a float in all that reads it."""
    if id(state.innermost) in state.met_again or not only_reader(state, kind, name):
        return False
    functions = state.functions if kind == "attribute" else [state.innermost]
    return all([_only_computes(function.__code__, kind, name) for function in functions])


def _only_computes(code, kind, name):
    """Whether all that is done with what is read by a name, and with numbers that are computed from
    it and other numbers alone, is to compute with it, to compare it, or to return it."""
    # (1.0 / 0.0 raises an error, which may be caught; a Tensor gives infinity.)
    catches, code = bool(code.co_exceptiontable), read(code)
    if code.unknown:
        return False
    reads = [code.variables.get(name)] if kind == "cell" else [
        value for value in code.everything if value.kind == kind and value.name == name]
    numbers, seen = [x for x in reads if x is not None], set()
    while numbers:
        number = numbers.pop()
        if number in seen:
            continue
        seen.add(number)
        for use, place in code.uses_of(number):
            if use.kind == "unary" and use.name in ("-", "+") or use.kind in (
                    "operator", "inplace") and use.name in _OPERATORS and not (
                    catches and use.name in ("/", "/=")):
                # With a Tensor it is one in either case.
                if all([_is_number(part, seen) for k, part in enumerate(use.parts) if k != place]):
                    numbers.append(use)
            elif use.kind == "compare" and use.name in _COMPARISONS:
                if any([not _is_number(part, seen) for part in use.parts]):
                    continue
                if any([other.kind != "test" for other, _ in code.uses_of(use)]):
                    return False
            elif use.kind not in ("test", "return"):
                return False
    return True


_COMPUTES = ("operator", "inplace", "unary")


def _is_number(value, computed):
    """Whether a value may be a number of Python's whatever the function is called with: a constant,
    something reached by a name, or computed from these alone."""
    found, origins_of, rest = set(), {}, [value]
    while rest:                     # a value of a loop is computed from itself
        part = rest.pop()
        if part not in origins_of:
            origins_of[part] = origins(part)
            rest += [x for origin in origins_of[part] if origin.kind in _COMPUTES
                     for x in origin.parts]
    size = -1
    while size != len(found):
        size = len(found)
        for part, sources in reversed(origins_of.items()):
            if any([origin in computed or origin.kind in ("constant", "global", "attribute")
                    or origin.kind == "variable" and origin.outer
                    or origin.kind in _COMPUTES and found.issuperset(origin.parts)
                    for origin in sources]):
                found.add(part)
    return value in found


# ---- arrays that Tensors index --------------------------------------------------------------

def stand_ins(state):
    """The arrays that the innermost function reads by a name and does no more with than a Tensor
    allows. ``X[i]`` of an array and a Tensor asks for the Tensor's value; of two Tensors, it is
    recorded, and both are live.

    Returns
    -------
    tuple of (kind, name)
    """
    function, instance = state.innermost, state.instance
    if function is None or id(function) in state.met_again:
        return ()
    scope, found = Scope(function), []
    code = scope.names.code
    if code.unknown:
        return ()
    names = {(value.kind, value.name) for value in code.everything
             if value.kind in ("global", "attribute")}
    names |= {("cell", name) for name, value in code.variables.items() if value.outer}
    for kind, name in sorted(names):
        if kind == "attribute" and (instance is None or type(vars(instance)) is not dict):
            continue
        if (type(lifted_value(state, (kind, name))) is np.ndarray
                and only_reader(state, kind, name) and only_taken_from(scope, kind, name)):
            found.append((kind, name))
    return tuple(found)
