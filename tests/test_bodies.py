"""Steps of loops that do more than a recording of one of them tells: they draw, count, take from an
iterator, store. Each kind of loop does then what a loop of Python's does, in programs and lanes.
"""

import collections
import contextlib
import copy
import functools
import itertools
import operator
import random

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.code.bodies import repeats
from fastgrad.graphs.graph import Loop
from fastgrad.graphs.record import record

pytestmark = pytest.mark.filterwarnings("ignore:compile")

X = np.array([1.0, 2.0, 3.0, 4.0])


def plain(f, x):
    total = 0.0
    for value in x:
        total = total + f(value)
    return total


LOOPS = {
    "scan": lambda f, x: fg.scan(lambda c, v: (c + f(v), c), 0.0, x)[0],
    "fori_loop": lambda f, x: fg.fori_loop(0, len(x), lambda i, c: c + f(x[i]), 0.0),
    "while_loop": lambda f, x: fg.while_loop(
        lambda s: s[0] < len(x), lambda s: (s[0] + 1, s[1] + f(x[s[0]])), (0, 0.0))[1],
}


# ---- what a step may have ---------------------------------------------------------------------

def draws():
    rng = np.random.default_rng(0)
    return lambda v: v * rng.normal()


def draws_by_a_bound_method():
    draw = np.random.default_rng(0).normal
    return lambda v: v * draw()


def draws_of_an_attribute():
    space = type("Space", (), {})()
    space.rng = np.random.RandomState(0)
    return lambda v: v * space.rng.normal()


def draws_of_python():
    rng = random.Random(0)
    return lambda v: v * rng.random()


def draws_globally():
    np.random.seed(0)
    random.seed(0)
    return lambda v: v * np.random.normal() + random.random()


def draws_of_a_copy():
    box = [np.random.default_rng(0)]
    return lambda v: v * copy.copy(box)[0].normal()


def draws_by_a_caller():
    rng, call = np.random.default_rng(0), operator.methodcaller("normal")
    return lambda v: v * call(rng)


def counter():
    n = 0

    def f(v):
        nonlocal n
        n += 1
        return v * n
    return f


def counter_in_a_list():
    n = [0]

    def f(v):
        n[0] += 1
        return v * n[0]
    return f


def counter_of_a_class():
    class Count:
        n = 0

    def f(v):
        Count.n += 1
        return v * Count.n
    return f


def counter_of_a_function():
    def f(v):
        f.n += 1
        return v * f.n
    f.n = 0
    return f


def counter_in_an_array():
    n = np.zeros(1)

    def f(v):
        n[...] = n + 1
        return v * fnp.sum(n)
    return f


def counter_of_defaults():
    def f(v, seen=[]):      # noqa: B006
        seen.append(1)
        return v * len(seen)
    return f


def iterator():
    numbers = itertools.count(1)
    return lambda v: v * next(numbers)


def iterator_in_a_list():
    box = [itertools.count(1).__next__]
    return lambda v: v * box[0]()


def generator():
    numbers = (k for k in range(1, 100))

    def f(v):
        for k in numbers:
            return v * k
    return f


def zipped():
    numbers = itertools.count(1)
    return lambda v: sum([v * k for k, _ in zip(numbers, range(2))])


def popped():
    rest = {"take": list(range(1, 50)).pop}
    return lambda v: v * rest["take"]()


def rotated():
    queue = collections.deque([1, 2, 3, 4, 5])

    def f(v):
        queue.rotate(1)
        return v * queue[0]
    return f


def partial():
    return functools.partial(lambda numbers, v: v * next(numbers), itertools.count(1))


def cache():
    known = {}

    def f(v):
        known.setdefault(len(known), 1)
        return v * len(known)
    return f


def what_was_before():
    last = [0.0]

    def f(v):
        before, last[0] = last[0], v
        return before * 1.0
    return f


