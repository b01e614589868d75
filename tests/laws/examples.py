"""The one list of operators, and how their operands are drawn.

Three kinds of operators, and what a new one of each needs in the tests:

A row of src/ops.def is element-wise: it is in `ROWS` (or `COMPARISONS`) as soon as it is in the
    table. `operands` draws from the domain that the row states. Nothing is to be written here.
A record of fastgrad/_operators draws for itself: each pair that its `draw` yields is a case of
    `CASES`. Nothing is to be written here.
A shaped operator of the core's table needs examples in `SHAPED`, functions of one array in which it
    occurs, or in their gradients. test_examples.py fails as long as there is none.

Laws are parametrized by `ROWS`, `SHAPED` or `CASES`, and name no operator: test_rows.py,
test_kernels.py and test_formulas.py hold those of rows alone, test_derivatives.py those of every
order and nesting, test_operators.py those of records and shaped operators, test_shaped.py all
options of the latter; outside of this folder test_replay.py, test_vmap.py, test_taylor.py,
test_plan.py, test_persist.py, test_sparse.py, test_symbolic.py and test_explain.py those of one
engine. Names of functions and methods are another list, with laws of its own:
calls.py, test_namespace.py, test_replays.py.
"""

import itertools
import math
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import _operators
from fastgrad._core import core

TABLE = core.operators()
# The value is one operand, the other stands beside: test_roots.py.
BESIDE = {"as_written", "root_of"}
ROWS = [row for row in TABLE
        if row.kind in ("unary", "binary", "ternary") and row.name not in BESIDE]
COMPARISONS = [row for row in TABLE if row.kind == "compare"]
OPERATORS = _operators.OPERATORS
DTYPES = ("float32", "float64")


def generator(*key):
    """A random generator that depends on nothing but the key."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


# ---- rows -----------------------------------------------------------------------------------

SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324, 1e-310, 1e-45, -1e-40, 1e-20,
           -1e-20, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -2.0, 3.0, -3.0, 20.0, -20.0, 88.0, -104.0,
           710.0, -745.0, 1e10, -1e10, 3.4e38, 1e200, -1e200, 1.7e308, -1.7e308)


def name_of(row):
    return row.name


def wanted(row):
    """The places of the operands that have a derivative."""
    return [k for k in range(row.arity) if not (row.mask and k == 2)]


def operands(row, dtype, shapes, key=""):
    """Random operands in the row's domain, one for each shape (or all of one shape)."""
    rng = generator(row.name, dtype, key)
    if not shapes or not isinstance(shapes[0], tuple):
        shapes = [shapes] * row.arity
    low, high = (row.low, row.high) if row.high > row.low else (-2, 2)
    made = [np.asarray(rng.uniform(low, high, shape)).astype(dtype) for shape in shapes]
    for k in set(range(row.arity)) - set(wanted(row)):
        made[k] = made[k] > (low + high) / 2
    return made


def special_operands(row, dtype):
    """Every combination of special values, as vectors."""
    with np.errstate(all="ignore"):
        values = np.array(SPECIAL).astype(dtype)
    if row.arity == 3:
        values = values[:24]
    return [np.ascontiguousarray(x) for x in
            np.array(list(itertools.product(values, repeat=row.arity)), dtype=dtype).T]


# ---- shaped operators -----------------------------------------------------------------------

class Example(NamedTuple):
    """A function of one array of any floating dtype, and an array at which it is smooth."""
    function: Any
    array: Any


