"""Errors that depend on values, caught by the function: the next call may not meet them.

Each function is run beside the plain one, with arguments that raise and with others, in both
orders.
"""

import math

import numpy as np
import pytest
from sides import recorded, side_by_side

import fastgrad as fg
import fastgrad.numpy as fnp

pytestmark = pytest.mark.filterwarnings("ignore:compile", "ignore:vmap")

A = np.array([3.0, 1.0, 2.0])
SINGULAR, REGULAR = np.zeros((2, 2)), np.array([[2.0, 1.0], [0.0, 4.0]])


# ---- errors of NumPy, of int() and of indices -----------------------------------------------

def summed(a, i):
    try:
        return np.sum(a[i] * 2)
    except IndexError:
        return -np.sum(a)


def assigned(a, i):
    y = a * 1.0
    try:
        y[i] = 0.0
    except IndexError:
        y[0] = -1.0
    return y


def taken(a, i):
    try:
        return a.take(i)
    except IndexError:
        return -a


def along(a, i):
    try:
        return np.take_along_axis(a, i, 0)
    except IndexError:
        return -a


def taken_by_fnp(a, i):
    try:
        return fnp.take(a, i)
    except IndexError:
        return -a


def repeated_by_fnp(a, n):
    try:
        return fnp.repeat(a, n)
    except ValueError:
        return -a


def inverse(a):
    try:
        return np.linalg.inv(a)
    except np.linalg.LinAlgError:
        return np.zeros_like(a)


def inverse_of_fnp(a):
    try:
        return fnp.linalg.inv(a)
    except np.linalg.LinAlgError:
        return np.zeros_like(a)


def power(a):
    try:
        return np.linalg.matrix_power(a, -1)
    except np.linalg.LinAlgError:
        return a * 3


def histogram(a, low, high):
    try:
        return np.histogram(a, bins=2, range=(low, high))[0]
    except ValueError:
        return np.zeros(2)


def whole(x):
    try:
        return int(x)
    except (OverflowError, ValueError):
        return -1


def which(x):
    try:
        return math.floor(x)
    except (OverflowError, ValueError) as error:
        return len(type(error).__name__)


def entry(a):
    try:
        return round(a[1] / a[0])
    except (OverflowError, ValueError):
        return -1


BAD_AND_GOOD = [
    (summed, (A, np.array([1, 9])), (A, np.array([1, 0]))),
    (summed, (A, np.int64(7)), (A, np.int64(1))),
    (assigned, (A, np.array([7])), (A, np.array([1]))),
    (taken, (A, np.array([7])), (A, np.array([1]))),
    (along, (A, np.array([7])), (A, np.array([1]))),
    (taken_by_fnp, (A, np.array([7])), (A, np.array([1]))),
    (repeated_by_fnp, (A, np.array([1, -1, 2])), (A, np.array([1, 1, 2]))),
    (inverse, (SINGULAR,), (REGULAR,)),
    (inverse_of_fnp, (SINGULAR,), (REGULAR,)),
    (power, (SINGULAR,), (REGULAR,)),
    (histogram, (A, 2.0, 1.0), (A, 0.0, 3.0)),
    (whole, (math.inf,), (2.5,)),
    (whole, (np.float64(np.nan),), (np.float64(6.5),)),
    (which, (math.nan,), (math.inf,)),
    (which, (math.inf,), (2.5,)),
    (entry, (np.array([0.0, 1.0]),), (np.array([1.0, 3.0]),)),
]


@pytest.mark.parametrize("f, bad, good", BAD_AND_GOOD)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_an_error_of_values_is_met_anew(f, bad, good):
    side_by_side(lambda: (f, dict), bad, good, bad, good, good)
    side_by_side(lambda: (f, dict), good, bad, good, bad)


@pytest.mark.parametrize("f, bad, good", BAD_AND_GOOD[:4:2])
def test_also_in_derivatives_and_lanes(f, bad, good):
    derivative = fg.jacobian(f)
    compiled = fg.compile(derivative)
    for args in (bad, good, bad):
        np.testing.assert_array_equal(compiled(*args), derivative(*args))
    lanes = [np.stack([x, y]) for x, y in zip(bad, (good[0] * 2, np.resize(good[1], bad[1].shape)))]
    np.testing.assert_array_equal(fg.vmap(f)(*lanes), [f(*lane) for lane in zip(*lanes)])


def test_what_the_shape_decides_stays_a_program():
    """The end of an iteration is an IndexError, too, and so is that of a search by whole numbers."""
    def f(a):
        total = 0.0
        for x in a:
            total = total + x * x
        try:
            return total + a[7]
        except IndexError:
            return total

    program = fg.compile(f)
    for a in (A, A + 1, A - 1):
        assert program(a) == f(a)
    assert recorded(program) == 1


# ---- errors of Python's floats --------------------------------------------------------------

def inverse_of(x):
    try:
        return 1 / x
    except ZeroDivisionError:
        return 0.0


def remainder(x, y):
    try:
        return x % y
    except ArithmeticError:
        return x


def squared(x):
    try:
        return x ** 2
    except (ValueError, OverflowError):
        return -1.0


