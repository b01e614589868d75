"""Special functions under SciPy's names, for Tensors and arrays; SciPy itself is not needed.

The element-wise ones are rows of the operator table. `logsumexp`, `softmax` and `log_softmax`
subtract the maximum first, as a constant: the result does not depend on what is subtracted.

    >>> import fastgrad as fg
    >>> fg.grad(fg.special.expit)(0.0)
    0.25
"""

import numpy as np

from fastgrad._core import core
from fastgrad.numpy._create import cast, lift
from fastgrad.numpy._dispatch import Tensor, axes_of, deferring, known
from fastgrad.numpy._plain import isfinite, logical_and, logical_or

__all__ = ["cbrt", "erf", "exp2", "expit", "expm1", "log1p", "log_softmax", "logsumexp", "softmax",
           "xlog1py", "xlogy"]

cbrt, erf, exp2, expit, expm1, log1p, xlogy = (
    core.functions[name] for name in "cbrt erf exp2 sigmoid expm1 log1p xlogy".split())
_abs, _add, _exp, _log, _subtract, _multiply, _divide, _sign, _where = (
    core.functions[name] for name in "abs add exp log subtract multiply divide sign where".split())
_equal, _not_equal, _less_equal = (
    core.functions[name] for name in "equal not_equal less_equal".split())


def _float(x):
    """`x` as a Tensor or array of floating numbers."""
    x = lift(x)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _taken_down(x):
    """While a program is recorded, an array as the Tensor that stands for it: what is computed from
    it is no array of unknown origin then."""
    if isinstance(x, Tensor) or not core.recording_program():
        return x
    x = known(x)
    return x if isinstance(x, Tensor) else core.tensor(x)


def _maximum(x, axis):
    """The maximum along axes as a constant, all axes kept."""
    maximum = core.max(x, axis, True)
    return maximum.detach() if isinstance(maximum, Tensor) else maximum


def _finite(x):
    """0 in place of NaN and infinities, which would make NaN of inf - inf."""
    return _where(x, 0.0, isfinite(x))


@deferring
def softmax(x, axis=None):
    """exp(x) / sum(exp(x)) along axes, without overflow. As `scipy.special.softmax`.

    Parameters
    ----------
    x : Tensor or array_like
    axis : int or tuple of int, optional
        Where the results sum to 1; all axes by default.

    Returns
    -------
    Tensor or ndarray
        In the shape of `x`; NaN where all of `x` is -inf.

    Examples
    --------
    >>> fg.grad(lambda x: fg.special.softmax(x)[0])(np.zeros(2))
    array([ 0.25, -0.25])
    """
    x = _float(x)
    axis = axes_of("softmax", axis, x.ndim)
    weights = _exp(_subtract(x, _maximum(x, axis)))
    return _divide(weights, core.sum(weights, axis=axis, keepdims=True))


@deferring
def log_softmax(x, axis=None):
    """log(softmax(x)), exact where softmax is small. As `scipy.special.log_softmax`.

    Parameters
    ----------
    x : Tensor or array_like
    axis : int or tuple of int, optional
        All axes by default.

    Returns
    -------
    Tensor or ndarray
        In the shape of `x`; NaN where all of `x` is -inf.

    Examples
    --------
    >>> fg.grad(lambda x: fg.special.log_softmax(x)[0])(np.zeros(2))
    array([ 0.5, -0.5])
    """
    x = _float(x)
    axis = axes_of("log_softmax", axis, x.ndim)
    shifted = _subtract(x, _finite(_maximum(x, axis)))
    return _subtract(shifted, _log(core.sum(_exp(shifted), axis=axis, keepdims=True)))


@deferring
def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False):
    """log(sum(b * exp(a))) along axes, without overflow. As `scipy.special.logsumexp`.

    Parameters
    ----------
    a : Tensor or array_like
    axis : int or tuple of int, optional
        All axes by default.
    b : Tensor or array_like, optional
        Factors, of a shape that broadcasts with that of `a`; they may be negative or 0.
    keepdims : bool, optional
        Whether the axes stay, with length 1.
    return_sign : bool, optional
        Whether the logarithm of the absolute value and the sign are returned.

    Returns
    -------
    Tensor or ndarray
        -inf where all of `a` is -inf, with the gradient 0; NaN where the sum is negative and no
        sign is returned.

    Examples
    --------
    >>> fg.grad(fg.special.logsumexp)(np.zeros(4))
    array([0.25, 0.25, 0.25, 0.25])
    """
    a = _float(a)
    if b is None:
        result = core.logsumexp(a, axis, keepdims)
        return (result, _sign(_exp(result))) if return_sign else result
    b = _taken_down(lift(b))
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"logsumexp: the shapes {a.shape} of a and {b.shape} of b do not "
                         "broadcast") from None
    axis = axes_of("logsumexp", axis, len(shape))
    a = cast("logsumexp", a, np.result_type(a.dtype, b.dtype))
    a = a if a.shape == shape else core.broadcast_to(a, shape)
    counts = _not_equal(b, 0)
    maximum = _finite(_maximum(_where(a, -np.inf, counts), axis))
    factors = _exp(_subtract(a, maximum))
    # Where b is 0, a was not looked at for the maximum: exp may overflow there, but 0 it stays.
    terms = _where(_multiply(b, factors), 0.0, logical_or(counts, isfinite(factors)))
    total = core.sum(terms, axis=axis, keepdims=True)
    result = _add(_log(_abs(total) if return_sign else total), maximum)
    sign = _sign(total) if return_sign else None
    if not keepdims:
        kept = [n for k, n in enumerate(shape) if axis is not None and k not in axis]
        result, sign = (x if x is None else core.reshape(x, kept) for x in (result, sign))
    return (result, sign) if return_sign else result


@deferring
def xlog1py(x, y):
    """x * log(1 + y), and 0 where x is 0. As `scipy.special.xlog1py`.

    Parameters
    ----------
    x, y : Tensor or array_like
        Shapes that broadcast.

    Returns
    -------
    Tensor or ndarray

    Examples
    --------
    >>> fg.grad(fg.special.xlog1py, argnums=(0, 1))(2.0, 0.0)
    (0.0, 2.0)
    >>> fg.special.xlog1py(0.0, -1.0)
    np.float64(0.0)
    """
    x, y = (value if isinstance(value, (Tensor, float)) else _float(value) for value in (x, y))
    # Only there is the logarithm no number; elsewhere both slopes are right at x = 0.
    void = logical_and(_equal(x, 0), logical_or(_less_equal(y, -1), _equal(y, np.inf)))
    result = _where(0.0, _multiply(x, log1p(_where(0.0, y, void))), void)
    return result if isinstance(result, Tensor) else result[()]
