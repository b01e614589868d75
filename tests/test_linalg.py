"""Factors and triangular systems of src/linalg.inc, against NumPy; and that programs keep to their loops."""

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

LOOPS = core.matrices
SIZES = [0, 1, 2, 3, 7, 8, 9, 16, 17, 25, 64, 65, 100, 130]     # blocks have 8 rows, and are halved


def drawn(rng, *shape):
    return rng.normal(size=shape) + 3 * np.eye(shape[-1])


def layouts(a):
    """The same matrix in memory of any kind: rows, columns, every other entry, backwards."""
    spread = np.zeros((2 * len(a), 3 * len(a)))
    spread[::2, ::3] = a
    return a, np.asfortranarray(a), spread[::2, ::3], a[::-1, ::-1].copy()[::-1, ::-1]


@pytest.mark.parametrize("n", SIZES)
def test_loops_give_what_numpy_gives(n):
    rng = np.random.default_rng(n)
    a = drawn(rng, n, n)
    rows, lower, upper = a @ a.T + np.eye(n), np.tril(a), np.triu(a)
    for k in (0, 1, 3, n):
        b = rng.normal(size=(n, k))
        for given in layouts(a):
            x, factors, exchanged = LOOPS["solve"](given, b)
            np.testing.assert_allclose(given @ x, b, atol=1e-9 * max(1, np.linalg.cond(a)) if n else 0)
            for pair in layouts(factors):
                np.testing.assert_allclose(LOOPS["solve_again"](a, pair, exchanged, b), x, rtol=1e-7, atol=1e-9)
            turned = LOOPS["solve_transposed"](a, factors, exchanged, b)
            np.testing.assert_allclose(a.T @ turned, b, atol=1e-8)
            np.testing.assert_allclose(lower @ LOOPS["lower"](given, b), b, rtol=1e-6, atol=1e-8 * np.abs(
                LOOPS["lower"](given, b)).max(initial=1))
            np.testing.assert_allclose(upper @ LOOPS["upper"](given, b), b, rtol=1e-6, atol=1e-8 * np.abs(
                LOOPS["upper"](given, b)).max(initial=1))
    for given in layouts(rows):
        np.testing.assert_allclose(LOOPS["cholesky_lower"](given), np.linalg.cholesky(rows), atol=1e-10)
        np.testing.assert_allclose(LOOPS["cholesky_upper"](given), np.linalg.cholesky(rows).T, atol=1e-10)


def test_rows_are_exchanged_for_the_largest_entry():
    tiny = np.array([[1e-20, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(LOOPS["solve"](tiny, np.ones((2, 1)))[0], [[0.0], [1.0]], atol=1e-15)


@pytest.mark.parametrize("name", ["solve", "solve_again", "solve_transposed", "lower", "upper",
                                  "cholesky_lower"])
@pytest.mark.parametrize("n", [3, 20])
def test_results_may_lie_anywhere(name, n):
    """NaN, and nothing written elsewhere, where a result is not contiguous: NumPy serves then."""
    rng = np.random.default_rng(0)
    loop, k = LOOPS[name], 2
    shapes = [tuple({"n": n, "k": k}[x] for x in part) for part in
              [tuple(filter(None, core.strip("()").split(","))) for core in
               loop.signature.replace("->", ",").replace(" ", "").replace("),(", ")|(").split("|")]]
    operands = [drawn(rng, n, n) if shape == (n, n) else np.zeros(shape) for shape in shapes[:loop.nin]]
    if name.startswith("cholesky"):
        operands = [operands[0] @ operands[0].T]
    around = [np.full(tuple(2 * x for x in shape), 7.0) for shape in shapes[loop.nin:]]
    out = tuple([x[tuple(slice(0, None, 2) for _ in x.shape)] for x in around])
    loop(*operands, out=out if len(out) > 1 else out[0])
    for x in around:
        assert (x[1::2] == 7.0).all()
        assert np.isnan(x[::2, ::2] if x.ndim == 2 else x[::2]).all()


def test_batches_broadcast():
    rng = np.random.default_rng(1)
    a, b = drawn(rng, 5, 1, 9, 9), rng.normal(size=(4, 9, 2))
    np.testing.assert_allclose(LOOPS["solve"](a, b)[0], np.linalg.solve(a, b), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("matrix", [np.ones((2, 2)), np.zeros((3, 3)), np.arange(9.0).reshape(3, 3)])
def test_singular_matrices_raise(matrix):
    f = lambda a: fnp.sum(np.linalg.solve(a, np.ones(len(matrix))))     # noqa: E731
    for run in (f, fg.grad(f), fg.compile(f), fg.compile(fg.grad(f)), fg.vmap(f)):
        given = np.stack([matrix] * 2) if run is not f and "vmap" in repr(run) else matrix
        for _ in range(3):
            with pytest.raises(np.linalg.LinAlgError, match="ingular"):
                run(given)


def test_one_singular_lane_raises_in_a_program():
    program = fg.compile(lambda a, b: np.linalg.solve(a, b))
    a = drawn(np.random.default_rng(2), 4, 3, 3)
    for _ in range(3):
        np.testing.assert_allclose(program(a, np.ones((3, 1))), np.linalg.solve(a, np.ones((3, 1))))
    a[2] = 1.0
    with pytest.raises(np.linalg.LinAlgError):
        program(a, np.ones((3, 1)))


@pytest.mark.parametrize("shapes", [((3, 3), (3,)), ((5, 3, 3), (3, 2)), ((3, 3), (4, 3, 2)),
                                    ((2, 1, 9, 9), (4, 9, 2)), ((40, 40), (40, 40))])
def test_programs_solve_by_loops(shapes, monkeypatch):
    """Gradients with kept factors, batches broadcast, without a call of the Python function."""
    from fastgrad._operators.rule import OPERATORS

    rng = np.random.default_rng(3)
    f = fg.value_and_grad(lambda a, b: fnp.sum(np.linalg.solve(a, b) ** 2), argnums=(0, 1))
    program = fg.compile(f)
    draw = lambda: (drawn(rng, *shapes[0]), rng.normal(size=shapes[1]))     # noqa: E731
    for _ in range(3):
        program(*draw())
    for name in ("fastgrad.linalg.solve", "fastgrad.linalg._factored"):
        monkeypatch.setitem(core.CALLED, name, None)
    given = draw()
    value, gradients = program(*given)
    monkeypatch.undo()
    assert OPERATORS["fastgrad.linalg.solve"].results == 3
    expected, wanted = f(*given)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for g, w in zip(gradients, wanted):
        np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-12)


def test_factors_of_single_precision_are_not_rounded():
    """A gradient from float32 factors would lose digits with the condition of the matrix."""
    n = 6
    hilbert = 1 / (1.0 + np.add.outer(np.arange(n), np.arange(n)))
    a, b = hilbert.astype(np.float32), np.ones(n, np.float32)
    x = np.linalg.solve(a.astype(float), b.astype(float))
    u = np.linalg.solve(a.T.astype(float), np.ones(n))
    found = fg.grad(lambda a: fnp.sum(np.linalg.solve(a, b)))(a)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, -np.outer(u, x), rtol=1e-5)
