"""Arrays that a compiled function reaches: read again where they are operands alone, and compared
where they are used by value as well. Every case against the plain function, over changed data."""

import functools
import math
import warnings

import numpy as np
import pytest
from worlds import bind_anew

import fastgrad as fg
import fastgrad.numpy as fnp

X = np.array([1.0, 2.0, 4.0])


class Model:
    def __init__(self, X):
        self.X = X

    @property
    def data(self):
        return self.X

    def get(self):
        return self.X

    def weigh(self, v):
        return np.sum(v * self.X)

    def __call__(self, v):
        return np.sum(v * self.X)


class Layer:
    def __init__(self, W):
        self.W, self.b = W, np.zeros(3)

    def __call__(self, x):
        return np.tanh(x @ self.W + self.b)


class Net:
    def __init__(self):
        self.layers = [Layer(np.eye(3)) for _ in range(2)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


FUNCTIONS = """
def helper(a):
    return float(a[0])

def through(a):
    b = a
    return sum([float(v) for v in b])

def scale(v):
    return v * d

def scale_by(v, a):
    return v * a

def loop(x):
    y = x
    for i in range(3):
        y = y * d + x
    return np.sum(y)

def names(x):
    a, b = d, W
    c = a
    return np.sum(b @ x * c)

def error(w):
    err = W @ w - d
    return (err ** 2).mean() + 0.1 * np.sum(w * w)

def both(x):
    e = d
    return np.sum(x * d) * e.min()

def unpacked(x):
    first, *rest = d
    return np.sum(x * d) * float(first)

def joined(x):
    e = x if len(x) > 100 else d
    return np.sum(x * d) * float(e.sum() * 1.0)

def together(x):
    return sum([np.sum(x * v) * float(v[0]) for v in [d] + [r]])

def of_trees(x):
    return np.sum(x[0] * d) * sum([float(v[0]) for v in list(x) + [d] if v is d])

def restored(x):
    d[0] += 1
    y = np.sum(x * d)
    d[0] -= 1
    return y

def restored_view(x):
    row = d[:2]
    row += 1
    y = np.sum(x * d)
    row -= 1
    return y

def restored_whole(x):
    keep = d.copy()
    d.fill(2.0)
    y = np.sum(x * d)
    d[:] = keep
    return y

def restored_out(x):
    keep = np.array(d)
    np.multiply(d, 2.0, out=d)
    y = np.sum(x * d)
    np.copyto(d, keep)
    return y

def restored_elsewhere(x):
    change(d, 1)
    y = np.sum(x * d)
    change(d, -1)
    return y

def change(a, by):
    a += by

def squares(v, a):
    return np.sum((v * a) ** 2)

slope = fg.grad(lambda v: np.sum((v * d) ** 2))
slope_of_both = fg.grad(lambda v: np.sum(v * v * d) * float(np.mean(d)))
slope_at = fg.grad(squares)
twice = fg.compile(fg.value_and_grad(lambda v: squares(v, d)))
mapped = fg.vmap(scale)
m.slope = fg.grad(m.weigh)
"""


def world():
    """New data, and functions that reach it as globals."""
    d = np.array([1.0, 2.0, 3.0])
    space = {"np": np, "fg": fg, "fnp": fnp, "math": math, "functools": functools, "d": d,
             "r": np.array([1.0, 2.0, 3.0]), "W": np.eye(3), "m": Model(d), "net": Net(),
             "params": [(np.eye(3), np.zeros(3)), (np.ones((3, 3)), np.ones(3))],
             "weights": {"W": np.eye(3), "b": np.ones(3)}, "named": {"a": d, "b": np.ones(3)},
             "order": np.array([0, 2, 1]), "ds": [d, np.ones(3)], "summed": d.sum, "X": "X",
             "bound": functools.partial(lambda k, x: np.sum(x * k) * float(k[0]), d)}
    exec(FUNCTIONS, space)
    return space


def by_hand(name):
    """(what the text stands for, its data)."""
    space = world()
    return eval(name, space), space


WAYS = {"compile": lambda f: f, "grad": fg.grad, "value_and_grad": fg.value_and_grad,
        "vmap": fg.vmap}


def argument(way):
    return np.stack([X, 2 * X]) if way == "vmap" else X


def close(got, wanted):
    for a, b in zip(*[x if isinstance(x, tuple) else (x,) for x in (got, wanted)], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# ---- by value as well -----------------------------------------------------------------------

BY_VALUE = [
    "np.sum(x * d) * float(np.sum(d))", "np.sum(x * d) * (2.0 if np.any(d < 0) else 1.0)",
    "np.sum(x * d) * (2.0 if np.allclose(d, r) else 1.0)",
    "np.sum(x * d) * (2.0 if 3.0 in d else 1.0)", "both(x)", "np.sum(x * d) * helper(d)",
    "np.sum(x * d) * through(d)", "np.sum(x * m.X) * m.X.max()",
    "np.sum(x * d) + np.sum(x[np.argmax(d):])",
    "np.sum(x * d) + sum([x[0] * i for i in range(np.argmax(d))])",
    "np.sum(x * d) + np.sum(x * fnp.full(3, np.mean(d)))",
    "np.sum(scale(x)) + float(np.sum(scale(2.0)))", "np.sum(x * ds[0]) * float(ds[0].sum())",
    "np.sum(x * ds[0]) * (1.0 if ds[0][0] > 2 else 3.0)",
    "sum([np.sum(x * v) for v in named.values()]) * sum([float(v[0]) for v in named.values()])",
    "sum([np.sum(x * v) * float(v[0]) for k, v in named.items()])",
    "np.sum(x * d) * sum([float(v) for v in d])", "sum([a * b for a, b in zip(x, d)])",
    "np.sum(x * d) * len(f'{d[0]:.0f}')", "np.sum(x @ d.T) * float(d.T.sum())",
    "np.sum(x * d) * float(d.reshape(3, 1)[0, 0])", "np.sum(x * m.data) * float(m.data.max())",
    "np.sum(x * m.get()) * float(m.get().max())", "m.weigh(x) + float(np.sum(m.weigh(2.0)))",
    "m(x) + float(np.sum(m(2.0)))", "np.sum(x * d) * max(d, key=lambda v: -v)",
    "np.sum(x * d) * float((d + 1).sum())", "np.sum(x * m.X) * float(getattr(m, 'X').max())",
    "np.sum(x * m.X) * float(getattr(m, X).max())", "np.sum(x * d) * float(summed())",
    "np.sum(x * d) * float(sorted(d)[0])", "np.sum(x * d) * d.tolist()[0]",
    "np.sum(x * d) * np.linalg.norm(d)", "np.sum(x * d) * math.fsum(d)",
    "np.sum(x * d) * sum(map(float, d))", "np.sum(x * d) * max(*d)", "bound(x)", "unpacked(x)",
    "np.sum(x * d) * (lambda a: float(a[0]))([*d])", "joined(x)", "together(x)",
    "np.sum(x * d) * functools.reduce(lambda a, b: a + float(b), d, 0.0)",
    "np.sum(slope(x)) * float(d[0])", "np.sum(slope_of_both(x))", "np.sum(slope(d) * x * d)",
    "np.sum(slope_at(x, d)) * helper(d)", "np.sum(m.slope(x) * m.X * x) * m.X.max()",
    "np.sum(mapped(fnp.stack([x, x]))) * float(d[1])", "twice(x)[0] * helper(d)",
]
CHANGES = [lambda d: d.__setitem__(0, 5.0), lambda d: d.__setitem__(1, -7.0),
           lambda d: d.__setitem__(slice(None), [0.5, 9.0, 2.0])]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("anew", [False, True], ids=["changed", "bound anew"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", BY_VALUE)
def test_an_array_that_is_used_by_value_as_well(body, way, anew):
    """It changes, or another one has its name while the one that was recorded stays what it was."""
    plain, space = by_hand(f"lambda x: {body}")
    f, x = fg.compile(WAYS[way](plain)), argument(way)
    for change in [lambda d: None, *CHANGES, lambda d: None]:
        if anew:
            bind_anew(space)
        change(space["d"])
        close(f(x), WAYS[way](plain)(x))
        close(f(x), WAYS[way](plain)(x))
    if way == "compile" and not anew:
        assert [path.calls for path in f.paths] == [4, 2, 2, 2]         # replayed, all the same


def test_the_example_of_the_sum():
    d = np.array([1.0, 2.0])
    f = fg.compile(lambda x: np.sum(x * d) * float(np.sum(d)))
    assert f(np.ones(2)) == 9.0
    d[0] = 5
    assert f(np.ones(2)) == 49.0


def test_a_tree_of_arguments_that_meets_an_array():
    plain, space = by_hand("of_trees")
    f = fg.compile(plain)
    for value in (1.0, 2.0, 3.0):
        space["d"][0] = value
        close(f((X, X)), plain((X, X)))


@pytest.mark.parametrize("name", ["restored", "restored_view", "restored_whole", "restored_out",
                                  "restored_elsewhere"])
@pytest.mark.parametrize("way", ["compile", "grad"])
def test_an_array_that_is_changed_and_restored_inside(name, way):
    plain, space = by_hand(name)
    f = fg.compile(WAYS[way](plain))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in (1.0, 2.0, 3.0, 4.0):
            space["d"][1] = value
            close(f(X), WAYS[way](plain)(X))
    assert not f.paths and any("the array `d`" in str(w.message) or "changes" in str(w.message)
                               or "stores" in str(w.message) for w in caught)


# ---- operands alone -------------------------------------------------------------------------

LIVE = [
    "np.sum(x * d)", "np.sum(scale_by(x, d))", "np.sum(scale_by(x, a=d))", "np.sum(scale(x))",
    "scale(scale(x)) @ d", "m.weigh(x)", "np.sum(x @ d.T)", "W @ x @ d",
    "[x := np.tanh(A @ x + b) for A, b in params][-1] @ d",
    "np.tanh(weights['W'] @ x + weights['b']) @ d", "sum([np.sum(v * x) for v in named.values()])",
    "sum([np.sum(v * x) for k, v in named.items()])", "np.sum(net(x))", "np.sum(x[order] * x)",
    "np.sum(x * d) / d.shape[0] / len(d)", "np.sum(np.where(x > d, x, d))",
    "np.sum(np.maximum(x, d))", "x.dot(d)", "np.sum(np.concatenate([x, d]) ** 2)", "loop(x)",
    "names(x)", "error(x)", "sum([np.sum(w * x) * i for i, w in enumerate(ds)])",
    "np.sum(x * d.reshape(3))", "np.sum(x * m.data)", "np.sum(x * m.get())", "m(x) * 2",
    "np.sum(x * getattr(m, 'X'))", "np.sum(x * d) if isinstance(d, np.ndarray) else 0 * x",
    "np.sum(slope(x))", "np.sum(slope(x) * x) + np.sum(d * x)",
    "np.sum(mapped(fnp.stack([x, x])))", "twice(x)[0] + np.sum(twice(x * 2)[1])",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", LIVE)
def test_an_array_that_is_an_operand_alone_is_read_again(body, way):
    plain, space = by_hand(f"lambda x: {body}")
    f, x = fg.compile(WAYS[way](plain)), argument(way)
    net, (first, second) = space["net"], space["params"]
    for k in range(4):
        for array in (space["d"], space["W"], net.layers[0].W, net.layers[1].b, first[0], second[1],
                      space["weights"]["b"], space["named"]["b"]):
            array += 0.5 * k
        space["order"][:] = np.roll(space["order"], 1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            close(f(x), WAYS[way](plain)(x))
    assert [path.calls for path in f.paths] == [4]


def test_arguments_by_position_and_as_a_tuple():
    space = world()
    f = fg.compile(eval("lambda *xs: np.sum(xs[0] * d + xs[1])", space))
    g = fg.compile(eval("lambda p, *, k: np.sum(p[0] * d + p[1] * k * d)", space))
    for value in (1.0, 2.0, 3.0):
        space["d"][:] = value
        assert f(X, X) == np.sum(X * value + X)
        assert g((X, X), k=X) == np.sum(X * value + X * X * value)
    assert len(f.paths) == len(g.paths) == 1


def test_an_array_of_no_axes_is_read_again():
    d = np.array(2.0)
    f = fg.compile(lambda x: x * d)
    for value in (2.0, 5.0, 7.0):
        d[...] = value
        assert f(3.0) == 3.0 * value
    assert len(f.paths) == 1


def test_a_static_argument_is_no_tensor():
    d = np.array([1.0, 2.0, 3.0])
    f = fg.compile(lambda x, n: np.sum(x * d) * float(np.sum(n * d)))
    for value in (1.0, 5.0, 2.0):
        d[0] = value
        assert f(X, 2) == np.sum(X * d) * float(np.sum(2 * d))


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
def test_an_array_whose_shape_is_assigned_to():
    d = np.arange(3.0)
    f = fg.compile(lambda x: np.sum(x * d))
    assert [f(X), f(X)] == [np.sum(X * d)] * 2
    d.shape = 3, 1
    assert [f(X), f(X)] == [np.sum(X * d)] * 2 and len(f.paths) == 2
