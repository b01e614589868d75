"""Laws over the operator table: what every row must do, whatever it computes. No operator is named
here, so a new row is tested as it is added; operands come from examples.py, oracles from
__init__.py.
"""

import functools
import itertools
import math
import operator

import numpy as np
import pytest

import fastgrad as fg
import laws
from fastgrad._core import core
from laws import COMPARISONS, DTYPES, ROWS

CLOSE = {"float32": dict(rtol=2e-5, atol=1e-5), "float64": dict(rtol=1e-11, atol=1e-12)}
# Two correct libraries may each be 4 ulp off; float32 is compared with rounded float64.
NEAR = {"float32": 4, "float64": 8}

every_row = pytest.mark.parametrize("row", ROWS, ids=laws.name_of)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def rows(condition):
    return pytest.mark.parametrize("row", [row for row in ROWS if condition(row)], ids=laws.name_of)


@pytest.fixture
def threshold():
    """Sets from which size on results wait, and restores it."""
    before = core.lazy_threshold()
    yield core.lazy_threshold
    core.lazy_threshold(before)


def reference(row, args, function=None):
    """The oracle's value in the dtype of the operands, computed in float64."""
    with np.errstate(all="ignore"):
        exact = (function or laws.oracle(row))(
            *[x if x.dtype == bool else x.astype(np.float64) for x in args])
        return np.asarray(exact).astype(args[0].dtype)


@functools.cache
def special(row, dtype):
    """Operands, NumPy's values there, and where it has an opinion of the sign of a zero: of equal
    zeros of both signs its vector loops choose the one and its scalar loops the other."""
    args = laws.special_operands(row, dtype)
    if row.mask:
        args[2] = args[2] != 0
    expected = reference(row, args)
    settled = expected == 0
    wide = [x if x.dtype == bool else x.astype(np.float64) for x in args]
    for i in np.flatnonzero(settled):
        alone, = laws.oracle(row)(*[x[i:i + 1] for x in wide])
        settled[i] = np.signbit(alone) == np.signbit(expected[i])
    for other in (args[1::-1] + args[2:], args[:1] + args[:0:-1]):
        if row.arity > 1 and not row.mask:
            swapped = reference(row, other)
            tied = (other[0] == args[0]) & (other[1] == args[1])
            settled &= ~tied | (np.signbit(swapped) == np.signbit(expected))
    for x in (*args, expected, settled):
        x.flags.writeable = False
    return args, expected, settled


def check_special(row, dtype, value):
    """Compare values at special(row, dtype) with NumPy's."""
    args, expected, settled = special(row, dtype)
    assert value.dtype == dtype
    wrong = laws.ulp_distance(value, expected) > NEAR[dtype]
    wrong |= settled & (np.signbit(value) != np.signbit(expected))
    if dtype == "float32":
        wrong &= laws.within_float32(row, args)
    assert not wrong.any(), [(*(float(x[i]) for x in args), value[i], expected[i])
                             for i in np.flatnonzero(wrong)[:8]]


# ---- values ---------------------------------------------------------------------------------

@every_row
@every_dtype
@laws.on_every_isa
def test_value(row, dtype, isa):
    args = laws.operands(row, dtype, (37,))
    expected = reference(row, args)
    value = core.functions[row.name](*laws.parameters(args, laws.wanted(row))).numpy()
    assert value.dtype == dtype
    assert laws.ulp_distance(value, expected).max() <= NEAR[dtype]


@rows(lambda row: row.numpy)
@every_dtype
def test_value_through_numpy(row, dtype):
    args = laws.operands(row, dtype, (5,))
    for ufunc in laws.ufuncs(row):
        own = ufunc(*laws.parameters(args, laws.wanted(row)))
        assert isinstance(own, fg.Tensor)
        expected = reference(row, args, ufunc)
        assert laws.ulp_distance(own.numpy().astype(dtype), expected).max() <= NEAR[dtype]


@every_row
def test_plain_operands_give_plain_results(row):
    args = laws.operands(row, "float64", (5,))
    value = core.functions[row.name](*args)
    assert type(value) is np.ndarray
    assert laws.ulp_distance(value, reference(row, args)).max() <= NEAR["float64"]


@pytest.mark.sampled(3)
@every_row
@every_dtype
@laws.on_every_isa
def test_special_values(row, dtype, isa):
    args, _, _ = special(row, dtype)
    check_special(row, dtype, core.functions[row.name](
        *laws.parameters(args, laws.wanted(row))).numpy())


