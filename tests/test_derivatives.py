"""Derivatives of derivatives: perturbations that are not confused, create_graph, streams of forward
mode in constant memory, what is left on the tape. The laws over all operators, in every nesting and
to order four, are in laws/test_derivatives.py.
"""

import itertools
import math
import warnings

import numpy as np
import pytest
from laws import ROWS, differentiated, generator, name_of, operands
from laws.examples import A, B

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

# Derivatives of polynomials of low degree are constant.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not depend")

CURVED = [row for row in ROWS if row.smooth and row.arity == 1 and row.reads != ("",)]


# ---- confusion of perturbations -------------------------------------------------------------

def forward(f):
    return lambda x: fg.jvp(f, (x,), (1.0,))[1]


PAIRS = list(itertools.product((fg.grad, forward), repeat=2))


@pytest.mark.parametrize(("outer", "inner"), PAIRS,
                         ids=lambda d: "reverse" if d is fg.grad else "forward")
def test_nested_derivatives_do_not_see_each_other(outer, inner):
    # Siskind and Pearlmutter's trap: d/dx (x d/dy (x + y)) = 1, not 2.
    assert outer(lambda x: x * inner(lambda y: x + y)(1.0))(1.0) == 1.0
    assert outer(lambda x: x * inner(lambda y: x + y)(x))(3.0) == 1.0
    assert outer(lambda x: x * inner(lambda y: x * y)(2.0))(3.0) == 6.0
    assert outer(lambda x: inner(lambda y: x * y)(x))(3.0) == 1.0
    assert outer(lambda x: inner(lambda y: y * y * x)(x))(3.0) == 12.0
    assert outer(lambda x: inner(lambda x: x * x)(x) * x)(3.0) == 12.0

    # A closure that outlives the inner derivative: d/du of u |-> u * w at the outer variable.
    def curried(x):
        kept = []
        inner(lambda y: kept.append(lambda z: z * x * y) or y * y)(x)
        return inner(kept[0])(x)

    assert outer(curried)(3.0) == pytest.approx(6.0)
    # Three levels over one variable.
    assert outer(lambda x: inner(lambda y: outer(lambda z: x * y * z)(y))(x) * x)(2.0) == 4.0


@pytest.mark.parametrize(("outer", "inner"), PAIRS,
                         ids=lambda d: "reverse" if d is fg.grad else "forward")
def test_a_variable_of_the_outer_derivative_is_constant_to_the_inner(outer, inner):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert outer(lambda x: inner(lambda y: x * x)(1.0))(3.0) == 0.0
        assert outer(lambda x: x * inner(lambda y: x * x + 0 * y)(1.0))(3.0) == 0.0


def test_inner_derivatives_of_arrays_taken_in_a_loop():
    """Gradient descent inside a function, differentiated through: an unrolled optimiser."""
    def inner(w, rate):
        for _ in range(20):
            w = w - rate * fg.grad(lambda w: fnp.sum((w * w - 2.0) ** 2))(w)
        return fnp.sum(w)

    w = np.array([1.0, 1.5])
    slope = fg.grad(inner, argnums=1)(w, 0.01)
    step = 1e-6
    assert slope == pytest.approx((inner(w, 0.01 + step) - inner(w, 0.01 - step)) / (2 * step),
                                  rel=1e-6)
    assert fg.jvp(lambda rate: inner(w, rate), (0.01,), (1.0,))[1] == pytest.approx(slope, rel=1e-12)


# ---- backward with create_graph -------------------------------------------------------------

@pytest.mark.parametrize("row", CURVED, ids=name_of)
def test_create_graph_agrees_with_nested_grad(row):
    x, = operands(row, "float64", (3,))
    f = core.functions[row.name]
    leaf = fg.tensor(x, requires_grad=True)
    f(leaf).sum().backward(create_graph=True)
    first = leaf.grad
    assert first.requires_grad
    leaf.grad = None
    first.sum().backward(create_graph=True)
    second = leaf.grad
    leaf.grad = None
    inner = fg.grad(lambda x: fnp.sum(f(x)))
    np.testing.assert_allclose(first.numpy(), inner(x), rtol=1e-14)
    np.testing.assert_allclose(second.numpy(), fg.grad(lambda x: fnp.sum(inner(x)))(x),
                               rtol=1e-14, atol=1e-300)


