"""Laws of replays: what was recorded with some data gives, with other data, what the plain function
gives, or is recorded anew, or says why not. Never an index, a count, an order or a mask of before.

The data of the recording and the fresh ones differ in argmax, order, masks and counts.
"""

import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import special
from laws.calls import PLAIN, ROWS, cases, names, parts, value

A, B, C, D = (np.array(x) for x in ([1.0, 2.5, 1.7], [3.0, 0.5, 2.0], [0.3, 0.4, 1.9],
                                    [2.0, 1.65, 0.1]))
K = fg.constant(np.array([3.0, 1.0, 2.0]))
WHOLE = fg.constant(np.array([3, 1, 2]))

# ---- indices, counts and shapes that live in data ---------------------------------------------


def scattered(x):
    out = fnp.zeros(3)
    out[np.argmax(x)] = x[0]
    return out


def cleared(x):
    y = x * 1
    y[np.argmax(y)] = 0
    return y


def masked(x):
    y = x * 1
    y[y > 1.6] = 0
    return y


def masked_constant(x):
    y = fnp.zeros(3)
    y[x > 1.6] = 1
    return y


def masked_like(x):
    y = np.zeros_like(x)
    y[x > 1.6] = x[0]
    return y


def places(x):
    y = x * 1
    y[np.argsort(x)[:2]] = 7.0
    return y


def one_hot(x):
    e = fnp.zeros(3)
    e[np.argmax(x)] = 1
    return e @ x


def one_hot_whole(x):
    e = fnp.zeros(3, int)
    e[np.argmax(x)] = np.argmin(x)
    e[np.argmin(x)] = 2
    return x * e


def added(x):
    y = x * 1
    np.add.at(y, np.argsort(x)[:2], x[1:])
    return y


def matrix(x):
    y = fnp.zeros((3, 3))
    y[np.argsort(x), [0, 1, 2]] = x
    y[np.argmax(x), np.argmin(x)] = x[0]
    return y


def row(x):
    y = fnp.ones((3, 3))
    y[np.argmax(x), :] = x
    y[:, np.argmin(x)] = 2.0
    return y


def from_there_on(x):
    y = fnp.zeros((3, 3))
    y[np.argmax(x):, 0] = 1.0
    return y @ x


def whole_entries(x):
    y = x.astype(int)
    y[0] = 7
    m = x > 1.6
    m[1] = True
    return y * x + m


def again(x):
    y = fnp.zeros(3)
    y[np.argmax(x)] = 1.0
    y[np.argmin(x)] = 2.0
    z = y * x
    y[np.argmax(x)] = 3.0
    return z + y


def view_entry(x):
    y = fnp.outer(x, x)
    y[np.argmax(x)][0] = 9
    return y


def view_in_place(x):
    y = fnp.outer(x, x)
    part = y[np.argmax(x)]
    part += 1
    part *= x
    return y


def view_of_constant(x):
    y = fnp.zeros((3, 3))
    y[np.argmax(x)][0] = 9
    y[:, np.argmin(x)][1] = x[0]
    return y


def view_seen(x):
    y = fnp.outer(x, x)
    part = y[np.argmax(x)]
    y[0, 0] = 5
    y[2] = x
    return part * 1


def view_of_view(x):
    y = fnp.outer(x, x)
    part = y.T[np.argmax(x)][::-1]
    part[:2] = x[1:]
    part[0] *= 3
    return y


def view_after_index(x):
    y = fnp.outer(x, x)
    k = np.argmax(x)
    part = y[k]
    k += 1
    part += 1
    return y * (k > 0)


