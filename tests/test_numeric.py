"""fastgrad.numeric against derivatives known exactly, and the trees it stands on."""

import ast
import collections
import dataclasses
import inspect
import itertools
import math
import os
import pickle
import re
import sys
import warnings

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import numeric
from fastgrad._core import arguments, trees

Params = collections.namedtuple("Params", "w b")


@dataclasses.dataclass(frozen=True)
class Layer:
    w: object
    bias: object = None
    doubled: object = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "doubled", self.w * 2)


@dataclasses.dataclass(slots=True)
class Slotted:
    a: object
    later: object = dataclasses.field(init=False)


METHODS = numeric.METHODS
# How many digits of the machine epsilon a method keeps in its first derivatives, about.
SHARE = {"forward": 1 / 2, "central": 2 / 3, "richardson": 0.85, "complex": 0.98}


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning that no test asks for is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def close(found, wanted, tolerance):
    """Whether trees agree in structure, shape and, but for the tolerance, numbers."""
    def leaf(x, y):
        np.testing.assert_allclose(x, y, tolerance, tolerance)
        assert np.shape(x) == np.shape(y)
    trees.tree_map(leaf, wanted, found)


# ---- trees ----------------------------------------------------------------------------------

TREE = {"b": (1.0, [2, None]), "a": Params(np.float32(3), Layer(4.0, 5)), 5: (), "n": None}


def test_a_tree_comes_back_from_its_leaves():
    leaves, structure = trees.flatten(TREE)
    assert leaves == [1.0, 2, 3, 4.0, 5, 8.0]
    again = trees.unflatten(structure, leaves)
    assert again == TREE
    assert list(again) == ["b", "a", 5, "n"]
    assert type(again["b"]) is tuple and type(again["b"][1]) is list
    assert type(again["a"]) is Params and type(again["a"].b) is Layer
    assert pickle.loads(pickle.dumps(structure)) == structure


def test_paths_are_what_one_would_write():
    paths = [path for path, _ in trees.leaves_with_paths(TREE)]
    assert paths == ["['b'][0]", "['b'][1][0]", "['a'].w", "['a'].b.w", "['a'].b.bias",
                     "['a'].b.doubled"]
    for path, leaf in trees.leaves_with_paths(TREE):
        assert eval(f"TREE{path}") is leaf
    assert trees.leaves_with_paths(3) == [("", 3)]
    assert trees.leaves_with_paths(None) == []


@pytest.mark.parametrize("leaf", [
    1, 2.0, "text", {1, 2}, np.ones(2), np.float32(1), fg.tensor([1.0]), Layer, dict, object(),
    collections.UserDict(a=1), os.stat("."), range(3)], ids=lambda leaf: type(leaf).__name__)
def test_anything_else_is_a_leaf(leaf):
    leaves, structure = trees.flatten([leaf])
    assert leaves[0] is leaf
    assert trees.unflatten(structure, leaves)[0] is leaf


def test_dataclasses_are_rebuilt_without_running_their_code():
    mapped = trees.tree_map(lambda x: x + 1, Layer(1.0))
    assert (mapped.w, mapped.bias, mapped.doubled) == (2.0, None, 3.0)
    unset = trees.tree_map(lambda x: -x, Slotted(1.0))
    assert unset.a == -1.0
    assert not hasattr(unset, "later")
    strange = trees.unflatten(trees.flatten(Layer(1.0))[1], ["no number", None])
    assert strange.w == "no number"


def test_structures_compare():
    def structure(tree):
        return trees.flatten(tree)[1]

    assert structure(TREE) == structure(trees.tree_map(lambda x: "other", TREE))
    different = [1, (), [], {}, None, (1,), [1], {0: 1}, {"w": 1}, {"w": 1, "b": 1},
                 {"b": 1, "w": 1}, Params(1, 1), (1, 1), Params(1, None), Layer(1), ((1,),)]
    for one, other in itertools.combinations(different, 2):
        assert structure(one) != structure(other)


def test_dicts_are_matched_by_key():
    found = trees.tree_map(lambda x, y: (x, y), {"a": 1, "b": [2]}, {"b": [20], "a": 10})
    assert found == {"a": (1, 10), "b": [(2, 20)]}
    assert list(found) == ["a", "b"]
    with pytest.raises(ValueError, match=r"at \['b'\]: expected a list of 1, got a tuple of 1"):
        trees.tree_map(max, {"a": 1, "b": [2]}, {"b": (20,), "a": 10})


