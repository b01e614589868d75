"""Sparse Jacobians and Hessians: ``fg.jacobian(f, sparse=True)``, ``fg.hessian(f, sparse=True)``.

In three steps, of which the first two are done once for graphs of the same structure:

1. `pattern`: which inputs each output depends on, read off the recorded graph;
2. `_Plan`: columns (or rows) that share no row (or column) are coloured alike, so that one sweep
   computes all columns of a colour (Curtis, Powell and Reid 1974; survey: Gebremedhin, Manne and
   Pothen 2005, "What color is your Jacobian?");
3. `_Plan.values`: a sweep for each colour, and every entry read off its result.

Nothing here looks at numbers, so a pattern holds wherever the structure of the graph is the same;
what depends on numbers (branches, masks used as an index) changes the structure.
"""

import copy
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np

from fastgrad._core import core
from fastgrad._operators.shaped import SHAPED
from fastgrad._run import Run
from fastgrad.graphs.walk import Meaning, walk

PULL = 1.5              # what a reverse sweep costs, in forward ones
LANE_SIZE = 256         # larger arrays go through the forward sweep faster one at a time
LANES = 64
PLANS = 8               # structures that a function's derivative remembers


# ---- what the transformations call ----------------------------------------------------------

def jacobian(f, argnums, has_aux, layout, chunk):
    """`fastgrad.jacobian` with ``sparse=True``."""
    return _derivative("jacobian", f, argnums, has_aux, chunk, _plan_jacobian,
                       transposed=layout == "denominator")


def hessian(gradient, argnums, has_aux, chunk):
    """`fastgrad.hessian` with ``sparse=True``, from the gradient."""
    return _derivative("hessian", gradient, argnums, has_aux, chunk, _plan_hessian)


def _derivative(name, f, argnums, has_aux, chunk, plan_for, transposed=False):
    if isinstance(argnums, tuple):
        raise TypeError(f"{name}: sparse=True is for one argument, and argnums={argnums!r} is a "
                        f"tuple; write argnums={argnums[0] if argnums else 0!r}")
    csr_array = _csr_array(name)
    plans = {}

    @functools.wraps(f)
    def derivative(*args, **kwargs):
        if core.nested():
            raise TypeError(f"{name}: sparse=True inside another transformation: a sparse matrix "
                            f"cannot be differentiated; leave sparse=True away there")
        run = Run(name, f, args, kwargs, argnums, has_aux)
        if name == "jacobian":          # the gradient that hessian brings warns itself
            run.warn()
        if run.returned is not None or run.structures != [None]:
            raise TypeError(f"{name}: sparse=True is for one array (or float) as the argument and "
                            "one as the result, not trees of them; join them with "
                            "fastgrad.numpy.concatenate, or leave sparse=True away")
        key = core.fingerprint(run.trace)
        plan = plans.pop(key, None)
        if plan is None:
            plan = plan_for(pattern(run.trace), chunk)
            if transposed:
                plan.transpose()
            for old in list(plans)[:max(len(plans) - PLANS + 1, 0)]:
                plans.pop(old, None)        # list() is one step, and other threads pop, too
        plans[key] = plan               # the one used last stands last
        matrix = plan.matrix(csr_array, run.trace)
        return (matrix, run.aux) if has_aux else matrix

    derivative.plans = plans
    return derivative


def _csr_array(name):
    try:
        from scipy.sparse import csr_array
    except ImportError:
        raise ImportError(f"{name}: sparse=True returns a SciPy matrix, and SciPy is not "
                          "installed: pip install fastgrad[scipy]") from None
    return csr_array


# ---- the pattern ----------------------------------------------------------------------------

class Pattern(NamedTuple):
    """Where a matrix may have entries: as in scipy's csr format, columns ascending."""
    starts: np.ndarray          # int64
    columns: np.ndarray         # int32
    shape: tuple

    @property
    def rows(self):
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.starts))

    def transposed(self):
        """The pattern of the transposed matrix, and which entry each of its entries was."""
        starts, columns, places = core.transposed_rows(self.starts, self.columns, self.shape[1])
        return Pattern(starts, columns, self.shape[::-1]), places

    def where(self, keep):
        """The entries for which a mask is true."""
        counts = np.concatenate(([0], np.cumsum(keep)))
        return Pattern(counts[self.starts], self.columns[keep], self.shape)


