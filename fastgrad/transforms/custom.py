"""Derivative rules of the user's, for functions that are not to be differentiated as they stand.

A call with recorded Tensors computes the function with plain numbers and arrays and records one
operation, whose rule is a linear map: cotangents to cotangents (`custom_vjp`) or tangents to
tangents (`custom_jvp`). The other direction is its transpose, found by differentiating the rule
itself. A sweep that is recorded calls the rule with recorded Tensors in place of the plain
arguments, so that it is differentiated in turn, as often as wanted.
"""

import dataclasses
import functools
import inspect
import numbers
import operator
import types

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of
from fastgrad._run import Run

__all__ = ["custom_jvp", "custom_vjp"]

Tensor = core.Tensor


# ---- numbers, arrays, Tensors ---------------------------------------------------------------

# A Python float leaves the dtype to the arrays it meets; a Tensor made of one inside a
# transformation does too, and hands this on.


def recorded(x):
    """Whether operations on x are recorded."""
    return isinstance(x, Tensor) and x.requires_grad and core.is_recording()


def floating(x):
    """Whether x is a number or an array that may have a derivative."""
    return isinstance(x, float) or getattr(x, "dtype", np.dtype(int)).kind == "f"


def plain(x):
    """A Tensor as the float, NumPy scalar or array it would be outside of every transformation, to
    be written to; anything else as it is. While a program is recorded, a Tensor without
    derivative: what a rule computes with it is taken down."""
    return copied(viewed(x)) if isinstance(x, Tensor) else x


def copied(x):
    """An array of the same values that may be written to; anything else as it is."""
    return np.array(x, subok=True) if isinstance(x, np.ndarray) else x


def plainly(f, args):
    """f called with plain values: what it creates is plain, too. (While a program is recorded they
    are Tensors, and so is what it creates.)"""
    return f(*args) if core.recording_program() else core.plainly(f, args)


def viewed(x):
    """The same as `plain`, but an array is not to be written to."""
    if not isinstance(x, Tensor):
        return x
    x = x.detach()
    if core.recording_program():
        return x
    if x.ndim:
        return x.numpy()
    number = x.dtype.type(x.item())
    return float(number) if is_weak(x) else number


is_weak = core.is_weak          # whether a Tensor stands for a Python float


def constant(x):
    """A number or array as a Tensor that is not recorded."""
    if isinstance(x, Tensor):
        return x.detach()
    return core.weak(x) if type(x) is float else core.constant(x)


def zeros(x):
    """Zeros like a number or array, with or without Tensors as x is."""
    if isinstance(x, Tensor):
        return constant(0.0 if is_weak(x) else np.zeros(x.shape, x.dtype))
    return 0.0 if type(x) is float else np.zeros(np.shape(x), x.dtype)


def tensor(x):
    """A number or array as a Tensor; a Tensor as it is."""
    return x if isinstance(x, Tensor) else constant(x)


def given_or_zero(vectors, likes):
    """Cotangents or tangents as a rule gets them: zeros for None, and plain values of the kind of
    what they belong to unless a recorded sweep asks."""
    if core.is_recording():
        return [zeros(like) if v is None else v for v, like in zip(vectors, likes)]
    return [zeros(like) if v is None else float(plain(v)) if type(like) is float else plain(v)
            for v, like in zip(vectors, likes)]


def outline(x):
    """Something of the kind, shape and dtype of x that does not keep its memory."""
    x = viewed(x)
    return np.broadcast_to(x.dtype.type(), x.shape) if isinstance(x, np.ndarray) else x


