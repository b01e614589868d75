"""grad and value_and_grad: what goes in, what comes out, what is refused."""

import collections
import copy
import functools
import operator
import pickle
import warnings

import numpy as np
import pytest
from laws import ROWS

import fastgrad as fg
import fastgrad.numpy as fnp

Params = collections.namedtuple("Params", "w b")


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning that no test asks for is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def cube(x):
    return x ** 3


# ---- the examples of the documentation ------------------------------------------------------

def test_documented_examples():
    def f(x):
        return np.sum(np.sin(x) * np.exp(-x * x))

    assert repr(fg.grad(f)(np.array([0.0, 1.0]))) == "array([ 1.        , -0.42035364])"
    assert repr(fg.value_and_grad(lambda x: x ** 3)(2.0)) == "(8.0, 12.0)"
    assert repr(fg.grad(lambda p: (p["w"] * 2 + p["b"]) ** 2)({"w": 1.0, "b": 3.0})) == (
        "{'w': 20.0, 'b': 10.0}")
    assert repr(fg.grad(lambda a, b: a * b, argnums=(0, 1))(2.0, 5.0)) == "(5.0, 2.0)"


# ---- kinds in, kinds out --------------------------------------------------------------------

@pytest.mark.parametrize("x", [
    2.0, np.float64(2), np.float32(2), np.array(2.0), np.array(2.0, np.float32), np.array([2.0]),
    np.full((2, 3), 2.0), np.full((2, 3), 2.0, np.float32), np.full((4, 4), 2.0)[::2, ::-2],
    np.full((200, 30), 2.0), np.zeros((0, 2))], ids=lambda x: f"{type(x).__name__}{np.shape(x)}")
def test_the_gradient_is_of_the_kind_of_the_argument(x):
    value, gradient = fg.value_and_grad(lambda x: np.sum(x ** 3))(x)
    assert type(gradient) is type(x)
    assert np.shape(gradient) == np.shape(x)
    np.testing.assert_array_equal(gradient, 3 * np.asarray(x) ** 2)
    if isinstance(x, float) and not isinstance(x, np.generic):
        assert type(value) is float
    else:
        assert gradient.dtype == x.dtype
        assert value.dtype == x.dtype
        assert isinstance(value, (np.generic, np.ndarray))
    if isinstance(x, np.ndarray):
        assert gradient.flags.writeable
        assert gradient.flags.c_contiguous
        assert not np.shares_memory(gradient, x)


def test_a_tensor_gives_a_tensor():
    for data in (2.0, [1.0, 2.0]):
        x = fg.tensor(data)
        gradient = fg.grad(lambda x: (x * x).sum())(x)
        assert isinstance(gradient, fg.Tensor)
        assert not gradient.requires_grad
        np.testing.assert_array_equal(gradient.numpy(), 2 * np.asarray(data))
    # Of what requires a gradient the gradient is recorded, so that it can be differentiated again.
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    gradient = fg.grad(lambda x: (x * x * x).sum())(w)
    assert gradient.tolist() == [3, 12]
    assert w.grad is None
    gradient.sum().backward()
    assert w.grad.tolist() == [6, 12]
    with fg.no_grad():
        assert not fg.grad(lambda x: (x * x).sum())(w).requires_grad


def test_the_value_is_what_the_plain_function_returns():
    def f(x):
        return np.sum(np.sin(x) * x)

    for x in (np.array([0.3, 2.0]), np.array([0.3, 2.0], np.float32), np.float64(0.3)):
        value = fg.value_and_grad(f)(x)[0]
        assert type(value) is type(f(x))
        np.testing.assert_allclose(value, f(x), 1e-6 if value.dtype == np.float32 else 1e-15)
    value = fg.value_and_grad(lambda x: x[:1] * 2)(np.array([3.0, 4.0]))[0]
    assert value.shape == (1,)
    assert type(fg.value_and_grad(lambda x: x * 2)(1.5)[0]) is float


