"""The workloads, each written once for every tool. Start reading at `cases` and `TOOLS`.

A case has inputs, an expected value and gradient that no tool had a part in, and for each tool an
adapter: a function without arguments that imports the tool, does everything that is not measured
(conversion of inputs, tracing), and returns a `Prepared` call. The tool's own idiom is used where
it has one that is faster (a fused layer, a fused loss, inputs already on its device), so a ratio
never flatters fastgrad.

To add a workload, write a function that returns `Case` objects and name it in `cases` (the board)
or in `program_cases` (compiled programs only); to add a tool, add a row to `TOOLS` and an adapter
to the workloads it can run.
"""

import importlib
import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import by_hand
import numpy as np

ONE_THREAD = MappingProxyType({"FASTGRAD_NUM_THREADS": "1"})


class Tool(NamedTuple):
    """A column of the board."""

    title: str
    module: str         # what must be importable
    peer: bool = True   # skipped when missing; anything else must be there
    environment: MappingProxyType = ONE_THREAD      # what its process is started with


# BLAS keeps the threads that it takes by itself.
TOOLS = {
    "value": Tool("value alone", "numpy", peer=False),
    "products": Tool("products alone", "numpy", peer=False),
    "products-fresh": Tool("products alone, fresh results", "numpy", peer=False),
    "c": Tool("C by hand", "ctypes", peer=False),
    "fastgrad": Tool("fastgrad, recorded", "fastgrad", peer=False),
    "fastgrad-np": Tool("fastgrad through np", "fastgrad", peer=False),
    "compiled": Tool("fastgrad, compiled", "fastgrad", False, MappingProxyType({})),
    "compiled-1": Tool("fastgrad, compiled, 1 thread", "fastgrad", peer=False),
    "torch": Tool("PyTorch eager", "torch"),
    "torch-compile": Tool("torch.compile", "torch"),
    "jax": Tool("jax.jit", "jax"),
    "autograd": Tool("HIPS autograd", "autograd"),
    "casadi": Tool("CasADi", "casadi"),
}


class Prepared(NamedTuple):
    """A call to measure, `function(*arguments)`, and how to read what it returns.

    `read` turns a result into the value and a list of gradient arrays; either is None where the
    call does not compute it. `seconds`, of a number of calls, replaces the loop over the calls
    where that belongs to the tool (C).
    """

    function: Callable
    arguments: tuple
    read: Callable
    seconds: Callable = None


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
    if tool == "c":
        return by_hand.missing()
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
    return [
        square(), chain(), arith(), *map(vector, VECTOR_SIZES), *map(rosenbrock, ROSENBROCK_SIZES),
        logistic(200, 10), logistic(20000, 50), leapfrog(), leapfrog_in_one(), kalman(),
        *mlp_cases(),
    ]


def program_cases():
    """Return the cases that are for compiled programs only; see programs.py."""
    return [call(), chain_again(), sines(), *lanes_cases()]


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


def with_compiled(f, *arguments):
    """Adapt a compiled `fastgrad.value_and_grad`."""
    import fastgrad

    return Prepared(fastgrad.compile(fastgrad.value_and_grad(f)), arguments, read_plain)


def with_c(source, name, x, lanes=False):
    """Adapt a function of `benchmarks/c`, the loop over the calls in C as well.

    It writes into memory that stands ready.
    """
    by = by_hand.Gradient(source, name, x, lanes)
    read = lambda _: (by.value if lanes else float(by.value), [by.gradient])  # noqa: E731
    return Prepared(by, (), read, by.seconds)


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


def with_torch_compile(f, parameters, *constants):
    """Adapt torch.compile, whose backward sweep is compiled too."""
    import torch

    return with_torch(torch.compile(f), parameters, *constants)


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
    "compiled": with_compiled,
    "compiled-1": with_compiled,
    "torch": with_torch,
    "torch-compile": with_torch_compile,
    "jax": with_jax,
    "autograd": with_autograd,
    "casadi": with_casadi,
}
SPECIAL = {     # where logsumexp is
    "fastgrad": "fastgrad.special",
    "fastgrad-np": "fastgrad.special",
    "compiled": "fastgrad.special",
    "jax": "jax.scipy.special",
    "autograd": "autograd.scipy.special",
}
NAMESPACES = {
    "value": "numpy",
    "fastgrad": "fastgrad.numpy",
    "fastgrad-np": "numpy",
    "compiled": "fastgrad.numpy",
    "compiled-1": "fastgrad.numpy",
    "torch": "torch",
    "torch-compile": "torch",
    "jax": "jax.numpy",
    "autograd": "autograd.numpy",
    "casadi": "casadi",
}


