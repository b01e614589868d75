"""Loops as nodes of a graph: what they compute, their derivatives, and how they are put together.

A loop is a `custom` node whose attribute is a `Loop` (graph.py). Its derivatives are loops, too.
Forward mode carries the tangents along. Reverse mode runs a loop that also stacks what each step
began with, and then a loop over those stacks in the other direction, which carries the cotangents
of the carry and gathers those of the constants. As both are nodes of the same kind, derivatives of
any order follow. A while loop becomes, for reverse mode, a loop of as many steps as it took, which
the program then takes for granted.

Begin at `Rule`.
"""

import functools

import numpy as np

from fastgrad._core import core
from fastgrad._core.program import Plan
from fastgrad._operators.rule import on_examples
from fastgrad._run import Run

from . import record
from .graph import INPUT, MANY, OPS, WEAK, Builder, Graph, Loop, operand_lists
from .replay import _plain_loop as unrolled
from .replay import beneath, replay

__all__ = ["Rule", "compact", "live_nodes", "loop_results", "run_loop", "tidy_loops"]

Tensor = core.Tensor


def run_loop(loop, operands):
    """The results of a loop for Tensors, as Tensors: recorded where they are."""
    return loop_results("a loop", loop, operands)


def loop_results(name, loop, operands):
    """The same, with a name for messages."""
    results = _computed(loop, [core.settle_plain(t) for t in operands])
    results = [core.weak(float(y)) if weak else core.tensor(y)
               for y, weak in zip(results, _weak_results(loop))]
    if not core.recording_program() and not any([t.requires_grad for t in operands]):
        return results
    rule = Rule(name, loop, operands)
    return core.custom(rule, rule.operands, results)


def _weak_results(loop):
    """Of each result whether it is a number of Python's."""
    outputs = loop.body.outputs
    return [bool(loop.body.nodes["flags"][o] & WEAK) and k < loop.carries
            for k, o in enumerate(outputs)]


def _computed(loop, values):
    """The results for plain numbers and arrays. Nothing of it is part of what is recorded around
    it, if anything is."""
    plan = _planned(loop)
    if not core.recording_program():
        return plan.run(values)
    recorder = core.Recorder([], None)
    recorder.begin()
    try:
        return plan.run(values)
    finally:
        recorder.end()


@functools.lru_cache(maxsize=256)
def _planned(loop):
    """A program of nothing but the loop."""
    build, body = Builder(), loop.body
    inputs = []
    for k, i in enumerate(body.inputs):
        along = loop.carries <= k < loop.carries + loop.sequences
        shape = (loop.length, *body.shape(i)) if along else body.shape(i)
        inputs.append(build.input(shape, body.dtype(i),
                                  not shape and bool(body.nodes["flags"][i] & WEAK)))
    node = build.add("custom", inputs, attribute=loop)
    outputs = []
    for k, o in enumerate(body.outputs):
        shape = body.shape(o) if k < loop.carries else (loop.length, *body.shape(o))
        outputs.append(build.add("result", [node], shape, body.dtype(o), constant=k))
    return Plan(build.graph(outputs))


