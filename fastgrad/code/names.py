"""What the names in a function's code stand for, as far as that can be told without running it.

`Names` is what a code object names, whatever that is; `Scope` looks it up for one function: in its
globals and cells, in modules and classes.
"""

import builtins
import functools
import re
import sys
import types

from fastgrad._core.program import ABSENT

from .values import Value, origins, read

__all__ = ["ANY", "CLASSES", "COPIED", "EQUAL", "MADE", "NEW", "ORDER", "TRIES", "Names", "Scope",
           "handed_on", "names_in", "own_attribute", "static_attribute", "stored"]

# What code does beside naming things, written as if it were a name that it reads: it asks for
# attributes by names that are not told; takes hold of the class of an object; copies objects; asks
# whether they are equal; makes classes; asks for the order in which an array lies in memory; calls
# what it has found as the class of an object; may go on after an attribute was not found.
ANY, CLASSES, COPIED, EQUAL, MADE, ORDER, NEW, TRIES = (
    "*", "type()", "copy()", "==", "class:", "order=", "type()()", "try:")


def handed_on(name):
    """The mark that what a name stands for is not only called."""
    return f"&{name}"


def stored(name):
    """The mark that an attribute of the name is bound; "*" where the name is not told."""
    return f"={name}"


# Names of functions that are called with the names of attributes: which arguments these are.
_NAMED = {"getattr": slice(2, 3), "hasattr": slice(2, 3), "attrgetter": slice(1, None),
          "methodcaller": slice(1, 2)}

# Operators, methods and functions that ask whether objects are equal.
_EQUALITY = frozenset(["==", "!=", "in", "index", "count", "remove", "eq", "ne", "contains",
                       "countOf",
                       "indexOf", "__eq__", "__ne__"])

# Methods that look up what they are given the name of, and ways from an object to its class.
_LOOKUPS = frozenset(["__getattribute__", "__getattr__"])
_TO_CLASSES = frozenset(["__class__", "__mro__", "mro", "__bases__", "__base__", "__subclasses__",
                         "__objclass__", "__thisclass__", "__self_class__", "__orig_class__"])

# Functions that bind an attribute, or delete it, by its name.
_BINDERS = frozenset(["setattr", "delattr", "__setattr__", "__delattr__"])

_ORDERS = frozenset(["K", "A", "k", "a"])
_ORDERED = frozenset(["ravel", "flatten", "reshape", "tobytes", "nditer"])

_TEXTS = frozenset(["str", "repr", "format", "ascii", "print"])


