"""Programs: recorded once, replayed, always what the Python function returns."""

import collections
import copy
import functools
import inspect
import io
import marshal
import pickle
import threading
import types
import warnings
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.code import known
from fastgrad.programs import compile as _compile

X = np.array([0.5, -1.0, 2.0])
Point = namedtuple("Point", "x y")


pytestmark = pytest.mark.filterwarnings("error")


def equal(got, wanted):
    """Trees of the same values and kinds."""
    if isinstance(wanted, (tuple, list)):
        assert type(got) is type(wanted) and len(got) == len(wanted)
        for a, b in zip(got, wanted):
            equal(a, b)
    elif isinstance(wanted, dict):
        assert type(got) is type(wanted) and list(got) == list(wanted)
        for key in wanted:
            equal(got[key], wanted[key])
    elif isinstance(wanted, (np.ndarray, np.generic, float)):
        assert np.shape(got) == np.shape(wanted)
        assert getattr(got, "dtype", float) == getattr(wanted, "dtype", float)
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-300)
    else:
        assert got == wanted and type(got) is type(wanted)


def agrees(f, *args, times=3, **kwargs):
    """The program returns what its function returns, again and again."""
    wanted = f.function(*args, **kwargs)
    for _ in range(times):
        equal(f(*args, **kwargs), wanted)


# ---- calls ----------------------------------------------------------------------------------

def test_kinds_of_arguments_and_results():
    f = fg.compile(lambda x: x * x + x)
    for x in (2.0, np.float64(2.0), np.float32(2.0), np.array(2.0), X, X.astype(np.float32),
              np.ones((2, 0)), X.reshape(1, 3, 1)):
        got = [f(x) for _ in range(3)]
        for y in got:
            np.testing.assert_array_equal(y, x * x + x)
            assert np.shape(y) == np.shape(x)
            assert np.asarray(y).dtype == np.asarray(x).dtype
    assert type(f(2.0)) is float and type(f(np.float32(2.0))) is np.float32
    assert len(f.paths) == 8


@pytest.mark.parametrize("dtype", "?bhilqBHILQ")
def test_integers_and_masks(dtype):
    n = np.array([1, 0, 1], dtype)
    f = fg.compile(lambda n, x: np.sum(x * n))
    agrees(f, n, X)
    agrees(f, n[::-1], X)
    assert len(f.paths) == 1
    g = fg.compile(lambda i, x: x[i] * 2)
    agrees(g, n if dtype != "?" else n == 1, X)


def test_layouts():
    f = fg.compile(lambda x: x @ x + 1)
    a = np.arange(16.0).reshape(4, 4)
    hankel = np.lib.stride_tricks.as_strided(np.arange(7.0), (4, 4), (8, 8))
    for x in (a, a.T, a[::-1], np.asfortranarray(a), a.astype(">f8"), hankel):
        agrees(f, x)
    assert len(f.paths) == 1


def test_trees():
    def plain(p, q):
        return {"w": p["w"] * q[0], "b": [p["b"][0] + 1, (q[1].x, None)], "c": "text", "d": 3}

    f = fg.compile(plain)
    args = {"w": X, "b": (1.0, 2.0)}, [3.0, Point(1.0, X)]
    agrees(f, *args)
    agrees(f, {"b": (1.0, 2.0), "w": X}, args[1])
    agrees(f, OrderedDict(args[0]), args[1])
    agrees(fg.compile(lambda p: Point(p.y, p.x)), Point(1.0, X))
    agrees(fg.compile(lambda: 2.0))
    agrees(fg.compile(lambda x: None), X)
    agrees(fg.compile(lambda x: ()), X)


class Mine(dict):
    pass


