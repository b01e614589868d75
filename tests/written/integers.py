"""Integers and booleans that are computed from floats."""

import numpy as np
from worlds import written

K = np.array([1, 10, 100])


@written()
def int_matmul():
    def f(x):
        return x.astype(int) @ K * 1.0

    yield f


@written()
def int_modulo():
    def f(s):
        if int(s * 10) % 2 == 0:
            return s * 2
        return s * 3

    yield f


@written()
def int_cumsum():
    def f(x):
        return np.sum(np.cumsum(x.astype(int)) * x)

    yield f


@written()
def int_append():
    def f(x):
        return np.sum(np.append(x.astype(int), K) ** 2)

    yield f


@written()
def int_median():
    def f(x):
        return np.median(x.astype(int)) + np.sum(x)

    yield f


@written()
def int_std():
    def f(x):
        return np.std(x.astype(int)) * np.sum(x)

    yield f


@written()
def int_bits():
    def f(x):
        k = x.astype(int)
        return np.sum(((k & 3) | 4) >> 1) * x[0]

    yield f


@written()
def int_prod():
    def f(x):
        return np.prod(x.astype(int) + 3) * 1.5

    yield f


@written()
def bool_matmul():
    def f(x, y):
        return np.sum(x) * ((x > 0.45) @ (y > 0.45))

    yield f


@written()
def bool_logic():
    def f(x, y):
        mask = np.logical_and(x > 0, ~(y > 1))
        return np.sum(np.where(mask, x, y))

    yield f


@written()
def bool_multiply():
    def f(x):
        return x * (x > 1)

    yield f


@written()
def float_to_int_to_float():
    def f(x):
        return int(x[0]) * 1.0 + x[1]

    yield f


@written()
def rounding():
    def f(s):
        return round(s) + s

    yield f


@written()
def int_argument_array():
    def f(x, i):
        return np.sum(i) * x[0] + np.max(i) * x[1]

    yield f


@written(k=lambda step: np.int64((1, 1, 2, 0, 2, 1)[step]))
def numpy_int_scalar():
    def f(x, k):
        return x[k] * k

    yield f


@written()
def adjacency_degree():
    def f(A):
        edges = (np.abs(A) > 1.0).astype(int)
        return edges.sum(axis=1) * A[0]

    yield f


@written()
def einsum_of_ints():
    def f(A):
        k = A.astype(int)
        return np.einsum("ij,jk->", k, k) * A[0, 0]

    yield f


@written()
def convolve_ints():
    def f(x):
        return np.sum(np.convolve(x.astype(int), K) * 0.5)

    yield f
