"""What stands in the compiled modules, called with whatever there is: it answers or raises.

    python tests/probe_core.py 0 3000       so many calls of each function from seed 0 on

Prints what it is about to call into the file that FASTGRAD_PROBE names, so that a process that has
died tells where. tests/test_probe.py runs some seeds.
"""

import copy
import os
import pickle
import random
import sys
import warnings

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core, program, trees
from fastgrad._operators.slots import Slot
from fastgrad.graphs.graph import Builder

# These set what the package is made of, once, when it is imported; the last one lets anything fail
# that comes after it.
LEFT_OUT = {"use_slots", "use_sparse_product", "captured_with", "use_trees", "register", "forget_rule",
            "fail_allocations"}

ALLOWED = (TypeError, ValueError, IndexError, OverflowError, MemoryError, AttributeError, KeyError,
           RuntimeError, NotImplementedError, ZeroDivisionError, BufferError, pickle.PicklingError)


class Sub(np.ndarray):
    pass


class Odd:
    """Answers each question with nonsense."""
    shape, dtype, ndim, size, node = "x", 3, -1, None, -5
    type, keys, children, parts = int, 3, None, ()

    def __len__(self):
        return 3

    def __getitem__(self, k):
        raise KeyError(k)


def arrays():
    base = np.arange(6.0)
    unaligned = np.frombuffer(bytes(1) + base.tobytes(), "u1")[1:].view("f8")
    readonly = base.copy()
    readonly.flags.writeable = False
    whole = np.arange(6)
    unaligned_ints = np.frombuffer(bytes(1) + whole.tobytes(), "u1")[1:].view("i8")
    return [base, base.reshape(2, 3), base.astype("f4"), base.astype(">f8"), unaligned, readonly,
            base[::2], base[::-1], np.array(1.5), np.array(3), np.zeros((0,)), np.zeros((2, 0, 3)),
            whole, whole.astype("i4"), whole.astype(">i8"), whole.astype(">i4"), unaligned_ints,
            whole[::2], -whole, whole * 2**40, whole.astype("u1"), whole > 2, np.array(True),
            whole.astype(object), np.array(["a", "b"]), base.astype(complex), base.astype("f2"),
            base.astype("g"), base.view(Sub), np.ma.array(base), np.array([1], "M8[s]"),
            np.zeros(2, [("a", "f8")]), np.zeros((1,) * 64), np.broadcast_to(1.0, (2**20, 2**20)),
            np.array([0, 2, 4]), np.array([0, 1, 1, 0], "i4"), np.array([np.nan, np.inf])]


def values():
    tensors = [fg.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays()[:14]]
    build = Builder()
    graph = build.graph([build.add("sin", [build.input((3,))], (3,))])
    return [None, True, 0, 1, -1, 2, 63, 64, 65, 200, 2**31, 2**40, 2**63, -2**63, 2**70, 1.5,
            float("nan"), 1j, "x", "max", "sin", "float64", "int64", "f4", b"x", [], [1], [1.0, 2.0],
            (), (0,), (0, 1), (1, 0), (-1,), (5,), (2**62, 2**62), (1,) * 100, {}, {"a": 1}, set(),
            object(), Odd(), len, int, np.dtype("f4"), np.float32(2), np.int64(3), np.bool_(True),
            slice(None), slice(None, None, 0), Ellipsis, Slot(0), graph, [None], [None, None],
            [object()], range(3), iter([1.0]), trees.flatten((1.0, [2.0]))[1],
            *arrays(), *tensors, [fg.tensor(1.0)], [tensors[0], tensors[0]], [np.ones(3)] * 2]


def plan_of_sine():
    build = Builder()
    return program.Plan(build.graph([build.add("sin", [build.input((3,))], (3,))]))


def trace_of_sine():
    trace = core.Trace("probe", [np.ones(3), 2.0], ["x", "y"])
    trace.begin()
    try:
        y = [fnp.sin(trace.arguments[0]) * trace.arguments[1], 3.0]
    finally:
        trace.end()
    trace.results(y)
    return trace


def probe_of():
    pass


STARTS, COLUMNS = np.array([0, 2, 3]), np.array([0, 1, 1], "i4")


