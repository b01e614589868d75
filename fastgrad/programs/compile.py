"""Functions that are recorded once and replayed: `compile` and `Program`.

A call is looked at in three steps. Its *signature* (structure of the arguments, dtypes, shapes, and
whatever is no number) finds the paths recorded for such arguments. A *path* is one run of the
function, planned; it may be replayed if what the function reaches besides its arguments is what it
was (watch.py) and if its guards hold, which its plan tells. If no path fits, the function is
recorded anew; where a recording must not stand for the function, the function itself is called.

Several threads may call a program. What they share (the signatures, the paths of each, the paths
that have left) is never changed but replaced as a whole, where nobody else has done so meanwhile
(`Cell`): no lock is held, since the function, and `__eq__` and `__hash__` of its arguments, may do
anything, waiting for another thread's call included. Two threads that meet the same new arguments
both record; the path of the second is dropped if that of the first serves.
"""

import contextlib
import functools
import inspect
import pickle
import sys
import types

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.arguments import name_of
from fastgrad._core.core import GuardError
from fastgrad._core.program import Caller, Cell, Tally, use_vectorcall
from fastgrad.code import watch
from fastgrad.code.effects import Effects, effects
from fastgrad.code.watch import Watch, constant
from fastgrad.graphs.replay import replay

from .compare import compare, difference
from .functionless import Functionless
from .lift import liftable, stand_ins
from .paths import Path, Static, argument_parts, captured_value, parted
from .run import DTYPES, Run, Shares, alike, apart, filled, in_order, meet, turns_taken
from .shown import Shown
from .signature import (
    MISSES,
    WINDOW,
    ByIdentity,
    Call,
    Signature,
    dead,
    is_described,
    key_of,
    keys_in,
    replace_in,
    static_key,
)

__all__ = ["Path", "Program", "compile", "constant"]

Tensor = core.Tensor

SIGNATURES = 256            # so many are kept of a program; then the oldest goes
LEFT = 32                   # paths that have left are remembered

# A method may be called as a function, and then its first argument is as any other.
_NO_SELF = frozenset([float, np.ndarray, np.float64, np.float32, tuple, list, dict, Tensor])


def compile(f=None, *, static_argnums=(), static_argnames=(), paths=8, pure=False, verify=0,
            quiet=False):
    """A function that is recorded when it first meets arguments of some shapes, and replayed then.

    Parameters
    ----------
    f : callable
        Takes floats, arrays, NumPy scalars, and trees of them, which are read anew at each call;
        everything else that it takes (strings, None, ints, bools, functions, objects) is part of
        the signature: other values are another recording. Without f this is a decorator.
    static_argnums : int or tuple of int
        Positional arguments that are part of the signature though they hold floats.
    static_argnames : str or tuple of str
        The same by name.
    paths : int
        How many recordings are kept for one signature. A branch, an index or a loop bound that is
        taken from a value is a guard: a call with another outcome is recorded too, and beyond this
        number the path used least is forgotten.
    pure : bool
        The word of who writes it that f depends on its arguments alone and changes nothing else:
        nothing is watched, and what f reaches is frozen when it is recorded. `verify` checks it.
    verify : int
        Compare the first so many replays, and then now and again, with the plain function.
    quiet : bool
        Say nothing of what is not replayed, or printed once only; `Program.reasons` has it.

    Returns
    -------
    Program
        Returns what f returns: floats, NumPy scalars and new arrays in place of Tensors.

    Raises
    ------
    TypeError
        If f is a generator function; at a call, for an array or scalar of a dtype that is not
        supported (float16, longdouble, objects, records, dates) or of a class of its own.
    RuntimeError
        With `verify`, when a replay differs from the plain function.

    Warns
    -----
    UserWarning
        Once for each reason why f is called as it is instead of being replayed: random numbers,
        stores, values that leave for Python (``.item()``), arguments that no program takes (complex
        arrays, texts, what is no number and not hashable); and once if f prints values.

    Notes
    -----
    Names that f reaches (closure, globals, defaults, attributes of the instance of a method, and
    the same of functions that it calls) are compared at each call. Arrays among them that f uses
    directly are read again, others compared with a copy; what NumPy computes of them inside of f
    (``np.eye(3)``, ``X - X.mean(0)``) is a constant. A float among them that changes becomes an
    input where f does arithmetic with it. Arrays among the arguments that f writes to are written
    at each call; where they share memory with each other, or with an array that f reaches by a
    name, f itself is called, as it is where f changes anything else that was there before (an
    attribute, a list, a global), or asks whether arrays are one object (``a is b``). What it prints
    or logs is told when it is recorded only.

    f runs once for each call that is not replayed. Where a recording turns out not to be
    replayable, it has been the call all the same, and leaves no Tensor behind.

    Examples
    --------
    >>> @fg.compile
    ... def f(x):
    ...     return np.sum(np.sin(x) * x)
    >>> f(np.array([0.0, 1.0]))
    np.float64(0.8414709848078965)
    >>> fg.grad(f)(np.array([0.0, 1.0]))
    array([0.        , 1.38177329])
    """
    options = {"static_argnums": static_argnums, "static_argnames": static_argnames,
               "paths": paths, "pure": pure, "verify": verify, "quiet": quiet}
    if f is None:
        return functools.partial(compile, **options)
    if isinstance(f, Program) and f.function is not None:
        made = Program(f.function, **options)
        made._origin = None, f, (), {}
        return made
    return Program(f, **options)