@pytest.mark.parametrize("one, other, text", [
    ([1, (2, 3)], [1, (2,)], r"at \[1\]: expected a tuple of 2, got a tuple of 1"),
    ([1, (2, 3)], [1, 2], r"at \[1\]: expected a tuple of 2, got a leaf \(int\)"),
    ([1, 2], [1, None], r"at \[1\]: expected a leaf, got None"),
    ([None], [1], r"at \[0\]: expected None, got a leaf \(int\)"),
    ({"w": {"b": 1}}, {"w": {"c": 1}},
     r"at \['w'\]: expected a dict with the keys \['b'\], got a dict with the keys \['c'\]"),
    ({"w": Layer(Params(1, 2), 0)}, {"w": Layer((1, 2), 0)},
     r"at \['w'\]\.w: expected a Params of 2, got a tuple of 2"),
    (1, (1,), r"differ: expected a leaf, got a tuple of 1")])
def test_differing_trees_are_told_by_path(one, other, text):
    with pytest.raises(ValueError, match=text):
        trees.tree_map(lambda x, y: x, one, other)


def test_too_few_and_too_many_leaves():
    structure = trees.flatten([1, 2])[1]
    for leaves in ([1], [1, 2, 3]):
        with pytest.raises(ValueError, match=f"2 leaves, not {len(leaves)}"):
            trees.unflatten(structure, leaves)


@pytest.mark.parametrize("module, allowed", [(trees, {"numpy"}), (arguments, {"trees"}),
                                             (numeric, {"trees", "numpy"})])
def test_nothing_of_the_core_is_used(module, allowed):
    imported = [node for node in ast.walk(ast.parse(inspect.getsource(module)))
                if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name.name for node in imported for name in node.names
             if getattr(node, "module", None) in (None, "fastgrad", "fastgrad._core")}
    assert names - set(sys.stdlib_module_names) == allowed


# ---- gradients ------------------------------------------------------------------------------

def wavy(x):
    return np.sum(np.sin(x) * x)


def wavy_slope(x):
    return np.cos(x) * x + np.sin(x)


