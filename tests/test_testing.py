"""fastgrad.testing: right derivatives pass, and each kind of wrong one is found and named."""

import collections
import functools
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import numeric, testing
from fastgrad._core import trees
from fastgrad.testing import assert_close, check_grads

Params = collections.namedtuple("Params", "w b")


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning that no test asks for is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class Twin:
    """fg.vjp and fg.jvp by numeric differentiation, with a fault on demand.

    A fault is a function of the mode, of whether f is a derivative itself, of what should be
    returned ("value", or "tree" of gradients or tangents) and of that; it returns what is.
    """

    def __init__(self, fault=lambda mode, second, what, tree: tree):
        self.fault = fault
        self.calls = collections.Counter()
        self.known = {}

    def jacobian(self, f, args):
        F = numeric.VectorFunction(f, args, tuple(range(len(args))))
        key = f, F.x.tobytes()
        if key not in self.known:
            try:
                self.known[key] = False, numeric._jacobian(F, "complex", None, False)[0]
            except TypeError:           # f is a derivative, and takes no complex numbers
                self.known[key] = True, numeric._jacobian(F, "richardson", None, False)[0]
        return F, *self.known[key]

    def vjp(self, f, *args):
        F, second, matrix = self.jacobian(f, args)
        self.calls["reverse"] += 1

        def pull(y_bar):
            x_bar = F.domain.tree(F.range.vector(y_bar) @ matrix)
            return self.fault("reverse", second, "tree", x_bar)

        return self.fault("reverse", second, "value", F.range.original), pull

    def jvp(self, f, args, tangents):
        F, second, matrix = self.jacobian(f, args)
        self.calls["forward"] += 1
        tangent = F.range.tree(matrix @ F.domain.vector(tangents))
        return (self.fault("forward", second, "value", F.range.original),
                self.fault("forward", second, "tree", tangent))


@pytest.fixture
def twin(monkeypatch):
    """Puts a Twin with a given fault in place of fg.vjp and fg.jvp."""
    def use(*fault):
        made = Twin(*fault)
        monkeypatch.setattr(fg, "vjp", made.vjp, raising=False)
        monkeypatch.setattr(fg, "jvp", made.jvp, raising=False)
        return made
    return use


def layer(p, x):
    return {"y": np.tanh(x @ p["w"] + p["b"]), "s": (p["b"] ** 3,)}


P = {"w": np.array([[0.5, -1.0], [2.0, 0.3], [0.1, 0.2]]), "b": 0.4}
X = np.array([[0.1, -0.2, 0.3]])

SMOOTH = {
    "float": (lambda x: x ** 3, (2.0,)),
    "0-d": (lambda x: np.sin(x), (np.array(0.5),)),
    "float32": (lambda x: np.sum(x ** 3), (np.array([0.5, 2.0], np.float32),)),
    "NumPy scalar": (lambda x: x * x, (np.float32(2),)),
    "empty": (lambda x: np.sum(x), (np.zeros((0, 2)),)),
    "nothing out": (lambda x: x[:0], (np.ones(2),)),
    "rank 3": (lambda x: np.prod(x, axis=2), (np.linspace(0.5, 2, 6).reshape(3, 1, 2),)),
    "strided": (lambda x: x * x, (np.linspace(-1, 1, 12).reshape(3, 4)[::2, ::-3],)),
    "tree": (layer, (P, X)),
    "two dtypes": (lambda x, y: x * y, (np.ones(2, np.float32), np.array([1.5, 2.0]))),
    "weak float": (lambda c, x: np.sin(c * x), (0.5, np.ones(2, np.float32))),
    "namedtuple": (lambda p: Params(p.b * 2, p.w * p.b), (Params(np.ones(2), 3.0),)),
    "large": (lambda x: np.sum(x * x), (np.array([1e6, -2e5]),)),
    "small beside large": (lambda x: np.sum(x ** 4), (np.array([0.01, 20.0], np.float32),)),
    "constant": (lambda x: 3.0, (np.ones(2),)),
    "linear": (lambda x: 2 * x, (np.ones(2),)),
    "noisy": (lambda x: 1e8 + np.sin(x), (1.0,)),
    "partial": (functools.partial(np.multiply, 2.0), (np.ones(2),)),
}


# ---- with a stand-in for the core -----------------------------------------------------------

