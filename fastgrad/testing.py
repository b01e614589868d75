"""For tests of your own: hold derivatives against numeric differences, and trees of numbers against
each other.

    >>> import numpy as np
    >>> import fastgrad as fg
    >>> fg.testing.check_grads(np.tanh, np.array([0.5, -1.0]), order=2)
"""

import functools
import operator
import warnings
from collections import namedtuple

import numpy as np

import fastgrad as fg
from fastgrad._core import trees
from fastgrad._core.arguments import name_of
from fastgrad.numeric import Layout, VectorFunction, derive

__all__ = ["assert_close", "check_grads"]

MODES = ("forward", "reverse")
ENTRIES = 100           # of an argument or a result that are looked at one by one


def check_grads(f, *args, order=2, modes=MODES, rtol=None, atol=None, eps=None, seed=0):
    """Assert that the derivatives of f are what numeric differences say.

    For each mode, the derivative is compared with central differences entry by entry (a hundred
    entries, drawn at random, if there are more) and along random directions; so are the value,
    and the shapes and dtypes, which must be those of the arguments. Where both modes are checked,
    the products ``<u, J v>`` and ``<J' u, v>`` are compared with each other as well. For a higher
    order the same is done with the derivative, taken in each mode, in place of f: as a function of
    the arguments and of the tangent or adjoint that it is taken along (of these along random
    directions only).

    Parameters
    ----------
    f : callable
        Takes `args`; returns a number, an array or a tree of them, and is smooth around `args`.
    *args
        The point: floats, arrays of float32 or float64, or trees of them. All are differentiated;
        hold others fixed with a lambda or `functools.partial`.
    order : int
        The highest order of derivative to check, from 1 on.
    modes : sequence of {"forward", "reverse"}
        The modes to check, forward by `fastgrad.jvp`, reverse by `fastgrad.vjp`; for higher orders
        in every combination, such as forward over reverse.
    rtol, atol : float, optional
        Differences of up to ``atol + rtol * abs(expected)`` are allowed, beside the estimated
        error of the numeric differences. By default both are ``eps ** (1/3)``, eps being the
        coarsest machine epsilon of arguments and results: 6e-6 for float64, 5e-3 for float32.
    eps : float, optional
        The step of the differences, see `fastgrad.numeric.jvp`.
    seed : int
        Of the random directions.

    Raises
    ------
    AssertionError
        If anything differs: says in which order and mode, for which entry of which argument, what
        was expected and what was found. Also if the differences are too uncertain to tell.
    TypeError, ValueError
        For arguments without a derivative, an `order` less than 1, and misspelt `modes`.

    See Also
    --------
    fastgrad.numeric : the differences.

    Examples
    --------
    >>> def f(p, x):
    ...     return np.tanh(x @ p["w"] + p["b"])
    >>> p = {"w": np.ones((2, 3)), "b": 0.5}
    >>> fg.testing.check_grads(f, p, np.array([[0.1, -0.2]]), order=2)
    """
    modes = (modes,) if isinstance(modes, str) else tuple(dict.fromkeys(modes))
    if not modes or not set(modes) <= set(MODES):
        raise ValueError(f"check_grads: modes must be some of {MODES}, not {modes}")
    if operator.index(order) < 1:
        raise ValueError(f"check_grads: order must be at least 1, not {order}")
    if eps is not None and not eps > 0:
        raise ValueError(f"check_grads: eps must be positive, not {eps}")
    if not callable(f) or not args:
        raise TypeError("check_grads: pass a function and its arguments, as in check_grads(f, x)")
    options = Options(name_of(f), modes, rtol, atol, eps, np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not depend")      # derivatives may be constant
        _check(f, args, order, (), options, len(args))


def assert_close(actual, expected, rtol=None, atol=None, name="actual"):
    """Assert that two numbers, arrays or trees of them are equal but for rounding.

    Parameters
    ----------
    actual, expected : tree
        Of the same structure and shapes; Tensors count as arrays, and dtypes may differ. NaN equals
        NaN.
    rtol, atol : float, optional
        Differences of up to ``atol + rtol * abs(expected)`` are allowed. By default both are
        ``eps ** (2/3)``, eps being the coarsest machine epsilon of all: 4e-11 for float64, 2e-5
        for float32.
    name : str
        What the message calls `actual`.

    Raises
    ------
    AssertionError
        If they differ: names the worst entry.

    Examples
    --------
    >>> from fastgrad.testing import assert_close
    >>> x = np.array([1.0, 2.0])
    >>> assert_close(fg.grad(lambda x: np.sum(x ** 3))(x), 3 * x ** 2)
    >>> assert_close({"w": 2 * x}, {"w": np.array([2.0, 5.0])}, name="step")
    Traceback (most recent call last):
    AssertionError: step['w'][1]: expected 5, got 4, off by 1 (relative 0.2, allowed 2.2e-10)
    """
    actual, expected = _plain(actual), _plain(expected)
    layout = Layout(expected)
    try:
        found = layout.vector(actual)
    except ValueError as error:
        raise AssertionError(f"{name} is not like what is expected: {error}") from None
    dtypes = layout.dtypes + Layout(actual).dtypes
    tolerance = max([np.finfo(dtype).eps for dtype in dtypes], default=0) ** (2 / 3)
    wanted = layout.vector(expected)
    _compare(found, wanted, _allowed(wanted, tolerance, rtol, atol),
             lambda i: f"{name}{layout.label(i)}")


# ---- check_grads ----------------------------------------------------------------------------

Options = namedtuple("Options", "name modes rtol atol step rng")


def _check(f, args, order, taken, options, count):
    """Check so many orders of f, itself a derivative in the modes taken (the newest first). Of the
    arguments those after `count` are the directions along which it was taken."""
    point = _Point(f, args, options, count)
    products = []
    for mode in options.modes:
        title = f"{options.name}, order {1 + len(taken)}, {' over '.join((mode, *taken))}"
        products.append(getattr(point, mode)(title))
    point.compare_products(f"{options.name}, order {1 + len(taken)}", products)
    if order > 1:
        for mode in options.modes:
            derivative, direction = point.derivative(mode)
            _check(derivative, (*args, direction), order - 1, (mode, *taken), options, count)


class Direction(namedtuple("Direction", "label entries weights")):
    """A vector that is 0 but for the weights of some entries; a product with it reads no others."""

    def vector(self, size):
        vector = np.zeros(size)
        vector[self.entries] = self.weights
        return vector

    def dot(self, vector):
        return self.weights @ vector[self.entries]

    def size(self, vector):
        """What `dot` adds up, in absolute terms."""
        return abs(self.weights) @ abs(vector[self.entries])


class _Point:
    """f at args, and its derivatives by differences, with which to compare those of the core.

    inputs and outputs are directions in the space of args and of results: single entries, all or
    a sample; v and u are random ones. Of the args after `count`, which are directions, only v
    moves any.
    """

    def __init__(self, f, args, options, count):
        self.f, self.args, self.options = f, args, options
        F = self.F = VectorFunction(functools.wraps(f)(lambda *args: _plain(f(*args))), args,
                                    tuple(range(len(args))))
        self.eps = F.eps([np.ones(F.x.size)])
        single = Layout(args[:count]).size
        *self.inputs, self.v = self.directions("args", F.domain, F.scale, single)
        *self.outputs, self.u = self.directions("output", F.range, np.ones(F.y.size), F.y.size)
        self.slopes = [derive(F, [direction.vector(F.x.size)], "central", options.step, True)
                       for direction in (*self.inputs, self.v)]
        self.require_certainty()

    def directions(self, name, layout, scale, single):
        """One by one (some of) the first entries, and all at random."""
        entries = np.arange(layout.size)
        rng = self.options.rng
        chosen = entries[:single] if single <= ENTRIES else rng.choice(single, ENTRIES, False)
        # In the dtypes of the tree, so that all that is computed with them sees the same numbers.
        weights = layout.vector(layout.tree(scale * rng.standard_normal(layout.size)))
        return [*(Direction(name + layout.label(i), [i], np.ones(1)) for i in chosen),
                Direction(f"({name} in a random direction)", entries, weights)]

    def require_certainty(self):
        """Refuse differences whose errors, which `compare` allows for, would hide any mistake."""
        largest = max(np.max(abs(slope), initial=1, where=np.isfinite(slope))
                      for slope, _ in self.slopes)
        for direction, (_, error) in zip((*self.inputs, self.v), self.slopes):
            clear = (error <= 0.1 * largest) | ~np.isfinite(self.F.y)
            if not clear.all():
                raise AssertionError(
                    f"{self.options.name}: differences in {direction.label} are uncertain by "
                    f"{error[~clear][0]:.3g}: a kink, a jump, noise or the end of the domain is "
                    "near; choose another point or eps")

    def tangents(self, direction):
        return self.F.domain.tree(direction.vector(self.F.x.size))

    def adjoints(self, direction):
        return self.F.range.tree(direction.vector(self.F.y.size))

    def derivative(self, mode):
        """The derivative of f as a function of args and a direction, and the direction: v forward,
        u in reverse."""
        if mode == "forward":
            return lambda *args: fg.jvp(self.f, args[:-1], args[-1])[1], self.tangents(self.v)
        return lambda *args: fg.vjp(self.f, *args[:-1])[1](args[-1]), self.adjoints(self.u)

    def forward(self, title):
        """Compare Jacobian-vector products; return <u, J v> and its size."""
        for direction, (slope, error) in zip((*self.inputs, self.v), self.slopes):
            y, dy = fg.jvp(self.f, self.args, self.tangents(direction))
            tangent = _like(self.F.range, dy, "the output", f"{title}: the tangent")
            self.compare(tangent, slope, error, lambda j: (
                f"{title}: d output{self.F.range.label(j)} / d {direction.label}"))
        self.compare_value(y, title)
        return self.u.dot(tangent), self.u.size(tangent)

    def reverse(self, title):
        """Compare vector-Jacobian products; return <J' u, v> and its size."""
        y, pull = fg.vjp(self.f, *self.args)
        self.compare_value(y, title)
        for output in (*self.outputs, self.u):
            x_bar = pull(self.adjoints(output))
            gradient = _like(self.F.domain, x_bar, "args", f"{title}: the gradient")
            for inputs, slopes in ((self.inputs, self.slopes[:-1]), ([self.v], self.slopes[-1:])):
                self.compare(np.array([direction.dot(gradient) for direction in inputs]),
                             np.array([output.dot(slope) for slope, _ in slopes]),
                             np.array([output.size(error) for _, error in slopes]),
                             lambda i: f"{title}: d {output.label} / d {inputs[i].label}")
        return self.v.dot(gradient), self.v.size(gradient)

    def compare_value(self, y, title):
        value = _like(self.F.range, y, "that of f", f"{title}: the value")
        self.compare(value, self.F.y, 0, lambda j: f"{title}: value{self.F.range.label(j)}")

    def compare_products(self, title, products):
        """Compare <u, J v> with <J' u, v>, which owe nothing to differences."""
        if len(products) == 2:
            (forward, size), (reverse, other) = products
            # Where everything cancels, what is left is the rounding (of a few operations) of
            # numbers of the size of the directions and of y, and says nothing.
            scale = max(1.0, np.max(abs(self.F.y), initial=0, where=np.isfinite(self.F.y)))
            rounding = (8 * self.eps * scale * abs(self.u.weights).sum()
                        * abs(self.v.weights).sum())
            _compare(np.array([reverse]), np.array([forward]),
                     self.eps ** 0.5 * (size + other) + rounding,
                     lambda i: f"{title}: <J' u, v> of reverse beside <u, J v> of forward mode")

    def compare(self, found, wanted, error, label):
        rtol, atol = self.options.rtol, self.options.atol
        _compare(found, wanted, error + _allowed(wanted, self.eps ** (1 / 3), rtol, atol), label)


# ---- comparisons ----------------------------------------------------------------------------

def _plain(tree):
    """The tree with arrays in place of Tensors."""
    return trees.tree_map(lambda y: y.detach().numpy() if fg.is_tensor(y) else y, tree)


def _like(layout, tree, other, name):
    """The vector of a tree that must have the structure, shapes and dtypes of the layout."""
    try:
        vector = layout.vector(tree)
    except ValueError as error:
        raise AssertionError(f"{name} is not like {other}: {error}") from None
    for path, leaf, dtype in zip(
            layout.paths, trees.flatten_like(layout.structure, tree), layout.dtypes):
        if np.asarray(leaf).dtype != dtype:
            raise AssertionError(f"{name} is not like {other}: the dtypes differ"
                                 f"{path and f' at {path}'}: expected {dtype}, "
                                 f"got {np.asarray(leaf).dtype}")
    return vector


def _allowed(wanted, tolerance, rtol, atol):
    return ((tolerance if atol is None else atol)
            + (tolerance if rtol is None else rtol) * abs(wanted))


def _compare(found, wanted, allowed, label):
    """Raise with the entry of two vectors that differs most beyond what is allowed, if any does."""
    allowed = np.broadcast_to(allowed, wanted.shape)
    with np.errstate(all="ignore"):
        off = abs(found - wanted)
        alike = np.where(np.isfinite(wanted), off <= allowed,
                         (found == wanted) | (np.isnan(found) & np.isnan(wanted)))
        if alike.all():
            return
        k = np.argmax(np.where(alike, -1, off / allowed))       # NaN counts as the largest
        raise AssertionError(
            f"{label(k)}: expected {wanted[k]:.10g}, got {found[k]:.10g}, off by {off[k]:.3g} "
            f"(relative {off[k] / abs(wanted[k]):.3g}, allowed {allowed[k]:.3g})")
