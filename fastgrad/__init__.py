"""fastgrad: automatic differentiation for NumPy code, with a Cython and C core.

    >>> import numpy as np
    >>> import fastgrad as fg
    >>> def f(x):
    ...     return np.sum(np.sin(x) * np.exp(-x * x))
    >>> fg.grad(f)(np.array([0.0, 1.0]))
    array([ 1.        , -0.42035364])

`fastgrad.numpy` is NumPy's vocabulary without NumPy's dispatch, `fastgrad.special` carries SciPy's
names. See the README for a tour. Examples in docstrings take `fg`, `np` and `fastgrad.numpy as fnp`
for imported.
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
from fastgrad.transforms.derivatives import (
    elementwise_grad,
    grad,
    jvp,
    linearize,
    stop_gradient,
    value_and_grad,
    vjp,
)
from fastgrad.transforms.jacobians import hessian, hessian_diag, hvp, jacobian, laplacian

from fastgrad.transforms.custom import custom_jvp, custom_vjp  # isort: skip  (builds on transforms)
from fastgrad import numpy, special, _operators  # noqa: F401  (they build on the names above)

__version__ = "0.1.0"

__all__ = [
    "ConvergenceError", "GuardError", "NoDerivativeError", "Program", "Tensor", "compile",
    "cond", "constant", "custom_jvp", "custom_vjp", "elementwise_grad", "explain", "fixed_point",
    "fori_loop", "function", "get_num_threads", "grad", "gradients", "hessian",
    "hessian_diag", "hvp", "is_tensor", "jacobian", "jvp", "laplacian", "linearize", "load",
    "no_grad", "numeric", "numpy", "optim", "record", "root", "scan", "set_num_threads", "special",
    "stop_gradient", "switch", "symbolic", "taylor", "tensor", "testing", "trees", "value_and_grad",
    "variable", "vjp", "vmap", "while_loop",
]

# What few programs need is imported when it is first used: name -> module, and whether the name is
# the module itself or a function in it.
_LATER = {
    "ConvergenceError": ("transforms.implicit", False), "GuardError": ("_core.core", False),
    "Program": ("programs.compile", False), "compile": ("programs.compile", False),
    "cond": ("programs.branches", False), "constant": ("code.watch", False),
    "explain": ("look.explain", False),
    "fixed_point": ("transforms.implicit", False), "fori_loop": ("programs.loops", False),
    "function": ("programs.explicit", False), "get_num_threads": ("_threads", False),
    "load": ("programs.persist", False), "numeric": ("numeric", True), "optim": ("optim", True),
    "root": ("transforms.implicit", False), "scan": ("programs.loops", False),
    "set_num_threads": ("_threads", False), "switch": ("programs.branches", False),
    "symbolic": ("look.symbolic", False),
    "taylor": ("transforms.taylor", False), "testing": ("testing", True), "trees": ("trees", True),
    "variable": ("programs.explicit", False), "vmap": ("transforms.vmap", False),
    "while_loop": ("programs.loops", False),
}


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module 'fastgrad' has no attribute {name!r}")
    import importlib

    module, whole = _LATER[name]
    module = importlib.import_module(f"fastgrad.{module}")
    value = globals()[name] = module if whole else getattr(module, name)
    return value


def __dir__():
    return sorted({*globals(), *_LATER})
