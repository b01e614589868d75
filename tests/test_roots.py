"""Even powers of roots are differentiated as what stands under the root, to all orders."""

import itertools
import subprocess
import sys

import laws
import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

C = np.array([1.5, -0.5])

# A root of a vector; what stands under it; its order. All vanish at ZERO.
ROOTS = {
    "abs": (abs, lambda x: x * x, 2),
    "sqrt": (np.sqrt, lambda x: x, 2),
    "power": (lambda x: x ** 0.5, lambda x: x, 2),
    "hypot": (lambda x: np.hypot(x, x[::-1]), lambda x: x * x + (x * x)[::-1], 2),
    "hypot of a number": (lambda x: np.hypot(x, 0.0), lambda x: x * x, 2),
    "norm": (lambda x: np.linalg.norm(x) * np.ones(2), lambda x: np.sum(x * x) * np.ones(2), 2),
    "norms": (lambda x: np.linalg.norm(fnp.stack([x, 2 * x], 1), axis=1), lambda x: 5 * x * x, 2),
    "Frobenius": (lambda x: np.linalg.norm(fnp.outer(x, C)) * np.ones(2),
                  lambda x: np.sum(x * x) * np.sum(C * C) * np.ones(2), 2),
    "std": (lambda x: np.std(x, keepdims=True) * np.ones(2),
            lambda x: np.var(x, keepdims=True) * np.ones(2), 2),
    "cbrt": (np.cbrt, lambda x: x, 3),
}
# What is made of the root before it is raised, and what that does to what stands under it.
MADE = {
    "itself": (lambda r: r, lambda s, order: s),
    "times": (lambda r: 3.0 * r, lambda s, order: 3.0 ** order * s),
    "over": (lambda r: r / C, lambda s, order: s / C ** order),
    "minus": (lambda r: -r, lambda s, order: (-1.0) ** order * s),
    "all of it": (lambda r: -(C * r) / 2.0, lambda s, order: (-C / 2.0) ** order * s),
    "view": (lambda r: r[:, None][::-1], lambda s, order: s[:, None][::-1]),
    "entry": (lambda r: r[1], lambda s, order: s[1]),
    "picked": (lambda r: r[[1, 1, 0]], lambda s, order: s[[1, 1, 0]]),
    "broadcast": (lambda r: fnp.broadcast_to(r, (3, 2)), lambda s, order: fnp.broadcast_to(s, (3, 2))),
}
# Ways to raise it; the power in units of the order.
RAISED = {
    "power": (lambda r, order: r ** order, 1), "float power": (lambda r, order: r ** float(order), 1),
    "NumPy's number": (lambda r, order: np.power(r, np.float64(order)), 1),
    "twice": (lambda r, order: r ** (2 * order), 2),
    "square": (lambda r, order: np.square(r), 1), "product": (lambda r, order: r * r, 1),
    "np.multiply": (lambda r, order: np.multiply(r, r), 1),
}
CASES = [(root, made, power) for root, made, power in itertools.product(ROOTS, MADE, RAISED)
         if (made == "itself" or power in ("power", "twice"))
         and (ROOTS[root][2] == 2 or power in ("power", "float power", "NumPy's number", "twice"))]


def functions(root, made, power):
    r, under, order = ROOTS[root]
    of_root, of_under = MADE[made]
    raised, times = RAISED[power]
    return (lambda x: np.sum(raised(of_root(r(x)), order) * 0.5),
            lambda x: np.sum(of_under(under(x), order) ** times * 0.5))


def compiled(transform):
    def run(f, x):
        program = fg.compile(transform(f))
        program(np.array([0.3, 0.7]))
        return program(x)
    return run


V = np.array([0.5, 2.0])
FIRST = {
    "grad": lambda f, x: fg.grad(f)(x) @ V,
    "jvp": lambda f, x: fg.jvp(f, (x,), (V,))[1],
    "compiled grad": lambda f, x: compiled(fg.grad)(f, x) @ V,
    "compiled jvp": compiled(lambda f: lambda x: fg.jvp(f, (x,), (V,))[1]),
    "lane": lambda f, x: fg.vmap(fg.grad(f))(np.array([[0.3, 0.7], x]))[1] @ V,
    "recorded": lambda f, x: fg.jacobian(lambda x: fg.jvp(f, (x,), (V,))[1] * x[0], mode="reverse")(
        x + 0.0)[0] if x[0] == 0 else fg.grad(f)(x) @ V,
    "backward": lambda f, x: backward(f, x) @ V,
    "Taylor": lambda f, x: fg.taylor(f, x, V, 1)[1],
}
SECOND = {
    "hessian": lambda f, x: V @ fg.hessian(f)(x) @ V,
    "reverse over reverse": lambda f, x: V @ fg.jacobian(fg.grad(f), mode="reverse")(x) @ V,
    "forward over forward": lambda f, x: fg.jvp(lambda x: fg.jvp(f, (x,), (V,))[1], (x,), (V,))[1],
    "reverse over forward": lambda f, x: fg.grad(lambda x: fg.jvp(f, (x,), (V,))[1])(x) @ V,
    "compiled": lambda f, x: V @ compiled(fg.hessian)(f, x) @ V,
    "lane": lambda f, x: V @ fg.vmap(fg.hessian(f))(np.array([[0.3, 0.7], x]))[1] @ V,
    "hvp": lambda f, x: V @ fg.hvp(f)(x, V),
    "Taylor": lambda f, x: 2 * fg.taylor(f, x, V, 2)[2],
}


