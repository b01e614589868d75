"""Draws programs: straight lines, branches, loops, writes in place, views, every function of the
namespace, and everything that people do with what they have computed: keep it, drop it, look at it.

A program is text. It runs under fastgrad's names, under NumPy's own with Tensors, and under plain
NumPy; random_checks.py holds each of them to the others. Nothing here runs fastgrad: what is drawn
is tried out under plain NumPy alone.

Start reading at `draw`, then `Program`, which every other program is one of.
"""

import contextlib
import copy
import gc
import itertools
import math
import re
import types
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.special
from laws import ROWS
from test_numpy_namespace import CALLS

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

SHAPES = [(), (1,), (3,), (2, 3), (3, 1), (1, 2), (2, 2), (2, 1, 3), (0,), (2, 0), (4,)]
# From 4,096 entries on results wait for each other, and are computed in blocks of 1,024.
LARGE = [(), (1,), (700,), (1025,), (3, 700), (3, 1), (1, 700), (2, 1024), (5, 4, 60), (4, 60)]
WAITING = [(4096,), (4097,), (2, 2050), (65, 64), (64, 1), (), (1,), (1, 4100)]

BINARY = ["{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / ({b} * {b} + 0.5)", "K.hypot({a}, {b})",
          "({a} * {a} + 0.3) ** {b}", "K.maximum({a}, {b})", "K.where({b} > 0.1, {a}, {b})",
          "K.minimum({a}, 0.9)", "{a} ** 2", "{a} ** 3", "({a} * {a} + 0.4) ** -1.5", "0.7 - {a}",
          "2 * {a}", "K.clip({a}, -0.7, 0.8)", "K.clip({a}, {b} - 0.3, {b} + 0.4)", "{a} @ {b}",
          "K.xlogy({a}, {b} * {b} + 0.5)", "-{a}", "1.5 / ({a} * {a} + 1.0)"]
REDUCED = ["sum", "mean", "prod", "max", "min", "var", "std", "logsumexp", "norm"]
SHAPED = ["{a}.T", "K.ravel({a})", "{a}[None]", "{a}[..., None]", "K.flip({a})", "{a}.copy()",
          "K.roll({a}, 1)", "K.atleast_2d({a})", "K.broadcast_to({a}, (2,) + {a}.shape)",
          "K.array([K.sum({a}), 1.0, K.sum({b} * {b})])", "K.squeeze({a})", "{a}.reshape(-1)"]
WITH_AXIS = ["{a}[[0, 0, -1]]", "{a}[::-2]", "{a}[1:]", "{a}[-1]", "K.repeat({a}, 2, axis=0)",
             "K.concatenate([{a}, {c}, {a}])", "K.stack([{a}, {c}], axis=-1)", "{a} @ {d}",
             "K.sort({a}, axis=0)", "K.einsum('...i,...i->...', {a}, {c})", "K.dot({c}.T, {a})",
             "K.take({a}, [0, -1, 0], axis=-1)", "K.pad({a}, 1)", "{a}[{a} > 0.05]"]
PLACES = ["0", "-1", "...", "1:", "2:2", "::2", "::-1", "[0, -1]", "[0, 0]", "..., 0", "..., :1",
          "None, 0"]
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
            "K.einsum('i,j->ij', K.ravel({a}), K.ravel({b}))", "{a} @ {a}, K.sin({a})"]

# What is done with values that are there; {w} are values that nobody else shares memory with.
KEPT = ["kept.append({a})", "kept.append(({a}, {b}))", "kept.append({a}[...])", "kept.clear()",
        "store['{a}'] = {a}", "store['last'] = [{a}, {b}]", "store.clear()",
        "kept.append({a} * 2.0)", "kept.append(lambda t={a}: t)", "K.sin({a})", "{a} * {b}"]
LOOKED = ["look({a})", "print({a}, file=sink)", "repr({a})", "f'{{{a}}}'", "str(K.sum({a}))",
          "stop({a})", "collect(0)", "copy.copy({a})", "len(K.ravel({a}))", "{a}.shape, {a}.dtype",
          "K.ravel({a}).tolist()", "K.sum({a}).item()", "copy.deepcopy({a})",
          "[t for t in K.ravel({a})[:3]]", "{a} > {b}"]
