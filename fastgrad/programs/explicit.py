"""Graphs that are declared first and given data later: `variable` and `function`.

An expression is a function and its operands, nothing else: `a + b` holds `operator.add` and the
two. Whatever meets an expression becomes one: Python's operators, NumPy's functions by NumPy's own
protocols, the functions of fastgrad.numpy because they leave the call to `Expression.defer`.
`function` puts the expressions in order, and what it returns is a program of the Python function
`Evaluation`, which goes through them.
"""

import inspect
import operator

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of

from .compile import Program
from .paths import Static

__all__ = ["Expression", "Variable", "function", "variable"]

Tensor, NotComputed = core.Tensor, core.NotComputed


def variable(name=None, shape=None, dtype=None):
    """Something to compute with that gets its value later.

    Parameters
    ----------
    name : str, optional
        By which `function` and its result know it.
    shape : tuple of int, or int, optional
        Lets shapes be checked where they arise, and gives expressions a length.
    dtype : dtype, optional
        Which arrays it takes; Python floats fit every floating one.

    Returns
    -------
    Variable
        Operators, methods, NumPy's functions and those of `fastgrad.numpy` make expressions of it.
        Nothing is computed before a program that `function` makes of them is called.

    Raises
    ------
    TypeError
        Where an expression is asked for what it does not have yet: a truth value, a number, and,
        without a shape, a length or an iterator.

    Examples
    --------
    >>> a, b = fg.variable("a"), fg.variable()
    >>> c = 2 * a + np.sin(b)
    >>> f = fg.function([a, b], c)
    >>> f(1.0, 0.0), f(np.ones(2), 0.0)
    (2.0, array([2., 2.]))
    >>> fg.grad(f)(1.0, 0.0)
    2.0
    """
    return Variable(name, shape, dtype)


def _says(what):
    def refuse(self, *args, **kwargs):
        cure = _CURES.get(what, "make a program of it with fg.function and call that")
        raise NotComputed(f"{what}: {self!r} has no value yet; {cure}")
    return refuse


_CURES = {"bool": "write fnp.where(condition, x, y) for a choice between values, or write a Python "
                  "function and compile it (fg.compile): its branches become guards",
          "index": "index with an expression, not range() or int()"}


