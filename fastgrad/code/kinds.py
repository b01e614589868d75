"""What a value in code may be, for effects.py, and tables of what functions and methods do.

- `Known`: an object from outside;
- `Own`: made in the call, with what is known of its class and contents;
- `Bound`: a method of one of these;
- `Derived`: a transformation of one;
- ARGUMENT: a number, an array or a container among the arguments;
- ENTRY: a part of one of these;
- COMPUTED: a number or an array that was computed from one of these;
- SHOWN: one of these as an array that Tensors do not stand for: ``np.asarray(x)``;
- RESHAPED: one of these in another shape, a view or a copy by how the array lies in memory;
- TENSOR: the same where a transformation hands it on, so that it is a Tensor in the plain function
  as well;
- nothing: anybody's guess. What such code changes is found after the run (programs/run.py).
"""

import collections
import functools
import inspect
import operator
import os
import types
from typing import NamedTuple

import numpy as np

from fastgrad._core import core, trees

from . import known as _known
from . import watch
from .values import Value
from .wrapped import parts_of

Tensor = core.Tensor

FUNCTIONS = 400             # so many are read for one; what others change is found after the run
PARTS = 64                  # so many entries of a container are told apart
HELD = 256                  # and so many of those in one another

# ---- tables ---------------------------------------------------------------------------------

# Methods of C that change the object they are called on.
_CHANGING = {
    list: "append extend insert remove pop clear sort reverse __setitem__ __delitem__ __iadd__ "
          "__imul__",
    dict: "update setdefault pop popitem clear __setitem__ __delitem__ __ior__ move_to_end "
          "subtract",
    set: "add update discard remove pop clear difference_update intersection_update "
         "symmetric_difference_update __ior__ __iand__ __isub__ __ixor__",
    collections.deque: "append appendleft extend extendleft insert remove pop popleft clear rotate "
                       "reverse __setitem__ __delitem__",
    bytearray: "append extend insert remove pop clear reverse",
    np.ndarray: "fill sort partition put itemset resize setflags setfield byteswap __setitem__ "
                "__iadd__ __isub__ __imul__ __itruediv__",
    np.random.Generator: "shuffle",
}
_CHANGING = {kind: frozenset(names.split()) for kind, names in _CHANGING.items()}

# Methods that change what an array is, which a Tensor cannot follow.
_OF_ARRAYS = frozenset(["resize", "setflags", "setfield", "byteswap", "view", "getfield"])

# Functions that change their first argument; those of `operator` stand for ``a += b``.
_CHANGING_FIRST = frozenset([
    np.copyto, np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal, setattr, delattr,
    object.__setattr__, object.__delattr__, type.__setattr__, operator.setitem, operator.delitem,
    next, *[getattr(operator, name) for name in (
        "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul", "iand", "ior",
        "ixor", "ilshift", "irshift", "iconcat")]])
_CHANGING_NAMES = {
    "heapq": frozenset(["heappush", "heappop", "heapify", "heapreplace", "heappushpop"]),
    "bisect": frozenset(["insort", "insort_left", "insort_right"]),
    "random": frozenset(["shuffle"])}

# What `op=` changes in place; numbers, texts and tuples are bound anew by it.
_IN_PLACE = (np.ndarray, list, set, dict, collections.deque, bytearray, Tensor)

# What a call of these gives is, or shows, what it was given.
_SAME = frozenset([np.asarray, np.asanyarray, np.ravel, np.reshape, np.squeeze, np.transpose,
                   np.atleast_1d, np.atleast_2d, np.atleast_3d, np.swapaxes, np.moveaxis,
                   np.broadcast_to, np.expand_dims, np.diagonal, np.real, np.ascontiguousarray,
                   np.asfortranarray])
_ARRAYS = frozenset([np.asarray, np.asanyarray, np.ascontiguousarray, np.asfortranarray])
_RESHAPING = frozenset(["reshape", "ravel"])
_REORDERING = frozenset("T mT transpose matrix_transpose permute_dims swapaxes moveaxis rollaxis "
                        "asfortranarray".split())
_SAME_METHODS = frozenset("reshape ravel view transpose swapaxes squeeze diagonal T real flat "
                          "__enter__ __getitem__".split())

