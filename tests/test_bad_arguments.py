"""Whatever public names are called with, they answer or raise: no crash, no SystemError, and the
state is as before.

Each callable (functions, methods bound and unbound, properties, operators, of every public module
and class) is called with each kind of wrong argument, at one place while the others are valid, and
at all of them. The calls run in other processes, which note each call before they make it: a
process that dies names the call.

    python tests/test_bad_arguments.py all|sample [part of a name]
"""

import dataclasses
import gc
import inspect
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import types
import warnings
import weakref

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core, program

ONLY = inspect.Parameter.POSITIONAL_ONLY
SAMPLE = 6              # calls of each callable in a quick run
SECONDS = 0.5           # of CPU; then the call is interrupted as by Ctrl-C
MEMORY = 3 << 30        # bytes of address space


# ---- what to call with ----------------------------------------------------------------------

def raising(method):
    """An object whose method of that name raises."""
    def fail(*args, **kwargs):
        raise ZeroDivisionError(method)
    return type("Raising", (), {method: fail})()


def deep(kind, depth):
    x = 1.0
    for _ in range(depth):
        x = {"a": x} if kind is dict else kind((x,))
    return x


def self_list():
    x = []
    x.append(x)
    return x


def self_dict():
    x = {}
    x["a"] = x
    return x


def consumed():
    t = fg.tensor([1.0, 2.0], requires_grad=True)
    y = t * t
    y.backward(np.ones(2))
    return y


def foreign():
    """A Tensor recorded by a thread that has ended."""
    made = []
    thread = threading.Thread(target=lambda: made.append(leaf() * 2))
    thread.start()
    thread.join()
    return made[0]


def leaf():
    return fg.tensor([[1.0, 0.5], [0.25, 2.0]], requires_grad=True)


def masked():
    return np.ma.masked_array([1.0, 2.0], [True, False])


def read_only():
    a = np.ones(3)
    a.flags.writeable = False
    return a


BAD = {
    "None": lambda: None, "...": lambda: ..., "NotImplemented": lambda: NotImplemented,
    "True": lambda: True, "0": lambda: 0, "3": lambda: 3, "-1": lambda: -1,
    "2**31": lambda: 2**31, "2**62": lambda: 2**62, "2**70": lambda: 2**70,
    "-2**63": lambda: -2**63, "-2**70": lambda: -2**70, "1.5": lambda: 1.5,
    "nan": lambda: np.nan, "-inf": lambda: -np.inf, "1e308": lambda: 1e308, "1j": lambda: 1j,
    "'x'": lambda: "x", "''": lambda: "", "surrogate": lambda: "\ud800", "nul": lambda: "a\0b",
    "b'x'": lambda: b"x", "()": tuple, "[]": list, "{}": dict, "set": set,
    "(2**70,)": lambda: (2**70,), "(-2**70, 0)": lambda: (-2**70, 0), "(0, 0)": lambda: (0, 0),
    "(None,)": lambda: (None,), "['x']": lambda: ["x"], "[2**62]*3": lambda: [2**62] * 3,
    "ragged": lambda: [[1.0], [1.0, 2.0]], "range": lambda: range(70),
    "slice": lambda: slice("a", 2),
    "huge slice": lambda: slice(-2**70, 2**70, 2**70), "generator": lambda: (x for x in (1.0,)),
    "class": lambda: int, "Tensor class": lambda: fg.Tensor, "module": lambda: np,
    "function": lambda: lambda *args: None, "identity": lambda: lambda *args: args,
    "raising": lambda: raising("__call__"), "object": object,
    "list of itself": self_list, "dict of itself": self_dict,
    "deep list": lambda: deep(list, 2000), "deep dict": lambda: deep(dict, 2000),
    **{method: lambda method=method: raising(method) for method in (
        "__array__", "__float__", "__len__", "__iter__", "__index__", "__eq__", "__hash__",
        "__getattr__", "__array_ufunc__", "__repr__", "__bool__")},
    "0-d": lambda: np.array(2.0), "float32": lambda: np.float32(2), "int64": lambda: np.int64(2),
    "empty": lambda: np.zeros(0), "no rows": lambda: np.zeros((0, 3)),
    "long and empty": lambda: np.broadcast_to(1.0, (2**31, 0, 2**31)),
    "rank 64": lambda: np.ones((1,) * 64), "strided": lambda: np.ones((4, 4))[::-2, 1::2],
    "big endian": lambda: np.ones(2, ">f8"), "ints": lambda: np.arange(3),
    "far ints": lambda: np.array([2**62, -2**62]), "bools": lambda: np.array([True, False]),
    "complex": lambda: np.ones(2, complex), "objects": lambda: np.array([None, "x"]),
    "strings": lambda: np.array(["x"]), "dates": lambda: np.array(["2020-01-01"], "M8[D]"),
    "float16": lambda: np.ones(2, np.float16), "longdouble": lambda: np.ones(2, np.longdouble),
    "fields": lambda: np.zeros(2, "f8,i4"), "masked": masked, "matrix": lambda: np.matrix([[1.0]]),
    "read-only": read_only, "nans": lambda: np.full(2, np.nan), "dtype": lambda: np.dtype("f8,i4"),
    "leaf": leaf, "recorded": lambda: leaf() * 2, "number": lambda: fg.tensor(1.0) * 2,
    "int Tensor": lambda: fg.tensor([1, 2]), "bool Tensor": lambda: fg.tensor(True),
    "empty Tensor": lambda: fg.tensor(np.zeros((0, 2))), "consumed": consumed, "foreign": foreign,
    "view": lambda: leaf()[0], "variable": lambda: fg.variable("a"),
    "list of Tensors": lambda: [leaf(), None],
}


