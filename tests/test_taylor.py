"""taylor: every row of the table and every shaped operation against nested forward derivatives."""

import gc
import math

import mpmath
import numpy as np
import pytest
from laws import ROWS, generator, name_of, operands, wanted
from laws.examples import ROUNDED, SHAPED, A, Example

import fastgrad as fg
import fastgrad.numpy as fnp
import fastgrad.special as fsp
from fastgrad._core import core, trees
from fastgrad.transforms.custom import custom_jvp
from fastgrad.transforms.taylor import taylor

# Many rows are flat, and derivatives of polynomials of low degree are constant.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not depend")


def nested(f, x, v, order):
    """The coefficients by forward derivatives of forward derivatives."""
    def along(t):
        return f(trees.tree_map(lambda x, v: x + t * v, x, v))

    coefficients = []
    for k in range(order + 1):
        value = trees.tree_map(lambda leaf, k=k: leaf / math.factorial(k), along(0.0))
        coefficients.append(value)
        along = (lambda g: lambda t: fg.jvp(g, (t,), (1.0,))[1])(along)
    return coefficients


def check(f, x, v, order=4, rtol=1e-9):
    found, expected = taylor(f, x, v, order), nested(f, x, v, order)
    assert len(found) == order + 1
    for a, b in zip(found, expected):
        for s, t in zip(trees.flatten(a)[0], trees.flatten(b)[0], strict=True):
            assert np.shape(s) == np.shape(t)
            np.testing.assert_allclose(s, t, rtol=rtol, atol=rtol)
    return found


# ---- the rows of the table ------------------------------------------------------------------

def moving(row, arrays):
    """The row as a function of the operands that have a derivative."""
    places = wanted(row)

    def f(x):
        full = list(arrays)
        for k, value in zip(places, x):
            full[k] = value
        return core.functions[row.name](*full)

    return f, tuple([arrays[k] for k in places])


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_each_row(row):
    rng = generator(row.name, "taylor")
    f, x = moving(row, operands(row, "float64", (3,)))
    v = tuple([rng.uniform(-1, 1, a.shape) for a in x])
    check(f, x, v)
    for only in range(len(x)):
        check(f, x, tuple([d * (i == only) for i, d in enumerate(v)]))


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_each_row_with_scalars_and_constants(row):
    f, x = moving(row, [a[()] for a in operands(row, "float64", ())])
    numbers = [a if a.dtype == bool else float(a) for a in x]
    check(f, tuple(numbers), tuple([0.5 + 0.25 * i for i in range(len(numbers))]))
    for only in range(len(numbers) if len(numbers) > 1 else 0):
        def g(a, only=only):
            return f(tuple([a if i == only else b for i, b in enumerate(numbers)]))
        check(g, numbers[only], -0.75)


@pytest.mark.parametrize("row", [row for row in ROWS if row.arity > 1], ids=name_of)
def test_broadcast_operands(row):
    shapes = [(2, 1), (3,), (1, 3)][:row.arity]
    f, x = moving(row, operands(row, "float64", shapes))
    check(f, x, tuple([np.full(a.shape, 0.5 + i) for i, a in enumerate(x)]), order=3)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_float32(row):
    f, x = moving(row, operands(row, "float32", (3,)))
    v = tuple([np.ones_like(a) for a in x])
    found = taylor(f, x, v, 3)
    assert {c.dtype for c in found} == {np.dtype("float32")}
    wide = taylor(f, tuple([a.astype(float) for a in x]), tuple([a.astype(float) for a in v]), 3)
    if row.smooth:
        for a, b in zip(found, wide):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)


# ---- known series ---------------------------------------------------------------------------

def test_polynomials_are_exact():
    assert taylor(lambda x: x ** 3, 2.0, 1.0, 5) == [8, 12, 6, 1, 0, 0]
    assert taylor(lambda x: x ** 3, 0.0, 1.0, 4) == [0, 0, 0, 1, 0]
    assert taylor(lambda x: 3 * x * x - x / 2 + 1, 1.0, 2.0, 3) == [3.5, 11, 12, 0]
    assert taylor(lambda x: x ** 0, 0.0, 1.0, 2) == [1, 0, 0]
    assert taylor(lambda x: (1 + x) ** 10, 0.0, 1.0, 10) == pytest.approx(
        [math.comb(10, k) for k in range(11)], rel=1e-14)


@pytest.mark.parametrize("f, g", [
    (np.exp, mpmath.exp), (np.sin, mpmath.sin), (np.tan, mpmath.tan), (np.log, mpmath.log),
    (np.sqrt, mpmath.sqrt), (np.tanh, mpmath.tanh), (fsp.erf, mpmath.erf),
    (np.arcsinh, mpmath.asinh), (lambda x: x ** 2.5, lambda x: x ** 2.5),
    (lambda x: x ** x, lambda x: x ** x),
    (lambda x: np.exp(-x * x) / np.cos(x), lambda x: mpmath.exp(-x * x) / mpmath.cos(x)),
])
def test_high_orders(f, g):
    with mpmath.workdps(60):
        wanted = [float(c) for c in mpmath.taylor(g, mpmath.mpf("0.75"), 16)]
    np.testing.assert_allclose(taylor(f, 0.75, 1.0, 16), wanted, rtol=1e-11)