COPIED = ["{a}.copy()", "copy.copy({a})", "stop({a}) * {b}", "stop({a}) + 0.0", "K.array({a})",
          "{a} * stop(K.sin({a}))", "{a}", "K.asarray({a})", "K.array(list(K.ravel({a})))"]
REBOUND = ["{a} = K.sin({a}) + 0.1 * {b}", "{a} = {a} * 0.9", "{a}, {b} = {b}, {a}",
           "{a} = K.tanh({a})\n{a} = {a} * {a}", "{a} = {a}[...]"]
WRITTEN = ["{w} *= {b}", "{w} += K.sin({w})", "{w}[{place}] = {b}", "{w}[{place}] *= 0.7",
           "{w}[{place}] += {b}", "{w} -= 0.25", "{w}[{place}] = K.cos({w}[{place}])",
           "np.add.at({w}, np.s_[{place}], 0.3)", "np.add.at({w}, np.s_[{place}], K.sum({b}))"]
# A transformation inside of the program, and the formula of what it gives; b broadcasts to a.
NESTED = ["slope(lambda t: K.sum(K.sin(t) * {b}), lambda t: K.cos(t) * {b}, {a})",
          "slope(lambda t: K.sum(t * t * {a}), lambda t: 2.0 * t * {a}, {a})",
          "slope(lambda t: (kept.append(t * {b}), K.sum(K.tanh(t)))[1], "
          "lambda t: 1.0 - K.tanh(t) ** 2, {a})",
          "pushed(lambda t: (kept.append(t), K.exp(-t * t) * {b})[1], "
          "lambda t: -2.0 * t * K.exp(-t * t) * {b}, {a}, K.cos({a}))",
          "pushed(lambda t: t * t * t, lambda t: 3.0 * t * t, {a}, {a})",
          "pulled(lambda t: K.sin(t) * {b}, lambda t: K.cos(t) * {b}, {a}, {a} * 0.5)",
          "curved(lambda t: K.sum(K.sin(t)), lambda t: -K.sin(t), {a}, {a} + 0.5)",
          "compiled(lambda t: K.sin(t) * t, {a})", "ruled({a})", "ruled_forward({a})",
          "repeated(3, lambda i, t: K.sin(t) + 0.2 * {a}, {a})",
          "repeated(40, lambda i, t: t * 0.9 + 0.1 * K.tanh(t), {a})"]


# What the compiler cannot replay, and calls as it is.
UNTIDY = re.compile(r"kept|look\(|print|repr|str\(|f'|item\(|tolist|copy\.|for t in|len\(K")


class Rejected(Exception):
    """What was drawn is no program, or one with a kink or a pole nearby."""


# ---- names ---------------------------------------------------------------------------------

class _Plain:
    """NumPy's names, and SciPy's where NumPy has none; all of them take complex numbers too, or
    raise, or are no analytic functions."""

    own = {"abs": np.abs, "norm": np.linalg.norm, "linalg": np.linalg,
           "sigmoid": lambda a: scipy.special.expit(a) if np.isrealobj(a) else 1 / (1 + np.exp(-a)),
           "softplus": lambda a: np.logaddexp(a, np.zeros((), a.dtype)) if np.isrealobj(a)
           else np.log1p(np.exp(a)), "relu": lambda a: np.maximum(a, np.zeros((), a.dtype))}

    def __getattr__(self, name):
        return self.own.get(name) or getattr(np, name, None) or getattr(scipy.special, name)


class _Recorded:
    """fastgrad's names."""

    own = {"norm": fnp.linalg.norm}

    def __getattr__(self, name):
        return self.own.get(name) or getattr(fnp, name)


class _Dispatched:
    """NumPy's own functions as far as they answer for Tensors."""

    own = {"norm": np.linalg.norm, "linalg": np.linalg}

    def __getattr__(self, name):
        numpys = getattr(np, name, None)
        answers = numpys in core.ARRAY_FUNCTIONS or numpys in core.UFUNCS
        return self.own.get(name) or (numpys if answers else getattr(fnp, name))


PLAIN, RECORDED, DISPATCHED = _Plain(), _Recorded(), _Dispatched()
K = types.ModuleType("K", "fastgrad's names, as a module: the compiler knows that those stay")
for _name in dir(fnp):
    if not _name.startswith("_"):
        setattr(K, _name, getattr(fnp, _name))
K.norm = fnp.linalg.norm


