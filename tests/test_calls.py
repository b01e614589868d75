"""What a call of a compiled function does: as often as it is called, and nothing but what f does.

Each case is run beside the plain function, with state of its own: results, arguments and state must
agree after every call.
"""

import builtins
import calendar
import cmath
import collections
import copy
import dataclasses
import datetime
import decimal
import fractions
import functools
import json
import math
import operator
import pickle
import random
import statistics
import struct
import sys
import threading
import types
import warnings
import zlib

import numpy as np
import pytest
from sides import Particle, description, recorded, side_by_side

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import trees
from fastgrad.code.effects import effects

pytestmark = pytest.mark.filterwarnings("ignore:compile", "ignore:the matrix subclass",
                                        "ignore:.*does not depend on the arguments")

X, Y = np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])


# ---- one call is one run ----------------------------------------------------------------------

def counted(body):
    """f that counts its runs in a list, in a way that only shows after the first."""
    runs, note = [], operator.methodcaller("append", 1)

    def f(*args):
        note(runs)
        return body(*args)
    assert effects(f, (2.0,)).reason is None
    return f, lambda: len(runs)


# What a Tensor of a transformation refuses, of a float and of an array.
USES = {
    "float": lambda x: float(x) * 2, "int": lambda x: int(x) * x, "math": lambda x: math.sin(x) * x,
    "complex": lambda x: abs(complex(x)), "hash": lambda x: {2.0: 5.0}.get(x, 1.0) * x,
    "set": lambda x: len({x, x * 1.0}) * x, "pickle": lambda x: pickle.loads(pickle.dumps(x)) * 2,
    "struct": lambda x: struct.unpack("d", struct.pack("d", x))[0], "text": lambda x: f"{x:.2f}",
    "repr": lambda x: repr(x), "str": lambda x: str(x * 2), "%": lambda x: "%r %s" % (x, x),
    "is_integer": lambda x: x.is_integer(), "hex": lambda x: x.hex(),
    "imag": lambda x: x.imag + x.real + x.conjugate(), "gamma": lambda x: math.gamma(x) + math.pi,
    "deepcopy": lambda x: copy.deepcopy([x])[0] * 2, "in": lambda x: x in (2.0, 5.0),
}
ARRAY_USES = {
    "asarray": lambda x: np.sum(np.asarray(x) * 2), "matrix": lambda x: np.matrix(x) * 2,
    "matrix product": lambda x: float((np.matrix(x) * np.matrix(x).T)[0, 0]),
    "array": lambda x: np.array([x[0], x[1] * 2]), "tolist": lambda x: x.tolist()[0] * 2,
    "no rule": lambda x: np.unwrap(x)[0] + np.i0(x)[1], "no method": lambda x: x.cumprod(),
    "rank": lambda x: np.linalg.matrix_rank(np.outer(x, x)),
    "where=": lambda x: np.sum(x, where=x > 1.5), "order": lambda x: np.ravel(x, order="K"),
    "median": lambda x: np.median(x), "argsort": lambda x: np.argsort(x)[0] * x[0],
    "pickle": lambda x: pickle.loads(pickle.dumps(x)) * 2, "bytes": lambda x: x.tobytes(),
    "sorted": lambda x: sorted(x.tolist()), "text": lambda x: f"{x}", "repr": lambda x: repr(x),
    "histogram": lambda x: np.histogram(x, 2)[0], "unique": lambda x: np.unique(x),
    "counter": lambda x: collections.Counter(x.tolist())[1.0],
}


def written(body):
    def f(x):
        a = np.zeros(3)
        a = body(a, x) if body(a, x) is not None else a
        return a * 2
    return f


def rows(a, x):
    a[0] = x[1]
    a[1:] = x[:2]


def whole(a, x):
    a[:] = x


def added(a, x):
    a += x
    return a


ARRAY_USES |= {"rows": written(rows), "whole": written(whole), "+=": written(added),
               "out=": written(lambda a, x: np.add(x, 1.0, out=a)),
               "copyto": written(lambda a, x: np.copyto(a, x)),
               "at": written(lambda a, x: np.add.at(a, [0, 1, 1], x))}


@pytest.mark.parametrize("name", USES)
def test_uses_of_a_number(name):
    plain, (f, count) = USES[name], counted(USES[name])
    for program in (fg.compile(f), fg.compile(plain)):
        for x in (2.0, 3.5, -0.5 if name != "gamma" else 0.5, 2.0):
            assert description(program(x)) == description(plain(x))
    assert count() == 4


@pytest.mark.parametrize("name", ARRAY_USES)
def test_uses_of_an_array(name):
    plain, (f, count) = ARRAY_USES[name], counted(ARRAY_USES[name])
    for program in (fg.compile(f), fg.compile(plain)):
        for x in (X, Y, X * 2, X[::-1].copy()):
            got, wanted = program(x.copy()), plain(x.copy())
            assert type(got) is type(wanted) and description(got) == description(wanted)
    assert count() == 4


@pytest.mark.parametrize("name", [*USES, *ARRAY_USES])
@pytest.mark.parametrize("transform", [fg.grad, fg.jacobian, fg.hessian])
def test_uses_of_what_is_not_differentiated(name, transform):
    """To a derivative's function it is a number or an array, as without `compile`."""
    use = (USES | ARRAY_USES)[name]
    plain = transform(lambda w, x: (w * w, use(x)), has_aux=True)
    program = fg.compile(plain)
    for x in (2.0, 3.5, 0.5, 2.0) if name in USES else (X, Y, X * 2, X[::-1].copy()):
        got, wanted = program(2.0, x), plain(2.0, x)
        assert description(got) == description(wanted)


# To the lanes and steps of these, what the program is given is from outside, and always the same.
INSIDE = {
    "vmap": lambda use, x: fg.vmap(lambda v: (v * 2, use(x)))(X),
    "grad of vmap": lambda use, x: fg.grad(
        lambda w: (np.sum(fg.vmap(lambda v: (v * w, use(x))[0])(X)), use(x)), has_aux=True)(2.0),
    "vmap of grad": lambda use, x: fg.vmap(fg.grad(lambda v: (use(x), v * v)[1]))(X),
    "scan": lambda use, x: fg.scan(lambda c, v: (c * v, (use(x), c + v)[1]), 1.0, X),
    "grad of scan": lambda use, x: fg.grad(
        lambda w: fg.scan(lambda c, v: (c * v, (use(x), c + v)[1]), w, X)[0])(2.0),
    "jacobian in vmap": lambda use, x: fg.vmap(
        lambda v: fg.jacobian(lambda w: (use(x), w * w * v)[1])(Y))(X),
}


@pytest.mark.parametrize("name", [*USES, *ARRAY_USES])
@pytest.mark.parametrize("way", INSIDE)
def test_uses_inside_of_lanes_and_steps(name, way):
    use, inside = (USES | ARRAY_USES)[name], INSIDE[way]
    numeric = name not in ("text", "repr", "str", "%", "hex", "bytes", "is_integer", "in")

    def looked(x):                      # only numbers and arrays are results of a lane
        y = use(x)
        return np.sum(np.asarray(y, float)) if numeric else float(len(str(y)))

    program = fg.compile(lambda x: inside(looked, x))
    for x in (2.0, 3.5, 0.5, 2.0) if name in USES else (X, Y, X * 2, X[::-1].copy()):
        assert description(program(x)) == description(inside(looked, x))


@pytest.mark.parametrize("use", [
    lambda x: json.loads(json.dumps(x)), lambda x: float(decimal.Decimal(x)),
    lambda x: float(fractions.Fraction(x)), lambda x: datetime.timedelta(seconds=x).total_seconds(),
    lambda x: [5.0, 6.0, 7.0, 8.0][round(x)] * x])
