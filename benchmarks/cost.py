"""What a derivative costs, for docs/cost.md: its tables and plots; those of three-ways.md and
infinite.md too.

    python benchmarks/cost.py [--quick] [--row NAME] [--docs FOLDER] [--clock cpu]

    sweeps      the forward and the reverse sweep against the number of operations
    inputs      forward mode and reverse mode against the number of inputs
    storage     the memory of both modes against the number of operations
    pruning     one branch of a hundred feeds the wanted leaf
    three-ways  nothing timed: the error of differences, the size of formulas (needs SymPy)
    infinite    nothing timed: derivatives where a value is infinite

Every row runs in a process of its own, and `storage` in one for each point. Results are compared
with closed forms before anything is timed; the calls of a row take turns (see derivatives.py).
Tables are printed, and put into cost.md between the comments that name them; with matplotlib the
plots are drawn beside it.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
from derivatives import CLOCK, CLOCKS, STEPS, branches, check, in_turn, once
from memory import MEGABYTE, TIMEOUT, peak, reset_peak, resident, slope
from report import ENVIRONMENT, machine, table

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"


def loop(steps, sin):
    """Return y = sin(y)*x + y from y = x, so many times: three operations a step."""
    def f(x):
        y = x
        for _ in range(steps):
            y = sin(y) * x + y
        return y

    return f


def loop_by_hand(steps, x):
    """Return value and slope of `loop`."""
    y, slope = x, 1.0
    for _ in range(steps):
        y, slope = math.sin(y) * x + y, math.cos(y) * slope * x + math.sin(y) + slope
    return y, slope


# ---- rows: each returns {"rows": numbers, ...} ----------------------------------------------


def sweeps(quick=False):
    """Time of each sweep against the number of operations."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    rows = []
    for steps in (33, 333, 3333) if quick else (33, 333, 3333, 33333):
        f, plain, x = loop(steps, fnp.sin), loop(steps, math.sin), 1.0 / steps
        value, wanted = loop_by_hand(steps, x)
        check("loop", fg.value_and_grad(f)(x), (value, wanted))
        leaf = fg.tensor(x, requires_grad=True)
        y = f(leaf)
        both = fg.value_and_grad(f)
        push = fg.linearize(f, x)[1]
        check("push", push(1.0), wanted)
        seconds = in_turn(
            quick,
            floats=lambda plain=plain, x=x: plain(x),
            record=lambda f=f, leaf=leaf: f(leaf),
            reverse=lambda y=y, leaf=leaf: fg.gradients(y, leaf, retain_graph=True),
            push=lambda push=push: push(1.0),
            jvp=lambda f=f, x=x: fg.jvp(f, (x,), (1.0,)),
            gradient=lambda both=both, x=x: both(x),
        )
        rows.append([3 * steps, *(t / (3 * steps) * 1e9 for t in seconds.values())])
        names = list(seconds)
    return {"names": names, "rows": rows}


def sweeps_table(result):
    """Nanoseconds an operation."""
    head = ["operations", "Python floats", "recorded value", "reverse sweep alone",
            "forward sweep alone", "value and slope, `jvp`", "value and slope, `value_and_grad`"]
    return table(head, [[f"{n:,}", *(f"{t:.0f}" for t in times)]
                        for n, *times in result["rows"]])


def sweeps_plot(result, axes):
    n = [row[0] for row in result["rows"]]
    for k, (name, style) in enumerate(zip(
            ["Python floats", "recorded value", "reverse sweep alone", "forward sweep alone",
             "jvp", "value_and_grad"], ["k:", "C7o-", "C1s--", "C0s--", "C0o-", "C1o-"])):
        axes.loglog(n, [row[k + 1] * row[0] / 1e3 for row in result["rows"]], style, label=name)
    axes.set(xlabel="operations", ylabel="microseconds")


OPERATIONS = 3 * STEPS


def several(sin):
    """Return a function of n numbers that always does the same number of operations."""
    def f(*p):
        n, y = len(p), 0.01
        for i in range(STEPS):
            y = sin(y) * p[i % n] + y
        return y

    return f


