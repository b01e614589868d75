"""Sparse Jacobians and Hessians: patterns, colourings, and values against dense ones."""

import builtins
import itertools
import warnings

import numpy as np
import pytest
from laws.examples import ROUNDED, SHAPED, shaped

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import special
from fastgrad._core import core
from fastgrad._operators.shaped import SHAPED as RECORDS
from fastgrad._run import Run
from fastgrad.transforms import sparse as _sparse

sparse = pytest.importorskip("scipy.sparse")


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning that no test asks for is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*does not depend")      # patterns without any entry
        yield


def numbers(*shape, dtype=np.float64):
    return np.random.default_rng(3).uniform(0.3, 1.2, shape).astype(dtype)


def check_jacobian(f, x, entries=None, colours=None, **kwargs):
    """Compare with the dense Jacobian; `entries` and `colours`: how many there must be."""
    derivative = fg.jacobian(f, sparse=True)
    matrix = derivative(x, **kwargs)
    dense = np.asarray(fg.jacobian(f)(x, **kwargs))
    size = np.size(x)
    dense = dense.reshape(dense.size // size if size else np.size(f(x, **kwargs)), size)
    assert isinstance(matrix, sparse.csr_array)
    assert matrix.shape == dense.shape
    assert matrix.dtype == dense.dtype
    matrix.check_format()
    tolerance = 1e-5 if dense.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(matrix.toarray(), dense, rtol=tolerance, atol=tolerance)
    copy = sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
    assert copy.has_canonical_format
    if entries is not None:
        assert matrix.nnz == entries
    if colours is not None:
        plan, = derivative.plans.values()
        assert sum(plan.colours) <= colours
    return matrix


def check_hessian(f, x, entries=None, colours=None, **kwargs):
    derivative = fg.hessian(f, sparse=True)
    matrix = derivative(x, **kwargs)
    dense = np.asarray(fg.hessian(f)(x, **kwargs)).reshape(np.size(x), np.size(x))
    matrix.check_format()
    np.testing.assert_allclose(matrix.toarray(), dense, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(matrix.toarray(), matrix.toarray().T)
    if entries is not None:
        assert matrix.nnz == entries
    if colours is not None:
        plan, = derivative.plans.values()
        assert sum(plan.colours) <= colours
    return matrix


def stencil(x):
    return x[2:] * x[1:-1] - 2 * np.sin(x[1:-1]) + x[:-2] ** 2


def laplace(u):
    return (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]
            - np.exp(u[1:-1, 1:-1]))


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def by_entries(x):
    out = fnp.zeros(len(x))
    out[0] = x[0] ** 2
    for i in range(1, len(x)):
        out[i] = x[i] * x[i - 1] + fnp.sin(x[i])
    return out


def recurrence(x):
    out = fnp.zeros(len(x))
    out[0] = x[0]
    for i in range(1, len(x)):
        out[i] = out[i - 1] * x[i]
    return out


def two_versions(x):
    out = fnp.zeros(3)
    out[0] = x[0]
    before = out * 1.0
    out[1] = x[1]
    out[0] = x[2] * out[0]
    return fnp.concatenate([before, out])


# ---- Jacobians with a pattern that is known -------------------------------------------------

MATRIX = np.random.default_rng(5).normal(size=(4, 6))
SECOND = np.eye(8, k=1) + np.eye(8, k=-1) - 2 * np.eye(8)       # differences
PLACES = np.array([3, 0, 3, 5])

STRUCTURED = {
    # name: (function, argument, entries, colours at most)
    "element-wise": (lambda x: np.sin(x) * x + np.exp(x), numbers(30), 30, 1),
    "identity": (lambda x: x, numbers(5), 5, 1),
    "element-wise 2-D": (lambda x: np.tanh(x) / x, numbers(4, 5), 20, 1),
    "float": (lambda x: x * x, 3.0, 1, 2),
    "0-d": (lambda x: x * x, np.array(3.0), 1, 2),
    "stencil": (stencil, numbers(30), 84, 3),
    "wide stencil": (lambda x: sum(x[k:20 + k] ** 2 for k in range(11)), numbers(30), 220, 11),
    "periodic stencil": (lambda x: np.roll(x, 1) * x - np.roll(x, -1), numbers(30), 90, 3),
    "laplace": (laplace, numbers(12, 13), 5 * 110, 8),
    "sum": (lambda x: np.sum(x ** 2), numbers(40), 40, 2),
    "mean along an axis": (lambda x: np.mean(x * x, axis=0), numbers(7, 5), 35, 7),
    "mean along the other axis": (lambda x: np.mean(x * x, axis=1), numbers(7, 50), 350, 7),
    "keepdims": (lambda x: np.sum(x, axis=1, keepdims=True), numbers(7, 3), 21, 3),
    "broadcast": (lambda x: np.broadcast_to(x ** 2, (9, 4)), numbers(4), 36, 1),
    "scalar to array": (lambda x: x * np.arange(1.0, 9.0), 2.0, 8, 1),
    "one of many": (lambda x: x[2] * np.arange(1.0, 9.0), numbers(50), 8, 1),
    "transpose": (lambda x: (x.T ** 2).reshape(-1), numbers(3, 4), 12, 1),
    "flip": (lambda x: x[::-1] * x, numbers(11), 21, 2),
    "gather": (lambda x: x[PLACES] ** 2, numbers(6), 4, 1),
    "mask": (lambda x: x[np.arange(6) % 2 == 0] ** 3, numbers(6), 3, 1),
    "scatter": (lambda x: fnp.concatenate([x[PLACES], x[:1]]) * x[1], numbers(6), 10, 2),
    "concatenate": (lambda x: np.concatenate([x[1:] ** 2, x[:3] * x[3:6]]), numbers(8), 13, 2),
    "stack": (lambda x: np.stack([x, x * x, np.ones(4)], axis=1), numbers(4), 8, 1),
    "where": (lambda x: np.where(x > 0.7, x ** 2, 3.0), numbers(9), 9, 1),
    "steps": (lambda x: np.sign(x) * x + np.floor(x[::-1]), numbers(9), 9, 1),
    "max along an axis": (lambda x: np.max(x, axis=1), numbers(5, 3), 15, 3),
    "prod along an axis": (lambda x: np.prod(x, axis=1), numbers(5, 3), 15, 3),
    "logsumexp": (lambda x: special.logsumexp(x, axis=1), numbers(5, 3), 15, 3),
    "by entries": (by_entries, numbers(12), 23, 2),
    "recurrence": (recurrence, numbers(12), 78, 12),
    "assigned slices": (lambda x: assigned(x), numbers(6), 6, 2),
    "two versions": (two_versions, numbers(3), 4, 2),
    "array of scalars": (lambda x: fnp.array([x[0] * x[1], x[1] + x[2], 4.0]), numbers(3), 4, 2),
    "matrix of columns": (lambda x: MATRIX @ x, numbers(6, 3), 4 * 6 * 3, 6),
    "matrix": (lambda x: MATRIX @ x, numbers(6), 24, 6),
    "matrix from the right": (lambda x: x @ MATRIX, numbers(3, 4), 3 * 6 * 4, 6),
    "sparse matrix": (lambda x: SECOND @ x ** 2, numbers(8), 22, 3),
    "sparse matrix, columns": (lambda x: SECOND @ x, numbers(8, 3), 66, 3),
    "sparse matrix from the right": (lambda x: np.sin(x) @ SECOND[:, :5], numbers(8), 14, 3),
    "sparse matrix, rows": (lambda x: (x * x) @ SECOND[:, :5], numbers(3, 8), 42, 3),
    "sparse matrix twice": (lambda x: SECOND @ (SECOND @ x * x), numbers(8), 22 + 12, 5),
    "products of rows": (lambda x: x @ x.T, numbers(3, 2), 3 * 2 + 6 * 4, 6),
    "block": (lambda x: np.einsum("bij,bj->bi", np.ones((4, 3, 2)), x), numbers(4, 2), 24, 2),
    "dense row": (lambda x: fnp.concatenate([x[1:] ** 2, np.sum(x ** 2, keepdims=True)]),
                  numbers(50), 99, 2),
    "dense rows and column": (lambda x: fnp.concatenate(
        [x * x[0], np.sum(x ** 2, keepdims=True), np.sum(x[::2], keepdims=True)]),
        numbers(50), 49 * 2 + 1 + 50 + 25, 4),
    "no entry": (lambda x: np.floor(x), numbers(5), 0, 0),
    "independent": (lambda x: np.ones(3), numbers(5), 0, 0),
    "half": (lambda x: np.concatenate([np.zeros(3), x[:2]]), numbers(5), 2, 1),
    "empty result": (lambda x: x[:0] ** 2, numbers(5), 0, 0),
    "empty argument": (lambda x: np.concatenate([x, np.ones(2)]) * 2, numbers(0), 0, 0),
    "cumulative": (lambda x: np.tril(np.ones((6, 6))) * x, numbers(6), 36, 1),
}


def assigned(x):
    out = fnp.zeros((3, 3))
    out[0] = x[:3]
    out[1:, 0] = x[3:5] * x[0]
    out[0, 1] = 2.0
    out[2, 1:] = x[5]
    return out[:, :2]


@pytest.mark.parametrize("name", STRUCTURED)
def test_structured_jacobians(name):
    f, x, entries, colours = STRUCTURED[name]
    check_jacobian(f, x, entries, colours)


@shaped
def test_shaped_operators(name):
    f, x = SHAPED[name]
    check_jacobian(f, x)
    if name not in ROUNDED:
        check_hessian(lambda x: fnp.sum(fnp.sin(f(x))), x)


@pytest.mark.parametrize("name", ["element-wise", "stencil", "laplace", "dense row", "by entries"])
def test_single_precision(name):
    f, x, entries, colours = STRUCTURED[name]
    check_jacobian(f, x.astype(np.float32), entries, colours)


@pytest.mark.parametrize("name", STRUCTURED)
def test_denominator_layout_is_the_transposed_matrix(name):
    f, x, _, _ = STRUCTURED[name]
    numerator = fg.jacobian(f, sparse=True)(x)
    denominator = fg.jacobian(f, sparse=True, layout="denominator")(x)
    assert isinstance(denominator, sparse.csr_array)
    denominator.check_format()
    np.testing.assert_array_equal(denominator.toarray(), numerator.toarray().T)


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize("name", ["stencil", "matrix", "laplace", "dense rows and column"])
def test_chunk_bounds_the_sweeps(name, chunk):
    f, x, _, _ = STRUCTURED[name]
    np.testing.assert_array_equal(fg.jacobian(f, sparse=True, chunk=chunk)(x).toarray(),
                                  fg.jacobian(f, sparse=True)(x).toarray())


def test_arrays_too_large_for_lanes():
    n = 2 * _sparse.LANE_SIZE
    check_jacobian(stencil, numbers(n), 3 * (n - 2), 3)
    check_jacobian(lambda x: fnp.concatenate([x * x[3], np.sum(x, keepdims=True)]), numbers(n),
                   3 * n - 1, 3)
    check_hessian(rosenbrock, numbers(n), 3 * n - 2, 3)


def test_many_sweeps_of_several_lanes():
    n = 3 * _sparse.LANES - 5
    check_jacobian(lambda x: x / np.sum(x[:-1]), numbers(n), n * (n - 1) + 1)
    check_hessian(lambda x: np.sum(x) ** 3, numbers(n), n * n, n)


def smooth(x):
    """Shared sums, used again for every entry: nothing may become quadratic before the end."""
    return np.sum((x / np.sum(x)) ** 2) * np.sum(x)


def test_sums_that_are_shared_stay_small():
    run = Run("test", smooth, (numbers(20_000),), {}, 0, False)
    assert len(_sparse.pattern(run.trace).columns) == 20_000
    check_jacobian(smooth, numbers(200), 200, 2)
    check_jacobian(lambda x: x / np.sum(x), numbers(30), 900, 45)


def test_network():
    weights = [np.random.default_rng(k).normal(size=(8, 8)) for k in range(4)]

    def f(x):
        for w in weights:
            x = np.tanh(x @ w)
        return x

    check_jacobian(f, numbers(3, 8), 3 * 64, 8)


def test_time_steps():
    def f(u):
        for _ in range(6):
            u = u + 0.1 * (np.concatenate([u[1:], u[-1:]]) - u * np.concatenate([u[:1], u[:-1]]))
        return u

    n, reach = 60, 6
    entries = sum(min(n, i + reach + 1) - max(0, i - reach) for i in range(n))
    check_jacobian(f, numbers(n), entries, 13)


def test_rules_of_the_users_are_dense():
    @fg_custom
    def rule(x):
        return x ** 2

    check_jacobian(lambda x: rule(x[:3]) + x[3:], numbers(6), 12)


class fg_custom:
    """A rule as custom_vjp records it."""

    def __init__(self, f):
        self.f = f

    def __call__(self, x):
        value = np.asarray(x.detach().numpy() if isinstance(x, core.Tensor) else x)
        if not isinstance(x, core.Tensor):
            return self.f(value)
        return core.custom(Squares(value), [x], [value ** 2])[0]


class Squares:
    def __init__(self, x):
        self.x = x

    def pull(self, cotangents, wanted):
        return [None if cotangents[0] is None else cotangents[0] * (2 * self.x)]

    def push(self, tangents):
        return [None if tangents[0] is None else tangents[0] * (2 * self.x)]


def random_program(seed):
    """A function of 12 numbers, made of operations drawn at random."""
    draw = np.random.default_rng(seed)
    steps = draw.integers(0, 14, size=12)
    picks = draw.integers(0, 10 ** 6, size=(12, 4))

    def f(x):
        pool = [x]
        for step, (a, b, c, d) in zip(steps, picks):
            u, v = pool[a % len(pool)], pool[b % len(pool)]
            k, l = c % 12, 1 + d % 11
            made = [lambda: u * v + np.cos(u), lambda: np.sin(u) - 0.5 * v,
                    lambda: np.concatenate([u[l:], v[:l]]), lambda: u[::-1] * 0.7,
                    lambda: u.reshape(3, 4).T.reshape(12), lambda: u[(np.arange(12) * l + k) % 12],
                    lambda: np.where(np.arange(12) < k, u, v), lambda: u * np.sum(v[:l]) * 0.1,
                    lambda: (u.reshape(4, 3) + np.mean(v.reshape(4, 3), axis=1, keepdims=True)
                             ).reshape(12),
                    lambda: patched(u, v, k, l), lambda: np.floor(u) + v,
                    lambda: np.max(u.reshape(3, 4), axis=0)[np.arange(12) % 4] + v,
                    lambda: np.roll(u, l) * u[k],
                    lambda: np.tanh((u.reshape(2, 6) @ MATRIX.T).reshape(8)[np.arange(12) % 8])]
            pool.append(made[step]())
        return pool[-1] + pool[-2][::-1]

    return f


def patched(u, v, k, l):
    out = fnp.zeros(12)
    out[:] = u
    out[k] = v[l] * v[k]
    out[l:] = v[:12 - l]
    out[np.array([0, k, 0])] = u[:3]
    return out


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed):
    f = random_program(seed)
    check_jacobian(f, numbers(12))
    if seed < 20:
        check_hessian(lambda x: np.sum(f(x) ** 2), numbers(12))


