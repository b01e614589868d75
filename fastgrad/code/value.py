"""A value in code: what is read, computed, changed or called there."""


__all__ = ["Value", "origins", "written"]


class Value:
    """Something that code reads, computes or does.

    Attributes
    ----------
    kind : str
        ===================  ===================================================================
        constant             `name` is the object
        global               a global or builtin called `name`
        variable             a local name or a cell; parts: all that is bound to it. `outer`: it is
                             a cell from outside; `parameter`: an argument
        attribute            parts[0].name
        item                 parts[0][parts[1]]; a slice is something built
        operator, inplace    `name` is "+", "+=", ...; parts are both operands
        unary, compare       `name` is the operator; "is", "in" and "not" are compare, too
        call                 parts[0](*parts[1:]); `name`: the last ones' names. With * or **,
                             `name` is None and parts the tuple and perhaps the dictionary
        built                a container of parts; `name` is tuple, list, set, dict, slice or str
        element              what comes out of parts[0] by iteration or unpacking
        function             a function (or class body) of code `name`, a Code; parts: defaults
        import               of the module `name`; parts: the level and the names that are asked for
        format, test, yield, raise, return, enter, match
                             that is done with the parts (enter: ``with``)
        store, delete        of the variable parts[-1], or the global `name`; parts[0] is bound
        set attribute, set item, delete attribute, delete item
                             parts: the object, the key of an item, what is put there; `name`
        join                 one of parts, as the way there was
        other                made of parts by the interpreter (an exception, a closure)
        ===================  ===================================================================
    line : int or None
    code : Code
    place : int or None
        Of its instruction, in `Code.ways`.
    """

    __slots__ = ("kind", "name", "parts", "line", "code", "place", "outer", "parameter")

    def __init__(self, kind, name=None, parts=(), line=None, code=None, place=None):
        self.kind, self.name, self.parts, self.line, self.code = kind, name, parts, line, code
        self.place = place
        self.outer = self.parameter = False

    def __repr__(self):
        if self.kind == "variable":
            return f"variable {self.name}"
        parts = ", ".join([x.name if x.kind == "variable" else f"{x.kind}" for x in self.parts])
        return f"<{self.kind} {self.name!r} ({parts}), line {self.line}>"


def origins(value):
    """All that a value may be: through names and ways, without these themselves. A variable is
    among them where its value comes from outside: an argument, a cell."""
    found, seen, rest = [], set(), [value]
    while rest:
        value = rest.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.kind == "join":
            rest += value.parts
        elif value.kind == "variable":
            rest += value.parts
            if value.outer or value.parameter or not value.parts:
                found.append(value)
        else:
            found.append(value)
    return found


def written(value, on_the_way=()):
    """How code writes a value; in a loop, `node = node.next` may be made of itself."""
    if value.kind == "attribute":
        return f"{written(value.parts[0], on_the_way)}.{value.name}"
    if value.kind in ("join", "store") or value.kind == "variable" and value.parts:
        first = origins(value)[0]
        if first is not value and value not in on_the_way:  # (what is bound anew)
            return written(first, (*on_the_way, value))
    return str(value.name)
