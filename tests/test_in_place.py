"""In place is in place: what an alias, a view and the caller see is what NumPy shows them.

An ndarray cannot hold a Tensor. `a += t` binds the name to a Tensor where nobody can tell; where
somebody could, it is refused, or the numbers are written if no derivative is lost by it.
"""

import collections
import dataclasses
import enum
import functools
import inspect
import itertools
import operator
import pickle
import sys
import types
import weakref

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp

X = np.array([0.5, 1.0, 2.0])
WEIGHTS = np.array([1.0, 2.0, 4.0])

IN_PLACE = {"+=": operator.iadd, "-=": operator.isub, "*=": operator.imul, "/=": operator.itruediv,
            "//=": operator.ifloordiv, "%=": operator.imod, "**=": operator.ipow,
            "@=": operator.imatmul, "&=": operator.iand, "|=": operator.ior, "^=": operator.ixor,
            "<<=": operator.ilshift, ">>=": operator.irshift}


def test_no_operator_is_forgotten():
    own = {name for name in dir(np.ndarray) if name.startswith("__i") and
           "__" + name[3:] in dir(np.ndarray)}
    assert {f"__{op.__name__}__" for op in IN_PLACE.values()} == own
    assert all(hasattr(fg.Tensor, name) for name in own)


# ---- a += t of an ndarray: where the name is bound to a Tensor ------------------------------

class Holder:
    pass


def local(x):
    acc = np.zeros(3)
    acc += x
    return acc


def one_line(x):
    acc = np.zeros(3); acc += x     # noqa: E702 (a superinstruction of CPython 3.14)
    return acc


def after_a_branch(x):
    acc = np.zeros(3)
    if acc.size:
        acc += x
    return acc


def chosen_operand(x):
    acc = np.zeros(3)
    acc += x if acc.size else 1.0
    return acc


def used_twice(x):
    acc = np.ones(3)
    acc += acc * x - 1.0
    return acc


def an_operand_before(x):
    acc = np.ones(3)
    y = acc * x
    z = fnp.add(acc, x) + acc[0]
    acc += y + z - x - 2.0
    return acc - 1.0


def in_a_loop(x):
    total = 0.0
    for k in range(3):
        acc = np.zeros(3)
        acc += x * k
        total = total + acc
    return total / 3.0


def unpacked(x):
    acc, n = np.zeros(3), 2.0
    acc += x * n / 2.0
    return acc


def walrus(x):
    if (acc := np.zeros(3)) is not None:
        acc += x
    return acc


def trying(x):
    acc = np.zeros(3)
    try:
        acc += x
    finally:
        n = 1.0
    return acc * n


def with_parameters_bound_anew(x, n=None):
    n = n or 3
    acc = np.zeros(n)
    for _ in range(1):
        acc += x
    return acc


def comprehended(x):
    acc = np.zeros(3)
    acc += [x * k for k in (1.0, 2.0)][0]
    return acc


def attribute(x):
    self = Holder()
    self.acc = np.zeros(3)
    self.acc += x
    return self.acc


class Slotted:
    __slots__ = ("acc",)


def slot(x):
    self = Slotted()
    self.acc = np.zeros(3)
    self.acc += x
    return self.acc


def item(x):
    parts = [np.zeros(3), None]
    parts[0] += x
    return parts[0]


def computed_item(x):
    parts = [None, np.zeros(3)]
    k = 0
    parts[k + 1] += x
    return parts[1]


def key(x):
    d = {"k": np.zeros(3)}
    d["k"] += x
    return d["k"]


def deep(x):
    d = {"k": [Holder()]}
    d["k"][0].acc = np.zeros(3)
    d["k"][0].acc += x
    return d["k"][0].acc


def cell(x):
    acc = np.zeros(3)

    def add():
        nonlocal acc
        acc += x
    add()
    return acc


def own_cell(x):
    acc = np.zeros(3)
    read = lambda: acc                                              # noqa: E731
    acc += x
    return read()


def global_name(x):
    global ACC
    ACC = np.zeros(3)
    ACC += x
    acc = ACC
    del ACC
    return acc


def module_level(x):
    names = {"x": x, "np": np}
    exec("acc = np.zeros(3)\nacc += x", names)
    return names["acc"]


def class_level(x):
    class Body:
        acc = np.zeros(3)
        acc += x
    return Body.acc


def from_a_generator(x):
    for acc in (np.zeros(3) for _ in range(1)):
        acc += x
    return acc


def many_names(x):
    names = {"x": x, "np": np}
    lines = "".join(f"    v{k} = {k}\n" for k in range(300))
    exec(f"def f(x):\n{lines}    acc = np.zeros(3)\n    acc += x\n    return acc", names)
    return names["f"](x)


REBINDING = [local, one_line, after_a_branch, chosen_operand, used_twice, an_operand_before,
             in_a_loop, unpacked, walrus, trying, with_parameters_bound_anew, comprehended,
             attribute, slot, item, computed_item, key, deep, cell, own_cell, global_name,
             module_level, class_level, from_a_generator, many_names]


@pytest.mark.parametrize("f", REBINDING, ids=lambda f: f.__name__)
def test_a_name_is_bound_to_a_tensor_where_nothing_else_has_the_array(f):
    def loss(x):
        return np.sum(f(x) * WEIGHTS * x)

    value, gradient = fg.value_and_grad(loss)(X)
    assert value == loss(X) == np.sum(WEIGHTS * X * X)
    np.testing.assert_allclose(gradient, 2 * WEIGHTS * X)
    compiled = fg.compile(loss)
    for k in (1.0, 2.0, 3.0):
        assert np.isclose(compiled(k * X), loss(k * X))
    np.testing.assert_allclose(fg.compile(fg.grad(loss))(X), 2 * WEIGHTS * X)
    np.testing.assert_allclose(fg.vmap(loss)(np.stack([X, 2 * X])), [loss(X), loss(2 * X)])
    assert np.isclose(fg.jvp(loss, (X,), (X,))[1], 2 * loss(X))
    assert np.isclose(fg.linearize(loss, X)[1](X), 2 * loss(X))


# ---- ... and where it is not ----------------------------------------------------------------

def add(acc, v):
    acc += v


def parameter(x):
    a = np.zeros(3)
    add(a, x)
    return a


def parameter_by_name(x):
    a = np.zeros(3)
    add(v=x, acc=a)
    return a


def renamed_parameter(x):
    def helper(acc):
        own = acc
        own += x
    a = np.zeros(3)
    helper(a)
    return a


def deleted_parameter(x):
    def helper(acc):
        own = acc
        del acc
        own += x
    a = np.zeros(3)
    helper(a)
    return a


def forgotten_parameter(x):
    def helper(acc):
        own = acc
        acc = None
        for _ in range(1):
            own += x
        return acc
    a = np.zeros(3)
    helper(a)
    return a


