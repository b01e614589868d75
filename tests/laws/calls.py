"""Calls of every function of fastgrad.numpy, fastgrad.numpy.linalg and fastgrad.special, and of
every method that Tensors have in common with ndarray.

Each call is written once, for a namespace `np` and arrays, so that it runs with NumPy, with
fastgrad.numpy and with Tensors. `cases(name)` gives the calls of one name: the laws of
test_namespace.py ask for nothing else.
"""

import functools
import inspect
import types

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import special
from fastgrad._core import core

Tensor = core.Tensor
NUMPY_2_1 = hasattr(np, "unstack")
NUMPY_2_5 = np.lib.NumpyVersion(np.__version__) >= "2.5.0"

V, M, T3 = (4,), (3, 4), (2, 3, 4)
S, SQUARE, EMPTY = (), (3, 3), (2, 0, 3)
CHOICE = np.array([True, False, True, True])
SOME = np.array([[True, False, True, True], [True, True, False, True], [False, True, True, True]])

# The parameter is called np, so that a call reads as people write it, and so that the names of
# the functions can be read from its code.
CALLS = [
    # reductions
    *[(lambda np, x, axis=axis: np.mean(x, axis), shape)
      for shape, axis in [(S, None), (V, 0), (M, None), (M, -1), (T3, (0, 2)), (T3, ())]],
    (lambda np, x: np.mean(x, 1, keepdims=True), T3),
    (lambda np, x: np.mean(x, dtype="float64"), V),
    *[(lambda np, x, axis=axis: np.var(x, axis), shape)
      for shape, axis in [(V, None), (M, 0), (T3, (0, 1))]],
    (lambda np, x: np.var(x, 0, ddof=1, keepdims=True), M),
    (lambda np, x: np.var(x, 0, correction=1), M),
    (lambda np, x: np.var(x, 0, mean=np.mean(x, 0, keepdims=True)), M),
    (lambda np, x: np.std(x), V),
    (lambda np, x: np.std(x, -1, ddof=2), M),
    (lambda np, x: np.std(x, (0, 2), keepdims=True), T3),
    (lambda np, x: np.prod(x), V),
    (lambda np, x: np.prod(x, 1, keepdims=True), M),
    (lambda np, x: np.prod(x, dtype=np.float64), V),
    (lambda np, x: np.max(x), M),
    (lambda np, x: np.max(x, (0, 2)), T3),
    (lambda np, x: np.amax(x, 0, keepdims=True), M),
    (lambda np, x: np.min(x), M),
    (lambda np, x: np.amin(x, 1), M),
    (lambda np, x: np.ptp(x), V),
    (lambda np, x: np.ptp(x, 0, keepdims=True), M),
    (lambda np, x: np.sum(x, -1), M),
    (lambda np, x: np.average(x), V),
    (lambda np, x: np.average(x, 0), M),
    (lambda np, x: np.average(x, 1, weights=[1.0, 2.0, 3.0, 4.0]), M),
    (lambda np, x: np.average(x, (2, 0), weights=[[1, 2], [3, 4], [5, 6], [7, 8]]), T3),
    (lambda np, x, y: np.average(x, weights=y * y), M, M),
    (lambda np, x, y: np.average(x, 0, weights=y * y, returned=True, keepdims=True), M, M),
    (lambda np, x: np.trace(x), M),
    (lambda np, x: np.trace(x, 1, 2, 0), T3),
    (lambda np, x: np.diff(x), M),
    (lambda np, x: np.diff(x, 2, 0), M),
    (lambda np, x: np.diff(x, 0), V),
    (lambda np, x: np.diff(x, prepend=0.0, append=[1.0]), V),
    (lambda np, x, y: np.diff(x, axis=0, prepend=y), M, S),
    (lambda np, x: np.trapezoid(x), V),
    (lambda np, x: np.trapezoid(x, dx=0.5, axis=0), M),
    (lambda np, x, y: np.trapezoid(x, y, axis=1), M, V),
    (lambda np, x, y: np.trapezoid(x, y), M, M),
    # shapes
    (lambda np, x: np.reshape(x, (2, -1)), M),
    (lambda np, x: np.reshape(x, 6), (2, 3)),
    *[(lambda np, x: np.reshape(x, (4, 3), "C"), M)] * (
        inspect.signature(np.reshape).parameters["order"].kind.name != "KEYWORD_ONLY"),     # 2.1.0
    *[(lambda np, x, shape=shape: np.reshape(x, shape, order="F"), M)
      for shape in ((2, -1), (12,), 12, (2, 3, 2))],
    (lambda np, x: np.reshape(x, (2, 2), order="A"), V),
    (lambda np, x: np.reshape(x, (2, 4, 3), order="F"), T3),
    *[(lambda np, x, order=order: np.ravel(x, order), T3) for order in "CF"],
    *[(lambda np, x, order=order: np.ravel(x, order), V) for order in "AK"],
    (lambda np, x: np.ravel(x), T3),
    (lambda np, x: np.ravel(x), EMPTY),
    (lambda np, x: np.transpose(x), T3),
    (lambda np, x: np.permute_dims(x, (1, 0, -1)), T3),
    (lambda np, x: np.matrix_transpose(x), T3),
    (lambda np, x: np.swapaxes(x, 0, -1), T3),
    (lambda np, x: np.moveaxis(x, 0, -1), T3),
    (lambda np, x: np.moveaxis(x, (0, 1), (-1, 0)), T3),
    (lambda np, x: np.rollaxis(x, 2), T3),
    (lambda np, x: np.rollaxis(x, 0, 3), T3),
    (lambda np, x: np.squeeze(x), (1, 3, 1)),
    (lambda np, x: np.squeeze(x, -1), (1, 3, 1)),
    (lambda np, x: np.squeeze(x, (0, 2)), (1, 3, 1)),
    (lambda np, x: np.expand_dims(x, 1), M),
    (lambda np, x: np.expand_dims(x, (0, -1)), M),
    (lambda np, x: np.broadcast_to(x, (2, 3, 4)), (3, 1)),
    (lambda np, x: np.broadcast_to(x, 3), S),
    (lambda np, x, y: np.broadcast_arrays(x, y), (3, 1), V),
    *[(lambda np, x, name=name: getattr(np, name)(x), shape)
      for name in ("atleast_1d", "atleast_2d", "atleast_3d") for shape in (S, V, M, T3)],
    (lambda np, x, y: np.atleast_1d(x, y), S, M),
    (lambda np, x, y: np.atleast_2d(x, y), S, V),
    (lambda np, x, y: np.atleast_3d(x, y), V, M),
    (lambda np, x: np.flip(x), T3),
    (lambda np, x: np.flip(x, (0, -1)), T3),
    (lambda np, x: np.fliplr(x), M),
    (lambda np, x: np.flipud(x), V),
    *[(lambda np, x, k=k: np.rot90(x, k), M) for k in range(-1, 4)],
    *[(lambda np, x, k=k: np.rot90(x, k, (2, 0)), T3) for k in range(4)],
    (lambda np, x: np.roll(x, 2), M),
    (lambda np, x: np.roll(x, -1, 1), M),
    (lambda np, x: np.roll(x, (1, 5), (0, -1)), M),
    (lambda np, x: np.roll(x, 3, (0, 0)), M),
    (lambda np, x: np.roll(x, 1), EMPTY),
    (lambda np, x: np.tile(x, 3), V),
    (lambda np, x: np.tile(x, (2, 1, 3)), V),
    (lambda np, x: np.tile(x, 2), T3),
    (lambda np, x: np.tile(x, (2, 2)), S),
    (lambda np, x: np.repeat(x, 2), M),
    (lambda np, x: np.repeat(x, 3, axis=1), M),
    (lambda np, x: np.repeat(x, [0, 2, 1], 0), M),
    (lambda np, x: np.repeat(x, 2), S),
    # several arrays
    (lambda np, x, y: np.concatenate([x, y]), V, V),
    (lambda np, x, y: np.concatenate((x, y), axis=-1), M, (3, 1)),
    (lambda np, x, y: np.concat((x, y), None), M, V),
    (lambda np, x: np.concatenate([x, [1.0, 2.0]]), V),
    (lambda np, x, y: np.concatenate([x, y], dtype="float64"), V, V),
    *[(lambda np, x, y, axis=axis: np.stack([x, y], axis), M, M) for axis in (0, 1, -1)],
    (lambda np, x: np.stack([x, 2.0, x]), S),
    (lambda np, x: np.stack(x, -1), T3),
    *[(lambda np, x: np.unstack(x), M), (lambda np, x: np.unstack(x, axis=-1), T3)] * NUMPY_2_1,
    (lambda np, x, y: np.vstack([x, y]), V, M),
    (lambda np, x, y: np.hstack([x, y]), V, S),
    (lambda np, x, y: np.hstack([x, y]), M, M),
    (lambda np, x, y: np.dstack([x, y]), M, M),
    (lambda np, x, y: np.column_stack([x, y]), (3,), M),
    (lambda np, x, y: np.append(x, y), M, V),
    (lambda np, x, y: np.append(x, y, 0), M, M),
    (lambda np, x: np.array_split(x, 3), V),
    (lambda np, x: np.array_split(x, [1, 1, 3], -1), M),
    (lambda np, x: np.split(x, 2, 1), M),
    (lambda np, x: np.split(x, [1]), M),
    (lambda np, x: np.hsplit(x, 2), V),
    (lambda np, x: np.hsplit(x, 2), M),
    (lambda np, x: np.vsplit(x, 3), M),
    (lambda np, x: np.dsplit(x, [1]), T3),
    (lambda np, x, y: np.meshgrid(x, y), V, (3,)),
    (lambda np, x, y: np.meshgrid(x, y, [1.0, 2.0], indexing="ij"), V, (3,)),
    (lambda np, x, y: np.meshgrid(x, y, sparse=True), V, S),
    # indices
    (lambda np, x: np.take(x, [0, 0, 5]), M),
    (lambda np, x: np.take(x, [[0, -1], [1, 1]], axis=1), M),
    (lambda np, x: np.take(x, 1, 0), M),
    (lambda np, x: np.take(x, [5, -7], 1, mode="wrap"), M),
    (lambda np, x: np.take(x, [5, -7], 1, mode="clip"), M),
    (lambda np, x: np.take_along_axis(x, np.argsort(x, 1), 1), M),
    (lambda np, x: np.take_along_axis(x, np.argmax(x, 0, keepdims=True), 0), M),
    (lambda np, x: np.take_along_axis(x, np.argsort(x, None), None), V),
    *[(lambda np, x, k=k: np.diagonal(x, k), M) for k in (-1, 0, 2)],
    (lambda np, x: np.diagonal(x, 0, 0, 2), T3),
    *[(lambda np, x, k=k: np.diag(x, k), shape) for k in (-1, 0, 2) for shape in (V, M)],
    (lambda np, x: np.diagflat(x, 1), M),
    *[(lambda np, x, k=k: np.tril(x, k), shape) for k in (-1, 0, 1) for shape in (V, M, T3)],
    *[(lambda np, x, k=k: np.triu(x, k), shape) for k in (-1, 0, 1) for shape in (V, M, T3)],
    (lambda np, x: np.delete(x, 1), V),
    (lambda np, x: np.delete(x, [0, 2], 1), M),
    (lambda np, x: np.compress(CHOICE, x), V),
    (lambda np, x: np.compress([True, False], x, 1), M),
    (lambda np, x: np.extract(CHOICE, x), V),
    (lambda np, x: np.extract(x > np.mean(x), x), M),
    (lambda np, x: np.pad(x, 1), M),
    (lambda np, x: np.pad(x, ((0, 2), (1, 0)), constant_values=3.0), M),
    (lambda np, x, y: np.pad(x, 1, constant_values=y), V, S),
    *[(lambda np, x, mode=mode: np.pad(x, ((1, 2), (2, 1)), mode), M)
      for mode in ("edge", "reflect", "symmetric", "wrap")],
    (lambda np, x: np.partition(x, 2), M),
    *[(lambda np, x, name=name, axis=axis: getattr(np, name)(x, axis), M)
      for name in ("cumsum", "cumprod") for axis in (None, 0, -1)],
    (lambda np, x: np.sort(x), M),
    (lambda np, x: np.sort(x, 0), M),
    (lambda np, x: np.sort(x, None), M),
    *[(lambda np, x: np.sort(x, -1, descending=True), M)] * NUMPY_2_5,
    *[(lambda np, x, name=name, axis=axis, options=options: getattr(np, name)(
        x, axis=axis, where=SOME, **options), M)
      for name, options in [("mean", {}), ("var", {}), ("std", {"ddof": 1}), ("sum", {}),
                            ("prod", {}), ("max", {"initial": -1}), ("min", {"initial": 30}),
                            ("sum", {"initial": 2, "keepdims": True}),
                            ("prod", {"initial": 2, "keepdims": True})]
      for axis in (None, 0)],
    *[(lambda np, x, name=name: getattr(np, name)(x, axis=0, initial=3), M)
      for name in ("sum", "prod", "max", "min")],
    (lambda np, x: np.max(x, axis=1, initial=0.5), EMPTY),
    (lambda np, x: np.mean(x, axis=1, where=[True, False, True, True]), M),
    # element-wise
    (lambda np, x: np.where(CHOICE, x, 0.0), M),
    (lambda np, x, y: np.where(x > 0, x, y), M, V),
    (lambda np, x: np.where([1, 0, 2, 0], 1.0, x), V),
    (lambda np, x: np.clip(x, -0.5, 0.5), M),
    (lambda np, x: np.clip(x, None, 0.5), M),
    (lambda np, x: np.clip(x, a_min=0.1, a_max=None), M),
    *[(lambda np, x: np.clip(x, min=-0.1), M)] * NUMPY_2_1,
    (lambda np, x, y: np.clip(x, y, None), M, V),
    (lambda np, x, y: np.clip(x, -1 - y * y, y * y), M, V),
    *[(lambda np, x, d=d: np.round(x, d), M) for d in (0, 1, -1)],
    (lambda np, x: np.around(x), M),
    (lambda np, x: np.nan_to_num(np.where(CHOICE, x, np.nan), nan=1.5), V),
    (lambda np, x: np.nan_to_num(np.where(CHOICE, x, -np.inf), neginf=-2.0), V),
    (lambda np, x: np.select([x < -0.3, x < 0.3], [x * 2, 3.0], x), M),
    (lambda np, x: np.divmod(x, 0.7), M),
    (lambda np, x: np.real(x), M),
    (lambda np, x: np.conjugate(x), M),
    (lambda np, x: np.conj(x), M),
    # products
    *[(lambda np, x, y, name=name: getattr(np, name)(x, y), a, b)
      for name, pairs in {
          "dot": [(S, M), (V, S), (V, V), (M, V), ((3,), M), (M, (4, 2)), (T3, V), (V, (2, 4, 3)),
                  (T3, (4, 2)), (M, (2, 4, 3)), (T3, (3, 4, 2))],
          "inner": [(S, M), (V, V), (M, V), (M, (2, 4)), (T3, M)],
          "outer": [(S, V), (V, (3,)), (M, V)],
          "vdot": [(V, V), (M, M)],
          "matmul": [(V, V), (M, V), (T3, (4, 2)), (T3, (2, 4, 3)), ((1, 3, 4), (2, 4, 3))],
          "vecdot": [(V, V), (M, V), (M, T3)],
          "kron": [(S, V), (V, (2,)), (M, (2,)), (M, (2, 2)), (V, M)],
          "cross": [((3,), (3,)), ((2, 3), (3,)), ((2, 1, 3), (4, 3))],
      }.items() for a, b in pairs],
    (lambda np, x, y: np.dot(x, y), EMPTY, (3, 2)),
    (lambda np, x, y: np.vecdot(x, y, axis=0), M, M),
    (lambda np, x, y: np.cross(x, y, axis=0), (3, 2), (3, 2)),
    (lambda np, x, y: np.cross(x, y, 0, 1, 0), (3, 2), (2, 3)),
    *[(lambda np, x, y, axes=axes: np.tensordot(x, y, axes), a, b) for axes, a, b in [
        (0, V, M), (1, M, V), (2, T3, (3, 4)), ((0, 1), M, (2, 3)), (([0, 2], [1, 0]), T3, (4, 2)),
        (((-1,), (-1,)), T3, M)]],
    *[(lambda np, x, spec=spec: np.einsum(spec, x), shape) for spec, shape in [
        ("ij->ji", M), ("ij->", M), ("ii->i", SQUARE), ("ii", SQUARE), ("ijk->kj", T3), ("ji", M),
        ("...j->...", T3), ("...ij->...ji", T3), ("iij->j", (3, 3, 2)), ("iii", (2, 2, 2))]],
    *[(lambda np, x, y, spec=spec: np.einsum(spec, x, y), a, b) for spec, a, b in [
        ("ij,jk->ik", M, (4, 2)), ("ij,jk", M, (4, 2)), ("ij,ij->i", M, M), ("ij,ij", M, M),
        ("bij,bjk->bik", T3, (2, 4, 3)), ("i,j->ij", V, (3,)), ("i,j->", V, (3,)),
        ("...ij,...jk->...ik", T3, (4, 2)), ("...i,...i", T3, (3, 4)), ("ij,kj->jik", M, (2, 4)),
        ("ij,j->ij", M, (1,)), ("ii,ij->j", SQUARE, (3, 2)), ("i,->i", V, S),
        ("a...b,b...->...a", T3, (4, 3))]],
    *[(lambda np, x, y, z, o=optimize: np.einsum("ij,jk,kl->il", x, y, z, optimize=o),
       (2, 3), (3, 4), (4, 2)) for optimize in (False, True, "greedy")],
    (lambda np, x, y, z: np.einsum("bi,ij,bj->b", x, y, z), (2, 3), (3, 4), (2, 4)),
    # creation
    (lambda np, x: np.copy(x), M),
    *[(lambda np, x: np.astype(x, "float64"), M)] * hasattr(np, "astype"),
    (lambda np, x: np.zeros_like(x) + x, M),
    (lambda np, x: np.ones_like(x, shape=(2, 4)) * x, V),
    (lambda np, x: np.empty_like(x) * 0 + x, ()),
    (lambda np, x: np.full_like(x, 2.5) * x, M),
    (lambda np, x, y: np.full_like(x, y), M, S),
    *[(lambda np, x, y, end=end, n=n: np.linspace(x, y, n, endpoint=end), S, S)
      for end in (True, False) for n in (0, 1, 2, 5)],
    (lambda np, x, y: np.linspace(x, y, 3, axis=-1), V, (3, 1)),
    (lambda np, x: np.linspace(0.0, x, 3, retstep=True), S),
    # linear algebra
    *[(lambda np, x, o=o: np.linalg.norm(x, o), V)
      for o in (None, 1, 2, 3, 0.5, -1, -2, 2.5, np.inf, -np.inf)],
    *[(lambda np, x, o=o: np.linalg.norm(x, o), M)
      for o in (None, "fro", "f", "nuc", 1, -1, 2, -2, np.inf, -np.inf)],
    *[(lambda np, x, o=o: np.linalg.norm(x, o, (2, 0), True), T3)
      for o in (None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)],
    *[(lambda np, x, o=o: np.linalg.norm(x, o, (0, 2)), T3) for o in ("nuc", 1, -2, np.inf)],
    (lambda np, x: np.linalg.norm(x), T3),
    (lambda np, x: np.linalg.norm(x), S),
    (lambda np, x: np.linalg.norm(x, axis=0, keepdims=True), M),
    (lambda np, x: np.linalg.norm(x, 3, -1), M),
    *[(lambda np, x, o=o: np.linalg.vector_norm(x, axis=(0, 2), ord=o), T3)
      for o in (1, 2, 3, np.inf)],
    (lambda np, x: np.linalg.vector_norm(x, keepdims=True), M),
    *[(lambda np, x, o=o: np.linalg.matrix_norm(x, ord=o), T3) for o in ("fro", "nuc", 1, 2)],
    (lambda np, x, y: np.linalg.outer(x, y), V, (3,)),
    (lambda np, x, y: np.linalg.cross(x, y), (2, 3), (3,)),
    (lambda np, x: np.linalg.diagonal(x, offset=1), T3),
    (lambda np, x: np.linalg.trace(x), T3),
    (lambda np, x: np.linalg.matrix_transpose(x), T3),
    (lambda np, x, y: np.linalg.tensordot(x, y, axes=1), M, V),
    (lambda np, x, y: np.linalg.vecdot(x, y), M, V),
    (lambda np, x, y: np.linalg.matmul(x, y), M, V),
    (lambda np, x, y: np.linalg.solve(np.matmul(x, np.transpose(x)) + 4 * np.eye(3), y), M, (3,)),
    (lambda np, x: np.linalg.cholesky(np.matmul(x, np.transpose(x)) + 4 * np.eye(3)), M),
    (lambda np, x: np.linalg.eigh(np.matmul(x, np.transpose(x))), M),
]

