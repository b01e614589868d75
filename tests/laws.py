"""What the laws share: the rows of the operator table, operands drawn from a row's domain, oracles
that use nothing of the core, finite differences, the complex step and distances in ulp.

A row is tested by what the table says of it. Where a row has no NumPy name its oracle is found in
TWINS, else under its own name in scipy.special, else it is the row's formula read as Python; so
a new row is tested without a new line here, unless its formula calls a new helper of fmath.h.
"""

import ast
import functools
import itertools
import math
import zlib

import mpmath
import numpy as np
import scipy.special

import fastgrad as fg
from fastgrad._core import core

TABLE = core.operators()
ROWS = [row for row in TABLE if row.kind in ("unary", "binary", "ternary")]
COMPARISONS = [row for row in TABLE if row.kind == "compare"]
DTYPES = ("float32", "float64")

SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1e-310, 1e-45, -1e-40, 1e-20,
           -1e-20, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -2.0, 3.0, -3.0, 20.0, -20.0, 88.0, -104.0,
           710.0, -745.0, 1e10, -1e10, 3.4e38, 1e200, -1e200, 1.7e308, -1.7e308)


def name_of(row):
    return row.name


def generator(*key):
    """A random generator that depends on nothing but the key."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


# ---- operands -------------------------------------------------------------------------------

def wanted(row):
    """The places of the operands that have a derivative."""
    return [k for k in range(row.arity) if not (row.mask and k == 2)]


def operands(row, dtype, shapes, key=""):
    """Random operands in the row's domain, one for each shape (or all of one shape)."""
    rng = generator(row.name, dtype, key)
    if not shapes or not isinstance(shapes[0], tuple):
        shapes = [shapes] * row.arity
    low, high = (row.low, row.high) if row.high > row.low else (-2, 2)
    made = [np.asarray(rng.uniform(low, high, shape)).astype(dtype) for shape in shapes]
    for k in set(range(row.arity)) - set(wanted(row)):
        made[k] = made[k] > (low + high) / 2
    return made


def special_operands(row, dtype):
    """Every combination of special values, as vectors."""
    with np.errstate(all="ignore"):
        values = np.array(SPECIAL).astype(dtype)
    if row.arity == 3:
        values = values[:24]
    return [np.ascontiguousarray(x) for x in
            np.array(list(itertools.product(values, repeat=row.arity)), dtype=dtype).T]


def kernel_operands(row, arrays):
    """The operands as kernels take them: masks as numbers, and NULL for those that are missing."""
    made = [np.ascontiguousarray(x, dtype=arrays[0].dtype) for x in arrays]
    return made + [None] * (3 - len(made))


# ---- formulas read as Python ----------------------------------------------------------------


def _pow_db(a, b, y):
    edge = np.where(b >= 0, 0.0, np.where(b < 0, -np.inf, b))
    logarithm = np.log(a)
    slope = np.where((logarithm == np.inf) & (y == 0), 0.0, y * logarithm)
    return np.where(a == 0, edge, slope)


def _weight(better, nan_takes):
    def weight(a, b, tie):
        nan = np.isnan(a) if nan_takes else np.isnan(b)
        equal = (a == b) | (np.isnan(a) & np.isnan(b))
        return np.where(equal, tie, np.where(better(a, b) | nan, 1.0, 0.0))
    return weight


def _logaddexp_da(a, b):
    weight = np.where(a >= b, 1 / (1 + np.exp(b - a)), np.exp(a - b) / (1 + np.exp(a - b)))
    weight = np.where(np.isnan(a + b), np.nan, weight)
    return np.where(a == b, np.where(a == -np.inf, 0.0, 0.5), np.where(
        np.isnan(a) | np.isnan(b), np.nan, np.where(np.isinf(a - b), a > b, weight)))


def _arctan2_da(a, b):
    size = np.maximum(abs(a), abs(b))
    slope = (b / size) / ((a / size) ** 2 + (b / size) ** 2) / size
    return np.where((size == 0) | np.isinf(size), 0.0, slope)


