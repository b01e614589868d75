"""How accurate the element-wise operators and fg.special are: values and first derivatives against
mpmath over their whole domains, in every instruction set and in the scalar tier.

BOUNDS says for each operator and dtype how far off a result may be. A bound is the largest error
that was measured, rounded up; docs/accuracy.md has the same table, and says it in words.

    python tests/test_accuracy.py [operator ...]        measures with dense points, prints the table

Errors are counted in units in the last place (ulp) of the exact result in its own dtype; below the
smallest normal number that unit is the distance of subnormal numbers.
"""

import functools
import math
import re
import sys
from pathlib import Path

import laws
import mpmath
import numpy as np
import pytest
import scipy.special
from laws import DTYPES, ROWS

import fastgrad as fg
from fastgrad._core import core, program
from fastgrad.graphs.graph import OPS

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
PUBLIC = [row for row in ROWS if not row.inner]
POINTS = {"quick": 60, "dense": 3000}

# No bound may be larger: a value, a derivative, in ulp. A derivative within 1e-12 (float32: 1e-5)
# of itself would do; all but a few are far better.
VALUE_LIMIT, DERIVATIVE_LIMIT = 4, {"float64": 1e-12 * 2 ** 52, "float32": 1e-5 * 2 ** 23}

# ---- measured bounds ------------------------------------------------------------------------

# operator: value, derivative in float64; value, derivative in float32.
# power: with respect to b where a**b is subnormal, up to log(a) / 2 (else 3).
BOUNDS = {
    "add": (0.5, 0, 0.5, 0),
    "subtract": (0.5, 0, 0.5, 0),
    "multiply": (0.5, 0, 0.5, 0),
    "divide": (0.5, 2, 0.5, 2),
    "power": (1.5, 39, 1, 47),
    "mod": (0.5, 1.5, 0.5, 0.5),
    "fmod": (0, 0, 0, 1.5),
    "floor_divide": (0.5, 0, 1.5, 0),
    "negative": (0, 0, 0, 0),
    "positive": (0, 0, 0, 0),
    "square": (0.5, 0, 0.5, 0),
    "reciprocal": (0.5, 2.5, 0.5, 2),
    "sqrt": (0.5, 2, 0.5, 2),
    "cbrt": (0.5, 4.5, 1, 4),
    "exp": (1.5, 1.5, 3, 3),
    "exp2": (2, 2.5, 1.5, 2),
    "expm1": (2.5, 1.5, 2.5, 3),
    "log": (2, 0.5, 4, 0.5),
    "log2": (2, 1.5, 2, 2),
    "log10": (2, 0.5, 2, 1.5),
    "log1p": (2, 2, 2, 2),
    "logaddexp": (3, 2.5, 0.5, 3.5),
    "xlogy": (2.5, 2, 0.5, 4),
    "sin": (3, 3.5, 2, 2),
    "cos": (3.5, 3.5, 2, 2),
    "tan": (3, 5, 3, 6),
    "arcsin": (2.5, 2, 2.5, 1.5),
    "arccos": (2, 2, 2, 2),
    "arctan": (2, 2.5, 2, 2.5),
    "arctan2": (2.5, 2.5, 3.5, 2.5),
    "hypot": (2, 2.5, 2, 2.5),
    "sinh": (2, 2, 2, 2),
    "cosh": (2, 2, 2.5, 2),
    "tanh": (1, 0.65, 1, 0.62),
    "arcsinh": (2, 2.5, 2, 2),
    "arccosh": (2, 3, 1.5, 3),
    "arctanh": (2.5, 2, 2, 2),
    "deg2rad": (0.5, 0, 1, 0.5),
    "rad2deg": (0.5, 0, 1, 0.5),
    "sigmoid": (2.5, 3, 3, 4),
    "softplus": (2, 2, 3, 3.5),
    "erf": (2, 2.5, 2.5, 0.5),
    "abs": (0, 0, 0, 0),
    "relu": (0, 0, 0, 0),
    "maximum": (0, 0, 0, 0),
    "minimum": (0, 0, 0, 0),
    "fmax": (0, 0, 0, 0),
    "fmin": (0, 0, 0, 0),
    "clip": (0, 0, 0, 0),
    "where": (0, 0, 0, 0),
    "heaviside": (0, 0, 0, 0),
    "copysign": (0, 0, 0, 0),
    "sign": (0, 0, 0, 0),
    "floor": (0, 0, 0, 0),
    "ceil": (0, 0, 0, 0),
    "trunc": (0, 0, 0, 0),
    "rint": (0, 0, 0, 0),
}


