"""The element kernels alone: accuracy against mpmath, agreement of the instruction sets, tails and
alignment; and the operator table itself: well formed, and the only list of operators.
"""

import ast
import collections
import functools
import keyword
import re
import shutil
import subprocess
from pathlib import Path

import mpmath
import numpy as np
import pytest

import laws
from fastgrad._core import core
from laws import COMPARISONS, DTYPES, ROWS, TABLE

POINTS = 240
ULP = 4

every_row = pytest.mark.parametrize("row", ROWS, ids=laws.name_of)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture
def restore_isa():
    before = core.isa()
    yield
    core.use_isa(before)


# ---- accuracy -------------------------------------------------------------------------------

@functools.cache
def exact_values(row):
    """Wide-ranging operands, and the exact values there."""
    args = laws.wide_operands(row, POINTS)
    with mpmath.workprec(300):
        return args, [laws.exact_value(row, point) for point in zip(*args, strict=True)]


def error_in_ulp(value, exact):
    """How far from the exact value, in units of the last place of a float64 there."""
    with mpmath.workprec(300):
        unit = np.spacing(abs(float(exact)))
        if not np.isfinite(unit):               # the exact value overflows
            return 0.0 if np.isinf(value) or value == np.copysign(np.finfo(float).max, exact) \
                else np.inf
        if np.isinf(value):                     # the next number after the largest
            value = mpmath.sign(float(value)) * mpmath.mpf(2) ** 1024
        return float(abs(mpmath.mpf(value) - exact) / mpmath.mpf(unit))


