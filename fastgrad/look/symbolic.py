"""A recorded graph read as formulas: with numbers, with SymPy expressions, with anything.

`Recording` runs a function and holds its graph with all values. Everything after it asks for one
thing only, `apply(row, *operands)`: what a row of the operator table means to the reader. With
the compiled rows the sweeps compute numbers, with `_sympy_row` SymPy expressions; `explain` brings
terms that it can print.
"""

import ast
import functools
import inspect
import math
import operator
import re
from typing import NamedTuple

import numpy as np

from fastgrad._core import core, trees
from fastgrad._operators.rule import Rule, apply
from fastgrad._operators.shaped import SHAPED, numbered
from fastgrad.graphs.walk import Meaning, walk

__all__ = ["Symbolic", "symbolic"]

ROWS = {row.name: row for row in core.operators()}


# ---- a function's run -----------------------------------------------------------------------

class Recording:
    """One run of f with everything kept.

    `nodes` and `output`, the number of the result's node (None: it does not depend on the
    arguments); `names` of the leaves of the arguments, which are the first nodes; `values`, an
    array for each node; `result`, what f returned.
    """

    def __init__(self, name, f, args, kwargs):
        if not callable(f):
            raise TypeError(f"{name}: the first argument must be a function, not "
                            f"{type(f).__name__}")
        leaves, self.structure = trees.numbers_of_arguments(args)
        if any(isinstance(leaf, core.Tensor) for leaf in leaves):
            raise TypeError(f"{name}: the arguments must be numbers and arrays, not Tensors; write "
                            "t.detach().numpy(), and do not call it inside a transformation")
        parameters = _parameters(f, args, kwargs)
        self.paths = [_written(path, parameters) for path in trees.paths(self.structure)]
        self.names = [_identifier(path) for path in self.paths]
        if not leaves:
            raise TypeError(f"{name}: there are no arguments to differentiate with respect to")
        trace = core.Trace(name, leaves, self.paths, keep=True)
        try:
            trace.begin()
            result = f(*trees.unflatten(self.structure, trace.arguments), **kwargs)
            trace.results([_one_number(name, result)])
        finally:
            trace.end()
        nodes, (self.output,) = trace.nodes()
        self.nodes = _with_operators(nodes)
        self.result, = trace.plain()
        self.values = _known_values(self, leaves)

    def tree(self, leaves):
        """Something for each leaf, in the shape of the arguments; without the tuple around a
        single argument."""
        tree = trees.unflatten(trees.bare(self.structure), leaves)
        return tree[0] if len(tree) == 1 else tree


class Applied(NamedTuple):
    """The attribute of a node of an operator: its record, the options, and which result it is."""
    row: object
    options: dict
    which: int

    def result(self, *operands):
        """This one, of plain arrays or Tensors."""
        return apply(self.row, operands, self.options)[self.which]


def _with_operators(nodes):
    """The nodes, those of an operator and of its results as one for each result."""
    found = []
    for node in nodes:
        maker = nodes[node.operands[0]] if node.op == "result" else None
        if maker is not None and isinstance(maker.attribute, Rule):
            rule = maker.attribute
            node = node._replace(op="operator", operands=maker.operands, attribute=Applied(
                rule.row, rule.options, node.attribute))
            for k, x in rule.constants.items():     # which the graph does not keep
                value = x.detach().numpy() if isinstance(x, core.Tensor) else np.asarray(x)
                found[maker.operands[k]] = found[maker.operands[k]]._replace(
                    value=value, shape=value.shape)
        found.append(node)
    read = {k for node in found for k in node.operands}
    # Nobody reads the nodes of these operators themselves any more.
    return [node if node.op != "custom" or i in read else
            node._replace(op="constant", operands=()) for i, node in enumerate(found)]


def _parameters(f, args, kwargs):
    """What f calls its positional arguments."""
    unnamed = ["x"] if len(args) == 1 else [f"x{i}" for i in range(len(args))]
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return unnamed
    names = [p.name for p in parameters
             if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in kwargs]
    rest = [p.name for p in parameters if p.kind == p.VAR_POSITIONAL]
    if len(names) < len(args):
        if not rest:
            return unnamed
        names += [f"{rest[0]}{i}" for i in range(len(args) - len(names))]
    return names[:len(args)]


def _written(path, parameters):
    """A path through the tuple of arguments, in the names of the function."""
    position, rest = re.match(r"\[(\d+)\](.*)", path, re.DOTALL).groups()
    return parameters[int(position)] + rest


