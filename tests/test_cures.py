"""What errors say: the user's line, the function's own name, and a cure that works.

Every function that fastgrad has no rule for goes through the first law; every expression that an
error offers is run.
"""

import concurrent.futures
import contextlib
import functools
import inspect
import linecache
import re
import threading
import types
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad.numpy._alternatives import TABLE

scipy_special = pytest.importorskip("scipy.special")
import scipy.linalg  # noqa: E402
import scipy.optimize  # noqa: E402
import scipy.sparse  # noqa: E402
import scipy.stats  # noqa: E402

V, W = np.array([0.25, 0.75, 0.5, 0.125]), np.array([1.0, 2.0, 3.0, 4.0])
X = np.array([[2.0, 0.5], [0.25, 1.0]])
Y = np.array([[4.0, 1.0], [1.0, 3.0]])

# ---- functions without rule ---------------------------------------------------------------------

# Of what NumPy calls a function, these do not compute from arrays, or change one.
OTHERS = {"copyto", "put", "putmask", "place", "fill_diagonal", "put_along_axis", "save", "savez",
          "savez_compressed", "savetxt", "busday_count", "busday_offset", "is_busday", "isnat",
          "datetime_as_string", "can_cast", "common_type", "min_scalar_type", "may_share_memory",
          "shares_memory", "array2string", "array_repr", "array_str", "einsum_path", "isfortran",
          "ravel_multi_index", "unravel_index", "packbits", "unpackbits", "bincount",
          "apply_over_axes", "tensorinv", "bitwise_count"}
CALLS = {"interp": (V, np.sort(W), W), "piecewise": (V, [V > 0.5], [np.sin]), "choose": (
    np.array([0, 1, 0, 1]), (V, W)), "apply_along_axis": (np.sum, 0, X), "insert": (V, 1, 2.0),
    "resize": (V, (2, 2)), "polyfit": (V, W, 1), "matrix_power": (X, 2), "multi_dot": ([X, X],),
    "tensorsolve": (Y, V[:2]), "lstsq": (Y, V[:2]), "histogram2d": (V, W), "histogramdd": (X,),
    "ldexp": (V, np.array([1, 2, 0, 1])), "trim_zeros": (V,), "block": ([[X, X]],)}
GUESSES = [(V,), (V, W), (X,), (X, V[:2]), (V, 0.5), (V, 1), (V, 50.0), (V[:2], X)]


def unruled():
    """The functions of NumPy and SciPy's ufuncs that there is no rule for, by their names."""
    found = {}
    for name, module in [("numpy", np), ("numpy.linalg", np.linalg), ("numpy.fft", np.fft)]:
        for part in dir(module):
            function = getattr(module, part)
            if (hasattr(function, "_implementation") or isinstance(function, np.ufunc)) and not (
                    function in core.ARRAY_FUNCTIONS or function in core.UFUNCS
                    or function in core.PLAIN_UFUNCS) and part not in OTHERS:
                found.setdefault(f"{name}.{part}", function)
    for part in dir(scipy_special):
        function = getattr(scipy_special, part)
        if isinstance(function, np.ufunc) and function not in core.UFUNCS:
            found[f"scipy.special.{part}"] = function
    return found


UNRULED = unruled()


def arguments(name, function):
    """Arguments that NumPy takes, with the arrays in them that may be Tensors; None if none are
    known."""
    short = name.rpartition(".")[2]
    if isinstance(function, np.ufunc):
        whole = np.array([1, 2, 3, 2])
        guesses = [CALLS[short]] if short in CALLS else [
            (X, V[:2]), (V[:2], X)] if short in ("matvec", "vecmat") else [
            (W + V,) * function.nin, *((whole,) * k + (V,) * (function.nin - k)
                                       for k in range(1, function.nin))]
    else:
        guesses = [CALLS[short]] if short in CALLS else GUESSES
    for guess in guesses:
        try:
            with np.errstate(all="ignore"):
                function(*guess)
        except Exception:   # noqa: BLE001, S112 (it is not called so)
            continue
        return guess
    return None


