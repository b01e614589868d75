"""Indices, masks, orders and counts that live in data."""

import numpy as np
from worlds import written

import fastgrad.numpy as fnp


@written()
def take_argmax():
    def f(x):
        return x[np.argmax(x)] * 2

    yield f


@written()
def scatter_argmax():
    def f(x):
        out = fnp.zeros(3)
        out[np.argmax(x)] = x[0]
        return out

    yield f


@written()
def zero_argmax():
    def f(x):
        y = x * 1
        y[np.argmax(y)] = 0
        return y

    yield f


@written()
def zero_masked():
    def f(x):
        y = x * 1.0
        y[y > 1.6] = 0
        return np.sum(y * np.array([1.0, 10.0, 100.0]))

    yield f


@written()
def masked_add():
    def f(x):
        y = x + 0.0
        y[x > 1] += 1
        return y

    yield f


@written()
def assign_int_array():
    def f(x, i):
        out = fnp.zeros(3)
        out[i] = x
        return out

    yield f


@written()
def take_int_array():
    def f(x, i):
        return x[i] * np.array([1.0, 2.0, 3.0])

    yield f


@written()
def add_at_int_array():
    def f(x, i):
        out = fnp.zeros(3)
        np.add.at(out, i, x)
        return out

    yield f


@written()
def argsort_first():
    def f(x):
        return np.sum(np.argsort(x)[:2] * np.array([1.0, 10.0]))

    yield f


@written()
def one_hot():
    def f(x):
        e = fnp.zeros(3)
        e[np.argmax(x)] = 1
        return np.sum(e * np.array([1.0, 2.0, 3.0]))

    yield f


@written()
def view_of_live_index():
    def f(A):
        B = A * 1.0
        B[np.argmax(A[:, 0])][0] = 9.0
        return B

    yield f


@written()
def row_of_live_index():
    def f(A):
        B = A * 1.0
        row = B[int(np.argmin(A[:, 1]))]
        row += 1
        return B

    yield f


@written()
def sort_values():
    def f(x):
        return np.sort(x)[::-1] * np.array([1.0, 2.0, 3.0])

    yield f


@written()
def top_two():
    def f(x):
        best = np.argsort(x)[-2:]
        return np.sum(x[best]) * 2 + best[0]

    yield f


@written()
def nonzero_count():
    def f(x):
        return np.sum(x) * len(np.where(x > 0.45)[0])

    yield f


@written()
def where_indices():
    def f(x):
        found = np.where(x > 0.45)[0]
        return np.sum(x[found]) + np.sum(found)

    yield f


@written()
def where_three():
    def f(x):
        safe = np.where(x > 0, x, 1.0)
        return np.sum(np.where(x > 0, np.log(safe), x))

    yield f


@written()
def ix_of_mask():
    def f(A):
        mask = A[0] > 1.0
        return np.sum(A[np.ix_(mask, mask)])

    yield f


@written()
def mask_select():
    def f(x):
        return np.sum(x[x > 0.45] ** 2)

    yield f


@written()
def mask_argument():
    def f(x, c):
        return np.sum(x[c]) * np.sum(c)

    yield f


@written()
def count_nonzero_scale():
    def f(x):
        return np.sum(x) / (1 + np.count_nonzero(x > 1))

    yield f


@written()
def searchsorted_table():
    edges = np.array([-1.0, 0.5, 1.5, 2.0])
    levels = np.array([0.0, 1.0, 4.0, 9.0, 16.0])

    def f(x):
        return np.sum(levels[np.searchsorted(edges, x)] * x)

    yield f
    yield
    edges[2] = 1.25
    yield
    levels[3] = -1.0
    yield


@written()
def bincount_weights():
    def f(x, i):
        return np.bincount(i, weights=x, minlength=3)

    yield f


@written()
def unique_values():
    def f(x):
        return np.sum(np.unique(np.round(x))) + np.sum(x)

    yield f


@written()
def slice_from_value():
    def f(x):
        return np.sum(x[:int(abs(x[0]))])

    yield f


@written()
def roll_by_argmax():
    def f(x):
        return np.roll(x, int(np.argmax(x)))

    yield f


@written()
def take_along():
    def f(A):
        order = np.argsort(A, axis=1)
        return np.take_along_axis(A, order, axis=1)

    yield f


@written()
def select_conditions():
    def f(x):
        return np.select([x > 2, x > 0], [x * 10, x], -x)

    yield f


@written()
def piecewise_parts():
    def f(x):
        return np.where(x < 1, x * 2, np.where(x < 2, x + 1, x * x - 1))

    yield f


@written()
def delete_argmin():
    def f(x):
        return np.delete(x, np.argmin(x))

    yield f


@written()
def median_value():
    def f(x):
        return np.median(x) * 2 + np.sum(x)

    yield f


@written()
def unravel_index():
    def f(A):
        row, column = np.unravel_index(np.argmax(A), A.shape)
        return A[row, column] * (row + 10 * column)

    yield f


@written()
def tril_indices_taken():
    def f(A):
        return np.sum(A[np.tril_indices(3)] * np.arange(6.0))

    yield f


@written()
def segment_sum():
    def f(x, i):
        out = fnp.zeros(3)
        for k in range(3):
            out[k] = np.sum(x[i == k])
        return out

    yield f


@written()
def nearest_neighbour():
    points = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [3.0, 1.0, 1.0], [-1.0, 0.0, 2.0]])

    def f(x):
        distances = np.sum((points - x) ** 2, axis=1)
        return points[np.argmin(distances)] - x

    yield f
    yield
    points[1] += 1.0
    yield


@written()
def run_lengths():
    def f(u):
        changes = np.flatnonzero(np.diff(np.sign(u - 0.5)))
        return np.sum(u) + len(changes) + np.sum(changes)

    yield f


@written()
def quantised():
    levels = np.array([0.0, 1.0, 4.0, 9.0])

    def f(x):
        return levels[np.clip(np.round(x), 0, 3).astype(int)] * x

    yield f
    yield
    levels[1] = 7.0
    yield
