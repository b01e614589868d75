"""Numeric differentiation: the slow, honest twin of the transformations.

The function is called with plain floats and arrays at points near x, and nothing of the core is
used, so that the results can be held against those of the core. Function, arguments and result
are turned into a function of vectors (`VectorFunction`, `Layout`); all derivatives of it come from
`derive`, by one of four methods:

=============  ============================  =====================  ===============
method         slope along v                 error, roughly         calls of f each
=============  ============================  =====================  ===============
"forward"      (f(x + tv) - f(x)) / t        eps ** (1/2)           1
"central"      (f(x + tv) - f(x - tv)) / 2t  eps ** (2/3)           2
"richardson"   central, extrapolated to t=0  10 to 1000 eps         20
"complex"      Im f(x + itv) / t             eps                    1
=============  ============================  =====================  ===============

where eps is the machine epsilon of x or of f(x), whichever is the coarser.

    >>> import fastgrad as fg
    >>> fg.numeric.gradient(lambda x: x ** 3, 2.0, method="complex")
    12.0
"""

import bisect
import itertools
import math
import numbers
import operator
import warnings

import numpy as np

from fastgrad._core import trees
from fastgrad._core.arguments import called, name_of, no_parameters

__all__ = ["derivative", "gradient", "hessian", "jacobian", "jvp"]

METHODS = ("central", "forward", "richardson", "complex")
LAYOUTS = ("numerator", "denominator")
LEVELS = 10             # of Richardson's extrapolation; the step is halved from one to the next
COMPLEX_STEP = 1e-50    # its square is lost beside any x, and slopes above 1e-258 are not


# ---- what people call -----------------------------------------------------------------------

def gradient(f, *args, argnums=0, method="central", step=None, full_output=False, argnames=None):
    """The gradient of a function that returns one number.

    Parameters
    ----------
    f : callable
        Takes `args`; plain NumPy code. It is given copies, and only of what is differentiated.
    *args
        The point: floats, real floating arrays of any shape, or tuples, lists, dicts, namedtuples
        and dataclasses of them, nested at will. Arguments that `argnums` does not name may be
        anything.
    argnums : int or tuple of int
        The positional arguments to differentiate with respect to.
    method : {"central", "forward", "richardson", "complex"}
        "forward" and "central" differences [1]_; "richardson": central differences extrapolated
        to step 0 by Ridders' method [2]_, for the digits that differences lose; "complex": the
        complex step [3]_, exact to rounding, if f is written in functions that NumPy computes for
        complex numbers and does without abs, conj, norm and the like.
    step : float, optional
        How far to go from x in each entry. By default a power of the machine epsilon (0.1 for
        "richardson", which then halves it) times the magnitude of the entry, at least 1, and
        rounded so that x + step is exact; 1e-50 for "complex".
    full_output : bool
        Whether to return an estimate of the absolute error too: of rounding, and of the difference
        that another step makes. It takes "forward" and "central" twice the calls.
    argnames : str or tuple of str, optional
        The arguments by name instead of by number.

    Returns
    -------
    tree
        The gradient: the structure, shapes, dtypes and kinds of the argument (a float for a float,
        an ndarray for an ndarray, None for a string, a bool or a function in a tree); a tuple of
        gradients where `argnums` is a tuple; ``(gradient,
        error)``, alike in structure, with `full_output`.

    Raises
    ------
    TypeError
        If an argument has no derivative (integers, complex numbers, strings, objects), f does not
        return a real number, or f is not analytic as written and `method` is "complex".
    ValueError
        If f returns more than one number, or another structure at another point; if `method` is
        misspelt, or `step` is not positive or too small to change x.

    References
    ----------
    .. [1] J. Nocedal, S. J. Wright, *Numerical Optimization*, 2nd edition, 2006, section 8.1.
    .. [2] C. J. F. Ridders, "Accurate computation of F'(x) and F'(x) F''(x)", Advances in
       Engineering Software 4(2), 1982.
    .. [3] W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real
       functions", SIAM Review 40(1), 1998.

    Examples
    --------
    >>> import fastgrad.numeric as numeric
    >>> numeric.gradient(lambda x: np.sum(x ** 3), np.array([1.0, 2.0]), method="complex")
    array([ 3., 12.])
    >>> slope, error = numeric.gradient(np.exp, 0.0, method="richardson", full_output=True)
    >>> abs(slope - 1) < error < 1e-11
    True
    """
    F = _function_of_one_number(f, args, argnums, argnames, method, step)
    return _answer(lambda matrix: F.domain.derivative(matrix[0]),
                   _jacobian(F, method, step, full_output))