def swapped_parameter(x):
    def helper(acc, n):
        own, n = acc, own_n(n)
        del acc
        own += x
        return n

    def own_n(n):
        return n
    a = np.zeros(3)
    helper(a, 1)
    return a


def parameter_stored_after_another(x):
    def helper(acc, n):
        own, acc, n = acc, np.sin(0.0), np.cos(0.0)
        own += x
        return acc, n
    a = np.zeros(3)
    helper(a, 1)
    return a


def chosen_parameter(x):
    def helper(acc):
        own = acc if acc.size else np.zeros(3)
        del acc
        own += x
    a = np.zeros(3)
    helper(a)
    return a


def walrus_of_a_parameter(x):
    def helper(acc):
        (own := acc).size
        del acc
        own += x
    a = np.zeros(3)
    helper(a)
    return a


def parameter_of_a_coroutine(x):
    async def helper(acc):
        own = acc
        del acc
        own += x
    a = np.zeros(3)
    coroutine = helper(a)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    return a


def parameter_in_a_cell(x):
    def helper(acc):
        def inner():
            nonlocal acc
            acc += x
        inner()
    a = np.zeros(3)
    helper(a)
    return a


def parameter_in_a_list(x):
    def helper(*accs):
        accs = [*accs]
        accs[0] += x
    a = np.zeros(3)
    helper(a)
    return a


def default(x, acc=None):
    acc = np.zeros(3) if acc is None else acc
    kept = acc
    kept += x
    return acc


def alias(x):
    a = np.zeros(3)
    kept = a
    a += x
    return kept


def alias_after_a_branch(x):
    a = np.zeros(3)
    if a.size:
        kept = a
    a += x
    return kept


def alias_on_one_line(x):
    a = np.zeros(3); kept = a; a += x       # noqa: E702
    return kept


def rows(x):
    a = np.zeros((2, 3))
    for r in a:
        r += x
    return a[1]


def parts(x):
    a = [np.zeros(3), np.zeros(3)]
    for r in a:
        r += x
    return a[1]


def view(x):
    a = np.zeros(3)
    v = a[:]
    v += x
    return a


def view_alone(x):
    a = np.zeros((2, 3))
    a[0] += x
    return a[0]


def view_of_a_slice(x):
    a = np.zeros(4)
    a[:3] += x
    return a[:3]


def two_attributes(x):
    self = Holder()
    self.a = self.b = np.zeros(3)
    self.a += x
    return self.b


def two_items(x):
    p = [np.zeros(3)] * 2
    p[0] += x
    return p[1]


def two_cells(x):
    a = np.zeros(3)
    kept = a

    def inner():
        nonlocal a
        a += x
    inner()
    return kept


def two_globals(x):
    global ACC, KEPT
    ACC = KEPT = np.zeros(3)
    ACC += x
    return KEPT


def memory(x):
    a = np.zeros(3)
    m = memoryview(a)
    a += x
    return np.asarray(m)


def out(x):
    a = np.zeros(3)
    np.add(a, x, out=a)
    return a


def out_by_position(x):
    a = np.zeros(3)
    np.add(a, x, a)
    return a


def out_of_another(x):
    a = np.zeros(3)
    np.multiply(x, 1.0, out=a)
    return a


def out_of_a_row(x):
    a = np.zeros(3)
    fnp.add(x, 0.0, out=a)
    return a


def function(x):
    a = np.zeros(3)
    operator.iadd(a, x)
    return a


def method(x):
    a = np.zeros(3)
    a.__iadd__(x)
    return a


def reduced(x):
    a = np.zeros(3)
    functools.reduce(operator.iadd, [x], a)
    return a


def inside_another_instruction(x):
    a, done = np.zeros(3), Holder()
    done.list = []
    done.list.append(a)
    done = [a]
    done += map(operator.iadd, [a], [x])
    return a


def product(x):
    a = np.eye(3)
    kept = a
    a @= np.outer(x, WEIGHTS)
    return kept[0]


REFUSED = [parameter, parameter_by_name, renamed_parameter, deleted_parameter, forgotten_parameter,
           swapped_parameter, parameter_stored_after_another, chosen_parameter,
           walrus_of_a_parameter, parameter_of_a_coroutine, parameter_in_a_cell,
           parameter_in_a_list, default, alias, alias_after_a_branch, alias_on_one_line, rows,
           parts, view, view_alone, view_of_a_slice, two_attributes, two_items, two_cells,
           two_globals, memory, out, out_by_position, out_of_another, out_of_a_row, function,
           method, reduced, inside_another_instruction, product]


def lines_of(f):
    source, first = inspect.getsourcelines(f)
    return range(first, first + len(source))


def named_line(error):
    """The line that a message names, which is in this file."""
    text = str(error).partition(f"{__file__}, line ")[2]
    return int(text.partition(")")[0])


@pytest.mark.parametrize("f", REFUSED, ids=lambda f: f.__name__)
def test_an_array_that_others_may_see_refuses_a_tensor(f):
    with pytest.raises(TypeError, match=r"fnp\.zeros\(.*fg\.tensor\(a\)") as caught:
        fg.grad(lambda x: np.sum(f(x)))(X)
    assert named_line(caught.value) in [*lines_of(f), *lines_of(add)]
    def loss(x):
        return np.sum(f(x))

    mapped = () if f is memory else (lambda x: fg.vmap(f)(np.stack([x, x])),)     # each lane alone
    for transformed in (fg.compile(fg.grad(loss)), *mapped,
                        lambda x: fg.jvp(f, (x,), (x,)), lambda x: fg.linearize(f, x),
                        fg.grad(lambda x: np.sum(fg.grad(loss)(x)))):
        with pytest.raises(TypeError, match="ndarray cannot hold"):
            transformed(X)


@pytest.mark.filterwarnings("ignore:compile")
@pytest.mark.parametrize("f", REFUSED, ids=lambda f: f.__name__)
def test_compile_alone_writes_as_numpy_does(f):
    compiled = fg.compile(lambda x: np.sum(f(x) * WEIGHTS))
    for k in (1.0, 2.0, 3.0):
        assert compiled(k * X) == np.sum(f(k * X) * WEIGHTS)


def test_one_holder_is_told_by_the_name_that_python_stores():
    def f(x):
        arrays, lost = [np.zeros(3)], []
        lost += map(operator.iadd, arrays, [x])
        return arrays[0]

    def g(x):
        def inner():
            nonlocal lost
            lost += map(operator.iadd, arrays, [x])
        arrays, lost = [np.zeros(3)], []
        inner()
        return arrays[0]

    for h in (f, g):
        with pytest.raises(TypeError, match="fnp.zeros"):
            fg.grad(lambda x: np.sum(h(x)))(X)


