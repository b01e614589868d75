"""Optimisers: PyTorch's trajectories, laws, kinds, memory, errors; schedules; clipping.

Where PyTorch is not installed its trajectories come from data/optim_trajectories.npz, which
data/make_optim_trajectories.py writes.
"""

import collections
import copy
import dataclasses
import importlib.util
import math
import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import optim

MAKE = Path(__file__).parent / "data" / "make_optim_trajectories.py"
spec = importlib.util.spec_from_file_location(MAKE.stem, MAKE)
peer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peer)

# One of each optimiser, and each option that makes it do something else.
OPTIMIZERS = {repr(optimizer).replace(" ", ""): optimizer for optimizer in [
    optim.SGD(0.1), optim.SGD(0.1, weight_decay=0.1), optim.Momentum(0.1),
    optim.Momentum(0.1, dampening=0.5), optim.Nesterov(0.1), optim.RMSProp(),
    optim.RMSProp(centered=True, momentum=0.5), optim.Adam(0.1), optim.Adam(0.1, amsgrad=True),
    optim.AdamW(0.1, weight_decay=0.1)]}
every_case = pytest.mark.parametrize("ours, theirs, scheduler", peer.CASES,
                                     ids=[case[0] for case in peer.CASES])
every_optimizer = pytest.mark.parametrize("opt", OPTIMIZERS.values(), ids=OPTIMIZERS)

Pair = collections.namedtuple("Pair", "first second")


@dataclasses.dataclass
class Layer:
    weights: object
    bias: object


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning that no test asks for is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def snapshot(*trees):
    """What trees hold, for comparison after something may have changed them."""
    return pickle.dumps(trees)


# ---- PyTorch's trajectories -----------------------------------------------------------------

def path(opt, dtype):
    """The parameters after each step on the problem of the data file."""
    inputs, targets, weights, bias = peer.problem(dtype)
    params = {"weights": weights, "bias": bias}
    gradient = fg.grad(lambda p, target: np.mean(
        (np.tanh(inputs @ p["weights"] + p["bias"]) - target) ** 2))
    state = opt.init(params)
    rows = []
    for target in targets:
        params, state = opt.step(gradient(params, target), state, params)
        rows.append(np.concatenate([params["weights"].ravel(), params["bias"]]))
    assert rows[-1].dtype == dtype
    return np.array(rows)


