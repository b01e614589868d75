"""fastgrad.numpy and fastgrad.special: laws over a list of calls.

The calls are those of laws/calls.py; they run with NumPy, with fastgrad.numpy and with
`np.f(t)` on Tensors. What holds for every name, one by one, stands in laws/test_namespace.py.
"""

import doctest
import inspect
import itertools
import pickle
import types

import numpy as np
import pytest
from laws.calls import (
    CALLS,
    CREATION,
    FUNCTIONS,
    LINALG,
    NUMPY_2_1,
    NUMPY_2_5,
    SPECIAL,
    T3,
    VALUES,
    M,
    S,
    Tensor,
    V,
    assert_same,
    draw,
    named,
    parts,
    value,
    weighted,
)

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import special
from fastgrad._core import core
from fastgrad.numpy._dispatch import implements

# ---- laws -----------------------------------------------------------------------------------

@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("call, shapes", named(CALLS + VALUES))
def test_plain_operands_get_numpys_own_result(call, shapes, dtype):
    arrays = draw(shapes, dtype)
    for mine, numpys in zip(parts(call(fnp, *arrays)), parts(call(np, *arrays)), strict=True):
        assert type(mine) is type(numpys)
        assert_same(mine, numpys, dtype)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("call, shapes", named(CALLS))
def test_tensors_get_numpys_values(call, shapes, dtype):
    arrays = draw(shapes, dtype)
    expected = call(np, *arrays)
    recorded = call(fnp, *[fg.tensor(a, requires_grad=True) for a in arrays])
    assert isinstance(recorded, (tuple, list)) == isinstance(expected, (tuple, list))
    for mine, numpys in zip(parts(recorded), parts(expected), strict=True):
        assert isinstance(mine, Tensor)
        assert mine.shape == np.shape(numpys)
        assert mine.dtype == np.asarray(numpys).dtype
        assert_same(mine, numpys, dtype)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("call, shapes", named(CALLS + VALUES))
def test_numpys_dispatch_is_the_same_function(call, shapes):
    tensors = [fg.tensor(a, requires_grad=True) for a in draw(shapes)]
    for mine, dispatched in zip(parts(call(fnp, *tensors)), parts(call(np, *tensors)), strict=True):
        assert type(mine) is type(dispatched)
        np.testing.assert_array_equal(value(mine), value(dispatched))


@pytest.mark.parametrize("call, shapes", named(VALUES))
def test_values_without_derivative(call, shapes):
    arrays = draw(shapes)
    for mine, numpys in zip(parts(call(fnp, *[fg.tensor(a, requires_grad=True) for a in arrays])),
                            parts(call(np, *arrays)), strict=True):
        assert isinstance(mine, Tensor) == isinstance(numpys, (np.ndarray, np.generic))
        if isinstance(mine, Tensor):
            assert not mine.requires_grad
            assert mine.dtype == numpys.dtype
        assert_same(mine, numpys)


@pytest.mark.sampled(2)
@pytest.mark.filterwarnings("ignore:.*does not depend on the arguments:UserWarning")
@pytest.mark.parametrize("call, shapes", named(CALLS))
def test_gradient_is_that_of_central_differences(call, shapes):
    arrays = draw(shapes)
    argnums = tuple(range(len(arrays)))

    def scalar(*operands):
        return weighted(call(fnp, *operands))

    if not any(part.size for part in parts(call(np, *arrays))):
        return
    gradients = fg.grad(scalar, argnums)(*arrays)
    step = 1e-6
    for k, (a, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        gradient = np.asarray(gradient)
        assert gradient.shape == a.shape
        assert gradient.dtype == a.dtype
        for place in np.ndindex(a.shape):
            ends = []
            for h in (step, -step):
                moved = [b.copy() for b in arrays]
                moved[k][place] += h
                ends.append(weighted(call(np, *moved)))
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / (2 * step),
                                                    rel=1e-6, abs=1e-7)

    single = fg.grad(scalar, argnums)(*draw(shapes, np.float32))
    for gradient, precise in zip(single, gradients, strict=True):
        assert np.asarray(gradient).dtype == np.float32
        np.testing.assert_allclose(gradient, precise, rtol=2e-4, atol=2e-4)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("call, shapes", named(CALLS))
