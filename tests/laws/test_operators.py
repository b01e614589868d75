"""Laws over the operators of fastgrad/_operators, and over the shaped ones of the core: each holds
of a new record unasked. What else is known of single records stands below."""

import gc
import pickle
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import testing
from fastgrad._core import core
from fastgrad._operators import rule, signature
from fastgrad.look import explain, symbolic
from laws.calls import assert_same, value
from laws.examples import (
    CASES,
    DRAWN,
    OPERATORS,
    SHAPED,
    WITHOUT_LANES,
    drawn,
    public,
)

WEIGHTS = np.array([1.0, 2.0])


def weighed(f, *operands):
    """A number whose gradient takes all entries of a result, each with another weight."""
    y = f(*operands)
    return fnp.sum(fnp.sin(y) * fnp.reshape(fnp.linspace(0.5, 1.5, y.size), y.shape))


def numeric(f, x, v, h=1e-6):
    return (f(x + h * v) - f(x - h * v)) / (2 * h)


@pytest.mark.parametrize("name, k", CASES)
def test_values(name, k):
    operands, f = drawn(name, k)
    single = [x.astype(np.float32) for x in operands]
    plain, rounded = value(f(*operands)), value(f(*single))
    with fg.record():
        for made in (f(*map(fg.tensor, operands)),
                     f(fg.tensor(operands[0], requires_grad=True), *operands[1:])):
            assert isinstance(made, fg.Tensor)
            if name in OPERATORS and OPERATORS[name].native is None:    # (factors are our own)
                np.testing.assert_array_equal(value(made), plain)
            assert_same(made, plain)
        made = f(*map(fg.tensor, single))
        assert made.dtype == rounded.dtype and made.shape == rounded.shape
        assert_same(made, rounded, np.float32)
    assert name in SHAPED or rounded.dtype == np.float32


@pytest.mark.parametrize("name, k", CASES)
def test_derivatives(name, k):
    """Both modes, to the second order, against differences."""
    operands, f = drawn(name, k)
    testing.check_grads(lambda *operands: weighed(f, *operands), *operands, order=2)


@pytest.mark.parametrize("name, k", CASES)
def test_the_modes_are_transposes(name, k):
    operands, f = drawn(name, k)
    rng = np.random.default_rng(1)
    tangents = tuple([rng.normal(size=x.shape) for x in operands])
    y, pushed = fg.jvp(f, tuple(operands), tangents)
    c = rng.normal(size=y.shape)
    pulled = fg.vjp(f, *operands)[1](c)
    np.testing.assert_allclose(np.sum(c * pushed), sum([np.sum(g * t) for g, t in zip(pulled, tangents)]),
                               rtol=1e-9, atol=1e-12)
    for g, x in zip(pulled, operands):
        assert g.shape == x.shape and g.dtype == x.dtype