class Arguments:
    """A tree of arguments, and the recorded Tensors among its leaves.

    What was passed may be assigned to later, so it is held as Tensors of our own (`tensors`) and
    as plain values; whoever gets these gets copies. The function itself is called with the arrays
    that the caller passed.
    """

    def __init__(self, name, tree, places=None):
        leaves, self.structure = trees.flatten(tree)
        self.places = places if places is not None else [
            i for i, leaf in enumerate(leaves) if recorded(leaf)]
        values = [leaves[i] for i in self.places]
        self.tensors = list(map(core.taken, values))
        self.given = leaves
        self.leaves = [viewed(leaf) if isinstance(leaf, Tensor) else copied(leaf)
                       for leaf in leaves]

    def first(self, keep=False):
        """The tree for the first call, and the last that arrays of the caller's go into."""
        leaves = list(map(plain, self.given))
        self.given = self.given if keep else None
        return trees.unflatten(self.structure, leaves)

    def tree(self, values):
        """The tree with these in the places of the recorded leaves."""
        leaves = list(map(copied, self.leaves))
        for i, value in zip(self.places, values):
            leaves[i] = value
        return trees.unflatten(self.structure, leaves)

    def plain(self):
        """The values of the recorded leaves as numbers and arrays, not to be written to."""
        return [self.leaves[i] for i in self.places]

    def shared(self, x):
        """Whether an array may be (a part of) one that the caller passed."""
        return isinstance(x, np.ndarray) and any(
            [isinstance(a, np.ndarray) and np.may_share_memory(a, x) for a in self.given])

    def present(self):
        """The same, but as recorded Tensors while a recorded sweep asks, and else to be written
        to."""
        return self.tensors if core.is_recording() else list(map(copied, self.plain()))


def refuse_recorded(name, leaves):
    """Complain of results that are recorded though no argument was."""
    if any(map(recorded, leaves)):
        raise TypeError(
            f"{name}: the function uses a Tensor that is being differentiated but is none of its "
            "arguments; pass it as one, or detach it (fg.stop_gradient)")


def refuse_results(name, leaves):
    """Complain of results that would lose their derivative."""
    for x in leaves:
        if isinstance(x, (Tensor, float, int)) or trees.is_constant(x):
            continue
        dtype = getattr(x, "dtype", None)
        known = isinstance(x, (np.ndarray, np.generic)) and not isinstance(x, np.ma.MaskedArray)
        if known and dtype.kind in "fiubSU":
            continue
        cure = ("of a complex number its .real and .imag" if isinstance(x, complex)
                or known and dtype.kind == "c" else
                f"float(x) of a {type(x).__name__}" if isinstance(x, numbers.Number) else
                ".astype(float) of it" if known and dtype.kind == "O" else
                f"or register its class, fg.trees.register({type(x).__name__}, ...)")
        what = f"an array of dtype {dtype}" if isinstance(x, np.ndarray) and known else (
            f"a {type(x).__name__}")
        raise TypeError(f"{name}: the function returned {what}, whose derivative would be lost; "
                        f"return floats and arrays of float32 or float64: {cure}")


# ---- a rule as the core calls it ------------------------------------------------------------

