"""Laws over the table of what is computed by value, fastgrad/numpy/_plain.py: each holds of a
new row unasked. Those that are WHOLE or COUNTED have their calls here; the others tell theirs.
"""

import functools
import pickle
import warnings

import numpy as np
import pytest
from laws.calls import M, S, V, parts, value

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad.graphs.replay import replay
from fastgrad.numpy import _plain as plain
from fastgrad.numpy._dispatch import evaluated
from fastgrad.numpy._plain import ALONG, COUNTED, ENTRY, PLAIN, SHAPE, WHOLE
from fastgrad.transforms.vmap import map_graph

HERE = [name for name, row in PLAIN.items() if row.value is not None]
CALLABLE = [name for name in HERE if PLAIN[name].axes is not SHAPE]
# New in later versions of NumPy than the oldest one that is supported.
LATER = {f"numpy.{name}" for name in (
    "bitwise_count", "bitwise_invert", "bitwise_left_shift", "bitwise_right_shift", "pow", "acos",
    "acosh", "asin", "asinh", "atan", "atan2", "atanh")}

# ---- calls --------------------------------------------------------------------------------------

OPERANDS = {"clip": 3, "where": 3, "isclose": 2}        # of what is no ufunc; else one
ONE = [(lambda f, x: f(x), shape) for shape in (V, M)]
TWO = [(lambda f, x, y: f(x, y), V, V), (lambda f, x, y: f(x, y), V, (2,))]
SOME = [(lambda f, x, y: f(x[:1] > 0, y[:1] > 0), V, V)]
CALLS = {
    "isin outer": TWO,
    "allclose array_equal array_equiv inner dot": TWO[:1],
    "union1d intersect1d setdiff1d": TWO + SOME,
    "argpartition partition": [
        (lambda f, x: f(x, 2), V), (lambda f, x: f(x, 1), M), (lambda f, x: f(x, 1, 0), M),
        (lambda f, x: f(x, 1, axis=None), M)],
    "vstack hstack": [(lambda f, x, y: f((x, y)), V, V)],
    "concatenate stack lexsort": [
        (lambda f, x, y: f((x, y)), V, V), (lambda f, x, y: f((x, y), axis=-1), V, V)],
    "compress extract": [(lambda f, x, y: f(x > 0, y), V, V)],
    "tile repeat roll": [(lambda f, x: f(x, 2), M), (lambda f, x: f(x, 1), V)],
    "diag tril triu trace diagonal": [(lambda f, x: f(x), M), (lambda f, x: f(x, 1), M)],
    "linspace": [(lambda f, x, y: f(x, y, 5), S, S)],
    "full_like": [(lambda f, x, y: f(x, y), M, S)],
    "copy array asarray zeros_like ones_like nan_to_num squeeze ravel transpose flip unique": ONE,
    "nonzero flatnonzero argwhere atleast_1d atleast_2d atleast_3d": ONE,
    "searchsorted": [
        (lambda f, x: f([-1, 0, 2], x), M), (lambda f, x, y: f(x, y, "right"), (1,), V)],
    "digitize": [(lambda f, x: f(x, [-2, 0, 2]), M)],
    "select": [(lambda f, x, y: f([x > 0, y > 0], [x, y]), V, V)],
    "choose": [(lambda f, x, y: f((x > 0) * 1, (x, y)), V, V)],
    "unravel_index": [(lambda f, x: f((x > 0) * 2, (3, 4)), V)],
    "ravel_multi_index": [(lambda f, x, y: f(((x > 0) * 1, (y > 0) * 2), (3, 4)), V, V)],
    "diff": [(lambda f, x: f(x), M), (lambda f, x: f(x, 2, 0), M)],
    "full": [(lambda f, x: f((2, 3), x), S)],
    "bincount": [(lambda f, x: f((x[:2] > 0) * 1), V)],
    "delete": [(lambda f, x, y: f(x, y > 0), V, V)],
    "ix_": [(lambda f, x, y: f(x, y), V, V)],
    "reshape": [(lambda f, x: f(x, (2, -1)), M)],
    "expand_dims": [(lambda f, x: f(x, 1), M)],
    "swapaxes moveaxis": [(lambda f, x: f(x, 0, 1), M)],
    "broadcast_to": [(lambda f, x: f(x, (2, 4)), V)],
    "take": [(lambda f, x: f(x, [0, 2], 1), M), (lambda f, x, y: f(x, (y > 0) * 1), V, V)],
    "take_along_axis": [(lambda f, x, y: f(x, (y > 0) * 1, 0), V, V)],
    "matmul": [(lambda f, x, y: f(x, y), M, (4, 2))],
    "astype": [(lambda f, x: f(x, "float32"), M)],
}
CALLS = {f"numpy.{name}": found for names, found in CALLS.items() for name in names.split()}


