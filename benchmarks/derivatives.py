"""What derivatives other than the gradient cost: products, Jacobians, Hessians, forward mode.

    python benchmarks/derivatives.py [--quick] [--json] [--row NAME] [--output FOLDER] [--clock cpu]

Every row runs in a process of its own, and a peer in one beside it. Results are compared with
closed forms before anything is timed; then the calls of a row take turns, a round of at least
20 ms each, and what is reported is the medians over the rounds and their ratio. A line says
whether a number to reach is reached.

    jvp         forward mode along `chain`, against recording its value
    hvp         Hessian times vector of `chain` and `vector`, against their gradients
    dense       Jacobian of R^100 -> R^100 written entry by entry, against torch.func.jacrev
    stencil     sparse Jacobian of a three-wide stencil, n = 10^5, against its value
    rosenbrock  sparse Hessian of Rosenbrock's function, n = 1000, against its value
    forward     forward mode over ten million operations: memory and time
    pruning     a sweep where one branch of a hundred feeds the wanted leaf, against that branch

Prints Markdown; `--json` prints JSON, one object a row; `--output` writes derivatives.md and
derivatives.json. A peer that is not installed is named as skipped, and so is what this version of
fastgrad does not have. `--clock cpu` counts the time of the calling thread instead of the time on
the wall, for machines that others use at the same time; nothing measured here has other threads.
"""

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from memory import MEGABYTE, TIMEOUT, line, peak, reset_peak, resident
from report import ENVIRONMENT, ROUND, SETTLE, machine, microseconds, table

HERE = Path(__file__).resolve().parent

CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
CLOCK = "FASTGRAD_BENCHMARK_CLOCK"      # in the environment, for the processes of rows and peers


def clock():
    """Return seconds by the clock that was chosen."""
    return CLOCKS[os.environ.get(CLOCK, "wall")]()


class WrongResultError(Exception):
    """What would be timed is wrong."""


