"""The dtypes of results: what NumPy gives, whatever dtype=, signature= and casting= ask for.

A law over all ufuncs of NumPy, over the functions of fastgrad.numpy that take dtype=, and over what
promotes its operands. The value is that of NumPy's loop: a sine of float32 entries in float64 is
computed in float64. Where NumPy raises, so does fastgrad; a TypeError may stand for what Tensors do
not have (float16, complex numbers, integers made of what has a derivative), and nothing else.
Each call runs on Tensors with and without derivative, in a program that is replayed with other
entries, in lanes, and while it is differentiated, where the gradient has the input's own dtype.
"""

import inspect
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

Tensor = core.Tensor
DTYPES = ("f4", "f8", "i8", "u1", "?")
UFUNCS = {name: f for name, f in vars(np).items() if isinstance(f, np.ufunc) and f.nin < 3
          and (f.signature is None or f is np.matmul)}
ASKED = ("f4", "f8", "i8", "u1", "?", "f2", "c16")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def operand(dtype, seed=0, shape=(2, 2)):
    generator = np.random.default_rng(seed)
    if dtype in ("f4", "f8"):
        return generator.uniform(0.3, 0.9, shape).astype(dtype)
    if dtype == "?":
        return np.array([[True, False], [seed % 2 == 0, True]])
    return generator.integers(1, 5 if dtype == "i8" else 200, shape).astype(dtype)


def result_of(call, namespace, operands):
    try:
        return call(namespace, *operands)
    except Exception as error:  # noqa: BLE001 (compared with NumPy's)
        return error


def parts(x):
    return list(x) if isinstance(x, (tuple, list)) else [x]


def assert_numpys(got, expected, where, refusal=()):
    """The same dtype, shape and value; or both raise."""
    if isinstance(expected, Exception):
        assert isinstance(got, Exception), f"{where}: NumPy raises {expected!r}"
        return
    if isinstance(got, Exception):
        kinds = {np.asarray(part).dtype.char for part in parts(expected)}
        lacking = kinds & set("egFDG") or isinstance(got, fg.NoDerivativeError) or (
            kinds & set(refusal))
        assert isinstance(got, TypeError) and lacking, f"{where}: {got!r}"
        assert "unexpected" not in str(got), f"{where}: {got!r}"
        return
    for mine, numpys in zip(parts(got), parts(expected), strict=True):
        mine = mine.detach().numpy() if isinstance(mine, Tensor) else np.asarray(mine)
        numpys = np.asarray(numpys)
        assert (mine.dtype, mine.shape) == (numpys.dtype, numpys.shape), where
        bound = {"f": 2e-6, "d": 1e-13}.get(numpys.dtype.char, 0)
        np.testing.assert_allclose(mine, numpys, rtol=bound, atol=bound, err_msg=where)


def tensors(operands, recorded):
    return [fg.tensor(x, requires_grad=recorded and x.dtype.kind == "f") for x in operands]


def assert_everywhere(call, dtypes, where, refusal=()):
    """The law for one call: of a namespace and arrays."""
    operands = [operand(dtype, seed) for seed, dtype in enumerate(dtypes)]
    fresh = [operand(dtype, seed + 10) for seed, dtype in enumerate(dtypes)]
    expected = result_of(call, np, operands)
    for recorded in (False, True):
        got = result_of(call, fnp, tensors(operands, recorded))
        assert_numpys(got, expected, f"{where}, {recorded=}", refusal)
    if isinstance(expected, Exception) or isinstance(got, Exception):
        return
    if not all(isinstance(x, Tensor) for x in parts(got)):
        return
    compiled = fg.compile(lambda *xs: tuple(parts(call(fnp, *xs))))
    for now in (operands, fresh, operands):
        assert_numpys(result_of(lambda _, *xs: compiled(*xs), fnp, now),
                      tuple(parts(result_of(call, np, now))), f"{where}, compiled", refusal)
    mapped = fg.vmap(lambda *xs: tuple(parts(call(fnp, *xs))))
    lanes = result_of(lambda _, *xs: mapped(*xs), fnp, [np.stack(x) for x in zip(operands, fresh)])
    if not isinstance(lanes, Exception):    # (some have no lanes: test_vmap.py)
        for k, now in enumerate((operands, fresh)):
            assert_numpys([x[k] for x in lanes], parts(result_of(call, np, now)),
                          f"{where}, mapped", refusal)
    wanted = [k for k, x in enumerate(operands) if x.dtype.kind == "f"]
    if not wanted or np.asarray(parts(expected)[0]).dtype.kind != "f":
        return

    def weighed(*xs):
        results = parts(call(fnp, *xs))
        return fnp.sum(results[0]), results

    gradients, results = fg.grad(weighed, argnums=tuple(wanted), has_aux=True)(*operands)
    assert_numpys(results, parts(expected), f"{where}, differentiated", refusal)
    for k, gradient in zip(wanted, gradients):
        assert gradient.dtype == operands[k].dtype, where
        assert gradient.shape == operands[k].shape, where