def test_create_graph_keeps_the_graph_and_accumulates():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    y = (w ** 3).sum()
    y.backward(create_graph=True)
    y.backward(create_graph=True)
    np.testing.assert_allclose(w.grad.numpy(), [6, 24])
    penalty = (w.grad ** 2).sum()
    w.grad = None
    penalty.backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * np.array([6, 24]) * 12 * np.array([1, 2]))
    assert not w.grad.requires_grad


def test_gradients_of_gradients_of_intermediate_results():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    h = w * w
    g = fg.gradients((h ** 3).sum(), h, create_graph=True)
    np.testing.assert_allclose(fg.gradients(g.sum(), [h, w])[0].numpy(), [6, 24])
    assert not fg.gradients((w * w).sum(), w).requires_grad


def test_a_gradient_penalty_over_parameters():
    """fg.grad of a Tensor, with parameters in the closure, is recorded."""
    rng = generator("penalty")
    w = fg.tensor(rng.normal(size=(3, 3)), requires_grad=True)
    x = fg.tensor(rng.normal(size=3))
    f = lambda v: fnp.sum(fnp.tanh(w @ v))  # noqa: E731
    g = fg.grad(f)(x)
    (g @ g).backward()

    def plain(w):
        return np.sum(fg.grad(lambda v: fnp.sum(fnp.tanh(w @ v)))(x.numpy()) ** 2)

    numeric = np.zeros((3, 3))
    for i in np.ndindex(3, 3):
        up, down = w.numpy().copy(), w.numpy().copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric[i] = (plain(up) - plain(down)) / 2e-6
    np.testing.assert_allclose(w.grad.numpy(), numeric, rtol=1e-6, atol=1e-8)


# ---- forward mode in constant memory --------------------------------------------------------

def test_a_long_loop_holds_a_few_segments():
    most = []

    def f(x):
        y = x
        for i in range(60_000):
            y = y * 0.9999 + x * 1e-4
            if i % 1000 == 0:
                most.append(core.tape_info()["nodes"])
        return y

    before = core.pool_info()["segments"]
    y, dy = fg.jvp(f, (1.0,), (1.0,))
    assert core.pool_info()["segments"] <= before + 4
    assert max(most) < 3000
    assert y == pytest.approx(1.0)
    assert dy == pytest.approx(1.0)
    assert core.tape_info()["nodes"] == 0


def test_large_arrays_do_not_pile_up():
    x = np.ones(300_000)

    def f(x):
        y = x
        for _ in range(60):
            y = fnp.sin(y) * x
        return fnp.sum(y)

    core.pool_release()
    fg.jvp(f, (x,), (x,))
    # 120 results of 2.4 MB; without forgetting any they would be 288 MB, tangents not counted.
    used = core.pool_info()["used"]
    peak = []

    def watched(x):
        y = x
        for _ in range(60):
            y = fnp.sin(y) * x
            peak.append(core.pool_info()["used"])
        return fnp.sum(y)

    y, dy = fg.jvp(watched, (x,), (x,))
    assert max(peak) - used < 150e6
    z, pull = fg.vjp(f, x)
    assert dy == pytest.approx(float(pull(1.0)[0] @ x), rel=1e-12)


def test_an_inner_gradient_inside_a_long_stream():
    def f(x):
        total = 0.0
        for k in range(400):
            total = total + fg.grad(lambda y: fnp.sin(y) * y * x)(x * (k / 400))
        return total

    step = 1e-6
    y, dy = fg.jvp(f, (0.7,), (1.0,))
    assert y == pytest.approx(f(0.7))
    assert dy == pytest.approx((f(0.7 + step) - f(0.7 - step)) / (2 * step), rel=1e-7)
    assert core.tape_info()["nodes"] == 0


def test_values_that_outlive_their_stream_are_constants():
    kept = []
    fg.jvp(lambda x: kept.append(x * x) or x, (3.0,), (1.0,))
    assert fg.jvp(lambda x: x * kept[0], (2.0,), (1.0,)) == (18.0, 9.0)
    assert fg.grad(lambda x: x * kept[0])(2.0) == 9.0


# ---- what is left on the tape ---------------------------------------------------------------