def test_looking_at_a_frame_leaves_nothing_behind():
    def f(x):
        a, b = np.zeros(3), np.zeros(3)
        a += x
        mine = locals()
        mine.clear() if sys.version_info < (3, 13) else None
        del mine
        b += x
        a += b
        return np.sum(a)

    np.testing.assert_array_equal(fg.grad(f)(X), 2)


def test_shape_and_dtype_are_those_of_the_array():
    def wider(x):
        a = np.zeros(1)
        a += x
        return np.sum(a)

    def whole(x):
        a = np.zeros(3, dtype=int)
        a += x
        return np.sum(a)

    def single(x):
        a = np.zeros(3, dtype=np.float32)
        a += x
        assert a.dtype == np.float32
        return np.sum(a)

    for f in (wider, whole):
        with pytest.raises((TypeError, ValueError)):
            f(X)
    with pytest.raises(ValueError, match=r"\(3,\).*\(1,\)"):
        fg.grad(wider)(X)
    with pytest.raises(TypeError, match="int64"):
        fg.grad(whole)(X)
    assert single(X) == fg.value_and_grad(single)(X)[0]
    np.testing.assert_array_equal(fg.grad(single)(X), 1)


def test_what_has_no_derivative_is_written():
    def f(x):
        counts = np.zeros(3, dtype=int)
        kept = counts
        counts += x > 0.75
        np.add(counts, np.argsort(x), out=counts)
        np.add.at(counts, [0, 0], x[:2] > 0)
        np.copyto(counts[2:], np.argmax(x))
        return np.sum(x * kept)

    assert f(X) == fg.value_and_grad(f)(X)[0] == fg.compile(f)(X)
    np.testing.assert_array_equal(fg.grad(f)(X), [2, 2, 2])

    a = np.zeros(3)
    add(a, fg.tensor(X))
    np.testing.assert_array_equal(a, X)
    w = fg.tensor(X, requires_grad=True)
    with pytest.raises(TypeError, match="fnp.zeros"):
        add(a, w)
    with fg.no_grad():
        add(a, w)
    np.testing.assert_array_equal(a, 2 * X)


WRITERS = {
    "a[0] = t": lambda a, t: a.__setitem__(0, t[1]),
    "a[...] = t": lambda a, t: a.__setitem__(Ellipsis, t),
    "a[:] = list": lambda a, t: a.__setitem__(slice(None), [t[0], t[1], t[2]]),
    "a.flat[0] = t": lambda a, t: a.flat.__setitem__(0, t[1]),
    "a.flat[...] = t": lambda a, t: a.flat.__setitem__(Ellipsis, t),
    "a.real = t": lambda a, t: setattr(a, "real", t),
    "a.T[...] = t": lambda a, t: a.T.__setitem__(Ellipsis, t),
    "a.fill": lambda a, t: a.fill(t[0]),
    "a.put": lambda a, t: a.put([0, 1], t[:2]),
    "copyto": lambda a, t: np.copyto(a, t),
    "put": lambda a, t: np.put(a, [0, 1], t[:2]),
    "place": lambda a, t: np.place(a, np.array([True, False, True]), t),
    "putmask": lambda a, t: np.putmask(a, np.array([True, False, True]), t),
    "put_along_axis": lambda a, t: np.put_along_axis(a, np.array([2, 1, 0]), t, 0),
    "fill_diagonal": lambda a, t: np.fill_diagonal(np.broadcast_to(a, (3, 3)).copy(), t[0]),
    "add.at": lambda a, t: np.add.at(a, [0, 0], t[:2]),
    "subtract.at": lambda a, t: np.subtract.at(a, [0, 0], t[:2]),
    "clip": lambda a, t: np.clip(a, t, 1, out=a),
    "a.clip": lambda a, t: a.clip(t, 1, out=a),
    "einsum": lambda a, t: np.einsum("i,i->i", t, t, out=a),
    "matmul": lambda a, t: np.matmul(np.eye(3), t, out=a),
    "dot": lambda a, t: np.dot(np.eye(3), t, out=a),
    "sum": lambda a, t: np.sum(np.outer(t, t), axis=0, out=a),
    "mean": lambda a, t: np.mean(np.outer(t, t), axis=0, out=a),
    "take": lambda a, t: np.take(t, [0, 1, 1], out=a),
    "concatenate": lambda a, t: np.concatenate([t[:1], t[1:]], out=a),
    "stack": lambda a, t: np.stack([t[0], t[1], t[2]], out=a),
    # (t itself: NumPy keeps a reference to the operand of a reduction that raises.)
    "add.reduce": lambda a, t: np.add.reduce(t, out=a[:1].reshape(())),
    "outer": lambda a, t: np.multiply.outer(t, t[:1], out=a.reshape(3, 1)),
    "divmod": lambda a, t: np.divmod(t, 0.75, out=(a, a.copy())),
    "where=": lambda a, t: np.add(t, 1, out=a, where=np.array([True, False, True])),
    "greater": lambda a, t: np.greater(t, 0.75, out=a),
    "fromiter": lambda a, t: a.__setitem__(Ellipsis, np.fromiter([t[0], t[1], t[2]], float)),
}


@pytest.mark.filterwarnings("ignore:compile")
@pytest.mark.parametrize("name", WRITERS)
def test_what_writes_into_an_ndarray_refuses_a_tensor(name):
    def f(x):
        a = np.ones(3)
        WRITERS[name](a, x)
        return np.sum(a * WEIGHTS)

    with pytest.raises(TypeError, match=r"fnp\.|bind the result|[Rr]ebind") as caught:
        fg.grad(f)(X)
    if "line" in str(caught.value):
        assert named_line(caught.value) in range(lines_of(WRITERS[name])[0] - len(WRITERS),
                                                 lines_of(WRITERS[name])[-1] + len(WRITERS))
    compiled = fg.compile(f)
    for k in (1.0, 0.5):
        assert compiled(k * X) == f(k * X)


def test_errors_of_others_stay_theirs():
    def f(x):
        try:
            float(x)
        except TypeError:
            pass
        raise ValueError("mine")

    for transformed in (fg.grad(f), fg.vmap(f), fg.compile(f), fg.jacobian(f),
                        lambda x: fg.jvp(f, (x,), (x,))):
        with pytest.raises(ValueError, match="mine"):
            transformed(np.ones(2))


# ---- operators of Tensors -------------------------------------------------------------------

def operands(dtype):
    if dtype == "?":
        return np.array([[True, False], [True, True]]), np.array([[False, True], [True, True]])
    return np.array([[5, 6], [7, 8]], dtype), np.array([[1, 2], [3, 2]], dtype)


