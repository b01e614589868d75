"""Arrays and other data that a function reaches and uses by value as well."""

import array

import numpy as np
import scipy.interpolate
import scipy.sparse
import scipy.stats
from worlds import written

import fastgrad.numpy as fnp


def written_to(d, *places):
    """Steps between which an array is written to."""
    for k, value in places:
        yield
        d[k] = value
    yield


CHANGES = ((0, 5.0), (1, -1.0), (2, 0.5), (0, 1.0))


@written()
def captured_sum_as_float():
    d = np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.sum(x * d) * float(np.sum(d))

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_allclose():
    d, r = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.sum(x * d) if np.allclose(d, r) else np.sum(x - d)

    yield f
    yield from written_to(d, (0, 5.0), (0, 1.0), (2, 4.0), (2, 3.0))


@written()
def captured_alias_min():
    d = np.array([1.0, 2.0, 3.0])

    def f(x):
        e = d
        return np.sum(x * d) * e.min()

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_by_helper():
    d = np.array([1.0, 2.0, 3.0])

    def spread(a):
        return float(a.max() - a.min())

    def f(x):
        return np.sum(x * d) / spread(d)

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_argmax_slice():
    d = np.array([1.0, 3.0, 2.0])

    def f(x):
        return np.sum(x[np.argmax(d):] * d[0])

    yield f
    yield from written_to(d, (0, 5.0), (2, 9.0), (1, 10.0), (0, 0.0))


@written()
def captured_full_mean():
    d = np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.sum(fnp.full(3, np.mean(d)) * x * d)

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_entry_compared():
    d = np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.sum(x * d) if d[0] > 0 else np.sum(x)

    yield f
    yield from written_to(d, (0, -5.0), (0, 2.0), (1, -2.0), (0, 0.0))


@written()
def captured_tolist():
    d = np.array([1.0, 2.0, 3.0])

    def f(x):
        return sum(a * b for a, b in zip(d.tolist(), x)) + np.sum(d * x)

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_unpacked():
    d = np.array([1.0, 2.0, 3.0])

    def f(s):
        a, b, c = d
        return a * s ** 2 + b * s + c

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_int_index():
    order = np.array([0, 1, 2])

    def f(x):
        return np.sum(x[order] * np.array([1.0, 2.0, 3.0]))

    yield f
    for k in range(5):
        order[:] = np.roll(order, k % 2)
        yield


@written()
def captured_object_array():
    parts = np.array([1.0, "two", None], dtype=object)

    def f(x):
        return np.sum(x) * parts[0]

    yield f
    for value in (1.0, 2.0, 3.0, 3.0, 0.5):
        parts[0] = value
        yield


@written()
def captured_masked():
    d = np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0])

    def f(x):
        return np.sum(x) * float(d.sum())

    yield f
    yield
    d.mask[2] = True
    yield
    d[0] = 9.0
    yield


@written()
def captured_array_array():
    d = array.array("d", [1.0, 2.0, 3.0])

    def f(x):
        return np.sum(x) * d[0] + sum(d)

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_sparse():
    S = scipy.sparse.csr_matrix(np.array([[1.0, 0, 2], [0, 3, 0], [0, 0, 4]]))

    def f(x):
        return np.sum(x * S.diagonal()) + S.nnz

    yield f
    for k in range(5):
        S.data[k % 4] *= -2
        yield


@written()
def captured_poly1d():
    polynomial = np.poly1d([1.0, -2.0, 0.5])

    def f(s):
        return s * polynomial(2.0)

    yield f
    for value in (0.5, 1.0, 1.0, 3.0):
        polynomial.coeffs[0] = value
        yield


@written()
def captured_frozen_distribution():
    noise = scipy.stats.norm(0.0, 1.0)

    def f(s):
        return s * noise.pdf(0.5)

    yield f
    for scale in (1.0, 2.0, 3.0, 3.0):
        noise.kwds, noise.args = {}, (0.0, scale)
        yield


@written()
def captured_interpolator():
    grid = np.linspace(0.0, 1.0, 4)
    spline = scipy.interpolate.CubicSpline(grid, grid ** 2)

    def f(s):
        return s * float(spline(0.3))

    yield f
    for power in (2, 3, 1):
        spline = scipy.interpolate.CubicSpline(grid, grid ** power)
        yield
    spline.c[...] *= 2
    yield


@written()
def captured_view_base():
    base = np.arange(9.0).reshape(3, 3)
    row = base[1]

    def f(x):
        return np.sum(x * row) + row.max()

    yield f
    for k in range(5):
        base[k % 3] -= 1.5
        yield


@written()
def captured_broadcast():
    d = np.array([1.0])
    wide = np.broadcast_to(d, 3)

    def f(x):
        return np.sum(x * wide)

    yield f
    for d[0] in (1.0, 2.0, 3.0, 3.0, 0.5):
        yield


@written()
def captured_in_tuple():
    data = {"train": (np.ones(3), np.zeros(3)), "size": 3}

    def f(x):
        a, b = data["train"]
        return np.sum((x * a - b) ** 2) / data["size"]

    yield f
    yield
    data["train"][1][0] = 2.0
    yield
    data["size"] = 6
    yield
    data["train"] = (np.zeros(3), np.ones(3))
    yield


@written()
def captured_solve():
    M, d = np.eye(3) * 2, np.array([1.0, 2.0, 3.0])

    def f(x):
        return np.sum(np.linalg.solve(M, d) * x)

    yield f
    yield
    d[0] = 4.0
    yield
    M[0, 1] = 1.0
    yield
    M *= 2
    yield


@written()
def captured_sorted():
    d = np.array([3.0, 1.0, 2.0])

    def f(x):
        return sum(a * b for a, b in zip(sorted(d), x))

    yield f
    yield from written_to(d, *CHANGES)


@written()
def captured_polyfit():
    ts, data = np.arange(4.0), np.array([0.0, 1.0, 4.0, 9.0])

    def f(s):
        a, b = np.polyfit(ts, data, 1)
        return a * s + b

    yield f
    yield from written_to(data, *CHANGES)


@written()
def captured_lookup_table():
    places, values = np.array([-2.0, 0.0, 1.0, 3.0]), np.array([0.0, 1.0, 3.0, 2.0])

    def f(s):
        return s * np.interp(0.5, places, values)

    yield f
    yield from written_to(values, (1, 2.0), (2, 5.0), (0, -1.0), (1, 0.0))
