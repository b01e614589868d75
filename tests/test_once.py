"""A compiled function runs f once at its first call, and never refuses what the plain one does."""

import array
import copy
import math

import numpy as np
import pytest
from sides import runs_of

import fastgrad as fg
import fastgrad.numpy as fnp

pytestmark = pytest.mark.filterwarnings("ignore:compile")

X = np.array([0.3, 0.5, 0.1, 0.9])
OUT = np.zeros(4)


def same(f, *args, transform=lambda f: f):
    """Results, types, arguments and OUT as the plain function leaves them, and one run a call."""
    compiled, plain = transform(fg.compile(f)), transform(f)
    for _ in range(2):
        mine, theirs, before = copy.deepcopy(args), copy.deepcopy(args), OUT.copy()
        wanted = plain(*theirs)
        left = OUT.copy()
        OUT[...] = before
        with runs_of(f) as runs:
            found = compiled(*mine)
        assert repr(found) == repr(wanted) and type(found) is type(wanted)
        assert repr(mine) == repr(theirs) and repr(OUT) == repr(left)
        assert runs[0] <= 1
        OUT[...] = 0


def changed(make, change):
    def f(x):
        y = make(x)
        change(y)
        return y
    return f


def set_to(name, value):
    return lambda y: setattr(y, name, value)


SETTING = {"shape": (2, 2), "dtype": np.int64, "real": 3.0}


@pytest.mark.parametrize("name", SETTING)
def test_attributes_of_arrays_are_set(name):
    for make in (lambda x: x * 1, lambda x: x, lambda x: np.sin(x)):
        same(changed(make, set_to(name, SETTING[name])), X)


def test_attributes_of_what_is_made_inside():
    def f(x):
        y = fnp.zeros(4)
        y.shape = 2, 2
        return y + x[0]

    same(f, X)


READING = {
    "__array_interface__": lambda x: x.__array_interface__["shape"],
    "__array_struct__": lambda x: x.__array_struct__ is None,
    "strides": lambda x: x.strides, "flags": lambda x: x.flags.writeable,
    "to_device": lambda x: x.to_device("cpu"),
}


@pytest.mark.parametrize("f", READING.values(), ids=READING)
def test_attributes_that_tell_of_memory(f):
    same(f, X)


WRITING = {
    "clip": lambda x: x.clip(0.2, 0.4, OUT), "round": lambda x: x.round(1, OUT),
    "take": lambda x: x.take([0, 1, 2, 3], 0, OUT), "cumsum": lambda x: x.cumsum(0, None, OUT),
    "sum": lambda x: x.sum(0, None, OUT[:1].reshape(())),
    "own": lambda x: x.clip(0, 1, np.zeros(4)),
    "a Tensor": lambda x: [b := x * 0, x.clip(0.2, 0.4, b)][0],
}


@pytest.mark.parametrize("f", WRITING.values(), ids=WRITING)
def test_results_that_are_written_by_position(f):
    same(f, X)


def test_numbers_have_no_items_to_assign():
    def f(x, index):
        y = x.sum()
        try:
            y[index] = 1
        except TypeError as error:
            return x * 3, str(error)
        return x * 2, y

    same(lambda x: f(x, 0), X)
    same(lambda x: f(x, ()), X)
    same(lambda x: f(x, ()), np.array(2.0))
    same(lambda x: f(x * fnp.ones(()), ()), np.array(2.0))


def test_optimisers():
    rule = fg.optim.Adam(0.1)

    def f(x):
        return rule.step(2 * x, rule.init(x), x)[0]

    def tree(x):
        params = {"w": x * 1}
        return rule.step({"w": 2 * x}, rule.init(params), params)[0]["w"]

    same(f, X)
    same(tree, X)


# ---- arrays that show Tensors -------------------------------------------------------------------