class Frozen:
    """What `stop` returned in the first run is what it returns in all others: constants do not
    move with the arguments."""

    def __init__(self):
        self.values, self.at, self.replays = [], 0, False

    def __call__(self, x):
        if not self.replays:
            self.values.append(np.array(x))
        self.at += 1
        return self.values[self.at - 1].copy()

    def again(self):
        self.at, self.replays = 0, True


class Sink:
    """A file that nobody reads."""

    def write(self, text):
        return len(text)


def fill(names, a, shape):
    """An array of that shape, made of the entries of another, no two of them alike."""
    n = math.prod(shape)
    weights = names.cos(names.arange(n, dtype=getattr(a, "dtype", None) or float) * 0.7)
    size = getattr(a, "size", 1)
    return names.reshape(names.ravel(a)[[k % size for k in range(n)]] * weights, shape)


def stored(x):
    """The same numbers in other memory."""
    return {"strided": np.repeat(x[..., None], 2, -1)[..., 0], "fortran": np.array(x, order="F"),
            "swapped": x.astype(x.dtype.newbyteorder()),
            "broadcast": np.broadcast_to(x, (2, *x.shape))[1],
            "backwards": x[::-1].copy()[::-1] if x.ndim else x}


def surroundings(names, frozen=None):
    """What programs may call besides K, which is `names`; `frozen`: see `Frozen`."""
    scope = {"K": names, "np": np, "copy": copy, "collect": gc.collect, "sink": Sink(),
             "kept": [], "CALLS": CALLS, "fill": lambda a, shape: fill(names, a, shape)}
    if names is PLAIN:
        scope |= {
            "stop": frozen or Frozen(), "look": np.array,
            "slope": lambda f, derivative, x: derivative(x),
            "pushed": lambda f, derivative, x, t: derivative(x) * t,
            "pulled": lambda f, derivative, x, t: derivative(x) * t,
            "curved": lambda f, derivative, x, t: derivative(x) * t,
            "compiled": lambda f, x: f(x), "ruled": lambda x: x * x,
            "ruled_forward": lambda x: x * x + x,
            "repeated": lambda n, body, x: _repeated(n, body, x),
        }
    else:
        scope |= {
            "stop": fg.stop_gradient, "look": lambda t: np.array(fg.stop_gradient(t)),
            "slope": lambda f, derivative, x: fg.grad(f)(x),
            "pushed": lambda f, derivative, x, t: fg.jvp(f, (x,), (t,))[1],
            "pulled": lambda f, derivative, x, t: fg.vjp(f, x)[1](t)[0],
            "curved": lambda f, derivative, x, t: fg.hvp(f)(x, t),
            "compiled": lambda f, x: fg.compile(f)(x), "ruled": _ruled,
            "ruled_forward": _ruled_forward,
            "repeated": lambda n, body, x: fg.fori_loop(0, n, body, x),
        }
    return scope


def _repeated(n, body, x):
    for i in range(n):
        x = body(i, x)
    return x


@fg.custom_vjp
def _ruled(x):
    return x * x


_ruled.defvjp(lambda x: (x * x, x), lambda x, g: (2.0 * x * g,))


@fg.custom_jvp
def _ruled_forward(x):
    return x * x + x


@_ruled_forward.defjvp
def _ruled_push(primals, tangents):
    (x,), (t,) = primals, tangents
    return x * x + x, (2.0 * x + 1.0) * t


# ---- a program as text ---------------------------------------------------------------------