def test_keys_that_are_equal_are_told_apart():
    f = fg.compile(lambda d: [*d, sum(d.values())])
    static = fg.compile(lambda d: list(d), static_argnums=0)
    kinds = [1, True, 1.0, np.int64(1), (1,), (True,), ((1.0,),), ((True,),), 0.0, -0.0, "1"]
    for keys in (kinds, kinds, kinds[::-1]):
        for key in keys:
            for given in ({key: 2.0}, Mine({key: 2.0})):
                assert repr(f(given)) == repr([*given, 2.0])
            assert repr(static({key: 2.0})) == repr([key])
    assert len(f.paths) == 2 * len(kinds)
    loaded = f.paths_only()
    for key in kinds:
        assert repr(loaded({key: 3.0})) == repr([key, 3.0])
    assert repr(fg.compile(lambda d: list(d["x"]))({"x": {True: 1.0}})) == "[True]"


def test_keywords_and_defaults():
    def plain(x, y=2.0, *rest, k=3.0, **more):
        return x * y + k + sum(rest) + sum(more.values())

    f = fg.compile(plain)
    for args, kwargs in (((1.0,), {}), ((1.0, 5.0), {}), ((1.0,), {"y": 5.0}), ((1.0,), {"k": 1.0}),
                         ((1.0, 2.0, 3.0), {"k": 4.0, "m": 5.0}), ((), {"x": 2.0})):
        agrees(f, *args, **kwargs)
    with pytest.raises(TypeError):
        f()
    with pytest.raises(TypeError):
        f(1.0, x=2.0)
    agrees(f, 1.0)


def test_static_arguments():
    def plain(x, n, name="sum", flip=False):
        for _ in range(n):
            x = x * 2
        return getattr(np, name)(-x if flip else x)

    f = fg.compile(plain)
    for n, name, flip in ((1, "sum", False), (2, "sum", False), (1, "prod", False),
                          (1, "sum", True)):
        equal(f(X, n, name, flip), plain(X, n, name, flip))
        paths = len(f.paths)
        equal(f(X, n, name, flip), f(X, n, name, flip))
        assert len(f.paths) == paths
    # What is equal and of another type is something else.
    f = fg.compile(lambda x, n: x if n is True else x + n)
    assert f(2.0, 1) == 3.0 and f(2.0, True) == 2.0 and f(2.0, 1) == 3.0


def test_static_by_number_and_by_name():
    f = fg.compile(lambda x, power, scale=1.0: scale * x ** power, static_argnums=1,
                   static_argnames="scale")
    for power, scale in ((2.0, 1.0), (3.0, 1.0), (2.0, -0.0), (2.0, 0.0)):
        assert np.copysign(1, f(3.0, power, scale=scale)) == np.copysign(1, scale)
        agrees(f, 3.0, power, scale=scale)
        agrees(f, 3.0, power, scale)
    assert len(f.paths) == 8
    g = fg.compile(lambda p, x: x * p["n"][0], static_argnums=(0,))
    for n in (1.0, 2.0, 1.0):
        assert g({"n": [n]}, 3.0) == 3 * n
    for bad in ({"static_argnums": 7}, {"static_argnames": "nothing"}, {"static_argnums": "x"}):
        with pytest.raises(TypeError, match="static_arg"):
            fg.compile(lambda x: x, **bad)


def test_arguments_that_do_not_do():
    f = fg.compile(lambda x, y=None: x)
    for bad, name in ((np.array([None]), "object"), (np.float16(1), "float16"),
                      (np.ma.masked_array([1.0], [True]), "MaskedArray")):
        with pytest.raises(TypeError, match=name):
            f(bad)
        with pytest.raises(TypeError, match=name):
            f(1.0, bad)
    with pytest.raises(TypeError, match=r"argument \[0\]\['k'\]"):
        f({"k": np.float16(1)})
    agrees(f, 1.0)


@pytest.mark.parametrize("given, f", [
    ({1.0, 2.0}, lambda s: sum(s)), (bytearray(b"x"), lambda s: s[0] * 2.0),
    (np.array(["a", "b"]), lambda s: s.size), (np.array([1j, 2.0]), lambda s: np.abs(s)),
    (np.complex64(3j), lambda s: s * 2), (collections.deque([1.0, 2.0]), lambda s: s[0] + len(s)),
    (types.SimpleNamespace(a=2.0), lambda s: s.a * 3), ({"a": 2.0}.items(), lambda s: [v for _, v in s])])
