"""The records of the graph's operators that are not element-wise, against what the core computes.

Laws over the records, of which each has examples: the step is the core's function, and everything
else that a record says of it has to agree.
"""

import ast
import pathlib

import numpy as np
import pytest

import fastgrad as fg
from fastgrad._core import core
from fastgrad._operators.shaped import SHAPED, How
from fastgrad._operators.slots import Slot

# name -> shapes of the operands, shape of the result, attribute.
CASES = {
    "reshape": [([(2, 3)], (3, 2), None), ([(4,)], (1, 4, 1), None), ([()], (1, 1), None),
                ([(1,)], (), None), ([(0, 3)], (3, 0), None)],
    "transpose": [([(2, 3)], (3, 2), (1, 0)), ([(2, 3, 4)], (4, 2, 3), (2, 0, 1)),
                  ([(5,)], (5,), (0,)), ([(0, 2)], (2, 0), (1, 0))],
    "broadcast": [([(3,)], (2, 3), None), ([()], (2, 2), None), ([(2, 1)], (4, 2, 3), None),
                  ([(1, 3)], (0, 3), None)],
    "flip": [([(4,)], (4,), (0,)), ([(2, 3)], (2, 3), (1,)), ([(2, 3)], (2, 3), (0, 1))],
    "item": [([(4,)], (), (2,)), ([(3, 4)], (4,), (1,)), ([(3, 4)], (), (1, -1)),
             ([(3, 4)], (3, 2), (slice(None), slice(None, None, -2))),
             ([(4,)], (0,), (slice(0, 0),)),
             ([(2, 3, 4)], (1, 2, 2), (None, ..., 1, slice(2, None)))],
    "gather": [([(4,)], (3,), np.array([0, 0, -1])), ([(3, 4)], (2, 4), ([0, 2],)),
               ([(3, 4)], (2, 2), ([[0], [2]], [1, 1])), ([(2, 3)], (4,), np.eye(2, 3) < 0.5),
               ([(2, 3)], (2, 1, 2), (slice(None), None, [2, 0]))],
    "cast": [([(2, 3)], (2, 3), None), ([()], (), None)],
    "place": [([(2,)], (4,), (slice(1, 3),)), ([(3,)], (2, 3), (1,)),
              ([(2, 2)], (2, 5), (slice(None), slice(None, None, -4)))],
    "assign": [([(4,), ()], (4,), (2,)), ([(2, 3), (3,)], (2, 3), (slice(None),)),
               ([(2, 3), (1, 1, 2)], (2, 3), (0, slice(1, None))),
               ([(3, 3), (2,)], (3, 3), ([0, 2], 1)), ([(2, 3), ()], (2, 3), np.eye(2, 3) > 0.5)],
    "concatenate": [([(2,), (3,)], (5,), (0, (2, 3))),
                    ([(2, 1), (2, 0), (2, 2)], (2, 3), (1, (1, 0, 2))),
                    ([(), (), ()], (3,), (0, (1, 1, 1))), ([(1,)] * 5, (5,), (0, (1,) * 5))],
    "scatter": [([(3,)], (4,), np.array([1, 1, 3])), ([(2, 2)], (2, 3), (slice(None), [2, 2])),
                ([(2,)], (2, 3), ([0, 1], [2, 0]))],
    **dict.fromkeys(("sum", "prod", "max", "min", "logsumexp"), [
        ([(4,)], (), (0,)), ([(2, 3)], (2,), (1,)), ([(2, 3)], (1, 3), (0,)),
        ([(2, 3, 2)], (3,), (0, 2)), ([(2, 3)], (2, 3), ())]),
    "matmul": [([(3,), (3,)], (), None), ([(2, 3), (3, 2)], (2, 2), None),
               ([(2, 3), (3,)], (2,), None), ([(2,), (2, 3)], (3,), None),
               ([(2, 1, 2, 3), (4, 3, 1)], (2, 4, 2, 1), None)],
}
# What has no value, or one that only its attribute tells.
ELSEWHERE = {"leaf", "call", "custom", "result", "dual"}
EXAMPLES = [pytest.param(SHAPED[name], *case, id=f"{name}-{k}") for name, cases in CASES.items()
            for k, case in enumerate(cases)]
every_example = pytest.mark.parametrize(("row", "shapes", "shape", "attribute"), EXAMPLES)


def numbers(shapes, first=1):
    """Different numbers, not in order."""
    rng = np.random.default_rng(first)
    return [first + rng.permutation(int(np.prod(shape))).reshape(shape) + 10.0 * k
            for k, shape in enumerate(shapes)]


def run(row, shape, attribute, operands):
    """What the core makes of arrays."""
    return row.step(How(shape, np.dtype(float), attribute))(*map(fg.tensor, operands)).numpy()


def routed(row, shape, attribute, operands):
    """The same, entry by entry."""
    how, whole = How(shape, np.dtype(float), attribute), np.zeros(shape)
    for k, x in enumerate(operands):
        rows, columns = row.route(how, k, [x.shape for x in operands])
        np.add.at(whole.reshape(-1), rows, x.reshape(-1)[columns])
    return whole


