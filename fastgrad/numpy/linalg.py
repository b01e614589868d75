"""Linear algebra under the names of `numpy.linalg`: norms, and products of vectors and matrices.

What has no rule here is NumPy's own function, which refuses Tensors with an error.
"""

import math

import numpy as np

from fastgrad._core import core

from . import _index, _products, _reduce, _shape
from ._create import lift
from ._dispatch import axes_of, implements, register, values_of, without_rule

_abs, _multiply, _power = (core.functions[name] for name in ("abs", "multiply", "power"))
_root_of_powers = _reduce.root_of_powers


@implements(np.linalg.norm)
def norm(x, ord=None, axis=None, keepdims=False):
    """Norm of vectors or matrices; where it vanishes, derivatives are 0. As `numpy.linalg.norm`.

    Parameters
    ----------
    x : Tensor or array_like
    ord : None, int, float, "fro" or "nuc"
        The order. Vectors: any number, inf and -inf; None is 2. Matrices: 1, -1, 2, -2, inf, -inf,
        "fro" (also None) and "nuc".
    axis : int or pair of int, optional
        The axis of the vectors, or the axes of the matrices; all by default.
    keepdims : bool, optional
        Whether the axes stay, with length 1.

    Returns
    -------
    Tensor
        Or what NumPy returns, if `x` is no Tensor.

    Raises
    ------
    ValueError
        For an order that does not exist, and more than two axes.
    AxisError
        For an axis out of range.

    Notes
    -----
    Powers of entries neither overflow nor underflow on the way: the norm of ``[3e-200, 4e-200]`` is
    5e-200, where NumPy's is 0. In a compiled function such entries may be another path.

    Entries that tie in a norm of order inf (or rows and columns) share the gradient evenly. The
    matrix norms 2, -2 and "nuc" follow the singular vectors that NumPy's SVD gives, so that the
    first derivative is exact where singular values differ; values that are 0 to rounding get the
    gradient 0, the subgradient of least norm. Of these three there is a first derivative only: what
    asks for a second one gets a NoDerivativeError.

    Examples
    --------
    >>> fg.grad(fnp.linalg.norm)(np.array([3.0, 4.0]))
    array([0.6, 0.8])
    >>> fg.grad(fnp.linalg.norm)(np.zeros(2))
    array([0., 0.])
    """
    x = lift(x)
    if axis is None:
        if ord is None or (ord in ("f", "fro") and x.ndim == 2) or (ord == 2 and x.ndim == 1):
            return _root_of_powers(x, 2, None, keepdims)
        axis = tuple(range(x.ndim))
    elif not isinstance(axis, tuple):
        try:
            axis = (int(axis),)
        except Exception as error:
            raise TypeError("norm: 'axis' must be None, an integer or a tuple of integers, not "
                            f"{axis!r}") from error
    axes = axes_of("norm", axis, x.ndim)
    if len(axes) == 1:
        return _vector_norm("norm", x, ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm("norm", x, ord, axes, keepdims)
    raise ValueError(f"norm: improper number of dimensions, {len(axes)}: give one axis for the "
                     "norm of vectors, two for that of matrices")


def _vector_norm(name, x, ord, axis, keepdims):
    if isinstance(ord, str):
        raise ValueError(  # noqa: TRY004 (as NumPy)
            f"{name}: invalid norm order {ord!r} for vectors")
    if ord is None or not isinstance(ord, core.Tensor) and ord == 2:
        return _root_of_powers(x, 2, axis, keepdims)
    size = _abs(x)
    if ord == math.inf:
        return core.max(size, axis, keepdims)
    if ord == -math.inf:
        return core.min(size, axis, keepdims)
    if ord == 0:
        return core.sum(core.cast(x != 0, x.dtype), axis=axis, keepdims=keepdims)
    if ord == 1:
        return core.sum(size, axis=axis, keepdims=keepdims)
    if isinstance(ord, core.Tensor):
        return _power(core.sum(_power(size, ord), axis=axis, keepdims=keepdims), 1.0 / ord)
    return _root_of_powers(x, ord, axis, keepdims)


def _matrix_norm(name, x, ord, axes, keepdims):
    row, column = axes
    if ord is None or ord in ("fro", "f"):
        result = _root_of_powers(x, 2, (row, column), True)
    elif ord in (1, -1):
        extreme = core.max if ord > 0 else core.min
        result = extreme(core.sum(_abs(x), axis=row, keepdims=True), column, True)
    elif ord in (math.inf, -math.inf):
        extreme = core.max if ord > 0 else core.min
        result = extreme(core.sum(_abs(x), axis=column, keepdims=True), row, True)
    elif ord in (2, -2, "nuc"):
        result = _spectral_norm(name, x, ord, (row, column))
    else:
        raise ValueError(f"{name}: invalid norm order {ord!r} for matrices")
    if keepdims:
        return result
    return core.reshape(result, [n for k, n in enumerate(x.shape) if k not in (row, column)])


def _spectral_norm(name, x, ord, axes):
    """A norm of the singular values, axes kept."""
    matrices = values_of(x)
    weights = np.moveaxis(_spectral_weights(np.moveaxis(matrices, axes, (-2, -1)), ord), (-2, -1),
                          axes)
    value = np.linalg.norm(matrices, ord, axes, keepdims=True)
    result, = core.custom(_FirstOrder(f"{name} of order {ord!r}", weights, axes), [x], [value])
    return result


class _FirstOrder:
    """The rule of y = sum(weights * x) with weights that depend on x in a way nobody wrote down."""

    def __init__(self, name, weights, axes):
        self.name, self.weights, self.axes = name, weights, axes

    def __repr__(self):
        return self.name

    def _known(self):
        if core.is_recording():
            raise core.NoDerivativeError(
                f"{self.name}: there is no second derivative; use order 'fro' for a smooth norm, "
                "or fastgrad.stop_gradient around the inner derivative")

    def pull(self, cotangents, needed):
        self._known()
        return [_multiply(cotangents[0], self.weights)]

    def push(self, tangents):
        self._known()
        return [core.sum(_multiply(tangents[0], self.weights), axis=self.axes, keepdims=True)]


def _spectral_weights(matrices, ord):
    """W with norm = sum(W * A): the derivative of a singular value s = u'Av is the matrix uv'."""
    u, s, vh = np.linalg.svd(matrices, full_matrices=False)
    rounding = max(matrices.shape[-2:]) * np.finfo(s.dtype).eps
    u = u * (s > s[..., :1] * rounding)[..., None, :]
    chosen = {2: slice(0, 1), -2: slice(-1, None), "nuc": slice(None)}[ord]
    return u[..., chosen] @ vh[..., chosen, :]


@implements(np.linalg.vector_norm)
def vector_norm(x, /, *, axis=None, keepdims=False, ord=2):
    """Norm of vectors along axes, of all entries by default. As `numpy.linalg.vector_norm`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.linalg.vector_norm(x, ord=1))(np.array([[3.0, -4.0]]))
    array([[ 1., -1.]])
    """
    x = lift(x)
    axes = axes_of("vector_norm", tuple(axis) if isinstance(axis, list) else axis, x.ndim)
    return _vector_norm("vector_norm", x, ord, axes, keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x, /, *, keepdims=False, ord="fro"):
    """Norm of the matrices in the last two axes. As `numpy.linalg.matrix_norm`; see `norm`.

    Examples
    --------
    >>> fg.grad(fnp.linalg.matrix_norm)(np.array([[3.0, 0.0], [0.0, 4.0]]))
    array([[0.6, 0. ],
           [0. , 0.8]])
    """
    x = lift(x)
    return _matrix_norm("matrix_norm", x, ord, axes_of("matrix_norm", (-2, -1), x.ndim), keepdims)


@implements(np.linalg.outer)
def outer(x1, x2, /):
    """All products of entries of two vectors. As `numpy.linalg.outer`."""
    x1, x2 = lift(x1), lift(x2)
    if x1.ndim != 1 or x2.ndim != 1:
        raise ValueError("outer: input arrays must be one-dimensional, but their shapes are "
                         f"{x1.shape} and {x2.shape}; np.outer ravels them")
    return _products.outer(x1, x2)


@implements(np.linalg.cross)
def cross(x1, x2, /, *, axis=-1):
    """Vector product of vectors with three components. As `numpy.linalg.cross`."""
    return _products.cross(x1, x2, axis=axis)


@implements(np.linalg.diagonal, views=True)
def diagonal(x, /, *, offset=0):
    """The diagonals of the matrices in the last two axes. As `numpy.linalg.diagonal`."""
    return _index.diagonal(x, offset, -2, -1)


@implements(np.linalg.trace)
def trace(x, /, *, offset=0, dtype=None):
    """The sum along the diagonals of the last two axes. As `numpy.linalg.trace`."""
    return _reduce.trace(x, offset, -2, -1, dtype)


@implements(np.linalg.tensordot)
def tensordot(x1, x2, /, *, axes=2):
    """Products summed over several axes. As `numpy.linalg.tensordot`."""
    return _products.tensordot(x1, x2, axes)


@implements(np.linalg.vecdot)
def vecdot(x1, x2, /, *, axis=-1):
    """Dot products along an axis. As `numpy.linalg.vecdot`."""
    return _products.vecdot(x1, x2, axis=axis)


matmul = register(core.matmul, np.linalg.matmul)
matrix_transpose = register(_shape.matrix_transpose, np.linalg.matrix_transpose)


def __getattr__(name):
    if name.startswith("_") or not hasattr(np.linalg, name):
        raise AttributeError(f"module 'fastgrad.numpy.linalg' has no attribute {name!r}")
    value = getattr(np.linalg, name)
    if callable(value) and not isinstance(value, type):
        value = globals()[name] = without_rule(value, f"numpy.linalg.{name}")
    return value
