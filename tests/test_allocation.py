"""An allocation that fails raises MemoryError, and leaves everything as it was.

In checked builds (FASTGRAD_DEBUG=1, FASTGRAD_SANITIZE=1) the n-th allocation of the core's can be
made to fail. Each scenario below is run for n = 1, 2, ... until it needs no more of them, in a
process of its own, which may die. After each failure nothing may be left behind: no node, value,
shape, attribute or block, no open recording; and the scenario must give the right answer again.

    python tests/test_allocation.py [--rest] [--python] [NAME ...]

tries all failures of these scenarios, one by one; with --rest all allocations after the n-th fail,
too; with --python CPython's own fail in place of the core's.
"""

import functools
import gc
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import test_numpy_namespace as calls

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad.graphs import loop_nodes

pytestmark = pytest.mark.skipif(
    not core.checked_build(),
    reason="only checked builds can let allocations fail: FASTGRAD_DEBUG=1 or FASTGRAD_SANITIZE=1")

# Of the failures of a scenario so many are tried in a test run, evenly spread; all of them by hand.
TRIED = 40

SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


SMALL = np.array([0.5, -1.25, 2.0])
MATRIX = np.arange(12.0).reshape(3, 4) / 7 - 0.4
LARGE = np.linspace(-1, 1, 5000)


# ---- recording and the sweeps -------------------------------------------------------------------

@scenario
def scalars():
    return fg.value_and_grad(lambda x: (x * 2 + x**3 / (1 + x)) * fnp.sin(x) - fnp.maximum(x, 1))(0.7)


@scenario
def scalars_in_lists():
    f = fg.grad(lambda p: p["a"] * p["b"][0] + fnp.where(p["a"] > p["b"][1], p["a"], p["b"][1]))
    return f({"a": 1.0, "b": [2.0, 3.0]})


@scenario
def small_arrays():
    return fg.grad(lambda x: ((x * x + 2) * fnp.exp(x) - 1 / (3 + x * fnp.tanh(x))).sum())(SMALL)


@scenario
def narrow_arrays():
    x = SMALL.astype(np.float32)
    return fg.grad(lambda x: ((x * x + 2) * fnp.exp(x) + MATRIX[:, :3].astype(np.float32)).sum())(x)


@scenario
def broadcast_arrays():
    def f(x, y):
        return fnp.mean(fnp.where(x[:, None] > y, x[:, None] * y, fnp.hypot(x[:, None], y)) / 3.5)
    return fg.grad(f, argnums=(0, 1))(SMALL, MATRIX)


@scenario
def waiting_runs():
    def f(x):
        y = x * 3 + fnp.sin(x)
        z = y * y - x / 4
        return (z * y).sum() + (fnp.exp(z) * LARGE).sum()
    return fg.value_and_grad(f)(LARGE)


@scenario
def backward():
    w, v = fg.tensor(SMALL, requires_grad=True), fg.tensor(2.0, requires_grad=True)
    h = w * v
    h.retain_grad()
    (h * h).sum().backward(retain_graph=True)
    (h * w).sum().backward()
    return w.grad, v.grad, h.grad


@scenario
def gradients():
    w = fg.tensor(SMALL, requires_grad=True)
    h = fnp.sin(w) * w
    g = fg.gradients((h * h * w).sum(), [w, h], create_graph=True)
    return fg.gradients((g[0] * g[1]).sum(), w), g


@scenario
def create_graph():
    w = fg.tensor(0.3, requires_grad=True)
    y = fnp.exp(w * w) / (1 + w)
    y.backward(create_graph=True)
    g = w.grad
    w.grad = None
    (g * g).backward()
    return w.grad


@scenario
def gradients_of_all_leaves_or_of_none():
    leaves = [fg.tensor(SMALL, requires_grad=True), fg.tensor(2.0, requires_grad=True),
              fg.tensor(MATRIX, requires_grad=True), fg.tensor(SMALL, requires_grad=True)]
    leaves[0].grad, leaves[1].grad, leaves[3].grad = SMALL * 0, 0.0, SMALL * 0
    kept = leaves[3].grad
    loss = ((leaves[0] * leaves[1] + leaves[3][::-1]) @ leaves[2]).sum()
    try:
        loss.backward()
    except MemoryError:
        assert not any(np.any(x.grad) for x in leaves if x.grad is not None)
        raise
    return [x.grad for x in leaves], kept


