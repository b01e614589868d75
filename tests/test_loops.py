"""Loops: as loops of Python's, differentiated, and as nodes of programs."""

import collections

import numpy as np
import pytest
from fastgrad._core.core import GuardError
from sides import runs_of

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import trees
from fastgrad.graphs.check import verify
from fastgrad.graphs.graph import Loop
from fastgrad.graphs.record import record
from fastgrad.graphs.replay import replay
from fastgrad.programs import persist

pytestmark = pytest.mark.filterwarnings("ignore:.*does not depend on the arguments")

State = collections.namedtuple("State", "position velocity")


def graph_of(f, *args):
    """The recording of a function at some arguments, and what its inputs are followed by; and the
    structure of its results."""
    leaves, structure = trees.flatten(args)
    returned = []

    def flat(arguments):
        answer, made = trees.flatten(f(*trees.unflatten(structure, arguments)))
        returned[:] = [made]
        return answer

    recording = record(flat, leaves, None)
    assert recording.reason is None
    verify(recording.graph)
    return Recorded(recording.graph, recording.captured), returned[0]


class Recorded:
    """A graph with the arrays that its function used besides its arguments."""

    def __init__(self, graph, captured):
        self.graph, self.captured, self.guards = graph, captured, graph.guards

    def __call__(self, *leaves):
        return replay(self.graph, [*leaves, *self.captured])


def loops_in(graph):
    graph = getattr(graph, "graph", graph)
    return [a for a in graph.attrs if isinstance(a, Loop)
            and any(graph.attribute(i) is a for i in range(len(graph)))]


def check(f, *points, loops=None, tol=1e-12, count=None):
    """f as a program recorded at the first point agrees with f at all of them."""
    graph, returned = graph_of(f, *points[0])
    if loops is not None:
        assert len(loops_in(graph)) == loops, str(graph.graph)
    for args in points:
        found = trees.unflatten(returned, graph(*trees.flatten(args)[0]))
        same(found, f(*args), tol)
    return graph


def same(found, wanted, tol=1e-12):
    if any(getattr(y, "dtype", None) == np.float32 for y in trees.flatten(wanted)[0]):
        tol = 1e-4
    a, b = trees.flatten(found), trees.flatten(wanted)
    assert a[1] == b[1]
    for x, y in zip(a[0], b[0]):
        assert np.shape(x) == np.shape(y)
        np.testing.assert_allclose(x, y, rtol=tol, atol=tol)


XS = np.array([0.3, -1.2, 0.8, 2.0])
ORDER = np.array([1, 0])
WEIGHTS = np.array([[0.2, -0.5], [0.1, 0.3]])
ROW = np.array([0.4, -0.3])
OTHER = np.array([-0.5, 0.4, 1.9, -0.7])


# ---- loops of Python's ----------------------------------------------------------------------

def test_scan_is_a_loop():
    def step(total, x):
        return total + x, (total, {"x": 2 * x})

    total, (before, twice) = fg.scan(step, 0.0, XS)
    assert type(total) is np.float64
    np.testing.assert_allclose(before, np.cumsum(XS) - XS, atol=1e-15)
    np.testing.assert_array_equal(twice["x"], 2 * XS)
    total, (before, twice) = fg.scan(step, 0.0, XS, reverse=True)
    np.testing.assert_allclose(before, np.cumsum(XS[::-1])[::-1] - XS, atol=1e-15)
    np.testing.assert_array_equal(twice["x"], 2 * XS)
    assert fg.scan(lambda c, x: (c + 1, x), 0, length=3) == (3, None)


def test_kinds_of_numbers():
    assert type(fg.scan(lambda c, x: (c * 2.0, c), 1.0, length=3)[0]) is float
    assert fg.scan(lambda c, x: (c + 1, c), 0, length=3)[1].dtype == np.int64
    carry, ys = fg.scan(lambda c, x: (c + x, c), 0, np.ones(3, np.float32))
    assert carry.dtype == np.float32
    carry, _ = fg.scan(lambda c, x: (0.0, None), np.float32(1), length=2)
    assert type(carry) is np.float32
    carry, ys = fg.scan(lambda c, x: (not c, c), True, length=3)
    assert carry is False and ys.tolist() == [True, False, True]