def check_accuracy(row, values, args, exact):
    errors = [error_in_ulp(float(v), e) for v, e in zip(values, exact, strict=True)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= ULP, (
        f"{errors[worst]:.1f} ulp at {[float(x[worst]) for x in args]}: {values[worst]!r} instead "
        f"of {float(exact[worst])!r}; {sum(e > ULP for e in errors)} of {len(errors)} points")


@pytest.mark.sampled(2)
@every_row
@laws.on_every_isa
def test_accuracy(row, isa):
    args, exact = exact_values(row)
    assert len(exact) > POINTS / 4
    check_accuracy(row, core.kernel_value(row.name, *args), args, exact)


@every_row
def test_accuracy_of_scalars(row):
    args, exact = exact_values(row)
    values = np.array([core.scalar_value(row.name, "float64", *map(float, point))
                       for point in zip(*args, strict=True)])
    check_accuracy(row, values, args, exact)


@every_row
@laws.on_every_isa
def test_accuracy_in_float32(row, isa):
    """Against the float64 kernel, rounded; and where that overflows or is subnormal, too."""
    args = [x.astype(np.float32) for x in wide_float32(row)]
    args = [x[laws.within_float32(row, args)] for x in args]
    exact = core.kernel_value(row.name, *[x.astype(np.float64) for x in args])
    value = core.kernel_value(row.name, *args)
    with np.errstate(all="ignore"):
        distance = laws.ulp_distance(value, exact.astype(np.float32))
    worst = int(distance.argmax())
    assert distance[worst] <= ULP, ([x[worst] for x in args], value[worst],
                                               exact[worst])


def wide_float32(row):
    """Operands of every order of magnitude that float32 has."""
    rng = laws.generator(row.name, "wide float32")
    made = []
    for k in range(row.arity):
        near = rng.uniform(row.low, row.high, 600)
        far = 10.0 ** rng.uniform(-44, 38, 600) * rng.choice([-1, 1], 600)
        middle = 10.0 ** rng.uniform(-4, 2.5, 600) * rng.choice([-1, 1], 600)
        made.append(np.choose(np.arange(600) % 3, [near, middle, far]))
        if k not in laws.wanted(row):
            made[k] = (made[k] > 0).astype(float)
    return made


@every_row
@laws.on_every_isa
def test_partials_against_exact_derivatives(row, isa):
    """Inside the domain, against differences of the value's formula with 50 digits."""
    args = laws.kernel_operands(row, laws.operands(row, "float64", (24,)))
    y = core.kernel_value(row.name, *args)
    given = [x for x in args if x is not None]
    for k in laws.wanted(row):
        found = core.kernel_partial(row.name, k, np.ones_like(y), *args, y)
        found = np.zeros_like(y) if found is None else found
        for i, point in enumerate(zip(*given, strict=True)):
            if row.smooth:
                with mpmath.workdps(50):
                    step = mpmath.mpf(10) ** -16
                    up, down = ([mpmath.mpf(float(x)) + (sign * step if j == k else 0)
                                 for j, x in enumerate(point)] for sign in (1, -1))
                    exact = float((laws.formula(row.value, *up, names=laws.MP_NAMES)
                                   - laws.formula(row.value, *down, names=laws.MP_NAMES))
                                  / (2 * step))
                assert found[i] == pytest.approx(exact, rel=1e-13, abs=1e-300), point


# ---- instruction sets -----------------------------------------------------------------------

# Sums that cancel: near its zero logaddexp is the small difference of an operand and a logarithm,
# whose own rounding, at the size of that operand, is all that double precision leaves (NumPy's
# result differs as much). There the bound is in units of the larger operand.
CANCELS = {"logaddexp"}


@every_row
@every_dtype
def test_instruction_sets_agree(row, dtype, restore_isa):
    if dtype == "float64":
        args = laws.kernel_operands(row, laws.wide_operands(row, 999))
    else:
        args = laws.kernel_operands(row, [x.astype(dtype) for x in wide_float32(row)])
    specials = laws.kernel_operands(row, laws.special_operands(row, dtype))
    for operands in (args, specials):
        core.use_isa("base")
        value = core.kernel_value(row.name, *operands)
        g = np.ones_like(value)
        partials = [core.kernel_partial(row.name, k, g, *operands, value) for k in range(row.arity)]
        for name in core.available_isas()[1:]:
            core.use_isa(name)
            other = core.kernel_value(row.name, *operands)
            distance = laws.ulp_distance(value, other)
            if row.name in CANCELS:
                scale = np.spacing(np.max(np.abs([value, *operands[:row.arity]]), axis=0))
                with np.errstate(invalid="ignore"):
                    distance = np.where(np.isfinite(scale), abs(value - other) / scale, distance)
            worst = int(distance.argmax())
            assert distance[worst] <= ULP, (name, [x[worst] for x in operands if x is not None],
                                            value[worst], other[worst])
            for k, partial in enumerate(partials):
                if partial is None:
                    continue
                again = core.kernel_partial(row.name, k, g, *operands, value)
                distance = laws.partial_distance(row, k, operands[:row.arity], partial, again)
                worst = int(distance.argmax())
                assert distance[worst] <= ULP, (
                    name, k, [x[worst] for x in operands if x is not None], partial[worst],
                    again[worst])


# What calls functions that the library has in another form for each width of a vector.
BY_WIDTH = {"arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "cbrt", "cosh",
            "erf", "exp2", "expm1", "hypot", "hypot_da", "log", "log10", "log1p", "log2", "logaddexp",
            "power", "power_da", "power_db", "sinh", "softplus", "tan", "xlogy", "xlogy_da"}


@pytest.mark.skipif("avx512" not in core.available_isas(), reason="no AVX-512 here")
@every_dtype
def test_wider_vectors_give_the_same_bits(dtype, restore_isa):
    """The kernels for AVX2 and AVX-512 are the same formulas with the same fused multiplications."""
    for row in ROWS:
        if row.name in BY_WIDTH:
            continue
        args = laws.kernel_operands(row, laws.special_operands(row, dtype))
        found = {}
        for name in ("avx2", "avx512"):
            core.use_isa(name)
            y = core.kernel_value(row.name, *args)
            found[name] = [y, *(core.kernel_partial(row.name, k, np.ones_like(y), *args, y)
                                for k in range(row.arity))]
        for narrow, wide in zip(*found.values(), strict=True):
            assert narrow is None or laws.same_bits(narrow, wide), row.name


def test_instruction_sets():
    available = core.available_isas()
    assert available[0] == "base" and core.isa() in available
    with pytest.raises(ValueError, match="base"):
        core.use_isa("abacus")
    assert core.isa() in available


# ---- tails, alignment -----------------------------------------------------------------------

@every_row
@every_dtype
@laws.on_every_isa
def test_tails_and_alignment(row, dtype, isa):
    """n = 0 to 40 at every offset: the bits that the element has in the middle of a long array."""
    args = laws.kernel_operands(row, laws.operands(row, dtype, (64,)))
    value = core.kernel_value(row.name, *args)
    g = laws.generator("g").standard_normal(64).astype(dtype)
    partials = [core.kernel_partial(row.name, k, g, *args, value) for k in range(row.arity)]
    for n in range(41):
        start = (n * 7) % 23
        part = slice(start, start + n)
        cut = [None if x is None else x[part] for x in args]
        assert laws.same_bits(core.kernel_value(row.name, *cut), value[part]), n
        for k, partial in enumerate(partials):
            found = core.kernel_partial(row.name, k, g[part], *cut, value[part])
            assert (found is None if partial is None else laws.same_bits(found, partial[part])), n


@every_row
@every_dtype
@laws.on_every_isa
def test_neighbours_do_not_matter(row, dtype, isa):
    """Special values beside an element change none of its bits (they may take another path)."""
    args = laws.kernel_operands(row, laws.operands(row, dtype, (64,)))
    value = core.kernel_value(row.name, *args)
    specials = laws.kernel_operands(row, laws.special_operands(row, dtype))
    mixed = [None if x is None else x.copy() for x in args]
    for x, special in zip(mixed, specials, strict=True):
        if x is not None:
            x[1::2] = np.resize(special[::7], 32)
    found = core.kernel_value(row.name, *mixed)
    assert laws.same_bits(found[::2], value[::2])
    for k in range(row.arity):
        partial = core.kernel_partial(row.name, k, np.ones_like(value), *args, value)
        if partial is not None:
            other = core.kernel_partial(row.name, k, np.ones_like(value), *mixed, found)
            assert laws.same_bits(other[::2], partial[::2])


@every_row
@laws.on_every_isa
def test_kernels_write_only_their_elements(row, isa):
    """An operand is never changed, nor what lies after the result."""
    args = laws.kernel_operands(row, laws.operands(row, "float64", (37,)))
    before = [None if x is None else x.copy() for x in args]
    core.kernel_value(row.name, *args)
    for x, copy in zip(args, before, strict=True):
        assert x is None or laws.same_bits(x, copy)


@pytest.mark.parametrize("row", COMPARISONS, ids=laws.name_of)
@every_dtype
@laws.on_every_isa
def test_comparisons(row, dtype, isa):
    a, b = laws.special_operands(row, dtype)
    expected = laws.ufuncs(row)[0](a, b)
    for n in range(41):
        found = core.kernel_value(row.name, a[n:2 * n], b[n:2 * n])
        assert found.dtype == bool and np.array_equal(found, expected[n:2 * n])
    assert np.array_equal(core.kernel_value(row.name, a, b), expected)


# ---- the table ------------------------------------------------------------------------------

def test_names_are_unique():
    names = [row.name for row in TABLE]
    assert len(set(names)) == len(names)
    for column in ("python", "numpy"):
        found = [name for row in TABLE
                 for name in ([row.python] if column == "python" else row.numpy) if name]
        assert len(set(found)) == len(found), column
    assert set(core.functions) == {row.name for row in ROWS + COMPARISONS} | laws.BESIDE


@pytest.mark.parametrize("row", ROWS + COMPARISONS, ids=laws.name_of)
def test_rows_are_well_formed(row):
    assert row.name.isidentifier() and not keyword.iskeyword(row.name)
    assert re.fullmatch(r"\S.*\.", row.doc)
    assert row.arity == {"unary": 1, "binary": 2, "ternary": 3, "compare": 2}[row.kind]
    assert len(row.reads) == row.arity
    if row.kind != "compare":
        assert row.low < row.high and len(row.partials) == row.arity
    for name in row.numpy:
        assert hasattr(np, name) or np.lib.NumpyVersion(np.__version__) < "2.1.0", name
    assert core.functions[row.name].__doc__.startswith(row.doc)
    assert core.functions[row.name].__text_signature__


PLAIN = (ast.Call, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub, ast.BinOp, ast.Add,
         ast.Sub, ast.Mult, ast.Div)


@every_row
def test_formulas_are_plain(row):
    """Formulas are names, calls and + - * /, and every literal goes through K(): a bare 0.5 makes
    a float32 loop compute in double, and 1/3 is 0 in C."""
    for text in (row.value, *row.partials):
        tree = ast.parse(text, mode="eval").body
        bare = {id(node.args[0]) for node in ast.walk(tree) if isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name) and node.func.id == "K"}
        bare |= {id(node.operand) for node in ast.walk(tree)
                 if id(node) in bare and isinstance(node, ast.UnaryOp)}
        for node in ast.walk(tree):
            assert isinstance(node, PLAIN), text
            if isinstance(node, ast.Constant):
                assert id(node) in bare, f"{node.value} without K() in {text!r}"
            if isinstance(node, ast.Name):
                assert re.fullmatch(r"a|b|c|y|tie|K|fg_\w+", node.id), text


