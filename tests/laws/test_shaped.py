"""Shaped operators with all of their options: reductions, shapes, indexing, assignment, matrix
products, norms, and random compositions of them. Values are NumPy's; gradients are checked against
central differences.

Each case is written once, for a namespace `np`, and runs with NumPy on arrays and with
fastgrad.numpy on Tensors.
"""

import itertools

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

DTYPES = (np.float64, np.float32)


def seeded(*key):
    """A generator that depends on the key alone."""
    import zlib
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def distinct(shape, key=""):
    """Entries in [0.5, 2] or so, no two nearer than central differences see."""
    size = int(np.prod(shape))
    values = np.linspace(0.5, 2.0, size) if size else np.zeros(0)
    return seeded(shape, key).permutation(values).reshape(shape)


def differences(f, x, step=1e-6):
    """The gradient of the scalar function f at x by central differences."""
    gradient = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (f(up) - f(down)) / (2 * step)
    return gradient


def weighted(y, key="weights"):
    """The sum of y with random weights: a cotangent that is not all ones."""
    return fnp.sum(y * seeded(key, y.shape).uniform(0.5, 1.5, y.shape).astype(y.dtype))


def check(f, *arrays, rtol=1e-6, atol=1e-8):
    """Value, dtype and shape of f(np, *arrays) against NumPy, gradients against differences."""
    arrays = [np.asarray(x, dtype=np.float64) for x in arrays]
    expected = np.asarray(f(np, *arrays))
    slopes = [differences(
        lambda u, k=k: float(weighted(np.asarray(f(np, *arrays[:k], u, *arrays[k + 1:])))), x)
        for k, x in enumerate(arrays)]
    for dtype in DTYPES:
        given = [x.astype(dtype) for x in arrays]
        tensors = [fg.tensor(x, requires_grad=True) for x in given]
        y = f(fnp, *tensors)
        assert isinstance(y, fg.Tensor)
        assert y.shape == expected.shape
        assert y.dtype == np.asarray(f(np, *given)).dtype
        near = (rtol, atol) if dtype == np.float64 else (2e-4, 2e-4)
        np.testing.assert_allclose(y.numpy(), expected, 1e-12 if dtype == np.float64 else 1e-4,
                                   1e-14 if dtype == np.float64 else 1e-5)
        gradients = fg.gradients(weighted(y), tensors)
        for gradient, slope, x in zip(gradients, slopes, given, strict=True):
            assert gradient.shape == x.shape
            assert gradient.dtype == dtype
            np.testing.assert_allclose(gradient.numpy(), slope, *near)


# ---- reductions -----------------------------------------------------------------------------

REDUCTIONS = {
    "sum": lambda np, x, **options: np.sum(x, **options),
    "mean": lambda np, x, **options: np.mean(x, **options),
    "prod": lambda np, x, **options: np.prod(x, **options),
    "max": lambda np, x, **options: np.max(x, **options),
    "min": lambda np, x, **options: np.min(x, **options),
    "var": lambda np, x, **options: np.var(x, **options),
    "std": lambda np, x, **options: np.std(x, **options),
    "logsumexp": lambda np, x, **options: (
        np.logsumexp(x, **options) if np is fnp else np.log(np.sum(np.exp(x), **options))),
}


def axes_of(rank):
    """None, every axis counted from both ends, and every tuple of axes, in several orders."""
    yield None
    yield from range(-rank, rank)
    for count in range(rank + 1):
        for axes in itertools.combinations(range(rank), count):
            yield axes
            if count > 1:
                yield tuple(axis - rank if i % 2 else axis for i, axis in enumerate(axes[::-1]))


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 2), (1, 3, 1)], ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_along_every_axis(name, shape):
    if name == "std" and 1 in shape:
        pytest.skip("the deviation of one entry is 0, where it has a kink")
    x = distinct(shape, name)
    for axis in axes_of(len(shape)):
        if axis == () and name == "std":
            continue
        for keepdims in (False, True):
            options = {"axis": axis, "keepdims": keepdims}
            check(lambda np, x: REDUCTIONS[name](np, x, **options), x)


@pytest.mark.parametrize("name", [name for name in REDUCTIONS if name != "std"])
def test_reductions_of_a_scalar(name):
    for axis in (None, ()):
        check(lambda np, x: REDUCTIONS[name](np, x, axis=axis), np.array(1.5))


