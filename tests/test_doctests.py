"""The examples in the documentation run: docstrings, README.md, and those of API.md that exist."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import numpy as np
import pytest

import fastgrad as fg

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
# What the examples of docstrings take for imported, as fastgrad/__init__.py says.
KNOWN = {"fg": fg, "fnp": fg.numpy, "np": np}
README = pathlib.Path(__file__).parents[1] / "README.md"

MODULES = ["fastgrad", *sorted(
    module.name for module in pkgutil.walk_packages(fg.__path__, "fastgrad.")
    if not module.name.endswith(("._build", ".__main__")))]

# What people type, with what they see. Each example starts with fg and np alone.
TYPED = {
    "a gradient": """
    >>> def f(x):                       # plain NumPy, written years ago
    ...     return np.sum(np.sin(x) * np.exp(-x * x))
    >>> fg.grad(f)(np.array([0.0, 1.0]))
    array([ 1.        , -0.42035364])
    >>> fg.value_and_grad(lambda x: x ** 3)(2.0)        # float in, float out
    (8.0, 12.0)
    >>> fg.grad(lambda p: (p["w"] * 2 + p["b"]) ** 2)({"w": 1.0, "b": 3.0})
    {'w': 20.0, 'b': 10.0}
    >>> fg.grad(lambda a, b: a * b, argnums=(0, 1))(2.0, 5.0)
    (5.0, 2.0)
    """,
    "arrays that hold Tensors": """
    >>> import fastgrad.numpy as fnp
    >>> fg.grad(lambda t: fnp.array([t, 2 * t]) @ np.array([1.0, 10.0]))(1.0)
    21.0
    >>> def f(t):
    ...     out = fnp.zeros(3)
    ...     out[1] = t * t
    ...     return out.sum()
    >>> fg.grad(f)(3.0)
    6.0
    """,
    "Tensors": """
    >>> w = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> with fg.record() as tape:
    ...     loss = ((w * 3 - 1) ** 2).sum()
    >>> len(tape), tape.nbytes > 0
    (4, True)
    >>> print(tape)
    %... = multiply(leaf ...) ... bytes
    %... = subtract(...) ... bytes
    %... = square(...) ... bytes
    %... = sum(...) ... bytes
    >>> loss.backward()
    >>> w.grad
    tensor([12., 30.])
    >>> w.detach().numpy(), loss.item()
    (array([1., 2.]), 29.0)
    >>> loss = ((w * 3 - 1) ** 2).sum()
    >>> fg.gradients(loss, [w])
    [tensor([12., 30.])]
    """,
    "an update": """
    >>> w = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> with fg.no_grad():
    ...     w -= 0.1 * w.grad
    >>> w
    tensor([0.8, 1.6], requires_grad=True)
    >>> w.zero_grad()
    >>> w.grad is None
    True
    """,
    "derivatives of every kind": """
    >>> f = lambda x: x ** 2 * np.array([1.0, 10.0])
    >>> x, v = np.array([1.0, 2.0]), np.array([1.0, 0.0])
    >>> y, pull = fg.vjp(f, x)              # pull(y_bar) -> (x_bar,), again and again
    >>> y, pull(v), pull(x)
    (array([ 1., 40.]), (array([2., 0.]),), (array([ 2., 80.]),))
    >>> y, dy = fg.jvp(f, (x,), (v,))
    >>> y, dy
    (array([ 1., 40.]), array([2., 0.]))
    >>> y, push = fg.linearize(f, x)        # push(v) -> dy
    >>> push(v)
    array([2., 0.])
    >>> fg.elementwise_grad(f)(x)           # diagonal of the Jacobian of an element-wise map
    array([ 2., 40.])
    >>> fg.taylor(np.exp, 0.0, 1.0, order=5)                # 6 coefficients
    [1.0, 1.0, 0.5, 0.16666..., 0.041666..., 0.0083333...]
    """,
    "Jacobians": """
    >>> def f(x):                           # R^2 -> R^3
    ...     return np.stack([x[0] * x[1], x[0] + x[1], x[1] ** 3])
    >>> x = np.array([1.0, 2.0])
    >>> fg.jacobian(f)(x)                   # numerator layout: out.shape + in.shape
    array([[ 2.,  1.],
           [ 1.,  1.],
           [ 0., 12.]])
    >>> fg.jacobian(f, layout="denominator")(x)             # in.shape + out.shape, transposed
    array([[ 2.,  1.,  0.],
           [ 1.,  1., 12.]])
    >>> for mode in ("auto", "forward", "reverse"):
    ...     print(np.array_equal(fg.jacobian(f, mode=mode, chunk=64)(x), fg.jacobian(f)(x)))
    True
    True
    True
    """,
    "second order": """
    >>> f = lambda x: x[0] ** 2 * x[1]
    >>> x, v = np.array([1.0, 2.0]), np.array([1.0, 0.0])
    >>> fg.hessian(f)(x)
    array([[4., 2.],
           [2., 0.]])
    >>> fg.hvp(f)(x, v)
    array([4., 2.])
    >>> fg.laplacian(f)(x)
    np.float64(4.0)
    """,
    "sparse (scipy)": """
    >>> J = fg.jacobian(lambda x: x[1:] * x[:-1], sparse=True)(np.arange(4.0))
    >>> type(J).__name__, J.shape           # (out.size, in.size)
    ('csr_array', (3, 4))
    >>> J.toarray()
    array([[1., 0., 0., 0.],
           [0., 2., 1., 0.],
           [0., 0., 3., 2.]])
    >>> fg.hessian(lambda x: np.sum(x ** 3), sparse=True)(np.arange(3.0)).toarray()
    array([[ 0.,  0.,  0.],
           [ 0.,  6.,  0.],
           [ 0.,  0., 12.]])
    """,
    "equations and rules": """
    >>> f = lambda x, theta: (x + theta / x) / 2
    >>> fg.fixed_point(f, 1.0, 4.0)         # x = f(x, theta), implicit derivative in theta
    2.0
    >>> fg.grad(lambda theta: fg.fixed_point(f, 1.0, theta))(4.0)
    0.25
    >>> fg.grad(lambda theta: fg.root(lambda x, theta: x * x - theta, 1.0, theta))(4.0)
    0.25
    >>> fg.grad(lambda x: x * fg.stop_gradient(x))(3.0)
    3.0
    >>> @fg.custom_vjp
    ... def clipped(x):
    ...     return x
    >>> clipped.defvjp(lambda x: (x, None), lambda residuals, bar: (np.clip(bar, -1, 1),))
    >>> fg.grad(lambda x: 10 * clipped(x))(1.0)
    1.0
    """,
    "all nest": """
    >>> x = np.array([1.0, 2.0])
    >>> fg.grad(fg.laplacian(lambda x: np.sum(x ** 4)))(x)
    array([24., 48.])
    >>> fg.jacobian(fg.grad(lambda p: p["a"] ** 2 * p["b"]))({"a": 1.0, "b": 2.0})
    {'a': {'a': 4.0, 'b': 2.0}, 'b': {'a': 2.0, 'b': 0.0}}
    """,
    "look inside": """
    >>> print(fg.explain(lambda x: x + x ** 2, 3.0))    # the chain rule step by step
    y = f(x)
      x = 3
    ...
      x -> y       = ∂y/∂x           = 1
      x -> u1 -> y = ∂y/∂u1 · ∂u1/∂x = 1 · (2*x) = 1 · 6 = 6
      dy/dx        = 1 + 2*x         = 7
    >>> f, x = lambda x: x[0] ** 2 * x[1], np.array([1.0, 2.0])
    >>> fg.testing.check_grads(f, x, order=2, modes=("forward", "reverse"))
    >>> np.round(fg.numeric.gradient(f, x), 6)
    array([4., 1.])
    >>> fg.numeric.jacobian(lambda x: x ** 2, x, method="complex")
    array([[2., 0.],
           [0., 4.]])
    """,
    "symbolic (sympy)": """
    >>> s = fg.symbolic(lambda x: np.sin(x) * x, 2.0)   # SymPy expressions of value and gradient
    >>> s.value
    x*sin(x)
    >>> s.gradient
    x*cos(x) + sin(x)
    """,
    "an optimiser": """
    >>> loss = lambda params: np.sum((params["w"] - 3) ** 2)
    >>> params = {"w": np.array([1.0, -1.0])}
    >>> opt = fg.optim.Adam(lr=0.1); state = opt.init(params)
    >>> for _ in range(300):
    ...     grads = fg.grad(loss)(params)
    ...     params, state = opt.step(grads, state, params)
    >>> params["w"].round(3)
    array([3., 3.])
    """,
}


def run(test):
    output = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=output.append)
    assert not result.failed, "".join(output)
    return result.attempted


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name == "fastgrad.look.symbolic":
        pytest.importorskip("sympy", reason="its examples print SymPy expressions")
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, extraglobs=KNOWN):
        run(test)


def sections(doc):
    """The sections of a numpydoc docstring: title -> text."""
    found = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", doc, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2]))


def parameters(thing):
    try:
        return [name for name in inspect.signature(thing).parameters if name != "self"]
    except (TypeError, ValueError):
        return []


@pytest.mark.parametrize("name", sorted(fg.__all__))
def test_public_names_are_documented(name):
    if name == "symbolic":
        pytest.importorskip("sympy", reason="its examples print SymPy expressions")
    thing = getattr(fg, name)
    doc = inspect.getdoc(thing)
    test = doctest.DocTestParser().get_doctest(doc, dict(KNOWN), name, None, 0)
    assert run(test) > 0, "there is no example"
    if inspect.ismodule(thing):
        return
    found = sections(doc)
    assert list(found)[-1] == "Examples"
    if isinstance(thing, type) and issubclass(thing, Exception):
        return
    for parameter in parameters(thing):
        assert re.search(rf"^(.*, )?(\*\*|\*)?{parameter}\b.*( :|,|$)", found["Parameters"],
                         re.MULTILINE), f"{parameter} is not among the parameters"
    if not isinstance(thing, type):
        assert found["Returns"]
        assert name in RAISES_NOTHING or found["Raises"]


RAISES_NOTHING = ("get_num_threads", "is_tensor", "stop_gradient")


@pytest.mark.parametrize("name", ["numeric", "optim", "special", "testing"])
def test_public_names_of_modules_are_documented(name):
    module = getattr(fg, name)
    for public in module.__all__:
        thing = getattr(module, public)
        assert len(inspect.getdoc(thing)) > 10, public
        if inspect.isfunction(thing):
            assert ">>>" in thing.__doc__, public
            assert "Parameters" in sections(inspect.getdoc(thing)), public


@pytest.mark.parametrize("name", TYPED)
def test_what_people_type(name):
    if "(" in name:
        pytest.importorskip(name[name.index("(") + 1:-1])
    test = doctest.DocTestParser().get_doctest(TYPED[name], {"fg": fg, "np": np}, name, None, 0)
    assert run(test) > 0


@pytest.mark.skipif(not README.exists(), reason="no README.md beside the tests")
def test_readme():
    import fastgrad.numpy as fnp

    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    scope = {"fg": fg, "np": np, "fnp": fnp}
    for block in blocks:
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, scope, "README.md", None, 0)
            # What differs from version to version is not printed there.
            test.examples = [example for example in test.examples
                             if example.want or not example.source.startswith("print")]
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            output = []
            result = runner.run(test, out=output.append, clear_globs=False)
            assert not result.failed, "".join(output)
            scope.update(test.globs)
        else:
            printed = []
            exec(block, scope | {"print": lambda *values, printed=printed: printed.append(
                " ".join(map(str, values)))})
            wanted = re.findall(r"^print\(.*\)\s+# (.*)$", block, re.MULTILINE)
            assert [text for text in printed if text in wanted] == wanted
