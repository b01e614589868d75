"""Files of programs, changed at random: each is refused with a ValueError, or does all that a
program does.

    python tests/fuzz_files.py 0 100000         so many seeds from 0 on, in processes that may die
    python tests/fuzz_files.py 1234             one seed, in this process, saying what it does

What is changed is the file as it is written: an entry of a table, a field of a node, the operands
of a node or what is in their place, a dtype, a shape, an attribute, a name, anything by anything of
another type, bytes of arrays; lengths and check sum are right after it (or not, where single bytes
are changed). tests/test_persist.py runs some seeds.
"""

import copy
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import trees
from fastgrad.graphs.graph import NAMES, Loop
from fastgrad.graphs.replay import CALLS
from fastgrad.programs import persist

BATCH = 400                 # seeds of one process
SECONDS = 300               # it may take

# What somebody who calls a program may have to catch (GuardError is a RuntimeError of ours,
# NoDerivativeError a TypeError): of NumPy's functions that a file names with what they do not take,
# too.
ALLOWED = ValueError, TypeError, IndexError, fg.GuardError, MemoryError, OverflowError, \
    ZeroDivisionError


# ---- what is changed ------------------------------------------------------------------------

def _wave(x, w):
    y = np.sin(x) * w[0] + w[[2, 0]].sum()
    z = fnp.stack([y, x]) @ w.reshape(3, 1)[:2]
    return fnp.maximum(z, 0.0).sum() + fnp.logsumexp(w[::-1] * x) + w[1:2].sum()


def _indices(x):
    y = fnp.zeros(4)
    y[::2] = x[1:3]
    order = np.argsort(x)
    mask = x > 0
    s = x[order]
    y = y + x[[1, 1, 3, 0]]
    return (s * y, fnp.where(mask, x, -x).T, fnp.concatenate([y, x[mask]]),
            {"flag": bool(mask[0]), "n": np.argmax(x)})


def _matrices(a, b):
    c = fnp.transpose(a @ b) + fnp.flip(b, 0)[:, :2].sum(axis=0, keepdims=True)[:, :1]
    return fnp.max(c, axis=0), fnp.prod(c, axis=1), c.astype(np.float32), fnp.argsort(c, axis=1)


def _scanned(x, rows):
    carry, ys = fg.scan(lambda c, y: (c * 0.5 + fnp.sum(y), c), x, rows)
    return carry, ys


def _halved(x):
    return fg.while_loop(lambda c: c > 1.0, lambda c: c * 0.5, x)


def _extremes(x):
    return fnp.sum(fnp.max(x, axis=1) ** 2) + fnp.sum(fnp.logsumexp(x, axis=0)) + fnp.min(x)


def _weak(x, y):
    return (x * y + 1 if x > 0 else x - y, fnp.float32(2) * fnp.float32(1.5)) if y > 0 else (x, y)


def corpus():
    """(name, bytes) of programs."""
    x, w = 0.3, np.array([1.0, -2.0, 0.5])
    m = np.arange(6.0).reshape(2, 3) - 2
    made = {
        "wave": (_wave, [(x, w)]), "grad of wave": (fg.grad(_wave, argnums=(0, 1)), [(x, w)]),
        "indices": (_indices, [(np.array([0.5, -1.25, 3.0, 2.5]),)]),
        "matrices": (_matrices, [(m, m.T @ m)]),
        "scan": (_scanned, [(1.0, m)]), "grad of scan": (
            fg.grad(lambda r: _scanned(1.0, r)[0] ** 2), [(m,)]),
        "while": (_halved, [(9.0,)]),
        "hessian": (fg.hessian(_extremes), [(m,)]),
        "grad of extremes": (fg.grad(_extremes), [(m,), (m.astype(np.float32),)]),
        "weak": (_weak, [(1.0, 2.0), (-1.0, 2.0), (1.0, -2.0)]),
        "vmap": (fg.vmap(lambda x, w: fnp.sum(fnp.sin(x) * w[::-1]) * fnp.max(w),
                         in_axes=(0, None)), [(np.arange(3.0), w)]),
    }
    for name, (f, calls) in made.items():
        program = fg.compile(f)
        for call in calls:
            program(*call)
        assert len(program.paths) == len(calls), program
        yield name, persist.dump(persist.program_state(program, "save"))


