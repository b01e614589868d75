"""Small worlds, in which a function is called again and again while what it reaches changes.

A world is told by a generator function, its *story*: it makes what the function needs, yields the
function (and what of the world is to be looked at afterwards), and changes something before each
further call:

    @written()
    def rising_rate():
        rate = 1.0

        def f(x):
            return np.sum(x * rate)

        yield f
        for rate in (1.0, 2.0, 3.0):
            yield

A world is made afresh for each way to run the function, with globals of its own, so that the plain
function and a compiled one live through the same story without meeting. The names of the parameters
say what the function is given: see `DATA`. `play` runs a story, `differences` compares two runs:
results, arguments, what is looked at, what was printed, and how often the function itself ran.

    python tests/worlds.py              writes tests/written/known.py: what is true today
    python tests/worlds.py rosen        what is wrong with some functions
"""

import contextlib
import functools
import inspect
import io
import pathlib
import re
import signal
import sys
import tempfile
import textwrap
import types
import warnings

import numpy as np

import fastgrad as fg
from fastgrad._core import trees

STEPS = 6
STORIES = {}                            # name -> story, in the order of the list
THEMES = ("closures names classes caches counters draws buffers captured branches containers "
          "indices iteration wrapping integers fits solvers learning sharp_bits control systems "
          "refusals").split()
FOLDER = pathlib.Path(__file__).with_name("written")

# What a function is given at each step. The first two and the last have the same order, the same
# signs and whole parts, so that a recording may be replayed; the others have another argmax, order,
# sign, count, mask.
_X = [[1.2, 2.5, 0.5], [1.4, 2.8, 0.2], [3.1, 0.7, 1.1], [-1.5, 0.4, 2.2], [0.3, -2.1, -0.6],
      [1.3, 2.6, 0.4]]
_Y = [[0.5, 1.5, 2.5], [0.6, 1.4, 2.7], [2.2, 0.1, 0.9], [1.0, -0.5, 1.7], [-0.4, 1.1, 0.2],
      [0.4, 1.6, 2.6]]
_S = [0.7, 0.9, 2.4, -0.5, -1.7, 0.8]


def _series(step):
    """Eight numbers with peaks at other places."""
    return np.round(np.sin(np.arange(8.0) * (0.7 + 0.2 * max(step - 1, 0))) + 0.02 * step + 0.3, 6)


DATA = {
    "x": lambda k: np.array(_X[k]),
    "y": lambda k: np.array(_Y[k]),
    "s": lambda k: _S[k],
    "r": lambda k: abs(_S[k]) + 0.5,                    # a positive float
    "A": lambda k: np.array([_X[k], _Y[k], _X[(k + 2) % 6]]) + 0.1 * np.eye(3),
    "X": lambda k: np.array([_X[(k + j) % 6] for j in range(4)]),
    "u": _series,
    "i": lambda k: np.array([[2, 0, 1], [2, 0, 1], [0, 1, 1], [1, 1, 2], [0, 2, 1], [2, 0, 1]][k]),
    "c": lambda k: np.array([[1, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 0, 1]][k],
                            bool),
    "n": lambda k: (2, 2, 3, 1, 4, 2)[k],               # a Python int is static
    "word": lambda k: ("sum", "sum", "mean", "max", "sum", "mean")[k],
    "p": lambda k: {"w": np.array(_X[k]), "b": _S[k]},
    "pair": lambda k: [np.array(_X[k]), _S[k]],
    "layers": lambda k: [(np.array([_X[k], _Y[k]]).T, np.array([0.1, _S[k]])),
                         (np.array([[0.5], [_S[k]]]), np.array([0.2]))],
}


def story_of(**data):
    """Make a story; `data` says what parameters are given that are not in DATA."""
    def made(story):
        story.data, story.theme = DATA | data, story.__module__.rpartition(".")[2]
        return story
    return made


def written(**data):
    """Make a story, and keep it under its name."""
    def register(story):
        assert story.__name__ not in STORIES, story.__name__
        STORIES[story.__name__] = story_of(**data)(story)
        return story
    return register


