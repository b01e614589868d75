"""What plain NumPy computes inside a function, of what the function reaches: a constant of the path
as long as that is the same, and never a number of before.

Each function is compiled and called while what it reaches is written to in place. It meets the
arrays twice: as operands of what is recorded, which a replay reads again, and in another
way, which is seen by nobody.
"""

import array
import collections
import copy
import functools
import itertools
import operator
import types
from copy import copy as copied

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

d, M = np.array([1.0, 2.0, 3.0]), np.arange(6.0).reshape(2, 3) + 1
order, chosen = np.array([0, 2, 1]), np.array([True, False, True])
table, rows, scale = {"a": np.array([1.0, 2.0, 3.0])}, [np.arange(3.0), np.ones(3)], [2.0]
held = types.SimpleNamespace(d=np.array([1.0, 2.0, 3.0]))
numbers, queue = array.array("d", [1.0, 2.0, 3.0]), collections.deque([1.0, 2.0, 3.0])


class Holder:
    def __init__(self):
        self.d = np.array([1.0, 2.0, 3.0])

    def copied(self):
        return self.d.copy()

    @property
    def negative(self):
        return -self.d

    def __iter__(self):
        return iter(self.d)

    def __getitem__(self, k):
        return self.d[k]

    def __array__(self, dtype=None, copy=None):
        return self.d.copy()


holder = Holder()


def through(v):
    return v.copy()


def bound_method(x):
    take = d.copy
    return x * take()


def in_a_loop(x):
    total = 0.0
    for e in (d, M[0]):
        total = total + x * e.copy()
    return total


def default(x, e=d):
    return x * e.copy()


def by_two_names(x):
    e = f = d
    return x * e + x * f.ravel().copy()


# What is computed of the state in ways that nobody sees.
WAYS = {
    "copy": lambda x: x * d.copy(), "copy.copy": lambda x: x * copy.copy(d),
    "alias": lambda x: x * copied(d), "deepcopy": lambda x: x * copy.deepcopy(d),
    "array": lambda x: x * np.array(d), "ndarray.copy": lambda x: x * np.ndarray.copy(d),
    "getattr": lambda x: x * getattr(d, "copy")(), "methodcaller": lambda x: x * (
        operator.methodcaller("copy")(d)), "__copy__": lambda x: x * d.__copy__(),
    "ravel": lambda x: x[0] * M.T.ravel(), "reshape": lambda x: x[0] * M.T.reshape(-1),
    "np.ravel": lambda x: x[0] * np.ravel(M.T), "flatten": lambda x: x[0] * M.T.flatten(),
    "swapaxes": lambda x: x[0] * M.swapaxes(0, 1).reshape(2, 3), "order": lambda x: x[0] * (
        M.ravel("F")), "attrgetter": lambda x: x[0] * operator.attrgetter("T")(M).ravel(),
    "fnp.ravel": lambda x: x[0] * fnp.ravel(M.T), "fnp.copy": lambda x: x * fnp.copy(d),
    "list": lambda x: x * list(d), "tuple": lambda x: x * tuple(d),
    "sorted": lambda x: x * sorted(d),
    "reversed": lambda x: x * list(reversed(d)), "iter": lambda x: x * list(iter(d)),
    "star": lambda x: x * np.array([*d]), "enumerate": lambda x: x * np.array([
        v for _, v in enumerate(d)]), "zip": lambda x: x * np.array([a * b for a, b in zip(d, d)]),
    "fromiter": lambda x: x * np.fromiter((v for v in d), float), "rows": lambda x: sum(
        x * r.copy() for r in M), "chain": lambda x: x * np.array(list(itertools.chain(d))),
    "negative": lambda x: x * -d, "plus": lambda x: x * (d + 0), "std": lambda x: x * (
        (d - d.mean()) / d.std()), "maximum": lambda x: x * np.maximum(d, 2.0),
    "matmul": lambda x: (M.T @ M) @ x, "item": lambda x: x * d[order], "slice": lambda x: (
        x * d[::-1].copy()), "broadcast": lambda x: x * np.broadcast_to(d, (3,)).copy(),
    "accumulate": lambda x: x * np.add.accumulate(d), "outer": lambda x: x * np.outer(d, d)[1],
    "view": lambda x: x * d.view(), "bits": lambda x: x * (d.view(np.int64) >> 50),
    "bytes": lambda x: x * np.frombuffer(d.tobytes()),
    "buffer": lambda x: x * np.frombuffer(d.data),
    "float32": lambda x: x * d.astype(np.float32), "imag": lambda x: x * d.imag,
    "index": lambda x: x[order.copy()], "take": lambda x: np.take(x, order.copy()),
    "mask": lambda x: np.where(~chosen, x, 0.0), "nonzero": lambda x: x[:2] * (
        np.flatnonzero(chosen)[:1] + 1), "one hot": lambda x: np.eye(3)[order] @ x,
    "full": lambda x: x * np.full(3, scale[0]), "array of floats": lambda x: x * np.array(
        [scale[0], 1.0, 2.0]), "eye": lambda x: (np.eye(3) * scale[0]) @ x,
    "table": lambda x: x * table["a"].copy(), "get": lambda x: x * table.get("a").copy(),
    "dict": lambda x: x * {**table}["a"].copy(), "values": lambda x: x * next(
        iter(table.values())).copy(),
    "items": lambda x: x * [v.copy() for _, v in table.items()][0],
    "sum of rows": lambda x: x * sum(rows), "reduce": lambda x: x * functools.reduce(np.add, rows),
    "list.copy": lambda x: x * rows.copy()[0].copy(), "partial": lambda x: x * (
        functools.partial(np.copy, d)()), "map": lambda x: x * next(map(np.copy, [d])),
    "attribute": lambda x: x * held.d.copy(), "vars": lambda x: x * vars(held)["d"].copy(),
    "method": lambda x: x * holder.copied(), "property": lambda x: x * holder.negative,
    "iterated": lambda x: x * np.array([*holder]), "getitem": lambda x: x * holder[:],
    "__array__": lambda x: x * np.asarray(holder), "through": lambda x: x * through(d),
    "lambda": lambda x: (lambda v: x * v.copy())(d), "chosen": lambda x: x * (
        d if scale[0] > 3 else -d).copy(), "walrus": lambda x: x * (e := d.copy()) + e,
    "array.array": lambda x: x * np.array(numbers),
    "frombuffer": lambda x: x * np.frombuffer(numbers),
    "deque": lambda x: x * np.array(queue), "tile": lambda x: sum(
        [x * row for row in np.tile(d, (2, 1))]),
    "grad": lambda x: fg.grad(lambda y: np.sum(y * y * d.copy()))(x),
    "vmap": lambda x: fg.vmap(lambda y: y * d.copy())(x[:, None] * np.ones(3)).sum(),
    "scan": lambda x: fg.scan(lambda c, u: (c + u * d.copy(), c), x, np.array([1.0, 2.0]))[0],
    "fori": lambda x: fg.fori_loop(0, 2, lambda i, c: c * d.copy(), x),
    "bound": bound_method, "loop": in_a_loop, "default": default, "two names": by_two_names,
}