@pytest.mark.parametrize("modes", ["rr", "ff", "rf", "fr", "rfr", "frf"])
def test_nothing_stays_recorded(modes):
    phi = differentiated(lambda t: fnp.sum(fnp.tanh(t * A) @ B) * t, modes)
    phi(0.3)
    nodes, used = core.tape_info()["nodes"], core.pool_info()["used"]
    for _ in range(5):
        phi(0.3)
    assert core.tape_info()["nodes"] == nodes == 0
    assert core.pool_info()["used"] == used


def test_an_error_inside_leaves_everything_as_it_was():
    def bad(x):
        fnp.sin(x) * x
        raise KeyError("inside")

    for call in (lambda: fg.jvp(bad, (1.0,), (1.0,)), lambda: fg.vjp(bad, 1.0),
                 lambda: fg.jacobian(bad)(A), lambda: fg.hvp(bad)(1.0, 1.0),
                 lambda: fg.grad(lambda x: fg.grad(bad)(x))(1.0),
                 lambda: fg.grad(lambda x: fg.jvp(bad, (x,), (1.0,))[1])(1.0),
                 lambda: fg.jvp(lambda x: fg.grad(bad)(x), (1.0,), (1.0,))):
        with pytest.raises(KeyError, match="inside"):
            call()
        assert not core.transforming()
        assert core.is_recording()
        assert fg.grad(lambda x: x ** 3)(2.0) == 12.0
        assert fg.jvp(lambda x: x ** 3, (2.0,), (1.0,)) == (8.0, 12.0)
    assert core.tape_info()["nodes"] == 0


def test_math_of_closed_forms():
    """Orders one to four of sin and of x**5 against what everybody knows."""
    for modes, value in (("r", math.cos(0.4)), ("rf", -math.sin(0.4)), ("frf", -math.cos(0.4)),
                         ("rrff", math.sin(0.4))):
        assert differentiated(fnp.sin, modes)(0.4) == pytest.approx(value, rel=1e-14)
        falling = math.prod(range(5, 5 - len(modes), -1)) * 2.0 ** (5 - len(modes))
        assert differentiated(lambda x: x ** 5, modes)(2.0) == falling


# ---- norms of singular values ---------------------------------------------------------------

@pytest.mark.parametrize("order", [2, -2, "nuc"])
def test_a_spectral_norm_has_one_derivative_and_refuses_the_second(order):
    f = lambda x: fnp.linalg.norm(x, order)  # noqa: E731
    slope = fg.grad(f)(A)
    for i in np.ndindex(A.shape):
        up, down = A.copy(), A.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric = (np.linalg.norm(up, order) - np.linalg.norm(down, order)) / 2e-6
        assert slope[i] == pytest.approx(numeric, abs=1e-8)
    y, dy = fg.jvp(f, (A,), (B.T,))
    assert y == pytest.approx(np.linalg.norm(A, order))
    assert dy == pytest.approx(np.sum(slope * B.T))
    assert fg.jacobian(f, mode="forward")(A) == pytest.approx(slope)
    for second in (lambda: fg.hessian(f)(A), lambda: fg.hvp(f)(A, A),
                   lambda: fg.grad(lambda t: fg.jvp(f, (A * t,), (A,))[1])(1.0)):
        with pytest.raises(fg.NoDerivativeError, match="no second derivative"):
            second()
    assert core.tape_info()["nodes"] == 0


def test_a_pullback_made_inside_a_stream_ends_with_it():
    kept = []

    def f(x):
        y, pull = fg.vjp(lambda z: z * z * x, x * 1.0)
        kept.append(pull)
        return pull(1.0)[0] + y

    y, dy = fg.jvp(f, (3.0,), (1.0,))       # x**3 + 2 x**2
    assert (y, dy) == (45.0, 39.0)
    with pytest.raises(RuntimeError, match="made inside a function that fg.jvp"):
        kept[0](1.0)
    kept.clear()
    assert core.tape_info()["nodes"] == 0


def test_a_graph_that_is_held_outside_does_not_lengthen_a_stream():
    y, push = fg.linearize(lambda x: x * x, 2.0)
    assert push(1.0) == 4.0

    def f(x):
        y = x
        for _ in range(60_000):
            y = y * 0.9999 + x * 1e-4
        return y

    before = core.pool_info()["segments"]
    assert fg.jvp(f, (1.0,), (1.0,))[1] == pytest.approx(1.0)
    assert core.pool_info()["segments"] <= before + 4
    assert push(1.0) == 4.0


