"""Globals, modules, settings, and names that stand in strings."""

import collections
import contextvars
import operator
import types

import numpy as np
from worlds import written

rate, offsets, count, square = 1.0, np.zeros(3), 0, None


@written()
def global_scale():
    global rate

    def f(x):
        return np.sum(np.exp(-x * rate))

    yield f
    for rate in (1.0, 2.0, 0.5, 0.5, 3.0):
        yield


@written()
def global_array():
    global offsets
    offsets = np.array([0.1, 0.2, 0.3])

    def f(x):
        return np.sum((x - offsets) ** 2)

    yield f
    for k in range(5):
        offsets[k % 3] = k + 1.0
        yield


@written()
def global_array_rebound():
    global offsets

    def f(x):
        return np.sum(np.abs(x - offsets))

    yield f
    for k in range(5):
        offsets = np.full(3, 0.4 * k)
        yield


@written()
def global_function_replaced():
    global square

    def square(x):
        return x * x

    def f(x):
        return np.sum(square(x))

    yield f
    for power in (2, 3, 2, 1, 4):
        def square(x, power=power):
            return x ** power
        yield


@written()
def global_function_deleted():
    global square

    def square(x):
        return x * x

    kept = square

    def f(x):
        return np.sum(square(x))

    yield f
    yield
    del square
    yield
    yield
    square = kept
    yield


@written()
def global_read_by_string():
    global rate

    def f(x):
        return np.sum(x) * globals()["rate"]

    yield f
    for rate in (1.0, 2.0, 5.0, 5.0, 0.5):
        yield


@written()
def global_read_by_getattr():
    settings = types.ModuleType("settings")
    settings.rate = 1.0

    def f(x):
        return np.sum(x) * getattr(settings, "rate")  # noqa: B009

    yield f
    for settings.rate in (1.0, 2.0, 5.0, 5.0, 0.5):
        yield


@written()
def global_read_by_vars():
    settings = types.ModuleType("settings")
    settings.rate = 1.0

    def f(x):
        return np.sum(x) * vars(settings)["rate"]

    yield f
    for settings.rate in (1.0, 2.0, 5.0, 5.0, 0.5):
        yield


@written()
def global_read_by_eval():
    global rate

    def f(x):
        return np.sum(x) * eval("rate * 2")

    yield f
    for rate in (1.0, 2.0, 5.0, 5.0, 0.5):
        yield


@written()
def module_attribute():
    physics = types.ModuleType("physics")
    physics.g = 9.81

    def f(s):
        return 0.5 * physics.g * s ** 2

    yield f
    for physics.g in (9.81, 1.62, 3.7, 9.81, 24.8):
        yield


@written()
def helper_of_helper():
    global rate

    def inner(x):
        return x * rate

    def helper(x):
        return inner(x) + 1

    def f(x):
        return np.sum(helper(x))

    yield f
    for rate in (1.0, 2.0, -2.0, 4.0, 0.5):
        yield


@written()
def helper_writes_global():
    def tick():
        global count
        count += 1
        return count

    def f(x):
        return np.sum(x) + tick()

    yield f, lambda: count


@written()
def config_dict():
    config = {"loss": {"power": 2}, "scale": 1.0}

    def f(x):
        return config["scale"] * np.sum(np.abs(x) ** config["loss"]["power"])

    yield f
    for power in (2, 3, 1, 2, 4):
        config["loss"]["power"] = power
        yield


@written()
def config_namespace():
    config = types.SimpleNamespace(scale=1.0, clip=None)

    def f(x):
        y = x if config.clip is None else np.clip(x, -config.clip, config.clip)
        return np.sum(y * config.scale)

    yield f
    for config.clip in (None, 1.0, 2.0, 0.5, None):
        yield


@written()
def config_get():
    config = {}

    def f(x):
        return np.sum(x) * config.get("rate", 1.0)

    yield f
    for value in (1.0, 2.0, 3.0, 3.0, 0.5):
        config["rate"] = value
        yield


@written()
def config_bound_get():
    config = {"rate": 1.0}
    get = config.get

    def f(x):
        return np.sum(x) * get("rate")

    yield f
    for value in (1.0, 2.0, 3.0, 3.0, 0.5):
        config["rate"] = value
        yield


@written()
def config_proxy():
    hidden = {"rate": 1.0}
    config = types.MappingProxyType(hidden)

    def f(x):
        return np.sum(x) * config["rate"]

    yield f
    for value in (1.0, 2.0, 3.0, 3.0, 0.5):
        hidden["rate"] = value
        yield


@written()
def config_chainmap():
    user, standard = {}, {"rate": 1.0, "shift": 0.0}
    config = collections.ChainMap(user, standard)

    def f(x):
        return np.sum(x) * config["rate"] + config["shift"]

    yield f
    yield
    standard["shift"] = 2.0
    yield
    user["rate"] = 3.0
    yield
    del user["rate"]
    yield


@written()
def numpy_errstate():
    before = np.geterr()

    def f(x):
        return np.sum(x) * (2.0 if np.geterr()["divide"] == "ignore" else 3.0)

    try:
        yield f
        for how in ("ignore", "raise", "warn", "ignore", "warn"):
            np.seterr(divide=how)
            yield
    finally:
        np.seterr(**before)


@written()
def context_variable():
    level = contextvars.ContextVar("level", default=1.0)

    def f(x):
        return np.sum(x ** 2) * level.get()

    yield f
    for value in (1.0, 2.0, 3.0, 3.0, 0.5):
        level.set(value)
        yield


@written()
def attrgetter_of_module():
    settings = types.SimpleNamespace(rate=1.0)
    read = operator.attrgetter("rate")

    def f(x):
        return np.sum(x) * read(settings)

    yield f
    for settings.rate in (1.0, 2.0, 5.0, 5.0, 0.5):
        yield