class World:
    """One telling of a story: the function `f`, and what is looked at."""

    def __init__(self, story):
        self.scope = dict(story.__globals__)
        self.told = types.FunctionType(story.__code__, self.scope, story.__name__)()
        first = next(self.told)
        self.f, self.looked_at = first if type(first) is tuple else (first, None)
        self.data = [story.data[name] for name, parameter
                     in inspect.signature(self.f).parameters.items()
                     if parameter.default is parameter.empty
                     and parameter.kind is parameter.POSITIONAL_OR_KEYWORD]

    def change(self):
        next(self.told, None)

    def rebind(self):
        """Put equal arrays in the place of those that f reaches by a name, of which the story
        changes the new ones alone."""
        bind_anew(self.f, self.scope)

    def arguments(self, step):
        return [make(step) for make in self.data]

    @property
    def floating(self):
        """The positions of the arguments that can be differentiated."""
        leaves = [trees.flatten(x)[0] for x in self.arguments(0)]
        return tuple([k for k, found in enumerate(leaves) if all(
            [type(x) is float or getattr(x, "dtype", None) == np.float64 for x in found])])


def bind_anew(*roots):
    """Put equal arrays in the place of those that are reached from here by names: cells, globals
    of functions that are among the roots, attributes, entries of dicts and lists."""
    rest, met, copies = list(roots), {}, {}

    def equal(x):
        return copies.setdefault(id(x), (x, x.copy()))[1]

    while rest:
        x = rest.pop()
        if id(x) in met:
            continue
        met[id(x)] = x
        if isinstance(x, types.FunctionType):
            rest += x.__closure__ or ()
        elif isinstance(x, types.CellType):
            with contextlib.suppress(ValueError):               # an empty one
                if type(x.cell_contents) is np.ndarray:
                    x.cell_contents = equal(x.cell_contents)
                rest.append(x.cell_contents)
        elif isinstance(x, (dict, list)):
            for key, found in list(x.items() if isinstance(x, dict) else enumerate(x)):
                if type(found) is np.ndarray:
                    x[key] = equal(found)
                rest.append(found)
        elif isinstance(x, types.MethodType):
            rest += [x.__func__, x.__self__]
        elif isinstance(x, functools.partial):
            rest.append(x.func)
        elif type(getattr(x, "__dict__", None)) is dict and not inspect.ismodule(x):
            rest.append(vars(x))


# ---- what is compared -------------------------------------------------------------------------

def seen(value, values=False, depth=0):
    """A value as something that is compared by `alike`, a copy. A Tensor is what it is: it should
    not be there; `values` takes it for its value."""
    if depth > 12:
        return "deep"
    again = functools.partial(seen, values=values, depth=depth + 1)
    if isinstance(value, fg.Tensor):
        found = again(value.detach().numpy())
        return found if values else ("Tensor", found)
    if value is None or isinstance(value, (str, bytes, bytearray, bool, np.bool_)):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, complex, np.inexact)):
        return np.asarray(value)
    if isinstance(value, np.ndarray):
        return np.array(value) if value.ndim or value.dtype.kind not in "iub" else value.item()
    if isinstance(value, dict) or hasattr(value, "keys") and hasattr(value, "values"):
        return [(again(key), again(value[key])) for key in list(value.keys())]
    if isinstance(value, (list, tuple)) or type(value).__name__ == "deque":
        return [type(value).__name__, *[again(x) for x in value]]
    if isinstance(value, (set, frozenset)):
        return sorted([repr(again(x)) for x in value])
    if inspect.isgenerator(value):
        return ["generator", *[again(x) for x in value]]
    if callable(value) or inspect.ismodule(value):
        return f"<{getattr(value, '__name__', type(value).__name__)}>"
    if isinstance(value, io.StringIO):
        return value.getvalue()
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    parts = getattr(value, "__dict__", None) or {
        name: getattr(value, name, None) for name in slots if not name.startswith("__")}
    return [type(value).__name__, *[(name, again(part)) for name, part in parts.items()]]