@pytest.mark.parametrize("name, k", CASES)
def test_each_operand_alone(name, k):
    """With the others constant the derivative is the same."""
    operands, f = drawn(name, k)
    together = fg.grad(lambda *xs: weighed(f, *xs), tuple(range(len(operands))))(*operands)
    for i, x in enumerate(operands):
        alone = fg.grad(lambda x, i=i: weighed(f, *operands[:i], x, *operands[i + 1:]))(x)
        np.testing.assert_allclose(alone, together[i], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name, k", CASES)
def test_replays(name, k):
    operands, f = drawn(name, k)
    for transformed in (f, fg.grad(lambda *xs: weighed(f, *xs)), lambda *xs: fg.jvp(f, xs, xs),
                        fg.hessian(lambda *xs: weighed(f, *xs)),
                        lambda *xs: fnp.exp(-weighed(f, *xs))):
        program = fg.compile(transformed)
        for seed in range(3):
            fresh, _ = drawn(name, k, seed)
            wanted = transformed(*fresh)
            for found, expected in zip(np.atleast_1d(*[program(*fresh)]), np.atleast_1d(*[wanted])):
                np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
        assert len(program.paths) == 1 and program.paths[0].calls == 3


@pytest.mark.parametrize("name, k", CASES)
def test_files(name, k):
    operands, f = drawn(name, k)
    program = fg.compile(fg.grad(lambda *xs: weighed(f, *xs)))
    program(*operands)
    loaded = pickle.loads(pickle.dumps(program.paths_only()))
    fresh, _ = drawn(name, k, 5)
    np.testing.assert_allclose(loaded(*fresh), program(*fresh), rtol=1e-12)
    # What was loaded is differentiated anew, by the rule.
    value = fg.compile(lambda *xs: weighed(f, *xs))
    value(*operands)
    again = pickle.loads(pickle.dumps(value.paths_only()))
    np.testing.assert_allclose(fg.grad(again)(*fresh), program(*fresh), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name, k", CASES)
def test_lanes(name, k):
    """Lanes of all operands, and of one alone; in front of gradients, and under them."""
    if name in WITHOUT_LANES:
        pytest.skip("its lanes would have results of several shapes")
    operands, f = drawn(name, k)
    several = [np.stack(x) for x in zip(*[drawn(name, k, seed)[0] for seed in range(3)])]
    gradient = fg.grad(lambda *xs: weighed(f, *xs), tuple(range(len(operands))))
    for i in [None, *range(len(operands))]:
        axes = tuple([0 if i is None or i == j else None for j in range(len(operands))])
        given = [x if axis == 0 else y for x, y, axis in zip(several, operands, axes)]
        rows = [[x[lane] if axis == 0 else x for x, axis in zip(given, axes)] for lane in range(3)]
        mapped = fg.vmap(f, in_axes=axes)
        wanted = np.stack([f(*row) for row in rows])
        np.testing.assert_allclose(mapped(*given), wanted, rtol=1e-12)
        np.testing.assert_allclose(fg.compile(mapped)(*given), wanted, rtol=1e-12)
        slopes = [gradient(*row) for row in rows]
        for found in (fg.vmap(gradient, in_axes=axes)(*given), fg.compile(
                fg.vmap(gradient, in_axes=axes))(*given)):
            for j, g in enumerate(found):
                np.testing.assert_allclose(g, [slope[j] for slope in slopes], rtol=1e-9, atol=1e-11)
        total = fg.grad(lambda *xs: fnp.sum(fg.vmap(lambda *row: weighed(f, *row), in_axes=axes)(*xs)),
                        tuple(range(len(operands))))(*given)
        for j, axis in enumerate(axes):
            own = [slope[j] for slope in slopes]
            np.testing.assert_allclose(total[j], np.stack(own) if axis == 0 else np.sum(own, 0),
                                       rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name, k", CASES)
def test_loops(name, k):
    operands, f = drawn(name, k)

    def looped(*xs):
        return fg.scan(lambda c, w: (c + w * weighed(f, *xs), None), 0.0, WEIGHTS)[0]
    program = fg.compile(fg.grad(looped))
    for seed in range(3):
        fresh, _ = drawn(name, k, seed)
        wanted = fg.grad(lambda *xs: 3 * weighed(f, *xs))(*fresh)
        for found in (fg.grad(looped), program):
            np.testing.assert_allclose(found(*fresh), wanted, rtol=1e-10, atol=1e-12)
    assert [path.calls for path in program.paths] == [3]


@pytest.mark.parametrize("name, k", CASES)
def test_jacobians_and_series(name, k):
    operands, f = drawn(name, k)
    x, rest = operands[0], operands[1:]
    reverse = fg.jacobian(lambda x: f(x, *rest), mode="reverse")(x)
    np.testing.assert_allclose(fg.jacobian(lambda x: f(x, *rest), mode="forward")(x), reverse,
                               rtol=1e-10, atol=1e-12)
    if x.size:
        sparse = fg.jacobian(lambda v: fnp.ravel(f(fnp.reshape(v, x.shape), *rest)), sparse=True)(x.ravel())
        np.testing.assert_allclose(sparse.toarray(), reverse.reshape(sparse.shape), rtol=1e-10, atol=1e-12)
        v = np.random.default_rng(2).normal(size=x.shape)
        series = fg.taylor(lambda x: weighed(f, x, *rest), x, v, 2)
        np.testing.assert_allclose(series[1], numeric(lambda x: weighed(f, x, *rest), x, v), rtol=1e-5)
        np.testing.assert_allclose(2 * series[2], numeric(lambda x: np.sum(fg.grad(
            lambda x: weighed(f, x, *rest))(x) * v), x, v), rtol=1e-4, atol=1e-6)


ENGINES = {
    "grad": lambda f, x: fg.grad(f)(x), "jvp": lambda f, x: fg.jvp(f, (x,), (x,)),
    "backward": lambda f, x: f(fg.tensor(x, requires_grad=True)).backward(),
    "linearize": lambda f, x: fg.linearize(f, x)[1](x), "hessian": lambda f, x: fg.hessian(f)(x),
    "jacobian": lambda f, x: fg.jacobian(f, mode="forward")(x),
    "compiled": lambda f, x: fg.compile(fg.grad(f))(x), "lanes": lambda f, x: fg.vmap(fg.grad(f))(x[None]),
    "under lanes": lambda f, x: fg.grad(lambda x: fnp.sum(fg.vmap(f)(x[None])))(x),
    "taylor": lambda f, x: fg.taylor(f, x, x, 1),
    "loop": lambda f, x: fg.grad(lambda x: fg.fori_loop(0, 2, lambda i, c: c + f(x), 0.0))(x),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", DRAWN)
def test_a_rule_that_is_missing_is_an_error(name, engine, monkeypatch):
    """Never a zero."""
    operands, f = drawn(name, 0)
    bare = OPERATORS[name]._replace(jvp=None, vjp=None, linear=())
    monkeypatch.setitem(OPERATORS, name, bare)
    with pytest.raises(fg.NoDerivativeError, match=bare.name.replace(".", r"\.")):
        ENGINES[engine](lambda x: weighed(f, x, *operands[1:]), operands[0])


@pytest.mark.parametrize("name", [name for name in DRAWN if OPERATORS[name].jvp is not None])
def test_a_vjp_that_is_left_out_is_the_transpose_of_the_jvp(name, monkeypatch):
    (first, *rest), f = drawn(name, 0)
    other = list(OPERATORS[name].draw(np.random.default_rng(1)))[0][0][0]

    def derivatives():
        loss = lambda *operands: weighed(f, *operands)  # noqa: E731
        of_first = lambda x: loss(x, *rest)  # noqa: E731
        program = fg.compile(fg.grad(of_first))
        program(first)
        return [*fg.grad(loss, tuple(range(1 + len(rest))))(first, *rest), program(other),
                fg.jacobian(fg.grad(of_first), mode="reverse")(first),
                fg.vmap(fg.grad(of_first))(np.stack([first, other])),
                fg.jacobian(lambda x: f(x, *rest), mode="reverse")(first)]

    expected = derivatives()
    monkeypatch.setitem(OPERATORS, name, OPERATORS[name]._replace(vjp=None))
    if name == "fastgrad.linalg._triangular":
        with pytest.raises(fg.NoDerivativeError, match="made of the operator itself"):
            derivatives()
        return
    for found, wanted in zip(derivatives(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", DRAWN)
def test_explained(name):
    """By the chain rule step by step, whose last row is the gradient; and with SymPy, where the
    operator is linear."""
    (first, *rest), f = drawn(name, 0)
    row = OPERATORS[name]
    loss = lambda x: weighed(f, x, *rest)  # noqa: E731
    explanation = str(fg.explain(loss, first))
    assert f"{row.name}(" in explanation and f"the slopes of {row.name}" in explanation
    total = np.sum(fg.grad(loss)(first))
    reader = explain._Reader(symbolic.Recording("explain", loss, (first,), {}), loss, {})
    for found in (reader.adjoints[reader.leaves[0]], reader.tangents[reader.leaves[0]][reader.output]):
        np.testing.assert_allclose(np.sum(found), total, rtol=1e-9, atol=1e-12)
    if row.linear == (0,) and not rest:
        x = fg.symbolic(lambda x: fnp.sum(f(x) ** 2), first)
        numbers = dict(zip(np.ravel(x.symbols), np.ravel(first)))
        np.testing.assert_allclose([float(g.subs(numbers)) for g in np.ravel(x.gradient)],
                                   np.ravel(fg.grad(lambda x: fnp.sum(f(x) ** 2))(first)), rtol=1e-9)
    else:
        with pytest.raises(NotImplementedError, match=f"{row.name} has no formula"):
            fg.symbolic(loss, first)


# ---- the record -------------------------------------------------------------------------------

def test_what_a_record_must_hold():
    with pytest.raises(ValueError, match="registered twice"):
        rule.operator("cumsum", "(n)->(n)", np.cumsum, draw=None, doc="")
    with pytest.raises(ValueError, match="needs a vjp"):
        rule.operator("cumsum2", "(n)->(n)", np.cumsum, linear=(0,), draw=None, doc="")
    for rules in ({"linear": (0,), "vjp": print}, {"jvp": (print,)}, {"vjp": (print,)}):
        with pytest.raises(ValueError, match="rules for all"):
            rule.operator("cumsum2", "(n)->(n),(n)", np.cumsum, results=2, returns=2, draw=None,
                          doc="", **rules)
    with pytest.raises(ValueError, match="is not of the form"):
        rule.operator("cumsum2", "n->n", np.cumsum, draw=None, doc="")
    with pytest.raises(ValueError, match="no operand has an axis 'k'"):
        rule.operator("cumsum2", "(n)->(k)", np.cumsum, draw=None, doc="")
    assert "fastgrad.cumsum2" not in OPERATORS


def test_signatures():
    solve = signature.parsed("(n,n),(n,k)->(n,k)")
    assert str(solve) == "(n,n),(n,k)->(n,k)"
    assert solve.shapes("solve", [(5, 1, 2, 2), (4, 2, 3)]) == [(5, 4, 2, 3)]
    for shapes, message in (
            ([(2, 3), (3, 1)], r"operand 0 has shape \(2, 3\); both axes 'n'"),
            ([(3, 3), (2, 1)], "axis 'n' of operand 1, of shape .2, 1., has length 2, but that of operand 0 3"),
            ([(3, 3), (3,)], "at least 2 axes"), ([(2, 1, 1), (3, 1, 1)], "do not broadcast")):
        with pytest.raises(ValueError, match=message):
            solve.shapes("solve", shapes)


def test_bad_input():
    x = fg.tensor(np.ones((2, 2)), requires_grad=True)
    with pytest.raises(np.linalg.LinAlgError, match=r"linalg\.solve: Singular"):
        fnp.linalg.solve(x, np.ones(2))
    with pytest.raises(np.linalg.LinAlgError, match=r"linalg\.cholesky: Matrix is not positive definite"):
        np.linalg.cholesky(-x)
    with pytest.raises(ValueError, match=r"linalg\.solve: operand 0 has shape \(2, 1\)"):
        np.linalg.solve(x[:, :1], np.ones(2))
    with pytest.raises(TypeError, match="out= is not supported"):
        fnp.cumsum(x, out=np.ones(4))
    with pytest.raises(np.exceptions.AxisError):
        fnp.cumsum(x, 2)


def test_under_numpys_names():
    x = np.array([1.0, 2.0, -3.0])
    for f in (np.cumsum, np.add.accumulate, fnp.cumsum, lambda t: t.cumsum(), lambda t: t.cumsum(axis=-1)):
        np.testing.assert_array_equal(fg.jacobian(f)(x), np.tri(3))
    assert np.cumsum(fg.tensor([1, 2])).dtype == np.int64
    assert np.cumsum(fg.tensor(x), dtype=np.float32).dtype == np.float32
    a, b = np.array([[2.0, 1.0], [0.0, 4.0]]), np.array([1.0, 2.0])
    np.testing.assert_allclose(fg.jacobian(lambda b: np.linalg.solve(a, b))(b), np.linalg.inv(a))
    assert fg.grad(lambda a: np.sum(np.linalg.solve(a, b)))(a).shape == (2, 2)


def test_the_factor_is_of_a_symmetric_matrix():
    """The gradient is symmetric, as the matrix is taken to be."""
    a = np.array([[4.0, 1.0], [1.0, 3.0]])
    g = fg.grad(lambda a: fnp.sum(np.linalg.cholesky(a)))(a)
    np.testing.assert_array_equal(g, g.T)


def test_products_with_zeros():
    """By products of the others; what stands before an infinity keeps its slope."""
    def by_columns(x):
        return fnp.stack([fnp.prod(x[:k + 1]) for k in range(len(x))])

    def second(f):
        return fg.hessian(lambda x: fnp.sum(f(x) ** 2 + f(x)))
    for x in (np.array([2.0, 0.0, 3.0, 0.0, 1.5]), np.zeros(4)):
        for derivative in (fg.jacobian, second):
            np.testing.assert_allclose(derivative(fnp.cumprod)(x), derivative(by_columns)(x),
                                       atol=1e-15)
    slopes = fg.grad(lambda x: fnp.sum(fnp.cumprod(x)))(np.array([np.inf, 2.0]))
    np.testing.assert_array_equal(slopes, [3.0, np.inf])
    assert np.cumprod(fg.tensor([1, 2])).dtype == np.int64


def test_eigenvalues_and_eigenvectors():
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    for made in (np.linalg.eigh(fg.tensor(a)), fg.compile(np.linalg.eigh)(a),
                 fnp.linalg.eigh(a, "U"), fg.jacobian(np.linalg.eigh)(a)):
        assert type(made) is type(np.linalg.eigh(a))
    # One triangle is read, and the gradient is that of both.
    lower = np.tril(a)
    np.testing.assert_array_equal(np.linalg.eigh(fg.tensor(lower)).eigenvalues.numpy(),
                                  np.linalg.eigh(a).eigenvalues)
    g = fg.grad(lambda a: np.linalg.eigh(a)[1][0, 1])(lower)
    np.testing.assert_array_equal(g, g.T)
    assert np.linalg.eigh(fg.tensor(np.ones((2, 0, 0)), requires_grad=True))[1].shape == (2, 0, 0)


def test_equal_eigenvalues():
    """Those functions that have a gradient have it; the eigenvectors' is NaN, with a warning."""
    a, v = np.diag([1.0, 1.0, 3.0]), np.array([[1.0, 2.0, 3.0], [2.0, 0.0, 1.0], [3.0, 1.0, 2.0]])

    def total(a):
        return fnp.sum(fnp.exp(np.linalg.eigh(a).eigenvalues))

    def last(a):
        return fnp.sum((a @ np.linalg.eigh(a).eigenvectors[:, 2]) ** 3)

    def spread(a):
        return fnp.sum(np.linalg.eigh(a).eigenvectors ** 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(fg.grad(total)(a), np.diag(np.exp(np.diag(a))), rtol=1e-15)
    program = fg.compile(fg.grad(spread))
    assert np.isfinite(program(v)).all()
    with pytest.warns(RuntimeWarning, match=r"linalg\.eigh: eigenvalues are equal"):
        assert np.isnan(fg.grad(spread)(a)).all()
    with pytest.warns(RuntimeWarning, match=r"linalg\.eigh: eigenvalues are equal"):
        assert np.isnan(program(a)).all()
    with pytest.warns(RuntimeWarning, match=r"linalg\.eigh: eigenvalues are equal"):
        slope, moved = np.sum(fg.grad(last)(a) * v), fg.jvp(last, (a,), (v,))[1]
    np.testing.assert_allclose([slope, moved], numeric(last, a, v), rtol=1e-8)
    # Where a cotangent is zero at a point alone, its slope is not lost.
    best = np.linalg.eigh(v)[1]
    testing.check_grads(lambda x: fnp.sum((np.linalg.eigh(x + x.T)[1] - best) ** 2), v / 2, order=2)


@pytest.mark.parametrize("name, k", CASES)
def test_nothing_is_left(name, k):
    """No circle of a node and its rule, no count that is off, with operands that are constant, too."""
    operands, f = drawn(name, k)

    def everything():
        for i, x in enumerate(operands):
            given = list(map(fg.tensor, operands))
            given[i] = fg.tensor(x, requires_grad=True)
            with fg.record():
                weighed(f, *given).backward()
            fg.grad(lambda x, i=i: weighed(f, *operands[:i], x, *operands[i + 1:]))(x)
            fg.jvp(lambda x, i=i: weighed(f, *operands[:i], x, *operands[i + 1:]), (x,), (x,))
    everything()
    gc.collect()
    gc.disable()
    try:
        before = core.alive()
        everything()
        assert core.alive() == before
    finally:
        gc.enable()


# ---- a rule in the middle of a sweep ----------------------------------------------------------

@fg.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


@fg.custom_vjp
def sweeping(x):
    return x ** 3


def _sweeping_back(x, g):
    """It records and sweeps itself, with a rule in the middle."""
    return (g * fg.grad(lambda x: fnp.sum(sweeping_inside(x)))(x),)


def sweeping_inside(x):
    return doubled(x) * x * x / 2


sweeping.defvjp(lambda x: (x ** 3, x), _sweeping_back)


def test_rules_in_the_middle_of_a_sweep():
    """The nodes around a rule stay in the sweep with numbers; the rule may sweep in its turn."""
    x = np.array([0.5, -1.0, 2.0])

    def f(x):
        y = fnp.sin(x) * 2
        y = sweeping(y) + fnp.cumsum(y) + doubled(y[::-1])
        return fnp.sum(y * y * x) + sweeping(fnp.sum(y))

    def plain(x):
        y = fnp.sin(x) * 2
        y = y ** 3 + fnp.matmul(np.tri(3), y) + 2 * y[::-1]
        return fnp.sum(y * y * x) + fnp.sum(y) ** 3
    wanted = fg.grad(plain)(x)
    _, pull = fg.vjp(f, x)
    for found in (fg.grad(f)(x), pull(1.0)[0], pull(1.0)[0], fg.jacobian(f, mode="reverse")(x),
                  fg.value_and_grad(lambda x, s: f(x) * s)(x, 1.0)[1], fg.compile(fg.grad(f))(x)):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    t = fg.tensor(x, requires_grad=True)
    f(t).backward()
    np.testing.assert_allclose(t.grad.numpy(), wanted, rtol=1e-12)
    np.testing.assert_allclose(fg.hessian(f)(x), fg.hessian(plain)(x), rtol=1e-10)


def test_an_error_in_such_a_rule_leaves_the_thread_usable():
    @fg.custom_vjp
    def broken(x):
        return x * 1.0
    broken.defvjp(lambda x: (x * 1.0, None), _broken_back)
    x = np.arange(3.0)
    for f in (lambda x: fnp.sum(broken(fnp.sin(x)) * fnp.cumsum(x)), lambda x: broken(fnp.sum(x) * 2)):
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                fg.grad(f)(x)
            np.testing.assert_array_equal(fg.grad(lambda x: fnp.sum(fnp.cumsum(x)))(x), [3.0, 2.0, 1.0])


def _broken_back(_, g):
    raise ZeroDivisionError


def test_only_what_is_asked_for():
    """A rule is told which operands are wanted."""
    a, b = np.eye(2) * 2, np.ones((2, 1))
    solve = OPERATORS["fastgrad.linalg.solve"]
    asked = []

    def vjp(cotangents, operands, results, wanted):
        asked.append(tuple(wanted))
        return solve.vjp(cotangents, operands, results, wanted)
    OPERATORS["fastgrad.linalg.solve"] = solve._replace(vjp=vjp)
    try:
        fg.grad(lambda b: fnp.sum(fnp.linalg.solve(a, b)))(b)
        fg.grad(lambda a: fnp.sum(fnp.linalg.solve(a, b)))(a)
        fg.grad(lambda a, b: fnp.sum(fnp.linalg.solve(a, b)), (0, 1))(a, b)
    finally:
        OPERATORS["fastgrad.linalg.solve"] = solve
    assert asked == [(False, True), (True, False), (True, True)]


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("n", [1, 48, 49, 130])
def test_triangular_systems_in_blocks(n, upper):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(2, n, n)) / n + 3 * np.eye(n), rng.normal(size=(n, 3))
    side = np.triu if upper else np.tril
    x = fnp.linalg._triangular(a, b, upper)
    np.testing.assert_allclose(x, np.linalg.solve(side(a), np.broadcast_to(b, (2, n, 3))), rtol=1e-10)
    found = fg.grad(lambda a, b: np.sum(fnp.linalg._triangular(a, b, upper) ** 2), (0, 1))(a, b)
    expected = fg.grad(lambda a, b: np.sum(np.linalg.solve(side(a), b) ** 2), (0, 1))(a, b)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("transform", [lambda f: f, fg.grad, fg.hessian], ids=["value", "grad", "hessian"])
def test_a_program_calls_once_what_is_the_same(transform, monkeypatch):
    key, calls = "fastgrad.linalg.eigh", []
    eigh = core.CALLED[key]
    monkeypatch.setitem(core.CALLED, key, lambda *args, **kwargs: calls.append(1) or eigh(*args, **kwargs))

    def f(a):
        w, v = fnp.linalg.eigh(a)
        return fnp.sum(fnp.log(w)) + fnp.sum(v[0] ** 2 * w)

    program = fg.compile(transform(f))
    for a in (np.diag([1.0, 2.0, 3.0]), np.array([[2.0, 1.0, 0.5], [1.0, 3.0, 0.1], [0.5, 0.1, 1.0]])):
        program(a)
        calls.clear()
        found, called = program(a + 0.1), len(calls)
        assert called == 1
        np.testing.assert_allclose(found, transform(f)(a + 0.1), rtol=1e-12)


def test_calls_with_other_options_or_operands_are_others():
    def f(a, b):
        return (np.cumsum(a, 0) + 2 * np.cumsum(a, 1) - 3 * np.cumsum(b, 0)
                + np.linalg.cholesky(a) @ np.linalg.cholesky(b, upper=True)
                + 5 * np.linalg.cholesky(a, upper=True) + np.cumsum(a.reshape(2, 2).T, 0))

    program = fg.compile(f)
    a, b = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[3.0, 1.0], [1.0, 2.0]])
    program(a, b)
    np.testing.assert_allclose(program(b * 2, a), f(b * 2, a), rtol=1e-14)
    assert len(program.paths) == 1


def test_a_loop_calls_in_each_step():
    """What is the same call in a step is another one in the next."""
    def step(a, k):
        w, v = fnp.linalg.eigh(a)
        factor = fnp.linalg.cholesky(a)
        return a + k * (v * w) @ fnp.swapaxes(v, 0, 1) @ a / 10, fnp.sum(factor) + fnp.sum(w)

    def f(a):
        last, seen = fg.scan(step, a, np.linspace(0.1, 1.0, 5))
        return fnp.sum(last) + fnp.sum(seen ** 2)

    def by_hand(a):
        total = 0.0
        for k in np.linspace(0.1, 1.0, 5):
            a, y = step(a, k)
            total = total + y ** 2
        return fnp.sum(a) + total

    a = np.array([[2.0, 0.5], [0.5, 1.0]])
    for run in (lambda f: f, fg.grad, fg.compile, lambda f: fg.compile(fg.grad(f))):
        found = run(f)
        found(np.eye(2) * [1.0, 3.0])
        np.testing.assert_allclose(found(a), run(by_hand)(a), rtol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in DRAWN if OPERATORS[name].native is not None])
def test_loops_of_numpys(name, dtype, monkeypatch):
    """Programs call them, with batch axes too, and the function where they do not serve."""
    row, calls = OPERATORS[name], []
    computed = core.CALLED[name]
    for operands, options in row.draw(np.random.default_rng(0)):
        monkeypatch.setitem(core.CALLED, name, computed)
        f = lambda *xs, options=options: public(name)(*xs, **options)  # noqa: E731
        program = fg.compile(f)
        operands = [x.astype(dtype) for x in operands]
        program(*operands)
        monkeypatch.setitem(core.CALLED, name,
                            lambda *xs, **options: calls.append(1) or computed(*xs, **options))
        calls.clear()
        fresh = [x * np.asarray(1.5, dtype) for x in operands]
        found = program(*fresh)
        np.testing.assert_array_equal(found, value(f(*map(fg.tensor, fresh))))
        assert found.dtype == dtype
        assert bool(calls) == (dtype == "float32")
        if not calls and not row.name.startswith("linalg._"):
            zeros = 0 * operands[0]
            with pytest.raises(np.linalg.LinAlgError):          # what the function raises, of its own
                program(zeros, *operands[1:])
            with pytest.raises(np.linalg.LinAlgError, match=row.name):
                program.paths_only()(zeros, *operands[1:])
            np.testing.assert_array_equal(program(*fresh), found)


def test_running_products_that_overflow_elsewhere():
    x = np.array([0.0, 1e200, 1e200, 1.0])
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.cumprod(x)[1])(x), [1e200, 0.0, 0.0, 0.0])
    x = np.random.default_rng(0).uniform(2, 3, 200).astype(np.float32)
    found = fg.grad(lambda x: fnp.cumprod(x)[5])(x)
    np.testing.assert_allclose(found[:6], np.prod(x[:6]) / x[:6], rtol=1e-5)
    np.testing.assert_array_equal(found[6:], 0)


@pytest.mark.parametrize("name", DRAWN)
def test_complex_operands_are_refused(name):
    """Their imaginary part would get lost."""
    operands, options = next(iter(OPERATORS[name].draw(np.random.default_rng(0))))
    given = [fg.tensor(operands[0]), *[x * (1 + 1j) for x in operands[1:]]]
    if len(given) > 1:
        with pytest.raises(TypeError, match=f"{OPERATORS[name].name}: .*complex"):
            public(name)(*given, **options)


def test_options_that_are_none():
    x, a = fg.tensor(np.ones((2, 2))), fg.tensor(np.eye(2))
    for wrong in (1.0, (0, 1), "0"):
        with pytest.raises(TypeError, match="cumprod: axis must be an integer"):
            np.cumprod(x, wrong)
    with pytest.raises(ValueError, match=r"linalg\.eigh: UPLO"):
        np.linalg.eigh(a, "X")
    with pytest.raises(ValueError, match=r"linalg\.solve: operand 1 has shape \(\)"):
        np.linalg.solve(a, 1.0)
