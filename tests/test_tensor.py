"""The Tensor: making one, what it says of itself, operators, protocols, versions, gradients."""

import copy
import math
import operator
import pickle

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

DTYPES = (np.float64, np.float32)
INTEGERS = (np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64,
            np.uint64)


def leaf(data, dtype=None):
    return fg.tensor(np.asarray(data, dtype=dtype or float), requires_grad=True)


# ---- making one -----------------------------------------------------------------------------

@pytest.mark.parametrize("data, dtype, shape", [
    (1.5, np.float64, ()), (2, np.int64, ()), (True, np.bool_, ()), (np.float32(1), np.float32, ()),
    ([1.0, 2.0], np.float64, (2,)), ([1, 2], np.int64, (2,)), ([True, False], np.bool_, (2,)),
    ([[1.0], [2.0]], np.float64, (2, 1)), ((1.0, 2), np.float64, (2,)), ([], np.float64, (0,)),
    (np.zeros((2, 0), np.float32), np.float32, (2, 0)), (np.array(3.0), np.float64, ()),
    (range(3), np.int64, (3,)), (np.arange(3, dtype=np.uint8), np.uint8, (3,))])
def test_construction(data, dtype, shape):
    t = fg.tensor(data)
    assert isinstance(t, fg.Tensor)
    assert fg.is_tensor(t)
    assert not fg.is_tensor(data)
    assert t.dtype == dtype
    assert t.shape == shape
    assert t.ndim == len(shape)
    assert t.size == math.prod(shape)
    assert t.itemsize == np.dtype(dtype).itemsize
    assert t.nbytes == t.size * t.itemsize
    assert t.requires_grad is False
    assert t.is_leaf
    assert t.op is None
    assert t.grad is None
    np.testing.assert_array_equal(t.numpy(), np.asarray(data))
    assert t.numpy().dtype == dtype


@pytest.mark.parametrize("dtype", [*DTYPES, *INTEGERS])
def test_dtype_argument(dtype):
    t = fg.tensor([0, 1, 1], dtype=dtype)
    assert t.dtype == dtype
    np.testing.assert_array_equal(t.numpy(), np.array([0, 1, 1], dtype))


def test_integers_that_require_a_gradient_become_float64():
    t = fg.tensor([1, 2], requires_grad=True)
    assert t.dtype == np.float64
    assert fg.tensor(3, requires_grad=True).dtype == np.float64
    assert fg.tensor([1, 2], dtype=np.float32, requires_grad=True).dtype == np.float32


def test_data_are_copied_unless_shared():
    a = np.ones(3)
    copied, shared = fg.tensor(a), fg.tensor(a, copy=False)
    a[0] = 5
    assert copied.tolist() == [1, 1, 1]
    assert shared.tolist() == [5, 1, 1]
    assert np.shares_memory(shared.numpy(), a)


@pytest.mark.parametrize("make", [
    lambda a: a.T, lambda a: a[::-1], lambda a: a[:, ::2], np.asfortranarray,
    lambda a: np.broadcast_to(a[0], a.shape), lambda a: a.astype(">f8"),
    lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(float).reshape(a.shape)],
    ids=["T", "flipped", "strided", "fortran", "broadcast", "big-endian", "unaligned"])
@pytest.mark.parametrize("copied", [True, False])
def test_memory_of_any_layout(make, copied):
    a = make(np.arange(12.0).reshape(3, 4))
    t = fg.tensor(a, requires_grad=True, copy=copied)
    np.testing.assert_array_equal(t.numpy(), a)
    (t * t + a * t).sum().backward()
    np.testing.assert_array_equal(t.grad.numpy(), 3 * a)
    if a.dtype.isnative:
        np.testing.assert_array_equal(fg.grad(lambda x: (x * x).sum())(a), 2 * a)


def test_a_tensor_of_a_tensor_is_detached():
    w = leaf([1, 2])
    t = fg.tensor(w * 2)
    assert t.is_leaf
    assert not t.requires_grad
    assert t.tolist() == [2, 4]


@pytest.mark.parametrize("number", [2 ** 53 + 1, -2 ** 60 - 1, np.int64(2 ** 63 - 1),
                                    np.uint64(2 ** 64 - 1), np.int32(-7), 0])
def test_integers_are_exact(number):
    assert fg.tensor(number).item() == int(number)
    assert int(fg.tensor(number)) == int(number)
    assert fg.tensor([number])[0].item() == int(number)
    assert fg.tensor([number, number]).numpy()[1] == number
    assert bool(fg.tensor(number) == number)
    assert repr(fg.tensor(number)).startswith(f"tensor({int(number)}")


# ---- what it says of itself -----------------------------------------------------------------

