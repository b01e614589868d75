"""Mapping a function over a lane axis: the axis is added to its recording.

The function is recorded once, on one lane. `map_graph` makes of its graph another one in which
every value that depends on a mapped input has the lanes as its first axis: an operation of scalars
becomes one of vectors, so that a scalar program over a million points runs as array code. Values
that are the same for all lanes stay as they are. The new graph is replayed, in whatever
transformation the call stands.

Start reading at `vmap`, then `_Mapper`; what operators need is in their records (_operators/).
"""

import math
import operator

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of
from fastgrad._core.core import GuardError
from fastgrad._core.program import Plan
from fastgrad._operators.batch import Lanes, Unmappable
from fastgrad._operators.rule import OPERATORS
from fastgrad._operators.shaped import SHAPED, WEIGHTS, How
from fastgrad._operators.signature import parsed
from fastgrad._operators.slots import Slot, has_slots
from fastgrad._run import LEAVES, built, flat, function_given
from fastgrad.code.array_effects import NOTHING, changed_array, may_change
from fastgrad.graphs.check import verify
from fastgrad.graphs.graph import (
    INPUT,
    MANY,
    NAMES,
    STOP,
    WEAK,
    Builder,
    Loop,
    operand_lists,
    same_bits,
    same_graph,
)
from fastgrad.graphs.record import record
from fastgrad.graphs.replay import LANE, Replay
from fastgrad.numpy._plain import ALONG, ENTRY, PLAIN

from .derivatives import Derivative, of_programs

__all__ = ["map_graph", "vmap"]

Tensor = core.Tensor
OF_ALL_LANES = "fastgrad.all_finite"
CHECKED = False             # whether mapped graphs are verified: in tests they are
_FLOAT64 = np.dtype(np.float64).num


# ---- graphs ---------------------------------------------------------------------------------

def map_graph(graph, mapped, lanes, everything=()):
    """A graph with so many lanes in front of the inputs that are `mapped` (a bool each), and which
    outputs have lanes; those at the places `everything` have them in any case. A ValueError says
    that the function took a decision that depends on a mapped input."""
    build = Builder()
    rows = graph.nodes.tolist()
    inputs = []
    for i, has in zip(graph.inputs, mapped):
        shape, dtype = graph.shape(i), graph.dtype(i)
        inputs.append((build.input((lanes, *shape) if has else shape, dtype,
                                   bool(rows[i][3] & WEAK) and not has), has))
    mapper = _Mapper(build, graph, lanes)
    outputs = mapper.run(inputs, rows)
    for k in everything:
        outputs[k] = mapper.with_lanes(*outputs[k], graph.shape(graph.outputs[k])), True
    kinds = ["array" if has else kind for (_, has), kind in zip(outputs, graph.kinds)]
    made = build.graph([i for i, _ in outputs], kinds, mapper.guards)
    return made, [has for _, has in outputs]


