"""Norms and standard deviations of entries whose powers overflow or underflow, and where they
vanish.

All of them are homogeneous, f(c x) = c f(x): so the value and the derivatives at ordinary entries,
which NumPy and finite differences vouch for elsewhere, tell those at any magnitude. What is
recorded at one magnitude is replayed at the others. Where a function vanishes, derivatives of every
order are 0 (SEMANTICS).
"""

import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

MASK = np.array([[True, True, False, True], [True, False, True, True], [True] * 4])
KINDS = {
    "norm": np.linalg.norm,
    "norm 2": lambda x: np.linalg.norm(x.ravel(), 2),
    "norm 3": lambda x: np.linalg.norm(x.ravel(), 3),
    "norm 2.5": lambda x: np.linalg.norm(x.ravel(), 2.5),
    "norm 0.5": lambda x: np.linalg.norm(x.ravel(), 0.5),
    "norm -2": lambda x: np.linalg.norm(x.ravel(), -2),
    "fro": lambda x: np.linalg.norm(x, "fro"),
    "vector_norm": lambda x: np.linalg.vector_norm(x),
    "matrix_norm": lambda x: np.linalg.matrix_norm(x),
    "std": np.std,
    "std ddof": lambda x: np.std(x, ddof=1),
    "rows": lambda x: np.linalg.norm(x, axis=1),
    "columns": lambda x: np.linalg.norm(x, axis=0, keepdims=True),
    "rows 3": lambda x: np.linalg.norm(x, 3, axis=1),
    "rows of std": lambda x: np.std(x, axis=1, keepdims=True),
    "masked std": lambda x: np.std(x, axis=1, where=MASK),
}
X = np.array([[3.0, -4.0, 1.5, 0.25], [1.0, 2.5, -0.5, 3.5], [-2.0, 0.75, 4.25, 1.25]])
RANGES = {np.float64: (2.0**-664, 2.0**664, 2.0**-400, 2.0**450, 2.0**-1000, 2.0**1015, 1.0),
          np.float32: (2.0**-66, 2.0**66, 2.0**-100, 2.0**115, 1.0)}
SUMMED = {name: (lambda x, f=f: fnp.sum(f(x))) for name, f in KINDS.items()}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(all="ignore"):
            yield


def close(got, expected, dtype=np.float64, **options):
    bound = 2e-5 if dtype == np.float32 else 2e-13
    np.testing.assert_allclose(got, expected, rtol=bound, atol=bound / 10, **options)


def gradients(f, x, weights):
    """The gradient of a weighted result, by every engine that takes one point."""
    def weighted(x):
        return fnp.sum(f(x) * weights)

    yield "grad", fg.grad(weighted)(x)
    yield "forward", fg.jacobian(weighted, mode="forward")(x)
    yield "reverse", fg.jacobian(weighted, mode="reverse")(x)
    direction = np.zeros_like(x)
    direction[0, 1] = 1
    yield "jvp", fg.jvp(weighted, (x,), (direction,))[1], (0, 1)
    yield "own", fg.gradients(weighted(t := fg.tensor(x, requires_grad=True)), [t])[0].numpy()


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("name", KINDS)
def test_value_and_gradient_at_every_magnitude(name, dtype):
    f, x = KINDS[name], X.astype(dtype)
    usual = f(x)
    weights = (1 + np.arange(usual.size)).reshape(usual.shape).astype(dtype)
    expected = fg.grad(lambda x: fnp.sum(f(x) * weights))(x)
    for c in map(dtype, RANGES[dtype]):
        y = f(fg.tensor(x * c))
        assert y.dtype == dtype
        close(y.numpy() / c, usual, dtype)
        for engine, got, *place in gradients(f, x * c, weights):
            assert got.dtype == dtype
            close(got, expected[place[0]] if place else expected, dtype, err_msg=f"{engine} {c}")


@pytest.mark.parametrize("name", KINDS)
def test_ordinary_values_are_numpys(name):
    f = KINDS[name]
    for x in (X, X.astype(np.float32)):
        for g in (lambda x: f(fg.tensor(x)).numpy(), fg.compile(f), lambda x: fg.vmap(f)(x[None])[0]):
            np.testing.assert_array_max_ulp(np.asarray(g(x)), np.asarray(f(x)), 2)