def test_trees():
    def step(state, force):
        velocity = state.velocity + 0.1 * force["f"]
        position = state.position + 0.1 * velocity
        return State(position, velocity), [position.sum(), None]

    start = State(np.zeros(2), np.ones(2))
    forces = {"f": np.arange(6.0).reshape(3, 2)}
    last, (sums, none) = fg.scan(step, start, forces)
    assert type(last) is State and none is None and sums.shape == (3,)
    position, velocity = start
    for k in range(3):
        velocity = velocity + 0.1 * forces["f"][k]
        position = position + 0.1 * velocity
    same(last, State(position, velocity))


def test_no_steps():
    def step(c, x):
        return c + x.sum(), (x * c, 1)

    carry, (ys, ones) = fg.scan(step, 2.0, np.zeros((0, 3), np.float32))
    assert carry == 2.0 and ys.shape == (0, 3) and ys.dtype == np.float32
    assert ones.shape == (0,) and ones.dtype == np.int64
    assert fg.fori_loop(3, 3, lambda i, c: 1 / 0, 5.0) == 5.0
    assert fg.fori_loop(3, 1, lambda i, c: 1 / 0, 5.0) == 5.0
    assert fg.while_loop(lambda c: False, lambda c: 1 / 0, 5.0) == 5.0
    grad = fg.grad(lambda w: fg.scan(step, w, np.zeros((0, 3)))[0])(2.0)
    assert grad == 1.0


def test_fori_and_while():
    assert fg.fori_loop(2, 5, lambda i, c: c * i, 1) == 24
    assert fg.fori_loop(np.int64(0), 3, lambda i, c: {'a': c['a'] + i}, {'a': 0}) == {'a': 3}
    assert fg.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * 2), (0, 1.0)) == (5, 32.0)


@pytest.mark.parametrize("f", [
    lambda x: fg.scan(lambda c, x: (np.sin(c) * x, c * x), 0.5, x)[1].sum(),
    lambda x: fg.scan(lambda c, x: (np.sin(c) * x, c * x), 0.5, x, reverse=True)[0],
    lambda x: fg.fori_loop(0, 4, lambda i, c: c * x[i] + x.sum(), 1.0),
    lambda x: fg.while_loop(lambda c: c < 20.0, lambda c: c * 1.5 + x[0] ** 2, x[3] ** 2),
])
def test_derivatives_outside_programs(f):
    fg.testing.check_grads(f, XS, order=2, modes=("forward", "reverse"))


# ---- what is wrong --------------------------------------------------------------------------