def pattern(trace):
    """Which entries of the one argument each entry of the one result may depend on, in a run that
    has ended: a Pattern of shape (result.size, argument.size).

    It is never too small, and exact up to numbers that happen to be zero, but for rules of the
    user's, of which all results count as depending on all operands. (A constant matrix that is half
    zero counts by its entries.)
    """
    nodes, outputs = trace.nodes()
    n, m = math.prod(trace.input_shapes[0]), math.prod(trace.shapes[0])
    dependences = _Dependences(n)
    dependence = dependences.run(nodes, outputs[0]) if n and outputs[0] is not None else None
    starts, ids = dependences.rows(dependence, m, trace.shapes[0])
    starts, columns = dependences.expand(starts, ids)
    unordered = Pattern(starts, columns, (m, n))
    return unordered.transposed()[0].transposed()[0]


# A dependence says on what each entry of a node depends. It is one of
#   None: nothing depends on the input;
#   a frozenset of ids: every entry depends on all of these (scalars have no other kind);
#   a list of int32 arrays of the node's shape, ids, -1 being none: an entry depends on what stands
#       at its place in each of them. They are views as long as views will do;
#   a _Patched array, for one that is filled entry by entry.
# Ids below n are entries of the input. The others are hubs, each standing for a row of ids: a sum
# over a long axis depends on one hub, and so does all that is computed from it.

_SHORT = 16             # rows up to this length stay arrays, longer ones become hubs
_FEW = 8                # arrays that a dependence may have without being tidied up


