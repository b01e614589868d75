"""Laws of differentiation for every row of the operator table and every shaped operator, in both
modes, in every nesting, to order four, float32 and float64.

A law looks at t -> <w, f(x + t v)>, whose derivatives are numbers whatever f takes and returns.
"""

import itertools
import math
import warnings

import numpy as np
import pytest
from laws import DTYPES, ROWS, generator, name_of, operands, special_operands, wanted

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad._record import record
from fastgrad._replay import Replay

# Many rows are flat, and derivatives of polynomials of low degree are constant.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not depend")

CURVED = [row for row in ROWS if row.smooth and row.arity == 1 and row.reads != ("",)]

# How the derivatives of one order come about: the modes from the innermost derivative outwards.
NESTINGS = {
    1: ("f", "r"),
    2: ("ff", "fr", "rf", "rr"),
    3: ("fff", "rrr", "frf", "rfr"),
    4: ("ffff", "rrrr", "frrf"),
}


def differentiated(phi, modes):
    """phi's derivative, of the order and by the modes that the string says."""
    for mode in modes:
        if mode == "f":
            phi = (lambda inner: lambda t: fg.jvp(inner, (t,), (1.0,))[1])(phi)
        else:
            phi = fg.grad(phi)
    return phi


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

A = np.linspace(0.5, 2.0, 12)[[3, 7, 1, 10, 5, 0, 8, 2, 11, 4, 9, 6]].reshape(3, 4)
B = np.linspace(0.6, 1.9, 12)[[5, 2, 9, 0, 7, 11, 3, 8, 1, 10, 6, 4]].reshape(4, 3)
V = np.array([0.7, 1.3, 0.9, 1.6])


def filled(x):
    """Assignments of every kind to one array."""
    out = fnp.zeros((3, 4), dtype=x.dtype)
    out[0] = x[1]
    out[1, 2] = x[0, 0] * x[0, 1]
    out[:, 3] = x[:, 0]
    out[[0, 2], [1, 1]] = x[2, :2]
    out[2, ::-2] += x[0, 1::2] * out[0, :2]
    return out


def view_written_to(x):
    y = x * 1.0
    y[0][1] = x[2, 2] * y[0, 1]
    y.T[2, 1:] *= x[1, :2]
    return y * y


def element_by_element(x):
    out = fnp.zeros(4, dtype=x.dtype)
    y = x[0, 0]
    for i in range(4):
        y = fnp.sin(y) * x[i % 3, i] + out[i - 1]
        out[i] = y
    return out


