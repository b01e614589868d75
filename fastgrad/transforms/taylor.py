"""Taylor coefficients of a function along a line, from one walk over its recorded operations.

Each operation turns the truncated power series of its operands into that of its result. For the
element-wise ones this needs nothing but the table's partials: y' = p(a) a' means
k y[k] = sum over j = 1 ... k of j a[j] p[k - j], and p, an expression of rows of the table, is a
series of the same kind that is needed to one order less (Griewank & Walther, Evaluating
Derivatives, 2nd ed., 2008, chapter 13). So coefficients are computed when they are asked for.

The arithmetic is done with Tensors: within another transformation it is recorded.
"""

import contextvars
import functools
import math

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of
from fastgrad._operators.rule import Rule, apply, pushed
from fastgrad._operators.shaped import SHAPED
from fastgrad._run import differentiable, function_given, matching
from fastgrad.graphs.walk import Meaning, walk

from .custom import constant, plain, refuse_recorded

__all__ = ["taylor"]

ORDERS = 1000           # the price grows with the square
Tensor = core.Tensor
_row = core.functions


def taylor(f, x, v, order=5, *, has_aux=False, **kwargs):
    """The Taylor coefficients of ``t -> f(x + t * v)`` at t = 0.

    f runs once; the price beyond that is about ``order**2 / 2`` operations for each recorded one,
    where nested forward derivatives take ``2**order``.

    Parameters
    ----------
    f : callable
        Takes and returns floats, arrays (float32 or float64), and trees of them.
    x : float, array, or a tree of them
        Where f is expanded: its only argument.
    v : like x
        The direction.
    order : int
        The highest power of t, at most 1000: that is half a million operations for each recorded
        one already, and 1/k!, the coefficients of exp, are zero in float64 from k = 178 on.
    has_aux : bool
        Whether f returns ``(value, aux)``; aux is then returned beside the coefficients.
    **kwargs
        Keyword arguments of f, which stay as they are.

    Returns
    -------
    list
        ``order + 1`` coefficients, each built like ``f(x)``: ``f(x)`` itself, the derivative
        along v, half of the second one, ...; the one of number k is the derivative of order k
        divided by k!. Of Tensors, and within another transformation, they are Tensors that are
        differentiated with respect to x and v.

    Raises
    ------
    ValueError
        If the order is negative or above 1000, or v is not built like x or of other shapes.
    TypeError
        For arguments without derivative and results that are no numbers; within another
        transformation also if f uses a Tensor that is being differentiated but is not part of x.
    NoDerivativeError
        If f calls a function whose derivative is given by a rule: the rule knows no higher ones.
    RuntimeError
        If f itself asks for Taylor coefficients.

    Notes
    -----
    Rows whose partials call rows of their own (hypot, logaddexp, xlogy, ...) take ``order**3``,
    and orders above a hundred or so may meet Python's limit of recursion there.

    References
    ----------
    A. Griewank, A. Walther, Evaluating Derivatives, 2nd ed. (SIAM 2008), chapter 13.

    Examples
    --------
    >>> fg.taylor(lambda x: x ** 3, 2.0, 1.0, order=4)
    [8.0, 12.0, 6.0, 1.0, 0.0]
    >>> fg.taylor(lambda x: np.sum(np.exp(x)), np.zeros(2), np.array([1.0, 2.0]), order=2)
    [np.float64(2.0), np.float64(3.0), np.float64(2.5)]
    """
    function_given("taylor", f)
    if not hasattr(order, "__index__") or order < 0:
        raise ValueError(f"taylor: order={order!r} must be an int that is not negative")
    if order > ORDERS:
        raise ValueError(f"taylor: order={order!r} is above {ORDERS}, which takes half a million "
                         "operations for each of f's")
    kept = []

    def value_of(x):
        value = f(x, **kwargs)
        if not has_aux:
            return value
        if type(value) is not tuple or len(value) != 2:
            raise TypeError("taylor: with has_aux=True the function must return (value, aux), not "
                            f"{type(value).__name__}")
        kept[:] = value[1:]
        return value[0]

    leaves, structure = trees.numbers(x)
    try:
        directions = matching("taylor", v, structure, map(np.shape, leaves), "direction",
                               "argument 0")
    except (TypeError, ValueError):
        differentiable("taylor", "argument 0", x)
        raise
    connected = core.nested() or any(isinstance(leaf, Tensor) for leaf in leaves + directions)
    if connected:
        # What f uses of outer Tensors would be a constant in its graph.
        refuse_recorded("taylor", trees.flatten(
            value_of(trees.unflatten(structure, map(plain, leaves))))[0])
    places = ["argument 0" + path for path in trees.paths(structure)]
    trace = core.Trace("taylor", leaves, places, None, True)
    try:
        trace.begin()
        value = value_of(trees.unflatten(structure, trace.arguments))
        core.check_results("taylor", value)
        outputs, returned = trees.flatten(value)
        trace.results(outputs)
    finally:
        trace.end()
    del value, outputs
    if not core.nested() and trace.independent():
        core.warn_independent(f"taylor of {name_of(f)}")
    values = trace.plain()
    nodes, results = trace.nodes()
    inputs = [_Series([_tensor(leaf, leaf), _tensor(direction, leaf)])
              for leaf, direction in zip(leaves, directions)]
    series = _propagate(nodes, results, inputs, order.__index__())
    if not trace.results_finite():
        _settle_results(series, nodes, results, inputs, order.__index__())
    if connected:
        values = [value if i is None else series[i][0] for i, value in zip(results, values)]
    coefficients = [trees.unflatten(returned, values)] + [
        trees.unflatten(returned, [
            _settled(series[i][k] if i is not None else None, value)
            for i, value in zip(results, values)])
        for k in range(1, order + 1)]
    if has_aux:
        return coefficients, trees.tree_map(core.settled, kept[0])
    return coefficients


