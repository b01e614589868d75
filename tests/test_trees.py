"""fg.trees: taking apart and putting together, vectors of numbers, classes of the user's."""

import collections
import dataclasses
import enum
import pickle

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import trees

pytestmark = pytest.mark.filterwarnings("error")

Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass
class Layer:
    w: object
    activation: object = "tanh"


class Colour(enum.Enum):
    RED = 1.5


class Line:
    """A registered class: two children, and what is no child."""

    def __init__(self, slope, offset, unit):
        self.slope, self.offset, self.unit = slope, offset, unit

    def __eq__(self, other):
        return type(other) is Line and all(map(np.array_equal, vars(self).values(),
                                               vars(other).values()))


fg.trees.register(Line, lambda x: ((x.slope, x.offset), x.unit),
                  lambda unit, children: Line(*children, unit))


def tree():
    return {"w": np.array([[1.0, 2.0]]), "b": 0.5, "line": Line(np.float32(3), [4.0], {"m": 1}),
            "more": (Pair(5.0, None), [Layer(np.ones(2, "f4"))]), "on": True, "how": Colour.RED}


# ---- flatten, unflatten, map ----------------------------------------------------------------

def test_taking_apart_and_putting_together():
    leaves, structure = fg.trees.flatten(tree())
    assert [x for x in leaves if not isinstance(x, np.ndarray)] == [
        0.5, 3, 4.0, 5.0, "tanh", True, Colour.RED]
    again = fg.trees.unflatten(structure, leaves)
    assert again["line"] == tree()["line"] and again["more"][0] == Pair(5.0, None)
    assert fg.trees.flatten(again)[1] == structure
    assert hash(structure) == hash(fg.trees.flatten(tree())[1])
    other = {**tree(), "line": Line(1.0, [2.0], {"m": 2})}
    assert fg.trees.flatten(other)[1] != structure
    assert fg.trees.unflatten(fg.trees.flatten(2.0)[1], [3.0]) == 3.0
    for count in (0, len(leaves) + 1):
        with pytest.raises(ValueError, match="leaves, not"):
            fg.trees.unflatten(structure, [1.0] * count)
    with pytest.raises(TypeError, match="unflatten: the structure must come from flatten"):
        fg.trees.unflatten([1.0], structure)


def test_map():
    found = fg.trees.map(lambda *x: x, Line(1.0, (2.0,), "m"), Line(3.0, (4.0,), "m"))
    assert found.slope == (1.0, 3.0) and found.offset == ((2.0, 4.0),) and found.unit == "m"
    with pytest.raises(ValueError, match="differ"):
        fg.trees.map(lambda *x: x, Line(1.0, 2.0, "m"), Line(1.0, 2.0, "s"))
    with pytest.raises(TypeError, match="map: the first argument must be a function"):
        fg.trees.map([1.0], abs)


# ---- ravel ----------------------------------------------------------------------------------

def test_a_vector_of_all_numbers_and_back():
    flat, unflatten = fg.trees.ravel(tree())
    assert flat.tolist() == [1, 2, 0.5, 3, 4, 5, 1, 1] and flat.dtype == float
    again = unflatten(flat + 1)
    assert again["w"].tolist() == [[2, 3]] and type(again["b"]) is float and again["b"] == 1.5
    assert type(again["line"].slope) is np.float32 and again["line"].unit == {"m": 1}
    assert again["more"][1][0].w.dtype == "f4" and again["on"] is True
    assert again["how"] is Colour.RED and again["more"][0].b is None
    assert pickle.loads(pickle.dumps(unflatten))(flat)["b"] == 0.5
    assert flat.flags.writeable and not np.shares_memory(flat, tree()["w"])
    for wrong in (flat[1:], flat[None], 1.0):
        with pytest.raises(ValueError, match=r"unflatten: the vector has shape .*, not \(8,\)"):
            unflatten(wrong)


def test_dtypes_of_the_vector():
    assert fg.trees.ravel({"a": np.ones(2, "f4"), "b": 1.0})[0].dtype == np.float32
    flat, unflatten = fg.trees.ravel({"n": 1, "x": 2.0})
    assert unflatten(flat * 0.5) == {"n": 0.5, "x": 1.0}        # nothing is cut off
    flat, unflatten = fg.trees.ravel([np.arange(2), 3])
    assert flat.dtype == int and unflatten(flat)[1] == 3 and unflatten(flat)[0].dtype == int
    for empty in ((), {"a": "x"}, "x", None):
        flat, unflatten = fg.trees.ravel(empty)
        assert flat.shape == (0,) and unflatten(flat) == empty
    with pytest.raises(TypeError, match=r"ravel: the leaf \['a'\] is a set.*fg.trees.register"):
        fg.trees.ravel({"a": {1.0}})
    with pytest.raises(TypeError, match="ravel: the leaf given is a ndarray of dtype complex128"):
        fg.trees.ravel(np.ones(2, complex))


def energy(p):
    return fnp.sum(p["w"] ** 2) * p["b"] + p["line"].slope * p["line"].offset[0] ** 2


def by_vector(unflatten):
    return lambda flat: energy(unflatten(flat))


def test_vectors_are_differentiated_as_trees_are():
    flat, unflatten = fg.trees.ravel(tree())
    wanted = fg.trees.ravel(fg.grad(energy)(tree()))[0]
    assert wanted.tolist() == [1, 2, 5, 16, 24, 0, 0, 0]        # by hand
    f = by_vector(unflatten)
    for found in (fg.grad(f)(flat), fg.jacobian(f, mode="forward")(flat),
                  fg.compile(fg.grad(f))(flat), fg.vmap(fg.grad(f))(flat[None])[0]):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    back = fg.grad(lambda p: fnp.sum(fg.trees.ravel(p)[0] ** 2))(tree())
    np.testing.assert_allclose(fg.trees.ravel(back)[0], 2 * flat)