# Where they say something that another tool does not, and compile in less than minutes.
NOT_EVERYWHERE = {"compiled-1": None, "torch-compile": None}


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
        for tool, module in (NAMESPACES | NOT_EVERYWHERE | namespaces).items()
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


def call():
    """x * x of a float, value alone: what a call of a compiled function costs."""
    def compiled():
        import fastgrad

        return Prepared(fastgrad.compile(lambda x: x * x), (3.0,), lambda y: (y, []))

    def value():
        return Prepared(lambda x: x * x, (3.0,), lambda y: (y, []))

    return Case("call of x*x", "square", 1, lambda: (9.0, []), 1e-15,
                {"compiled": compiled, "value": value})


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

    every = adapters(written_with, x, value="math") | {
        "c": partial(with_c, "scalars", "chain", x)}
    return Case("chain", "chain", 3 * steps, expected, 1e-11, every)


def chain_again():
    """C only: sin and cos are called again on the way back, as a reader would write it first."""
    case = chain()
    every = {"c": partial(with_c, "scalars", "chain_again", SCALAR)}
    return Case("chain, sin and cos twice", "chain", case.size, case.expected, 1e-11, every)


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

    every = adapters(lambda _: f, x, **{"fastgrad-np": None}) | {
        "c": partial(with_c, "scalars", "arith", x)}
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

    threads = n >= 10**5            # below, starting one costs more than it saves
    every = adapters(written_with, x, **{"torch-compile": "torch"}) | {
        "c": partial(with_c, "vectors", "vector_threads" if threads else "vector", x)}
    if threads:
        every["compiled-1"] = every["compiled"]
    return Case(f"vector n={n}", "vector", n, expected, 1e-12, every)


def sines():
    """C only: what libmvec's sine costs by itself, 1,000 numbers in the first cache."""
    x = np.random.default_rng(0).uniform(-2, 2, size=1000)

    def c():
        prepared = with_c("vectors", "sines", x)
        return prepared._replace(read=lambda r: (None, prepared.read(r)[1]))

    return Case("libmvec sin n=1000", "libmvec", x.size, lambda: (None, [np.sin(x)]), 1e-15,
                {"c": c})


# ---- optimisation and sampling -------------------------------------------------------------

ROSENBROCK_SIZES = (2, 100, 10**5)


