"""What random programs are asked: each transformation against an oracle that uses nothing of it,
compiled against not compiled, all against all.

The oracle of a smooth program is the same text under plain NumPy: its values, the complex step
where that agrees with central differences, else the differences themselves, extrapolated, within
the error that they show. Where a program has kinks, only one way to run it is compared with
another, to the last bit where no sum is taken in another order.

Start reading at `check` and `COMPARISONS`. A program that ends the process is the matter of
stress_programs.py.
"""

import gc
import os
import re
import tempfile
import time
import warnings
from dataclasses import replace

import numpy as np
from fastgrad._core.core import GuardError
from random_oracle import Difference, Oracle, dot, flat, near, summed, vector
from random_programs import PLAIN, K, candidates, stored

import fastgrad as fg
from fastgrad._core import core, trees
from fastgrad.graphs.record import record

REORDERED = {"sum", "prod", "logsumexp", "matmul", "scatter", "custom", "call"}


def points(text, count=3):
    """Where a program is run: its inputs, others with other signs and sizes, its inputs again.

    One of them is stored in other ways than arrays mostly are; another has one array for all
    arguments of a shape.
    """
    rng = np.random.default_rng((*text.seed, 7))
    found = [text.inputs]
    for _ in range(count):
        found.append([np.asarray(x * rng.choice([-1, 1], x.shape) * rng.uniform(0.5, 1.5, x.shape),
                                 x.dtype) for x in text.inputs])
    found.append(text.inputs)
    found = [[_plain(x, text) for x in xs] for xs in found]
    if count > 2:
        found[2] = [x if isinstance(x, float) else
                    list(stored(x).values())[rng.integers(len(stored(x)))] for x in found[2]]
        by_shape = {np.shape(x): x for x in found[3]}
        found[3] = [by_shape[np.shape(x)] for x in found[3]]
    return found


def _plain(x, text):
    return float(x) if text.weak and x.ndim == 0 and x.dtype == np.float64 else x.copy()


# ---- what makes a function a compiled one, step by step --------------------------------------


class Replayed:
    """`fg.compile` in its simplest form: recorded, and the recording run by `runner`.

    `runner` makes of a graph what runs it: a function of the values, which raises GuardError, or
    returns the number of the guard, where the recording does not fit.
    """

    known = ()          # arrays that are reached and may change: those of the last `Text.function`

    def __init__(self, f, runner):
        self.f, self.runner, self.paths, self.known = f, runner, {}, Replayed.known
        self.__name__ = f.__name__

    def __call__(self, *xs):
        if any(isinstance(x, fg.Tensor) for x in xs):       # inside of a transformation
            return self.f(*xs)
        key = tuple([(type(x), np.shape(x), getattr(x, "dtype", None)) for x in xs])
        paths = self.paths.setdefault(key, [])
        for run, captured, frozen, tree in paths:
            if any(not bits(x, copy) for x, copy in frozen):
                continue
            try:
                results = run([*xs, *captured])
            except GuardError:
                continue
            if not isinstance(results, int):
                return trees.unflatten(tree, results)
        tree = None

        def listed(tensors):
            nonlocal tree
            leaves, tree = trees.flatten(self.f(*tensors))
            return leaves

        recording = record(listed, list(xs), self.known)
        if recording.reason is None:
            # A NumPy scalar may have been computed from any of the arrays.
            frozen = recording.frozen + (self.known if recording.scalars else [])
            frozen = [(x, np.array(x)) for x in frozen]
            paths.append((self.runner(recording.graph), recording.captured, frozen, tree))
        return trees.unflatten(tree, recording.results)


def replay(f):
    """Record, and run through fastgrad's public functions."""
    from fastgrad.graphs.replay import Replay

    return Replayed(f, Replay)


def plan(f):
    """Record, and run by the executor."""
    from fastgrad._core.program import Plan

    return Replayed(f, lambda graph: Plan(graph).run)


def nothing(f):
    """Recorded against recorded: what this test itself gets wrong."""
    return recorded(f) if f.__name__ == "f" else f


ENGINES = {"compile": lambda f: fg.compile(f), "plan": plan, "replay": replay, "nothing": nothing}