class Counting:
    """An object whose methods count how often they are called."""
    kind = "counted"

    def __init__(self):
        self.n, self.table = 0, {"count": self.count}

    def count(self, *_):
        self.n += 1
        return self.n

    def do_counted(self, v):
        return v * self.count()

    def by_name(self, v):
        return getattr(self, "do_" + self.kind)(v)

    __getitem__ = __len__ = __enter__ = count
    counted = property(count)

    def __exit__(self, *_):
        pass

    def __rmul__(self, v):
        return v * self.count()

    def __call__(self, v):
        return v * self.count()

    __array_ufunc__ = None


def in_a_with():
    counting = Counting()

    def f(v):
        with counting:
            return v * counting.n
    return f


def one_of_several():
    layers = [Counting(), Counting()]

    def f(v):
        for layer in layers:
            v = layer(v)
        return v
    return f


def of_a_reduction():
    counting = Counting()
    return lambda v: functools.reduce(lambda a, b: a + b * counting.count(), [v, v])


def suppressed():
    numbers = itertools.count(1)

    def f(v):
        with contextlib.suppress(KeyError):
            v = v * next(numbers)
        return v
    return f


STATES = [
    draws, draws_by_a_bound_method, draws_of_an_attribute, draws_of_python, draws_globally,
    draws_of_a_copy, draws_by_a_caller, counter, counter_in_a_list, counter_of_a_class,
    counter_of_a_function, counter_in_an_array, counter_of_defaults, iterator, iterator_in_a_list,
    generator, zipped, popped, rotated, partial, cache, what_was_before, in_a_with, one_of_several,
    of_a_reduction, suppressed, Counting]
