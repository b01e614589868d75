"""Random programs for those who run functions without Python: compiled against not compiled.

A program is drawn as text, with branches, loops and indices that depend on values, arrays that it
reaches without taking them as arguments, and whatever the programs of test_random_derivatives.py
have. `check` runs it both ways at several points, so that it takes paths that it took before and
others, and returns what differs. `shrink` leaves out lines as long as the difference stays.

Start reading at `check`. tests/stress_programs.py runs thousands of them.
"""

import itertools
import re
import types
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
from test_random_derivatives import SHAPES, Program, Rejected, stored

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import _trees
from fastgrad._graph import GuardError
from fastgrad._record import record

CONDITIONS = ["K.sum({a}) > {c}", "K.ravel({a})[0] > {c}", "K.max({a}) < K.mean({b}) + {c}",
              "(K.abs({a}) > {p}).any()", "not (K.ravel({a})[-1] < {c})",
              "{c} < K.mean({a}) <= 0.9", "K.sum({a} > {c}) > 1", "K.argmax({a}) == 0"]
CHOICES = ["K.sin({a})", "{a} * {b}", "{a} + {p}", "K.tanh({b})", "{a} * {a} - {b}", "K.sum({a})",
           "K.exp(-{a} * {a})", "{a} / ({b} * {b} + 0.5)", "{c}", "{a}"]
INDEXED = ["K.ravel({a})[int(K.argmax({b})) % {a}.size]", "K.ravel({a})[K.argmin({a})]",
           "K.ravel({a})[K.argsort(K.ravel({a}))[::-1]]", "K.ravel({a})[K.ravel({a}) < {c}]",
           "K.ravel({a})[: int(K.sum({b} > {c})) + 1]", "K.sum(K.sort(K.ravel({a}))[-2:])",
           "K.ravel({a})[K.nonzero(K.ravel({a}) > {c})[0]]", "K.take({a}, K.argmax(K.ravel({b})))"]
PRODUCTS = ["{a} @ {a}.T", "{a}.T @ {a}", "K.matmul({a}, K.ravel({a})[:{a}.shape[-1]])",
            "K.outer({a}, {b})", "K.tensordot({a}, {a}, {a}.ndim)", "K.inner({a}, {a})",
            "K.einsum('i,j->ij', K.ravel({a}), K.ravel({b}))"]
LARGE = [(), (1,), (700,), (1025,), (3, 700), (3, 1), (1, 700), (2, 1024), (5, 4, 60), (4, 60)]
REORDERED = {"sum", "prod", "logsumexp", "matmul", "scatter", "custom", "call"}


def _namespace():
    """fastgrad's names, and NumPy's where a program is run without it, as modules K."""
    recorded = types.ModuleType("K", "fastgrad's names")
    for name in dir(fnp):
        if not name.startswith("_"):
            setattr(recorded, name, getattr(fnp, name))
    recorded.norm = fnp.linalg.norm
    return recorded


K = _namespace()


@dataclass
class Text:
    """A program as text, and what it is run with.

    inputs are arrays, or floats where they have no axes and `weak` is set; `reached` are the arrays
    that it reads though they are no arguments, by name.
    """

    lines: list
    inputs: list
    dtype: np.dtype
    seed: tuple
    reached: dict = field(default_factory=dict)
    weak: bool = False
    branching: bool = False
    result: str = "out"

    @property
    def source(self):
        """The function as text."""
        names = ", ".join(f"x{k + 1}" for k in range(len(self.inputs)))
        return f"def f({names}):\n    " + "\n    ".join([*self.lines, f"return {self.result}"])

    def function(self):
        """The function; arrays that it reaches are copies of its own, in `function.reached`."""
        scope = {"K": K, "np": np} | {name: x.copy() for name, x in self.reached.items()}
        exec(compile(self.source, f"<program {self.seed}>", "exec"), scope)
        arrays = {name: scope[name] for name in self.reached}
        Replayed.known = list(arrays.values())
        return scope["f"], arrays

    def __str__(self):
        inputs = "\n".join(f"x{k + 1} = {x!r}" for k, x in enumerate(self.inputs))
        reached = "\n".join(f"{name} = {x!r}" for name, x in self.reached.items())
        return "\n".join(part for part in (self.source, inputs, reached) if part)


