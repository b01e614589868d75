"""Closures, memory, sizes and special values: every mode and order must tell the same story.

What random programs are asked one by one is in random_checks.py.
"""

import itertools
import warnings

import numpy as np
import pytest
from random_programs import RECORDED, programs, stored

import fastgrad as fg
import fastgrad.numpy as fnp


def dot(a, b):
    return sum((fnp.sum(x * y) for x, y in zip(a, b, strict=True)), 0.0)


class Comparison:
    """Compares trees of arrays, in units of the largest of them."""

    def __init__(self, program):
        self.program = program
        self.near = 1e-10 if program.dtype == np.float64 else 2e-3

    def __call__(self, found, wanted, what, factor=1.0):
        if not isinstance(wanted, (tuple, list)):
            found, wanted = [found], [wanted]
        scale = max([1.0, *[float(np.max(abs(np.asarray(x)))) for x in wanted if np.size(x)]])
        for x, y in zip(found, wanted, strict=True):
            assert np.shape(x) == np.shape(y), (what, self.program.text)
            np.testing.assert_allclose(
                np.asarray(x), np.asarray(y), rtol=0, atol=factor * self.near * scale,
                err_msg=f"{what}\n{self.program.text}\n{self.program.inputs}")


def directions(program, count):
    rng = np.random.default_rng(len(program.text))
    return [tuple(rng.uniform(-1, 1, x.shape).astype(program.dtype) for x in program.inputs)
            for _ in range(count)] + [
                np.asarray(rng.uniform(-1, 1, program.value.shape), program.dtype)]


def test_how_inputs_are_stored_does_not_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for program in programs(200, 15):
            xs, every = program.inputs, tuple(range(len(program.inputs)))
            v, w = directions(program, 1)
            f = lambda *args, p=program, w=w: fnp.sum(  # noqa: E731
                fnp.sin(p.f(RECORDED, *args) * w))
            kept = [x.copy() for x in xs]
            for how in stored(xs[0]):
                others = [stored(x)[how] for x in xs]
                Comparison(program)(fg.grad(f, every)(*others), fg.grad(f, every)(*xs), how)
                Comparison(program)(fg.hvp(f, every)(*others, v), fg.hvp(f, every)(*xs, v), how)
            tree = {"a": xs[0], "b": [tuple(xs[1:])]}
            slopes = fg.grad(lambda t, f=f: f(t["a"], *t["b"][0]))(tree)
            Comparison(program)([slopes["a"], *slopes["b"][0]], fg.grad(f, every)(*xs), "tree")
            for x, before in zip(xs, kept, strict=True):
                np.testing.assert_array_equal(x, before)