def check(what, found, expected, tolerance=1e-11):
    """Refuse to time a wrong result: the largest difference is relative to the largest entry."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        raise WrongResultError(f"{what}: shape {found.shape}, not {expected.shape}")
    difference = np.max(abs(found - expected), initial=0) / np.max(abs(expected), initial=1e-300)
    if not difference <= tolerance:
        raise WrongResultError(f"{what}: off by {difference:.2e} of the largest entry")


# ---- taking turns --------------------------------------------------------------------------


class Timer:
    """A call that is timed in rounds in this process."""

    def __init__(self, call):
        self.call = call
        call()
        taken = min(self.seconds(1) for _ in range(3))
        self.count = max(1, math.ceil(ROUND / max(taken, 1e-9)))

    def seconds(self, count):
        """Return the seconds that `count` calls take, garbage collection switched on."""
        call, calls = self.call, range(count)
        started = clock()
        for _ in calls:
            call()
        return clock() - started

    def round(self):
        """Return the seconds a call takes, measured over a round."""
        return self.seconds(self.count) / self.count


class Peer:
    """A call that is prepared and timed in a process of its own.

    `prepare` is a function of this module, called there; it returns the call and its first result
    as an array.
    """

    def __init__(self, prepare):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(prepare, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.result = self.pipe.recv()

    def round(self):
        """Return the seconds a call takes, measured over a round there."""
        self.pipe.send("round")
        return self.pipe.recv()

    def stop(self):
        """End the process."""
        self.process.terminate()
        self.process.join()


def _serve(prepare, pipe):
    call, result = prepare()
    timer = Timer(call)
    pipe.send(result)
    while True:
        pipe.recv()
        pipe.send(timer.round())


def in_turn(quick=False, **calls):
    """Return the median seconds of each call; they take turns, one round each."""
    timers = {name: call if isinstance(call, Peer) else Timer(call)
              for name, call in calls.items()}
    rounds = {name: [] for name in timers}
    for _ in range(3 if quick else 9):
        for name, timer in timers.items():
            time.sleep(SETTLE)
            rounds[name].append(timer.round())
    return {name: median(times) for name, times in rounds.items()}


def times(title, seconds):
    """Return a line for each time, in microseconds."""
    return [line(f"{title}: {name.replace('_', ' ')}", value * 1e6, "us")
            for name, value in seconds.items()]


# ---- the functions -------------------------------------------------------------------------

STEPS, SCALAR = 333, 0.01


def chain(sin):
    """Return `chain` of workloads.py: y = sin(y)*x + y from y = x, 333 times."""
    def f(x):
        y = x
        for _ in range(STEPS):
            y = sin(y) * x + y
        return y

    return f


def chain_by_hand():
    """Return value, slope and second derivative of `chain` by their recurrences."""
    x = y = SCALAR
    first, second = 1.0, 0.0
    for _ in range(STEPS):
        s, c = math.sin(y), math.cos(y)
        y, first, second = (
            s * x + y,
            c * first * x + s + first,
            (c * second - s * first * first) * x + 2 * c * first + second,
        )
    return y, first, second


def vector(np):
    """Return `vector` of workloads.py, written with the namespace."""
    sin, exp, tanh, total = np.sin, np.exp, np.tanh, np.sum

    def f(x):
        return total(sin(x) * exp(-x * x) + tanh(x) * x)

    return f


def vector_by_hand(x):
    """Return gradient and second derivatives of `vector`, which has a diagonal Hessian."""
    e, t = np.exp(-x * x), np.tanh(x)
    slope = (np.cos(x) - 2 * x * np.sin(x)) * e + x * (1 - t * t) + t
    curve = ((4 * x * x - 3) * np.sin(x) - 4 * x * np.cos(x)) * e + 2 * (1 - t * t) * (1 - x * t)
    return slope, curve


# ---- rows ----------------------------------------------------------------------------------


def jvp(quick=False):
    """Forward mode along `chain`, against recording its value."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    f, plain = chain(fnp.sin), chain(math.sin)
    value, slope, _ = chain_by_hand()
    check("jvp of chain", fg.jvp(f, (SCALAR,), (1.0,)), (value, slope))
    leaf = fg.tensor(SCALAR, requires_grad=True)
    check("chain recorded", f(leaf).item(), value)
    push = fg.linearize(f, SCALAR)[1]
    check("linearize of chain", push(1.0), slope)
    seconds = in_turn(
        quick,
        floats=lambda: plain(SCALAR),
        value_recorded=lambda: f(leaf),
        jvp=lambda: fg.jvp(f, (SCALAR,), (1.0,)),
        push_of_linearize=lambda: push(1.0),
    )
    ratio = seconds["jvp"] / seconds["value_recorded"]
    return [*times("chain", seconds),
            line("jvp of chain, against its recorded value", ratio, "times", 2.5)]


