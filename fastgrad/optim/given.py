"""Parameters and gradients as arrays, and looks at what is given."""

import math
import numbers
from dataclasses import fields

import numpy as np

import fastgrad as fg
from fastgrad._core import trees
from fastgrad._core.trees import flatten_like

# Entries that are updated at a time. What a rule reads and writes then stays in the cache (Adam on
# 10^6 numbers takes two thirds of the time that it takes in one go), and the two arrays it computes
# in are of this size, however large the parameters are.
BLOCK = 32768

DTYPES = np.dtype(np.float32), np.dtype(np.float64)

# ---- from parameters to arrays and back ----------------------------------------------------


def _value(leaf):
    """The value of a leaf as an array, not copied."""
    return leaf.numpy() if fg.is_tensor(leaf) else np.asarray(leaf)


def _opened(leaf, in_place):
    """The array to be updated for a leaf: its own memory, or a copy."""
    if in_place and isinstance(leaf, np.ndarray):
        return np.asarray(leaf)
    return np.array(_value(leaf))


def _closed(leaf, value, in_place):
    """What stands for a leaf after the array that was opened for it has been updated."""
    if isinstance(leaf, np.ndarray):
        return leaf if in_place else value
    if not fg.is_tensor(leaf):
        return value[()] if isinstance(leaf, np.generic) else value.item()
    if not in_place:
        return fg.tensor(value, requires_grad=leaf.requires_grad, copy=False)
    with fg.no_grad():
        leaf[...] = value
    return leaf


def _owner(a):
    """What tells apart the memory of arrays."""
    return id(a if a.base is None else a.base)


def _blocks(arrays):
    """Corresponding parts of arrays of one shape, of at most BLOCK entries."""
    first = arrays[0]
    if first.size <= BLOCK:
        yield arrays
        return
    if first.flags.fnc:
        arrays = [a.T for a in arrays]  # as flat as those in C order, if all are like the first
    if all([a.flags.c_contiguous for a in arrays]):
        arrays = [a.reshape(-1) for a in arrays]
    length = len(arrays[0])
    rows = BLOCK * length // first.size
    if rows:
        for i in range(0, length, rows):
            yield [a[i:i + rows] for a in arrays]
    else:
        for i in range(length):
            yield from _blocks([a[i] for a in arrays])


# ---- checks --------------------------------------------------------------------------------


# Shares that are kept from step to step.
_BELOW = {"momentum": 1, "dampening": 1, "alpha": 1}


def _check_options(self):
    """Numbers and counts among the fields of a dataclass as floats and ints in their range."""
    for option in fields(self):
        name, value = option.name, getattr(self, option.name)
        if option.type is float:
            setattr(self, name, _number(self, name, value, _BELOW.get(name, math.inf)))
        elif option.type is int:
            setattr(self, name, _count(self, name, value))


def _number(owner, name, value, below=math.inf, error=TypeError):
    """An option as a float, refused unless it is a number of at least 0 and below a bound."""
    owner = getattr(owner, "__name__", type(owner).__name__)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise error(f"{owner}: {name} must be a number, not {value!r}")
    if not 0 <= value < below:
        raise ValueError(f"{owner}: {name} must be at least 0 and less than {below}, not {value!r}")
    return float(value)


def _count(owner, name, value):
    """An option as an int, refused unless it is an integer of at least 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{type(owner).__name__}: {name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{type(owner).__name__}: {name} must be at least 1, not {value!r}")
    return int(value)


def _check_kinds(what, structure, leaves):
    """Refuse leaves that are not floating-point numbers, arrays or Tensors."""
    for i, leaf in enumerate(leaves):
        cure = _cure(leaf)
        if cure is not None:
            raise TypeError(f"{what}{_path(structure, i)} is {_description(leaf)}; {cure}")


def _cure(leaf):
    """What to write instead of a leaf that cannot be taken; None if it can."""
    if isinstance(leaf, float):
        return None
    if isinstance(leaf, int):
        return "write float(...)"
    if fg.is_tensor(leaf):
        if leaf.requires_grad and not leaf.is_leaf:
            return "it is recorded, and no derivative goes through a step: pass .detach() of it"
    elif isinstance(leaf, np.matrix):
        return "write np.asarray(x)"
    elif not isinstance(leaf, np.ndarray | np.generic) or isinstance(leaf, np.ma.MaskedArray):
        return "pass floats, arrays or Tensors, or tuples, lists, dicts and dataclasses of them"
    if leaf.dtype in DTYPES:
        return None
    return "write .astype(float)" if leaf.dtype.kind in "biu" else "use float32 or float64"


def _check_writable(structure, leaves):
    """Refuse arrays that cannot be updated in place, and those that would be updated twice."""
    places = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, float | np.generic):
            continue
        if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
            raise ValueError(f"params{_path(structure, i)} is read-only; pass a copy, or "
                             "in_place=False")
        first = places.setdefault(id(leaf), i)
        if first != i:
            raise ValueError(f"params{_path(structure, first)} and params{_path(structure, i)} are "
                             "the same; pass it once, or in_place=False")


def _matching(what, tree, leaves, structure):
    """The leaves of a tree as arrays; refused unless they are of the kinds of the parameters."""
    try:
        found = flatten_like(structure, tree)
    except ValueError as error:
        raise ValueError(f"{what} must have the structure of params: {error}") from None
    _check_kinds(what, structure, found)
    arrays = []
    for i, (leaf, wanted) in enumerate(zip(found, leaves, strict=True)):
        value = _value(leaf)
        # Python floats have no shape and no dtype, and take any dtype.
        shape, dtype = getattr(wanted, "shape", ()), getattr(wanted, "dtype", DTYPES[1])
        if value.shape != shape:
            raise ValueError(f"{what}{_path(structure, i)} has shape {value.shape}, "
                             f"params{_path(structure, i)} {shape}")
        if value.dtype != dtype:
            if hasattr(leaf, "dtype") and hasattr(wanted, "dtype"):
                raise TypeError(f"{what}{_path(structure, i)} is {value.dtype}, "
                                f"params{_path(structure, i)} {dtype}")
            value = value.astype(dtype)
        arrays.append(value)
    return arrays


def _path(structure, i):
    """How the i-th leaf is reached from a tree, such as ['w'][0]."""
    return trees.paths(structure)[i]


def _description(leaf):
    """A leaf in words, for an error."""
    if fg.is_tensor(leaf):
        return f"a {leaf.dtype} Tensor"
    if isinstance(leaf, np.ma.MaskedArray):
        return "a masked array"
    if isinstance(leaf, np.matrix):
        return "a numpy.matrix"
    if isinstance(leaf, np.ndarray | np.generic):
        return f"of dtype {leaf.dtype}"
    return f"the {type(leaf).__name__} {leaf!r}"[:80]