def test_arguments_that_only_the_function_takes(given, f):
    program = fg.compile(f)
    with pytest.warns(UserWarning, match=r"not replayed: argument \[0\]"):
        first = program(given)
    for answer in (first, program(given)):
        assert repr(answer) == repr(f(given))
    assert program.paths == []


def test_generators_are_refused():
    def generate(x):
        yield x

    async def wait(x):
        return x

    for bad in (generate, wait):
        with pytest.raises(TypeError, match="generator"):
            fg.compile(bad)
    # What returns a generator is called as it is.
    f = fg.compile(lambda x: (y for y in (x, x * 2)))
    with pytest.warns(UserWarning, match="returns a generator"):
        first = f(1.0)
    assert [list(first), list(f(3.0))] == [[1.0, 2.0], [3.0, 6.0]]
    with pytest.raises(TypeError, match="must be a function"):
        fg.compile(3)
    with pytest.raises(ValueError, match="paths=0"):
        fg.compile(lambda x: x, paths=0)


def test_results_never_share_memory():
    data = np.ones(3)
    f = fg.compile(lambda x, y: (x, y, x.T, x[1:], data, x.reshape(3, 1), fnp.ones(3)))
    x = X.copy()
    for _ in range(3):
        results = f(x, x)
        equal(results, f.function(X, X))
        for k, y in enumerate(results):
            assert not np.shares_memory(y, x) and not np.shares_memory(y, data)
            assert not any(np.shares_memory(y, z) for z in results[:k])
            y[...] = 7.0
    np.testing.assert_array_equal(x, X)


def test_the_same_array_twice_and_overlapping_ones():
    f = fg.compile(lambda a, b: a * 2 + b[::-1])
    x = np.arange(10.0)
    agrees(f, x, x)
    agrees(f, x[:5], x[2:7])
    agrees(f, x[:5], x[4::-1])


def test_results_that_depend_on_nothing():
    f = fg.compile(lambda x: (fnp.zeros(2), 1.0, fnp.sum(fnp.ones(3)), "a", None, 3, True))
    for _ in range(3):
        equal(f(X), (np.zeros(2), 1.0, np.float64(3.0), "a", None, 3, True))
    g = fg.compile(fg.grad(lambda x: 3.0 * x))
    assert g(1.0) == 3.0 == g(2.0)


def test_a_failed_call_changes_nothing():
    f = fg.compile(lambda x: x @ fnp.ones(3))
    agrees(f, X)
    for _ in range(2):
        with pytest.raises(ValueError):
            f(np.ones(4))
        agrees(f, X)
    fail = True

    def sometimes(x):
        if fail:
            raise KeyError("no")
        return x * 2

    g = fg.compile(sometimes)
    for _ in range(2):
        with pytest.raises(KeyError):
            g(1.0)
    fail = False
    agrees(g, 1.0)
    assert not fg._core.core.nested() and not fg._core.core.recording_program()


def test_changing_shapes_and_dtypes():
    f = fg.compile(lambda x: np.sum(x * x, axis=-1))
    for _ in range(2):
        for shape in ((3,), (2, 3), (0,), (3, 0), (1,), (4, 1, 2)):
            for dtype in (float, np.float32):
                agrees(f, np.ones(shape, dtype), times=2)
    assert len(f.paths) == 12


def test_so_many_signatures():
    f = fg.compile(lambda x, n: x * n)
    with pytest.warns(UserWarning, match="static arguments"):
        for n in range(_compile.SIGNATURES + 5):
            assert f(1.0, n) == n
    assert len(f.paths) <= _compile.SIGNATURES
    assert f(1.0, 0) == 0


# ---- methods --------------------------------------------------------------------------------

