"""Compiled programs: what they cost against their peers and C written by hand, and to plan.

    python benchmarks/programs.py [--quick] [--cases chain,vector] [--tools compiled,c,jax]
                                  [--rounds N] [--output FOLDER]

Value and gradient of the board's workloads (see workloads.py), each tool in a process of its own
and in turn, warmed up, results compared with the expected ones first, medians over the rounds; the
ratios with the limits that the project has set itself, the peer's time and what it takes to
compile beside them. C is compiled here, by gcc -O3 -march=native, from `benchmarks/c`.

What is timed: a call from Python, arguments and results included, for every tool but C, which is
called in a loop in C and writes into memory that stands ready. CasADi's virtual machine reads and
writes buffers that stand ready (`Function.buffer`), and nothing is converted.

Writes programs.md and programs.json to the output folder.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import report
import workloads

HERE = Path(__file__).resolve().parent


class Row(NamedTuple):
    """A ratio and its limit: the median times of two tools at a case, or of two cases."""

    title: str
    case: str
    peer: str                   # a tool
    limit: float
    other: str = None           # the peer's case, where it is another
    tool: str = "compiled"


class Figure(NamedTuple):
    """A number that is no ratio of two tools."""

    title: str
    unit: str
    limit: Callable             # seconds by case and tool -> number
    measured: Callable          # the same


SMALL = "mlp 64-32-10 batch 32"
LARGE = "mlp 784-512-512-10 batch 128"
IN_PYTHON, IN_ONE = "leapfrog 200x10, loop in Python", "leapfrog 200x10, in one program"

ROWS = (
    Row("chain against C by hand", "chain", "c", 1.3),
    Row("chain against C by hand, sin and cos twice", "chain", "c", 1.3,
        "chain, sin and cos twice"),
    Row("arith against C by hand", "arith", "c", 3.0),
    Row("arith against CasADi's virtual machine", "arith", "casadi", 0.5),
    Row("chain against jax.jit", "chain", "jax", 0.5),
    Row("vector n=10 against NumPy's value alone", "vector n=10", "value", 0.3),
    Row("vector n=10 against jax.jit", "vector n=10", "jax", 0.2),
    Row("vector n=1000 against C by hand", "vector n=1000", "c", 1.3),
    Row("vector n=1000 against jax.jit", "vector n=1000", "jax", 0.12),
    Row("vector n=10^6 against C by hand, blocks, all threads", "vector n=1000000", "c", 1.3),
    Row("vector n=10^6 against jax.jit", "vector n=1000000", "jax", 0.35),
    Row("vector n=10^6 against PyTorch", "vector n=1000000", "torch", 0.2),
    Row("mlp small, float64, against PyTorch", f"{SMALL} float64", "torch", 0.2),
    Row("mlp small, float64, against jax.jit", f"{SMALL} float64", "jax", 0.6),
    Row("mlp small, float64, against its products alone", f"{SMALL} float64", "products", 2.5),
    *(
        Row(f"mlp large, {dtype}, against its {title}", f"{LARGE} {dtype}", peer, 1.15)
        for dtype in ("float64", "float32")
        for peer, title in (("products", "products alone"),
                            ("products-fresh", "products with fresh results"))
    ),
    Row("100 leapfrog steps, loop in Python, against jax.jit called from Python",
        IN_PYTHON, "jax", 0.3),
    Row("100 leapfrog steps, one program, against jax.jit called from Python",
        IN_ONE, "jax", 0.3, IN_PYTHON),
    Row("100 leapfrog steps, loop in Python, against HIPS autograd", IN_PYTHON, "autograd", 0.05),
    Row("100 leapfrog steps, one program, against HIPS autograd", IN_ONE, "autograd", 0.05,
        IN_PYTHON),
)


def per_lane(name, what, operations):
    """Return a function: nanoseconds an operation and lane."""
    def measured(seconds):
        lanes = workloads.LANES // 32 * 32
        case = f"{name} at {workloads.LANES:,} points, {what}"
        return seconds[case]["compiled-1"] / lanes / operations * 1e9

    return measured


def with_sines(limit, calls):
    """Return a function: the limit of arithmetic, and libmvec's own cost on top."""
    # chain: a sine (and on the way back a cosine, which costs the same) in three operations.
    return lambda s: limit + calls / 3 * s["libmvec sin n=1000"]["c"] / 1000 * 1e9


