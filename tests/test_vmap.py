"""Mapping: a mapped function tells what a loop over the lanes tells, in every mode and nesting.

Rows of the operator table and shaped operators are drawn from their tables, so that a new one is
tested without a new line here.
"""

import itertools
import types

import numpy as np
import pytest
from fastgrad._core.core import GuardError
from laws import COMPARISONS, DTYPES, ROWS, name_of, operands, wanted
from laws.examples import ROUNDED, SHAPED, WITHOUT_LANES
from random_programs import RECORDED, programs

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad._operators.shaped import SHAPED as SHAPED_RECORDS
from fastgrad._operators.slots import Slot
from fastgrad.graphs.graph import Builder, Loop
from fastgrad.graphs.record import record
from fastgrad.graphs.replay import replay
from fastgrad.transforms.vmap import map_graph, same_graph

LANES = 3


def lane(x, axis, k):
    """Lane k of a leaf."""
    if axis is None:
        return x
    return np.take(x, k, axis)


def loop(f, args, axes, count=LANES):
    """What f makes of each lane, stacked; of a function that returns a tuple a tuple."""
    found = [f(*[lane(x, axis, k) for x, axis in zip(args, axes)]) for k in range(count)]
    if isinstance(found[0], tuple):
        return tuple(np.stack([np.asarray(x) for x in parts]) for parts in zip(*found))
    return np.stack([np.asarray(x) for x in found])


def near(found, value, ulps=16, scale=None):
    """Of one shape and dtype, and equal to a few units in the last place of the largest entry."""
    found, value = np.asarray(found), np.asarray(value)
    assert found.shape == value.shape and found.dtype == value.dtype, (
        found.shape, value.shape, found.dtype, value.dtype)
    if value.dtype.kind != "f" or not value.size:
        np.testing.assert_array_equal(found, value)
        return
    finite = abs(value[np.isfinite(value)])
    scale = max(scale or 0, np.max(finite, initial=0), 1e-30)
    np.testing.assert_allclose(found, value, rtol=0, atol=ulps * np.finfo(value.dtype).eps * scale)


def some_axes(count):
    """Which operands have lanes, at least one of them."""
    return [which for which in itertools.product((0, None), repeat=count) if 0 in which]


# ---- graphs ---------------------------------------------------------------------------------

def check_graph(graph, arrays, has, close=0):
    """A mapped graph against the graph, run for each lane."""
    made, lanes_of = map_graph(graph, list(has), LANES)
    given = [np.stack([x[k] for k in range(LANES)]) if h else x for x, h in zip(arrays, has)]
    found = replay(made, given)
    each = [replay(graph, [x[k] if h else x for x, h in zip(arrays, has)]) for k in range(LANES)]
    for place, (one, mapped) in enumerate(zip(found, lanes_of)):
        for k in range(LANES):
            part = one[k] if mapped else one
            if close:
                near(part, each[k][place], close)
            else:
                np.testing.assert_array_equal(part, each[k][place])
            assert np.asarray(part).dtype == np.asarray(each[k][place]).dtype
    return made


def one_node(name, shapes, dtypes, shape, dtype, attribute=None):
    """A graph of one operation of inputs."""
    build = Builder()
    inputs = [build.input(s, d) for s, d in zip(shapes, dtypes)]
    return build.graph([build.add(name, inputs, shape, dtype, attribute)])


def drawn(shape, dtype, mapped, key=0):
    rng = np.random.default_rng([len(shape), key, *shape])
    shape = (LANES, *shape) if mapped else shape
    if np.dtype(dtype).kind == "f":
        return np.asarray(rng.uniform(0.3, 1.7, shape)).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


@pytest.mark.parametrize("row", ROWS + COMPARISONS, ids=name_of)
def test_rows_of_graphs(row):
    """Operands of different ranks, with and without lanes."""
    for dtype, shapes in itertools.product(DTYPES, (
            [()] * 3, [(4,)] * 3, [(2, 1), (4,), ()], [(), (4,), (2, 1)], [(4,), (1, 2, 1), (4,)])):
        shapes = shapes[:row.arity]
        whole = np.broadcast_shapes(*shapes)
        for has in itertools.product((True, False), repeat=row.arity):
            if not any(has):
                continue
            arrays = operands(row, dtype, [(LANES, *s) if h else s for s, h in zip(shapes, has)],
                              (shapes, has))
            graph = one_node(row.name, shapes, [a.dtype for a in arrays], whole,
                             np.bool_ if row.kind == "compare" else dtype)
            # Lanes of arrays run in the same kernel; numbers run in the scalar tier.
            arrays = [a if h or s else a[()] for a, h, s in zip(arrays, has, shapes)]
            check_graph(graph, arrays, has, 0 if whole else 8)


