"""The textbook's calculus, line by line: each rule as a closed form and as the library finds it.

docs/textbook.md tells the same in prose. Derivatives are taken in every mode, of floats and of
arrays; Jacobians are in numerator layout unless said otherwise: a row for each output.
"""

import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

MODES = ("forward", "reverse")
POINTS = np.array([0.3, 0.7, 1.1, 2.9])         # logarithms and roots exist, no kink


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning that no test asks for is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def close(actual, expected, rtol=1e-13, atol=1e-14):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slopes(f, x):
    """The derivative of f at a float x, by every way there is."""
    leaf = fg.tensor(x, requires_grad=True)
    f(leaf).backward()
    return {
        "grad": fg.grad(f)(x),
        "value_and_grad": fg.value_and_grad(f)(x)[1],
        "jvp": fg.jvp(f, (x,), (1.0,))[1],
        "linearize": fg.linearize(f, x)[1](1.0),
        "vjp": fg.vjp(f, x)[1](1.0)[0],
        "backward": leaf.grad.item(),
        **{f"jacobian, {mode}": fg.jacobian(f, mode=mode)(x) for mode in MODES},
    }


def diagonals(f, x):
    """The derivative of an element-wise f at each entry of an array x, by every way there is."""
    ones = np.ones_like(x)
    found = {
        "elementwise_grad": fg.elementwise_grad(f)(x),
        "jvp": fg.jvp(f, (x,), (ones,))[1],
        "linearize": fg.linearize(f, x)[1](ones),
        "vjp": fg.vjp(f, x)[1](ones)[0],
    }
    for mode in MODES:
        J = fg.jacobian(f, mode=mode)(x)
        np.testing.assert_array_equal(J, np.diag(np.diagonal(J)))
        found[f"jacobian, {mode}"] = np.diagonal(J)
    return found


def gradient_is(f, x, expected, rtol=1e-13):
    """The gradient of a scalar f at a tuple of arguments, in both modes, is what is expected."""
    every = tuple(range(len(x)))
    for name, found in {
            "grad": fg.grad(f, argnums=every)(*x),
            **{mode: fg.jacobian(f, argnums=every, mode=mode)(*x) for mode in MODES}}.items():
        for k, (part, wanted) in enumerate(zip(found, expected, strict=True)):
            assert np.shape(part) == np.shape(x[k]), name
            close(part, wanted, rtol)


def jacobian_is(f, x, expected):
    """The Jacobian of f at a tuple of arguments, in both modes and layouts, is what is expected."""
    every = tuple(range(len(x)))
    for mode in MODES:
        found = fg.jacobian(f, argnums=every, mode=mode)(*x)
        turned = fg.jacobian(f, argnums=every, mode=mode, layout="denominator")(*x)
        for part, other, wanted in zip(found, turned, expected, strict=True):
            assert part.shape == np.shape(wanted)
            close(part, wanted)
            close(other, np.transpose(wanted))


# ---- one variable ---------------------------------------------------------------------------