def _settle_results(series, nodes, results, inputs, order):
    """Entries of results that are not finite: there a zero that comes earlier in the chain does not
    win over an infinity (see `_times`)."""
    token = _infinite.set(True)
    try:
        others = _propagate(nodes, results, inputs, order)
    finally:
        _infinite.reset(token)
    for i in {i for i in results if i is not None}:
        finite = np.isfinite(plain(series[i][0]))
        series[i] = _Series([series[i][0]] + [
            t if t is None else _row["settle"](t, others[i][k], finite)
            for k, t in enumerate(series[i].known) if k])


def _tensor(value, like):
    """A number or array as a Tensor of the dtype of another one."""
    dtype = getattr(like, "dtype", np.float64)
    return core.cast(value if isinstance(value, Tensor) else constant(np.asarray(value, dtype)),
                     dtype)


def _settled(t, value):
    """A coefficient (None: zero) as what the value of the function is."""
    if t is None:
        zeros = core.zeros_for(value)
        if not isinstance(value, Tensor):
            return zeros
        t = constant(np.asarray(zeros, value.dtype))
    if isinstance(value, Tensor):
        return t
    if isinstance(value, np.ndarray):
        return np.array(t.numpy())
    return value.dtype.type(t.item()) if isinstance(value, np.generic) else t.item()


def _propagate(nodes, results, inputs, order):
    """The series of the nodes that are results, by number."""
    return dict(zip(results, walk(nodes, inputs, _PowerSeries(order), results)))


# ---- power series ---------------------------------------------------------------------------