def inputs(quick=False):
    """Time of a gradient by forward mode, one direction a run, and by reverse mode."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    f, plain = several(fnp.sin), several(math.sin)
    rows = []
    for n in (1, 2, 4, 8, 16, 32, 64):
        p = tuple(np.linspace(0.005, 0.015, n).tolist())
        reverse = fg.grad(f, argnums=tuple(range(n)))
        lanes = fg.jacobian(f, argnums=tuple(range(n)), mode="forward")

        def forward(p=p):
            return [fg.jvp(f, p, (1.0,), argnums=i)[1] for i in range(len(p))]

        check("forward mode", forward(), reverse(*p))
        check("forward mode, all at once", lanes(*p), reverse(*p))
        h = 1e-6
        i = n // 2
        up, down = [(*p[:i], p[i] + d, *p[i + 1:]) for d in (h, -h)]
        check("reverse mode", reverse(*p)[i], (plain(*up) - plain(*down)) / (2 * h), 1e-6)
        seconds = in_turn(quick, forward=forward, lanes=lambda lanes=lanes, p=p: lanes(*p),
                          reverse=lambda reverse=reverse, p=p: reverse(*p))
        rows.append([n, *(t * 1e6 for t in seconds.values())])
    return {"rows": rows}


def inputs_table(result):
    """Microseconds."""
    head = ["inputs n", "forward, n runs of `jvp`", 'forward, `jacobian(mode="forward")`',
            "reverse, `grad`"]
    return table(head, [[str(n), *(f"{t:,.0f}" for t in times)] for n, *times in result["rows"]])


def inputs_plot(result, axes):
    n, *columns = zip(*result["rows"])
    for times, label, style in zip(columns, (
            "forward, n runs of jvp", "forward, all directions in one run", "reverse"),
            ("C0o-", "C0s--", "C1o-")):
        axes.plot(n, [t / 1e3 for t in times], style, label=label)
    axes.set(xlabel="inputs", ylabel="milliseconds", ylim=(0, None))


def growth(mode, count):
    """Return the growth of the peak of resident memory by a derivative; for a new process."""
    import fastgrad as fg

    steps, x = count // 2, 1.0 / count

    def f(x, steps=steps):
        y = x
        for _ in range(steps):
            y = y * x + y
        return y

    def value_and_slope(**options):
        if mode == "forward":
            return fg.jvp(f, (x,), (1.0,), **options)
        return fg.value_and_grad(f)(x, **options)

    value_and_slope(steps=10)       # the first use of everything
    reset_peak()
    before = resident()
    seconds, found = once(value_and_slope)
    grown = peak() - before
    power = math.exp(steps * math.log1p(x))         # y = x (1 + x)^steps
    check(f"{mode} mode", found, (x * power, power + steps * x * power / (1 + x)), 1e-8)
    return grown, seconds


def storage(quick=False):
    """Memory of forward and reverse mode against the number of operations."""
    counts = [10**k for k in range(3, 7 if quick else 8)]
    rows = []
    for count in counts:
        row = [count]
        for mode in ("forward", "reverse"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                row += pool.apply(growth, (mode, count))
        rows.append(row)
    large = [row for row in rows if row[0] >= 10**5]
    per_operation = slope([row[0] for row in large], [row[3] for row in large])
    return {"rows": rows, "bytes per operation": per_operation}


def storage_table(result):
    """Megabytes and nanoseconds an operation."""
    head = ["operations", "forward, MB", "reverse, MB", "forward, ns an operation",
            "reverse, ns an operation"]
    rows = [[f"{n:,}", f"{f / MEGABYTE:.2f}", f"{r / MEGABYTE:,.2f}", f"{tf / n * 1e9:.0f}",
             f"{tr / n * 1e9:.0f}"] for n, f, tf, r, tr in result["rows"]]
    slope = result["bytes per operation"]
    return table(head, rows) + f"\n\nReverse mode: {slope:.1f} bytes an operation (the slope)."


def storage_plot(result, axes):
    n, forward, _, reverse, _ = zip(*result["rows"])
    axes.loglog(n, [max(r, 4096) / MEGABYTE for r in reverse], "C1o-", label="reverse")
    axes.loglog(n, [max(f, 4096) / MEGABYTE for f in forward], "C0o-", label="forward, jvp")
    axes.loglog(n, [72 * k / MEGABYTE for k in n], "k:", label="72 bytes an operation")
    axes.set(xlabel="operations", ylabel="growth of memory, MB (a page where it is 0)")


def pruning(quick=False):
    """A sweep to one leaf of a hundred, against all of them and against its branch alone."""
    import fastgrad as fg

    rows = []
    for length, size in ((1000, 0), (10, 1000), (10, 100_000)):
        leaves, total = branches(length=length, size=size)
        alone_leaves, alone = branches(50, length, size)
        a = fg.gradients(total, leaves[50], retain_graph=True)
        b = fg.gradients(alone, alone_leaves[50], retain_graph=True)
        check("pruned sweep", a.numpy(), b.numpy(), 1e-15)
        seconds = in_turn(
            quick,
            all_leaves=lambda y=total, w=leaves: fg.gradients(y, w, retain_graph=True),
            one_leaf=lambda y=total, w=leaves[50]: fg.gradients(y, w, retain_graph=True),
            branch=lambda y=alone, w=alone_leaves[50]: fg.gradients(y, w, retain_graph=True),
        )
        name = f"{length} operations on " + (f"arrays of {size:,}" if size else "floats")
        rows.append([name, *(t * 1e6 for t in seconds.values())])
    return {"rows": rows}


def pruning_table(result):
    """Microseconds."""
    head = ["each of 100 branches", "all 100 leaves", "one leaf", "its branch alone",
            "one leaf / branch alone", "all / one"]
    return table(head, [[name, *(f"{t:,.0f}" for t in (every, one, branch)),
                         f"{one / branch:.3g}", f"{every / one:.3g}"]
                        for name, every, one, branch in result["rows"]])


def pruning_plot(result, axes):
    names, *columns = zip(*result["rows"])
    labels = "all leaves", "one leaf", "its branch alone"
    for k, (times, label) in enumerate(zip(columns, labels)):
        axes.bar([i + 0.27 * (k - 1) for i in range(len(names))], times, 0.25, label=label,
                 color=("C7", "C1", "C2")[k])
    axes.set_xticks(range(len(names)), [name.replace(" on ", "\non ") for name in names])
    axes.set(ylabel="microseconds", yscale="log")


def three_ways(quick=False):
    """The error of difference quotients of the logistic map, and the size of its derivative."""
    import sympy

    import fastgrad as fg

    def logistic_map(k):
        def f(x):
            for _ in range(k):
                x = 4 * x * (1 - x)
            return x

        return f

    f, x = logistic_map(4), 0.2
    t = math.asin(math.sqrt(x))
    exact = 2**4 * math.sin(2**5 * t) / math.sin(2 * t)     # the map doubles the angle
    check("logistic map", fg.grad(f)(x), exact)
    errors = []
    for h in np.logspace(-16, -1, 61).tolist():
        forward = (f(x + h) - f(x)) / h
        central = (f(x + h) - f(x - h)) / (2 * h)
        step = f(x + 1j * h).imag / h
        errors.append([h, *(abs(slope / exact - 1) for slope in (forward, central, step))])
    sizes = []
    for k in range(1, 9):
        symbol = sympy.Symbol("x")
        formula = sympy.count_ops(sympy.diff(logistic_map(k)(symbol), symbol))
        with fg.record() as tape:
            y = logistic_map(k)(fg.tensor(x, requires_grad=True))
            sizes.append([k, int(formula), 4 * len(tape)])
        del y
    return {"errors": errors, "automatic": abs(fg.grad(f)(x) / exact - 1), "sizes": sizes}


def three_ways_table(result):
    """Operations of the derivative of the logistic map."""
    return table(["steps", "formula", "sweep, at most"],
                 [[str(n) for n in row] for row in result["sizes"]])


def error_plot(result, axes):
    h, *columns = zip(*result["errors"])
    floor = 1e-17               # where a log scale shows 0
    for errors, label, style in zip(columns, ("forward difference", "central difference",
                                              "complex step"), ("C0.-", "C2.-", "C4.-")):
        axes.loglog(h, [max(e, floor) for e in errors], style, label=label, linewidth=0.8)
    axes.axhline(max(result["automatic"], floor), color="C1", label="automatic, no step")
    axes.set(xlabel="step h", ylabel="relative error")


def swell_plot(result, axes):
    k, formula, sweep = zip(*result["sizes"])
    axes.semilogy(k, formula, "C4o-", label="formula (SymPy)")
    axes.semilogy(k, sweep, "C1o-", label="reverse sweep, at most")
    axes.set(xlabel="steps of the logistic map", ylabel="operations")


def infinite(quick=False):
    """log(exp(-x*x)), which underflows, and a logarithm behind a mask; and their derivatives."""
    import fastgrad as fg

    def underflow(x):
        return np.log(np.exp(-x * x))

    def masked(x):
        return np.where(x > 0, np.log(x), 0.0)

    found = {}
    for name, f, points in (("underflow", underflow, np.linspace(20, 34, 113)),
                            ("masked", masked, np.linspace(-1, 3, 161))):
        with np.errstate(divide="ignore", invalid="ignore"):
            values = [float(f(x)) for x in points]
        found[name] = [points.tolist(), values, [fg.grad(f)(x) for x in points.tolist()]]
    check("log(exp(-x*x))", found["underflow"][2][0], -40.0)
    return found


def infinite_table(result):
    """Where the derivative begins to be NaN, and the point before."""
    points, _, slopes = result["underflow"]
    k = next(k for k, slope in enumerate(slopes) if math.isnan(slope))
    return table(["x", "derivative of log(exp(-x*x))"],
                 [[f"{points[i]:.3f}", f"{slopes[i]:.3f}"] for i in (k - 1, k)])


def underflow_plot(result, axes):
    points, values, slopes = result["underflow"]
    exact = [-2 * x for x in points]
    zeros = [0.0 if math.isnan(slope) else math.nan for slope in slopes]
    axes.plot(points, exact, "C7--", label="-2 x", linewidth=0.8)
    axes.plot(points, slopes, "C1-", label="derivative: infinite from 26.7, NaN from 27.3 on", linewidth=2)
    axes.plot(points, zeros, "C3:", label="what a zero that always wins would give")
    axes.set(xlabel="x", ylabel="slope of log(exp(-x*x))")


def masked_plot(result, axes):
    points, values, slopes = result["masked"]
    axes.plot(points, values, "C0-", label="where(x > 0, log(x), 0)")
    axes.plot(points, slopes, "C1-", label="its derivative")
    axes.axvspan(-1, 0, color="C7", alpha=0.15, label="not taken: log and 1/x are NaN or infinite")
    axes.set(xlabel="x", ylim=(-3, 6))


ROWS = {"sweeps": sweeps, "inputs": inputs, "storage": storage, "pruning": pruning,
        "three-ways": three_ways, "infinite": infinite}
TABLES = {"sweeps": sweeps_table, "inputs": inputs_table, "storage": storage_table,
          "pruning": pruning_table, "three-ways": three_ways_table, "infinite": infinite_table}
PLOTS = {       # of each row: files and who draws them
    "sweeps": {"cost-sweeps": sweeps_plot},
    "inputs": {"cost-inputs": inputs_plot},
    "storage": {"cost-storage": storage_plot},
    "pruning": {"cost-pruning": pruning_plot},
    "three-ways": {"three-ways-error": error_plot, "three-ways-swell": swell_plot},
    "infinite": {"infinite-underflow": underflow_plot, "infinite-mask": masked_plot},
}


# ---- writing -------------------------------------------------------------------------------


def insert(page, name, text):
    """Replace what stands between the comments that name a measurement."""
    pattern = rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page, flags=re.DOTALL)


def draw(name, result, folder):
    """Draw the plots of a row as SVG if matplotlib is installed; return whether it is."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fastgrad"       # the same ids at every run
    matplotlib.rcParams["svg.fonttype"] = "none"            # text, not outlines: half the size
    import matplotlib.pyplot as plt

    for file, plot in PLOTS[name].items():
        figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
        plot(result, axes)
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(folder / f"{file}.svg", metadata={"Date": None})
        plt.close(figure)
    return True


