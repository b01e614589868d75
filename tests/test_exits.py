"""Ways out of a Tensor for its value: copies, numbers, arrays, bytes, keys of tables, texts.

The law: under every transformation a way out keeps the derivative, or is refused with the user's
line and a cure; in `compile` alone, where no derivative is lost, it hands out the value. A Tensor
of the user's own, which depends on no argument, goes on as outside of every transformation.
"""

import collections
import copy
import dataclasses
import decimal
import fractions
import functools
import gc
import io
import json
import logging
import math
import operator
import pickle
import random
import statistics
import struct
import sys
import threading
import weakref
from array import array

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import optim
from fastgrad._core import core

pytestmark = pytest.mark.filterwarnings("ignore:compile", "ignore:the matrix subclass",
                                        "ignore:.*does not depend on the arguments")

X = np.array([3.0, 1.0, 2.0])
V = np.array([1.0, -2.0, 0.5])
LANES = np.stack([X, X + 1.0])


# ---- transformations ------------------------------------------------------------------------

def looped(f, scan):
    """f as the second of three steps of a loop."""
    def step(carry, k):
        return carry * 1.0 + f(carry), None
    return scan(lambda x: np.sum(fg.scan(step, x, length=2)[0]))


# Each takes a function of an array that returns a number.
DIFFERENTIATING = {
    "grad": lambda f: fg.grad(f)(X),
    "grad of a float32": lambda f: fg.grad(f)(X.astype(np.float32)),
    "value_and_grad": lambda f: fg.value_and_grad(f)(X),
    "grad of a list": lambda f: fg.grad(lambda x: f(fnp.stack(x)))(X.tolist()),
    "elementwise_grad": lambda f: fg.elementwise_grad(f)(X),
    "jvp": lambda f: fg.jvp(f, (X,), (V,)),
    "vjp": lambda f: fg.vjp(f, X)[1](2.0),
    "linearize": lambda f: fg.linearize(f, X)[1](V),
    "jacobian forward": lambda f: fg.jacobian(f, mode="forward")(X),
    "jacobian reverse": lambda f: fg.jacobian(f, mode="reverse")(X),
    "hessian": lambda f: fg.hessian(f)(X),
    "hvp": lambda f: fg.hvp(f)(X, V),
    "grad of grad": lambda f: fg.grad(lambda x: np.sum(fg.grad(f)(x) * V))(X),
    "grad of jvp": lambda f: fg.grad(lambda x: fg.jvp(f, (x,), (V,))[1])(X),
    "jvp of grad": lambda f: fg.jvp(fg.grad(f), (X,), (V,)),
    "jvp of jvp": lambda f: fg.jvp(lambda x: fg.jvp(f, (x,), (V,))[1], (X,), (V,)),
    "compile of grad": lambda f: fg.compile(fg.grad(f))(X),
    "grad of compile": lambda f: fg.grad(fg.compile(f))(X),
    "compile of jvp": lambda f: fg.compile(lambda x: fg.jvp(f, (x,), (V,)))(X),
    "vmap of grad": lambda f: fg.vmap(fg.grad(f))(LANES),
    "grad of vmap": lambda f: fg.grad(lambda x: np.sum(fg.vmap(f)(x)))(LANES),
    "compile of vmap of grad": lambda f: fg.compile(fg.vmap(fg.grad(f)))(LANES),
    "grad of scan": lambda f: looped(f, lambda g: fg.grad(g)(X)),
    "jvp of scan": lambda f: looped(f, lambda g: fg.jvp(g, (X,), (V,))),
    "compile of grad of scan": lambda f: looped(f, lambda g: fg.compile(fg.grad(g))(X)),
    "taylor": lambda f: fg.taylor(f, X, V, order=2),
    "backward": lambda f: fg.grad(lambda x: f(x) * 1.0)(fg.tensor(X, requires_grad=True)),
    "vmap": lambda f: fg.vmap(f)(LANES),
    "vmap of scan": lambda f: looped(f, lambda g: fg.vmap(g)(LANES)),
}


def same(got, wanted):
    got, wanted = flat(got), flat(wanted)
    assert len(got) == len(wanted)
    for x, y in zip(got, wanted):
        np.testing.assert_allclose(x, y, 1e-5, 1e-6)


def flat(x):
    if isinstance(x, (tuple, list)):
        return [y for part in x for y in flat(part)]
    return [np.asarray(x.detach() if fg.is_tensor(x) else x, float)]


# ---- what keeps the derivative --------------------------------------------------------------