def secant(a, b):
    for _ in range(30):
        fa, fb = a * a - 2, b * b - 2
        try:
            a, b = b, b - fb * (b - a) / (fb - fa)
        except ZeroDivisionError:
            break
    return b


def in_another(x):
    try:
        return inner(x)
    except Exception:
        return 7.0


def inner(x):
    return 2.0 / (x - 1.0)


@pytest.mark.parametrize("f, calls", [
    (inverse_of, [(2.0,), (0.0,), (4.0,)]), (inverse_of, [(0.0,), (2.0,)]),
    (remainder, [(5.0, 3.0), (2.0, 0.0)]), (squared, [(3.0,), (1e200,), (2.0,)]),
    (secant, [(1.0, 2.0), (1.5, 3.0)]), (in_another, [(2.0,), (1.0,), (3.0,)])])
def test_errors_of_floats(f, calls):
    side_by_side(lambda: (f, dict), *calls)


def test_a_step_that_catches_one():
    def f(x):
        def step(i, y):
            try:
                return y + 1 / (i - 1)
            except ZeroDivisionError:
                return y + 100.0
        return fg.fori_loop(0, 3, step, x)

    assert fg.compile(f)(1.0) == f(1.0) == 101.0


@pytest.mark.parametrize("f", [
    lambda x: other_error(x), lambda x: np.sum(x / 2.0)])
def test_other_handlers_stay_programs(f):
    """Arrays do not raise, and KeyError is none of these."""
    program = fg.compile(f)
    for x in (A, A + 1):
        np.testing.assert_array_equal(program(x), f(x))
    assert recorded(program) == 1


def other_error(x):
    try:
        return x / {"a": 2.0}["b"]
    except KeyError:
        return x / 2.0


# ---- what only a Tensor would refuse --------------------------------------------------------

I = np.array([1, 0])


@pytest.mark.parametrize("f, args", [
    (lambda a, i: a[[i[0], i[1]]], (A, I)), (lambda a, i: a[list(i)], (A, I)),
    (lambda a: a[[np.argmax(a), 0]], (A,)), (lambda a: a[list(a > 1.5)], (A,)),
    (lambda a: a[[[np.argmax(a)], [0]]], (A,)), (lambda a, i: a.reshape(i), (A, np.array([3, 1]))),
    (lambda a, i: a.reshape(i), (A, np.array([1, 3]))), (lambda a, i: a.reshape(i), (A, np.int64(3)))])
def test_lists_of_numbers_as_indices_and_arrays_as_shapes(f, args):
    def caught(*args):
        try:
            return f(*args)
        except Exception:
            return "caught"

    other = (A[::-1] + 0.5, *args[1:])
    side_by_side(lambda: (f, dict), args, other, args)
    side_by_side(lambda: (caught, dict), args, other, args)
    swapped = (other[0], *[i[::-1].copy() if np.ndim(i) else i for i in args[1:]])
    side_by_side(lambda: (f, dict), args, swapped, args)


# ---- truths of Python's floats --------------------------------------------------------------

@pytest.mark.parametrize("f", [
    lambda x: (x > 0) + (x > 1) + (x > 2), lambda x: (x > 0) - (x < 0), lambda x: "*" * (x > 0),
    lambda x: [1.0, 2.0] * (x > 0), lambda x: x * (x > 0), lambda x: 2 ** (x > 1),
    lambda x: 1.0 if (x > 0) + (x > 1) >= 2 else 0.0, lambda x: (x > 1) * 3.5,
    lambda x: (1.5, -1.5)[x > 1]])
def test_truths_are_numbers(f):
    side_by_side(lambda: (f, dict), (1.5,), (2.5,), (-1.0,), (0.5,), (1.5,))


@pytest.mark.parametrize("f", [lambda x: [1, 2] * x, lambda x: [1.0] + x, lambda x: x * (1.0, 2.0)])
def test_a_float_does_not_repeat_a_list(f):
    for g in (f, fg.compile(f)):
        with pytest.raises(TypeError):
            g(2.5)


@pytest.mark.parametrize("f", [lambda a: a == None, lambda a: np.sum(a != None),     # noqa: E711
                               lambda a: a * 2 == None])                            # noqa: E711
def test_none_is_compared_with_each_entry(f):
    side_by_side(lambda: (f, dict), (A,), (A + 1,))


# ---- errors that NumPy is asked for ---------------------------------------------------------

def logarithm(x):
    with np.errstate(all="raise"):
        try:
            return np.log(x)
        except FloatingPointError:
            return np.full(2, -1.0)


def quiet(x):
    with np.errstate(divide="ignore", invalid="warn"):
        return np.log(x)


def test_errors_of_floating_point_numbers_that_are_asked_for():
    f = side_by_side(lambda: (logarithm, lambda: None),
                     (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),))
    assert recorded(f) == 0
    f = fg.compile(quiet)
    with np.errstate(all="ignore"):
        f(np.array([1.0, 2.0]))
    assert recorded(f) == 1


@pytest.mark.parametrize("asks", [np.shares_memory, np.may_share_memory])
def test_whether_memory_is_shared(asks):
    side_by_side(lambda: (lambda x: (asks(x[1:], x), asks(x * 1, x)), lambda: None),
                 (np.ones(3),), (np.ones(3),))