class LinearRule:
    """A linear map from a list of Tensors to one of numbers or Tensors, applied and transposed.

    `linear()` returns it as a function; it is called anew where a sweep is recorded, so that what
    the map depends on is recorded as well.
    """

    def __init__(self, name, linear, owner, domain):
        self.name, self.linear, self.owner = name, linear, owner
        self.domain = domain            # what the vectors are like

    def __repr__(self):
        return self.name

    def apply(self, vectors):
        """The image of some vectors; None: zero."""
        linear, vectors = self.linear(), given_or_zero(vectors, self.domain)
        found = linear(vectors) if core.is_recording() else plainly(linear, (vectors,))
        return list(map(tensor, found))

    def transpose(self, covectors):
        """What the transposed map makes of these; None: zero."""
        linear, domain = self.linear(), self.domain
        if core.is_recording():
            domain = list(map(constant, domain))
        try:
            run = Run("vjp", linear, (list(map(zeros, domain)),), {}, 0, False)
        except TypeError as error:
            error.add_note(f"{self.name}: there is no rule for this direction, so the one there is "
                           "was run with Tensors, to be transposed")
            raise
        self.check(run.trace, domain)
        return list(map(tensor, run.pull([
            zeros(tensor(y)) if c is None else c for c, y in zip(covectors, run.value())])[0]))

    def check(self, trace, domain):
        """Complain if the rule does with its vectors what was not recorded, or is not linear in
        them. Results that depend on none are looked at each time, the others once for each
        function: the rule is run again, on numbers that are not zero."""
        lost = [k for k in range(len(trace.shapes)) if not trace.differentiable(k)]
        if self.owner.transposed and not lost or core.recording_program() and not any(
                [isinstance(y, Tensor) for k, y in enumerate(trace.plain()) if k in lost]):
            return
        rng = np.random.default_rng(0)
        vectors = [viewed(x) for x in domain]
        vectors = [np.asarray(rng.uniform(0.5, 2.0, np.shape(x)) * rng.choice([-1.0, 1.0], np.shape(
            x)), getattr(x, "dtype", float))[()] for x in vectors]
        with core.no_grad():
            found = [np.asarray(_numbers(y)) for y in plainly(self.linear(), (
                [float(v) if type(x) is float else copied(v) for v, x in zip(vectors, domain)],))]
            known = [0.0 if y is None else np.asarray(_numbers(y)) for y in trace.push(vectors)]
        largest = max([np.max(abs(y), initial=0.0, where=np.isfinite(y)) for y in found], default=0)
        for k, (y, z) in enumerate(zip(found, known)):
            if k in lost and not np.any(y):
                continue
            with np.errstate(all="ignore"):
                off = abs(y - z) > 1e-2 * np.maximum(abs(y), 1e-3 * largest)
            if np.any(off & np.isfinite(y) & np.isfinite(z)):
                raise TypeError(
                    f"{self.name}: {self.rule} has to be transposed here, and what it returns "
                    f"({self.whose} {k}) "
                    + (f"does not depend on its {self.vector}, as far as was recorded"
                       if k in lost else f"is not linear in its {self.vector}, or depends on it "
                       "in a way that was not recorded")
                    + "; write it with differentiable operations, without .detach(), "
                      f"fg.stop_gradient and fg.no_grad, or use {self.mode} mode")
        self.owner.transposed = True


def _numbers(x):
    """The numbers of a result of a rule, whatever is recorded."""
    return x.detach().numpy() if isinstance(x, Tensor) else x


def _sees_no_more(rule):
    """Whether a rule meets no Tensor but those that it is given: then it may be run in the middle
    of a sweep with numbers. (Global ones are parameters, which belong to no sweep.)"""
    return isinstance(rule, types.FunctionType) and not (
        rule.__closure__ or rule.__defaults__ or rule.__kwdefaults__)


class _Pullback(LinearRule):
    """Known from cotangents of the results to those of the arguments."""

    rule, vector, whose, mode = "bwd", "cotangent", "for differentiated number", "reverse"

    numeric = property(lambda self: _sees_no_more(self.owner._rule[1]))

    def pull(self, cotangents, needed):
        return self.apply(cotangents)

    def push(self, tangents):
        return self.transpose(tangents)


class _Pushforward(LinearRule):
    """Known from tangents of the arguments to those of the results."""

    rule, vector, whose, mode = "the rule", "tangents", "as the tangent of number", "forward"

    def push(self, tangents):
        return self.apply(tangents)

    def pull(self, cotangents, needed):
        return self.transpose(cotangents)


# ---- what both decorators share -------------------------------------------------------------

