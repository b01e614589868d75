"""One run of a program's function that is recorded: `Run`.

The run is the call it is made at, whether it can be replayed later or not. What the function
returned is the answer, with plain values in place of Tensors; arrays, lists and dicts among the
arguments, which it was given copies of, get what it has written to these; and Tensors that it has
put elsewhere become plain values. Only an error that a Tensor may have caused, where arrays would
do, is followed by a second run, of the plain function, and only if the first has changed nothing.
"""

import dis
import gc
import inspect
import re
import struct
import sys
import threading
import traceback
import types

import numpy as np

try:
    import resource  # Linux tells it of a thread
    resource.RUSAGE_THREAD
except (ImportError, AttributeError):
    resource = None

from fastgrad._core import core, trees
from fastgrad.code import told, watch
from fastgrad.code.telling import only_told
from fastgrad.code.watch import Watch
from fastgrad.graphs import record
from fastgrad.graphs.graph import same_graph

from . import stored
from .paths import Static, changes, contents, lifted_value

__all__ = ["Run", "Shares", "alike", "apart", "changed", "filled", "in_order", "meet",
           "turns_taken"]

Tensor = core.Tensor

# What Tensors raise where arrays would do, or what others make of it.
_REFUSALS = (TypeError, AttributeError, IndexError, RuntimeError, ValueError, AssertionError,
             struct.error)

# What NumPy says of an array that may not be written to.
_READ_ONLY = re.compile("read-?only|WRITEABLE flag")

# A function that raises an error itself may do so since it met a Tensor, if it asks for types.
_ASKING = frozenset(["isinstance", "issubclass", "type", "hasattr", "callable", "__class__",
                     "getattr", "isscalar"])

DTYPES = frozenset("?bhilqBHILQfd")      # that programs take and return

# Results that are the same at each call if they are equal; others by what they are.
_VALUES = (int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), slice,
           range, np.dtype)

_NOT_TOLD = (-1, -1)                    # how often, where no system tells


def turns_taken():
    """How often the system has taken this thread off its processor, as it does when Python lets
    another thread run; None where there is no other one."""
    if threading.active_count() == 1:
        return None
    if resource is None or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return _NOT_TOLD
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nvcsw, usage.ru_nivcsw


def alike(one, other):
    """Whether two runs, as `found` tells of them, have given the same."""
    return (one[1] == other[1] and len(one[2]) == len(other[2])
            and all(map(_same_place, one[2], other[2])) and same_graph(one[0], other[0]))


def _same_place(a, b):
    if type(a) is int or type(b) is int:
        return a == b
    a, b = a.value, b.value
    return a is b or type(a) is type(b) and type(a) in (int, float, complex, bool, str, bytes) and (
        repr(a) == repr(b))