def test_every_shaped_operator_has_a_record():
    rows = {row.name for row in core.operators() if row.kind == "shaped"}
    assert set(SHAPED) == rows - ELSEWHERE == set(CASES)
    for row in SHAPED.values():
        assert row.bilinear or (row.move is None) != (row.goes is None), row.name
        assert (row.behind is None) != (row.lanes is None), row.name


@every_example
def test_the_step_has_that_shape(row, shapes, shape, attribute):
    assert run(row, shape, attribute, numbers(shapes)).shape == shape


@every_example
def test_routes_are_what_the_core_does(row, shapes, shape, attribute):
    operands = numbers(shapes)
    if row.linear:
        np.testing.assert_array_equal(routed(row, shape, attribute, operands),
                                      run(row, shape, attribute, operands))
    elif row.reduces:
        x, = operands
        rows, columns = row.route(How(shape, x.dtype, attribute), 0, shapes)
        assert sorted(columns) == list(range(x.size))
        parts = [x.reshape(-1)[columns[rows == r]] for r in range(int(np.prod(shape)))]
        np.testing.assert_allclose(
            [run(row, (), (0,), [part]) for part in parts],
            run(row, shape, attribute, operands).reshape(-1), rtol=1e-15)


@every_example
def test_moves_take_arrays_of_anything(row, shapes, shape, attribute):
    if row.move is None:
        return
    how, operands = How(shape, np.dtype(float), attribute), numbers(shapes)
    given = [x.astype(np.int32) for x in operands]
    found = row.move(how)(*given)
    np.testing.assert_array_equal(np.concatenate([x.ravel() for x in given]),
                                  np.concatenate([x.ravel() for x in operands]))
    assert found.dtype == np.int32
    wanted = run(row, shape, attribute, operands)
    np.testing.assert_array_equal(found, np.where(wanted == 0, -1, wanted))


@every_example
def test_derivatives_are_the_routes(row, shapes, shape, attribute):
    operands = numbers(shapes)
    for k, x in enumerate(operands) if row.linear else ():
        slopes = fg.jacobian(lambda x, k=k: row.step(How(shape, np.dtype(float), attribute))(
            *operands[:k], x, *operands[k + 1:]) * 1.0)(x)
        wanted = np.zeros((int(np.prod(shape)), x.size))
        np.add.at(wanted, row.route(How(shape, x.dtype, attribute), k, shapes), 1)
        np.testing.assert_array_equal(np.reshape(slopes, wanted.shape), wanted)


@every_example
def test_what_is_linear(row, shapes, shape, attribute):
    a, b = numbers(shapes), numbers(shapes, 2)

    def f(*operands):
        return run(row, shape, attribute, operands)

    if row.linear:
        np.testing.assert_array_equal(f(*[x + 2 * y for x, y in zip(a, b)]), f(*a) + 2 * f(*b))
    elif row.bilinear:
        np.testing.assert_array_equal(f(a[0] + 2 * b[0], a[1]), f(*a) + 2 * f(b[0], a[1]))
        np.testing.assert_array_equal(f(a[0], a[1] + 2 * b[1]), f(*a) + 2 * f(a[0], b[1]))
    else:
        assert np.prod(shapes[0]) == np.prod(shape) or not np.array_equal(
            f(a[0] + 2 * b[0]), f(*a) + 2 * f(*b))


@every_example
def test_an_axis_in_front(row, shapes, shape, attribute):
    if row.behind is None:
        return
    one, other = numbers(shapes), numbers(shapes, 3)
    both = run(row, (2, *shape), row.behind(attribute), [*map(np.stack, zip(one, other))])
    np.testing.assert_array_equal(both, np.stack([run(row, shape, attribute, one),
                                                  run(row, shape, attribute, other)]))


@pytest.mark.parametrize("name", ["gather", "scatter", "assign"])
def test_indices_that_are_operands(name):
    row = SHAPED[name]
    for shapes, shape, attribute in CASES[name]:
        parts = attribute if type(attribute) is tuple else (attribute,)
        operands, made = numbers(shapes), []
        for part in parts:
            if isinstance(part, (list, np.ndarray)):
                made.append(Slot(len(operands)))
                operands.append(np.array(part))
            else:
                made.append(part)
        np.testing.assert_array_equal(run(row, shape, tuple(made), operands),
                                      run(row, shape, attribute, operands[:len(shapes)]))


ENGINES = [path for folder in ("transforms", "graphs", "programs")
           for path in sorted((pathlib.Path(fg.__file__).parent / folder).glob("*.py"))
           if path.stem != "explicit"]          # which has Python's names of operators


@pytest.mark.parametrize("engine", ENGINES, ids=lambda path: path.stem)
def test_no_engine_names_an_operator(engine):
    """What is special about one stands in its record."""
    tree = ast.parse(engine.read_text())
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not named & set(SHAPED)