class _Dependences(Meaning):
    """The dependences of the nodes of a graph."""

    def __init__(self, n):
        self.n = n
        self.used = 0                   # ids
        self.hubs = []                  # rows, as (lengths, ids)
        self.inputs = self._new_ids(n)

    def run(self, nodes, result):
        """The dependence of one node."""
        self.nodes = nodes
        shape = nodes[0].shape
        leaf = [self.inputs.reshape(shape)] if shape else frozenset((0,))
        return walk(nodes, [leaf], self, [result])[0]

    def operation(self, node, operands):
        if all(d is None for d in operands):
            return None
        row, index = SHAPED.get(node.op), node.attribute
        if row is not None and row.index in ("read", "replaced") and type(index) is tuple and len(
                index) == len(self._shapes(node)[0] if row.index == "read" else node.shape) and all(
                type(i) is int for i in index):
            if row.index == "replaced":
                return self._patched(node, operands)
            if type(operands[0]) is _Patched:
                return self._limited(operands[0].at(index))
        operands = [d.arrays(self) or None if type(d) is _Patched else d for d in operands]
        if all(d is None for d in operands):
            return None
        dependence = super().operation(node, operands)
        if node.shape == () and type(dependence) is list:
            dependence = _ids_of(dependence)
        return dependence or None

    def constant(self, node):
        return None

    def elementwise(self, node, operands):
        return self._union([d for d, none in zip(operands, _zero_partials(node.op)) if not none],
                           node.shape)

    def custom(self, node, operands):
        """A rule of the user's: each entry depends on all."""
        ids = [_ids_of(self.arrays(d, shape)) for d, shape in zip(operands, self._shapes(node))
               if d is not None]
        return self._limited(frozenset().union(*ids))

    def result(self, node, operands):
        return operands[0]

    def _shapes(self, node):
        return [self.nodes[i].shape for i in node.operands]

    # -- the kinds of dependence --

    def arrays(self, dependence, shape):
        """A dependence as arrays of that shape."""
        if dependence is None:
            return []
        if type(dependence) is frozenset:
            if len(dependence) > 4:
                dependence = self._hub(dependence)
            return [np.broadcast_to(np.int32(i), shape) for i in sorted(dependence)]
        return dependence.arrays(self) if type(dependence) is _Patched else dependence

    def rows(self, dependence, size, shape):
        """A dependence as rows of ids."""
        if type(dependence) is frozenset:
            count = len(dependence)
            ids = np.tile(np.fromiter(dependence, np.int32, count), size)
            return np.arange(size + 1) * count, ids
        arrays = self.arrays(dependence, shape)
        ids = np.empty((size, len(arrays)), dtype=np.int32)
        for k, array in enumerate(arrays):
            ids[:, k] = array.reshape(-1)
        return np.arange(size + 1) * len(arrays), ids.reshape(-1)

    def settle(self, starts, ids, shape):
        """Rows of ids as arrays: few where the rows are short, else one, of hubs."""
        starts, ids = core.distinct_rows(starts, ids, self.used)
        counts = np.diff(starts)
        longest = counts.max(initial=0)
        if longest <= 1 or longest <= _SHORT and longest * len(counts) <= 4 * len(ids):
            arrays = np.full((longest, len(counts)), -1, dtype=np.int32)
            rows = np.repeat(np.arange(len(counts)), counts)
            arrays[np.arange(len(ids)) - starts[rows], rows] = ids
            return [array.reshape(shape) for array in arrays]
        many = counts > 1
        array = np.full(len(counts), -1, dtype=np.int32)
        array[counts == 1] = ids[starts[:-1][counts == 1]]
        array[many] = self._new_hubs(counts[many], ids[np.repeat(many, counts)])
        return [array.reshape(shape)]

    def _new_ids(self, count):
        first, self.used = self.used, self.used + count
        if self.used >= 2 ** 31 - 1:
            raise OverflowError("fastgrad: a sparse pattern with more than 2**31 columns and sums")
        return np.arange(first, self.used, dtype=np.int32)

    def _new_hubs(self, counts, ids):
        self.hubs.append((counts, ids))
        return self._new_ids(len(counts))

    def _hub(self, ids):
        """One id for many."""
        row = np.fromiter(ids, np.int32, len(ids))
        return frozenset((int(self._new_hubs([len(row)], row)[0]),))

    def _limited(self, ids):
        return self._hub(ids) if len(ids) > 2 * _SHORT else ids

    def expand(self, starts, ids):
        """Rows of ids as rows of entries of the input."""
        if not self.hubs:
            return core.distinct_rows(starts, ids, self.n)
        counts = np.concatenate([counts for counts, row in self.hubs])
        return core.expanded_rows(starts, ids, self.n, np.concatenate(([0], np.cumsum(counts))),
                                  np.concatenate([row for counts, row in self.hubs]))

    def _union(self, dependences, shape):
        """Of entries at the same place, broadcast."""
        if all(type(d) is frozenset or d is None for d in dependences):
            return self._limited(frozenset().union(*[d for d in dependences if d]))
        found, longest = {}, 0
        for dependence in dependences:
            arrays = self.arrays(dependence, shape)
            longest = max(longest, len(arrays))
            for array in arrays:
                if array.shape != shape:
                    array = np.broadcast_to(array, shape)
                found.setdefault((array.__array_interface__["data"][0], array.strides), array)
        arrays = list(found.values())
        if len(arrays) > _FEW and len(arrays) > 1.5 * longest or len(arrays) > 8 * _FEW:
            return self.settle(*self.rows(arrays, math.prod(shape), shape), shape)
        return arrays

    # -- what moves entries --

    def moves(self, node, operands):
        row, shapes = SHAPED[node.op], self._shapes(node)
        if row.converts:
            return operands[0]
        if row.move is None:
            return self._scatter(row, node, operands, shapes)
        if node.shape and len(shapes) > 1 and all(shape == () for shape in shapes):
            return self._scalars(operands, node.shape)
        move = row.move(node)
        if len(operands) == 1:
            return [move(array) for array in self.arrays(operands[0], shapes[0])]
        layers = [self.arrays(d, shape) for d, shape in zip(operands, shapes)]
        return [move(*parts) for parts in itertools.zip_longest(*layers)]

    def _scalars(self, dependences, shape):
        """Scalars one beside the other."""
        sets = [d or () for d in dependences]
        starts = np.concatenate(([0], np.cumsum([len(ids) for ids in sets], dtype=np.int64)))
        ids = np.fromiter(itertools.chain.from_iterable(sets), np.int32, starts[-1])
        return self.settle(starts, ids, shape)

    def _scatter(self, row, node, operands, shapes):
        """What falls on one entry is added up there: gather by rank among those."""
        size = math.prod(node.shape)
        arrays = self.arrays(operands[0], shapes[0])
        places = np.repeat(row.route(node, 0, shapes)[0], len(arrays))
        ids = np.stack([array.reshape(-1) for array in arrays], axis=-1).reshape(-1)
        order = np.argsort(places, kind="stable")
        starts = np.concatenate(([0], np.cumsum(np.bincount(places, minlength=size))))
        return self.settle(starts, ids[order], node.shape)

    def _patched(self, node, operands):
        """One entry assigned to."""
        before, value = operands
        if type(before) is not _Patched:
            before = _Patched(self.arrays(before, node.shape), node.shape, {})
        elif node.operands[0] in self.values:       # somebody still needs it as it was
            before = _Patched(before.base, before.shape, dict(before.cells))
        before.cells[before.flat(node.attribute)] = _ids_of(self.arrays(value, ()))
        return before

    # -- what depends on many entries --

    def reduces(self, node, operands):
        return self._over(operands[0], self._shapes(node)[0], node.attribute, node.shape)

    def _over(self, dependence, shape, axes, result):
        """The union along axes; `result` is the shape without them, or with axes of length 1."""
        if type(dependence) is frozenset:
            return dependence
        size = math.prod(result)
        kept = [i for i in range(len(shape)) if i not in axes]
        parts = []
        for array in self.arrays(dependence, shape):
            if array.size:                      # what is repeated need be looked at only once
                array = array[tuple(slice(0, 1) if i in axes and not array.strides[i]
                                    else slice(None) for i in range(array.ndim))]
            array = array.transpose([*kept, *axes])
            parts.append(array.reshape(size, math.prod(array.shape[len(kept):])))
        ids = np.concatenate(parts, axis=1)
        return self.settle(np.arange(size + 1) * ids.shape[1], ids.reshape(-1), result)

    def product(self, node, operands):
        """Entry (i, j) depends on row i of the first and on column j of the second factor."""
        if len(operands) != 2:
            return self.custom(node, operands)
        (a, b), (shape_a, shape_b) = operands, self._shapes(node)
        if len(shape_a) == 2 and a is None and len(shape_b) <= 2:
            matrix = self.nodes[node.operands[0]].value
            if _mostly_zero(matrix):
                return self._by_matrix(matrix, self.arrays(b, shape_b), node.shape)
        if len(shape_b) == 2 and b is None and len(shape_a) <= 2:
            matrix = self.nodes[node.operands[1]].value
            if _mostly_zero(matrix):
                turned = [array.T for array in self.arrays(a, shape_a)]
                return [array.T for array in self._by_matrix(matrix.T, turned, node.shape[::-1])]
        parts = []
        if a is not None:
            rows = self.arrays(self._over(a, shape_a, (len(shape_a) - 1,), shape_a[:-1]),
                               shape_a[:-1])
            parts.append([array[..., None] for array in rows] if len(shape_b) > 1 else rows)
        if b is not None:
            axis = max(len(shape_b) - 2, 0)
            shape = shape_b[:axis] + shape_b[axis + 1:]
            columns = self.arrays(self._over(b, shape_b, (axis,), shape), shape)
            parts.append([array[..., None, :] for array in columns] if len(shape_a) > 1 < len(
                shape_b) else columns)
        return self._union([[np.broadcast_to(array, node.shape) for array in part]
                            for part in parts], node.shape)

    def _by_matrix(self, matrix, arrays, shape):
        """Of a product with a constant matrix: what its entries that are not zero let through."""
        rows, columns = np.nonzero(matrix)
        # For each column of the result its rows, for each of these the ids.
        ids = np.stack([array.reshape(matrix.shape[1], -1)[columns].T for array in arrays], axis=-1)
        lengths = np.bincount(rows, minlength=len(matrix)) * len(arrays)
        starts = np.concatenate(([0], np.cumsum(np.tile(lengths, ids.shape[0]))))
        return [array.T.reshape(shape) for array in
                self.settle(starts, ids.reshape(-1), (ids.shape[0], len(matrix)))]