def replaced(operands, f):
    return type(operands)(replaced(x, f) if isinstance(x, (list, tuple)) else
                                   f(x) if isinstance(x, np.ndarray) and x.dtype == float else x
                          for x in operands)


def plain(x):
    if isinstance(x, (list, tuple)):
        return [plain(part) for part in x]
    return x.numpy() if isinstance(x, fg.Tensor) else x


@pytest.mark.sampled(2)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", sorted(UNRULED))
def test_what_has_no_rule_is_named_and_computes_what_is_detached(name):
    function = UNRULED[name]
    operands = arguments(name, function)
    assert operands is not None, "nobody knows how this function is called: put it into CALLS"
    with pytest.raises(fg.NoDerivativeError) as raised, fg.record():
        function(*replaced(operands, lambda x: fg.tensor(x, requires_grad=True)))
    said = str(raised.value)
    assert re.match(r"[\w.]+ has no derivative rule \(.*line \d+\); ", said)
    assert eval(said.split(" ")[0].replace("scipy.special", "scipy_special").replace(
        "numpy", "np")) is function
    assert __file__ in said

    expected = function(*operands)
    got = function(*replaced(operands, lambda x: fg.tensor(x, requires_grad=True).detach()))
    assert isinstance(got, tuple) == isinstance(expected, tuple)
    for mine, numpys in zip(plain(got if isinstance(got, tuple) else [got]),
                            expected if isinstance(expected, tuple) else [expected], strict=True):
        np.testing.assert_array_equal(mine, numpys)


def test_methods_of_ufuncs_without_rule_are_named():
    t = fg.tensor(V, requires_grad=True)
    with pytest.raises(fg.NoDerivativeError, match=r"^numpy\.subtract\.accumulate has no"):
        np.subtract.accumulate(t)
    np.testing.assert_array_equal(np.subtract.accumulate(t.detach()).numpy(),
                                  np.subtract.accumulate(V))
    with pytest.raises(fg.NoDerivativeError, match=r"^scipy\.linalg\.solve has no"):
        scipy.linalg.solve(Y, t[:2])
    with pytest.raises(fg.NoDerivativeError, match=r"^scipy\.stats\.norm\.pdf has no"):
        scipy.stats.norm.pdf(t)
    np.testing.assert_array_equal(scipy.stats.norm.pdf(t.detach()), scipy.stats.norm.pdf(V))


