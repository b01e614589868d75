"""Graphs that are declared before there are data."""

import copy
import operator
import pickle

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import trees

pytestmark = pytest.mark.filterwarnings("error")

A = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -3.0]])
B = np.array([[1.0, 2.0, 0.5], [2.0, 1.0, 4.0]])


def program(build, count=1, **declared):
    """The program of build(variables)."""
    variables = [fg.variable(f"v{k}", **declared) for k in range(count)]
    return fg.function(variables, build(*variables))


def check(build, *args, **declared):
    """The program computes what the function of arrays does, and its gradient, again and again."""
    f = program(build, len(args), **declared)
    wanted = build(*args)
    for _ in range(2):
        got = f(*args)
        assert np.shape(got) == np.shape(wanted)
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-14)
    return f


# ---- operators ------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "lt",
                                  "le", "gt", "ge", "eq", "ne"])
def test_binary_operators(name):
    function = getattr(operator, name)
    check(function, np.abs(A), B)
    check(lambda a: function(a, 2.0), np.abs(A))
    check(lambda a: function(2.0, a), B)
    check(lambda a: function(B, a), np.abs(A))
    check(lambda a: function(a, B), np.abs(A))
    check(lambda a: function(np.float64(2.0), a), B)


def test_other_operators():
    for function in (operator.neg, operator.pos, abs, lambda a: divmod(a, 2.0)[1],
                     lambda a: divmod(2.0, a)[0], lambda a: a ** 2):
        check(function, A)
    check(operator.matmul, A, B.T)
    check(lambda a: a @ B.T, A)
    check(lambda a: A @ a, B.T)
    check(lambda a: ~(a > 0) & (a < 1) | (a == 2.0) ^ (a != 1.0), A)
    a = b = fg.variable("a")
    b += 1.0
    assert fg.function([a], [a, b])(2.0) == [2.0, 3.0]


def test_indexing():
    for index in (0, -1, (0, 1), slice(1), (slice(None), 1), (Ellipsis, None), np.array([0, 1, 0]),
                  (np.array([0, 1]), np.array([1, 2]))):
        check(lambda a, index=index: a[index], A)
    check(lambda a: a[a > 0], A)
    check(lambda a, i: a[i], A, np.array([1, 0]))
    check(lambda a, b: a[:, 1] * b[0, 2], A, B)


def test_methods_and_attributes():
    for build in (lambda a: a.T, lambda a: a.mT, lambda a: a.sum(), lambda a: a.sum(axis=0),
                  lambda a: a.reshape(3, 2), lambda a: a.reshape((-1,)), lambda a: a.mean(1),
                  lambda a: a.max(axis=1, keepdims=True), lambda a: a.transpose(),
                  lambda a: a.copy(),
                  lambda a: a.astype(np.float32), lambda a: a.clip(0, 1), lambda a: a.ravel()):
        check(build, A)
    assert program(lambda a: a.sum())(2.0) == 2.0
    with pytest.raises(AttributeError, match="nothing"):
        fg.variable().nothing


@pytest.mark.parametrize("build", [
    np.sin, fnp.sin, fnp.exp, fg.special.expit, fg.special.softmax, fg.special.logsumexp,
    fnp.sum, np.sum, fnp.mean, np.mean, fnp.linalg.norm, np.linalg.norm, fnp.argsort, fnp.isfinite,
    fnp.logsumexp, fnp.zeros_like, np.ones_like, fnp.ptp,
    lambda a: fnp.sum(a, axis=0), lambda a: np.sum(a, axis=1, keepdims=True),
    lambda a: fnp.maximum(a, 0.0), lambda a: np.maximum(0.0, a), lambda a: fnp.where(a > 0, a, -a),
    lambda a: np.where(a > 0, a, 0.0), lambda a: fnp.concatenate([a, A]),
    lambda a: np.stack([a, a]),
    lambda a: fnp.array([a[0, 0], 1.0, a[1, 1] * 2]), lambda a: fnp.array([[a[0, 0]], [a[0, 1]]]),
    lambda a: fnp.full((2,), a[0, 0]), lambda a: fnp.linspace(0.0, a[0, 0], 4),
    lambda a: np.einsum("ij,ij->i", a, a), lambda a: fnp.dot(A.T, a), lambda a: np.dot(a.T, A),
    lambda a: fnp.matmul(A.T, a), lambda a: np.broadcast_to(a, (3, 2, 3)),
    lambda a: fnp.clip(a, -1, 1), lambda a: np.transpose(a), lambda a: fnp.swapaxes(a, 0, 1),
    lambda a: fnp.meshgrid(a[0], a[1])[0], lambda a: np.split(a, 3, axis=1)[1],
    lambda a: fnp.round(a, 1), lambda a: np.float64(2) * a,
])
def test_functions(build):
    check(build, A)
    check(build, A, shape=(2, 3))