def backward(f, x):
    t = fg.tensor(x, requires_grad=True)
    f(t).backward()
    return t.grad.numpy()


@pytest.mark.parametrize("engine", [*FIRST, *[f"{name}, second" for name in SECOND]])
@pytest.mark.parametrize("case", CASES, ids=" ".join)
@pytest.mark.sampled(3)
def test_powers(case, engine):
    rooted, smooth = functions(*case)
    run = FIRST[engine] if engine in FIRST else SECOND[engine.removesuffix(", second")]
    with np.errstate(all="ignore"):
        for x in (np.zeros(2), np.array([0.0, 1.5]), np.array([0.25, 1.5])):
            np.testing.assert_allclose(run(rooted, x), run(smooth, x), rtol=1e-12, atol=1e-12)


def test_of_the_documentation():
    zero = np.zeros(2)
    np.testing.assert_array_equal(
        fg.hessian(lambda z: np.exp(-np.linalg.norm(z) ** 2))(zero), -2 * np.eye(2))
    np.testing.assert_allclose(fg.hessian(lambda z: (np.linalg.norm(z) / 2.0) ** 2)(zero), np.eye(2) / 2)
    assert fg.hessian(lambda z: abs(z) ** 2)(0.0) == 2.0
    assert fg.hessian(lambda z: abs(z))(0.0) == 0.0 == fg.hessian(lambda z: abs(z) * 3)(0.0)


def test_the_value_is_as_written_and_nan_stays():
    x = np.array([0.1, 0.7, 1e-320, 1e200])
    for f in (lambda x: np.sqrt(x) ** 2, lambda x: np.hypot(x, 3.0) ** 4):
        np.testing.assert_array_equal(fg.vjp(f, x)[0], f(x))
        np.testing.assert_array_equal(fg.compile(f)(x), f(x))
    with np.errstate(all="ignore"):
        assert np.isnan(fg.grad(lambda x: np.sqrt(x) ** 2)(-1.0))
        assert np.isnan(fg.jvp(lambda x: np.sqrt(x) ** 2, (-1.0,), (1.0,))[1])


def test_with_respect_to_the_root_itself():
    t = fg.tensor([4.0, 9.0], requires_grad=True)
    for made in (lambda r: r ** 2, lambda r: (3 * r) ** 2 / 9, lambda r: r.reshape(2, 1) ** 2):
        r = np.sqrt(t)
        y = fnp.sum(made(r))
        np.testing.assert_allclose(fg.gradients(y, [r], retain_graph=True)[0].numpy(), 2 * r.numpy())
        by_both = fg.gradients(y, [r, t], retain_graph=True)
        np.testing.assert_allclose(by_both[0].numpy(), 2 * r.numpy())
        np.testing.assert_allclose(by_both[1].numpy(), [1.0, 1.0])
        created = fg.gradients(y, [r], create_graph=True)[0]
        np.testing.assert_allclose(created.detach().numpy(), 2 * r.detach().numpy())
        np.testing.assert_allclose(fg.gradients(y, [t])[0].numpy(), [1.0, 1.0])
    for late in (False, True):
        t = fg.tensor(4.0, requires_grad=True)
        r = np.sqrt(t)
        if not late:
            r.retain_grad()
        y = (2 * r) ** 2
        if late:
            r.retain_grad()
        y.backward()
        assert r.grad.item() == 16.0 and t.grad.item() == 4.0


HISTORY = """
import fastgrad as fg, numpy as np
t = fg.tensor([4.0, 9.0], requires_grad=True)
r = np.sqrt(t)
y = np.sum(r ** 2)
np.testing.assert_allclose(fg.grad(fg.function([r], y))(np.array([1.0, 3.0])), [2.0, 6.0])
np.testing.assert_allclose(fg.grad(fg.function([t], y))(np.array([1.0, 0.0])), [1.0, 1.0])
"""


