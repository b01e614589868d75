"""What the laws share: oracles that use nothing of the core, finite differences, the complex step
and distances in ulp. The operators, and operands drawn from their domains, are in examples.py,
which also says where each law stands.

A row is tested by what the table says of it. Where a row has no NumPy name its oracle is found in
TWINS, else under its own name in scipy.special, else it is the row's formula read as Python; so
a new row is tested without a new line here, unless its formula calls a new helper of fmath.h.
"""

import ast
import contextlib
import functools
import inspect
import math
import operator

import mpmath
import numpy as np
import scipy.special

import fastgrad as fg
from fastgrad._core import core

from .examples import (
    BESIDE,
    COMPARISONS,
    DTYPES,
    ROWS,
    TABLE,
    generator,
    name_of,
    operands,
    special_operands,
    wanted,
)

# Tests find these here as well.
__all__ = ["BESIDE", "COMPARISONS", "DTYPES", "ROWS", "TABLE", "generator", "name_of", "operands",
           "special_operands", "wanted"]


# ---- operands -------------------------------------------------------------------------------

def kernel_operands(row, arrays):
    """The operands as kernels take them: masks as numbers, and NULL for those that are missing."""
    made = [np.ascontiguousarray(x, dtype=arrays[0].dtype) for x in arrays]
    return made + [None] * (3 - len(made))


# ---- formulas read as Python ----------------------------------------------------------------


def _power_da(a, b):
    quotient = b * np.power(a, b) / np.where(a == 0, 1, a)
    slope = np.where((np.real(b) < 1) & (a != 0) & np.isfinite(a), quotient, b * np.power(a, b - 1))
    slope = np.where((np.real(a) < 0) & (b - 1 == -1), np.nan, slope)
    if np.isrealobj(slope):
        large = (a < 0) & (b > 1) & (b - (b - 1) != 1) & np.isfinite(b) & ~np.isnan(slope)
        slope = np.where(large, -abs(slope), slope)     # b is even and b - 1 was rounded
    return np.where(b == 0, 0.0, slope)


def _power_db(a, b, y):
    edge = np.where(np.real(b) >= 0, 0.0, np.where(np.real(b) < 0, -np.inf, b))
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


def _arctan_da(a):
    return np.where(abs(a) > 1e10, (1 / a) ** 2, 1 / (1 + a * a))


def _sigmoid_da(a):
    e = np.exp(np.where(np.real(a) > 0, -a, a))
    return e / (1 + e) ** 2


def _arctan2_da(a, b):
    size = np.maximum(abs(a), abs(b))
    _, k = np.frexp(size)
    u, v = np.ldexp(a, -k), np.ldexp(b, -k)
    return np.where((size == 0) | np.isinf(size), 0.0, np.ldexp(v / (u * u + v * v), -k))


def _hypot_da(a, b):
    size = np.maximum(abs(a), abs(b))
    _, k = np.frexp(size)
    slope = np.ldexp(a, -k) / np.hypot(np.ldexp(a, -k), np.ldexp(b, -k))
    return np.where(size == 0, 0.0, np.where(np.isinf(a), np.copysign(1.0, a), slope))


def _clip(a, b, c):
    """A zero that is a bound keeps its sign, as in NumPy where the bounds are numbers."""
    y = np.maximum(a, b)
    y = np.where(y == a, a, y)
    return np.where(y == c, y, np.minimum(y, c))


def _nan_or(x, otherwise):
    """NaN where x is, else the other."""
    return np.where(np.isnan(x), np.nan, otherwise)


