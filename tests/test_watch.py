"""What a recording cannot see: every case against the plain Python function."""

import collections
import dataclasses
import functools
import itertools
import operator
import random
import time
import types
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.code.watch import Watch

X = np.array([1.0, 2.0, 4.0])


def same(compiled, plain, *args):
    """Both return the same, of the same kind."""
    got, wanted = compiled(*args), plain(*args)
    np.testing.assert_allclose(got, wanted, rtol=1e-13)
    return got


def silent(f):
    """f, where every warning is an error: it must be replayed."""
    def called(*args):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return f(*args)
    return called


def recorded(program):
    return len(program.paths)


# ---- globals, cells, defaults ---------------------------------------------------------------

factor, other, table = 2.0, 3, {"a": 1.0}
weights = np.ones(3)


def helper(x):
    return x * factor


def test_a_global_that_changes(monkeypatch):
    f = fg.compile(lambda x: x * other)
    for value in (3, 4, 3, -1, 4):
        monkeypatch.setitem(globals(), "other", value)
        assert silent(f)(2.0) == 2.0 * value
    assert recorded(f) == 3         # one for each value, and each kept


def test_a_float_that_changes_becomes_an_input():
    temperature = 1.0

    def plain(x):
        return np.sum(np.exp(-x / temperature))

    f = fg.compile(plain)
    for temperature in (1.0, 2.0, 0.5, 0.25, 7.0, 1.5):
        same(silent(f), plain, X)
    assert recorded(f) == 2


def test_a_global_float_that_changes_becomes_an_input(monkeypatch):
    def plain(x):
        return np.sum(x * factor)

    f = fg.compile(plain)
    for value in (1.0, 2.0, 0.5, 0.25, 7.0):
        monkeypatch.setitem(globals(), "factor", value)
        same(silent(f), plain, X)
    assert recorded(f) == 2


def test_a_float_that_decides_keeps_its_branches():
    threshold = 1.0

    def plain(x):
        return x * 2 if x > threshold else x - 1

    f = fg.compile(plain)
    for threshold in (1.0, 2.0, 3.0, 2.5, 0.0, -0.0, 5.0):
        for x in (-1.0, 0.0, 1.5, 2.2, 4.0):
            same(silent(f), plain, x)
    threshold = 3                           # no float any more
    for x in (2.2, 4.0):
        same(silent(f), plain, x)


def test_a_float_that_python_needs_is_compared():
    count = 2.0

    def plain(x):
        for _ in range(int(count)):
            x = x * x
        return x

    f = fg.compile(plain)
    for count in (2.0, 3.0, 1.0, 2.0):
        same(f, plain, 1.5)


def test_a_float_that_two_functions_read_is_compared(monkeypatch):
    def plain(x):
        return helper(x) + factor

    f = fg.compile(plain)
    for value in (1.0, 2.0, 0.5, 1.0):
        monkeypatch.setitem(globals(), "factor", value)
        same(silent(f), plain, 3.0)
    assert recorded(f) == 3


def test_negative_zero_and_nan_are_values_of_their_own():
    shift = 0.0

    def plain(x):
        return x * np.copysign(1.0, shift)

    f = fg.compile(plain)
    for shift in (0.0, -0.0, float("nan"), 0.0, -0.0):
        same(f, plain, 3.0)


def test_a_helper_that_is_replaced(monkeypatch):
    def plain(x):
        return helper(x) + 1

    f = fg.compile(plain)
    assert f(3.0) == 7.0
    monkeypatch.setitem(globals(), "helper", lambda x: x * 10)
    assert silent(f)(3.0) == 31.0
    monkeypatch.undo()
    assert silent(f)(3.0) == 7.0


def test_a_helper_whose_code_is_replaced():
    def inner(x):
        return x + 1

    f = fg.compile(lambda x: inner(x) * 2)
    assert f(1.0) == 4.0
    inner.__code__ = (lambda x: x + 5).__code__
    assert f(1.0) == 12.0
    inner.__defaults__ = ()
    assert f(1.0) == 12.0


def test_a_helper_of_a_helper(monkeypatch):
    def middle(x):
        return helper(x)

    f = fg.compile(lambda x: middle(x))
    assert f(1.0) == 2.0
    monkeypatch.setitem(globals(), "factor", 5.0)
    assert f(1.0) == 5.0


