"""What is kept of one recorded run of a program: `Path`, and when it may be replayed."""

import collections
import operator

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.program import (
    Checks,
    Entry,
    Tally,
    branch_part,
    captured_with,
    leaf_part,
    planned,
    result_part,
)
from fastgrad.code.flow import Flow
from fastgrad.code.libraries import BYTES, CALL, CELL
from fastgrad.code.names import names_in
from fastgrad.code.told import raw
from fastgrad.code.watch import Watch

__all__ = ["Path", "Static", "argument_parts", "captured_value", "changes", "contents",
           "differences", "lifted_name", "lifted_value", "only_reader", "others",
           "parted"]

Tensor = core.Tensor


class Static:
    """Wraps an argument so that it is one leaf."""

    def __init__(self, value, by_identity=False):
        self.value, self.by_identity = value, by_identity


class Path:
    """One recorded run of a program.

    Attributes
    ----------
    signature : str
        The arguments it was recorded for.
    guards : list of Guard
        What it took for granted, with outcome and line.
    calls : int
        How often it ran, the recording included.
    left : str or None
        Why it is no longer among the paths in use.
    graph : Graph
    plan : Plan
    """

    def __init__(self, signature, graph, returned, places, watch=None, captured=(), lifted=(),
                 compared=(), copies=None, written=(), derived=frozenset(), stand_ins=()):
        self.signature, self.left = signature, None
        self._calls = Tally()
        self.graph, self.plan = graph, planned(graph)
        self.replays = Tally()
        self.returned, self.places = returned, places   # the tree of results: structure and leaves
        self.written = tuple(written)   # (input, output) of arguments that are written to
        self.lifted = lifted            # (kind, name) of floats that have become inputs
        self.captured = captured        # numbers of arrays of the watch; without one, the arrays
        self.compared = compared        # numbers of those whose contents count though captured
        self.armed = None               # (watch, copies, checks), replaced as one
        if watch is not None:
            flow = Flow(watch, stand_ins)
            self.by_value = flow.by_value.union([
                k for k in flow.copied if (watch.arrays[k].dtype, watch.arrays[k].size) in derived])
            self._arm(watch, copies)

    @property
    def guards(self):
        return self.graph.guards

    @property
    def calls(self):
        return self._calls.count

    @property
    def watch(self):
        """The state that it is compared with; None without a function."""
        return self.armed and self.armed[0]

    def entry(self, arguments, names, roots):
        """What makes calls with such arguments short; None where that cannot be."""
        watch, _, checks = self.armed or (None, None, Checks([], list(self.captured)))
        if arguments is None or self.written or watch is not None and others(roots, watch.roots):
            return None                 # (armed for another thread's functions meanwhile)
        lifted = [_place(watch, *name) for name in self.lifted] or None
        return Entry(arguments, names, _result_part(self.returned, iter(self.places)),
                     self.plan, checks, lifted, self, self._calls)

    def _arm(self, watch, known):
        """Compare with this state from now on. `known` are copies of its arrays from before they
        were found to be the same: they may change at any time."""
        slots = {id(watch.arrays[k]): slot for slot, k in enumerate(self.captured)}
        by_contents = {id(watch.arrays[k]) for k in self.by_value.union(self.compared)}
        holders = collections.Counter(id(entry[3]) for entry in watch.entries)
        places = {(id(holder), key) for holder, key in
                  [_place(watch, *name) for name in self.lifted]}
        entries = []
        for kind, holder, key, expected in watch.entries:
            if (id(holder), None if kind == CELL else key) in places:
                continue
            # What stands in a slot may be another array at the next call; where contents count,
            # the copy is one of this array.
            slot = slots.get(id(expected), -1)
            if slot >= 0 and (watch.by_layout or holders[id(expected)] > 1
                              or type(expected) is not np.ndarray or id(expected) in by_contents):
                slot = -1
            entries.append((kind, holder, key, expected, slot))
        copies = [None] * len(watch.arrays)
        for k, array in enumerate(watch.arrays):
            if id(array) not in slots or id(array) in by_contents:
                copies[k] = np.array(contents(array)) if known[k] is None else known[k]
                entries.append((BYTES, array, None, copies[k], -1) if isinstance(
                    array, Tensor) or type(array) is np.ndarray else (
                    CALL, array, raw, (array.shape, array.dtype.str, copies[k].tobytes()), -1))
        self.armed = watch, copies, Checks(entries, [watch.arrays[k] for k in self.captured])

    def inputs(self, roots, instance, now):
        """Captured arrays and floats as they are now; None if something else has changed. `now` is
        a list that holds the present state once somebody has looked."""
        if self.armed is None:
            return [captured_value(x) for x in self.captured]
        watch, copies, checks = self.armed
        # (A function that was made anew for this call is another one, though its key is the same.)
        if not checks.holds() or others(roots, watch.roots):
            if not now:
                now.append(Watch(roots, instance))
            if not self._same(now[0], watch, copies):
                return None
            self._arm(now[0], copies)
            watch, copies, checks = self.armed
        values = [captured_value(x) for x in checks.captured]
        floats = [lifted_value(watch, name) for name in self.lifted]
        return floats + values if all(type(x) is float for x in floats) else None

    def live(self):
        """What is read at each call though it is no argument, in words."""
        if self.watch is None:
            return []
        return [f"`{name}`" for _, name in self.lifted] + [
            f"`{self.watch.labels[k]}`" for k in self.captured
            if k not in self.compared and k not in self.by_value]

    def conditions(self):
        """What must be as it was for a replay, in words."""
        found = [f"{guard.kind} {guard.outcome!r} at {guard.line}" for guard in self.guards]
        if self.watch is None:
            return found
        names = [name for _, _, name in self.watch.origins.values()
                 if name not in [lifted for _, lifted in self.lifted]]
        names += [label for label, copy in zip(self.watch.labels, self.armed[1])
                  if copy is not None]
        return [f"`{name}` is the same" for name in dict.fromkeys(names)] + found

    def reached(self, captured):
        """All arrays that a call reaches by names, given those of `inputs`."""
        return captured if self.armed is None else [*captured, *self.watch.arrays]

    def present(self):
        """The same at any time: `inputs` of what it was recorded with."""
        return (self.inputs([], None, []) if self.watch is None else
                self.inputs(self.watch.roots, self.watch.instance, []))

    def _same(self, state, old, copies):
        """Whether a state is the one recorded, but for the contents of captured arrays and floats
        that are inputs."""
        if len(state.tokens) != len(old.tokens) or state.reason:
            return False
        for k in differences(old.tokens, state.tokens):
            if not (k in state.origins and lifted_name(state, k) in self.lifted
                    and state.tokens[k][0] == "float"):
                return False
        for k, copy in enumerate(copies):
            if copy is not None and not _same_bytes(state.arrays[k], copy):
                return False
        return True

    def __repr__(self):
        guards = "".join(f"\n    {g.kind} == {g.outcome}  {g.line}" for g in self.guards)
        left = f", left: {self.left}" if self.left else ""
        return f"<path {self.signature}, {self.calls} calls{left}>{guards}"