@dataclass
class Text:
    """A program as text, and what it is run with.

    inputs are arrays, or floats where they have no axes and `weak` is set; `reached` are the arrays
    that it reads though they are no arguments, by name. `smooth`: it has derivatives all around.
    """

    lines: list
    inputs: list
    dtype: np.dtype
    seed: tuple
    reached: dict = field(default_factory=dict)
    weak: bool = False
    branching: bool = False
    smooth: bool = False
    dispatched: bool = False
    waits: int = 4096
    result: str = "out"

    @property
    def source(self):
        """The function as text."""
        names = ", ".join(f"x{k + 1}" for k in range(len(self.inputs)))
        lines = [*self.lines, f"return {self.result}"]
        return f"def f({names}):\n    " + "\n    ".join(lines)

    def scope(self, names=None, dtype=None, frozen=None):
        """The function `f`, under `names`, and what is around it; arrays that it reaches are copies
        of its own."""
        scope = surroundings(names or (DISPATCHED if self.dispatched else K), frozen)
        scope |= {name: x.astype(dtype or x.dtype) for name, x in self.reached.items()}
        # (A compiled function's state is all that it reaches: the whole list takes it 40 ms a
        # time.)
        scope["CALLS"] = {int(k): CALLS[int(k)] for k in re.findall(r"CALLS\[(\d+)\]", self.source)}
        exec(compile(self.source, f"<program {self.seed}>", "exec"), scope)
        return scope

    def __str__(self):
        with np.printoptions(threshold=60):
            inputs = "\n".join(f"x{k + 1} = {x!r}" for k, x in enumerate(self.inputs))
            reached = "\n".join(f"{name} = {x!r}" for name, x in self.reached.items())
        how = ", ".join([f"K is {'numpy' if self.dispatched else 'fastgrad.numpy'}",
                         f"{self.waits} entries wait"] + ["weak"] * self.weak)
        called = [f"CALLS[{k}] is {', '.join(call.__code__.co_names)} {call.__defaults__ or ''}"
                  for k, (call, *_) in enumerate(CALLS) if f"CALLS[{k}]" in self.source]
        return "\n".join(part for part in (f"# {how}", self.source, inputs, reached, *called)
                         if part)


