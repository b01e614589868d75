"""What a function reaches besides its arguments, and whether it is still the same.

A recording sees operands, not where they came from. `Watch` walks what a function can read: the
globals and closure cells that its code names, its defaults, the attributes that code names of the
instances and modules it meets, and the same for the functions it reaches. The walk gives

- `tokens`: a flat description, equal for equal states, in which arrays stand as places;
- `arrays`: what stands at those places; a recording says which of them it used directly, and these
  are read again at each call, while the others are compared with a copy;
- `entries`: single comparisons of identity that together imply equal tokens, for
  `fastgrad._core.program.Checks`, which takes some ten nanoseconds for each;
- `reason`: why no description can do, if so.

Code of fastgrad, NumPy, SciPy and the standard library is taken to be the same always, and objects
of their types by identity. Start reading at `Watch`.
"""

import builtins
import collections
import datetime
import dis
import functools
import io
import os
import random
import re
import secrets
import struct
import sys
import sysconfig
import time
import types
import uuid
import weakref
from typing import NamedTuple

import numpy as np

from fastgrad._core import core
from fastgrad._core.program import ABSENT

__all__ = ["Code", "Watch", "constant", "innermost", "lifted", "random_states", "rewrap", "vouched"]

Tensor = core.Tensor

# More than this is no description any more: an argument says better what matters.
OBJECTS = 20_000
COPIES = 1 << 28                        # bytes of arrays that are compared by content

# Kinds of entries, as in program_call.pyx.
DICT, CELL, LIST, LENGTH, ATTR, TYPE, EQUAL, FUNCTION, BYTES = range(9)

_IMMUTABLE = (int, float, complex, str, bytes, bool, type(None), type(Ellipsis),
              type(NotImplemented), slice, range, np.generic, np.dtype, datetime.date, datetime.timedelta)
_KNOWN_PACKAGES = frozenset(sys.stdlib_module_names) | {"fastgrad", "numpy", "scipy"}

# What answers otherwise each time, though nothing that is reached has changed.
_IMPURE = {id(function): name for name, function in {
    "time.time": time.time, "time.time_ns": time.time_ns, "time.perf_counter": time.perf_counter,
    "time.perf_counter_ns": time.perf_counter_ns, "time.monotonic": time.monotonic,
    "time.monotonic_ns": time.monotonic_ns, "time.process_time": time.process_time,
    "time.thread_time": time.thread_time, "time.localtime": time.localtime,
    "time.gmtime": time.gmtime,
    "os.urandom": os.urandom, "os.environ": os.environ, "os.getenv": os.getenv,
    "input": input, "open": open, "uuid.uuid1": uuid.uuid1, "uuid.uuid4": uuid.uuid4,
    "secrets": secrets, "random.SystemRandom": random.SystemRandom, "random.Random": random.Random,
    "np.random.default_rng": np.random.default_rng, "np.random.RandomState": np.random.RandomState,
    "np.random.SeedSequence": np.random.SeedSequence, "np.fromfile": np.fromfile,
    "np.load": np.load, "np.loadtxt": np.loadtxt, "np.genfromtxt": np.genfromtxt,
    "np.memmap": np.memmap}.items()}

# Names that let code read attributes that it does not name.
_DYNAMIC = frozenset(["getattr", "vars", "dir", "__dict__", "eval", "exec", "globals", "locals",
                      "attrgetter", "asdict", "astuple", "fields", "copy", "deepcopy", "dumps"])

# Attributes of arrays that do not depend on the contents.
_SHAPE_ONLY = frozenset(["shape", "ndim", "size", "dtype", "itemsize", "nbytes", "T", "reshape"])

# Instructions that look into an array.
_INDEXING = ("BINARY_SUBSCR", "BINARY_SLICE", "BINARY_OP", "GET_ITER", "GET_YIELD_FROM_ITER",
             "UNPACK_SEQUENCE", "UNPACK_EX", "CONTAINS_OP", "LIST_EXTEND", "SET_UPDATE")