def test_what_others_refuse(use):
    """Functions of C that take no Tensor."""
    program = fg.compile(use)
    for x in (2.0, 3.0, 0.0):
        assert calls_of(use, lambda: program(x)) == 1
        assert description(program(x)) == description(use(x))


STRICT = [lambda x: json.loads(json.dumps(x)), lambda x: json.dumps({"x": [x, 1]}),
          lambda x: float(decimal.Decimal(x)), lambda x: struct.pack("d", x),
          lambda x: datetime.timedelta(seconds=x).total_seconds(),
          lambda x: datetime.date.fromtimestamp(float(x)).year]


@pytest.mark.parametrize("f", STRICT)
def test_what_takes_no_tensor_is_found_before_the_first_run(f):
    """The function is not run twice, though its first run would end halfway."""
    program = fg.compile(f)
    for x in (2.0, 3.0):
        assert calls_of(f, lambda: program(x)) == 1
        assert description(program(x)) == description(f(x))


# Functions of libraries, called with whatever comes: what is in no table is not recorded.
LIBRARIES = [math, cmath, statistics, operator, calendar, zlib, np, np.linalg, np.fft, builtins]
UNFIT = frozenset(
    "input exit quit breakpoint help exec eval open print copyright credits license id save savez "
    "savez_compressed savetxt load loadtxt fromfile memmap genfromtxt test set_printoptions setbufsize "
    "seterr seterrcall set_typeDict empty empty_like show_config show_runtime info seed setstate "
    "random getrandbits randbytes choice shuffle sample main bytes_".split())