@pytest.mark.parametrize("sign", IN_PLACE)
def test_an_alias_sees_what_numpy_makes_or_an_error_of_the_same_kind(sign):
    op = IN_PLACE[sign]
    # Before 2.2, NumPy squares integers in place for `a **= 2.0`; the ufunc refuses in all.
    numpys = op if sign != "**=" else lambda a, b: np.power(a, b, out=a)
    for first, second in itertools.product("?bBiqQfd", repeat=2):
        a, b = operands(first)[0], operands(second)[1]
        others = [b, fg.tensor(b), b[1, 1]] + ([b[1, 1].item()] if second in "?qd" else [])
        for other in others:
            wanted, t = a.copy(), fg.tensor(a)
            kept, row = t, t[0]
            with np.errstate(all="ignore"):
                try:
                    numpys(wanted, other.numpy() if isinstance(other, fg.Tensor) else other)
                except (TypeError, ValueError) as error:
                    wanted = error
            if isinstance(wanted, Exception):
                with pytest.raises((TypeError, ValueError)):
                    op(t, other)
                np.testing.assert_array_equal(kept.numpy(), a)
                continue
            assert op(t, other) is kept
            np.testing.assert_allclose(kept.numpy(), wanted)
            np.testing.assert_allclose(row.numpy(), wanted[0])
            assert kept.dtype == wanted.dtype


INTEGER = ("&=", "|=", "^=", "<<=", ">>=")
W = np.diag([2.0, 3.0])


@pytest.mark.parametrize("sign", [sign for sign in IN_PLACE if sign not in INTEGER])
def test_an_alias_sees_it_in_every_transformation(sign):
    names = {"W": W, "W1": W + 1.0, "np": np}
    exec(f"def f(x):\n    y = x * 1.0\n    z = y\n    v = y[0]\n    y {sign} W1\n"
         f"    return np.sum(z * W) + np.sum(v * v) + np.sum(z * y)", names)
    exec(f"def g(x):\n    y = (x * 1.0) {sign[:-1]} (W1)\n"
         f"    return np.sum(y * W) + np.sum(y[0] * y[0]) + np.sum(y * y)", names)
    f, g = names["f"], names["g"]
    x = np.array([[1.3, 2.4], [3.2, 0.7]])
    assert np.isclose(f(x), g(x))
    compiled, derivative = fg.compile(f), fg.compile(fg.grad(f))
    for k in (1.0, 1.1, 1.2):
        value, gradient = fg.value_and_grad(f)(k * x)
        assert np.isclose(value, f(k * x)) and np.isclose(compiled(k * x), f(k * x))
        np.testing.assert_allclose(gradient, fg.grad(g)(k * x))
        np.testing.assert_allclose(derivative(k * x), gradient)
    both = np.stack([x, 1.1 * x])
    np.testing.assert_allclose(fg.vmap(f)(both), [f(x), f(1.1 * x)])
    np.testing.assert_allclose(fg.vmap(fg.grad(f))(both)[1], fg.grad(g)(1.1 * x))
    wanted = np.sum(fg.grad(g)(x) * W)
    assert np.isclose(fg.jvp(f, (x,), (W,))[1], wanted)
    assert np.isclose(fg.linearize(f, x)[1](W), wanted)
    np.testing.assert_allclose(fg.hvp(f)(x, W), fg.hvp(g)(x, W), atol=1e-12)


@pytest.mark.parametrize("sign", INTEGER)
def test_an_alias_sees_it_where_masks_and_counts_are_made(sign):
    names = {"np": np}
    other = "(x > 1.0)" if sign in INTEGER[:3] else "(np.argsort(x) + 1)"
    start = "x > 0.75" if sign in INTEGER[:3] else "np.argsort(x) + 4"
    exec(f"def f(x):\n    m = {start}\n    k = m\n    m {sign} {other}\n"
         f"    return np.sum(x * x * k)", names)
    f = names["f"]
    compiled = fg.compile(f)
    for x in (X, X[::-1].copy(), 2 * X):
        assert f(x) == fg.value_and_grad(f)(x)[0] == compiled(x)
        k = f(np.sqrt(np.arange(3) + 1.0)) and fg.grad(f)(x)
        np.testing.assert_allclose(np.sum(k * x), 2 * f(x))
    np.testing.assert_allclose(fg.vmap(f)(np.stack([X, X[::-1], 2 * X])),
                               [f(X), f(X[::-1]), f(2 * X)])


def test_a_product_in_place():
    def f(x):
        y = x * 1.0
        z = y
        y @= W
        return np.sum(z)

    value, gradient = fg.value_and_grad(f)(np.eye(2))
    assert value == 5
    np.testing.assert_array_equal(gradient, [[2, 3], [2, 3]])


# ---- 0-d arrays and scalars -----------------------------------------------------------------

WHOLE = [7, 2**62 + 1, -3, True, np.uint64(2**63 + 5), np.int8(-3), np.uint8(200)]
SHAPERS = {
    "[()]": lambda t: t[()], "[...]": lambda t: t[...], "[None]": lambda t: t[None],
    ".T": lambda t: t.T, "transpose": np.transpose,
    "reshape()": lambda t: t.reshape(()), "reshape1": lambda t: t.reshape(1),
    "broadcast": lambda t: np.broadcast_to(t, (2, 2)), "copy": np.copy, "squeeze": np.squeeze,
    "ravel": np.ravel, "atleast_2d": np.atleast_2d, "from 1": lambda t: t.reshape(1).reshape(()),
    "from array": lambda t: np.broadcast_to(t, (3,))[1], "flip": np.flip,
}


@pytest.mark.parametrize("name", SHAPERS)
@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_keep_their_value(name, value):
    array = np.asarray(value)
    wanted = SHAPERS[name](array)
    result = SHAPERS[name](fg.tensor(array))
    np.testing.assert_array_equal(result.numpy(), wanted)
    assert result.dtype == wanted.dtype

    def f(x):
        t = np.sum(x > 0) * 0 + int(value) if array.dtype == int and abs(value) < 99 else (x > 0)[0]
        return np.sum(x) * np.sum(SHAPERS[name](t) * 1.0)

    compiled = fg.compile(f)
    for x in (X, 2 * X, 3 * X):
        assert f(x) == fg.value_and_grad(f)(x)[0] == compiled(x)


def test_outer_of_whole_numbers():
    for value in (7, 3, np.int8(-3)):
        t = fg.tensor(np.asarray(value))
        assert np.multiply.outer(t, t).item() == value * value


def test_an_index_that_went_through_a_view():
    f = lambda x: x[np.argmax(x)[()]] * x[np.argmin(x).T]            # noqa: E731
    assert fg.grad(f)(X).tolist() == [2.0, 0.0, 0.5]
    compiled = fg.compile(fg.grad(f))
    for x in (X, X[::-1].copy(), X):
        np.testing.assert_array_equal(compiled(x), fg.grad(f)(x))