# ---- points and exact results ---------------------------------------------------------------

# Where functions have zeros, poles, thresholds and limits of their range.
ANCHORS = [0.25, 0.5, math.log(2), 1, math.sqrt(2), math.e, 10, 18.7, 20, 37, 88.72, 103.97, 128,
           149, 709.78, 745.13, 1024, 1074, 2.0 ** 24, 2.0 ** 53, 2.0 ** 63, 2.0 ** -30, 2.0 ** 30,
           2.0 ** 60, 1e150, *(k * math.pi / 2 for k in (1, 2, 3, 4, 5, 7, 11, 100, 10001))]


def operand(row, dtype, rng, n):
    """Of every order of magnitude, from the domain, near anchors, subnormal and huge."""
    info = np.finfo(dtype)
    least, most = (math.log10(float(x)) for x in (info.smallest_subnormal, info.max))
    sign = rng.choice([-1.0, 1.0], n)
    near_one = 1 + rng.choice([-1, 0, 1], n) * 2.0 ** -rng.uniform(1, info.nmant + 1, n)
    return np.choose(rng.choice(6, n, p=[.2, .2, .2, .2, .1, .1]), [
        10.0 ** rng.uniform(least, most, n) * sign,
        rng.uniform(row.low, row.high, n),
        10.0 ** rng.uniform(-5, 3, n) * sign,
        rng.choice(ANCHORS, n) * near_one * sign,
        float(info.tiny) * 10.0 ** rng.uniform(math.log10(info.eps), 2, n) * sign,
        float(info.max) * 10.0 ** rng.uniform(-6, 0, n) * sign])


def related(row, dtype, rng, made):
    """Second operands that are nearly the first one, or of a similar size, or such that the result
    is neither 0 nor infinite."""
    info, n = np.finfo(dtype), len(made[0])
    a, b = made[:2]
    sign = rng.choice([-1, 1], n)
    close = a * sign * (1 + rng.choice([-1, 1], n) * 2.0 ** -rng.uniform(0, info.nmant + 1, n))
    made[1] = np.choose(rng.integers(0, 3, n), [b, close, a * sign * 10.0 ** rng.uniform(-8, 8, n)])
    if row.name.startswith("power"):
        exponent = rng.uniform(math.log(info.smallest_subnormal), math.log(info.max), n)
        made[1] = np.choose(rng.integers(0, 3, n), [
            made[1], exponent / np.log(abs(a)), np.rint(rng.uniform(-20, 20, n))])
    if row.name.startswith("logaddexp"):                # the logarithms of p and 1 - p
        p, chosen = 10.0 ** rng.uniform(-12, -1e-9, n), rng.random(n) < .3
        made[0] = np.where(chosen, np.log(p), a)
        made[1] = np.where(chosen, np.log1p(-p), made[1])


def points(row, dtype, n):
    """Operands other than zero, infinity and NaN, for which there is a value."""
    rng = laws.generator(row.name, dtype, "accuracy")
    with np.errstate(all="ignore"):
        made = [operand(row, dtype, rng, n) for _ in range(row.arity)]
        if row.arity > 1:
            related(row, dtype, rng, made)
        for k in set(range(row.arity)) - set(laws.wanted(row)):
            made[k] = (made[k] > 0).astype(float)
        made = [x.astype(dtype) for x in made]
        keep = ~np.isnan(laws.oracle(row)(*(x.astype(float) for x in made)))
    for k in laws.wanted(row):
        keep &= np.isfinite(made[k]) & (made[k] != 0)
    return [np.ascontiguousarray(x[keep]) for x in made]