def test_with_tensors():
    w = fg.tensor(A)
    a = fg.variable("a")
    for expression, wanted in ((w + a, A + B), (a * w, B * A), (w @ a.T, A @ B.T),
                               (a.T @ w, B.T @ A),
                               (fnp.dot(w, a.T), A @ B.T), (np.add(w, a), A + B),
                               (fnp.maximum(w, a), np.maximum(A, B)), (fnp.matmul(w, a.T), A @ B.T),
                               (w > a, A > B), (fnp.concatenate([w, a]), np.concatenate([A, B]))):
        f = fg.function([a], expression)
        for _ in range(2):
            np.testing.assert_allclose(f(B), wanted)


# ---- binding --------------------------------------------------------------------------------

def test_by_position_and_by_name():
    a, b = fg.variable("a"), fg.variable()
    f = fg.function([a, b], 2 * a + b)
    assert isinstance(f, fg.Program)
    np.testing.assert_array_equal(f(np.ones((2, 1)), np.ones((2, 1))), [[3.0], [3.0]])
    assert f(1.0, 2.0) == 4.0 == f(1, 2) and type(f(1, 2)) is float
    assert fg.value_and_grad(f, argnums=(0, 1))(1.0, 2.0) == (4.0, (2.0, 1.0))
    g = fg.function([a, c := fg.variable("c")], a - c)
    assert g(c=1.0, a=3.0) == 2.0 == g(3.0, c=1.0) == g(3, 1)
    np.testing.assert_array_equal(g([1.0, 2.0], 1.0), [0.0, 1.0])
    for args, kwargs, message in (
            ((1.0,), {}, "no value for the variable 'c'"), ((1.0, 2.0, 3.0), {}, "takes 2"),
            ((1.0,), {"d": 1.0}, "no variable is named 'd'.*'a', 'c'"),
            ((1.0, 2.0), {"a": 1.0}, "by position and by name"), (("x", 1.0), {}, "not str"),
            (({"p": 1.0}, 1.0), {}, "not dict")):
        with pytest.raises(TypeError, match=message):
            g(*args, **kwargs)
        assert g(3.0, 1.0) == 2.0
    with pytest.raises(TypeError, match="number 1"):
        f(1.0)


def test_specialises_itself():
    f = program(lambda a, b: fnp.sum(a * b), 2)
    for _ in range(2):
        for args in ((1.0, 2.0), (A, 2.0), (A, B), (A[0], B), (A.astype(np.float32), 2.0),
                     (np.ones((0, 3)), B[0])):
            got = f(*args)
            np.testing.assert_allclose(got, np.sum(args[0] * np.asarray(args[1], np.float32)
                                                   if np.asarray(args[0]).dtype == np.float32
                                                   else args[0] * args[1]), rtol=1e-6)
    assert len(f.paths) == 6 and sum(path.calls for path in f.paths) == 12


def test_declarations():
    a = fg.variable("a", shape=(2, 3), dtype=np.float32)
    assert a.shape == (2, 3) and a.ndim == 2 and a.size == 6 and len(a) == 2
    assert a.dtype == np.float32 and (a * 2.0).dtype == np.float32 and (a @ a.T).shape == (2, 2)
    assert np.shape(a) == (2, 3) and np.ndim(a) == 2 and fnp.shape(a.T) == (3, 2)
    rows = [row for row in a]
    assert len(rows) == 2 and rows[0].shape == (3,)
    f = fg.function([a], rows)
    np.testing.assert_array_equal(f(A.astype(np.float32))[1], A[1].astype(np.float32))
    with pytest.raises(TypeError, match="float32, not float64"):
        f(A)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), not \(3, 2\)"):
        f(A.T.astype(np.float32))
    for wrong in (lambda: a @ a, lambda: a + np.ones(4), lambda: fnp.dot(a, a),
                  lambda: a.reshape(7), lambda: a[5], lambda: np.concatenate([a, a[0]])):
        with pytest.raises((ValueError, IndexError)):
            wrong()
    x = fg.variable(shape=4)
    assert x.shape == (4,)
    n = fg.variable("n", dtype=int)
    g = fg.function([n], n * 2)
    assert g(3) == 6
    with pytest.raises(TypeError, match="takes int64"):
        g(3.0)
    s = fg.variable(shape=(), dtype=np.float32)
    assert type(fg.function([s], s * 2)(1.0)) is np.float32
    for bad in ({"shape": "ab"}, {"shape": (1.5,)}, {"dtype": "nothing"}, {"name": 3}):
        with pytest.raises(TypeError):
            fg.variable(**bad)
    with pytest.raises(ValueError, match="negative"):
        fg.variable(shape=(-1,))