def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# The rule as it is written, f, and its derivative.
LINES = {
    # rules for sums and products
    "d/dx c = 0": (lambda x: 5.0 + 0 * x, lambda x: 0 * x),
    "d/dx x = 1": (lambda x: +x, lambda x: 1 + 0 * x),
    "d/dx c f = c df/dx": (lambda x: 4 * np.sin(x), lambda x: 4 * np.cos(x)),
    "d/dx x^n = n x^(n-1), n = 3": (lambda x: x ** 3, lambda x: 3 * x ** 2),
    "d/dx x^n = n x^(n-1), n = -2": (lambda x: x ** -2.0, lambda x: -2 * x ** -3),
    "d/dx x^n = n x^(n-1), n = 1/2": (lambda x: x ** 0.5, lambda x: 0.5 / np.sqrt(x)),
    "d/dx (f + g) = df/dx + dg/dx": (
        lambda x: np.sin(x) + x ** 2, lambda x: np.cos(x) + 2 * x),
    "d/dx (f - g) = df/dx - dg/dx": (
        lambda x: np.sin(x) - x ** 2, lambda x: np.cos(x) - 2 * x),
    "d/dx f g = f dg/dx + g df/dx": (
        lambda x: x ** 2 * np.exp(x), lambda x: x ** 2 * np.exp(x) + 2 * x * np.exp(x)),
    "d/dx f/g = (g df/dx - f dg/dx)/g^2": (
        lambda x: np.sin(x) / (1 + x ** 2),
        lambda x: ((1 + x ** 2) * np.cos(x) - np.sin(x) * 2 * x) / (1 + x ** 2) ** 2),
    "d/dx f(g) = df/dg dg/dx": (
        lambda x: np.sin(np.exp(x)), lambda x: np.cos(np.exp(x)) * np.exp(x)),
    "D[4 x^3 + x^2 + 3] = 2 x + 12 x^2": (
        lambda x: 4 * x ** 3 + x ** 2 + 3, lambda x: 2 * x + 12 * x ** 2),
    # the chain rule
    "d/dx ln(x^2) = 2/x": (lambda x: np.log(x ** 2), lambda x: 2 / x),
    "d/dx sin(3x) = 3 cos(3x)": (lambda x: np.sin(3 * x), lambda x: 3 * np.cos(3 * x)),
    "d/dx sin(x^2) = 2x cos(x^2)": (lambda x: np.sin(x ** 2), lambda x: 2 * x * np.cos(x ** 2)),
    "d/dx ln(sin x) = cos x / sin x": (
        lambda x: np.log(np.sin(x)), lambda x: np.cos(x) / np.sin(x)),
    "d/dx (x + x^2) = 1 + 2x": (lambda x: x + x ** 2, lambda x: 1 + 2 * x),
    "d/dx x x = x + x": (lambda x: x * x, lambda x: x + x),
    "d/dt exp(cos(w t + p)) = -w sin(w t + p) exp(cos(w t + p))": (
        lambda t: np.exp(np.cos(2 * t + 0.5)),
        lambda t: -2 * np.sin(2 * t + 0.5) * np.exp(np.cos(2 * t + 0.5))),
    # the sigmoid
    "d/dx s = (1 - s) s": (sigmoid, lambda x: (1 - sigmoid(x)) * sigmoid(x)),
    "d/dx fnp.sigmoid = (1 - s) s": (
        lambda x: fnp.sigmoid(x), lambda x: (1 - sigmoid(x)) * sigmoid(x)),
    "s(x) = 1 - s(-x), and so its derivative": (
        lambda x: 1 - sigmoid(-x), lambda x: (1 - sigmoid(x)) * sigmoid(x)),
}


@pytest.mark.parametrize("line", LINES)
def test_one_variable(line):
    f, slope = LINES[line]
    for x in POINTS.tolist():
        for name, found in slopes(f, x).items():
            assert np.shape(found) == (), name
            close(found, slope(x), rtol=2e-13)
    for name, found in diagonals(f, POINTS).items():
        assert found.shape == POINTS.shape, name
        close(found, slope(POINTS), rtol=2e-13)


def test_a_constant_that_never_meets_the_argument():
    with pytest.warns(UserWarning, match="does not depend"):
        assert fg.grad(lambda x: 5.0)(2.0) == 0
    with pytest.warns(UserWarning, match="does not depend"):
        assert fg.jvp(lambda x: 5.0, (2.0,), (1.0,)) == (5.0, 0.0)
    for mode in MODES:
        with pytest.warns(UserWarning, match="does not depend"):
            assert fg.jacobian(lambda x: np.array([5.0, 7.0]), mode=mode)(2.0).tolist() == [0, 0]


def test_sigmoid_against_its_mirror_image():
    x = np.linspace(-30, 30, 61)
    close(fnp.sigmoid(x), 1 - fnp.sigmoid(-x), atol=2e-16)
    close(fg.elementwise_grad(fnp.sigmoid)(x), fnp.sigmoid(x) * fnp.sigmoid(-x))