@pytest.mark.parametrize("name", SMOOTH)
def test_right_derivatives_pass(twin, name):
    f, args = SMOOTH[name]
    calls = twin().calls
    before = [np.array(leaf) for leaf in numeric.Layout(args).leaves]
    assert check_grads(f, *args) is None
    assert calls["forward"] and calls["reverse"]
    for old, new in zip(before, numeric.Layout(args).leaves):
        np.testing.assert_array_equal(old, new)


def test_modes_and_orders_are_those_asked_for(twin):
    calls = twin().calls
    check_grads(np.sin, 0.5, modes=["forward", "forward"])
    assert set(calls) == {"forward"}
    calls.clear()
    check_grads(np.sin, 0.5, modes="reverse", order=1)
    assert calls == {"reverse": 1}
    check_grads(np.sin, 0.5, modes="reverse")
    assert set(calls) == {"reverse"}
    check_grads(np.sin, 0.5, order=3)


def wrong_when(mode, change, second=False, what="tree"):
    """A fault: what one mode returns is changed, for f itself or only for its derivatives."""
    def fault(*case):
        return change(case[-1]) if case[:-1] == (mode, second, what) else case[-1]
    return fault


def scaled(tree, factor):
    return trees.tree_map(lambda x: x * factor, tree)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("factor", [-1, 0, 1 + 1e-4])
def test_wrong_slopes_are_found(twin, mode, factor):
    twin(wrong_when(mode, lambda tree: scaled(tree, factor)))
    with pytest.raises(AssertionError, match=rf"layer, order 1, {mode}: d output\['.*expected"):
        check_grads(layer, P, X)
    other = {"forward": "reverse", "reverse": "forward"}[mode]
    check_grads(layer, P, X, modes=other, order=1)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", ["float", "0-d", "float32", "rank 3", "strided", "weak float",
                                  "namedtuple", "two dtypes", "large"])
def test_wrong_slopes_of_every_kind_are_found(twin, mode, name):
    f, args = SMOOTH[name]
    twin(wrong_when(mode, lambda tree: scaled(tree, 1.02)))
    with pytest.raises(AssertionError, match=f"order 1, {mode}"):
        check_grads(f, *args)


@pytest.mark.parametrize("taken", ["forward", "reverse"])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_wrong_second_derivatives_are_found(twin, mode, taken):
    twin(wrong_when(mode, lambda tree: scaled(tree, 1.001), second=True))
    check_grads(np.sin, np.array([0.5, 1.0]), order=1)
    with pytest.raises(AssertionError, match=f"sin, order 2, {mode} over {mode}: d output"):
        check_grads(np.sin, np.array([0.5, 1.0]), modes=mode)
    with pytest.raises(AssertionError, match=f"sin, order 2, {mode} over"):
        check_grads(np.sin, np.array([0.5, 1.0]), modes=(taken, mode))


def test_the_message_names_the_entry_and_the_numbers(twin):
    def change(bars):
        w = bars[0]["w"].copy()
        w[2, 1] += 0.5
        return ({**bars[0], "w": w}, bars[1])

    twin(wrong_when("reverse", change))
    with pytest.raises(AssertionError) as caught:
        check_grads(lambda p, x: np.sum(x @ p["w"]), P, X)
    # d sum(x @ w) / d w[2, 1] = x[0, 2]
    assert caught.value.args[0] == (
        "<lambda>, order 1, reverse: d output / d args[0]['w'][2, 1]: expected 0.3, got 0.8, "
        "off by 0.5 (relative 1.67, allowed 7.87e-06)")


def test_a_wrong_tangent_is_found_in_its_entry(twin):
    def change(tangent):
        return {**tangent, "y": tangent["y"] + np.array([[0, 1.0]])}

    twin(wrong_when("forward", change))
    with pytest.raises(AssertionError,
                       match=r"forward: d output\['y'\]\[0, 1\] / d args\[0\]\['w'\]"):
        check_grads(layer, P, X)


@pytest.mark.parametrize("change, text", [
    (lambda bars: ({**bars[0], "w": bars[0]["w"].T}, bars[1]),
     r"reverse: the gradient is not like args: the shapes differ at \[0\]\['w'\]: "
     r"expected \(3, 2\), got \(2, 3\)"),
    (lambda bars: (bars[0], bars[1][0]), r"shapes differ at \[1\]: expected \(1, 3\), got \(3,\)"),
    (lambda bars: ({**bars[0], "w": bars[0]["w"].astype("f4")}, bars[1]),
     r"dtypes differ at \[0\]\['w'\]: expected float64, got float32"),
    (lambda bars: bars[:1], "trees differ: expected a tuple of 2, got a tuple of 1"),
    (lambda bars: ({"w": bars[0]["w"]}, bars[1]), r"trees differ at \[0\]: expected a dict"),
    (lambda bars: list(bars), "expected a tuple of 2, got a list of 2")])