SHAPED = {
    "reshape": lambda x: fnp.reshape(x, (2, 6)),
    "transpose": lambda x: fnp.transpose(x),
    "broadcast": lambda x: fnp.broadcast_to(x[:, :1], (2, 3, 4)),
    "flip": lambda x: fnp.flip(x, 1),
    "item": lambda x: x[1],
    "item of a scalar": lambda x: x[1, 2] * x[0, 3] * x[1, 2],
    "item with steps": lambda x: x[::-2, 1:None:2, None],
    "gather": lambda x: x[[0, 2, 0]],
    "gather pairs": lambda x: x[[0, 2, 0, 2], [1, 1, 1, 3]],
    "gather mask": lambda x: x[np.arange(12).reshape(3, 4) % 3 == 0],
    "take_along_axis": lambda x: fnp.take_along_axis(x, np.array([[0, 0], [1, 3], [2, 2]]), 1),
    "scatter": lambda x: core.scatter(x[0], np.array([1, 1, 0, 4]), (5,)),
    "assign": filled,
    "element by element": element_by_element,
    "cast": lambda x: fnp.sum(x.astype(np.float32) * x),
    "concatenate": lambda x: fnp.concatenate([x, x[:1] * 2, np.ones((1, 4))], 0),
    "stack": lambda x: fnp.stack([x, x * x, np.ones((3, 4))], 1),
    "array of scalars": lambda x: fnp.array([x[0, 0], 1.0, x[1, 1] * x[0, 0]]),
    "sum": lambda x: fnp.sum(x),
    "sum of an axis": lambda x: fnp.sum(x * x, axis=1),
    "sum kept": lambda x: x / fnp.sum(x, axis=0, keepdims=True),
    "mean": lambda x: fnp.mean(x * x, axis=(0, 1)),
    "prod": lambda x: fnp.prod(x, axis=1),
    "prod of all": lambda x: fnp.prod(x),
    "prod with a zero": lambda x: fnp.prod(x - A[0, 0], axis=0),
    "max": lambda x: fnp.max(x, axis=0),
    "min": lambda x: fnp.min(x * x),
    "max with ties": lambda x: fnp.max(x * 0 + x[0], axis=0),
    "logsumexp": lambda x: fnp.logsumexp(x, axis=1) if hasattr(fnp, "logsumexp") else
    fg.special.logsumexp(x, axis=1),
    "logsumexp of all": lambda x: fg.special.logsumexp(x * x),
    "softmax": lambda x: fg.special.softmax(x, axis=-1),
    "var": lambda x: fnp.var(x, axis=0),
    "std": lambda x: fnp.std(x, axis=1),
    "norm": lambda x: fnp.linalg.norm(x),
    "matmul": lambda x: x @ B.astype(x.dtype),
    "matmul of itself": lambda x: x @ x.T,
    "matmul with a vector": lambda x: x @ V.astype(x.dtype),
    "vector with matmul": lambda x: x[:, 0] @ x,
    "dot": lambda x: x[0] @ x[1],
    "matmul in batches": lambda x: fnp.reshape(x, (3, 2, 2)) @ fnp.reshape(x, (3, 2, 2)),
    "matmul of a vector in batches": lambda x: fnp.reshape(x, (3, 2, 2)) @ x[0, :2],
    "matmul broadcast": lambda x: fnp.reshape(x, (3, 1, 2, 2)) @ fnp.reshape(x[:2], (2, 2, 2)),
    "einsum": lambda x: fnp.einsum("ij,kj->ik", x, x * x),
    "outer": lambda x: fnp.outer(x[0], x[1]),
    "where": lambda x: fnp.where(x > 1, x * x, fnp.exp(x)),
    "view written to": view_written_to,
    "pieces": lambda x: fnp.sum(x[0] * x[1]) * fnp.prod(x[2]) + fnp.max(x @ B.astype(x.dtype)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPED)
def test_every_order_and_nesting_of_a_shaped_operator(name, dtype):
    if name == "cast" and dtype == "float64":
        dtype = "float32"           # differences do not see through rounding to float32
    x = A.astype(dtype)
    check_orders(along(SHAPED[name], [x], (0,), name), dtype, highest=3 if "element" in name else 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPED)
def test_forward_and_reverse_of_a_shaped_operator_are_transposes(name, dtype):
    if name == "cast":
        dtype = "float32"           # what is rounded on the way differs between the modes
    forward, reverse = products(SHAPED[name], [A.astype(dtype)], [0], name)
    assert abs(forward - reverse) <= {"float64": 1e-12, "float32": 2e-5}[dtype] * max(1, abs(forward))


@pytest.mark.parametrize("name", [name for name in SHAPED if name != "cast"])
def test_jacobians_by_both_modes_and_any_chunk(name):
    x = A.astype(np.float64)
    f = SHAPED[name]
    reverse = fg.jacobian(f, mode="reverse")(x)
    for options in ({"mode": "forward"}, {"mode": "forward", "chunk": 5}, {"mode": "auto"}):
        np.testing.assert_allclose(fg.jacobian(f, **options)(x), reverse, rtol=1e-12, atol=1e-12)
    out = np.ndim(reverse) - 2
    np.testing.assert_array_equal(
        fg.jacobian(f, mode="reverse", layout="denominator")(x),
        np.transpose(reverse, [*range(out, out + 2), *range(out)]))


def test_every_shaped_operator_is_in_the_laws():
    """A new row without a case here is a new row without a test."""
    seen = set()
    for f in SHAPED.values():
        x = core.Trace("laws", [A], ["argument 0"], keep=True)
        x.begin()
        try:
            x.results([f(*x.arguments)])
        finally:
            x.end()
        seen |= {node.op for node in x.nodes()[0]}
    rows = {row.name for row in core.operators() if row.kind == "shaped"}
    rows -= {"leaf", "dual", "custom", "result", "call", "place"}   # place is item's derivative
    assert rows <= seen


# ---- confusion of perturbations -------------------------------------------------------------

def forward(f):
    return lambda x: fg.jvp(f, (x,), (1.0,))[1]


PAIRS = list(itertools.product((fg.grad, forward), repeat=2))


@pytest.mark.parametrize(("outer", "inner"), PAIRS,
                         ids=lambda d: "reverse" if d is fg.grad else "forward")
def test_nested_derivatives_do_not_see_each_other(outer, inner):
    # Siskind and Pearlmutter's trap: d/dx (x d/dy (x + y)) = 1, not 2.
    assert outer(lambda x: x * inner(lambda y: x + y)(1.0))(1.0) == 1.0
    assert outer(lambda x: x * inner(lambda y: x + y)(x))(3.0) == 1.0
    assert outer(lambda x: x * inner(lambda y: x * y)(2.0))(3.0) == 6.0
    assert outer(lambda x: inner(lambda y: x * y)(x))(3.0) == 1.0
    assert outer(lambda x: inner(lambda y: y * y * x)(x))(3.0) == 12.0
    assert outer(lambda x: inner(lambda x: x * x)(x) * x)(3.0) == 12.0

    # A closure that outlives the inner derivative: d/du of u |-> u * w at the outer variable.
    def curried(x):
        kept = []
        inner(lambda y: kept.append(lambda z: z * x * y) or y * y)(x)
        return inner(kept[0])(x)

    assert outer(curried)(3.0) == pytest.approx(6.0)
    # Three levels over one variable.
    assert outer(lambda x: inner(lambda y: outer(lambda z: x * y * z)(y))(x) * x)(2.0) == 4.0


@pytest.mark.parametrize(("outer", "inner"), PAIRS,
                         ids=lambda d: "reverse" if d is fg.grad else "forward")
def test_a_variable_of_the_outer_derivative_is_constant_to_the_inner(outer, inner):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert outer(lambda x: inner(lambda y: x * x)(1.0))(3.0) == 0.0
        assert outer(lambda x: x * inner(lambda y: x * x + 0 * y)(1.0))(3.0) == 0.0


def test_inner_derivatives_of_arrays_taken_in_a_loop():
    """Gradient descent inside a function, differentiated through: an unrolled optimiser."""
    def inner(w, rate):
        for _ in range(20):
            w = w - rate * fg.grad(lambda w: fnp.sum((w * w - 2.0) ** 2))(w)
        return fnp.sum(w)

    w = np.array([1.0, 1.5])
    slope = fg.grad(inner, argnums=1)(w, 0.01)
    step = 1e-6
    assert slope == pytest.approx((inner(w, 0.01 + step) - inner(w, 0.01 - step)) / (2 * step),
                                  rel=1e-6)
    assert fg.jvp(lambda rate: inner(w, rate), (0.01,), (1.0,))[1] == pytest.approx(slope, rel=1e-12)


# ---- backward with create_graph -------------------------------------------------------------

@pytest.mark.parametrize("row", CURVED, ids=name_of)
def test_create_graph_agrees_with_nested_grad(row):
    x, = operands(row, "float64", (3,))
    f = core.functions[row.name]
    leaf = fg.tensor(x, requires_grad=True)
    f(leaf).sum().backward(create_graph=True)
    first = leaf.grad
    assert first.requires_grad
    leaf.grad = None
    first.sum().backward(create_graph=True)
    second = leaf.grad
    leaf.grad = None
    inner = fg.grad(lambda x: fnp.sum(f(x)))
    np.testing.assert_allclose(first.numpy(), inner(x), rtol=1e-14)
    np.testing.assert_allclose(second.numpy(), fg.grad(lambda x: fnp.sum(inner(x)))(x),
                               rtol=1e-14, atol=1e-300)


def test_create_graph_keeps_the_graph_and_accumulates():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    y = (w ** 3).sum()
    y.backward(create_graph=True)
    y.backward(create_graph=True)
    np.testing.assert_allclose(w.grad.numpy(), [6, 24])
    penalty = (w.grad ** 2).sum()
    w.grad = None
    penalty.backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 * np.array([6, 24]) * 12 * np.array([1, 2]))
    assert not w.grad.requires_grad