def number(function, *args, **options):
    """A real mpmath number, or None: a pole, outside of the domain."""
    try:
        x = function(*args, **options)
    except (ZeroDivisionError, ValueError, OverflowError):
        return None
    if isinstance(x, mpmath.mpc):
        x = x.real if x.imag == 0 else mpmath.nan
    return mpmath.mpf(x) if mpmath.isfinite(x) else None


class Exact:
    """Numbers as the nearest float and what is left over in ulp; NaN where there is none."""

    def __init__(self, numbers, dtype):
        split = [self.split(x, dtype) for x in numbers]
        self.nearest, self.rest, self.unit = np.array(split, dtype=float).reshape(-1, 3).T
        self.most, self.dtype = float(np.finfo(dtype).max), dtype

    @staticmethod
    def split(x, dtype):
        if x is None:
            return math.nan, 0.0, 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            nearest = np.dtype(dtype).type(float(x))
            unit = np.spacing(abs(nearest))
        if not np.isfinite(unit):                   # x overflows
            return float(nearest), 0.0, 1.0
        return float(nearest), float((x - float(nearest)) / mpmath.mpf(float(unit))), float(unit)

    def errors(self, found, size=None):
        """How far off, in ulp of the exact number, or of `size`. No number: 0. An overflow may give
        the largest number, and the number after the largest is infinity."""
        with np.errstate(all="ignore"):
            found, exact = found.astype(float), self.nearest
            off = abs((found - exact) / self.unit - self.rest)
            off = np.where(np.isinf(found), (self.most - abs(exact)) / self.unit + 1, off)
            off = np.where((np.sign(found) != np.sign(exact)) & np.isinf(found), np.inf, off)
            off = np.where(np.isinf(exact), np.where(
                (found == exact) | (found == np.copysign(self.most, exact)), 0.0, np.inf), off)
            off = np.where(np.isnan(found), np.inf, off)
            if size is not None:
                unit = np.spacing(np.asarray(size).astype(self.dtype)).astype(float)
                off = np.where(np.isfinite(unit), off * self.unit / unit, off)
        return np.where(np.isnan(exact), 0.0, off)


# Errors that are counted in ulp of something else than the result, by operator and operand (None:
# the value): near a zero of logaddexp the ulp of the larger operand counts; that of tanh is
# taken from its result, 1 - y * y, and counts in ulp of 1.
ABSOLUTE = {
    ("logaddexp", None): lambda args, exact: np.maximum(abs(np.max(args, axis=0)), abs(exact)),
    ("tanh", 0): lambda args, exact: np.ones(exact.shape),
    ("arctan2_da", 1): lambda args, exact: 1 / np.hypot(*(x.astype(float) for x in args)) ** 2,
    ("power_da", 1): lambda args, exact: np.maximum(
        abs(exact), abs(laws.SUMS_THAT_CANCEL["power_da", 1](*(x.astype(float) for x in args)))),
}
DIGITS = {"power": 1200, "power_da": 1200}      # bits that mpmath needs, for b - 1 here; else 420


@functools.cache
def exact(row, dtype, n):
    """Points, and there the exact value and partials (None: zero everywhere)."""
    args = points(row, dtype, n)
    values, partials = [], [[] for _ in range(row.arity)]
    with mpmath.workprec(DIGITS.get(row.name, 420)):
        for point in zip(*args, strict=True):
            point = [mpmath.mpf(float(x)) for x in point]
            y = number(laws.formula, row.value, *point, names=laws.MP_NAMES)
            values.append(y)
            overflows = y is not None and abs(y) > float(np.finfo(dtype).max)
            point += [None] * (3 - len(point))
            for k, text in enumerate(row.partials):
                # What is taken from a result that overflows is infinite.
                known = y is not None and text != "K(0)" and not (overflows and "Y" in row.reads[k])
                partials[k].append(number(laws.formula, text, *point, y=y, names=laws.MP_NAMES)
                                   if known else None)
        return args, Exact(values, dtype), [
            None if text == "K(0)" else Exact(found, dtype)
            for text, found in zip(row.partials, partials, strict=True)]


