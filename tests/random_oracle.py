"""What a smooth random program computes and what its derivatives are, by plain NumPy alone.

Values are those of the same text under NumPy. Derivatives are the complex step where that agrees
with central differences, else the differences themselves, extrapolated, within the error that they
show. `near` compares what fastgrad finds with them.

Start reading at `Oracle`.
"""

import warnings

import numpy as np
from random_programs import PLAIN, Frozen, K

import fastgrad as fg
from fastgrad._core import trees


class Difference(AssertionError):
    """Compiled and not compiled disagree; `kind` says how in a word or two."""

    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


# What rounding may do to a result, in units of its largest entry: what it does to a value, some
# thousand times; orders above the first are given up to a hundred times as much, in float32 ten.
NEAR = {"float64": 1e-8, "float32": 3e-4}
LOOSE = {"float64": 100, "float32": 10}


class Oracle:
    """A smooth program under plain NumPy, in float64: what it returns as one vector, and
    derivatives of that along lines. `v`, `u`, `w` are two directions and weights of the results."""

    @classmethod
    def of(cls, text):
        if not hasattr(text, "oracle"):
            text.oracle = cls(text)
        return text.oracle

    def __init__(self, text):
        self.text = text
        self.value = trees.flatten(text.scope(PLAIN)["f"](*[x.copy() for x in text.inputs]))[0]
        self.frozen = Frozen()
        self.f = text.scope(PLAIN, np.float64, self.frozen)["f"]
        self.xs = [x.astype(np.float64) for x in text.inputs]
        self.y = self.at(self.xs)
        rng = np.random.default_rng((*text.seed, 11))
        self.v, self.u = [[np.asarray(rng.uniform(-1, 1, x.shape), text.dtype) for x in self.xs]
                          for _ in range(2)]
        self.w = [np.asarray(rng.uniform(-1, 1, np.shape(y)), np.asarray(y).dtype)
                  for y in self.value]
        self.weights = np.concatenate([np.ravel(w) for w in self.w]).astype(np.float64)
        self.known = {}

    def at(self, xs):
        """All that is returned there, one after the other."""
        self.frozen.at = 0
        try:
            with np.errstate(all="ignore"):
                found = np.concatenate([np.ravel(np.asarray(y)) for y in trees.flatten(
                    self.f(*[x.copy() for x in xs]))[0]])
        except Exception:
            if not hasattr(self, "y"):
                raise
            return np.full(len(self.y), np.nan)     # another branch, which does not fit
        self.frozen.replays = True
        if len(found) != len(getattr(self, "y", found)):     # as many entries as there happen to be
            return np.full(len(self.y), np.nan)
        return found

    def line(self, t, direction, s=0.0, other=None):
        xs = [x + t * d for x, d in zip(self.xs, direction)]
        return self.at(xs if other is None else [x + s * d for x, d in zip(xs, other)])

    def phi(self, y):
        """The number that is differentiated where one is needed."""
        return np.sum(np.sin(y) * self.weights)

    def slope(self, direction):
        """The derivative of all results along a direction, and how wrong it may be."""
        key = id(direction)
        if key not in self.known:
            self.known[key] = differentiated(lambda t: self.line(t, direction))
        return self.known[key]

    def gradient(self, direction):
        """The derivative of phi."""
        slope, error = self.slope(direction)
        factor = np.cos(self.y) * self.weights
        return factor @ slope, abs(factor) @ error

    def curvature(self, v, u, order=1):
        """The derivative along u (of that order) of the derivative of phi along v."""
        def phi(t, s):
            return np.array([self.phi(self.line(t, v, s, u))])

        def exact(s):
            return np.imag(phi(1e-30j, s)) / 1e-30

        def crossed(h):
            return (phi(h, h) - phi(h, -h) - phi(-h, h) + phi(-h, -h)) / (4 * h * h)

        value, error = extrapolated(crossed)
        try:
            better, rest = extrapolated(central(exact))
            zero = exact(0.0)
            further = extrapolated(lambda h: (exact(h) - 2 * zero + exact(-h)) / (h * h))
        except TypeError:           # a function that takes no complex numbers
            better, rest = np.full(1, np.nan), np.full(1, np.inf)
        scale = max(1.0, abs(value[0]))
        analytic = error[0] <= 1e-4 * scale and abs(better - value)[0] <= (
            20 * error[0] + 1e-6 * scale)
        if order == 2:
            return (further[0][0], further[1][0]) if analytic else (0.0, np.inf)
        return (better[0], rest[0]) if analytic else (value[0], error[0] + 1e-9 * scale)


