"""What a program looks like, and what its plans say of themselves."""

import numpy as np

from fastgrad._core.arguments import name_of

from .paths import Static, parted

__all__ = ["Shown"]

# What to do about a reason for which a run is not replayed: words of it, and the cure.
_CURES = (
    ("leaves it as a number", "compute with fastgrad.numpy instead, or pass as an argument what it "
     "decides"),
    ("draws random numbers", "draw outside, and pass the numbers"),
    ("which outlives the call", "return it, and pass it in at the next call"),
    ("keeps what it", "return it, and pass it in at the next call"),
    ("of a recorded value is used", "write it with functions that have a derivative rule"),
    ("is not known that it depends", "call it outside, and pass what it returns"),
    ("whose state cannot be compared", "make of it outside what is needed, as arrays and numbers"),
    ("keeps results, which may be of before", "pass what it reads as arguments of it"),
    ("shape of what", "choose among entries with fnp.where, which keeps the shape"),
    ("another outcome or another state", "pass as an argument what changes"),
)


class Shown:
    """A part of `Program`."""

    def __repr__(self):
        return f"<program {self._name}, {len(self._all())} paths>"

    def __str__(self):
        return "\n\n".join([f"{self._name}{path.signature}\n{path.plan}" for path in self._all()]
                           ) or f"{self._name}: no path has been recorded yet; call it once"

    def why(self):
        """What each recorded path depends on, why there is more than one, and why calls are not
        replayed, with the cure, as text.

        Returns
        -------
        str

        Examples
        --------
        >>> rate = 2.0
        >>> f = fg.compile(lambda x: x * rate if x > 1 else x)
        >>> f(3.0), f(0.5)
        (6.0, 0.5)
        >>> print(f.why())                          # doctest: +ELLIPSIS
        <lambda>(float)
          path 1, 1 call
            holds while: `rate` is the same; bool False at ...
            apart from path 2 by: bool False or True at ...
          path 2, 1 call
            holds while: `rate` is the same; bool True at ...
        """
        lines = []
        for entry in self._table.value.values():
            lines.append(f"{self._name}{entry.text}")
            paths = entry.paths
            for k, path in enumerate(paths):
                lines.append(f"  path {k + 1}, {path.calls} call{'s' * (path.calls != 1)}")
                lines += [f"    {what}: {'; '.join(names)}" for what, names in (
                    ("read at each call", path.live()), ("holds while", path.conditions()))
                    if names]
                if k + 1 < len(paths):
                    lines.append(f"    apart from path {k + 2} by: {parted(path, paths[k + 1])}")
        for reason in self.reasons:
            lines.append(f"not replayed: {reason}")
            lines += [f"  cure: {cure}" for words, cure in _CURES if words in reason][:1]
        return "\n".join(lines) or f"{self._name}: it has not been called yet"

    def explain_plan(self):
        """What was fused, folded and kept in the plan of each path, and why, as text."""
        return "\n\n".join([f"{self._name}{path.signature}\n{path.plan.explain()}"
                            for path in self._paths_or_error("explain_plan")])

    def memory_plan(self):
        """The memory that the path used last needs, in bytes, as its plan tells it."""
        return self._paths_or_error("memory_plan")[0].plan.memory()

    def _paths_or_error(self, what):
        paths = self._all()
        if not paths:
            raise RuntimeError(f"{what}: no path of {self._name} has been recorded yet; call it "
                               "once")
        last = self._first_path()
        if last in paths:
            paths.remove(last)
            paths.insert(0, last)
        return paths

    def _text(self, call):
        """A signature for people."""
        words = []
        for leaf in call.leaves:
            if type(leaf) is Static:
                leaf = leaf.value
            if type(leaf) is np.ndarray:
                words.append(f"{leaf.dtype}{list(leaf.shape)}")
            elif isinstance(leaf, np.generic):
                words.append(str(leaf.dtype))
            elif type(leaf) is float:
                words.append("float")
            else:
                text = name_of(leaf) if callable(leaf) else repr(leaf)
                words.append(text if len(text) <= 30 else text[:27] + "...")
        return f"({', '.join(words)})"
