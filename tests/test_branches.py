"""`fg.cond` and `fg.switch`: one branch where the outcome is known, and in lanes and steps both, of
which each takes its own, with the derivative of that one alone.
"""

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp


def root_or_nothing(x):
    return fg.cond(x > 0, np.sqrt, lambda x: 0.0 * x, x)


def plain(x):
    return np.sqrt(x) if x > 0 else 0.0 * x


def inverse_or_log(x):
    """Infinite, or NaN, where the other is taken."""
    return fg.cond(x == 0.0, lambda x: x + 1.0, lambda x: np.log(x * x) / x, x)


def three(i, x):
    return fg.switch(i, [np.sin, np.cos, lambda x: x * x], x)


POINTS = np.array([4.0, -1.0, 0.25, 0.0, -0.5])


@pytest.mark.parametrize("way", [lambda f: f, fg.grad, lambda f: fg.grad(fg.grad(f)),
                                 lambda f: lambda x: fg.jvp(f, (x,), (1.0,))[1]])
@pytest.mark.parametrize("f", [root_or_nothing, inverse_or_log])
def test_every_way(f, way):
    points = POINTS if f is inverse_or_log else POINTS[POINTS != 0.0]
    transformed = way(f)
    expected = [transformed(float(x)) for x in points]
    np.testing.assert_allclose(fg.vmap(transformed)(points), expected, rtol=1e-12)
    np.testing.assert_allclose(fg.compile(fg.vmap(transformed))(points), expected, rtol=1e-12)
    program = fg.compile(transformed)
    np.testing.assert_allclose([program(float(x)) for x in points], expected, rtol=1e-12)
    np.testing.assert_allclose(
        fg.scan(lambda c, x: (c, transformed(x)), 0.0, points)[1], expected, rtol=1e-12)
    scanned = fg.compile(lambda xs: fg.scan(lambda c, x: (c, transformed(x)), 0.0, xs)[1])
    np.testing.assert_allclose(scanned(points), expected, rtol=1e-12)
    assert np.all(np.isfinite(expected))


def test_against_if():
    for x in (4.0, -1.0):
        assert root_or_nothing(x) == plain(x)
        assert fg.grad(root_or_nothing)(x) == fg.grad(plain)(x)


def test_in_a_program_the_outcome_is_a_guard_and_one_branch_runs():
    program = fg.compile(root_or_nothing)
    program(4.0), program(9.0), program(-1.0), program(-2.0)
    assert [(path.calls, path.guards[0].outcome) for path in program.paths] == [
        (2, False), (2, True)]


def test_a_loop_has_one_node():
    def f(x):
        return fg.fori_loop(0, 50, lambda i, c: fg.cond(
            c > 10.0, lambda c: c / 2, lambda c: c * 3, c), x)

    def loop(x):
        for _ in range(50):
            x = x / 2 if x > 10.0 else x * 3
        return x

    program = fg.compile(fg.value_and_grad(f))
    for x in (1.0, 2.5, 40.0):
        np.testing.assert_allclose(program(x), fg.value_and_grad(loop)(x), rtol=1e-12)
    assert len(program.paths) == 1 and len(program.paths[0].graph.nodes) < 40

    steps = fg.compile(lambda x: fg.while_loop(
        lambda c: c[0] < 20, lambda c: (c[0] + 1, fg.switch(c[0] % 3, [
            np.sin, np.cos, lambda v: v * 2], c[1])), (0, x))[1])
    for x in (0.3, 0.7):
        y = x
        for k in range(20):
            y = (np.sin, np.cos, lambda v: v * 2)[k % 3](y)
        np.testing.assert_allclose(steps(x), y, rtol=1e-12)


@pytest.mark.parametrize("way", [lambda f: f, lambda f: fg.grad(f, argnums=1), fg.compile])
def test_switch(way):
    i, x = np.array([2, 0, 1, -5, 9]), np.array([3.0, 0.5, 0.5, 0.5, 2.0])
    f = way(three)
    expected = [f(int(k), float(v)) for k, v in zip(i, x)]
    np.testing.assert_allclose(fg.vmap(f)(i, x), expected, rtol=1e-14)
    np.testing.assert_allclose([f(np.int64(k), v) for k, v in zip(i, x)], expected, rtol=1e-14)


def test_trees_and_arrays():
    def f(flag, p):
        return fg.cond(flag, lambda p: {"a": p["a"] * 2, "b": (p["b"], 1.0)},
                       lambda p: {"a": -p["a"], "b": (p["b"] ** 2, 2)}, p)

    flags = np.array([True, False])
    p = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([2.0, 3.0])}
    found = fg.vmap(f)(flags, p)
    np.testing.assert_array_equal(found["a"], [p["a"][0] * 2, -p["a"][1]])
    np.testing.assert_array_equal(found["b"][0], [2.0, 9.0])
    np.testing.assert_array_equal(found["b"][1], [1.0, 2.0])


def test_a_flag_that_lanes_share_decides():
    calls = []

    def f(x, flag):
        return fg.cond(flag, lambda x: calls.append(1) or x * 2, lambda x: x * 3, x)

    np.testing.assert_array_equal(fg.vmap(lambda x: f(x, True))(POINTS), POINTS * 2)
    np.testing.assert_array_equal(fg.vmap(f, in_axes=(0, None))(POINTS, False), POINTS * 3)


@pytest.mark.parametrize("call, error, words", [
    (lambda: fg.cond(np.array([True]), abs, abs, 1.0), TypeError, r"not bool of shape \(1,\)"),
    (lambda: fg.cond(1.0, abs, abs, 1.0), TypeError, "one bool, not float; write a comparison"),
    (lambda: fg.cond(True, 3.0, abs, 1.0), TypeError, "cond: it needs functions, not float"),
    (lambda: fg.switch(0, []), ValueError, "there is no branch"),
    (lambda: fg.switch(1.0, [abs], 1.0), TypeError, "one integer, not float"),
    (lambda: fg.switch(0, [abs, 2]), TypeError, "switch: it needs functions, not int"),
    (lambda: fg.vmap(lambda x: fg.cond(x > 0, lambda x: (x,), lambda x: x, x))(POINTS), ValueError,
     "return different trees"),
    (lambda: fg.vmap(lambda x: fg.cond(x > 0, lambda x: x * fnp.ones(2), lambda x: x, x))(POINTS),
     ValueError, r"shapes \(\) and \(2,\)"),
    (lambda: fg.vmap(lambda x: fg.cond(x > 0, lambda x: "a", lambda x: "b", x))(POINTS), ValueError,
     "return 'b' and 'a', between which nothing"),
    (lambda: fg.vmap(lambda x: fg.switch(x, [abs, abs], x))(POINTS), TypeError, "not float64"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
