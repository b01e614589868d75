"""fixed_point and root: against closed forms, in all modes and orders."""

import mpmath
import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import trees
from fastgrad.transforms.implicit import ConvergenceError, fixed_point, root


def heron(x, a):
    return (x + a / x) / 2


def square(x, a):
    return x * x - a


def by_iteration(a):
    return fixed_point(heron, 1.0, a)


def by_newton(a):
    return root(square, 1.0, a)


ROOTS = pytest.mark.parametrize("f", [by_iteration, by_newton], ids=["fixed_point", "root"])


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in trees.flatten(tree)[0]])


def orders(f, a):
    yield fg.value_and_grad(f)(a)
    yield fg.jvp(f, (a,), (2.0,))
    yield fg.linearize(f, a)[1](2.0)
    yield fg.grad(fg.grad(f))(a)
    yield fg.grad(fg.grad(fg.grad(f)))(a)
    yield fg.jvp(fg.grad(f), (a,), (1.0,))
    yield fg.jvp(lambda a: fg.jvp(f, (a,), (1.0,))[1], (a,), (1.0,))
    yield fg.grad(lambda a: fg.jvp(f, (a * a,), (a,))[1])(a)
    yield fg.jacobian(fg.jacobian(f, mode="reverse"), mode="forward")(a)
    yield fg.grad(lambda a: np.sin(f(a) * a))(a)
    yield fg.hessian(lambda x: f(x[0] * x[1]) * x[0])(np.array([a, 2.0]))


@ROOTS
@pytest.mark.parametrize("a", [0.25, 3.0])
def test_square_root_to_every_order(f, a):
    for found, wanted in zip(orders(f, a), orders(np.sqrt, a)):
        np.testing.assert_allclose(flat(found), flat(wanted), rtol=1e-10)


@ROOTS
def test_through_tensors(f):
    w = fg.tensor(4.0, requires_grad=True)
    f(w).backward()
    assert w.grad.item() == pytest.approx(0.25)
    g = fg.gradients(f(w), w, create_graph=True)
    assert fg.gradients(g, w).item() == pytest.approx(-1 / 32)


def kepler(E, orbit):
    return E - orbit["e"] * np.sin(E) - orbit["M"]


def kepler_step(E, orbit):
    return orbit["M"] + orbit["e"] * np.sin(E)


@pytest.mark.parametrize("solve", [
    lambda p: root(kepler, 1.0, p), lambda p: fixed_point(kepler_step, 1.0, p)])
def test_kepler(solve):
    orbit = {"e": 0.4, "M": 1.0, "unit": "rad", "revolutions": 3}
    E = solve(orbit)
    assert abs(kepler(E, orbit)) < 1e-11

    def energy(e, M):
        return solve(dict(orbit, e=e, M=M))

    slope = 1 / (1 - 0.4 * np.cos(E))
    wanted = slope * np.sin(E), slope
    np.testing.assert_allclose(fg.grad(energy, argnums=(0, 1))(0.4, 1.0), wanted, rtol=1e-10)
    np.testing.assert_allclose(fg.jvp(energy, (0.4, 1.0), (1.0, 0.0))[1], wanted[0], rtol=1e-10)

    def exact(e, M):
        return mpmath.findroot(lambda E: E - e * mpmath.sin(E) - M, 1.0)

    with mpmath.workdps(40):
        for n in [(2, 0), (1, 1), (0, 2)]:
            inner = fg.grad(energy, argnums=0 if n[0] else 1)
            found = fg.grad(inner, argnums=0 if n[0] == 2 else 1)(0.4, 1.0)
            assert found == pytest.approx(float(mpmath.diff(exact, (0.4, 1.0), n)), rel=1e-8)


def affine(x, p):
    return {"u": p["A"] @ x["u"] + p["b"] * x["v"], "v": 0.5 * x["v"] + p["c"]}


def affine_residual(x, p):
    y = affine(x, p)
    return {"u": y["u"] - x["u"], "v": y["v"] - x["v"]}


@pytest.mark.parametrize("solve, f", [(fixed_point, affine), (root, affine_residual)])
def test_a_linear_system_of_trees(solve, f, rng):
    n = 4
    A, b = rng.normal(size=(n, n)) / 6, rng.normal(size=n)
    x0 = {"u": np.zeros(n), "v": 0.0}
    inverse = np.linalg.inv(np.eye(n) - A)

    def u(A, b, c):
        return solve(f, x0, {"A": A, "b": b, "c": c})["u"]

    x = solve(f, x0, {"A": A, "b": b, "c": 1.5})
    assert type(x["v"]) is float and x["v"] == pytest.approx(3)
    np.testing.assert_allclose(x["u"], 3 * inverse @ b, rtol=1e-10, atol=1e-12)
    for mode in ("forward", "reverse"):
        by_A, by_b, by_c = fg.jacobian(u, argnums=(0, 1, 2), mode=mode)(A, b, 1.5)
        np.testing.assert_allclose(by_A, np.einsum("ij,k->ijk", inverse, x["u"]), atol=1e-10)
        np.testing.assert_allclose(by_b, 3 * inverse, atol=1e-10)
        np.testing.assert_allclose(by_c, 2 * inverse @ b, atol=1e-10)
    found = fg.hessian(lambda b: (fnp.sin(u(A, b, 1.5)) ** 2).sum())(b)
    wanted = fg.hessian(lambda b: (fnp.sin(3 * inverse @ b) ** 2).sum())(b)
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def contraction(x, theta):
    return np.tanh(theta["W"] @ x) * 0.5 + theta["b"]


