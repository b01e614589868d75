"""Decorators, partials, context managers, and fastgrad's own transformations inside."""

import contextlib
import functools
import operator
import threading

import numpy as np
from worlds import written

import fastgrad as fg
import fastgrad.numpy as fnp

xp = np


@written()
def decorated_scale():
    level = {"scale": 1.0}

    def scaled(function):
        def wrapper(*args):
            return function(*args) * level["scale"]
        return wrapper

    @scaled
    def f(x):
        return np.sum(x)

    def given(x):
        return f(x)

    yield given
    for level["scale"] in (1.0, 2.0, 3.0, 3.0, 0.5):
        yield


@written()
def decorated_count():
    def counted(function):
        @functools.wraps(function)
        def wrapper(x):
            wrapper.calls += 1
            return function(x)
        wrapper.calls = 0
        return wrapper

    @counted
    def f(x):
        return np.sum(x * x)

    yield f, lambda: f.calls


@written()
def decorated_class():
    class Timed:
        def __init__(self, function):
            self.function, self.calls = function, []

        def __call__(self, x):
            self.calls.append(x.shape)
            return self.function(x)

    timed = Timed(np.sum)
    yield timed, lambda: timed.calls


@written()
def retry_decorator():
    failures = [True, False, False, True, False, False, False, False]

    def retry(function):
        def again(x):
            for _ in range(3):
                try:
                    return function(x)
                except OSError:
                    continue
        return again

    @retry
    def f(x):
        if failures.pop(0):
            raise OSError("busy")
        return np.sum(x)

    yield f, failures


@written()
def partial_float():
    def model(x, scale):
        return np.sum(np.exp(-x * scale))

    yield functools.partial(model, scale=2.0)


@written()
def partial_array():
    w = np.ones(3)

    def model(w, x):
        return np.dot(w, x)

    yield functools.partial(model, w)
    for k in range(5):
        w[k % 3] += k
        yield


@written()
def partial_keywords():
    def model(x, scale=1.0):
        return np.sum(x * scale)

    f = functools.partial(model, scale=1.0)
    yield f
    for scale in (1.0, 2.0, 3.0, 3.0, 0.5):
        f.keywords["scale"] = scale
        yield


@written()
def compose():
    steps = [np.sin, np.exp]

    def f(x):
        for step in steps:
            x = step(x)
        return np.sum(x)

    yield f
    yield
    steps.reverse()
    yield
    steps.append(np.tanh)
    yield


@written()
def method_caller():
    reduce = operator.methodcaller("sum")

    def f(x):
        return reduce(x) * 2

    yield f
    yield
    reduce = operator.methodcaller("max")
    yield


@written()
def context_manager_class():
    class Scale:
        level = 1.0

        def __init__(self, value):
            self.value = value

        def __enter__(self):
            Scale.level, self.value = self.value, Scale.level

        def __exit__(self, *error):
            Scale.level, self.value = self.value, Scale.level

    amount = 2.0

    def f(x):
        with Scale(amount):
            return np.sum(x * Scale.level)

    yield f, lambda: Scale.level
    for amount in (2.0, 3.0, 4.0, 4.0, 0.5):
        yield


@written()
def context_manager_generator():
    log, level = [], 1.0

    @contextlib.contextmanager
    def phase(name):
        log.append(name)
        yield level
        log.append("end")

    def f(x):
        with phase("sum") as scale:
            return np.sum(x) * scale

    yield f, log
    for level in (1.0, 2.0, 3.0):
        yield


@written()
def errstate_inside():
    def f(x):
        with np.errstate(invalid="ignore", divide="ignore"):
            y = np.log(x)
        return np.sum(np.where(x > 0, y, 0.0))

    yield f


@written()
def nested_grad():
    power = 3

    def energy(s):
        return s ** power

    def f(s):
        return fg.grad(energy)(s) + energy(s)

    yield f
    for power in (3, 2, 4, 3, 3):
        yield


@written()
def nested_compile():
    scale = 1.0
    inner = fg.compile(lambda x: np.sum(x * scale))

    def f(x):
        return inner(x) * inner(x + 1)

    yield f
    for scale in (1.0, 2.0, 3.0, 3.0, 0.5):
        yield


@written()
def nested_vmap():
    targets = np.array([0.0, 1.0, 2.0, 3.0])

    def loss(w, row, target):
        return (fnp.dot(w, row) - target) ** 2

    def f(X):
        gradients = fg.vmap(fg.grad(loss), in_axes=(None, 0, 0))(np.ones(3), X, targets)
        return fnp.sum(gradients)

    yield f
    for k in range(5):
        targets[k % 4] -= 1.0
        yield


@written()
def custom_rule():
    @fg.custom_vjp
    def clipped(s):
        return s * s

    clipped.defvjp(lambda s: (s * s, s), lambda s, g: (fnp.clip(g * 2 * s, -1.0, 1.0),))
    scale = 1.0

    def f(s):
        return clipped(s) * scale

    yield f
    for scale in (1.0, 2.0, 3.0):
        yield


@written()
def stop_gradient_inside():
    def f(x):
        target = fg.stop_gradient(np.sum(x) * 0.9)
        return (np.max(x) - target) ** 2

    yield f


@written()
def scan_inside():
    decay = 0.5

    def f(u):
        last, means = fg.scan(lambda m, v: (m + decay * (v - m), m * v), 0.0, u)
        return last + fnp.sum(means)

    yield f
    for decay in (0.5, 0.25, 0.125, 0.5, 1.0):
        yield


@written()
def fori_inside():
    rounds, gain = 3, 1.1

    def f(s):
        return fg.fori_loop(0, rounds, lambda k, y: y * gain + k, s)

    yield f
    for rounds, gain in ((3, 1.1), (3, 0.9), (5, 0.9), (2, 0.9), (3, 1.1)):
        yield


@written()
def while_inside():
    limit = 10.0

    def f(r):
        return fg.while_loop(lambda y: y < limit, lambda y: y * 1.7, r)

    yield f
    for limit in (10.0, 20.0, 2.0, 0.1, 10.0):
        yield


@written()
def vectorized():
    def scalar(value):
        return value * 2 if value > 1 else value - 1

    wide = np.vectorize(scalar)

    def f(x):
        return np.sum(wide(x))

    yield f


@written()
def typed_overload():
    class Model:
        scale = 1.0

        @functools.singledispatchmethod
        def loss(self, order, x):
            return np.sum(x * self.scale)

        @loss.register
        def _(self, order: int, x):
            return np.sum(x ** order) * self.scale

    model, order = Model(), 2

    def f(x):
        return model.loss(order, x)

    yield f
    for order in (2, 3, "all", "all", 2):
        model.scale += 0.5
        yield


@written()
def string_dispatch():
    name = "sin"

    def f(x):
        return np.sum(getattr(np, name)(x))

    yield f
    for name in ("sin", "cos", "tanh", "cos", "exp"):
        yield


@written()
def numpy_alias_swapped():
    global xp

    class Shifted:
        @staticmethod
        def sin(x):
            return np.sin(x) + 1

    def f(x):
        return np.sum(xp.sin(x))

    yield f
    for xp in (np, Shifted, Shifted, fnp, np):
        yield


@written()
def thread_inside():
    found = {}

    def f(x):
        size = len(x)
        worker = threading.Thread(target=lambda: found.update(size=size))
        worker.start()
        worker.join()
        return np.sum(x) * found["size"]

    yield f, found
