"""A rule that is missing is an error in every engine that needs it, and never a zero.

Each rule of each shaped operator is taken out of the core's table, one at a time; those of records
are taken out in test_operators.py.
"""

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core
from fastgrad._operators.shaped import SHAPED as RECORDS

from .examples import SHAPED

OPERATORS = sorted(RECORDS)


def scalar(f):
    return lambda x: fnp.sum(fnp.sin(f(x)))


def reverse(f, x):
    return fg.grad(scalar(f))(x)


def forward(f, x):
    return fg.jvp(scalar(f), (x,), (np.ones_like(x),))


# Which rule an engine asks: with numbers, recorded, or a tangent.
ENGINES = {
    "reverse": (reverse, lambda f, x: fg.vjp(f, x)[1](np.ones_like(f(x))),
                lambda f, x: fg.jacobian(f, mode="reverse")(x)),
    "pull": (lambda f, x: fg.grad(lambda x: fnp.sum(fg.grad(scalar(f))(x) ** 2))(x),
             lambda f, x: fg.vmap(fg.grad(scalar(f)))(np.stack([x, x]))),
    "push": (forward, lambda f, x: fg.jacobian(f, mode="forward")(x),
             lambda f, x: fg.linearize(scalar(f), x)[1](np.ones_like(x))),
}


def made_of(name):
    """An example in whose graph the operator is, with an array for a result: for numbers that are
    sums or entries the tangent sweep has code of its own."""
    for example in SHAPED.values():
        x = np.asarray(example.array, float)
        program = fg.compile(example.function)
        if np.ndim(program(x)) and program.paths:
            graph = program.paths[0].graph
            if name in [graph.name(i) for i in range(len(graph))]:
                return example.function, x
    raise AssertionError(f"no example has the operator {name}")


@pytest.mark.filterwarnings("ignore:compile")
@pytest.mark.parametrize("rule", ENGINES)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_rule_that_is_missing_is_an_error(name, rule):
    f, x = made_of(name)
    for engine in ENGINES[rule]:
        before = engine(f, x)
        put_back = core.forget_rule(name, rule)
        try:
            with pytest.raises(fg.NoDerivativeError, match=f"{name}: there is no rule"):
                engine(f, x)
        finally:
            put_back()
        again = engine(f, x)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(again, before)