class _Mapper(Lanes):
    """Appends the mapped nodes of one graph to a Builder."""

    def run(self, inputs, rows=None):
        """Map all nodes; `inputs` and the answer are pairs (node, whether it has lanes)."""
        graph = self.graph
        rows = graph.nodes.tolist() if rows is None else rows
        self.rows = rows
        self.new = new = [None] * len(rows)         # numbers of the mapped nodes
        self.has = has = [False] * len(rows)        # whether they have lanes
        shapes, attrs, add, lanes = graph.shapes, graph.attrs, self.add, self.lanes
        lines = len(self.build.lines) - 1
        self.build.lines += graph.lines[1:]
        guards = {}
        for guard in graph.guards:
            guards.setdefault(guard.node, []).append(guard)
        for i, (row, operands) in enumerate(zip(rows, operand_lists(graph.nodes, graph.operands))):
            op, dtype, rank, flags, _, _, _, shape, attr, line, constant = row
            name, shape, attribute = NAMES[op], shapes[shape], attrs[attr]
            self.build.line = line and line + lines
            if name == "leaf":
                if flags & INPUT:
                    new[i], has[i] = inputs[int(constant)]
                else:
                    new[i] = add("leaf", (), shape, dtype, attribute, flags, constant)
            else:
                for k in operands:
                    if has[k]:
                        break
                else:
                    new[i] = add(name, [new[k] for k in operands], shape, dtype, attribute,
                                 flags & ~MANY, constant)
                    if i in guards:
                        self.guards += [guard._replace(node=new[i]) for guard in guards[i]]
                    continue
                has[i] = True
                if name in core.functions:
                    if rank:
                        moved = [self.spread(k, rank) for k in operands]
                    else:
                        moved = [new[k] for k in operands]
                    new[i] = add(name, moved, (lanes, *shape), dtype, None,
                                 flags & ~(WEAK | MANY), constant)
                else:
                    shaped, how = SHAPED.get(name), How(shape, dtype, attribute)
                    if shaped is None:
                        new[i] = getattr(self, "map_" + name)(i, operands, how, constant)
                    elif shaped.lanes is not None:
                        new[i] = shaped.lanes(self, operands, how)
                    else:
                        new[i] = add(name, [new[operands[0]]], (lanes, *shape), dtype,
                                     shaped.behind(attribute))
                    if flags & STOP:
                        new[i] = self.reshaped(
                            new[i], (lanes, *shape) if has[i] else shape, dtype, STOP)
            if i in guards:
                for guard in guards[i]:
                    if has[i] and guard.kind != "all":
                        raise _decision(guard)
                self.guards += [guard._replace(node=new[i]) for guard in guards[i]]
        return [(new[i], has[i]) for i in graph.outputs]

    # ---- calls ------------------------------------------------------------------------------

    def map_call(self, i, operands, how, constant):
        name, args, kwargs, which = how.attribute
        args, kwargs = tuple(args), tuple(kwargs)
        whole, nodes = (self.lanes, *how.shape), [self.new[k] for k in operands]
        if name == OF_ALL_LANES:
            # One decision, which a guard remembers.
            self.has[i] = False
            return self.add("call", nodes, (), how.dtype, how.attribute)
        if name in WEIGHTS:
            *args, axes = args
            return self.add("call", nodes, whole, how.dtype, (
                name, (*args, WEIGHTS[name].behind(axes)), kwargs, which))
        if name in OPERATORS:
            # Lanes stand in front of the batch axes.
            cores = list(map(len, parsed(OPERATORS[name].signature).operands))
            ranks = [self.rows[operands[x.operand]][2] if isinstance(x, Slot) else np.ndim(x)
                     for x in args]
            batch = max([rank - core for rank, core in zip(ranks, cores)])
            slots = [self.spread(operands[x.operand], batch + core)
                     for x, core in zip(args, cores) if isinstance(x, Slot)]
            return self.add("call", slots, whole, how.dtype, how.attribute)
        plain = PLAIN.get(name)
        axes = plain and plain.axes
        if axes is ENTRY and which is None and not kwargs and all(
                isinstance(arg, (Slot, int, float, np.generic)) or np.ndim(arg) == 0
                for arg in args):
            slots = [self.spread(k, len(how.shape)) for k in operands]
            return self.add("call", slots, whole, how.dtype, (name, args, kwargs, which))
        if axes is ALONG and which is None:
            node = self.along_axes(plain, operands, how)
            if node is not None:
                return node
        quoted = (name, _quoted(args), _quoted(kwargs), which,
                  tuple([self.has[k] for k in operands]), self.lanes)
        return self.add("call", nodes, whole, how.dtype,
                        ("fastgrad.lanes", (quoted, *map(Slot, range(len(operands)))), (), None))

    def along_axes(self, plain, operands, how):
        """The node of a reduction or an ordering; None where it is called in another way."""
        name, args, kwargs, _ = how.attribute
        # What is None is not told.
        kwargs = {key: value for key, value in kwargs if value is not None or key == "axis"}
        if args[2:] == (None,) * len(args[2:]):
            args = args[:2]
        if len(operands) != 1 or not args or not isinstance(args[0], Slot) or len(args) > 2 or (
                not set(kwargs) <= {"axis", "keepdims", "kind", "stable", "dtype"}):
            return None
        k, = operands
        if len(args) == 2:
            if "axis" in kwargs:
                return None
            kwargs["axis"] = args[1]
        own, lanes, node = self.shape(k), self.lanes, self.new[k]
        whole = made = (lanes, *how.shape)
        axis = kwargs.pop("axis", plain.axis)
        if kwargs.get("keepdims", False) not in (True, False) or has_slots(axis):
            return None
        if axis is None or not own:
            flat = math.prod(own)
            node = self.reshaped(node, (lanes, flat), self.dtype(k))
            kwargs.pop("keepdims", None)
            kwargs["axis"] = 1
            made = (lanes, flat) if plain.keeps else (lanes,)
        else:
            moved = tuple([operator.index(n) % len(own) + 1
                           for n in (axis if isinstance(axis, tuple) else (axis,))])
            kwargs["axis"] = moved if isinstance(axis, tuple) else moved[0]
        node = self.add("call", [node], made, how.dtype, (
            name, (Slot(0),), tuple(kwargs.items()), None))
        return node if made == whole else self.reshaped(node, whole, how.dtype)

    # ---- loops ------------------------------------------------------------------------------

    def map_custom(self, i, operands, how, constant):
        if not isinstance(how.attribute, Loop):
            raise Unmappable(repr(how.attribute))
        return _map_loop(self, operands, how.attribute)

    def map_result(self, i, operands, how, constant):
        node, self.has[i] = self.new[operands[0]][int(constant)]
        return node