def test_a_history_from_the_root():
    """In a process of its own: histories from intermediate results do not outlive many decisions."""
    subprocess.run([sys.executable, "-c", HISTORY], check=True, timeout=60)


def test_operands_that_nobody_holds():
    """What stands under the root is needed where its value has been let go of."""
    def f(x):
        u = 2.0 * x
        r = np.sqrt(u)
        del u
        return np.sum((C * r) ** 4)

    expected = lambda x: np.sum(C ** 4 * 4 * x * x)  # noqa: E731
    for n in (2,):
        x = np.linspace(0.0, 1.0, n)
        np.testing.assert_allclose(fg.grad(f)(x), fg.grad(expected)(x), rtol=1e-12)
        np.testing.assert_allclose(fg.hessian(f)(x), fg.hessian(expected)(x), rtol=1e-12)


def test_large_arrays_in_a_stream():
    """A stream that has let go of the root knows what stood under it."""
    n = 200_000
    x = np.linspace(0.0, 2.0, n)

    def f(x):
        r = np.sqrt(x)
        many = [np.sin(x * k) for k in range(5)]
        q = -3.0 * r
        many += [np.sin(x * k) for k in range(5)]
        return q ** 2 + 0.0 * sum(many)

    y, t = fg.jvp(f, (x,), (np.ones(n),))
    np.testing.assert_allclose(t, np.full(n, 9.0))


@pytest.mark.parametrize("n", [2, 5000, 100_000])
def test_products_with_a_root_in_a_stream(n):
    """No power at all: what is kept beside a root that vanishes is as alive as the rest."""
    x = np.arange(float(n))
    for f in (lambda x: np.sqrt(x) * x, lambda x: np.sqrt(x) / (1 + x), lambda x: np.cbrt(x) * x,
              lambda x: x ** 0.5 * np.cos(x), lambda x: (np.sqrt(x) * (1 + x)) ** 2):
        t = fg.jvp(f, (x,), (x + 1,))[1]
        np.testing.assert_allclose(t[1:], fg.jvp(f, (x[1:],), (x[1:] + 1,))[1], rtol=1e-12)
    np.testing.assert_allclose(fg.jvp(lambda x: (np.sqrt(x) * (1 + x)) ** 2, (x,), (x + 1,))[1],
                               (x + 1) * ((1 + x) ** 2 + 2 * x * (1 + x)), rtol=1e-12)


def test_what_a_root_is_scaled_by_is_asked_for_as_well():
    zero, norm = np.zeros(2), np.linalg.norm
    np.testing.assert_allclose(fg.hessian(lambda p: (norm(p[:2]) * p[2]) ** 2)(np.array([0, 0, 2.0])),
                               np.diag([8.0, 8.0, 0.0]))
    for f, expected in ((lambda x, w: (norm(x) * w) ** 2, 8.0), (lambda x, w: (norm(x) / w) ** 2, 0.5)):
        for transform in (lambda h: h, fg.compile):
            h = transform(fg.hessian(f, argnums=(0, 1)))
            h(zero + 1, 2.5)
            np.testing.assert_allclose(h(zero, 2.0)[0][0], expected * np.eye(2))
    g = fg.compile(fg.grad(lambda x, w: np.sum((np.sqrt(x) * w) ** 2), argnums=(0, 1)))
    g(zero + 1, zero + 2)
    np.testing.assert_allclose(g(zero, zero + 2)[0], [4.0, 4.0])

    def loop(x, y):
        return fg.fori_loop(0, 2, lambda i, c: c + np.sum((np.sqrt(x) * y) ** 2.0), 0.0)
    g = fg.compile(fg.grad(loop))
    g(zero + 1, 0.7)
    np.testing.assert_allclose(g(zero, 0.7), [0.98, 0.98])
    x, t = fg.tensor(0.0, requires_grad=True), fg.tensor(0.5, requires_grad=True)
    s = np.exp(t)
    np.testing.assert_allclose(fg.gradients((np.sqrt(x) * s) ** 2, [x, s])[0].item(), np.e)


