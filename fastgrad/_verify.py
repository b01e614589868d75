"""Whether a graph is what `Graph` says it is.

What runs graphs trusts them: it reads memory at the numbers that stand in them. So every number of
a graph from elsewhere is held here against what it must be, each node's shape and dtype against
those of its operands, and the first fault is named in a ValueError. Nothing is computed and
nothing allocated that is larger than the graph.
"""

import math

import numpy as np

from fastgrad._core import core

from . import _graph
from ._graph import (
    INPUT,
    LITERAL,
    MANY,
    NAMES,
    NODE,
    STOP,
    WEAK,
    Graph,
    Guard,
    Loop,
    Slot,
    short,
)
from ._operators.index import MAX_RANK, slot, wrong
from ._operators.rule import OPERATORS
from ._operators.shaped import SHAPED, How, axes_in
from ._operators.signature import parsed
from ._replay import CALLS, LANE

__all__ = ["MAX_NESTING", "OWN_CALLS", "verify"]

MAX_NESTING = 30            # loops in loops
MAX_UNFOLDED = 20_000, 10   # operations when each loop has its own body: so many, and so many times
                            # those that are there (planning does unfold them)
MAX_BYTES = 2**62           # of one array: sums of two such sizes do not overflow

_ROWS = {row.name: row for row in core.operators()}
_ELEMENTWISE = ("unary", "binary", "ternary", "compare")
_BOOL = np.dtype(bool)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_KNOWN = "?bhilqBHILQfd"


def _arity(name):
    row = _ROWS.get(name)
    return row.arity if row is not None and row.kind in _ELEMENTWISE else -1


# By operator number: how many operands an element-wise row takes; -1: another kind of row.
_ARITY = np.array([-1 if name is None else _arity(name) for name in NAMES])
_PLAIN = np.array([n >= 0 and not _ROWS[name].mask and _ROWS[name].kind != "compare"
                   for n, name in zip(_ARITY, NAMES)])


def verify(graph, calls=None, seen=None):
    """Raise ValueError, saying what is wrong and where, unless the graph may be run.

    Parameters
    ----------
    graph : Graph
    calls : container of str, optional
        Names that `call` nodes may have; any by default.
    seen : dict, optional
        Graphs that were looked at before, which are not again; new ones are added.
    """
    _verified(graph, calls, {} if seen is None else seen, 0)


def _verified(graph, calls, seen, outside):
    """The number of loops in loops, and of operations when bodies are not shared, in a graph that
    has been checked. A file may hold each body twice in the next: each graph is looked at once."""
    wrong(type(graph) is not Graph, "a body is no graph")
    wrong(outside > MAX_NESTING, f"loops are nested more than {MAX_NESTING} deep")
    if id(graph) not in seen:
        check = _Check(graph, calls, seen, outside)
        seen[id(graph)] = check.nesting, check.unfolded, graph
    nesting, unfolded = seen[id(graph)][:2]
    wrong(outside + nesting > MAX_NESTING, f"loops are nested more than {MAX_NESTING} deep")
    start, times = MAX_UNFOLDED
    wrong(unfolded > start + times * sum(len(other) for *_, other in seen.values()),
          f"its loops share bodies so often that they unfold to {unfolded} operations")
    return nesting, unfolded


