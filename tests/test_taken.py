"""Arrays that a function reaches by a name and takes from at a live index: rows of data, entries of
a table. A Tensor stands for them in a second recording, and both array and index are live.
"""

import numpy as np
import pytest

import fastgrad as fg

rng = np.random.default_rng(5)
X, y, T = rng.normal(size=(20, 3)), np.arange(20) % 4, rng.normal(size=(5, 4))
grid, values = np.array([0.0, 0.3, 0.6, 1.0]), np.arange(1.0, 6.0)


def batch(W, i):
    return np.sum((X[i] @ W) ** 2)


def labels(W, i):
    return np.sum(np.take_along_axis(X[i] @ W, y[i][:, None], axis=1))


def table(x):
    return np.sum(T[(x * 4).astype(int)] * x[0])


def bins(x):
    return np.sum(values[np.digitize(x, grid)] * x)


def steps(x):
    return np.sum(values[np.searchsorted(grid, x)] * x)


def rows_and_shape(W, i):
    chosen = X[i, :]
    return np.sum(chosen @ W) / len(X) + X.shape[1] + np.mean(X)


def closure():
    data = rng.normal(size=(20, 3))

    def f(W, i):
        return np.sum(np.tanh(data[i] @ W))

    return f


class Model:
    def __init__(self):
        self.data = X.copy()

    def loss(self, W, i):
        return np.sum((self.data[i] @ W) ** 2)


model, closed = Model(), closure()
DRAWN = {"W": lambda r: r.normal(size=(3, 4)), "i": lambda r: r.integers(0, 20, size=6),
         "x": lambda r: r.uniform(0.05, 0.95, size=3)}
LIVE = [batch, labels, table, bins, steps, rows_and_shape, model.loss, closed]


def drawn(f, seed):
    names = [name for name in f.__code__.co_varnames[:f.__code__.co_argcount] if name != "self"]
    r = np.random.default_rng(seed)
    return [DRAWN[name](r) for name in names]


@pytest.fixture
def restored():
    """What the tests change."""
    space, before = globals(), {name: globals()[name].copy() for name in "X y T values".split()}
    yield
    space.update(before)


@pytest.mark.parametrize("derivative", [False, True], ids=["value", "grad"])
@pytest.mark.parametrize("f", LIVE)
def test_live(f, derivative, restored):
    global X, y, T, values
    plain = fg.grad(f) if derivative else f
    program = fg.compile(plain)
    for step in range(9):
        args = drawn(f, step)
        np.testing.assert_allclose(program(*args), plain(*args), rtol=1e-12)
        if step == 4:                   # in place
            X += 0.1
            values += 0.1
            T += 0.1
            model.data += 0.1
        elif step == 6:                 # bound anew
            X, y, T, values = X * 2, y[::-1].copy(), T * 3, values * 2
            model.data = model.data * 2
    assert len(program.paths) == 1 and program.paths[0].calls >= 7


def writes_a_row(x, i):
    row = values[i]
    row += x[0]
    return np.sum(row)


def writes_a_view(x, i):
    part = values[1:]
    part[0] = 3.0
    return np.sum(values[i] * x[0])


def asks_for_the_type(x, i):
    return np.sum(values[i]) * (2.0 if isinstance(values, np.ndarray) else 3.0) * x[0]


def asks_for_a_scalar(x, i):
    return np.sum(values[i]) * (2.0 if np.isscalar(values[0]) else 3.0) * x[0]


def hands_on(x, i):
    return np.sum(np.array(list(values))[i] * x[0])


def other(i):
    return values[i]


def in_a_helper(x, i):
    return np.sum(other(i)) * x[0]


@pytest.mark.parametrize("f", [writes_a_row, writes_a_view, asks_for_the_type,
                               asks_for_a_scalar, hands_on, in_a_helper])
@pytest.mark.filterwarnings("ignore")
def test_not_a_tensor(f, restored):
    """Where a Tensor would do something else, the array stays one."""
    program, r = fg.compile(f), np.random.default_rng(2)
    for _ in range(4):
        x, i = r.normal(size=3), r.integers(0, 5, size=4)
        before = values.copy()
        wanted = f(x, i)
        written, values[:] = values.copy(), before
        np.testing.assert_allclose(program(x, i), wanted)
        np.testing.assert_array_equal(values, written)


@pytest.mark.filterwarnings("ignore")
def test_a_name_that_stands_for_something_else_later(restored):
    global values
    program, r = fg.compile(bins), np.random.default_rng(3)
    for kind in (np.array, np.array, list, np.array, lambda x: np.array(x, dtype=object), np.float32):
        values = kind([1.0, 2.0, 3.0, 4.0, 5.0])
        for _ in range(2):
            x = r.uniform(0.05, 0.95, size=3)
            try:
                wanted = bins(x)
            except TypeError:
                with pytest.raises(TypeError):
                    program(x)
            else:
                np.testing.assert_allclose(np.asarray(program(x), float), np.asarray(wanted, float))