def test_integers_without_rule_are_computed():
    t = fg.tensor([3, 1, 2])
    assert np.cumsum(t).tolist() == [3, 4, 6]
    assert np.median(t).item() == 2.0
    assert fnp.median(t).item() == 2.0
    for function in (np.median, fnp.median):
        compiled = fg.compile(lambda x, f=function: x * f(np.argsort(x)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")             # it is not replayed
            for x in (V, W):
                np.testing.assert_array_equal(compiled(x), x * 1.5)


def test_a_rule_of_ones_own_is_a_cure():
    i0 = fg.custom_vjp(np.i0)

    i0.defvjp(lambda x: (i0(x), x), lambda x, out_bar: (out_bar * scipy_special.i1(x),))
    np.testing.assert_allclose(fg.grad(lambda x: fnp.sum(i0(x)))(V), scipy_special.i1(V))


# ---- alternatives -------------------------------------------------------------------------------

# The calls that fail.
FAILING = {
    "numpy.cumulative_sum": "np.cumulative_sum(x)",
    "numpy.cumulative_prod": "np.cumulative_prod(x)",
    "numpy.nancumsum": "np.nancumsum(x)", "numpy.nancumprod": "np.nancumprod(x)",
    **{f"numpy.nan{name}": f"np.nan{name}(x)" for name in (
        "sum", "prod", "mean", "var", "std", "max", "min", "median")},
    "numpy.ediff1d": "np.ediff1d(x)", "numpy.gradient": "np.gradient(x)",
    "numpy.interp": "np.interp(x, xp, fp)", "numpy.median": "np.median(x)",
    "numpy.quantile": "np.quantile(x, q)", "numpy.percentile": "np.percentile(x, q)",
    "numpy.unique": "np.unique(x)",
    "numpy.convolve": "np.convolve(x, v)", "numpy.correlate": "np.correlate(x, v)",
    "numpy.polyval": "np.polyval(p, x)", "numpy.vander": "np.vander(x)",
    "numpy.cov": "np.cov(X)", "numpy.corrcoef": "np.corrcoef(X)",
    "numpy.insert": "np.insert(x, obj, values)", "numpy.resize": "np.resize(x, (8,))",
    "numpy.block": "np.block(arrays)", "numpy.choose": "np.choose(a, choices)",
    "numpy.piecewise": "np.piecewise(x, condlist, funclist)",
    "numpy.apply_along_axis": "np.apply_along_axis(func1d, 1, X)",
    "numpy.vectorize": "np.vectorize(pyfunc)(x)", "numpy.angle": "np.angle(x)",
    "numpy.sinc": "np.sinc(x)", "numpy.logaddexp2": "np.logaddexp2(x1, x2)",
    "numpy.ldexp": "np.ldexp(x1, x2.astype(int))", "numpy.modf": "np.modf(x)",
    "numpy.matvec": "np.matvec(x1, x2)", "numpy.vecmat": "np.vecmat(x1, x2)",
    "numpy.unwrap": "np.unwrap(x)", "numpy.put": "np.put(x, ind, v)",
    "numpy.putmask": "np.putmask(x, mask, values)", "numpy.place": "np.place(x, mask, vals)",
    "numpy.copyto": "np.copyto(x, src)", "numpy.fill_diagonal": "np.fill_diagonal(X, val)",
    "numpy.full": "np.full(3, x[0])",
    "numpy.fft.fft": "np.fft.fft(x)", "numpy.linalg.matrix_power": "np.linalg.matrix_power(X, 2)",
    "numpy.linalg.multi_dot": "np.linalg.multi_dot([A, B, C])",
    "numpy.linalg.svdvals": "np.linalg.svdvals(X)", "scipy.linalg.norm": "scipy.linalg.norm(x)",
    **{name: f"{name}({'x1, x2' if 'xlog' in name else 'x'})" for name in TABLE
       if name.startswith("scipy.special.")},
}


def environment(name, x):
    """What the texts speak of, for a vector or a Tensor x."""
    wide = fnp.reshape(x, (2, 2)) if isinstance(x, fg.Tensor) else x.reshape(2, 2)
    first = wide if name in ("numpy.matvec",) else x[:2] if name == "numpy.vecmat" else x
    second = x[:2] if name == "numpy.matvec" else wide if name == "numpy.vecmat" else W
    return {
        "np": np, "fnp": fnp, "fg": fg, "scipy": scipy, "x": x, "X": wide, "x1": first,
        "x2": second, "xp": np.array([0.0, 0.3, 0.6, 1.0]), "fp": np.array([0.0, 2.0, 1.0, 4.0]),
        "q": 40.0 if name == "numpy.percentile" else 0.4, "v": np.array([1.0, -2.0]),
        "p": [2.0, 1.0, 3.0], "obj": 1, "values": 2.5,
        "repeats": 2, "arrays": [[wide, wide], [wide, wide]], "a": np.array([0, 1, 1, 0]),
        "choices": [x, W], "condlist": [x < 0.6, x >= 0.6], "funclist": [np.sin, np.exp],
        "func1d": lambda row: row[0] * row[1], "pyfunc": lambda e: e * e, "ind": [0, 2],
        "mask": np.array([True, False, False, True]), "vals": 1.5, "src": 2.0, "val": 3.0,
        "A": wide, "B": Y, "C": wide}


def run(expression, assignments, names):
    for text in assignments:
        exec(text, names)
    if " = " in expression and not expression.startswith("("):
        exec(expression, names)
        return names["X"] if expression.startswith("X") else names["x"]
    return eval(expression, names)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", sorted(TABLE))
def test_the_alternative_to_a_function_works(name):
    module, _, part = name.rpartition(".")
    if module == "numpy" and not hasattr(np, part):
        pytest.skip("this NumPy does not have it")
    seen = []

    def fails(x):
        with pytest.raises(TypeError) as raised:
            # (x itself: NumPy keeps a reference to the operand where add.accumulate(t) raises.)
            eval(FAILING[name], environment(name, x))
        seen.append(str(raised.value))
        return fnp.sum(x)

    fg.grad(fails)(V)
    said, = seen
    assert said.startswith(f"{name} has no derivative rule (<string>, line 1); ")
    assert core.ALTERNATIVES[name] in said

    results = []

    def works(x):
        result = run(*TABLE[name][:1], TABLE[name][1:], environment(name, x * 1.0))
        parts = result if isinstance(result, tuple) else (result,)
        results.extend(map(plain, (x.detach() if isinstance(x, fg.Tensor) else x for x in parts)))
        return sum(fnp.sum(part * part) for part in parts)

    gradient = fg.grad(works)(V)
    assert np.isfinite(gradient).all()
    names = environment(name, V.copy())
    expected = eval(FAILING[name], names)
    if name == "numpy.fft.fft":
        np.testing.assert_allclose(results[0] + 1j * results[1], expected, atol=1e-12)
    elif name == "numpy.linalg.svdvals":
        np.testing.assert_allclose(results[:2], [expected[0], expected.sum()])
    else:
        if expected is None:
            expected = names["X"] if TABLE[name][0].startswith("X") else names["x"]
        for mine, numpys in zip(results, expected if isinstance(expected, tuple) else (expected,),
                                strict=False):
            np.testing.assert_allclose(mine, numpys, rtol=1e-12, atol=1e-14)
    ends = [float(works(fg.tensor(V + h * W))) for h in (1e-6, -1e-6)]
    assert gradient @ W == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-6)


# ---- other cures --------------------------------------------------------------------------------

class Other:
    """What looks like an array of another tool."""

    def __init__(self, values):
        self.values = values

    def detach(self):
        return self

    def numpy(self):
        return self.values

    def __array__(self, dtype=None, copy=None):
        return self.values


class Torch(Other):
    __module__ = "torch"


class Jax(Other):
    __module__ = "jaxlib._jax"


S = scipy.sparse.csr_array(np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 0.0]]))
CURES = [
    # what fails, what the error says, what it says to write, as a function of a vector x
    ("S @ x", "fnp.matmul(S, x)", "fnp.matmul(S, x)"),
    ("S.dot(x)", "fnp.matmul(S, x)", "fnp.matmul(S, x)"),
    ("scipy.sparse.csr_matrix(S) * x", "fnp.matmul(S, x)", "fnp.matmul(S, x)"),
    ("S.multiply(x)", "S.toarray()", "S.toarray() * x"),
    ("w.dot(x)", "w @ x", "w @ x"),
    ("w.dot(x)", "fnp.dot(w, x)", "fnp.dot(w, x)"),
    ("np.c_[x, x]", "fnp.column_stack([...])", "fnp.column_stack([x, x])"),
    ("np.r_[x, x]", "fnp.hstack([...])", "fnp.hstack([x, x])"),
    ("np.array([x, x])", "fnp.array([...])", "fnp.array([x, x])"),
    ("np.asarray(x)", "fnp.asarray(t)", "fnp.asarray(x)"),

    ("x * torch", "x.detach().numpy()", "x * torch.detach().numpy()"),
    ("torch * x", "x.detach().numpy()", "torch.detach().numpy() * x"),
    ("fnp.maximum(x, torch)", "x.detach().numpy()", "fnp.maximum(x, torch.detach().numpy())"),
    ("x - jax", "np.asarray(x)", "x - np.asarray(jax)"),
    ("jax @ x", "np.asarray(x)", "np.asarray(jax) @ x"),
    ("fnp.pad(x, 1, 'linear_ramp')", "fnp.concatenate", "fnp.concatenate([x[:1], x, x[-1:]])"),
    ("fnp.einsum(x, [0], x, [0], [])", "letters", "fnp.einsum('i,i->', x, x)"),
    ("np.add(x, x, where=x > 0.3)", "fastgrad.numpy.where", "fnp.where(x > 0.3, x + x, 0.0)"),
    ("fnp.mean(x, out=np.empty(()))", "y = fnp.mean(...)", "fnp.mean(x)"),
    ("fnp.mean(x, dtype=int)", "t.detach().numpy().astype('int64')",
     "x * x.detach().numpy().astype('int64')"),
    ("fnp.split(x, 3)", "fnp.array_split", "fnp.array_split(x, 3)[0]"),
    ("fnp.stack([x, x[:2]])", "fnp.concatenate", "fnp.concatenate([x, x[:2]])"),
    ("fnp.sin([x[0], 1.0])", "fastgrad.numpy.array([...])", "fnp.sin(fnp.array([x[0], 1.0]))"),
    ("x * masked", "x.filled(...)", "x * masked.filled(0.0)"),
    ("x * masked", "fnp.where(mask, ...)", "x * fnp.where(masked.mask, 0.0, masked.data)"),
    ("x * w[0].astype(object)", ".astype(float)", "x * w[0].astype(object).astype(float)"),
    ("x * w[0].astype(complex)", "real and the imaginary part as two", "x * w[0].real"),
    ("w[0][x]", "fnp.array", "w[0][x.detach().astype(int).numpy()] * x"),
    ("x[x]", ".astype(int)", "x[x.astype(int)]"),
    ("x if x > 0 else -x", "fastgrad.numpy.where", "fnp.where(x > 0, x, -x)"),
    ("x if x > 0 else -x", ".any()", "x if (x > 0).any() else -x"),
    ("fnp.dot(x, w)", "transpose an operand", "fnp.dot(x, w.T)"),
    ("fnp.dot(x, w)", "fnp.einsum(...)", "fnp.einsum('i,ji->j', x, w)"),
    ("fnp.cross(x[:2], x[:2])", "put a zero",
     "fnp.cross(fnp.append(x[:2], 0.0), fnp.append(x[:2] ** 2, 0.0))"),
    ("fnp.squeeze(x[:, None], 0)", "to pick an entry, index", "x[:, None][0]"),
    ("fnp.broadcast_to(x, (2, 4)).__setitem__(0, 1.0)", "change a copy",
     "fnp.broadcast_to(x, (2, 4)).copy()"),
    ("fnp.diag(fnp.outer(x, x)).__setitem__(0, 1.0)", "change a copy",
     "fnp.diag(fnp.outer(x, x)).copy()"),
    ("[1.0, x[0]] * x", "fastgrad.numpy.array([...])", "fnp.array([1.0, x[0], 2.0, x[1]]) * x"),
]


