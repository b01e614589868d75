"""Whole Jacobians and Hessians, dense ones block by block, and what is made of their entries."""

import itertools
import math

import numpy as np

from fastgrad._core import core
from fastgrad._core.arguments import no_parameters
from fastgrad._run import (
    Run,
    chunk_given,
    function_given,
    numbers_of,
    one_of,
    positions_of,
    selected,
)

from .derivatives import Derivative, jvp_of, named, of_programs

__all__ = ["blocks_of", "hessian", "hessian_diag", "hvp", "jacobian", "laplacian"]


@of_programs
@named
def jacobian(f, argnums=0, has_aux=False, *, mode="auto", layout="numerator", chunk=None,
             sparse=False, argnames=None):
    """The Jacobian of a function: every output by every input.

    Parameters
    ----------
    f : callable
        Takes and returns floats, arrays and trees of them.
    argnums : int or tuple of int
        The positional arguments to differentiate with respect to.
    has_aux : bool
        Whether f returns ``(value, aux)``.
    mode : {"auto", "forward", "reverse"}
        Forward takes a tangent for each input, many in one sweep; reverse a sweep for each output.
        "auto" compares their numbers.
    layout : {"numerator", "denominator"}
        In numerator layout the shape is ``out.shape + in.shape``, so that the chain rule reads
        from left to right, (m,n) = (m,k)(k,n); in denominator layout ``in.shape + out.shape``.
    chunk : int, optional
        At most so many tangents (or gradients) at a time: bounds memory.
    sparse : bool
        Find out which entries can differ from zero, compress the columns by a colouring, and
        return a `scipy.sparse.csr_array` of shape ``(out.size, in.size)`` (extra ``scipy``), for
        one argument and one result.
    argnames : str or tuple of str, optional
        The arguments by name instead of by number.

    Returns
    -------
    callable
        With the signature of f. Returns the Jacobian, in the dtype of the argument (a float where
        argument and result are floats); for trees a tree like the result, whose leaves are trees
        like the argument. With a tuple of `argnums` these are tuples. ``(jacobian, aux)`` with
        `has_aux`.

    Raises
    ------
    ValueError
        For a mode or layout that does not exist, and a chunk that is no positive int.
    TypeError
        When called with arguments that have no derivative, or if f returns no numbers.

    Examples
    --------
    >>> f = lambda v: fnp.array([3 * v[0] ** 2 * v[1], 2 * v[0] + v[1] ** 8])
    >>> fg.jacobian(f)(np.array([2.0, 1.0]))
    array([[12., 12.],
           [ 2.,  8.]])
    >>> fg.jacobian(f, layout="denominator")(np.array([2.0, 1.0]))
    array([[12.,  2.],
           [12.,  8.]])

    A product of maps has the product of their Jacobians:

    >>> g = lambda x: fnp.array([x[0] * x[1], x[1] + x[2]])     # R^3 -> R^2
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> J = fg.jacobian(lambda x: f(g(x)))(x)
    >>> J.shape, np.allclose(J, fg.jacobian(f)(g(x)) @ fg.jacobian(g)(x))  # (2,3) = (2,2)(2,3)
    ((2, 3), True)
    """
    name = "jacobian"
    function_given(name, f)
    numbers = numbers_of(name, argnums)
    one_of(name, "mode", mode, ("auto", "forward", "reverse"))
    one_of(name, "layout", layout, ("numerator", "denominator"))
    chunk_given(name, chunk)
    options = {"mode": mode, "layout": layout, "chunk": chunk, "sparse": sparse}
    if sparse:
        from . import sparse as sparse_derivatives
        derivative = sparse_derivatives.jacobian(f, numbers, has_aux, layout, chunk)
        return Derivative(jacobian, f, derivative, (argnums, has_aux), **options)

    def derivative(*args, **kwargs):
        run = Run(name, f, args, kwargs, numbers, has_aux)
        run.warn()
        found = _tree_of(run, numbers, blocks_of(run, mode, chunk), layout)
        return (found, run.aux) if has_aux else found

    return Derivative(jacobian, f, derivative, (argnums, has_aux), **options)