class _Custom:
    """A function with a rule for its derivative."""

    def __new__(cls, f=None, *, nondiff_argnums=()):
        if f is None:
            return functools.partial(cls, nondiff_argnums=nondiff_argnums)
        return super().__new__(cls)

    def __init__(self, f, *, nondiff_argnums=()):
        kind = type(self).__name__
        if not callable(f):
            raise TypeError(f"{kind}: the first argument must be a function, not "
                            f"{type(f).__name__}")
        functools.update_wrapper(self, f)
        numbers = nondiff_argnums if isinstance(nondiff_argnums, (tuple, list)) else (
            nondiff_argnums,)
        self.nondiff_argnums = tuple(map(operator.index, numbers))
        self._name = name_of(f)
        try:
            self._signature = inspect.signature(f)
        except (TypeError, ValueError):         # functions written in C may have none
            self._signature = None
        self._rule = None
        self.transposed = False         # whether the rule has been seen to be as it was recorded

    def __repr__(self):
        return f"<{type(self).__name__} {self._name}>"

    def __get__(self, instance, owner=None):
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self):
        # What is found under the name of f is this object if it decorates f, else f.
        return core.by_name(self) or self._parts()

    def _parts(self):
        """What it is made of, as for pickle."""
        return _restored, (type(self), self.__wrapped__, self.nondiff_argnums, self._rule)

    def __call__(self, *args, **kwargs):
        args = self._positional(args, kwargs)
        leaves, structure = trees.flatten(args)
        if not any(map(recorded, leaves)):
            return self._unrecorded(args, leaves, structure)
        if self._rule is None:
            raise core.NoDerivativeError(f"{self._name}: there is no rule to differentiate it; "
                                         f"{self._define}")
        places = self._nondiff(len(args))
        fixed = [args[i] for i in places]
        if any(map(recorded, trees.flatten(fixed)[0])):
            raise TypeError(f"{self._name}: an argument that nondiff_argnums names is a Tensor "
                            "that is being differentiated; take it off nondiff_argnums, or detach "
                            "it (fg.stop_gradient)")
        call = self._begun(args, fixed, places)
        return self._recorded(call, self._value(call))

    def _recorded(self, call, value):
        """The value, its numbers recorded with the rule."""
        leaves, structure = trees.flatten(value)
        refuse_recorded(self._name, leaves)
        refuse_results(self._name, leaves)
        call.returned = structure, list(map(outline, leaves))
        numbers = [k for k, y in enumerate(leaves) if floating(y)]
        made = core.custom(self._linear(call), call.arguments.tensors,
                           [constant(leaves[k]) for k in numbers])
        for k, y in zip(numbers, made):
            leaves[k] = y
        return trees.unflatten(structure, leaves)

    def _begun(self, args, fixed=(), places=(), recorded=None):
        moving = [i for i in range(len(args)) if i not in places]
        arguments = Arguments(self._name, tuple([args[i] for i in moving]), recorded)
        return _Call(self, [trees.tree_map(plain, x) for x in fixed], places, arguments, moving)

    def _unrecorded(self, args, leaves, structure):
        """What the function returns: Tensors, if it was called with some, which it never sees."""
        if core.recording_program():
            return self.__wrapped__(*args)
        if not any([isinstance(leaf, Tensor) for leaf in leaves]):
            return core.plainly(self.__wrapped__, args)
        value = core.plainly(self.__wrapped__, trees.unflatten(structure, map(plain, leaves)))
        return trees.tree_map(lambda y: constant(y) if floating(y) else y, value)

    def _positional(self, args, kwargs):
        """All arguments by position, defaults filled in."""
        if self._signature is None:
            if kwargs:
                raise TypeError(f"{self._name}: it has no signature, so its arguments must be "
                                "given by position")
            return args
        if not kwargs and len(args) == len(self._signature.parameters):
            return args
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(f"{self._name}: {', '.join(bound.kwargs)} can be given by keyword "
                            f"only, but the rule of a {type(self).__name__} gets its arguments by "
                            "position")
        return bound.args

    def _nondiff(self, count):
        places = [i + count if i < 0 else i for i in self.nondiff_argnums]
        for i in places:
            if not 0 <= i < count:
                raise TypeError(f"{self._name}: nondiff_argnums={self.nondiff_argnums}, but the "
                                f"call has {count} arguments")
        return places

    def _argument(self, i):
        names = list(self._signature.parameters) if self._signature is not None else []
        return names[i] if i < len(names) else str(i)