def test_defaults_and_keyword_defaults_that_change():
    def plain(x, y=[1.0], *, z={"k": 2.0}):
        return x * y[0] + z["k"]

    f = fg.compile(plain)
    same(silent(f), plain, 2.0)
    plain.__defaults__[0][0] = 3.0
    same(silent(f), plain, 2.0)
    plain.__kwdefaults__["z"]["k"] = 5.0
    assert same(silent(f), plain, 2.0) == 11.0


def test_containers_that_change():
    items, kinds, queue = [1.0, [2.0]], {"a"}, collections.deque([1.0])

    def plain(x):
        total = x * items[0] + items[1][0] + queue[0]
        return total * (2 if "b" in kinds else 1)

    f = fg.compile(plain)
    same(silent(f), plain, 2.0)
    for change in (lambda: items[1].__setitem__(0, 7.0), lambda: items.append(1),
                   lambda: kinds.add("b"), lambda: queue.__setitem__(0, -1.0),
                   lambda: items.__setitem__(1, [7.0])):
        change()
        same(silent(f), plain, 2.0)


def test_an_equal_container_is_no_change():
    settings = {"scale": 2.0, "names": ("a", "b")}
    f = fg.compile(lambda x: x * settings["scale"])
    f(1.0)
    settings = {"scale": 2.0, "names": ("a", "b")}
    assert silent(f)(3.0) == 6.0 and recorded(f) == 1


def test_a_dictionary_that_grows():
    def plain(x):
        return sum([x * v for v in table.values()])

    f = fg.compile(plain)
    same(silent(f), plain, 2.0)
    table["b"] = 5.0
    try:
        same(silent(f), plain, 2.0)
    finally:
        del table["b"]
    same(silent(f), plain, 2.0)


def test_a_name_that_hides_a_builtin(monkeypatch):
    f = fg.compile(lambda x: abs(x))
    assert f(-2.0) == 2.0
    monkeypatch.setitem(globals(), "abs", lambda x: x * 100)
    assert f(-2.0) == -200.0


def test_a_module_of_the_users():
    config = types.ModuleType("my_config")
    config.__file__ = "my_config.py"
    config.rate, config.unused = 2, 0
    f = fg.compile(lambda x: x * config.rate)
    assert f(1.0) == 2.0
    config.rate = 5
    assert silent(f)(1.0) == 5.0
    config.unused = 1
    f(1.0)
    assert recorded(f) == 2


# ---- arrays ---------------------------------------------------------------------------------

def test_data_changed_in_place():
    data = np.array([1.0, 2.0, 3.0])

    def plain(x):
        return np.sum(x * data)

    f = fg.compile(plain)
    for k in range(5):
        data[:] = k
        same(silent(f), plain, X)
    assert recorded(f) == 1


def test_data_bound_anew(monkeypatch):
    def plain(x):
        return np.sum(x * weights)

    f = fg.compile(plain)
    for k in range(5):
        monkeypatch.setitem(globals(), "weights", np.full(3, float(k)))
        same(silent(f), plain, X)
    assert recorded(f) == 1
    monkeypatch.setitem(globals(), "weights", np.ones((2, 3)))
    same(silent(f), plain, X)
    monkeypatch.setitem(globals(), "weights", np.ones(3, np.float32))
    same(silent(f), plain, X.astype(np.float32))


def test_data_that_plain_numpy_looks_at():
    data = np.array([1.0, 2.0, 3.0])

    def plain(x):
        return (x - data.mean()) / np.std(data)

    f = fg.compile(plain)
    for k in range(4):
        data[:] = np.arange(3.0) * (k + 1)
        same(silent(f), plain, 2.0)


def test_data_that_is_used_directly_and_looked_at():
    data = np.array([1.0, 2.0, 3.0])

    def plain(x):
        return np.sum(x * data) * float(data.max()) * (1 if data[0] > 0 else -1)

    f = fg.compile(plain)
    for k in range(4):
        data[:] = np.arange(3.0) - k
        same(f, plain, X)