# ---- Hessians -------------------------------------------------------------------------------

def by_blocks(x):
    x = x.reshape(-1, 3)
    return np.sum(np.prod(x, axis=1) ** 2)


HESSIANS = {
    "separable": (lambda x: np.sum(x ** 3 + np.sin(x)), numbers(20), 20, 1),
    "rosenbrock": (rosenbrock, numbers(100), 298, 3),
    "arrow": (lambda x: np.sum(x ** 3) + x[0] * np.sum(np.sin(x)), numbers(100), 298, 2),
    "two arrows": (lambda x: (np.sum(x ** 3) + x[7] * np.sum(np.sin(x))
                              + np.exp(x[9]) * np.sum(x * x)), numbers(100), 100 + 2 * (99 + 98), 3),
    "blocks": (by_blocks, numbers(30), 90, 3),
    "dense": (lambda x: np.sum(x) ** 3 + np.sum(x ** 4), numbers(12), 144, 12),
    "linear": (lambda x: np.sum(3 * x), numbers(7), 0, 0),
    "some linear": (lambda x: np.sum(x[:4] ** 2) + np.sum(x), numbers(7), 4, 1),
    "grid": (lambda u: np.sum((u[1:] - u[:-1]) ** 4) + np.sum((u[:, 1:] - u[:, :-1]) ** 4),
             numbers(8, 9), 72 + 2 * (7 * 9 + 8 * 8), 6),
    "far": (lambda x: np.sum(x[:10] ** 2 * x[10:] ** 2), numbers(20), 40, 2),
    "float": (lambda x: x ** 3, 2.0, 1, 1),
    "by entries": (lambda x: sum([x[i] * x[i + 1] ** 2 for i in range(9)]), numbers(10), 27, 3),
}