@every_row
@every_dtype
def test_special_values_of_scalars(row, dtype):
    """The scalar tier at the same points."""
    points = zip(*(x.tolist() for x in laws.special_operands(row, dtype)), strict=True)
    check_special(row, dtype, np.array([core.scalar_value(row.name, dtype, *point)
                                        for point in points]).astype(dtype))


@rows(lambda row: row.python)
@every_dtype
def test_python_operators(row, dtype):
    function = getattr(operator, row.python, None) or getattr(math, row.python)
    args = laws.operands(row, dtype, (5,))
    tensors = laws.parameters(args, laws.wanted(row))
    expected = core.functions[row.name](*tensors).numpy()
    assert laws.same_bits(function(*tensors).numpy(), expected)
    if row.arity == 2:
        assert laws.same_bits(function(tensors[0], args[1]).numpy(), expected)
        assert laws.same_bits(function(args[0], tensors[1]).numpy(), expected)
        in_place = getattr(operator, "i" + row.python)
        rebound = fg.tensor(args[0])
        assert in_place(rebound, args[1]) is rebound
        assert laws.same_bits(rebound.numpy(), expected)


# ---- gradients ------------------------------------------------------------------------------

@every_row
@every_dtype
@laws.on_every_isa
def test_gradient_against_differences(row, dtype, isa):
    args = laws.operands(row, dtype, (37,))
    which = laws.wanted(row)
    _, found = laws.differentiate(core.functions[row.name], args, which)
    for k, gradient in zip(which, found, strict=True):
        expected = laws.central_difference(laws.oracle(row), args, k)
        if dtype == "float32":
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-7)


@rows(lambda row: row.analytic)
@laws.on_every_isa
def test_gradient_against_complex_step(row, isa):
    args = laws.operands(row, "float64", (37,))
    which = laws.wanted(row)
    _, found = laws.differentiate(core.functions[row.name], args, which)
    for k, gradient in zip(which, found, strict=True):
        np.testing.assert_allclose(gradient, laws.complex_step(row, args, k), rtol=1e-12,
                                   atol=1e-14)


@every_row
@laws.on_every_isa
def test_float32_gradient_against_float64(row, isa):
    args = laws.operands(row, "float32", (37,))
    which = laws.wanted(row)
    _, single = laws.differentiate(core.functions[row.name], args, which)
    wide = [x if x.dtype == bool else x.astype(np.float64) for x in args]
    _, double = laws.differentiate(core.functions[row.name], wide, which)
    for k, one, two in zip(which, single, double, strict=True):
        assert one.dtype == np.float32 and one.shape == args[k].shape
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@every_row
@every_dtype
def test_gradient_is_linear_in_the_seed(row, dtype):
    args = laws.operands(row, dtype, (37,))
    which = laws.wanted(row)
    seed = laws.generator(row.name, "seed").standard_normal(37).astype(dtype)
    _, ones = laws.differentiate(core.functions[row.name], args, which)
    _, found = laws.differentiate(core.functions[row.name], args, which, seed)
    for one, gradient in zip(ones, found, strict=True):
        np.testing.assert_allclose(gradient, one * seed, **CLOSE[dtype])


@pytest.mark.sampled(2)
@every_row
@every_dtype
def test_each_operand_alone(row, dtype):
    """The gradient in one operand is the same bits whether the others are constants or not."""
    args = laws.operands(row, dtype, (37,))
    _, together = laws.differentiate(core.functions[row.name], args, laws.wanted(row))
    for k, expected in zip(laws.wanted(row), together, strict=True):
        _, (alone,) = laws.differentiate(core.functions[row.name], args, [k])
        assert laws.same_bits(alone, expected)


@pytest.mark.sampled(2)
@every_row
@every_dtype
@laws.on_every_isa
def test_scalar_tier_against_array_tier(row, dtype, isa):
    for i in range(8):
        args = laws.operands(row, dtype, (1,), key=i)
        which = laws.wanted(row)
        value, found = laws.differentiate(core.functions[row.name], args, which)
        scalars = [x[0] if x.dtype == bool else float(x[0]) for x in args]
        zero_d = [x.reshape(()) for x in args]
        value_0d, found_0d = laws.differentiate(core.functions[row.name], zero_d, which)
        assert value_0d.shape == () and value_0d.dtype == dtype
        assert laws.ulp_distance(value_0d, value[0]).max() <= 4
        for gradient, single in zip(found, found_0d, strict=True):
            assert single.shape == () and single.dtype == dtype
            np.testing.assert_allclose(single, gradient[0], **CLOSE[dtype])
        if dtype == "float32" or row.steps:
            continue
        own, gradients = fg.value_and_grad(core.functions[row.name], argnums=tuple(which))(*scalars)
        assert type(own) is float and all(type(g) is float for g in gradients)
        assert own == value_0d and list(gradients) == [float(g) for g in found_0d]