def _restored(kind, f, nondiff_argnums, rule):
    """Unpickle a function that is not found under its own name."""
    made = kind(f, nondiff_argnums=nondiff_argnums)
    made._rule = rule
    return made


@dataclasses.dataclass(eq=False)
class _Call:
    """The arguments and results of one call, and how messages call them."""

    function: object
    fixed: list
    places: list
    arguments: object
    moving: list                # positions of the arguments that are differentiated
    returned: tuple = None      # structure and plain leaves

    name = property(lambda self: self.function._name)

    def path(self, i):
        """How messages call a leaf of the arguments."""
        path = trees.paths(self.arguments.structure)[i]
        number, _, rest = path[1:].partition("]")
        return f"argument {self.function._argument(self.moving[int(number)])}{rest}"

    def all(self, moving):
        """The arguments by position, those of nondiff_argnums put back in."""
        args = list(moving)
        for i, x in sorted(zip(self.places, self.fixed), key=lambda pair: pair[0]):
            args.insert(i, x)
        return args

    def same_results(self, whose, value):
        """Complain unless the value is built like what the function returned."""
        structure, leaves = self.returned
        self.leaves(structure, value, leaves, whose, "the value of the function", False)

    def leaves(self, structure, tree, likes, what, whose, zero=True, places=False):
        """The leaves of a tree, checked against those it belongs to; None where it is zero."""
        try:
            found = _with_nones(structure, tree) if zero else trees.flatten_like(structure, tree)
        except ValueError as error:
            raise ValueError(f"{self.name}: {what} is not built like {whose}: {error}") from None
        for i, (x, like) in enumerate(zip(found, likes)):
            if x is None or not floating(like):
                continue
            place = f" of {self.path(i)}" if places else ""
            if not isinstance(x, (Tensor, np.ndarray, np.generic, float, int)):
                raise TypeError(f"{self.name}: {what}{place} must hold numbers and arrays, not "
                                f"{type(x).__name__}")
            dtype = getattr(x, "dtype", np.dtype(bool if isinstance(x, bool) else float))
            if dtype.kind not in "fiu" or isinstance(x, np.ma.MaskedArray):
                raise TypeError(f"{self.name}: {what}{place} is a {type(x).__name__} of dtype "
                                f"{dtype}; it must hold floats: write .astype(float), of a complex "
                                "number .real")
            if np.shape(x) != np.shape(like):
                raise ValueError(f"{self.name}: {what}{place} has shape {np.shape(x)}, {whose} "
                                 f"{np.shape(like)}; they must be equal")
        return found

    def cast(self, found, likes):
        """What is differentiable among the leaves, in the dtypes of those they belong to."""
        made = []
        for x, like in zip(found, likes):
            if x is None:
                x = zeros(like)
            dtype = np.dtype(getattr(like, "dtype", np.float64))
            made.append(x if getattr(x, "dtype", np.float64) == dtype else core.cast(
                x if isinstance(x, Tensor) else core.constant(x), dtype))
        return made


def _with_nones(structure, tree):
    """The leaves of a tree; None for each leaf of a part that is None."""
    if tree is None:
        return [None] * trees._count(structure)
    branch = trees.open_branch(tree)
    if structure == trees.LEAF or branch is None or not trees.same_branch(structure, branch):
        return trees.flatten_like(structure, tree)
    children = dict(zip(branch.keys, branch.children))
    return [leaf for key, child in zip(structure.keys, structure.children)
            for leaf in _with_nones(child, children[key])]


# ---- the decorators -------------------------------------------------------------------------