# The helpers of fmath.h that have no namesake in NumPy or scipy.special, written as obviously as
# possible. Those that analytic rows call work for complex numbers too.
HELPERS = {
    "fg_select": lambda mask, a, b: np.where(mask != 0, a, b),
    "fg_weigh": lambda a, b: np.where((a == 0) | (b == 0), 0.0, a * b),
    "fg_chain": lambda a, b, c: np.where((a == 0) | ((b == 0) & (c != 0)), 0.0, a * b),
    "fg_is_zero": lambda a: np.where(a == 0, 1.0, 0.0),
    "fg_step": lambda a: _nan_or(a, a > 0),
    "fg_relu": lambda a: np.where(a <= 0, 0.0, a),
    "fg_weight_max": _weight(np.greater, True),
    "fg_weight_min": _weight(np.less, True),
    "fg_weight_fmax": _weight(np.greater, False),
    "fg_weight_fmin": _weight(np.less, False),
    "fg_clip": _clip,
    "fg_clip_da": lambda a, b, c: _nan_or(a, (a > b) & (a < c)),
    "fg_clip_db": lambda a, b, c: _nan_or(b, (a <= b) & (b < c)),
    "fg_clip_dc": lambda a, b, c: _nan_or(c, (a >= c) | (b >= c)),
    "fg_divide_db": lambda a, b: a / b / b,
    "fg_log_da": lambda a: np.where(np.real(a) < 0, np.nan, 1 / np.where(a == 0, 0.0, a)),
    "fg_power_da": _power_da,
    "fg_power_db": _power_db,
    "fg_cbrt_da": lambda a: (1 / a) ** 2 / 3,
    "fg_logaddexp_da": _logaddexp_da,
    "fg_xlogy_da": lambda a, b: np.where((a == 0) & (b == 0), 0.0, np.log(b)),
    "fg_xlogy_db": lambda a, b: np.where(a == 0, 0.0, np.where(b < 0, np.nan, a / abs(b))),
    "fg_arcsin_da": lambda a: 1 / np.sqrt((1 - a) * (1 + a)),
    "fg_arctan_da": _arctan_da,
    "fg_arctan2_da": _arctan2_da,
    "fg_hypot_da": _hypot_da,
    "fg_arcsinh_da": lambda a: 1 / (np.hypot(1, a) if np.isrealobj(a) else np.sqrt(1 + a * a)),
    "fg_arccosh_da": lambda a: 1 / (np.sqrt(a - 1) * np.sqrt(a + 1)),
    "fg_arctanh_da": lambda a: np.where(abs(a) > 1, np.nan, 1 / ((1 - a) * (1 + a))),
    "fg_tanh_da": lambda a: (1 - a) * (1 + a),
    "fg_sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "fg_sigmoid_da": _sigmoid_da,
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
        raise KeyError(f"{name}: say in HELPERS of tests/laws/__init__.py what it computes")


NAMES = _Names(HELPERS, K=lambda x: x)


@functools.cache
def compiled(text):
    return compile(text, "ops.def", "eval")


def formula(text, a, b=None, c=None, y=None, tie=0.5, names=NAMES):
    """A formula of the table read as Python, on arrays (or, with other names, other numbers)."""
    values = {"a": a, "b": b, "c": c, "y": y, "tie": tie}

    class Scope(dict):
        def __missing__(self, name):
            return values[name] if name in values else names[name]

    with np.errstate(all="ignore"):
        return eval(compiled(text), {"__builtins__": {}}, Scope())


def variables(text):
    """The variables in a formula (of a, b, c, y, tie)."""
    return {node.id for node in ast.walk(ast.parse(text, mode="eval"))
            if isinstance(node, ast.Name)} & {"a", "b", "c", "y", "tie"}


# ---- formulas composed ----------------------------------------------------------------------

class Composed:
    """An array that a row's value kernel made of others. Its derivatives are of the same kind: the
    partial formulas read with these operands, so that there are derivatives of any order. The
    slow twin of a sweep that is itself recorded."""
    rows = {row.name: row for row in ROWS}

    def __init__(self, row, operands, value):
        self.row, self.operands, self.value = row, operands, value

    def __neg__(self):
        return compose("negative", self)

    def __add__(self, other):
        return compose("add", self, other)

    def __radd__(self, other):
        return compose("add", other, self)

    def __sub__(self, other):
        return compose("subtract", self, other)

    def __rsub__(self, other):
        return compose("subtract", other, self)

    def __mul__(self, other):
        return compose("multiply", self, other)

    def __rmul__(self, other):
        return compose("multiply", other, self)

    def __truediv__(self, other):
        return compose("divide", self, other)

    def __rtruediv__(self, other):
        return compose("divide", other, self)


def leaf(array):
    return Composed(None, (), np.ascontiguousarray(array))


def compose(name, *operands):
    """A row applied to Composed arrays and numbers."""
    like = next((x.value for x in operands if isinstance(x, Composed)), None)
    if like is None:
        raise TypeError(f"fg_{name}: of constants only")
    operands = [x if isinstance(x, Composed) else leaf(np.full_like(like, x)) for x in operands]
    return Composed(Composed.rows[name], operands,
                    core.kernel_value(name, *(x.value for x in operands)))


class _Rows(dict):
    """fg_NAME is the row NAME; nothing else may be called."""

    def __missing__(self, name):
        if not name.startswith("fg_") or name[3:] not in Composed.rows:
            raise KeyError(f"{name} is called in a partial, and there is no row of that name")
        return functools.partial(compose, name[3:])


COMPOSING = _Rows(K=float)


def composed_partial(y, k):
    """The partial of a Composed in operand k, or None where it is zero everywhere."""
    text = y.row.partials[k]
    if text == "K(0)":
        return None
    found = formula(text, *y.operands, *[None] * (3 - len(y.operands)), y, 0.5, COMPOSING)
    return found if isinstance(found, Composed) else leaf(np.full_like(y.value, found))


def tangent(y, x):
    """dy/dx, element by element, in forward mode; None where y does not depend on x."""
    known = {id(x): leaf(np.ones_like(x.value))}

    def of(node):
        if id(node) not in known:
            known[id(node)] = None
            for k, operand in enumerate(node.operands):
                if of(operand) is not None and (partial := composed_partial(node, k)) is not None:
                    term = compose("weigh", partial, of(operand))
                    before = known[id(node)]
                    known[id(node)] = term if before is None else before + term
        return known[id(node)]
    return of(y)


def adjoint(y, x):
    """dy/dx, element by element, in reverse mode; None where y does not depend on x."""
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for operand in node.operands:
                visit(operand)
            order.append(node)

    visit(y)
    found = {id(y): leaf(np.ones_like(y.value))}
    for node in reversed(order):
        if id(node) in found:
            for k, operand in enumerate(node.operands):
                if (partial := composed_partial(node, k)) is not None:
                    term = compose("weigh", found[id(node)], partial)
                    before = found.get(id(operand))
                    found[id(operand)] = term if before is None else before + term
    return found.get(id(x))


# ---- oracles --------------------------------------------------------------------------------

# For rows that NumPy has no ufunc for.
TWINS = {
    "sigmoid": scipy.special.expit,
    "softplus": lambda a: np.logaddexp(a, np.asarray(0, a.dtype)),
    "relu": lambda a: np.maximum(a, np.asarray(0, a.dtype)),
    "clip": _clip,
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
            args = [x if isinstance(x, float) else np.asarray(x) for x in args]
            dtype = np.result_type(*args)
            return formula(row.value, *(np.asarray(x, dtype) for x in args))

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


def _mp_weight(better):
    return lambda a, b, tie: tie if a == b else mpmath.mpf(better(a, b))


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
    "fg_power": mpmath.power,
    "fg_logaddexp": _mp_logaddexp,
    "fg_xlogy": lambda a, b: a * mpmath.log(b) if a else mpmath.mpf(0),
    "fg_sigmoid": lambda a: 1 / (1 + mpmath.exp(-a)),
    "fg_softplus": lambda a: _mp_logaddexp(a, mpmath.mpf(0)),
    "fg_weigh": lambda a, b: a * b, "fg_chain": lambda a, b, c: a * b,
    "fg_log_da": lambda a: 1 / a,
    "fg_divide_db": lambda a, b: a / (b * b),
    "fg_power_da": lambda a, b: b * mpmath.power(a, b - 1),
    "fg_power_db": lambda a, b, y: y * mpmath.log(a),
    "fg_cbrt_da": lambda a: 1 / (3 * a * a),
    "fg_logaddexp_da": lambda a, b: 1 / (1 + mpmath.exp(b - a)),
    "fg_xlogy_da": lambda a, b: mpmath.log(b),
    "fg_xlogy_db": lambda a, b: a / b,
    "fg_arcsin_da": lambda a: 1 / mpmath.sqrt(1 - a * a),
    "fg_arctan_da": lambda a: 1 / (1 + a * a),
    "fg_arctan2_da": lambda a, b: b / (a * a + b * b),
    "fg_hypot_da": lambda a, b: a / mpmath.hypot(a, b),
    "fg_arcsinh_da": lambda a: 1 / mpmath.sqrt(1 + a * a),
    "fg_arccosh_da": lambda a: 1 / mpmath.sqrt(a * a - 1),
    "fg_arctanh_da": lambda a: 1 / (1 - a * a),
    "fg_tanh_da": lambda a: 1 - a * a,
    "fg_sigmoid_da": lambda a: mpmath.exp(-a) / (1 + mpmath.exp(-a)) ** 2,
    "fg_erf_da": lambda a: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-a * a),
    "fg_step": lambda a: mpmath.mpf(a > 0),
    "fg_is_zero": lambda a: mpmath.mpf(a == 0),
    "fg_weight_max": _mp_weight(operator.gt), "fg_weight_fmax": _mp_weight(operator.gt),
    "fg_weight_min": _mp_weight(operator.lt), "fg_weight_fmin": _mp_weight(operator.lt),
    "fg_clip_da": lambda a, b, c: mpmath.mpf(b < a < c),
    "fg_clip_db": lambda a, b, c: mpmath.mpf(a <= b < c),
    "fg_clip_dc": lambda a, b, c: mpmath.mpf(a >= c or b >= c),
}