FIGURES = (
    Figure("a call of a compiled f(x) = x*x, value alone", "us", lambda _: 0.5,
           lambda s: s["call of x*x"]["compiled"] * 1e6),
    Figure("a call of a compiled f(x) = x*x, value and slope", "us", lambda _: 0.5,
           lambda s: s["square"]["compiled"] * 1e6),
    Figure("arith at 10^6 points, value, an operation and lane", "ns", lambda _: 0.3,
           per_lane("arith", "value", 1000)),
    Figure("arith at 10^6 points, value and slope, an operation and lane", "ns", lambda _: 0.9,
           per_lane("arith", "value and slope", 1000)),
    Figure("chain at 10^6 points, value, an operation and lane", "ns", with_sines(0.3, 1),
           per_lane("chain", "value", 999)),
    Figure("chain at 10^6 points, value and slope, an operation and lane", "ns",
           with_sines(0.9, 2), per_lane("chain", "value and slope", 999)),
)
CASES = tuple(dict.fromkeys(
    [name for row in ROWS for name in (row.case, row.other) if name]
    + ["square", "call of x*x", "libmvec sin n=1000", "logistic 200x10", "logistic 20000x50",
       *(f"rosenbrock n={n}" for n in workloads.ROSENBROCK_SIZES), "kalman, 200 steps"]
    + [f"{name} at {workloads.LANES:,} points, {what}"
       for name in ("arith", "chain") for what in ("value", "value and slope")]
))
TOOLS = ("compiled", "compiled-1", "c", "value", "products", "products-fresh", "jax", "torch",
         "torch-compile", "autograd", "casadi")


# ---- planning ------------------------------------------------------------------------------

PLANNED = (10**5, 10**6)        # operations


def planning(quick=False):
    """Return lines: what planning takes for each node, in nodes of several kinds.

    Of a graph that stands ready; and once the whole first call of a compiled function, in which
    the function runs, is recorded and planned.
    """
    counts = [count // 10 for count in PLANNED] if quick else PLANNED
    lines = []
    for kind in ("arith", "chain", "vectors"):
        found = []
        for count in counts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(plan_once, (kind, count)))
        (_, few), (nodes, many) = found
        lines += [
            line(f"planning {kind}, {nodes:,} nodes, a node", many * 1e6, "us", 2.0),
            line(f"planning {kind}, a node, against {counts[0]:,} operations", many / few,
                 "times", 1.5),
        ]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first = pool.apply(first_call, ("chain", 333))
    lines.append(line("chain: recording, planning and first run of value and gradient",
                      first * 1e3, "ms", 5.0))
    return lines


def line(what, value, unit, limit=None):
    """Return one measured number, and whether it is within its limit."""
    reached = None if limit is None else bool(value <= limit)
    return {"what": what, "value": value, "unit": unit, "limit": limit, "reached": reached}


def long_graph(kind, count):
    """Return a graph of about `count` nodes: `arith`, `chain`, or `chain` on vectors."""
    from fastgrad.graphs.graph import Builder

    build = Builder()
    shape = (1000,) if kind == "vectors" else ()
    x = y = build.input(shape)
    nodes = 1
    while nodes < count:
        if kind == "arith":
            y = build.add("add", [build.add("multiply", [y, x]), y])
            nodes += 2
        else:
            product = build.add("multiply", [build.add("sin", [y], shape), x], shape)
            y = build.add("add", [product, y], shape)
            nodes += 3
    return build.graph([y])


def plan_once(kind, count):
    """Return how many nodes a graph has, and the seconds its planning takes for each."""
    from fastgrad._core.program import Plan

    graph = long_graph(kind, count)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        plan = Plan(graph)
        times.append(time.perf_counter() - started)
        del plan
    return len(graph), median(times) / len(graph)


def first_call(name, steps):
    """Return the seconds of the first call of a compiled value and gradient, imports left out."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    fg.compile(fg.value_and_grad(lambda x: fnp.sin(x) * x))(0.5)    # imports what it needs

    def f(x):
        y = x
        for _ in range(steps):
            y = fnp.sin(y) * x + y
        return y

    compiled = fg.compile(fg.value_and_grad(f))
    started = time.perf_counter()
    compiled(workloads.SCALAR)
    return time.perf_counter() - started


# ---- what was measured against the limits --------------------------------------------------


def compare(entries):
    """Return a dict for each row and figure: what, value, unit, limit, reached, and the peer's."""
    times = {
        entry["name"]: {tool: t for tool, t in entry["tools"].items() if "median" in t}
        for entry in entries
    }
    seconds = {name: {tool: t["median"] for tool, t in tools.items()}
               for name, tools in times.items()}
    lines = []
    for row in ROWS:
        other = row.other or row.case
        if not {row.case, other} <= seconds.keys():
            continue
        own, peer = times[row.case].get(row.tool), times[other].get(row.peer)
        value = own["median"] / peer["median"] if own and peer else None
        lines.append({
            **line(row.title, value if value is not None else np.nan, "times", row.limit),
            "value": value, "reached": None if value is None else value <= row.limit,
            "own": own, "peer": peer,
        })
    for figure in FIGURES:
        try:
            value, limit = figure.measured(seconds), figure.limit(seconds)
        except KeyError:
            continue
        lines.append(line(figure.title, value, figure.unit, limit))
    return lines