class Rule:
    """A loop as the core differentiates it. The operands may be assigned to later, so it holds
    Tensors of its own."""

    def __init__(self, name, loop, operands):
        self.name, self.loop = name, loop
        self.operands = list(map(_own, operands))

    def __repr__(self):
        return self.name

    def parts(self, items):
        """Carries, sequences, constants."""
        c, s = self.loop.carries, self.loop.sequences
        return items[:c], items[c:c + s], items[c + s:]

    # ---- forward mode -----------------------------------------------------------------------

    def push(self, tangents, finite=None):
        loop = self.loop
        carries, sequences, constants = self.parts(self.operands)
        given = self.parts(tangents)
        moving = _floats(loop.body, loop.body.inputs[:loop.carries])
        pattern = tuple([t is not None for t in (*given[1], *given[2])])
        tangent = _tangent_loop(loop, pattern)
        if tangent is None:
            return self.unrolled_push(tangents, finite)
        own = [_filled(given[0][k], carries[k]) for k in moving]
        results = loop_results(f"tangent of {self.name}", tangent, [
            *carries, *own, *sequences, *[t for t in given[1] if t is not None], *constants,
            *[t for t in given[2] if t is not None], _mask(finite)])
        outputs = loop.body.outputs     # (A carry keeps its dtype.)
        return _with([None] * len(outputs), _floats(loop.body, outputs), results[loop.carries:])

    def unrolled_push(self, tangents, finite):
        active = [k for k, t in enumerate(tangents) if t is not None]
        moved = _floats(self.loop.body, self.loop.body.outputs)
        run = Run("jvp", self.steps(active, moved), ([self.operands[k] for k in active],), {}, 0,
                   False)
        found = run.push([tangents[k] for k in active], finite=_mask(finite))
        return _with([None] * len(self.loop.body.outputs), moved, map(_tensor, found))

    # ---- reverse mode -----------------------------------------------------------------------

    def pull(self, cotangents, needed, finite=None):
        loop = self.loop
        if loop.kind == "while":
            return self.counted().pull(cotangents, needed, finite)
        needed = [bool(n) and loop.body.dtype(i).kind == "f"
                  for n, i in zip(needed, loop.body.inputs)]
        carries, sequences, constants = self.parts(self.operands)
        moving = _floats(loop.body, loop.body.inputs[:loop.carries])
        wanted = self.parts(needed)
        given = [t is not None for t in cotangents[loop.carries:]]
        adjoint = _adjoint_loop(loop, tuple(wanted[1]), tuple(wanted[2]), tuple(given))
        if adjoint is None:
            return self.unrolled_pull(cotangents, needed, finite)
        stacks = loop_results(self.name, _stacking_loop(loop), self.operands)
        stacks = stacks[len(loop.body.outputs):]
        bars = [_filled(cotangents[k], carries[k]) for k in moving]
        sums = [_filled(None, t) for t, n in zip(constants, wanted[2]) if n]
        results = loop_results(f"adjoint of {self.name}", adjoint, [
            *bars, *sums, *stacks, *sequences, *[t for t in cotangents[loop.carries:]
                                                 if t is not None], *constants, _mask(finite)])
        places = [k for k, n in enumerate(needed) if n]
        fixed = loop.carries + loop.sequences
        answer = _with([None] * len(needed), [
            *moving, *[k for k in places if k >= fixed],
            *[k for k in places if loop.carries <= k < fixed]], results)
        return [t if n else None for t, n in zip(answer, needed)]

    def unrolled_pull(self, cotangents, needed, finite):
        active = [k for k, n in enumerate(needed) if n]
        moved = [k for k, t in enumerate(cotangents) if t is not None]
        run = Run("vjp", self.steps(active, moved), ([self.operands[k] for k in active],), {}, 0,
                   False)
        found = run.pull([cotangents[k] for k in moved], _mask(finite))[0]
        return _with([None] * len(self.operands), active, map(_tensor, found))

    def steps(self, active, moved):
        """The loop, recorded step by step, as a function of the active operands."""
        def run(values):
            results = unrolled(self.loop, _with(self.operands, active, values))
            return [results[k] for k in moved]
        return run

    def counted(self):
        """A while loop as a loop of the number of steps that it takes, which is a guard."""
        counting = _counting_loop(self.loop)
        start = core.tensor(np.zeros((), np.int64))
        c = self.loop.carries
        results = loop_results(self.name, counting, [*self.operands[:c], start, *self.operands[c:]])
        steps = int(results[c])
        return Rule(self.name, Loop("scan", self.loop.body, c, 0, self.loop.constants, steps),
                     self.operands)


def _with(values, places, others):
    """The values, with others in some places."""
    values = list(values)
    for k, value in zip(places, others):
        values[k] = value
    return values


