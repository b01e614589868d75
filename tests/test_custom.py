"""custom_vjp and custom_jvp: both modes from either rule, every order, and what is refused."""

import collections
import copy
import dataclasses
import decimal
import fractions
import functools
import gc
import pickle
import re

import numpy as np
import pytest
import scipy.special

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import trees
from fastgrad.transforms.custom import custom_jvp, custom_vjp

Pair = collections.namedtuple("Pair", "a b")


def plain(x, y):
    return np.sin(x) * y + y ** 3


@custom_vjp
def reverse(x, y):
    """Sine times y."""
    return np.sin(x) * y + y ** 3


def reverse_forward(x, y):
    return reverse(x, y), (x, y)


def reverse_backward(residuals, out_bar):
    x, y = residuals
    return out_bar * np.cos(x) * y, out_bar * (np.sin(x) + 3 * y ** 2)


reverse.defvjp(reverse_forward, reverse_backward)


@custom_jvp
def forward(x, y):
    return np.sin(x) * y + y ** 3


@forward.defjvp
def forward_rule(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return forward(x, y), np.cos(x) * y * dx + (np.sin(x) + 3 * y ** 2) * dy


BOTH = pytest.mark.parametrize("f", [reverse, forward], ids=["vjp", "jvp"])

TWO = np.full(2, 2.0)

# ---- derivatives ----------------------------------------------------------------------------


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in trees.flatten(tree)[0]])


def orders(f):
    """Derivatives of every kind."""
    yield fg.value_and_grad(f)(1.0, 2.0)
    yield fg.grad(f, argnums=(0, 1))(1.0, 2.0)
    yield fg.jvp(f, (1.0, 2.0), (0.5, -1.0))
    yield fg.linearize(f, 1.0, 2.0)[1](0.5, -1.0)
    yield fg.vjp(f, 1.0, 2.0)[1](3.0)
    yield fg.grad(fg.grad(f), argnums=1)(1.0, 2.0)
    yield fg.grad(fg.grad(fg.grad(f)), argnums=1)(1.0, 2.0)
    yield fg.grad(lambda x: fg.jvp(f, (x, 2.0 * x), (x, 1.0))[1])(1.0)
    yield fg.jvp(lambda x: fg.jvp(f, (x, 2.0 * x), (x, 1.0))[1], (1.0,), (1.0,))
    yield fg.jvp(fg.grad(f), (1.0, 2.0), (1.0, 1.0))
    yield fg.jvp(fg.grad(fg.grad(f)), (1.0, 2.0), (1.0, 1.0))
    yield fg.jacobian(fg.jacobian(lambda x: f(x, x * x)))(np.array([1.0, 2.0]))
    yield fg.hessian(lambda x: f(x[:2], x[2:] * x[0]).sum())(np.arange(4.0))
    yield fg.hvp(lambda x: f(x, x).sum())(np.arange(3.0), np.ones(3))


@BOTH
def test_all_orders_in_all_modes(f):
    for found, wanted in zip(orders(f), orders(plain)):
        np.testing.assert_allclose(flat(found), flat(wanted), rtol=1e-13, atol=1e-15)


@BOTH
def test_through_tensors(f):
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    f(w, w * w).sum().backward()
    wanted = fg.grad(lambda x: plain(x, x * x).sum())(np.array([1.0, 2.0]))
    np.testing.assert_allclose(w.grad.numpy(), wanted)
    (g,) = fg.gradients(f(w, w * w).sum(), [w], create_graph=True)
    second = fg.gradients(g.sum(), w)
    wanted = fg.hessian(lambda x: plain(x, x * x).sum())(np.array([1.0, 2.0])).sum(0)
    np.testing.assert_allclose(second.numpy(), wanted)


@BOTH
def test_a_constant_argument_and_assignments_after_the_call(f):
    def g(x):
        y = x * 1.0
        z = f(y, TWO)
        y[0] = 5.0
        return (z * y).sum()

    def h(x):
        return (plain(x, TWO) * fnp.concatenate([np.array([5.0]), x[1:]])).sum()

    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(fg.grad(g)(x), fg.grad(h)(x))
    np.testing.assert_allclose(fg.hessian(g)(x), fg.hessian(h)(x))


