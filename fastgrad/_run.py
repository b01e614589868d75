"""A run of a function of trees, held for differentiation, and looks at what it is given."""

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import argument_of, name_of, no_parameters

__all__ = ["LEAVES", "Run", "built", "chunk_given", "counted", "differentiable", "flat",
           "function_given", "matching", "numbers_of", "one_of", "pair_of", "positions_of",
           "selected"]


class Run:
    """One run of f, held for differentiation with respect to the arguments numbered argnums."""

    def __init__(self, name, f, args, kwargs, argnums, has_aux, tangents=None, gradient=False):
        self.name = name
        self.f = f
        self.has_aux = has_aux
        self.positions = positions = positions_of(name, argnums, len(args), f)
        inputs = [args[i] for i in positions]
        leaves, places, self.structures, self.counts = [], [], [], []
        for i, x in zip(positions, inputs):
            own, structure = flat(x, trees.numbers)
            leaves += own
            where = argument_of(f, i)
            places += [where] if structure is None else [
                where + path for path in trees.paths(structure)]
            self.structures.append(structure)
            self.counts.append(len(own))
        self.derivatives = None
        self.leaves = leaves
        if tangents is not None:
            core.stream_new()
        self.trace = trace = core.Trace(name, leaves, places, tangents)
        lifted = list(args)
        x = inputs = None
        for i, x in zip(positions, self.trees(self.structures, trace.arguments)):
            lifted[i] = x
        x = None
        try:
            trace.begin()
            if tangents is not None:
                trace.stream_begin()
            refusals = core.refusals()
            try:
                value = f(*lifted, **kwargs)
            except ValueError as error:
                core.raise_refused(error)
                raise
            core.check_refusals(refusals, f"{name} of {name_of(f)}")
            del lifted
            self.aux = None
            if has_aux:
                value, self.aux = pair_of(name, value)
            if leaves or not gradient:          # else there is nothing in it, and that is right
                core.check_results(name, value)
            outputs, self.returned = flat(value)
            del value
            trace.results(outputs)
            del outputs
            self.tangents = trace.stream_results() if tangents is not None else None
        finally:
            trace.end()                 # one call: an interrupt may come after any
        if has_aux:
            self.aux = core.settled(self.aux)

    def recorded(self):
        """Whether derivatives may have to be differentiated in their turn."""
        return core.nested() or core.is_recording() and any(
            isinstance(leaf, core.Tensor) and leaf.requires_grad for leaf in self.leaves)

    def warn(self):
        """Warn if the results do not depend on the arguments, unless inside a transformation."""
        if self.leaves and not core.nested() and not self.trace.reached \
                and self.trace.independent():
            core.warn_independent(f"{self.name} of {name_of(self.f)}")

    def __repr__(self):
        return f"<{self.name} of {name_of(self.f)}>"

    def like_inputs(self, leaves):
        """A tuple with a tree of derivatives for each argument."""
        if self.derivatives is None:
            self.derivatives = [None if x is None else trees.bare(x) for x in self.structures]
        return self.trees(self.derivatives, leaves)

    def trees(self, structures, leaves):
        """A tuple with a tree of each structure."""
        made, at = [], 0
        for structure, count in zip(structures, self.counts):
            made.append(built(structure, leaves[at:at + count]))
            at += count
        return tuple(made)

    def like_result(self, leaves):
        """A tree like the result."""
        return built(self.returned, leaves)

    def value(self):
        return self.like_result(self.trace.plain())

    def pull(self, cotangent, finite=None):
        """Reverse mode: one gradient for each argument."""
        return self.like_inputs(self.trace.pull(self.cotangents(cotangent), finite))

    def push(self, *tangents, finite=None):
        """Forward mode: the derivative of the result."""
        counted(self.name, tangents, len(self.positions))
        return self.outputs(self.trace.push(self.tangent_leaves(tangents), finite))

    def outputs(self, leaves):
        """Derivatives of the results (None: there is none) as a tree like the result."""
        if any(leaf is None for leaf in leaves):
            leaves = [core.zeros_for(value) if leaf is None else leaf
                      for leaf, value in zip(leaves, self.trace.plain())]
        return self.like_result(leaves)

    def cotangents(self, tree):
        """The leaves of a tree that belongs to the results, shapes checked."""
        return matching(self.name, tree, self.returned, self.trace.shapes, "cotangent",
                         "the result")

    def tangent_leaves(self, tangents):
        """The leaves of tangents, one tree for each argument, shapes checked."""
        shapes, leaves, at = self.trace.input_shapes, [], 0
        for i, tree, structure, count in zip(self.positions, tangents, self.structures,
                                             self.counts):
            leaves += matching(self.name, tree, structure, shapes[at:at + count], "tangent",
                                argument_of(self.f, i))
            at += count
        return leaves