def loss(x, *rest):
    return fnp.sum(x * x)


def matrix():
    return np.array([[2.0, 1.0], [1.0, 3.0]])


def step(carry, x=None):
    return carry * 0.5, carry


# A valid argument by the name of the parameter, first those of single functions.
VALID = {
    "scan.f": lambda: step, "scan.init": lambda: 1.0, "scan.xs": lambda: np.ones(3),
    "fori_loop.body": lambda: lambda i, x: x * 0.5, "fori_loop.lower": lambda: 0,
    "fori_loop.upper": lambda: 3, "fori_loop.init": lambda: 1.0, "while_loop.init": lambda: 4.0,
    "while_loop.condition": lambda: lambda x: x > 1, "while_loop.body": lambda: lambda x: x / 2,
    "fixed_point.f": lambda: lambda x, a: (x + a / x) / 2, "root.f": lambda: lambda x, a: x * x - a,
    "jvp.primals": lambda: (matrix(),), "jvp.tangents": lambda: (matrix(),),
    "gradients.y": lambda: loss(leaf()), "gradients.xs": lambda: [leaf()],
    "einsum.subscripts": lambda: "ij,jk", "function.inputs": lambda: [fg.variable("a")],
    "symbolic.f": lambda: lambda x: x * x, "derivative.f": lambda: lambda x: x * x,
    "derivative.x": lambda: 1.0, "taylor.x": lambda: 1.0, "taylor.v": lambda: 1.0,
    "pad.mode": lambda: "constant", "searchsorted.a": lambda: np.arange(3.0),
    "unflatten.structure": lambda: fg.trees.flatten([1.0, 2.0])[1],
    "unflatten.leaves": lambda: [1.0, 2.0], "register.kind": lambda: type("Kind", (), {}),
    "register.flatten": lambda: lambda x: ((), None), "tree": lambda: {"w": matrix()},
    "register.unflatten": lambda: lambda aux, children: None, "argnames": lambda: None,
    "f": lambda: loss, "fun": lambda: loss, "func": lambda: loss, "function": lambda: loss,
    "axis": lambda: 0, "axes": lambda: (0, 1), "axis1": lambda: 0, "axis2": lambda: 1,
    "shape": lambda: (2, 2), "newshape": lambda: (4,), "dtype": lambda: None, "out": lambda: None,
    "argnums": lambda: 0, "order": lambda: 1, "n": lambda: 1, "k": lambda: 0, "offset": lambda: 0,
    "repeats": lambda: 2, "reps": lambda: 2, "shift": lambda: 1, "indices": lambda: [0],
    "num": lambda: 3, "ord": lambda: None, "q": lambda: 0.5, "index": lambda: 0,
    "name": lambda: "a",
    "indices_or_sections": lambda: 2, "pad_width": lambda: 1,
    "condition": lambda: np.array([True, False]),
    "arrays": lambda: [leaf(), matrix()], "tup": lambda: [leaf(), matrix()], "obj": lambda: 0,
    "seq": lambda: [leaf(), matrix()], "grads": lambda: {"w": np.ones(2)},
    "params": lambda: {"w": np.ones(2)},
    "lr": lambda: 0.1, "max_norm": lambda: 1.0, "max_value": lambda: 1.0,
    "path": lambda: "program.fg",
    "source": lambda: 0, "destination": lambda: 1, "chunk": lambda: 1, "method": lambda: "central",
}