def test_long_streams_forget_what_they_have_differentiated():
    def f(x):
        for _ in range(2000):
            x = forward(x, 0.5) * 0.1
        return x

    def g(x):
        for _ in range(2000):
            x = plain(x, 0.5) * 0.1
        return x

    assert fg.jvp(f, (1.0,), (1.0,)) == pytest.approx(fg.jvp(g, (1.0,), (1.0,)), abs=1e-300)


def test_code_that_cannot_be_differentiated():
    @custom_vjp
    def gamma(x):
        return scipy.special.gamma(x)

    gamma.defvjp(lambda x: (scipy.special.gamma(x), scipy.special.gamma(x) * scipy.special.psi(x)),
                 lambda slope, out_bar: (slope * out_bar,))
    x = np.array([1.5, 2.5])
    wanted = scipy.special.gamma(x) * scipy.special.psi(x)
    np.testing.assert_allclose(fg.elementwise_grad(gamma)(x), wanted)
    np.testing.assert_allclose(fg.jvp(gamma, (x,), (np.ones(2),))[1], wanted)
    with pytest.raises(fg.NoDerivativeError):
        fg.hessian(lambda x: gamma(x).sum())(x)


def test_the_rule_decides():
    @custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda residuals, g: (np.clip(g, -1.0, 1.0),))
    assert fg.grad(lambda x: 5.0 * clipped(x))(3.0) == 1.0
    assert clipped(3.0) == 3.0


# ---- trees, kinds, names --------------------------------------------------------------------

@custom_vjp
def tree(p, n, how="sum", scale=2.0):
    assert how == "sum" and n == 3
    return {"out": p["w"].a * p["w"].b[0] * scale, "n": n}


def tree_forward(p, n, how, scale):
    return tree(p, n, how, scale), (p, scale)


def tree_backward(residuals, out_bar):
    p, scale = residuals
    g = out_bar["out"]
    return ({"w": Pair(g * p["w"].b[0] * scale, [g * p["w"].a * scale]), "other": None}, None,
            None, np.sum(g * p["w"].a * p["w"].b[0]))


tree.defvjp(tree_forward, tree_backward)


def test_trees_keywords_and_arguments_without_derivative():
    p = {"w": Pair(np.array([1.0, 2.0]), [np.array([3.0, 4.0])]), "other": 7.0}

    def loss(p, scale):
        result = tree(p, scale=scale, n=3)
        assert result["n"] == 3
        return result["out"].sum()

    g, scale = fg.grad(loss, argnums=(0, 1))(p, 3.0)
    np.testing.assert_array_equal(g["w"].a, [9, 12])
    np.testing.assert_array_equal(g["w"].b[0], [3, 6])
    assert g["other"] == 0 and scale == 11
    moved = fg.jvp(loss, (p, 3.0), ({"w": Pair(np.ones(2), [np.zeros(2)]), "other": 1.0}, 0.0))
    assert moved == (33, 21)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@BOTH
def test_kinds_and_dtypes(f, dtype):
    x = np.array([1.0, 2.0], dtype)
    value, g = fg.value_and_grad(lambda x: f(x, x).sum())(x)
    assert value.dtype == g.dtype == dtype
    value, dot = fg.jvp(f, (x, x), (x, x))
    assert value.dtype == dot.dtype == dtype
    scalar = np.dtype(dtype).type(1)
    assert fg.grad(f)(scalar, 2.0).dtype == dtype
    assert type(fg.grad(f)(1.0, scalar)) is float


def test_the_function_sees_plain_values():
    seen = []

    @custom_jvp
    def f(x, y):
        seen.append((type(x), type(y)))
        return x * y

    @f.defjvp
    def rule(primals, tangents):
        seen.append(tuple(map(type, primals + tangents)))
        return primals[0] * primals[1], primals[0] * tangents[1] + primals[1] * tangents[0]

    assert fg.jvp(f, (2.0, np.float64(3)), (1.0, np.float64(0))) == (6.0, 3.0)
    assert seen == [(float, np.float64), (float, np.float64) * 2]