# ---- both ways -----------------------------------------------------------------------------


def check(text, compile=None, only=None):
    """Run a program compiled and not compiled.

    Parameters
    ----------
    text : Text
    compile : callable
        What makes a function a compiled one: `fg.compile` if nothing is said.
    only : str, optional
        The name of one of the comparisons, see `COMPARISONS`.

    Returns
    -------
    Difference or None
    """
    compile = compile or ENGINES["compile"]
    settings = core.lazy_threshold()
    core.lazy_threshold(text.waits)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            for name, comparison in COMPARISONS.items():
                if only in (None, name) and (difference := found_by(comparison, text, compile)):
                    difference.args = (f"{name}: {difference.args[0]}",)
                    difference.name = name
                    return difference
    finally:
        core.lazy_threshold(settings)
    return None


# What is refused by name, with the cure: a norm twice, an array that is to hold a Tensor, a
# diagonal that is written to (by np.add.at NumPy writes to read-only arrays).
REFUSED = re.compile(r"no second derivative|numpy\.add\.at has no derivative rule|"
                     "(numpy|an ndarray) cannot hold a recorded Tensor|"
                     r"np\.add\.at: a broadcast Tensor, or a diagonal, is read-only")


def found_by(comparison, text, compile):
    """The Difference that a comparison finds, or None; nodes that outlive it are one."""
    before = core.tape_info()["nodes"]
    try:
        comparison(text, compile)
    except Difference as found:
        return found
    except Exception as error:          # where the transformation itself is called
        if REFUSED.search(str(error)):
            return None
        return Difference(f"raises {type(error).__name__}", str(error))
    if core.tape_info()["nodes"] > before:
        gc.collect()
        after = core.tape_info()["nodes"]
        if after > before:
            return Difference("leak", f"{after - before} nodes are left")
    return None


def compare(text, plain, compiled, what, reached=None, python=None):
    """Call two functions at the points of a program; `reached` changes in between.

    What `python`, the function itself, returns or raises will do as well.
    """
    of_type = None
    for k, xs in enumerate(points(text)):
        if reached and k == 2:
            for arrays in reached:
                for x in arrays.values():
                    x *= 1.25
        before = [np.array(x) for x in [*xs, *(a for r in reached or () for a in r.values())]]
        wanted = outcome(plain, xs)
        found = outcome(compiled, xs)
        where = f"{what}, point {k}"
        try:
            same(text, plain, xs, wanted, found, where)
        except Difference as difference:
            # What cannot be replayed is called, and plain NumPy may round otherwise.
            own = outcome(python, xs) if python is not None else None
            if own is not None and (agree(own, found) or difference.kind == "type" and all(
                    type(x) in (type(y), type(z)) for x, y, z in zip(found, wanted, own))):
                pass
            elif difference.kind == "type":
                of_type = of_type or difference         # look for something worse first
            else:
                raise
        if isinstance(found, Exception) or isinstance(compiled, fg.Program) and not compiled.paths:
            continue                    # a function that is called as it is may return its argument
        for result in found:            # it is the caller's; no later call may see this
            if isinstance(result, np.ndarray) and result.flags.writeable:
                result[...] = np.nan
        after = [*xs, *(a for r in reached or () for a in r.values())]
        for x, y in zip(after, before):
            if not bits(np.asarray(x), y):
                raise Difference("shares memory", f"{where}: an input changes with a result")
    if of_type:
        raise of_type


def outcome(f, xs):
    """What a call returns as a list of arrays with their types, or the exception it raises."""
    try:
        results = f(*xs)
    except Exception as error:
        return error
    return trees.flatten(results)[0]


# Of an array that is no argument the plain run takes NumPy's function, a program the core's: they
# differ in the last bits.
NUMPYS_OWN = re.compile(r"K\.\w+\(W\d")


