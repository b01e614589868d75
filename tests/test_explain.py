"""Explanations: their numbers are the gradient, and their text says what it should."""

import functools
import math

import numpy as np
import pytest
from laws.examples import SHAPED

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core, trees
from fastgrad.look import explain as _explain
from fastgrad.look import symbolic
from fastgrad.look.explain import explain

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
t = np.array([1.0, 0.0, 2.0])
x = np.array([1.0, 2.0])
w = np.array([0.5, -1.0])


def assigned(x):
    out = fnp.zeros(3)
    out[1] = x * x
    out[:1] = x * 2
    return (out * out).sum() + out.sum()


def loop(x):
    for _ in range(30):
        x = np.sin(x) * x + 0.1
    return x


EXAMPLES = {
    "y = x + x^2": (lambda x: x + x ** 2, (3.0,)),
    "ln(sin(x))": (lambda x: np.log(np.sin(x)), (1.0,)),
    "(<x, w> - y)^2": (lambda w, y: (x @ w - y) ** 2, (w, 1.0)),
    "||Xw - t||^2": (lambda w: np.sum((X @ w - t) ** 2), (w,)),
    "sigmoid": (lambda w, b: (fg.special.expit(w * 2.0 + b) - 1.0) ** 2, (0.5, 0.25)),
    "relu": (lambda w, b: np.maximum(0, w @ x + b), (w, 2.0)),
    "tree": (lambda p: np.sum((p["W"] @ X.T + p["b"]) ** 2),
             ({"W": np.ones((2, 2)), "b": np.ones((2, 1))},)),
    "reductions": (lambda A, w: np.max(w) * A[0, 1] + np.prod(w) + np.min(A, axis=0)[1]
                   + fg.special.logsumexp(A[:, 0]) + np.sum(np.prod(A, axis=1)), (X, w)),
    "matrices": (lambda A: np.sum(A @ A.T @ A) + (t @ A) @ w, (X,)),
    "batches": (lambda A: np.sum((A[None] @ np.stack([X.T, 2 * X.T])) ** 2), (X,)),
    "shapes": (lambda A: np.sum(np.concatenate([A.T.reshape(-1), A[::-1].mean(axis=1)])
                                * np.flip(np.arange(9.0))) + fnp.diag(A[0]).sum(), (X,)),
    "indices": (lambda A: np.sum(A[[0, 1, 0]] ** 3) + np.sum(A[A > 2]) + A[:, 1] @ t, (X,)),
    "broadcasting": (lambda A, s: np.sum(A[:, :1] * A[:1] * s + s), (X, 2.0)),
    "assignment": (assigned, (3.0,)),
    "loop": (loop, (0.9,)),
    "large": (lambda w: np.mean(np.tanh(w)), (np.linspace(0, 1, 300),)),
    "identity": (lambda x: x, (3.0,)),
    "one unused": (lambda x, w: w * 1.5, (3.0, 2.0)),
    "float32": (lambda x: np.sum(x * x), (np.ones(2, np.float32),)),
}


def summed(f):
    return lambda x: fnp.sum(fnp.sin(f(x)))


EXAMPLES |= {f"sum of {name}": (summed(f), (x,)) for name, (f, x) in SHAPED.items()}


def flat(tree):
    return [entry for leaf in trees.flatten(tree)[0] for entry in np.ravel(leaf)]


def gradient(f, args):
    return [g for k in range(len(args)) for g in flat(fg.vjp(f, *args)[1](1.0)[k])]


@pytest.mark.parametrize("name", EXAMPLES)
def test_forward_and_reverse_are_the_gradient(name):
    f, args = EXAMPLES[name]
    explanation = explain(f, *args)
    wanted = gradient(f, args)
    np.testing.assert_allclose(flat(explanation.reverse), wanted, rtol=1e-6)
    np.testing.assert_allclose(flat(explanation.forward), wanted, rtol=1e-6)
    assert explanation.value == pytest.approx(float(f(*args)), rel=2e-6)


@pytest.mark.parametrize("name", EXAMPLES)
def test_text_latex_and_html_are_whole(name):
    f, args = EXAMPLES[name]
    explanation = explain(f, *args)
    for line in str(explanation).splitlines():
        assert line == line.rstrip() and line.count("(") == line.count(")")
    for block in explanation.latex().split("\n\n"):
        assert block.startswith("\\begin{aligned}") and block.endswith("\\end{aligned}")
        assert block.count("{") == block.count("}")
        assert block.count("\\left") == block.count("\\right")
    assert "$\\displaystyle" in explanation._repr_latex_()
    markup = explanation._repr_html_()
    for tag in ("table", "tr", "td", "h4", "p", "code", "div"):
        assert markup.count(f"<{tag}>") + markup.count(f"<{tag} ") == markup.count(f"</{tag}>")


