"""Loops that a program keeps as loops: `scan`, `fori_loop`, `while_loop`.

Called as they stand, and inside a transformation, they are loops of Python's: each step is
computed, or recorded, in its turn. While a program is recorded (`fg.compile`), the step is recorded
once, on Tensors of the carry's shapes, and the program has one node for the whole loop
(graphs/loop_nodes.py). What the step uses besides its arguments arrives as further operands of it.
"""

import operator

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of
from fastgrad._operators.shaped import SHAPED
from fastgrad._operators.slots import Slot
from fastgrad.code.bodies import repeats
from fastgrad.graphs import record
from fastgrad.graphs.graph import INPUT, OPS, WEAK, Graph, Loop
from fastgrad.graphs.loop_nodes import compact, live_nodes, loop_results

__all__ = ["fori_loop", "scan", "while_loop"]

Tensor = core.Tensor

# What may read of an array at an index that is computed.
READS = [OPS[row.name] for row in SHAPED.values() if row.index == "read" and row.listed]


def scan(step, carry, xs=None, length=None, reverse=False):
    """Carry a state along the first axis of arrays, and stack what each step returns.

    Parameters
    ----------
    step : callable
        ``step(carry, x) -> (carry, y)``, where x is one entry of xs. The carry that it returns is
        built like the one it is given: structure, shapes and dtypes.
    carry : tree
        The state that the first step is given: numbers, arrays, and trees of them.
    xs : tree of arrays, optional
        They have a first axis of equal length; step is given their entries in order.
    length : int, optional
        How many steps to take; needed without xs.
    reverse : bool
        Go from the last entry to the first; ys stand in the order of xs all the same.

    Returns
    -------
    carry : tree
        What the last step returned.
    ys : tree
        Built like y, each leaf with a new first axis of the length of xs.

    Raises
    ------
    ValueError
        If arrays of xs differ in length, or from `length`; if step changes the structure or a shape
        of the carry, or y is built differently from one step to the next.
    TypeError
        If step does not return a pair, or changes a dtype of the carry.

    Notes
    -----
    Outside of a program this is a Python loop. Inside one, step is recorded once and runs without
    Python for any number of steps, forwards and backwards. Where its path depends on values that
    are not known when it is recorded (``if carry > 0``), each step is recorded as it goes, and the
    outcomes become guards of the program, as with a loop written in Python; `fastgrad.numpy.where`
    keeps one loop.

    A step may assign to the arrays of its carry (``carry += x``): nobody else sees it.

    A number of Python's in the carry gives way: if the step returns a NumPy scalar or a Tensor of
    another dtype in its place, it is of that dtype from there on (in a program it starts so), and
    where the carry has a dtype already, a number of Python's is taken into it. In a program the
    ints of a carry are int64.

    Without any steps (length 0), step is called once with zeros in place of x, to learn of what
    shape y is.

    Examples
    --------
    >>> def step(total, x):
    ...     total = total + x
    ...     return total, total ** 2
    >>> fg.scan(step, 0.0, np.array([1.0, 2.0, 3.0]))
    (np.float64(6.0), array([ 1.,  9., 36.]))
    >>> fg.grad(lambda x: fg.scan(step, 0.0, x)[1].sum())(np.array([1.0, 2.0, 3.0]))
    array([20., 18., 12.])
    """
    name = _name("scan", step)
    leaves, structure = trees.flatten(xs)
    leaves = [_sequence(f"{name}: xs{path}", leaf) for path, leaf in trees.leaves_with_paths(xs)]
    count = _length(name, xs, leaves, length)

    def entries(k):
        return trees.unflatten(structure, [leaf[k] for leaf in leaves])

    def both(carry, x):
        pair = step(carry, x)
        if type(pair) is not tuple or len(pair) != 2:
            raise TypeError(f"{name}: it must return (carry, y), not "
                            f"{type(pair).__name__}" + (f" of {len(pair)}" if isinstance(
                                pair, (tuple, list)) else ""))
        return pair

    if count == 0:
        return carry, _nothing(both, carry, leaves, structure)
    if core.recording_program() and repeats(step):
        found = _recorded_scan(name, both, carry, leaves, structure, count, bool(reverse))
        if found is not None:
            return found
    kinds = _Carry(name, carry)
    carry = _start(carry)
    order = range(count - 1, -1, -1) if reverse else range(count)
    returned = stacks = None
    for k in order:
        carry, y = both(carry, entries(k))
        carry = kinds.checked(carry)
        parts, found = trees.flatten(y)
        if stacks is None:
            returned, stacks = found, [[] for _ in parts]
        elif found != returned:
            try:
                parts = trees.flatten_like(returned, y)
            except ValueError as error:
                raise ValueError(f"{name}: y changes from one step to the next: {error}") from None
        for stack, part in zip(stacks, parts):
            stack.append(_kept(part))
    return carry, trees.unflatten(returned, [_stack(name, stack[::-1] if reverse else stack)
                                              for stack in stacks])