def options_of(ufunc):
    """Every way to ask for types."""
    inputs, outputs = ufunc.nin, ufunc.nout
    yield {}
    for dtype in ASKED:
        yield {"dtype": dtype}
    for casting in ("no", "safe", "unsafe"):
        yield {"casting": casting}
    for dtype in ("f4", "i8"):
        yield {"dtype": dtype, "casting": "unsafe"}
    yield {"dtype": "f8", "casting": "no"}
    for one in "df":
        yield {"signature": f"{one * inputs}->{one * outputs}"}
        yield {"sig": f"{one * inputs}->{'?' * outputs}"}
    yield {"signature": (None,) * inputs + (np.float64,) * outputs}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", UFUNCS)
def test_ufuncs_compute_in_the_loop_that_is_asked_for(name):
    ufunc = UFUNCS[name]
    for number, options in enumerate(options_of(ufunc)):
        pairs = [(a, b) for a in DTYPES for b in DTYPES] if ufunc.nin == 2 else [
            (a,) for a in DTYPES]
        for place, dtypes in enumerate(pairs):
            where = f"{name}, {options}, {dtypes}"

            def call(namespace, *xs, options=options):
                return ufunc(*xs, **options)

            if (number + place) % 11 == 0:          # the other engines meet some of each
                assert_everywhere(call, dtypes, where)
                continue
            operands = [operand(dtype, seed) for seed, dtype in enumerate(dtypes)]
            assert_numpys(result_of(call, fnp, tensors(operands, True)),
                          result_of(call, np, operands), where)


ROWS = [name for name, function in core.functions.items() if isinstance(getattr(np, name, None),
                                                                        np.ufunc)]


def test_functions_of_the_namespace_take_the_same_options():
    for name in (*ROWS, "fabs", "float_power", "divmod"):
        ufunc = getattr(np, name)
        for dtype in DTYPES:
            for options in ({"dtype": "f8"}, {"casting": "no"}, {"dtype": "i8"}):
                operands = [operand(dtype, seed) for seed in range(ufunc.nin)]
                assert_numpys(
                    result_of(lambda np, *xs: getattr(np, name)(*xs, **options), fnp,  # noqa: B023
                              tensors(operands, True)),
                    result_of(lambda np, *xs: ufunc(*xs, **options), np, operands),  # noqa: B023
                    f"{name}, {options}, {dtype}")


# ---- functions that take dtype= -----------------------------------------------------------------

def typed_functions():
    """Names of the functions of one array that take dtype=."""
    found = []
    for name, function in vars(fnp).items():
        numpys = getattr(np, name, None)
        if (not callable(function) or not callable(numpys) or name.startswith("_")
                or isinstance(numpys, (np.ufunc, type)) or name == "empty_like"):
            continue
        try:
            takes = "dtype" in inspect.signature(numpys).parameters
        except (TypeError, ValueError):
            continue
        if takes and not isinstance(result_of(lambda np, x: numpys(x), np, [np.eye(2)]),  # noqa: B023
                                    Exception):
            found.append(name)
    return found