@pytest.mark.parametrize("make, text", [
    (lambda: fg.tensor(1.5), "tensor(1.5)"), (lambda: fg.tensor(3), "tensor(3)"),
    (lambda: fg.tensor(True), "tensor(True)"), (lambda: fg.tensor([1, 2]), "tensor([1, 2])"),
    (lambda: fg.tensor([True, False]), "tensor([ True, False])"),
    (lambda: fg.tensor(np.float32(2)), "tensor(2., dtype=float32)"),
    (lambda: fg.tensor([1.0], dtype=np.float32), "tensor([1.], dtype=float32)"),
    (lambda: fg.tensor([1], dtype=np.uint8), "tensor([1], dtype=uint8)"),
    (lambda: fg.tensor([]), "tensor([])"),
    (lambda: fg.tensor(np.zeros((0, 3))), "tensor([], shape=(0, 3))"),
    (lambda: leaf([1, 2]), "tensor([1., 2.], requires_grad=True)"),
    (lambda: leaf([1, 2]) * 2, "tensor([2., 4.], op=multiply)"),
    (lambda: leaf([1, 2]).sum(), "tensor(3., op=sum)"),
    (lambda: leaf([1, 2])[0], "tensor(1., op=item)"),
    (lambda: leaf([[1], [2]]), "tensor([[1.],\n        [2.]], requires_grad=True)"),
    (lambda: fnp.sin(leaf(0)), "tensor(0., op=sin)"),
    (lambda: leaf([1, 2]).detach(), "tensor([1., 2.])"),
    (lambda: leaf(np.nan), "tensor(nan, requires_grad=True)"),
    (lambda: leaf([1, 2]) > 1, "tensor([False,  True])")])
def test_repr(make, text):
    assert repr(make()) == text


def test_repr_after_backward_and_of_large_tensors():
    w = leaf([1, 2])
    y = w * 3
    y.sum().backward()
    assert repr(y) == "tensor([3., 6.], op=multiply)"
    assert y.op == "multiply"
    large = repr(fg.tensor(np.zeros(5000)))
    assert "..." in large
    assert len(large) < 200


def test_str_and_format():
    t = leaf([1, 2])
    assert str(t) == "[1. 2.]"
    assert f"{t}" == "[1. 2.]"
    assert f"{t[0]:.3f}" == "1.000"
    assert f"{t[:1]:8.2e}" == "1.00e+00"
    assert f"{fg.tensor(3):03d}" == "003"
    assert str(leaf(1.5)) == "1.5"
    with pytest.raises(TypeError, match=r"\(2,\)"):
        f"{t:.3f}"


def test_values():
    t = leaf([[1, 2], [3, 4]])
    assert t.tolist() == [[1, 2], [3, 4]]
    assert t.item(3) == 4.0
    assert t.item(1, 0) == 3.0
    assert leaf(2.5).item() == 2.5
    assert type(leaf(2).item()) is float
    assert type(fg.tensor(2).item()) is int
    assert type(fg.tensor(True).item()) is bool
    assert leaf([[7]]).item() == 7.0
    assert fg.tensor(np.float32(0.1)).item() == float(np.float32(0.1))


def test_numpy_is_read_only_and_of_its_time():
    w = leaf([1, 2])
    seen = w.numpy()
    with pytest.raises(ValueError, match="read-only"):
        seen[0] = 5
    detached = w.detach()
    with fg.no_grad():
        w -= 1
        w[0] = 9
    np.testing.assert_array_equal(seen, [1, 2])
    assert detached.tolist() == [1, 2]
    assert w.tolist() == [9, 1]
    y = w * 2
    seen = y.numpy()
    y[0] = -1.0
    y += 1
    np.testing.assert_array_equal(seen, [18, 2])
    assert isinstance(leaf(1.0).numpy(), np.ndarray)
    assert leaf(1.0).numpy().shape == ()


def test_numpy_outlives_the_tensor():
    seen = [(leaf(np.full(n, 3.0)) * 2).numpy() for n in (3, 100, 10_000)]
    for _ in range(10):
        (leaf(np.ones(10_000)) * 5).sum()
    for values in seen:
        np.testing.assert_array_equal(values, 6.0)


def test_detach():
    w = leaf([1, 2])
    y = (w * 2).detach()
    assert y.is_leaf
    assert not y.requires_grad
    assert (y * w).requires_grad
    (y * w).sum().backward()
    assert w.grad.tolist() == [2, 4]
    assert w.detach() is not w


def test_clone_and_copies():
    w = leaf([1, 2])
    for same in (w.clone(), w.copy(), copy.copy(w), +w, fnp.copy(w)):
        assert same is not w
        same[0] = 7.0
        assert w.tolist() == [1, 2]
        w.zero_grad()
        (same * same).sum().backward()
        assert w.grad.tolist() == [0, 4]
    deep = copy.deepcopy(w)
    assert deep.is_leaf
    assert deep.requires_grad
    w.zero_grad()
    (deep * 2).sum().backward()
    assert w.grad is None
    assert deep.grad.tolist() == [2, 2]
    integers = fg.tensor([1, 2])
    assert integers.clone().tolist() == [1, 2]