class _PowerSeries(Meaning):
    """Operations of series, a list of them where there are several results: of all coefficients up
    to an order or, without one, of those that are asked for."""

    def __init__(self, order=None):
        self.order, self.known = order, {}

    def operation(self, node, operands):
        y = super().operation(node, operands)
        if not isinstance(y, _Series):
            return y
        if self.order is None:
            return y.mapped(lambda t: _fit(t, node))
        y = y.computed(self.order, node)
        for made, sources in self.known.values():
            made.more = None                    # it refers to others that refer to it
        self.known = {}
        return y

    def constant(self, node):
        # (None: no partial reads it; an operator's record has it)
        return node.value if node.shape == () or node.value is None else _Series([
            constant(node.value)])

    def elementwise(self, node, operands):
        return _elementwise(node.op, operands, node.tie, self.known)

    def moves(self, node, operands):
        """What is linear: the operator itself, of each coefficient."""
        step = SHAPED[node.op].step(node)

        def more(k):
            parts = [_part(x, k) for x in operands]
            if all([t is None for t in parts]):
                return None
            for place, x in enumerate(operands):
                if parts[place] is None:
                    first = _part(x, 0)     # (None: assigned to before it was kept.)
                    parts[place] = np.zeros(node.shape if first is None else
                                            getattr(first, "shape", ()), node.dtype)
            return step(*parts)
        return _Series([], more)

    def reduces(self, node, operands):
        row = SHAPED[node.op]
        return self.moves(node, operands) if row.linear else (
            _weighted if row.weighed else _folded)(row, node, *operands)

    def product(self, node, operands):
        step = SHAPED[node.op].step(node)

        def product(s, t):
            return None if s is None or t is None else step(s, t)
        return _Series([], lambda k: _cauchy(k, *operands, 0, product))

    def result(self, node, operands):
        return operands[0][node.attribute]

    def custom(self, node, operands):
        rule = node.attribute
        if not isinstance(rule, Rule):
            raise core.NoDerivativeError(
                f"taylor: the function calls {rule!r}, whose derivative is given by a "
                "rule, which knows no higher ones; nest fg.jvp instead")
        return _operator(rule.row, rule.options, [
            _Series([rule.constants[k]]) if x is None else x for k, x in enumerate(operands)])


class _Series:
    """Coefficients, as Tensors; None is zero. Those not known yet are computed when asked for."""

    __slots__ = "known", "more", "slopes"

    def __init__(self, known, more=None):
        self.known = known
        self.more = more            # from the number of a coefficient to it; None: all are zero
        self.slopes = {}

    def __getitem__(self, k):
        if self.more is None:
            return self.known[k] if k < len(self.known) else None
        while len(self.known) <= k:
            self.known.append(self.more(len(self.known)))
        return self.known[k]

    def slope(self, j):
        """j times coefficient j: what the derivative of the series has before it."""
        if j not in self.slopes:
            self.slopes[j] = self[j] if j == 1 else _times(self[j], float(j))
        return self.slopes[j]

    def computed(self, order, node):
        """All coefficients, in the shape and dtype of a node."""
        self[order]
        self.more = None
        return _Series([None if t is None else _fit(t, node) for t in self.known[:order + 1]])

    def mapped_slopes(self):
        """The series of its derivative. (Its first coefficient is a number, as any value's.)"""
        def image(k):
            if self[k + 1] is None:
                return None if k else _row["multiply"](self[0], 0.0)
            return _times(self[k + 1], k + 1.0)
        return _Series([], image)

    def mapped(self, linear):
        """A linear function of the series."""
        def image(k):
            return None if self[k] is None else linear(self[k])
        return _Series([], image)


def _constant(x):
    """Whether it does not depend on t: a number, or a series of one coefficient."""
    return not isinstance(x, _Series) or x.more is None and len(x.known) == 1


def _part(x, k):
    """Coefficient k of a series or a number."""
    return x[k] if isinstance(x, _Series) else x if k == 0 else None


def _fit(t, node):
    if t.shape != node.shape:
        t = (core.reshape if t.size == math.prod(node.shape) else core.broadcast_to)(t, node.shape)
    return t if t.dtype == node.dtype else core.cast(t, node.dtype)


def _plus(a, b):
    return b if a is None else a if b is None else _row["add"](a, b)


def _minus(a, b):
    return (a if b is None else _row["negative"](b) if a is None else _row["subtract"](a, b))


_infinite = contextvars.ContextVar("_infinite", default=False)      # of results that are


def _times(a, b):
    """The chain rule's product, in which zero is stronger than infinity; of results that are not
    finite only that of b, a partial, which comes later in the chain than the tangent a."""
    if a is None or b is None:
        return None
    return _row["chain"](b, a, False) if _infinite.get() else _row["weigh"](a, b)


def _cauchy(k, a, b, first=0, product=_times):
    """The sum of a[j] b[k - j] over j = first ... k."""
    total = None
    for j in range(first, k + 1):
        x, y = _part(a, j), _part(b, k - j)
        total = _plus(total, product(y, x) if j == 0 and product is _times else product(x, y))
    return total


def _chained(k, x, p, total=None):
    """k times coefficient k of the series whose derivative is x' p, added to a total."""
    for j in range(1, k + 1):
        total = _plus(total, _times(x.slope(j), p[k - j]))
    return total