def _own(t):
    """A Tensor of the same value and history that nobody assigns to."""
    if t.requires_grad and core.is_recording():
        return core.taken(t)
    return t.detach()


def _mask(finite):
    """Whether the result of the sweep that goes through a loop is finite, as an operand."""
    return core.tensor(np.True_) if finite is None else finite


def _tensor(x):
    return x if isinstance(x, Tensor) else core.tensor(x)


def _filled(t, like):
    """A tangent or cotangent in the dtype of what it belongs to; zeros for None."""
    if t is None:
        return core.tensor(np.zeros(like.shape, like.dtype))
    return t if t.dtype == like.dtype else core.cast(t, like.dtype)


def _floats(graph, numbers):
    """The places of those that may have derivatives."""
    return [k for k, i in enumerate(numbers) if graph.dtype(i).kind == "f"]


# ---- loops made from loops ------------------------------------------------------------------

def _derived(function, carries, others):
    """A body made from another one by a function; None where it would have guards."""
    token = on_examples.set(True)
    try:
        recording = record.record(function, [*carries, *others], None, True)
    finally:
        on_examples.reset(token)
    if recording.reason is not None or recording.graph.guards or recording.captured:
        return None
    return recording.graph


def _examples(graph, numbers, keep_weak=True):
    """Values of the shapes and dtypes of some nodes; their derivatives are built alike whatever
    they are."""
    made = []
    for i in numbers:
        if graph.nodes["flags"][i] & WEAK and keep_weak:
            made.append(1.0)
        elif graph.shape(i):
            made.append(np.ones(graph.shape(i), graph.dtype(i)))
        else:
            made.append(graph.dtype(i).type(1))
    return made


@functools.lru_cache(maxsize=256)
def _tangent_loop(loop, pattern):
    """Carries, their tangents; sequences, their tangents; constants, their tangents -> carries,
    tangents of carries, tangents of what is stacked. `pattern`: which sequences and constants have
    tangents."""
    body = loop.body
    c, s = loop.carries, loop.sequences
    moving = _floats(body, body.inputs[:c])
    active = [c + k for k, has in enumerate(pattern) if has]
    along = [k for k in active if k < c + s]
    fixed = [k for k in active if k >= c + s]
    outputs = _floats(body, body.outputs)

    def step(arguments):
        arguments = iter(arguments)
        take = lambda n: [next(arguments) for _ in range(n)]
        values, dots = take(c), take(len(moving))
        values += take(s)
        dots += take(len(along))
        values += take(loop.constants)
        dots += take(len(fixed))
        finite, = take(1)
        where = moving + along + fixed

        def run(given):
            results = replay(body, _with(values, where, given))
            return [results[k] for k in outputs], results[:c]

        derivative = Run("jvp", run, ([values[k] for k in where],), {}, 0, True)
        moved = derivative.push(dots, finite=finite)
        return [*derivative.aux, *moved] if loop.kind == "scan" else [
            *derivative.aux, *moved[:len(moving)]]

    inputs = body.inputs
    carried = _examples(body, inputs[:c]) + _examples(body, [inputs[k] for k in moving], False)
    others = _examples(body, [*inputs[c:c + s], *[inputs[k] for k in along], *inputs[c + s:],
                              *[inputs[k] for k in fixed]]) + [np.True_]
    graph = _derived(step, carried, others)
    if graph is None:
        return None
    condition = loop.condition
    if condition is not None:
        condition = _derived(lambda arguments: replay(
            loop.condition, arguments[:c] + arguments[c + len(moving):][:loop.constants]),
            carried, others)
        if condition is None:
            return None
    return Loop(loop.kind, graph, c + len(moving), s + len(along), loop.constants + len(fixed) + 1,
                loop.length, loop.reverse, condition)


