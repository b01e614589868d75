"""Plans against the recorded run, over the operator table and over random programs."""

import gc
import threading

import numpy as np
import pytest
from fastgrad._core.core import GuardError
from laws import COMPARISONS, ROWS, name_of, operands, special_operands
from laws.examples import SHAPED, shaped

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core.program import Plan
from fastgrad._operators.slots import Slot
from fastgrad.graphs.check import verify
from fastgrad.graphs.graph import Builder, Guard, Loop
from fastgrad.graphs.record import record

TABLE = {row.name: row for row in ROWS}
SHAPES = ((), (1,), (7,), (64,), (1000,), (3, 5), (0,), (2, 0, 3), (2, 3, 4))


def same(a, b, ulps=0):
    """Equal bits but for the sign of a NaN; or so many units in the last place apart."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, b.dtype, a.shape, b.shape)
    if a.dtype.kind != "f":
        np.testing.assert_array_equal(a, b)
        return
    nan = np.isnan(a)
    np.testing.assert_array_equal(nan, np.isnan(b))
    a, b = np.where(nan, 0, a), np.where(nan, 0, b)
    if ulps == 0:
        bits = "u4" if a.dtype == np.float32 else "u8"
        np.testing.assert_array_equal(a.astype(a.dtype).view(bits), b.astype(b.dtype).view(bits))
        return
    with np.errstate(all="ignore"):
        scale = np.spacing(np.maximum(np.abs(a), np.abs(b)))
        distance = np.where(a == b, 0, np.abs(a - b) / scale)
    assert np.all(distance <= ulps), distance.max()


def agree(function, values, ulps=0, runs=2):
    """The plan of what a function does agrees with the function itself; returns the plan."""
    recording = record(function, list(values))
    plan = Plan(recording.graph)
    plan.verify()
    memory = plan.memory()
    assert memory["frame"] <= 1.15 * memory["bound"] + 64, memory
    inputs = list(values) + [np.asarray(x) for x in recording.captured]
    for _ in range(runs):
        with np.errstate(all="ignore"):
            results = plan.run(inputs)
        assert type(results) is list
        for got, expected, kind in zip(results, recording.results, recording.graph.kinds):
            assert (type(got) is float) == (kind == "float")
            same(got, expected, ulps)
    str(plan), plan.explain()
    return plan


# ---- the operator table -----------------------------------------------------------------------

def elementwise(name, xs, dtype, shape):
    """A graph of one element-wise operator."""
    b = Builder()
    inputs = [b.input(x.shape, x.dtype) for x in xs]
    return b.graph([b.add(name, inputs, shape, dtype)])


def reference(row, xs, dtype, shape):
    """The same by the core's own functions."""
    with np.errstate(all="ignore"):
        return np.asarray(fg._core.core.functions[row.name](*[
            fg._core.core.tensor(np.asarray(x)) for x in xs]).numpy(), dtype)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", ROWS + COMPARISONS, ids=name_of)