@pytest.mark.parametrize("make", [
    lambda x: x[::2], lambda x: x[::-1], lambda x: x[:, ::-2], lambda x: x.T, lambda x: x[1:2],
    lambda x: x[:, 1], lambda x: x.T[::-1, ::2]],
    ids=["step", "flipped", "step-back", "T", "thin", "column", "T-step"])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_views(name, make):
    x = distinct((6, 5), name)
    for axis in (None, 0, -1):
        if name == "std" and np.std(make(x), axis=axis).min() == 0:
            continue
        check(lambda np, x: REDUCTIONS[name](np, make(x), axis=axis), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sum", "prod"])
def test_reductions_of_nothing(name, dtype):
    for shape, axis in [((0,), None), ((0,), 0), ((2, 0, 3), 1), ((2, 0, 3), (1, 2)),
                        ((2, 0, 3), 0), ((0, 3), 1), ((2, 0, 3), None)]:
        x = fg.tensor(np.zeros(shape, dtype), requires_grad=True)
        y = REDUCTIONS[name](fnp, x, axis=axis)
        np.testing.assert_array_equal(y.numpy(), REDUCTIONS[name](np, np.zeros(shape), axis=axis))
        assert y.dtype == dtype
        y.sum().backward()
        assert x.grad.shape == shape


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_of_nothing_raise(name):
    x = fg.tensor(np.zeros((2, 0)), requires_grad=True)
    for axis in (None, 1, (0, 1)):
        with pytest.raises(ValueError, match=f"{name}|zero-size|empty"):
            REDUCTIONS[name](fnp, x, axis=axis)
    assert REDUCTIONS[name](fnp, x, axis=0).shape == (0,)


def test_large_sums_are_as_exact_as_numpy(rng):
    x = rng.uniform(0, 1, 300_001).astype(np.float32)
    exact = float(np.sum(x, dtype=np.float64))
    ours = fg.tensor(x, requires_grad=True).sum().item()
    assert abs(ours - exact) <= max(abs(float(np.sum(x)) - exact), exact * 2e-7)
    # The adjoint of a broadcast is a sum as well.
    b = fg.tensor(np.float32(1), requires_grad=True)
    (b * x).sum().backward()
    assert abs(b.grad.item() - exact) <= exact * 2e-7


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_argument_of_a_sum(dtype):
    x = fg.tensor(np.array([1, 2, 4], dtype), requires_grad=True)
    y = fnp.sum(x, dtype=np.float64)
    assert y.dtype == np.float64
    y.backward()
    assert x.grad.dtype == dtype
    np.testing.assert_array_equal(x.grad.numpy(), np.ones(3))


# ---- shapes ---------------------------------------------------------------------------------

SHAPES = [
    (lambda np, x: np.reshape(x, (2, 6)), (3, 4)),
    (lambda np, x: np.reshape(x, (-1,)), (3, 4)),
    (lambda np, x: np.reshape(x, (3, -1, 2)), (3, 4)),
    (lambda np, x: np.reshape(x, ()), (1, 1)),
    (lambda np, x: np.reshape(x, (1, 1)), ()),
    (lambda np, x: np.reshape(x, 12), (3, 4)),
    (lambda np, x: np.reshape(x.T, (2, 6)), (3, 4)),
    (lambda np, x: np.reshape(x[::-1, ::2], (-1,)), (3, 4)),
    (lambda np, x: x.reshape(2, 6), (3, 4)),
    (lambda np, x: x.reshape(4, -1), (3, 4)),
    (lambda np, x: x.reshape((4, 3)), (3, 4)),
    (lambda np, x: np.ravel(x), (2, 3, 2)),
    (lambda np, x: x.ravel(), (2, 3)),
    (lambda np, x: np.ravel(x.T), (2, 3)),
    (lambda np, x: x.flatten(), (2, 3)),
    (lambda np, x: np.ravel(x), ()),
    (lambda np, x: np.transpose(x), (2, 3, 4)),
    (lambda np, x: np.transpose(x, (1, 2, 0)), (2, 3, 4)),
    (lambda np, x: np.transpose(x, (-1, 0, 1)), (2, 3, 4)),
    (lambda np, x: x.transpose(), (2, 3)),
    (lambda np, x: x.transpose(1, 0, 2), (2, 3, 2)),
    (lambda np, x: x.transpose((2, 0, 1)), (2, 3, 2)),
    (lambda np, x: x.T, (5,)),
    (lambda np, x: x.T, ()),
    (lambda np, x: x.T @ x, (3, 2)),
    (lambda np, x: np.transpose(x, (1, 2, 0)).T, (2, 3, 4)),
    (lambda np, x: np.swapaxes(x, 0, -1), (2, 3, 4)),
    (lambda np, x: x.swapaxes(1, 2), (2, 3, 4)),
    (lambda np, x: np.moveaxis(x, 0, -1), (2, 3, 4)),
    (lambda np, x: np.moveaxis(x, [0, 1], [-1, 0]), (2, 3, 4)),
    (lambda np, x: np.squeeze(x), (1, 3, 1)),
    (lambda np, x: np.squeeze(x, 0), (1, 3, 1)),
    (lambda np, x: np.squeeze(x, (0, -1)), (1, 3, 1)),
    (lambda np, x: x.squeeze(), (1, 1)),
    (lambda np, x: np.expand_dims(x, 1), (2, 3)),
    (lambda np, x: np.expand_dims(x, (0, -1)), (2, 3)),
    (lambda np, x: np.broadcast_to(x, (2, 3)), (3,)),
    (lambda np, x: np.broadcast_to(x, (2, 3, 4)), (3, 1)),
    (lambda np, x: np.broadcast_to(x, (2, 3)), ()),
    (lambda np, x: np.broadcast_to(x, (2, 3)), (2, 3)),
    (lambda np, x: np.broadcast_to(x, (0, 3)), (1, 3)),
    (lambda np, x: np.broadcast_to(x[::-1].T, (2, 4, 3)), (3, 4)),
    (lambda np, x: np.flip(x), (2, 3)),
    (lambda np, x: np.flip(x, 0), (2, 3)),
    (lambda np, x: np.flip(x, (-1, 0)), (2, 3, 2)),
    (lambda np, x: np.flip(x, -2), (2, 3, 2)),
    (lambda np, x: np.concatenate([x, x]), (3,)),
    (lambda np, x: np.concatenate([x, 2 * x, x[:1]], axis=0), (3, 2)),
    (lambda np, x: np.concatenate([x, x[:, ::-1]], axis=-1), (3, 2)),
    (lambda np, x: np.concatenate([x, x.T], axis=None), (3, 2)),
    (lambda np, x: np.concatenate([x[:0], x]), (3, 2)),
    (lambda np, x: np.stack([x, x * x]), (3,)),
    (lambda np, x: np.stack([x, x * x], axis=1), (3, 2)),
    (lambda np, x: np.stack([x, x.T], axis=-1), (2, 2)),
    (lambda np, x: np.stack([x, x * x]), ()),
]


@pytest.mark.parametrize("f, shape", SHAPES)
def test_shapes(f, shape):
    check(f, distinct(shape))


@pytest.mark.parametrize("f", [
    lambda np, x, y: np.concatenate([x, y], 1), lambda np, x, y: np.concatenate([y, x, y], -1),
    lambda np, x, y: np.concatenate([x[:, 0], y[0]]),
    lambda np, x, y: np.stack([x[0], y[0, :2]], 1)])
def test_joining_different_arrays(f):
    check(f, distinct((3, 2), "x"), distinct((3, 4), "y"))


def test_joining_mixed_dtypes():
    x = fg.tensor(np.ones(2, np.float32), requires_grad=True)
    y = fg.tensor(np.ones(3), requires_grad=True)
    joined = fnp.concatenate([x, y, np.arange(2)])
    assert joined.dtype == np.float64
    (joined * np.arange(7.0)).sum().backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1])
    np.testing.assert_array_equal(y.grad.numpy(), [2, 3, 4])