def test_gradients_unlike_the_arguments_are_found(twin, change, text):
    twin(wrong_when("reverse", change))
    with pytest.raises(AssertionError, match=text):
        check_grads(layer, P, X)


def test_tangents_unlike_the_output_are_found(twin):
    twin(wrong_when("forward", np.float32))
    with pytest.raises(AssertionError, match="tangent is not like the output: the dtypes differ"):
        check_grads(np.sum, np.ones(2))
    twin(wrong_when("forward", np.atleast_1d))
    with pytest.raises(AssertionError, match=r"shapes differ: expected \(\), got \(1,\)"):
        check_grads(np.sum, np.ones(2))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_wrong_values_are_found(twin, mode):
    twin(wrong_when(mode, lambda y: y + 1, what="value"))
    with pytest.raises(AssertionError, match=rf"sin, order 1, {mode}: value\[0\]: expected"):
        check_grads(np.sin, np.ones(2))


def test_modes_that_disagree_too_little_for_differences(twin):
    twin(wrong_when("reverse", lambda tree: scaled(tree, 1 + 1e-6)))
    check_grads(np.sin, np.array([0.5, 1.0]), modes="reverse", order=1)
    with pytest.raises(AssertionError, match="order 1: <J' u, v> of reverse .* forward mode"):
        check_grads(np.sin, np.array([0.5, 1.0]), order=1)


def test_infinities_and_nan_are_no_way_through(twin):
    for bad in (np.nan, np.inf):
        for mode in ("forward", "reverse"):
            twin(wrong_when(mode, lambda tree, bad=bad: scaled(tree, bad)))
            with np.errstate(all="ignore"), pytest.raises(AssertionError, match="expected"):
                check_grads(np.sin, np.array([0.5, 1.0]))


def test_one_nan_does_not_hide_behind_others(twin):
    def change(bars):
        bars[0][1] = np.nan
        return bars

    twin(wrong_when("reverse", change))
    with pytest.raises(AssertionError,
                       match=r"d output\[0\] / d args\[0\]\[1\]: expected 0, got nan"):
        check_grads(np.sin, np.array([0.5, 1.0, 2.0]))


@pytest.mark.parametrize("f, x", [(np.sign, 1e-7), (np.sqrt, 1e-7), (lambda x: 1e12 + x, 1.0),
                                  (np.abs, 5e-6)])
def test_differences_that_cannot_tell_say_so(twin, f, x):
    twin()
    with pytest.raises(AssertionError, match=r"differences in args\[0\] are uncertain"):
        check_grads(f, x)


def test_tolerances_and_steps(twin):
    twin(wrong_when("reverse", lambda tree: scaled(tree, 1.01)))
    check_grads(np.sin, 1.0, rtol=0.02, order=1, modes="reverse")
    check_grads(np.sin, 1.0, atol=0.02, order=1, modes="reverse")
    with pytest.raises(AssertionError, match=r"relative 0\.01, allowed 0\.0027"):
        check_grads(np.sin, 1.0, rtol=0.005, atol=0, order=1, modes="reverse")
    seen = []
    twin()

    def f(x):
        seen.append(float(np.real(x)))
        return x * x

    check_grads(f, 1.0, eps=0.25, order=1, modes="forward")
    assert {0.75, 1.25} <= set(seen)


def test_many_entries_are_sampled(twin):
    calls = twin().calls
    x = np.linspace(0.1, 1, 130)
    check_grads(lambda x: np.sum(np.sin(x)), x, order=1, modes="forward")
    assert calls["forward"] == testing.ENTRIES + 1
    twin(wrong_when("reverse", lambda bars: (np.roll(bars[0], 1),)))
    with pytest.raises(AssertionError, match=r"d output / d "):
        check_grads(lambda x: np.sum(np.sin(x)), x, order=1, modes="reverse")


def test_the_seed_decides(twin):
    def directions(seed):
        seen = []
        made = twin()
        monkey = made.jvp
        fg.jvp = lambda f, args, tangents: (seen.append(tangents[0]), monkey(f, args, tangents))[1]
        check_grads(np.sin, np.array([0.5]), order=1, modes="forward", seed=seed)
        return [v[0] for v in seen]

    assert directions(1) == directions(1)
    assert directions(1) != directions(2)