@every_row
@every_dtype
@laws.on_every_isa
def test_scalar_partial_against_kernel(row, dtype, isa):
    """Given the same operands and result, both tiers have the same partials within 4 ulp."""
    args = laws.operands(row, dtype, (40,))
    a, b, c = laws.kernel_operands(row, args)
    y = core.kernel_value(row.name, a, b, c)
    for k in laws.wanted(row):
        kernel = core.kernel_partial(row.name, k, np.ones_like(a), a, b, c, y)
        if kernel is None:
            kernel = np.zeros_like(a)
        points = zip(*(np.zeros_like(a) if x is None else x for x in (a, b, c, y)), strict=True)
        scalar = np.array([core.scalar_partial(row.name, k, dtype, *map(float, point))
                           for point in points]).astype(dtype)
        assert laws.partial_distance(row, k, args, kernel, scalar).max() <= 4


# ---- what the table declares ----------------------------------------------------------------

@every_row
@every_dtype
@laws.on_every_isa
def test_reads(row, dtype, isa):
    """A partial looks at nothing that is not declared: NaN there changes no bit, and NULL is
    allowed. (The declared ones must be enough, so too little in `reads` fails here, and too much
    in test_kernels.)"""
    args = laws.kernel_operands(row, laws.operands(row, dtype, (37,)))
    given = dict(zip("abcy", [*args, core.kernel_value(row.name, *args)], strict=True))
    g = laws.generator(row.name).standard_normal(37).astype(dtype)
    for k in range(row.arity):
        expected = core.kernel_partial(row.name, k, g, **given)
        if expected is None:
            continue
        undeclared = [x for x in given if x.upper() not in row.reads[k]]
        poison = {x: np.full_like(g, np.nan) for x in undeclared}
        assert laws.same_bits(core.kernel_partial(row.name, k, g, **given | poison), expected)
        missing = {x: None for x in undeclared}
        assert laws.same_bits(core.kernel_partial(row.name, k, g, **given | missing), expected)
        point = {x: 0.0 if v is None else float(v[0]) for x, v in given.items()}
        nan = {x: math.nan for x in undeclared}
        assert (core.scalar_partial(row.name, k, dtype, **point)
                == core.scalar_partial(row.name, k, dtype, **point | nan))


@every_row
@every_dtype
def test_zero_partials_have_no_kernel(row, dtype):
    args = laws.kernel_operands(row, laws.operands(row, dtype, (5,)))
    y = core.kernel_value(row.name, *args)
    for k in range(row.arity):
        found = core.kernel_partial(row.name, k, np.ones(5, dtype), *args, y)
        assert (found is None) == (row.partials[k] == "K(0)")
    if row.steps:
        assert all(partial == "K(0)" for partial in row.partials)
        tensors = laws.parameters(laws.operands(row, dtype, (5,)), laws.wanted(row))
        assert core.functions[row.name](*tensors).requires_grad == (not row.inner)


@pytest.mark.sampled(2)
@every_row
@every_dtype
@laws.on_every_isa
def test_strong_zero(row, dtype, isa):
    """A zero adjoint gives zero whatever the operands are, and so does a zero partial whatever
    the adjoint is."""
    args = laws.kernel_operands(row, laws.special_operands(row, dtype))
    y = core.kernel_value(row.name, *args)
    for k in laws.wanted(row):
        for zero in (0.0, -0.0):
            found = core.kernel_partial(row.name, k, np.full_like(y, zero), *args, y)
            assert found is None or (found == 0).all()
        partial = core.kernel_partial(row.name, k, np.ones_like(y), *args, y)
        if partial is None:
            continue
        for adjoint in (np.inf, -np.inf, np.nan):
            found = core.kernel_partial(row.name, k, np.full_like(y, adjoint), *args, y)
            assert (found[partial == 0] == 0).all()
            assert not np.isfinite(found[partial != 0]).any()


