"""Generators, comprehensions, itertools, recursion."""

import functools
import itertools

import numpy as np
from worlds import written

factor = 1.0


@written()
def generator_expression():
    def f(x):
        return sum(value * value for value in x)

    yield f


@written()
def generator_function_inside():
    def f(x):
        def halves():
            for value in x:
                yield value / 2

        return sum(halves())

    yield f


@written()
def generator_outside():
    def rates():
        k = 1.0
        while True:
            yield k
            k *= 2

    stream = rates()

    def f(x):
        return np.sum(x) * next(stream)

    yield f


@written()
def yield_from():
    def leaves(tree):
        for part in tree:
            if isinstance(part, list):
                yield from leaves(part)
            else:
                yield part

    tree = [1.0, [2.0, [3.0]]]

    def f(s):
        return sum(leaf * s for leaf in leaves(tree))

    yield f
    yield
    tree[1].append(4.0)
    yield
    tree[0] = -1.0
    yield


@written()
def comprehension_condition():
    def f(x):
        return sum([value for value in x if value > 0.45])

    yield f


@written()
def map_filter():
    def f(x):
        return sum(map(lambda value: value * 2, filter(lambda value: value > 1, x)))

    yield f


@written()
def reduce_sum():
    weights = [1.0, 2.0]

    def f(s):
        return functools.reduce(lambda total, w: total * s + w, weights, 1.0)

    yield f
    for w in (3.0, -1.0):
        yield
        weights.append(w)
    yield


@written()
def accumulate_values():
    def f(x):
        return np.sum(np.stack(list(itertools.accumulate(x, lambda a, b: 0.5 * a + b))))

    yield f


@written()
def pairwise_differences():
    def f(x):
        return sum((b - a) ** 2 for a, b in itertools.pairwise(x))

    yield f


@written()
def groupby_sign():
    def f(u):
        groups = [list(group) for _, group in itertools.groupby(u, lambda value: bool(value > 0.3))]
        return len(groups) * max(map(sum, groups))

    yield f


@written()
def combinations_energy():
    charges = [1.0, -1.0, 2.0]

    def f(x):
        total = 0.0
        for a, b in itertools.combinations(range(3), 2):
            total = total + charges[a] * charges[b] / (0.1 + abs(x[a] - x[b]))
        return total

    yield f
    for k in range(5):
        charges[k % 3] *= -1.5
        yield


@written()
def recursion_power():
    def power(x, n):
        return x if n == 0 else x * power(x, n - 1)

    def f(s, n):
        return power(s, n)

    yield f


@written()
def recursion_global_factor():
    global factor

    def r(x, n):
        return x if n == 0 else r(x, n - 1) * factor

    def f(s):
        return r(s, 2)

    yield f
    for factor in (1.0, 2.0, 3.0, 4.0, 0.5):
        yield


@written()
def recursion_on_value():
    def f(s):
        return s if abs(s) < 0.5 else f(s * 0.5) + 1

    yield f


@written()
def recursion_in_closure():
    depth = 2

    def f(x):
        def fold(y, k):
            return np.sum(y) if k == 0 else fold(np.sin(y) + x, k - 1)

        return fold(x, depth)

    yield f
    for depth in (2, 3, 1, 1, 0):
        yield


@written()
def recursion_method():
    class Tree:
        def __init__(self, value, *children):
            self.value, self.children = value, list(children)

        def total(self, s):
            return self.value * s + sum(child.total(s * 0.5) for child in self.children)

    leaf = Tree(2.0)
    tree = Tree(1.0, leaf, Tree(3.0))
    yield tree.total
    yield
    leaf.value = 5.0
    yield
    leaf.children.append(Tree(1.0))
    yield


@written()
def recursion_too_deep():
    def f(s):
        return f(s * 0.999) + 1

    yield f


@written()
def while_pop():
    def f(x):
        waiting, total = list(x), 0.0
        while waiting:
            total = total * 0.5 + waiting.pop()
        return total

    yield f


@written()
def power_series():
    def f(s):
        term, total, k = s, s, 1
        while abs(term) > 1e-10:
            term = -term * s * s / ((k + 1) * (k + 2))
            total, k = total + term, k + 2
        return total

    yield f


@written()
def horner():
    coefficients = (1.0, 0.5, -0.25)

    def f(x):
        value = x * 0.0
        for a in coefficients[::-1]:
            value = value * x + a
        return np.sum(value)

    yield f
    for coefficients in ((1.0, 0.5, -0.25), (2.0, 0.5, -0.25), (2.0, 1.0), (1.0, 0.5, -0.25)):
        yield


@written()
def collatz_steps():
    def f(s):
        n, steps = int(abs(s) * 10), 0
        while n > 1:
            n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
        return s * steps

    yield f
