"""The table is closed under differentiation: what partial formulas call are rows, with partials of
their own. So derivatives of any order can be composed of value kernels alone, and are, by
laws.Composed, to be compared with mpmath's and with what the documentation says of special points.
"""

import ast
import functools
import itertools
import math

import mpmath
import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
import laws
from fastgrad._core import core
from laws import DTYPES, ROWS

INF, NAN = math.inf, math.nan
INNER = [row for row in ROWS if row.inner]

every_row = pytest.mark.parametrize("row", ROWS, ids=laws.name_of)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
both_modes = pytest.mark.parametrize("mode", [laws.tangent, laws.adjoint])


def rows(condition):
    return pytest.mark.parametrize("row", [row for row in ROWS if condition(row)], ids=laws.name_of)


# ---- closure --------------------------------------------------------------------------------

def calls(text):
    """What a formula calls: (name, number of arguments)."""
    return {(node.func.id, len(node.args)) for node in ast.walk(ast.parse(text, mode="eval"))
            if isinstance(node, ast.Call)}


def check_closed(row, table):
    """Every helper in a partial is the value of a row of its name, called with a, b, c."""
    values = {other.name: other.value for other in table}
    for text in row.partials:
        for name, arity in calls(text) - {("K", 1)}:
            assert name.startswith("fg_") and name[3:] in values, (
                f"a partial of {row.name} calls {name}, and there is no row {name[3:]}: {text!r}")
            assert values[name[3:]] == f"{name}({', '.join('abc'[:arity])})", (row.name, text)


@every_row
def test_partials_call_rows_only(row):
    check_closed(row, ROWS)


def test_a_helper_without_a_row_is_found():
    sin, = (row for row in ROWS if row.name == "sin")
    for text in ("fg_nowhere(a)", "K(2) * fg_select(a, a, a)", "fg_cos(a, a)", "sin(a)"):
        with pytest.raises(AssertionError):
            check_closed(sin._replace(partials=(text,)), ROWS)


def test_inner_rows_are_called_and_have_no_public_name():
    called = {name[3:] for row in ROWS for text in row.partials for name, _ in calls(text)}
    # (The last two are what sweeps of results that may not be finite are made of.)
    assert {row.name for row in INNER} - called == {"chain", "settle"}
    for row in INNER:
        assert not row.numpy and not row.python
        for namespace in (fg, fnp, fg.special, fg.Tensor, fg.tensor(1.0)):
            assert not hasattr(namespace, row.name), (namespace, row.name)


@every_row
@every_dtype
@laws.on_every_isa
def test_partials_composed_of_value_kernels(row, dtype, isa):
    """The two readings of a partial formula, a loop and a tape of operations, have the same bits;
    in the domain and at special values."""
    for arrays in (laws.operands(row, dtype, (37,)), laws.special_operands(row, dtype)):
        args = laws.kernel_operands(row, arrays)
        if row.mask:
            args[2] = (args[2] != 0).astype(dtype)
        y = laws.compose(row.name, *map(laws.leaf, args[:row.arity]))
        for k in laws.wanted(row):
            found = laws.composed_partial(y, k)
            expected = core.kernel_partial(row.name, k, np.ones_like(y.value), *args, y.value)
            assert (found is None) == (expected is None)
            if found is not None:
                assert found.value.dtype == dtype
                # (Loops give a zero no sign.)
                assert laws.same_bits(found.value + 0.0, expected + 0.0), row.partials[k]


# ---- second and third derivatives -----------------------------------------------------------

def orders(row, degree):
    """The operands in the order in which they are differentiated after."""
    return itertools.product(laws.wanted(row), repeat=degree)


def derivative(row, args, places, modes):
    """The derivative after args[places[0]], after args[places[1]], ...; zeros where there is
    none."""
    leaves = [laws.leaf(x) for x in args]
    y = laws.compose(row.name, *leaves)
    for k, mode in zip(places, itertools.cycle(modes), strict=False):
        y = mode(y, leaves[k])
        if y is None:
            return np.zeros_like(leaves[0].value)
    return y.value