def test_gradients_of_gradients_of_intermediate_results():
    w = fg.tensor([1.0, 2.0], requires_grad=True)
    h = w * w
    g = fg.gradients((h ** 3).sum(), h, create_graph=True)
    np.testing.assert_allclose(fg.gradients(g.sum(), [h, w])[0].numpy(), [6, 24])
    assert not fg.gradients((w * w).sum(), w).requires_grad


def test_a_gradient_penalty_over_parameters():
    """fg.grad of a Tensor, with parameters in the closure, is recorded."""
    rng = generator("penalty")
    w = fg.tensor(rng.normal(size=(3, 3)), requires_grad=True)
    x = fg.tensor(rng.normal(size=3))
    f = lambda v: fnp.sum(fnp.tanh(w @ v))  # noqa: E731
    g = fg.grad(f)(x)
    (g @ g).backward()

    def plain(w):
        return np.sum(fg.grad(lambda v: fnp.sum(fnp.tanh(w @ v)))(x.numpy()) ** 2)

    numeric = np.zeros((3, 3))
    for i in np.ndindex(3, 3):
        up, down = w.numpy().copy(), w.numpy().copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric[i] = (plain(up) - plain(down)) / 2e-6
    np.testing.assert_allclose(w.grad.numpy(), numeric, rtol=1e-6, atol=1e-8)