def _mostly_zero(matrix):
    return matrix is not None and 2 * np.count_nonzero(matrix) <= matrix.size > 0


class _Patched:
    """A dependence of an array of which single entries were assigned to."""

    def __init__(self, base, shape, cells):
        self.base = base                # arrays
        self.shape = shape
        self.cells = cells              # from the flat index to the ids of what was assigned

    def flat(self, index):
        place = 0
        for i, size in zip(index, self.shape):
            place = place * size + (i + size if i < 0 else i)
        return place

    def at(self, index):
        ids = self.cells.get(self.flat(index))
        return _ids_of([array[index] for array in self.base]) if ids is None else ids

    def arrays(self, dependences):
        places = np.fromiter(self.cells, np.intp, len(self.cells))
        new = dependences._scalars(self.cells.values(), (len(places),))
        answer = []
        for k in range(max(len(self.base), len(new))):
            out = np.full(self.shape, -1, dtype=np.int32)
            if k < len(self.base):
                out[...] = self.base[k]
            out.reshape(-1)[places] = new[k] if k < len(new) else -1
            answer.append(out)
        return answer


def _ids_of(arrays):
    """All ids in some arrays."""
    if all(array.ndim == 0 for array in arrays):
        return frozenset([i for i in map(int, arrays) if i >= 0])
    ids = np.unique(np.concatenate([array.reshape(-1) for array in arrays]))
    return frozenset(ids[ids >= 0].tolist())