class Expression(core.Deferred):
    """A function and its operands, not computed yet."""

    __slots__ = ("_function", "_args", "_kwargs", "_outline", "__weakref__")

    __array_priority__ = 2000           # Tensors have 1000

    def __init__(self, function, args, kwargs):
        self._put(_function=function, _args=args, _kwargs=kwargs)
        self._put(_outline=self._inferred())

    def _put(self, **attributes):
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def _inferred(self):
        """Zeros of the kind of the value; None where no shape is known."""
        operands = list(_among((self._args, self._kwargs), Expression))
        if any(x._outline is None for x in operands):
            return None
        known = {id(x): x._outline for x in operands}
        try:
            with np.errstate(all="ignore"):
                return _plain(_applied(self._function, _filled(self._args, known),
                                       _filled(self._kwargs, known)))
        except np.linalg.LinAlgError:       # zeros are singular
            return None

    def defer(self, function, args, kwargs):
        """The call as an expression."""
        if kwargs.get("out") is not None:
            raise TypeError(f"{name_of(function)}: out= has no meaning for "
                            "expressions; bind the result to a name instead")
        kwargs = {key: x for key, x in kwargs.items() if x is not np._NoValue}
        return Expression(function, args, kwargs)

    # ---- what is known of it ----------------------------------------------------------------

    def _known(self, what):
        if self._outline is None:
            raise NotComputed(f"{what}: {self!r} has no {what} yet; declare it with "
                              "fg.variable(name, shape=...)")
        return self._outline

    @property
    def shape(self):
        """Lengths of the axes, if the variables were declared with theirs."""
        return np.shape(self._known("shape"))

    @property
    def ndim(self):
        """Number of axes, if known."""
        return np.ndim(self._known("ndim"))

    @property
    def size(self):
        """Number of entries, if known."""
        return np.size(self._known("size"))

    @property
    def dtype(self):
        """The dtype, if known."""
        return np.asarray(self._known("dtype")).dtype

    def __len__(self):
        return len(self._known("len"))

    def __iter__(self):
        return (self[k] for k in range(len(self._known("iteration"))))

    def __repr__(self):
        return f"<expression {name_of(self._function)}>"

    __bool__, __float__, __int__ = _says("bool"), _says("float"), _says("int")
    __complex__, __index__ = _says("complex"), _says("index")
    __array__ = _says("numpy")
    __hash__ = object.__hash__

    def __setattr__(self, name, value):
        raise TypeError(f"{self!r}: an expression does not change, so that no cycle can arise; "
                        "bind a new one to the name")

    def __setitem__(self, index, value):
        raise TypeError(f"{self!r}: the entries of an expression cannot be assigned to; write "
                        "fnp.where(mask, value, x), or fnp.concatenate([...]) of its parts")

    def __reduce__(self):
        raise TypeError("pickle: an expression cannot be pickled; save the program made of it")

    def __copy__(self):
        return self                     # it does not change

    def __deepcopy__(self, memo):
        return self

    # ---- what makes expressions of it -------------------------------------------------------

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method == "at":
            return self.__setitem__(None, None)
        return self.defer(ufunc if method == "__call__" else getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if function in _OF_SHAPE and self._outline is not None and args[:1] == (self,):
            return function(self._outline, *args[1:], **kwargs)
        return self.defer(function, args, kwargs)

    def __getitem__(self, index):
        return self.defer(operator.getitem, (self, index), {})

    def __getattr__(self, name):
        if name.startswith("_") or not (name in core.METHODS or hasattr(Tensor, name)):
            raise AttributeError(f"an expression has no attribute {name!r}")
        if name in ("T", "mT", "real"):
            return self.defer(_attribute, (self, name), {})
        return _Method(self, name)

    def __divmod__(self, other):
        return self // other, self % other

    def __rdivmod__(self, other):
        return other // self, other % self

    def __round__(self, digits=None):
        return self.defer(np.round, (self, digits or 0), {})


def _operators():
    """Python's operators, and those with the operands exchanged."""
    def binary(function):
        return (lambda self, other: self.defer(function, (self, other), {}),
                lambda self, other: self.defer(function, (other, self), {}))

    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_",
                 "xor", "lshift", "rshift"):
        forward, backward = binary(getattr(operator, name))
        name = name.rstrip("_")
        setattr(Expression, f"__{name}__", forward)
        setattr(Expression, f"__r{name}__", backward)
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Expression, f"__{name}__", binary(getattr(operator, name))[0])
    for name in ("neg", "pos", "abs", "invert"):
        function = getattr(operator, name)
        setattr(Expression, f"__{name}__",
                lambda self, function=function: self.defer(function, (self,), {}))


_operators()

_OF_SHAPE = {np.shape, np.ndim, np.size}


class _Method:
    """A method of what is not there yet."""

    def __init__(self, expression, name):
        self._expression, self.__name__ = expression, name

    def __call__(self, *args, **kwargs):
        return self._expression.defer(_method, (self._expression, self.__name__, *args), kwargs)


def _method(x, name, *args, **kwargs):
    """x.name(...), also of Python's floats, and methods that Tensors have and arrays not."""
    if isinstance(x, (int, float)):
        x = np.float64(x)
    method = getattr(x, name, None)
    if method is None:
        return core.METHODS[name](x, *args, **kwargs)
    return method(*args, **kwargs)


def _attribute(x, name):
    return getattr(np.float64(x) if isinstance(x, (int, float)) else x, name)