ALONG = {"axis": 0}, {"axis": 1, "keepdims": True}, {"where": np.eye(2, dtype=bool)}, {"initial": 2}
TYPED = sorted({*typed_functions(), "cumsum", "cumprod", "nansum", "nanprod", "nanmean", "nanvar",
                "nanstd", "nancumsum", "nancumprod", "trace"})


@pytest.mark.parametrize("name", TYPED)
def test_functions_give_the_dtype_that_is_asked_for(name):
    parameters = inspect.signature(getattr(np, name)).parameters
    for dtype in DTYPES:
        for number, asked in enumerate((None, *ASKED)):
            for more in ({}, *ALONG):
                if any(key not in parameters for key in more):
                    continue
                options = {**more, **({} if asked is None else {"dtype": asked})}
                where = f"{name}, {options}, {dtype}"
                # Whole numbers made of floating ones: refused where a derivative might be wanted.
                refusal = "lB?" if dtype in ("f4", "f8") and asked in ("i8", "u1", "?") else ""

                def call(namespace, x, options=options):
                    return getattr(namespace, name)(x, **options)

                if number % 3 == 0 or asked == "f8":
                    assert_everywhere(call, (dtype,), where, refusal)
                else:
                    x = operand(dtype)
                    assert_numpys(result_of(call, fnp, tensors([x], True)),
                                  result_of(call, np, [x]), where, refusal)


@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.maximum, np.minimum, np.logical_or,
                                   np.logaddexp], ids=lambda f: f.__name__)
def test_methods_of_ufuncs_give_the_dtype_that_is_asked_for(ufunc):
    for dtype in DTYPES:
        x = operand(dtype)
        for asked in (None, *ASKED):
            for method in ("reduce", "accumulate"):
                assert_numpys(
                    result_of(lambda np, x: getattr(ufunc, method)(x, dtype=asked), fnp,  # noqa: B023
                              tensors([x], True)),
                    result_of(lambda np, x: getattr(ufunc, method)(x, dtype=asked), np, [x]),  # noqa: B023
                    f"{ufunc.__name__}.{method}, {asked}, {dtype}",
                    "lB?" if dtype in ("f4", "f8") else "")


# ---- promotion ----------------------------------------------------------------------------------

PROMOTED = [
    lambda np, x, y: np.select([x > 0.5, y > 0.5], [x, y]),
    lambda np, x, y: np.select([x > 0.5], [x], y),
    lambda np, x, y: np.select([x > 0.5], [x], 1),
    lambda np, x, y: np.select([x > 0.5, y > 0.5], [x, 2], 0.5),
    lambda np, x, y: np.select([x > 0.5, y > 0.5], [1, 2.5], y),
    lambda np, x, y: np.where(x > 0.5, x, y),
    lambda np, x, y: np.where(x > 0.5, x, 1),
    lambda np, x, y: np.where(x > 0.5, 1.5, y),
    lambda np, x, y: np.choose(np.array([[0, 1], [1, 0]]), [x, y]),
    lambda np, x, y: np.clip(x, y, None),
    lambda np, x, y: np.clip(x, 0.4, 0.6),
    lambda np, x, y: np.clip(x, 1, None),
    lambda np, x, y: np.full_like(x, 2.5),
    lambda np, x, y: np.full_like(x, 2.5, dtype="f4"),
    lambda np, x, y: np.full((2, 2), y, dtype="f8"),
    lambda np, x, y: np.linspace(x, y, 3),
    lambda np, x, y: np.linspace(x, 2, 3, dtype="f4"),
    lambda np, x, y: np.average(x, weights=y),
    lambda np, x, y: np.average(x, axis=0, weights=y, returned=True),
    lambda np, x, y: np.average(x, axis=0, returned=True),
    lambda np, x, y: np.concatenate([x, y]),
    lambda np, x, y: np.concatenate([x, y], dtype="f4"),
    lambda np, x, y: np.concatenate([x, y], casting="no"),
    lambda np, x, y: np.stack([x, y], dtype="f4", casting="safe"),
    lambda np, x, y: np.vstack([x, y], dtype="f4", casting="no"),
    lambda np, x, y: np.hstack([x, y], dtype="f8", casting="safe"),
    lambda np, x, y: np.append(x, y),
    lambda np, x, y: np.einsum("ij,kj->ik", x, y),
    lambda np, x, y: np.dot(x, y),
    lambda np, x, y: np.outer(x, y),
    lambda np, x, y: np.kron(x, y),
    lambda np, x, y: np.diff(x, prepend=y),
    lambda np, x, y: np.trapezoid(x, y),
    lambda np, x, y: np.round(x, 1),
    lambda np, x, y: np.nan_to_num(x),
    lambda np, x, y: np.linalg.norm(x),
    lambda np, x, y: np.linalg.norm(x, 3, axis=1),
    lambda np, x, y: np.interp(x, [0.0, 1.0, 2.0], [0.0, 3.0, 4.0]),
    lambda np, x, y: x * y,
    lambda np, x, y: x / 2,
    lambda np, x, y: x // y,
    lambda np, x, y: x ** 0.5,
    lambda np, x, y: np.mean(x, where=y > 0.5),
    lambda np, x, y: np.std(x, ddof=1),
]


