"""Arrays written in place: buffers outside, work arrays inside, arguments."""

import collections

import numpy as np
from worlds import written

import fastgrad.numpy as fnp


@written()
def buffer_outside():
    buffer = np.zeros(3)

    def f(x):
        buffer[:] = x
        return np.sum(buffer * 2)

    yield f, buffer


@written()
def buffer_added():
    total = np.zeros(3)

    def f(x):
        nonlocal total
        total += x
        return np.sum(total)

    yield f, lambda: total


@written()
def buffer_row():
    rows = np.zeros((6, 3))
    count = 0

    def f(x):
        nonlocal count
        rows[count] = x
        count += 1
        return np.sum(rows[:count].mean(axis=0))

    yield f, rows


@written()
def buffer_out():
    work = np.zeros(3)

    def f(x):
        np.multiply(x, 2.0, out=work)
        return np.sum(work)

    yield f, work


@written()
def buffer_returned():
    buffer = np.zeros(3)

    def f(x):
        buffer[...] = np.sin(x)
        return buffer

    yield f, buffer


@written()
def buffer_swap():
    old, new = np.zeros(3), np.zeros(3)

    def step(x):
        nonlocal old, new
        new[:] = 0.5 * old + x
        old, new = new, old
        return np.sum(old)

    yield step, lambda: (old, new)


@written()
def buffer_ring():
    ring, place = np.zeros(4), 0

    def f(s):
        nonlocal place
        ring[place % 4] = s
        place += 1
        return ring.mean()

    yield f, lambda: (ring, place)


@written()
def buffer_add_at():
    counts = np.zeros(3)

    def f(x):
        np.add.at(counts, int(np.argmax(x)), 1.0)
        return np.sum(counts * x)

    yield f, counts


@written()
def buffer_by_float():
    buffer = np.zeros(2)

    def f(x):
        buffer[0] = float(x[0])
        buffer[1] += 1
        return np.sum(x) + buffer[0] * buffer[1]

    yield f, buffer


@written()
def scratch_restored():
    d = np.array([1.0, 2.0, 3.0])

    def f(x):
        d[0] += 1
        y = np.sum(x * d)
        d[0] -= 1
        return y

    yield f, d
    yield
    d[0] = 5.0
    yield
    d[1] = -1.0
    yield


@written()
def scratch_zeros_filled():
    def f(x):
        out = np.zeros(3)
        for k in range(3):
            out[k] = x[k] ** 2 + k
        return np.sum(out)

    yield f


@written()
def scratch_matrix_filled():
    def f(x):
        J = np.zeros((3, 3))
        for a in range(3):
            for b in range(a, 3):
                J[a, b] = x[a] * x[b]
        return J

    yield f


@written()
def scratch_fnp_filled():
    def f(x):
        out = fnp.zeros(4)
        for k in range(3):
            out[k + 1] = out[k] + np.cos(x[k])
        return out[-1] * out[1]

    yield f


@written()
def argument_written():
    def f(x, y):
        x[0] = y[1]
        return np.sum(x * y)

    yield f


@written()
def argument_normalised():
    def f(u):
        u /= np.sum(np.abs(u))
        return np.sum(u * u)

    yield f


@written()
def argument_returned():
    def f(x):
        x[np.argmin(x)] = 0.0
        return x

    yield f


SHARED = np.zeros(3)


def _shared(k):
    SHARED[:] = [k + 1.0, k - 2.0, 0.5 * k]
    return SHARED


@written(x=_shared)
def argument_and_buffer():
    def f(x):
        x[0] = 7.0
        return np.sum(SHARED * x)

    yield f


@written(found=lambda k: [float(k)])
def list_argument_appended():
    def f(x, found):
        found.append(np.sum(x))
        return found[-1] * 2

    yield f


@written(state=lambda k: {"n": k, "best": 1.0})
def dict_argument_updated():
    def f(x, state):
        value = np.sum(x ** 2)
        if value > state["best"]:
            state["best"] = value
        return value + state["best"]

    yield f


@written()
def view_of_argument():
    kept = []

    def f(x):
        kept.append(x[1:])
        x[1] = 5.0
        return np.sum(x)

    yield f, kept


@written()
def diagonal_written():
    def f(A):
        B = A * 1.0
        B.ravel()[::4] = 0.0
        return np.sum(B @ B)

    yield f


@written()
def masked_written():
    def f(x):
        y = x * 1.0
        y[y > 1.0] = 0.0
        return np.sum(y * x)

    yield f


@written()
def chained_assignment():
    def f(x):
        y = x + 0.0
        y[1:][0] = 9.0
        y[:2][...] *= 2
        return np.sum(y * x)

    yield f


@written()
def accumulate_in_loop():
    def f(x):
        acc = np.zeros_like(x)
        for k in range(3):
            acc += x ** k
        return np.sum(acc)

    yield f


@written()
def accumulate_array_zero():
    rows = [np.array([1.0, 0.0, 2.0]), np.array([0.0, 1.0, 1.0])]

    def gradient(x):
        total = np.zeros(3)
        for row in rows:
            total += row * (row @ x)
        return total

    yield gradient
    yield
    rows.append(np.ones(3))
    yield
    rows[0][0] = -1.0
    yield


@written()
def stencil():
    def heat(u):
        new = u.copy()
        new[1:-1] = u[1:-1] + 0.1 * (u[2:] - 2 * u[1:-1] + u[:-2])
        new[0] = new[-1] = 0.0
        return new

    yield heat


@written(cells=lambda k: (np.arange(25).reshape(5, 5) * (k + 3) % 7 < 3).astype(int))
def game_of_life():
    def step(cells):
        around = sum(np.roll(np.roll(cells, a, 0), b, 1)
                     for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b)
        new = np.zeros_like(cells)
        new[(around == 3) | ((around == 2) & (cells == 1))] = 1
        return new

    yield step


@written()
def column_assigned():
    def f(x):
        M = np.empty((3, 2))
        for k in range(2):
            M[:, k] = x * (k + 1)
        return M.T @ x

    yield f


@written()
def window_of_rows():
    window = collections.deque([np.zeros(3)] * 2, maxlen=2)

    def f(x):
        window.append(np.copy(x))
        return np.sum(np.mean(window, axis=0))

    yield f, window