def test_the_exponential_and_the_geometric_series():
    assert taylor(np.exp, 0.0, 1.0, 30) == pytest.approx(
        [1 / math.factorial(k) for k in range(31)], rel=1e-14)
    assert taylor(lambda x: 1 / (1 - x), 0.0, 1.0, 200) == [1.0] * 201


def test_zero_is_strong():
    assert taylor(lambda x: np.sqrt(x[0]) + x[1] ** 2, (0.0, 1.0), (0.0, 1.0), 3) == [1, 2, 1, 0]
    assert taylor(lambda x: fnp.where(x > 0, x, np.log(x)), 2.0, 1.0, 2) == [2, 1, 0]
    assert taylor(np.abs, 0.0, 1.0, 2) == [0, 0, 0]


# ---- shaped operations ----------------------------------------------------------------------

# What no list of operators has: derivatives inside, and several results.
INSIDE = {
    "gradient": fg.grad(lambda x: (np.sin(x) * np.prod(x)).sum() + x[1, 1] * x.max()),
    "vjp": lambda x: fg.vjp(lambda x: x ** 3, x)[1](x)[0],
    "jvp": lambda x: fg.jvp(lambda x: np.exp(x[0] * x[1]), (x,), (x,))[1],
    "cumsum by loop": lambda x: [x[0], x[0] * x[1], x[0] * x[1] * x[2]],
}
CASES = SHAPED | {name: Example(f, A) for name, f in INSIDE.items()}
# float32 on the way: two ways to a coefficient agree to float32 alone.
CLOSE = dict.fromkeys(ROUNDED, 1e-6)


def direction(x):
    return generator("taylor V").normal(size=x.shape)


@pytest.mark.parametrize("name", CASES)
def test_shaped_operations(name):
    """Of an operand whose own series has many terms, too."""
    f, x = CASES[name]
    for g in (f, lambda x: f(x * np.exp(0.1 * x))):
        check(g, x, direction(x), rtol=CLOSE.get(name, 1e-9))


@pytest.mark.parametrize("f", [
    lambda x, c: np.sin(x) + c, lambda x, c: (c - np.sin(x) * 2.0) ** 2,
    lambda x, c: np.maximum(np.exp(x), c) * x])
def test_large_arrays_do_not_wait(f):
    """Constants that only a waiting value would read are there, arrays and Tensors alike."""
    x, c = np.linspace(0.1, 1.0, 5000), np.linspace(0.5, 2.0, 5000)
    wanted = taylor(lambda x: f(x, c[:50]), x[:50], np.ones(50), 2)
    for constant in (c, fg.tensor(c)):
        found = taylor(lambda x, constant=constant: f(x, constant), x, np.ones(5000), 2)
        for y, z in zip(found, wanted):
            np.testing.assert_allclose(y[:50], z, rtol=1e-14)


def test_cast():
    def f(x):
        return x.astype(np.float32).astype(np.float64) ** 2

    found = taylor(lambda x: fnp.asarray(x, dtype=np.float32) ** 2, np.array([1.0, 2.0]),
                   np.ones(2), 2)
    assert found[1].dtype == np.float32
    np.testing.assert_array_equal(found, [[1, 4], [2, 4], [1, 1]])
    np.testing.assert_array_equal(taylor(f, np.ones(2), np.ones(2), 2), [[1, 1], [2, 2], [1, 1]])


def test_ties_share():
    assert taylor(np.max, np.array([1.0, 1.0]), np.array([1.0, 3.0]), 2) == [1, 2, 0]
    x, v = np.zeros((2, 3)), np.ones((2, 3))
    assert taylor(np.prod, x, v, 7) == [0, 0, 0, 0, 0, 0, 1, 0]
    with np.errstate(all="ignore"):
        assert taylor(fsp.logsumexp, np.full(2, -np.inf), np.ones(2), 2)[1:] == [0, 0]


def test_empty_arrays():
    assert taylor(lambda x: np.sum(x ** 2), np.zeros(0), np.zeros(0), 2) == [0, 0, 0]
    assert taylor(np.prod, np.zeros(0), np.zeros(0), 2) == [1, 0, 0]


# ---- what goes in and comes out -------------------------------------------------------------

def test_kinds_are_those_of_the_value():
    found = taylor(lambda x: {"a": x["u"] * x["v"], "b": (1.0, x["u"])},
                   {"u": 2.0, "v": np.array([1.0, 3.0])}, {"u": 1.0, "v": np.ones(2)}, 2)
    np.testing.assert_array_equal([c["a"] for c in found], [[2, 6], [3, 5], [1, 1]])
    assert [c["b"] for c in found] == [(1, 2), (0, 1), (0, 0)]
    assert {type(c["b"][1]) for c in found} == {float}
    assert {type(c) for c in taylor(lambda x: x * x, np.float32(2), 1.0, 2)} == {np.float32}
    assert all(c.flags.writeable for c in taylor(lambda x: x * x, np.ones(3), np.ones(3), 2))
    assert taylor(lambda x: x, 2.0, 3.0, 2) == [2, 3, 0]
    with pytest.warns(UserWarning, match="taylor of <lambda>: the result does not depend"):
        assert taylor(lambda x: 7.0, 2.0, 3.0, 2) == [7, 0, 0]
    assert taylor(np.exp, 0.0, 1.0, order=0) == [1]
    assert len(taylor(np.exp, 0.0, 1.0)) == 6
    w = fg.tensor(3.0, requires_grad=True)
    assert taylor(lambda x: x * w.detach(), 2.0, 1.0, 1) == [6, 3]