@dataclasses.dataclass
class State:
    x: object
    rest: list


def in_lists(x):
    """An array or Tensor as nested lists, twice over."""
    return x.reshape(3, 1).tolist()


# The way out, and the same without.
KEPT = {
    "copy.copy": (lambda x: np.sum(copy.copy(x) ** 2), lambda x: np.sum(x ** 2)),
    "copy.deepcopy": (lambda x: np.sum(copy.deepcopy(x) ** 2), lambda x: np.sum(x ** 2)),
    "deepcopy of what is computed": (lambda x: np.sum(copy.deepcopy(x * x)),
                                     lambda x: np.sum(x ** 2)),
    "deepcopy of a number": (lambda x: copy.deepcopy(x[0] * x[0]), lambda x: x[0] ** 2),
    "dict of states": (lambda x: np.sum(copy.deepcopy({"a": [x * x]})["a"][0]),
                       lambda x: np.sum(x ** 2)),
    "dataclasses.asdict": (lambda x: np.sum(dataclasses.asdict(State(x * x, []))["x"]),
                           lambda x: np.sum(x ** 2)),
    "dataclasses.astuple": (lambda x: dataclasses.astuple(State(1.0, [x[0] * x[0]]))[1][0],
                            lambda x: x[0] ** 2),
    "item": (lambda x: np.sum(x * x).item() * x[0].item(), lambda x: np.sum(x * x) * x[0]),
    "item of an index": (lambda x: x.item(0) * x.item(-1) * x.item((1,)), lambda x: np.prod(x)),
    "item of two indices": (lambda x: x.reshape(3, 1).item(2, 0) * x.reshape(1, 3).item(1),
                            lambda x: x[2] * x[1]),
    "item of one entry": (lambda x: (x[:1] * x[:1]).item() * (x[1:2, None]).item(),
                          lambda x: x[0] ** 2 * x[1]),
    "tolist": (lambda x: (x * x).tolist()[1] * x.tolist()[0], lambda x: x[1] ** 2 * x[0]),
    "tolist of lists": (lambda x: in_lists(x * x)[2][0] * in_lists(x)[0][0],
                        lambda x: x[2] ** 2 * x[0]),
    "tolist of a number": (lambda x: (x[0] * x[1]).tolist() * x[2], lambda x: np.prod(x)),
    "sum of a list": (lambda x: sum(v * v for v in x.tolist()), lambda x: np.sum(x ** 2)),
    "sorted": (lambda x: sorted(x.tolist())[0] * sorted(x)[2], lambda x: np.min(x) * np.max(x)),
    "median": (lambda x: statistics.median((x * x).tolist()), lambda x: x[2] ** 2),
    "fnp.array of a list": (lambda x: np.sum(fnp.array((x * x).tolist()) * x),
                            lambda x: np.sum(x ** 3)),
    "divmod": (lambda x: divmod(x[0] * x[0], 2.0)[1] * x[1], lambda x: (x[0] ** 2 % 2.0) * x[1]),
    "fastgrad.tensor": (lambda x: np.sum(fg.tensor(x * x) if fg.is_tensor(x) else x * x),
                        lambda x: np.sum(x ** 2)),
    "fastgrad.constant": (lambda x: np.sum(fg.constant(x * x)), lambda x: np.sum(x ** 2)),
    "a generator": (lambda x: sum(v for v in x * x), lambda x: np.sum(x ** 2)),
}


DECIDING = ("sorted", "median")         # vmap names fnp.where


@pytest.mark.sampled(2)
@pytest.mark.parametrize("way, transformation", [
    (way, transformation) for way in KEPT for transformation in DIFFERENTIATING
    if way not in DECIDING or "vmap" not in transformation])
def test_what_keeps_the_derivative(way, transformation):
    f, wanted = KEPT[way]
    run = DIFFERENTIATING[transformation]
    same(run(f), run(wanted))


EXPLICIT = sorted(set(KEPT) - {"fastgrad.tensor", "fastgrad.constant"} - set(DECIDING))


@pytest.mark.parametrize("way", EXPLICIT)
def test_what_an_expression_keeps(way):
    f, wanted = KEPT[way]
    x = fg.variable(shape=(3,))
    try:
        made = fg.function([x], f(x))
    except core.NotComputed:            # how many there are is not known yet
        assert "tolist" in way or "list" in way
        return
    same(fg.grad(made)(X), fg.grad(wanted)(X))


# ---- what is refused ------------------------------------------------------------------------

