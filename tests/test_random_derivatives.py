"""Random programs and special values: every mode and order must tell the same story.

A program is drawn as text and run twice, by NumPy on arrays and by fastgrad on Tensors, in place
assignments and views included. NumPy's values, and central differences of them, are the oracle of
the first order; each order is the slope of the one before it, in whatever mode.
"""

import itertools
import warnings

import numpy as np
import pytest
import scipy.special

import fastgrad as fg
import fastgrad.numpy as fnp

SHAPES = [(), (1,), (3,), (2, 3), (3, 1), (1, 2), (2, 2), (2, 1, 3), (0,), (2, 0), (4,)]

# What a function is applied to, to stay in its domain and away from its kinks.
UNARY = {
    "sin": "{a}", "cos": "{a}", "tan": "K.tanh({a})", "exp": "K.tanh({a})", "expm1": "K.sin({a})",
    "exp2": "K.cos({a})", "sinh": "K.tanh({a})", "cosh": "K.sin({a})", "tanh": "{a}",
    "arcsinh": "{a}", "arctan": "{a}", "square": "{a}", "negative": "{a}", "cbrt": "{a}**2 + 0.5",
    "sqrt": "{a} * {a} + 0.3", "log": "{a} * {a} + 0.4", "log2": "{a} * {a} + 0.5",
    "log1p": "{a} * {a}", "reciprocal": "{a} * {a} + 0.7", "arcsin": "K.tanh({a}) * 0.9",
    "arccos": "K.sin({a}) * 0.9", "arctanh": "K.sin({a}) * 0.8", "arccosh": "{a} * {a} + 1.5",
    "abs": "{a}", "sigmoid": "{a}", "erf": "{a}", "softplus": "{a}",
}
BINARY = ["{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / ({b} * {b} + 0.5)", "K.hypot({a}, {b})",
          "({a} * {a} + 0.3) ** {b}", "K.maximum({a}, {b})", "K.logaddexp({a}, {b})",
          "K.where({b} > 0.1, {a}, {b})", "K.arctan2({a}, {b} * {b} + 0.5)", "K.minimum({a}, 0.9)",
          "{a} ** 2", "{a} ** 3", "({a} * {a} + 0.4) ** -1.5", "0.7 - {a}", "2 * {a}",
          "K.fmod({a}, {b} * {b} + 0.5)", "K.clip({a}, -0.7, 0.8)", "K.xlogy({a}, {b} * {b} + 0.5)"]
REDUCED = ["sum", "mean", "prod", "max", "min", "var", "std", "logsumexp", "norm"]
SHAPED = ["{a}.T", "K.ravel({a})", "{a}[None]", "{a}[..., None]", "K.flip({a})", "{a}.copy()",
          "K.roll({a}, 1)", "K.atleast_2d({a})", "K.broadcast_to({a}, (2,) + {a}.shape)",
          "K.array([K.sum({a}), 1.0, K.sum({b} * {b})])", "K.squeeze({a})"]
WITH_AXIS = ["{a}[[0, 0, -1]]", "{a}[::-2]", "{a}[1:]", "{a}[-1]", "K.repeat({a}, 2, axis=0)",
             "K.concatenate([{a}, {c}, {a}])", "K.stack([{a}, {c}], axis=-1)", "{a} @ {d}",
             "K.sort({a}, axis=0)", "K.einsum('...i,...i->...', {a}, {c})", "K.dot({c}.T, {a})",
             "K.take({a}, [0, -1, 0], axis=-1)", "K.pad({a}, 1)", "{a}[{a} > 0.05]"]
PLACES = ["0", "-1", "...", "1:", "2:2", "::2", "::-1", "[0, -1]", "[0, 0]", "..., 0", "..., :1",
          "None, 0"]


class Rejected(Exception):
    """What was drawn is no program, or one with a kink or a pole nearby."""