@pytest.mark.sampled(2)
@rows(lambda row: not row.steps)
@every_dtype
def test_strong_zero_of_a_sweep(row, dtype):
    args = laws.special_operands(row, dtype)
    if row.mask:
        args[2] = args[2] != 0
    which = laws.wanted(row)
    _, found = laws.differentiate(core.functions[row.name], args, which, seed=0.0)
    assert all((gradient == 0).all() for gradient in found)
    for point in list(zip(*args, strict=True))[::29]:
        scalars = [np.asarray(x) for x in point]
        _, found = laws.differentiate(core.functions[row.name], scalars, which, seed=0.0)
        assert all(gradient == 0 for gradient in found)


@pytest.mark.sampled(2)
@every_row
@every_dtype
@laws.on_every_isa
def test_formulas_read_as_python(row, dtype, isa):
    """The two readings of a formula, C and Python, agree."""
    args = laws.kernel_operands(row, laws.operands(row, dtype, (37,)))
    value = core.kernel_value(row.name, *args)
    wide = [None if x is None else x.astype(np.float64) for x in args]
    exact = laws.formula(row.value, *wide)
    np.testing.assert_allclose(value, exact, **CLOSE[dtype])
    for k in laws.wanted(row):
        found = core.kernel_partial(row.name, k, np.ones_like(value), *args, value)
        expected = laws.formula(row.partials[k], *wide, value.astype(np.float64))
        np.testing.assert_allclose(0 if found is None else found, np.broadcast_to(expected, (37,)),
                                   **CLOSE[dtype])


@pytest.mark.sampled(2)
@every_row
@every_dtype
@laws.on_every_isa
def test_formulas_at_special_values(row, dtype, isa):
    """The same at the edges, in both tiers, near overflow and underflow apart."""
    args = laws.kernel_operands(row, laws.special_operands(row, dtype))
    if row.mask:
        args[2] = (args[2] != 0).astype(dtype)
    value = core.kernel_value(row.name, *args)
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
    for k in laws.wanted(row):
        found = core.kernel_partial(row.name, k, np.ones_like(value), *args, value)
        if found is None:
            continue
        expected = np.broadcast_to(laws.formula(row.partials[k], *args, value), found.shape)
        points = zip(*(np.zeros_like(value).tolist() if x is None else x.tolist()
                       for x in (*args, value)), strict=True)
        scalar = np.array([core.scalar_partial(row.name, k, dtype, *point) for point in points])
        for got in (found.astype(np.float64), scalar):
            inner = np.isnan(expected) | np.isinf(expected) | (abs(expected) < huge * 1e-10)
            close = np.isclose(got, expected, rtol=1e-4 if dtype == "float32" else 1e-9,
                               atol=tiny * 1e10, equal_nan=True) | ~inner
            wrong = np.flatnonzero(~close)
            assert not wrong.size, [([float(x[i]) for x in args if x is not None], got[i],
                                     expected[i]) for i in wrong[:5]] + [wrong.size]


# ---- broadcasting ---------------------------------------------------------------------------

def patterns(base):
    """Every shape that broadcasts to `base`."""
    for rank in range(len(base) + 1):
        yield from itertools.product(*[(length, 1) for length in base[len(base) - rank:]])


def check_broadcast(row, dtype, shapes):
    args = laws.operands(row, dtype, shapes)
    which = laws.wanted(row)
    shape = np.broadcast_shapes(*shapes)
    value, found = laws.differentiate(core.functions[row.name], args, which)
    full = [np.array(np.broadcast_to(x, shape)) for x in args]
    full_value, elements = laws.differentiate(core.functions[row.name], full, which)
    assert value.shape == shape and value.dtype == dtype
    if shape:
        np.testing.assert_allclose(value, full_value, rtol=1e-6 if dtype == "float32" else 1e-15)
    for k, gradient, element in zip(which, found, elements, strict=True):
        assert gradient.shape == args[k].shape and gradient.dtype == dtype
        expected = laws.unbroadcast(element.astype(np.float64), args[k].shape)
        np.testing.assert_allclose(gradient, expected, err_msg=f"{shapes} operand {k}",
                                   **CLOSE[dtype])


@pytest.mark.sampled(2)
@rows(lambda row: row.arity > 1)
@every_dtype
@pytest.mark.parametrize("base", [(2, 3, 4), (2, 0, 4), (0, 3, 1), (5, 1, 0)], ids=str)
def test_broadcasting(row, dtype, base, some):
    shapes = sorted(set(patterns(base)))
    combinations = list(itertools.product(shapes, repeat=row.arity))
    if row.arity == 3:
        combinations = combinations[::7]
    for combination in some(combinations, 40 if all(base) else 15):
        check_broadcast(row, dtype, list(combination))


