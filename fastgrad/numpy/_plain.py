"""NumPy's functions that are computed by value: a row for each, all that is known of it.

    argsort = plain(np.argsort, ALONG, "The indices that would sort.", axis=-1, keeps=True)

makes the public function, whose result has no derivative. `on_values` is for what is public
already: rules and rows of the operator table, which come to NumPy with booleans and integers, and
ufuncs of NumPy's. Either way graphs may call the function, and lanes ask how it treats axes.
"""

import functools
import sys
from typing import Any, NamedTuple

import numpy as np

from fastgrad._core import core
from fastgrad.numpy._dispatch import OF_SHAPE, evaluated, implements

# How axes are treated: entry by entry, with broadcasting; along those that axis= names, the second
# parameter; in a way that lanes have no use for; likewise, to a shape that depends on values; not
# at all, as shapes and dtypes tell the result.
ENTRY, ALONG, WHOLE, COUNTED, SHAPE = "entry", "along", "whole", "counted", "shape"


class Plain(NamedTuple):
    """What is known of a function; the core reads it, too."""
    value: Any              # it, of plain arrays; None where this NumPy does not have it
    axes: str               # how it treats axes
    axis: int | None        # of ALONG: that where none is told; None: all entries, flattened
    keeps: bool             # of ALONG: whether it stays as long as it is
    lengths: tuple          # the places of arguments that tell the shape of the result
    counted: Any            # of the arguments: those whose true entries tell it; None: not so


PLAIN = core.PLAIN      # by name, "numpy.argsort" as call nodes have it


def on_values(names, axes, module=np, axis=None, keeps=False, lengths=None, counted=None):
    """Add rows for functions of a module that are public already, by their names in one text."""
    if lengths is None:
        lengths = (1,) if axes is ALONG else ()
    for name in names.split():
        key, value = "numpy." + name, getattr(module, name, None)
        row = Plain(value, axes, axis, keeps, lengths, counted)
        if PLAIN.setdefault(key, row) is not row:
            raise ValueError(f"{key} has two rows")
        if axes is SHAPE:
            OF_SHAPE.add(value)
        elif value is not None:
            core.CALLED[key] = value
        # Of real numbers it makes booleans or integers, or takes none of them.
        if isinstance(value, np.ufunc) and value not in core.UFUNCS and not set("efdg") & {
                c for types in value.types for c in types.partition("->")[2]}:
            core.PLAIN_UFUNCS.add(value)


def plain(numpy_function, axes, summary, **options):
    """Add a row; returns the public function, and puts it into fastgrad.numpy: NumPy's value, as a
    Tensor without derivative."""
    @implements(numpy_function)
    @functools.wraps(numpy_function)
    def function(*args, **kwargs):
        return evaluated(numpy_function, args, kwargs)

    name = numpy_function.__name__
    function.__module__, function.__qualname__ = "fastgrad.numpy", name
    function.__doc__ = f"{summary} As `numpy.{name}`, without derivative."
    on_values(name, axes, **options)
    setattr(sys.modules["fastgrad.numpy"], name, function)
    return function


isnan = plain(np.isnan, ENTRY, "Where entries are NaN.")
isinf = plain(np.isinf, ENTRY, "Where entries are infinite.")
isfinite = plain(np.isfinite, ENTRY, "Where entries are neither infinite nor NaN.")
isposinf = plain(np.isposinf, ENTRY, "Where entries are positive infinity.")
isneginf = plain(np.isneginf, ENTRY, "Where entries are negative infinity.")
signbit = plain(np.signbit, ENTRY, "Where entries have the sign bit set.")
logical_and = plain(np.logical_and, ENTRY, "Where both are true.")
logical_or = plain(np.logical_or, ENTRY, "Where one or both are true.")
logical_xor = plain(np.logical_xor, ENTRY, "Where exactly one is true.")
logical_not = plain(np.logical_not, ENTRY, "Where an entry is false.")
isreal = plain(np.isreal, ENTRY, "Where entries have no imaginary part: everywhere.")
iscomplex = plain(np.iscomplex, ENTRY, "Where entries have an imaginary part: nowhere.")
isclose = plain(np.isclose, ENTRY, "Where two arrays are equal within tolerances.")
isin = plain(np.isin, WHOLE, "Where entries are among others.")
allclose = plain(np.allclose, WHOLE, "Whether two arrays are equal within tolerances; a bool.")
array_equal = plain(np.array_equal, WHOLE, "Whether two arrays have the same shape and entries.")
array_equiv = plain(np.array_equiv, WHOLE, "Whether two arrays are equal after broadcasting.")
iscomplexobj = plain(np.iscomplexobj, SHAPE, "Whether entries may be complex.")
isrealobj = plain(np.isrealobj, SHAPE, "Whether entries are real.")
result_type = plain(np.result_type, SHAPE, "The dtype that results from a mixture.")

