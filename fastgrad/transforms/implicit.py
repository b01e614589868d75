"""Solutions of equations, differentiated without looking at how they were found.

If x = f(x, theta), or f(x, theta) = 0, then the tangent of x solves the same equation with the
derivative of f in place of f, and so does the adjoint with its transpose. So both are found by
the solver that found x, and where a sweep is recorded they are solutions that are differentiated
in their turn.
"""

import dataclasses

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of
from fastgrad._run import Run

from .custom import (
    Arguments,
    constant,
    copied,
    floating,
    given_or_zero,
    plain,
    plainly,
    recorded,
    refuse_recorded,
    tensor,
    zeros,
)
from .jacobians import blocks_of

__all__ = ["ConvergenceError", "fixed_point", "root"]


class ConvergenceError(RuntimeError):
    """Raised where an iteration does not arrive; says how far it came.

    Examples
    --------
    >>> try:
    ...     fg.root(lambda x, theta: x * x + 1, 1.0)
    ... except fg.ConvergenceError as error:
    ...     print(error)
    root of <lambda>: ...
    """


def fixed_point(f, x0, theta=(), *, tol=None, max_steps=1000):
    """The solution of ``x = f(x, theta)`` by iteration, differentiable in theta.

    Parameters
    ----------
    f : callable
        ``f(x, theta)`` returns a tree like x; a contraction near the solution. What it uses of
        recorded Tensors must come to it through theta.
    x0 : float, array, or a tree of them
        Where to start. The solution does not depend on it: its derivative is zero.
    theta : tree
        Parameters: floats, arrays, and anything else, which is passed on.
    tol : float, optional
        Stop when a step changes no entry of x by more than ``tol * max(1, max(abs(x)))``. By
        default the machine precision to the power 3/4: 1.8e-12 for float64, 6.4e-6 for float32.
    max_steps : int
        At most so many evaluations of f, for the solution and for each derivative.

    Returns
    -------
    x
        Built like x0.

    Raises
    ------
    ConvergenceError
        If it takes more steps, or x becomes infinite or NaN; names f, the steps, and the last
        change.
    ValueError
        If f does not return a tree like x.
    TypeError
        If f uses a Tensor that is being differentiated but is not part of theta.

    Notes
    -----
    The adjoint w of x solves w = x_bar + (df/dx)' w, which is iterated as x was and converges at
    the same rate [1]_; the tangent solves x_dot = (df/dx) x_dot + (df/dtheta) theta_dot [2]_.

    References
    ----------
    .. [1] B. Christianson, Reverse accumulation and attractive fixed points, Optimization Methods
       and Software 3 (1994), 311-326.
    .. [2] M. Blondel et al., Efficient and modular implicit differentiation, NeurIPS 2022.

    Examples
    --------
    >>> def newton(x, a):                   # Heron's iteration for the square root
    ...     return (x + a / x) / 2
    >>> fg.fixed_point(newton, 1.0, 4.0)
    2.0
    >>> fg.grad(lambda a: fg.fixed_point(newton, 1.0, a))(4.0)
    0.25
    """
    name = _checked("fixed_point", f, max_steps)
    return _solution(name, _iterate, f, x0, theta, tol, max_steps)


def root(f, x0, theta=(), *, tol=None, max_steps=100):
    """The solution of ``f(x, theta) = 0`` by Newton's method, differentiable in theta.

    Parameters
    ----------
    f : callable
        ``f(x, theta)`` returns a tree like x, with a Jacobian in x that is not singular at the
        solution. What it uses of recorded Tensors must come to it through theta.
    x0 : float, array, or a tree of them
        Where to start. The solution does not depend on it: its derivative is zero.
    theta : tree
        Parameters: floats, arrays, and anything else, which is passed on.
    tol : float, optional
        Stop when Newton's step changes no entry of x by more than ``tol * max(1, max(abs(x)))``;
        by default as in `fixed_point`.
    max_steps : int
        At most so many steps, for the solution and for each derivative.

    Returns
    -------
    x
        Built like x0.

    Raises
    ------
    ConvergenceError
        If it takes more steps, no step makes the residual smaller, or the Jacobian is singular;
        names f, the steps and the residual.
    ValueError
        If f does not return a tree like x.
    TypeError
        If f uses a Tensor that is being differentiated but is not part of theta.

    Notes
    -----
    Newton's step is halved until the norm of the residual becomes smaller [1]_. By the implicit
    function theorem the tangent solves (df/dx) x_dot + (df/dtheta) theta_dot = 0, and the adjoint
    the transposed system [2]_.

    References
    ----------
    .. [1] J. Nocedal, S. Wright, Numerical Optimization, 2nd ed. (2006), section 11.2.
    .. [2] M. Blondel et al., Efficient and modular implicit differentiation, NeurIPS 2022.

    Examples
    --------
    >>> def kepler(E, orbit):               # the eccentric anomaly of an orbit
    ...     return E - orbit["e"] * np.sin(E) - orbit["M"]
    >>> E = lambda orbit: fg.root(kepler, 0.0, orbit)
    >>> round(E({"e": 0.5, "M": 1.0}), 9)
    1.498701134
    >>> round(fg.grad(E)({"e": 0.5, "M": 1.0})["M"], 9)
    1.037362022
    """
    name = _checked("root", f, max_steps)
    return _solution(name, _newton, f, x0, theta, tol, max_steps)