def _hypot_da(a, y):
    return np.where(y == 0, 0.0, np.where(abs(a) == y, np.copysign(1.0, a), a / y))


def _nan_or(x, otherwise):
    """NaN where x is, else the other."""
    return np.where(np.isnan(x), np.nan, otherwise)


# The helpers of fmath.h that have no namesake in NumPy or scipy.special, written as obviously as
# possible. Those that analytic rows call work for complex numbers too.
HELPERS = {
    "fg_select": lambda mask, a, b: np.where(mask != 0, a, b),
    "fg_not": lambda mask: np.where(mask == 0, 1.0, 0.0),
    "fg_is_zero": lambda a: np.where(a == 0, 1.0, 0.0),
    "fg_step": lambda a: _nan_or(a, a > 0),
    "fg_relu": lambda a: np.where(a <= 0, 0.0, a),
    "fg_weight_max": _weight(np.greater, True),
    "fg_weight_min": _weight(np.less, True),
    "fg_weight_fmax": _weight(np.greater, False),
    "fg_weight_fmin": _weight(np.less, False),
    "fg_clip": lambda a, b, c: np.minimum(np.maximum(a, b), c),
    "fg_clip_da": lambda a, b, c: _nan_or(a, (a > b) & (a < c)),
    "fg_clip_db": lambda a, b, c: _nan_or(b, (a <= b) & (b < c)),
    "fg_clip_dc": lambda a, b, c: _nan_or(c, (a >= c) | (b >= c)),
    "fg_log_da": lambda a: np.where(a < 0, np.nan, 1 / abs(a)),
    "fg_pow": lambda a, b: np.power(a, b),
    "fg_pow_da": lambda a, b: np.where(b == 0, 0.0, b * np.power(a, b - 1)),
    "fg_pow_db": _pow_db,
    "fg_logaddexp_da": _logaddexp_da,
    "fg_xlogy_da": lambda a, b: np.where((a == 0) & (b == 0), 0.0, np.log(b)),
    "fg_xlogy_db": lambda a, b: np.where(a == 0, 0.0, np.where(b < 0, np.nan, a / abs(b))),
    "fg_arcsin_da": lambda a: 1 / np.sqrt((1 - a) * (1 + a)),
    "fg_arctan2_da": _arctan2_da,
    "fg_hypot_da": _hypot_da,
    "fg_arcsinh_da": lambda a: 1 / np.hypot(1, a),
    "fg_arccosh_da": lambda a: 1 / (np.sqrt(a - 1) * np.sqrt(a + 1)),
    "fg_arctanh_da": lambda a: np.where(abs(a) > 1, np.nan, 1 / ((1 - a) * (1 + a))),
    "fg_sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "fg_sigmoid_da": lambda a: np.exp(-abs(a)) / (1 + np.exp(-abs(a))) ** 2,
    "fg_softplus": lambda a: np.where(np.real(a) > 0, a + np.log1p(np.exp(-a)),
                                      np.log1p(np.exp(a))),
    "fg_erf_da": lambda a: 2 / math.sqrt(math.pi) * np.exp(-a * a),
}


class _Names(dict):
    """What formulas may call: HELPERS, else the namesake in NumPy or scipy.special."""

    def __missing__(self, name):
        if not name.startswith("fg_"):
            raise KeyError(name)
        for module in (np, scipy.special):
            if hasattr(module, name[3:]):
                return getattr(module, name[3:])
        raise KeyError(f"{name}: say in HELPERS of tests/laws.py what it computes")


NAMES = _Names(HELPERS, K=lambda x: x)


def formula(text, a, b=None, c=None, y=None, tie=0.5, names=NAMES):
    """A formula of the table read as Python, on arrays (or, with other names, other numbers)."""
    values = {"a": a, "b": b, "c": c, "y": y, "tie": tie}

    class Scope(dict):
        def __missing__(self, name):
            return values[name] if name in values else names[name]

    with np.errstate(all="ignore"):
        return eval(compile(text, "ops.def", "eval"), {"__builtins__": {}}, Scope())