# What a call of these gives holds the same parts in another container.
_SAME_PARTS = frozenset([list, tuple, zip, enumerate, reversed, sorted, iter, map, filter, set,
                         frozenset, dict, collections.deque])
_SAME_PARTS_METHODS = frozenset("values items get copy setdefault keys __iter__".split())


# ---- what a value may be --------------------------------------------------------------------

class Known(NamedTuple):
    """An object from outside the call; `label` is what code calls it."""
    object: object
    label: str


class Own(NamedTuple):
    """An object that the call has made: its class or None, and values it may hold."""
    kind: object
    parts: tuple


class Bound(NamedTuple):
    """A method: its function, and the value it is bound to."""
    function: object
    owner: object


class Made(NamedTuple):
    """A function that the call has made: the `Value` of kind "function", and where."""
    value: Value
    frame: object


class Derived(NamedTuple):
    """A derivative of a function, or a mapped or compiled one, that the call has made; `argnums`:
    which arguments it differentiates, None where that is not told."""
    function: object
    argnums: tuple | None


ARGUMENT, COMPUTED, TENSOR = "an argument", "computed from one", "a Tensor in any case"
ENTRY, SHOWN = "an entry of an argument", "an array that shows one"
RESHAPED = "an array in another shape"
_NUMBERS = (ARGUMENT, ENTRY, COMPUTED, TENSOR, SHOWN, RESHAPED)
_GIVEN = (ARGUMENT, ENTRY, TENSOR)


_METHODS = frozenset().union(*_CHANGING.values())

# Attributes of arrays that tell of their memory.
_NOT_OF_TENSORS = frozenset(["__array_interface__", "__array_struct__", "strides", "ctypes", "data",
                             "base", "flags"])

# Methods of arrays that write their result to an argument, by the place of it.
_OUT = {"clip": 2, "round": 1, "take": 2, "compress": 2, "choose": 1, "dot": 1, "trace": 4,
        **dict.fromkeys("all any argmax argmin max min ptp".split(), 1),
        **dict.fromkeys("sum prod mean std var cumsum cumprod".split(), 2)}

_TRANSFORMING = frozenset(["fastgrad.transforms.derivatives", "fastgrad.transforms.jacobians",
                           "fastgrad.transforms.vmap", "fastgrad.transforms.taylor",
                           "fastgrad.transforms.sparse", "fastgrad.programs.compile"])

# What these tell of an array is no Tensor.
_OF_SHAPE = frozenset(["shape", "ndim", "size", "dtype", "itemsize", "nbytes", "strides"])
_ABOUT = frozenset(map(id, (len, np.shape, np.ndim, np.size, isinstance, issubclass, hasattr,
                            callable, np.isscalar)))
_RAISING = frozenset("/ // % ** /= //= %= **=".split())
_SAMENESS = {"is": operator.is_, "is not": operator.is_not, "==": operator.eq, "!=": operator.ne}
_OPERATORS = {"+": "__add__", "-": "__sub__", "*": "__mul__", "/": "__truediv__", "@": "__matmul__",
              "**": "__pow__", "//": "__floordiv__", "%": "__mod__", "<<": "__lshift__",
              ">>": "__rshift__", "&": "__and__", "|": "__or__", "^": "__xor__"}


def _containers(structures):
    """The classes of the containers among the arguments, of the trees (args, kwargs)."""
    return frozenset([x.type for whole in structures for part in whole.children
                      for x in _branches(part)]) - {type(None)}


def _branches(structure):
    return [] if structure == trees.LEAF else [
        structure, *[x for part in structure.children for x in _branches(part)]]


def _line(value):
    """Where code does something, for messages; "" if that is not known."""
    return "" if value is None else (
        f", at {os.path.basename(value.code.code.co_filename)}:{value.line}")


def _key(x):
    """What tells two values apart, in the key of a call."""
    if isinstance(x, Known):
        return id(x.object)
    if isinstance(x, Own):
        return id(x.kind), tuple(map(_key, x.parts))
    if isinstance(x, Bound):
        return id(x.function), _key(x.owner)
    if isinstance(x, Derived):
        return _key(x.function), x.argnums
    return id(x.value) if isinstance(x, Made) else (x, None)


