"""The pool of threads that shares large pieces of work (src/pool.c), and its number."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import program


@pytest.fixture(autouse=True)
def the_number_as_it_was():
    before = fg.get_num_threads()
    yield
    fg.set_num_threads(before)


def rows_done(parts, terms=50):
    rows = np.zeros((parts, 6))
    program.try_threads(rows, terms)
    return rows


def rows_wanted(parts, terms=50):
    totals = []
    for part in range(parts):
        total = 0.0
        for k in range(terms):
            total += 1.0 / (part + k + 1)
        totals.append(total)
    return np.column_stack([np.reshape(totals, parts), np.ones((parts, 4))])


def check(rows, threads, terms=50):
    assert np.array_equal(rows[:, :5], rows_wanted(len(rows), terms))
    assert np.all(rows[:, 5] < min(threads, max(len(rows), 1)))


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("parts", [0, 1, 2, 7, 200])
def test_each_part_is_done_once_and_in_a_thread_that_there_is(threads, parts):
    fg.set_num_threads(threads)
    for _ in range(20):
        check(rows_done(parts), threads)


def test_the_work_is_shared():
    fg.set_num_threads(2)
    for _ in range(3000):                           # on a busy machine the caller may do it all
        rows = np.zeros((64, 6))
        program.try_threads(rows, 200_000)
        if set(rows[:, 5]) == {0.0, 1.0}:
            return
    raise AssertionError("the second thread never took a part")


def test_a_call_inside_a_call_is_done_by_its_caller():
    fg.set_num_threads(4)
    for _ in range(50):
        rows = rows_done(40)                        # each part makes one of three parts
        assert np.all(rows[:, 2:5] == 1)


def test_python_threads_at_the_same_time():
    fg.set_num_threads(3)
    failures = []

    def use():
        try:
            for parts in range(1, 120):
                check(rows_done(parts, 200), 3, 200)
        except BaseException as error:
            failures.append(error)

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not failures


def test_the_number_may_change_at_any_time():
    for threads in (5, 1, 3, 2, 4):
        fg.set_num_threads(threads)
        assert fg.get_num_threads() == threads
        check(rows_done(100), threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("while_in_use", [False, True])
def test_a_child_starts_threads_of_its_own(while_in_use):
    fg.set_num_threads(3)
    rows_done(100)                                  # the parent has its threads
    going = threading.Event()
    stop = threading.Event()

    def use():
        while not stop.is_set():
            rows_done(50, 2000)
            going.set()

    user = threading.Thread(target=use)
    if while_in_use:
        user.start()
        going.wait()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                try:
                    good = program.threads_started() == 0
                    for _ in range(5):
                        rows = rows_done(100)
                        good = good and np.array_equal(rows[:, :5], rows_wanted(100))
                    good = good and program.threads_started() == 2
                finally:
                    os._exit(0 if good else 1)
            for _ in range(30_000):                 # five minutes: it may have to wait for a core
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    break
                time.sleep(0.01)
            else:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise AssertionError("the child never ends")
            assert os.waitstatus_to_exitcode(status) == 0
            check(rows_done(100), 3)                # the parent goes on
    finally:
        stop.set()
        if while_in_use:
            user.join()


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs POSIX signals")
def test_signals_do_not_go_to_the_workers():
    code = """if True:
        import os, signal, threading, time
        import numpy as np
        import fastgrad as fg
        from fastgrad._core import program
        fg.set_num_threads(4)
        program.try_threads(np.zeros((100, 6)), 1000)
        assert program.threads_started() == 3
        # Blocked here, a signal would be taken by any thread that does not block it.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        print(signal.SIGTERM in signal.sigpending())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert done.stdout.split() == ["True"], done.stderr


@pytest.mark.parametrize("wrong, error", [(0, ValueError), (-3, ValueError), (2.0, TypeError),
                                          ("2", TypeError), (None, TypeError)])
