"""Functions that are made anew for each call and given to a compiled one: those of one code over equal
cells are one signature, and each is answered by what its own cells hold.
"""

import functools

import numpy as np
import pytest

import fastgrad as fg


def scaled(k):
    def g(x):
        return x * k

    def put(value):
        nonlocal k
        k = value

    return g, put


def applied(x, g):
    return g(x) + 1.0


def test_one_signature():
    program = fg.compile(applied)
    for k in range(300):
        assert program(float(k), scaled(3.0)[0]) == k * 3.0 + 1.0
    assert len(program.paths) == 1 and program.reasons == []


def test_defaults_and_options():
    program = fg.compile(applied)
    for step in range(3):
        for a, b in ((2.0, 3.0), (2.0, 4.0), (5.0, 3.0)):
            assert program(1.5, lambda x, a=a, *, b=b: x * a + b) == 1.5 * a + b + 1.0
    assert len(program.paths) == 3


def test_cells_that_change():
    program = fg.compile(applied)
    (one, put_one), (other, put_other) = scaled(3.0), scaled(3.0)

    def same():
        for g in (one, other, scaled(3.0)[0], scaled(4.0)[0], scaled(5.0)[0], one, other):
            for x in (1.0, 2.0):
                assert program(x, g) == applied(x, g)

    same()
    for put, value in ((put_one, 4.0), (put_other, 5.0), (put_one, 3.0), (put_one, 5.0),
                       (put_other, 3.0)):
        put(value)
        same()


def test_arrays_and_functions_in_cells():
    def over(a):
        return lambda x: np.sum(x * a)

    def after(f):
        return lambda x: f(x) * 2.0

    program = fg.compile(lambda x, g: g(x))
    x, shared = np.ones(3), np.ones(3)
    for k in range(6):
        assert program(x, over(np.full(3, float(k)))) == 3.0 * k
        assert program(x, over(shared)) == np.sum(shared)
        assert program(x, after(np.sum if k % 2 else np.max)) == (6.0 if k % 2 else 2.0)
        shared += 1.0


def test_one_code_and_other_globals():
    spaces = [{"k": 2.0}, {"k": 3.0}]
    for space in spaces:
        exec("g = lambda x: x * k", space)
    code = spaces[0]["g"].__code__
    functions = [type(spaces[0]["g"])(code, space) for space in spaces]
    program = fg.compile(applied)
    for _ in range(3):
        for g in functions:
            assert program(1.0, g) == applied(1.0, g)


def test_which_function_it_is():
    """Another one is not found where the first was kept."""
    kept = {}

    def looked_up(x, g):
        return kept.get(g, 1.0) * g(x)

    first, program = scaled(3.0)[0], fg.compile(looked_up)
    kept[first] = 5.0
    for _ in range(3):
        for g in (first, scaled(3.0)[0]):
            assert program(2.0, g) == looked_up(2.0, g)


@pytest.mark.parametrize("wrap", [fg.grad, functools.partial(fg.value_and_grad, argnums=0)])
def test_derivatives(wrap):
    program = fg.compile(wrap(applied))
    plain = wrap(applied)
    for k in (3.0, 3.0, 4.0, 3.0):
        assert program(2.0, scaled(k)[0]) == plain(2.0, scaled(k)[0])