@pytest.mark.parametrize("call, kind, message", [
    (lambda: fg.scan(1, 0.0, XS), TypeError, "scan: it needs a function, not int"),
    (lambda: fg.scan(lambda c, x: c, 0.0, XS), TypeError, r"must return \(carry, y\), not float"),
    (lambda: fg.scan(lambda c, x: (c, x, x), 0.0, XS), TypeError, "not tuple of 3"),
    (lambda: fg.scan(lambda c, x: (c, x), 0.0), TypeError, "without xs it needs length="),
    (lambda: fg.scan(lambda c, x: (c, x), 0.0, [1.0, 2.0]), TypeError,
     r"xs\[0\] is a float without"),
    (lambda: fg.scan(lambda c, x: (c, x), 0.0, np.array(3.0)), TypeError, "without a first axis"),
    (lambda: fg.scan(lambda c, x: (c, x), 0.0, {"a": XS, "b": XS[:2]}), ValueError,
     r"xs\['b'\] has 2 entries along its first axis, xs\['a'\] has 4"),
    (lambda: fg.scan(lambda c, x: (c, x), 0.0, XS, length=3), ValueError, "length is 3"),
    (lambda: fg.scan(lambda c, x: (c, x), 0.0, length=-3), ValueError, "length is -3"),
    (lambda: fg.scan(lambda c, x: (c, x), 0.0, length=3.0), TypeError, "must be an int, not float"),
    (lambda: fg.scan(lambda c, x: ((c, c), x), 0.0, XS), ValueError, "a carry built like the one"),
    (lambda: fg.scan(lambda c, x: ({"a": c["a"][1:]}, x), {"a": np.ones(3)}, XS), ValueError,
     r"the shape of the carry\['a'\] from \(3,\) to \(2,\)"),
    (lambda: fg.scan(lambda c, x: (c + np.ones(3), x), 0.0, XS), ValueError, "start with one of"),
    (lambda: fg.scan(lambda c, x: (c + np.float64(1), x), np.float32(0), XS), TypeError,
     "the dtype of the carry from float32 to float64"),
    (lambda: fg.scan(lambda c, x: (c + 0.5, x), np.int64(0), XS), TypeError,
     "the dtype of the carry from int64 to float64"),
    (lambda: fg.scan(lambda c, x: ("a", x), 0.0, XS), TypeError, "the carry becomes a str"),
    (lambda: fg.scan(lambda c, x: (c, x), "a", XS), TypeError, "must be a number or an array"),
    (lambda: fg.scan(lambda c, x: (c, "a"), 0.0, XS), TypeError, "y must hold numbers and arrays"),
    (lambda: fg.scan(lambda c, x: (c + 1, np.ones(c)), 1, length=3), ValueError,
     r"y has shape \(1,\) at one step and \(2,\)"),
    (lambda: fg.scan(lambda c, x: (c + 1, [1] * c), 1, length=3), ValueError, "y changes from one"),
    (lambda: fg.fori_loop(0.0, 3, lambda i, c: c, 0.0), TypeError, "lower must be an int"),
    (lambda: fg.fori_loop(0, "3", lambda i, c: c, 0.0), TypeError, "upper must be an int, not str"),
    (lambda: fg.fori_loop(0, 3, lambda i, c: (c, c), 0.0), ValueError, "a carry built like"),
    (lambda: fg.while_loop(lambda c: 1.0, lambda c: c, 0.0), TypeError,
     "the condition must return one bool, not float"),
    (lambda: fg.while_loop(lambda c: c > 0, lambda c: c, np.ones(3)), TypeError,
     r"one bool, not bool of shape \(3,\)"),
    (lambda: fg.while_loop(3, lambda c: c, np.ones(3)), TypeError, "needs a function"),
    (lambda: fg.while_loop(lambda c: True, lambda c: c[1:], np.ones(3)), ValueError, "the shape"),
])
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("step, start, kind, message", [
    (lambda c, x: ((c, c), x), 0.0, ValueError, "a carry built like the one"),
    (lambda c, x: ({"a": c["a"][1:]}, x), {"a": np.ones(3)}, ValueError,
     r"the shape of the carry\['a'\] from \(3,\) to \(2,\)"),
    (lambda c, x: (c + np.ones(3), x), 0.0, ValueError, "start with one of the"),
    (lambda c, x: (c + x, x), np.float32(0), TypeError, "the carry from float32 to float64"),
    (lambda c, x: (c + x, x), np.int64(0), TypeError, "the carry from int64 to float64"),
    (lambda c, x: (c, "a"), 0.0, TypeError, "y must hold numbers"),
    (lambda c, x: c, 0.0, TypeError, r"must return \(carry, y\)"),
])
def test_errors_in_programs(step, start, kind, message):
    with pytest.raises(kind, match=message):
        record(lambda a: [fg.scan(step, start, a[0])[1]], [XS])


def test_conditions_in_programs():
    for condition in (lambda c: c, lambda c: c > np.zeros(2)):
        with pytest.raises(TypeError, match="the condition must return one bool"):
            record(lambda a: [fg.while_loop(condition, lambda c: c, a[0])], [1.0])


# ---- programs -------------------------------------------------------------------------------

def wave(c, x):
    c = 0.5 * c + fnp.sin(x)
    return c, c ** 2 * x


def rows(c, x):
    c = fnp.tanh(c @ WEIGHTS + x)
    return c, fnp.sum(c * x)


ROWS = np.arange(8.0).reshape(4, 2) / 5