class custom_vjp(_Custom):
    """A function with a rule for its derivative in reverse mode.

    Parameters
    ----------
    f : callable
        Takes and returns floats, arrays, and trees of them; other arguments (integers, strings,
        objects) are passed on and not differentiated. Its code is never differentiated, so it may
        call whatever it likes: it sees floats, NumPy scalars and arrays that may be written to,
        never Tensors, and what `fastgrad.numpy` creates in it is plain (but while a program is
        recorded all of these are Tensors).
    nondiff_argnums : int or tuple of int
        Positional arguments that are passed to the rules as they are: functions, options.

    Notes
    -----
    Without Tensors that are recorded the function is called as it is; keyword arguments are bound
    to positions. In forward mode the rule is transposed, which needs a `bwd` written with
    differentiable operations, linear in the cotangent (the first time, and wherever something does
    not depend on the cotangent, it is run on numbers as well and compared); higher derivatives
    differentiate `fwd` and `bwd`. At first order both see plain floats and arrays, as the function
    does; what they write to these shows nowhere else.

    Raises
    ------
    NoDerivativeError
        When differentiated before `defvjp`.
    TypeError, ValueError
        For rules that return something else than `defvjp` says, a function that returns what has
        no derivative (complex numbers, fractions, objects) or uses a recorded Tensor that is not
        among its arguments, and a `bwd` that cannot be transposed.

    Examples
    --------
    >>> @fg.custom_vjp
    ... def log1pexp(x):
    ...     return np.log(1 + np.exp(x))
    >>> def forward(x):
    ...     return log1pexp(x), x
    >>> def backward(x, out_bar):
    ...     return (out_bar / (1 + np.exp(-x)),)
    >>> log1pexp.defvjp(forward, backward)
    >>> fg.grad(log1pexp)(0.0), fg.grad(fg.grad(log1pexp))(0.0)
    (0.5, 0.25)
    """

    _define = "give it one with .defvjp(fwd, bwd)"

    def defvjp(self, fwd, bwd):
        """Set the rule.

        Parameters
        ----------
        fwd : callable
            ``fwd(*args) -> (out, residuals)``: what f returns, and whatever `bwd` needs.
        bwd : callable
            ``bwd(residuals, out_bar) -> cotangents``, a tuple with one entry for each argument,
            built like it, or None for zero. The arguments of `nondiff_argnums` come first and
            have no cotangent. ``out_bar`` is built like ``out``.
        """
        for what, rule in (("fwd", fwd), ("bwd", bwd)):
            if not callable(rule):
                raise TypeError(f"{self._name}: {what} must be a function, not "
                                f"{type(rule).__name__}")
        self._rule = fwd, bwd
        self._compared = False

    _compared = False               # whether fwd has been seen to return what f returns

    def __call__(self, *args, **kwargs):
        # Numbers and arrays alone, as nearly always: no tree is taken apart.
        if (self._compared and not kwargs and not self.nondiff_argnums
                and not core.recording_program()
                and len(args) == len(self._signature.parameters if self._signature else args)
                and _NUMBERS.issuperset(map(type, args)) and any(map(recorded, args))):
            return self._of_numbers(args)
        return super().__call__(*args, **kwargs)

    def _of_numbers(self, args):
        out, residuals = pair = self._forward(list(map(plain, args)))
        parts = residuals if type(residuals) is tuple else (residuals,)
        if (type(out) not in _NUMBERS or not floating(out) or isinstance(out, Tensor)
                or not _HELD.issuperset(map(type, parts))):
            call = self._begun(args)
            return self._recorded(call, self._value(call, pair))
        rule = _OfNumbers(self, args, out, residuals, parts)
        made, = core.custom(rule, rule.tensors, [constant(out)])
        return made

    def _forward(self, args):
        fwd = self._rule[0]
        pair = fwd(*args) if any(map(recorded, trees.flatten(args)[0])) else plainly(fwd, args)
        if type(pair) is not tuple or len(pair) != 2:
            raise TypeError(f"{self._name}: fwd must return (out, residuals), not "
                            f"{type(pair).__name__}")
        return pair

    def _value(self, call, pair=None):
        arguments = call.arguments
        out, residuals = pair or self._forward(call.all(arguments.first(True)))
        if not self._compared:
            args = call.all(arguments.tree(map(copied, arguments.plain())))
            leaves, structure = trees.flatten(plainly(self.__wrapped__, args))
            call.returned = structure, list(map(plain, leaves))
            call.same_results("what fwd returns first", out)
            self._compared = True
        # The caller's arrays, which it may write to, are held as copies.
        call.residuals = trees.tree_map(
            lambda x: copied(x) if arguments.shared(x) else viewed(x), residuals)
        arguments.given = None
        return out

    def _linear(self, call):
        structure, results = call.returned
        numbers = [k for k, y in enumerate(results) if floating(y)]

        def linear():
            residuals = call.residuals
            if core.is_recording():
                args = call.all(call.arguments.tree(call.arguments.tensors))
                residuals = self._forward(args)[1]
            else:
                residuals = trees.tree_map(copied, residuals)      # bwd may be called again
            return functools.partial(pullback, residuals)

        def pullback(residuals, vectors):
            leaves = [zeros(y) if isinstance(y, np.ndarray) else 0 for y in results]
            for k, v in zip(numbers, vectors):
                leaves[k] = v
            out_bar = trees.unflatten(structure, leaves)
            answer = self._rule[1](*call.fixed, residuals, out_bar)
            return self._cotangents(call, answer)

        return _Pullback(self._name, linear, self, [results[k] for k in numbers])

    def _cotangents(self, call, answer):
        """What bwd returned, for the leaves that are recorded."""
        arguments = call.arguments
        count = len(arguments.structure.children)
        if type(answer) is not tuple:
            raise TypeError(f"{self._name}: bwd must return a tuple with a cotangent for each of "
                            f"the {count} arguments, not {type(answer).__name__}")
        if len(answer) != count:
            raise ValueError(f"{self._name}: bwd returned {len(answer)} cotangents for {count} "
                             f"argument{'' if count == 1 else 's'}; None stands for zero")
        leaves = call.leaves(arguments.structure, answer, arguments.leaves, "the cotangent",
                             "the argument", places=True)
        return call.cast([leaves[i] for i in arguments.places], arguments.plain())


