"""Builds the extensions, fastgrad._core.core and .program; everything else is in pyproject.toml.

    python setup.py build_ext --inplace     build where it stands (pip install -e . does the same)
    python setup.py build_ext --force       rebuild everything

core.pyx includes most other .pyx files of its folders: one translation unit, so that gcc inlines
across them; program.pyx, which runs planned programs, includes those of the folder program. An
object is rebuilt when the contents of what it is made from, or its flags, have changed; times of
files play no part, so a fresh checkout reuses what it can.

Environment:

FASTGRAD_QUICK=1     -O0: half a minute after an edit of the core, not two. The same bits, slowly.
FASTGRAD_DEBUG=1     -Og, assertions, bounds and None checks, symbols.
FASTGRAD_SANITIZE=1  address and undefined-behaviour sanitisers. Python itself is not built with
                     them, so their run-time must be loaded first, and Python's own leaks ignored:

    FASTGRAD_SANITIZE=1 python setup.py build_ext --inplace
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \\
        ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \\
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 PYTHONMALLOC=malloc python -m pytest

FASTGRAD_SANITIZE=thread  the thread sanitiser, for programs that several threads call. Tests that
                     start processes are left out, and addresses are fixed, or it finds no room:

    FASTGRAD_SANITIZE=thread python setup.py build_ext --inplace
    LD_PRELOAD="$(gcc -print-file-name=libtsan.so)" TSAN_OPTIONS=halt_on_error=1 \\
        OPENBLAS_NUM_THREADS=1 setarch -R python -m pytest -m "not slow" \\
        -k "not child and not process and not signals and not environment and not formulas" \\
        tests/test_threads.py tests/test_shared.py

FASTGRAD_COVERAGE=1  gcov counters for C, line tracing for Cython:

    FASTGRAD_COVERAGE=1 python setup.py build_ext --inplace
    python -m coverage run -m pytest && python -m coverage report
    for folder in src src/plan src/run; do gcov -p -o build/coverage/*/$folder $folder/*.c; done

Each of them has build folders of its own; the last build made is the one in the source tree.

FASTGRAD_WERROR=1      a warning of Cython or of the C compiler is an error.
FASTGRAD_BUILD=folder  where objects are, for several copies of the sources; build/release and the
                       like become links to there.
"""

import hashlib
import os
import platform
import runpy
import sys
import sysconfig
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

if int(setuptools.__version__.split(".")[0]) < 77:
    sys.exit(f"fastgrad builds with setuptools 77 or newer; this is {setuptools.__version__}.\n"
             "In a virtual environment: pip install 'setuptools>=77' 'Cython>=3.1.6' 'numpy>=2.0'")

os.chdir(Path(__file__).resolve().parent)           # sources are named relative to here


def switch(name):
    return os.environ.get(f"FASTGRAD_{name}", "") not in ("", "0")


QUICK, DEBUG, SANITIZE, COVERAGE = map(switch, ("QUICK", "DEBUG", "SANITIZE", "COVERAGE"))
if QUICK + DEBUG + SANITIZE + COVERAGE > 1:
    sys.exit("Set one of FASTGRAD_QUICK, FASTGRAD_DEBUG, FASTGRAD_SANITIZE and FASTGRAD_COVERAGE "
             "at a time.")
THREAD = os.environ.get("FASTGRAD_SANITIZE") == "thread"
SANITIZERS = "-fsanitize=thread" if THREAD else "-fsanitize=address,undefined"
BUILD = os.environ.get("FASTGRAD_BUILD", "")
MODE = ("quick" if QUICK else "debug" if DEBUG else "thread" if THREAD else
        "sanitize" if SANITIZE else "coverage" if COVERAGE else "release")

# Not -ffast-math: it assumes that NaN, infinities and signed zeros do not exist, reorders sums,
# and linking with it sets flush-to-zero for the whole process.
# Not -march=native: the binary would die with an illegal instruction on the next machine. The
# isa_*.c files carry their own target pragma, and dispatch.c picks among them at import.
FLAGS = [
    "-fno-math-errno",          # nobody reads errno, and calls that may set it do not vectorise
    "-fno-trapping-math",       # nobody reads the exception flags: both sides of a choice may be
                                # computed, which a vector needs
    "-ffp-contract=off",        # no silent fused multiply-add: results would differ between
                                # instruction sets
    "-fvisibility=hidden",      # only PyInit_core is exported; internal calls need no PLT
]
if MODE == "release":
    FLAGS += ["-O3",            # -O2 vectorises none of the element loops
              "-g0"]            # Python's own flags ask for -g: ten times the size