def test_integer_tensors_are_computed_by_value(call, shapes):
    arrays = [np.arange(1, a.size + 1).reshape(a.shape) for a in draw(shapes)]
    try:
        expected = call(np, *arrays)
    except TypeError:           # a call that NumPy itself does not have for integers
        return
    for mine, numpys in zip(parts(call(fnp, *map(fg.tensor, arrays))), parts(expected),
                            strict=True):
        assert isinstance(mine, Tensor)
        assert mine.dtype == numpys.dtype
        assert_same(mine, numpys)


# Calls of one array that do not ask it for methods, operators or copies of its own kind, nor
# are functions of the core, which say what to write instead.
@pytest.mark.sampled(2)
@pytest.mark.parametrize("call, shapes", [
    case for case in named(CALLS)
    if len(case.values[1]) == 1 and case.values[1][0] and 0 not in case.values[1][0]
    and not {"extract", "select", "mean", "zeros_like", "ones_like", "empty_like", "full_like",
             "astype", "sum", "cholesky", "eigh"}
    & {*case.values[0].__code__.co_names, (case.values[0].__defaults__ or ("",))[0]}
    and case.values[0].__code__.co_names not in {("transpose",), ("permute_dims",)}])
def test_nested_sequences_of_tensors_are_arrays(call, shapes):
    t = fg.tensor(*draw(shapes), requires_grad=True)
    nested = [t[k] for k in range(len(t))]
    for mine, expected in zip(parts(call(fnp, nested)), parts(call(fnp, t)), strict=True):
        assert isinstance(mine, Tensor)
        assert_same(mine, value(expected))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["mean", "var", "std", "prod", "max", "min", "ptp", "sum", "all",
                                  "any", "argmax", "count_nonzero"])
def test_reductions_along_every_axis(name, keepdims):
    for shape in [(), (3,), (0,), (2, 3), (2, 0, 3), (1, 2, 1)]:
        axes = [None, *range(-len(shape), len(shape))]
        if name != "argmax":
            axes += [(), *itertools.combinations(range(len(shape)), 2)]
        x, = draw([shape])
        for axis in axes:
            try:
                expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
            except ValueError as error:                     # the maximum of nothing
                with pytest.raises(type(error)):
                    getattr(fnp, name)(fg.tensor(x), axis=axis, keepdims=keepdims)
                continue
            mine = getattr(fnp, name)(fg.tensor(x), axis=axis, keepdims=keepdims)
            assert value(mine).shape == np.shape(expected)
            assert_same(mine, expected)


# ---- the namespace --------------------------------------------------------------------------

def test_rows_of_the_table_are_the_cores_own_functions():
    for row in core.operators():
        if row.arity in (1, 2) and row.name in core.functions and not row.inner:
            for name in (row.name, *row.numpy):
                assert getattr(fnp, name) is core.functions[row.name]
                assert not row.numpy or hasattr(np, name) or name == row.name
    assert fnp.sum is core.sum
    assert fnp.matmul is core.matmul


# Parameters that are of today's name and kind only since a NumPy newer than 2.0.
SINCE = {("sort", "descending"): "2.5.0", ("clip", "min"): "2.1.0", ("clip", "max"): "2.1.0",
         ("reshape", "a"): "2.4.0", ("reshape", "shape"): "2.1.0", ("reshape", "copy"): "2.1.0",
         ("astype", "device"): "2.1.0"}
# What fnp.reshape need not have: the old name of `shape`.
UNTIL = {("reshape", "newshape"): "2.4.0"}


def has_signature(function):
    try:
        inspect.signature(function)
    except ValueError:                      # a function in C, before NumPy 2.4
        return False
    return True