STATES = {make.__name__: make for make in STATES} | {
    "by its name": lambda: Counting().by_name,
    "a property": lambda: (lambda v, c=Counting(): v * c.counted),
    "an item": lambda: (lambda v, c=Counting(): v * c[0]),
    "a length": lambda: (lambda v, c=Counting(): v * len(c)),
    "an operator": lambda: (lambda v, c=Counting(): v * c),
    "in a table": lambda: (lambda v, c=Counting(): v * c.table["count"]()),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_state_in_a_step(make, loop):
    f = make()
    wanted = [plain(f, x) for x in (X, X + 1, 2 * X)]
    f = make()
    compiled = fg.compile(lambda x: loop(f, x))
    np.testing.assert_allclose([compiled(x) for x in (X, X + 1, 2 * X)], wanted, rtol=1e-12)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_state_in_a_step_of_lanes(make, loop):
    rows = np.stack([X, X + 1])
    f = make()
    wanted = fg.vmap(lambda x: plain(f, x))(rows)
    g = make()                          # (some set a global generator to its start)
    np.testing.assert_allclose(fg.vmap(lambda x: loop(g, x))(rows), wanted, rtol=1e-12)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("make", [draws, counter, iterator, what_was_before])
def test_state_in_a_step_that_is_differentiated(make, loop):
    f = make()
    wanted = [fg.grad(lambda x: plain(f, x))(x) for x in (X, X + 1)]
    f = make()
    compiled = fg.compile(fg.grad(lambda x: loop(f, x)))
    np.testing.assert_allclose([compiled(x) for x in (X, X + 1)], wanted, rtol=1e-12)


def test_a_generator_of_the_function_s_own():
    def by(loop):
        def f(x):
            rng = np.random.default_rng(3)
            return loop(lambda v: v * rng.normal(), x)
        return f

    for loop in LOOPS.values():
        compiled = fg.compile(by(loop))
        for x in (X, 2 * X, X):
            np.testing.assert_allclose(compiled(x), by(plain)(x), rtol=1e-12)


def test_a_list_of_the_function_s_own():
    def f(x):
        seen = []

        def step(c, v):
            seen.append(1)
            return c + v * len(seen), c
        return fg.scan(step, 0.0, x)[0]

    compiled = fg.compile(f)
    assert compiled(X) == f(X) and compiled(2 * X) == f(2 * X)


# ---- steps that ask for types -----------------------------------------------------------------

ASKING = {
    "an entry": lambda x: fg.scan(
        lambda c, v: (c + v * (2.0 if isinstance(v, float) else 3.0), c), 0.0, x)[0],
    "the carry": lambda x: fg.scan(
        lambda c, v: (c + v * (2.0 if isinstance(c, float) else 3.0), c), 0.0, x)[0],
    "the counter": lambda x: fg.fori_loop(
        0, 3, lambda i, c: c + x[i] * (2.0 if isinstance(i, int) else 3.0), 0.0),
    "a carry at its start": lambda x: fg.fori_loop(
        0, 3, lambda i, c: c + x[i] * (2.0 if type(c) is float else 3.0), 0.0),
    "of while_loop": lambda x: fg.while_loop(
        lambda c: c < 9.0, lambda c: c + x[0] * (2.0 if isinstance(c, float) else 3.0), 0.0),
}


@pytest.mark.parametrize("f", ASKING.values(), ids=ASKING)
def test_types_that_a_step_asks_for(f):
    compiled = fg.compile(f)
    for x in (X, 2 * X, X):
        assert compiled(x) == f(x)


# ---- others are recorded once -----------------------------------------------------------------

State = collections.namedtuple("State", "position velocity")


class Layer:
    def __init__(self):
        self.w, self.act = np.ones((4, 4)) / 8, fnp.tanh

    def __call__(self, x):
        return self.act(self.w @ x)


class Net:
    def __init__(self):
        self.layers, self.options = [Layer(), Layer()], {"rate": 0.1}

    def step(self, c, v):
        for layer in self.layers:
            c = layer(c)
        return c * self.options["rate"] + v, v


WEIGHTS = {"k": np.ones(4), "list": [1.0, 2.0]}
derivative = fg.grad(lambda q: fnp.sum(q ** 2))


def force(state):
    return -WEIGHTS["k"] * state.position - 0.1 * state.velocity


def of_a_namedtuple(c, v):
    state = State(c, c)
    velocity = state.velocity + force(state) * v
    return (state.position + velocity), v


def of_a_list(c, v):
    parts = []
    parts.append(c)
    parts.append(c * v)
    return sum([p * k for p, k in zip(parts, WEIGHTS["list"])]), v


def in_place(c, v):
    c *= v
    c[0] = v
    return c, v


def with_a_check(c, v):
    if c.shape != (4,):
        raise ValueError(f"{c.shape}")
    return np.maximum(c, 0) * len(c) + fnp.concatenate([c[1:], c[:1]]) * np.pi, c.sum()


STEPS = {
    "a network": Net().step, "a namedtuple": of_a_namedtuple, "a list": of_a_list,
    "in place": in_place, "with a check": with_a_check,
    "a derivative": lambda c, v: (c - 0.1 * derivative(c), v),
    "one made inside": lambda c, v: (c - 0.1 * fg.grad(lambda q: fnp.sum(q ** 2) * v)(c), v),
    "a scan": lambda c, v: (fg.scan(lambda a, b: (a + b, a), v, c)[0] + c, v),
    "lanes": lambda c, v: (fg.vmap(lambda q: q * 2)(c), v),
    "a program": lambda c, v: (fg.compile(lambda q: q * 2)(c), v),
    "of NumPy": lambda c, v: (np.linalg.solve(np.eye(4), c) + np.add.reduce(c), v),
    "a partial": functools.partial(lambda k, c, v: (c * k, v), 2.0),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_steps_without_state_are_one_node(step):
    assert repeats(step)
    c = np.array([0.3, -0.2, 0.5, 0.1])
    graph = record(lambda a: [fg.scan(step, a[0], a[1])[0]], [c, X], None).graph
    assert sum([type(x) is Loop for x in graph.attrs]) >= 1
