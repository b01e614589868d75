"""The board: every workload with every tool that is installed, and the numbers to reach.

    python benchmarks/report.py [--quick] [--output FOLDER] [--tools fastgrad,torch] [--cases mlp]

Each tool runs in a process of its own, which lives through the whole board and waits while others
work. For each case every tool prepares (imports, traces, compiles), is compared with the expected
result, warms up, and then the tools take turns: one round each, again and again. What is reported
is the median over the rounds. A tool with a wrong result gets no time.

Writes board.md, board.json and, with matplotlib, vector.png to the output folder.
"""

import argparse
import ast
import datetime
import importlib.metadata
import json
import math
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean, quantiles
from typing import NamedTuple

import by_hand
import memory
import numpy as np
import workloads

HERE = Path(__file__).resolve().parent

ROUND = 0.025           # seconds of a round, at least 0.02
WARM_UP = 0.2           # seconds
SETTLE = 0.04           # seconds between turns: idle BLAS and OpenMP threads spin up to 0.03
PATIENCE = 600          # seconds until a tool is given up

ENVIRONMENT = dict(workloads.ONE_THREAD)        # of what is recorded


class Target(NamedTuple):
    """A number to reach."""

    title: str
    unit: str
    limit: float
    measured: Callable      # seconds by case and tool -> number


LARGE = "mlp 784-512-512-10 batch 128 float64"
TARGETS = (
    Target(
        "chain, recorded and reverse, against Python floats", "times", 3.0,
        lambda s: s["chain"]["fastgrad"] / s["chain"]["value"],
    ),
    Target(
        "chain against PyTorch eager", "times", 0.01,
        lambda s: s["chain"]["fastgrad"] / s["chain"]["torch"],
    ),
    *(
        Target(
            f"vector n={n}, value and gradient against NumPy's value", "times", limit,
            lambda s, n=n: s[f"vector n={n}"]["fastgrad"] / s[f"vector n={n}"]["value"],
        )
        for n, limit in ((10, 0.4), (1000, 0.6), (10**6, 0.9))
    ),
    Target(
        "value_and_grad of x*x, x a float", "us", 0.5,
        lambda s: s["square"]["fastgrad"] * 1e6,
    ),
    Target(
        f"{LARGE}, against its matrix products alone", "times", 1.25,
        lambda s: s[LARGE]["fastgrad"] / s[LARGE]["products"],
    ),
    Target(
        f"{LARGE}, against its products with fresh results", "times", 1.25,
        lambda s: s[LARGE]["fastgrad"] / s[LARGE]["products-fresh"],
    ),
)


# ---- the side of a tool: a process that prepares and measures what it is asked ---------------