@pytest.mark.parametrize("t", [
    leaf([1, 2]), leaf(1.5), leaf([[1, 2]], np.float32), fg.tensor([1, 2]), fg.tensor(True),
    fg.tensor(np.zeros((0, 2))), fg.tensor(np.arange(6.0).reshape(2, 3).T)], ids=repr)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(t, protocol):
    again = pickle.loads(pickle.dumps(t, protocol))
    assert repr(again) == repr(t)
    assert again.dtype == t.dtype
    assert again.requires_grad == t.requires_grad
    assert again.grad is None


def test_pickling_keeps_gradients_and_a_copy_lives_on_its_own():
    w = leaf([1, 2])
    (w * w).sum().backward()
    again = pickle.loads(pickle.dumps(w))
    assert again.grad.tolist() == [2, 4]
    (again * 3).sum().backward()
    assert again.grad.tolist() == [5, 7]
    assert w.grad.tolist() == [2, 4]


def test_hash_weakrefs_and_containers():
    import weakref
    w, v = leaf([1, 2]), leaf(3)
    assert {w: 1, v: 2}[v] == 2
    assert len({w, v, w}) == 2
    reference = weakref.ref(w)
    assert reference() is w
    del w
    assert reference() is None
    assert 3.0 in [v]


def test_tensors_have_numpys_methods():
    t = leaf([[1.0, 2.0], [3.0, 4.0]])
    for name in ("sum", "mean", "prod", "max", "min", "std", "var", "ravel", "squeeze", "argmax",
                 "any", "all", "cumsum", "round", "trace", "diagonal", "flatten", "conj", "copy",
                 "argsort"):
        if not hasattr(t, name):
            with pytest.raises(AttributeError, match=name):
                getattr(t, name)
            continue
        np.testing.assert_allclose(getattr(t, name)().numpy(), getattr(t.numpy(), name)())
        assert name in dir(t)
    assert t.T.tolist() == [[1, 3], [2, 4]]
    assert t.mT.tolist() == [[1, 3], [2, 4]]
    assert t.real is t
    assert t.clip(2, 3).tolist() == [[2, 2], [3, 3]]
    assert t.repeat(2, axis=0).shape == (4, 2)
    assert t.swapaxes(0, 1).tolist() == [[1, 3], [2, 4]]
    assert t.dot(t).tolist() == [[7, 10], [15, 22]]
    assert t.astype(np.float32).dtype == np.float32
    assert t.astype(int).dtype == np.int64
    assert not t.astype(int).requires_grad


# ---- operators ------------------------------------------------------------------------------

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow,
              operator.mod, operator.floordiv]


def of_numpy(act):
    """The operator on arrays. Before NumPy 2.2, float32 ** 2 stays float32 whatever the 2 is: a
    short cut past the promotion that np.power has."""
    return np.power if act is operator.pow else act


OTHERS = [2.0, 3, True, np.float64(1.5), np.float32(1.5), np.int32(2), np.bool_(True),
          np.array([1.5, 0.5, 2.0]), np.array([1.5, 0.5, 2.0], np.float32), np.array([1, 2, 3]),
          np.array(2.0), np.array([[1.0], [2.0]]), np.array([True, True, True])]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("other", OTHERS, ids=repr)
@pytest.mark.parametrize("act", ARITHMETIC, ids=lambda f: f.__name__)
def test_operators_with_anything(act, other, dtype):
    values = np.array([1.3, 2.6, 0.7], dtype)
    more = [] if isinstance(other, (float, int)) and not isinstance(other, np.generic) else [
        fg.tensor(other)]
    for operand in [other, *more]:
        for call, exact in ((act, of_numpy(act)), (lambda x, y: act(y, x),
                                                   lambda x, y: of_numpy(act)(y, x))):
            t = fg.tensor(values, requires_grad=True)
            y = call(t, operand)
            expected = exact(values, other)
            assert isinstance(y, fg.Tensor)
            assert y.dtype == expected.dtype
            near = 1e-6 if y.dtype == np.float32 else 1e-14
            np.testing.assert_allclose(y.numpy(), expected, near)
            if y.requires_grad:
                y.sum().backward()
                wide, h = values.astype(float), 1e-6
                constant = np.asarray(other, float)
                slope = (call(wide + h, constant) - call(wide - h, constant)) / (2 * h)
                slope = slope.sum(0) if slope.ndim == 2 else slope
                assert t.grad.dtype == dtype
                np.testing.assert_allclose(t.grad.numpy(), slope, 1e-5, 1e-6)