# ---- programs -------------------------------------------------------------------------------

# What is said of a function in place of its effects: whoever has written it vouches for it.
_PURE = Effects(None, False, False, frozenset())


class Untaken(TypeError):
    """Raised for an argument that no program takes, but the function may."""


class Program(Shown, Functionless, Caller):
    """A function that is recorded and replayed. Made by `compile`, `function` and `load`.

    Parameters
    ----------
    function : callable or None
        The Python function; None for a program that was loaded or made from a history: it raises
        GuardError where a guard does not hold.
    static_argnums, static_argnames, paths, pure, verify, quiet
        As of `compile`.
    name : str, optional
        For messages.

    Attributes
    ----------
    function : callable or None
    paths : list of Path
        The recorded runs, with their signatures and guards, and how often each ran; those that
        have left say why.

    Examples
    --------
    >>> f = fg.compile(lambda x: x * 2 if x > 1 else x)
    >>> f(1.0), f(3.0), f(5.0)
    (1.0, 6.0, 10.0)
    >>> [(path.signature, path.calls, path.guards[0].outcome) for path in f.paths]
    [('(float)', 2, True), ('(float)', 1, False)]
    >>> isinstance(fg.grad(f), fg.Program)
    True
    """

    def __init__(self, function, static_argnums=(), static_argnames=(), paths=8, pure=False,
                 verify=0, quiet=False, name=None):
        if function is not None:
            if not callable(function):
                raise TypeError("compile: the first argument must be a function, not "
                                f"{type(function).__name__}")
            inner = watch.innermost(function)
            if inner is not None and (inspect.isgeneratorfunction(inner)
                                      or inspect.iscoroutinefunction(inner)
                                      or inspect.isasyncgenfunction(inner)):
                raise TypeError(f"compile: {inner.__name__} is a generator or coroutine function, "
                                "which has no result to be replayed; return a list")
        self.function = function
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            if hasattr(function, attribute):
                setattr(self, attribute, getattr(function, attribute))
        if function is not None:
            self.__wrapped__ = function
        self._name = name or ("a program" if function is None else name_of(function))
        self._options = {"static_argnums": static_argnums, "static_argnames": static_argnames,
                         "paths": paths, "pure": pure, "verify": verify, "quiet": quiet}
        self._origin = None         # (transformation or None, program, args, kwargs) it is made of
        self._limit, self._verify, self._quiet = int(paths), int(verify), bool(quiet)
        self._pure = bool(pure)
        if self._limit < 1:
            raise ValueError(f"compile: paths={paths!r} must be at least 1")
        self._static_positions, self._static_names = self._statics(static_argnums, static_argnames)
        self._method = False
        self._table = Cell({})      # signatures by key, the oldest first
        self._gone = Cell(())       # paths that have left
        self._slow_calls = Tally()
        self._warned = {}
        self.reasons = []           # why calls were not replayed, each once

    def _statics(self, argnums, argnames):
        """Positions and names of the static arguments, each argument by both."""
        argnums = (argnums,) if hasattr(argnums, "__index__") else tuple(argnums)
        argnames = (argnames,) if isinstance(argnames, str) else tuple(argnames)
        if not argnums and not argnames:
            return frozenset(), frozenset()
        try:
            names = list(inspect.signature(self.function).parameters)
        except (TypeError, ValueError):
            names = []
        for k in argnums:
            if not hasattr(k, "__index__") or (names and not -len(names) <= k < len(names)):
                raise TypeError(f"compile: static_argnums={argnums!r} names no argument of "
                                f"{self._name}")
        for name in argnames:
            if names and name not in names:
                raise TypeError(f"compile: static_argnames: {self._name} has no argument {name!r}")
        positions = {k.__index__() % len(names) if names else k.__index__() for k in argnums}
        positions |= {names.index(name) for name in argnames if name in names}
        return frozenset(positions), frozenset(argnames) | {names[k] for k in positions if names}

    # ---- what it looks like -----------------------------------------------------------------

    def __set_name__(self, owner, name):
        self._method = True

    def __get__(self, instance, owner=None):
        return self if instance is None else types.MethodType(self, instance)

    @property
    def paths(self):
        return [*self._all(), *self._gone.value]

    @property
    def _signatures(self):
        return self._table.value

    def _all(self):
        return [path for signature in self._signatures.values() for path in signature.paths]

    def _leave(self, paths, reason):
        """These paths are no longer in use."""
        for path in paths:
            path.left = reason
            self._renew(path)
        replace_in(self._gone, lambda gone: (*gone, *paths)[-LEFT:])

    def save(self, path):
        """Write the recorded paths to a file that `fastgrad.load` reads."""
        core.HANDED_DOWN["files"].save(self, path)

    def paths_only(self):
        """The recorded paths as a program without the function, which can be pickled whatever the
        function is: as `save` and `fastgrad.load`, without a file.

        Returns
        -------
        Program
            Raises GuardError where no path fits, and takes the signatures recorded so far.

        Raises
        ------
        RuntimeError
            If no path has been recorded.
        TypeError
            If a path holds what is no data.

        Examples
        --------
        >>> import pickle
        >>> f = fg.compile(lambda x: x * x)
        >>> f(3.0)
        9.0
        >>> pickle.loads(pickle.dumps(f.paths_only()))(4.0)
        16.0
        """
        kind, arguments = core.HANDED_DOWN["files"].reduced(self, "paths_only")
        return kind(*arguments)

    def __reduce__(self):
        found = core.by_name(self)
        if found is not None:
            return found
        if self.function is None:
            return core.HANDED_DOWN["files"].reduced(self)
        if self._origin is not None:
            return _remade, (*self._origin, self._options)
        function = self._hidden()
        if function is not None and not _by_value():
            raise pickle.PicklingError(
                f"pickle: {self._name}: the function {function.__qualname__} cannot be imported, "
                "so the program cannot be pickled with it; define it in a module, or pickle what "
                "has been recorded of it alone: program.paths_only()")
        return _made, (type(self), self.function, self._options, self._name)

    def __copy__(self):
        if self.function is None:
            kind, arguments = self.__reduce__()
            return kind(*arguments)
        made = _made(type(self), self.function, self._options, self._name)
        made._origin = self._origin
        return made

    def __deepcopy__(self, memo):
        return self.__copy__()

    def _hidden(self):
        """The Python function, if another process would not find it by its name."""
        function = self.function
        while isinstance(function, functools.partial) or hasattr(type(function), "_parts"):
            if core.by_name(function) is not None:
                return None
            function = function.func if isinstance(function, functools.partial) else (
                function.__wrapped__)
        hidden = type(function) is types.FunctionType and core.by_name(function) is None
        return function if hidden else None

    def _transformed(self, transform, transformation, args, kwargs):
        """The program of a transformation of this one's function."""
        inner = self if self.function is None else self.function
        made = Program(transformation(inner, *args, **kwargs), **self._options)
        made._origin = transform, self, args, kwargs
        return made

    # ---- a call -----------------------------------------------------------------------------

    def __init_subclass__(cls):
        use_vectorcall(cls)

    def _call(self, args, kwargs):
        if core.nested() or core.recording_program():
            return self._inside(args, kwargs)
        args, kwargs = self._bound(args, kwargs)
        try:
            call = self._taken_apart(args, kwargs)
        except Exception as error:
            untaken = isinstance(error, Untaken)
            if self.function is None or not (untaken or _of_others(error)):
                raise
            if untaken:
                self._warn("untaken", str(error).partition(": ")[2])
            return core.settled(self.function(*args, **kwargs))
        if call is None:
            return self._inside(args, kwargs)
        entry = self._signatures.get(call.key)
        if entry is None:
            entry = self._new_signature(call) if self.function is not None else self._nearest(call)
        self._slow_calls.add()
        if entry.plain:
            return self._as_it_is(entry, args, kwargs)
        if entry.ordered and not in_order(call.targets):
            return apart(self._as_it_is(entry, args, kwargs), call.targets)
        now = []
        call.tried = entry.paths
        for path in call.tried:
            captured = path.inputs(call.roots, call.instance, now)
            if captured is None:
                continue
            if path.written and meet(path.written, call.targets, path.reached(captured)):
                return self._shared(entry, args, kwargs)
            try:
                result = path.plan.run(call.values + captured)
            except Exception:           # a singular matrix, say: the function may catch that
                if self.function is None:
                    raise
                return self._as_it_is(entry, args, kwargs)
            if type(result) is int:
                failed = path, result
                continue
            return self._replayed(entry, call, path, result, args, kwargs)
        if self.function is None:
            self._guard_error(failed)
        return self._recorded(entry, call, args, kwargs, now)

    def _bound(self, args, kwargs):
        """Arguments by position and by name as they are to be looked at."""
        return args, kwargs

    def _inside(self, args, kwargs):
        """With Tensors, and inside transformations and recordings: what the function does."""
        leaves, structure = trees.flatten((args, kwargs))
        for leaf in leaves:
            if isinstance(leaf, core.Deferred):
                return leaf.defer(self, args, kwargs)
        if self.function is not None:
            return self.function(*args, **kwargs)
        call = self._taken_apart(args, kwargs, True)
        entry, error = self._nearest(call), None
        for path in entry.paths:
            values = call.values + [x if isinstance(x, Tensor) else captured_value(x)
                                    for x in path.captured]
            try:
                results = replay(path.graph, values)
                for k, place in path.written:
                    call.targets[k][...] = results[place]
                return _answer(path, results)
            except GuardError as failed:
                error = failed
        raise error

    def _taken_apart(self, args, kwargs, tensors=False):
        """The call as a signature and values; None if it has Tensors that are not asked for."""
        instance = watch.bound_to(self.function)
        if self._method or self._static_positions or self._static_names:
            args, kwargs = list(args), dict(kwargs)
            if self._method and args and type(args[0]) not in _NO_SELF:
                instance, args[0] = args[0], Static(args[0], True)
            for k in self._static_positions:
                if k < len(args) and type(args[k]) is not Static:
                    args[k] = Static(args[k])
            for name in self._static_names:
                if name in kwargs:
                    kwargs[name] = Static(kwargs[name])
            args = tuple(args)
        leaves, structure = trees.flatten((args, kwargs) if kwargs else args)
        values, targets, kinds, roots = [], [], [], [self.function]
        for k, leaf in enumerate(leaves):
            kind = type(leaf)
            value = leaf
            if kind is float:
                kinds.append("float")
            elif kind is np.ndarray or isinstance(leaf, np.generic):
                dtype = leaf.dtype
                if dtype.char not in DTYPES:
                    raise (Untaken if dtype.char in "FDSU" else TypeError)(
                        self._unsupported(args, kwargs, k, leaf))
                if not dtype.isnative:
                    value = leaf.astype(dtype.newbyteorder("="))
                kinds.append((dtype.char, leaf.shape) if kind is np.ndarray else dtype.char)
            elif isinstance(leaf, (Tensor, core.Deferred)):
                if not tensors:
                    return None
                kinds.append((leaf.dtype.char, leaf.shape) if leaf.ndim else leaf.dtype.char)
            else:
                kinds.append(self._static_key(leaf, roots, args, kwargs, k))
                continue
            values.append(value)
            targets.append(leaf)
        return Call(key=key_of(structure, kinds, bool(kwargs)), values=values, targets=targets,
                     leaves=leaves, structure=structure, keywords=bool(kwargs),
                     roots=[] if self._pure else roots,
                     instance=None if self._pure else instance)

    def _static_key(self, leaf, roots, args, kwargs, k):
        """What a static argument adds to the signature."""
        if type(leaf) is Static:
            value = leaf.value
            if leaf.by_identity:
                roots.append(value)
                return ByIdentity(value)
            parts, structure = trees.flatten(value)
            if structure != trees.LEAF:
                return structure, keys_in(structure), tuple([
                    self._static_key(part, roots, args, kwargs, k) for part in parts])
            leaf = value
        if isinstance(leaf, np.ndarray):
            raise TypeError(self._unsupported(args, kwargs, k, leaf))
        if not is_described(leaf):
            roots.append(leaf)
            if type(leaf).__hash__ is None and watch._known_module(type(leaf).__module__):
                raise Untaken(self._unsupported(args, kwargs, k, leaf))
        return static_key(leaf)

    def _unsupported(self, args, kwargs, k, leaf):
        where = trees.leaves_with_paths(args if not kwargs else (args, kwargs))[k][0]
        if kwargs:
            where = where[3:]
        where = f"{self._name}: argument {where}"
        if (isinstance(leaf, np.ndarray) and type(leaf) is not np.ndarray
                and leaf.dtype.char in DTYPES):
            return f"{where} is a {type(leaf).__name__}; " + (
                core.array_kind(leaf) or "pass an ndarray: np.asarray(x)")
        if isinstance(leaf, (np.ndarray, np.generic)):
            return (f"{where} has dtype {leaf.dtype}, which a program does not take; write "
                    ".astype(float), or name the argument in static_argnames if it is hashable")
        return (f"{where} is a {type(leaf).__name__}, which is no number, no array, and not "
                "hashable; pass a tuple, or let the function reach it by name")

    def _new_signature(self, call):
        entry, many = Signature(self._text(call)), False
        while True:
            before = self._signatures
            if call.key in before:                  # another thread's, since the caller looked
                return before[call.key]
            after = {key: other for key, other in before.items() if not any(
                [dead(kind) for kind in key[1]])}
            after[call.key] = entry
            many = len(after) > SIGNATURES
            if many:
                del after[next(iter(after))]
            if self._table.swap(before, after):
                break
        for key, other in before.items():
            if key not in after:
                for path in other.paths:
                    self._renew(path)
        if many:
            self._warn("many", f"it has been called with more than {SIGNATURES} different shapes "
                       "and static arguments; floats and arrays can change from call to call "
                       "without a recording, ints cannot: pass float(n) or np.int64(n)")
        return entry

    def _replayed(self, entry, call, path, result, args, kwargs):
        path._calls.add()
        replay = path.replays.add() + 1
        if entry.paths[:1] != (path,):
            entry.change(lambda paths: (path, *[other for other in paths if other is not path])
                         if path in paths else paths)
        self._shorten(entry, path, call)
        answer = _answer(path, result)
        if self._verify and (replay <= self._verify or replay & replay - 1 == 0):
            compare(self._name, path, replay, answer, self.function(*args, **kwargs))
            written = [(call.targets[k], result[place]) for k, place in path.written]
            for got, wanted in written:     # the plain function has written them
                wrong = difference(wanted, got)
                if wrong:
                    raise RuntimeError(f"{self._name}: verify: replay {replay} of the path "
                                       f"{path.signature} differs from the function in an "
                                       f"argument that is written to: {wrong}")
            return answer
        for k, place in path.written:
            call.targets[k][...] = result[place]
        return answer

    def _shorten(self, entry, path, call):
        """Let the next call with such arguments find the path at once."""
        if self._verify or path.written:
            return
        branch, names = call.structure, ()
        if call.keywords:
            branch, keywords = branch.children
            names = keywords.keys
            branch = branch._replace(children=branch.children + keywords.children)
        arguments = argument_parts(branch, iter(call.leaves), entry.ordered)
        short = path.entry(arguments, names, call.roots)
        if short is not None:
            self._renew(path, short)

    # ---- recording --------------------------------------------------------------------------

    def _recorded(self, entry, call, args, kwargs, now):
        """Run the function once and keep the run, if it may be replayed."""
        try:
            found = _PURE if self._pure else effects(self.function, args, kwargs)
            turns = None if self._pure else turns_taken()
            if found.reason is None:
                state = now[0] if now and turns is None else Watch(call.roots, call.instance)
        except Exception as error:
            if not _of_others(error):
                raise
            found = Effects(f"looking at what it reaches raises {type(error).__name__}", False,
                            False, frozenset())
        if found.reason is not None:
            return self._plainly(entry, found.reason, args, kwargs)
        entry.ordered = entry.ordered or found.ordered
        if entry.ordered and not in_order(call.targets):
            return apart(self._as_it_is(entry, args, kwargs), call.targets)
        if state.reason is None and sum(x.nbytes for x in state.arrays) > watch.COPIES:
            largest = max(range(len(state.arrays)), key=lambda k: state.arrays[k].nbytes)
            state.reason = (f"it reaches {state.arrays[largest].nbytes >> 20} MB in "
                            f"`{state.labels[largest]}`; pass it as an argument, or vouch for it "
                            "with fg.constant")
        if state.reason is None:
            for k, x in enumerate(state.arrays):
                if isinstance(x, Tensor) and x.requires_grad and core.is_recording():
                    entry.history = True
                    state.reason = (f"the Tensor `{state.labels[k]}` requires a gradient, so what "
                                    "is computed with it has a history; pass it as an argument"
                                    + state.line_of(state.labels[k]))
                    break
        if state.reason is not None:
            return self._plainly(entry, state.reason, args, kwargs)
        if found.writes and _share(call.targets, state.arrays):
            return self._shared(entry, args, kwargs)
        calls = self._slow_calls.count + self.fast_calls
        token = object()
        if not replace_in(entry.recording, lambda others: (*others, token)):
            entry.recorded.append(calls)            # what others record at the same time is no miss
        try:
            return self._newly_recorded(entry, call, state, calls, args, kwargs, found.typed, turns)
        finally:
            replace_in(entry.recording, lambda others: tuple(
                [other for other in others if other is not token]))

    def _newly_recorded(self, entry, call, state, calls, args, kwargs, typed, turns):
        """The same, where the state is known and allows it."""
        recorded = tuple(entry.recorded)
        if len(recorded) > MISSES and calls - recorded[0] <= WINDOW:
            paths = entry.paths[:2]
            what = f" (such as {parted(*paths)}; pass it as an argument)" if len(paths) > 1 else ""
            return self._plainly(entry, f"{MISSES + 1} of its last {WINDOW} calls met another "
                                 f"outcome or another state{what}; it is recorded at each call "
                                 "from now on", args, kwargs)
        lifted = liftable(entry, state) or ()
        return self._record_once(entry, call, state, args, kwargs, lifted, typed, turns)

    def _record_once(self, entry, call, state, args, kwargs, lifted, typed, turns):
        """Run the function once, and keep the run if it may be replayed; returns the answer."""
        run = Run(self.function, call, (args, kwargs), state, lifted, typed, turns,
                  stand_ins(state) if entry.stand_ins else ())
        try:
            run.go()
        except BaseException as error:
            if not run.failed(error):
                entry.plain = entry.plain or bool(run.changed)
                raise
            failed = error
        else:
            return self._kept(entry, call, run)
        if isinstance(failed, Shares):
            return self._shared(entry, args, kwargs)
        # The plain function may do what Tensors refuse: json.dumps(x), isinstance(x, float).
        answer = self._as_it_is(entry, args, kwargs)
        entry.plain = True
        self._warn(str(failed), f"{type(failed).__name__}: {failed}")
        return answer

    def _kept(self, entry, call, run):
        """The answer of a run, which is kept as a path if nothing speaks against it."""
        state, recording = run.state, run.recording
        reason, captured, numbers = run.reason, [], {}
        if reason is None:
            numbers = {id(x): k for k, x in enumerate(state.arrays)}
            captured = [numbers.get(id(x)) for x in recording.captured]
            if None in captured:
                reason = "it uses an array that is none of its arguments and not reached by a name"
        if reason is not None:
            if run.lifted:
                entry.guarded.update(run.lifted)    # next time they are compared
            elif not entry.stand_ins and recording.left and stand_ins(state):
                entry.stand_ins = True              # next time Tensors stand for them
            else:
                entry.plain = entry.plain or not entry.paths
                self._warn(reason, reason)
            return run.answer
        if run.disturbed and not self._confirmed(entry, run):
            return run.answer
        if run.changed:
            entry.changed += 1
            if entry.changed > 1:
                entry.plain = not entry.paths
                self._warn("changes", f"it changes {run.changed}, which it reads")
            return run.answer
        if run.told is not None:
            self._say("told", "is replayed without what it prints of its values: that is printed "
                      f"when it is recorded ({run.told}; quiet=True does not say this)")
        # NumPy scalars may have been computed from any array, also from those that are inputs.
        compared = captured if run.scalars else [numbers[id(x)] for x in recording.frozen
                                                 if id(x) in numbers]
        path = Path(entry.text, recording.graph, run.returned, run.places, run.after, captured,
                    run.lifted, compared, run.copies, run.written, recording.derived,
                    run.stand_ins)
        path._calls.add()
        while True:
            before = entry.paths
            if any([self._serves(other, call) for other in before if other not in call.tried]):
                return run.answer                   # another thread was faster
            if entry.plain:                         # ... and found that none must be replayed
                return run.answer
            least = None
            if len(before) >= self._limit:
                least = min(before, key=lambda other: other.calls)
            if entry._paths.swap(before, (path, *[x for x in before if x is not least])):
                break
        self._shorten(entry, path, call)
        if least is not None:
            self._leave([least], f"the path used least of more than {self._limit}")
        return run.answer

    @staticmethod
    def _confirmed(entry, run):
        """Whether to believe a run during which another thread had a turn: not if the state has
        changed, and else once it is the third in a row that has given the same."""
        last, count = entry.disturbed
        if run.changed:
            entry.disturbed = None, 0
        else:
            count = count + 1 if last is not None and alike(run.found(), last) else 1
            entry.disturbed = run.found(), count
            if count == 3:
                entry.disturbed = None, 0
                return True
        with contextlib.suppress(IndexError):
            entry.recorded.pop()        # (which is no miss)
        return False

    def _serves(self, path, call):
        """Whether a path takes these arguments."""
        captured = path.inputs(call.roots, call.instance, [])
        return captured is not None and type(path.plan.run(call.values + captured)) is not int

    def _plainly(self, entry, reason, args, kwargs):
        """Call the function as it is, now and from now on."""
        entry.plain = True
        self._warn(reason, reason)
        self._leave(entry.change(lambda paths: ()), reason)
        return self._as_it_is(entry, args, kwargs)

    def _shared(self, entry, args, kwargs):
        """A call with arguments that share memory, one of which is written to."""
        if self.function is None:
            raise ValueError(f"{self._name}: an argument that is written to shares memory with "
                             "another array, and there is no Python function to be called; pass "
                             "copies")
        self._warn("shared", "it writes to an argument that shares memory with another array; the "
                   "function itself is called")
        return self._as_it_is(entry, args, kwargs)

    def _as_it_is(self, entry, args, kwargs):
        """What the function returns, without Tensors as ever; with them, where they have a history
        that somebody may want to differentiate."""
        answer = self.function(*args, **kwargs)
        return answer if entry.history else core.settled(answer)

    def _warn(self, key, reason):
        """Warn once, at the user's line."""
        if self._say(key, f"is not replayed: {reason}"):
            self.reasons.append(reason)

    def _say(self, key, what):
        """Say something once; returns whether it is the first time."""
        own = object()
        first = self._warned.setdefault(key, own) is own
        if first and not self._quiet:
            core.warn(f"compile: {self._name} {what}")
        return first