def answer(f, x):
    try:
        return f(np.array(x) if isinstance(x, np.ndarray) else x)
    except Exception as error:
        return type(error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", LIBRARIES, ids=lambda module: module.__name__)
def test_functions_of_libraries_are_called_once(module):
    """Where the plain function gives an answer, the compiled one does, and has run once."""
    given = 0
    for name in sorted(set(dir(module)) - UNFIT):
        callee = getattr(module, name)
        if name.startswith("_") or not callable(callee):
            continue
        for f in (lambda x: callee(x), lambda x: callee(x, x), lambda x: callee([x, 2.0]),
                  lambda x: callee(x) if np.sum(x) > 0 else x):
            for x in (1.3, X, np.outer(X, Y)):
                with np.errstate(all="ignore"):
                    wanted = answer(f, x)
                    if isinstance(wanted, type):
                        continue
                    got = []
                    runs = calls_of(f, lambda: got.append(answer(fg.compile(f), x)))
                given += 1
                assert runs == 1, (name, x)
                assert not isinstance(got[0], type), (name, x, got)
                if isinstance(wanted, (float, np.ndarray)) and np.asarray(wanted).dtype.kind in "fc":
                    np.testing.assert_allclose(got[0], wanted, 1e-14, 1e-15, err_msg=str((name, x)))
    assert given


def test_what_reads_the_memory_of_an_array_is_found_before_the_first_run():
    for f in (lambda x: bytes(x), lambda x: bytearray(x), lambda x: np.frombuffer(x),
              lambda x: memoryview(x).nbytes, lambda x: zlib.crc32(x)):
        program = fg.compile(f)
        assert calls_of(f, lambda: program(X)) == 1
        assert description(program(Y)) == description(f(Y))


def test_an_error_that_numpy_raises_of_the_values_is_no_second_run():
    for f in (lambda x: np.vsplit(x), lambda x: np.linalg.inv(x), lambda x: np.take(x),
              lambda x: np.split(x, 2), lambda x: np.add.reduce(x, out=5)):
        program = fg.compile(f)
        for _ in range(2):
            with pytest.raises(Exception) as got:
                assert calls_of(f, lambda: program(X)) == 1
                program(X)
            with pytest.raises(Exception) as wanted:
                f(X)
            assert (got.type, str(got.value)) == (wanted.type, str(wanted.value))


def test_an_error_that_is_no_matter_of_types_is_no_second_run():
    cases = [(lambda x: math.sqrt(-x), 2.0), (lambda x: math.log(x - 2.0), 2.0),
             (lambda x: int("a" * int(x)), 2.0), (lambda x: [1.0].index(x), 2.0),
             (lambda x: [y for y, z in (x, x)], X), (lambda x: fnp.reshape(x, (2, 2)), X),
             (lambda x: x[[7]], X), (lambda x: math.comb(int(-x), 2), 2.0), (lambda x: max([]) + x, 2.0)]
    for f, x in cases:
        program = fg.compile(f)
        for _ in range(2):
            with pytest.raises(Exception) as wanted:
                f(x)
            got = []
            runs = calls_of(f, lambda: got.append(pytest.raises(wanted.type, program, x)))
            assert runs == 1


def test_what_asks_for_a_scalar():
    def scalar_only(x):
        if not np.isscalar(x):
            raise ValueError("not a scalar")
        return x * 2

    program = fg.compile(scalar_only)
    for x in (2.0, 3.0):
        assert program(x) == 2 * x


def test_out_by_position_is_an_argument_that_is_written_to():
    for ufunc in (np.fabs, np.conj, np.trunc, np.isfinite, np.sin):
        program = fg.compile(lambda x: ufunc(x, x))
        for x in (X - 1.5, Y - 2.5):
            got, wanted = x.copy(), x.copy()
            np.testing.assert_allclose(program(got), ufunc(wanted, wanted), 1e-15)
            np.testing.assert_allclose(got, wanted, 1e-15)


# What changes an array among the arguments, by NumPy's functions and methods.
WRITES = {
    "put": lambda x: np.put(x, [0], 9.0), "place": lambda x: np.place(x, x > 1, [1.0, 2.0]),
    "putmask": lambda x: np.putmask(x, x > 1, -x), "copyto": lambda x: np.copyto(x, x * 2),
    "put_along_axis": lambda x: np.put_along_axis(x, np.argmax(x, 1, keepdims=True), 0.0, 1),
    "fill_diagonal": lambda x: np.fill_diagonal(x, 5.0),
    "fill_diagonal by rows": lambda x: np.fill_diagonal(x, x[0]),
    "fill_diagonal by itself": lambda x: np.fill_diagonal(x, x.T * 2),
    "sort": lambda x: x.sort(), "sort by columns": lambda x: x.sort(axis=0), "fill": lambda x: x.fill(3.0),
    "partition": lambda x: x.partition(1), "resize": lambda x: x.resize(9),
    "clip": lambda x: np.clip(x, 1, 2, out=x), "round": lambda x: np.round(x / 3, out=x),
    "cumsum": lambda x: np.cumsum(x, axis=0, out=x), "cumsum by place": lambda x: np.cumsum(x, 0, None, x),
    "shuffle": lambda x: np.random.default_rng(0).shuffle(x),
    "nan_to_num": lambda x: np.nan_to_num(x, copy=False), "byteswap": lambda x: x.byteswap(inplace=True),
    "take": lambda x: np.take(x, [0, 4, 8], out=x[1]), "sum": lambda x: np.sum(x, axis=0, out=x[0]),
    "mean": lambda x: np.mean(x, axis=0, out=x[1]), "dot": lambda x: np.dot(x, x.T, out=x),
    "matmul": lambda x: np.matmul(x, x, out=x), "at": lambda x: np.add.at(x, [0], 1.0),
    "concatenate": lambda x: np.concatenate([x[:1], x[:2]], out=x),
    "accumulate": lambda x: np.maximum.accumulate(x, out=x),
    "reduce": lambda x: np.add.reduce(x, axis=0, out=x[0]),
}


@pytest.mark.parametrize("name", WRITES)
def test_functions_that_write_to_an_argument(name):
    for f in (WRITES[name], lambda x: (WRITES[name](x), x * 2)):
        program = fg.compile(f)
        for x in (np.outer(X, Y), np.outer(Y, X) - 3.0, np.outer(Y, Y)):
            got, wanted, results = x.copy(), x.copy(), []
            with np.errstate(all="ignore"):
                assert calls_of(f, lambda: results.append(program(got))) <= 1
                assert description(results[0]) == description(f(wanted))
            np.testing.assert_array_equal(got, wanted)


# The same of what the function makes itself: Tensors without derivative, of any dtype, and views.
WRITTEN = {
    "zeros_like": np.zeros_like, "fnp.zeros": lambda x: fnp.zeros((3, 3)), "argsort": np.argsort,
    "mask": lambda x: x > 2.0, "integers": lambda x: x.astype(int), "float": lambda x: x * 1.0,
    "view": lambda x: np.argsort(x)[1:], "columns": lambda x: (x > 2.0).T,
}
WRITERS = {
    "put": lambda y, x: np.put(y, [np.argmax(x[0]), 0], 1), "copyto": lambda y, x: np.copyto(y, x[0] > 2),
    "copyto where": lambda y, x: np.copyto(dst=y, src=True, where=x[:len(y)] > 1),
    "copyto of a Tensor": lambda y, x: np.copyto(y, x[0], casting="unsafe"),
    "place": lambda y, x: np.place(y, x[:len(y)] > 1, [0, 1]),
    "putmask": lambda y, x: np.putmask(y, x[:len(y)] > 1, [1, 0]),
    "fill_diagonal": lambda y, x: np.fill_diagonal(y, 1),
    "put_along_axis": lambda y, x: np.put_along_axis(y, np.argmax(x[:len(y)], 1, keepdims=True), 1, 1),
    "choose": lambda y, x: np.choose(y * 0, [y, y[::-1]], out=y),
    "median": lambda y, x: np.median(y, overwrite_input=True),
    "einsum": lambda y, x: np.einsum("ij,ij->ij", y, y, out=y),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("made", WRITTEN)
def test_functions_that_write_to_what_is_made(made, name):
    def f(x):
        y = WRITTEN[made](x)
        WRITERS[name](y, x)
        return y, np.sum(y * 2)

    arguments = [(np.outer(X, Y),), (np.outer(Y, X) - 3.0,), (np.outer(Y, Y),)]
    try:
        f(arguments[0][0])
    except TypeError:
        pytest.skip("NumPy has no such write to such an array")
    side_by_side(lambda: (f, lambda: None), *arguments)


@pytest.mark.parametrize("name", sorted(WRITES.keys() & WRITERS.keys()))
def test_functions_that_write_to_integers_given(name):
    def f(k, x):
        WRITERS[name](k, x)
        return k * 2

    side_by_side(lambda: (f, lambda: None), *[
        (np.outer(k, k).astype(int), np.outer(k, X))
        for k in (X, Y, X + Y)])


@pytest.mark.parametrize("name", sorted(WRITES.keys() & WRITERS.keys()))
def test_functions_that_write_what_has_no_derivative(name):
    def f(x):
        y = np.zeros_like(x)
        WRITERS[name](y, x)
        return np.sum(y * x)

    def by_hand(x):
        y = np.zeros_like(x)
        WRITERS[name](y, x)
        return y

    x = np.outer(X, Y)
    for g in (fg.grad(f), fg.compile(fg.grad(f)), fg.grad(fg.compile(f))):
        np.testing.assert_array_equal(g(x), by_hand(x))
        np.testing.assert_array_equal(g(x[::-1]), by_hand(x[::-1]))


def singular(x):
    try:
        return np.sum(np.linalg.cholesky(np.outer(x, x) + np.diag(x)))
    except np.linalg.LinAlgError:
        return -x[0]


def unsolved(x):
    try:
        return np.sum(np.linalg.solve(np.array([[1.0, 0.0], [0.0, 0.0]]) + np.diag(x[:2] - 1.0), x[:2]))
    except np.linalg.LinAlgError:
        return 7.0 * x[1]


@pytest.mark.parametrize("f", [singular, unsolved])
def test_an_error_of_a_matrix_that_the_function_catches(f):
    points = [np.array([1.0, 2.0, 1.5]), np.array([-1.0, -2.0, 1.0]), np.array([1.0, 1.0, 0.0]),
              np.array([2.0, 3.0, 4.0])]
    for first in (points, points[::-1]):
        for transform in (lambda f: f, fg.grad):
            program = fg.compile(transform(f))
            for x in first:
                np.testing.assert_allclose(program(x), transform(f)(x), rtol=1e-12)
    rows = np.stack(points)
    np.testing.assert_allclose(fg.vmap(f)(rows), [f(x) for x in rows], rtol=1e-12)
    np.testing.assert_allclose(fg.compile(fg.vmap(f))(rows), [f(x) for x in rows], rtol=1e-12)


# What is no float is written to an argument of floats.
INTO = {
    "greater": lambda x, p: np.greater(x, 0.5, out=p), "isfinite": lambda x, p: np.isfinite(x, p),
    "add": lambda x, p: np.add(np.argsort(x), 1, out=p), "not": lambda x, p: np.logical_not(x > 1, out=p),
    "exp": lambda x, p: np.exp(np.argsort(x), out=p), "itself": lambda x, p: np.greater(x, p, out=p),
}


@pytest.mark.parametrize("name", INTO)
def test_whole_numbers_and_masks_written_to_an_argument(name):
    def f(x, p):
        INTO[name](x, p)
        return np.sum(p * x)

    data = [(X, Y - 2.0), (Y - 2.5, X), (X[::-1].copy() - 2.0, Y - 1.0)]
    program = fg.compile(f)
    for x, p in data:
        got, wanted = p.copy(), p.copy()
        np.testing.assert_array_equal(program(x, got), f(x, wanted))
        np.testing.assert_array_equal(got, wanted)
    xs, ps = [np.stack(part) for part in zip(*data)]
    wanted = [f(x, p) for x, p in zip(xs, ps.copy())]
    np.testing.assert_array_equal(fg.vmap(f)(xs, ps.copy()), wanted)


def test_ufuncs_of_several_results_that_write():
    def kept(x):
        q, r = np.zeros_like(x), np.zeros_like(x)
        np.divmod(x, 2.0, out=(q, r))
        return np.sum(r) + np.sum(q)

    def one(x):
        z = np.zeros_like(x)
        np.divmod(x, 2.0, out=(None, z))
        return np.sum(z)

    def parts(x):
        a, b = np.empty_like(x), np.empty_like(x)
        np.modf(x, a, b)
        return np.sum(a * 2 + b)

    for f in (kept, one, parts):
        program = fg.compile(f)
        for x in (X, Y + 0.25):
            assert program(x) == f(x)
    for f in (kept, one):
        np.testing.assert_allclose(fg.grad(f)(X + 0.25), [1.0, 1.0, 1.0])
        np.testing.assert_allclose(fg.compile(fg.grad(f))(X + 0.25), [1.0, 1.0, 1.0])
    program = fg.compile(lambda m, o: (np.modf(m, m, o), m.sum())[1])
    m = Y + 0.25
    assert program(m, np.zeros(3)) == 0.75 and np.all(m == 0.25)
    for f in (lambda x: np.frexp(x, np.zeros(3), np.zeros(3, int))[0],
              lambda x: np.frexp(x, out=(None, np.zeros(3, int)))[1]):
        assert description(fg.compile(f)(X)) == description(f(X))


@pytest.mark.parametrize("method", [lambda y, x: y.fill(x[0]), lambda y, x: y.put([0], x[1:2]),
                                    lambda y, x: y.fill(np.sum(x))])
def test_methods_that_write_lose_no_derivative(method):
    def f(x):
        y = np.zeros_like(x)
        method(y, x)
        return np.sum(y)

    program = fg.compile(f)
    for x in (X, Y):
        assert program(x) == f(x)
    for transformed in (fg.grad(f), fg.grad(program), fg.compile(fg.grad(f)), fg.compile(fg.value_and_grad(f)),
                        lambda x: fg.jvp(f, (x,), (x,)), fg.compile(lambda x: fg.grad(f)(x) * 2)):
        with pytest.raises(AttributeError, match="no attribute"):
            transformed(X)


def test_views_that_no_tensor_shows():
    def viewed(x):
        u = x.view()
        u[0] = 9.0
        return x.sum()

    def required(x):
        np.require(x, requirements="W")[0] = 3.0
        return x.sum()

    def between(x):
        y = x * 1.0
        y.view()[0] = 9.0
        return y.sum()

    for f in (viewed, required, between):
        program = fg.compile(f)
        for x in (X, Y):
            got, wanted = x.copy(), x.copy()
            assert program(got) == f(wanted)
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shown", [
    lambda y: np.array(y, copy=False), lambda y: y.__array__(), lambda y: np.asarray(y),
    lambda y: np.asanyarray(y), lambda y: np.ascontiguousarray(y), lambda y: np.unstack(y[None])[0],
    lambda y: np.require(y, requirements="W"), lambda y: np.require(y, None, ["C", "W"])])