def test_python_floats_are_weak():
    def f(c, x):
        assert (c * x).dtype == np.float32
        assert (x / c).dtype == np.float32
        assert (fnp.sin(c) * x).dtype == np.float64     # NumPy's float64 is not
        return (c ** 3 * x).sum()

    x = np.ones(3, np.float32)
    value, (slope, gradient) = fg.value_and_grad(f, argnums=(0, 1))(0.5, x)
    assert type(slope) is float
    assert gradient.dtype == np.float32
    assert value.dtype == np.float32
    np.testing.assert_allclose(slope, 3 * 3 * 0.5 ** 2, 1e-6)


# What stands for a Python float gives way to float32 as one does, what a function made of it does
# not: np.sin(0.5) is a np.float64.
OF_A_FLOAT = {name: getattr(np, name) for row in ROWS if row.arity == 1
              for name in row.numpy if hasattr(np, name)} | {
    "operators": lambda y: -(abs(y) * 2 + 1) / 3 - y ** 2 // 1 % 5,
    "operators of a function": lambda y: 1 - np.sin(y) * 2,
    "round": lambda y: round(y, 2), "copy.copy": copy.copy,
    "divide": lambda y: np.divide(y, y), "where": lambda y: np.where(y > 0, y, 1.0),
    "maximum": lambda y: np.maximum(y, 0.3), "clip": lambda y: np.clip(y, 0.0, 1.0),
    "sum": np.sum, "mean": np.mean, "prod": np.prod, "max": np.max, "std": np.std,
    "average": np.average, "dot": lambda y: np.dot(y, 2.0), "inner": lambda y: np.inner(y, 2.0),
    "copy": np.copy, "array": fnp.array, "asarray": fnp.asarray, "real": np.real,
    "conj": np.conj, "reshape": lambda y: np.reshape(y, ()), "norm": np.linalg.norm,
    "nan_to_num": np.nan_to_num, "float_power": lambda y: np.float_power(y, 2)}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OF_A_FLOAT)
@pytest.mark.parametrize("other", [np.ones(3, np.float32), np.array(2, np.float32), np.float32(2),
                                   np.ones(3)], ids=["float32", "0-d", "scalar", "float64"])
def test_what_is_made_of_a_python_float_has_the_dtype_of_the_plain_function(name, other):
    start = 1.5 if name in ("arccosh", "acosh") else 0.5
    warnings.simplefilter("ignore")             # steps depend on nothing
    for f in (lambda y: OF_A_FLOAT[name](y) * other, lambda y: other - OF_A_FLOAT[name](y)):
        expected = np.asarray(f(start)).dtype
        found = {"vjp": fg.vjp(f, start)[0], "jvp": fg.jvp(f, (start,), (1.0,))[0],
                 "tangent": fg.jvp(f, (start,), (1.0,))[1], "compile": fg.compile(f)(start),
                 "linearize": fg.linearize(f, start)[0],
                 "nested": fg.vjp(lambda y: fg.vjp(f, y)[0], start)[0]}
        for way, y in found.items():
            assert np.asarray(y).dtype == expected, way


def test_the_argument_is_not_changed_and_not_kept():
    x = np.array([1.0, 2.0])
    seen = []

    def f(x):
        seen.append(x)
        return (x * x).sum()

    gradient = fg.grad(f)(x)
    gradient += 1
    x[:] = 7
    assert seen[0].tolist() == [1, 2]
    assert fg.grad(f)(x).tolist() == [14, 14]


# ---- trees ----------------------------------------------------------------------------------