def _tree_of(run, argnums, blocks, layout="numerator"):
    """Blocks of a Jacobian as a tree like the result of trees like the arguments."""
    rows = []
    for row, out in zip(blocks, run.trace.shapes):
        row = [_kind(_turned(block, len(out)) if layout == "denominator" else block, leaf)
               for block, leaf in zip(row, run.leaves)]
        rows.append(selected(argnums, run.like_inputs(row)))
    return run.like_result(rows)


def _turned(block, rank):
    """From ``out.shape + in.shape`` to ``in.shape + out.shape``, in C order."""
    block = block.transpose([*range(rank, block.ndim), *range(rank)])
    return block if isinstance(block, core.Tensor) else block.copy(order="C")


def _kind(block, leaf):
    """A derivative by `leaf` as a Tensor if that is one, a float or NumPy scalar if both are."""
    if core.nested():
        return block
    if isinstance(leaf, core.Tensor):
        return block if isinstance(block, core.Tensor) else core.constant(block)
    block = core.settled(block)
    if isinstance(leaf, np.ndarray) or np.ndim(block):
        return np.asarray(block)
    return float(block) if type(leaf) is float else block[()]


def blocks_of(run, mode, chunk):
    """The Jacobian of each result by each argument, ``out.shape + in.shape``, in the dtype of the
    argument."""
    trace = run.trace
    inputs, outputs = trace.input_shapes, trace.shapes
    n, m = sum(map(math.prod, inputs)), sum(map(math.prod, outputs))
    if mode == "auto":
        mode = "forward" if n <= m else "reverse"
    if run.recorded():
        if mode == "reverse" or not core.recording_program() and trace.results_finite():
            return _blocks_recorded(trace, mode)
        ways = [_blocks_recorded(trace, way) for way in ("forward", "reverse")]
        return [[trace.rows(k, *both) if trace.differentiable(k) else both[0]
                 for both in zip(*rows)] for k, rows in enumerate(zip(*ways))]
    if mode == "reverse":
        return _blocks_reverse(trace)
    blocks = _blocks_forward(trace, n, m, chunk)
    for k, i, gradients in _rows_not_finite(trace):
        for block, gradient in zip(blocks[k], gradients):
            block.reshape((math.prod(trace.shapes[k]), -1))[i] = np.ravel(gradient)
    return blocks