@pytest.mark.parametrize("made", [
    lambda x: x * 1, lambda x: fnp.zeros(3), lambda x: np.concatenate([x]), np.argsort,
    lambda x: x > 1, lambda x: x])
def test_arrays_that_show_a_tensor_are_written_to(made, shown):
    def f(x):
        y = made(x)
        shown(y)[0] = 3
        return y, y * x

    side_by_side(lambda: (f, lambda: None), (X.copy(),), (Y.copy(),), (X + Y,))


def test_arrays_that_nobody_may_write_to():
    def f(x):
        np.broadcast_to(0.0, 3)[0] = x[0]
        return x

    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            fg.compile(f)(X)


def test_methods_with_an_output_run_once():
    for f in (lambda x: x.clip(1, 2, out=x), lambda x: x.round(1, out=x), lambda x: x.cumsum(0, out=x)):
        program = fg.compile(lambda x: (f(x), x * 2))
        for x in (X / 3, Y / 3):
            got, wanted, results = x.copy(), x.copy(), []
            assert calls_of(f, lambda: results.append(program(got))) == 1
            assert description(results[0]) == description(program.function(wanted))
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("asks", [
    lambda y: isinstance(y, float), lambda y: np.isscalar(y), lambda y: isinstance(y, np.floating),
    lambda y: hasattr(y, "__len__"), lambda y: type(y) is np.float64])
def test_types_of_entries(asks):
    first = fg.compile(lambda x: x[0] * 2 if asks(x[0]) else x[0] * 100)
    every = fg.compile(lambda x: sum([y * 2 if asks(y) else y * 100 for y in x]))
    for x in (X, Y):
        assert first(x) == first.function(x) and every(x) == every.function(x)


def test_errors_hold_plain_values():
    def raises(x):
        raise ValueError(x * 2, x[0])

    with pytest.raises(ValueError) as caught:
        fg.compile(raises)(X)
    assert description(caught.value.args) == description((X * 2, X[0]))


def test_slices_hold_plain_values():
    program = fg.compile(lambda x: slice(0, np.argmax(x)))
    assert [program(x) for x in (X, Y, X)] == [slice(0, 2), slice(0, 0), slice(0, 2)]
    assert not isinstance(fg.compile(lambda x: slice(x[0], x[1]))(X).stop, fg.Tensor)
    aux = fg.value_and_grad(lambda x: (np.sum(x), slice(0, x[0])), has_aux=True)(X)[0][1]
    assert not isinstance(aux.stop, fg.Tensor)


def test_a_loop_whose_name_is_made_of_itself():
    """The reason names what is read; `node = node.next` has no first name."""
    def parents(x):
        module = collections
        for name in ("abc", "abc"):
            while True:
                module = module.abc if hasattr(module, name) else module
                if hasattr(module, "Sized"):
                    break
        return x * 2

    def walk(node, x):
        while True:
            node = node.next
            if node is None:
                return x

    class Node:
        next = None

    for f in (parents, lambda x: walk(Node(), x) * 2):
        assert fg.compile(f)(1.5) == 3.0