elif MODE == "quick":
    FLAGS += ["-O0", "-g0"]
elif MODE == "debug":
    FLAGS += ["-Og", "-g3", "-UNDEBUG", "-DFG_DEBUG", "-DFG_CHECKED"]
elif SANITIZE:
    FLAGS += ["-O1", "-g1", "-UNDEBUG", "-DFG_CHECKED", "-fno-omit-frame-pointer", SANITIZERS]
else:
    FLAGS += ["-O0", "-g", "--coverage", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1"]

LINK_FLAGS = {
    "release": ["-Wl,-x" if sys.platform == "darwin" else "-Wl,-s"],    # strip
    "quick": [],
    "debug": [],
    "sanitize": [SANITIZERS],
    "thread": [SANITIZERS],
    "coverage": ["--coverage"],
}[MODE]

# FASTGRAD_WERROR: every warning that the compilers and Cython have by themselves is an error. Of
# what Cython writes, -Wextra complains in hundreds of places (unused parameters and the like).
WERROR = switch("WERROR")
WARNINGS = ["-Wall", "-Werror"] if WERROR else []
OWN_WARNINGS = ["-Wextra"] if WERROR else []

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "embedsignature": True,
    "embedsignature.format": "clinic",  # which inspect.signature reads, of methods too
    "allow_none_for_extension_args": False,     # a function that takes a Tensor takes no None
    "auto_pickle": False,       # it would let anyone write the fields: __setstate__(...)
    "linetrace": COVERAGE,
}

# Cython 3.3 lets go of the item twice where a list comprehension has no memory to grow.
MENDED = ("""    int result = PyList_Append(list, x);
    Py_DECREF(x);
""", """    int result = PyList_Append(list, x);
    if (result == 0) Py_DECREF(x);      /* else the caller does */
""")


def files(folder, *patterns):
    return sorted(path.as_posix() for pattern in patterns for path in Path(folder).glob(pattern))


# What is made from what: each extension from its own Cython and C files and the headers of both.
PROGRAM_CYTHON = files("fastgrad/_core", "program.pyx", "program/*.pyx", "plan.pxd")
PROGRAM_C = files("src", "vm*.c", "plan/*.c", "run/*.c", "pool.c")
PROGRAM_HEADERS = files("src", "vm*.h", "vm*.inc", "plan/*.h", "run/*.h", "pool.h")
CORE_CYTHON = [name for name in files("fastgrad/_core", "*.pyx", "*/*.pyx", "*.pxd")
               if name not in PROGRAM_CYTHON]
CORE_C = [name for name in files("src", "*.c") if name not in PROGRAM_C]
PROGRAM_C.append("src/alloc.c")         # of each its own; the state is the core's
CORE_HEADERS = [name for name in files("src", "*.h", "*.inc", "*.def")
                if name not in PROGRAM_HEADERS]
PROGRAM_CYTHON.append("fastgrad/_core/fg.pxd")


def content_hash(paths, *others):
    """Hash of the contents of files and of the repr of everything else given."""
    digest = hashlib.sha256(repr(others).encode())
    for path in paths:
        digest.update(f"\0{path}\0".encode())
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


@contextmanager
def made_from(target, state, force):
    """Whether `target` must be made again; if so, remembers beside it of what it was made."""
    target = Path(target)
    stamp = target.with_name(target.name + ".stamp")
    fresh = (not force and target.exists() and stamp.exists() and stamp.read_text() == state)
    if not fresh:
        stamp.unlink(missing_ok=True)       # a build that is interrupted leaves no false stamp
    yield not fresh
    if not fresh:
        stamp.write_text(state)


ONE_CYTHON = threading.Lock()               # its options and its messages are global


