"""Which zero wins where a result is not finite, the same in every engine.

A zero that comes later in the chain always wins over an infinity; one that comes earlier only while
the result is finite: an underflow inside of a logarithm gives NaN and never a zero.
"""

import itertools
import pickle
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import special
from fastgrad._core import core

pytestmark = pytest.mark.filterwarnings("ignore:.*does not depend on the arguments")

INF, NAN = np.inf, np.nan


def masked(v):
    return np.sum(np.where(v[:2] > 0, np.log(v[:2]), 0.0)) + np.log(v[2])


# name -> (f of an array, a point, its gradient there); the results are infinite but for the last.
CASES = {
    "underflow": (lambda v: np.sum(np.log(np.exp(-v ** 2))), [40.0, 1.0], [NAN, -2.0]),
    "likelihood": (lambda v: -np.sum(np.log(np.maximum(v, 0))), [-1.0, -2.0], [NAN, NAN]),
    "one of them": (lambda v: -np.sum(np.log(np.maximum(v, 0))), [2.0, -2.0], [-0.5, NAN]),
    "mask": (masked, [0.0, 1.0, 0.0], [0.0, 1.0, INF]),
    "chosen": (lambda v: np.sum(np.where(v > 0, v * np.log(v), INF)), [-1.0, 1.0], [0.0, 1.0]),
    "relu": (lambda v: np.sum(np.log((v + abs(v)) / 2)), [-1.0, 2.0], [NAN, 0.5]),
    "clip": (lambda v: np.sum(np.log(np.clip(v, 0.0, 1.0))), [-1.0, 0.5], [NAN, 2.0]),
    "max": (lambda v: np.log(np.max(v)), [0.0, -1.0], [INF, 0.0]),
    "sorted": (lambda v: np.log(np.sort(v)[0]), [3.0, 0.0], [0.0, INF]),
    "entry": (lambda v: np.log(v[0]), [0.0, 5.0], [INF, 0.0]),
    "gathered": (lambda v: np.sum(np.log(v[[0, 0]])), [0.0, 5.0], [INF, 0.0]),
    "product": (lambda v: np.log(np.prod(v)), [0.0, 0.0], [NAN, NAN]),
    "power": (lambda v: np.sum(np.log(v ** 3)), [1e-150, 2.0], [INF, 1.5]),
    "heaviside": (lambda v: np.sum(np.log(fnp.heaviside(v, 1.0))), [-1.0, 1.0], [NAN, 0.0]),
    "floor": (lambda v: np.sum(np.log(np.floor(8 * v))), [0.1, 2.5], [NAN, 0.0]),
    "sign": (lambda v: np.sum(np.log(np.sign(v) + 1)), [-1.0, 1.0], [NAN, 0.0]),
    "floor_divide": (lambda v: np.log(np.prod(v // 0.125)), [0.1, 5.0], [NAN, NAN]),
    "steps": (lambda v: np.sum(np.round(v, 1) / np.trunc(8 * v)), [0.1, 1.5], [NAN, 0.0]),
    "finite": (lambda v: np.sqrt(np.sum(v ** 2)), [0.0, 0.0], [0.0, 0.0]),
}
USUAL = np.array([1.5, 0.75, 2.5])      # a point where nothing is infinite


def usual(x):
    return USUAL[:len(x)] / 4 if len(x) else x


def backward(f, x, **options):
    t = fg.tensor(x, requires_grad=True)
    f(t).backward(**options)
    return t.grad.numpy() if not options.get("create_graph") else t.grad.detach().numpy()


def gradients(f, x, **options):
    t = fg.tensor(x, requires_grad=True)
    return fg.gradients(f(t), t, **options).detach().numpy()


def compiled(transform):
    """Recorded where all is finite, and replayed: by the one path."""
    def run(f, x):
        program = fg.compile(lambda x: transform(f, x))
        at = usual(x)
        before, found = program(at), program(x)
        np.testing.assert_array_equal(program(at), before)
        assert [path.calls for path in program.paths] == [3]
        np.testing.assert_array_equal(fg.compile(lambda x: transform(f, x))(x), found)
        return found
    return run


def loaded(f, x):
    program = fg.compile(lambda x: fg.grad(f)(x))
    program(usual(x))
    return pickle.loads(pickle.dumps(program.paths_only()))(x)


def lane(transform):
    def run(f, x):
        mapped = fg.vmap(lambda x: transform(f, x))(np.array([usual(x), x, usual(x)]))
        for k in (0, 2):
            np.testing.assert_allclose(mapped[k], transform(f, usual(x)), rtol=1e-14)
        return mapped[1]
    return run


def step(f, x):
    """A loop whose steps are differentiated by themselves, of which one is not finite."""
    def gradients(xs):
        return fg.scan(lambda c, x: (c, fg.grad(f)(x)), 0.0, xs)[1]
    program, at = fg.compile(gradients), usual(x)
    found = program(np.array([at, at, at])), program(np.array([at, x, at]))
    np.testing.assert_array_equal(found[1][[0, 2]], found[0][[0, 2]])
    return found[1][1]


def through_steps(f, x):
    """A loop as a part of the sweep."""
    twice = np.zeros(2)

    def looped(x):
        return fg.scan(lambda c, _: (c + f(x), None), 0.0, twice)[0] * 0.5
    program = fg.compile(fg.grad(looped))
    program(usual(x))
    found = program(x)
    np.testing.assert_array_equal(fg.grad(looped)(x), found)
    return found


def nested(f, x):
    """The gradient as a part of a function that is differentiated in its turn."""
    found = []
    fg.grad(lambda y: (found.append(fg.grad(f)(y)), np.sum(y))[1])(x)
    return found[0].detach().numpy()


def rows(transform, mode=None, **options):
    return lambda f, x: transform(f, **({} if mode is None else {"mode": mode}), **options)(x)


def gradient(f, x):
    return fg.grad(f)(x)


def jacobian(f, x, mode="forward"):
    return fg.jacobian(f, mode=mode)(x)


REVERSE = {
    "grad": gradient, "value_and_grad": lambda f, x: fg.value_and_grad(f)(x)[1],
    "vjp": lambda f, x: fg.vjp(f, x)[1](1.0)[0], "backward": backward,
    "backward kept": lambda f, x: backward(f, x, retain_graph=True),
    "backward recorded": lambda f, x: backward(f, x, create_graph=True),
    "gradients": gradients, "gradients recorded": lambda f, x: gradients(f, x, create_graph=True),
    "jacobian forward": jacobian, "jacobian reverse": lambda f, x: jacobian(f, x, "reverse"),
    "jacobian sparse": lambda f, x: fg.jacobian(lambda x: fnp.stack([f(x), f(x) * 2]),
                                                sparse=True)(x).toarray()[0],
    "several results": lambda f, x: fg.jacobian(lambda x: fnp.stack([f(x), x[0]]), mode="forward")(x)[0],
    "nested": nested, "compiled": compiled(gradient), "compiled jacobian": compiled(jacobian),
    "compiled reverse": compiled(lambda f, x: jacobian(f, x, "reverse")), "loaded": loaded,
    "lane": lane(gradient), "lane of a jacobian": lane(jacobian),
    "compiled lane": lambda f, x: fg.compile(fg.vmap(fg.grad(f)))(np.array([x, usual(x)]))[0],
    "lane of a program": lane(lambda f, x: fg.compile(fg.grad(f))(x)),
    "step": step, "through steps": through_steps,
}


@pytest.mark.parametrize("name, engine", itertools.product(CASES, REVERSE))
def test_gradients(name, engine):
    f, x, expected = CASES[name]
    np.testing.assert_array_equal(REVERSE[engine](f, np.array(x)), expected)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
    f, x, expected = CASES[name]
    if name == "power":
        x = [1e-20, 2.0]
    found = fg.grad(f)(np.array(x, np.float32))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


# ---- forward mode ------------------------------------------------------------------------------

def stream(f, x, v):
    return fg.jvp(f, (x,), (v,))[1]


FORWARD = {
    "stream": stream, "stream of a tree": lambda f, x, v: fg.jvp(
        lambda d: f(d["x"]), ({"x": x},), ({"x": v},))[1],
    "long stream": lambda f, x, v: fg.jvp(
        lambda x: f(sum([x * 0.0 for _ in range(3000)], x * 1.0)), (x,), (v,))[1],
    "linearize": lambda f, x, v: fg.linearize(f, x)[1](v),
    "nested": lambda f, x, v: fg.jvp(lambda y: fg.jvp(f, (x * y,), (v,))[1], (1.0,), (0.0,))[0],
    "compiled": compiled(lambda fv, x: 0.0), "lane": None,
}


def forward(engine, f, x, v):
    if engine == "compiled":
        program = fg.compile(lambda x: stream(f, x, v))
        before, found = program(usual(x)), program(x)
        assert program(usual(x)) == before and [path.calls for path in program.paths] == [3]
        return found
    if engine == "lane":
        return fg.vmap(lambda x: stream(f, x, v))(np.array([usual(x), x]))[1]
    return FORWARD[engine](f, x, v)


@pytest.mark.parametrize("name, engine", list(itertools.product(CASES, FORWARD)))
def test_tangents(name, engine):
    """A zero partial wins, a zero tangent does not where the result is infinite: it may be an
    underflow. Where neither meets an infinity it is the gradient's product with the direction."""
    f, x, _ = CASES[name]
    x = np.array(x)
    for v in ([1.0] * len(x), [0.0] * (len(x) - 1) + [2.0], [-1.0] + [0.0] * (len(x) - 1)):
        found = forward(engine, f, x, np.array(v))
        np.testing.assert_array_equal(found, TANGENTS[name](np.array(v)))


TANGENTS = {
    "underflow": lambda v: NAN, "likelihood": lambda v: NAN, "one of them": lambda v: NAN,
    "mask": lambda v: v[1] + (INF * np.sign(v[2]) if v[2] else NAN),
    "chosen": lambda v: v[1], "relu": lambda v: NAN, "clip": lambda v: NAN,
    "max": lambda v: INF * np.sign(v[0]) if v[0] else NAN,
    "sorted": lambda v: INF * np.sign(v[1]) if v[1] else NAN,
    "entry": lambda v: INF * np.sign(v[0]) if v[0] else NAN,
    "gathered": lambda v: INF * np.sign(v[0]) if v[0] else NAN,
    "product": lambda v: NAN, "power": lambda v: INF * np.sign(v[0]) if v[0] else NAN,
    "heaviside": lambda v: NAN, "floor": lambda v: NAN, "sign": lambda v: NAN,
    "floor_divide": lambda v: NAN, "steps": lambda v: NAN, "finite": lambda v: 0.0,
}


def test_entry_by_entry():
    """Of an array of results each entry has its own rule, in forward mode too."""
    def f(x):
        return fnp.log(fnp.maximum(x, 0)) * np.array([1.0, 1.0, 0.5])

    x, v = np.array([-1.0, 2.0, -3.0]), np.array([1.0, 4.0, 0.0])
    for found in (stream(f, x, v), fg.linearize(f, x)[1](v), fg.compile(
            lambda x: stream(f, x, v))(x), fg.vmap(lambda x: stream(f, x, v))(x[None])[0]):
        np.testing.assert_array_equal(found, [NAN, 2.0, NAN])
    for mode in ("forward", "reverse"):
        for jacobian in (fg.jacobian(f, mode=mode), fg.compile(fg.jacobian(f, mode=mode)),
                         lambda x, mode=mode: fg.vmap(fg.jacobian(f, mode=mode))(x[None])[0]):
            np.testing.assert_array_equal(
                jacobian(x), [[NAN, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, NAN]])
    np.testing.assert_array_equal(fg.jacobian(f, sparse=True)(x).toarray(), fg.jacobian(f)(x))


def test_a_seed_of_zero_asks_nothing():
    """One -inf among log-probabilities that nobody takes."""
    def logp(x):
        return fnp.log(fnp.maximum(x, 0))

    x = np.array([-1.0, 2.0])
    for pull in (fg.vjp(logp, x)[1], lambda c: fg.compile(lambda x, c: fg.vjp(logp, x)[1](c))(x, c)):
        np.testing.assert_array_equal(pull(np.array([0.0, 1.0]))[0], [0.0, 0.5])
        np.testing.assert_array_equal(pull(np.array([1.0, 1.0]))[0], [NAN, 0.5])
    program = fg.compile(lambda x, c: fg.vjp(logp, x)[1](c)[0])
    program(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    np.testing.assert_array_equal(program(x, np.array([0.0, 1.0])), [0.0, 0.5])
    np.testing.assert_array_equal(program(x, np.array([1.0, 1.0])), [NAN, 0.5])


def test_rows_of_logsumexp():
    x = np.array([[-INF, -INF], [0.0, 0.0]])
    found = fg.grad(lambda x: np.sum(special.logsumexp(x, axis=1)))(x)
    np.testing.assert_array_equal(found, [[0.0, 0.0], [0.5, 0.5]])


def test_higher_derivatives():
    """What a sweep that is itself recorded has found is a result as any other."""
    def f(m):
        return np.log(np.exp(-m ** 2))

    second = [fg.grad(fg.grad(f)), fg.hessian(f), fg.hessian_diag(f), fg.laplacian(f),
              lambda m: fg.hvp(f)(m, 1.0), lambda m: fg.jvp(fg.grad(f), (m,), (1.0,))[1],
              fg.compile(fg.hessian(f)), fg.compile(fg.grad(fg.grad(f)))]
    for derivative in second:
        np.testing.assert_allclose(derivative(1.0), -2.0, rtol=1e-14)
        assert np.isnan(derivative(40.0))
        np.testing.assert_allclose(derivative(1.0), -2.0, rtol=1e-14)
    assert np.isnan(fg.taylor(f, 40.0, 1.0, 2)[1]) and np.isnan(fg.taylor(f, 40.0, 1.0, 2)[2])
    np.testing.assert_allclose(fg.taylor(f, 1.0, 1.0, 2), [-1.0, -2.0, -1.0], rtol=1e-14)


def test_hessians_row_by_row():
    def f(x):
        return x[0] ** 2 + np.log(np.exp(-x[1] ** 2)) + x[0] * x[2]

    x = np.array([1.0, 40.0, 2.0])
    for hessian in (fg.hessian(f), fg.jacobian(fg.grad(f), mode="reverse"), fg.compile(fg.hessian(f)),
                    lambda x: fg.hessian(f, sparse=True)(x).toarray(),
                    lambda x: fg.vmap(fg.hessian(f))(x[None])[0]):
        found = hessian(x)
        np.testing.assert_array_equal(found[[0, 0, 2], [0, 2, 0]], [2.0, 1.0, 1.0])
        assert np.isnan(found[1, 1])
    assert np.isnan(fg.hessian_diag(f)(x)[1]) and fg.hessian_diag(f)(x)[0] == 2


def test_explained():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = str(fg.explain(lambda m: np.log(np.exp(-m ** 2)), 40.0))
    assert "nan" in text and "inf · 0   = 0" not in text


def test_a_rule_of_the_users():
    double = fg.custom_vjp(lambda x: 2 * x)
    double.defvjp(lambda x: (2 * x, None), lambda _, c: (2 * c,))
    for f in (lambda x: np.log(double(np.maximum(x, 0))), lambda x: double(np.log(np.maximum(x, 0)))):
        assert np.isnan(fg.grad(f)(-1.0)) and fg.grad(f)(2.0) in (0.5, 1.0)


def test_seconds_are_given_back():
    """A stream's second tangents die with their duals."""
    before = core.alive()
    x = np.array([-1.0, 2.0])
    for _ in range(200):
        stream(lambda x: np.sum(np.log(np.maximum(x, 0)) * 2), x, np.array([1.0, 1.0]))
    assert core.alive() == before


def test_graphs_of_ordinary_results_are_consumed():
    t = fg.tensor([-1.0, 2.0], requires_grad=True)
    y = fnp.sum(fnp.log(fnp.maximum(t, 0)))
    y.backward()
    with pytest.raises(RuntimeError, match="already differentiated"):
        y.backward()
    np.testing.assert_array_equal(t.grad.numpy(), [NAN, 0.5])


# What a program may do with a gradient. Most of these swallow a NaN, or tell zeros by their sign.
USES = {
    "itself": lambda g: g, "sum": np.sum, "step": lambda g: 1.0 - 0.1 * g, "matmul": lambda g: M @ g,
    "where": lambda g: np.where(g > 0, g, 7.0), "chosen": lambda g: np.where(M[0] > 0, g, 7.0),
    "maximum": lambda g: np.maximum(g, 0.5), "fmax": lambda g: fnp.fmax(g, 0.5),
    "clip": lambda g: np.clip(g, -1.0, 1.0), "sign": np.sign, "compare": lambda g: (g < 1) * 1.0,
    "power": lambda g: g ** 0, "hypot": lambda g: np.hypot(g, INF), "reciprocal": lambda g: 1 / (1 / g),
    "angle": lambda g: np.arctan2(g, -1.0), "copysign": lambda g: np.copysign(2.0, g),
    "largest": np.max, "sorted": np.sort, "cumulated": np.cumsum, "norm": np.linalg.norm,
    "whole": lambda g: np.clip(g, -9, 9).astype(int) * 1.0, "truth": lambda g: g.astype(bool) * 1.0,
    "entry": lambda g: g[1], "best": lambda g: g[np.argmax(g)], "isfinite": lambda g: np.isfinite(g) * 1.0,
    "branch": lambda g: g * 2 if np.all(g >= 0) else g * 3, "product": np.prod,
    "loop": lambda g: fg.fori_loop(0, 2, lambda i, c: np.maximum(c, g), g),
}
M = np.array([[1.0, -2.0, 0.0], [0.5, 0.0, 3.0], [-1.0, 1.0, 1.0]])


@pytest.mark.parametrize("name, use", list(itertools.product(
    ["mask", "underflow", "relu", "heaviside", "likelihood"], USES)))
def test_what_a_program_makes_of_a_gradient(name, use):
    """A program takes products of the chain rule for ordinary ones where NaN would show that they
    are not."""
    f = CASES[name][0]
    program = fg.compile(lambda x: USES[use](fg.grad(f)(x)))
    lanes = fg.compile(fg.vmap(lambda x: USES[use](fg.grad(f)(x))))
    points = [USUAL / 4, np.array([0.0, 1.0, 40.0]), USUAL / 8, np.array([-1.0, 2.0, 1.0])]
    with np.errstate(all="ignore"):
        for x in points:
            expected = USES[use](fg.grad(f)(x))
            np.testing.assert_allclose(program(x), expected, rtol=1e-15)
            if use not in ("branch", "best"):
                np.testing.assert_allclose(lanes(np.array([x, points[0]]))[0], expected, rtol=1e-15)


def test_plans_that_assume_less_are_made_when_they_are_needed():
    """A program asks the smaller one of value and gradient whether it is finite."""
    f = lambda x: np.sum(np.log(x) * np.sin(x))  # noqa: E731
    asked = "finite? else a plan"
    program = fg.compile(fg.grad(f))
    program(np.array([1.0, 2.0]))
    text = str(program.paths[0].plan)
    assert text.count(asked) == 1 and "output 0 " + asked in text and "= sum" not in text
    program = fg.compile(fg.value_and_grad(f))
    program(np.array([1.0, 2.0]))
    text = str(program.paths[0].plan)
    assert text.count(asked) == 1 and "is r0 " + asked in text and "= sum" in text


BRANCHES = {
    "truth": lambda g, x: x * 2 if g[1] else x * 3, "all": lambda g, x: x * 2 if np.all(g) else x * 3,
    "compared": lambda g, x: x * 2 if g[1] > -0.5 else x * 3,
    "and": lambda g, x: x * 2 if g[0] and g[1] else x * 3, "not": lambda g, x: x * 2 if not g[1] else x * 3,
}


@pytest.mark.parametrize("name, branch", list(itertools.product(["mask", "underflow", "likelihood"], BRANCHES)))
def test_branches_by_a_gradient(name, branch):
    """A guard that does not hold may do so once the rule is followed to the letter; and NaN is true."""
    f = CASES[name][0]
    h = lambda x: BRANCHES[branch](fg.grad(f)(x), x)  # noqa: E731
    program = fg.compile(h)
    with np.errstate(all="ignore"):
        for x in ([1.0, 2.0, 1.0], [1.0, 0.0, 1.0], [1.0, -1.0, 2.0], [2.0, 40.0, 1.0], [1.5, 0.5, 1.0],
                  [1.0, 40.0, 1.0]):
            np.testing.assert_array_equal(program(np.array(x)), h(np.array(x)))
    assert len(program.paths) <= 2
