"""What an index picks of an array, by NumPy's rules and without looking at entries: where the axes
of its arrays come to stand, which lanes have to know, and whether it is one that may be run."""

import operator
from typing import NamedTuple

import numpy as np

from fastgrad._operators.slots import Slot, short

__all__ = ["MAX_RANK", "Picked", "broadcasts", "picked", "slot", "whole", "wrong"]

MAX_RANK = 64               # NumPy's


def wrong(condition, message):
    """Raise ValueError with the message if the condition holds."""
    if condition:
        raise ValueError(message)


def whole(x):
    """Whether it is an int of Python's, and no bool."""
    return type(x) is int


def slot(item, operands):
    """The shape and dtype of the operand that a Slot stands for."""
    wrong(not whole(item.operand) or not 0 <= item.operand < len(operands),
          f"there is no operand {short(item.operand)}")
    return operands[item.operand]


class Picked(NamedTuple):
    """What an index picks of an array."""
    shape: tuple        # None in it for a length that only running tells (of a mask)
    at: int | None      # the first of its axes that is one of the index's arrays, if they have any
    rank: int           # how many of these there are
    apart: bool         # whether something stands between the arrays: their axes come first


def picked(index, shape, operands, basic=False):
    """What an index picks of an array of that shape: a Picked.

    `operands` are pairs of a shape and a dtype, which Slots count through. Entries of arrays are
    taken together, and stand where the first of them stood if nothing else is in between, else in
    front. ValueError for an index that does not fit the shape, or holds arrays where it is `basic`.
    """
    items = list(index) if type(index) is tuple else [index]
    looked = []                     # (consumed axes, kind, item, shape of an array)
    for item in items:
        array = None
        if isinstance(item, Slot):
            array = slot(item, operands)
        elif isinstance(item, (np.ndarray, list)):
            value = np.asarray(item)
            if value.size == 0 and isinstance(item, list):
                value = value.astype(np.intp)
            array = value.shape, value.dtype
        if array is not None:
            wrong(basic, "it has an array in its index")
            wrong(array[1].kind not in "biu", f"it is indexed with {array[1]}")
            looked.append((len(array[0]), "mask", item, array[0]) if array[1] == bool
                          else (1, "array", item, array[0]))
        elif item is None:
            looked.append((0, "new", None, ()))
        elif item is Ellipsis:
            looked.append((None, "rest", None, ()))
        elif isinstance(item, slice):
            looked.append((1, "slice", item, ()))
        else:
            wrong(isinstance(item, (bool, np.bool_)), "it is indexed with a bool")
            looked.append((1, "int", operator.index(item), ()))
    taken = sum(count for count, *_ in looked if count)
    rests = sum(kind == "rest" for _, kind, *_ in looked)
    wrong(rests > 1, "it has more than one ellipsis")
    wrong(taken > len(shape), f"{short(shape)} has not so many axes")
    if not rests:
        looked.append((None, "rest", None, ()))
    advanced = any(kind in ("array", "mask") for _, kind, *_ in looked)
    found, together, start, at, apart, last = [], [], 0, None, False, None
    for number, (count, kind, item, own) in enumerate(looked):
        count = len(shape) - taken if count is None else count
        dims = shape[start:start + count]
        start += count
        if kind in ("array", "mask") or kind == "int" and advanced:
            apart = apart or last is not None and number != last + 1
            last = number
            at = len(found) if at is None else at
        if kind == "int":
            wrong(not -dims[0] <= item < dims[0],
                  f"{item} is out of bounds for an axis of {dims[0]}")
        elif kind == "array":
            if not isinstance(item, Slot) and np.size(item):
                wrong(int(np.min(item)) < -dims[0] or int(np.max(item)) >= dims[0],
                      f"an index is out of bounds for an axis of {dims[0]}")
            together.append(own)
        elif kind == "mask":
            wrong(own != tuple(dims), f"a mask of shape {short(own)} is on {short(dims)}")
            together.append(None if isinstance(item, Slot) else (int(np.count_nonzero(item)),))
        elif kind == "slice":
            wrong(not all(part is None or whole(part)
                          for part in (item.start, item.stop, item.step)), "a slice is not of ints")
            found.append(len(range(*item.indices(dims[0]))))
        elif kind == "new":
            found.append(1)
        else:
            found.extend(dims)
    joined = ()
    if together:
        known = [own for own in together if own is not None]
        joined = np.broadcast_shapes(*known) if known else ()
        if len(known) < len(together):          # a mask counts at run time
            joined = joined[:-1] + (None,)
        at = 0 if apart else at
        found[at:at] = joined
    wrong(len(found) > MAX_RANK, "it makes too many axes")
    return Picked(tuple(found), at, len(joined), apart)


def broadcasts(shape, target):
    """Whether a shape broadcasts to another, of which lengths may be unknown."""
    return len(shape) <= len(target) and all(n == 1 or m is None or n == m for n, m in zip(
        shape, target[len(target) - len(shape):]))