class Names:
    """What a code object, with those nested in it, names.

    Attributes
    ----------
    code : Code
    globals : dict
        Name of a global or builtin -> the values that read it.
    attributes : set of str
        All that are read, those in constant strings of getattr and the like included.
    reads : list of Value
        Those of kind "attribute", and what stands for calls of getattr.
    imports : list of Value
    calls : list of Value
    dynamic : list of (Value, int)
        What reads attributes that are not told: the value, and which of its parts is looked into.
    lines : dict
        Name -> line where it is first read.
    asked : set of str
        Attributes that may be absent: of hasattr and getattr.
    texts : bool
        Whether it makes texts of objects.
    compares : bool
        Whether it may ask if objects are equal.
    marks : set of str
        What else it does, see ANY.
    stores, sets_attributes
        Names of globals, cells and attributes that are bound; whether any attribute is.
    """

    def __init__(self, code):
        self.code = code
        self.globals, self.attributes, self.reads, self.lines = {}, set(), [], {}
        self.imports, self.calls, self.dynamic, self.stores = [], [], [], set()
        self.stands_for = {}            # a call of getattr -> the attribute
        self.sets_attributes = self.texts = self.compares = False
        self.asked, self.marks = set(), set()
        for value in code.everything:
            kind = value.kind
            if kind == "global":
                self.globals.setdefault(value.name, []).append(value)
                self.texts = self.texts or value.name in _TEXTS
            elif kind == "attribute":
                self._attribute(value)
            elif kind == "import":
                self.imports.append(value)
            elif kind == "call":
                self.calls.append(value)
                self._call(value)
            elif kind == "format" or kind in ("operator", "inplace") and value.name[0] == "%":
                self.texts = True
            elif kind == "match" and isinstance(value.name, int) and value.name:
                self.dynamic.append((value, 0))         # a class pattern by position
            elif kind in ("store", "delete"):
                self.stores.add(value.name)
            elif kind in ("set attribute", "delete attribute"):
                self.stores.add(value.name)
                self.marks.add(stored(value.name))
                self.sets_attributes = True
            elif kind == "other" and value.name == "LOAD_BUILD_CLASS":
                self.marks.add(MADE)
            self.compares = self.compares or kind == "match" or (
                value.name in _EQUALITY if kind in ("compare", "attribute", "global") else False)
            if kind in ("global", "attribute"):
                self.lines.setdefault(value.name, value.line)
            for part in value.parts:
                if part.kind == "variable" and part.outer:
                    self.lines.setdefault(part.name, value.line)

        self.compares = self.compares or bool(self.dynamic)
        if self.compares:
            self.marks.add(EQUAL)
        if self.attributes & _LOOKUPS:
            self.marks.add(ANY)
        if "type" in self.globals or self.attributes & _TO_CLASSES:
            self.marks.add(CLASSES)
        if "type" in self.globals and "__new__" in self.attributes:
            self.marks.add(MADE)
        if self.asked or any([code.code.co_exceptiontable for code in self.code.codes]):
            self.marks.add(TRIES)
        self._find_handed_on()

    def _find_handed_on(self):
        """Which names stand for more than what is called: attributes may be asked of it."""
        def only_called(value):
            return all([use.kind == "test" or use.kind == "call" and k == 0 or (
                use.kind == "compare" and use.name == "is") for use, k in uses.get(value, ())])

        uses = self.code._uses
        for x in self.code.everything:
            if (x.kind == "attribute" and x.name == "__class__" or x.kind == "call" and any(
                    [y.name == "type" for y in origins(x.parts[0])])) and any(
                        [use.kind not in ("attribute", "compare", "test", "format")
                         for use, _ in uses.get(x, ())]):
                self.marks.add(NEW)
        read = [x for x in self.code.everything if x.kind in ("global", "attribute")]
        read += [x for x in self.code.variables.values() if x.outer]
        self.marks.update([handed_on(x.name) for x in read if not only_called(x)])
        if handed_on("type") in self.marks and "type" in self.globals:
            self.marks.add(NEW)

    def _attribute(self, value):
        self.attributes.add(value.name)
        if value.name in ("format", "format_map"):
            self.texts = True
            self._fields(value.parts[0])
        self.reads.append(value)
        if value.name == "__dict__":
            self.dynamic.append((value, 0))

    def _fields(self, text):
        """Attributes that a text names which is filled in: "{0.rate}"."""
        for x in origins(text):
            if x.kind != "constant" or not isinstance(x.name, str):
                self.marks.add(ANY)
                continue
            for name in re.findall(r"[.](\w+)", "".join(re.findall(r"{([^{}:!]*)", x.name))):
                self.attributes.add(name)
                self.marks.add(handed_on(name))

    def _call(self, value):
        if any([x.kind == "constant" and x.name in _ORDERS for part in value.parts[1:]
                for x in origins(part) if type(x.name) is str]) and (
                    "order" in (value.name or ()) or any(
                        [x.name in _ORDERED for x in origins(value.parts[0])])):
            self.marks.add(ORDER)
        for function in origins(value.parts[0]):
            if function.kind not in ("global", "attribute"):
                continue
            if function.name == "vars":
                self.dynamic.append((value, 1))
            elif function.name == "print" and (value.name is None or "file" in value.name):
                self.attributes.update(["write", "flush"])
            elif function.name in _BINDERS:
                told = [x for part in value.parts[1:] for x in origins(part)
                        if x.kind == "constant" and isinstance(x.name, str)]
                self.marks.update([stored(x.name) for x in told] or [stored("*")])
            elif function.name == "type" and (value.name is None or len(value.parts) != 2):
                self.marks.add(MADE)
            told = _NAMED.get(function.name)
            if told is None:
                continue
            texts = [x for part in value.parts[told] for x in origins(part)]
            if value.name is None or not texts or not all(
                    [x.kind == "constant" and isinstance(x.name, str) for x in texts]):
                self.dynamic.append((value, 1))
                continue
            for text in texts:
                self.attributes.update(text.name.split("."))
                self.marks.update(map(handed_on, text.name.split(".")))
            if told.stop == 3:
                self.asked.add(texts[0].name)
                made = Value("attribute", texts[0].name, [value.parts[1]], value.line, value.code)
                self.stands_for[value] = made
                self._attribute(made)


