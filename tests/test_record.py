"""Recordings: a graph taken down with some values gives with others what the function gives, or a
guard says that it does not hold; what a recording cannot see is a reason not to replay it.
"""

import gc

import numpy as np
import pytest
import test_numpy_namespace as namespace
from fastgrad._core.core import GuardError

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad.graphs.record import history, record
from fastgrad.graphs.replay import replay

UNREPLAYABLE = (2, -2, "nuc")           # orders of norms whose rule is Python code


def flat(result):
    return namespace.parts(result)


def differentiated(call, count):
    return lambda values: list(fg.grad(lambda *x: namespace.weighted(call(fnp, *x)),
                                       argnums=tuple(range(count)))(*values))


def agrees(function, values, others):
    """Record with `values`, replay with `others`, compare with what the function makes of these."""
    recording = record(function, values, None)
    assert recording.reason is None
    expected = record(function, others, None).results
    got = replay(recording.graph, others + recording.captured)
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected):
        np.testing.assert_allclose(mine, theirs, rtol=1e-13, atol=1e-13)
        assert np.shape(mine) == np.shape(theirs)
    return recording


def norm_of_singular_values(call):
    return (call.__code__.co_names[-1] in ("norm", "matrix_norm") and call.__defaults__ is not None
            and call.__defaults__[-1] in UNREPLAYABLE)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("call, shapes", namespace.named(namespace.CALLS + namespace.VALUES))
def test_values_of_every_function(call, shapes, dtype):
    values, others = (namespace.draw(shapes, dtype, seed) for seed in (0, 1))
    if call.__code__.co_names[:1] == ("result_type",):
        pytest.skip("returns a dtype")
    if norm_of_singular_values(call) and len(shapes[0]) > 1:
        assert record(lambda v: flat(call(fnp, *v)), values, None).reason
        return
    agrees(lambda v: flat(call(fnp, *v)), values, others)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("call, shapes", namespace.named(namespace.CALLS))
def test_gradients_of_every_function(call, shapes):
    if norm_of_singular_values(call) and len(shapes[0]) > 1:
        pytest.skip("the rule is Python code of first order")
    values, others = (namespace.draw(shapes, seed=seed) for seed in (0, 1))
    agrees(differentiated(call, len(shapes)), values, others)


def branch(v):
    x, = v
    if x[0] > 0:
        return [fnp.sum(x ** 4)]
    return [fnp.sum(fnp.abs(x))]


def loop(v):
    x, n = v
    y = x
    for _ in range(int(n)):
        y = y * x
    return [y]


def index(v):
    x, i = v
    return [x[i] * x[fnp.argsort(x)[:2]]]


@pytest.mark.parametrize("function, values, others, kind", [
    (branch, [np.array([1.0, 2.0])], [np.array([-1.0, 2.0])], "bool"),
    (loop, [2.0, np.int64(3)], [2.0, np.int64(4)], "int"),
    (lambda v: [v[0][v[0] > 1.5]], [np.array([1.0, 2.0])], [np.array([2.0, 3.0])], "count"),
    (lambda v: [v[0] * 2 if fnp.allclose(v[0], 1.0) else v[0]], [np.ones(2)], [np.zeros(2)], "bool"),
    (lambda v: [fnp.sum(v[0][:int(fnp.floor(v[0][0]))])], [np.full(3, 2.5)], [np.full(3, 1.5)], "int"),
], ids=["branch", "loop", "mask", "allclose", "slice"])
def test_decisions_are_guards(function, values, others, kind):
    recording = record(function, values)
    assert recording.reason is None
    assert [guard.kind for guard in recording.graph.guards] == [kind]
    assert "test_record.py" in recording.graph.guards[0].line
    np.testing.assert_array_equal(replay(recording.graph, values)[0], recording.results[0])
    with pytest.raises(GuardError, match="test_record.py"):
        replay(recording.graph, others)


def test_indices_from_values_are_followed():
    agrees(index, [np.array([1.0, 5.0, 2.0]), np.array([0, 1])],
           [np.array([9.0, 5.0, 2.0]), np.array([2, 2])])
    agrees(lambda v: [fg.grad(lambda x: fnp.sum(index([x, v[1]])[0]))(v[0])],
           [np.array([1.0, 5.0, 2.0]), np.array([0, 1])],
           [np.array([9.0, 5.0, 2.0]), np.array([2, 2])])


@pytest.mark.parametrize("function", [
    lambda x: x * x.detach(), lambda x: fg.stop_gradient(x) * x, lambda x: fnp.floor(x) * x,
    lambda x: (x > 1.0) * x, lambda x: fnp.where(fnp.isnan(x), 0.0, x) ** 2,
    lambda x: fnp.sign(x).astype(int) * x, lambda x: ((x > 0) & (x < 2)) * x,
    lambda x: fnp.max(x) * x, lambda x: fnp.sort(x) * fnp.ptp(x), lambda x: fnp.round(x, 1) + x])
def test_what_a_derivative_takes_for_constant_is_recomputed(function):
    values, others = [np.array([1.0, 2.5, -3.0])], [np.array([2.0, -0.5, 1.5])]
    agrees(lambda v: [function(v[0])], values, others)
    agrees(lambda v: [fg.grad(lambda x: fnp.sum(function(x)))(v[0])], values, others)
    agrees(lambda v: [fg.hvp(lambda x: fnp.sum(function(x) ** 2))(v[0], v[0])], values, others)
    agrees(lambda v: [fg.jvp(function, (v[0],), (v[0],))[1]], values, others)