@pytest.mark.parametrize("name", HESSIANS)
def test_hessians(name):
    f, x, entries, colours = HESSIANS[name]
    check_hessian(f, x, entries, colours)


# ---- the second call ------------------------------------------------------------------------

def test_a_plan_serves_while_the_structure_stays():
    derivative = fg.jacobian(stencil, sparse=True)
    for k in range(3):
        x = numbers(20) + k
        np.testing.assert_allclose(derivative(x).toarray(), fg.jacobian(stencil)(x), rtol=1e-12)
    assert len(derivative.plans) == 1
    derivative(numbers(21))
    assert len(derivative.plans) == 2
    for n in range(30, 50):
        derivative(numbers(n))
    assert len(derivative.plans) == _sparse.PLANS


CHANGING = {
    "branch": lambda x: x[1:] * 2 if x[0] > 0 else x[:-1] * x[1:],
    "slice": lambda x: x[1:4] ** 2 if x[0] > 0 else x[2:5] ** 2,
    "entry": lambda x: x[1] * x if x[0] > 0 else x[2] * x,
    "operand": lambda x: (x[1:] * x[:-1]) + (x[1:] if x[0] > 0 else x[:-1]),
    "mask": lambda x: x[x > 0] ** 2,
    "indices": lambda x: x[np.argsort(-np.asarray(fg.stop_gradient(x)))[:3]] ** 2,
    "assignment": lambda x: put(x, int(x[0] > 0)),
    "assigned slice": lambda x: put(x, slice(0, 2) if x[0] > 0 else slice(1, 3)),
    "axis": lambda x: np.sum(x.reshape(3, 2)[:2], axis=0 if x[0] > 0 else 1),
    "flip": lambda x: np.flip(x.reshape(3, 2), 0 if x[0] > 0 else 1),
    "order": lambda x: fnp.concatenate([x[:2], x[3:]] if x[0] > 0 else [x[3:], x[:2]]),
    "transposed": lambda x: x.reshape(2, 3, 1).transpose((0, 2, 1) if x[0] > 0 else (1, 2, 0)
                                                         ).reshape(6),
    "operator": lambda x: np.floor(x) * x if x[0] > 0 else np.sin(x[::-1]) * x,
    "result": lambda x: x if x[0] > 0 else x[::-1],
    "nothing": lambda x: x * 2 if x[0] > 0 else np.ones(6),
    "shape": lambda x: x[:1] * np.ones(2 if x[0] > 0 else 3),
}


