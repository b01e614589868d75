"""Programs as bytes: files that hold data and nothing else.

A file is

    8 bytes     MAGIC
    4           the version of the format, 2
    4           CRC-32 of everything after these 32 bytes
    8           how many bytes of header follow
    8           how many bytes the whole file has
    header      JSON, in ASCII
    padding     zeros, up to a multiple of 64
    arrays      each from a multiple of 64 on, with zeros between

Numbers are little-endian everywhere. The header tells what the arrays are and refers to them by
their number; it names operators, dtypes and NumPy functions, so that neither the order of the
operator table nor that of NumPy's dtypes matters. What is read is checked before it is used:
lengths against the file, every value against what may stand there, every graph by `verify`.
Nothing in a file is code, nothing is imported because a file says so, and no more memory is taken
than a few times what the file itself has.

What is kept of a Program (`program_state`) are its paths: each a dict of

    arguments   the structure of the tuple of arguments, or, where `keywords` is true, of
                (arguments, keyword arguments)
    kinds       of each leaf: "float", ("scalar", dtype), ("array", dtype, shape),
                ("static", value), or ("tree", structure, kinds) of a static tree
    graph       its inputs are the leaves that are not static, then what is captured
    captured    arrays and floats that the function reached, as they were when it was written
    returned    the structure of the result
    places      of each of its leaves: the number of an output, or ("static", value)

`dump` and `restore` turn a *state* into such bytes and back: None, booleans, numbers, strings,
tuples, lists, dicts, slices, Ellipsis, dtypes, arrays, NumPy scalars, `Graph`, `Guard`, `Slot`,
`Loop` and the structures of trees (fastgrad._core.trees), nested at will. A class in a structure is
named; it is looked up, when the file is read, among the modules that have been imported.
"""

import contextlib
import json
import math
import os
import re
import struct
import sys
import zlib
from collections import OrderedDict, defaultdict

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.program import MAX_DEPTH, exact_shape
from fastgrad._operators.index import whole, wrong
from fastgrad._operators.slots import Slot
from fastgrad.graphs.check import verify
from fastgrad.graphs.graph import (
    INPUT,
    LITERAL,
    MANY,
    NAMES,
    NODE,
    OPS,
    STOP,
    WEAK,
    Graph,
    Guard,
    Loop,
)
from fastgrad.graphs.replay import CALLS

from .compile import Program
from .paths import Static
from .signature import Described, is_described, static_key

__all__ = ["classes", "dump", "load", "load_state", "program_state", "reduced", "restore",
           "restore_graph", "restore_program", "save", "save_state"]

MAGIC = b"\x89FGP\r\n\x1a\n"        # as PNG's: shows a transfer that changed line ends
FORMAT = 2                  # goes up when a row of the operator table changes its meaning, too
ALIGNMENT = 64

_PREFIX = struct.Struct("<8sIIQQ")

# A node in a file: NODE without padding, `op` and `dtype` counting into the graph's own lists.
_FILE_NODE = np.dtype([(name, NODE[name].newbyteorder("<")) for name in NODE.names])

_ARRAYS = {np.dtype(name).newbyteorder("<").str: np.dtype(name) for name in (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32",
    "float64")}
_DTYPES = {dtype.name: dtype for dtype in _ARRAYS.values()}
_NUMBERS = {name: dtype.num for name, dtype in _DTYPES.items()}
_BRANCHES = {"tuple": tuple, "list": list, "dict": dict, "None": type(None),
             "OrderedDict": OrderedDict, "defaultdict": defaultdict}
_FACTORIES = {"None": None, "list": list, "dict": dict, "tuple": tuple, "set": set, "int": int,
              "float": float, "str": str}
_FLAGS = INPUT | WEAK | LITERAL | MANY | STOP


# ---- in and out -----------------------------------------------------------------------------

def dump(state):
    """A state as bytes.

    Raises
    ------
    TypeError
        If there is something in it that is no data, such as a function.
    """
    return b"".join(_parts(state))