def fori_loop(lower, upper, body, carry):
    """``for i in range(lower, upper): carry = body(i, carry)``.

    Parameters
    ----------
    lower, upper : int
        The first i, and the one before which to stop.
    body : callable
        ``body(i, carry) -> carry``; returns a carry of the structure, shapes and dtypes that it is
        given.
    carry : tree
        The state that the first call is given: numbers, arrays, and trees of them.

    Returns
    -------
    carry : tree
        What the last call returned.

    Raises
    ------
    TypeError
        If a bound is no integer, or body changes a dtype of the carry.
    ValueError
        If body changes the structure or a shape of the carry.

    Notes
    -----
    In a program body is recorded once, as the step of `scan`, with a Tensor for i that can serve as
    an index.

    Examples
    --------
    >>> def power(x, n):
    ...     return fg.fori_loop(0, n, lambda i, y: y * x, 1.0)
    >>> power(2.0, 5), fg.grad(power)(2.0, 5)
    (32.0, 80.0)
    """
    name = _name("fori_loop", body)
    lower, upper = _bound(name, "lower", lower), _bound(name, "upper", upper)
    if core.recording_program() and upper > lower and repeats(body):
        found = _recorded_scan(name, lambda carry, i: (body(i, carry), None), carry,
                               [core.vouch(np.arange(lower, upper))], trees.LEAF, upper - lower,
                               False, True)
        if found is not None:
            return found[0]
    kinds = _Carry(name, carry)
    carry = _start(carry)
    for i in range(lower, upper):
        carry = kinds.checked(body(i, carry))
    return carry


def while_loop(condition, body, carry):
    """``while condition(carry): carry = body(carry)``.

    Parameters
    ----------
    condition : callable
        ``condition(carry) -> bool``.
    body : callable
        ``body(carry) -> carry``; returns a carry of the structure, shapes and dtypes that it is
        given.
    carry : tree
        The state to begin with: numbers, arrays, and trees of them.

    Returns
    -------
    carry : tree
        The first state that does not meet the condition.

    Raises
    ------
    TypeError
        If condition returns anything but one bool, or body changes a dtype of the carry.
    ValueError
        If body changes the structure or a shape of the carry.

    Notes
    -----
    In a program both functions are recorded once, and the number of steps is free. Reverse mode
    needs that number: the program then has a guard for it, so that another number of steps is
    another path.

    Examples
    --------
    >>> def collatz_like(x):
    ...     return fg.while_loop(lambda x: x > 1, lambda x: x / 2, x)
    >>> collatz_like(12.0), fg.grad(collatz_like)(12.0)
    (0.75, 0.0625)
    """
    name = _name("while_loop", body)
    _name("while_loop", condition)
    if core.recording_program() and repeats(condition, body):
        found = _recorded_while(name, condition, body, carry)
        if found is not None:
            return found[0]
    kinds = _Carry(name, carry)
    carry = _start(carry)
    while bool(_one_bool(name, condition(carry))):
        carry = kinds.checked(body(carry))
    return carry