# ---- forward mode in constant memory --------------------------------------------------------

def test_a_long_loop_holds_a_few_segments():
    most = []

    def f(x):
        y = x
        for i in range(60_000):
            y = y * 0.9999 + x * 1e-4
            if i % 1000 == 0:
                most.append(core.tape_info()["nodes"])
        return y

    before = core.pool_info()["segments"]
    y, dy = fg.jvp(f, (1.0,), (1.0,))
    assert core.pool_info()["segments"] <= before + 4
    assert max(most) < 3000
    assert y == pytest.approx(1.0)
    assert dy == pytest.approx(1.0)
    assert core.tape_info()["nodes"] == 0


def test_large_arrays_do_not_pile_up():
    x = np.ones(300_000)

    def f(x):
        y = x
        for _ in range(60):
            y = fnp.sin(y) * x
        return fnp.sum(y)

    core.pool_release()
    fg.jvp(f, (x,), (x,))
    # 120 results of 2.4 MB; without forgetting any they would be 288 MB, tangents not counted.
    used = core.pool_info()["used"]
    peak = []

    def watched(x):
        y = x
        for _ in range(60):
            y = fnp.sin(y) * x
            peak.append(core.pool_info()["used"])
        return fnp.sum(y)

    y, dy = fg.jvp(watched, (x,), (x,))
    assert max(peak) - used < 150e6
    z, pull = fg.vjp(f, x)
    assert dy == pytest.approx(float(pull(1.0)[0] @ x), rel=1e-12)


def test_an_inner_gradient_inside_a_long_stream():
    def f(x):
        total = 0.0
        for k in range(400):
            total = total + fg.grad(lambda y: fnp.sin(y) * y * x)(x * (k / 400))
        return total

    step = 1e-6
    y, dy = fg.jvp(f, (0.7,), (1.0,))
    assert y == pytest.approx(f(0.7))
    assert dy == pytest.approx((f(0.7 + step) - f(0.7 - step)) / (2 * step), rel=1e-7)
    assert core.tape_info()["nodes"] == 0