ARRAYS = {
    "0-d": np.array(0.7),
    "empty": np.zeros((0, 2)),
    "vector": np.array([0.3, -1.2, 2.5]),
    "rank 3": np.linspace(-2, 2, 6).reshape(3, 1, 2),
    "strided": np.linspace(-2, 2, 24).reshape(4, 6)[::2, ::-3],
    "Fortran": np.asfortranarray(np.linspace(-2, 2, 6).reshape(2, 3)),
    "broadcast": np.broadcast_to(np.array([0.5, 1.5]), (2, 2)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ARRAYS)
def test_gradients_of_arrays(name, dtype, method):
    x = ARRAYS[name] if dtype == np.float64 else ARRAYS[name].astype(dtype, order="K")
    gradient, error = numeric.gradient(wavy, x, method=method, full_output=True)
    for found in (gradient, error):
        assert type(found) is np.ndarray
        assert found.shape == x.shape
        assert found.dtype == dtype
    tolerance = 30 * np.finfo(dtype).eps ** SHARE[method]
    np.testing.assert_allclose(gradient, wavy_slope(x.astype(float)), tolerance, tolerance)
    np.testing.assert_array_equal(gradient, numeric.gradient(wavy, x, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("x", [2.0, np.float64(2), np.float32(2), np.array(2.0),
                               np.array([2.0], np.float32)], ids=lambda x: type(x).__name__)
def test_the_gradient_is_of_the_kind_of_the_argument(x, method):
    gradient = numeric.gradient(lambda x: np.sum(x * x * x), x, method=method)
    assert type(gradient) is type(x)
    assert np.asarray(gradient).dtype == np.asarray(x).dtype
    np.testing.assert_allclose(gradient, np.full(np.shape(x), 12), rtol=2e-3)


def test_python_floats_are_weak():
    def f(c, x):
        assert (c * x).dtype == np.float32
        return np.sum(np.sin(c * x))

    x = np.ones(3, np.float32)
    slope = numeric.gradient(f, 0.5, x)
    assert type(slope) is float
    # The step suits float32; the one for float64 would leave errors of 1e-2.
    assert abs(slope - 3 * math.cos(0.5)) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_trees_keep_their_structure(method):
    x = {"w": [np.array([1.0, 2.0]), (0.5, None)], 3: Params(np.float32(2), np.array(1.5)),
         "layer": Layer(np.array([3.0]))}

    def f(x):
        assert type(x[3]) is Params
        assert isinstance(x["w"][1][0], (float, complex))
        assert x["w"][1][1] is None
        return (x["w"][0] ** 2).sum() * x["w"][1][0] + x[3].w * x[3].b + x["layer"].doubled[0]

    gradient = numeric.gradient(f, x, method=method)
    close(gradient["w"], [np.array([1.0, 2.0]), (5.0, None)], 1e-6)
    assert type(gradient[3].w) is np.float32
    close(tuple(gradient[3]), (1.5, np.array(2.0)), 1e-3)
    close((gradient["layer"].w, gradient["layer"].doubled), (np.zeros(1), np.ones(1)), 1e-6)


@pytest.mark.parametrize("argnums, wanted", [
    (0, 15.0), (1, 10.0), (-1, 6.0), ((0,), (15.0,)), ([2, 0], (6.0, 15.0)), ((), ()),
    (np.int64(1), 10.0)])
def test_argument_numbers(argnums, wanted):
    found = numeric.gradient(lambda a, b, c: a * b * c, 2.0, 3.0, 5.0, argnums=argnums)
    close(found, wanted, 1e-9)


def test_other_arguments_pass_untouched():
    marker, n = object(), np.arange(3)

    def f(x, anything, numbers):
        assert anything is marker
        assert numbers is n
        return x * numbers.sum()

    assert abs(numeric.gradient(f, 2.0, marker, n) - 3) < 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_f_is_given_copies(method):
    x, p = np.array([1.0, 2.0]), np.array([3.0])
    seen = []

    def f(x, p):
        seen.append(x)
        x *= x
        p[0] += 1
        return x.sum()

    close(numeric.gradient(f, x, p, method=method), np.array([2.0, 4.0]), 1e-6)
    assert x.tolist() == [1, 2]
    assert not any(np.shares_memory(x, other) for other in seen)
    assert p[0] > 3                     # what is not differentiated is f's own affair


@pytest.mark.parametrize("method", METHODS)
def test_the_twin_of_grad(method, rng):
    w, x = rng.standard_normal((3, 2)), rng.standard_normal((4, 3))

    def f(p):
        return np.mean(np.tanh(x @ p["w"] + p["b"]) ** 2)

    p = {"w": w, "b": 0.1}
    close(numeric.gradient(f, p, method=method), fg.grad(f)(p), 1e-7)


def test_one_number_may_come_in_an_array():
    close(numeric.gradient(lambda x: np.array([[x]]) ** 2, 3.0), 6.0, 1e-8)


def test_constants_and_integers_have_slope_zero():
    x = np.array([1.0, 2.0])
    for f in (lambda x: 3, lambda x: 3.0, lambda x: np.int8(3)):
        assert numeric.gradient(f, x).tolist() == [0, 0]
    first, second = numeric.jacobian(lambda x: [x.sum(), 1], x)
    close(first, np.ones(2), 1e-9)
    assert second.dtype == float
    assert second.tolist() == [0, 0]


# ---- steps ----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["forward", "central"])
def test_the_step_is_exact(method, dtype, rng):
    # If the quotient were not divided by the distance that is really gone, rounding x + step
    # would show in the slope of the identity.
    x = (rng.standard_normal(200) * 10.0 ** rng.uniform(-3, 6, 200)).astype(dtype)
    slopes = [numeric.gradient(lambda x: x, value, method=method) for value in x]
    assert slopes == [1] * 200


def points(x, **options):
    """The points where f is called, less x."""
    seen = []

    def f(x):
        seen.append(np.asarray(x, float))
        return np.sum(x)

    numeric.gradient(f, x, **options)
    return [point - x for point in seen]


def test_steps_follow_magnitude_and_precision():
    for x, dtype in itertools.product((0.0, 1.0, 1e5, -1e5), (np.float32, np.float64)):
        step = np.finfo(dtype).eps ** (1 / 3) * max(1, abs(x))
        np.testing.assert_allclose(points(dtype(x)), [0, step, -step], rtol=1e-2)
        step = np.finfo(dtype).eps ** (1 / 2) * max(1, abs(x))
        np.testing.assert_allclose(points(dtype(x), method="forward"), [0, step], rtol=1e-2)
        first, *_, last = points(dtype(x), method="richardson")[1:]
        np.testing.assert_allclose([first, -last * 2 ** 9], 0.1 * max(1, abs(x)), rtol=1e-2)
    moves = points(np.array([1.0, 1e5]))
    assert np.count_nonzero(moves, axis=1).tolist() == [0, 1, 1, 1, 1]
    assert moves[3][1] > 0.1 > moves[1][0]


def test_steps_as_given():
    assert points(2.0, step=0.25) == [0, 0.25, -0.25]
    assert points(2.0, step=np.float32(0.25), method="forward") == [0, 0.25]
    assert points(2.0, step=0.25, full_output=True) == [0, 0.25, -0.25, 0.5, -0.5]
    assert points(2.0, step=0.5, method="richardson")[1:5] == [0.5, -0.5, 0.25, -0.25]
    assert numeric.gradient(lambda x: x ** 3, 2.0, step=0.25) == 12.0625


@pytest.mark.parametrize("method, calls", [
    ("forward", 1 + 3), ("central", 1 + 6), ("richardson", 1 + 60), ("complex", 1 + 3 + 5)])
def test_calls_are_as_documented(method, calls):
    count = itertools.count()
    numeric.gradient(lambda x: (next(count), np.sum(x))[1], np.ones(3), method=method)
    assert next(count) == calls


# ---- methods --------------------------------------------------------------------------------

def exp_over_root(x):
    return np.exp(x) / np.sqrt(np.cos(x) ** 3 + np.sin(x) ** 3)


CASES = {
    "sin": (np.sin, 1.0, math.cos(1)), "exp": (np.exp, 3.0, math.exp(3)),
    "square": (np.square, 1e6, 2e6), "reciprocal": (np.reciprocal, 0.5, -4.0),
    "tanh": (np.tanh, -0.4, 1 - math.tanh(0.4) ** 2), "sqrt": (np.sqrt, 2.0, 0.5 / math.sqrt(2)),
    "log": (np.log, 0.02, 50.0), "arctan": (np.arctan, 0.0, 1.0),
    "cancelling": (lambda x: np.exp(x) - 1e4 * x, 0.0, -9999.0),
    "exp over root": (exp_over_root, 1.5, 4.05342789389862),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CASES)
def test_slopes_are_right_and_errors_are_honest(name, method):
    f, x, wanted = CASES[name]
    slope, error = numeric.derivative(f, x, method=method, full_output=True)
    assert type(slope) is type(error) is float
    eps = np.finfo(float).eps
    assert abs(slope - wanted) <= 2 * error + 10 * eps * abs(wanted)
    # An error that is always large would be honest as well. The hardest of the cases is log, whose
    # derivatives grow by factors of 50.
    assert error <= 2e3 * eps ** SHARE[method] * (1 + abs(wanted) + abs(f(x)))


def test_ridders_leaves_out_what_is_outside_the_domain():
    # Half of the steps reach below zero.
    slope, error = numeric.derivative(np.log, 0.003, method="richardson", full_output=True)
    assert abs(slope * 0.003 - 1) < 1e-4
    assert abs(slope - 1 / 0.003) < error < 1


@pytest.mark.parametrize("f, x", [(np.log, -1.0), (np.log, 0.0), (np.sin, np.inf), (np.sin, np.nan),
                                  (lambda x: np.sqrt(x) + np.sqrt(-x), 0.0)])
@pytest.mark.parametrize("method", ["forward", "central", "richardson"])
def test_no_derivative_is_no_number(f, x, method):
    with np.errstate(all="ignore"):
        slope, error = numeric.derivative(f, x, method=method, full_output=True)
    assert not math.isfinite(slope)
    assert not math.isfinite(error)


def test_each_output_has_its_own_error():
    x = np.array([0.3, 1.0])
    jacobian, error = numeric.jacobian(
        lambda x: np.stack([np.sin(x), 1e8 + np.sin(x)]), x, method="richardson", full_output=True)
    exact = np.array([np.diag(np.cos(x))] * 2)
    assert (abs(jacobian - exact) <= error).all()
    assert error[0].max() < 1e-11 < 1e-7 < error[1].max() < 1e-5


def test_error_of_a_jump():
    _, error = numeric.derivative(np.sign, 1e-7, method="central", full_output=True)
    assert error > 1e4


# ---- the complex step -----------------------------------------------------------------------

def stores_in_reals(x):
    out = np.zeros(2)
    out[:] = x
    return out.sum()


DROPS = {
    "abs": lambda x: abs(x).sum(), "abs inside": lambda x: (abs(x) * x).sum(),
    "conj": lambda x: (x * np.conj(x) * (1 + 0j * x)).sum().real * x.sum(),
    "norm": np.linalg.norm, "norm inside": lambda x: np.linalg.norm(x) * x[0],
    "real": lambda x: np.real(x).sum(), "float": lambda x: float(x[0]),
    "math": lambda x: math.sin(x[0]), "stores in reals": stores_in_reals,
    "real ufunc": lambda x: np.arctan2(x[0], x[1]),
    "constant": lambda x: 3.0, "item of a tree": lambda x: abs(x[0]),
}


@pytest.mark.parametrize("name", DROPS)
@pytest.mark.parametrize("differentiate", [numeric.gradient, numeric.jacobian, numeric.hessian])
def test_complex_step_refuses_what_drops_the_imaginary_part(name, differentiate):
    f = DROPS[name]
    with pytest.raises(TypeError, match="does not take a complex step.*richardson") as caught:
        differentiate(f, np.array([1.0, -2.0]), method="complex")
    assert caught.value.args[0].startswith(f.__name__)


def test_complex_step_says_what_dropped_it():
    with pytest.raises(TypeError, match="Casting complex values to real") as caught:
        numeric.gradient(stores_in_reals, np.ones(2), method="complex")
    assert isinstance(caught.value.__cause__, np.exceptions.ComplexWarning)
    with pytest.raises(TypeError, match=r"returned the float 3\.0 at \['b'\]\[0\]"):
        numeric.jacobian(lambda x: {"a": x, "b": [3.0]}, 1.0, method="complex")
    with pytest.raises(TypeError, match="does not take a complex step"):
        numeric.derivative(lambda x: abs(x) * x, -1.0, method="complex")
    with pytest.raises(TypeError, match="does not take a complex step"):
        numeric.jvp(lambda x: abs(x) * x, -1.0, 2.0, method="complex")


@pytest.mark.parametrize("f", [
    lambda x: np.sum(np.where(x > 0, x, 0.1 * x)), lambda x: np.max(x * x), lambda x: np.sort(x)[0],
    lambda x: x[0] * 1e300 if x[1] > 0 else -x[0], lambda x: np.prod(x) * 1e-200,
    lambda x: (x @ np.diag([1.0, 2.0]) @ x) ** 0.5])
def test_complex_step_takes_branches_on_the_real_part(f):
    x = np.array([1.5, -2.0])
    close(numeric.gradient(f, x, method="complex"), numeric.gradient(f, x, method="richardson"),
          1e-9)


def test_complex_step_is_exact_where_differences_are_lost():
    x = np.array([1e-20, 1.0, 1e20])
    found = numeric.gradient(lambda x: np.sum(np.log(x)), x, method="complex")
    np.testing.assert_allclose(found, 1 / x, rtol=1e-15)
    assert numeric.derivative(np.exp, -500.0, method="complex") == pytest.approx(
        math.exp(-500), rel=1e-14, abs=0)


# ---- Jacobians ------------------------------------------------------------------------------

@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape, out", [
    ((), ()), ((), (2,)), ((3,), ()), ((3,), (2, 2)), ((3, 1, 2), (2, 1)), ((0,), (2,)),
    ((2,), (0, 3))])
def test_jacobians(shape, out, dtype, method, rng):
    weights = rng.standard_normal(out + shape).astype(dtype)
    x = rng.standard_normal(shape).astype(dtype)

    def f(x):
        return np.tensordot(weights, np.sin(x), len(shape)) if shape else weights * np.sin(x)

    wanted = weights * np.cos(x)
    tolerance = 100 * np.finfo(dtype).eps ** SHARE[method]
    found = numeric.jacobian(f, x, method=method)
    assert found.shape == out + shape
    assert found.dtype == dtype
    np.testing.assert_allclose(found, wanted, tolerance, tolerance)
    other = numeric.jacobian(f, x, method=method, layout="denominator")
    assert other.shape == shape + out
    for i, j in itertools.product(np.ndindex(out), np.ndindex(shape)):
        assert other[j + i] == found[i + j]


def test_jacobian_of_trees():
    def f(a, p):
        return {"y": a * p["w"], "z": (p["w"].sum() * p["b"], None)}

    p = {"w": np.array([2.0, 3.0]), "b": 5.0}
    found = numeric.jacobian(f, 7.0, p, argnums=(0, 1), method="complex")
    wanted = {"y": (p["w"], {"w": 7 * np.eye(2), "b": np.zeros(2)}),
              "z": ((0.0, {"w": np.array([5.0, 5.0]), "b": 5.0}), None)}
    close(found, wanted, 1e-14)
    assert type(found["z"][0][1]["b"]) is float
    single = numeric.jacobian(f, 7.0, p, argnums=1, method="complex")
    close(single, {"y": wanted["y"][1], "z": (wanted["z"][0][1], None)}, 1e-14)
    found, error = numeric.jacobian(f, 7.0, p, argnums=1, full_output=True)
    close(found, single, 1e-8)
    trees.tree_map(lambda e, j: np.testing.assert_array_less(e, 1e-6 * np.ones_like(j)),
                    error, found)


@pytest.mark.parametrize("x, scale, dtype", [
    (np.ones(2, np.float32), np.float32(2), np.float32), (np.ones(2, np.float32), 2.0, np.float32),
    (np.ones(2, np.float32), np.float64(2), np.float64), (np.ones(2), np.float32(2), np.float64),
    (1.0, np.ones(2, np.float32), np.float32), (1.0, np.ones(2), np.float64)])
def test_jacobians_have_the_dtype_of_their_product_with_a_tangent(x, scale, dtype):
    for method in METHODS:
        assert numeric.jacobian(lambda x: x * scale, x, method=method).dtype == dtype


# ---- Hessians -------------------------------------------------------------------------------

@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hessians(method, dtype):
    x = np.array([[0.5], [-1.0], [2.0]], dtype)
    y = x.astype(float).ravel()
    wanted = np.diag(-np.sin(y)) + 2 * (np.outer(y, y) * 2 + (y @ y) * np.eye(3))
    found, error = numeric.hessian(lambda x: np.sum(np.sin(x)) + np.sum(x * x) ** 2 / 2, x,
                                   method=method, full_output=True)
    share = {"forward": 1 / 3, "central": 1 / 2, "richardson": 0.8, "complex": 2 / 3}[method]
    assert found.shape == error.shape == (3, 1, 3, 1)
    assert found.dtype == error.dtype == dtype
    matrix = found.reshape(3, 3)
    np.testing.assert_array_equal(matrix, matrix.T)
    tolerance = 100 * np.finfo(dtype).eps ** share
    np.testing.assert_allclose(matrix, wanted, tolerance, tolerance)
    assert (abs(matrix - wanted) <= 2 * error.reshape(3, 3) + 1e-6 * abs(wanted)).all()


def test_hessian_of_trees():
    def f(p, c):
        return c * p["w"][0] * p["w"][1] * p["b"]

    p = {"w": np.array([2.0, 3.0]), "b": 5.0}
    found = numeric.hessian(f, p, 1.0, method="complex")
    close(found, {"w": {"w": np.array([[0.0, 5.0], [5.0, 0.0]]), "b": np.array([3.0, 2.0])},
                  "b": {"w": np.array([3.0, 2.0]), "b": 0.0}}, 1e-8)
    assert type(found["b"]["b"]) is float
    by_p, by_c = numeric.hessian(f, p, 1.0, argnums=(0, 1), method="complex")
    close(by_p["w"][1], np.array([15.0, 10.0]), 1e-8)
    close(by_c, ({"w": np.array([15.0, 10.0]), "b": 6.0}, 0.0), 1e-8)
    assert numeric.hessian(lambda x: x.sum(), np.zeros((0, 2))).shape == (0, 2, 0, 2)
    assert abs(numeric.hessian(lambda x: x ** 3, 2.0) - 12) < 1e-5


# ---- higher derivatives and directions ------------------------------------------------------

@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_higher_derivatives(order, method):
    slope, error = numeric.derivative(np.exp, 0.5, order, method=method, full_output=True)
    share = {"forward": 1 / (order + 1), "central": 2 / (order + 2), "richardson": 1 - 0.17 * order,
             "complex": 1 if order == 1 else 2 / (order + 1)}[method]
    off = abs(slope - math.exp(0.5))
    assert off <= 2 * error + 1e-15
    assert off <= 30 * np.finfo(float).eps ** share
    assert slope == numeric.derivative(np.exp, 0.5, order, method=method)


def test_derivatives_of_arrays_and_trees():
    found = numeric.derivative(lambda t: {"a": np.array([t, t ** 2, t ** 3]), "b": t}, 2.0, order=2,
                               method="richardson")
    close(found, {"a": np.array([0.0, 2.0, 12.0]), "b": 0.0}, 1e-9)
    assert type(numeric.derivative(np.sin, 1.0)) is float
    assert type(numeric.derivative(np.sin, np.float32(1))) is np.float32
    assert numeric.derivative(np.sin, np.array(1.0)).shape == ()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e-10, 1, 1e10])