# Methods that no name in the code stands for.
_UNNAMED = frozenset(f"__{name}__" for name in (
    "call getitem len iter next contains bool int float index enter exit getattr getattribute get "
    "array array_ufunc array_function add radd sub rsub mul rmul truediv rtruediv floordiv "
    "rfloordiv mod rmod divmod rdivmod pow rpow matmul rmatmul neg pos abs invert and rand or ror xor rxor "
    "lshift rlshift rshift rrshift lt le gt ge round").split())


# ---- what code names ------------------------------------------------------------------------

class Code:
    """The names that a code object, and those nested in it, read and write.

    Attributes
    ----------
    globals : dict
        Name of a global or builtin -> line where it is first read.
    attributes : set
    chains : list of (tuple of str, int)
        ``np.random.rand`` as ``("np", "random", "rand")``, with the line.
    imports : set
        Modules imported inside.
    stores : set
        Globals, cells and attributes that it binds.
    pairs : set of (str, str)
        A name and the attribute that is read of it: ``("data", "mean")``; "[]" where it is indexed
        or iterated over.
    lines : dict
        Name of a global, cell or attribute -> line where it is first read.
    sets_attributes : bool
        Whether it binds any attribute.
    dynamic : bool
        Whether it may read attributes it does not name.
    """

    _known = {}

    def __new__(cls, code):
        known = cls._known.get(code)
        if known is None:
            known = super().__new__(cls)
            known._scan(code)
            if len(cls._known) > 10_000:
                cls._known.clear()
            cls._known[code] = known
        return known

    def _scan(self, code):
        self.globals, self.attributes, self.chains = {}, set(), []
        self.imports, self.stores, self.pairs, self.lines = set(), set(), set(), {}
        self.sets_attributes = False
        stack = []                      # names of what lies there, None where that has none
        chain, line, last = None, code.co_firstlineno, None
        for step in _steps(code):
            line = step.line or line
            name = step.opname
            if name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                self.globals.setdefault(step.argval, line)
                chain = [step.argval]
            elif name in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
                self.attributes.add(step.argval)
                self.pairs |= {(last, step.argval), (stack[-1] if stack else None, step.argval)}
                if chain is not None:
                    chain.append(step.argval)
                    self.chains.append((tuple(chain), line))
            elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
                chain = [step.argval]
            elif name.startswith("STORE_") or name.startswith("DELETE_"):
                chain = None
                if name.endswith(("GLOBAL", "NAME", "DEREF", "ATTR")):
                    self.stores.add(step.argval)
                self.sets_attributes = self.sets_attributes or name.endswith("ATTR")
            elif name == "IMPORT_NAME":
                self.imports.add(step.argval)
                chain = None
            elif name == "IMPORT_FROM":
                self.attributes.add(step.argval)
            else:
                chain = None
            if name.startswith(_INDEXING):
                at = -3 if name == "BINARY_SLICE" else -2 if name.startswith("BINARY") else -1
                if len(stack) >= -at and stack[at] is not None and _indexes(step):
                    self.pairs.add((stack[at], "[]"))
            self._follow(step, stack)
            last = step.argval if name.startswith("LOAD_") else None
            if isinstance(last, str) and name != "LOAD_CONST":
                self.lines.setdefault(last, line)
        for name, first in self.globals.items():
            self.chains.append(((name,), first))
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                inner = Code(inner)
                for name, first in inner.globals.items():
                    self.globals.setdefault(name, first)
                self.attributes |= inner.attributes
                self.chains += inner.chains
                self.imports |= inner.imports
                self.stores |= inner.stores
                self.sets_attributes = self.sets_attributes or inner.sets_attributes
                self.pairs |= inner.pairs
                self.lines = {**inner.lines, **self.lines}
        self.dynamic = bool(_DYNAMIC & (self.attributes | set(self.globals)))

    @staticmethod
    def _follow(step, stack):
        """What lies on the stack after an instruction, as far as names go. Jumps are not followed:
        what lies there at their targets is forgotten."""
        if step.is_jump_target:
            stack[:] = [None] * len(stack)
        effect = step.effect
        if step.opname in ("SWAP", "COPY") and step.argval <= len(stack):
            at = -step.argval
            if step.opname == "COPY":
                stack.append(stack[at])
            else:
                stack[-1], stack[at] = stack[at], stack[-1]
            return
        if step.opname.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR",
                                   "LOAD_FROM_DICT")):
            if effect < 0:
                del stack[effect:]
            if stack:
                stack[-1] = step.argval
            stack += [None] * effect
            return
        if effect > 0:
            stack += [None] * effect
            if step.opname.startswith("LOAD_") and isinstance(step.argval, str) and (
                    step.opname != "LOAD_CONST"):
                stack[-1] = step.argval
            return
        if effect < 0:
            del stack[effect:]
        if stack and not step.opname.startswith(("STORE_", "POP_", "RESUME", "CACHE", "PRECALL")):
            stack[-1] = None            # an operation's result