def same(text, plain, xs, wanted, found, what):
    """Raise Difference unless two outcomes agree."""
    if isinstance(found, Exception) and not isinstance(wanted, Exception):
        raise Difference(f"raises {type(found).__name__}", f"{what}: {found}") from found
    if isinstance(wanted, Exception):
        if not isinstance(found, Exception):
            raise Difference("raises nothing", f"{what}: without compiling {wanted!r}")
        if type(found) is not type(wanted):
            raise Difference("raises another error", f"{what}: {found!r}, not {wanted!r}")
        return
    if len(found) != len(wanted):
        raise Difference("number of results", f"{what}: {len(found)}, not {len(wanted)}")
    for k, (x, y) in enumerate(zip(found, wanted)):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape or x.dtype != y.dtype:
            raise Difference("shape or dtype", f"{what}, result {k}: {x.shape} {x.dtype}, not "
                             f"{y.shape} {y.dtype}")
        if bits(x, y):
            continue
        if not reordered(plain, xs) and not NUMPYS_OWN.search(str(text)):
            raise Difference("bits", f"{what}, result {k}: {x!r}, not {y!r}")
        allowed = tolerance(text, plain, xs, wanted, k)
        with np.errstate(all="ignore"):
            wrong = ~((abs(x - y) <= allowed) | (x == y) | np.isnan(x) & np.isnan(y))
        if np.any(wrong):
            raise Difference("values", f"{what}, result {k}: {x!r}, not {y!r}")
    for k, (x, y) in enumerate(zip(found, wanted)):
        if type(x) is not type(y):
            raise Difference("type", f"{what}, result {k}: {type(x).__name__}, not "
                             f"{type(y).__name__}")


def agree(wanted, found):
    """Whether two outcomes are the same to the last bit."""
    if isinstance(wanted, Exception) or isinstance(found, Exception):
        return type(wanted) is type(found)
    return len(wanted) == len(found) and all(
        np.shape(x) == np.shape(y) and np.asarray(x).dtype == np.asarray(y).dtype
        and bits(np.asarray(x), np.asarray(y)) for x, y in zip(wanted, found))


def bits(x, y):
    """Whether all entries are equal, any NaN like any other."""
    nan = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    return bool(np.all(nan == (np.isnan(y) if y.dtype.kind == "f" else False))
                and np.all((x == y) | nan)
                and np.all((np.signbit(x) == np.signbit(y)) | nan))


def reordered(plain, xs):
    """Whether a function has operations whose terms may be taken in another order."""
    try:
        graph = record(lambda arguments: trees.flatten(plain(*arguments))[0], list(xs), None).graph
    except Exception:
        return True
    return any(graph.name(k) in REORDERED for k in range(len(graph)))


def tolerance(text, plain, xs, wanted, k):
    """What rounding may do: some units in the last place, or what they do to the arguments."""
    rng = np.random.default_rng(0)
    y = np.asarray(wanted[k])
    eps = np.finfo(text.dtype).eps          # of the operations; the result may be wider
    spread = np.zeros(y.shape)
    # To and fro by itself, which averages out in sums, and all the same way, which does not.
    for signs in ([-1, 1], [-1, 1], [1], [-1]):
        moved = [type(x)(x * (1 + eps * rng.choice(signs))) if isinstance(x, float)
                 else np.asarray(x * (1 + eps * rng.choice(signs, np.shape(x))), x.dtype)
                 for x in xs]
        other = outcome(plain, moved)
        if not isinstance(other, Exception) and np.shape(other[k]) == y.shape:
            spread = np.fmax(spread, abs(np.asarray(other[k]) - y))
    scale = np.max(abs(y[np.isfinite(y)]), initial=1.0)
    return 64 * eps * scale + 16 * np.max(spread[np.isfinite(spread)], initial=0.0)


def reduced(f):
    """The sum of the sines of all that a function returns: something to differentiate."""
    return lambda *xs: sum([K.sum(K.sin(y)) for y in flat(f(*xs))], 0.0)


def function(text):
    """The function of a program, and the arrays that it reaches, by name."""
    scope = text.scope()
    arrays = {name: scope[name] for name in text.reached}
    Replayed.known = list(arrays.values())
    return scope["f"], arrays


def recorded(f):
    """The value of a function as recording computes it."""
    return lambda *xs: fg.vjp(f, *xs)[0]