def test_a_contraction_map_against_differences(rng):
    n = 5
    theta = {"W": rng.normal(size=(n, n)) / 3, "b": rng.normal(size=n)}
    v = {"W": rng.normal(size=(n, n)), "b": rng.normal(size=n)}

    def loss(theta):
        return (fixed_point(contraction, np.zeros(n), theta) ** 2).sum()

    def along(t):
        return loss({k: theta[k] + t * v[k] for k in theta})

    h = 1e-5
    difference = (along(h) - along(-h)) / (2 * h)
    second = (along(h) - 2 * along(0) + along(-h)) / h ** 2
    g = fg.grad(loss)(theta)
    assert sum((g[k] * v[k]).sum() for k in g) == pytest.approx(difference, rel=1e-7)
    assert fg.jvp(loss, (theta,), (v,))[1] == pytest.approx(difference, rel=1e-7)
    Hv = fg.hvp(loss)(theta, v)
    assert sum((Hv[k] * v[k]).sum() for k in Hv) == pytest.approx(second, rel=1e-4)


def test_kinds_and_precision():
    assert type(fixed_point(heron, 1.0, 2.0)) is float
    assert type(fixed_point(heron, 1, 2.0)) is float
    x = fixed_point(heron, np.ones(2, np.float32), np.array([2, 3], np.float32))
    assert x.dtype == np.float32
    g = fg.elementwise_grad(lambda a: fixed_point(heron, np.ones(2, np.float32), a))(x ** 2)
    assert g.dtype == np.float32
    np.testing.assert_allclose(g, 0.5 / x, rtol=1e-5)
    y = root(square, np.ones(2, np.float32), x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y ** 2, x, rtol=1e-5)


@pytest.mark.parametrize("solve, f", [(fixed_point, heron), (root, square)])
def test_the_start_has_no_influence(solve, f):
    value, g = fg.value_and_grad(lambda x0: solve(f, x0, 4.0) + x0)(1.0)
    assert value == pytest.approx(3) and g == 1
    assert fg.grad(lambda a: solve(f, a, a))(4.0) == pytest.approx(0.25)


def test_steps_are_halved_where_newton_overshoots():
    assert root(lambda x, a: np.arctan(x) - a, 10.0, 0.5) == pytest.approx(np.tan(0.5))
    assert root(lambda x, a: np.exp(x) - a, -20.0, 1.0, max_steps=1000) == pytest.approx(0)


def test_inside_other_transformations():
    def f(a):
        return by_newton(a) * by_iteration(a)           # a

    assert fg.grad(f)(3.0) == pytest.approx(1)
    assert fg.grad(fg.grad(f))(3.0) == pytest.approx(0, abs=1e-10)
    def nested(a):                          # x = sqrt(a x)
        return root(lambda x, a: x - by_iteration(a * x), 1.0, a)

    assert nested(3.0) == pytest.approx(3)
    assert fg.grad(nested)(3.0) == pytest.approx(1)


# ---- what is refused ------------------------------------------------------------------------

def grows(x, a):
    return 2 * x + a


def no_root(x, a):
    return x * x + a


@pytest.mark.parametrize("run, text", [
    (lambda: fixed_point(grows, 1.0, 1.0, max_steps=7),
     "fixed_point of grows: no fixed point after 7 steps; the last one changed x by 128"),
    (lambda: fixed_point(grows, 1.0, 1.0, max_steps=10000), "fixed_point of grows: no fixed point"),
    (lambda: root(no_root, 1.0, 1.0), "root of no_root: .* after .* steps"),
    (lambda: root(no_root, 0.0, 1.0),
     "root of no_root: the Jacobian is singular after 0 steps; the residual is 1"),
    (lambda: root(lambda x, a: x - a, 1.0, np.nan),
     "root of <lambda>: no root after 1 steps; the residual is nan"),
    # x0 is the fixed point, but f is no contraction there, so the adjoint does not converge.
    (lambda: fg.grad(lambda a: fixed_point(grows, -1.0, a))(1.0),
     "fixed_point of grows, adjoint: no fixed point after"),
])
def test_what_does_not_converge(run, text):
    with pytest.raises(ConvergenceError, match=text):
        run()


@pytest.mark.parametrize("solve", [fixed_point, root])
def test_wrong_functions(solve):
    with pytest.raises(ValueError, match=r"of f: f returns shape \(2,\) where x has \(3,\)"):
        def f(x, theta):
            return x[:2]
        solve(f, np.ones(3))
    with pytest.raises(ValueError, match="of f: f does not return a tree like x"):
        def f(x, theta):
            return [x]
        solve(f, np.ones(3))
    with pytest.raises(TypeError, match="the first argument must be a function, not int"):
        solve(3, 1.0)
    with pytest.raises(TypeError, match="x0 must hold floats and arrays, not str"):
        solve(heron, "1")
    with pytest.raises(ValueError, match="max_steps=0 must be a positive int"):
        solve(heron, 1.0, max_steps=0)
    with pytest.raises(TypeError, match="uses a Tensor that is being differentiated"):
        fg.grad(lambda a: solve(lambda x, theta: 0.5 * x + a, 1.0))(1.0)