def test_trees_keep_their_structure():
    tree = {"a": (1.0, [np.array([2.0, 3.0]), None]), 5: Params(np.float32(2), np.array(4.0)),
            "e": (), "f": {}, "t": fg.tensor([1.0])}

    def f(tree):
        a, (v, nothing) = tree["a"]
        assert nothing is None
        assert tree["e"] == ()
        assert type(tree[5]) is Params
        return a * v.sum() * tree[5].w * tree[5].b + tree["t"].sum()

    gradient = fg.grad(f)(tree)
    assert list(gradient) == list(tree)
    assert gradient["a"][0] == 40.0
    assert type(gradient["a"]) is tuple
    assert type(gradient["a"][1]) is list
    np.testing.assert_array_equal(gradient["a"][1][0], [8, 8])
    assert gradient["a"][1][1] is None
    assert type(gradient[5]) is Params
    assert type(gradient[5].w) is np.float32
    assert gradient[5].w == 20
    assert gradient[5].b.shape == ()
    assert gradient[5].b == 10
    assert gradient["e"] == ()
    assert gradient["f"] == {}
    assert gradient["t"].tolist() == [1]


def test_the_same_array_twice_in_a_tree():
    x = np.array([1.0, 2.0])
    first, second = fg.grad(lambda p: (p[0] * p[1] * p[1]).sum())((x, x))
    np.testing.assert_array_equal(first, x ** 2)
    np.testing.assert_array_equal(second, 2 * x ** 2)


def test_ordered_dictionaries_and_subclasses():
    tree = collections.OrderedDict(b=1.0, a=2.0)
    try:
        gradient = fg.grad(lambda p: p["b"] * p["a"] ** 2)(tree)
    except TypeError as error:
        assert "OrderedDict" in str(error)
    else:
        assert dict(gradient) == {"b": 4.0, "a": 4.0}
        assert list(gradient) == ["b", "a"]


# ---- which arguments ------------------------------------------------------------------------

@pytest.mark.parametrize("argnums, expected", [
    (0, 15.0), (1, 10.0), (-1, 6.0), (-3, 15.0), ((0,), (15.0,)), ((1, 0), (10.0, 15.0)),
    ([0, 2], (15.0, 6.0)), ((-1, 0), (6.0, 15.0)), ((0, 1, 2), (15.0, 10.0, 6.0)), ((), ()),
    (np.int64(1), 10.0)])
def test_argument_numbers(argnums, expected):
    def f(a, b, c):
        return a * b * c

    if isinstance(argnums, tuple) and not argnums:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert fg.grad(f, argnums)(2.0, 3.0, 5.0) == ()
        return
    assert fg.grad(f, argnums)(2.0, 3.0, 5.0) == expected
    assert fg.value_and_grad(f, argnums=argnums)(2.0, 3.0, 5.0) == (30.0, expected)


def test_other_arguments_pass_untouched():
    marker = object()

    def f(x, anything, *rest, key, **more):
        assert anything is marker
        assert rest == ("rest", 3)
        assert type(rest[1]) is int
        assert key == [1, 2]
        assert more == {"flag": True}
        return x * 2

    assert fg.grad(f)(1.0, marker, "rest", 3, key=[1, 2], flag=True) == 2.0


def test_keywords_and_defaults():
    def f(x, scale=2.0, *, power=2):
        return scale * x ** power

    assert fg.grad(f)(3.0) == 12.0
    assert fg.grad(f)(3.0, scale=1.0) == 6.0
    assert fg.grad(f)(3.0, power=3) == 54.0
    assert fg.grad(f, argnums=1)(3.0, 2.0, power=1) == 3.0
    with pytest.raises(TypeError):
        fg.grad(f)(3.0, bogus=1)
    with pytest.raises(TypeError):
        fg.grad(lambda x: x)()