def test_zeros_of_a_constant_matrix_belong_to_the_structure():
    matrix = np.eye(6)
    derivative = fg.jacobian(lambda x: matrix @ x ** 2, sparse=True)
    x = numbers(6)
    assert derivative(x).nnz == 6
    matrix[2, 3] = 5.0
    assert derivative(x).toarray()[2, 3] == 10 * x[3]
    matrix[:] = 1.0
    np.testing.assert_allclose(derivative(x).toarray(), np.tile(2 * x, (6, 1)))


def test_an_array_that_was_overwritten():
    def f(x):
        out = fnp.zeros(2)
        out[0] = x[0]
        out[0] = fnp.heaviside(x[1], 1.0)
        return np.sum(out) * np.ones(3)

    check_jacobian(f, numbers(2), 0)


def put(x, index):
    out = fnp.zeros(3)
    out[index] = x[4] if type(index) is int else x[4:6]
    return out * x[3]


@pytest.mark.parametrize("name", CHANGING)
def test_a_change_of_structure_is_noticed(name):
    f = CHANGING[name]
    derivative = fg.jacobian(f, sparse=True)
    one = np.array([1.0, -2.0, 3.0, 4.0, -0.5, 6.0])
    for x in (one, -one, one, -one[::-1], one[::-1]):
        x = x.copy()
        dense = fg.jacobian(f)(x)
        np.testing.assert_allclose(derivative(x).toarray(), dense.reshape(-1, 6), rtol=1e-12)