def test_what_is_no_number_of_threads(wrong, error):
    before = fg.get_num_threads()
    with pytest.raises(error, match=r"set_num_threads\(n\).*1 or more"):
        fg.set_num_threads(wrong)
    assert fg.get_num_threads() == before


def test_there_is_a_largest_number():
    fg.set_num_threads(10**30)
    assert fg.get_num_threads() == 64


def in_a_new_process(code, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "FASTGRAD_NUM_THREADS"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**environment, **variables})


def test_the_environment_tells_the_number():
    code = "import fastgrad as fg; print(fg.get_num_threads())"
    assert in_a_new_process(code, FASTGRAD_NUM_THREADS="7").stdout == "7\n"
    assert in_a_new_process(code, FASTGRAD_NUM_THREADS="1000").stdout == "64\n"
    for unset in ({}, {"FASTGRAD_NUM_THREADS": ""}):
        expected = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                    else os.cpu_count())
        assert in_a_new_process(code, **unset).stdout == f"{min(expected, 64)}\n"
    for wrong in ("0", "-1", "two", "1.5"):
        done = in_a_new_process(code, FASTGRAD_NUM_THREADS=wrong)
        assert "ImportError: FASTGRAD_NUM_THREADS=" in done.stderr
        assert "1 or more" in done.stderr


def test_no_thread_is_started_before_there_is_work():
    code = ("import numpy as np, fastgrad as fg; from fastgrad._core import program\n"
            "fg.set_num_threads(4); program.try_threads(np.zeros((0, 6)), 9)\n"
            "before = program.threads_started(); program.try_threads(np.zeros((3, 6)), 9)\n"
            "print(before, program.threads_started())")
    assert in_a_new_process(code).stdout.split() == ["0", "2"]


def test_info_tells_the_number():
    done = subprocess.run([sys.executable, "-m", "fastgrad", "info"], capture_output=True,
                          text=True, env={**os.environ, "FASTGRAD_NUM_THREADS": "5"})
    assert any(line.split() == ["threads", "5", "at", "most"] for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.build
@pytest.mark.parametrize("broken", [False, True])
def test_the_pool_under_the_thread_sanitiser(tmp_path, broken):
    """Without Python, which has races of its own; a pool that does not wait is found."""
    here = Path(__file__).parent
    source = here.parent / "src" / "pool.c"
    compiler = shutil.which("gcc")
    if compiler is None or not source.exists():
        pytest.skip("needs gcc and the sources")
    text = source.read_text()
    if broken:
        assert text.count("    wait_until_done();\n") == 1
        text = text.replace("    wait_until_done();\n", "")
    (tmp_path / "pool.c").write_text(text)
    made = subprocess.run([compiler, "-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-I",
                           source.parent, here / "pool_driver.c", tmp_path / "pool.c", "-lpthread",
                           "-o", tmp_path / "pool"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"gcc has no thread sanitiser: {made.stderr[-200:]}")
    # With random addresses the sanitiser may not find room for its shadow.
    fixed = [shutil.which("setarch"), "-R"] if shutil.which("setarch") else []
    done = subprocess.run([*fixed, tmp_path / "pool"], capture_output=True, text=True)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitiser finds no room")
    assert ("ThreadSanitizer: data race" in done.stderr) == broken, done.stderr
    assert broken or done.stdout == "0 wrong\n"


@pytest.mark.parametrize("read", [
    lambda x, y: x[np.arange(0, 200_000, 2)], lambda x, y: fnp.concatenate([x, y, x]),
    lambda x, y: x * y, lambda x, y: x @ x], ids=["gather", "concatenate", "convert", "matmul"])
def test_a_tensor_changes_while_numpy_reads_it(read):
    """NumPy works without the GIL; what it reads stays whatever another thread assigns."""
    x, y = fg.tensor(np.ones(200_000)), fg.tensor(np.ones(200_000, np.int64))
    stop = threading.Event()

    def change():
        while not stop.is_set():
            x.__iadd__(0.0)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            assert (fnp.sum(read(x, y) != 0) > 0).item()
    finally:
        stop.set()
        thread.join()
