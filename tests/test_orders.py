"""What `reshape` and `ravel` give is a view or a copy by the order of the array in memory, which
shows when somebody writes to it: compiled functions do as the plain ones."""

import numpy as np
import pytest
from sides import description

import fastgrad as fg
import fastgrad.numpy as fnp

pytestmark = pytest.mark.filterwarnings("ignore:compile")


def raveled(x):
    y = x.ravel()
    y[0] = 8.0
    return np.sum(x)


def turned(x):
    y = x.T.ravel()
    y[0] = 9.0
    return np.sum(x)


def turned_by_numpy(x):
    y = np.ravel(np.transpose(x))
    y[0] = 9.0
    return np.sum(x)


def turned_here(x):
    z = fnp.transpose(x) * 1.0
    y = fnp.ravel(z)
    y[0] = 8.0
    return y, z


def computed(x):
    z = x * 2.0
    z.reshape(-1)[1] = 50.0
    return z


def turned_and_computed(x):
    z = x.T + 1.0
    z.reshape(-1)[1] = 50.0
    return z


def turned_and_like(x):
    z = np.zeros_like(x.T)
    z.ravel()[1] = 50.0
    return z


def raised(x):
    z = x * 1.0
    y = z.reshape(-1)
    y += 1.0
    return z, y


def filled(x):
    z = x * 1.0
    z.ravel().fill(3.0)
    return z


def handed_over(x):
    def first(y):
        y[0] = 7.0

    z = x * 1.0
    first(z.reshape(-1))
    return z


def given_back(x):
    x.reshape(-1)[0] = 4.0
    return x


def in_order(x):
    return x.copy()


def of_columns(x):
    return np.array(x, order="F")


def reversed_rows(x):
    return x[::-1].copy()[::-1]


def every_other(x):
    return np.repeat(x, 2, axis=-1)[..., ::2]


ORDERS = [in_order, of_columns, reversed_rows, every_other]


@pytest.mark.parametrize("f", [raveled, turned, turned_by_numpy, turned_here, computed,
                               turned_and_computed, turned_and_like, raised, filled, handed_over, given_back])
def test_orders(f):
    """In each order of calls, so that no path serves arrays that lie otherwise."""
    data = np.arange(6.0).reshape(2, 3)
    for start in range(len(ORDERS)):
        program = fg.compile(f)
        for k in range(2 * len(ORDERS)):
            order = ORDERS[(start + k) % len(ORDERS)]
            mine, theirs = order(data + k), order(data + k)
            answer = program(mine)
            assert description(answer) == description(f(theirs)), order
            assert not isinstance(answer, np.ndarray) or not np.shares_memory(answer, mine)
            assert description(mine) == description(theirs), order


@pytest.mark.parametrize("f", [raveled, computed, raised, handed_over])
def test_what_lies_in_order_is_replayed(f):
    program = fg.compile(f)
    for k in range(3):
        program(np.arange(6.0).reshape(2, 3) + k)
    assert [path.calls for path in program.paths] == [3]