all = plain(np.all, ALONG, "Whether all entries along axes are true.")
any = plain(np.any, ALONG, "Whether any entry along axes is true.")
argmax = plain(np.argmax, ALONG, "The index of the largest entry.")
argmin = plain(np.argmin, ALONG, "The index of the smallest entry.")
nanargmax = plain(np.nanargmax, ALONG, "The index of the largest entry that is no NaN.")
nanargmin = plain(np.nanargmin, ALONG, "The index of the smallest entry that is no NaN.")
count_nonzero = plain(np.count_nonzero, ALONG, "How many entries along axes are not 0.")
argsort = plain(np.argsort, ALONG, "The indices that would sort.", axis=-1, keeps=True)
argpartition = plain(np.argpartition, WHOLE, "The indices that would put entries in two parts.")
lexsort = plain(np.lexsort, WHOLE, "The indices that would sort by several keys.")
searchsorted = plain(np.searchsorted, WHOLE, "Where values would have to be inserted.")
digitize = plain(np.digitize, WHOLE, "The bins that values belong to.")


def _alone(*args, **options):
    """The one argument of a function that takes others, too."""
    every = (*args, *options.values())
    return every if len(every) == 1 else ()


def _masks(*args):
    return [x for x in args if getattr(x, "dtype", bool) == bool]


nonzero = plain(np.nonzero, COUNTED, "The indices of entries that are not 0; a tuple.",
                counted=_alone)
flatnonzero = plain(np.flatnonzero, COUNTED, "The same for the raveled array.", counted=_alone)
argwhere = plain(np.argwhere, COUNTED, "The indices of entries that are not 0, as rows.",
                 counted=_alone)
ix_ = plain(np.ix_, COUNTED, "Indices for the outer product of sequences of indices.",
            counted=_masks)

on_values("divmod float_power fabs gcd lcm clip round around bitwise_and bitwise_or bitwise_xor "
          "bitwise_not bitwise_count bitwise_invert bitwise_left_shift bitwise_right_shift invert "
          "left_shift right_shift spacing nextafter frexp modf real imag", ENTRY)
on_values("where", ENTRY, counted=_alone)
on_values("astype", ENTRY, module=core)
on_values("ptp mean", ALONG)
on_values("cumsum cumprod", ALONG, keeps=True)
on_values("sort", ALONG, axis=-1, keeps=True)
for _names, _lengths in {
        "partition select choose ravel_multi_index roll vstack hstack copy asarray tril triu outer "
        "inner nan_to_num atleast_1d atleast_2d atleast_3d": (), "full": (0,),
        "repeat tile diag unravel_index": (1,), "diff": (1, 2), "diagonal": (1, 2, 3),
        "trace": (2, 3), "linspace": (2, 3, 4, 6), "zeros_like ones_like": (4,),
        "array full_like": (5,)}.items():
    on_values(_names, WHOLE, lengths=_lengths)
on_values("bincount unique compress extract delete union1d intersect1d setdiff1d", COUNTED)
on_values("shape ndim size", SHAPE)


def of_operator(operator):
    """Add the rows of NumPy's functions that a row of the operator table stands for."""
    on_values(" ".join(operator.numpy), ENTRY if operator.kind != "shaped" else
              ALONG if operator.reduces else WHOLE, lengths=(1,) if operator.kind == "shaped"
              and not operator.bilinear and operator.name != "gather" else ())
