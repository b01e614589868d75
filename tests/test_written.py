"""Functions as people write them (tests/written), each over a story in which what it reaches
changes: compiled, differentiated, mapped, scanned and saved against the plain function.

What is true today stands in written/known.py, which `python tests/worlds.py` writes: names that are
replayed (a change that stops replaying is noticed), names that a transformation refuses, and lies,
whose tests fail as long as nobody has mended them.
"""

import re

import pytest
import worlds
from worlds import MODES, STORIES, Refused, first_answer, twice
from written.known import LIES, REFUSED, REPLAYED

worlds.load_all()

# The quick run compiles each function, and takes some of them in the other modes.
EVERY = {"compile": 1, "rebound": 4, "grad": 5, "vmap": 6, "scan": 6, "save": 6}

# Replayed by some Pythons alone; known.py is written by 3.11.
SOMETIMES = {"dataclass_asdict"}        # which copies its floats until 3.11

replayed = {}                           # name -> whether it is, as the tests find it


def checked(name, mode):
    """What is wrong."""
    wrong, again = worlds.check(STORIES[name], mode)
    if mode == "compile":
        replayed[name] = bool(again)
    return wrong


def cases():
    for offset, mode in enumerate(MODES):
        wrong = {name: word for word, names in LIES[mode].items() for name in names}
        for k, name in enumerate(STORIES):
            marks = []
            if name in wrong:
                marks.append(pytest.mark.xfail(reason=wrong[name], strict=True))
            if k % EVERY[mode] != offset % EVERY[mode]:
                marks.append(pytest.mark.slow)
            yield pytest.param(mode, name, marks=marks, id=f"{mode}-{name}")


@pytest.mark.parametrize("mode, name", list(cases()))
def test_written(mode, name):
    try:
        wrong = checked(name, mode)
    except Refused as refusal:
        assert name in REFUSED.get(mode, ()), f"refused since now: {refusal}"
    else:
        assert not wrong
        assert name not in REFUSED.get(mode, ()), "no longer refused: write known.py anew"


def test_replayed():
    """Those that are replayed today are tomorrow; one that is from now on is added to the table."""
    for name in STORIES:
        if name not in replayed:        # its test has not been run
            checked(name, "compile")
    found = [name for name in STORIES if replayed[name]]
    assert sorted(set(REPLAYED) - set(found) - SOMETIMES) == [], "no longer replayed"
    assert sorted(set(found) - set(REPLAYED) - SOMETIMES) == [], "replayed now: write known.py anew"


def test_the_list():
    """Each line of the list is a function, in the file that its heading names."""
    heading, listed = None, []
    for line in (worlds.FOLDER / "README.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif found := re.match(r"- (\w+): ", line):
            listed.append((heading, found[1]))
    assert sorted(listed) == sorted((story.theme, name) for name, story in STORIES.items())
    known = {*REPLAYED, *[name for names in REFUSED.values() for name in names],
             *[name for found in LIES.values() for names in found.values() for name in names]}
    assert known <= set(STORIES)


# ---- whether it would notice ------------------------------------------------------------------

@worlds.story_of()
def rising_rate():
    rate = 1.0

    def f(x):
        return x.sum() * rate

    yield f
    for rate in (1.0, 2.0, 3.0):
        yield


@worlds.story_of()
def counting():
    calls = [0]

    def f(x):
        calls[0] += 1
        return x.sum()

    yield f, calls


@pytest.mark.parametrize("story, compiler, noticed", [
    (rising_rate, first_answer, "result"), (counting, first_answer, "result"),
    (rising_rate, twice, "ran 2 times"), (counting, twice, "state"),
    (rising_rate, lambda f: f, ""), (counting, lambda f: f, "")])
def test_what_would_be_noticed(story, compiler, noticed):
    plain, _ = worlds.play(story)
    other, _ = worlds.play(story, lambda world: compiler(world.f))
    assert noticed in worlds.differences(plain, other)
    assert bool(worlds.differences(plain, other)) == bool(noticed)


def test_a_world_has_globals_of_its_own():
    """What one telling of a story rebinds, another does not see."""
    first, second = (worlds.World(STORIES["global_scale"]) for _ in range(2))
    for _ in range(3):
        first.change()
    assert first.f(*first.arguments(0)) != second.f(*second.arguments(0))
