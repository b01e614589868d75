"""Which arrays a function uses by value: whose contents a replay must find as they were.

An array that a function reaches by a name is an input of its recording where it is an operand of a
recorded operation, and then it is read again at each replay. But the same array may go another way
as well, through plain NumPy or Python, where nobody sees it: ``np.sum(x * d) * float(np.sum(d))``.
What such a use gave is a constant of the path, so the path holds only while the array is the same.

`Flow` tells which arrays go no other way. For each value in the code of all functions that are
reached it asks two things, to a fixed point: is it certainly a Tensor (what is computed with an
argument is), and which arrays may it be, or may be in it. An array is *live* if each use of each
value that it may be is an operand of an operation with a Tensor, or tells nothing of what is in it.
Where that cannot be told, its contents are compared: that costs time, never a wrong number.
"""

import functools
import re
import types

import numpy as np

from . import known
from .names import names_in
from .values import Code, origins
from .vouched import constant
from .watch import OPERAND

__all__ = ["Flow", "only_taken_from"]

# Attributes and methods of arrays: views, and what does not depend on the contents.
_VIEWS = frozenset("T mT real reshape ravel transpose swapaxes squeeze view".split())
_COPYING = frozenset(["reshape", "ravel"])      # views, but for an order that takes a copy
_SHAPES = frozenset(["shape", "ndim", "size", "dtype", "itemsize", "nbytes", "strides", "__len__"])
_OF_SHAPES = (len, np.shape, np.ndim, np.size)
_CHANGING = frozenset(["fill", "sort", "partition", "put", "resize", "itemset", "byteswap",
                       "setfield", "setflags"])
_CHANGING_FUNCTIONS = frozenset([id(getattr(np, name)) for name in (
    "copyto", "put", "place", "putmask", "fill_diagonal", "put_along_axis")])

# Of Tensors: methods that return Tensors. (.item(), .tolist(), .numpy() and the like do not.)
_METHODS = frozenset("""
astype clip conj conjugate copy cumprod cumsum diagonal dot flatten max mean min prod ravel repeat
reshape round squeeze std sum swapaxes take trace transpose var
""".split())
_TENSOR_ATTRIBUTES = frozenset(["T", "mT", "real", "imag"])

# Functions of arrays that return Tensors if they are given one.
_RETURNS = frozenset("""
abs amax amin append around array asarray asanyarray ascontiguousarray atleast_1d atleast_2d
atleast_3d average broadcast_to clip column_stack compress concatenate convolve copy correlate
cross cumprod cumsum diag diagflat diagonal diff dot dstack einsum expand_dims flip fliplr flipud
full_like gradient hstack imag inner interp kron matmul matrix_transpose max mean min moveaxis
nan_to_num outer pad permute_dims prod ravel real repeat reshape roll rot90 round select sort
squeeze stack std sum swapaxes take tensordot tile trace transpose trapezoid tril triu var vdot
vstack where zeros_like ones_like norm inv solve det cholesky logsumexp softmax log_softmax relu
sigmoid
""".split())
_CREATES = frozenset("zeros ones full eye identity arange linspace empty".split())

# What is in a container comes out of these as deep as this, seen from the container.
_DEPTHS = {"values": 0, "items": -1, "get": 1, "pop": 1, "setdefault": 1, "copy": 0, "zip": -1,
           "enumerate": -1, "reversed": 0, "list": 0, "tuple": 0, "iter": 0, "sorted": 0}

_WAY = re.compile(r"(?:.*\.)?([^\W\d]\w*)((?:\[(?:-?\d+|'\w*')\])*)")
_DEEPEST = 4