@pytest.mark.parametrize("act", ARITHMETIC, ids=lambda f: f.__name__)
@pytest.mark.parametrize("other", OTHERS[:7], ids=repr)
@pytest.mark.parametrize("dtype", DTYPES)
def test_operators_of_scalars(act, other, dtype):
    for call in (lambda x, y: act(x, y), lambda x, y: act(y, x)):
        t = fg.tensor(dtype(1.25), requires_grad=True)
        y = call(t, other)
        expected = call(dtype(1.25), other)
        assert y.shape == ()
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(y.numpy(), expected, 1e-6 if y.dtype == np.float32 else 1e-15)


def test_unary_operators():
    w = leaf([-1.5, 2.5])
    assert (-w).tolist() == [1.5, -2.5]
    assert (+w).tolist() == [-1.5, 2.5]
    assert abs(w).tolist() == [1.5, 2.5]
    assert round(w).tolist() == [-2, 2]
    assert round(leaf(1.256), 2).item() == 1.26
    assert math.floor(leaf(1.5)).item() == 1
    assert math.ceil(leaf(1.5)).item() == 2
    assert math.trunc(leaf(-1.5)).item() == -1
    quotient, rest = divmod(w, 2.0)
    assert quotient.tolist() == [-1, 1]
    assert rest.tolist() == [0.5, 0.5]
    quotient, rest = divmod(7.0, leaf(2.0))
    assert (quotient.item(), rest.item()) == (3, 1)
    (abs(w) + rest - -w).sum().backward()
    assert w.grad.tolist() == [0, 2]


def test_power_has_no_modulus():
    with pytest.raises(TypeError):
        pow(leaf(2.0), 2, 3)


@pytest.mark.parametrize("act", [operator.lt, operator.le, operator.gt, operator.ge, operator.eq,
                                 operator.ne], ids=lambda f: f.__name__)
@pytest.mark.parametrize("other", OTHERS, ids=repr)
def test_comparisons(act, other):
    values = np.array([1.5, 0.25, 3.0])
    t = fg.tensor(values, requires_grad=True)
    for call in (lambda x, y: act(x, y), lambda x, y: act(y, x)):
        y = call(t, other)
        assert isinstance(y, fg.Tensor)
        assert y.dtype == np.bool_
        assert not y.requires_grad
        np.testing.assert_array_equal(y.numpy(), call(values, other))
    scalar = act(t[0], other)
    np.testing.assert_array_equal(scalar.numpy(), act(values[0], other))


def test_comparisons_with_nan():
    t = leaf([np.nan, 1.0])
    assert (t == t).tolist() == [False, True]
    assert (t != t).tolist() == [True, False]
    assert (t < 2).tolist() == [False, True]


def test_logical_operators():
    t = leaf([1.0, 2.0, 3.0])
    assert ((t > 1) & (t < 3)).tolist() == [False, True, False]
    assert ((t < 2) | (t > 2)).tolist() == [True, False, True]
    assert ((t > 1) ^ np.array([True, True, False])).tolist() == [True, False, True]
    assert (~(t > 1)).tolist() == [True, False, False]
    assert (np.array([True, False, True]) & (t > 1)).tolist() == [False, False, True]
    assert (fg.tensor([1, 2]) & 3).tolist() == [1, 2]
    assert np.logical_and(t > 1, t < 3).tolist() == [False, True, False]


def test_masks_and_branches():
    w = leaf([-1.0, 2.0])
    y = w * (w > 0) + (w < 0) * 3.0 * w
    y.sum().backward()
    assert w.grad.tolist() == [3, 1]
    x = leaf(2.0)
    assert (x * x if x > 1 else -x).item() == 4.0
    assert bool(leaf([[1.0]]))
    assert not bool(leaf(0.0))
    assert [v.item() for v in sorted([leaf(3.0), leaf(1.0)])] == [1, 3]
    assert max(leaf(3.0), leaf(1.0)).item() == 3