# No two entries are equal or near to each other: differences see no kink.
A = np.linspace(0.5, 2.0, 12)[[3, 7, 1, 10, 5, 0, 8, 2, 11, 4, 9, 6]].reshape(3, 4)
B = np.linspace(0.6, 1.9, 12)[[5, 2, 9, 0, 7, 11, 3, 8, 1, 10, 6, 4]].reshape(4, 3)
V = np.array([0.7, 1.3, 0.9, 1.6])
SIGNED = np.array([[0.3, -1.2, 0.7], [1.9, 0.4, -0.6]])
CUBE = np.linspace(-1.3, 2.1, 24).reshape(2, 3, 4)
SLICE = CUBE[:, :, :2]
TWO = np.stack([SIGNED.T, 2 * SIGNED.T])
NARROW, FLAT = B[:, :2].copy(), B[:, :2].T.copy()
RAMP, ROW, COLUMN, WHOLE = np.arange(6.0), np.ones((1, 4)), np.ones((2, 1)), np.ones((3, 4))
THIRDS = np.arange(12).reshape(3, 4) % 3 == 0
PAIRS = np.array([[0, 0], [1, 3], [2, 2]])
PLACES, BACK, ONE = np.array([1, 1, 0, 4]), np.array([2, 0]), np.array(1)
CHOSEN = np.array([[True, False, True], [False, True, True]])
DOUBLE = {"B": B, "V": V}
SINGLE = {name: x.astype(np.float32) for name, x in DOUBLE.items()}


def of_dtype(name, x):
    """B or V in the precision of x. (What a function makes anew at each call is not replayed.)"""
    return SINGLE[name] if x.dtype == np.float32 else DOUBLE[name]


def filled(x):
    """Assignments of every kind to one array."""
    out = fnp.zeros((3, 4), dtype=x.dtype)
    out[0] = x[1]
    out[1, 2] = x[0, 0] * x[0, 1]
    out[:, 3] = x[:, 0]
    out[[0, 2], [1, 1]] = x[2, :2]
    out[2, ::-2] += x[0, 1::2] * out[0, :2]
    return out


def view_written_to(x):
    y = x * 1.0
    y[0][1] = x[2, 2] * y[0, 1]
    y.T[2, 1:] *= x[1, :2]
    return y * y


def element_by_element(x):
    out = fnp.zeros(4, dtype=x.dtype)
    y = x[0, 0]
    for i in range(4):
        y = fnp.sin(y) * x[i % 3, i] + out[i - 1]
        out[i] = y
    return out


def replaced(x):
    """Zeros that are filled, and numbers put over what was computed."""
    y = fnp.zeros((3, 4))
    y[0] = x[1] * x[2]
    y[1, 2] = x[0, 0] ** 2
    y[2, ::2] = 3.0
    z = x * x
    z[[0, 2], [1, 1]] = np.exp(x[1, :2])
    z[1] = ROW[0]
    return y * z


def assigned(*places):
    def f(x):
        y = x * 1.0
        for k, place in enumerate(places):
            y[place] = x[place] * (k + 2.0)
        return y
    return f


def slope(f):
    """The gradient of what f makes of cubes: there the adjoint of an operator is an operator."""
    return lambda x: fg.grad(lambda x: fnp.sum(f(x) ** 3))(x)


