"""`Program.why`: what paths depend on, what makes them several, and why calls are not replayed."""

import numpy as np
import pytest

import fastgrad as fg
from fastgrad.programs.shown import _CURES

X, d, scale = np.arange(6.0).reshape(2, 3), np.ones(3), 2.0


def f(x):
    y = np.sum(X @ x) * scale + np.sum(x * (d - d.mean()))
    return y if y > 0 else -y


def test_what_paths_depend_on():
    program = fg.compile(f)
    assert program.why() == "f: it has not been called yet"
    program(np.ones(3)), program(np.ones(3)), program(-np.ones(3))
    lines = program.why().split("\n")
    assert lines[0] == "f(float64[3])" and lines[1] == "  path 1, 1 call"
    assert lines[2] == "    read at each call: `X`"
    assert lines[3].startswith("    holds while: `scale` is the same; `d` is the same; bool False at ")
    assert lines[4].startswith("    apart from path 2 by: bool False or True at ")
    assert lines[5] == "  path 2, 2 calls"


def test_what_has_changed(monkeypatch):
    program = fg.compile(f)
    program(np.ones(3))
    d[0] += 1.0
    program(np.ones(3))
    d[0] -= 1.0
    assert "apart from path 2 by: the array `d`" in program.why()
    monkeypatch.setitem(globals(), "scale", 3.0)
    program(np.ones(3))
    monkeypatch.setitem(globals(), "scale", 4.0)
    program(np.ones(3))
    assert "read at each call: `scale`; `X`" in program.why()       # lifted


@pytest.mark.filterwarnings("ignore")
def test_cures():
    rng, kept = np.random.default_rng(0), []
    for function, words in ((lambda x: x * float(x), "compute with fastgrad.numpy"),
                            (lambda x: x * rng.normal(), "draw outside"),
                            (lambda x: kept.append(x) or x, "return it, and pass it in"),
                            (lambda x: np.unwrap(x * np.ones(3)), "write it with functions"),
                            (lambda x: x * len(open(__file__).read()), "call it outside")):
        program = fg.compile(function)
        program(1.5)
        assert f"cure: {words}" in program.why()


def test_what_changes_again_and_again_is_named():
    sizes = np.ones(3)
    program = fg.compile(lambda x: x * np.sum(sizes))
    with pytest.warns(UserWarning, match="such as the array `sizes`; pass it as an argument"):
        for _ in range(20):
            program(1.0)
            sizes += 1.0
    assert "cure: pass as an argument what changes" in program.why()


def test_every_cure_is_of_a_reason_that_exists():
    import pathlib

    text = "".join([path.read_text() for path in pathlib.Path(fg.__file__).parent.rglob("*.py*")
                    if path.suffix in (".py", ".pyx") and path.stem != "shown"])
    flat = " ".join(text.replace('"\n', "").split()).replace('" f"', "").replace('" "', "")
    for words, _ in _CURES:
        assert words.split()[0] in flat
