"""What is told by its content, what depends on its operands alone, and what makes a path
unreplayable: every row of the tables, and what is in none, against the plain function over changed
state. Nothing may lie; what can be compared must be replayed."""

import secrets
import sys
import time
import types
import warnings

import numpy as np
import pytest
from reached import COMPARED, MOVES_ON, REFUSED

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad.code import instructions, known, names
from fastgrad.code import values as _code
from fastgrad.code.watch import Watch


def made(setup, body, folder):
    """The function, and the names it sees."""
    space = {"np": np, "fg": fg, "fnp": fnp, "__name__": "a_users_module"}
    exec(setup.replace("FOLDER", str(folder)), space)
    return eval(f"lambda x: {body.replace('FOLDER', str(folder))}", space), space


def agrees(f, plain, changes, space, folder):
    """f does as the plain function does, after each change."""
    for change in [None, None, *changes, None]:
        if change is not None:
            exec(change.replace("FOLDER", str(folder)), space)
        for x in (2.0, 3.0):
            np.testing.assert_array_equal(f(x), plain(x), err_msg=str(change))


@pytest.fixture
def restored():
    """Settings that a case changes."""
    import decimal

    argv, modules = sys.argv, set(sys.modules)
    with np.errstate(), decimal.localcontext():
        yield
    sys.argv = argv
    for name in {"sitemod"} & set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("way", ["compile", "grad"])