def examples():
    """Calls that are right, of what is hard to call by chance: one argument of them is changed."""
    return {
        "core.reduction_weights_of": [(np.ones((2, 3)), "max", (0,)), (np.ones(3), "logsumexp", (0,))],
        "core.distinct_rows": [(STARTS, COLUMNS, 2)],
        "core.expanded_rows": [(STARTS, COLUMNS, 2, np.array([0]), np.array([], "i4"))],
        "core.transposed_rows": [(STARTS, COLUMNS, 2)],
        "core.by_colour": [(np.array([0, 1, -1], "i4"), 2)],
        "core.colour_columns": [(STARTS, COLUMNS, np.array([0, 1, 3]), np.array([0, 0, 1], "i4"),
                                 np.array([0, 1], "i4"))],
        "core.colour_star": [(np.array([0, 2, 4]), np.array([0, 1, 0, 1], "i4"), np.array([0, 2, 1, 3]),
                              np.array([], "i4"), np.array([0, 1], "i4"))],
        "core.kernel_value": [("sin", np.ones(3)), ("add", np.ones(3), np.ones(3))],
        "core.kernel_partial": [("sin", 0, np.ones(3), np.ones(3), None, None, np.ones(3))],
        "core.scalar_value": [("add", "float64", 1.0, 2.0)],
        "core.scalar_partial": [("add", 1, "float32", 1.0, 2.0)],
        "core.place": [(np.ones(2), (slice(0, 2),), (3,))],
        "core.scatter": [(np.ones(2), (np.array([0, 1]),), (3,))],
        "core.assigned": [(np.ones(3), 1, 2.0)],
        "core.custom": [(object(), [fg.tensor(1.0, requires_grad=True)], [np.ones(3)])],
        "core.Trace": [("probe", [1.0, np.ones(2)], ["x", "y"]),
                       ("probe", [1.0], ["x"], [fg.tensor(1.0)])],
        "core.Recorder": [([1.0, np.ones(3)], ())],
        "core.derive": [("numpy.sin", np.sin, (fg.tensor(1.0),), {})],
        "core.gradients": [(fg.tensor(2.0, requires_grad=True) ** 2, [])],
        "program.try_threads": [(np.zeros((3, 6)), 3)],
        "program.scalar_run": [(np.zeros(0, "u1"), np.zeros(3), np.zeros(3, "u1"))],
        "program.Checks": [([(1, (lambda x: lambda: x)(1).__closure__[0], None, 1, -1)], []),
                           ([(0, {"a": 1}, "a", 1, -1)], [np.ones(2)]),
                           ([(2, [1], 0, 1, -1), (3, [1], 1, None, -1)], []),
                           ([(5, np.ones(3), None, np.ones(3), -1)], []),
                           ([(6, probe_of, probe_of.__code__, None, -1)], []),
                           ([(7, probe_of, None, None, -1), (8, int, 3, None, -1)], []),
                           ([(9, probe_of, (int, 0), {}, -1), (10, {"a": 1}, ("a",), None, -1)], []),
                           ([(11, [1], len, 1, -1)], [])],
        "program.version_of": [(int,)],
        "program.branch_part": [(trees.flatten((1.0, 2.0))[1],
                                 [program.leaf_part("float"), program.leaf_part("float")])],
        "program.leaf_part": [(("d", (3,), False),), ("float",), ([1],), ("d",)],
        "program.result_part": [(0,), (-1, 5)],
        "program.Entry": [([program.leaf_part(("d", (3,), False))], (), program.result_part(0), plan_of_sine(),
                           program.Checks([], []), None, None, program.Tally())],
    }


def targets():
    """(name, callable) of everything that can be called."""
    found = {}
    for module, name in ((core, "core"), (program, "program")):
        for key, value in vars(module).items():
            if key in LEFT_OUT or key.startswith("__") or not callable(value):
                continue
            if getattr(value, "__module__", None) not in (None, module.__name__, "fastgrad.numpy"):
                continue
            found[f"{name}.{key}"] = value
    for key, value in core.functions.items():
        found[f"core.functions.{key}"] = value
    return found


def objects(draw):
    """Objects of compiled classes, whose methods are called; new ones each time."""
    yield trace_of_sine()
    yield core.Trace("probe", [1.0], ["x"])                 # nothing has been run
    yield core.Recorder([1.0, np.ones(3)])
    yield plan_of_sine()
    yield program.Checks([(0, {"a": 1}, "a", 1, -1)], [])
    yield program.Cell(())
    yield program.Tally()
    yield fg.compile(lambda x: x)
    yield program.leaf_part("float")
    yield fg.tensor([1.0, 2.0], requires_grad=True) * 2
    yield fg.grad(np.sin)
    for module in (core, program):
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                try:
                    yield kind.__new__(kind)                # without __init__
                except ALLOWED:
                    pass


METHODS_LEFT_OUT = {"__class__", "__init_subclass__", "__subclasshook__", "__new__",
                    "__getattribute__", "__setattr__", "__delattr__", "__sizeof__", "__dir__"}


def call(log, name, f, *args):
    log.seek(0)
    log.truncate()
    log.write(f"{name}{tuple([f'{type(a).__name__} {a!r}'[:300] for a in args])}\n")
    log.flush()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return f(*args)
    except ALLOWED:
        pass


def is_large(args):
    """Whether what is to be made would be large, though no fault."""
    return any(isinstance(a, (int, np.ndarray)) and np.size(a) > 2**24 for a in args)


def probe(seed, count, log):
    draw = random.Random(seed)
    pool = values()
    right = examples()
    calls = 0
    for name, f in targets().items():
        for k in range(count):
            if name in right and k % 3:
                args = list(copy.copy(draw.choice(right[name])))
                for _ in range(draw.choice((1, 1, 2))):
                    if args:
                        args[draw.randrange(len(args))] = draw.choice(pool)
            else:
                args = [draw.choice(pool) for _ in range(draw.randrange(5))]
            if not is_large(args):
                call(log, name, f, *args)
                calls += 1
    for _ in range(count):
        for thing in objects(draw):
            kind = type(thing)
            names = [n for n in dir(kind) if n not in METHODS_LEFT_OUT]
            for method in draw.sample(names, min(3, len(names))):
                args = [draw.choice(pool) for _ in range(draw.randrange(4))]
                if is_large(args):
                    continue
                what = f"{kind.__name__}.{method}"
                call(log, what, lambda *args: getattr(thing, method)(*args) if callable(
                    getattr(thing, method)) else None, *args)
                calls += 1
            call(log, f"copy of {kind.__name__}", copy.copy, thing)
            call(log, f"pickle of {kind.__name__}", pickle.dumps, thing)
        core.stream_new()
    return calls


if __name__ == "__main__":
    import faulthandler
    faulthandler.enable()
    if os.name == "posix" and "asan" not in os.environ.get("LD_PRELOAD", ""):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))      # scatter(..., 2**31)
    with open(os.environ.get("FASTGRAD_PROBE", os.devnull), "w") as log:
        print(probe(int(sys.argv[1]), int(sys.argv[2]), log), "calls")
