"""What compiled functions, lanes and files once answered wrongly: lists beside numbers, containers
of the user's own, results of lanes that are built in different ways, numbers that give way."""

import collections

import numpy as np
import pytest
from sides import recorded, side_by_side

import fastgrad as fg
import fastgrad.numpy as fnp

pytestmark = pytest.mark.filterwarnings("ignore:compile", "ignore:vmap")


# ---- lists beside numbers -------------------------------------------------------------------

BINARY = sorted(name for name, f in vars(np).items() if isinstance(f, np.ufunc) and f.nin == 2
                and f.nout == 1 and f.signature is None and "dd->" in " ".join(f.types))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("space", [np, fnp])
def test_a_list_beside_a_number_is_an_array(space, name):
    function = getattr(space, name)
    for f in (lambda x: function(x, [0.5, 1.5]), lambda x: function((0.5, 1.5), x)):
        with np.errstate(all="ignore"):
            wanted = [f(x) for x in (0.5, 1.5)]
            program = fg.compile(f)
            for x, y in zip((0.5, 1.5, 0.5), (*wanted, wanted[0])):
                np.testing.assert_allclose(program(x), y, rtol=1e-15)
            if name in ("logaddexp2", "nextafter"):     # have no rule
                continue
            mapped = fg.vmap(f)(np.array([0.5, 1.5]))
            np.testing.assert_allclose(mapped, wanted, rtol=1e-15)
            steps = fg.compile(lambda s: fg.scan(lambda c, x: (c, f(x)), s, np.array([0.5, 1.5]))[1])
            np.testing.assert_allclose(steps(1.0), wanted, rtol=1e-15)


def test_to_operators_a_list_is_a_list():
    f = fg.compile(lambda x: (x == [0.5, 1.5], [0.5] == x))
    assert f(0.5) == (False, False)


# ---- containers of the user's own -----------------------------------------------------------

def counting():
    seen = collections.Counter(a=5)

    def f(x):
        seen.update([x])
        seen.subtract({x: 3})
        return seen[x]
    return f, lambda: seen


def ordered():
    seen = collections.OrderedDict(a=5.0)

    def f(x):
        seen[x] = 2 * x
        seen.move_to_end("a")
        return x
    return f, lambda: (seen, list(seen))


class Fetched(dict):
    def __init__(self):
        self.log = []

    def __missing__(self, key):
        self.log.append(key)
        return float(len(self.log))


class Kept(Fetched):
    def __missing__(self, key):
        self[key] = 1.0
        return super().__missing__(key) + 4.0


class Asked(dict):
    log = 0

    def __getitem__(self, key):
        self.log += 1
        return dict.__getitem__(self, key)


class Walked(list):
    log = 0

    def __iter__(self):
        self.log += 1
        return list.__iter__(self)

    def __len__(self):
        self.log += 1
        return list.__len__(self)


@pytest.mark.parametrize("make", [counting, ordered])
def test_what_is_stored_under_a_number(make):
    side_by_side(make, (0.5,), (0.5,), (2.0,), (0.5,))


@pytest.mark.parametrize("kind, f", [
    (Fetched, lambda d, x: x * d["q"]), (Kept, lambda d, x: x * d["q"]),
    (lambda: Asked(q=2.0), lambda d, x: x * d["q"]),
    (lambda: Walked([1.0, 2.0]), lambda d, x: [x * v for v in d]),
    (lambda: Walked([1.0, 2.0]), lambda d, x: x * len(d))])
def test_methods_of_containers_run_once_a_call(kind, f):
    def make():
        held = kind()
        return lambda x: f(held, x), lambda: (held.log, vars(held))
    side_by_side(make)


class Closing:
    log = 0

    def __del__(self):
        Closing.log += 1


def test_what_is_done_when_an_object_is_dropped():
    def f(x):
        Closing()
        return x * 2

    program, Closing.log = fg.compile(f), 0
    assert [program(float(k)) for k in range(3)] == [0.0, 2.0, 4.0] and Closing.log == 3


@pytest.mark.parametrize("part", [lambda x: np.trim_zeros(x), lambda x: x.getfield(np.float64)])
def test_views_that_no_rule_tells_of(part):
    def f(x):
        part(x)[:1] = 5.0
        return np.sum(x)
    side_by_side(lambda: (f, lambda: None), (np.array([1.0, 2.0]),), (np.array([3.0, 2.0]),))


# ---- lanes one by one -----------------------------------------------------------------------

MATRICES = np.array([[[2.0, 0.0], [0.0, 4.0]], [[1.0, 2.0], [2.0, 4.0]]])


def solved(m, done, failed):
    try:
        return done(np.linalg.solve(m, np.ones(2)))
    except np.linalg.LinAlgError:
        return failed(m)


@pytest.mark.parametrize("lanes", [MATRICES, MATRICES[::-1]])
def test_keys_in_another_order(lanes):
    def f(m):
        return solved(m, lambda x: {"x": x, "b": x * 0 + 1}, lambda m: {"b": -m[0], "x": m[0] * 0})

    found = fg.vmap(f)(lanes)
    for k, lane in enumerate(lanes):
        for key, value in f(lane).items():
            np.testing.assert_array_equal(found[key][k], value)


@pytest.mark.parametrize("failed", [lambda m: {"failed": m}, lambda m: {"x": m[0], "y": m},
                                    lambda m: m[0], lambda m: {"x": (m[0],)}, lambda m: [m]])
def test_results_that_are_not_built_alike(failed):
    for lanes in (MATRICES, MATRICES[::-1]):
        with pytest.raises(ValueError, match="not built alike"):
            fg.vmap(lambda m: solved(m, lambda x: {"x": x}, failed))(lanes)


# ---- numbers that give way ------------------------------------------------------------------

SMALL = np.ones(2, np.float32)


@pytest.mark.parametrize("f", [
    lambda x: np.dot(x, SMALL), lambda x: np.inner(SMALL, x), lambda x: np.outer(x, SMALL),
    lambda x: np.kron(x, SMALL), lambda x: np.zeros(2, np.result_type(x, np.float32)),
    lambda x: np.linspace(SMALL, x, 3), lambda x: np.linspace(x, SMALL, 3), lambda x: x * SMALL])
def test_numbers_of_pythons_beside_float32(f):
    for x in (0.5, np.float64(0.5)):
        assert fg.compile(f)(x).dtype == f(x).dtype


@pytest.mark.parametrize("first, second", [(1.5, np.float64(2.5)), (np.float64(1.5), 2.5)])
def test_a_file_tells_numbers_of_numpys_from_pythons(tmp_path, first, second):
    for array, fits in ((SMALL, False), (np.ones(2), True)):
        program = fg.compile(lambda x: array * x)
        program(first)
        program.save(tmp_path / "a")
        loaded = fg.load(tmp_path / "a")
        assert loaded(type(first)(3.0)).dtype == program(type(first)(3.0)).dtype
        if fits:
            assert loaded(second).tolist() == [2.5, 2.5]
        else:
            with pytest.raises(TypeError, match="float32 arrays"):
                loaded(second)


def test_a_file_takes_keys_in_any_order(tmp_path):
    program = fg.compile(lambda d: d["a"] * 10 + d["b"])
    program({"a": 1.0, "b": 2.0})
    program.save(tmp_path / "a")
    loaded = fg.load(tmp_path / "a")
    assert loaded({"b": 4.0, "a": 3.0}) == 34.0 and recorded(loaded) == 1
    with pytest.raises(TypeError, match="it takes"):
        loaded({"b": 4.0, "c": 3.0})