def test_the_matrix_belongs_to_the_caller():
    derivative = fg.jacobian(stencil, sparse=True)
    matrix = derivative(numbers(10))
    matrix.indices[:] = 0
    matrix.indptr[:] = 0
    matrix.data[:] = 0
    np.testing.assert_allclose(derivative(numbers(10)).toarray(), fg.jacobian(stencil)(numbers(10)))


# ---- the arguments of the call --------------------------------------------------------------

def test_aux_keywords_and_other_arguments():
    def f(a, x, *, scale):
        return a * x[1:] * x[:-1] * scale, {"size": x.size}

    x = numbers(6)
    matrix, aux = fg.jacobian(f, 1, has_aux=True, sparse=True)(2.0, x, scale=3.0)
    assert aux == {"size": 6}
    np.testing.assert_allclose(matrix.toarray(),
                               fg.jacobian(lambda x: 6 * x[1:] * x[:-1])(x))
    matrix, aux = fg.hessian(lambda x, scale: (scale * rosenbrock(x), "aux"), has_aux=True,
                             sparse=True)(x, scale=2.0)
    assert aux == "aux"
    np.testing.assert_allclose(matrix.toarray(), 2 * fg.hessian(rosenbrock)(x))


def test_what_sparse_is_not_for():
    x = numbers(4)
    for transform in (fg.jacobian, fg.hessian):
        with pytest.raises(TypeError, match="sparse=True is for one argument"):
            transform(rosenbrock, argnums=(0, 1), sparse=True)
    with pytest.raises(TypeError, match="not trees"):
        fg.jacobian(lambda p: p["a"], sparse=True)({"a": x})
    with pytest.raises(TypeError, match="not trees"):
        fg.jacobian(lambda p: p["a"] + p["b"], sparse=True)({"a": x, "b": x})
    with pytest.raises(TypeError, match="not trees"):
        fg.jacobian(lambda x: (x, x), sparse=True)(x)
    with pytest.raises(TypeError, match="not trees"):
        fg.hessian(lambda p: np.sum(p["a"] ** 2), sparse=True)({"a": x})
    with pytest.raises(TypeError, match="inside another transformation"):
        fg.grad(lambda x: fg.jacobian(stencil, sparse=True)(x).sum())(x)
    with pytest.raises(TypeError):
        fg.jacobian(stencil, sparse=True)(np.arange(5))