def given(x, way):
    """x by a way out that arrays do not have."""
    return way(x) if fg.is_tensor(x) else x


# The way out and the words of the cure; None where Python's own error hides ours.
REFUSED = {
    "pickle": (lambda x: np.sum(pickle.loads(pickle.dumps(x)) * x), ["pickle", ".detach()"]),
    "pickle of what is computed": (lambda x: np.sum(pickle.loads(pickle.dumps([x * x]))[0]),
                                   ["pickle", "copy.deepcopy", ".detach()"]),
    "reduce": (lambda x: np.sum(x) * bool(x.__reduce_ex__(4)), ["pickle", ".detach()"]),
    "numpy": (lambda x: np.sum(given(x * x, lambda t: t.numpy())),
              ["the Tensor itself", ".detach().numpy()"]),
    "float": (lambda x: float(x[0]) * x[0], ["Tensor itself", "fnp.sin", ".detach()"]),
    "int": (lambda x: int(x[0]) * x[0], ["int(t.detach())"]),
    "complex": (lambda x: complex(x[0]).real * x[0], ["complex(t.detach())"]),
    "math.sin": (lambda x: math.sin(x[0]) * x[0], ["fnp.sin"]),
    "math.fsum": (lambda x: math.fsum(x) * x[0], [".detach()"]),
    "statistics.fmean": (lambda x: statistics.fmean(x) * x[0], [".detach()"]),
    "statistics.mean": (lambda x: statistics.mean(x.tolist()) * x[0], [".detach()"]),
    "as_integer_ratio": (lambda x: x[0].as_integer_ratio()[0] * x[0], [".detach()"]),
    "Decimal": (lambda x: float(decimal.Decimal(x.tolist()[0])) * x[0], None),
    "Fraction": (lambda x: float(fractions.Fraction(x.tolist()[0])) * x[0], None),
    "struct.pack": (lambda x: struct.unpack("d", struct.pack("d", x[0]))[0] * x[0], None),
    "array.array": (lambda x: array("d", x.tolist())[0] * x[0], [".detach()"]),
    "json": (lambda x: json.loads(json.dumps(x.tolist()))[0] * x[0], None),
    "random.seed": (lambda x: random.Random(x[0].item()).random() * x[0], None),
    "np.float64": (lambda x: np.float64(x[0]) * x[0], [".detach()"]),
    "np.asarray": (lambda x: np.sum(np.asarray(x * x)), [".detach()"]),
    "np.array of a list": (lambda x: np.sum(np.array(x.tolist()) * x), ["fnp.array"]),
    "np.matrix": (lambda x: np.sum(np.asarray(np.matrix([x[0]])) * x), ["fnp.array"]),
    # (From 3.15 on Python says in its own words what it has been told.)
    "operator.mod": (lambda x: float(operator.mod("%f", x[0])) * x[0],
                     ["Tensor itself"] if sys.version_info < (3, 15) else None),
    "tobytes": (lambda x: np.frombuffer((x * x).tobytes(), x.dtype)[0] * x[0], [".detach()"]),
    "data": (lambda x: np.asarray(x.data)[0] * x[0], [".detach()"]),
    "array interface": (lambda x: len(x.__array_interface__) * x[0], [".detach()"]),
    "memoryview": (lambda x: memoryview(x)[0] * x[0], None),
    # (NumPy 2.0 asks the type, and says in its own words that it has no such method.)
    "dlpack": (lambda x: np.from_dlpack(x * 1.0)[0] * x[0],
               [".detach()"] if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else []),
    "index": (lambda x: [1.0, 2.0, 3.0, 4.0][operator.index(x[0].astype(int))] * x[0]
              if not fg.is_tensor(x) else [1.0][x[0]] * x[0], ["int(t.detach())"]),
    "in a set": (lambda x: len({v for v in x}) * x[0], [".detach().item()"]),
    "of a set": (lambda x: (x[0] in {3.0, 4.0}) * x[0], [".detach().item()"]),
    "get": (lambda x: {3.0: 5.0, 4.0: 5.0}.get(x[0], 7.0) * x[0], [".detach().item()"]),
    "get of a detached one": (
        lambda x: {3.0: 5.0}.get(given(x[0], lambda t: t.detach()), 7.0) * x[0],
        [".detach().item()"]),
    "get of a place": (lambda x: {0: 5.0}.get(np.argmax(x), 7.0) * x[0], [".detach().item()"]),
    "get of a count": (lambda x: {2: 5.0, 3: 6.0}.get(np.sum(x > 1.5), 7.0) * x[0], [".detach()"]),
    "Counter": (lambda x: collections.Counter(x > 1.5)[True] * x[0], [".detach().tolist()"]),
    "set of comparisons": (lambda x: len(set(x > 0.0)) * x[0], [".detach()"]),
    "set of places": (lambda x: len({v for v in np.argsort(x)}) * x[0], [".detach()"]),
    "lru_cache": (lambda x: functools.lru_cache(lambda v: v * 2.0)(x[0]) * x[0], [".detach()"]),
    "requires_grad": (lambda x: np.sum(given(x, lambda t: fg.tensor(t, requires_grad=True)) * x),
                      [".detach()"]),
}
LINE_IS_PYTHONS = ("statistics.mean", "statistics.fmean", "Counter")      # as it stands, Python's