class Program:
    """Text of a function f(K, *arrays), its inputs and its value."""

    # What a step is, and how often.
    KINDS = {"unary": 0.25, "binary": 0.2, "reduced": 0.13, "shaped": 0.1, "axis": 0.12,
             "assigned": 0.2}
    LARGEST = 40                # entries of a value

    def __init__(self, seed, dtype, shapes=SHAPES):
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.values, self.lines, self.made = {}, [], 0
        self.inputs = []
        for _ in range(self.rng.integers(1, 4)):
            shape = shapes[self.rng.integers(len(shapes))]
            x = self.rng.uniform(0.2, 1.6, shape) * self.rng.choice([-1, 1], shape)
            self.inputs.append(np.asarray(x, dtype))
            self.values[f"x{len(self.inputs)}"] = self.inputs[-1]
        self.names = ", ".join(self.values)
        steps = self.rng.integers(3, 12)
        kinds, weights = [getattr(self, kind) for kind in self.KINDS], list(self.KINDS.values())
        for _ in range(8 * steps):
            if self.made == steps:
                break
            kind = kinds[self.rng.choice(len(kinds), p=weights)]
            try:
                self.add(*kind())
            except (Rejected, ValueError, IndexError, TypeError):
                continue
        self.ending()
        self.value = self.values["out"]
        self.text = f"def f(K, {self.names}):\n    " + "\n    ".join(
            [*self.lines, "return out"])
        scope = {"np": np}
        exec(self.text, scope)
        self.f = scope["f"]

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

    def away(self, name, points=(0.0,)):
        """No entry is near one of the points."""
        x = self.values[name]
        for point in points:
            if x.size and np.min(abs(x - point)) < 0.02:
                raise Rejected

    def add(self, text):
        """A line of text, unless its values are out of bounds."""
        scope = {name: x.copy() for name, x in self.values.items()}
        with np.errstate(all="raise"):
            try:
                exec(text, {"K": PLAIN, "np": np}, scope)
            except FloatingPointError:
                raise Rejected from None
        scope = {name: np.asarray(x) for name, x in scope.items()
                 if name not in ("view", "i")}
        for x in scope.values():
            if x.size > self.LARGEST or x.size and not np.max(abs(x)) < 20:
                raise Rejected
        self.values = {name: x.astype(self.dtype) for name, x in scope.items()}
        self.lines += text.split("\n")

    def new(self, text):
        self.made += 1
        return (f"v{self.made} = {text}",)

    def unary(self):
        function, a = self.choice(list(UNARY)), self.name()
        if function == "abs":
            self.away(a)
        return self.new(f"K.{function}({UNARY[function].format(a=a)})")

    def binary(self):
        form, a, b = self.choice(BINARY), self.name(), self.name(False)
        x, y = self.values[a], self.values[b]
        gap = np.min(abs(x - y), initial=1)
        if "maximum" in form and gap < 0.02 or "hypot" in form and np.min(
                np.hypot(x, y), initial=1) < 0.1:
            raise Rejected
        if "where" in form:
            self.away(b, [0.1])
        if "clip" in form or "minimum" in form:
            self.away(a, [-0.7, 0.8, 0.9])
        if "fmod" in form:
            q = x / (y * y + 0.5)
            if np.min(abs(q - np.rint(q)), initial=1) < 0.03:
                raise Rejected
        return self.new(form.format(a=a, b=b))

    def reduced(self):
        function, a = self.choice(REDUCED), self.name()
        x = self.values[a]
        axes = [None, *range(-x.ndim, x.ndim)] + ([(0, 1)] if x.ndim > 1 else [])
        axis, keep = self.choice(axes), bool(self.rng.integers(2))
        if x.size == 0 and function not in ("sum", "prod") or x.ndim == 0:
            raise Rejected
        if function in ("max", "min"):
            best = getattr(np, function)(x, axis=axis, keepdims=True)
            if np.any(np.sum(abs(x - best) < 0.02, axis=axis) > 1):
                raise Rejected
        if function == "std" and np.any(np.std(x, axis=axis) < 0.1) or function == "norm" and (
                axis == (0, 1) or np.any(np.sqrt(np.sum(x * x, axis=axis)) < 0.1)):
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
        if "sort" in form and np.min(np.diff(np.sort(x, axis=0), axis=0), initial=1) < 0.02:
            raise Rejected
        if "> 0.05" in form:
            self.away(a, [0.05])
        if "{d}" in form and not factors:
            raise Rejected
        return self.new(form.format(a=a, c=c, d=self.choice(factors) if factors else ""))

    def assigned(self):
        """In place: an entry, a part, through a view, repeated indices, step by step."""
        a, b, place = self.name(), self.name(False), self.choice(PLACES)
        if self.values[a].ndim == 0:
            place = self.choice(["()", "..."])
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
        return (f"{start}\n{then}",)