# Values without derivative: a Tensor that is not recorded, or what NumPy returns.
VALUES = [
    (lambda np, x: np.all(x > -0.5, axis=0), M),
    (lambda np, x: np.any(x > 0.5), M),
    (lambda np, x: np.argmax(x, 1), M),
    (lambda np, x: np.argmin(x, keepdims=True), M),
    (lambda np, x: np.argsort(x, axis=0), M),
    (lambda np, x: np.argpartition(x, 2, axis=-1), V),
    (lambda np, x: np.lexsort((x, x > 0)), V),
    (lambda np, x: (np.nanargmax(x), np.nanargmin(x, 0)), M),
    (lambda np, x: (np.isin(x, x[:1]), np.isreal(x), np.iscomplex(x)), M),
    (lambda np, x: np.count_nonzero(x > 0, axis=0), M),
    (lambda np, x: np.searchsorted([-0.5, 0.0, 0.5], x), M),
    (lambda np, x: np.digitize(x, [-0.5, 0.0, 0.5]), V),
    (lambda np, x: np.nonzero(x > 0), M),
    (lambda np, x: np.where(x > 0), M),
    (lambda np, x: np.flatnonzero(x > 0), M),
    (lambda np, x: np.argwhere(x > 0), M),
    (lambda np, x: np.ix_(np.argsort(x), [0, 1]), V),
    (lambda np, x: np.imag(x), V),
    (lambda np, x: (np.isnan(x), np.isinf(x), np.isfinite(x), np.signbit(x)), V),
    (lambda np, x: (np.isposinf(x), np.isneginf(x)), V),
    (lambda np, x: (np.logical_and(x, x > 0), np.logical_or(x, 0), np.logical_xor(x, x > 0)), V),
    (lambda np, x: np.logical_not(x), V),
    (lambda np, x: (np.isclose(x, x * 1.1), np.allclose(x, x), np.array_equal(x, x)), V),
    (lambda np, x: (np.array_equiv(x, x), np.iscomplexobj(x), np.isrealobj(x)), V),
    (lambda np, x: (np.shape(x), np.ndim(x), np.size(x), np.size(x, 1)), M),
    (lambda np, x: np.result_type(x, np.float32), V),
    (lambda np, x: np.linalg.norm(x, 0), V),
]