# ---- what to call ---------------------------------------------------------------------------

def instances():
    """Instances whose methods, properties and operators are called: name -> how to make one."""
    compiled = fg.compile(loss)
    compiled(matrix())
    made = {
        "tensor": leaf, "recorded": lambda: leaf() * 2, "number": lambda: fg.tensor(1.5) * 2,
        "ints": lambda: fg.tensor([1, 2]), "compiled": lambda: compiled,
        "no_grad": fg.no_grad, "record": fg.record, "grad": lambda: fg.grad(loss),
        "value_and_grad": lambda: fg.value_and_grad(loss, argnums=(0,)),
        "jacobian": lambda: fg.jacobian(loss), "hessian": lambda: fg.hessian(loss),
        "vmap": lambda: fg.vmap(loss), "pull": lambda: fg.vjp(loss, matrix())[1],
        "push": lambda: fg.linearize(loss, matrix())[1], "variable": lambda: fg.variable("a"),
        "expression": lambda: fg.variable("a") * 2, "custom_vjp": lambda: fg.custom_vjp(loss),
        "custom_jvp": lambda: fg.custom_jvp(loss), "constant": lambda: fg.constant(np.ones(2)),
        "Adam": lambda: fg.optim.Adam(0.1), "SGD": lambda: fg.optim.SGD(0.1),
        "decay": lambda: fg.optim.ExponentialDecay(0.1, 0.9),
        "state": lambda: fg.optim.Adam(0.1).init({"w": np.ones(2)}),
        "row": lambda: fnp.sin.__self__,
        "function": lambda: fg.function([fg.variable("a")], 1.0),
    }
    found = {}
    for name, make in made.items():
        try:
            make()
        except Exception:
            continue
        found[name] = make
    return found


# They end the process, write files where they are told to, or answer for Python itself.
LEFT_OUT = {"__class__", "__new__", "__init_subclass__", "__subclasshook__", "__class_getitem__",
            "__getattribute__", "__dict__", "__weakref__", "__doc__", "__module__",
            "__annotations__",
            "__slots__", "__firstlineno__", "__static_attributes__", "__dataclass_fields__",
            "__dataclass_params__", "__match_args__", "__setattr__", "__delattr__", "__sizeof__",
            "set_num_threads", "register"}


class Target:
    """Something to call: its name, its parameters, and how it is called with arguments."""

    def __init__(self, name, call, parameters, own=None):
        self.name = name
        self.call = call
        self.parameters = parameters        # pairs of name and kind
        self.own = own                      # makes the first argument


def ours(thing):
    return (getattr(thing, "__module__", None) or "").startswith("fastgrad")


def owner(instance, name):
    """The class that has it, or what a method that is no attribute of a class is."""
    for kind in type(instance).__mro__:
        if name in vars(kind):
            return kind
    return fg.Tensor