class Scaled:
    def __init__(self, scale):
        self.scale = scale

    @fg.compile
    def times(self, x, y=1.0):
        """Times."""
        return x * self.scale * y

    @fg.compile(paths=2)
    def sign(self, x):
        return x * self.scale if x > 0 else x

    @staticmethod
    @fg.compile
    def alone(x):
        return x * 2

    def __eq__(self, other):            # unhashable
        return True


def test_methods():
    one, two = Scaled(2.0), Scaled(3.0)
    for _ in range(2):
        for s in (one, two):
            assert s.times(2.0) == 2 * s.scale and s.times(X[:2], y=2.0)[0] == s.scale
            assert s.sign(2.0) == 2 * s.scale and s.sign(-2.0) == -2.0
            assert Scaled.times(s, 2.0) == 2 * s.scale and s.alone(3.0) == 6.0
    assert Scaled.times.__doc__ == "Times." and Scaled.times.__name__ == "times"
    assert isinstance(Scaled.times, fg.Program)
    assert fg.grad(one.times)(2.0) == 2.0


def test_a_program_that_is_also_a_method():
    f = fg.compile(lambda x, y=1.0: x[0] * y)

    class Holder:
        first = f

        def __getitem__(self, k):
            return 5.0

    for k in range(3):
        assert f(X * k) == X[0] * k and f((1.0, 2.0)) == 1.0 and Holder().first(2.0) == 10.0
    assert len([path for path in f.paths if path.left is None]) == 2 + 3


# ---- guards ---------------------------------------------------------------------------------

def test_branches():
    def plain(x):
        if x[0] > 0:
            return fnp.sum(x ** 4)
        return fnp.sum(fnp.abs(x))

    f = fg.compile(plain)
    g = fg.compile(fg.value_and_grad(plain))
    for x in (X, -X, X * 2, -X * 2):
        agrees(f, x)
        agrees(g, x)
    assert len(f.paths) == 2
    (guard,) = f.paths[0].guards
    assert guard.kind == "bool" and "test_compile.py" in guard.line
    assert "test_compile.py" in repr(f.paths) and sum(p.calls for p in f.paths) == 12


def test_loops_indices_and_masks():
    def newton(x):
        n = 0
        y = x
        while abs(y * y - x) > 1e-9:
            y = (y + x / y) / 2
            n += 1
        return y, n

    f = fg.compile(newton, paths=20)
    for x in (1.0, 2.0, 3.0, 100.0, 1e4, 2.0, 1.0, 3.0):
        agrees(f, x)

    g = fg.compile(lambda x: x[int(np.floor(x[0]))] * 2 + len(x[x > 1]))
    for x in ([0.0, 1.0, 2.0], [1.0, 5.0, 2.0], [2.0, 2.0, 2.0], [0.0, 1.0, 2.0]):
        agrees(g, np.array(x))

    h = fg.compile(lambda x: np.sum(x[x > 0]) * x[np.argmax(x)])
    for x in (X, -X, X * 2, np.ones(3)):
        agrees(h, x)


def test_paths_are_bounded():
    f = fg.compile(lambda x: x * int(np.floor(x)), paths=3)
    for k in range(6):
        for _ in range(k + 1):
            assert f(k + 0.5) == (k + 0.5) * k
    used = [path for path in f.paths if path.left is None]
    assert len(used) == 3 and len(f.paths) == 6
    assert all("least" in path.left for path in f.paths if path.left)


def test_guards_that_keep_missing():
    def plain(x):
        return x * int(np.floor(x * 1000))

    f = fg.compile(plain)
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for x in rng.normal(size=100):
            assert f(float(x)) == plain(float(x))
    assert len(caught) == 1 and "recorded at each call" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_rare_misses_are_no_reason_to_give_up():
    f = fg.compile(lambda x: x * int(np.floor(x)), paths=2)
    for k in range(40):
        for _ in range(4):
            assert f(k + 0.5) == (k + 0.5) * k
    assert [path for path in f.paths if path.left is None]