def assert_same_path(actual, expected, dtype):
    tolerance = {"float64": 1e-12, "float32": 1e-5}[dtype]
    np.testing.assert_allclose(actual, expected, rtol=tolerance,
                               atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_case
def test_trajectories(ours, theirs, scheduler, dtype):
    with np.load(peer.FILE) as stored:
        expected = stored[dtype][stored["optimizers"].tolist().index(ours)]
    actual = path(eval(ours, vars(optim)), dtype)
    assert_same_path(actual[peer.STRIDE - 1::peer.STRIDE], expected, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_case
@pytest.mark.filterwarnings("ignore")
def test_trajectories_beside_pytorch(ours, theirs, scheduler, dtype):
    pytest.importorskip("torch", reason="compares with PyTorch where it is installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = peer.path(theirs, scheduler, dtype)
    assert_same_path(path(eval(ours, vars(optim)), dtype), expected, dtype)


# ---- laws -----------------------------------------------------------------------------------

def steps(opt, gradients, params):
    """The parameters after one step for each gradient; the arguments stay as they are."""
    state = opt.init(params)
    for g in gradients:
        params, state = opt.step(g, state, params, in_place=False)
    return params


@pytest.mark.parametrize("one, other", [
    (optim.Momentum(0.1, momentum=0), optim.SGD(0.1)),
    (optim.Nesterov(0.1, momentum=0), optim.SGD(0.1)),
    (optim.Momentum(0.1, momentum=0, weight_decay=0.3), optim.SGD(0.1, weight_decay=0.3)),
    (optim.AdamW(0.1, weight_decay=0), optim.Adam(0.1)),
    (optim.SGD(0.1), optim.SGD(optim.Constant(0.1))),
    (optim.SGD(0.1), optim.SGD(lambda step: 0.1)),
])
def test_equal_optimizers(one, other, rng):
    x, gradients = rng.normal(size=5), rng.normal(size=(4, 5))
    np.testing.assert_array_equal(steps(one, gradients, x), steps(other, gradients, x))


@pytest.mark.parametrize("opt", [optim.Adam(0.1, eps=0), optim.Adam(0.1, eps=0, amsgrad=True)],
                         ids=str)
def test_first_step_of_adam_is_the_learning_rate(opt, rng):
    g = rng.normal(size=50) * 10.0 ** rng.integers(-30, 30, size=50)
    np.testing.assert_allclose(steps(opt, [g], np.zeros(50)), -0.1 * np.sign(g), rtol=1e-13)


def test_adamw_decays_beside_the_gradient():
    x = np.array([2.0, -4.0])
    zero = np.zeros(2)
    np.testing.assert_array_equal(steps(optim.AdamW(0.5, weight_decay=0.5), [zero], x), 0.75 * x)
    np.testing.assert_allclose(steps(optim.Adam(0.5, weight_decay=0.5, eps=0), [zero], x),
                               x - 0.5 * np.sign(x))


@every_optimizer
def test_scaling_of_float32(opt, rng):
    """float32 follows float64, and stays float32."""
    x, gradients = rng.normal(size=5), rng.normal(size=(4, 5))
    single = steps(opt, gradients.astype(np.float32), x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, steps(opt, gradients, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_centered_rmsprop_of_a_constant_gradient_is_never_the_root_of_a_negative_number(dtype, rng):
    g = rng.normal(size=100).astype(dtype)
    x = np.zeros_like(g)
    opt = optim.RMSProp(centered=True, alpha=0.5)
    state = opt.init(x)
    for _ in range(200):
        opt.step(g, state, x)
    assert np.isfinite(x).all()


@every_optimizer
def test_nan_and_infinity_stay_in_their_entries(opt, rng):
    x, g = rng.normal(size=5), rng.normal(size=5)
    bad = g.copy()
    bad[1], bad[3] = np.nan, np.inf
    assert np.isnan(steps(opt, [bad], x)[1])
    np.testing.assert_array_equal(steps(opt, [bad], x)[[0, 2, 4]], steps(opt, [g], x)[[0, 2, 4]])


@every_optimizer
@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[:]], ids=["itself", "a view"])
def test_parameters_may_be_gradients(opt, view, rng):
    """As they are of x * y or sum(x * x) / 2; every entry moves by the values before the step."""
    x, y, z = rng.normal(size=(3, 5))
    x, y = x.copy(), y.copy()
    expected = steps(opt, [[y.copy(), x.copy(), z.copy()]], [x, y, z])
    opt.step([view(y), view(x), view(z)], opt.init([x, y, z]), [x, y, z])
    np.testing.assert_array_equal([x, y, z], expected)


@every_optimizer
def test_tensors_may_share_values_with_gradients(opt):
    x, y = fg.tensor([1.0, 2.0], requires_grad=True), fg.tensor([3.0, 5.0], requires_grad=True)
    (x * y).sum().backward()
    expected = steps(opt, [[np.array([3.0, 5.0]), np.array([1.0, 2.0])]],
                     [np.array([1.0, 2.0]), np.array([3.0, 5.0])])
    opt.step([x.grad, y.grad], opt.init([x, y]), [x, y])
    np.testing.assert_array_equal([x.detach().numpy(), y.detach().numpy()], expected)


@every_optimizer
def test_least_squares(opt, rng):
    a, b = rng.normal(size=(20, 3)), rng.normal(size=20)
    solution = np.linalg.lstsq(a, b)[0]
    opt = dataclasses.replace(opt, lr=optim.ExponentialDecay(0.1, 0.99), weight_decay=0)
    gradient = fg.grad(lambda x: np.mean((a @ x - b) ** 2))
    x = np.zeros(3)
    state = opt.init(x)
    for _ in range(600):
        x, state = opt.step(gradient(x), state, x)
    np.testing.assert_allclose(x, solution, atol=0.01)


# ---- kinds of parameters --------------------------------------------------------------------

@pytest.mark.parametrize("x", [
    2.0, np.float64(2), np.float32(2), np.array(2.0), np.array(2.0, np.float32), np.array([2.0]),
    np.full((2, 3), 2.0), np.full((2, 3), 2.0, np.float32), np.zeros((0, 2))],
    ids=lambda x: f"{type(x).__name__}{np.shape(x)}")
@pytest.mark.parametrize("in_place", [True, False])
def test_kinds_stay(x, in_place):
    x = copy.copy(x)
    g = np.ones_like(x) if isinstance(x, np.ndarray) else type(x)(1)
    opt = optim.Adam(0.5)
    new, state = opt.step(g, opt.init(x), x, in_place=in_place)
    assert type(new) is type(x)
    assert np.shape(new) == np.shape(x)
    if not isinstance(x, float):
        assert new.dtype == x.dtype
    np.testing.assert_allclose(new, np.full(np.shape(x), 1.5), rtol=1e-6)
    if isinstance(x, np.ndarray):
        assert (new is x) == in_place
        assert state.buffers["mean"].dtype == x.dtype


@pytest.mark.parametrize("number", [2.0, np.float32(2), np.float64(2), np.array(2.0, np.float32)])
@pytest.mark.parametrize("g", [1.0, np.float32(1), np.float64(1)])
def test_python_floats_go_with_numbers_of_either_dtype(number, g):
    number = copy.copy(number)
    opt = optim.SGD(0.5)
    if float in (type(number), type(g)) or number.dtype == g.dtype:
        assert opt.step(g, opt.init(number), number)[0] == 1.5
    else:
        with pytest.raises(TypeError, match="grads is float.., params float.."):
            opt.step(g, opt.init(number), number)


def test_nested_parameters():
    def tree(x):
        return {"layers": [Layer(np.full(2, x), x), Layer(None, (x, Pair(x, [np.full((), x)])))],
                "none": None, "empty": ()}

    opt = optim.Momentum(lr=0.25)
    params = tree(2.0)
    first = params["layers"][0].weights
    new, state = opt.step(tree(4.0), opt.init(params), params)
    assert repr(new) == repr(tree(1.0))
    assert new["layers"][0].weights is first
    assert repr(state.buffers["velocity"]) == repr(tree(np.array(4.0)))


def test_dicts_are_matched_by_key():
    opt = optim.Adam(0.5, eps=0)
    params = {"a": 1.0, "b": np.ones(2)}
    new, _ = opt.step({"b": np.full(2, 3.0), "a": -3.0}, opt.init(params), params)
    assert repr(new) == "{'a': 1.5, 'b': array([0.5, 0.5])}"


@pytest.mark.sampled(3)
@pytest.mark.parametrize("block", [2, 3, 7, 1000])
@pytest.mark.parametrize("view", [
    lambda a: a, lambda a: a.T, lambda a: a[::2, ::-1], lambda a: np.asfortranarray(a),
    lambda a: a.reshape(2, 3, 2, 5), lambda a: a.reshape(2, 3, 2, 5)[:, ::2],
    lambda a: a.reshape(2, 3, 2, 5).transpose(2, 0, 3, 1), lambda a: a[:0], lambda a: a[0, 0]],
    ids=["C", "T", "strided", "F", "4d", "4d strided", "4d transposed", "empty", "scalar"])
@every_optimizer
def test_layouts_and_blocks(opt, view, block, rng, monkeypatch):
    """Strides, and the size of what is updated at a time, change nothing."""
    monkeypatch.setattr(optim.given, "BLOCK", block)
    x, g = view(rng.normal(size=(6, 10))), view(rng.normal(size=(6, 10)))
    state = opt.init(x)
    flat, flat_state = x.flatten(), opt.init(x.flatten())
    for _ in range(2):
        x, state = opt.step(g, state, x)
        flat, flat_state = opt.step(g.flatten(), flat_state, flat)
    np.testing.assert_array_equal(np.ravel(x), flat)


@every_optimizer
def test_tensors(opt, rng):
    values = [rng.normal(size=(3, 2)), rng.normal(size=2).astype(np.float32), np.array(0.5)]
    ws = [fg.tensor(value, requires_grad=True) for value in values]
    xs = [value.copy() for value in values]
    state, expected = opt.init(ws), opt.init(xs)
    before = ws[0].numpy()
    for _ in range(3):
        sum([(w * w * w).sum() for w in ws]).backward()
        new, state = opt.step([w.grad for w in ws], state, ws)
        opt.step([3 * x * x for x in xs[:2]] + [np.array(3 * xs[2] * xs[2])], expected, xs)
        for w, updated in zip(ws, new, strict=True):
            assert updated is w
            assert w.requires_grad
            assert w.is_leaf
            w.zero_grad()
    for w, x in zip(ws, xs, strict=True):
        assert w.dtype == x.dtype
        np.testing.assert_allclose(w.detach().numpy(), x, rtol=1e-5 if x.dtype == "f4" else 1e-13)
    np.testing.assert_array_equal(before, values[0])


def test_tensors_not_in_place():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    opt = optim.Momentum(0.5)
    state = opt.init({"w": w})
    new, after = opt.step({"w": np.ones(2)}, state, {"w": w}, in_place=False)
    assert repr(new) == "{'w': tensor([0.5, 1.5], requires_grad=True)}"
    assert repr(w) == "tensor([1., 2.], requires_grad=True)"
    assert (state.step, after.step) == (0, 1)


# ---- memory ---------------------------------------------------------------------------------

def arrays_of(params, state):
    return [array for tree in (params, *state.buffers.values()) for array in tree.values()]


@every_optimizer
def test_in_place(opt, rng):
    """The same objects in the same memory, and the values of a step that copies."""
    params = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5).astype(np.float32)}
    grads = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5).astype(np.float32)}
    state = opt.init(params)
    before = snapshot(grads, state, params)
    copies, copied_state = opt.step(grads, state, params, in_place=False)
    assert snapshot(grads, state, params) == before
    arrays = arrays_of(params, state)
    for array in arrays:
        assert not any(np.shares_memory(array, other) for other in arrays_of(copies, copied_state))

    gradient = snapshot(grads)
    updated, same = opt.step(grads, state, params)
    assert same is state
    assert all(a is b for a, b in zip(arrays, arrays_of(updated, state), strict=True))
    assert snapshot(grads) == gradient
    assert snapshot(state, updated) == snapshot(copied_state, copies)