class _Step(NamedTuple):
    opname: str
    argval: object
    argrepr: str
    line: int | None
    is_jump_target: bool
    effect: int                         # on the height of the stack, where it does not jump


# What Python 3.13 and later join of two instructions about local variables.
_JOINED = re.compile(r"((?:LOAD|STORE)_FAST)_((?:LOAD|STORE)_FAST)")


def _steps(code):
    """The instructions of a code object, one name each, named as in Python 3.11."""
    for step in dis.get_instructions(code):
        line = step.positions.lineno if step.positions is not None else None
        opname = step.opname.replace("_BORROW", "")
        joined = _JOINED.fullmatch(opname)
        if joined is not None:
            first, second = joined.groups()
            for name, argval, target in ((first, step.argval[0], step.is_jump_target),
                                         (second, step.argval[1], False)):
                yield _Step(name, argval, argval, line, target, 1 if name == "LOAD_FAST" else -1)
            continue
        try:
            effect = dis.stack_effect(step.opcode, step.arg, jump=False)
        except ValueError:
            effect = 0
        yield _Step(opname, step.argval, step.argrepr, line, step.is_jump_target, effect)


def _package(name):
    return (name or "").partition(".")[0]


def _folders():
    """Where code is that is taken to be the same always."""
    packages = os.path.dirname(os.path.dirname(np.__file__))
    return tuple([os.path.join(folder, "") for folder in (
        sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(__file__),
        os.path.dirname(np.__file__), os.path.join(packages, "scipy"))])


_FOLDERS = _folders()


@functools.lru_cache(maxsize=10_000)
def _known_file(file):
    """Whether a file is of fastgrad, NumPy, SciPy or the standard library."""
    if file.startswith("<"):
        return file.startswith("<frozen")
    return any(file.startswith(folder) and "-packages" not in file[len(folder):]
               for folder in _FOLDERS)


def _known_module(name):
    """The same of the module of that name, which need not be a file. A user's module may have the
    name of one of the standard library's."""
    if _package(name) not in _KNOWN_PACKAGES:
        return False
    module = sys.modules.get(name) or sys.modules.get(_package(name))
    file = getattr(module, "__file__", None)
    return file is None or _known_file(file)


def _known_function(function):
    """Whether a function is of known code, and made around no other code."""
    while _known_file(function.__code__.co_filename):
        function = getattr(function, "__wrapped__", None)
        if not isinstance(function, types.FunctionType):
            return function is None or _known_module(getattr(function, "__module__", None))
    return False


def _installed(file):
    return file is None or "-packages" in file or _known_file(file)


def _indexes(step):
    """Whether an instruction of _INDEXING does; from Python 3.14 on BINARY_OP may."""
    return step.opname != "BINARY_OP" or "[" in step.argrepr


def _bits(x):
    """A float so that NaN is itself and the zeros are two."""
    return struct.pack("d", x)


# ---- arrays that are vouched for ------------------------------------------------------------

_vouched = {}                   # id -> weak reference