def _identifier(path):
    """A path as a name: p['w'][0] becomes p_w_0."""
    return re.sub(r"\W+", "_", path).strip("_")


def _one_number(name, result):
    if not isinstance(result, (core.Tensor, np.ndarray, np.generic, int, float)):
        raise TypeError(f"{name}: the function must return one number, not "
                        f"{type(result).__name__}")
    if np.size(result) != 1:
        raise ValueError(f"{name}: the function returned an array of shape {np.shape(result)}; it "
                         "must return one number. Return one entry of it, or a sum")
    return result


def _known_values(recording, leaves):
    """The values of all nodes. What assignments have overwritten was not kept; the rest of it
    stands in what they made."""
    nodes = recording.nodes
    leaves = iter(leaves)
    shapes = [node.shape for node in nodes]
    values = [None if node.value is None else np.asarray(node.value) for node in nodes]
    replacing = []
    for i, node in enumerate(nodes):
        if node.op == "argument":
            values[i] = np.asarray(next(leaves), node.dtype)
        elif node.op in SHAPED and SHAPED[node.op].index == "replaced":
            shapes[node.operands[0]] = node.shape
            replacing.append(i)
    unknown = [i for i, value in enumerate(values) if value is None]
    for i in unknown:
        values[i] = np.full(shapes[i] or (), np.nan)
    for i in reversed(replacing):
        if nodes[i].operands[0] in unknown:
            rows, columns = SHAPED[nodes[i].op].route(
                nodes[i], 0, [values[k].shape for k in nodes[i].operands])
            values[nodes[i].operands[0]].flat[columns] = values[i].flat[rows]
    # What is still unknown has been summed up, at most: zeros, if the result says so.
    for i in unknown:
        if nodes[i].op == "constant":
            values[i] = np.nan_to_num(values[i], nan=0.0, posinf=np.inf, neginf=-np.inf)
    for i in unknown:
        if nodes[i].op in ROWS:
            values[i] = Numbers().operation(nodes[i], [values[k] for k in nodes[i].operands])
    if unknown and recording.output is not None:
        last = nodes[recording.output]
        again = Numbers().operation(last, [values[k] for k in last.operands])
        if not np.allclose(again, last.value, rtol=1e-5, equal_nan=True):
            raise NotImplementedError(
                "the function assigns to parts of an array whose other entries were not recorded; "
                "build the array with fnp.stack or fnp.concatenate")
    return values


# ---- what rows mean -------------------------------------------------------------------------

# Rows that the table describes in words or in C alone, in terms of other rows. For the rest the
# table's own text is read: the formula, or the one its description begins with.
WORDED = {
    "cbrt": "sign(a) * abs(a) ** (1 / 3)", "exp2": "2 ** a", "rint": "floor(a + 0.5)",
    "mod": "a - b * floor(a / b)", "fmod": "a - b * trunc(a / b)", "floor_divide": "floor(a / b)",
    "trunc": "sign(a) * floor(abs(a))", "log2": "log(a) / log(2)", "log10": "log(a) / log(10)",
    "clip": "min(max(a, b), c)",
    "heaviside": "1 if a > 0 else (0 if a < 0 else b)",
    "copysign": "abs(a) if b >= 0 else -abs(a)",
    "relu": "max(a, 0)", "step": "1 if a > 0 else 0", "is_zero": "1 if a == 0 else 0",
    "sigmoid_da": "sigmoid(a) * (1 - sigmoid(a))", "weigh": "a * b", "hypot_da": "a / hypot(a, b)",
    "chain": "a * b", "settle": "a",
    "power_db": "c * log(a)",
    "weight_max": "1 if a > b else (c if a == b else 0)",
    "weight_min": "1 if a < b else (c if a == b else 0)",
    "weight_fmax": "1 if a > b else (c if a == b else 0)",
    "weight_fmin": "1 if a < b else (c if a == b else 0)",
    "clip_da": "(1 if a < c else 0) if a > b else 0",
    "clip_db": "(1 if b < c else 0) if a <= b else 0",
    "clip_dc": "1 if max(a, b) >= c else 0",
}

BINARY = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide",
          ast.Pow: "power", ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater",
          ast.GtE: "greater_equal", ast.Eq: "equal", ast.NotEq: "not_equal"}

# Numbers of the table that have a name.
NAMED = {math.log(2): "log(2)", 1 / math.log(2): "1 / log(2)", 1 / math.log(10): "1 / log(10)",
         math.pi / 180: "pi / 180", 180 / math.pi: "180 / pi"}