def test_what_is_not_there_yet():
    a = fg.variable("a")
    for what, cure in ((bool, "fnp.where"), (len, "shape="), (list, "shape="),
                       (float, "fg.function"),
                       (int, "fg.function"), (range, "index"), (np.asarray, "fg.function"),
                       (lambda a: a.shape, "shape="), (lambda a: a.ndim, "shape="),
                       (lambda a: np.array([a]), "fg.function"),
                       (lambda a: 1 if a > 0 else 2, "where"),
                       (lambda a: a and 1, "where")):
        with pytest.raises(TypeError, match=cure):
            what(a)
    b = fg.variable("b", shape=(3,))
    for what in (bool, float, np.asarray):
        with pytest.raises(TypeError, match="no value yet"):
            what(b)
    with pytest.raises(TypeError, match="len"):
        len(fg.variable(shape=()))
    assert "a" in repr(a) and "add" in repr(a + 1)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(a + 1)
    with pytest.raises(TypeError, match="out="):
        np.add(a, 1, out=np.zeros(3))


def test_no_cycles():
    a = fg.variable("a")
    c = a + 1
    for change in (lambda: c.__setitem__(0, c), lambda: setattr(c, "_args", (c,)),
                   lambda: np.add.at(c, 0, c), lambda: setattr(a, "name", "b")):
        with pytest.raises(TypeError):
            change()
    assert fg.function([a], c)(1.0) == 2.0


def test_wrong_programs():
    a, b = fg.variable("a"), fg.variable("b")
    for inputs, outputs, error, message in (
            ([a], a + b, ValueError, "<variable b>, which is not among"),
            ([a, a], a, ValueError, "listed twice"),
            ([a, fg.variable("a")], a, ValueError, "named 'a'"),
            ([a + b], a, TypeError, "must be variables"), ([1.0], a, TypeError, "not float"),
            (a, a, TypeError, r"write \[x\]"), ([a, fg.tensor(1.0)], a, TypeError, "variables")):
        with pytest.raises(error, match=message):
            fg.function(inputs, outputs)


# ---- programs -------------------------------------------------------------------------------

def test_several_outputs_and_shared_parts():
    a, b = fg.variable("a"), fg.variable("b")
    shared = fnp.sin(a) * b
    f = fg.function([a, b], {"x": shared, "y": (shared + 1, [a, None]), "k": 3.0})
    assert f(1.0, 2.0) == {"x": np.sin(1.0) * 2, "y": (np.sin(1.0) * 2 + 1, [1.0, None]), "k": 3.0}
    g = fg.function([b], [b])
    assert g(1.0) == [1.0]


def test_long_chains():
    y = a = fg.variable("a")
    for _ in range(5000):
        y = y * 0.999 + 0.001
    f = fg.function([a], y)
    wanted = 2.0
    for _ in range(5000):
        wanted = wanted * 0.999 + 0.001
    assert f(2.0) == pytest.approx(wanted) and fg.grad(f)(2.0) == pytest.approx(0.999 ** 5000)


def test_transformations():
    f = program(lambda a: fnp.sum(fnp.sin(a) * a ** 2))
    plain = f.function
    x = A[0]
    for transformation in (fg.grad, fg.value_and_grad, fg.hessian, fg.jacobian, fg.laplacian):
        made = transformation(f)
        assert isinstance(made, fg.Program)
        got, wanted = made(x), transformation(plain)(x)
        for one, other in zip(got if isinstance(got, tuple) else [got],
                              wanted if isinstance(wanted, tuple) else [wanted]):
            np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(fg.jvp(f, (x,), (x,))[1], fg.grad(plain)(x) @ x)
    np.testing.assert_allclose(fg.vmap(f)(A), [plain(row) for row in A])


