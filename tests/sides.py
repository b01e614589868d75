"""A compiled function and its plain one side by side, each with state of its own."""

import collections
import contextlib
import copy
import sys
import types

import numpy as np

import fastgrad as fg


def description(x, seen=()):
    """A text of everything in x, whose parts must not be Tensors."""
    assert not fg.is_tensor(x), "a Tensor was left"
    if any(x is y for y in seen):
        return "again"
    seen = (*seen, x)
    if isinstance(x, (list, tuple, set, frozenset, collections.deque)):
        return type(x).__name__, [description(y, seen) for y in x]
    if isinstance(x, dict):
        return "dict", [(description(k, seen), description(v, seen)) for k, v in x.items()]
    if isinstance(x, types.FunctionType):
        return "function", [description(c.cell_contents, seen) for c in x.__closure__ or ()]
    if isinstance(x, (float, np.generic)):
        return type(x).__name__, repr(np.float64(x) if isinstance(x, (float, np.floating)) else x)
    if hasattr(x, "__dict__") and not isinstance(x, (np.ndarray, types.ModuleType)):
        return type(x).__name__, description(vars(x), seen)
    return repr(x)


def side_by_side(make, *calls, transform=lambda f: f):
    """`make()` gives f and a function of its state; both are called with copies of each."""
    compiled, state = make()
    plain, plain_state = make()
    f, plain = transform(fg.compile(compiled)), transform(plain)
    for args in calls or ((2.0,), (3.0,), (2.0,), (5.0,)):
        mine, theirs = copy.deepcopy(args), copy.deepcopy(args)
        assert description(f(*mine)) == description(plain(*theirs))
        assert description(mine) == description(theirs)
        assert description(state()) == description(plain_state())
    return f


@contextlib.contextmanager
def runs_of(function):
    """Count how often a function's code runs, which it does not see: a list with the number."""
    runs, before = [0], sys.getprofile()

    def note(frame, event, _):
        runs[0] += event == "call" and frame.f_code is function.__code__

    sys.setprofile(note)
    try:
        yield runs
    finally:
        sys.setprofile(before)


def recorded(f):
    """How many paths were recorded."""
    return len(f.paths)


class Particle:
    def __init__(self, x):
        self.x, self.trail = x, []

    def move(self, v):
        self.x = self.x + v
        self.trail.append(self.x)
        return self
