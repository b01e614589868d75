"""Laws over every name of fastgrad.numpy, its linalg, fastgrad.special and the methods of Tensors.

A call with Tensors gives NumPy's value, dtype, shape and container, and shares memory with its
operands exactly where NumPy's result does: what is written to an operand afterwards shows in the
result, and the other way round, or not, or is refused, as in NumPy. A name without a call fails,
unless it stands on a list with the reason.
"""

import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import special
from laws.calls import PLAIN, ROWS, Tensor, cases, draw, names, parts, value

# Names that no call with arrays says anything about.
WITHOUT_CALLS = {
    "logsumexp": "not NumPy's; special.logsumexp is the same function",
    **{f"ndarray.{name}": "makes a Python number of one entry: test_tensor.py" for name in (
        "item", "tolist", "__bool__", "__complex__", "__float__", "__index__", "__int__")},
    **{f"ndarray.{name}": "text: test_tensor.py" for name in ("__format__", "__repr__", "__str__")},
    **{f"ndarray.{name}": "changes its operand: test_tensor.py" for name in (
        "__iadd__", "__iand__", "__ifloordiv__", "__ilshift__", "__imatmul__", "__imod__",
        "__imul__", "__ior__", "__ipow__", "__irshift__", "__isub__", "__itruediv__", "__ixor__",
        "__setitem__")},
    **{f"ndarray.{name}": "Python's, or a protocol of NumPy's" for name in (
        "__array__", "__array_function__", "__array_priority__", "__array_ufunc__",
        "__array_namespace__", "__class_getitem__", "__deepcopy__", "__iter__", "__len__",
        "__reduce__", "__reduce_ex__", "__setstate__", "__contains__", "__delitem__")},
}
if not hasattr(np, "unstack"):
    WITHOUT_CALLS["unstack"] = "new in NumPy 2.1"
# Older NumPys give integers to round back as they are, newer ones a copy; Tensors are copied.
WHOLE = np.arange(3)
ROUND_IS_A_COPY = not np.shares_memory(np.round(WHOLE), WHOLE)
ALL = names()


def test_every_name_has_a_call_or_a_reason():
    assert not [name for name in ALL if not cases(name) and name not in WITHOUT_CALLS]
    assert not [name for name in WITHOUT_CALLS if cases(name)]


# ---- operands -----------------------------------------------------------------------------------

def operands(shapes, dtype, seed=0):
    """Arrays of a dtype."""
    if np.dtype(dtype).kind == "f":
        return draw(shapes, dtype, seed)
    arrays = [np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape) for shape in shapes]
    return [(a % 3 > 0) if dtype is bool else a.astype(dtype) for a in arrays]


def strided(a):
    """What shows the entries of `a` in memory that has gaps, and how it is seen there."""
    return np.repeat(a, 2, axis=-1), lambda whole: whole[..., ::2]


def turned(a):
    """In memory that has another order."""
    return np.ascontiguousarray(a.T), lambda whole: whole.T


def plainly(a):
    return a, lambda whole: whole


LAYOUTS = {"plain": plainly, "strided": strided, "turned": turned}


def given(arrays, layout, recorded):
    """The arrays and Tensors to call with: the same views of the same entries."""
    mine, numpys = [], []
    for k, a in enumerate(arrays):
        whole, seen = (plainly if k or not a.ndim else LAYOUTS[layout])(a)
        t = fg.tensor(whole, requires_grad=recorded and a.dtype.kind == "f")
        mine.append(seen(t * 1.0 if t.requires_grad else t))
        # What is computed of a 0-d array is a NumPy scalar.
        numpys.append(seen(whole.copy())[()] if t.requires_grad else seen(whole.copy()))
    return mine, numpys


def namespace_of(name):
    if name.startswith("special."):
        return special, pytest.importorskip("scipy.special")
    return fnp, np if name.partition(".")[0] in ("ndarray", "linalg") or hasattr(np, name) else fnp


# ---- the law --------------------------------------------------------------------------------

