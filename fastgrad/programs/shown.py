"""What a program looks like, and what its plans say of themselves."""

import numpy as np

from fastgrad._core.arguments import name_of

from .paths import Static

__all__ = ["Shown"]


class Shown:
    """A part of `Program`."""

    def __repr__(self):
        return f"<program {self._name}, {len(self._all())} paths>"

    def __str__(self):
        return "\n\n".join([f"{self._name}{path.signature}\n{path.plan}" for path in self._all()]
                           ) or f"{self._name}: no path has been recorded yet; call it once"

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