FUNCTIONS = {
    "scalar": (lambda x: fg.scan(wave, 0.1, x), XS),
    "start": (lambda x: fg.scan(wave, x[0], x), XS),
    "reverse": (lambda x: fg.scan(wave, x[0], x, reverse=True), XS),
    "rows": (lambda x: fg.scan(rows, x[0], x), ROWS),
    "closure": (lambda x: fg.scan(lambda c, k: (c * x[0] + k.sum() + x[1, 1], c * x.sum()),
                                  fnp.ones(2), x), ROWS),
    "array of the closure": (lambda x: fg.scan(lambda c, k: (c * ROW + k, c.sum()), x[0], x),
                             ROWS),
    "index": (lambda x: fg.fori_loop(0, 4, lambda i, c: c * x[i] + x.sum(), 1.0), XS),
    "indices": (lambda x: fg.fori_loop(1, 4, lambda i, c: c * x[i] + x[i - 1], x[0]), ROWS),
    "distances": (lambda x: fg.fori_loop(1, 4, lambda i, c: c * x[i] + x[i - 1, ::-1] * x[i, 1]
                                         + x[1 + i - 1, ...] * x[i - 2] + x[i % 3], x[0]), ROWS),
    "counter": (lambda x: fg.scan(lambda c, k: ((c[0] + 1, c[1] * k + c[0]), c[0]), (0, 1.0), x),
                XS),
    "flag": (lambda x: fg.scan(lambda c, k: ((k > c[1], fnp.maximum(c[1], k)),
                                             fnp.where(c[0], k, 0.0)), (np.False_, -10.0), x), XS),
    "trees": (lambda x: fg.scan(lambda c, k: ({"a": c["b"], "b": [c["a"][0] + k["x"]]},
                                              (k["y"], c["a"])),
                                {"a": [x[0]], "b": [x[1] * 2]}, {"x": x, "y": x ** 2}), XS),
    "no xs": (lambda x: fg.scan(lambda c, _: (np.sin(c) * x[0], c), x[1], length=5), XS),
    "nested": (lambda x: fg.scan(lambda c, k: fg.scan(lambda d, j: (d * 0.5 + j * k, d * j), c, x),
                                 0.3, x), XS),
    "unused": (lambda x: fg.scan(lambda c, k: (c, k * 2), x[0], x)[1], XS),
    "constant y": (lambda x: fg.scan(lambda c, k: (c + k, 1.5), x[0], x), XS),
    "passed on": (lambda x: fg.scan(lambda c, k: (k, c), x[0], x), XS),
    "sums": (lambda x: fg.scan(lambda c, k: (c + fnp.logsumexp(k) * fnp.max(k), k @ k), 0.0, x),
             ROWS),
    "gather": (lambda x: fg.scan(lambda c, k: (c[ORDER] * k, c[::-1]), x[0], x), ROWS),
}
EACH = pytest.mark.parametrize("name", FUNCTIONS)


def descent(w, _):
    """A step of gradient descent."""
    value, slope = fg.value_and_grad(lambda w: fnp.sum((w ** 2 - ROW) ** 2))(w)
    return w - 0.1 * slope, value


def in_place(c, x):
    c += x
    before = c * 1
    c[0] = c[1] * x[0]
    return c, (c, before)


def limited(c, x):
    c = fg.while_loop(lambda c: c > 1.0, lambda c: c * 0.6 + 0.1 * x, c * x)
    return c, c * x


FUNCTIONS.update({
    "descent": (lambda x: fg.scan(descent, x[0], length=6), ROWS),
    "in place": (lambda x: fg.scan(in_place, x[0] * 2, x), ROWS),
    "stopped": (lambda x: fg.scan(lambda c, k: (c + fg.stop_gradient(k) * k, c), x[0], x), XS),
    "single": (lambda x: fg.scan(wave, x[0], x), XS.astype(np.float32)),
    "casts": (lambda x: fg.scan(lambda c, k: ((c[0] + k.astype(np.float32), c[1] * k), c[0] * k),
                                (np.float32(1), 1.0), x), XS),
    "where": (lambda x: fg.scan(lambda c, k: (fnp.where(c > k, c * 0.5, c + k), fnp.abs(c - k)),
                                x[0], x), XS),
    "matrix": (lambda x: fg.fori_loop(0, 3, lambda i, c: fnp.tanh(c @ x[:2] + x[2]), x[2:]), ROWS),
})
EACH = pytest.mark.parametrize("name", FUNCTIONS)


