"""What is known of code that fastgrad cannot read: two tables.

A compiled function is replayed if all that it reads is a constant of the recorded path, an input of
it, or compared before each replay. What Python code does can be read (code/values.py); of what is
written in C, and of the libraries that are taken to be the same always, one must know it:

- `function(x)`: x is a function, or a class, whose result depends on its operands alone. What it
  computes inside the function from known values is a constant of the path.
- `kind(x)`: how an object of a type from a library is told by its content.

All else makes a path unreplayable, and is named in the reason. A row that is added needs its test
against lies in tests/test_watch.py: the same function over changed state.
"""

import argparse
import array
import bisect
import builtins
import cmath
import collections
import copy
import dataclasses
import datetime
import enum
import fractions
import functools
import itertools
import logging
import math
import numbers
import operator
import random
import re
import sys
import types
import typing
import warnings

import numpy as np

from fastgrad.numpy._plain import OF_SHAPE, PLAIN

__all__ = ["BY_ATTRIBUTES", "CONTENT_FREE", "COPIES", "Kind", "READS_ALL", "READS_NAMED",
           "base_class", "calls", "class_method", "function", "kind", "module_of", "of_functions",
           "package_of", "seeded", "strange", "strict", "strict_methods", "wants_tensors"]


# ---- functions that depend on their operands alone ------------------------------------------

# Left out, since they answer by what no operand tells: hash and id (where an object lies), input,
# open, the names in a scope (globals, locals, dir, eval, exec, __import__).
_BUILTINS = """
abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate
filter float format frozenset getattr hasattr hex int isinstance issubclass iter len list map max
min next object oct ord pow print property range repr reversed round set setattr slice sorted
staticmethod str sum super tuple type vars zip delattr __build_class__
"""
_OPERATOR = """
abs add and_ attrgetter call concat contains countOf delitem eq floordiv ge getitem gt iadd iand
iconcat ifloordiv ilshift imatmul imod imul index indexOf inv invert ior ipow irshift is_ is_not
isub itemgetter itruediv ixor le length_hint lshift lt matmul methodcaller mod mul ne neg not_ or_
pos pow rshift setitem sub truediv truth xor
"""
# Beside those of numpy/_plain.py. Left out: files (load, fromfile, memmap, ...), memory that
# was never written (empty is in: what is read of it unwritten is nobody's value), what settings
# decide (geterr, array_str, array2string), and so decimals, which are computed as contexts say.
_NUMPY = """
angle append apply_along_axis apply_over_axes arange array_split asanyarray asarray_chkfinite
ascontiguousarray asfortranarray astype average bartlett base_repr binary_repr blackman block bmat
broadcast_arrays broadcast_shapes can_cast column_stack common_type concat convolve copyto corrcoef
correlate cov cross cumulative_prod cumulative_sum diag_indices diag_indices_from diagflat dsplit
dstack ediff1d einsum einsum_path empty empty_like eye fill_diagonal fliplr flipud
format_float_positional format_float_scientific frombuffer fromfunction fromiter fromstring
geomspace gradient hamming hanning histogram histogram2d histogram_bin_edges histogramdd hsplit i0
identity indices insert interp isdtype isfortran isscalar issubdtype iterable kaiser kron logspace
mask_indices matrix_transpose may_share_memory median meshgrid min_scalar_type mintypecode
nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile nanprod nanquantile nanstd nansum
nanvar ones packbits pad percentile permute_dims piecewise place poly polyadd polyder polydiv
polyfit polyint polymul polysub polyval promote_types put put_along_axis putmask quantile
real_if_close require resize rollaxis roots rot90 row_stack setxor1d shares_memory sinc sort_complex
split std tensordot trapezoid trapz tri tril_indices tril_indices_from trim_zeros triu_indices
triu_indices_from typename unique_all unique_counts unique_inverse unique_values unpackbits unstack
unwrap vander var vdot vsplit zeros
"""
_ITERTOOLS = """
accumulate batched chain combinations combinations_with_replacement compress count cycle dropwhile
filterfalse groupby islice pairwise permutations product repeat starmap takewhile zip_longest
"""


def _names(module, text):
    return [getattr(module, name) for name in text.split() if hasattr(module, name)]


def _public(module):
    return [getattr(module, name) for name in getattr(module, "__all__", dir(module))
            if not name.startswith("_")]