CREATION = [
    lambda np: np.zeros((2, 3)),
    lambda np: np.zeros(3, int),
    lambda np: np.ones(4, "float32"),
    lambda np: np.full((2, 2), 7.0),
    lambda np: np.full(2, [1, 2]),
    lambda np: np.empty((0, 3)),
    lambda np: np.eye(3, k=1),
    lambda np: np.identity(2),
    lambda np: np.tri(3, 4),
    lambda np: np.arange(5),
    lambda np: np.arange(0.0, 1.0, 0.25),
    lambda np: np.linspace(0, 1, 4),
    lambda np: np.array([[1.0, 2.0], [3.0, 4.0]]),
    lambda np: np.array([1, 2], "float32", ndmin=2),
    lambda np: np.asarray([1.0, 2.0]),
    lambda np: np.asanyarray((True, False)),
    lambda np: np.ascontiguousarray(2.0),
    lambda np: np.zeros_like([1.0, 2.0]),
    lambda np: np.ones_like([1, 2], dtype=float),
    lambda np: np.full_like([1.0, 2.0], 3),
    lambda np: np.empty_like(np.ones((0, 2))),
]

# Where little is to be done: there an operand is easily handed out as it is.
IDLE = [
    *[(lambda np, x, shift=shift: np.roll(x, shift), shape)
      for shift, shape in [(0, V), (4, V), (1, (1,)), (12, M)]],
    (lambda np, x: np.roll(x, (0, 4), (0, 1)), M),
    (lambda np, x: np.repeat(x, 1), V),
    (lambda np, x: np.repeat(x, 1, 0), M),
    (lambda np, x: x.repeat(1), V),
    *[(lambda np, x, reps=reps: np.tile(x, reps), V) for reps in ((), 1, (1, 1))],
    *[(lambda np, x, name=name: getattr(np, name)([x]), V)
      for name in ("concatenate", "stack", "vstack", "hstack", "dstack", "column_stack")],
    (lambda np, x: np.append(x, []), V),
    *[(lambda np, x, mode=mode: np.pad(x, 0, mode), V) for mode in ("constant", "edge", "wrap")],
    (lambda np, x: np.delete(x, []), V),
    (lambda np, x: np.sort(x), (1,)),
    (lambda np, x: np.tril(x, 5), M),
    *[(lambda np, x, name=name: getattr(np, name)(x, axis=()), V)
      for name in ("sum", "mean", "prod", "max", "flip", "squeeze", "expand_dims")],
    *[(lambda np, x, name=name, keep=keep: getattr(np, name)(x, axis=0, keepdims=keep), (1, 3))
      for name in ("sum", "mean", "prod", "max") for keep in (False, True)],
    (lambda np, x: np.diff(x, 0), V),
    *[(lambda np, x, spec=spec: np.einsum(spec, x), M) for spec in ("ij->ij", "ij->ji", "ij->i")],
    (lambda np, x: np.ascontiguousarray(x), V),
    *[(lambda np, x, name=name: getattr(np, name)(x), V)
      for name in ("copy", "array", "asarray", "asanyarray", "positive", "nan_to_num",
                   *["unstack"] * hasattr(np, "unstack"))],
    *[(lambda np, x, options=options: np.meshgrid(x, **options), V)
      for options in ({}, {"sparse": True}, {"sparse": True, "copy": False})],
    (lambda np, x: np.nan_to_num(x, copy=False), V),
    (lambda np, x: np.rot90(x, 4), M),
    (lambda np, x: np.moveaxis(x, 0, 0), M),
    (lambda np, x: np.broadcast_to(x, 4), V),
    (lambda np, x: np.split(x, 1), V),
    (lambda np, x: x.astype(x.dtype), V),
    (lambda np, x: x.astype(x.dtype, copy=False), V),
    *[(lambda np, x, name=name: getattr(x, name)(), V)
      for name in ("copy", "flatten", "ravel", "conj", "squeeze", "transpose", "round")],
    (lambda np, x: (x[...], x[:], x[()], x[[0, 1, 2, 3]], x[[True] * 4], x[None], x.T, x.real), V),
]