class _MpNames(dict):
    """MP_HELPERS, else the namesake in mpmath (where arcsin is asin)."""

    def __missing__(self, name):
        own = name[3:].replace("arc", "a")
        if name.startswith("fg_") and hasattr(mpmath, own):
            return getattr(mpmath, own)
        raise KeyError(f"{name}: say in MP_HELPERS of tests/laws/__init__.py what it computes")


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
        bits = np.ascontiguousarray(v).view(whole).reshape(v.shape)
        return np.where(bits < 0, np.iinfo(whole).min - bits, bits).astype(np.int64)

    p, q = ordered(x), ordered(y)
    # Up to 2**64: read as unsigned, the larger less the smaller does not overflow.
    distance = np.maximum(p, q).astype(np.uint64) - np.minimum(p, q).astype(np.uint64)
    nan_x, nan_y = np.isnan(x), np.isnan(y)
    return np.where(nan_x & nan_y, 0.0, np.where(nan_x | nan_y, 2.0 ** 63,
                                                 distance.astype(np.float64)))


# Where float32 cannot have the value that float64 has, up to rounding. power_da: from 2**24 on all
# floats are even, b - 1 too, and what is negative and zero or infinite has the wrong sign.
BEYOND_FLOAT32 = {
    "power_da": lambda a, b: np.signbit(a) & (abs(b) >= 2 ** 24) & ((a == 0) | np.isinf(a))}