@scenario
def half_a_sweep():
    x = fg.tensor(0.5, requires_grad=True)
    shared = fnp.sin(x) * x
    one, other = fnp.exp(shared) * x, shared * shared * x
    try:
        one.backward()
    except MemoryError:
        assert x.grad is None
        try:
            other.backward()
        except RuntimeError:
            assert x.grad is None       # what they share is gone, and it says so
        else:
            assert x.grad.item() == fg.grad(lambda x: (fnp.sin(x) * x)**2 * x)(0.5)
        raise
    return x.grad


@scenario
def many_segments():
    def f(x):
        y = x
        for k in range(1500):
            y = y * 0.999 + x if k % 2 else fnp.sin(y)
        return y
    return fg.grad(f)(0.5)


@scenario
def another_thread():
    import threading

    answer = []

    def run():
        try:
            answer.append(fg.grad(lambda x: (x * x).sum())(SMALL))
        except BaseException as error:
            answer.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(answer[0], BaseException):
        raise answer[0]
    return answer


@scenario
def streamed_scalar():
    return fg.jvp(lambda x: fnp.sin(x) * x**2 + fnp.exp(x / 3), (0.4,), (1.5,))


@scenario
def streamed_arrays():
    def f(x, y):
        for _ in range(3):
            x = x * fnp.cos(y) + fnp.concatenate([x[1:], x[:1]])
        return {"a": x.sum(), "b": y @ x}
    return fg.jvp(f, (SMALL, SMALL * 2), (SMALL + 1, SMALL))


@scenario
def long_stream():
    def f(x):
        for _ in range(700):
            x = x * 0.999 + 0.001 * fnp.sin(x)
        return x
    return fg.jvp(f, (0.4,), (1.5,))


@scenario
def linearize():
    y, push = fg.linearize(lambda x: fnp.tanh(x * x) @ MATRIX, SMALL)
    return y, push(SMALL + 2), push(SMALL)


@scenario
def vjp():
    y, pull = fg.vjp(lambda x, s: (fnp.exp(x * s) @ MATRIX, s * s), SMALL, 0.3)
    return y, pull((np.ones(4), 2.0))


def vector(x):
    y = x[::-1] * fnp.sin(x)
    return fnp.stack([y[0] * x[1], y.sum(), fnp.max(x) * y[2], x[0] / x[1]])


@scenario
def jacobian_forward():
    return fg.jacobian(vector, mode="forward")(SMALL)


@scenario
def jacobian_reverse():
    return fg.jacobian(vector, mode="reverse")(SMALL)


@scenario
def jacobian_of_scalars():
    return fg.jacobian(lambda x, y: [x * y, x / y, fnp.sin(x)], argnums=(0, 1))(1.5, 2.5)


@scenario
def hessian():
    return fg.hessian(lambda x: (x * x * fnp.exp(x)).sum() * fnp.log(2 + x @ x))(SMALL)


@scenario
def hvp():
    return fg.hvp(lambda x: (x**3).sum() * fnp.sin(x[0]))(SMALL, SMALL + 1)


@scenario
def laplacian():
    return fg.laplacian(lambda x: (x**3).sum() * fnp.sin(x[0]))(SMALL)


@scenario
def nested():
    def f(x):
        return fg.grad(lambda y: (y**3 * x).sum())(x * 2).sum() + fg.jvp(fnp.sin, (x,), (x,))[1].sum()
    return fg.grad(f)(SMALL), fg.grad(fg.grad(lambda x: x**5))(1.5)


@scenario
def taylor():
    return fg.taylor(lambda x: fnp.exp(fnp.sin(x)) / (2 + x), 0.3, 1.0, order=4)


@scenario
def sparse():
    def f(x):
        return x[1:] * x[:-1] + fnp.sin(x[1:])
    jacobian = fg.jacobian(f, sparse=True)(np.arange(1.0, 9))
    hessian = fg.hessian(lambda x: (f(x)**2).sum(), sparse=True)(np.arange(1.0, 9))
    return jacobian.toarray(), hessian.toarray()


@scenario
def elementwise():
    return fg.elementwise_grad(lambda x: x * fnp.sin(x))(SMALL)


# ---- every shaped operator, in every direction ---------------------------------------------------