class Variable(Expression):
    """An expression that is bound to data at each call."""

    __slots__ = ("name", "declared_shape", "declared_dtype")

    def __init__(self, name, shape, dtype):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"variable: the name must be a str, not {type(name).__name__}; write "
                            "fg.variable(shape=...) for one without a name")
        try:
            if shape is not None:
                shape = tuple(map(operator.index, shape if np.iterable(shape) else (shape,)))
        except TypeError:
            raise TypeError(f"variable: shape={shape!r} is not a tuple of ints") from None
        if shape is not None and any(n < 0 for n in shape):
            raise ValueError(f"variable: shape={shape!r} has a negative length")
        dtype = None if dtype is None else np.dtype(dtype)
        self._put(name=name, declared_shape=shape, declared_dtype=dtype, _function=None, _args=(),
                  _kwargs={},
                  _outline=None if shape is None else np.zeros(shape, dtype or np.float64))

    def __repr__(self):
        return f"<variable {self.name}>" if self.name else "<variable>"

    def bound(self, value, what):
        """A value as what this variable takes; an error that names it otherwise."""
        if isinstance(value, (Tensor, Expression)):
            unknown = isinstance(value, Expression) and value._outline is None
            shape, dtype = (None, None) if unknown else (value.shape, value.dtype)
        else:
            dtype = self.declared_dtype
            if isinstance(value, (list, tuple)):
                value = np.asarray(value, dtype)
            elif isinstance(value, int) and not isinstance(value, bool):
                value = float(value) if dtype is None else dtype.type(value)
            elif type(value) is float and dtype is not None and dtype.char != "d":
                if dtype.kind != "f":
                    raise TypeError(f"{what}: {self!r} takes {dtype}, not a float")
                value = dtype.type(value)
            if not isinstance(value, (float, bool, np.ndarray, np.generic)):
                raise TypeError(f"{what}: {self!r} takes numbers and arrays, not "
                                f"{type(value).__name__}")
            if isinstance(value, bool):
                value = np.bool_(value)
            shape = np.shape(value)
            dtype = getattr(value, "dtype", np.dtype(float))
        if shape is not None and self.declared_shape is not None and shape != self.declared_shape:
            raise ValueError(f"{what}: {self!r} is declared with shape {self.declared_shape}, not "
                             f"{shape}")
        if dtype is not None and self.declared_dtype is not None and dtype != self.declared_dtype:
            raise TypeError(f"{what}: {self!r} is declared as {self.declared_dtype}, not {dtype}; "
                            f"write .astype({str(self.declared_dtype)!r})")
        return value


# ---- operands among arguments ---------------------------------------------------------------

def _among(tree, kinds):
    """What is of some types in nested tuples, lists, dicts and slices."""
    if isinstance(tree, kinds):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for x in tree:
            yield from _among(x, kinds)
    elif isinstance(tree, dict):
        yield from _among(list(tree.values()), kinds)
    elif isinstance(tree, slice):
        yield from _among((tree.start, tree.stop, tree.step), kinds)


def _filled(tree, values):
    """The same with values (by the id of the expression, or by place) in place of expressions."""
    if isinstance(tree, Expression):
        return values[id(tree)]
    if type(tree) is _Place:
        return values[tree.number]
    if isinstance(tree, (tuple, list)):
        filled = [_filled(x, values) for x in tree]
        return type(tree)(*filled) if hasattr(tree, "_fields") else type(tree)(filled)
    if isinstance(tree, dict):
        return {key: _filled(x, values) for key, x in tree.items()}
    if isinstance(tree, slice):
        return slice(*_filled((tree.start, tree.stop, tree.step), values))
    return tree


def _applied(function, args, kwargs):
    """The call, through fastgrad's own function where NumPy's is given."""
    own = core.UFUNCS.get(function) or core.ARRAY_FUNCTIONS.get(function) if (
        isinstance(function, np.ufunc) or function in core.ARRAY_FUNCTIONS) else None
    return (own or function)(*args, **kwargs)