@functools.cache
def exact_derivatives(row):
    """Operands, and {how often after each: mpmath's derivative there}."""
    args = laws.kernel_operands(row, laws.operands(row, "float64", (6,), "exact"))[:row.arity]
    found = {}
    with mpmath.workdps(40):
        for degree in (1, 2, 3):
            for places in orders(row, degree):
                counts = tuple(places.count(k) for k in range(row.arity))
                if counts not in found:
                    found[counts] = np.array([float(mpmath.diff(
                        lambda *x: laws.formula(row.value, *x, names=laws.MP_NAMES),
                        tuple(mpmath.mpf(float(x)) for x in point), counts))
                        for point in zip(*args, strict=True)])
    return args, found


@rows(lambda row: row.smooth)
@pytest.mark.parametrize("modes", [(laws.tangent,), (laws.adjoint,), (laws.adjoint, laws.tangent)],
                         ids=["forward", "reverse", "forward over reverse"])
def test_formulas_against_mpmath(row, modes):
    args, exact = exact_derivatives(row)
    for degree in (1, 2, 3):
        for places in orders(row, degree):
            expected = exact[tuple(places.count(k) for k in range(row.arity))]
            np.testing.assert_allclose(derivative(row, args, places, modes), expected, rtol=1e-11,
                                       atol=1e-12, err_msg=str(places))


@rows(lambda row: row.smooth)
def test_float32_derivatives_against_float64(row):
    args = laws.kernel_operands(row, laws.operands(row, "float32", (20,)))[:row.arity]
    wide = [x.astype(np.float64) for x in args]
    for degree in (2, 3):
        for places in orders(row, degree):
            single = derivative(row, args, places, [laws.adjoint])
            assert single.dtype == np.float32
            np.testing.assert_allclose(single, derivative(row, wide, places, [laws.adjoint]),
                                       rtol=1e-4, atol=1e-4)


@rows(lambda row: not row.smooth)
@both_modes
def test_rows_with_kinks_have_no_second_derivative(row, mode):
    args = laws.special_operands(row, "float64")
    for places in orders(row, 2):
        assert (derivative(row, args, places, [mode]) == 0).all()


# ---- special points -------------------------------------------------------------------------

