"""Closures, cells, defaults and what is changed about a function from outside."""

import numpy as np
from worlds import written

import fastgrad.numpy as fnp


@written()
def closed_scale():
    scale = 2.0

    def f(x):
        return np.sum(x * scale) - scale

    yield f
    for scale in (2.0, 3.0, 3.0, -1.0, 0.5):
        yield


@written()
def closed_array():
    w = np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.sum(w * x) / np.sum(w)

    yield f
    for k in range(5):
        w[k % 3] += 1.5
        yield


@written()
def closed_array_rebound():
    w = np.ones(3)

    def f(x):
        return np.dot(w, np.sin(x))

    yield f
    for k in range(5):
        w = np.arange(3.0) * k + 1
        yield


@written()
def closed_list_grows():
    parts = [1.0]

    def f(x):
        total = 0.0
        for part in parts:
            total = total + part * x
        return total

    yield f, parts
    for part in (2.0, -1.0, 0.5):
        parts.append(part)
        yield


@written()
def closed_dict_entry():
    options = {"rate": 1.0, "power": 2}

    def f(x):
        return options["rate"] * np.sum(x ** options["power"])

    yield f
    for rate, power in ((1.0, 2), (2.0, 2), (2.0, 3), (0.5, 1), (1.0, 2)):
        options["rate"], options["power"] = rate, power
        yield


@written()
def closed_function_swapped():
    activation = np.tanh

    def f(x):
        return np.sum(activation(x * 0.5))

    yield f
    for activation in (np.tanh, np.sin, np.exp, np.tanh, np.cos):
        yield


@written()
def closed_string_mode():
    mode = "square"

    def f(x):
        if mode == "square":
            return np.sum(x * x)
        return np.sum(np.abs(x)) if mode == "abs" else np.max(x)

    yield f
    for mode in ("square", "abs", "max", "square", "abs"):
        yield


@written()
def nonlocal_counter():
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return np.sum(x) * calls

    yield f, lambda: calls


@written()
def nonlocal_last():
    last = None

    def f(x):
        nonlocal last
        change = x * 0.0 if last is None else x - last
        last = x
        return np.sum(change * change)

    yield f, lambda: last


@written()
def nonlocal_best():
    best = np.inf

    def f(x):
        nonlocal best
        value = np.sum((x - 1) ** 2)
        if value < best:
            best = value
        return value

    yield f, lambda: best


@written()
def default_array():
    offset = np.array([0.1, 0.2, 0.3])

    def f(x, offset=offset):
        return np.sum((x - offset) ** 2)

    yield f
    for k in range(5):
        offset *= 2
        yield


@written()
def default_list_grows():
    def f(x, seen=[]):
        seen.append(1.0)
        return np.sum(x) * len(seen)

    yield f, lambda: f.__defaults__


@written()
def default_replaced():
    def f(x, rate=1.0):
        return np.sum(np.cos(x) * rate)

    yield f
    for rate in (1.0, 4.0, 2, 0.25, np.float64(3.0)):
        f.__defaults__ = (rate,)
        yield


@written()
def kwdefault_replaced():
    def f(x, *, rate=1.0, shift=0.0):
        return np.sum(x * rate) + shift

    yield f
    for rate in (1.0, 2.0, 3.0, 3.0, -1.0):
        f.__kwdefaults__["rate"] = rate
        yield


@written()
def code_replaced():
    def f(x):
        return np.sum(x * 2.0)

    def other(x):
        return np.sum(x * 5.0)

    first = f.__code__
    yield f
    for code in (first, other.__code__, first, other.__code__, other.__code__):
        f.__code__ = code
        yield


@written()
def factory_of_factories():
    powers = [2, 3]

    def weighted(weight):
        def to_the(k):
            def f(x):
                return weight * np.sum(x ** powers[k])
            return f
        return to_the

    yield weighted(0.5)(1)
    for power in (3, 4, 2, 2, 1):
        powers[1] = power
        yield


@written()
def late_binding():
    terms = []
    for k in range(3):
        terms.append(lambda x: x[k] * (k + 1))

    def f(x):
        return sum(term(x) for term in terms)

    yield f
    for k in (2, 0, 1, 1, 2):
        yield


@written()
def two_functions_one_cell():
    def shared():
        level = 1.0

        def set_level(value):
            nonlocal level
            level = value

        def f(x):
            return np.sum(np.maximum(x, level))
        return set_level, f

    set_level, f = shared()
    yield f
    for value in (1.0, 1.5, 0.0, 5.0, 1.0):
        set_level(value)
        yield


@written()
def closed_tuple_of_arrays():
    pair = (np.ones(3), np.zeros(3))

    def f(x):
        w, b = pair
        return np.sum(w * x + b)

    yield f
    for k in range(5):
        pair[k % 2][...] = k
        yield


@written()
def polynomial_of_coefficients():
    coefficients = [1.0, -2.0, 0.5]

    def f(s):
        value = 0.0
        for a in reversed(coefficients):
            value = value * s + a
        return value

    yield f
    for k in (0, 1, 2, 0):
        coefficients[k] *= 3.0
        yield
    coefficients.append(0.1)
    yield


@written()
def loss_of_data():
    inputs = np.linspace(0.0, 2.0, 12).reshape(4, 3)
    targets = np.array([0.0, 1.0, 0.0, 1.0])

    def training_loss(x):
        return np.mean((inputs @ x - targets) ** 2)

    yield training_loss
    for k in range(5):
        targets[k % 4] = 1 - targets[k % 4]
        yield


@written()
def objective_with_weights():
    weights = {"fit": 1.0, "size": 0.1}

    def objective(x):
        return weights["fit"] * np.sum((x - 1) ** 4) + weights["size"] * np.linalg.norm(x)

    yield objective
    for size in (0.1, 0.2, 0.4, 0.8, 0.0):
        weights["size"] = size
        yield


@written()
def penalty_grows():
    mu = 1.0

    def f(x):
        violation = np.maximum(0.0, 1.0 - np.sum(x))
        return np.sum(x ** 2) + mu * violation ** 2

    yield f
    while True:
        mu *= 10.0
        yield


@written()
def homotopy_parameter():
    t = 0.0

    def f(x):
        easy, hard = x - 1, np.exp(x) - 2 * x
        return np.sum(((1 - t) * easy + t * hard) ** 2)

    yield f
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield


@written()
def noisy_model_with_key():
    key = 0

    def f(x):
        noise = np.random.default_rng(key).normal(size=3)
        return fnp.sum(x * noise)

    yield f
    for key in (0, 1, 2, 2, 0):
        yield


@written()
def temperature_schedule():
    temperature = 4.0

    def f(x):
        e = np.exp((x - np.max(x)) / temperature)
        return e / np.sum(e)

    yield f
    while True:
        temperature = max(0.5, temperature * 0.5)
        yield
