"""What a compiled function stores: found in its code, before anything is recorded, or afterwards.

Each case is run beside the plain function, with state of its own: results, arguments and state must
agree after every call.
"""

import bisect
import collections
import functools
import heapq
import itertools
import operator
import types

import numpy as np
import pytest
from sides import Particle, recorded, side_by_side

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.code import effects as _effects
from fastgrad.code.effects import effects

pytestmark = pytest.mark.filterwarnings("ignore:compile")

X, Y = np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])


# ---- stores that can be read in the code ----------------------------------------------------

class Model:
    slope = 1.0
    __slots__ = ("__dict__", "slot")

    def __init__(self):
        self.m, self.slot, self.seen = 0.0, 0.0, []
        self.params = [np.zeros(2), np.ones(2)]
        self.inner = types.SimpleNamespace(total=0.0, hist=[])

    def average(self, x):
        self.m = 0.9 * self.m + x
        return self.m

    def slotted(self, x):
        self.slot += x
        return self.slot

    def of_the_class(self, x):
        type(self).slope = Model.slope + 1.0
        return self.slope * x

    def of_another(self, x):
        self.inner.total += x
        self.inner.hist.append(x)
        return self.inner.total

    def by_another_method(self, x):
        return self.average(x) * 2

    def descend(self, x):
        for p in self.params:
            p -= 0.1 * x
        return sum(float(np.sum(p)) for p in self.params) + x

    def descend_with(self, x):
        for p, rate in zip(self.params, (0.1, 0.2)):
            p -= rate * x
        return x * 2

    @property
    def mean(self):
        return self.m

    @mean.setter
    def mean(self, value):
        self.m = value

    def by_property(self, x):
        self.set_mean(x)
        return self.mean * 2

    def set_mean(self, x):
        self.mean = x

    def deletes(self, x):
        self.extra = x
        del self.extra
        return x * 2

    def __call__(self, x):
        self.seen.append(x * x)
        return x * len(self.seen)


METHODS = ["average", "slotted", "of_another", "by_another_method", "descend", "descend_with",
           "by_property", "deletes", "__call__"]


@pytest.mark.parametrize("name", METHODS)
def test_attributes(name):
    def make():
        model = Model()
        return getattr(model, name), lambda: (vars(model), model.slot)

    f = side_by_side(make)
    assert recorded(f) == 0         # found before anything was recorded
    assert "it changes `" in effects(make()[0], (2.0,)).reason


def test_an_attribute_of_the_class():
    def make():
        Model.slope = 1.0
        return Model().of_the_class, lambda: 0

    compiled, _ = make()
    f = fg.compile(compiled)
    assert [f(1.0), f(1.0)] == [2.0, 3.0] and recorded(f) == 0
    Model.slope = 1.0


def list_append(box):
    def f(x):
        box["list"].append(x * x)
        return x + len(box["list"])
    return f


def local_name(box):
    def f(x):
        hist = box["list"]
        hist.append(x)
        return x
    return f


def item(box):
    def f(x):
        box["n"] = box["n"] + x
        return box["n"]
    return f


def item_in_place(box):
    def f(x):
        box["array"] += x
        return np.sum(box["array"])
    return f


def slice_in_place(box):
    def f(x):
        box["array"][1:] += x
        return np.sum(box["array"])
    return f


def buffer(box):
    buf = box["array"]

    def f(x):
        nonlocal buf
        buf += x
        return np.sum(buf)
    return f


def buffer_by_another_name(box):
    buf = box["array"]

    def f(x):
        b = buf
        b += x
        return np.sum(b)
    return f


def a_view(box):
    buf = box["array"]

    def f(x):
        np.reshape(buf, (3, 1))[0] = x
        return x + buf[0]
    return f


def counter(box):
    n = 0

    def f(x):
        nonlocal n
        n += 1
        box["n"] = n
        return x * n
    return f


def in_a_helper(box):
    def note(where, value):
        where.append(value)

    def f(x):
        note(box["list"], x * 2)
        return x
    return f