@functools.cache
def meaning(name):
    """The formula of a row in terms of other rows, as a syntax tree; None if it has none."""
    row = ROWS[name]
    if name in WORDED:
        return ast.parse(WORDED[name], mode="eval").body
    if row.value and f"fg_{name}(" not in row.value and "fg_" not in row.value:
        return ast.parse(row.value, mode="eval").body
    words = re.split(r"(?<=[^\s])(?=[;,.\s])", row.doc)
    for end in range(len(words), 0, -1):
        tree = _formula("".join(words[:end]))
        if tree is not None:
            return tree
    return None


def _formula(text):
    """Text as a syntax tree if it is a formula of a, b, c."""
    try:
        tree = ast.parse(text.strip().rstrip(".,;"), mode="eval").body
    except SyntaxError:
        return None
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    called = {node.func.id for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    known = called <= {*ROWS, "max", "min"} and names - called <= {"a", "b", "c", "pi"}
    is_formula = isinstance(tree, (ast.BinOp, ast.Call)) and not any(
        isinstance(node, (ast.Attribute, ast.Tuple)) for node in ast.walk(tree))
    return tree if known and is_formula and names - called else None


def evaluate(tree, names, apply):
    """A formula's value; `names` has those of its variables, and of pi."""
    def part(node):
        return evaluate(node, names, apply)

    if isinstance(tree, ast.Name):
        return names[tree.id]
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.BinOp):
        return apply(BINARY[type(tree.op)], part(tree.left), part(tree.right))
    if isinstance(tree, ast.UnaryOp):
        return apply("negative", part(tree.operand))
    if isinstance(tree, ast.Compare):
        return apply(BINARY[type(tree.ops[0])], part(tree.left), part(tree.comparators[0]))
    if isinstance(tree, ast.IfExp):
        return apply("where", part(tree.body), part(tree.orelse), part(tree.test))
    if tree.func.id == "K":
        return part(tree.args[0])
    name = {"max": "maximum", "min": "minimum"}.get(tree.func.id, tree.func.id)
    return apply(name.removeprefix("fg_"), *map(part, tree.args))


def partial(name, k, operands, y, tie, apply):
    """The partial of an element-wise row with respect to operand k, from the table's formula."""
    steps, result = core.partial_formulas(name)[k]
    known = dict(zip("abc", operands)) | {"y": y, "tie": tie}
    made = []

    def source(s):
        return s if type(s) is float else made[s] if type(s) is int else known[s]

    for step, sources in steps:
        made.append(apply(step, *map(source, sources)))
    return source(result)


def numbers(name, *operands):
    """A row as it is compiled, for numbers."""
    with np.errstate(all="ignore"):
        return core.functions[name](*[x.astype(np.float64) if getattr(x, "dtype", None) == bool
                                      else x for x in operands])


# ---- local derivatives, entry by entry ------------------------------------------------------

def jacobian_entries(node, k, operands, y, apply):
    """The Jacobian of a node with respect to operand k: flat places in the result and in the
    operand of all entries that may differ from 0, and these, of float or whatever `apply` computes
    with."""
    x = operands[k]
    if node.op in core.functions:
        slope = partial(node.op, k, operands, y, node.tie, apply)
        columns = np.broadcast_to(numbered(x.shape), node.shape).ravel()
        return np.arange(columns.size), columns, _spread(slope, node.shape)
    if node.op == "operator":
        return _operator_entries(node, k, operands)
    row = SHAPED.get(node.op)
    if row is None:
        raise NotImplementedError(f"the operation {node.op} of the graph has no formula to show: "
                                  "its derivative is a rule in Python")
    if row.bilinear:
        return _matmul_entries(k, operands)
    rows, columns = row.route(node, k, [x.shape for x in operands])
    return rows, columns, np.ones(rows.size) if row.linear else np.asarray(
        row.slopes(apply, x.ravel(), y.ravel()[rows], rows))


def _operator_entries(node, k, operands):
    """Those of an operator that is a record: by its own rules."""
    from fastgrad.transforms.jacobians import jacobian

    row = node.attribute.row
    if any(x.dtype == object for x in operands):
        if row.linear != (k,) or len(operands) > 1:
            raise NotImplementedError(f"{row.name} has no formula to show")
        operands = [np.zeros(x.shape) for x in operands]    # its slope is the same everywhere
    slopes = jacobian(lambda x: node.attribute.result(*operands[:k], x, *operands[k + 1:]),
                      mode="reverse")(operands[k])
    slopes = np.reshape(slopes, (math.prod(node.shape), operands[k].size))
    rows, columns = np.nonzero(slopes)
    return rows, columns, slopes[rows, columns]