def variables(text):
    """The variables in a formula (of a, b, c, y, tie)."""
    return {node.id for node in ast.walk(ast.parse(text, mode="eval"))
            if isinstance(node, ast.Name)} & {"a", "b", "c", "y", "tie"}


# ---- oracles --------------------------------------------------------------------------------

# For rows that NumPy has no ufunc for.
TWINS = {
    "sigmoid": scipy.special.expit,
    "softplus": lambda a: np.logaddexp(a, np.asarray(0, a.dtype)),
    "relu": lambda a: np.maximum(a, np.asarray(0, a.dtype)),
    "clip": lambda a, b, c: np.minimum(np.maximum(a, b), c),
    "where": lambda a, b, c: np.where(c, a, b),
}


def ufuncs(row):
    """NumPy's functions that the row answers to, as far as this NumPy has them."""
    return [getattr(np, name) for name in row.numpy if hasattr(np, name)]


@functools.cache
def oracle(row):
    """A function of ndarrays that computes what the row should."""
    own = ufuncs(row)
    if own:
        function = own[0]
    elif row.name in TWINS:
        function = TWINS[row.name]
    elif hasattr(scipy.special, row.name):
        function = getattr(scipy.special, row.name)
    else:
        def function(*args):
            return formula(row.value, *args)

    def silent(*args):
        with np.errstate(all="ignore"):
            return function(*args)
    return silent


def central_difference(function, args, k):
    """d function / d args[k], element by element, in float64."""
    args = [x if x.dtype == bool else x.astype(np.float64) for x in args]
    step = 6e-6 * np.maximum(1, abs(args[k]))
    up, down = list(args), list(args)
    up[k], down[k] = args[k] + step, args[k] - step
    return (function(*up) - function(*down)) / (up[k] - down[k])


def complex_step(row, args, k):
    """d row / d args[k] from the formula at args[k] + 1e-30 i."""
    args = [x if x.dtype == bool else x.astype(np.complex128) for x in args]
    args[k] = args[k] + 1e-30j
    return np.imag(formula(row.value, *args)) / 1e-30


# ---- mpmath ---------------------------------------------------------------------------------

def _exact(function):
    """A function of Python floats that is exact on them."""
    return lambda *args: mpmath.mpf(function(*(float(x) for x in args)))


def _mp_mod(a, b):
    r = math.fmod(a, b)
    if r and (r < 0) != (b < 0):
        return mpmath.mpf(r) + mpmath.mpf(b)
    return mpmath.mpf(r)


def _mp_logaddexp(a, b):
    larger, smaller = (a, b) if a > b else (b, a)
    return larger + mpmath.log1p(mpmath.exp(smaller - larger))