@pytest.mark.parametrize("module", ["", "linalg"])
def test_parameters_are_numpys(module):
    mine, numpys = (fnp.linalg, np.linalg) if module else (fnp, np)
    installed = np.lib.NumpyVersion(np.__version__)
    compared = 0
    for name, function in (LINALG if module else FUNCTIONS).items():
        if not function.__module__.startswith("fastgrad.numpy") or not hasattr(numpys, name):
            continue
        if installed < "2.4.0" and isinstance(getattr(numpys, name), np.ufunc):
            continue                        # all ufuncs take (*args, **kwargs) there
        if not has_signature(getattr(numpys, name)):
            assert installed < "2.4.0", name
            continue
        expected = inspect.signature(getattr(numpys, name)).parameters
        parameters = inspect.signature(getattr(mine, name)).parameters
        common = [p for p in expected if p in parameters]
        newer = {p for p in parameters if installed < SINCE.get((name, p), "0.0.0")}
        assert [p for p in parameters if p in common or p not in newer] == common or (
            "kwargs" in parameters), name
        if not isinstance(getattr(numpys, name), np.ufunc):
            older = {p for p in expected if installed < UNTIL.get((name, p), "0.0.0")}
            assert set(expected) - set(parameters) - older <= {"ndmax"}, name
        for p in common:
            assert parameters[p].kind == expected[p].kind or p in newer or (
                (name, p) == ("reshape", "order") and installed < "2.2.0"), (name, p)
        compared += 1
    assert compared > (8 if module else 80 if installed >= "2.4.0" else 50)


def required(function):
    return [p for p in inspect.signature(function).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


@pytest.mark.parametrize("name", [
    name for name, function in FUNCTIONS.items()
    if getattr(inspect.unwrap(function), "__module__", "").startswith("fastgrad")
    and isinstance(function, types.FunctionType) and name != "einsum"
    and "out" in inspect.signature(function).parameters])
def test_tensors_are_not_written_to_an_array(name):
    function = FUNCTIONS[name]
    t = fg.tensor([1.0, 2.0], requires_grad=True)
    operands = [t for _ in required(function)]
    if name in ("concatenate", "concat", "stack"):
        operands = [[t]]
    with pytest.raises(TypeError, match="out="):
        function(*operands, out=np.empty(2))


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "max", "min"])
def test_a_mask_must_fit(name):
    t = fg.tensor([1.0, 2.0], requires_grad=True)
    options = {"initial": 0} if name in ("max", "min") else {}
    with pytest.raises(TypeError, match=f"{name}: where= must be boolean"):
        getattr(fnp, name)(t, where=[1, 0], **options)
    with pytest.raises(ValueError, match=rf"{name}: where= of the shape \(3, 2\)"):
        getattr(fnp, name)(t, where=np.ones((3, 2), bool), **options)


def test_einsum_refuses_lists_of_integers_and_out():
    t = fg.tensor(np.ones((2, 2)), requires_grad=True)
    with pytest.raises(TypeError, match="letters"):
        fnp.einsum(t, [0, 0], [0])
    with pytest.raises(TypeError, match="out="):
        fnp.einsum("ii", t, out=np.empty(()))


def test_numpy_serves_what_has_no_rule():
    x = np.array([3.0, 1.0, 2.0])
    assert fnp.median(x) == 2.0
    assert fnp.random is np.random
    assert fnp.float16 is np.float16
    assert fnp.gcd is np.gcd
    assert fnp.linalg.LinAlgError is np.linalg.LinAlgError
    assert fnp.linalg.det(np.eye(2)) == 1.0
    assert {"sin", "median", "linalg"} <= set(dir(fnp))
    t = fg.tensor(x, requires_grad=True)
    with pytest.raises(fg.NoDerivativeError, match="median"):
        fnp.median(t)
    with pytest.raises(fg.NoDerivativeError, match="median"):
        np.median(t)
    with pytest.raises(fg.NoDerivativeError, match="median"):
        fnp.median([t, t])
    with pytest.raises(fg.NoDerivativeError, match="linalg.inv"):
        fnp.linalg.inv(fnp.outer(t, t))
    assert_same(fnp.unique(fg.tensor([2, 1, 2])), [1, 2])
    with pytest.raises(AttributeError, match="no attribute 'medium'"):
        fnp.medium  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'medium'"):
        fnp.linalg.medium  # noqa: B018


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_are_documented_and_pickle(name):
    assert FUNCTIONS[name].__doc__
    assert pickle.loads(pickle.dumps(FUNCTIONS[name])) is FUNCTIONS[name]