def _blocks_forward(trace, n, m, chunk):
    inputs, outputs, dtypes = trace.input_shapes, trace.shapes, trace.input_dtypes
    sizes = [math.prod(shape) for shape in inputs]
    starts = [0, *itertools.accumulate(sizes)]
    # 64 MB for the tangents of a result or an argument, unless told otherwise.
    chunk = chunk or min(512, max(1, 8_000_000 // max(n, m, 1)))
    columns = [None] * len(outputs)
    for at in range(0, n, chunk):
        lanes = min(chunk, n - at)
        seeds = [_identity(start - at, size, lanes, shape, dtype) for start, size, shape, dtype
                 in zip(starts, sizes, inputs, dtypes)]
        for k, part in enumerate(trace.push_lanes(seeds, lanes)):
            if part is None:
                continue
            if columns[k] is None:
                columns[k] = np.empty((math.prod(outputs[k]), n), dtype=part.dtype)
            columns[k][:, at:at + lanes] = part.reshape(lanes, -1).T
    return [[np.ascontiguousarray(column[:, start:start + size], dtype).reshape(out + shape)
             if column is not None else np.zeros(out + shape, dtype)
             for start, size, shape, dtype in zip(starts, sizes, inputs, dtypes)]
            for column, out in zip(columns, outputs)]


def _rows_not_finite(trace):
    """Rows of the Jacobian, by reverse sweeps, where a result is not finite: a zero among the
    tangents may be an underflow, and those of a unit vector are none. Yields the result, the entry
    and the derivatives by each argument."""
    if trace.results_finite():
        return
    shapes = trace.shapes
    for k, y in enumerate(trace.plain()):
        if not trace.differentiable(k):
            continue
        for i in np.flatnonzero(~np.isfinite(np.ravel(core.settled(y)))).tolist():
            cotangents = [None] * len(shapes)
            cotangents[k] = np.zeros(shapes[k])
            cotangents[k].reshape(-1)[i] = 1
            yield k, i, trace.pull(cotangents)


def _identity(start, size, lanes, shape, dtype):
    """Row l is the unit vector number l - start; None where all rows are zero."""
    if start >= lanes or start + size <= 0:
        return None
    seeds = np.zeros((lanes, size), dtype=dtype)
    rows = np.arange(max(start, 0), min(start + size, lanes))
    seeds[rows, rows - start] = 1
    return seeds.reshape((lanes, *shape))


def _blocks_reverse(trace):
    inputs, outputs, dtypes = trace.input_shapes, trace.shapes, trace.input_dtypes
    blocks = []
    for k, out in enumerate(outputs):
        size = math.prod(out)
        rows = [np.zeros((size, *shape), dtype=dtype) for shape, dtype in zip(inputs, dtypes)]
        if trace.differentiable(k):
            seed = np.zeros(size)
            cotangents = [None] * len(outputs)
            cotangents[k] = seed.reshape(out)
            for i in range(size):
                seed[i] = 1
                for row, gradient in zip(rows, trace.pull(cotangents)):
                    row[i] = gradient
                seed[i] = 0
        blocks.append([row.reshape(out + row.shape[1:]) for row in rows])
    return blocks


def _blocks_recorded(trace, mode):
    """The same as Tensors, to be differentiated in their turn."""
    inputs, outputs, dtypes = trace.input_shapes, trace.shapes, trace.input_dtypes
    columns = [[[] for _ in inputs] for _ in outputs]
    forward = mode == "forward"
    sweep, seeded = (trace.columns, inputs) if forward else (trace.pull, outputs)
    for k, shape in enumerate(seeded):
        for seed in _units(shape, dtypes[k] if forward else float):
            vectors = [None] * len(seeded)
            vectors[k] = seed
            for j, part in enumerate(sweep(vectors)):
                if part is None:
                    part = core.vouch(np.zeros(outputs[j]))
                (columns[j][k] if forward else columns[k][j]).append(part)
    return [[_block(parts, -1 if forward else 0, out + shape, dtype)
             for parts, shape, dtype in zip(row, inputs, dtypes)]
            for row, out in zip(columns, outputs)]


def _block(parts, axis, shape, dtype):
    """Rows or columns put together; a single number stays what it is."""
    from fastgrad import numpy as fnp
    if not parts:
        return core.constant(np.zeros(shape, dtype))
    block = fnp.stack(parts, axis=axis).reshape(shape) if shape else parts[0]
    if not isinstance(block, core.Tensor):
        block = core.constant(block)
    return block if block.dtype == dtype else core.cast(block, dtype)


def _units(shape, dtype):
    """The arrays of that shape with a single one, each of its own memory."""
    for i in range(math.prod(shape)):
        seed = np.zeros(shape, dtype)
        seed.reshape(-1)[i] = 1
        yield seed


@of_programs
@named
def hessian(f, argnums=0, has_aux=False, *, chunk=None, sparse=False, argnames=None):
    """The matrix of second derivatives of a function that returns one number.

    Forward over reverse: the gradient is recorded once, then differentiated along many directions
    in one sweep.

    Parameters
    ----------
    f : callable
        Returns one number; takes floats, arrays and trees of them.
    argnums, has_aux, chunk, sparse, argnames
        As in `jacobian`; with `sparse` the colouring makes use of the symmetry (star colouring).

    Returns
    -------
    callable
        With the signature of f. Returns an array of shape ``x.shape + x.shape``, exactly
        symmetric; for trees a tree of trees.

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jacobian`.

    Examples
    --------
    >>> fg.hessian(lambda x: x[0] ** 3 * x[1])(np.array([1.0, 2.0]))
    array([[12.,  3.],
           [ 3.,  0.]])
    """
    if sparse:
        from . import sparse as sparse_derivatives
        gradient, numbers = _gradient("hessian", f, argnums, has_aux)
        chunk_given("hessian", chunk)
        derivative = sparse_derivatives.hessian(gradient, numbers, has_aux, chunk)
        return Derivative(hessian, f, derivative, (argnums, has_aux), chunk=chunk, sparse=True)

    def matrix(run, numbers):
        blocks = blocks_of(run, "forward", chunk)
        if not run.recorded():
            _symmetrise(blocks, run.trace.input_shapes)
        return _tree_of(run, numbers, blocks)

    return _second_order(hessian, f, argnums, has_aux, chunk, matrix)


def _gradient(name, f, argnums, has_aux, value=False):
    """The gradient that a transformation of second order differentiates, and argnums."""
    numbers = numbers_of(name, argnums)
    return core.differentiated(function_given(name, f), numbers, has_aux, value, name, 1), numbers


def _second_order(transformation, f, argnums, has_aux, chunk, answer):
    """The Derivative whose calls return what `answer` makes of a run of the gradient."""
    name = transformation.__name__
    gradient, numbers = _gradient(name, f, argnums, has_aux)
    chunk_given(name, chunk)

    def derivative(*args, **kwargs):
        run = Run(name, gradient, args, kwargs, numbers, has_aux, None, True)
        found = answer(run, numbers)
        return (found, run.aux) if has_aux else found

    return Derivative(transformation, f, derivative, (argnums, has_aux), chunk=chunk)


@of_programs
@named
def hessian_diag(f, argnums=0, has_aux=False, *, chunk=None, argnames=None):
    """The second derivatives of a function by each of its inputs: the diagonal of its Hessian.

    Exact, for about the price of the Hessian: the gradient is recorded once, then differentiated
    along each input, many in one sweep; only memory is saved.

    Parameters
    ----------
    f : callable
        Returns one number; takes floats, arrays and trees of them.
    argnums, has_aux, chunk, argnames
        As in `jacobian`.

    Returns
    -------
    callable
        With the signature of f. Returns what `grad` does: the structure, shapes, dtypes and kinds
        of the argument.

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jacobian`.

    Examples
    --------
    >>> fg.hessian_diag(lambda x: x[0] ** 3 * x[1])(np.array([1.0, 2.0]))
    array([12.,  0.])
    """
    def diagonal(run, numbers):
        parts = map(_kind, _diagonals(run, chunk), run.leaves)
        return selected(numbers, run.like_inputs(list(parts)))

    return _second_order(hessian_diag, f, argnums, has_aux, chunk, diagonal)


def _diagonals(run, chunk):
    """The diagonal of a square Jacobian, an array for each argument, without all of it at once;
    Tensors where they are differentiated in their turn."""
    trace = run.trace
    inputs, dtypes, found = trace.input_shapes, trace.input_dtypes, []
    if run.recorded():
        from fastgrad import numpy as fnp
        blocks = [row[k] for k, row in enumerate(blocks_of(run, "forward", chunk))]
        return [fnp.diagonal(block.reshape((math.prod(shape),) * 2)).reshape(shape) if shape
                else block for block, shape in zip(blocks, inputs)]
    for k, (shape, dtype) in enumerate(zip(inputs, dtypes)):
        size = math.prod(shape)
        diagonal = np.zeros(size, dtype)
        step = chunk or min(512, max(1, 8_000_000 // max(size, 1)))
        for at in range(0, size, step):
            lanes = min(step, size - at)
            seeds = [None] * len(inputs)
            seeds[k] = _identity(-at, size, lanes, shape, dtype)
            part = trace.push_lanes(seeds, lanes)[k]
            if part is not None:
                diagonal[at:at + lanes] = np.diagonal(part.reshape(lanes, size), at)
        found.append(diagonal.reshape(shape))
    for k, i, gradients in _rows_not_finite(trace):
        found[k].reshape(-1)[i] = np.ravel(gradients[k])[i]
    return found


def _symmetrise(blocks, shapes):
    """The upper triangle becomes the lower one: they differ by rounding."""
    for i, row in enumerate(blocks):
        for j in range(i):
            _put_finite(blocks[j][i], _turned(row[j], len(shapes[i])))
        size = math.prod(shapes[i])
        matrix = np.asarray(row[i]).reshape(size, size)
        _put_finite(matrix, np.where(np.tri(size, dtype=bool), matrix, matrix.T))


def _put_finite(block, other):
    """Write what is finite in both: rows of results that are not are what reverse sweeps gave."""
    np.copyto(block, other, where=np.isfinite(block) & np.isfinite(other))


@of_programs
@named(behind=1)
def hvp(f, argnums=0, has_aux=False, *, value=False, argnames=None):
    """Products of the Hessian of a function with a vector, without the Hessian.

    Forward over reverse: the gradient is differentiated along the vector, for about three times
    the price of the gradient.

    Parameters
    ----------
    f, argnums, has_aux, argnames
        As in `grad`.
    value : bool
        Whether to return the value and the gradient as well, from the same run.

    Returns
    -------
    callable
        Takes the arguments of f and, after them, the vector, built like the argument (a tuple of
        these with a tuple of `argnums` or `argnames`); returns the product, built alike, or
        ``(value, gradient, product)``; with `has_aux` aux comes last.

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jvp`.

    Examples
    --------
    >>> fg.hvp(lambda x: x[0] ** 3 * x[1])(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    array([12.,  3.])
    >>> fg.hvp(lambda x: x ** 3, value=True)(2.0, 1.0)
    (8.0, 12.0, 12.0)
    """
    name = "hvp"
    gradient, numbers = _gradient(name, f, argnums, has_aux, value)
    run = gradient

    if value and has_aux:
        def run(*args, **kwargs):
            (y, aux), slope = gradient(*args, **kwargs)
            return (y, slope), aux

    def product(*args, **kwargs):
        if len(args) < 2 and not (args and (numbers == () or no_parameters(f))):
            raise TypeError("hvp: call it with the arguments of the function and then the vector")
        *args, v = args
        positions = positions_of(name, numbers, len(args), f)
        tangents = v if isinstance(numbers, tuple) or not positions else (v,)
        if type(tangents) is not tuple and type(tangents) is not list:
            raise TypeError(f"hvp: with argnums={argnums!r} the vector is a tuple, not "
                            f"{type(v).__name__}")
        moving = None if len(args) == len(tangents) == 1 else numbers
        found, slope, *aux = jvp_of(name, run, args, tangents, moving, has_aux, kwargs, warn=False)
        answer = (*found, slope[1], *aux) if value else (slope, *aux)
        return answer if len(answer) > 1 else slope

    return Derivative(hvp, f, product, (argnums, has_aux), value=value)


@of_programs
@named
def laplacian(f, argnums=0, has_aux=False, *, chunk=None, argnames=None):
    """The sum of the second derivatives of a function by each of its inputs.

    Parameters
    ----------
    f : callable
        Returns one number.
    argnums, has_aux, argnames
        As in `grad`.
    chunk : int, optional
        At most so many directions at a time: bounds memory.

    Returns
    -------
    callable
        With the signature of f; returns a number, the trace of the Hessian, in the dtype of the
        arguments (a float if they are floats).

    Raises
    ------
    TypeError, ValueError
        As `grad` and `jacobian`.

    Examples
    --------
    >>> fg.laplacian(lambda x, y: x ** 3 + x * y ** 2, argnums=(0, 1))(1.0, 2.0)
    8.0
    >>> fg.laplacian(lambda x: np.sum(x ** 3))(np.array([1.0, 2.0]))
    np.float64(18.0)
    """
    def total(run, numbers):
        parts = _diagonals(run, chunk)
        if run.recorded():
            return sum([part.sum() for part in parts], 0.0)
        found = sum([float(np.sum(part)) for part in parts], 0.0)
        if any(type(leaf) is not float for leaf in run.leaves):
            found = np.result_type(*run.trace.input_dtypes).type(found)
        return core.constant(found) if any(
            isinstance(leaf, core.Tensor) for leaf in run.leaves) else found

    return _second_order(laplacian, f, argnums, has_aux, chunk, total)