# ---- arguments ------------------------------------------------------------------------------

def _name(what, f):
    if not callable(f):
        raise TypeError(f"{what}: it needs a function, not {type(f).__name__}")
    return f"{what} of {name_of(f)}"


def _sequence(where, leaf):
    """A leaf of xs."""
    if not isinstance(leaf, (Tensor, np.ndarray)) or not leaf.ndim:
        raise TypeError(f"{where} is a {type(leaf).__name__} without a first axis to go along; "
                        "give arrays (a list is a tree: write np.array([...]))")
    return leaf


def _length(name, xs, leaves, length):
    """How many steps there are."""
    if length is not None:
        length = _bound(name, "length", length)
        if length < 0:
            raise ValueError(f"{name}: length is {length}")
    elif not leaves:
        raise TypeError(f"{name}: without xs it needs length=")
    for k, leaf in enumerate(leaves):
        if len(leaf) != (len(leaves[0]) if length is None else length):
            paths = [path for path, _ in trees.leaves_with_paths(xs)]
            other = f"length is {length}" if length is not None else (
                f"xs{paths[0]} has {len(leaves[0])}")
            raise ValueError(f"{name}: xs{paths[k]} has {len(leaf)} entries along its first axis, "
                             f"{other}; they must be equal")
    return len(leaves[0]) if length is None else length


def _bound(name, what, bound):
    try:
        return operator.index(bound)
    except TypeError:
        raise TypeError(f"{name}: {what} must be an int, not {type(bound).__name__}") from None


def _one_bool(name, value):
    """What a condition has returned."""
    dtype = getattr(value, "dtype", None)
    if type(value) is not bool and (dtype != np.bool_ or np.shape(value) != ()):
        what = type(value).__name__ if dtype is None else f"{dtype} of shape {np.shape(value)}"
        raise TypeError(f"{name}: the condition must return one bool, not {what}")
    return value


# ---- the carry ------------------------------------------------------------------------------

class _Carry:
    """What a carry is like, and whether what a step returns is like it."""

    def __init__(self, name, carry):
        self.name = name
        leaves, self.structure = trees.flatten(carry)
        self.types = [type(leaf) for leaf in leaves]
        self.shapes, self.dtypes, self.weak = [], [], []
        for k, leaf in enumerate(leaves):
            if not isinstance(leaf, (float, int, np.ndarray, np.generic, Tensor)):
                path = trees.leaves_with_paths(carry)[k][0]
                raise TypeError(f"{name}: the carry{path} must be a number or an array, not "
                                f"{type(leaf).__name__}")
            self.shapes.append(np.shape(leaf))
            self.dtypes.append(getattr(leaf, "dtype", None))
            self.weak.append(_gives_way(leaf))

    def leaves(self, carry):
        """The leaves of what a step has returned."""
        try:
            return trees.flatten_like(self.structure, carry)
        except ValueError as error:
            raise ValueError(f"{self.name}: it must return a carry built like the one it is given: "
                             f"{error}") from None

    def checked(self, carry):
        """A carry of the right kind, or an error."""
        if self.structure == trees.LEAF:       # the commonest
            return carry if type(carry) is self.types[0] and type(carry) is float \
                else self.leaf(0, carry)
        leaves = self.leaves(carry)
        return trees.unflatten(self.structure, [
            leaf if type(leaf) is kind and kind is float else self.leaf(k, leaf)
            for k, (leaf, kind) in enumerate(zip(leaves, self.types))])

    def leaf(self, k, leaf):
        if not isinstance(leaf, (float, int, np.ndarray, np.generic, Tensor)):
            self.leaves(leaf)               # a tree in place of a number
            raise TypeError(f"{self.name}: the carry{self.path(k)} becomes a {type(leaf).__name__}")
        shape, dtype, own = np.shape(leaf), getattr(leaf, "dtype", None), self.dtypes[k]
        if shape != self.shapes[k]:
            raise self.changed_shape(k, shape)
        if dtype == own:
            if own is None and self.types[k] is not type(leaf):
                self.types[k] = type(leaf)
            elif self.weak[k] and not _gives_way(leaf):
                self.weak[k] = False
            return leaf
        if own is None or self.weak[k] and (dtype is not None and dtype.kind == "f"):
            if own is None and self.types[k] is float and dtype is not None and dtype.kind != "f":
                raise self.changed_dtype(k, dtype)
            self.dtypes[k], self.types[k], self.weak[k] = dtype, type(leaf), _gives_way(leaf)
            return leaf
        if dtype is None and (type(leaf) is not float or own.kind == "f"):
            return own.type(leaf)
        if isinstance(leaf, Tensor) and _gives_way(leaf) and own.kind == "f":
            return core.cast(leaf, own)
        raise self.changed_dtype(k, dtype)

    def path(self, k):
        numbered = trees.unflatten(self.structure, range(len(self.shapes)))
        return trees.leaves_with_paths(numbered)[k][0]

    def changed_shape(self, k, shape):
        return ValueError(
            f"{self.name}: it changes the shape of the carry{self.path(k)} from {self.shapes[k]} "
            f"to {shape}; every step must return a carry like the one it is given, so start with "
            "one of the shape that the steps return")

    def changed_dtype(self, k, dtype):
        own = self.dtypes[k] or self.types[k].__name__
        return TypeError(
            f"{self.name}: it changes the dtype of the carry{self.path(k)} from {own} to "
            f"{dtype or 'float'}; start with that dtype, or convert what the step returns")