def _spread(value, shape):
    """An entry for each place of the result, flat."""
    value = np.asarray(value)
    if value.dtype != object:
        value = value.astype(np.float64)
    return np.broadcast_to(value, shape).ravel()


def _matmul_entries(k, operands):
    a, b = operands
    in_a = numbered(a.shape)[None, :] if a.ndim == 1 else numbered(a.shape)
    in_b = numbered(b.shape)[:, None] if b.ndim == 1 else numbered(b.shape)
    batch = np.broadcast_shapes(in_a.shape[:-2], in_b.shape[:-2])
    out = numbered(batch + (in_a.shape[-2], in_b.shape[-1]))
    rows, in_a, in_b = [x.ravel() for x in np.broadcast_arrays(
        out[..., :, None, :], in_a[..., :, :, None], in_b[..., None, :, :])]
    return (rows, in_a, b.ravel()[in_b]) if k == 0 else (rows, in_b, a.ravel()[in_a])


class Numbers(Meaning):
    """The values of nodes, as they are compiled."""

    apply = staticmethod(numbers)

    def elementwise(self, node, operands):
        return np.asarray(self.apply(node.op, *operands))

    def reduces(self, node, operands):
        row, (x,) = SHAPED[node.op], operands
        if row.linear:
            return self.moves(node, operands)
        rows, _ = row.route(node, 0, [x.shape])
        value = np.empty(math.prod(node.shape), x.dtype)
        for k in range(value.size):
            value[k] = functools.reduce(functools.partial(self.apply, row.fold),
                                        x.ravel()[rows == k])
        return value.reshape(node.shape)

    def operator(self, node, operands):
        if any(x.dtype == object for x in operands):
            return self.moves(node, operands)
        return np.asarray(node.attribute.row.computed(*operands, **node.attribute.options)[
            node.attribute.which])

    def product(self, node, operands):
        return self.moves(node, operands, 1)

    def moves(self, node, operands, count=None):
        """What is linear in its first operands, or in all: by its slopes."""
        value = np.zeros(math.prod(node.shape), np.result_type(*operands, np.float64))
        for k, x in enumerate(operands[:count]):
            rows, columns, slopes = jacobian_entries(node, k, operands, value, self.apply)
            np.add.at(value, rows, np.asarray(self.apply("multiply", x.ravel()[columns], slopes)))
        return value.reshape(node.shape)

    custom = result = moves         # (which says that a rule has no formula)


# Operands that no derivative goes through: what chooses, and what stands beside.
NO_PATH = {("where", 2), ("as_written", 0), ("root_of", 1)}


def active(recording):
    """For each node whether it depends on an argument."""
    found = []
    for node in recording.nodes:
        found.append(node.op == "argument" or any(found[k] for k in node.operands))
    return found


def edges(recording):
    """The pairs (node, place of an operand) that derivatives go through, oldest first."""
    depends = active(recording)
    return [(i, k) for i, node in enumerate(recording.nodes) if node.op != "constant"
            for k, operand in enumerate(node.operands)
            if depends[operand] and (node.op, k) not in NO_PATH]


def reverse(jacobians, output, values, product):
    """The adjoint of every node, flat: the chain rule from the result to the arguments.

    `jacobians` are tuples (node, operand, rows, columns, coefficients), oldest first;
    ``product(node, adjoints, coefficients)`` is the chain rule's."""
    adjoints = [np.zeros(value.size, value.dtype) for value in values]
    if output is not None:
        adjoints[output][:] = 1
    for node, operand, rows, columns, slopes in reversed(jacobians):
        np.add.at(adjoints[operand], columns,
                  np.asarray(product(node, adjoints[node][rows], slopes)))
    return adjoints


# ---- SymPy ----------------------------------------------------------------------------------

ARITHMETIC = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul,
              "divide": operator.truediv, "power": operator.pow, "negative": operator.neg,
              "positive": operator.pos}

# Rows under SymPy's names, where these differ from NumPy's.
SYMPY = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2",
         "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "abs": "Abs",
         "ceil": "ceiling", "maximum": "Max", "minimum": "Min", "fmax": "Max", "fmin": "Min",
         "less": "Lt", "less_equal": "Le", "greater": "Gt",
         "greater_equal": "Ge", "equal": "Eq", "not_equal": "Ne"}