@every_optimizer
@pytest.mark.parametrize("count, size", [(1, 1_000_000), (50, 20_000)])
def test_a_step_allocates_nothing_in_proportion_to_the_parameters(opt, count, size):
    params, grads = [np.ones(size) for _ in range(count)], [np.ones(size) for _ in range(count)]
    state = opt.init(params)
    opt.step(grads, state, params)
    tracemalloc.start()
    try:
        opt.step(grads, state, params)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * 8 * optim.given.BLOCK + 100_000 < 8 * count * size / 10


# ---- pickling and copying -------------------------------------------------------------------

@every_optimizer
@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy],
                         ids=["pickle", "deepcopy"])
def test_states_and_optimizers_are_continued_from_copies(opt, again, rng):
    opt = dataclasses.replace(opt, lr=optim.Sequential(
        [optim.LinearWarmup(0.1, 3), optim.CosineDecay(0.1, 5), optim.StepDecay(0.1, 2),
         optim.ExponentialDecay(0.1, 0.9), optim.Constant(0.1)], [2, 4, 6, 8]))
    gradients = rng.normal(size=(10, 2, 3))
    params = {"a": rng.normal(size=3), "b": 1.0}
    state = opt.init(params)

    def run(opt, state, params, gradients):
        for a, b in gradients:
            params, state = opt.step({"a": a, "b": b[0].item()}, state, params)
        return state, params

    middle = run(opt, state, params, gradients[:5])
    other = again((opt, *middle))
    assert other[0] == opt
    assert snapshot(*run(*other, gradients[5:])) == snapshot(*run(opt, *middle, gradients[5:]))