@pytest.mark.parametrize("name, function", [
    *FUNCTIONS.items(), *((f"linalg.{name}", function) for name, function in LINALG.items()),
    *((f"special.{name}", getattr(special, name)) for name in special.__all__),
    ("implements", implements)])
def test_examples(name, function):
    if not isinstance(function, types.FunctionType):        # the core tests its own
        return
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(recurse=False).find(
            function, name, globs={"fg": fg, "fnp": fnp, "np": np}):
        output = []
        assert runner.run(example, out=output.append).failed == 0, "".join(output)


# ---- bad input ------------------------------------------------------------------------------

BAD = [
    (lambda np, x: np.mean(x, 2), M),
    (lambda np, x: np.std(x, (0, 0)), M),
    (lambda np, x: np.max(x, 0), (0,)),
    (lambda np, x: np.max(x), (0,)),
    (lambda np, x: np.prod(x, -3), M),
    (lambda np, x: np.var(x, ddof=1, correction=1), M),
    (lambda np, x: np.average(x, weights=[1.0, 2.0]), M),
    (lambda np, x: np.average(x, 0, weights=[1.0, 2.0]), M),
    (lambda np, x: np.average(x, weights=x * 0), V),
    (lambda np, x: np.diff(x), S),
    (lambda np, x: np.diff(x, -1), V),
    (lambda np, x: np.reshape(x, (5, 3)), M),
    (lambda np, x: np.reshape(x, (-1, -1)), M),
    (lambda np, x: np.transpose(x, (0, 0)), M),
    (lambda np, x: np.transpose(x, (0,)), M),
    (lambda np, x: np.matrix_transpose(x), V),
    (lambda np, x: np.swapaxes(x, 0, 2), M),
    (lambda np, x: np.moveaxis(x, (0, 1), 0), M),
    (lambda np, x: np.moveaxis(x, 0, 5), M),
    (lambda np, x: np.rollaxis(x, 5), M),
    (lambda np, x: np.rollaxis(x, 0, 5), M),
    (lambda np, x: np.squeeze(x, 0), M),
    (lambda np, x: np.squeeze(x, 3), M),
    (lambda np, x: np.expand_dims(x, (0, 0)), M),
    (lambda np, x: np.broadcast_to(x, (2, 3)), V),
    (lambda np, x: np.broadcast_arrays(x, [1.0, 2.0]), V),
    (lambda np, x: np.fliplr(x), V),
    (lambda np, x: np.flipud(x), S),
    (lambda np, x: np.flip(x, 2), M),
    (lambda np, x: np.rot90(x, 1, (0, 0)), M),
    (lambda np, x: np.rot90(x, 1, (0, 3)), M),
    (lambda np, x: np.rot90(x, 1, (0,)), M),
    (lambda np, x: np.roll(x, 1, 3), M),
    (lambda np, x: np.roll(x, [[1]], 0), M),
    (lambda np, x: np.concatenate([x, x[0]]), M),
    (lambda np, x: np.concatenate([x, x[:, :2]]), M),
    (lambda np, x: np.concatenate([x, x], 2), M),
    (lambda np, x: np.stack([x, x[0]]), M),
    (lambda np, x: np.stack([x, x], 4), M),
    *[(lambda np, x: np.unstack(x), S)] * NUMPY_2_1,
    (lambda np, x: np.vstack([x, x[:2]]), V),
    (lambda np, x: np.append(x, 1.0, 0), M),
    (lambda np, x: np.array_split(x, 0), V),
    (lambda np, x: np.split(x, 3), V),
    (lambda np, x: np.hsplit(x, 1), S),
    (lambda np, x: np.vsplit(x, 1), V),
    (lambda np, x: np.dsplit(x, 1), M),
    (lambda np, x: np.tile(x, 1.5), V),
    (lambda np, x: np.repeat(x, -1), V),
    (lambda np, x: np.repeat(x, [1, 2]), V),
    (lambda np, x: np.meshgrid(x, x, indexing="yx"), V),
    (lambda np, x: np.take(x, 4), V),
    (lambda np, x: np.take(x, [[4]]), V),
    (lambda np, x: np.take(x, 0, 1), V),
    (lambda np, x: np.take(x, 0, mode="bounce"), V),
    (lambda np, x: np.take_along_axis(x, np.argmax(x, 0), 0), M),
    (lambda np, x: np.take_along_axis(x, x, 0), M),
    (lambda np, x: np.diagonal(x), V),
    (lambda np, x: np.diag(x), T3),
    (lambda np, x: np.delete(x, 4), V),
    (lambda np, x: np.pad(x, -1), V),
    (lambda np, x: np.pad(x, ((1, 2, 3),)), V),
    (lambda np, x: np.where(x > 0, x), V),
    (lambda np, x: np.where([True, False], x, 0.0), V),
    *[(lambda np, x: np.clip(x, 0.0, 1.0, min=0.0), V)] * NUMPY_2_1,
    (lambda np, x: np.select([], []), V),
    (lambda np, x: np.select([x > 0], [x, x]), V),
    (lambda np, x: np.dot(x, x), M),
    (lambda np, x: np.inner(x, x[:, :2]), M),
    (lambda np, x: np.vdot(x, x[:2]), M),
    (lambda np, x: np.vecdot(x, x[:, :2]), M),
    (lambda np, x: np.matmul(x, x), M),
    (lambda np, x: np.tensordot(x, x, 1), M),
    (lambda np, x: np.tensordot(x, x, ([0, 0], [0, 0])), M),
    (lambda np, x: np.tensordot(x, x, 5), M),
    (lambda np, x: np.cross(x, x), V),
    (lambda np, x: np.cross(x, x), S),
    (lambda np, x: np.einsum("ij,jk", x, x), M),
    (lambda np, x: np.einsum("ijk", x), M),
    (lambda np, x: np.einsum("ij,jk", x), M),
    (lambda np, x: np.einsum("ij->k", x), M),
    (lambda np, x: np.einsum("ij->ii", x), M),
    (lambda np, x: np.einsum("ii", x), M),
    (lambda np, x: np.einsum("i1", x), M),
    (lambda np, x: np.linspace(x, 1.0, -1), S),
    (lambda np, x: np.linalg.norm(x, "fro"), V),
    (lambda np, x: np.linalg.norm(x, 3), M),
    (lambda np, x: np.linalg.norm(x, 2), T3),
    (lambda np, x: np.linalg.norm(x, axis=(0, 0)), M),
    (lambda np, x: np.linalg.norm(x, axis=2), M),
    (lambda np, x: np.linalg.norm(x, axis="a"), M),
    (lambda np, x: np.linalg.norm(x, axis=(0, 1, 2)), T3),
    (lambda np, x: np.linalg.matrix_norm(x), V),
    (lambda np, x: np.linalg.outer(x, x), M),
]