# ---- operands and results that are returned ---------------------------------------------------

@pytest.mark.parametrize("product", [
    lambda x, z: x @ z, fnp.matmul, fnp.dot, fnp.inner, np.matmul, np.dot, np.inner, np.vdot,
    lambda x, z: fnp.outer(x, z) @ z, lambda x, z: fnp.outer(x, z) @ fnp.outer(z, x),
    lambda x, z: fnp.einsum("i,i->", x, z), lambda x, z: fnp.tensordot(x, z, 1)])
def test_products_whose_operands_are_returned(product):
    x, v = np.arange(1.0, 6.0), np.array([1.0, -1.0, 0.5, 2.0, 0.0])
    (y, same), (dy, dsame) = fg.jvp(lambda x: (product(x, x), x), (x,), (v,))
    two = fg.jvp(lambda x, z: (product(x, z), x, z), (x, x), (v, v))
    expected = fg.linearize(lambda x: product(x, x), x)
    for found in ((y, dy), (two[0][0], two[1][0])):
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-14)
        np.testing.assert_allclose(found[1], expected[1](v), rtol=1e-14)
    for found in (same, *two[0][1:]):
        np.testing.assert_array_equal(found, x)
    for found in (dsame, *two[1][1:]):
        np.testing.assert_array_equal(found, v)


def test_a_recurrence_of_products_that_is_kept():
    rng = generator("recurrence")
    W, x, v = rng.normal(size=(5, 5)) / 3, rng.normal(size=5), rng.normal(size=5)

    def states(x, count=700):
        h, kept = x, []
        for _ in range(count):
            h = fnp.tanh(W @ h + (x @ h) * 0.1 + x)
            kept.append(h)
        return kept

    kept, tangents = fg.jvp(states, (x,), (v,))
    h, t = x, v
    for found, slope in zip(kept, tangents, strict=True):
        new = np.tanh(W @ h + (x @ h) * 0.1 + x)
        t = (1 - new * new) * (W @ t + (v @ h + x @ t) * 0.1 + v)
        h = new
        np.testing.assert_allclose(found, h, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(slope, t, rtol=1e-10, atol=1e-12)


def test_conjugate_gradients_in_a_stream():
    rng = generator("conjugate gradients")
    B_ = rng.normal(size=(6, 6))
    M, b, v = B_ @ B_.T + 6 * np.eye(6), rng.normal(size=6), rng.normal(size=6)

    def solve(b):
        x = b * 0.0
        r = p = b
        s = r @ r
        for _ in range(6):
            q = M @ p
            a = s / (p @ q)
            x, r = x + a * p, r - a * q
            new = r @ r
            p, s = r + (new / s) * p, new
        return x

    x, dx = fg.jvp(solve, (b,), (v,))
    np.testing.assert_allclose(x, np.linalg.solve(M, b), rtol=1e-9)
    np.testing.assert_allclose(dx, np.linalg.solve(M, v), rtol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_rows_that_are_taken_one_by_one(count):
    """Their derivatives are put in place together where they are many, repeated ones added up."""
    def f(x):
        rows = [x[k % len(x)] for k in range(count)] + [x[-1], x[0, 1], x[1][2]]
        return sum([np.sum(row ** 2 * (k + 1)) for k, row in enumerate(rows)])

    x = np.arange(12.0).reshape(4, 3) / 7
    weights = np.zeros((4, 3))
    for k in range(count):
        weights[k % 4] += k + 1
    weights[-1] += count + 1
    weights[0, 1] += count + 2
    weights[1, 2] += count + 3
    for found in (fg.grad(f)(x), fg.compile(fg.grad(f))(x), fg.vmap(fg.grad(f))(np.stack([x]))[0],
                  fg.jacobian(fg.compile(f))(x)):
        np.testing.assert_allclose(found, 2 * weights * x, rtol=1e-14)
    np.testing.assert_allclose(fg.hessian(f)(x).reshape(12, 12), np.diag(2 * weights.ravel()))
    np.testing.assert_allclose(fg.compile(fg.hessian(f))(x).reshape(12, 12), np.diag(2 * weights.ravel()))