_NUMBERS = frozenset([float, np.float64, np.float32, np.ndarray, Tensor])
_HELD = frozenset([float, int, bool, str, type(None), np.float64, np.float32, np.ndarray])


class _OfNumbers:
    """The rule of a call with numbers and arrays alone, which returned one. Where its result is
    recorded, or asked for in forward mode, it becomes a rule like any other."""

    def __init__(self, function, args, out, residuals, parts):
        self.function, self.out, self.several = function, outline(out), type(residuals) is tuple
        self.places = [i for i, x in enumerate(args) if recorded(x)]
        self.tensors = [core.taken(args[i]) for i in self.places]
        self.args = [None if i in self.places else viewed(x) if isinstance(x, Tensor) else copied(x)
                     for i, x in enumerate(args)]
        self.likes = list(map(outline, args))
        self.residuals = [copied(x) if isinstance(x, np.ndarray) and any(
            [isinstance(a, np.ndarray) and np.may_share_memory(a, x) for a in args]) else x
            for x in parts]
        self.numeric = _sees_no_more(function._rule[1])

    def __repr__(self):
        return self.function._name

    def _general(self):
        args = list(self.args)
        for i, t in zip(self.places, self.tensors):
            args[i] = t
        call = self.function._begun(args, recorded=self.places)
        call.returned = trees.LEAF, [self.out]
        call.residuals = tuple(self.residuals) if self.several else self.residuals[0]
        return call

    def pull(self, cotangents, needed):
        if core.is_recording() or core.recording_program():
            return self.function._linear(self._general()).pull(cotangents, needed)
        c = plain(cotangents[0])
        held = list(map(copied, self.residuals))            # bwd may be called again
        answer = plainly(self.function._rule[1], (
            tuple(held) if self.several else held[0], float(c) if type(self.out) is float else c))
        if (type(answer) is tuple and len(answer) == len(self.likes)
                and all(map(_fits, answer, self.likes))):
            return [None if answer[i] is None else core.constant(answer[i]) for i in self.places]
        return list(map(tensor, self.function._cotangents(self._general(), answer)))

    def push(self, tangents):
        return self.function._linear(self._general()).push(tangents)