@functools.cache
def _zero_partials(op):
    """For each operand of an element-wise operator whether its partial vanishes everywhere."""
    return tuple(result == 0.0 and type(result) is float
                 for steps, result in core.partial_formulas(op))


# ---- the plan -------------------------------------------------------------------------------

class _Group(NamedTuple):
    """Sweeps in one direction, one for each colour, and where their results go.

    The three index lists are in the order of sweeps: sweep k has those from ``bounds[k]`` to
    ``bounds[k + 1]``.
    """
    forward: bool
    lanes: int                  # colours in a sweep
    seeds: np.ndarray           # entries of the seeds that are 1
    seed_bounds: list
    source: np.ndarray          # entries of the results
    target: np.ndarray          # which entries of the matrix they are
    bounds: list


class _Plan:
    """How to compute the entries of a pattern."""

    def __init__(self, pattern, groups, colours):
        index = np.int32 if pattern.starts[-1] < 2 ** 31 else np.int64
        self.starts = pattern.starts.astype(index)
        self.columns = pattern.columns.astype(index, copy=False)
        self.pattern = pattern
        self.blank = None               # a matrix without its three arrays
        self.groups = groups
        self.colours = colours          # forward and reverse sweeps: how many
        self.turned = False             # whether the results are the columns

    def transpose(self):
        """Compute the transposed matrix."""
        pattern, places = self.pattern.transposed()
        place = np.empty_like(places)
        place[places] = np.arange(len(places))
        groups = [group._replace(target=place[group.target]) for group in self.groups]
        self.__init__(pattern, groups, self.colours)
        self.turned = True

    def matrix(self, csr_array, trace):
        """The derivative, in arrays of its own."""
        data, beyond = self.values(trace)
        if self.blank is None:          # SciPy checks what it makes for 30 us, but not copies
            blank = csr_array((data, self.columns, self.starts), shape=self.pattern.shape)
            blank.has_canonical_format = True
            blank.data = blank.indices = blank.indptr = None
            self.blank = blank
        matrix = copy.copy(self.blank)
        matrix.data, matrix.indices, matrix.indptr = data, self.columns.copy(), self.starts.copy()
        for row, columns, entries in beyond:
            rows = np.full(len(columns), row)
            places = (columns, rows) if self.turned else (rows, columns)
            matrix = matrix + csr_array((entries, places), shape=self.pattern.shape)
        return matrix

    def values(self, trace):
        """The entries, in the order of the pattern; and, as ``(row, columns, entries)``, those
        beyond it: in the row of a result that is not finite a step (floor, sign) has a partial that
        counts."""
        dtype, data = trace.input_dtypes[0], None
        wild = () if trace.results_finite() else np.flatnonzero(
            ~np.isfinite(np.ravel(core.settled(trace.plain()[0]))))
        for group in self.groups:
            shape = trace.input_shapes[0] if group.forward else trace.shapes[0]
            size = math.prod(shape)
            seeds = np.zeros(group.lanes * size, dtype=dtype)
            for (a, b), (start, stop) in zip(itertools.pairwise(group.seed_bounds),
                                             itertools.pairwise(group.bounds)):
                ones = group.seeds[a:b]
                if len(wild) and not group.forward:
                    ones = np.setdiff1d(ones, wild)
                seeds[ones] = 1
                if group.forward:
                    seed = seeds.reshape((group.lanes, *shape))
                    answer = trace.push_lanes([seed], group.lanes)[0]
                else:
                    answer = trace.pull([seeds.reshape(shape)])[0]
                seeds[ones] = 0
                if data is None:
                    data = np.empty(len(self.columns), dtype=dtype)
                data[group.target[start:stop]] = np.ravel(answer)[group.source[start:stop]]
        if data is None:
            data = np.zeros(len(self.columns), dtype=dtype)
        beyond = []
        of, by = (self.columns, self.pattern.rows) if self.turned else (
            self.pattern.rows, self.columns)
        for i in wild:                  # each such row is a sweep of its own
            seed = np.zeros(trace.shapes[0])
            seed.reshape(-1)[i] = 1
            own = np.flatnonzero(of == i)
            row = np.ravel(trace.pull([seed])[0]).astype(dtype)     # (a copy)
            data[own] = row[by[own]]
            row[by[own]] = 0
            if row.any():
                beyond.append((i, np.flatnonzero(row), row[row != 0]))
        return data, beyond


