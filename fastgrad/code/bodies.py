"""Whether the rounds of a loop differ by nothing but what they are given.

A program records the step of `scan`, `fori_loop` or `while_loop` once, for all rounds. A step that
draws random numbers, counts, takes from an iterator, reads a clock or stores anything does more
than its recording tells, and one that asks for types would be told those of Tensors. So its code is
searched first (code/effects.py), more strictly than that of a function which is run once for each
call: what is not known counts as state. Most steps reach functions of arrays alone, which is soon
seen.
"""

import builtins
import functools
import operator
import types

import numpy as np

from fastgrad._core import core

from . import known, watch
from .array_effects import _code_may_change
from .effects import _Search
from .kinds import ARGUMENT, COMPUTED, FUNCTIONS, PARTS, Known, Own, _class_attribute, _of_library
from .libraries import _UNNAMED
from .names import names_in
from .told import GENERATORS, entries

__all__ = ["repeats"]

Tensor = core.Tensor

# Whose methods depend on the object and on what they are given, if they change nothing.
_PLAIN = (int, float, complex, str, bytes, tuple, list, dict, set, frozenset, range, slice,
          type(None), np.ndarray, np.generic, np.dtype, Tensor)
_HARMLESS = (int, float, complex, str, bytes, type(None), np.ndarray, np.generic, Tensor)

# Code that asks for types or makes names at run time is searched in full.
_ASKING = frozenset("""
isinstance issubclass type hasattr getattr setattr callable isscalar __class__ __dict__ vars eval
exec globals locals next iter map filter
""".split())


def repeats(*functions):
    """Whether each call of these does the same, as far as their code tells."""
    if all([_plainly(f, set()) for f in functions]):
        return True                     # 5 us; a search takes 200 and more
    search = _StepSearch()
    given = [ARGUMENT, COMPUTED]
    for f in functions:
        search.call([Known(f, "")], [given, given], {})
    return search.told() is None


def _plainly(x, met):
    """Whether x is a function that changes nothing and reaches only such, functions of arrays,
    numbers and arrays; or one of these."""
    if isinstance(x, _HARMLESS) or id(x) in met:
        return True
    met.add(id(x))
    if type(x) in (tuple, list):
        return len(x) <= PARTS and all([_plainly(part, met) for part in x])
    if not isinstance(x, types.FunctionType) or _of_library(x):
        return not isinstance(x, type) and known.function(x)
    if len(met) > FUNCTIONS or "__wrapped__" in vars(x) or not _may_be_plain(x.__code__):
        return False
    names, space = names_in(x.__code__), x.__globals__
    found = [space.get(name, vars(builtins).get(name)) for name in names.globals]
    try:
        found += [cell.cell_contents for cell in x.__closure__ or ()]
    except ValueError:
        return False
    found += [*(x.__defaults__ or ()), *(x.__kwdefaults__ or {}).values()]
    for y in found:
        if isinstance(y, types.ModuleType):
            if not known.of_functions(y):
                return False
            for name in names.attributes:
                z = getattr(y, name, None)
                if not (isinstance(z, _HARMLESS) or known.function(z)
                        or isinstance(z, types.ModuleType) and known.of_functions(z)):
                    return False
        elif not _plainly(y, met):
            return False
    return True


@functools.lru_cache(maxsize=4096)
def _may_be_plain(code):
    names = names_in(code)
    return (not names.dynamic and not names.code.unknown and not _code_may_change(code)
            and _ASKING.isdisjoint(names.globals) and _ASKING.isdisjoint(names.attributes)
            and not any([value.kind in ("import", "match", "yield", "enter")
                         or value.kind == "compare" and value.name in ("is", "is not")
                         for value in names.code.everything]))


class _StepSearch(_Search):
    """A search for what tells one round from another."""

    whole = True                # (a branch that is shut now is no matter: this is no promise)

    def __init__(self):
        super().__init__({int, float, np.float64, np.int64, np.ndarray})
        self._classes = set()

    def _search(self, frame):
        if frame.code.unknown or self._count > FUNCTIONS:
            self.unknown("its code")
        super()._search(frame)

    def unknown(self, what):
        if self.reason is None:
            self.reason = f"{what} is not known"

    def call(self, callees, args, names, value=None):
        if not callees:
            self.unknown("what it calls")
        return super().call(callees, args, names, value)

    def _library(self, target, args, names, value):
        if not (known.function(target)
                or known.wants_tensors(target) and "random" not in known.module_of(target)
                or getattr(target, "__objclass__", None) in _PLAIN) or id(target) in _NAMES_MADE:
            self.unknown(getattr(target, "__name__", "what it calls"))
        if target is getattr and not all([
                isinstance(x, Known) and isinstance(x.object, str) for x in args[1]] or [False]):
            self.unknown("an attribute")
        return super()._library(target, args, names, value)

    def _method_of_c(self, bound, args, names, value):
        owner = bound.owner
        if isinstance(owner, Known) and not (
                isinstance(owner.object, (*_PLAIN, np.ufunc)) or isinstance(owner.object, type)
                or known.kind(owner.object) is not None
                or known.package_of(type(owner.object)) == "fastgrad"):
            self.unknown(f"`{owner.label}`")
        return super()._method_of_c(bound, args, names, value)

    def _class(self, kind, args, names, value):
        if not (known.function(kind) or not watch._library_class(kind)):
            self.unknown(kind.__name__)
        self._look_into(kind, Own(kind, ()))
        return super()._class(kind, args, names, value)

    def _origin(self, value, frame):
        found = super()._origin(value, frame)
        for x in found:
            if isinstance(x, Known) and not isinstance(x.object, _PLAIN):
                self._look_into(x.object if isinstance(x.object, type) else type(x.object), x)
        return found

    def _look_into(self, kind, owner):
        """Methods of the user's classes that no name in the code stands for."""
        if kind in self._classes:
            return
        self._classes.add(kind)
        if watch._library_class(kind):
            return
        for name in _UNNAMED - {"__call__"}:
            method = _class_attribute(kind, name)
            if isinstance(method, types.FunctionType):
                super().call([Known(method, kind.__name__)], [[owner]], {}, None)

    def attribute(self, x, name, value=None):
        if isinstance(x, Known) and isinstance(x.object, GENERATORS):
            self.unknown(f"`{x.label}`")
        return super().attribute(x, name, value)

    def _lacks(self, x, name, value):
        pass                    # (Tensors are what it is given)

    def parts(self, x):
        if isinstance(x, Known) and (hasattr(type(x.object), "__next__") or isinstance(
                x.object, (list, tuple, dict, set)) and len(
                    found := list(entries(x.object))) > PARTS
                and not all([isinstance(part, _HARMLESS) for part in found])):
            self.unknown(f"`{x.label}`")
        return super().parts(x)

    def _find(self, value, frame):
        if value.kind == "element" and value.name == "iter":
            for x in self.look(value.parts[0], frame):
                self.parts(x)
        return super()._find(value, frame)


# What these make is called with objects of which the code tells nothing.
_NAMES_MADE = frozenset([id(operator.attrgetter), id(operator.methodcaller)])