def test_every_row(row, dtype):
    out = "bool" if row in COMPARISONS else dtype
    arity = row.arity
    for shape in SHAPES:
        if row in COMPARISONS:
            rng = np.random.default_rng(1)
            xs = [rng.integers(0, 3, shape).astype(dtype) for _ in range(2)]
        else:
            xs = operands(row, dtype, shape)
        plan = Plan(elementwise(row.name, xs, out, shape))
        plan.verify()
        same(plan.run([x if x.shape else x[()] for x in xs])[0], reference(row, xs, out, shape))
    if arity > 1:                       # broadcasting
        for shapes, shape in ((((3, 1), (1, 4)), (3, 4)), (((), (5,)), (5,)), (((5,), ()), (5,)),
                              (((2, 3, 4), (3, 1)), (2, 3, 4)), (((4,), (2, 3, 4)), (2, 3, 4))):
            if row in COMPARISONS:
                xs = [np.arange(np.prod(s)).reshape(s).astype(dtype) for s in shapes]
            else:
                xs = operands(row, dtype, [*shapes, shape][:arity])
            plan = Plan(elementwise(row.name, xs, out, shape))
            same(plan.run([x if x.shape else x[()] for x in xs])[0], reference(row, xs, out, shape))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_special_values(row, dtype):
    xs = special_operands(row, dtype)
    for k in range(row.arity):
        if row.mask and k == 2:
            xs[k] = xs[k] != 0
    plan = Plan(elementwise(row.name, xs, dtype, xs[0].shape))
    same(plan.run(xs)[0], reference(row, xs, dtype, xs[0].shape))
    for i in range(0, len(xs[0]), max(len(xs[0]) // 50, 1)):     # scalars, by libm
        one = [x[i] for x in xs]
        plan = Plan(elementwise(row.name, [np.asarray(x) for x in one], dtype, ()))
        same(plan.run(one)[0], reference(row, one, dtype, ()))


@pytest.mark.parametrize("row", [row for row in ROWS if row.arity < 3], ids=name_of)
def test_constants_fold_to_what_is_computed(row):
    rng = np.random.default_rng(3)
    for shape in ((), (5,)):
        values = rng.uniform(row.low, row.high, 2)
        xs = [np.full(shape, v) for v in values[:row.arity]]
        b = Builder()
        constants = [b.constant(x if shape else np.float64(x)) for x in xs]
        plan = Plan(b.graph([b.add(row.name, constants, shape)]))
        assert "blocks" not in str(plan) and "scalars" not in str(plan)
        same(plan.run([])[0], reference(row, xs, "float64", shape))


# ---- shaped operators -------------------------------------------------------------------------

def draw(*shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


LISTS = {       # several results of large arrays in one program
    "sum": lambda x: [fnp.sum(x), fnp.sum(x, 0), fnp.sum(x, -1), fnp.sum(x, 1, keepdims=True),
                      fnp.sum(x, (0, 2)), fnp.sum(x, keepdims=True), fnp.mean(x), fnp.mean(x, 1)],
    "prod": lambda x: [fnp.prod(x), fnp.prod(x, 0), fnp.prod(x, (1, 2)), fnp.prod(x, 1, keepdims=True)],
    "max": lambda x: [fnp.max(x), fnp.max(x, 0), fnp.min(x, (1, 2)), fnp.min(x, 1, keepdims=True)],
    "logsumexp": lambda x: [fnp.logsumexp(x), fnp.logsumexp(x, axis=0), fnp.logsumexp(x, axis=(1, 2))],
    "views": lambda x: [x.T, x.reshape(-1), x.T.reshape(-1), x[::-1, None, 1:, ...], x[..., 1],
                        fnp.flip(x, (0, 2)), fnp.transpose(x, (2, 0, 1)) * 2.0, x[1], x[1, 2, 3],
                        fnp.broadcast_to(x[:, :1], x.shape) + 1.0, x.T.T, -(-x), x.T.reshape(-1) * 2],
    "join": lambda x: [fnp.concatenate([x, x * 2.0], 1), fnp.stack([x[0], x[1].T.T]),
                       fnp.array([x[0, 0, 0], fnp.sum(x), 2.0])],
    "index": lambda x: [x[np.array([1, 0, 1])], x[:, np.array([0, 1])], x[x.numpy() > 9e9]
                        if False else x[0][np.array([[0, 1], [2, 1]]), 1]],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@shaped
def test_shaped_operators(name, dtype):
    f, x = SHAPED[name]
    x = x.astype(dtype)
    agree(lambda a: [f(a[0])], [x])
    agree(lambda a: list(fg.value_and_grad(lambda x: fnp.sum(fnp.sin(f(x))))(a[0])), [x], ulps=300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LISTS)
def test_several_results(name, dtype):
    for shape in ((2, 3, 4), (4, 30, 70), (3, 3, 500)):
        agree(lambda a: LISTS[name](a[0]), [draw(*shape, dtype=dtype)], ulps=4 if name == "sum" else 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LISTS)
def test_their_gradients(name, dtype):
    def f(x):
        return sum([fnp.sum(fnp.sin(y) * y) for y in LISTS[name](x)])

    agree(lambda a: list(fg.value_and_grad(f)(a[0])), [draw(2, 3, 4, dtype=dtype)], ulps=300)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3,)), ((2,), (2, 3)), ((2, 3), (3, 4)),
                                    ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 1)),
                                    ((1, 6, 2, 3), (5, 1, 3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 2)),
                                    ((0, 3), (3, 2)), ((2, 0), (0, 2)), ((60, 70), (70, 80))])
