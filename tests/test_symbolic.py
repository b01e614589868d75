"""SymPy expressions of value and gradient: the gradient is the derivative of the value, and both
give the numbers that fastgrad gives."""

import builtins

import numpy as np
import pytest
from laws.examples import ROUNDED, SHAPED, SIGNED

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad.look import symbolic as _symbolic
from fastgrad.look.symbolic import symbolic

sympy = pytest.importorskip("sympy")

SMOOTH_ROWS = [row for row in _symbolic.ROWS.values()
               if row.kind in ("unary", "binary", "ternary") and not row.steps]


def flat(tree):
    from fastgrad._core import trees

    return [entry for leaf in trees.flatten(tree)[0] for entry in np.ravel(leaf)]


def number(expression, symbols, values):
    return float(expression.subs(dict(zip(symbols, values)), simultaneous=True).evalf(20))


def agrees(f, *args, exact=True, **kwargs):
    """Value and gradient of the expressions, and of sympy.diff, are those of fastgrad."""
    s = symbolic(f, *args, **kwargs)
    symbols, values = flat(s.symbols), [float(x) for x in flat(args)]
    value, gradient = fg.value_and_grad(lambda *a: f(*a, **kwargs), tuple(range(len(args))))(*args)
    assert number(s.value, symbols, values) == pytest.approx(value, rel=1e-9)
    for symbol, entry, wanted in zip(symbols, flat(s.gradient), flat(gradient)):
        assert number(entry, symbols, values) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        if exact:
            diff = sympy.diff(s.value, symbol)
            at = diff.subs(dict(zip(symbols, values)), simultaneous=True)
            if at.has(sympy.Derivative, sympy.Subs):        # SymPy has no rule for floor(...)
                continue
            assert number(diff, symbols, values) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    return s


# ---- the rows of the table ------------------------------------------------------------------

@pytest.mark.sampled(2)
@pytest.mark.parametrize("row", SMOOTH_ROWS, ids=lambda row: row.name)
def test_the_gradient_of_a_row_is_the_derivative_of_its_value(row, rng):
    for _ in range(3):
        args = [float(x) for x in rng.uniform(row.low, row.high, row.arity)]
        if row.name.endswith("power_db"):
            args[2] = args[0] ** args[1]
        if row.mask:
            args[2:] = []
            agrees(lambda a, b: core.functions[row.name](a, b, np.array(True)) * 1.0, *args)
            continue
        # Partials that are rows themselves take a result as an operand of its own, and what they
        # say of it may be a limit: their values are compared, their slopes are the core's.
        agrees(core.functions[row.name], *args, exact=not row.inner)


def test_every_row_means_something():
    words = [name for name, row in _symbolic.ROWS.items() if row.kind != "shaped"
             and _symbolic.meaning(name) is None
             and not hasattr(sympy, _symbolic.SYMPY.get(name, name))
             and name not in ("where", "power")]
    assert words == []


# ---- shaped operators -----------------------------------------------------------------------

X = np.array([[1.0, 2.5, -0.5], [0.25, -1.0, 3.0]])
NUMBERS = [name for name, (f, x) in SHAPED.items() if x is SIGNED and np.ndim(f(x)) == 0
           and name not in ("max signed", "min signed")]
# SymPy takes half a minute for a maximum of twelve entries, and subtracts it from each of them with
# rounding where it stands for numbers: none of "pieces" is the largest. An empty sum is no symbol.
WITHOUT_TERMS = {*ROUNDED, "max times a min", "min", "max", "pieces", "max signed", "min signed",
                 "item of nothing"}


@pytest.mark.parametrize("name", NUMBERS)
def test_shaped_operators(name):
    f, x = SHAPED[name]
    agrees(f, x, exact=not name.startswith(("max", "prod")))


@pytest.mark.sampled(20)
@pytest.mark.parametrize("name", [
    name for name in SHAPED if name not in {*NUMBERS, *WITHOUT_TERMS}])
def test_sums_of_shaped_operators(name):
    f, x = SHAPED[name]
    weights = np.arange(1.0, np.asarray(core.settled(f(x))).size + 1)
    agrees(lambda x: fnp.sum(fnp.ravel(f(x)) * weights), x, exact=False)


def test_assignment():
    def partly(x):
        out = fnp.zeros(3)
        out[1] = x
        out[:1] = x * 2
        return (out * out).sum()

    def only_summed(x):
        out = fnp.zeros(3)
        out[1] = x * x
        return out.sum()

    def over(x):
        y = x * 2
        y[1] = 5.0
        return (y * y).sum()

    agrees(partly, 3.0)
    agrees(only_summed, 3.0)
    s = agrees(over, X[0])
    assert s.gradient[1] == 0