def within_float32(row, args):
    """The points at which float32 may be compared with float64."""
    beyond = BEYOND_FLOAT32.get(row.name, lambda *args: np.zeros(args[0].shape, bool))
    return ~beyond(*args)


# A partial that is a sum of terms of both signs: 1 + b log(a), in units of 1.
SUMS_THAT_CANCEL = {("power_da", 1): lambda a, b: np.power(a, b - 1)}


def partial_distance(row, k, args, x, y):
    """The distance between two results for a partial in ulp; of the largest term where it is a sum
    that may cancel."""
    distance = ulp_distance(x, y)
    if (row.name, k) in SUMS_THAT_CANCEL:
        with np.errstate(all="ignore"):
            scale = np.spacing(np.maximum(abs(x), abs(SUMS_THAT_CANCEL[row.name, k](*args))))
            distance = np.where(np.isfinite(scale), abs(x - y) / scale, distance)
    return distance


def same_bits(x, y):
    """Whether two arrays are equal in dtype, shape and every bit (any NaN equals any NaN)."""
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    if x.dtype.kind != "f":
        return bool(np.array_equal(x, y))
    return bool((((x == y) & (np.signbit(x) == np.signbit(y))) | (np.isnan(x) & np.isnan(y))).all())


# ---- running the core -----------------------------------------------------------------------

def on_every_isa(test):
    """A test with the argument `isa` as one that runs in each instruction set of this machine. (One
    item and not three: an item of pytest's costs as much as most laws.)"""
    @functools.wraps(test)
    def run(*args, **kwargs):
        before = core.isa()
        try:
            for isa in core.available_isas():
                core.use_isa(isa)
                with noted(f"instruction set {isa}"):
                    test(*args, isa=isa, **kwargs)
        finally:
            core.use_isa(before)

    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=[
        p for p in signature.parameters.values() if p.name != "isa"])
    return run


@contextlib.contextmanager
def noted(case):
    """What fails inside says in which case."""
    try:
        yield
    except BaseException as error:          # what pytest.fail raises is no Exception
        error.add_note(f"in the case: {case}")
        raise


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


def differentiated(phi, modes):
    """phi's derivative, of the order and by the modes that the string says."""
    for mode in modes:
        if mode == "f":
            phi = (lambda inner: lambda t: fg.jvp(inner, (t,), (1.0,))[1])(phi)
        else:
            phi = fg.grad(phi)
    return phi