def test_counts_and_indices_of_integers():
    n = fg.tensor(3)
    assert list(range(n)) == [0, 1, 2]
    assert [1, 2, 3, 4][n] == 4
    assert np.zeros(n).shape == (3,)
    assert (n * 2 + 1).item() == 7
    assert (n / 2).item() == 1.5
    assert (n // 2).dtype == np.int64
    assert (fg.tensor([1, 2, 3]) % 2).tolist() == [1, 0, 1]
    assert (leaf([1.0, 2.0]) * fg.tensor([2, 3])).tolist() == [2, 6]
    assert operator.index(fg.tensor(np.uint8(7))) == 7
    assert int(fg.tensor(True)) == 1
    assert float(fg.tensor(3)) == 3.0
    assert complex(fg.tensor(2.0)) == 2


# ---- promotion ------------------------------------------------------------------------------

def test_python_numbers_are_weak():
    t = leaf([1, 2], np.float32)
    for y in (t * 2.0, 2 * t, t + True, t ** 2, 1 / t, t - 1e-3, fnp.maximum(t, 0.0)):
        assert y.dtype == np.float32
    assert (t @ [1.0, 2.0]).dtype == np.float64
    for y in (t * np.float64(2), np.float64(2) * t, t + np.ones(2), t * np.int64(3),
              t[0] * np.float64(1)):
        assert y.dtype == np.float64
    for y in (t * np.float32(2), t * np.int16(3), t[0] * 2.0, t.sum() / 3):
        assert y.dtype == np.float32


@pytest.mark.parametrize("left", [*DTYPES, *INTEGERS])
@pytest.mark.parametrize("right", [*DTYPES, *INTEGERS])
def test_promotion_is_numpys(left, right):
    a, b = np.ones(2, left), np.ones(2, right)
    for act in (operator.add, operator.mul, operator.truediv):
        expected = act(a, b).dtype
        if expected == np.float16:
            with pytest.raises(TypeError, match="float16"):
                act(fg.tensor(a), fg.tensor(b))
            continue
        assert act(fg.tensor(a), fg.tensor(b)).dtype == expected
        assert act(fg.tensor(a), b).dtype == expected
        assert act(a, fg.tensor(b)).dtype == expected
        assert act(fg.tensor(a)[0], fg.tensor(b)).dtype == expected
        assert act(fg.tensor(a)[0], fg.tensor(b)[0]).dtype == expected


def test_gradients_have_the_dtype_of_their_leaf():
    a, b = leaf([1, 2], np.float32), leaf([3, 4])
    y = a * b + a.sum() * b.mean() + a[0] * np.float64(2)
    assert y.dtype == np.float64
    y.sum().backward()
    assert a.grad.dtype == np.float32
    assert b.grad.dtype == np.float64
    np.testing.assert_allclose(a.grad.numpy(), [3 + 7 + 4, 4 + 7])


# ---- NumPy's protocols ----------------------------------------------------------------------

def test_numpy_functions_on_tensors():
    w = leaf([1.0, 2.0])
    for y in (np.sin(w), np.add(w, 1), np.add(1.0, w), np.sum(w), np.multiply(np.ones(2), w),
              np.maximum(w, [0.0, 5.0]), np.where(w > 1, w, 0.0), np.dot(w, w), np.stack([w, w])):
        assert isinstance(y, fg.Tensor)
        assert y.requires_grad
    assert np.isnan(w).tolist() == [False, False]
    assert np.shape(w) == (2,)
    assert np.ndim(w) == 1
    assert np.size(w) == 2
    assert np.add.reduce(w).item() == 3
    assert np.multiply.outer(w, [1.0, 2.0]).tolist() == [[1, 2], [2, 4]]
    assert np.maximum.reduce(w).item() == 2
    assert np.sin(w, dtype=np.float32).dtype == np.float32
    assert np.iscomplexobj(w) is False


def test_accumulating_into_an_array_rebinds_it():
    w = leaf([1.0, 2.0])
    accumulator = np.zeros(2)
    accumulator += w
    accumulator *= w
    assert isinstance(accumulator, fg.Tensor)
    accumulator.sum().backward()
    assert w.grad.tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"\(2,\)"):
        short = np.zeros(1)
        short += w


def test_output_arguments_that_are_tensors():
    w = leaf([1.0, 2.0])
    y = w * 1
    result = np.multiply(y, w, out=y)
    assert result is y
    y.sum().backward()
    assert w.grad.tolist() == [2, 4]


def test_unrecorded_tensors_become_arrays():
    t = fg.tensor([1.0, 2.0])
    assert np.asarray(t).tolist() == [1, 2]
    assert np.array(t, dtype=np.float32).dtype == np.float32
    assert np.array(t).flags.writeable
    assert np.array([t, t]).shape == (2, 2)
    assert float(fg.tensor(2.0)) == 2
    assert math.sqrt(fg.tensor(4.0)) == 2
    with pytest.raises(ValueError, match="copy"):
        np.asarray(t, dtype=np.float32, copy=False)


# ---- in place, versions, views --------------------------------------------------------------

@pytest.mark.parametrize("act", [operator.iadd, operator.isub, operator.imul, operator.itruediv,
                                 operator.ipow, operator.ifloordiv, operator.imod],
                         ids=lambda f: f.__name__)
