"""Signatures of operators: the core axes of operands and results, as NumPy's gufuncs have them.

``"(n,n),(n,k)->(n,k)"``: axes of one name are of one length; the axes in front of an operand's core
axes are batch axes, which broadcast against those of the others.
"""

import functools
import re
from typing import NamedTuple

import numpy as np

__all__ = ["Signature", "parsed", "unbroadcast"]

_SIDE = re.compile(r"\((?:\w+(?:,\w+)*)?\)(?:,\((?:\w+(?:,\w+)*)?\))*")


class Signature(NamedTuple):
    """Names of core axes: a tuple of str for each operand and result."""
    operands: tuple
    results: tuple

    def shapes(self, name, shapes):
        """The shapes of the results, from those of the operands; `name` is for errors."""
        if len(shapes) != len(self.operands):
            raise TypeError(f"{name}: {len(shapes)} operands, not {len(self.operands)}")
        lengths, batches = {}, []
        for k, (core, shape) in enumerate(zip(self.operands, shapes)):
            if len(shape) < len(core):
                raise ValueError(f"{name}: operand {k} has shape {shape}; it must have at least "
                                 f"{len(core)} axes, ({', '.join(core)})")
            batches.append(shape[:len(shape) - len(core)])
            for axis, length in zip(core, shape[len(shape) - len(core):]):
                known = lengths.setdefault(axis, (length, k))
                if known[0] != length:
                    raise ValueError(
                        f"{name}: axis {axis!r} of operand {k}, of shape {shape}, has length "
                        f"{length}, but that of operand {known[1]} {known[0]}" if known[1] != k else
                        f"{name}: operand {k} has shape {shape}; both axes {axis!r} must have one "
                        "length")
        try:
            batch = np.broadcast_shapes(*batches)
        except ValueError:
            raise ValueError(f"{name}: the axes in front of {self}, "
                             f"{' and '.join(map(str, batches))}, do not broadcast") from None
        return [batch + tuple([lengths[axis][0] for axis in core]) for core in self.results]

    def __str__(self):
        return "->".join(",".join(f"({','.join(core)})" for core in side) for side in self)


@functools.cache
def parsed(text):
    """The Signature that a text says; ValueError where it is none."""
    sides = text.replace(" ", "").split("->")
    if len(sides) != 2 or not all(map(_SIDE.fullmatch, sides)):
        raise ValueError(f"signature {text!r} is not of the form '(n,n),(n,k)->(n,k)'")
    made = Signature(*[tuple([tuple(filter(None, core.split(",")))
                              for core in re.findall(r"\(([^)]*)\)", side)]) for side in sides])
    unknown = {x for core in made.results for x in core}.difference(*made.operands)
    if unknown:
        raise ValueError(f"signature {text!r}: no operand has an axis {sorted(unknown)[0]!r}")
    return made


def unbroadcast(x, shape):
    """x summed over the axes along which something of a shape was broadcast."""
    if x.shape == shape:
        return x
    front = x.ndim - len(shape)
    axes = tuple(range(front)) + tuple([k + front for k, (n, m) in enumerate(zip(
        x.shape[front:], shape)) if m == 1 and n != 1])
    return x.sum(axes).reshape(shape) if axes else x.reshape(shape)