def test_several_results_of_which_some_are_not_used():
    @custom_jvp
    def f(x):
        return x * x, x + 1, 3

    f.defjvp(lambda p, t: ((p[0] ** 2, p[0] + 1, 3), (2 * p[0] * t[0], t[0], None)))
    assert fg.grad(lambda x: f(x)[0])(3.0) == 6
    assert fg.grad(lambda x: f(x)[1] * f(x)[2])(3.0) == 3
    assert fg.jvp(f, (3.0,), (1.0,))[1][:2] == (6, 1)

    @custom_vjp
    def g(x):
        return x * x, x + 1

    g.defvjp(lambda x: (g(x), x), lambda x, bars: (2 * x * bars[0] + bars[1],))
    assert fg.grad(lambda x: g(x)[0])(3.0) == 6
    assert fg.grad(lambda x: fg.grad(lambda x: g(x)[0] * g(x)[1])(x))(3.0) == 20
    assert fg.jvp(lambda x: g(x)[1], (3.0,), (1.0,)) == (4, 1)


@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_nondiff_argnums(kind):
    @functools.partial(kind, nondiff_argnums=(0, 2))
    def apply(h, x, n):
        return h(x) * n

    if kind is custom_vjp:
        apply.defvjp(lambda h, x, n: (h(x) * n, x), lambda h, n, x, g: (g * h(x) * n,))
    else:
        apply.defjvp(lambda h, n, p, t: (h(p[0]) * n, h(p[0]) * n * t[0]))
    assert fg.grad(lambda x: apply(np.exp, x, 3))(0.0) == 3
    assert fg.grad(fg.grad(lambda x: apply(np.exp, x, n=3)))(0.0) == 3
    with pytest.raises(TypeError, match="apply.*nondiff_argnums names is a Tensor"):
        fg.grad(lambda x: apply(np.exp, 1.0, x))(1.0)


class Model:
    def __init__(self, scale):
        self.scale = scale

    @custom_vjp
    def f(self, x):
        return self.scale * x ** 2

    f.defvjp(lambda self, x: (self.f(x), (self, x)),
             lambda r, g: (None, 2 * r[0].scale * r[1] * g))


@dataclasses.dataclass
class Parameters:
    scale: float

    @custom_jvp
    def f(self, x):
        return self.scale * x

    @f.defjvp
    def f_rule(primals, tangents):
        (self, x), (dot, dx) = primals, tangents
        return self.scale * x, dot.scale * x + self.scale * dx


def test_methods():
    model = Model(3.0)
    assert model.f(2.0) == 12
    assert fg.grad(model.f)(2.0) == 12
    assert fg.grad(fg.grad(model.f))(2.0) == 6
    assert fg.grad(pickle.loads(pickle.dumps(model.f)))(2.0) == 12
    assert fg.grad(lambda p: p.f(5.0))(Parameters(2.0)) == Parameters(5.0)


def twice(x):
    return 2 * x


def twice_rule(primals, tangents):
    return 2 * primals[0], 2 * tangents[0]


def test_pickling_copying_and_metadata():
    assert pickle.loads(pickle.dumps(reverse)) is reverse
    assert copy.copy(reverse) is reverse and copy.deepcopy(forward) is forward
    assert pickle.loads(pickle.dumps(Model.f)) is Model.f
    assert reverse.__name__ == "reverse" and reverse.__doc__ == "Sine times y."
    assert reverse.__module__ == __name__
    assert repr(forward) == "<custom_jvp forward>"
    named = custom_jvp(twice)
    named.defjvp(twice_rule)
    again = pickle.loads(pickle.dumps(named))
    assert again is not named and fg.grad(again)(1.0) == 2
    assert fg.grad(copy.copy(named))(1.0) == 2


@BOTH
def test_outside_it_is_the_function(f):
    assert type(f(1.0, 2.0)) is type(plain(1.0, 2.0))
    assert f(1.0, y=2.0) == plain(1.0, 2.0)
    x = fg.tensor([1.0, 2.0])
    assert isinstance(f(x, x), fg.Tensor)
    with fg.no_grad():
        w = fg.tensor(1.0, requires_grad=True)
        assert not f(w, w).requires_grad


# ---- what is refused ------------------------------------------------------------------------

def with_rule(bwd, fwd=None):
    @custom_vjp
    def f(x, y):
        return x * y

    f.defvjp(fwd or (lambda x, y: (x * y, (x, y))), bwd)
    return f


X = np.array([1.0, 2.0])