def _map_loop(mapper, operands, loop):
    """The nodes of a loop with lanes: pairs (node, whether it has lanes), one for each result."""
    lanes, body = mapper.lanes, loop.body
    carries, sequences = loop.carries, loop.sequences
    has = [mapper.has[k] for k in operands]

    def mapped_condition():
        return map_graph(loop.condition, has[:carries] + has[carries + sequences:], lanes)

    while True:
        # A carry has lanes as soon as one of its steps has.
        if loop.kind == "while" and mapped_condition()[1][0]:
            has[:carries] = [True] * carries
        found = map_graph(body, has, lanes)[1]
        grown = [one or other for one, other in zip(has[:carries], found)]
        if grown == has[:carries]:
            break
        has[:carries] = grown
    moved = []
    for place, k in enumerate(operands):
        node, dtype, own = mapper.new[k], mapper.dtype(k), mapper.shape(k)
        if place < carries and has[place]:
            node = mapper.value(k)
        elif has[place] and place < carries + sequences:
            axes = (1, 0, *range(2, len(own) + 1))
            node = mapper.transposed(node, (lanes, *own), axes, dtype)
        moved.append(node)
    everything = [k for k in range(carries) if has[k]]
    condition = loop.condition
    if loop.kind == "while" and mapped_condition()[1][0]:
        condition = _any_lane(condition, has, lanes)
        mapped = _where_it_holds(loop, has, lanes)
        found = [True] * carries
    else:
        if condition is not None:
            condition = mapped_condition()[0]
        mapped, found = map_graph(body, has, lanes, everything)
    made = mapper.add("custom", moved, (), _FLOAT64, loop._replace(body=mapped,
                                                                   condition=condition))
    results = []
    for place, output in enumerate(mapped.outputs):
        row = mapped.nodes[output]
        shape, dtype = mapped.shape(output), int(row["dtype"])
        if place >= carries:
            shape = (loop.length, *shape)
        flags = WEAK if place < carries and row["flags"] & WEAK and not found[place] else 0
        node = mapper.add("result", [made], shape, dtype, None, flags, float(place))
        if place >= carries and found[place]:
            node = mapper.transposed(node, shape, (1, 0, *range(2, len(shape))), dtype)
        results.append((node, found[place]))
    return results


def _inputs_of(build, graph, has, lanes):
    return [(build.input((lanes, *graph.shape(i)) if lane else graph.shape(i), graph.dtype(i)),
             lane) for i, lane in zip(graph.inputs, has)]


def _any_lane(condition, has, lanes):
    """A condition that holds while it holds in any lane."""
    build = Builder()
    mapper = _Mapper(build, condition, lanes)
    (node, _), = mapper.run(_inputs_of(build, condition, has, lanes))
    node = build.add("call", [node], (), np.bool_, ("numpy.any", (Slot(0),), (), None))
    return build.graph([node], ["scalar"], mapper.guards)


