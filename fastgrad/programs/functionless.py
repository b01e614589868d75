"""Programs without a Python function, which were loaded from a file or made from a history: a mixin
of `fastgrad.programs.compile.Program`. They take the signatures that were recorded, and numbers
that become such.
"""

import numpy as np

from fastgrad._core import core, trees
from fastgrad._core.core import GuardError
from fastgrad.graphs.graph import WEAK

from .paths import Path
from .signature import ByIdentity, Described, Signature, key_of, replace_in, static_key

__all__ = ["Functionless"]

Tensor = core.Tensor


class Functionless:
    """What `Program` does in place of a function."""

    @classmethod
    def of_graph(cls, graph, captured=(), returned=trees.LEAF, places=None, name=None,
                 arguments=None, kinds=None, keywords=False, written=()):
        """A program without a Python function.

        Parameters
        ----------
        graph : Graph
            Its inputs are the arguments, then what is captured.
        captured : list of ndarray and Tensor
            Read again at each call.
        returned, places
            The structure of the result and its leaves: the numbers of outputs, and `Static`
            values; by default the one output.
        name : str
        arguments, kinds, keywords
            The structure of ``args``, or of ``(args, kwargs)`` with `keywords`, and the kind of
            each leaf: "float", the character of the dtype of a scalar, (character, shape) of an
            array, or (type, value) of a static argument. By default one argument for each input.
        written : list of (int, int)
            Numbers of inputs that are written to, and of the outputs that say what.
        """
        program = cls(None, name=name)
        program.add_graph(graph, captured, returned, places, arguments, kinds, keywords, written)
        return program

    def add_graph(self, graph, captured=(), returned=trees.LEAF, places=None, arguments=None,
                  kinds=None, keywords=False, written=()):
        """One more path of such a program, as `of_graph` describes it."""
        count = len(graph.inputs) - len(captured)
        if arguments is None:
            arguments = trees.flatten((0.0,) * count)[1]
        if kinds is None:
            kinds = [_kind(graph, i) for i in graph.inputs[:count]]
        if places is None:
            places = list(range(len(graph.outputs)))
        key = key_of(arguments, kinds, keywords)
        made = Signature(f"({', '.join(map(_kind_text, kinds))})")
        replace_in(self._table, lambda table: table if key in table else {**table, key: made})
        entry = self._signatures[key]
        path = Path(entry.text, graph, returned, places, None, list(captured), written=written)
        entry.change(lambda paths: (*paths, path))

    @property
    def _reached(self):
        """What is read at each call of a program without a function."""
        return [] if self.function is not None else [
            x for path in self._all() for x in path.captured]

    def _nearest(self, call):
        """The signature that a call fits after numbers have become what it takes."""
        known = list(self._signatures.items())
        same = [(key, entry, leaves) for key, entry in known if key[2:] == call.key[2:]
                for leaves in _leaves_as(key[0], call)]
        if not same:
            texts = " or ".join(sorted({entry.text for _, entry in known}))
            raise TypeError(f"{self._name}: called with {self._text(call)}; it takes {texts}")
        error = None
        for key, entry, leaves in same:
            mixed = any([path.graph.dtype(i) == np.float32 for path in entry.paths
                         for i in range(len(path.graph))])
            try:
                fitted = [(value, leaf) for k, (leaf, kind) in enumerate(zip(leaves, key[1]))
                          for value in self._fitted(leaf, kind, k, mixed)]
                call.values = [value for value, _ in fitted]
                call.targets = [leaf for _, leaf in fitted]
                return entry
            except (TypeError, ValueError) as wrong:
                error = wrong
        raise error

    def _fitted(self, leaf, kind, k, mixed):
        """A list with the leaf as the recorded kind; empty for a static one. `mixed`: float32
        arrays are met, to which Python's numbers give way and NumPy's do not."""
        what = f"{self._name}: argument {k}"
        if isinstance(kind, (Described, ByIdentity)):
            if kind != static_key(leaf):
                raise TypeError(f"{what} is {leaf!r}, but the program was recorded with "
                                f"{kind.value!r}")
            return []
        char, shape = ("d", ()) if kind == "float" else kind if isinstance(kind, tuple) else (
            kind, ())
        if not isinstance(leaf, (int, float, np.ndarray, np.generic, Tensor)):
            raise TypeError(f"{what} must be a number or an array, not {type(leaf).__name__}")
        if np.shape(leaf) != shape:
            raise ValueError(f"{what} has shape {np.shape(leaf)}, but the program was recorded for "
                             f"{shape} and has no Python function to be recorded again")
        if isinstance(leaf, Tensor):
            return [leaf]
        if isinstance(leaf, (int, float)) and not isinstance(leaf, np.generic):
            if mixed and kind == "d":
                raise TypeError(f"{what} is a {type(leaf).__name__}, but the program was recorded "
                                "for NumPy's float64, with which float32 arrays become float64; "
                                "pass np.float64(x)")
            return [float(leaf) if kind == "float" else np.dtype(char).type(leaf)]
        if leaf.dtype.char != char:
            raise TypeError(f"{what} has dtype {leaf.dtype}, but the program was recorded for "
                            f"{np.dtype(char)}; write .astype({str(np.dtype(char))!r})")
        if mixed and kind == "float":
            raise TypeError(f"{what} is NumPy's float64, but the program was recorded for a Python "
                            "float, with which float32 arrays stay float32; pass float(x)")
        return [float(leaf) if kind == "float" else leaf]

    def _guard_error(self, failed):
        path, k = failed
        guard = path.guards[k]
        met = ("entries of ordinary magnitude" if guard.kind == "all" else
               f"{guard.kind} {guard.outcome!r}")
        raise GuardError(f"{self._name}: {guard.line}: the recorded run met {met} here, this call "
                         "meets another outcome, and there is no Python function to follow it; "
                         "record that case as well before saving")



def _leaves_as(structure, call):
    """The leaves of a call in the order of a structure, in a list; an empty one where it has
    another. (The keys of a dict may come in any order.)"""
    if structure == call.structure:
        return [call.leaves]
    try:
        return [trees.flatten_like(structure, trees.unflatten(call.structure, call.leaves))]
    except ValueError:
        return []


def _kind(graph, i):
    """The kind of an input of a graph."""
    if graph.nodes["rank"][i]:
        return graph.dtype(i).char, tuple(graph.shape(i))
    return "float" if graph.nodes["flags"][i] & WEAK else graph.dtype(i).char


def _kind_text(kind):
    if isinstance(kind, tuple) and isinstance(kind[0], str):
        return f"{np.dtype(kind[0])}{list(kind[1])}"
    return kind if kind == "float" else str(np.dtype(kind)) if isinstance(kind, str) else repr(
        getattr(kind, "value", kind))
