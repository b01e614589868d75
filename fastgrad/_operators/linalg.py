"""Linear algebra. Formulas: M. Giles, "An extended collection of matrix derivative results for forward
and reverse mode algorithmic differentiation" (2008); for the factor, I. Murray, "Differentiation of
the Cholesky decomposition" (2016)."""

import numpy as np

from fastgrad import numpy as fnp

from .rule import operator

__all__ = ["cholesky", "solve"]


def _transposed(a):
    return fnp.swapaxes(a, -1, -2)


def _well_conditioned(rng, *shape):
    return rng.normal(size=shape) + 3 * np.eye(shape[-1])


def _solve_vjp(cotangents, operands, results, wanted):
    (g,), (a, _), (x,) = cotangents, operands, results
    u = solve(_transposed(a), g)
    return -u @ _transposed(x) if wanted[0] else None, u


def _solve_jvp(tangents, operands, results):
    (da, db), (a, _), (x,) = tangents, operands, results
    return (solve(a, (0.0 if db is None else db) - (0.0 if da is None else da @ x)),)


solve = operator(
    "linalg.solve", "(n,n),(n,k)->(n,k)", np.linalg.solve, reads="ay", jvp=_solve_jvp, vjp=_solve_vjp,
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
    >>> import fastgrad as fg, fastgrad.numpy as fnp, numpy as np
    >>> a = np.array([[2.0, 0.0], [0.0, 4.0]])
    >>> fg.grad(lambda b: fnp.sum(fnp.linalg.solve(a, b)))(np.array([1.0, 2.0]))
    array([0.5 , 0.25])
    """,
    # (Of one vector NumPy makes a column, and of what it returns a vector.)
    around=lambda solve, a, b: solve(a, b[:, None])[..., 0] if b.ndim == 1 else solve(a, b),
    draw=lambda rng: [((_well_conditioned(rng, *a), rng.normal(size=b)), {}) for a, b in (
        ((3, 3), (3, 2)), ((4, 2, 2), (2, 1)), ((2, 2), (5, 2, 3)), ((1, 1), (1, 1)))])


def _halved(a):
    """The lower triangle, its diagonal halved."""
    return fnp.tril(a) - 0.5 * a * fnp.eye(a.shape[-1], dtype=a.dtype)


def _cholesky_vjp(g, a, y, upper=False):
    factor, g = (_transposed(y), _transposed(g)) if upper else (y, g)
    middle = solve(_transposed(factor), _halved(_transposed(factor) @ g))
    whole = _transposed(solve(_transposed(factor), _transposed(middle)))
    return 0.5 * (whole + _transposed(whole))


def _cholesky_jvp(t, a, y, upper=False):
    factor = _transposed(y) if upper else y
    inner = solve(factor, 0.5 * (t + _transposed(t)))
    moved = factor @ _halved(_transposed(solve(factor, _transposed(inner))))
    return _transposed(moved) if upper else moved


def _positive(rng, *shape):
    a = _well_conditioned(rng, *shape)
    return a @ np.swapaxes(a, -1, -2)


cholesky = operator(
    "linalg.cholesky", "(n,n)->(n,n)", np.linalg.cholesky, reads="y", symmetric=(0,), jvp=(_cholesky_jvp,),
    vjp=(_cholesky_vjp,),
    doc="""The triangular factor of a symmetric positive definite matrix. As `numpy.linalg.cholesky`.

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
    With the cotangent g of l: that of a is the symmetric part of ``inv(l).T @ tril(l.T @ g) @ inv(l)``,
    the diagonal in the middle halved (Murray 2016, equation 10).

    Examples
    --------
    >>> import fastgrad as fg, fastgrad.numpy as fnp, numpy as np
    >>> fg.grad(lambda a: fnp.sum(fnp.linalg.cholesky(a)))(np.array([[4.0, 0.0], [0.0, 1.0]]))
    array([[0.25, 0.25],
           [0.25, 0.5 ]])
    """, draw=lambda rng: [((_positive(rng, *shape),), {"upper": upper}) for shape, upper
                                            in (((3, 3), False), ((4, 2, 2), True), ((1, 1), False))])
