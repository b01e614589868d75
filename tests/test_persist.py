"""Graphs and states as bytes: what goes in comes out, and nothing else gets in."""

import collections
import copy
import dataclasses
import json
import multiprocessing
import pickle
import random
import struct
import subprocess
import sys
import types
import zlib

import fuzz_files
import numpy as np
import pytest
from fastgrad._core.core import GuardError
from laws.examples import SHAPED, shaped

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import trees
from fastgrad._core.program import Plan
from fastgrad._operators import OPERATORS
from fastgrad._operators.index import picked
from fastgrad._operators.slots import Slot
from fastgrad.graphs.check import OWN_CALLS, verify
from fastgrad.graphs.graph import OPS, Builder, Graph, Guard, Loop
from fastgrad.graphs.record import record
from fastgrad.graphs.replay import CALLS, replay
from fastgrad.programs import persist

Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass
class Point:
    x: float
    y: float


def recorded(function, *values):
    return record(lambda arguments: [function(*arguments)], list(values)).graph


def wave(x, w):
    y = np.sin(x) * w[0] + w[np.array([2, 0])].sum()
    z = fnp.stack([y, x]) @ w.reshape(3, 1)[:2]
    return fnp.maximum(z, 0.0).sum() + fnp.logsumexp(w[::-1] * x) + w[1:2].sum()


WAVE = 0.3, np.array([1.0, -2.0, 0.5])


def accumulate():
    """A graph that sums the rows of a matrix times a scalar in a loop of three steps."""
    body = Builder()
    total, row, scale = body.input((2,)), body.input((2,)), body.input()
    moved = body.add("add", [total, body.add("multiply", [row, scale], (2,))], (2,))
    outer = Builder()
    start, rows, k = outer.input((2,)), outer.input((3, 2)), outer.input()
    loop = outer.add("custom", [start, rows, k], attribute=Loop(
        "scan", body.graph([moved, moved]), 1, 1, 1, 3))
    return outer.graph([outer.add("result", [loop], (2,), constant=0),
                        outer.add("result", [loop], (3, 2), constant=1)])


def halve():
    """A graph that halves a number until it is below one."""
    condition = Builder()
    x = condition.input()
    large = condition.graph([condition.add("greater", [x, condition.constant(np.float64(1))],
                                           (), bool)])
    body = Builder()
    x = body.input()
    half = body.graph([body.add("multiply", [x, body.constant(np.float64(0.5))])])
    outer = Builder()
    x = outer.input()
    loop = outer.add("custom", [x], attribute=Loop("while", half, 1, 0, 0, condition=large))
    return outer.graph([outer.add("result", [loop], constant=0)])


def called():
    """A graph with calls, indices with slots, masks and guards."""
    b = Builder()
    x = b.input((4,))
    order = b.add("call", [x], (4,), np.int64, ("numpy.argsort", (Slot(0),), (("axis", -1),), None))
    taken = b.add("gather", [x, order], (4,), attribute=(Slot(1),))
    split = b.add("call", [x], (4,), np.float64, ("numpy.divmod", (Slot(0), 0.75), (), 1))
    positive = b.add("greater", [x, b.constant(np.float64(0))], (4,), bool)
    some = b.add("call", [positive], (), bool, ("numpy.any", (Slot(0),), (), None))
    chosen = b.add("where", [taken, split, positive], (4,))
    packed = b.add("concatenate", [b.add("item", [chosen], attribute=(0,)),
                                   b.add("item", [x], attribute=(-1,))], (2,))
    joined = b.add("concatenate", [packed, chosen], (6,), attribute=0)
    put = b.add("assign", [joined, packed], (6,), attribute=(slice(None, None, 3),))
    spread = b.add("scatter", [put], (9,), attribute=(np.arange(6),))
    narrow = b.add("cast", [spread], (9,), np.float32)
    return b.graph([narrow, order], guards=[Guard(some, "bool", True, "model.py:3")])


GRAPHS = {
    "wave": (lambda: recorded(wave, *WAVE), WAVE),
    "loop": (accumulate, (np.ones(2), np.arange(6.0).reshape(3, 2), 2.0)),
    "while": (halve, (np.float64(10.0),)),
    "calls": (called, (np.array([0.5, -1.25, 3.0, 2.5]),)),
}
BOTH = pytest.mark.parametrize("name", GRAPHS)


def same(one, other):
    one, other = replay(*one), replay(*other)
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert type(a) is type(b) and np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


# ---- there and back -------------------------------------------------------------------------

@BOTH
def test_graphs_come_back(name):
    make, values = GRAPHS[name]
    graph = make()
    again = persist.restore(persist.dump(graph))
    assert str(again) == str(graph) and again.guards == graph.guards
    assert again.kinds == graph.kinds and again.lines == graph.lines
    np.testing.assert_array_equal(again.nodes, graph.nodes)
    same((graph, list(values)), (again, list(values)))


@BOTH
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy,
                                    lambda x: pickle.loads(pickle.dumps(x))])
def test_graphs_copy_and_pickle(name, copied):
    make, values = GRAPHS[name]
    graph = make()
    again = copied(graph)
    assert again is not graph and str(again) == str(graph)
    same((graph, list(values)), (again, list(values)))