@pytest.mark.parametrize("fails, says, cure", CURES, ids=[f"{a} {b}" for a, b, _ in CURES])
def test_the_cure_that_an_error_offers_works(fails, says, cure):
    names = {"np": np, "fnp": fnp, "fg": fg, "scipy": scipy, "S": S, "w": np.ones((2, 4)),
             "torch": Torch(W), "jax": Jax(W), "masked": np.ma.array(W, mask=W > 3)}
    code = compile(fails, f"<{fails}>", "eval")
    linecache.cache[f"<{fails}>"] = (len(fails), None, [fails], f"<{fails}>")

    def f(x):
        with pytest.raises((TypeError, ValueError, IndexError), match=re.escape(says)):
            eval(code, names, {"x": x})
        return fnp.sum(eval(cure, names, {"x": x}))

    gradient = fg.grad(f)(V)
    ends = [np.sum(eval(cure, names, {"x": fg.tensor(V + h * W)}).numpy()) for h in (1e-6, -1e-6)]
    assert gradient @ W == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "elementwise_grad", "jacobian", "hessian",
                                  "hvp", "laplacian", "vmap"])
def test_transformations_used_as_in_other_tools(name):
    transformation = getattr(fg, name)
    for x in (V, 2.0, np.float32(1), fg.tensor(V)):
        with pytest.raises(TypeError, match=rf"{name}: .*write fg\.{name}\(f\)\(x\)"):
            transformation(fnp.sum, x)
    if name != "vmap":
        with pytest.raises(TypeError, match=rf"{name}: .*write argnums=1$"):
            transformation(fnp.dot, argnum=1)
        assert callable(transformation(fnp.dot, argnums=1))