# For fastgrad.special, or scipy.special.
SPECIAL = [
    (lambda m, x: m.softmax(x), V), (lambda m, x: m.softmax(x, axis=0), M),
    (lambda m, x: m.softmax(x, axis=(0, 2)), T3), (lambda m, x: m.log_softmax(x), M),
    (lambda m, x: m.log_softmax(x, axis=-1), M), (lambda m, x: m.logsumexp(x), M),
    (lambda m, x: m.logsumexp(x, axis=1, keepdims=True), M),
    (lambda m, x, y: m.logsumexp(x, axis=0, b=y * y), M, M),
    (lambda m, x, y: m.logsumexp(x, b=y * y), M, V),
    (lambda m, x, y: m.logsumexp(x, 1, y, True, True), M, V),
    (lambda m, x, y: m.logsumexp(x, b=[[1.0], [0.0], [2.0]], axis=0), M, M),
    (lambda m, x: m.expit(x), V), (lambda m, x: m.erf(x), V), (lambda m, x: m.exp2(x), V),
    (lambda m, x: m.expm1(x), V), (lambda m, x: m.log1p(x), V), (lambda m, x: m.cbrt(x), V),
    (lambda m, x, y: m.xlogy(x, y * y), V, V), (lambda m, x, y: m.xlog1py(x, y), V, M),
    (lambda m, x: m.xlog1py(0 * x, x), V),
]

