"""Mapping: a mapped function tells what a loop over the lanes tells, in every mode and nesting.

Rows of the operator table and shaped operators are drawn from their tables, so that a new one is
tested without a new line here.
"""

import itertools
import math

import numpy as np
import pytest
from laws import COMPARISONS, DTYPES, ROWS, name_of, operands, wanted
from test_random_derivatives import RECORDED, programs
from test_replay import ARRAY, SHAPED

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad._graph import Builder, Guard, Loop, Slot
from fastgrad._record import record
from fastgrad._replay import replay
from fastgrad._vmap import map_graph, same_graph

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


def one_node(name, shapes, dtypes, shape, dtype, attribute=None, constants=()):
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


@pytest.mark.parametrize("name", SHAPED)
def test_shaped_operators(name):
    lanes = np.stack([ARRAY * (1 + 0.1 * k) for k in range(LANES)])
    for f in SHAPED[name]:
        near(fg.vmap(f)(lanes), loop(f, [lanes], [0]), 64)
        near(fg.vmap(f, 1)(np.moveaxis(lanes, 0, 1)), loop(f, [lanes], [0]), 64)
        near(fg.vmap(f, -1, -1)(np.moveaxis(lanes, 0, -1)),
             np.moveaxis(loop(f, [lanes], [0]), 0, -1), 64)

        def total(x, f=f):
            return fnp.sum(fnp.sin(f(x)))

        for g in (fg.grad(total), fg.jacobian(f), fg.hessian(total)):
            value = loop(g, [lanes], [0])
            near(fg.vmap(g)(lanes), value, 256, 1.0)
        near(fg.grad(lambda x: fnp.sum(fg.vmap(total)(x)))(lanes), loop(fg.grad(total), [lanes], [0]),
             256, 1.0)
        tangent = np.cos(lanes)
        near(fg.jvp(fg.vmap(f), (lanes,), (tangent,))[1],
             loop(lambda x, t, f=f: fg.jvp(f, (x,), (t,))[1], [lanes, tangent], [0, 0]), 256, 1.0)


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