def calls(name):
    """Calls of a row, each with the shapes of its operands."""
    row = PLAIN[name]
    if name in CALLS:
        return CALLS[name]
    if row.axes is ENTRY:
        count = getattr(row.value, "nin", OPERANDS.get(name.removeprefix("numpy."), 1))
        return [(lambda f, *xs: f(*xs), *shapes) for shapes in {
            1: [(S,), (V,), (M,)], 2: [(V, V), (M, V), (S, V), (V, (3, 1))],
            3: [(V, V, V), (M, V, S)]}[count]]
    if row.axes is ALONG:
        found = [(lambda f, x: f(x), V), (lambda f, x: f(x), M),
                 *[(lambda f, x: f(x), S)] * (row.axis is None),
                 *[(lambda f, x, axis=axis: f(x, axis), M) for axis in (0, -1, None)],
                 *[(lambda f, x, axis=axis: f(x, axis=axis), (2, 3, 2)) for axis in (None, 1, -3)]]
        return found if row.keeps else [*found, (lambda f, x: f(x, axis=0, keepdims=True), M),
                                        (lambda f, x: f(x, keepdims=True), M)]
    raise AssertionError(f"nobody knows how {name} is called: put it into CALLS")


# What is made of the data before a function gets it.
KINDS = {"floats": lambda x: x, "mask": lambda x: x > 0, "whole": lambda x: (x * 5.0).astype(int)}


def drawn(shape, seed, operand=0):
    """Numbers whose order, signs and counts differ from seed to seed."""
    rng = np.random.default_rng((seed, operand))
    x = rng.permutation(np.linspace(-0.9, 0.9, int(np.prod(shape))))
    return np.clip(x.reshape(shape) + (0.01, 0.37, -0.41)[seed], -0.95, 0.95)


def points_of(shapes):
    return [[drawn(shape, seed, k) for k, shape in enumerate(shapes)] for seed in range(3)]


@functools.cache
def cases(name):
    """A function of arrays with NumPy's function and with what Tensors record of it, and the shapes
    of the arrays; of the first call for each kind of data that NumPy takes, of others for one."""
    def derived(*args, **options):
        return core.derive(name, PLAIN[name].value, args, options)

    found = []
    for number, (call, *shapes) in enumerate(calls(name)):
        before = len(found)
        for kind in KINDS.values():
            numpys, mine = (lambda *xs, f=f, call=call, kind=kind: tuple(
                parts(call(f, *map(kind, xs)))) for f in (PLAIN[name].value, derived))
            try:
                results = numpys(*points_of(shapes)[0])
            except (TypeError, ValueError, IndexError):
                continue
            if all(np.asarray(y).dtype.char in "?bhilqBHILQfd" for y in results):
                found.append((numpys, mine, shapes))
                if number:
                    break
        assert len(found) > before, f"{name}: NumPy refuses call {number}"
    return found