@pytest.mark.parametrize("second", [
    lambda f: fg.hessian(f)(V), lambda f: fg.laplacian(f)(V), lambda f: fg.hvp(f)(V, W)])
def test_the_second_derivative_of_many_numbers(second):
    with pytest.raises(ValueError, match=r"write fg\.jacobian\(fg\.jacobian\(f\)\)"):
        second(fnp.exp)
    expected = np.zeros((4, 4, 4))
    expected[np.arange(4), np.arange(4), np.arange(4)] = np.exp(V)
    np.testing.assert_allclose(fg.jacobian(fg.jacobian(fnp.exp))(V), expected)


# ---- sparse matrices ----------------------------------------------------------------------------

@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csc_array,
                                  scipy.sparse.coo_array, scipy.sparse.dia_array])
def test_products_with_a_sparse_matrix(make):
    dense = np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    matrix = make(dense)
    t = fg.tensor(V, requires_grad=True)
    for product in (np.matmul, np.dot):         # (of a plain vector NumPy makes nonsense)
        np.testing.assert_allclose(product(matrix, t).detach().numpy(), dense @ V)
    for product in (fnp.matmul, fnp.dot):
        for x in (V, np.stack([V, W], 1)):
            def f(x, product=product):
                return product(matrix, x * x)

            def twin(x):
                return fnp.matmul(dense, x * x)

            np.testing.assert_allclose(f(fg.tensor(x)).numpy(), dense @ (x * x))
            for transform in (fg.jacobian, lambda g: fg.jacobian(g, mode="forward"),
                              lambda g: fg.jacobian(fg.jacobian(g)), fg.compile,
                              lambda g: fg.vmap(g, in_axes=-1) if x.ndim == 2 else g):  # noqa: B023
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")     # (it is not replayed)
                    np.testing.assert_allclose(transform(f)(x), transform(twin)(x))
    for left in (W[:3], np.ones((2, 3))):
        np.testing.assert_allclose(fg.jacobian(lambda x, a=left: fnp.matmul(x * a, matrix))(left),
                                   fg.jacobian(lambda x, a=left: (x * a) @ dense)(left))
        np.testing.assert_allclose(fg.grad(lambda x: fnp.sum(x @ matrix))(left),
                                   fg.grad(lambda x: fnp.sum(x @ dense))(left))
    np.testing.assert_allclose(fnp.matmul(matrix, V), dense @ V)
    assert type(fnp.matmul(matrix, V)) is np.ndarray
    with pytest.raises(ValueError, match="do not fit"):
        fnp.matmul(matrix, fg.tensor(W[:3], requires_grad=True))
    single = fnp.matmul(make(dense.astype(np.float32)),
                        fg.tensor(V.astype(np.float32), requires_grad=True))
    assert single.dtype == np.float32