SHAPED = {
    "reshape": lambda x: fnp.reshape(x, (4, 3)),
    "transpose": lambda x: fnp.transpose(x) * np.arange(3),
    "broadcast": lambda x: fnp.broadcast_to(x, (2, 3, 4)) * 2,
    "flip": lambda x: fnp.flip(x, 1) * MATRIX,
    "item": lambda x: x[1:, None, ::-1] * x[0, 1],
    "items": lambda x: x[0, 1] * x[1, 2] + x[2, 3],
    "few": lambda x: fnp.tile(x, 8)[0, 2:4],
    "gather": lambda x: x[[0, 2, 0], [1, 1, 3]] * x[MATRIX > 0].sum(),
    "take": lambda x: fnp.take_along_axis(x, np.array([[1], [0], [2]]), 1),
    "sort": lambda x: fnp.sort(x, axis=0),
    "cast": lambda x: x.astype(np.float32) * np.float32(2),
    "concatenate": lambda x: fnp.concatenate([x, MATRIX, x * x], axis=1),
    "stack": lambda x: fnp.stack([x[0, 0], 2.0, x[1, 1] * x[2, 2]]),
    "sum": lambda x: x.sum(axis=0, keepdims=True) * x.sum(axis=(0, 1)),
    "prod": lambda x: fnp.prod(x, axis=1),
    "max": lambda x: fnp.max(x, axis=0) + fnp.min(x),
    "logsumexp": lambda x: fg.special.logsumexp(x, axis=1),
    "softmax": lambda x: fg.special.softmax(x, axis=1),
    "matmul": lambda x: (x @ MATRIX.T) @ x[:, 0],
    "batches": lambda x: fnp.stack([x, x * 2]) @ fnp.transpose(x),
    "einsum": lambda x: fnp.einsum("ij,kj->ik", x, MATRIX),
    "norm": lambda x: fnp.linalg.norm(x, axis=0),
    "var": lambda x: fnp.var(x, axis=1),
}


def assigned(x):
    y = x * 1.0
    y[0, 1] = y[1, 1] * 2
    y[1:, ::2] = x[:2, :2] * x[0, 0]
    y[[0, 2], [3, 3]] = x[0, :2]
    y[2] += 1
    return y


def assigned_views(x):
    y = x * 2.0
    row, column = y[1], y[:, 2]
    row[1:] = column[0] * 3
    column *= 2
    y.ravel()[0] = 5.0
    return y * row.sum()


SHAPED |= {"assign": assigned, "views": assigned_views}


def shaped(f):
    def total(x):
        return (f(x) * 1.0).sum()
    return (fg.grad(total)(MATRIX), fg.jvp(f, (MATRIX,), (MATRIX + 1,))[1],
            fg.linearize(f, MATRIX)[1](MATRIX), fg.jacobian(f, mode="forward", chunk=2)(MATRIX),
            fg.grad(lambda x: fnp.sin(fg.grad(total)(x)).sum())(MATRIX))


for name in SHAPED:
    SCENARIOS[f"shaped_{name}"] = functools.partial(shaped, SHAPED[name])


# ---- rules of the user's, loops ------------------------------------------------------------------

@scenario
def custom_vjp():
    @fg.custom_vjp
    def f(x, s):
        return fnp.sin(x) * s
    f.defvjp(lambda x, s: (f(x, s), (x, s)),
             lambda kept, g: (g * fnp.cos(kept[0]) * kept[1], (g * fnp.sin(kept[0])).sum()))
    return fg.grad(lambda x, s: (f(x, s)**2).sum(), argnums=(0, 1))(SMALL, 2.0)


@scenario
def custom_jvp():
    @fg.custom_jvp
    def f(x):
        return fnp.sin(x) * x
    f.defjvp(lambda primals, tangents: (f(primals[0]), tangents[0] * fnp.cos(primals[0])))
    return (fg.jvp(lambda x: f(x) * x, (SMALL,), (SMALL,)), fg.grad(lambda x: f(x).sum())(SMALL),
            fg.linearize(lambda x: f(x) * x, SMALL)[1](SMALL))


def stepped(carry, x):
    return carry * fnp.cos(x) + x, carry * x