@contextmanager
def step(what):
    """Says what was done, and how long it took."""
    start = time.perf_counter()
    yield
    print(f"fastgrad: {what} ({time.perf_counter() - start:.1f} s)", flush=True)


def place_in_queue(source):
    """core first: its translation, then its compilation take as long as all else together.
    program is translated later, when Cython is free; the loops of src/ are compiled meanwhile."""
    path = Path(source)
    return (path.name != "core.c", "isa_" not in path.name, path.name != "program.c",
            -path.stat().st_size if path.exists() else 0)


@contextmanager
def locked(folder):
    """One build at a time in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        with suppress(ImportError):         # not a POSIX system: on your honour
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class BuildExt(build_ext):
    """All objects of all extensions in one pool; then they are linked."""

    def build_extensions(self):
        self.check_extensions_list(self.extensions)
        # Not self.build_temp, which is a new folder for each editable install.
        folder = Path("build", MODE)
        if BUILD:                       # by a link: names in stamps are the same in every copy
            elsewhere = Path(BUILD, MODE).resolve()
            elsewhere.mkdir(parents=True, exist_ok=True)
            folder.parent.mkdir(exist_ok=True)
            if folder.is_symlink():
                folder.unlink()
            folder.symlink_to(elsewhere)
        folder /= f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        with locked(folder):
            self.build_in(folder)

    def build_in(self, folder):
        import numpy

        self.unix = self.compiler.compiler_type == "unix"
        # Paths of include folders are left out: under build isolation they change every time.
        self.versions = (sys.version, numpy.__version__,
                         getattr(self.compiler, "compiler_so", None))
        self.macros = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
                       ("NPY_TARGET_VERSION", "NPY_2_0_API_VERSION")]
        libmvec = self.find_libmvec() if self.unix else None
        if libmvec is not None:
            self.macros.append(("FG_LIBMVEC", libmvec))
        self.includes = ["src", numpy.get_include()]
        header, fingerprint = self.write_fingerprint(folder)    # first: an edit meanwhile shows

        workers = self.parallel or os.cpu_count() or 1
        print(f"fastgrad: {MODE} build in {folder}, {workers} steps at a time", flush=True)
        makes, links = [], []
        for ext in self.extensions:
            headers = [name for name in ext.depends if name.endswith((".h", ".inc", ".def"))]
            generated = (folder / ext.sources[0]).with_suffix(".c").as_posix()
            jobs = [(self.translate_and_compile, generated, "", [header, *headers], ext),
                    *((self.compile_one, source, folder, [header, *headers])
                      for source in ext.sources[1:])]
            makes += jobs
            links.append((ext, [self.object_of(job[1], job[2]) for job in jobs]))
        makes.append((self.compile_one, fingerprint, "", []))
        makes.sort(key=lambda job: place_in_queue(job[1]))
        for _, source, place, *_ in makes:  # the compiler's own mkpath is not made for threads
            Path(self.object_of(source, place)).parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(workers) as pool:
            tasks = [pool.submit(*job) for job in makes]
            try:
                for task in as_completed(tasks):
                    task.result()
            except BaseException:           # the first error is the one to read
                pool.shutdown(cancel_futures=True)
                raise

        for ext, objects in links:
            path = self.get_ext_fullpath(ext.name)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)  # newer than the objects, but of another mode
            with step(f"link {ext.name}"):
                self.compiler.link_shared_object(
                    [*objects, self.object_of(fingerprint, "")], path,
                    libraries=[*self.get_libraries(ext), *["mvec"] * bool(libmvec),
                               *["m"] * self.unix],
                    extra_postargs=LINK_FLAGS if self.unix else [],
                    export_symbols=self.get_export_symbols(ext), debug=self.debug,
                    build_temp=str(folder), target_lang="c")

    def object_of(self, source, place):
        """Where an object goes: generated sources are in the folder already."""
        return self.compiler.object_filenames([source], output_dir=str(place))[0]

    def compile_one(self, source, place, reads, extra=()):
        object_file = self.object_of(source, place)
        flags = [*FLAGS, *WARNINGS, *extra] if self.unix else list(extra)
        if Path(source).parts[0] == "src" and self.unix:
            flags += OWN_WARNINGS
        state = content_hash([source, *reads], self.versions, self.macros, flags)
        with made_from(object_file, state, self.force) as stale:
            if stale:
                Path(object_file).with_suffix(".gcda").unlink(missing_ok=True)
                with step(f"compile {source}"):
                    self.compiler.compile([source], output_dir=str(place), macros=self.macros,
                                          include_dirs=self.includes, extra_postargs=flags,
                                          debug=self.debug)

    def translate_and_compile(self, generated, place, reads, ext):
        self.translate(Path(generated), ext)
        self.compile_one(generated, place, reads,
                         ["-include" if self.unix else "/FI", reads[0]])

    def translate(self, generated, ext):
        """The .pyx to C. cythonize compares times of files and does not see a changed directive."""
        import Cython
        from Cython.Build import cythonize
        from Cython.Compiler import Options

        source = ext.sources[0]
        cython_sources = [name for name in ext.depends if name.endswith((".pyx", ".pxd"))]
        state = content_hash(cython_sources, Cython.__version__, self.versions, DIRECTIVES, WERROR,
                             MENDED)
        with made_from(generated, state, self.force) as stale:
            if stale:
                with ONE_CYTHON, step(f"translate {source}"):
                    Options.warning_errors = WERROR
                    cythonize([Extension(ext.name, [source], include_dirs=self.includes)],
                              build_dir=str(generated.parents[len(Path(source).parts) - 1]),
                              compiler_directives=DIRECTIVES, force=True,
                              emit_linenums=DEBUG)
                text = generated.read_text()
                generated.write_text(text.replace(*MENDED))
        if COVERAGE:                        # where Cython's coverage plugin looks for the C code
            for path in map(Path, cython_sources):
                link = path.with_suffix(".c")
                link.unlink(missing_ok=True)
                link.symlink_to(generated.resolve())

    def write_fingerprint(self, folder):
        """The state of the sources, in a file of its own: nothing else is recompiled for it."""
        fingerprint = runpy.run_path("fastgrad/_build.py")["sources_fingerprint"](".")
        header, source = folder / "fg_sources.h", folder / "fg_sources.c"
        header.write_text("extern const char FG_SOURCES[];\n")
        source.write_text(f'const char FG_SOURCES[] = "{fingerprint}";\n')
        return header.as_posix(), source.as_posix()

    def find_libmvec(self):
        """Which of glibc's vector functions link: "35" (all, since 2.35), "22" (sin, cos, exp, log,
        pow) or None: another libc, compiler or machine. They bind at link time, so the choice is
        made here."""
        if platform.machine() not in ("x86_64", "AMD64"):
            return None
        for version, function in (("35", "tanh"), ("22", "sin")):
            name = f"_ZGVbN2v_{function}"
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "probe.c")
                source.write_text("#ifdef __clang__\n#error knows no attribute simd\n#endif\n"
                                  "typedef double two __attribute__((vector_size(16)));\n"
                                  f"two {name}(two);\n"
                                  "int main(int n, char **names) {\n"
                                  f"    return (int){name}((two){{n, n}})[0]; }}\n")
                with quiet(), suppress(Exception):
                    objects = self.compiler.compile([str(source)], output_dir=folder)
                    self.compiler.link_executable(objects, "probe", output_dir=folder,
                                                  libraries=["mvec", "m"])
                    return version
        return None


@contextmanager
def quiet():
    """Without what the compiler says about a probe that fails."""
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class BuildPy(build_py):
    def run(self):
        # build/lib keeps modules that are gone from the sources, and would ship them.
        if not self.editable_mode:
            rmtree(Path(self.build_lib, "fastgrad"), ignore_errors=True)
        super().run()


setup(
    ext_modules=[
        Extension("fastgrad._core.core", ["fastgrad/_core/core.pyx", *CORE_C],
                  depends=[*CORE_CYTHON, *CORE_HEADERS]),
        Extension("fastgrad._core.program", ["fastgrad/_core/program.pyx", *PROGRAM_C],
                  depends=[*PROGRAM_CYTHON, *PROGRAM_HEADERS, *CORE_HEADERS]),
    ],
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
)
