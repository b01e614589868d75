"""NumPy's vocabulary for Tensors: names, signatures and errors are NumPy's.

    import fastgrad.numpy as fnp

is a drop-in for `import numpy as np`: functions return Tensors if an operand is one, creation
functions also while a function is being transformed, and NumPy's own results otherwise. One
definition serves `fnp.mean(t)`, `np.mean(t)` and `t.mean()`. The element-wise functions come from
the operator table; whatever NumPy has and fastgrad has no rule for is NumPy's own function, which
refuses floating Tensors with `NoDerivativeError`.

An ndarray cannot hold a Tensor: `acc = np.zeros(n); acc += t` binds `acc` to a Tensor where nothing
else has the array; an array that is a parameter, a view, or known by two names, `acc[i] = t` and
``out=`` refuse. What `fnp.zeros(n)` makes inside of a function that is differentiated is a Tensor.

    >>> import fastgrad as fg, fastgrad.numpy as fnp
    >>> fg.grad(lambda t: fnp.sum(fnp.array([t, 2 * t]) ** 2))(1.0)
    10.0

Start reading in _dispatch.py.
"""

# ruff: noqa: F401 (what is imported here is imported for others)

import numpy as _np
from numpy import (
    bool_,
    dtype,
    e,
    euler_gamma,
    finfo,
    float32,
    float64,
    iinfo,
    inf,
    int32,
    int64,
    intp,
    nan,
    ndarray,
    newaxis,
    pi,
)

from fastgrad._core import core as _core

from . import _alternatives, _plain, linalg
from ._create import *
from ._dispatch import register as _register
from ._dispatch import without_rule as _without_rule
from ._elementwise import *
from ._index import *
from ._products import *
from ._reduce import *
from ._shape import *

# The core's own functions, without anything around them.
sum = _register(_core.sum, _np.sum)
transpose = permute_dims = _register(_core.transpose, _np.transpose)
matmul = _core.matmul
logsumexp = _core.logsumexp

amax, amin, around, concat, conj = max, min, round, concatenate, conjugate


def _row(operator):
    """The names under which an element-wise row of the operator table is known."""
    return (operator.name, *(name for name in operator.numpy if name != operator.name))


for _operator in _core.operators():
    _plain.of_operator(_operator)
    if _operator.arity in (1, 2) and _operator.name in _core.functions and not _operator.inner:
        for _name in _row(_operator):
            globals()[_name] = _core.functions[_operator.name]
            # A few, such as fix, are no ufuncs in NumPy.
            if not isinstance(getattr(_np, _name, _np.add), _np.ufunc):
                _register(_core.functions[_operator.name], getattr(_np, _name))
        if _operator.arity == 1:
            _core.METHODS.update(dict.fromkeys(_row(_operator), _core.functions[_operator.name]))


# ---- methods of Tensors ---------------------------------------------------------------------

def _transpose(self, *axes):
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        axes = axes[0]
    return _core.transpose(self, axes or None)


def _flatten(self, order="C"):
    return ravel(self, order).copy()


def _clip(self, min=None, max=None, out=None, **kwargs):
    return clip(self, min, max, out, **kwargs)


_core.METHODS.update(
    transpose=_transpose, flatten=_flatten, clip=_clip,
    **{function.__name__: function for function in (
        all, any, argmax, argmin, argsort, conjugate, diagonal, dot, max, mean,
        min, nonzero, prod, ravel, repeat, round, squeeze, std, swapaxes, take, trace, var)})
_core.METHODS["conj"] = _core.METHODS["conjugate"] = real     # no copy, as ndarray's methods


def __getattr__(name):
    if name.startswith("_") or not hasattr(_np, name):
        raise AttributeError(f"module 'fastgrad.numpy' has no attribute {name!r}")
    value = getattr(_np, name)
    # Types and modules have no use for a guard, and ufuncs have one: Tensor.__array_ufunc__.
    if callable(value) and not isinstance(value, (type, _np.ufunc)):
        value = globals()[name] = _without_rule(value, f"numpy.{name}")
    return value


def __dir__():
    return sorted({*globals(), *dir(_np)})