@pytest.mark.parametrize("f", [
    lambda np, x: np.reshape(x, (0, 5)), lambda np, x: np.reshape(x, (-1, 2)),
    lambda np, x: x.T, lambda np, x: np.flip(x, 1), lambda np, x: np.ravel(x),
    lambda np, x: np.concatenate([x, x]), lambda np, x: np.stack([x, x]),
    lambda np, x: x[:, :0], lambda np, x: x[1], lambda np, x: np.broadcast_to(x, (4, 2, 0)),
    lambda np, x: x * x, lambda np, x: np.sin(x) + 1, lambda np, x: np.swapaxes(x, 0, 1)])
def test_shapes_of_nothing(f):
    x = np.zeros((2, 0))
    t = fg.tensor(x, requires_grad=True)
    y = f(fnp, t)
    assert y.shape == f(np, x).shape
    y.sum().backward()
    assert t.grad.shape == (2, 0)


# ---- views ----------------------------------------------------------------------------------

VIEWS = [
    lambda np, x: np.reshape(x, (4, 3)), lambda np, x: x.reshape(-1), lambda np, x: np.ravel(x),
    lambda np, x: x.T, lambda np, x: np.transpose(x, (1, 0)), lambda np, x: np.swapaxes(x, 0, 1),
    lambda np, x: np.moveaxis(x, 0, 1), lambda np, x: np.expand_dims(x, 0),
    lambda np, x: np.squeeze(np.expand_dims(x, 1), 1), lambda np, x: np.broadcast_to(x, (2, 3, 4)),
    lambda np, x: np.flip(x), lambda np, x: np.flip(x, 0), lambda np, x: x[1:], lambda np, x: x[0],
    lambda np, x: x[:, ::2], lambda np, x: x[::-1], lambda np, x: x[..., None],
    lambda np, x: x[1:, 1:].T[::-1], lambda np, x: x[...], lambda np, x: x[None],
    lambda np, x: x.T.T.reshape(2, 6),
    # copies
    lambda np, x: x.T.reshape(12), lambda np, x: x[[0, 1]], lambda np, x: x[x > 0],
    lambda np, x: x.flatten(), lambda np, x: np.concatenate([x]), lambda np, x: x[:, ::2].ravel(),
    lambda np, x: x + 0, lambda np, x: x.copy(), lambda np, x: np.ravel(x.T)]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("f", VIEWS)
def test_memory_is_shared_where_numpy_shares_it(f, recorded):
    x = distinct((3, 4))
    t = fg.tensor(x, requires_grad=recorded)
    y = f(fnp, t)
    np.testing.assert_array_equal(y.numpy(), f(np, x))
    assert np.shares_memory(y.numpy(), t.numpy()) == np.shares_memory(f(np, x), x)