def _result_part(structure, places):
    if structure == trees.LEAF:
        place = next(places)
        return result_part(-1, place.value) if type(place) is Static else result_part(place)
    return branch_part(structure, [_result_part(x, places) for x in structure.children])


def argument_parts(structure, leaves, ordered):
    """What is taken in the place of each argument; None where that takes Python to see. `ordered`:
    arrays in C's order alone."""
    parts = []
    for child in structure.children:
        parts.append(_argument_part(child, leaves, ordered))
        if parts[-1] is None:
            return None
    return parts


def _argument_part(structure, leaves, ordered):
    if structure != trees.LEAF:
        parts = [_argument_part(x, leaves, ordered) for x in structure.children]
        return None if None in parts else branch_part(structure, parts)
    leaf = next(leaves)
    if type(leaf) is np.ndarray:
        return leaf_part((leaf.dtype.char, leaf.shape, ordered))
    if isinstance(leaf, np.generic):
        return leaf_part(leaf.dtype.char)
    if type(leaf) is float:
        return leaf_part("float")
    if type(leaf) is Static:
        leaf, identity = leaf.value, leaf.by_identity
        if not identity:
            try:
                hash(leaf)
            except TypeError:
                return None
    return leaf_part([leaf])


def captured_value(x):
    """What a plan takes for a captured array or Tensor."""
    if not isinstance(x, Tensor):
        return x
    return x.detach().numpy() if x.ndim else core.settle_plain(x)