@pytest.mark.sampled(3)
@pytest.mark.parametrize("transformation", DIFFERENTIATING)
@pytest.mark.parametrize("way", REFUSED)
def test_what_is_refused(way, transformation):
    f, words = REFUSED[way]
    kinds = (TypeError, AttributeError, struct.error, BufferError)
    with pytest.raises(kinds if words is None else kinds[:2]) as caught:
        DIFFERENTIATING[transformation](f)
    for word in words or ():
        assert word in str(caught.value)
    if words is not None and type(caught.value) is TypeError and way not in LINE_IS_PYTHONS:
        assert "test_exits.py, line" in str(caught.value)


@pytest.mark.parametrize("way", [*KEPT, *REFUSED])
def test_a_compiled_function_never_refuses_what_the_plain_one_does(way):
    f = (KEPT | REFUSED)[way][0]
    compiled = fg.compile(f)
    for x in (X, X + 1.0, X):
        try:
            wanted = f(x)
        except Exception as error:              # an unhashable array, say
            with pytest.raises(type(error)):
                compiled(x)
            continue
        same(compiled(x), wanted)


# ---- numbers that weigh nothing in promotion --------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("f", [
    lambda x: np.sum(np.float32([1, 2, 3]) * x[0].item()), lambda x: np.sum(x) * x.tolist()[1],
    lambda x: x.item(0) * np.float32(2.0), lambda x: x.item(0) * x.item(1)])
def test_numbers_are_of_the_kind_that_the_plain_function_has(f, dtype):
    x = X.astype(dtype)
    wanted = type(f(x))
    assert type(fg.value_and_grad(f)(x)[0]) is wanted
    assert type(fg.jvp(f, (x,), (x,))[0]) is wanted
    assert type(fg.vjp(f, x)[0]) is wanted
    made = fg.compile(fg.value_and_grad(f))
    for _ in range(3):
        value, gradient = made(x)
        assert type(value) is wanted and gradient.dtype == dtype


@pytest.mark.parametrize("index", [(5,), (-4,), (0, 0), ((0, 0),), (1.5,), ("a",), (None,)])
def test_indices_of_item(index):
    with pytest.raises(Exception) as wanted:
        X.item(*index)
    for run in (lambda f: f(fg.tensor(X)), DIFFERENTIATING["grad"], DIFFERENTIATING["jvp"]):
        with pytest.raises(type(wanted.value)):
            run(lambda x: x.item(*index) * 1.0)


def test_item_and_tolist_are_copies():
    def f(x):
        y = x * 1.0
        number, row = y[0].item(), y.tolist()
        y[...] = 0.0
        number += 1.0
        return number * x[1] + row[2] * x[0] + y[0]
    np.testing.assert_array_equal(fg.grad(f)(X), [1.0 + 2.0, 4.0, 3.0])
    assert fg.grad(lambda x: (lambda y: y.__iadd__(1.0) * x)(x.item()))(np.array(3.0)) == 7.0


def test_what_was_an_argument_can_be_returned_beside_the_value():
    def f(x):
        return np.sum(x * x), {"x": x * 2.0, "list": x.tolist(), "item": x[0].item(),
                               "mask": x > 1.5}
    for run in (lambda: fg.grad(f, has_aux=True)(X)[1], lambda: fg.vjp(f, X, has_aux=True)[2],
                lambda: fg.value_and_grad(f, has_aux=True)(X)[0][1],
                lambda: fg.compile(fg.grad(f, has_aux=True))(X)[1]):
        aux = run()
        assert type(aux["x"]) is np.ndarray and aux["list"] == X.tolist()
        assert type(aux["item"]) is float and all(type(v) is float for v in aux["list"])
        np.testing.assert_array_equal(aux["x"], X * 2.0)
        np.testing.assert_array_equal(aux["mask"], X > 1.5)