def hvp(quick=False):
    """Hessian times vector, against the gradient."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    lines = []
    x = np.random.default_rng(0).uniform(-2, 2, size=1000)
    v = np.random.default_rng(1).normal(size=1000)
    curve = vector_by_hand(x)[1]
    for title, f, at, along, expected in (
        ("chain", chain(fnp.sin), SCALAR, 1.0, chain_by_hand()[2]),
        ("vector n=1000", vector(fnp), x, v, curve * v),
    ):
        gradient, both, product = fg.grad(f), fg.value_and_grad(f), fg.hvp(f)
        check(f"hvp of {title}", product(at, along), expected)
        seconds = in_turn(
            quick,
            gradient=lambda gradient=gradient, at=at: gradient(at),
            value_and_grad=lambda both=both, at=at: both(at),
            hvp=lambda product=product, at=at, along=along: product(at, along),
        )
        lines += times(title, seconds)
        ratio = seconds["hvp"] / seconds["gradient"]
        lines.append(line(f"hvp of {title}, against its gradient", ratio, "times", 3.0))
    return lines


DENSE = 100


def entries(sin):
    """Return a map of R^n to R^n as a list of entries, each from two entries of its argument."""
    def f(x):
        return [x[i] * x[i - 1] + sin(x[i]) for i in range(len(x))]

    return f


def entries_by_hand(x):
    """Return the Jacobian of `entries`."""
    n = len(x)
    J = np.diag(np.roll(x, 1) + np.cos(x))
    J[np.arange(n), np.arange(n) - 1] = x
    return J


def dense_point():
    """Return where the dense Jacobian is taken."""
    return np.random.default_rng(0).uniform(-2, 2, size=DENSE)


def dense_by_torch():
    """Prepare the dense Jacobian by PyTorch."""
    import torch

    f = entries(torch.sin)
    x = torch.tensor(dense_point())
    jacobian = torch.func.jacrev(lambda x: torch.stack(f(x)))
    return lambda: jacobian(x), jacobian(x).numpy()


def dense(quick=False):
    """Jacobian of a map of R^100 to itself written entry by entry."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    f, x = entries(fnp.sin), dense_point()
    wanted = entries_by_hand(x)

    def stacked(x):
        return fnp.stack(f(x))

    def assigned(x):
        out = fnp.zeros(len(x))
        for i in range(len(x)):
            out[i] = x[i] * x[i - 1] + fnp.sin(x[i])
        return out

    calls = {"stacked": fg.jacobian(stacked), "assigned": fg.jacobian(assigned),
             "stacked, reverse": fg.jacobian(stacked, mode="reverse")}
    for name, call in calls.items():
        check(f"dense Jacobian, {name}", call(x), wanted)
    calls = {name: lambda call=call: call(x) for name, call in calls.items()}
    leaf = fg.tensor(x, requires_grad=True)
    calls["value recorded"] = lambda: stacked(leaf)
    peer = None
    if importlib.util.find_spec("torch"):
        peer = calls["torch.func.jacrev"] = Peer(dense_by_torch)
        check("dense Jacobian, PyTorch", peer.result, wanted)
    seconds = in_turn(quick, **calls)
    lines = times(f"Jacobian n={DENSE}", seconds)
    if peer is None:
        return [*lines, skipped("PyTorch is not installed")]
    peer.stop()
    ratio = seconds["stacked"] / seconds["torch.func.jacrev"]
    return [*lines, line("dense Jacobian, against torch.func.jacrev", ratio, "times", 1 / 20)]


def stencil_map(x):
    """Map n numbers to n - 2: each from three neighbours."""
    return x[1:-1] * (x[2:] - x[:-2]) + np.sin(x[1:-1])


def stencil(quick=False):
    """Sparse Jacobian of a three-wide stencil, against its value."""
    import fastgrad as fg

    n = 10**4 if quick else 10**5
    x = np.random.default_rng(0).uniform(-2, 2, size=n)
    try:
        jacobian = fg.jacobian(stencil_map, sparse=True)
        first, J = once(lambda: jacobian(x))
    except ImportError as error:
        return [skipped(str(error))]
    rows = np.arange(n - 2)
    for shift, wanted in ((0, -x[1:-1]), (1, x[2:] - x[:-2] + np.cos(x[1:-1])), (2, x[1:-1])):
        check("sparse Jacobian", J[rows, rows + shift], wanted)
    check("entries of the sparse Jacobian", J.nnz, 3 * (n - 2))
    seconds = in_turn(quick, value=lambda: stencil_map(x), jacobian=lambda: jacobian(x))
    value = seconds["value"]
    return [
        *times(f"stencil n={n}", seconds),
        line("sparse Jacobian of a stencil, first call, against its value",
             first / value, "times", 60),
        line("sparse Jacobian of a stencil, later calls, against its value",
             seconds["jacobian"] / value, "times", 10),
    ]


