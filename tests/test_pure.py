"""`fg.compile(f, pure=True)`: f depends on its arguments alone, says who writes it."""

import numpy as np
import pytest

import fastgrad as fg

X, scale, calls = np.arange(6.0).reshape(2, 3), 2.0, []
rng = np.random.default_rng(0)


def f(x):
    calls.append(1)
    return np.sum((X @ x) ** 2) * scale


def test_what_it_reaches_is_frozen(monkeypatch):
    program, wanted = fg.compile(f, pure=True), f(np.ones(3))
    del calls[:]
    assert program(np.ones(3)) == wanted
    monkeypatch.setitem(globals(), "scale", 5.0)
    monkeypatch.setitem(globals(), "X", X + 1.0)
    assert program(np.ones(3)) == wanted and len(calls) == 1
    assert "holds while" not in program.why()


def test_it_needs_nothing_of_what_a_watch_needs():
    def strange(x):
        return x * len(open(__file__).read()) + rng.normal()

    program = fg.compile(strange, pure=True)
    assert program(2.0) - program(1.0) == pytest.approx(len(open(__file__).read()))
    assert program.fast_calls == 1 and program.reasons == []


@pytest.mark.parametrize("drawn", [lambda x: x * rng.normal(), lambda x: x * len(calls)])
def test_verify_finds_what_is_not(drawn):
    program = fg.compile(drawn, pure=True, verify=3)
    program(1.0)
    calls.append(1)
    with pytest.raises(RuntimeError, match="verify: replay 1 of the path"):
        program(1.0)


def test_derivatives_branches_and_methods(tmp_path):
    class Model:
        def __init__(self):
            self.w = np.array([1.0, 2.0, 3.0])

        def loss(self, x, n):
            return np.sum(self.w * x) ** n if x[0] > 0 else np.sum(x)

    model = Model()
    program = fg.compile(fg.value_and_grad(model.loss), pure=True)
    for x in (np.ones(3), -np.ones(3), np.arange(1.0, 4.0), -np.ones(3)):
        got, wanted = program(x, 2), fg.value_and_grad(model.loss)(x, 2)
        assert got[0] == wanted[0]
        np.testing.assert_array_equal(got[1], wanted[1])
    assert len(program.paths) == 2
    program.save(tmp_path / "p.fgp")
    model.w += 1.0
    assert fg.load(tmp_path / "p.fgp")(np.ones(3), 2)[0] == 36.0 == program(np.ones(3), 2)[0]


def test_what_leaves_is_not_replayed_all_the_same():
    program = fg.compile(lambda x: x * float(x), pure=True)
    with pytest.warns(UserWarning, match="leaves it as a number"):
        assert program(3.0) == 9.0
    assert program(2.0) == 4.0