def test_values_that_outlive_their_stream_are_constants():
    kept = []
    fg.jvp(lambda x: kept.append(x * x) or x, (3.0,), (1.0,))
    assert fg.jvp(lambda x: x * kept[0], (2.0,), (1.0,)) == (18.0, 9.0)
    assert fg.grad(lambda x: x * kept[0])(2.0) == 9.0


# ---- what is left on the tape ---------------------------------------------------------------

@pytest.mark.parametrize("modes", ["rr", "ff", "rf", "fr", "rfr", "frf"])
def test_nothing_stays_recorded(modes):
    phi = differentiated(lambda t: fnp.sum(fnp.tanh(t * A) @ B) * t, modes)
    phi(0.3)
    nodes, used = core.tape_info()["nodes"], core.pool_info()["used"]
    for _ in range(5):
        phi(0.3)
    assert core.tape_info()["nodes"] == nodes == 0
    assert core.pool_info()["used"] == used


def test_an_error_inside_leaves_everything_as_it_was():
    def bad(x):
        y = fnp.sin(x) * x
        raise KeyError("inside")

    for call in (lambda: fg.jvp(bad, (1.0,), (1.0,)), lambda: fg.vjp(bad, 1.0),
                 lambda: fg.jacobian(bad)(A), lambda: fg.hvp(bad)(1.0, 1.0),
                 lambda: fg.grad(lambda x: fg.grad(bad)(x))(1.0),
                 lambda: fg.grad(lambda x: fg.jvp(bad, (x,), (1.0,))[1])(1.0),
                 lambda: fg.jvp(lambda x: fg.grad(bad)(x), (1.0,), (1.0,))):
        with pytest.raises(KeyError, match="inside"):
            call()
        assert not core.transforming()
        assert core.is_recording()
        assert fg.grad(lambda x: x ** 3)(2.0) == 12.0
        assert fg.jvp(lambda x: x ** 3, (2.0,), (1.0,)) == (8.0, 12.0)
    assert core.tape_info()["nodes"] == 0


def test_math_of_closed_forms():
    """Orders one to four of sin and of x**5 against what everybody knows."""
    for modes, value in (("r", math.cos(0.4)), ("rf", -math.sin(0.4)), ("frf", -math.cos(0.4)),
                         ("rrff", math.sin(0.4))):
        assert differentiated(fnp.sin, modes)(0.4) == pytest.approx(value, rel=1e-14)
        falling = math.prod(range(5, 5 - len(modes), -1)) * 2.0 ** (5 - len(modes))
        assert differentiated(lambda x: x ** 5, modes)(2.0) == falling


# ---- norms of singular values ---------------------------------------------------------------

@pytest.mark.parametrize("order", [2, -2, "nuc"])
def test_a_spectral_norm_has_one_derivative_and_refuses_the_second(order):
    f = lambda x: fnp.linalg.norm(x, order)  # noqa: E731
    slope = fg.grad(f)(A)
    for i in np.ndindex(A.shape):
        up, down = A.copy(), A.copy()
        up[i] += 1e-6
        down[i] -= 1e-6
        numeric = (np.linalg.norm(up, order) - np.linalg.norm(down, order)) / 2e-6
        assert slope[i] == pytest.approx(numeric, abs=1e-8)
    y, dy = fg.jvp(f, (A,), (B.T,))
    assert y == pytest.approx(np.linalg.norm(A, order))
    assert dy == pytest.approx(np.sum(slope * B.T))
    assert fg.jacobian(f, mode="forward")(A) == pytest.approx(slope)
    for second in (lambda: fg.hessian(f)(A), lambda: fg.hvp(f)(A, A),
                   lambda: fg.grad(lambda t: fg.jvp(f, (A * t,), (A,))[1])(1.0)):
        with pytest.raises(fg.NoDerivativeError, match="no second derivative"):
            second()
    assert core.tape_info()["nodes"] == 0