# What is certainly a leaf: most calls need no more than a look at the type.
LEAVES = frozenset([float, np.ndarray, np.float64, np.float32, core.Tensor])


def flat(tree, taken_apart=trees.flatten):
    """Leaves and structure; None is the structure of a single leaf."""
    if type(tree) in LEAVES:
        return [tree], None
    leaves, structure = taken_apart(tree)
    return leaves, None if structure == trees.LEAF else structure


def built(structure, leaves):
    return leaves[0] if structure is None else trees.unflatten(structure, leaves)


def matching(name, tree, structure, shapes, what, whose):
    """The leaves of a tree that must have that structure and those shapes."""
    try:
        leaves = [tree] if structure is None and type(tree) in LEAVES else trees.flatten_like(
            trees.LEAF if structure is None else structure, tree)
    except ValueError as error:
        raise ValueError(f"{name}: the {what} is not built like {whose}: {error}") from None
    for i, (leaf, shape) in enumerate(zip(leaves, shapes)):
        if leaf is None:
            continue
        wrong = _wrong(leaf, tuple(shape))
        if wrong:
            path = "" if structure is None else trees.paths(structure)[i]
            raise (ValueError if wrong.startswith("has shape") else TypeError)(
                f"{name}: the {what} of {whose}{path} {wrong}")
    return leaves


def _wrong(leaf, shape):
    """What is wrong with a tangent or cotangent of something of that shape."""
    if type(leaf) is not float:
        dtype = getattr(leaf, "dtype", None)
        if isinstance(leaf, bool):
            return f"is the bool {leaf}; it must be a float: write {float(leaf)}"
        if dtype is None and not isinstance(leaf, (int, float)):
            return f"must be a number or an array, not {type(leaf).__name__}"
        if dtype is not None and dtype.kind not in "fiu":
            return f"has dtype {dtype}; it must be " + (
                "float: write .astype(float)" if dtype.kind == "b" else "real")
        if type(leaf) not in LEAVES and (why := core.array_kind(leaf)) is not None:
            return f"is a {type(leaf).__name__}; {why}"
    if np.shape(leaf) != shape:
        return f"has shape {np.shape(leaf)}, not {shape}; they must be equal"
    return ""


def pair_of(name, value):
    """What a function with has_aux=True returned."""
    if type(value) is not tuple or len(value) != 2:
        raise TypeError(f"{name}: with has_aux=True the function must return (value, aux), not "
                        f"{type(value).__name__}")
    return value


def counted(name, tangents, count):
    given = len(tangents)
    if given != count:
        raise ValueError(f"{name}: {given} {'tangent' if given == 1 else 'tangents'} for {count} "
                         f"{'argument' if count == 1 else 'arguments'}; give one for each")


def positions_of(name, argnums, count, f):
    """The positions of the arguments to differentiate, as a list."""
    if argnums is None:
        return list(range(count))
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    found = [i + count if i < 0 else i for i in numbers]
    if count == 0 and argnums == 0 and no_parameters(f):
        return []
    for i in found:
        if not 0 <= i < count:
            raise TypeError(f"{name}: argnums={argnums!r}, but the call has {count} positional "
                            f"argument{'' if count == 1 else 's'}")
    if len(set(found)) != len(found):
        raise TypeError(f"{name}: argnums={argnums!r} names an argument twice")
    return found


def numbers_of(name, argnums):
    """argnums as an int or a tuple of ints."""
    try:
        if isinstance(argnums, (tuple, list)):
            return tuple(i.__index__() for i in argnums)
        return argnums.__index__()
    except AttributeError:
        raise TypeError(f"{name}: argnums must be an int or a tuple of ints, not "
                        f"{trees.shown(argnums)}") from None


def function_given(name, f):
    if not callable(f):
        raise TypeError(f"{name}: the first argument must be a function, not {type(f).__name__}")
    return f


def chunk_given(name, chunk):
    if chunk is not None and (not hasattr(chunk, "__index__") or chunk < 1):
        raise ValueError(f"{name}: chunk={chunk!r} must be a positive int, or None")
    return chunk


def one_of(name, option, value, choices):
    if value not in choices:
        raise ValueError(f"{name}: {option}={value!r} is not one of "
                         f"{', '.join(map(repr, choices))}")


def selected(argnums, items):
    """One item for an int, a tuple of them for a tuple, and where there is none."""
    return tuple(items) if isinstance(argnums, tuple) or not items else items[0]


def differentiable(name, what, x):
    """Complain if an argument has no derivative, which says more than what is wrong with its
    tangent."""
    leaves, structure = trees.numbers(x)
    core.Trace(name, leaves, [what + path for path in trees.paths(structure)])