def results(row, dtype, args):
    """What is computed: (tier, value, partials) of each instruction set and of the scalar tier."""
    given = laws.kernel_operands(row, args)
    before = core.isa()
    try:
        for isa in core.available_isas():
            core.use_isa(isa)
            y = core.kernel_value(row.name, *given)
            yield isa, y, [core.kernel_partial(row.name, k, np.ones_like(y), *given, y)
                           for k in range(row.arity)]
    finally:
        core.use_isa(before)
    points = list(zip(*(x.tolist() for x in args), strict=True))
    y = np.array([core.scalar_value(row.name, dtype, *point) for point in points])
    points = [(*point, 0.0, 0.0)[:3] + (float(z),) for point, z in zip(points, y, strict=True)]
    yield "scalar", y, [np.array([core.scalar_partial(row.name, k, dtype, *point)
                                  for point in points]) for k in range(row.arity)]


def errors(row, dtype, n):
    """(what, errors, points, found) of each tier: None for the value, else the operand."""
    args, value, partials = exact(row, dtype, n)

    def errors_of(k, wanted, found):
        scale = ABSOLUTE.get((row.name, k))
        with np.errstate(all="ignore"):
            return wanted.errors(found, scale and scale(args, wanted.nearest))

    for tier, y, found in results(row, dtype, args):
        yield tier, None, errors_of(None, value, y), y
        for k, partial in enumerate(partials):
            if partial is not None:
                yield tier, k, errors_of(k, partial, found[k]), found[k]


def check(row, dtype, n, bounds):
    args, *wanted = exact(row, dtype, n)
    assert len(args[0]) > n / 5
    for tier, k, off, found in errors(row, dtype, n):
        allowed = bounds[k is not None]
        i = int(off.argmax())
        assert off[i] <= allowed, (
            f"{row.name}, {'value' if k is None else 'partial ' + 'abc'[k]}, {dtype}, {tier}: "
            f"{off[i]:.2f} ulp instead of {allowed} at {[float(x[i]) for x in args]}: {found[i]!r} "
            f"instead of {(wanted[0] if k is None else wanted[1][k]).nearest[i]!r}; "
            f"{np.sum(off > allowed)} of {len(off)} points")


def bounds(row, dtype):
    """Of value and derivative; a row that is not in the table may use the limits."""
    if row.name in BOUNDS:
        return BOUNDS[row.name][:2] if dtype == "float64" else BOUNDS[row.name][2:]
    return VALUE_LIMIT, DERIVATIVE_LIMIT[dtype]


every_public_row = pytest.mark.parametrize("row", PUBLIC, ids=laws.name_of)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


# ---- operators ------------------------------------------------------------------------------

@pytest.mark.sampled(2)
@every_public_row
@every_dtype
def test_accuracy(row, dtype):
    check(row, dtype, POINTS["quick"], bounds(row, dtype))


@pytest.mark.slow
@every_public_row
@every_dtype
def test_accuracy_densely(row, dtype):
    check(row, dtype, POINTS["dense"], bounds(row, dtype))


INNER = [row for row in ROWS if row.inner]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("row", INNER, ids=laws.name_of)
@every_dtype
def test_accuracy_of_partials(row, dtype):
    """The rows that are partials of others, wherever those reach; and, away from overflow and
    underflow, their own partials: second derivatives."""
    limit = DERIVATIVE_LIMIT[dtype]
    args, *_ = exact(row, dtype, POINTS["quick"])
    scale = 1e60 if dtype == "float64" else 1e8
    moderate = np.all([(abs(x) < scale) & (abs(x) > 1 / scale) for x in args], axis=0)
    _, value, partials = exact(row, dtype, POINTS["quick"])
    for tier, k, off, found in errors(row, dtype, POINTS["quick"]):
        if k is not None:
            ordinary = abs(partials[k].nearest)
            off = np.where(moderate & (ordinary > 1 / scale ** 2) & (ordinary < scale ** 2), off, 0)
        i = int(off.argmax())
        assert off[i] <= (VALUE_LIMIT if k is None else limit), (
            tier, k, off[i], [float(x[i]) for x in args], found[i])


def test_every_operator_has_a_bound():
    assert {row.name for row in PUBLIC} - BOUNDS.keys() == set(), "see the head of this file"
    assert BOUNDS.keys() - {row.name for row in PUBLIC} == set()