class Run:
    """One run of a function, recorded.

    Parameters
    ----------
    function : callable
    call : Call
    arguments : tuple
        (args, kwargs) as they were given.
    state : Watch
        Of what the function reaches.
    lifted : sequence of (kind, name)
        Floats that are inputs.
    typed : frozenset of code objects
        See `Effects`.
    turns : object
        `turns_taken` before the state was looked at.
    stand_ins : sequence of (kind, name)
        Arrays in whose places it finds Tensors.

    Attributes
    ----------
    answer : object
        What the function returned.
    reason : str or None
        Why the run must not be replayed.
    returned, places : structure, list
        Of the result: the numbers of outputs, and `Static` values.
    written : list of (int, int)
        Arguments that were written to, and the outputs that say what.
    recording : Recording
    copies : list of ndarray
        What the arrays of `state` held before.
    disturbed : bool
        Whether another thread may have run meanwhile: what it has changed and put back, the state
        after the run does not tell.
    """

    def __init__(self, function, call, arguments, state, lifted, typed, turns, stand_ins=()):
        self.function, self.call, self.arguments = function, call, arguments
        self._turns = turns
        self._typed = typed
        self.state, self.lifted, self.stand_ins = state, lifted, stand_ins
        self.reason = self.recording = self.answer = self._given = None
        self.written, self._leaves, self._tensors, self._containers = [], [], [], []
        self.copies = [np.array(contents(x)) for x in state.arrays]
        self._random = [(x, _raw_state(x)) for x, _ in state.generators + told.GLOBAL]
        self._frozen = told.random_states(state.generators)
        values = call.values + [lifted_value(state, name) for name in lifted]
        self._recorder = core.Recorder(values, list(state.arrays), True)
        self._recorder.teller = self._only_told
        self.told = None
        self._values = values

    def go(self):
        """Run the function."""
        self.recording = record.record(self._function, self._values, self.state.arrays, plain=True,
                                        recorder=self._recorder)
        if self._recorder.refused:
            raise Refused(self.recording.reason)
        results = self.recording.results
        if self.written and meet(self.written, self.call.targets,
                                 [*self.recording.captured, *self.state.arrays]):
            raise Shares
        self.returned = _settled_keys(self.returned)
        self._leaves = list(map(_settled_set, self._leaves))
        self.reason = self.recording.reason or self._escaped()
        self.scalars = self.recording.scalars or any(
            [isinstance(x, np.generic) for x in self._leaves])
        for k, place in self.written:
            self.call.targets[k][...] = results[place]
        self._write_containers()
        self.places = [place if type(place) is int else Static(self._leaves[k])
                       for k, place in enumerate(self.places)]
        self.recording.outputs = None
        self.answer = trees.unflatten(self.returned, filled(self.places, results))
        self._settle()
        self.disturbed = self._turns is not None and (
            self._turns != turns_taken() or self._turns == _NOT_TOLD)

    def found(self):
        """What it has recorded, for `alike`."""
        return self.recording.graph, self.returned, self.places

    def _function(self, tensors):
        """The function with Tensors; its results as a list, then what it has written to."""
        for array in self.state.vouched:
            core.vouch(array)
        self._tensors, function = tensors, self.function
        args, kwargs = self._rebuilt(tensors)
        self._given = _tensors_among(args, kwargs)
        if self.lifted or self.stand_ins:
            clone, twin = watch.lifted(
                self.state, [*self.lifted, *self.stand_ins], tensors[len(self.call.values):] + [
                    core.known_array(lifted_value(self.state, name)) for name in self.stand_ins])
            function = watch.rewrap(function, clone, twin)
            if args and args[0] is self.state.instance:
                args = (twin, *args[1:])
        leaves, self.returned = trees.flatten(function(*args, **kwargs))
        del args, kwargs
        outputs, self.places = [], []
        for leaf in leaves:
            if _is_output(leaf):
                self.places.append(len(outputs))
                known = core.known_array(leaf) if isinstance(leaf, np.ndarray) else None
                outputs.append(leaf if known is None else known)
            else:
                self.places.append(None)
        self._leaves = leaves
        self.written = [(k, len(outputs) + n)
                        for n, k in enumerate(changed(self.call.targets, tensors))]
        return outputs + [tensors[k] for k, _ in self.written]

    def _only_told(self):
        """Whether a value is seen to be told alone; the first line that does so is kept."""
        line = only_told(Run._function.__code__)
        self.told = self.told or line
        return line is not None

    def _rebuilt(self, tensors):
        """The arguments with Tensors in place of numbers and arrays."""
        call, tensors = self.call, iter(tensors)
        leaves = [leaf.value if type(leaf) is Static else
                  next(tensors) if type(leaf) is float or isinstance(leaf, (np.ndarray, np.generic))
                  else leaf for leaf in call.leaves]
        tree = trees.unflatten(call.structure, leaves)
        args, kwargs = tree if call.keywords else (tree, {})
        self._containers = []
        _pair(self.arguments[0], args, self._containers)
        _pair(self.arguments[1], kwargs, self._containers)
        return args, kwargs

    # ---- what is left ---------------------------------------------------------------------

    def _escaped(self):
        """Why some results cannot be replayed; generators are made to yield plain values."""
        reason = None
        for k, leaf in enumerate(self._leaves):
            if isinstance(leaf, slice):
                parts = [core.settled(x) for x in (leaf.start, leaf.stop, leaf.step)]
                if any([isinstance(x, Tensor) for x in (leaf.start, leaf.stop, leaf.step)]):
                    self._leaves[k] = slice(*parts)
                    reason = reason or "it returns a slice of what it has computed"
            elif inspect.isgenerator(leaf) or inspect.iscoroutine(leaf) or inspect.isasyncgen(leaf):
                self._leaves[k] = stored.settled_generator(leaf)
            elif isinstance(leaf, _VALUES) or _is_output(leaf):
                continue
            elif id(leaf) in self.state._seen or _importable(leaf) or any(
                    [leaf is x or type(x) is Static and leaf is x.value for x in self.call.leaves]):
                continue
            reason = reason or f"it returns a {type(leaf).__name__}, a new one each time"
        return reason

    def _write_containers(self):
        """Give lists and dicts among the arguments what the function has put into theirs."""
        own = {id(made): original for original, made, _ in self._containers}
        for original, made, before in self._containers:
            space = made if isinstance(made, (list, dict)) else vars(made)
            if _contents_same(space, before):
                continue
            self.reason = self.reason or (f"it changes a {type(original).__name__} among its "
                                          "arguments")
            target = original if space is made else vars(original)
            if isinstance(space, list):
                target[:] = [own.get(id(x), x) for x in space]
            else:
                target.clear()
                target.update({key: own.get(id(x), x) for key, x in space.items()})

    def _settle(self):
        """Tensors that somebody has kept become plain values. That there are any, or that anything
        else is not what it was, is a reason not to replay the run."""
        originals = {id(t): target for t, target in zip(self._tensors, self.call.targets)}
        self._tensors = []
        objects = [leaf for leaf in self._leaves
                   if not isinstance(leaf, _VALUES) and not _is_output(leaf)]
        self._leaves, containers = [], [original for original, _, _ in self._containers]
        self._containers = []
        box = [self.answer]
        roots = [*self.call.roots, self.call.instance, *objects, *containers, box]
        self.after = Watch(self.call.roots, self.call.instance)
        self.after.given = self._given
        self.changed = changes(self.state, self.copies, self.after)
        if self.told is not None:
            stored.settle_records(self._recorder.survivors())
        # (A key of a dict that is returned. To look for them takes long with many objects.)
        if (objects or self.changed or self.reason) and self._recorder.survivors():
            if stored.settle(self._recorder, roots, originals) and not self.reason:
                self.changed = self.changed or "what it keeps"
            self.answer = box[0]
        del objects
        left = self._recorder.survivors()
        if left and stored.settle(self._recorder, roots, originals):
            self.changed = self.changed or "what it keeps"
        if left:
            del left
            gc.collect()                # what is garbage in a circle
            left = self._recorder.survivors()
        if left:
            for tensor in left:
                core.let_go(tensor)
            self.reason = self.reason or "something that it has computed is kept by others"
        if self.reason is None:
            for (before, name), (later, _) in zip(self._frozen, told.random_states(
                    self.state.generators)):
                if before != later:
                    self.reason = f"it draws random numbers from `{name}`{self.state.line_of(name)}"

    # ---- errors ---------------------------------------------------------------------------

    def failed(self, error):
        """Put things right after an error; tells whether the plain function is to be called in
        place of the run: it may do what a Tensor has refused, and nothing has been changed."""
        tensors, targets = self._tensors, self.call.targets
        again = isinstance(error, (Shares, Refused)) or (
            isinstance(error, _REFUSALS) and not isinstance(error, RecursionError)
            and (_refused(error) != "inside" or bool(self.lifted))
            and _of_tensors(error, self._typed))
        written = [] if again else [(targets[k], np.array(core.settle_plain(tensors[k])))
                                    for k in changed(targets, tensors)]
        if not again:
            self._write_containers()
            stored.settle(self._recorder, [error], {
                id(t): target for t, target in zip(tensors, targets)})
        del tensors
        self._leaves = []
        if again:
            _forget_frames(error)
        self._settle()
        for target, value in written:
            target[...] = value
        if again and self.changed:
            error.add_note("(fastgrad: the call was recorded, and has changed what is there after "
                           "it, so that it was not repeated; the calls to come are of the "
                           "function itself)")
            return False
        if again:
            for generator, state in self._random:
                _set_state(generator, state)
        return again


