"""Running a graph node by node: the slow and obvious twin of what the executor does.

`replay` goes through the same functions as the program that was recorded. With Tensors among its
values it is recorded in its turn, so that a graph can be differentiated in every mode and nesting,
and mapped. `prepare` makes a function of plain arrays out of one node: the executor's way for what
has no code of its own. `CALLS` says which functions a `call` node may name.
"""

import sys

import numpy as np

from fastgrad._core import core
from fastgrad._core.core import GuardError
from fastgrad._operators.shaped import SHAPED, WEIGHTS, How
from fastgrad._operators.slots import Slot, filled

from .graph import INPUT, LITERAL, NAMES, OPS, STOP, WEAK, Loop, operand_lists

__all__ = ["CALLS", "LANE", "Replay", "beneath", "prepare", "replay"]

Tensor = core.Tensor
_LEAF = OPS["leaf"]
_ORDERED = frozenset([OPS[row.name] for row in SHAPED.values() if row.ordered])
_TIES = frozenset([OPS[name] for name in ("maximum", "minimum", "fmax", "fmin")])


def replay(graph, values):
    """What a graph makes of some values, one for each input, of its shape and dtype: Tensors if a
    value is one, and recorded; otherwise floats, NumPy scalars and new arrays as `graph.kinds`
    says. GuardError: the values lead elsewhere than those that it was recorded with."""
    return Replay(graph)(values)


class Replay:
    """`replay` of one graph, for those who call it often."""

    def __init__(self, graph):
        self.graph = graph
        self.arrays = _arrays_in(graph.attrs)
        # Constants stand in their places from the start; behind the nodes stand numbers that an
        # operator has to meet as numbers (see LITERAL).
        self.start = [None] * len(graph)
        self.steps = []                     # (number of the node, function of all values, dead)
        rows = graph.nodes.tolist()
        operands = operand_lists(graph.nodes, graph.operands)
        guards = {}
        for guard in graph.guards:
            guards.setdefault(guard.node, []).append(guard)
        # What nobody looks at is left out; what has been looked at for the last time is let go of.
        needed = bytearray(len(rows))
        for i in (*graph.outputs, *guards):
            needed[i] = 1
        dead = [()] * len(rows)
        kept = set(graph.outputs)
        for i in range(len(rows) - 1, -1, -1):
            if not needed[i]:
                continue
            for k in operands[i]:
                if not needed[k]:
                    needed[k] = 1
                    dead[i] = (*dead[i], k)
        for i, row in enumerate(rows):
            if not needed[i]:
                continue
            step = None
            if row[0] != _LEAF:
                step = _step(graph, NAMES[row[0]], row, self._numbers(row, rows, operands[i]))
            elif not row[3] & INPUT:
                self.start[i] = self._constant(row)
            if row[3] & STOP:
                step = _detached(step)
            if i in guards:
                step = _guarded(step, i, guards[i])
            if step is not None:
                self.steps.append((i, step, tuple([k for k in dead[i] if k not in kept])))

    def __call__(self, values, tensors=None):
        """The results; Tensors if a value is one, or if told so."""
        graph = self.graph
        if tensors is None:
            tensors = any([isinstance(value, Tensor) for value in values])
        found = list(self.start)
        if len(values) != len(graph.inputs):
            raise TypeError(f"the graph has {len(graph.inputs)} inputs, not {len(values)}")
        if tensors and core.recording_program():
            for array in self.arrays:       # a graph's own are the same at each run
                core.vouch(array)
        for i, value in zip(graph.inputs, values):
            found[i] = _input(graph, i, value, tensors)
        for i, step, dead in self.steps:
            found[i] = step(found)
            for k in dead:
                found[k] = None
        results = [found[i] for i in graph.outputs]
        if tensors:
            # Functions compute here what operators may have computed.
            for i, value, kind in zip(graph.outputs, results, graph.kinds):
                if kind == "float" and i not in graph.inputs:
                    core.give_way(value)
            return results
        return [_settled(value, kind) for value, kind in zip(results, graph.kinds)]

    def _constant(self, row):
        value = self.graph.attrs[row[8]]
        if value is not None:
            return core.tensor(value, copy=False)
        return core.weak(row[10]) if row[3] & WEAK else core.tensor(
            core.dtype_of_number(row[1]).type(row[10]))

    def _numbers(self, row, rows, operands):
        """The operands, with numbers in place of constants where a tie depends on it."""
        if not row[3] & LITERAL or row[0] not in _TIES:
            return operands
        operands = list(operands)
        for at, k in enumerate(operands):
            leaf = rows[k]
            if NAMES[leaf[0]] == "leaf" and not leaf[3] & INPUT and not leaf[2] and not leaf[8]:
                operands[at] = len(self.start)
                self.start.append(leaf[10])
        return operands


def _arrays_in(x):
    """The arrays among a graph's attributes: constants, indices and parts of them."""
    if isinstance(x, np.ndarray):
        return [x]
    return [a for part in x for a in _arrays_in(part)] if type(x) in (tuple, list) else []