def _known_functions():
    """All of the first table, by id."""
    found = [
        *_names(builtins, _BUILTINS), *_names(operator, _OPERATOR), *_names(np, _NUMPY),
        *[row.value for row in PLAIN.values()], *_names(itertools, _ITERTOOLS), *_public(math),
        *_public(cmath), *_public(np.linalg), *_public(np.fft), *_public(bisect),
        *_public(np.lib.stride_tricks), *[x for module in (
            "polynomial", "chebyshev", "legendre", "hermite", "hermite_e", "laguerre")
            for x in _public(getattr(np.polynomial, module)) if isinstance(x, types.FunctionType)],
        *_names(functools, "partial reduce wraps update_wrapper cmp_to_key lru_cache cache"),
        *_names(copy, "copy deepcopy replace"),
        *_names(dataclasses, "asdict astuple fields is_dataclass replace _replace"),
        *_names(typing, "cast NamedTuple"), str.maketrans, warnings.warn, logging.getLogger,
        *_names(logging, "debug info warning error critical exception log"),
        *[x for x in vars(np).values() if isinstance(x, np.ufunc)],
        type(None), type(Ellipsis), type(NotImplemented), types.FunctionType, types.MethodType,
        # Classes: what their constructors make depends on what they are given.
        *[x for x in vars(np).values() if isinstance(x, type) and issubclass(x, np.generic)],
        np.dtype, np.finfo, np.iinfo, np.errstate, np.ndarray, np.broadcast, np.ndenumerate,
        np.ndindex, np.nditer, np.poly1d, collections.OrderedDict, collections.defaultdict,
        collections.Counter, collections.deque, collections.ChainMap, collections.UserDict,
        collections.UserList, collections.namedtuple, array.array,
        fractions.Fraction, datetime.date, datetime.timedelta, datetime.time, datetime.datetime,
        types.SimpleNamespace, types.MappingProxyType, argparse.Namespace]
    return {id(x): x for x in found if callable(x)}


_FUNCTIONS = _known_functions()

# Bound to a class, and so a new object each time it is looked up.
_CLASS_METHODS = frozenset([
    (dict, "fromkeys"), (float, "fromhex"), (int, "from_bytes"), (bytes, "fromhex"),
    (itertools.chain, "from_iterable"), (collections.OrderedDict, "fromkeys")])


def class_method(kind, name):
    """Whether a method written in C that is bound to a class depends on its operands alone."""
    return name == "__new__" or (kind, name) in _CLASS_METHODS


# Where they are imported, all of their functions.
_LATER = ("scipy.special", "scipy.linalg", "scipy.fft", "scipy.signal.windows", "scipy.signal",
          "scipy.ndimage", "scipy.spatial.distance")

# Of the linear algebra of NumPy, SciPy and of what fastgrad has of its own: what may be called with
# Tensors does with them what the recorder sees.
_TENSOR_PACKAGES = ("numpy", "fastgrad")

# They tell nothing of the contents of an array but shape and type.
CONTENT_FREE = frozenset([id(x) for x in (
    *OF_SHAPE, isinstance, len, type, callable, id, issubclass, np.zeros_like, np.ones_like,
    np.empty_like, np.isscalar, np.can_cast, np.broadcast_shapes, np.may_share_memory,
    np.shares_memory)])

# Called with the names of attributes, which are read as if they stood in the code.
READS_NAMED = frozenset([id(getattr), id(hasattr), id(operator.attrgetter),
                         id(operator.methodcaller)])
# They read all attributes there are.
READS_ALL = frozenset([id(x) for x in (
    vars, copy.copy, copy.deepcopy, dataclasses.asdict, dataclasses.astuple, dataclasses.fields,
    dataclasses.replace, *_names(copy, "replace"))])

# They copy what they are given, by methods that no name in the code stands for.
COPIES = frozenset([id(x) for x in (
    copy.copy, copy.deepcopy, dataclasses.asdict, dataclasses.astuple, dataclasses.replace,
    *_names(copy, "replace"))])

# They call what they are given.
_CALL = frozenset([id(x) for x in (
    map, filter, sorted, min, max, iter, print, functools.reduce, functools.partial,
    np.fromfunction, np.apply_along_axis, np.apply_over_axes, np.piecewise, copy.copy,
    copy.deepcopy,
    *_public(bisect), *_names(operator, "call"), *_names(itertools, _ITERTOOLS))])
_CALLING = ("scipy.ndimage", "scipy.spatial")