def cells(entry):
    """Return the cells of a line in the table of limits."""
    def shown(times, key, factor):
        return f"{times[key] * factor:.3g}" if times else ""

    value, limit = entry["value"], entry["limit"]
    own, peer = entry.get("own"), entry.get("peer")
    return [
        entry["what"],
        "not measured" if value is None else f"{value:.3g}",
        "" if limit is None else f"{limit:.3g}",
        entry["unit"],
        {True: "reached", False: "**not reached**", None: ""}[entry["reached"]],
        shown(own, "median", 1e6), shown(peer, "median", 1e6),
        shown(own, "first", 1e3), shown(peer, "first", 1e3),
    ]


def markdown(found):
    """Return the page."""
    titles = [workloads.TOOLS[tool].title for tool in found["tools"]]

    def grid(show):
        rows = []
        for entry in found["cases"]:
            row = [entry["name"]]
            for tool in found["tools"]:
                times = entry["tools"].get(tool)
                row.append("" if times is None else "**failed**" if "error" in times
                           else show(times))
            rows.append(row)
        return report.table(["", *titles], rows)

    parts = ["# fastgrad: compiled programs", ""]
    parts += [f"- {name}: {value}" for name, value in found["machine"].items()]
    parts += [f"- {title}: {text}"
              for title, text in zip(titles, found["tools"].values(), strict=True)]
    parts += [f"- skipped: {reason}" for reason in found["skipped"]]
    parts += [
        f"- {found['rounds']} rounds of at least {report.ROUND * 1e3:.0f} ms, each tool in a "
        "process of its own, in turn; medians; every result compared with the expected one first",
        "",
        "## Limits",
        "",
        report.table(
            ["", "measured", "at most", "unit", "", "own, us", "peer's, us",
             "own first call, ms", "peer's first call, ms"],
            [cells(entry) for entry in found["limits"]],
        ),
        "",
        "## Value and gradient, microseconds",
        "",
        grid(lambda t: report.microseconds(t["median"])),
        "",
        "## Preparation and first call, milliseconds",
        "",
        "Conversion of inputs, tracing, compilation and one call, imports left out.",
        "",
        grid(lambda t: f"{t['first'] * 1e3:.3g}"),
        "",
    ]
    failed = [f"- {entry['name']}, {workloads.TOOLS[tool].title}: {times['error']}"
              for entry in found["cases"] for tool, times in entry["tools"].items()
              if "error" in times]
    if failed:
        parts += ["## Failed", "", *failed, ""]
    return "\n".join(parts)


def main(arguments=None):
    """Run the cases; return 1 if a result of fastgrad is wrong or missing."""
    parser = argparse.ArgumentParser(description="Compiled programs beside their peers.")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each tool at each case")
    parser.add_argument("--tools", help=f"comma separated, of {', '.join(TOOLS)}")
    parser.add_argument("--cases", help="comma separated beginnings of names, such as vector,mlp")
    parser.add_argument("--no-planning", action="store_true", help="leave out planning")
    parser.add_argument("--quick", action="store_true", help="3 rounds, smaller graphs to plan")
    options = parser.parse_args(arguments)

    wanted = options.tools.split(",") if options.tools else TOOLS
    if unknown := set(wanted) - set(TOOLS):
        parser.error(f"no such tool: {', '.join(sorted(unknown))}")
    reasons = {tool: workloads.missing(tool) for tool in wanted}
    skipped = [f"{workloads.TOOLS[t].title}, {reason}" for t, reason in reasons.items() if reason]
    for reason in skipped:
        print(f"skipped: {reason}")
    every = {case.name: case for case in workloads.cases() + workloads.program_cases()}
    cases = [every[name] for name in CASES]
    if options.cases:
        cases = [c for c in cases if c.name.startswith(tuple(options.cases.split(",")))]
        if not cases:
            parser.error(f"no case begins with {options.cases}")

    found = {"machine": report.machine({})}
    rounds = 3 if options.quick else max(options.rounds, 2)
    tools = [tool for tool in TOOLS if tool in wanted and not reasons[tool]]
    found["tools"], found["cases"] = report.run(cases, tools, rounds)
    found |= {"skipped": skipped, "rounds": rounds, "limits": compare(found["cases"])}
    failed = any("error" in times for entry in found["cases"]
                 for tool, times in entry["tools"].items() if tool.startswith("compiled"))
    if "compiled" in tools and not options.no_planning:
        print("planning", flush=True)
        try:
            found["limits"] += planning(options.quick)
        except Exception as error:
            failed = True
            found["limits"].append({**line(f"planning: {type(error).__name__}: {error}", np.nan,
                                           "", None), "value": None, "reached": False})

    options.output.mkdir(parents=True, exist_ok=True)
    page = markdown(found)
    (options.output / "programs.md").write_text(page)
    (options.output / "programs.json").write_text(json.dumps(found, indent=1))
    print("\n" + page)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