def constant(a):
    """Vouch for an array: its contents will never change.

    A compiled function compares the arrays that it reaches with copies, or reads them again at
    each call, and is recorded at each call where an array comes from nowhere it knows, such as one
    that plain NumPy computes inside the function. An array that is vouched for is taken as it is
    at the time of recording.

    Parameters
    ----------
    a : ndarray or number

    Returns
    -------
    The same object.

    Raises
    ------
    TypeError
        For anything else; vouch for each array in a container.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> grid = fg.constant(np.linspace(0.0, 1.0, 5))
    >>> @fg.compile
    ... def f(x):
    ...     return np.sum(x * grid)
    >>> f(2.0)
    np.float64(5.0)
    """
    if isinstance(a, np.ndarray):
        key = id(a)
        _vouched[key] = weakref.ref(a, lambda _, key=key: _vouched.pop(key, None))
        vouch = getattr(core, "vouch", None)
        if vouch is not None:
            vouch(a)
    elif not isinstance(a, (int, float, np.generic, Tensor)):
        raise TypeError(f"constant: takes an array or a number, not {type(a).__name__}; vouch for "
                        "each array in it")
    return a


def vouched(a):
    """Whether the array was given to `constant`."""
    found = _vouched.get(id(a))
    return found is not None and found() is a


# ---- random numbers -------------------------------------------------------------------------

