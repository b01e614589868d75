"""What happens at the edges: the rows of the semantics table, one test (at least) for each.

Kinks, ties and limits; types and shapes; never a silent zero; recording, mutation, repetition.
What another test file goes through in detail has one line here.
"""

import copy
import logging
import math
import threading
import warnings
from array import array
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import sympy

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import special
from fastgrad._core import core

inf, nan = math.inf, math.nan
DTYPES = (np.float64, np.float32)

# How a scalar is differentiated: as a Python float, inside arrays small and large (which wait for
# their value), in both precisions. All must agree.


def slopes(f, *point):
    """The partial derivatives of f at a point, the same from every route."""
    numbers = tuple(range(len(point)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                 # independence: the slope is then 0
        found = fg.grad(f, numbers)(*map(float, point))
        for dtype in DTYPES:
            for n in (1, 3, 5000):
                arrays = [np.full(n, x, dtype) for x in point]
                gradient = fg.grad(lambda *x: fnp.sum(f(*x)), numbers)(*arrays)
                for g, expected in zip(gradient, found, strict=True):
                    assert g.dtype == dtype
                    np.testing.assert_allclose(g, np.full(n, expected), 1e-5, err_msg=f"n={n}")
            tensors = [fg.tensor(dtype(x), requires_grad=True) for x in point]
            gradient = fg.gradients(f(*tensors), tensors) if f(*tensors).requires_grad else [
                fg.tensor(0.0)] * len(point)
            np.testing.assert_allclose([g.item() for g in gradient], found, 1e-5)
    return found[0] if len(found) == 1 else found


def assert_slope(f, point, expected):
    point = point if isinstance(point, tuple) else (point,)
    np.testing.assert_allclose(slopes(f, *point), expected, 1e-12, err_msg=f"at {point}")


def gradient_of(f, x):
    """The gradient in both precisions, checked to agree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fg.grad(f)(np.asarray(x, float))
        np.testing.assert_allclose(fg.grad(f)(np.asarray(x, np.float32)), found, 1e-5, 1e-6)
    return found


# ---- the two rules --------------------------------------------------------------------------

@pytest.mark.parametrize("f, x, expected", [
    (lambda x: fnp.exp(fnp.log(x)), 0.0, 0.0),
    (lambda x: core.functions["relu"](x) - core.functions["relu"](-x), 0.0, 0.0)])
def test_what_the_rules_cost(f, x, expected):
    assert_slope(f, x, expected)


@pytest.mark.parametrize("f, x", [
    (lambda x: 0.0 * fnp.log(x), 0.0), (lambda x: 0.0 * fnp.sqrt(x), 0.0),
    (lambda x: fnp.where(x > 1, fnp.log(x), 0.0), -1.0), (lambda x: (x * 0.0) * fnp.cbrt(x), 0.0),
    (lambda x: (x > 1) * (x / x), 0.0)])
def test_strong_zero(f, x):
    """A zero adjoint stays zero, whatever it meets."""
    assert_slope(f, x, 0.0)


def test_strong_zero_of_a_local_partial():
    # The partial of x * 0 is 0, and the adjoint that meets it infinite.
    assert_slope(lambda x: fnp.sqrt(x * 0.0), 1.0, 0.0)
    assert_slope(lambda x: fnp.sqrt(fnp.square(x)), 0.0, 0.0)
    assert_slope(lambda x: fnp.sqrt(x ** 2), 0.0, 0.0)


def test_matrix_products_follow_blas():
    with np.errstate(all="ignore"):
        gradient = fg.grad(lambda x: x @ np.array([inf, 1.0]) @ np.array([0.0, 1.0]))(np.eye(2))
        expected = np.outer([0.0, 1.0], [inf, 1.0])
    np.testing.assert_array_equal(gradient, expected)


def test_a_zero_seed_gives_zeros():
    w = fg.tensor([0.0, 1.0], requires_grad=True)
    (fnp.log(w) + fnp.sqrt(w)).backward([0.0, 2.0])
    assert w.grad.tolist() == [0, 3]


# ---- kinks, ties, limits --------------------------------------------------------------------

@pytest.mark.parametrize("f, point, expected", [
    # relu, maximum and minimum against a literal: 0 at the kink
    (core.functions["relu"], 0.0, 0), (core.functions["relu"], -0.0, 0),
    (lambda x: fnp.maximum(x, 2.0), 2.0, 0), (lambda x: fnp.maximum(2.0, x), 2.0, 0),
    (lambda x: fnp.minimum(x, 2), 2.0, 0), (lambda x: fnp.maximum(x, np.float32(2)), 2.0, 0),
    (lambda x: fnp.minimum(np.float32(2), x), 2.0, 0), (lambda x: fnp.fmax(x, 2.0), 2.0, 0),
    (lambda x: fnp.fmin(2.0, x), 2.0, 0), (lambda x: np.maximum(x, 0.0), 0.0, 0),
    # both arrays or Tensors: one half each
    (fnp.maximum, (2.0, 2.0), [0.5, 0.5]), (fnp.minimum, (2.0, 2.0), [0.5, 0.5]),
    (fnp.fmax, (2.0, 2.0), [0.5, 0.5]), (fnp.fmin, (2.0, 2.0), [0.5, 0.5]),
    (fnp.maximum, (3.0, 2.0), [1, 0]), (fnp.minimum, (3.0, 2.0), [0, 1]),
    (fnp.fmax, (nan, 2.0), [0, 1]), (fnp.fmin, (2.0, nan), [1, 0]),
    (lambda x: fnp.maximum(x, x), 2.0, 1),
    # clip at its bounds
    (lambda x: fnp.clip(x, 1.0, 2.0), 1.0, 0), (lambda x: fnp.clip(x, 1.0, 2.0), 2.0, 0),
    (lambda x: fnp.clip(x, 1.0, 2.0), 1.5, 1), (lambda x: fnp.clip(x, 1.0, 2.0), 3.0, 0),
    # abs and the steps
    (fnp.abs, 0.0, 0), (fnp.abs, -0.0, 0), (fnp.abs, -2.0, -1), (fnp.sign, 0.0, 0),
    (fnp.sign, 2.0, 0),
    (fnp.floor, 1.0, 0), (fnp.ceil, 1.0, 0), (fnp.round, 0.5, 0), (fnp.trunc, 1.0, 0),
    (lambda x: fnp.heaviside(x, 0.5), 0.0, 0), (lambda h: fnp.heaviside(0.0, h), 0.5, 1),
    (lambda h: fnp.heaviside(1.0, h), 0.5, 0),
    # the infinity of the limit from inside the domain
    (fnp.sqrt, 0.0, inf), (fnp.sqrt, -0.0, inf), (fnp.log, 0.0, inf), (fnp.log2, 0.0, inf),
    (fnp.log10, 0.0, inf), (fnp.log1p, -1.0, inf), (fnp.cbrt, 0.0, inf), (fnp.arcsin, 1.0, inf),
    (fnp.arcsin, -1.0, inf), (fnp.arccos, 1.0, -inf), (fnp.arccos, -1.0, -inf),
    (fnp.arctanh, 1.0, inf), (fnp.arctanh, -1.0, inf), (fnp.arccosh, 1.0, inf),
    (fnp.log, -0.0, inf),
    # NaN outside of the domain
    (fnp.sqrt, -1.0, nan), (fnp.log, -1.0, nan), (fnp.log2, -1.0, nan), (fnp.log10, -1.0, nan),
    (fnp.log1p, -2.0, nan), (fnp.arcsin, 2.0, nan), (fnp.arccos, -2.0, nan),
    (fnp.arctanh, 2.0, nan),
    (fnp.arccosh, 0.0, nan), (fnp.sin, nan, nan), (fnp.log, nan, nan), (fnp.sqrt, nan, nan),
    # powers with a constant exponent, at 0
    (lambda x: x ** 0, 0.0, 0), (lambda x: x ** 0.5, 0.0, inf), (lambda x: x ** 1, 0.0, 1),
    (lambda x: x ** 2, 0.0, 0), (lambda x: x ** 3.0, -0.0, 0), (lambda x: x ** -1.0, 0.0, -inf),
    (lambda x: x ** -2.0, 0.0, -inf), (lambda x: x ** 1.0, 0.0, 1), (lambda x: x ** 1.5, 0.0, 0),
    (lambda x: x ** -0.5, 0.0, -inf), (lambda x: np.power(x, 2), 0.0, 0),
    # powers in the exponent
    (lambda y: 0.0 ** y, 2.0, 0), (lambda y: 0.0 ** y, 0.0, 0), (lambda y: 0.0 ** y, -1.0, -inf),
    (lambda y: (-2.0) ** y, 2.0, nan), (lambda x: x ** 3.0, -2.0, 12), (lambda x: x ** 2, -3.0, -6),
    (lambda x: x ** -1, -2.0, -0.25), (fnp.power, (0.0, 0.0), [0, 0]),
    (fnp.power, (0.0, 2.0), [0, 0]),
    (fnp.power, (-2.0, 3.0), [12, nan]),
    # where they vanish
    (fnp.hypot, (0.0, 0.0), [0, 0]), (fnp.hypot, (3.0, 4.0), [0.6, 0.8]),
    (fnp.arctan2, (0.0, 0.0), [0, 0]), (fnp.arctan2, (0.0, -1.0), [-1, 0]),
    # logaddexp
    (fnp.logaddexp, (1.0, 1.0), [0.5, 0.5]), (fnp.logaddexp, (-inf, -inf), [0, 0]),
    (fnp.logaddexp, (inf, inf), [0.5, 0.5]), (fnp.logaddexp, (inf, 0.0), [1, 0]),
    (fnp.logaddexp, (0.0, inf), [0, 1]), (fnp.logaddexp, (-inf, 0.0), [0, 1]),
    (fnp.logaddexp, (inf, -inf), [1, 0]),
    # xlogy and xlog1py
    (special.xlogy, (0.0, 2.0), [math.log(2), 0]), (special.xlogy, (0.0, 0.0), [0, 0]),
    (special.xlogy, (2.0, 4.0), [math.log(4), 0.5]), (special.xlogy, (1.0, 0.0), [-inf, inf]),
    (special.xlog1py, (0.0, 1.0), [math.log(2), 0]), (special.xlog1py, (0.0, -1.0), [0, 0]),
    (special.xlog1py, (2.0, 3.0), [math.log(4), 0.5]),
    # the branch that is not taken
    (lambda x: fnp.where(x > 0, fnp.sqrt(x), x), 0.0, 1),
    (lambda x: fnp.where(x < 0, fnp.log(x), x), 1.0, 1),
    (lambda x: fnp.where(x > 0, fnp.log(x), 2 * x), -1.0, 2),
    (lambda x: fnp.where(x == 0, 1.0, fnp.sin(x) / x), 0.0, 0),
    (lambda x: (x > 0) * fnp.sqrt(x) + x, 0.0, 1),
    (lambda x: fnp.where(True, x, 1 / (x - x)), 3.0, 1),
    # remainders
    (lambda x: x % 2.0, 3.0, 1), (lambda y: 7.0 % y, 2.0, -3), (lambda x: x // 2.0, 3.0, 0),
    (lambda x: fnp.copysign(x, -1.0), 2.0, -1),
    # overflow and division by zero are IEEE's
    (fnp.exp, 1000.0, inf), (lambda x: 1 / x, 0.0, -inf), (lambda x: x / 0.0, 1.0, inf),
    (fnp.exp, -inf, 0), (fnp.tanh, inf, 0), (special.expit, -1000.0, 0),
    (core.functions["softplus"], 1000.0, 1),
])
def test_kinks_ties_and_limits(f, point, expected):
    assert_slope(f, point, expected)


def test_the_same_through_numpy():
    x = np.array([0.0, 2.0])
    assert fg.grad(lambda x: np.sum(np.sqrt(x)))(x).tolist() == [inf, 0.5 / math.sqrt(2)]
    assert fg.grad(lambda x: np.sum(np.abs(x)))(x).tolist() == [0, 1]
    assert fg.grad(lambda x: np.sum(np.maximum(x, 2.0)))(x).tolist() == [0, 0]
    assert fg.grad(lambda x: np.sum(np.where(x > 0, np.log(x), 0.0)))(x).tolist() == [0, 0.5]
    assert fg.grad(lambda x: np.sum(np.clip(x, 0, 1)))(x).tolist() == [0, 0]
    assert fg.grad(lambda x: np.sum(np.heaviside(x, 0.5)) + x.sum())(x).tolist() == [1, 1]


def test_ties_between_an_array_and_arrays_of_constants():
    """Both are arrays: one half, whatever is differentiated."""
    for other in (np.array([2.0, 0.0]), fg.tensor([2.0, 0.0]), np.array([2, 0]), [2.0, 0.0]):
        assert fg.grad(lambda x: fnp.maximum(x, other).sum())(
            np.array([2.0, 1.0])).tolist() == [0.5, 1]
    assert fg.grad(lambda x: fnp.maximum(x, 2.0).sum())(np.array([2.0, 3.0])).tolist() == [0, 1]
    assert fg.grad(lambda x: fnp.minimum(x, np.float64(2)).sum())(
        np.array([2.0, 1.0])).tolist() == [0, 1]
    assert fg.grad(lambda x: fnp.clip(x, np.array([2.0]), np.array([3.0])).sum())(
        np.array([2.0, 2.5, 3.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize("n", [4, 6000])
def test_ties_of_extremes_are_shared(n):
    x = np.zeros(n)
    x[:2] = 3.0
    for f in (fnp.max, np.max, fnp.amax, lambda x: x.max(), lambda x: -fnp.min(-x),
              lambda x: -np.min(-x)):
        gradient = gradient_of(f, x)
        assert gradient[:3].tolist() == [0.5, 0.5, 0]
        assert gradient.sum() == 1
    assert gradient_of(lambda x: fnp.max(x, 0).sum(), np.ones((3, 2))).tolist() == [[1 / 3] * 2] * 3
    x[3] = nan
    assert gradient_of(fnp.max, x)[:5 if n > 4 else 4].tolist()[:4] == [0, 0, 0, 1]
    x[2] = nan
    assert gradient_of(fnp.min, x)[:4].tolist() == [0, 0, 0.5, 0.5]


def test_order_statistics_follow_or_refuse():
    x = np.array([3.0, 1.0, 2.0, 2.0])
    for f, expected in [(lambda x: fnp.sort(x)[-1], [1, 0, 0, 0]),
                        (lambda x: x[fnp.argsort(x)][0], [0, 1, 0, 0]),
                        (lambda x: np.sort(x) @ np.array([1.0, 10.0, 100.0, 1000.0]), None)]:
        gradient = fg.grad(f)(x)
        if expected is not None:
            assert gradient.tolist() == expected
        else:
            assert gradient[0] == 1000
            assert gradient[1] == 1
            assert sorted(gradient[2:].tolist()) == [10, 100]
    for name in ("median", "partition"):
        function = getattr(np, name)
        arguments = () if name == "median" else (1,)
        if function in core.ARRAY_FUNCTIONS:
            gradient = fg.grad(lambda x: fnp.sum(function(x, *arguments)))(x)
            assert np.isfinite(gradient).all()
        else:
            with pytest.raises(fg.NoDerivativeError, match=name):
                fg.grad(lambda x: fnp.sum(function(x, *arguments)))(x)


@pytest.mark.parametrize("f", [
    lambda x: np.linalg.norm(x), fnp.std, np.std, lambda x: fnp.var(x),
    lambda x: fnp.sqrt(fnp.sum(x ** 2)),
    lambda x: np.sqrt(np.sum(x * x)), lambda x: fnp.linalg.norm(x, 3),
    lambda x: fnp.sum(fnp.std(x, 0)),
    lambda x: fnp.linalg.norm(x, 1), lambda x: fnp.sum(fnp.linalg.norm(x.reshape(2, 2), axis=1)),
    lambda x: np.linalg.norm(x.reshape(2, 2)), lambda x: np.linalg.norm(x, np.inf)])
def test_norms_and_deviations_where_they_vanish(f):
    assert gradient_of(f, np.zeros(4)).tolist() == [0, 0, 0, 0]


def test_norms_at_ties():
    assert gradient_of(lambda x: np.linalg.norm(x, 1), [1.0, 0.0, -2.0]).tolist() == [1, 0, -1]
    np.testing.assert_allclose(gradient_of(lambda x: np.linalg.norm(x, np.inf), [2.0, -2.0, 1.0]),
                               [0.5, -0.5, 0])
    assert gradient_of(lambda x: fnp.std(x), [2.0, 2.0, 2.0]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("x, expected", [
    ([2.0, 3.0, 4.0], [12, 8, 6]), ([0.0, 3.0, 4.0], [12, 0, 0]), ([0.0, 0.0, 4.0], [0, 0, 0]),
    ([2.0, 0.0, inf], [nan, inf, nan]), ([-1.0, 2.0, -3.0], [-6, 3, -2])])
def test_products_with_zeros_are_exact(x, expected):
    found = gradient_of(fnp.prod, x)
    if np.isnan(expected).any():
        assert found[1] == inf
    else:
        assert found.tolist() == expected
        rows = gradient_of(lambda x: fnp.prod(x, 1).sum(), np.array([x, x]))
        assert rows.tolist() == [expected, expected]
        assert gradient_of(np.prod, np.reshape(x, (3, 1))).ravel().tolist() == expected


@pytest.mark.parametrize("function", [special.logsumexp, fnp.logsumexp])
def test_logsumexp(function):
    np.testing.assert_allclose(gradient_of(function, [0.0, math.log(3)]), [0.25, 0.75])
    value, gradient = fg.value_and_grad(function)(np.full(3, -inf))
    assert value == -inf
    assert gradient.tolist() == [0, 0, 0]
    value, gradient = fg.value_and_grad(function)(np.array([inf, 1.0, inf]))
    assert value == inf
    assert gradient.tolist() == [0.5, 0, 0.5]
    assert gradient_of(function, [-inf, 0.0]).tolist() == [0, 1]
    np.testing.assert_allclose(gradient_of(function, [1000.0, 1000.0]), [0.5, 0.5], 1e-6)
    np.testing.assert_allclose(gradient_of(function, [1e17, 1e17]), [0.5, 0.5], 1e-6)
    np.testing.assert_allclose(gradient_of(function, [-1e17, -1e17, 1.0]), [0, 0, 1])


@pytest.mark.parametrize("function", [special.softmax, special.log_softmax])
def test_softmax(function):
    value = function(fg.tensor([1000.0, 1000.0, -inf])).numpy()
    expected = [0.5, 0.5, 0] if function is special.softmax else [-math.log(2), -math.log(2), -inf]
    np.testing.assert_allclose(value, expected)
    assert np.isnan(function(fg.tensor([-inf, -inf])).numpy()).all()
    gradient = fg.grad(lambda x: function(x)[0])(np.array([1000.0, 1000.0]))
    expected = [0.25, -0.25] if function is special.softmax else [0.5, -0.5]
    np.testing.assert_allclose(gradient, expected)


def test_sinc_of_zero_is_zero_or_refused():
    if np.sinc in core.UFUNCS or np.sinc in core.ARRAY_FUNCTIONS:
        assert fg.grad(np.sinc)(0.0) == 0
    else:
        for f in (np.sinc, fnp.sinc):
            with pytest.raises(fg.NoDerivativeError, match="sinc"):
                fg.grad(f)(0.0)


@pytest.mark.parametrize("name", [
    "det", "slogdet", "cholesky", "eigh", "eigvalsh", "svd", "solve", "inv"])
def test_linear_algebra_is_there_or_refused(name):
    function = getattr(np.linalg, name)
    more = (np.ones(2),) if name == "solve" else ()
    if function not in core.ARRAY_FUNCTIONS:
        for call in (function, getattr(fnp.linalg, name)):
            with pytest.raises(fg.NoDerivativeError, match=name):
                fg.grad(lambda x: fnp.sum(call(x, *more)))(np.eye(2))


@pytest.mark.parametrize("name", ["cumprod", "cumsum", "quantile", "percentile"])
def test_other_functions_are_there_or_refused(name):
    function = getattr(np, name)
    more = (0.5,) if name in ("quantile", "percentile") else ()
    if function not in core.ARRAY_FUNCTIONS:
        for call in (function, getattr(fnp, name)):
            with pytest.raises(fg.NoDerivativeError, match=name):
                fg.grad(lambda x: fnp.sum(call(x, *more)))(np.ones(3))


@pytest.mark.parametrize("name", [
    "vmap", "jvp", "hessian", "jacobian", "compile", "elementwise_grad"])
def test_transformations_that_do_not_exist_say_so(name):
    if not hasattr(fg, name):
        with pytest.raises(AttributeError, match=name):
            getattr(fg, name)


# ---- types and shapes -----------------------------------------------------------------------

@pytest.mark.parametrize("shapes", [
    ((3,), ()), ((2, 3), (3,)), ((2, 1), (1, 3)), ((2, 1, 4), (3, 1)), ((1,), (2, 3)),
    ((0, 3), (1, 3)),
    ((2, 0), (1,)), ((1, 1), ()), ((2, 3, 4), (2, 3, 4)), ((5, 1, 1, 1), (1, 1, 4, 2))], ids=str)
@pytest.mark.parametrize("dtypes", [(np.float64, np.float64), (np.float32, np.float32),
                                    (np.float32, np.float64)], ids=str)
def test_gradients_have_the_shape_and_dtype_of_the_input(shapes, dtypes):
    a, b = (np.ones(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    size = np.broadcast(a, b).size
    for f in (fnp.add, fnp.multiply, lambda a, b: fnp.where(a > 0, a, b), fnp.hypot, fnp.maximum):
        for order in ((0, 1), (1, 0)):
            args = [(a, b)[i] for i in order]
            gradients = fg.grad(lambda x, y: fnp.sum(f(x, y)), (0, 1))(*args)
            for gradient, argument in zip(gradients, args, strict=True):
                assert gradient.shape == argument.shape
                assert gradient.dtype == argument.dtype
                assert isinstance(gradient, np.ndarray)
    total = fg.grad(lambda x, y: fnp.sum(x + y), (0, 1))(a, b)
    assert float(np.sum(total[0])) == size
    assert float(np.sum(total[1])) == size


def test_weak_floats_do_not_widen():
    x = np.array([1.0, 2.0], np.float32)
    value, gradient = fg.value_and_grad(lambda c, x: (c * x).sum(), 0)(2.0, x)
    assert value.dtype == np.float32
    assert type(gradient) is float
    assert (fg.tensor(x) * 2.0).dtype == np.float32
    assert (fg.tensor(x) * np.float64(2)).dtype == np.float64
    assert (fg.tensor(x) * fg.tensor(2.0)).dtype == np.float64


def test_float32_sums_are_as_exact_as_numpys():
    x = np.full(100_000, 0.1, np.float32)
    assert abs(fg.tensor(x).sum().item() - 1e4) <= 2 * abs(float(x.sum()) - 1e4) + 1e-3
    gradient = fg.grad(lambda b: fnp.sum(b * x))(np.float32(1))
    assert abs(gradient - 1e4) < 1e-2


def test_results_of_one_entry_are_accepted():
    for shape in ((), (1,), (1, 1)):
        assert fg.grad(lambda x: (x * x).reshape(shape))(3.0) == 6.0
    with pytest.raises(ValueError, match=r"seed=.*elementwise_grad"):
        fg.grad(lambda x: x * np.ones(2))(3.0)


def test_what_is_refused_as_an_argument():
    for x, word in [(3, r"float\(x\)"), (np.arange(3), r"\.astype\(float\)"), (True, r"float\(x\)"),
                    (np.array([True]), r"\.astype\(float\)"),
                    ((1.0, 3), r"argument 0\[1\].*float\(x\)"),
                    (np.ones(2, np.float16), "float16"), (np.array([1j]), "complex"),
                    (np.array([None]), "object"), (np.ones(2, "M8[s]"), "datetime64"),
                    (np.ma.ones(2), "mask"), (np.zeros(2, [("a", float)]), "'a'"), (1j, "complex")]:
        with pytest.raises(TypeError, match=word):
            fg.grad(lambda x: fnp.sum(x))(x)


def test_integers_and_booleans_inside():
    def f(x):
        count = fnp.count_nonzero(x > 1)
        place = fnp.argmax(x)
        total = x[place] * count
        for i in range(int(count)):
            total = total + x[i] * i
        return total + x[fg.tensor([0, 0])].sum() + x[x > 2].sum()

    assert fg.grad(f)(np.array([1.5, 3.0, 0.5])).tolist() == [2, 2 + 1 + 1, 0]


def test_what_the_namespace_returns():
    assert type(fnp.zeros(2)) is np.ndarray
    assert type(fnp.sin(np.ones(2))) is np.ndarray
    assert type(fnp.sin(1.0)) is np.float64
    assert type(fnp.sum(np.ones(2))) is np.float64
    assert isinstance(fnp.sin(fg.tensor(1.0)), fg.Tensor)
    inside = []
    fg.grad(lambda x: (inside.extend([fnp.zeros(2), fnp.arange(3), fnp.ones_like(np.ones(2)),
                                      fnp.sin(np.ones(2)), fnp.array([1.0])]), x)[1])(1.0)
    assert [type(x) for x in inside] == [fg.Tensor, fg.Tensor, fg.Tensor, np.ndarray, fg.Tensor]


def test_empty_arrays():
    x = np.zeros((0, 3))
    assert fg.grad(fnp.sum)(x).shape == (0, 3)
    assert fg.value_and_grad(lambda x: fnp.sum(x * x))(x)[0] == 0
    assert fg.grad(lambda x: fnp.prod(x))(x).shape == (0, 3)
    for f in (fnp.max, np.min):
        with pytest.raises(ValueError, match=r"max|min|zero-size"):
            fg.grad(f)(x)


def test_no_floating_point_warnings():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for n in (3, 5000):
            x = np.zeros(n)
            fg.grad(lambda x: fnp.sum(fnp.log(x) + 1 / x + fnp.sqrt(x - 1) + fnp.exp(x + 1e4)))(x)
            fg.grad(lambda x: np.sum(np.log(x) / x))(x)
            fg.grad(lambda x: fnp.max(x / x) + fnp.prod(x / 0.0) + fnp.logsumexp(x / 0.0))(x)
            fg.grad(lambda x: fnp.sum((x + 1e308) * 10) + (x + inf) @ (x + 0.0))(x)


# ---- never a silent zero --------------------------------------------------------------------

@pytest.mark.parametrize("f, cure", [
    (lambda x: float(x), ".detach()"), (lambda x: math.sin(x), "fnp.sin"),
    (lambda x: int(x), "int(t.detach())"),
    (lambda x: np.asarray(x).sum(), ".detach()"),
    (lambda x: np.array([x, x]).sum(), "fnp.array([...])")])
def test_escapes_name_the_line_and_the_cure(f, cure):
    for x in (2.0, np.array(2.0), np.float32(2)):
        with pytest.raises(TypeError) as caught:
            fg.grad(f)(x)
        assert cure in str(caught.value)
        assert "test_semantics.py, line" in str(caught.value)


def put_into(text, x):
    text %= x
    return text


SHOWN = {"f-string": (lambda x: f"{x:.3f}", "2.000"), "str": (lambda x: str(x), "2.0"),
         "repr": (lambda x: repr(x)[:9], "tensor(2."), "%f": (lambda x: "%.3f" % x, "2.000"),
         "%d": (lambda x: "%d" % x, "2"), "%s": (lambda x: "%s" % x, "2.0"),
         "tuple": (lambda x: "%s: %.3f" % ("x", x), "x: 2.000"),
         "dictionary": (lambda x: "%(x).3f" % {"x": x}, "2.000"),
         "bytes": (lambda x: (b"%.3f" % x).decode(), "2.000"),
         "%=": (lambda x: put_into("%.3f", x), "2.000"),
         "logging": (lambda x: logging.makeLogRecord({"msg": "%.3f", "args": (x,)}).getMessage(),
                     "2.000")}


@pytest.mark.parametrize("show, wanted", SHOWN.values(), ids=SHOWN)
def test_formatting_works(show, wanted):
    def f(x):
        shown.append(show(x))
        return x * x

    shown = []
    for x in (2.0, np.array(2.0), np.float32(2)):
        assert fg.grad(f)(x) == 4
        assert fg.jvp(f, (x,), (np.ones_like(x),))[1] == 4
    assert shown == [wanted] * 6


LEFT = [7, 7.0, True, 7j, np.float64(7), np.float32(7), np.int8(7), np.bool_(True), np.array(7.0),
        np.ones(2), Fraction(7), Decimal(7), timedelta(7), np.timedelta64(7), [7.0],
        array("d", [7]), mpmath.mpf(7), sympy.Integer(7), sympy.Symbol("s"),
        np.polynomial.Polynomial([7.0])]


@pytest.mark.parametrize("left", LEFT, ids=lambda left: type(left).__name__)
def test_only_a_text_takes_the_number_alone(left):
    def put(left):
        left %= t
        return left

    t = fg.tensor(2.0, requires_grad=True)
    for call in (lambda left: left % t, put):
        try:
            y = call(copy.copy(left))
        except (TypeError, NotImplementedError):
            continue
        assert isinstance(y, fg.Tensor)
        assert y.requires_grad


def test_filling_an_array_of_zeros():
    def wrong(x):
        out = np.zeros(3)
        out[0] = x
        return out.sum()

    def right(x):
        out = fnp.zeros(3)
        out[0] = x
        return out.sum()

    def like(x):
        out = np.zeros_like(x)
        out[0] = x[1] * 2
        return out.sum()

    with pytest.raises((TypeError, ValueError)) as caught:
        fg.grad(wrong)(2.0)
    assert "fnp.zeros" in f"{caught.value} {caught.value.__cause__}"
    assert fg.grad(right)(2.0) == 1.0
    assert fg.grad(like)(np.ones(2)).tolist() == [0, 2]


def test_accumulating_rebinds():
    def f(x):
        accumulator = np.zeros(2)
        for k in range(3):
            accumulator += x * k
        return (accumulator * accumulator).sum()

    assert fg.grad(f)(np.array([1.0, 2.0])).tolist() == [18, 36]


def test_independent_results_warn_once_and_from_outside():
    with pytest.warns(UserWarning, match="does not depend") as caught:
        assert fg.grad(lambda x: 3.0)(np.ones((2, 1), np.float32)).tolist() == [[0], [0]]
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fg.grad(lambda x: x + fg.grad(lambda y: 3.0)(1.0))(1.0) == 1.0
        assert fg.grad(lambda a, b: a, (0, 1))(1.0, 2.0) == (1.0, 0.0)


@pytest.mark.parametrize("f, name", [
    (lambda x: np.interp(0.5, [0.0, 1.0], x), "interp"), (np.frexp, "frexp"),
    (np.spacing, "spacing"),
    (lambda x: np.fft.fft(x), "fft"),
    (lambda x: np.apply_along_axis(np.sum, 0, x), "apply_along_axis"),
    (lambda x: fnp.histogram(x), "histogram"),
    (lambda x: np.logaddexp.reduce(x), "logaddexp.reduce")])
def test_operations_without_a_rule(f, name):
    with pytest.raises(fg.NoDerivativeError) as caught:
        fg.grad(f)(np.ones(2))
    assert name in str(caught.value)
    assert "fastgrad.numpy" in str(caught.value)
    assert "detach()" in str(caught.value)


# ---- recording, mutation, repetition --------------------------------------------------------

def test_grad_accumulates_and_is_detached():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    assert w.grad is None
    h = w * w
    h.sum().backward(retain_graph=True)
    h.sum().backward()
    assert w.grad.tolist() == [4, 8]
    assert not w.grad.requires_grad
    assert h.grad is None
    h = w * w
    h.retain_grad()
    (h * 3).sum().backward()
    assert h.grad.tolist() == [3, 3]


def test_seed_and_gradient_are_synonyms_and_twice_is_an_error():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    y = w * w
    y.backward(gradient=[1.0, 0.0])
    assert w.grad.tolist() == [2, 0]
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward([1.0, 0.0])
    assert w.grad.tolist() == [2, 0]
    y = w * w
    assert fg.gradients(y, [y, w], seed=[1.0, 1.0])[0].tolist() == [1, 1]
    assert w.grad.tolist() == [2, 0]


def test_tensor_copies_unless_told_otherwise():
    a = np.ones(2)
    assert not np.shares_memory(fg.tensor(a).numpy(), a)
    assert np.shares_memory(fg.tensor(a, copy=False).numpy(), a)


def test_values_shown_are_those_of_then():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    shown, detached = w.numpy(), w.detach()
    with fg.no_grad():
        w += 1
    assert shown.tolist() == [1, 2]
    assert detached.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        shown[0] = 3


def test_assignments_are_recorded_and_views_see_them():
    w = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = w * 2
    head, old = x[:2], x * x
    x[0] = w[2] * w[2]
    x += 1
    np.multiply(x, 2, out=x)
    assert head.tolist() == [20, 10]
    (head * [1.0, 10.0]).sum().backward(retain_graph=True)
    assert w.grad.tolist() == [0, 40, 12]
    w.zero_grad()
    old.sum().backward()
    assert w.grad.tolist() == [8, 16, 24]


def test_repeated_indices():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    w[[0, 0, 1]].sum().backward()
    assert w.grad.tolist() == [2, 1]
    w.zero_grad()
    fnp.take(w, [1, 1, 1]).sum().backward()
    assert w.grad.tolist() == [0, 3]
    v = fg.tensor([5.0, 6.0], requires_grad=True)
    x = fnp.zeros_like(w)
    x[[0, 0]] = v
    x.sum().backward()
    assert x.tolist() == [6, 0]
    assert v.grad.tolist() == [0, 1]
    v.zero_grad()
    x = fnp.zeros_like(w)
    np.add.at(x, [0, 0], v)
    x.sum().backward()
    assert x.tolist() == [11, 0]
    assert v.grad.tolist() == [1, 1]


def test_leaves_change_under_no_grad_alone():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    for change in (lambda: w.__setitem__(0, 1.0), lambda: w.__iadd__(1),
                   lambda: np.add(w, 1, out=w)):
        with pytest.raises(RuntimeError, match="no_grad"):
            change()
    loss = (w * w).sum()
    with fg.no_grad():
        w *= 10
        w[0] = 7
    loss.backward()
    assert w.grad.tolist() == [2, 4]
    assert w.tolist() == [7, 20]


@pytest.mark.parametrize("n", [2, 600, 20_000])
def test_arrays_of_the_user_may_change_after_recording(n):
    a, index, mask = np.arange(float(n)), np.arange(n)[::-1].copy(), np.arange(n) % 2 == 0
    w = fg.tensor(np.ones(n), requires_grad=True)
    y = w * a + fnp.where(mask, w, 0.0) + w[index] * a[::-1] + fnp.exp(w * 0) * (a @ w)
    a[:] = nan
    index[:] = 0
    mask[:] = False
    y.sum().backward()
    k = np.arange(float(n))
    np.testing.assert_allclose(w.grad.numpy(), k + (k % 2 == 0) + k + n * k)


def test_another_thread_may_read_but_not_record():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    y = w * 2
    found = []

    def work():
        found.append(y.detach().tolist())
        try:
            y * 2
        except RuntimeError as error:
            found.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] == [2, 4]
    assert "thread" in found[1]
    assert ".detach()" in found[1]


def test_an_array_of_one_index_is_no_index():
    a, x = np.arange(12.0).reshape(3, 4), np.array([1.0, 5.0, 2.0])

    def f(x):
        return np.sum(a[:, np.flatnonzero(x > 4.0)] * x[:, None])

    for transformed in (fg.compile(f), lambda x: fg.value_and_grad(f)(x)[0]):
        assert transformed(x) == f(x)
        assert transformed(x[::-1]) == f(x[::-1])
    with pytest.raises(TypeError, match="only integer scalar arrays"):
        range(fg.tensor(np.array([3])))