@pytest.mark.parametrize("other", [2.0, 3, np.array([1.5, 2.0, 0.5]), np.float64(2)], ids=repr)
def test_in_place_operators(act, other):
    values = np.array([1.25, 2.5, 0.75])
    expected = act(values.copy(), other)
    w = leaf(values)
    y = w * 1
    alias = y
    y = act(y, other)
    assert y is alias
    np.testing.assert_allclose(y.numpy(), expected)
    if y.requires_grad:
        y.sum().backward()
        slope = (act(values + 1e-6, other) - act(values - 1e-6, other)) / 2e-6
        np.testing.assert_allclose(w.grad.numpy(), slope, 1e-6, 1e-8)


def test_in_place_with_itself_and_with_tensors():
    w = leaf([2.0, 3.0])
    y = w * 1
    y *= y
    y += w
    y -= y[0]
    (y * w).sum().backward()
    x0, x1 = 2.0, 3.0
    # y = (0, x1^2 + x1 - x0^2 - x0), the sum is x1 times the second.
    np.testing.assert_allclose(w.grad.numpy(), [-(2 * x0 + 1) * x1,
                                                3 * x1 ** 2 + 2 * x1 - x0 ** 2 - x0])


def test_in_place_keeps_the_dtype():
    y = leaf([1, 2], np.float32) * 1
    y += np.ones(2)
    assert y.dtype == np.float32
    y.sum().backward()


def test_scalars_in_place():
    x = leaf(3.0)
    y = x * 2
    before = y
    y += 1
    y *= x
    assert before.item() == 6
    y.backward()
    assert x.grad.item() == 13.0


def test_augmented_assignment_in_a_loop():
    x = leaf(1.1)
    total = 0.0
    for _ in range(5):
        total += x
        total *= x
    total.backward()
    np.testing.assert_allclose(x.grad.item(), sum(k * 1.1 ** (k - 1) for k in range(2, 7)))


def test_updates_of_parameters():
    w = leaf([1.0, 2.0])
    identity = id(w)
    for step in range(3):
        loss = (w * w).sum()
        loss.backward()
        with fg.no_grad():
            w -= 0.25 * w.grad
        w.zero_grad()
        assert w.is_leaf
        assert w.requires_grad
        assert w.grad is None
        assert w.tolist() == [0.5 ** (step + 1), 2 * 0.5 ** (step + 1)]
    assert id(w) == identity


def test_an_update_between_recording_and_the_sweep():
    w = leaf([1.0, 2.0])
    loss = (w * w).sum()
    with fg.no_grad():
        w *= 100
        w[0] = -5
    loss.backward()
    assert w.grad.tolist() == [2, 4]
    assert w.tolist() == [-5, 200]
    (w * w).sum().backward()
    assert w.grad.tolist() == [2 - 10, 4 + 400]


def test_scalar_parameters_update_as_well():
    w = leaf(2.0)
    loss = w * w
    with fg.no_grad():
        w -= 1
    loss.backward()
    assert w.grad.item() == 4.0
    assert w.item() == 1.0
    assert w.is_leaf
    (w * w).backward()
    assert w.grad.item() == 6.0


def test_arrays_that_change_after_they_were_used():
    for n in (3, 3000):
        w = leaf(np.ones(n))
        a = np.arange(float(n))
        y = w * a + w @ a
        z = fnp.where(a > 1, w, 0.0)
        a[:] = -7
        (y.sum() + z.sum()).backward()
        np.testing.assert_array_equal(w.grad.numpy(), np.arange(n) * (1.0 + n) + (np.arange(n) > 1))
        # Used again, it counts with its new contents.
        w.zero_grad()
        (w * a).sum().backward()
        np.testing.assert_array_equal(w.grad.numpy(), -7)


def test_assigning_to_a_constant_records_it():
    out = fg.tensor(np.zeros(3))
    w = leaf(2.0)
    out[1] = w * w
    assert out.requires_grad
    out.sum().backward()
    assert w.grad.item() == 4.0


def test_assignment_needs_no_second_reference():
    y = leaf([1.0, 2.0, 3.0]) * 2
    for i in range(3):
        y[i] = y[i] * (i + 1)
    assert y.tolist() == [2, 8, 18]


def test_integer_tensors_can_be_assigned_to():
    t = fg.tensor([1, 2, 3])
    t[0] = 5
    t[1:] += 1
    assert t.tolist() == [5, 3, 4]
    mask = fg.tensor([True, False])
    mask[1] = True
    assert mask.tolist() == [True, True]


# ---- gradients ------------------------------------------------------------------------------

def test_gradients_accumulate():
    w, s = leaf([1.0, 2.0]), leaf(3.0)
    for k in (1, 2, 3):
        (w * s).sum().backward()
        assert w.grad.tolist() == [3 * k, 3 * k]
        assert s.grad.item() == 3 * k
    assert isinstance(w.grad, fg.Tensor)
    assert not w.grad.requires_grad
    w.zero_grad()
    assert w.grad is None
    s.grad = None
    (w * s).sum().backward()
    assert w.grad.tolist() == [3, 3]
    assert s.grad.item() == 3