def _group(forward, colour, count, lanes, size, entry_colour, entry_place, entries=None):
    """Sweeps for columns (rows) coloured. Entries of the matrix, numbered `entries` (all, if None),
    are read from the result for their colour, of that size, at a place."""
    starts, order = core.by_colour(colour, count)
    seeds, seed_bounds = _in_lanes(order, colour[order], len(colour), lanes), _sweeps(starts, lanes)
    starts, order = core.by_colour(entry_colour, count)
    source = _in_lanes(entry_place[order], entry_colour[order], size, lanes)
    target = order if entries is None else entries[order]
    return _Group(forward, lanes, seeds, seed_bounds, source, target, _sweeps(starts, lanes))


def _in_lanes(places, colours, size, lanes):
    """Places in arrays of that size, of which there are `lanes` one after the other."""
    places = places.astype(np.intp, copy=False)
    return places + (colours % lanes) * np.intp(size) if lanes > 1 else places


def _sweeps(starts, lanes):
    """Where sweeps begin, and the last one ends, from where colours do."""
    return [*starts[:-1:lanes].tolist(), int(starts[-1])]


def _lanes(count, size, chunk):
    """How many forward sweeps to do at once."""
    return max(1, min(count, LANES if size <= LANE_SIZE else 1, chunk or count))


def _coloured(rows, columns):
    """Colours of the columns of a pattern (given with its transpose), and their number."""
    width = rows.shape[1]
    longest = int(np.diff(rows.starts).max(initial=0))
    counts = np.diff(columns.starts)
    filled = counts > 0
    if longest <= 1:
        return np.where(filled, 0, -1).astype(np.int32), min(longest, 1)
    if longest == np.count_nonzero(filled):             # a full row: nothing to share
        return np.where(filled, np.cumsum(filled) - 1, -1).astype(np.int32), longest
    best = None
    for order in (np.arange(width), np.argsort(-counts, kind="stable")):
        found = core.colour_columns(rows.starts, rows.columns, columns.starts, columns.columns,
                                    order.astype(np.int32))
        if best is None or found[1] < best[1]:
            best = found
        if best[1] == longest:                          # it cannot be less
            break
    return best


