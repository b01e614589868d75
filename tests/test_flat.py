"""`Tensor.flat`, beside that of arrays, and lists that are repeated an integer Tensor's number of times."""

import numpy as np
import pytest

import fastgrad as fg


def largest(x):
    y = x * 1
    y.flat[np.argmax(y)] = 7
    return y


def repeated(x):
    y = x.T * 1
    y.flat = [1.0, 2.0]
    return y + x.T


def turned(x):
    y = x * 1
    y.T.flat[1:4] = y[0]
    return y


def chosen(x):
    y = x * 1
    y.flat[[0, 5]] = x[1, :2]
    y.flat[y.ravel() > 3] = 0
    return y


def walked(x):
    total, entries = 0.0, x.flat
    next(entries)
    for k, v in enumerate(entries):
        total = total + k * v
    return total + len(x.flat)


def given(x):
    return np.sum(x.flat) * np.asarray(x.flat[2])


def counted(x):
    k = int(np.argmax(x[0]))
    weights = [0.0] * np.argmax(x[0]) + [1.0] + [0.0] * (2 - k)
    weights *= np.sum(x > 2)
    return x.sum() * len(weights) + sum([a * b for a, b in zip(weights, x[1])])


def multiplied(x):
    return [1.0, 2.0] * np.asarray(np.argmax(x)) * x[0, 0]      # an array of no axis


@pytest.mark.parametrize("f", [largest, repeated, turned, chosen, walked, given, counted, multiplied])
def test_as_arrays_have_it(f):
    arrays = [np.array(x) for x in ([[1.0, 5.0, 2.0], [3.0, 4.0, 0.0]], [[9.0, 5.0, 2.0], [3.5, 1.0, 0.0]],
                                    [[1.0, 1.5, 7.0], [3.0, 4.0, 8.0]])]
    program = fg.compile(f)
    for x in arrays * 2:
        wanted = f(x.copy())
        np.testing.assert_array_equal(program(x.copy()), wanted)
        found = f(fg.tensor(x))
        np.testing.assert_array_equal(found.numpy() if isinstance(found, fg.Tensor) else found, wanted)
    if f not in (given, chosen, counted):       # an array is handed out, counts differ between lanes
        np.testing.assert_array_equal(fg.vmap(f)(np.stack(arrays)), np.stack([f(x) for x in arrays]))
        fg.testing.check_grads(f, arrays[0])


@pytest.mark.parametrize("f", [largest, repeated, turned, walked])
def test_written_entries_are_replayed(f):
    program = fg.compile(f)
    for shift in range(3):
        program(np.arange(6.0).reshape(2, 3) + shift)
    assert len(program.paths) == 1 and not program.reasons
