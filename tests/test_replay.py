"""Replaying: a graph run node by node tells what the function it was recorded from tells.

Every row of the operator table and every shaped operator is run as a graph, on plain values (equal
bit for bit), inside transformations and by the closure of its node alone.
"""

import numpy as np
import pytest
from fastgrad._core.core import GuardError
from laws import COMPARISONS, DTYPES, ROWS, name_of, operands, wanted
from laws.examples import ROUNDED, SHAPED, shaped
from laws.examples import SIGNED as ARRAY
from random_programs import RECORDED, programs
from test_random_derivatives import dot

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad._operators.slots import Slot
from fastgrad.graphs import replay as _replay
from fastgrad.graphs.graph import LITERAL, Builder, Guard, Loop
from fastgrad.graphs.record import record
from fastgrad.graphs.replay import CALLS, Replay, prepare, replay


def same(found, wanted):
    """Equal bit for bit, and of one kind."""
    assert type(found) is type(wanted), (found, wanted)
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted)) \
        if found.dtype.kind == "f" else None


def row_graph(row, arrays, flags=0):
    """A graph of one row, whose operands are its inputs."""
    build = Builder()
    inputs = [build.input(a.shape, a.dtype) for a in arrays]
    dtype = np.bool_ if row.kind == "compare" else arrays[0].dtype
    node = build.add(row.name, inputs, np.broadcast_shapes(*[a.shape for a in arrays]), dtype,
                     flags=flags)
    return build.graph([node])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS + COMPARISONS, ids=name_of)
def test_rows(row, dtype):
    mixed = [(2, 1), (3,), (2, 3)][:row.arity], [(), (3,), ()][:row.arity]
    for shapes in ((), (3,), (2, 3), *mixed):
        arrays = operands(row, dtype, shapes, shapes)
        graph = row_graph(row, arrays)
        tensors = [core.tensor(a) for a in arrays]
        value = core.functions[row.name](*tensors).numpy()
        found, = replay(graph, [a[()] for a in arrays])
        same(np.asarray(found), value)
        same(prepare(graph, len(graph) - 1)(*arrays), value)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.steps], ids=name_of)
def test_derivatives_of_rows(row):
    arrays = operands(row, "float64", (3,))
    graph = row_graph(row, arrays)
    places = tuple(wanted(row))

    def direct(*args):
        return core.sum(core.functions[row.name](*args) * np.array([1.0, 2.0, 3.0]))

    def replayed(*args):
        return core.sum(replay(graph, list(args))[0] * np.array([1.0, 2.0, 3.0]))

    for transformation in (fg.grad, fg.hessian):
        for found, value in zip(transformation(replayed, places)(*arrays),
                                transformation(direct, places)(*arrays)):
            np.testing.assert_array_equal(found, value)
    tangents = tuple(np.ones(3) if k in places else np.zeros(3) for k in range(row.arity))
    moving = tuple(arrays[k] for k in places)

    def fixed(f):
        def g(*given):
            whole = list(arrays)
            for k, x in zip(places, given):
                whole[k] = x
            return f(*whole)
        return g

    same(np.asarray(fg.jvp(fixed(replayed), moving, tangents[:len(moving)])[1]),
         np.asarray(fg.jvp(fixed(direct), moving, tangents[:len(moving)])[1]))


@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin"])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_ties_with_numbers(name, shape):
    for flags, share in ((LITERAL, 0.0), (0, 0.5)):
        for weak in (True, False):
            build = Builder()
            x = build.input(shape)
            c = build.constant(1.0) if weak else build.constant(1.0, np.float64)
            graph = build.graph([build.add(name, [x, c], shape, flags=flags)])
            gradient = fg.grad(lambda x: fnp.sum(replay(graph, [x])[0]))(np.ones(shape)[()])
            np.testing.assert_array_equal(gradient, np.full(shape, share))


# ---- shaped operators -----------------------------------------------------------------------

def recording_of(name):
    """An example, what it is recorded as, and its array."""
    f, x = SHAPED[name]
    return f, record(lambda a: [f(a[0])], [x]), x


@shaped
def test_shaped_operators(name):
    f, recording, x = recording_of(name)
    found, = replay(recording.graph, [x, *recording.captured])
    same(found, recording.results[0])

    def replayed(x):
        return replay(recording.graph, [x, *recording.captured])[0]

    def total(f):
        return lambda x: fnp.sum(fnp.sin(f(x)))

    close = {"rtol": 2e-6 if name in ROUNDED else 1e-13, "atol": 1e-14}
    np.testing.assert_allclose(fg.grad(total(replayed))(x), fg.grad(total(f))(x), **close)
    np.testing.assert_allclose(fg.hessian(total(replayed))(x), fg.hessian(total(f))(x), **close)
    np.testing.assert_allclose(fg.jvp(replayed, (x,), (np.cos(x),))[1],
                               fg.jvp(f, (x,), (np.cos(x),))[1], **close)


