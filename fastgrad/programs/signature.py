"""What a call looks like to a program: the signature that finds its paths.

Floats, NumPy scalars and arrays are told by dtype and shape alone. All else is *static*, a part of
the signature by its value: `static_key`. Values are the same only if nothing can tell them apart,
which Python's == does not say: ``True == 1``, ``0.0 == -0.0``, ``Decimal("1.0") == Decimal("1")``,
and a class of the user's may compare what it likes. So a key is made of types and of numbers taken
apart; what cannot be described in that way is told by its identity, and what it holds is compared
by the watch of the path, as all that a function reaches.
"""

import collections
import datetime
import decimal
import fractions
import math
import pathlib
import types
import uuid
import weakref

import numpy as np

from fastgrad._core import trees
from fastgrad._core.program import Cell

__all__ = ["ByIdentity", "Call", "Described", "Signature", "dead", "is_described", "key_of",
           "keys_in", "replace_in", "static_key"]

# More than MISSES recordings in WINDOW calls of one signature: recording costs more than it saves.
MISSES, WINDOW = 16, 32


class Call(types.SimpleNamespace):
    """A call taken apart: key, values (numbers and arrays), targets (the same as they were given),
    leaves, structure, roots."""


class Signature:
    """The paths for arguments of one signature."""

    def __init__(self, text):
        self.text = text
        self._paths = Cell(())
        self.recording = Cell(())   # a token for each call that records now
        self.recorded = collections.deque(maxlen=MISSES + 1)    # at which calls
        self.disturbed = None, 0    # the last run during which other threads ran, how many like it
        self.changed = 0            # recordings that changed what they reach
        self.plain = False          # call the function as it is
        self.ordered = False        # of arrays in another order than C's only the function knows
        self.history = False        # ... and let it return Tensors
        self.guarded = set()        # floats that must not become inputs
        self.stand_ins = False      # Tensors stand for arrays that are read by a name

    @property
    def paths(self):
        """A tuple; the one used last comes first."""
        return self._paths.value

    def change(self, after):
        """Replace the paths by a function of them; returns those before."""
        return replace_in(self._paths, after)


def replace_in(cell, after):
    """Replace what is in a cell by a function of it, which may be called again where another thread
    comes between; returns what was there before."""
    while True:
        before = cell.value
        if cell.swap(before, after(before)):
            return before


# ---- static arguments -----------------------------------------------------------------------

class ByIdentity:
    """A static argument that is told apart by what it is, without keeping it alive."""

    def __init__(self, value):
        try:
            self.get = weakref.ref(value)
        except TypeError:
            self.get = lambda: value
        self.hash = id(value) >> 4

    @property
    def value(self):
        return self.get()

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        value = self.get()
        return (type(other) is ByIdentity and value is not None and value is other.get())


class OfCode(ByIdentity):
    """A function among the arguments, as good as one of the same code over equal cells: a lambda
    that is made anew for each call is no signature of its own. (What paths depend on is looked at
    where it is another object, see `Path.inputs`.)"""

    def __init__(self, function):
        super().__init__(function)
        self.hash = hash(function.__code__)
        self.told = (function.__code__, id(function.__globals__), tuple([
            static_key(x) if is_described(x) else id(x) for x in _held(function)]))

    __hash__ = ByIdentity.__hash__

    def __eq__(self, other):
        if type(other) is not OfCode:
            return False
        value = self.get()
        return value is not None and value is other.get() or self.told == other.told


def _held(function):
    """What a function object has besides its code and globals."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:              # an empty one
            yield cell
    yield from function.__defaults__ or ()
    for item in sorted((function.__kwdefaults__ or {}).items()):
        yield from item


def _number(x):
    """A float so that the zeros are two and NaN is itself."""
    return (x if x == x else "nan"), math.copysign(1.0, x)


# Exact type -> what tells its values apart.
_DESCRIBED = {
    **dict.fromkeys((int, bool, str, bytes, type(None), type(Ellipsis), type(NotImplemented),
                     uuid.UUID, pathlib.PurePosixPath, pathlib.PureWindowsPath,
                     pathlib.PosixPath, pathlib.WindowsPath, datetime.date, datetime.timedelta),
                    lambda x: x),
    float: _number,
    complex: lambda x: (_number(x.real), _number(x.imag)),
    **dict.fromkeys((slice, range), lambda x: tuple(map(static_key, (x.start, x.stop, x.step)))),
    **dict.fromkeys((tuple, frozenset), lambda x: type(x)(map(static_key, x))),
    decimal.Decimal: lambda x: x.as_tuple(),
    fractions.Fraction: lambda x: (x.numerator, x.denominator),
    **dict.fromkeys((datetime.datetime, datetime.time), lambda x: (
        x.replace(tzinfo=None), x.fold, static_key(x.tzinfo))),
}


class Described:
    """A static argument that is told by its value."""

    def __init__(self, value, key):
        self.value, self.key = value, (type(value), key)
        self.hash = hash(self.key)

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return type(other) is Described and self.key == other.key


def static_key(value):
    """What stands for a static argument in a signature: equal keys are equal to any function."""
    describe = _DESCRIBED.get(type(value))
    if describe is not None:
        return Described(value, describe(value))
    if isinstance(value, np.dtype) and value.metadata is None and value.names is None:
        return Described(value, (value.str, value.char))
    if type(value) is types.FunctionType and not value.__dict__:
        return OfCode(value)
    return ByIdentity(value)


def key_of(structure, kinds, keywords):
    """The key of a signature: the structure of the arguments, what each leaf is, whether there are
    arguments by name; and what tells the keys of dicts, where structures that are equal may have
    others."""
    told = keys_in(structure)
    return (structure, tuple(kinds), keywords, told) if told else (
        structure, tuple(kinds), keywords)


def keys_in(structure):
    """What tells the keys of the dicts in a structure, but for texts: ``{1: x} == {True: x}``."""
    if structure == trees.LEAF or not structure.children:
        return ()
    found = ()
    if structure.type is not tuple and issubclass(structure.type, dict):
        found = tuple([static_key(key) if is_described(key) else type(key)  # may be made anew
                       for key in structure.keys if type(key) is not str])
    for child in structure.children:
        if child != trees.LEAF:
            found += keys_in(child)
    return found


def is_described(value):
    """Whether the key of a static argument tells all of it: nothing in it need be watched."""
    if type(value) in (frozenset, tuple):
        return all(map(is_described, value))
    return type(value) in _DESCRIBED or isinstance(value, np.dtype)


def dead(key):
    """Whether a key is of an object that is gone, and so of no call to come."""
    if type(key) is ByIdentity:
        return key.get() is None
    if type(key) is Described:
        return dead(key.key)
    return isinstance(key, (tuple, frozenset)) and any(map(dead, key))