def test_directions(method, size, rng):
    x = {"a": rng.standard_normal((2, 3)), "b": 0.5}
    v = {"a": size * rng.standard_normal((2, 3)), "b": -size}

    def f(x):
        return np.sin(x["a"]) * x["b"], x["b"] ** 2

    (wave, square), error = numeric.jvp(f, x, v, method=method, full_output=True)
    tolerance = size * 30 * np.finfo(float).eps ** SHARE[method]
    np.testing.assert_allclose(wave, np.cos(x["a"]) * v["a"] * 0.5 - np.sin(x["a"]) * size,
                               0, tolerance)
    assert type(square) is float
    assert abs(square + size) < tolerance
    assert error[0].shape == (2, 3)
    assert max(error[0].max(), error[1]) < 10 * tolerance


def test_directions_at_their_simplest():
    assert numeric.jvp(lambda x: x * x, np.ones(2), np.zeros(2)).tolist() == [0, 0]
    found = numeric.jvp(lambda x: x * x, np.ones(2), np.array([3, 4]))
    close(found, np.array([6.0, 8.0]), 1e-8)
    found = numeric.jvp(lambda x: x * x, np.ones(2, np.float32), np.ones(2))
    assert found.dtype == np.float32
    # No entry is taken further than alone it would be.
    seen = []
    numeric.jvp(lambda x: (seen.append(x), x)[1], np.array([1.0, 1e6]), np.ones(2),
                method="forward")
    assert (seen[1] - seen[0]).max() < 2e-8