def test_derivative_of_a_curve_given_by_a_parameter():
    """df/dx = (df/dg) / (dx/dg), here f = sin g and x = g^3 + g, which has no simple inverse."""
    def f(g):
        return np.sin(g)

    def x(g):
        return g ** 3 + g

    for g in POINTS.tolist():
        ratio = fg.grad(f)(g) / fg.grad(x)(g)
        close(ratio, np.cos(g) / (3 * g ** 2 + 1))
    # With x = g^2 the inverse is known, and f(x) is differentiated directly.
    for g in POINTS.tolist():
        ratio = fg.grad(f)(g) / fg.grad(lambda g: g * g)(g)
        close(ratio, fg.grad(lambda x: np.sin(np.sqrt(x)))(g * g))


# ---- the chain rules ------------------------------------------------------------------------

def test_scalar_chain_rule():
    """dy/dx = dy/du du/dx."""
    def u(x):
        return x ** 2

    for x in POINTS.tolist():
        outer, inner = fg.grad(np.sin)(u(x)), fg.grad(u)(x)
        close([outer, inner], [np.cos(x ** 2), 2 * x])
        for found in slopes(lambda x: np.sin(u(x)), x).values():
            close(found, outer * inner)


@pytest.mark.parametrize(("f", "u", "partials", "slope"), [
    (lambda x, u: x + u, lambda x: x ** 2, lambda x, u: (1, 1), lambda x: 1 + 2 * x),
    (lambda x, u: x * u, lambda x: +x, lambda x, u: (u, x), lambda x: 2 * x),
    (lambda x, u: np.sin(x + u), lambda x: x ** 2,
     lambda x, u: (np.cos(x + u), np.cos(x + u)), lambda x: (1 + 2 * x) * np.cos(x + x ** 2)),
], ids=["x + x^2", "x x", "sin(x + x^2)"])
def test_total_derivative(f, u, partials, slope):
    """d/dx f(x, u(x)) = @f/@x + @f/@u du/dx: every path from x to f counts."""
    for x in POINTS.tolist():
        along_x, along_u = fg.grad(f, argnums=(0, 1))(x, u(x))
        close([along_x, along_u], partials(x, u(x)))
        total = along_x + along_u * fg.grad(u)(x)
        close(total, slope(x))
        for found in slopes(lambda x: f(x, u(x)), x).values():
            close(found, total)
    for found in diagonals(lambda x: f(x, u(x)), POINTS).values():
        close(found, slope(POINTS))


@pytest.mark.parametrize("mode", MODES)
def test_vector_chain_rule_of_one_number(mode):
    """y = [ln(x^2), sin(3x)] by way of u = [x^2, 3x]: dy/du is diagonal."""
    def u(x):
        return fnp.stack([x ** 2, 3 * x])

    def y(u):
        return fnp.stack([np.log(u[0]), np.sin(u[1])])

    for x in POINTS.tolist():
        dydu = fg.jacobian(y, mode=mode)(u(x))
        dudx = fg.jacobian(u, mode=mode)(x)
        close(dydu, np.diag([1 / x ** 2, np.cos(3 * x)]))
        close(dudx, [2 * x, 3])
        close(dydu @ dudx, [2 / x, 3 * np.cos(3 * x)])
        close(fg.jacobian(lambda x: y(u(x)), mode=mode)(x), [2 / x, 3 * np.cos(3 * x)])