def _fits(x, like):
    """Whether a cotangent is of the kind, shape and dtype of what it belongs to; None is zero."""
    if type(x) is np.ndarray:
        return type(like) is np.ndarray and x.shape == like.shape and x.dtype == like.dtype
    return x is None or type(x) in (float, np.float64) and type(like) in (float, np.float64)


class custom_jvp(_Custom):
    """A function with a rule for its derivative in forward mode.

    Parameters
    ----------
    f, nondiff_argnums
        As of `custom_vjp`.

    Notes
    -----
    In reverse mode the rule is transposed, which needs a rule written with differentiable
    operations, linear in the tangents (checked as by `custom_vjp`); higher derivatives
    differentiate the rule. In forward mode and at first order it sees plain floats and arrays.

    Raises
    ------
    NoDerivativeError
        When differentiated before `defjvp`.
    TypeError, ValueError
        For a rule that returns something else than `defjvp` says, a function that returns what has
        no derivative or uses a recorded Tensor that is not among its arguments, and a rule that
        cannot be transposed.

    Examples
    --------
    >>> @fg.custom_jvp
    ... def cube(x):
    ...     return x ** 3
    >>> @cube.defjvp
    ... def rule(primals, tangents):
    ...     (x,), (x_dot,) = primals, tangents
    ...     return cube(x), 3 * x ** 2 * x_dot
    >>> fg.jvp(cube, (2.0,), (1.0,)), fg.grad(cube)(2.0), fg.grad(fg.grad(cube))(2.0)
    ((8.0, 12.0), 12.0, 12.0)
    """

    _define = "give it one with .defjvp(rule)"

    def defjvp(self, rule):
        """Set the rule; returns it, so that this is a decorator.

        Parameters
        ----------
        rule : callable
            ``rule(primals, tangents) -> (out, tangent_out)``, both built like what f returns.
            ``tangents`` is built like ``primals``, with 0 for integers and None for what is no
            number. The arguments of `nondiff_argnums` come first and have no tangent.
        """
        if not callable(rule):
            raise TypeError(f"{self._name}: the rule must be a function, not "
                            f"{type(rule).__name__}")
        self._rule = rule
        return rule

    def _value(self, call):
        return plainly(self.__wrapped__, call.all(call.arguments.first()))

    def _linear(self, call):
        arguments = call.arguments
        structure, results = call.returned
        numbers = [k for k, y in enumerate(results) if floating(y)]
        still = [zeros(x) if floating(x) or isinstance(x, np.ndarray)
                 else 0 if isinstance(x, (int, np.integer)) else None for x in arguments.leaves]

        def linear():
            return functools.partial(pushforward, arguments.tree(arguments.present()))

        def pushforward(primals, vectors):
            leaves = list(still)
            for i, v in zip(arguments.places, vectors):
                leaves[i] = v
            pair = self._rule(*call.fixed, primals, trees.unflatten(arguments.structure, leaves))
            if type(pair) is not tuple or len(pair) != 2:
                raise TypeError(f"{self._name}: the rule must return (out, tangent_out), not "
                                f"{type(pair).__name__}")
            call.same_results("what the rule returns first", pair[0])
            found = call.leaves(structure, pair[1], results, "the tangent", "the result")
            return call.cast([found[k] for k in numbers], [results[k] for k in numbers])

        return _Pushforward(self._name, linear, self, arguments.plain())