@functools.lru_cache(maxsize=256)
def _stacking_loop(loop):
    """The loop, which also stacks what each step began with."""
    body = loop.body
    kinds = ["array" if body.shape(i) else "scalar" for i in body.inputs[:loop.carries]]
    graph = _returning(body, body.outputs + body.inputs[:loop.carries], body.kinds + kinds)
    return loop._replace(body=graph)


@functools.lru_cache(maxsize=256)
def _adjoint_loop(loop, along, fixed, given):
    """Cotangents of the carries, of the constants; carries before each step, sequences, cotangents
    of what was stacked; constants -> cotangents of the carries before, of the constants, and
    stacked those of the sequences. `along`, `fixed`: of which sequences and constants they are
    wanted; `given`: for what was stacked there are some."""
    body = loop.body
    c, s = loop.carries, loop.sequences
    moving = _floats(body, body.inputs[:c])
    along = [c + k for k, wanted in enumerate(along) if wanted]
    fixed = [c + s + k for k, wanted in enumerate(fixed) if wanted]
    stacked = [c + k for k, has in enumerate(given) if has]
    where = moving + fixed + along

    def step(arguments):
        arguments = iter(arguments)
        take = lambda n: [next(arguments) for _ in range(n)]
        bars, sums = take(len(moving)), take(len(fixed))
        values = take(c) + take(s)
        bars += take(len(stacked))
        values += take(loop.constants)
        finite, = take(1)

        def run(given):
            results = replay(body, _with(values, where, given))
            return [results[k] for k in moving + stacked]

        derivative = Run("vjp", run, ([values[k] for k in where],), {}, 0, False)
        found = derivative.pull(bars, finite)[0]
        n = len(moving)
        found[n:n + len(fixed)] = [a + b for a, b in zip(sums, found[n:])]
        return [_like(x, body, body.inputs[k]) for x, k in zip(found, where)]

    inputs = body.inputs
    carried = _examples(body, [inputs[k] for k in moving + fixed], False)
    others = [*_examples(body, inputs[:c + s]), *_examples(body, [body.outputs[k] for k in stacked],
                                                           False),
              *_examples(body, inputs[c + s:]), np.True_]
    graph = _derived(step, carried, others)
    if graph is None:
        return None
    return Loop("scan", graph, len(moving) + len(fixed), c + s + len(stacked), loop.constants + 1,
                loop.length, not loop.reverse)


def _like(x, graph, i):
    """A derivative of the shape and dtype of node i."""
    x = _tensor(x)
    return x if x.dtype == graph.dtype(i) else core.cast(x, graph.dtype(i))


@functools.lru_cache(maxsize=256)
def _counting_loop(loop):
    """A while loop that also counts its steps, in a last carry."""
    c = loop.carries

    def without(arguments):
        return arguments[:c] + arguments[c + 1:]

    inputs = loop.body.inputs
    carried = _examples(loop.body, inputs[:c]) + [np.int64(1)]
    others = _examples(loop.body, inputs[c:])
    body = _derived(lambda arguments: [*replay(loop.body, without(arguments)),
                                       arguments[c] + 1], carried, others)
    condition = _derived(lambda arguments: replay(loop.condition, without(arguments)),
                         carried, others)
    return Loop("while", body, c + 1, 0, loop.constants, condition=condition)


# ---- loops of a graph, put in order ---------------------------------------------------------