@pytest.mark.parametrize("name", COMPARED)
def test_what_is_compared(name, way, tmp_path, restored):
    setup, body, changes = COMPARED[name]
    plain, space = made(setup, body, tmp_path)
    plain = fg.grad(plain) if way == "grad" else plain
    f = fg.compile(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agrees(f, plain, changes, space, tmp_path)
    assert len(f.paths) > 1 and max([path.calls for path in f.paths]) > 1


@pytest.mark.parametrize("way", ["compile", "grad"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_a_path_unreplayable_and_is_named(name, way, tmp_path, restored):
    setup, body, changes, reason = REFUSED[name]
    plain, space = made(setup, body, tmp_path)
    plain = fg.grad(plain) if way == "grad" else plain
    f = fg.compile(plain)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agrees(f, plain, changes, space, tmp_path)
    assert not f.paths
    assert [reason in str(w.message) for w in caught if "compile:" in str(w.message)] == [True]


@pytest.mark.parametrize("name", MOVES_ON)
def test_what_moves_on_by_itself(name, tmp_path):
    f = fg.compile(made(*MOVES_ON[name], tmp_path)[0])
    plain = made(*MOVES_ON[name], tmp_path)[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [f(2.0) for _ in range(5)] == [plain(2.0) for _ in range(5)]
    assert [w for w in caught if "is not replayed" in str(w.message)]


CLOCKS = [f"time.{name}()" for name in (
    "time time_ns perf_counter perf_counter_ns monotonic monotonic_ns process_time "
    "process_time_ns thread_time thread_time_ns").split()] + [
    "time.localtime().tm_sec", "time.gmtime().tm_sec", "datetime.datetime.now().microsecond",
    "datetime.datetime.utcnow().microsecond", "datetime.date.today().day", "day.today().day",
    "moment.now().microsecond", "now()", "clock()"]
SECRETS = ["secrets.randbelow(1000)", "secrets.token_bytes(1)[0]", "os.urandom(1)[0]",
           "uuid.uuid4().int % 97", "uuid.uuid1().int % 97", "random.SystemRandom().random()",
           "system.random()", "np.random.default_rng().normal()", "np.random.RandomState().rand()",
           "np.random.default_rng(None).normal()", "np.random.default_rng(seed=None).normal()",
           "np.random.Generator(np.random.PCG64()).normal()", "random.Random().random()",
           "np.random.default_rng(*[]).normal()", "make().normal()",
           "float(np.random.SeedSequence().entropy % 97)", "os.getpid()", "id(np)",
           "hash(object())", "len(os.listdir())", "os.path.getmtime(os.curdir)",
           "threading.get_ident()", "sys.getrefcount(x)", "gc.get_count()[0]",
           "len(tempfile.mktemp())", "np.get_printoptions()['precision']"]
STATE = ("import time, datetime, os, secrets, uuid, random, threading, sys, gc, tempfile\n"
         "import functools\n"
         "day = datetime.date(2020, 1, 1); moment = datetime.datetime(2020, 1, 1)\n"
         "now = time.time; clock = functools.partial(time.monotonic)\n"
         "system = random.SystemRandom(); make = np.random.default_rng")


@pytest.mark.parametrize("body", CLOCKS + SECRETS)
def test_what_answers_differently_each_time(body, tmp_path):
    f = fg.compile(made(STATE, f"x * 0 + {body}", tmp_path)[0])
    with pytest.warns(UserWarning, match="is not replayed"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        f(1.0)
    assert not f.paths


def test_a_generator_with_a_seed_is_known():
    seed = 3
    f = fg.compile(lambda x: x * float(np.random.default_rng(seed).normal()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (3, 3, 4, 4):
            assert f(2.0) == 2.0 * np.random.default_rng(seed).normal()
    assert [path.calls for path in f.paths] == [2, 2]


def test_an_instruction_that_is_not_known_makes_the_path_unreplayable(monkeypatch):
    values = {"a": 1.0}

    def plain(x):
        return x * values["a"]

    opname = "BINARY_SUBSCR" if "BINARY_SUBSCR" in instructions._METHODS else "BINARY_OP"
    monkeypatch.delitem(instructions._METHODS, opname)
    try:
        _code.read.cache_clear()
        names.names_in.cache_clear()
        f = fg.compile(plain)
        with pytest.warns(UserWarning, match=f"instruction {opname} of Python 3.*test_known.py"):
            for values["a"] in (1.0, 2.0, 3.0):
                assert f(2.0) == plain(2.0)
        assert not f.paths
    finally:
        _code.read.cache_clear()
        names.names_in.cache_clear()


# ---- the tables themselves ------------------------------------------------------------------

# Names that not all versions of Python and NumPy have.
LATER = frozenset("call batched unstack trapz row_stack trapezoid cumulative_prod cumulative_sum "
                  "unique_all unique_counts unique_inverse unique_values matrix_transpose isdtype "
                  "permute_dims fromstring concat astype vecdot".split())


@pytest.mark.parametrize("module, text", [
    (np, known._NUMPY), (known.operator, known._OPERATOR), (known.builtins, known._BUILTINS),
    (known.itertools, known._ITERTOOLS)])
def test_no_name_in_the_tables_is_misspelt(module, text):
    assert [name for name in text.split() if not hasattr(module, name) and name not in LATER] == []


@pytest.mark.parametrize("name", "load loadtxt genfromtxt fromfile memmap geterr seterr save "
                                 "get_printoptions getbufsize frompyfunc vectorize".split())
def test_what_is_no_function_of_its_operands(name):
    assert not known.function(getattr(np, name))


@pytest.mark.parametrize("x", [open, eval, exec, globals, locals, hash, id, input, dir, time.time,
                               secrets.randbelow, np.random.default_rng, np.random.normal,
                               np.frompyfunc(lambda x: x, 1, 1), lambda x: x, print, len])
def test_known_functions(x):
    assert known.function(x) is (x in (print, len))


def test_constants_of_libraries_cost_nothing():
    # The function itself, and the module.
    assert len(Watch([lambda x: x * np.pi * np.e + np.float64(2)]).entries) == 2


def test_a_class_that_says_it_is_of_a_library_is_not_taken_for_one():
    kind = type("Opaque", (), {"__module__": "math", "__call__": lambda self: 2.0})
    read = kind()
    f = fg.compile(lambda x: x * read())
    with pytest.warns(UserWarning, match="math.Opaque"):
        assert f(2.0) == 4.0
    assert not f.paths


def test_modules_of_functions_may_be_looked_into_at_run_time():
    f = fg.compile(lambda x, name: getattr(np, name)(x))
    assert f(0.5, "sin") == np.sin(0.5) and f(0.5, "cos") == np.cos(0.5)
    assert f(0.25, "sin") == np.sin(0.25) and len(f.paths) == 2
    module = types.ModuleType("mine")
    module.sin = np.cos
    g = fg.compile(lambda x, name: getattr(module, name)(x))
    with pytest.warns(UserWarning, match="names that are told at run time"):
        assert g(0.5, "sin") == np.cos(0.5)