MATRICES = [((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((3,), (5, 3, 2)),
            ((5, 2, 3), (3,)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)),
            ((1, 2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((0,), (0,)), ((2, 0), (0, 4))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", MATRICES, ids=str)
def test_matmul_of_graphs(shapes, dtype):
    shape = np.matmul(np.ones(shapes[0]), np.ones(shapes[1])).shape
    for has in ((True, True), (True, False), (False, True)):
        graph = one_node("matmul", shapes, (dtype, dtype), shape, dtype)
        check_graph(graph, [drawn(s, dtype, h, n) for n, (s, h) in enumerate(zip(shapes, has))],
                    has, 32)


# An index, and the shapes of the integer arrays that its Slots stand for.
GATHERS = [
    ((Slot(1),), [()]), ((Slot(1),), [(3,)]), ((Slot(1), Slot(2)), [(3,), (2, 1)]),
    ((slice(None), Slot(1)), [(3,)]), ((slice(None), Slot(1), Slot(2)), [(3,), ()]),
    ((Slot(1), slice(0, 2), Slot(2)), [(3,), (2, 1)]), ((..., Slot(1)), [(2, 2)]),
    ((slice(None), Slot(1), ..., Slot(2)), [(3,), (2, 1)]),
    ((slice(None), np.array([2, 0]), ..., Slot(1)), [(2,)]),
    ((None, Slot(1), ..., None), [(3,)]), ((slice(None), None, Slot(1)), [(3,)]),
    ((Slot(1), 1), [(3,)]), ((1, slice(None), Slot(1)), [(3,)]),
    ((np.array([0, 1, 1]), Slot(1)), [(2, 1)]), ((slice(None), slice(None), Slot(1)), [(3,)]),
    ((np.array([0, 1]), slice(None), np.array([1, 0])), []),
    ((slice(None), np.array([True, False, True])), []),
    ((np.array([[True, False, True], [False, True, True]]),), []),
    ((slice(None), np.array([2, 0, 0])), []), (np.array([1, 1]), []),
    ((slice(0, 1), np.array([[1], [0]]), np.array([0, 1, 3])), []),
]


def index_cases(first):
    for index, shapes in GATHERS:
        if type(index) is not tuple:
            index = (index,)
        shifted = tuple(Slot(part.operand + first - 1) if isinstance(part, Slot) else part
                        for part in index)
        stand_ins = [np.zeros(s, np.intp) for s in shapes]
        plain = tuple(stand_ins[part.operand - 1] if isinstance(part, Slot) else part
                      for part in index)
        yield shifted, shapes, np.zeros((2, 3, 4))[plain].shape


@pytest.mark.parametrize("case", range(len(GATHERS)))
@pytest.mark.parametrize("name", ["gather", "scatter", "assign"])
def test_indices_of_graphs(name, case):
    """Lanes in what is indexed, in what is put there, in the indices."""
    first = 2 if name == "assign" else 1
    index, shapes, part = list(index_cases(first))[case]
    whole = (2, 3, 4)
    parts = {"gather": [whole], "scatter": [part], "assign": [whole, part]}[name]
    if name == "assign":
        variants = [[whole, part], [whole, ()], [whole, (1, *part)],
                    [whole, (1,) * len(part)]] + ([[whole, part[1:]]] if part else [])
    else:
        variants = [parts]
    for floats in variants:
        for has in itertools.product((True, False), repeat=len(floats) + len(shapes)):
            if not any(has):
                continue
            graph = one_node(name, [*floats, *shapes],
                             ["float64"] * len(floats) + ["intp"] * len(shapes),
                             part if name == "gather" else whole, "float64", index)
            arrays = [drawn(s, "float64" if n < len(floats) else "intp", h, n)
                      for n, (s, h) in enumerate(zip([*floats, *shapes], has))]
            check_graph(graph, arrays, has)


BASIC = [(0,), (slice(None), 1), (1, 2, 3), (slice(1, None), ..., slice(None, None, -2)), (...,),
         (None, 1), (slice(0, 0),), (..., None, 2)]


@pytest.mark.parametrize("index", BASIC, ids=str)
@pytest.mark.parametrize("name", ["item", "place", "assign"])
def test_basic_indices_of_graphs(name, index):
    whole = (2, 3, 4)
    part = np.zeros(whole)[index].shape
    if name == "item":
        check_graph(one_node(name, [whole], ["float64"], part, "float64", index),
                    [drawn(whole, float, True)], [True])
    elif name == "place" and part:
        check_graph(one_node(name, [part], ["float64"], whole, "float64", index),
                    [drawn(part, float, True)], [True])
    elif name == "assign":
        for value in (part, (), (1, *part), (1,) * len(part)):
            graph = one_node(name, [whole, value], ["float64"] * 2, whole, "float64", index)
            for has in ((True, True), (True, False), (False, True)):
                check_graph(graph, [drawn(whole, float, has[0]), drawn(value, float, has[1], 1)],
                            has)


CALLS = [
    ("numpy.add", (Slot(0), Slot(1)), (), [(2,), (3, 1)], int, (3, 2), int),
    ("numpy.logical_and", (Slot(0), Slot(1)), (), [(2,), ()], bool, (2,), bool),
    ("numpy.where", (Slot(0), Slot(1), 7), (), [(2,), (3, 1)], int, (3, 2), int),
    ("numpy.isnan", (Slot(0),), (), [(2, 3)], float, (2, 3), bool),
    ("numpy.floor_divide", (Slot(0), 2), (), [()], int, (), int),
    ("numpy.any", (Slot(0),), (), [(2, 3)], bool, (), bool),
    ("numpy.any", (Slot(0),), (("axis", 0),), [(2, 3)], bool, (3,), bool),
    ("numpy.all", (Slot(0), -1), (("keepdims", True),), [(2, 3)], bool, (2, 1), bool),
    ("numpy.all", (Slot(0), (0, -1)), (), [(2, 3)], bool, (), bool),
    ("numpy.any", (Slot(0),), (("keepdims", True),), [(2, 3)], bool, (1, 1), bool),
    ("numpy.argmax", (Slot(0),), (), [(2, 3)], float, (), np.intp),
    ("numpy.argmin", (Slot(0), 1), (), [(2, 3)], float, (2,), np.intp),
    ("numpy.argsort", (Slot(0),), (("kind", "stable"),), [(2, 3)], float, (2, 3), np.intp),
    ("numpy.argsort", (Slot(0), None), (), [(2, 3)], float, (6,), np.intp),
    ("numpy.argsort", (Slot(0),), (("axis", 0),), [(2, 3)], float, (2, 3), np.intp),
    ("numpy.sum", (Slot(0),), (), [(2, 3)], int, (), int),
    ("numpy.cumsum", (Slot(0), 0), (), [(2, 3)], int, (2, 3), int),
    ("numpy.count_nonzero", (Slot(0),), (("axis", 1),), [(2, 3)], int, (2,), int),
    ("numpy.searchsorted", (np.array([0.5, 1.0]), Slot(0)), (), [(3,)], float, (3,), np.intp),
    ("numpy.searchsorted", (Slot(0), Slot(1)), (), [(4,), (3,)], float, (3,), np.intp),
    ("numpy.isclose", (Slot(0), Slot(1)), (("rtol", 0.3),), [(4,), (4,)], float, (4,), bool),
    ("numpy.array_equal", (Slot(0), Slot(1)), (), [(2,), (2,)], int, (), bool),
    ("numpy.concatenate", ((Slot(0), Slot(1)),), (), [(2,), (3,)], int, (5,), int),
    ("numpy.any", (Slot(0),), (), [()], bool, (), bool),
]


@pytest.mark.parametrize("case", range(len(CALLS)), ids=lambda k: f"{CALLS[k][0]}-{k}")
def test_calls_of_graphs(case):
    name, args, kwargs, shapes, dtype, shape, result = CALLS[case]
    for has in itertools.product((True, False), repeat=len(shapes)):
        if not any(has):
            continue
        graph = one_node("call", shapes, [np.dtype(dtype)] * len(shapes), shape, result,
                         (name, args, kwargs, None))
        arrays = [drawn(s, dtype, h, n) for n, (s, h) in enumerate(zip(shapes, has))]
        made = check_graph(graph, arrays, has)
        for i in range(len(made)):          # the shapes that the graph tells are right
            assert made.name(i) != "call" or made.shape(i)[0] == LANES


def test_lanes_whose_results_differ_in_shape():
    graph = one_node("call", [(4,)], [bool], (2,), np.intp, ("numpy.nonzero", (Slot(0),), (), 0))
    made, _ = map_graph(graph, [True], 2)
    found, = replay(made, [np.array([[True, False, True, False], [False, True, True, False]])])
    np.testing.assert_array_equal(found, [[0, 2], [1, 2]])
    with pytest.raises(ValueError, match="numpy.nonzero differ in shape between lanes"):
        replay(made, [np.array([[True, False, True, False], [True, True, True, False]])])


# ---- loops ----------------------------------------------------------------------------------

def scan_graph(reverse=False, length=4):
    """c' = c * x + b and d' = d + 1 over the entries x; stacks c * b, and b."""
    build = Builder()
    c, d, x, b = build.input(), build.input((2,)), build.input(), build.input((2,))
    first = build.add("item", [b], (), np.float64, (0,))
    made = build.add("add", [build.add("multiply", [c, x]), first])
    more = build.add("add", [d, build.constant(1.0)], (2,))
    body = build.graph([made, more, build.add("multiply", [c, b], (2,)), first])
    build = Builder()
    inputs = [build.input(), build.input((2,)), build.input((length,)), build.input((2,))]
    node = build.add("custom", inputs, attribute=Loop("scan", body, 2, 1, 1, length, reverse))
    shapes = [(), (2,), (length, 2), (length,)]
    return build.graph([build.add("result", [node], s, constant=float(k))
                        for k, s in enumerate(shapes)])


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_of_graphs(reverse):
    graph = scan_graph(reverse)
    shapes = [(), (2,), (4,), (2,)]
    for has in itertools.product((True, False), repeat=4):
        if any(has):
            arrays = [drawn(s, float, h, n) for n, (s, h) in enumerate(zip(shapes, has))]
            check_graph(graph, [a if a.ndim else a[()] for a in arrays], has, 8)
            outputs = map_graph(graph, list(has), LANES)[1]
            assert outputs == [has[0] or has[2] or has[3], has[1],
                               has[0] or has[2] or has[3], has[3]]


def while_graph():
    """x' = x * y while x < limit, and how many steps."""
    build = Builder()
    x, n, y, limit = build.input(), build.input((), np.int64), build.input(), build.input()
    one = build.constant(1, np.int64)
    body = build.graph([build.add("multiply", [x, y]), build.add("call", [n, one], (), np.int64, (
        "numpy.add", (Slot(0), Slot(1)), (), None))])
    build = Builder()
    x, n, y, limit = build.input(), build.input((), np.int64), build.input(), build.input()
    condition = build.graph([build.add("less", [x, limit], (), np.bool_)])
    build = Builder()
    inputs = [build.input(), build.input((), np.int64), build.input(), build.input()]
    node = build.add("custom", inputs, attribute=Loop("while", body, 2, 0, 2, None, False,
                                                      condition))
    return build.graph([build.add("result", [node], constant=0.0),
                        build.add("result", [node], (), np.int64, constant=1.0)])


def test_while_of_graphs():
    """Lanes that are done wait for the others."""
    graph = while_graph()
    x, y, limit = np.array([1.0, 2.0, 30.0]), np.array([1.5, 3.0, 2.0]), np.array([10.0, 10.0, 9.0])
    for has in itertools.product((True, False), repeat=4):
        if any(has):
            arrays = [x, np.zeros(3, np.int64), y, limit]
            check_graph(graph, [a if h else a[0] for a, h in zip(arrays, has)], has, 4)


# ---- functions: the table -------------------------------------------------------------------

@pytest.mark.parametrize("row", ROWS, ids=name_of)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows(row, dtype):
    f = core.functions[row.name]
    for shapes in ([()] * 3, [(2,)] * 3, [(), (2,), ()]):
        for axes in some_axes(row.arity):
            arrays = operands(row, dtype, [(LANES, *s) if axis == 0 else s
                                           for s, axis in zip(shapes, axes)], (shapes, axes))
            near(fg.vmap(f, axes)(*arrays), loop(f, arrays, axes), 8)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.steps and not row.inner],
                         ids=name_of)
def test_derivatives_of_rows(row):
    """The derivative of each lane, and the derivative of all lanes."""
    f = core.functions[row.name]
    places = tuple(wanted(row))
    arrays = operands(row, "float64", (LANES,))
    arrays[:1] = [np.stack([arrays[0], arrays[0] * 0.99], -1)]
    axes = (0,) * row.arity

    def total(*args):
        return fnp.sum(fnp.sin(f(*args)))

    each = loop(fg.grad(total, places), arrays, axes)
    for found, value in zip(fg.vmap(fg.grad(total, places))(*arrays), each):
        near(found, value, 64)
    whole = fg.grad(lambda *args: fnp.sum(fg.vmap(total)(*args)), places)(*arrays)
    for found, value in zip(whole, each):
        near(found, value, 64)
    for found, value in zip(
            fg.vmap(lambda *args: fg.jacobian(f, places)(*args))(*arrays),
            loop(fg.jacobian(f, places), arrays, axes)):
        near(found, value, 64)


@pytest.mark.parametrize("name", [name for name in SHAPED if name not in WITHOUT_LANES])
def test_shaped_operators(name):
    f, x = SHAPED[name]
    lanes = np.stack([x * (1 + 0.1 * k) for k in range(LANES)])
    ulps = 256 << 29 * (name in ROUNDED)        # of float32, in those of float64
    near(fg.vmap(f)(lanes), loop(f, [lanes], [0]), 64)
    near(fg.vmap(f, 1)(np.moveaxis(lanes, 0, 1)), loop(f, [lanes], [0]), 64)
    near(fg.vmap(f, -1, -1)(np.moveaxis(lanes, 0, -1)),
         np.moveaxis(loop(f, [lanes], [0]), 0, -1), 64)

    def total(x):
        return fnp.sum(fnp.sin(f(x)))

    for g in (fg.grad(total), fg.jacobian(f), fg.hessian(total)):
        value = loop(g, [lanes], [0])
        near(fg.vmap(g)(lanes), value, ulps, 1.0)
    near(fg.grad(lambda x: fnp.sum(fg.vmap(total)(x)))(lanes),
         loop(fg.grad(total), [lanes], [0]), ulps, 1.0)
    tangent = np.cos(lanes)
    near(fg.jvp(fg.vmap(f), (lanes,), (tangent,))[1],
         loop(lambda x, t: fg.jvp(f, (x,), (t,))[1], [lanes, tangent], [0, 0]), ulps, 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(10))
def test_random_programs(seed, dtype):
    rng = np.random.default_rng(seed)
    for program in programs(900 + seed, 6, dtype):
        if "> 0.05" in program.text:
            continue                    # a mask, which may differ between lanes
        args, axes = [], []
        for x in program.inputs:
            axes.append(None if rng.random() < 0.3 and len(axes) else
                        int(rng.integers(-x.ndim - 1, x.ndim + 1)))
            if axes[-1] is None:
                args.append(x)
            else:
                lanes = [x * (1 + 0.001 * k) for k in range(LANES)]
                args.append(np.moveaxis(np.stack(lanes).astype(dtype), 0, axes[-1]))

        def f(*args, program=program):
            return program.f(RECORDED, *args)

        def total(*args, f=f):
            return fnp.sum(fnp.sin(f(*args)))

        every = tuple(range(len(args)))
        gradient = fg.grad(total, every)
        try:
            value, slopes = loop(f, args, axes), loop(gradient, args, axes)
            mapped = fg.vmap(f, tuple(axes))(*args)
        except (TypeError, ValueError) as error:
            if "does not fit" in str(error) or "numpy cannot hold" in str(error):
                continue                # a program that only plain numbers can run
            raise
        near(mapped, value, 2048, 1.0)
        for found, slope in zip(fg.vmap(gradient, tuple(axes))(*args), slopes):
            near(found, slope, 1 << 14, 1.0)
        for found, slope, axis in zip(fg.grad(
                lambda *args: fnp.sum(fg.vmap(total, tuple(axes))(*args)), every)(*args),
                slopes, axes):
            slope = slope.sum(0) if axis is None else np.moveaxis(slope, 0, axis)
            near(found, slope.astype(dtype), 1 << 14, 1.0)


# ---- axes and trees -------------------------------------------------------------------------

X = np.linspace(-1.0, 1.0, 12).reshape(3, 4)


def test_axes():
    def f(x, y):
        return fnp.sum(x * y)

    near(fg.vmap(f)(X, X), np.sum(X * X, 1))
    near(fg.vmap(f, 1)(X, X), np.sum(X * X, 0))
    near(fg.vmap(f, (0, None))(X, X[1]), X @ X[1])
    near(fg.vmap(f, [0, 1])(X, X.T), np.sum(X * X, 1))
    near(fg.vmap(f, (-1, -2))(X, X.T), np.sum(X * X, 0))
    near(fg.vmap(lambda x: 2 * x, 1, 1)(X), 2 * X)
    near(fg.vmap(lambda x: 2 * x, 1, -1)(X), 2 * X)
    near(fg.vmap(lambda x: 2 * x, 1)(X), 2 * X.T)
    near(fg.vmap(lambda x: fnp.stack([x, x], -1), 0, 2)(X), np.stack([X.T, X.T], 1))
    near(fg.vmap(lambda x, *, y: x + y)(X, y=X[:, 0]), X + X[:, :1])


def test_trees():
    tree = {"w": X, "b": (X[:, 0], [X])}
    found = fg.vmap(lambda p: {"s": fnp.sum(p["w"]) + p["b"][0],
                               "t": (p["b"][1][0][0], None)})(tree)
    assert list(found) == ["s", "t"] and found["t"][1] is None
    near(found["s"], X.sum(1) + X[:, 0])
    near(found["t"][0], X[:, 0])
    found = fg.vmap(lambda p, c: p["w"] * p["b"] + c, ({"w": 0, "b": None}, None))(
        {"w": X, "b": X[0]}, 2.0)
    near(found, X * X[0] + 2)
    found = fg.vmap(lambda p: fnp.dot(*p), ((0, None),))((X, X[0]))
    near(found, X @ X[0])
    found = fg.vmap(lambda p: fnp.dot(*p), ([1, 0],))([X.T, X])     # lists where f takes a tuple
    near(found, np.sum(X * X, 1))
    one, (two, three) = fg.vmap(lambda x: (x, (2 * x, fnp.stack([x, x]))), 0, (0, (1, -1)))(X)
    near(one, X)
    near(two, 2 * X.T)
    near(three, np.stack([X.T, X.T]))


def test_results_without_lanes():
    """What is the same for all lanes is repeated, or returned as it is."""
    found = fg.vmap(lambda x, y: (2 * y, 1.5, np.arange(2), x), (0, None))(X, X[0])
    near(found[0], np.stack([2 * X[0]] * 3))
    near(found[1], np.full(3, 1.5))
    near(found[2], np.stack([np.arange(2)] * 3))
    found = fg.vmap(lambda x, y: (2 * y, 1.5, x), (0, None), (None, None, 0))(X, X[0])
    near(found[0], 2 * X[0])
    assert found[1] == 1.5 and type(found[1]) is float
    found[0][...] = 0                       # no view of anything
    near(fg.vmap(lambda x, y: 2 * y, (0, None), 1)(X, X[0]), np.stack([2 * X[0]] * 3, 1))
    with pytest.raises(ValueError, match="out_axes is None for a result that differs"):
        fg.vmap(lambda x: x, 0, None)(X)


def test_what_is_shared_is_passed_as_it_is():
    seen = []
    fg.vmap(lambda x, *rest: seen.extend(rest) or x, (0, None, None, None))(X, "abc", 3, True)
    assert seen == ["abc", 3, True]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_integers(dtype):
    places = np.array([1, 0, 1]).astype(dtype)
    if dtype is not np.bool_:
        near(fg.vmap(lambda x, k: x[k])(X, places), X[np.arange(3), places])
        near(fg.vmap(lambda x, k: x[k], (None, 0))(X, places), X[places])
        near(fg.vmap(lambda x, k: x[k + 1] * k)(X, places),
             X[np.arange(3), places + dtype(1)] * places)
        near(fg.grad(lambda x: fnp.sum(fg.vmap(lambda x, k: x[k] ** 2)(x, places)))(X),
             fg.grad(lambda x: fnp.sum(x[np.arange(3), places] ** 2))(X))
    near(fg.vmap(lambda k: k)(places), places)
    near(fg.vmap(lambda x, k: fnp.where(k, x, 0.0))(X, places),
         np.where(places[:, None], X, 0.0))


def test_precision():
    x = X.astype(np.float32)
    for f in (lambda x: fnp.sin(x) * 2.5, lambda x: fnp.sum(x) / 3, lambda x: x[0] ** 2.5 + 1,
              lambda x: fnp.array([x[0], 1.0 * x[1]]), lambda x: fnp.maximum(x, 0.5)):
        near(fg.vmap(f)(abs(x)), loop(f, [abs(x)], [0]), 8)
        g = fg.grad(lambda x, f=f: fnp.sum(f(x)))
        near(fg.vmap(g)(abs(x)), loop(g, [abs(x)], [0]), 8)
    assert fg.vmap(lambda x: x * np.float64(2))(x).dtype == np.float64


def test_no_lanes_and_one():
    for f in (lambda x: fnp.sum(fnp.exp(x)), lambda x: x[:2] / 3, lambda x: 1.5,
              lambda x: fnp.sort(x), fg.grad(lambda x: x[0] * x[1]), lambda x: fnp.argmax(x)):
        found = fg.vmap(f)(X[:0])
        assert found.shape == (0, *np.shape(f(X[0]))) and found.dtype == np.asarray(f(X[0])).dtype
        near(fg.vmap(f)(X[:1]), loop(f, [X], [0], 1))


def test_scalars_of_lanes():
    """A function of numbers over points: the commonest use."""
    x, y = np.linspace(0.1, 2.0, 50), np.linspace(1.0, 3.0, 50)

    def f(x, y):
        return fnp.exp(-x * y) * fnp.sin(y) / (1 + x ** 2) + fnp.maximum(x, y) * fnp.hypot(x, y)

    near(fg.vmap(f)(x, y), [f(a, b) for a, b in zip(x, y)], 8)
    for found, value in zip(fg.vmap(fg.grad(f, (0, 1)))(x, y),
                            zip(*[fg.grad(f, (0, 1))(a, b) for a, b in zip(x, y)])):
        near(found, np.array(value), 32)
    near(fg.vmap(fg.grad(fg.grad(f)))(x, y), [fg.grad(fg.grad(f))(a, b) for a, b in zip(x, y)], 256)


@pytest.mark.filterwarnings("ignore:.*does not depend")
@pytest.mark.parametrize("f", [
    lambda x: fnp.sort(x), lambda x: fnp.argsort(x), lambda x: fnp.argmax(x),
    lambda x: fnp.any(x > 0.2), lambda x: fnp.where(x > 0, x, -x), lambda x: fnp.sign(x) * x,
    lambda x: fnp.floor(3 * x), lambda x: x[fnp.argsort(x)[0]], lambda x: fnp.mean(x),
    lambda x: fnp.take(x, fnp.argmax(x)),
    lambda x: fnp.searchsorted(np.array([-0.5, 0.0, 0.5]), x), lambda x: fnp.cumsum(x > 0),
    lambda x: (x > 0) & (x < 0.5), lambda x: fnp.sum(x > 0) * x, lambda x: fnp.isnan(x) | (x > 0),
    lambda x: fnp.clip(x, -0.3, 0.3), lambda x: fnp.nan_to_num(x / fnp.abs(x)),
    lambda x: fnp.round(x, 1), lambda x: fnp.var(x), lambda x: fnp.linalg.norm(x),
    lambda x: fnp.einsum("i,j->ij", x, x), lambda x: fnp.outer(x, x) @ x, lambda x: fnp.diag(x),
    lambda x: fnp.pad(x, 1), lambda x: fnp.roll(x, 1), lambda x: fnp.logsumexp(x),
    lambda x: fnp.max(x) * fnp.argmin(x), lambda x: fnp.repeat(x, 2),
    lambda x: fnp.zeros_like(x) + x,
    lambda x: fnp.linspace(x[0], x[1], 5), lambda x: x.astype(np.float32),
    lambda x: (10 * x).astype(int), lambda x: fnp.tril(fnp.outer(x, x)),
    lambda x: fnp.flip(x)[None],
])
def test_functions(f):
    near(fg.vmap(f)(X), loop(f, [X], [0]), 64)
    if loop(f, [X], [0]).dtype.kind == "f":
        g = fg.grad(lambda x: fnp.sum(fnp.cos(f(x)) * f(x)))
        near(fg.vmap(g)(X), loop(g, [X], [0]), 256, 1.0)
        near(fg.grad(lambda X: fnp.sum(fg.vmap(lambda x: fnp.sum(fnp.cos(f(x)) * f(x)))(X)))(X),
             loop(g, [X], [0]), 256, 1.0)


def test_in_place():
    def f(x):
        y = fnp.zeros(4)
        y[0] = x[1]
        y[1:] += x[:3] * 2
        y[fnp.argmax(x)] = 5.0
        return y * x

    near(fg.vmap(f)(X), loop(f, [X], [0]))

    def g(x):
        y = fnp.zeros(4)
        for k in range(4):
            y[k] = y[k - 1] * x[k] + 1
        return fnp.sum(y)

    near(fg.vmap(g)(X), loop(g, [X], [0]), 8)
    near(fg.vmap(fg.grad(g))(X), loop(fg.grad(g), [X], [0]), 64)


# ---- errors ---------------------------------------------------------------------------------

@pytest.mark.parametrize("call, error, words", [
    (lambda: fg.vmap(lambda x, y: x)(X, X.T), ValueError,
     r"argument 0 has the shape \(3, 4\) and length 3 along axis 0; argument 1 has the shape "
     r"\(4, 3\) and length 4"),
    (lambda: fg.vmap(lambda x: x, 2)(X), ValueError,
     r"axis 2 of argument 0 does not exist.*\(3, 4\)"),
    (lambda: fg.vmap(lambda x: x, -3)(X), ValueError, "axis -3 of argument 0"),
    (lambda: fg.vmap(lambda x, y: x)(X, 2.0), ValueError, "axis 0 of argument 1 .*None in in_axes"),
    (lambda: fg.vmap(lambda p: p)({"w": [X, 1.0]}), ValueError,
     r"axis 0 of argument 0\['w'\]\[1\]"),
    (lambda: fg.vmap(lambda x, name: x)(X, "a"), TypeError, "argument 1 is a str"),
    (lambda: fg.vmap(lambda x, *, c: x)(X, c=1.0), ValueError, "axis 0 of argument c"),
    (lambda: fg.vmap(lambda x: x, None)(X), ValueError, "nothing is mapped"),
    (lambda: fg.vmap(lambda: 1.0)(), ValueError, "no arguments to map over"),
    (lambda: fg.vmap(lambda x, y: x, (0,))(X, X), ValueError, "in_axes has 1 entr.*2 positional"),
    (lambda: fg.vmap(lambda x: x, ({"a": 0},))(X), ValueError, r"in_axes\[0\] is \{'a': 0\}"),
    (lambda: fg.vmap(lambda x: x, "0"), TypeError, "in_axes holds '0'"),
    (lambda: fg.vmap(lambda x: x, (0, 1.5)), TypeError, "in_axes holds 1.5"),
    (lambda: fg.vmap(lambda x: x, 0, True), TypeError, "out_axes holds True"),
    (lambda: fg.vmap(lambda x: x, 0, 2)(X), ValueError, r"out_axes=2 is out of range.*\(3, 4\)"),
    (lambda: fg.vmap(lambda x: x, 0, (0, 0))(X), ValueError, "out_axes is"),
    (lambda: fg.vmap(3.0), TypeError, "must be a function, not float"),
    (lambda: fg.vmap(lambda x: None)(X), TypeError, "vmap: the function returned None"),
    (lambda: fg.vmap(lambda x: "a")(X), TypeError, "vmap: the function must return"),
], ids=range(19))
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def branch(x):
    return x if x[0] > 0 else -x


def several(x):
    while fnp.sum(x) < 3:
        x = x + 1
    return x


@pytest.mark.parametrize("f, words", [
    (branch, "condition"), (several, "condition"),
    (lambda x: x if fnp.any(x > 0) else -x, "condition"),
    (lambda x: x * 1.0 if bool(x[0] < 0) else x, "condition"),
    (lambda x: x * int(fnp.argmax(x)), "integer"), (lambda x: x[:int(fnp.sum(x > 0))], "integer"),
    (lambda x: sum(x[k] for k in range(fnp.argmax(x))), "integer"),
    (lambda x: fnp.sum(x[x > 0]), "mask"), (lambda x: x[0] and x[1], "condition"),
    (lambda x: max(x[0], x[1]), "condition"),
], ids=range(10))
def test_decisions_that_differ_between_lanes(f, words):
    for g in (f, fg.grad(lambda x: fnp.sum(f(x)))):
        told = rf"vmap: .*test_vmap.py, line \d+: .*{words}.*fnp.where"
        with pytest.raises(ValueError, match=told):
            fg.vmap(g)(X)


def test_decisions_that_are_the_same_in_all_lanes():
    def f(x, c, n):
        y = x if c[0] > 0 else -x
        for _ in range(int(n)):
            y = y * c[1]
        return fnp.sum(y[c > 0])

    for c in (np.array([1.0, 2.0, -1.0, 3.0]), np.array([-1.0, 0.5, 1.0, 1.0])):
        near(fg.vmap(f, (0, None, None))(X, c, np.int64(2)), [f(x, c, 2) for x in X], 8)
        near(fg.grad(lambda c, c0=c: fnp.sum(fg.vmap(f, (0, None, None))(X, c, 2)))(c),
             sum(fg.grad(f, 1)(x, c, 2) for x in X), 32, 1.0)


# ---- nestings -------------------------------------------------------------------------------

def smooth(x, y):
    return fnp.sum(fnp.sin(x) * y) + fnp.sum(x * x) * y[0]


Y = np.cos(np.arange(12.0)).reshape(3, 4)


def test_derivatives_of_mapped_functions():
    mapped = fg.vmap(smooth)
    slopes = loop(fg.grad(smooth, (0, 1)), [X, Y], [0, 0])
    for found, value in zip(fg.grad(lambda x, y: fnp.sum(mapped(x, y)), (0, 1))(X, Y), slopes):
        near(found, value, 32)
    value, found = fg.value_and_grad(lambda x: fnp.sum(mapped(x, Y)))(X)
    near(value, sum(smooth(x, y) for x, y in zip(X, Y)), 32)
    near(found, slopes[0], 32)
    whole = np.zeros((3, 3, 4))
    whole[np.arange(3), np.arange(3)] = slopes[0]
    for mode in ("auto", "forward", "reverse"):
        near(fg.jacobian(lambda x: mapped(x, Y), mode=mode)(X), whole, 32)
    tangent = np.sin(X)
    near(fg.jvp(mapped, (X, Y), (tangent, Y))[1],
         np.sum(slopes[0] * tangent + slopes[1] * Y, 1), 64, 4.0)
    near(fg.vjp(mapped, X, Y)[1](np.arange(3.0))[0], slopes[0] * np.arange(3.0)[:, None], 32)
    near(fg.linearize(lambda x: mapped(x, Y), X)[1](tangent), np.sum(slopes[0] * tangent, 1),
         64, 4.0)
    hessians = loop(fg.hessian(smooth), [X, Y], [0, 0])
    whole = np.zeros((3, 4, 3, 4))
    whole[np.arange(3), :, np.arange(3)] = hessians
    near(fg.hessian(lambda x: fnp.sum(mapped(x, Y)))(X), whole, 64)
    near(fg.hvp(lambda x: fnp.sum(mapped(x, Y)))(X, tangent),
         np.einsum("kij,kj->ki", hessians, tangent), 64, 4.0)
    w = fg.tensor(X, requires_grad=True)
    fnp.sum(mapped(w, Y)).backward()
    near(np.asarray(w.grad), slopes[0], 32)


def test_mapped_derivatives():
    near(fg.vmap(fg.grad(smooth))(X, Y), loop(fg.grad(smooth), [X, Y], [0, 0]), 32)
    value, slope = fg.vmap(fg.value_and_grad(smooth))(X, Y)
    near(value, loop(smooth, [X, Y], [0, 0]), 32)
    near(slope, loop(fg.grad(smooth), [X, Y], [0, 0]), 32)
    near(fg.vmap(fg.hessian(smooth))(X, Y), loop(fg.hessian(smooth), [X, Y], [0, 0]), 64)
    near(fg.vmap(fg.hvp(smooth))(X, Y, X), loop(fg.hvp(smooth), [X, Y, X], [0] * 3), 64)
    for mode in ("forward", "reverse"):
        def jacobian(x, y, mode=mode):
            return fg.jacobian(lambda x: fnp.sin(x) * y[0] + fnp.flip(x), mode=mode)(x)
        near(fg.vmap(jacobian)(X, Y), loop(jacobian, [X, Y], [0, 0]), 32)

    def tangents(x, t):
        return fg.jvp(lambda x: x * fnp.sum(x ** 3), (x,), (t,))

    for found, value in zip(fg.vmap(tangents)(X, Y), loop(tangents, [X, Y], [0, 0])):
        near(found, value, 64)

    def pulled(x, w):
        value, pull = fg.vjp(lambda x: x * fnp.sum(x ** 3), x)
        return value, pull(w)[0]

    for found, value in zip(fg.vmap(pulled)(X, Y), loop(pulled, [X, Y], [0, 0])):
        near(found, value, 64)
    near(fg.vmap(fg.laplacian(smooth))(X, Y), loop(fg.laplacian(smooth), [X, Y], [0, 0]), 64)
    near(fg.vmap(fg.elementwise_grad(fnp.tanh))(X), 1 - np.tanh(X) ** 2, 16)
    # All the vectors of a basis at once: the Jacobian.
    def f(x):
        return x * fnp.sum(x)

    near(fg.vmap(lambda t: fg.jvp(f, (X[0],), (t,))[1], 0, 1)(np.eye(4)), fg.jacobian(f)(X[0]), 32)
    near(fg.vmap(lambda w: fg.vjp(f, X[0])[1](w)[0])(np.eye(4)), fg.jacobian(f)(X[0]), 32)
    _, pull = fg.vjp(f, X[0])
    near(fg.vmap(lambda w: pull(w)[0])(np.eye(4)), fg.jacobian(f)(X[0]), 32)


def test_maps_of_maps():
    f = fg.vmap(fg.vmap(lambda x, y: fnp.sin(x * y), (None, 0)), (0, None))
    near(f(X[0], Y[1]), np.sin(np.outer(X[0], Y[1])))
    distances = fg.vmap(fg.vmap(lambda a, b: fnp.linalg.norm(a - b), (None, 0)), (0, None))
    near(distances(X, Y), np.linalg.norm(X[:, None] - Y[None], axis=-1), 16)
    g = fg.grad(lambda x: fnp.sum(distances(x, Y)))
    near(g(X), fg.grad(lambda x: fnp.sum(fnp.linalg.norm(x[:, None] - Y[None], axis=-1)))(X), 32)
    near(fg.vmap(fg.grad(lambda x: fnp.sum(fg.vmap(lambda y: fnp.dot(x, y) ** 2)(Y))))(X),
         np.einsum("kj,lj,li->ki", X, Y, Y) * 2, 64)
    cube = np.arange(24.0).reshape(2, 3, 4)
    near(fg.vmap(fg.vmap(fg.vmap(lambda x: x * x)))(cube), cube ** 2)
    near(fg.vmap(fg.vmap(lambda x: fnp.sum(x), 1), 2)(cube), np.sum(cube, 0).T)
    near(fg.vmap(fg.grad(lambda x: fnp.sum(fg.vmap(fg.grad(lambda t: t ** 3))(x))))(X), 6 * X, 16)


def test_closures():
    """What f reaches without its arguments, also where that is differentiated."""
    near(fg.grad(lambda w: fnp.sum(fg.vmap(lambda x: fnp.dot(w, x) ** 2)(X)))(Y[0]),
         2 * X.T @ (X @ Y[0]), 32)
    near(fg.jvp(lambda w: fg.vmap(lambda x: fnp.dot(w, x) ** 2)(X), (Y[0],), (Y[1],))[1],
         2 * (X @ Y[0]) * (X @ Y[1]), 32)
    near(fg.hessian(lambda w: fnp.sum(fg.vmap(lambda x: fnp.sum(w * x) ** 3)(X)))(Y[0]),
         np.einsum("k,ki,kj->ij", 6 * X @ Y[0], X, X), 64)
    near(fg.vmap(lambda x: fg.grad(lambda w: fnp.dot(w, x) ** 2)(Y[0]))(X),
         2 * (X @ Y[0])[:, None] * X, 32)
    w = Y[0].copy()
    mapped = fg.vmap(lambda x: x * w)
    near(mapped(X), X * w)
    w[0] = 7.0                          # at each call its present value
    near(mapped(X), X * w)


def test_other_functions_at_each_call():
    """A function that does another thing at each call is not taken for what it did before."""
    state = {"power": 2}
    mapped = fg.vmap(lambda x: x ** state["power"] + state["power"])
    near(mapped(X), X ** 2 + 2)
    state["power"] = 3
    near(mapped(X), X ** 3 + 3, 4)
    near(mapped(X[:2]), X[:2] ** 3 + 3, 4)
    state["power"] = 2
    near(mapped(X), X ** 2 + 2)


def test_rules_of_the_user():
    """Called lane by lane, as a recording cannot tell what they do."""
    @fg.custom_vjp
    def f(x):
        return fnp.sum(x ** 2)

    f.defvjp(lambda x: (f(x), x), lambda x, g: (3.0 * x * g,))     # on purpose another slope
    near(fg.vmap(f)(X), np.sum(X ** 2, 1))
    near(fg.vmap(fg.grad(f))(X), 3 * X)
    near(fg.grad(lambda x: fnp.sum(fg.vmap(f)(x)))(X), 3 * X)
    near(fg.vmap(lambda x: f(x) * x, 0, 1)(X), (np.sum(X ** 2, 1)[:, None] * X).T)


def test_stopped_gradients():
    def f(x, c):
        return fnp.sum(x * fg.stop_gradient(x) ** 2) + fnp.sum(fg.stop_gradient(c)[:2] * c[2:])

    slopes = loop(fg.grad(f, (0, 1)), [X, Y], [0, 0])
    for g in (fg.vmap(fg.grad(f, (0, 1))),
              fg.grad(lambda x, c: fnp.sum(fg.vmap(f)(x, c)), (0, 1)),
              fg.compile(fg.grad(lambda x, c: fnp.sum(fg.vmap(f)(x, c)), (0, 1)))):
        for found, value in zip(g(X, Y), slopes):
            near(found, value, 8)


def test_values_that_get_out():
    """As in a loop: f is called for each lane."""
    near(fg.vmap(lambda x: x * float(np.asarray(x.detach())[0]))(X), X * X[:, :1])
    near(fg.vmap(lambda x: x * x.detach().numpy())(X), X * X)


def test_infinite_entries_in_some_lanes():
    x = X.copy()
    x[1] = -np.inf
    g = fg.grad(fnp.logsumexp)
    near(fg.vmap(g)(x), loop(g, [x], [0]), 8)
    near(fg.vmap(g)(x[::-1]), loop(g, [x[::-1]], [0]), 8)
    near(fg.vmap(g)(x[1:]), loop(g, [x[1:]], [0], 2), 8)


def test_pickles_and_names():
    import pickle
    mapped = pickle.loads(pickle.dumps(fg.vmap(smooth, (0, None), 0)))
    near(mapped(X, Y[0]), loop(lambda x: smooth(x, Y[0]), [X], [0]), 8)
    assert "vmap of smooth" in repr(mapped) and mapped.__name__ == "smooth"

    class Model:
        scale = 2.0

        @fg.vmap
        def __call__(self, x):
            return x

    class Other:
        def f(self, x):
            return 2 * x

    near(fg.vmap(Other().f)(X), 2 * X)


def test_arguments_are_left_alone():
    x = X.copy()
    kept = x.copy()

    def f(x):
        y = x + 0.0
        y[0] = 9.0
        return y

    fg.vmap(f)(x)
    fg.vmap(lambda x: x)(x)[...] = 1.0
    fg.vmap(lambda x: x, 1)(x)[...] = 1.0
    np.testing.assert_array_equal(x, kept)


# ---- what the graph looks like --------------------------------------------------------------

def operators_of(graph):
    """The operators of the nodes that outputs depend on, with their shapes."""
    seen, stack = set(), list(graph.outputs)
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            stack += graph.operands_of(i)
    return [(graph.name(i), graph.shape(i)) for i in sorted(seen)]


def test_jacobian_of_observations_is_plain_array_code():
    """A scalar function of several inputs over many observations: columns, not entries."""
    def f(x):
        return fnp.exp(-x[0] * x[1]) * fnp.sin(x[2]) / (1 + x[3] ** 2) + x[0] * fnp.log(x[1])

    observations = np.linspace(0.5, 1.5, 400).reshape(100, 4)
    for g in (fg.grad(f), fg.jacobian(f)):
        graph = record(lambda a, g=g: [fg.vmap(g)(a[0])], [observations]).graph
        for name, shape in operators_of(graph):
            assert name not in ("gather", "scatter", "place", "transpose", "assign", "call"), graph
            if name in core.functions:
                assert shape == (100,), graph
        near(replay(graph, [observations])[0], loop(g, [observations], [0], 100), 64)


def test_recordings_of_mapped_functions():
    """Inside a recording nothing of the values gets in: a replay with others is right."""
    other = X[::-1] * 1.5 + 0.1

    def f(x, c):
        return fnp.where(x > 0.2, fnp.sort(x) * c[0], x[fnp.argmax(x)]) + fnp.max(x) * c

    for g in (f, fg.jacobian(f), lambda x, c: fg.grad(lambda x: fnp.sum(f(x, c) ** 2))(x)):
        recording = record(lambda a, g=g: [fg.vmap(g, (0, None))(*a)], [X, Y[0]])
        assert recording.reason is None
        assert not recording.captured
        near(replay(recording.graph, [other, Y[1]])[0],
             loop(lambda x, g=g: g(x, Y[1]), [other], [0]), 256, 1.0)


def test_guards_of_what_all_lanes_share():
    def f(x, c):
        return x if c > 0 else -x

    recording = record(lambda a: [fg.vmap(f, (0, None))(*a)], [X, 1.0])
    assert [guard.kind for guard in recording.graph.guards].count("bool") >= 1
    near(replay(recording.graph, [Y, 2.0])[0], Y)
    with pytest.raises(GuardError):
        replay(recording.graph, [Y, -2.0])


def test_same_graph():
    one, other = [record(lambda a, c=c: [a[0][[0, 1]] * c], [X]).graph for c in (2.0, 3.0)]
    again = record(lambda a: [a[0][[0, 1]] * 2.0], [X]).graph
    assert same_graph(one, again) and not same_graph(one, other)
    index = record(lambda a: [a[0][[0, 2]] * 2.0], [X]).graph
    assert not same_graph(one, index)


# ---- compiled -------------------------------------------------------------------------------

OTHER = X[::-1] * 1.3 + 0.05


@pytest.mark.parametrize("f", [
    lambda x, c: fnp.sum(fnp.sin(x) * c), lambda x, c: fnp.where(x > 0.1, x * c[0], c),
    lambda x, c: fnp.sort(x)[::-1] * c, lambda x, c: fnp.logsumexp(x * c) + fnp.max(x),
    lambda x, c: x[fnp.argmax(x)] * c[fnp.argmin(x)], lambda x, c: fnp.outer(x, c) @ x,
], ids=range(6))
def test_compiled(f):
    def each(x, c):
        return fnp.sum(fnp.cos(f(x, c)))

    for g in (f, fg.grad(each), fg.jacobian(f), fg.grad(each, 1)):
        compiled, mapped = fg.compile(fg.vmap(g, (0, None))), fg.vmap(fg.compile(g), (0, None))
        for x, c in ((X, Y[0]), (OTHER, Y[1]), (X, Y[2])):
            value = loop(lambda x, g=g, c=c: g(x, c), [x], [0])
            near(compiled(x, c), value, 256, 1.0)
            near(mapped(x, c), value, 256, 1.0)
    total = fg.compile(lambda x, c: fnp.sum(fg.vmap(each, (0, None))(x, c)))
    slope = fg.compile(fg.grad(lambda x, c: fnp.sum(fg.vmap(each, (0, None))(x, c)), (0, 1)))
    for x, c in ((X, Y[0]), (OTHER, Y[1])):
        wanted_ = (loop(lambda x, c=c: fg.grad(each)(x, c), [x], [0]),
                   sum(fg.grad(each, 1)(one, c) for one in x))
        for found in (slope(x, c), fg.grad(total, (0, 1))(x, c)):
            for one, other in zip(found, wanted_):
                near(one, other, 256, 1.0)


def test_compiled_closures():
    """Arrays that a mapped function reaches are inputs of the program: changed, they count."""
    table, scale = Y.copy(), {"c": np.full(4, 2.0)}
    compiled = fg.compile(lambda x: fg.vmap(lambda x, y: x * y * scale["c"])(x, table))
    near(compiled(X), X * Y * 2)
    table[:] = X
    scale["c"] = np.arange(4.0)
    near(compiled(X), X * X * np.arange(4.0))


def test_parameters():
    w = fg.tensor(Y[0], requires_grad=True)
    fnp.sum(fg.vmap(lambda x: fnp.dot(w, x) ** 2)(X)).backward()
    near(np.asarray(w.grad), 2 * X.T @ (X @ Y[0]), 32)


# ---- loops of programs ----------------------------------------------------------------------

def carried(x, c):
    def step(total, entry):
        total = fnp.sin(total) * c[0] + entry
        return total, total * c[1]

    return fg.scan(step, 0.5 * x[0], x)


def counted(x, c):
    return fg.fori_loop(0, 5, lambda k, v: v * c + fnp.sum(v) / 7, x)


def ended(x, c):
    return fg.while_loop(lambda v: fnp.sum(v * v) < 30.0, lambda v: 1.5 * v + c, x)


@pytest.mark.parametrize("f", [carried, counted, ended])
def test_loops(f):
    def first(x, c):
        found = f(x, c)
        return found[1] if isinstance(found, tuple) else found

    value = loop(first, [X, Y], [0, 0])
    shared = loop(lambda x: first(x, Y[0]), [X], [0])
    near(fg.vmap(fg.compile(first))(X, Y), value, 64)
    near(fg.vmap(fg.compile(first), (0, None))(X, Y[0]), shared, 64)
    if f is ended:
        return                              # how often a loop runs is a decision
    near(fg.vmap(first)(X, Y), value, 64)
    near(fg.vmap(first, (0, None))(X, Y[0]), shared, 64)
    near(fg.compile(fg.vmap(first))(X, Y), value, 64)
    g = fg.grad(lambda x, c: fnp.sum(fnp.sin(first(x, c))))
    near(fg.vmap(g)(X, Y), loop(g, [X, Y], [0, 0]), 256, 1.0)
    near(fg.compile(fg.vmap(g))(X, Y), loop(g, [X, Y], [0, 0]), 256, 1.0)
    near(fg.compile(fg.grad(lambda x, c: fnp.sum(fnp.sin(fg.vmap(first)(x, c)))))(X, Y),
         loop(g, [X, Y], [0, 0]), 256, 1.0)


# ---- arrays that are changed after their use -------------------------------------------------

def reused_factor(x):
    a = np.array([1.0, 2.0, 3.0])
    y = x * a
    a *= 2.0
    return np.sum(y)


def reused_unit_vector(x):
    unit, total = np.zeros(3), 0.0
    for k in range(3):
        unit[:] = 0.0
        unit[k] = k + 1.0
        total = total + np.sum(x * unit) ** 2
    return total


def reused_index(x):
    places = np.array([0, 1])
    y = x[places]
    places[0] = 2
    return np.sum(y * np.array([1.0, 3.0]))


def reused_mask(x):
    mask = np.array([True, False, True])
    y = np.where(mask, x, 0.0)
    mask[1] = True
    return np.sum(y * y)


def reused_table(x):
    table = np.array([-1.0, 0.0, 1.0])
    k = np.searchsorted(table, x)
    table[:] = 5.0
    return np.sum(x * k)


def reused_value(x):
    y, value = x * 1.0, np.array([1.0, 2.0])
    y[:2] = value
    value[0] = 9.0
    return np.sum(y * x)


def reused_part(x):
    a = np.ones((2, 3))
    y = x * a[0]
    a[0] = 7.0
    return np.sum(y)


def reused_copy(x):
    a = np.ones(3)
    y = fnp.array(a)
    a[:] = 7.0
    return np.sum(y * x)


REUSED = [reused_factor, reused_unit_vector, reused_index, reused_mask, reused_table, reused_value,
          reused_part, reused_copy]


@pytest.mark.parametrize("f", REUSED)
def test_what_is_changed_after_its_use_counts_as_it_was(f):
    x = np.random.default_rng(2).uniform(-1.5, 1.5, (LANES, 3))
    value = np.stack([f(row) for row in x])
    slope = np.stack([fg.grad(f)(row) for row in x])
    step = 1e-6 * np.eye(3)
    np.testing.assert_allclose(slope, [[(f(row + e) - f(row - e)) / 2e-6 for e in step]
                                       for row in x], atol=1e-7)
    for g in (fg.vmap(f), fg.compile(fg.vmap(f)),
              fg.compile(lambda x: fg.scan(lambda c, row: (c, f(row)), 0.0, x)[1])):
        near(g(x), value)
        near(g(x + 1.0), np.stack([f(row) for row in x + 1.0]))
    for g in (fg.vmap(fg.grad(f)), fg.compile(fg.vmap(fg.grad(f))),
              fg.grad(lambda x: np.sum(fg.vmap(f)(x))),
              fg.compile(fg.grad(lambda x: np.sum(
                  fg.scan(lambda c, row: (c, f(row)), 0.0, x)[1])))):
        near(g(x), slope)


def test_an_array_of_the_caller_that_lanes_change_is_changed_once_a_lane():
    seen = np.zeros(3)

    def f(x):
        y = np.sum(x * seen)
        seen[:] += 1.0
        return y

    x = np.ones((LANES, 3))
    near(fg.vmap(f)(x), np.array([0.0, 3.0, 6.0]))
    near(seen, np.full(3, 3.0))


class Weighted:
    def __init__(self):
        self.w = np.array([1.0, 2.0, 3.0])

    def restored(self, x):
        self.w[0] += 1.0
        y = np.sum(x * self.w)
        self.w[0] -= 1.0
        return y

    def by_a_helper(self, x):
        self.scaled(2.0)
        y = np.sum(x * self.w)
        self.scaled(0.5)
        return y

    def scaled(self, by):
        self.w *= by

    def by_another_name(self, x):
        w = self.w
        w += 1.0
        y = np.sum(x * self.w)
        np.subtract(w, 1.0, out=w)
        return y

    def __getattr__(self, name):
        raise RuntimeError(f"{name} is asked for by running code")


@pytest.mark.parametrize("name", ["restored", "by_a_helper", "by_another_name"])
@pytest.mark.parametrize("transform", [lambda f: f, fg.grad], ids=["value", "grad"])
def test_an_array_that_a_lane_changes_and_restores(name, transform):
    plain, model = Weighted(), Weighted()
    f = transform(getattr(plain, name))
    x = np.random.default_rng(5).uniform(-1.0, 1.0, (LANES, 3))
    expected = np.stack([f(row) for row in x])
    for mapped in (fg.vmap(transform(getattr(model, name))),
                   fg.compile(fg.vmap(transform(getattr(model, name)))),
                   fg.vmap(lambda x: transform(getattr(model, name))(x))):
        for _ in range(2):
            near(mapped(x), expected)
            near(model.w, plain.w)


def quiet(x, w):
    return np.sum(x * w)


def by_item(x, w):
    w[0] += 1.0
    y = np.sum(x * w)
    w[0] -= 1.0
    return y


def test_a_helper_is_looked_at_anew_when_its_name_stands_for_another():
    """Of what a function reaches, what tells that it changes no array is remembered."""
    def mapped_of(step, hold):
        def in_a_cell(x):
            return step(x, w)

        def by_default(x, step=step):
            return step(x, w)

        def in_a_list(x):
            return steps[0](x, w)

        def bind(other):
            nonlocal step
            step = steps[0] = other
            by_default.__defaults__ = (other,)

        w, steps = np.array([1.0, 2.0, 3.0]), [step]
        f = {"cell": in_a_cell, "default": by_default, "list": in_a_list}[hold]
        return fg.vmap(f), bind, w

    x = np.random.default_rng(6).uniform(-1.0, 1.0, (LANES, 3))
    for hold in ("cell", "default", "list"):
        mapped, bind, w = mapped_of(quiet, hold)
        for _ in range(2):
            near(mapped(x), x @ [1.0, 2.0, 3.0])
        for _ in range(2):
            bind(by_item)
            near(mapped(x), x @ [2.0, 2.0, 3.0])
            near(w, np.array([1.0, 2.0, 3.0]))
            bind(quiet)
            near(mapped(x), x @ [1.0, 2.0, 3.0])


def wrong_axis(m, operands, how):
    return m.add("flip", [m.new[operands[0]]], (m.lanes, *how.shape), how.dtype, (7,))


def wrong_shape(m, operands, how):
    return m.add("flip", [m.new[operands[0]]], (m.lanes, *how.shape, 1), how.dtype, (1,))


def no_lanes(m, operands, how):
    """What differs between lanes is taken for what does not, so that a decision goes by one lane."""
    m.has[operands[0] + 1] = False
    first = m.add("item", [m.new[operands[0]]], how.shape, how.dtype, (m.lanes - 1,))
    return m.add("flip", [first], how.shape, how.dtype, (0,))


@pytest.mark.parametrize("rule", [wrong_axis, wrong_shape, no_lanes])
def test_a_wrong_rule_is_told(rule, monkeypatch):
    """And is not done lane by lane without a word."""
    def f(x):
        y = fnp.flip(x)
        return y * 2.0 if rule is not no_lanes or y[0] > 0.5 else -y

    monkeypatch.setitem(SHAPED_RECORDS, "flip", SHAPED_RECORDS["flip"]._replace(lanes=rule))
    x = np.array([[1.0, 2.0], [0.2, 0.1]])
    for g in (fg.vmap(f), fg.grad(lambda x: fnp.sum(fg.vmap(f)(x)))):
        with pytest.raises((ValueError, RuntimeError), match="flip|please report it"):
            g(x)


def test_lanes_of_several_shapes_are_refused():
    x = np.array([[1, 2, 2], [1, 2, 3]])
    with pytest.raises(ValueError, match=r"the shapes \(2,\), \(3,\); write fnp\.where"):
        fg.vmap(lambda x: np.unique(x))(x)
    with pytest.raises(ValueError, match=r"another number of entries in each; write fnp\.where"):
        fg.vmap(lambda x: np.nonzero(x > 2)[0])(x)


def test_what_a_function_of_another_module_changes():
    helpers = types.ModuleType("helpers")
    exec("import numpy as np\nseen = np.zeros(1)\n"
         "def same(x):\n    return x\n"
         "def count(x):\n    seen[0] += 1\n    return x * seen[0]\n", vars(helpers))

    def same(x):
        return helpers.same(x)

    def f(x):
        y = helpers.count(same(x))
        return y

    for k in range(2):
        near(fg.vmap(f)(np.ones(3)), np.arange(1.0, 4.0) + 3 * k)
        near(helpers.seen, [3.0 * (k + 1)])