@scenario
def scan():
    def f(c, xs):
        carry, ys = fg.scan(stepped, c, xs)
        return carry + ys.sum()
    return fg.value_and_grad(f, argnums=(0, 1))(0.5, SMALL), fg.jvp(f, (0.5, SMALL), (1.0, SMALL))


@scenario
def scan_of_arrays():
    def f(c, xs):
        carry, ys = fg.scan(lambda c, x: (fnp.tanh(c @ MATRIX[:, :3] + x), c.sum()), c, xs)
        return (carry * ys).sum()
    return fg.grad(f, argnums=(0, 1))(SMALL, MATRIX[:, :3].copy())


@scenario
def fori_loop():
    return fg.grad(lambda x: fg.fori_loop(0, 5, lambda i, y: y * fnp.sin(x) + i, x))(0.5)


@scenario
def while_loop():
    def f(x):
        return fg.while_loop(lambda c: c[0] < 20, lambda c: (c[0] * c[1] + 1, c[1]), (x, x))[0]
    return f(1.5), fg.jvp(f, (1.5,), (1.0,))


@scenario
def explicit_graph():
    x, y = fg.variable("x"), fg.variable("y", shape=(3,))
    f = fg.function([x, y], [fnp.sin(x) * y.sum(), x * y])
    return f(0.5, SMALL), f(1.5, SMALL + 1)


# ---- programs ------------------------------------------------------------------------------------

@scenario
def compiled():
    f = fg.compile(lambda x, s: (fnp.exp(x * s) @ MATRIX, s * s + x[0]))
    return f(SMALL, 0.5), f(SMALL + 1, 0.25), f(SMALL, 0.5)


@scenario
def compiled_scalars():
    def f(x):
        y = x
        for _ in range(40):
            y = fnp.sin(y) * x + 0.5
        return y
    g = fg.compile(f)
    return g(0.5), g(0.75), g(0.25)


@scenario
def compiled_grad():
    f = fg.compile(fg.value_and_grad(lambda x: (fnp.sin(x) * x[::-1]).sum() if x[0] > 0 else x @ x))
    return f(SMALL), f(SMALL + 1), f(-SMALL), f(SMALL)


@scenario
def compiled_large():
    f = fg.compile(lambda x: ((x * x).sum(), fnp.exp(x) + x, fnp.max(fnp.outer(x[:200], x[:200]), 1)))
    x = np.linspace(0, 1, 70000)
    return f(x), f(x + 1), f(x)


@scenario
def compiled_scan():
    f = fg.compile(fg.grad(lambda c, xs: fg.scan(stepped, c, xs)[0]))
    return f(0.5, SMALL), f(0.25, SMALL + 1)


@scenario
def threads():
    before = fg.get_num_threads()
    fg.set_num_threads(3)
    f = fg.compile(lambda x: (fnp.exp(x) * x).sum() + (x * x * fnp.sin(x)).sum())
    x = np.linspace(0, 1, 150000)
    try:
        return f(x), f(x + 1)
    finally:
        fg.set_num_threads(before)


@scenario
def vmap():
    f = fg.vmap(lambda x, s: fnp.where(x.sum() > 0, x * s, fnp.sin(x)), in_axes=(0, None))
    return f(MATRIX, 2.0), fg.grad(lambda x: (f(x, 2.0)**2).sum())(MATRIX)


@scenario
def vmap_of_grad():
    return fg.vmap(fg.grad(lambda x: (x[0] * fnp.sin(x)).sum()))(MATRIX)


@scenario
def save_and_load():
    f = fg.compile(lambda x: fnp.exp(x) @ MATRIX + (x > 0).sum())
    f(SMALL)
    with tempfile.TemporaryDirectory() as folder:
        f.save(Path(folder, "f"))
        g = fg.load(Path(folder, "f"))
    return g(SMALL), g(SMALL), pickle.loads(pickle.dumps(fg.tensor(SMALL, requires_grad=True)))


@scenario
def explain():
    return str(fg.explain(lambda x, y: fnp.sin(x * y) / x, 0.5, 2.0))


# ---- Tensors -------------------------------------------------------------------------------------

@scenario
def printed_tape():
    w = fg.tensor(SMALL, requires_grad=True)
    with fg.record() as tape:
        y = (w * w + fnp.concatenate([w, w])[:3]).sum() * fnp.ones(2)
        return len(str(tape).splitlines()), len(tape), tape.nbytes, repr(y)


