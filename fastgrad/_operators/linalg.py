"""Linear algebra. Formulas: M. Giles, "An extended collection of matrix derivative results for
forward and reverse mode algorithmic differentiation" (2008); for the factor, I. Murray,
"Differentiation of the Cholesky decomposition" (2016)."""

import warnings

import numpy as np

from fastgrad import numpy as fnp
from fastgrad._core import core

from .rule import on_examples, operator

__all__ = ["cholesky", "eigh", "solve"]


LARGE = 1 << 14             # elements: results of that size lie in the core's memory


def _transposed(a):
    return fnp.swapaxes(a, -1, -2)


def _well_conditioned(rng, *shape):
    return rng.normal(size=shape) + 3 * np.eye(shape[-1])


def _run(name, *operands):
    """A loop of the core's, for float64. Its first result has the shape of the last operand."""
    a, b, loop = operands[0], operands[-1], core.matrices[name]
    if max([x.ndim for x in operands]) > 2 or a.size < LARGE:
        return loop(*operands)
    out = core.pooled(*b.shape)
    return loop(*operands, out=(out, core.pooled(*a.shape), None) if name == "solve" else out)


def _loop(name, *operands):
    """The same in the dtype that NumPy's functions return."""
    single = all([x.dtype == np.float32 for x in operands])
    found = _run(name, *operands)
    return found.astype(np.float32) if single else found


def _factor_and_solve(a, b):
    x, factors, exchanged = _run("solve", a, b)
    if np.isnan(factors[..., :1, :1]).any():        # singular, or there was one
        x = np.linalg.solve(a, b)
        if np.isfinite(a).all():                    # singular but for NumPy's rounding
            raise np.linalg.LinAlgError("Singular matrix")
    return x.astype(np.result_type(a, b), copy=False), factors, exchanged


def _solve_factored(a, factors, exchanged, b, transposed):
    name = "solve_transposed" if transposed else "solve_again"
    return _run(name, a, factors, exchanged, b).astype(np.result_type(a, b), copy=False)


def _again(a, factors, b, transposed):
    """The solution for a further right side, from the factors of the first, not rounded."""
    found = _factored(a, *factors, b, transposed)
    return found if found.dtype == b.dtype else found.astype(b.dtype)


def _factored_vjp(cotangents, operands, results, wanted, transposed):
    (g,), (a, *factors, _), (x,) = cotangents, operands, results
    u = _again(a, factors, g, not transposed)
    moved = (x, u) if transposed else (u, x)
    return -moved[0] @ _transposed(moved[1]) if wanted[0] else None, None, None, u


def _factored_jvp(tangents, operands, results, transposed):
    (da, _, _, db), (a, *factors, _), (x,) = tangents, operands, results
    moved = 0.0 if da is None else (_transposed(da) if transposed else da) @ x
    return (_again(a, factors, (0.0 if db is None else db) - moved, transposed),)


# (A function of `a` and `b`: the factors are those of `a`, and no operand of their own that the
# laws could draw. Those of solve, to the second order, go through it.)
_factored = operator(
    "linalg._factored", "(n,n),(n,n),(n),(n,k)->(n,k)", _solve_factored, reads="abcy",
    jvp=_factored_jvp, vjp=_factored_vjp, doc=_again.__doc__, draw=lambda rng: [],
    native=lambda transposed: core.matrices["solve_transposed" if transposed else "solve_again"])


def _solve_vjp(cotangents, operands, results, wanted):
    (g, *_), (a, _), (x, *factors) = cotangents, operands, results
    u = _again(a, factors, g, True)
    return -u @ _transposed(x) if wanted[0] else None, u


def _solve_jvp(tangents, operands, results):
    (da, db), (a, _), (x, *factors) = tangents, operands, results
    moved = (0.0 if db is None else db) - (0.0 if da is None else da @ x)
    return _again(a, factors, moved, False), None, None


def _solve_around(solve, a, b):
    """Of one vector NumPy makes a column, and of what it returns a vector."""
    if b.ndim == 0:
        raise ValueError("linalg.solve: operand 1 has shape (); it must be a vector or matrices")
    return solve(a, b[:, None])[..., 0] if b.ndim == 1 else solve(a, b)


