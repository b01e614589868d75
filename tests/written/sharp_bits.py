"""Impurities, control flow and inner transformations in the shapes of JAX's tutorials."""

import functools
from collections import namedtuple

import numpy as np
from worlds import written

import fastgrad as fg
import fastgrad.numpy as fnp

g, log = 0.0, []


@written()
def dropout_seeded():
    step = 0

    def f(x):
        mask = np.random.default_rng((17, step)).random(3) < 0.7
        return np.sum(x * mask) / 0.7

    yield f
    for step in (0, 1, 2, 2, 1):
        yield


@written()
def batch_statistics():
    stats = {"mean": np.zeros(3), "seen": 0}

    def f(X):
        stats["seen"] += len(X)
        stats["mean"] = 0.5 * stats["mean"] + 0.5 * np.mean(X, axis=0)
        return np.sum((X - stats["mean"]) ** 2)

    yield f, stats


@written()
def counter_class():
    class Counter:
        n = 0

        def count(self):
            self.n += 1
            return self.n

        def reset(self):
            self.n = 0

    counter = Counter()

    def f(x):
        return np.sum(x) * counter.count()

    yield f, counter
    yield
    yield
    counter.reset()
    yield


State = namedtuple("State", "w steps")


@written()
def linear_regression_state():
    state = State(np.zeros(3), 0)

    def step(x):
        nonlocal state
        state = State(state.w + 0.1 * x, state.steps + 1)
        return np.sum(state.w) * state.steps

    yield step, lambda: state


@written()
def in_place_update():
    def f(x):
        y = x.copy()
        y[1] = np.sum(x)
        y[2] *= 3
        return y

    yield f


@written()
def out_of_bounds():
    def f(x, n):
        return x[n + 1]

    yield f


@written()
def list_input_sum():
    def f(pair):
        return np.sum(np.asarray(pair[0])) + sum([pair[1], 1.0, 2.0])

    yield f


@written()
def iterator_fold():
    numbers = range(5)

    def f(s):
        total = s
        for k in iter(numbers):
            total = total + k * s
        return total

    yield f
    for numbers in (range(5), range(2), range(1, 3), range(5)):
        yield


@written()
def global_impure():
    global g

    def f(s):
        return s + g

    yield f
    for g in (0.0, 10.0, 20.0, 20.0, -1.0):
        yield


@written()
def side_effect_global():
    def f(s):
        global g
        g = s * 2
        return s + 1

    yield f, lambda: g


@written()
def print_side_effect():
    def f(s):
        print("executing")
        return s * s

    yield f


@written()
def nan_guard():
    def f(s):
        safe = np.where(s > 0, s, 1.0)
        return np.where(s > 0, np.sqrt(safe), 0.0)

    yield f


@written()
def static_shape():
    def f(x, n):
        return np.sum(fnp.ones((n, 3)) * x)

    yield f


@written()
def log2_with_side():
    global log
    log = []

    def log2(r):
        log.append(1.0)
        return np.log(r) / np.log(2.0)

    yield log2, lambda: log


@written()
def relu_branch():
    def relu(s):
        return s if s > 0 else 0.0

    yield relu


@written()
def loop_count_argument():
    def f(s, n):
        k = 0
        while k < n:
            s = s * 1.5 + k
            k += 1
        return s

    yield f


@written()
def custom_root():
    exponent = 2.0

    def f(r):
        return fg.root(lambda x, a: x ** exponent - a, 1.0, r)

    yield f
    for exponent in (2.0, 3.0, 1.5, 2.0):
        yield


@written()
def implicit_fixed_point():
    weight = 0.5

    def f(s):
        return fg.fixed_point(lambda x, a: weight * fnp.tanh(x) + a, 0.0, s)

    yield f
    for weight in (0.5, 0.2, 0.8, 0.5):
        yield


@written()
def perex_gradients():
    targets = [0.0, 1.0, 0.0, 1.0]

    def f(X):
        def loss(row, target):
            return (fnp.sum(row) - target) ** 2

        return np.stack([fg.grad(loss)(row, target) for row, target in zip(X, targets)])

    yield f
    for k in range(4):
        yield
        targets[k] += 1.0
    yield


@written()
def convolve_by_window():
    weights = np.array([2.0, 3.0, 4.0])

    def convolve(u):
        return np.stack([np.dot(u[k - 1:k + 2], weights) for k in range(1, len(u) - 1)])

    yield convolve
    for k in range(3):
        yield
        weights[k] = 0.0
    yield


@written()
def td_zero():
    discount = 0.9

    def loss(x, y):
        value, following = np.sum(x), np.sum(y)
        target = fg.stop_gradient(1.0 + discount * following)
        return -0.5 * (target - value) ** 2

    yield loss
    for discount in (0.9, 0.5, 0.0, 0.9):
        yield


@written()
def meta_learning():
    rate = 0.1

    def f(x):
        def loss(w):
            return fnp.sum(w ** 2 * fnp.arange(1.0, 4.0))

        return loss(x - rate * fg.grad(loss)(x))

    yield f
    for rate in (0.1, 0.2, 0.05, 0.1):
        yield


@written()
def straight_through():
    def f(x):
        return np.sum((x + fg.stop_gradient(np.round(x) - x)) * np.array([1.0, 2.0, 3.0]))

    yield f


@written()
def particle_filter():
    places = np.array([0.1, 0.4, 0.7])

    def f(x):
        weights = np.exp(x - np.max(x))
        weights = weights / np.sum(weights)
        chosen = np.searchsorted(np.cumsum(weights), places)
        return np.sum(x[chosen]) + np.sum(chosen)

    yield f
    yield
    places[1] = 0.95
    yield


@written()
def k_means_step():
    centres = np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 1.0]])

    def step(X):
        distances = np.sum((X[:, None] - centres[None]) ** 2, axis=-1)
        nearest = np.argmin(distances, axis=1)
        return np.stack([np.sum(X * (nearest == k)[:, None], axis=0) for k in range(2)])

    yield step
    yield
    centres[0] = 3.0
    yield


@written()
def differentiable_sort():
    softness = 1.0

    def ranks(x):
        return np.sum(1 / (1 + np.exp(-(x[:, None] - x[None, :]) / softness)), axis=1)

    yield ranks
    for softness in (1.0, 0.1, 0.01, 1.0):
        yield


@written()
def spin_glass():
    J = np.array([[0.0, 1.0, -1.0], [1.0, 0.0, 0.5], [-1.0, 0.5, 0.0]])

    @functools.lru_cache
    def pairs(n):
        return [(a, b) for a in range(n) for b in range(a)]

    def energy(x):
        return -sum(J[a, b] * np.tanh(x[a]) * np.tanh(x[b]) for a, b in pairs(len(x)))

    yield energy
    for k in range(3):
        yield
        J[k, 0] += 1.0
    yield