def test_vector_chain_rule_of_numbers():
    """dy/dx = dy/du du/dx is a product of matrices; in denominator layout it runs backwards."""
    def u(x):
        return fnp.stack([x[0] * x[1], x[1] + x[2], np.sin(x[0])])

    def y(u):
        return fnp.stack([u[0] ** 2 + u[2], u[1] * u[2]])

    x = np.array([0.5, 1.5, -2.0])
    a, b, c = x
    dudx = np.array([[b, a, 0], [0, 1, 1], [np.cos(a), 0, 0]])
    dydu = np.array([[2 * a * b, 0, 1], [0, np.sin(a), b + c]])
    jacobian_is(u, (x,), [dudx])
    jacobian_is(y, (u(x),), [dydu])
    jacobian_is(lambda x: y(u(x)), (x,), [dydu @ dudx])
    turned = [fg.jacobian(f, layout="denominator")(at) for f, at in ((u, x), (y, u(x)))]
    close(fg.jacobian(lambda x: y(u(x)), layout="denominator")(x), turned[0] @ turned[1])


def test_exponential_of_a_cosine():
    """y = exp(cos(w t + p)) with respect to time, frequency and phase, one chain for all three."""
    def y(t, w, p):
        return np.exp(np.cos(w * t + p))

    t, w, p = 0.7, 3.0, 0.2
    outer = -np.sin(w * t + p) * np.exp(np.cos(w * t + p))
    gradient_is(y, (t, w, p), (outer * w, outer * t, outer))
    many = np.linspace(0, 2, 5)
    outer = -np.sin(w * many + p) * np.exp(np.cos(w * many + p))
    jacobian_is(lambda t, w, p: y(t, w, p), (many, w, p),
                (np.diag(outer * w), outer * many, outer))


# ---- gradients and their Jacobian -----------------------------------------------------------

def test_gradients_of_two_variables():
    def f(x, y):
        return 3 * x ** 2 * y

    def g(x, y):
        return 2 * x + y ** 8

    for x, y in ((1.0, 2.0), (-0.5, 1.25), (0.0, -1.0)):
        gradient_is(f, (x, y), (6 * y * x, 3 * x ** 2))
        gradient_is(g, (x, y), (2, 8 * y ** 7))
        stacked = np.array([[6 * y * x, 3 * x ** 2], [2, 8 * y ** 7]])

        def both(v):
            return fnp.stack([f(v[0], v[1]), g(v[0], v[1])])

        v = np.array([x, y])
        gradient_is(lambda v: f(v[0], v[1]), (v,), (stacked[0],))
        gradient_is(lambda v: g(v[0], v[1]), (v,), (stacked[1],))
        jacobian_is(both, (v,), [stacked])
        jacobian_is(lambda x, y: both((x, y)), (x, y), [stacked[:, 0], stacked[:, 1]])
    x, y = np.array([1.0, -0.5]), np.array([2.0, 1.25])
    for name, wanted in ((0, 6 * y * x), (1, 3 * x ** 2)):
        close(fg.elementwise_grad(f, argnums=name)(x, y), wanted)


def test_identity():
    jacobian_is(lambda x: x, (POINTS,), [np.eye(len(POINTS))])
    jacobian_is(lambda x: +x, (POINTS,), [np.eye(len(POINTS))])
    for found in slopes(lambda x: +x, 3.0).values():
        assert found == 1


# ---- element-wise operators -----------------------------------------------------------------

W = np.array([0.5, 2.0, -1.5])
X = np.array([1.5, -0.5, -3.0])
ONES = np.ones(3)