@pytest.mark.parametrize("call, shapes", named(BAD))
def test_bad_input_raises_what_numpy_raises(call, shapes):
    x, = draw(shapes)
    with pytest.raises(Exception) as numpys:
        call(np, x)
    with pytest.raises(numpys.type):
        call(fnp, fg.tensor(x, requires_grad=True))


def test_a_dtype_without_derivative_is_refused():
    t = fg.tensor([1.0, 2.0], requires_grad=True)
    for call in (lambda: fnp.mean(t, dtype=int), lambda: fnp.array([t, t], "float16"),
                 lambda: fnp.prod(t, dtype=complex), lambda: fnp.full(2, t, dtype=int)):
        with pytest.raises(TypeError, match="float32"):
            call()


def test_an_order_without_meaning_is_refused():
    for x in (np.ones((1, 2)), fg.tensor([[1.0, 2.0]], requires_grad=True)):
        with pytest.raises(ValueError, match="order"):
            fnp.reshape(x, 2, order="K")
        with pytest.raises(ValueError, match="order"):
            fnp.ravel(x, "X")


# ---- creation -------------------------------------------------------------------------------

@pytest.mark.parametrize("call", CREATION)
def test_creation_functions(call):
    expected = call(np)
    assert type(call(fnp)) is np.ndarray
    assert_same(call(fnp), expected)
    with fg.record():
        made = call(fnp)
    assert isinstance(made, Tensor)
    assert made.dtype == expected.dtype
    assert made.shape == expected.shape
    if expected.size:
        assert_same(made, expected)