# ---- methods ------------------------------------------------------------------------------------

METHODS = [(lambda np, x, name=name, arguments=arguments: getattr(x, name)(*arguments), shape)
           for name, arguments, shape in [
    ("mean", (0,), M), ("mean", ((),), V), ("var", (1,), M), ("std", (), M), ("prod", (0,), M),
    ("max", (1,), M), ("min", (), M), ("sum", (0,), M), ("ravel", (), M), ("flatten", (), M),
    ("squeeze", (), (1, 3, 1)), ("squeeze", (), V), ("transpose", (), M), ("transpose", (1, 0), M),
    ("transpose", ((1, 0),), M), ("swapaxes", (0, 1), M), ("dot", (np.ones(4),), M),
    ("clip", (-0.5, 0.5), M), ("clip", (0.1,), M), ("round", (1,), M), ("round", (), M),
    ("argmax", (1,), M), ("argmin", (), M), ("argsort", (0,), M), ("all", (0,), M), ("any", (), M),
    ("take", ([0, 1], 1), M), ("repeat", (2, 0), M), ("repeat", (1,), V), ("diagonal", (1,), M),
    ("diagonal", (0, 2, 1), T3), ("cumsum", (1,), M), ("cumprod", (1,), M),
    ("trace", (), M), ("nonzero", (), M), ("conj", (), M),
    ("conjugate", (), M), ("reshape", (2, 6), M), ("reshape", ((4, -1),), M), ("copy", (), M),
    ("astype", (np.float64,), M), ("astype", (np.float32,), M), ("astype", (int,), M),
    ("__getitem__", (slice(1, None),), M), ("__getitem__", ((..., None, 1),), M),
    ("__getitem__", ([0, 2, 0],), M), ("__getitem__", (np.array([True, False, True]),), M),
    ("__getitem__", ((slice(None, None, -1), slice(0, 4, 2)),), M), ("__getitem__", (1,), M),
    ("__pos__", (), V), ("__neg__", (), V), ("__abs__", (), V), ("__invert__", (), V),
    ("__copy__", (), V),
    *[(f"__{side}{name}__", (other,), V) for name, other in [
        ("add", 0), ("sub", 0), ("mul", 1), ("truediv", 2.0), ("floordiv", 1), ("mod", 9),
        ("divmod", 1), ("pow", 1), ("and", 1), ("or", 1), ("xor", 1), ("lshift", 1), ("rshift", 1)]
      for side in ("", "r")],
    *[(f"__{name}__", (0,), V) for name in ("lt", "le", "gt", "ge", "eq", "ne")],
    ("__matmul__", (np.ones(4),), V), ("__matmul__", (np.ones((4, 2)),), M),
    ("__rmatmul__", (np.ones((2, 3)),), M)]] + [
    *[(lambda np, x, order=order: x.flatten(order), M) for order in "CF"],
    *[(lambda np, x, order=order: x.reshape(4, 3, order=order), M) for order in "CF"],
    (lambda np, x: (x.T, x.mT, x.real), M),
    (lambda np, x: (x.flat[3], x.flat[1:9:2], x.flat[[0, 2]], x.flat.copy()), M),
    (lambda np, x: np.stack(list(x.flat)), M),
    (lambda np, x: x.astype(x.dtype, copy=False), M),
    (lambda np, x: (x.shape, x.ndim, x.size, x.dtype, x.itemsize, x.nbytes), M),
    *[(lambda np, x, y: x @ y, a, b) for a, b in [(V, V), (M, V), (T3, (4, 2))]],
]