def taken_apart(data):
    """The header, parsed, and the arrays that it tells of."""
    length = struct.unpack_from("<Q", data, 16)[0]
    end = 32 + length
    header, body = json.loads(data[32:end]), data[end + -end % 64:]
    arrays = []
    for name, shape, start in header["arrays"]:
        dtype = persist._FILE_NODE if name == "node" else np.dtype(name)
        arrays.append(np.frombuffer(body, dtype, int(np.prod(shape)), start).reshape(shape).copy())
    return header, arrays


def put_together(header, arrays, table=None):
    """A file of them; `table`: what it says of the arrays, right by default."""
    body, right = b"", []
    for array in arrays:
        body += bytes(-len(body) % 64)
        right.append(["node" if array.dtype == persist._FILE_NODE else array.dtype.str,
                      list(array.shape), len(body)])
        body += array.tobytes()
    header = {**header, "arrays": right if table is None else table}
    text = json.dumps(header).encode()
    rest = text + bytes(-(32 + len(text)) % 64) + body
    return struct.pack("<8sIIQQ", persist.MAGIC, persist.FORMAT, zlib.crc32(rest), len(text),
                       32 + len(rest)) + rest


# ---- changes --------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, -1, -2, 7, 63, 64, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63,
           -2**31, -2**63, 2**100)
THINGS = (None, True, False, 0, 1, -1, 2**63, 1.5, 0.0, "", "x", "float64", [], {}, [0], [0, 1],
          [[]], {"list": []}, {"list": [0, 1]}, {"array": 0}, {"array": 1}, {"scalar": 1},
          {"slot": 0}, {"slot": 1}, {"graph": 0}, {"ellipsis": None}, {"float": "nan"},
          {"float": "inf"}, {"slice": [None, None, 0]}, {"slice": [None, None, None]},
          {"slice": [0, 1, 1]}, {"slice": [None, None, -1]}, {"dtype": "float32"},
          {"dtype": "int64"}, {"dict": []}, {"guard": [0, "bool", True, ""]},
          {"branch": ["tuple", [], [], "None"]}, "*")