def test_a_pullback_made_inside_a_stream_ends_with_it():
    kept = []

    def f(x):
        y, pull = fg.vjp(lambda z: z * z * x, x * 1.0)
        kept.append(pull)
        return pull(1.0)[0] + y

    y, dy = fg.jvp(f, (3.0,), (1.0,))       # x**3 + 2 x**2
    assert (y, dy) == (45.0, 39.0)
    with pytest.raises(RuntimeError, match="made inside a function that fg.jvp"):
        kept[0](1.0)
    kept.clear()
    assert core.tape_info()["nodes"] == 0


def test_a_graph_that_is_held_outside_does_not_lengthen_a_stream():
    y, push = fg.linearize(lambda x: x * x, 2.0)
    assert push(1.0) == 4.0

    def f(x):
        y = x
        for _ in range(60_000):
            y = y * 0.9999 + x * 1e-4
        return y

    before = core.pool_info()["segments"]
    assert fg.jvp(f, (1.0,), (1.0,))[1] == pytest.approx(1.0)
    assert core.pool_info()["segments"] <= before + 4
    assert push(1.0) == 4.0


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


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPED)
def test_what_is_kept_of_a_shaped_operator_changes_nothing(name, dtype, waiting):
    if name == "cast":
        dtype = "float32"           # what is rounded on the way differs between the modes
    check_kept(SHAPED[name], [A.astype(dtype)], [0], name)


@pytest.mark.parametrize("product", [
    lambda x, z: x @ z, fnp.matmul, fnp.dot, fnp.inner, np.matmul, np.dot, np.inner, np.vdot,
    lambda x, z: fnp.outer(x, z) @ z, lambda x, z: fnp.outer(x, z) @ fnp.outer(z, x),
    lambda x, z: fnp.einsum("i,i->", x, z), lambda x, z: fnp.tensordot(x, z, 1)])
def test_products_whose_operands_are_returned(product):
    x, v = np.arange(1.0, 6.0), np.array([1.0, -1.0, 0.5, 2.0, 0.0])
    (y, same), (dy, dsame) = fg.jvp(lambda x: (product(x, x), x), (x,), (v,))
    two = fg.jvp(lambda x, z: (product(x, z), x, z), (x, x), (v, v))
    expected = fg.linearize(lambda x: product(x, x), x)
    for found in ((y, dy), (two[0][0], two[1][0])):
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-14)
        np.testing.assert_allclose(found[1], expected[1](v), rtol=1e-14)
    for found in (same, *two[0][1:]):
        np.testing.assert_array_equal(found, x)
    for found in (dsame, *two[1][1:]):
        np.testing.assert_array_equal(found, v)


def test_a_recurrence_of_products_that_is_kept():
    rng = generator("recurrence")
    W, x, v = rng.normal(size=(5, 5)) / 3, rng.normal(size=5), rng.normal(size=5)

    def states(x, count=700):
        h, kept = x, []
        for _ in range(count):
            h = fnp.tanh(W @ h + (x @ h) * 0.1 + x)
            kept.append(h)
        return kept

    kept, tangents = fg.jvp(states, (x,), (v,))
    h, t = x, v
    for found, slope in zip(kept, tangents, strict=True):
        new = np.tanh(W @ h + (x @ h) * 0.1 + x)
        t = (1 - new * new) * (W @ t + (v @ h + x @ t) * 0.1 + v)
        h = new
        np.testing.assert_allclose(found, h, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(slope, t, rtol=1e-10, atol=1e-12)


def test_conjugate_gradients_in_a_stream():
    rng = generator("conjugate gradients")
    B_ = rng.normal(size=(6, 6))
    M, b, v = B_ @ B_.T + 6 * np.eye(6), rng.normal(size=6), rng.normal(size=6)

    def solve(b):
        x = b * 0.0
        r = p = b
        s = r @ r
        for _ in range(6):
            q = M @ p
            a = s / (p @ q)
            x, r = x + a * p, r - a * q
            new = r @ r
            p, s = r + (new / s) * p, new
        return x

    x, dx = fg.jvp(solve, (b,), (v,))
    np.testing.assert_allclose(x, np.linalg.solve(M, b), rtol=1e-9)
    np.testing.assert_allclose(dx, np.linalg.solve(M, v), rtol=1e-6)