def parameters_of(function, skip=0):
    try:
        found = list(inspect.signature(function).parameters.values())[skip:]
    except (ValueError, TypeError):
        return [("x", ONLY)] * (2 - skip)
    return [(p.name, p.kind) for p in found if p.kind != p.VAR_KEYWORD]


def targets():
    """All of them, in an order that does not change."""
    modules = {"fg": fg, "fnp": fnp, "fnp.linalg": fnp.linalg, "fg.special": fg.special,
               "fg.optim": fg.optim, "fg.testing": fg.testing, "fg.numeric": fg.numeric,
               "fg.trees": fg.trees}
    seen = set()
    for prefix, module in modules.items():
        for name in sorted(getattr(module, "__all__", None) or dir(module)):
            if name.startswith("_") or name in LEFT_OUT:
                continue
            thing = getattr(module, name)
            if not callable(thing) or not ours(thing) or id(thing) in seen:
                continue
            seen.add(id(thing))
            yield Target(f"{prefix}.{name}", thing, parameters_of(thing))
    for prefix, make in instances().items():
        kind = type(make())
        for name in sorted(set(dir(make())) | set(dir(kind))):
            if name in LEFT_OUT or name[0] == "_" != name[1] or not ours(owner(make(), name)):
                continue
            if prefix == "compiled" and name == "__init__":
                continue                # there is one for all calls, and it would keep them
            bound = inspect.getattr_static(kind, name, None)
            if bound is not None and hasattr(type(bound), "__set__"):
                def get(own, bound=bound):
                    return bound.__get__(own)

                def put(own, value, name=name):
                    setattr(own, name, value)

                yield Target(f"{prefix}.{name}.get", get, [("self", ONLY)])
                if name.startswith("__"):
                    continue            # what Python itself keeps, whatever it is
                yield Target(f"{prefix}.{name}.set", put, [("x", ONLY)], make)
                continue
            try:
                thing = getattr(make(), name)
            except Exception:
                continue
            if not callable(thing):
                continue

            def method(own, *args, name=name, **kwargs):
                return getattr(own, name)(*args, **kwargs)

            yield Target(f"{prefix}.{name}", method, parameters_of(thing), make)
            if bound is not None and callable(bound) and not isinstance(bound, types.FunctionType):
                yield Target(f"{prefix}.{name} unbound", bound,
                             [("self", ONLY), *parameters_of(thing)])
    for module in (core, program):
        for name, kind in sorted(vars(module).items()):
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                yield Target(f"{kind.__name__}()", kind, parameters_of(kind))


def valid(target, parameter):
    short = target.name.split(".")[-1].split(" ")[0]
    return VALID.get(f"{short}.{parameter}", VALID.get(parameter, leaf))()


def calls(target):
    """Pairs: what is wrong, and what makes the arguments (positional, and by name)."""
    places = [(name, kind) for name, kind in target.parameters
              if kind != inspect.Parameter.VAR_POSITIONAL]
    if len(places) < len(target.parameters):
        places.append(("args", ONLY))

    def made(wrong):
        args = [] if target.own is None else [target.own()]
        kwargs = {}
        last = max(wrong, default=0)
        for i, (name, kind) in enumerate(places):
            if i > last and i not in (0, 1):
                break                       # the rest may stay at its default
            value = BAD[wrong[i]]() if i in wrong else valid(target, name)
            if kind == inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            else:
                args.append(value)
        return args, kwargs

    for i, bad in itertools.product(range(len(places)), BAD):
        yield f"{places[i][0]}: {bad}", lambda i=i, bad=bad: made({i: bad})
    for bad in BAD:
        yield f"all: {bad}", lambda bad=bad: made(dict.fromkeys(range(len(places)), bad))

    def more(count, **kwargs):
        args, own = made({})
        return [*args, *[1.0] * count], {**own, **kwargs}

    yield "nothing", lambda: ([] if target.own is None else [target.own()], {})
    for count in (1, 5, 300):
        yield f"{count} too many", lambda count=count: more(count)
    yield "unknown keyword", lambda: more(0, nonsense=1.0)
    yield "all by keyword", lambda: ([] if target.own is None else [target.own()],
                                     {name: valid(target, name) for name, _ in places})