def test_data_that_decides():
    data = np.array([1.0, 2.0, 3.0])

    def entry(x):
        return np.sum(x * data) * (1 if data[0] > 0 else -1)

    def loop(x):
        total = 0.0
        for v in data:
            total += float(v)
        return np.sum(x * data) * total

    def piece(x):
        return np.sum(x * data) * (1 if data[1:].any() else -1)

    for plain in (entry, loop, piece):
        f = fg.compile(plain)
        for k in range(5):
            data[:] = [k - 2.0, 0.0, 0.0]
            same(silent(f), plain, X)


def test_a_local_name_of_data_that_is_indexed():
    class Model:
        def __init__(self):
            self.data = np.array([1.0, 2.0, 4.0])

        def loss(self, x):
            data, y = self.data, x
            data = data
            return np.sum(y * data) * (1.0 if data[0] > 2 else -1.0)

    model = Model()
    f = fg.compile(model.loss)
    for value in (1.0, 3.0, 2.0, 5.0):
        model.data[0] = value
        same(silent(f), model.loss, X)


def test_data_used_by_two_names():
    first = second = np.array([1.0, 2.0, 3.0])

    def plain(x):
        return np.sum(x * first * second)

    f = fg.compile(plain)
    same(silent(f), plain, X)
    second = np.array([3.0, 2.0, 1.0])
    same(silent(f), plain, X)
    first = second
    same(silent(f), plain, X)


def test_a_parameter_that_needs_no_gradient():
    w = fg.tensor([1.0, 2.0, 3.0])

    def plain(x):
        return fnp.sum(x * w)

    f = fg.compile(fg.grad(plain))
    for k in range(3):
        w[...] = np.arange(3.0) + k
        np.testing.assert_array_equal(silent(f)(X), np.arange(3.0) + k)
    assert recorded(f) == 1


def test_a_parameter_that_needs_a_gradient_keeps_its_history():
    w = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    f = fg.compile(lambda x: fnp.sum(x * w))
    with pytest.warns(UserWarning, match="requires a gradient"):
        loss = f(X)
    loss.backward()
    np.testing.assert_array_equal(w.grad.numpy(), X)


def test_an_array_made_inside_is_never_of_before():
    scale = [1.0]

    def plain(x):
        return np.sum(x * np.full(3, scale[0]))

    f = fg.compile(plain)
    for k in range(4):
        scale[0] = float(k)
        for _ in range(2):
            same(silent(f), plain, X)
    assert [path.calls for path in f.paths] == [2, 2, 2, 2]


def test_an_array_that_is_vouched_for():
    grid = fg.constant(np.linspace(0.0, 1.0, 3))
    f = fg.compile(lambda x: np.sum(x * grid) + np.sum(x * fg.constant(np.arange(3.0))))
    same(silent(f), f.function, X)
    same(silent(f), f.function, X)
    assert recorded(f) == 1
    assert fg.constant(2.0) == 2.0
    with pytest.raises(TypeError, match="an array or a number"):
        fg.constant([1.0])


# ---- instances ------------------------------------------------------------------------------

class Model:
    scale = 1.0

    def __init__(self):
        self.weights = np.ones(3)
        self.rate, self.history, self.unrelated = 2.0, [], 0

    def score(self, x):
        return np.sum(x * self.weights) * self.rate * self.scale

    @fg.compile
    def compiled(self, x):
        return self.score(x)


def test_attributes_of_self():
    model = Model()

    def check():
        silent(model.compiled)
        assert silent(model.compiled)(X) == model.score(X)

    check()
    model.weights = np.array([1.0, 0.0, 2.0])
    check()
    model.weights[0] = 9.0
    check()
    paths = recorded(Model.compiled)
    model.unrelated = 5
    model.history.append(1.0)
    check()
    assert recorded(Model.compiled) == paths
    model.rate = 3.0
    check()
    model.scale = 4.0
    check()
    del model.scale
    check()
    Model.scale = 5.0
    try:
        check()
    finally:
        Model.scale = 1.0
    check()
    model.new = 1
    check()


def test_two_instances():
    one, two = Model(), Model()
    two.rate = 7.0
    for model in (one, two, one, two):
        assert silent(model.compiled)(X) == model.score(X)


def test_a_method_that_is_replaced(monkeypatch):
    model = Model()
    model.compiled(X)
    monkeypatch.setattr(Model, "score", lambda self, x: np.sum(x))
    assert model.compiled(X) == np.sum(X)
    monkeypatch.undo()
    assert model.compiled(X) == model.score(X)


