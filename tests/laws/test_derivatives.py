"""Laws of differentiation for every row of the operator table and every shaped operator, in both
modes, in every nesting, to order four, float32 and float64.

A law looks at t -> <w, f(x + t v)>, whose derivatives are numbers whatever f takes and returns.
"""

import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad.graphs.record import record
from fastgrad.graphs.replay import Replay
from laws import differentiated
from laws.examples import (
    DTYPES,
    ROUNDED,
    ROWS,
    SHAPED,
    generator,
    name_of,
    operands,
    shaped,
    special_operands,
    wanted,
)

# Many rows are flat, and derivatives of polynomials of low degree are constant.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not depend")

# How the derivatives of one order come about: the modes from the innermost derivative outwards.
NESTINGS = {
    1: ("f", "r"),
    2: ("ff", "fr", "rf", "rr"),
    3: ("fff", "rrr", "frf", "rfr"),
    4: ("ffff", "rrrr", "frrf"),
}


def along(f, args, which, key):
    """t -> <w, f(args + t v)> for random v (at the places in `which`) and w."""
    rng = generator(key, "along")
    vs = {k: rng.uniform(0.5, 1, np.shape(args[k])).astype(args[k].dtype)
          * rng.choice([-1, 1], np.shape(args[k])).astype(args[k].dtype) for k in which}
    shape = np.shape(np.asarray(core.settled(f(*args))))
    w = rng.uniform(0.5, 1.5, shape).astype(args[which[0]].dtype)

    def phi(t):
        moved = [x + t * vs[k] if k in vs else x for k, x in enumerate(args)]
        return fnp.sum(f(*moved) * w)

    return phi


def derivative_number(phi, modes, t=0.0):
    with warnings.catch_warnings():
        # The derivative of a polynomial of lower degree does not depend on t: it is zero.
        warnings.simplefilter("ignore", UserWarning)
        return float(differentiated(phi, modes)(t))


def check_orders(phi, dtype, kinks=False, highest=4):
    """Every nesting of each order agrees, and is the slope of the order before it."""
    near = {"float64": 1e-8, "float32": 2e-3}[np.dtype(dtype).name]
    step = {"float64": 2e-5, "float32": 2e-2}[np.dtype(dtype).name]
    for order in range(1, highest + 1):
        found = {modes: derivative_number(phi, modes) for modes in NESTINGS[order]}
        first = next(iter(found.values()))
        scale = max(1.0, abs(first), *map(abs, found.values()))
        for modes, value in found.items():
            assert abs(value - first) <= near * scale, (order, found)
        if kinks or dtype == "float32":
            continue
        before = "r" * (order - 1)
        up, down = (derivative_number(phi, before, t) for t in (step, -step))
        slope = (up - down) / (2 * step)
        assert abs(slope - first) <= 3e-5 * max(scale, abs(up)), (order, slope, found)