@pytest.mark.parametrize("f", [
    lambda np, x: x.T @ x, lambda np, x: x[::-1] * x[:, ::-1], lambda np, x: np.sin(x.T)[1:, ::-1],
    lambda np, x: np.exp(x[:, 1]) + x[:, -1], lambda np, x: np.broadcast_to(x[0], (3, 4)) * x,
    lambda np, x: x.T.reshape(3, 4) - x, lambda np, x: np.hypot(x[0::2], x[-1:]),
    lambda np, x: x.reshape(2, 2, 3).swapaxes(0, 2)[::-1, :, 1] + 1])
def test_computing_with_views(f):
    check(f, distinct((3, 4)))


# ---- indexing -------------------------------------------------------------------------------

INDICES = [
    0, -1, np.int64(1), slice(None), slice(1, None), slice(None, None, -1), slice(None, None, 2),
    slice(-1, -3, -1), slice(2, 1), Ellipsis, None, (), (0, 1), (0, 1, 2), (-1, Ellipsis),
    (Ellipsis, -1), (Ellipsis, 0, slice(None, None, -2)), (slice(None), 1), (None, 0, None),
    (slice(None), None, slice(1, 3)), (0, 1, 2, Ellipsis), (slice(None, None, -1), -1, slice(0, 0)),
    [0, 1], [1, 0, 1, 1], [], np.array([1, 0, 1]), np.array([[0, 1], [1, 1]]), np.array(1),
    np.array([-1, -2]), np.array([1, 0], np.uint8), ([0, 1], [2, 0]), ([0, 1, 0], [2, 0, 2]),
    (slice(None), [2, 0, 2]), (slice(None), [0, 1], [3, 3]), ([0, 1], slice(None), [3, 3]),
    ([[0], [1]], [[0, 2]]), (0, [1, 1, 0]), (slice(None), 0, [3, 3, 1]), ([1], None, [0]),
    (Ellipsis, [0, 0]), (np.array([1, 0]), Ellipsis, 0),
    (slice(None), slice(None, None, -1), [0, 0]),
    np.array([True, False]), (slice(None), np.array([True, False, True])),
    (Ellipsis, np.array([True, False, True, True])), (np.array([False, True]), 0),
    (np.array([True, True]), [0, 2]), np.arange(24).reshape(2, 3, 4) % 3 == 0,
    np.zeros((2, 3), bool), (np.eye(2, 3, dtype=bool), slice(1, 3)), True, False,
]


def label(index):
    return repr(index).replace("slice", "").replace("array", "").replace("\n", "")


@pytest.mark.parametrize("index", INDICES, ids=label)
def test_indexing(index):
    x = distinct((2, 3, 4))
    expected = x[index]
    slope = np.zeros(x.shape)
    weights = seeded("weights", expected.shape).uniform(0.5, 1.5, expected.shape)
    np.add.at(slope, index, weights)
    for dtype in DTYPES:
        t = fg.tensor(x.astype(dtype), requires_grad=True)
        y = t[index]
        assert y.shape == expected.shape
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.numpy(), expected.astype(dtype))
        weighted(y).backward()
        assert t.grad.dtype == dtype
        np.testing.assert_allclose(t.grad.numpy(), slope, 1e-6 if dtype == np.float32 else 1e-14)


@pytest.mark.parametrize("index", [
    0, slice(None, None, -1), [1, 0, 1], np.array([True, False]), (Ellipsis, [0, 0]), (1, None)],
    ids=label)
def test_indexing_views(index):
    for view in (lambda x: x.T, lambda x: x[::-1], lambda x: x[:, ::-1]):
        check(lambda np, x: view(x)[index], distinct((2, 2), "views"))


def test_integer_and_boolean_tensors_as_indices():
    x = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x[fg.tensor([2, 0, 2])] * x[fg.tensor(1)]
    np.testing.assert_array_equal(y.numpy(), [6, 2, 6])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 7, 4])
    x.zero_grad()
    (x[x > 1.5] ** 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 4, 6])
    x.zero_grad()
    x[fnp.argmax(x)].backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0, 1])


def test_indices_are_read_when_recorded():
    index = np.array([0, 1])
    mask = np.array([True, False, False])
    x = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x[index].sum() + x[mask].sum()
    index[:] = 2
    mask[:] = True
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2, 1, 0])


def test_iteration_and_unpacking():
    x = fg.tensor(distinct((3, 2)), requires_grad=True)
    a, b, c = x
    total = sum(k * row.sum() for k, row in enumerate(x)) + (a * b).sum() + c[0]
    total.backward()
    v = distinct((3, 2))
    np.testing.assert_allclose(x.grad.numpy(), [v[1], 1 + v[0], [3, 2]])