def derivative(f, x, order=1, *, method="central", step=None, full_output=False):
    """The derivative, or a higher one, of a function of one number.

    Parameters
    ----------
    f : callable
        Takes a number; returns a number, an array or a tree of them.
    x : float, NumPy scalar or array of shape ()
        The point.
    order : int
        Which derivative, from 1 on. Differences are applied `order` times over, with a step that
        grows with the order; rounding leaves about ``2 / (2 + order)`` of the digits to "central"
        and ``1 / (1 + order)`` to "forward".
    method, step, full_output
        As in `gradient`. From the second order on, "complex" is central differences of the
        complex step.

    Returns
    -------
    tree
        The structure and shapes of what f returns, a float for a number if x is a float;
        ``(derivative, error)`` with `full_output`.

    Raises
    ------
    TypeError, ValueError
        As `gradient`; ValueError if x is not one number or `order` is less than 1.

    Examples
    --------
    >>> import fastgrad.numeric as numeric
    >>> round(numeric.derivative(lambda x: x ** 4, 2.0), 6)
    32.0
    >>> round(numeric.derivative(lambda x: x ** 4, 2.0, order=3, method="richardson"), 6)
    48.0
    """
    _check_options(method, step)
    if operator.index(order) < 1:
        raise ValueError(f"derivative: order must be at least 1, not {order}")
    F = VectorFunction(f, (x,), 0)
    if F.domain.shapes != [()]:
        raise ValueError("derivative: x must be one number; use gradient or jacobian for more")
    along = np.ones(1)
    if method == "complex":
        _require_analytic(F, along)
    found = derive(F, [along] * order, method, step, full_output)
    return _answer(lambda slope: _blocks(slope[:, None], F.range, F.domain), found)


def jacobian(f, *args, argnums=0, method="central", layout="numerator", step=None,
             full_output=False, argnames=None):
    """The Jacobian of a function that returns a number, an array or a tree of them.

    Parameters
    ----------
    f : callable
        Takes `args`; returns real numbers, always in the same structure and shapes.
    *args, argnums, method, step, full_output, argnames
        As in `gradient`.
    layout : {"numerator", "denominator"}
        The order of the axes of each block: ``out.shape + in.shape``, or transposed,
        ``in.shape + out.shape``.

    Returns
    -------
    tree
        In the structure of what f returns, for each number or array there a tree in the structure
        of the argument (a tuple of trees where `argnums` is a tuple). Its leaves are arrays of the
        dtype that NumPy's promotion gives both, or single numbers of the kind of the argument's.
        ``(jacobian, error)`` with `full_output`.

    Raises
    ------
    TypeError, ValueError
        As `gradient`, but f may return any number of numbers.

    Examples
    --------
    >>> import fastgrad.numeric as numeric
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> numeric.jacobian(lambda x: x[:2] * x[2], x, method="complex")
    array([[3., 0., 1.],
           [0., 3., 2.]])
    >>> numeric.jacobian(lambda x: x[:2] * x[2], x, method="complex", layout="denominator").shape
    (3, 2)
    """
    _check_options(method, step)
    _check_choice("layout", layout, LAYOUTS)
    F = VectorFunction(f, args, argnums, argnames)
    return _answer(lambda matrix: _blocks(matrix, F.range, F.domain, layout),
                   _jacobian(F, method, step, full_output))