@functools.lru_cache(maxsize=4096)
def names_in(code):
    """The `Names` of a code object."""
    return Names(read(code))


def static_attribute(kind, name):
    """What a class or its bases hold under a name, without the methods that are bound by looking;
    ABSENT where there is none."""
    for base in kind.__mro__:
        found = vars(base).get(name, ABSENT)
        if found is not ABSENT:
            return found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
    return ABSENT


def own_attribute(x, name):
    """An attribute of x as `object` finds it, without code of the user's; None if there is none."""
    try:
        return object.__getattribute__(x, name)
    except Exception:
        return None


class Scope:
    """What the values of a function's code are.

    Parameters
    ----------
    function : function
    """

    def __init__(self, function):
        self.function, self.names = function, names_in(function.__code__)
        self.cells = dict(zip(function.__code__.co_freevars, function.__closure__ or ()))
        self._known = {}

    def objects(self, value):
        """What a value may be.

        Returns
        -------
        list
            Objects.
        bool
            Whether these are all.
        """
        known = self._known.get(value)
        if known is None:
            self._known[value] = [], False      # where it is asked for on the way
            found, whole = [], True
            for origin in origins(value):
                more, all_of_it = self._of(origin)
                found += more
                whole = whole and all_of_it
            known = self._known[value] = found, whole
        return known

    def _of(self, value):
        if value.kind == "constant":
            return [value.name], True
        if value.kind == "global":
            found = self.look_up(value.name)
            return ([], False) if found is ABSENT else ([found], True)
        if value.kind == "variable" and value.outer:
            try:
                return [self.cells[value.name].cell_contents], True
            except (KeyError, ValueError):
                return [], False
        if value.kind == "import":
            module = self._imported(value)
            return ([], False) if module is None else ([module], True)
        value = self.names.stands_for.get(value, value)
        if value.kind == "attribute":
            bases, whole = self.objects(value.parts[0])
            found = [self.attribute(base, value.name) for base in bases]
            told = [x for x in found if x is not ABSENT]
            return told, whole and len(told) == len(found) > 0
        return [], False

    def _imported(self, value):
        """The module that an import statement finds, if it has been loaded."""
        level, asked = [part.name for part in value.parts]
        name = value.name
        if level:
            package = self.function.__globals__.get("__package__") or ""
            name = ".".join([*package.split(".")[:len(package.split(".")) + 1 - level], name])
        return sys.modules.get(name if asked else name.partition(".")[0])

    def look_up(self, name):
        if not name.isidentifier():         # of pytest, for the message of an assertion that fails
            return ABSENT
        found = self.function.__globals__.get(name, ABSENT)
        return getattr(builtins, name, ABSENT) if found is ABSENT else found

    @staticmethod
    def attribute(base, name):
        """An attribute of a module or a class, as far as looking runs no code of the user's."""
        if isinstance(base, types.ModuleType):
            found = vars(base).get(name, ABSENT)
            if found is ABSENT and "__getattr__" in vars(base):
                return getattr(base, name, ABSENT) if base.__name__.partition(".")[0] in (
                    "numpy", "scipy", "fastgrad") else ABSENT
            return found
        if isinstance(base, type):
            return static_attribute(base, name)
        return ABSENT