def test_take_and_take_along_axis():
    check(lambda np, x: np.take(x, [1, 1, 0]), distinct((3, 4)))
    check(lambda np, x: np.take(x, [[1], [0]], axis=1), distinct((3, 4)))
    places = np.array([[0, 0], [1, 2]])
    check(lambda np, x: np.take_along_axis(x, places, 1), distinct((2, 3)))


# ---- assignment -----------------------------------------------------------------------------

# Index, and the shape of what is assigned; the array has shape (2, 3, 4). No repeated indices.
ASSIGNMENTS = [
    (0, (3, 4)), (-1, ()), (slice(None), (2, 3, 4)), (Ellipsis, (3, 1)), ((0, 1, 2), ()),
    ((slice(None), 1), (4,)), ((slice(None), 1), (2, 4)),
    ((slice(None, None, -1), slice(0, 2)), (2, 2, 4)), ((Ellipsis, slice(None, None, 2)), (3, 2)),
    ((0, slice(None, None, -2), slice(3, 0, -1)), (2, 3)), (slice(2, 2), ()),
    ([1, 0], (2, 3, 4)), ([1], (3, 4)), ((slice(None), [0, 2]), (2, 2, 4)),
    (([0, 1], [2, 0]), (4,)),
    (([0, 1], slice(None), [3, 1]), (2, 3)), (np.array([True, False]), (3, 4)),
    (np.array([True, True]), (2, 1, 4)), ((slice(None), np.array([True, False, True])), ()),
    (np.arange(24).reshape(2, 3, 4) % 5 == 0, (5,)), (np.zeros((2, 3), bool), ()),
    ((None, 0), (1, 3, 4)), ((0, None, Ellipsis), (1, 3, 4)), ((Ellipsis, -1), (2, 3)),
]


@pytest.mark.parametrize("index, shape", ASSIGNMENTS, ids=lambda p: label(p))
def test_assignment(index, shape):
    def f(np, x, v):
        y = x * 2
        y[index] = v
        return y * y

    check(f, distinct((2, 3, 4), "x"), distinct(shape, "v"))


@pytest.mark.parametrize("index, shape", ASSIGNMENTS[::3], ids=lambda p: label(p))
def test_assignment_of_constants(index, shape):
    v = distinct(shape, "v")

    def f(np, x):
        y = x * 2
        y[index] = v
        y[0, 0, 0] = 3
        return y * y

    check(f, distinct((2, 3, 4), "x"))


@pytest.mark.parametrize("index, shape", ASSIGNMENTS[::2], ids=lambda p: label(p))
def test_assignment_into_a_constant(index, shape):
    def f(np, v):
        y = np.zeros((2, 3, 4)) + 1 if np is not fnp else fg.tensor(np.ones((2, 3, 4), v.dtype))
        y[index] = v * v
        return y * y

    for dtype in DTYPES:
        v = fg.tensor(distinct(shape, "v").astype(dtype), requires_grad=True)
        y = f(fnp, v)
        assert y.dtype == dtype
        weighted(y).backward()
        slope = differences(lambda u: weighted(np.asarray(f(np, u))), distinct(shape, "v"))
        np.testing.assert_allclose(v.grad.numpy(), slope, 1e-6 if dtype == np.float64 else 2e-3,
                                   1e-7)


def test_assignment_with_repeated_indices_keeps_the_last():
    x = fg.tensor(np.zeros(3), requires_grad=True)
    v = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    y[[1, 1, 0]] = v
    np.testing.assert_array_equal(y.numpy(), [3, 2, 0])
    (y * [1.0, 10.0, 100.0]).sum().backward()
    np.testing.assert_array_equal(v.grad.numpy(), [0, 10, 1])
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0, 100])


def test_add_at_adds_up():
    x = fg.tensor(np.zeros(3), requires_grad=True)
    v = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    np.add.at(y, [1, 1, 0], v)
    np.testing.assert_array_equal(y.numpy(), [3, 3, 0])
    (y * [1.0, 10.0, 100.0]).sum().backward()
    np.testing.assert_array_equal(v.grad.numpy(), [10, 10, 1])
    np.testing.assert_array_equal(x.grad.numpy(), [1, 10, 100])


def test_values_before_an_assignment_keep_their_derivative():
    def f(np, x):
        y = x * x
        before = np.sin(y)
        y[0] = y[1] * y[2]
        middle = y * y
        y[1] = 5
        return np.concatenate([before, middle, y, y[:1] * y[2:]])

    check(f, distinct((3,)))


def test_views_see_assignments_and_assignments_to_views_are_seen():
    def f(np, x):
        y = x * x
        row, column, flat, back = y[1], y[:, 0], y.reshape(-1), y.T[::-1]
        row[0] = 7 * x[0, 1]
        before = np.sum(column) + np.sum(flat * flat)
        back[0, 1] = x[0, 0] ** 3
        y[0] = row * 2
        flat[2] *= 3
        return np.stack([np.sum(back * back) + before, np.sum(row), np.sum(column * column),
                         np.sum(y * x)])

    check(f, distinct((2, 3)), rtol=1e-5)