def at_magnitudes(dtype, first):
    """The magnitudes, beginning with the one that is recorded."""
    return [first, *RANGES[dtype], first]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("first", ["usual", "tiny", "huge"])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_recorded_at_one_magnitude_serves_the_others(name, first, dtype):
    f, x = SUMMED[name], X.astype(dtype)
    first = {"usual": 1.0, "tiny": RANGES[dtype][0], "huge": RANGES[dtype][1]}[first]
    expected, usual = fg.grad(f)(x), f(x)
    compiled = fg.compile(fg.value_and_grad(f))
    scanned = fg.compile(lambda xs: fg.scan(lambda c, x: (c, fg.grad(f)(x)), 0.0, xs)[1])
    for c in map(dtype, at_magnitudes(dtype, first)):
        value, gradient = compiled(x * c)
        close(value / c, usual, dtype)
        close(gradient, expected, dtype)
        if dtype is np.float64:
            close(scanned(np.stack([x * c, x])), [expected, expected], dtype)
    with_zero = x * dtype(first) * np.array([[1], [0], [1]], dtype)
    if "rows" in name:
        _, gradient = compiled(with_zero)
        close(gradient, expected * [[1], [0], [1]], dtype)
    value, gradient = compiled(x * 0)
    close(value, 0)
    close(gradient, x * 0)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.parametrize("name", KINDS)
def test_lanes_have_magnitudes_of_their_own(name, dtype):
    f, x = SUMMED[name], X.astype(dtype)
    factors = np.array([*RANGES[dtype], 0], dtype)
    lanes = x * factors[:, None, None]
    expected = fg.grad(f)(x) * (factors != 0)[:, None, None]
    mapped = fg.vmap(fg.grad(f))
    for order in (slice(None), slice(None, None, -1)):
        close(mapped(lanes[order]), expected[order], dtype)
        close(fg.compile(mapped)(lanes[order]), expected[order], dtype)
        close(fg.vmap(fg.compile(fg.grad(f)))(lanes[order]), expected[order], dtype)
        close(fg.vmap(f)(lanes[order]) / np.where(factors, factors, 1)[order],
              f(x) * (factors != 0)[order], dtype)


@pytest.mark.parametrize("name", [name for name in KINDS if "rows" in name])
def test_rows_have_magnitudes_of_their_own(name):
    factors = np.array([2.0**-664, 2.0**664, 1.0])
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        x = X * factors[order][:, None]
        close(fg.grad(SUMMED[name])(x), fg.grad(SUMMED[name])(X))
        close(np.squeeze(KINDS[name](fg.tensor(x)).numpy()) / factors[order],
              np.squeeze(KINDS[name](X)))


@pytest.mark.parametrize("c", [2.0**-664, 2.0**664, 2.0**-300, 2.0**400])
@pytest.mark.parametrize("name", [name for name in KINDS if "3" not in name and "2." not in name
                                  and "-" not in name and "0." not in name])
def test_second_derivatives_at_every_magnitude(name, c):
    f = SUMMED[name]
    expected = fg.hessian(f)(X)
    direction = np.ones_like(X) / 3
    for got in (fg.hessian(f)(X * c), fg.compile(fg.hessian(f))(X * c),
                fg.vmap(fg.hessian(f))(X[None] * c)[0]):
        close(got * c, expected)
    product = np.tensordot(expected, direction, 2)
    close(fg.hvp(f)(X * c, direction) * c, product)
    close(fg.grad(lambda x: fnp.sum(fg.grad(f)(x) * direction))(X * c) * c, product)


def test_gradient_of_variance_beyond_its_own_range():
    for f, options in ((np.var, {}), (np.var, {"ddof": 1}), (np.var, {"axis": 1})):
        for g in (fg.grad, fg.jacobian):
            def h(x, f=f, options=options):
                return fnp.sum(f(x, **options))
            for c in (2.0**-664, 2.0**664):
                for engine in (g(h), fg.compile(g(h)), lambda x, g=g, h=h: fg.vmap(g(h))(x[None])[0]):
                    close(engine(X * c) / c, g(h)(X))


# ---- where they vanish --------------------------------------------------------------------------

VANISHING = {**{name: f for name, f in SUMMED.items() if "matrix" not in name},
             "hypot": lambda x: fnp.sum(np.hypot(x, x[::-1]))}