use_vectorcall(Program)


def _made(kind, function, options, name):
    """Unpickle a program."""
    return kind(function, **options, name=name)


def _remade(transform, program, args, kwargs, options):
    """Unpickle a program that is made of another one."""
    if transform is None:
        made = Program(program.function, **options)
    else:
        made = transform(program, *args, **kwargs)
        made = Program(made.function, **options)
    made._origin = transform, program, args, kwargs
    return made


def _by_value():
    """Whether a pickler asks that takes functions along whatever they are (joblib's, for one)."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") == "pickle":
        frame = frame.f_back
    module = "" if frame is None else str(frame.f_globals.get("__name__"))
    return not {"cloudpickle", "dill"}.isdisjoint(module.split("."))


def _of_others(error):
    """Whether an error comes of code of the user's: of `__getattribute__`, say, which is asked for
    the class of an object."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return not str(trace.tb_frame.f_globals.get("__name__")).startswith("fastgrad.")


def _share(targets, others):
    """Whether arrays among the arguments share memory with each other, or with others."""
    arrays = [k for k, x in enumerate(targets) if isinstance(x, np.ndarray)]
    return meet([(k, None) for k in arrays], targets, others) if arrays else False


def _answer(path, results):
    if path.returned == trees.LEAF and path.places[0] == 0:
        return results[0]
    return trees.unflatten(path.returned, filled(path.places, results))