@shaped
def test_graphs_of_shaped_operators_come_back(name):
    f, x = SHAPED[name]
    for function in (f, fg.grad(lambda x: fnp.sum(fnp.sin(f(x))))):
        recording = record(lambda arguments, function=function: [function(*arguments)], [x])
        graph, values = recording.graph, [x, *recording.captured]
        again = persist.restore(persist.dump(graph))
        assert str(again) == str(graph) and again.kinds == graph.kinds
        (found,), (wanted,) = replay(again, values), replay(graph, values)
        # Products of matrices depend on how their memory lies in the last bits.
        np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)


def test_what_is_assigned_may_have_more_axes_than_its_place():
    def put(x):
        y = fnp.sin(x)
        y[1:] = y[None, :3]
        y[:0] = y[None, None, :1]
        y[2:3] = y[None, :1]
        return y

    graph, values = recorded(put, np.ones(4)), [np.array([0.5, -1.25, 3.0, 2.5])]
    same((graph, values), (persist.restore(persist.dump(graph)), values))


def run_elsewhere(graph, values):
    return replay(graph, list(values))


def test_graphs_go_to_other_processes():
    make, values = GRAPHS["calls"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        answer, = pool.starmap(run_elsewhere, [(make(), values)])
    for a, b in zip(answer, replay(make(), list(values))):
        np.testing.assert_array_equal(a, b)


def test_graphs_go_through_joblib(tmp_path):
    joblib = pytest.importorskip("joblib")
    make, values = GRAPHS["loop"]
    joblib.dump(make(), tmp_path / "graph")
    same((joblib.load(tmp_path / "graph"), list(values)), (make(), list(values)))


def test_values_come_back():
    shared = np.arange(6.0).reshape(2, 3)[:, ::2]
    state = {
        "numbers": (None, True, False, 0, -3, 2**70, 0.1, -0.0, float("inf"), float("-inf")),
        "text": "snow ☃ \ud800 \"quoted\"", "empty": ((), [], {}, ""),
        "index": (slice(None, -1, 2), Ellipsis, Slot(3), [1, (2, [3])]),
        "dtypes": (np.dtype("float32"), np.dtype(bool)),
        "scalars": (np.float32(0.1), np.int8(-3), np.bool_(True)),
        "guard": Guard(3, "count", 7, "f.py:1"), 5: "key", (1, None): 2.5,
        "arrays": [shared, shared, np.zeros((0, 3)), np.array(True), np.array(7, ">i4"),
                   np.arange(5, dtype=np.uint8)],
    }
    again = persist.restore(persist.dump(state))
    arrays, found = state.pop("arrays"), again.pop("arrays")
    for a, b in zip(arrays, found):
        np.testing.assert_array_equal(a, b)
        assert b.dtype == a.dtype.newbyteorder("=") and b.dtype.isnative and not b.flags.writeable
    assert again == state
    assert list(map(type, again["scalars"])) == [np.float32, np.int8, np.bool_]
    assert np.signbit(again["numbers"][7])
    nan, = persist.restore(persist.dump((float("nan"),)))
    assert nan != nan
    graph = halve()
    one, two = persist.restore(persist.dump([graph, graph]))
    assert one is two


TREES = [
    1.0, None, (1.0, [2.0, {"b": 3.0, "a": None, 2: 1.0}]), Pair(1.0, Point(2.0, 3.0)),
    collections.OrderedDict(z=1.0, y=2.0), collections.defaultdict(list, k=(1.0,)),
]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: type(tree).__name__)
def test_structures_come_back(tree):
    leaves, structure = trees.flatten(tree)
    again = persist.restore(persist.dump(structure))
    assert again == structure and trees.unflatten(again, leaves) == tree


def test_classes_to_be_pickled_beside():
    structure = trees.flatten({"p": [Pair(1.0, Point(2.0, 3.0)), Pair(1.0, 2.0)]})[1]
    assert persist.classes({"paths": [(structure,)]}) == (Pair, Point)


def test_classes_are_not_imported(monkeypatch):
    module = types.ModuleType("somebody")
    exec("import collections\nPair = collections.namedtuple('Pair', 'a b')\n"
         "Other = type('Other', (), {})", module.__dict__)
    monkeypatch.setitem(sys.modules, "somebody", module)
    module.Pair.__module__ = "somebody"
    data = persist.dump(trees.flatten(module.Pair(1.0, 2.0))[1])
    assert persist.restore(data).type is module.Pair
    module.Pair = collections.namedtuple("Pair", "a c")
    with pytest.raises(ValueError, match="somebody.Pair, whose fields are others now"):
        persist.restore(data)
    module.Pair = module.Other
    with pytest.raises(ValueError, match="somebody.Pair, which is no class of trees"):
        persist.restore(data)
    del module.Pair
    with pytest.raises(ValueError, match="somebody.Pair, which is no class of trees"):
        persist.restore(data)
    monkeypatch.delitem(sys.modules, "somebody")
    with pytest.raises(ValueError, match="somebody.Pair; import somebody before"):
        persist.restore(data)