@rows(lambda row: row.arity > 1 and row.smooth)
def test_broadcasting_against_differences(row):
    """The gradient of a weighted sum, entry by entry, with nothing of the core in the oracle."""
    shapes = [(3, 1), (4,), (2, 1, 4)][:row.arity]
    args = laws.operands(row, "float64", shapes)
    seed = laws.generator(row.name).standard_normal(np.broadcast_shapes(*shapes))
    which = laws.wanted(row)
    _, found = laws.differentiate(core.functions[row.name], args, which, seed)
    for k, gradient in zip(which, found, strict=True):
        for i in np.ndindex(args[k].shape):
            total = []
            for step in (6e-6, -6e-6):
                moved = [x.copy() for x in args]
                moved[k][i] += step
                total.append((laws.oracle(row)(*moved) * seed).sum())
            assert gradient[i] == pytest.approx((total[0] - total[1]) / 1.2e-5, rel=1e-6, abs=1e-8)


@rows(lambda row: row.arity > 1)
def test_shapes_that_do_not_broadcast(row):
    before = core.tape_info()["nodes"]
    args = laws.operands(row, "float64", [(3,), (2,), (1,)][:row.arity])
    with pytest.raises(ValueError, match=rf"{row.name}.*\(3,\) \(2,\)"):
        core.functions[row.name](*laws.parameters(args, laws.wanted(row)))
    assert core.tape_info()["nodes"] == before


# ---- memory layouts, sizes ------------------------------------------------------------------

def layouts(x):
    """The same (6, 4) array lying in memory in other ways."""
    spread = np.zeros((12, 12), x.dtype)
    spread[::2, ::3] = x
    yield spread[::2, ::3]
    yield np.ascontiguousarray(x[::-1])[::-1]
    yield np.ascontiguousarray(x[:, ::-1])[:, ::-1]
    yield np.ascontiguousarray(x.T).T
    yield np.asfortranarray(x)
    yield np.ascontiguousarray(x[::-1, ::-1].T)[::-1, ::-1].T
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    raw[...] = x
    yield raw
    yield x.astype(x.dtype.newbyteorder())
    frozen = x.copy()
    frozen.flags.writeable = False
    yield frozen
    pair = np.zeros(x.shape, dtype=[("low", np.int8), ("x", x.dtype)])
    pair["x"] = x
    yield pair["x"]


@pytest.mark.sampled(2)
@every_row
@every_dtype
@pytest.mark.parametrize("limit", [1, 10 ** 9], ids=["lazy", "eager"])
def test_layouts(row, dtype, limit, threshold):
    threshold(limit)
    args = laws.operands(row, dtype, (6, 4))
    which = laws.wanted(row)
    function = core.functions[row.name]
    value, expected = laws.differentiate(function, args, which)
    variants = [list(layouts(x)) for x in args]
    for turn in range(len(variants[0])):
        laid = [v[(turn + 2 * k) % len(v)] for k, v in enumerate(variants)]
        own, found = laws.differentiate(function, laid, which)
        assert laws.same_bits(own, value), turn
        assert all(map(laws.same_bits, found, expected)), turn
        for k, alone in zip(which, expected, strict=True):   # the others as ndarrays
            own, found = laws.differentiate(
                lambda x, laid=laid, k=k: function(*laid[:k], x, *laid[k + 1:]), [laid[k]], [0])
            assert laws.same_bits(own, value), (turn, k)
            assert laws.same_bits(found[0], alone), (turn, k)