@shaped
def test_single_nodes(name):
    """The closure of a node gives what the replay of the whole graph finds there."""
    _, recording, x = recording_of(name)
    graph = recording.graph
    graph.outputs = list(range(len(graph)))
    graph.kinds = ["array"] * len(graph)
    values = replay(graph, [x, *recording.captured])
    for i in range(len(graph)):
        if graph.name(i) != "leaf":
            step = prepare(graph, i)
            same(step(*[values[k] for k in graph.operands_of(i)]), values[i])


@pytest.mark.filterwarnings("ignore:.*does not depend")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed, dtype):
    for program in programs(500 + seed, 6, dtype):
        xs, every = program.inputs, tuple(range(len(program.inputs)))
        try:
            recording = record(lambda a, f=program.f: [f(RECORDED, *a)], list(xs))
        except (TypeError, ValueError):
            continue                    # results that depend on nothing
        found, = replay(recording.graph, [*xs, *recording.captured])
        same(np.asarray(found), np.asarray(recording.results[0]))
        w = np.cos(np.arange(program.value.size)).reshape(program.value.shape).astype(dtype)

        def of(f, w=w):
            return fg.grad(lambda *args: fnp.sum(f(*args) * w), every)

        def replayed(*args, recording=recording):
            return replay(recording.graph, [*args, *recording.captured])[0]

        near = 1e-12 if dtype == "float64" else 1e-4
        for found, gradient in zip(of(replayed)(*xs),
                                   of(lambda *args, f=program.f: f(RECORDED, *args))(*xs)):
            scale = max(1.0, np.max(abs(gradient), initial=0))
            np.testing.assert_allclose(found, gradient, rtol=0, atol=near * scale,
                                       err_msg=program.text)


# ---- what values become ---------------------------------------------------------------------

def test_kinds_of_results():
    build = Builder()
    x, y, z = build.input((), weak=True), build.input((), np.float32), build.input((2,))
    doubled = [build.add("add", [k, k], shape, dtype, flags=flags) for k, shape, dtype, flags in (
        (x, (), np.float64, 2), (y, (), np.float32, 0), (z, (2,), np.float64, 0))]
    graph = build.graph([*doubled, z])
    values = [1.5, np.float32(2.5), np.ones(2)]
    found = replay(graph, values)
    for one, other in zip(found, [3.0, np.float32(5), np.full(2, 2.0), np.ones(2)]):
        same(one, other)
    found[3][0] = 7.0                   # a new array, though the input is returned
    assert values[2][0] == 1.0
    found = replay(graph, [1.5, np.float32(2.5), fg.tensor(np.ones(2), requires_grad=True)])
    assert all(isinstance(one, fg.Tensor) for one in found)
    assert (found[0] * np.float32(2)).dtype == np.float32       # a weak number has stayed one


def test_replay_again_and_again():
    again = Replay(record(lambda a: [fnp.exp(a[0]) * a[0]], [ARRAY]).graph)
    for x in (ARRAY, 2 * ARRAY, ARRAY):
        same(again([x])[0], (lambda t: fnp.exp(t) * t)(core.tensor(x)).numpy())


def test_values_that_do_not_fit():
    graph = record(lambda a: [a[0] * a[1]], [np.ones(3), 2.0]).graph
    with pytest.raises(ValueError, match=r"input 0 has the shape \(2,\).*\(3,\)"):
        replay(graph, [np.ones(2), 2.0])
    with pytest.raises(TypeError, match="input 0 has the dtype float32"):
        replay(graph, [np.ones(3, np.float32), 2.0])
    with pytest.raises(TypeError, match="has 2 inputs, not 1"):
        replay(graph, [np.ones(3)])


def test_what_is_not_needed_is_not_computed():
    build = Builder()
    x = build.input((2,))
    build.add("call", [x], (2,), np.float64, ("numpy.no_such_function", (Slot(0),), (), None))
    with pytest.raises(ValueError, match="'numpy.no_such_function'"):
        replay(build.graph([2 * x + 1]), [np.ones(2)])
    same(replay(build.graph([x]), [np.ones(2)])[0], np.ones(2))


# ---- guards ---------------------------------------------------------------------------------

def guarded(kind, outcome, dtype, shape=()):
    build = Builder()
    x = build.input()
    y = build.input(shape, dtype)
    return build.graph([build.add("exp", [x])], None, [Guard(y, kind, outcome, "model.py:12")])


@pytest.mark.parametrize("kind, outcome, holds, fails, dtype, shape", [
    ("bool", True, True, False, np.bool_, ()),
    ("int", 3, np.int64(3), np.int64(4), np.int64, ()),
    ("count", 2, np.array([True, False, True]), np.array([True] * 3), np.bool_, (3,)),
])
def test_guards(kind, outcome, holds, fails, dtype, shape):
    graph = guarded(kind, outcome, dtype, shape)
    assert replay(graph, [np.float64(0), holds]) == [1.0]
    with pytest.raises(GuardError, match=rf"model.py:12: .* was {outcome} when"):
        replay(graph, [np.float64(0), fails])
    with pytest.raises(GuardError, match="model.py:12"):
        fg.grad(lambda x: replay(graph, [x, fails])[0])(0.0)