def _state(generator):
    if isinstance(generator, np.random.Generator):
        return _frozen(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return _frozen(generator.get_state(legacy=False))
    if isinstance(generator, np.random.BitGenerator):
        return _frozen(generator.state)
    return generator.getstate()


def _frozen(state):
    if isinstance(state, dict):
        return tuple([(key, _frozen(value)) for key, value in state.items()])
    return state.tobytes() if isinstance(state, np.ndarray) else state


_GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_GLOBAL = [(np.random.mtrand._rand, "np.random"), (random._inst, "random")]


def random_states(generators):
    """The states of these generators and of those behind `np.random` and `random`."""
    return [(_state(generator), name) for generator, name in generators + _GLOBAL]


# ---- the walk -------------------------------------------------------------------------------

class Watch:
    """The state of all that some roots reach.

    Parameters
    ----------
    roots : list
        Functions and other objects.
    instance : object
        What the innermost function is a method of, if it is one.
    """

    def __init__(self, roots, instance=None):
        self.roots, self.instance = roots, instance
        self.innermost = innermost(roots[0]) if roots else None
        names, everything = set(), False
        while True:
            # What code names decides what is visited, and what is visited brings more code.
            self._begin(names, everything)
            for k, root in enumerate(roots):
                self._visit(root, "", None)
            if self.names <= names and self.everything <= everything or self.reason:
                break
            names, everything = self.names, self.everything

    def _begin(self, names, everything):
        self.wanted, self.all = names, everything
        self.names, self.everything = set(names), everything
        self.tokens, self.entries, self.arrays, self.labels = [], [], [], []
        self.origins = {}               # place in tokens of a float -> (function, kind, name)
        self.generators = []            # with their names
        self.vouched = []
        self.met_again = set()          # ids of what has been reached on two ways
        self.readers = {}               # (id of a globals dict, name) -> functions that read it
        self.functions = []
        self.pairs = set()
        self.reason = None
        self._seen = {}
        self._held = []
        self._bytes = 0

    # Each visit adds tokens and, for what can change, entries whose holder is the object itself.
    # That a name still refers to the object is for the entry of whoever holds it.

    def _visit(self, value, label, origin):
        kind = type(value)
        if kind is float:
            if origin is not None:
                self.origins[len(self.tokens)] = origin
            self.tokens.append(("float", _bits(value)))
            return
        if isinstance(value, _IMMUTABLE):
            self.tokens.append(("value", kind, value if not isinstance(value, np.generic)
                                else value.tobytes()))
            return
        place = self._seen.get(id(value))
        if place is not None:
            self.tokens.append(("again", place))
            self.met_again.add(id(value))
            return
        if len(self._seen) + len(self.entries) + _length(value) > OBJECTS:
            self._refuse(f"it reaches more than {OBJECTS:,} objects through "
                         f"{f'`{label}`' if label else 'its names'}; pass what it needs as an "
                         "argument, or as an array")
            return
        self._seen[id(value)] = len(self._seen)
        self._held.append(value)        # so that no id is used twice
        if isinstance(value, (np.ndarray, Tensor)):
            self._array(value, label)
        elif isinstance(value, types.FunctionType):
            self._function(value, label)
        elif isinstance(value, types.MethodType):
            self.tokens.append(("method",))
            self._visit(value.__func__, label, None)
            self._visit(value.__self__, label, None)
        elif isinstance(value, functools.partial):
            self.tokens.append(("partial",))
            self._visit(value.func, label, None)
            self._visit(value.args, label, None)
            self._visit(value.keywords, label, None)
        elif isinstance(value, (types.ModuleType, type)):
            self._namespace(value, label)
        elif isinstance(value, (tuple, list, dict, set, frozenset, collections.deque, bytearray)):
            self._container(value, label)
        elif isinstance(value, _GENERATORS):
            self.tokens.append(("object", id(value)))
            self.generators.append((value, label))
        elif isinstance(value, (property, functools.cached_property, staticmethod, classmethod)):
            self.tokens.append(("descriptor", kind))
            for name in ("fget", "func", "__func__"):
                if (function := getattr(value, name, None)) is not None:
                    self._visit(function, label, None)
        elif _package(kind.__module__) == "fastgrad" and (
                hasattr(value, "__wrapped__") or hasattr(value, "_reached")):
            self._wrapper(value, label)
        elif hasattr(kind, "__next__") or isinstance(value, io.IOBase):
            what = "file" if isinstance(value, io.IOBase) else "iterator"
            self._refuse(f"it may read the {what} `{label}`, which moves on")
        else:
            self._instance(value, label)

    def _refuse(self, reason, line=""):
        if self.reason is None:
            self.reason = reason + line

    def _array(self, value, label):
        if isinstance(value, np.ndarray) and vouched(value):
            self.vouched.append(value)
            self.tokens.append(("object", id(value)))
            return
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            self._refuse(f"it reaches the array of objects `{label}`; write .astype(float)")
            return
        self.tokens.append(("array", type(value), value.dtype, value.shape))
        self.arrays.append(value)
        self.labels.append(label)

    def line_of(self, label):
        """Where code first reads what the label says: ", at file.py:12"; nothing if unknown."""
        name = label.rpartition(".")[2].partition("[")[0]
        for function in self.functions:
            code = function.__code__
            if name in (lines := Code(code).lines):
                return f", at {os.path.basename(code.co_filename)}:{lines[name]}"
        return ""

    def read_otherwise(self, k):
        """Whether code calls methods of array k: its contents may be known to plain Python."""
        name = self.labels[k].rpartition(".")[2].partition("[")[0]
        return any(first == name and attribute not in _SHAPE_ONLY
                   for first, attribute in self.pairs)

    # ---- functions --------------------------------------------------------------------------

    def _function(self, function, label):
        self.tokens.append(("function", function.__code__))
        if _known_function(function):
            self.tokens[-1] = ("object", id(function))
            return
        # If known code is around other code (functools.wraps), its closure leads there.
        known = _known_file(function.__code__.co_filename)
        self.functions.append(function)
        self.entries.append((FUNCTION, function, function.__code__, function.__defaults__))
        code = Code(function.__code__)
        self.names |= code.attributes
        self.pairs |= code.pairs
        self.everything = self.everything or code.dynamic
        file = function.__code__.co_filename
        for chain, line in code.chains if not known else ():
            self._chain(function, chain, file, line)
        for value in (function.__defaults__, function.__kwdefaults__):
            if value is not None:
                self._visit(value, f"the defaults of {function.__name__}", None)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:
                self.tokens.append(("empty cell",))
                self.entries.append((CELL, cell, name, ABSENT))
                continue
            self.entries.append((CELL, cell, name, value))
            self._visit(value, name, (function, "cell", name))
        if known:
            return
        space = function.__globals__
        for name in code.globals:
            self.readers.setdefault((id(space), name), []).append(function)
            value = space.get(name, ABSENT)
            self.entries.append((DICT, space, name, value))
            if value is ABSENT:
                self.tokens.append(("builtin", name))
                if (value := getattr(builtins, name, None)) is not None:
                    self._visit(value, name, None)
            else:
                self._visit(value, name, (function, "global", name))
        for name in code.imports:
            if (module := sys.modules.get(name)) is not None:
                self._visit(module, name, None)

    def _chain(self, function, chain, file, line):
        """Look for what must not be called, and for methods of arrays, in a dotted name."""
        value = function.__globals__.get(chain[0], getattr(builtins, chain[0], ABSENT))
        if chain[0] in function.__code__.co_freevars:
            cell = function.__closure__[function.__code__.co_freevars.index(chain[0])]
            try:
                value = cell.cell_contents
            except ValueError:
                return
        for name in chain[1:]:
            if not isinstance(value, (types.ModuleType, type)):
                break
            if value in (datetime.datetime, datetime.date) and name in ("now", "today", "utcnow"):
                value = time.time
                break
            value = getattr(value, name, ABSENT)
        if id(value) in _IMPURE:
            self._refuse(f"it calls {'.'.join(chain)}, which has another result each time",
                         f", at {os.path.basename(file)}:{line}")

    def _wrapper(self, value, label):
        """Derivatives of functions, programs, functions with rules."""
        self.tokens.append(("wrapper", type(value)))
        make = _parts_of(value)
        if make is not None:
            self.tokens.append(("made", repr(make[1])))
        self._visit(getattr(value, "__wrapped__", None), label, None)
        for x in getattr(value, "_reached", ()):
            self._visit(x, label, None)
        rule = getattr(value, "_rule", None)
        if rule is not None:
            self._attr(value, "_rule")
            self._visit(rule, label, None)

    # ---- containers -------------------------------------------------------------------------

    def _container(self, value, label):
        kind = type(value)
        if isinstance(value, (set, frozenset, bytearray)):
            self.tokens.append(("set", kind, kind(value)))
            if not isinstance(value, frozenset):
                self.entries.append((EQUAL, value, None, kind(value)))
            return
        if isinstance(value, dict):
            items = list(value.items())
            self.tokens.append(("dict", kind, tuple([key for key, _ in items])))
            self.entries.append((LENGTH, value, len(items), None))
            for key, item in items:
                self.entries.append((DICT, value, key, item))
                self._visit(item, f"{label}[{key!r}]", None)
            return
        self.tokens.append(("sequence", kind, len(value)))
        if isinstance(value, collections.deque):
            self.entries.append((EQUAL, value, None, value.copy()))
        elif isinstance(value, list):
            self.entries.append((LENGTH, value, len(value), None))
        for k, item in enumerate(value):
            if isinstance(value, list):
                self.entries.append((LIST, value, k, item))
            self._visit(item, f"{label}[{k}]", None)

    # ---- things with attributes -------------------------------------------------------------

    def _attr(self, holder, name):
        self.entries.append((ATTR, holder, name, getattr(holder, name)))

    def _namespace(self, value, label):
        """A module or a class: the attributes that code names, unless it is an installed one."""
        self.tokens.append(("object", id(value)))
        module = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
        if _known_module(module):
            return
        if isinstance(value, types.ModuleType):
            if _installed(getattr(value, "__file__", None)):
                return
            self._named(value.__dict__, None, label)
            return
        self._class(value, label, ("__init__", "__new__", "__post_init__"))

    def _class(self, kind, label, more=()):
        """What instances of a class find there."""
        for base in kind.__mro__:
            if _known_module(base.__module__):
                continue
            for name, item in list(vars(base).items()):
                if name in more or name in _UNNAMED or name in self.wanted:
                    self.entries.append((TYPE, base, name, item))
                    self.tokens.append(("name", name))
                    self._visit(item, f"{label}.{name}" if label else name, None)

    def _named(self, space, owner, label):
        """The attributes in a dictionary that code names."""
        everything = self.all and not isinstance(space.get("__name__"), str)
        for name in list(space) if everything else sorted(self.wanted & space.keys()):
            item = space[name]
            self.tokens.append(("name", name))
            self.entries.append((DICT, space, name, item))
            self._visit(item, f"{label}.{name}" if label else name,
                        None if owner is None else (owner, "attribute", name))

    def _instance(self, value, label):
        kind = type(value)
        if hasattr(value, "__wrapped__"):           # functools.lru_cache, functions of Cython
            self._visit(value.__wrapped__, label, None)
        if id(value) in _IMPURE:
            self._refuse(f"it may call {_IMPURE[id(value)]}")
        if _known_module(kind.__module__) and not isinstance(value, types.SimpleNamespace):
            self.tokens.append(("object", id(value)))
            return
        self.tokens.append(("instance", kind))
        if kind not in self._seen:
            self._seen[kind] = len(self._seen)
            self._class(kind, label)
        space = getattr(value, "__dict__", None)
        if isinstance(space, dict):
            self.entries.append((LENGTH, space, len(space), None))
            if hasattr(kind, "__getattr__"):
                self.everything = True
            self._named(space, value, label)
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if (self.all or name in self.wanted) and not name.startswith("__"):
                    item = getattr(value, name, ABSENT)
                    self.tokens.append(("name", name))
                    self.entries.append((ATTR, value, name, item))
                    if item is not ABSENT:
                        self._visit(item, f"{label}.{name}" if label else name, None)
        if space is None and not hasattr(kind, "__slots__"):
            self.tokens.append(("object", id(value)))


def _length(value):
    return len(value) if isinstance(value, (list, tuple, dict, collections.deque)) else 0


# ---- functions made of functions ------------------------------------------------------------

def _parts_of(wrapper):
    """How fastgrad's derivatives are made: (maker, arguments after the function), or None."""
    if not hasattr(type(wrapper), "_parts") or not hasattr(wrapper, "__wrapped__"):
        return None
    try:
        made = wrapper._parts()
    except Exception:
        return None
    if type(made) is tuple and len(made) == 2 and made[1] and made[1][0] is wrapper.__wrapped__:
        return made[0], made[1][1:]
    return None


def innermost(function):
    """The Python function inside of methods, partial objects and derivatives; None if there is
    none that can be replaced."""
    while not isinstance(function, types.FunctionType):
        if isinstance(function, types.MethodType):
            function = function.__func__
        elif isinstance(function, functools.partial):
            function = function.func
        elif _package(type(function).__module__) == "fastgrad" and _parts_of(function) is not None:
            function = function.__wrapped__
        else:
            return None
    return function


def bound_to(function):
    """The instance that the innermost function is bound to, or None."""
    while not isinstance(function, (types.FunctionType, types.MethodType)):
        if isinstance(function, functools.partial):
            function = function.func
        elif innermost(function) is not None:
            function = function.__wrapped__
        else:
            return None
    return function.__self__ if isinstance(function, types.MethodType) else None


def rewrap(function, clone, instance):
    """The same function with another one innermost, bound to another instance."""
    if isinstance(function, types.FunctionType):
        return clone
    if isinstance(function, types.MethodType):
        return types.MethodType(clone, instance)
    if isinstance(function, functools.partial):
        return functools.partial(rewrap(function.func, clone, instance), *function.args,
                                 **function.keywords)
    maker, rest = _parts_of(function)
    return maker(rewrap(function.__wrapped__, clone, instance), *rest)


def lifted(state, names, values):
    """Copies of the innermost function and of its instance, in which names have other values.

    names : list of ("cell", "global" or "attribute", name)
    """
    function, instance = state.innermost, state.instance
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
    space = function.__globals__
    if any(kind == "global" for kind, _ in names):
        space = dict(space)
    if any(kind == "attribute" for kind, _ in names):
        instance = object.__new__(type(instance))
        instance.__dict__.update(state.instance.__dict__)
    for (kind, name), value in zip(names, values):
        if kind == "cell":
            cells[name] = types.CellType(value)
        elif kind == "global":
            space[name] = value
        else:
            instance.__dict__[name] = value
    clone = types.FunctionType(function.__code__, space, function.__name__, function.__defaults__,
                               tuple([cells[name] for name in function.__code__.co_freevars]))
    clone.__kwdefaults__ = function.__kwdefaults__
    clone.__dict__.update(function.__dict__)
    clone.__module__ = function.__module__
    return clone, instance
