"""The record of an operator that is not element-wise: one place for all that anybody has to know.

    cumsum = operator("cumsum", "(n)->(n)", np.cumsum, along="axis", linear=(0,),
        vjp=(lambda g, x, y, axis: flip(cumsum(flip(g, axis), axis), axis),),
        draw=lambda rng: ...)

makes the function of NumPy's name, registers it for `np.cumsum(t)` and `t.cumsum()`, and serves
recording, both modes to any order, replays, files, lanes and sparsity. A record without `jvp` and
`vjp` whose result is floating raises `NoDerivativeError` when it is differentiated: what is
forgotten is an error and never a zero.
"""

import contextvars
import functools
import inspect
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from fastgrad._core import core

from .signature import parsed, unbroadcast

__all__ = ["OPERATORS", "Operator", "Rule", "apply", "on_examples", "operator", "pushed"]

Tensor = core.Tensor


# Whether what is recorded runs on numbers that stand for any of their shape, as the derivative of a
# loop's step does: that a matrix of ones is singular means nothing.
on_examples = contextvars.ContextVar("on_examples", default=False)


# The operators whose jvp is being transposed.
transposing = contextvars.ContextVar("transposing", default=())


class Operator(NamedTuple):
    """What is known of an operator."""
    name: str           # "linalg.solve": what files, errors and explanations say
    signature: str      # core axes, "(n,n),(n,k)->(n,k)"; axes in front are batch axes
    # Of ndarrays, then options by keyword: the result, or a tuple of all results. One that warns
    # asks `on_examples` first.
    value: Any
    # Tuples of one function an operand: `(tangent, *operands, *results, **options)` gives what it
    # adds to the tangent of the first result; `(cotangent, ...)` what the operand's cotangent is,
    # which is summed to its shape here. None in the place of an operand that is never
    # differentiated. Or one function for all: `(tangents, operands, results, **options)` -> a
    # tangent a result, and `(cotangents, operands, results, wanted, **options)` -> a cotangent an
    # operand. In fastgrad.numpy, so that they are differentiated in their turn; while nothing is
    # recorded they get plain arrays. None is zero, in what the one function gets and returns. An
    # operator that hands out several results has one function for all. A `vjp` that is left out is
    # the transpose of the `jvp`, made anew at each use; one whose jvp is made of itself has to give
    # it.
    jvp: Any
    vjp: Any
    linear: tuple       # operands in which it is linear, the others held: it is its own jvp there
    # What the rules look at: letters of operands ("a", "b", ...), "y" for results. The rest is not
    # kept, and stands there as NaN of its shape.
    reads: str
    # The option that is an axis. Kept negative, so that axes in front change nothing; None of it
    # means the flattened operand.
    along: str | None
    results: int        # how many there are
    # How many of them are handed out, several in a tuple (of which `around` may make NumPy's
    # namedtuple); the rest (an order, factors) is for the rules alone.
    returns: int
    # Operands that are taken as symmetric matrices: the derivative is that along symmetric
    # directions. The rules get symmetric tangents, and what they return is made symmetric.
    symmetric: tuple
    # Of the options: the generalized ufunc whose loop programs call, if any; its first result is
    # NaN where `value` raises.
    native: Any
    draw: Any           # of a random generator: operands and options, by which the laws test it

    @property
    def key(self):
        """Its name in graphs."""
        return f"fastgrad.{self.name}"

    def computed(self, *operands, **options):
        """All results for plain arrays, in a tuple."""
        try:
            found = self.value(*operands, **options)
        except np.linalg.LinAlgError as error:
            if not on_examples.get():
                raise np.linalg.LinAlgError(f"{self.name}: {error}") from None
            shapes = parsed(self.signature).shapes(self.name, list(map(np.shape, operands)))
            return tuple([np.full(shape, np.nan, operands[0].dtype) for shape in shapes])
        except (TypeError, ValueError) as error:
            if str(error).startswith(f"{self.name}:"):
                raise
            raise type(error)(f"{self.name}: {error}") from None
        return tuple(found) if self.results > 1 else (found,)

    def __repr__(self):
        return self.name


# By name, "fastgrad.linalg.solve" as call nodes have it.
OPERATORS = core.HANDED_DOWN["operators"] = {}