def test_guards_are_checked_before_what_follows():
    build = Builder()
    x = build.input((3,))
    positive = build.add("greater", [x, build.constant(0.0)], (3,), np.bool_)
    every = build.add("call", [positive], (), np.bool_, ("numpy.all", (Slot(0),), (), None))
    boom = build.add("call", [x], (), np.float64, ("fastgrad.boom", (Slot(0),), (), None))
    graph = build.graph([boom], None, [Guard(every, "bool", True, "f.py:1")])
    calls = []
    CALLS["fastgrad.boom"] = lambda x: calls.append(1) or np.float64(4)
    try:
        assert replay(graph, [np.ones(3)]) == [4.0]
        with pytest.raises(GuardError):
            replay(graph, [-np.ones(3)])
    finally:
        del _replay.CALLS["fastgrad.boom"]
    assert calls == [1]


# ---- calls ----------------------------------------------------------------------------------

def test_calls():
    build = Builder()
    x = build.input((4,))
    order = build.add("call", [x], (4,), np.intp, (
        "numpy.argsort", (Slot(0),), (("kind", "stable"),), None))
    mask = build.add("greater", [x, build.constant(0.5)], (4,), np.bool_)
    where = build.add("call", [mask], (2,), np.intp, ("numpy.nonzero", (Slot(0),), (), 0))
    nested = build.add("call", [order, where], (6,), np.intp, (
        "numpy.concatenate", ((Slot(0), Slot(1)),), (), None))
    taken = build.add("gather", [x, nested], (6,), np.float64, (Slot(1),))
    graph = build.graph([order, where, nested, taken])
    a = np.array([0.9, 0.1, 0.7, 0.3])
    wanted = [np.argsort(a), np.array([0, 2]), np.array([1, 3, 2, 0, 0, 2]),
              a[[1, 3, 2, 0, 0, 2]]]
    for one, other in zip(replay(graph, [a]), wanted):
        same(one, other)
    for i, operands_ in ((order, [a]), (where, [a > 0.5]), (nested, wanted[:2]),
                         (taken, [a, wanted[2]])):
        same(prepare(graph, i)(*operands_), wanted[[order, where, nested, taken].index(i)])
    gradient = fg.grad(lambda x: dot([replay(graph, [x])[3]], [np.arange(6.0)]))(a)
    np.testing.assert_array_equal(gradient, [3.0 + 4.0, 0.0, 2.0 + 5.0, 1.0])


def test_only_listed_functions_are_called():
    build = Builder()
    x = build.input((1,))
    for name in ("numpy.load", "os.system", "numpy.save", "builtins.eval", "numpy.frombuffer",
                 "numpy.fromfile", "numpy.memmap"):
        node = build.add("call", [x], (1,), np.float64, (name, (Slot(0),), (), None))
        for run in (lambda g: replay(g, [np.ones(1)]), lambda g, i=node: prepare(g, i)):
            with pytest.raises(ValueError, match="not among the functions"):
                run(build.graph([node]))


# ---- loops ----------------------------------------------------------------------------------

def scan_graph():
    """c, [c0, c1, ...] of c' = c * x + b, over the entries x."""
    build = Builder()
    c, x, b = build.input(), build.input(), build.input()
    made = build.add("add", [build.add("multiply", [c, x]), b])
    body = build.graph([made, c])
    build = Builder()
    c, xs, b = build.input(), build.input((4,)), build.input()
    node = build.add("custom", [c, xs, b], attribute=Loop("scan", body, 1, 1, 1, 4))
    return build.graph([build.add("result", [node], constant=0.0),
                        build.add("result", [node], (4,), constant=1.0)])


def test_scan():
    graph = scan_graph()
    xs, c, seen = np.array([0.5, -1.0, 2.0, 0.25]), 0.75, []
    for x in xs:
        seen.append(c)
        c = c * x + 0.1
    found = replay(graph, [np.float64(0.75), xs, np.float64(0.1)])
    np.testing.assert_allclose(found[0], c, rtol=1e-15)
    np.testing.assert_allclose(found[1], seen, rtol=1e-15)

    def direct(c, xs, b):
        for k in range(4):
            c = c * xs[k] + b
        return c

    def replayed(c, xs, b):
        return replay(graph, [c, xs, b])[0]

    args = np.float64(0.75), xs, np.float64(0.1)
    for found, value in zip(fg.grad(replayed, (0, 1, 2))(*args), fg.grad(direct, (0, 1, 2))(*args)):
        np.testing.assert_allclose(found, value, rtol=1e-14)