def test_buffers_that_cannot_be_written_to_are_replaced():
    """As they are when a state was memory-mapped, or has been through arithmetic."""
    opt = optim.Momentum(1.0)
    params = [np.zeros(2), 0.0]
    velocity = np.ones(2)
    velocity.flags.writeable = False
    state = optim.State(5, {"velocity": [velocity, np.float64(1)]})
    params, state = opt.step([np.zeros(2), 0.0], state, params)
    assert repr(params) == "[array([-0.9, -0.9]), -0.9]"
    params, state = opt.step([np.zeros(2), 0.0], state, params)
    np.testing.assert_allclose(params[1], -0.9 - 0.81)
    assert velocity.tolist() == [1, 1]


# ---- errors ---------------------------------------------------------------------------------

def read_only(a):
    a.flags.writeable = False
    return a


def recorded():
    return fg.tensor(1.0, requires_grad=True) * 2


@pytest.mark.parametrize("make, message", [
    (lambda: 1, "is the int 1; write float"),
    (lambda: fg.tensor([True]), "is a bool Tensor; write .astype(float)"),
    (lambda: np.int64(1), "is of dtype int64; write .astype(float)"),
    (lambda: np.ones(2, int), "is of dtype int64; write .astype(float)"),
    (lambda: np.ones(2, bool), "is of dtype bool; write .astype(float)"),
    (lambda: np.ones(2, np.float16), "is of dtype float16; use float32 or float64"),
    (lambda: np.ones(2, np.longdouble), f"is of dtype {np.dtype(np.longdouble)}; use float32"),
    (lambda: np.ones(2, complex), "is of dtype complex128; use float32 or float64"),
    (lambda: np.ones(2, object), "is of dtype object; use float32 or float64"),
    (lambda: np.ma.masked_array([1.0, 2.0]), "is a masked array; pass floats, arrays or Tensors"),
    (lambda: 1j, "is the complex 1j; pass floats, arrays or Tensors"),
    (lambda: {1.0}, "is the set {1.0}; pass floats, arrays or Tensors"),
    (lambda: fg.tensor([1, 2]), "is a int64 Tensor; write .astype(float)"),
    (recorded, "is a float64 Tensor; it is recorded"),
])
def test_what_is_no_parameter_and_no_gradient(make, message):
    """It is named, with its place, before the array in front of it has changed."""
    x, leaf = np.ones(2), make()
    opt = optim.Momentum(0.1)
    for call in (lambda: opt.init([x, {"n": leaf}]),
                 lambda: opt.step([x, {"n": 1.0}], opt.init([x, {"n": 1.0}]), [x, {"n": leaf}]),
                 lambda: optim.global_norm([x, {"n": leaf}]),
                 lambda: optim.clip_by_global_norm([x, {"n": leaf}], 1),
                 lambda: optim.clip_by_value([x, {"n": leaf}], 1)):
        with pytest.raises(TypeError) as raised:
            call()
        assert "s[1]['n'] " + message in str(raised.value)

    state = opt.init([x, {"n": 1.0}])
    before = snapshot(state, x)
    with pytest.raises(TypeError) as raised:
        opt.step([x.copy(), {"n": leaf}], state, [x, {"n": 1.0}])
    assert "grads[1]['n'] " + message in str(raised.value)
    assert snapshot(state, x) == before