@scenario
def tensors():
    a = fg.tensor(MATRIX.astype(np.float32))
    b = fg.tensor([1, 2, 3])
    mask = a > 0
    return (a.numpy(), a.detach() * 2, b.tolist(), a[b[0]], (a.astype(float) + a).T, mask.sum(),
            a.copy() @ a.T, -a, abs(a), a == a, b + 1, fnp.argmax(a, axis=1), a.size, fnp.zeros(3))


@scenario
def assignments():
    t = fnp.zeros(5)
    t = fg.tensor(np.zeros(5))
    t[1:3] = SMALL[:2]
    t[0] = 3.0
    t += 1
    view = t[2:]
    view *= 2
    with fg.no_grad():
        w = fg.tensor(SMALL, requires_grad=True)
        kept = w * 1.0
        w -= 0.5
        w[0] = 7.0
    return t, view, w, kept


@scenario
def assigned_whole_or_not():
    t = fg.tensor(np.arange(6.0))
    w = fg.tensor(SMALL, requires_grad=True)
    u = fnp.concatenate([w, w]) * 1.0
    for index, value in ((0, w[0]), (slice(1, 4), w), ([5, 4], w[1:]), (slice(0, 2), 3.0), (1, 2.0)):
        for x in (t, u):
            before, known = x.detach().numpy().copy(), x.requires_grad
            try:
                x[index] = value
            except MemoryError:
                assert np.array_equal(x.detach().numpy(), before) and x.requires_grad == known
                raise
    with fg.no_grad():
        before = u.detach().numpy().copy()
        try:
            u[2] = 7.0
        except MemoryError:
            assert np.array_equal(u.detach().numpy(), before) and u.requires_grad
            raise
    return fg.gradients((t * t).sum(), w), u


@scenario
def optimiser():
    gradient = fg.grad(lambda w: ((w["a"] * w["b"])**2).sum())
    adam, w = fg.optim.Adam(lr=0.1), {"a": SMALL.copy(), "b": 1.0}
    state = adam.init(w)
    for _ in range(2):
        w, state = adam.step(gradient(w), state, w)
    return w


@scenario
def in_place():
    w = fg.tensor(SMALL, requires_grad=True)
    for _ in range(2):
        w.zero_grad()
        (w**2).sum().backward()
        with fg.no_grad():
            w -= 0.1 * w.grad
    return w


@scenario
def mixed_operands():
    x = fg.tensor(SMALL, requires_grad=True)
    y = x.astype(np.float32) * 2 + np.arange(3) * x + fnp.where(np.array([1, 0, 2]), x, [1, 2, 3])
    y = y + SMALL[::-1] * y[::-1] + np.float32(2)
    return fg.gradients(y.sum(), x), y


@scenario
def implicit():
    return fg.grad(lambda a: fg.root(lambda x, a: x * x - a, 1.0, a))(2.0)


@scenario
def symbolic():
    return str(fg.symbolic(lambda x: fnp.sin(x) * x, 0.5))


# Functions of fastgrad.numpy, all that another test has a call for.
def namespace(call, shapes):
    return fg.grad(lambda *xs: calls.weighted(call(fnp, *xs)), tuple(range(len(shapes))))(
        *calls.draw(shapes))


for number, (call, *shapes) in enumerate(calls.CALLS):
    SCENARIOS[f"namespace_{number}"] = functools.partial(namespace, call, shapes)


# ---- the sweep over failures ---------------------------------------------------------------------

def plain(x):
    """What a scenario returns, with arrays in place of Tensors."""
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(y) for y in x]
    if isinstance(x, fg.Tensor):
        return x.detach().numpy().copy()
    return x


def equal(x, y):
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(equal(x[k], y[k]) for k in x)
    if isinstance(x, list):
        return len(x) == len(y) and all(map(equal, x, y))
    return np.array_equal(x, y, equal_nan=isinstance(x, (float, np.ndarray)))


def alive():
    for cached in vars(loop_nodes).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    gc.collect()
    return core.alive()


def fail_core(n, count):
    core.fail_allocations(n, count)


def fail_python(n, count):
    """Of CPython's own allocations; the core's are not among them."""
    import _testcapi

    if count:
        _testcapi.set_nomemory(n, n + count)
    else:
        _testcapi.remove_mem_hooks()


