"""Run the suite on every Python and NumPy that fastgrad allows, as far as they are on this machine.

    python tests/matrix.py                                what is found on PATH and in ~/.pyenv
    python tests/matrix.py /usr/bin/python3.14            these interpreters
    python tests/matrix.py -- -m "not slow" tests/laws    arguments for pytest
    python tests/matrix.py --folder /tmp/matrix           keep environments and builds

For each Python from 3.11 on: a copy of the sources, built once with the newest NumPy, and two
environments in which the tests run, with the oldest NumPy from 2.0 on that has wheels for this
Python and with the newest. One line for each is printed, and the output of what failed; the exit
code is that of the worst. pip finds packages as it is set up to; a build takes about a minute,
and the suite as long as it does elsewhere.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OLDEST_PYTHON, OLDEST_NUMPY = (3, 11), (2, 0)


def run(*command, **options):
    """The output of a command, which must succeed."""
    done = subprocess.run([str(x) for x in command], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def not_sources(folder):
    """What of a folder is not copied: what was built there, and the copies."""
    patterns = shutil.ignore_patterns("build", "dist", ".git", ".venv", "venv", "*.so",
                                      "*.egg-info", "__pycache__", ".pytest_cache",
                                      ".benchmarks")
    return lambda path, names: patterns(path, names) | {
        name for name in names if Path(path, name).resolve() == folder.resolve()}


def interpreters():
    """One of each version that is found, the oldest version first."""
    folders = [*map(Path, os.environ.get("PATH", "").split(os.pathsep)),
               *Path.home().glob(".pyenv/versions/*/bin")]
    found = {}
    for folder in folders:
        for path in sorted(folder.glob("python3.*")):
            if re.fullmatch(r"python3\.\d+", path.name) and "shims" not in path.parts:
                version = int(path.name.partition(".")[2])
                if version >= OLDEST_PYTHON[1] and os.access(path, os.X_OK):
                    found.setdefault(version, path)
    return [found[version] for version in sorted(found)]


def recent_pip(python, base):
    """An interpreter with a pip that is new enough to list versions."""
    inside = base / "pip" / "bin" / "python"
    if not inside.exists():
        run(python, "-m", "venv", base / "pip")
        run(inside, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    return inside


def numpy_versions(python):
    """The oldest and the newest that has a wheel for this Python."""
    text = run(python, "-m", "pip", "index", "versions", "--only-binary", ":all:", "numpy")
    versions = re.search(r"Available versions: (.*)", text)[1].split(", ")
    versions = sorted(tuple(map(int, version.split("."))) for version in versions
                      if re.fullmatch(r"\d+(\.\d+)+", version))
    versions = [version for version in versions if version >= OLDEST_NUMPY]
    return [".".join(map(str, version)) for version in (versions[0], versions[-1])]


def environment(folder, python, numpy):
    """The interpreter of an environment with this NumPy and what building and the tests need."""
    inside = folder / "bin" / "python"
    if not inside.exists():
        run(python, "-m", "venv", folder)
        run(inside, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    run(inside, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"numpy=={numpy}",
        *PROJECT["project"]["optional-dependencies"]["test"])
    return inside


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", nargs="*", help="interpreters")
    parser.add_argument("--folder", type=Path, help="where environments and builds are kept")
    own, tests = sys.argv[1:], []
    if "--" in own:
        tests = own[own.index("--") + 1:]
        own = own[:own.index("--")]
    options = parser.parse_args(own)

    worst, rows = 0, []
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for python in options.python or interpreters():
            name = run(python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])").strip()
            base = (folder / name).resolve()
            base.mkdir(parents=True, exist_ok=True)
            oldest, newest = numpy_versions(recent_pip(python, base))
            sources = base / "fastgrad"
            shutil.copytree(ROOT, sources, ignore=not_sources(folder), dirs_exist_ok=True)
            builder = environment(base / newest, python, newest)
            run(builder, "setup.py", "build_ext", "--inplace", cwd=sources)
            for numpy in dict.fromkeys((oldest, newest)):
                inside = environment(base / numpy, python, numpy)
                command = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto",
                           "--dist", "loadfile", *tests]
                done = subprocess.run(command, cwd=sources, text=True, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT)
                closing = (done.stdout.strip().splitlines() or ["nothing was printed"])[-1]
                if done.returncode:
                    print(done.stdout)
                worst = max(worst, abs(done.returncode))
                rows.append((name, numpy, closing.strip("= ")))
                print(*rows[-1], sep="  ", flush=True)
    print("\n" + "\n".join(f"{python:8} {numpy:7} {closing}" for python, numpy, closing in rows))
    return worst


if __name__ == "__main__":
    sys.exit(main())