def values(text, compile):
    """The value itself."""
    f, reached = function(text)
    compare(text, recorded(f), compile(f), "value", [reached], f)


def slopes(text, compile):
    """Value and gradient; and that of a compiled function, which is compiled again."""
    f, reached = function(text)
    every = tuple(range(len(text.inputs)))

    def flat(transformed):
        return lambda *xs: (lambda value, slope: [value, *slope])(*transformed(*xs))

    plain = flat(fg.value_and_grad(reduced(f), every))
    compare(text, plain, flat(compile(fg.value_and_grad(reduced(f), every))),
            "compile(value_and_grad(f))", [reached])
    compare(text, plain, flat(fg.value_and_grad(compile(reduced(f)), every)),
            "value_and_grad(compile(f))")


def second(text, compile):
    """The gradient of a gradient along a direction, reverse over reverse and forward over it."""
    if long(text):
        return
    f, reached = function(text)
    every = tuple(range(len(text.inputs)))
    rng = np.random.default_rng((*text.seed, 9))
    v = [np.asarray(rng.uniform(-1, 1, x.shape), x.dtype) for x in text.inputs]
    gradient = fg.grad(reduced(f), every)

    def along(*xs):
        return sum([K.sum(g * t) for g, t in zip(gradient(*xs), v)])

    twice = fg.grad(along, every)
    compare(text, twice, compile(twice), "compile(grad(grad(f)))", [reached])

    def pushed(*xs):
        return fg.jvp(gradient, xs, tuple(_plain(t, text) for t in v))[1]

    compare(text, pushed, compile(pushed), "compile(jvp(grad(f)))")


LANES = 3


def mapped(text, compile):
    """Every lane of vmap is the function at that point; so are its gradients."""
    if text.branching or long(text):
        return
    text = replace(text, weak=False)
    f, _ = function(text)
    every = tuple(range(len(text.inputs)))
    lanes = points(text, LANES - 1)[:LANES]
    stacked = [np.stack(xs) for xs in zip(*lanes)]
    gradient = fg.grad(reduced(f), every)
    for what, plain in (("f", recorded(f)), ("grad(f)", gradient)):
        inner = f if what == "f" else gradient
        apart = [outcome(plain, xs) for xs in lanes]
        if any(isinstance(results, Exception) for results in apart):
            continue
        ways = {"vmap": fg.vmap(inner), "compile(vmap)": compile(fg.vmap(inner)),
                "vmap(compile)": fg.vmap(compile(inner))}
        for way, transformed in ways.items():
            together = outcome(transformed, stacked)
            if isinstance(together, Exception) and REFUSED.search(str(together)):
                continue
            if isinstance(together, Exception):
                raise Difference(f"raises {type(together).__name__}",
                                 f"{way} of {what}: {together}") from together
            for i, (xs, wanted) in enumerate(zip(lanes, apart)):
                for k, (x, y) in enumerate(zip(together, wanted)):
                    x, y = np.asarray(x)[i], np.asarray(y)
                    if x.shape != y.shape or x.dtype != y.dtype:
                        raise Difference(
                            "shape or dtype", f"{way} of {what}, lane {i}: {x.shape} {x.dtype}, "
                            f"not {y.shape} {y.dtype}")
                    # One point is scalar code where many are blocks.
                    with np.errstate(all="ignore"):
                        wrong = ~((abs(x - y) <= tolerance(text, plain, xs, wanted, k)) | (x == y)
                                  | np.isnan(x) & np.isnan(y))
                    if np.any(wrong):
                        raise Difference("values", f"{way} of {what}, lane {i}: {x!r}, not {y!r}")


# ---- each transformation against the oracle ----------------------------------------------------

class Held:
    """What a comparison still holds, and lets go of in random order: no order may matter."""

    def __init__(self, text):
        self.rng, self.things = np.random.default_rng((*text.seed, 13)), []

    def __call__(self, thing):
        self.things.append(thing)
        return thing

    def drop(self, all=False):
        while self.things and (all or self.rng.random() < 0.6):
            self.things.pop(self.rng.integers(len(self.things)))
            if self.rng.random() < 0.1:
                gc.collect(0)