def failure(run, n, count, fail=fail_core):
    """Run with the n-th allocation failing; what came of it."""
    unraisable = []
    sys.unraisablehook = unraisable.append
    outcome = "passed"
    fail(n, count)
    try:
        run()
    except MemoryError:
        outcome = "raised"
    except BaseException as error:
        fail(0, 0)
        outcome = f"{type(error).__name__}: {error}"
    fail(0, 0)
    if unraisable:
        outcome = f"ignored an exception in {unraisable[0].object!r}"
    return outcome


def sweep(run, first, step, count, note):
    """Let every `step`-th allocation from the first one on fail in turn (0: so that TRIED of them
    do; "python": CPython's, all); yields what went wrong."""
    fail, idle = fail_core, 0
    if step == "python":
        fail, step = fail_python, 1
    expected = plain(run())
    for _ in range(3):
        run()
    gc.collect()
    gc.freeze()
    core.fail_allocations(0, 0)
    run()
    total = core.fail_allocations(0, 0)
    before = alive()
    n = first
    while n <= total + 1 if fail is fail_core else idle < 50:
        note(n)
        outcome = failure(run, n, count, fail)
        idle = idle + 1 if outcome == "passed" else 0
        if outcome not in ("raised", "passed"):
            yield n, outcome
        after = alive()
        if after != before:
            yield n, "left behind: " + ", ".join(
                f"{k} {before[k]} -> {after[k]}" for k in before if before[k] != after[k])
        try:
            result = plain(run())
        except BaseException as error:
            yield n, f"afterwards: {type(error).__name__}: {error}"
        else:
            if not equal(result, expected):
                yield n, f"afterwards: {result} in place of {expected}"
        result = None
        before = alive()
        n += step or max(1, total // TRIED)


def child(names, begin, first, step, count):
    """In a process of its own: goes through the scenarios, from number `begin` and its allocation
    `first` on; tells what went wrong and, before each failure, where it is."""
    import faulthandler
    import warnings

    faulthandler.enable()
    warnings.simplefilter("ignore")
    out = os.dup(1)
    for k, name in list(enumerate(names))[begin:]:
        for n, what in sweep(SCENARIOS[name], first, step, count,
                             lambda n, k=k: os.write(out, b"at %d %d\n" % (k, n))):
            os.write(out, f"fault {name}, {n}: {' '.join(what.split())}\n".encode())
        first = 1
    os.write(out, b"done\n")


def faults_of(names, step, count=1, limit=40):
    """All that went wrong in some scenarios, in as many processes as it takes."""
    found, begin, first = [], 0, 1
    while len(found) < limit:
        process = subprocess.run(
            [sys.executable, __file__, "--child", ",".join(names), str(begin), str(first), str(step),
             str(count)], capture_output=True, text=True, timeout=600,
            env=os.environ | {"PYTHONPATH": str(Path(fg.__file__).parents[1])})
        lines = process.stdout.splitlines()
        found += [line.removeprefix("fault ") for line in lines if line.startswith("fault ")]
        if lines and lines[-1] == "done":
            break
        at = [line.split()[1:] for line in lines if line.startswith("at ")]
        if not at:
            return [*found, f"{names}: {process.stderr}"]
        begin, first = map(int, at[-1])
        found.append(f"{names[begin]}, {first}: the process died ({process.returncode}): "
                     + process.stderr[:3000])
        first += 1
    return found


# A process for several scenarios: starting one takes longer than many a scenario.
GROUPS = 12


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_failing_allocation_raises_memory_error_and_leaves_nothing_behind(group):
    found = faults_of(sorted(SCENARIOS)[group::GROUPS], 0)
    assert not found, "\n".join(found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        step = sys.argv[5]
        child(sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4]),
              step if step == "python" else int(step), int(sys.argv[6]))
    else:
        bad = 0
        names = [name for name in sys.argv[1:] if not name.startswith("--")]
        count = 1 << 40 if "--rest" in sys.argv else 1
        for name in names or sorted(SCENARIOS):
            found = faults_of([name], "python" if "--python" in sys.argv else 1, count)
            bad += bool(found)
            print(f"{name}: " + ("\n    ".join([f"{len(found)} faults", *found]) if found else "fine"),
                  flush=True)
        sys.exit(bad)
