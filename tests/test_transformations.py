"""What all transformations have in common: arguments, trees, kinds, names, pickles, and errors.

The values of derivatives are the matter of test_derivatives.py and test_textbook.py; here each
transformation is held to what grad does.
"""

import collections
import copy
import dataclasses
import functools
import gc
import inspect
import pickle
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core, trees

Params = collections.namedtuple("Params", "w b")


@dataclasses.dataclass(frozen=True)
class Layer:
    w: object
    bias: object = None
    kind: dataclasses.InitVar[str] = "dense"
    doubled: object = dataclasses.field(init=False, default=None)

    def __post_init__(self, kind):
        if not isinstance(self.w, (float, np.ndarray, Params)):
            raise TypeError("__post_init__ must not run with Tensors")


class Stack(list):
    """A list with a method."""

    def total(self):
        return sum([fnp.sum(x) for x in self])


class Pair(tuple):
    """A tuple whose __init__ would not take one argument."""

    def __new__(cls, a, b):
        return tuple.__new__(cls, (a, b))

    def __getnewargs__(self):
        return tuple(self)


class Bunch(dict):
    """A dict whose entries are attributes, as many people write it."""

    def __init__(self, **entries):
        super().__init__(entries)
        self.__dict__ = self


@pytest.fixture(autouse=True)
def undisturbed():
    """A warning that no test asks for is an error, and nothing stays on the tape."""
    gc.collect()
    before = core.tape_info()["nodes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    gc.collect()
    assert core.tape_info()["nodes"] <= before
    assert core.is_recording() and not core.nested() and not core.transforming()
    assert fg.grad(lambda x: x ** 3)(2.0) == 12.0
    assert fg.jvp(lambda x: x ** 3, (2.0,), (1.0,)) == (8.0, 12.0)


def ones(tree):
    """A direction."""
    return trees.tree_map(lambda x: 1.0 if type(x) is float else np.ones_like(x) if isinstance(
        x, np.ndarray) else np.ones((), x.dtype)[()], tree)


def selected(argnums, args):
    return [args[i] for i in (argnums if isinstance(argnums, tuple) else (argnums,))]


def like(argnums, gradients):
    return tuple(gradients) if isinstance(argnums, tuple) else gradients[0]


# ---- the gradient of a function that returns one number, in every way -----------------------

def by_vjp(f, *args, argnums=0, **kwargs):
    y, pull = fg.vjp(f, *args, argnums=argnums, **kwargs)
    return like(argnums, pull(1.0))


def by_backward(f, *args, argnums=0, **kwargs):
    return by_leaves(f, args, argnums, kwargs, lambda y, leaves: (
        y.backward(), [leaf.grad for leaf in leaves])[1])


def by_gradients(f, *args, argnums=0, **kwargs):
    return by_leaves(f, args, argnums, kwargs, fg.gradients)


def by_leaves(f, args, argnums, kwargs, gradients):
    """From Tensors to what they were made of."""
    chosen = selected(argnums, args)
    plain, structure = trees.flatten(chosen)
    leaves = [fg.tensor(x, requires_grad=True) for x in plain]
    args = list(args)
    for i, x in zip(argnums if isinstance(argnums, tuple) else (argnums,),
                    trees.unflatten(structure, leaves), strict=True):
        args[i] = x
    found = [g.item() if type(x) is float else g.numpy().copy() if isinstance(x, np.ndarray)
             else g.numpy()[()] for g, x in zip(gradients(f(*args, **kwargs), leaves), plain,
                                                strict=True)]
    return like(argnums, trees.unflatten(structure, found))


def by_custom_vjp(f, *args, argnums=0, **kwargs):
    chosen = selected(argnums, args)

    @fg.custom_vjp
    def rule(*chosen):
        return f(*placed(chosen), **kwargs)

    def placed(chosen):
        whole = list(args)
        for i, x in zip(argnums if isinstance(argnums, tuple) else (argnums,), chosen, strict=True):
            whole[i] = x
        return whole

    numbers = tuple(range(len(chosen)))
    rule.defvjp(lambda *x: (rule(*x), x), lambda x, seed: trees.tree_map(
        lambda g: g * seed, fg.grad(lambda *x: f(*placed(x), **kwargs), numbers)(*x)))
    return like(argnums, fg.grad(rule, numbers)(*chosen))


def by_custom_jvp(f, *args, argnums=0, **kwargs):
    chosen = selected(argnums, args)

    @fg.custom_jvp
    def rule(*chosen):
        whole = list(args)
        for i, x in zip(argnums if isinstance(argnums, tuple) else (argnums,), chosen, strict=True):
            whole[i] = x
        return f(*whole, **kwargs)

    @rule.defjvp
    def along(primals, tangents):
        return fg.jvp(rule.__wrapped__, primals, tangents)

    return like(argnums, fg.grad(rule, tuple(range(len(chosen))))(*chosen))


def by_solution(solve):
    """f as the solution of x = f(theta)."""
    def way(f, *args, argnums=0, **kwargs):
        numbers = argnums if isinstance(argnums, tuple) else (argnums,)

        def solution(*chosen):
            return solve(lambda x, theta: f(*[theta[numbers.index(i)] if i in numbers else y
                                              for i, y in enumerate(args)], **kwargs), chosen)
        return like(argnums, fg.grad(solution, tuple(range(len(numbers))))(
            *selected(argnums, args)))
    return way


def by_jacobian(**options):
    def way(f, *args, argnums=0, **kwargs):
        return fg.jacobian(f, argnums, **options)(*args, **kwargs)
    return way


WAYS = {
    "grad": lambda f, *args, argnums=0, **kwargs: fg.grad(f, argnums)(*args, **kwargs),
    "value_and_grad": lambda f, *args, argnums=0, **kwargs: fg.value_and_grad(f, argnums)(
        *args, **kwargs)[1],
    "elementwise_grad": lambda f, *args, argnums=0, **kwargs: fg.elementwise_grad(f, argnums)(
        *args, **kwargs),
    "vjp": by_vjp,
    "jacobian, forward": by_jacobian(mode="forward"),
    "jacobian, reverse": by_jacobian(mode="reverse"),
    "jacobian, chunks": by_jacobian(mode="forward", chunk=2),
    "jacobian, denominator": by_jacobian(layout="denominator"),
    "gradients": by_gradients,
    "backward": by_backward,
    "custom_vjp": by_custom_vjp,
    "custom_jvp": by_custom_jvp,
    "fixed_point": by_solution(lambda f, theta: fg.fixed_point(f, 0.0, theta)),
    "root": by_solution(lambda f, theta: fg.root(
        lambda x, theta: f(x, theta) - x, 0.0, theta)),
    "inside grad": lambda f, *args, argnums=0, **kwargs: fg.grad(
        lambda s: inner(f, argnums, args, kwargs, s), has_aux=True)(1.0)[1],
}


def inner(f, argnums, args, kwargs, s):
    return s * 2, fg.grad(f, argnums)(*args, **kwargs)


# The derivative along ones.
ALONG = {
    "jvp": lambda f, *args, argnums=0, **kwargs: fg.jvp(
        f, args, tuple(map(ones, selected(argnums, args))), argnums=argnums, **kwargs)[1],
    "linearize": lambda f, *args, argnums=0, **kwargs: fg.linearize(
        f, *args, argnums=argnums, **kwargs)[1](*map(ones, selected(argnums, args))),
    "taylor": lambda f, *args, argnums=0, **kwargs: fg.taylor(
        lambda chosen: f(*[chosen[numbers(argnums, args).index(i)]
                           if i in numbers(argnums, args) else y
                           for i, y in enumerate(args)], **kwargs),
        tuple(selected(argnums, args)), tuple(map(ones, selected(argnums, args))), 1)[1],
}


def numbers(argnums, args):
    return [i % len(args) for i in (argnums if isinstance(argnums, tuple) else (argnums,))]


def same(found, wanted):
    """Whether two trees are of the same types, kinds, shapes, dtypes, and (nearly) numbers."""
    assert type(found) is type(wanted)
    branch = trees.open_branch(wanted)
    if branch is not None:
        opened = trees.open_branch(found)
        assert opened.keys == branch.keys
        for a, b in zip(opened.children, branch.children, strict=True):
            same(a, b)
        return
    np.testing.assert_allclose(found, wanted, 1e-6 if np.asarray(wanted).dtype == np.float32
                               else 1e-12)
    assert np.shape(found) == np.shape(wanted)
    if type(wanted) is not float:
        assert found.dtype == wanted.dtype
    if isinstance(wanted, np.ndarray):
        assert found.flags.writeable


TREES = {
    "float": 1.5,
    "float64": np.float64(1.5),
    "float32": np.float32(1.5),
    "0-d": np.array(1.5),
    "0-d float32": np.array(1.5, np.float32),
    "array": np.array([0.5, 2.0]),
    "float32 array": np.ones((2, 3), np.float32),
    "empty array": (np.zeros((0, 2)), 1.5),
    "tuple": (1.5, np.array([2.0, 3.0])),
    "list": [np.array([2.0, 3.0]), 1.5, []],
    "dict": {"b": 1.5, "a": np.array([2.0, 3.0]), 5: {}},
    "namedtuple": Params(1.5, np.array([2.0, 3.0])),
    "dataclass": Layer(1.5, np.array([2.0, 3.0])),
    "None inside": [None, (None, 1.5), Layer(0.5)],
    "nested": {"x": (Params(np.float32(2), [Layer(Params(0.5, None), 1.5)]), np.array(3.0)),
               "y": Layer(np.ones((1, 2), np.float32), [1.5])},
    "OrderedDict": collections.OrderedDict(b=1.5, a=np.array([2.0, 3.0])),
    "defaultdict": collections.defaultdict(list, b=1.5, a=[2.5]),
    "list subclass": Stack([1.5, np.array([2.0, 3.0])]),
    "tuple subclass": Pair(1.5, [2.5]),
    "dict subclass": Bunch(b=1.5, a=Bunch(c=np.array([2.0, 3.0]))),
}


def weighted(tree):
    """The gradient is 2 k leaf for the leaf number k."""
    return sum([k * fnp.sum(x * x) for k, x in enumerate(trees.flatten(tree)[0], 1)])


def gradient_of_weighted(tree):
    leaves, structure = trees.flatten(tree)
    return trees.unflatten(structure, [
        float(2 * k * x) if type(x) is float else np.asarray(2 * k * x, x.dtype)
        if isinstance(x, np.ndarray) else x.dtype.type(2 * k * x)
        for k, x in enumerate(leaves, 1)])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_built_like_the_argument(way, tree):
    def f(x):
        assert type(x) is type(tree) or trees.open_branch(tree) is None
        return weighted(x)

    before = copy.deepcopy(tree)
    found = WAYS[way](f, tree)
    if way == "inside grad":        # aux is lowered: the kinds are those of plain functions
        for a, b in zip(trees.flatten(found)[0], trees.flatten(gradient_of_weighted(tree))[0],
                        strict=True):
            np.testing.assert_allclose(a, b, 1e-6)
        assert type(found) is type(tree) or type(tree) is np.ndarray
    else:
        same(found, gradient_of_weighted(tree))
    same(tree, before)
    for a, b in zip(trees.flatten(found)[0], trees.flatten(tree)[0], strict=True):
        assert not np.shares_memory(a, b)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("way", ALONG)
def test_directions_are_built_like_the_argument(way, tree):
    found = ALONG[way](weighted, tree)
    total = sum([np.sum(np.asarray(g, float)) for g in trees.flatten(
        gradient_of_weighted(tree))[0]])
    assert float(found) == pytest.approx(total, 1e-6)
    leaves = trees.flatten(tree)[0]
    if all(type(x) is float for x in leaves):
        assert type(found) is float
    elif all(np.asarray(x).dtype == np.float32 for x in leaves):
        assert found.dtype == np.float32


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_results_are_built_like_what_the_function_returns(tree):
    def f(t):
        return trees.tree_map(lambda x: x * t, tree)

    kinds = trees.tree_map(lambda x: x * 2.0, tree)        # a 0-d array times a float is a scalar
    same(fg.jvp(f, (2.0,), (1.0,))[0], kinds)
    zero = trees.tree_map(lambda x: x * 1.0, tree)
    same(fg.jvp(f, (2.0,), (1.0,))[1], zero)
    same(fg.jvp(lambda t, u: f(t), (2.0, 1.0), (1.0, 0.0))[1], zero)
    y, push = fg.linearize(f, 2.0)
    same(y, kinds)
    same(push(1.0), zero)
    y, pull = fg.vjp(f, 2.0)
    same(y, kinds)
    same(pull(zero), (float(sum([np.sum(x * x) for x in trees.flatten(tree)[0]])),))
    same(fg.taylor(f, 2.0, 1.0, 1), [kinds, zero])
    J = fg.jacobian(f)(2.0)
    for a, b in zip(trees.flatten(J)[0], trees.flatten(tree)[0], strict=True):
        np.testing.assert_allclose(a, b, 1e-6)
        assert np.shape(a) == np.shape(b)
        assert type(a) is (float if np.shape(b) == () else np.ndarray)


@pytest.mark.parametrize("way", ["jvp", "vjp", "linearize", "jacobian", "grad"])
def test_aux_comes_back_as_the_function_would_have_returned_it(way):
    marker = object()
    found = {}

    def f(x):
        aux = {"od": collections.OrderedDict(y=x * 2), "dd": collections.defaultdict(list, k=[x]),
               "s": Stack([x, 1]), "p": Pair(x, "text"), "l": Layer(Params(x, None), x), "n": 3,
               "marker": marker, "stat": found.setdefault("stat", collections.UserDict(a=1))}
        return x * x, aux

    aux = {"jvp": lambda: fg.jvp(f, (1.5,), (1.0,), has_aux=True)[2],
           "vjp": lambda: fg.vjp(f, 1.5, has_aux=True)[2],
           "linearize": lambda: fg.linearize(f, 1.5, has_aux=True)[2],
           "jacobian": lambda: fg.jacobian(f, has_aux=True)(1.5)[1],
           "grad": lambda: fg.grad(f, has_aux=True)(1.5)[1]}[way]()
    assert type(aux["od"]) is collections.OrderedDict and aux["od"] == {"y": 3.0}
    assert aux["dd"].default_factory is list and aux["dd"]["k"] == [1.5] and aux["dd"]["new"] == []
    assert type(aux["s"]) is Stack and aux["s"] == [1.5, 1] and type(aux["s"][0]) is float
    assert type(aux["p"]) is Pair and aux["p"] == (1.5, "text")
    assert aux["l"].w == Params(1.5, None) and aux["l"].bias == 1.5
    assert aux["marker"] is marker and aux["stat"] is found["stat"] and aux["n"] == 3


def test_subclasses_are_usable_inside():
    assert fg.grad(lambda s: s.total())(Stack([1.0, np.ones(2)]))[0] == 1.0
    found = fg.grad(lambda b: b.x * b.y.z)(Bunch(x=2.0, y=Bunch(z=3.0)))
    assert found.x == 3.0 and found.y.z == 2.0
    found.x = 5.0
    assert found["x"] == 5.0
    counts = collections.Counter(a=1.5, b=2.5)
    found = fg.grad(lambda c: c["a"] * c["b"])(counts)
    assert type(found) is collections.Counter and found == {"a": 2.5, "b": 1.5}
    ordered = collections.OrderedDict(a=1.0, b=2.0)
    ordered.move_to_end("a")
    assert list(fg.grad(lambda d: d["a"] * d["b"])(ordered).items()) == [("b", 1.0), ("a", 2.0)]


# ---- argnums, keywords, functions of every kind ---------------------------------------------

@pytest.mark.parametrize("argnums, wanted", [
    (0, 15.0), (1, 10.0), (2, 6.0), ((0,), (15.0,)), ((1, 0), (10.0, 15.0)),
    ((0, 1, 2), (15.0, 10.0, 6.0))])
@pytest.mark.parametrize("way", WAYS)
def test_argument_numbers_and_keywords(way, argnums, wanted):
    def f(a, b, c, *, scale=1.0, words="none"):
        assert words == "some"
        assert type(scale) is float
        return a * b * c * scale

    same(WAYS[way](f, 2.0, 3.0, 5.0, argnums=argnums, scale=2.0, words="some"),
         trees.tree_map(lambda x: 2 * x, wanted))


@pytest.mark.parametrize("way", ["grad", "value_and_grad", "elementwise_grad", "vjp",
                                 "jacobian, forward", "jacobian, reverse"])
def test_negative_argument_numbers(way):
    assert WAYS[way](lambda a, b: a * b, 2.0, 3.0, argnums=-1) == 2.0
    assert WAYS[way](lambda a, b: a * b, 2.0, 3.0, argnums=(-1, 0)) == (2.0, 3.0)


@pytest.mark.parametrize("way", ALONG)
def test_argument_numbers_of_directions(way):
    def f(a, b, c, *, scale=1.0):
        return a * b * c * scale

    for argnums, wanted in ((0, 15.0), ((0, 2), 21.0), ((2, 1), 16.0)):
        assert ALONG[way](f, 2.0, 3.0, 5.0, argnums=argnums, scale=2.0) == 2 * wanted
    if way != "taylor":
        assert ALONG[way](f, 2.0, 3.0, 5.0, argnums=-1) == 6.0


def cubic(a, b, scale=1.0):
    return scale * (a ** 3 * b + b ** 2)


SECOND = {
    "hessian": lambda a, b, argnums=0, **kwargs: fg.hessian(cubic, argnums)(a, b, **kwargs),
    "hvp": lambda a, b, argnums=0, **kwargs: fg.hvp(cubic, argnums)(
        a, b, like(argnums, [1.0] * len(numbers(argnums, (a, b)))), **kwargs),
    "laplacian": lambda a, b, argnums=0, **kwargs: fg.laplacian(cubic, argnums)(a, b, **kwargs),
}


@pytest.mark.parametrize("argnums, hessian, hvp, laplacian", [
    (0, 36.0, 36.0, 36.0), (1, 2.0, 2.0, 2.0), (-2, 36.0, 36.0, 36.0),
    ((0, 1), ((36.0, 12.0), (12.0, 2.0)), (48.0, 14.0), 38.0),
    ((1,), ((2.0,),), (2.0,), 2.0), ((-1, 0), ((2.0, 12.0), (12.0, 36.0)), (14.0, 48.0), 38.0)])
def test_argument_numbers_of_second_order(argnums, hessian, hvp, laplacian):
    wanted = {"hessian": hessian, "hvp": hvp, "laplacian": laplacian}
    for way, derivative in SECOND.items():
        same(derivative(2.0, 3.0, argnums), wanted[way])
        same(derivative(2.0, 3.0, argnums, scale=0.5), trees.tree_map(
            lambda x: x / 2, wanted[way]))


def test_aux_of_every_transformation():
    def f(x):
        return x ** 3, {"twice": 2 * x, "name": "f"}

    aux = {"twice": 4.0, "name": "f"}
    for found, wanted in [
            (fg.grad(f, has_aux=True)(2.0), (12.0, aux)),
            (fg.value_and_grad(f, has_aux=True)(2.0), ((8.0, aux), 12.0)),
            (fg.elementwise_grad(f, has_aux=True)(2.0), (12.0, aux)),
            (fg.jvp(f, (2.0,), (1.0,), has_aux=True), (8.0, 12.0, aux)),
            (fg.jacobian(f, has_aux=True)(2.0), (12.0, aux)),
            (fg.hessian(f, has_aux=True)(2.0), (12.0, aux)),
            (fg.hvp(f, has_aux=True)(2.0, 1.0), (12.0, aux)),
            (fg.laplacian(f, has_aux=True)(2.0), (12.0, aux)),
            (fg.vjp(f, 2.0, has_aux=True)[::2], (8.0, aux)),
            (fg.linearize(f, 2.0, has_aux=True)[::2], (8.0, aux))]:
        assert found == wanted
    assert fg.vjp(f, 2.0, has_aux=True)[1](1.0) == (12.0,)
    assert fg.linearize(f, 2.0, has_aux=True)[1](1.0) == 12.0


RETURNED = {
    "grad": fg.grad, "value_and_grad": fg.value_and_grad, "elementwise_grad": fg.elementwise_grad,
    "jacobian": fg.jacobian, "hessian": fg.hessian, "hvp": fg.hvp, "laplacian": fg.laplacian,
}


def documented(x, power=2):
    """What it does."""
    return fnp.sum(x ** power)


@pytest.mark.parametrize("name", RETURNED)
def test_names_signatures_pickles_and_copies(name):
    derivative = RETURNED[name](documented)
    assert derivative.__name__ == "documented"
    assert derivative.__qualname__ == "documented"
    assert derivative.__module__ == __name__
    assert derivative.__doc__ == "What it does."
    assert derivative.__wrapped__ is documented
    assert repr(derivative) == f"<{name} of documented>"
    assert inspect.signature(derivative) == inspect.signature(documented)
    x = np.array([1.0, 2.0])
    args = (x, x) if name == "hvp" else (x,)
    wanted = derivative(*args, power=3)
    for other in (pickle.loads(pickle.dumps(derivative)), copy.copy(derivative),
                  copy.deepcopy(derivative)):
        same(other(*args, power=3), wanted)
        assert repr(other) == repr(derivative)
    options = {"argnums": (0,)}
    if name in ("jacobian", "hessian", "laplacian"):
        options["chunk"] = 1
    if name == "jacobian":
        options |= {"layout": "denominator", "mode": "reverse"}
    derivative = RETURNED[name](documented, **options)
    args = (x, (x,)) if name == "hvp" else (x,)
    same(pickle.loads(pickle.dumps(derivative))(*args), derivative(*args))


def test_what_holds_a_run_does_not_pickle():
    for held in (fg.vjp(documented, 2.0)[1], fg.linearize(documented, 2.0)[1]):
        with pytest.raises((TypeError, pickle.PicklingError, AttributeError)):
            pickle.dumps(held)
    assert repr(fg.vjp(documented, 2.0)[1]) == "<bound method Run.pull of <vjp of documented>>"


class Model:
    """Methods, before and after they are transformed."""

    scale = 3.0

    def energy(self, x, power=2):
        return self.scale * x ** power

    def __call__(self, x):
        return self.energy(x)

    gradient = fg.grad(energy, argnums=1)
    both = fg.value_and_grad(energy, argnums=1)
    each = fg.elementwise_grad(energy, argnums=1)
    slope = fg.jacobian(energy, argnums=1)
    curvature = fg.hessian(energy, argnums=1)
    product = fg.hvp(energy, argnums=1)
    trace = fg.laplacian(energy, argnums=1)

    @fg.custom_vjp
    def custom(self, x):
        return x ** 2

    custom.defvjp(lambda self, x: (x ** 2, x), lambda x, seed: (None, 2 * x * seed))

    @staticmethod
    @fg.jacobian
    def outer(x):
        return x ** 2


def test_methods():
    model = Model()
    assert model.gradient(2.0) == model.slope(2.0) == model.each(2.0) == 12.0
    assert model.both(2.0, power=1) == (6.0, 3.0)
    assert model.curvature(2.0, 3) == model.product(2.0, 3, 1.0) == model.trace(2.0, 3) == 36.0
    assert fg.grad(model.custom)(3.0) == 6.0
    assert Model.outer(3.0) == 6.0
    assert Model.slope(model, 2.0) == 12.0


def keyword_only(x, *, power):
    return x ** power


FUNCTIONS = {
    "lambda with a default": (lambda x, n=3: x ** n, 12.0),
    "keyword-only": (functools.partial(keyword_only, power=3), 12.0),
    "partial": (functools.partial(pow, exp=3), 12.0),
    "bound method": (Model().energy, 12.0),
    "callable object": (Model(), 12.0),
    "ufunc": (np.square, 4.0),
    "fnp": (fnp.square, 4.0),
    "builtin": (abs, 1.0),
    "function of NumPy": (np.sum, 1.0),
    "fg.grad": (fg.grad(lambda x: x ** 3), 12.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("way", ["grad", "value_and_grad", "elementwise_grad", "vjp",
                                 "jacobian, forward", "jacobian, reverse", "jvp", "linearize",
                                 "taylor", "custom_vjp", "gradients"])
def test_functions_of_every_kind(way, name):
    f, wanted = FUNCTIONS[name]
    if way == "taylor" and name == "fg.grad":
        pytest.skip("taylor reads the graph of f, in which grad leaves none")
    assert {**WAYS, **ALONG}[way](f, 2.0) == pytest.approx(wanted)


def test_functions_of_several_arguments_of_numpy():
    a, b = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    assert fg.jvp(np.dot, (a, b), (np.ones(2), np.zeros(2)))[1] == 8.0
    assert fg.vjp(np.multiply, a, b)[1](np.ones(2))[0].tolist() == [3, 5]
    assert fg.jacobian(np.add, argnums=(0, 1))(a, b)[1].tolist() == [[1, 0], [0, 1]]
    assert fg.grad(np.dot, (0, 1))(a, b)[0].tolist() == [3, 5]
    assert fg.elementwise_grad(np.power, argnums=0)(a, b).tolist() == [3, 80]
    assert fg.hvp(np.dot)(a, b, np.ones(2)).tolist() == [0, 0]
    assert fg.hessian(np.dot, (0, 1))(a, b)[0][1].tolist() == [[1, 0], [0, 1]]


# ---- what is refused as an argument ---------------------------------------------------------

REFUSED = {
    "integers": (np.arange(3), "dtype int64"), "an int": (3, "the int 3"),
    "a bool": (True, "the bool True"), "bools": (np.array([True]), "dtype bool"),
    "a string": ("a", "holds a str"), "strings": (np.array(["a"]), "dtype <U1"),
    "an object": (object(), "holds a object"), "objects": (np.array([{}]), "object arrays"),
    "a complex number": (1j, "complex"), "complex numbers": (np.array([1j]), "complex"),
    "a masked array": (np.ma.masked_array([1.0], [True]), "masked arrays"),
    "float16": (np.ones(2, np.float16), "float16"), "a set": ({1.0}, "holds a set"),
    "a function": (len, "holds a builtin"), "dates": (np.array("2020", "M8[D]"), "datetime64"),
    "records": (np.zeros(2, "f8,f8"), "not supported"),
    "a generator": (np.random.default_rng(0), "fg.trees.register(Generator, flatten, unflatten)"),
}
# What passes through inside a tree.
NO_NUMBERS = {"a bool", "a string", "a function"}

CALLS = {
    "grad": lambda f, x: fg.grad(f, 1)(1.0, x),
    "value_and_grad": lambda f, x: fg.value_and_grad(f, 1)(1.0, x),
    "elementwise_grad": lambda f, x: fg.elementwise_grad(f, 1)(1.0, x),
    "vjp": lambda f, x: fg.vjp(f, 1.0, x),
    "jvp": lambda f, x: fg.jvp(f, (1.0, x), (1.0, x)),
    "linearize": lambda f, x: fg.linearize(f, 1.0, x),
    "jacobian": lambda f, x: fg.jacobian(f, 1)(1.0, x),
    "hessian": lambda f, x: fg.hessian(f, 1)(1.0, x),
    "hvp": lambda f, x: fg.hvp(f, 1)(1.0, x, x),
    "laplacian": lambda f, x: fg.laplacian(f, 1)(1.0, x),
}


def unchanged(call, error, *words):
    """The call raises the error, which says all these words, and leaves nothing behind."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    missing = [word for word in words if word not in text]
    assert not missing, f"{missing} not in: {text}"
    del caught
    gc.collect()
    before = core.tape_info()["nodes"]
    with pytest.raises(error):
        call()
    gc.collect()
    assert core.tape_info()["nodes"] == before
    assert core.is_recording() and not core.nested()
    return text


@pytest.mark.sampled(2)
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", CALLS)
def test_arguments_without_derivative(name, what):
    x, word = REFUSED[what]
    unchanged(lambda: CALLS[name](lambda a, x: a, x), TypeError, f"{name}: argument 1", word)
    if what in NO_NUMBERS:
        return
    unchanged(lambda: CALLS[name](lambda a, x: a, {"w": [x]}), TypeError,
              f"{name}: argument 1['w'][0]", word)
    unchanged(lambda: CALLS[name](lambda a, x: a, Layer(Params(1.0, x))), TypeError,
              f"{name}: argument 1.w.b", word)


@pytest.mark.parametrize("what", REFUSED)
def test_the_same_of_taylor_and_tensors(what):
    x, word = REFUSED[what]
    unchanged(lambda: fg.taylor(lambda x: 1.0, x, x), TypeError, "taylor: argument 0", word)
    if what not in NO_NUMBERS:
        unchanged(lambda: fg.taylor(lambda x: 1.0, [x], [x]), TypeError, "taylor: argument 0[0]",
                  word)
    with pytest.raises(TypeError):
        fg.gradients(x, [fg.tensor(1.0, requires_grad=True)])
    with pytest.raises(TypeError):
        fg.gradients(fg.tensor(1.0, requires_grad=True), [x])


@pytest.mark.parametrize("name", CALLS)
def test_other_arguments_pass_untouched(name):
    marker = {"anything": object()}

    def f(first, x, *rest, key=None):
        assert first is marker and rest == (7, "s") and type(rest[0]) is int and key is marker
        return x ** 3

    call = {
        "grad": lambda: fg.grad(f, 1)(marker, 2.0, 7, "s", key=marker),
        "value_and_grad": lambda: fg.value_and_grad(f, 1)(marker, 2.0, 7, "s", key=marker)[1],
        "elementwise_grad": lambda: fg.elementwise_grad(f, 1)(marker, 2.0, 7, "s", key=marker),
        "vjp": lambda: fg.vjp(f, marker, 2.0, 7, "s", argnums=1, key=marker)[1](1.0)[0],
        "jvp": lambda: fg.jvp(f, (marker, 2.0, 7, "s"), (1.0,), argnums=1, key=marker)[1],
        "linearize": lambda: fg.linearize(f, marker, 2.0, 7, "s", argnums=1, key=marker)[1](1.0),
        "jacobian": lambda: fg.jacobian(f, 1)(marker, 2.0, 7, "s", key=marker),
        "hessian": lambda: fg.hessian(f, 1)(marker, 2.0, 7, "s", key=marker),
        "hvp": lambda: fg.hvp(f, 1)(marker, 2.0, 7, "s", 1.0, key=marker),
        "laplacian": lambda: fg.laplacian(f, 1)(marker, 2.0, 7, "s", key=marker),
    }[name]
    assert call() == 12.0


@pytest.mark.parametrize("name", CALLS)
def test_wrong_argument_numbers(name):
    def call(argnums, *args):
        if name in ("vjp", "linearize"):
            return getattr(fg, name)(pow, *args, argnums=argnums)
        if name == "jvp":
            return fg.jvp(pow, args, (1.0,), argnums=argnums)
        made = getattr(fg, name)(pow, argnums)
        return made(*args, 1.0) if name == "hvp" else made(*args)

    for argnums in (2, -3, (0, 2), (0, -3)):
        unchanged(lambda: call(argnums, 2.0, 3.0), TypeError, name, f"argnums={argnums!r}",
                  "2 positional arguments")
    for argnums in ((0, 0), (1, -1)):
        unchanged(lambda: call(argnums, 2.0, 3.0), TypeError, name, f"argnums={argnums!r}", "twice")
    for argnums in (1.0, "a", (0, 1.0), {0}, [None]):
        unchanged(lambda: call(argnums, 2.0, 3.0), TypeError, f"{name}: argnums must be an int",
                  repr(argnums)[1:-1])


@pytest.mark.parametrize("name", [*CALLS, "taylor", "custom_vjp", "custom_jvp", "fixed_point",
                                  "root"])
def test_what_is_no_function(name):
    arguments = {"vjp": (1.0,), "linearize": (1.0,), "jvp": ((1.0,), (1.0,)), "taylor": (1.0, 1.0),
                 "fixed_point": (1.0,), "root": (1.0,)}.get(name, ())
    for f in (3.0, "sin", [np.sin]) if name not in ("custom_vjp", "custom_jvp") else (3.0,):
        unchanged(lambda: getattr(fg, name)(f, *arguments), TypeError,
                  f"{name}: the first argument must be a function, not {type(f).__name__}")


# ---- what functions return ------------------------------------------------------------------

RESULTS = {
    "a string": "a", "None": None, "an object": object(), "a function": len, "a set": {1.0},
    "a complex number": 1j, "complex numbers": np.array([1j]), "objects": np.array([{}]),
    "strings": np.array(["a"]), "an empty tuple": (), "masked": np.ma.masked_array([1.0], [True]),
    "a list of strings": [1.0, "a"],
}


@pytest.mark.parametrize("what", RESULTS)
@pytest.mark.parametrize("name", [*CALLS, "taylor"])
def test_results_without_derivative(name, what):
    calls = CALLS | {"taylor": lambda f, x: fg.taylor(lambda x: f(1.0, x), x, 1.0)}
    text = unchanged(lambda: calls[name](lambda a, x: RESULTS[what], 2.0), TypeError, name,
                     "function")
    assert "must return" in text or "masked arrays are not supported" in text


@pytest.mark.parametrize("name", CALLS)
def test_wrong_aux(name):
    for value in (2.0, (2.0,), (1.0, 2.0, 3.0), [1.0, 2.0]):
        calls = {"vjp": lambda: fg.vjp(lambda x: value, 1.0, has_aux=True),
                 "jvp": lambda: fg.jvp(lambda x: value, (1.0,), (1.0,), has_aux=True),
                 "linearize": lambda: fg.linearize(lambda x: value, 1.0, has_aux=True),
                 "hvp": lambda: fg.hvp(lambda x: value, has_aux=True)(1.0, 1.0)}
        call = calls.get(name, lambda: getattr(fg, name)(lambda x: value, has_aux=True)(1.0))
        unchanged(call, TypeError, name, "has_aux=True", "(value, aux)", type(value).__name__)


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "hessian", "hvp", "laplacian"])
def test_functions_of_many_results(name):
    for f in (lambda a, x: x * np.ones(3), lambda a, x: np.ones(3)):
        unchanged(lambda: CALLS[name](f, 2.0), ValueError, name, "one number", "(3,)", ".sum()")
    for f in (lambda a, x: (x, x), lambda a, x: {"a": x}, lambda a, x: x > 0):
        unchanged(lambda: CALLS[name](f, 2.0), TypeError, name)


@pytest.mark.parametrize("exception", [KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("name", CALLS)
def test_exceptions_of_the_function_pass_through(name, exception):
    def f(a, x):
        fnp.sin(x) * x
        raise exception("mine")

    unchanged(lambda: CALLS[name](f, 2.0), exception, "mine")


# ---- tangents, cotangents, seeds ------------------------------------------------------------

X = np.array([1.0, 2.0, 3.0])
WRONG = {
    "shape": (np.ones(2), ValueError, "(2,)", "(3,)"),
    "a number": (1.0, ValueError, "()", "(3,)"),
    "complex": (np.ones(3) * 1j, TypeError, "complex128"),
    "a string": ("a", TypeError, "str"),
    "objects": (np.array([{}, {}, {}]), TypeError, "object"),
    "masked": (np.ma.masked_array(X, [0, 1, 0]), TypeError, "masked"),
    "a list": ([1.0, 2.0, 3.0], ValueError, "a list of 3"),
    "a tuple too many": ((X,), ValueError, "a tuple of 1"),
    "None": (None, ValueError, "None"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", ["jvp", "jvp, two", "linearize", "vjp", "hvp", "taylor"])
def test_wrong_directions_and_cotangents(name, what):
    v, error, *words = WRONG[what]
    if name == "vjp":
        pull = fg.vjp(np.sin, X)[1]
        unchanged(lambda: pull(v), error, "vjp", "cotangent", "the result", *words)
        np.testing.assert_allclose(pull(np.ones(3))[0], np.cos(X), 1e-15)
        return
    if name == "linearize":
        push = fg.linearize(np.sin, X)[1]
        unchanged(lambda: push(v), error, "linearize", "tangent", "argument 0", *words)
        np.testing.assert_allclose(push(np.ones(3)), np.cos(X), 1e-15)
        return
    call, said = {
        "jvp": (lambda: fg.jvp(np.sin, (X,), (v,)), "tangent of argument 0"),
        "jvp, two": (lambda: fg.jvp(np.add, (X, X), (X, v)), "tangent of argument 1"),
        "hvp": (lambda: fg.hvp(lambda x: (x ** 3).sum())(X, v), "vector of argument 0"),
        "taylor": (lambda: fg.taylor(np.sin, X, v), "direction of argument 0"),
    }[name]
    text = unchanged(call, error, name.split(",")[0], *words)
    assert said in text or "built like argument" in text


def test_wrong_tangents_in_trees_say_where():
    p = {"w": X, "b": [1.0]}
    unchanged(lambda: fg.jvp(lambda p: p["b"][0], (p,), ({"w": np.ones(2), "b": [1.0]},)),
              ValueError, "jvp: the tangent of argument 0['w'] has shape (2,), not (3,)")
    unchanged(lambda: fg.jvp(lambda p: p["b"][0], (p,), ({"w": X},)),
              ValueError, "jvp: the tangent is not built like argument 0", "['w', 'b']", "['w']")
    y, pull = fg.vjp(lambda x: Params(x, {"s": x.sum()}), X)
    unchanged(lambda: pull(Params(X, {"s": X})), ValueError,
              "vjp: the cotangent of the result.b['s'] has shape (3,), not ()")
    unchanged(lambda: pull((X, {"s": 1.0})), ValueError, "a Params of 2", "a tuple of 2")
    unchanged(lambda: fg.jvp(lambda p: p["b"], (collections.OrderedDict(b=1.0),), ({"b": 1.0},)),
              ValueError, "an OrderedDict with the keys ['b']", "a dict with the keys ['b']")


def test_wrong_numbers_of_tangents():
    unchanged(lambda: fg.jvp(pow, (2.0, 3.0), (1.0,)), ValueError,
              "jvp: 1 tangent for 2 arguments; give one for each")
    unchanged(lambda: fg.jvp(np.sin, (2.0,), (1.0, 1.0)), ValueError, "2 tangents for 1 argument")
    unchanged(lambda: fg.jvp(np.sin, 2.0, 1.0), TypeError, "primals must be a tuple",
              "write (primal,)")
    unchanged(lambda: fg.jvp(np.sin, (X,), X), TypeError, "tangents must be a tuple",
              "write (tangent,)")
    push = fg.linearize(pow, 2.0, 3.0)[1]
    unchanged(lambda: push(1.0), ValueError, "linearize: 1 tangent for 2 arguments")
    unchanged(lambda: fg.hvp(np.sin)(1.0), TypeError, "hvp", "then the vector")
    unchanged(lambda: fg.hvp(pow, (0, 1))(1.0, 2.0, 3.0), TypeError, "hvp", "tuple", "float")
    unchanged(lambda: fg.hvp(pow, (0, 1))(1.0, 2.0, (3.0,)), ValueError,
              "hvp: 1 tangent for 2 arguments")
    unchanged(lambda: fg.vjp(np.sin, 1.0)[1](), TypeError)


def test_tangents_of_other_dtypes_are_converted():
    x = X.astype(np.float32)
    for v in (np.ones(3), np.ones(3, int), np.ones(3, np.float32)):
        for found in (fg.jvp(np.sin, (x,), (v,))[1], fg.linearize(np.sin, x)[1](v),
                      fg.vjp(np.sin, x)[1](v)[0], fg.taylor(np.sin, x, v, 1)[1]):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, np.cos(x), 1e-6)
    assert fg.jvp(np.sin, (0.0,), (1,)) == (0.0, 1.0)
    assert fg.vjp(np.sin, 0.0)[1](1) == (1.0,)
    assert type(fg.jvp(np.sin, (0.0,), (np.float64(1),))[1]) is float


def test_seeds_of_tensors():
    w = fg.tensor(X, requires_grad=True)
    for seed, error in ((np.ones(2), ValueError), (1.0, ValueError), (np.ones((3, 1)), ValueError),
                        ("a", TypeError), (None, ValueError), (X * 1j, TypeError),
                        (True, TypeError), (X > 0, TypeError), (fg.tensor(X > 0), TypeError)):
        y = w * 2
        unchanged(lambda: y.backward(seed), error)
        unchanged(lambda: fg.gradients(y, [w], seed=seed), error)
        assert w.grad is None
        assert fg.gradients(y, w, seed=np.ones(3)).tolist() == [2, 2, 2]
    text = unchanged(lambda: (w * 2).backward(np.ones(2)), ValueError, "backward")
    assert "(2,)" in text and "(3,)" in text
    unchanged(lambda: fg.gradients(w * 2, w), ValueError, "gradients", "(3,)", "seed=")


# ---- options --------------------------------------------------------------------------------

def test_misspelt_options():
    unchanged(lambda: fg.jacobian(np.sin, layout="row"), ValueError,
              "jacobian: layout='row' is not one of 'numerator', 'denominator'")
    unchanged(lambda: fg.jacobian(np.sin, mode="backward"), ValueError,
              "jacobian: mode='backward' is not one of 'auto', 'forward', 'reverse'")
    for make in (fg.jacobian, fg.hessian, fg.laplacian):
        for chunk in (0, -1, 2.0, "2"):
            unchanged(lambda: make(np.sin, chunk=chunk), ValueError if not isinstance(chunk, str)
                      else (ValueError, TypeError), "chunk=", repr(chunk), "positive int")
        with pytest.raises(TypeError):
            make(np.sin, chunks=2)
        with pytest.raises(TypeError):
            make(np.sin, 0, False, 2)           # options of a transformation go by name


# ---- rules of the users, equations: more in test_custom.py and test_implicit.py -------------

@pytest.mark.parametrize("answer, error, words", [
    ((), ValueError, ["rule", "0 cotangents for 2 arguments"]),
    ((1.0,), ValueError, ["rule", "1 cotangents for 2 arguments"]),
    ((1.0, 1.0), ValueError, ["rule", "argument x", "()", "(3,)"]),
    ((np.ones(2), 1.0), ValueError, ["rule", "argument x", "(2,)", "(3,)"]),
    ((X, "a"), TypeError, ["rule", "str"]), (X, TypeError, ["rule", "tuple", "ndarray"]),
    ((X, [1.0]), ValueError, ["rule", "built like"])])
def test_wrong_cotangents_of_rules(answer, error, words):
    @fg.custom_vjp
    def rule(x, y):
        return fnp.sum(x) * y

    rule.defvjp(lambda x, y: (rule(x, y), None), lambda residuals, seed: answer)
    unchanged(lambda: fg.grad(rule)(X, 2.0), error, *words)
    unchanged(lambda: fg.jacobian(rule)(X, 2.0), error, *words)


@pytest.mark.parametrize("answer, error, words", [
    (1.0, TypeError, ["rule", "(out, tangent_out)"]),
    ((X, 1.0), ValueError, ["rule", "()", "(3,)"]),
    ((X, np.ones(2)), ValueError, ["rule", "(2,)", "(3,)"]), ((X, "a"), TypeError, ["str"]),
    ((1.0, X), ValueError, ["rule", "()", "(3,)"])])
def test_wrong_tangents_of_rules(answer, error, words):
    @fg.custom_jvp
    def rule(x):
        return x * 2

    rule.defjvp(lambda primals, tangents: answer)
    unchanged(lambda: fg.jvp(rule, (X,), (X,)), error, *words)


def test_equations_that_are_not_solved():
    for call, words in (
            (lambda: fg.fixed_point(lambda x, a: 2 * x + a, 1.0, 1.0), ["fixed_point of <lambda>"]),
            (lambda: fg.fixed_point(lambda x, a: -x, 1.0, max_steps=5), ["5 steps"]),
            (lambda: fg.root(lambda x, a: x * x + a, 1.0, 1.0), ["root of <lambda>"]),
            (lambda: fg.root(lambda x, a: x * 0 + a, 1.0, 1.0), ["singular"]),
            (lambda: fg.grad(lambda a: fg.root(lambda x, a: x * x + a, 1.0, a))(1.0), ["root of"])):
        unchanged(call, fg.ConvergenceError, *words)
    for solve in (fg.fixed_point, fg.root):
        unchanged(lambda: solve(lambda x, a: X, 1.0), ValueError, "(3,)", "()")
        unchanged(lambda: solve(lambda x, a: (x, x), 1.0), ValueError, "a tree like x")
        unchanged(lambda: solve(lambda x, a: x, "a"), TypeError, "x0", "str")
        for steps in (0, -1, 2.0):
            unchanged(lambda: solve(lambda x, a: x, 1.0, max_steps=steps), ValueError, "max_steps")


# ---- Jacobians: shapes ----------------------------------------------------------------------

SHAPES = [(), (1,), (3,), (2, 3), (0,), (2, 0)]


def affine(out, shape, dtype=float):
    """A map from arrays of one shape to those of another one, and its Jacobian."""
    rng = np.random.default_rng(5)
    A = rng.normal(size=(*out, *shape)).astype(dtype)

    def f(x):
        return fnp.tensordot(A, x, axes=len(shape)) if shape else A * x
    return f, A


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("out", SHAPES, ids=str)
@pytest.mark.filterwarnings("ignore:.*does not depend")
def test_shapes_of_jacobians(out, shape, dtype):
    f, A = affine(out, shape, dtype)
    x = np.ones(shape, dtype)
    turned = A.transpose([*range(len(out), A.ndim), *range(len(out))])
    for mode in ("auto", "forward", "reverse"):
        for chunk in (None, 1, 4):
            J = fg.jacobian(f, mode=mode, chunk=chunk)(x)
            assert type(J) is np.ndarray
            assert J.shape == out + shape
            assert J.dtype == dtype
            assert J.flags.writeable
            np.testing.assert_allclose(J, A, 1e-5)
            J = fg.jacobian(f, layout="denominator", mode=mode, chunk=chunk)(x)
            assert J.shape == shape + out
            assert J.dtype == dtype
            assert J.flags.writeable and J.flags.c_contiguous
            np.testing.assert_allclose(J, turned, 1e-5)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("layout", ["numerator", "denominator"])
def test_jacobians_of_trees_by_trees(mode, layout):
    tree = {"m": np.ones((2, 3)), "s": 2.0, "v": [np.ones(2, np.float32)]}

    def f(p, q):
        return Params(p["m"] @ np.ones(3) * p["s"] * q, {"total": p["m"].sum() + p["v"][0][0]})

    J = fg.jacobian(f, mode=mode, layout=layout, argnums=(0, 1))(tree, 4.0)
    assert type(J) is Params and type(J.w) is tuple and list(J.w[0]) == list(tree)
    turn = (lambda a, b: a + b) if layout == "numerator" else (lambda a, b: b + a)
    assert J.w[0]["m"].shape == turn((2,), (2, 3))
    assert J.w[0]["s"].shape == (2,)
    assert J.w[0]["v"][0].shape == (2, 2) and J.w[0]["v"][0].dtype == np.float32
    assert J.w[1].tolist() == [6, 6]
    assert J.b["total"][0]["m"].shape == (2, 3)
    assert J.b["total"][0]["v"][0].tolist() == [1, 0]
    same(J.b["total"][0]["s"], 0.0)
    same(J.b["total"][1], 0.0)
    only = fg.jacobian(f, mode=mode, layout=layout)(tree, 4.0)
    same(only, Params(J.w[0], {"total": J.b["total"][0]}))


def test_scalars_have_jacobians_of_their_kind():
    for x in (2.0, np.float64(2), np.float32(2), np.array(2.0), np.array(2.0, np.float32)):
        wanted = fg.grad(lambda x: x ** 3)(x)
        for mode in ("forward", "reverse"):
            same(fg.jacobian(lambda x: x ** 3, mode=mode)(x), wanted)
        same(fg.hessian(lambda x: x ** 3)(x), wanted)
    same(fg.jacobian(lambda x: x * np.ones(2, np.float32))(2.0), np.ones(2))


def test_tensors_in_tensors_out():
    for need in (False, True):
        w = fg.tensor(X, requires_grad=need)
        J = fg.jacobian(lambda x: x ** 2)(w)
        H = fg.hessian(lambda x: (x ** 3).sum())(w)
        trace = fg.laplacian(lambda x: (x ** 3).sum())(w)
        for found in (J, H, trace):
            assert isinstance(found, fg.Tensor) and found.requires_grad == need
        np.testing.assert_array_equal(J.detach().numpy(), np.diag(2 * X))
        np.testing.assert_array_equal(H.detach().numpy(), np.diag(6 * X))
        assert trace.item() == 36
    assert fg.gradients(J.sum(), w).tolist() == [2, 2, 2]
    assert fg.gradients(H.sum(), w).tolist() == [6, 6, 6]
    assert fg.gradients(trace, w).tolist() == [6, 6, 6]
    with fg.no_grad():
        assert not fg.jacobian(lambda x: x ** 2)(w).requires_grad
    # What is no Tensor beside one stays what it is.
    both = fg.jacobian(lambda a, b: a * b.sum(), (0, 1))(2.0, w)
    same(both[0], 6.0)
    assert isinstance(both[1], fg.Tensor)


# ---- second order ---------------------------------------------------------------------------

def rational(x):
    return fnp.sum(fnp.tanh(fnp.outer(x, x) * 0.7)) / (1 + fnp.sum(x * x)) + fnp.exp(x[0] * x[-1])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("chunk", [None, 1, 2, 100])
def test_hessians_are_exactly_symmetric(chunk, dtype):
    x = np.linspace(-1, 1.3, 5).astype(dtype)
    H = fg.hessian(rational, chunk=chunk)(x)
    assert H.dtype == dtype and H.flags.writeable
    np.testing.assert_array_equal(H, H.T)
    np.testing.assert_allclose(H, fg.jacobian(fg.grad(rational))(x), 1e-3 if dtype == "float32"
                               else 1e-9, 1e-5 if dtype == "float32" else 1e-12)
    trace = fg.laplacian(rational, chunk=chunk)(x)
    assert trace.dtype == dtype and np.shape(trace) == ()
    np.testing.assert_allclose(trace, np.trace(H), 1e-5)


def test_hessians_of_trees():
    tree = {"a": np.array([1.0, 2.0]), "b": (3.0, np.ones((1, 2), np.float32))}

    def f(p, q=1.0):
        return fnp.sum(p["a"] ** 2 * p["b"][0]) + fnp.sum(p["b"][1]) * p["b"][0] ** 2 * q

    H = fg.hessian(f)(tree)
    assert list(H) == list(H["a"]) == ["a", "b"]
    assert H["a"]["a"].tolist() == [[6, 0], [0, 6]]
    assert H["a"]["b"][0].tolist() == H["b"][0]["a"].tolist() == [2, 4]
    same(H["b"][0]["b"][0], 4.0)
    assert H["b"][1]["b"][1].shape == (1, 2, 1, 2) and H["b"][1]["b"][1].dtype == np.float32
    assert H["b"][1]["a"].shape == (1, 2, 2)
    np.testing.assert_array_equal(H["b"][0]["b"][1], H["b"][1]["b"][0])
    product = fg.hvp(f, (0, 1))(tree, 1.0, (ones(tree), 0.0))
    same(product[0]["a"], np.array([8.0, 10.0]))
    same(product[1], 30.0)
    assert type(product[0]["b"]) is tuple and product[0]["b"][1].dtype == np.float32
    assert fg.laplacian(f)(tree) == 16
    both = fg.hessian(f, (0, 1))(tree, 1.0)
    same(both[0]["a"][0], H["a"])
    same(both[1][1], 0.0)


NESTED = {
    "grad of laplacian": (lambda x: fg.grad(fg.laplacian(lambda x: (x ** 4).sum()))(x), 24 * X),
    "jacobian of hessian": (lambda x: fg.jacobian(fg.hessian(lambda x: (x ** 3).sum()))(x).sum(
        axis=(1, 2)), 6 * np.ones(3)),
    "hessian of jvp": (lambda x: np.diag(fg.hessian(lambda x: fg.jvp(
        lambda x: (x ** 3).sum(), (x,), (np.ones(3),))[1])(x)), 6 * np.ones(3)),
    "grad of hvp": (lambda x: fg.grad(lambda x: fg.hvp(lambda x: (x ** 3).sum())(
        x, np.ones(3)).sum())(x), 6 * np.ones(3)),
    "laplacian of vjp": (lambda x: fg.laplacian(lambda x: fg.vjp(
        lambda x: x ** 3, x)[1](np.ones(3))[0].sum())(x) * np.ones(3), 18 * np.ones(3)),
    "jvp of jacobian": (lambda x: np.diag(fg.jvp(fg.jacobian(lambda x: x ** 3), (x,),
                                                 (np.ones(3),))[1]), 6 * X),
    "hvp of linearize": (lambda x: fg.hvp(lambda x: fg.linearize(
        lambda x: x ** 3, x)[1](np.ones(3)).sum())(x, np.ones(3)), 6 * np.ones(3)),
    "elementwise_grad of elementwise_grad": (lambda x: fg.elementwise_grad(fg.elementwise_grad(
        lambda x: x ** 3))(x), 6 * X),
    "grad of taylor": (lambda x: fg.grad(lambda x: fg.taylor(
        lambda x: (x ** 3).sum(), x, np.ones(3), 2)[2])(x), 3 * np.ones(3)),
    "jacobian of jacobian": (lambda x: np.einsum("iii->i", fg.jacobian(fg.jacobian(
        lambda x: x ** 3))(x)), 6 * X),
    "hessian of root": (lambda x: np.diag(fg.hessian(lambda x: fg.root(
        lambda y, x: y - (x ** 3).sum(), 0.0, x))(x)), 6 * X),
    "hessian of stop_gradient": (lambda x: np.diag(fg.hessian(lambda x: (
        fg.stop_gradient(x) * x ** 2).sum())(x)), 2 * X),
    "value_and_grad of value_and_grad": (lambda x: fg.value_and_grad(lambda x: fg.value_and_grad(
        lambda x: (x ** 3).sum())(x)[1].sum())(x)[1], 6 * X),
}


@pytest.mark.parametrize("name", NESTED)
def test_transformations_inside_each_other(name):
    found, wanted = NESTED[name][0](X), NESTED[name][1]
    np.testing.assert_allclose(found, wanted, 1e-10)
    # And all of it once more inside of another one.
    f = NESTED[name][0]
    inside = fg.jvp(lambda t: fnp.sum(f_inside(f, t)), (1.0,), (1.0,))[0]
    np.testing.assert_allclose(inside, np.sum(wanted), 1e-10)


def f_inside(f, t):
    return t * fnp.sum(f(X))


def test_laplacian_by_every_chunk():
    x = np.linspace(0, 1, 7)
    wanted = np.sum(12 * x ** 2)
    for chunk in (None, 1, 3, 7, 50, np.int64(2)):
        assert fg.laplacian(lambda x: (x ** 4).sum(), chunk=chunk)(x) == pytest.approx(wanted)
    assert fg.laplacian(lambda x, y: (x ** 2).sum() * y, (0, 1), chunk=2)(x, 3.0) == 42.0
    assert type(fg.laplacian(lambda x: x ** 2)(1.0)) is float


# ---- independence ---------------------------------------------------------------------------

CONSTANT = {
    "a float": lambda x: 3.0, "an int": lambda x: 3, "an array": lambda x: np.array(3.0),
    "a Tensor": lambda x: fg.tensor(3.0), "detached": lambda x: fg.stop_gradient(x).sum() * 2,
    "flat": lambda x: fnp.sum(fnp.floor(x)), "of no_grad": fg.no_grad()(lambda x: fnp.sum(x)),
}

ONCE = {
    "grad": lambda f, x: fg.grad(f)(x),
    "value_and_grad": lambda f, x: fg.value_and_grad(f)(x)[1],
    "elementwise_grad": lambda f, x: fg.elementwise_grad(f)(x),
    "vjp": lambda f, x: fg.vjp(f, x)[1](1.0)[0],
    "jvp": lambda f, x: fg.jvp(f, (x,), (np.ones_like(x),))[1],
    "jvp, trees": lambda f, x: fg.jvp(lambda x: f(x[0]), ([x],), ([np.ones_like(x)],))[1],
    "linearize": lambda f, x: fg.linearize(f, x)[1](np.ones_like(x)),
    "jacobian, forward": lambda f, x: fg.jacobian(f, mode="forward")(x),
    "jacobian, reverse": lambda f, x: fg.jacobian(f, mode="reverse")(x),
    "hessian": lambda f, x: fg.hessian(f)(x),
    "hvp": lambda f, x: fg.hvp(f)(x, np.ones_like(x)),
    "laplacian": lambda f, x: fg.laplacian(f)(x),
    "taylor": lambda f, x: fg.taylor(f, x, np.ones_like(x), 1)[1],
}


@pytest.mark.parametrize("what", CONSTANT)
@pytest.mark.parametrize("name", ONCE)
def test_independent_results_give_zeros_and_one_warning(name, what):
    x = np.array([1.5, 2.5, 3.5], np.float32)
    with pytest.warns(UserWarning, match="does not depend") as caught:
        found = ONCE[name](CONSTANT[what], x)
    assert len(caught) == 1
    assert name.split(",")[0] in str(caught[0].message)
    assert caught[0].filename == __file__
    shape = {"hessian": (3, 3)}.get(name, () if name.split(",")[0] in (
        "jvp", "linearize", "taylor", "laplacian") else (3,))
    assert np.shape(found) == shape
    assert np.all(np.asarray(found) == 0)
    if shape:
        assert found.dtype == np.float32


@pytest.mark.parametrize("outer", ["grad", "jvp", "vjp", "jacobian", "hessian"])
@pytest.mark.parametrize("name", ONCE)
def test_inside_another_transformation_nobody_warns(name, outer):
    def f(t):
        return t * t + fnp.sum(ONCE[name](CONSTANT["an array"], X))

    found = {"grad": lambda: fg.grad(f)(2.0), "jvp": lambda: fg.jvp(f, (2.0,), (1.0,))[1],
             "vjp": lambda: fg.vjp(f, 2.0)[1](1.0)[0], "jacobian": lambda: fg.jacobian(f)(2.0),
             "hessian": lambda: 2 * fg.hessian(f)(2.0)}[outer]()
    assert found == 4.0


def test_flat_is_not_independent():
    """A derivative of second order may vanish without anything being wrong."""
    for f in (lambda x: x.sum(), lambda x: (x * 0).sum(), lambda x: x[0]):
        assert not np.any(fg.hessian(f)(X))
        assert not np.any(fg.hvp(f)(X, X))
        assert fg.laplacian(f)(X) == 0
    y, push = fg.linearize(lambda x: x * 0, X)
    assert push(X).tolist() == [0, 0, 0]
    # Where a part depends and a part does not, or some arguments are not used.
    assert fg.jvp(lambda x: (x, 1.0), (2.0,), (1.0,)) == ((2.0, 1.0), (1.0, 0.0))
    assert fg.vjp(lambda x, y: x, 2.0, 3.0)[1](1.0) == (1.0, 0.0)
    assert fg.jacobian(lambda x: [x, 3])(2.0) == [1.0, 0.0]
    found = fg.jvp(lambda x: (x, X, np.float32(1), 1, fnp.floor(x * X)), (2.0,), (1.0,))[1]
    same(found[:4], (1.0, np.zeros(3), np.float32(0), 0.0))
    same(found[4], np.zeros(3))
    for empty in (np.zeros(0), np.zeros((0, 2))):
        assert fg.jacobian(lambda x: x * 2)(empty).shape == empty.shape * 2
        assert fg.jvp(np.sin, (empty,), (empty,))[1].shape == empty.shape


def test_constant_rules_and_equations_do_not_warn():
    @fg.custom_vjp
    def constant(x):
        return 3.0

    constant.defvjp(lambda x: (3.0, None), lambda residuals, seed: (0.0,))
    assert fg.grad(constant)(1.0) == 0.0
    assert fg.jvp(constant, (1.0,), (1.0,)) == (3.0, 0.0)
    assert fg.grad(lambda a: fg.fixed_point(lambda x, a: 0.5 * x + 1, 1.0, a))(2.0) == 0.0
    assert fg.grad(lambda a: fg.root(lambda x, a: x - 1, 0.5, a))(2.0) == 0.0


# ---- no_grad, record, stop_gradient ---------------------------------------------------------

@pytest.mark.parametrize("way", [*WAYS, *ALONG, *SECOND])
def test_under_no_grad_everything_is_differentiated_all_the_same(way):
    if way in ("gradients", "backward"):
        with fg.no_grad(), pytest.raises(RuntimeError, match="no_grad"):
            WAYS[way](lambda x: x ** 3, 2.0)
        return
    if way in SECOND:
        with fg.no_grad():
            assert SECOND[way](2.0, 3.0) == 36.0
            assert not core.is_recording()
        return
    with fg.no_grad():
        assert {**WAYS, **ALONG}[way](lambda x: x ** 3, 2.0) == 12.0
        assert not core.is_recording()


@pytest.mark.parametrize("way", [*WAYS, *ALONG])
def test_what_is_computed_under_no_grad_is_constant(way):
    def f(x):
        with fg.no_grad():
            y = x * x
        return y * x

    def g(x):
        return fg.stop_gradient({"y": [x * x]})["y"][0] * x

    for function in (f, g):
        if way.startswith("custom") or way in ("fixed_point", "root"):
            continue                    # their rules are not differentiated inside
        assert {**WAYS, **ALONG}[way](function, 3.0) == 9.0


def test_stop_gradient_keeps_trees():
    for tree in TREES.values():
        same(fg.stop_gradient(tree), tree)
    t = fg.tensor([1.0], requires_grad=True)
    found = fg.stop_gradient(collections.OrderedDict(a=t, b="text", c=None))
    assert type(found) is collections.OrderedDict and not found["a"].requires_grad
    assert found["b"] == "text" and found["c"] is None


def test_inside_a_record_scope():
    with fg.record() as tape:
        assert fg.grad(lambda x: x ** 3)(2.0) == 12.0
        assert fg.jacobian(lambda x: x ** 2)(X).shape == (3, 3)
        assert fg.jvp(np.sin, (0.0,), (1.0,)) == (0.0, 1.0)
    assert len(tape) == 0


# ---- a tree with leaves that are no numbers --------------------------------------------------

def mixed():
    return {"w": 1.5, "how": "square", "on": True, "none": None, "f": np.tanh, "b": [2.0, b"x"]}


def of_mixed(p):
    assert p["how"] == "square" and p["on"] is True and p["f"] is np.tanh and p["b"][1] == b"x"
    return p["w"] ** 2 * p["b"][0]


def by_number(w, b):
    return {"w": w, "how": None, "on": None, "none": None, "f": None, "b": [b, None]}


MIXED = {
    "grad": lambda f, p: fg.grad(f)(p), "value_and_grad": lambda f, p: fg.value_and_grad(f)(p)[1],
    "elementwise_grad": lambda f, p: fg.elementwise_grad(f)(p),
    "vjp": lambda f, p: fg.vjp(f, p)[1](1.0)[0],
    "jacobian, forward": lambda f, p: fg.jacobian(f, mode="forward")(p),
    "jacobian, reverse": lambda f, p: fg.jacobian(f, mode="reverse")(p),
    "hvp, value": lambda f, p: fg.hvp(f, value=True)(p, p)[1],
    "compile": lambda f, p: [g := fg.compile(fg.grad(f)), g(p), g(p)][2],
    "inside grad": lambda f, p: fg.grad(lambda s: (s, fg.grad(f)(p)), has_aux=True)(1.0)[1],
    "inside jvp": lambda f, p: fg.jvp(lambda s: (s, fg.grad(f)(p)), (1.0,), (1.0,), has_aux=True)[2],
    "numeric": lambda f, p: fg.trees.map(lambda x: round(x, 6), fg.numeric.gradient(f, p)),
    "vmap": lambda f, p: fg.trees.map(lambda x: x[0].item(), fg.vmap(fg.grad(f))(fg.trees.map(
        lambda x: np.full(2, x) if type(x) is float else x, p))),
}


@pytest.mark.parametrize("way", MIXED)
def test_what_is_no_number_passes_through_trees(way):
    assert MIXED[way](of_mixed, mixed()) == by_number(6.0, 2.25)


@pytest.mark.parametrize("v", [by_number(1.0, 0.5), {**mixed(), "w": 1.0, "b": [0.5, b"x"]}],
                         ids=["None", "itself"])
def test_in_tangents_its_place_is_ignored(v):
    p = mixed()
    for found in (fg.jvp(of_mixed, (p,), (v,))[1], fg.linearize(of_mixed, p)[1](v),
                  fg.taylor(of_mixed, p, v, 1)[1], fg.compile(lambda w, dw: fg.jvp(
                      of_mixed, ({**p, "w": w},), ({**v, "w": dw},))[1])(1.5, 1.0)):
        assert found == 6.0 + 2.25 / 2
    assert fg.numeric.jvp(of_mixed, p, v) == pytest.approx(7.125)
    assert fg.hvp(of_mixed)(p, v) == by_number(4.0 + 1.5, 3.0)
    assert fg.hessian_diag(of_mixed)(p) == by_number(4.0, 0.0)
    assert fg.hessian(of_mixed)(p)["w"] == by_number(4.0, 3.0)
    assert fg.laplacian(of_mixed)(p) == 4.0
    fg.testing.check_grads(of_mixed, p)
    unchanged(lambda: fg.jvp(of_mixed, (p,), ({**v, "how": 1.0},)), ValueError, "jvp: the tangent",
              "['how']: expected None")


# ---- the arguments by name ------------------------------------------------------------------

BY_NAME = {
    "grad": lambda f, *args, argnames, **kw: fg.grad(f, argnames=argnames)(*args, **kw),
    "value_and_grad": lambda f, *args, argnames, **kw: fg.value_and_grad(
        f, argnames=argnames)(*args, **kw)[1],
    "elementwise_grad": lambda f, *args, argnames, **kw: fg.elementwise_grad(
        f, argnames=argnames)(*args, **kw),
    "jacobian": lambda f, *args, argnames, **kw: fg.jacobian(f, argnames=argnames)(*args, **kw),
    "vjp": lambda f, *args, argnames, **kw: like(argnames, fg.vjp(
        f, *args, argnames=argnames, **kw)[1](1.0)),
    "linearize": lambda f, *args, argnames, **kw: along_units(argnames, fg.linearize(
        f, *args, argnames=argnames, **kw)[1]),
    "jvp": lambda f, *args, argnames, **kw: along_units(argnames, lambda *v: fg.jvp(
        f, args, v, argnames=argnames, **kw)[1]),
    "compile": lambda f, *args, argnames, **kw: fg.compile(fg.grad(f, argnames=argnames))(
        *args, **kw),
    "program": lambda f, *args, argnames, **kw: fg.grad(fg.compile(f), argnames=argnames)(
        *args, **kw),
    "hvp": lambda f, *args, argnames, **kw: fg.hvp(f, argnames=argnames, value=True)(
        *args, (0.0,) * len(argnames) if type(argnames) is tuple else 0.0, **kw)[1],
    "inside grad": lambda f, *args, argnames, **kw: fg.grad(lambda s: (s, fg.grad(
        f, argnames=argnames)(*args, **kw)), has_aux=True)(1.0)[1],
}


def along_units(argnames, push):
    if type(argnames) is str:
        return push(1.0)
    n = len(argnames) if type(argnames) is tuple else 0
    return tuple([push(*[float(i == k) for i in range(n)]) for k in range(n)])


def named(a, b=3.0, *, c=5.0):
    return a * b ** 2 * c


@pytest.mark.parametrize("way", BY_NAME)
def test_arguments_by_name(way):
    found = lambda argnames, *args, **kw: BY_NAME[way](named, *args, argnames=argnames, **kw)
    assert found("b", 2.0, 3.0) == found("b", 2.0, b=3.0) == found("b", 2.0) == 60.0
    assert found("c", 2.0, 3.0, c=1.0) == found("c", 2.0) == 18.0
    assert found(("c", "a"), 2.0, 3.0) == found(("c", "a"), b=3.0, a=2.0, c=5.0) == (18.0, 45.0)
    assert found(("a",), 2.0) == (45.0,)
    assert found((), 2.0) == ()
    unchanged(lambda: found("d", 2.0), TypeError, "has no argument 'd'; its arguments are 'a'")
    unchanged(lambda: found("a", b=2.0), TypeError, "the call gives no argument 'a'")
    unchanged(lambda: found(("a", "a"), 2.0), TypeError, "argnames=('a', 'a')", "twice")
    if way != "jvp":
        unchanged(lambda: found(0, 2.0), TypeError, "argnames must be a str or a tuple of str")
    unchanged(lambda: found("c", 2.0, c=1), TypeError, "argument 'c' is the int 1")
    assert BY_NAME[way](lambda a, **kw: a * kw["z"], 2.0, argnames="z", z=3.0) == 2.0


def test_second_derivatives_by_name():
    assert fg.hessian(named, argnames="b")(2.0, c=1.0) == 4.0
    assert fg.hessian_diag(named, argnames=("c", "b"))(2.0) == (0.0, 20.0)
    assert fg.laplacian(named, argnames=("c", "b"))(2.0, b=3.0) == 20.0
    assert fg.hvp(named, argnames="b")(2.0, 1.0, c=1.0) == 4.0
    assert fg.hvp(named, argnames=("b", "c"))(2.0, 3.0, (0.0, 1.0), c=1.0) == (12.0, 0.0)
    assert fg.numeric.gradient(named, 2.0, argnames="b") == pytest.approx(60.0)
    matrix = fg.jacobian(lambda s, *, x: s * x, argnames="x", sparse=True)(2.0, x=np.ones(3))
    assert matrix.toarray().tolist() == (2 * np.eye(3)).tolist()
    for transform in (fg.grad, fg.jacobian, fg.hvp, fg.hessian_diag):
        unchanged(lambda: transform(named, argnums=1, argnames="a"), TypeError, "not both")
    unchanged(lambda: fg.vjp(named, 1.0, argnums=0, argnames="a"), TypeError, "not both")
    unchanged(lambda: fg.vmap(named, argnames="a"), TypeError, "argnames")


# ---- nothing to differentiate ---------------------------------------------------------------

NONE = {
    "grad": (lambda f, *x, **kw: fg.grad(f, **kw)(*x), ()),
    "value_and_grad": (lambda f, *x, **kw: fg.value_and_grad(f, **kw)(*x), (3.0, ())),
    "elementwise_grad": (lambda f, *x, **kw: fg.elementwise_grad(f, **kw)(*x), ()),
    "vjp": (lambda f, *x, **kw: [a := fg.vjp(f, *x, **kw), (a[0], a[1](1.0))][1], (3.0, ())),
    "jvp": (lambda f, *x, **kw: fg.jvp(f, x, (), **kw), (3.0, 0.0)),
    "linearize": (lambda f, *x, **kw: [a := fg.linearize(f, *x, **kw), (a[0], a[1]())][1],
                  (3.0, 0.0)),
    "jacobian": (lambda f, *x, **kw: fg.jacobian(f, **kw)(*x), ()),
    "jacobian, reverse": (lambda f, *x, **kw: fg.jacobian(f, mode="reverse", **kw)(*x), ()),
    "hessian": (lambda f, *x, **kw: fg.hessian(f, **kw)(*x), ()),
    "hessian_diag": (lambda f, *x, **kw: fg.hessian_diag(f, **kw)(*x), ()),
    "hvp": (lambda f, *x, **kw: fg.hvp(f, **kw)(*x, ()), ()),
    "hvp, value": (lambda f, *x, **kw: fg.hvp(f, value=True, **kw)(*x, ()), (3.0, (), ())),
    "laplacian": (lambda f, *x, **kw: fg.laplacian(f, **kw)(*x), 0.0),
    "numeric.gradient": (lambda f, *x, **kw: fg.numeric.gradient(f, *x, **kw), ()),
    "numeric.jacobian": (lambda f, *x, **kw: fg.numeric.jacobian(f, *x, **kw), ()),
    "numeric.hessian": (lambda f, *x, **kw: fg.numeric.hessian(f, *x, **kw), ()),
}


@pytest.mark.parametrize("name", NONE)
def test_no_argument_to_differentiate(name):
    """Empty, without a warning."""
    call, wanted = NONE[name]
    assert call(lambda: 3.0) == wanted
    assert call(lambda x: 3.0 * x, 1.0, argnums=()) == wanted
    if not name.startswith("numeric"):
        assert fg.compile(lambda s: call(lambda x: s * x, 1.0, argnums=()))(3.0) == wanted
        found = fg.grad(lambda s: (s, call(lambda x: s * x, 1.0, argnums=())), has_aux=True)(3.0)[1]
        assert found == wanted


# ---- booleans -------------------------------------------------------------------------------

@pytest.mark.parametrize("v", [True, np.False_, np.array(True)], ids=repr)
def test_booleans_are_no_directions(v):
    f, tensor = lambda x: x * x, fg.tensor(2.0, requires_grad=True)
    for call in (lambda: fg.jvp(f, (2.0,), (v,)), lambda: fg.vjp(f, 2.0)[1](v),
                 lambda: fg.linearize(f, 2.0)[1](v), lambda: fg.hvp(f)(2.0, v),
                 lambda: fg.taylor(f, 2.0, v), lambda: fg.numeric.jvp(f, 2.0, v),
                 lambda: (tensor * 2).backward(v), lambda: fg.gradients(tensor * 2, tensor, v),
                 lambda: (tensor * 2).backward(v, create_graph=True),
                 lambda: fg.jvp(lambda p: f(p["a"][0]), ({"a": [2.0]},), ({"a": [v]},)),
                 lambda: fg.vjp(lambda x: {"a": [f(x)]}, 2.0)[1]({"a": [v]}),
                 lambda: fg.grad(lambda x: fg.jvp(f, (x,), (v,))[1])(2.0),
                 lambda: fg.compile(lambda x: fg.vjp(f, x)[1](v)[0])(2.0)):
        with pytest.raises(TypeError, match="bool.*float"):
            call()
    assert tensor.grad is None


# ---- the repr of a function -----------------------------------------------------------------

class Loud:
    """A function, and something bound to one, whose repr counts."""

    count = 0

    def __repr__(self):
        Loud.count += 1
        return "loud"

    def __call__(self, x, bound=None):
        return x * x * 1.5


@pytest.mark.parametrize("f", [Loud(), functools.partial(lambda bound, x: x * x * 1.5, Loud())],
                         ids=["callable", "partial"])
def test_no_transformation_takes_the_repr_of_a_function(f):
    Loud.count = 0
    rule = fg.custom_jvp(f)
    rule.defjvp(lambda p, t: (f(p[0]), 3 * p[0] * t[0]))
    for call in (
            lambda: fg.vjp(f, 2.0)[1](1.0), lambda: fg.jvp(f, (2.0,), (1.0,)),
            lambda: fg.linearize(f, 2.0)[1](1.0), lambda: fg.grad(f)(2.0),
            lambda: fg.value_and_grad(f)(2.0), lambda: fg.jacobian(f)(2.0),
            lambda: fg.hessian(f)(2.0), lambda: fg.hvp(f)(2.0, 1.0), lambda: fg.laplacian(f)(2.0),
            lambda: fg.hessian_diag(f)(2.0), lambda: fg.elementwise_grad(f)(2.0),
            lambda: fg.taylor(f, 2.0, 1.0), lambda: fg.vmap(f)(np.ones(2)),
            lambda: fg.compile(f)(2.0), lambda: fg.compile(fg.grad(f))(2.0),
            lambda: fg.grad(rule)(2.0), lambda: fg.numeric.gradient(f, 2.0),
            lambda: fg.testing.check_grads(f, 2.0), lambda: fg.fori_loop(
                0, 2, lambda i, x: f(x), 1.0), lambda: fg.scan(lambda c, x: (f(x), c), 1.0, np.ones(2)),
            lambda: fg.root(lambda x, t: f(x) - t, 1.0, 2.0), lambda: repr(fg.grad(f)),
            lambda: repr(fg.jacobian(f)), lambda: repr(fg.compile(f))):
        call()
    with pytest.warns(UserWarning, match="vjp of (Loud|partial of <lambda>)"):
        fg.vjp(functools.partial(lambda x, bound: 1.0, bound=f) if type(f) is not Loud else
               type("Loud", (Loud,), {"__call__": lambda self, x: 1.0})(), 2.0)
    assert Loud.count == 0


# ---- one run for several things -------------------------------------------------------------

def test_value_gradient_and_product_of_one_run():
    runs = []

    def f(x, scale=1.0):
        runs.append(1)
        return fnp.sum(x ** 3) * scale

    x, v = np.array([1.0, 2.0]), np.array([1.0, -1.0])
    made = fg.hvp(f, value=True)
    value, gradient, product = made(x, v, scale=2.0)
    assert len(runs) == 1 and type(value) is np.float64
    assert value == 18.0 and gradient.tolist() == [6, 24] and product.tolist() == [12, -24]
    assert fg.hvp(f, (0, 1), value=True)(1.0, 2.0, (1.0, 0.0)) == (2.0, (6.0, 1.0), (12.0, 3.0))
    found = fg.hvp(lambda x: (x ** 3, {"aux": x}), has_aux=True, value=True)(2.0, 1.0)
    assert found == (8.0, 12.0, 12.0, {"aux": 2.0})
    with pytest.warns(UserWarning, match="changes `runs`"):
        assert fg.compile(made)(x, v)[2].tolist() == [6, -12]
    third = fg.grad(lambda x: fg.hvp(f, value=True)(x, 1.0)[2])(2.0)
    assert third == 6.0 and fg.jvp(lambda x: made(x, 1.0)[1], (2.0,), (1.0,)) == (12.0, 12.0)


def test_the_diagonal_of_the_hessian():
    def f(x, y):
        return fnp.sum(fnp.sin(x) * x[::-1] * y) + y ** 3

    x = np.array([0.5, -1.0, 2.0])
    H = fg.numeric.hessian(f, x, 2.0, argnums=(0, 1), method="richardson")
    dx, dy = fg.hessian_diag(f, argnums=(0, 1))(x, 2.0)
    np.testing.assert_allclose(dx, np.diag(H[0][0]), rtol=1e-6)
    assert type(dy) is float and dy == pytest.approx(H[1][1], rel=1e-6)
    for found in (fg.hessian_diag(f)(x, 2.0), fg.hessian_diag(f, chunk=1)(x, 2.0),
                  fg.compile(fg.hessian_diag(f))(x, 2.0), np.diag(fg.hessian(f)(x, 2.0)),
                  fg.vmap(fg.hessian_diag(f), in_axes=(0, None))(np.stack([x, x]), 2.0)[1]):
        np.testing.assert_allclose(found, dx, rtol=1e-14)
    assert fg.hessian_diag(f)(x.astype("f4"), 2.0).dtype == np.float32
    assert fg.hessian_diag(lambda x: (fnp.sum(x ** 3), "aux"), has_aux=True)(x)[1] == "aux"
    third = fg.jacobian(fg.hessian_diag(lambda x: fnp.sum(x ** 4)))(x)
    np.testing.assert_allclose(third, np.diag(24 * x), rtol=1e-14)
    block = np.arange(4.0).reshape(2, 2)
    assert fg.hessian_diag(lambda a: fnp.sum(a ** 3) + a[0, 0] * a[1, 1])(block).tolist() == (
        6 * block).tolist()
