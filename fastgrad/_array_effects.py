"""Whether a call changes an array that was there before it, as far as code tells.

`vmap` records one lane and replays it for all, or calls the function for each lane. Where a call
changes an array from outside, the recorded run would be one change too many, so that it must be
known before: most functions have nothing that changes an object, which is soon seen, and of the
others the code is searched (_effects.py).
"""

import functools
import types

import numpy as np

from fastgrad._core import core

from . import _watch
from ._effects import (
    _CHANGING,
    _CHANGING_FIRST,
    _CHANGING_NAMES,
    _NUMBERS,
    FUNCTIONS,
    PARTS,
    Known,
    _class_attribute,
    _of_library,
    _Search,
)
from ._names import names_in, own_attribute

__all__ = ["changed_array"]

Tensor = core.Tensor


def changed_array(function, args, kwargs):
    """An array from outside that a call with Tensors changes, in words, or None."""
    if not _may_change(function):       # 3 us, and a search takes 200
        return None
    search = _ArraySearch(set())
    search.tensors = True
    search.call([Known(function, "")], [[search.given(x)] for x in args],
                {name: [search.given(x)] for name, x in kwargs.items()})
    return search.reason


# Of code that changes something: what its values are, and what it names.
_STORES = frozenset(["store", "delete", "set attribute", "delete attribute", "set item",
                     "delete item", "inplace"])
_CHANGING_WORDS = frozenset([*[name for names in _CHANGING.values() for name in names],
                             *[name for names in _CHANGING_NAMES.values() for name in names],
                             *[f.__name__ for f in _CHANGING_FIRST]])


@functools.lru_cache(maxsize=4096)
def _code_may_change(code):
    """Whether code has anything that may change an object."""
    names = names_in(code)
    return (not _STORES.isdisjoint([value.kind for value in names.code.everything])
            or not _CHANGING_WORDS.isdisjoint(names.attributes)
            or not _CHANGING_WORDS.isdisjoint(names.globals))


def _may_change(function):
    """Whether code that a function reaches has anything that may change an object."""
    rest, met = [(function, ())], set()
    while rest:
        x, attributes = rest.pop()
        if id(x) in met or len(met) > FUNCTIONS:
            continue
        met.add(id(x))
        if isinstance(x, types.FunctionType):
            if "__wrapped__" in vars(x):
                rest.append((x.__wrapped__, ()))
            if _of_library(x):
                continue
            if _code_may_change(x.__code__):
                return True
            names = names_in(x.__code__)
            rest += [(x.__globals__[name], names.attributes) for name in names.globals
                     if name in x.__globals__]
            for cell in x.__closure__ or ():
                if cell != _EMPTY:      # (which compares no contents)
                    rest.append((cell.cell_contents, names.attributes))
            rest += [(default, names.attributes) for default in x.__defaults__ or ()]
        elif isinstance(x, types.MethodType):
            rest += [(x.__func__, ()), (x.__self__, names_in(x.__func__.__code__).attributes
                                        if isinstance(x.__func__, types.FunctionType) else ())]
        elif isinstance(x, functools.partial):
            rest += [(part, ()) for part in (x.func, *x.args, *x.keywords.values())]
        elif type(x) in (list, tuple):
            rest += [(part, attributes) for part in x[:PARTS]]
        elif type(x) is dict:
            rest += [(part, attributes) for part in list(x.values())[:PARTS]]
        elif isinstance(x, (types.ModuleType, np.ndarray, Tensor)):
            continue
        else:
            kind = x if isinstance(x, type) else type(x)
            rest.append((own_attribute(x, "__wrapped__"), ()))
            if _watch._known_module(kind.__module__):
                continue
            held = {} if kind is x else own_attribute(x, "__dict__") or {}
            for name in {"__call__", "__init__", "__post_init__", *attributes}:
                found = _class_attribute(kind, name)
                rest.append((found.fget if isinstance(found, property) else
                             getattr(found, "__func__", found), attributes))
                if name in held:
                    rest.append((held[name], attributes))
    return False


_EMPTY = types.CellType()


class _ArraySearch(_Search):
    """A search for changes of arrays alone, where no Tensor is written: they refuse that."""

    def found(self, what, value):
        pass

    def _changes(self, x, value, frame=None):
        written = [] if frame is None else [
            y for part in value.parts[1:] for y in self.look(part, frame)]
        if isinstance(x, Known) and isinstance(x.object, np.ndarray) and not any(
                [y in _NUMBERS for y in written]):
            super().found(f"`{x.label}`", value)