@pytest.mark.parametrize("dtype", "?bBiIqQfd")
def test_assigning_to_a_0d_tensor_converts_as_numpy(dtype):
    for value in (1, True, 0, 1.75) + ((2**40 + 1,) if dtype in "qQ" else ()):
        a = np.zeros((), dtype)
        t = fg.tensor(a)
        kept = t
        a[()] = value
        t[()] = value
        assert kept.item() == a.item() and kept.dtype == a.dtype
        t[...] = 0
        assert not kept.item()
    if dtype in "qQ":
        t = fg.tensor(np.zeros(2, dtype))
        t[0] = 2**62 + 1
        t[1:] = np.array(2**62 + 3, dtype)
        assert t.tolist() == [2**62 + 1, 2**62 + 3]


VIEWS = {
    "y.reshape(())": (lambda y: y[:1].reshape(()), 0),
    "y[1, ...]": (lambda y: y[1, ...], 1),
    "y[..., 1]": (lambda y: y[..., 1], 1),
    "y[1:2].squeeze()": (lambda y: y[1:2].squeeze(), 1),
    "np.squeeze": (lambda y: np.squeeze(y[2:]), 2),
    ".T": (lambda y: y[2, ...].T, 2),
    "[...]": (lambda y: y[2, ...][...], 2),
    "from 1": (lambda y: y[2, ...].reshape(1)[0, ...], 2),
}


@pytest.mark.parametrize("name", VIEWS)
def test_writing_to_a_0d_view_shows_in_the_array(name):
    view, place = VIEWS[name]

    def assigned(x):
        y = x * 1.0
        z = view(y)
        z[()] = x[0] * 5.0
        return np.sum(y * WEIGHTS * y)

    def multiplied(x):
        y = x * 1.0
        z = view(y)
        z *= 3.0
        y[place] += 1.0
        return np.sum(y * WEIGHTS) * z

    for f in (assigned, multiplied):
        assert np.isclose(fg.value_and_grad(f)(X)[0], f(X))
        np.testing.assert_allclose(fg.grad(f)(X), fg.numeric.gradient(f, X), rtol=1e-5)
        compiled = fg.compile(f)
        for x in (X, 2 * X, 3 * X):
            assert np.isclose(compiled(x), f(x))
        np.testing.assert_allclose(fg.vmap(f)(np.stack([X, 2 * X])), [f(X), f(2 * X)])
        assert np.isclose(fg.jvp(f, (X,), (X,))[1], np.sum(fg.grad(f)(X) * X))


def test_scalars_are_rebound_and_0d_arrays_change():
    def f(x):
        z = x
        x *= 2.0
        return z * 1.0

    for x, wanted in ((3.0, 3.0), (np.float64(3.0), 3.0), (np.array(3.0), 6.0)):
        assert f(x.copy() if isinstance(x, np.ndarray) else x) == wanted
        assert fg.value_and_grad(f)(x) == (wanted, wanted / 3)
        assert fg.jvp(f, (x,), (1.0,)) == (wanted, wanted / 3)
        assert fg.grad(fg.grad(lambda x: f(x) ** 2))(x) == 2 * (wanted / 3) ** 2
        compiled = fg.compile(fg.value_and_grad(f))
        for k in (1.0, 2.0):
            y = x * k
            assert compiled(np.asarray(y) if isinstance(x, np.ndarray) else y) == (
                k * wanted, wanted / 3)

    def g(x):
        i = np.argmax(x)
        j = i
        i -= 1
        m = x[0] > 0
        k = m
        m &= False
        total = np.sum(x)
        kept = total
        total += 1.0
        return x[j] * k * kept

    assert fg.value_and_grad(g)(X)[0] == g(X) == fg.compile(g)(X)

    t = fg.tensor(1.0)
    kept = t
    t += 1.0
    assert kept is t and kept.item() == 2.0
    t = fg.tensor(1.0).copy()
    kept = t
    t += 1.0
    assert kept.item() == 2.0


# ---- arguments that are written to ----------------------------------------------------------

def scaled(x, w):
    w *= 2.0
    return np.sum(x * x) * np.sum(w)


def scaled_vector(x, w):
    w *= 2.0
    return x * np.sum(w)