def _settled_keys(structure):
    """The structure with values in place of Tensors of whole numbers that are keys of dicts."""
    if structure == trees.LEAF or not structure.children:
        return structure
    keys = structure.keys
    if issubclass(structure.type, dict) and any([isinstance(key, Tensor) for key in keys]):
        keys = tuple(map(core.settled, keys))
    return structure._replace(keys=keys, children=tuple(map(_settled_keys, structure.children)))


def _settled_set(leaf):
    """A set, which may be what the function keeps, with values in their place; or another leaf."""
    if not isinstance(leaf, (set, frozenset)) or not any([isinstance(x, Tensor) for x in leaf]):
        return leaf
    plain = list(map(core.settled, leaf))
    if isinstance(leaf, frozenset):
        return type(leaf)(plain)
    leaf.clear()
    leaf.update(plain)
    return leaf


class Refused(Exception):
    """A Tensor has refused something inside a transformation, and the function has caught it: what
    it returned is not what it returns where the transformation is at work alone."""


class Shares(Exception):
    """An argument that the function has written to shares memory with another array, as the Tensors
    that stood for them did not."""


def _refused(error):
    """The mark of what a Tensor has refused (`refused_as`), of an error or of its cause."""
    if isinstance(error, TypeError) and "hash(): a Tensor that is computed" in str(error):
        return "inside"                 # dicts raise another one since Python 3.15, without cause
    for _ in range(10):
        if error is None or getattr(error, "refused", False):
            break
        error = error.__cause__ or error.__context__
    return getattr(error, "refused", False)