@pytest.mark.parametrize("thing, message", [
    (lambda: 0, "the program holds a function, which is no data"),
    ([object()], "holds a object"), (1j, "complex"), (np.array([1j]), "an array of dtype complex"),
    (np.array(["a"]), "dtype <U1"), (np.array([None]), "dtype object"),
    (trees.flatten(collections.defaultdict(Pair, a=1.0))[1], "a defaultdict of"),
])
def test_what_is_no_data_is_refused(thing, message):
    with pytest.raises(TypeError, match=message):
        persist.dump(thing)


def test_local_classes_are_refused():
    Local = collections.namedtuple("Local", "a")
    Local.__qualname__ = "f.<locals>.Local"
    with pytest.raises(TypeError, match="a class made inside a function"):
        persist.dump(trees.flatten(Local(1.0))[1])


def test_rules_in_python_are_refused():
    class Rule:
        def __repr__(self):
            return "my_rule"

    b = Builder()
    x = b.input()
    graph = b.graph([b.add("result", [b.add("custom", [x], attribute=Rule())])])
    with pytest.raises(TypeError, match="calls my_rule, whose derivative rule is Python code"):
        persist.dump(graph)


def test_files(tmp_path):
    path = tmp_path / "p.fgp"
    path.write_bytes(b"old")
    persist.save_state(path, {"graph": halve()})
    assert str(persist.load_state(path)["graph"]) == str(halve())
    assert [p.name for p in tmp_path.iterdir()] == ["p.fgp"]
    with pytest.raises(TypeError):
        persist.save_state(path, lambda: 0)
    assert str(persist.load_state(str(path))["graph"]) == str(halve())
    with pytest.raises(FileNotFoundError):
        persist.save_state(tmp_path / "missing" / "p.fgp", 1)
    data = path.read_bytes()
    for damaged in (b"", data[:20], data[:-1], data + b"\0", b"\0" + data,
                    data.replace(b"\r\n", b"\n")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="p.fgp: no program that can be used: "):
            persist.load_state(path)
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(ValueError, match="p.fgp: .*check sum"):
        persist.load_state(path)


def test_arrays_are_aligned_and_little_endian():
    array = np.arange(3, dtype=np.int16)
    data = persist.dump([np.ones(5), array])
    header, body = parts(data)
    assert header["arrays"] == [["<f8", [5], 0], ["<i2", [3], 64]]
    assert (len(data) - len(body)) % 64 == 0 and body[64:70] == array.astype("<i2").tobytes()
    assert b"pickle" not in data


def test_operators_go_by_name():
    """A file means the same where the operator table has another order."""
    header, body = parts(persist.dump(recorded(wave, *WAVE)))
    graph, = header["graphs"]
    names = graph["operators"]
    assert "sin" in names and all(isinstance(name, str) for name in names)
    order = list(range(len(names)))[::-1]
    graph["operators"] = [names[k] for k in order]
    nodes = node_table(header, body)
    nodes["op"] = np.argsort(order)[nodes["op"]]
    again = persist.restore(together(header, put_nodes(header, body, nodes)))
    same((again, list(WAVE)), (recorded(wave, *WAVE), list(WAVE)))


