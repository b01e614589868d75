"""What a function does when it catches the error of a Tensor: never without a word."""

import contextlib
import math
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp


def number(x):
    try:
        return math.log(x) * x
    except (TypeError, ValueError):
        return -x


def stored(x):
    a = np.zeros(2)
    try:
        a[0] = x
    except (TypeError, ValueError):
        return 3.0 * x
    return a.sum()


def hashed(x):
    with contextlib.suppress(Exception):
        return {1: x}[hash(x)]
    return 2.0 * x


def without_rule(x):
    try:
        return np.linalg.svd(np.ones((2, 2)) * x)[1][0]
    except TypeError:
        return 2.0 * x


@pytest.mark.parametrize("f", [number, stored, without_rule])
def test_a_warning_tells(f):
    for run in (fg.grad, fg.value_and_grad, lambda f: lambda x: fg.jvp(f, (x,), (1.0,)),
                lambda f: lambda x: fg.vjp(f, x), fg.jacobian, fg.hessian):
        with pytest.warns(UserWarning, match="caught an error that a Tensor raised"):
            run(f)(2.0)


@pytest.mark.parametrize("f", [number, stored, hashed, without_rule])
def test_compiled_functions_have_the_value(f):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "compile:", UserWarning)
        assert fg.compile(f)(2.0) == f(2.0)


def test_errors_of_values_are_the_functions_own():
    def f(x):
        try:
            return fnp.sum(x[10])
        except IndexError:
            pass
        try:
            return len(x[0]) * x[0]
        except TypeError:                   # a number has no len()
            return x[0] * 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(fg.grad(f)(np.ones(3)), [2.0, 0.0, 0.0])