def _plain(x):
    if isinstance(x, Tensor):
        return x.detach().numpy()
    if isinstance(x, (tuple, list)):
        return type(x)(*map(_plain, x)) if hasattr(x, "_fields") else type(x)(map(_plain, x))
    return x


# ---- programs of expressions ----------------------------------------------------------------

def function(inputs, outputs, name=None):
    """A program that computes some expressions from variables, or some Tensors from others.

    Parameters
    ----------
    inputs : list of Variable, or list of Tensor
        What is bound at a call: by position, or by the name of the variable.
    outputs : Expression, or a tree of them; Tensor, or a tree of them
        What is computed. Tensors must have been recorded: their history is the program.
    name : str, optional
        For messages.

    Returns
    -------
    Program
        Specialises itself for the shapes and dtypes it is called with, and keeps each. Every
        transformation takes it. One made of a history has the shapes of the recorded run.

    Raises
    ------
    TypeError
        For inputs that are neither variables nor Tensors; at a call, for a wrong number of
        arguments, unknown names, and dtypes other than declared.
    ValueError
        For a variable or a name that is there twice, and one that is needed and not listed; at a
        call, for shapes other than declared.
    RuntimeError
        For a history that does not tell all: a constant was computed from the inputs without a
        derivative, a sweep has run through it, or Python code has decided by a value of them (a
        branch, an index, ``int()``) that cannot be computed anew, before outputs were recorded:
        one that went through a reduction, a product or a slice after `detach` or inside `no_grad`,
        through a function unknown to programs, or an assignment; one of another thread; one that
        only the decision kept alive, if that is much (64 operations, 64 kB); and one of more than
        64. Any other decision is a guard: the program raises `GuardError` with its line where it
        comes out otherwise. What was only looked at (``print``, ``.item()``) does not matter.

    Examples
    --------
    >>> a, b = fg.variable("a"), fg.variable("b")
    >>> f = fg.function([a, b], {"sum": a + b, "product": a * b})
    >>> f(2.0, b=3.0)
    {'sum': 5.0, 'product': 6.0}
    >>> fg.value_and_grad(fg.function([a, b], 2 * a + b), argnums=(0, 1))(1.0, 2.0)
    (4.0, (2.0, 1.0))
    """
    if isinstance(inputs, (Expression, Tensor)):
        raise TypeError("function: inputs must be a list; write [x]")
    inputs = list(inputs)
    if inputs and all(isinstance(x, Tensor) for x in inputs):
        return _of_history(inputs, outputs, name)
    for x in inputs:
        if not isinstance(x, Variable):
            found = repr(x) if isinstance(x, Expression) else type(x).__name__
            raise TypeError("function: inputs must be variables (fg.variable) or recorded Tensors, "
                            f"not {found}")
    return Declared(Evaluation(inputs, outputs, name or "function"))


