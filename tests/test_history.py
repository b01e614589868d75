"""Guards of a history: decisions that Python code took between the recorded inputs and outputs."""

import gc
import threading

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad._core import core

POINTS = [np.array(x) for x in (
    [3.0, 1.0], [0.1, 1.0], [1.0, 3.0], [-2.0, 0.5], [0.0, 0.0], [-1.0, -4.0], [3.5, 1.25])]


def parameter(x=(3.0, 1.0)):
    return fg.tensor(np.array(x), requires_grad=True)


def program(f, x):
    w = parameter(x)
    return fg.function([w], f(w))


def branch(condition):
    return lambda w: w * w * 2.0 if condition(w) else w - 5.0


DECISIONS = {
    "an entry": branch(lambda w: (w * w)[0] > 1),
    "not": branch(lambda w: not w.sum() < 1.0),
    "of a number": branch(lambda w: w[1]),
    "a chain": branch(lambda w: -1.0 < w[0] < 2.0),
    "any": branch(lambda w: (w > 2.0).any()),
    "np.all": branch(lambda w: np.all(w > 0.2)),
    "two masks": branch(lambda w: ((w > 0.2) & ~(w > 3.2)).all()),
    "a mask in place": branch(lambda w: _narrowed(w > 0.2, w < 3.2).all()),
    "all of Python's": branch(lambda w: all(w > 0.2)),
    "against an array": branch(lambda w: (w > np.array([0.5, 0.5])).all()),
    "against a list": branch(lambda w: (w > [0.5, 0.5])[0]),
    "np.allclose": branch(lambda w: np.allclose(w, [3.0, 1.0])),
    "np.array_equal": branch(lambda w: np.array_equal(w, abs(w))),
    "count_nonzero": branch(lambda w: int(np.count_nonzero(w > 0)) == 2),
    "steps": branch(lambda w: np.floor(w[0]) == 3),
    "np.sign": branch(lambda w: np.sign(w)[0] == 1),
    "detached": branch(lambda w: w.detach()[0] > 1),
    "int of what is detached": lambda w: w * int(w.detach()[0]),
    "no_grad": branch(lambda w: fg.no_grad()(lambda: w[0] * 2 > 1)()),
    "isfinite": branch(lambda w: np.isfinite(1.0 / (abs(w) + 1.0)).all()),
    "argmax": lambda w: w * [5.0, 6.0][np.argmax(w)],
    "astype": lambda w: w * int(w.astype(int)[0]),
    "range": lambda w: sum((w * 3.0 for _ in range(np.argmax(w))), w * 1.0),
    "place": lambda w: w[np.argmax(w)] * w,
    "places": lambda w: w[np.argsort(w)] * 2.0,
    "mask": lambda w: w[w > 0.2] * 2.0,
    "nested": lambda w: branch(lambda v: v[1] > 0.4)(w * 2.0 if w[0] > 0 else w),
    "max": lambda w: max(w[0], w[1]) * w,
    "sorted": lambda w: fnp.stack(sorted(w)),
    "through a table": branch(lambda w: fg.tensor([0, 1])[np.argmax(w)]),
    "item": branch(lambda w: fnp.maximum(w, 0.5)[1] > 0.5),
    "matmul": branch(lambda w: w @ w > 5.0),
    "float32": lambda w: branch(lambda v: v[0] > 1)(w.astype(np.float32)),
    "a sum of what is detached": branch(lambda w: w.detach().sum() > 1),
    "a mean": branch(lambda w: np.mean(w.detach() * 2.0) > 1.0),
    "its product": branch(lambda w: w.detach().prod() > 1.0),
    "its largest": branch(lambda w: w.detach().max(axis=0, keepdims=True)[0] > 2.0),
    "its deviation": branch(lambda w: np.std(w.detach()) > 0.5),
    "a product of matrices": branch(lambda w: (w.detach() @ np.array([1.0, 2.0])) > 2.0),
    "of integers": branch(lambda w: (w > 0.2).astype(int) @ np.array([1, 2]) > 2),
    "joined": branch(lambda w: np.concatenate([w.detach(), w.detach()[:1]]).sum() > 3.0),
    "a slice of a mask": branch(lambda w: (w > 0.5)[:1].all()),
    "a mask in another shape": branch(lambda w: (w > 0.5).reshape(2, 1)[0].all()),
    "a slice of a slice": branch(lambda w: w.detach()[::-1][:1].sum() > 0.5),
    "sums under no_grad": branch(lambda w: fg.no_grad()(lambda: np.sum(w * 2) > 2)()),
    "how many": branch(lambda w: len(np.nonzero(w > 0.5)[0]) > 1),
    "how many, in a shape": branch(lambda w: np.where(w > 0.5)[0].size > 1),
    "how many of them": lambda w: w * np.flatnonzero(w > 0.5).size,
}