def assert_same(found, wanted, where):
    assert len(found) == len(wanted), where
    for x, y in zip(map(value, found), map(np.asarray, wanted), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape, where
        rtol = 0.0 if x.dtype.kind != "f" else 1e-12 if x.dtype == float else 1e-6
        np.testing.assert_allclose(x, y, rtol=rtol, err_msg=where)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


# ---- the laws -----------------------------------------------------------------------------------

def names_called(graph):
    return {graph.attribute(i)[0] for i in range(len(graph)) if graph.name(i) == "call"}


def law_of_replays(name):
    """A program calls the function by its name, and gives its value for fresh data; from a file,
    too."""
    recorded = 0
    for numpys, mine, shapes in cases(name):
        program, counted = fg.compile(mine), PLAIN[name].axes is COUNTED
        for point in points_of(shapes):
            assert_same(program(*point), numpys(*point), name)
        assert counted or len(program.paths) == 1 and program.paths[0].calls == 3, name
        if not program.paths:
            continue
        recorded += 1
        assert all(name in names_called(path.graph) for path in program.paths), name
        loaded = pickle.loads(pickle.dumps(program.paths_only()))
        for point in points_of(shapes):
            try:
                found = loaded(*point)
            except fg.GuardError:
                assert counted, name
            else:
                assert_same(found, numpys(*point), name)
    assert recorded or PLAIN[name].axes is COUNTED and PLAIN[name].counted is None, name


def law_of_lanes(name):
    """Lanes give what each of them gives, and where the row tells how, they are one more axis."""
    for numpys, mine, shapes in cases(name):
        points, count = points_of(shapes), len(shapes)
        program = fg.compile(mine)
        program(*points[0])
        for has in {(True,) * count, (True, *[False] * (count - 1)),
                    (*[False] * (count - 1), True)}:
            lanes = [[x if lane else y for lane, x, y in zip(has, point, points[0], strict=True)]
                     for point in points]
            alone = [numpys(*point) for point in lanes]
            columns = [np.stack(xs) if lane else xs[0]
                       for lane, xs in zip(has, zip(*lanes, strict=True), strict=True)]
            try:
                found = fg.vmap(mine, tuple([0 if lane else None for lane in has]))(*columns)
            except ValueError:
                # Shapes and Python's booleans are decisions.
                assert PLAIN[name].axes is COUNTED or type(alone[0][0]) is bool, name
                continue
            assert_same(found, list(map(np.stack, zip(*alone, strict=True))), f"{name}, {has}")
            if PLAIN[name].axes in (ENTRY, ALONG) and len(alone[0]) == 1:
                made = map_graph(program.paths[0].graph, has, len(lanes))[0]
                assert "fastgrad.lanes" not in names_called(made), name
                assert_same(replay(made, columns), [np.stack([y for y, in alone])], name)
                assert made.shape(made.outputs[0]) == (len(lanes), *np.shape(alone[0][0])), name


def law_of_shapes(name):
    """The shape of a result depends on values where the row says so, and nowhere else."""
    varied = False
    for numpys, _, shapes in cases(name):
        found = [[np.shape(y) for y in numpys(*point)] for point in points_of(shapes)]
        varied |= any(other != found[0] for other in found)
    assert varied == (PLAIN[name].axes is COUNTED), name


def law_of_derivatives(name):
    """The value is a constant of the derivative, in both modes."""
    for numpys, mine, shapes in cases(name)[:3]:
        def f(*xs, mine=mine):
            return sum(fnp.sum(y * 1.0) for y in mine(*xs)) + sum(fnp.sum(x * x) for x in xs)

        point = points_of(shapes)[1]
        wanted = sum(np.sum(y * 1.0) for y in numpys(*point)) + sum(np.sum(x * x) for x in point)
        found, gradients = fg.value_and_grad(f, tuple(range(len(point))))(*point)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=name)
        for g, x in zip(gradients, point, strict=True):
            np.testing.assert_allclose(g, 2 * x, rtol=1e-14, err_msg=name)
        found, tangent = fg.jvp(f, tuple(point), tuple([np.ones_like(x) for x in point]))
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(tangent, sum(np.sum(2 * x) for x in point), rtol=1e-12)


LAWS = law_of_replays, law_of_lanes, law_of_shapes, law_of_derivatives


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", CALLABLE)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_laws(law, name):
    assert core.CALLED[name] is PLAIN[name].value
    law(name)


@pytest.mark.parametrize("name, lie", [
    ("argsort", {"axis": None}), ("argsort", {"axis": 0}), ("argmax", {"axis": -1}),
    ("sort", {"axes": ENTRY}), ("cumsum", {"keeps": False}), ("any", {"keeps": True}),
    ("any", {"axes": ENTRY}), ("roll", {"axes": ENTRY}), ("ravel", {"axes": ALONG}),
    ("diff", {"axes": ALONG}), ("partition", {"axes": ALONG}), ("nonzero", {"axes": WHOLE}),
    ("unique", {"axes": WHOLE}), ("trace", {"axes": COUNTED}), ("lexsort", {"axes": ENTRY})])
def test_a_row_that_lies_breaks_a_law(name, lie, monkeypatch):
    name = f"numpy.{name}"
    cases(name)                         # which are those of the true row
    monkeypatch.setitem(PLAIN, name, PLAIN[name]._replace(**lie))
    with pytest.raises((AssertionError, ValueError, TypeError, IndexError)):
        for law in LAWS:
            law(name)


@pytest.mark.parametrize("name", [name for name in HERE if PLAIN[name].axes is SHAPE])
def test_what_tells_shapes_alone(name):
    f = PLAIN[name].value
    for x in (np.array([-1.0, np.nan, np.inf, 3.0]), np.array([[2, 0]]), np.array([True])):
        assert f(x) == f(np.zeros_like(x)) == evaluated(f, (fg.tensor(x),), {})
        program = fg.compile(lambda x: (evaluated(f, (x,), {}), x * 2)[1])
        program(x)
        graph = program.paths[0].graph
        assert not graph.guards and name not in names_called(graph)


def test_names():
    assert {name for name in PLAIN if name not in HERE} <= LATER
    assert {f"numpy.{f.__name__}" for f in core.PLAIN_UFUNCS} <= {
        name for name, row in PLAIN.items() if row.axes is ENTRY}
    for name in CALLABLE:
        f = PLAIN[name].value
        if isinstance(f, np.ufunc) and f.signature is None:
            assert PLAIN[name].axes is ENTRY, name


def test_no_name_has_two_rows():
    with pytest.raises(ValueError, match=r"numpy\.argsort has two rows"):
        plain.on_values("argsort", WHOLE)