# ---- arrays, and what comes of them ---------------------------------------------------------

def named(calls):
    """The calls as test parameters, with a readable name each."""
    parameters = []
    for number, (call, *shapes) in enumerate(calls):
        names = [name for name in call.__code__.co_names if hasattr(np, name)]
        extra = [value for value in call.__defaults__ or () if isinstance(value, str)]
        parameters.append(pytest.param(call, shapes,
                                       id=f"{number}-{'.'.join(extra[:1] + names[:2])}"))
    return parameters


def draw(shapes, dtype=np.float64, seed=0):
    """Arrays without ties, away from the kinks of the calls."""
    generator = np.random.default_rng(seed)
    arrays = []
    for shape in shapes:
        entries = np.arange(np.prod(shape, dtype=int)) + generator.uniform(0.2, 0.8)
        generator.shuffle(entries)
        arrays.append(((2 * entries + 1) / max(2 * entries.size, 5) - 1).reshape(shape)
                      .astype(dtype))
    return arrays


def parts(result):
    """The arrays of a result, which may be a tuple."""
    return [part for r in result for part in parts(r)] if isinstance(result, (tuple, list)) \
        else [result]


def value(x):
    return x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)


def assert_same(mine, expected, dtype=np.float64):
    """Equal, up to rounding where they are floating numbers."""
    if np.asarray(expected).dtype.kind == "f":
        bound = 2e-5 if dtype == np.float32 else 1e-11
        np.testing.assert_allclose(value(mine), value(expected), rtol=bound, atol=bound / 10)
    else:
        assert np.array_equal(value(mine), value(expected))