def restore(data, what="the data"):
    """The state behind bytes of `dump`.

    `what` is how messages call them. Raises ValueError for anything else than what `dump` makes.
    """
    with _refused(what):
        return _Reader(data).state


@contextlib.contextmanager
def _refused(what):
    """What is raised of wrong data tells what is no program."""
    try:
        yield
    except (RecursionError, ValueError, TypeError, LookupError, OverflowError,
            AttributeError) as error:
        detail = ("its header is nested too deep" if type(error) is RecursionError else
                  str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")
        raise ValueError(f"{what}: no program that can be used: {detail}") from None


def save_state(path, state):
    """Write a state to a file, which is either whole or not there."""
    parts = _parts(state)
    path = os.path.realpath(path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")
    try:
        with open(temporary, "xb") as file:
            file.writelines(parts)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def load_state(path):
    """The state in a file of `save_state`."""
    with open(path, "rb") as file:
        start = file.read(_PREFIX.size)
        total = os.fstat(file.fileno()).st_size
        with _refused(os.fspath(path)):
            _prefix(start, total)           # before anything large is read
        return restore(start + file.read(), os.fspath(path))


def classes(state):
    """The classes that the structures in a state name, to be pickled beside its bytes: unpickling
    then imports them, which reading a file does not."""
    return tuple(dict.fromkeys(_classes(state)))


def restore_graph(data):
    """The graph behind the bytes that pickle and copy keep of it."""
    graph = restore(data, "a pickled graph")
    if type(graph) is not Graph:
        raise ValueError("a pickled graph is none")
    return graph


def _classes(value):
    if isinstance(value, trees.Branch):
        if value.type not in _BRANCHES.values():
            yield value.type
        value = value.keys, value.children
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _classes(part)


# ---- programs -------------------------------------------------------------------------------

def load(path):
    """The program in a file that `Program.save` has written.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    Program
        With the paths that were recorded when it was written, and no Python function.

    Raises
    ------
    ValueError
        If the file is damaged, of another version of the format, or no program: it is checked in
        full, and nothing in it is executed or imported.
    OSError
        If it cannot be read.

    Notes
    -----
    A call for which no path was recorded raises TypeError or ValueError; where a guard does not
    hold, it raises GuardError. Arrays that the function reached by a name have the contents that
    they had when the program was written. Where arguments or results are of classes of yours
    (dataclasses, named tuples), import their module before.

    Examples
    --------
    >>> import os, tempfile
    >>> f = fg.compile(lambda x: x * x + 1)
    >>> f(3.0)
    10.0
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "f.fgp")
    ...     f.save(path)
    ...     g = fg.load(path)
    >>> g(4.0), fg.grad(g)(4.0)
    (17.0, 8.0)
    """
    return _program(load_state(path), os.fspath(path))


def save(program, path):
    """Write the paths of a program to a file."""
    save_state(path, program_state(program, "save"))


def reduced(program, what="pickle"):
    """What pickles a program as data, for its __reduce__."""
    state = program_state(program, what)
    return restore_program, (dump(state), classes(state))


def restore_program(data, classes=()):
    """A program from pickled data. The classes are there to have been imported."""
    what = "a pickled program"
    return _program(restore(data, what), what)


def program_state(program, what):
    """The paths of a program as data; `what` is done with them, for messages. Without its function
    nobody can tell a state of what it reads from another, so that only paths of the present one are
    kept."""
    name = f"{what}: {program._name}"
    paths = []
    for key, entry in program._signatures.items():
        for path in entry.paths:
            captured = path.present()
            if captured is None:
                continue
            paths.append({
                "arguments": key[0], "kinds": [_kind(name, kind) for kind in key[1]],
                "keywords": bool(key[2]), "graph": path.graph,
                "captured": [x if k < len(path.lifted) else _plain(x)
                             for k, x in enumerate(captured)],
                "returned": path.returned, "written": [list(pair) for pair in path.written],
                "places": [place if type(place) is int else ("static", place.value)
                           for place in path.places]})
    if not paths and program.reasons:
        raise RuntimeError(f"{name} is not replayed, so that there is nothing to save: "
                           f"{program.reasons[-1]}")
    if not paths:
        raise RuntimeError(f"{name} has no recorded path that holds now; call it once with "
                           "arguments like those it is to serve")
    return {"name": str(program._name), "paths": paths}


def _plain(x):
    """What a path reads besides its arguments, as it is now."""
    return np.array(x.detach().numpy() if hasattr(x, "detach") else x)


def _kind(name, kind):
    """A part of a signature as data."""
    if kind == "float":
        return kind
    if type(kind) is str:
        return "scalar", np.dtype(kind)
    if type(kind) is tuple and type(kind[0]) is str:
        return "array", np.dtype(kind[0]), tuple(kind[1])
    if type(kind) is Described:
        return "static", kind.value
    if type(kind) is tuple:
        return "tree", kind[0], [_kind(name, part) for part in kind[1]]
    raise TypeError(f"{name} was recorded for an object among its arguments (the instance of a "
                    "method, a function), which is no data; let it reach the object by a name")


def _signature(kind):
    """A part of a signature from data."""
    if kind == "float":
        return kind
    wrong(type(kind) is not tuple or not kind, "a kind of argument is none")
    tag, *rest = kind
    if tag == "static" and len(rest) == 1:
        wrong(not is_described(rest[0]), "a static argument is no value")
        return static_key(rest[0])
    if tag == "scalar" and len(rest) == 1 and isinstance(rest[0], np.dtype):
        return rest[0].char
    if tag == "array" and len(rest) == 2 and isinstance(rest[0], np.dtype):
        return rest[0].char, _shape(list(rest[1]))
    wrong(tag != "tree" or len(rest) != 2 or type(rest[1]) is not list,
          "a kind of argument is none")
    _structure(rest[0], len(rest[1]), "a static argument")
    return rest[0], tuple([_signature(part) for part in rest[1]])


def _structure(structure, count, what):
    wrong(structure != trees.LEAF and type(structure) is not trees.Branch,
          f"the structure of {what} is none")
    wrong(trees._count(structure) != count, f"the structure of {what} has not {count} leaves")


def _program(state, what):
    """The program of a state, which anybody may have written."""
    with _refused(what):
        wrong(type(state) is not dict or set(state) != {"name", "paths"}
              or type(state["name"]) is not str or type(state["paths"]) is not list
              or not state["paths"], "it holds no paths")
        program = Program(None, name=state["name"])
        for path in state["paths"]:
            program.add_graph(**_path(path))
        return program


def _path(path):
    """What `add_graph` takes, of a path in a file."""
    wrong(type(path) is not dict or set(path) != {
        "arguments", "kinds", "keywords", "graph", "captured", "returned", "places", "written"},
        "a path is not described")
    graph, kinds, captured, places = [path[key] for key in (
        "graph", "kinds", "captured", "places")]
    wrong(type(graph) is not Graph, "a path has no graph")
    wrong(not all(type(part) is list for part in (kinds, captured, places))
          or type(path["keywords"]) is not bool, "a path is not described")
    _structure(path["arguments"], len(kinds), "the arguments")
    wrong(path["arguments"] == trees.LEAF or path["arguments"].type is not tuple
          or path["keywords"] and [getattr(child, "type", None) for child in
                                   path["arguments"].children] != [tuple, dict],
          "the arguments are no tuple")
    _structure(path["returned"], len(places), "the result")
    signature = [_signature(kind) for kind in kinds]
    taken = [kind for kind in kinds if kind == "float" or kind[0] in ("scalar", "array")]
    given = [(np.dtype(float), ()) if kind == "float" else (*kind, ())[1:3] for kind in taken]
    _inputs(graph, given, captured)
    wrong(any([not 0 <= place < len(graph.outputs) if type(place) is int else
               type(place) is not tuple or len(place) != 2 or place[0] != "static"
               for place in places]), "a place of the result is none")
    # Inputs that are written to, and with which outputs: arrays of one dtype and shape.
    wrong(type(path["written"]) is not list or not all(
        type(pair) is list and len(pair) == 2 and all(map(whole, pair))
        and 0 <= pair[0] < len(given) and 0 <= pair[1] < len(graph.outputs)
        and taken[pair[0]][0] == "array"
        and given[pair[0]] == (graph.dtype(graph.outputs[pair[1]]),
                               graph.shape(graph.outputs[pair[1]]))
        for pair in path["written"]), "what is written to is no argument, or another array")
    return {**path, "kinds": signature, "written": list(map(tuple, path["written"])),
            "places": [place if type(place) is int else Static(place[1]) for place in places]}


def _inputs(graph, wanted, captured):
    """Check that a graph takes values of those dtypes and shapes, then what is captured."""
    wrong(len(graph.inputs) != len(wanted) + len(captured), "a path has not as many inputs as its "
          "graph")
    wrong(any([type(x) not in (float, np.ndarray) for x in captured]),
          "what is captured is no array")
    wanted = wanted + [(np.asarray(x).dtype, np.shape(x)) for x in captured]
    for i, (dtype, shape) in zip(graph.inputs, wanted):
        wrong(graph.dtype(i) != dtype or graph.shape(i) != shape,
              f"input {i} is {graph.dtype(i)}{list(graph.shape(i))}, and given "
              f"{dtype}{list(shape)}")


# ---- writing --------------------------------------------------------------------------------

def _parts(state):
    """The pieces of the file, in order."""
    writer = _Writer()
    value = writer.value(state, "the program")
    header = json.dumps(
        {"arrays": writer.table, "graphs": writer.graphs, "state": value},
        separators=(",", ":"), allow_nan=False).encode("ascii")
    body = [header, bytes(-(_PREFIX.size + len(header)) % ALIGNMENT)]
    at = 0
    for array in writer.arrays:
        body += [bytes(-at % ALIGNMENT), array.tobytes()]
        at += -at % ALIGNMENT + array.nbytes
    check = 0
    for part in body:
        check = zlib.crc32(part, check)
    total = _PREFIX.size + sum(map(len, body))
    return [_PREFIX.pack(MAGIC, FORMAT, check, len(header), total), *body]


class _Writer:
    """Turns values into what JSON can hold, and gathers arrays and graphs beside it."""

    def __init__(self):
        self.arrays, self.table, self.graphs, self.end = [], [], [], 0
        self.number = {}                # of what has been written; keeps it, so that ids stay

    def array(self, given, dtype):
        if id(given) in self.number:
            return self.number[id(given)][0]
        self.number[id(given)] = len(self.arrays), given
        array = np.asarray(given, dtype)
        start = self.end + -self.end % ALIGNMENT
        self.arrays.append(array)
        self.table.append(["node" if dtype is _FILE_NODE else dtype.str, list(array.shape), start])
        self.end = start + array.nbytes
        return len(self.arrays) - 1

    def value(self, x, where):
        """A value, tagged where JSON does not tell what it is. A JSON list is a tuple."""
        kind = type(x)
        if x is None or kind is bool or kind is int or kind is str:
            return x
        if kind is float:
            return x if math.isfinite(x) else {"float": str(x)}
        if kind is tuple:
            return [self.value(part, where) for part in x]
        if kind is list:
            return {"list": [self.value(part, where) for part in x]}
        if kind is dict:
            return {"dict": [[self.value(key, where), self.value(part, where)]
                             for key, part in x.items()]}
        if kind is slice:
            return {"slice": self.value((x.start, x.stop, x.step), where)}
        if x is Ellipsis:
            return {"ellipsis": None}
        if kind is Slot:
            return {"slot": x.operand}
        if kind is Guard:
            return {"guard": [x.node, x.kind, self.value(x.outcome, where), x.line]}
        if kind is Graph:
            return {"graph": self.graph(x, where)}
        if kind is Loop:
            condition = None if x.condition is None else self.graph(x.condition, where)
            return {"loop": [x.kind, self.graph(x.body, where), x.carries, x.sequences, x.constants,
                             x.length, x.reverse, condition]}
        if kind is trees.Branch:
            return {"branch": self.branch(x, where)}
        if isinstance(x, np.dtype) or isinstance(x, type) and issubclass(x, np.generic):
            name = np.dtype(x).name
            if name in _DTYPES:
                return {"dtype": name}
        if kind is np.ndarray or isinstance(x, np.generic):
            dtype = x.dtype.newbyteorder("<") if x.dtype.byteorder != "|" else x.dtype
            if dtype.str not in _ARRAYS:
                raise TypeError(f"{where}: an array of dtype {x.dtype} cannot be written to a file")
            return {"array" if kind is np.ndarray else "scalar": self.array(x, dtype)}
        raise TypeError(f"{where} holds {x if isinstance(x, type) else f'a {kind.__name__}'}, "
                        "which is no data and cannot be written to a file")

    def branch(self, x, where):
        name = next((name for name, kind in _BRANCHES.items() if kind is x.type),
                    [x.type.__module__, x.type.__qualname__])
        if type(name) is list and "<locals>" in x.type.__qualname__:
            raise TypeError(f"{where} takes or returns a {x.type.__name__}, a class made inside a "
                            "function, which cannot be found again; define it in a module")
        rest = x.rest
        if type(rest) is trees.Aux:
            rest = {"aux": self.value(rest.value, where)}
        elif rest != trees.OWN:
            found = [key for key, factory in _FACTORIES.items() if factory is rest]
            if not found:
                raise TypeError(f"{where} holds a defaultdict of {rest!r}, which cannot be written "
                                f"to a file; {', '.join(_FACTORIES)} can")
            rest = found[0]
        return [name, [self.value(key, where) for key in x.keys],
                [self.value(child, where) for child in x.children], rest]

    def graph(self, graph, where):
        """The number of a graph."""
        if id(graph) in self.number:
            return self.number[id(graph)][0]
        nodes = graph.nodes.astype(_FILE_NODE)
        ops, nodes["op"] = np.unique(graph.nodes["op"], return_inverse=True)
        dtypes, nodes["dtype"] = np.unique(graph.nodes["dtype"], return_inverse=True)
        attrs = []
        for k, attribute in enumerate(graph.attrs):
            try:
                attrs.append(self.value(attribute, where))
            except TypeError:
                raise TypeError(_unwritable(graph, k, where)) from None
        entry = {
            "operators": [NAMES[op] for op in ops],
            "dtypes": [core.dtype_of_number(k).name for k in dtypes.tolist()],
            "nodes": self.array(nodes, _FILE_NODE),
            "operands": self.array(graph.operands, np.dtype("<i4")),
            "shapes": [list(shape) for shape in graph.shapes], "attrs": attrs,
            "inputs": list(map(int, graph.inputs)), "outputs": list(map(int, graph.outputs)),
            "kinds": graph.kinds, "guards": [self.value(guard, where) for guard in graph.guards],
            "lines": graph.lines}
        self.graphs.append(entry)
        self.number[id(graph)] = len(self.graphs) - 1, graph
        return len(self.graphs) - 1


def _unwritable(graph, k, where):
    """The message for attribute k, which is no data."""
    users = np.flatnonzero(graph.nodes["attr"] == k)
    attribute = graph.attrs[k]
    line = graph.lines[graph.nodes["line"][users[0]]] if len(users) else ""
    at = f" at {line}" if line else ""
    name = graph.name(users[0]) if len(users) else ""
    if name == "custom":
        return (f"{where} calls {attribute!r}{at}, whose derivative rule is Python code; a program "
                "that is written to a file must be made of operations alone")
    called = attribute[0] if name == "call" else name
    return f"{where}: {called}{at} has an argument that is no data and cannot be written to a file"


# ---- reading --------------------------------------------------------------------------------

def _prefix(data, total):
    """The length of the header and the check sum, if there are `total` bytes in all."""
    wrong(len(data) < _PREFIX.size, "it is cut off")
    magic, version, check, header, size = _PREFIX.unpack_from(data)
    wrong(magic != MAGIC, "it does not begin as one")
    wrong(version != FORMAT, f"its format is {version}, this version of fastgrad reads {FORMAT}")
    wrong(size != total, f"it has {total} bytes, and should have {size}")
    wrong(header > total - _PREFIX.size, "its header does not end")
    return header, check


class _Reader:
    """Reads one state, trusting nothing."""

    def __init__(self, data):
        header, check = _prefix(data, len(data))
        view = memoryview(data)
        wrong(zlib.crc32(view[_PREFIX.size:]) != check, "its check sum is wrong: it is damaged")
        text = str(view[_PREFIX.size:_PREFIX.size + header], "ascii")
        wrong(_nesting(text) > 4 * MAX_DEPTH, "its header is nested too deep")
        header = json.loads(text, parse_constant=_no_constant)
        wrong(type(header) is not dict or set(header) != {"arrays", "graphs", "state"},
              "its header is not one of a program")
        start = _PREFIX.size + len(text)
        self.views = self.arrays(header["arrays"], view[start + -start % ALIGNMENT:])
        self.made, self.attributes, self.graphs, self.verified = {}, {}, [], {}
        for k, entry in enumerate(_list(header["graphs"])):
            try:
                self.graphs.append(self.graph(entry))
            except ValueError as error:
                raise ValueError(f"graph {k}: {error}") from None
        self.state = self.value(header["state"], 0)

    def arrays(self, table, section):
        """The arrays, still as they lie in the data."""
        found, end = [], 0
        for k, entry in enumerate(_list(table)):
            wrong(type(entry) is not list or len(entry) != 3, f"array {k} is not described")
            name, shape, start = entry
            wrong(name != "node" and (type(name) is not str or name not in _ARRAYS),
                  f"array {k} has the dtype {name!r}")
            dtype = _FILE_NODE if name == "node" else np.dtype(name)
            shape = _shape(shape)
            count = math.prod(shape)
            wrong(not whole(start) or start != end + -end % ALIGNMENT,
                  f"array {k} does not begin where it must")
            end = start + count * dtype.itemsize
            wrong(end > len(section), f"array {k} reaches beyond the end")
            found.append(np.frombuffer(section, dtype, count, start).reshape(shape) if count
                         else np.empty(shape, dtype))
        wrong(end != len(section), "there is more after the last array")
        return found

    def array(self, k, wanted=None):
        """Array k, the same for all who refer to it: a file that names one a million times takes
        no more memory. A table of nodes is that of one graph."""
        wrong(not whole(k) or not 0 <= k < len(self.views), f"there is no array {k!r}")
        view = self.views[k]
        is_nodes = view.dtype == _FILE_NODE
        wrong(is_nodes != (wanted is _FILE_NODE) or is_nodes and k in self.made,
              f"array {k} holds something else")
        if k not in self.made:
            if view.dtype == np.bool_:
                # Any other byte than 0 and 1 is undefined behaviour in compiled code.
                wrong(np.any(view.view(np.uint8) > 1), f"array {k} holds more than true and false")
            self.made[k] = view if is_nodes else np.array(
                view, view.dtype.newbyteorder("="), order="C")
            self.made[k].flags.writeable = False
        return self.made[k]

    def attribute(self, x):
        """An attribute of a node; what is written alike, type by type, is one object, and `verify`
        looks at it once."""
        text = repr(x)
        if text not in self.attributes:
            self.attributes[text] = self.value(x, 0)
        return self.attributes[text]

    def value(self, x, depth):
        wrong(depth > MAX_DEPTH, "its values are nested too deep")
        kind = type(x)
        if x is None or kind is bool or kind is int or kind is str or kind is float:
            return x
        depth += 1
        if kind is list:
            return tuple([self.value(part, depth) for part in x])
        wrong(len(x) != 1, "a value has not one tag")
        (tag, x), = x.items()
        if tag == "float":
            wrong(x not in ("inf", "-inf", "nan"), f"{x!r} is no float")
            return float(x)
        if tag == "list":
            return [self.value(part, depth) for part in _list(x)]
        if tag == "dict":
            made = {}
            for pair in _list(x):
                wrong(type(pair) is not list or len(pair) != 2, "an entry of a dict is no pair")
                made[self.value(pair[0], depth)] = self.value(pair[1], depth)
            wrong(len(made) != len(x), "a key of a dict comes twice")
            return made
        if tag == "slice":
            wrong(len(_list(x)) != 3, "a slice has not three parts")
            return slice(*[self.value(part, depth) for part in x])
        if tag == "ellipsis":
            return Ellipsis
        if tag == "slot":
            wrong(not whole(x), "a slot is no number")
            return Slot(x)
        if tag == "guard":
            wrong(len(_list(x)) != 4, "a guard has not four parts")
            return Guard(x[0], x[1], self.value(x[2], depth), x[3])
        if tag == "graph":
            return self.graph_at(x)
        if tag == "loop":
            return self.loop(x)
        if tag == "branch":
            return self.branch(x, depth)
        if tag == "dtype":
            wrong(type(x) is not str or x not in _DTYPES, f"there is no dtype {x!r}")
            return _DTYPES[x]
        if tag == "array":
            return self.array(x)
        wrong(tag != "scalar", f"there is no kind of value {tag[:20]!r}")
        array = self.array(x)
        wrong(array.shape != (), "a scalar has entries")
        return array[()]

    def graph_at(self, k):
        wrong(not whole(k) or not 0 <= k < len(self.graphs), f"there is no graph {k!r} yet")
        return self.graphs[k]

    def loop(self, x):
        wrong(len(_list(x)) != 8, "a loop has not eight parts")
        kind, body, *counts, length, reverse, condition = x
        wrong(type(kind) is not str or type(reverse) is not bool or not all(map(whole, counts))
              or not (length is None or whole(length)), "a part of a loop is none")
        return Loop(kind, self.graph_at(body), *counts, length, reverse,
                    None if condition is None else self.graph_at(condition))

    def branch(self, x, depth):
        wrong(len(_list(x)) != 4, "a branch has not four parts")
        name, keys, children, rest = x
        keys = tuple([self.value(key, depth) for key in _list(keys)])
        children = tuple([self.value(child, depth) for child in _list(children)])
        wrong(len(keys) != len(children) or len(set(keys)) != len(keys),
              "a branch has not one key for each child")
        for child in children:
            wrong(child != trees.LEAF and type(child) is not trees.Branch,
                  "a branch holds something else than branches and leaves")
        if type(rest) is dict:
            wrong(set(rest) != {"aux"} or type(name) is str, "a branch is not described")
            rest = trees.Aux(self.value(rest["aux"], depth))
        elif rest != trees.OWN:
            wrong(type(rest) is not str or rest not in _FACTORIES, f"there is no factory {rest!r}")
            rest = _FACTORIES[rest]
        if type(name) is str:
            wrong(name not in _BRANCHES, f"there is no kind of branch {name!r}")
            kind = _BRANCHES[name]
            wrong(rest == trees.OWN, f"a {name} is not its own __dict__")
        else:
            kind = _class(name, keys, type(rest) is trees.Aux)
        wrong((issubclass(kind, (tuple, list)) and not _named(kind) or type(rest) is trees.Aux)
              and keys != tuple(range(len(keys))), "the entries of a sequence are not counted")
        wrong(kind is type(None) and keys, "None has no entries")
        wrong(rest == trees.OWN and not issubclass(kind, dict),
              f"a {kind.__name__} is not its own __dict__")
        return trees.Branch(kind, keys, children, rest)

    # ---- graphs -----------------------------------------------------------------------------

    def graph(self, entry):
        wanted = {"operators", "dtypes", "nodes", "operands", "shapes", "attrs", "inputs",
                  "outputs", "kinds", "guards", "lines"}
        wrong(type(entry) is not dict or set(entry) != wanted, "it is not described")
        nodes = self.array(entry["nodes"], _FILE_NODE)
        wrong(nodes.ndim != 1, "its nodes are no list")
        wrong(np.any(nodes["flags"] & ~np.uint32(_FLAGS)), "a node has unknown flags")
        table = nodes.astype(NODE)
        for column, what, names, known in (("op", "operator", entry["operators"], OPS),
                                           ("dtype", "dtype", entry["dtypes"], _NUMBERS)):
            for name in _list(names):
                wrong(type(name) is not str or name not in known, f"there is no {what} {name!r}")
            wrong(np.any(nodes[column] >= len(names)), f"a node has an {column} that is not listed")
            table[column] = np.array([known[name] for name in names] or [0])[nodes[column]]
        operands = self.array(entry["operands"])
        wrong(operands.ndim != 1 or operands.dtype != np.int32, "its operands are no list")
        graph = Graph(
            table, operands, [_shape(shape) for shape in _list(entry["shapes"])],
            [self.attribute(attribute) for attribute in _list(entry["attrs"])],
            _list(entry["inputs"]), _list(entry["outputs"]), _list(entry["kinds"]),
            [self.value(guard, 0) for guard in _list(entry["guards"])], _list(entry["lines"]))
        verify(graph, CALLS, self.verified)
        return graph


def _nesting(text):
    """How deep lists and objects stand in each other in JSON. How deep Python's own parser goes
    depends on its version, and on the stack that is left."""
    deepest = _deepest(text)
    if deepest > 4 * MAX_DEPTH:         # brackets in strings were counted, too
        deepest = _deepest(re.sub(r'"(?:[^"\\]|\\.)*"', "", text))
    return deepest


def _deepest(text):
    marks = np.frombuffer(text.encode("ascii"), np.uint8)
    steps = np.zeros(len(marks), np.int8)
    for mark, step in zip(b"[{]}", (1, 1, -1, -1)):
        steps[marks == mark] = step
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0))