def _narrowed(mask, other):
    mask &= other
    return mask


@pytest.mark.parametrize("f", DECISIONS.values(), ids=DECISIONS)
def test_a_history_is_right_or_says_which_decision_is_another_one(f):
    """Recorded at each of some points and called at all of them."""
    failed = 0
    for x in POINTS:
        h = program(f, x)
        assert h.paths[0].graph.guards
        for y in POINTS:
            right = np.asarray(f(fg.tensor(y)).detach())
            try:
                np.testing.assert_array_equal(h(y), right)
                np.testing.assert_array_equal(np.asarray(h(fg.tensor(y)).detach()), right)
                if right.size and f is not DECISIONS["place"]:
                    np.testing.assert_allclose(
                        fg.jacobian(h)(y), fg.jacobian(f)(y), rtol=1e-15)
            except fg.GuardError as error:
                assert "test_history.py, line" in str(error)
                assert x is not y
                failed += 1
    assert failed or f is DECISIONS["isfinite"]


def test_the_error_names_the_line_and_the_outcome():
    w = parameter()
    loss = w * w
    if loss[0] > 1:
        z = loss * 2
    h = fg.function([w], z)
    np.testing.assert_array_equal(h(np.array([3.0, 1.0])), [18.0, 2.0])
    line = test_the_error_names_the_line_and_the_outcome.__code__.co_firstlineno + 3
    for call in (h, fg.jacobian(h), fg.compile(h), lambda x: fg.jvp(h, (x,), (x,)),
                 fg.grad(lambda x: fnp.sum(h(x)))):
        with pytest.raises(fg.GuardError, match=f"test_history.py, line {line}.*True"):
            call(np.array([0.1, 1.0]))


def test_derivatives_lanes_and_files(tmp_path):
    h = program(DECISIONS["an entry"], [3.0, 1.0])
    x = np.array([2.0, 5.0])
    np.testing.assert_array_equal(fg.jacobian(h)(x), np.diag(4 * x))
    np.testing.assert_array_equal(fg.grad(lambda x: fnp.sum(h(x)))(x), 4 * x)
    np.testing.assert_array_equal(fg.hessian(lambda x: fnp.sum(h(x)))(x), 4 * np.eye(2))
    np.testing.assert_array_equal(fg.jvp(h, (x,), (np.ones(2),))[1], 4 * x)
    lanes = np.array([[2.0, 5.0], [3.0, 0.0]])
    line = branch.__code__.co_firstlineno + 1
    with pytest.raises(ValueError, match=f"test_history.py, line {line}.*differs between lanes"):
        fg.vmap(h)(lanes)
    np.testing.assert_array_equal(
        fg.vmap(lambda a, x: a * h(x), in_axes=(0, None))(np.ones(3), x), [2 * x ** 2] * 3)
    before = program(lambda w: w * 2.0, [3.0, 1.0])
    np.testing.assert_array_equal(fg.vmap(before)(lanes), 2 * lanes)
    h(x)
    h.save(tmp_path / "h.fg")
    loaded = fg.load(tmp_path / "h.fg")
    np.testing.assert_array_equal(loaded(x), 2 * x ** 2)
    with pytest.raises(fg.GuardError, match="test_history.py, line"):
        loaded(np.array([0.1, 1.0]))


def test_several_parameters():
    a, b = parameter(), parameter([1.0, 2.0])
    if a[0] > b[0]:
        y = a * b
    f, g = fg.function([a, b], y), fg.function([a], y)
    x = np.array([4.0, 1.0])
    np.testing.assert_array_equal(f(x, x - 1.0), x * (x - 1.0))
    with pytest.raises(fg.GuardError):
        f(x, x + 1.0)
    np.testing.assert_array_equal(g(x), x * [1.0, 2.0])
    with pytest.raises(fg.GuardError):
        g(x - 4.0)