def _divided(total, k):
    return None if total is None else _row["divide"](total, float(k))


# ---- element-wise operations ----------------------------------------------------------------

def _elementwise(op, operands, tie, known):
    """The series of a row of the table; `known` holds those of its formulas made so far."""
    key = op, *[id(x) if isinstance(x, _Series) else x for x in operands]
    if key in known:
        return known[key][0]
    if not any(isinstance(x, _Series) for x in operands):
        with np.errstate(all="ignore"):
            return float(_row[op](*operands))
    y = _Series([_row[op](*[_part(x, 0) for x in operands])])
    known[key] = y, operands                # operands stay alive: their ids are theirs
    if all(map(_constant, operands)):
        return y
    direct = _power(operands, tie, known) if op == "power" else _DIRECT.get(op)
    if direct:
        y.more = lambda k: direct(k, y, *operands)
        return y

    @functools.cache
    def partial(which):
        """The partial by one operand: a series or a number."""
        sources = {"a": operands[0], "b": operands[1 % len(operands)], "c": operands[-1],
                   "y": y, "tie": tie}
        made = []

        def source(s):
            return sources[s] if type(s) is str else made[s] if type(s) is int else s

        steps, result = core.partial_formulas(op)[which]
        for name, names in steps:
            made.append(_elementwise(name, [source(s) for s in names], tie, known))
        return source(result)

    def chain(k):
        straight = total = None
        for which, x in enumerate(operands):
            p = None if _constant(x) else partial(which)
            if p is None or type(p) is float and p == 0:
                continue
            if _constant(p):
                straight = _plus(straight, x[k] if type(p) is float and p == 1 else
                                 _times(x[k], _part(p, 0)))
            else:
                total = _chained(k, x, p, total)
        return _plus(straight, _divided(total, k))

    y.more = chain
    return y


def _quotient(k, y, a, b):
    rest = _minus(_part(a, k), _cauchy(k, b, y, 1))
    return _times(rest, _row["divide"](1.0, _part(b, 0)))


def _chosen(k, y, a, b, mask):
    a, b = _part(a, k), _part(b, k)
    if a is None and b is None:
        return None
    return _row["where"](0.0 if a is None else a, 0.0 if b is None else b, _part(mask, 0))


def _power(operands, tie, known):
    """How to compute a power away from the base 0: from a y' = b y a' for a constant exponent,
    else from y = exp(b log(a)), y' = y (b log(a))'. At 0 the formula of the table is exact, but
    every order adds another power to it."""
    base = plain(_part(operands[0], 0))
    if _constant(operands[1]) and np.all(base != 0):
        def straight(k, y, a, b):
            b = _part(b, 0)
            total = None
            for j in range(1, k + 1):
                term = _times(_times(a[j], y[k - j]), _row["subtract"](
                    _row["multiply"](b, float(j)), float(k - j)))
                total = _plus(total, term)
            return None if total is None else _row["divide"](
                total, _row["multiply"](_part(a, 0), float(k)))
        return straight
    if np.all(base > 0):
        logarithm = _elementwise("log", operands[:1], tie, known)
        exponent = _elementwise("multiply", [operands[1], logarithm], tie, known)

        return lambda k, y, a, b: _divided(_chained(k, exponent, y), k)
    return None


# Arithmetic needs no formula: coefficient k, given the result's series and the operands'.
_DIRECT = {
    "add": lambda k, y, a, b: _plus(_part(a, k), _part(b, k)),
    "subtract": lambda k, y, a, b: _minus(_part(a, k), _part(b, k)),
    "negative": lambda k, y, a: _minus(None, a[k]),
    "multiply": lambda k, y, a, b: _cauchy(k, a, b),
    "weigh": lambda k, y, a, b: _cauchy(k, a, b),
    "chain": lambda k, y, a, b, finite: _cauchy(k, a, b),
    "square": lambda k, y, a: _cauchy(k, a, a),
    "divide": _quotient,
    "reciprocal": lambda k, y, a: _quotient(k, y, 1.0, a),
    "where": _chosen,
    "settle": _chosen,
}


# ---- shaped operations ----------------------------------------------------------------------

