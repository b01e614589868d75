"""Random numbers, clocks, files, iterators: what answers otherwise each time."""

import itertools
import os
import random
import tempfile

import numpy as np
from worlds import written

import fastgrad.numpy as fnp


@written()
def draw_from_generator():
    rng = np.random.default_rng(3)

    def f(x):
        return np.sum(x * rng.normal(size=3))

    yield f, lambda: rng.bit_generator.state["state"]


@written()
def draw_inside():
    def f(x):
        rng = np.random.default_rng(7)
        return fnp.sum(x * rng.uniform(size=3))

    yield f


@written()
def draw_module_seeded():
    random.seed(1)

    def f(s):
        return s * random.random()

    yield f, lambda: random.getstate()[1][:4]
    for seed in (1, 2, 3, 3, 1):
        random.seed(seed)
        yield


@written()
def draw_shuffle():
    rng, order = random.Random(5), [0, 1, 2]

    def f(x):
        rng.shuffle(order)
        return x[order[0]] * 2 + x[order[1]]

    yield f, order


@written()
def draw_mask():
    rng, keep = np.random.default_rng(11), 0.5

    def dropout(x):
        mask = rng.random(3) < keep
        return np.sum(np.where(mask, x / keep, 0.0))

    yield dropout
    for keep in (0.5, 0.9, 0.1, 0.5, 0.7):
        yield


@written()
def draw_when_positive():
    rng = random.Random(2)

    def f(s):
        if s > 0:
            return s * 2
        return s * rng.random()

    yield f, lambda: rng.getstate()[1][:3]


@written()
def draw_bound_method():
    normal = np.random.default_rng(4).normal

    def f(s):
        return s + normal()

    yield f


@written()
def draw_in_attribute():
    class Sampler:
        def __init__(self):
            self.rng, self.drawn = np.random.default_rng(0), 0

        def estimate(self, x):
            self.drawn += 2
            noise = self.rng.normal(size=(2, 3))
            return np.mean(np.sum((x + noise) ** 2, axis=1))

    sampler = Sampler()
    yield sampler.estimate, lambda: sampler.drawn


@written()
def draw_many():
    rng = random.Random(9)

    def f(s):
        total = 0.0
        for _ in range(3):
            total = total + s * rng.gauss(0, 1)
        return total

    yield f


@written()
def draw_batch():
    rng, rows = np.random.default_rng(8), np.arange(12.0).reshape(4, 3)

    def loss(x):
        batch = rows[rng.integers(0, 4, 2)]
        return np.mean((batch @ x) ** 2)

    yield loss
    yield
    rows += 1.0
    yield


@written()
def draw_by_hash():
    step = 0

    def noise(k):
        return ((k * 2654435761) % 2 ** 32) / 2 ** 32

    def f(s):
        return s + noise(step)

    yield f
    for step in (1, 2, 3, 2, 1):
        yield


@written()
def draw_lcg():
    state = 12345

    def uniform():
        nonlocal state
        state = (1103515245 * state + 12345) % 2 ** 31
        return state / 2 ** 31

    def f(s):
        return s * uniform()

    yield f, lambda: state


@written()
def draw_state_set():
    rng = np.random.default_rng(6)
    start = rng.bit_generator.state

    def f(x):
        return np.sum(x * rng.random(3))

    yield f
    yield
    rng.bit_generator.state = start
    yield
    yield
    rng.bit_generator.state = start
    yield


@written()
def draw_and_count():
    rng, calls = np.random.default_rng(1), []

    def f(x):
        calls.append(len(calls))
        noise = rng.normal()
        return np.sum(x) + float(noise)

    yield f, lambda: (calls, rng.bit_generator.state["state"])


@written()
def clock_fake():
    now = 0.0

    def clock():
        return now

    def f(s):
        return s * np.exp(-clock())

    yield f
    while True:
        now += 0.25
        yield


@written()
def file_read():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rate")

        def write(value):
            with open(path, "w") as file:
                file.write(str(value))

        def f(x):
            with open(path) as file:
                return np.sum(x) * float(file.read())

        write(1.5)
        yield f
        for value in (1.5, 2.0, 3.0, 3.0, 0.5):
            write(value)
            yield


@written()
def path_exists():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stop")

        def f(x):
            return np.sum(x) * (2.0 if os.path.exists(path) else 1.0)

        yield f
        yield
        open(path, "w").close()
        yield
        yield
        os.remove(path)
        yield


@written()
def iterator_next():
    rates = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    def f(x):
        return np.sum(x) * next(rates)

    yield f


@written()
def generator_send():
    def integrator():
        total = 0.0
        while True:
            total += yield total

    running = integrator()
    next(running)

    def f(s):
        return running.send(1.0) * s

    yield f


@written()
def batches_from_generator():
    data = np.arange(12.0).reshape(4, 3)

    def batches():
        for k in itertools.cycle(range(2)):
            yield data[2 * k:2 * k + 2]

    stream = batches()

    def loss(x):
        return np.sum((next(stream) @ x) ** 2)

    yield loss