def _checked(name, f, max_steps):
    """How messages call the equation, if the options are right."""
    if not callable(f):
        raise TypeError(f"{name}: the first argument must be a function, not {type(f).__name__}")
    if not hasattr(max_steps, "__index__") or max_steps < 1:
        raise ValueError(f"{name}: max_steps={max_steps!r} must be a positive int")
    return f"{name} of {name_of(f)}"


# ---- a solution and its derivative ----------------------------------------------------------

def _solution(name, solver, f, x0, theta, tol, max_steps):
    """x as the solver finds it, recorded with the rule of the implicit function theorem."""
    leaves, structure = trees.flatten(x0)
    start = [_start(name, x) for x in leaves]
    arguments = Arguments(name, theta)
    equation = _Equation(name, solver, f, structure, arguments, tol, max_steps)
    equation.x = equation.solved(start)
    if not arguments.places:
        return trees.unflatten(structure, equation.x)
    made = core.custom(equation, arguments.tensors, list(map(constant, equation.x)))
    return trees.unflatten(structure, made)


def _start(name, x):
    x = plain(x)
    if isinstance(x, int):
        return float(x)
    if not isinstance(x, (np.ndarray, np.generic)) and not isinstance(x, float) or (
            np.asarray(x).dtype.kind not in "fiu"):
        raise TypeError(f"{name}: x0 must hold floats and arrays, not {type(x).__name__}")
    return x if floating(x) else x.astype(float)


@dataclasses.dataclass(eq=False, repr=False)
class _Equation:
    """An equation for x; x and the recorded parameters are lists of leaves here.

    As a rule of the core's: the tangent and the adjoint of x solve the linearised equation."""

    name: str
    solver: object
    f: object
    structure: object
    arguments: Arguments
    tol: float
    max_steps: int
    x: list = None

    def __repr__(self):
        return self.name

    def value(self, x, theta):
        """f, its result as a list of leaves."""
        args = trees.unflatten(self.structure, x), self.arguments.tree(theta)
        recording = any(map(recorded, [*x, *theta]))
        y = self.f(*args) if recording else plainly(self.f, args)
        try:
            leaves = trees.flatten_like(self.structure, y)
        except ValueError as error:
            raise ValueError(f"{self.name}: f does not return a tree like x: {error}") from None
        for a, b in zip(leaves, x):
            if np.asarray(plain(a)).dtype.kind not in "fiu":
                raise TypeError(f"{self.name}: f returns a {type(a).__name__} where x has a real "
                                "number; return floats and arrays of them")
            if np.shape(a) != np.shape(b):
                raise ValueError(f"{self.name}: f returns shape {np.shape(a)} where x has "
                                 f"{np.shape(b)}; they must be equal")
        return leaves

    def solved(self, start):
        def g(x):
            x = list(map(copied, x))            # f may write to it
            y = self.value(x, list(map(copied, self.arguments.plain())))
            if not any(map(recorded, x)):       # it is in the Jacobian of Newton's method
                refuse_recorded(self.name, y)
            return y

        with np.errstate(all="ignore"):         # far from the solution anything may happen
            return self.solver(self.name, g, start, self.tol, self.max_steps)

    def point(self):
        """x and theta; where a sweep is recorded, x as it depends on theta."""
        theta = self.arguments.present()
        if core.is_recording():
            return core.custom(self, theta, list(map(constant, self.x))), theta
        return self.x, theta

    def linear(self, what, step, vectors, point):
        """The solution of a linear equation of the same kind."""
        given = vectors, point if core.is_recording() else ()
        return _solution(f"{self.name}, {what}", self.solver, step, list(map(zeros, self.x)),
                         given, self.tol, self.max_steps)

    # A step of the linear equation uses one run of f for all steps; where the sweep is recorded,
    # its solution is differentiated with respect to the point too, and runs f there.

    def run(self, name, point):
        return Run(name, self.value, point, {}, None, False)

    def pull(self, cotangents, needed):
        point = self.point()
        run = self.run("vjp", point)

        def adjoint(w, given):
            x_bar, point = given
            moved = (self.run("vjp", point) if point else run).pull(w)[0]
            return [a + b for a, b in zip(x_bar, moved)]

        w = self.linear("adjoint", adjoint, given_or_zero(cotangents, self.x), point)
        return list(map(tensor, run.pull(w)[1]))

    def push(self, tangents):
        point = self.point()
        run = self.run("linearize", point)

        def tangent(x_dot, given):
            theta_dot, point = given
            return (self.run("linearize", point) if point else run).push(x_dot, theta_dot)

        vectors = given_or_zero(tangents, self.arguments.plain())
        return list(map(tensor, self.linear("tangent", tangent, vectors, point)))


