"""What a value in code may be, as far as the names of the code tell: a part of the search."""

import builtins
import collections
import functools
import sys
import types

import numpy as np

from fastgrad._core import core

from . import known as _known
from . import watch
from .kinds import (
    _GIVEN,
    _IN_PLACE,
    _METHODS,
    _NOT_OF_TENSORS,
    _NUMBERS,
    _OF_SHAPE,
    _OPERATORS,
    _REORDERING,
    _SAME_METHODS,
    _SAMENESS,
    ARGUMENT,
    ENTRY,
    PARTS,
    RESHAPED,
    SHOWN,
    TENSOR,
    Bound,
    Known,
    Made,
    Own,
    _class_attribute,
    _computed,
    _constant,
    _holding,
    _key,
    _line,
    _subclass,
)
from .told import CONTAINERS, base_of, entries
from .values import origins

__all__ = ["Looking"]

Tensor = core.Tensor


class _Open(list):
    """What is known of a value that is being looked for."""


class Looking:
    """Looks values up; what calls of them do, `_Search` knows."""

    def look(self, value, frame):
        """All that a value may be, as far as it is known."""
        found = {}
        for origin in origins(value):
            for x in self._origin(origin, frame):
                if len(found) < PARTS:
                    found.setdefault(_key(x), x)
        return list(found.values())

    def _origin(self, value, frame):
        known = frame.known.get(value)
        if known is None:
            # While it is looked for: a loop adds nothing, but what the last round has found.
            frame.known[value] = _Open(frame.before.get(value, ()))
            known = frame.known[value] = self._find(value, frame)
        self._loops = self._loops or type(known) is _Open
        return known

    def _reached(self, value, frame):
        """Whether a run may come to a value: not behind ``if verbose`` while that is False. (A
        program is recorded anew when it changes.)"""
        code = value.code
        if self.whole or value.place is None:
            return True
        if code not in frame.reached:
            frame.reached[code] = None          # nothing is known on the way
            frame.reached[code] = code.reached(lambda tested: self._truth(tested, frame))
        places = frame.reached[code]
        return places is None or value.place in places

    def _truth(self, value, frame):
        """Whether a value that is tested is true; None if that is not certain."""
        value, *others = origins(value)
        if others:
            return None
        if value.kind == "test":
            return self._truth(value.parts[0], frame)
        if value.kind == "unary" and value.name == "not":
            truth = self._truth(value.parts[0], frame)
            return None if truth is None else not truth
        if value.kind == "compare" and value.name in _SAMENESS:
            known = [self._certain(part, frame) for part in value.parts]
            return None if None in known else _SAMENESS[value.name](*[x.object for x in known])
        known = self._certain(value, frame)
        return None if known is None else bool(known.object)

    def _certain(self, value, frame):
        """The one constant that a value is, if it is one."""
        if len(origins(value)) > 1:
            return None
        found = self.look(value, frame)
        return found[0] if len(found) == 1 and isinstance(found[0], Known) and (
            type(found[0].object) in (bool, int, str, type(None))) else None

    def _find(self, value, frame):
        kind = value.kind
        if not self._reached(value, frame):
            return []
        if kind == "constant":
            return [Known(value.name, repr(value.name))]
        if kind == "global":
            root = frame
            while root.function is None:
                root = root.outer
            space = root.globals
            x = space.get(value.name, getattr(builtins, value.name, watch.ABSENT))
            return [] if x is watch.ABSENT else [Known(x, value.name)]
        if kind == "variable":
            return frame.bound.get(value, frame.cell(value.name) if value.outer else [])
        if kind == "attribute":
            return [y for x in self.look(value.parts[0], frame)
                    for y in self.attribute(x, value.name, value)]
        if kind == "element" and value.name == "iter":
            return self.look(value.parts[0], frame)
        if kind in ("item", "element"):
            key = _constant(value.parts[1]) if kind == "item" else None
            return [y for x in self.look(value.parts[0], frame) for y in self.item(x, key)]
        if kind == "import":
            module = sys.modules.get(value.name)
            return [] if module is None else [Known(module, value.name)]
        if kind == "call":
            return self._called(value, frame)
        if kind == "built":
            return [_holding(getattr(builtins, value.name, None), [
                x for part in value.parts for x in self.look(part, frame)])]
        if kind == "function":
            return [Made(value, frame)]
        if kind == "inplace":
            return [x for x in self.look(value.parts[0], frame)
                    if x in (*_GIVEN, SHOWN, RESHAPED) or (
                        isinstance(x, Known) and isinstance(x.object, _IN_PLACE))
                    ] or self._operator(value, frame)
        if kind == "enter":
            return [x for x in self.look(value.parts[0], frame) if not isinstance(x, Own)]
        if kind in ("operator", "unary", "compare"):
            return self._operator(value, frame)
        if kind == "match" and len(value.parts) > 1:
            self._matched(value, frame)
        return [Own(None, ())] if kind in ("format", "test", "match") else []

    def _matched(self, value, frame):
        """``case float():`` and its like."""
        self._asks_for(self.look(value.parts[0], frame), self.look(value.parts[1], frame), value)

    def _asks_for(self, values, classes, value):
        """Code asks whether one of these is an instance of one of those classes."""
        classes = [part.object for x in classes
                   for part in (x.parts if isinstance(x, Own) else (x,)) if isinstance(part, Known)]
        if classes == [Tensor]:
            return                      # (who asks for that is told what there is)
        self.asked(values, lambda kind: bool(classes) and all(
            [_subclass(kind, x) == _subclass(Tensor, x) for x in classes]), value)

    def _operator(self, value, frame):
        """What an operator gives, and methods of the user's classes that it calls."""
        if value.kind == "compare" and value.name in ("is", "is not"):
            both = [self.look(part, frame) for part in value.parts]
            if any([isinstance(_constant(part), bool) for part in value.parts]):
                for values in both:
                    self.asked(values, lambda _: False, value)
            self._asks_whether_one(*both, value)
        if value.kind == "operator":
            name = _OPERATORS.get(value.name)
            for x in self.look(value.parts[0], frame):
                if name and isinstance(x, Known):
                    method = _class_attribute(type(x.object), name)
                    if isinstance(method, types.FunctionType):
                        self._one_call(Known(method, x.label), [[x], []], {}, None)
        return _computed([self.look(part, frame) for part in value.parts])

    def _asks_whether_one(self, first, second, value):
        """Code asks whether two values are one object. Each argument has a Tensor of its own, or is
        a copy, if it is a container, though the caller may have given one object twice, or one
        that the function reaches by a name as well."""
        if self.reason is not None or self.tensors:
            return
        for values, others in ((first, second), (second, first)):
            if any([x in _NUMBERS and x != TENSOR for x in values]) and any([
                    y in _NUMBERS and y != TENSOR or isinstance(y, Known)
                    and type(y.object) in self.given_types for y in others]):
                self.reason = f"it asks whether two arrays are the same object{_line(value)}"

    def _called(self, value, frame):
        callees = self.look(value.parts[0], frame)
        if value.name is None:          # with * or **
            args = [[y for part in value.parts[1:] for x in self.look(part, frame)
                     for y in self.parts(x)]] * 8
            return self.call(callees, args, {}, value)
        first = len(value.parts) - len(value.name)
        args = [self.look(part, frame) for part in value.parts[1:first]]
        names = {name: self.look(part, frame)
                 for name, part in zip(value.name, value.parts[first:])}
        if not callees and value.parts[0].kind == "attribute" and (
                value.parts[0].name in _known.strict_methods()):
            self._refuses(value.parts[0].name, args, names, value)
        return self.call(callees, args, names, value)

    def attribute(self, x, name, value=None):
        """What an attribute may be."""
        if x in _NUMBERS:
            self.unordered = self.unordered or name in _REORDERING
            if name == "__class__":
                self.asked([x], lambda _: False, value)
            elif hasattr(Tensor, name):
                self._lacks(x, name, value)
            elif name in _NOT_OF_TENSORS and x != SHOWN:
                self._refuses(f"`.{name}`", [[x]], {}, value, "is what Tensors do not have")
            if name in _OF_SHAPE:
                return [Own(None, ())]
            return [Bound(name, x)] if name in _METHODS or (
                callable(getattr(np.ndarray, name, None))) else [x]
        if isinstance(x, Own):
            return self._of_class(x.kind, name, x) if isinstance(x.kind, type) else (
                [Bound(name, x)])
        if not isinstance(x, Known):
            return []
        holder, label = x.object, f"{x.label}.{name}" if x.label else name
        if isinstance(holder, types.ModuleType):
            found = vars(holder).get(name, watch.ABSENT)
            if found is watch.ABSENT and watch._known_module(holder.__name__):
                found = getattr(holder, name, found)        # loaded when it is first asked for
            return [] if found is watch.ABSENT else [Known(found, label)]
        if isinstance(holder, type):
            found = _class_attribute(holder, name)
            found = getattr(found, "__func__", found) if isinstance(found, staticmethod) else found
            if isinstance(found, classmethod):
                return [Bound(found.__func__, x)]
            return [] if found is watch.ABSENT else [Known(found, label)]
        space = getattr(holder, "__dict__", None)
        if isinstance(space, dict) and name in space:
            return [Known(space[name], label)]
        if name == "__dict__" and isinstance(space, dict):
            return [Known(space, label)]
        return self._of_class(type(holder), name, x, label)

    def _lacks(self, x, name, value):
        """Code reads an attribute that Tensors have and that x may lack, which it may ask by
        catching the error."""
        kinds = self.kinds if x == ARGUMENT else self.entries if x == ENTRY else (np.ndarray,)
        if self.reason is None and not self.tensors and x != TENSOR and kinds and not any(
                [hasattr(kind, name) for kind in kinds]) and any(
                [code.co_exceptiontable for code in self.codes]):
            self.reason = f"it asks for `.{name}`, which only Tensors have{_line(value)}"

    def _of_class(self, kind, name, owner, label=""):
        """An attribute that instances find in their class."""
        found = _class_attribute(kind, name)
        if found is watch.ABSENT:
            getter = _class_attribute(kind, "__getattr__")
            if isinstance(getter, types.FunctionType):
                self._one_call(Known(getter, label), [[owner], []], {}, None)
            return []
        if isinstance(found, types.FunctionType):
            return [Bound(found, owner)]
        if isinstance(found, staticmethod):
            return [Known(found.__func__, label)]
        if isinstance(found, classmethod):
            return [Bound(found.__func__, Known(kind, kind.__name__))]
        if isinstance(found, (property, functools.cached_property)):
            function = found.fget if isinstance(found, property) else found.func
            return self._one_call(Known(function, label), [[owner]], {}, None)
        if isinstance(found, types.MemberDescriptorType) and isinstance(owner, Known):
            try:
                return [Known(getattr(owner.object, name), label)]
            except AttributeError:
                return []
        if isinstance(found, (types.MethodDescriptorType, types.WrapperDescriptorType)):
            return [Bound(name, owner)]
        if isinstance(found, types.GetSetDescriptorType):
            return [owner] if name in _SAME_METHODS else []
        return [Known(found, label)]

    def item(self, x, key=None):
        """What an entry may be, or what comes out of iteration."""
        if x in _NUMBERS:
            return [ENTRY if x == ARGUMENT else x]
        if isinstance(x, Known):
            holder = x.object
            if isinstance(holder, (np.ndarray, Tensor)):
                return [x]              # a view
            asked = [] if key is None else [Known(key, repr(key))]
            method = _class_attribute(type(holder), "__getitem__")
            if isinstance(method, types.FunctionType):
                return self._one_call(Known(method, x.label), [[x], asked], {}, None)
            if isinstance(holder, dict) and key is not None:
                try:
                    found = dict.get(holder, key, watch.ABSENT)
                except Exception:
                    return []
                if found is not watch.ABSENT:
                    return [Known(found, f"{x.label}[{key!r}]")]
                method = _class_attribute(type(holder), "__missing__")
                return self._one_call(Known(method, x.label), [[x], asked], {}, None) if isinstance(
                    method, types.FunctionType) else []
            if isinstance(holder, (list, tuple, collections.deque)) and key is not None:
                try:
                    return [Known(base_of(holder).__getitem__(holder, key), f"{x.label}[{key!r}]")]
                except Exception:
                    return []
        return self.parts(x)

    @staticmethod
    def parts(x):
        """What a container may hold."""
        if x in _NUMBERS:
            return [ENTRY if x == ARGUMENT else x]
        if isinstance(x, Own):
            # (What a zip or an enumeration gives is unpacked once more.)
            return [x, *x.parts] if x.kind in (None, zip, enumerate) and x.parts else list(x.parts)
        if not isinstance(x, Known):
            return []
        holder = x.object
        if isinstance(holder, (np.ndarray, Tensor)):
            return [x]
        values = entries(holder) if isinstance(holder, CONTAINERS) else ()
        return [Known(part, f"{x.label}[...]") for part, _ in zip(list(values), range(PARTS))]
