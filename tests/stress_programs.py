"""Thousands of random programs, compiled against not compiled.

    python tests/stress_programs.py [--count 10000] [--seed 0] [--first 0] [--only values]
                                    [--jobs 1] [--no-shrink] [--keep-going 10]

Prints each program that differs, with the numbers that draw it again, in as few lines as still
differ; returns 1 if there is one. A program that ends the process is found too, where `--jobs` is
at least 1: its number is printed.
"""

import argparse
import collections
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).parents[1]), str(pathlib.Path(__file__).parent)]

import random_programs

def run(job):
    """Check programs and send what was found: (k, None or text, seconds)."""
    seed, numbers, only, shrink, name, pipe = job
    compile = random_programs.ENGINES[name]
    for k in numbers:
        pipe.send(("start", k))
        started = time.perf_counter()
        text = random_programs.draw(seed, k)
        difference = random_programs.check(text, compile, only)
        report = None
        if difference is not None:
            if shrink:
                text, difference = random_programs.shrink(text, difference, compile)
            report = difference.name, difference.kind, str(difference), str(text)
        pipe.send(("done", k, report, time.perf_counter() - started))
    pipe.send(("end",))


def worker(job):
    """Start a process; return it and the pipe it reports to."""
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=((*job, theirs),), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def main(arguments=None):
    """Run them; return 1 if one differs."""
    parser = argparse.ArgumentParser(description="Random programs, compiled and not.")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument("--only", choices=random_programs.COMPARISONS)
    parser.add_argument("--engine", choices=random_programs.ENGINES,
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
    queues = [list(range(options.first + j, last, options.jobs)) for j in range(options.jobs)]
    alive = {}

    def start(numbers):
        process, pipe = worker((options.seed, numbers, options.only, not options.no_shrink,
                                options.engine))
        alive[pipe] = [process, numbers, None, time.perf_counter()]

    def differs(k, name, kind, message, text):
        kinds[name, kind] += 1
        differing.append(k)
        print(f"---- seed {options.seed}, program {k}: {message}\n{text}\n", flush=True)

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
                    ended = f"the process ended with {process.exitcode}"
                else:
                    if message[0] == "end":
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
            elif current is not None and time.perf_counter() - since > options.patience:
                process.kill()
                ended = f"not done after {options.patience:g} s"
            if ended:
                del alive[pipe]
                checked += 1
                text = random_programs.draw(options.seed, current)
                differs(current, "process", ended, ended, text)
                rest = numbers[numbers.index(current) + 1:] if current in numbers else []
                if rest:
                    start(rest)
        if len(differing) >= options.keep_going:
            for process, *_ in alive.values():
                process.kill()
            break
    print(f"{checked} programs, {len(differing)} differ, {time.perf_counter() - started:.0f} s")
    for (name, kind), count in kinds.most_common():
        print(f"    {count:6} {name}: {kind}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