@pytest.mark.sampled(2)
@every_row
@every_dtype
@pytest.mark.parametrize("limit", [1, 10 ** 9], ids=["lazy", "eager"])
def test_tensor_views(row, dtype, limit, threshold):
    """Operands that are views of Tensors: strides without a copy, adjoints back to the base."""
    threshold(limit)
    args = laws.operands(row, dtype, (6, 4))
    which = laws.wanted(row)
    function = core.functions[row.name]
    value, expected = laws.differentiate(function, args, which)
    ways = [
        (lambda x: np.repeat(x, 2, axis=0), lambda t: t[::2], lambda g: g[::2]),
        (lambda x: np.ascontiguousarray(x[::-1]), lambda t: t[::-1], lambda g: g[::-1]),
        (lambda x: np.ascontiguousarray(x.T), lambda t: t.T, lambda g: g.T),
        (lambda x: x.reshape(3, 8), lambda t: t.reshape(6, 4), lambda g: g.reshape(6, 4)),
        (lambda x: x[None], lambda t: t[0], lambda g: g[0]),
        (lambda x: np.pad(x, 1), lambda t: t[1:-1, 1:-1], lambda g: g[1:-1, 1:-1]),
    ]
    for turn in range(len(ways)):
        chosen = [ways[(turn + k) % len(ways)] for k in range(row.arity)]
        bases = [np.ascontiguousarray(way[0](x)) for way, x in zip(chosen, args, strict=True)]
        own, found = laws.differentiate(
            lambda *t, chosen=chosen: function(*[way[1](x) for way, x
                                                 in zip(chosen, t, strict=True)]), bases, which)
        assert laws.same_bits(own, value)
        for k, gradient, one in zip(which, found, expected, strict=True):
            assert gradient.shape == bases[k].shape
            assert laws.same_bits(chosen[k][2](gradient), one)
            assert np.isclose(gradient.sum(dtype=float), one.sum(dtype=float), rtol=1e-5, atol=1e-5)


SIZES = (1, 2, 3, 15, 16, 17, 1023, 1024, 1025, 4095, 4096, 4097, 100_000)


@every_row
@every_dtype
def test_sizes(row, dtype, threshold):
    """An element's result and slope depend neither on the size nor on the place, nor on whether
    results wait."""
    threshold(4096)
    small = laws.operands(row, dtype, (97,))
    which = laws.wanted(row)
    seed = laws.generator("sizes").standard_normal(97).astype(dtype)
    value, expected = laws.differentiate(core.functions[row.name], small, which, seed)
    for size in SIZES:
        args = [np.resize(x, size) for x in small]
        own, found = laws.differentiate(core.functions[row.name], args, which,
                                        np.resize(seed, size))
        assert laws.same_bits(own, np.resize(value, size)), size
        for one, gradient in zip(expected, found, strict=True):
            assert laws.same_bits(gradient, np.resize(one, size)), size


@every_row
@every_dtype
def test_empty(row, dtype):
    for shape in [(0,), (0, 3), (2, 0), (1, 0, 2)]:
        args = laws.operands(row, dtype, shape)
        value, found = laws.differentiate(core.functions[row.name], args, laws.wanted(row))
        assert value.shape == shape and value.dtype == dtype
        assert all(g.shape == shape and g.dtype == dtype for g in found)


# ---- constants, dtypes ----------------------------------------------------------------------

CONSTANTS = {
    "float": lambda v, dtype: float(v),
    "np.float64": lambda v, dtype: np.float64(v),
    "np.float32": lambda v, dtype: np.float32(v),
    "0-d": lambda v, dtype: np.asarray(v, dtype),
    "1-entry": lambda v, dtype: np.full(1, v, dtype),
    "ndarray": lambda v, dtype: np.full(5, v, dtype),
    "list": lambda v, dtype: [float(v)] * 5,
    "Tensor": lambda v, dtype: fg.tensor(np.full(5, v, dtype)),
    "0-d Tensor": lambda v, dtype: fg.tensor(np.asarray(v, dtype)),
}


def numpy_of(x):
    """What NumPy has in the place of an operand."""
    return x.numpy() if isinstance(x, fg.Tensor) else x


def check_constants(row, dtype, kind, shape, k):
    args = laws.operands(row, dtype, shape)
    others = laws.operands(row, "float32", (), key="constant")
    given = [args[j] if j == k else
             bool(x) if j not in laws.wanted(row) else CONSTANTS[kind](x, dtype)
             for j, x in enumerate(others)]
    plain = [np.asarray(numpy_of(x)) for x in given]

    def function(x):
        return core.functions[row.name](*given[:k], x, *given[k + 1:])

    value, (gradient,) = laws.differentiate(function, [args[k]], [0])
    expected = np.asarray(laws.oracle(row)(*[numpy_of(x) for x in given]))
    promoted = np.result_type(*[x if isinstance(x, float) else np.asarray(numpy_of(x))
                                for j, x in enumerate(given) if j in laws.wanted(row)])
    assert value.shape == expected.shape and value.dtype == promoted
    # (A float64 constant beside float32 is computed in float64, so nothing is lost there.)
    np.testing.assert_allclose(value, expected, rtol=1e-6 if dtype == "float32" else 1e-14)
    assert gradient.shape == shape and gradient.dtype == dtype
    slope = laws.central_difference(laws.oracle(row), plain, k)
    np.testing.assert_allclose(gradient, laws.unbroadcast(np.asarray(slope), shape),
                               rtol=2e-4 if dtype == "float32" else 1e-7, atol=1e-5)