def test_has_aux():
    def f(x):
        y = x * x
        return y.sum(), {"y": y, "n": 3, "l": [x[0], None, "s"], "p": Params(y[0], 1.5)}

    x = np.array([1.0, 2.0])
    gradient, aux = fg.grad(f, has_aux=True)(x)
    np.testing.assert_array_equal(gradient, [2, 4])
    assert type(aux["y"]) is np.ndarray
    np.testing.assert_array_equal(aux["y"], [1, 4])
    assert aux["n"] == 3
    assert aux["l"][1:] == [None, "s"]
    assert type(aux["l"][0]) is np.float64
    assert aux["p"] == Params(1.0, 1.5)
    (value, aux), gradient = fg.value_and_grad(f, has_aux=True)(x)
    assert value == 5
    assert gradient.tolist() == [2, 4]
    aux["y"][0] = 9
    assert fg.grad(lambda x: (x, x * 2), has_aux=True)(1.0) == (1.0, 2.0)


# ---- functions of every kind ----------------------------------------------------------------

class Model:
    """Methods, properties and callables are functions too."""

    scale = 3.0

    def __call__(self, x):
        return x * x * self.scale

    def energy(self, x):
        return self.scale * x ** 2

    slope = fg.grad(lambda self, x: self.scale * x ** 3, argnums=1)

    @staticmethod
    @fg.grad
    def decorated(x):
        return x ** 2


def test_functions_of_every_kind():
    model = Model()
    assert fg.grad(model)(2.0) == 12.0
    assert fg.grad(model.energy)(2.0) == 12.0
    assert fg.grad(Model.energy, argnums=1)(model, 2.0) == 12.0
    assert model.slope(2.0) == 36.0
    assert Model.decorated(3.0) == 6.0
    assert fg.grad(functools.partial(Model.energy, model))(1.0) == 6.0
    assert fg.grad(np.sin)(0.0) == 1.0
    assert fg.grad(fnp.sin)(0.0) == 1.0
    assert fg.grad(abs)(-2.0) == -1.0
    assert fg.grad(lambda x: -x)(1.0) == -1.0
    assert fg.grad(lambda x: x * x)(4.0) == 8.0


def test_closures_over_constants_and_over_arrays():
    a = np.array([1.0, 2.0, 3.0])
    gradient = fg.grad(lambda x: np.dot(a, x) + np.sum(a * x * x))
    assert gradient(np.ones(3)).tolist() == [3, 6, 9]
    a[:] = 1
    assert gradient(np.ones(3)).tolist() == [3, 3, 3]


def test_functions_keep_their_names():
    def f(x):
        """What it does."""
        return x

    g = fg.grad(f)
    assert g.__name__ == "f"
    assert g.__doc__ == "What it does."
    assert g.__wrapped__ is f
    assert repr(g) == "<grad of f>"
    assert repr(fg.value_and_grad(f)) == "<value_and_grad of f>"


def test_formulas_pickle_and_copy():
    g = pickle.loads(pickle.dumps(fg.value_and_grad(cube)))
    assert g(2.0) == (8.0, 12.0)
    assert copy.copy(g)(2.0) == (8.0, 12.0)


def test_python_control_flow():
    def f(x, n):
        y = x
        for i in range(n):
            y = y * x if y < 100 else y + i
        while y > 1000:
            y = y / 2
        return y if x > 0 else -y

    assert fg.grad(f)(3.0, 3) == 4 * 27.0
    assert fg.grad(f)(-1.0, 0) == -1.0

    def recursive(x, n):
        return x if n == 0 else x * recursive(x, n - 1)

    assert fg.grad(recursive)(2.0, 4) == 5 * 16.0


def test_plain_numpy_functions_unchanged():
    x = np.array([[0.5, 1.5], [2.5, 0.25]])

    def written_years_ago(x):
        a = np.mean(x, axis=0) + np.sum(x)
        b = np.where(x > 1, np.sqrt(x), x ** 2)
        c = np.exp(-np.abs(b @ x.T)) + np.maximum(x, 1.0)
        d = np.concatenate([c, np.ones((1, 2))])[::-1]
        e = np.linalg.norm(d, axis=1) * np.log1p(d[:, 0])
        f = np.stack([e, e ** 2]).reshape(-1)
        return np.std(f) + np.var(a) + np.prod(e) + np.max(f) + f[[0, 0, 1]].sum()

    value, gradient = fg.value_and_grad(written_years_ago)(x)
    np.testing.assert_allclose(value, written_years_ago(x), 1e-14)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        np.testing.assert_allclose(
            gradient[i], (written_years_ago(up) - written_years_ago(down)) / 2e-6, 1e-6, 1e-7)


