"""One walk over the nodes of a run (`Trace.nodes`), for whoever computes with something else than
numbers: power series, dependences, formulas. A `Meaning` says what each kind of operation does
with them."""

from fastgrad._core import core
from fastgrad._operators.shaped import SHAPED

__all__ = ["Meaning", "walk"]

_KINDS = dict.fromkeys(core.functions, "elementwise") | {
    row.name: "reduces" if row.reduces else "product" if row.bilinear else "moves"
    for row in SHAPED.values()}


class Meaning:
    """What operations do; a subclass has a method for each kind that it may meet.

    ``constant(node)`` stands for a constant. ``elementwise``, ``moves`` (entries, without more),
    ``reduces``, ``product`` (of matrices), ``custom`` (a rule in Python) and ``result`` (one of
    those of a custom node) take a node and what stands for its operands.
    """

    values = {}                 # of nodes that will be looked at again, while a walk goes on

    def operation(self, node, operands):
        """What stands for a node."""
        return getattr(self, _KINDS.get(node.op, node.op))(node, operands)


def walk(nodes, inputs, meaning, outputs):
    """What stands for some nodes (None: for nothing), from what stands for the arguments, which
    come first. Everything is let go of after its last use."""
    last = {i: at for at, node in enumerate(nodes) for i in node.operands}
    last |= dict.fromkeys(outputs, len(nodes))
    values = meaning.values = dict(enumerate(inputs))
    for at, node in enumerate(nodes[len(inputs):], len(inputs)):
        operands = [values[i] for i in node.operands]
        for i in node.operands:
            if last[i] == at:
                values.pop(i, None)
        values[at] = (meaning.constant(node) if node.op == "constant" else
                      meaning.operation(node, operands))
    meaning.values = {}
    return [values.get(i) for i in outputs]