# Named after the operator or the function that is meant. What is at A is positive.
SHAPED = {name: Example(f, A) for name, f in {
    "reshape": lambda x: fnp.reshape(x, (2, 6)),
    "reshape of a square": lambda x: (x ** 2).reshape(2, 6) * RAMP,
    "transpose": lambda x: fnp.transpose(x),
    "transpose of an exponential": lambda x: np.exp(x).T,
    "broadcast": lambda x: fnp.broadcast_to(x[:, :1], (2, 3, 4)),
    "broadcast of a square": lambda x: np.broadcast_to(x ** 2, (2, 3, 4)) * x,
    "flip": lambda x: fnp.flip(x, 1),
    "flip along both axes": lambda x: x[::-1] * np.flip(x, 1),
    "item": lambda x: x[1],
    "item of a scalar": lambda x: x[1, 2] * x[0, 3] * x[1, 2],
    "item with steps": lambda x: x[::-2, 1:None:2, None],
    "item of a sine": lambda x: np.sin(x)[1, 2] * x[0],
    "gather": lambda x: x[[0, 2, 0]],
    "gather pairs": lambda x: x[[0, 2, 0, 2], [1, 1, 1, 3]],
    "gather mask": lambda x: x[THIRDS],
    "gather by values": lambda x: (x ** 2)[x > 1],
    "gather along both axes": lambda x: (x ** 2)[[0, 0, 2]] * np.take(x, [1, 2, 1, 0], axis=1),
    "take_along_axis": lambda x: fnp.take_along_axis(x, PAIRS, 1),
    "scatter": lambda x: core.scatter(x[0], PLACES, (5,)),
    "assign": filled,
    "assign numbers": replaced,
    "element by element": element_by_element,
    "view written to": view_written_to,
    "cast": lambda x: fnp.sum(x.astype(np.float32) * x),
    "concatenate": lambda x: fnp.concatenate([x, x[:1] * 2, ROW], 0),
    "concatenate with a constant between": lambda x: np.concatenate([x ** 2, ROW, np.exp(x)]),
    "stack": lambda x: fnp.stack([x, x * x, WHOLE], 1),
    "stack with a constant": lambda x: np.stack([x ** 2, WHOLE]),
    "array of scalars": lambda x: fnp.array([x[0, 0], 1.0, x[1, 1] * x[0, 0]]),
    "array of a square": lambda x: fnp.array([x[0, 0] ** 2, 1.0, x[1, 1]]),
    "pad": lambda x: np.pad(x ** 2, 1),
    "sum": lambda x: fnp.sum(x),
    "sum of an axis": lambda x: fnp.sum(x * x, axis=1),
    "sum kept": lambda x: x / fnp.sum(x, axis=0, keepdims=True),
    "sum times a sum": lambda x: np.sum(x ** 2, axis=0) * np.sum(np.exp(x)),
    "mean": lambda x: fnp.mean(x * x, axis=(0, 1)),
    "mean kept": lambda x: np.mean(x ** 2, axis=(0, 1), keepdims=True),
    "prod": lambda x: fnp.prod(x, axis=1),
    "prod of all": lambda x: fnp.prod(x),
    "prod with a zero": lambda x: fnp.prod(x - A[0, 0], axis=0),
    "prod twice": lambda x: np.prod(x, axis=0) + np.prod(x),
    "prod of three": lambda x: np.prod(x[:, :3], axis=1),
    "max": lambda x: fnp.max(x, axis=0),
    "min": lambda x: fnp.min(x * x),
    "max with ties": lambda x: fnp.max(x * 0 + x[0], axis=0),
    "max times a min": lambda x: np.max(x ** 2, axis=1) * np.min(np.exp(x)),
    "logsumexp": lambda x: fnp.logsumexp(x, axis=1),
    "logsumexp of all": lambda x: fg.special.logsumexp(x * x),
    "logsumexp twice": lambda x: fg.special.logsumexp(x ** 2, axis=1) * fg.special.logsumexp(x),
    "softmax": lambda x: fg.special.softmax(x, axis=-1),
    "softmax along the first axis": lambda x: fg.special.softmax(x, axis=0),
    "var": lambda x: fnp.var(x, axis=0),
    "std": lambda x: fnp.std(x, axis=1),
    "norm": lambda x: fnp.linalg.norm(x),
    "norm of a square": lambda x: np.linalg.norm(x ** 2),
    "matmul": lambda x: x @ of_dtype("B", x),
    "matmul of itself": lambda x: x @ x.T,
    "matmul with a vector": lambda x: x @ of_dtype("V", x),
    "vector with matmul": lambda x: x[:, 0] @ x,
    "dot": lambda x: x[0] @ x[1],
    "matmul four times": lambda x: (x ** 2) @ NARROW @ FLAT @ x.T,
    "matmul of vectors": lambda x: x[0] @ np.exp(x[1]) * (x[2] @ NARROW),
    "matmul in batches": lambda x: fnp.reshape(x, (3, 2, 2)) @ fnp.reshape(x, (3, 2, 2)),
    "matmul of a vector in batches": lambda x: fnp.reshape(x, (3, 2, 2)) @ x[0, :2],
    "matmul broadcast": lambda x: fnp.reshape(x, (3, 1, 2, 2)) @ fnp.reshape(x[:2], (2, 2, 2)),
    "einsum": lambda x: fnp.einsum("ij,kj->ik", x, x * x),
    "einsum of itself": lambda x: np.einsum("ij,kj->ik", x, x),
    "outer": lambda x: fnp.outer(x[0], x[1]),
    "where": lambda x: fnp.where(x > 1, x * x, fnp.exp(x)),
    "pieces": lambda x: fnp.sum(x[0] * x[1]) * fnp.prod(x[2]) + fnp.max(x @ of_dtype("B", x)),
}.items()} | {name: Example(f, SIGNED) for name, f in {
    "reshape to a vector": fnp.ravel,
    "transpose of three axes": lambda x: fnp.transpose(fnp.reshape(x, (1, 2, 3)), (2, 0, 1)),
    "broadcast of a matrix": lambda x: fnp.broadcast_to(x, (2, 2, 3)),
    "broadcast of an entry": lambda x: fnp.broadcast_to(x[0, 0], 3),
    "broadcast of a column": lambda x: fnp.broadcast_to(x[:, :1], (2, 4)),
    "broadcast and reshape": lambda x: np.sum(np.broadcast_to(x.reshape(1, 6), (2, 6)) ** 2),
    "a column times a row": lambda x: np.sum(x[:, :1] * x[:1]),
    "flip of all": fnp.flip,
    "flip and transpose": lambda x: np.sum(np.flip(x, 1).T @ SIGNED),
    "item of an entry": lambda x: x[0, 1],
    "item with a step back": lambda x: x[:, ::-2],
    "item with a new axis": lambda x: x[None, ..., 1:],
    "item of nothing": lambda x: x[0:0],
    "item times an item": lambda x: x[0, 1] * x[1, -1] + np.sum(x[:, ::2] ** 2),
    "place": slope(lambda x: x[:, 1:]),
    "place with a new axis": slope(lambda x: x[None, 1]),
    "gather a row twice": lambda x: x[[0, 0, 1]],
    "gather columns": lambda x: x[:, BACK],
    "gather signed": lambda x: x[CHOSEN],
    "gather around a new axis": lambda x: x[[0, 1, 1], None, [2, 2, 0]],
    "gather by a number": lambda x: x[ONE, [0, -1]],
    "gather and sum": lambda x: np.sum(x[[0, 1, 0]] ** 3) + np.sum(x[x > 0] ** 2),
    "scatter of rows": slope(lambda x: x[[0, 0, 1]]),
    "scatter of entries": lambda x: fg.grad(lambda x: x[0, 1] ** 3 * x[1, 2])(x),
    "assign an entry": assigned((0, 1)),
    "assign a row and a column": assigned(1, (slice(None), 2)),
    "assign pairs": assigned(([0, 1], [1, 1])),
    "assign columns": assigned((..., [0, 2])),
    "cast doubled": lambda x: x.astype(np.float32) * np.float32(2),
    "concatenate doubled": lambda x: fnp.concatenate([x, 2 * x]),
    "concatenate a column": lambda x: fnp.hstack([x, COLUMN]),
    "concatenate and prod": lambda x: np.prod(np.concatenate([x, 2 * x], axis=1)[0]),
    "stack squares": lambda x: fnp.stack([x, x * x], 1),
    "stack and sum": lambda x: np.sum(np.stack([x, x * x])[:, 0, 1]),
    "array of entries": lambda x: fnp.array([x[0, 0], 2.0, x[1, 1]]),
    "pad and diag": lambda x: np.sum(np.pad(x, 1) ** 2) + np.sum(fnp.diag(x[0]) ** 3),
    "sort": lambda x: np.sort(x, axis=1)[0, 1] ** 2,
    "sum signed": fnp.sum,
    "sum of the first axis": lambda x: fnp.sum(x, 0),
    "sum of both axes kept": lambda x: fnp.sum(x, (0, 1), keepdims=True),
    "sum of the last axis kept": lambda x: fnp.sum(x, 1, keepdims=True),
    "sum of squares of a sum": lambda x: np.sum(np.sum(x, axis=0) ** 2),
    "mean times var": lambda x: np.mean(x) * np.var(x, axis=1)[0],
    "prod signed": fnp.prod,
    "prod of the last axis": lambda x: fnp.prod(x, 1),
    "prod kept": lambda x: fnp.prod(x, 0, keepdims=True),
    "prod of one row and of all": lambda x: np.prod(x, axis=1)[1] + np.prod(x),
    "max signed": fnp.max,
    "max of the last axis": lambda x: fnp.max(x, 1),
    "max kept": lambda x: fnp.max(x, 0, keepdims=True),
    "max of a row and min": lambda x: np.max(x[0]) * np.min(x[:, :2], axis=1)[0],
    "min signed": fnp.min,
    "min of the last axis": lambda x: fnp.min(x, 1),
    "min kept": lambda x: fnp.min(x, 0, keepdims=True),
    "logsumexp signed": fnp.logsumexp,
    "logsumexp of the last axis": lambda x: fnp.logsumexp(x, 1),
    "logsumexp kept": lambda x: fnp.logsumexp(x, 0, keepdims=True),
    "logsumexp squared": lambda x: np.sum(fg.special.logsumexp(x, axis=1) ** 2),
    "norm signed": lambda x: np.linalg.norm(x),
    "matmul summed": lambda x: np.sum(x @ x.T),
    "matmul of two rows": lambda x: x[0] @ x[1],
    "matmul with a row": lambda x: x @ x[0],
    "matmul of a column": lambda x: x[:, 0] @ x,
    "matmul of a cube": lambda x: CUBE @ fnp.reshape(x, (6,))[:4],
    "matmul with a cube": lambda x: x[None] @ SLICE,
    "matmul by a vector": lambda x: (SIGNED @ x[0]) @ (x[:, 1] @ x)[:2],
    "matmul by batches": lambda x: np.sum((x[None] @ TWO) ** 2),
}.items()}