def other(x):
    return (np.cos(3 * x) + 0.2 * x).astype(x.dtype)


def total(f):
    """A scalar function of it that weighs all entries differently."""
    def scalar(x):
        answer = 0.0
        for k, leaf in enumerate(trees.flatten(f(x))[0]):
            if getattr(leaf, "dtype", np.dtype(int)).kind == "f":
                weights = np.cos(np.arange(1.0, 1 + np.prod(np.shape(leaf))) + k)
                weights = fg.constant(weights.reshape(np.shape(leaf)))
                answer = answer + fnp.sum(leaf * weights)
        return answer
    return scalar


@EACH
def test_values_in_programs(name):
    f, x = FUNCTIONS[name]
    graph = check(f, (x,), (other(x),), loops=1)
    assert any(loop.body.name(i) == "custom" for loop in loops_in(graph)
               for i in range(len(loop.body.nodes))) == (name == "nested")


@EACH
def test_gradients_in_programs(name):
    f, x = FUNCTIONS[name]
    graph = check(fg.value_and_grad(total(f)), (x,), (other(x),))
    assert 1 <= len(loops_in(graph)) <= 2       # forward and back; the first one serves both
    assert len(graph.graph) < 200


@EACH
def test_tangents_in_programs(name):
    f, x = FUNCTIONS[name]
    check(lambda x, v: fg.jvp(total(f), (x,), (v,)), (x, np.ones_like(x)), (other(x), np.sin(x)))
    check(lambda x: fg.jacobian(total(f), mode="forward")(x), (x,), (other(x),))


@EACH
def test_second_order_in_programs(name):
    f, x = FUNCTIONS[name]
    tol = 1e-5 if name == "casts" else 1e-9     # some of it is float32
    check(fg.hessian(total(f)), (x,), (other(x),), tol=tol)
    check(lambda x, v: fg.hvp(total(f))(x, v), (x, np.ones_like(x)), (other(x), np.sin(x)),
          tol=tol)
    check(fg.grad(lambda x: fg.jvp(total(f), (x,), (x,))[1]), (x,), (other(x),), tol=tol)


@EACH
def test_loops_are_saved(name):
    f, x = FUNCTIONS[name]
    graph, _ = graph_of(fg.value_and_grad(total(f)), x)
    again = Recorded(persist.restore(persist.dump(graph.graph)), graph.captured)
    assert len(loops_in(again)) == len(loops_in(graph)) > 0
    for a, b in zip(again(other(x)), graph(other(x))):
        np.testing.assert_array_equal(a, b)


@EACH
@pytest.mark.parametrize("through", ["value", "gradient"])
def test_programs_of_loops_are_differentiated_in_turn(name, through):
    """Replayed with Tensors, a loop is recorded with its rule, outside of programs as well."""
    f, x = FUNCTIONS[name]
    f = total(f)
    graph, _ = graph_of(f if through == "value" else fg.grad(f), x)

    def again(x):
        return graph(x)[0].sum()

    g = f if through == "value" else lambda x: fg.grad(f)(x).sum()
    same(fg.grad(again)(other(x)), fg.grad(g)(other(x)))
    same(fg.jvp(again, (x,), (np.sin(x),)), fg.jvp(g, (x,), (np.sin(x),)))
    same(fg.hessian(again)(x), fg.hessian(g)(x), 1e-9)


def test_what_is_read_at_the_counter_goes_along():
    """Its adjoint is stacked, and no array of zeros at each step."""
    def f(x):
        return fg.fori_loop(1, 4, lambda i, c: c * x[i] + x[i - 1, 0], x[0])

    graph, _ = graph_of(lambda x: f(x.reshape(4, 1))[0], XS)
    loop, = loops_in(graph)
    assert (loop.carries, loop.sequences, loop.constants) == (1, 3, 0)
    graph, _ = graph_of(lambda x: fg.fori_loop(0, 3, lambda i, c: c * x[i - 1] + x[i], 0.5), XS)
    loop, = loops_in(graph)             # x[-1] comes first
    assert (loop.sequences, loop.constants) == (2, 1)
    x = graph(XS)[0]
    assert x == ((0.5 * XS[3] + XS[0]) * XS[0] + XS[1]) * XS[1] + XS[2]


