"""The pages in docs: their examples run, their links lead somewhere, and what they claim holds."""

import doctest
import importlib
import pathlib
import re

import numpy as np
import pytest

import fastgrad as fg

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))

# A block of Python, and what a comment right above it says that it needs: modules, or names of
# fastgrad, separated by spaces.
BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>.*?) -->\n)?^```python\n(?P<code>.*?)^```",
                   re.MULTILINE | re.DOTALL)


def missing(needs):
    """The first of the names that is not there."""
    for name in needs.split():
        owner, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ImportError:
            if not owner or not hasattr(importlib.import_module(owner), attribute):
                return name
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page):
    """Blocks of a page share their names; each page imports what it uses."""
    with np.printoptions():                     # a page may change them
        left_out = run(page)
    if left_out:
        pytest.skip(f"blocks of {page.name} that need {', '.join(left_out)} were left out; "
                    "the others ran")


def run(page):
    """Run the examples of a page; return what was missing for some."""
    scope, left_out, output = {}, [], []
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    text = page.read_text()
    for match in BLOCK.finditer(text):
        if name := missing(match["needs"] or ""):
            left_out.append(name)
            continue
        line = text[:match.start("code")].count("\n")
        if ">>>" not in match["code"]:
            exec(compile("\n" * line + match["code"], str(page), "exec"), scope)
            continue
        test = doctest.DocTestParser().get_doctest(match["code"], scope, page.name, str(page), line)
        runner.run(test, out=output.append, clear_globs=False)
        scope.update(test.globs)
    assert not output, "".join(output)
    return left_out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page):
    """Links and pictures within the repository exist."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_plots_are_small():
    for plot in DOCS.glob("*.svg"):
        assert plot.stat().st_size < 60_000, plot.name


# ---- three ways to differentiate ------------------------------------------------------------

class Counted:
    """A function that counts its calls."""

    def __init__(self, f):
        self.f, self.calls = f, 0

    def __call__(self, *args):
        self.calls += 1
        return self.f(*args)


def logistic_map(steps):
    """x <- 4 x (1 - x), again and again: a polynomial of degree 2^steps."""
    def f(x):
        for _ in range(steps):
            x = 4 * x * (1 - x)
        return x

    return f


def logistic_slope(steps, x):
    """Its derivative in closed form: with x = sin(t)^2 it doubles the angle."""
    t = np.arcsin(np.sqrt(x))
    return 2 ** steps * np.sin(2 ** (steps + 1) * t) / np.sin(2 * t)


def operations(f, x):
    """How many operations the value of f records, and thus a reverse sweep passes."""
    with fg.record() as tape:
        y = f(fg.tensor(x, requires_grad=True))
        count = len(tape)
    assert y.requires_grad
    return count


def test_three_ways_to_differentiate():
    """Numeric, symbolic and automatic: exactness, cost against n, and the size of expressions.

    What is counted is evaluations and operations, never time.
    """
    sympy = pytest.importorskip("sympy")
    for name in ("numeric", "symbolic"):
        if missing(f"fastgrad.{name}"):
            pytest.skip(f"fastgrad.{name} is not in this version")
    numeric = importlib.import_module("fastgrad.numeric")

    # Exactness. The error of differences is that of cutting off and of cancelling digits.
    x, f, exact = 0.2, logistic_map(4), logistic_slope(4, 0.2)

    def error(slope):
        return abs(float(slope) / exact - 1)

    slope = fg.symbolic(f, x).gradient
    assert error(fg.grad(f)(x)) < 1e-13
    assert error(fg.jvp(f, (x,), (1.0,))[1]) < 1e-13
    by_formula, = [slope.subs(symbol, x) for symbol in slope.free_symbols]
    assert error(by_formula) < 1e-12
    assert 1e-11 < error(numeric.gradient(f, x, method="forward")) < 1e-5
    assert error(numeric.gradient(f, x, method="central")) < 1e-8
    assert error(numeric.gradient(f, x, method="complex")) < 1e-13
    # A large step truncates, a small one cancels: between them lies the best one.
    errors = [error(numeric.gradient(f, x, method="forward", step=h)) for h in (1e-3, 1e-8, 1e-13)]
    assert errors[0] > 1e3 * errors[1]
    assert errors[2] > 1e3 * errors[1]

    # Cost against the number of inputs: calls of the function for a whole gradient.
    for n in (2, 8, 32):
        x = np.linspace(0.5, 1.5, n)
        expected = np.prod(x) / x

        def gradient(way, x=x, n=n):
            f = Counted(lambda x: np.prod(x))
            found = way(f, x, n)
            return found, f.calls

        ways = {
            "forward differences": (
                lambda f, x, n: numeric.gradient(f, x, method="forward"), n + 1),
            "central differences": (lambda f, x, n: numeric.gradient(f, x), 2 * n + 1),
            "forward mode": (
                lambda f, x, n: [fg.jvp(f, (x,), (unit,))[1] for unit in np.eye(n)], n),
            "reverse mode": (lambda f, x, n: fg.grad(f)(x), 1),
        }
        for way, calls in ways.values():
            found, counted = gradient(way)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            assert counted == calls

    # Expression swell: the derivative as a formula against the sweep over the operations.
    sizes, sweeps = [], []
    for steps in range(1, 8):
        f = logistic_map(steps)
        sizes.append(sympy.count_ops(fg.symbolic(f, 0.2).gradient))
        sweeps.append(operations(f, 0.2))
    assert sweeps == [3 * steps for steps in range(1, 8)]           # straight
    growth = np.array(sizes[1:]) / sizes[:-1]
    assert np.all(growth[2:] > 1.8)                                 # doubles, at least nearly
    assert sizes[-1] > 20 * sweeps[-1]
    # The product of n factors: n derivatives of n - 1 factors each, against 2 n partials.
    for n in (4, 8, 16):
        factors = sympy.symbols(f"x:{n}")
        formula = sympy.prod(factors)
        assert sum(sympy.count_ops(formula.diff(s)) for s in factors) == n * (n - 2)

        def product(x, n=n):
            y = x[0]
            for i in range(1, n):
                y = y * x[i]
            return y

        assert operations(product, np.ones(n)) == n + n - 1         # to take them, to multiply