def calls_of(f, *args):
    """How many functions run, in Python and in C, while f does, and what it returns."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        result = f(*args)
    finally:
        sys.setprofile(before)
    return count, result


def test_large_graphs_are_read_without_a_call_for_each_node():
    def chain(x, length):
        y = x
        for _ in range(length):
            y = np.sin(y) * x + y
        return y

    counts = []
    for length in (20, 20_000):
        data = persist.dump(recorded(lambda x, length=length: chain(x, length), 0.01))
        count, graph = calls_of(persist.restore, data)
        assert len(graph) == 3 * length + 1
        counts.append(count)
    assert counts[1] <= 2 * counts[0], counts


# ---- programs -------------------------------------------------------------------------------

WEIGHTS = np.array([2.0, -1.0, 0.5])


@fg.compile
def model(x, power=2, *, scale=1.0):
    """Reaches an array by name, has a branch, static and keyword arguments."""
    if x.sum() > 0:
        return {"value": fnp.sum(WEIGHTS * x ** power) * scale, "name": "up", "x": Pair(x, power)}
    return {"value": fnp.sum(WEIGHTS * x), "name": "down", "x": Pair(x, power)}


def saved(program, tmp_path):
    program.save(tmp_path / "p.fgp")
    return fg.load(tmp_path / "p.fgp")


def equal(one, other):
    a, b = trees.flatten(one), trees.flatten(other)
    assert a[1] == b[1]
    for x, y in zip(a[0], b[0]):
        assert type(x) is type(y)
        np.testing.assert_array_equal(x, y)


def test_programs_come_back(tmp_path):
    x = np.array([1.0, 2.0, 3.0])
    for arguments in ((x,), (-x,), (x, 3)):
        model(*arguments)
    model(x, scale=0.5)
    again = saved(model, tmp_path)
    assert again.function is None and "model" in repr(again)
    for arguments in ((x + 1,), (-x - 1,), (x + 1, 3)):
        equal(again(*arguments), model(*arguments))
    equal(again(x, scale=0.25), model(x, scale=0.25))
    with pytest.raises((TypeError, ValueError)):
        again(np.ones(4))
    with pytest.raises((TypeError, ValueError)):
        again(x, 4)
    with pytest.raises(GuardError, match="test_persist.py"):
        again(-x, 3)
    value = fg.grad(lambda x: again(x)["value"])(x)
    np.testing.assert_array_equal(value, 2 * WEIGHTS * x)
    twice = saved(again, tmp_path)
    equal(twice(x), model(x))
    for copied in (copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))):
        equal(copied(again)(x), model(x))


def test_what_is_reached_is_frozen(tmp_path):
    weights = np.array([1.0, 2.0])
    program = fg.compile(lambda x: fnp.sum(weights * x))
    x = np.ones(2)
    assert program(x) == 3
    again = saved(program, tmp_path)
    weights[:] = 5
    assert program(x) == 10 and again(x) == 3


def test_transformed_programs_come_back(tmp_path):
    x = np.array([1.0, 2.0, 3.0])
    f = fg.compile(fg.value_and_grad(lambda x: fnp.sum(fnp.sin(x) * WEIGHTS)))
    wanted = f(x)
    equal(saved(f, tmp_path)(x), wanted)


def run_program(program, x):
    return program(x)


def test_programs_go_to_other_processes(tmp_path):
    model(np.ones(3))
    again = saved(model, tmp_path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        equal(pool.starmap(run_program, [(again, np.ones(3))])[0], model(np.ones(3)))


def test_constants_are_saved(tmp_path):
    program = fg.compile(lambda x: x @ np.eye(3)[[2, 0, 1]] + np.linspace(0.0, 1.0, 3))
    wanted = program(np.arange(3.0))
    equal(saved(program, tmp_path)(np.arange(3.0)), wanted)


def test_programs_that_cannot_be_saved(tmp_path):
    with pytest.raises(RuntimeError, match="has no recorded path that holds now; call it once"):
        fg.compile(lambda x: x).save(tmp_path / "p")
    program = fg.compile(lambda x: x * float(x[0]))
    with pytest.warns(UserWarning, match="is not replayed"):
        program(np.ones(3))
    with pytest.raises(RuntimeError, match=r"nothing to save: the value of a Tensor leaves it"):
        program.save(tmp_path / "p")
    program = fg.compile(lambda x, f: f(x))
    program(1.0, np.sin)
    with pytest.raises(TypeError, match="an object among its arguments"):
        program.save(tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_programs_at_random(tmp_path):
    x = np.array([1.0, 2.0, 3.0])
    program = fg.compile(lambda x, n, y=1.0: {"a": fnp.sin(x) * n + WEIGHTS,
                                              "b": (y * 2, "text", n)})
    program(x, 2, y=3.0)
    header, body = parts(persist.dump(persist.program_state(program, "save")))
    draw, path = random.Random(10), tmp_path / "p.fgp"
    loaded = refused = 0
    for _ in range(500):
        path.write_bytes(together(replaced(header, draw), body))
        try:
            found = fg.load(path)
        except ValueError as error:
            assert str(error).startswith(str(path))
            refused += 1
            continue
        loaded += 1
        try:
            found(x, 2, y=3.0)
        except (TypeError, ValueError, GuardError, IndexError):
            pass
    assert refused > 100 and loaded > 3


# ---- damaged and hostile --------------------------------------------------------------------

def parts(data):
    """The header, parsed, and the arrays."""
    length = struct.unpack_from("<Q", data, 16)[0]
    end = 32 + length
    return json.loads(data[32:end]), data[end + -end % 64:]


def together(header, body, text=None):
    """A file with that header: lengths and check sum are right."""
    header = json.dumps(header).encode() if text is None else text
    rest = header + bytes(-(32 + len(header)) % 64) + body
    return struct.pack("<8sIIQQ", persist.MAGIC, persist.FORMAT, zlib.crc32(rest), len(header),
                       32 + len(rest)) + rest


def node_table(header, body):
    entry, = [entry for entry in header["arrays"] if entry[0] == "node"]
    return np.frombuffer(body, persist._FILE_NODE, entry[1][0], entry[2]).copy()


def put_nodes(header, body, nodes):
    entry, = [entry for entry in header["arrays"] if entry[0] == "node"]
    return body[:entry[2]] + nodes.tobytes() + body[entry[2] + nodes.nbytes:]


def too_large(graph):
    """Whether running a graph would take time or memory that a test has not."""
    for shape in graph.shapes:
        if np.prod(shape, dtype=float) > 1e5:
            return True
    for attribute in graph.attrs:
        if isinstance(attribute, Loop) and (attribute.kind == "while" or attribute.length > 1000
                                            or too_large(attribute.body)):
            return True
    return False


def attempt(data, tally):
    """Load; if that works, run. Anything but ValueError is a fault."""
    try:
        graph = persist.restore(data, "the file")
    except ValueError as error:
        assert str(error).startswith("the file: ")
        tally["refused"] += 1
        return
    tally["loaded"] += 1
    if type(graph) is not Graph or too_large(graph) or any(
            type(a) is tuple and a and type(a[0]) is str for a in graph.attrs):
        return
    values = [np.ones(graph.shape(i), graph.dtype(i)) for i in graph.inputs]
    for run in (lambda values: replay(graph, values), Plan(graph).run):
        try:
            with np.errstate(all="ignore"):
                found = run(values)
        except (GuardError, IndexError):    # another path, an index that was computed
            continue
        for i, value in zip(graph.outputs, found if type(found) is list else ()):
            assert np.shape(value) == graph.shape(i), str(graph)
            assert np.asarray(value).dtype == graph.dtype(i), str(graph)
    tally["ran"] += 1


@BOTH
def test_bytes_at_random(name):
    """As damage comes: the check sum finds it, or the lengths do."""
    data = persist.dump(GRAPHS[name][0]())
    draw, tally = random.Random(5), collections.Counter()
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(damaged))
            how = draw.randrange(4)
            if how == 0:
                damaged[at] ^= 1 << draw.randrange(8)
            elif how == 1:
                del damaged[at:at + draw.randrange(1, 40)]
            elif how == 2:
                damaged[at:at] = draw.randbytes(draw.randrange(1, 20))
            else:
                damaged = damaged[:at + 1]
        attempt(bytes(damaged), tally)
    assert tally["refused"] >= 297, tally       # two changes may undo each other


@BOTH
def test_nodes_at_random(name):
    """As an attacker would: numbers in the tables changed, and everything else right."""
    header, body = parts(persist.dump(GRAPHS[name][0]()))
    draw, tally = random.Random(6), collections.Counter()
    starts = [entry[2] for entry in header["arrays"]]
    sizes = [int(np.prod(entry[1])) * (persist._FILE_NODE.itemsize if entry[0] == "node"
                                       else np.dtype(entry[0]).itemsize)
             for entry in header["arrays"]]
    for _ in range(200):
        damaged = bytearray(body)
        for _ in range(draw.randrange(1, 3)):
            which = draw.choice([k for k, size in enumerate(sizes) if size])
            at = starts[which] + draw.randrange(sizes[which])
            damaged[at] = draw.choice((0, 1, 2, 3, 5, 255, 128, damaged[at] ^ 1,
                                       draw.randrange(256)))
        attempt(together(header, bytes(damaged)), tally)
    assert tally["refused"] > 40 and tally["loaded"] > 4, tally


def replaced(value, draw):
    """The header with something in it changed."""
    if isinstance(value, list) and value and draw.random() < 0.85:
        value = list(value)
        at = draw.randrange(len(value))
        how = draw.random()
        if how < 0.1:
            del value[at]
        elif how < 0.2:
            value.insert(at, draw.choice(value))
        else:
            value[at] = replaced(value[at], draw)
        return value
    if isinstance(value, dict) and value and draw.random() < 0.95:
        value = dict(value)
        key = draw.choice(sorted(value))
        if draw.random() < 0.05:
            del value[key]
        else:
            value[key] = replaced(value[key], draw)
        return value
    if type(value) is int and draw.random() < 0.5:
        return value + draw.choice((-1, 1, 2, 2**31, 2**63, -2**40, 0.5))
    if type(value) is str and draw.random() < 0.5:
        return draw.choice(("float64", "float32", "int64", "bool", "add", "sum", "matmul", "item",
                            "float", "scalar", "array", "numpy.argsort", "os.system", "dual",
                            "call"))
    return draw.choice((None, True, 0, -1, 1, 3, 2**62, 1.5, "", "x", [], {}, [0, 1], [[]],
                        {"list": []}, {"array": 0}, {"slot": 0}, {"graph": 0}, {"ellipsis": None},
                        {"float": "nan"}, {"slice": [None, None, 0]}))


@BOTH
def test_headers_at_random(name):
    header, body = parts(persist.dump(GRAPHS[name][0]()))
    draw, tally = random.Random(7), collections.Counter()
    for _ in range(300):
        attempt(together(replaced(header, draw), body), tally)
    assert tally["refused"] > 120 and tally["loaded"] > 1, tally


def test_states_at_random():
    state = {"paths": [(trees.flatten(TREES[3])[1], np.ones(3), np.float32(2), slice(1, 2),
                        trees.flatten(TREES[5])[1], np.dtype("float32"), Guard(1, "int", 3, ""))]}
    header, body = parts(persist.dump(state))
    draw, tally = random.Random(8), collections.Counter()
    for _ in range(600):
        attempt(together(replaced(header, draw), body), tally)
    assert tally["refused"] > 120, tally


def kinds_of_json(value):
    """Values of each type of JSON's, but for the type of this one."""
    made = [None, True, 1, 1.0, "x", [], {}]
    return [x for x in made if type(x) is not type(value)]