def live(x):
    """A use of all that a replay reads again."""
    return (np.sum(x * d) + np.sum(M @ x) + np.sum(x * table["a"]) + np.sum(x * held.d)
            + np.sum(x * holder.d) + np.sum(x * rows[0]))


def changed(step):
    """In place, at other steps than those at which floats and orders change."""
    if step % 2:
        for x in (d, M, table["a"], held.d, holder.d, *rows):
            x += 0.5
    else:
        scale[0] += 1.0
        order[:], chosen[:] = np.roll(order, 1), np.roll(chosen, 1)
        numbers[0] += 1.0
        queue[0] += 1.0


@pytest.mark.parametrize("both", [False, True], ids=["alone", "beside a live use"])
@pytest.mark.parametrize("name", WAYS)
def test_constants_of_a_path(name, both, recwarn):
    f = WAYS[name]
    if both:
        def f(x, way=f):
            return way(x) * 1.0 + live(x)
    program, rng = fg.compile(f), np.random.default_rng(0)
    for step in range(8):
        for _ in range(2):              # the second is a replay
            x = rng.uniform(0.5, 1.5, size=3)
            np.testing.assert_allclose(program(x), f(x), rtol=1e-12)
        changed(step)
    assert sum([path.calls - 1 for path in program.paths]) > 0


def test_scratch_that_is_written_to_after_its_use():
    """A constant is what the array held when it was used."""
    def f(x):
        scratch = np.zeros(3)
        scratch[0] = 2.0
        y = x * scratch
        scratch[:] = 5.0
        index = np.array([0, 1])
        z = x[index]
        index[:] = 2
        return np.sum(y * x) + np.sum(x * scratch) + np.sum(z)

    program = fg.compile(fg.value_and_grad(f))
    for x in np.random.default_rng(1).normal(size=(4, 3)):
        value, slope = program(x)
        np.testing.assert_allclose(value, f(x))
        np.testing.assert_allclose(slope, fg.grad(f)(x))
    assert program.fast_calls