def test_an_older_gradient_is_not_changed_by_accumulation():
    w = leaf([1.0, 2.0])
    (w * 2).sum().backward()
    seen, held = w.grad.numpy(), w.grad * 1
    (w * 3).sum().backward()
    np.testing.assert_array_equal(seen, [2, 2])
    assert held.tolist() == [2, 2]
    assert w.grad.tolist() == [5, 5]


def test_gradients_can_be_set():
    w = leaf([1.0, 2.0])
    w.grad = [10, 20]
    (w * 1).sum().backward()
    assert w.grad.tolist() == [11, 21]
    shared = fg.tensor([1.0, 1.0])
    w.grad = shared
    (w * 1).sum().backward()
    assert w.grad.tolist() == [2, 2]


def test_seeds():
    w = leaf([1.0, 2.0])
    for seed in ([1.0, 10.0], np.array([1, 10]), fg.tensor([1.0, 10.0]), (1, 10),
                 np.array([1, 10], np.float32)):
        w.zero_grad()
        (w * w).backward(seed)
        assert w.grad.tolist() == [2, 40]
    w.zero_grad()
    (w * w).backward(seed=np.broadcast_to(2.0, (2,)))
    assert w.grad.tolist() == [4, 8]
    w.zero_grad()
    (w * w).sum().backward(3.0)
    assert w.grad.tolist() == [6, 12]
    w.zero_grad()
    (w * w).sum().backward(np.float32(3))
    assert w.grad.tolist() == [6, 12]
    w.zero_grad()
    (w * w)[:1].backward()
    assert w.grad.tolist() == [2, 0]
    seed = np.ones(2)
    w.zero_grad()
    w.backward(seed)
    seed[:] = 9
    assert w.grad.tolist() == [1, 1]


def test_retain_graph():
    w = leaf([1.0, 2.0])
    loss = fnp.sum(fnp.exp(w) * w)
    expected = np.exp([1.0, 2.0]) * (1 + np.array([1.0, 2.0]))
    for k in (1, 2):
        loss.backward(retain_graph=True)
        np.testing.assert_allclose(w.grad.numpy(), k * expected)
    loss.backward()
    np.testing.assert_allclose(w.grad.numpy(), 3 * expected)
    with pytest.raises(RuntimeError, match="retain_graph"):
        loss.backward()


def test_retain_grad_of_intermediates():
    w = leaf([1.0, 2.0])
    h = w * w
    s = h.sum()
    h.retain_grad()
    s.retain_grad()
    (s * s).backward()
    assert s.grad.item() == 10
    assert h.grad.tolist() == [10, 10]
    assert w.grad.tolist() == [20, 40]
    plain = w * w
    plain.sum().backward()
    assert plain.grad is None
    w.retain_grad()


def test_gradients_leave_grad_alone():
    w, v = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    h = w * v
    y = (h * h).sum()
    of_h, of_w, of_v = fg.gradients(y, (h, w, v), retain_graph=True)
    assert of_h.tolist() == [6, 16]
    assert of_w.tolist() == [18, 64]
    assert of_v.tolist() == [6, 32]
    assert fg.gradients(y, w, retain_graph=True).tolist() == [18, 64]
    assert isinstance(fg.gradients(y, [w], retain_graph=True), list)
    assert w.grad is None
    assert v.grad is None
    assert fg.gradients(y, [y])[0].item() == 1.0
    other = leaf([5.0, 5.0])
    assert fg.gradients((w * 2).sum(), [other, w])[0].tolist() == [0, 0]
    assert fg.gradients(w, w, seed=[3, 4]).tolist() == [3, 4]
    assert fg.gradients(h * 1, [w, w], seed=[1, 2])[1].tolist() == [3, 8]
    assert fg.gradients((w * 2).sum(), []) == []


def test_only_what_is_reached_is_consumed():
    w = leaf([1.0, 2.0])
    a, b = fnp.exp(w), fnp.sin(w)
    a.sum().backward()
    b.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), np.exp([1, 2]) + np.cos([1, 2]))


def test_diamonds_and_repeated_operands():
    w = leaf([1.0, 2.0])
    y = w + w
    y = y * y + y - w * y / w
    y.sum().backward()
    assert w.grad.tolist() == [8, 16]
    x = leaf(2.0)
    (x * x * x + x ** x - x / x).backward()
    np.testing.assert_allclose(x.grad.item(), 12 + 4 * (math.log(2) + 1))


def test_long_chains_do_not_recurse():
    x = leaf(0.5)
    y = x
    for _ in range(200_000):
        y = y * 1.0 + 1e-9
    y.backward()
    assert x.grad.item() == 1.0
    v = leaf([0.5])
    y = v
    for _ in range(30_000):
        y = y + 1.0
    del y
    y = v
    for _ in range(30_000):
        y = y * 1.0
    y.backward()
    assert v.grad.tolist() == [1.0]


