"""Products of vectors, matrices and tensors, all composed of the core's matmul."""

import math
import operator

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from fastgrad._core import core

from ._create import lift
from ._dispatch import (
    FLOATING,
    VALUES,
    axes_of,
    evaluated,
    implements,
    kind_of,
    known,
    refuse,
)
from ._index import diagonals_seen
from ._shape import moveaxis, stack

__all__ = ["cross", "dot", "einsum", "inner", "kron", "outer", "tensordot", "vdot", "vecdot"]

_multiply, _subtract = core.functions["multiply"], core.functions["subtract"]


def _plain_dot(a, b, out=None):
    if core.is_sparse_matrix(a) or core.is_sparse_matrix(b):
        return a @ b                    # np.dot would make an array of objects
    return np.dot(a, b, out)


@implements(_plain_dot, np.dot)
def dot(a, b, out=None):
    """Dot product: over the last axis of `a` and the last but one of `b`. As `numpy.dot`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.dot(x, np.array([1.0, 10.0])))(np.ones(2))
    array([ 1., 10.])
    """
    refuse("dot", out)
    if core.is_sparse_matrix(a) or core.is_sparse_matrix(b):
        return _sparse_product(a, b)
    a, b = lift(a), lift(b)
    if a.ndim == 0 or b.ndim == 0:
        return _multiply(_strong(a), _strong(b))
    place = b.ndim - 2 if b.ndim > 1 else 0
    if a.shape[-1] != b.shape[place]:
        raise _misfit("dot", a, b, a.ndim - 1, place)
    if b.ndim == 1 or a.ndim == 1 or a.ndim == b.ndim == 2:
        return core.matmul(a, b)
    return tensordot(a, b, (-1, place))


def _strong(x):
    """A number of Python's as NumPy's functions take it: float32 arrays become float64 with it."""
    return core.functions["positive"](x) if isinstance(x, core.Tensor) and core.gives_way(x) else x


def _sparse_product(a, b):
    """a @ b, one of them a constant matrix of scipy.sparse."""
    if not kind_of((a, b)):
        a, b = known(a), known(b)
    if kind_of((a, b)) != FLOATING:
        return evaluated(operator.matmul, (a, b), {}) if kind_of((a, b)) else a @ b
    x = b if core.is_sparse_matrix(a) else a
    matrix, rows = (a, b) if x is b else (b.T, a.T)
    if matrix.ndim != 2 or x.ndim not in (1, 2) or matrix.shape[1] != rows.shape[0]:
        raise ValueError(f"matmul: the shapes {a.shape} and {b.shape} do not fit: a sparse matrix "
                         "is multiplied by a vector or a matrix of as many rows as it has columns")
    matrix = matrix.tocoo()
    factors = matrix.data if x.ndim == 1 else matrix.data[:, None]
    terms = _multiply(core.getitem(rows, matrix.col.astype(np.intp)), factors)
    product = core.scatter(terms, matrix.row.astype(np.intp), (matrix.shape[0], *rows.shape[1:]))
    return product if x is b else core.transpose(product)


core.use_sparse_product(_sparse_product)


def _misfit(name, a, b, axis_a, axis_b):
    """The error for two axes to be summed over that differ in length."""
    shapes = " and ".join(f"({','.join(map(str, x.shape))}{',' * (x.ndim == 1)})" for x in (a, b))
    cure = ("vectors must have the same number of entries" if a.ndim == b.ndim == 1 else
            "transpose an operand, or say which axes belong together: fnp.einsum(...)")
    return ValueError(f"{name}: shapes {shapes} not aligned: {a.shape[axis_a]} (dim {axis_a}) != "
                      f"{b.shape[axis_b]} (dim {axis_b}); {cure}")


@implements(np.inner)
def inner(a, b, /):
    """Products summed over the last axes of both. As `numpy.inner`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.inner(x, x))(np.array([1.0, 2.0]))
    array([2., 4.])
    """
    a, b = lift(a), lift(b)
    if a.ndim == 0 or b.ndim == 0:
        return _multiply(_strong(a), _strong(b))
    if a.shape[-1] != b.shape[-1]:
        raise _misfit("inner", a, b, a.ndim - 1, b.ndim - 1)
    return core.matmul(a, b) if a.ndim == b.ndim == 1 else tensordot(a, b, (-1, -1))