# ---- the user's line ----------------------------------------------------------------------------

def installed(source, name="others", path="/usr/lib/python3/site-packages/others/core.py"):
    """A module of somebody else's."""
    module = types.ModuleType(name)
    exec(compile(source, path, "exec"), vars(module))
    module.__dict__["__name__"] = name
    return module


OTHERS_CODE = installed("""
def call(f, *args):
    return f(*args)

class Scope:
    def __enter__(self): pass
    def __exit__(self, *args): pass

def fails(x):
    return float(x)
""")


def here():
    return f"{__file__}, line {inspect.currentframe().f_back.f_lineno}"


def said_by(f):
    with pytest.raises(TypeError) as raised, fg.record():
        f(fg.tensor(1.0, requires_grad=True) * 1.0)
    return str(raised.value)


def test_errors_name_the_users_line():
    def through(x):
        lines.append(here()); return OTHERS_CODE.fails(x)   # noqa: E702

    def reduced(x):
        def last(a, b):
            lines.append(here()); return OTHERS_CODE.fails(b)   # noqa: E702
        functools.reduce(last, [x, x])

    def with_context(x):
        @contextlib.contextmanager
        def scope():
            lines.append(here()); yield float(x)            # noqa: E702
        with scope():
            pass

    def callback(x):
        def objective(p):
            lines.append(here()); return float(x)           # noqa: E702
        scipy.optimize.minimize(objective, np.ones(1))

    def pandas(x):
        module = installed("def f(x): return float(x)", "pandas.core", "/opt/pandas/core.py")
        lines.append(here()); return module.f(x)            # noqa: E702

    for f in (through, reduced, with_context, callback, pandas):
        lines = []
        assert lines[-1:] == [] and said_by(f)
        assert f"({lines[-1]})" in said_by(f), f