def test_a_bound_method():
    model = Model()
    f = fg.compile(model.score)
    for model.rate in (1.0, 2.0, 3.0):
        same(silent(f), model.score, X)
    g = fg.compile(fg.grad(model.score))
    np.testing.assert_array_equal(g(X), model.rate * model.weights)
    model.weights = X
    np.testing.assert_array_equal(g(X), model.rate * X)


def test_objects_in_objects():
    class Layer:
        __slots__ = ("gain", "bias")

        def __init__(self, gain):
            self.gain, self.bias = gain, None

        def __call__(self, x):
            return x * self.gain

    class Net:
        def __init__(self):
            self.layers = [Layer(2.0), Layer(3.0)]

        @property
        def depth(self):
            return len(self.layers)

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return x * self.depth

    net = Net()
    f = fg.compile(net)
    for change in (lambda: None, lambda: setattr(net.layers[1], "gain", 5.0),
                   lambda: net.layers.append(Layer(7.0)), lambda: net.layers.pop(0)):
        change()
        same(silent(f), net, 2.0)


@dataclasses.dataclass
class Settings:
    rate: float
    name: str = "a"


def test_a_dataclass_in_a_closure():
    settings = Settings(2.0)
    f = fg.compile(lambda x: x * settings.rate if settings.name == "a" else x)
    assert f(3.0) == 6.0
    settings.rate = 5.0
    assert f(3.0) == 15.0
    settings.name = "b"
    assert f(3.0) == 3.0


@dataclasses.dataclass
class Fields:
    w: object
    rate: float = 0.5


def test_the_equality_of_a_dataclass_counts_where_it_is_asked_for():
    one, other = Fields(np.ones(2)), Fields(np.ones(2))
    compiled = fg.compile(lambda x: np.sum(x * one.w) * one.rate)
    for value in (1.0, 2.0, 3.0):
        one.w[0] = value
        assert compiled(np.ones(2)) == (value + 1.0) * 0.5
    assert [path.calls for path in compiled.paths] == [3]       # read again, and not compared
    one, other = Fields(1), Fields(1)
    for f in (lambda x: x * (2.0 if one == other else 3.0), lambda x: x * (2.0 if one in [other] else 3.0),
              lambda x: x * (2.0 if [other].count(one) else 3.0),
              lambda x: x * (2.0 if operator.eq(one, other) else 3.0)):
        compiled = fg.compile(f)
        for one.w, other.rate in ((1, 0.5), (2, 0.5), (1, 0.5), (1, 0.25)):
            assert compiled(1.0) == f(1.0)
            assert compiled(1.0) == f(1.0)


def test_an_argument_that_is_an_object():
    def plain(model, x):
        return model.score(x)

    f, model = fg.compile(plain), Model()
    for model.rate in (1.0, 2.0, 1.0):
        same(silent(f), plain, model, X)
    same(silent(f), plain, Model(), X)


def test_a_function_as_an_argument():
    scale = 2
    f = fg.compile(lambda g, x: g(x) + 1)
    inner = (lambda x: x * scale)
    assert f(inner, 3.0) == 7.0
    scale = 5
    assert f(inner, 3.0) == 16.0
    assert f(np.sin, 0.0) == 1.0


def test_attributes_read_by_name_at_run_time():
    model = Model()
    f = fg.compile(lambda x: x * getattr(model, "ra" + "te"))
    for model.rate in (2.0, 3.0):
        assert f(1.0) == model.rate


def test_a_float_attribute_that_changes_becomes_an_input():
    class Annealed:
        def __init__(self):
            self.temperature, self.weights = 1.0, np.ones(3)

        def weigh(self, x):
            return x * self.weights if self.temperature > 0.3 else self.weights - x

        def loss(self, x):
            return np.sum(np.exp(-self.weigh(x) / self.temperature))

        @fg.compile
        def compiled(self, x):
            return self.loss(x)

    model = Annealed()
    bound, gradient = fg.compile(model.loss), fg.compile(fg.grad(model.loss))
    for k in range(10):
        same(silent(model.compiled), model.loss, X)
        same(silent(bound), model.loss, X)
        np.testing.assert_allclose(silent(gradient)(X), fg.grad(model.loss)(X), rtol=1e-12)
        model.temperature *= 0.8
        model.weights = model.weights + 1
    assert recorded(bound) == 3             # as a number; as an input, on either side of 0.3
    model.temperature = 2
    same(silent(bound), model.loss, X)