# Row, point: first, second and third derivative after the first operand.
POINTS = [
    ("sqrt", (0.0,), (INF, -INF, INF)),
    ("sqrt", (-0.0,), (INF, -INF, INF)),
    ("sqrt", (INF,), (0, 0, 0)),
    ("sqrt", (-1.0,), (NAN, NAN, NAN)),
    ("cbrt", (0.0,), (INF, -INF, INF)),             # the limit from the side of the zero's sign
    ("cbrt", (-0.0,), (INF, INF, INF)),
    ("cbrt", (-INF,), (0, 0, 0)),
    ("reciprocal", (0.0,), (-INF, INF, -INF)),
    ("reciprocal", (-0.0,), (-INF, -INF, -INF)),
    ("reciprocal", (INF,), (0, 0, 0)),
    ("square", (0.0,), (0, 2, 0)),
    ("exp", (-INF,), (0, 0, 0)),
    ("log", (0.0,), (INF, -INF, INF)),
    ("log", (-0.0,), (INF, -INF, INF)),
    ("log", (-1.0,), (NAN, NAN, NAN)),
    ("log", (INF,), (0, 0, 0)),
    ("log2", (0.0,), (INF, -INF, INF)),
    ("log10", (-1.0,), (NAN, NAN, NAN)),
    ("log1p", (-1.0,), (INF, -INF, INF)),
    ("log1p", (-2.0,), (NAN, NAN, NAN)),
    ("arcsin", (1.0,), (INF, INF, INF)),
    ("arcsin", (-1.0,), (INF, -INF, INF)),
    ("arcsin", (0.0,), (1, 0, 1)),
    ("arcsin", (INF,), (NAN, NAN, NAN)),
    ("arccos", (1.0,), (-INF, -INF, -INF)),
    ("arctan", (INF,), (0, 0, 0)),
    ("arctan", (-INF,), (0, 0, 0)),
    ("arctan", (1e90,), (1e-180, -2e-270, 0)),
    ("arcsinh", (INF,), (0, 0, 0)),
    ("arcsinh", (-1e90,), (1e-90, 1e-180, 2e-270)),
    ("arccosh", (1.0,), (INF, -INF, INF)),
    ("arccosh", (INF,), (0, 0, 0)),
    ("arccosh", (0.5,), (NAN, NAN, NAN)),
    ("arccosh", (-2.0,), (NAN, NAN, NAN)),
    ("arctanh", (1.0,), (INF, INF, INF)),
    ("arctanh", (-1.0,), (INF, -INF, INF)),
    ("arctanh", (2.0,), (NAN, NAN, NAN)),
    ("tanh", (1e-10,), (1, -2e-10, -2)),
    ("tanh", (INF,), (0, 0, 0)),
    ("sigmoid", (1e-10,), (0.25, -1.25e-11, -0.125)),
    ("sigmoid", (700.0,), (math.exp(-700), -math.exp(-700), math.exp(-700))),
    ("sigmoid", (-800.0,), (0, 0, 0)),
    ("sigmoid", (INF,), (0, 0, 0)),
    ("softplus", (INF,), (1, 0, 0)),
    ("softplus", (-700.0,), (math.exp(-700),) * 3),
    ("erf", (30.0,), (0, 0, 0)),
    ("erf", (-INF,), (0, 0, 0)),
    ("power", (0.0, 0.0), (0, 0, 0)),
    ("power", (0.0, 1.0), (1, 0, 0)),
    ("power", (0.0, 2.0), (0, 2, 0)),
    ("power", (-0.0, 2.0), (0, 2, 0)),
    ("power", (0.0, 3.0), (0, 0, 6)),
    ("power", (0.0, 2.5), (0, 0, INF)),
    ("power", (0.0, 1.5), (0, INF, -INF)),
    ("power", (0.0, 0.5), (INF, -INF, INF)),
    ("power", (0.0, -1.0), (-INF, INF, -INF)),
    ("power", (-0.0, -1.0), (-INF, -INF, -INF)),
    ("power", (-2.0, 3.0), (12, -12, 6)),
    ("power", (-2.0, -1.0), (-0.25, -0.25, -0.375)),
    ("power", (-2.0, 0.0), (0, 0, 0)),
    ("power", (-2.0, 0.5), (NAN, NAN, NAN)),
    ("power", (-2.0, 1e-20), (NAN,)),
    ("power", (INF, 2.0), (INF, 2, 0)),
    ("logaddexp", (-INF, -INF), (0, 0, 0)),
    ("logaddexp", (INF, INF), (0.5, 0.25, 0)),
    ("logaddexp", (INF, 0.0), (1, 0, 0)),
    ("logaddexp", (-INF, 0.0), (0, 0, 0)),
    ("arctan2", (0.0, 0.0), (0, 0, 0)),
    ("arctan2", (INF, 1.0), (0, 0, 0)),
    ("hypot", (0.0, 0.0), (0, 0, 0)),
    ("hypot", (4.0, 0.0), (1, 0, 0)),
    ("hypot", (0.0, 4.0), (0, 0.25, 0)),
    ("hypot", (-INF, 1.0), (-1, 0, 0)),
    ("xlogy", (0.0, 0.0), (0, 0, 0)),
    ("abs", (0.0,), (0, 0, 0)),
    ("relu", (0.0,), (0, 0, 0)),
    ("maximum", (1.0, 1.0), (0.5, 0, 0)),
    ("clip", (1.0, 1.0, 2.0), (0, 0, 0)),
    ("where", (1.0, 2.0, 0.0), (0, 0, 0)),
]

