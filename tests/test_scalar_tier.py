"""Strings of scalar operations (src/vm_scalar.h): the bits of the operators, one by one."""

import numpy as np
import pytest

import fastgrad as fg
from fastgrad._core import core, program
from fastgrad.graphs.graph import INPUT, NAMES, OPS
from fastgrad.graphs.record import record

OPERATION = np.dtype([("op", "u2"), ("dtype", "u1"), ("flags", "u1"),
                      ("y", "u4"), ("a", "u4"), ("b", "u4"), ("c", "u4")])
SINGLE, DOUBLE = np.dtype(np.float32).num, np.dtype(np.float64).num

TABLE = [row for row in core.operators() if row.kind != "shaped"]
ROWS = [row.name for row in TABLE]
COMPARISONS = [row.name for row in TABLE if row.kind == "compare"]
ARITY = {row.name: row.arity for row in TABLE}
PRODUCTS = ["add", "subtract", "multiply", "weigh"]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 1e-320, -1e-310, 1e300, -1e300, 1e-300, np.inf, -np.inf,
           np.nan, 700.0, 1e22]


def run(operations, registers, kept):
    """The registers afterwards, and what the operations have become."""
    registers = np.array(registers, float)
    flags = np.zeros(len(registers), np.uint8)
    flags[list(kept)] = 1
    measured = program.scalar_run(np.array(operations, OPERATION).view(np.uint8), registers, flags)
    return registers, measured


def value(op, dtype, a, b, c):
    """What one operation gives: the slow twin."""
    name = NAMES[op]
    if name in COMPARISONS:
        return float(getattr(np, name)(a, b))
    return core.scalar_value(name, "float32" if dtype == SINGLE else "float64", a, b, c)


def expected(operations, registers):
    registers = np.array(registers, float)
    for op, dtype, _, y, a, b, c in operations:
        registers[y] = value(op, dtype, registers[a], registers[b], registers[c])
    return registers


def assert_same_bits(got, wanted, message=""):
    got, wanted = np.asarray(got, float), np.asarray(wanted, float)
    same = (got.view(np.int64) == wanted.view(np.int64)) | (np.isnan(got) & np.isnan(wanted))
    assert same.all(), f"{message} {got[~same][:5]} instead of {wanted[~same][:5]}"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("name", ROWS)
def test_each_row_alone(name, dtype, rng):
    arity = ARITY[name]
    numbers = SPECIAL + list(rng.normal(0, 2, 8))
    if dtype == SINGLE:
        with np.errstate(over="ignore"):
            numbers = [float(np.float32(x)) for x in numbers]
    for x in numbers:
        for y in numbers if arity > 1 else [1.5]:
            for z in rng.choice(numbers, 3) if arity > 2 else [0.25]:
                operation = [(OPS[name], dtype, 0, 3, 0, 1, 2)]
                start = [x, y, z, 9.0]
                if name == "copysign" and np.isnan(y):
                    continue                        # the sign of a NaN is anybody's
                assert_same_bits(run(operation, start, [3])[0], expected(operation, start),
                                 f"{name}({x}, {y}, {z})")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("name", ROWS)
def test_each_row_in_a_run(name, dtype, rng):
    numbers = [x for x in SPECIAL if not np.isnan(x)] + list(rng.normal(0, 2, 40))
    if dtype == SINGLE:
        with np.errstate(over="ignore"):
            numbers = [float(np.float32(x)) for x in numbers]
    n = len(numbers)
    for outer in ("", "add", "subtract", "multiply", "weigh"):
        operations = [(OPS[name], dtype, 0, n + k, k, rng.integers(n), rng.integers(n))
                      for k in range(n)]
        kept = range(n, 2 * n)
        if outer:                                   # joined to one instruction if possible
            operations += [(OPS[outer], DOUBLE, 0, 2 * n + k, n + k if k % 2 else n - 1 - k,
                            n - 1 - k if k % 2 else n + k, 0) for k in range(n)]
            kept = range(2 * n, 3 * n)
        start = numbers + [0.0] * 2 * n
        registers, (instructions, size, _) = run(operations, start, kept)
        if not outer:
            assert instructions == n
            assert size <= 4 * (n * (ARITY[name] + 1) + 4)      # one head for all
        with np.errstate(all="ignore"):
            wanted = expected(operations, start)
        assert_same_bits(registers[kept], wanted[kept], f"{outer} {name}")