class _Check:
    """One graph, being looked at."""

    def __init__(self, graph, calls, seen, outside):
        self.graph, self.calls, self.seen, self.outside = graph, calls, seen, outside
        self.nesting, self.unfolded = 0, len(graph)
        nodes = graph.nodes
        wrong(nodes.ndim != 1 or nodes.dtype != NODE or len(nodes) >= 2**31,
              "the nodes are no table of nodes")
        self.table()
        self.tables_of_shapes()
        self.columns()
        plain = self.plain_rows()
        for i in np.flatnonzero(~plain).tolist():
            try:
                self.node(i)
            except (ValueError, TypeError, IndexError, OverflowError) as error:
                raise ValueError(f"node {i} ({NAMES[nodes['op'][i]]}): {error}") from None
        self.ends()

    # ---- numbers ----------------------------------------------------------------------------

    def table(self):
        graph, nodes = self.graph, self.graph.nodes
        n = len(nodes)
        ops = nodes["op"]
        known = np.array([name is not None for name in NAMES])
        bad = (ops >= len(NAMES)) | ~known[np.minimum(ops, len(NAMES) - 1)]
        wrong(bad.any(), f"node {_first(bad)}: there is no such operator")
        dtypes = [core.dtype_of_number(k) if k < 24 else None for k in range(256)]
        known = np.array([d is not None and d.char in _KNOWN for d in dtypes])
        wrong(not known[nodes["dtype"]].all(),
              f"node {_first(~known[nodes['dtype']])}: there is no such dtype")
        self.dtypes = dtypes
        bad = nodes["flags"] & ~np.uint32(INPUT | WEAK | LITERAL | MANY | STOP) != 0
        wrong(bad.any(), f"node {_first(bad)}: it has unknown flags")
        for column, count, what in (("shape", len(graph.shapes), "shape"),
                                    ("attr", len(graph.attrs), "attribute"),
                                    ("line", len(graph.lines), "line")):
            bad = nodes[column] >= count
            wrong(bad.any(), f"node {_first(bad)}: there is no such {what}")
        many = (nodes["flags"] & MANY) != 0
        at = np.arange(n, dtype=np.int64)
        for column in "abc":
            values = nodes[column].astype(np.int64)
            bad = ~many & ((values < -1) | (values >= at))
            wrong(bad.any(), f"node {_first(bad)}: an operand does not stand before it")
        start, count = nodes["a"].astype(np.int64), nodes["b"].astype(np.int64)
        bad = many & ((start < 0) | (count < 0) | (start + count > len(graph.operands)))
        wrong(bad.any(), f"node {_first(bad)}: its operands are not in the list")
        wrong(graph.operands.ndim != 1 or graph.operands.dtype != np.int32,
              "the operands are no list of numbers")
        for i in np.flatnonzero(many).tolist():
            own = graph.operands[start[i]:start[i] + count[i]]
            wrong(len(own) and (own.min() < 0 or own.max() >= i),
                  f"node {i}: an operand does not stand before it")
        a, b, c = nodes["a"] >= 0, nodes["b"] >= 0, nodes["c"] >= 0
        bad = ~many & ((b & ~a) | (c & ~b))
        wrong(bad.any(), f"node {_first(bad)}: an operand is missing")

        # A custom node has results and no value of its own.
        custom = nodes["op"] == _graph.OPS["custom"]
        if custom.any():
            result = nodes["op"] == _graph.OPS["result"]
            for column in "abc":
                bad = ~many & ~result & (nodes[column] >= 0) & custom[nodes[column]]
                wrong(bad.any(), f"node {_first(bad)}: an operand has no value")
            for i in np.flatnonzero(many).tolist():
                wrong(custom[graph.operands[start[i]:start[i] + count[i]]].any(),
                      f"node {i}: an operand has no value")
        self.custom = custom

    def tables_of_shapes(self):
        graph = self.graph
        wrong(not graph.shapes or graph.shapes[0] != (), "the first shape is not ()")
        wrong(not graph.attrs or graph.attrs[0] is not None, "the first attribute is not None")
        wrong(not graph.lines or any(type(line) is not str for line in graph.lines),
              "the lines are no strings")
        for shape in graph.shapes:
            wrong(type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape),
                  f"{short(shape)} is no shape")
            wrong(len(shape) > MAX_RANK, f"a shape has {len(shape)} axes")
            wrong(8 * math.prod(max(n, 1) for n in shape) > MAX_BYTES,
                  f"an array of shape {short(shape)} is larger than any memory")

    def columns(self):
        nodes = self.graph.nodes
        ranks = np.array([len(shape) for shape in self.graph.shapes])
        bad = ranks[nodes["shape"]] != nodes["rank"]
        wrong(bad.any(), f"node {_first(bad)}: its rank is not that of its shape")
        weak = (nodes["flags"] & WEAK) != 0
        bad = weak & (nodes["rank"] != 0)
        wrong(bad.any(), f"node {_first(bad)}: an array cannot be weak")
        bad = ((nodes["flags"] & INPUT) != 0) & (nodes["op"] != _graph.OPS["leaf"])
        wrong(bad.any(), f"node {_first(bad)}: an operation is no input")

    def plain_rows(self):
        """Which nodes are element-wise with operands of their own shape, or scalars, and their own
        dtype: most of a long graph, and seen to be right without looking at each."""
        nodes = self.graph.nodes
        arity = _ARITY[nodes["op"]]
        good = _PLAIN[nodes["op"]] & ((nodes["flags"] & MANY) == 0) & (nodes["attr"] == 0)
        good &= np.isin(nodes["dtype"], [d.num for d in _FLOATS])
        spans = np.zeros(len(nodes), bool)          # an operand has the node's own shape
        for k, column in enumerate("abc"):
            x = np.where(nodes["flags"] & MANY, -1, nodes[column])      # their `a` counts operands
            has = x >= 0
            good &= has == (k < arity)
            own = nodes[x * has]
            good &= ~has | (own["dtype"] == nodes["dtype"])
            good &= ~has | (own["shape"] == nodes["shape"]) | (own["rank"] == 0)
            spans |= has & (own["shape"] == nodes["shape"])
        return good & (spans | (nodes["rank"] == 0))

    def ends(self):
        graph = self.graph
        n = len(graph)
        inputs = np.flatnonzero(graph.nodes["flags"] & INPUT).tolist()
        wrong(sorted(graph.inputs) != inputs, "the inputs are not the nodes that say so")
        for place, i in enumerate(graph.inputs):
            wrong(graph.nodes["constant"][i] != place, f"node {i}: it is not input {place}")
        wrong(len(graph.kinds) != len(graph.outputs), "there are not as many kinds as outputs")
        for i, kind in zip(graph.outputs, graph.kinds):
            wrong(not _whole(i) or not 0 <= i < n, f"there is no node {short(i)} to return")
            rank, dtype = int(graph.nodes["rank"][i]), self.dtypes[graph.nodes["dtype"][i]]
            wrong(self.custom[i], f"output node {i} has no value")
            wrong(kind not in ("float", "scalar", "array"), f"there is no kind {short(kind)}")
            wrong(kind != "array" and rank, f"output node {i} is an array, not a {kind}")
            wrong(kind == "float" and dtype != np.float64, f"output node {i} is no float")
        for guard in graph.guards:
            wrong(type(guard) is not Guard, "a guard is none")
            wrong(not _whole(guard.node) or not 0 <= guard.node < n,
                  f"a guard is on node {short(guard.node)}, which is not there")
            wrong(self.custom[guard.node], f"the guard on node {guard.node} is on no value")
            kinds = {"bool": bool, "int": int, "count": int, "all": bool}
            wrong(guard.kind not in kinds, f"there is no guard of the kind {short(guard.kind)}")
            wrong(type(guard.outcome) is not kinds[guard.kind] or type(guard.line) is not str,
                  f"the guard on node {guard.node} has the outcome {short(guard.outcome)}")
            wrong(guard.kind == "all" and not guard.outcome,
                  f"the guard on node {guard.node} has the outcome {short(guard.outcome)}")
            size = math.prod(graph.shape(guard.node))
            wrong(guard.kind not in ("count", "all") and size != 1,
                  f"the guard on node {guard.node} is on an array")

    # ---- one node ---------------------------------------------------------------------------

    def node(self, i):
        graph = self.graph
        node = graph.nodes[i]
        name = NAMES[node["op"]]
        x = graph.operands_of(i)
        self.i, self.name, self.x = i, name, x
        self.shape, self.dtype = graph.shapes[node["shape"]], self.dtypes[node["dtype"]]
        self.attribute = graph.attrs[node["attr"]]
        self.shapes = [graph.shape(k) for k in x]
        self.operand_dtypes = [self.dtypes[graph.nodes["dtype"][k]] for k in x]
        row = _ROWS[name]
        if row.kind in _ELEMENTWISE:
            return self.elementwise(row)
        if name in SHAPED:
            return self.shaped(SHAPED[name])
        method = getattr(self, "on_" + name, None)
        wrong(method is None, "it does not belong in a graph")
        return method()

    def count(self, *counts):
        wrong(len(self.x) not in counts,
              f"it has {len(self.x)} operands, not {' or '.join(map(str, counts))}")

    def is_shape(self, shape):
        wrong(self.shape != tuple(shape),
              f"its shape is {short(self.shape)}, not {short(tuple(shape))}")

    def same_dtypes(self, which=slice(None)):
        for dtype in self.operand_dtypes[which]:
            wrong(dtype != self.dtype, f"an operand is {dtype}, it is {self.dtype}")

    def no_attribute(self):
        wrong(self.attribute is not None, "it takes no attribute")

    def elementwise(self, row):
        self.count(row.arity)
        self.no_attribute()
        self.is_shape(np.broadcast_shapes(*self.shapes))
        if row.kind == "compare":
            wrong(self.dtype != _BOOL, f"it is {self.dtype}, not bool")
            wrong(self.operand_dtypes[0] != self.operand_dtypes[1],
                  f"it compares {self.operand_dtypes[0]} with {self.operand_dtypes[1]}")
            return
        wrong(self.dtype not in _FLOATS, f"it is {self.dtype}")
        if row.mask:
            wrong(self.operand_dtypes[2] != _BOOL, "its third operand is not bool")
            self.same_dtypes(slice(2))
        else:
            self.same_dtypes()

    def on_leaf(self):
        self.count(0)
        node = self.graph.nodes[self.i]
        if node["flags"] & INPUT:
            place = float(node["constant"])
            wrong(not place.is_integer() or not 0 <= place < len(self.graph.inputs)
                  or self.graph.inputs[int(place)] != self.i, "it is not among the inputs")
            self.no_attribute()
        elif self.attribute is None:
            wrong(self.shape != () or self.dtype not in _FLOATS, "it has no value")
        else:
            value = self.attribute
            wrong(type(value) is not np.ndarray or value.dtype != self.dtype, "its value is no "
                  f"array of {self.dtype}")
            self.is_shape(value.shape)

    def shaped(self, row):
        own = len(self.x) if row.operands is None else row.operands
        # Those that stand in the attribute may follow.
        wrong(len(self.x) < max(own, 1) or len(self.x) > own and not row.listed,
              f"it has {len(self.x)} operands, not {max(own, 1)}")
        if not row.converts:
            self.same_dtypes(slice(own))
        wrong((row.reduces or row.bilinear) and self.dtype not in _FLOATS, f"it is {self.dtype}")
        found = row.fits(How(self.shape, self.dtype, self.attribute),
                         list(zip(self.shapes, self.operand_dtypes)))
        wrong(len(found) != len(self.shape) or any(n is not None and n != m for n, m in zip(
            found, self.shape)), f"its shape is {short(self.shape)}, not {short(found)}")

    def on_call(self):
        attribute = self.attribute
        wrong(type(attribute) is not tuple or len(attribute) != 4, "its attribute is no call")
        name, args, kwargs, which = attribute
        wrong(type(name) is not str or type(args) is not tuple or type(kwargs) is not tuple
              or not (which is None or _whole(which) and which >= 0), "its attribute is no call")
        wrong(self.calls is not None and name not in self.calls,
              f"there is no function {short(name)}")
        for pair in kwargs:
            wrong(type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not str,
                  "its keyword arguments are no pairs")
        wrong(len({key for key, value in kwargs}) != len(kwargs), "a keyword argument comes twice")
        self.slots(args, 0)
        self.slots(tuple(value for key, value in kwargs), 0)
        # What NumPy's functions do not take NumPy refuses when it runs; ours are not made for it.
        if name in OPERATORS:
            self.call_operator(OPERATORS[name], args, which)
        elif name.startswith("fastgrad.") and name in CALLS:
            wrong(kwargs or which is not None or not args, "it is called in another way than ours")
            wrong(name not in OWN_CALLS, f"nothing is known of {name}")
            OWN_CALLS[name](self, *args)

    def call_operator(self, row, args, which):
        signature = parsed(row.signature)
        wrong(len(args) != len(signature.operands) or which is None or which >= row.results,
              f"{row.name} is called in another way than ours")
        shapes = [self.call_of_floats(x)[0] for x in args]
        if which < row.returns:
            try:
                self.is_shape(tuple(shapes[0]) if row.along else signature.shapes(row.name, shapes)[which])
            except (TypeError, ValueError) as error:
                wrong(True, str(error))

    def call_of_floats(self, x):
        """The shape and dtype of the first operand of a function that takes floats."""
        shape, dtype = self.slot(x) if type(x) is Slot else (np.shape(x), getattr(
            x, "dtype", np.dtype(type(x)) if type(x) is float else None))
        # (To NumPy None is a name of float64.)
        wrong(dtype is None or dtype not in _FLOATS,
              f"its operand is {dtype}, not float32 or float64")
        return shape, dtype

    def call_weights(self, x, name=None, axes=None, *more):
        shape, dtype = self.call_of_floats(x)
        wrong(name != self.attribute[0].removeprefix("fastgrad.weights_") or more,
              f"its arguments are not an operand, a name and axes: {short(name)}")
        axes = axes_in(axes, len(shape))
        wrong(name != "logsumexp" and any(shape[k] == 0 for k in axes) and math.prod(
            n for k, n in enumerate(shape) if k not in axes), "it is the extreme of no entries")
        self.is_shape(shape)
        wrong(dtype != self.dtype, f"an operand is {dtype}, it is {self.dtype}")

    def call_all_finite(self, x, *more):
        self.call_of_floats(x)
        wrong(more, "it has more than one argument")
        self.is_shape(())
        wrong(self.dtype != _BOOL, f"it is {self.dtype}, not bool")

    def call_lanes(self, called, *slots):
        wrong(slots != tuple(map(Slot, range(len(self.x)))), "its operands are not in order")
        wrong(type(called) is not tuple or len(called) != 6, "it calls nothing for each lane")
        name, args, kwargs, which, has, lanes = called
        wrong(type(name) is not str or type(args) is not tuple or type(kwargs) is not tuple
              or not (which is None or _whole(which) and which >= 0) or any(
                  type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not str
                  for pair in kwargs), "it calls nothing for each lane")
        wrong(self.calls is not None and name not in self.calls,
              f"there is no function {short(name)}")
        wrong(type(has) is not tuple or len(has) != len(self.x)
              or any(type(x) is not bool for x in has), "it does not tell which operands have lanes")
        wrong(not _whole(lanes) or any(
            shape[:1] != (lanes,) for shape, own in zip((self.shape, *self.shapes), (True, *has))
            if own), f"an operand or the result has not {short(lanes)} lanes")
        self.lane_slots((args, tuple(value for key, value in kwargs)), 0)

    def lane_slots(self, value, depth):
        """As `slots`, of the call that is made for each lane."""
        wrong(depth > MAX_NESTING, "its arguments are nested too deep")
        if type(value) is tuple and len(value) == 2 and value[0] is not None and type(
                value[0]) is str and value[0] == LANE:
            self.slot(Slot(value[1]))
        elif isinstance(value, (tuple, list)):
            for part in value:
                self.lane_slots(part, depth + 1)

    def slots(self, value, depth):
        wrong(depth > MAX_NESTING, "its arguments are nested too deep")
        if isinstance(value, Slot):
            self.slot(value)
        elif isinstance(value, (tuple, list)):
            for part in value:
                self.slots(part, depth + 1)

    def slot(self, item):
        return slot(item, list(zip(self.shapes, self.operand_dtypes)))

    # ---- loops ------------------------------------------------------------------------------

    def on_custom(self):
        loop = self.attribute
        wrong(type(loop) is not Loop, "its attribute is no loop")
        loop_shapes(loop, list(zip(self.shapes, self.operand_dtypes)))
        for body in (loop.body, loop.condition):
            if body is not None:
                nesting, unfolded = _verified(body, self.calls, self.seen, self.outside + 1)
                self.nesting = max(self.nesting, nesting + 1)
                self.unfolded += unfolded

    def on_result(self):
        graph = self.graph
        self.count(1)
        self.no_attribute()
        of = self.x[0]
        loop = graph.attribute(of)
        wrong(NAMES[graph.nodes["op"][of]] != "custom" or type(loop) is not Loop,
              "its operand has one result")
        which = float(graph.nodes["constant"][self.i])
        wrong(not which.is_integer() or not 0 <= which < len(loop.body.outputs),
              f"there is no result {which}")
        which = int(which)
        output = loop.body.outputs[which]
        shape, dtype = loop.body.shape(output), loop.body.dtype(output)
        if which >= loop.carries:
            shape = (loop.length,) + shape
        self.is_shape(shape)
        wrong(dtype != self.dtype, f"it is {self.dtype}, not {dtype}")