def operator(name, signature, value, *, jvp=None, vjp=None, linear=(), reads="", along=None,
             results=1, returns=1, symmetric=(), draw, doc, numpy=None, method=False,
             accumulates=None, around=None, native=None):
    """Register an `Operator`; returns its public function, of NumPy's parameters, and puts it into
    fastgrad.numpy, "linalg.solve" into fastgrad.numpy.linalg. Besides the record it takes

        doc             of the public function
        numpy           the function of NumPy's that it stands for, if `value` is another one
        method          whether Tensors have it as a method
        accumulates     a ufunc whose method ``accumulate`` it is
        around          what NumPy's function does with operands beyond the signature: it gets the
                        operator as a function of the operands, and these
    """
    from fastgrad.numpy._dispatch import implements

    row = Operator(name, signature, value, jvp, vjp, tuple(linear), reads, along, results, returns,
                   tuple(symmetric), native, draw)
    if row.key in OPERATORS:
        raise ValueError(f"operator {name!r} is registered twice")
    parsed(signature)
    if linear and vjp is None:
        raise ValueError(f"operator {name!r} is its own jvp and needs a vjp")
    if returns > 1 and (linear or isinstance(jvp, tuple) or isinstance(vjp, tuple)):
        raise ValueError(f"operator {name!r} has several results and needs rules for all of them")
    OPERATORS[row.key], core.CALLED[row.key] = row, row.computed
    numpy = numpy or value
    parameters = inspect.signature(numpy)

    @implements(numpy)
    def function(*args, **kwargs):
        return _called(OPERATORS[row.key], parameters, around, args, kwargs)

    function.__name__ = function.__qualname__ = name.rpartition(".")[2]
    function.__module__ = "fastgrad.numpy" + ("." + name.rpartition(".")[0] if "." in name else "")
    function.__signature__ = parameters
    function.__doc__ = inspect.cleandoc(doc)
    setattr(sys.modules[function.__module__], function.__name__, function)
    if method:
        core.METHODS[function.__name__] = function
    if accumulates is not None:
        core.ACCUMULATED[accumulates] = function
    return function


def _called(row, parameters, around, args, kwargs):
    """A call with a floating Tensor of the public function, of the parameters that NumPy's has."""
    from fastgrad.numpy import _create, _dispatch

    count = len(parsed(row.signature).operands)
    options = {p.name: p.default for p in list(parameters.parameters.values())[count:]}
    if len(args) == count and kwargs.keys() <= options.keys():
        options |= kwargs
    else:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        options = bound.arguments
        args = [options.pop(name) for name in list(options)[:count]]
    operands = [_create.lift(_dispatch.known(x)) for x in args]
    for x in operands:
        if x.dtype.kind not in "fiub":
            raise TypeError(f"{row.name}: an operand has the dtype {x.dtype}; operands of a "
                            "derivative are real numbers")
    _dispatch.refuse(row.name, options.pop("out", None))
    if (dtype := options.pop("dtype", None)) is not None:
        operands = [_create.cast(row.name, x, dtype) for x in operands]
    if count > 1:
        wide = np.result_type(*[x.dtype for x in operands if x.dtype.kind == "f"])
        operands = [core.cast(x, wide) for x in operands]
    if around is not None:
        return around(lambda *operands: _applied(row, operands, options), *operands)
    return _applied(row, operands, options)


def _applied(row, operands, options):
    """What is handed out."""
    options = dict(options)
    if row.along is not None:
        if options[row.along] is None:
            operands = [core.reshape(x, (x.size,)) for x in operands]
            options[row.along] = -1
        ndim = operands[0].ndim
        if not hasattr(options[row.along], "__index__"):
            raise TypeError(f"{row.name}: {row.along} must be an integer, not "
                            f"{options[row.along]!r}")
        options[row.along] = normalize_axis_index(options[row.along], ndim, row.name) - ndim
    found = apply(row, operands, options)[:row.returns]
    return found[0] if row.returns == 1 else tuple(found)


def apply(row, operands, options):
    """All results of an operator for Tensors and arrays, recorded where these are."""
    if row.along is None:
        parsed(row.signature).shapes(row.name, [x.shape for x in operands])
    found = core.derive(row.key, row.computed, tuple(operands), options)
    operands = [x if isinstance(x, Tensor) else core.constant(x) for x in operands]
    return core.custom(Rule(row, operands, found, options), operands, list(found))


def _with_tensors():
    """Whether rules get Tensors: what they compute is recorded, or taken down for a program."""
    return core.is_recording() or core.recording_program()