def test_random_programs():
    """Straight code with branches, indices and loop bounds taken from values."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        source = random_function(rng)
        space = {"fnp": fnp, "np": np}
        exec(source, space)
        plain = space["f"]
        f, g = fg.compile(plain), fg.compile(fg.grad(plain))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")             # of paths that keep missing
            for _ in range(12):
                x = rng.normal(size=4) * rng.choice([0.5, 2.0])
                try:
                    equal(f(x), np.float64(plain(x)))
                    np.testing.assert_allclose(g(x), fg.grad(plain)(x), rtol=1e-9, atol=1e-12)
                except AssertionError:
                    raise AssertionError(f"seed {seed}, x = {x!r}:\n{source}") from None


def random_function(rng):
    names, lines = ["x"], ["def f(x):"]
    for k in range(rng.integers(3, 10)):
        a, b = rng.choice(names), rng.choice(names)
        new = f"v{k}"
        kind = rng.integers(0, 8)
        expression = [f"{a} * {b} - 0.5", f"fnp.sin({a}) + {b}", f"fnp.maximum({a}, {b})",
                      f"{a}[::-1] * {rng.normal():.3f}", f"fnp.exp(-{a} * {a})",
                      f"fnp.where({a} > 0, {b}, {a} * 2)", f"fnp.cumsum({a})"
                      if hasattr(fnp, "cumsum") and False else f"{a} - fnp.mean({b})",
                      f"{a} / (1 + fnp.abs({b}))"][kind]
        lines.append(f"    {new} = {expression}")
        choice = rng.integers(0, 6)
        if choice == 0:
            lines += [f"    if {new}[{rng.integers(4)}] > {rng.normal():.2f}:",
                      f"        {new} = {new} + {a}", "    else:", f"        {new} = {new} * {b}"]
        elif choice == 1:
            lines += [f"    while abs({new}[0]) > 0.7:", f"        {new} = {new} * 0.6 + 0.1"]
        elif choice == 2:
            lines.append(f"    {new} = {new} + {new}[fnp.argmax({a})]")
        elif choice == 3:
            lines.append(f"    {new} = {new} + fnp.sum({new}[{a} > 0])")
        names.append(new)
    return "\n".join([*lines, f"    return fnp.sum({names[-1]} * {rng.choice(names)})"])


# ---- transformations ------------------------------------------------------------------------

def energy(x):
    return fnp.sum(fnp.sin(x) * x ** 2)


@pytest.mark.parametrize("transformation", [
    fg.grad, fg.value_and_grad, fg.elementwise_grad, fg.jacobian, fg.hessian, fg.laplacian])
def test_transformations_of_programs_are_programs(transformation):
    one = transformation(fg.compile(energy))
    other = fg.compile(transformation(energy))
    assert isinstance(one, fg.Program) and isinstance(other, fg.Program)
    for _ in range(3):
        equal(one(X), transformation(energy)(X))
        equal(other(X), transformation(energy)(X))
    assert str(one.paths[0].graph) == str(other.paths[0].graph)


def test_other_transformations():
    f = fg.compile(energy)
    v = np.array([1.0, 2.0, 3.0])
    h = fg.hvp(f)
    assert isinstance(h, fg.Program)
    for _ in range(2):
        equal(h(X, v), fg.hvp(energy)(X, v))
    equal(fg.jvp(f, (X,), (v,)), fg.jvp(energy, (X,), (v,)))
    equal(fg.vjp(f, X)[1](1.0), fg.vjp(energy, X)[1](1.0))
    equal(fg.linearize(f, X)[1](v), fg.linearize(energy, X)[1](v))
    np.testing.assert_allclose(fg.vmap(f)(np.stack([X, v])), [energy(X), energy(v)])
    equal(fg.grad(fg.grad(fg.compile(lambda x: x ** 3)))(2.0), 12.0)
    step = fg.compile(lambda x: x - 0.1 * fg.grad(f)(x))
    agrees(step, X)


def test_programs_in_programs():
    inner = fg.compile(lambda x: x * x if x > 0 else -x)
    outer = fg.compile(lambda x: inner(x) + inner(-x))
    for x in (1.0, -2.0, 3.0):
        agrees(outer, x)
    assert fg.grad(lambda x: inner(x) * 2)(3.0) == 12.0


def test_recursion():
    @fg.compile
    def power(x, n):
        return x if n == 1 else x * power(x, n - 1)

    for n in (1, 2, 5, 200):
        assert power(1.01, n) == pytest.approx(1.01 ** n)
        assert power(1.01, n) == pytest.approx(1.01 ** n)

    @fg.compile
    def collatz(x):
        return x if x <= 1 else collatz(x / 2) if x % 2 == 0 else collatz(3 * x + 1)

    for x in (6.0, 7.0, 6.0, 27.0):
        assert collatz(x) == 1.0
    endless = fg.compile(lambda x: endless(x))
    for _ in range(2):
        with pytest.raises(RecursionError):
            endless(1.0)


def test_tensors_get_histories():
    f = fg.compile(energy)
    w = fg.tensor(X, requires_grad=True)
    y = f(w)
    assert y.requires_grad
    y.backward()
    np.testing.assert_allclose(w.grad.numpy(), fg.grad(energy)(X))
    f(X)
    with fg.no_grad():
        assert not f(w).requires_grad


# ---- what Python needs ----------------------------------------------------------------------

def test_what_cannot_be_recorded_is_called():
    import math
    f = fg.compile(lambda x: math.sin(x) * 2)
    with pytest.warns(UserWarning, match="test_compile.py") as caught:
        for x in (1.0, 2.0, 3.0):
            assert f(x) == math.sin(x) * 2
    assert len(caught) == 1
    f = fg.compile(lambda x: np.median(x))
    with pytest.warns(UserWarning, match="median"):
        assert f(X) == np.median(X)
    g = fg.compile(fg.grad(lambda x: math.sin(x) * 2))
    for _ in range(2):
        with pytest.raises(TypeError, match="fnp.sin"):
            g(1.0)


def test_values_that_leave():
    f = fg.compile(lambda x: x * (x.item() if fg.is_tensor(x) else x))
    with pytest.warns(UserWarning, match="test_compile.py") as caught:
        for x in (1.0, 2.0, 3.0):
            assert f(x) == x * x
    assert len(caught) == 1


# ---- checking -------------------------------------------------------------------------------

def test_verify_passes():
    f = fg.compile(energy, verify=3)
    for k in range(40):
        f(X * k)
    assert f.paths[0].calls == 40


def test_verify_finds_what_is_not_seen(monkeypatch):
    class Hidden:
        """State behind a function that is known to depend on its operands alone, and does not."""

        def __init__(self):
            self.value = 1.0

    hidden = Hidden()
    read = type("Opaque", (), {"__module__": "math", "__call__": lambda self: hidden.value})()
    monkeypatch.setitem(known._FUNCTIONS, id(read), read)
    f = fg.compile(lambda x: {"y": x * read()}, verify=1)
    assert f(2.0) == {"y": 2.0} == f(2.0)
    hidden.value = 3.0
    with pytest.raises(RuntimeError, match=r"verify.*'y'.*differ"):
        for _ in range(8):
            f(2.0)


# ---- as an object ---------------------------------------------------------------------------

@fg.compile
def module_level(x):
    return x * 3


def cubed(x):
    return x * x * x


@fg.compile
def cubed_program(x):
    return cubed(x)


def plain_module_level(x):
    return x * 4


def test_pickle_and_copy():
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    f = fg.compile(plain_module_level, paths=3)
    f(1.0)
    for made in (pickle.loads(pickle.dumps(f)), copy.copy(f), copy.deepcopy(f)):
        assert made(2.0) == 8.0 and made._limit == 3
    g = pickle.loads(pickle.dumps(fg.grad(f)))
    assert g(2.0) == 4.0


def test_local_functions_travel_as_what_was_recorded(tmp_path):
    scale, w = 2.0, np.ones(3)
    f = fg.compile(lambda x: x * scale if x > 0 else fnp.sum(x * w))
    for scale in (2.0, 3.0, 4.0):
        f(1.0), f(-1.0)
    f.save(tmp_path / "f.fgp")
    for g in (f.paths_only(), pickle.loads(pickle.dumps(f.paths_only())),
              fg.load(tmp_path / "f.fgp")):
        assert g.function is None
        assert g(2.0) == 8.0 and g(-2.0) == -6.0 and fg.grad(g)(2.0) == 4.0
        for made in (copy.copy(g), copy.deepcopy(g)):
            assert made is not g and made(2.0) == 8.0
    assert copy.copy(f)(5.0) == 20.0 and copy.deepcopy(f).function is f.function
    with pytest.raises(RuntimeError, match="paths_only: .* no recorded path"):
        fg.compile(lambda x: x).paths_only()


def function_of(code):
    return types.FunctionType(marshal.loads(code), globals())


def by_value(x):
    """As cloudpickle, which joblib uses, pickles: functions by their code."""
    space = {"__name__": "cloudpickle.cloudpickle", "pickle": pickle}
    exec("class Pickler(pickle.Pickler):\n"
         "    def dump(self, x):\n"
         "        return super().dump(x)\n", space)

    class Pickler(space["Pickler"]):
        def reducer_override(self, x):
            if type(x) is types.FunctionType and "<lambda>" in x.__qualname__:
                return function_of, (marshal.dumps(x.__code__),)
            return NotImplemented

    file = io.BytesIO()
    Pickler(file).dump(x)
    return file.getvalue()


def test_a_function_that_cannot_be_imported_does_not_get_lost():
    f = fg.compile(lambda x: x * 2)
    f(1.0)
    made = (f, fg.grad(f), fg.compile(f), fg.compile(fg.grad(f.function)), fg.vmap(f),
            fg.compile(functools.partial(lambda x, y: x * y, 2.0)), {"nested": [f]})
    for program in made:
        with pytest.raises(pickle.PicklingError, match=r"lambda.*cannot be imported.*paths_only"):
            pickle.dumps(program)
    found = pickle.loads(by_value(fg.compile(f, paths=3)))
    assert found.function is not f.function and found(3.0) == 6.0 and found._limit == 3
    assert pickle.loads(by_value(fg.grad(f)))(3.0) == 2.0


@fg.grad
def slope(x):
    return x ** 3


@fg.jacobian
def slopes(x):
    return x ** 3


class Model:
    scale = 3.0

    @fg.compile
    def energy(self, x):
        return self.scale * x * x


def test_whatever_is_made_of_a_function_that_can_be_imported_pickles():
    again = [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))]
    for copied in again:
        assert copied(slope) is slope and copied(slopes) is slopes
        assert copied(fg.compile(slope, paths=2))(2.0) == 12.0
        f = fg.compile(cubed_program, paths=2)       # of a name that finds another program
        assert copied(f)(2.0) == cubed_program(2.0) and copied(f)._limit == 2
        for make, args, wanted in (
                (lambda: fg.grad(cubed_program), (2.0,), 12.0),
                (lambda: fg.grad(fg.grad(f)), (2.0,), 12.0),
                (lambda: fg.vmap(fg.grad(f)), (np.ones(2),), [3.0, 3.0]),
                (lambda: fg.compile(fg.grad(f), paths=5), (2.0,), 12.0),
                (lambda: fg.hvp(f, value=True), (2.0, 1.0), (8.0, 12.0, 12.0)),
                (lambda: fg.jacobian(f, mode="forward"), (2.0,), 12.0),
                (lambda: fg.grad(f, argnames="x"), (2.0,), 12.0)):
            found = copied(copied(make()))
            np.testing.assert_array_equal(found(*args), wanted)
            assert found._limit == make()._limit and found.function is not None
        assert copied(Model.energy) is Model.energy or copied is not again[2]
        assert copied(Model().energy)(2.0) == 12.0


def test_what_it_tells():
    f = fg.compile(energy)
    assert "no path" in str(f) and f.paths == [] and "energy" in repr(f)
    for method in (f.explain_plan, f.memory_plan):
        with pytest.raises(RuntimeError, match="call it once"):
            method()
    f(X)
    f(np.ones((2, 2)))
    assert "float64[3]" in str(f) and "float64[2, 2]" in str(f) and "sin" in str(f)
    assert "float64[2, 2]" in f.explain_plan() and f.memory_plan()
    assert f.function is energy and fg.compile(f).function is energy
    assert f.__name__ == "energy" and fg.Program is type(f)


def test_functions_that_are_not_pythons():
    for function in (np.sin, fnp.sin, np.sum, fnp.sum, fg.special.softmax, np.linalg.norm):
        f = fg.compile(function)
        for _ in range(3):
            np.testing.assert_allclose(f(X), function(X))
    assert list(inspect.signature(fg.compile(energy)).parameters) == ["x"]
    f = fg.compile(lambda x: x * len(x))
    agrees(f, X)


def test_decorator_with_options():
    @fg.compile(static_argnames=("n",), paths=2, verify=1)
    def f(x, n):
        return x * n

    assert f(2.0, 3.0) == 6.0 == f(2.0, 3.0)


def test_threads():
    def plain(x):
        return np.sum(x * x) if x[0] > 0 else np.sum(x)

    f = fg.compile(plain)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(300):
                x = rng.normal(size=rng.integers(1, 4))
                if not np.isclose(f(x), plain(x)):
                    wrong.append(x)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- without a Python function --------------------------------------------------------------

def test_histories():
    w = fg.tensor(3.0, requires_grad=True)
    f = fg.function([w], w * w)
    assert f(3.0) == 9.0 and f(np.float64(4.0)) == 16.0 and f(2) == 4.0 and f.function is None
    assert fg.value_and_grad(f)(5.0) == (25.0, 10.0)
    assert fg.grad(fg.grad(f))(5.0) == 2.0
    x, b = fg.tensor(X, requires_grad=True), fg.tensor(2.0, requires_grad=True)
    g = fg.function([x], {"y": fnp.sum(x * b), "z": [x[0] * 2, "a"]}, name="g")
    equal(g(X * 2), {"y": np.float64(2 * np.sum(2 * X)), "z": [np.float64(4 * X[0]), "a"]})
    np.testing.assert_array_equal(fg.grad(lambda x: g(x)["y"])(X), np.full(3, 2.0))
    with fg.no_grad():
        b[...] = 5.0
    assert g(X)["y"] == np.sum(5 * X)
    for bad, error in (((np.ones(4),), ValueError), ((X.astype(np.float32),), TypeError),
                       ((X, X), TypeError), ((), TypeError), (("a",), TypeError)):
        with pytest.raises(error, match="g: "):
            g(*bad)
    assert g(X)["y"] == np.sum(5 * X)
    with pytest.raises(TypeError, match="no history"):
        fg.function([x], 3.0)


def test_a_guard_without_python():
    source = fg.compile(lambda x: x * 2 if x > 0 else -x)
    source(1.0)
    f = fg.Program.of_graph(source.paths[0].graph, name="half")
    assert f(3.0) == 6.0 and fg.grad(f)(3.0) == 2.0
    for call in (f, fg.grad(f)):
        with pytest.raises(fg.GuardError, match=r"test_compile.py.*(True|bool)"):
            call(-1.0)
    assert f(3.0) == 6.0
    source(-1.0)
    both = fg.Program.of_graph(source.paths[0].graph)
    both.add_graph(source.paths[1].graph)
    for x in (1.0, -1.0, 2.0, -2.0):
        assert both(x) == source(x) and fg.grad(both)(x) == fg.grad(source)(x)
