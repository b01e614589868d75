"""Some hundred random programs, compiled against not; stress_programs.py runs thousands."""

import numpy as np
import pytest
import random_programs
from random_programs import check, draw, shrink

EACH = 25


@pytest.mark.parametrize("first", range(0, 300, EACH))
def test_compiled_programs_return_what_the_function_returns(first):
    for k in range(first, first + EACH):
        text = draw(2026, k)
        difference = check(text)
        assert difference is None, f"program {k}: {difference}\n{text}"


def remembered(f):
    """A compiler that replays whatever the first call returned."""
    results = []

    def again(*xs):
        if not results:
            results.append(random_programs.recorded(f)(*xs) if f.__name__ == "f" else f(*xs))
        return results[0]

    return again


def test_a_result_that_is_remembered_is_noticed():
    texts = [draw(2026, k) for k in range(40)]
    found = [check(text, remembered, "values") for text in texts]
    assert sum(difference is not None for difference in found) > 20


def test_a_unit_in_the_last_place_is_noticed():
    """Where no sum is in the program, all bits count."""
    def compile(f):
        plain = random_programs.recorded(f)
        return lambda *xs: np.nextafter(plain(*xs), np.inf)

    kinds = [found.kind for k in range(60) if (found := check(draw(2026, k), compile, "values"))]
    assert kinds.count("bits") > 5


def test_small_programs_that_still_differ():
    for k in range(20):
        text = draw(2026, k)
        if difference := check(text, remembered, "values"):
            small, still = shrink(text, difference, remembered)
            assert len(small.lines) <= len(text.lines)
            assert still.kind == difference.kind
            assert check(small, remembered, "values").kind == difference.kind