@pytest.mark.parametrize("run, error, text", [
    (lambda: taylor(np.exp, 0.0, 1.0, -1), ValueError, "order=-1 must be an int that is not neg"),
    (lambda: taylor(np.exp, 0.0, 1.0, 2.0), ValueError, "order=2.0 must be an int"),
    (lambda: taylor(np.exp, np.ones(3), 1.0), ValueError,
     r"the direction of argument 0 has shape \(\), not \(3,\)"),
    (lambda: taylor(lambda x: x[0], (1.0,), 1.0), ValueError,
     "the direction is not built like argument 0"),
    (lambda: taylor(np.exp, 1, 1.0), TypeError, "taylor: argument 0 is the int 1"),
    (lambda: taylor(lambda x: None, 1.0, 1.0), TypeError, "the function returned None"),
    (lambda: taylor(3, 1.0, 1.0), TypeError, "must be a function, not int"),
    (lambda: taylor(lambda x: taylor(np.exp, x, 1.0)[1], 1.0, 1.0), RuntimeError,
     "reads the graph of another one"),
    (lambda: fg.grad(lambda w: taylor(lambda x: x * w, 1.0, 1.0)[1])(1.0), TypeError,
     "taylor: the function uses a Tensor that is being differentiated"),
])
def test_what_is_refused(run, error, text):
    with pytest.raises(error, match=text):
        run()
    assert taylor(np.exp, 0.0, 1.0, 1) == [1, 1]


def test_rules_of_the_users_have_no_series():
    @custom_jvp
    def f(x):
        return x

    f.defjvp(lambda p, t: (p[0], t[0]))
    with pytest.raises(fg.NoDerivativeError, match="the function calls f, whose derivative"):
        taylor(lambda x: f(x) * 2, 1.0, 1.0)


# ---- inside other transformations -----------------------------------------------------------

DEPENDS = pytest.mark.filterwarnings("ignore:.*does not depend on the arguments")


@DEPENDS
@pytest.mark.parametrize("name", CASES)
def test_coefficients_have_gradients(name):
    f, x = CASES[name]
    v = direction(x)
    if name == "gradient":
        pytest.skip("an oracle of nested derivatives is slow here")

    def third(expand):
        return lambda x: sum([fnp.sum(c * c) for c in trees.flatten(expand(f, x, v, 3)[3])[0]])

    found, wanted = fg.grad(third(taylor))(x), fg.grad(third(nested))(x)
    near = CLOSE.get(name, 1e-9)
    np.testing.assert_allclose(found, wanted, rtol=near, atol=near)


@DEPENDS
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_rows_inside_grad_and_jvp(row):
    f, x = moving(row, operands(row, "float64", (2,)))
    v = tuple([np.full(a.shape, 0.5 + i) for i, a in enumerate(x)])

    def loss(expand):
        return lambda x, v: fnp.sum(expand(f, x, v, 2)[2])

    with np.errstate(all="ignore"):
        if row.steps:
            return
        found, wanted = [fg.grad(loss(g), argnums=(0, 1))(x, v) for g in (taylor, nested)]
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
        found, wanted = [fg.jvp(loss(g), (x, v), (v, x)) for g in (taylor, nested)]
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_tensors_in_tensors_out():
    w = fg.tensor(0.5, requires_grad=True)
    second = taylor(np.exp, w, 1.0, 2)[2]
    second.backward()
    assert w.grad.item() == pytest.approx(math.exp(0.5) / 2)


def test_nothing_is_held_afterwards():
    gc.collect()
    gc.disable()
    try:
        before = core.tape_info()["nodes"]
        for f in (lambda x: x ** 1.5 + np.hypot(x, 2.0),
                  lambda x: fsp.logsumexp(fnp.array([x, 1]))):
            fg.grad(lambda x, f=f: taylor(f, x, 1.0, 4)[4])(2.0)
        assert core.tape_info()["nodes"] == before
    finally:
        gc.enable()


def test_aux_and_keyword_arguments():
    coefficients, aux = fg.taylor(lambda x, power: (x ** power, {"x": x * 2}), 2.0, 1.0, order=2,
                                  has_aux=True, power=3)
    assert coefficients == [8.0, 12.0, 6.0]
    assert aux == {"x": 4.0}
    with pytest.raises(TypeError, match=r"taylor: with has_aux=True"):
        fg.taylor(lambda x: x, 2.0, 1.0, has_aux=True)