def hessian(f, *args, argnums=0, method="central", step=None, full_output=False, argnames=None):
    """The Hessian of a function that returns one number, by second differences.

    Parameters
    ----------
    f, *args, argnums, step, full_output, argnames
        As in `gradient`. Rounding leaves half of the digits to "central", a third to "forward".
    method : {"central", "forward", "richardson", "complex"}
        As in `gradient`: the four-point formula for mixed derivatives [1]_, its counterpart in
        forward differences, its extrapolation, or central differences of the complex step [2]_,
        which keep two thirds of the digits.

    Returns
    -------
    tree
        For an array, an array of ``x.shape + x.shape``, symmetric. For a tree, in its structure
        trees of its structure. ``(hessian, error)`` with `full_output`.

    Raises
    ------
    TypeError, ValueError
        As `gradient`.

    References
    ----------
    .. [1] M. Abramowitz, I. A. Stegun, *Handbook of Mathematical Functions*, 1964, section 25.3.
    .. [2] M. S. Ridout, "Statistical applications of the complex-step method of numerical
       differentiation", The American Statistician 63(1), 2009.

    Examples
    --------
    >>> import fastgrad.numeric as numeric
    >>> numeric.hessian(lambda x: x[0] ** 2 * x[1], np.array([1.0, 3.0])).round(6)
    array([[6., 2.],
           [2., 0.]])
    """
    F = _function_of_one_number(f, args, argnums, argnames, method, step)
    if method == "complex":
        _require_analytic(F)
    n = F.domain.size
    units = np.eye(n)
    found = np.zeros((2 if full_output else 1, n, n), F.x.dtype)
    for i, j in itertools.combinations_with_replacement(range(n), 2):
        pair = np.concatenate(derive(F, [units[i], units[j]], method, step, full_output))
        found[:, i, j] = found[:, j, i] = pair
    return _answer(lambda matrix: _blocks(matrix, F.domain, F.domain), found)


def jvp(f, x, v, *, method="central", step=None, full_output=False):
    """The derivative of f at x along v: the product of the Jacobian and v.

    Parameters
    ----------
    f : callable
        Takes x; returns a number, an array or a tree of them.
    x : tree
        The point; what f takes, as in `gradient`.
    v : tree
        The tangent: numbers in the structure and shapes of x.
    method, full_output
        As in `gradient`; two calls of f do for "central", however large x is.
    step : float, optional
        The t of ``x + t v``. By default the largest that takes no entry further from x than
        `gradient` would.

    Returns
    -------
    tree
        The structure, shapes, dtypes and kinds of what f returns; ``(tangent, error)`` with
        `full_output`.

    Raises
    ------
    TypeError, ValueError
        As `gradient`; ValueError if v does not have the structure and shapes of x.

    Examples
    --------
    >>> import fastgrad.numeric as numeric
    >>> x, v = np.array([1.0, 2.0]), np.array([1.0, -1.0])
    >>> numeric.jvp(lambda x: x * x, x, v, method="complex")
    array([ 2., -4.])
    """
    _check_options(method, step)
    F = VectorFunction(f, (x,), 0)
    try:
        v = F.domain.vector(v, True)
    except ValueError as error:
        raise ValueError(f"jvp: v must be like x, but {error}") from None
    except TypeError as error:
        raise TypeError(f"jvp: v {error}") from None
    if method == "complex":
        _require_analytic(F, v)
    return _answer(F.range.tree, derive(F, [v], method, step, full_output))


def _check_options(method, step):
    _check_choice("method", method, METHODS)
    if step is not None and not (isinstance(step, numbers.Real) and 0 < step < math.inf):
        raise ValueError(f"step must be a positive number, not {step!r}")


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def _function_of_one_number(f, args, argnums, argnames, method, step):
    _check_options(method, step)
    F = VectorFunction(f, args, argnums, argnames)
    if F.range.structure != trees.LEAF:
        raise TypeError(f"{F.name} must return one number, not {type(F.range.original).__name__}")
    if F.range.size != 1:
        raise ValueError(f"{F.name} must return one number, not an array of shape "
                         f"{F.range.shapes[0]}; use jacobian")
    return F


def _answer(lay_out, found):
    """What was found, laid out: the derivative, or the pair of it and its error."""
    answers = tuple(map(lay_out, found))
    return answers if len(answers) == 2 else answers[0]


# ---- differences ----------------------------------------------------------------------------

def _forward(f, step):
    return lambda x: f(x + step) - f(x)


def _central(f, step):
    return lambda x: (f(x + step) - f(x - step)) / 2