def _where_it_holds(loop, has, lanes):
    """The body of a loop that goes on in the lanes in which its condition holds."""
    build = Builder()
    inputs = _inputs_of(build, loop.body, has, lanes)
    holds = _Mapper(build, loop.condition, lanes)
    (condition, _), = holds.run(inputs)
    body = _Mapper(build, loop.body, lanes)
    outputs = []
    for (old, _), (new, lane), i in zip(inputs, body.run(inputs), loop.body.outputs):
        shape, dtype = loop.body.shape(i), loop.body.dtype(i)
        new = body.with_lanes(new, lane, shape)
        mask = condition
        if shape:
            mask = body.reshaped(condition, (lanes,) + (1,) * len(shape), np.bool_)
        if dtype.kind == "f":
            outputs.append(build.add("where", [new, old, mask], (lanes, *shape), dtype))
        else:
            outputs.append(build.add("call", [mask, new, old], (lanes, *shape), dtype, (
                "numpy.where", (Slot(0), Slot(1), Slot(2)), (), None)))
    return build.graph(outputs, None, holds.guards + body.guards)


_DECISIONS = {
    "bool": "a condition (`if`, `while`, `and`, `or`, bool()) depends on a value that differs "
            "between lanes; write fnp.where(condition, x, y), which computes both",
    "int": "int(), range() or the index of a list or NumPy array needs one integer, but the value "
           "differs between lanes; write fnp.asarray(table)[k] to look entries up, fnp.where to "
           "choose",
    "count": "a boolean mask that differs between lanes selects another number of entries in each; "
             "write fnp.where(mask, x, 0.0) in place of x[mask]",
}


def _decision(guard):
    return ValueError(f"vmap: {guard.line}: {_DECISIONS[guard.kind]}")


def _quoted(template):
    """Arguments that are not to be filled yet."""
    if isinstance(template, Slot):
        return (LANE, template.operand)
    if type(template) in (tuple, list):
        return type(template)([_quoted(part) for part in template])
    return template


# ---- functions ------------------------------------------------------------------------------

@of_programs
def vmap(f, in_axes=0, out_axes=0):
    """A function mapped over an axis of its arguments: as a loop over the entries, without one.

    Parameters
    ----------
    f : callable
        Takes floats, arrays, or trees of them, and returns such; written for one entry, a lane.
    in_axes : int, None, or tuple of int, None or trees of them
        The axis of each argument that is mapped over; None: the argument is the same for all lanes.
        A tuple has one entry for each positional argument; where that is a tree, the entry may be
        one, down to any depth. Keyword arguments are mapped over axis 0.
    out_axes : int, None, or tree of them
        Where the lanes are put in each result. None for a result that is the same for all lanes.

    Returns
    -------
    callable
        With the signature of f. Takes arguments with the mapped axes, which must have one length,
        and returns the results of all lanes, stacked.

    Raises
    ------
    ValueError
        When called, if the mapped axes differ in length, do not exist, or there are none; if f
        decides by a value that differs between lanes (`if x > 0`: write `fnp.where`).

    Notes
    -----
    f is run once a call, with Tensors for the first lane, and what it records is then done for all
    lanes at once: operations on numbers become operations on arrays. Where a recording does not
    tell all, f is called lane by lane: if a value leaves its Tensor (``x.detach().item()``), and if
    functions with a derivative rule of the user's are differentiated through the mapped function.
    What a lane writes into its arguments it writes into copies of its own; the caller's arrays
    stay.

    Examples
    --------
    >>> fg.vmap(lambda x, y: fnp.dot(x, y))(np.ones((3, 2)), np.ones((3, 2)))
    array([2., 2., 2.])

    The gradient for each observation, with the same parameters:

    >>> loss = lambda theta, x, y: (theta @ x - y) ** 2
    >>> theta, X, y = np.array([1.0, 2.0]), np.eye(2), np.zeros(2)
    >>> fg.vmap(fg.grad(loss), in_axes=(None, 0, 0))(theta, X, y)
    array([[2., 0.],
           [0., 4.]])
    """
    function_given("vmap", f)
    _check_axes("in_axes", in_axes)
    _check_axes("out_axes", out_axes)

    known = _Known()

    def mapped(*args, **kwargs):
        return _Call(f, in_axes, args, kwargs).run(out_axes, known)

    return Derivative(vmap, f, mapped, (in_axes, out_axes))


def _check_axes(name, axes):
    if axes is None or hasattr(axes, "__index__") and not isinstance(axes, bool):
        return
    branch = trees.open_branch(axes)
    if branch is None:
        raise TypeError(f"vmap: {name} holds {axes!r}; it must be an int, None, or a tree of them")
    for child in branch.children:
        _check_axes(name, child)