def test_steps_run_once():
    def step(c, x):
        return c * x, c

    for f, values in ((lambda a: [*fg.scan(step, a[1], a[0])], [np.ones(1000), np.float64(1)]),
                      (lambda a: [fg.fori_loop(0, 1000, lambda i, c: step(c, i)[0], a[0])],
                       [np.float64(1)])):
        with runs_of(step) as runs:
            record(f, values)
        assert runs == [1]


def test_numbers_of_pythons_give_way_in_programs():
    def kinds(step, start, xs):
        graph, _ = graph_of(lambda x: fg.scan(step, start, x), xs)
        return graph(xs)

    for start in (0, 0.0):
        carry, ys = kinds(lambda c, x: (c + x, c), start, np.ones(3, np.float32))
        assert type(carry) is np.float32 and carry == 3 and ys.dtype == np.float32
        carry, ys = kinds(lambda c, x: (c + x, c), start, np.ones(3))
        assert type(carry) is np.float64
    carry, ys = kinds(lambda c, x: (0.5, x), np.float32(1), np.ones(3, np.float32))
    assert type(carry) is np.float32
    carry, ys = kinds(lambda c, x: (c * 0.5, x), 1.0, np.ones(3, np.float32))
    assert type(carry) is float and carry == 0.125
    carry, ys = kinds(lambda c, x: (c + 1, c), 0, np.ones(3))
    assert carry == 3 and ys.tolist() == [0, 1, 2] and ys.dtype == np.int64


def test_steps_whose_path_depends_on_values():
    """They are recorded as they go, with guards."""
    def step(c, x):
        if c > 0.5:
            return c * 0.5, x
        return c + x * x, -x

    def f(x):
        return fg.scan(step, 0.0, x)

    graph, returned = graph_of(f, XS)
    assert not loops_in(graph) and len(graph.guards) == len(XS) - 1    # the start is a number
    same(trees.unflatten(returned, graph(XS * 1.01)), f(XS * 1.01))
    with pytest.raises(GuardError):
        graph(XS * 0.1)
    check(fg.value_and_grad(lambda x: f(x)[0]), (XS,), (XS * 1.01,), loops=0)


def test_bounds_from_values():
    """A number of steps taken from a value is a guard."""
    def f(n, x):
        return fg.fori_loop(0, n, lambda i, c: c * x, 1.0)

    graph, _ = graph_of(f, np.int64(3), 2.0)
    assert graph(np.int64(3), 3.0) == [27.0]
    with pytest.raises(GuardError):
        graph(np.int64(4), 3.0)


# ---- while loops ----------------------------------------------------------------------------

WHILES = {
    "newton": lambda a: fg.while_loop(lambda x: fnp.abs(x * x - a) > 1e-12,
                                      lambda x: 0.5 * (x + a / x), a),
    "pair": lambda a: fg.while_loop(lambda c: c[0] < 10.0,
                                    lambda c: (c[0] * a, c[1] + fnp.sin(c[0])), (1.5, a))[1],
    "limit": lambda a: fg.while_loop(lambda c: c[1] < 10 * a, lambda c: (c[0] + 1, c[1] + c[0] * a),
                                     (0, 1.0))[1],
}


@pytest.mark.parametrize("name", WHILES)
def test_while_in_programs(name):
    f = WHILES[name]
    graph = check(f, (2.0,), (3.0,), (7.5,), loops=1)
    assert loops_in(graph)[0].kind == "while" and not graph.guards
    graph = check(lambda a: fg.jvp(f, (a,), (1.0,)), (2.0,), (3.0,), (7.5,))
    assert not graph.guards
    graph = check(lambda a: fg.jvp(lambda a: fg.jvp(f, (a,), (1.0,))[1], (a,), (1.0,)),
                  (2.0,), (3.0,), (7.5,), tol=1e-9)
    assert not graph.guards