def of_kind(text, found, what):
    """Values in shape, dtype and number like plain NumPy's."""
    o, found = Oracle.of(text), flat(found)
    if len(found) != len(o.value):
        raise Difference("number of results", f"{what}: {len(found)}, not {len(o.value)}")
    for k, (x, y) in enumerate(zip(found, o.value)):
        if np.shape(x) != np.shape(y):
            raise Difference("shape", f"{what}, result {k}: {np.shape(x)}, not {np.shape(y)}")
        if x.dtype != np.asarray(y).dtype if hasattr(x, "dtype") else np.asarray(
                y).dtype != np.float64:
            raise Difference("dtype", f"{what}, result {k}: {getattr(x, 'dtype', type(x))}, not "
                             f"{np.asarray(y).dtype}")
    near(text, vector(found), vector(o.value), 0.0, what)


def arguments(text):
    """Inputs as a user has them, and directions like those."""
    o = Oracle.of(text)
    return [[_plain(x, text) for x in xs] for xs in (text.inputs, o.v, o.u)]


def phi_of(text, f):
    """A number, made of all that a program returns."""
    w = Oracle.of(text).w

    def phi(*xs):
        return sum([K.sum(K.sin(y) * c) for y, c in zip(flat(f(*xs)), w, strict=True)], 0.0)

    return phi


def unmoved(text, xs, what):
    """No argument has changed."""
    for x, y in zip(xs, text.inputs):
        if not bits(np.asarray(x), y):
            raise Difference("argument", f"{what}: an argument has changed")


def plainly(text, compile):
    """Values: of arrays, of Tensors, and of the same function under no transformation."""
    if not text.smooth:
        return
    scope, held = text.scope(), Held(text)
    xs = [x.copy() for x in text.inputs]
    of_kind(text, held(scope["f"](*xs)), "f of arrays")
    for needs in (False, True):
        tensors = [fg.tensor(x, requires_grad=needs) for x in xs]
        for result in held([scope["f"](*tensors) for _ in range(2)]):
            of_kind(text, result, f"f of Tensors, requires_grad={needs}")
        held.drop()
        with fg.no_grad():
            of_kind(text, held(scope["f"](*tensors)), "f of Tensors under no_grad")
    unmoved(text, xs, "f")


def forward(text, compile):
    """jvp and linearize."""
    if not text.smooth:
        return
    o, scope, held = Oracle.of(text), text.scope(), Held(text)
    f = scope["f"]
    xs, v, u = arguments(text)
    first = held(fg.jvp(f, tuple(xs), tuple(v)))
    of_kind(text, first[0], "value of jvp")
    near(text, vector(flat(first[1])), *o.slope(o.v), "jvp")
    del first
    held.drop()
    if len(scope["kept"]) and held.rng.random() < 0.5:
        scope["kept"].clear()
    found = held(fg.jvp(f, tuple(xs), tuple(u)))
    near(text, vector(flat(found[1])), *o.slope(o.u), "jvp again")
    y, push = fg.linearize(f, *xs)
    held(y)
    of_kind(text, y, "value of linearize")
    del y
    pushed = held([push(*d) for d in (v, u, v)])
    for d, t in zip((o.v, o.u, o.v), pushed):
        near(text, vector(flat(t)), *o.slope(d), "linearize")
    if not agree(flat(pushed[0]), flat(pushed[2])):
        raise Difference("again", "linearize: another tangent, the second time")
    held.drop()
    near(text, vector(flat(push(*u))), *o.slope(o.u), "linearize, called later")
    held.drop(all=True)
    near(text, vector(flat(push(*v))), *o.slope(o.v), "linearize, called last")
    unmoved(text, xs, "jvp")