def differentiated(g):
    """The derivative of a vector function of a number at 0, and a bound of its error, by entries.

    The complex step where central differences, which know nothing of it, confirm it: it is exact
    for analytic functions alone.
    """
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)   # then they do not confirm
        value, error = extrapolated(central(g))
        # A branch or a count that changes within the larger steps may go unseen by their
        # extrapolation, but hardly within this one.
        scale = np.max(abs(value[np.isfinite(value)]), initial=1.0)
        error = np.where(abs(central(g)(1e-5) - value) <= 1e-4 * scale + 20 * error, error, np.inf)
        try:
            exact = np.imag(g(1e-30j)) / 1e-30
        except TypeError:           # a function that takes no complex numbers
            return value, error
        sure = (error <= 1e-4 * scale) & (abs(exact - value) <= 10 * error + 1e-8 * scale)
    return np.where(sure, exact, value), np.where(sure, 0.0, error)


def central(g):
    """Central differences of a function, by their step."""
    return lambda h: (g(h) - g(-h)) / (2 * h)


def extrapolated(estimate, h=0.02, ratio=1.6, levels=7):
    """A function of a step, even in it, extrapolated to a step of 0, and the error that shows: how
    far the best two of the table are apart (Ridders, Adv. Eng. Software 4, 1982)."""
    best, error, before = None, None, []
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        for i in range(levels):
            row = [estimate(h)]
            for j, corner in enumerate(before):
                factor = ratio ** (2 * (j + 1))
                row.append((factor * row[j] - corner) / (factor - 1))
            if i:
                distance = np.fmax(abs(row[-1] - row[-2]), abs(row[-1] - before[-1]))
                distance = np.where(np.isfinite(distance), distance, np.inf)
                closer = distance < error if i > 1 else np.ones(np.shape(distance), bool)
                best = np.where(closer, row[-1], best) if i > 1 else row[-1]
                error = np.where(closer, distance, error) if i > 1 else distance
            before, h = row, h / ratio
    return best, error


skipped = {"entries": 0, "of": 0}       # what no oracle could tell


def near(text, found, wanted, error=0.0, what="", factor=1.0):
    """Raise Difference unless vectors are equal up to rounding, in units of the largest entry, and
    to what the oracle may have wrong; what it does not know to a part in a thousand is left out."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape:
        raise Difference("shape", f"{what}: {found.shape}, not {wanted.shape}")
    scale = np.max(abs(wanted[np.isfinite(wanted)]), initial=1.0)
    error = np.broadcast_to(error, wanted.shape)
    known = error <= 1e-3 * scale
    skipped["entries"] += int(np.sum(~known))
    skipped["of"] += known.size
    with np.errstate(all="ignore"):
        wrong = known & ~((abs(found - wanted) <= min(factor, LOOSE[text.dtype.name])
                           * NEAR[text.dtype.name] * scale
                           + 20 * error) | (found == wanted) | np.isnan(found) & np.isnan(wanted))
    if np.any(wrong):
        k = np.flatnonzero(wrong)[:3]
        raise Difference("values", f"{what}: {np.ravel(found)[k]}, not {np.ravel(wanted)[k]} "
                         f"({np.sum(wrong)} of {wrong.size} entries; the oracle's error is "
                         f"{np.ravel(error)[k]})")


def vector(leaves):
    """Arrays, numbers and Tensors as one vector."""
    return np.concatenate([np.ravel(np.asarray(
        x.detach().numpy() if isinstance(x, fg.Tensor) else x, np.float64)) for x in leaves])


def flat(tree):
    return trees.flatten(tree)[0]


def dot(a, b):
    return sum(float(np.sum(np.asarray(x, np.float64) * y)) for x, y in zip(a, b, strict=True))


def summed(a, b):
    """The product of two lists, recorded."""
    return sum([K.sum(x * y) for x, y in zip(a, b, strict=True)], 0.0)