def _start(carry):
    """The carry for steps that may assign to it: the caller's arrays stay as they are."""
    return trees.tree_map(_kept, carry)


def _kept(leaf):
    """A number or array as it is now."""
    if isinstance(leaf, np.ndarray):
        return np.array(leaf)
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.ndim else leaf


def _gives_way(leaf):
    """Whether a leaf may be, or stand for, a number of Python's."""
    return type(leaf) in (float, int, bool) or (
        isinstance(leaf, Tensor) and leaf.ndim == 0 and leaf.dtype == np.float64)


def _check_numbers(name, parts):
    for part in parts:
        if not isinstance(part, (float, int, np.ndarray, np.generic, Tensor)):
            raise TypeError(f"{name}: y must hold numbers and arrays, not {type(part).__name__}")


def _stack(name, parts):
    """What the steps returned for a leaf of y, as one array."""
    first = np.shape(parts[0])
    _check_numbers(name, parts)
    for part in parts:
        if np.shape(part) != first:
            raise ValueError(f"{name}: y has shape {first} at one step and {np.shape(part)} at "
                             "another; they must be equal to be stacked")
    if any(isinstance(part, Tensor) for part in parts):
        from fastgrad import numpy as fnp

        return fnp.stack(parts)
    return np.stack(parts)


def _nothing(both, carry, leaves, structure):
    """ys of no steps: of the shapes and dtypes that a step would return."""
    x = trees.unflatten(structure, [np.zeros(leaf.shape[1:], leaf.dtype)[()] for leaf in leaves])
    with core.no_grad():
        y = both(carry, x)[1]
    return trees.tree_map(
        lambda leaf: np.zeros((0, *np.shape(leaf)), getattr(leaf, "dtype", None) or type(leaf)), y)


# ---- while a program is recorded ------------------------------------------------------------