def test_views_of_views_follow():
    def f(np, x):
        y = x * 1
        a = y[1:]
        b = a[::-1]
        c = b.reshape(-1)[1:3]
        y[1, 0] = x[0, 0] * 2
        d = c * 1
        c[0] = x[0, 1] * 5
        return np.concatenate([np.ravel(y), np.ravel(a), np.ravel(b), d])

    x = distinct((3, 2))
    # NumPy's reshape of a flipped array copies; so does ours.
    check(f, x)


def test_filling_an_array_entry_by_entry(rng):
    data = rng.normal(size=40)

    def f(np, x):
        out = np.zeros(x.shape)
        for i in range(len(x)):
            out[i] = np.sin(x[i]) * (out[i - 1] if i else 1)
        return out

    def ours(x):
        out = fnp.zeros(x.shape)
        for i in range(len(x)):
            out[i] = fnp.sin(x[i]) * (out[i - 1] if i else 1.0)
        return fnp.sum(out)

    value, gradient = fg.value_and_grad(ours)(data)
    np.testing.assert_allclose(value, f(np, data).sum())
    np.testing.assert_allclose(gradient, differences(lambda u: f(np, u).sum(), data), 1e-6, 1e-8)


@pytest.mark.parametrize("f", [
    lambda np, x: np.add(x, 1), lambda np, x: x])
def test_in_place_operators_of_views(f):
    def program(np, x):
        y = f(np, x) * 1
        y += x
        top = y[0]
        top *= x[1]
        top -= 2
        y /= 3
        y **= 2
        y.T[0] += 1
        return y

    check(program, distinct((2, 3)))


# ---- matrix products ------------------------------------------------------------------------

PRODUCTS = [
    ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((1, 3), (3, 1)),
    ((1, 1), (1, 1)), ((3,), (2, 3, 2)), ((2, 4, 3), (3,)), ((2, 3), (2, 3, 4)),
    ((2, 2, 3), (3, 4)), ((2, 2, 3), (2, 3, 2)), ((1, 2, 3), (2, 3, 2)), ((2, 2, 3), (1, 3, 2)),
    ((2, 3, 2), (2, 1, 2, 3)), ((2, 1, 2, 3), (3, 3, 2)), ((2, 1, 2, 3), (1, 2, 3, 2)),
    ((3,), (2, 2, 3, 2)), ((2, 2, 2, 3), (3,)), ((2, 3), (2, 1, 3, 2)), ((2, 2, 2, 3), (3, 2)),
    ((2, 2, 1, 3), (2, 2, 3, 1)),
]


@pytest.mark.parametrize("a, b", PRODUCTS, ids=str)
def test_matmul(a, b):
    x, y = distinct(a, "a"), distinct(b, "b")
    check(lambda np, x, y: np.matmul(x, y), x, y)
    check(lambda np, x, y: x @ y, x, y)
    check(lambda np, x: x @ y.astype(x.dtype), x)
    check(lambda np, y: x.astype(y.dtype) @ y, y)


@pytest.mark.parametrize("a, b", [
    ((), ()), ((), (3,)), ((2, 3), ()), ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)),
    ((2, 3), (3, 2)), ((3,), (2, 3, 2)), ((2, 2, 3), (3,)), ((2, 3), (2, 3, 2)),
    ((2, 2, 3), (3, 2)), ((2, 2, 3), (2, 3, 2)), ((2, 2, 3), (2, 1, 3, 2)),
    ((1, 2, 2, 3), (3,)), ((1, 2, 2, 3), (1, 2, 3, 2))], ids=str)
def test_dot(a, b):
    check(lambda np, x, y: np.dot(x, y), distinct(a, "a"), distinct(b, "b"))
    if a:
        check(lambda np, x, y: x.dot(y), distinct(a, "a"), distinct(b, "b"))


STRIDED = [lambda x: x.T, lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: x[::2, ::2],
           lambda x: x[1:, 1:], lambda x: x.T[::2], lambda x: x[:1] + 0 * x[:1]]


@pytest.mark.parametrize("left", STRIDED)
@pytest.mark.parametrize("right", STRIDED)
def test_matmul_of_views(left, right):
    x, y = distinct((4, 4), "x"), distinct((4, 4), "y")
    k = left(x).shape[-1]
    check(lambda np, x, y: left(x) @ right(y)[:, :2] if right(y).shape[0] == k
          else left(x) @ np.concatenate([right(y)] * 4)[:k], x, y)


@pytest.mark.parametrize("f", [
    lambda np, x: x @ x.T, lambda np, x: x.T @ x, lambda np, x: x[0] @ x[1],
    lambda np, x: x.T @ x[:, 0], lambda np, x: x @ x[::-1].T @ x, lambda np, x: x[:, 1] @ x @ x[0],
    lambda np, x: np.broadcast_to(x, (2, 3, 4)) @ np.swapaxes(np.broadcast_to(x, (2, 3, 4)), 1, 2),
    lambda np, x: np.broadcast_to(x[0], (3, 4)) @ x.T,
    lambda np, x: (x.reshape(3, 2, 2) @ x.reshape(3, 2, 2).swapaxes(1, 2))[::-1],
    lambda np, x: x.reshape(1, 12) @ x.reshape(12, 1), lambda np, x: x.T[:0].T @ x[:0, :2]])