@pytest.mark.parametrize("error, text, call", [
    (ValueError, r"modes must be some of \('forward', 'reverse'\), not \('backward',\)",
     lambda: check_grads(np.sin, 1.0, modes=("backward",))),
    (ValueError, "modes must be some of", lambda: check_grads(np.sin, 1.0, modes="rev")),
    (ValueError, "modes must be some of", lambda: check_grads(np.sin, 1.0, modes=())),
    (ValueError, "order must be at least 1, not 0", lambda: check_grads(np.sin, 1.0, order=0)),
    (TypeError, "float", lambda: check_grads(np.sin, 1.0, order=1.5)),
    (TypeError, r"check_grads\(f, x\)", lambda: check_grads(np.sin)),
    (TypeError, r"argument 1\['n'\] is the int 3", lambda: check_grads(max, 1.0, {"n": 3})),
    (TypeError, "argument 0 is an array of dtype int64", lambda: check_grads(np.sin, np.arange(3))),
    (TypeError, "pass a function", lambda: check_grads(1.0, 1.0)),
    (TypeError, "returned None", lambda: check_grads(lambda x: None, 1.0)),
    (ValueError, "eps must be positive, not -1", lambda: check_grads(np.sin, 1.0, eps=-1))])
def test_refusals(twin, error, text, call):
    twin()
    with pytest.raises(error, match=text):
        call()


# ---- with the core --------------------------------------------------------------------------

def vjp_by_grad(f, *args):
    def inner(y, u):
        return sum(np.sum(a * b) for a, b in zip(trees.flatten(y)[0], trees.flatten(u)[0]))

    y = trees.tree_map(lambda y: y.numpy() if fg.is_tensor(y) else y, f(*args))
    gradient = fg.grad(lambda u, *args: inner(f(*args), u), tuple(range(1, 1 + len(args))))
    return y, lambda u: gradient(u, *args)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_the_core_pass(monkeypatch, name):
    monkeypatch.setattr(fg, "vjp", vjp_by_grad, raising=False)
    f, args = SMOOTH[name]
    check_grads(f, *args, order=1, modes="reverse")


def test_gradients_of_the_core_beside_tensors(monkeypatch):
    monkeypatch.setattr(fg, "vjp", vjp_by_grad, raising=False)
    t = fg.tensor([1.0, 2.0])
    check_grads(lambda x: (t * x * x, [t.sum() * x[0]]), np.ones(2), order=1, modes="reverse")
    with pytest.raises(AssertionError,
                       match=r"d output\[0\] / d args\[0\]\[0\]: expected 2, got 1"):
        check_grads(lambda x: x * (x.detach() if fg.is_tensor(x) else x), np.ones(2), order=1,
                    modes="reverse")


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_of_the_core_pass(name):
    f, args = SMOOTH[name]
    if name != "partial":
        check_grads(f, *args)


@pytest.mark.parametrize("modes", ["forward", "reverse", ("forward", "reverse")])
@pytest.mark.parametrize("f, x", [
    (lambda x: fnp.sum(fnp.exp(-x) * x), np.array([0.5, 2.0])),
    (lambda x: fnp.stack([x[0] * x[1], x[1] ** 3]), np.array([0.5, 2.0], np.float32)),
    (lambda x: (fg.tensor([1.0, 2.0]) * x).sum(), np.ones(2)),
    (lambda p: p["w"] @ p["x"], {"w": np.ones((2, 3)), "x": np.arange(3.0)})])
def test_derivatives_in_each_mode(f, x, modes):
    check_grads(f, x, modes=modes)


def test_a_factor_that_is_held_is_found():
    def held(x):
        return (x * (x.detach() if fg.is_tensor(x) else x)).sum()

    with pytest.raises(AssertionError, match=r"held, order 1, forward: d output / d args\[0\]\[0\]"
                                             ": expected 2, got 1"):
        check_grads(held, np.ones(2))


# ---- assert_close ---------------------------------------------------------------------------

@pytest.mark.parametrize("actual, expected", [
    (1.0, 1.0 + 1e-12), (np.ones(3), np.ones(3, np.float32) + np.float32(1e-5)), (2, 2.0),
    ({"a": [1.0, np.nan], "b": None}, {"b": None, "a": [1.0, np.nan]}), (np.inf, np.inf),
    (np.zeros((0, 2)), np.zeros((0, 2))), (fg.tensor([1.0, 2.0]), np.array([1.0, 2.0])),
    (np.array([1, 2]), np.array([1.0, 2.0])), (1 + 1j, 1 + 1j), ((), ())])