def test_a_float_attribute_of_an_object_met_twice_is_compared():
    class Node:
        def __init__(self):
            self.rate, self.me = 1.0, self

        def run(self, x):
            return x * self.rate + self.me.rate

    node = Node()
    f = fg.compile(node.run)
    for node.rate in (1.0, 2.0, 3.0):
        same(silent(f), node.run, 5.0)


# ---- state that moves on --------------------------------------------------------------------

def unreplayed(f, plain, calls=4, match=None, times=1):
    """f warns once, and does what the plain function does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = [f(2.0) for _ in range(calls)]
    assert len(caught) == times, [str(w.message) for w in caught]
    if match is not None:
        assert match in str(caught[0].message)
    assert caught[0].filename == __file__
    assert got == [plain(2.0) for _ in range(calls)]


def test_mini_batches_drawn_inside():
    data = np.arange(100.0)

    def make():
        rng = np.random.default_rng(0)

        def loss(x):
            batch = data[rng.integers(0, 100, 10)]
            return np.sum((x - batch) ** 2)
        return loss

    unreplayed(fg.compile(make()), make(), match="test_watch.py")


@pytest.mark.parametrize("kind", ["generator", "RandomState", "np.random", "random", "Random"])
def test_random_numbers(kind):
    def make():
        np.random.seed(3)
        random.seed(3)
        if kind == "generator":
            rng = np.random.default_rng(3)
            return lambda x: x * rng.normal()
        if kind == "RandomState":
            rng = np.random.RandomState(3)
            return lambda x: x * rng.normal()
        if kind == "np.random":
            return lambda x: x * np.random.normal()
        if kind == "random":
            return lambda x: x * random.random()
        rng = random.Random(3)
        return lambda x: x * rng.random()

    f = fg.compile(make())
    with pytest.warns(UserWarning, match="draws random numbers"):
        got = [f(2.0) for _ in range(4)]
    plain = make()
    assert got == [plain(2.0) for _ in range(4)]


def test_a_generator_that_is_not_drawn_from_is_no_matter():
    rng = np.random.default_rng(0)
    f = fg.compile(lambda x, noisy=False: x * (rng.normal() if noisy else 2.0))
    assert silent(f)(2.0) == 4.0
    rng.normal()
    assert silent(f)(2.0) == 4.0 and recorded(f) == 1


def test_a_generator_made_inside():
    f = fg.compile(lambda x: x * np.random.default_rng().normal())
    with pytest.warns(UserWarning, match="np.random.default_rng.*test_watch.py"):
        assert f(1.0) != f(1.0)


def test_time():
    f = fg.compile(lambda x: x * time.perf_counter())
    with pytest.warns(UserWarning, match="time.perf_counter"):
        assert f(1.0) < f(1.0)


def test_a_step_counter():
    def make():
        steps = 0

        def f(x):
            nonlocal steps
            steps += 1
            return x / steps
        return f

    unreplayed(fg.compile(make()), make(), match="`steps`")


def test_a_step_counter_in_an_attribute():
    class Counter:
        def __init__(self):
            self.step = 0

        def run(self, x):
            self.step += 1
            return x / self.step

    unreplayed(fg.compile(Counter().run), Counter().run, match="`step`")


def test_a_step_counter_in_an_array():
    def make():
        steps = np.zeros(1, int)

        def f(x):
            steps[0] += 1
            return x / float(steps[0])
        return f

    unreplayed(fg.compile(make()), make())


def test_a_step_counter_outside():
    step = 0
    f = fg.compile(lambda x: x * 0.9 ** step)
    for step in range(8):
        assert f(1.0) == 0.9 ** step


def test_a_loss_that_is_logged():
    def make():
        losses = []

        def f(x):
            loss = x * x
            losses.append(loss.item() if hasattr(loss, "item") else loss)
            return loss * len(losses)
        return f

    unreplayed(fg.compile(make()), make(), match="test_watch.py")


def test_a_value_that_is_computed_once():
    class Lazy:
        cache = None

        def run(self, x):
            if self.cache is None:
                self.cache = 5.0
            return x * self.cache

    unreplayed(fg.compile(Lazy().run), Lazy().run, match="`cache`")


def test_an_iterator():
    def make():
        count = itertools.count(1)
        return lambda x: x * next(count)

    unreplayed(fg.compile(make()), make(), match="`count`")


def test_a_tensor_kept_in_a_global():
    kept = []

    def make():
        def f(x):
            y = x * x
            if kept:
                kept.pop()
            kept.append(y)
            return y + 1
        return f

    f = fg.compile(make())
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert [f(x) for x in (1.0, 2.0, 3.0, 4.0)] == [2.0, 5.0, 10.0, 17.0]


def test_a_tensor_of_another_call():
    last = []

    def plain(x):
        y = last[0] if last else x
        last[:] = [x * 2]
        return y * 1

    f = fg.compile(plain)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        got = [f(x) for x in (1.0, 2.0, 3.0, 4.0)]
    last.clear()
    # What the recorded run has kept is a Tensor, so what is computed with it is one as well.
    assert [y.item() if fg.is_tensor(y) else y for y in got] == [
        plain(x) for x in (1.0, 2.0, 3.0, 4.0)]


def test_more_than_can_be_compared():
    many = [float(k) for k in range(30_000)]
    f = fg.compile(lambda x: x * many[7])
    with pytest.warns(UserWarning, match="more than 20,000 objects"):
        assert f(2.0) == 14.0
    many[7] = 1.0
    assert f(2.0) == 2.0


# ---- what is made of functions --------------------------------------------------------------

def test_partial_wraps_and_caches():
    scale = 2

    def plain(a, x):
        return a * x * scale

    @functools.wraps(plain)
    def wrapped(x):
        return plain(3.0, x)

    @functools.lru_cache
    def cached(n):
        return n * scale

    for f, expected in ((fg.compile(functools.partial(plain, 3.0)), lambda x: 3 * x * scale),
                        (fg.compile(wrapped), lambda x: 3 * x * scale),
                        (fg.compile(fg.no_grad()(wrapped)), lambda x: 3 * x * scale)):
        for scale in (2, 5, 2):
            assert f(1.5) == expected(1.5)
    scale = 2
    g = fg.compile(lambda x: x * cached(3))
    with pytest.warns(UserWarning, match="`cached` keeps results"):
        assert g(1.0) == 6.0
    scale = 5
    assert g(1.0) == 6.0                    # as the plain function, which has kept it
    cached.cache_clear()
    assert g(1.0) == 15.0

    @functools.lru_cache
    def doubled(n):
        return np.sqrt(n) * 2

    h = fg.compile(lambda x: x * float(doubled(4.0)))
    assert [silent(h)(1.0), silent(h)(2.0)] == [4.0, 8.0] and recorded(h) == 1


def test_functions_with_rules():
    slope = 2.0

    @fg.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (2 * x, None), lambda _, g: (slope * g,))
    f = fg.compile(fg.grad(lambda x: twice(x) * 1.0))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for slope in (2.0, 5.0):
            assert f(1.0) == slope


def test_a_program_in_a_program():
    scale = 2
    inner = fg.compile(lambda x: x * scale)
    f = fg.compile(lambda x: inner(x) + 1)
    for scale in (2, 5, 2):
        assert silent(f)(3.0) == 3.0 * scale + 1


def test_plain_functions_cost_few_comparisons():
    def f(x):
        return np.sin(x) * fnp.exp(x) + np.cos(x)

    # The function itself, and two modules.
    assert len(Watch([f]).entries) == 3


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_a_numpy_scalar_that_changes(kind):
    factor = kind(2)

    def f(x):
        return x * factor

    compiled = fg.compile(f)
    assert [compiled(3.0), compiled(3.0)] == [6.0, 6.0]
    factor = kind(5)
    assert [compiled(3.0), compiled(3.0)] == [15.0, 15.0]


class _NoModule(type):
    """As Cython's metaclasses are."""


_NoModule.__module__ = property(lambda kind: "elsewhere")


class _Series(metaclass=_NoModule):
    factor = 3.0

    def scaled(self, x):
        return x * self.factor


def test_classes_whose_module_has_no_name(monkeypatch):
    series = _Series()
    f = fg.compile(lambda x: series.scaled(x))
    assert f(2.0) == 6.0
    monkeypatch.setattr(_Series, "factor", 4.0)
    assert f(2.0) == 8.0