def weighted(result):
    """A scalar that depends on every entry of a result, each with a weight of its own."""
    return sum(fnp.sum(part * np.cos(1 + k + np.arange(part.size)).reshape(part.shape)
                       .astype(part.dtype))
               for k, part in enumerate(parts(result)))


# ---- names --------------------------------------------------------------------------------------

ROWS = {name: row for row in core.operators() if row.name in core.functions and not row.inner
        and row.arity in (1, 2) for name in (row.name, *row.numpy)}
FUNCTIONS = {name: function for name, function in vars(fnp).items()
             if not name.startswith("_") and name not in ROWS and callable(function)
             and not isinstance(function, type)}
LINALG = {name: function for name, function in vars(fnp.linalg).items()
          if not name.startswith("_") and hasattr(np.linalg, name) and callable(function)}



def row_calls(name, row):
    """Calls of a row of the table, with numbers of its domain."""
    if row.arity == 1:
        middle, half = (row.low + row.high) / 2, (row.high - row.low) * 0.4
        return [*[(lambda np, x: getattr(np, name)(x * half + middle), shape)
                  for shape in (S, V, M, EMPTY)],
                (lambda np, x: getattr(np, name)(abs(x) * 0 + 1), V),
                *[(lambda np, x: getattr(np, name)(x), V)] * (row.low < -1 < 1 < row.high)]
    return [*[(lambda np, x, y: getattr(np, name)(abs(x) + 1, abs(y) + 1), a, b)
              for a, b in [(S, S), (M, V), (M, S), (EMPTY, (3,))]],
            (lambda np, x: getattr(np, name)(abs(x) + 1, 1), V),
            (lambda np, x: getattr(np, name)(2, abs(x) + 1), V),
            *[(lambda np, x, n=n: getattr(np, name)(x, n), V) for n in (0, 1)],
            (lambda np, x: getattr(np, name)(x, x), V)]