def _of_tensors(error, typed):
    """Whether an error may have come from a Tensor where an array, or a number, would do; code in
    `typed` is known to ask for no types."""
    if getattr(error, "of_values", False) or isinstance(error, IndexError) and (
            "out of" in str(error)):    # NumPy has raised it for plain values: no such entry
        return False
    if _refused(error):
        return True
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    # The value of a Tensor is read-only as an array, `np.asarray(fnp.zeros(3))`.
    if isinstance(error, ValueError) and _READ_ONLY.search(str(error)):
        return not trace.tb_frame.f_globals.get("__name__", "").startswith("fastgrad.")
    code = trace.tb_frame.f_code
    if not 0 <= trace.tb_lasti < len(code.co_code):
        return True
    own = (dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
           and not trace.tb_frame.f_globals.get("__name__", "").startswith("fastgrad."))
    if own:
        return code not in typed and not _ASKING.isdisjoint(code.co_names)
    # Code in C that has no use for a Tensor says so; `math.sqrt(-1.0)` has got its number.
    # (NumPy takes a Tensor among strings for a sequence: `np.bytes_([x, 2.0])`.)
    return isinstance(error, (TypeError, AttributeError, struct.error)) or "tensor" in (
        str(error).lower()) or "array element with a sequence" in str(error)


def _forget_frames(error):
    """Of an error that nobody will see: the Tensors that its frames hold need not be looked for."""
    for _ in range(10):
        if error is None:
            break
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _is_output(leaf):
    """Whether a program can return it as a number or an array."""
    return isinstance(leaf, Tensor) or leaf.dtype.char in DTYPES if (
        isinstance(leaf, (Tensor, np.generic)) or type(leaf) is np.ndarray) else False


def _raw_state(generator):
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.BitGenerator):
        return generator.state
    return generator.get_state(legacy=False) if isinstance(
        generator, np.random.RandomState) else generator.getstate()


def _set_state(generator, state):
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.BitGenerator):
        generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


def _tensors_among(args, kwargs):
    """Which arguments are Tensors, by position and by name: 0 for a Tensor, n for containers in
    each other with Tensors so deep and nothing else, None for all else."""
    def level(x):
        if isinstance(x, Tensor):
            return 0
        if type(x) not in (tuple, list) or not x:
            return None
        levels = set(map(level, x))
        return levels.pop() + 1 if len(levels) == 1 and None not in levels else None

    return [level(x) for x in args], {name: level(x) for name, x in kwargs.items()}


def _pair(original, made, found):
    """Containers of the arguments with those that were made in their place, and what these hold."""
    if type(made) is not type(original) or made is original:
        return
    if isinstance(made, list):
        found.append((original, made, list(made)))
        children = zip(original, made)
    elif isinstance(made, dict):
        found.append((original, made, dict(made)))
        children = [(original[key], x) for key, x in made.items() if key in original]
    elif isinstance(made, tuple):
        children = zip(original, made)
    elif isinstance(getattr(made, "__dict__", None), dict) and not isinstance(made, Tensor):
        found.append((original, made, dict(vars(made))))
        children = [(vars(original).get(key), x) for key, x in vars(made).items()]
    else:
        return
    for x, y in children:
        _pair(x, y, found)


def _contents_same(space, before):
    if isinstance(space, list):
        return len(space) == len(before) and all([x is y for x, y in zip(space, before)])
    return list(space) == list(before) and all([space[key] is x for key, x in before.items()])


def in_order(targets):
    """Whether all arrays among the arguments lie in memory in C's order."""
    return all([x.flags.c_contiguous for x in targets if isinstance(x, np.ndarray)])


def apart(answer, targets):
    """An answer with memory of its own, as that of a replay."""
    arrays = [x for x in targets if isinstance(x, np.ndarray)]
    return trees.tree_map(lambda y: y.copy() if isinstance(y, np.ndarray) and any(
        [np.may_share_memory(y, x) for x in arrays]) else y, answer)


def _importable(x):
    """Whether x is a function or class that its module has under its name."""
    return isinstance(x, (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc)) and (
        core.by_name(x) is not None)


def filled(places, results):
    """The leaves of a result."""
    return [place.value if type(place) is Static else results[place] for place in places]


def meet(written, targets, reached):
    """Whether an array that is written to shares memory with another one: among the arguments, or
    among all that the function reaches, since what it reads of these without a Tensor, as in
    ``d.sum()``, is in the recording as a number."""
    arrays = [x for x in (*targets, *reached) if isinstance(x, np.ndarray)]
    return any([other is not targets[k] and np.may_share_memory(targets[k], other)
                for k, _ in written for other in arrays]) or any(
        [sum([other is targets[k] for other in arrays]) > 1 for k, _ in written])


def changed(targets, tensors):
    """The places of the arrays whose Tensors have been changed in place."""
    return [k for k, (target, tensor) in enumerate(zip(targets, tensors))
            if isinstance(target, np.ndarray) and core.changes_of(tensor)]