@np.errstate(all="ignore")
def derive(F, directions, method, step, full_output):
    """[slope] or [slope, error]: the derivative of F at x along all the directions in turn."""
    f, value, eps = F, F.y, F.eps(directions)
    if method == "complex":
        f = _complex_step(F, directions[0], step or COMPLEX_STEP)
        directions, value = directions[1:], f(F.x)
        if not directions:
            return [value, eps * abs(value)][:1 + full_output]
    order = len(directions)
    difference = _forward if method == "forward" else _central

    def quotient(reach):
        """The difference quotient over that reach, and what rounding may have done to it."""
        g, divisor = f, 1.0
        for v in directions:
            t = _stride(F, v, reach, step is not None)
            g, divisor = difference(g, t * v), divisor * t
        return g(F.x) / divisor, eps * abs(value) / divisor

    if method == "richardson":
        return _richardson(quotient, step or 0.1)[:1 + full_output]
    # Here rounding and truncation err about equally much.
    reach = step or eps ** (1 / (order + (1 if method == "forward" else 2)))
    slope, noise = quotient(reach)
    if not full_output:
        return [slope]
    # What is truncated grows like the reach, or like its square.
    truncated = abs(quotient(2 * reach)[0] - slope) / (1 if method == "forward" else 3)
    return [slope, truncated + noise]


def _complex_step(F, v, t):
    """The function whose value at x is the derivative of F at x along v."""
    return lambda x: F(x + 1j * t * v).imag / t


def _richardson(quotient, reach):
    """[slope, error] by extrapolation of an even function of the reach to 0: Ridders' method.

    Row by row the reach is halved, column by column one more even power of it is cancelled; each
    output keeps the entry that differs least from its neighbours.
    """
    best, error, row = np.nan, np.inf, []
    for _ in range(LEVELS):
        coarser = row
        slope, noise = quotient(reach)
        row = [slope]
        for column, neighbour in enumerate(coarser, 1):
            row.append(row[-1] + (row[-1] - neighbour) / (4 ** column - 1))
            doubt = noise + np.maximum(abs(row[-1] - row[-2]), abs(row[-1] - neighbour))
            better = doubt < error          # and never if f is not finite there
            best, error = np.where(better, row[-1], best), np.where(better, doubt, error)
        reach /= 2
    return [best, error]


def _stride(F, v, reach, absolute):
    """The t for x + t v: `reach` itself, or so that no entry moves by more than that part of it."""
    moving = np.flatnonzero(v)
    if not moving.size:
        return reach
    i = moving[np.argmin(F.scale[moving] / abs(v[moving]))]
    size, speed = abs(F.x[i]), abs(v[i])
    t = reach if absolute else reach * F.scale[i] / speed
    # The entry that limits t should move by exactly what the quotient is divided by.
    moved = F.domain.dtypes[F.domain.leaf_of(i)].type(size + t * speed) - size
    if moved == 0 and absolute:
        raise ValueError(f"a step of {reach:g} is lost beside an entry of {F.x[i]:g}")
    return moved / speed


def _jacobian(F, method, step, full_output):
    """[J] or [J, error], as matrices of F.y.size rows and F.x.size columns."""
    if method == "complex":
        _require_analytic(F)
    columns = []
    for i in range(F.x.size):
        v = np.zeros(F.x.size)
        v[i] = 1
        columns.append(derive(F, [v], method, step, full_output))
    return [np.array([column[k] for column in columns]).reshape(F.x.size, F.y.size).T
            for k in range(1 + full_output)]


def _require_analytic(F, v=None):
    """Refuse an F whose complex step differs from its central difference, along v or at random."""
    if v is None:
        rng = np.random.default_rng(0)
        v = F.scale * rng.choice([-1, 1], F.x.size) * rng.uniform(0.5, 1.5, F.x.size)
    exact, = derive(F, [v], "complex", None, False)
    slope, error = derive(F, [v], "central", None, True)
    wrong = abs(exact - slope) > 10 * error + 0.01 * (abs(exact) + abs(slope))
    if wrong.any():
        k = np.argmax(wrong)
        raise F.not_analytic(f"along one direction it gives a slope of {exact[k]:g}, a central "
                             f"difference {slope[k]:g}")


# ---- functions of vectors -------------------------------------------------------------------