class Drawn(Program):
    """Draws a program whose path depends on values."""

    KINDS = {"unary": 0.18, "binary": 0.16, "reduced": 0.1, "shaped": 0.08, "axis": 0.1,
             "assigned": 0.1, "branch": 0.09, "loop": 0.05, "indexed": 0.05, "products": 0.05,
             "captured": 0.04}
    branching = True

    def __init__(self, seed, dtype, large=False):
        self.reached = {}
        if large:
            self.LARGEST = 4000
        super().__init__(seed, dtype, LARGE if large else SHAPES)

    def away(self, name, points=(0.0,)):
        """Kinks are welcome: both ways must agree there too."""

    def ending(self):
        self.result, second = self.name(), self.name(False)
        self.add(self.choice([f"out = {self.result} + 0.5 * K.sum(K.sin({second}))",
                              f"out = K.cos({self.result}) * 1.5"]))

    def constants(self):
        """Numbers that some values are larger than, and some are not."""
        return {"c": round(float(self.rng.uniform(-1, 1)), 2),
                "p": round(float(self.rng.uniform(0.2, 1.2)), 2)}

    def chosen(self, forms):
        return self.choice(forms).format(a=self.name(), b=self.name(False), **self.constants())

    def branch(self):
        """An if, an if in an if, or an expression that chooses."""
        self.made += 1
        v, kind = f"v{self.made}", self.rng.integers(3)
        condition = self.chosen(CONDITIONS)
        first, second = self.chosen(CHOICES), self.chosen(CHOICES)
        if kind == 0:
            text = f"{v} = {first} if {condition} else {second}"
        else:
            text = f"if {condition}:\n    {v} = {first}\nelse:\n    {v} = {second}"
        if kind == 2:
            text += (f"\nif {self.chosen(CONDITIONS)}:\n"
                     f"    {v} = {v} * 0.5 + {self.constants()['c']}")
        return (text,)

    def loop(self):
        """A loop whose count depends on values."""
        self.made += 1
        v, a, b, c = f"v{self.made}", self.name(), self.name(False), self.constants()
        return (self.choice([
            f"{v} = {a} * 1.0\nfor _ in range(int(K.sum({b} > {c['c']})) % 4):\n"
            f"    {v} = K.sin({v}) + 0.1 * {b}",
            f"{v} = {a} * 2.0\nfor _ in range(6):\n    if not K.max(K.abs({v})) > {c['p']}:\n"
            f"        break\n    {v} = {v} * 0.5",
            f"{v} = {a} * 1.0\ni = 0\nwhile K.sum({v} * {v}) > {c['p']} and i < 5:\n"
            f"    {v} = {v} * 0.7\n    i += 1"]),)

    def indexed(self):
        """An index, or a count of entries, that depends on values."""
        a = self.name()
        if not self.values[a].size:
            raise Rejected
        return self.new(self.choice(INDEXED).format(a=a, b=a, **self.constants()))

    def products(self):
        a = self.name()
        if self.values[a].ndim == 0:
            raise Rejected
        return self.new(self.choice(PRODUCTS).format(a=a, b=self.name(False)))

    def captured(self):
        """An array that is no argument."""
        a = self.name()
        w = f"W{len(self.reached) + 1}"
        self.reached[w] = np.asarray(self.rng.uniform(0.5, 1.5, self.values[a].shape), self.dtype)
        self.values[w] = self.reached[w]
        try:
            self.add(*self.new(self.choice([f"{a} * {w}", f"{w} - {a}", f"{a} + K.sin({w})"])))
        except Exception:
            del self.reached[w]
            raise
        finally:
            del self.values[w]
        raise Rejected              # it is added already

    def text_of(self, seed):
        """What was drawn."""
        return Text(self.lines, self.inputs, self.dtype, seed, self.reached,
                    bool(self.rng.integers(2)), self.branching)


class Straight(Drawn):
    """Draws a program that takes the same path everywhere, for vmap."""

    KINDS = {"unary": 0.25, "binary": 0.22, "reduced": 0.13, "shaped": 0.1, "axis": 0.12,
             "assigned": 0.08, "products": 0.06, "captured": 0.04}
    branching = False

    def axis(self):
        text, = super().axis()
        if "> 0.05" in text:
            raise Rejected          # as many entries as there happen to be
        return (text,)


def draw(seed, k):
    """Program k of a seed: the kind and the precision are drawn too.

    What cannot be completed is drawn again.
    """
    for attempt in itertools.count():
        rng = np.random.default_rng((seed, k, attempt, 1))
        kind = Straight if rng.random() < 0.3 else Drawn
        dtype = "float32" if rng.random() < 0.3 else "float64"
        large = rng.random() < 0.15             # several blocks, and what is left over
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return kind((seed, k, attempt), dtype, large).text_of((seed, k))
        except (Rejected, ValueError, IndexError, TypeError):
            continue


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
                return _trees.unflatten(tree, results)
        tree = None

        def listed(tensors):
            nonlocal tree
            leaves, tree = _trees.flatten(self.f(*tensors))
            return leaves

        recording = record(listed, list(xs), self.known)
        if recording.reason is None:
            # A NumPy scalar may have been computed from any of the arrays.
            frozen = recording.frozen + (self.known if recording.scalars else [])
            frozen = [(x, np.array(x)) for x in frozen]
            paths.append((self.runner(recording.graph), recording.captured, frozen, tree))
        return _trees.unflatten(tree, recording.results)


