"""Functions that count, keep a history, print, log, or tell somebody."""

import collections
import io
import itertools
import logging

import numpy as np
from worlds import written


@written()
def count_calls():
    class Stats:
        calls = 0

    stats = Stats()

    def f(x):
        stats.calls += 1
        return np.sum(x ** 2)

    yield f, stats


@written()
def count_by_itertools():
    steps = itertools.count(1)

    def f(x):
        return np.sum(x) / next(steps)

    yield f, lambda: repr(steps)


@written()
def count_by_bound_next():
    step = itertools.count(1).__next__

    def f(x):
        return np.sum(x) / step()

    yield f


@written()
def count_branches():
    counts = {"up": 0, "down": 0}

    def f(x):
        if x[0] > 1:
            counts["up"] += 1
            return np.sum(x)
        counts["down"] += 1
        return -np.sum(x)

    yield f, counts


@written()
def append_value():
    values = []

    def f(x):
        value = np.sum((x - 1.0) ** 2)
        values.append(value)
        return value

    yield f, values


@written()
def append_float():
    values = []

    def f(x):
        value = np.sum((x - 1.0) ** 2)
        values.append(float(value))
        return value

    yield f, values


@written()
def history_bounded():
    recent = collections.deque(maxlen=2)

    def f(x):
        recent.append(np.sum(x))
        return sum(recent) / len(recent)

    yield f, recent


@written()
def history_array():
    trajectory, step = np.zeros((6, 3)), itertools.count()

    def f(x):
        trajectory[next(step)] = x
        return np.sum(x * x)

    yield f, trajectory


@written()
def history_decides():
    seen = [0.0]

    def f(s):
        value = s * s
        if value > seen[-1]:
            seen.append(value)
            return value
        return -value

    yield f, seen


@written()
def history_mean():
    history = []

    def f(s):
        history.append(s)
        return sum(history) / len(history)

    yield f, history


@written()
def print_value():
    def f(x):
        value = np.sum(x)
        print(f"value {value:.3f}")
        return value * 2

    yield f


@written()
def print_to_file():
    out = io.StringIO()

    def f(x):
        print("called", len(x), file=out)
        return np.sum(x)

    yield f, out


def _logger(name, lines):
    logger = logging.Logger(name)
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    return logger


@written()
def log_value():
    lines = []
    logger = _logger("values", lines)

    def f(x):
        value = np.sum(x)
        logger.warning("value %.3f", value)
        return value

    yield f                             # (what is logged is logged when it is recorded)


@written()
def log_level():
    lines = []
    logger = _logger("levels", lines)
    logger.setLevel(logging.ERROR)

    def f(x):
        if logger.isEnabledFor(logging.INFO):
            logger.info("at %s", len(x))
            return np.sum(x) + 1
        return np.sum(x)

    yield f, lines
    for level in (logging.ERROR, logging.INFO, logging.DEBUG, logging.ERROR, logging.INFO):
        logger.setLevel(level)
        yield


@written()
def warn_once():
    said = []

    def f(x):
        if not said:
            said.append("slow")
        return np.mean(x)

    yield f, said
    yield
    said.clear()
    yield


@written()
def callback_called():
    told = []
    callback = told.append

    def f(x):
        for _ in range(2):
            x = x - 0.1 * (x - 1)
            callback(np.sum(x))
        return np.sum(x * x)

    yield f, told


@written()
def callback_stops():
    limit = 1.0

    def stop(value):
        return value < limit

    def f(s):
        value = s * s + 2.0
        for _ in range(4):
            value = value * 0.5
            if stop(value):
                break
        return value

    yield f
    for limit in (1.0, 0.5, 0.2, 3.0, 1.0):
        yield


@written()
def progress_object():
    class Progress:
        def __init__(self):
            self.steps, self.text = 0, ""

        def update(self, value):
            self.steps += 1
            self.text = f"{self.steps}: {value:.2f}"

    progress = Progress()

    def f(x):
        value = np.sum(np.cos(x))
        progress.update(value)
        return value

    yield f, progress


@written()
def best_seen():
    best = {"x": None, "value": np.inf}

    def f(x):
        value = np.sum((x - 0.5) ** 2)
        if value < best["value"]:
            best.update(x=np.copy(x), value=value)
        return value

    yield f, best


@written()
def evaluation_budget():
    budget = 3

    def f(x):
        nonlocal budget
        if budget == 0:
            raise RuntimeError("out of evaluations")
        budget -= 1
        return np.sum(x * x)

    yield f, lambda: budget
    yield
    yield
    yield
    yield
    budget = 1
    yield


@written()
def early_stopping():
    class Stopper:
        best, waited = np.inf, 0

        def __call__(self, s):
            loss = s * s
            if loss < self.best:
                self.best, self.waited = loss, 0
            else:
                self.waited += 1
            return loss * 0.0 if self.waited > 2 else loss

    stopper = Stopper()
    yield stopper, stopper


@written()
def running_mean_closed():
    total, number = 0.0, 0

    def f(x):
        nonlocal total, number
        total, number = total + np.mean(x), number + 1
        return total / number

    yield f, lambda: (total, number)


@written()
def exponential_average():
    average = 0.0

    def f(x):
        nonlocal average
        value = np.sum(x ** 2)
        average = 0.9 * average + 0.1 * value
        return value - average

    yield f, lambda: average


@written()
def bound_pop():
    stack = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    take = stack.pop

    def f(x):
        return np.sum(x) * take()

    yield f, stack
