"""The list of examples is whole: an operator without one is an operator without a test."""

import inspect

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._operators.signature import parsed
from fastgrad.graphs.record import record
from laws.examples import DRAWN, OPERATORS, SHAPED, TABLE, WITHOUT_EXAMPLES, drawn, public

CORE = {row.name for row in TABLE if row.kind == "shaped"}
# The examples that are called after an operator of the core's; the others are after functions.
CALLED = [name for name in SHAPED if name.split()[0] in CORE]


def met(f, *operands):
    """The operators in the graph of a function: rows, shaped ones, and records."""
    graph = record(lambda tensors: [f(*tensors)], list(operands)).graph
    names = {graph.name(i) for i in range(len(graph))}
    return names | {graph.attribute(i)[0] for i in range(len(graph)) if graph.name(i) == "call"}


def test_every_shaped_operator_has_an_example():
    without = CORE - {name.split()[0] for name in CALLED}
    assert without == {*WITHOUT_EXAMPLES}, "examples.py: add to SHAPED"


@pytest.mark.parametrize("name", CALLED)
def test_the_operator_that_an_example_is_called_after_occurs_in_it(name):
    f, x = SHAPED[name]
    assert name.split()[0] in met(f, x)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_record_draws_what_it_takes(name):
    """All of its operands, each of its options at least once; and they reach the operator."""
    row, call = OPERATORS[name], public(name)
    cases = list(row.draw(np.random.default_rng(0)))
    if not cases:                       # a part of another, whose laws go through it
        assert any([name in met(fg.grad(lambda x, f=f: fnp.sum(f(x, *rest))), x)
                    for f, (x, *rest) in [drawn(other, 0)[::-1] for other in DRAWN]])
        return
    count = len(parsed(row.signature).operands)
    options = {*list(inspect.signature(call).parameters)[count:]} - {"dtype", "out"}
    assert {option for _, given in cases for option in given} == options
    for operands, given in cases:
        assert len(operands) == count

        def f(*operands, given=given):
            found = call(*operands, **given)
            return found[0] if isinstance(found, tuple) else found

        assert name in met(f, *operands)