# ---- containers without end, and chains -----------------------------------------------------

@dataclasses.dataclass
class Holder:
    x: object = 1.0


def holder():
    h = Holder()
    h.x = h
    return h


CONTAINERS = {
    "list of itself": self_list, "dict of itself": self_dict, "dataclass of itself": holder,
    "list of itself twice": lambda: (lambda x: x.extend([x, x]) or x)([]),
    "list": lambda: deep(list, 40000),
    "tuple": lambda: deep(tuple, 3000), "dict": lambda: deep(dict, 3000),
}

# What may be given a container, or a function that returns one.
TAKERS = {
    "tensor": fg.tensor, "array": fnp.array, "stack": lambda x: fnp.stack([leaf(), x]),
    "sin": fnp.sin, "add": lambda x: leaf() + x, "maximum": lambda x: fnp.maximum(leaf(), x),
    "where": lambda x: fnp.where(x, leaf(), 1.0), "index": lambda x: leaf()[x],
    "assign": lambda x: (leaf() * 2).__setitem__(0, x), "axis": lambda x: leaf().sum(x),
    "reshape": lambda x: leaf().reshape(x), "any": lambda x: fnp.any([leaf(), x]),
    "seed": lambda x: loss(leaf()).backward(x), "set grad": lambda x: setattr(leaf(), "grad", x),
    "argnums": lambda x: fg.grad(loss, argnums=x),
    "gradients": lambda x: fg.gradients(loss(leaf()), x),
    "grad": lambda x: fg.grad(lambda y: 1.0)(x),
    "holder": lambda x: fg.grad(lambda y: 1.0)([1.0, x]),
    "aux": lambda x: fg.grad(lambda y: (y, x), has_aux=True)(1.0),
    "result": lambda x: fg.grad(lambda y: x)(1.0), "primal": lambda x: fg.jvp(loss, (x,), (x,)),
    "tangent": lambda x: fg.jvp(loss, (1.0,), (x,)),
    "jvp": lambda x: fg.jvp(lambda y: x, (1.0,), (1.0,)),
    "vjp": lambda x: fg.vjp(lambda y: x, 1.0), "vjp of": lambda x: fg.vjp(lambda y: 1.0, x),
    "cotangent": lambda x: fg.vjp(lambda y: y * 2, 1.0)[1](x),
    "linearize": lambda x: fg.linearize(lambda y: x, 1.0),
    "jacobian": lambda x: fg.jacobian(lambda y: x)(np.ones(2)),
    "hessian": lambda x: fg.hessian(lambda y: 1.0)(x),
    "vmap": lambda x: fg.vmap(lambda y: 1.0)(x),
    "vmap result": lambda x: fg.vmap(lambda y: x)(np.ones(2)),
    "in_axes": lambda x: fg.vmap(loss, in_axes=x)(np.ones((2, 2))),
    "compile": lambda x: fg.compile(lambda y: 1.0)(x),
    "compile result": lambda x: fg.compile(lambda y: x)(1.0),
    "compile keyword": lambda x: fg.compile(lambda y, k: y)(1.0, k=x),
    "scan": lambda x: fg.scan(step, x, np.ones(3)), "scan of": lambda x: fg.scan(step, 1.0, x),
    "scan result": lambda x: fg.scan(lambda c, y: (c, x), 1.0, np.ones(3)),
    "fori_loop": lambda x: fg.fori_loop(0, 3, lambda i, y: y, x),
    "while_loop": lambda x: fg.while_loop(lambda y: True, lambda y: x, 1.0),
    "taylor": lambda x: fg.taylor(lambda y: x, 1.0, 1.0), "stop_gradient": fg.stop_gradient,
    "root": lambda x: fg.root(lambda y, a: y, x, 1.0), "custom": lambda x: fg.custom_vjp(loss)(x),
    "explain": lambda x: fg.explain(lambda y: 1.0, x), "function": lambda x: fg.function(x, x),
    "constant": fg.constant, "Adam": lambda x: fg.optim.Adam(0.1).init(x),
    "global_norm": fg.optim.global_norm, "numeric": lambda x: fg.numeric.gradient(loss, x),
    "check_grads": lambda x: fg.testing.check_grads(lambda y: 1.0, x),
    "assert_close": lambda x: fg.testing.assert_close(x, [1.0]),
    "two of them": lambda x: fg.testing.assert_close(x, x),
}