# ---- what goes on as before -----------------------------------------------------------------

def test_numbers_of_what_has_no_derivative():
    def f(x):
        assert type(np.argmax(x).item()) is int and type((x > 1).tolist()[0]) is bool
        assert type(x.detach().item(0)) is float and type(x.detach().numpy()) is np.ndarray
        assert type(fg.stop_gradient(x).tolist()[0]) is float
        with fg.no_grad():
            assert type((x * 2).item(0)) is float and type(x.item(0)) is float
            assert type((x * 2).numpy()) is np.ndarray
        return np.sum(x)
    for run in ("grad", "jvp", "hessian", "vjp", "linearize", "compile of grad", "jvp of grad"):
        DIFFERENTIATING[run](f)


def test_the_users_own_inside_a_transformation():
    w, n = fg.tensor(X, requires_grad=True), fg.tensor(2)

    def f(x):
        h = w * 2.0
        for k in range(3):
            h = fnp.roll(h, 1) * 1.5
            assert type(h.item(k)) is float and type(np.sum(h).item()) is float
        assert type(h.numpy()) is np.ndarray and type(h.tolist()[0]) is float
        assert {w: 1, n: 2, h: 3}[h] == 3 and w in {w} and n in {n}
        v = fg.tensor(4.0, requires_grad=True)
        loss = v * v * np.sum(h).item()
        loss.backward()
        assert type(loss.item()) is float and v in {v} and v.grad.item() > 0
        deep = copy.deepcopy(w)
        assert deep is not w and (deep.is_leaf or core.recording_program())
        assert type(pickle.loads(pickle.dumps(w)).tolist()[0]) is float
        return np.sum(x * h.item(0))
    for run in ("grad", "jvp", "hessian", "vjp", "linearize", "compile of grad", "vmap",
                "grad of jvp", "compile of vmap of grad", "grad of scan"):
        DIFFERENTIATING[run](f)
    fg.compile(f)(X)
    f(X)


def test_a_tensor_of_the_users_that_meets_an_argument():
    w = fg.tensor(2.0, requires_grad=True)
    assert fg.grad(lambda x: (w * x).item() * x)(3.0) == 12.0
    assert fg.grad(lambda x: (fg.tensor(1.0, requires_grad=True) * (w + x)).item() * x)(3.0) == 8.0
    with pytest.raises(TypeError, match="hash"):
        fg.grad(lambda x: {w * x: x}[x])(3.0)


def test_parameters_keep_their_identity():
    w = fg.tensor(2.0, requires_grad=True)
    seen = {w, fg.tensor(1.0), w * 2.0}
    assert w in seen and len(seen) == 3
    table = weakref.WeakKeyDictionary({w: 1})

    def f(x):
        assert w in seen and table[w] == 1
        y = x * 1.0
        reference = weakref.ref(y)
        assert reference() is y
        del y
        assert reference() is None
        return np.sum(x * w)
    same(fg.grad(f)(X), np.full(3, 2.0))
    same(fg.vmap(f)(LANES), np.array([12.0, 18.0]))


def test_a_custom_rule_over_the_users_own_is_the_users_own():
    @fg.custom_vjp
    def cube(x):
        return x ** 3
    cube.defvjp(lambda x: (cube(x), x), lambda x, g: (3 * x * x * g,))
    w = fg.tensor(2.0, requires_grad=True)

    def f(x):
        assert type(cube(w).item()) is float
        return cube(x).item() * x
    assert fg.grad(f)(2.0) == pytest.approx(32.0)


def test_other_threads():
    def f(x):
        def ask():
            for t in (x, y):
                try:
                    found.append(t.item())
                except RuntimeError as error:
                    found.append(str(error))
        y = x * 2.0
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return x * 1.0

    found = []
    for argument in (3.0, np.array(3.0)):
        fg.grad(f)(argument)
        assert "another thread transforms" in found[-2] and ".detach()" in found[-2]
        assert "a tape belongs to the thread" in found[-1]
    w = fg.tensor(3.0, requires_grad=True) * 2.0
    thread = threading.Thread(target=lambda: found.append(w.item()))
    thread.start()
    thread.join()
    assert found[-1] == 6.0