def test_ties_of_a_maximum_share_the_slope():
    s = symbolic(lambda x: np.max(x), np.array([1.0, 1.0, 0.0]))
    at = dict(zip(s.symbols, (1, 1, 0)))
    assert [g.subs(at) for g in s.gradient] == [sympy.Rational(1, 2), sympy.Rational(1, 2), 0]


# ---- what is returned -----------------------------------------------------------------------

def test_a_polynomial():
    s = symbolic(lambda x: 4 * x ** 3 + x ** 2 + 3, 1.0)
    x = s.symbols
    assert s.value == 4 * x**3 + x**2 + 3
    assert s.gradient == 12 * x**2 + 2 * x


def test_names_and_structure():
    s = agrees(lambda p, b: (p["w"] @ np.ones(2) + p["c"][0] - b) ** 2,
               {"w": np.array([1.0, 2.0]), "c": [0.5]}, 4.0)
    p, b = s.symbols
    assert (str(p["w"][1]), str(p["c"][0]), str(b)) == ("p_w_1", "p_c_0", "b")
    assert s.gradient[0]["w"].shape == (2,)
    assert isinstance(s.gradient[0]["c"], list)


def test_keyword_arguments_are_constants():
    assert symbolic(lambda x, k=1: k * x, 2.0, k=3).gradient == 3


def test_numbers_are_exact_where_they_can_be():
    s = symbolic(lambda x: 0.5 * x + 3.0 * x ** 2 + 0.1, 1.0)
    assert s.gradient == sympy.Rational(1, 2) + 6 * s.symbols
    assert s.value.coeff(s.symbols, 0) == sympy.Float(0.1)
    assert symbolic(np.log2, 4.0).gradient == 1 / (sympy.log(2) * symbolic(np.log2, 4.0).symbols)


def test_the_path_taken():
    def f(x):
        return x * x if x > 0 else -x

    assert symbolic(f, -2.0).gradient == -1
    assert symbolic(lambda x: x * int(np.sign(x)), -2.0).gradient == -1
    assert symbolic(lambda x: x * np.sign(x), -2.0).gradient == symbolic(np.sign, -2.0).value


def test_a_constant():
    s = symbolic(lambda x, w: 3.0, 1.0, np.ones(2))
    assert s.value == 3
    assert s.gradient[0] == 0 and list(s.gradient[1]) == [0, 0]


def test_simplify_count_ops_lambdify():
    def f(x):
        return np.sin(x) ** 2 + np.cos(x) ** 2

    long, short = symbolic(f, 1.0), symbolic(f, 1.0, simplify=True)
    assert short.value == 1 and short.gradient == 0
    assert long.count_ops() > short.count_ops() == 0
    value, (gx, gw) = symbolic(lambda x, w: x * np.sum(w ** 2), 1.0, np.ones(2)).lambdify()(
        3.0, np.array([1.0, 2.0]))
    assert (value, gx) == (15.0, 5.0)
    np.testing.assert_array_equal(gw, [6.0, 12.0])


def test_latex():
    assert r"\frac{\partial}{\partial x}" in symbolic(lambda x: x * x, 1.0)._repr_latex_()


# ---- errors ---------------------------------------------------------------------------------

def test_errors():
    with pytest.raises(TypeError, match="symbolic: the first argument must be a function"):
        symbolic(3.0, 1.0)
    with pytest.raises(ValueError, match=r"symbolic: .*shape \(2,\)"):
        symbolic(lambda x: x * 2, np.ones(2))
    with pytest.raises(TypeError, match="symbolic: .*one number, not str"):
        symbolic(lambda x: "a", 1.0)
    with pytest.raises(TypeError, match="symbolic"):
        symbolic(lambda x: x, 1)
    with pytest.raises(TypeError, match="no arguments"):
        symbolic(lambda: 1.0)


def test_without_sympy(monkeypatch):
    found = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "sympy":
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install fastgrad\[sympy\]"):
        symbolic(lambda x: x, 1.0)


@pytest.mark.parametrize("reduce", [np.max, np.min])
def test_an_extreme_of_sums_that_are_rounded(reduce):
    """Some entry is the largest, however the formulas of the entries and of the maximum round."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        weights, x = rng.normal(size=(3, 4)), rng.normal(size=(2, 3))

        def f(x):
            return np.sum(reduce(x @ weights, axis=1) ** 2)

        found = fg.symbolic(f, x)
        at = {s: x[tuple(map(int, s.name.split("_")[1:]))] for s in found.value.free_symbols}
        slopes = [float(e.subs(at)) for e in np.ravel(np.array(found.gradient.tolist()))]
        np.testing.assert_allclose(slopes, fg.grad(f)(x).ravel(), rtol=1e-9)