ROWS = [row for row in symbolic.ROWS.values()
        if row.kind in ("unary", "binary", "ternary") and not row.steps]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_can_be_explained(row, rng):
    args = [float(v) for v in rng.uniform(row.low, row.high, row.arity)]
    f = core.functions[row.name]
    if row.mask:
        args.pop()

        def f(a, b):
            return core.functions[row.name](a, b, np.array(True))

    explanation = explain(f, *args)
    wanted = gradient(f, args)
    np.testing.assert_allclose(flat(explanation.reverse), wanted, rtol=1e-9)
    assert "fg_" not in str(explanation) and "K(" not in str(explanation)


# ---- the formulas shown ---------------------------------------------------------------------

def evaluated(term, known):
    """A term as a number or a matrix; KeyError where it has letters of its own."""
    op, args = term
    if op == "number":
        return args[0]
    if op == "symbol":
        return np.pi if args[0] == "pi" else np.asarray(known[args[0]], float)
    if op == "index":
        raise KeyError("index")
    values = [evaluated(a, known) for a in args if isinstance(a, _explain.Term)]
    if op == "call":
        name = {"max": "maximum", "min": "minimum"}.get(args[0], args[0])
        own = {"vec": np.ravel, "softmax": fg.special.softmax, "kron": np.kron}
        return own.get(name, core.functions.get(name))(*values)
    if op == "compare":
        return {">": values[0] > values[1], "==": values[0] == values[1]}[args[0]]
    if op == "bracket":
        return np.float64(values[0])
    if op == "diag":
        return np.diag(values[0])
    if op == "transpose":
        return np.reshape(values[0], (1, -1)) if np.ndim(values[0]) < 2 else values[0].T
    if op == "power":
        return values[0] ** values[1]
    if op == "sum":
        return sum(values)
    if op == "product":
        return math.prod(values)
    assert op == "chain"
    return functools.reduce(lambda a, b: a @ b if np.ndim(a) and np.ndim(b) else a * b, values)


@pytest.mark.parametrize("name", EXAMPLES)
def test_local_derivatives_are_what_their_formulas_say(name):
    f, args = EXAMPLES[name]
    reader = _explain._Reader(symbolic.Recording("explain", f, args, {}), f, {})
    values = dict(zip(reader.names, reader.values))
    checked = 0
    for link in reader.links:
        of, by = reader.values[link.of], reader.values[link.by]
        jacobian = np.zeros((of.size, by.size))
        if not jacobian.size:
            checked += 1
            continue
        np.add.at(jacobian, (link.rows, link.columns), link.slopes)
        shown = _explain.text(link.term)
        identity = by.size if "kron" not in shown else by.shape[0 if "kron(I" in shown else -1]
        known = {"I": np.eye(identity), "1": np.ones(max(of.size, by.size))} | values
        try:
            matrix = evaluated(link.term, known)
        except KeyError:
            continue
        # 0 is the matrix of any shape.
        matrix = np.reshape(matrix, jacobian.shape) if np.any(matrix) else np.zeros(jacobian.shape)
        np.testing.assert_allclose(matrix, jacobian, rtol=1e-6, err_msg=shown)
        checked += 1
    assert checked or not reader.links


@pytest.mark.parametrize("name", ["y = x + x^2", "ln(sin(x))", "(<x, w> - y)^2", "||Xw - t||^2",
                                  "sigmoid", "relu", "large"])
def test_the_formula_of_the_derivative_is_the_gradient(name):
    f, args = EXAMPLES[name]
    reader = _explain._Reader(symbolic.Recording("explain", f, args, {}), f, {})
    known = dict(zip(reader.names, reader.values))
    for leaf in reader.leaves:
        known["1"] = np.ones(reader.values[leaf].size)
        shown = evaluated(reader.derivative(leaf), known)
        np.testing.assert_allclose(np.ravel(shown), reader.adjoints[leaf], rtol=1e-9)


def test_an_operand_that_is_repeated():
    row = np.arange(3.0)
    written = str(explain(lambda x: np.sum(x**2 * row), np.arange(6.0).reshape(2, 3)))
    assert "∂u2/∂u1 = D0_u2   (6,6); D0_u2: a diagonal matrix of row, repeated to (2, 3)" in written


# ---- the text -------------------------------------------------------------------------------

def test_a_sum_of_paths():
    written = str(explain(lambda x: x + x ** 2, 3.0))
    assert "single-variable total-derivative chain rule" in written
    assert "x reaches y in 2 ways" in written
    assert "dy/dx  = ∂y/∂x · dx/dx + ∂y/∂u1 · du1/dx = 1 · 1 + 1 · 6 = 7" in written
    assert "x -> u1 -> y = ∂y/∂u1 · ∂u1/∂x = 1 · (2*x) = 1 · 6 = 6" in written
    assert written.splitlines()[-1].split() == "dy/dx = 1 + 2*x = 7".split()