def test_einsum_has_a_derivative_or_refuses():
    try:
        gradient = fg.grad(lambda x: np.einsum("ij,ij->", x, x))(np.ones((2, 3)))
    except TypeError as error:
        assert "einsum" in str(error)
    else:
        np.testing.assert_array_equal(gradient, 2 * np.ones((2, 3)))


def test_creation_functions_make_tensors_inside():
    def f(x):
        out = fnp.zeros(3)
        out[0] = x
        out[1:] = fnp.array([x * x, 1.0])
        return (out * fnp.arange(1.0, 4.0)).sum()

    assert fg.grad(f)(2.0) == 1 + 2 * 4.0
    assert type(fnp.zeros(2)) is np.ndarray


# ---- assignments to the argument ------------------------------------------------------------

def changed_in_place(x):
    x *= 2
    return (x * x).sum()


def entry_replaced(x):
    x[0] = x[1] * 3
    return (x * x).sum()


def view_changed(x):
    y = x[1:]
    y *= 3
    return (x * x).sum()


def all_replaced(x):
    x[...] = x * x
    return x.sum()


def constants_assigned(x):
    x[0] = 5.0
    return (x * x).sum()


@pytest.mark.parametrize("live_parameter", [False, True])
@pytest.mark.parametrize("f, expected", [
    (changed_in_place, [8, 16]), (entry_replaced, [0, 40]), (view_changed, [2, 36]),
    (all_replaced, [2, 4]), (constants_assigned, [0, 4])], ids=lambda p: getattr(p, "__name__", ""))
def test_changing_the_argument_inside(f, expected, live_parameter):
    parameter = fg.tensor(1.0, requires_grad=True) if live_parameter else None
    x = np.array([1.0, 2.0])
    try:
        gradient = fg.grad(f)(x)
    except RuntimeError as error:
        assert "copy" in str(error)
    else:
        np.testing.assert_array_equal(gradient, expected)
    np.testing.assert_array_equal(x, [1, 2])
    del parameter


def test_changing_a_scalar_argument_inside():
    def f(x):
        x *= 2
        x += 1
        return x * x

    assert fg.grad(f)(3.0) == 28.0
    assert fg.grad(f)(np.float64(3)) == 28.0
    assert fg.grad(f)(np.array(3.0)) == 28.0


# ---- independence ---------------------------------------------------------------------------

@pytest.mark.parametrize("f", [
    lambda x: 3.0, lambda x: np.float64(3), lambda x: np.array(3.0), lambda x: 3,
    lambda x: fnp.sin(3.0), lambda x: fg.tensor(3.0), lambda x: fnp.floor(x).sum(),
    lambda x: x.detach().sum() * 2.0, lambda x: fnp.zeros(2).sum(), lambda x: fnp.sign(x).sum()])
@pytest.mark.parametrize("x", [2.0, np.array([1.0, 2.0], np.float32)], ids=["float", "array"])
def test_independent_results_give_zeros_and_one_warning(f, x):
    with pytest.warns(UserWarning, match="does not depend") as caught:
        gradient = fg.grad(f)(x)
    assert len(caught) == 1
    assert type(gradient) is type(x)
    np.testing.assert_array_equal(gradient, np.zeros(np.shape(x)))
    with pytest.warns(UserWarning, match="does not depend"):
        value, gradient = fg.value_and_grad(f)(x)
    assert np.shape(value) == ()
    assert np.all(np.asarray(gradient) == 0)