def in_a_nested_function(box):
    def f(x):
        def inner(y):
            box["list"].append(y)
            return y * 2
        return inner(x)
    return f


def in_a_comprehension(box):
    def f(x):
        return [box["list"].append(x * k) or x * k for k in range(3)][2]
    return f


def handed_to_map(box):
    def f(x):
        list(map(box["list"].append, [x, x * 2]))
        return x
    return f


def a_bound_method(box):
    note = box["list"].append

    def f(x):
        note(x)
        return x
    return f


def a_partial(box):
    def note(where, x):
        where.append(x)
        return x * 2
    return functools.partial(note, box["list"])


def a_mutable_default(box):
    def f(x, seen=box["list"]):
        seen.append(x)
        return x * len(seen)
    return f


def a_function_attribute(box):
    def tick(x):
        tick.n += 1
        box["n"] = tick.n
        return x * tick.n
    tick.n = 0
    return tick


def a_callback(box):
    def bump():
        box["n"] += 1

    def f(x, call=bump):
        call()
        return x * box["n"]
    return f


def in_a_step(box):
    def step(carry, x):
        box["list"].append(carry)
        return carry + x, carry

    def f(x):
        return fg.scan(step, x, np.ones(3))[0]
    return f


def in_a_loop(box):
    def body(k, y):
        box["n"] += 1
        return y * 2.0
    return lambda x: fg.fori_loop(0, 3, body, x)


def in_a_gradient(box):
    def inner(y):
        box["n"] += 1
        return y * y
    return lambda x: fg.grad(inner)(x) * 1.0


def by_function(change):
    """f that changes something through a function of C."""
    def make(box):
        def f(x):
            change(box, x)
            return x * 2
        return f
    return make


STORES = {function.__name__: function for function in (
    list_append, local_name, item, item_in_place, slice_in_place, buffer, buffer_by_another_name,
    a_view, counter, in_a_helper, in_a_nested_function, in_a_comprehension, handed_to_map,
    a_bound_method, a_partial, a_mutable_default, a_function_attribute, a_callback, in_a_step,
    in_a_loop)}
STORES |= {name: by_function(change) for name, change in {
    "update": lambda box, x: box.update(n=x),
    "setdefault": lambda box, x: box.setdefault(len(box), x),
    "set.add": lambda box, x: box["set"].add(float(x)),
    "deque": lambda box, x: box["deque"].appendleft(x),
    "extend": lambda box, x: box["list"].extend([x, x]),
    "slice": lambda box, x: operator.setitem(box["list"], slice(0, 0), [x]),
    "+=": lambda box, x: operator.iadd(box["list"], [x]),
    "unbound": lambda box, x: list.append(box["list"], x),
    "heappush": lambda box, x: heapq.heappush(box["list"], float(x)),
    "insort": lambda box, x: bisect.insort(box["list"], float(x)),
    "fill": lambda box, x: box["array"].fill(x),
    "copyto": lambda box, x: np.copyto(box["array"], x),
    "put": lambda box, x: np.put(box["array"], [0, 2], x),
    "out=": lambda box, x: np.add(box["array"], x, out=box["array"]),
    "add.at": lambda box, x: np.add.at(box["array"], [0, 0], x),
    "setattr": lambda box, x: setattr(box["space"], "value", x),
    "vars": lambda box, x: vars(box["space"]).update(value=x),
    "__dict__": lambda box, x: box["space"].__dict__.__setitem__("value", x),
    "object.__setattr__": lambda box, x: object.__setattr__(box["space"], "value", x),
    "sort": lambda box, x: box["array"][::-1].sort(),
}.items()}


def boxed(function):
    def make():
        box = {"list": [], "n": 0, "array": np.arange(3.0), "set": set(), "deque":
               collections.deque(), "space": types.SimpleNamespace(value=0.0)}
        return function(box), lambda: box
    return make


@pytest.mark.parametrize("name", STORES)
def test_stores(name):
    f = side_by_side(boxed(STORES[name]))
    assert recorded(f) == 0
    f, _ = boxed(STORES[name])()
    assert "it changes `" in effects(f, (2.0,)).reason


