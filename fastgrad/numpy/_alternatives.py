"""What to write in place of functions that nobody has a derivative rule for.

An expression, and the assignments that it needs. A test runs each of them, in the names `fnp`
(fastgrad.numpy), `np`, `fg`, `x` for a vector and `X` for a matrix that are Tensors, and those of
the function's own parameters for the rest.
"""

from fastgrad._core import core

_QUANTILE = "fnp.sort(x)[k] * (1 - r) + fnp.sort(x)[min(k + 1, len(x) - 1)] * r"
_MEDIAN = "fnp.mean(fnp.sort(x)[(len(x) - 1) // 2:len(x) // 2 + 1])"
_SPECIAL = ("cbrt", "erf", "exp2", "expit", "expm1", "log1p", "log_softmax", "logsumexp", "softmax",
            "xlog1py", "xlogy")

TABLE = {
    "numpy.cumulative_sum": ("fnp.cumsum(x)",),
    "numpy.cumulative_prod": ("fnp.cumprod(x)",),
    "numpy.nancumsum": ("fnp.cumsum(fnp.nan_to_num(x))",),
    "numpy.nancumprod": ("fnp.cumprod(fnp.nan_to_num(x, nan=1.0))",),
    **{f"numpy.nan{name}": (f"fnp.{name}(x[~fnp.isnan(x)])",)
       for name in ("sum", "prod", "mean", "var", "std", "max", "min")},
    "numpy.ediff1d": ("fnp.diff(x)",),
    "numpy.gradient": (
        "fnp.concatenate([x[1:2] - x[:1], (x[2:] - x[:-2]) / 2, x[-1:] - x[-2:-1]])",),
    "numpy.interp": ("fp[k] + (x - xp[k]) * (fp[k + 1] - fp[k]) / (xp[k + 1] - xp[k])",
                     "k = fnp.clip(fnp.searchsorted(xp, x) - 1, 0, len(xp) - 2)"),
    "numpy.median": (_MEDIAN,),
    "numpy.nanmedian": (_MEDIAN, "x = x[~fnp.isnan(x)]"),
    "numpy.quantile": (_QUANTILE, "k, r = int(q * (len(x) - 1)), q * (len(x) - 1) % 1"),
    "numpy.percentile": (
        _QUANTILE, "k, r = int(q / 100 * (len(x) - 1)), q / 100 * (len(x) - 1) % 1"),
    "numpy.unique": ("fnp.sort(x)",),
    "numpy.convolve": ("sum(v[k] * fnp.pad(x, (k, len(v) - 1 - k)) for k in range(len(v)))",),
    "numpy.correlate": ("sum(v[k] * x[k:len(x) - len(v) + 1 + k] for k in range(len(v)))",),
    "numpy.polyval": ("sum(c * x ** k for k, c in enumerate(p[::-1]))",),
    "numpy.vander": ("x[:, None] ** np.arange(len(x))[::-1]",),
    "numpy.cov": ("D @ D.T / (X.shape[1] - 1)", "D = X - fnp.mean(X, axis=1, keepdims=True)"),
    "numpy.corrcoef": ("D @ D.T", "D = X - fnp.mean(X, axis=1, keepdims=True)",
                       "D = D / fnp.linalg.norm(D, axis=1, keepdims=True)"),
    "numpy.insert": ("fnp.concatenate([x[:obj], fnp.array([values]), x[obj:]])",),
    "numpy.resize": ("fnp.tile(x, repeats)",),
    "numpy.block": ("fnp.vstack([fnp.hstack(row) for row in arrays])",),
    "numpy.choose": ("fnp.select([a == k for k in range(len(choices))], choices)",),
    "numpy.piecewise": ("fnp.select(condlist, [f(x) for f in funclist])",),
    "numpy.apply_along_axis": ("fg.vmap(func1d)(X)",),
    "numpy.vectorize": ("fg.vmap(pyfunc)(x)",),
    "numpy.angle": ("fnp.where(x < 0, fnp.pi, 0.0)",),
    "numpy.sinc": ("fnp.where(x == 0, 1.0, fnp.sin(fnp.pi * y) / (fnp.pi * y))",
                   "y = fnp.where(x == 0, 1.0, x)"),
    "numpy.logaddexp2": (
        "fnp.logaddexp(x1 * fnp.log(2.0), x2 * fnp.log(2.0)) / fnp.log(2.0)",),
    "numpy.ldexp": ("x1 * 2.0 ** x2",),
    "numpy.modf": ("(x - fnp.trunc(x), fnp.trunc(x))",),
    "numpy.matvec": ("fnp.matmul(x1, x2)",),
    "numpy.vecmat": ("fnp.matmul(x1, x2)",),
    "numpy.unwrap": ("x + 2 * np.pi * turns", "v = x.detach()",
                     "turns = np.round((np.unwrap(v) - v) / (2 * np.pi))"),
    "numpy.put": ("x[ind] = v",),
    "numpy.putmask": ("x[mask] = values",),
    "numpy.place": ("x[mask] = vals",),
    "numpy.copyto": ("x[...] = src",),
    "numpy.fill_diagonal": ("X[np.diag_indices(len(X))] = val",),
    "numpy.full": ("fnp.full(3, x[0])",),
    "numpy.fft.fft": ("(fnp.cos(w) @ x, -fnp.sin(w) @ x)",
                      "k = np.arange(len(x))", "w = 2 * np.pi / len(x) * np.outer(k, k)"),
    "numpy.linalg.matrix_power": ("X @ X",),
    "numpy.linalg.multi_dot": ("A @ B @ C",),
    "numpy.linalg.svdvals": ("(fnp.linalg.norm(X, 2), fnp.linalg.norm(X, 'nuc'))",),
    "scipy.linalg.norm": ("fnp.linalg.norm(x)",),
    **{f"scipy.special.{name}": (f"fg.special.{name}({'x1, x2' if 'xlog' in name else 'x'})",)
       for name in _SPECIAL},
}


def _text(expression, *assignments):
    return f"{expression}, with {' and '.join(assignments)}" if assignments else expression


core.ALTERNATIVES.update({name: _text(*code) for name, code in TABLE.items()})
