"""What recording holds in memory, and that it gives it back.

    python benchmarks/memory.py [--quick] [--json] [--row NAME]

Every row runs in a process of its own, because memory that an earlier row gave back to the pool
would hide what a later one takes. A line is one measured number; where the project has set itself
a limit, the line says whether it is reached.

    operations  bytes the tape holds per recorded operation: scalars, constants, vectors
    long        ten million operations: record, reverse, free, and once more from the pool
    leaf        one leaf in a million small graphs that are all kept: the cost of each sweep
    training    a million steps of gradient descent: resident memory is flat
    loss        a million losses computed and dropped: resident memory is flat
    filling     fnp.zeros(100000) filled entry by entry, forward and reverse
    programs    what a compiled value and gradient needs, against the recorded one
"""

import argparse
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

MEGABYTE = 2**20
TIMEOUT = 1800


def line(what, value, unit, limit=None):
    """Return one measured number, and whether it is within its limit."""
    reached = None if limit is None else bool(value <= limit)
    return {"what": what, "value": value, "unit": unit, "limit": limit, "reached": reached}


def resident():
    """Return the bytes of this process that are in memory."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:         # not Linux: the peak, which never falls
        return peak()


def peak():
    """Return the most bytes that were in memory since `reset_peak`."""
    try:
        with open("/proc/self/status") as file:
            return next(int(row.split()[1]) * 1024 for row in file if row.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak():
    """Start the peak anew where the system allows it (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def slope(x, y):
    """Return the slope of the straight line through the points (least squares)."""
    return float(np.polyfit(x, y, 1)[0])


# ---- rows ----------------------------------------------------------------------------------


def both(y, x, sin):
    """Use two recorded operands: three operations."""
    return sin(y) * x + y


def constant(y, x, sin):
    """Use a constant operand: two operations."""
    return y * 1.0001 + 0.5


def reflected(y, x, sin):
    """Use a constant operand on the left: two operations."""
    return 0.5 - 0.9999 * y


N = 1000
KINDS = {       # name: a step, operations in it, whether it works on N numbers
    "scalars, y = sin(y)*x + y": (both, 3, False),
    "scalars and constants, y = y*1.0001 + 0.5": (constant, 2, False),
    "constants on the left, y = 0.5 - 0.9999*y": (reflected, 2, False),
    f"vectors of {N}, y = sin(y)*x + y": (both, 3, True),
    f"vectors of {N} and constants, y = y*1.0001 + 0.5": (constant, 2, True),
}


def recorded(kind, count):
    """Return a leaf, and the result of about `count` operations on it."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    step, size, vectors = KINDS[kind]
    sin = fnp.sin
    x = fg.tensor(np.linspace(-1, 1, N) if vectors else 0.01, requires_grad=True)
    y = x
    for _ in range(count // size):
        y = step(y, x, sin)
    return x, y.sum() if vectors else y


def held(kind, count):
    """Return the bytes of the tape, and the number of its nodes, after `count` operations."""
    import fastgrad as fg

    with fg.record() as tape:
        alive = recorded(kind, count)
        result = tape.nbytes, len(tape)
    del alive
    return result


def grown(kind, count):
    """Return the growth of resident memory by recording, and of its peak by reversing as well.

    For a new process: the pool would give again what it has.
    """
    recorded(kind, 30)[1].backward()        # the first use of everything
    reset_peak()
    before = resident()
    alive = recorded(kind, count)
    after = resident()
    alive[1].backward()
    return after - before, peak() - before


def operations(quick=False):
    """Bytes held against the number of operations."""
    lines = []
    for kind, (step, _, vectors) in KINDS.items():
        counts = [30, 300, 3_000] if vectors else [3_000, 30_000, 300_000]
        if quick:
            counts = [count // 10 for count in counts]
        tape, nodes = zip(*(held(kind, count) for count in counts), strict=True)
        many = 3_000 if vectors and step is both else 300_000
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            growth, most = pool.apply(grown, (kind, many))
        limits = (None, None) if vectors else (64, 64 + 8)
        lines += [
            line(f"{kind}: tape", slope(counts, tape), "B/operation", limits[0]),
            line(f"{kind}: nodes", slope(counts, nodes), "/operation"),
            line(f"{kind}: resident", growth / many, "B/operation"),
            line(f"{kind}: peak until reversed", most / many, "B/operation", limits[1]),
        ]
        if vectors:
            share = slope(counts, tape) / (8 * N)
            lines.append(line(f"{kind}: arrays held", share, "/operation"))
    return lines


def long(quick=False):
    """Record, reverse and free a chain of ten million scalar operations."""
    import fastgrad as fg

    lines, per_operation = [], []
    counts = (10**5, 10**6) if quick else (10**6, 10**7)
    floor = resident()
    first_peak = 0
    for count, again in ((counts[0], ""), (counts[1], ""), (counts[1], ", again")):
        times, memory = [], [resident()]
        x = fg.tensor(1.0 / count, requires_grad=True)
        reset_peak()
        times.append(time.perf_counter())
        y = x
        for _ in range(count // 2):
            y = y * x + y
        times.append(time.perf_counter())
        memory.append(resident())
        value = y.item()
        times.append(time.perf_counter())
        y.backward()
        times.append(time.perf_counter())
        memory.append(peak())
        del y
        times.append(time.perf_counter())
        memory.append(resident())

        steps, x0 = count // 2, 1.0 / count         # y = x (1 + x)^steps
        power = math.exp(steps * math.log1p(x0))
        wanted = x0 * power, power + steps * x0 * power / (1 + x0)
        got = value, x.grad.item()
        if not np.allclose(got, wanted, rtol=1e-8, atol=0):
            raise AssertionError(f"value and slope are {got}, not {wanted}")

        record, reverse, free = times[1] - times[0], times[3] - times[2], times[4] - times[3]
        per_operation.append((record + reverse + free) / count * 1e9)
        title = f"{count:.0e} operations{again}".replace("e+0", "e")
        lines += [
            line(f"{title}: record", record / count * 1e9, "ns/operation"),
            line(f"{title}: reverse", reverse / count * 1e9, "ns/operation"),
            line(f"{title}: free", free / count * 1e9, "ns/operation"),
            line(f"{title}: resident after recording", (memory[1] - floor) / count, "B/operation"),
            line(f"{title}: peak while reversing", (memory[2] - floor) / count, "B/operation"),
            line(f"{title}: resident after freeing", (memory[3] - floor) / count, "B/operation"),
        ]
        if again:
            growth = (memory[2] - first_peak) / MEGABYTE
            lines.append(line(f"{title}: peak above that of the first", growth, "MB", 4.0))
        first_peak = memory[2]
    ratio = min(per_operation[1:]) / per_operation[0]
    lines.append(line(f"time per operation, {counts[1]:.0e} against {counts[0]:.0e}".replace(
        "e+0", "e"), ratio, "times", 1.5))
    return lines


def leaf(quick=False):
    """Use one leaf in a million small graphs, keep the losses, and reverse each of them."""
    import fastgrad as fg

    counts = (10**3, 10**5) if quick else (10**3, 10**6)
    batch = 500
    typical, lines = [], []
    for count in counts:
        w = fg.tensor(3.0, requires_grad=True)
        before = resident()
        losses = [w * w + 1.0 for _ in range(count)]
        grown = resident() - before
        times = []
        for start in range(0, count, batch):
            some = losses[start : start + batch]
            t = time.perf_counter()
            for loss in some:
                loss.backward()
            times.append((time.perf_counter() - t) / batch * 1e9)
        if w.grad.item() != 6.0 * count:
            raise AssertionError(f"the slope is {w.grad.item()}, not {6.0 * count}")
        typical.append(median(times))
        lines += [
            line(f"{count} graphs kept: a sweep, typically", typical[-1], "ns"),
            line(f"{count} graphs kept: a sweep, slowest batch of {batch}", max(times), "ns"),
            line(f"{count} graphs kept: resident, with the handles", grown / count, "B/graph"),
        ]
        del losses, some, loss
    # Twice: a graph recorded long ago has left the cache.
    title = f"a sweep, {counts[1]} graphs kept against {counts[0]}"
    lines.append(line(title, typical[1] / typical[0], "times", 2.0))
    return lines


def flat(body, count):
    """Run `body` count times; return seconds, and the growth of memory after the first tenth."""
    tenth = count // 10
    started = time.perf_counter()
    for _ in range(tenth):
        body()
    settled = resident()
    for _ in range(count - tenth):
        body()
    return time.perf_counter() - started, resident() - settled


def flat_lines(title, body, count):
    """Return the lines of `flat`."""
    seconds, growth = flat(body, count)
    return [
        line(f"{title}: an iteration", seconds / count * 1e6, "us"),
        line(f"{title}: growth in {count} iterations", growth / MEGABYTE, "MB", 0.5),
    ]


def training(quick=False):
    """Repeat loss, backward and update without any `with` around the recording."""
    import fastgrad as fg

    lines = []
    for title, start in (("vector of 10", np.ones(10)), ("scalar", 1.0)):
        w = fg.tensor(start, requires_grad=True)

        def body(w=w):
            loss = ((w * 3.0 - 1.0) ** 2).sum()
            loss.backward()
            with fg.no_grad():
                w -= 1e-3 * w.grad
            w.grad = None

        lines += flat_lines(f"training, {title}", body, 10**5 if quick else 10**6)
        if not np.allclose(w.detach().numpy(), 1 / 3, atol=1e-3):
            raise AssertionError(f"the minimum is {w}, not 1/3")
    return lines


def loss(quick=False):
    """Compute losses that are never reversed."""
    import fastgrad as fg

    lines = []
    for title, start in (("vector of 10", np.ones(10)), ("scalar", 1.0)):
        w = fg.tensor(start, requires_grad=True)
        held = []

        def body(w=w, held=held):
            held[:] = [((w * 3.0 - 1.0) ** 2).sum()]    # the old one dies after the new is there

        lines += flat_lines(f"loss alone, {title}", body, 10**5 if quick else 10**6)
    return lines


def filling(quick=False):
    """Fill an array entry by entry with recorded numbers, and reverse that."""
    import fastgrad as fg
    import fastgrad.numpy as fnp

    def filled_with(n, entry):
        def f(x):
            out = fnp.zeros(n)
            for i in range(n):
                out[i] = entry(x, i)
            return fnp.sum(out)

        return f

    lines = []
    counts = (10**3, 10**4) if quick else (10**4, 10**5)
    for title, entry, slope_for in (
        ("out[i] = x", lambda x, i: x, lambda n: n),
        ("out[i] = x * i", lambda x, i: x * i, lambda n: n * (n - 1) / 2),
    ):
        times = []
        for n in counts:
            step = fg.value_and_grad(filled_with(n, entry))
            rounds = []
            for _ in range(5):
                started = time.perf_counter()
                _, gradient = step(1.5)
                rounds.append(time.perf_counter() - started)
                if gradient != slope_for(n):
                    raise AssertionError(f"the slope is {gradient}, not {slope_for(n)}")
            times.append(min(rounds))
            limit = 50.0 if n == 10**5 and title == "out[i] = x" else None
            lines.append(line(f"{title}, {n} times", times[-1] * 1e3, "ms", limit))
        ratio = (times[1] / counts[1]) / (times[0] / counts[0])
        lines.append(line(f"{title}: time per entry, {counts[1]} against {counts[0]}",
                          ratio, "times", 1.5))
    return lines


PROGRAMS = ("chain, 999 scalar operations", "vector of 10^6, element-wise",
            "vector of 10^6, 100 steps of sin(y)*x + y", "perceptron 784-512-10, batch 128")


def program_of(title):
    """Return a function and its arguments."""
    import fastgrad.numpy as fnp

    sin, exp, tanh, total = fnp.sin, fnp.exp, fnp.tanh, fnp.sum

    def steps(count):
        def f(x):
            y = x
            for _ in range(count):
                y = sin(y) * x + y
            return total(y)

        return f

    rng = np.random.default_rng(0)
    if title.startswith("chain"):
        return steps(333), (0.01,)
    if title.startswith("perceptron"):
        x, v, w = (rng.normal(scale=0.05, size=shape) for shape in
                   ((128, 784), (784, 512), (512, 10)))
        return lambda v, w: total(tanh(tanh(x @ v) @ w) ** 2), (v, w)
    x = rng.uniform(-2, 2, 10**6)
    if "100 steps" in title:
        return steps(100), (x * 0.01,)
    return lambda x: total(sin(x) * exp(-x * x) + tanh(x) * x), (x,)


def program_growth(title, compiled):
    """Return bytes: growth of the peak by the first call of value and gradient.

    For a new process: later calls find again what the first one took.
    """
    import fastgrad as fg

    f, arguments = program_of(title)
    step = fg.value_and_grad(f, tuple(range(len(arguments))))
    step = fg.compile(step) if compiled else step
    before = resident()
    reset_peak()
    step(*arguments)
    return peak() - before


def programs(quick=False):
    """What a compiled value and gradient needs, against the recorded one."""
    import fastgrad as fg

    lines = []
    for title in PROGRAMS[:2] if quick else PROGRAMS:
        f, arguments = program_of(title)
        leaves = [fg.tensor(x, requires_grad=True) for x in arguments]
        with fg.record() as tape:
            alive = f(*leaves)
            held = tape.nbytes
        del alive
        every = tuple(range(len(arguments)))
        compiled = fg.compile(fg.value_and_grad(f, every))
        wanted, found = fg.value_and_grad(f, every)(*arguments), compiled(*arguments)
        for x, y in zip(found[1], wanted[1], strict=True):
            if not np.allclose(x, y, rtol=1e-10):
                raise AssertionError(f"{title}: another gradient than the recorded one")
        plan = compiled.memory_plan()
        needed = plan["frame"] + plan["blocks"] + 8 * plan["registers"]
        lines += [
            line(f"{title}: the tape of the value", held / MEGABYTE, "MB"),
            line(f"{title}: planned for value and gradient", needed / MEGABYTE, "MB"),
            line(f"{title}: planned, of the tape", needed / held, "times"),
        ]
        if plan["bound"]:
            ratio = plan["frame"] / plan["bound"]
            lines.append(line(f"{title}: arrays, of the least possible", ratio, "times", 1.15))
        for what, how in (("recorded", False), ("compiled", True)):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                growth = pool.apply(program_growth, (title, how))
                lines.append(line(f"{title}: peak of a first call, {what}", growth / MEGABYTE,
                                  "MB"))
    return lines


ROWS = {row.__name__: row for row in (operations, long, leaf, training, loss, filling, programs)}


# ---- running them --------------------------------------------------------------------------


def run_apart(name, quick):
    """Run one row in a process of its own.

    Returns
    -------
    dict
        `row`, and either `lines` or `error`.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--json", "--row", name]
    try:
        done = subprocess.run(
            command + ["--quick"] * quick, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return {"row": name, "error": f"not done after {TIMEOUT} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"row": name, "error": f"exit {done.returncode}: {last}"}
    return json.loads(done.stdout)


def show(result):
    """Print a row."""
    print(f"{result['row']}: {ROWS[result['row']].__doc__}")
    if "error" in result:
        print(f"    FAILED  {result['error']}")
    for entry in result.get("lines", ()):
        verdict = ""
        if entry["limit"] is not None:
            verdict = "reached" if entry["reached"] else "NOT REACHED"
            verdict = f"  at most {entry['limit']:g}: {verdict}"
        print(f"    {entry['what']:66} {entry['value']:12.4g} {entry['unit']}{verdict}")
    print(flush=True)


def main(arguments=None):
    """Run the rows; return 1 if one failed or missed its limit."""
    parser = argparse.ArgumentParser(description="What recording holds in memory.")
    parser.add_argument("--quick", action="store_true", help="ten to a hundred times less of it")
    parser.add_argument("--json", action="store_true", help="print JSON, one object for a row")
    parser.add_argument("--row", choices=ROWS, help="this row only, in this process")
    options = parser.parse_args(arguments)

    good = True
    for name in [options.row] if options.row else ROWS:
        if options.row:
            result = {"row": name, "lines": ROWS[name](options.quick)}
        else:
            result = run_apart(name, options.quick)
        if options.json:
            print(json.dumps(result), flush=True)
        else:
            show(result)
        entries = result.get("lines", ())
        good &= "error" not in result and all(e["reached"] is not False for e in entries)
    return 0 if good or options.row else 1


if __name__ == "__main__":
    sys.exit(main())
