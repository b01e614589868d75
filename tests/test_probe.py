"""What is compiled, called with whatever there is: see probe_core.py."""

import os
import subprocess
import sys

import probe_core
import pytest


def probe(tmp_path, seed, count):
    log = tmp_path / "call"
    done = subprocess.run([sys.executable, probe_core.__file__, str(seed), str(count)],
                          capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "FASTGRAD_PROBE": str(log)})
    assert done.returncode == 0, f"{log.read_text()}\n{done.stderr[-3000:]}"
    assert int(done.stdout.split()[0]) > 100 * count


def test_a_few_calls(tmp_path):
    probe(tmp_path, 1, 6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_calls(tmp_path, seed):
    probe(tmp_path, 100 + seed, 60)


def test_the_examples_are_right():
    """One of whose arguments is changed: else nothing behind the first check is met."""
    found = probe_core.targets()
    for name, calls in probe_core.EXAMPLES.items():
        for args in calls:
            found[name](*args)