def test_matmul(shapes, dtype):
    def f(a):
        p = fnp.matmul(a[0], a[1])
        return [p, p * 2.0]

    a, b = draw(*shapes[0], dtype=dtype), draw(*shapes[1], dtype=dtype, seed=1)
    agree(f, [a, b], ulps=64)
    plan = agree(lambda v: [fnp.matmul(v[0].T if a.ndim == 2 else v[0], v[1])],
                 [a.T.copy() if a.ndim == 2 else a, b], ulps=64)
    assert "copy" not in str(plan)
    agree(lambda v: fg.grad(lambda x, y: fnp.sum(fnp.sin(fnp.matmul(x, y))), argnums=(0, 1))(*v),
          [a, b], ulps=3000 if dtype == "float64" else 3000)


def test_sums_do_not_depend_on_where_blocks_begin():
    for n in (1, 15, 16, 511, 512, 513, 1023, 1024, 1025, 5000, 32768, 32769, 200_003):
        for dtype in ("float32", "float64"):
            x = draw(n, dtype=dtype)
            agree(lambda a: [fnp.sum(a[0]), fnp.sum(fnp.sin(a[0]) * a[0])], [x])


# ---- what is written about simplifications -----------------------------------------------------

def test_identities_keep_signed_zeros():
    x = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 5e-324])

    def f(a):
        x = a[0]
        return [x * 1.0, x / 1.0, x - 0.0, x + 0.0, x * 0.0, 0.0 - x, -(-x), x + -0.0, -0.0 + x,
                +x, (-x) * (-x), (-x) / (-x), x - (-x), x + (-x), (-x) + x, -x * 1.0]

    plan = agree(f, [x])
    assert str(plan).count("multiply") == 2         # by 0, and of the negated ones


def test_weights_of_one_are_left_out():
    n = 50
    b = Builder()
    x = b.input((n,))
    one = b.constant(np.ones(n))
    inner = b.add("weigh", [one, x], (n,))
    plan = Plan(b.graph([b.add("weigh", [inner, x], (n,))]))
    assert str(plan).count("weigh(") == 1
    values = np.tile([0.0, -0.0, 2.0, -1e-200, np.inf], 10)
    expected = np.where(values == 0, 0, values * values)
    same(plan.run([values])[0], expected)


def test_equal_nodes_are_computed_once():
    plan = agree(lambda a: [fnp.sin(a[0]) * a[1] + a[1] * fnp.sin(a[0])], [draw(100), draw(100, seed=1)])
    assert str(plan).count("sin(") == 1 and str(plan).count("multiply(") == 1


def test_value_and_gradient_are_one_run():
    def f(x):
        return fnp.sum(fnp.sin(x) * fnp.exp(-x * x) + fnp.tanh(x) * x)

    for n in (1, 10, 1000, 100_000):
        plan = agree(lambda a: list(fg.value_and_grad(f)(a[0])), [draw(n)])
        assert plan.memory()["frame"] == 0
        assert str(plan).count("blocks of") == 1


# ---- guards -----------------------------------------------------------------------------------

def test_guards():
    b = Builder()
    x, y = b.input(weak=True), b.input((5,))
    zero = b.constant(0.0)
    positive = b.add("greater", [x, zero], (), bool)
    mask = b.add("greater", [y, zero], (5,), bool)
    double = b.add("multiply", [y, x], (5,))
    graph = b.graph([double], guards=[Guard(positive, "bool", True, "a.py:1"),
                                      Guard(mask, "count", 3, "a.py:2")])
    plan = Plan(graph)
    values = np.array([1.0, 2.0, -1.0, 3.0, -5.0])
    np.testing.assert_array_equal(plan.run([2.0, values])[0], 2 * values)
    assert plan.run([-2.0, values]) == 0
    assert plan.run([2.0, -values]) == 1
    assert plan.run([-2.0, -values]) == 0
    np.testing.assert_array_equal(plan.run([2.0, values])[0], 2 * values)


# ---- what NumPy computes ----------------------------------------------------------------------

