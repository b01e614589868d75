"""Whether a call changes an array that was there before it, as far as code tells.

`vmap` records one lane and replays it for all, or calls the function for each lane. Where a call
changes an array from outside, the recorded run would be one change too many, so that it must be
known before: most functions have nothing that changes an object, which is soon seen, and of the
others the code is searched (code/effects.py).
"""

import functools
import types

import numpy as np

from fastgrad._core import core
from fastgrad._core.program import ABSENT

from . import known, watch
from .effects import _Search
from .kinds import (
    _CHANGING,
    _CHANGING_FIRST,
    _CHANGING_NAMES,
    _NUMBERS,
    FUNCTIONS,
    PARTS,
    Known,
    _class_attribute,
    _of_library,
)
from .names import names_in, own_attribute
from .values import origins

__all__ = ["NOTHING", "changed_array", "may_change"]

Tensor = core.Tensor


class Reached:
    """What the code of a function that changes nothing names, as long as that is not told by the
    contents of something: while all of it is the same, the function changes nothing again."""

    def __init__(self, told=True):
        self.told = told
        self.functions, self.names, self.cells = [], [], []

    def same(self):
        if not self.told:
            return False
        for function, code, defaults in self.functions:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
        for names, name, found in self.names:
            now = names.get(name, ABSENT)
            if now is not found and type(now) is not found:
                return False
        for cell, found in self.cells:
            now = ABSENT if cell == _EMPTY else cell.cell_contents
            if now is not found and type(now) is not found:
                return False
        return True

    @staticmethod
    def known_by(x):
        """x, or its type, which is enough of an array and keeps none alive."""
        return type(x) if isinstance(x, (np.ndarray, Tensor)) else x


NOTHING = Reached(told=False)


def changed_array(function, args, kwargs):
    """An array from outside that a call with Tensors changes, in words, or None."""
    search = _ArraySearch(set())
    search.tensors = True
    search.call([Known(function, "")], [[search.given(x)] for x in args],
                {name: [search.given(x)] for name, x in kwargs.items()})
    return search.reason


# Of code that changes something: what its values are, and what it names.
_STORES = frozenset(["set attribute", "delete attribute", "set item", "delete item"])
_CHANGING_WORDS = frozenset([*[name for names in _CHANGING.values() for name in names],
                             *[name for names in _CHANGING_NAMES.values() for name in names],
                             *[f.__name__ for f in _CHANGING_FIRST]])


@functools.lru_cache(maxsize=4096)
def _code_may_change(code):
    """Whether code has anything that may change an object."""
    names = names_in(code)
    return (bool(names.dynamic or names.code.unknown)
            or any(map(_may_store, names.code.everything))
            or not _CHANGING_WORDS.isdisjoint(names.attributes)
            or not _CHANGING_WORDS.isdisjoint(names.globals))


def _may_store(value):
    """Whether a value is a change of something that may have been there before."""
    if value.kind in ("store", "delete"):       # of a local name: it is the call's own
        return not value.parts or value.parts[-1].kind != "variable" or value.parts[-1].outer
    if value.kind == "inplace":
        return any([origin.kind not in ("operator", "inplace", "constant")
                    for origin in origins(value.parts[0])])
    return value.kind in _STORES


def may_change(function):
    """None where code that a function reaches has something that may change an object; otherwise
    what it reaches."""
    rest, met, reached = [(function, ())], set(), Reached()
    while rest:
        x, attributes = rest.pop()
        # (Of another object each function may name something else.)
        mark = id(x), None if isinstance(x, types.FunctionType) else id(attributes)
        if mark in met:
            continue
        if len(met) > FUNCTIONS:
            return None
        met.add(mark)
        if isinstance(x, types.FunctionType):
            if "__wrapped__" in vars(x):
                reached.told = False
                rest.append((x.__wrapped__, ()))
            reached.functions.append((x, x.__code__, x.__defaults__))
            if _of_library(x):
                continue
            if _code_may_change(x.__code__):
                return None
            names = names_in(x.__code__)
            for name in names.globals:
                found = x.__globals__.get(name, ABSENT)
                reached.names.append((x.__globals__, name, reached.known_by(found)))
                if found is not ABSENT:
                    rest.append((found, names.attributes))
            for cell in x.__closure__ or ():
                if cell == _EMPTY:      # (which compares no contents)
                    reached.told = False
                else:
                    reached.cells.append((cell, reached.known_by(cell.cell_contents)))
                    rest.append((cell.cell_contents, names.attributes))
            rest += [(default, names.attributes) for default in x.__defaults__ or ()]
        elif isinstance(x, types.MethodType):
            reached.told = False
            rest += [(x.__func__, ()), (x.__self__, names_in(x.__func__.__code__).attributes
                                        if isinstance(x.__func__, types.FunctionType) else ())]
        elif isinstance(x, functools.partial):
            reached.told = False
            rest += [(part, ()) for part in (x.func, *x.args, *x.keywords.values())]
        elif type(x) in (list, tuple):
            reached.told = reached.told and type(x) is tuple
            rest += [(part, attributes) for part in x[:PARTS]]
        elif type(x) is dict:
            reached.told = False
            rest += [(part, attributes) for part in list(x.values())[:PARTS]]
        elif isinstance(x, types.ModuleType):
            if not watch._known_module(x.__name__):
                for name in attributes:
                    found = vars(x).get(name, ABSENT)
                    reached.names.append((vars(x), name, reached.known_by(found)))
                    if found is not ABSENT:
                        rest.append((found, attributes))
        elif isinstance(x, (np.ndarray, Tensor)):
            continue
        else:
            kind = x if isinstance(x, type) else type(x)
            rest.append((own_attribute(x, "__wrapped__"), ()))
            if watch._known_module(known.module_of(kind)):
                continue
            reached.told = False
            held = {} if kind is x else own_attribute(x, "__dict__") or {}
            for name in {"__call__", "__init__", "__post_init__", *attributes}:
                found = _class_attribute(kind, name)
                rest.append((found.fget if isinstance(found, property) else
                             getattr(found, "__func__", found), attributes))
                if name in held:
                    rest.append((held[name], attributes))
    return reached


_EMPTY = types.CellType()


class _ArraySearch(_Search):
    """A search for changes of arrays alone, where no Tensor is written: they refuse that.
    What is found is remembered, so that no branch is shut for what a constant is now."""

    whole = True

    def found(self, what, value):
        pass

    def _changes(self, x, value, frame=None):
        written = [] if frame is None else [
            y for part in value.parts[1:] for y in self.look(part, frame)]
        if isinstance(x, Known) and isinstance(x.object, np.ndarray) and not any(
                [y in _NUMBERS for y in written]):
            super().found(f"`{x.label}`", value)