def _import_sympy():
    try:
        import sympy
    except ImportError:
        raise ImportError("fastgrad.symbolic needs SymPy; install it with: pip install "
                          "fastgrad[sympy]") from None
    return sympy


def _sympy_number(value):
    """A number as SymPy's: exact if it is an integer or a short binary fraction."""
    sympy = _import_sympy()
    if isinstance(value, sympy.Basic):
        return value
    if isinstance(value, (bool, np.bool_)):
        return sympy.true if value else sympy.false
    value = float(value)
    if not math.isfinite(value):
        return sympy.nan if math.isnan(value) else sympy.oo if value > 0 else -sympy.oo
    if value in NAMED:
        return evaluate(ast.parse(NAMED[value], mode="eval").body, {"pi": sympy.pi}, _sympy_row)
    numerator, denominator = value.as_integer_ratio()
    if denominator <= 1024 and abs(numerator) < 2**53:
        return sympy.Rational(numerator, denominator)
    return sympy.Float(value)


def _sympy_row(name, *operands):
    """A row of the operator table on SymPy expressions, or arrays of them."""
    if any(isinstance(x, np.ndarray) for x in operands):
        return np.frompyfunc(functools.partial(_sympy_row, name), len(operands), 1)(*operands)
    sympy = _import_sympy()
    given = [_sympy_number(x) for x in operands]
    if name != "where":                     # masks are numbers in the formulas of partials
        given = [sympy.Integer(bool(x)) if isinstance(x, sympy.logic.boolalg.BooleanAtom) else x
                 for x in given]
    if name in ARITHMETIC:
        return ARITHMETIC[name](*given)
    if name == "where":
        yes, no, mask = given
        test = mask if isinstance(mask, sympy.logic.boolalg.Boolean) else sympy.Ne(mask, 0)
        return sympy.Piecewise((yes, test), (no, True))
    formula = None if ROWS[name].kind == "compare" else meaning(name)
    if formula is None:
        return getattr(sympy, SYMPY.get(name, name), sympy.Function(name))(*given)
    return evaluate(formula, dict(zip("abc", given)) | {"pi": sympy.pi}, _sympy_row)


class _Expressions(Numbers):
    """Arrays of SymPy expressions."""

    apply = staticmethod(_sympy_row)

    def operation(self, node, operands):
        return np.asarray(super().operation(node, operands), object)

    def constant(self, node):
        return np.asarray(np.frompyfunc(_sympy_number, 1, 1)(node.value), object)


class Symbolic:
    """A function's value and gradient as SymPy expressions.

    Attributes
    ----------
    value : sympy.Expr
        The result.
    gradient : tree of sympy.Expr and ndarray
        Built like the argument: an expression for a number, an array of dtype object, with its
        shape, for an array. A tuple of gradients where the function was given several arguments.
    symbols : tree of sympy.Symbol and ndarray
        What stands for the arguments, built in the same way.
    """

    def __init__(self, value, gradient, symbols, tree):
        self._flat = [value, gradient, symbols]
        self._tree = tree
        self.value = value
        self.gradient = tree([_bare(x) for x in gradient])
        self.symbols = tree([_bare(x) for x in symbols])

    def __repr__(self):
        return f"value: {self.value}\ngradient: {self.gradient}"

    def _repr_latex_(self):
        sympy = _import_sympy()
        lines = [sympy.latex(self.value)] + [
            rf"\frac{{\partial}}{{\partial {sympy.latex(s)}}} &= {sympy.latex(g)}"
            for gradient, symbols in zip(*self._flat[1:])
            for g, s in zip(gradient.ravel(), symbols.ravel())]
        lines[0] = "f &= " + lines[0]
        return r"$\displaystyle \begin{aligned}" + r"\\ ".join(lines) + r"\end{aligned}$"

    def count_ops(self):
        """The operations in value and gradient together, to see how expressions swell.

        Returns
        -------
        int
        """
        sympy = _import_sympy()
        return int(sum(sympy.count_ops(x) for x in self._expressions()))

    def _expressions(self):
        return [self.value] + [g for gradient in self._flat[1] for g in gradient.ravel()]

    def lambdify(self, modules="numpy"):
        """The expressions as a function of numbers.

        Parameters
        ----------
        modules : str or list
            As in `sympy.lambdify`.

        Returns
        -------
        callable
            Takes the arguments as the function did; returns ``(value, gradient)`` in numbers.

        Examples
        --------
        >>> fg.symbolic(lambda x: x ** 3, 2.0).lambdify()(5.0)
        (125.0, 75.0)
        """
        sympy = _import_sympy()
        flat = [s for symbols in self._flat[2] for s in symbols.ravel()]
        compiled = sympy.lambdify(flat, self._expressions(), modules)

        def value_and_gradient(*args):
            leaves = trees.numbers_of_arguments(args)[0]
            value, *slopes = compiled(*np.concatenate([np.ravel(x) for x in leaves]))
            gradient, slopes = [], iter(slopes)
            for symbols in self._flat[2]:
                g = np.array([float(next(slopes)) for _ in range(symbols.size)])
                gradient.append(g.reshape(symbols.shape) if symbols.ndim else float(g[0]))
            return float(value), self._tree(gradient)

        return value_and_gradient