def test_close_enough(actual, expected):
    assert_close(actual, expected)
    assert_close(expected, actual)


@pytest.mark.parametrize("actual, expected, text", [
    (1.0, 1.0 + 1e-9, r"^actual: expected 1.000000001, got 1, off by 1e-09 \(relative 1e-09"),
    (np.ones(2), np.ones(2) + [0, 1e-3], r"actual\[1\]: expected 1.001"),
    (np.ones(2, np.float32), np.ones(2) + 1e-3, r"actual\[0\]"),
    ({"w": (1.0, np.array([[1.0, 2.0]]))}, {"w": (1.0, np.array([[1.0, 5.0]]))},
     r"actual\['w'\]\[1\]\[0, 1\]: expected 5, got 2, off by 3 \(relative 0.6,"),
    (np.nan, 1.0, "got nan"), (1.0, np.nan, "expected nan"), (np.inf, -np.inf, "got inf"),
    (3.0, np.inf, "expected inf, got 3"), (np.inf, 3.0, "got inf"),
    (np.ones(2), np.ones((2, 1)), r"shapes differ: expected \(2, 1\), got \(2,\)"),
    ([1.0], (1.0,), "trees differ: expected a tuple of 1, got a list of 1"),
    ({"w": 1.0}, {"w": None}, r"trees differ at \['w'\]: expected None")])
def test_not_close(actual, expected, text):
    with pytest.raises(AssertionError, match=text):
        assert_close(actual, expected)


def test_the_worst_entry_is_named():
    with pytest.raises(AssertionError, match=r"w\[2\]: .*off by 1 "):
        assert_close(np.array([1.1, 1.0, 2.0, np.nan]), np.array([1.0, 1.0, 1.0, np.nan]), name="w")


def test_given_tolerances():
    assert_close(1.0, 1.1, atol=0.2)
    assert_close(1.0, 1.1, rtol=0.1)
    assert_close(0.0, 0.0, rtol=0, atol=0)
    with pytest.raises(AssertionError, match="relative inf, allowed 0"):
        assert_close(1e-30, 0.0, rtol=1, atol=0)


# ---- higher orders differentiate by the direction, too ---------------------------------------

def with_wrong_rule_inside(kind):
    """2 x, with a rule that is right and calls a function whose own rule is wrong."""
    @fg.custom_vjp
    def doubled(g):
        return 2 * g

    doubled.defvjp(lambda g: (2 * g, None), lambda _, g_bar: (3 * g_bar,))
    f = kind(lambda x: 2 * x)
    if kind is fg.custom_vjp:
        f.defvjp(lambda x: (2 * x, None), lambda _, g: (doubled(g),))
    else:
        f.defjvp(lambda p, t: (2 * p[0], doubled(t[0])))
    return f


@pytest.mark.parametrize("x", [0.5, np.array([0.5, -1.0])], ids=["number", "array"])
@pytest.mark.parametrize("kind, mode", [(fg.custom_vjp, "reverse"), (fg.custom_jvp, "forward")])
def test_a_wrong_rule_inside_a_rule(kind, mode, x):
    f = with_wrong_rule_inside(kind)
    if mode == "reverse":
        check_grads(f, x, order=1, modes=mode)
        with pytest.raises(AssertionError, match="order 2, reverse over reverse"):
            check_grads(f, x, order=2, modes=mode)
    else:
        check_grads(f, x, order=1, modes=mode)
        with pytest.raises((AssertionError, TypeError), match="order 2|transposed"):
            check_grads(f, x, order=2, modes=("forward", "reverse"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_derivatives_that_cancel_are_no_alarm(dtype):
    """Where the derivative is zero, both modes have nothing but rounding."""
    def f(x):
        return fnp.sum(x / 3) * 1.1 - fnp.sum(x) * 1.1 / 3

    for seed in range(12):
        x = np.random.default_rng(seed).standard_normal((1, 3)).astype(dtype)
        check_grads(f, x, seed=seed)
        check_grads(lambda x: np.std(x, axis=0), x, seed=seed)

    wrong = fg.custom_vjp(f)        # which is no rounding
    wrong.defvjp(lambda x: (f(x), x), lambda x, g: (g * x * np.asarray(1e-2, dtype),))
    with pytest.raises(AssertionError, match="order 1, reverse"):
        check_grads(wrong, x, modes="reverse")