class Flow:
    """How arrays flow through the code that a `Watch` has met.

    Parameters
    ----------
    state : Watch
    stand_ins : sequence of (kind, name)
        Names in the innermost function that stood for Tensors; see programs/lift.py.

    Attributes
    ----------
    by_value : set of int
        Numbers of the arrays of the watch whose contents must be compared though an operand of a
        recorded operation is read again.
    copied : set of int
        Those of which another order may be taken as an operand: ``d.T.ravel()`` is a copy.
    written : set of int
        Those that code writes to.
    """

    def __init__(self, state, stand_ins=()):
        self.state = state
        self.scopes = {}                # Code, nested ones too -> scopes of its functions
        for scope in state.scopes:
            for code in scope.names.code.codes:
                self.scopes.setdefault(code, []).append(scope)
        self.roots = list({scope.names.code: None for scope in state.scopes})
        self.by_value, self.copied, self.written, self.ways = set(), set(), set(), {}
        for k, labels in enumerate(state.ways):
            for label in labels:
                if label == OPERAND:
                    continue
                found = _WAY.fullmatch(label)
                if found is None or " " in label:
                    self.by_value.add(k)    # by no name that code has for it
                else:
                    self.ways.setdefault(found[1], set()).add((k, found[2].count("[")))
        if not self.ways:
            return
        self._find_functions()
        self._gather()
        own = names_in(state.innermost.__code__).code if stand_ins else None
        self.stood_for = {value for kind, name in stand_ins for value in own.reads(kind, name)}
        self._bind()
        self._find_tensors()
        self._find_arrays()
        for value in self.values:
            for place, part in enumerate(value.parts):
                if self.arrays.get(part):
                    self._use(value, place, self.arrays[part])

    def _gather(self):
        """All values, with joins and variables."""
        seen, rest = {}, [value for code in self.roots for value in code.everything]
        while rest:
            value = rest.pop()
            if value not in seen:
                seen[value] = None
                rest += value.parts
                rest += value.code.variables.values() if value.code is not None else ()
        self.values = list(seen)

    # ---- which function is called with what -------------------------------------------------

    def _objects(self, value):
        found = []
        for scope in self.scopes.get(value.code, ()):
            found += scope.objects(value)[0]
        return found

    def _find_functions(self):
        """Which code may run at all, and which functions are called by no name that is known."""
        self.functions = {function: names_in(function.__code__).code
                          for function in self.state.functions
                          if names_in(function.__code__).code in self.scopes}
        methods = self.state.methods
        named = {f for found in methods.values() for f in found}
        self.escaped = set()
        for value in [x for code in self.roots for x in code.everything] + [
                x for code in self.roots for x in code.variables.values() if x.outer]:
            found = self._functions_by_name(value)
            named.update(found)
            if found and not self._only_called(value):
                self.escaped.update(found)
        rest = [f for f in self.functions
                if f not in named or f in self.escaped or f is self.state.innermost]
        self.escaped |= {f for f in rest if f is not self.state.innermost}
        rest += [f for name, found in methods.items() if name.startswith("__")
                 and name != "__call__" for f in found]
        alive, called = set(), False
        while rest:
            code = self.functions.get(rest.pop())
            if code is None or code in alive:
                continue
            alive.add(code)
            for value in [*code.everything, *code.variables.values()]:
                rest += self._functions_by_name(value)
                if not called and value.kind == "call" and self._may_call(value):
                    called = True
                    rest += methods.get("__call__", ())
        self.roots = [code for code in self.roots if code in alive]
        self.functions = {f: code for f, code in self.functions.items() if code in alive}

    def _functions_by_name(self, value):
        if value.kind != "attribute" and value.kind != "global" and not (
                value.kind == "variable" and value.outer):
            return []
        found = [] if value.kind != "attribute" else [*self.state.methods.get(value.name, ())]
        for x in self._objects(value):
            function = _transformed(x)
            if function is not x and isinstance(function, types.MethodType):
                function = function.__func__
            if isinstance(function, types.FunctionType):
                found.append(function)
        return found

    def _may_call(self, call):
        """Whether a call may run an object of the user's: it is one, or is handed on."""
        for origin in origins(call.parts[0]):
            objects = self._objects(origin)
            if origin.kind == "attribute" and (not objects or origin.name in self.state.methods):
                continue
            if not objects and origin.kind != "function" or any(
                    [not known.function(x) or known.calls(x) for x in objects
                     if not isinstance(x, (types.FunctionType, type))]):
                return True
        return False

    def _bind(self):
        """Which values each argument of each function may be."""
        self.bound = {}                 # parameter -> values, None among them for what is not known
        self.targets = {}               # call -> codes that it may run, or None
        methods = self.state.methods
        of_classes = {f for found in methods.values() for f in found}
        # What is called by no name that is known may be any of these.
        self.unnamed = [(self.functions[f], int(f in of_classes)) for f in self.escaped
                        if f in self.functions]
        self.unnamed += [(self.functions[f], 1) for f in methods.get("__call__", ())
                         if f in self.functions]
        anyhow = self.escaped | {f for name, found in methods.items() for f in found if (
            name.startswith("__") and name not in ("__call__", "__init__"))}
        for f in anyhow & self.functions.keys():
            for parameter in self.functions[f].parameters:
                self.bound.setdefault(parameter, []).append(None)
        for value in self.values:
            if value.kind == "call":
                self.targets[value] = self._targets(value)
                for code, offset in self.targets[value] or ():
                    self._bind_call(value, code, offset)
                if self._calls_back(value):
                    for code, _ in self.unnamed:
                        for parameter in code.parameters:
                            self.bound.setdefault(parameter, []).append(None)
            elif value.kind == "function" and isinstance(value.name, Code) and (
                    not self._only_called(value)):
                for parameter in value.name.parameters:
                    self.bound.setdefault(parameter, []).append(None)
        self._bind_given()

    def _calls_back(self, call):
        return any([known.calls(x) for origin in origins(call.parts[0])
                    for x in self._objects(origin)])

    def _only_called(self, value):
        uses = [use for scope in self.scopes.get(value.code, ())[:1]
                for use in scope.names.code._uses.get(value, ())]
        return all([use.kind == "call" and k == 0 for use, k in uses])

    def _targets(self, call):
        """The codes of the user's that a call may run, each with the number of arguments that are
        bound already; None if that is not known."""
        found = []
        for origin in origins(call.parts[0]):
            if origin.kind == "function":
                found.append((origin.name, 0))
                continue
            objects = self._objects(origin)
            methods = self.state.methods.get(origin.name) if origin.kind == "attribute" else None
            if not objects and methods is None and origin.kind != "attribute":
                found += self.unnamed
                found.append(None)
            for x in objects:
                found += self._target(x)
            for function, static in (methods or {}).items():
                if function in self.functions:
                    found.append((self.functions[function], 0 if static else 1))
        return None if None in found and len(found) == 1 else [x for x in found if x is not None]

    def _target(self, x):
        if known.function(x):
            return []
        if _hands_on(x):
            return self._target(_transformed(x))
        if isinstance(x, types.MethodType):
            return [(code, 1) for code, _ in self._target(x.__func__)]
        if isinstance(x, types.FunctionType):
            return [(self.functions[x], 0)] if x in self.functions else []
        if isinstance(x, type):
            return [(self.functions[f], 1) for f in self.state.methods.get("__init__", ())
                    if f in self.functions]
        if isinstance(x, functools.partial) or known.package_of(type(x)) == "fastgrad":
            return [None]
        return [(self.functions[f], 1) for f in self.state.methods.get("__call__", ())
                if f in self.functions]

    def _bind_call(self, call, code, offset):
        count = code.code.co_argcount
        names = dict.fromkeys(code.parameters[offset:])
        if call.name is None:
            for parameter in names:
                self.bound.setdefault(parameter, []).append(None)
            return
        plain = len(call.parts) - len(call.name)
        for k, part in enumerate(call.parts[1:plain], offset):
            if k < count:
                self.bound.setdefault(code.parameters[k], []).append(part)
            elif code.code.co_flags & 0x04:
                place = count + code.code.co_kwonlyargcount
                self.bound.setdefault(code.parameters[place], []).append(None)
        for name, part in zip(call.name, call.parts[plain:]):
            found = [x for x in code.parameters if x.name == name]
            for parameter in found or code.parameters[-1:]:
                self.bound.setdefault(parameter, []).append(part if found else None)

    def _bind_given(self):
        """The arguments of the innermost function that are Tensors."""
        self.given = {}                 # with their levels
        function, skipped = self.state.roots[0], 0
        while not isinstance(function, types.FunctionType):
            if isinstance(function, types.MethodType):
                function, skipped = function.__func__, skipped + 1
            elif isinstance(function, functools.partial):
                function, skipped = function.func, skipped + len(function.args)
            elif _hands_on(function):
                function = function.__wrapped__
            else:
                return
        code = self.functions.get(function)
        if code is None or self.state.given is None:
            return
        positions, names = self.state.given
        for k, level in enumerate(positions, skipped):
            if k < code.code.co_argcount:
                self.given[code.parameters[k]] = level
        rest = positions[max(code.code.co_argcount - skipped, 0):]
        if code.code.co_flags & 0x04 and rest:
            place = code.code.co_argcount + code.code.co_kwonlyargcount
            self.given[code.parameters[place]] = _raised(_meet(rest), 1)
        self.given.update({x: names[x.name] for x in code.parameters if x.name in names})

    # ---- what is certainly a Tensor ---------------------------------------------------------

    def _find_tensors(self):
        """value -> 0 if it is certainly a Tensor, n if it is containers in each other with Tensors
        so deep, None if neither is certain. All are _OPEN at first, so that a loop in which a name
        is bound anew finds what it was before."""
        self.level = dict.fromkeys(self.values, _OPEN)
        changed = True
        while changed:
            changed = False
            for value in self.values:
                before = self.level[value]
                if before is not None:
                    now = self._level_of(value)
                    if now != before:
                        self.level[value] = now if before is _OPEN else None
                        changed = True

    def _tensor(self, value):
        return self.level[value] == 0

    def _level_of(self, value):
        if value in self.stood_for:
            return 0
        kind, parts = value.kind, value.parts
        levels = [self.level[x] for x in parts]
        if kind == "variable":
            return self._level_of_variable(value, levels)
        if kind == "join":
            return _meet(levels)
        if kind == "built":
            return _raised(_meet(levels), 1) if value.name in ("tuple", "list") else None
        if kind in ("item", "element"):
            return _raised(levels[0], -1 if value.name != "iter" else 0)
        if kind == "attribute":
            return _certain(levels[0]) if value.name in _TENSOR_ATTRIBUTES else None
        if kind in ("operator", "inplace") or kind == "compare" and value.name not in ("is", "in"):
            return _any(levels)
        if kind == "unary":
            return _certain(levels[0]) if value.name != "not" else None
        return self._level_of_call(value) if kind == "call" else None

    def _level_of_variable(self, value, levels):
        if value.outer:
            return None
        if value.parameter:
            bound = self.bound.get(value, ())
            if None in bound or not bound and not levels and value not in self.given:
                return None
            levels = levels + [self.level[x] for x in bound]
            if value in self.given:
                levels.append(self.given[value])
        return _meet(levels) if levels else None

    def _level_of_call(self, call):
        targets = self.targets.get(call)
        if targets:
            levels = [self.level[x] for code, _ in targets for x in code.returned or (call,)]
            return None if self._objects_outside(call) else _meet(levels)
        found = []
        for origin in origins(call.parts[0]):
            if origin.kind == "attribute" and origin.name in _METHODS and (
                    _certain(self.level[origin.parts[0]]) is not None):
                found.append(self.level[origin.parts[0]])
                continue
            objects = self._objects(origin)
            if not objects:
                return None
            for x in objects:
                if _creates(x):
                    found.append(0)
                elif known.wants_tensors(x) and (
                        isinstance(x, np.ufunc) or getattr(x, "__name__", "") in _RETURNS):
                    found.append(self._level_of_operands(call))
                else:
                    return None
        return _meet(found)

    def _level_of_operands(self, call):
        """0 if an operand of a call is a Tensor, or a tuple or list with one."""
        levels = [self.level[x] for x in call.parts[1:]]
        levels += [self.level[z] for x in call.parts[1:] for y in origins(x)
                   if y.kind == "built" for z in y.parts]
        if any([type(x) is int for x in levels]):
            return 0
        return _OPEN if _OPEN in levels else None

    def _objects_outside(self, call):
        """Whether a call may run what is no code of the user's as well."""
        return any([_hands_on(x) or not self._target(x) for origin in origins(call.parts[0])
                    for x in self._objects(origin)])

    # ---- which arrays a value may be --------------------------------------------------------

    def _find_arrays(self):
        """value -> {(name, depth)}: what is found so deep in what is reached by the name."""
        self.arrays = {value: set() for value in self.values}
        changed = True
        while changed:
            changed = False
            for value in self.values:
                before = len(self.arrays[value])
                self.arrays[value] |= {(name, depth) for name, depth in self._may_be(value)
                                       if name in self.ways and -_DEEPEST <= depth <= _DEEPEST}
                changed = changed or len(self.arrays[value]) > before

    def _may_be(self, value):
        if value in self.stood_for:
            return ()
        kind, parts, arrays = value.kind, value.parts, self.arrays
        if kind == "global":
            return [(value.name, 0)]
        if kind == "variable":
            found = [(value.name, 0)] if value.outer else []
            for part in [*parts, *(self.bound.get(value, ()) if value.parameter else ())]:
                found += arrays[part] if part is not None else ()
            return found
        if kind == "join":
            return [x for part in parts for x in arrays[part]]
        if kind == "attribute":
            found = [(value.name, 0)]
            if value.name in _VIEWS:
                found += arrays[parts[0]]
            for function in self.state.methods.get(value.name, ()):     # properties
                if function in self.functions:
                    found += [x for part in self.functions[function].returned for x in arrays[part]]
            return found
        if kind == "item" or kind == "element":
            deeper = 0 if value.name == "iter" else 1
            return [(name, depth + deeper) for name, depth in arrays[parts[0]]]
        if kind == "built":
            return [(name, depth - 1) for part in parts for name, depth in arrays[part]]
        if kind == "call":
            return self._returned(value)
        return ()

    def _returned(self, call):
        found = [x for code, _ in self.targets.get(call) or () for part in code.returned
                 for x in self.arrays[part]]
        if call in self.state_names(call).stands_for:
            found.append((self.state_names(call).stands_for[call].name, 0))
        for origin in origins(call.parts[0]):
            name = origin.name
            if origin.kind == "attribute" and name in _VIEWS:
                found += self.arrays[origin.parts[0]]
            elif name in _DEPTHS:
                parts = [origin.parts[0]] if origin.kind == "attribute" else call.parts[1:]
                found += [(x, depth + _DEPTHS[name]) for part in parts
                          for x, depth in self.arrays[part]]
        return found

    def state_names(self, value):
        return names_in(value.code.code) if value.code in self.roots else (
            self.scopes[value.code][0].names)

    # ---- uses -------------------------------------------------------------------------------

    def _use(self, value, k, found):
        """Mark the arrays that are used by value where some value is taken as part k."""
        how = self._how(value, k)
        if how is None and value.kind == "attribute" and value.name in _COPYING:
            self.copied.update([number for name, depth in found for number, deep in self.ways[name]
                                if depth >= deep])
        for name, depth in found if how is not None else ():
            for number, deep in self.ways[name]:
                if how == "inside" and depth < deep:
                    continue            # the container is looked into, not the array
                self.by_value.add(number)
                if how == "written" and depth >= deep:
                    self.written.add(number)

    def _how(self, value, k):
        """None for a use that the recording sees, "inside" for one that looks into what it is,
        "written", or "whole" for what is not known."""
        kind, parts = value.kind, value.parts
        if kind in ("store", "return", "yield"):
            if kind == "store":
                return None if len(parts) > 1 else "whole"      # (a global)
            return None if self._called_by_name(value.code) else "whole"
        if kind in ("variable", "join", "built"):
            return None
        if kind == "operator" or kind == "compare" and value.name not in ("is", "in"):
            return None if self._tensor(parts[1 - k]) else "whole"
        if kind == "inplace":
            return "written" if k == 0 else None if self._tensor(parts[0]) else "whole"
        if kind == "compare":
            return None if value.name == "is" else "whole"
        if kind == "attribute":
            return (None if value.name in _SHAPES or value.name in _VIEWS
                    else "written" if value.name in _CHANGING else "inside")
        if kind == "element":
            return "inside" if value.name != "iter" else None
        if kind == "item":
            return "inside" if k == 0 else None if self._tensor(parts[0]) else "whole"
        if kind == "set item":
            return "written" if k == 0 else None if self._tensor(parts[0]) else "whole"
        if kind == "delete item":
            return "whole"
        if kind == "test":
            return "inside"
        if kind == "call":
            return self._how_called(value, k)
        return "whole"

    def _called_by_name(self, code):
        """Whether what a function returns is followed: to those that call it."""
        innermost = self.functions.get(self.state.innermost)
        dunders = {f for name, found in self.state.methods.items() if name.startswith("__")
                   and name not in ("__call__", "__init__") for f in found}
        return code is innermost or not any(
            [self.functions.get(f) is code for f in dunders])

    def _how_called(self, call, k):
        targets = self.targets.get(call)
        objects, others = [], False
        for origin in origins(call.parts[0]):
            found = self._objects(origin)
            objects += found
            method = origin.kind == "attribute" and not found
            if method and origin.parts and self._tensor(origin.parts[0]):
                continue                # of a Tensor: recorded
            if method and k == 0 and (origin.name in _VIEWS or origin.name in _DEPTHS):
                continue                # the use is that of the attribute
            if not found and not targets:
                others = True
        if others:
            return "whole"
        if targets and not self._objects_outside(call):
            return None if k else "whole" if call.parts[0].kind not in ("global", "attribute",
                                                                       "variable") else None
        names = call.name or ()
        place = k - (len(call.parts) - len(names))
        how = None
        for x in objects:
            if id(x) in known.CONTENT_FREE:
                continue
            if getattr(x, "__name__", None) in _DEPTHS and not known.wants_tensors(x) or (
                    id(x) in known.READS_NAMED and k == 1):
                how = "inside"          # of an array: its entries, or any of its methods
                continue
            if id(x) in _CHANGING_FUNCTIONS and k == 1 or place >= 0 and names[place] == "out":
                return "written"
            if x is constant:
                continue
            if not (known.wants_tensors(x) and self._level_of_operands(call) == 0):
                return "whole"
        return how


