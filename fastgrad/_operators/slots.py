"""What stands for operands in indices and arguments of a graph."""

from typing import NamedTuple

from fastgrad._core import core

__all__ = ["Slot", "filled", "has_slots", "short"]


class Slot(NamedTuple):
    """Stands in the index of a gather, scatter or assign, or among the arguments of a call, for an
    operand of the node."""

    operand: int


def filled(template, operands):
    """An index or arguments, with the operands in place of their Slots."""
    kind = type(template)
    if kind is Slot:
        return operands[template.operand]
    if kind is tuple or kind is list:
        return kind([filled(part, operands) for part in template])
    if kind is slice:
        return slice(*[filled(part, operands)
                       for part in (template.start, template.stop, template.step)])
    return template


def has_slots(template):
    """Whether an operand stands in an index or in arguments."""
    if isinstance(template, Slot):
        return True
    if type(template) in (tuple, list):
        return any(map(has_slots, template))
    return type(template) is slice and any(
        map(has_slots, (template.start, template.stop, template.step)))


def short(value):
    """The value in a line of at most 60 characters."""
    text = repr(value).replace("\n", "")
    return text if len(text) <= 60 else text[:57] + "..."


core.use_slots(Slot)