def chain_of_gradients():
    t = fg.tensor([1.0, 2.0])
    for _ in range(20000):
        u = fg.tensor([1.0, 2.0])
        u.grad = t
        t = u


def chain_of_recorded_gradients():
    t = fg.tensor(1.0, requires_grad=True)
    for _ in range(20000):
        u = fg.tensor(2.0, requires_grad=True) * 3
        u.retain_grad()
        u.grad = t
        t = u


def chain_of_views():
    t = top = fg.tensor([1.0, 2.0])
    for k in range(3000):
        t = t[:] if k % 3 else t.reshape(2)
    top[0] = 5.0
    assert t.tolist() == [5.0, 2.0]
    t[1] = 7.0
    assert top.tolist() == [5.0, 7.0]


def chain_of_weak_references():
    called = []
    t = fg.tensor(1.0)
    kept = []
    for _ in range(3000):
        u = fg.tensor(1.0)
        u.grad = t
        kept.append(weakref.ref(u, called.append))
        t = u
    del t, u
    assert len(called) == 3000 and all(reference() is None for reference in kept)


CHAINS = [chain_of_gradients, chain_of_recorded_gradients, chain_of_views, chain_of_weak_references]


def endless(transform):
    """A function that calls itself, transformed, without end."""
    def f(*args):
        return transform(f)(*args)
    return f


ENDLESS = {
    "plain": lambda f: lambda x: f(x + 1), "grad": fg.grad, "jacobian": fg.jacobian,
    "hessian": fg.hessian, "compile": fg.compile, "no_grad": lambda f: fg.no_grad()(f),
    "jvp": lambda f: lambda x: fg.jvp(f, (x,), (x,)), "vjp": lambda f: lambda x: fg.vjp(f, x)[0],
    "linearize": lambda f: lambda x: fg.linearize(f, x)[0],
    "vmap": lambda f: lambda x: fg.vmap(lambda y: f(x))(np.ones(3)),
    "scan": lambda f: lambda x: fg.scan(lambda c, y: (f(c), y), x, np.ones(3)),
    "taylor": lambda f: lambda x: fg.taylor(f, x, 1.0, order=1)[0],
    "custom_vjp": lambda f: fg.custom_vjp(f), "explain": lambda f: lambda x: fg.explain(f, x),
}


def run_deep(note, small):
    """Give each taker each container and walk all chains; with a small stack nothing for which
    Python itself needs a larger one."""
    found = []

    def attempt(name, act, *args):
        note(name)
        nodes = core.tape_info()["nodes"]
        error = None
        try:
            act(*args)
        except (SystemError, NameError, AssertionError) as wrong:
            error = repr(wrong)
        except Exception:
            pass
        error = error or damage(nodes)
        if error:
            found.append(f"{name}: {error}")

    for taker, container in itertools.product(TAKERS, CONTAINERS):
        attempt(f"{taker} ({container})", TAKERS[taker], CONTAINERS[container]())
    for chain in CHAINS:
        attempt(chain.__name__, chain)
    if not small:
        for outer, inner in [(name, name) for name in ENDLESS] + [
                (name, "plain") for name in ENDLESS]:
            attempt(f"endless {inner} in {outer}", ENDLESS[outer](endless(ENDLESS[inner])), 1.0)
    return found


# ---- in the other process -------------------------------------------------------------------

class TooLong(BaseException):
    pass


def too_long(*_):
    raise TooLong