def _folded(row, node, a):
    """A reduction by arithmetic: the reduced entries in one row, combined in pairs."""
    shape = a[0].shape
    axes = [i for i in range(len(shape)) if i not in node.attribute] + list(node.attribute)
    kept = tuple([shape[i] for i in axes[:len(shape) - len(node.attribute)]])
    count = math.prod([shape[i] for i in node.attribute])
    missing = (1 << max(count - 1, 0).bit_length()) - count

    def more(k):
        if a[k] is None:
            return None
        rows = core.reshape(core.transpose(a[k], axes), (*kept, count))
        filler = (np.zeros if k else np.ones)((*kept, missing), rows.dtype)
        return core.concatenate([rows, filler], len(kept)) if missing else rows

    rows, size = _Series([], more), count + missing
    while size > 1:
        size //= 2
        halves = [rows.mapped(lambda t, part=part: t[..., part])
                  for part in (slice(size), slice(size, None))]
        rows = _elementwise(row.fold, halves, 0.5, {})
    return rows.mapped(lambda t: core.reshape(t, kept))


def _weighted(row, node, a):
    """A reduction with y' = sum(w a'). The weights w are constant where it takes entries; else its
    formula gives them, but for results that are not finite."""
    shape = tuple([1 if i in node.attribute else n for i, n in enumerate(a[0].shape)])
    y = _Series([row.step(node)(a[0])])
    shares = constant(core.reduction_weights_of(plain(a[0]), node.op, node.attribute))
    if row.selects:
        y.more = lambda k: None if a[k] is None else core.sum(
            _row["weigh"](a[k], shares), axis=node.attribute)
        return y
    finite = np.isfinite(plain(y[0]))
    shift = y.known[0] if np.all(finite) else _row["where"](y[0], 0.0, finite)
    shifted = _Series([core.reshape(shift, shape)], lambda k: None if y[k] is None else
                      core.reshape(y[k], shape))
    weights = row.slopes(lambda name, *x: _elementwise(name, list(x), 0.5, {}), a, shifted, None)
    if not np.all(finite):
        within, finite = weights, np.reshape(finite, shape)
        weights = _Series([], lambda k: _row["where"](
            0.0 if within[k] is None else within[k], 0.0 if k else shares, finite))

    def more(k):
        total = _chained(k, a, weights)
        return None if total is None else _divided(core.sum(total, axis=node.attribute), k)

    y.more = more
    return y


def _operator(row, options, operands):
    """The series of an operator's results, a list. Where it is linear, the operator of each
    coefficient; else y' = jvp(x', x, y) gives one coefficient from those before it. (An operator
    that its own jvp calls, as that of solve does, is needed to one order less there.)"""
    values = apply(row, [_part(x, 0) for x in operands], options)
    moving = [k for k, x in enumerate(operands) if not _constant(x)]
    if moving == list(row.linear) and len(moving) == 1:
        k, = moving

        def image(j):
            return None if operands[k][j] is None else apply(
                row, [*operands[:k], operands[k][j], *operands[k + 1:]], options)[0]
        return [_Series([values[0]], image)]
    results = [_Series([y]) for y in values]

    @functools.cache
    def slopes():
        return _pushed(row, options, moving, operands, results)

    for which, y in enumerate(results):
        y.more = lambda k, which=which: slopes()[which] and _times(slopes()[which][k - 1], 1.0 / k)
    return results


def _pushed(row, options, moving, operands, results):
    """The series of the results' derivatives (None: zero): the jvp rule is recorded once, and its
    graph done with series."""
    given = [operands[k].mapped_slopes() for k in moving], operands, results
    flat = [x for part in given for x in part]
    trace = core.Trace("taylor", [plain(_part(x, 0)) for x in flat], [""] * len(flat), None, True)
    try:
        trace.begin()
        arguments = list(trace.arguments)
        tangents = [None] * len(operands)
        for k, t in zip(moving, arguments):
            tangents[k] = t
        found = pushed(row, options, tangents, arguments[len(moving):len(moving) + len(operands)],
                       arguments[len(moving) + len(operands):])
        trace.results([constant(0.0) if t is None else t for t in found])
    finally:
        trace.end()
    nodes, ends = trace.nodes()
    return walk(nodes, flat, _PowerSeries(), ends)