# ---- the solvers ----------------------------------------------------------------------------

def _tolerance(tol, x):
    """How far entries of x may still be off, and the largest of them."""
    if tol is None:
        tol = max([float(np.finfo(np.asarray(leaf).dtype).eps) for leaf in x], default=0.0) ** 0.75
    return tol * np.max([np.max(np.abs(leaf), initial=0.0) for leaf in x], initial=1.0)


def _iterate(name, f, x, tol, max_steps):
    """x = f(x), again and again."""
    change = np.inf
    for step in range(1, max_steps + 1):
        before, x = x, list(map(plain, f(x)))
        change = np.max([np.max(np.abs(a - b), initial=0.0) for a, b in zip(x, before)], initial=0)
        if not np.isfinite(change):
            break
        if change <= _tolerance(tol, x):
            return x
    raise ConvergenceError(f"{name}: no fixed point after {step} steps; the last one changed x by "
                           f"{change:.3g}")


def _newton(name, f, x, tol, max_steps):
    """Newton's method with steps halved until the residual decreases."""
    residual = _flat(f(x))
    for step in range(1, max_steps + 1):
        size = np.linalg.norm(residual)
        if size == 0:
            return x
        if not np.isfinite(size):
            break
        try:
            delta = -np.linalg.solve(_matrix(f, x), residual)
        except np.linalg.LinAlgError:
            raise ConvergenceError(f"{name}: the Jacobian is singular after {step - 1} steps; the "
                                   f"residual is {size:.3g}") from None
        small = np.max(np.abs(delta), initial=0.0) <= _tolerance(tol, x)
        scale = 1.0
        while True:
            moved = _moved(x, scale * delta)
            residual = _flat(f(moved))
            if np.linalg.norm(residual) < (1 - 1e-4 * scale) * size:
                break
            if small:               # as near as rounding allows
                return moved if np.linalg.norm(residual) <= size else x
            scale /= 2
            if scale < 1e-12:
                raise ConvergenceError(f"{name}: Newton's direction does not make the residual "
                                       f"smaller after {step - 1} steps; it is {size:.3g}")
        x = moved
        if small:
            return x
    raise ConvergenceError(f"{name}: no root after {step} steps; the residual is "
                           f"{np.linalg.norm(residual):.3g}")


def _flat(leaves):
    return np.concatenate([np.ravel(plain(leaf)) for leaf in leaves] or [np.zeros(0)])


def _matrix(f, x):
    """The Jacobian in all entries of x."""
    sizes = [np.size(leaf) for leaf in x]
    blocks = blocks_of(Run("jacobian", f, (x,), {}, 0, False), "auto", None)
    rows = [[np.reshape(plain(block), (m, n)) for block, n in zip(row, sizes)]
            for row, m in zip(blocks, sizes)]
    return np.block(rows) if rows else np.zeros((0, 0))


def _moved(x, delta):
    parts = np.split(delta, np.cumsum([np.size(leaf) for leaf in x])[:-1])
    return [leaf + (part.reshape(leaf.shape).astype(leaf.dtype) if np.ndim(leaf) else part.item())
            for leaf, part in zip(x, parts)]
