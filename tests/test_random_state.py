"""Some of the random programs with state of random_state.py, and whether that would notice."""

import types

import pytest
import random_state
import worlds
from random_state import draw, shrink, story, wrong
from worlds import first_answer, twice

SEED = 2026


@pytest.mark.sampled(2)
@pytest.mark.parametrize("mode, first, count", [
    *[("compile", first, 25) for first in range(0, 150, 25)],
    *[("grad", first, 25) for first in range(0, 50, 25)]])
def test_random_state(mode, first, count):
    found = {k: difference for k in range(first, first + count)
             if (difference := wrong(draw(SEED, k), mode))}
    assert not found, "\n\n".join([
        f"{k}: {found[k]}\n{shrink(draw(SEED, k), lambda text: wrong(text, mode))}"
        for k in found])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compile", "grad"])
@pytest.mark.parametrize("first", range(0, 400, 200))
def test_many_random_states(mode, first):
    found = [k for k in range(first, first + 200) if wrong(draw(SEED + 1, k), mode)]
    assert found == []


# ---- what would be noticed --------------------------------------------------------------------

def test_programs_are_what_they_say():
    """They read, store, branch, loop, draw, raise, catch; the world changes between the calls."""
    texts = [draw(SEED, k) for k in range(150)]
    bodies = [text.partition("def f(")[2].partition("yield f")[0] for text in texts]
    after = "\n".join(text.partition("yield f")[2] for text in texts)
    source = "\n".join(bodies)
    for part in ("model.", "hist.append(", "calls += 1", "cell = ", "buffer[", "rng.", "if ",
                 "else:", "for ", "try:", "raise ValueError", "np.argmax", "globals()", "return "):
        assert part in source, part
    for part in ("rate = ", "weights[", "model.scale = ", "hist.append(", "Model.factor = "):
        assert part in after, part
    pure = sum(all(store not in body for store in random_state.STORES) for body in bodies)
    assert 50 < pure < 140


def replaced(compiler):
    """`wrong` for a compiler of another kind."""
    def replaced_differs(text):
        told = story(text)
        plain, _ = worlds.play(told)
        other, _ = worlds.play(told, lambda world: compiler(world.f))
        return worlds.differences(plain, other)
    return replaced_differs


def by_first_globals(f):
    """A compiler that never looks at a global again."""
    frozen = types.FunctionType(f.__code__, dict(f.__globals__), f.__name__, None, f.__closure__)
    return lambda *args: frozen(*args)


def test_what_is_wrong_is_noticed():
    texts = [draw(SEED, k) for k in range(60)]
    assert sum(bool(replaced(first_answer)(text)) for text in texts) > 50
    assert sum(bool(replaced(twice)(text)) for text in texts) == 60
    assert sum(bool(replaced(by_first_globals)(text)) for text in texts) > 3
    assert sum(bool(replaced(lambda f: f)(text)) for text in texts) == 0


@pytest.mark.parametrize("compiler, left", [(first_answer, "return"), (by_first_globals, "rate")])
def test_what_differs_becomes_small(compiler, left):
    noticed = replaced(compiler)
    text = next(text for k in range(60) if noticed(text := draw(SEED, k)))
    small = shrink(text, noticed)
    assert noticed(small)
    assert left in small
    assert len(small.splitlines()) < 14 < len(text.splitlines())