def test_calls_and_their_errors():
    b = Builder()
    x = b.input((4,))
    order = b.add("call", [x], (4,), np.int64, ("numpy.argsort", (Slot(0),), (), None))
    taken = b.add("gather", [x, order], (4,), np.float64, Slot(1))
    plan = Plan(b.graph([b.add("sin", [taken], (4,))]))
    values = np.array([3.0, 1.0, 2.0, 0.5])
    same(plan.run([values])[0], reference(TABLE["sin"], [np.sort(values)], "float64", (4,)))
    b = Builder()
    x, i = b.input((4,)), b.input((2,), np.int64)
    plan = Plan(b.graph([b.add("gather", [x, i], (2,), np.float64, Slot(1))]))
    same(plan.run([values, np.array([1, 3])])[0], values[[1, 3]])
    with pytest.raises(IndexError):
        plan.run([values, np.array([1, 4])])
    same(plan.run([values, np.array([-1, 0])])[0], values[[-1, 0]])


def test_a_result_of_another_shape():
    b = Builder()
    x = b.input((3,), bool)
    plan = Plan(b.graph([b.add("call", [x], (2,), np.int64, ("numpy.flatnonzero", (Slot(0),), (), None))]))
    same(plan.run([np.array([True, False, True])])[0], np.array([0, 2]))
    with pytest.raises(GuardError, match="flatnonzero"):
        plan.run([np.array([True, False, False])])
    same(plan.run([np.array([True, True, False])])[0], np.array([0, 1]))


# ---- loops ------------------------------------------------------------------------------------

def scan_graph(length, reverse=False, n=4, wanted=(0, 1, 2, 3), dtype="float64"):
    """Carries a vector and a number along, adds a row times a constant, stacks both."""
    b = Builder()
    v, s, row, x, k = (b.input((n,), dtype), b.input((), dtype), b.input((n,), dtype),
                       b.input((), dtype), b.input((n,), dtype))
    new = b.add("add", [b.add("multiply", [v, s], (n,), dtype),
                        b.add("multiply", [row, k], (n,), dtype)], (n,), dtype)
    total = b.add("add", [b.add("sum", [new], (), dtype, (0,)), x], (), dtype)
    half = b.add("tanh", [total], (), dtype)
    body = b.graph([new, half, b.add("sin", [v], (n,), dtype), total, v])
    b = Builder()
    operands = [b.input((n,), dtype), b.input((), dtype), b.input((length, n), dtype),
                b.input((length,), dtype), b.input((n,), dtype)]
    loop = b.add("custom", operands, (), dtype,
                 Loop("scan", body, 2, 2, 1, length, reverse))
    shapes = [(n,), (), (length, n), (length,), (length, n)]
    return b.graph([b.add("result", [loop], shapes[k], dtype, constant=k) for k in wanted])


def scan_by_hand(v, s, rows, xs, k, reverse):
    order = range(len(xs))[::-1] if reverse else range(len(xs))
    sines, totals, before = np.zeros_like(rows), np.zeros_like(xs), np.zeros_like(rows)
    for i in order:
        sines[i], before[i] = np.sin(v), v
        v = v * s + rows[i] * k
        totals[i] = v.sum() + xs[i]
        s = np.tanh(totals[i])
    return v, s, sines, totals, before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 50])
def test_scan(length, reverse, dtype):
    values = [draw(4, dtype=dtype), draw(1, dtype=dtype)[0], draw(length, 4, dtype=dtype),
              draw(length, dtype=dtype), draw(4, dtype=dtype, seed=2)]
    expected = scan_by_hand(*values, reverse)
    near = {"rtol": 1e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-11}     # after 50 steps
    for wanted in ((0, 1, 2, 3, 4), (1,), (4, 0), (2,)):
        plan = Plan(scan_graph(length, reverse, 4, wanted, dtype))
        plan.verify()
        for _ in range(2):
            for k, got in zip(wanted, plan.run(values)):
                np.testing.assert_allclose(got, expected[k], **near)
                assert np.asarray(got).dtype == dtype
    rows = np.zeros((length * 2 + 1, 8), dtype)[:length * 2:2, ::2]
    rows[...] = values[2]
    values[2] = rows
    np.testing.assert_allclose(plan.run(values)[0], expected[2], **near)