def backward(text, compile):
    """vjp, grad, and Tensors that are differentiated by hand."""
    if not text.smooth:
        return
    o, scope, held = Oracle.of(text), text.scope(), Held(text)
    f, every = scope["f"], tuple(range(len(text.inputs)))
    xs, v, u = arguments(text)

    def along(gradient, what, weighted=True):
        for x, g in zip(text.inputs, gradient, strict=True):
            if np.shape(g) != x.shape or not text.weak and g.dtype != x.dtype:
                raise Difference("shape or dtype", f"{what}: {np.shape(g)}")
        for d in (o.v, o.u):
            slope, error = o.slope(d)
            if weighted:
                wanted, error = o.weights @ slope, abs(o.weights) @ error
            else:
                wanted, error = o.gradient(d)
            size = max([1.0, *[np.max(abs(np.asarray(g)), initial=0) for g in gradient]])
            near(text, dot(gradient, d) / size, wanted / size, error / size, what, 10)

    y, pull = fg.vjp(f, *xs)
    structure = trees.flatten(y)[1]
    of_kind(text, held(y), "value of vjp")
    w = trees.unflatten(structure, list(o.w))
    g = held(pull(w))
    along(g, "vjp")
    other, again = fg.vjp(f, *xs)           # of the same function, while the first is held
    held(other)
    del y, other
    held.drop()
    if not agree(flat(pull(w)), flat(g)):
        raise Difference("again", "vjp: another cotangent, the second time")
    if held.rng.random() < 0.5:
        del pull
        scope["kept"].clear()
    along(held(again(w)), "vjp, called later")
    held.drop()
    phi = phi_of(text, f)
    value, slopes = held(fg.value_and_grad(phi, every)(*xs))
    near(text, float(value), o.phi(o.y), 0.0, "value of phi", 10)
    along(slopes, "grad", False)
    leaves = [fg.tensor(x, requires_grad=True) for x in xs]
    results = held(f(*leaves))
    number = held(sum([K.sum(K.sin(y) * c) for y, c in zip(flat(results), o.w, strict=True)], 0.0))
    if isinstance(number, fg.Tensor) and number.requires_grad:
        found = [g.numpy() for g in fg.gradients(number, leaves, retain_graph=True)]
        near(text, vector(found), vector(slopes), 0.0, "gradients")
        del results
        held.drop()
        number.backward()
        found = [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in leaves]
        near(text, vector(found), vector(slopes), 0.0, "backward")
    del number
    held.drop(all=True)
    unmoved(text, xs, "vjp")


def small(text, entries=60):
    return sum(x.size for x in text.inputs) <= entries and Oracle.of(text).y.size <= 4 * entries


def jacobians(text, compile):
    """By rows, by columns, in parts, sparse."""
    if not text.smooth or not small(text):
        return
    o, scope = Oracle.of(text), text.scope()
    xs, every = [x.copy() for x in text.inputs], tuple(range(len(text.inputs)))

    def f(*xs):
        return K.concatenate([K.ravel(y) for y in flat(scope["f"](*xs))])

    def along(j, d):
        return sum([np.tensordot(m, t, np.ndim(t)) for m, t in zip(j, d)])

    rows = None
    for options in ({"mode": "reverse"}, {"mode": "forward"}, {"mode": "forward", "chunk": 2}, {}):
        found = fg.jacobian(f, every, **options)(*xs)
        for d in (o.v, o.u):
            near(text, along(found, d), *o.slope(d), f"jacobian, {options}")
        rows = rows or found
        near(text, vector(found), vector(rows), 0.0, f"jacobian, {options} and reverse")
    ends = np.cumsum([x.size for x in xs])

    def of_one(z):
        return f(*[K.reshape(z[end - x.size:end], x.shape) for end, x in zip(ends, xs)])

    sparse = fg.jacobian(of_one, sparse=True)(np.concatenate([np.ravel(x) for x in xs]))
    near(text, sparse.toarray(), np.concatenate(
        [j.reshape(o.y.size, x.size) for j, x in zip(rows, xs)], axis=1), 0.0, "sparse jacobian")