class _Plain:
    """NumPy's names, and SciPy's where NumPy has none."""

    def __getattr__(self, name):
        own = {"abs": np.abs, "norm": np.linalg.norm, "sigmoid": scipy.special.expit,
               "softplus": lambda a: np.logaddexp(a, 0)}
        return own.get(name) or getattr(np, name, None) or getattr(scipy.special, name)


class _Recorded:
    def __getattr__(self, name):
        own = {"norm": fnp.linalg.norm}
        return own.get(name) or getattr(fnp, name)


PLAIN, RECORDED = _Plain(), _Recorded()


def programs(seed, count, dtype="float64", **options):
    for k in itertools.count():
        try:
            program = Program((seed, k), dtype, **options)
        except (Rejected, ValueError, IndexError, TypeError):
            continue
        yield program
        count -= 1
        if not count:
            return


def dot(a, b):
    return sum((fnp.sum(x * y) for x, y in zip(a, b, strict=True)), 0.0)


class Comparison:
    """Compares trees of arrays, in units of the largest of them."""

    def __init__(self, program):
        self.program = program
        self.near = 1e-10 if program.dtype == np.float64 else 2e-3

    def __call__(self, found, wanted, what, factor=1.0):
        if not isinstance(wanted, (tuple, list)):
            found, wanted = [found], [wanted]
        scale = max([1.0, *[float(np.max(abs(np.asarray(x)))) for x in wanted if np.size(x)]])
        for x, y in zip(found, wanted, strict=True):
            assert np.shape(x) == np.shape(y), (what, self.program.text)
            np.testing.assert_allclose(
                np.asarray(x), np.asarray(y), rtol=0, atol=factor * self.near * scale,
                err_msg=f"{what}\n{self.program.text}\n{self.program.inputs}")


def directions(program, count):
    rng = np.random.default_rng(len(program.text))
    return [tuple(rng.uniform(-1, 1, x.shape).astype(program.dtype) for x in program.inputs)
            for _ in range(count)] + [
                np.asarray(rng.uniform(-1, 1, program.value.shape), program.dtype)]


def check_first_order(program):
    same = Comparison(program)
    xs, every = program.inputs, tuple(range(len(program.inputs)))
    v, w = directions(program, 1)

    def f(*args):
        return program.f(RECORDED, *args)

    y, pull = fg.vjp(f, *xs)
    same(y, program.value, "value")
    assert np.asarray(y).dtype == program.dtype
    back = pull(w)
    dy = fg.jvp(f, xs, v)[1]
    for x, g in zip(xs, back, strict=True):
        assert np.shape(g) == x.shape
        assert np.asarray(g).dtype == x.dtype
    same(float(dot(back, v)) / max([1.0, *[np.max(abs(g), initial=0) for g in back]]),
         float(dot([w], [dy])) / max([1.0, *[np.max(abs(g), initial=0) for g in back]]),
         "<w, J v> and <J' w, v>", 10)
    same(fg.linearize(f, *xs)[1](*v), dy, "linearize")
    by_rows = fg.jacobian(f, every, mode="reverse")(*xs)
    for options in ({"mode": "forward"}, {"mode": "forward", "chunk": 2}, {}):
        same(fg.jacobian(f, every, **options)(*xs), by_rows, f"jacobian {options}")
    turned = fg.jacobian(f, every, layout="denominator")(*xs)
    same([np.moveaxis(j, range(x.ndim), range(-x.ndim, 0)) if x.ndim else j
          for j, x in zip(turned, xs, strict=True)], by_rows, "layout")
    same([np.tensordot(w, j, w.ndim) for j in by_rows], back, "rows of the jacobian", 10)
    if program.dtype == np.float64:
        h = 1e-6
        up, down = [fg.vjp(f, *[x + s * t for x, t in zip(xs, v, strict=True)])[0]
                    for s in (h, -h)]
        same((np.asarray(up) - down) / (2 * h), dy, "differences", 3e5)
    if len(xs) == 1:
        try:
            sparse = fg.jacobian(f, sparse=True)(*xs)
        except ImportError:
            return
        same(sparse.toarray().reshape(by_rows[0].shape), by_rows[0], "sparse")