def test_no_bound_is_above_the_limits():
    for name, found in BOUNDS.items():
        for value, derivative, dtype in (found[:2] + ("float64",), found[2:] + ("float32",)):
            assert value <= VALUE_LIMIT and derivative <= DERIVATIVE_LIMIT[dtype], name


def test_the_yardstick():
    """Errors are seen where there are any."""
    third = Exact([mpmath.mpf(1) / 3, None, mpmath.mpf(10) ** 400], "float64")
    assert third.errors(np.array([1 / 3, 7.0, np.inf])).max() < 0.5
    assert third.errors(np.array([np.nextafter(1 / 3, 1), 7.0, 1e308])).tolist()[0] > 0.5
    assert np.isinf(third.errors(np.array([np.nan, 7.0, -np.inf]))).tolist() == [True, False, True]
    single = Exact([mpmath.mpf(3.4028234e38), mpmath.mpf("1e-45")], "float32")
    off = single.errors(np.array([np.inf, 0], np.float32))
    assert 0.5 < off[0] < 2 and 0.5 < off[1] < 1


def test_derivatives_are_near_differences():
    """The formulas that exact derivatives come from, against those of the values."""
    for row in PUBLIC:
        args, _, partials = exact(row, "float64", POINTS["quick"])
        for i in range(0, len(args[0]), 40):
            for k, partial in enumerate(partials):
                x = [mpmath.mpf(float(v[i])) for v in args]
                if partial is None or not row.smooth or not 1e-3 < min(map(abs, x)) or max(
                        map(abs, x)) > 1e3 or not 1e-300 < abs(partial.nearest[i]) < 1e300:
                    continue
                with mpmath.workprec(420):
                    step = mpmath.mpf(2) ** -140
                    up, down = ([v + sign * step * (j == k) for j, v in enumerate(x)]
                                for sign in (1, -1))
                    up, down = (number(laws.formula, row.value, *v, names=laws.MP_NAMES)
                                for v in (up, down))
                    if up is not None and down is not None:
                        slope = float((up - down) / (2 * step))
                        assert slope == pytest.approx(partial.nearest[i], rel=1e-14), (row.name, x)


# ---- fg.special -----------------------------------------------------------------------------

# What is no row: error in ulp of value and derivative. For softmax and the derivative of logsumexp,
# relative errors grow with the distance d to the maximum, which is rounded before exp: d ulp more.
# logsumexp and log_softmax count in ulp of the largest number that is added.
SPECIAL = {"softmax": (4, 6), "logsumexp": (2, 6), "log_softmax": (2, 6), "xlog1py": (4, 6)}


def vectors(dtype, n):
    rng = laws.generator("special", dtype)
    for i in range(n):
        x = rng.standard_normal(5) * 10.0 ** rng.uniform(-3, 2.3)
        yield (x + rng.choice([0, 1e3, -1e3]) if i % 3 == 0 else x).astype(dtype)


@pytest.mark.sampled(2)
@every_dtype
@pytest.mark.parametrize("name", ["softmax", "logsumexp", "log_softmax"])
def test_accuracy_of_reductions(name, dtype):
    value_bound, slope_bound = SPECIAL[name]
    function = getattr(fg.special, name)
    for x in vectors(dtype, 60):
        with mpmath.workprec(3000):
            weights = [mpmath.exp(mpmath.mpf(float(v))) for v in x]
            total = mpmath.fsum(weights)
            p = [w / total for w in weights]
            wanted = {"softmax": p, "logsumexp": [mpmath.log(total)],
                      "log_softmax": [mpmath.log(w) for w in p]}[name]
            wanted = Exact(wanted, dtype)
            if name == "softmax":
                slopes = [[p[i] * ((i == j) - p[j]) for j in range(5)] for i in range(5)]
            elif name == "log_softmax":
                slopes = [[(i == j) - p[j] for j in range(5)] for i in range(5)]
            else:
                slopes = [p]
            slopes = [Exact(row, dtype) for row in slopes]
        value = np.atleast_1d(function(x))
        distance = (x.max() - x).astype(float)
        size = None if name == "softmax" else np.full(len(value), max(abs(x).max(), 1))
        off = wanted.errors(value, size) - (distance if name == "softmax" else 0)
        assert off.max() <= value_bound, (x, value, wanted.nearest)
        jacobian = np.atleast_2d(fg.jacobian(function)(x))
        for i, (found, row) in enumerate(zip(jacobian, slopes, strict=True)):
            # A slope is a difference of weights: those of the softmax in ulp of its value.
            size = {"softmax": abs(value[i]), "log_softmax": 1.0, "logsumexp": None}[name]
            size = None if size is None else np.full(5, max(size, np.finfo(dtype).tiny))
            off = row.errors(found, size) - distance - distance[i] * (name == "softmax")
            assert off.max() <= slope_bound, (name, x, i, found, row.nearest)