@pytest.mark.parametrize("answer, error, text", [
    (lambda g: g, TypeError, "f: bwd must return a tuple with a cotangent for each of the 2 arg"),
    (lambda g: (g,), ValueError, "f: bwd returned 1 cotangents for 2 arguments"),
    (lambda g: (g, 1.0), ValueError,
     r"f: the cotangent of argument y has shape \(\), the argument \(2,\)"),
    (lambda g: (g, [g]), ValueError, "f: the cotangent is not built like the argument"),
    (lambda g: (g, "g"), TypeError, "f: the cotangent of argument y must hold numbers and arrays, "
                                    "not str"),
])
def test_wrong_cotangents(answer, error, text):
    with pytest.raises(error, match=text):
        fg.grad(lambda x: with_rule(lambda residuals, g: answer(g))(x, x).sum())(X)


@pytest.mark.parametrize("fwd, error, text", [
    (lambda x, y: x, TypeError, r"f: fwd must return \(out, residuals\), not"),
    (lambda x, y: ([x * y], None), ValueError,
     "f: what fwd returns first is not built like the value of the function"),
    (lambda x, y: (x[0] * y[0], None), ValueError,
     r"f: what fwd returns first has shape \(\), the value of the function \(2,\)"),
])
def test_wrong_fwd(fwd, error, text):
    with pytest.raises(error, match=text):
        fg.grad(lambda x: with_rule(lambda r, g: (g, g), fwd)(x, x).sum())(X)


@pytest.mark.parametrize("answer, error, text", [
    (lambda x, dx: dx, TypeError, r"f: the rule must return \(out, tangent_out\)"),
    (lambda x, dx: (x, [dx]), ValueError, "f: the tangent is not built like the result"),
    (lambda x, dx: (x, dx[0]), ValueError,
     r"f: the tangent has shape \(\), the result \(2,\)"),
    (lambda x, dx: (x[0], dx), ValueError, "f: what the rule returns first has shape"),
])
def test_wrong_tangents(answer, error, text):
    f = custom_jvp(lambda x: x)
    f._name = "f"
    f.defjvp(lambda primals, tangents: answer(primals[0], tangents[0]))
    with pytest.raises(error, match=text):
        fg.jvp(f, (X,), (X,))