def calls(x):
    """Whether x may call what it is given: a function, or an object of the user's."""
    module = module_of(x)
    return id(x) in _CALL or module.startswith(_CALLING) or package_of(x) == "fastgrad" and not (
        module.startswith(("fastgrad.numpy", "fastgrad.special")))


# Without a seed they take one from the system.
_SEEDED = {id(x) for x in (np.random.default_rng, np.random.RandomState, np.random.SeedSequence,
                           np.random.PCG64, np.random.Philox, np.random.MT19937, np.random.SFC64,
                           random.Random)}


def seeded(x):
    """Whether x makes a generator, which is known where it is given a seed."""
    return id(x) in _SEEDED


# Modules of functions: whatever name is looked up in them at run time, it stands for one. (The few
# of NumPy's that are left out above are not found out if their names are made at run time.)
_OF_FUNCTIONS = frozenset(["numpy", "numpy.linalg", "numpy.fft", "math", "cmath", "operator",
                           "scipy.special", "fastgrad.numpy", "fastgrad.numpy.linalg",
                           "fastgrad.special", "fastgrad"])


def of_functions(module):
    """Whether any name may be looked up in a module."""
    return module.__name__ in _OF_FUNCTIONS


def module_of(x):
    """The name of the module of a function or class. (Classes made by Cython may have a descriptor
    in its place.)"""
    found = getattr(x, "__module__", None)
    return found if isinstance(found, str) else ""


def package_of(x):
    """The package that a function or class is of."""
    return module_of(x).partition(".")[0]


def function(x):
    """Whether x is a function, or a class, that depends on its operands alone."""
    if id(x) in _FUNCTIONS:
        return True
    module = module_of(x)
    if not module:
        return type(x) is np.ufunc and _ufunc_of_scipy(x)
    if module == "enum":                # which puts functions of its own into each class
        return True
    if package_of(x) == "fastgrad" and (
            isinstance(x, type) or package_of(type(x)) != "fastgrad"):
        # (But not what it has made of functions of the user's.)
        return getattr(x, "__closure__", None) is None or id(x) in _own_functions()
    if isinstance(x, type) and issubclass(x, BaseException):
        return True
    for name in _LATER:
        if module.startswith(name) and name in sys.modules and not isinstance(x, type):
            found = getattr(sys.modules[name], getattr(x, "__name__", ""), None)
            return found is x and x.__name__ not in ("geterr", "seterr")
    return type(x) is np.ufunc and _ufunc_of_scipy(x)


@functools.lru_cache(maxsize=1)
def _own_functions():
    """What stands in fastgrad's own vocabularies."""
    import fastgrad.numpy.linalg
    import fastgrad.special

    modules = fastgrad.numpy, fastgrad.numpy.linalg, fastgrad.special, fastgrad
    return frozenset([id(x) for module in modules for x in vars(module).values()])


def _ufunc_of_scipy(x):
    special = sys.modules.get("scipy.special")
    return special is not None and getattr(special, x.__name__, None) is x


def wants_tensors(x):
    """Whether x is a function of arrays that is recorded when it is called with Tensors: what else
    it is called with then is an operand, or is known to be used by value."""
    if id(x) in CONTENT_FREE:
        return False
    if isinstance(x, np.ufunc):
        return True
    return package_of(x) in _TENSOR_PACKAGES and not isinstance(x, type)


# ---- types whose objects are told by their content ------------------------------------------

class Kind(typing.NamedTuple):
    """How objects of a type are told by their content.

    how : str
        "value"         it never changes, and equal ones are the same
        "attributes"    by its ``__dict__``, all of it
        "content"       by `read`
    read : callable
        From the object to something that is compared by ==; not a word about what is in it.
    hazards : frozenset of str
        Attributes that answer differently each time.
    """

    how: str
    read: typing.Callable = None
    hazards: frozenset = frozenset()


def _numbers_of(x):
    return x.typecode, x.tobytes()


_CLOCKS = frozenset(["now", "today", "utcnow", "astimezone", "timestamp"])
# What is asked of a logger may decide something; that it is told something does not.
_OF_LOGGERS = frozenset(["isEnabledFor", "getEffectiveLevel", "level", "disabled", "handlers",
                         "filters", "hasHandlers", "propagate", "parent", "manager", "getChild"])