def rosenbrock(n):
    """Rosenbrock's function written with slices."""
    x = np.random.default_rng(0).uniform(-2, 2, size=n)

    def written_with(namespace):
        total = namespace.sum1 if namespace.__name__ == "casadi" else namespace.sum

        def f(x):
            return total(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

        return f

    def expected():
        ahead, behind = x[1:], x[:-1]
        gap = ahead - behind**2
        gradient = np.zeros(n)
        gradient[1:] += 200 * gap
        gradient[:-1] += -400 * behind * gap - 2 * (1 - behind)
        return math.fsum(100 * gap**2 + (1 - behind) ** 2), [gradient]

    return Case(f"rosenbrock n={n}", "rosenbrock", n, expected, 1e-12, adapters(written_with, x))


class Regression:
    """The negative log-posterior of a logistic regression with a standard normal prior."""

    def __init__(self, rows, columns):
        rng = np.random.default_rng(0)
        design = rng.normal(size=(rows, columns))
        truth = rng.normal(size=columns)
        signs = np.where(rng.uniform(size=rows) < 1 / (1 + np.exp(-design @ truth)), 1.0, -1.0)
        self.design = signs[:, None] * design       # the sign of each row is that of its label
        self.start = np.zeros(columns)
        self.momentum = rng.normal(size=columns)

    def written_with(self, namespace):
        """Return the function of the coefficients and the data."""
        if namespace.__name__ == "torch":
            logsigmoid = namespace.nn.functional.logsigmoid
            return lambda q, data: -logsigmoid(data @ q).sum() + 0.5 * (q * q).sum()
        logaddexp, total = namespace.logaddexp, namespace.sum
        return lambda q, data: total(logaddexp(0.0, -(data @ q))) + 0.5 * total(q * q)

    def by_hand(self, q):
        """Return value and gradient."""
        z = self.design @ q
        value = math.fsum(np.logaddexp(0, -z)) + 0.5 * q @ q
        return value, q - self.design.T @ (1 / (1 + np.exp(z)))


def logistic(rows, columns):
    """The log-posterior of a logistic regression, and its gradient in the coefficients."""
    problem = Regression(rows, columns)
    q = problem.momentum * 0.1

    def expected():
        value, gradient = problem.by_hand(q)
        return value, [gradient]

    every = adapters(problem.written_with, q, problem.design, casadi=None)
    return Case(f"logistic {rows}x{columns}", "logistic", columns, expected, 1e-11, every)


LEAPFROG_STEPS, LEAPFROG_SIZE = 100, 0.02


def leapfrog_step(gradient):
    """Return a step of a leapfrog integrator: position, momentum, slope -> the same, later."""
    size = LEAPFROG_SIZE

    def step(q, p, g):
        p = p - 0.5 * size * g
        q = q + size * p
        g = gradient(q)
        return q, p - 0.5 * size * g, g

    return step


def leapfrog_expected(problem):
    """Return where the integrator arrives."""
    step = leapfrog_step(lambda q: problem.by_hand(q)[1])
    q, p = problem.start, problem.momentum
    g = problem.by_hand(q)[1]
    for _ in range(LEAPFROG_STEPS):
        q, p, g = step(q, p, g)
    return None, [q, p]


def leapfrog():
    """100 leapfrog steps on a logistic regression 200x10, the loop in Python.

    What a tool can compile is the whole step.
    """
    problem = Regression(200, 10)

    def adapt(tool):
        namespace = importlib.import_module(NAMESPACES[tool])
        energy = problem.written_with(namespace)
        data, start, momentum = problem.design, problem.start, problem.momentum
        if tool == "torch":
            data, start, momentum = map(namespace.tensor, (data, start, momentum))
            leaf = namespace.zeros_like(start, requires_grad=True)

            def gradient(q):
                leaf.data = q
                return namespace.autograd.grad(energy(leaf, data), leaf)[0]

            step = leapfrog_step(gradient)
        elif tool == "jax":
            import jax

            jax.config.update("jax_enable_x64", True)
            data, start, momentum = map(namespace.asarray, (data, start, momentum))
            gradient = jax.jit(jax.grad(lambda q: energy(q, data)))
            step = jax.jit(leapfrog_step(jax.grad(lambda q: energy(q, data))))
        elif tool == "value":
            gradient = lambda q: (energy(q, data), q)[1]  # noqa: E731  (as often, no slope)
            step = leapfrog_step(gradient)
        else:
            grad = importlib.import_module(NAMESPACES[tool].partition(".")[0]).grad
            gradient = grad(lambda q: energy(q, data))
            step = leapfrog_step(gradient)
            if tool == "compiled":
                import fastgrad

                step, gradient = fastgrad.compile(step), fastgrad.compile(gradient)

        def run():
            q, p, g = start, momentum, gradient(start)
            for _ in range(LEAPFROG_STEPS):
                q, p, g = step(q, p, g)
            return q, p

        def read(result):
            return None, None if tool == "value" else [np.asarray(a) for a in result]

        if tool == "jax":
            return Prepared(lambda: jax.block_until_ready(run()), (), read)
        return Prepared(run, (), read)

    every = {tool: partial(adapt, tool)
             for tool in ("value", "fastgrad", "compiled", "torch", "jax", "autograd")}
    return Case("leapfrog 200x10, loop in Python", "leapfrog", 10,
                partial(leapfrog_expected, problem), 1e-9, every)


def leapfrog_in_one():
    """The same, the loop inside of one program."""
    problem = Regression(200, 10)

    def adapt(tool):
        namespace = importlib.import_module(NAMESPACES[tool])
        energy = problem.written_with(namespace)
        if tool == "jax":
            import jax

            jax.config.update("jax_enable_x64", True)
            grad, loop, compiled = jax.grad, jax.lax.fori_loop, jax.jit
        else:
            import fastgrad

            grad, loop, compiled = fastgrad.grad, fastgrad.fori_loop, fastgrad.compile
        data = namespace.asarray(problem.design) if tool == "jax" else problem.design

        def whole(q, p):
            gradient = grad(lambda q: energy(q, data))
            step = leapfrog_step(gradient)
            return loop(0, LEAPFROG_STEPS, lambda i, carry: step(*carry), (q, p, gradient(q)))[:2]

        run = compiled(whole)
        arguments = problem.start, problem.momentum
        read = lambda result: (None, [np.asarray(a) for a in result])  # noqa: E731
        if tool == "jax":
            arguments = tuple(map(namespace.asarray, arguments))
            return Prepared(lambda q, p: jax.block_until_ready(run(q, p)), arguments, read)
        return Prepared(run, arguments, read)

    every = {tool: partial(adapt, tool) for tool in ("compiled", "jax")}
    return Case("leapfrog 200x10, in one program", "leapfrog", 10,
                partial(leapfrog_expected, problem), 1e-9, every)


def python_scan(step, carry, xs):
    """Run a step over the rows of an array, in Python; no results are stacked."""
    for x in xs:
        carry, _ = step(carry, x)
    return carry, None


def kalman():
    """The log-likelihood of 200 positions under a Kalman filter, and its gradient.

    Four states (position and velocity in the plane), two measured; the unknowns are the logarithms
    of the variances of process and measurement. Systems of 2x2 are solved by Cramer's rule.
    """
    steps, dt = 200, 0.1
    rng = np.random.default_rng(0)
    measured = np.cumsum(rng.normal(scale=0.1, size=(steps, 2)), axis=0) + rng.normal(
        scale=0.3, size=(steps, 2))
    move = np.eye(4) + dt * np.eye(4, k=2)
    blocks = np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
    process = np.kron(blocks, np.eye(2))
    look = np.eye(2, 4)
    theta = np.array([-0.5, -2.0])

    def written_with(namespace, scan):
        exp, log = namespace.exp, namespace.log
        arrays = move, move.T, process, look, look.T, np.eye(2), np.zeros(4), np.eye(4)
        if namespace.__name__ == "torch":
            arrays = map(namespace.tensor, arrays)
        F, Ft, Q0, H, Ht, I2, mean0, P0 = arrays

        def f(theta, measured):
            Q, R = exp(theta[0]) * Q0, exp(theta[1]) * I2

            def step(carry, z):
                mean, P, total = carry
                mean, P = F @ mean, F @ P @ Ft + Q
                HP = H @ P
                S = HP @ Ht + R
                v = z - H @ mean
                a, b, c, d = S[0, 0], S[0, 1], S[1, 0], S[1, 1]
                det = a * d - b * c
                u0, u1 = (d * v[0] - b * v[1]) / det, (a * v[1] - c * v[0]) / det
                p0, p1 = HP[0], HP[1]
                k0, k1 = (p0 * d - p1 * c) / det, (p1 * a - p0 * b) / det
                mean = mean + p0 * u0 + p1 * u1
                P = P - k0[:, None] * p0 - k1[:, None] * p1
                return (mean, P, total + 0.5 * (v[0] * u0 + v[1] * u1 + log(det))), None

            return scan(step, (mean0, P0, 0.0), measured)[0][2]

        return f

    def expected():
        f = written_with(np, python_scan)
        h = 1e-30               # the complex step is exact to rounding
        slopes = [f(theta + 1j * h * unit, measured).imag / h for unit in np.eye(2)]
        return float(f(theta, measured)), [np.array(slopes)]

    def adapt(tool):
        namespace = importlib.import_module(NAMESPACES[tool])
        scan = python_scan
        if tool == "jax":
            import jax

            jax.config.update("jax_enable_x64", True)
            scan = jax.lax.scan
        elif tool == "compiled":
            import fastgrad

            scan = fastgrad.scan
        return ADAPT[tool](written_with(namespace, scan), theta, measured)

    every = {tool: partial(adapt, tool)
             for tool in ("value", "fastgrad", "fastgrad-np", "compiled", "torch", "jax",
                          "autograd")}
    return Case("kalman, 200 steps", "kalman", steps, expected, 1e-10, every)


# ---- many points at once -------------------------------------------------------------------

LANES = 10**6


def limit_memory():
    """Let this process take half of the machine's memory and then fail, instead of all of it.

    A thousand operations at a million points are 8 GB for whoever keeps them all.
    """
    try:
        import resource

        half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (half, hard))
    except (ImportError, OSError, ValueError):
        pass