def entries(value, path=()):
    """The places in a header."""
    yield path
    if isinstance(value, (list, dict)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from entries(part, (*path, key))


def everything(x, y, flag):
    """A program with something of each kind in its file: guard, loop, call, branches, slices."""
    if x > 0:
        carry, ys = fg.scan(lambda c, r: (c * 0.5 + r, c), x, y)
        return {"a": carry, "b": [ys[::2], fnp.max(y), np.argsort(y)], "c": (flag, None)}
    return x


@pytest.mark.slow
def test_fields_of_every_type_of_json():
    """Whatever stands in a header: of another type it is refused, or it does not matter, and then
    the file is the same again when it is written."""
    program = fg.compile(everything)
    program(1.0, np.arange(3.0), "flag")
    header, body = parts(persist.dump(persist.program_state(program, "save")))
    checked = 0
    for path in entries(header):
        holder = header
        for key in path[:-1]:
            holder = holder[key]
        old = header if not path else holder[path[-1]]
        for new in kinds_of_json(old):
            if path:
                holder[path[-1]] = new
            text = json.dumps(header if path else new).encode()
            try:
                found = persist.restore_program(together(None, body, text))
            except ValueError as error:
                assert "no program that can be used" in str(error)
            else:
                again = parts(persist.dump(persist.program_state(found, "save")))[0]
                for key in path:
                    again = again[key]
                assert type(again) is type(new) and again == new, (path, new)
            checked += 1
        if path:
            holder[path[-1]] = old
    assert checked > 800


def test_headers_nested_too_deep():
    # How deep JSON may go depends on the Python, and on the stack.
    whole = json.dumps({"arrays": [], "graphs": [], "state": "*"}).encode()
    for opening, closing in ((b"[", b"]"), (b'{"list":[', b"]}")):
        for depth in (1000, 100_000):
            text = opening * depth + b"0" + closing * depth
            with pytest.raises(ValueError, match="nested too deep"):
                persist.restore(together(None, b"", whole.replace(b'"*"', text)))
    with pytest.raises(ValueError, match="nested too deep"):
        persist.restore(together({"arrays": [], "graphs": [],
                                   "state": nested(200)}, b""))
    # Before Python's own parser, whose depth depends on its version: no RecursionError is met.
    for field in ("arrays", "graphs"):
        with pytest.raises(ValueError, match="nested too deep"):
            persist.restore(together({"arrays": [], "graphs": [], "state": None,
                                       field: nested(400)}, b""))
    many = "[" * 5000                           # in a string they are nothing
    assert persist.restore(persist.dump({many: many + '"' + many})) == {many: many + '"' + many}
    branch = "*"
    for _ in range(100):
        branch = {"branch": ["tuple", [0], [branch], "None"]}
    with pytest.raises(ValueError, match="nested too deep"):
        persist.restore(together({"arrays": [], "graphs": [],
                                   "state": branch}, b""))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_lengths_that_lie():
    for size in (2**62, 2**40, -1, 1.0, "3"):
        header = {"arrays": [["<f8", [size], 0]], "graphs": [],
                  "state": {"array": 0}}
        with pytest.raises(ValueError):
            persist.restore(together(header, bytes(64)))
    for shape in ([2**32, 2**32], [0, 2**62, 2**62], [2**61], [1] * 65):
        header = {"arrays": [["<f8", shape, 0]], "graphs": [], "state": None}
        with pytest.raises(ValueError):
            persist.restore(together(header, bytes(64)))
    data = bytearray(persist.dump(np.ones(100)))
    data[16:24] = struct.pack("<Q", 2**63)
    with pytest.raises(ValueError, match="header does not end"):
        persist.restore(bytes(data))


@pytest.mark.parametrize("times, depth, message", [
    (2, 10, None), (2, 20, "unfold to"), (1, 20, None), (1, 40, "nested more than 30 deep"),
])
def test_loops_nested_in_a_hostile_way(times, depth, message):
    """Each graph holds the one before several times."""
    b = Builder()
    graph = b.graph([b.input()])
    for _ in range(depth):
        b = Builder()
        x = b.input()
        for _ in range(times):
            loop = b.add("custom", [x], attribute=Loop("scan", graph, 1, 0, 0, 1))
            x = b.add("result", [loop], constant=0)
        graph = b.graph([x])
    data = persist.dump(graph)
    if message is None:
        verify(graph)
        assert replay(persist.restore(data), [np.float64(2.0)]) == [2.0]
        return
    for look in (verify, lambda graph: persist.restore(data)):
        with pytest.raises(ValueError, match=message):
            look(graph)


def test_files_of_before_are_refused():
    data = bytearray(persist.dump(None))
    data[8:12] = struct.pack("<I", 1)
    with pytest.raises(ValueError, match="its format is 1, this version of fastgrad reads 2$"):
        persist.restore(bytes(data))


def test_a_table_of_nodes_is_of_one_graph():
    header, body = parts(persist.dump(recorded(wave, *WAVE)))
    header["graphs"] *= 2
    with pytest.raises(ValueError, match="graph 1: array . holds something else"):
        persist.restore(together(header, body))


def test_paths_of_one_graph_share_a_plan():
    graph = halve()
    state = {"name": "f", "paths": [{
        "arguments": trees.flatten((1.0,))[1], "kinds": ["float"], "keywords": False,
        "graph": graph, "captured": [], "returned": trees.LEAF, "places": [0], "written": []}] * 3}
    one, *others = persist.restore_program(persist.dump(state)).paths
    assert all([path.plan is one.plan for path in others])


def test_booleans_are_zero_or_one():
    header, body = parts(persist.dump(np.array([True, False])))
    with pytest.raises(ValueError, match="more than true and false"):
        persist.restore(together(header, b"\2" + body[1:]))


# ---- the check of graphs --------------------------------------------------------------------

@BOTH
def test_right_graphs_pass(name):
    verify(GRAPHS[name][0]())


def broken(change):
    graph = recorded(wave, *WAVE)
    change(graph)
    return graph


def set_node(column, value, name="sin"):
    def change(graph):
        graph.nodes[column][graph.nodes["op"] == OPS[name]] = value
    return change


def set_attr(name, value):
    def change(graph):
        graph.attrs[graph.nodes["attr"][graph.nodes["op"] == OPS[name]][0]] = value
    return change


@pytest.mark.parametrize("change, message", [
    (set_node("op", 999), "no operator 999"),
    (set_node("op", OPS["dual"]), "no place in a graph"),
    (set_node("dtype", 15), "no dtype 15"),
    (set_node("dtype", np.dtype("f4").num), "has the dtype float64, not float32"),
    (set_node("a", 10**6), "must stand before it"),
    (set_node("a", -1), "0 operands"),
    (set_node("shape", 1), "the rank 0 is not"),
    (set_node("shape", 99), "no shape 99"),
    (set_node("attr", 99), "no attribute 99"),
    (set_node("line", 99), "no such line"),
    (set_node("a", -5, "concatenate"), "beyond the end"),
    (set_node("b", 99, "concatenate"), "beyond the end"),
    (set_attr("sum", (7,)), "not different axes"),
    (set_node("op", OPS["custom"]), "no loop"),
    (set_attr("sum", ()), "does not make the shape"),
    (set_attr("gather", np.array([2, 3])), "out of bounds"),
    (set_attr("gather", np.array([2, 0, 0])), "its shape is"),
    (set_attr("item", (slice(0, 1),)), "selects the shape"),
    (lambda graph: graph.outputs.append(10**6), "2 outputs and 1 kinds"),
    (lambda graph: graph.outputs.__setitem__(0, 10**6), "no node 1000000"),
    (lambda graph: graph.kinds.__setitem__(0, "float64"), "no kind"),
    (lambda graph: graph.inputs.reverse(), "it is not input"),
    (lambda graph: graph.guards.append(Guard(0, "bool", 1, "")), "outcome 1"),
    (lambda graph: graph.guards.append(Guard(-1, "bool", True, "")), "node -1"),
    (lambda graph: graph.shapes.__setitem__(1, (2**62, 2**62)), "larger than any memory"),
    (lambda graph: graph.shapes.__setitem__(1, (-3,)), "negative length"),
])
def test_wrong_graphs_do_not(change, message):
    with pytest.raises(ValueError, match=message):
        verify(broken(change))


def test_unknown_flags_in_a_file():
    with pytest.raises(ValueError, match="unknown flags"):
        persist.restore(persist.dump(broken(set_node("flags", 64))))


@pytest.mark.parametrize("loop, message", [
    (dict(length=4), "a sequence of shape"), (dict(length=None), "length"),
    (dict(length=2**63), "length"), (dict(carries=2), "three kinds"),
    (dict(carries=0, sequences=2), "."),
    (dict(kind="until"), "no loop of the kind"), (dict(reverse=1), "direction"),
    (dict(body=None), "no graph"), (dict(kind="while"), "no loop of the kind"),
    (dict(condition=halve()), "no loop of the kind"), (dict(body=halve()), "its body has 1 inputs"),
])
def test_wrong_loops_do_not(loop, message):
    graph = accumulate()
    graph.attrs[1] = graph.attrs[1]._replace(**loop)
    with pytest.raises(ValueError, match=message):
        verify(graph)


def test_calls_go_by_a_list():
    graph = called()
    graph.attrs[1] = ("os.system", ("true",), (), None)
    with pytest.raises(ValueError, match="there is no function 'os.system'"):
        persist.restore(persist.dump(graph))


def test_shapes_of_indices_are_numpys():
    """Every index that NumPy takes has NumPy's shape, and none that it does not passes."""
    draw = random.Random(9)
    array = np.empty((3, 1, 4, 2), np.int8)
    seen = 0
    for _ in range(4000):
        items = []
        for _ in range(draw.randrange(5)):
            items.append(draw.choice([
                0, -1, 2, 3, None, Ellipsis, slice(None), slice(1, None), slice(None, None, -2),
                np.array([0, 1]), np.array([[0], [1], [0]]), np.array(0), [1, 0], [],
                np.array([True, False, True]), np.array([[True], [False], [True]]),
                np.array([2, 0])]))
        index = tuple(items)
        try:
            wanted = array[index].shape
        except IndexError:
            wanted = None
        try:
            found = picked(index, array.shape, []).shape
        except (ValueError, TypeError):
            found = None
        if wanted is not None and found is None and 0 in wanted:
            continue                        # NumPy looks at no index where nothing is taken
        assert found == wanted, index
        seen += wanted is not None
    assert seen > 500


# ---- functions of ours ----------------------------------------------------------------------

def call_of(name, args, dtypes=(np.float64,), shape=(2, 3), result=np.float64, kept=None):
    b = Builder()
    x = [b.input(shape, dtype) for dtype in dtypes]
    return b.graph([b.add("call", x, shape if kept is None else kept, result,
                          (name, args, (), None))])


OF_MAX = "fastgrad.weights_max"
LANES = ("numpy.sort", (("operand of a lane", 0),), (), None, (True,), 2)


@pytest.mark.parametrize("graph, message", [
    (lambda: call_of(OF_MAX, (Slot(0), "max", (0,)), (np.int64,), result=np.int64), "is int64"),
    (lambda: call_of(OF_MAX, (Slot(0), "max", (0,)), (bool,), result=bool), "is bool"),
    (lambda: call_of(OF_MAX, (Slot(0), "max", (0,)), (np.float32,)), "is float32"),
    (lambda: call_of(OF_MAX, (Slot(0), "max", (2,))), "not different axes"),
    (lambda: call_of(OF_MAX, (Slot(0), "max", (0, 0))), "not different axes"),
    (lambda: call_of(OF_MAX, (Slot(0), "max", 0)), "no ints"),
    (lambda: call_of(OF_MAX, (Slot(0), "min", (0,))), "a name and axes"),
    (lambda: call_of(OF_MAX, (Slot(0), "max")), "no ints"),
    (lambda: call_of(OF_MAX, ()), "another way"),
    (lambda: call_of(OF_MAX, (None, "max", (0,))), "is None"),
    (lambda: call_of(OF_MAX, (Slot(0), "max", (0,)), kept=(3,)), "its shape"),
    (lambda: call_of(OF_MAX, (Slot(0), "max", (0,)), shape=(0, 3), kept=(0, 3)), "no entries"),
    (lambda: call_of("fastgrad.all_finite", (Slot(0),), kept=()), "not bool"),
    (lambda: call_of("fastgrad.all_finite", (Slot(0),), (np.int64,), (), bool), "is int64"),
    (lambda: call_of("fastgrad.lanes", (LANES[:5], Slot(0))), "nothing for each lane"),
    (lambda: call_of("fastgrad.lanes", (("os.system", *LANES[1:]), Slot(0))), "no function"),
    (lambda: call_of("fastgrad.lanes", ((*LANES[:5], 2**40), Slot(0))), "lanes"),
    (lambda: call_of("fastgrad.lanes", ((*LANES[:4], (1,), 2), Slot(0))), "which operands"),
    (lambda: call_of("fastgrad.lanes", ((*LANES[:1], (("operand of a lane", 1),), *LANES[2:]),
                                        Slot(0))), "no operand 1"),
    (lambda: call_of("fastgrad.lanes", (LANES, Slot(0), Slot(0))), "in order"),
])
def test_our_own_functions_are_called_as_they_are_to_be(graph, message):
    with pytest.raises(ValueError, match=f"the file: .*{message}"):
        persist.restore(persist.dump(graph()), "the file")


def test_every_function_of_ours_is_checked():
    assert set(OWN_CALLS) | set(OPERATORS) == {
        name for name in CALLS if not name.startswith("numpy.")}
    for graph in (call_of(OF_MAX, (Slot(0), "max", (0,))),
                  call_of("fastgrad.lanes", (LANES, Slot(0)))):
        found, = replay(persist.restore(persist.dump(graph)), [np.arange(6.0).reshape(2, 3)])
        assert found.shape == (2, 3)


def test_programs_with_lanes_come_back_in_a_new_process(tmp_path):
    program = fg.compile(fg.vmap(lambda x, y: y[np.searchsorted(x, y)].sum() + x[0]))
    x = np.arange(6.0).reshape(2, 3)
    wanted = program(x, x - 1)
    assert "fastgrad.lanes" in str(program.paths[0].graph)
    program.save(tmp_path / "lanes.fgp")
    code = (f"import numpy as np, fastgrad as fg; f = fg.load({str(tmp_path / 'lanes.fgp')!r})\n"
            "x = np.arange(6.0).reshape(2, 3); print(f(x, x - 1).tolist())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(wanted.tolist()), done.stderr


def test_plans_that_no_memory_holds():
    b = Builder()
    x = b.input()
    wide = [b.add("exp", [b.add("broadcast", [x], (2**46,))], (2**46,)) for _ in range(2)]
    graph = b.graph([b.add("sum", [b.add("multiply", wide, (2**46,))], attribute=(0,)), wide[0]])
    state = {"name": "f", "paths": [{
        "arguments": trees.flatten((1.0,))[1], "kinds": [("scalar", np.dtype(float))],
        "keywords": False, "graph": graph, "captured": [], "returned": trees.LEAF, "places": [0],
        "written": []}]}
    try:
        found = persist.restore_program(persist.dump(state))
    except ValueError:
        return
    with pytest.raises(MemoryError):
        found(np.float64(1.0))


# ---- changed at random, in processes that may die -------------------------------------------

def test_programs_changed_at_random():
    """More by hand: see fuzz_files.py."""
    tally, faults = fuzz_files.batch(0, 200)
    assert not faults, faults
    assert tally["refused"] > 100 and tally["used"] > 14, tally


@pytest.mark.slow
def test_more_programs_changed_at_random():
    for start in range(1000, 3000, fuzz_files.BATCH):
        tally, faults = fuzz_files.batch(start, start + fuzz_files.BATCH)
        assert not faults, faults
