"""What code asks about the types of its numbers is answered in a program as in the plain function.

Tensors stand for them while a program is recorded; a function that would be told otherwise is
called as it is.
"""

import contextlib
import copy
import functools
import operator

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

pytestmark = pytest.mark.filterwarnings("ignore:compile")

X = np.array([0.3, 1.7])


def same(f, *args, replayed=None):
    compiled = fg.compile(f)
    for _ in range(3):
        wanted, found = f(*args), compiled(*args)
        np.testing.assert_array_equal(found, wanted)
        assert type(found) is type(wanted)
    if replayed is not None:
        assert bool(compiled.paths) == replayed


# ---- results that are no floats ---------------------------------------------------------------

RESULTS = {
    "a place": lambda x: x * (2 if isinstance(np.argmax(x), np.integer) else 3),
    "a place, by type()": lambda x: x * (2 if type(np.argmax(x)) is np.int64 else 3),
    "an entry of a mask": lambda x: x * (2 if isinstance((x > 0.5)[0], np.bool_) else 3),
    "a comparison": lambda x: x * (2 if isinstance(x[0] > 0.5, (bool, np.bool_)) else 3),
    "a derivative": lambda x: x * (2 if isinstance(fg.grad(lambda v: v * v)(x[0]), float) else 3),
    "a value": lambda x: x * (
        2 if isinstance(fg.value_and_grad(np.sum)(x)[0], np.float64) else 3),
    "of map": lambda x: sum(map(lambda v: v * (2.0 if isinstance(v, float) else 3.0), x)),
    "of reduce": lambda x: functools.reduce(
        lambda a, v: a + v * (2.0 if isinstance(a, float) else 3.0), x, 0.0),
    "of a key": lambda x: sorted(x, key=lambda v: -v if isinstance(v, float) else v)[0],
}


@pytest.mark.parametrize("f", RESULTS.values(), ids=RESULTS)
def test_results(f):
    same(f, X)


def test_entries_of_arguments():
    same(lambda x, k: x * (2 if isinstance(k[0], np.integer) else 3), X, np.array([1, 2]))
    same(lambda x, k: x * (2 if isinstance(k[0], np.bool_) else 3), X, np.array([True, False]))
    same(lambda x: x * (2 if isinstance(x[0], np.integer) else 3), X, replayed=True)


ANSWERED = {
    "len": lambda x: x * (2 if isinstance(len(x), int) else 3),
    "shape": lambda x: x * (2 if isinstance(x.shape[0], (int, np.integer)) else 3),
    "ndim": lambda x: x * (2 if type(x.ndim) is int else 3),
    "int()": lambda x: x * (2 if isinstance(int(x[0]), int) else 3),
}


@pytest.mark.parametrize("f", ANSWERED.values(), ids=ANSWERED)
def test_what_is_no_tensor_may_be_asked(f):
    same(f, X, replayed=True)


# ---- transformations inside of a program -------------------------------------------------------

def asking(x, b):
    return fnp.sum(x) * (2.0 if isinstance(b, float) else 3.0) * b


def local(x, b):
    def inner(v, b):
        return fnp.sum(v * v) * (2.0 if isinstance(b, float) else 3.0)
    return fg.grad(inner)(x, b)


derivative = fg.grad(asking)
INSIDE = {
    "grad": lambda x, b: fg.grad(asking)(x, b),
    "argnums": lambda x, b: fg.grad(asking, argnums=0)(x, b),
    "by name": lambda x, b: fg.grad(asking)(x, b=b),
    "value_and_grad": lambda x, b: fg.value_and_grad(asking)(x, b)[1],
    "jacobian": lambda x, b: fg.jacobian(asking)(x, b),
    "hessian": lambda x, b: fg.hessian(asking)(x, b),
    "made outside": lambda x, b: derivative(x, b),
    "a closure": lambda x, b: fg.grad(lambda v: asking(v, b))(x),
    "a partial": lambda x, b: fg.grad(functools.partial(asking, b=b))(x),
    "nested": lambda x, b: fg.grad(lambda v: fnp.sum(fg.grad(asking)(v, b)))(x),
    "a local function": local,
    "compile": lambda x, b: fg.compile(asking)(x, b),
}


AXES = 0, None
mapped = fg.vmap(asking, in_axes=AXES)
INSIDE |= {
    "vmap": lambda x, b: fg.vmap(asking, in_axes=(0, None))(x, b),
    "a list of axes": lambda x, b: fg.vmap(asking, [0, None])(x, b),
    "axes from outside": lambda x, b: fg.vmap(asking, in_axes=AXES)(x, b),
    "vmap made outside": lambda x, b: mapped(x, b),
    "vmap of a closure": lambda x, b: fg.vmap(lambda v: asking(v, b))(x),
    "vmap of grad": lambda x, b: fg.vmap(fg.grad(asking), in_axes=(0, None))(x, b),
}