def check_higher_orders(program):
    same = Comparison(program)
    xs, every = program.inputs, tuple(range(len(program.inputs)))
    v, u, w = directions(program, 2)

    def phi(*args):
        return fnp.sum(fnp.sin(program.f(RECORDED, *args) * w))

    def along(f, direction):
        return lambda *args: fg.jvp(f, args, direction)[1]

    gradient = fg.grad(phi, every)
    first = gradient(*xs)
    leaves = [fg.tensor(x, requires_grad=True) for x in xs]
    result = phi(*leaves)
    recorded = (fg.gradients(result, leaves, create_graph=True)
                if isinstance(result, fg.Tensor) and result.requires_grad else
                [fg.tensor(np.zeros_like(x)) for x in xs])
    same([g.numpy() for g in recorded], first, "create_graph")
    second = fg.hvp(phi, every)(*xs, v)
    ways = {
        "reverse over reverse": fg.grad(lambda *args: dot(gradient(*args), v), every)(*xs),
        "reverse over forward": fg.grad(along(phi, v), every)(*xs),
        "linearize": fg.linearize(gradient, *xs)[1](*v),
        "vjp": fg.vjp(gradient, *xs)[1](v),
    }
    slope = dot(recorded, v)
    if isinstance(slope, fg.Tensor) and slope.requires_grad:
        ways["create_graph twice"] = [g.numpy() for g in fg.gradients(slope, leaves)]
    hessian = fg.hessian(phi, every)(*xs)
    ways["hessian"] = [sum(np.tensordot(h, t, t.ndim) for h, t in zip(row, v, strict=True))
                       for row in hessian]
    for way, found in ways.items():
        same(found, second, way, 10)
    for i, j in itertools.product(every, every):
        assert hessian[i][j].shape == xs[i].shape + xs[j].shape, program.text
    trace = sum(np.trace(hessian[i][i].reshape(x.size, x.size)) for i, x in enumerate(xs))
    same(fg.laplacian(phi, every, chunk=2)(*xs), trace, "laplacian", 100)
    third = along(lambda *args: fg.hvp(phi, every)(*args, v), u)(*xs)
    same(fg.grad(along(along(phi, v), u), every)(*xs), third, "third order", 100)
    same(fg.grad(lambda *args: dot(fg.grad(lambda *args: dot(gradient(*args), v), every)(*args),
                                   u), every)(*xs), third, "reverse three times", 100)
    coefficients = fg.taylor(lambda args: phi(*args), tuple(xs), v, 2)
    scale = max(1.0, *[np.max(abs(h), initial=0) for h in second])
    same([float(coefficients[1]), float(coefficients[2]) / scale],
         [float(dot(first, v)), float(dot(second, v)) / 2 / scale], "taylor", 100)
    if program.dtype == np.float64:
        h = 1e-6
        up, down = [gradient(*[x + s * t for x, t in zip(xs, v, strict=True)]) for s in (h, -h)]
        same([(a - b) / (2 * h) for a, b in zip(up, down, strict=True)], second,
             "differences of the gradient", 1e6)


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)        # some results depend on no argument
        for program in programs(seed, 16):
            check_first_order(program)
            check_higher_orders(program)