def environment():
    """Return what the numbers depend on, in one line, without the date."""
    from importlib.metadata import version

    from fastgrad._core import core

    of = machine()
    return textwrap.fill(
        f"Measured on {of['processor']}, {of['python']}, NumPy {version('numpy')}, "
        f"instruction set {core.isa()}, one thread; medians of rounds taken in turn, by the "
        f"{'CPU time of the thread' if os.environ[CLOCK] == 'cpu' else 'time on the wall'}.", 98)


def main(arguments=None):
    """Measure, print, and bring cost.md and its plots up to date."""
    parser = argparse.ArgumentParser(description="What a derivative costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes")
    parser.add_argument("--row", choices=ROWS, help="this row only")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder with cost.md")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--clock", choices=CLOCKS, default=os.environ.get(CLOCK, "wall"),
                        help="the time on the wall, or of the calling thread")
    options = parser.parse_args(arguments)
    os.environ[CLOCK] = options.clock
    if options.json:                    # the process of a row
        print(json.dumps(ROWS[options.row](options.quick)))
        return 0
    failed = False
    page = options.docs / "cost.md"
    text = page.read_text() if page.exists() else ""
    if not options.row:
        text = insert(text, "machine", environment())
    for name in [options.row] if options.row else ROWS:
        command = [sys.executable, str(HERE / "cost.py"), "--json", "--row", name]
        done = subprocess.run(command + ["--quick"] * options.quick, capture_output=True,
                              text=True, timeout=TIMEOUT, env=os.environ | ENVIRONMENT)
        if done.returncode:
            print(f"{name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            failed = True
            continue
        result = json.loads(done.stdout)
        shown = TABLES[name](result)
        print(f"{name}\n\n{shown}\n", flush=True)
        text = insert(text, name, shown)
        if page.exists() and not draw(name, result, options.docs):
            print("no plots: matplotlib is not installed")
    if text:
        page.write_text(text)
    return failed


if __name__ == "__main__":
    sys.exit(main())