def rosenbrock_of(x):
    """Rosenbrock's function, written with slices."""
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def rosenbrock(quick=False):
    """Sparse Hessian of Rosenbrock's function, against its value."""
    import fastgrad as fg

    n = 1000
    x = np.random.default_rng(0).uniform(-2, 2, size=n)
    try:
        hessian = fg.hessian(rosenbrock_of, sparse=True)
        first, H = once(lambda: hessian(x))
    except ImportError as error:
        return [skipped(str(error))]
    diagonal = np.zeros(n)
    diagonal[:-1] += 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    diagonal[1:] += 200
    wanted = np.diag(diagonal) + np.diag(-400 * x[:-1], 1) + np.diag(-400 * x[:-1], -1)
    check("sparse Hessian", H.toarray(), wanted)
    gradient = fg.grad(rosenbrock_of)
    seconds = in_turn(quick, value=lambda: rosenbrock_of(x), gradient=lambda: gradient(x),
                      hessian=lambda: hessian(x))
    value = seconds["value"]
    return [
        *times(f"rosenbrock n={n}", seconds),
        line("sparse Hessian of Rosenbrock, first call, against its value",
             first / value, "times"),
        line("sparse Hessian of Rosenbrock, later calls, against its value",
             seconds["hessian"] / value, "times", 20),
    ]


def once(call):
    """Return the seconds of one call, and its result."""
    started = clock()
    result = call()
    return clock() - started, result


def forward(quick=False):
    """Forward mode over ten million operations: it forgets each as soon as it has its tangent."""
    import fastgrad as fg

    lines = []
    for count in (10**5, 10**6 if quick else 10**7):
        steps, x = count // 2, 1.0 / count

        def f(x, steps=steps):
            y = x
            for _ in range(steps):
                y = y * x + y
            return y

        fg.jvp(f, (x,), (1.0,), steps=10)         # the first use of everything
        reset_peak()
        before = resident()
        seconds, found = once(lambda f=f, x=x: fg.jvp(f, (x,), (1.0,)))
        growth = peak() - before
        power = math.exp(steps * math.log1p(x))         # y = x (1 + x)^steps
        check("jvp of a long loop", found, (x * power, power + steps * x * power / (1 + x)), 1e-8)
        title = f"{count:.0e} operations forward".replace("e+0", "e")
        lines += [line(f"{title}: an operation", seconds / count * 1e9, "ns"),
                  line(f"{title}: growth of memory", growth / MEGABYTE, "MB", 1.0)]
    return lines


BRANCHES = 100
SHAPES = ((1000, 0), (10, 100_000))     # operations in a branch, entries (0: a float)