class VectorFunction:
    """f as a function from vectors to vectors, checked whenever it is called.

    x is the point as a vector, y the value there, scale the magnitude of each entry of x, at least
    1; domain and range tell how the trees that f takes and returns lie in vectors.
    """

    def __init__(self, f, args, argnums, argnames=None):
        if not callable(f):
            raise TypeError(f"f must be a function, not {type(f).__name__}")
        if argnames is not None:
            given = None if type(argnums) is int and argnums == 0 else argnums
            f, args, _, argnums = called("numeric", f, args, {}, given, argnames)
        self.f, self.args = f, args
        self.name = name_of(f)
        if not args and argnums == 0 and no_parameters(f):
            argnums = ()
        self.single = not isinstance(argnums, (tuple, list))
        self.positions = _positions(argnums, len(args))
        for i in self.positions:
            leaves, structure = trees.numbers(args[i])
            for path, leaf in zip(trees.paths(structure), leaves):
                _require_float(leaf, f"{self.name}: argument {i}{path}")
        chosen = tuple([args[i] for i in self.positions])
        self.domain = Layout(chosen[0] if self.single else chosen)
        self.x = self.domain.vector(self.domain.original)
        self.scale = np.maximum(1, abs(self.x))
        self.range = Layout(self.run(self.x))
        self.y = self.range.vector(self.range.original)

    def __call__(self, x):
        if x is self.x:
            return self.y
        result = self.run(x)
        try:
            return self.range.vector(result)
        except ValueError as error:
            raise ValueError(f"{self.name} returns something else nearby: {error}") from None

    def run(self, x):
        """What f returns for the vector x, real or complex."""
        args, chosen = list(self.args), self.domain.tree(x)
        for i, value in zip(self.positions, (chosen,) if self.single else chosen):
            args[i] = value
        if x.dtype.kind == "c":
            return self.run_complex(args)
        result = self.f(*args)
        for path, leaf in trees.leaves_with_paths(result):
            if _kind(leaf) not in "fiu":
                raise TypeError(f"{self.name} returned {_description(leaf)}{_at(path)}; "
                                "it must return real numbers, arrays, or trees of them")
        if result is None:
            raise TypeError(f"{self.name} returned None; is a return missing?")
        return result

    def run_complex(self, args):
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            try:
                result = self.f(*args)
            except (TypeError, np.exceptions.ComplexWarning) as error:
                raise self.not_analytic(str(error)) from error
        for path, leaf in trees.leaves_with_paths(result):
            if _kind(leaf) != "c":
                raise self.not_analytic("for complex numbers it returned "
                                        f"{_description(leaf)}{_at(path)}")
        return result

    def not_analytic(self, reason):
        return TypeError(
            f"{self.name} does not take a complex step: {reason}. abs, norm, conj, real, "
            "comparisons and the math module drop the imaginary part; use method='richardson'")

    def eps(self, directions):
        """The machine epsilon of what moves along the directions or of y, whichever is coarser."""
        moving = np.any(directions, axis=0)
        dtypes = [dtype for dtype, part in zip(self.domain.dtypes, self.domain.parts)
                  if moving[part].any()]
        return max([float(np.finfo(dtype).eps) for dtype in dtypes + self.range.dtypes],
                   default=np.finfo(np.float64).eps)


class Layout:
    """How the numbers of a tree lie in one vector, of float64 or longdouble."""

    def __init__(self, tree):
        self.original = tree
        self.leaves, self.structure = trees.numbers(tree)
        self.paths = trees.paths(self.structure)
        self.shapes = [np.shape(leaf) for leaf in self.leaves]
        dtypes = [np.asarray(leaf).dtype for leaf in self.leaves]
        self.dtypes = [dtype if dtype.kind == "f" else np.dtype(float) for dtype in dtypes]
        self.bounds = [0, *itertools.accumulate(map(math.prod, self.shapes))]
        self.parts = [slice(*pair) for pair in itertools.pairwise(self.bounds)]
        self.size = self.bounds[-1]

    def vector(self, tree, strict=False):
        """The numbers of a tree of the same structure and shapes; no bools if it is strict."""
        leaves = trees.flatten_like(self.structure, tree)
        for path, leaf, shape in zip(self.paths, leaves, self.shapes):
            if strict and np.asarray(leaf).dtype.kind == "b":
                raise TypeError(f"is bool{_at(path)}; it must be float")
            if np.shape(leaf) != shape:
                raise ValueError(f"the shapes differ{_at(path)}: expected {shape}, "
                                 f"got {np.shape(leaf)}")
        return np.concatenate([np.zeros(0), *map(np.ravel, leaves)])

    def tree(self, vector):
        """A new tree of the same structure, shapes, kinds and, if the vector is real, dtypes."""
        dtypes = self.dtypes if vector.dtype.kind == "f" else itertools.repeat(vector.dtype)
        return trees.unflatten(self.structure, [
            _like(leaf, vector[part].reshape(shape), dtype)
            for leaf, part, shape, dtype in zip(self.leaves, self.parts, self.shapes, dtypes)])

    def derivative(self, vector):
        """The same with None for what is no number."""
        return trees.unflatten(trees.bare(self.structure), trees.flatten_like(
            self.structure, self.tree(vector)))

    def leaf_of(self, i):
        """The number of the leaf that entry i of the vector belongs to."""
        return bisect.bisect_right(self.bounds, i) - 1

    def label(self, i):
        """How entry i of the vector is written in Python, behind the name of the tree."""
        k = self.leaf_of(i)
        index = np.unravel_index(i - self.bounds[k], self.shapes[k])
        return self.paths[k] + (f"[{', '.join(map(str, index))}]" if index else "")