def test_products_of_an_array_with_itself(f):
    check(f, distinct((3, 4)))


@pytest.mark.parametrize("a, b", [
    ((2, 0), (0, 3)), ((0, 2), (2, 3)), ((0,), (0,)), ((3, 0, 2), (2, 2)), ((2, 2), (2, 0)),
    ((0, 2, 2), (2,))], ids=str)
def test_matmul_of_nothing(a, b):
    x, y = fg.tensor(np.ones(a), requires_grad=True), fg.tensor(np.ones(b), requires_grad=True)
    z = x @ y
    np.testing.assert_array_equal(z.numpy(), np.ones(a) @ np.ones(b))
    z.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros(a))
    np.testing.assert_array_equal(y.grad.numpy(), np.zeros(b))


def test_matmul_of_mixed_dtypes():
    x = fg.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = fg.tensor(np.ones((3, 2)), requires_grad=True)
    z = x @ y + np.arange(6).reshape(2, 3) @ y + x @ np.arange(6).reshape(3, 2)
    assert z.dtype == np.float64
    z.sum().backward()
    assert x.grad.dtype == np.float32
    assert y.grad.dtype == np.float64
    np.testing.assert_array_equal(x.grad.numpy(), np.ones((2, 3)) * [3, 7, 11])


def test_large_matmul(rng):
    a, b, w = rng.normal(size=(70, 130)), rng.normal(size=(130, 90)), rng.normal(size=(70, 90))
    x, y = fg.tensor(a, requires_grad=True), fg.tensor(b, requires_grad=True)
    fnp.sum((x @ y) * w).backward()
    np.testing.assert_allclose(x.grad.numpy(), w @ b.T, 1e-10, 1e-11)
    np.testing.assert_allclose(y.grad.numpy(), a.T @ w, 1e-10, 1e-11)


# ---- norms ----------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    {}, {"ord": 2}, {"ord": 1}, {"ord": np.inf}, {"ord": -np.inf}, {"ord": 3}, {"ord": 2.5},
    {"ord": 2, "keepdims": True}, {"axis": 0}], ids=str)
def test_vector_norms(options):
    sign = np.array([1, -1, 1, -1, 1])
    check(lambda np, x: np.linalg.norm(x, **options), distinct((5,)) * sign)


@pytest.mark.parametrize("options", [
    {}, {"ord": "fro"}, {"axis": 0}, {"axis": -1}, {"axis": (0, 1)}, {"axis": 1, "ord": 1},
    {"axis": 0, "ord": np.inf}, {"ord": 1}, {"ord": np.inf}, {"ord": -1}, {"ord": -np.inf},
    {"axis": 1, "ord": 3, "keepdims": True}], ids=str)
def test_matrix_norms(options):
    sign = np.sign(seeded("sign").normal(size=(3, 4)))
    check(lambda np, x: np.linalg.norm(x, **options), distinct((3, 4)) * sign)


def test_norm_through_numpy():
    gradient = fg.grad(lambda x: np.linalg.norm(x))(np.array([3.0, 4.0]))
    np.testing.assert_allclose(gradient, [0.6, 0.8])


# ---- large arrays, whose values wait --------------------------------------------------------

@pytest.fixture
def lazy():
    """Results of any size wait until they are needed, as large ones do."""
    before = core.lazy_threshold()
    core.lazy_threshold(2)
    yield
    core.lazy_threshold(before)


@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize("f", [
    lambda np, x: np.sin(x)[1:] * np.cos(x)[:-1], lambda np, x: np.exp(x).T @ np.exp(x),
    lambda np, x: np.max(np.sin(x), 0), lambda np, x: np.concatenate([np.sin(x), np.cos(x)]),
    lambda np, x: np.sin(np.exp(x).reshape(-1))[::2], lambda np, x: np.sin(x)[[0, 0, 1]],
    lambda np, x: np.where(np.sin(x) > 0.9, np.sin(x), x), lambda np,
    x: np.sin(x) + np.sum(np.exp(x)),
    lambda np, x: np.var(np.tanh(x), 1), lambda np, x: np.prod(np.tanh(x) + 1)])
def test_waiting_results(f):
    check(f, distinct((3, 4)))


def test_a_waiting_result_beside_the_one_that_is_differentiated():
    x = fg.tensor(np.linspace(0.1, 1, 5000), requires_grad=True)
    beside = fnp.cos(x)
    fnp.exp(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp(x.numpy()))
    np.testing.assert_allclose(beside.numpy(), np.cos(x.numpy()))


def test_a_consumer_dropped_before_the_sweep():
    x = fg.tensor(np.linspace(0.1, 1, 5000), requires_grad=True)
    y = fnp.exp(x)
    z = fnp.sin(y)
    del z
    (y * y).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(2 * x.numpy()))