def random_program(rng, n, singles, products, numbers, wide):
    """Operations, the start of all registers, which are kept, and which are inputs."""
    inputs = n // 2 + 6 if wide else 6
    registers = np.zeros(inputs + n)
    registers[:inputs] = rng.choice(numbers, inputs)
    single = np.zeros(inputs + n, bool)
    if singles:
        with np.errstate(over="ignore"):
            registers[:inputs // 2] = registers[:inputs // 2].astype(np.float32)
        single[:inputs // 2] = True
    names = rng.permutation(inputs + n)        # registers in any order
    operations, values = [], registers.copy()
    for k in range(inputs, inputs + n):
        dtype = SINGLE if singles and rng.random() < 0.4 else DOUBLE
        pool = np.flatnonzero(single[:k]) if dtype == SINGLE else np.arange(k)
        near = pool[-3:] if rng.random() < 0.6 and not wide else pool
        a, b = rng.choice(near), rng.choice(pool if rng.random() < 0.5 else near)
        c = rng.choice(pool)
        if rng.random() < 0.5:
            a, b = b, a
        name = rng.choice(PRODUCTS) if rng.random() < products else rng.choice(ROWS)
        if name == "copysign" and np.isnan(values[b]):
            name = "add"                            # the sign of a NaN is anybody's
        if dtype == DOUBLE and singles and rng.random() < 0.2:
            name, dtype = "positive", SINGLE        # a cast
        values[k] = value(OPS[name], dtype, values[a], values[b], values[c])
        if abs(values[k]) > 1e6 and rng.random() < 0.9:
            name, dtype = "arctan", DOUBLE
            values[k] = value(OPS[name], dtype, values[a], 0.0, 0.0)
        single[k] = dtype == SINGLE or name in COMPARISONS
        operations.append((OPS[name], dtype, 0, names[k], names[a], names[b], names[c]))
    start = np.zeros(inputs + n)
    start[names[:inputs]] = registers[:inputs]
    start[names[inputs:]] = np.nan
    kept = rng.choice(names[inputs:], -(-n // 10), replace=False)
    return operations, start, kept, names[:inputs]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("numbers", [SPECIAL, list(np.linspace(-2, 2, 41))],
                         ids=["special", "usual"])
@pytest.mark.parametrize("singles", [False, True], ids=["float64", "mixed"])
@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
@pytest.mark.parametrize("products", [0.0, 0.5, 0.95])
def test_random_programs(numbers, singles, products, wide):
    for seed in range(15):
        rng = np.random.default_rng(seed)
        operations, start, kept, inputs = random_program(
            rng, int(rng.integers(1, 400 if wide else 100)), singles, products, numbers, wide)
        with np.errstate(all="ignore"):
            wanted = expected(operations, start)
        got, measured = run(operations, start, kept)
        assert_same_bits(got[kept], wanted[kept], f"seed {seed}")
        assert_same_bits(got[inputs], start[inputs], f"seed {seed}: inputs")
        assert measured[0] <= len(operations)
        everything = np.arange(len(start))
        assert_same_bits(run(operations, start, everything)[0], wanted, f"seed {seed}: all kept")


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_few_operations_among_many_registers(n):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        operations, start, kept, inputs = random_program(rng, n, False, 0.7, SPECIAL, False)
        wanted = expected(operations, start)
        places = rng.permutation(3000)[:len(start)]
        operations = [(*o[:3], *(places[r] for r in o[3:])) for o in operations]
        spread = np.full(3000, 7.0)
        spread[places] = start
        registers, _ = run(operations, spread, places[kept])
        assert_same_bits(registers[places[kept]], wanted[kept], f"seed {seed}")
        assert_same_bits(registers[places[inputs]], start[inputs], f"seed {seed}: inputs")
        untouched = np.ones(3000, bool)
        untouched[places] = False
        assert np.all(registers[untouched] == 7.0)


def lower(graph):
    """A graph of scalars as operations: start, operations, and registers of inputs and outputs."""
    operations, start, same = [], np.zeros(len(graph)), {}
    for k in range(len(graph)):
        name, node = graph.name(k), graph.nodes[k]
        operands = [same.get(i, i) for i in graph.operands_of(k)]
        if name == "leaf":
            start[k] = 0.0 if node["flags"] & INPUT else graph.constant(k)
        elif name == "reshape":
            same[k] = operands[0]
        elif name == "cast":
            operations.append((OPS["positive"], node["dtype"], 0, k, operands[0], 0, 0))
        elif name == "chain":           # as a plan takes it
            operations.append((OPS["weigh"], node["dtype"], 0, k, *operands[:2], 0))
        else:
            dtype = graph.nodes["dtype"][operands[0]] if name in COMPARISONS else node["dtype"]
            operations.append((node["op"], dtype, 0, k, *(operands + [0, 0])[:3]))
    return (start, operations, [same.get(k, k) for k in graph.inputs],
            [same.get(k, k) for k in graph.outputs])


def rerun(function, *values):
    recording = record(lambda arguments: function(*arguments), list(values))
    start, operations, inputs, outputs = lower(recording.graph)
    start[inputs] = values
    registers, measured = run(operations, start, outputs)
    assert_same_bits(registers[outputs], np.array(recording.results, float), function.__name__)
    return registers[outputs], measured, len(operations)


def arith(x):
    y = x
    for _ in range(500):
        y = y * x + y
    return y


def chain(x):
    y = x
    for _ in range(333):
        y = np.sin(y) * x + y
    return y


def rosenbrock(x, y, z):
    return 100 * (y - x**2)**2 + (1 - x)**2 + 100 * (z - y**2)**2 + (1 - y)**2


def transcendental(x, y):
    return np.exp(np.sin(x) * np.cos(x)) / (1 + np.tanh(x * y)**2) - np.log(x) * np.arctan2(y, x)


def with_kinks(x, y):
    return np.maximum(x, y) * abs(x - y) + np.where(x > y, x, y * y) + np.minimum(x * y, 3.0)


@pytest.mark.parametrize("function, values", [
    (arith, (0.01,)), (chain, (0.01,)), (chain, (np.float32(0.01),)), (arith, (np.float32(0.01),)),
    (rosenbrock, (1.2, 0.7, -0.3)), (transcendental, (0.7, 1.3)), (with_kinks, (0.4, 0.9)),
], ids=lambda x: getattr(x, "__name__", str(x)))
def test_recorded_values_and_gradients(function, values):
    def both(*x):
        value, gradient = fg.value_and_grad(function, argnums=tuple(range(len(x))))(*x)
        return [value, *gradient]

    rerun(both, *values)


def test_second_derivatives():
    def second(x, y):
        return [fg.grad(fg.grad(transcendental))(x, y), fg.grad(fg.grad(rosenbrock))(x, y, x * y)]

    rerun(second, 0.7, 1.3)


def test_sine_and_cosine_of_the_same_operand_are_one_instruction():
    _, (instructions, _, _), n = rerun(lambda x: list(fg.value_and_grad(chain)(x)), 0.01)
    assert n > 2900
    assert instructions < 1700


def test_sincos_has_the_bits_of_both(rng):
    x = np.concatenate([rng.normal(0, 3, 3000), rng.normal(0, 1e5, 500),
                        10.0**rng.uniform(-320, 308, 2000), np.array(SPECIAL)])
    for dtype in (SINGLE, DOUBLE):
        if dtype == SINGLE:
            with np.errstate(over="ignore"):
                x = x.astype(np.float32).astype(float)
        n = len(x)
        operations = [(OPS[name], dtype, 0, (1 + (name == "cos")) * n + k, k, 0, 0)
                      for k in range(n) for name in ("sin", "cos")]
        start = np.concatenate([x, np.zeros(2 * n)])
        registers, (instructions, _, _) = run(operations, start, range(n, 3 * n))
        assert instructions == n
        assert_same_bits(registers, expected(operations, start))


def test_few_registers_are_written():
    n = 20_000
    operations = [(OPS["multiply" if k % 3 else "sin"], DOUBLE, 0, k + 2, k + 1, 0, 0)
                  for k in range(n)]
    start = np.full(n + 2, 0.9)
    registers, (_, _, written) = run(operations, start, [n + 1])
    assert written < 10
    assert_same_bits(registers[n + 1], expected(operations, start)[n + 1])


def test_a_long_program():
    n = 300_000
    operations = np.zeros(n, OPERATION)
    operations["op"] = np.where(np.arange(n) % 2, OPS["add"], OPS["multiply"])
    operations["dtype"] = DOUBLE
    operations["y"] = np.arange(n) + 2
    operations["a"] = np.arange(n) + 1
    operations["b"] = np.where(np.arange(n) % 2, 1, 0)
    start = np.full(n + 2, np.nan)
    start[:2] = 0.5, 1.0
    registers, _ = run(operations, start, [n + 1])
    assert registers[n + 1] == 2.0                  # y = y / 2 + 1, from y = 1


def test_nothing_to_do():
    assert run([], [1.0, 2.0], [0])[0].tolist() == [1.0, 2.0]
    assert run([], [], [])[1][0] == 0
    registers, measured = run([(OPS["add"], DOUBLE, 0, 1, 0, 0, 0)], [1.0, 7.0], [])
    assert measured[0] == 0


ADD = OPS["add"]


@pytest.mark.parametrize("operations", [
    [(ADD, DOUBLE, 0, 2, 0, 1, 0), (ADD, DOUBLE, 0, 2, 0, 1, 0)],       # written twice
    [(ADD, DOUBLE, 0, 2, 0, 1, 0), (ADD, DOUBLE, 0, 0, 2, 1, 0)],       # written after a read
    [(ADD, DOUBLE, 0, 2, 2, 1, 0)],                                     # reads itself
    [(ADD, DOUBLE, 0, 4, 0, 1, 0)], [(ADD, DOUBLE, 0, 2, 4, 1, 0)], [(ADD, DOUBLE, 0, 2, 0, 4, 0)],
    [(OPS["where"], DOUBLE, 0, 2, 0, 1, 4)],                            # no such register
    [(OPS["reshape"], DOUBLE, 0, 2, 0, 1, 0)], [(ADD, 7, 0, 2, 0, 1, 0)],
])
def test_operations_that_break_the_rules(operations):
    with pytest.raises(ValueError, match="a register is written twice"):
        run(operations, [1.0, 2.0, 3.0, 4.0], [3])


def test_arguments_of_the_wrong_length():
    with pytest.raises(ValueError, match="20 bytes each"):
        program.scalar_run(np.zeros(19, np.uint8), np.zeros(3), np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="give one for each"):
        program.scalar_run(np.zeros(0, np.uint8), np.zeros(3), np.zeros(2, np.uint8))