# ---- the table ------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_order_and_nesting_of_a_row(row, dtype):
    args = operands(row, dtype, (3,))
    which = wanted(row)
    for places in dict.fromkeys([*((k,) for k in which), tuple(which)]):
        phi = along(core.functions[row.name], args, places, (row.name, dtype, places))
        check_orders(phi, dtype, kinks=not row.smooth)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_order_and_nesting_of_scalars(row):
    args = [np.float64(x[()]) if x.dtype.kind == "f" else bool(x)
            for x in operands(row, "float64", ())]
    which = wanted(row)
    phi = along(core.functions[row.name], args, tuple(which), (row.name, "scalars"))
    check_orders(phi, "float64", kinks=not row.smooth, highest=3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", [row for row in ROWS if row.arity > 1], ids=name_of)
def test_every_order_under_broadcasting(row, dtype):
    for shapes in [((3, 1), (2,), (3, 2)), ((), (3,), (1,)), ((2, 1, 3), (1, 1), ())]:
        args = operands(row, dtype, list(shapes[:row.arity]), key="broadcast")
        phi = along(core.functions[row.name], args, tuple(wanted(row)), (row.name, shapes))
        check_orders(phi, dtype, kinks=not row.smooth, highest=2)


def products(f, args, which, key):
    """<u, J v> by forward mode and <J' u, v> by reverse mode."""
    rng = generator(key, "products")
    chosen = [args[k] for k in which]

    def g(*xs):
        full = list(args)
        for k, x in zip(which, xs, strict=True):
            full[k] = x
        return f(*full)

    vs = tuple(rng.uniform(-1, 1, np.shape(x)).astype(np.asarray(x).dtype) for x in chosen)
    y, dy = fg.jvp(g, tuple(chosen), vs)
    u = rng.uniform(-1, 1, np.shape(y)).astype(np.asarray(y).dtype)
    pulled = fg.vjp(g, *chosen)[1](u)
    y2, push = fg.linearize(g, *chosen)
    np.testing.assert_array_equal(np.asarray(y2), np.asarray(y))
    for a, b in zip(pulled, chosen, strict=True):
        assert np.shape(a) == np.shape(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
    assert np.shape(dy) == np.shape(y)
    assert np.asarray(dy).dtype == np.asarray(y).dtype
    np.testing.assert_array_equal(np.asarray(push(*vs)), np.asarray(dy))
    return (float(np.sum(np.asarray(u, np.float64) * dy)),
            float(sum(np.sum(np.asarray(a, np.float64) * v)
                      for a, v in zip(pulled, vs, strict=True))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_forward_and_reverse_are_transposes(row, dtype):
    """<u, J v> = <J' u, v>."""
    for shapes in [((4,),) * 3, ((3, 1), (2,), (3, 2)), ((), (), ()), ((0,),) * 3, ((5000,), (), (1,))]:
        args = operands(row, dtype, list(shapes[:row.arity]), key="transposes")
        forward, reverse = products(core.functions[row.name], args, wanted(row), (row.name, shapes))
        size = max(1, np.prod(np.broadcast_shapes(*shapes)) ** 0.5)
        assert abs(forward - reverse) <= size * {"float64": 1e-13, "float32": 3e-6}[dtype] * max(
            1, abs(forward)), shapes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_both_modes_and_recorded_sweeps_agree_at_special_values(row, dtype):
    """Infinities, zeros and NaN: element by element, four ways to the same partial."""
    args = special_operands(row, dtype)
    function = core.functions[row.name]
    for k in wanted(row):
        others = list(args)

        def f(x):
            others[k] = x
            full = [a if a.dtype != bool else a for a in others[:k]] + [x] + others[k + 1:]
            return function(*full)

        def total(x):
            return fnp.sum(f(x))

        x = args[k]
        with np.errstate(all="ignore"):
            forward = fg.jvp(f, (x,), (np.ones_like(x),))[1]
            pulled = fg.vjp(f, x)[1](np.ones_like(x))[0]
            leaf = fg.tensor(x, requires_grad=True)
            y = f(leaf)
            recorded = pulled if not y.requires_grad else fg.gradients(
                y, leaf, seed=np.ones_like(x), create_graph=True).numpy()
        np.testing.assert_array_equal(np.isnan(forward), np.isnan(pulled))
        np.testing.assert_allclose(forward, pulled, rtol=0, atol=0)
        np.testing.assert_array_equal(np.isnan(recorded), np.isnan(pulled))
        near = {"float64": 1e-14, "float32": 4e-6}[dtype]
        np.testing.assert_allclose(recorded, pulled, rtol=near, atol=1e-300)


# ---- shaped operators -----------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@shaped
def test_every_order_and_nesting_of_a_shaped_operator(name, dtype):
    if name in ROUNDED:
        dtype = "float32"           # differences do not see through rounding to float32
    f, x = SHAPED[name]
    check_orders(along(f, [x.astype(dtype)], (0,), name), dtype,
                 highest=3 if "element" in name else 4)


@pytest.mark.parametrize("dtype", DTYPES)
@shaped
def test_forward_and_reverse_of_a_shaped_operator_are_transposes(name, dtype):
    if name in ROUNDED:
        dtype = "float32"           # what is rounded on the way differs between the modes
    f, x = SHAPED[name]
    forward, reverse = products(f, [x.astype(dtype)], [0], name)
    near = {"float64": 1e-12, "float32": 2e-5}[dtype]
    assert abs(forward - reverse) <= near * max(1, abs(forward))


@pytest.mark.parametrize("name", [name for name in SHAPED if name not in ROUNDED])
def test_jacobians_by_both_modes_and_any_chunk(name):
    f, x = SHAPED[name]
    reverse = fg.jacobian(f, mode="reverse")(x)
    for options in ({"mode": "forward"}, {"mode": "forward", "chunk": 5}, {"mode": "auto"}):
        np.testing.assert_allclose(fg.jacobian(f, **options)(x), reverse, rtol=1e-12, atol=1e-12)
    out = np.ndim(reverse) - 2
    np.testing.assert_array_equal(
        fg.jacobian(f, mode="reverse", layout="denominator")(x),
        np.transpose(reverse, [*range(out, out + 2), *range(out)]))


# ---- operands and intermediate results that somebody holds -----------------------------------

class Kept:
    """A function run node by node, that does something with every intermediate result.

    Parameters
    ----------
    f : callable
    args : list
        What to record it with.
    how : str
        "held" : all of them stay alive until the end. "returned" : and are returned, the arguments
        too. "detached" : a detached one of each is. "dropped" : every other one is let go of and
        asked for again. "crowded" : returned, and after each step enough scalar operations follow
        for a stream to give tangents to all that is there.
    """
    HOW = ("held", "returned", "detached", "dropped", "crowded")

    def __init__(self, f, args, how):
        self.how = how
        self.replay = Replay(record(lambda tensors: [f(*tensors)], args).graph)

    def __call__(self, *xs):
        replay, kept, other = self.replay, [], []
        found = list(replay.start)
        for i, x in zip(replay.graph.inputs, xs, strict=True):
            found[i] = x
        for i, step, _ in replay.steps:
            t = found[i] = step(found)
            if self.how == "detached":
                other.append(t.detach())
            elif self.how == "dropped":
                found[i] = t = (t * 1.0 if t.dtype.kind == "f" else t)
            elif self.how == "crowded":
                number = fnp.sum(xs[0]) * 0.5
                for _ in range(1100):
                    number = number * 0.5
                t = (t + number * 0.0 if t.dtype.kind == "f" else t)
            kept.append(t)
            del t
        results = [found[i] for i in replay.graph.outputs]
        if self.how in ("returned", "crowded"):
            results += [*xs, *(t for t in kept if t.dtype.kind == "f")]
        return results + other


def check_kept(f, args, which, key):
    """Streamed, pushed and pulled derivatives agree for whatever is kept."""
    rng = generator(key, "kept")
    vs = [rng.uniform(-1, 1, np.shape(args[k])).astype(np.asarray(args[k]).dtype) for k in which]
    chosen = [args[k] for k in which]
    near = 1e-12 if all(v.dtype == np.float64 for v in vs) else 2e-5

    def of(*xs):
        full = list(args)
        for k, x in zip(which, xs, strict=True):
            full[k] = x * 1.0
        return f(*full)

    for how in Kept.HOW:
        g = Kept(of, chosen, how)
        y, dy = fg.jvp(g, tuple(chosen), tuple(vs))
        y2, push = fg.linearize(g, *chosen)
        assert len(dy) == len(y) == len(y2)
        for found, expected in zip([*y, *dy], [*y2, *push(*vs)], strict=True):
            # Products of matrices depend on how their memory lies in the last bits.
            np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=near,
                                       atol=near / 10, err_msg=how)
        y3, pull = fg.vjp(g, *chosen)
        us = [rng.uniform(-1, 1, np.shape(v)).astype(np.result_type(v, np.float32)) for v in y3]
        pulled = pull(us)
        forward = sum(np.sum(np.asarray(u, np.float64) * d) for u, d in zip(us, dy, strict=True))
        reverse = sum(np.sum(np.asarray(a, np.float64) * v) for a, v in zip(pulled, vs, strict=True))
        size = sum(np.sum(abs(np.asarray(u, np.float64) * d)) for u, d in zip(us, dy, strict=True))
        assert abs(forward - reverse) <= near * max(1, size), how


@pytest.fixture(params=[False, True], ids=["at once", "waiting"])
def waiting(request):
    """Whether array results wait until somebody looks, as large ones do."""
    before = core.lazy_threshold()
    if request.param:
        core.lazy_threshold(1)
    yield request.param
    core.lazy_threshold(before)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_what_is_kept_of_a_row_changes_nothing(row, waiting):
    args = operands(row, "float64", [(3, 1), (2,), (3, 2)][:row.arity], key="kept")
    check_kept(core.functions[row.name], args, wanted(row), row.name)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("dtype", DTYPES)
@shaped
def test_what_is_kept_of_a_shaped_operator_changes_nothing(name, dtype, waiting):
    if name in ROUNDED:
        dtype = "float32"           # what is rounded on the way differs between the modes
    f, x = SHAPED[name]
    check_kept(f, [x.astype(dtype)], [0], name)