def run(names, sample, note):
    """Make the calls; returns what went wrong, as text. `note` is told of each call before it."""
    import signal

    signal.signal(signal.SIGVTALRM, too_long)
    found = []
    for target in targets():
        if target.name not in names:
            continue
        cases = list(calls(target))
        if sample is not None and len(cases) > sample:
            cases = random.Random(f"{sample} {target.name}").sample(cases, sample)
        for what, make in cases:
            note(f"{target.name} ({what})")
            nodes = core.tape_info()["nodes"]
            error = call(target, make, signal) or damage(nodes)
            if error:
                found.append(f"{target.name} ({what}): {error}")
                if "depth" in error:
                    return found        # or all after it would be blamed
    return found


def call(target, make, signal):
    """One call; what is wrong with how it ended."""
    try:
        args, kwargs = make()
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            result = target.call(*args, **kwargs)
            if target.name.endswith("__enter__"):
                result.__exit__(None, None, None)
            if isinstance(result, types.GeneratorType):
                next(result, None)
            if target.name.startswith("fg.") and callable(result):
                result(matrix())
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except (SystemError, NameError) as error:
        return f"{type(error).__name__}: {error}"
    except (Exception, TooLong):
        pass
    return None


def damage(nodes):
    """What of the state is not as before."""
    if core.tape_info()["nodes"] != nodes:
        gc.collect()
        if core.tape_info()["nodes"] != nodes:
            return f"{core.tape_info()['nodes'] - nodes} nodes are left over"
    if core.transforming() or not core.is_recording() or core.nested():
        return "the depth of transformations, or whether it records, is another"
    if fg.grad(lambda x: x * x)(3.0) != 6.0:
        return "grad is wrong"
    t = fg.tensor(3.0, requires_grad=True)
    (t * t).backward()
    return None if t.grad.item() == 6.0 else "backward is wrong"


def worker(job):
    """The other process: a JSON object says which targets, how many calls, where to note them."""
    import resource

    if "asan" not in os.environ.get("LD_PRELOAD", ""):      # which reserves terabytes
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    place = os.open(job["note"], os.O_RDWR | os.O_CREAT)
    os.dup2(place, 200)
    answer = os.dup(1)                  # some calls write to, or close, 0 and 1
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)

    def note(text):
        os.pwrite(200, text.encode(errors="replace").ljust(400)[:400], 0)

    if "stack" in job:
        found = []
        threading.stack_size(job["stack"] << 10)
        thread = threading.Thread(target=lambda: found.extend(run_deep(note, job["stack"] > 0)))
        thread.start()
        thread.join()
    else:
        found = run(set(job["names"]), job["sample"], note)
    os.write(answer, json.dumps(found).encode())
    os._exit(0)


def check(seconds, **job):
    """What went wrong in a job of another process, as text; where it died, the last call."""
    with tempfile.TemporaryDirectory() as folder:
        note = os.path.join(folder, "call")
        job = json.dumps({**job, "note": note})
        try:
            done = subprocess.run([sys.executable, "-X", "faulthandler", __file__, "--job", job],
                                  capture_output=True, cwd=folder, timeout=seconds,
                                  stdin=subprocess.DEVNULL, env={
                                      **os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH":
                                      os.pathsep.join([str(pathlib.Path(fg.__file__).parents[1]),
                                                       os.environ.get("PYTHONPATH", "")])})
        except subprocess.TimeoutExpired:
            last = pathlib.Path(note).read_text().strip()
            return [f"{last}: does not end, or does not hear of Ctrl-C"]
        if done.returncode:
            last = pathlib.Path(note).read_text().strip() if os.path.exists(note) else "the start"
            return [f"{last}: the process died ({done.returncode})\n"
                    + done.stderr.decode(errors="replace")[-1500:]]
        return json.loads(done.stdout)


pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs resource and setitimer")
CHUNKS = 3


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_sample_of_wrong_arguments(chunk):
    names = [target.name for target in targets()][chunk::CHUNKS]
    assert not check(120, names=names, sample=SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(40))
def test_all_wrong_arguments(chunk):
    names = [target.name for target in targets()][chunk::40]
    assert not check(600, names=names, sample=None)