def test_a_program_of_programs():
    a, b = fg.variable("a"), fg.variable("b")
    square = fg.function([a], a * a)
    f = fg.function([b], square(b) + square(b + 1))
    assert f(2.0) == 13.0 and fg.grad(f)(2.0) == 10.0
    compiled = fg.compile(lambda x: x * 3 if x > 0 else x)
    g = fg.function([b], compiled(b) + 1)
    assert g(2.0) == 7.0 and g(-2.0) == -1.0 and g(2.0) == 7.0
    h = fg.compile(lambda x: f(x) * 2)
    assert h(2.0) == 26.0 == h(2.0)


def test_arrays_in_expressions_are_read_again():
    data = np.ones(3)
    f = program(lambda a: fnp.sum(a * data))
    assert f(2.0) == 6.0
    data[0] = 5.0
    assert f(2.0) == 14.0
    assert len(f.paths) == 1


def test_what_a_program_tells():
    a = fg.variable("a")
    f = fg.function([a], fnp.exp(a) + 1, name="shifted")
    f(A)
    assert "exp" in str(f) and "[2, 3]" in str(f) and "shifted" in repr(f)
    assert f.explain_plan() and f.memory_plan() is not None


def test_arrays_of_tensors_and_expressions():
    w, a = fg.tensor(2.0, requires_grad=True), fg.variable("a")
    for expression in (fnp.array([w, a, 1.0]), fnp.asarray([[w], [a]]), fnp.stack([w, a]),
                       fnp.array(a), fnp.full((3,), a)):
        f = fg.function([a], expression)
        with fg.no_grad():
            assert np.max(np.asarray(f(5.0))) == 5.0


# ---- copies ---------------------------------------------------------------------------------

def everything():
    a, b, c = fg.variable("a"), fg.variable("b", (2,), "f4"), fg.variable()
    scale = np.array([1.0, 3.0])
    return fg.function([a, b, c], {
        "sum": 2 * a + np.add.reduce(fnp.sin(b) * scale) - c[..., 0], "constant": "text",
        "parts": (fnp.concatenate([b, b])[1:3], b.T, b.sum(axis=0), np.where(b > 0, b, 1 - b)),
        "more": [fg.special.logsumexp(b), fnp.zeros(2) + a, np.linalg.norm(b), -abs(a) ** 2]},
        name="everything")


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("copied", [lambda f: pickle.loads(pickle.dumps(f)), copy.deepcopy])
def test_copies_take_every_signature_and_keep_the_names(called, copied):
    f, b = everything(), np.array([0.5, -1.0], "f4")
    if called:
        f(1.0, b, np.ones(2))
    g = copied(f)
    for args in ((1.0, b, np.ones(2)), (np.ones((2, 2)), b, np.ones((2, 2, 2)))):
        for found, wanted in zip(trees.flatten(g(*args))[0], trees.flatten(f(*args))[0],
                                 strict=True):
            np.testing.assert_array_equal(found, wanted)
            assert type(found) is type(wanted)
    assert len([path for path in g.paths if path.calls]) == 2
    for h in (f, g):
        assert h.__name__ == "everything"
        with pytest.raises(TypeError, match="no variable is named 'x'; the names are 'a', 'b'"):
            h(x=1.0)
        with pytest.raises(ValueError, match=r"<variable b> is declared with shape \(2,\)"):
            h(1.0, np.ones(3, "f4"), np.ones(2))
    pair = fg.function([x := fg.variable("a"), y := fg.variable("b")], 2 * x + y)
    assert copied(pair)(b=5.0, a=1.0) == 7.0 and copied(copied(pair))(np.ones(2), 1.0).sum() == 6.0
    slopes = copied(fg.grad(pair, argnames=("b", "a")))
    assert slopes(1.0, 2.0) == (1.0, 2.0) and slopes(np.float64(1), np.float64(5)) == (1, 2)


def test_arguments_by_the_names_of_variables():
    a, b = fg.variable("a"), fg.variable()
    f = fg.function([a, b], a * a * b)
    assert fg.grad(f, argnames="a")(3.0, 2.0) == 12.0
    assert fg.vjp(f, 3.0, 2.0, argnames="a")[1](1.0) == (12.0,)
    with pytest.raises(TypeError, match="has no argument 'c'; its arguments are 'a'"):
        fg.grad(f, argnames="c")