def second_order(text, compile):
    """Each mode over each, and the whole of it."""
    if not text.smooth or any(x.size > 100 for x in text.inputs):
        return
    o, scope, held = Oracle.of(text), text.scope(), Held(text)
    phi, every = phi_of(text, scope["f"]), tuple(range(len(text.inputs)))
    xs, v, _ = arguments(text)
    gradient = fg.grad(phi, every)
    wanted = [o.curvature(o.v, d) for d in (o.v, o.u)]
    ways = {
        "hvp": lambda: fg.hvp(phi, every)(*xs, v),
        "grad of grad": lambda: fg.grad(lambda *a: summed(gradient(*a), v), every)(*xs),
        "grad of jvp": lambda: fg.grad(lambda *a: fg.jvp(phi, a, tuple(v))[1], every)(*xs),
        "jvp of grad": lambda: fg.jvp(gradient, tuple(xs), tuple(v))[1],
        "linearize of grad": lambda: fg.linearize(gradient, *xs)[1](*v),
        "vjp of grad": lambda: fg.vjp(gradient, *xs)[1](tuple(v)),
    }
    if small(text, 20):
        ways["hessian"] = lambda: [
            sum([np.tensordot(h, t, np.ndim(t)) for h, t in zip(row, v)])
            for row in fg.hessian(phi, every)(*xs)]
    first = None
    for way, compute in ways.items():
        found = held(compute())
        size = max([1.0, *[np.max(abs(np.asarray(g)), initial=0) for g in found]])
        for (value, error), d in zip(wanted, (o.v, o.u)):
            near(text, dot(found, d) / size, value / size, error / size, way, 100)
        first = first or found
        near(text, vector(found), vector(first), 0.0, f"{way} and hvp", 100)
        held.drop()
    leaves = [fg.tensor(x, requires_grad=True) for x in xs]
    number = held(phi(*leaves))
    if isinstance(number, fg.Tensor) and number.requires_grad:
        slopes = held(fg.gradients(number, leaves, create_graph=True))
        along = summed(slopes, v)
        del number, slopes
        held.drop()
        if isinstance(along, fg.Tensor) and along.requires_grad:
            found = [g.numpy() for g in fg.gradients(along, leaves)]
            near(text, vector(found), vector(first), 0.0, "create_graph and hvp", 100)
    twice = fg.jvp(lambda *a: fg.jvp(phi, a, tuple(v))[1], tuple(xs), tuple(v))[1]
    size = max(1.0, abs(float(twice)))
    near(text, float(twice) / size, wanted[0][0] / size, wanted[0][1] / size, "jvp of jvp", 100)


def series(text, compile):
    """Taylor coefficients."""
    if not text.smooth or long(text) or any(x.size > 100 for x in text.inputs):
        return
    o, scope = Oracle.of(text), text.scope()
    phi = phi_of(text, scope["f"])
    xs, v, _ = arguments(text)
    try:
        found = fg.taylor(lambda a: phi(*a), tuple(xs), tuple(v), 3)
    except fg.NoDerivativeError:
        return                          # a rule knows no higher derivatives
    wanted = [(o.phi(o.y), 0.0), o.gradient(o.v)]
    for order in (1, 2):
        value, error = o.curvature(o.v, o.v, order)
        factor = 2 if order == 1 else 6
        wanted.append((value / factor, error / factor))
    for k, (c, (value, error)) in enumerate(zip(found, wanted, strict=True)):
        size = max(1.0, *[abs(x) for x, e in wanted if np.isfinite(e)])
        near(text, float(c) / size, value / size, error / size, f"Taylor coefficient {k}", 100)


def long(text):
    """Whether there is a loop of many steps in it."""
    return "in range(1000)" in text.source or "in range(400)" in text.source


def lanes(text, compile):
    """Every lane of vmap is plain NumPy's value there."""
    if not text.smooth or text.branching or long(text):
        return
    o, scope = Oracle.of(text), text.scope()
    rng = np.random.default_rng((*text.seed, 15))
    axes = [int(rng.integers(-x.ndim - 1, x.ndim + 1)) for x in text.inputs]
    every = [[np.asarray(x * (1 + 0.001 * k), x.dtype) for x in text.inputs] for k in range(3)]
    stacked = [np.stack(xs, axis) for xs, axis in zip(zip(*every), axes)]
    mapped = flat(fg.vmap(scope["f"], tuple(axes))(*stacked))
    phi = phi_of(text, scope["f"])
    slopes = fg.vmap(lambda *xs: fg.jvp(phi, xs, tuple(o.v))[1], tuple(axes))(*stacked)
    f = text.scope(PLAIN)["f"]
    for k, xs in enumerate(every):
        if k == 0 or "stop" not in text.source:
            wanted = flat(f(*[x.copy() for x in xs]))
            near(text, vector([np.asarray(y)[k] for y in mapped]), vector(wanted), 0.0,
                 f"vmap, lane {k}")
    near(text, float(slopes[0]), *o.gradient(o.v), "vmap of jvp, lane 0", 10)