def test_unused_inputs_give_zeros_without_warning():
    a, b = fg.grad(lambda a, b: a * 2, argnums=(0, 1))(1.0, np.ones(2))
    assert a == 2.0
    assert b.tolist() == [0, 0]
    gradient = fg.grad(lambda p: p["used"] ** 2)(
        {"used": 3.0, "not": (np.ones(2, np.float32), 1.0)})
    assert gradient["used"] == 6.0
    assert gradient["not"][0].dtype == np.float32
    assert gradient["not"][0].tolist() == [0, 0]
    assert gradient["not"][1] == 0.0


def test_a_derivative_that_happens_to_vanish_is_no_reason_to_warn():
    assert fg.grad(lambda x: x * 0.0)(2.0) == 0.0
    assert fg.grad(fnp.cos)(0.0) == 0.0
    assert fg.grad(lambda x: (x * 0).sum())(np.ones(2)).tolist() == [0, 0]
    assert fg.grad(fnp.abs)(0.0) == 0.0
    assert fg.grad(lambda x: fnp.maximum(x, 3.0))(1.0) == 0.0
    assert fg.grad(lambda x: fnp.where(x > 5, x, 0.0))(1.0) == 0.0


def test_the_identity_and_entries_of_a_tree():
    assert fg.value_and_grad(lambda x: x)(2.0) == (2.0, 1.0)
    assert fg.grad(lambda x: x)(np.array([2.0])).tolist() == [1]
    assert fg.grad(lambda x: x)(np.float32(2)).dtype == np.float32
    assert fg.grad(lambda p: p["a"])({"a": 1.0, "b": 2.0}) == {"a": 1.0, "b": 0.0}
    assert fg.grad(lambda a, b: b, argnums=(0, 1))(1.0, 2.0) == (0.0, 1.0)


def test_under_no_grad_the_function_is_recorded_all_the_same():
    with fg.no_grad():
        assert fg.grad(cube)(2.0) == 12.0
        assert fg.grad(lambda x: (x * x).sum())(np.ones(2)).tolist() == [2, 2]


def test_parameters_outside_are_left_alone():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    h = w * w
    assert fg.grad(lambda x: (x * h).sum())(np.ones(2)).tolist() == [1, 4]
    assert w.grad is None
    h.sum().backward()
    assert w.grad.tolist() == [2, 4]


def test_backward_inside_of_a_function():
    w = fg.tensor(2.0, requires_grad=True)

    def f(x):
        (w * w).backward()
        return x * w

    assert fg.grad(f)(3.0) == 2.0
    assert w.grad.item() == 4.0


# ---- a derivative of a derivative -----------------------------------------------------------

@pytest.mark.parametrize("f", [
    lambda x: fg.grad(cube)(x),
    lambda x: fg.grad(lambda y: x * y)(1.0),
    lambda x: x * fg.grad(lambda y: x * y)(1.0),
    lambda x: x + fg.value_and_grad(lambda y: x * y * y)(1.0)[0],
    lambda x: x + fg.value_and_grad(lambda y: x * y * y)(1.0)[1],
    lambda x: fg.grad(lambda p: p["a"] * p["b"])({"a": x, "b": 1.0})["b"],
    lambda x: fg.grad(lambda y: fnp.sum(y * x))(np.ones(3)).sum(),
    lambda x: x * fg.grad(lambda y: fnp.sin(x) * y + y * y)(3.0),
    lambda x: fg.grad(lambda y: y * y)(x * 2),
    lambda x: fg.grad(lambda y: fnp.stack([x, y]).sum() * y)(1.0),
    lambda x: fg.grad(lambda y, z: y * z, argnums=0)(1.0, x),
    lambda x: x + fg.gradients(x * x, x),
    lambda x: fg.gradients(fnp.sin(x), x) * x])
@pytest.mark.parametrize("x", [2.0, np.array(2.0), np.float32(2)],
                         ids=["float", "array", "float32"])