def alike(a, b):
    """Whether two values that were seen are the same but for rounding."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape != b.shape or (a.dtype.kind != b.dtype.kind and {a.dtype.kind, b.dtype.kind}
                                  != {"i", "u"}):
            return False
        if a.dtype.kind not in "fc":
            return np.array_equal(a, b)
        return np.array_equal(a, b) or np.allclose(a, b, rtol=1e-9, atol=1e-11, equal_nan=True)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all([alike(p, q) for p, q in zip(a, b)])
    return type(a) is type(b) and a == b


class Outcome(types.SimpleNamespace):
    """What came of one call: result or error, arguments, state, printed, runs."""

    def __repr__(self):
        return f"{self.error or self.result!r}".replace("array(", "(")


class Runs:
    """Counts how often the code of a function runs."""

    def __init__(self, f):
        f = getattr(f, "__func__", f)
        while isinstance(f, functools.partial):
            f = f.func
        if not hasattr(f, "__code__") and hasattr(type(f), "__call__"):
            f = type(f).__call__
        self.code, self.count = getattr(f, "__code__", None), 0

    def _start(self, code, offset):
        self.count += 1

    def _event(self, frame, event, argument):
        if event == "call" and frame.f_code is self.code:
            self.count += 1

    def __enter__(self):
        if self.code is None:
            pass
        elif hasattr(sys, "monitoring"):
            event = sys.monitoring.events.PY_START
            sys.monitoring.use_tool_id(4, "worlds")
            sys.monitoring.register_callback(4, event, self._start)
            sys.monitoring.set_local_events(4, self.code, event)
        else:
            sys.setprofile(self._event)
        return self

    def __exit__(self, *error):
        if self.code is None:
            pass
        elif hasattr(sys, "monitoring"):
            sys.monitoring.set_local_events(4, self.code, 0)
            sys.monitoring.register_callback(4, sys.monitoring.events.PY_START, None)
            sys.monitoring.free_tool_id(4)
        else:
            sys.setprofile(None)


def outcome(call, arguments, world, values=False):
    """One call and what came of it."""
    printed, result, error = io.StringIO(), None, None
    with contextlib.redirect_stdout(printed), Runs(world.f) as runs:
        try:
            result = call(*arguments)
        except Exception as raised:
            error = raised
    if error is None:
        try:
            result = seen(result, values)
        except Exception as raised:     # a generator that was returned
            error = raised
    state = world.looked_at
    if inspect.isfunction(state):
        state = state()
    return Outcome(result=result, error=None if error is None else type(error).__name__,
                   raised=error, arguments=seen(arguments, values), state=seen(state, values),
                   printed=printed.getvalue(), runs=runs.count)


def play(story, transform=None, values=False, rebind=False):
    """A story from its beginning to its end: the outcomes, and what was called. With `rebind`, what
    it changes in place are other arrays each time."""
    world = World(story)
    call = world.f if transform is None else transform(world)
    found = []
    try:
        for step in range(STEPS):
            if step:
                if rebind:
                    world.rebind()
                world.change()
            found.append(outcome(call, world.arguments(step), world, values))
    finally:
        world.told.close()
    return found, call


def differences(plain, other):
    """How the outcomes of a run differ from those of the plain function, in words; "" if not."""
    for step, (a, b) in enumerate(zip(plain, other)):
        where = f"step {step}: "
        if "already differentiated" in str(a.raised):
            return ""                   # f has kept Tensors from one call to the next
        if a.error != b.error:
            return (f"{where}{b.error or 'no error'} where plain has {a.error or 'none'}"
                    f" ({b.raised or a.raised})")
        for what in ("result", "arguments", "state", "printed"):
            if what == "printed" and b.runs < a.runs and not b.printed:
                continue                # what is printed is printed by a run
            if not alike(getattr(a, what), getattr(b, what)):
                return f"{where}{what} {_short(getattr(b, what))}, plain {_short(getattr(a, what))}"
        if b.runs > a.runs:
            return f"{where}ran {b.runs} times, plain {a.runs}"
    return ""


def _short(value):
    text = re.sub(r"array\(|\)|dtype=\w+|\s+", " ", repr(value))
    return re.sub(r"\s+", " ", text).strip()[:60]


# ---- the ways to run a function ---------------------------------------------------------------

class Refused(Exception):
    """An error of fastgrad's that says what to write instead."""


def _from_fastgrad(error):
    """Whether fastgrad refused something, and not the function. (What it refuses to NumPy has no
    frame of its own in the traceback.)"""
    if not isinstance(error, (TypeError, ValueError, RuntimeError, IndexError)):
        return False
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    return ("fastgrad" in file and "tests" not in pathlib.Path(file).parts
            or "a Tensor that is computed inside a transformation" in str(error)
            or "this Tensor is recorded" in str(error))


def compiling(world):
    return fg.compile(world.f)


def compiled(story):
    """`fg.compile(f)` against f: what differs, and the program."""
    plain, _ = play(story)
    other, program = play(story, compiling)
    return differences(plain, other), program


def rebound(story):
    """The same, where arrays are bound anew instead of being changed in place."""
    plain, _ = play(story, rebind=True)
    other, _ = play(story, compiling, rebind=True)
    return differences(plain, other)


def replays(program):
    """How often a program answered without its function."""
    return sum([path.calls - 1 for path in program.paths])