def test_a_chain():
    written = str(explain(lambda x: np.log(np.sin(x)), 1.0))
    assert "The derivative by x: single-variable chain rule" in written
    assert "collapses to one product" in written
    assert written.splitlines()[-1].split() == "dy/dx = cos(x)/sin(x) = 0.642093".split()


def test_vectors():
    written = str(explain(lambda w: np.sum((X @ w - t) ** 2), w))
    assert "vector chain rule" in written
    assert "1' · diag(2*u2) · I · X   (1,2) = (1,3)(3,3)(3,3)(3,2)" in written
    assert "dy/dw = 2 (X w - t)' X " in written


def test_a_row_times_a_diagonal_and_a_transposed_matrix_are_told_apart():
    A = np.array([[1.0, 2.0], [3.0, 4.0]])
    written = str(explain(lambda w: np.sum(np.sin(A.T @ (w * w)) * w), w))
    assert "diag" in written.splitlines()[-1]


def test_a_kink():
    written = str(explain(lambda w, b: np.maximum(0, w @ x + b), w, 2.0))
    assert "∂y/∂u2  = [u2 > 0] = 1" in written
    assert "dy/dw = [w' x + b > 0] x'" in written


def test_the_product_rule():
    written = str(explain(lambda x: np.exp(x) * np.sin(x), 1.0))
    assert "Product rule at y = u1*u2: dy = u2*du1 + u1*du2" in written


def test_the_same_operand_twice():
    written = str(explain(lambda x: np.multiply(x, x), 3.0))
    assert "∂y/∂x = 2*x = 6" in written


def test_what_does_not_depend():
    assert "y does not depend on x" in str(explain(lambda x, w: w * 1.5, 3.0, 2.0))
    nothing = explain(lambda x: 2.0, np.ones(3))
    assert "y does not depend on x; its derivatives are 0" in str(nothing)
    np.testing.assert_array_equal(nothing.forward, np.zeros(3))


def test_large_things_are_abbreviated(monkeypatch):
    written = str(explain(lambda w: np.mean(np.tanh(w)), np.linspace(0, 1, 300)))
    assert max(map(len, written.splitlines())) < 160
    assert "[0, 0.00334448, 0.00668896, ..., 1] 300" in written
    assert "more ..." in str(explain(loop, 0.9))
    monkeypatch.setattr(_explain, "DENSE", 10)
    left_out = explain(lambda w: np.sum(w * w), np.ones(4))
    assert left_out.forward is None and "Left out" in str(left_out)
    np.testing.assert_array_equal(left_out.reverse, 2 * np.ones(4))


def test_names():
    written = str(explain(lambda y, u1: y["a"] * u1, {"a": 2.0}, 3.0))
    assert written.startswith("z = f(y['a'], u1)") and "dz/du1" in written
    assert "dy/dx1" in str(explain(lambda *x: x[0] * x[1], 1.0, 2.0))
    assert "A = [" in str(explain(lambda v, A: (A @ v) @ v, w, A=np.eye(2)))
    assert "x0" in str(explain(max, 1.0, 2.0))


def test_html_is_escaped():
    markup = explain(lambda p: np.maximum(p["<b>"], 0) ** 2, {"<b>": 1.0})._repr_html_()
    assert "&lt;b&gt;" in markup and "<b>" not in markup


def test_latex_of_fractions_and_functions():
    written = explain(lambda x: np.log(np.sin(x)), 1.0).latex()
    assert r"\frac{\cos\left(x\right)}{\sin\left(x\right)}" in written
    assert r"\frac{\partial u_{1}}{\partial x}" in written


def test_errors():
    with pytest.raises(ValueError, match=r"explain: the function returned an array of shape \(2,"):
        explain(lambda x: x * 2, np.ones(2))
    with pytest.raises(TypeError, match="explain: the function must return one number, not tuple"):
        explain(lambda x: (x, x), 1.0)
    with pytest.raises(TypeError, match="explain: the first argument must be a function"):
        explain(3.0)
    with pytest.raises(TypeError, match="explain"):
        explain(lambda x: x, 3)
    with pytest.raises(TypeError, match="explain: .*not Tensors"):
        fg.grad(lambda x: explain(lambda x: x, x).value)(3.0)


def test_an_array_named_like_the_identity():
    I = np.array([[1.0, 2.0], [3.0, 4.0]])  # noqa: E741
    assert "∂u1/∂w  = I   (2,2)" in str(explain(lambda w: np.sum((I @ w) ** 2), w))
    assert "(I w)' I " in str(explain(lambda w: np.sum((I @ w) ** 2), w))