def tidy_loops(graph):
    """The graph with loops that do the same steps on the same operands as one, which stacks only
    what is used.

    Reverse mode asks for a loop that is there already, with more results: both are to run once.
    Nodes that nothing depends on are left out, too.
    """
    nodes = graph.nodes
    places = [i for i in np.flatnonzero(nodes["op"] == OPS["custom"]).tolist()
              if type(graph.attribute(i)) is Loop]
    if not places:
        return graph
    nodes, attrs = nodes.copy(), list(graph.attrs)
    loops, first, moved = {}, {}, {}            # moved: node -> the one that stands for it
    for i in places:
        loop = graph.attribute(i)
        body = loop.body
        key = (loop.kind, id(body.nodes), tuple(body.inputs), tuple(body.outputs[:loop.carries]),
               loop.length, loop.reverse, loop.condition is None or id(loop.condition),
               tuple([_source(graph, k) for k in graph.operands_of(i)]))
        at = first.setdefault(key, i)
        if at == i:
            loops[i] = loop
            continue
        old = loops[at].body
        more = [o for o in body.outputs[loop.carries:] if o not in old.outputs[loop.carries:]]
        kinds = dict(zip(body.outputs, body.kinds))
        loops[at] = loops[at]._replace(body=_returning(
            old, old.outputs + more, old.kinds + [kinds[o] for o in more]))
        moved[i] = at
    results = np.flatnonzero(nodes["op"] == OPS["result"])
    for r in results.tolist():
        i = int(nodes["a"][r])
        if i not in moved:
            continue
        which, c = int(nodes["constant"][r]), loops[moved[i]].carries
        nodes["a"][r] = moved[i]
        if which >= c:
            wanted = graph.attribute(i).body.outputs[which]
            nodes["constant"][r] = c + loops[moved[i]].body.outputs[c:].index(wanted)
    live = live_nodes(graph, nodes, graph.inputs)
    for i, loop in loops.items():
        if not live[i]:
            continue
        own = results[(nodes["a"][results] == i) & live[results]]
        used = sorted({*range(loop.carries), *nodes["constant"][own].astype(int).tolist()})
        if len(used) < len(loop.body.outputs):
            body = loop.body
            loop = loop._replace(body=_returning(body, [body.outputs[k] for k in used],
                                                 [body.kinds[k] for k in used]))
            nodes["constant"][own] = np.searchsorted(used, nodes["constant"][own])
        if loop is not graph.attribute(i):
            attrs.append(loop)
            nodes["attr"][i] = len(attrs) - 1
    return compact(graph, nodes, attrs, graph.inputs, live)


def compact(graph, nodes, attrs, inputs, live):
    """The graph without the nodes that are not live."""
    number = np.cumsum(live) - 1
    many = (nodes["flags"] & MANY) != 0
    operands = number[graph.operands] if len(graph.operands) else graph.operands
    for column in "abc":
        there = ~many & (nodes[column] >= 0)
        nodes[column][there] = number[nodes[column][there]]
    nodes["constant"][inputs] = range(len(inputs))
    guards = [guard._replace(node=int(number[guard.node])) for guard in graph.guards]
    return Graph(nodes[live], operands, graph.shapes, attrs, number[inputs].tolist(),
                 number[graph.outputs].tolist(), graph.kinds, guards, graph.lines)


def _returning(body, outputs, kinds):
    """The body with other outputs. The table of nodes stays the same object, by which loops that do
    the same are known."""
    graph = Graph(body.nodes, body.operands, body.shapes, body.attrs, body.inputs, outputs, kinds,
                  body.guards, body.lines)
    graph.nodes = body.nodes
    return graph


def _source(graph, i):
    """The node that node i merely repeats, or the value of a constant: a rule holds its operands
    under nodes of their own."""
    i = beneath(graph, i)
    node = graph.nodes[i]
    if node["op"] != OPS["leaf"] or node["flags"] & INPUT:
        return i
    value = graph.attribute(i)
    bits = node["constant"] if value is None else value
    return int(node["dtype"]), graph.shape(i), bits.tobytes()


def live_nodes(graph, nodes, inputs):
    """Which nodes something depends on; these inputs are needed in any case."""
    live = np.zeros(len(nodes), bool)
    live[inputs] = live[graph.outputs] = True
    live[[guard.node for guard in graph.guards]] = True
    operands = operand_lists(nodes, graph.operands)
    for i in range(len(nodes) - 1, -1, -1):
        if live[i]:
            live[operands[i]] = True
    return live


core.HANDED_DOWN.update({"run loop": run_loop, "tidy loops": tidy_loops})
