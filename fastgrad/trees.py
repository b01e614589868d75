"""Trees: tuples, lists, dicts, namedtuples, dataclasses and registered classes, nested at will,
with numbers, arrays and anything else as leaves. Every transformation takes and returns them.

    >>> import numpy as np
    >>> import fastgrad as fg
    >>> params = {"w": np.array([1.0, 2.0]), "b": 0.5, "activation": "tanh"}
    >>> flat, unflatten = fg.trees.ravel(params)
    >>> flat
    array([1. , 2. , 0.5])
    >>> unflatten(flat * 2)
    {'w': array([2., 4.]), 'b': 1.0, 'activation': 'tanh'}
"""

import itertools
import math

import numpy as np

from fastgrad._core import core, trees

__all__ = ["flatten", "map", "ravel", "register", "unflatten"]


def flatten(tree):
    """The leaves of a tree, and its structure.

    Parameters
    ----------
    tree : tree
        None is a tree without leaves; what is no known container is a leaf.

    Returns
    -------
    leaves : list
        From left to right; those of a dict in its own order.
    structure
        What `unflatten` takes; of two trees that are built alike they are equal.

    Raises
    ------
    TypeError, ValueError
        If the `flatten` of a registered class does not return ``(children, aux)``.

    Examples
    --------
    >>> leaves, structure = fg.trees.flatten({"w": [1.0, 2.0], "b": None})
    >>> leaves
    [1.0, 2.0]
    >>> structure == fg.trees.flatten({"w": [3.0, 4.0], "b": None})[1]
    True
    """
    return trees.flatten(tree)


def unflatten(structure, leaves):
    """The tree of a structure with other leaves.

    Parameters
    ----------
    structure
        From `flatten`.
    leaves : iterable
        One for each leaf of the structure.

    Returns
    -------
    tree
        `__init__` and `__post_init__` of dataclasses and namedtuples are not run; a registered
        class is made by its `unflatten`.

    Raises
    ------
    ValueError
        For too few or too many leaves.
    TypeError
        If the structure is none.

    Examples
    --------
    >>> leaves, structure = fg.trees.flatten({"w": [1.0, 2.0], "b": None})
    >>> fg.trees.unflatten(structure, "ab")
    {'w': ['a', 'b'], 'b': None}
    """
    if type(structure) is not trees.Branch and not (
            type(structure) is str and structure == trees.LEAF):
        raise TypeError("unflatten: the structure must come from flatten, not "
                        f"{trees.shown(structure)}; the leaves come second")
    return trees.unflatten(structure, leaves)


def map(f, tree, *rest):
    """The tree of ``f(leaf, leaf of the second tree, ...)``.

    Parameters
    ----------
    f : callable
        Takes one leaf of each tree.
    tree, *rest : tree
        Built alike; the keys of dicts may stand in another order.

    Returns
    -------
    tree
        Built like the first one.

    Raises
    ------
    ValueError
        If a tree is not built like the first; says where.
    TypeError
        If f is no function.

    Examples
    --------
    >>> params, grads = {"w": 1.0, "b": (2.0, 3.0)}, {"b": (1.0, 1.0), "w": 2.0}
    >>> fg.trees.map(lambda p, g: p - 0.5 * g, params, grads)
    {'w': 0.0, 'b': (1.5, 2.5)}
    """
    if not callable(f):
        raise TypeError(f"map: the first argument must be a function, not {type(f).__name__}")
    return trees.tree_map(f, tree, *rest)


def ravel(tree):
    """All numbers of a tree in one vector, and the way back.

    Parameters
    ----------
    tree : tree
        Leaves that are no numbers (strings, bools, functions) are not in the vector; `unflatten`
        puts them back.

    Returns
    -------
    flat : ndarray or Tensor, shape (n,)
        In the dtype that NumPy's promotion gives all leaves; float64 where there are none. A Tensor
        if one is among the leaves, and differentiable.
    unflatten : callable
        ``unflatten(flat)`` takes a vector of that length and returns a tree like `tree`: floating
        leaves in their own dtypes and kinds (a float for a float), integers in the dtype of the
        vector. It is differentiable and pickles.

    Raises
    ------
    TypeError
        For leaves that are neither numbers nor constants, and arrays of dtypes that are not
        supported.
    ValueError
        From `unflatten`, for a vector of another shape.

    Examples
    --------
    >>> flat, unflatten = fg.trees.ravel({"w": np.ones((2, 2)), "b": 0.0})
    >>> flat
    array([1., 1., 1., 1., 0.])
    >>> def f(p):
    ...     return np.sum(p["w"] ** 2) + 3 * p["b"]
    >>> fg.grad(lambda flat: f(unflatten(flat)))(flat)
    array([2., 2., 2., 2., 3.])
    """
    from fastgrad import numpy as fnp
    leaves, structure = trees.numbers(tree)
    if structure == trees.LEAF and trees.is_constant(leaves[0]):
        leaves, structure = [], trees.Constant(leaves[0])
    for path, leaf in zip(trees.paths(structure), leaves):
        _number(leaf, path)
    kinds = [_kind(leaf) for leaf in leaves]
    # A Python number gives way to arrays, as in arithmetic.
    dtypes = [leaf.dtype if hasattr(leaf, "dtype") else leaf for leaf in leaves]
    dtype = np.result_type(*dtypes) if leaves else np.dtype(float)
    parts = [core.cast(leaf, dtype) if isinstance(leaf, core.Tensor) and leaf.dtype != dtype
             else leaf if isinstance(leaf, core.Tensor) else np.asarray(leaf, dtype)
             for leaf in leaves]
    parts = [fnp.reshape(part, (-1,)) for part in parts]
    flat = fnp.concatenate(parts) if parts else np.zeros(0)
    return flat, Unflatten(structure, kinds)


