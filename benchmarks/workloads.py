"""The workloads, each written once for every tool. Start reading at `cases` and `TOOLS`.

A case has inputs, an expected value and gradient that no tool had a part in, and for each tool an
adapter: a function without arguments that imports the tool, does everything that is not measured
(conversion of inputs, tracing), and returns a `Prepared` call. The tool's own idiom is used where
it has one that is faster (a fused layer, a fused loss, inputs already on its device), so a ratio
never flatters fastgrad.

To add a workload, write a function that returns `Case` objects and name it in `cases`; to add a
tool, add a row to `TOOLS` and an adapter to the workloads it can run.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np


class Tool(NamedTuple):
    """A column of the board."""

    title: str
    module: str         # what must be importable
    peer: bool = True   # skipped when missing; anything else must be there


TOOLS = {
    "value": Tool("value alone", "numpy", peer=False),
    "products": Tool("products alone", "numpy", peer=False),
    "products-fresh": Tool("products alone, fresh results", "numpy", peer=False),
    "fastgrad": Tool("fastgrad", "fastgrad", peer=False),
    "fastgrad-np": Tool("fastgrad through np", "fastgrad", peer=False),
    "torch": Tool("PyTorch eager", "torch"),
    "jax": Tool("jax.jit", "jax"),
    "autograd": Tool("HIPS autograd", "autograd"),
    "casadi": Tool("CasADi", "casadi"),
}


class Prepared(NamedTuple):
    """A call to measure, `function(*arguments)`, and how to read what it returns.

    `read` turns a result into the value and a list of gradient arrays; either is None where the
    call does not compute it.
    """

    function: Callable
    arguments: tuple
    read: Callable


@dataclass(frozen=True)
class Case:
    """A workload at one size and precision."""

    name: str
    family: str
    size: int
    expected: Callable          # () -> value, [gradients], in float64
    tolerance: float            # relative, see `difference`
    adapters: dict = field(repr=False)  # tool -> () -> Prepared


class WrongResultError(AssertionError):
    """A tool computed something else than expected: its time is worth nothing."""


def missing(tool):
    """Say why a peer cannot run here, or return None if it can."""
    module = TOOLS[tool].module
    if TOOLS[tool].peer and importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    return None


def check(case, prepared):
    """Call once and compare with what is expected.

    Returns
    -------
    float or None
        The largest relative difference; None where nothing is comparable (products alone).

    Raises
    ------
    WrongResultError
    """
    value, gradients = prepared.read(prepared.function(*prepared.arguments))
    expected_value, expected_gradients = case.expected()
    pairs = []
    if value is not None:
        pairs.append((value, expected_value))
    if gradients is not None:
        if len(gradients) != len(expected_gradients):
            raise WrongResultError(
                f"{case.name}: {len(gradients)} gradients, not {len(expected_gradients)}"
            )
        pairs += zip(gradients, expected_gradients, strict=True)
    worst = max((difference(*pair) for pair in pairs), default=None)
    if worst is not None and not worst <= case.tolerance:
        raise WrongResultError(
            f"{case.name}: off by {worst:.1e} relative, allowed are {case.tolerance:.0e}"
        )
    return worst


def difference(result, expected):
    """Return the largest difference relative to the largest entry expected; NaN stays NaN."""
    result, expected = np.asarray(result, dtype=float), np.asarray(expected, dtype=float)
    if result.shape != expected.shape:
        raise WrongResultError(f"a result of shape {result.shape}, not {expected.shape}")
    if expected.size == 0:
        return 0.0
    return float(np.max(np.abs(result - expected)) / np.max(np.abs(expected)))


def cases():
    """Return every case, in the order of the board."""
    return [square(), chain(), arith(), *map(vector, VECTOR_SIZES), *mlp_cases()]


# ---- how each tool takes value and gradient ------------------------------------------------


def read_plain(result):
    """Read (value, gradients) of arrays or floats, gradients in any nesting of lists."""
    value, gradients = result
    return float(value), [np.asarray(g) for g in flat(gradients)]


def flat(tree):
    """Return the leaves of nested lists and tuples."""
    if isinstance(tree, (list, tuple)):
        return [leaf for branch in tree for leaf in flat(branch)]
    return [tree]


def value_alone(f, *arguments):
    """Adapt the value without a gradient, of plain Python or NumPy."""
    return Prepared(f, arguments, lambda value: (float(value), None))


def with_fastgrad(f, *arguments):
    """Adapt `fastgrad.value_and_grad`, recorded."""
    import fastgrad

    return Prepared(fastgrad.value_and_grad(f), arguments, read_plain)


def with_torch(f, parameters, *constants):
    """Adapt eager PyTorch; parameters and constants become tensors of their own dtype."""
    import torch

    def tensor(a, **options):
        if isinstance(a, (list, tuple)):
            return [tensor(leaf, **options) for leaf in a]
        return torch.tensor(np.asarray(a), **options)

    leaves = tensor(parameters, requires_grad=True)
    wanted = flat(leaves)

    def step(leaves, *constants):
        y = f(leaves, *constants)
        return y, torch.autograd.grad(y, wanted)

    def read(result):
        value, gradients = result
        return value.item(), [g.numpy() for g in gradients]

    return Prepared(step, (leaves, *map(tensor, constants)), read)


def with_jax(f, *arguments):
    """Adapt `jax.jit(jax.value_and_grad(f))`, inputs on its device, waiting for the result."""
    import jax

    jax.config.update("jax_enable_x64", True)
    step = jax.jit(jax.value_and_grad(f))

    def wait(*arguments):
        return jax.block_until_ready(step(*arguments))

    return Prepared(wait, jax.tree.map(jax.numpy.asarray, arguments), read_plain)


def with_autograd(f, *arguments):
    """Adapt HIPS autograd."""
    import autograd

    return Prepared(autograd.value_and_grad(f), arguments, read_plain)


def with_casadi(f, x):
    """Adapt a CasADi function called through its buffers: its fastest way in from Python.

    Scalars are recorded as SX (one operation of its virtual machine each), arrays as MX.
    """
    import casadi

    x = np.array(x, dtype=float)
    symbol = casadi.SX.sym("x") if x.ndim == 0 else casadi.MX.sym("x", x.size)
    y = f(symbol)
    function = casadi.Function("step", [symbol], [y, casadi.densify(casadi.gradient(y, symbol))])
    value, gradient = np.zeros(()), np.zeros(x.shape)
    buffer, evaluate = function.buffer()
    buffer.set_arg(0, memoryview(x))
    buffer.set_res(0, memoryview(value))
    buffer.set_res(1, memoryview(gradient))
    kept = function, buffer, x      # it holds pointers, not references

    def read(_):
        assert kept
        return float(value), [gradient]

    return Prepared(evaluate, (), read)


ADAPT = {
    "value": value_alone,
    "fastgrad": with_fastgrad,
    "fastgrad-np": with_fastgrad,
    "torch": with_torch,
    "jax": with_jax,
    "autograd": with_autograd,
    "casadi": with_casadi,
}
SPECIAL = {     # where logsumexp is
    "fastgrad": "fastgrad.special",
    "fastgrad-np": "fastgrad.special",
    "jax": "jax.scipy.special",
    "autograd": "autograd.scipy.special",
}
NAMESPACES = {
    "value": "numpy",
    "fastgrad": "fastgrad.numpy",
    "fastgrad-np": "numpy",
    "torch": "torch",
    "jax": "jax.numpy",
    "autograd": "autograd.numpy",
    "casadi": "casadi",
}


def adapters(written_with, *arguments, **namespaces):
    """Return the adapters of a function that is the same in every tool but for its namespace.

    Parameters
    ----------
    written_with : callable
        Takes the module that has `sin` and so on and returns the function to differentiate. It
        binds the names it needs once, as a user would in front of a loop.
    *arguments
        The function's arguments; the gradient is taken in the first.
    **namespaces
        The module's name where it is not that of `NAMESPACES`, None where there is no adapter.
    """

    def adapt(tool, module):
        return ADAPT[tool](written_with(importlib.import_module(module)), *arguments)

    return {
        tool: partial(adapt, tool, module)
        for tool, module in (NAMESPACES | namespaces).items()
        if module is not None
    }


# ---- scalars -------------------------------------------------------------------------------

SCALAR = 0.01


def square():
    """x * x of a float: what a call of value_and_grad costs before f does anything."""

    def f(x):
        return x * x

    every = adapters(lambda _: f, 3.0, **{"fastgrad-np": None})
    return Case("square", "square", 1, lambda: (9.0, [6.0]), 1e-15, every)


def chain():
    """y = sin(y)*x + y, 333 times, from y = x: 999 scalar operations.

    x = 0.01: between 0.3 and 1.5 the chain runs into its fixed point and the slope is rounding
    noise, which any wrong gradient passes.
    """
    steps, x = 333, SCALAR

    def written_with(namespace):
        sin = namespace.sin

        def f(x):
            y = x
            for _ in range(steps):
                y = sin(y) * x + y
            return y

        return f

    def expected():
        y, slope = x, 1.0
        for _ in range(steps):      # the recurrence and its derivative, by hand
            y, slope = (
                math.sin(y) * x + y,
                math.cos(y) * slope * x + math.sin(y) + slope,
            )
        assert abs(y - 0.27312) < 1e-5
        assert abs(slope - 115.93) < 1e-2
        return y, [slope]

    every = adapters(written_with, x, value="math")
    return Case("chain", "chain", 3 * steps, expected, 1e-11, every)


def arith():
    """y = y*x + y, 500 times, from y = x: 1,000 operations without a library function."""
    steps, x = 500, SCALAR

    def f(x):
        y = x
        for _ in range(steps):
            y = y * x + y
        return y

    def expected():                 # y = x (1 + x)^500
        slope = (1 + x) ** steps + steps * x * (1 + x) ** (steps - 1)
        return x * (1 + x) ** steps, [slope]

    every = adapters(lambda _: f, x, **{"fastgrad-np": None})
    return Case("arith", "arith", 2 * steps, expected, 1e-11, every)


# ---- element-wise --------------------------------------------------------------------------

VECTOR_SIZES = (1, 10, 100, 1000, 10**4, 10**5, 10**6)


def vector(n):
    """sum(sin(x)*exp(-x*x) + tanh(x)*x) of n numbers between -2 and 2, float64."""
    x = np.random.default_rng(0).uniform(-2, 2, size=n)

    def written_with(namespace):
        sin, exp, tanh = namespace.sin, namespace.exp, namespace.tanh
        total = namespace.sum1 if namespace.__name__ == "casadi" else namespace.sum

        def f(x):
            return total(sin(x) * exp(-x * x) + tanh(x) * x)

        return f

    def expected():
        e, t = np.exp(-(x**2)), np.tanh(x)
        value = math.fsum(np.sin(x) * e + x * t)
        return value, [(np.cos(x) - 2 * x * np.sin(x)) * e + x / np.cosh(x) ** 2 + t]

    return Case(f"vector n={n}", "vector", n, expected, 1e-12, adapters(written_with, x))


# ---- networks ------------------------------------------------------------------------------


def mlp_cases():
    """Return the small and the large network in both precisions."""
    return [
        mlp(widths, batch, dtype)
        for widths, batch in (((64, 32, 10), 32), ((784, 512, 512, 10), 128))
        for dtype in ("float64", "float32")
    ]


def mlp(widths, batch, dtype):
    """Mean cross-entropy of a network with tanh between its layers, gradient in all weights.

    The limit is the time of the matrix products alone (`products_alone`).
    """
    rng = np.random.default_rng(0)
    parameters = [
        (
            rng.normal(scale=inputs**-0.5, size=(inputs, outputs)).astype(dtype),
            rng.normal(scale=0.1, size=outputs).astype(dtype),
        )
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True)
    ]
    x = rng.normal(size=(batch, widths[0])).astype(dtype)
    labels = rng.integers(widths[-1], size=batch)

    def written_with(namespace, logsumexp):
        tanh, mean = namespace.tanh, namespace.mean

        def loss(parameters, x, labels):
            *hidden, (weights, bias) = parameters
            for w, b in hidden:
                x = tanh(x @ w + b)
            scores = x @ weights + bias
            right = scores[np.arange(len(labels)), labels]
            return mean(logsumexp(scores, axis=1) - right)

        return loss

    def adapt(tool):
        namespace = importlib.import_module(NAMESPACES[tool])
        logsumexp = plain_logsumexp
        if tool in SPECIAL:
            logsumexp = importlib.import_module(SPECIAL[tool]).logsumexp
        loss = torch_mlp(namespace) if tool == "torch" else written_with(namespace, logsumexp)
        return ADAPT[tool](loss, parameters, x, labels)

    every = {tool: partial(adapt, tool) for tool in ADAPT if tool != "casadi"}
    every["products"] = partial(products_alone, parameters, x, fresh=False)
    every["products-fresh"] = partial(products_alone, parameters, x, fresh=True)
    return Case(
        f"mlp {'-'.join(map(str, widths))} batch {batch} {dtype}",
        "mlp",
        max(widths),
        partial(mlp_expected, parameters, x, labels),
        1e-11 if dtype == "float64" else 2e-5,
        every,
    )


def plain_logsumexp(a, axis):
    """Return log(sum(exp(a))) by NumPy alone."""
    top = np.max(a, axis=axis, keepdims=True)
    return np.squeeze(top, axis) + np.log(np.sum(np.exp(a - top), axis=axis))


def torch_mlp(torch):
    """Return the network's loss in PyTorch's own words: fused layers and a fused loss."""

    def loss(parameters, x, labels):
        *hidden, (weights, bias) = parameters
        for w, b in hidden:
            x = torch.tanh(torch.addmm(b, x, w))
        return torch.nn.functional.cross_entropy(torch.addmm(bias, x, weights), labels)

    return loss


def mlp_expected(parameters, x, labels):
    """Return value and gradients by hand-written backpropagation in float64."""
    parameters = [(w.astype(float), b.astype(float)) for w, b in parameters]
    rows = np.arange(len(labels))
    signals = [x.astype(float)]
    for w, b in parameters[:-1]:
        signals.append(np.tanh(signals[-1] @ w + b))
    scores = signals[-1] @ parameters[-1][0] + parameters[-1][1]
    scores -= np.max(scores, axis=1, keepdims=True)
    exponentials = np.exp(scores)
    totals = np.sum(exponentials, axis=1)
    value = np.mean(np.log(totals) - scores[rows, labels])

    back = exponentials / totals[:, None]
    back[rows, labels] -= 1
    back /= len(labels)
    gradients = []
    for (w, _), signal in zip(reversed(parameters), reversed(signals), strict=True):
        gradients[:0] = [signal.T @ back, back.sum(axis=0)]
        back = (back @ w.T) * (1 - signal * signal)
    return value, gradients


def products_alone(parameters, x, fresh):
    """Adapt the matrix products of value and gradient, and nothing else, by NumPy.

    Forward x @ w in every layer; backward signal.T @ back for the weights and back @ w.T for the
    signals, but for the input's. Results go into arrays that stand ready or, if `fresh`, into new
    ones, as they do where the gradient is returned.
    """
    rng = np.random.default_rng(1)
    widths = [x.shape[1], *(w.shape[1] for w, _ in parameters)]
    signals = [rng.normal(size=(len(x), width)).astype(x.dtype) for width in widths]
    signals[0] = x
    products = []
    for i, (w, _) in enumerate(parameters):
        products.append((signals[i], w))
    for i, (w, _) in reversed(list(enumerate(parameters))):
        products.append((signals[i].T, signals[i + 1]))
        if i:
            products.append((signals[i + 1], w.T))

    if fresh:
        def run():
            return [a @ b for a, b in products]
    else:
        outputs = [a @ b for a, b in products]

        def run():
            for (a, b), out in zip(products, outputs, strict=True):
                np.matmul(a, b, out=out)

    return Prepared(run, (), lambda _: (None, None))
