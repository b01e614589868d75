"""Functions that remember what they have computed."""

import collections
import functools
import weakref

import numpy as np
from worlds import written

rate = 2.0


@written()
def memo_dict():
    known = {}

    def f(x):
        key = np.asarray(x).tobytes()
        if key not in known:
            known[key] = np.sum(x ** 2)
        return known[key]

    yield f, known


@written()
def memo_cleared():
    cache = {}

    def f(x):
        if "basis" not in cache:
            cache["basis"] = np.arange(1.0, 4.0) * len(log)
            log.append("made")
        return np.sum(cache["basis"] * x)

    log = ["start"]
    yield f, (cache, log)
    yield
    cache.clear()
    yield
    yield
    cache.clear()
    yield


@written()
def memo_last_point():
    class Memo:
        x, value, misses = None, None, 0

        def fun(self, x):
            if self.x is None or not np.array_equal(x, self.x):
                self.x, self.value = np.copy(x), np.sum(np.sin(x))
                self.misses += 1
            return self.value

    memo = Memo()
    yield memo.fun, memo


@written()
def lru_helper():
    @functools.lru_cache
    def nodes(n):
        made.append(n)
        return np.linspace(0.0, 1.0, n)

    def f(x, n):
        return np.sum(x) * np.sum(nodes(n + 1))

    made = []
    yield f, made


@written()
def lru_cleared():
    global rate

    @functools.lru_cache
    def scale():
        return rate * 2

    def f(x):
        return np.sum(x) * scale()

    yield f
    rate = 3.0
    yield
    scale.cache_clear()
    yield
    rate = 5.0
    yield
    scale.cache_clear()
    yield


@written()
def cached_property_once():
    class Mesh:
        def __init__(self, n):
            self.n = n

        @functools.cached_property
        def weights(self):
            return np.full(3, 1.0 / self.n)

    mesh = Mesh(4)

    def f(x):
        return np.sum(mesh.weights * x)

    yield f, mesh
    yield
    mesh.n = 8
    yield
    del mesh.weights
    yield


@written()
def cached_matrix():
    class Solver:
        def __init__(self):
            self.matrix, self.inverse = np.eye(3) * 2, None

        def __call__(self, x):
            if self.inverse is None:
                self.inverse = np.linalg.inv(self.matrix)
            return self.inverse @ x

    solver = Solver()
    yield solver, solver
    yield
    solver.matrix, solver.inverse = np.eye(3) * 4, None
    yield


@written()
def cached_grid():
    grids = {}

    def f(s, n):
        if n not in grids:
            grids[n] = np.linspace(0.0, 1.0, n + 2)
        return np.mean(np.exp(-s * grids[n]))

    yield f, grids


@written()
def cache_of_weakrefs():
    class Grid:
        def __init__(self, scale):
            self.scale = scale

    known = weakref.WeakValueDictionary()
    kept = known["a"] = Grid(1.0)

    def f(x):
        return np.sum(x) * (known["a"].scale if "a" in known else 10.0)

    yield f
    yield
    kept.scale = 2.0
    yield
    del kept
    yield


@written()
def singledispatch_registered():
    @functools.singledispatch
    def scaled(value, x):
        return x

    @scaled.register
    def _(value: int, x):
        return x * 2

    level = 3

    def f(x):
        return np.sum(scaled(level, x))

    yield f
    yield
    scaled.register(int, lambda value, x: x * 7)
    yield
    scaled.register(bool, lambda value, x: x * 9)
    level = True
    yield


@written()
def function_attribute():
    def f(x):
        f.n += 1
        return np.sum(x) * f.n

    f.n = 0
    yield f, lambda: f.n


@written()
def function_attribute_read():
    def helper(x):
        return x * helper.scale

    helper.scale = 1.0

    def f(x):
        return np.sum(helper(x))

    yield f
    for helper.scale in (1.0, 2.0, 3.0, 3.0, 0.5):
        yield


@written()
def registry_decorator():
    registry = {}

    def register(function):
        registry[function.__name__] = function
        return function

    @register
    def square(x):
        return x * x

    @register
    def cube(x):
        return x ** 3

    def f(x):
        return np.sum(sum(function(x) for function in registry.values()))

    yield f
    yield

    @register
    def double(x):
        return 2 * x

    yield
    registry.pop("cube")
    yield


@written()
def try_cache():
    cache, computed = {}, []

    def weights(n):
        try:
            return cache[n]
        except KeyError:
            computed.append(n)
            cache[n] = np.arange(3.0) + n
            return cache[n]

    def f(x, n):
        return np.sum(weights(n) * x)

    yield f, (cache, computed)


@written()
def bounded_cache():
    cache = collections.OrderedDict()

    def f(x, n):
        if n in cache:
            cache.move_to_end(n)
        else:
            cache[n] = float(n) ** 2
            if len(cache) > 2:
                cache.popitem(last=False)
        return np.sum(x) * cache[n]

    yield f, cache


@written()
def interpolation_table():
    class Table:
        def __init__(self, function):
            self.function, self.values = function, None

        def __call__(self, s):
            if self.values is None:
                self.values = self.function(np.linspace(-2.0, 3.0, 6))
            k = int(np.floor(s)) + 2
            t = s - np.floor(s)
            return (1 - t) * self.values[k] + t * self.values[k + 1]

    table = Table(np.exp)
    yield table, table
    yield
    table.values = None
    table.function = np.square
    yield


@written()
def jacobian_reuse():
    class Newton:
        age, slope = 0, None

        def step(self, s):
            if self.slope is None or self.age >= 3:
                self.slope, self.age = 2 * s + 1.5, 0
            self.age += 1
            return s - (s * s + s - 1) / self.slope

    newton = Newton()
    yield newton.step, newton