def _input(graph, i, value, tensors):
    """A value as a Tensor; it must fit the input that is node i."""
    t = value if isinstance(value, Tensor) else None
    if type(value) is np.ndarray and core.recording_program():
        t = core.known_array(value)         # an input of the recording around, perhaps
    if t is None:                           # (What it keeps must not change with the caller's.)
        t = core.weak(value) if type(value) is float else core.tensor(value, copy=tensors)
    if t.shape != graph.shape(i):
        raise ValueError(f"input {graph.inputs.index(i)} has the shape {t.shape}, but the graph "
                         f"was recorded with {graph.shape(i)}")
    if t.dtype != graph.dtype(i):
        raise TypeError(f"input {graph.inputs.index(i)} has the dtype {t.dtype}, but the graph was "
                        f"recorded with {graph.dtype(i)}")
    return t


def _settled(value, kind):
    """A result as `Graph.kinds` says."""
    if kind == "float":
        return float(value)
    value = value.numpy()
    return value[()] if kind == "scalar" else np.array(value)


def _detached(step):
    return lambda v: step(v).detach()


def _guarded(step, i, guards):
    def checked(v):
        value = v[i] if step is None else step(v)
        for guard in guards:
            check_guard(guard, value)
        return value
    return checked


def look(kind, value):
    """What a guard of that kind sees in a value; where a recording goes on, it sees it, too."""
    if kind == "all":
        return core.decided_all(value) if isinstance(value, core.Tensor) else bool(np.all(value))
    if kind == "count":
        from fastgrad import numpy as fnp

        return int(fnp.count_nonzero(value))
    return bool(value) if kind == "bool" else int(value)


def check_guard(guard, value):
    """Raise GuardError unless the value leads where it led when the graph was recorded."""
    core.tell_line(guard.line)
    try:
        met = look(guard.kind, value)
    finally:
        core.tell_line(None)
    if met != guard.outcome:
        what = {"bool": "a condition", "int": "an integer", "count": "the number of true entries",
                "all": "whether magnitudes are ordinary"}
        error = GuardError(f"{guard.line}: {what[guard.kind]} was {guard.outcome} when the program "
                           f"was recorded and is {met} now; a program without a Python function "
                           "cannot take another path")
        error.guard = guard
        raise error


# ---- one node -------------------------------------------------------------------------------

def _step(graph, name, row, operands):
    """A function from all values to that of node i."""
    if name in core.functions:
        return _STEPS[len(operands) - 1](core.functions[name], *operands)
    attribute = graph.attrs[row[8]]
    if name in SHAPED:
        step = SHAPED[name].step(How(graph.shapes[row[7]], core.dtype_of_number(row[1]), attribute))
        return (_STEPS[len(operands) - 1](step, *operands) if len(operands) <= len(_STEPS) else
                lambda v: step(*[v[k] for k in operands]))
    if name == "result":
        k, which = operands[0], int(row[10])
        return lambda v: v[k][which]
    if name == "call":
        return _call(attribute, operands)
    if name == "custom" and isinstance(attribute, Loop):
        run_loop = core.HANDED_DOWN["run loop"]
        return lambda v: run_loop(attribute, [v[k] for k in operands])
    if name == "custom":
        raise NotImplementedError(f"{attribute!r} cannot be run again: its rule belongs to the run "
                                  "that was recorded")
    raise NotImplementedError(f"the operator {name!r} cannot be run again")


def _one(f, a):
    return lambda v: f(v[a])


def _two(f, a, b):
    return lambda v: f(v[a], v[b])


def _three(f, a, b, c):
    return lambda v: f(v[a], v[b], v[c])


_STEPS = (_one, _two, _three)


# ---- calls ----------------------------------------------------------------------------------

# What a call node may name: functions of plain arrays. Graphs come from files, too, so that
# nothing is looked up by a name that does not stand here: NumPy's from numpy/_plain.py, our
# operators, and what is added below. They return an array, or a tuple of them.
CALLS = core.CALLED

# In the call of `fastgrad.lanes`, whose first argument is a call, it stands for a Slot of that.
LANE = "operand of a lane"


def _unquoted(template):
    if type(template) is tuple and len(template) == 2 and type(template[0]) is str and (
            template[0] == LANE):
        return Slot(template[1])
    if type(template) in (tuple, list):
        return type(template)([_unquoted(part) for part in template])
    return template


def _lane_by_lane(called, *operands):
    """A function of plain arrays called for each lane."""
    name, args, kwargs, which, has, lanes = called
    function, args, kwargs = function_of(name), _unquoted(args), _unquoted(kwargs)
    results = []
    # Without lanes one of zeros tells the shape.
    parts = [np.zeros((1, *x.shape[1:]), x.dtype) if mapped and not lanes else x
             for x, mapped in zip(operands, has)]
    for lane in range(lanes or 1):
        given = [x[lane] if mapped else x for x, mapped in zip(parts, has)]
        result = function(*filled(args, given),
                          **{key: filled(value, given) for key, value in kwargs})
        results.append(np.asarray(result if which is None else result[which]))
    if len({result.shape for result in results}) > 1:
        raise ValueError(f"vmap: the results of {name} differ in shape between lanes")
    return np.stack(results)[:lanes]