# CPython 3.12 and 3.13 count calls and do not measure the stack. In 256 kilobytes the repr of a
# dict that is 3000 deep ends both, and letting go of a list that is 40000 deep ends 3.13.
SMALL = 1024 if sys.version_info[:2] in ((3, 12), (3, 13)) else 256


@pytest.mark.parametrize("stack", [0, pytest.param(SMALL, marks=pytest.mark.skipif(
    not core.REUSES, reason="a sanitiser needs more stack"))])
def test_containers_without_end_and_chains(stack):
    """Also in a thread with `stack` kilobytes of C stack."""
    assert not check(120, stack=stack)


@pytest.mark.parametrize("module", [core, program])
def test_methods_look_at_self(module):
    """Methods of extension types are CPython's own: Cython's take any object for self."""
    for kind in vars(module).values():
        if isinstance(kind, type) and kind.__module__ == module.__name__:
            for name, method in vars(kind).items():
                assert type(method).__name__ != "cython_function_or_method", f"{kind}.{name}"


def test_unbound_methods_refuse_other_objects():
    with pytest.raises(TypeError, match="descriptor 'numpy' .*'float'"):
        list(map(fg.Tensor.numpy, [fg.tensor(1.0), 2.0]))
    for name, method in vars(fg.Tensor).items():
        if type(method) is types.MethodDescriptorType:
            for own in (3, None, np.ones(2), fg.Tensor):
                with pytest.raises(TypeError, match="descriptor"):
                    method(own)
            if not name.startswith("__"):
                assert next(iter(inspect.signature(method).parameters)) == "self"


@pytest.mark.parametrize("axis", [2**31, 2**63, 2**70, -2**31, -2**63, -2**70])
def test_axes_out_of_bounds(axis):
    for name in ("sum", "prod", "max", "min", "mean", "std", "sort", "flip",
                 "any", "squeeze", "expand_dims"):
        for make in (leaf, matrix):
            with pytest.raises((ValueError, IndexError, OverflowError)):
                getattr(fnp, name)(make(), axis=axis)
    t = leaf()
    for act in (lambda: t.reshape(axis), lambda: t[axis],
                lambda: fnp.broadcast_to(t, (axis, axis, 2, 2)),
                lambda: fnp.transpose(t, (axis, 0)), lambda: fnp.concatenate([t, t], axis),
                lambda: fnp.stack([t, t], axis), lambda: fnp.moveaxis(t, axis, 0),
                lambda: t.reshape(2, axis), lambda: fnp.diff(t, -abs(axis))):
        with pytest.raises((ValueError, IndexError, OverflowError, MemoryError)):
            act()
    assert t[-abs(axis):abs(axis)].shape == (2, 2)
    assert t[abs(axis):].shape == (0, 2)


def test_the_net_holds_what_it_should():
    """Every public module has its share, and a damaged state is noticed."""
    names = [target.name for target in targets()]
    assert len(set(names)) == len(names)
    for prefix in ("fg.", "fnp.", "fnp.linalg.", "fg.special.", "fg.optim.", "fg.testing.",
                   "fg.numeric.", "fg.trees.", "tensor.__add__", "tensor.numpy unbound", "tensor.grad.set"):
        assert any(name.startswith(prefix) for name in names), prefix
    scope = fg.no_grad()
    scope.__enter__()
    try:
        assert damage(core.tape_info()["nodes"])
    finally:
        if not core.is_recording():
            scope.__exit__(None, None, None)
    assert damage(core.tape_info()["nodes"]) is None


if __name__ == "__main__":
    if sys.argv[1] == "--job":
        worker(json.loads(sys.argv[2]))
    everything = [target.name for target in targets()]
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [name for name in everything if part in name]
    for start in range(0, len(chosen), 10):
        sample = None if sys.argv[1] == "all" else SAMPLE
        for line in check(300, names=chosen[start:start + 10], sample=sample):
            print(line, flush=True)
        print("...", start + 10, "of", len(chosen), flush=True)