# ---- what is refused ------------------------------------------------------------------------

X = np.array([1.0, 2.0])


@pytest.mark.parametrize("error, text, call", [
    (ValueError, "method must be one of 'central', .*, not 'centrel'",
     lambda: numeric.gradient(np.sum, X, method="centrel")),
    (ValueError, "method must be one of", lambda: numeric.derivative(np.sin, 1.0, method="x")),
    (ValueError, "method must be one of", lambda: numeric.jvp(np.sum, X, X, method=None)),
    (ValueError, "method must be one of", lambda: numeric.hessian(np.sum, X, method="Central")),
    (ValueError, "layout must be one of 'numerator', 'denominator', not 'numerater'",
     lambda: numeric.jacobian(np.sum, X, layout="numerater")),
    (ValueError, "step must be a positive number, not 0",
     lambda: numeric.gradient(np.sum, X, step=0)),
    (ValueError, "step must be a positive number, not '1e-3'",
     lambda: numeric.gradient(np.sum, X, step="1e-3")),
    (ValueError, "step must be a positive number, not nan",
     lambda: numeric.jacobian(np.sum, X, step=math.nan)),
    (ValueError, "a step of 1e-17 is lost beside an entry of 1",
     lambda: numeric.gradient(np.sum, X, step=1e-17)),
    (TypeError, "sum: argument 0 is an array of dtype int64, .* write .astype",
     lambda: numeric.gradient(np.sum, np.arange(3))),
    (TypeError, r"argument 1\['a'\]\[1\] is the int 2, .* write float",
     lambda: numeric.gradient(lambda a, p: a, 1.0, {"a": [1.0, 2]}, argnums=1)),
    (TypeError, "is the bool True", lambda: numeric.gradient(np.sum, True)),
    (TypeError, "is an array of dtype complex128, .*imaginary",
     lambda: numeric.gradient(np.sum, X * 1j)),
    (TypeError, "is the str 'x', .*pass floats", lambda: numeric.gradient(np.sum, "x")),
    (TypeError, "array of dtype object", lambda: numeric.gradient(np.sum, np.array([None]))),
    (TypeError, "MaskedArray", lambda: numeric.gradient(np.sum, np.ma.array([1.0]))),
    (TypeError, "Tensor", lambda: numeric.gradient(np.sum, fg.tensor([1.0]))),
    (TypeError, "set", lambda: numeric.gradient(np.sum, {1.0})),
    (TypeError, "f must be a function, not float", lambda: numeric.gradient(1.0, X)),
    (TypeError, r"argnums=1, but the number of arguments is 1",
     lambda: numeric.gradient(np.sum, X, argnums=1)),
    (TypeError, "number of arguments is 0", lambda: numeric.gradient(np.sum)),
    (TypeError, "argnums must be an int or a tuple of ints, not '0'",
     lambda: numeric.gradient(np.sum, X, argnums="0")),
    (ValueError, "names an argument twice", lambda: numeric.gradient(max, X, X, argnums=(0, -2))),
    (ValueError, r"must return one number, not an array of shape \(2,\); use jacobian",
     lambda: numeric.gradient(np.sin, X)),
    (ValueError, "must return one number", lambda: numeric.hessian(np.sin, X)),
    (TypeError, "must return one number, not tuple",
     lambda: numeric.gradient(lambda x: (x[0],), X)),
    (TypeError, "returned None; is a return missing", lambda: numeric.gradient(lambda x: None, X)),
    (TypeError, r"returned the str 'b' at \[1\]", lambda: numeric.jacobian(lambda x: [x, "b"], X)),
    (TypeError, "returned an array of dtype bool", lambda: numeric.jacobian(lambda x: x > 0, X)),
    (TypeError, "returned an array of dtype complex128",
     lambda: numeric.jacobian(lambda x: x * 1j, X)),
    (TypeError, "returned the object", lambda: numeric.jacobian(lambda x: object(), X)),
    (TypeError, "returned the Tensor", lambda: numeric.jacobian(fg.tensor, X)),
    (ValueError, r"returns something else nearby: the shapes differ: expected \(2,\), got \(1,\)",
     lambda: numeric.jacobian(lambda x: x[x >= 1], X)),
    (ValueError, r"nearby: the trees differ at \[0\]: expected a leaf, got a tuple",
     lambda: numeric.jacobian(lambda x: [x] if x[0] == 1 else [(x,)], X)),
    (ValueError, r"v must be like x, but the shapes differ at \['a'\]: expected \(2,\), got \(\)",
     lambda: numeric.jvp(lambda x: x["a"], {"a": X}, {"a": 1.0})),
    (ValueError, "v must be like x, but the trees differ",
     lambda: numeric.jvp(lambda x: x["a"], {"a": X}, X)),
    (ValueError, "order must be at least 1, not 0", lambda: numeric.derivative(np.sin, 1.0, 0)),
    (ValueError, "x must be one number", lambda: numeric.derivative(np.sin, X)),
    (ValueError, "x must be one number", lambda: numeric.derivative(lambda x: x[0], (1.0,) * 2))])
def test_refusals(error, text, call):
    with pytest.raises(error, match=text):
        call()


def test_what_f_raises_comes_through():
    def f(x):
        raise KeyError("mine")

    for method in METHODS:
        with pytest.raises(KeyError, match="mine"):
            numeric.gradient(f, 1.0, method=method)
    with pytest.raises(ValueError) as domain:
        math.sqrt(-math.inf)
    with pytest.raises(ValueError, match=re.escape(str(domain.value))):
        numeric.gradient(lambda x: math.sqrt(x - math.inf), 0.01, method="richardson")