solve = operator(
    "linalg.solve", "(n,n),(n,k)->(n,k),(n,n),(n)", _factor_and_solve, numpy=np.linalg.solve,
    results=3, reads="ay", jvp=_solve_jvp, vjp=_solve_vjp,
    doc="""The solution x of ``a @ x = b``. As `numpy.linalg.solve`.

    Parameters
    ----------
    a : Tensor or array_like, shape (..., n, n)
    b : Tensor or array_like, shape (n,) or (..., n, k)

    Returns
    -------
    Tensor
        Of the shape of `b`, batch axes broadcast; or an array, if neither is a Tensor.

    Raises
    ------
    LinAlgError
        If a matrix is singular.
    ValueError
        For shapes that do not fit; names operand and axis.

    Notes
    -----
    With the cotangent g of x: that of b is u, the solution of ``a.T @ u = g``, and that of a is
    ``-u @ x.T`` (Giles 2008, section 2.2.3).

    Examples
    --------
    >>> a = np.array([[2.0, 0.0], [0.0, 4.0]])
    >>> fg.grad(lambda b: fnp.sum(fnp.linalg.solve(a, b)))(np.array([1.0, 2.0]))
    array([0.5 , 0.25])
    """,
    around=_solve_around,
    native=lambda: core.matrices["solve"],
    draw=lambda rng: [((_well_conditioned(rng, *a), rng.normal(size=b)), {}) for a, b in (
        ((3, 3), (3, 2)), ((4, 2, 2), (2, 1)), ((2, 2), (5, 2, 3)), ((1, 1), (1, 1)))])


def _side(a, upper):
    return fnp.triu(a) if upper else fnp.tril(a)


def _substituted(a, b, upper):
    """The x of ``a @ x = b`` for a triangular a, whose other half is not read."""
    return _loop("upper" if upper else "lower", a, b)


def _triangular_vjp(cotangents, operands, results, wanted, upper):
    (g,), (a, _), (x,) = cotangents, operands, results
    u = _triangular(_transposed(a), g, not upper)
    return -_side(u @ _transposed(x), upper) if wanted[0] else None, u


def _triangular_jvp(tangents, operands, results, upper):
    (da, db), (a, _), (x,) = tangents, operands, results
    moved = 0.0 if da is None else _side(da, upper) @ x
    return (_triangular(a, (0.0 if db is None else db) - moved, upper),)


_triangular = operator(
    "linalg._triangular", "(n,n),(n,k)->(n,k)", _substituted, reads="ay", jvp=_triangular_jvp,
    vjp=_triangular_vjp, doc=_substituted.__doc__,
    native=lambda upper: core.matrices["upper" if upper else "lower"],
    draw=lambda rng: [((_well_conditioned(rng, *a), rng.normal(size=b)), {"upper": upper})
                      for a, b, upper in (((3, 3), (3, 2), False), ((4, 2, 2), (2, 1), True),
                                          ((2, 2), (5, 2, 3), True))])


def _halved(a):
    """The lower triangle, its diagonal halved."""
    kept = np.tri(a.shape[-1], dtype=a.dtype)
    np.fill_diagonal(kept, 0.5)
    return a * core.vouch(kept)


def _cholesky_vjp(g, a, y, upper=False):
    factor, g = (_transposed(y), _transposed(g)) if upper else (y, g)
    above = _transposed(factor)
    middle = _triangular(above, _halved(above @ g), True)
    return _transposed(_triangular(above, _transposed(middle), True))


def _cholesky_jvp(t, a, y, upper=False):
    factor = _transposed(y) if upper else y
    inner = _triangular(factor, _transposed(_triangular(factor, t, False)), False)
    moved = factor @ _halved(_transposed(inner))
    return _transposed(moved) if upper else moved


def _positive(rng, *shape):
    a = _well_conditioned(rng, *shape)
    return a @ np.swapaxes(a, -1, -2)


def _factor_symmetric(a, upper=False):
    found = _loop("cholesky_upper" if upper else "cholesky_lower", a)
    return np.linalg.cholesky(a, upper=upper) if np.isnan(found[..., :1, :1]).any() else found


cholesky = operator(
    "linalg.cholesky", "(n,n)->(n,n)", _factor_symmetric, numpy=np.linalg.cholesky, reads="y",
    symmetric=(0,),
    jvp=(_cholesky_jvp,), vjp=(_cholesky_vjp,),
    doc="""The triangular factor of a positive definite matrix. As `numpy.linalg.cholesky`.

    Parameters
    ----------
    a : Tensor or array_like, shape (..., n, n)
        Taken as symmetric: one triangle is read, and the gradient is symmetric.
    upper : bool, optional
        Whether the factor is the upper one, ``a = u.T @ u``, and not the lower, ``a = l @ l.T``.

    Returns
    -------
    Tensor
        Or an array, if `a` is no Tensor.

    Raises
    ------
    LinAlgError
        If a matrix is not positive definite.

    Notes
    -----
    With the cotangent g of l: that of a is the symmetric part of ``inv(l).T @ tril(l.T @ g) @
    inv(l)``, the diagonal in the middle halved (Murray 2016, equation 10).

    Examples
    --------
    >>> fg.grad(lambda a: fnp.sum(fnp.linalg.cholesky(a)))(np.array([[4.0, 0.0], [0.0, 1.0]]))
    array([[0.25, 0.25],
           [0.25, 0.5 ]])
    """, native=lambda upper: core.matrices["cholesky_upper" if upper else "cholesky_lower"],
    draw=lambda rng: [((_positive(rng, *shape),), {"upper": upper}) for shape, upper in (
        ((3, 3), False), ((4, 2, 2), True), ((1, 1), False))])