def _blocks(matrix, rows, columns, layout="numerator"):
    """The matrix as a tree, like that of the rows, of trees like that of the columns."""
    def block(i, j):
        found = matrix[rows.parts[i], columns.parts[j]].reshape(rows.shapes[i] + columns.shapes[j])
        if layout == "denominator":
            rank = len(rows.shapes[i])
            found = np.moveaxis(found, range(rank), range(-rank, 0))
        dtype = np.result_type(*(0.0 if type(leaf) in (float, int) else np.asarray(leaf).dtype
                                 for leaf in (rows.leaves[i], columns.leaves[j])))
        return _like(columns.leaves[j], found, dtype)

    return trees.unflatten(trees.bare(rows.structure), [
        trees.unflatten(trees.bare(columns.structure), [
            block(i, j) for j in range(len(columns.leaves))])
        for i in range(len(rows.leaves))])


def _like(leaf, array, dtype):
    """A copy of the array; if it is one number, of the kind that the leaf is."""
    array = array.astype(dtype, order="C")
    if array.ndim or isinstance(leaf, np.ndarray):
        return array
    # A complex of Python yields to complex64, where a complex step is nothing.
    return array[()] if isinstance(leaf, np.generic) or array.dtype.kind == "c" else array.item()


def _positions(argnums, count):
    """The arguments to differentiate with respect to, counted from 0."""
    try:
        wanted = [operator.index(i) for i in
                  (argnums if isinstance(argnums, (tuple, list)) else (argnums,))]
    except TypeError:
        raise TypeError("argnums must be an int or a tuple of ints, not "
                        f"{trees.shown(argnums)}") from None
    positions = [i % count for i in wanted if -count <= i < count]
    if len(positions) < len(wanted):
        raise TypeError(f"argnums={argnums!r}, but the number of arguments is {count}")
    if len(set(positions)) < len(positions):
        raise ValueError(f"argnums={argnums!r} names an argument twice")
    return positions


def _require_float(leaf, where):
    kind = _kind(leaf)
    if kind == "f":
        return
    if kind in "biu":
        cure = f"write {'.astype(float)' if isinstance(leaf, np.ndarray) else 'float(x)'}"
    elif isinstance(leaf, np.matrix):
        cure = "write np.asarray(x)"
    elif kind == "c":
        cure = "differentiate with respect to its real and imaginary part"
    else:
        cure = "pass floats, arrays, or tuples, lists and dicts of them"
    raise TypeError(f"{where} is {_description(leaf)}, which has no derivative; {cure}")


def _kind(leaf):
    """The letter of NumPy for what the leaf holds, "?" if that is not numbers."""
    if isinstance(leaf, np.ma.MaskedArray | np.matrix):
        return "?"
    numeric = isinstance(leaf, (np.ndarray, np.generic, float, int, complex))
    return np.asarray(leaf).dtype.kind if numeric else "?"


def _description(leaf):
    if type(leaf) is np.ndarray:
        return f"an array of dtype {leaf.dtype}"
    return f"the {type(leaf).__name__} {leaf!r}"


def _at(path):
    return path and f" at {path}"