def while_graph(limit, guarded=False):
    b = Builder()
    x, _ = b.input(), b.input()
    flag = b.add("less", [x, b.constant(np.float64(1e9))], (), bool)
    body = b.graph([b.add("multiply", [x, b.constant(np.float64(2.0))]), ],
                   guards=[Guard(flag, "bool", True, "here.py:3")] if guarded else [])
    b = Builder()
    x, bound = b.input(), b.input()
    condition = b.graph([b.add("less", [x, bound], (), bool)])
    b = Builder()
    x = b.input()
    loop = b.add("custom", [x, b.constant(np.float64(limit))], (), np.float64,
                 Loop("while", body, 1, 0, 1, None, False, condition))
    return b.graph([b.add("result", [loop], (), np.float64, constant=0)])


def test_while():
    plan = Plan(while_graph(100.0))
    assert [plan.run([np.float64(x)])[0] for x in (1.0, 3.0, 100.0, 99.0)] == [128, 192, 100, 198]
    plan = Plan(while_graph(1e12, guarded=True))
    with pytest.raises(GuardError, match="here.py:3"):
        plan.run([np.float64(1.0)])
    assert plan.run([np.float64(1e13)]) == [1e13]


def test_endless_loops_can_be_interrupted():
    import signal

    plan = Plan(while_graph(np.inf))

    def ring(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            plan.run([np.float64(0.0)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert plan.run([np.float64(np.inf)]) == [np.inf]


@pytest.mark.parametrize("change", [
    dict(carries=1), dict(sequences=3), dict(constants=-1), dict(length=49), dict(length=-1),
    dict(length=None), dict(kind="for"), dict(kind="while"), dict(body=None), dict(carries=2.5),
    dict(length=2**60)])
def test_malformed_loops(change):
    g = scan_graph(50)
    place = [i for i, x in enumerate(g.attrs) if isinstance(x, Loop)][0]
    g.attrs[place] = g.attrs[place]._replace(**change)
    with pytest.raises((ValueError, TypeError)):
        Plan(g)


# ---- inputs -----------------------------------------------------------------------------------

def test_inputs_are_checked():
    b = Builder()
    x, y = b.input(weak=True), b.input((2, 3), np.float32)
    plan = Plan(b.graph([b.add("sin", [x]), b.add("sin", [y], (2, 3), np.float32)]))
    good = np.zeros((2, 3), np.float32)
    assert plan.run([1.0, good])[0] == np.sin(1.0)
    assert plan.run([np.float64(1.0), good])[0] == np.sin(1.0)
    for wrong in ([1.0], [1.0, good, good], [1, good], ["1", good], [1.0, good.astype(float)],
                  [1.0, [[1.0] * 3] * 2], [np.float32(1), good], [1.0, None]):
        with pytest.raises(TypeError):
            plan.run(wrong)
    for wrong in ([1.0, good.T], [1.0, good[0]], [np.zeros(1), good]):
        with pytest.raises(ValueError):
            plan.run(wrong)
    assert plan.run([1.0, good.T.copy().T])[0] == np.sin(1.0)
    big = np.zeros((4, 6), np.float32)
    big[::2, ::2] = [[1, 2, 3], [4, 5, 6]]
    same(plan.run([1.0, big[::2, ::2]])[1], plan.run([1.0, big[::2, ::2].copy()])[1])
    swapped = good.astype(">f4")
    same(plan.run([1.0, swapped])[1], plan.run([1.0, good])[1])


def test_outputs_share_nothing():
    b = Builder()
    x = b.input((6,))
    view = b.add("reshape", [x], (2, 3))
    y = b.add("sin", [x], (6,))
    plan = Plan(b.graph([x, x, view, y, y, b.add("reshape", [y], (3, 2)), b.constant(np.ones(3))]))
    values = np.arange(6.0)
    first = plan.run([values])
    second = plan.run([values])
    arrays = first + second + [values]
    for i, a in enumerate(arrays):
        assert a.flags.writeable
        for b_ in arrays[i + 1:]:
            assert not np.shares_memory(a, b_)
    first[0][:] = 7
    same(plan.run([values])[0], values)


# ---- threads ----------------------------------------------------------------------------------

def test_many_threads_have_frames_of_their_own():
    def f(a):
        x, w = a
        return list(fg.value_and_grad(lambda x: fnp.sum(fnp.tanh(x @ w) ** 2.0) + fnp.sum(fnp.sin(x)))(x))

    w = draw(40, 40)
    plan = agree(f, [draw(60, 40), w], ulps=500)
    inputs = [draw(60, 40, seed=k) for k in range(8)]
    expected = [plan.run([x, w]) for x in inputs]
    wrong = []

    def work(k):
        for _ in range(30):
            for got, good in zip(plan.run([inputs[k], w]), expected[k]):
                if not np.array_equal(got, good):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_results_do_not_depend_on_the_number_of_threads():
    def f(x):
        return fnp.sum(fnp.sin(x) * x) + fnp.sum(x * x * x)

    x = draw(300_001)
    plan = Plan(record(lambda a: list(fg.value_and_grad(f)(a[0])), [x]).graph)
    before = fg.get_num_threads()
    found = []
    try:
        for n in (1, 2, 3, 7):
            fg.set_num_threads(n)
            found.append(plan.run([x]))
    finally:
        fg.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(other, found[0]):
            same(a, b)


def test_nothing_leaks():
    plan = Plan(record(lambda a: list(fg.value_and_grad(lambda x: fnp.sum(fnp.sin(x)))(a[0])),
                       [draw(20)]).graph)
    x = draw(20)
    import sys
    before = sys.getrefcount(x)
    for _ in range(100):
        plan.run([x])
    assert sys.getrefcount(x) == before
    del plan
    gc.collect()


# ---- graphs that are wrong ---------------------------------------------------------------------

def good_graph():
    b = Builder()
    x, s = b.input((4, 3)), b.input(weak=True)
    y = b.add("multiply", [x, s], (4, 3))
    total = b.add("sum", [y], (3,), np.float64, (0,))
    turned = b.add("transpose", [y], (3, 4), np.float64, (1, 0))
    product = b.add("matmul", [turned, y], (3, 3))
    part = b.add("item", [product], (2,), np.float64, (1, slice(0, 2)))
    joined = b.add("concatenate", [total, part], (5,), np.float64, 0)
    flag = b.add("less", [s, b.constant(3.0)], (), bool)
    return b.graph([joined, total], guards=[Guard(flag, "bool", True, "")])


def test_the_good_graph():
    plan = Plan(good_graph())
    x = draw(4, 3)
    y = 2 * x
    got = plan.run([x, 2.0])
    np.testing.assert_allclose(got[0], np.concatenate([y.sum(0), (y.T @ y)[1, :2]]), rtol=1e-14)


def changed(**changes):
    g = good_graph()
    for key, value in changes.items():
        setattr(g, key, value)
    return g


@pytest.mark.parametrize("change", [
    dict(inputs=[0]), dict(inputs=[1, 0]), dict(inputs=[0, 99]), dict(outputs=[-1, 0]),
    dict(outputs=[0, 2**40]), dict(kinds=["array"]), dict(kinds=["array", "thing"]),
    dict(kinds=["float", "array"]), dict(shapes=[]), dict(shapes=[()] * 9),
    dict(shapes=[(), (-1, 3), (3,), (3, 4), (3, 3), (2,), (5,)]),
    dict(shapes=[(), (2**40, 2**40), (3,), (3, 4), (3, 3), (2,), (5,)]),
    dict(attrs=[None]), dict(operands=np.array([], np.int32)), dict(operands=np.array([99, 1], np.int32)),
    dict(guards=[Guard(99, "bool", True, "")]), dict(guards=[Guard(0, "bool", True, "")]),
    dict(guards=[Guard(1, "what", True, "")]), dict(guards=[Guard(1, "int", "x", "")]),
    dict(attrs=[None, (5,), (1, 0), (1, slice(0, 2)), 0]),
    dict(attrs=[None, (0,), (1, 1), (1, slice(0, 2)), 0]),
    dict(attrs=[None, (0,), (1, 0), (7, slice(0, 2)), 0]),
    dict(attrs=[None, (0,), (1, 0), (1, slice(0, 3)), 0]),
    dict(attrs=[None, (0,), (1, 0), (1, "a"), 0]),
    dict(attrs=[None, (0,), (1, 0), (1, slice(0, 2, 0)), 0]),
    dict(attrs=[None, (0,), (1, 0), (1, slice(0, 2)), 1]),
    dict(attrs=[None, (0,), "ab", (1, slice(0, 2)), 0]),
])
def test_malformed_graphs(change):
    with pytest.raises(ValueError):
        Plan(changed(**change))


def test_damaged_nodes_never_crash():
    rng = np.random.default_rng(0)
    good = good_graph()
    refused = 0
    for _ in range(3000):
        g = good_graph()
        raw = g.nodes.view(np.uint8).copy()
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(len(raw))] = rng.integers(256)
        g.nodes = raw.view(good.nodes.dtype)
        try:
            plan = Plan(g)
        except ValueError:
            refused += 1
            continue
        plan.verify()
        try:
            plan.run([draw(4, 3), 2.0])
        except (TypeError, ValueError, GuardError):
            pass
    assert refused > 1000
    verify(good)


# ---- random programs ---------------------------------------------------------------------------

UNARY = ["sin", "tanh", "exp", "negative", "square", "sigmoid", "softplus", "abs", "arctan"]
BINARY = ["add", "subtract", "multiply", "maximum", "minimum", "hypot", "logaddexp"]


def random_function(seed):
    """A function of two arrays and a float, drawn from everything there is, and their values."""
    rng = np.random.default_rng(seed)
    dtype = rng.choice(["float32", "float64"])
    m, n = rng.integers(1, 6, 2)
    if rng.random() < 0.2:
        m, n = 40, 60
    steps = [(rng.random(), rng.integers(1 << 30), rng.integers(1 << 30), rng.integers(1 << 30))
             for _ in range(rng.integers(1, 25))]
    scale = dtype.type(0.5) if False else 0.5

    def f(x, v, s):
        pool = [x, v, s, fnp.sin(s) * x]
        for kind, i, j, k in steps:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            if kind < 0.25:
                a = getattr(fnp, UNARY[k % len(UNARY)])(a * scale)
            elif kind < 0.5:
                if a.ndim and b.ndim and a.shape != b.shape:
                    a = fnp.sum(a)
                a = getattr(fnp, BINARY[k % len(BINARY)])(a, b)
            elif kind < 0.58 and a.ndim:
                a = getattr(fnp, ["sum", "mean", "max", "min"][k % 4])(a, axis=int(k) // 4 % a.ndim)
            elif kind < 0.64:
                a = getattr(fnp, ["sum", "mean", "max", "logsumexp"][k % 4])(a)
            elif kind < 0.72 and a.ndim == 2:
                a = (a @ a.T if k % 2 else a.T @ a) / a.size
            elif kind < 0.8 and a.ndim:
                a = [a[::-1], a[:1], a[0], a[-1:] * 2.0, a.T, a.reshape(-1)][k % 6]
            elif kind < 0.86 and a.ndim:
                a = fnp.where(a.numpy() > 1e9, a, a * 0.5) if False else fnp.where(a > 0.1, a, a * 0.5)
            elif kind < 0.92 and a.ndim:
                a = fnp.concatenate([a, a * 2.0], int(k) % a.ndim)[:a.shape[0]]
            else:
                a = a * 1.0 - 0.0
            pool.append(fnp.tanh(a))
        return fnp.sum(pool[-1] * 2.0) + sum([fnp.mean(p) for p in pool[-4:]])

    x = rng.normal(size=(m, n)).astype(dtype)
    return f, [x, rng.normal(size=n).astype(dtype), float(rng.normal())], dtype


@pytest.mark.parametrize("seed", range(150))
def test_random_programs(seed):
    f, values, dtype = random_function(seed)
    tolerance = 2e-4 if dtype == "float32" else 1e-10

    def near(function):
        recording = record(function, list(values))
        plan = Plan(recording.graph)
        plan.verify()
        memory = plan.memory()
        assert memory["frame"] <= 1.15 * memory["bound"] + 64
        inputs = list(values) + [np.asarray(x) for x in recording.captured]
        for got, expected in zip(plan.run(inputs), recording.results):
            assert np.shape(got) == np.shape(expected)
            scale = max(np.max(np.abs(expected), initial=0), 1)
            np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * scale)

    near(lambda a: [f(*a)])
    near(lambda a: [v for v in fg.grad(f, argnums=(0, 1, 2))(*a)])
    if seed % 3 == 0:
        near(lambda a: [fg.grad(lambda x: fnp.sum(fnp.sin(fg.grad(f)(x, a[1], a[2]))))(a[0])])


# ---- entries along the first axis, and assignment -----------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_by_index(dtype):
    index = np.array([[3, 0], [-1, 3]])

    def f(x):
        return fnp.sum(fnp.sin(x[index]) * x[np.array([1, 1])]) if x.ndim == 1 else fnp.sum(
            fnp.sin(x[index]))

    for shape in ((4,), (4, 3), (4, 2, 3)):
        plan = agree(lambda a: list(fg.value_and_grad(f)(a[0])) + [a[0][index]],
                     [draw(*shape, dtype=dtype)], ulps=4)
        assert "NumPy" not in plan.explain()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_assignment(dtype):
    def f(x, v):
        y = x * 2.0
        y[1:] = v * 3.0
        y[0, ::-1] = fnp.sin(v[0]) * v[0]
        y[2, 1] = fnp.sum(v)
        return y

    def total(x, v):
        return fnp.sum(fnp.sin(f(x, v)))

    values = [draw(3, 4, dtype=dtype), draw(2, 4, dtype=dtype)]
    plan = agree(lambda a: [f(*a), *fg.grad(total, argnums=(0, 1))(*a)], values, ulps=4)
    assert "NumPy" not in plan.explain()


@pytest.mark.parametrize("index", [Ellipsis, ()])
def test_assignment_to_a_number(index):
    b = Builder()
    x, v = b.input(), b.input()
    assert Plan(b.graph([b.add("assign", [x, v], attribute=index)])).run([1.0, 2.0]) == [2.0]


def test_weights_of_maxima():
    x = np.array([[1.0, 3.0, 3.0], [np.nan, 1.0, 2.0], [-np.inf] * 3, [np.inf, np.inf, 0.0]])
    for dtype in ("float32", "float64"):
        for axis in (0, 1, (0, 1), None):
            for function in (fnp.max, fnp.min, fnp.logsumexp):
                plan = agree(lambda a: [fg.grad(lambda x: fnp.sum(function(x, axis=axis)))(a[0])],
                             [x.astype(dtype)])
                assert "left to NumPy" not in plan.explain()


# ---- what is stored -----------------------------------------------------------------------------

def test_large_values_are_computed_again_rather_than_stored():
    def f(x, y):
        e = fnp.exp(x * y)
        s = fnp.sum(e)
        return fnp.log(s) + fnp.sum(e / s * y)

    for n in (1000, 40_000, 100_001):
        plan = agree(lambda a: list(fg.value_and_grad(f, argnums=(0, 1))(*a)) and
                     [f(*a), *fg.grad(f, argnums=(0, 1))(*a)], [draw(n), draw(n, seed=1)], ulps=64)
        if n > 32768:
            assert plan.memory()["frame"] < 8 * n


def test_a_value_that_only_a_later_run_needs_is_computed_there():
    def f(a):
        x, w = a
        return [fnp.sum((-x) * (x @ w))]

    plan = agree(f, [draw(30, 30), draw(30, 30, seed=1)], ulps=500)
    assert str(plan).count("blocks of") == 1


class Strange:
    pass


@pytest.mark.parametrize("change", [
    dict(shapes=[(), ([],)]), dict(shapes=[(), 5]), dict(shapes=5), dict(attrs=5), dict(operands="ab"),
    dict(guards=[Strange()]), dict(guards=5), dict(inputs=5), dict(outputs=[[]]), dict(kinds=[[], []]),
    dict(nodes=None), dict(nodes=np.zeros(3)), dict(guards=[Guard([], "bool", True, "")]),
    dict(guards=[Guard(1, [], True, "")]), dict(shapes=[()] + [(1 << 47,)] * 8),
])
def test_strange_graphs(change):
    with pytest.raises(ValueError):
        Plan(changed(**change))