def second_derivatives(f):
    """By every engine: functions from the point to an array."""
    def sum_of_gradient(x):
        return fnp.sum(fg.grad(f)(x) * fnp.asarray(np.cos(np.arange(x.size)).reshape(x.shape)))

    yield "hessian", fg.hessian(f)
    for outer in ("forward", "reverse"):
        for inner in ("forward", "reverse"):
            yield f"{outer} {inner}", fg.jacobian(fg.jacobian(f, mode=inner), mode=outer)
    yield "grad of grad", fg.grad(sum_of_gradient)
    yield "jvp of grad", lambda x: fg.jvp(fg.grad(f), (x,), (np.ones_like(x),))[1]
    yield "grad of jvp", fg.grad(lambda x: fg.jvp(f, (x,), (np.ones_like(x),))[1])
    yield "third", fg.grad(lambda x: fnp.sum(fg.grad(sum_of_gradient)(x)))
    yield "hvp", lambda x: fg.hvp(f)(x, np.ones_like(x))
    yield "diagonal", fg.hessian_diag(f)
    yield "sparse", lambda x: fg.hessian(lambda x: f(x.reshape(X.shape)), sparse=True)(
        x.ravel()).toarray()
    yield "compiled", fg.compile(fg.hessian(f))
    yield "mapped", lambda x: fg.vmap(fg.hessian(f))(np.stack([x, X[:len(x)], x]))[::2]
    yield "taylor", lambda x: np.array(fg.taylor(f, x, np.ones_like(x), 3))[1:]


@pytest.mark.parametrize("name", VANISHING)
def test_where_a_function_vanishes_its_derivatives_do(name):
    f = VANISHING[name]
    zero = np.zeros_like(X)
    for engine, derivative in second_derivatives(f):
        np.testing.assert_array_equal(np.asarray(derivative(zero)), 0, err_msg=engine)


@pytest.mark.parametrize("name", [name for name in KINDS if "rows" in name])
def test_second_derivatives_of_rows_of_which_one_vanishes(name):
    f = SUMMED[name]
    expected = fg.hessian(f)(X)
    expected[1], expected[:, :, 1] = 0, 0
    x = X * [[1], [0], [1]]
    for derivative in (fg.hessian(f), fg.compile(fg.hessian(f)),
                       fg.jacobian(fg.grad(f), mode="reverse"),
                       lambda x: fg.vmap(fg.hessian(f))(np.stack([X, x]))[1]):
        close(derivative(x), expected)


# ---- programs without their function ------------------------------------------------------------

@pytest.mark.parametrize("name", ["norm", "norm 3", "std", "rows"])
def test_a_history_is_right_or_says_so(name):
    f = SUMMED[name]
    t = fg.tensor(X, requires_grad=True)
    program = fg.function([t], f(t))
    for c in (1.0, 2.0**-20, 2.0**20):
        close(program(X * c) / c, f(X))
        close(fg.vmap(fg.grad(program))(X[None] * c)[0], fg.grad(f)(X))
    for c in (2.0**-664, 2.0**664):
        with pytest.raises(fg.GuardError, match="magnitude"):
            program(X * c)
        t = fg.tensor(X * c, requires_grad=True)
        y = f(t)
        with pytest.raises(RuntimeError, match="compile"):
            fg.function([t], y)


@pytest.mark.parametrize("name", ["norm", "norm 3", "std", "rows"])
def test_a_saved_program_is_right_or_says_so(name, tmp_path):
    f = SUMMED[name]
    program = fg.compile(f)
    program(X)
    program.save(tmp_path / "program.fg")
    loaded = fg.load(tmp_path / "program.fg")
    close(fg.grad(loaded)(X * 0), X * 0)            # zeros are no other path
    close(fg.hessian(loaded)(X * 0), 0)
    close(fg.vmap(fg.grad(loaded))(np.stack([X, X * 0])), [fg.grad(f)(X), X * 0])
    with pytest.raises(fg.GuardError):
        loaded(X * 2.0**-664)
    program(X * 2.0**-664)
    program.save(tmp_path / "program.fg")
    loaded = fg.load(tmp_path / "program.fg")
    for c in RANGES[np.float64]:
        close(loaded(X * c) / c, f(X))
        close(fg.grad(loaded)(X * c), fg.grad(f)(X))
    lanes = X * np.array([2.0**-664, 1, 2.0**664])[:, None, None]
    close(fg.vmap(fg.grad(loaded))(lanes), [fg.grad(f)(X)] * 3)


def test_expressions_have_no_magnitude_yet():
    x = fg.variable("x", shape=(3, 4))
    program = fg.function([x], fnp.linalg.norm(x))
    for c in (1.0, 2.0**-664, 2.0**664, 1.0):
        close(fg.grad(program)(X * c), fg.grad(np.linalg.norm)(X))
        close(fg.vmap(program)(X[None] * c) / c, [np.linalg.norm(X)])