def test_requires_grad_can_be_switched_on_leaves():
    t = fg.tensor([1.0, 2.0])
    t.requires_grad = True
    y = (t * t).sum()
    t.requires_grad = False
    assert not (t * t).requires_grad
    y.backward()
    t.requires_grad = True
    (t * 3).sum().backward()
    assert t.grad.tolist()[0] in (3, 5)


# ---- scopes ---------------------------------------------------------------------------------

def test_no_grad():
    w = leaf([1.0, 2.0])
    with fg.no_grad():
        y = w * 2
        with fg.no_grad():
            pass
        z = fnp.sin(w).sum()
        assert not core.is_recording()
    assert not y.requires_grad
    assert not z.requires_grad
    assert (w * y).requires_grad
    scope = fg.no_grad()
    for _ in range(2):
        with scope:
            assert not (w * 2).requires_grad

    @fg.no_grad()
    def f(x, *, k=2):
        """Doc."""
        return x * k

    assert f.__name__ == "f"
    assert f.__doc__ == "Doc."
    assert f(w, k=3).tolist() == [3, 6]
    assert not f(w).requires_grad
    assert (w * 2).requires_grad


def test_record():
    w = leaf([1.0, 2.0])
    outside = w * 5
    with fg.record() as tape:
        loss = ((w * 3 - 1) ** 2).sum()
        assert isinstance(fnp.zeros(2), fg.Tensor)
        assert len(tape) > 0
    later = w * 7
    assert type(fnp.zeros(2)) is np.ndarray
    assert len(tape) == 4
    assert tape.nbytes >= 4 * 64
    lines = str(tape).splitlines()
    assert len(lines) == 4
    for name, line in zip(["multiply", "subtract", "square", "sum"], lines, strict=True):
        assert name in line
        assert "bytes" in line
    assert "4 operations" in repr(tape)
    loss.backward()
    assert w.grad.tolist() == [12, 30]
    del loss
    assert len(tape) == 0
    assert outside.tolist() == [5, 10]
    assert later.tolist() == [7, 14]


def test_memory_stays_flat():
    w = leaf(np.ones(50))

    def step():
        loss = (fnp.tanh(w) * w).sum()
        loss.backward()
        with fg.no_grad():
            w[...] = w - 0.001 * w.grad
        w.zero_grad()
        return loss

    loss = step()
    for _ in range(50):
        loss = step()
    nodes, used = core.tape_info()["nodes"], core.pool_info()["used"]
    for _ in range(3000):
        loss = step()
    assert core.tape_info()["nodes"] <= nodes
    assert core.pool_info()["used"] <= used + 4096
    assert math.isfinite(loss.item())


def test_filling_is_linear():
    def fill(n):
        """The bytes that it takes: a copy of the array for each entry would be quadratic."""
        start = core.pool_info()["taken"]
        w = leaf(2.0)
        with fg.record():
            out = fnp.zeros(n)
        for i in range(n):
            out[i] = w * i
        out.sum().backward()
        assert w.grad.item() == n * (n - 1) / 2
        return core.pool_info()["taken"] - start

    assert fill(10_000) < 10 * 1.5 * fill(1000)


@pytest.mark.parametrize("step", [
    lambda t: t[:], lambda t: t.reshape(-1), lambda t: t.T, lambda t: t[None][0],
    lambda t: fnp.flip(t)], ids=["slice", "reshape", "T", "axis", "flip"])
def test_a_long_chain_of_views(step):
    # A step that asks all parents, or one that recurses, does not get through this.
    base = fg.tensor(np.arange(4.0)) * 1
    last = base
    for _ in range(30_000):
        last = step(last)
    base[1] = 7.0
    assert last.tolist() == [0.0, 7.0, 2.0, 3.0]
    last[2] = 9.0
    assert base.tolist() == [0.0, 7.0, 9.0, 3.0]
    assert last.tolist() == base.tolist()


def test_views_of_what_may_not_change_are_left_as_they_were():
    w = fg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    part = w[1:]
    with pytest.raises(RuntimeError, match="no_grad"):
        part[0] = 5.0
    with pytest.raises(RuntimeError, match="no_grad"):
        part += 1.0
    assert part.tolist() == [2.0, 3.0] and w.tolist() == [1.0, 2.0, 3.0]
    wide = fnp.broadcast_to(fg.tensor([1.0, 2.0]) * 1, (2, 2))
    row = wide[0]
    for change in (lambda: row.__setitem__(0, 5.0), lambda: row.__iadd__(1.0)):
        with pytest.raises(ValueError, match="read-only"):
            change()
    assert row.tolist() == [1.0, 2.0] and wide.tolist() == [[1.0, 2.0]] * 2