# The same after other operands: (row, point, {operands in the order of differentiation: value}).
MIXED = [
    ("power", (0.0, 2.0), {(1,): 0, (1, 1): 0, (1, 1, 1): 0, (0, 1): 0, (1, 0): 0}),
    ("power", (0.0, 3.0), {(0, 0, 1): 0, (0, 1, 0): 0, (1, 0, 0): 0, (0, 1, 1): 0, (1, 1, 0): 0}),
    ("power", (0.0, 1.0), {(1,): 0, (1, 1): 0, (0, 1): -INF, (1, 0): -INF}),
    ("power", (0.0, 0.5), {(1,): 0, (1, 1): 0, (0, 1): -INF, (1, 0): -INF}),
    ("power", (0.0, 0.0), {(1,): 0, (1, 1): 0, (0, 1): INF, (1, 0): INF}),
    ("power", (0.0, -1.0), {(1,): -INF, (1, 1): INF, (0, 1): INF, (1, 0): INF}),
    ("power", (-2.0, 2.0), {(1,): NAN, (1, 1): NAN, (0, 1): NAN, (1, 0): NAN}),
    ("power", (-2.0, 0.0), {(0, 1): NAN, (1, 0): NAN}),
    ("power", (INF, -1.0), {(1,): 0, (1, 1): 0, (0, 1): 0, (1, 0): 0}),
    ("logaddexp", (-INF, -INF), {(0, 1): 0, (1, 1): 0}),
    ("logaddexp", (INF, INF), {(0, 1): -0.25, (1, 0): -0.25, (1, 1): 0.25}),
    ("xlogy", (0.0, 0.0), {(1,): 0, (0, 1): INF, (1, 0): INF, (1, 1): 0, (1, 1, 1): 0}),
    ("xlogy", (0.0, 2.0), {(1,): 0, (0, 1): 0.5, (1, 0): 0.5, (1, 1): 0, (0, 1, 1): -0.25}),
    ("xlogy", (2.0, -0.0), {(1,): INF, (0, 1): INF, (1, 0): INF, (1, 1): -INF, (1, 1, 1): INF}),
    ("xlogy", (2.0, -1.0), {(1,): NAN, (0, 1): NAN, (1, 0): NAN, (1, 1): NAN}),
    ("arctan2", (0.0, 0.0), {(1,): 0, (0, 1): 0, (1, 0): 0, (1, 1): 0, (0, 1, 1): 0}),
    ("hypot", (0.0, 0.0), {(1,): 0, (0, 1): 0, (1, 0): 0, (1, 1): 0, (0, 1, 1): 0}),
    ("hypot", (4.0, 0.0), {(1,): 0, (0, 1): 0, (1, 0): 0, (1, 1): 0.25, (0, 1, 1): -0.0625}),
    ("divide", (0.0, 1.0), {(0, 1): -1, (1, 0): -1, (1, 1): 0}),
    ("divide", (1.0, 0.0), {(0, 1): -INF, (1, 1): INF, (1, 1, 1): -INF}),
    ("divide", (1.0, INF), {(0, 1): 0, (1, 0): 0, (1, 1): 0}),
    ("weigh", (0.0, INF), {(0,): INF, (1,): 0, (0, 1): 1, (0, 0): 0}),
    ("weigh", (NAN, 0.0), {(0,): 0, (1,): NAN, (0, 1): 1}),
]
CASES = [(name, point, {(0,) * (i + 1): value for i, value in enumerate(values)})
         for name, point, values in POINTS] + MIXED


@pytest.mark.sampled(2)
@both_modes
@every_dtype
@pytest.mark.parametrize("name, point, expected", CASES,
                         ids=[f"{name}{point}" for name, point, _ in CASES])
def test_special_points(name, point, expected, dtype, mode):
    row, = (row for row in ROWS if row.name == name)
    with np.errstate(all="ignore"):
        args = [np.full(1, x, dtype) for x in point]
        for places, value in expected.items():
            np.testing.assert_allclose(derivative(row, args, places, [mode]),
                                       np.array(value, dtype), atol=0, err_msg=str(places),
                                       rtol=1e-5 if dtype == "float32" else 1e-14)


# The slopes 1 / y and -a / y**2 of hypot's slope a / y cancel, and are infinite where y is
# subnormal.
INVERTS = {"hypot"}


@rows(lambda row: not row.inner)
@every_dtype
def test_no_nan_in_the_tails(row, dtype):
    """Where the value and all slopes are finite the second derivatives are numbers too, however far
    out, or near 0: no infinity meets a zero in them."""
    tiny = np.finfo(dtype).tiny if row.name in INVERTS else np.finfo(dtype).smallest_subnormal
    ends = [np.array(x, dtype) for x in zip(*itertools.product(
        (-1e30, -800.0, -100.0, -tiny, 0.0, tiny, 100.0, 800.0, 1e30), repeat=row.arity),
        strict=True)]
    if row.mask:
        ends[2] = (ends[2] > 0).astype(dtype)
    finite = np.isfinite(derivative(row, ends, (), []))
    for places in orders(row, 1):
        finite &= np.isfinite(derivative(row, ends, places, [laws.adjoint]))
    for places in orders(row, 2):
        found = derivative(row, ends, places, [laws.adjoint])
        wrong = finite & np.isnan(found)
        assert not wrong.any(), (places, [[float(x[i]) for x in ends]
                                          for i in np.flatnonzero(wrong)])