def _number(leaf, path):
    if isinstance(leaf, (float, int, core.Tensor)):
        return
    if not isinstance(leaf, (np.ndarray, np.generic)):
        raise TypeError(f"ravel: the leaf {path or 'given'} is a {type(leaf).__name__}, which is "
                        "no number and no known container; say how to take it apart: "
                        f"fg.trees.register({type(leaf).__name__}, flatten, unflatten)")
    if isinstance(leaf, np.ma.MaskedArray) or leaf.dtype.kind not in "fiub":
        raise TypeError(f"ravel: the leaf {path or 'given'} is a {type(leaf).__name__} of dtype "
                        f"{leaf.dtype}; it must be an array of real numbers")


def _kind(leaf):
    """Shape, dtype (None: that of the vector), and the type that a number has."""
    if isinstance(leaf, (float, int)) and not isinstance(leaf, np.generic):
        return (), None, float if isinstance(leaf, float) else int
    dtype = leaf.dtype if leaf.dtype.kind == "f" else None
    return tuple(leaf.shape), dtype, np.generic if isinstance(leaf, np.generic) else np.ndarray


class Unflatten:
    """What `ravel` returns beside the vector."""

    def __init__(self, structure, kinds):
        self.structure, self.kinds = structure, kinds
        self.bounds = [0, *itertools.accumulate(math.prod(shape) for shape, _, _ in kinds)]

    def __call__(self, flat):
        if np.shape(flat) != (self.bounds[-1],):
            raise ValueError(f"unflatten: the vector has shape {np.shape(flat)}, not "
                             f"{(self.bounds[-1],)}")
        if not isinstance(flat, core.Tensor):
            flat = np.asarray(flat)
        leaves = [self.leaf(flat[a:b], *kind)
                  for a, b, kind in zip(self.bounds, self.bounds[1:], self.kinds)]
        return trees.unflatten(self.structure, leaves)

    def leaf(self, part, shape, dtype, kind):
        if isinstance(part, core.Tensor):
            part = part.reshape(shape)
            return part if dtype is None or part.dtype == dtype else core.cast(part, dtype)
        part = part.reshape(shape).astype(part.dtype if dtype is None else dtype)
        if kind is np.ndarray:
            return part
        return part[()] if kind is np.generic else part.item()

    def __repr__(self):
        return f"<unflatten of {self.bounds[-1]} numbers>"


def register(kind, flatten, unflatten):
    """Make instances of a class trees, in every transformation.

    Parameters
    ----------
    kind : type
        The class; its subclasses are not included.
    flatten : callable
        ``flatten(x) -> (children, aux)``: the trees in x, and whatever else it takes to make x
        again. ``aux`` is compared with ``==``; programs (`fastgrad.compile`) make another recording
        for another one.
    unflatten : callable
        ``unflatten(aux, children)`` returns an instance. The children are a tuple; they may be
        Tensors, None (in the gradient, for what is no number), or derivatives of other shapes (in
        a Jacobian), so it should check nothing.

    Returns
    -------
    type
        The class.

    Raises
    ------
    TypeError
        If `kind` is no class, or `flatten` or `unflatten` no function.
    ValueError
        For tuple, list, dict, numbers and arrays, which are known, and for a class that is
        registered already.

    Notes
    -----
    Namedtuples, dataclasses, and subclasses of tuple, list and dict need no registration, but may
    have one: it goes first.

    Examples
    --------
    >>> class Line:
    ...     def __init__(self, slope, offset, unit):
    ...         self.slope, self.offset, self.unit = slope, offset, unit
    >>> line = fg.trees.register(Line, lambda x: ((x.slope, x.offset), x.unit),
    ...                          lambda unit, children: Line(*children, unit))
    >>> g = fg.grad(lambda line: line.slope * 2.0 + line.offset)(Line(1.0, 0.5, "m"))
    >>> g.slope, g.offset, g.unit
    (2.0, 1.0, 'm')
    """
    if not isinstance(kind, type):
        raise TypeError(f"register: the first argument must be a class, not {trees.shown(kind)}")
    for name, function in (("flatten", flatten), ("unflatten", unflatten)):
        if not callable(function):
            raise TypeError(f"register: {name} must be a function, not {type(function).__name__}")
    if kind in trees.BUILTIN or issubclass(kind, (
            float, int, complex, str, bytes, np.ndarray, np.generic, core.Tensor)) or (
            kind is object):
        raise ValueError(f"register: {kind.__name__} has its meaning already")
    if trees.REGISTERED.setdefault(kind, pair := (flatten, unflatten)) is not pair:
        raise ValueError(f"register: {kind.__name__} is registered already")
    return kind
