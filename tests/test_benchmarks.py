"""The scripts of the benchmarks run and write their tables; the numbers are for people to read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
BENCHMARKS = HERE / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="installed without the benchmarks")

SMALL = {
    "report.py": ["--quick", "--tools", "fastgrad", "--cases", "square", "--no-memory"],
    "programs.py": ["--quick", "--tools", "compiled", "--cases", "square,rosenbrock n=2",
                    "--no-planning"],
    "memory.py": ["--quick", "--row", "leaf"],
    "cost.py": ["--quick", "--row", "storage"],
    "derivatives.py": ["--quick"],
}


def run(*arguments):
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True,
                          cwd=BENCHMARKS, env=os.environ | {"PYTHONPATH": paths})


@pytest.mark.parametrize("script", [
    pytest.param(script, marks=pytest.mark.slow if script == "derivatives.py" else ())
    for script in SMALL])
def test_scripts_run(script, tmp_path):
    folder = {"report.py": "--output", "programs.py": "--output", "cost.py": "--docs"}.get(script)
    done = run(BENCHMARKS / script, *SMALL[script], *([folder, tmp_path] if folder else []))
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d\.\d+", done.stdout) or any(tmp_path.iterdir())


def test_every_script_is_tested():
    scripts = {path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    assert scripts == set(SMALL)


def test_they_run_under_pytest_benchmark(tmp_path):
    done = run("-m", "pytest", BENCHMARKS, "-q", "--benchmark-disable", "-k", "square",
               "-p", "no:cacheprovider", "--rootdir", tmp_path)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
