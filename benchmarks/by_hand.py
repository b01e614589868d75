"""Gradients written by hand in C: compiled when a benchmark asks for them, outside the repository.

The sources are in `benchmarks/c`. A shared library is kept in a cache folder under a name that
holds its sources, flags and compiler, so that an edit or another machine compiles again.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent / "c"
FLAGS = ["-O3", "-march=native"]
LIBRARIES = ["-lmvec", "-lm", "-lpthread"]

_libraries = {}


def compiler():
    """Return the command of the C compiler, or None: `CC` if that is set, else gcc."""
    command = shlex.split(os.environ.get("CC", "gcc"))
    return command if shutil.which(command[0]) else None


def missing():
    """Say why C cannot be compiled here, or return None if it can."""
    if compiler() is None:
        return f"no C compiler ({os.environ.get('CC', 'gcc')}) is installed"
    if platform.libc_ver()[0] != "glibc":
        return "libmvec is a part of glibc, which is not here"
    return None


def describe():
    """Return compiler and flags in one line."""
    version = subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True)
    return " ".join([version.stdout.splitlines()[0], *FLAGS])


def folder():
    """Return where libraries are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    for place in (Path(base), Path(tempfile.gettempdir())):
        found = place / "fastgrad-benchmarks"
        try:
            found.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(found, os.W_OK):
            return found
    raise OSError("no folder to compile into: neither the cache nor the temporary one is writable")


def library(name):
    """Compile a source of `benchmarks/c`, unless that is done already, and load it."""
    if name not in _libraries:
        source = HERE / f"{name}.c"
        cpu = Path("/proc/cpuinfo")         # -march=native depends on it
        content = [describe().encode(), source.read_bytes(), (HERE / "repeat.h").read_bytes()]
        if cpu.exists():
            content += sorted({line for line in cpu.read_bytes().splitlines()
                               if line.startswith((b"model name", b"flags"))})
        digest = hashlib.sha256(b"\0".join(content)).hexdigest()[:16]
        path = folder() / f"{name}-{digest}.so"
        if not path.exists():
            # Several processes may compile at once: each renames its own file.
            partial = path.with_suffix(f".{os.getpid()}")
            subprocess.run([*compiler(), *FLAGS, "-shared", "-fPIC", "-o", str(partial),
                            str(source), *LIBRARIES], check=True)
            partial.replace(path)
        _libraries[name] = ctypes.CDLL(str(path))
    return _libraries[name]


class Gradient:
    """A function of `benchmarks/c` at a point, with room for what it returns.

    Parameters
    ----------
    source, name : str
        The file without its ending, and the function in it.
    x : float or ndarray of float64
    lanes : bool
        The function has a value for each number instead of one for all.
    """

    def __init__(self, source, name, x, lanes=False):
        loaded = library(source)
        self.x = np.array(x, float, order="C")
        self.value = np.zeros(self.x.shape if lanes else ())
        self.gradient = np.zeros(self.x.shape)
        self._function = getattr(loaded, name)
        self._repeat = loaded.repeat
        self._repeat.restype = None
        self._arguments = (ctypes.c_long(self.x.size), *(
            ctypes.c_void_p(a.ctypes.data) for a in (self.x, self.value, self.gradient)))

    def __call__(self):
        """Compute value and gradient once."""
        self._repeat(ctypes.c_long(1), self._function, *self._arguments)

    def seconds(self, count):
        """Return the seconds that `count` calls take, the loop over them in C."""
        started = time.perf_counter()
        self._repeat(ctypes.c_long(count), self._function, *self._arguments)
        return time.perf_counter() - started
