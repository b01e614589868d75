"""Programs and their kin that several Python threads use at once."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core, program
from fastgrad.code import known
from fastgrad.programs import compile as _compile
from fastgrad.programs import signature

THREADS = 4


@pytest.fixture(autouse=True)
def switching_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*uses):
    """Run the functions, each in a thread of its own, from one moment on; raise what one raises."""
    start, failures = threading.Barrier(len(uses)), []

    def run(use):
        try:
            start.wait()
            use()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(use,), daemon=True) for use in uses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread never ends"
    if failures:
        raise failures[0]


def each(use):
    """The same function in all threads, which gets the number of its thread."""
    together(*[lambda k=k: use(k) for k in range(THREADS)])


# ---- signatures and paths -------------------------------------------------------------------

def test_new_shapes():
    f = fg.compile(lambda x: fnp.sum(x * x) + x[0])

    def use(k):
        for n in range(1, 30):
            for m in (n, 31 - n):
                assert f(np.full(m, 2.0)) == 4.0 * m + 2

    each(use)
    # Of the same shape one recording is kept, however many threads have made one.
    assert len(f.paths) == 30 and all(path.left is None for path in f.paths)


def test_more_shapes_than_are_kept(monkeypatch):
    monkeypatch.setattr(_compile, "SIGNATURES", 6)
    f = fg.compile(lambda x: fnp.sum(x))

    def use(k):
        for n in range(1, 25):
            assert f(np.ones(n + k)) == n + k

    with pytest.warns(UserWarning, match="more than 6"):
        each(use)
    assert len(f.paths) <= 6


@pytest.mark.filterwarnings("ignore:.*not replayed")
def test_new_paths():
    """Guards that fail, paths that move to the front and paths that leave."""
    f = fg.compile(lambda x: x * int(np.floor(x)), paths=3)

    def use(k):
        for n in range(40):
            whole = (n * (k + 1)) % 5
            assert f(whole + 0.5) == (whole + 0.5) * whole

    each(use)                                   # it may be found to miss too often
    assert len([path for path in f.paths if path.left is None]) <= 3


def test_every_call_is_counted():
    f = fg.compile(lambda x: x * 2 if x > 0 else -x)
    f(1.0), f(-1.0)

    def use(k):
        for n in range(300):
            f(1.0 if (n + k) % 3 else -1.0)

    each(use)
    assert sum(path.calls for path in f.paths) == 2 + 300 * THREADS and len(f.paths) == 2


def test_captured_arrays_and_floats_that_change():
    """What is compared is replaced while other threads compare."""
    weights, other = np.arange(3.0), np.arange(3.0) + 1
    space = {"w": weights, "fnp": fnp, "c": 1.0}
    exec("def g(x):\n    return fnp.sum(w * x) + c", space)
    f = fg.compile(space["g"])
    x = np.ones(3)
    stop = threading.Event()

    def change():
        for k in range(200):
            space["w"] = other if k % 2 else weights
            space["c"] = float(k % 4)
        stop.set()

    def use():
        while not stop.is_set():
            assert f(x) in {s + c for s in (3.0, 6.0) for c in range(4)}

    together(change, use, use)
    for space["w"], total in ((weights, 3.0), (other, 6.0)):
        for space["c"] in (0.5, 7.0):
            assert f(x) == total + space["c"]


def test_contents_that_are_compared():
    """A table that is used by value: when it is not changed any more, nobody has an old result."""
    table = np.array([1, 2, 3])
    f = fg.compile(lambda x: x * int(table[1]) + len(np.unique(table)))

    def change():
        for k in range(60):
            table[1] = k % 3 + 10

    def use():
        for k in range(60):
            f(2.0)

    together(change, use, use)
    for k in range(4):
        table[1] = k + 20
        assert f(2.0) == 2.0 * (k + 20) + 3


def test_a_function_that_waits_for_a_call_of_itself_in_another_thread():
    """No lock is held while the function runs."""
    answers = []

    @fg.compile
    def f(x, inner):
        if inner:
            thread = threading.Thread(target=lambda: answers.append(f(2.0, False)), daemon=True)
            thread.start()
            thread.join(30)
            assert not thread.is_alive()
        return x * 3

    assert f(1.0, True) == 3.0 and answers == [6.0]


def test_keys_that_call_the_program():
    """Nor while arguments are compared or hashed."""
    class Key:
        def __hash__(self):
            f(2.0, 0)
            return 1

        def __eq__(self, other):
            f(3.0, 0)
            return type(other) is Key

    f = fg.compile(lambda x, key: x * 3)
    each(lambda k: [f(float(n), Key()) for n in range(10)])


@pytest.fixture
def barriers_are_known(monkeypatch):
    """Functions that wait at one are replayed: their threads are to record at the same time."""
    monkeypatch.setitem(known._KINDS, threading.Barrier, known.Kind("value"))


def test_one_recording_is_kept_of_those_made_at_once(barriers_are_known):
    """All threads are inside of the function before any of them has recorded it."""
    inside = threading.Barrier(THREADS, timeout=30)

    @fg.compile
    def f(x):
        inside.wait()
        return x * 2

    each(lambda k: f(1.0 + k) == 2.0 + 2 * k or pytest.fail("a wrong result"))
    path, = f.paths
    assert path.calls == 1
    inside.abort()
    assert f(5.0) == 10.0


def test_many_threads_that_record_at_once_are_no_misses(barriers_are_known):
    n = _compile.MISSES + 4
    inside = threading.Barrier(n, timeout=30)

    @fg.compile
    def f(x):
        inside.wait()
        return x * 2

    together(*[lambda: f(1.0)] * n)             # no warning: it is replayed
    inside.abort()
    assert f(5.0) == 10.0 and len(f.paths) == 1


def test_warned_once():
    f = fg.compile(lambda x: x * np.random.rand())
    with pytest.warns(UserWarning) as caught:
        each(lambda k: [f(1.0) for _ in range(5)])
    assert len(caught) == 1


# ---- looking at a program in use ------------------------------------------------------------

def test_looking_while_it_is_called(tmp_path):
    f = fg.compile(lambda x: fnp.sum(fnp.sin(x)) if x[0] > 0 else fnp.sum(x))
    f(np.ones(1))
    stop = threading.Event()

    def use():
        try:
            for n in range(1, 25):
                for x in (np.ones(n), -np.ones(n)):
                    f(x)
        finally:
            stop.set()

    def look():
        k = 0
        while not stop.is_set():
            str(f), repr(f), f.memory_plan(), f.explain_plan()
            [repr(path) for path in f.paths]
            f.save(tmp_path / f"{threading.get_ident()}.fgp")
            fg.load(tmp_path / f"{threading.get_ident()}.fgp")(np.ones(1))
            k += 1

    together(use, look, look)


# ---- everything else that is kept between calls ---------------------------------------------

def cube(x):
    return fnp.sum(x ** 3)


def summed(x):
    return fg.scan(lambda c, y: (c + y * fnp.sin(c), c), x[0], x[1:])[0]


TRANSFORMED = {
    "grad": fg.grad(cube), "hessian": fg.hessian(cube), "jacobian": fg.jacobian(lambda x: x ** 2),
    "sparse": lambda x, f=fg.jacobian(lambda x: x ** 2, sparse=True): f(x).toarray(),
    "vmap": fg.vmap(lambda v: fnp.exp(v) * v), "scan": summed, "grad of scan": fg.grad(summed),
    "jvp": lambda x: fg.jvp(cube, (x,), (np.ones_like(x),))[1],
    "compiled grad": fg.compile(fg.grad(cube)), "compiled scan": fg.compile(summed),
    "compiled grad of scan": fg.compile(fg.grad(summed)),
    "compiled vmap": fg.compile(fg.vmap(lambda v: fnp.exp(v) * v)),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations(name):
    f = TRANSFORMED[name]
    xs = [np.linspace(0.1, 1, n) for n in range(2, 8)]
    wanted = {}

    def use(k):
        for n in range(12):
            x = xs[(n * (k + 1)) % len(xs)]
            found = wanted.setdefault(len(x), f(x))
            np.testing.assert_allclose(f(x), found, rtol=1e-12)

    each(use)
    for x in xs:
        np.testing.assert_allclose(wanted[len(x)], f(x), rtol=1e-12)


def test_formulas_are_read_whole():
    """The partials of rows are read when they are first wanted, by Python's parser: a thread that
    reads the same one at the same time adds nothing to it."""
    names = ["tanh", "arctan2", "logaddexp", "hypot", "divide"]
    code = f"""if True:
        import ast, threading
        from fastgrad._core import core
        parse, start = ast.parse, threading.Barrier(2, timeout=30)
        def slow(*args, **kwargs):
            start.wait()                        # both threads are reading by now
            return parse(*args, **kwargs)
        found = []
        def use():
            found.append([core.partial_formulas(name) for name in {names!r}])
        ast.parse = slow
        threads = [threading.Thread(target=use) for k in range(2)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(found[0] == found[1], found[0])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    wanted = [core.partial_formulas(name) for name in names]
    assert done.stdout == f"True {wanted}\n", done.stdout + done.stderr


def test_the_number_of_threads_may_change_during_calls():
    f = fg.compile(lambda x: fnp.sum(fnp.exp(fnp.sin(x)) * x))
    x = np.linspace(0, 1, 300_000)
    wanted = f(x)
    before, stop = fg.get_num_threads(), threading.Event()

    def change():
        k = 0
        while not stop.is_set():
            fg.set_num_threads(1 + k % 5)
            k += 1
            time.sleep(0)

    def use():
        try:
            for _ in range(15):
                assert f(x) == wanted
        finally:
            stop.set()

    try:
        together(change, use, use)
    finally:
        fg.set_num_threads(before)


def test_loops_in_loops_in_many_threads():
    """The depth of loops is counted for each thread."""
    def nested(depth):
        if depth == 0:
            return lambda c: c * 0.5
        inner = nested(depth - 1)
        return lambda c: fg.scan(lambda c, _: (inner(c), None), c, None, length=2)[0]

    graphs = [fg.compile(nested(3)) for _ in range(12)]
    together(*[lambda f=f: f(1.0) == 2.0 ** -8 or pytest.fail("a wrong result") for f in graphs])


def test_cells_and_tallies():
    cell, tally = program.Cell(()), program.Tally()
    each(lambda k: [signature.replace_in(cell, lambda x: (*x, k)) for _ in range(50)]
         and [tally.add() for _ in range(500)])
    assert sorted(cell.value) == sorted(list(range(THREADS)) * 50)
    assert tally.count == 500 * THREADS and tally.add() == tally.count - 1
    assert not cell.swap((), None) and cell.value