@pytest.mark.parametrize("number", range(len(PROMOTED)))
def test_operands_are_promoted_as_numpy_does(number):
    for place, dtypes in enumerate((a, b) for a in DTYPES for b in DTYPES):
        if place % 3 == number % 3 or "?" not in dtypes:
            assert_everywhere(PROMOTED[number], dtypes, f"{number}, {dtypes}")


def test_the_gradient_of_a_sine_in_float64_is_float32():
    x = np.array([0.1, 0.2], np.float32)
    assert fg.grad(lambda x: np.sum(np.sin(x, dtype=np.float64)))(x).dtype == np.float32
    np.testing.assert_allclose(np.sin(fg.tensor(x), dtype=np.float64).numpy(),
                               np.sin(x.astype(np.float64)), rtol=1e-15)
    result, tangent = fg.jvp(lambda x: np.sin(x, dtype=np.float64), (x,), (x,))
    assert result.dtype == tangent.dtype == np.float64
    assert np.sum(fg.tensor(np.full(9, 200, np.uint8)), dtype=np.uint8) == np.uint8(9 * 200 % 256)


# ---- whole numbers and numbers of Python's among others -------------------------------------

FORMS = [lambda f: f, fg.compile, lambda f: lambda x: f(fg.tensor(x)).numpy()[()]]


def same_number(mine, theirs):
    assert repr(np.asarray(mine)) == repr(np.asarray(theirs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("digits", [None, 0, 1, -1, -2])
@pytest.mark.parametrize("k", [np.int64(137), np.int8(95), np.uint16(1250)])
def test_whole_numbers_stay_whole_when_they_are_rounded(form, digits, k):
    given = () if digits is None else (digits,)
    same_number(np.int64(form(lambda x: round(x, *given))(k)), np.int64(round(k, *given)))


def test_a_rounded_whole_number_is_an_index():
    table = [10.0, 20.0, 30.0]
    assert fg.compile(lambda k: table[round(k)])(np.int64(2)) == 30.0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("power", [0, 1, 2, 3, True, np.int8(2)])
def test_powers_of_truths(form, power):
    b = np.array([True, False])
    same_number(form(lambda x: x ** power)(b), b ** power)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all", "argmax"])
def test_the_only_axis_of_a_number(form, axis, name):
    function = getattr(np, name)
    same_number(form(lambda x: function(x, axis=axis))(np.array(3.0)), function(3.0, axis=axis))


@pytest.mark.parametrize("make", [
    lambda np, x, s: np.array([s, x]), lambda np, x, s: np.array([x, s]),
    lambda np, x, s: np.array([[s, x], [x, s]]), lambda np, x, s: np.stack([s, x]),
    lambda np, x, s: np.array([s * x, s]), lambda np, x, s: np.array([s * x, 1.0])])
def test_joined_numbers_of_pythons_do_not_give_way(make):
    s = np.float32(0.1)
    plain = make(np, 2.0, s)
    same_number(fg.compile(lambda x: make(fnp, x, s))(2.0), plain)
    same_number(fg.jvp(lambda x: make(fnp, x, s), (2.0,), (1.0,))[0], plain)