def test_after_the_transformation():
    kept = []
    fg.grad(lambda x: (kept.append((x, x * x, x.tolist())), x * 2.0)[1])(3.0)
    x, y, number = kept[0]
    assert type(x.item()) is float and y.numpy() == 9.0 and type(number.item()) is float
    assert {x: 1}[x] == 1
    for run in (fg.vmap, fg.grad, lambda f: lambda x: fg.jvp(f, (x,), (x,))):
        del kept[:]

        def f(x):
            y = x * 1.0
            y += 1.0
            x += 1.0
            kept.extend([x, y])
            return np.sum(y)
        run(f)(np.ones((2, 3)) if run is fg.vmap else np.ones(3))
        for t in kept:
            assert type(t.numpy()) is np.ndarray and type(t.tolist()[0]) is float


# ---- asking costs no more than computing ------------------------------------------------------

def multiplied(y):
    return y * 1.0001


def moved(y):
    return fnp.roll(y, 1)


@pytest.mark.parametrize("step", [multiplied, moved])
@pytest.mark.parametrize("run", [
    lambda f: fg.grad(f)(X), lambda f: fg.jvp(f, (X,), (V,)), lambda f: fg.compile(f)(X),
    lambda f: fg.grad(lambda x: np.sum(x) * f(fg.tensor(X, requires_grad=True)).item())(X)])
def test_a_loop_that_asks_at_each_step_is_linear(step, run):
    """Nodes that are looked at to learn what a Tensor depends on."""
    def f(x):
        for _ in range(n):
            x = step(x)
            x.item(0)
        return np.sum(x)
    counts = []
    for n in (100, 400):
        before = core.asked()
        run(f)
        counts.append(core.asked() - before)
    assert counts[1] <= 5 * counts[0] + 10


@pytest.mark.parametrize("ask", [lambda y: None, lambda y: y.item()])
def test_a_stream_that_is_asked_knows_what_it_has_forgotten(ask):
    gc.collect()            # graphs that errors have left behind would keep the stream from forgetting
    w = fg.tensor(2.0, requires_grad=True)

    def f(x):
        y = x
        for _ in range(3000):
            y = y * w * 0.5
            ask(y)
        y.backward()
        return y
    with pytest.raises(RuntimeError, match="forgets operations"):
        fg.jvp(f, (1.0,), (1.0,))
    assert w.grad is None and core.alive()["duals"] == 0


# ---- texts ----------------------------------------------------------------------------------

def logged(t):
    stream = io.StringIO()
    logger = logging.Logger("test_exits")
    logger.addHandler(logging.StreamHandler(stream))
    logger.info("%.3f %d %s", t, t, t)
    logger.info("%(t).1f", {"t": t})
    logger.info(f"{t:.2f}")
    return stream.getvalue()


def put_into(text, t):
    text %= t
    return text


def printed(t):
    stream = io.StringIO()
    print(t, file=stream)
    return stream.getvalue()