def _no_constant(name):
    raise ValueError(f"{name} is no number of JSON's")


def _list(x):
    wrong(type(x) is not list, "a list is none")
    return x


def _shape(x):
    wrong(type(x) is not list or not all(map(whole, x)), "a shape is none")
    return exact_shape(tuple(x))


def _named(kind):
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _class(name, keys, registered=False):
    """A class that a structure names, from a module that has been imported."""
    wrong(type(name) is not list or len(name) != 2 or not all(type(part) is str for part in name),
          "a class is not named")
    module, qualname = name
    found = sys.modules.get(module)
    if found is None:
        raise ValueError(f"it takes or returns a {module}.{qualname}; import {module} before")
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    if (isinstance(found, type) and found in trees.REGISTERED) is not registered:
        raise ValueError(f"it takes or returns a {module}.{qualname}, which is "
                         + ("not registered here (fg.trees.register)" if registered else
                            "registered now, and was not"))
    if registered:
        return found
    fields = getattr(found, "__dataclass_fields__", None) if isinstance(found, type) else None
    if not isinstance(found, type) or not (
            issubclass(found, (tuple, list, dict)) or isinstance(fields, dict)):
        raise ValueError(f"it takes or returns a {module}.{qualname}, which is no class of trees")
    if _named(found) and tuple(found._fields) != keys or (
            not issubclass(found, (tuple, list, dict)) and not set(keys) <= set(fields)):
        raise ValueError(f"it takes or returns a {module}.{qualname}, whose fields are others now")
    return found


core.HANDED_DOWN.update({
    "files": sys.modules[__name__], "pickled graph": lambda graph: (restore_graph, (dump(graph),))})