@every_row
def test_reads_declare_what_formulas_use(row):
    """No more and no less: what is declared is kept alive."""
    for reads, text in zip(row.reads, row.partials, strict=True):
        assert set(reads.lower()) == laws.variables(text) - {"tie"}, text
    assert "y" not in laws.variables(row.value)
    assert len(laws.variables(row.value)) == row.arity


def test_the_table_is_the_only_list_of_operators():
    """An operator with a helper is named in the table and in fmath.h. Elsewhere a few names occur
    (rules that use exp, docstrings); no file has a quarter of them, but for SciPy's vocabulary,
    SymPy's, and the formulas that people write for what the table has in words."""
    top = Path(__file__).parents[2]
    if not (top / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs the repository")
    names = [row.name for row in ROWS if f"fg_{row.name}" in row.value]
    found = collections.Counter()
    for name in names:
        found.update(subprocess.run(
            ["git", "grep", "--untracked", "-lw", name, "--", "src", "fastgrad"], cwd=top,
            capture_output=True, text=True).stdout.split())
    assert found["src/ops.def"] == len(names)
    lists = {file for file, count in found.items() if count > len(names) / 4}
    assert lists <= {"src/ops.def", "src/fmath.h", "fastgrad/special.py",
                     "fastgrad/look/symbolic.py", "fastgrad/look/explain.py"}