def _inverse_gaps(w):
    """1 / (w[j] - w[i]); 0 on the diagonal, and NaN where two are equal to rounding."""
    gaps, diagonal = w[..., None, :] - w[..., None], np.eye(w.shape[-1], dtype=bool)
    rounding = w.shape[-1] * np.finfo(w.dtype).eps * np.max(np.abs(w), -1, initial=0)
    equal = (np.abs(gaps) <= rounding[..., None, None]) & ~diagonal
    if equal.any() and not on_examples.get():
        warnings.warn(f"linalg.eigh: eigenvalues are equal{core.user_line()}; the derivative of "
                      "their eigenvectors is NaN", RuntimeWarning, stacklevel=1)
    return 1 / np.where(diagonal, np.inf, np.where(equal, np.nan, gaps))


def _inverse_gaps_vjp(g, w, y):
    moved = -y * y * g
    return fnp.sum(moved - _transposed(moved), -2)


_inverse_gaps = operator(
    "linalg._inverse_gaps", "(n)->(n,n)", _inverse_gaps, reads="y", vjp=(_inverse_gaps_vjp,),
    jvp=(lambda t, w, y: -y * y * (t[..., None, :] - t[..., None]),), doc=_inverse_gaps.__doc__,
    draw=lambda rng: [((rng.normal(size=shape),), {}) for shape in ((3,), (2, 2), (1,))])


def _eigh_jvp(tangents, operands, results, UPLO):
    (t,), (w, v) = tangents, results
    inner = _transposed(v) @ t @ v
    return fnp.diagonal(inner, 0, -2, -1), v @ (_inverse_gaps(w) * inner)


def _eigh_vjp(cotangents, operands, results, wanted, UPLO):
    (c, g), (w, v) = cotangents, results
    moved = 0.0 if c is None else v * c[..., None, :]
    if g is not None:
        gaps, inner = _inverse_gaps(w), _transposed(v) @ g
        # NaN stays away from eigenvectors that nobody looks at, and from no others.
        asked = fnp.any(g != 0, -2, keepdims=True)
        moved = moved + v @ fnp.where(asked, gaps * inner, core.functions["weigh"](inner, gaps))
    return (moved @ _transposed(v),)


_Eigh = type(np.linalg.eigh(np.eye(1)))
eigh = operator(
    "linalg.eigh", "(n,n)->(n),(n,n)", np.linalg.eigh, reads="y", results=2, returns=2,
    symmetric=(0,), jvp=_eigh_jvp, vjp=_eigh_vjp, around=lambda eigh, a: _Eigh(*eigh(a)),
    draw=lambda rng: [((rng.normal(size=shape),), {"UPLO": side})
                      for shape, side in (((3, 3), "L"), ((4, 2, 2), "U"), ((1, 1), "L"))],
    doc="""Eigenvalues and eigenvectors of a symmetric matrix. As `numpy.linalg.eigh`.

    Parameters
    ----------
    a : Tensor or array_like, shape (..., n, n)
        Taken as symmetric: one triangle is read, and the gradient is symmetric.
    UPLO : {"L", "U"}, optional
        The triangle that is read.

    Returns
    -------
    EighResult
        A namedtuple of `eigenvalues` and `eigenvectors`; of arrays, if `a` is no Tensor.

    Raises
    ------
    LinAlgError
        If the computation does not converge.

    Notes
    -----
    With the cotangents c of w and g of v: that of a is the symmetric part of
    ``v @ (diag(c) + f * (v.T @ g)) @ v.T``, f[i, j] being ``1 / (w[j] - w[i])``, 0 on the diagonal
    (Giles 2008, section 3.1). So eigenvectors whose eigenvalues are equal to rounding have the
    derivative NaN, with a RuntimeWarning. The gradients of the others, and of symmetric functions
    of the eigenvalues, are exact; what differentiates these once more meets all eigenvectors, and
    is NaN.

    Examples
    --------
    >>> fg.grad(lambda a: fnp.linalg.eigh(a).eigenvalues[1])(np.array([[2.0, 1.0], [1.0, 2.0]]))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """)