def test_nested_derivatives_are_right_and_never_zero(f, x):
    slope = fg.grad(f)(x)
    assert type(slope) is type(x)
    step = 1e-5
    up, down = (float(np.asarray(fg.vjp(f, v)[0])) for v in (2.0 + step, 2.0 - step))
    near = 1e-6 if np.asarray(x).dtype == np.float64 else 1e-4
    assert float(slope) == pytest.approx((up - down) / (2 * step), rel=near)
    assert fg.jvp(f, (x,), (np.ones_like(x)[()] if type(x) is np.float32 else type(x)(1.0)
                            if type(x) is float else np.ones_like(x),))[1] == slope


def test_nested_derivatives_of_constants_work():
    assert fg.grad(lambda x: x * fg.grad(cube)(2.0))(5.0) == 12.0
    assert fg.grad(lambda x: x * fg.grad(lambda y: y * x.detach())(3.0))(2.0) == 2.0
    gradient = fg.grad(lambda x: x @ fg.grad(lambda y: (y ** 2).sum())(np.ones(2)))(np.ones(2))
    assert gradient.tolist() == [2, 2]
    # Inside, independence is no reason to warn.
    assert fg.grad(lambda x: x + fg.grad(lambda y: 3.0)(1.0))(1.0) == 1.0
    assert fg.grad(lambda x: x + fg.grad(lambda y: fnp.sign(y))(1.0))(1.0) == 1.0


def test_a_finished_transformation_leaves_nothing_behind():
    escaped = []
    fg.grad(lambda x: (escaped.append(x * 3), x * x)[1])(2.0)
    assert escaped[0].item() == 6.0
    assert fg.grad(lambda y: y * escaped[0].item())(1.0) == 6.0


# ---- element-wise functions -----------------------------------------------------------------

@pytest.mark.parametrize("x", [2.0, np.float32(2), np.array([0.5, 1.0, 2.0]),
                               np.full((2, 3), 0.3, np.float32)])
def test_elementwise_grad_is_the_derivative_of_each_entry(x):
    slope = fg.elementwise_grad(lambda x: np.sin(x) * x)(x)
    assert type(slope) is type(x)
    np.testing.assert_allclose(slope, np.cos(x) * x + np.sin(x), rtol=1e-5)
    assert np.asarray(slope).dtype == np.asarray(x).dtype


# ---- promotion of Python floats --------------------------------------------------------------

OTHERS = {
    "0-d float32": np.array(2, np.float32), "float32": np.float32(2), "float64": np.float64(2),
    "0-d float64": np.array(2.0), "array": np.array([2, 3], np.float32), "int": 2, "bool": True,
    "float": 2.0, "int64": np.int64(2), "int8": np.int8(2), "0-d int": np.array(2),
}


def kind_of(y):
    return type(y), getattr(y, "dtype", None), np.shape(y)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("act", [operator.add, operator.sub, operator.mul, operator.truediv,
                                 operator.floordiv, operator.mod, operator.pow])
def test_operators_promote_a_python_float_as_without_differentiating(act, other):
    for f in (lambda y: act(y, OTHERS[other]), lambda y: act(OTHERS[other], y),
              lambda y: act(act(y, y), OTHERS[other]), lambda y: act(OTHERS[other], abs(-y))):
        expected = kind_of(f(1.5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")     # of results that do not depend on y
            assert kind_of(fg.jvp(f, (1.5,), (1.0,))[0]) == expected
            assert kind_of(fg.vjp(f, 1.5)[0]) == expected
            assert kind_of(fg.linearize(f, 1.5)[0]) == expected
            assert kind_of(fg.compile(f)(1.5)) == expected
            assert kind_of(fg.grad(lambda y, f=f: (y, f(y)), has_aux=True)(1.5)[1]) == expected
            assert type(fg.grad(lambda y, f=f: fnp.sum(f(y)))(1.5)) is float