def _axes_of(spec, tree, what):
    """The axis of each leaf of a tree, or None, from a tree that may end earlier."""
    if spec is None or hasattr(spec, "__index__"):
        axis = spec if spec is None else operator.index(spec)
        if type(tree) is np.ndarray:
            return [axis]
        leaves, structure = trees.flatten(tree)
        inside = structure != trees.LEAF       # where what is no number is the same in all lanes
        return [None if inside and trees.is_constant(leaf) else axis for leaf in leaves]
    wanted, branch = trees.open_branch(spec), trees.open_branch(tree)
    if branch is None or not trees.same_branch(wanted, branch) and not (
            wanted.type in (tuple, list) and wanted.keys == branch.keys):
        raise ValueError(f"vmap: {what} is {spec!r}, which is not built like what it belongs to "
                         f"(a {type(tree).__name__})")
    axes, children = [], dict(zip(wanted.keys, wanted.children))
    for key, child in zip(branch.keys, branch.children):
        axes += _axes_of(children[key], child, what)
    return axes


class _Known:
    """The last recording of a mapped function, and what was made of it: most functions do the same
    at each call."""

    def __init__(self):
        self.last = None
        self.reached = NOTHING

    def changes(self, function, args, kwargs):
        """Whether a call changes an array from outside."""
        if self.reached.same():         # 1 us; a look at all that it names takes 5, a search 200
            return False
        self.reached = may_change(function) or NOTHING
        return self.reached is NOTHING and changed_array(function, args, kwargs) is not None

    def mapped(self, graph, count, lanes, plain):
        """What runs a graph of which `count` inputs are mapped, on plain values or on Tensors, and
        which outputs are mapped."""
        last = self.last
        kind = count, lanes, plain
        if last is None or last[1] != kind or not same_graph(last[0], graph):
            made, has = map_graph(graph, [k < count for k in range(len(graph.inputs))], lanes)
            if CHECKED:
                verify(made)
            self.last = last = graph, kind, (Plan if plain else Replay)(made), has
        return last[2:]