TRANSFORMED = {
    "grad": lambda w: fg.grad(scaled)(X, w),
    "value_and_grad": lambda w: fg.value_and_grad(scaled)(X, w),
    "elementwise_grad": lambda w: fg.elementwise_grad(scaled_vector)(X, w),
    "vjp": lambda w: fg.vjp(scaled, X, w, argnums=0),
    "jvp": lambda w: fg.jvp(scaled, (X, w), (X,), argnums=0),
    "linearize": lambda w: fg.linearize(scaled, X, w, argnums=0),
    "jacobian, reverse": lambda w: fg.jacobian(scaled_vector, mode="reverse")(X, w),
    "jacobian, forward": lambda w: fg.jacobian(scaled_vector, mode="forward")(X, w),
    "jacobian, sparse": lambda w: fg.jacobian(scaled_vector, sparse=True)(X, w),
    "hessian": lambda w: fg.hessian(scaled)(X, w),
    "hessian, sparse": lambda w: fg.hessian(scaled, sparse=True)(X, w),
    "hvp": lambda w: fg.hvp(scaled)(X, w, X),
    "laplacian": lambda w: fg.laplacian(scaled)(X, w),
    "grad of grad": lambda w: fg.grad(lambda x: np.sum(fg.grad(scaled)(x, w)))(X),
    "compile": lambda w: fg.compile(scaled)(X, w),
    "compile of grad": lambda w: fg.compile(fg.grad(scaled))(X, w),
    "compile of hessian": lambda w: fg.compile(fg.hessian(scaled))(X, w),
    "compile of jvp": lambda w: fg.compile(lambda w: fg.jvp(scaled, (X, w), (X,), argnums=0))(w),
    "grad of compile": lambda w: fg.grad(fg.compile(scaled))(X, w),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_write_into_an_argument_reaches_the_caller_once(name):
    if "sparse" in name:
        pytest.importorskip("scipy")
    whole = np.arange(1.0, 7.0)
    w = whole[::3]
    TRANSFORMED[name](w)
    np.testing.assert_array_equal(whole, [2, 2, 3, 8, 5, 6])
    w.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        TRANSFORMED[name](w)
    np.testing.assert_array_equal(whole, [2, 2, 3, 8, 5, 6])


def test_what_is_differentiated_is_never_written():
    x = X.copy()

    def f(x):
        x *= 2.0
        x[0] = 5.0
        return np.sum(x * x)

    for transformed in (fg.grad(f), fg.hessian(f), fg.jacobian(f), fg.compile(fg.grad(f)),
                        lambda x: fg.vjp(f, x)[1](1.0), lambda x: fg.jvp(f, (x,), (x,)),
                        lambda x: fg.hvp(f)(x, X), fg.elementwise_grad(f)):
        transformed(x)
        np.testing.assert_array_equal(x, X)
    np.testing.assert_allclose(fg.grad(f)(x), [0, 8, 16])


def in_containers(x, p, *, k):
    p["w"][0] *= 2.0
    p["w"][0][0] = x[1]
    p["i"] += 1
    k[...] = x > 0.75
    return np.sum(x) * np.sum(p["w"][0]) + p["i"][0] + np.sum(k)


def containers():
    return {"w": [np.array([1.0, 2.0])], "i": np.array([5, 6])}, np.zeros(3, bool)


@pytest.mark.filterwarnings("ignore:compile")
def test_programs_write_their_arguments_at_each_call(tmp_path):
    program = fg.compile(in_containers)
    (p, k), (q, m) = containers(), containers()
    for n in range(4):
        x = X * (n + 1)
        assert program(x, p, k=k) == in_containers(x, q, k=m)
        np.testing.assert_equal((p, k), (q, m))
    assert len(program._all()) == 1 and program._all()[0].calls == 4

    program.save(tmp_path / "program")
    for other in (fg.load(tmp_path / "program"), pickle.loads(pickle.dumps(
            fg.load(tmp_path / "program")))):
        assert other(X, p, k=k) == in_containers(X, q, k=m)
        np.testing.assert_equal((p, k), (q, m))

    checked = fg.compile(in_containers, verify=10)
    for n in range(4):
        assert checked(X, p, k=k) == in_containers(X, q, k=m)
        np.testing.assert_equal((p, k), (q, m))


def test_files_that_write_what_is_no_argument_are_refused(tmp_path):
    from fastgrad.programs import persist

    program = fg.compile(scaled)
    program(X, np.ones(2))
    state = persist.program_state(program, "save")
    assert state["paths"][0]["written"] == [[1, 1]]
    for wrong in ([[0, 1]], [[1, 0]], [[2, 1]], [[1, 9]], [[1]], [(1, 1)], None, [[-1, 1]],
                  [["1", 1]]):
        other = {"name": state["name"], "paths": [{**state["paths"][0], "written": wrong}]}
        with pytest.raises(ValueError):
            persist._program(other, "a state")
    older = {key: part for key, part in state["paths"][0].items() if key != "written"}
    with pytest.raises(ValueError, match="a path is not described"):
        persist._program({"name": "f", "paths": [older]}, "a state")


@pytest.mark.filterwarnings("ignore:compile")
def test_arguments_that_share_memory():
    def f(a, b):
        a *= 2.0
        return np.sum(a) + np.sum(b)

    program = fg.compile(f)
    mine, theirs = np.arange(1.0, 5.0), np.arange(1.0, 5.0)
    for first, second in ((slice(2), slice(2)), (slice(2), slice(1, 3)), (slice(2), slice(2, 4)),
                          (slice(2), slice(2)), (slice(2), slice(2, 4)), (slice(1, 3), slice(2))):
        assert program(mine[first], mine[second]) == f(theirs[first], theirs[second])
        np.testing.assert_array_equal(mine, theirs)
    a = np.ones(2)
    assert program(a, a) == 8
    program = fg.compile(f)
    program(a, np.ones(2))
    with pytest.raises(ValueError, match="shares memory"):
        program.paths_only()(a, a)


TABLE, ROWS = np.arange(6.0).reshape(2, 3), [np.arange(3.0), np.arange(3.0)]


class Sums:
    def __init__(self):
        self.held = np.arange(3.0)

    def __call__(self, x):
        x += 1.0
        return self.held.sum()


SUMS = Sums()


def of_a_global(x):
    x[:] = x * 2
    return TABLE.sum()


def of_a_global_that_is_used(x):
    x[:] = x * 2
    return np.sum(x * TABLE)


def of_a_list(x):
    x[1:] += 7.0
    return x.sum() + sum([row.sum() for row in ROWS])


def after_a_helper(x):
    def write(y):
        y[...] = 3.0

    write(x)
    return float(TABLE[0].sum())


@pytest.mark.filterwarnings("ignore:compile")
@pytest.mark.parametrize("given", [
    (of_a_global, lambda: TABLE), (of_a_global_that_is_used, lambda: TABLE),
    (of_a_list, lambda: ROWS), (after_a_helper, lambda: TABLE), (SUMS, lambda: [SUMS.held]),
    ], ids=["global", "used", "list", "helper", "attribute"])
@pytest.mark.parametrize("first", [False, True], ids=["replayed", "at once"])
def test_arguments_that_are_reached_by_a_name(given, first):
    f, reached = given
    before = [x.copy() for x in reached()]

    def outcome(function, pick):
        x = pick(reached())
        result = function(x)
        after = [np.array(result), x.copy(), *[y.copy() for y in reached()]]
        for y, kept in zip(reached(), before):
            y[:] = kept
        return after

    program = fg.compile(f)
    picks = [lambda own: np.ones(3), lambda own: own[0], lambda own: own[-1],
             lambda own: np.ones(3), lambda own: own[0][::-1]]
    for pick in picks[first:]:
        for got, wanted in zip(outcome(program, pick), outcome(f, pick), strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert program.paths                # other arrays are replayed, before and after


def test_a_function_that_fails_has_written_what_it_wrote():
    def f(x, w):
        w *= 2.0
        raise KeyError("mine")

    for transformed in (f, fg.grad(f), fg.compile(f)):
        w = np.ones(2)
        with pytest.raises(KeyError):
            transformed(X, w)
        np.testing.assert_array_equal(w, 2)


# ---- lanes ----------------------------------------------------------------------------------

LANES = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 8.0], [4.0, 8.0, 10.0]])


def by_lanes(x, w):
    fg.special.log_softmax(x, axis=0)
    w *= 2.0
    return np.sum(x) * np.sum(w)


def by_graph(x, w):
    w *= 2.0
    return np.sum(x) * np.sum(w)


def nested(x, p):
    p[0][0] += 1
    p[1]["w"] *= 2
    return np.sum(x) * np.sum(p[1]["w"]) * p[0][0]


@pytest.mark.filterwarnings("ignore:compile")
@pytest.mark.parametrize("f", [by_lanes, by_graph])
def test_each_lane_writes_a_copy_of_its_own(f):
    wanted = [72.0, 168.0, 264.0]
    w = np.array([1.0, 2.0, 3.0])
    mapped = fg.vmap(f, in_axes=(0, None))
    program = fg.compile(mapped)
    for _ in range(3):
        np.testing.assert_array_equal(mapped(LANES, w), wanted)
        np.testing.assert_array_equal(program(LANES, w), wanted)
        np.testing.assert_array_equal(fg.jvp(lambda x: mapped(x, w), (LANES,), (LANES,))[1], wanted)
        np.testing.assert_array_equal(fg.grad(lambda x: np.sum(mapped(x, w)))(LANES), 12)
        # (as an argument that is differentiated, too)
        np.testing.assert_array_equal(fg.grad(lambda w: np.sum(mapped(LANES, w)))(w), 84)
        slope = fg.compile(fg.grad(lambda w: np.sum(mapped(LANES, w))))
        np.testing.assert_array_equal(slope(w), 84)
        np.testing.assert_array_equal(w, [1, 2, 3])