BINARY = {
    "w + x": (lambda w, x: w + x, ONES, ONES),
    "w - x": (lambda w, x: w - x, ONES, -ONES),
    "w * x": (lambda w, x: w * x, X, W),
    "w / x": (lambda w, x: w / x, 1 / X, -W / X ** 2),
    "max(w, x)": (lambda w, x: np.maximum(w, x), W > X, X > W),
    "w > x": (lambda w, x: w > x, 0 * ONES, 0 * ONES),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_operators(name):
    """Entry i of the result reads entry i of both arguments only: both Jacobians are diagonal."""
    f, along_w, along_x = BINARY[name]
    if name == "w > x":
        warnings.filterwarnings("ignore", ".*does not depend")
    jacobian_is(f, (W, X), [np.diag(along_w), np.diag(along_x)])
    for i in range(3):                          # and of floats: the entries of the diagonal
        for mode in MODES:
            found = fg.jacobian(f, argnums=(0, 1), mode=mode)(float(W[i]), float(X[i]))
            close(found, (along_w[i], along_x[i]))


def test_mask_selects_the_argument_that_the_maximum_follows():
    mask = W > X
    np.testing.assert_array_equal(np.maximum(W, X), np.where(mask, W, X))
    jacobian_is(lambda w, x: fnp.where(w > x, w, x), (W, X), [np.diag(mask), np.diag(~mask)])
    # At w = x the maximum has a kink. Equal arguments get half each; the mask gives x all.
    jacobian_is(lambda w, x: np.maximum(w, x), (W, W), [np.eye(3) / 2, np.eye(3) / 2])
    jacobian_is(lambda w, x: fnp.where(w > x, w, x), (W, W), [np.zeros((3, 3)), np.eye(3)])


@pytest.mark.parametrize("z", [2.5, -0.75])
def test_vector_and_scalar(z):
    jacobian_is(lambda x, z: x + z, (X, z), [np.eye(3), ONES])
    jacobian_is(lambda x, z: x * z, (X, z), [z * np.eye(3), X])


# ---- sums -----------------------------------------------------------------------------------

def test_sums():
    n, z = 3, 2.5
    gradient_is(lambda x: np.sum(x), (X,), (ONES,))
    gradient_is(lambda w, x: np.sum(w + x), (W, X), (ONES, ONES))
    gradient_is(lambda w, x: np.sum(w * x), (W, X), (X, W))
    gradient_is(lambda w, x: w @ x, (W, X), (X, W))
    gradient_is(lambda x, z: np.sum(x + z), (X, z), (ONES, n))
    gradient_is(lambda x, z: np.sum(x * z), (X, z), (z * ONES, X.sum()))
    gradient_is(lambda x: np.sum(np.sin(x)), (X,), (np.cos(X),))


# ---- shapes ---------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 4), (1, 3, 4), (2, 3, 4), (4, 3, 2)])
def test_shape_contracts(m, k, n, mode, rng):
    """(m, n) = (m, k)(k, n); with m = 1 the row of a gradient, with k = 1 the scalar's multiple."""
    A, B = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    x = rng.normal(size=n)

    def g(x):
        return np.sin(B @ x)

    def f(u):
        return np.exp(A @ u)

    outer = fg.jacobian(f, mode=mode)(g(x))
    inner = fg.jacobian(g, mode=mode)(x)
    whole = fg.jacobian(lambda x: f(g(x)), mode=mode)(x)
    assert (outer.shape, inner.shape, whole.shape) == ((m, k), (k, n), (m, n))
    close(outer, np.exp(A @ g(x))[:, None] * A)
    close(inner, np.cos(B @ x)[:, None] * B)
    close(whole, outer @ inner)
    if k == m == 1:                             # (1, n) = (1,)(1, n)
        slope = fg.elementwise_grad(f)(g(x))
        assert slope.shape == (1,)
        close(whole, slope * inner)


# ---- least squares --------------------------------------------------------------------------

def test_square_of_one_residual():
    """(<x, w> - y)^2 has the gradient 2(<x, w> - y) x' in w."""
    y = 0.75
    e = X @ W - y
    gradient_is(lambda w: (X @ w - y) ** 2, (W,), (2 * e * X,))
    gradient_is(lambda w, x, y: (x @ w - y) ** 2, (W, X, y), (2 * e * X, 2 * e * W, -2 * e))


def test_squares_of_many_residuals(rng):
    """||Xw - y||^2 has the gradient 2(Xw - y)'X, and the Hessian 2X'X."""
    A, y = rng.normal(size=(7, 3)), rng.normal(size=7)

    def f(w):
        return np.sum((A @ w - y) ** 2)

    gradient_is(f, (W,), (2 * (A @ W - y) @ A,))
    close(fg.hessian(f)(W), 2 * A.T @ A)
    solution = np.linalg.lstsq(A, y)[0]
    close(fg.grad(f)(solution), 0, atol=1e-13)


# ---- the affine unit ------------------------------------------------------------------------

def unit(w, b, x):
    """An affine map, cut off below 0: x is a point, or a row for each point."""
    return np.maximum(0, x @ w + b)


@pytest.mark.parametrize(("b", "side"), [(0.0, 1), (-5.0, -1), (-4.25, 0)],
                         ids=["above the kink", "below", "at it"])
def test_affine_unit(b, side):
    """x' and 1 where w.x + b > 0, otherwise 0: also at the kink, the smallest subgradient."""
    assert np.sign(W @ X + b) == side
    active = float(side > 0)
    for f in (unit, lambda w, b, x: fnp.relu(x @ w + b)):
        gradient_is(lambda w, b, f=f: f(w, b, X), (W, b), (active * X, active))


def loss(w, b, x, y):
    return np.mean((y - unit(w, b, x)) ** 2)


def test_mean_squared_loss_of_the_unit():
    """2/N times the sum of e_i x_i, and of e_i, over the points with w.x_i + b > 0 only.

    Textbooks pull the case split out of the sum (0 if w.x + b <= 0, the sum over all points
    otherwise). For points on both sides of the kink no such formula is right: each point decides
    for itself.
    """
    w, b = np.array([1.0, -2.0]), 0.5
    x = np.array([[1.0, 0.25], [0.0, 2.0], [3.0, -1.0], [-2.0, 0.5], [0.5, 0.5]])
    y = np.array([2.0, 1.0, 4.0, 0.5, -1.0])
    z = x @ w + b
    active = z > 0
    assert active.tolist() == [True, False, True, False, False]
    assert z[4] == 0                            # one point at the kink
    e, N = z - y, len(y)
    right = (2 / N * e[active] @ x[active], 2 / N * e[active].sum())
    gradient_is(lambda w, b: loss(w, b, x, y), (w, b), right)

    over_all_points = (2 / N * e @ x, 2 / N * e.sum())
    for found, wrong in zip(fg.grad(loss, argnums=(0, 1))(w, b, x, y), over_all_points):
        assert not np.allclose(found, wrong)
        assert not np.allclose(found, 0)
    # The mean over points of the gradients of one point each is right as well.
    each = [fg.grad(loss, argnums=(0, 1))(w, b, x[i:i + 1], y[i:i + 1]) for i in range(N)]
    for k in range(2):
        close(np.mean([g[k] for g in each], axis=0), right[k])


@pytest.mark.parametrize("y", [5.0, 1.0], ids=["e < 0", "e > 0"])
def test_direction_of_a_step(y):
    """One active point: the step -gradient is along -e x, so the output moves towards y."""
    w, b, x = np.array([1.0, 2.0]), 0.5, np.array([[1.0, 0.5]])
    e = (unit(w, b, x) - y)[0]
    assert e == (-2.5 if y == 5.0 else 1.5)
    dw, db = fg.grad(loss, argnums=(0, 1))(w, b, x, np.array([y]))
    close(-dw, -2 * e * x[0])
    close(-db, -2 * e)
    moved = unit(w - 0.1 * dw, b - 0.1 * db, x)[0]
    assert np.sign(moved - (y + e)) == -np.sign(e)
    assert abs(moved - y) < abs(e)


def test_gradient_descent_finds_the_unit(rng):
    w, b = np.array([1.5, -0.5]), 1.0
    x = rng.uniform(-1, 1, size=(50, 2))
    y = unit(w, b, x)
    assert 0 < np.count_nonzero(y) < 50         # points on both sides of the kink
    found = np.zeros(2), 0.1                    # b = 0 would put all of them at it
    gradient = fg.value_and_grad(loss, argnums=(0, 1))
    losses = []
    for _ in range(2000):
        value, slopes = gradient(*found, x, y)
        losses.append(value)
        found = tuple(p - 0.3 * g for p, g in zip(found, slopes))
    assert np.all(np.diff(losses) <= 1e-12)
    close(found[0], w, rtol=1e-8)
    close(found[1], b, rtol=1e-8)


def test_neuron():
    """1/2 (y - s(I.w + b))^2 by weights, bias and inputs, where s' = s (1 - s)."""
    def error(w, b, inputs, y):
        return 0.5 * (y - sigmoid(inputs @ w + b)) ** 2

    b, y = 0.25, 0.9
    s = sigmoid(X @ W + b)
    delta = -(y - s) * s * (1 - s)
    gradient_is(error, (W, b, X, y), (delta * X, delta, delta * W, y - s))


# ---- integration by parts -------------------------------------------------------------------

THETAS = (0.5, 1.0, 2.0)


def test_product_rule_is_integration_by_parts():
    """(u v)' = u' v + u v' with u = tau, v = -exp(-theta tau), integrated from 0 to infinity.

    u v is 0 at both ends, so the integral of tau theta exp(-theta tau) is that of
    exp(-theta tau), which is 1/theta.
    """
    for theta in THETAS:
        def v(t, theta=theta):
            return -np.exp(-theta * t)

        tau = np.linspace(0, 50 / theta, 20_001)
        slope = fg.elementwise_grad(lambda t: t * v(t))(tau)
        close(slope, v(tau) + tau * fg.elementwise_grad(v)(tau))
        close(fg.elementwise_grad(v)(tau), theta * np.exp(-theta * tau))
        close(np.trapezoid(slope, tau), 0, atol=1e-5)
        by_parts = np.trapezoid(-v(tau), tau)
        directly = np.trapezoid(tau * fg.elementwise_grad(v)(tau), tau)
        close([by_parts, directly], 1 / theta, rtol=1e-5)


def trapezoid(theta):
    tau = np.linspace(0, 100, 40_001)
    return np.trapezoid(tau * theta * np.exp(-theta * tau), tau)


def gauss_laguerre(theta):
    """The rule for integrals from 0 to infinity, its weight exp(-s) divided out."""
    s, weights = np.polynomial.laguerre.laggauss(60)
    return np.sum(weights * np.exp(s) * (s * theta * np.exp(-theta * s)))


@pytest.mark.parametrize(("integral", "tolerance"), [(trapezoid, 1e-5), (gauss_laguerre, 1e-9)])
@pytest.mark.parametrize("theta", THETAS)
def test_mean_of_the_exponential_distribution(integral, tolerance, theta):
    """The integral of tau theta exp(-theta tau) is 1/theta; its slope in theta is -1/theta^2."""
    close(integral(theta), 1 / theta, rtol=tolerance)
    for found in slopes(integral, theta).values():
        close(found, -1 / theta ** 2, rtol=tolerance)


# ---- layouts --------------------------------------------------------------------------------

def test_layouts(rng):
    """Numerator layout: out.shape + in.shape, gradients are rows. Denominator: its transpose."""
    A = rng.normal(size=(2, 3))
    jacobian_is(lambda x: A @ x, (X,), [A])
    assert fg.jacobian(lambda x: A @ x)(X).shape == (2, 3)
    assert fg.jacobian(lambda x: A @ x, layout="denominator")(X).shape == (3, 2)
    for layout in ("numerator", "denominator"):     # of one number: the shape of its argument
        assert fg.jacobian(lambda x: x @ x, layout=layout)(X).shape == (3,)
    # The outputs (2,) by the entries of the matrix (2, 3).
    assert fg.jacobian(lambda A: A @ X)(A).shape == (2, 2, 3)
    assert fg.jacobian(lambda A: A @ X, layout="denominator")(A).shape == (2, 3, 2)
    close(fg.jacobian(lambda A: A @ X)(A), np.einsum("ij,k->ijk", np.eye(2), X))