def test_without_scipy(monkeypatch):
    def without(name, *args, **kwargs):
        if name.startswith("scipy"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install fastgrad\[scipy\]"):
        fg.jacobian(stencil, sparse=True)


# ---- patterns, by themselves ----------------------------------------------------------------

def test_every_operator_of_the_table_has_a_pattern():
    """Element-wise ones by their partials, those that move entries or reduce by their records."""
    for row in core.operators():
        if row.name in RECORDS:
            record = RECORDS[row.name]
            assert record.move or record.goes or record.bilinear, row.name
        elif row.kind == "shaped":
            assert row.name in ("leaf", "custom", "result", "dual", "call"), row.name
        elif row.kind != "compare":                 # comparisons are never recorded
            zero = _sparse._zero_partials(row.name)
            assert zero == tuple(partial == "K(0)" for partial in row.partials), row.name


@pytest.mark.parametrize("seed", range(30))
def test_random_patterns_are_coloured_rightly(seed):
    draw = np.random.default_rng(seed)
    n = int(draw.integers(2, 40))
    dense = draw.uniform(size=(n, n)) < draw.choice([0.03, 0.1, 0.3])
    if seed % 3 == 0:
        dense[draw.integers(n)] = True
    matrix = draw.normal(size=(n, n)) * (dense | dense.T)
    matrix += matrix.T
    f = sparse.csr_array(matrix)
    pattern = _sparse.Pattern(f.indptr.astype(np.int64), f.indices.astype(np.int32), f.shape)
    plan = _sparse._plan_hessian(pattern, None)
    np.testing.assert_allclose(plan.values(Linear(matrix))[0], f.data)
    matrix = draw.normal(size=(n, n)) * dense
    f = sparse.csr_array(matrix)
    pattern = _sparse.Pattern(f.indptr.astype(np.int64), f.indices.astype(np.int32), f.shape)
    plan = _sparse._plan_jacobian(pattern, None)
    np.testing.assert_allclose(plan.values(Linear(matrix))[0], f.data)


class Linear:
    """Stands for the trace of a linear map."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.shapes = [matrix.shape[:1]]
        self.input_shapes = [matrix.shape[1:]]
        self.input_dtypes = [matrix.dtype]

    def push_lanes(self, tangents, lanes):
        return [tangents[0] @ self.matrix.T]

    def pull(self, cotangents):
        return [cotangents[0] @ self.matrix]

    def results_finite(self):
        return True


def test_stars_are_stars():
    """Any path of four vertices has three colours."""
    draw = np.random.default_rng(1)
    for _ in range(20):
        n = 12
        edges = draw.uniform(size=(n, n)) < 0.2
        edges |= edges.T
        np.fill_diagonal(edges, False)
        f = sparse.csr_array(edges)
        pattern = _sparse.Pattern(f.indptr.astype(np.int64), f.indices.astype(np.int32), f.shape)
        colours, count, _ = core.colour_star(*pattern[:2], pattern.transposed()[1],
                                             np.empty(0, np.int32), np.arange(n, dtype=np.int32))
        for path in itertools.permutations(range(n), 4):
            if all(edges[a, b] for a, b in itertools.pairwise(path)):
                assert len(set(colours[list(path)])) >= 3
        for a, b in zip(*np.nonzero(edges)):
            assert colours[a] != colours[b]