@implements(np.outer)
def outer(a, b, out=None):
    """All products of an entry of `a` and an entry of `b`, as a matrix. As `numpy.outer`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.outer(x, np.ones(3))))(np.ones(2))
    array([3., 3.])
    """
    refuse("outer", out)
    a, b = lift(a), lift(b)
    return _multiply(core.reshape(a, (a.size, 1)), core.reshape(b, (1, b.size)))


@implements(np.vdot)
def vdot(a, b, /):
    """Dot product of all entries, in order. As `numpy.vdot`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.vdot(x, x))(np.ones((2, 2)))
    array([[2., 2.],
           [2., 2.]])
    """
    a, b = lift(a), lift(b)
    a, b = core.reshape(a, (a.size,)), core.reshape(b, (b.size,))
    if a.size != b.size:
        raise _misfit("vdot", a, b, 0, 0)
    return core.matmul(a, b)


@implements(np.vecdot)
def vecdot(x1, x2, /, out=None, *, axis=-1, keepdims=False):
    """Dot products along an axis, the other axes broadcast. As `numpy.vecdot`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.vecdot(x, np.array([1.0, 2.0]))))(np.ones((2, 2)))
    array([[1., 2.],
           [1., 2.]])
    """
    refuse("vecdot", out)
    x1, x2 = lift(x1), lift(x2)
    if axis != -1:
        (axis1,), (axis2,) = axes_of("vecdot", axis, x1.ndim), axes_of("vecdot", axis, x2.ndim)
        x1, x2 = moveaxis(x1, axis1, -1), moveaxis(x2, axis2, -1)
    if x1.ndim == 0 or x2.ndim == 0 or x1.shape[-1] != x2.shape[-1]:
        raise ValueError(f"vecdot: the shapes {x1.shape} and {x2.shape} differ in the length of "
                         "the axis to be summed over")
    result = core.matmul(core.reshape(x1, (*x1.shape[:-1], 1, x1.shape[-1])),
                         core.reshape(x2, (*x2.shape, 1)))
    result = core.reshape(result, result.shape[:-2])
    return moveaxis(core.reshape(result, (*result.shape, 1)), -1, axis) if keepdims else result


@implements(np.tensordot)
def tensordot(a, b, axes=2):
    """Products summed over several axes. As `numpy.tensordot`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.tensordot(x, np.array([[1.0, 2.0], [3.0, 4.0]])))(np.ones((2, 2)))
    array([[1., 2.],
           [3., 4.]])
    """
    if np.iterable(axes):
        axes_a, axes_b = ([k] if np.ndim(k) == 0 else list(k) for k in axes)
    else:
        axes_a, axes_b = list(range(-axes, 0)), list(range(axes))
    for names in (axes_a, axes_b):
        if len(set(names)) != len(names):
            raise ValueError("tensordot: duplicate axes are not allowed")
    a, b = lift(a), lift(b)
    axes_a = [normalize_axis_index(k, a.ndim, "tensordot") for k in axes_a]
    axes_b = [normalize_axis_index(k, b.ndim, "tensordot") for k in axes_b]
    lengths_a, lengths_b = [a.shape[k] for k in axes_a], [b.shape[k] for k in axes_b]
    if lengths_a != lengths_b:
        raise ValueError(f"tensordot: shape-mismatch for sum: axes {axes_a} of the shape {a.shape} "
                         f"have the lengths {lengths_a}, axes {axes_b} of {b.shape} have "
                         f"{lengths_b}; pass axes=(axes of a, axes of b)")
    left = [k for k in range(a.ndim) if k not in axes_a]
    right = [k for k in range(b.ndim) if k not in axes_b]
    rows, columns = [a.shape[k] for k in left], [b.shape[k] for k in right]
    summed = math.prod(lengths_a)
    product = core.matmul(
        core.reshape(core.transpose(a, left + axes_a), (math.prod(rows), summed)),
        core.reshape(core.transpose(b, axes_b + right), (summed, math.prod(columns))))
    return core.reshape(product, rows + columns)


@implements(np.kron)
def kron(a, b):
    """Kronecker product. As `numpy.kron`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.sum(fnp.kron(x, np.array([1.0, 2.0]))))(np.ones(2))
    array([3., 3.])
    """
    a, b = lift(a), lift(b)
    rank = max(a.ndim, b.ndim)
    lengths_a = [1] * (rank - a.ndim) + list(a.shape)
    lengths_b = [1] * (rank - b.ndim) + list(b.shape)
    product = _multiply(core.reshape(a, [n for length in lengths_a for n in (length, 1)]),
                        core.reshape(b, [n for length in lengths_b for n in (1, length)]))
    return core.reshape(product, [m * n for m, n in zip(lengths_a, lengths_b, strict=True)])


