"""Random programs by the thousand, each in a process that may die.

    python tests/stress_programs.py [--seed 0] [--count 10000] [--first 0] [--only forward]
                                    [--jobs 1] [--no-shrink] [--keep-going 10]

Prints each program that differs from its oracle, or ends its process, or does not end, with the
numbers that draw it again and in as few lines as still do so; returns 1 if there is one. What the
programs are is told in random_programs.py, what they are asked in random_checks.py.

With a sanitiser build (see the head of setup.py) what it needs in the environment is inherited by
the processes; what the sanitiser says of the smallest program is printed with it.
"""

import argparse
import collections
import faulthandler
import gc
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parent)]

import random_checks
import random_oracle
import random_programs

CONTEXT = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
SHRINKING = 90.0        # seconds for one program


def run(job, pipe):
    """Check programs and send what was found: (k, None or text, seconds)."""
    seed, numbers, only, shrink, engine = job
    compile = random_checks.ENGINES[engine]
    gc.collect()
    gc.freeze()         # collections look at what the programs themselves make
    for k in numbers:
        pipe.send(("start", k))
        text = random_programs.draw(seed, k)
        difference = random_checks.check(text, compile, only)
        report = None
        if difference is not None:
            if shrink:
                text, difference = random_checks.shrink(text, difference, compile,
                                                        seconds=SHRINKING)
            report = difference.name, difference.kind, str(difference), str(text)
        pipe.send(("done", k, report))
    pipe.send(("end", dict(random_oracle.skipped)))


def worker(target, *arguments):
    """Start a process; return it and the pipe it reports to."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


# ---- programs that end their process --------------------------------------------------------

def trial(text, engine, name, errors, pipe):
    """Check one program and send what differs."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    faulthandler.enable(sys.__stderr__)
    found = random_checks.check(text, random_checks.ENGINES[engine], name)
    pipe.send(found and (found.name, found.kind, str(found)))


def apart(engine, patience):
    """`random_checks.check` in a process of its own: that it ends or does not end is a Difference,
    too, which holds the last lines that it wrote."""
    def check(text, compile=None, name=None):
        with tempfile.TemporaryDirectory() as folder:
            errors = os.path.join(folder, "stderr")
            process, pipe = worker(trial, text, engine, name, errors)
            try:
                found = pipe.recv() if pipe.poll(patience) else "hangs"
            except EOFError:
                process.join()
                found = f"ends with {process.exitcode}"
            process.kill()
            process.join()
            if found is None:
                return None
            if isinstance(found, tuple):
                difference = random_checks.Difference(found[1], found[2])
                difference.name = found[0]
                return difference
            said = ""
            if os.path.exists(errors):
                said = pathlib.Path(errors).read_text(errors="replace")[:4000]
            difference = random_checks.Difference("process", f"{found}\n{said}")
            difference.name = name
            return difference
    return check


def smallest(text, engine, only, patience, shrink):
    """The comparison in which a program ends its process, and the smallest one that still does."""
    check = apart(engine, patience)
    for name in [only] if only else random_checks.COMPARISONS:
        difference = check(text, None, name)
        if difference is not None and difference.kind == "process":
            difference.name = name
            if shrink:
                text, difference = random_checks.shrink(text, difference, None, check, SHRINKING)
            return text, difference
    return text, None


def main(arguments=None):
    """Run them; return 1 if one differs."""
    parser = argparse.ArgumentParser(description="Random programs against their oracles.")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument("--only", choices=random_checks.COMPARISONS)
    parser.add_argument("--engine", choices=random_checks.ENGINES,
                        default="compile", help="plan: the executor without fg.compile; replay: "
                        "the recording without the executor; nothing: a test of this test")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--no-shrink", action="store_true", help="show programs as drawn")
    parser.add_argument("--keep-going", type=int, default=10**9, help="stop at so many differences")
    parser.add_argument("--patience", type=float, default=120, help="seconds for a program")
    options = parser.parse_args(arguments)

    started = time.perf_counter()
    last = options.first + options.count
    kinds, checked, differing = collections.Counter(), 0, []
    skipped = collections.Counter()
    queues = [list(range(options.first + j, last, options.jobs)) for j in range(options.jobs)]
    alive = {}

    def start(numbers):
        process, pipe = worker(run, (options.seed, numbers, options.only, not options.no_shrink,
                                     options.engine))
        alive[pipe] = [process, numbers, None, time.perf_counter()]

    def differs(k, name, kind, message, text):
        kinds[name, kind] += 1
        differing.append(k)
        print(f"---- seed {options.seed}, program {k}: {message}\n{text}\n", flush=True)

    def died(current, ended):
        text = random_programs.draw(options.seed, current)
        text, difference = smallest(text, options.engine, options.only, options.patience,
                                    not options.no_shrink)
        if difference is None:
            differs(current, "process", ended, f"{ended}, but alone it does not", text)
        else:
            differs(current, difference.name, ended, f"{difference.name}: {difference}", text)

    for numbers in queues:
        if numbers:
            start(numbers)
    while alive:
        for pipe in multiprocessing.connection.wait(list(alive), 1.0) or list(alive):
            process, numbers, current, since = alive[pipe]
            ended = None
            if pipe.poll():
                try:
                    message = pipe.recv()
                except EOFError:
                    process.join()
                    ended = f"the process ends with {process.exitcode}"
                else:
                    if message[0] == "end":
                        skipped.update(message[1])
                        del alive[pipe]
                    elif message[0] == "start":
                        alive[pipe][2:] = message[1], time.perf_counter()
                    else:
                        checked += 1
                        if message[2] is not None:
                            differs(message[1], *message[2])
                        if checked % 500 == 0:
                            print(f"{checked} programs, {len(differing)} differ, "
                                  f"{time.perf_counter() - started:.0f} s", flush=True)
            elif current is not None and time.perf_counter() - since > options.patience + (
                    0 if options.no_shrink else SHRINKING):
                process.kill()
                ended = f"not done after {options.patience:g} s"
            if ended:
                del alive[pipe]
                if current is None:
                    differs(None, "process", ended, ended, "no program was begun")
                    continue
                checked += 1
                died(current, ended)
                rest = numbers[numbers.index(current) + 1:]
                if rest:
                    start(rest)
        if len(differing) >= options.keep_going:
            for process, *_ in alive.values():
                process.kill()
            break
    print(f"{checked} programs, {len(differing)} differ, {time.perf_counter() - started:.0f} s")
    if skipped["of"]:
        print(f"the oracle could not tell {skipped['entries']} of {skipped['of']} entries")
    for (name, kind), count in kinds.most_common():
        print(f"    {count:6} {name}: {kind}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