def replay(f):
    """Record, and run through fastgrad's public functions."""
    from fastgrad._replay import Replay

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


class Difference(AssertionError):
    """Compiled and not compiled disagree; `kind` says how in a word or two."""

    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


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
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name, comparison in COMPARISONS.items():
            if only not in (None, name):
                continue
            try:
                comparison(text, compile)
            except Difference as found:
                difference = found
            except Exception as error:          # where the transformation itself is called
                difference = Difference(f"raises {type(error).__name__}", str(error))
            else:
                continue
            difference.args = (f"{name}: {difference.args[0]}",)
            difference.name = name
            return difference
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
            if python is not None and agree(outcome(python, xs), found):
                pass
            elif difference.kind == "type":
                of_type = of_type or difference         # look for something worse first
            else:
                raise
        if isinstance(found, Exception):
            continue
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
    return results if isinstance(results, (tuple, list)) else [results]


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
        graph = record(lambda arguments: _trees.flatten(plain(*arguments))[0], list(xs), None).graph
    except Exception:
        return True
    return any(graph.name(k) in REORDERED for k in range(len(graph)))


def tolerance(text, plain, xs, wanted, k):
    """What rounding may do: some units in the last place, or what they do to the arguments."""
    rng = np.random.default_rng(0)
    y = np.asarray(wanted[k])
    eps = np.finfo(text.dtype).eps          # of the operations; the result may be wider
    spread = np.zeros(y.shape)
    for _ in range(4):
        moved = [type(x)(x * (1 + eps * rng.choice([-1, 1]))) if isinstance(x, float)
                 else np.asarray(x * (1 + eps * rng.choice([-1, 1], np.shape(x))), x.dtype)
                 for x in xs]
        other = outcome(plain, moved)
        if not isinstance(other, Exception) and np.shape(other[k]) == y.shape:
            spread = np.fmax(spread, abs(np.asarray(other[k]) - y))
    scale = np.max(abs(y[np.isfinite(y)]), initial=1.0)
    return 64 * eps * scale + 16 * np.max(spread[np.isfinite(spread)], initial=0.0)


def reduced(f):
    """The sum of the sines of what a function returns: something to differentiate."""
    return lambda *xs: K.sum(K.sin(f(*xs)))


def recorded(f):
    """The value of a function as recording computes it."""
    return lambda *xs: fg.vjp(f, *xs)[0]


def values(text, compile):
    """The value itself."""
    f, reached = text.function()
    compare(text, recorded(f), compile(f), "value", [reached], f)


def slopes(text, compile):
    """Value and gradient; and that of a compiled function, which is compiled again."""
    f, reached = text.function()
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
    f, reached = text.function()
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
    if text.branching:
        return
    text = replace(text, weak=False)
    f, _ = text.function()
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
        for way, function in ways.items():
            together = outcome(function, stacked)
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


COMPARISONS = {"values": values, "slopes": slopes, "second": second, "mapped": mapped}


# ---- a smaller program ---------------------------------------------------------------------


def shrink(text, difference, compile=None):
    """Leave out lines as long as the same comparison finds the same kind of difference.

    Returns
    -------
    Text, Difference
    """
    def differs(candidate):
        try:
            found = check(candidate, compile, difference.name)
        except Exception:
            return None
        return found if found and found.kind == difference.kind else None

    smaller = True
    while smaller:
        smaller = False
        names = [f"x{k + 1}" for k in range(len(text.inputs))] + [
            line.split(" = ")[0] for line in text.lines if line.startswith("v") and " = " in line]
        candidates = [replace(text, result=name) for name in names if text.result == "out"]
        for size in (4, 3, 2, 1):
            candidates += [replace(text, lines=text.lines[:k] + text.lines[k + size:])
                           for k in range(len(text.lines) - size + 1)]
        candidates += [replace(text, lines=text.lines[:k] + [text.lines[k].strip()]
                               + text.lines[k + 1:])
                       for k in range(len(text.lines)) if text.lines[k].startswith(" ")]
        for candidate in candidates:
            try:
                candidate.function()
            except SyntaxError:
                continue
            if found := differs(candidate):
                text, difference, smaller = candidate, found, True
                break
    used = {name: x for name, x in text.reached.items() if name in text.source}
    return replace(text, reached=used), difference
