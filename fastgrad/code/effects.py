"""What a function changes that outlives its calls, as far as its code tells.

A program repeats what a function computes, not what else it does. `effect` reads the code of a
function and of those it calls (code/values.py), with the objects that its names are bound to, and
finds the first thing that a call would change: a global, a cell, an attribute, an item or the
contents of an object that was there before the call. What is made inside the function is its own
and may be changed freely; arrays among its arguments are written at each replay. So a value is
looked at for what it may be (kinds.py).

While a call is recorded, Tensors stand in the place of what is ARGUMENT or COMPUTED. Code that asks
for their types would get another answer than in the plain function, which is found here, too.
"""

import functools
import operator
import types
from typing import NamedTuple

import numpy as np

from fastgrad._core import core, trees

from . import known as _known
from . import watch
from .kinds import (
    _ABOUT,
    _ARRAYS,
    _CHANGING,
    _CHANGING_FIRST,
    _CHANGING_NAMES,
    _GIVEN,
    _IN_PLACE,
    _NUMBERS,
    _OF_ARRAYS,
    _OF_SHAPE,
    _OUT,
    _RAISING,
    _REORDERING,
    _RESHAPING,
    _SAME,
    _SAME_METHODS,
    _SAME_PARTS,
    _SAME_PARTS_METHODS,
    _TRANSFORMING,
    ARGUMENT,
    COMPUTED,
    ENTRY,
    FUNCTIONS,
    RESHAPED,
    SHOWN,
    TENSOR,
    Bound,
    Derived,
    Known,
    Made,
    Own,
    _class_attribute,
    _computed,
    _containers,
    _differentiated,
    _has_own,
    _hashable_in,
    _holding,
    _key,
    _line,
    _Mapped,
    _mapped,
    _of_library,
    _subclass,
    _takes_argnums,
    _told,
    _transforms,
)
from .looking import Looking
from .names import own_attribute
from .values import read

__all__ = ["Effects", "effects"]

Tensor = core.Tensor


class Effects(NamedTuple):
    """What `effects` finds.

    Attributes
    ----------
    reason : str or None
        What a call changes, or asks that a Tensor would answer otherwise, with the line; None where
        nothing is found.
    writes : bool
        Whether it may write to its arguments.
    ordered : bool
        Whether it must be given arrays in C's order: what it writes to may be a view by that.
    typed : frozenset of code objects
        Code whose errors are its own: it has been looked at, and nothing in it asks for the type of
        what may be a Tensor.
    """
    reason: str | None
    writes: bool
    ordered: bool
    typed: frozenset


def effects(function, args=(), kwargs=None):
    """What a call of a function would change.

    Parameters
    ----------
    function : callable
    args, kwargs
        What it would be called with.
    """
    leaves, structure = trees.flatten((args, kwargs or {}))
    given = [x for x in leaves if isinstance(x, (float, np.generic, np.ndarray))]
    search = _Search({type(x) for x in given},
                     {x.dtype.type for x in given if isinstance(x, np.ndarray)},
                     _containers(structure.children))
    search.call([Known(function, "")], [[search.given(x)] for x in args],
                {name: [search.given(x)] for name, x in (kwargs or {}).items()})
    return Effects(search.told(), search.writes, search.through is not None,
                   frozenset(() if search.asks else search.codes))


class _Frame:
    """Code that is looked at for one call: its function, and what its parameters may be."""

    def __init__(self, code, function=None, outer=None):
        self.code, self.function, self.outer = code, function, outer
        self.bound, self.known, self.reached = {}, {}, {}
        self.before = {}                # what was known in the last round

    def cell(self, name):
        """The value of a cell from outside, in a list."""
        frame = self
        while frame is not None and frame.function is None:
            frame = frame.outer
        if frame is not None:
            free = frame.function.__code__.co_freevars
            if name in free:
                try:
                    content = frame.function.__closure__[free.index(name)].cell_contents
                except ValueError:
                    return []
                return [Known(content, name)]
        return []

    @property
    def globals(self):
        return self.function.__globals__