def lanes_cases():
    """Return `arith` and `chain` at a million points: values, and values with slopes."""
    return [lanes(name, slopes) for name in ("arith", "chain") for slopes in (False, True)]


def lanes(name, slopes):
    """A scalar program at a million points, one thread."""
    x = np.random.default_rng(0).uniform(-0.01, 0.01, size=LANES // 32 * 32)
    steps = {"arith": 500, "chain": 333}[name]

    def written_with(namespace):
        sin = namespace.sin

        def arith(x):
            y = x
            for _ in range(steps):
                y = y * x + y
            return y

        def chain(x):
            y = x
            for _ in range(steps):
                y = sin(y) * x + y
            return y

        return {"arith": arith, "chain": chain}[name]

    def expected():
        if name == "arith":
            value = x * (1 + x) ** steps
            slope = (1 + x) ** (steps - 1) * (1 + x + steps * x)
        else:
            value, slope = x, np.ones_like(x)
            for _ in range(steps):
                s = np.sin(value)
                value, slope = s * x + value, np.cos(value) * slope * x + s + slope
        return value, [slope] if slopes else []

    def adapt(tool):
        f = written_with(importlib.import_module(NAMESPACES[tool]))
        read = lambda r: (r[0], [np.asarray(r[1])]) if slopes else (r, [])  # noqa: E731
        if tool == "jax":
            import jax

            jax.config.update("jax_enable_x64", True)
            run = jax.jit(jax.vmap(jax.value_and_grad(f) if slopes else f))
            return Prepared(lambda x: jax.block_until_ready(run(x)), (jax.numpy.asarray(x),), read)
        import fastgrad

        limit_memory()
        run = fastgrad.compile(fastgrad.vmap(fastgrad.value_and_grad(f) if slopes else f))
        return Prepared(run, (x,), read)

    def c():
        prepared = with_c("lanes", "arith_slopes" if slopes else "arith_values", x, lanes=True)
        return prepared._replace(
            read=lambda r: (prepared.read(r)[0], prepared.read(r)[1] if slopes else []))

    every = {tool: partial(adapt, tool) for tool in ("compiled-1", "jax")}
    if name == "arith":
        every["c"] = c
    what = "value and slope" if slopes else "value"
    return Case(f"{name} at {LANES:,} points, {what}", "lanes", x.size, expected, 1e-11, every)


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

    rows = np.arange(batch)

    def written_with(namespace, logsumexp):
        tanh, mean = namespace.tanh, namespace.mean

        def loss(parameters, x, labels):
            *hidden, (weights, bias) = parameters
            for w, b in hidden:
                x = tanh(x @ w + b)
            scores = x @ weights + bias
            right = scores[rows, labels]
            return mean(logsumexp(scores, axis=1) - right)

        return loss

    def adapt(tool):
        namespace = importlib.import_module(NAMESPACES[tool])
        logsumexp = plain_logsumexp
        if tool in SPECIAL:
            logsumexp = importlib.import_module(SPECIAL[tool]).logsumexp
        own = torch_mlp(namespace) if namespace.__name__ == "torch" else None
        loss = own or written_with(namespace, logsumexp)
        return ADAPT[tool](loss, parameters, x, labels)

    every = {tool: partial(adapt, tool) for tool in ADAPT if tool not in ("casadi", "compiled-1")}
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