def test_derivatives_inside_of_closures():
    """s -> <grad f(s x), v>, by every transformation inside of both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for program in programs(300, 15):
            xs, every = program.inputs, tuple(range(len(program.inputs)))
            v, w = directions(program, 1)

            def phi(*args, program=program, w=w):
                return fnp.sum(fnp.sin(program.f(RECORDED, *args) * w))

            def at(s, phi=phi):
                return lambda *args: phi(*[x * s for x in args])

            insides = {
                "grad": lambda s: dot(fg.grad(at(s), every)(*xs), v),
                "jvp": lambda s: fg.jvp(at(s), xs, v)[1],
                "linearize": lambda s: fg.linearize(at(s), *xs)[1](*v),
                "vjp": lambda s: dot(fg.vjp(at(s), *xs)[1](1.0), v),
                "forward": lambda s: dot(fg.jacobian(at(s), every, mode="forward")(*xs), v),
                "reverse": lambda s: dot(fg.jacobian(at(s), every, mode="reverse")(*xs), v),
                "taylor": lambda s: fg.taylor(lambda args: phi(*args), tuple([x * s for x in xs]),
                                           tuple([x * s for x in v]), 1)[1],
            }
            wanted = fg.grad(insides["grad"])(1.0)
            for name, inside in insides.items():
                for found in (fg.grad(inside)(1.0), fg.jvp(inside, (1.0,), (1.0,))[1]):
                    scale = max(1.0, abs(wanted))
                    Comparison(program)(found / scale, wanted / scale, name, 10)


def waiting(a, b):
    """Results of this size wait for each other; some are looked at."""
    c = fnp.tanh(a * b) - fnp.sin(a)
    d = fnp.where(c > 0.1, a * c, fnp.exp(-b * b))
    if d[7] > 0:
        d = d * 1.5 + 0.25
    d[5:-7:3] = fnp.cos(c)[5:-7:3]
    d *= fnp.sqrt(b * b + 0.5)
    e = (d.reshape(4, -1).sum(axis=0) * 0.1)[np.arange(a.size) % (a.size // 4)]
    return e[::-1] * d + fnp.mean(c * c) * fnp.maximum(a, b)


@pytest.mark.parametrize("size", [4096, 100_000])
def test_large_arrays_in_every_mode(size):
    rng = np.random.default_rng(size)
    a, b, va, vb, w = rng.uniform(-1.5, 1.5, (5, size))
    b = np.where(abs(a - b) < 0.01, a + 0.1, b)
    phi = lambda *args: fnp.sum(fnp.sin(waiting(*args)) * w)  # noqa: E731

    def inner(x, y):
        return float(x[0] @ y[0] + x[1] @ y[1])

    y, pull = fg.vjp(waiting, a, b)
    dy = fg.jvp(waiting, (a, b), (va, vb))[1]
    assert inner(pull(w), (va, vb)) == pytest.approx(float(w @ dy), rel=1e-10)
    np.testing.assert_allclose(fg.linearize(waiting, a, b)[1](va, vb), dy, rtol=1e-12, atol=1e-12)
    first = fg.grad(phi, (0, 1))(a, b)
    assert fg.jvp(phi, (a, b), (va, vb))[1] == pytest.approx(inner(first, (va, vb)), rel=1e-9)
    second = fg.hvp(phi, (0, 1))(a, b, (va, vb))
    leaves = fg.tensor(a, requires_grad=True), fg.tensor(b, requires_grad=True)
    slopes = fg.gradients(phi(*leaves), leaves, create_graph=True)
    twice = fg.gradients(fnp.sum(slopes[0] * va) + fnp.sum(slopes[1] * vb), leaves)
    for x, z in zip(second, twice, strict=True):
        np.testing.assert_allclose(z.numpy(), x, rtol=1e-9, atol=1e-9)
    _, _, half = fg.taylor(lambda t: phi(*t), (a, b), (va, vb), 2)
    assert 2 * half == pytest.approx(inner(second, (va, vb)), rel=1e-8)


# ---- special values -------------------------------------------------------------------------

INF, NAN = np.inf, np.nan

# A function of a number, where, and its first three derivatives: operator by operator, as the rules
# for kinks and the strong zero say. Two of a kind: that of a derivative that is infinite itself,
# and Taylor's, which asks the value.
SPECIAL = {
    "abs": (fnp.abs, 0.0, 0, 0, 0),
    "relu": (fnp.relu, 0.0, 0, 0, 0),
    "square of abs": (lambda x: fnp.abs(x) ** 2, 0.0, 0, 2, 0),
    "maximum of a literal": (lambda x: fnp.maximum(x, 1.0) * x, 1.0, 1, 0, 0),
    "maximum of Tensors": (lambda x: fnp.maximum(x, x * x), 1.0, 1.5, 1, 0),
    "clip at its bound": (lambda x: fnp.clip(x, 1.0, 2.0) * x, 1.0, 1, 0, 0),
    "max of ties": (lambda x: fnp.max(fnp.stack([x, x * x, x - 1])), 1.0, 1.5, 1, 0),
    "sqrt": (fnp.sqrt, 0.0, INF, -INF, INF),
    "sqrt of -0.0": (fnp.sqrt, -0.0, INF, -INF, INF),
    "sqrt of a square": (lambda x: fnp.sqrt(x * x), 0.0, 0, INF, (NAN, 0)),
    "log": (fnp.log, 0.0, INF, -INF, INF),
    "log outside": (fnp.log, -1.0, NAN, NAN, NAN),
    "cbrt": (fnp.cbrt, 0.0, INF, -INF, INF),
    "arcsin": (fnp.arcsin, 1.0, INF, INF, INF),
    "arccosh": (fnp.arccosh, 1.0, INF, -INF, (NAN, INF)),
    "norm": (lambda x: fnp.linalg.norm(x * np.ones(3)), 0.0, 0, 0, 0),
    "std of equals": (lambda x: fnp.std(x * np.ones(3)), 2.0, 0, 0, 0),
    "hypot": (lambda x: fnp.hypot(x, x), 0.0, 0, 0, 0),
    "power 0": (lambda x: x ** 0, 0.0, 0, 0, 0),
    "power 1": (lambda x: x ** 1, 0.0, 1, 0, 0),
    "power 2": (lambda x: x ** 2, 0.0, 0, 2, 0),
    "power 3.0": (lambda x: x ** 3.0, 0.0, 0, 0, 6),
    "power 0.5": (lambda x: x ** 0.5, 0.0, INF, -INF, INF),
    "power 1.5": (lambda x: x ** 1.5, 0.0, 0, INF, -INF),
    "power -1": (lambda x: x ** -1, 0.0, -INF, INF, -INF),
    "power of an array": (lambda x: x ** np.array(2.0), 0.0, 0, 2, 0),
    "power of a Tensor": (lambda x: x ** (2.0 + 0 * x), 0.0, 0, 2, 0),
    "power of a negative number": (lambda x: x ** 3.0, -2.0, 12, -12, 6),
    # (In reverse mode an infinite adjoint meets the partial -x / x**2, which is 0.)
    "xlogy": (lambda x: fg.special.xlogy(x, x), 0.0, 0, INF, ({"f": -INF, "r": NAN}, -INF)),
    "exponent of 0": (lambda y: 0.0 ** y, 0.0, 0, 0, 0),
    "where, log not taken": (lambda x: fnp.where(x > 0, fnp.log(x), x ** 3), 0.0, 0, 0, 6),
    "where, sqrt not taken": (lambda x: fnp.where(x > 0, fnp.sqrt(x), x ** 3), -1.0, 3, -6, 6),
    "where, quotient not taken": (
        lambda x: fnp.where(x == 0, x ** 2, fnp.sin(x) / x), 0.0, 0, 2, 0),
    "where, overflow not taken": (
        lambda x: fnp.where(x > 0, x ** 3, fnp.exp(-500 * x)), -5.0, -INF, INF, -INF),
    "mask": (lambda x: (x > 0) * fnp.sqrt(x), 0.0, 0, 0, 0),
    "zero times log": (lambda x: 0.0 * fnp.log(x) + x, 0.0, 1, 0, 0),
    "logsumexp with -inf": (
        lambda x: fg.special.logsumexp(fnp.stack([x, 2 * x - INF, x * x])), 1.0, 1.5, 1.25, 1.5),
    "logsumexp of -inf": (lambda x: fg.special.logsumexp(x * np.ones(2) - INF), 1.0, 0, 0, 0),
    "logsumexp of inf": (
        lambda x: fg.special.logsumexp(fnp.stack([x + INF, 2 * x + INF, x])), 1.0, 1.5, 0, 0),
    "logaddexp of inf": (lambda x: fnp.logaddexp(x + INF, 3 * x + INF), 1.0, 2, 1, 0),
    "prod with a zero": (lambda x: fnp.prod(fnp.stack([x, x + 1, x + 2])), 0.0, 2, 6, 6),
    "prod with two": (lambda x: fnp.prod(fnp.stack([x, 2 * x, x + 2])), 0.0, 0, 8, 12),
    "prod with three": (lambda x: fnp.prod(fnp.stack([x, 2 * x, 3 * x, x + 1])), 0.0, 0, 0, 36),
    "exp": (fnp.exp, 1000.0, INF, INF, INF),
    "sigmoid": (fnp.sigmoid, -1000.0, 0, 0, 0),
    "arctan": (fnp.arctan, INF, 0, 0, 0),
    "essential": (lambda x: fnp.exp(-1 / (x * x)), 0.0, 0, 0, 0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_every_mode_agrees_at_special_values(name):
    f, x, *wanted = SPECIAL[name]
    modes = {"f": lambda g: lambda t: fg.jvp(g, (t,), (1.0,))[1], "r": fg.grad}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        coefficients = fg.taylor(f, x, 1.0, 3)
        for order, value in enumerate(wanted, 1):
            value, of_the_value = value if isinstance(value, tuple) else (value, value)
            for nesting in itertools.product("fr", repeat=order):
                g = f
                for mode in nesting:
                    g = modes[mode](g)
                expected = value[nesting[-1]] if isinstance(value, dict) else value
                np.testing.assert_allclose(g(x), expected, rtol=1e-14, err_msg=str(nesting))
            np.testing.assert_allclose(coefficients[order] * [1, 1, 2, 6][order], of_the_value,
                                       rtol=1e-14)
        np.testing.assert_allclose(fg.hessian(f)(x), wanted[1], rtol=1e-14)
        np.testing.assert_allclose(fg.laplacian(f)(x), wanted[1], rtol=1e-14)


# ---- found by random programs ---------------------------------------------------------------

@pytest.mark.parametrize("place", ["1:1", "[]"])
def test_a_value_assigned_to_an_empty_part_has_no_slope(place):
    index = eval(f"np.s_[{place}]")

    def f(x):
        y = x.ravel() * 2.0
        y[index] = x            # of shape (1, 1), which NumPy lets fit into (0,)
        return fnp.sum(y * y)

    x = np.array([[3.0]])
    leaf = fg.tensor(x, requires_grad=True)
    assert fg.grad(f)(x) == 24
    assert fg.gradients(f(leaf), leaf, create_graph=True).numpy() == 24
    assert fg.hvp(f)(x, np.ones((1, 1))) == 8
    assert fg.grad(lambda x: fnp.sum(fg.grad(f)(x)))(x) == 8


def test_a_value_with_more_axes_than_the_part_keeps_them():
    def f(x):
        y = fnp.zeros(3)
        y[1:] = x * x           # (1, 2)
        y[0] = x[0, 0]
        return fnp.sum(y ** 2 * np.arange(1.0, 4.0))

    x = np.array([[3.0, 2.0]])
    np.testing.assert_allclose(fg.hvp(f)(x, np.ones((1, 2))), [[2 + 24 * 9, 36 * 4]])
    np.testing.assert_allclose(fg.grad(lambda x: fnp.sum(fg.grad(f)(x)))(x), [[218, 144]])


@pytest.mark.parametrize("x", [2.0, np.array(2.0)])
def test_blocks_of_numbers_have_no_axes(x):
    hessian = fg.hessian(lambda a, b: a * a * b, (0, 1))(x, x)
    for row, wanted in zip(hessian, [[4, 4], [4, 0]], strict=True):
        for block, value in zip(row, wanted, strict=True):
            assert np.shape(block) == ()
            assert block == value
    for mode in ("forward", "reverse"):
        slope = fg.jacobian(lambda a: a ** 3, mode=mode, layout="denominator")(x)
        assert np.shape(slope) == ()
        assert slope == 12
    tree = fg.hessian(lambda p: p["a"] * p["b"])({"a": x, "b": x})
    assert np.shape(tree["a"]["b"]) == np.shape(tree["b"]["a"]) == ()


def test_numbers_change_in_place_where_numpy_would():
    def added(x):
        y = x * 2.0
        np.add.at(y, (), x * x)
        return y * y

    def out(x):
        y = x * 2.0
        z = y
        np.add(y, x * x, out=y)
        return y * z

    for f in (added, out):
        for x in (3.0, np.array(3.0)):
            assert fg.value_and_grad(f)(x) == (225, 240)
            assert fg.jvp(f, (x,), (1.0,)) == (225, 240)
            assert fg.hvp(f)(x, 1.0) == 188


@pytest.mark.parametrize("x", [3.0, np.array(3.0)])
def test_an_axis_put_before_a_number_makes_an_array_of_its_own(x):
    def f(x):
        y = x * 2.0
        z = y[None]
        z[0] *= x
        return y * z[0]

    assert fg.value_and_grad(f)(x) == (108, 108)
    assert fg.hvp(f)(x, 1.0) == 72


def test_sparse_jacobian_through_an_empty_product():
    pytest.importorskip("scipy.sparse")

    def f(x):
        return x[:0] @ np.zeros((2, 3)) if x.ndim > 1 else np.zeros((2, 0)) @ x[:0] + x

    assert fg.jacobian(f, sparse=True)(np.ones((2, 2))).shape == (0, 4)
    np.testing.assert_array_equal(fg.jacobian(f, sparse=True)(np.ones(2)).toarray(), np.eye(2))


def test_symbols_through_masks_and_arrays_of_numbers():
    pytest.importorskip("sympy")
    x = np.array([0.5, -0.7, 1.2])

    def f(x):
        y = fnp.where(x > 0, x * x, fnp.sin(x))
        z = fnp.array([y[0], x[2], 1.0, y[1] * y[0]])
        return fnp.sum(y ** 3) + fnp.sum(fnp.triu(fnp.outer(x, x), 1)) + fnp.sum(z * z)

    s = fg.symbolic(f, x)
    value, gradient = s.lambdify()(x)
    assert value == pytest.approx(float(fg.vjp(f, x)[0]), rel=1e-13)
    np.testing.assert_allclose(gradient, fg.grad(f)(x), rtol=1e-13)