def test_missing_rules_and_names():
    @custom_vjp
    def f(x, *, y=1.0):
        return x

    assert custom_jvp(twice)(1.0) == 2
    with pytest.raises(fg.NoDerivativeError, match=r"twice: .*\.defjvp\(rule\)"):
        fg.grad(custom_jvp(twice))(1.0)
    with pytest.raises(TypeError, match="f: y can be given by keyword only"):
        f(1.0, y=2.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        reverse(1.0, 2.0, z=2.0)
    with pytest.raises(TypeError, match="custom_jvp: the first argument must be a function"):
        custom_jvp(3)
    with pytest.raises(TypeError, match="twice: the rule must be a function"):
        custom_jvp(twice).defjvp(3)
    with pytest.raises(TypeError, match="nondiff_argnums=.5,., but the call has 1 arguments"):
        g = custom_jvp(twice, nondiff_argnums=5)
        g.defjvp(twice_rule)
        fg.grad(g)(1.0)


def test_what_is_closed_over_is_not_silently_constant():
    @custom_vjp
    def g(x):
        return x

    g.defvjp(lambda x: (x * scale, None), lambda residuals, out_bar: (out_bar,))

    def f(w):
        nonlocal scale
        scale = w
        return g(w)

    scale = None
    with pytest.raises(TypeError, match="g: the function uses a Tensor"):
        fg.grad(f)(1.0)


def test_a_rule_that_cannot_be_transposed_says_so():
    @custom_jvp
    def f(x):
        return np.asarray(scipy.special.gamma(x))

    f.defjvp(lambda p, t: (f(p[0]), scipy.special.gamma(t[0])))
    with pytest.raises(fg.NoDerivativeError) as caught:
        fg.grad(lambda x: f(x).sum())(X)
    assert "to be transposed" in caught.value.__notes__[0]


def test_a_graph_that_is_held_does_not_stop_forward_mode():
    y, push = fg.linearize(lambda x: x * x, X)
    np.testing.assert_array_equal(fg.jvp(lambda x: x * x, (X,), (X,))[1], [2, 8])
    np.testing.assert_array_equal(push(X), [2, 8])
    np.testing.assert_array_equal(fg.hvp(lambda x: reverse(x, x).sum())(X, X), fg.jacobian(
        fg.grad(lambda x: reverse(x, x).sum()))(X) @ X)


def test_a_rule_that_drops_its_results_in_a_stream():
    held = {}

    @fg.custom_jvp
    def double(x):
        return x * 2.0

    @double.defjvp
    def rule(primals, tangents):
        held.clear()
        return double(primals[0]), tangents[0] * 2.0

    def f(x):
        for i in range(3000):
            held[i] = double(x)
            x = x * 1.0001
        held.clear()
        return x

    gc.collect()                    # what tests before this one have left goes then, or later
    before = fg._core.core.tape_info()["nodes"]
    assert fg.jvp(f, (1.0,), (1.0,))[1] == pytest.approx(1.0001 ** 3000)
    assert fg._core.core.tape_info()["nodes"] <= before


# ---- what would lose its derivative ---------------------------------------------------------

class Holder:
    def __init__(self, x):
        self.x = x


LOST = {
    "complex": (lambda x: complex(x), "its .real and .imag"),
    "complex array": (lambda x: np.exp(1j * np.ones(2) * x), "its .real and .imag"),
    "objects": (lambda x: np.array([x, None]), "astype"),
    "fraction": (lambda x: fractions.Fraction(x), "float"),
    "decimal": (lambda x: decimal.Decimal(x), "float"),
    "masked": (lambda x: np.ma.masked_array([x], [True]), "MaskedArray"),
    "unknown class": (Holder, "fg.trees.register"),
    "longdouble": (np.longdouble, str(np.dtype(np.longdouble))),
    "float16": (np.float16, "float16"),
}


def rule_of(kind, f, answer=None):
    made = kind(f)
    made._name = "f"
    if kind is custom_vjp:
        made.defvjp(lambda x: (f(x), x), lambda x, g: (answer(1.0) if answer else g,))
    else:
        made.defjvp(lambda p, t: (f(p[0]), answer(1.0) if answer else t[0]))
    return made


@pytest.mark.parametrize("inside", [lambda y: y, lambda y: {"value": [y, 1.0]}])
@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_results_that_would_lose_their_derivative(kind, name, inside):
    make, word = LOST[name]
    f = rule_of(kind, lambda x: inside(make(x)))
    leaf = lambda x: [y for y in trees.flatten(f(x))[0] if fg.is_tensor(y)]
    f(0.5)                                      # nothing is differentiated
    for call in (lambda: fg.grad(lambda x: sum(leaf(x), x))(0.5),
                 lambda: fg.jvp(lambda x: sum(leaf(x), x), (0.5,), (1.0,))):
        with pytest.raises(TypeError, match=re.escape(word)) as caught:
            call()
        assert "f:" in str(caught.value) or name in ("longdouble", "float16")


@pytest.mark.parametrize("name", [*sorted(set(LOST) - {"longdouble", "float16"}), "bool"])
@pytest.mark.parametrize("kind, call", [(custom_vjp, lambda f: fg.grad(f)(0.5)), (
    custom_jvp, lambda f: fg.jvp(f, (0.5,), (1.0,)))])
def test_derivatives_that_are_none(kind, call, name):
    make = {**LOST, "bool": (lambda x: x > 0, "")}[name][0]
    with pytest.raises((TypeError, ValueError), match="f: the (cotangent|tangent)"):
        call(rule_of(kind, lambda x: x * 2, make))


def test_results_that_are_no_numbers_pass():
    f = custom_vjp(lambda x: {"y": x * 2, "how": "exact", "n": 3, "ok": True, "names": ["a", None]})
    f.defvjp(lambda x: (f(x), None), lambda _, g: (2 * g["y"],))
    assert fg.grad(lambda x: f(x)["y"] * f(x)["n"])(1.0) == 6.0
    assert fg.grad(lambda x: f(x)["y"] if f(x)["how"] == "exact" else 0 * x)(1.0) == 2.0


# ---- rules that cannot be transposed --------------------------------------------------------

def detached(g):
    return g.detach() if fg.is_tensor(g) else g


def unrecorded_product(g):
    with fg.no_grad():
        return g * 3.0


DROPS = {
    "detach": lambda g: detached(g) * 3.0,
    "stop_gradient": lambda g: fg.stop_gradient(g) * 3.0,
    "no_grad": unrecorded_product,
    "in part": lambda g: 1.5 * g + fg.stop_gradient(g) * 1.5,
}


def dropping(kind, drop, scale=1.0):
    f = kind(lambda x: 3.0 * x)
    f._name = "f"
    if kind is custom_vjp:
        f.defvjp(lambda x: (3.0 * x, None), lambda _, g: (drop(g),))
    else:
        f.defjvp(lambda p, t: (3.0 * p[0], drop(t[0])))
    return f


@pytest.mark.parametrize("x", [0.5, np.array([0.5, -1.0])], ids=["number", "array"])
@pytest.mark.parametrize("name", DROPS)
@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_a_rule_that_drops_its_vector_is_right_in_one_mode_and_an_error_in_the_other(kind, name, x):
    f = dropping(kind, DROPS[name])
    one = np.ones_like(x)[()] if isinstance(x, np.ndarray) else 1.0
    calls = {
        "reverse": [lambda: fg.vjp(f, x)[1](one), lambda: fg.jacobian(f, mode="reverse")(x),
                    lambda: fg.grad(lambda x: fnp.sum(f(x)))(x)],
        "forward": [lambda: fg.jvp(f, (x,), (one,)), lambda: fg.linearize(f, x)[1](one),
                    lambda: fg.jacobian(f, mode="forward")(x),
                    lambda: fg.compile(lambda x: fg.jvp(f, (x,), (one,))[1])(x)
                    if name != "in part" and kind is custom_vjp else fg.linearize(f, x)[1](one)]}
    right, wrong = ("reverse", "forward") if kind is custom_vjp else ("forward", "reverse")
    for call in calls[right]:
        found = call()
        assert np.max(np.abs(flat(found[-1] if isinstance(found, tuple) else found))) == 3.0
    for call in calls[wrong]:
        with pytest.raises(TypeError, match=f"f: .*transposed.*use {right} mode"):
            call()


def test_rules_that_return_zeros_constants_and_none_are_transposed():
    for zero in (None, 0.0, 0, np.zeros(2), np.zeros(2, "f4")):
        f = custom_vjp(lambda x, y: x * 3.0 + 0.0 * np.floor(y))
        f.defvjp(lambda x, y: (f(x, y), None), lambda _, g: (
            3.0 * g, np.zeros(2) if np.shape(zero) == () and zero is not None else zero))
        y, dy = fg.jvp(f, (X, X), (X, X))
        np.testing.assert_array_equal(dy, 3 * X)
        np.testing.assert_array_equal(fg.jacobian(f, argnums=1, mode="forward")(X, X), 0)


def test_a_rule_that_is_not_linear_cannot_be_transposed():
    f = dropping(custom_vjp, lambda g: np.clip(3.0 * g, -1.0, 1.0))
    assert fg.grad(f)(0.5) == 1.0
    with pytest.raises(TypeError, match="f: bwd has to be transposed.*not linear"):
        fg.jvp(f, (0.5,), (1.0,))


# ---- what functions and rules see -----------------------------------------------------------

def writes(a):
    """As compiled code does that takes a buffer to write to."""
    assert type(a) is np.ndarray, type(a)
    memoryview(a).cast("B")[:1] = b"\0"
    np.require(a, requirements="W")[...] = -7.0


def writing(kind, seen):
    """x * y, whose function and rule write to whatever they get."""
    def check(*values):
        for x in values:
            seen.append(type(x))
            assert type(fnp.zeros(2)) is np.ndarray and type(fnp.array([1.0, 2.0])) is np.ndarray

    @kind
    def f(x, y):
        check(x, y)
        result = x * y
        writes(x), writes(y)
        return result

    def forward(x, y):
        check(x, y)
        residuals = x.copy(), y.copy(), x
        result = x * y
        writes(x), writes(y)
        return result, residuals

    def backward(residuals, g):
        check(*residuals, g)
        x, y, _ = residuals
        answer = g * y, g * x
        writes(x), writes(y), writes(g)
        return answer

    def rule(primals, tangents):
        check(*primals, *tangents)
        (x, y), (dx, dy) = primals, tangents
        answer = x * y, dx * y + x * dy
        for a in (*primals, *tangents):
            writes(a)
        return answer

    f.defvjp(forward, backward) if kind is custom_vjp else f.defjvp(rule)
    return f


@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_functions_and_rules_get_plain_arrays_to_write_to(kind):
    seen = []
    f, a, b = writing(kind, seen), np.array([1.0, 2.0]), np.array([3.0, 5.0])
    if kind is custom_vjp:
        y, pull = fg.vjp(lambda x, z: f(x, z) * x, a, b)
        for _ in range(3):
            x_bar, z_bar = pull(np.ones(2))
            np.testing.assert_array_equal(x_bar, 2 * a * b)
            np.testing.assert_array_equal(z_bar, a * a)
    else:
        y, push = fg.linearize(lambda x, z: f(x, z) * x, a, b)
        for _ in range(3):
            np.testing.assert_array_equal(push(np.ones(2), np.zeros(2)), 2 * a * b)
        np.testing.assert_array_equal(fg.jvp(f, (a, b), (b, a))[1], b * b + a * a)
    np.testing.assert_array_equal(y, a * b * a)
    assert a.tolist() == [1, 2] and b.tolist() == [3, 5]

    def unrecorded(x):
        ones, z = fnp.ones(2), x.detach() * 1.0
        made = f(ones, z)
        assert fg.is_tensor(made) and not made.requires_grad
        assert ones.tolist() == [1, 1] and z.tolist() == [1, 2]
        assert fg.is_tensor(fnp.zeros(2))       # outside of the rule it is as ever
        return fnp.sum(x * made)

    assert fg.grad(unrecorded)(a).tolist() == [1, 2]
    assert fg.jvp(unrecorded, (a,), (a,))[1] == 5.0
    assert set(seen) == {np.ndarray}


@pytest.mark.parametrize("kind", [custom_vjp, custom_jvp])
def test_an_array_of_the_caller_is_written_and_held_as_it_was(kind):
    """What a function writes to an array that is not differentiated shows; what anybody writes
    later is not the rule's business."""
    def plain_f(x, a):
        y = x * a
        a[0] += 1.0
        return y

    f = kind(plain_f)
    if kind is custom_vjp:
        f.defvjp(lambda x, a: (plain_f(x, a * 1.0), a), lambda a, g: (g * a, None))
    else:
        f.defjvp(lambda p, t: (p[0] * p[1], t[0] * p[1]))
    a = np.array([3.0, 5.0])

    def loss(x):
        y = f(x, a)
        if kind is custom_jvp:
            assert a.tolist() == [4, 5]
        a[:] = 100.0
        return fnp.sum(y)

    assert fg.grad(loss)(X).tolist() == [3, 5]
    assert a.tolist() == [100, 100]


def test_creation_functions_within_what_a_rule_transforms():
    @custom_vjp
    def f(x):
        assert type(fnp.zeros(1)) is np.ndarray

        def inner(z):
            out = fnp.zeros(2)
            out[0] = z * z
            return fnp.sum(out)
        return float(np.asarray(fnp.zeros(()))) + inner_value(fg.value_and_grad(inner)(x))

    inner_value = lambda pair: pair[0].detach().item() if fg.is_tensor(pair[0]) else pair[0]
    f.defvjp(lambda x: (f(x), x), lambda x, g: (2 * x * g,))
    assert f(3.0) == 9.0 and fg.grad(f)(3.0) == 6.0

    @custom_vjp
    def fails(x):
        raise ZeroDivisionError

    fails.defvjp(lambda x: (fails(x), x), lambda x, g: (g,))
    with pytest.raises(ZeroDivisionError):
        fg.grad(fails)(1.0)
    assert not fg._core.core.transforming()
    assert fg.grad(lambda x: fnp.zeros(2).sum() + x)(1.0) == 1.0


@pytest.mark.parametrize("solver", [fg.fixed_point, fg.root])
def test_equations_get_plain_arrays_to_write_to(solver):
    theta = np.array([4.0, 9.0])

    def f(x, theta):
        y = (x + theta / x) / 2 if solver is fg.fixed_point else x * x - theta
        if isinstance(x, np.ndarray):
            assert type(theta) is np.ndarray and type(fnp.zeros(2)) is np.ndarray
            writes(theta), writes(x)
        return y

    x0 = np.array([1.0, 2.0])
    for g in (lambda t: solver(f, x0, t), ):
        np.testing.assert_allclose(np.diag(fg.jacobian(g)(theta)), [0.25, 1 / 6], rtol=1e-9)
        np.testing.assert_allclose(fg.jvp(g, (theta,), (np.ones(2),))[1], [0.25, 1 / 6], rtol=1e-9)
    assert theta.tolist() == [4, 9] and x0.tolist() == [1, 2]
    with pytest.raises(TypeError, match="f returns a complex"):
        solver(lambda x, t: x * 1j, 1.0, 2.0)