# ---- random compositions --------------------------------------------------------------------

def program(seed):
    """A random function of two arrays for a namespace np, smooth almost everywhere."""
    rng = np.random.default_rng(seed)
    steps = []
    shapes = [(3, 4), (4,)]

    def add(step, *operands):
        with np.errstate(all="ignore"):
            made = step(np, *[np.ones(shapes[i]) for i in operands])
        if made.size and made.size < 200:
            steps.append((step, operands))
            shapes.append(np.shape(made))

    unary = [
        lambda np, x: np.sin(x), lambda np, x: np.tanh(x) * 2, lambda np, x: 1 / (x * x + 1),
        lambda np, x: np.sqrt(x * x + 0.5), lambda np, x: np.exp(np.sin(x)), lambda np, x: -x,
        lambda np, x: x.T, lambda np, x: x[::-1] if x.ndim else x, lambda np, x: np.flip(x),
        lambda np, x: np.reshape(x, -1), lambda np, x: x[..., None], lambda np, x: np.mean(x, -1)
        if x.ndim else x, lambda np, x: np.sum(x, 0, keepdims=True) if x.ndim else x,
        lambda np, x: np.max(x, -1) if x.ndim else x, lambda np, x: x[[0, -1, 0]] if x.ndim else x,
        lambda np, x: x[..., :1] * 2 if x.ndim else x, lambda np, x: np.squeeze(x),
        lambda np, x: np.stack([x, np.cos(x)], -1), lambda np, x: np.where(x > 0.3, x, x * x),
        lambda np, x: np.concatenate([x, x * 0.5]) if x.ndim else x,
        lambda np, x: np.broadcast_to(x, (2, *x.shape)), lambda np, x: np.abs(x) ** 1.5,
        lambda np, x: np.moveaxis(x, 0, -1) if x.ndim else x, lambda np, x: np.clip(x, -0.8, 0.9)]
    binary = [
        lambda np, x, y: x + y, lambda np, x, y: x * y, lambda np, x, y: x - 2 * y,
        lambda np, x, y: x / (2 + np.sin(y)), lambda np, x, y: np.maximum(x, y * 1.01 + 0.01),
        lambda np, x, y: np.hypot(x, y * y + 1), lambda np, x, y: np.logaddexp(x, y),
        lambda np, x, y: np.tanh(x) @ y, lambda np, x, y: np.arctan2(x, y * y + 1)]

    def replaced(np, x):
        y = x * 1
        y[0] = np.sin(y[-1]) * 2
        y[..., -1] *= 0.5
        return y

    while len(steps) < 9:
        i, j = rng.integers(0, len(shapes), 2)
        kind = rng.random()
        try:
            if kind < 0.5:
                add(unary[rng.integers(len(unary))], i)
            elif kind < 0.93:
                add(binary[rng.integers(len(binary))], i, j)
            elif shapes[i]:
                add(replaced, i)
        except (ValueError, IndexError):
            continue

    def f(np, *arrays):
        values = list(arrays)
        for step, operands in steps:
            values.append(step(np, *[values[i] for i in operands]))
        return np.stack([np.sum(np.tanh(value)) for value in values[2:]])
    return f


@pytest.mark.parametrize("seeds", [range(k, k + 10) for k in range(0, 120, 10)], ids=str)
def test_random_compositions(seeds):
    for seed in seeds:
        rng = np.random.default_rng(1000 + seed)
        x, y = rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, 4)
        check(program(seed), x, y, rtol=1e-5, atol=1e-7)


def test_a_value_with_leading_axes_of_length_1_can_be_assigned():
    x = fg.tensor(np.ones((2, 3)), requires_grad=True)
    v = fg.tensor(np.ones((1, 1, 3)), requires_grad=True)
    y = x * 1.0
    y[0] = v
    (y * np.arange(6.0).reshape(2, 3)).sum().backward()
    np.testing.assert_array_equal(v.grad.numpy(), [[[0, 1, 2]]])
    np.testing.assert_array_equal(x.grad.numpy(), [[0, 0, 0], [3, 4, 5]])


@pytest.mark.parametrize("needs", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.3, 2, True, np.float64(0.3), np.array(0.3),
                                   fg.tensor(np.float64(0.3))], ids=repr)
def test_what_is_put_into_a_number_takes_its_dtype(value, dtype, needs):
    """Next to a Python number and to a number of either dtype."""
    y = fg.tensor(dtype(1.5), requires_grad=needs) * dtype(1)
    expected = np.array(dtype(1.5))
    y[...] = value
    expected[...] = value.numpy() if isinstance(value, fg.Tensor) else value
    for f in (lambda y: np.cos(y), lambda y: y * 2.0, lambda y: y * np.ones(2, np.float32),
              lambda y: y + np.float64(1)):
        assert f(y).dtype == f(expected).dtype
        np.testing.assert_allclose(f(y).detach().numpy(), f(expected), rtol=1e-6)