def _plan_jacobian(pattern, chunk):
    """Columns by forward sweeps and, one by one, long rows by reverse sweeps; or rows by reverse
    sweeps, if that is cheaper."""
    m, n = pattern.shape
    lengths = np.diff(pattern.starts)
    # With the d longest rows set aside at least as many colours as the next one has entries.
    longest = np.append(np.sort(lengths)[::-1], 0)
    expected = longest + PULL * np.arange(m + 1)
    aside = int(np.argmin(expected))
    transposed = pattern.transposed()[0]
    tallest = int(np.diff(transposed.starts).max(initial=0))
    rows = pattern.rows
    if PULL * tallest >= expected[aside]:
        groups, cost, colours = _forward(pattern, transposed, lengths, rows, aside, chunk)
        if cost <= PULL * tallest:
            return _Plan(pattern, groups, colours)
    else:
        groups, cost = None, math.inf
    colour, count = _coloured(transposed, pattern)
    if PULL * count < cost:
        groups = [_group(False, colour, count, 1, n, colour[rows], pattern.columns)]
        colours = (0, count)
    return _Plan(pattern, groups, colours)


def _forward(pattern, transposed, lengths, rows, aside, chunk):
    """Groups of sweeps, their cost, and (forward sweeps, reverse sweeps)."""
    m, n = pattern.shape
    groups = []
    columns, entries = pattern.columns, None
    if aside:
        long = np.argsort(-lengths, kind="stable")[:aside]
        colour = np.full(m, -1, dtype=np.int32)
        colour[long] = np.arange(aside)
        here = colour[rows] >= 0
        groups.append(_group(False, colour, aside, 1, n, colour[rows], columns))
        pattern = pattern.where(~here)
        rows, columns, entries = rows[~here], columns[~here], np.flatnonzero(~here)
        transposed = pattern.transposed()[0]
    colour, count = _coloured(pattern, transposed)
    if count:
        groups.append(_group(True, colour, count, _lanes(count, max(m, n), chunk), m,
                             colour[columns], rows, entries))
    return groups, count + PULL * aside, (count, aside)


def _plan_hessian(pattern, chunk):
    """A star colouring, from which each entry is read directly."""
    n = pattern.shape[0]
    mirrored, mirror = pattern.transposed()
    if not (np.array_equal(mirrored.starts, pattern.starts)
            and np.array_equal(mirrored.columns, pattern.columns)):
        pattern = _joined(pattern, mirrored)
        mirror = pattern.transposed()[1]
    rows = pattern.rows
    degrees = np.diff(pattern.starts)
    order = np.argsort(-degrees, kind="stable").astype(np.int32)
    # Vertices with more neighbours than there would be colours otherwise get a colour each; in a
    # full matrix all of them.
    expected = np.append(degrees[order], 0) + np.arange(n + 1)
    alone = n - int(np.argmin(expected[::-1]))
    dense = order[:min(alone, np.count_nonzero(degrees))]
    colour, count, column = core.colour_star(pattern.starts, pattern.columns, mirror, dense,
                                             np.arange(n, dtype=np.int32))
    if count > len(dense) + 3:
        other = core.colour_star(pattern.starts, pattern.columns, mirror, dense, order)
        if other[1] < count:
            colour, count, column = other
    place = np.where(column == rows, pattern.columns, rows)
    groups = [_group(True, colour, count, _lanes(count, n, chunk), n, colour[column], place)
              ] if count else []
    return _Plan(pattern, groups, (count, 0))


def _joined(a, b):
    """The union of two patterns of the same shape."""
    rows = np.concatenate((a.rows, b.rows))
    columns = np.concatenate((a.columns, b.columns))
    order = np.argsort(rows, kind="stable")
    starts, columns = core.distinct_rows(a.starts + b.starts, columns[order], a.shape[1])
    return Pattern(starts, columns, a.shape).transposed()[0].transposed()[0]