def places(value, found, path=()):
    """Every place in a header."""
    found.append(path)
    if isinstance(value, (list, dict)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            places(part, found, (*path, key))
    return found


def at(value, path):
    for key in path:
        value = value[key]
    return value


def header_changed(header, arrays, draw):
    """Anything in the header."""
    where = draw.choice(places({k: v for k, v in header.items() if k != "arrays"}, [])[1:])
    *path, last = where
    holder, old = at(header, path), at(header, where)
    how = draw.random()
    if how < 0.1:
        del holder[last]
    elif how < 0.2 and isinstance(holder, list):
        holder.insert(last, copy.deepcopy(draw.choice(holder)))
    elif how < 0.35:
        other = draw.choice(places(header, []))
        holder[last] = copy.deepcopy(at(header, other))
    elif type(old) is int and how < 0.7:
        holder[last] = draw.choice(NUMBERS) if how < 0.55 else old + draw.choice((-1, 1, 2))
    elif type(old) is str and how < 0.85:
        holder[last] = draw.choice((draw.choice([n for n in NAMES if n]),
                                    draw.choice(sorted(CALLS)),
                                    draw.choice(sorted(persist._DTYPES)), "float", "scalar",
                                    "array", "bool", "int", "count", "scan", "while", old + "x"))
    else:
        holder[last] = copy.deepcopy(draw.choice(THINGS))


def node_changed(header, arrays, draw):
    """A field of a node, or two nodes of a table."""
    nodes = draw.choice([a for a in arrays if a.dtype == persist._FILE_NODE])
    if not len(nodes):
        return
    i, j = draw.randrange(len(nodes)), draw.randrange(len(nodes))
    how = draw.random()
    if how < 0.1:
        nodes[[i, j]] = nodes[[j, i]]
    elif how < 0.2:
        nodes[i] = nodes[j]
    elif how < 0.3:
        nodes["a"][i], nodes["b"][i] = nodes["b"][i], nodes["a"][i]
    else:
        column = draw.choice(nodes.dtype.names)
        if draw.random() < 0.5:
            nodes[column][i] = nodes[column][j]
        elif column == "constant":
            nodes[column][i] = draw.choice((0, 1, -1, 0.5, 1e300, np.nan, np.inf, 2, 3))
        else:
            info = np.iinfo(nodes[column].dtype)
            value = draw.choice(NUMBERS[:12] if draw.random() < 0.8 else NUMBERS)
            nodes[column][i] = min(max(value, info.min), info.max)


def array_changed(header, arrays, draw):
    """An array of numbers: an entry, its dtype, its shape."""
    numbers = [k for k, a in enumerate(arrays) if a.dtype != persist._FILE_NODE]
    if not numbers:
        return
    k = draw.choice(numbers)
    array, how = arrays[k], draw.random()
    if how < 0.3 and array.size:
        value = draw.choice((0, 1, -1, 2, 3, 100, 2**31 - 1, -2**31))
        with np.errstate(all="ignore"):
            array.reshape(-1)[draw.randrange(array.size)] = np.array(value).astype(array.dtype)
    elif how < 0.6:
        with np.errstate(all="ignore"):
            arrays[k] = array.astype(draw.choice(sorted(persist._DTYPES)))
    elif how < 0.7:
        arrays[k] = array.view("u1").reshape(-1) if array.ndim else array.reshape(1)
    elif how < 0.8:
        arrays[k] = array.reshape(draw.choice(([-1], [-1, 1], [1, *array.shape])))
    elif how < 0.9:
        arrays[k] = array.reshape(-1)[:draw.randrange(array.size + 1)]
    else:
        other = draw.choice(numbers)
        arrays[k], arrays[other] = arrays[other], arrays[k]


def dtype_changed(header, arrays, draw):
    """All nodes of one dtype, with the dtypes of arguments and arrays, or of one graph only."""
    graph = draw.choice(header["graphs"])
    if graph["dtypes"]:
        k = draw.randrange(len(graph["dtypes"]))
        old, new = graph["dtypes"][k], draw.choice(sorted(persist._DTYPES))
        graph["dtypes"][k] = new
        if draw.random() < 0.7:
            for where in places(header["state"], []):
                if where and where[-1] == "dtype" and at(header["state"], where) == old:
                    at(header["state"], where[:-1])["dtype"] = new
        if draw.random() < 0.5:
            for k, array in enumerate(arrays):
                if array.dtype == old:
                    with np.errstate(all="ignore"):
                        arrays[k] = array.astype(new)


def operator_changed(header, arrays, draw):
    """All nodes of one operator, or the function that a call names."""
    graph = draw.choice(header["graphs"])
    calls = [a for a in graph["attrs"] if type(a) is list and a and type(a[0]) is str]
    if calls and draw.random() < 0.6:
        call = draw.choice(calls)
        how = draw.random()
        if how < 0.4:
            call[0] = draw.choice(sorted(CALLS))
        elif how < 0.6:
            call[0] = "fastgrad." + draw.choice(("weights_max", "weights_min", "weights_logsumexp",
                                                 "all_finite"))
        elif call[1] and how < 0.9:
            call[1][draw.randrange(len(call[1]))] = copy.deepcopy(draw.choice(THINGS))
        else:
            call[3] = draw.choice((None, 0, 1, 7, -1))
    elif graph["operators"]:
        graph["operators"][draw.randrange(len(graph["operators"]))] = draw.choice(
            [n for n in NAMES if n])


def shape_changed(header, arrays, draw):
    graph = draw.choice(header["graphs"])
    shape = draw.choice(graph["shapes"])
    how = draw.random()
    if shape and how < 0.6:
        shape[draw.randrange(len(shape))] = draw.choice((0, 1, 2, 3, 4, 5, 6, 2**20, 2**40, 2**61))
    elif how < 0.8:
        shape.append(draw.choice((0, 1, 1, 2)))
    elif shape:
        draw.shuffle(shape)


CHANGES = (header_changed, header_changed, node_changed, node_changed, array_changed, dtype_changed,
           operator_changed, shape_changed)


def changed(data, draw):
    """The bytes with something changed."""
    how = draw.random()
    if how < 0.04:                                  # single bytes: found by the check sum
        damaged = bytearray(data)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        return bytes(damaged)
    header, arrays = taken_apart(data)
    table = None
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        try:
            draw.choice(CHANGES)(header, arrays, draw)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            continue                                # the change before has taken its place away
    if how < 0.1:
        table = taken_apart(data)[0]["arrays"]
        entry = draw.choice(table)
        entry[draw.randrange(3)] = copy.deepcopy(draw.choice((*THINGS, *NUMBERS, [2**62, 2**62])))
    return put_together(header, arrays, table)


# ---- what a program does --------------------------------------------------------------------

def too_large(graph):
    """Whether running a graph may take time or memory that there is not."""
    if any(np.prod(shape, dtype=float) > 1e5 for shape in graph.shapes) or len(graph) > 2000:
        return True
    for attribute in graph.attrs:
        if isinstance(attribute, Loop) and (attribute.kind == "while" or attribute.length > 200
                                            or too_large(attribute.body)):
            return True
        # Lengths and shapes of what NumPy is to make.
        if type(attribute) is tuple and attribute and type(attribute[0]) is str and any(
                type(x) in (int, float) and abs(x) > 1e5 for x in _numbers(attribute[1:])):
            return True
    return False


def _numbers(x):
    if isinstance(x, (tuple, list)):
        return [n for part in x for n in _numbers(part)]
    return x.reshape(-1).tolist() if isinstance(x, np.ndarray) else [x]


def argument(kind, draw):
    """A value of the kind that a program takes."""
    if kind == "float":
        return draw.choice((0.5, 1.0, -1.5))
    if type(kind) is tuple and type(kind[0]) is type:
        return kind[1] if kind[1] != "nan" else float("nan")
    if type(kind) is tuple and type(kind[0]) is not str:
        return trees.unflatten(kind[0], [argument(part, draw) for part in kind[1]])
    char, shape = kind if type(kind) is tuple else (kind, None)
    with np.errstate(all="ignore"):
        array = np.reshape([draw.choice((0.5, 1.0, -1.5, 2.0)) for _ in range(
            int(np.prod(shape or ())))], shape or ()).astype(char)
    return array if shape is not None else array[()]


def tried(what, f, *args):
    """What f returns; None after an exception that is allowed."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return f(*args)
    except ALLOWED as error:
        if VERBOSE:
            print(f"{what}: {type(error).__name__}: {error}")
    except Exception as error:
        error.add_note(f"while: {what}") if hasattr(error, "add_note") else None
        raise


def used(program, key, draw):
    """Everything that is done with programs, for the arguments of one signature."""
    leaves = [argument(kind, draw) for kind in key[1]]
    args = trees.unflatten(key[0], leaves)
    args, kwargs = args if key[2] else (args, {})
    tried("call", lambda: program(*args, **kwargs))
    tried("call again", lambda: program(*args, **kwargs))
    if kwargs:
        return

    def floats(*args):
        found = [y for y in trees.flatten(program(*args))[0]
                 if getattr(y, "dtype", np.float64) in (np.float64, np.float32)
                 and isinstance(y, (float, np.generic, np.ndarray, fg.Tensor))]
        return sum([fnp.sum(y) for y in found], 0.0)

    for k, x in enumerate(args):
        if type(x) is not float and not (isinstance(x, (np.ndarray, np.generic))
                                         and x.dtype.kind == "f"):
            continue
        tried(f"grad {k}", fg.grad(floats, argnums=k), *args)
        alone = lambda x, k=k: floats(*args[:k], x, *args[k + 1:])
        tried(f"jvp {k}", fg.jvp, alone, (x,), (x,))
        tried(f"jacobian {k}", fg.jacobian(alone), x)
        tried(f"vmap {k}", fg.vmap(alone), np.stack([x, x]) if np.ndim(x) else np.array([x, x]))
        tried(f"vmap of grad {k}", fg.vmap(fg.grad(alone)),
              np.stack([x, x]) if np.ndim(x) else np.array([x, x]))
    tried("hessian", fg.hessian(floats), *args)
    tried("compile of grad", fg.compile(fg.grad(floats)), *args)


def attempt(data, draw, tally):
    try:
        program = persist.restore_program(data)
    except ValueError as error:
        assert "no program that can be used" in str(error), error
        if VERBOSE:
            print("refused:", error)
        tally["refused"] = tally.get("refused", 0) + 1
        return
    tally["loaded"] = tally.get("loaded", 0) + 1
    str(program), repr(program)
    again = persist.dump(persist.program_state(program, "save"))
    second = persist.restore_program(again)
    assert str(second) == str(program)
    if VERBOSE:
        print(program)
        for path in program.paths:
            print(path.graph)
    if any(too_large(path.graph) for path in program.paths):
        return
    tally["used"] = tally.get("used", 0) + 1
    for key in program._signatures:
        used(program, key, draw)


VERBOSE = False


def one(seed, items, tally):
    draw = random.Random(seed)
    name, data = items[seed % len(items)]
    attempt(changed(data, draw), draw, tally)


def child(start, stop, log):
    """The seeds from start to stop; the log has the one that is being looked at last."""
    import faulthandler
    import resource

    faulthandler.enable(open(log + ".fault", "w"))
    if hasattr(resource, "RLIMIT_AS") and "asan" not in os.environ.get("LD_PRELOAD", ""):
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    items, tally = list(corpus()), {}
    with open(log, "w") as file:
        for seed in range(start, stop):
            file.write(f"{seed}\n")
            file.flush()
            try:
                one(seed, items, tally)
            except BaseException:
                print(f"seed {seed}, {items[seed % len(items)][0]}:\n{traceback.format_exc()}")
                tally["faults"] = tally.get("faults", 0) + 1
    print(json.dumps(tally))


def batch(start, stop):
    """Run seeds in a process of their own. Returns a tally and the faults, as text."""
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        command = [sys.executable, __file__, "--child", str(start), str(stop), log]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as expired:
            code, out, err = "a timeout", str(expired.stdout or ""), ""
        if code == 0:
            *faults, tally = out.rstrip("\n").split("\n")
            return json.loads(tally), "\n".join(faults)
        seeds = open(log).read().split() if os.path.exists(log) else []
        fault = open(log + ".fault").read() if os.path.exists(log + ".fault") else ""
        died = int(seeds[-1]) if seeds else start
        text = f"seed {died}: the process ended with {code}\n{out}\n{fault}\n{err}"
    if not seeds:
        return {}, text
    tally, rest = batch(died + 1, stop) if died + 1 < stop else ({}, "")
    return {**tally, "died": tally.get("died", 0) + 1}, text + rest


def main(start, stop):
    total, began = {}, time.monotonic()
    for first in range(start, stop, BATCH):
        tally, faults = batch(first, min(first + BATCH, stop))
        if faults:
            print(faults, flush=True)
        for name, count in tally.items():
            total[name] = total.get(name, 0) + count
    print(total, f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    elif len(sys.argv) == 2:
        VERBOSE = True
        one(int(sys.argv[1]), list(corpus()), {})
    else:
        main(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2]))