def test_products_and_nests_of_roots():
    for a, b in ((0, 1), (1, 0)):
        h = fg.hessian(lambda x, a=a, b=b: (abs(x[a]) * abs(x[b])) ** 2)(np.array([1.0, 0.0]))
        np.testing.assert_allclose(h, np.diag([0.0, 2.0]))
        for f in (lambda x, a=a, b=b: (np.sqrt(x[a]) * np.sqrt(x[b])) ** 2,
                  lambda x, a=a, b=b: (np.cbrt(x[a]) * np.cbrt(x[b])) ** 3):
            np.testing.assert_allclose(fg.grad(f)(np.array([1.0, 0.0])), [0.0, 1.0])
            np.testing.assert_allclose(fg.jvp(f, (np.array([1.0, 0.0]),), (np.array([0.0, 1.0]),))[1], 1.0)
    assert fg.grad(lambda x: np.sqrt(np.sqrt(x)) ** 4)(0.0) == 1.0
    assert fg.hessian(lambda x: np.sqrt(abs(x)) ** 4)(0.0) == 2.0
    np.testing.assert_allclose(fg.hessian(lambda x: abs(np.linalg.norm(x)) ** 2)(np.zeros(2)), 2 * np.eye(2))


def test_powers_out_of_the_range_of_their_parts():
    for dtype, size in ((np.float32, 1e20), (np.float32, 1e-20), (np.float64, 1e170), (np.float64, 1e-170)):
        x = np.array([1, 2], dtype) * dtype(size)
        g = fg.grad(lambda x: (x[0] / np.linalg.norm(x)) ** 2)(x)
        np.testing.assert_allclose(g * size, [0.32, -0.16], rtol=1e-5)
        g = fg.grad(lambda x, size=size: (np.linalg.norm(x) / size) ** 2)(x)
        np.testing.assert_allclose(g * size, [2.0, 4.0], rtol=1e-5)


def test_float32():
    f = lambda x: np.sum((np.float32(2) * np.sqrt(x)) ** 2)  # noqa: E731
    g = fg.grad(f)(np.zeros(3, np.float32))
    assert g.dtype == np.float32
    np.testing.assert_array_equal(g, np.full(3, 4, np.float32))


def test_detached_roots():
    """What is detached, or goes into a rule of the user's, is a number there."""
    square = fg.custom_vjp(lambda x: x * x)
    square.defvjp(lambda x: (x * x, x), lambda x, g: (2.0 * x * g,))
    pushed = fg.custom_jvp(lambda x: x * x + x)
    pushed.defjvp(lambda primals, tangents: (
        primals[0] ** 2 + primals[0], (2 * primals[0] + 1) * tangents[0]))
    x = np.array([[1.0, 4.0], [0.25, 9.0]])
    for f, slope in ((lambda x: fg.stop_gradient(np.sqrt(x)) ** 2 + x, 1.0),
                     (lambda x: square(np.sqrt(x)), 1.0)):
        loss = lambda x, f=f: np.sum(f(x))  # noqa: E731
        for g in (fg.grad(loss), fg.compile(fg.grad(loss)), fg.vmap(fg.grad(loss))):
            np.testing.assert_allclose(g(x), np.full((2, 2), slope))
            np.testing.assert_allclose(g(x + 1), np.full((2, 2), slope))
    for f in (square, pushed):
        def unused(x, f=f):
            f(np.sqrt(np.tanh(x) * 1.45 + 1.55))
            return x
        np.testing.assert_array_equal(fg.vmap(unused)(x), x)
        np.testing.assert_array_equal(fg.vmap(fg.jacobian(unused))(x), np.stack([np.eye(2)] * 2))
        np.testing.assert_array_equal(fg.compile(fg.vmap(unused))(x), x)


def test_what_is_not_covered():
    """Sums of roots, and the same root computed twice, go by the root."""
    assert fg.hessian(lambda x: (abs(x) + abs(x)) ** 2)(0.0) == 0.0
    assert fg.hessian(lambda x: abs(x) * abs(x))(0.0) == 0.0


@pytest.mark.parametrize("name", sorted(laws.BESIDE))
def test_rows(name):
    """The value is the first operand, whatever the second one is; NaN has the derivative NaN."""
    f = core.functions[name]
    for a, b in itertools.product((1.5, -0.0, np.inf, np.nan), (2.0, np.nan, np.inf)):
        for dtype in laws.DTYPES:
            x, y = np.full(3, a, dtype), np.full(3, b, dtype)
            for value in (f(fg.tensor(x), fg.tensor(y)).numpy(), fg.vmap(f)(x, y), fg.compile(f)(x, y)):
                np.testing.assert_array_equal(value, x)
            by = fg.vjp(f, x, y)[1](np.ones(3, dtype))
            expected = (0.0, np.nan if np.isnan(a) else 1.0) if name == "as_written" else (1.0, 0.0)
            for found, wanted in zip(by, expected, strict=True):
                np.testing.assert_array_equal(found, np.full(3, wanted, dtype))