@pytest.mark.parametrize("name", ["list_append", "counter", "in_a_helper", "+=", "a_callback"])
@pytest.mark.parametrize("transform", [fg.grad, lambda f: fg.vmap(f), fg.value_and_grad],
                         ids=["grad", "vmap", "value_and_grad"])
def test_stores_under_a_transformation_happen_at_each_call(name, transform):
    """What is stored there is the user's, a Tensor with its history: here its number counts."""
    args = [2.0, 3.0, 4.0]
    if transform not in (fg.grad, fg.value_and_grad):
        args = [np.array([2.0, 3.0])] * 3
    for make in (lambda f: transform(fg.compile(f)), lambda f: fg.compile(transform(f))):
        f, state = boxed(STORES[name])()
        plain, plain_state = boxed(STORES[name])()
        f, plain = make(f), transform(plain)
        for x in args:
            np.testing.assert_allclose(np.array(f(x), float), np.array(plain(x), float))
            assert len(state()["list"]) == len(plain_state()["list"])
            assert float(np.sum(state()["n"])) == float(np.sum(plain_state()["n"]))


class Counting:
    """An object of which much that Python does is counted."""

    def __init__(self):
        self.n = 0

    def count(self, result):
        self.n += 1
        return result

    def __len__(self):
        return self.count(self.n)

    def __contains__(self, x):
        return self.count(True)

    def __iter__(self):
        return self.count(iter([1, 2]))

    def __bool__(self):
        return self.count(True)

    def __enter__(self):
        return self.count(self)

    def __exit__(self, *error):
        return self.count(None)

    def __eq__(self, other):
        return self.count(True)

    def __neg__(self):
        return self.count(2)

    def __mul__(self, other):
        return self.count(other)

    def __radd__(self, other):
        return self.count(other)

    def __getitem__(self, key):
        return self.count(self.n)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.count(self.n)

    def __format__(self, spec):
        return self.count("text")


def in_a_with(s, x):
    with s:
        return x * s.n


COUNTED = {
    "len": lambda s, x: x * len(s), "in": lambda s, x: x * (1 in s), "for": lambda s, x: x * sum(s),
    "bool": lambda s, x: x if s else -x, "==": lambda s, x: x * (s == 1), "-": lambda s, x: x * -s,
    "*": lambda s, x: (s * x) * 2, "+": lambda s, x: x * 2 + s, "[]": lambda s, x: x * s[0],
    "attribute": lambda s, x: x * s.other, "format": lambda s, x: x * len(f"{s}"),
    "*args": lambda s, x: x * len([*s]), "with": in_a_with,
    "unpacking": lambda s, x: (lambda a, b: x * b)(*s), "list": lambda s, x: x * list(s)[1],
}


@pytest.mark.parametrize("name", COUNTED)
def test_methods_that_operators_call(name):
    def make():
        s = Counting()
        return lambda x: COUNTED[name](s, x), lambda: s.n

    side_by_side(make)
    side_by_side(make, (X,), (Y,), (X * 2,), transform=fg.vmap)


# ---- what is made inside is f's own -----------------------------------------------------------

def own_list(x):
    hist = []
    for k in range(3):
        hist.append(x * k)
    hist[0] = x
    hist += [x]
    return sum(hist)


def own_dict(x):
    box = {"a": x}
    box["b"] = box["a"] * 2
    box.update(c=x)
    box.setdefault("d", []).append(x)
    return box["b"] + box["c"] + box["d"][0]


def own_array(x):
    y = fnp.zeros(3)
    y[0] = x
    y += x
    y[1:] *= 2.0
    return fnp.sum(y)


def own_object(x):
    p = Particle(x).move(x * 2)
    p.x = p.x * 2
    return p.move(1.0).x + p.trail[0]


def own_cell(x):
    total = x

    def add(y):
        nonlocal total
        total = total + y
    add(x * 2)
    add(1.0)
    return total


def own_deque(x):
    d = collections.deque([x], maxlen=2)
    d.append(x * 2)
    d.append(x * 3)
    return d[0] + d.popleft()