def candidates(text):
    """Programs that are a little smaller."""
    names = [f"x{k + 1}" for k in range(len(text.inputs))] + [
        line.split(" = ")[0] for line in text.lines if line.startswith("v") and " = " in line]
    results = text.result.strip("([{}])").split(", ")
    if len(results) > 1:
        yield from [replace(text, result=name.split(": ")[-1].strip("([{}])")) for name in results]
        if not text.result.startswith("{"):
            yield from [replace(text, result=f"({', '.join(results[:k] + results[k + 1:])},)")
                        for k in range(len(results))]
    elif text.result == "out":
        yield from [replace(text, result=name) for name in names]
    for size in (8, 4, 3, 2, 1):
        for k in range(len(text.lines) - size + 1):
            yield replace(text, lines=text.lines[:k] + text.lines[k + size:])
    for k, line in enumerate(text.lines):
        before, after = text.lines[:k], text.lines[k + 1:]
        if line.startswith(" "):
            yield replace(text, lines=[*before, line.strip(), *after])
        for count in ("1000", "400", "100", "40", "5"):
            if f"({count}" in line:
                fewer = [n for n in (1, 3, int(count) // 2) if n < int(count)]
                yield from [replace(text, lines=[*before, line.replace(f"({count}", f"({n}"),
                                                 *after]) for n in fewer]
    for changes in ({"waits": 4096}, {"weak": False}, {"dispatched": False}):
        if any(getattr(text, name) != value for name, value in changes.items()):
            yield replace(text, **changes)
    for k, x in enumerate(text.inputs):
        if x.size > 12:
            for part in (np.s_[:1], np.s_[..., :1]):
                if x[part].size < x.size:
                    yield replace(text, inputs=[*text.inputs[:k], x[part].copy(),
                                                *text.inputs[k + 1:]])
        if k and k == len(text.inputs) - 1 and f"x{k + 1}" not in "\n".join(
                [*text.lines, text.result]):
            yield replace(text, inputs=text.inputs[:k])


# ---- drawing -------------------------------------------------------------------------------

class Program:
    """Text of a function f(K, *arrays), its inputs and its value: smooth at its inputs, and made of
    one line after the other."""

    # What a step is, and how often.
    KINDS = {"unary": 0.25, "binary": 0.2, "reduced": 0.13, "shaped": 0.1, "axis": 0.12,
             "assigned": 0.2}
    LARGEST = 40                # entries of a value
    BOUND = 20.0                # of their sizes
    FIRST = ()                  # lines
    smooth = True

    def __init__(self, seed, dtype, shapes=SHAPES):
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.lines, self.made, self.added = list(self.FIRST), 0, 0
        self.reached, self.inputs = {}, []
        for _ in range(self.rng.integers(1, 4)):
            shape = shapes[self.rng.integers(len(shapes))]
            x = self.rng.uniform(0.2, 1.6, shape) * self.rng.choice([-1, 1], shape)
            self.inputs.append(np.asarray(x, dtype))
        self.names = ", ".join(f"x{k + 1}" for k in range(len(self.inputs)))
        self.moved = [[
            np.asarray(x + h * np.cos(np.arange(x.size) + k).reshape(x.shape))
            for k, x in enumerate(self.inputs)] for h in (0.006, -0.006)]
        self.values, self.given = self.run("", self.inputs)
        steps = self.rng.integers(3, 12)
        kinds, weights = [getattr(self, kind) for kind in self.KINDS], list(self.KINDS.values())
        for _ in range(6 * steps):
            if self.added >= steps:
                break
            kind = kinds[self.rng.choice(len(kinds), p=np.divide(weights, sum(weights)))]
            with contextlib.suppress(Rejected, ValueError, IndexError, TypeError, AttributeError,
                                     ZeroDivisionError):
                self.add(*kind())
        self.ending()
        self.value = self.values.get("out")
        self.text = f"def f(K, {self.names}):\n    " + "\n    ".join([*self.lines, "return out"])

    @property
    def f(self):
        """The function, of the names and the arrays."""
        scope = {"np": np}
        exec(self.text, scope)
        return scope["f"]

    def ending(self):
        """The last line."""
        self.result, second = self.name(), self.name(False)
        self.add(f"out = {self.result} + 0.5 * K.sum(K.sin({second}))")

    def choice(self, items):
        return items[self.rng.integers(len(items))]

    def name(self, recent=True, shape=None):
        found = [n for n, v in self.values.items() if shape is None or v.shape == shape]
        if not found:
            raise Rejected
        return self.choice(found[-3:] if recent and self.rng.random() < 0.6 else found)

    def run(self, text, inputs, frozen=None):
        """The floating values after all lines and another, as arrays, by name, which share memory
        as they do in the program; and the arguments."""
        scope = surroundings(PLAIN, frozen) | {n: x.copy() for n, x in self.reached.items()}
        given = {f"x{k + 1}": x.copy() for k, x in enumerate(inputs)}
        unasked = {*scope, "view", "i", "__builtins__"}
        scope |= given
        with np.errstate(all="raise"), warnings.catch_warnings():
            # An error from NumPy 2.5 on, and always with Tensors.
            warnings.filterwarnings("error", "Conversion of an array with ndim > 0",
                                    DeprecationWarning)
            try:
                exec("\n".join([*self.lines, text]), scope)
            except (FloatingPointError, DeprecationWarning):
                raise Rejected from None
        found = {name: np.asarray(x) for name, x in scope.items()
                 if name not in unasked and isinstance(x, (np.ndarray, float, np.floating))}
        return found, list(given.values())

    def add(self, text):
        """A line of text, unless its values are out of bounds, or not smooth."""
        frozen = Frozen()
        values, given = self.run(text, self.inputs, frozen)
        for x in values.values():
            if x.dtype.kind != "f" or x.size > self.LARGEST or x.size and not np.max(
                    abs(x)) < self.BOUND:
                raise Rejected
            if x.dtype != self.dtype and x.ndim:
                raise Rejected
        if self.smooth:
            self.bent(text, values, frozen)
        self.values, self.given = values, given
        self.lines += text.split("\n")
        self.added += 1

    def bent(self, text, values, frozen):
        """Reject what has a kink or a jump nearby: there the values do not lie on a line."""
        ends = []
        for xs in self.moved:
            frozen.again()
            ends.append(self.run(text, xs, frozen)[0])
        for name, x in values.items():
            up, down = [end.get(name) for end in ends]
            if np.shape(up) != x.shape or np.shape(down) != x.shape or np.max(
                    abs((up - x) - (x - down)), initial=0) > 0.0012:
                raise Rejected

    def new(self, text):
        self.made += 1
        return (f"v{self.made} = {text}",)

    def within(self, name, low, high):
        """Text of what a value becomes in a domain: itself where it lies there."""
        x = self.values[name]
        if x.size and low <= np.min(x) and np.max(x) <= high and self.rng.random() < 0.7:
            return name
        half, middle = round((high - low) / 2, 6), round((high + low) / 2, 6)
        return f"(K.tanh({name}) * {half} + {middle})"

    def unary(self):
        row, a = self.choice(UNARY_ROWS), self.name()
        if row.low <= -50:
            return self.new(f"K.{row.name}(40.0 * K.sin({a}))")
        return self.new(f"K.{row.name}({self.within(a, row.low, row.high)})")

    def binary(self):
        if self.rng.random() < 0.5:
            row = self.choice(BINARY_ROWS)
            a, b = [self.within(name, row.low, row.high)
                    for name in (self.name(), self.name(False))]
            return self.new(f"K.{row.name}({a}, {b})")
        return self.new(self.choice(BINARY).format(a=self.name(), b=self.name(False)))

    def reduced(self):
        function, a = self.choice(REDUCED), self.name()
        x = self.values[a]
        axes = [None, *range(-x.ndim, x.ndim)] + ([(0, 1)] if x.ndim > 1 else [])
        axis, keep = self.choice(axes), bool(self.rng.integers(2))
        if x.size == 0 and function not in ("sum", "prod") or x.ndim == 0:
            raise Rejected
        if self.smooth and (
                function == "std" and np.any(np.std(x, axis=axis) < 0.1) or function == "norm" and (
                axis == (0, 1) or np.any(np.sqrt(np.sum(x * x, axis=axis)) < 0.1))):
            raise Rejected
        return self.new(f"K.{function}({a}, axis={axis}, keepdims={keep})")

    def shaped(self):
        return self.new(self.choice(SHAPED).format(a=self.name(), b=self.name(False)))

    def axis(self):
        form, a = self.choice(WITH_AXIS), self.name()
        x = self.values[a]
        if x.ndim == 0:
            raise Rejected
        c = self.name(shape=x.shape)
        factors = [n for n, v in self.values.items() if v.ndim and v.shape[-2:][0] == x.shape[-1]]
        if "{d}" in form and not factors:
            raise Rejected
        return self.new(form.format(a=a, c=c, d=self.choice(factors) if factors else ""))

    def assigned(self):
        """In place: an entry, a part, through a view, repeated indices, step by step."""
        a, b, place = self.name(), self.name(False), self.choice(PLACES)
        if self.values[a].ndim == 0:
            place = self.choice(["()", "..."])
        if self.values[a].ndim == 0 and self.values[b].ndim:
            raise Rejected              # NumPy's numbers are rebound, where Tensors are written to
        start, = self.new(self.choice([f"{a} * 1.0", f"K.array({a})", f"K.zeros_like({a})"]))
        n = start.split()[0]
        whole = self.values[a].ndim == 0        # numbers have no views: NumPy's own are immutable
        then = self.choice([
            f"{n}[{place}] = {b}", f"{n}[{place}] *= {b}", f"{n}[{place}] += K.sin({n}[{place}])",
            f"{n} *= {b}", f"view = {n}[1:]\nview[{place}] = {b}\n{n} = view * {n}[:-1]",
            f"view = {n}{'' if whole else '.T'}\nview[{place}] -= {b}", f"{n}[{place}] = 0.3",
            f"np.add.at({n}, np.s_[{place}], {b})" if np.broadcast_shapes(
                self.values[b].shape, self.values[a][eval(f"np.s_[{place}]")].shape)
            == self.values[a][eval(f"np.s_[{place}]")].shape else f"{n} += {b}",
            f"for i in range(len({n})):\n    {n}[i] = K.sin({n}[i - 1]) + {a}[i]"])
        if "for i" in then and len(self.values[a]) > 50:
            raise Rejected              # some seconds in every mode
        return (f"{start}\n{then}",)


# Element-wise rows of the table with a name of their own: whatever is added to the table is drawn.
UNARY_ROWS = [row for row in ROWS if row.arity == 1 and hasattr(fnp, row.name) and not row.inner]
BINARY_ROWS = [row for row in ROWS if row.arity == 2 and hasattr(fnp, row.name) and not row.inner]


class Drawn(Program):
    """Draws a program that keeps, drops and looks at what it computes, whose path may depend on
    values, and that may have kinks: what may be asked of all of those is that one way to run it is
    as good as another."""

    KINDS = {"unary": 0.14, "binary": 0.14, "reduced": 0.08, "shaped": 0.06, "axis": 0.08,
             "assigned": 0.08, "branch": 0.07, "loop": 0.04, "indexed": 0.04, "products": 0.04,
             "captured": 0.03, "called": 0.1, "keeping": 0.08, "looking": 0.05, "copied": 0.05,
             "dropped": 0.04, "rebound": 0.03, "written": 0.06, "nested": 0.03,
             "recurrence": 0.01}
    FIRST = ("store = {}",)
    branching, smooth, long = True, False, False

    def __init__(self, seed, dtype, shapes=SHAPES, largest=40, tidy=False):
        self.LARGEST, self.BOUND = largest, 20.0 if largest < 100 else 1e3
        self.tidy = tidy
        super().__init__(seed, dtype, shapes)

    def add(self, text):
        if self.tidy and UNTIDY.search(text):
            raise Rejected
        super().add(text)

    def ending(self):
        """What it returns: a value, or some of all that it has, in a tree."""
        self.result, second = self.name(), self.name(False)
        self.add(self.choice([f"out = {self.result} + 0.5 * K.sum(K.sin({second}))",
                              f"out = K.cos({self.result}) * 1.5"]))
        others = self.rng.permutation(list(self.values))[:self.rng.integers(1, 6)].tolist()
        kind = self.rng.integers(6)
        if kind < 3 or sum(self.values[n].size for n in others) > 10 * self.LARGEST:
            self.returned = "out"
        elif kind == 3:
            self.returned = f"({', '.join(['out', *others])})"
        elif kind == 4:
            self.returned = f"[{', '.join(others)}, (out, {others[0]})]"
        else:
            entries = ", ".join(f"'{n}': {n}" for n in others)
            more = ", 's': store" if self.smooth or self.rng.random() < 0.5 else ""
            self.returned = f"{{'o': out, {entries}{more}}}"

    def constants(self):
        """Numbers that some values are larger than, and some are not."""
        return {"c": round(float(self.rng.uniform(-1, 1)), 2),
                "p": round(float(self.rng.uniform(0.2, 1.2)), 2)}

    def chosen(self, forms, **names):
        return self.choice(forms).format(**{"a": self.name(), "b": self.name(False),
                                            **self.constants(), **names})

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
        return self.new(self.chosen(INDEXED, a=a, b=a))

    def products(self):
        a = self.name()
        if self.values[a].ndim == 0:
            raise Rejected
        return self.new(self.chosen(PRODUCTS[:-1], a=a))

    def called(self):
        """A function of the namespace, by one of the calls that test_numpy_namespace.py has."""
        k = int(self.rng.integers(len(CALLS)))
        call, *shapes = CALLS[k]
        if "empty_like" in call.__code__.co_names:
            raise Rejected          # arbitrary numbers
        operands = []
        for shape in shapes:
            found = [n for n, v in self.values.items() if v.shape == shape]
            if found and self.rng.random() < 0.8:
                operands.append(self.choice(found))
            else:
                a = self.name()
                if not self.values[a].size:
                    raise Rejected
                operands.append(f"fill({a}, {shape})")
        given = ", ".join(operands)
        text = f"CALLS[{k}][0](K, {given})"
        scope = surroundings(PLAIN) | {n: x.copy() for n, x in self.values.items()}
        with np.errstate(all="ignore"):
            result = eval(text, scope)
        if isinstance(result, (tuple, list)):
            text += f"[{self.rng.integers(len(result))}]"
        return self.new(text)

    def captured(self):
        """An array that is no argument."""
        a = self.name()
        w = f"W{len(self.reached) + 1}"
        self.reached[w] = np.asarray(self.rng.uniform(0.5, 1.5, self.values[a].shape), self.dtype)
        try:
            self.add(*self.new(self.choice([f"{a} * {w}", f"{w} - {a}", f"{a} + K.sin({w})"])))
        except Exception:
            del self.reached[w]
            raise
        raise Rejected              # it is added already

    def keeping(self):
        return (self.chosen(KEPT),)

    def looking(self):
        return (self.chosen(LOOKED),)

    def copied(self):
        return self.new(self.chosen(COPIED))

    def dropped(self):
        """A name that nobody needs any more."""
        names = [n for n in self.values if n.startswith("v")]
        if len(names) < 2:
            raise Rejected
        return (f"del {self.choice(names)}",)

    def owned(self):
        """A value that may be written to: no part of an argument, with axes, not of the program's
        surroundings."""
        names = [n for n, v in self.values.items() if n.startswith("v") and v.ndim and v.size and
                 not any(np.shares_memory(v, x) for x in self.given)]
        if not names:
            raise Rejected
        return self.choice(names)

    def rebound(self):
        a, b = self.name(), self.name(False)
        if not (a.startswith("v") and b.startswith("v")):
            raise Rejected
        return (self.chosen(REBOUND, a=a, b=b),)

    def written(self):
        """In place, where others may share the memory."""
        return (self.chosen(WRITTEN, w=self.owned(), place=self.choice(PLACES)),)

    def nested(self):
        """A transformation in the program, of a function that reads what is outside of it."""
        a = self.name()
        x = self.values[a]
        if not x.ndim:
            raise Rejected
        fitting = [n for n, v in self.values.items() if v.shape == x.shape or v.shape == ()]
        return self.new(self.chosen(NESTED, a=a, b=self.choice(fitting)))

    def recurrence(self):
        """The same name over and over: many nodes, in several segments of the arena."""
        a = self.name()
        x = self.values[a]
        if self.long or x.ndim != 1 or not 0 < x.size < 7:
            raise Rejected
        self.made += 1
        v, w = f"v{self.made}", f"W{len(self.reached) + 1}"
        self.reached[w] = np.asarray(self.rng.uniform(-0.6, 0.6, (x.size, x.size)) / x.size,
                                     self.dtype)
        count = self.choice([100, 400, 1000])
        step = self.choice([f"K.tanh({w} @ {v} + {a})", f"K.tanh({w} @ {v} + {a})",
                            f"0.5 * K.sin({v}) + {a}", f"0.8 * {v} + K.tanh({a} * {v})"])
        kept = self.choice([f"\n    if i % 97 == 5:\n        kept.append({v})",
                            f"\n    if i % 50 == 3:\n        store[str(i)] = {v}", "",
                            f"\n    if i == 60:\n        {v}[0] = 0.2"])
        try:
            self.add(f"{v} = K.zeros_like({a})\nfor i in range({count}):\n    {v} = {step}{kept}")
        except Exception:
            del self.reached[w]
            raise
        self.long = True
        raise Rejected              # it is added already

    def text_of(self, seed):
        """What was drawn."""
        return Text(self.lines, self.inputs, self.dtype, seed, self.reached,
                    bool(self.rng.integers(2)), self.branching, self.smooth,
                    self.rng.random() < 0.25, int(self.choice([4096, 4096, 2, 5])), self.returned)


class Smooth(Drawn):
    """Draws a program that has derivatives around its inputs."""

    smooth = True


class Straight(Drawn):
    """Draws a program that takes the same path everywhere, for vmap."""

    KINDS = {name: weight for name, weight in Drawn.KINDS.items()
             if name not in ("branch", "loop", "indexed")}
    branching = False

    def axis(self):
        text, = super().axis()
        if "> 0.05" in text:
            raise Rejected          # as many entries as there happen to be
        return (text,)

    def called(self):
        text, = super().called()
        if any(f"CALLS[{k}]" in text and {"extract", "average"} & {*call.__code__.co_names}
               for k, (call, *_) in enumerate(CALLS)):
            raise Rejected          # they look at values
        return (text,)

    def looking(self):
        text, = super().looking()
        if "look" in text:
            raise Rejected          # no lane has a value to look at
        return (text,)


class SmoothStraight(Straight):
    """Both."""

    smooth = True


def programs(seed, count, dtype="float64", **options):
    """Smooth programs of one line after the other."""
    for k in itertools.count():
        try:
            program = Program((seed, k), dtype, **options)
        except (Rejected, ValueError, IndexError, TypeError):
            continue
        yield program
        count -= 1
        if not count:
            return


def draw(seed, k):
    """Program k of a seed: the kind and the precision are drawn too.

    What cannot be completed is drawn again.
    """
    for attempt in itertools.count():
        rng = np.random.default_rng((seed, k, attempt, 1))
        kind = [Drawn, Straight, Smooth, Smooth, SmoothStraight][rng.integers(5)]
        dtype = "float32" if rng.random() < 0.3 else "float64"
        size = rng.random()
        shapes, largest = ((WAITING, 10_000) if size < 0.06 else (LARGE, 4000) if size < 0.16
                           else (SHAPES, 40))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return kind((seed, k, attempt), dtype, shapes, largest,
                            rng.random() < 0.5).text_of((seed, k))
        except (Rejected, ValueError, IndexError, TypeError):
            continue