def test_asarray_of_an_array_does_not_share_with_a_tensor():
    x = np.ones(2)
    assert fnp.asarray(x) is x
    with fg.record():
        t = fnp.asarray(x)
    x[0] = 5.0
    assert_same(t, [1.0, 1.0])


def test_array_joins_nested_sequences():
    def f(x, v):
        return weighted(fnp.array([[x, 1.0, x * x], [2, v[1], v[0]], v[[0, 0, 1]]]))

    def plain(x, v):
        return weighted(np.array([[x, 1.0, x * x], [2, v[1], v[0]], v[[0, 0, 1]]]))

    x, v = 3.0, np.array([1.0, 4.0])
    of_x, of_v = fg.grad(f, (0, 1))(x, v)
    h = 1e-6
    assert of_x == pytest.approx((plain(x + h, v) - plain(x - h, v)) / (2 * h))
    for k, unit in enumerate(np.eye(2)):
        assert of_v[k] == pytest.approx((plain(x, v + h * unit) - plain(x, v - h * unit)) / (2 * h))


def test_array_follows_numpys_rules():
    t, single = fg.tensor(2.0, requires_grad=True), fg.tensor(np.float32(2), requires_grad=True)
    rows = fg.tensor(np.ones((2, 3)), requires_grad=True)
    assert fnp.array([t, 1, True]).dtype == np.float64
    assert fnp.array([single, single]).dtype == np.float32
    assert fnp.array([single, np.float32(1)]).dtype == np.float32
    assert fnp.array([single, 1.0]).dtype == np.array([np.float32(2), 1.0]).dtype
    assert fnp.array([t, t], dtype="float32").dtype == np.float32
    assert fnp.array([t, t], ndmin=3).shape == (1, 1, 2)
    assert fnp.array([[], []]).shape == (2, 0)
    assert fnp.array([rows, np.zeros((2, 3))]).shape == (2, 2, 3)
    assert fnp.array((rows[0], [1, 2, 3], (t, t, t))).shape == (3, 3)
    assert fnp.asarray(t) is t
    assert fnp.array(t) is not t
    assert fnp.array([fg.tensor(1), 2]).dtype == np.int64
    with pytest.raises(ValueError, match="inhomogeneous"):
        fnp.array([[t, t], [t]])
    with pytest.raises(ValueError, match="inhomogeneous"):
        fnp.array([rows, t])


def test_filling_an_array():
    def f(x):
        out = fnp.zeros((2, 3))
        for k in range(3):
            out[0, k] = x ** k
        out[1] = x
        return fnp.sum(out)

    assert fg.grad(f)(2.0) == 1 + 4 + 3


# ---- edges ----------------------------------------------------------------------------------

def test_where_keeps_infinite_slopes_out():
    x = np.array([-1.0, 0.0, 4.0])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.sum(fnp.where(x > 0, fnp.sqrt(x), 0.0)))(x),
                                  [0, 0, 0.25])
    np.testing.assert_array_equal(fg.grad(lambda x: np.sum(np.where(x > 0, np.log(x), x)))(x),
                                  [1, 1, 0.25])