def _mp_floor_divide(a, b):
    (p, q), (r, s) = float(a).as_integer_ratio(), float(b).as_integer_ratio()
    return mpmath.mpf((p * s) // (q * r))


MP_HELPERS = {
    "K": lambda x: x,
    "fg_abs": abs,
    "fg_select": lambda mask, a, b: a if mask else b,
    "fg_copysign": lambda a, b: mpmath.mpf(math.copysign(a, b)),
    "fg_relu": lambda a: max(a, mpmath.mpf(0)),
    "fg_heaviside": lambda a, b: b if a == 0 else mpmath.mpf(a > 0),
    "fg_maximum": max, "fg_minimum": min, "fg_fmax": max, "fg_fmin": min,
    "fg_clip": lambda a, b, c: min(max(a, b), c),
    "fg_rint": lambda a: mpmath.mpf(round(float(a))),
    "fg_trunc": _exact(math.trunc),
    "fg_fmod": _exact(math.fmod), "fg_mod": _mp_mod, "fg_floor_divide": _mp_floor_divide,
    "fg_exp2": lambda a: mpmath.power(2, a),
    "fg_cbrt": lambda a: mpmath.sign(a) * mpmath.cbrt(abs(a)),
    "fg_log2": lambda a: mpmath.log(a) / mpmath.log(2),
    "fg_pow": mpmath.power,
    "fg_logaddexp": _mp_logaddexp,
    "fg_xlogy": lambda a, b: a * mpmath.log(b) if a else mpmath.mpf(0),
    "fg_sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
    "fg_softplus": lambda a: _mp_logaddexp(a, mpmath.mpf(0)),
}


class _MpNames(dict):
    """MP_HELPERS, else the namesake in mpmath (where arcsin is asin)."""

    def __missing__(self, name):
        own = name[3:].replace("arc", "a")
        if name.startswith("fg_") and hasattr(mpmath, own):
            return getattr(mpmath, own)
        raise KeyError(f"{name}: say in MP_HELPERS of tests/laws.py what it computes")


MP_NAMES = _MpNames(MP_HELPERS)


def exact_value(row, args):
    """The row's value at one point (Python floats), as an mpmath number."""
    return formula(row.value, *(mpmath.mpf(float(x)) for x in args), names=MP_NAMES)


def wide_operands(row, n, key=""):
    """Random float64 operands: a third in the domain, the rest of every order of magnitude."""
    rng = generator(row.name, key, "wide")
    made = []
    for k in range(row.arity):
        near = rng.uniform(row.low, row.high, n)
        middle = 10.0 ** rng.uniform(-5, 3, n) * rng.choice([-1, 1], n)
        far = 10.0 ** rng.uniform(-300, 300, n) * rng.choice([-1, 1], n)
        kind = np.arange(n) % 3
        made.append(np.where(kind == 0, near, np.where(kind == 1, middle, far)))
        if k not in wanted(row):
            made[k] = (made[k] > 0).astype(float)
    with np.errstate(all="ignore"):
        keep = np.isfinite(oracle(row)(*made))
    return [np.ascontiguousarray(x[keep]) for x in made]


# ---- distances ------------------------------------------------------------------------------

def ulp_distance(x, y):
    """How many floating-point numbers lie between, element by element; NaN equals NaN, and inf is
    the number after the largest."""
    x, y = np.asarray(x), np.asarray(y)
    assert x.dtype == y.dtype and x.shape == y.shape
    whole = {4: np.int32, 8: np.int64}[x.dtype.itemsize]

    def ordered(v):
        bits = np.ascontiguousarray(v).view(whole).astype(object)
        return np.where(bits < 0, np.iinfo(whole).min - bits, bits)

    distance = abs(ordered(x) - ordered(y))
    nan_x, nan_y = np.isnan(x), np.isnan(y)
    distance = np.where(nan_x & nan_y, 0, np.where(nan_x | nan_y, 2 ** 63, distance))
    return distance.astype(np.float64)


def same_bits(x, y):
    """Whether two arrays are equal in dtype, shape and every bit (any NaN equals any NaN)."""
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if x.dtype.kind != "f":
        return bool(np.array_equal(x, y))
    return bool((((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))).all())


# ---- running the core -----------------------------------------------------------------------

def parameters(args, which):
    """Tensors of the arrays, those at `which` with a gradient."""
    return [fg.tensor(x, requires_grad=k in which, copy=False) for k, x in enumerate(args)]


def differentiate(function, args, which, seed=1.0):
    """Value and gradients (a list, for the places in which) of a function of ndarrays."""
    tensors = parameters(args, which)
    y = function(*tensors)
    value = np.array(y.numpy())
    if not y.requires_grad:
        return value, [np.zeros(args[k].shape, tensors[k].dtype) for k in which]
    seed = np.array(np.broadcast_to(np.asarray(seed, dtype=value.dtype), value.shape))
    found = fg.gradients(y, [tensors[k] for k in which], seed=seed)
    return value, [np.array(g.numpy()) for g in found]


def unbroadcast(gradient, shape):
    """The sum over the axes along which an operand of that shape was repeated."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, length in enumerate(shape) if length == 1)
    return gradient.sum(axis=axes, keepdims=True) if axes else gradient
