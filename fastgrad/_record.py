"""Recording a function into a graph."""

import numpy as np

from fastgrad._core import core

from ._graph import LITERAL, Builder

__all__ = ["Recording", "record"]


class Recording:
    """One run of a function, taken down.

    Attributes
    ----------
    graph : Graph
        Its inputs are the values, then the captured arrays.
    captured : list of ndarray or Tensor
        Arrays that the function used though they are no arguments, each once.
    reason : str or None
        Why the graph must not be replayed in place of the function, with the line.
    results : list
        What the run returned: floats, NumPy scalars, arrays.
    """

    def __init__(self, graph, captured, reason, results):
        self.graph, self.captured, self.reason, self.results = graph, captured, reason, results


def record(function, values, captured=()):
    """Run a function of Tensors and take down what it does.

    Parameters
    ----------
    function : callable
        Called with the list of Tensors that stand for the values; returns a list of Tensors,
        numbers and arrays.
    values : list of float, ndarray, NumPy scalar or Tensor
    captured : iterable of ndarray
        Arrays that the function is known to reach: their present contents are inputs.
    """
    trace = core.Trace("compile", list(values), [f"argument {k}" for k in range(len(values))],
                       keep=True)
    arguments = list(trace.arguments)
    trace.begin()
    try:
        outputs = function(arguments)
    finally:
        del arguments
        trace.end()
    trace.results(list(outputs))
    listed, ends = trace.nodes()
    build, numbers = Builder(), []
    for node in listed:
        if node.op == "argument":
            numbers.append(build.input(node.shape, node.dtype, type(values[len(build.inputs)]) is float))
        elif node.op == "constant":
            numbers.append(build.constant(node.value if node.shape or not isinstance(node.value, float)
                                          else node.value, None if node.shape == () else node.dtype))
        else:
            attribute = node.attribute
            if node.op == "concatenate":
                attribute = attribute[0] if listed[node.operands[0]].shape else None
            numbers.append(build.add(node.op, [numbers[k] for k in node.operands], node.shape,
                                     node.dtype, attribute, 0 if node.tie else LITERAL))
    outputs = [numbers[k] for k in ends]
    return Recording(build.graph(outputs), [], None, trace.plain())