def test_without_recording_values_are_followed_too():
    def function(v):
        with fg.no_grad():
            y = v[0] * 2.0
        return [y * v[0], fg.grad(lambda x: fnp.sum(y * x))(v[0])]
    agrees(function, [np.array([1.0, 2.0])], [np.array([3.0, 4.0])])


TABLE = np.array([1.0, 2.0, 3.0])
PARAMETER = fg.tensor([1.0, 2.0], requires_grad=True)
KEPT = []


def keeps(x):
    KEPT.append(x * 2)
    return x


@pytest.mark.parametrize("function, why", [
    (lambda x: x * float(x[0].item()), "leaves"), (lambda x: x * x.numpy(), "leaves"),
    (lambda x: x * (1.0 if str(x) else 2.0), "leaves"), (lambda x: x * PARAMETER, "outside"),
    (lambda x: x * x.detach().tolist()[0], "leaves")])
def test_reasons_not_to_replay(function, why):
    recording = record(lambda v: [function(v[0])], [np.array([1.0, 2.0])], plain=True)
    assert why in recording.reason and "test_record.py" in recording.reason
    np.testing.assert_array_equal(recording.results[0], function(fg.tensor([1.0, 2.0])).detach())


def test_arrays_that_are_made_inside_are_constants():
    for f in (lambda x: x * np.arange(2.0), lambda x: x * TABLE[:2],
              lambda x: x + fnp.repeat(x, TABLE[:2].astype(int))[:2]):
        recording = record(lambda v, f=f: [f(v[0])], [np.array([1.0, 2.0])], [], plain=True)
        assert recording.reason is None and recording.derived and not recording.captured
        got = replay(recording.graph, [np.array([3.0, -1.0])])
        np.testing.assert_array_equal(got[0], f(fg.tensor([3.0, -1.0])).detach())


def test_memory_of_a_known_array_that_is_shown_in_another_way():
    recording = record(lambda v: [v[0] * TABLE.view(np.int64)], [np.ones(3)], [TABLE], plain=True)
    assert "shows another one in a way that cannot be told" in recording.reason


def test_a_tensor_from_outside_that_is_changed():
    w = fg.tensor([1.0, 2.0])

    def function(v):
        w[0] = 5.0
        return [v[0] * 2]
    assert "changed" in record(function, [1.0], [w]).reason


def test_known_arrays_are_inputs():
    recording = record(lambda v: [v[0] * TABLE + fnp.sum(TABLE) + fnp.mean(fnp.negative(TABLE)),
                                  PARAMETER * v[0][:2]], [np.ones(3)], [TABLE, PARAMETER])
    assert recording.reason is None
    assert [x is y for x, y in zip(recording.captured, [TABLE, PARAMETER])] == [True, True]
    got = replay(recording.graph, [np.ones(3), 2 * TABLE, np.array([3.0, 4.0])])
    np.testing.assert_array_equal(got[0], 2 * TABLE + 12 - 4)
    np.testing.assert_array_equal(got[1], [3.0, 4.0])


def test_an_array_that_changes_while_it_is_recorded():
    a = np.ones(2)

    def function(v):
        y = v[0] * a
        a[0] += 1
        return [y * a]
    assert "changed" in record(function, [np.ones(2)], [a]).reason


def test_literals_are_constants():
    recording = record(lambda v: [v[0] * core.vouch(np.arange(2.0)) + fnp.arange(2.0) + fnp.zeros(2)
                                  + fnp.array([1.0, 2.0])], [np.ones(2)])
    assert recording.reason is None and not recording.captured
    np.testing.assert_array_equal(replay(recording.graph, [np.array([2.0, 3.0])])[0], [1.0, 6.0])


def test_a_history_is_a_graph():
    w = fg.tensor(3.0, requires_grad=True)
    v = fg.tensor([1.0, 2.0], requires_grad=True)
    loss = w * w + fnp.sum(v * w * 2.0)
    recording = history([w], [loss])
    assert recording.captured == [v] or recording.captured[0] is v
    assert replay(recording.graph, [np.float64(2.0), np.array([1.0, 1.0])]) == [12.0]
    loss.backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        history([w], [loss])


def test_a_history_that_is_not_complete():
    w = fg.tensor([3.0, 1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="let go"):
        history([w], [fnp.sum(w + np.ones(2))])
    u = fg.tensor(3.0, requires_grad=True)
    y = u * u if u * 2 > 1 else -u
    assert [guard.kind for guard in history([u], [y]).graph.guards] == ["bool"]
    y = u * int(np.unique(u.detach())[0])
    with pytest.raises(RuntimeError, match="decided by a value"):
        history([u], [y])


def test_nothing_stays():
    function = differentiated(lambda np, x: np.sum(np.sort(np.sin(x)) * np.max(x)), 1)
    record(function, [np.ones(3)])
    gc.collect()
    before = core.tape_info()["nodes"]
    for _ in range(5):
        record(function, [np.ones(3)])
        with pytest.raises(ZeroDivisionError):
            record(lambda v: [v[0] * (1 / 0)], [1.0])
    gc.collect()
    assert core.tape_info()["nodes"] <= before
    assert not core.recording_program() and not core.transforming()