def test_a_branch_that_is_never_taken_stops_no_replay():
    def debugged(x):
        if verbose:
            return datetime.timedelta(seconds=x)
        return x * 2

    def careful(x):
        try:
            return x * scale
        except TypeError:
            return datetime.timedelta(seconds=float(x))

    def chosen(x):
        y = (datetime.timedelta(seconds=x)
             if verbose else x * 2)
        return y

    verbose, scale = False, 2.0
    for f in (debugged, careful, chosen, lambda x: datetime.timedelta(seconds=x) if verbose else x * 2):
        program = fg.compile(f)
        assert [program(x) for x in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
        assert len(program.paths) == 1


def test_branches_that_constants_shut():
    """What stands behind a flag is nothing a call does, until the flag is another one."""
    hist, flags = [], types.SimpleNamespace(verbose=False, log=None)

    def f(x):
        if flags.verbose:
            hist.append(x)
        if flags.log is not None:
            flags.log.append(datetime.timedelta(seconds=x))
        return x * 2 if not flags.verbose else x * 3

    program = fg.compile(f)
    assert [program(x) for x in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]
    assert [path.calls for path in program.paths] == [3] and not hist
    flags.verbose = True
    assert [program(x) for x in (1.0, 2.0)] == [3.0, 6.0] and hist == [1.0, 2.0]
    flags.verbose, flags.log = False, []
    assert program(4.0) == 8.0 and flags.log == [datetime.timedelta(seconds=4)]


def test_branches_that_a_number_opens():
    """Nobody knows which way it will be when the function is recorded: it runs once all the same."""
    def f(x):
        if x > 1:
            return datetime.timedelta(seconds=x).total_seconds()
        return [decimal.Decimal(v) for v in [x]][0] if x < 0 else x * 2

    program = fg.compile(f)
    for x in (0.5, 2.0, -1.0, 0.5):
        assert calls_of(f, lambda: program(x)) == 1
        assert description(program(x)) == description(f(x))


SECONDS = {"seconds": datetime.timedelta}
HIDDEN = {
    "vars": lambda x: vars(datetime)["timedelta"](seconds=x),
    "a list": lambda x: [datetime.timedelta, float][0](seconds=x),
    "a table": lambda x: SECONDS["seconds"](seconds=x), "get": lambda x: SECONDS.get("seconds")(x),
    "a loop": lambda x: [kind(x) for kind in SECONDS.values()],
    "map": lambda x: max(map(fractions.Fraction, [x, 1.0])),
    "partial": lambda x: functools.partial(datetime.timedelta, seconds=x)(),
    "methodcaller": lambda x: operator.methodcaller("replace", day=round(x))(datetime.date.max),
    "stars": lambda x: datetime.timedelta(*[x]),
    "names": lambda x: datetime.timedelta(**{"seconds": x}),
    "passed on": lambda x: (lambda **a: datetime.timedelta(**a))(seconds=x),
    "getattr": lambda x: getattr(datetime, "time" + "delta")(seconds=x),
    "__new__": lambda x: datetime.timedelta.__new__(datetime.timedelta, x),
    "eval": lambda x: eval("decimal.Decimal(x)"), "a descriptor": lambda x: float.__mul__(x, 2.0),
    "a method": lambda x: (1.0).__add__(x), "key=": lambda x: sorted([x, 1], key=decimal.Decimal),
    "vectorize": lambda x: np.vectorize(decimal.Decimal)(np.array([x]))[0],
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_takes_no_tensor_however_it_is_called(name):
    f = HIDDEN[name]
    program = fg.compile(f)
    for x in (2.75, 3.25, 2.5):
        assert calls_of(f, lambda: program(x)) == 1
        assert description(program(x)) == description(f(x))


# Numbers of other kinds, and what makes of a number one of Python's.
C, H, HALF = np.array([1j, 2.0]), np.array([1.0, 2.0], np.float16), fractions.Fraction(1, 2)
FOREIGN = {
    "complex": lambda x: 1j * x + x * 1j, "power": lambda x: x ** (0.5 + 0j), "!=": lambda x: x != HALF,
    "fraction": lambda x: HALF * x - x, "==": lambda x: x == HALF, "<": lambda x: HALF < x,
    "timedelta": lambda x: datetime.timedelta(1) * x, "decimal": lambda x: decimal.Decimal(1) > x,
    "complex64": lambda x: x * np.complex64(1j), "exp": lambda x: np.exp(1j * x).real,
    "round": lambda x: [5.0, 6.0, 7.0][round(x)] * x, "floor": lambda x: 1 << math.floor(x),
    "trunc": lambda x: math.trunc(x) ** 30 % 7, "ceil": lambda x: np.zeros(math.ceil(x)),
    "int": lambda x: [5.0, 6.0][int(x)] * x, "types": lambda x: [round(x), math.floor(x), round(x, 1)],
    "range": lambda x: sum(range(round(x))) * x, "comb": lambda x: math.comb(5, round(x)) * x,
    "large": lambda x: round(x * 1e300), "divmod": lambda x: divmod(x, 0.5),
}
FOREIGN_ARRAYS = {
    "complex": lambda x: x + C, "float16": lambda x: x * H, "@": lambda x: x @ C, "@@": lambda x: C @ x,
    "longdouble": lambda x: x * H.astype(np.longdouble), "astype": lambda x: x.astype(complex) * 2,
    "half": lambda x: x.astype(np.float16), "object": lambda x: x * H.astype(object),
    "fraction": lambda x: (x * HALF)[0], "matrix": lambda x: x[:, None] @ C[None],
    "datetime": lambda x: np.datetime64("2020-01-01") + x.astype("timedelta64[D]"),
    "floor": lambda x: math.floor(x[0]) * x, "round": lambda x: round(x[1]) * x,
}


@pytest.mark.parametrize("name", [*FOREIGN, *FOREIGN_ARRAYS])
def test_numbers_of_other_kinds(name):
    f = (FOREIGN | FOREIGN_ARRAYS)[name]
    program = fg.compile(f)
    for x in (1.75, 0.5, 1.25, 0.75, 1.75) if name in FOREIGN and f is FOREIGN[name] else ():
        assert calls_of(f, lambda: program(x)) <= 1
        assert description(program(x)) == description(f(x))
    f = FOREIGN_ARRAYS.get(name)
    program = f and fg.compile(f)
    for x in (np.array([1.75, 0.5]), np.array([0.25, 1.0]), np.array([2.75, 5.0])) if f else ():
        assert calls_of(f, lambda: program(x)) <= 1
        got, wanted = program(x.copy()), f(x.copy())
        assert type(got) is type(wanted) and description(got) == description(wanted)


def test_in_place_with_numbers_of_other_kinds():
    def f(x):
        y = x * 1
        z = y
        y *= H
        z += 1
        return y, z

    program = fg.compile(f)
    for x in (X[:2], Y[:2]):
        assert description(program(x.copy())) == description(f(x.copy()))
    with pytest.raises(TypeError):
        fg.compile(lambda x: operator.iadd(x, 1j))(X.copy())


def test_whole_numbers_are_guards():
    program = fg.compile(lambda x: [1.0, 2.0, 3.0][int(x)] * x + round(x))
    assert [program(x) for x in (0.25, 0.4, 1.25, 1.3, 0.3)] == [0.25, 0.4, 3.5, 3.6, 0.3]
    assert sorted([path.calls for path in program.paths]) == [2, 3]
    assert fg.grad(lambda x: round(x) * x)(1.75) == 2.0         # a Tensor where it is differentiated


def test_draws_are_not_lost():
    for body in (lambda x, rng: float(fractions.Fraction(x)) * rng.normal(),
                 lambda x, rng: rng.normal() * float(fractions.Fraction(x)),
                 lambda x, rng: rng.normal() * float(json.dumps(x)),
                 lambda x, rng: float(x) * rng.normal(), lambda x, rng: x * rng.normal()):
        mine, theirs = np.random.default_rng(3), np.random.default_rng(3)
        f = fg.compile(lambda x: body(x, mine))
        assert [f(2.0) for _ in range(4)] == [body(2.0, theirs) for _ in range(4)]


def test_draws_of_the_global_generators():
    f = fg.compile(lambda x: np.random.normal() * float(fractions.Fraction(x)))
    np.random.seed(5)
    got = [f(1.0) for _ in range(3)]
    np.random.seed(5)
    assert got == [np.random.normal() for _ in range(3)]
    f = fg.compile(lambda x: random.random() * float(fractions.Fraction(x)))
    random.seed(5)
    got = [f(1.0) for _ in range(3)]
    random.seed(5)
    assert got == [random.random() for _ in range(3)]


# ---- types ------------------------------------------------------------------------------------

@functools.singledispatch
def dispatched(x):
    return -x


@dispatched.register
def _(x: float):
    return x * 2


@dispatched.register
def _(x: np.ndarray):
    return np.sum(x) * 3


def matched(x):
    match x:
        case float():
            return x * 2
        case _:
            return -x


def checked(x):
    if not isinstance(x, (float, np.ndarray)):
        raise TypeError("a number, please")
    return x * 2


@pytest.mark.parametrize("f", [
    lambda x: x * 2 if isinstance(x, float) else -x, lambda x: x * 2 if type(x) is float else -x,
    lambda x: x * 2 if x.__class__ is float else -x, lambda x: 1.0 if hasattr(x, "shape") else 2.0,
    lambda x: x if isinstance(x * 2, np.ndarray) else -x,
    lambda x: [x * 2 if isinstance(y, float) else -x for y in [x]][0],
    lambda x: x * 2 if isinstance(x, (int, float)) else -x, dispatched, matched, checked,
    lambda x: x if (x is not None) and isinstance(x, (float, str)) else -x,
    lambda x: type(x).__name__, lambda x: getattr(x, "ndim", 7) * 1.0])
def test_code_that_asks_for_types(f):
    program = fg.compile(f)
    for x in (2.0, X, 3.0, Y, np.float64(2.0)):
        got, wanted = program(x), f(x)
        assert type(got) is type(wanted)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("asks", [
    lambda x: isinstance(x, float), lambda x: type(x) is float, lambda x: x.__class__ is float,
    lambda x: not hasattr(x, "shape"), lambda x: isinstance(x * 2.0, (float, np.float64))])
def test_types_of_what_is_not_differentiated(asks):
    f = fg.grad(lambda w, x: w * np.sum(x) * (2.0 if asks(x) else 3.0))
    program = fg.compile(f)
    for x in (2.0, X, 3.0, Y, np.float64(2.0)):
        np.testing.assert_array_equal(program(5.0, x), f(5.0, x))
    last = fg.grad(lambda x, w: w * np.sum(x) * (2.0 if asks(w) else 3.0), argnums=-1)
    program = fg.compile(last)
    for x in (2.0, X):
        np.testing.assert_array_equal(program(x, 5.0), last(x, 5.0))


@pytest.mark.parametrize("f", [
    lambda x: x * 2 if isinstance(x, (list, tuple)) else -x, lambda x: x if x is not None else 0.0,
    lambda x, n=3: x * n if isinstance(n, int) else -x, lambda x: x * 2 if not isinstance(x, str)
    else -x])
def test_types_that_decide_nothing_are_replayed(f):
    program = fg.compile(f)
    assert [program(2.0), program(3.0)] == [f(2.0), f(3.0)]
    assert recorded(program) == 1


# ---- refusals that f swallows -------------------------------------------------------------------

def log(x):
    try:
        return math.log(x)
    except (TypeError, ValueError):
        return -1.0


def table(x):
    try:
        return {2.0: 1.0}[x] * x
    except (TypeError, KeyError):
        return -x


def into_an_array(x):
    a = np.zeros(2)
    try:
        a[:] = x
    except Exception:
        return -x
    return np.sum(a)


def bare(x):
    try:
        return json.loads(json.dumps(float(x)))
    except:             # noqa: E722
        return -1.0


@pytest.mark.parametrize("f", [log, table, into_an_array, bare], ids=lambda f: f.__name__)
def test_swallowed(f):
    program = fg.compile(f)
    for x in (2.0, 3.0, -1.0, 2.0):
        assert float(program(x)) == float(f(x))


@pytest.mark.parametrize("f", [log, table, bare], ids=lambda f: f.__name__)
@pytest.mark.parametrize("transform", [
    lambda f: fg.vmap(f), lambda f: fg.vmap(fg.grad(f)),
    lambda f: lambda v: fg.scan(lambda c, x: (c + f(x), f(x)), 0.0, v)[0],
    lambda f: lambda v: fg.fori_loop(0, 3, lambda k, c: c + f(v[k]), 0.0),
    lambda f: lambda v: np.sum(fg.vmap(f)(v) * v)],
    ids=["vmap", "vmap grad", "scan", "fori", "sum"])
def test_swallowed_in_lanes_and_loops(f, transform):
    program, inner = fg.compile(transform(f)), transform(fg.compile(f))
    for v in (np.array([1.0, 2.0, 3.0]), np.array([-3.0, 2.0, 1.0]), np.array([1.0, -2.0, 2.0])):
        np.testing.assert_array_equal(program(v), transform(f)(v))
        np.testing.assert_array_equal(inner(v), transform(f)(v))


# ---- what cannot be kept of a result ------------------------------------------------------------

def test_a_closure_that_is_returned():
    f = fg.compile(lambda x: lambda y: x * y)
    two, three = f(2.0), f(3.0)
    assert (two(5.0), three(5.0)) == (10.0, 15.0)
    assert type(two.__closure__[0].cell_contents) is float


def test_a_generator_that_is_returned():
    def f(x, n):
        return (x * k for k in range(n))

    program = fg.compile(f)
    for x in (1.0, 2.0):
        assert list(program(x, 3)) == list(f(x, 3)) and type(next(program(x, 3))) is float

    def echo(x):
        got = yield x * 2
        while got is not None:
            got = yield got * x
        return x

    program = fg.compile(lambda x: echo(x))
    for x in (2.0, 3.0):
        g = program(x)
        assert [next(g), g.send(5.0), g.send(1.0)] == [2 * x, 5 * x, x]
        with pytest.raises(StopIteration) as stopped:
            g.send(None)
        assert stopped.value.value == x


def test_objects_that_are_returned():
    f = fg.compile(lambda x: Particle(x).move(x))
    for x in (1.0, 2.0, 3.0):
        assert description(f(x)) == description(Particle(x).move(x))
    f = fg.compile(lambda x: ({x: x * 2}, {x}, frozenset([x, 5.0])))
    for x in (1.0, 2.0):
        assert description(f(x)) == description(f.function(x))
    f = fg.compile(lambda x: (slice(x, 2 * x), staticmethod(x).__func__, slice(None)))
    for x in (1.0, 2.0):
        assert f(x) == (slice(x, 2 * x), x, slice(None)) and type(f(x)[0].start) is float
    f = fg.compile(lambda x: (x, iter([1.0, 2.0]), object()))
    assert [list(f(1.0)[1]) for _ in range(3)] == [[1.0, 2.0]] * 3
    assert f(1.0)[2] is not f(1.0)[2]
    f = fg.compile(lambda x: x * 1j)
    assert [f(1.0), f(2.0)] == [1j, 2j]
    f = fg.compile(lambda x: np.exp(1j * x.item() if hasattr(x, "item") else 1j * x))
    assert [f(1.0), f(2.0)] == [np.exp(1j), np.exp(2j)]


# ---- arguments --------------------------------------------------------------------------------

def test_lists_and_dicts_among_the_arguments():
    def update(p):
        p["w"] = p["w"] * 2
        p["n"] = p.get("n", 0) + 1
        p["inner"]["hist"].append(p["w"])
        return p["w"] + 1

    side_by_side(lambda: (update, lambda: 0), ({"w": 1.0, "inner": {"hist": []}},),
                 ({"w": 2.0, "inner": {"hist": [1.0]}},), ({"w": X, "inner": {"hist": [X]}},))
    side_by_side(lambda: (lambda p: p.append(p[0] * 2) or p[1], lambda: 0), ([1.0, 2.0],),
                 ([2.0, 3.0],))
    side_by_side(lambda: (lambda p: p.pop() * 2, lambda: 0), ([1.0, 2.0],), ([2.0, 3.0],))

    def in_place(p):
        p["w"] -= 0.1 * p["w"]
        return np.sum(p["w"])

    f = side_by_side(lambda: (in_place, lambda: 0), ({"w": X},), ({"w": Y},), ({"w": X * 3},))
    assert recorded(f) == 1         # which a program can do
    p = {"w": X.copy()}
    before = p["w"]
    f(p)
    assert p["w"] is before


def test_the_same_array_in_a_list_stays_the_same():
    f = fg.compile(lambda p: (p.append(p[0]), np.sum(p[0]))[1])
    p = [X.copy()]
    assert f(p) == 6.0 and p[1] is p[0]


@dataclasses.dataclass
class Pair:
    a: object
    b: object


def test_a_dataclass_among_the_arguments():
    def swap(p):
        p.a, p.b = p.b * 2, p.a
        return p.a

    side_by_side(lambda: (swap, lambda: 0), (Pair(1.0, 2.0),), (Pair(X, Y),))


class Average:
    m = 0.0

    def average(self, x):
        self.m = 0.9 * self.m + x
        return self.m


def test_an_object_among_the_arguments():
    side_by_side(lambda: (lambda x, model: model.average(x), lambda: 0), (1.0, Average()),
                 (2.0, Average()))
    model = Average()
    f = fg.compile(lambda x, model: model.average(x) * 2)
    assert [f(1.0, model), f(1.0, model)] == [2.0, 3.8] and model.m == 1.9


class Equal:
    """All are equal."""

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return type(other) is Equal

    def __hash__(self):
        return 1


class Text(str):
    pass


def tagged(n):
    text = Text("text")
    text.n = n
    return text


STATICS = {
    "==": ([Equal(1), Equal(2), Equal(3)], lambda s: s.n),
    "bool": ([1, True, 1], lambda s: 5 if type(s) is bool else 7),
    "frozenset": ([frozenset([1]), frozenset([True]), frozenset([1.0])],
                  lambda s: {int: 1, bool: 2, float: 3}[type(next(iter(s)))]),
    "frozenset of tuples": ([frozenset([(0.0,)]), frozenset([(-0.0,)])],
                            lambda s: math.copysign(1, next(iter(s))[0])),
    "-0j": ([1 + 0j, complex(1, -0.0), 1 + 0j], lambda s: math.copysign(1, s.imag)),
    "nan": ([complex(float("nan"), 1), complex(float("nan"), 2)], lambda s: s.imag),
    "slice": ([slice(1, 2), slice(True, 2), slice(1.0, 2)],
              lambda s: {int: 1, bool: 2, float: 3}[type(s.start)]),
    "decimal": ([decimal.Decimal("1.0"), decimal.Decimal("1.00")], lambda s: len(str(s))),
    "datetime": ([datetime.datetime(2020, 1, 1, h, tzinfo=datetime.timezone(
        datetime.timedelta(hours=h))) for h in (0, 5)], lambda s: s.hour),
    "subclass": ([tagged(1), tagged(2)], lambda s: s.n),
    "str": ([Text("a"), "a"], lambda s: 5 if type(s) is str else 7),
    "class": ([int, bool], lambda s: s(3)), "dtype": ([np.dtype("f4"), np.dtype("f8")],
                                                     lambda s: s.itemsize),
    "range": ([range(3), range(0, 3, 1), range(0, 4, 2)], lambda s: sum(s) + s.step),
    "tuple": ([(1, (True,)), (True, (1,))], lambda s: 5 if type(s[0]) is bool else 7),
    "partial": ([functools.partial(pow, 2), functools.partial(pow, 3)], lambda s: s(2)),
}


@pytest.mark.parametrize("name", STATICS)
@pytest.mark.parametrize("transform", [lambda f: f, lambda f: fg.grad(f), lambda f: fg.vmap(
    f, in_axes=(0, None))], ids=["", "grad", "vmap"])
def test_static_arguments(name, transform):
    values, of = STATICS[name]
    f = transform(fg.compile(lambda x, s: x * of(s), static_argnums=1))
    x = np.array([2.0, 3.0]) if transform is not STATICS and "vmap" in repr(
        transform.__code__.co_names) else 2.0
    for _ in range(2):
        for value in values:
            np.testing.assert_array_equal(f(x, value), np.multiply(
                1.0 if "grad" in transform.__code__.co_names else x, of(value)))


def test_a_static_argument_that_changes():
    e = Equal(1)
    f = fg.compile(lambda x, s: x * s.n)
    got = []
    for e.n in (1, 2, 3):
        got.append(f(2.0, e))
    assert got == [2.0, 4.0, 6.0]


def test_static_arguments_in_a_file(tmp_path):
    f = fg.compile(lambda x, s: x * (2 if s is True else 3))
    f(1.0, True), f(1.0, 1)
    f.save(tmp_path / "f.fgp")
    g = fg.load(tmp_path / "f.fgp")
    assert (g(2.0, True), g(2.0, 1)) == (4.0, 6.0)
    with pytest.raises(TypeError, match="recorded with"):
        g(2.0, 2)


# ---- bad input ----------------------------------------------------------------------------------

def test_errors_at_the_first_call_and_at_the_third():
    limit = 10.0

    def f(x):
        if x > limit:
            raise ValueError("too much")
        return x * 2

    f, count = counted(f)
    program = fg.compile(f)
    for x in (20.0, 1.0, 2.0, 30.0, 3.0, 20.0):
        try:
            assert program(x) == 2 * x
        except ValueError as error:
            assert str(error) == "too much" and x > limit
    assert count() == 6
    state = types.SimpleNamespace(fails=False)

    def third(x):
        if state.fails:
            raise KeyError("third")
        return x * 2

    program = fg.compile(third)
    assert program(1.0) == 2.0 and program(2.0) == 4.0
    state.fails = True
    for _ in range(2):
        with pytest.raises(KeyError):
            program(3.0)
    state.fails = False
    assert program(3.0) == 6.0


def test_an_error_of_ones_own_is_no_second_run():
    for error in (ValueError("mine"), TypeError("mine"), RuntimeError("mine"), KeyError("mine")):
        def body(x):
            for k in range(5):
                x = x * 2
                if k == 3:
                    raise error
            return x

        program = fg.compile(body)
        for _ in range(3):
            assert calls_of(body, lambda: pytest.raises(type(error), program, 1.0)) == 1


def calls_of(function, run):
    """How often a function is called meanwhile."""
    calls = []
    sys.setprofile(lambda frame, event, _: event == "call" and frame.f_code is function.__code__
                   and calls.append(1))
    try:
        run()
    finally:
        sys.setprofile(None)
    return len(calls)


@pytest.mark.parametrize("name", USES)
def test_a_use_of_a_number_is_one_run(name):
    f = USES[name]
    for transform in (lambda f: f, lambda f: lambda x: fg.scan(
            lambda c, k: (c, f(x)), 0.0, length=1)[1] if name not in ("text", "repr", "str", "%", "hex")
            else f(x)):
        program = fg.compile(transform(f))
        for x in (2.0, 3.0):
            assert calls_of(f, lambda: program(x)) <= (1 if transform(f) is f else 3)


def test_what_was_done_before_an_error_is_done_once():
    def make():
        box = {"n": 0, "list": []}

        def f(x):
            box["n"] += 1
            box["list"].append(x)
            if x > 2:
                raise ValueError(box["n"])
            return x

        return f, lambda: box

    (f, state), (plain, plain_state) = make(), make()
    f = fg.compile(f)
    for x in (1.0, 3.0, 2.0, 5.0):
        for function in (f, plain):
            try:
                function(x)
            except ValueError:
                pass
        assert description(state()) == description(plain_state())


def test_a_change_that_was_not_seen_and_an_error():
    """The change is not made twice; the error says so, and the next call is right."""
    hist = []
    program = fg.compile(lambda x: (operator.methodcaller("append", x)(hist), copy.copy(
        datetime.timedelta)(seconds=x).total_seconds())[1])
    with pytest.raises(TypeError) as caught:
        program(1.0)
    assert hist == [1.0] and type(hist[0]) is float
    assert "the call was recorded" in "".join(caught.value.__notes__)
    assert program(2.0) == 2.0 and hist == [1.0, 2.0]


RATE = 2.0


def test_a_name_that_is_bound_anew_while_f_runs(monkeypatch):
    def rebind():
        globals()["RATE"] = RATE + 1

    def f(x, call):
        before = x * RATE
        call()
        return before * RATE

    for call in (rebind, lambda: monkeypatch.setitem(globals(), "RATE", RATE + 1)):
        monkeypatch.setitem(globals(), "RATE", 2.0)
        program = fg.compile(f)
        assert [program(1.0, call), program(1.0, call), program(1.0, call)] == [6.0, 12.0, 20.0]


def test_a_name_that_is_deleted():
    space = {"rate": 2.0}
    exec("def f(x):\n    global rate\n    y = x * rate\n    del rate\n    return y\n", space)
    program = fg.compile(space["f"])
    assert program(1.0) == 2.0 and "rate" not in space
    with pytest.raises(NameError):
        program(1.0)
    space["rate"] = 5.0
    assert program(1.0) == 5.0


def test_recursion_without_an_end():
    deep = fg.compile(lambda x: deep(x) + 1)
    wide = fg.compile(lambda x: wide(x) + wide(x))
    ends = fg.compile(lambda x: 1.0 if x < 0 else ends(x - 1.0) * 2)
    for _ in range(2):
        for f in (deep, wide):
            with pytest.raises(RecursionError):
                f(1.0)
        assert ends(2.0) == 8.0


def test_threads_that_call_while_another_changes_what_is_read():
    """Each answer is one of before or of after."""
    space = types.SimpleNamespace(scale=2, array=np.full(4, 2.0))
    program = fg.compile(lambda x: np.sum(x * space.scale) + 0.0 * x[0])
    stop, wrong = threading.Event(), []

    def change():
        n = 2
        while not stop.is_set():
            n = 5 - n
            space.scale = n

    def call():
        for _ in range(400):
            y = program(np.ones(2))
            if y not in (4.0, 6.0):
                wrong.append(y)

    threads = [threading.Thread(target=call) for _ in range(3)]
    changing = threading.Thread(target=change)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in (changing, *threads):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        changing.join()
        sys.setswitchinterval(before)
    assert not wrong


def test_what_another_thread_changes_and_puts_back_while_f_is_recorded():
    """The state after the run is that of before it, and what f has read in between may have been
    another one: no later call may meet such a mixture."""
    space = types.SimpleNamespace(scale=2)

    def program():
        def f(x):
            y = 0.0
            for _ in range(30):
                y = y + x * space.scale
                for _ in range(500):
                    pass
            return y
        return fg.compile(f)

    def change():
        while not stop.is_set():
            space.scale = 5 - space.scale

    stop, changing, before = threading.Event(), threading.Thread(target=change), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)      # (a shorter one may pass without a switch that the system counts)
    try:
        changing.start()
        programs = [program() for _ in range(30)]
        for f in programs * 2:
            assert 60.0 <= f(1.0) <= 90.0
    finally:
        stop.set()
        changing.join()
        sys.setswitchinterval(before)
    for f in programs:
        for space.scale in (2, 3, 2):
            assert f(1.0) == 30.0 * space.scale


def test_a_run_that_others_may_have_disturbed_is_believed_the_third_time(monkeypatch):
    turns, scale = iter(range(100)), [3]
    for module in ("programs.run", "programs.compile"):
        monkeypatch.setattr(f"fastgrad.{module}.turns_taken", lambda: next(turns))
    program = fg.compile(lambda x: x * scale[0])
    assert (program(1.0), program(1.0), len(program.paths)) == (3.0, 3.0, 0)
    scale[0] = 4
    assert [program(1.0) for _ in range(2)] == [4.0] * 2 and not program.paths
    assert program(1.0) == 4.0 and len(program.paths) == 1
    for module in ("programs.run", "programs.compile"):
        monkeypatch.setattr(f"fastgrad.{module}.turns_taken", lambda: None)
    scale[0] = 5
    assert program(1.0) == 5.0 and len(program.paths) == 2


class Doubled:
    def __init__(self):
        self.w = 2.0

    def __call__(self, x):
        return x * self.w

    def method(self, x):
        return x * self.w

    @classmethod
    def made(cls, x):
        return x * 3

    @staticmethod
    def free(x):
        return x * 4


OTHERS = [
    (sum, ([1.0, 2.0],)), (math.sin, (1.0,)), (max, (1.0, 2.0)), (len, (X,)), (float, (1.0,)),
    (complex, (1.0,)), (list, (X,)), (abs, (-1.0,)), (pow, (2.0, 3.0)), (np.float64, (2.0,)),
    (str, (2.0,)), (sorted, (X,)), (isinstance, (1.0, float)), (type, (1.0,)), (callable, (1.0,)),
    (repr, (2.0,)), (hash, (2.0,)), (X.dot, (Y,)), ({1.0: 5}.get, (1.0,)),
    (operator.mul, (2.0, 3.0)),
    (operator.itemgetter(0), (X,)), (operator.methodcaller("sum"), (X,)), (Doubled(), (2.0,)),
    (Doubled().method, (2.0,)), (Doubled.made, (2.0,)), (Doubled.free, (2.0,)), (Particle, (2.0,)),
    (functools.partial(operator.mul, 2.0), (3.0,)), (functools.partial(Doubled().method), (3.0,)),
    (staticmethod(lambda x: x * 2), (2.0,)), (np.vectorize(lambda x: x * 2), (X,)),
    (functools.reduce, (operator.mul, [1.0, 2.0])), (functools.lru_cache(lambda x: x * 2), (2.0,)),
    (types.SimpleNamespace, ()), (trees.flatten if hasattr(trees, "flatten") else abs, (1.0,)),
]


@pytest.mark.parametrize("f, args", OTHERS, ids=lambda x: getattr(x, "__name__", ""))
def test_callables_of_all_kinds(f, args):
    program = fg.compile(f)
    for _ in range(3):
        got, wanted = program(*args), f(*args)
        assert type(got) is type(wanted) or isinstance(wanted, tuple)
        assert description(got) == description(wanted)


def test_methods_of_c_that_change_their_object():
    box, hist = [1.0, 2.0, 3.0], []
    pop, append = fg.compile(box.pop), fg.compile(hist.append)
    assert [pop(), pop()] == [3.0, 2.0] and box == [1.0]
    append(1.0), append(X)
    assert hist[0] == 1.0 and type(hist[0]) is float and hist[1] is X
    numbers = iter([1.0, 2.0])
    following = fg.compile(numbers.__next__)
    assert [following(), following()] == [1.0, 2.0]


def test_an_instance_that_is_called_and_changes():
    model = Doubled()
    f = fg.compile(model)
    got = [f(1.0), f(2.0)]
    model.w = 5.0
    assert [*got, f(1.0)] == [2.0, 4.0, 5.0]


def test_a_coroutine_that_is_returned():
    async def later(x):
        return x * 2

    f = fg.compile(lambda x: later(x))
    for x in (1.0, 2.0):
        with pytest.raises(StopIteration) as done:
            f(x).send(None)
        assert done.value.value == 2 * x and type(done.value.value) is float


class Answering:
    """Has every attribute, and says when it is asked for one."""

    def __init__(self):
        self.__dict__["asked"] = []

    def __getattr__(self, name):
        self.asked.append(name)
        raise KeyError(name)

    def __call__(self, x):
        return x * 2.0


def test_no_attribute_is_asked_for_by_running_code():
    everything = Answering()

    def f(x):
        return np.sum(everything(x))

    def g(x):
        return np.sum(x) if everything is not None else 0.0

    def h(x):
        kept.append(x)
        return np.sum(everything(x))

    kept = []
    x = np.array([1.0, 2.0])
    for function in (f, g, h):
        for compiled in (fg.compile(function), fg.compile(fg.grad(function))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for k in (1.0, 2.0, 3.0):
                    compiled(k * x)
    assert everything.asked == []


@pytest.mark.parametrize("order", [2, "nuc"])
def test_what_only_a_recording_would_need_is_not_asked_for(order):
    """A recorded sweep needs second derivatives, which the plain one does without."""
    def f(x):
        return fnp.linalg.norm(x, order)

    compiled = fg.compile(fg.value_and_grad(f))
    with pytest.warns(UserWarning, match="no second derivative"):
        for k in (1.0, 2.0):
            x = k * np.array([[1.0, 2.0], [3.0, 5.0]])
            for got, wanted in zip(compiled(x), fg.value_and_grad(f)(x), strict=True):
                np.testing.assert_array_equal(got, wanted)


# ---- what is returned -----------------------------------------------------------------------

@pytest.mark.parametrize("f", [
    lambda k: {k: "a"}, lambda k: {k}, lambda k: frozenset([k]), lambda k: [({k: k * 2},), {"a": {k}}],
    lambda k: {(k > 3): 1.0}])
def test_whole_numbers_as_keys_and_in_sets(f):
    """They are found by their values, and nobody finds a Tensor."""
    side_by_side(lambda: (f, dict), (np.int64(3),), (np.int64(4),), (np.int64(3),))