_VALUE = Kind("value")
_KINDS = {
    **{x: _VALUE for x in (
        int, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), slice,
        range, datetime.timedelta, datetime.timezone, fractions.Fraction,
        re.Pattern, np.finfo, np.iinfo)},
    datetime.date: Kind("value", hazards=_CLOCKS), datetime.time: Kind("value", hazards=_CLOCKS),
    datetime.datetime: Kind("value", hazards=_CLOCKS),
    **{x: Kind("value", hazards=_OF_LOGGERS) for x in (logging.Logger, logging.RootLogger)},
    array.array: Kind("content", _numbers_of),
    bytearray: Kind("content", bytes),
    **{x: Kind("attributes") for x in (
        types.SimpleNamespace, argparse.Namespace, collections.ChainMap, collections.UserDict,
        collections.UserList, collections.UserString, np.poly1d)},
}


_RECORD = Kind("content", lambda x: (x.dtype.names, x.tobytes()))
_FIELDS = Kind("content", lambda x: (x.names, x.str))   # (names are bound anew in place)

# Objects of these, and of classes derived from them, are told by all of their attributes.
BY_ATTRIBUTES = frozenset([x for x, kind in _KINDS.items() if kind.how == "attributes"])


def kind(x):
    """The `Kind` of an object, or None where its type is none of the table's."""
    found = _KINDS.get(type(x))
    if found is None and isinstance(x, (np.generic, np.dtype)):
        if isinstance(x, np.void):      # a view of an entry, which can be written to
            return None if x.dtype.hasobject else _RECORD
        return _VALUE if isinstance(x, np.generic) or x.names is None else _FIELDS
    return found


# Classes of libraries that classes of the user may have as bases: what they add to an object is
# code that depends on the object alone.
_BASES = frozenset([
    object, type, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, enum.Enum,
    enum.IntEnum, enum.Flag, enum.IntFlag, enum.ReprEnum, types.SimpleNamespace, argparse.Namespace,
    collections.UserDict, collections.UserList, collections.OrderedDict, collections.defaultdict,
    collections.Counter, collections.deque, collections.ChainMap, numbers.Number, numbers.Complex,
    numbers.Real, numbers.Rational, numbers.Integral])


def base_class(x):
    """Whether a class of a library may be the base of a class of the user's."""
    return (x in _BASES or module_of(x) in ("abc", "typing", "collections.abc", "contextlib")
            or issubclass(x, BaseException))


# Modules whose functions and classes take numbers of Python's own alone, and no Tensor for one.
_STRICT = frozenset("""
_ctypes _datetime _decimal _json _pydatetime _pydecimal binascii ctypes datetime decimal fractions
ipaddress json json.decoder json.encoder marshal scipy.special.cython_special uuid zoneinfo
""".split())

# They take a Tensor for its value; the last writes what an assertion of pytest's says.
_LOOKING = frozenset(["pickle", "_pickle", "struct", "_struct", "_pytest.assertion.rewrite"])

# These read the memory of an array, which a Tensor does not show, or ask for its type.
_READERS = frozenset([id(x) for x in (
    bytes, bytearray, memoryview, np.frombuffer, np.bmat, np.require, np.shares_memory,
    np.may_share_memory, np.trim_zeros, np.lib.stride_tricks.as_strided,
    np.lib.stride_tricks.sliding_window_view)])

_NUMBERS = (int, float, complex, np.generic, np.ndarray)
_PASSES = (str, bytes, tuple, list, dict, set, collections.deque, np.ndarray)


def strict(x):
    """Whether a function or class refuses a Tensor."""
    if isinstance(x, (types.MethodDescriptorType, types.WrapperDescriptorType)):
        return issubclass(x.__objclass__, _NUMBERS)         # float.hex(x)
    if isinstance(x, types.BuiltinMethodType) and isinstance(x.__self__, type):
        x = x.__self__                                      # datetime.timedelta.__new__
    return module_of(x) in _STRICT or id(x) in _READERS


def strange(x):
    """Whether nothing is known of a function of a module that is not Python code of the user's."""
    return (isinstance(x, (types.BuiltinFunctionType, types.FunctionType))
            and "." not in x.__qualname__ and module_of(x) not in _LOOKING
            and not function(x) and not wants_tensors(x))


@functools.lru_cache(maxsize=1)
def strict_methods():
    """Names of methods that are theirs wherever they are found."""
    names = {name for kind in (*vars(datetime).values(), fractions.Fraction)
             if isinstance(kind, type) for name in vars(kind)}
    return frozenset([name for name in names if not name.startswith("_")
                      and not any([hasattr(kind, name) for kind in _PASSES])])
