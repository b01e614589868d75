"""What containers, classes and objects hold: a part of the watch."""

import abc
import collections
import copyreg
import enum
import types

from fastgrad._core import core
from fastgrad._core.program import ABSENT, version_of

from . import known as _known
from .known import module_of
from .libraries import (
    _ASIDE,
    _CONSTRUCTORS,
    _COPYING,
    _MAKING,
    _MEMBERS,
    _METAS,
    _OF_CLASSES,
    _TEXTS,
    _UNNAMED,
    ATTR,
    CALL,
    DICT,
    INSTANCE,
    KEYS,
    LENGTH,
    LIST,
    VERSION,
    _compares_fields,
    _known_module,
    _library_class,
)
from .names import (
    CLASSES,
    COPIED,
    EQUAL,
    MADE,
    NEW,
    static_attribute,
    stored,
)
from .told import (
    as_base,
    base_of,
    entries_of,
    exact,
    identities,
    members,
    plain,
    registrations,
)

__all__ = ["Holding"]

Tensor = core.Tensor


class Holding:
    """Looks at what is held; `Watch` visits it."""

    # ---- containers -------------------------------------------------------------------------

    def _container(self, value, label):
        kind = type(value)
        if isinstance(value, (set, frozenset)):
            content = members(value)
            self.tokens.append(("set", kind, content))
            if not isinstance(value, frozenset):
                self._compare(CALL, value, members, content)
            for item in base_of(value).__iter__(value):
                if not plain(item):
                    self._visit(item, f"{label}[]", None)
            return
        if isinstance(value, (dict, types.MappingProxyType)):
            self._dictionary(value, kind, label)
            return
        self.tokens.append(("sequence", kind, _length(value)))
        if isinstance(value, collections.deque):
            self.tokens.append(value.maxlen)
            self._compare(CALL, value, identities, identities(value))
            self._held.append(list(base_of(value).__iter__(value)))
        elif isinstance(value, list):
            self._compare(LENGTH, value, _length(value), None)
        for k, item in enumerate(base_of(value).__iter__(value)):
            if isinstance(value, list):
                self._compare(LIST, value, k, item)
            self._visit(item, f"{label}[{k}]", None)

    def _dictionary(self, value, kind, label):
        if isinstance(value, types.MappingProxyType):
            items = list(value.items())
            self._compare(CALL, value, entries_of, entries_of(value))
            self._held.append(items)
        else:
            items = list(dict.items(value))
            if isinstance(value, collections.OrderedDict):
                items = [(key, dict.__getitem__(value, key))
                         for key in collections.OrderedDict.__iter__(value)]
                self._compare(CALL, value, identities, tuple([id(key) for key, _ in items]))
            self._compare(KEYS, value, tuple([key for key, _ in dict.items(value)]), None)
        self.tokens.append(("dict", kind, tuple([exact(key) for key, _ in items])))
        if isinstance(value, collections.defaultdict):
            self._compare(ATTR, value, "default_factory", value.default_factory)
            self._visit(value.default_factory, f"{label}.default_factory", None)
        for key, item in items:
            if not plain(key):
                self._visit(key, f"{label}[]", None)
            if not isinstance(value, types.MappingProxyType):
                self._compare(DICT, value, key, item)
            self._visit(item, f"{label}[{key!r}]", None)

    # ---- things with attributes -------------------------------------------------------------

    def _module(self, value, label):
        """A module that is handed on: the attributes that code names, whatever of."""
        self.tokens.append(("object", id(value)))
        if self.all and not (_known_module(value.__name__) and _known.of_functions(value)):
            self._refuse(f"it may read any attribute of the module `{label}`", self.line_of(label))
            return
        known, space = _known_module(value.__name__), vars(value)
        for name in sorted(self.wanted & space.keys()):
            item = space[name]
            if known and (_known.function(item) or type(item) is float):
                continue
            self.tokens.append(("name", name))
            self._compare(DICT, space, name, item)
            self._visit(item, f"{label}.{name}", None)

    def _type(self, value, label):
        """A class: what instances find there, and how they are made."""
        self.tokens.append(("object", id(value)))
        self._registered(value)
        if issubclass(value, type) and not (value is type and label == "type"):
            self.names |= {MADE, NEW}   # (uses by its own name tell whether it does)
        if not _library_class(value):
            self._class(value, label, _CONSTRUCTORS, self.all)
        elif not _known.function(value) and not isinstance(value, enum.EnumMeta):
            self._unknown(value, label)

    def _registered(self, value):
        """Other classes may be registered with an abstract one at any time."""
        if isinstance(value, abc.ABCMeta):
            self.tokens.append(registrations(abc))
            self._compare(CALL, abc, registrations, registrations(abc))

    def _class(self, kind, label, more=(), whole=False):
        """What instances of a class find there, and the class itself. Its version changes whenever
        something is bound in it, or in one of its bases. `whole`: any of its names may be read."""
        whole = whole or self.any or self.all and CLASSES in self.wanted
        own = [base for base in kind.__mro__ if not _library_class(base)]
        if NEW in self.wanted or COPIED in self.wanted or any(
                [isinstance(item, classmethod) for base in own for name, item in vars(base).items()
                 if name in self.wanted]):
            more = _CONSTRUCTORS        # (a class method may call its class)
        self._held.append(kind.__mro__)
        self.tokens.append(("class", tuple(map(id, kind.__mro__))))
        self._beside_names(kind, label)
        self._compare(VERSION, kind, version_of(kind), None)
        meta = type(kind)
        if meta not in _METAS and not _known_module(module_of(meta)) and meta not in self._seen:
            self._seen[meta] = len(self._seen)
            self._class(meta, label)
        for base in kind.__mro__:
            if _library_class(base):
                if not _known.base_class(base):
                    self._refuse(f"the class {kind.__qualname__} has the base {base.__module__}."
                                 f"{base.__qualname__}, of which nothing is known")
                continue
            for name, item in list(vars(base).items()):
                if (name in more or name in _UNNAMED or name in self.wanted
                        or name in _TEXTS and "__str__" in self.wanted
                        or name in _COPYING and COPIED in self.wanted
                        or name in _MAKING and MADE in self.wanted
                        or (stored(name) in self.wanted or stored("*") in self.wanted)
                        and hasattr(type(item), "__set__")
                        or whole and _by_any_name(name, item)) and not (
                            name == "__eq__" and EQUAL not in self.wanted and not self.all
                            and _compares_fields(base, item)):
                    self.tokens.append(("name", name))
                    self.in_classes.setdefault(kind, set()).add(name)
                    if name in _TEXTS and hasattr(item, "__wrapped__"):
                        item = item.__wrapped__         # of a dataclass
                    function = getattr(item, "fget", None) or getattr(item, "func", None) or (
                        getattr(item, "__func__", item))
                    if isinstance(function, types.FunctionType):
                        self.methods.setdefault(name, {})[function] = isinstance(item, staticmethod)
                    self._visit(item, f"{label}.{name}" if label else name, None,
                                self._is_handed_on(name))

    def _beside_names(self, kind, label):
        """What can be asked of a class and does not stand in it."""
        names = _OF_CLASSES & self.wanted
        if self.any:
            names = _OF_CLASSES
        elif "__str__" in self.wanted and "__dataclass_fields__" in vars(kind):
            names |= {"__qualname__"}
        for name in sorted(names):
            self.tokens.append((name, getattr(kind, name, None)))
            self._compare(ATTR, kind, name, getattr(kind, name, ABSENT))
        if "__subclasses__" in self.wanted:
            found = type.__subclasses__(kind)
            self._compare(CALL, kind, type.__subclasses__, found)
            for x in found:
                self._visit(x, f"{label}.__subclasses__", None)
        if COPIED in self.wanted:
            found = copyreg.dispatch_table.get(kind, ABSENT)
            self._compare(DICT, copyreg.dispatch_table, kind, found)
            if found is not ABSENT:
                self._visit(found, label, None)

    def _attributes(self, value, label):
        """All the attributes of an object."""
        space = vars(value)
        self._compare(INSTANCE, value, (type(value), len(space)), space)
        for name in list(space):
            self.tokens.append(("name", name))
            self._compare(DICT, space, name, space[name])
            self._visit(space[name], f"{label}.{name}" if label else name, None)

    def _instance(self, value, label):
        kind = type(value)
        self.tokens.append(("instance", kind))
        if kind not in self._seen:
            self._seen[kind] = len(self._seen)
            self._class(kind, label)
        part = as_base(value)
        if part is not None:
            self.tokens.append(part)
        if isinstance(value, BaseException):
            self._compare(ATTR, value, "args", value.args)
            self._visit(value.args, f"{label}.args", None)
            for name in sorted(self.wanted - {"args", "__dict__", "__class__"}):
                if isinstance(static_attribute(kind, name), _MEMBERS):
                    found = getattr(value, name, ABSENT)
                    self.tokens.append(("name", name))
                    self._compare(ATTR, value, name, found)
                    if found is not ABSENT:
                        self._visit(found, f"{label}.{name}", None)
        space = getattr(value, "__dict__", None)
        if space is not None and type(space) is not dict:
            self._unknown(space, f"{label}.__dict__")
        elif space is not None:
            self._compare(INSTANCE, value, (kind, len(space)), space)
            if "__getattr__" in self.methods or "__getattribute__" in self.methods:
                self.everything = True
            whole = self.all or isinstance(value, enum.Enum) or any(
                [base in _known.BY_ATTRIBUTES for base in kind.__mro__])
            for name in list(space) if whole else sorted(self.wanted & space.keys()):
                item = space[name]
                self.tokens.append(("name", name))
                self._compare(DICT, space, name, item)
                self._visit(item, f"{label}.{name}" if label else name,
                            (value, "attribute", name), whole or self._is_handed_on(name))
            # (Another attribute may have gone where one of these has come.)
            for name in sorted(self.wanted & (self.in_classes.get(kind, set()) | self.asked)
                               - space.keys()):
                self._compare(DICT, space, name, ABSENT)
        else:
            self._compare(INSTANCE, value, (kind, 0), None)
        self._slots(value, kind, label, self.all)

    def _slots(self, value, kind, label, whole):
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name.startswith("__") and not name.endswith("__"):
                    name = f"_{base.__name__.lstrip('_')}{name}"
                if (whole or name in self.wanted) and not name.startswith("__"):
                    item = getattr(value, name, ABSENT)
                    self.tokens.append(("name", name))
                    self._compare(ATTR, value, name, item)
                    if item is not ABSENT:
                        self._visit(item, f"{label}.{name}" if label else name, None)


def _by_any_name(name, item):
    """Whether what stands in a class may be what code looks up by a name that is not told."""
    return name not in _ASIDE and not (name.startswith("__") and name.endswith("__") and (
        hasattr(type(item), "__get__")))


def _length(value):
    return base_of(value).__len__(value) if isinstance(
        value, (list, tuple, dict, collections.deque)) else 0