@every_dtype
def test_accuracy_of_xlog1py(dtype):
    value_bound, slope_bound = SPECIAL["xlog1py"]
    rng = laws.generator("xlog1py", dtype)
    n = 200
    x = (rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-20, 20, n)).astype(dtype)
    y = np.where(rng.random(n) < .5, 10.0 ** rng.uniform(-20, 20, n),
                 -10.0 ** rng.uniform(-20, -1e-3, n)).astype(dtype)
    with mpmath.workprec(420):
        pairs = [[mpmath.mpf(float(v)) for v in pair] for pair in zip(x, y, strict=True)]
        value = Exact([a * mpmath.log1p(b) for a, b in pairs], dtype)
        slopes = (Exact([mpmath.log1p(b) for _, b in pairs], dtype),
                  Exact([a / (1 + b) for a, b in pairs], dtype))
    assert value.errors(fg.special.xlog1py(x, y)).max() <= value_bound
    found = fg.elementwise_grad(fg.special.xlog1py, argnums=(0, 1))(x, y)
    for slope, exactly in zip(found, slopes, strict=True):
        assert exactly.errors(slope).max() <= slope_bound


SPECIAL_VALUES = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0, -2.0])


@every_dtype
def test_special_values_of_special_functions(dtype):
    """As SciPy's, the sign of zero included."""
    x = SPECIAL_VALUES.astype(dtype)
    pairs = np.array([(a, b) for a in x for b in x], dtype).T
    with np.errstate(all="ignore"):
        for name in ("cbrt", "erf", "exp2", "expit", "expm1", "log1p"):
            expected, found = (getattr(module, name)(x) for module in (scipy.special, fg.special))
            assert laws.ulp_distance(found, expected).max() <= 4, name
            same = np.signbit(found) == np.signbit(expected)
            assert (same | np.isnan(expected)).all(), name
        for name in ("xlogy", "xlog1py"):
            expected, found = (getattr(module, name)(*pairs)
                               for module in (scipy.special, fg.special))
            assert laws.ulp_distance(found, expected).max() <= 4, name
        for name in ("softmax", "log_softmax", "logsumexp"):
            for v in ([-np.inf, 0.0], [-np.inf, -np.inf], [np.nan, 1.0], [0.0, -0.0], [-0.0]):
                v = np.array(v, dtype)
                expected = np.asarray(getattr(scipy.special, name)(v))
                np.testing.assert_allclose(getattr(fg.special, name)(v), expected, rtol=1e-6)


# ---- zeros of both signs --------------------------------------------------------------------

ZEROS = [(x, y) for x in (0.0, -0.0) for y in (0.0, -0.0)]
PAIRED = {"maximum": np.maximum, "minimum": np.minimum, "fmax": np.fmax, "fmin": np.fmin}


def scalar_run(name, dtype, *args):
    """What a program's string of scalar operations makes of it."""
    operation = np.array([(OPS[name], np.dtype(dtype).num, 0, 3, 0, 1, 2)], np.dtype([
        ("op", "u2"), ("dtype", "u1"), ("flags", "u1"), ("y", "u4"), ("a", "u4"), ("b", "u4"),
        ("c", "u4")]))
    registers = np.array([*args, 0.0, 9.0][:3] + [9.0])
    program.scalar_run(operation.view(np.uint8), registers, np.array([0, 0, 0, 1], np.uint8))
    return registers[3]