@pytest.mark.sampled(2)
@rows(lambda row: row.arity > 1)
@every_dtype
def test_constants_on_either_side(row, dtype):
    for kind, shape, k in itertools.product(CONSTANTS, [(), (5,)], laws.wanted(row)):
        with laws.noted(f"a {kind} beside operand {k} of shape {shape}"):
            check_constants(row, dtype, kind, shape, k)


OPERANDS = {
    "Tensor f8": lambda: fg.tensor(np.ones(3), requires_grad=True),
    "Tensor f4": lambda: fg.tensor(np.ones(3, np.float32), requires_grad=True),
    "0-d Tensor f8": lambda: fg.tensor(np.ones(()), requires_grad=True),
    "0-d Tensor f4": lambda: fg.tensor(np.ones((), np.float32), requires_grad=True),
    "Tensor f8 constant": lambda: fg.tensor(np.ones(3)),
    "Tensor f4 constant": lambda: fg.tensor(np.ones(3, np.float32)),
    "Tensor i8": lambda: fg.tensor(np.ones(3, np.int64)),
    "Tensor i4": lambda: fg.tensor(np.ones(3, np.int32)),
    "Tensor bool": lambda: fg.tensor(np.ones(3, bool)),
    "0-d Tensor i8": lambda: fg.tensor(np.ones((), np.int64)),
    "0-d Tensor bool": lambda: fg.tensor(np.ones((), bool)),
    "float": lambda: 1.0,
    "int": lambda: 1,
    "bool": lambda: True,
    "np.float64": lambda: np.float64(1),
    "np.float32": lambda: np.float32(1),
    "np.int64": lambda: np.int64(1),
    "np.int8": lambda: np.int8(1),
    "np.bool": lambda: np.bool_(True),
    "f8": lambda: np.ones(3),
    "f4": lambda: np.ones(3, np.float32),
    "i8": lambda: np.ones(3, np.int64),
    "i4": lambda: np.ones(3, np.int32),
    "u8": lambda: np.ones(3, np.uint64),
    "i2": lambda: np.ones(3, np.int16),
    "i1": lambda: np.ones(3, np.int8),
    "?": lambda: np.ones(3, bool),
    "0-d f8": lambda: np.ones(()),
    "0-d f4": lambda: np.ones((), np.float32),
    "0-d i4": lambda: np.ones((), np.int32),
}
HELD = {np.dtype(kind) for kind in "?bBhHiIlLqQfd"}


def check_dtype(ufunc, given):
    with np.errstate(all="ignore"):
        try:
            expected = np.asarray(ufunc(*[numpy_of(x) for x in given]))
        except TypeError:
            expected = None
    if expected is None or expected.dtype not in HELD:
        with pytest.raises(TypeError):
            ufunc(*given)
        return
    own = ufunc(*given)
    assert isinstance(own, fg.Tensor)
    assert own.dtype == expected.dtype, f"{own.dtype}, but NumPy has {expected.dtype}"
    assert own.shape == expected.shape
    np.testing.assert_allclose(own.numpy().astype(float), expected.astype(float), rtol=1e-6)


DTYPE_CASES = [(row, name) for row in ROWS + COMPARISONS
               for name in row.numpy if isinstance(getattr(np, name, None), np.ufunc)]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("row, name", DTYPE_CASES, ids=[name for _, name in DTYPE_CASES])
def test_dtypes_as_numpy(row, name):
    """NEP 50: for every combination of operand kinds the dtype that NumPy has, and its value."""
    ufunc = getattr(np, name)
    wrong = []
    for kinds in itertools.product(OPERANDS, repeat=row.arity):
        if not any("Tensor" in kind for kind in kinds):
            continue
        try:
            check_dtype(ufunc, [OPERANDS[kind]() for kind in kinds])
        except (AssertionError, pytest.fail.Exception, TypeError) as error:
            wrong.append(f"{kinds}: {str(error).strip().splitlines()[0]}")
    assert not wrong, f"{len(wrong)} combinations\n" + "\n".join(wrong[:8])