def _recorded_scan(name, both, carry, leaves, structure, count, reverse, whole=False):
    """(carry, ys) of a loop recorded as one node; None where the step has to be recorded step by
    step. `whole`: x counts the steps."""
    kinds = _Carry(name, carry)
    starts = trees.flatten(carry)[0]
    c, s = len(starts), len(leaves)
    returned = []

    def body(arguments):
        x = trees.unflatten(structure, arguments[c:c + s])
        carried, y = both(trees.unflatten(kinds.structure, arguments[:c]), x)
        parts, returned[:] = trees.flatten(y)[0], [trees.flatten(y)[1]]
        _check_numbers(name, parts)
        return kinds.leaves(carried) + parts

    at = -1 if reverse else 0
    found = _body(kinds, body, starts, [leaf[at] for leaf in leaves])
    if found is None:
        return None
    graph, captured, starts = found
    captured = [_operand(x) for x in captured]
    if whole:
        graph, more, captured = _along(graph, c, int(leaves[0][0]), count, captured)
        leaves = [*leaves, *more]
    loop = Loop("scan", graph, c, len(leaves), len(captured), count, reverse)
    results = loop_results(name, loop, [_operand(x) for x in (*starts, *leaves, *captured)])
    return (trees.unflatten(kinds.structure, results[:c]),
            trees.unflatten(returned[0], results[c:]))


def _recorded_while(name, condition, body, carry):
    """(carry,) of a while loop recorded as one node, or None."""
    kinds = _Carry(name, carry)
    starts = trees.flatten(carry)[0]
    c = len(starts)
    found = _body(kinds, lambda arguments: kinds.leaves(body(trees.unflatten(
        kinds.structure, arguments))), starts, [])
    if found is None:
        return None
    graph, captured, starts = found

    def asked(arguments):
        return [_one_bool(name, condition(trees.unflatten(kinds.structure, arguments)))]

    try:
        recording = record.record(asked, starts, None, True, True)
    except core.Unrecordable:
        return None
    if recording.reason is not None or recording.graph.guards:
        return None
    both = [*captured, *[x for x in recording.captured if not any(x is y for y in captured)]]
    loop = Loop("while", _with_inputs(graph, c, captured, both), c, 0, len(both),
                condition=_with_inputs(recording.graph, c, recording.captured, both))
    return trees.unflatten(kinds.structure,
                            loop_results(name, loop, [_operand(x) for x in (*starts, *both)])),


def _body(kinds, function, starts, others):
    """A body as a graph, what it captured, and the carries to start with, of the types that the
    body returns; None if its path depends on values.

    Numbers of Python's in the carry take the dtype of what the step returns in their place, so that
    it may have to be recorded more than once."""
    starts = list(starts)
    casts = [None] * len(starts)

    def body(arguments):
        outputs = list(function(arguments))
        for k, dtype in enumerate(casts):
            if dtype is not None:
                outputs[k] = core.cast(_operand(outputs[k]), dtype)
        return outputs

    for _ in range(2 * len(starts) + 2):
        try:
            recording = record.record(body, [*starts, *others], None, True, True)
        except core.Unrecordable:       # it changes what is outside: at every step
            return None
        graph = recording.graph
        if recording.reason is not None or graph.guards:
            return None
        again = False
        for k, start in enumerate(starts):
            i, o = graph.inputs[k], graph.outputs[k]
            own, new = graph.dtype(i), graph.dtype(o)
            weak, gives_way = graph.nodes["flags"][i] & WEAK, graph.nodes["flags"][o] & WEAK
            if graph.shape(i) != graph.shape(o):
                raise kinds.changed_shape(k, graph.shape(o))
            number = weak or type(start) in (int, bool)
            if own == new and not (weak and not gives_way):
                continue
            if type(start) in (int, bool) and new.kind == "f":
                starts[k] = float(start)
            elif number and new.kind in ("f" if own.kind == "f" else "fiu"):
                starts[k] = _strong(start, new)
            elif gives_way and own.kind == "f":
                casts[k] = own
            else:
                kinds.dtypes[k] = own
                raise kinds.changed_dtype(k, new)
            again = True
        if not again:
            return graph, recording.captured, starts
    raise TypeError(f"{kinds.name}: the dtypes of the carry do not settle; start with the dtypes "
                    "that the step returns")