# How the functions of ours are called that a call may name.
OWN_CALLS = {"fastgrad.all_finite": _Check.call_all_finite, "fastgrad.lanes": _Check.call_lanes,
             **{f"fastgrad.weights_{name}": _Check.call_weights
                for name in ("max", "min", "logsumexp")}}


def loop_shapes(loop, operands):
    """Check a loop against the shapes and dtypes of its operands; its graphs are looked at only as
    far as that."""
    counts = loop.carries, loop.sequences, loop.constants
    wrong(not all(_whole(n) and n >= 0 for n in counts), "its counts are no numbers")
    wrong(sum(counts) != len(operands), f"it has {len(operands)} operands, not {sum(counts)}")
    body, condition = loop.body, loop.condition
    wrong(type(body) is not Graph, "its body is no graph")
    wrong(type(loop.reverse) is not bool, "its direction is none")
    wrong(body.guards or condition is not None and condition.guards, "its body has guards")
    if loop.kind == "scan":
        wrong(not _whole(loop.length) or not 0 <= loop.length < 2**62, "its length is no number")
        wrong(condition is not None, "a scan has no condition")
    else:
        wrong(loop.kind != "while", f"there is no loop of the kind {short(loop.kind)}")
        wrong(loop.length is not None or loop.sequences or type(condition) is not Graph,
              "it has no condition, or a length")
        wrong(len(body.outputs) != loop.carries, "its body returns more than the carries")
    wrong(len(body.inputs) != len(operands) or len(body.outputs) < loop.carries,
          "its body does not take its operands")
    inner = [_of(body, i) for i in body.inputs]
    for k, ((shape, dtype), own) in enumerate(zip(operands, inner)):
        if loop.carries <= k < loop.carries + loop.sequences:
            wrong(not shape or shape[0] != loop.length,
                  f"a sequence has shape {short(shape)} in a loop of {loop.length} steps")
            shape = shape[1:]
        wrong(own != (shape, dtype), f"operand {k} is {dtype}{short(shape)}, its body takes "
              f"{own[1]}{short(own[0])}")
    for k in range(loop.carries):
        own = _of(body, body.outputs[k])
        wrong(own != inner[k], f"its body changes carry {k} from {inner[k][1]}"
              f"{short(inner[k][0])} to {own[1]}{short(own[0])}")
    for i in body.outputs[loop.carries:]:
        shape = (loop.length, *_of(body, i)[0])
        wrong(len(shape) > MAX_RANK or 8 * math.prod(max(n, 1) for n in shape) > MAX_BYTES,
              f"its results of shape {short(shape)} are larger than any memory")
    if condition is not None:
        wrong([_of(condition, i) for i in condition.inputs] != inner,
              "its condition does not take its operands")
        wrong([_of(condition, i) for i in condition.outputs] != [((), _BOOL)],
              "its condition does not return one bool")


def _of(graph, i):
    wrong(not _whole(i) or not 0 <= i < len(graph), f"there is no node {short(i)} in its body")
    node = graph.nodes[i]
    wrong(node["op"] == _graph.OPS["custom"], f"node {i} of its body has no value")
    wrong(node["shape"] >= len(graph.shapes) or node["dtype"] > 23, "its body has no such shape")
    return graph.shapes[node["shape"]], core.dtype_of_number(int(node["dtype"]))


def _whole(x):
    return type(x) is int


def _first(bad):
    return int(np.argmax(bad))