def refused(w, y):
    with pytest.raises(RuntimeError, match="fg.compile"):
        fg.function([w], y)


def test_a_mask_that_was_changed_is_not_what_it_was():
    w = parameter()
    mask = w > 2.0
    mask[0] = False
    if not mask[0]:
        refused(w, w * 3.0)
    w = parameter()
    mask = w > 2.0
    mask[:1] = False
    if not mask.any():
        refused(w, w * 3.0)
    w = parameter()
    mask = w > 2.0
    mask[:1][...] = False
    if not mask.any():
        refused(w, w * 3.0)
    w = parameter()
    table = w.detach()
    table += 1.0
    if table[0] > 1.0:
        h = fg.function([w], w * 3.0)
        assert h(np.array([0.5, 1.0]))[0] == 1.5
        with pytest.raises(fg.GuardError):
            h(np.array([-0.5, 1.0]))


def test_an_operand_that_was_changed_afterwards():
    w, a = parameter(), np.array([2.0, 2.0])
    y = w * 2.0
    mask = (y > a).any()
    y += 100.0
    a[:] = 0.0
    if mask:
        h = fg.function([w], w * y)
    np.testing.assert_array_equal(h(np.array([1.5, 0.0])), [1.5 * 103.0, 0.0])
    with pytest.raises(fg.GuardError):
        h(np.array([0.5, 0.5]))


def test_what_a_history_cannot_tell():
    w = parameter()
    y = w * 2.0
    if y[0] > 1:
        fnp.sum(y).backward()
    refused(w, w * 3.0)                     # the sweep has used up what was looked at
    w = parameter()
    for _ in range(100):
        if w[0] > 1:
            y = w * 3.0
    refused(w, y)                           # too many
    w = parameter()

    def elsewhere():
        if w[0] > 1:
            pass

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    refused(w, w * 3.0)
    w = parameter()
    if np.unique(w.detach())[0] > 0:
        refused(w, w * 3.0)


def test_a_parameter_that_is_changed_has_not_decided():
    w = parameter()
    if w[0] > 1:
        with fg.no_grad():
            w -= 2.5
    h = fg.function([w], w * 3.0)
    assert not h.paths[0].graph.guards


def nodes():
    return core.tape_info()["nodes"]


def test_decisions_keep_nothing_alive():
    gc.collect()
    before = nodes()
    w = parameter()
    best, found = np.inf, []
    for k in range(300):
        y = w
        for _ in range(100):
            y = fnp.sin(y)
        loss = y.sum()
        if loss < best:
            best = loss.detach()
        if np.max(y) > 0.5 and loss > -1.0:
            pass
        if k % 60 == 0:
            found.append(nodes())
    assert len(set(found)) == 1, found
    del y, loss
    assert nodes() - before < 70
    big = parameter(np.ones(100000))
    y = big * 2.0
    assert y[0] > 1 and (y > 1.0).all()
    assert nodes() - before > 0
    del y
    assert nodes() - before < 70
    del w, best, big
    assert nodes() == before


def test_masks_keep_little_alive():
    before = nodes()
    w = parameter()
    masks = []
    for _ in range(100):
        y = w
        for _ in range(100):
            y = fnp.sin(y)
        masks.append(y > 0.5)
    del y
    assert nodes() - before < 100
    del w
    assert nodes() == before
    assert masks[0].tolist() == masks[99].tolist()


def test_what_a_rule_holds_is_no_reason_to_keep_a_decision():
    f = fg.custom_vjp(lambda x: x * x)
    f.defvjp(lambda x: (x * x, x), lambda x, g: (2.0 * x * g,))
    for _ in range(3):
        np.sort(f(fg.tensor(np.array([3.0, 1.0]), requires_grad=True)))
    gc.collect()
    assert core.tape_info()["nodes"] == 0


def test_a_view_of_a_view_without_end():
    w = parameter()
    mask, loss = w > 0.5, w * w
    for _ in range(100_000):
        mask = mask[:]
    if mask.all():
        loss = loss * 2.0
    with pytest.raises(RuntimeError, match="decided"):
        fg.function([w], loss)