# ufuncs that have no derivative, and are computed by value. On integers and booleans only, where
# NumPy has no others.
PLAIN = {ufunc.__name__: ufunc for ufunc in core.PLAIN_UFUNCS}


def plain_calls(name, ufunc):
    return [(lambda np, *xs: getattr(np, name)(*xs), *shapes)
            for shapes in ([(V,), (M,), (EMPTY,), (S,)] if ufunc.nin == 1 else
                           [(V, V), (M, V), (S, V)])]


class Witness:
    """A namespace that notes the names asked of it."""

    def __init__(self, namespace, seen, prefix=""):
        self.namespace, self.seen, self.prefix = namespace, seen, prefix

    def __getattr__(self, name):
        found = getattr(self.namespace, name)
        if isinstance(found, types.ModuleType):
            return Witness(found, self.seen, f"{name}.")
        self.seen.add(self.prefix + name)
        return found


@functools.cache
@np.errstate(all="ignore")
def table():
    """The calls by name."""
    found = {}
    for calls, namespace, prefix in [(CALLS + VALUES + IDLE, np, ""),
                                     (SPECIAL, special, "special."),
                                     ([(call,) for call in CREATION], np, "")]:
        for call, *shapes in calls:
            seen = set()
            call(Witness(namespace, seen, prefix), *draw(shapes))
            for name in seen:
                found.setdefault(name, []).append((call, *shapes))
    for call, *shapes in METHODS + IDLE:
        for name in {*call.__code__.co_names, *(x for x in call.__defaults__ or ()
                                                if isinstance(x, str))}:
            if hasattr(np.ndarray, name) and hasattr(Tensor, name) or name in core.METHODS:
                found.setdefault(f"ndarray.{name}", []).append((call, *shapes))
    for name, row in ROWS.items():
        found.setdefault(name, []).extend(row_calls(name, row))
    for name, ufunc in PLAIN.items():
        found.setdefault(name, []).extend(plain_calls(name, ufunc))
    return found


def cases(name):
    """The calls of a function or method, each with the shapes of its operands.

    Names are those of fastgrad.numpy, "linalg.norm", "special.erf" and "ndarray.sum".
    """
    return table().get(name, [])


def names():
    """All names."""
    return [*sorted({*FUNCTIONS, *ROWS, *PLAIN}), *(f"linalg.{name}" for name in sorted(LINALG)),
            *(f"special.{name}" for name in special.__all__),
            *(f"ndarray.{name}" for name in sorted({*dir(np.ndarray)} & {*dir(fg.tensor([[1.0]]))})
              if name not in vars(object))]