def serve(tool):
    """Answer requests on standard input, one JSON object a line, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)           # what a library prints must not get between
    cases = {case.name: case for case in workloads.cases() + workloads.program_cases()}
    current = None

    def prepare(name):
        nonlocal current
        current = None      # frees the one before
        case = cases[name]
        started = time.perf_counter()
        prepared = case.adapters[tool]()
        prepared.function(*prepared.arguments)
        first = time.perf_counter() - started
        difference = workloads.check(case, prepared)

        names = [f"a{i}" for i in range(len(prepared.arguments))]
        bound = dict(zip(names, prepared.arguments, strict=True), function=prepared.function)
        call = f"function({', '.join(names)})"
        # timeit switches the garbage collector off; a user's loop has it on.
        timer = timeit.Timer(call, "import gc; gc.enable()", time.perf_counter, bound)
        seconds = prepared.seconds or timer.timeit
        count, total = 1, 0.0
        while total < WARM_UP:
            taken = seconds(count)
            total += taken
            if taken < ROUND:
                count = max(count + 1, math.ceil(count * min(ROUND / max(taken, 1e-9), 10) * 1.1))
        current = seconds, count, prepared  # some tools hold no references to their buffers
        return {"first": first, "difference": difference, "count": count}

    def measure():
        seconds, count, _ = current
        return {"seconds": seconds(count) / count}

    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                answer = prepare(request["prepare"])
            elif "describe" in request:
                answer = {"description": describe_tool(tool)}
            else:
                answer = measure()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


def describe_tool(tool):
    """Return version, threads and whatever else decides how fast a tool is."""
    if tool == "c":
        return by_hand.describe()
    module = workloads.TOOLS[tool].module
    if module == "numpy":
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"numpy {np.__version__}, BLAS {blas['name']} {blas['version']}"
    if module == "fastgrad":
        import fastgrad
        from fastgrad._core import core

        threads = workloads.TOOLS[tool].environment.get("FASTGRAD_NUM_THREADS")
        return (f"fastgrad {fastgrad.__version__}, instruction set {core.isa()}, "
                + ("1 thread" if threads == "1" else f"threads by its default, {os.cpu_count()}"))
    version = f"{module} {importlib.metadata.version(module)}"
    if module == "torch":
        import torch

        return f"{version}, {torch.get_num_threads()} threads"
    if module == "jax":
        import jax

        return f"{version}, float64 enabled, {jax.default_backend()}, threads by its default"
    return version


# ---- the side of the board -----------------------------------------------------------------


class Worker:
    """A tool in a process of its own; started again when it dies."""

    def __init__(self, tool):
        self.tool = tool
        self.process = None

    def ask(self, **request):
        """Send a request and return the answer, `error` in it when there is none."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "report.py"), "--serve", self.tool],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=os.environ | workloads.TOOLS[self.tool].environment,
            )
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            with selectors.DefaultSelector() as selector:
                selector.register(self.process.stdout, selectors.EVENT_READ)
                answer = self.process.stdout.readline() if selector.select(PATIENCE) else None
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        if answer is None:
            self.stop()
            return {"error": f"no answer in {PATIENCE} s"}
        code = self.process.wait()
        self.process = None
        return {"error": f"died of {signal.Signals(-code).name}" if code < 0 else f"exit {code}"}

    def stop(self):
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def run(cases, tools, rounds):
    """Measure.

    Parameters
    ----------
    cases : list of workloads.Case
    tools : list of str
    rounds : int

    Returns
    -------
    descriptions : dict
        Of each tool, in one line.
    results : list of dict
        For each case its `name`, `family`, `size` and `tools`: for each tool either `error`, or
        `median`, `low` and `high` quartile, `fastest`, `rounds`, all in seconds a call, `first`
        (seconds of preparation and the first call: compilation is in it) and `difference` to the
        expected result.
    """
    workers = {tool: Worker(tool) for tool in tools}
    descriptions, results = {}, []
    try:
        for tool, worker in workers.items():
            answer = worker.ask(describe=True)
            descriptions[tool] = answer.get("description", answer.get("error"))
        for case in cases:
            entry = {"name": case.name, "family": case.family, "size": case.size, "tools": {}}
            for tool in tools:
                if tool in case.adapters:
                    entry["tools"][tool] = workers[tool].ask(prepare=case.name) | {"rounds": []}
            for _ in range(rounds):
                for tool, times in entry["tools"].items():
                    if "error" in times:
                        continue
                    time.sleep(SETTLE)
                    answer = workers[tool].ask(measure=True)
                    if "error" in answer:
                        times["error"] = answer["error"]
                    else:
                        times["rounds"].append(answer["seconds"])
            for times in entry["tools"].values():
                if "error" not in times:
                    low, middle, high = quantiles(times["rounds"], n=4, method="inclusive")
                    fastest = min(times["rounds"])
                    times |= {"median": middle, "low": low, "high": high, "fastest": fastest}
            results.append(entry)
            print(progress(entry), flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    return descriptions, results


def progress(entry):
    """Return one line about a case that is done."""
    times = (
        f"{tool} {microseconds(t['median'])}" if "median" in t else f"{tool} FAILED"
        for tool, t in entry["tools"].items()
    )
    return f"{entry['name']}: " + ", ".join(times)


def machine(environment=ENVIRONMENT):
    """Return what the numbers depend on, beside the tools themselves.

    `environment` is what all processes are started with.
    """
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next(row.split(":")[1].strip() for row in file if row.startswith("model name"))
    except (OSError, StopIteration):
        pass
    limits = {
        name: value
        for name, value in os.environ.items()
        if name.endswith("NUM_THREADS") or name in ("FASTGRAD_ISA", "XLA_FLAGS")
    }
    return {
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "load before": load(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "flags": build_flags(),
        "environment": ", ".join(f"{k}={v}" for k, v in (limits | environment).items())
        or "nothing set",
    }


def load():
    """Return how busy the machine was during the last minute."""
    if not hasattr(os, "getloadavg"):
        return "unknown"
    average = os.getloadavg()[0]
    busy = " (busy: measure again when it is quiet)" if average > os.cpu_count() / 2 else ""
    return f"{average:.1f}{busy}"


def build_flags():
    """Return the C flags of a release build, as setup.py lists them beside Python's own."""
    script = HERE.parent / "setup.py"
    if not script.exists():
        return "unknown (no setup.py)"
    lists = [
        [flag.value for flag in node.value.elts if isinstance(flag, ast.Constant)]
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.Assign | ast.AugAssign)
        and isinstance(node.value, ast.List)
        and any(
            isinstance(target, ast.Name) and target.id == "FLAGS"
            for target in getattr(node, "targets", None) or [node.target]
        )
    ]
    # The list itself, and the first addition to it: that of a release.
    return " ".join(flag for some in lists[:2] for flag in some) or "unknown"


# ---- the numbers to reach ------------------------------------------------------------------


def targets(results, memory_results):
    """Return a dict for each number to reach: title, value (or None), unit, limit, reached."""
    seconds = {
        entry["name"]: {t: m["median"] for t, m in entry["tools"].items() if "median" in m}
        for entry in results
    }
    lines = []
    for target in TARGETS:
        try:
            value = target.measured(seconds)
        except KeyError:
            value = None
        lines.append(
            {"what": target.title, "value": value, "unit": target.unit, "limit": target.limit,
             "reached": None if value is None else value <= target.limit}
        )
    for row in memory_results:
        if "error" in row:
            lines.append({"what": f"memory, {row['row']}: {row['error']}", "value": None,
                          "unit": "", "limit": None, "reached": False})
        lines += [line for line in row.get("lines", ()) if line["limit"] is not None]
    return lines


# ---- writing -------------------------------------------------------------------------------


def microseconds(seconds):
    """Return a time in microseconds with three digits that matter."""
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(head, rows):
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def markdown(report):
    """Return the report as one page."""
    tools, results = report["tools"], report["cases"]
    titles = {tool: workloads.TOOLS[tool].title for tool in tools}

    def cell(entry, tool, show):
        times = entry["tools"].get(tool)
        if times is None:
            return ""
        if "error" in times:
            return "WRONG" if times["error"].startswith("WrongResult") else "FAILED"
        return show(times)

    parts = ["# fastgrad: the board", ""]
    parts += [f"- {name}: {value}" for name, value in report["machine"].items()]
    parts += [f"- {titles[tool]}: {text}" for tool, text in tools.items()]
    parts += [f"- skipped: {reason}" for reason in report["skipped"]]
    parts += [
        f"- {report['rounds']} rounds of at least {ROUND * 1e3:.0f} ms, each tool in a process of "
        "its own, in turn; medians; every result compared with the expected one first",
        "",
        "## Value and gradient, microseconds",
        "",
        table(
            ["", *titles.values()],
            [
                [e["name"], *(cell(e, t, lambda m: microseconds(m["median"])) for t in tools)]
                for e in results
            ],
        ),
        "",
    ]

    for base in ("fastgrad", "compiled"):
        others = [tool for tool in tools if tool != base]
        rows = []
        for e in results:
            own = e["tools"].get(base, {}).get("median")
            if own:
                rows.append(
                    [e["name"],
                     *(cell(e, t, lambda m, own=own: f"{m['median'] / own:.3g}") for t in others)]
                )
        if not rows or not others:
            continue
        parts += [
            f"## Times of {titles[base]}",
            "",
            "More than 1: it is faster.",
            "",
            table(["", *(titles[tool] for tool in others)], rows + geometric_means(report, base)),
            "",
        ]

    parts += [
        "## Preparation and first call, milliseconds",
        "",
        "Conversion of inputs, tracing, compilation and one call, imports left out.",
        "",
        table(
            ["", *titles.values()],
            [
                [e["name"], *(cell(e, t, lambda m: f"{m['first'] * 1e3:.3g}") for t in tools)]
                for e in results
            ],
        ),
        "",
    ]

    errors = [
        f"- {e['name']}, {titles[tool]}: {times['error']}"
        for e in results
        for tool, times in e["tools"].items()
        if "error" in times
    ]
    if errors:
        parts += ["## Failed", "", *errors, ""]

    parts += [
        "## Numbers to reach",
        "",
        table(
            ["", "measured", "at most", "unit", ""],
            [
                [t["what"],
                 "not measured" if t["value"] is None else f"{t['value']:.3g}",
                 "" if t["limit"] is None else f"{t['limit']:.3g}",
                 t["unit"],
                 {True: "reached", False: "**not reached**", None: ""}[t["reached"]]]
                for t in report["targets"]
            ],
        ),
        "",
    ]
    if report["memory"]:
        parts += ["## Memory", ""]
        rows = [
            [line["what"], f"{line['value']:.4g}", line["unit"]]
            for row in report["memory"]
            for line in row.get("lines", ())
        ]
        parts += [table(["", "measured", "unit"], rows), ""]
    return "\n".join(parts)


def geometric_means(report, base="fastgrad"):
    """Return a row: each tool's ratio to `base` over the cases of at most 1,000 numbers."""
    row = ["geometric mean, n <= 1000"]
    for tool in report["tools"]:
        if tool == base:
            continue
        ratios = [
            e["tools"][tool]["median"] / e["tools"][base]["median"]
            for e in report["cases"]
            if e["size"] <= 1000 and e["family"] != "mlp"
            and "median" in e["tools"].get(tool, {})
            and "median" in e["tools"].get(base, {})
        ]
        row.append(f"{geometric_mean(ratios):.3g}" if ratios else "")
    return [row]


def plot(report, folder):
    """Draw the times of `vector` against n, if matplotlib is installed; return the file or None."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for tool in report["tools"]:
        points = [
            (e["size"], e["tools"][tool]["median"] * 1e6)
            for e in report["cases"]
            if e["family"] == "vector" and "median" in e["tools"].get(tool, {})
        ]
        if points:
            style = {"linestyle": "--", "color": "black"} if tool == "value" else {"marker": "o"}
            axes.loglog(*zip(*points, strict=True), label=workloads.TOOLS[tool].title, **style)
    if not axes.lines:
        plt.close(figure)
        return None
    axes.set(
        xlabel="n",
        ylabel="value and gradient, microseconds",
        title="sum(sin(x)*exp(-x*x) + tanh(x)*x), float64",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    path = folder / "vector.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


# ---- the programme -------------------------------------------------------------------------


def main(arguments=None):
    """Run the board; return 1 if a result of fastgrad is wrong or missing."""
    parser = argparse.ArgumentParser(description="fastgrad beside its peers.")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder to write to")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each tool at each case")
    parser.add_argument("--tools", help=f"comma separated, of {', '.join(workloads.TOOLS)}")
    parser.add_argument("--cases", help="comma separated beginnings of names, such as vector,mlp")
    parser.add_argument("--no-memory", action="store_true", help="leave out memory.py")
    parser.add_argument("--quick", action="store_true", help="3 rounds, memory.py --quick")
    parser.add_argument("--serve", choices=workloads.TOOLS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        return serve(options.serve)

    wanted = options.tools.split(",") if options.tools else list(workloads.TOOLS)
    if unknown := set(wanted) - set(workloads.TOOLS):
        parser.error(f"no such tool: {', '.join(sorted(unknown))}")
    reasons = {tool: workloads.missing(tool) for tool in wanted}
    skipped = [f"{workloads.TOOLS[t].title}, {reason}" for t, reason in reasons.items() if reason]
    for reason in skipped:
        print(f"skipped: {reason}")
    tools = [tool for tool in workloads.TOOLS if tool in wanted and not reasons[tool]]
    cases = workloads.cases()
    if options.cases:
        cases = [c for c in cases if c.name.startswith(tuple(options.cases.split(",")))]
        if not cases:
            parser.error(f"no case begins with {options.cases}")

    report = {"machine": machine({})}
    rounds = 3 if options.quick else max(options.rounds, 2)
    report["tools"], report["cases"] = run(cases, tools, rounds)
    report |= {"skipped": skipped, "rounds": rounds, "memory": []}
    if not options.no_memory and "fastgrad" in tools:
        for name in memory.ROWS:
            print(f"memory: {name}", flush=True)
            report["memory"].append(memory.run_apart(name, options.quick))
    report["targets"] = targets(report["cases"], report["memory"])

    options.output.mkdir(parents=True, exist_ok=True)
    page = markdown(report)
    (options.output / "board.md").write_text(page)
    (options.output / "board.json").write_text(json.dumps(report, indent=1))
    drawn = plot(report, options.output)
    print("\n" + page)
    print(f"written to {options.output}" + ("" if drawn else ", without plots (no matplotlib)"))

    failed = any(
        "error" in times
        for entry in report["cases"]
        for tool, times in entry["tools"].items()
        if tool.startswith(("fastgrad", "compiled"))
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