# What is rounded to float32 on the way: float64 is no better, and differences do not see through.
ROUNDED = {"cast", "cast doubled"}
# Masks of values choose as many entries as they like: lanes of them have no one shape.
WITHOUT_LANES = {"gather by values", "gather and sum"}
# Shaped operators that no example can have, and where they are tested.
WITHOUT_EXAMPLES = {
    "leaf": "an operand: every example has one",
    "custom": "a rule of the user's: test_custom.py; the rule of a record: CASES",
    "result": "of a rule, or of a loop: test_custom.py, test_loops.py",
    "call": "a function without derivative: calls.py",
    "dual": "what forward mode keeps; it is in no graph",
}

shaped = pytest.mark.parametrize("name", SHAPED)


# ---- records, and shaped operators in the same form -----------------------------------------

# (name, number of the draw): of each record, all that it draws.
RECORDS = [pytest.param(name, k, id=f"{name.removeprefix('fastgrad.')}-{k}")
           for name, row in OPERATORS.items()
           for k in range(len(list(row.draw(np.random.default_rng(0)))))]
# (Not those that are a part of another, whose laws go through them.)
DRAWN = list(dict.fromkeys([case.values[0] for case in RECORDS]))
# And of each example, which has one; the laws of these ask for double precision.
CASES = RECORDS + [pytest.param(name, 0, id=name, marks=pytest.mark.sampled(5))
                   for name in SHAPED if name not in ROUNDED]


def public(name):
    """The function of a record that people call."""
    found = fnp
    for part in name.removeprefix("fastgrad.").split("."):
        found = getattr(found, part)
    return found


def drawn(name, k, seed=0):
    """Operands, and the operator as a function of them, that returns one array.

    With another seed, other operands of the same shapes, of which an example takes the same path.
    """
    if name in SHAPED:
        f, x = SHAPED[name]
        return (x * (1 + 0.005 * seed * np.cos(np.arange(x.size)).reshape(x.shape)),), f
    call, symmetric = public(name), OPERATORS[name].symmetric
    operands, options = list(OPERATORS[name].draw(np.random.default_rng(seed)))[k]
    return operands, lambda *operands: joined(call(*[
        (x + np.swapaxes(x, -1, -2)) / 2 if i in symmetric else x for i, x in enumerate(operands)],
        **options))


def joined(found):
    """One array of all results."""
    return fnp.concatenate([fnp.ravel(y) for y in found]) if isinstance(found, tuple) else found
