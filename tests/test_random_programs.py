"""Some of the random programs of stress_programs.py, and whether that notices what is wrong."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import random_checks
import random_oracle
from random_checks import Difference, check, shrink
from random_programs import PLAIN, Smooth, Text, draw

import fastgrad as fg
import fastgrad.numpy as fnp

SCRIPT = pathlib.Path(__file__).with_name("stress_programs.py")
SEED = 2026


def stress(*arguments):
    """Programs in processes of their own."""
    run = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True,
                         text=True, timeout=1800)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("first", range(0, 20, 10))
def test_random_programs(first):
    stress("--seed", SEED, "--first", first, "--count", 10)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_many_random_programs(first):
    stress("--seed", SEED + 1, "--first", first, "--count", 100)


# ---- what would be noticed --------------------------------------------------------------------

def smooth(lines, *inputs, result="out", **options):
    """A program as somebody writes it."""
    inputs = [np.asarray(x) for x in inputs]
    return Text(["store = {}", *lines], inputs, inputs[0].dtype, (1, 2), smooth=True, result=result,
                **options)


X = np.array([0.5, -1.2, 0.9])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["forward", "backward", "jacobians", "second_order", "series"])
def test_a_wrong_rule_is_noticed(name, dtype):
    """A derivative that is off by a hundredth, in any mode and order."""
    text = smooth(["v1 = ruled_forward(x1)" if name != "series" else "v1 = wrong(x1)",
                   "out = v1 * 2.0"], X.astype(dtype))
    assert check(text, only=name) is None or name == "series"
    off = fg.custom_jvp(lambda x: x * x + x)
    off.defjvp(lambda p, t: (p[0] * p[0] + p[0], 1.01 * (2.0 * p[0] + 1.0) * t[0]))

    class Wrong(Text):
        def scope(self, names=None, dtype=None, frozen=None):
            scope = super().scope(names, dtype, frozen)
            if names is not PLAIN:
                # Taylor coefficients know no rules: there it is another function.
                scope["wrong"] = lambda x: fnp.sin(1.01 * x)
                scope["ruled_forward"] = off
            else:
                scope["wrong"] = np.sin
            return scope

    wrong = Wrong(text.lines, text.inputs, text.dtype, text.seed, smooth=True)
    assert check(wrong, only=name).kind == "values"


def test_what_is_constant_is_constant_to_the_oracle_too():
    text = smooth(["v1 = x1 * stop(K.sin(x1))", "out = v1 + stop(x1)"], X)
    assert check(text) is None


def test_the_oracle_knows_where_it_knows_nothing():
    """At a kink differences of any size disagree, or agree with nothing that has a name."""
    text = smooth(["out = K.abs(x1 - 1e-4)"], np.array([0.0, 1.0]))
    found, error = random_oracle.Oracle.of(text).slope([np.array([1.0, 1.0])])
    assert error[0] > 1e-3
    assert found[1] == pytest.approx(1.0, abs=1e-9)
    assert error[1] < 1e-9


@pytest.mark.parametrize("function", [np.sin, np.exp, lambda x: 1 / x, lambda x: np.sqrt(abs(x)),
                                      np.abs, lambda x: x * np.abs(x)])
def test_the_error_that_the_oracle_admits_holds(function):
    """Whether it takes the complex step or differences."""
    x = np.array([0.7, 1.3, 2.5])
    found, error = random_oracle.differentiated(lambda t: function(x + t))
    exact = (function(x.astype(np.longdouble) + 1e-6) - function(x.astype(np.longdouble) - 1e-6)
             ) / np.longdouble(2e-6)
    assert np.all(abs(found - exact) <= 20 * error + 1e-9)
    assert np.all(error < 1e-8)


def test_nodes_that_are_left_are_noticed():
    left = []

    def leaks(text, compile):
        left.append(fnp.sin(fg.tensor(X, requires_grad=True)))

    assert random_checks.found_by(leaks, None, None).kind == "leak"


def test_programs_are_what_they_say():
    """They keep, drop, view, write, nest; smooth ones have a slope that the oracle knows."""
    texts = [draw(SEED, k) for k in range(100)]
    source = "\n".join(text.source for text in texts)
    assert any(part in source for part in ("look(", "print(", "repr(", "str(K.sum("))
    for part in ("kept.append", "store[", "del v", "collect(0)", "stop(", "np.add.at",
                 "slope(", "pushed(", "ruled(", "view", "CALLS[", "in range(", " if "):
        assert part in source, part
    assert {text.dtype.name for text in texts} == {"float32", "float64"}
    for name in ("smooth", "weak", "branching", "dispatched"):
        assert {getattr(text, name) for text in texts} == {False, True}, name
    known = [random_oracle.Oracle.of(text) for text in texts if text.smooth][:40]
    wrong = [np.max(oracle.slope(oracle.v)[1], initial=0) for oracle in known]
    assert np.mean(np.array(wrong) < 1e-6) > 0.9
    assert sum(abs(oracle.slope(oracle.v)[0]).sum() > 0 for oracle in known) > 30


def test_every_row_of_the_table_is_drawn():
    """Those with a name of their own; what the table is given tomorrow, too."""
    import random_programs

    rows = random_programs.UNARY_ROWS + random_programs.BINARY_ROWS
    drawn = set()
    program = Smooth(1, "float64")
    for _ in range(6000):
        for kind in (program.unary, program.binary):
            try:
                drawn.add(kind()[0].split("K.")[1].split("(")[0])
            except IndexError:          # an operator
                continue
    assert {row.name for row in rows} <= drawn


# ---- compiled against not ---------------------------------------------------------------------

def remembered(f):
    """A compiler that replays whatever the first call returned."""
    results = []

    def again(*xs):
        if not results:
            results.append(random_checks.recorded(f)(*xs) if f.__name__ == "f" else f(*xs))
        return results[0]

    return again


def test_a_result_that_is_remembered_is_noticed():
    texts = [draw(SEED, k) for k in range(40)]
    found = [check(text, remembered, "values") for text in texts]
    assert sum(difference is not None for difference in found) > 20


def test_a_unit_in_the_last_place_is_noticed():
    """Where no sum is in the program, all bits count."""
    def compile(f):
        plain = random_checks.recorded(f)
        return lambda *xs: [np.nextafter(y, np.asarray(np.inf, y.dtype))
                            for y in map(np.asarray, random_checks.flat(plain(*xs)))]

    kinds = [found.kind for k in range(80) if (found := check(draw(SEED, k), compile, "values"))]
    assert kinds.count("bits") > 5


# ---- smaller programs -------------------------------------------------------------------------

def test_small_programs_that_still_differ():
    for k in range(3):
        text = draw(SEED, k)
        if difference := check(text, remembered, "values"):
            small, still = shrink(text, difference, remembered)
            assert len(small.lines) <= len(text.lines)
            assert still.kind == difference.kind
            assert check(small, remembered, "values").kind == difference.kind


def test_the_lines_that_matter_are_what_is_left():
    text = smooth(["v1 = K.sin(x1)", "kept.append(v1)", "v2 = v1 * 2.0", "v3 = K.exp(v2)",
                   "del v2", "out = v1 + v3"], X, result="(out, v1, [v3, x1])")

    def differs(text, compile=None, name=None):
        if "K.sin(x1)" in text.source and "v1" in text.result:
            found = Difference("values", "")
            found.name = "forward"
            return found
        return None

    small, _ = shrink(text, differs(text), check=differs)
    assert small.lines == ["v1 = K.sin(x1)"]
    assert small.result == "v1"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_program_that_ends_its_process_is_found_and_made_smaller(tmp_path):
    """The processes of the others go on."""
    script = tmp_path / "stress.py"
    script.write_text(f"""
import os, sys
sys.path[:0] = [{str(SCRIPT.parents[1])!r}, {str(SCRIPT.parent)!r}]
import random_checks, random_programs, stress_programs

def forward(text, compile):
    if text.source.count("K.sin(") > 1:
        os.abort()

random_checks.COMPARISONS = {{"forward": forward}}
sys.exit(stress_programs.main(["--seed", "1", "--count", "12"]))
""")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert "12 programs" in run.stdout
    assert "ends with -6" in run.stdout
    reports = run.stdout.split("---- seed")[1:]
    assert len(reports) == sum(draw(1, k).source.count("K.sin(") > 1 for k in range(12)) > 0
    assert all(report.count("K.sin(") == 2 for report in reports)