SHOWING = {
    "asarray": np.asarray, "asanyarray": np.asanyarray, "ascontiguousarray": np.ascontiguousarray,
    "asfortranarray": np.asfortranarray, "of a dtype": lambda x: np.asarray(x, float),
    "of a result": lambda x: np.asarray(x * 2), "a view": lambda x: np.asarray(x * 2).ravel(),
    "ravel": np.ravel, "array": np.array,
}
CHANGES = {
    "an item": lambda y: y.__setitem__(0, 5.0), "sort": lambda y: y.sort(),
    "fill": lambda y: y.fill(2.0), "copyto": lambda y: np.copyto(y, 1.0),
    "out": lambda y: np.add(y, 1, out=y), "a part": lambda y: y[1:].fill(3.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("make", SHOWING.values(), ids=SHOWING)
def test_arrays_that_show_tensors_are_written(make, change):
    same(changed(make, change), X)


def by_statements(x):
    x = np.asarray(x * 2)
    x += 1
    x[0] = 5.0
    return x


def by_statements_at_an_argument(x):
    x = np.asarray(x)
    x[0] = 5.0
    x *= 2
    return x


def test_by_statements():
    same(by_statements, X)
    same(by_statements_at_an_argument, X)


def iterated(x):
    y = x * 2
    with np.nditer(y, op_flags=["readwrite"]) as entries:
        for entry in entries:
            entry[...] = entry * 2
    return y


def drawn(x):
    y = x * 2
    np.random.default_rng(0).random(out=y)
    return y


def shuffled(x):
    y = x * 2
    np.random.default_rng(0).shuffle(y)
    return y


@pytest.mark.parametrize("f", [iterated, drawn, shuffled])
def test_others_that_write(f):
    same(f, X)


def test_after_something_was_stored():
    stored = array.array("d")
    box = [stored.append]

    def f(x):
        box[0](1.0)
        y = x * 1
        y.shape = 2, 2
        return y

    compiled = fg.compile(f)
    for k in range(3):
        assert compiled(X).shape == (2, 2) and len(stored) == k + 1


@pytest.mark.parametrize("write", [
    lambda a, x: np.put(a, np.argmax(x), 3.0), lambda a, x: np.place(a, x > 0.2, [3.0]),
    lambda a, x: np.put_along_axis(a, np.argmax(x, keepdims=True), 3.0, 0),
    lambda a, x: np.putmask(a, x > 0.2, 3.0)], ids="put place put_along_axis putmask".split())
def test_arrays_that_are_not_differentiated(write):
    def f(x, a):
        write(a, x)
        return fnp.sum(x * a)

    for transform in (fg.grad, fg.value_and_grad):
        wanted = transform(f)(X, np.zeros(4))
        for compiled in (fg.compile(transform(f)), transform(fg.compile(f))):
            for _ in range(2):
                assert repr(compiled(X, np.zeros(4))) == repr(wanted)


def test_copies():
    same(lambda x: x.__reduce__()[2][1:4], X)
    same(lambda x: [x.sum(), x[0], np.squeeze(x * 1)[()]], X[:1])


# ---- numbers beside lanes -----------------------------------------------------------------------

LEAVING = {
    "math": lambda v, b: v * math.sqrt(b), "int": lambda v, b: v * int(b),
    "complex": lambda v, b: v * complex(b).real, "is_integer": lambda v, b: v * b.is_integer(),
    "hex": lambda v, b: v * len(b.hex()), "hash": lambda v, b: v * (hash(b) % 7),
    "float64": lambda v, b: v * np.float64(b), "range": lambda v, b: v * len(range(int(b))),
}


@pytest.mark.parametrize("g", LEAVING.values(), ids=LEAVING)
def test_a_number_that_all_lanes_share(g):
    compiled = fg.compile(lambda x, b: fg.vmap(g, in_axes=(0, None))(x, b))
    for b in (2.0, 3.5, 2.0):
        np.testing.assert_array_equal(compiled(X, b), fg.vmap(g, in_axes=(0, None))(X, b))


# ---- objects that nobody can look at ------------------------------------------------------------

class Closed:
    def __init__(self):
        object.__getattribute__(self, "__dict__")["a"] = 2.0

    def __getattribute__(self, name):
        return object.__getattribute__(self, "__dict__")[name]


def test_objects_without_a_class():
    closed = Closed()
    same(lambda x: x * closed.a, X)
    compiled = fg.compile(lambda x, thing: x * thing.a)
    np.testing.assert_array_equal(compiled(X, closed), X * 2)