def differentiated(story):
    """`fg.compile(fg.value_and_grad(f))` against `fg.value_and_grad(f)`, or the Jacobian where the
    result is not one number."""
    transformation = fg.value_and_grad
    world = World(story)
    first = outcome(world.f, world.arguments(0), world)
    world.told.close()
    if not world.floating:
        return ""
    if not first.error and not (isinstance(first.result, np.ndarray) and first.result.size == 1):
        transformation = fg.jacobian

    def transform(world):
        return transformation(world.f, argnums=world.floating)

    plain, _ = play(story, transform, True)
    other, _ = play(story, lambda world: fg.compile(transform(world)), True)
    return differences(plain, other)


def _steady(world, step):
    """The outcomes of f for three lanes of data; None where f raises, or returns what cannot be
    stacked, False where it changes something."""
    before = outcome(lambda: None, (), world).state
    lanes = [(step + j) % STEPS for j in range(3)]
    found = [outcome(world.f, world.arguments(k), world) for k in lanes]
    again = [outcome(world.f, world.arguments(k), world) for k in lanes]
    for a, b, k in zip(found, again, lanes):
        if a.printed or not alike(a.result, b.result) or not alike(a.state, before) or (
                not alike(a.arguments, seen(world.arguments(k)))):
            return False
        if a.error or not _numbers(a.result):
            return None
    return [a.result for a in found] if all(
        [_structure(a.result) == _structure(found[0].result) for a in found]) else None


def _numbers(value):
    if isinstance(value, list):
        return all([_numbers(x) for x in value[1:]])
    return isinstance(value, (np.ndarray, int, bool))


def _structure(value):
    return [value[0], *map(_structure, value[1:])] if isinstance(value, list) else np.shape(value)


def _lanes(world, step):
    return np.stack([np.asarray(world.arguments((step + j) % STEPS)[0]) for j in range(3)])


def _loose(value):
    """Numbers whatever their type: vmap makes arrays of ints."""
    if isinstance(value, (list, tuple)):
        return [value[0], *map(_loose, value[1:])] if isinstance(value, list) else value
    return np.asarray(value, float)


def lanes(story, transform, names=("x", "s", "u", "X", "A", "y", "r")):
    """Rows of data at once, by `fg.vmap` or `fg.scan`, against f of one after the other."""
    plain, mapped = World(story), World(story)
    if len(plain.data) != 1 or plain.data[0] not in [DATA[name] for name in names]:
        return ""
    program, refused = transform(mapped.f), None
    try:
        for step in range(STEPS):
            if step:
                plain.change()
                mapped.change()
            expected = _steady(plain, step)
            if expected is False:
                break
            if expected is None:
                continue
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    got = program(_lanes(mapped, step))
                except Exception as error:
                    if not _from_fastgrad(error):
                        return f"step {step}: {type(error).__name__} ({error})"
                    refused = error
                    continue
            for j, wanted in enumerate(expected):
                lane = seen(fg.trees.map(lambda leaf, j=j: leaf[j] if np.ndim(leaf) else leaf, got))
                if not alike(_loose(lane), _loose(wanted)):
                    return f"step {step}: lane {j} is {_short(lane)}, plain {_short(wanted)}"
    finally:
        plain.told.close()
        mapped.told.close()
    if refused is not None:
        raise Refused(str(refused)) from refused
    return ""


def mapped(story):
    """`fg.compile(fg.vmap(f))`."""
    return lanes(story, lambda f: fg.compile(fg.vmap(f)))


def scanned(story):
    """`fg.scan` of f in a program."""
    return lanes(story, lambda f: fg.compile(
        lambda rows: fg.scan(lambda carry, row: (carry + 1.0, f(row)), 0.0, rows)[1]))


def saved(story):
    """A program that was saved after the story and loaded, against f as it is then: the same, or
    GuardError."""
    world = World(story)
    program = fg.compile(world.f)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            for step in range(STEPS):
                if step:
                    world.change()
                try:
                    program(*world.arguments(step))
                except Exception:
                    continue
        expected = [outcome(world.f, world.arguments(k), world) for k in range(STEPS)]
        steady = all([alike(a.state, expected[0].state) and not a.printed for a in expected])
        if not steady or not program.paths or all([path.left for path in program.paths]):
            return ""
        with tempfile.NamedTemporaryFile(suffix=".fgp") as file:
            try:
                program.save(file.name)
                loaded = fg.load(file.name)
            except (TypeError, RuntimeError, ValueError) as error:
                raise Refused(str(error)) from error
        for step, wanted in enumerate(expected):
            got = outcome(loaded, world.arguments(step), world)
            if got.error in ("GuardError", "TypeError", "ValueError"):
                continue
            if got.error != wanted.error or not alike(got.result, wanted.result) or (
                    not alike(got.arguments, wanted.arguments)):
                return (f"step {step}: {_short(got.result)}, plain "
                        f"{wanted.error or _short(wanted.result)}")
    finally:
        world.told.close()
    return ""


