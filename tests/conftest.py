"""What every test file shares: a check that the compiled core is up to date, the option --slow, and
fixtures."""

import gc
import os
import zlib

if "PYTEST_XDIST_WORKER" in os.environ:     # or the threads of every BLAS spin on all cores
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true",
                     help="more volume: the tests marked slow too, and all points of the others")
    parser.addoption("--every", type=int, default=1, metavar="N",
                     help="a sample: each N-th test of those that are chosen")


def pytest_configure(config):
    """Refuse to test a binary that was built from other sources."""
    import importlib.util
    from pathlib import Path

    package = importlib.util.find_spec("fastgrad")
    if package is None:
        pytest.exit("fastgrad is not installed and not on the path; run: pip install -e '.[test]'",
                    returncode=pytest.ExitCode.USAGE_ERROR)
    try:
        from fastgrad._build import sources_fingerprint
        from fastgrad._core import core
    except ImportError as error:
        pytest.exit(f"the compiled core of fastgrad cannot be imported ({error}); build it: "
                    "python setup.py build_ext --inplace", returncode=pytest.ExitCode.USAGE_ERROR)
    root = Path(package.origin).parents[1]
    fingerprint = sources_fingerprint(root)
    if fingerprint is not None and fingerprint != core.SOURCES:
        pytest.exit(f"{core.__file__} is not built from the sources in {root}; rebuild it: "
                    "python setup.py build_ext --inplace", returncode=pytest.ExitCode.USAGE_ERROR)


def pytest_itemcollected(item):
    """Tests that do more with --slow can be asked for: -m "slow or volume". Of a law over thousands
    of cases the quick run takes a part. It is drawn by name: each row and dtype meets some of the
    laws, and a new case moves no other one."""
    if " at 0x" in item.nodeid:
        raise pytest.UsageError(f"{item.nodeid}: another name at each run; give it ids")
    if "some" in item.fixturenames:
        item.add_marker("volume")
    sampled = item.get_closest_marker("sampled")
    if sampled and zlib.crc32(item.name.encode()) % sampled.args[0]:
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leave out what is marked slow, unless --slow, -m or the name of a test asks for it; of the
    rest each N-th with --every."""
    asked = config.option.slow or config.option.markexpr or any("::" in arg for arg in config.args)
    chosen = [item for item in items if asked or not item.get_closest_marker("slow")]
    chosen = chosen[::config.option.every]
    if len(chosen) < len(items):
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen


def settings():
    """What a test may change, and has to put back."""
    import fastgrad as fg
    from fastgrad._core import core

    return {"instruction set": core.isa(), "size from which results wait": core.lazy_threshold(),
            "number of threads": fg.get_num_threads(), "NumPy's treatment of errors": np.geterr(),
            "whether operations are recorded": core.is_recording()}


def freeze():
    """Ten thousands of test items and their reports are no garbage: looking through them made
    gc.collect(), which many tests call, a hundred times slower."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    gc.disable()                # a quarter of the time, and nothing of what is collected is freed
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish(session):
    from fastgrad._core import core
    from fastgrad.transforms import vmap

    vmap.CHECKED = True
    freeze()
    if core.tape_info()["nodes"]:
        raise pytest.UsageError("a test module keeps a recorded Tensor; make it inside a function")
    session.settings = settings()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    """No test changes what the next one meets. A count that is off shows in some other test, if at
    all: of the parameters depends which graphs a gradient may use up."""
    from fastgrad._core import core

    result = yield
    if core.alive()["parameters"] < 0:
        pytest.fail("fewer parameters than none: a Tensor that was none has died", pytrace=False)
    if nextitem is not None and nextitem.path != item.path:
        freeze()
    before, after = item.session.settings, settings()
    if before != after:
        item.session.settings = after           # one test is to blame
        changed = [f"{name}: {before[name]} before, now {after[name]}"
                   for name in before if before[name] != after[name]]
        pytest.fail("the test leaves behind " + "; ".join(changed), pytrace=False)
    return result


@pytest.fixture(scope="session")
def some(request):
    """some(cases, n): n of the cases, spread evenly, ends included; with --slow all of them."""
    def choose(cases, n):
        cases = list(cases)
        if request.config.option.slow or len(cases) <= n:
            return cases
        return [cases[k * (len(cases) - 1) // max(n - 1, 1)] for k in range(n)]
    return choose


@pytest.fixture
def rng():
    """A generator that starts anew in each test."""
    return np.random.default_rng(20240917)