def argument_rebound(x):
    x += 1.0
    x *= 2.0
    return x


def in_generators(x):
    return sum(x * k for k in range(4)) + max([x * k for k in range(3)])


def by_helper(x):
    def fill(where, y):
        where.append(y)
        return where
    return fill(fill([], x), x * 2)[1]


@pytest.mark.parametrize("f", [own_list, own_dict, own_array, own_object, own_cell, own_deque,
                               argument_rebound, in_generators, by_helper],
                         ids=lambda f: f.__name__)
def test_what_is_made_inside_may_be_changed(f):
    program, gradient = fg.compile(f), fg.compile(fg.grad(f))
    assert effects(f, (2.0,)).reason is None
    for x in (2.0, 3.0, -1.0, 2.5):
        assert program(x) == pytest.approx(float(f(x)))
        assert gradient(x) == pytest.approx(fg.grad(f)(x))
    assert sum(path.calls for path in program.paths) == 4 and recorded(program) <= 2


# ---- stores that are found afterwards ---------------------------------------------------------

def by_methodcaller(box):
    return lambda x: (operator.methodcaller("append", x * 2)(box["list"]), x * 3)[1]


def by_exec(box):
    return lambda x: (exec("box['list'].append(x)", {"box": box, "x": x}), x * 3)[1]


def by_attribute_of_a_result(box):
    def pick():
        return [box["space"]]

    def f(x):
        setattr(next(iter({1: pick()}.values()))[0], "val" + "ue", x * 2)
        return x * 3
    return f


def in_a_tuple(box):
    return lambda x: (operator.methodcaller("append", (x, {"k": [x * 2]}))(box["list"]), x)[1]


def as_a_key(box):
    return lambda x: (operator.methodcaller("setdefault", x, x * 2)(box), x)[1]


def in_a_closure(box):
    return lambda x: (operator.methodcaller("append", lambda: x)(box["list"]), x)[1]


def in_an_object(box):
    return lambda x: (operator.methodcaller("append", Particle(x * 2).move(1.0))(box["list"]), x)[1]


@pytest.mark.parametrize("make", [by_methodcaller, by_exec, by_attribute_of_a_result, in_a_tuple,
                                  as_a_key, in_a_closure, in_an_object], ids=lambda f: f.__name__)
def test_no_tensor_stays_behind(make):
    side_by_side(boxed(make))
    side_by_side(boxed(make), (X,), (Y,), (X * 2,)) if make is not as_a_key else None


def test_the_array_that_was_passed_is_what_is_kept():
    kept = []
    f = fg.compile(lambda x: (operator.methodcaller("append", x)(kept), np.sum(x))[1])
    x = X.copy()
    f(x), f(x)
    assert kept[0] is x and kept[1] is x


def test_a_cache_that_is_asked_with_a_tensor():
    cached = functools.lru_cache(lambda t: t * 2)
    f = fg.compile(lambda x: cached(x) + 1)
    assert [f(1.0), f(2.0), f(1.0)] == [3.0, 5.0, 3.0]
    assert type(cached(1.0)) is float and cached(2.0) == 4.0


# ---- code that never ends is read to an end -------------------------------------------------

def deeper(make):
    def f(*args, **named):
        return make(f, *args, **named)
    return f


@pytest.mark.parametrize("make", [
    lambda f, *a: f(*a, *a), lambda f, *a: f(a, [a]), lambda f, a, **k: f((a, [a]), b=(k, [k])),
    lambda f, a: f(list(zip(a, [a]))), lambda f, a: f({"a": a, "b": [a]}.items()),
    lambda f, a: f(fg.grad(f)), lambda f, *a: fg.compile(f)(*a)])
def test_recursion_into_containers_of_what_was_given(make, monkeypatch):
    """What is known of the arguments does not grow from call to call: it once doubled."""
    calls, key = itertools.count(), _effects._key

    def counted(x):
        assert next(calls) < 2_000_000
        return key(x)

    monkeypatch.setattr(_effects, "_key", counted)
    assert effects(deeper(make), (1.0,)).reason is None