@pytest.mark.parametrize("seed", range(2))
def test_random_programs_in_float32(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for program in programs(100 + seed, 15, "float32"):
            check_first_order(program)
            check_higher_orders(program)


def stored(x):
    """The same numbers in other memory."""
    return {"strided": np.repeat(x[..., None], 2, -1)[..., 0], "fortran": np.array(x, order="F"),
            "swapped": x.astype(x.dtype.newbyteorder()),
            "broadcast": np.broadcast_to(x, (2, *x.shape))[1],
            "backwards": x[::-1].copy()[::-1] if x.ndim else x}


def test_how_inputs_are_stored_does_not_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for program in programs(200, 15):
            xs, every = program.inputs, tuple(range(len(program.inputs)))
            v, w = directions(program, 1)
            f = lambda *args, p=program, w=w: fnp.sum(  # noqa: E731
                fnp.sin(p.f(RECORDED, *args) * w))
            kept = [x.copy() for x in xs]
            for how in stored(xs[0]):
                others = [stored(x)[how] for x in xs]
                Comparison(program)(fg.grad(f, every)(*others), fg.grad(f, every)(*xs), how)
                Comparison(program)(fg.hvp(f, every)(*others, v), fg.hvp(f, every)(*xs, v), how)
            tree = {"a": xs[0], "b": [tuple(xs[1:])]}
            slopes = fg.grad(lambda t, f=f: f(t["a"], *t["b"][0]))(tree)
            Comparison(program)([slopes["a"], *slopes["b"][0]], fg.grad(f, every)(*xs), "tree")
            for x, before in zip(xs, kept, strict=True):
                np.testing.assert_array_equal(x, before)


def test_derivatives_inside_of_closures():
    """s -> <grad f(s x), v>, by every transformation inside of both."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for program in programs(300, 15):
            xs, every = program.inputs, tuple(range(len(program.inputs)))
            v, w = directions(program, 1)

            def phi(*args, program=program, w=w):
                return fnp.sum(fnp.sin(program.f(RECORDED, *args) * w))

            def at(s, phi=phi):
                return lambda *args: phi(*[x * s for x in args])

            insides = {
                "grad": lambda s: dot(fg.grad(at(s), every)(*xs), v),
                "jvp": lambda s: fg.jvp(at(s), xs, v)[1],
                "linearize": lambda s: fg.linearize(at(s), *xs)[1](*v),
                "vjp": lambda s: dot(fg.vjp(at(s), *xs)[1](1.0), v),
                "forward": lambda s: dot(fg.jacobian(at(s), every, mode="forward")(*xs), v),
                "reverse": lambda s: dot(fg.jacobian(at(s), every, mode="reverse")(*xs), v),
                "taylor": lambda s: fg.taylor(lambda args: phi(*args), tuple([x * s for x in xs]),
                                           tuple([x * s for x in v]), 1)[1],
            }
            wanted = fg.grad(insides["grad"])(1.0)
            for name, inside in insides.items():
                for found in (fg.grad(inside)(1.0), fg.jvp(inside, (1.0,), (1.0,))[1]):
                    scale = max(1.0, abs(wanted))
                    Comparison(program)(found / scale, wanted / scale, name, 10)


def waiting(a, b):
    """Results of this size wait for each other; some are looked at."""
    c = fnp.tanh(a * b) - fnp.sin(a)
    d = fnp.where(c > 0.1, a * c, fnp.exp(-b * b))
    if d[7] > 0:
        d = d * 1.5 + 0.25
    d[5:-7:3] = fnp.cos(c)[5:-7:3]
    d *= fnp.sqrt(b * b + 0.5)
    e = (d.reshape(4, -1).sum(axis=0) * 0.1)[np.arange(a.size) % (a.size // 4)]
    return e[::-1] * d + fnp.mean(c * c) * fnp.maximum(a, b)


@pytest.mark.parametrize("size", [4096, 100_000])
def test_large_arrays_in_every_mode(size):
    rng = np.random.default_rng(size)
    a, b, va, vb, w = rng.uniform(-1.5, 1.5, (5, size))
    b = np.where(abs(a - b) < 0.01, a + 0.1, b)
    phi = lambda *args: fnp.sum(fnp.sin(waiting(*args)) * w)  # noqa: E731

    def inner(x, y):
        return float(x[0] @ y[0] + x[1] @ y[1])

    y, pull = fg.vjp(waiting, a, b)
    dy = fg.jvp(waiting, (a, b), (va, vb))[1]
    assert inner(pull(w), (va, vb)) == pytest.approx(float(w @ dy), rel=1e-10)
    np.testing.assert_allclose(fg.linearize(waiting, a, b)[1](va, vb), dy, rtol=1e-12, atol=1e-12)
    first = fg.grad(phi, (0, 1))(a, b)
    assert fg.jvp(phi, (a, b), (va, vb))[1] == pytest.approx(inner(first, (va, vb)), rel=1e-9)
    second = fg.hvp(phi, (0, 1))(a, b, (va, vb))
    leaves = fg.tensor(a, requires_grad=True), fg.tensor(b, requires_grad=True)
    slopes = fg.gradients(phi(*leaves), leaves, create_graph=True)
    twice = fg.gradients(fnp.sum(slopes[0] * va) + fnp.sum(slopes[1] * vb), leaves)
    for x, z in zip(second, twice, strict=True):
        np.testing.assert_allclose(z.numpy(), x, rtol=1e-9, atol=1e-9)
    _, _, half = fg.taylor(lambda t: phi(*t), (a, b), (va, vb), 2)
    assert 2 * half == pytest.approx(inner(second, (va, vb)), rel=1e-8)


# ---- special values -------------------------------------------------------------------------

INF, NAN = np.inf, np.nan

# A function of a number, where, and its first three derivatives: operator by operator, as the rules
# for kinks and the strong zero say.
SPECIAL = {
    "abs": (fnp.abs, 0.0, 0, 0, 0),
    "relu": (fnp.relu, 0.0, 0, 0, 0),
    "square of abs": (lambda x: fnp.abs(x) ** 2, 0.0, 0, 0, 0),
    "maximum of a literal": (lambda x: fnp.maximum(x, 1.0) * x, 1.0, 1, 0, 0),
    "maximum of Tensors": (lambda x: fnp.maximum(x, x * x), 1.0, 1.5, 1, 0),
    "clip at its bound": (lambda x: fnp.clip(x, 1.0, 2.0) * x, 1.0, 1, 0, 0),
    "max of ties": (lambda x: fnp.max(fnp.stack([x, x * x, x - 1])), 1.0, 1.5, 1, 0),
    "sqrt": (fnp.sqrt, 0.0, INF, -INF, INF),
    "sqrt of -0.0": (fnp.sqrt, -0.0, INF, -INF, INF),
    "sqrt of a square": (lambda x: fnp.sqrt(x * x), 0.0, 0, INF, 0),
    "log": (fnp.log, 0.0, INF, -INF, INF),
    "log outside": (fnp.log, -1.0, NAN, NAN, NAN),
    "cbrt": (fnp.cbrt, 0.0, INF, -INF, INF),
    "arcsin": (fnp.arcsin, 1.0, INF, INF, INF),
    "arccosh": (fnp.arccosh, 1.0, INF, -INF, INF),
    "norm": (lambda x: fnp.linalg.norm(x * np.ones(3)), 0.0, 0, INF, 0),
    "std of equals": (lambda x: fnp.std(x * np.ones(3)), 2.0, 0, 0, 0),
    "hypot": (lambda x: fnp.hypot(x, x), 0.0, 0, 0, 0),
    "power 0": (lambda x: x ** 0, 0.0, 0, 0, 0),
    "power 1": (lambda x: x ** 1, 0.0, 1, 0, 0),
    "power 2": (lambda x: x ** 2, 0.0, 0, 2, 0),
    "power 3.0": (lambda x: x ** 3.0, 0.0, 0, 0, 6),
    "power 0.5": (lambda x: x ** 0.5, 0.0, INF, -INF, INF),
    "power 1.5": (lambda x: x ** 1.5, 0.0, 0, INF, -INF),
    "power -1": (lambda x: x ** -1, 0.0, -INF, INF, -INF),
    "power of an array": (lambda x: x ** np.array(2.0), 0.0, 0, 2, 0),
    "power of a Tensor": (lambda x: x ** (2.0 + 0 * x), 0.0, 0, 2, 0),
    "power of a negative number": (lambda x: x ** 3.0, -2.0, 12, -12, 6),
    "xlogy": (lambda x: fg.special.xlogy(x, x), 0.0, 0, INF, -INF),
    "exponent of 0": (lambda y: 0.0 ** y, 0.0, 0, 0, 0),
    "where, log not taken": (lambda x: fnp.where(x > 0, fnp.log(x), x ** 3), 0.0, 0, 0, 6),
    "where, sqrt not taken": (lambda x: fnp.where(x > 0, fnp.sqrt(x), x ** 3), -1.0, 3, -6, 6),
    "where, quotient not taken": (
        lambda x: fnp.where(x == 0, x ** 2, fnp.sin(x) / x), 0.0, 0, 2, 0),
    "where, overflow not taken": (
        lambda x: fnp.where(x > 0, x ** 3, fnp.exp(-500 * x)), -5.0, -INF, INF, -INF),
    "mask": (lambda x: (x > 0) * fnp.sqrt(x), 0.0, 0, 0, 0),
    "zero times log": (lambda x: 0.0 * fnp.log(x) + x, 0.0, 1, 0, 0),
    "logsumexp with -inf": (
        lambda x: fg.special.logsumexp(fnp.stack([x, 2 * x - INF, x * x])), 1.0, 1.5, 1.25, 1.5),
    "logsumexp of -inf": (lambda x: fg.special.logsumexp(x * np.ones(2) - INF), 1.0, 0, 0, 0),
    "logsumexp of inf": (
        lambda x: fg.special.logsumexp(fnp.stack([x + INF, 2 * x + INF, x])), 1.0, 1.5, 0, 0),
    "logaddexp of inf": (lambda x: fnp.logaddexp(x + INF, 3 * x + INF), 1.0, 2, 1, 0),
    "prod with a zero": (lambda x: fnp.prod(fnp.stack([x, x + 1, x + 2])), 0.0, 2, 6, 6),
    "prod with two": (lambda x: fnp.prod(fnp.stack([x, 2 * x, x + 2])), 0.0, 0, 8, 12),
    "prod with three": (lambda x: fnp.prod(fnp.stack([x, 2 * x, 3 * x, x + 1])), 0.0, 0, 0, 36),
    "exp": (fnp.exp, 1000.0, INF, INF, INF),
    "sigmoid": (fnp.sigmoid, -1000.0, 0, 0, 0),
    "arctan": (fnp.arctan, INF, 0, 0, 0),
    "essential": (lambda x: fnp.exp(-1 / (x * x)), 0.0, 0, 0, 0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_every_mode_agrees_at_special_values(name):
    f, x, *wanted = SPECIAL[name]
    modes = {"f": lambda g: lambda t: fg.jvp(g, (t,), (1.0,))[1], "r": fg.grad}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        coefficients = fg.taylor(f, x, 1.0, 3)
        for order, value in enumerate(wanted, 1):
            for nesting in itertools.product("fr", repeat=order):
                g = f
                for mode in nesting:
                    g = modes[mode](g)
                np.testing.assert_allclose(g(x), value, rtol=1e-14, err_msg=str(nesting))
            np.testing.assert_allclose(coefficients[order] * [1, 1, 2, 6][order], value,
                                       rtol=1e-14)
        np.testing.assert_allclose(fg.hessian(f)(x), wanted[1], rtol=1e-14)
        np.testing.assert_allclose(fg.laplacian(f)(x), wanted[1], rtol=1e-14)


# ---- found by random programs ---------------------------------------------------------------

@pytest.mark.parametrize("place", ["1:1", "[]"])
def test_a_value_assigned_to_an_empty_part_has_no_slope(place):
    index = eval(f"np.s_[{place}]")

    def f(x):
        y = x.ravel() * 2.0
        y[index] = x            # of shape (1, 1), which NumPy lets fit into (0,)
        return fnp.sum(y * y)

    x = np.array([[3.0]])
    leaf = fg.tensor(x, requires_grad=True)
    assert fg.grad(f)(x) == 24
    assert fg.gradients(f(leaf), leaf, create_graph=True).numpy() == 24
    assert fg.hvp(f)(x, np.ones((1, 1))) == 8
    assert fg.grad(lambda x: fnp.sum(fg.grad(f)(x)))(x) == 8


def test_a_value_with_more_axes_than_the_part_keeps_them():
    def f(x):
        y = fnp.zeros(3)
        y[1:] = x * x           # (1, 2)
        y[0] = x[0, 0]
        return fnp.sum(y ** 2 * np.arange(1.0, 4.0))

    x = np.array([[3.0, 2.0]])
    np.testing.assert_allclose(fg.hvp(f)(x, np.ones((1, 2))), [[2 + 24 * 9, 36 * 4]])
    np.testing.assert_allclose(fg.grad(lambda x: fnp.sum(fg.grad(f)(x)))(x), [[218, 144]])


@pytest.mark.parametrize("x", [2.0, np.array(2.0)])
def test_blocks_of_numbers_have_no_axes(x):
    hessian = fg.hessian(lambda a, b: a * a * b, (0, 1))(x, x)
    for row, wanted in zip(hessian, [[4, 4], [4, 0]], strict=True):
        for block, value in zip(row, wanted, strict=True):
            assert np.shape(block) == ()
            assert block == value
    for mode in ("forward", "reverse"):
        slope = fg.jacobian(lambda a: a ** 3, mode=mode, layout="denominator")(x)
        assert np.shape(slope) == ()
        assert slope == 12
    tree = fg.hessian(lambda p: p["a"] * p["b"])({"a": x, "b": x})
    assert np.shape(tree["a"]["b"]) == np.shape(tree["b"]["a"]) == ()


def test_numbers_change_in_place_where_numpy_would():
    def added(x):
        y = x * 2.0
        np.add.at(y, (), x * x)
        return y * y

    def out(x):
        y = x * 2.0
        z = y
        np.add(y, x * x, out=y)
        return y * z

    for f in (added, out):
        for x in (3.0, np.array(3.0)):
            assert fg.value_and_grad(f)(x) == (225, 240)
            assert fg.jvp(f, (x,), (1.0,)) == (225, 240)
            assert fg.hvp(f)(x, 1.0) == 188


@pytest.mark.parametrize("x", [3.0, np.array(3.0)])
def test_an_axis_put_before_a_number_makes_an_array_of_its_own(x):
    def f(x):
        y = x * 2.0
        z = y[None]
        z[0] *= x
        return y * z[0]

    assert fg.value_and_grad(f)(x) == (108, 108)
    assert fg.hvp(f)(x, 1.0) == 72


def test_sparse_jacobian_through_an_empty_product():
    pytest.importorskip("scipy.sparse")

    def f(x):
        return x[:0] @ np.zeros((2, 3)) if x.ndim > 1 else np.zeros((2, 0)) @ x[:0] + x

    assert fg.jacobian(f, sparse=True)(np.ones((2, 2))).shape == (0, 4)
    np.testing.assert_array_equal(fg.jacobian(f, sparse=True)(np.ones(2)).toarray(), np.eye(2))


def test_symbols_through_masks_and_arrays_of_numbers():
    pytest.importorskip("sympy")
    x = np.array([0.5, -0.7, 1.2])

    def f(x):
        y = fnp.where(x > 0, x * x, fnp.sin(x))
        z = fnp.array([y[0], x[2], 1.0, y[1] * y[0]])
        return fnp.sum(y ** 3) + fnp.sum(fnp.triu(fnp.outer(x, x), 1)) + fnp.sum(z * z)

    s = fg.symbolic(f, x)
    value, gradient = s.lambdify()(x)
    assert value == pytest.approx(float(fg.vjp(f, x)[0]), rel=1e-13)
    np.testing.assert_allclose(gradient, fg.grad(f)(x), rtol=1e-13)
