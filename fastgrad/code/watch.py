"""What a function reaches besides its arguments, and whether it is still the same.

A recording sees operands, not where they came from. `Watch` walks what a function can read: the
globals and closure cells that its code names, its defaults, the attributes that code names of the
instances and modules it meets, and the same for the functions it reaches. Code is read
(code/values.py, code/names.py), objects are told by their content, and what can be neither read nor
told must stand in the tables of code/known.py. The walk gives

- `tokens`: a flat description, equal for equal states, in which arrays stand as places;
- `arrays`: what stands at those places; a recording says which of them it used directly, and these
  are read again at each call, others are compared with a copy (and some of these: code/flow.py);
- `entries`: single comparisons of identity that together imply equal tokens, for
  `fastgrad._core.program.Checks`, which takes some ten nanoseconds for each;
- `reason`: why no description can do, if so.

Code and constants of fastgrad, NumPy, SciPy and the standard library are taken to be the same
always. Start reading at `Watch`.
"""

import builtins
import functools
import io
import operator
import os
import sys
import types

import numpy as np

from fastgrad._core import core
from fastgrad._core.program import ABSENT

from . import known as _known
from .holding import Holding, _length
from .known import module_of, package_of
from .libraries import (
    _AROUND,
    _BINDING,
    _BUILTIN,
    _CACHED,
    _COUNTED,
    _DESCRIPTOR,
    _DISPATCH,
    _HEAP_TYPE,
    _HIDDEN,
    _INSIDES,
    _LAYOUT,
    _MEMBERS,
    _NAME_GETTERS,
    _OF_FUNCTIONS,
    _OF_PROGRAMS,
    _OF_SOME_FUNCTIONS,
    _PARTS,
    _PROPERTIES,
    _READERS,
    _TUPLEGETTER,
    ATTR,
    CALL,
    CELL,
    DICT,
    FUNCTION,
    INSTANCE,
    KEYWORDS,
    _known_file,
    _known_module,
    _library_class,
    _stateless,
)
from .names import (
    ANY,
    COPIED,
    EQUAL,
    TRIES,
    Scope,
    handed_on,
    names_in,
    own_attribute,
)
from .told import (
    CONTAINERS,
    GENERATORS,
    NUMBERS,
    bits,
    exact,
    generator_state,
    layout,
    only_drawn_from,
    plain,
)
from .value import origins, written
from .vouched import constant, vouched
from .wrapped import bound_to, innermost, lifted, parts_of, rewrap

__all__ = ["Watch", "bound_to", "constant", "innermost", "lifted", "rewrap"]

Tensor = core.Tensor

# More than this is no description any more: an argument says better what matters.
OBJECTS = 20_000
COPIES = 1 << 28                        # bytes of arrays that are compared by content

# The label of arrays that are operands of what has been written down, and reached by no code.
OPERAND = "an operand"

# ---- the walk -------------------------------------------------------------------------------

