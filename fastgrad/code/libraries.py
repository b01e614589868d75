"""What is taken to be the same always: files and classes of libraries. And tables for the watch."""

import abc
import collections
import contextlib
import enum
import functools
import operator
import os
import sys
import sysconfig
import types

import numpy as np

from fastgrad._core import core

from . import known as _known
from .known import module_of
from .names import ORDER, Scope
from .told import plain

__all__ = ["ATTR", "BYTES", "CALL", "CELL", "DICT", "FUNCTION", "INSTANCE", "KEYS", "KEYWORDS",
           "LENGTH", "LIST", "VERSION"]

# Kinds of entries, as in program/call.pyx.
(DICT, CELL, LIST, LENGTH, ATTR, BYTES, FUNCTION, KEYWORDS, VERSION, INSTANCE, KEYS,
 CALL) = range(12)

_KNOWN_PACKAGES = frozenset(sys.stdlib_module_names) | {"fastgrad", "numpy", "scipy"}

# Methods that no name in the code stands for.
_UNNAMED = frozenset(f"__{name}__" for name in (
    "call getitem setitem delitem missing len iter next reversed contains bool int float complex "
    "index enter exit getattr getattribute setattr delattr get set delete array array_ufunc "
    "array_function add radd iadd sub rsub isub mul rmul imul truediv rtruediv itruediv floordiv "
    "rfloordiv ifloordiv mod rmod imod divmod rdivmod pow rpow ipow matmul rmatmul imatmul neg pos "
    "abs invert and rand iand or ror ior xor rxor ixor lshift rlshift ilshift rshift rrshift "
    "irshift eq ne lt le gt ge round trunc floor ceil hash instancecheck subclasscheck "
    "class_getitem length_hint bytes complex await aiter anext aenter aexit array_interface "
    "array_struct array_priority array_wrap array_prepare array_finalize buffer release_buffer "
    "subclasshook match_args bases").split()) | {"keys", "_missing_", "_generate_next_value_"}
_COPYING = frozenset(["__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__",
                      "__setstate__", "__getnewargs__", "__getnewargs_ex__", "__replace__"])
_CONSTRUCTORS = ("__init__", "__new__", "__post_init__")
_MAKING = frozenset(["__init_subclass__", "__set_name__", "__mro_entries__", "__prepare__"])
_INSIDES = frozenset(["__globals__", "__closure__", "__code__", "__dict__", "__builtins__"])

# What every function has, and what may be read of it without being named.
_OF_FUNCTIONS = frozenset(["__name__", "__qualname__", "__doc__", "__module__"])
_OF_SOME_FUNCTIONS = _OF_FUNCTIONS | {"__annotations__", "__type_params__", "attrname"}
_HIDDEN = frozenset(["__globals__", "__closure__", "__builtins__"])
_COUNTED = frozenset(["cache_info"])    # of a function that keeps its results

# Of classes: bound without a new version of the class; and what is not looked up by computed names.
_OF_CLASSES = frozenset(["__name__", "__qualname__"])
_ASIDE = frozenset("""
__dict__ __weakref__ __annotations__ __annotations_cache__ __annotate__ __annotate_func__
__dataclass_fields__ __dataclass_params__ __orig_bases__ __parameters__ __type_params__ _abc_impl
__abstractmethods__ __static_attributes__ __firstlineno__
""".split())

# Attributes and functions that tell how an array lies in memory.
_LAYOUT = frozenset(["flags", "strides", "ctypes", "__array_interface__", "__array_struct__",
                     "isfortran", "shares_memory", "may_share_memory", "nditer", ORDER])
_TEXTS = frozenset(["__str__", "__repr__", "__format__"])

_BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType)
_DESCRIPTOR = (types.MethodDescriptorType, types.WrapperDescriptorType,
               types.ClassMethodDescriptorType, types.GetSetDescriptorType,
               types.MemberDescriptorType)