class _Search(Looking):
    """A walk over the code that a call runs through."""

    whole = False               # whether to look at branches that constants shut as well

    def __init__(self, kinds, entries=frozenset(), containers=frozenset()):
        self.reason, self.writes = None, False
        self.kinds = kinds              # of the arguments that are numbers and arrays
        self.entries = entries          # of what is in these arrays
        self.given_types = frozenset(kinds) | containers    # of arguments that stand-ins replace
        self.tensors = False            # whether they are Tensors in the plain function, too
        self._done, self._active, self._count = {}, set(), 0
        self._loops = False             # whether a value has been found to be made of itself
        self.codes, self.asks = set(), False    # looked at; whether code asks of what is not known
        self.catches, self.raises = False, None     # errors of floats; what may raise one
        self.unordered, self.through = False, None  # whether arrays may lie in another order than
                                                    # C's; what writes to one in another shape

    def told(self):
        """The first reason that has been found."""
        if self.reason is None and self.catches and self.raises is not None:
            return ("it may catch an error that Python's floats raise and those of a program do not"
                    f"{_line(self.raises)}")
        if self.reason is None and self.unordered and self.through is not None:
            return ("it writes to an array in another shape, which shows the first one or does not "
                    f"by the order of that in memory{_line(self.through)}")
        return self.reason

    def found(self, what, value):
        if self.reason is None:
            self.reason = f"it changes {what}, which outlives the call{_line(value)}"

    def asked(self, values, same, value):
        """Code asks something of one of these that depends on its type: `same` tells whether a type
        answers as a Tensor does."""
        kinds = set(self.kinds)
        self.asks = self.asks or not values
        if self.tensors:
            return
        if COMPUTED in values:
            kinds |= {float, np.float64, np.ndarray, np.int64, np.bool_}
        elif ENTRY in values:
            kinds |= self.entries
        elif ARGUMENT not in values:
            return
        if self.reason is None and not all(map(same, kinds)):
            self.reason = ("it asks for the type of what is a Tensor while it is recorded"
                           f"{_line(value)}")

    @staticmethod
    def given(x):
        """What an argument of the call is."""
        if (type(x) is float or isinstance(x, (np.generic, np.ndarray, Tensor, tuple, list, dict))
                or not isinstance(x, type) and hasattr(x, "__dataclass_fields__")):
            return ARGUMENT
        return Known(x, type(x).__name__)

    # ---- calls ----------------------------------------------------------------------------

    def call(self, callees, args, names, value=None):
        """What calling one of these gives. Arguments are lists of what each may be."""
        results = []
        for callee in callees:
            if self.reason is None:
                results += self._one_call(callee, args, names, value)
        return results

    def _one_call(self, callee, args, names, value):
        if isinstance(callee, Bound):
            if isinstance(callee.function, str):
                return self._method_of_c(callee, args, names, value)
            return self._one_call(Known(callee.function, ""), [[callee.owner], *args], names, value)
        if isinstance(callee, Made):
            return self._made_call(callee, args, names)
        if isinstance(callee, Derived):
            self._derived_call(callee.function, callee.argnums, args, names, value)
            return _computed(args)
        if not isinstance(callee, Known):
            self._passed(args, names, value)
            return []
        target = callee.object
        if isinstance(target, types.FunctionType) and hasattr(target, "dispatch") and args:
            self.asked(args[0], lambda kind: target.dispatch(kind) is target.dispatch(Tensor),
                       value)
        if isinstance(target, types.FunctionType) and not _of_library(target):
            return self._function(target, args, names)
        if isinstance(target, types.MethodType):
            return self._one_call(Known(target.__func__, callee.label),
                                  [[Known(target.__self__, callee.label)], *args], names, value)
        if isinstance(target, functools.partial):
            bound = {k: [Known(x, k)] for k, x in target.keywords.items()}
            return self._one_call(
                Known(target.func, callee.label),
                [*[[Known(x, type(x).__name__)] for x in target.args], *args], {**bound, **names},
                value)
        if isinstance(target, type):
            return self._class(target, args, names, value)
        if (isinstance(target, (types.BuiltinMethodType, types.MethodWrapperType))
                and not isinstance(target.__self__, (types.ModuleType, type(None)))):
            return self._method_of_c(Bound(target.__name__, Known(
                target.__self__, f"{callee.label or target.__name__}")), args, names, value)
        wrapped = own_attribute(target, "__wrapped__")
        if wrapped is not None and (_known.package_of(target) == "numpy"
                                    or _known.function(target)):
            wrapped = None              # what is in the tables
        if wrapped is not None and _transforms(target):     # programs, derivatives
            self._derived_call(Known(wrapped, callee.label), _differentiated(target, len(args)),
                               args, names, value)
            return _computed(args)
        if wrapped is not None:         # functools.lru_cache
            return self._one_call(Known(wrapped, callee.label), args, names, value)
        method = _class_attribute(type(target), "__call__")
        if isinstance(method, types.FunctionType):
            return self._one_call(Known(method, callee.label), [[callee], *args], names, value)
        return self._library(target, args, names, value)

    def _derived_call(self, function, argnums, args, names, value):
        """A transformation calls its function. A derivative gives it Tensors, compiled or not."""
        before = self.tensors
        if argnums is None:
            self.tensors = True
        else:
            args = [[TENSOR if x in _NUMBERS else x for x in values]
                    if k in argnums or k - len(args) in argnums else values
                    for k, values in enumerate(args)]
            if isinstance(argnums, _Mapped):
                names = {name: [TENSOR if x in _NUMBERS else x for x in values]
                         for name, values in names.items()}
        self._one_call(function, args, names, value)
        self.tensors = before

    def _function(self, function, args, names):
        code = read(function.__code__)
        frame = _Frame(code, function)
        self._bind(frame, code, args, names)
        defaults, place = function.__defaults__ or (), code.code.co_argcount
        for k, default in enumerate(defaults):
            parameter = code.parameters[place - len(defaults) + k]
            if parameter not in frame.bound:
                frame.bound[parameter] = [Known(default, parameter.name)]
        for name, default in (function.__kwdefaults__ or {}).items():
            if code.variables[name] not in frame.bound:
                frame.bound[code.variables[name]] = [Known(default, name)]
        key = (id(function), self.tensors, tuple([(parameter.name, tuple(map(_key, values)))
                                    for parameter, values in frame.bound.items()]))
        return self._body(key, frame)

    def _made_call(self, made, args, names):
        code = made.value.name
        if not hasattr(code, "parameters"):
            return []
        frame = _Frame(code, None, made.frame)
        frame.known, frame.before = made.frame.known, made.frame.before
        frame.bound = made.frame.bound
        before = {x: frame.bound[x] for x in code.parameters if x in frame.bound}
        self._bind(frame, code, args, names)
        for parameter, values in before.items():        # of other calls
            if frame.bound[parameter] is not values:
                frame.bound[parameter] = list({
                    _key(x): x for x in [*values, *frame.bound[parameter]]}.values())
        return [x for part in code.returned for x in self.look(part, frame)]

    def _body(self, key, frame):
        if key in self._done:
            return self._done[key]
        self._count += 1
        if key in self._active or self._count > FUNCTIONS:
            self.asks = self.asks or self._count > FUNCTIONS
            return []
        self._active.add(key)
        self.codes.add(frame.code.code)
        before, self._loops = self._loops, False
        try:
            self._search(frame)
            if self._loops:             # ``x = np.asarray(x * 2)``: what is it that is multiplied?
                frame.before, frame.known = frame.known, {}
                self._search(frame)
            self._done[key] = ([] if self.reason is not None else
                               [x for part in frame.code.returned for x in self.look(part, frame)])
        except RecursionError:          # code as deep as that tells nothing
            self._done[key] = []
            self.asks = True
        finally:
            self._active.discard(key)
            self._loops = before
        return self._done[key]

    def _bind(self, frame, code, args, names):
        raw = code.code
        count = raw.co_argcount
        for parameter, values in zip(code.parameters[:count], args):
            frame.bound[parameter] = values
        if len(args) > count and raw.co_flags & 0x04:
            rest = code.parameters[count + raw.co_kwonlyargcount]
            frame.bound[rest] = [_holding(tuple, [x for part in args[count:] for x in part])]
        others = []
        for name, values in names.items():
            parameter = code.variables.get(name)
            if parameter is not None and parameter.parameter:
                frame.bound[parameter] = values
            else:
                others += values
        if raw.co_flags & 0x08:
            frame.bound[code.parameters[-1]] = [_holding(dict, others)]

    def _class(self, kind, args, names, value):
        """An instance that the call makes."""
        self._handed_over(kind, args, names, value)
        if kind is type and len(args) == 1:
            self.asked(args[0], lambda _: False, value)
        if kind in _SAME_PARTS:
            self._passed(args, names, value)
            return [_holding(kind, [x for part in args for whole in part
                                    for x in (self.parts(whole) if kind is not map else ())])]
        if self.reason is None and isinstance(_class_attribute(kind, "__del__"),
                                              types.FunctionType):
            self.reason = (f"it makes a {kind.__name__}, which does something when it is dropped"
                           f"{_line(value)}")
        own = Own(kind, ())
        for name in ("__init__", "__post_init__", "__new__"):
            method = _class_attribute(kind, name)
            if isinstance(method, types.FunctionType):
                first = Known(kind, kind.__name__) if name == "__new__" else own
                self._one_call(Known(method, kind.__name__),
                               [[first], *(() if name == "__post_init__" else args)],
                               {} if name == "__post_init__" else names, None)
        self._passed(args, names, value)
        return [own]

    def _library(self, target, args, names, value):
        """A function that is not written in Python, or of a known library."""
        self._handed_over(target, args, names, value)
        module, name = _known.module_of(target), getattr(target, "__name__", "")
        changing = _hashable_in(target, _CHANGING_FIRST) or name in _CHANGING_NAMES.get(
            module.lstrip("_"), ())
        if changing and args:
            for first in args[0]:
                self._changes(first, value)
                # (Inside a derivative the plain function has an array there.)
                if first in _NUMBERS and first != TENSOR and any(
                        [TENSOR in others for others in args[1:]]):
                    self._refuses(name, args, names, value)
        if changing and target in (setattr, object.__setattr__) and len(args) > 1:
            for x in args[0]:
                for key in args[1]:
                    self._sets(x, key.object if isinstance(key, Known) else None, value)
        for out in names.get("out", ()):
            self._changes(out, value)
        # (The solver looks at values, and a sweep through its solution cannot be recorded.)
        if module == "fastgrad.transforms.implicit" and self.reason is None:
            self.reason = f"it solves an equation anew at each call{_line(value)}"
        if getattr(target, "__objclass__", None) in _CHANGING and args:     # list.append(a, x)
            for first in args[0]:
                self._method_of_c(Bound(name, first), args[1:], {}, value)
        if module in _TRANSFORMING and _known.function(target):
            made = self._transformation(target, args, names, value)
            if made:
                return made
        tensors = _known.package_of(target) == "fastgrad" and module not in (
            "fastgrad.programs.loops", "fastgrad.trees")        # jvp, say
        self._passed(args, names, value, module == "fastgrad.programs.loops", tensors)
        if (target is operator.is_ or target is operator.is_not) and len(args) == 2:
            self._asks_whether_one(args[0], args[1], value)
        if target is isinstance and len(args) == 2:
            self._asks_for(args[0], args[1], value)
        elif target is hasattr and len(args) == 2 or target is getattr and len(args) == 3:
            asked = [x.object for x in args[1] if isinstance(x, Known)]
            self.asked(args[0], lambda kind: bool(asked) and all(
                [hasattr(kind, x) == (hasattr(Tensor, x) or x in core.METHODS) for x in asked]),
                value)
        elif target is callable and args:
            self.asked(args[0], lambda kind: True, value)
        elif target is np.isscalar and args:
            self.asked(args[0], lambda kind: issubclass(kind, np.ndarray), value)
        if target is np.require and not self.tensors:   # (Of a Tensor it is a copy, unasked.)
            self._refuses("require", [[COMPUTED]], {}, value)
        if _known.package_of(target) in ("numpy", "fastgrad"):
            self.unordered = self.unordered or name in _REORDERING or "order" in names
            if name in _RESHAPING and args:
                return self._reshaped(args[0])
        if _hashable_in(target, _ARRAYS) and args and not self.tensors:
            return [SHOWN if x in _NUMBERS and x != TENSOR else x for x in args[0]]
        if _hashable_in(target, _SAME) and args:
            return args[0]
        if id(target) in _ABOUT:
            return [Own(None, ())]
        if target is next and args:
            return [y for x in args[0] for y in self.parts(x)] or _computed(args)
        if target is vars and args:
            return [Known(vars(x.object), x.label) for x in args[0]
                    if isinstance(x, Known) and hasattr(x.object, "__dict__")]
        if target is getattr and len(args) > 1:
            return [y for name in args[1]
                    if isinstance(name, Known) and isinstance(name.object, str)
                    for x in args[0] for y in self.attribute(x, name.object)]
        return _computed(args)

    def _transformation(self, target, args, names, value):
        """What a transformation makes of a function."""
        functions = [x for x in (args or [[]])[0] if isinstance(x, (Made, Bound, Derived)) or (
            isinstance(x, Known) and callable(x.object))]
        name = target.__name__
        if name == "compile":
            return functions
        if name != "vmap" and not _takes_argnums(target):
            return []
        option, default = ("in_axes", 0) if name == "vmap" else ("argnums", 0)
        values = names[option] if option in names else args[1] if len(args) > 1 else [
            Known(default, "")]
        told = _told(values[0]) if len(values) == 1 else watch.ABSENT
        if told is watch.ABSENT or name == "hvp" or "argnames" in names:
            return [Derived(x, None) for x in functions]
        argnums = _mapped(told) if name == "vmap" else told if type(told) is tuple else (told,)
        if argnums is not None and not all([type(k) is int for k in argnums]):
            argnums = None
        return [Derived(x, argnums) for x in functions]

    def _handed_over(self, target, args, names, value):
        """What refuses a Tensor would end the recording halfway, and the function would have run
        twice, wherever it stands: nobody knows which branches will be taken. A function that
        is in no table may refuse one, and is not replayed in any case."""
        name = getattr(target, "__name__", "a function")
        if target is np.errstate and self.reason is None and not self.tensors and any(
                [not isinstance(x, Known)
                 or x.object not in ("ignore", "warn", "print", "log", None)
                 for values in (*args, *names.values()) for x in values]):
            self.reason = f"it asks for errors of floating-point numbers{_line(value)}"
        if target is np.nditer and ("op_flags" in names or len(args) > 2):
            self._refuses(name, args, names, value)
        elif _known.module_of(target).startswith("fastgrad.optim."):
            # (No derivative goes through them.)
            self._refuses(name, [[x, *self.parts(x)] for values in (*args, *names.values())
                                 for x in values], {}, value)
        elif _known.strict(target):
            self._refuses(name, args, names, value)
        elif _known.strange(target):
            self._refuses(name, args, names, value, "is none of the functions that are known")

    def _refuses(self, what, args, names, value, why="takes no Tensor"):
        """A function that takes no Tensor is called."""
        if self.reason is None and any(
                [x in _NUMBERS for values in (*args, *names.values()) for x in values]):
            self.reason = f"{what} {why}{_line(value)}"

    def _passed(self, args, names, value, loop=False, tensors=False):
        """Functions among the arguments are called, with the numbers among the others and what is
        in these, or what nothing is known of. In a loop they are given what they return, too.
        `tensors`: in the plain function they are given Tensors as well."""
        everything = [x for values in (*args, *names.values()) for x in values]
        numbers = [y for y in dict.fromkeys([
            z for x in everything for z in (x, *self.parts(x)) if z in _NUMBERS])]
        if loop or numbers and TENSOR not in numbers:
            numbers = list(dict.fromkeys([*numbers, COMPUTED]))
        if tensors and numbers:
            numbers = [TENSOR]
        for x in everything:
            if isinstance(x, Known) and callable(x.object) and _known.strict(x.object):
                self._refuses(x.label, [[y, *self.parts(y)] for y in everything], {}, value)
        for values in (*args, *names.values()):
            for x in values:
                if isinstance(x, (Bound, Made, Derived)) or isinstance(x, Known) and isinstance(
                        x.object, (types.FunctionType, types.MethodType, types.BuiltinMethodType)):
                    self._one_call(x, [numbers] * 8 if numbers else [[]], {}, value)

    def _method_of_c(self, bound, args, names, value):
        """A method of an object that is no instance of a class written in Python."""
        name, owner = bound
        kind = type(owner.object) if isinstance(owner, Known) else (
            owner.kind if isinstance(owner, Own) else None)
        if kind is None and name in _known.strict_methods() or kind is not None and (
                _known.strict(kind) or issubclass(kind, (int, float, complex))):
            self._refuses(name, args, names, value)
        if kind is np.ufunc and name == "at" and args:
            for first in args[0]:
                self._changes(first, value)
        if owner in _NUMBERS and name in _OF_ARRAYS or name == "shuffle":
            self._refuses(name, [[owner], *args], names, value)
        starred = value is not None and value.name is None     # then all parts stand at each place
        if owner in _NUMBERS and args and (
                len(args[0]) if starred else len(args)) > _OUT.get(name, 99):
            for out in args[_OUT[name]]:        # (a list among positional arguments is none)
                if not isinstance(out, Known) or isinstance(out.object, np.ndarray):
                    self._changes(out, value)
        for out in names.get("out", ()) if owner not in _NUMBERS else ():
            self._refuses(f"out= of {name}", [[out]], {}, value)
        if owner in (SHOWN, RESHAPED) and any([name in names for names in _CHANGING.values()]):
            self._changes(owner, value)
        elif owner in _GIVEN and any([name in names for names in _CHANGING.values()]):
            self.writes = True
        elif isinstance(owner, Known) and any(
                [isinstance(owner.object, base) and name in names
                 for base, names in _CHANGING.items()]):
            self._changes(owner, value)
        elif isinstance(owner, Known) and name in (
                "__setattr__", "__delattr__", "__next__", "send"):
            self._changes(owner, value)
        self._passed(args, names, value)
        self.unordered = self.unordered or name in _REORDERING or "order" in names
        if name in _RESHAPING:
            return self._reshaped([owner])
        if name in _SAME_METHODS:
            return [owner]
        if name in _SAME_PARTS_METHODS and kind is not None:
            return [_holding(None, self.parts(owner)), *(
                self.parts(owner) if name in ("get", "setdefault") else ())]
        if name == "pop":
            return self.parts(owner)
        return _computed([[owner], *args])

    def _reshaped(self, values):
        """What `reshape` and `ravel` give of one of these. (Of arguments in another order than C's
        only the function knows: `Effects.ordered`.)"""
        return [*values, RESHAPED] if any([x in _NUMBERS for x in values]) else values

    def _changes(self, x, value, frame=None):
        """x is changed by what `value` does; `frame` is that of an assignment."""
        if x == RESHAPED:
            self.through = self.through or not self.tensors and value or None
        elif x == SHOWN:
            self._refuses("writing to what `np.asarray` gives", [[x]], {}, value)
        elif x in _GIVEN:
            self.writes = True
        elif isinstance(x, Known) and not isinstance(
                x.object, (int, float, complex, str, bytes, tuple, frozenset, type(None), range,
                           np.generic)):
            self.found(f"`{x.label}`", value)

    def _sets(self, x, name, value):
        """An attribute of x, which is no object from outside, is set: of an array, perhaps."""
        if (x in _NUMBERS or isinstance(x, Own) and x == (None, ())) and (
                name in _OF_SHAPE or name in ("real", "imag", "data")):
            self._refuses(f"setting `.{name}`", [[COMPUTED]], {}, value)

    # ---- what code does -------------------------------------------------------------------

    def _search(self, frame):
        """Look at everything that the code of a frame does, and that nested in it."""
        for value in frame.code.everything:
            if self.reason is not None:
                return
            if not self._reached(value, frame):
                continue
            kind = value.kind
            if kind in ("store", "delete"):
                self._binds(value, frame)
            elif kind in ("set attribute", "delete attribute"):
                for x in self.look(value.parts[0], frame):
                    if isinstance(x, Known):
                        self.found(f"`{x.label}.{value.name}`" if x.label else f"`{value.name}`",
                                   value)
                    else:
                        self._sets(x, value.name, value)
            elif kind in ("set item", "delete item"):
                for x in self.look(value.parts[0], frame):
                    self._changes(x, value, frame)
            elif kind == "inplace":
                for x in self.look(value.parts[0], frame):
                    if x in (*_GIVEN, SHOWN, RESHAPED) or isinstance(x, Known) and (
                            isinstance(x.object, _IN_PLACE) or _has_own(x.object, "__i")):
                        self._changes(x, value, frame)
            elif kind in ("call", "attribute", "enter", "operator", "unary", "compare", "item",
                          "match"):
                self.look(value, frame)
            if kind == "match" and len(value.parts) == 1:
                self._catches(self.look(value.parts[0], frame))
            elif kind in ("operator", "inplace") and value.name in _RAISING:
                self._may_raise(value, frame)

    def _catches(self, classes):
        """An ``except`` of these classes."""
        self.catches = self.catches or any([
            isinstance(part, Known) and (_subclass(ZeroDivisionError, part.object)
                                         or _subclass(OverflowError, part.object))
            for x in classes for part in (x.parts if isinstance(x, Own) else (x,))])

    def _may_raise(self, value, frame):
        """1.0 / 0.0 raises an error in Python, and a program goes on with infinity."""
        if self.raises is None and not self.tensors and float in self.kinds and any(
                [x in (ARGUMENT, COMPUTED) for part in value.parts
                 for x in self.look(part, frame)]):
            self.raises = value

    def _binds(self, value, frame):
        """A store to a name, or its deletion."""
        if value.kind == "store" and len(value.parts) < 2 or not value.parts:
            self.found(f"`{value.name}`", value)
        elif value.parts[-1].outer:
            self.found(f"`{value.parts[-1].name}`", value)
