"""Floats that become inputs: only where a Tensor does in their place."""

import functools
import math
import types

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

pytestmark = pytest.mark.filterwarnings("ignore:compile")

T = 1.0
TABLE = {1.0: 5.0, 2.0: 6.0, 3.0: 7.0, 4.0: 8.0}
VALUES = (1.0, 2.0, 3.0, 4.0, 2.0, -1.0, 0.5)
X = np.array([1.0, 2.0, 3.0])


def recursive(x, n=2):
    return x if n == 0 else recursive(x, n - 1) * T


def helper(t):
    return t * 2


@functools.lru_cache
def cached(t):
    return t * 2 if type(t) is float else -1.0


def with_alias(x):
    t = T
    u = t
    return x * TABLE.get(u, 1.0)


def by_computed_key(x):
    return x * TABLE.get(T * 1.0, 1.0)


def by_computed_type(x):
    t = -T + 1.0
    return x if isinstance(t, float) else -x


def by_comparison(x):
    small = T < 2.5
    return x * {True: 3.0, False: 5.0}[small] + (1 if small is True else 2)


def in_nested(x):
    def inner(y):
        return y if isinstance(T, float) else -y
    return inner(x)


def by_default(x, t=None):
    t = T if t is None else t
    return x * math.copysign(1.0, t)


NOT_LIFTED = {
    "recursion": recursive, "recursion of another": lambda x: recursive(x),
    "isinstance": lambda x: x if isinstance(T, float) else -x,
    "type": lambda x: x if type(T) is float else -x, "table": lambda x: x * TABLE.get(T, 1.0),
    "cache": lambda x: x * cached(T), "tie": lambda x: np.maximum(x, T) * 1.0,
    "clip": lambda x: np.clip(x, -T, T), "power": lambda x: (x - x) ** T if T > 0 else x,
    "base": lambda x: T ** 2 * x, "format": lambda x: x * len(f"{T}"), "int": lambda x: x * int(T),
    "function": lambda x: x * helper(T), "math": lambda x: x * math.exp(T),
    "range": lambda x: sum([x for _ in range(int(abs(T)))], x),
    "is": lambda x: x * (1 + (T is None)),
    "in": lambda x: x * (2 if T in (1.0, 3.0) else 3), "container": lambda x: x * max([T, 1.0]),
    "method": lambda x: x * (T.is_integer() + 1), "index": lambda x: x * [1, 2, 3][int(T) % 3],
    "floor": lambda x: x + T // 2, "mod": lambda x: x + T % 2, "alias": with_alias,
    "computed key": by_computed_key, "computed type": by_computed_type, "compared": by_comparison,
    "nested": in_nested, "default": by_default, "where": lambda x: np.where(x > 1, T, x),
}


def same(got, wanted):
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", NOT_LIFTED)
def test_uses_that_need_a_float(name, monkeypatch):
    f = NOT_LIFTED[name]
    program, gradient = fg.compile(f), fg.compile(fg.grad(f))
    jacobian = fg.jacobian(fg.compile(lambda x: f(x) * X))
    lanes = fg.compile(fg.vmap(lambda x: f(x) * 1.0))
    for value in VALUES:
        monkeypatch.setitem(globals(), "T", value)
        for x in (1.0, 2.5, value):
            same(program(x), f(x))
            same(gradient(x), fg.grad(f)(x))
        same(jacobian(value), fg.jacobian(lambda x: f(x) * X)(value))
        same(lanes(X), fg.vmap(lambda x: f(x) * 1.0)(X))


def in_a_step(x):
    return fg.scan(lambda c, k: (c * T + k, c), x, X)[0]


def in_a_loop(x):
    return fg.fori_loop(0, 3, lambda k, c: c * T - x, x)


def in_a_function_of_its_own(x):
    def inner(y):
        return y * T + 1.0
    return inner(x) * T


LIFTED = {
    "product": lambda x: x * T, "quotient": lambda x: x * x / T, "sum": lambda x: np.sum(x + T),
    "difference": lambda x: T - x, "negative": lambda x: x * -T,
    "exponential": lambda x: np.exp(-x / (T + 10.0)),
    "branch": lambda x: x * T if T > 1.5 else x - T,
    "compared": lambda x: x * 2.0 if x > T else x - T, "computed": lambda x: (2.0 * T + 1.0) * x,
    "in place": lambda x: fnp.multiply(x, 2.0) * T + T, "inner": in_a_function_of_its_own,
    "step": in_a_step, "loop": in_a_loop,
}


@pytest.mark.parametrize("name", LIFTED)
def test_arithmetic_is_lifted(name, monkeypatch):
    """Recorded as a number, then as an input, and once more for another branch."""
    f = LIFTED[name]
    program, gradient = fg.compile(f), fg.compile(fg.grad(f))
    for value in (1.0, 2.0, 3.0, 4.0, -1.0, 0.5, 7.0, 8.0):
        monkeypatch.setitem(globals(), "T", value)
        for x in (1.0, 2.5):
            assert program(x) == pytest.approx(float(f(x)), rel=1e-14)
            assert gradient(x) == pytest.approx(float(fg.grad(f)(x)), rel=1e-14)
    branches = 4 if name in ("branch", "compared") else 2
    assert len(program.paths) <= branches and len(gradient.paths) <= branches


def test_lifted_floats_in_a_file(tmp_path, monkeypatch):
    """A file holds them as they were when it was written."""
    program = fg.compile(lambda x: x * T)
    for value in (1.0, 2.0, 3.0):
        monkeypatch.setitem(globals(), "T", value)
        program(2.0)
    program.save(tmp_path / "f.fgp")
    loaded = fg.load(tmp_path / "f.fgp")
    assert loaded(2.0) == 6.0 and fg.grad(loaded)(2.0) == 3.0
    monkeypatch.setitem(globals(), "T", 4.0)
    assert program(2.0) == 8.0 and loaded(2.0) == 6.0


def test_a_method_that_calls_itself():
    class Series:
        def __init__(self):
            self.rate = 1.0

        def sum(self, x, n):
            return x if n == 0 else self.sum(x, n - 1) * self.rate

    series = Series()
    program = fg.compile(series.sum)
    for series.rate in (1.0, 2.0, 3.0, 4.0):
        assert program(1.0, 2) == series.rate ** 2


def test_a_cell_that_two_functions_share():
    rate = 1.0

    def other():
        return rate

    program = fg.compile(lambda x: x * rate * other())
    for rate in (1.0, 2.0, 3.0, 4.0):
        assert program(1.0) == rate ** 2


def test_an_attribute_with_a_meaning_elsewhere():
    class Model:
        def __init__(self):
            self.rate = 1.0

        def scaled(self, x):
            return x * self.rate

        def step(self, x):
            return self.scaled(x) if isinstance(self.rate, float) else -x

    model = Model()
    program = fg.compile(model.step)
    for model.rate in (1.0, 2.0, 3.0):
        assert program(2.0) == 2.0 * model.rate
    space = types.SimpleNamespace(rate=1.0)
    program = fg.compile(lambda x: x * TABLE[space.rate])
    for space.rate in (1.0, 2.0, 3.0, 4.0):
        assert program(1.0) == TABLE[space.rate]