@implements(np.cross)
def cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None):
    """Vector product of vectors with three components. As `numpy.cross`.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.cross(x, np.array([0.0, 0.0, 1.0]))[0])(np.ones(3))
    array([0., 1., 0.])
    """
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = lift(a), lift(b)
    if a.ndim < 1 or b.ndim < 1:
        raise ValueError(f"cross: at least one of the shapes {a.shape} and {b.shape} has no axis")
    axisa = normalize_axis_index(axisa, a.ndim, "cross")
    axisb = normalize_axis_index(axisb, b.ndim, "cross")
    a, b = moveaxis(a, axisa, -1), moveaxis(b, axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ValueError(f"cross: incompatible dimensions, {a.shape[-1]} and {b.shape[-1]}: "
                         "vectors must have 3 components; put a zero in place of a missing one")
    a0, a1, a2 = (core.getitem(a, (..., k)) for k in range(3))
    b0, b1, b2 = (core.getitem(b, (..., k)) for k in range(3))
    components = [_subtract(_multiply(a1, b2), _multiply(a2, b1)),
                  _subtract(_multiply(a2, b0), _multiply(a0, b2)),
                  _subtract(_multiply(a0, b1), _multiply(a1, b0))]
    return stack(components, normalize_axis_index(axisc, components[0].ndim + 1, "cross"))


# ---- einsum ---------------------------------------------------------------------------------

@implements(np.einsum, views=True)
def einsum(*operands, out=None, optimize=False, **kwargs):
    """Sums of products, written with one letter for an axis. As `numpy.einsum`.

    Operands are contracted in pairs by `matmul`: from left to right, or, with `optimize`, in the
    order of `numpy.einsum_path`.

    Parameters
    ----------
    subscripts : str
        Such as "ij,jk->ik"; "..." stands for axes that broadcast.
    *operands : Tensor or array_like
    optimize : bool or str, optional
        As in NumPy.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If subscripts and operands do not fit.
    TypeError
        For out= and for the form with lists of integers in place of letters.

    Examples
    --------
    >>> fg.grad(lambda x: fnp.einsum("ij,j->", x, np.array([1.0, 2.0])))(np.ones((2, 2)))
    array([[1., 2.],
           [1., 2.]])
    """
    if kind_of(operands) == VALUES and out is None and not _moves(operands):
        return evaluated(np.einsum, operands, {"optimize": optimize, **kwargs})
    refuse("einsum", out, **{name: kwargs[name] for name in kwargs if name != "casting"
                             and not (name == "order" and kwargs[name] in "KC")})
    subscripts, *operands = operands
    if not isinstance(subscripts, str):
        raise TypeError("einsum: write the subscripts as letters, \"ij,jk->ik\"; lists of integers "
                        "are not supported with Tensors")
    operands = [lift(a) for a in operands]
    labels, result = _labels(subscripts, operands)
    if len(operands) == 1 and set(labels[0]) == set(result):
        a, names = _simplified(*operands, labels[0])
        return core.transpose(a, [names.index(name) for name in result])    # a view
    parts = [_simplified(a, names) for a, names in zip(operands, labels, strict=True)]
    parts = _without_broadcasting(parts)

    if optimize is not False and len(parts) > 2:
        path = np.einsum_path(subscripts, *(np.empty(a.shape) for a in operands),
                              optimize=optimize)[0][1:]
    else:
        path = [(0, 1)] + [(0, len(parts) - k) for k in range(2, len(parts))]
        path = path[:len(parts) - 1]
    for pair in path:
        chosen = [parts.pop(k) for k in sorted(pair, reverse=True)][::-1]
        while len(chosen) > 1:
            needed = set(result).union(*(names for _, names in parts + chosen[2:]))
            chosen[:2] = [_contracted(*chosen[0], *chosen[1], needed)]
        parts.append(chosen[0])
    (a, names), = parts
    a, names = _summed(a, names, set(result))
    return core.transpose(a, [names.index(name) for name in result])


def _moves(operands):
    """Whether the result is a view: of one operand, no axis of which is summed over."""
    if len(operands) != 2 or not isinstance(operands[0], str):
        return False
    (names,), result = _labels(operands[0], [lift(operands[1])])
    return set(names) == set(result)


def _labels(subscripts, operands):
    """Labels of each operand's axes and of the result's; numbers for those behind "..."."""
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = inputs.split(",")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum: {subscripts!r} describes {len(inputs)} operands, "
                         f"{len(operands)} are given")
    labels = []
    for term, a in zip(inputs, operands, strict=True):
        named = term.replace("...", "", 1)
        if not named.isalpha() and named:
            raise ValueError(f"einsum: {term!r} in {subscripts!r} may only hold letters and ...")
        extra = a.ndim - len(named)
        if extra < 0 or (extra and named == term):
            raise ValueError(f"einsum: {term!r} in {subscripts!r} does not fit an operand of the "
                             f"shape {a.shape}")
        front = term.find("...") if named != term else 0
        labels.append([*term[:front], *range(-extra, 0), *named[front:]])
    used = [name for names in labels for name in names]
    ellipsis = sorted({name for name in used if isinstance(name, int)})
    if not arrow:
        letters = [name for name in used if isinstance(name, str)]
        result = ellipsis + sorted(name for name in set(letters) if letters.count(name) == 1)
    else:
        front, dots, back = output.partition("...")
        result = [*front, *(ellipsis if dots else ()), *back]
        if ellipsis and not dots:
            raise ValueError(f"einsum: {subscripts!r} has ... on the left only")
    if len(set(result)) != len(result) or not set(result) <= set(used):
        raise ValueError(f"einsum: every label of the result of {subscripts!r} must stand in it "
                         "once, and in an operand")
    return labels, result