@every_dtype
@pytest.mark.parametrize("name", PAIRED)
@laws.on_every_isa
def test_zeros_of_both_signs(name, dtype, isa):
    """NumPy's maximum and minimum give the second one of two zeros, scalars and arrays alike. Its
    fmax and fmin give the one or the other, by its version and the place in an array; here they
    always give the first one. All tiers give the same bits. (Of plain arrays the
    result is NumPy's own.)"""
    numpys, own = PAIRED[name], core.functions[name]
    compiled = fg.compile(fg.value_and_grad(own))
    program_of = fg.compile(lambda a, b: fg.jvp(own, (a, b), (a, b)))
    for x, y in ZEROS:
        expected = np.signbit(y if name in ("maximum", "minimum") else x)
        if name in ("maximum", "minimum"):
            assert np.signbit(numpys(np.dtype(dtype).type(x), np.dtype(dtype).type(y))) == expected
        assert np.signbit(core.scalar_value(name, dtype, x, y)) == expected
        assert np.signbit(scalar_run(name, dtype, x, y)) == expected
        if dtype == "float64":
            assert np.signbit(float(own(fg.tensor(x), y))) == expected
            assert np.signbit(fg.value_and_grad(own)(x, y)[0]) == expected
            assert np.signbit(compiled(x, y)[0]) == expected
            assert np.signbit(compiled(x, y)[0]) == expected        # replayed
        for shape in ((), (1,), (2,), (5,), (16,), (37,), (5000,)):
            a, b = np.full(shape, x, dtype), np.full(shape, y, dtype)
            if name in ("maximum", "minimum"):
                assert np.array_equal(np.signbit(numpys(a, b)), np.full(shape, expected))
            for found in (own(fg.tensor(a), fg.tensor(b)).numpy(), own(fg.tensor(a), y).numpy(),
                          core.kernel_value(name, a.reshape(-1), b.reshape(-1)).reshape(shape),
                          np.asarray(program_of(a, b)[0])):
                assert found.shape == shape and (np.signbit(found) == expected).all(), shape


@every_dtype
@laws.on_every_isa
def test_zeros_on_the_bounds_of_clip(dtype, isa):
    """A zero that is its own bound keeps its sign, as with NumPy's since 2.1 where the bounds are
    numbers."""
    clip = core.functions["clip"]
    for x, y in ZEROS:
        for low, high in ((y, 1.0), (-1.0, y)):
            assert np.signbit(core.scalar_value("clip", dtype, x, low, high)) == np.signbit(x)
            for shape in ((), (5,), (37,)):
                a = np.full(shape, x, dtype)
                for function in (clip, np.clip):
                    found = function(fg.tensor(a), low, high).numpy()
                    assert (np.signbit(found) == np.signbit(x)).all()


# ---- single points --------------------------------------------------------------------------

@pytest.mark.parametrize("function, point, expected", [
    (np.hypot, (4e-323, 4e-323), (math.sqrt(0.5), math.sqrt(0.5))),
    (np.hypot, (1.5e308, 1.5e308), (math.sqrt(0.5), math.sqrt(0.5))),
    (np.hypot, (3e200, -4e200), (0.6, -0.8)),
    (np.arctan2, (2.0 ** -1070, 2.0 ** -600), (2.0 ** 600, -2.0 ** 130)),
    (np.arctan2, (2.0 ** -20, 2.0 ** -1060), (2.0 ** -1020, -2.0 ** 20)),
    (np.arctan2, (1e300, 1e300), (5e-301, -5e-301)),
    (np.divide, (7 * 2.0 ** -1074, 3 * 2.0 ** -30), (2.0 ** 30 / 3, -7 / 9 * 2.0 ** -1014)),
    (np.divide, (2.0 ** 1000, 2.0 ** 700), (2.0 ** -700, -2.0 ** -400)),
    (np.divide, (2.0 ** -900, 2.0 ** -700), (2.0 ** 700, -2.0 ** 500)),
    (np.power, (1e-310, 1e-5), (1e305 * (1e-310 ** 1e-5), 1e-310 ** 1e-5 * math.log(1e-310))),
    (np.power, (-1.0, 2.0 ** 60), (-2.0 ** 60, math.nan)),
], ids=str)
def test_extreme_operands(function, point, expected):
    for found in (fg.grad(function, argnums=(0, 1))(*point),
                  fg.elementwise_grad(function, argnums=(0, 1))(*(np.full(9, x) for x in point)),
                  fg.compile(fg.grad(function, argnums=(0, 1)))(*point)):
        for slope, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(slope, wanted, rtol=4e-15)