def _strong(start, dtype):
    """A number in a dtype, no longer one of Python's."""
    if not isinstance(start, Tensor):
        return dtype.type(start)
    if start.dtype == dtype:
        return start * core.tensor(np.ones((), dtype))
    return core.cast(start, dtype)


def _operand(x):
    """What a loop takes as a Tensor; an array from outside becomes an input of the recording."""
    if isinstance(x, Tensor):
        return x
    if type(x) is float:
        return core.weak(x)
    if isinstance(x, np.ndarray):
        known = core.known_array(x)
        if known is not None:
            return known
    return core.tensor(x)


def _along(graph, c, lower, count, captured):
    """The body of a loop over i from `lower`, what goes along with it as sequences, and the
    constants that are left: what is read of a constant at i, or a fixed distance from it, is an
    entry of a sequence. Its adjoint is then stacked, where that of a constant would be an array of
    zeros and one entry at every step."""
    nodes, more, places = graph.nodes.copy(), [], []
    constants = {i: x for i, x in zip(graph.inputs[c + 1:], captured)}

    def distance(i):
        """How far node i is from the counter, or None."""
        if i == graph.inputs[c]:
            return 0
        attribute = graph.attribute(i)
        if graph.name(i) != "call" or len(graph.operands_of(i)) != 1 or attribute[2:] != ((), None):
            return None
        name, args = attribute[:2]
        step = [x for x in args if type(x) is int]
        if (name not in ("numpy.add", "numpy.subtract") or len(args) != 2 or len(step) != 1
                or name == "numpy.subtract" and type(args[1]) is not int):
            return None
        base = distance(graph.operands_of(i)[0])
        return None if base is None else base + (step[0] if name == "numpy.add" else -step[0])

    for j in np.flatnonzero(np.isin(nodes["op"], READS)).tolist():
        operands, index = graph.operands_of(j), graph.attribute(j)
        index = index if type(index) is tuple else (index,)
        if len(operands) != 2 or operands[0] not in constants or index[0] != Slot(1) or not all(
                x is None or x is Ellipsis or type(x) in (int, slice) for x in index[1:]):
            continue
        x, away = constants[operands[0]], distance(operands[1])
        if away is None or lower + away < 0 or lower + away + count > x.shape[0]:
            continue
        more.append(x[(slice(lower + away, lower + away + count), *index[1:])])
        places.append(j)
        for column, value in (("op", OPS["leaf"]), ("flags", INPUT), ("a", -1), ("b", -1),
                              ("c", -1), ("attr", 0)):
            nodes[column][j] = value
    if not places:
        return graph, [], captured
    needed = graph.inputs[:c + 1] + places
    live = live_nodes(graph, nodes, needed)
    left = [i for i in constants if live[i]]
    return (compact(graph, nodes, graph.attrs, needed + left, live), more,
            [constants[i] for i in left])


def _with_inputs(graph, count, captured, wanted):
    """The graph with an input for each of the wanted captured arrays, in their order, after the
    first `count`."""
    if len(captured) == len(wanted):
        return graph
    build = graph.nodes.tolist()
    shapes = list(graph.shapes)
    inputs = graph.inputs[:count]
    for x in wanted:
        own = [i for i, y in zip(graph.inputs[count:], captured) if x is y]
        if own:
            inputs.append(own[0])
            continue
        like = _operand(x)
        if like.shape not in shapes:
            shapes.append(like.shape)
        inputs.append(len(build))
        build.append((OPS["leaf"], like.dtype.num, like.ndim, INPUT, -1, -1, -1,
                      shapes.index(like.shape), 0, 0, 0.0))
    nodes = np.array(build, graph.nodes.dtype)
    nodes["constant"][inputs] = range(len(inputs))
    return Graph(nodes, graph.operands, shapes, graph.attrs, inputs, graph.outputs, graph.kinds,
                 graph.guards, graph.lines)