_OPEN = "open"


def _meet(levels):
    """What is certain if it is one of these."""
    found = {x for x in levels if x is not _OPEN}
    return _OPEN if not found else found.pop() if len(found) == 1 else None


def _raised(level, by):
    return max(level + by, 0) if type(level) is int else level


def _certain(level):
    return level if level == 0 or level is _OPEN else None


def _any(levels):
    """Of an operator: it is recorded if one of its operands is a Tensor."""
    return 0 if 0 in levels else _OPEN if _OPEN in levels else None


def _hands_on(x):
    """Whether x is a derivative of a function, a mapped or compiled one: it calls the function with
    the arguments that it is given, or Tensors in their place."""
    return known.package_of(type(x)) == "fastgrad" and hasattr(x, "__wrapped__") and not (
        hasattr(x, "defvjp") or hasattr(x, "defjvp"))


def _transformed(x):
    """The function, where x is such a one."""
    while _hands_on(x):
        x = x.__wrapped__
    return x


def _creates(x):
    """Whether a function makes a Tensor of no operand, while something is recorded."""
    return known.package_of(x) == "fastgrad" and getattr(x, "__name__", "") in _CREATES


def only_taken_from(scope, kind, name):
    """Whether all that a function does with an array that it reads by a name is what a Tensor does
    likewise: it is an operand, and taken from, and nothing writes to a view of it."""
    code = scope.names.code
    rest, seen = list(code.reads(kind, name)), set()
    while rest:
        array = rest.pop()
        if array in seen:
            continue
        seen.add(array)
        for use, place in code.uses_of(array):
            if use.kind in ("item", "element") and place == 0:
                rest.append(use)
            elif use.kind == "attribute":
                if use.name in _VIEWS:
                    rest += [use, *[call for call, k in code.uses_of(use)
                                    if call.kind == "call" and k == 0]]
                elif use.name not in _SHAPES and use.name not in _METHODS:
                    return False
            elif use.kind == "call":
                if place == 0:
                    continue            # of a method, which the attribute has told
                if not _records(scope, use):
                    return False
                rest.append(use)        # which may be a view
            elif use.kind == "return":
                if use.code is not code:
                    return False
            elif use.kind not in ("operator", "unary") and not (
                    use.kind == "compare" and use.name not in ("is", "in")):
                return False
    return True


def _records(scope, call):
    """Whether what is called records the Tensors that it is given."""
    if call.name is None or "out" in call.name:
        return False
    objects, whole = scope.objects(call.parts[0])
    return whole and all([known.wants_tensors(x) or x in _OF_SHAPES for x in objects])