class Rule:
    """The derivative of one application, as the core calls it."""

    operator = True             # what it has computed is a node that can be differentiated anew
    numeric = True              # it uses what it is given alone: see rules/rules.pyx

    def __init__(self, row, operands, results, options):
        self.row, self.options = row, options
        kept = "y" in row.reads
        self.results = [x.detach() if kept else _blank(x) for x in results]
        self.operands = [core.taken(x) if chr(97 + k) in row.reads else _blank(x)
                         for k, x in enumerate(operands)]
        self.tensors = list(map(core.taken, operands)) if kept else None
        self.constants = {k: x for k, x in enumerate(operands) if not x.requires_grad}

    def __repr__(self):
        return self.row.name

    def _known(self):
        """Operands and results as the rules get them."""
        if not _with_tensors():
            return list(map(_plain, self.operands)), list(map(_plain, self.results))
        # Results of which a derivative is taken in its turn are computed anew, recorded.
        results = self.results
        if self.tensors is not None:
            results = apply(self.row, self.tensors, self.options)
        return self.operands, results

    def pull(self, cotangents, needed):
        row = self.row
        operands, results = self._known()
        if row.vjp is None:
            found = _run(lambda given: _transposed(row, self.options, given, operands, results,
                                                   needed), cotangents)
        elif callable(row.vjp):
            found = _run(lambda given: row.vjp(given, operands, results, needed, **self.options),
                         cotangents)
        else:
            found = _run(lambda given: [
                rule(given[0], *operands, *results, **self.options) if wanted else None
                for rule, wanted in zip(row.vjp, needed)], cotangents)
        found = _symmetrised(row, found)
        found = [None if g is None or not wanted else unbroadcast(g, x.shape)
                 for g, x, wanted in zip(found, operands, needed)]
        return core.tensors_of(found)

    def push(self, tangents):
        operands, results = self._known()
        found = _run(lambda given: pushed(self.row, self.options, given, operands, results),
                     tangents)
        return [None if t is None else _spread(t, y.shape) for t, y in zip(found, results)]


def _run(rule, vectors):
    """What a rule makes of cotangents or tangents."""
    if _with_tensors():
        return rule(vectors)
    return core.plainly(rule, ([None if v is None else _plain(v) for v in vectors],))


def pushed(row, options, tangents, operands, results):
    """The tangents of all results from those of the operands (None: zero)."""
    tangents = _symmetrised(row, tangents)
    if callable(row.jvp):
        return row.jvp(tangents, operands, results, **options)
    if row.jvp is None and not row.linear:
        raise core.NoDerivativeError(
            f"{row.name}: there is no rule for its derivative in forward mode")
    total = None
    for k, t in enumerate(tangents):
        if t is not None:
            part = _moved(row, options, k, t, operands) if row.jvp is None else row.jvp[k](
                t, *operands, *results, **options)
            total = part if total is None else total + part
    return [total] + [None] * (row.results - 1)


def _transposed(row, options, cotangents, operands, results, needed):
    """The cotangents of the operands by the transpose of the jvp."""
    if row.jvp is None:
        raise core.NoDerivativeError(
            f"{row.name}: there is no rule for its derivative in reverse mode")
    if row.name in transposing.get():
        raise core.NoDerivativeError(f"{row.name}: its jvp is made of the operator itself, so that "
                                     "the transpose of it is none; give it a vjp")
    asked = [k for k, wanted in enumerate(needed) if wanted]
    given = [k for k, g in enumerate(cotangents) if g is not None]

    def push(*tangents):
        every = [None] * len(operands)
        for k, t in zip(asked, tangents):
            every[k] = t
        moved = pushed(row, options, every, operands, results)
        return tuple([np.zeros(results[k].shape) if moved[k] is None else moved[k] for k in given])

    token = transposing.set((*transposing.get(), row.name))
    try:
        pull = core.HANDED_DOWN["vjp"](push, *[
            np.zeros(operands[k].shape, operands[k].dtype) for k in asked])[1]
        found = dict(zip(asked, pull(tuple([cotangents[k] for k in given]))))
    finally:
        transposing.reset(token)
    return [found.get(k) for k in range(len(operands))]


def _symmetrised(row, vectors):
    """Tangents or cotangents of operands; of those that are symmetric the symmetric part."""
    return [0.5 * (x + x.swapaxes(-1, -2)) if x is not None and k in row.symmetric else x
            for k, x in enumerate(vectors)] if row.symmetric else vectors


def _moved(row, options, k, t, operands):
    """An operator that is linear in operand k, of a tangent."""
    given = [*operands[:k], t, *operands[k + 1:]]
    if any([isinstance(x, Tensor) for x in given]):
        return apply(row, given, options)[0]
    return row.computed(*given, **options)[0]


def _blank(x):
    """What stands for an operand or result that no rule looks at: NaN of its shape, no memory."""
    return _nan(x.shape, x.dtype if x.dtype.kind == "f" else np.dtype(float))


@functools.lru_cache(256)
def _nan(shape, dtype):
    return np.broadcast_to(dtype.type(np.nan), shape)


def _spread(t, shape):
    """A tangent as a Tensor of its result's shape; it may lack batch axes of some operands."""
    from fastgrad.numpy import broadcast_to

    return _tensor(t if t.shape == shape else broadcast_to(t, shape))


def _plain(x):
    return x.detach().numpy() if isinstance(x, Tensor) else x


def _tensor(x):
    return x if isinstance(x, Tensor) else core.constant(np.asarray(x))