_MEMBERS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_METAS = (type, enum.EnumMeta, abc.ABCMeta)
_READERS = _known.READS_ALL | _known.READS_NAMED
_CACHED = type(functools.lru_cache(lambda: 0))
_NAME_GETTERS = (operator.attrgetter, operator.methodcaller, operator.itemgetter)


def _folders():
    """Where code is that is taken to be the same always."""
    packages = os.path.dirname(os.path.dirname(np.__file__))
    return tuple([os.path.join(folder, "") for folder in (
        sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"),
        os.path.dirname(os.path.dirname(core.__file__)),
        os.path.dirname(np.__file__), os.path.join(packages, "scipy"))])


_FOLDERS = _folders()


@functools.lru_cache(maxsize=10_000)
def _known_file(file):
    """Whether a file is of fastgrad, NumPy, SciPy or the standard library."""
    if file.startswith("<"):
        return file.startswith("<frozen")
    return any(file.startswith(folder) and "-packages" not in file[len(folder):]
               for folder in _FOLDERS)


def _compares_fields(kind, item):
    """Whether a method is the __eq__ that dataclass() writes. Objects that have it are no keys."""
    told = vars(kind).get("__dataclass_params__")
    return (told is not None and told.eq and kind.__hash__ is None
            and isinstance(item, types.FunctionType) and item.__code__.co_filename == "<string>")


def _known_module(name):
    """The same of the module of that name, which need not be a file. A user's module may have the
    name of one of the standard library's."""
    package = name.partition(".")[0]
    if package not in _KNOWN_PACKAGES:
        return False
    module = sys.modules.get(name) or sys.modules.get(package)
    file = getattr(module, "__file__", None)
    return file is None or _known_file(file)


def _library_class(kind):
    """Whether a class is of fastgrad, NumPy, SciPy, the standard library, or written in C. (What
    is executed in a dictionary without a name says that it is of builtins.)"""
    if not kind.__flags__ & _HEAP_TYPE:
        return True
    if not _known_module(module_of(kind)):
        return False
    found = sys.modules.get(module_of(kind))
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind or kind.__module__ != "builtins"


_HEAP_TYPE = 1 << 9


# Functions of libraries that are made around functions of the user's; these are in their closures.
def _around():
    sample = collections.namedtuple("sample", "a")
    return frozenset([
        contextlib.contextmanager(_around).__code__, functools.singledispatch(_around).__code__,
        sample._replace.__code__, sample._asdict.__code__, sample._make.__func__.__code__,
        sample.__getnewargs__.__code__])


_AROUND = _around()
_DISPATCH = functools.singledispatch(_around).__code__
_TUPLEGETTER = type(collections.namedtuple("sample", "a").a)
_PROPERTIES = (property, functools.cached_property, staticmethod, classmethod,
               types.DynamicClassAttribute)
# What stands in a descriptor, and what of it is called when an attribute is bound.
_PARTS = ("fget", "func", "__func__")
_BINDING = ("fset", "fdel")
_OF_PROGRAMS = frozenset(["function", "reasons", "fast_calls"])     # public, and their own business


def _stateless(function, seen):
    """Whether a function reads nothing that can change: no number, no container, no object."""
    if not isinstance(function, types.FunctionType):
        return _known.function(function)
    if function in seen:
        return True
    seen.add(function)
    scope = Scope(function)
    found = [scope.look_up(name) for name in scope.names.globals]
    found += [cell.cell_contents for cell in function.__closure__ or ()]
    for value in scope.names.reads:
        bases, whole = scope.objects(value.parts[0])
        if not whole:
            return False
        for base in bases:
            x = scope.attribute(base, value.name)
            if not (plain(x) and isinstance(base, types.ModuleType)
                    and _known_module(base.__name__)):
                found.append(x)         # (np.pi is the same always)
    return not scope.names.dynamic and all(
        [isinstance(x, types.ModuleType) and _known_module(x.__name__) or _known.function(x)
         or isinstance(x, types.FunctionType) and _stateless(x, seen) for x in found])