def _simplified(a, names):
    """The diagonal in place of axes with the same label."""
    names = list(names)
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            if a.shape[first] != a.shape[second]:
                raise ValueError(f"einsum: axes of the lengths {a.shape[first]} and "
                                 f"{a.shape[second]} share the label {name!r}")
            a = moveaxis(a, (first, second), (-2, -1))
            names = [other for k, other in enumerate(names) if k not in (first, second)] + [name]
            a = diagonals_seen(a)
    return a, names


def _without_broadcasting(parts):
    """Without the axes of length 1 that broadcast against longer ones."""
    lengths = {}
    for a, names in parts:
        for name, length in zip(names, a.shape, strict=True):
            known = lengths.setdefault(name, length)
            if length != known and 1 not in (length, known):
                raise ValueError(f"einsum: the label {name!r} stands for axes of the lengths "
                                 f"{known} and {length}")
            if known == 1:
                lengths[name] = length
    simplified = []
    for a, names in parts:
        kept = [k for k, name in enumerate(names) if a.shape[k] == lengths[name]]
        simplified.append((core.reshape(a, [a.shape[k] for k in kept]) if len(kept) < a.ndim else a,
                           [names[k] for k in kept]))
    return simplified


def _summed(a, names, needed):
    """Summed over the axes whose labels nobody needs."""
    axes = tuple(k for k, name in enumerate(names) if name not in needed)
    if not axes:
        return a, names
    return core.sum(a, axis=axes), [name for name in names if name in needed]


def _contracted(a, names_a, b, names_b, needed):
    """The product of two operands, summed over the labels that nobody else needs."""
    a, names_a = _summed(a, names_a, needed | set(names_b))
    b, names_b = _summed(b, names_b, needed | set(names_a))
    shared = [name for name in names_a if name in names_b]
    batch = [name for name in shared if name in needed]
    inside = [name for name in shared if name not in needed]
    rows = [name for name in names_a if name not in names_b]
    columns = [name for name in names_b if name not in names_a]
    length = dict(zip(names_a + names_b, a.shape + b.shape, strict=True))

    def arranged(x, names, *groups):
        """Axes in the order of the groups; the axes of the last two groups joined to one each."""
        order = [name for group in groups for name in group]
        x = core.transpose(x, [names.index(name) for name in order])
        return core.reshape(x, [length[name] for name in groups[0]]
                            + [math.prod(length[name] for name in group) for group in groups[1:]])

    if inside:
        product = core.matmul(arranged(a, names_a, batch, rows, inside),
                              arranged(b, names_b, batch, inside, columns))
    else:
        product = _multiply(arranged(a, names_a, batch, rows, ()),
                            arranged(b, names_b, batch, (), columns))
    names = batch + rows + columns
    return core.reshape(product, [length[name] for name in names]), names
