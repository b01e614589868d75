"""Matrices [SciPy: linalg; textbooks: matrix calculus]."""

import numpy as np

import fastgrad.numpy as fnp

from . import mask, positive, usual

rng = np.random.default_rng(43)
M = rng.normal(size=(4, 4))
ratings = rng.normal(size=(5, 6))
known = rng.uniform(size=(5, 6)) < 0.5


@usual(A=(3, 3), x=3)
def quadratic_form(A, x):
    """x' A x [textbooks: matrix calculus]."""
    return x.T @ A @ x


@usual(A=(3, 3))
def log_determinant(A):
    """Of a positive definite matrix [textbooks: matrix calculus]."""
    return np.linalg.slogdet(A @ A.T + np.eye(3))[1]


@usual(A=(3, 3), b=3)
def solution(A, b):
    """A linear system [NumPy: linalg.solve]."""
    return np.linalg.solve(A + 5 * np.eye(3), b)


@usual(A=(3, 3))
def trace_of_inverse(A):
    """The trace of an inverse [textbooks: matrix calculus]."""
    return np.trace(np.linalg.inv(A @ A.T + np.eye(3)))


@usual(X=(4, 3))
def frobenius(X):
    """A norm of a difference of products [textbooks: matrix calculus]."""
    return np.linalg.norm(X @ X.T - M, "fro") ** 2


@usual(U=(5, 2), V=(6, 2))
def factorisation(U, V):
    """Ratings by factors, those that are known [textbooks: recommenders]."""
    return np.sum(np.where(known, U @ V.T - ratings, 0.0) ** 2) + 0.1 * (U ** 2).sum()


@usual(U=(5, 2), V=(6, 2))
def factorisation_by_index(U, V):
    """The same by indices of what is known [textbooks: recommenders]."""
    i, j = np.nonzero(known)
    return np.mean((np.sum(U[i] * V[j], axis=1) - ratings[i, j]) ** 2)


@usual(W=positive(5, 2), H=positive(2, 6))
def nonnegative(W, H):
    """A divergence of non-negative factors [scikit-learn: NMF]."""
    X, Y = np.abs(ratings) + 0.1, W @ H
    return np.sum(X * np.log(X / Y) - X + Y)


@usual(v=4)
def rayleigh(v):
    """Rayleigh's quotient [textbooks: eigenvalues]."""
    S = M + M.T
    return (v @ S @ v) / (v @ v)


@usual(A=(4, 4))
def power_iteration(A):
    """The largest eigenvalue by powers [textbooks: eigenvalues]."""
    S = A + A.T + 6 * np.eye(4)
    v = np.ones(4)
    for _ in range(20):
        v = S @ v
        v = v / np.sqrt(v @ v)
    return v @ S @ v


@usual(A=(3, 3))
def exponential_series(A):
    """A matrix's exponential by its series [textbooks: matrix functions]."""
    term, total = np.eye(3), np.eye(3)
    for k in range(1, 10):
        term = term @ A / k
        total = total + term
    return total


@usual(A=(3, 3))
def newton_schulz(A):
    """An inverse by products [textbooks: matrix functions]."""
    S = A @ A.T + np.eye(3)
    X = S / np.trace(S) ** 2
    for _ in range(5):
        X = 2 * X - X @ S @ X
    return np.sum(X)


@usual(A=(4, 3))
def gram_schmidt(A):
    """Columns made orthogonal in a loop [textbooks: QR]."""
    basis = []
    for k in range(3):
        v = A[:, k]
        for q in basis:
            v = v - (q @ v) * q
        basis.append(v / np.linalg.norm(v))
    return np.stack(basis, axis=1)


@usual(v=3)
def householder(v):
    """A reflection [textbooks: QR]."""
    return np.eye(3) - 2 * np.outer(v, v) / np.dot(v, v)


@usual(a=3, b=(2, 2))
def kronecker(a, b):
    """A product of products [NumPy: kron]."""
    return np.kron(np.diag(a), b).sum(axis=0)


@usual(A=(2, 3, 4), B=(2, 4, 3))
def batched(A, B):
    """Products of batches [NumPy: matmul]."""
    return np.trace(A @ B, axis1=1, axis2=2)


@usual(A=(3, 4), B=(4, 5), c=5)
def chain_of_products(A, B, c):
    """By einsum [NumPy: einsum]."""
    return np.einsum("ij,jk,k->i", A, B, c)


@usual(x=(3, 4), chosen=mask(4))
def columns_chosen(x, chosen):
    """Columns that are given by a mask [NumPy: indexing]."""
    return np.sum(np.tanh(x[:, chosen]))


@usual(d=4, e=3)
def tridiagonal(d, e):
    """A determinant by a recurrence [textbooks: tridiagonal]."""
    before, now = 1.0, d[0]
    for k in range(1, 4):
        before, now = now, d[k] * now - e[k - 1] ** 2 * before
    return now


@usual(x=6)
def symmetric_from_vector(x):
    """A matrix filled from its triangle [SciPy: squareform]."""
    S = fnp.zeros((3, 3))
    S[np.triu_indices(3)] = x
    S = S + S.T - fnp.diag(np.diag(S))
    return np.linalg.norm(S)


@usual(X=(6, 3))
def covariance(X):
    """A covariance by centred data [NumPy: cov]."""
    Z = X - X.mean(axis=0)
    return Z.T @ Z / (len(X) - 1)