SAME = np.ones(2)


@pytest.mark.parametrize("grads, params, error, message", [
    ({"a": 1.0}, {"a": 1.0, "b": 1.0}, ValueError,
     "grads must have the structure of params: ... at [1]: ... 'b'"),
    ({"a": [1.0, None]}, {"a": [1.0, np.ones(2)]}, ValueError,
     "grads must have the structure of params: ... at [1]['a'][1]: ...None"),
    ([1.0], (1.0,), ValueError, "grads must have ... at [1]: ...tuple ...list"),
    ([1.0, 2.0], np.ones(2), ValueError, "grads must have ... at [1]: ...leaf...list"),
    ({"a": np.ones(2)}, {"a": np.ones(3)}, ValueError,
     "grads[1]['a'] has shape (2,), params[1]['a'] (3,)"),
    (np.ones(1), 1.0, ValueError, "grads[1] has shape (1,), params[1] ()"),
    (np.ones(2), fg.tensor([1.0, 2.0, 3.0]), ValueError, "grads[1] has shape (2,), params[1] (3,)"),
    (np.ones(2), np.ones(2, np.float32), TypeError, "grads[1] is float64, params[1] float32"),
    (np.ones(2, np.float32), np.ones(2), TypeError, "grads[1] is float32, params[1] float64"),
    (np.ones(2), read_only(np.ones(2)), ValueError, "params[1] is read-only; pass a copy, or"),
    ([np.ones(2)] * 2, [SAME, SAME], ValueError, "params[1][0] and params[1][1] are the same"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_gradients_that_do_not_fit(grads, params, error, message):
    """The place is named, before the array in front of it has changed."""
    opt = optim.Momentum(0.1)
    x = np.ones(2)
    state = opt.init([x, params])
    before = snapshot(state, x)
    with pytest.raises(error) as raised:
        opt.step([np.ones(2), grads], state, [x, params])
    for part in message.split("..."):
        assert part in str(raised.value)
    assert snapshot(state, x) == before


def test_what_cannot_be_written_to_may_be_copied():
    x = read_only(np.ones(2))
    opt = optim.SGD(0.5)
    new, _ = opt.step([np.ones(2)] * 2, opt.init([x, x]), [x, x], in_place=False)
    assert repr(new) == "[array([0.5, 0.5]), array([0.5, 0.5])]"


@pytest.mark.parametrize("state", [
    optim.SGD().init(np.ones(2)), optim.Adam(amsgrad=True).init(np.ones(2)), {"step": 0}, None,
    optim.Adam().init(np.ones(3)), optim.Adam().init(np.ones(2, "f4")),
    optim.Adam().init([np.ones(2)])], ids=str)
def test_the_state_must_belong_to_the_optimizer_and_the_parameters(state):
    with pytest.raises((ValueError, TypeError), match="state"):
        optim.Adam().step(np.ones(2), state, np.ones(2))


@pytest.mark.parametrize("lr", [-1.0, math.nan, math.inf, None, "fast", np.ones(2)], ids=str)
def test_learning_rates_that_schedules_must_not_return(lr):
    x = np.ones(2)
    opt = optim.Momentum(lambda step: lr)
    state = opt.init(x)
    with pytest.raises(ValueError, match="Momentum: the learning rate of step 0 must be"):
        opt.step(np.ones(2), state, x)
    assert state.step == 0
    assert x.tolist() == [1, 1]
    assert not state.buffers["velocity"].any()


def test_the_learning_rate_may_be_assigned_to():
    opt = optim.SGD(0.5)
    state = opt.init(1.0)
    opt.lr = 0.25
    assert opt.step(1.0, state, 1.0)[0] == 0.75
    opt.lr = -1
    with pytest.raises(ValueError, match="lr must be at least 0"):
        opt.step(1.0, state, 1.0)
    assert state.step == 1


@pytest.mark.parametrize("make, options", [
    (cls, {name: value})
    for cls in (optim.SGD, optim.Momentum, optim.Nesterov, optim.RMSProp, optim.Adam, optim.AdamW)
    for name in [f.name for f in dataclasses.fields(cls)
                 if f.name not in ("centered", "amsgrad", "betas")]
    for value in (-0.1, math.nan, math.inf)
] + [
    (optim.Momentum, {"momentum": 1.0}), (optim.Nesterov, {"momentum": 1.0}),
    (optim.Momentum, {"dampening": 1.0}), (optim.RMSProp, {"alpha": 1.0}),
    (optim.RMSProp, {"momentum": 1.0}), (optim.Adam, {"betas": (1.0, 0.9)}),
    (optim.Adam, {"betas": (0.9, -0.1)}), (optim.Constant, {"lr": -1.0}),
    (optim.ExponentialDecay, {"lr": 0.1, "gamma": -0.1}),
    (optim.StepDecay, {"lr": 0.1, "every": 0}),
    (optim.CosineDecay, {"lr": 0.1, "steps": 0}), (optim.LinearWarmup, {"lr": 0.1, "steps": -1}),
    (optim.CosineDecay, {"lr": 0.1, "steps": 5, "final": -1}),
    (optim.LinearWarmup, {"lr": 0.1, "steps": 5, "start": -1}),
], ids=str)
def test_options_out_of_range(make, options):
    name = list(options)[-1]
    with pytest.raises(ValueError, match=rf"{make.__name__}: {name}.* must be at least"):
        make(**options)


@pytest.mark.parametrize("make, options", [
    (optim.SGD, {"lr": "fast"}), (optim.SGD, {"lr": None}), (optim.SGD, {"lr": True}),
    (optim.Adam, {"betas": 0.9}), (optim.Adam, {"betas": (0.9, 0.9, 0.9)}),
    (optim.Adam, {"betas": (0.9, "0.9")}), (optim.Adam, {"eps": 1j}),
    (optim.StepDecay, {"lr": 0.1, "every": 2.0}), (optim.Sequential, {"schedules": [0.1],
                                                                      "milestones": []}),
], ids=str)
def test_options_of_another_type(make, options):
    with pytest.raises(TypeError, match=f"{make.__name__}: "):
        make(**options)


def test_options_are_floats():
    opt = optim.Adam(np.float32(0.5), betas=[0, 0], eps=0)
    assert repr(opt) == "Adam(lr=0.5, weight_decay=0.0, betas=(0.0, 0.0), eps=0.0, amsgrad=False)"


# ---- schedules ------------------------------------------------------------------------------

def test_schedules_are_called_with_the_number_of_steps_taken():
    seen = []
    opt = optim.SGD(lambda step: seen.append(step) or np.float32(0.5))
    x, state = 1.0, opt.init(1.0)
    for _ in range(3):
        x, state = opt.step(1.0, state, x)
    assert seen == [0, 1, 2]
    assert x == -0.5
    assert state.step == 3


def test_schedules_at_their_ends():
    cosine = optim.CosineDecay(1.0, steps=10, final=0.25)
    assert [cosine(step) for step in (0, 10, 11, 10**9)] == [1.0, 0.25, 0.25, 0.25]
    warmup = optim.LinearWarmup(0.3, steps=3, start=0)
    np.testing.assert_allclose([warmup(step) for step in range(5)], [0, 0.1, 0.2, 0.3, 0.3])
    parts = optim.Sequential([optim.Constant(1), optim.Constant(2), optim.StepDecay(3, 2)], [1, 3])
    np.testing.assert_allclose([parts(step) for step in range(6)], [1, 2, 2, 3, 3, 0.3])


@pytest.mark.parametrize("milestones", [[], [1, 2], [2, 2, 3], [3, 2, 1]])
def test_sequential_needs_increasing_milestones(milestones):
    count = 2 if len(milestones) < 3 else 4
    with pytest.raises(ValueError, match="Sequential: .*milestone"):
        optim.Sequential([optim.Constant(0.1)] * count, milestones)


# ---- clipping -------------------------------------------------------------------------------

def gradient_tree(rng):
    return {"a": rng.normal(size=(30, 40)), "b": [rng.normal(size=7).astype(np.float32), 2.0, None],
            "c": (np.float32(3.0), np.array(1.5), fg.tensor([1.0, -2.0])), "e": np.zeros((0, 3))}


def flat(tree):
    leaves = [tree["a"], tree["b"][0], tree["b"][1], *tree["c"][:2], tree["c"][2].numpy()]
    return np.concatenate([np.ravel(leaf).astype(float) for leaf in leaves])


def assert_same_kinds(one, other):
    for a, b in [(one["a"], other["a"]), *zip(one["b"], other["b"], strict=True),
                 *zip(one["c"], other["c"], strict=True), (one["e"], other["e"])]:
        assert type(a) is type(b)
        assert getattr(a, "dtype", None) == getattr(b, "dtype", None)
        assert getattr(a, "shape", None) == getattr(b, "shape", None)


def test_clip_by_global_norm(rng):
    grads = gradient_tree(rng)
    entries = flat(grads)
    norm = np.linalg.norm(entries)
    np.testing.assert_allclose(optim.global_norm(grads), norm, rtol=1e-13)
    assert optim.clip_by_global_norm(grads, norm * 1.001) is grads
    clipped = optim.clip_by_global_norm(grads, 1)
    assert_same_kinds(clipped, grads)
    np.testing.assert_allclose(flat(clipped), entries / norm, rtol=1e-6)
    np.testing.assert_allclose(optim.global_norm(clipped), 1, rtol=1e-6)
    np.testing.assert_array_equal(flat(grads), entries)


def test_clip_by_value(rng):
    grads = gradient_tree(rng)
    entries = flat(grads)
    clipped = optim.clip_by_value(grads, 0.5)
    assert_same_kinds(clipped, grads)
    np.testing.assert_array_equal(flat(clipped), np.clip(entries, -0.5, 0.5))
    np.testing.assert_array_equal(flat(grads), entries)


def test_norms_at_the_ends():
    assert optim.global_norm(()) == optim.global_norm(None) == 0
    assert optim.global_norm(np.zeros((2, 0))) == 0
    for size in (1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e300):
        np.testing.assert_allclose(optim.global_norm([np.full((2, 2), size), 3 * size]),
                                   math.sqrt(13) * size, rtol=1e-14)
    np.testing.assert_allclose(optim.global_norm(np.full(4, 1e30, np.float32)), 2e30, rtol=1e-6)
    clipped = optim.clip_by_global_norm([np.full(4, 1e200)], 1.0)
    np.testing.assert_allclose(clipped, np.full((1, 4), 0.5))
    zero = np.zeros(2)
    assert optim.clip_by_global_norm(zero, 0) is zero
    bad = [np.array([np.nan, 1.0])]
    assert optim.clip_by_global_norm(bad, 1) is bad
    np.testing.assert_array_equal(optim.clip_by_value(bad, 0.5), [[np.nan, 0.5]])


@pytest.mark.parametrize("clip", [optim.clip_by_global_norm, optim.clip_by_value])
def test_clipping_errors(clip):
    with pytest.raises(ValueError, match=f"{clip.__name__}: max_.* at least 0"):
        clip([1.0], -1)
    with pytest.raises(TypeError, match=f"{clip.__name__}: max_.* must be a number"):
        clip([1.0], "1")


@pytest.mark.parametrize("clip", [optim.clip_by_global_norm, optim.clip_by_value])
@pytest.mark.filterwarnings("ignore")
def test_clipping_beside_pytorch(clip, rng):
    torch = pytest.importorskip("torch", reason="compares with PyTorch where it is installed")
    arrays = [rng.normal(size=(3, 4)), rng.normal(size=5)]
    tensors = [torch.zeros(a.shape, dtype=torch.float64, requires_grad=True) for a in arrays]
    for t, a in zip(tensors, arrays, strict=True):
        t.grad = torch.tensor(a)
    by_value = clip is optim.clip_by_value
    (torch.nn.utils.clip_grad_value_ if by_value else torch.nn.utils.clip_grad_norm_)(tensors, 0.5)
    for ours, theirs in zip(clip(arrays, 0.5), tensors, strict=True):
        # PyTorch adds 1e-6 to the norm.
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-15 if by_value else 1e-6)