class Watch(Holding):
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
        self.given = None               # which arguments are Tensors, see code/flow.py
        names, everything = set(), False
        while True:
            # What code names decides what is visited, and what is visited brings more code.
            self._begin(names, everything)
            for k, root in enumerate(roots):
                self._visit(root, "", None, k > 0)
            if self.names <= names and self.everything <= everything or self.reason:
                break
            names, everything = self.names, self.everything

    def _begin(self, names, everything):
        self.wanted, self.all = names, everything       # names, and marks of code/names.py
        self.any = ANY in names
        self.by_layout = not _LAYOUT.isdisjoint(names)  # an array must be the same, and lie so
        self.names, self.everything = set(names), everything
        self.tokens, self.entries, self.arrays, self.labels = [], [], [], []
        self.ways = []                  # labels of each array by which it is reached
        self.origins = {}               # place in tokens of a float -> (function, kind, name)
        self.generators = []            # with their names
        self.vouched = []
        self.met_again = set()          # ids of what has been reached on two ways
        self.readers = {}               # (id of a globals dict, name) -> functions that read it
        self.functions, self.scopes = [], []
        self.in_classes = {}            # class -> names that are found there, or in its bases
        self.asked = set()              # names that hasattr is asked for
        self.methods = {}               # name -> functions that classes have by it
        self.reason = None
        self._seen = {}
        self._held = []
        self._touched = []              # numbers of arrays, with the name by which they are met
        self._holds = {}                # id of what holds arrays -> its label, and part of that
        self._entered = set()
        self._handed = set()            # ids of functions whose attributes may be asked for

    # Each visit adds tokens and, for what can change, entries whose holder is the object itself.
    # That a name still refers to the object is for the entry of whoever holds it.

    def _compare(self, kind, holder, key, expected):
        """An entry, once."""
        mark = kind, id(holder), key if type(key) in (str, int) else id(key)
        if mark not in self._entered:
            self._entered.add(mark)
            self.entries.append((kind, holder, key, expected))

    def _visit(self, value, label, origin, handed=True):
        """`handed`: code may do more with it than call it."""
        kind = type(value)
        if kind is float:
            if origin is not None:
                self.origins[len(self.tokens)] = origin
            self.tokens.append(("float", bits(value)))
            return
        told = _known.kind(value)
        if told is not None and told.how == "value":
            self.tokens.append(("value", exact(value)))
            self._held.append(value)
            if kind is slice:           # which may hold any object
                for part in (value.start, value.stop, value.step):
                    if not plain(part):
                        self._visit(part, label, None)
            elif not plain(value):
                zone = getattr(value, "tzinfo", None)
                if zone is not None:
                    self._visit(zone, f"{label}.tzinfo", None)
            hazard = told.hazards & self.wanted
            if hazard:
                self._refuse(f"it may ask `{label}.{min(hazard)}`, which answers otherwise each "
                             "time", self.line_of(min(hazard)))
            return
        place = self._seen.get(id(value))
        if place is not None:
            self.tokens.append(("again", place))
            self.met_again.add(id(value))
            self._again(value, label)
            if handed:
                self._hand_on(value, kind, label)
            return
        if len(self._seen) + len(self.entries) + _length(value) > OBJECTS:
            self._refuse(f"it reaches more than {OBJECTS:,} objects through "
                         f"{f'`{label}`' if label else 'its names'}; pass what it needs as an "
                         "argument, or as an array")
            return
        self._seen[id(value)] = len(self._seen)
        self._held.append(value)        # so that no id is used twice
        first = len(self._touched)
        self._look(value, kind, told, label)
        if handed:
            self._hand_on(value, kind, label)
        if len(self._touched) > first:
            self._holds[id(value)] = label, self._touched[first:]

    def _again(self, value, label):
        """Arrays are reached by another name, if what has been met holds any."""
        first, touched = self._holds.get(id(value), ("", ()))
        for k, way in touched:
            if isinstance(value, (np.ndarray, Tensor)):
                way = label
            elif isinstance(value, CONTAINERS) and way.startswith(first):
                way = label + way[len(first):]
            self.ways[k].append(way)
            self._touched.append((k, way))

    def _look(self, value, kind, told, label):
        """The visit of what has not been met before."""
        if id(value) in _READERS:       # handed on: it may be called with any names
            self._reads_all(value)
        if not _library_class(kind) and self._lies(kind):
            self._refuse(f"it reaches `{label}`, a {kind.__qualname__}, whose class or __dict__ is "
                         "told by code")
        elif isinstance(value, (np.ndarray, Tensor)):
            self._array(value, label)
        elif kind is types.FunctionType:
            self._function(value, label)
        elif kind is types.MethodType:
            self.tokens.append(("method", value.__func__.__name__))
            if type(value.__self__) not in GENERATORS:
                self._visit(value.__func__, label, None, False)
            else:
                self.names.add(value.__func__.__name__)
            self._visit(value.__self__, label, None)
        elif kind is functools.partial:
            self.tokens.append(("partial",))
            # (__setstate__ binds all of it anew, and the dictionary with it.)
            self._compare(INSTANCE, value, (kind, len(vars(value))), vars(value))
            self._visit(value.func, label, None, "func" in self.wanted)
            self._visit(value.args, f"the arguments of {label}", None)
            self._visit(value.keywords, f"the arguments of {label}", None)
        elif isinstance(value, types.ModuleType):
            self._module(value, label)
        elif isinstance(value, type):
            self._type(value, label)
        elif told is not None:
            self.tokens.append(("told", kind))
            if told.how == "content":
                self.tokens.append(told.read(value))
                self._compare(CALL, value, told.read, self.tokens[-1])
            else:
                self._attributes(value, label)
        elif kind in GENERATORS or isinstance(value, np.random.BitGenerator):
            self.tokens.append(("object", id(value)))
            self.generators.append((value, label))
            if self.any or COPIED in self.wanted or not only_drawn_from(value, self.wanted):
                state = generator_state(value)
                self.tokens.append(state)
                self._compare(CALL, value, generator_state, state)
        elif isinstance(value, _PROPERTIES):
            self.tokens.append(("descriptor", kind))
            for name in (*_PARTS, *_BINDING):
                function = getattr(value, name, None)
                if function is not None and (name in _PARTS or self._binds):
                    self._visit(function, label, None, name in self.wanted)
        elif kind in _BUILTIN:
            self._builtin(value, label)
        elif isinstance(value, _DESCRIPTOR) or kind is _TUPLEGETTER:
            self._descriptor(value, label)
        elif kind in _NAME_GETTERS:
            self._getter(value, kind)
        elif kind is _CACHED:
            self._cached(value, label)
        elif package_of(kind) == "fastgrad" and (
                hasattr(value, "__wrapped__") or hasattr(value, "_reached")):
            self._wrapper(value, label)
        elif kind.__name__ == "cython_function_or_method":
            self._compiled(value, label)
        elif isinstance(value, io.IOBase):
            self._refuse(f"it may read the file `{label}`, which moves on")
        elif _known.function(value):
            self.tokens.append(("object", id(value)))
        elif isinstance(value, CONTAINERS):
            self._container(value, label)
            if kind not in CONTAINERS and not _library_class(kind):
                self._instance(value, label)
            elif type(getattr(value, "__dict__", None)) is dict:
                self._own_attributes(value, label)
        elif not _library_class(kind):
            if hasattr(kind, "__next__"):
                self._iterator(value, label)
            else:
                self._instance(value, label)
        elif package_of(kind) == "fastgrad" and kind.__flags__ & _HEAP_TYPE:
            self.tokens.append(("object", kind))
            if hasattr(value, "__dict__"):
                self._attributes(value, label)
            self._slots(value, kind, label, True)
        elif hasattr(kind, "__next__"):
            self._iterator(value, label)
        else:
            self._unknown(value, label)

    # ---- what code has got hold of -----------------------------------------------------------

    def _is_handed_on(self, name):
        """Whether what is bound to a name is passed on, or asked for something: not only called."""
        return self.any or self.all or handed_on(name) in self.wanted

    def _hand_on(self, value, kind, label):
        """The attributes of a function, or of what is like one, that code may ask for."""
        if kind is types.MethodType:
            value, kind = value.__func__, type(value.__func__)
        if id(value) in self._handed:
            return
        if kind is types.FunctionType:
            if _known_file(value.__code__.co_filename) and _known.function(value):
                return
            hidden = _HIDDEN & self.wanted
            if hidden:
                self._refuse(f"it may read `{label}.{min(hidden)}`", self.line_of(min(hidden)))
        elif kind is _CACHED:
            if _COUNTED & self.wanted:
                self._refuse(f"it may ask how often `{label}` was called",
                             self.line_of("cache_info"))
        elif kind is functools.partial:
            pass
        elif isinstance(value, _PROPERTIES):
            for name in _PARTS:
                function = getattr(value, name, None)
                if function is not None and name in self.wanted | {"__func__"}:
                    self._hand_on(function, type(function), label)
        elif isinstance(value, type) and not _library_class(value):
            if "__str__" in self.wanted:
                self._compare(ATTR, value, "__qualname__", value.__qualname__)
                self.tokens.append((value.__qualname__, value.__module__))
                self._handed.add(id(value))
            return
        elif not (package_of(kind) == "fastgrad" and hasattr(value, "__wrapped__")):
            return
        self._handed.add(id(value))
        self._held.append(value)
        names = self.wanted & _OF_SOME_FUNCTIONS | (_OF_FUNCTIONS if self.any else set()) | (
            {"__qualname__"} if "__str__" in self.wanted else set())
        space = self._own_attributes(value, label)
        for name in sorted(names - space.keys()):
            found = getattr(value, name, ABSENT)
            self.tokens.append(("name", name))
            self._compare(ATTR, value, name, found)
            if found is not ABSENT:
                self._visit(found, f"{label}.{name}", None)

    def _own_attributes(self, value, label):
        """What has been set on an object that needs no attributes: a function, a Counter."""
        space = getattr(value, "__dict__", None)
        if type(space) is not dict:
            return {}
        names = (self.wanted & space.keys()) - {"lock"}     # (of cached properties)
        if names or self.all or self.any or TRIES in self.wanted:
            # (Else a name that comes later is an error in the run that is recorded.)
            self._compare(INSTANCE, value, (type(value), len(space)), space)
        if (self.all or self.any) and not isinstance(value, _PROPERTIES):
            names = space.keys()
            if package_of(type(value)) == "fastgrad":   # (what it needs for itself)
                names = [name for name in names if name[0] != "_" and name not in _OF_PROGRAMS]
        for name in sorted(names):
            if module_of(space[name]) == "functools" and type(space[name]) is types.FunctionType:
                continue                # of singledispatch and lru_cache, for themselves
            self.tokens.append(("name", name))
            self._compare(DICT, space, name, space[name])
            self._visit(space[name], f"{label}.{name}" if label else name, None)
        return space

    @property
    def _binds(self):
        """Whether code binds attributes."""
        return any([name[0] == "=" and name != EQUAL for name in self.wanted if name])

    def _reads_all(self, reader):
        """A function of READS_ALL or READS_NAMED is called with what is not told."""
        self.everything = True
        if id(reader) in _known.READS_NAMED:
            self.names.add(ANY)
        elif id(reader) in _known.COPIES:
            self.names.add(COPIED)

    def _lies(self, kind):
        """Whether code of the user's says what the class of an object is, or what is in it."""
        return any([not isinstance(vars(base).get(name, None), (type(None), *_MEMBERS))
                    for base in kind.__mro__ if not _library_class(base)
                    for name in ("__class__", "__dict__")])

    def _iterator(self, value, label):
        self._refuse(f"it may read the iterator `{label}`, which moves on")

    def _unknown(self, value, label):
        """Neither code that can be read nor in the tables."""
        name = own_attribute(value, "__name__")
        if callable(value) and name is not None:
            what = f"it may call `{label or name}`, of which is not known that it "\
                   "depends on its operands alone"
        else:
            kind = type(value)
            what = f"it reaches `{label}`, a {kind.__module__}.{kind.__qualname__}, whose state "\
                   "cannot be compared"
        self._refuse(what + self.line_of(label))

    def _refuse(self, reason, line=""):
        if self.reason is None:
            self.reason = reason + line

    def line_of(self, label):
        """Where code first reads what the label says: ", at file.py:12"; nothing if unknown."""
        name = label.rpartition(".")[2].partition("[")[0]
        for function in self.functions:
            code = function.__code__
            line = names_in(code).lines.get(name)
            if line is not None:
                return f", at {os.path.basename(code.co_filename)}:{line}"
        return ""

    def _array(self, value, label):
        if isinstance(value, np.ndarray) and vouched(value):
            self.vouched.append(value)
            self.tokens.append(("object", id(value)))
            return
        if isinstance(value, np.ndarray):
            if type(value) not in (np.ndarray, np.matrix, np.memmap):
                self._unknown(value, label)
                return
            if value.dtype.hasobject:
                self._refuse(f"it reaches the array of objects `{label}`; write .astype(float)")
                return
        self.tokens.append(("array", type(value), value.dtype, value.shape))
        if isinstance(value, np.ndarray):
            self._form(value, label)
        self.arrays.append(value)
        self.labels.append(label)
        self.ways.append([label])
        self._touched.append((len(self.arrays) - 1, label))

    def _form(self, value, label):
        """What is told of an array beside its type, shape and contents."""
        if value.dtype.names is not None:
            self._visit(value.dtype, f"{label}.dtype", None)
        if self.by_layout:
            self.tokens.append(layout(value))
            self._compare(CALL, value, layout, self.tokens[-1])
        if "base" in self.wanted:
            self.tokens.append(("base", value.base is None))
            if isinstance(value.base, np.ndarray):
                self._visit(value.base, f"{label}.base", None)

    # ---- functions --------------------------------------------------------------------------

    def _function(self, function, label):
        code = function.__code__
        known = _known_file(code.co_filename)
        if known and _known.function(function):
            self.tokens.append(("object", id(function)))
            return
        self.tokens.append(("function", code))
        if known and code not in _AROUND and package_of(function) != "fastgrad":
            self._unknown(function, label)
            return
        self.functions.append(function)
        self._compare(FUNCTION, function, code, function.__defaults__)
        if code.co_kwonlyargcount:
            self._compare(KEYWORDS, function, None, function.__kwdefaults__)
        for value in (function.__defaults__, function.__kwdefaults__):
            if value is not None:
                self._visit(value, f"the defaults of {function.__name__}", None)
        for name, cell in zip(code.co_freevars, function.__closure__ or ()):
            if code is _DISPATCH:       # (what it keeps so that it finds a function sooner)
                continue
            try:
                value = cell.cell_contents
            except ValueError:
                self.tokens.append(("empty cell",))
                self._compare(CELL, cell, name, ABSENT)
                continue
            self._compare(CELL, cell, name, value)
            if isinstance(value, types.ModuleType) and not known and self._only_attributes(
                    names_in(code).code, "cell", name):
                self.tokens.append(("object", id(value)))
            else:
                self._visit(value, name, (function, "cell", name), self._is_handed_on(name))
        if code is _DISPATCH:
            self._visit(function.registry, f"{label}.registry", None)
        if not known:
            self._code(function)

    def _code(self, function):
        """What the code of a function reads besides its cells."""
        scope = Scope(function)
        names = scope.names
        self.scopes.append(scope)
        if names.code.unknown:
            what, line = names.code.unknown[0]
            self._refuse(f"the instruction {what} of Python "
                         f"{'.'.join(map(str, sys.version_info[:2]))} is not known",
                         self._at(function, line))
            return
        self.names |= names.attributes
        self.names |= names.marks
        self.everything = self.everything or ANY in names.marks
        self.asked |= names.asked
        if names.texts:
            self.names.add("__str__")
        space = function.__globals__
        for name in names.globals:
            if not name.isidentifier():
                continue                # pytest's, for the message of an assertion that fails
            if name == "hash" and function.__name__ == "__hash__":
                continue                # (it tells only where a dictionary looks first)
            self.readers.setdefault((id(space), name), []).append(function)
            value = space.get(name, ABSENT)
            self._compare(DICT, space, name, value)
            if value is ABSENT:
                self.tokens.append(("builtin", name))
                value = getattr(builtins, name, ABSENT)
                if not _known.function(value):      # ... as long as it is none of Python's own
                    self._compare(DICT, vars(builtins), name, value)
                if value is ABSENT:
                    continue            # it will be an error, or is never read
            if (isinstance(value, types.ModuleType)
                    and self._only_attributes(names.code, "global", name)
                    or isinstance(value, type)
                    and self._only_asked(names.code, names.globals[name], value)
                    or id(value) in _READERS
                    and self._only_called(names.code, names.globals[name])):
                self.tokens.append(("object", id(value)))
                self._registered(value)
            else:
                self._visit(value, name, (function, "global", name), self._is_handed_on(name))
        for value in names.imports:
            self._import(function, scope, value)
        for value in names.reads:
            for base in scope.objects(value.parts[0])[0]:
                self._attribute(scope, base, value)
        for value, k in names.dynamic:
            self._dynamic(scope, value, k)
        for value in names.calls:
            for called in scope.objects(value.parts[0])[0]:
                self._call(scope, called, value)

    @staticmethod
    def _at(function, line):
        return f", at {os.path.basename(function.__code__.co_filename)}:{line}"

    @staticmethod
    def _only_attributes(code, kind, name):
        """Whether a name is never used but for its attributes."""
        stands_for = names_in(code.code).stands_for
        return all(use.kind == "attribute" or (use in stands_for and k == 1)
                   for use, k in code.uses(kind, name))

    @staticmethod
    def _only_asked(code, values, kind):
        """Whether a class of a library is never called nor handed on, only asked about objects."""
        if not _library_class(kind) or _known.function(kind):
            return False
        for value in values:
            for use, k in code._uses.get(value, ()):
                asked = use.kind == "call" and k > 1 and any(
                    [x.kind == "global" and x.name in ("isinstance", "issubclass")
                     for x in origins(use.parts[0])])
                if not (asked or use.kind in ("match", "compare", "attribute", "built")
                        and (use.kind != "built" or use.name == "tuple")):
                    return False
        return True

    @staticmethod
    def _only_called(code, values):
        return all([use.kind == "call" and k == 0 for value in values
                    for use, k in code._uses.get(value, ())])

    def _import(self, function, scope, value):
        found, _ = scope.objects(value)
        if not found and _known_module(value.name):
            try:
                __import__(value.name)  # which the function would do
            except ImportError:
                return
            scope._known.clear()
            found, _ = scope.objects(value)
        for module in found:
            self._compare(DICT, sys.modules, module.__name__, module)
            uses = scope.names.code._uses.get(value, ())
            if not all([use.kind == "attribute" for use, _ in uses]):
                self._visit(module, value.name, None)
        if not found:
            self._refuse(f"it imports `{value.name}`, which has not been loaded",
                         self._at(function, value.line))

    def _attribute(self, scope, base, value):
        """An attribute that code reads of a module, a class or a function."""
        if isinstance(base, types.FunctionType):
            if not _known_file(base.__code__.co_filename):
                if value.name in _INSIDES:
                    self._refuse(f"it reads `{written(value)}`",
                                 self._at(scope.function, value.line))
                    return
                found = getattr(base, value.name, ABSENT)
                self._compare(ATTR, base, value.name, found)
                if found is not ABSENT:
                    self._visit(found, f"{base.__name__}.{value.name}", None)
            return
        text = written(value)
        if isinstance(base, types.ModuleType):
            self._of_module(scope, base, value, text)
        elif isinstance(base, type) and _library_class(base):
            found = getattr(base, value.name, ABSENT)
            if found is not ABSENT:
                self._library(scope, found, value, text)

    def _of_module(self, scope, module, value, text):
        found = scope.attribute(module, value.name)
        known = _known_module(module.__name__)
        if known and found is not ABSENT:
            self._library(scope, found, value, text, module)
        else:
            self._in_module(scope, module, value, text)

    def _in_module(self, scope, module, value, text):
        space = vars(module)
        found = space.get(value.name, ABSENT)
        if found is ABSENT:
            if "__getattr__" in space:
                self._refuse(f"`{text}` is made by __getattr__ of the module",
                             self._at(scope.function, value.line))
            self._compare(DICT, space, value.name, ABSENT)
            return
        self._compare(DICT, space, value.name, found)
        if isinstance(found, types.ModuleType) and self._base_only(scope, value):
            self.tokens.append(("object", id(found)))
            return
        self._visit(found, text, None, self._is_handed_on(value.name))

    @staticmethod
    def _base_only(scope, value):
        return all([use.kind == "attribute" for use, _ in scope.names.code._uses.get(value, ())])

    def _library(self, scope, found, value, text, module=None):
        """Something of a library that code names."""
        if _known.function(found):
            if id(found) in _READERS and not self._only_called(scope.names.code, [value]):
                self._reads_all(found)
            return
        if isinstance(found, types.ModuleType):
            if not self._base_only(scope, value):
                self._visit(found, text, None)
            return
        if _known.seeded(found):
            for use, k in scope.names.code._uses.get(value, ()):
                if not (use.kind == "call" and k == 0 and self._has_seed(scope, use)):
                    self._refuse(f"it calls {text} without a seed that is known, and so takes one "
                                 "from the system", self._at(scope.function, value.line))
            return
        if isinstance(found, type):
            if not self._only_asked(scope.names.code, [value], found):
                self._refuse(f"it uses {text}, of which is not known that it depends on its "
                             "operands alone", self._at(scope.function, value.line))
            return
        if found is sys.modules:        # (all there is)
            self._refuse(f"it reads `{text}`", self._at(scope.function, value.line))
            return
        told = _known.kind(found)
        if type(found) is float or told is not None and told.how == "value":
            return
        before = self.reason
        if module is not None and value.name in vars(module):
            self._compare(DICT, vars(module), value.name, found)
        self._visit(found, text, None)
        if before is None and self.reason is not None and ", at " not in self.reason:
            self.reason += self._at(scope.function, value.line)

    @staticmethod
    def _has_seed(scope, call):
        if call.name is None or len(call.parts) < 2:
            return False
        found, whole = scope.objects(call.parts[1])
        return whole and None not in found

    def _dynamic(self, scope, value, k):
        """Attributes are read whose names are not told."""
        bases = []
        if k < len(value.parts):
            bases, _ = scope.objects(value.parts[k])
        part = origins(value.parts[k]) if k < len(value.parts) else ()
        if any([x.kind == "attribute" and x.name == "__class__"
                or x.kind == "call" and x.parts[0].name == "type" for x in part]):
            self._refuse("it reads names of a class that are told at run time only",
                         self._at(scope.function, value.line))
        if k >= len(value.parts) or any([
                isinstance(x, type) or isinstance(x, types.ModuleType)
                and not (_known_module(x.__name__) and _known.of_functions(x)) for x in bases]):
            self._refuse("it reads names that are told at run time only",
                         self._at(scope.function, value.line))
        self.everything = True
        if value.kind in ("call", "match") and not any(
                [x.name == "vars" for x in origins(value.parts[0]) if value.kind == "call"]):
            self.names.add(ANY)

    def _call(self, scope, called, value):
        if id(called) in _known.READS_ALL:
            self._reads_all(called)
        elif id(called) in _known.READS_NAMED and value not in scope.names.stands_for and not (
                {x.name for x in origins(value.parts[0])} & {"getattr", "hasattr", "attrgetter",
                                                             "methodcaller"}):
            self._reads_all(called)     # by another name

    def _builtin(self, value, label):
        """A function of C's, or a bound method of one."""
        owner = value.__self__
        if _known.function(value):
            self.tokens.append(("object", id(value)))
        elif owner is None or isinstance(owner, types.ModuleType):
            self._unknown(value, label)
        elif isinstance(owner, type):
            self.tokens.append(("of", owner, value.__name__))
            if not _known.class_method(owner, value.__name__):
                self._unknown(value, label)
        else:
            self.tokens.append(("bound", value.__name__))
            if type(owner) in GENERATORS:
                self.names.add(value.__name__)      # as if code named it
            if value.__name__ in ("__getattribute__", "__getattr__"):
                self.everything = True
                self.names.add(ANY)
            self._visit(owner, label, None)

    def _descriptor(self, value, label):
        """A method or an attribute of a class written in C, not bound to an object."""
        self.tokens.append(("object", id(value)))
        owner = getattr(value, "__objclass__", None)
        if owner is not None and _library_class(owner) and not (
                issubclass(owner, (*NUMBERS, *CONTAINERS, np.ndarray, np.generic,
                                   Tensor)) or owner in (object, type, types.FunctionType)):
            self._unknown(value, label)

    def _compiled(self, value, label):
        """A function of Cython's: one of fastgrad's, perhaps around one of the user's."""
        self.tokens.append(("object", id(value)))
        if str(value.__globals__.get("__name__")).startswith("fastgrad.") and hasattr(
                value, "__wrapped__"):
            self._visit(value.__wrapped__, label, None)
        elif not _known.function(value):
            self._unknown(value, label)

    def _getter(self, value, kind):
        """What operator.attrgetter and its like have made: its code is its operands."""
        made, operands = value.__reduce__()
        self.tokens.append(("getter", kind))
        if kind is operator.itemgetter:
            self._visit(operands, "", None)
            return
        names = operands
        if kind is operator.methodcaller:
            first = made.args if isinstance(made, functools.partial) else operands[:1]
            names, rest = first, (operands if made is not kind else operands[1:])
            self._visit((rest, getattr(made, "keywords", {})), "", None)
        self.tokens.append(tuple(map(str, names)))
        for name in names:
            self.names.update(str(name).split("."))
            self.names.update(map(handed_on, str(name).split(".")))
        if "__getattribute__" in self.names or "__getattr__" in self.names:
            self.everything = True
            self.names.add(ANY)

    def _cached(self, value, label):
        """A function that keeps its results (functools.lru_cache): those may be of before, unless
        it reads nothing that can change."""
        self.tokens.append(("object", id(value)))
        function = value.__wrapped__
        if not _stateless(function, set()):
            self._refuse(f"`{label}` keeps results, which may be of before what it reads was "
                         "changed", self.line_of(label))
        self._visit(function, label, None)

    def _wrapper(self, value, label):
        """Derivatives of functions, programs, functions with rules."""
        self.tokens.append(("wrapper", type(value)))
        make = parts_of(value)
        if make is not None:
            self.tokens.append(("made", repr(make[1])))
        self._visit(getattr(value, "__wrapped__", None), label, None)
        for x in getattr(value, "_reached", ()):
            self._visit(x, OPERAND, None)
        rule = getattr(value, "_rule", None)
        if rule is not None:
            self._compare(ATTR, value, "_rule", rule)
            self._visit(rule, label, None)