def branches(wanted=None, length=1000, size=0):
    """Return 100 leaves, and the sum of a branch of `length` operations from each; or of one."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    sin = fnp.sin
    starts = [0.5 + i / BRANCHES for i in range(BRANCHES)]
    leaves = [fg.tensor(np.full(size, x) if size else x, requires_grad=True) for x in starts]
    total = None
    for leaf in leaves if wanted is None else [leaves[wanted]]:
        branch = leaf
        for _ in range(length // 2):
            branch = sin(branch) * 1.01
        branch = branch.sum() if size else branch
        total = branch if total is None else total + branch
    return leaves, total


def branch_by_hand(wanted, length):
    """Return the slope of a branch."""
    y, slope = 0.5 + wanted / BRANCHES, 1.0
    for _ in range(length // 2):
        y, slope = math.sin(y) * 1.01, math.cos(y) * 1.01 * slope
    return slope


def pruning(quick=False):
    """A sweep where one branch of a hundred feeds the wanted leaf."""
    import fastgrad as fg

    lines = []
    wanted = BRANCHES // 2
    for length, size in SHAPES:
        title = f"branches of {length} on " + (f"arrays of {size}" if size else "floats")
        leaves, total = branches(length=length, size=size)
        alone_leaves, alone = branches(wanted, length, size)
        slope = branch_by_hand(wanted, length)
        for some, y in ((leaves, total), (alone_leaves, alone)):
            found = fg.gradients(y, some[wanted], retain_graph=True).numpy()
            check("pruned sweep", found, np.full(found.shape, slope))
        seconds = in_turn(
            quick,
            that_branch_alone=lambda y=alone, w=alone_leaves[wanted]: (
                fg.gradients(y, w, retain_graph=True)),
            one_leaf=lambda y=total, w=leaves[wanted]: fg.gradients(y, w, retain_graph=True),
            all_leaves=lambda y=total, w=leaves: fg.gradients(y, w, retain_graph=True),
        )
        lines += times(f"sweep, {title}", seconds)
        ratio = seconds["one_leaf"] / seconds["that_branch_alone"]
        lines.append(line(f"one leaf, {title}, against that branch alone", ratio, "times", 1.2))
    return lines


def skipped(reason):
    """Return a line for what cannot be measured here."""
    return {"what": f"skipped: {reason}", "value": None, "unit": "", "limit": None,
            "reached": None}


ROWS = {row.__name__: row for row in (jvp, hvp, dense, stencil, rosenbrock, forward, pruning)}


# ---- running them --------------------------------------------------------------------------


def run_apart(name, quick):
    """Run one row in a process of its own; return it with `lines` or `error`."""
    command = [sys.executable, str(HERE / "derivatives.py"), "--json", "--row", name]
    try:
        done = subprocess.run(command + ["--quick"] * quick, capture_output=True, text=True,
                              timeout=TIMEOUT, env=os.environ | ENVIRONMENT)
    except subprocess.TimeoutExpired:
        return {"row": name, "error": f"not done after {TIMEOUT} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"row": name, "error": f"exit {done.returncode}: {last}"}
    return json.loads(done.stdout)


def markdown(report):
    """Return the report as one page."""
    parts = ["# fastgrad: derivatives of every kind", ""]
    parts += [f"- {name}: {value}" for name, value in report["machine"].items()]
    parts += ["- medians of rounds taken in turn; every result compared with a closed form first",
              ""]
    reached = {True: "reached", False: "**not reached**", None: ""}
    rows = []
    for row in report["rows"]:
        if "error" in row:
            rows.append([f"{row['row']}: {row['error']}", "**failed**", "", "", ""])
        for entry in row.get("lines", ()):
            value, limit = entry["value"], entry["limit"]
            shown = "" if value is None else (
                microseconds(value / 1e6) if entry["unit"] == "us" else f"{value:.3g}")
            rows.append([entry["what"], shown, entry["unit"],
                         "" if limit is None else f"{limit:.3g}", reached[entry["reached"]]])
    return "\n".join([*parts, table(["", "measured", "unit", "at most", ""], rows), ""])


def main(arguments=None):
    """Run the rows; return 1 if one failed."""
    parser = argparse.ArgumentParser(description="Derivatives other than the gradient.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes")
    parser.add_argument("--json", action="store_true", help="print JSON, one object for a row")
    parser.add_argument("--row", choices=ROWS, help="this row only, in this process")
    parser.add_argument("--output", type=Path, help="folder to write the report to as well")
    parser.add_argument("--clock", choices=CLOCKS, default=os.environ.get(CLOCK, "wall"),
                        help="the time on the wall, or of the calling thread")
    options = parser.parse_args(arguments)
    os.environ.update(ENVIRONMENT | {CLOCK: options.clock})    # before fastgrad is imported
    report = {"machine": machine() | {"clock": options.clock}, "rows": []}
    for name in [options.row] if options.row else ROWS:
        if options.row:
            result = {"row": name, "lines": ROWS[name](options.quick)}
        else:
            result = run_apart(name, options.quick)
        report["rows"].append(result)
        if options.json:
            print(json.dumps(result), flush=True)
    page = markdown(report)
    if not options.json:
        print(page)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "derivatives.md").write_text(page)
        (options.output / "derivatives.json").write_text(json.dumps(report, indent=1))
    return 1 if any("error" in row for row in report["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