def assert_alike(mine, numpys, where):
    """The same structure, dtypes, shapes and values."""
    if isinstance(numpys, (tuple, list)):
        assert type(mine) is type(numpys), where
        assert len(mine) == len(numpys), where
        for part, expected in zip(mine, numpys, strict=True):
            assert_alike(part, expected, where)
        return
    if not isinstance(numpys, (np.ndarray, np.generic)):
        assert not isinstance(mine, Tensor), where
        assert mine == numpys, where
        return
    assert isinstance(mine, Tensor), where
    assert mine.dtype == numpys.dtype, where
    assert mine.shape == numpys.shape, where
    if numpys.dtype.kind == "f":
        bound = 2e-5 if numpys.dtype == np.float32 else 1e-11
        np.testing.assert_allclose(value(mine), numpys, rtol=bound, atol=bound / 10, err_msg=where)
    else:
        np.testing.assert_array_equal(value(mine), numpys, err_msg=where)


def other(a):
    """Other entries than those of `a`."""
    return ~a if a.dtype == bool else a + 7


def refused(array, new):
    """Whether NumPy refuses that an array is written to, or is going to and warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            array[...] = new
        except (ValueError, DeprecationWarning):
            return True
    return False


def assert_memory(mine_of, numpys_of, make, where):
    """What is written shows where it shows in NumPy."""
    tensors, arrays = make()
    mine, numpys = parts(mine_of(tensors)), parts(numpys_of(arrays))
    before, kept = ([np.array(value(part)) for part in results] for results in (numpys, mine))
    for t, a in zip(tensors, arrays, strict=True):
        if isinstance(a, np.ndarray):
            t[...] = a[...] = other(a)
    for k, (part, seen, old) in enumerate(zip(mine, numpys, before, strict=True)):
        if isinstance(seen, np.ndarray):
            same = np.array_equal(seen, old, equal_nan=seen.dtype.kind == "f")
            np.testing.assert_allclose(value(part), kept[k] if same else seen, rtol=1e-5,
                                       err_msg=f"{where}: operand, result {k}")

    tensors, arrays = make()
    mine, numpys = parts(mine_of(tensors)), parts(numpys_of(arrays))
    for k, (part, seen) in enumerate(zip(mine, numpys, strict=True)):
        if isinstance(seen, np.ndarray) and seen.size:
            new = other(seen)
            if refused(seen, new):
                with pytest.raises(ValueError, match="read-only"):
                    part[...] = new
            else:
                part[...] = new
            for t, a in zip(tensors, arrays, strict=True):
                np.testing.assert_array_equal(value(t), a, err_msg=f"{where}: result {k}")


@pytest.mark.sampled(2)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [name for name in ALL if name not in WITHOUT_CALLS])
def test_values_and_memory_are_numpys(name):
    mine_in, numpys_in = namespace_of(name)
    for number, (call, *shapes) in enumerate(cases(name)):
        for dtype in (np.float64, np.float32, np.int64, *[bool] * (mine_in is fnp)):
            for layout in LAYOUTS if shapes and shapes[0] and dtype is np.float64 else ("plain",):
                for recorded in (True, False) if dtype is np.float64 else (True,):
                    where = f"{name}, call {number}, {dtype.__name__}, {layout}, {recorded=}"

                    def make(dtype=dtype, layout=layout, recorded=recorded, shapes=shapes):
                        return given(operands(shapes, dtype), layout, recorded)

                    tensors, arrays = make()
                    try:
                        expected = call(numpys_in, *arrays)
                    except (TypeError, ValueError, np.exceptions.AxisError) as error:
                        with pytest.raises(type(error)):
                            call(mine_in, *tensors)
                        continue
                    if any(np.asarray(part).dtype.char in "e" for part in parts(expected)):
                        continue        # float16, of booleans: Tensors do not have it
                    if not shapes:
                        with fg.record():
                            got = call(mine_in)
                    else:
                        got = call(mine_in, *tensors)
                    if "empty" not in name or expected.size == 0:
                        assert_alike(got, expected, where)
                    if dtype is not np.float32 and (ROUND_IS_A_COPY or dtype is not np.int64
                                                    or name.split(".")[-1] not in (
                                                        "round", "around")):
                        assert_memory(lambda xs: call(mine_in, *xs),
                                      lambda xs: call(numpys_in, *xs), make, where)


# ---- views, written to inside transformations ---------------------------------------------------

def shared(name):
    """The calls of one array whose memory NumPy shows in the result, for writing."""
    found = []
    for call, *shapes in cases(name):
        if len(shapes) == 1 and shapes[0]:
            x, = draw(shapes)
            try:
                results = parts(call(np, x))
            except TypeError:           # NumPy has it for integers alone
                continue
            if any(isinstance(part, np.ndarray) and part.ndim and np.shares_memory(part, x)
                   and not refused(part, part.copy()) for part in results):
                found.append((call, *shapes))
    return found


def written(namespace, call, x):
    """An array that is seen in part, changed by what is seen, and read."""
    y = x * 1.0
    for k, part in enumerate(parts(call(namespace, y))):
        if part.ndim:
            part *= 2.0 + k
            part[...] = part * part
    return y * y


@pytest.mark.parametrize("name", [name for name in ALL if name not in {*ROWS, *PLAIN} and
                                  "special" not in name and shared(name)])
def test_a_view_that_is_written_to_is_numpys_in_every_transformation(name):
    for call, shape in shared(name):
        (x,), (direction,) = draw([shape]), draw([shape], seed=1)

        def f(x, call=call):
            return written(fnp, call, x)

        def close(a, b, rtol=1e-9):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol, err_msg=name)

        gradient = fg.grad(lambda x, f=f: fnp.sum(f(x)))
        compiled, compiled_gradient = fg.compile(f), fg.compile(gradient)
        expected = [written(np, call, operand) for operand in (x, direction)]
        for operand, numpys in [(x, expected[0]), (direction, expected[1]), (x, expected[0])]:
            close(f(operand), numpys)
            close(compiled(operand), numpys)
            close(compiled_gradient(operand), gradient(operand))
        close(fg.vmap(f)(np.stack([x, direction])), expected)
        result, tangent = fg.jvp(f, (x,), (direction,))
        close(result, expected[0])
        close(np.sum(tangent), np.sum(gradient(x) * direction))
        ends = [np.sum(written(np, call, x + h * direction)) for h in (1e-6, -1e-6)]
        close(np.sum(tangent), (ends[0] - ends[1]) / 2e-6, 1e-5)


def changed(namespace, call, x):
    """What a call gives of an array that is changed afterwards, and the array."""
    y = x * 1.0
    results = parts(call(namespace, y))
    y *= 2.0
    return (*[part * 1.0 for part in results if np.ndim(part) or isinstance(part, Tensor)], y)


def of_one_array(name):
    """The calls of one floating array, no more than three of those that give arrays."""
    found = []
    for call, *shapes in cases(name):
        if len(shapes) == 1 and shapes[0] and 0 not in shapes[0] and len(found) < 3:
            try:
                results = parts(call(namespace_of(name)[1], *draw(shapes)))
            except TypeError:
                continue
            if all(isinstance(part, np.ndarray) and part.ndim and part.dtype == float
                   for part in results):
                found.append((call, shapes[0]))
    return found


# Some of whose calls are recorded anew each time, as the warning says.
NOT_REPLAYED = {
    "append": "what is made of a list is an array of unknown origin",
    "average": "the same of its weights",
    "where": "the same of a list of conditions",
    "linalg.norm": "singular vectors are computed outside",
    "linalg.matrix_norm": "singular vectors are computed outside",
}


@pytest.mark.sampled(2)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [name for name in ALL if name not in WITHOUT_CALLS])
def test_replays_share_what_numpy_shares(name):
    mine_in, numpys_in = namespace_of(name)
    for call, shape in of_one_array(name):
        compiled = fg.compile(lambda x, call=call: changed(mine_in, call, x))
        for seed in (0, 1, 2):
            x, = draw([shape], seed=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore" if name in NOT_REPLAYED else "error", UserWarning)
                got = compiled(x)
            for mine, numpys in zip(got, changed(numpys_in, call, x), strict=True):
                np.testing.assert_allclose(mine, numpys, rtol=1e-9, atol=1e-12, err_msg=name)