CALLS.update(dict.fromkeys(WEIGHTS, core.reduction_weights_of) | {
    "fastgrad.all_finite": core.all_finite, "fastgrad.lanes": _lane_by_lane})


def function_of(name):
    """The function of plain arrays that a call node names."""
    function = CALLS.get(name)
    if function is None:
        raise ValueError(f"the graph calls {name!r}, which is not among the functions that a graph "
                         "may call")
    return function


def _call(attribute, operands):
    from fastgrad._operators.rule import OPERATORS, apply

    name, args, kwargs, which = attribute
    function, args, kwargs = function_of(name), tuple(args), tuple(kwargs)
    if name in OPERATORS:
        return lambda v: apply(OPERATORS[name], filled(args, [v[k] for k in operands]),
                               dict(kwargs))[which]

    def step(v):
        given = [v[k] for k in operands]
        result = core.derive(name, function, filled(args, given),
                             {key: filled(value, given) for key, value in kwargs})
        result = result if which is None else result[which]
        return result if isinstance(result, Tensor) else core.tensor(result)
    return step


# ---- loops ----------------------------------------------------------------------------------

def _plain_loop(loop, operands):
    """A loop of a graph, unrolled."""
    from fastgrad import numpy as fnp

    carries = list(operands[:loop.carries])
    sequences = operands[loop.carries:loop.carries + loop.sequences]
    constants = list(operands[loop.carries + loop.sequences:])
    body = Replay(loop.body)
    if loop.kind == "while":
        condition = Replay(loop.condition)
        while bool(condition(carries + constants)[0]):
            carries = body(carries + constants)
        return carries
    order = range(loop.length - 1, -1, -1) if loop.reverse else range(loop.length)
    stacked = [[] for _ in loop.body.outputs[loop.carries:]]
    for k in order:
        results = body([*carries, *[s[k] for s in sequences], *constants])
        carries = results[:loop.carries]
        for parts, part in zip(stacked, results[loop.carries:]):
            parts.append(part)
    if loop.reverse:
        stacked = [parts[::-1] for parts in stacked]
    empty = [np.zeros((0, *loop.body.shape(i)), loop.body.dtype(i))
             for i in loop.body.outputs[loop.carries:]]
    return carries + [fnp.stack(parts) if parts else core.constant(none)
                      for parts, none in zip(stacked, empty)]


# ---- plain arrays ---------------------------------------------------------------------------

def prepare(graph, i):
    """A function from plain arrays, one for each operand of node i, to its value, an array."""
    name = graph.name(i)
    if name == "call":
        call, which = prepare_call(graph, i), graph.attribute(i)[3]
        return lambda *operands: np.asarray(
            call(*operands) if which is None else call(*operands)[which])
    if name == "leaf":
        raise ValueError("a leaf is not computed")
    if name == "result":
        which = int(graph.nodes["constant"][i])
        return lambda results: results[which]
    # Single rows: a graph has a node of this kind for each step of a long loop. Operands are
    # counted through: one node may be two of them.
    rows = [graph.nodes[k].item() for k in graph.operands_of(i)]
    step = _step(graph, name, graph.nodes[i].item(), range(len(rows)))
    weak = [bool(row[3] & WEAK) for row in rows]
    own = _arrays_in([graph.attribute(i)])

    def given(arrays):
        for array in own:
            core.vouch(array)
        return [core.weak(a) if light else core.tensor(a, copy=False)
                for a, light in zip(arrays, weak)]

    if name == "custom":
        return lambda *arrays: [_array(r) for r in step(given(arrays))]
    return lambda *arrays: _array(step(given(arrays)))


def prepare_call(graph, i):
    """The same of a function without derivative, to all that it returns."""
    called, args, kwargs, _ = graph.attribute(i)
    function, args, kwargs = function_of(called), tuple(args), tuple(kwargs)
    return lambda *operands: function(*filled(args, operands),
                                      **{key: filled(value, operands) for key, value in kwargs})


def same_calls(graph):
    """Call nodes that compute the same as others do, of the same operands: node -> one of them."""
    calls = {}
    for i in np.flatnonzero(graph.nodes["op"] == OPS["call"]).tolist():
        try:
            call = graph.attribute(i)[:3], tuple([beneath(graph, k, detached=True)
                                                  for k in graph.operands_of(i)])
            calls.setdefault(call, []).append(i)
        except TypeError:               # an option that is not hashable
            continue
    return {i: same[0] for same in calls.values() if len(same) > 1 for i in same}


def beneath(graph, i, detached=False):
    """The node of whose value node i is a view that is none; `detached`: even where it lets no
    derivative through."""
    while graph.nodes["op"][i] in _ORDERED and (detached or not graph.nodes["flags"][i] & STOP):
        a = int(graph.nodes["a"][i])
        if graph.shape(a) != graph.shape(i):
            break
        i = a
    return i


def _array(result):
    return np.array(result.numpy())


core.HANDED_DOWN["replay"] = sys.modules[__name__]