def test_clip_has_slope_0_at_a_bound():
    x = np.array([0.0, 0.5, 1.0])
    for low, high, expected in [(0.0, 1.0, [0, 1, 0]), (0.0, None, [0, 1, 1]),
                                (None, 1.0, [1, 1, 0]), (np.zeros(3), None, [0, 1, 1]),
                                (np.zeros(3), np.ones(3), [0, 1, 0]), (None, None, [1, 1, 1])]:
        gradient = fg.grad(lambda x, a=low, b=high: fnp.sum(fnp.clip(x, a, b)))(x)
        np.testing.assert_array_equal(gradient, expected)


def test_ties_share():
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.sum(fnp.max(x, 1)))(x),
                                  [[0, 0.5, 0.5], [1 / 3] * 3])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.sum(fnp.min(x, 1)))(x),
                                  [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_array_equal(fg.grad(fnp.ptp)(np.ones(2)), [0, 0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_vanishes_has_gradient_0(dtype):
    for f, shape in [(fnp.std, V), (lambda x: fnp.sum(fnp.std(x, 0)), M), (fnp.var, V),
                     *[(lambda x, o=o: fnp.linalg.norm(x, o), V)
                       for o in (None, 1, 2, 3, 0.5, 2.5, np.inf, -np.inf)],
                     *[(lambda x, o=o: fnp.linalg.norm(x, o), M)
                       for o in (None, "nuc", 1, -1, 2, -2, np.inf, -np.inf)]]:
        gradient = fg.grad(f)(np.zeros(shape, dtype))
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, np.zeros(shape))


def test_matrix_norms_of_deficient_matrices():
    x = np.outer([1.0, 2.0, 2.0], [3.0, 4.0]) / 15
    for order in ("nuc", 2):                    # one singular value 1, with vectors x is made of
        np.testing.assert_allclose(fg.grad(lambda x, o=order: fnp.linalg.norm(x, o))(x), x,
                                   atol=1e-15)
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.linalg.norm(x, -2))(x), np.zeros((3, 2)))


def test_prod_with_zeros():
    np.testing.assert_array_equal(fg.grad(fnp.prod)(np.array([0.0, 2.0, 3.0])), [6, 0, 0])
    np.testing.assert_array_equal(fg.grad(fnp.prod)(np.array([0.0, 0.0, 3.0])), [0, 0, 0])


def test_sort_in_descending_order():
    x = np.array([3.0, np.nan, 1.0, 2.0])
    if NUMPY_2_5:
        weights = np.array([1.0, 2.0, 3.0, 4.0])
        got = fg.grad(lambda x: fnp.sum(fnp.sort(x, descending=True)[:3] * weights[:3]))(x)
        np.testing.assert_array_equal(got, [1.0, 0.0, 3.0, 2.0])
        for function in (fnp.sort, np.sort):
            got = fg.compile(lambda x: function(x, descending=True))(x)
            np.testing.assert_array_equal(got, np.sort(x, descending=True))
        assert fg.grad(lambda x: fnp.sort(x, descending=False)[0])(x).tolist() == [0, 0, 1, 0]
    else:
        with pytest.raises(TypeError, match=r"sort: descending= is new in NumPy 2.5.*flip"):
            fg.grad(lambda x: fnp.sort(x, descending=True)[0])(x)


def test_sort_follows_the_permutation():
    x = np.array([2.0, 1.0, 2.0])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.sort(x, kind="stable")[-1])(x), [0, 0, 1])


def test_nan_and_infinite_entries():
    x = np.array([1.0, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.sum(fnp.nan_to_num(x)))(x), [1, 0, 0, 0])
    assert np.isnan(value(fnp.mean(fg.tensor(x))))


# ---- methods --------------------------------------------------------------------------------

