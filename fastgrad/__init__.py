"""fastgrad: automatic differentiation for NumPy code, with a Cython and C core.

    >>> import numpy as np
    >>> import fastgrad as fg
    >>> def f(x):
    ...     return np.sum(np.sin(x) * np.exp(-x * x))
    >>> fg.grad(f)(np.array([0.0, 1.0]))
    array([ 1.        , -0.42035364])

`fastgrad.numpy` is NumPy's vocabulary without NumPy's dispatch, `fastgrad.special` carries SciPy's
names. See the README for a tour.
"""

from fastgrad._core.core import (
    NoDerivativeError,
    Tensor,
    gradients,
    is_tensor,
    no_grad,
    record,
    tensor,
)
from fastgrad.transforms import (
    elementwise_grad,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    laplacian,
    linearize,
    stop_gradient,
    value_and_grad,
    vjp,
)

from fastgrad import numpy, special  # isort: skip  (they build on the names above)

__version__ = "0.1.0"

__all__ = [
    "NoDerivativeError", "Tensor", "elementwise_grad", "grad", "gradients", "hessian", "hvp",
    "is_tensor", "jacobian", "jvp", "laplacian", "linearize", "no_grad", "numpy", "record",
    "special", "stop_gradient", "tensor", "value_and_grad", "vjp",
]