TEXTS = {
    "logging": (logged, "3.000 3 3.0\n3.0\n3.00\n"), "print": (printed, "3.0\n"),
    "f-string": (lambda t: f"{t} {t:.2f} {t!s}", "3.0 3.00 3.0"), "str": (str, "3.0"),
    "%f": (lambda t: "%.3f" % t, "3.000"), "%d": (lambda t: "%d" % t, "3"),
    "tuple": (lambda t: "%.3f" % (t,), "3.000"), "%=": (lambda t: put_into("%.1f", t), "3.0"),
    "bytes": (lambda t: (b"%.1f" % t).decode(), "3.0"),
    "format": (lambda t: format(t, ".1f"), "3.0"),
    "str.format": (lambda t: "{} {:.2f}".format(t, t), "3.0 3.00"),
    "getMessage": (lambda t: logging.makeLogRecord({"msg": "%.3f", "args": (t,)}).getMessage(),
                   "3.000"),
    "from a list": (lambda t: f"{t.tolist():.1f} {t.item():.1f}", "3.0 3.0"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("transformation", [*DIFFERENTIATING, "compile"])
@pytest.mark.parametrize("text", TEXTS)
def test_texts_show_the_value(text, transformation):
    def f(x):
        shown.append(write(x[0]))
        return np.sum(x)

    shown, (write, wanted) = [], TEXTS[text]
    run = DIFFERENTIATING.get(transformation, lambda f: fg.compile(f)(X))
    run(f)
    assert shown[0] == wanted


# ---- np.matrix ------------------------------------------------------------------------------

M = np.arange(1.0, 5.0).reshape(2, 2)


def matrix():
    return np.matrix(M)


def refused(call):
    with pytest.raises(TypeError, match=r"np\.asarray\(x\)"):
        call()


@pytest.mark.parametrize("call", [
    lambda x, t: x * t, lambda x, t: t * x, lambda x, t: x @ t, lambda x, t: t @ x,
    lambda x, t: x + t, lambda x, t: t - x, lambda x, t: x / t, lambda x, t: t ** x,
    lambda x, t: t > x,
    lambda x, t: x == t, lambda x, t: np.add(x, t), lambda x, t: np.matmul(t, x),
    lambda x, t: np.dot(x, t), lambda x, t: fnp.dot(t, x), lambda x, t: fnp.multiply(x, t),
    lambda x, t: fnp.where(t > 0, x, t), lambda x, t: fnp.concatenate([t, x]),
    lambda x, t: np.stack([x, t]), lambda x, t: fnp.einsum("ij,jk->ik", x, t),
    lambda x, t: fnp.maximum(x, t), lambda x, t: t[x],
    lambda x, t: t.__setitem__(slice(None), x), lambda x, t: t.__iadd__(x),
    lambda x, t: fg.tensor(x),
    lambda x, t: fnp.hypot(t, x), lambda x, t: np.outer(x, t), lambda x, t: fnp.tensordot(t, x),
    lambda x, t: t.backward(x)])
def test_a_matrix_beside_a_tensor(call):
    t = fg.tensor(M, requires_grad=True) * 1.0
    refused(lambda: call(matrix(), t))
    refused(lambda: fg.grad(lambda y: (call(matrix(), y * 1.0), np.sum(y))[1])(M))


def a(x):
    return np.sum(x)


@pytest.mark.parametrize("call", [
    lambda x: fg.grad(a)(x), lambda x: fg.grad(lambda p: a(p["x"]))({"x": x}),
    lambda x: fg.jvp(a, (x,), (M,)),
    lambda x: fg.jvp(a, (M,), (x,)), lambda x: fg.vjp(lambda y: y * y, M)[1](x),
    lambda x: fg.hessian(a)(x), lambda x: fg.linearize(a, x), lambda x: fg.vmap(a)(x),
    lambda x: fg.compile(a)(x), lambda x: fg.grad(fg.compile(a))(x),
    lambda x: fg.grad(lambda y: x)(M),
    lambda x: fg.vjp(lambda y: x, M), lambda x: fg.value_and_grad(lambda y: np.sum(y) * x)(M),
    lambda x: fg.compile(fg.grad(lambda y: np.sum(y * x)))(M),
    lambda x: fg.vmap(lambda y: y @ x)(M),
    lambda x: fg.grad(lambda y: np.sum(fg.scan(lambda c, k: (c * x, None), y, length=2)[0]))(M),
    lambda x: optim.Adam().init({"w": x}), lambda x: optim.clip_by_value([x], 1.0),
    lambda x: optim.Momentum(0.1).step(x, optim.Momentum(0.1).init(M), M),
    lambda x: fg.numeric.gradient(a, x), lambda x: fg.taylor(a, x, M), lambda x: fg.taylor(a, M, x),
    lambda x: fg.function([(v := fg.variable())], np.sum(v))(x),
    lambda x: fg.scan(lambda c, k: (c * k, None), fg.tensor(M), x)])
def test_a_matrix_as_argument_and_captured(call):
    with pytest.raises(TypeError, match=r"asarray\(x\)"):
        call(matrix())


# ---- histories ------------------------------------------------------------------------------

def parameter():
    return fg.tensor([1.0, -2.0], requires_grad=True)


@pytest.mark.parametrize("look", [
    print, repr, str, lambda t: t.detach().numpy(), lambda t: t.numpy(), lambda t: t.tolist(),
    lambda t: t.sum().item(), lambda t: f"{t.sum():.2f}", lambda t: float(t.sum().detach()),
    lambda t: np.asarray(t.detach()), copy.deepcopy])
def test_what_does_not_matter_to_a_history(look, capsys):
    w = parameter()
    y = w * w
    look(y)
    f = fg.function([w], y * 2.0)
    np.testing.assert_array_equal(f(np.array([3.0, 1.0])), [18.0, 2.0])


DECISIONS = {
    "bool": lambda w: bool(w[0] > 0), "if not": lambda w: not (w.sum() < 1.0),
    "int": lambda w: int(np.argmax(w)), "index": lambda w: [5.0, 6.0][np.argmax(w)],
    "range": lambda w: range(np.argmax(w)), "mask": lambda w: np.ones(2)[np.asarray(w > 0).tolist()]
    if bool((w > 0).any()) else 1, "bool of an entry": lambda w: [bool(v) for v in w > 0],
    "int of what is detached": lambda w: int(w.detach()[0]),
    "bool of what is detached": lambda w: bool(w.detach()[0] > 0),
    "no_grad": lambda w: bool(fg.no_grad()(lambda: w[0] * 2 > 0)()),
    "np.allclose": lambda w: np.allclose(w, 1.0), "np.array_equal": lambda w: np.array_equal(w, w),
    "np.count_nonzero": lambda w: int(np.count_nonzero(w > 0)), "all": lambda w: all(w > 0),
    "max": lambda w: max(w[0], w[1]), "sorted": lambda w: sorted(w),
    "place of a Tensor": lambda w: w[np.argmax(w)], "mask of a Tensor": lambda w: w[w > 0],
    "places of a Tensor": lambda w: w[np.argsort(w)],
    "through a table": lambda w: bool(fg.tensor([0, 1])[np.argmax(w)]),
    "stored": lambda w: (lambda t: (t.__setitem__(0, w[0] > 0), bool(t[0])))(
        fg.tensor([False, True])),
}


@pytest.mark.parametrize("decide", DECISIONS.values(), ids=DECISIONS)
def test_decisions_are_guards_of_a_history(decide):
    w, other = parameter(), parameter()
    before, unrelated = w * 2.0, other * 3.0
    decide(w)
    after = w * 3.0
    for outputs in (after, [before, after]):
        if decide is DECISIONS["stored"]:
            with pytest.raises(RuntimeError, match="fg.compile"):
                fg.function([w], outputs)
        else:
            assert fg.function([w], outputs).paths[0].graph.guards
    assert not fg.function([w], before).paths[0].graph.guards
    # What was recorded before it, and what has other inputs, does not depend on it.
    x = np.array([4.0, 1.0])
    np.testing.assert_array_equal(fg.function([w], before)(x), [8.0, 2.0])
    np.testing.assert_array_equal(fg.function([other], unrelated)(x), [12.0, 3.0])
    np.testing.assert_array_equal(fg.function([other], other * 5.0)(np.ones(2)), [5.0, 5.0])


def test_a_decision_is_older_than_what_comes_in_the_place_of_what_has_died():
    for filled in (0, 1, 1020, 1023, 1024, 2050):
        w = parameter()
        rows = [w * float(k) for k in range(filled)]
        dead = w * 2.0
        bool(dead[0] > 0)
        del dead, rows
        after = w * 3.0
        assert len(fg.function([w], after).paths[0].graph.guards) == 1


VALUES = {
    "where": lambda w: fnp.where(w > 0, w, 0.0), "detach": lambda w: w * w.detach(),
    "detached number": lambda w: w * w[0].detach(), "a product": lambda w: w @ w.detach(),
    "argsort": lambda w: w * np.argsort(w), "a mask as a number": lambda w: w * (w > 0),
    "an entry of a mask": lambda w: w[0] * (w > 0)[1],
    "in an array": lambda w: w * (w.detach() + 1.0),
    "no_grad": lambda w: w * fg.no_grad()(lambda: w * 2.0)(),
    "stacked": lambda w: w * fnp.stack([w[0].detach(), w[1].detach()]),
}


@pytest.mark.parametrize("f", VALUES.values(), ids=VALUES)
def test_constants_of_a_history_are_no_values_of_its_inputs(f):
    w = parameter()
    with pytest.raises(RuntimeError, match="fg.compile"):
        fg.function([w], f(w))
    compiled = fg.compile(f)
    for x in (np.array([1.0, -2.0]), np.array([-3.0, 4.0])):
        np.testing.assert_array_equal(compiled(x), np.asarray(f(fg.tensor(x)).detach()))


def test_steps_of_a_history_are_recorded():
    w = parameter()
    f = fg.function([w], w * np.sign(w) + w[0] * np.floor(w[1]))
    for x in (np.array([1.0, -2.5]), np.array([-3.0, 4.5])):
        np.testing.assert_array_equal(f(x), x * np.sign(x) + x[0] * np.floor(x[1]))


def test_constants_of_other_parameters_stay():
    w, other = parameter(), parameter()
    y = w * np.sign(other)
    np.testing.assert_array_equal(fg.function([w], y)(np.array([3.0, 5.0])), [3.0, -5.0])
    np.testing.assert_array_equal(
        fg.function([w], w * w.sum().item())(np.array([3.0, 5.0])), [-3.0, -5.0])