@pytest.mark.parametrize("name, arguments", [
    ("mean", (0,)), ("var", (1,)), ("std", ()), ("prod", (0,)), ("max", (1,)), ("min", ()),
    ("sum", (0,)), ("ravel", ()), ("flatten", ()), ("squeeze", ()), ("transpose", ()),
    ("transpose", (1, 0)), ("transpose", ((1, 0),)), ("swapaxes", (0, 1)), ("dot", (np.ones(4),)),
    ("clip", (-0.5, 0.5)), ("clip", (0.1,)), ("round", (1,)), ("argmax", (1,)), ("argmin", ()),
    ("argsort", (0,)), ("cumsum", (0,)), ("all", (0,)), ("any", ()), ("take", ([0, 1], 1)), ("repeat", (2, 0)),
    ("diagonal", (1,)), ("trace", ()), ("nonzero", ()), ("conj", ()), ("conjugate", ())])
def test_methods_are_those_of_arrays(name, arguments):
    x, = draw([M])
    t = fg.tensor(x, requires_grad=True)
    for mine, numpys in zip(parts(getattr(t, name)(*arguments)),
                            parts(getattr(x, name)(*arguments)), strict=True):
        assert mine.shape == np.shape(numpys)
        assert_same(mine, numpys)


def test_element_wise_methods():
    for row in core.operators():
        if row.arity == 1 and not row.inner:
            t = fg.tensor([0.25, 0.5], requires_grad=True)
            for name in (row.name, *row.numpy):
                np.testing.assert_array_equal(value(getattr(t, name)()),
                                              value(core.functions[row.name](t)))


def test_flatten_is_a_copy():
    x = fg.tensor([[1.0, 2.0]])
    flat = x.flatten()
    flat[0] = 5.0
    assert_same(x, [[1.0, 2.0]])


# ---- special functions ----------------------------------------------------------------------



@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("call, shapes", named(SPECIAL))
def test_special_functions_are_scipys(call, shapes, dtype):
    scipy_special = pytest.importorskip("scipy.special")
    arrays = draw(shapes, dtype)
    tensors = [fg.tensor(a, requires_grad=True) for a in arrays]
    for mine, plain, scipys in zip(parts(call(special, *tensors)), parts(call(special, *arrays)),
                                   parts(call(scipy_special, *arrays)), strict=True):
        assert isinstance(mine, Tensor)
        assert not isinstance(plain, Tensor)
        assert mine.dtype == scipys.dtype == plain.dtype
        assert mine.shape == scipys.shape == np.shape(plain)
        assert_same(mine, scipys, dtype)
        assert_same(plain, scipys, dtype)


@pytest.mark.parametrize("call, shapes", named(SPECIAL))
def test_special_gradients(call, shapes):
    arrays = draw(shapes)
    argnums = tuple(range(len(arrays)))
    gradients = fg.grad(lambda *xs: weighted(call(special, *xs)), argnums)(*arrays)
    for k, (a, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        for place in np.ndindex(a.shape):
            ends = []
            for h in (1e-6, -1e-6):
                moved = [b.copy() for b in arrays]
                moved[k][place] += h
                ends.append(weighted(call(special, *moved)))
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-7)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_special_functions_at_infinity():
    scipy_special = pytest.importorskip("scipy.special")
    for x in ([-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 1.0], [1000.0, 1000.0], [-1e5, 0.0],
              [np.nan, 1.0], [np.inf, np.inf]):
        for name in ("softmax", "log_softmax", "logsumexp"):
            expected = getattr(scipy_special, name)(x)
            assert_same(getattr(special, name)(fg.tensor(x)), expected)
            assert_same(getattr(special, name)(x), expected)
    weights = [0.0, 1.0]
    assert value(special.logsumexp(fg.tensor([1000.0, 0.0]), b=weights)) == 0.0
    assert value(special.logsumexp(fg.tensor([1.0, 0.0]), b=fg.tensor(weights))) == 0.0
    np.testing.assert_array_equal(fg.grad(special.logsumexp)(np.full(2, -np.inf)), [0, 0])


def test_xlog1py_at_0():
    assert fg.grad(special.xlog1py, (0, 1))(0.0, 1.0) == pytest.approx((np.log(2), 0.0))
    assert fg.grad(special.xlog1py, (0, 1))(0.0, -1.0) == (0.0, 0.0)
    assert np.isnan(special.xlog1py(0.0, np.nan))