@pytest.mark.filterwarnings("ignore:compile")
def test_each_lane_writes_copies_of_what_is_in_containers():
    p = (np.array([1, 2]), {"w": np.array([1.0, 2.0, 3.0])})
    mapped = fg.vmap(nested, in_axes=(0, None))
    program = fg.compile(mapped)
    for _ in range(3):
        np.testing.assert_array_equal(mapped(LANES, p), np.array([6.0, 14.0, 22.0]) * 24)
        np.testing.assert_array_equal(program(LANES, p), np.array([6.0, 14.0, 22.0]) * 24)
        np.testing.assert_array_equal(p[0], [1, 2])
        np.testing.assert_array_equal(p[1]["w"], [1, 2, 3])


def test_what_is_mapped_is_written_in_a_copy():
    def f(x):
        fg.special.log_softmax(x, axis=0)
        x *= 2.0
        return np.sum(x)

    x = LANES.copy()
    np.testing.assert_array_equal(fg.vmap(f)(x), [12, 28, 44])
    np.testing.assert_array_equal(x, LANES)

    def outer(x):
        y = x * 1.0
        return np.sum(fg.vmap(f)(y)) + np.sum(y)

    np.testing.assert_array_equal(fg.grad(outer)(x), 3)


@pytest.mark.filterwarnings("ignore:compile")
def test_a_buffer_of_the_function_that_maps_is_written_once_a_lane():
    def f(x):
        buffer = fg.tensor(np.zeros(2))

        def lane(x):
            buffer[0] += np.sum(x)
            return np.sum(x) * buffer[0]
        return np.sum(fg.vmap(lane)(x) * WEIGHTS)

    wanted = np.sum(np.array([6.0, 14.0, 22.0]) * [6.0, 20.0, 42.0] * WEIGHTS)
    assert f(LANES).item() == wanted
    assert fg.value_and_grad(f)(LANES)[0] == wanted
    np.testing.assert_allclose(fg.grad(f)(LANES),
                               fg.numeric.gradient(lambda x: float(f(x)), LANES), rtol=1e-6)
    program = fg.compile(f)
    assert program(LANES) == program(LANES) == wanted


@pytest.mark.filterwarnings("ignore:compile")
def test_a_buffer_outside_of_a_loop_is_written_once_a_step():
    def f(x):
        buffer = fg.tensor(np.zeros(3))

        def step(c, s):
            buffer[0] += s
            return c + buffer[0], c
        c, _ = fg.scan(step, x[0], np.ones(3))

        def body(c):
            buffer[1] += 1.0
            return c + buffer[1]
        return c * x[1] + fg.while_loop(lambda c: c < 9.0, body, x[2])

    wanted = (0.5 + 6) * 1 + (2 + 1 + 2 + 3 + 4)
    assert float(f(X)) == wanted
    for transformed in (fg.compile(f), lambda x: fg.value_and_grad(f)(x)[0],
                        lambda x: fg.compile(fg.value_and_grad(f))(x)[0]):
        assert transformed(X) == wanted
    np.testing.assert_array_equal(fg.grad(f)(X), [1, 6.5, 1])


# ---- what stands for an array -------------------------------------------------------------------

def written_alias(x):
    a = np.ones(3)
    b = fnp.asarray(a)
    b /= 2.0 + x ** 2
    return np.sum(a)


def written_item_of_alias(x):
    a = np.ones(3)
    fnp.asarray(a)[0] = x[0]
    return np.sum(a * x)


def written_view_of_alias(x):
    a = np.ones((3, 2))
    fnp.asarray(a)[:, 0] += x
    return np.sum(a)


def written_alias_of_part(x):
    a = np.ones((3, 2))
    b = fnp.ascontiguousarray(a[1])
    b *= x[0]
    return np.sum(a)


def written_alias_by_numbers(x):
    a = np.ones(3)
    b = fnp.asanyarray(a)
    b *= 2.0
    return np.sum(a * x)


@pytest.mark.parametrize("f", [written_alias, written_item_of_alias, written_view_of_alias,
                               written_alias_of_part, written_alias_by_numbers])
def test_what_asarray_makes_of_an_array_is_not_written_to_behind_its_back(f):
    x = np.array([1.0, 2.0, 0.5])
    for g in (fg.grad(f), fg.compile(fg.grad(f)), lambda x: fg.vmap(f)(x[None]),
              lambda x: fg.jvp(f, (x,), (x,)), fg.jacobian(f, mode="forward")):
        with pytest.raises(ValueError, match=r"fnp\.array\(a\)"):
            g(x)
    compiled = fg.compile(f)
    with pytest.warns(UserWarning, match="is not replayed"):
        assert [compiled(x), compiled(x + 1.0)] == [f(x), f(x + 1.0)]


def test_what_asarray_makes_of_an_array_that_nobody_else_has_is_written_to():
    def f(x):
        a, b = fnp.asarray(np.zeros(3)), fnp.asarray(np.arange(6.0).reshape(2, 3))
        a += x
        a[0] = x[1] * 2.0
        b[1] *= a
        return np.sum(a * x) + np.sum(b)

    x = np.array([1.0, 2.0, 0.5])
    step = 1e-6 * np.eye(3)
    slope = [(f(x + e) - f(x - e)) / 2e-6 for e in step]
    for g in (fg.grad(f), fg.compile(fg.grad(f)), fg.jacobian(f, mode="forward")):
        np.testing.assert_allclose(g(x), slope, atol=1e-8)
    np.testing.assert_allclose(fg.vmap(f)(np.stack([x, 2 * x])), [f(x), f(2 * x)])


# ---- who has the array: what cannot be told is refused -----------------------------------------

class Delegating:
    """Hands out what another object has."""

    def __init__(self, other):
        self.__dict__["other"] = other

    def __getattr__(self, name):
        return getattr(self.other, name)


class Converting(Holder):
    def __setattr__(self, name, value):
        self.__dict__[name] = [value, None]


class Dropping(dict):
    def __setitem__(self, key, value):
        pass


class Redirecting(list):
    def __getitem__(self, k):
        return super().__getitem__(k - 1)


class Named:
    total = None

    @property
    def alias(self):
        return self.__dict__["alias"]

    @alias.setter
    def alias(self, value):
        pass


def of_a_chain_map(x):
    b = {"a": np.zeros(3)}
    collections.ChainMap({}, b)["a"] += x
    return b["a"]