captured_with(captured_value)


def _cell(function, name):
    code = function.__code__
    return function.__closure__[code.co_freevars.index(name)] if name in code.co_freevars else None


def _place(state, kind, name):
    """Where a float is found that has become an input: (holder, key); (cell, None)."""
    if kind == "cell":
        return _cell(state.innermost, name), None
    return state.innermost.__globals__ if kind == "global" else state.instance.__dict__, name


def lifted_value(state, place):
    holder, key = _place(state, *place)
    try:
        return holder.cell_contents if key is None else holder.get(key)
    except ValueError:              # an empty cell
        return None


def differences(old, new):
    """The places in which two lists of one length differ."""
    return [k for k, (a, b) in enumerate(zip(old, new)) if a != b]


def lifted_name(state, k):
    """(kind, name) of a float that the innermost function reads itself, or of its bound self; None
    for any other."""
    owner, kind, name = state.origins[k]
    return (kind, name) if owner is (state.instance if kind == "attribute" else state.innermost
                                     ) else None


def contents(x):
    return np.ascontiguousarray(x.detach().numpy() if isinstance(x, Tensor) else x)


def _same_bytes(x, copy):
    x = contents(x)
    return x.dtype == copy.dtype and x.shape == copy.shape and x.tobytes() == copy.tobytes()


def only_reader(state, kind, name):
    """Whether a copy with another value may stand for the innermost function, or for its self: the
    name is read by the function alone, and not bound by it."""
    function = state.innermost
    if kind == "attribute":
        # All that is done to the copy is lost.
        codes = [names_in(f.__code__) for f in state.functions]
        return not (id(state.instance) in state.met_again or state.everything or any(
            code.sets_attributes or "setattr" in code.globals for code in codes))
    code = names_in(function.__code__)
    if name in code.stores:
        return False
    if kind == "cell":
        cell = _cell(function, name)
        return all(cell is not other for f in state.functions if f is not function
                   for other in f.__closure__ or ())
    return (len(state.readers.get((id(function.__globals__), name), ())) == 1
            and not any(s in function.__globals__ for s in code.stores))


def others(roots, before):
    """Whether functions are other objects than those before."""
    return len(roots) != len(before) or any(map(operator.is_not, roots, before))


def parted(one, other):
    """What makes two paths of one signature two, in words: the answer to a question, or something
    that the function reaches."""
    for a, b in zip(one.guards, other.guards):
        if (a.kind, a.line) == (b.kind, b.line) and repr(a.outcome) != repr(b.outcome):
            return f"{a.kind} {a.outcome!r} or {b.outcome!r} at {a.line}"
    if one.watch is None or other.watch is None:
        return "another way through it"
    (before, old, _), (after, new, _) = one.armed, other.armed
    if len(before.tokens) != len(after.tokens):
        return "what it reaches"
    for k in differences(before.tokens, after.tokens):
        return f"`{after.origins[k][2]}`" if k in after.origins else "something that it reaches"
    for k, (x, y) in enumerate(zip(old, new)):
        if x is not None and y is not None and not _same_bytes(x, y):
            return f"the array `{after.labels[k]}`"
    return "another way through it"


def changes(before, copies, after):
    """What a run has changed of what it reaches; "" if nothing."""
    if after.reason or len(before.tokens) != len(after.tokens) or differences(
            before.tokens, after.tokens):
        old = {(id(holder), key): value for _, holder, key, value in before.entries
               if type(key) is str}
        for _, holder, key, value in after.entries:
            if type(key) is str and old.get((id(holder), key), value) is not value:
                return f"`{key}`"
        return "something that it reaches"
    for k, x in enumerate(after.arrays):
        if not _same_bytes(x, copies[k]):
            return f"the array `{before.labels[k]}`"
    for k in Flow(after).written:       # ... and perhaps changes back again
        return f"the array `{after.labels[k]}`"
    return ""