def _bare(x):
    return x if x.ndim else x[()]


def symbolic(f, /, *x, simplify=False, **kwargs):
    """The value and the gradient of a function as SymPy expressions.

    The graph of one run is read with symbols in place of numbers. The gradient is not found by
    `sympy.diff` but by the chain rule on the graph, with the formulas of the operator table: it
    shows what the library computes. Python's branches are those that the run took, and what
    comes from steps (`sign`, `floor`, comparisons, integers) is the number that it was.

    Parameters
    ----------
    f : callable
        Returns one number.
    *x
        Where to run it: floats, arrays, or trees of them. A number named w by f becomes the
        symbol w; the entries of an array w_0, w_1, ... (w_0_1 in two dimensions); those of trees
        are named by their path, as p_w for p["w"]. All symbols are real.
    simplify : bool
        Pass the expressions through `sympy.simplify`, which may take long.
    **kwargs
        Keyword arguments of f.

    Returns
    -------
    Symbolic
        With `value`, `gradient`, `symbols`, `count_ops()` and `lambdify()`. Integers and binary
        fractions such as 0.75 are exact, other numbers are floats.

    Raises
    ------
    ImportError
        If SymPy is not installed.
    TypeError
        If an argument has no derivative, or f returns no number.
    ValueError
        If f returns an array of more than one entry.
    NotImplementedError
        If f contains derivative rules written in Python.

    Examples
    --------
    >>> s = fg.symbolic(lambda x: 4 * x ** 3 + x ** 2 + 3, 1.0)
    >>> s.value
    4*x**3 + x**2 + 3
    >>> s.gradient
    12*x**2 + 2*x
    >>> fg.symbolic(lambda w: w @ w, np.ones(2)).gradient
    array([2*w_0, 2*w_1], dtype=object)
    """
    sympy = _import_sympy()
    recording = Recording("symbolic", f, x, kwargs)
    symbols = [_symbols(name, value.shape)
               for name, value in zip(recording.names, recording.values)]
    nodes = [node._replace(value=value) if node.op == "constant" else node
             for node, value in zip(recording.nodes, recording.values)]
    values = walk(nodes, symbols, _Expressions(), range(len(nodes)))
    if recording.output is None:
        value = _sympy_number(np.asarray(recording.result).item())
        gradient = [np.full(s.shape, sympy.Integer(0), object) for s in symbols]
    else:
        value = values[recording.output].item()
        jacobians = []
        for i, k in edges(recording):
            operands = recording.nodes[i].operands
            jacobians.append((i, operands[k], *jacobian_entries(
                recording.nodes[i], k, [values[j] for j in operands], values[i], _sympy_row)))
        adjoints = reverse(jacobians, recording.output, values,
                           lambda node, g, slopes: _sympy_row("weigh", g, slopes))
        gradient = [np.frompyfunc(_sympy_number, 1, 1)(g).reshape(s.shape) if s.size else s
                    for g, s in zip(adjoints, symbols)]
    if simplify:
        value = sympy.simplify(value)
        gradient = [np.asarray(np.frompyfunc(sympy.simplify, 1, 1)(g), object) for g in gradient]
    return Symbolic(value, gradient, symbols, recording.tree)


def _symbols(name, shape):
    """A symbol for each place of an array."""
    sympy = _import_sympy()
    made = np.empty(shape, object)
    for place in np.ndindex(shape):
        made[place] = sympy.Symbol("_".join([name, *map(str, place)]), real=True)
    return made