# ---- classes of the user's ------------------------------------------------------------------

def loss(line):
    assert type(line) is Line
    return line.slope ** 2 * line.offset + (0.0 if line.unit == "m" else line.offset)


WAYS = {
    "grad": lambda f, x: fg.grad(f)(x),
    "value_and_grad": lambda f, x: fg.value_and_grad(f)(x)[1],
    "vjp": lambda f, x: fg.vjp(f, x)[1](1.0)[0],
    "elementwise_grad": lambda f, x: fg.elementwise_grad(f)(x),
    "jacobian": lambda f, x: fg.jacobian(f)(x),
    "jacobian, forward": lambda f, x: fg.jacobian(f, mode="forward")(x),
    "linearize": lambda f, x: Line(fg.linearize(f, x)[1](Line(1.0, 0.0, "m")),
                                   fg.linearize(f, x)[1](Line(0.0, 1.0, "m")), x.unit),
    "jvp": lambda f, x: Line(fg.jvp(f, (x,), (Line(1.0, 0.0, "m"),))[1],
                             fg.jvp(f, (x,), (Line(0.0, 1.0, "m"),))[1], x.unit),
    "taylor": lambda f, x: Line(fg.taylor(f, x, Line(1.0, 0.0, "m"), 1)[1],
                                fg.taylor(f, x, Line(0.0, 1.0, "m"), 1)[1], x.unit),
    "compile": lambda f, x: [g := fg.compile(fg.grad(f)), g(x), g(x)][2],
    "vmap": lambda f, x: fg.trees.map(lambda a: a[0].item(), fg.vmap(fg.grad(f))(
        fg.trees.map(lambda a: np.full(2, a), x))),
    "inside grad": lambda f, x: fg.grad(lambda s: (s, fg.grad(f)(x)), has_aux=True)(1.0)[1],
    "numeric": lambda f, x: fg.trees.map(lambda a: round(a, 6), fg.numeric.gradient(f, x)),
    "hvp": lambda f, x: fg.hvp(f, value=True)(x, x)[1],
}


@pytest.mark.parametrize("way", WAYS)
def test_registered_classes_in_transformations(way):
    assert WAYS[way](loss, Line(3.0, 5.0, "m")) == Line(30.0, 9.0, "m")


def test_registered_classes_in_second_derivatives_files_and_optimisers(tmp_path):
    x = Line(3.0, 5.0, "m")
    assert fg.hessian_diag(loss)(x) == Line(10.0, 0.0, "m")
    assert fg.hvp(loss)(x, Line(1.0, 0.0, "m")) == Line(10.0, 6.0, "m")
    H = fg.hessian(loss)(x)
    assert (H.slope, H.offset) == (Line(10.0, 6.0, "m"), Line(6.0, 0.0, "m"))
    f = fg.compile(fg.grad(loss))
    assert f(x) == f(x) and len(f.paths) == 1
    assert f(Line(3.0, 5.0, "s")).offset == 10.0 and len(f.paths) == 2
    f.save(tmp_path / "f.fgp")
    for g in (fg.load(tmp_path / "f.fgp"), pickle.loads(pickle.dumps(f.paths_only()))):
        assert g(x) == Line(30.0, 9.0, "m")
    opt = fg.optim.SGD(0.5)
    assert opt.step(Line(2.0, 4.0, "m"), opt.init(x), x)[0] == Line(2.0, 3.0, "m")


def test_wrong_places_in_registered_classes_are_named():
    with pytest.raises(TypeError, match=r"grad: argument 0\['a'\]\[1\] is the int 1"):
        fg.grad(lambda p: 1.0)({"a": Line(1.0, 1, "m")})
    with pytest.raises(ValueError, match="the tangent of argument 0 is not built like|differ"):
        fg.jvp(loss, (Line(1.0, 1.0, "m"),), (Line(1.0, 1.0, "s"),))


def test_what_cannot_be_registered():
    class Other:
        pass

    with pytest.raises(TypeError, match="grad: argument 0 holds a Other.*fg.trees.register.Other"):
        fg.grad(lambda x: 1.0)(Other())
    for kind in (dict, tuple, type(None), float, int, np.ndarray, np.float64, fg.Tensor, str):
        with pytest.raises(ValueError, match="has its meaning already"):
            fg.trees.register(kind, lambda x: ((), None), lambda aux, children: None)
    with pytest.raises(TypeError, match="register: the first argument must be a class"):
        fg.trees.register(Other(), abs, abs)
    with pytest.raises(TypeError, match="register: unflatten must be a function"):
        fg.trees.register(Other, abs, None)
    assert fg.trees.register(Other, lambda x: 3, lambda aux, children: None) is Other
    with pytest.raises(ValueError, match="Other is registered already"):
        fg.trees.register(Other, abs, abs)
    with pytest.raises(TypeError) as caught:
        fg.trees.flatten(Other())
    assert "(children, aux)" in caught.value.__notes__[0]


# ---- what is no number ----------------------------------------------------------------------

class Callable:
    def __call__(self):
        return 1.0


@pytest.mark.parametrize("x", ["relu", b"b", True, np.True_, Colour.RED, np.tanh, len, abs, int,
                               lambda x: x, fg.grad(abs), fg.compile(abs), slice(3), np.dtype("f4")])
def test_constants(x):
    assert trees.is_constant(x)


@pytest.mark.parametrize("x", [1, 1.0, 1j, np.ones(2), np.float64(1), np.array(True), {1.0}, object(),
                               Callable(), np.polynomial.Polynomial([1.0]), fg.tensor(True)])
def test_what_may_hold_numbers_is_none(x):
    assert not trees.is_constant(x)