@pytest.mark.parametrize("f", INSIDE.values(), ids=INSIDE)
def test_transformations_inside(f):
    same(f, X, 2.0)


def test_what_is_differentiated_is_a_tensor_in_any_case():
    same(lambda x, b: fg.grad(asking, argnums=(0, 1))(x, b)[0], X, 2.0, replayed=True)
    same(lambda x, b: fg.vmap(asking)(x, b * x), X, 2.0, replayed=True)
    same(lambda x, b: fg.vmap(lambda v: asking(v, v))(x), X, 2.0, replayed=True)


# ---- what only Tensors have ---------------------------------------------------------------------

def tried(name):
    space = {}
    exec(f"def f(x):\n    try:\n        x.{name}\n    except AttributeError:\n"
         "        return x * 3\n    return x * 2\n", space)
    return space["f"]


NAMES = "grad backward requires_grad detach numpy is_leaf zero_grad retain_grad".split()


@pytest.mark.parametrize("name", NAMES)
def test_names_of_tensors(name):
    for x in (X, 2.0):
        same(tried(name), x)


def test_names_of_arrays():
    for name in ("shape", "sum", "T", "dtype"):
        same(tried(name), 2.0)
        same(tried(name), X, replayed=True)


# ---- whether two are one ----------------------------------------------------------------------

class Missing:
    pass


Y, PAIR, MISSING = np.ones(2), [np.ones(2), {"w": np.ones(2)}], Missing()


def one_of(x, *others):
    return any(x is other for other in others)


ONE_OBJECT = {
    "two arguments": (lambda a, b: a * 2 if a is b else b * 3, (Y, Y)),
    "not": (lambda a, b: a * 2 if a is not b else b * 3, (Y, Y)),
    "a function": (lambda a, b: a * 2 if operator.is_(a, b) else b * 3, (Y, Y)),
    "a global": (lambda a: a * 2 if Y is a else a * 3, (Y,)),
    "an entry": (lambda p, b: b * 2 if p[0] is b else b * 3, ((Y, 1.0), Y)),
    "containers": (lambda a, b: a[0] * 2 if a is b else b[0] * 3, ([Y],) * 2),
    "of a list": (lambda a: a * 2 if any([a is other for other in PAIR]) else a * 3, (PAIR[0],)),
    "a dict of a list": (lambda p: p["w"] * (2 if p is PAIR[1] else 3), (PAIR[1],)),
    "a helper": (lambda a, b: a * 2 if one_of(a, 1, b) else b * 3, (Y, Y)),
    "a default": (lambda a, b=Y: a * 2 if a is b else a * 3, (Y,)),
    "what may be one": (lambda a, b: a * 2 if np.asarray(a) is b else b * 3, (Y, Y)),
}


@pytest.mark.parametrize("name", ONE_OBJECT)
def test_whether_two_are_one_object(name):
    f, args = ONE_OBJECT[name]
    same(f, *args, replayed=False)
    same(f, *copy.deepcopy(args[:1]), *args[1:], replayed=False)
    program = fg.compile(f)
    program(*args)
    assert "whether two arrays are the same object" in program.reasons[0]


def test_sameness_that_is_no_matter_of_arrays():
    same(lambda x, y=None: x * 2 if y is None else x * y, X, replayed=True)
    same(lambda x, y=None: x * 2 if y is None else x * y, X, X, replayed=True)
    same(lambda x, y=MISSING: x * 2 if y is MISSING else x * y, X, replayed=True)
    same(lambda x, y=MISSING: x * 2 if y is MISSING else x * y, X, X, replayed=True)
    same(lambda x: x * 2 if x is np.nan else x * 3, X, replayed=True)
    same(lambda x, f: x * 2 if f is np.sin else f(x), X, np.negative, replayed=True)
    same(lambda x: x * 2 if Y is X else x * 3, X, replayed=True)
    same(lambda x: fg.grad(lambda v: v * v if v is None else v * 3)(x), 2.0, replayed=True)


def test_where_another_function_catches_it():
    def asks(x):
        return x.requires_grad

    def catches(x):
        try:
            asks(x)
        except AttributeError:
            return x * 3
        return x * 2

    def suppresses(x):
        with contextlib.suppress(AttributeError):
            x.detach()
            return x * 2
        return x * 3

    same(catches, X)
    same(suppresses, X)


def test_a_derivative_has_tensors():
    f = tried("detach")
    assert fg.compile(fg.grad(f))(2.0) == fg.grad(f)(2.0) == 2.0
