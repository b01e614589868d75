"""Recording a function into a graph.

The recorder itself is compiled (_core/tape/recorder.pyx); here stand the graph's Python side and
what can go wrong around the function.
"""

import numpy as np

from fastgrad._core import core

from .graph import NODE, Graph, Guard, Loop

__all__ = ["Recording", "history", "record"]


class Recording:
    """One run of a function, taken down.

    Attributes
    ----------
    graph : Graph
        Its inputs are the values, then the captured arrays.
    captured : list of ndarray or Tensor
        Arrays and Tensors that the function used though they are no arguments, each once.
    frozen : list of ndarray
        Arrays whose contents went into the graph: they must be the same at each run.
    scalars : bool
        NumPy scalars went into the graph; they may have been computed from any array.
    reason : str or None
        Why the graph must not be replayed in place of the function, with the line.
    ruled : bool
        Functions with a derivative rule of their own were used: of them the graph tells the values
        alone, so that it must not be differentiated.
    outputs : list
        What the function returned: Tensors, floats, NumPy scalars, arrays.
    """

    def __init__(self, graph, recorder, outputs):
        self.graph, self.outputs = graph, outputs
        self.captured, self.reason = list(recorder.captured), recorder.reason
        self.frozen, self.scalars = list(recorder.frozen.values()), recorder.scalars
        self.derived, self.left = recorder.derived, recorder.leaves
        self.ruled = recorder.ruled

    @property
    def results(self):
        """The same as the plain function would have returned it, without Tensors."""
        settled = map(core.settle_plain, self.outputs)
        return [np.asarray(y) if kind == "array" else y
                for y, kind in zip(settled, self.graph.kinds)]


def record(function, values, captured=(), places_move=False, plain=False, recorder=None):
    """Run a function of Tensors and take down what it does, as a Recording.

    Parameters
    ----------
    function : callable
        Called with the list of Tensors that stand for the values; returns a list of Tensors,
        numbers and arrays.
    values : list of float, ndarray, NumPy scalar or Tensor
        Tensors stand for their values.
    captured : iterable of ndarray and Tensor, or None
        What the function is known to reach: its present contents are inputs. None: whatever it
        uses.
    places_move : bool
        Whether an integer Tensor in an index is an operand; otherwise its value is a guard.
    plain : bool
        Whether a program is all that it is for: a value may leave for Python then, since nobody
        differentiates or maps the function here.
    recorder : Recorder, optional
        Of these values, what is captured, and `plain`, for who needs it if the function fails.
    """
    if recorder is None:
        recorder = core.Recorder(list(values), captured, plain)
    recorder.places_move = places_move
    recorder.begin()
    try:
        try:
            outputs = list(function(list(recorder.arguments)))
        except ValueError as error:
            core.raise_refused(error)
            raise
        extracted = recorder.graph(outputs)
    finally:
        recorder.end()
    return _recording(recorder, outputs, extracted)


def _recording(recorder, outputs, extracted):
    rows, operands, shapes, attrs, inputs, numbers, kinds, guards = extracted
    graph = Graph(rows.view(NODE), operands, shapes, attrs, inputs, numbers, kinds,
                  [Guard(*guard) for guard in guards])
    if any([type(attribute) is Loop for attribute in attrs]):
        graph = core.HANDED_DOWN["tidy loops"](graph)
    return Recording(graph, recorder, outputs)


def history(inputs, outputs):
    """What was recorded between some Tensors and others computed from them; other leaves that these
    depend on are inputs, too (Recording.captured). RuntimeError: the history is not complete, as it
    has been differentiated without ``retain_graph``, lacks a constant that no derivative reads, or
    Python code has looked at a value."""
    recorder = core.Recorder.of_history(list(inputs), list(outputs))
    return _recording(recorder, list(outputs), recorder.graph(list(outputs)))