def of_a_named_chain_map(x):
    b = {"a": np.zeros(3)}
    c = collections.ChainMap({}, b)
    c["a"] += x
    return b["a"]


def of_a_delegating_object(x):
    b = Holder()
    b.a = np.zeros(3)
    d = Delegating(b)
    d.a += x
    return b.a


def of_what_is_inside_the_instruction(x):
    self, arrays = Holder(), [np.zeros(3)]
    self.items = []
    self.items += map(operator.iadd, iter(arrays), [x])
    return arrays[0]


def of_another_item(x):
    d = {"items": [], 3: np.zeros(3)}

    def key():
        return "items"

    d[key()] += map(operator.iadd, (d[k] for k in (3,)), [x])
    return d[3]


def of_a_class_by_a_path(x):
    class Model:
        a = np.zeros(3)

    self = Holder()
    self.model = Model()
    self.model.a += x
    return Model.a


def of_what_is_dropped(x):
    d = Dropping(a=np.zeros(3))
    d["a"] += x
    return d["a"]


def of_what_is_converted(x):
    c = Converting()
    c.__dict__["a"] = np.zeros(3)
    c.a += x
    return c.a[0]


def of_a_list_that_counts_from_one(x):
    r = Redirecting([np.zeros(3), np.zeros(3)])
    k = 1
    r[k] += x
    return list.__getitem__(r, 0)


def of_a_property(x):
    n = Named()
    n.__dict__["alias"] = np.zeros(3)
    n.alias += x
    return n.alias


def of_a_call(x):
    b = {"a": np.zeros(3)}

    def found():
        return collections.ChainMap({}, b)

    found()["a"] += x
    return b["a"]


WRITTEN_ELSEWHERE = {f.__name__: f for f in (
    of_a_chain_map, of_a_named_chain_map, of_a_delegating_object, of_what_is_inside_the_instruction,
    of_another_item, of_a_class_by_a_path, of_what_is_dropped, of_what_is_converted,
    of_a_list_that_counts_from_one, of_a_property, of_a_call)}


@pytest.mark.parametrize("name", WRITTEN_ELSEWHERE)
def test_an_array_whose_owner_cannot_be_told_is_not_rebound(name):
    f = WRITTEN_ELSEWHERE[name]

    def weighted(x):
        return np.sum(f(x) * WEIGHTS)

    np.testing.assert_array_equal(f(X), X)
    for g in (fg.grad(weighted), fg.compile(fg.grad(weighted)),
              fg.jacobian(f, mode="forward")):
        with pytest.raises(TypeError, match=r"fnp\.zeros"):
            g(X)
    compiled = fg.compile(f)
    for k in (1.0, 2.0):
        np.testing.assert_array_equal(compiled(k * X), k * X)


class Counting(dict):
    pass


def default_dictionary(x):
    d = collections.defaultdict(lambda: np.zeros(3))
    d["k"] += x
    return d["k"]


def ordered_dictionary(x):
    d = collections.OrderedDict(k=np.zeros(3))
    d["k"] += x
    return d["k"]


def user_dictionary(x):
    d = collections.UserDict(k=np.zeros(3))
    d["k"] += x
    return d["k"]


def own_dictionary(x):
    d = Counting(k=np.zeros(3))
    d["k"] += x
    return d["k"]


def queue(x):
    q = collections.deque([np.zeros(3), np.ones(3)])
    q[0] += x
    return q[0]


def objects(x):
    a = np.empty(2, object)
    a[0] = np.zeros(3)
    a[0] += x
    return a[0]


def key_of_a_call(x):
    d = {"k": np.zeros(3), "n": 2.0}
    d["K".lower()] += x
    return d["k"]


def place_of_an_attribute(x):
    self = Holder()
    self.k, self.parts = 1, [None, np.zeros(3)]
    self.parts[self.k] += x
    return self.parts[1]


def last_item(x):
    parts = [np.zeros(3), np.zeros(3)]
    n = len(parts)
    parts[n - 1] += x
    parts[-2] += x
    return parts[1] + parts[0] - x


def enumerated(x):
    class Place(enum.Enum):
        FIRST = 1

    d = {Place.FIRST: np.zeros(3)}
    d[Place.FIRST] += x
    return d[Place.FIRST]


def namespace(x):
    n = types.SimpleNamespace(a=np.zeros(3))
    n.a += x
    return n.a


def data_class(x):
    @dataclasses.dataclass(slots=True)
    class State:
        a: np.ndarray

    s = State(np.zeros(3))
    s.a += x
    return s.a


def module(x):
    m = types.ModuleType("m")
    m.a = np.zeros(3)
    m.a += x
    return m.a


def in_a_loop(x):
    parts = {k: np.zeros(3) for k in range(3)}
    for k in parts:
        parts[k] += x * k
        parts[k] += x
    return sum(parts.values()) / 6.0


HELD_BY_ONE = {f.__name__: f for f in (
    default_dictionary, ordered_dictionary, user_dictionary, own_dictionary, queue, objects,
    key_of_a_call, place_of_an_attribute, last_item, enumerated, namespace, data_class, module,
    in_a_loop)}


@pytest.mark.parametrize("name", HELD_BY_ONE)
def test_what_one_container_or_object_has_is_rebound(name):
    f = HELD_BY_ONE[name]
    np.testing.assert_allclose(f(X), X)
    for g in (fg.jacobian(f), fg.compile(fg.jacobian(f)), fg.jacobian(f, mode="forward")):
        np.testing.assert_allclose(g(X), np.eye(3))
    np.testing.assert_allclose(fg.compile(f)(X), X)


def test_the_array_of_a_class_or_of_a_weak_reference_is_not_rebound():
    class Model:
        total = np.zeros(3)

        def add(self, x):
            self.total += x
            return self.total

    def of_class(x):
        Model.total = np.zeros(3)
        Model().add(x)
        return np.sum(Model.total * x)

    def own(x):
        Model.total = np.zeros(3)
        model = Model()
        model.total = np.zeros(3)
        return np.sum(model.add(x) * x)

    def whole_class(x):
        Model.total = np.zeros(3)
        Model.total += x
        return np.sum(Model.total * x)

    def weak(x):
        a = np.zeros(3)
        seen = weakref.ref(a)
        a += x
        return np.sum(a) + (0.0 if seen() is None else np.sum(seen()))

    x = np.array([1.0, 2.0, 0.5])
    for f in (of_class, weak):
        for g in (fg.grad(f), fg.compile(fg.grad(f)), fg.jacobian(f, mode="forward")):
            with pytest.raises(TypeError, match=r"fnp\.zeros"):
                g(x)
        assert fg.compile(f)(x) == f(x)
    for f in (own, whole_class):
        for g in (fg.grad(f), fg.compile(fg.grad(f)), fg.jacobian(f, mode="forward")):
            np.testing.assert_array_equal(g(x), 2 * x)