def test_weak_scalars_stay_weak():
    """A Python float does not widen float32 either when it is differentiated."""
    x = np.ones(3, np.float32)
    for row in ROWS:
        if row.arity != 2 or row.steps:
            continue
        seen = []

        def function(s, row=row, seen=seen):
            y = core.functions[row.name](x, s)
            seen.append(y.dtype)
            return core.sum(y * s)
        assert type(fg.grad(function)(2.0)) is float
        assert seen == [np.float32], row.name


# ---- eager and lazy -------------------------------------------------------------------------

@pytest.mark.sampled(3)
@every_row
@every_dtype
@pytest.mark.parametrize("shape", [(3,), (2, 700), (1100,)], ids=str)
def test_eager_and_lazy_agree(row, dtype, shape, threshold):
    """The row inside a chain of others, evaluated at once and block by block: the same bits."""
    args = laws.operands(row, dtype, shape)
    which = laws.wanted(row)
    constant = laws.generator("constant").uniform(0.5, 2, shape[-1:]).astype(dtype)

    def function(*t):
        y = core.functions[row.name](*t)
        z = y * constant + y * y
        again = core.functions[row.name](*t)
        return (z * 0.5 - t[0] * again) / 3

    found = []
    for limit in (1, 10 ** 9):
        threshold(limit)
        found.append(laws.differentiate(function, args, which, seed=0.25))
    (lazy, lazy_gradients), (eager, eager_gradients) = found
    assert laws.same_bits(lazy, eager)
    assert all(map(laws.same_bits, lazy_gradients, eager_gradients))


@pytest.mark.sampled(2)
@every_row
@pytest.mark.parametrize("limit", [1, 10 ** 9], ids=["lazy", "eager"])
def test_a_result_used_as_all_operands(row, limit, threshold):
    """f(h, h, ...) of an intermediate result: the slopes add up."""
    threshold(limit)
    (x, *_) = laws.operands(row, "float64", (50,))
    which = laws.wanted(row)
    mask = np.arange(50) % 3 == 0

    def repeated(t):
        h = t * 1.0
        return core.functions[row.name](*[h if k in which else mask for k in range(row.arity)])

    args = [x if k in which else mask for k in range(row.arity)]
    _, apart = laws.differentiate(core.functions[row.name], args, which)
    _, (together,) = laws.differentiate(repeated, [x], [0])
    np.testing.assert_allclose(together, np.sum(apart, axis=0), rtol=1e-13, atol=1e-14)


# ---- comparisons ----------------------------------------------------------------------------

@pytest.mark.parametrize("row", COMPARISONS, ids=laws.name_of)
@every_dtype
@laws.on_every_isa
def test_comparisons(row, dtype, isa):
    a, b = laws.special_operands(COMPARISONS[0]._replace(arity=2), dtype)
    expected = laws.ufuncs(row)[0](a, b)
    function = getattr(operator, row.python)
    t, u = (fg.tensor(x, requires_grad=True) for x in (a, b))
    for result in (core.functions[row.name](t, u), laws.ufuncs(row)[0](t, u), function(t, u),
                   function(t, b), function(a, u), function(t.detach(), u)):
        assert isinstance(result, fg.Tensor) and result.dtype == bool
        assert not result.requires_grad
        assert np.array_equal(result.numpy(), expected)
    for x, y, z in list(zip(a, b, expected, strict=True))[::7]:
        result = function(fg.tensor(x, requires_grad=True), float(y))
        assert result.dtype == bool and result.shape == () and bool(result) == bool(z)
        assert isinstance(bool(function(fg.tensor(x), fg.tensor(y))), bool)


@pytest.mark.parametrize("row", COMPARISONS, ids=laws.name_of)
@pytest.mark.parametrize("size", [0, 1, 40, 1025, 5000])
def test_comparisons_broadcast_and_stride(row, size):
    a = laws.generator("comparison").integers(0, 4, (3, size)).astype(float)
    b = laws.generator("other").integers(0, 4, (2 * size,)).astype(float)[::2]
    t = fg.tensor(a, requires_grad=True)
    function = getattr(operator, row.python)
    assert np.array_equal(function(t, b).numpy(), function(a, b))
    assert np.array_equal(function(t * 1, fg.tensor(b, copy=False)).numpy(), function(a, b))
    assert np.array_equal(function(t, 2).numpy(), function(a, 2))
    assert np.array_equal(function(2, t).numpy(), function(2, a))