def _holding(kind, parts):
    """A container that the call has made, of what it may hold.

    A function that calls itself may put what it was given into a new container each time, twice:
    what holds more than `HELD` values, and those in it, is known by these values alone, each once.
    """
    parts = tuple(parts[:PARTS])
    leaves = []
    for part in parts:
        _add_leaves(part, leaves)
        if len(leaves) > HELD:
            return Own(kind, tuple({_key(x): x for x in leaves[:HELD]}.values())[:PARTS])
    return Own(kind, parts)


def _add_leaves(x, leaves):
    """Append x, or what the containers in it hold at last, to a list that shall stay short."""
    if isinstance(x, Own) and x.parts:
        for part in x.parts:
            if len(leaves) <= HELD:
                _add_leaves(part, leaves)
    else:
        leaves.append(x)


def _subclass(kind, x):
    """Whether one is a subclass of the other, which may be no class at all."""
    try:
        return issubclass(kind, x)
    except TypeError:
        return None


def _constant(value):
    """The object, where a value is a constant."""
    return value.name if value.kind == "constant" else None


def _transforms(x):
    """Whether x is made by a transformation of another function."""
    return hasattr(type(x), "_parts") or isinstance(x, types.FunctionType) and (
        x.__globals__.get("__name__", "").startswith("fastgrad."))


def _of_library(function):
    """Whether a function is of code that is taken to be the same always, or installed: what that
    changes is found after the run."""
    file = function.__code__.co_filename
    return "-packages" in file or watch._known_file(file)


def _computed(operands):
    """What may be computed from operands, each of which may be one of several values."""
    if any([TENSOR in values and not any([x in values for x in (ARGUMENT, ENTRY, COMPUTED)])
            for values in operands]):
        return [TENSOR]
    found = {x for values in operands for x in values if x in _NUMBERS}
    return [COMPUTED, TENSOR] if TENSOR in found else [COMPUTED] if found else [Own(None, ())]


@functools.lru_cache(maxsize=64)
def _takes_argnums(maker):
    """Whether a transformation's first option is which arguments are differentiated."""
    try:
        return list(inspect.signature(maker).parameters)[1:2] == ["argnums"]
    except (TypeError, ValueError):
        return False


class _Mapped(tuple):
    """Places of the arguments that `vmap` maps, as it does all that are given by name."""


def _mapped(in_axes):
    """The same of what `vmap` is told; None if that is a dictionary."""
    if type(in_axes) in (tuple, list):
        return _Mapped([k for k, axis in enumerate(in_axes) if axis is not None])
    return _Mapped(range(PARTS)) if type(in_axes) is int else None


def _told(x):
    """The constant that a value is, or the tuple or list of constants; ABSENT if it is none."""
    if isinstance(x, Known):
        return x.object
    if isinstance(x, Own) and x.kind in (tuple, list) and all([
            isinstance(part, Known) for part in x.parts]):
        return x.kind([part.object for part in x.parts])
    return watch.ABSENT


def _differentiated(target, count):
    """Which of so many arguments a derivative gives to its function as Tensors; None: nobody
    knows, or all."""
    parts = parts_of(target)
    if parts is None:
        return None
    maker, (argnums, *_) = parts[0], (*parts[1], None)
    if isinstance(maker, functools.partial):
        if maker.keywords.get("argnames") is not None:
            return None
        maker = maker.func
    if maker.__name__ == "vmap":
        return _mapped(argnums)
    if not _takes_argnums(maker):
        return None
    count -= maker.__name__ == "hvp"
    return [k + count * (k < 0) for k in (argnums if type(argnums) is tuple else (argnums,))]


def _hashable_in(x, table):
    try:
        return not isinstance(x, Tensor) and x in table     # (a Tensor refuses, and remembers that)
    except TypeError:
        return False


def _class_attribute(kind, name):
    """What a class has under a name, as it stands there."""
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return watch.ABSENT


def _has_own(x, start):
    """Whether the class of x, written in Python, has operators in place of its own."""
    return any([name.startswith(start) and name in _IN_PLACE_METHODS for base in type(x).__mro__
                if not watch._known_module(_known.module_of(base)) for name in vars(base)])


_IN_PLACE_METHODS = frozenset(
    f"__i{name}__" for name in "add sub mul truediv floordiv mod pow matmul and or xor lshift "
                               "rshift".split())