MODES = {"compile": lambda story: compiled(story)[0], "rebound": rebound, "grad": differentiated,
         "vmap": mapped, "scan": scanned, "save": saved}


def load_all():
    """Import the themes: what is written is in STORIES then."""
    for theme in THEMES:
        __import__(f"written.{theme}")
    return STORIES


# ---- compilers that are wrong -----------------------------------------------------------------

def first_answer(f):
    """A compiler that replays whatever the first call returned."""
    answers = []

    def again(*args):
        if not answers:
            answers.append(f(*args))
        return answers[0]

    return again


def twice(f):
    """A compiler that runs f once more than it should."""
    def called(*args):
        f(*args)
        return f(*args)
    return called


# ---- what is true today -----------------------------------------------------------------------

KINDS = {                               # a pattern of what `differences` says, and a word for it
    r"ran \d+ times": "runs more often than it is called",
    r"TimeoutError": "does not end",
    r"\w+ (\([^']|where plain)": "raises what the plain function does not",
    r"no error": "does not raise what the plain function does",
    r"(result|state|arguments) .*\('Tensor'.*plain": "leaves a Tensor behind",
    r"state|arguments|printed": "does not change what the plain function changes",
    r".": "has a result that is not the plain function's",
}


def kind_of(wrong):
    """A word for what is wrong."""
    text = wrong.partition(": ")[2]
    return next(word for pattern, word in KINDS.items() if re.match(pattern, text))


@contextlib.contextmanager
def limited(seconds=20):
    """An error instead of a loop without end: a frozen branch may be one."""
    def hangs(*_):
        raise TimeoutError("does not end")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check(story, mode):
    """What is wrong with a story in a mode, and whether it is replayed (None but for compile)."""
    with warnings.catch_warnings(), limited():
        warnings.simplefilter("ignore")
        try:
            if mode != "compile":
                return MODES[mode](story), None
            wrong, program = compiled(story)
            return wrong, replays(program) > 0
        except TimeoutError as error:
            return f"step: TimeoutError ({error})", None


def survey(names=None):
    """Each function in each mode: names that are replayed, (mode, name) that are refused, and what
    is wrong with (mode, name)."""
    replayed, refused, lies = [], [], {}
    for name, story in STORIES.items():
        for mode in MODES:
            if names and name not in names:
                continue
            try:
                wrong, again = check(story, mode)
            except Refused:
                refused.append((mode, name))
                continue
            if again:
                replayed.append(name)
            if wrong:
                lies[mode, name] = wrong
    return replayed, refused, lies


def main(names):
    """Write tests/written/known.py, or tell what is known of some functions."""
    load_all()
    replayed, refused, lies = survey(names)
    print(f"{len(STORIES)} functions, {len(replayed)} replayed, {len(refused)} refused, "
          f"{len(lies)} wrong")
    for (mode, name), wrong in lies.items():
        print(f"{mode:8}{name}: {wrong}")
    if names:
        return

    def listed(names):
        return textwrap.wrap(" ".join(names), 98)

    said = ['"""What is true of these functions today, written by `python tests/worlds.py`.', "",
            "Look at what changes before it is committed: a function that leaves REPLAYED is",
            "recorded at each call from now on; LIES are to be mended, their tests expect failure.",
            '"""', "", "# Answered without their function at least once.",
            'REPLAYED = """', *listed(replayed), '""".split()', "",
            "# An error of fastgrad's with a cure.", "REFUSED = {"]
    for mode in MODES:
        found = [name for way, name in refused if way == mode]
        if found:
            said += [f'    "{mode}": """', *listed(found), '""".split(),']
    said += ["}", "", "# What differs from the plain function, by mode.", "LIES = {"]
    for mode in MODES:
        said.append(f'    "{mode}": {{')
        for word in KINDS.values():
            found = [name for (way, name), wrong in lies.items()
                     if way == mode and kind_of(wrong) == word]
            if found:
                said += [f'        "{word}": """', *listed(found), '""".split(),']
        said.append("    },")
    (FOLDER / "known.py").write_text("\n".join([*said, "}", ""]))


if __name__ == "__main__":
    import worlds  # the module that the themes register with

    sys.exit(worlds.main(sys.argv[1:]))