class _Call:
    """One call of a mapped function."""

    def __init__(self, f, in_axes, args, kwargs):
        self.f = f
        axes = in_axes
        if isinstance(axes, (tuple, list)):
            if len(axes) != len(args):
                raise ValueError(f"vmap: in_axes has {len(axes)} entries, but {name_of(f)} is "
                                 f"called with {len(args)} positional arguments; give one for each")
        else:
            axes = (axes,) * len(args)
        self.tree = args, kwargs
        if not kwargs and all([type(arg) in LEAVES for arg in args]):
            self.leaves, self.structure = list(args), None
        else:
            self.leaves, self.structure = trees.flatten(self.tree)
        self.axes = []
        for k, (axis, arg) in enumerate(zip(axes, args)):
            if type(arg) in LEAVES and (axis is None or type(axis) is int):
                self.axes.append(axis)
            else:
                self.axes += _axes_of(axis, arg, f"in_axes[{k}]")
        self.axes += [0] * (len(self.leaves) - len(self.axes))
        self.lanes = self._lanes()
        self.mapped = [k for k, axis in enumerate(self.axes) if axis is not None]
        # Tensors to f, so that an index that differs between lanes can look entries up.
        self.shared, self.arrays = [], []
        for k, axis in enumerate(self.axes):
            leaf = self.leaves[k]
            if axis is None and isinstance(leaf, Tensor) and core.is_weak(leaf) and (
                    core.recording_program()):
                continue                # a number of Python's, which may leave
            if axis is None and (isinstance(leaf, Tensor) or type(leaf) is np.ndarray
                                 and leaf.dtype.char in "fd"):
                self.shared.append(k)
            elif axis is None and isinstance(leaf, np.ndarray) and leaf.flags.writeable:
                self.arrays.append(leaf)

    def _place(self, k):
        """How messages call leaf k."""
        path = trees.leaves_with_paths(self.tree)[k][0]
        _, _, rest = path.partition("]")
        if path.startswith("[0]"):
            number, _, rest = rest[1:].partition("]")
            return f"argument {number}{rest}"
        return f"argument {rest[2:].partition(chr(39))[0]}{rest[2:].partition(']')[2]}"

    def _lanes(self):
        """How many lanes there are."""
        count = None
        for leaf, axis in zip(self.leaves, self.axes):
            if axis is None:
                continue
            shape = getattr(leaf, "shape", ())
            if not -len(shape) <= axis < len(shape) or count not in (None, shape[axis]):
                count = None
                break
            count = shape[axis]
        if count is None:
            self._complain()
        return count

    def _complain(self):
        """Say what is wrong with the mapped axes."""
        lengths = {}
        for k, (leaf, axis) in enumerate(zip(self.leaves, self.axes)):
            if axis is None:
                continue
            shape = getattr(leaf, "shape", ())
            if not -len(shape) <= axis < len(shape):
                if not isinstance(leaf, (Tensor, np.ndarray, np.generic, int, float)):
                    raise TypeError(f"vmap: {self._place(k)} is a {type(leaf).__name__}; only "
                                    "arrays can be mapped over: give None for it in in_axes")
                raise ValueError(
                    f"vmap: axis {axis} of {self._place(k)} does not exist: its shape is "
                    f"{tuple(shape)}; give None in in_axes for what is the same in all lanes")
            lengths[k] = shape[axis]
        if not lengths:
            raise ValueError("vmap: nothing is mapped: in_axes is None for all arguments"
                             if self.leaves else "vmap: there are no arguments to map over")
        found = "; ".join(
            f"{self._place(k)} has the shape {tuple(self.leaves[k].shape)} and length {length} "
            f"along axis {self.axes[k]}" for k, length in lengths.items())
        raise ValueError(f"vmap: the mapped axes must have one length, but {found}")

    def with_lanes_first(self, k):
        """Mapped leaf k, lanes in front."""
        leaf, axis = self.leaves[k], self.axes[k]
        if type(leaf) is np.ndarray and core.recording_program():
            # The recording around knows the array, but would not know a view of it.
            known = core.known_array(leaf)
            leaf = leaf if known is None else known
        if axis % len(leaf.shape):
            rank = len(leaf.shape)
            axis %= rank
            leaf = core.transpose(leaf, (axis, *[n for n in range(rank) if n != axis]))
        return leaf

    def run(self, out_axes, known):
        given = [self.with_lanes_first(k) for k in self.mapped]
        if known.changes(self.f, *self.tree):       # no run but those of the lanes
            return self.lane_by_lane(out_axes, given)
        try:
            shared = [self.leaves[k] for k in self.shared]
            recording = record(self.function, [_one_lane(x) for x in given] + shared, None)
            inputs = given + shared + recording.captured
            plain = not core.nested() and not any([isinstance(x, Tensor) for x in inputs])
            if recording.reason is not None:
                raise Unmappable(recording.reason)
            if recording.ruled and not plain:
                raise Unmappable("a derivative rule, which the graph does not tell")
            program, has = known.mapped(recording.graph, len(given), self.lanes, plain)
            if plain:
                results = program.run(inputs)
                if type(results) is int:
                    raise _other_path(program.graph, program.graph.guards[results])
            else:
                if core.recording_program():
                    _tell(recording)
                try:
                    results = program(inputs, core.nested() or None)
                except GuardError as error:
                    raise _other_path(program.graph, error.guard) from None
        except (Unmappable, GuardError, core.Unrecordable, np.linalg.LinAlgError):
            return self.lane_by_lane(out_axes, given)       # (f may catch what one lane raises)
        axes = self.result_axes(out_axes, len(results))
        return built(self.returned, [
            self.placed(value, lanes, axis)
            for value, lanes, axis in zip(results, has, axes)])

    def function(self, arguments):
        """f, from a list of leaves to one."""
        leaves = list(self.leaves)
        for k, argument in zip(self.mapped + self.shared, arguments):
            leaves[k] = argument
        args, kwargs = leaves, {}
        if self.structure is not None:
            args, kwargs = trees.unflatten(self.structure, leaves)
        result = self.restoring(args, kwargs) if self.arrays else self.f(*args, **kwargs)
        core.check_results("vmap", result)
        results, self.returned = flat(result)
        return results

    def restoring(self, args, kwargs):
        """Call f; the next lane finds the arrays as they were."""
        before = [array.copy("K") for array in self.arrays]
        written = False
        try:
            return self.f(*args, **kwargs)
        finally:
            for array, copy in zip(self.arrays, before):
                if not same_bits(array, copy):
                    array[...] = copy
                    written = True
            if written and core.recording_program():
                core.unreplayable("an array that is the same in all lanes is changed")

    def result_axes(self, out_axes, count):
        """The axis of each of so many leaves of the result."""
        if out_axes is None or hasattr(out_axes, "__index__"):
            return [out_axes] * count
        return _axes_of(out_axes, built(self.returned, [0] * count), "out_axes")

    def placed(self, value, has, axis):
        """A result with its lanes where they are wanted."""
        if axis is None:
            if has:
                raise ValueError("vmap: out_axes is None for a result that differs between lanes; "
                                 "give the axis that the lanes shall be put at")
            return value
        shape = np.shape(value) if not isinstance(value, Tensor) else value.shape
        if not has:
            value = core.broadcast_to(value, (self.lanes, *shape))
            value = value if isinstance(value, Tensor) else np.array(value)
            shape = (self.lanes, *shape)
        rank = len(shape)
        if not -rank <= axis < rank:
            raise ValueError(f"vmap: out_axes={axis} is out of range for a result that has "
                             f"the shape {shape} with its lanes")
        axis %= rank
        if axis:
            order = [n + 1 for n in range(rank - 1)]
            order.insert(axis, 0)
            value = core.transpose(value, order)
        return value

    def lane_by_lane(self, out_axes, given):
        """What a loop over the lanes does."""
        from fastgrad import numpy as fnp

        # Tensors, as in the recording, of each lane's own.
        given = [x if isinstance(x, Tensor) else core.tensor(x) for x in given]
        shared = [self.leaves[k] for k in self.shared]
        for k, x in enumerate(shared):
            if not isinstance(x, Tensor):
                known = core.known_array(x)
                shared[k] = core.tensor(x) if known is None else known
        found, first = [], None
        with core.inside():
            for lane in range(self.lanes):
                leaves = self.function([
                    core.own_copy(x) for x in (*[x[lane] for x in given], *shared)])
                if found and self.returned != first:
                    leaves = self.alike(first, leaves)
                else:
                    first = self.returned
                found.append(leaves)
        self.returned = first
        if not found:
            raise ValueError(f"vmap: {name_of(self.f)} has to be called lane by lane, and there "
                             "are no lanes")
        results = []
        for parts, axis in zip(zip(*found), self.result_axes(out_axes, len(found[0]))):
            shapes = sorted({np.shape(part) for part in parts})
            if len(shapes) > 1:
                raise ValueError("vmap: the results of lanes have the shapes "
                                 f"{', '.join(map(str, shapes))}; write fnp.where(condition, x, "
                                 "0.0), which keeps the number of entries")
            results.append(core.settled(self.placed(fnp.stack(parts), True, axis)))
        return built(self.returned, results)

    def alike(self, structure, leaves):
        """The leaves that a lane has returned as a tree of another structure, in its order."""
        try:
            return trees.flatten_like(trees.LEAF if structure is None else structure,
                                      built(self.returned, leaves))
        except ValueError as error:
            raise ValueError("vmap: the results of lanes are not built alike, so that they cannot "
                             f"be put together: {error}") from None


def _other_path(graph, guard):
    """What to raise where a guard of a mapped graph does not hold. Only decisions of the library's
    are those of all lanes; others are by what is the same in all of them, and was recorded so."""
    if guard.kind == "all" or graph.name(guard.node) == "call" and (
            graph.attribute(guard.node)[0] == OF_ALL_LANES):
        return Unmappable("lanes of which some take another path")
    return RuntimeError(f"vmap: {guard.line}: what has no lanes differs between them; please "
                        "report it, as a rule of fastgrad's is wrong")


def _one_lane(x):
    """The first lane, or one of zeros where there is none."""
    if isinstance(x, Tensor):
        x = core.value_unseen(x)
    return x[0] if len(x) else np.zeros(x.shape[1:], x.dtype)[()]


def _tell(recording):
    """Tell the recording that goes on around a mapped function what the function used by value."""
    core.by_value(recording.frozen)
    if recording.scalars:
        core.functions["add"](core.weak(0.0), np.float64(0))