def compiled(text, compile):
    """Compiled values and derivatives, called again and again, while the results are held."""
    if not text.smooth:
        return
    text = replace(text, weak=False)        # what is called as it is may ask floats for a shape
    o, scope, held = Oracle.of(text), text.scope(), Held(text)
    xs, v, _ = arguments(text)
    every = tuple(range(len(xs)))
    phi = phi_of(text, scope["f"])
    ways = {"f": compile(scope["f"]), "value_and_grad": compile(fg.value_and_grad(phi, every)),
            "jvp": compile(lambda *xs: fg.jvp(scope["f"], xs, tuple(v)))}
    for _ in range(3):
        for way in held.rng.permutation(list(ways)):
            result = held(ways[way](*xs))
            if way == "f":
                of_kind(text, result, "compile(f)")
            elif way == "jvp":
                of_kind(text, result[0], "compile(jvp)")
                near(text, vector(flat(result[1])), *o.slope(o.v), "compile(jvp)")
            else:
                size = max([1.0, *[np.max(abs(np.asarray(g)), initial=0) for g in result[1]]])
                wanted, error = o.gradient(o.v)
                near(text, dot(result[1], o.v) / size, wanted / size, error / size,
                     "compile(value_and_grad)", 10)
            del result
            held.drop()
    unmoved(text, xs, "compile")


UNWRITABLE = re.compile("no recorded path|nothing to save|cannot be written|must be made of operations alone")


def fails(f, xs):
    """Whether the plain function raises."""
    try:
        f(*xs)
    except (TypeError, AttributeError):
        return True
    return False


def files(text, compile):
    """A program that is written and read gives the same bits."""
    if not text.smooth or long(text):
        return
    scope = text.scope()
    xs = arguments(text)[0]
    every = tuple(range(len(xs)))
    gradient = fg.grad(phi_of(text, scope["f"]), every)
    for way, function in {"f": scope["f"], "grad": gradient}.items():
        program = fg.compile(function)
        try:
            wanted = flat(program(*xs))
        except (TypeError, AttributeError):
            if fails(scope["f"], xs):       # with Python's floats, where it is not replayed
                continue
            raise
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "program")
            try:
                program.save(path)
            except (RuntimeError, TypeError, ValueError) as error:
                if UNWRITABLE.search(str(error)):
                    continue
                raise
            wanted = flat(program(*xs))
            found = flat(fg.load(path)(*xs))
        if not agree(wanted, found):
            raise Difference("values", f"{way}, from a file: {found}, not {wanted}")


COMPARISONS = {"plainly": plainly, "forward": forward, "backward": backward,
               "jacobians": jacobians, "second_order": second_order, "series": series,
               "lanes": lanes, "compiled": compiled, "files": files,
               "values": values, "slopes": slopes, "second": second, "mapped": mapped}


# ---- a smaller program ---------------------------------------------------------------------


def shrink(text, difference, compile=None, check=check, seconds=float("inf")):
    """Leave out lines, results and large shapes as long as the same comparison finds the same kind
    of difference.

    Returns
    -------
    Text, Difference
    """
    until = time.monotonic() + seconds

    def differs(candidate):
        try:
            candidate.scope()
            found = check(candidate, compile, difference.name)
        except Exception:
            return None
        return found if found and found.kind == difference.kind else None

    smaller = True
    while smaller:
        smaller = False
        for candidate in candidates(text):
            if time.monotonic() > until:
                break
            if found := differs(candidate):
                text, difference, smaller = candidate, found, True
                break
    used = {name: x for name, x in text.reached.items() if name in text.source}
    return replace(text, reached=used), difference
