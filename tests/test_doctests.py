"""The examples in the documentation run: docstrings, README.md, and those of API.md that exist."""

import doctest
import importlib
import pathlib
import pkgutil
import re

import numpy as np
import pytest

import fastgrad as fg

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
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
}


def run(test):
    output = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=output.append)
    assert not result.failed, "".join(output)
    return result.attempted


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    if name == "fastgrad._symbolic":
        pytest.importorskip("sympy", reason="its examples print SymPy expressions")
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        run(test)


@pytest.mark.parametrize("owner", [
    "Tensor", "elementwise_grad", "explain", "grad", "gradients", "hessian", "hvp", "jacobian", "jvp",
    "laplacian", "linearize", "no_grad", "record", "stop_gradient", "tensor", "value_and_grad",
    "vjp"])
def test_public_names_have_an_example(owner):
    thing = getattr(fg, owner)
    tests = doctest.DocTestFinder().find(thing, owner, module=False, globs={})
    assert sum(len(test.examples) for test in tests) > 0
    for test in tests:
        run(test)


@pytest.mark.parametrize("name", TYPED)
def test_what_people_type(name):
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