def test_installed_code_alone_is_named_itself():
    said = []

    def run_it(x):
        try:
            OTHERS_CODE.fails(x)
        except TypeError as error:
            said.append(str(error))

    alone = installed(inspect.getsource(run_it).replace("\n    ", "\n").strip(), "others.main",
                      "/usr/lib/python3/dist-packages/others/main.py")
    alone.said, alone.OTHERS_CODE = said, OTHERS_CODE
    t = fg.tensor(1.0, requires_grad=True)
    thread = threading.Thread(target=alone.run_it, args=(t,))
    thread.start()
    thread.join()
    assert "(/usr/lib/python3/site-packages/others/core.py, line 10)" in said[0]


def warned(f, *args):
    """The file and line that a warning points at."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        f(*args)
    return f"{caught[0].filename}, line {caught[0].lineno}", str(caught[0].message)


def test_warnings_point_at_the_users_line():
    independent = fg.grad(lambda x: 3.0)
    place, _ = warned(lambda: OTHERS_CODE.call(independent, 1.0)); line = here()     # noqa: E702
    assert place == line
    compiled = fg.compile(lambda x: OTHERS_CODE.call(np.median, x))
    place, message = warned(lambda: OTHERS_CODE.call(compiled, V)); line = here()    # noqa: E702
    assert place == line
    assert f"at test_cures.py:{inspect.getsourcelines(compiled.function)[1]}" in message
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        def run_it():
            return pool.submit(lambda: independent(1.0)).result()
        place, _ = warned(run_it)
        line = f"{__file__}, line {run_it.__code__.co_firstlineno + 1}"
    assert place == line


def test_code_without_a_module_is_warned():
    place, _ = warned(lambda: exec("\nfg.grad(lambda x: 3.0)(1.0)", {"fg": fg}))
    assert place == "<string>, line 2"


def test_a_warning_is_given_once_a_line():
    def run_it():
        for _ in range(3):
            fg.grad(lambda x: 3.0)(1.0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        run_it()
    assert len(caught) == 1


@pytest.mark.filterwarnings("error::UserWarning")
def test_special_functions_are_replayed():
    for f in (fg.special.log_softmax, fg.special.softmax,
              lambda x: fg.special.logsumexp(x, b=x - 0.4),
              lambda x: fg.special.xlog1py(x - 0.25, x),
              lambda x: fg.special.logsumexp(x, b=[1.0, 0.0, 2.0, 1.0], return_sign=True)[0]):
        compiled, gradient = fg.compile(f), fg.compile(fg.grad(lambda x, f=f: fnp.sum(f(x) ** 2)))
        for x in (V, W, -V):
            np.testing.assert_allclose(compiled(x), f(x))
            np.testing.assert_allclose(gradient(x), fg.grad(lambda x, f=f: fnp.sum(f(x) ** 2))(x))
