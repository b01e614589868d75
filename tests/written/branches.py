"""Branches, early returns, loops that end by a value, errors, patterns."""

import math

import numpy as np
from worlds import written

rate = 2.0


@written()
def branch_on_entry():
    def f(x):
        if x[0] > 1:
            return np.sum(x ** 2)
        return np.sum(np.abs(x))

    yield f


@written()
def branch_on_sum():
    def f(x):
        if x.sum() > 1:
            y = x * 2
        else:
            y = -x
        return np.sum(y * x)

    yield f


@written()
def branch_on_norm():
    def f(x):
        length = np.linalg.norm(x)
        if length < 2.5:
            return x
        return x / length

    yield f


@written()
def branch_elif():
    def f(s):
        if s < -1:
            return -2 * s - 1
        elif s < 0:
            return s * s
        elif s < 0.8:
            return s
        elif s < 2:
            return np.sqrt(s)
        else:
            return np.log(s)

    yield f


@written()
def branch_and_or():
    def f(x):
        if x[0] > 1 and x[1] > 1 or x[2] > 2:
            return np.sum(x)
        return np.prod(x)

    yield f


@written()
def branch_chained():
    def f(x):
        return np.sum(x) if 0 < x[2] < 1 < x[1] else np.max(x)

    yield f


@written()
def branch_on_two():
    def f(x, y):
        if np.dot(x, y) > np.dot(y, y):
            return np.sum(x)
        return np.sum(y * x)

    yield f


@written()
def branch_isinstance():
    def f(s):
        if isinstance(s, float):
            return s * 2
        return s * 3

    yield f


@written()
def branch_type_of_global():
    global rate

    def f(x):
        if isinstance(rate, float):
            return np.sum(x) * rate
        return np.sum(x) - rate

    yield f
    for rate in (1.0, 2.5, 3, 4.0, 5):
        yield


@written()
def branch_string_argument():
    def f(x, word):
        if word == "sum":
            return np.sum(x)
        if word == "mean":
            return np.mean(x * x)
        return np.max(x)

    yield f


@written()
def branch_int_argument():
    def power(s, n):
        y = 1.0
        for _ in range(n):
            y = y * s
        return y

    yield power


@written()
def early_return_in_loop():
    def f(x):
        total = 0.0
        for value in x:
            if value < 0:
                return total
            total = total + value
        return total * 2

    yield f


@written()
def loop_until_small():
    def f(r):
        x = r
        while abs(x * x - r) > 1e-6:
            x = 0.5 * (x + r / x)
        return x

    yield f


@written()
def loop_bound_from_value():
    def f(x):
        total = x[1]
        for k in range(int(abs(x[0]))):
            total = total * (k + 2)
        return total

    yield f


@written()
def loop_break():
    def f(x):
        value = x[0]
        for k in range(6):
            value = value * 1.5 + 0.1
            if value > 5:
                break
        return value - k

    yield f


@written()
def loop_else():
    def f(x):
        for value in x:
            if value > 2.4:
                found = value * 10
                break
        else:
            found = np.sum(x)
        return found

    yield f


@written()
def loop_by_count_of_mask():
    def f(x):
        y = np.sum(x)
        for _ in range(np.sum(x > 0.45)):
            y = y * 0.5 + 1
        return y

    yield f


@written()
def newton_by_hand():
    def f(r):
        x, steps = 1.0, 0
        while True:
            change = (x ** 3 - r) / (3 * x ** 2)
            x, steps = x - change, steps + 1
            if abs(change) < 1e-8 or steps > 20:
                return x * (1 + steps)

    yield f


@written()
def bisection_by_hand():
    def f(r):
        low, high = 0.0, 4.0
        for _ in range(12):
            middle = 0.5 * (low + high)
            if middle * middle < r:
                low = middle
            else:
                high = middle
        return low * r

    yield f


@written()
def line_search():
    def f(x):
        def value(y):
            return np.sum((y - 1) ** 4)

        step, start = 1.0, value(x)
        while value(x - step * 4 * (x - 1) ** 3) > start and step > 1e-3:
            step *= 0.5
        return value(x) * step

    yield f


@written()
def try_math_log():
    def f(s):
        try:
            return math.log(s)
        except (TypeError, ValueError):
            return -1.0

    yield f


@written()
def try_float():
    def f(s):
        try:
            return float(s) + 1.0
        except TypeError:
            return s

    yield f


@written()
def try_index():
    def f(x, n):
        try:
            return x[n] * 2
        except IndexError:
            return np.sum(x)

    yield f


@written()
def try_key():
    table = {0.7: 1.0, 2.4: 5.0}

    def f(s):
        try:
            return table[s] * s
        except KeyError:
            return -s

    yield f
    for key in (0.9, -0.5, -1.7, 0.8):
        table[key] = 9.0
        yield


@written()
def try_finally():
    counts = [0, 0]

    def f(x):
        counts[0] += 1
        try:
            if x[0] < 0:
                raise ValueError("negative")
            return np.sum(x)
        finally:
            counts[1] += 1

    yield f, counts


@written()
def raise_when_negative():
    def f(x):
        if np.any(x < -1.6):
            raise ValueError("too small")
        return np.sum(np.sqrt(x + 2))

    yield f


@written()
def raise_third_call():
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("third")
        return np.sum(x * x)

    yield f, lambda: calls


@written()
def raise_in_loop():
    kept = []

    def f(x):
        for value in x:
            kept.append(1.0)
            if value < 0:
                raise ArithmeticError("negative")
        return np.sum(x)

    yield f, kept


@written()
def raise_and_recover():
    def careful(x):
        if x[0] < 1:
            raise ValueError
        return np.sum(np.log(x[0]))

    def f(x):
        try:
            return careful(x)
        except ValueError:
            return np.sum(x)

    yield f


@written()
def match_value():
    mode = "l1"

    def f(x):
        match mode:
            case "l1":
                return np.sum(np.abs(x))
            case "l2" | "euclid":
                return np.sqrt(np.sum(x * x))
            case _:
                return np.max(x)

    yield f
    for mode in ("l1", "l2", "max", "euclid", "l1"):
        yield


@written()
def match_class():
    class Loss:
        __match_args__ = ("kind", "scale")

        def __init__(self, kind, scale):
            self.kind, self.scale = kind, scale

    loss = Loss("square", 1.0)

    def f(x):
        match loss:
            case Loss("square", scale):
                return scale * np.sum(x * x)
            case Loss(kind=other):
                return np.sum(x) * len(other)

    yield f
    yield
    loss.scale = 3.0
    yield
    loss.kind = "abs"
    yield
    loss.kind = "absolute"
    yield


@written()
def match_guard():
    def f(s):
        match s:
            case _ if s < 0:
                return -s
            case _ if s < 1:
                return s * s
        return 2 * s - 1

    yield f


@written()
def walrus_condition():
    def f(x):
        if (largest := x.max()) > 2.4:
            return largest * 2
        return np.sum(x) - largest

    yield f


@written()
def walrus_in_comprehension():
    def f(x):
        return sum([square for value in x if (square := value * value) > 1])

    yield f