FUNCTIONS = [
    scattered, cleared, masked, masked_constant, masked_like, places, one_hot, one_hot_whole, added,
    matrix, row, from_there_on, whole_entries, again, view_entry, view_in_place, view_of_constant,
    view_seen, view_of_view, view_after_index,
    *[(lambda x, call=call: call(x)) for call in [
        lambda x: fnp.eye(3)[np.argmax(x)] * x,
        lambda x: fg.constant(np.eye(3))[np.argmax(x)] * x,
        lambda x: x[np.argsort(x)],
        lambda x: x[np.argsort(x)[:2]],
        lambda x: np.delete(x, np.argmax(x)),
        lambda x: np.roll(x, np.argmax(x)),
        lambda x: np.sum(np.repeat(x, (x > 1.6).astype(int) + 1)),
        lambda x: np.take_along_axis(x, np.argsort(x), 0),
        lambda x: np.take(x, np.argmax(x)),
        lambda x: np.sum(x[np.argmax(x):]),
        lambda x: np.sum(x[:int(np.argmax(x)) + 1]),
        lambda x: fnp.sum(x.astype(int) @ WHOLE) + x,
        lambda x: x.astype(int) @ np.eye(3, dtype=int) * x,
        lambda x: fnp.dot(x.astype(int), WHOLE) * x,
        lambda x: fnp.matmul(x > 1.6, WHOLE) * x,
        lambda x: fnp.matmul(fnp.arange(9).reshape(3, 3), (x > 1.6).astype(int)) * x,
        lambda x: len(np.where(x > 1.6)[0]) * x,
        lambda x: len(fnp.where(x > 1.6)[0]) * x,
        lambda x: np.sum(x[np.where(x > 1.6)]),
        lambda x: fnp.outer(x, x)[np.ix_(x > 1.6, x > 1.6)],
        lambda x: fnp.outer(x, x)[np.ix_(x > 1.6, [0, 1])],
        lambda x: x * x[x > 1.6].shape[0],
        lambda x: x * np.nonzero(x > 1.6)[0].shape[0],
        lambda x: x * (x > 1.6).nonzero()[0].size,
        lambda x: x[np.flatnonzero(x > 1.6)],
        lambda x: x * len(np.argwhere(x > 1.6)),
        lambda x: np.extract(x > 1.6, x),
        lambda x: np.compress(x > 1.6, x),
        lambda x: x * np.count_nonzero(x > 1.6),
        lambda x: np.sum(np.split(x, [np.argmax(x)])[0]) + x,
        lambda x: np.array_split(x, [np.argmax(x)])[1],
        lambda x: x * np.searchsorted(np.sort(x), 1.8),
        lambda x: x * np.digitize(x, [1.0, 1.6, 2.0]),
        lambda x: np.append(x.astype(int), 1) * x[0],
        lambda x: np.pad(x.astype(int), 1) * x[0],
        lambda x: np.split(x.astype(int), 3)[0] * x,
        lambda x: np.std(x.astype(int)) * x,
        lambda x: np.var((x * 3).astype(int)) * x,
        lambda x: np.cross((x * 3).astype(int), WHOLE) * x,
        lambda x: np.linalg.norm((x * 3).astype(int)) * x,
        lambda x: np.linalg.norm(x, float(int(np.argmax(x)) + 1)),
        lambda x: np.linalg.norm(x * (x > 1.6), 0) * x,
        lambda x: x * [int(i) for i in np.nonzero(x > 1.6)[0]][0],
        lambda x: fnp.tri(3, 3, np.argmax(x)) @ x,
        lambda x: fnp.eye(3, k=int(np.argmax(x))) @ x,
        lambda x: np.sum(fnp.ones(np.argmax(x) + 1)) * x,
        lambda x: fnp.arange(np.argmax(x) + 1) * x[0],
        lambda x: fnp.full(np.argmax(x) + 1, 2.0) * x[0],
        lambda x: fnp.full((2, np.argmax(x) + 1), np.argmin(x)) * x[0],
        lambda x: np.full_like(x, np.argmax(x)) * x,
        lambda x: np.tril(fnp.outer(x, x), np.argmax(x)),
        lambda x: np.diag(x, np.argmax(x)),
        lambda x: np.linspace(0.0, x[0], np.argmax(x) + 2),
        lambda x: np.pad(x, np.argmax(x)),
        lambda x: np.tile(x, np.argmax(x) + 1),
        lambda x: np.tile(np.argsort(x), np.argmax(x) + 1) * x[0],
        lambda x: np.repeat(np.argsort(x), np.argmax(x) + 1) * x[0],
        lambda x: np.repeat(np.argsort(x), np.argsort(x)) * x[0],
        lambda x: np.diag(np.argsort(x), np.argmax(x)) * x[0],
        lambda x: np.diff(np.argsort(x), np.argmax(x)) * x[0],
        lambda x: np.rot90(fnp.outer(x, K), np.argmax(x)),
        lambda x: np.diff(x, np.argmax(x)),
        lambda x: np.moveaxis(fnp.outer(x, K), np.argmax(x) // 2, 0),
        lambda x: np.round(x, np.argmax(x)),
        lambda x: np.sum(fnp.outer(x, K), axis=np.argmax(x) // 2),
        lambda x: np.argsort(fnp.outer(x, K)[:2], axis=np.argmax(x) // 2) * x,
        lambda x: np.argmax(fnp.outer(x, K)[:2], axis=np.argmax(x) // 2) * x[0],
        lambda x: np.argmax(x).reshape(()) * x,
        lambda x: np.argmax(x).reshape((1,)) * x,
        lambda x: np.argsort(x)[:1].reshape(()) * x,
        lambda x: np.argmax(x).detach() * x,
        lambda x: np.squeeze(np.argsort(x)[1:2]) * x,
        lambda x: fnp.array([np.argmax(x), np.argmin(x)]) * x[0],
        lambda x: fnp.array([np.argmax(x), 1.5]) * x[0],
        lambda x: fnp.stack([np.argsort(x), x > 1.6]) * x,
        lambda x: np.concatenate([np.argsort(x), WHOLE]) * x[0],
        lambda x: np.broadcast_to(np.argmax(x), (3,)) * x,
        lambda x: np.where(x > 1.6, x, 0),
        lambda x: np.where(x > 1.6, np.argsort(x), WHOLE) * x,
        lambda x: special.softmax(np.argsort(x)) * x,
        lambda x: special.xlogy(x > 1.6, x),
        lambda x: special.xlog1py(x - 1.7, x),
        lambda x: special.logsumexp(x, b=(x > 1.6) * 1.0),
        lambda x: x * sum(int(k) * j for j, k in enumerate(np.argsort(x))),
        lambda x: K[np.argmax(x)] * x,
        lambda x: [10.0, 20.0, 30.0][np.argmax(x)] * x,
        lambda x: x[np.argmax(x)] if np.argmin(x) else -x[0],
    ]],
]


def settled(result):
    """Parts of a result as arrays."""
    return [np.array(value(part)) for part in parts(result)]


def same(got, wanted, where):
    assert len(got) == len(wanted), where
    for x, y in zip(got, wanted, strict=True):
        assert x.shape == y.shape, where
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12, err_msg=where)


def agree(f, points, where, lanes=True):
    """The compiled and the mapped function do as the plain one does with data they have not seen;
    mapped over data that lead elsewhere, it may say so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = [settled(f(*[fg.tensor(x) for x in point])) for point in points]
        compiled = fg.compile(f)
        for round_ in range(2):
            for point, wanted in zip(points, plain, strict=True):
                same(settled(compiled(*point)), wanted, f"{where}, compiled, {round_}")
        if not lanes:
            return
        try:
            mapped = fg.vmap(f)(*[np.stack(xs) for xs in zip(*points, strict=True)])
        except (ValueError, TypeError) as error:
            said = str(error)
            assert any(word in said for word in ("vmap", "stack", "same shape", "float16")), where
            return
        for k, wanted in enumerate(plain):
            same([part[k] for part in settled(mapped)], wanted, f"{where}, mapped, lane {k}")


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f"{f.__name__}-{f.__code__.co_firstlineno}")
def test_what_is_looked_up_by_value_is_looked_up_anew(f):
    agree(f, [(A,), (B,), (C,), (D,)], f.__name__)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f"{f.__name__}-{f.__code__.co_firstlineno}")
def test_so_are_derivatives_of_it(f):
    def weighted(x):
        return sum(fnp.sum(part * np.cos(1.0 + np.arange(part.size)).reshape(part.shape))
                   for part in parts(f(x)) if isinstance(part, fg.Tensor)) + 0 * fnp.sum(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for derivative in (fg.grad(weighted), lambda x: fg.jvp(weighted, (x,), (np.array(K),))[1],
                           fg.jacobian(f, mode="forward"), fg.jacobian(f, mode="reverse")):
            def shown(x, derivative=derivative):
                return derivative(x)

            plain = [settled(derivative(x)) for x in (A, B, C)]
            compiled = fg.compile(shown)
            for x, wanted in zip((A, B, C), plain, strict=True):
                same(settled(compiled(x)), wanted, "compiled")
        plain = [settled(fg.grad(weighted)(x)) for x in (A, B, C)]
        try:
            mapped = fg.vmap(fg.grad(weighted))(np.stack([A, B, C]))
        except ValueError as error:
            assert "vmap" in str(error)
        else:
            for got, (wanted,) in zip(mapped, plain, strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-9)


def looped(f):
    """The same at each step of a loop, where every result has one shape."""
    def scanned(xs):
        return fg.scan(lambda carry, x: (carry, f(x)), 0.0, xs)[1]

    def counted(xs):
        return fg.fori_loop(0, len(xs), lambda i, total: total + fnp.sum(f(xs[i])), 0.0)

    return scanned, counted


@pytest.mark.sampled(2)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f"{f.__name__}-{f.__code__.co_firstlineno}")
def test_so_are_the_steps_of_loops(f):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for loop in looped(f):
            compiled = fg.compile(loop)
            for xs in (np.stack([A, B]), np.stack([C, A]), np.stack([B, D])):
                try:
                    wanted = settled(loop(fg.tensor(xs)))
                except ValueError:          # results of several shapes are not stacked
                    assert "scan" in loop.__name__
                    continue
                same(settled(compiled(xs)), wanted, loop.__name__)


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f"{f.__name__}-{f.__code__.co_firstlineno}")
def test_saved_programs_look_up_anew_or_complain(f, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = fg.compile(f)
        first = settled(compiled(A))
        if not compiled.paths:
            return                          # recorded at each call: there is nothing to be saved
        compiled.save(tmp_path / "f.fg")
        loaded = fg.load(tmp_path / "f.fg")
        same(settled(loaded(A)), first, "loaded")
        for x in (B, C, D):
            try:
                got = settled(loaded(x))
            except fg.GuardError:
                continue
            same(got, settled(f(fg.tensor(x))), "loaded")


# ---- every name --------------------------------------------------------------------------------

# What is made of the data before a function gets it.
KINDS = {
    "floats": lambda x: x,
    "order": lambda x: fnp.reshape(fnp.argsort(fnp.reshape(x, (-1,))), x.shape),
    "mask": lambda x: x > 0,
    "whole": lambda x: fnp.reshape(x * 5.0, x.shape).astype(int),
}
WITHOUT_LAW = {
    "empty_like": "arbitrary numbers",
    "logsumexp": "not NumPy's; special.logsumexp is the same function",
    **{name: "makes an array of sizes and numbers: above with those that live in data" for name in (
        "arange", "eye", "full", "identity", "ones", "tri", "zeros", "empty")},
}


def made_of(kind, shape, seed):
    """Data whose argmax, order, mask and counts differ from seed to seed."""
    rng = np.random.default_rng(seed)
    x = rng.permutation(np.linspace(-0.9, 0.9, int(np.prod(shape)))).reshape(shape)
    return np.asarray(np.clip(x + (0.0, 0.37, -0.41)[seed], -0.95, 0.95))


def law_of(name):
    """The calls of a name that have operands: all of floats, of the other kinds the first ones."""
    found = [(call, shapes) for call, *shapes in cases(name) if shapes]
    return [(kind, call, shapes) for kind in KINDS
            for call, shapes in (found if kind == "floats" and name not in ROWS else found[:2])]


def outcome(f, point):
    """The result as it prints, or the kind of error."""
    try:
        return repr(settled(f(*point)))
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        return type(error)


ALL = [name for name in names() if law_of(name) and name not in WITHOUT_LAW]


def test_every_name_is_under_the_law_or_has_a_reason():
    listed = {*ALL, *WITHOUT_LAW}
    idle = [name for name in names() if name not in listed and cases(name)]
    assert not idle
    assert {*ROWS, *PLAIN} <= listed


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ALL)
def test_functions_on_fresh_data(name, some):
    namespace = special if name.startswith("special.") else fnp
    for number, (kind, call, shapes) in some(enumerate(law_of(name)), 8):
        def f(*xs, call=call, kind=kind):
            results = call(namespace, *map(KINDS[kind], xs))
            return tuple(part for part in parts(results)
                         if isinstance(part, (fg.Tensor, np.ndarray, np.generic, float, int)))

        points = [[made_of(kind, shape, seed) for shape in shapes] for seed in range(3)]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for point in points:
                    f(*[fg.tensor(x) for x in point])
            except (TypeError, ValueError, IndexError, ZeroDivisionError):
                for point in points:        # what Tensors refuse, arrays may do
                    assert outcome(fg.compile(f), point) == outcome(f, point), name
                continue
            agree(f, points, f"{name}, call {number}, {kind}")
