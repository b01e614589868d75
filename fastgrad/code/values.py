"""What the code of a function does, in one form for the bytecode of CPython 3.11 to 3.15.

`read(code)` goes once over the instructions of a code object, and of those nested in it, with a
stack of `Value`s in place of the interpreter's, and writes down a `Value` for each thing that the
code reads, computes or changes: its kind, its name, the values it takes (`parts`) and its line.
``y = np.sum(x * w.a)`` becomes

    global np; attribute sum (global np); attribute a (variable w);
    operator * (variable x, attribute a); call (attribute sum, operator *); store y (call)

A local name or a cell is a `Value` of kind "variable" whose parts are all that is ever bound to it,
whatever the order: `origins` of a value are what it may be. So what is said of a name is said of
each other name that it is given.

An instruction that is not known here makes the whole reading doubtful, and stands in
`Code.unknown`; so does code in which the stack does not come out even.
"""

import functools

from .instructions import _Walk
from .value import Value, origins

__all__ = ["Code", "Value", "origins", "read"]

# What takes numbers and gives numbers by the rules of arithmetic.
ARITHMETIC = frozenset(["+", "-", "*", "/", "**", "@", "+=", "-=", "*=", "/=", "**=", "@="])


class Code:
    """What a code object does, with those nested in it.

    Attributes
    ----------
    code : code object
    values : list of Value
        All of them, in the order of the instructions; variables are not among them.
    variables : dict
        Name -> Value of each local name, argument and cell.
    parameters : list of Value
        By position, then by name, then ``*args``, ``**kwargs``.
    nested : list of Code
    everything : list of Value
        `values` of this and all that is nested.
    codes : list of Code
        This and all that is nested.
    unknown : list of (str, int)
        Instructions that are not known, with their lines.
    ways : dict
        Place of an instruction -> [(place of one that may follow, Value tested or None, whether the
        test has to be true for it)].
    """

    def __init__(self, code, outer=None):
        self.code, self.values, self.unknown, self.nested = code, [], [], []
        self.variables, self.ways = {}, {}
        for name in code.co_freevars:
            found = outer.variables.get(name) if outer is not None else None
            if found is None:
                found = self._variable(name)
                found.outer = True
            self.variables[name] = found
        for name in code.co_cellvars:   # a nested function may be the only one that uses it
            self._variable(name)
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
        self.parameters = [self._variable(name) for name in code.co_varnames[:count]]
        for parameter in self.parameters:
            parameter.parameter = True
        self._functions = []            # function values whose codes are read at the end
        try:
            _Walk(self).run()
        except (IndexError, ValueError, KeyError) as error:
            self.unknown.append((f"{type(error).__name__}: {error}", code.co_firstlineno))
        for value in self._functions:
            if value.name is not None:
                value.name = Code(value.name, self)
                self.nested.append(value.name)
                self._bind_defaults(value)
        self._bind_arguments()
        self.codes = [self] + [code for inner in self.nested for code in inner.codes]
        self.everything = [value for code in self.codes for value in code.values]
        self.unknown = self.unknown + [entry for inner in self.nested for entry in inner.unknown]

    def __repr__(self):
        return f"<Code {self.code.co_qualname}, {len(self.everything)} values>"

    def _variable(self, name):
        found = self.variables.get(name)
        if found is None:
            found = self.variables[name] = Value("variable", name, [], self.code.co_firstlineno,
                                                 self)
        return found

    @staticmethod
    def _bind_defaults(value):
        """Arguments may be their defaults. (Which is whose matters less than that none is lost.)"""
        for parameter in value.name.parameters:
            parameter.parts += value.parts

    def _bind_arguments(self):
        """Of nested functions that are called here, as comprehensions are (until Python 3.12)."""
        for value in self.values:
            if value.kind != "call" or value.name is None:
                continue
            for function in origins(value.parts[0]):
                if function.kind == "function" and isinstance(function.name, Code):
                    count = len(value.parts) - len(value.name)
                    for part, parameter in zip(value.parts[1:count], function.name.parameters):
                        parameter.parts.append(part)
                    for part, name in zip(value.parts[count:], value.name):
                        if name in function.name.variables:
                            function.name.variables[name].parts.append(part)

    def reached(self, truth):
        """Places of instructions that a run may come to.

        Parameters
        ----------
        truth : callable
            Tells of a Value that is tested if it is true, false, or None if nobody knows.
        """
        found, rest = set(), [0]
        while rest:
            place = rest.pop()
            if place in found:
                continue
            found.add(place)
            rest += [to for to, tested, when in self.ways.get(place, ())
                     if tested is None or truth(tested) in (None, when)]
        return found

    @functools.cached_property
    def returned(self):
        """What it may return or yield."""
        return [value.parts[0] for value in self.values if value.kind in ("return", "yield")]

    @functools.cached_property
    def _uses(self):
        """Value that is read -> (value that takes it, which part) of all that takes it."""
        found = {}
        for value in self.everything:
            if value.kind == "store" and value.parts[-1].kind == "variable":
                continue                # then the variable is what is used
            for k, part in enumerate(value.parts):
                for origin in origins(part):
                    found.setdefault(origin, []).append((value, k))
        return found

    def uses_of(self, value):
        """What takes a value, under whatever name: (what, as which of its parts)."""
        return list(self._uses.get(value, ()))

    def uses(self, kind, name):
        """Everything that is done with what is read by a name, here and in nested code, by this and
        each other name it is given.

        Parameters
        ----------
        kind : str
            "global", "attribute" (of whatever), or "cell": a cell from outside.

        Returns
        -------
        list of (Value, int)
            What takes it, and as which of its parts.
        """
        if kind == "cell":
            return list(self._uses.get(self.variables.get(name), ()))
        return [use for value in self.everything if value.kind == kind and value.name == name
                for use in self._uses.get(value, ())]

    def reads(self, kind, name):
        """All that is read by a name from outside, here and in nested code: "global", "cell", or
        "attribute", which is one of the first argument."""
        if kind == "cell":
            found = self.variables.get(name)
            return [] if found is None or not found.outer else [found]
        found = [x for x in self.everything if x.kind == kind and x.name == name]
        return found if kind == "global" else [
            x for x in found if origins(x.parts[0]) == self.parameters[:1]]

    def only_arithmetic(self, kind, name):
        """Whether all that is ever done with what is read by a name is to compute with it: it is an
        operand of + - * / ** @ or unary -. Whether the result is a number of no consequence, or
        decides something, is not asked: it is a Tensor where the name is one."""
        uses = self.uses(kind, name)
        return bool(uses) and all(
            value.name in ARITHMETIC if value.kind in ("operator", "inplace") else
            value.kind == "unary" and value.name in ("-", "+") for value, _ in uses)


@functools.lru_cache(maxsize=4096)
def read(code):
    """The `Code` of a code object, read once."""
    return Code(code)