@pytest.mark.parametrize("name", WHILES)
def test_while_in_reverse_mode(name):
    """The number of steps becomes a guard."""
    f = WHILES[name]
    graph = check(fg.value_and_grad(f), (2.0,), (2.01,))
    assert [guard.kind for guard in graph.guards] == ["int"]
    check(fg.grad(fg.grad(f)), (2.0,), (2.01,), tol=1e-9)
    met = 0
    for a in (2.0, 3.0, 50.0, 0.3 + 1):
        try:
            found = graph(a)
        except GuardError:
            met += 1
        else:
            same(tuple(found), fg.value_and_grad(f)(a))
    assert met or name == "limit"           # which takes as many steps for every a


def test_while_in_a_step():
    """The counts of a while loop in the step of a scan are guards of each step."""
    f = total(lambda x: fg.scan(limited, 1.5, x))
    check(f, (np.abs(XS) + 0.5,), (np.abs(OTHER) + 0.7,), loops=1)
    check(lambda x: fg.jvp(f, (x,), (np.cos(x),)), (np.abs(XS) + 0.5,), (np.abs(OTHER) + 0.7,))
    check(fg.value_and_grad(f), (np.abs(XS) + 0.5,), (np.abs(XS) + 0.501,))


def test_steps_that_assign_to_their_carry():
    start = np.ones(2)
    carry, (after, before) = fg.scan(in_place, start, ROWS)
    assert start.tolist() == [1, 1] and not np.array_equal(after[0], after[1])
    same(after[-1], carry)
    fg.fori_loop(0, 2, lambda i, c: in_place(c, ROWS[i])[0], start)
    fg.while_loop(lambda c: c[1] < 3, lambda c: in_place(c, ROWS[3])[0], start)
    assert start.tolist() == [1, 1]
    fg.testing.check_grads(lambda x: total(lambda x: fg.scan(in_place, x[0], x))(x), ROWS, order=2)


def test_while_without_steps():
    f = lambda a: fg.while_loop(lambda x: x > 10.0, lambda x: x * 0.5, a * 3)
    check(fg.value_and_grad(f), (2.0,), (1.0,))


# ---- with other transformations -------------------------------------------------------------

@EACH
def test_mapped(name):
    if name in ("counter", "flag"):
        pytest.skip("integers of a lane")
    f, x = FUNCTIONS[name]
    stack = np.stack([x, other(x), np.sin(x)])
    found = fg.vmap(f)(stack)
    for k in range(3):
        same(trees.tree_map(lambda leaf: leaf[k], found), f(stack[k]))
    found = fg.vmap(fg.grad(total(f)))(stack)
    for k in range(3):
        same(found[k], fg.grad(total(f))(stack[k]), 1e-10)


@EACH
@pytest.mark.filterwarnings("error:compile")
def test_compiled(name):
    f, x = FUNCTIONS[name]
    program = fg.compile(f)
    gradient = fg.compile(fg.value_and_grad(total(f)))
    derived = fg.grad(fg.compile(total(f)))
    for point in (x, other(x), np.sin(x)):
        same(program(point), f(point))
        same(gradient(point), fg.value_and_grad(total(f))(point), 1e-10)
        same(derived(point), fg.grad(total(f))(point), 1e-10)
    for made in (program, gradient):
        path, = made.paths
        assert path.calls == 3 and not path.guards


def test_operands_that_are_assigned_to_afterwards():
    def f(x):
        y = x * 2
        carry, ys = fg.scan(wave, y[0], y)
        y[0] = 100.0
        return carry + ys.sum() + y.sum()

    check(fg.value_and_grad(f), (XS,), (OTHER,))