class Evaluation:
    """The Python function of a program of expressions."""

    def __init__(self, inputs, outputs, name):
        self.__name__ = self.__qualname__ = name
        self.inputs = inputs
        self.names = {}
        for k, x in enumerate(inputs):
            if any(x is other for other in inputs[:k]):
                raise ValueError(f"function: {x!r} is listed twice among the inputs")
            if x.name is not None:
                if x.name in self.names:
                    raise ValueError(f"function: two of the inputs are named {x.name!r}")
                self.names[x.name] = k
        leaves, self.structure = trees.flatten(outputs)
        self.outputs = leaves
        self.order = self._ordered(leaves)
        # Arrays among the operands are read at each call, as everything is that a function reaches.
        self._reached = list(_among([*[(node._args, node._kwargs) for node in self.order], *leaves],
                                    (np.ndarray, Tensor)))

    def _ordered(self, leaves):
        """The expressions that the outputs need, operands first."""
        order, known = [], set(map(id, self.inputs))
        stack = [(x, False) for x in reversed(leaves) if isinstance(x, Expression)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif id(node) not in known:
                if isinstance(node, Variable):
                    raise ValueError(f"function: the outputs need {node!r}, which is not among the "
                                     "inputs; list it there")
                known.add(id(node))
                stack += [(node, True), *[(x, False) for x in _among((node._args, node._kwargs),
                                                                     Expression)]]
        return order

    def bind(self, args, kwargs):
        """A value for each input."""
        name, count = self.__name__, len(self.inputs)
        if len(args) > count:
            raise TypeError(f"{name}: takes {count} arguments, {len(args)} were given")
        values = list(args) + [core.NotComputed] * (count - len(args))
        for key, value in kwargs.items():
            if key not in self.names:
                known = ", ".join(map(repr, self.names)) or "none: give values by position"
                raise TypeError(f"{name}: no variable is named {key!r}; the names are {known}")
            k = self.names[key]
            if k < len(args):
                raise TypeError(f"{name}: {self.inputs[k]!r} is given by position and by name")
            values[k] = value
        for k, value in enumerate(values):
            if value is core.NotComputed:
                who = repr(self.inputs[k].name) if self.inputs[k].name else f"number {k}"
                raise TypeError(f"{name}: no value for the variable {who}; {len(args)} of {count} "
                                "values are given by position")
            values[k] = self.inputs[k].bound(value, name)
        return tuple(values)

    def __call__(self, *args, **kwargs):
        values = {id(x): value for x, value in zip(self.inputs, self.bind(args, kwargs))}
        for node in self.order:
            values[id(node)] = _applied(node._function, _filled(node._args, values),
                                        _filled(node._kwargs, values))
        return trees.unflatten(self.structure, [
            values[id(x)] if isinstance(x, Expression) else x for x in self.outputs])

    def __repr__(self):
        return f"<function of {len(self.order)} operations>"

    @property
    def __signature__(self):
        """Variables without a name get one that cannot be used."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        taken = [x.name if x.name and x.name.isidentifier() else f"_{k}"
                 for k, x in enumerate(self.inputs)]
        return inspect.Signature([inspect.Parameter(name, kind) for name in taken])

    def __reduce__(self):
        numbers = {id(x): _Place(k) for k, x in enumerate([*self.inputs, *self.order])}
        return _evaluation, (
            [(x.name, x.declared_shape, x.declared_dtype) for x in self.inputs],
            [(node._function, _filled(node._args, numbers), _filled(node._kwargs, numbers))
             for node in self.order],
            [numbers.get(id(x), x) for x in self.outputs], self.structure, self.__name__)


class _Place:
    """Stands for an expression where a program is pickled."""

    def __init__(self, number):
        self.number = number


def _evaluation(inputs, order, outputs, structure, name):
    """Unpickle an Evaluation."""
    nodes = [Variable(*x) for x in inputs]
    count = len(nodes)
    for function, args, kwargs in order:
        nodes.append(Expression(function, _filled(args, nodes), _filled(kwargs, nodes)))
    outputs = [nodes[x.number] if type(x) is _Place else x for x in outputs]
    return Evaluation(nodes[:count], trees.unflatten(structure, outputs), name)


class Declared(Program):
    """A program of expressions: binds values to variables before anything else."""

    def _bound(self, args, kwargs):
        return self.function.bind(args, kwargs), {}


def _of_history(inputs, outputs, name):
    from fastgrad.graphs.record import history

    leaves, structure = trees.flatten(outputs)
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    if not tensors:
        raise TypeError("function: none of the outputs is a Tensor; there is no history to make a "
                        "program of")
    recording = history(inputs, tensors)
    if recording.reason is not None:
        raise ValueError(f"function: this history cannot be a program: {recording.reason}")
    numbers = iter(range(len(tensors)))
    places = [next(numbers) if isinstance(x, Tensor) else Static(x) for x in leaves]
    return Program.of_graph(recording.graph, recording.captured, structure, places,
                            name or "history")
