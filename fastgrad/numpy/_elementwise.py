"""Element-wise functions that are more than one row of the operator table."""

import numpy as np

from fastgrad._core import core
from fastgrad.numpy._plain import isnan, isneginf, isposinf, nonzero

from ._create import array, lift
from ._dispatch import Tensor, evaluated, implements, refuse

__all__ = ["clip", "conjugate", "divmod", "imag", "nan_to_num", "real", "round", "select", "where"]

_clip, _where = core.functions["clip"], core.functions["where"]
_multiply, _divide, _rint = (core.functions[name] for name in ("multiply", "divide", "rint"))


def _mask(condition):
    """A condition as a boolean array or Tensor."""
    condition = lift(condition)
    if condition.dtype.char == "?":
        return condition
    return condition != 0 if isinstance(condition, Tensor) else condition.astype(bool)


@implements(np.where)
def where(condition, x=None, y=None, /):
    """x where the condition holds, y elsewhere; what is not taken gets the gradient 0.

    As `numpy.where`; with the condition alone, the indices where it holds.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.where(x > 0, fnp.sqrt(x), 0.0)))(np.array([-1.0, 4.0]))
    array([0.  , 0.25])
    """
    if x is None and y is None:
        return nonzero(lift(condition))
    if x is None or y is None:
        raise ValueError("either both or neither of x and y should be given")
    return _where(_operand(x), _operand(y), _mask(condition))


def _operand(x):
    return lift(x) if isinstance(x, (list, tuple)) else x


@implements(np.clip)
def clip(a, a_min=None, a_max=None, out=None, *, min=None, max=None, **kwargs):
    """Limited to between two bounds; at and beyond a bound the gradient is 0. As `numpy.clip`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.clip(x, 0.0, 1.0)))(np.array([-1.0, 0.5, 1.0]))
    array([0., 1., 0.])
    """
    if out is not None or kwargs:
        refuse("clip", out, **kwargs)
    if min is not None or max is not None:
        if a_min is not None or a_max is not None:
            raise ValueError("Passing `min` or `max` keyword argument when `a_min` and `a_max` are "
                             "provided is forbidden.")
        a_min, a_max = min, max
    # An infinite bound for a missing one: maximum and minimum would treat ties in another way.
    return _clip(_operand(a), -np.inf if a_min is None else _operand(a_min),
                 np.inf if a_max is None else _operand(a_max))


@implements(np.round, np.around)
def round(a, decimals=0, out=None):
    """Rounded to some decimals, halves to even; the gradient is 0. As `numpy.round`.

    Examples
    --------
    >>> fnp.round(1.25, 1)
    np.float64(1.2)
    """
    refuse("round", out)
    a = _operand(a)
    if decimals == 0:
        return _rint(a)
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return _divide(_rint(_multiply(a, scale)), scale)
    return _multiply(_rint(_divide(a, scale)), scale)


@implements(np.fabs)
def fabs(x, /, out=None, **kwargs):
    """Absolute value, of integers as float; the gradient at 0 is 0. As `numpy.fabs`.

    Examples
    --------
    >>> fg.grad(fnp.fabs)(-2.0)
    -1.0
    """
    refuse("fabs", out)
    if kwargs:
        return np.fabs(x, **kwargs)         # which comes back with x in the dtype of the loop
    if isinstance(x, Tensor) and x.dtype.kind == "f":
        return core.functions["abs"](x)
    return evaluated(np.fabs, (x,), {}) if isinstance(x, Tensor) else np.fabs(x)


@implements(np.float_power)
def float_power(x1, x2, /, out=None, **kwargs):
    """x1 to the power x2 in float64, whatever the dtypes. As `numpy.float_power`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.float_power(x, 3))(2.0)
    12.0
    """
    refuse("float_power", out)
    if kwargs:
        return np.float_power(x1, x2, **kwargs)
    x1, x2 = (core.cast(x, np.float64) if isinstance(x, Tensor) or np.ndim(x) else x
              for x in (_operand(x1), _operand(x2)))
    if not isinstance(x1, Tensor) and not isinstance(x2, Tensor):
        return np.float_power(x1, x2)
    return core.functions["power"](x1, x2)


@implements(np.nan_to_num, views=True)
def nan_to_num(x, copy=True, nan=0.0, posinf=None, neginf=None):
    """Numbers in place of NaN and infinities, which get the gradient 0. As `numpy.nan_to_num`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.nan_to_num(x) ** 2))(np.array([np.nan, 3.0]))
    array([0., 6.])
    """
    x = lift(x)
    if x.dtype.kind != "f":
        return x if isinstance(x, Tensor) and not copy else array(x)
    limits = np.finfo(x.dtype)
    y = _where(nan, x, isnan(x))
    y = _where(limits.max if posinf is None else posinf, y, isposinf(x))
    y = _where(limits.min if neginf is None else neginf, y, isneginf(x))
    if copy or not isinstance(x, Tensor) or x.ndim == 0:
        return y
    x[...] = y
    return x


@implements(np.select)
def select(condlist, choicelist, default=0):
    """The choice of the first condition that holds. As `numpy.select`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.select([x < 0, x > 1], [0 * x, x ** 2], x))(3.0)
    6.0
    """
    if len(condlist) != len(choicelist):
        raise ValueError("list of cases must be same length as list of conditions")
    if not condlist:
        raise ValueError("select with an empty condition list is not possible")
    choicelist = [_operand(x) for x in choicelist]
    result = _operand(default)
    dtype = np.result_type(*map(_type_of, (*choicelist, result)))
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = where(condition, choice, result)
    # Of all of them together: of two numbers, `where` has made float64 before an array joined.
    return result if result.dtype == dtype else core.cast(result, dtype)


def _type_of(x):
    """What NumPy's promotion goes by: 0.0 for what stands for a Python float."""
    if isinstance(x, Tensor):
        return core.operand_type(x)
    return x if type(x) in (int, float) else np.asarray(x).dtype


@implements(np.divmod)
def divmod(x1, x2, /, out=None, **kwargs):
    """Floor of the quotient, and remainder. As `numpy.divmod`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.divmod(x, 2.0)[1])(5.5)
    1.0
    """
    refuse("divmod", out)
    if kwargs:
        return np.divmod(x1, x2, **kwargs)
    x1, x2 = _operand(x1), _operand(x2)
    return core.functions["floor_divide"](x1, x2), core.functions["mod"](x1, x2)


@implements(np.real, views=True)
def real(val):
    """The real part: the argument itself. As `numpy.real`."""
    return lift(val)


@implements(np.conjugate)
def conjugate(x, /):
    """The complex conjugate: a copy. As `numpy.conjugate`."""
    return core.functions["positive"](lift(x))


@implements(np.imag, views=True)
def imag(val):
    """The imaginary part: zeros, which are read-only. As `numpy.imag`."""
    val = lift(val)
    if val.ndim == 0:
        return core.tensor(np.zeros((), val.dtype))
    return core.broadcast_to(core.tensor(np.zeros((1,) * val.ndim, val.dtype)), val.shape)