def test_detached_values_stay_so_in_graphs():
    """A graph that is replayed and differentiated has the derivatives of what was recorded."""
    def f(x):
        with fg.no_grad():
            y = fnp.sin(x) * x
        return x * y + fg.stop_gradient(x ** 2) * x + fg.stop_gradient(x.sum())

    graph = record(lambda a: [fnp.sum(f(a[0]))], [XS]).graph
    wanted = fg.grad(lambda x: fnp.sum(f(x)))(XS)
    for again in (graph, persist.restore(persist.dump(graph))):
        same(fg.grad(lambda x: replay(again, [x])[0])(XS), wanted)
        same(fg.jvp(lambda x: replay(again, [x])[0], (XS,), (OTHER,))[1], wanted @ OTHER)
    # Of a gradient that was recorded nothing is detached.
    graph = record(lambda a: [fg.grad(lambda x: fnp.sum(fnp.sin(x) * x))(a[0])], [XS]).graph
    same(fg.jacobian(lambda x: replay(graph, [x])[0])(XS),
         fg.hessian(lambda x: fnp.sum(fnp.sin(x) * x))(XS))
    stack = np.stack([XS, OTHER])
    same(fg.vmap(fg.grad(lambda x: fnp.sum(f(x))))(stack),
         np.stack([fg.grad(lambda x: fnp.sum(f(x)))(x) for x in stack]))


def test_loops_are_put_together():
    """A program that runs the same loop twice runs it once; what is not used is not stacked."""
    def f(x):
        first = fg.scan(wave, 0.1, x)
        return first[0], fg.scan(lambda c, k: (c, c * k), x[0], x)[0]

    graph, _ = graph_of(f, XS)
    assert sorted(len(loop.body.outputs) for loop in loops_in(graph)) == [1, 1]
    graph, _ = graph_of(fg.grad(lambda x: fg.scan(wave, 0.1, x)[1].sum()), XS)
    assert len(loops_in(graph)) == 2


def test_against_jax():
    """Numbers from jax.lax.scan, fori_loop and while_loop (JAX 0.4, 64 bits)."""
    def f(x):
        carry, ys = fg.scan(wave, x[0], x)
        return carry + ys.sum()

    def g(x):
        carry, ys = fg.scan(wave, x[0], x, reverse=True)
        return 2 * carry + ys.sum()

    def loop(x):
        return fg.fori_loop(0, 4, lambda i, c: c * x[i] + x.sum(), 1.0)

    for h, value, gradient in (
            (f, 3.03082069, [3.01290732, 1.71085079, 2.40398235, -1.04210864]),
            (g, 3.66249436, [4.85184563, 0.74122934, 3.56616208, -1.241815]),
            (loop, 4.516, [0.76, 6.2, 1.2, 3.988])):
        for form in (h, lambda x, h=h: graph_of(h, x)[0](x)[0]):
            np.testing.assert_allclose(form(XS), value, rtol=1e-8)
        for form in (fg.grad(h), lambda x, h=h: graph_of(fg.grad(h), x)[0](x)[0]):
            np.testing.assert_allclose(form(XS), gradient, rtol=1e-8)
    np.testing.assert_allclose(graph_of(fg.hessian(f), XS)[0](XS)[0][0],
                               [2.36620783, -1.49367299, 0.9230001, 0.09400093], rtol=1e-7)
    h = WHILES["pair"]
    for answer in (fg.jvp(h, (2.0,), (1.0,)),
                   graph_of(lambda a: fg.jvp(h, (a,), (1.0,)), 2.0)[0](2.0),
                   fg.value_and_grad(h)(2.0), graph_of(fg.value_and_grad(h), 2.0)[0](2.0)):
        np.testing.assert_allclose(answer, [2.8591995, 5.27603298], rtol=1e-8)


@pytest.mark.parametrize("scale", [lambda i: {0: 1.0, 1: 2.0, 2: 5.0}[i],
                                   lambda i: 2.0 if i in {1, 2} else 3.0, lambda i: {i: 3.0}[i]])
def test_the_counter_as_a_key(scale):
    def f(x):
        return fg.fori_loop(0, 3, lambda i, y: y * scale(i), x)

    value, slope = f(1.5), f(1.0)
    assert fg.grad(f)(1.5) == fg.compile(fg.grad(f))(1.5) == fg.grad(fg.compile(f))(1.5) == slope
    assert fg.vmap(f)(np.array([1.5, 3.0])).tolist() == [value, 2 * value]
    assert fg.compile(fg.vmap(fg.grad(f)))(np.array([1.5])).tolist() == [slope]