@pytest.mark.parametrize("x", [4e-309, 1e-308, 1e-300, 5.0])
def test_log10_of_subnormal_numbers(x):
    exactly = float(1 / (mpmath.mpf(x) * mpmath.log(10)))
    assert fg.grad(np.log10)(x) == pytest.approx(exactly, rel=1e-15)
    single = np.float32(1.5e-39)
    exactly = float(1 / (mpmath.mpf(float(single)) * mpmath.log(10)))
    assert fg.grad(np.log10)(single) == pytest.approx(exactly, rel=1e-7)


def test_the_derivative_of_tanh_is_taken_from_its_result():
    """What docs/accuracy.md says of it."""
    slope = fg.grad(np.tanh)
    with mpmath.workprec(200):
        at = {x: float(mpmath.sech(x) ** 2) for x in (10.0, 20.0)}
    assert 1e-9 < abs(slope(10.0) / at[10.0] - 1) < 1e-8
    assert slope(20.0) == 0.0 and at[20.0] > 1e-17
    assert slope(np.float32(10.0)) == 0.0


@every_dtype
def test_the_derivative_of_tanh_is_half_an_ulp_of_1_off_and_rounded(dtype):
    """What the rounding of y leaves is half an ulp of 1, and 1 - y*y is rounded once. (1e-3 ulp
    more: where y is nearly 1, its own error is that much above a half.)"""
    row = next(row for row in PUBLIC if row.name == "tanh")
    rng = laws.generator("tanh", dtype)
    x = np.concatenate([rng.uniform(0.5, 2.5, 200), rng.uniform(2.5, 22, 100)]).astype(dtype)
    unit = float(np.finfo(dtype).eps)
    with mpmath.workprec(200):
        exactly = [mpmath.sech(mpmath.mpf(float(v))) ** 2 for v in x]
        for tier, y, (slope,) in results(row, dtype, [x]):
            left = [1 - mpmath.mpf(float(v)) ** 2 for v in y]
            off = [float(abs(a - b)) / unit for a, b in zip(left, exactly, strict=True)]
            assert max(off) <= 0.501, (tier, x[int(np.argmax(off))])
            # (of a float32 the difference is exact in float64)
            rounded = np.array([float(v) for v in left]).astype(dtype)
            assert np.array_equal(slope.astype(dtype), rounded), tier


# ---- the page -------------------------------------------------------------------------------

def shown(bound, scaled):
    return "exact" if bound == 0 else f"{bound:g}" + ("*" if scaled else "")


def table():
    """The rows of the page's table."""
    lines = []
    for name in sorted(BOUNDS):
        own = [shown(bound, (name, None) in ABSOLUTE if i % 2 == 0 else (name, 0) in ABSOLUTE)
               for i, bound in enumerate(BOUNDS[name])]
        lines.append(f"| `{name}` | {' | '.join(own)} |")
    return lines


def test_the_page_has_this_table():
    found = re.findall(r"^\| `.*$", PAGE.read_text(), re.MULTILINE)
    assert found == table()


def measured(names):
    """Print the table as it would be: the largest errors at dense points, rounded up."""
    for row in PUBLIC:
        if names and row.name not in names:
            continue
        found = []
        for dtype in DTYPES[::-1]:
            worst = [0.0, 0.0]
            for _, k, off, _ in errors(row, dtype, POINTS["dense"]):
                worst[k is not None] = max(worst[k is not None], off.max())
            found += worst
        # Another instruction set, another library: half an ulp more, where there is rounding.
        rounded = [0 if x == 0 else 0.5 if x <= 0.5 else math.ceil(2 * x + 0.5) / 2 for x in found]
        print(f'    "{row.name}": ({", ".join(f"{x:g}" for x in rounded)}),'
              f"    # {', '.join(f'{x:.3g}' for x in found)}", flush=True)


if __name__ == "__main__":
    measured(sys.argv[1:])
