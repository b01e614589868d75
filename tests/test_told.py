"""Values that are printed or logged: told when the function is recorded, and no reason to stop
replays; and what looks like that, and is not.
"""

import io
import logging
import warnings

import numpy as np
import pytest

import fastgrad as fg

log, written = logging.getLogger("fastgrad.test_told"), io.StringIO()
log.propagate = False                   # (a handler of pytest's keeps what it is told)
log.addHandler(logging.StreamHandler(written))
kept = []


class Model:
    def __init__(self):
        self.log = log

    def loss(self, x):
        self.log.warning("loss %s", x * 2)
        return x * 2


def printed(x):
    y = x * 2
    print("loss: %.3f" % y, f"{y:.1e}", y, float(y), round(float(y), 2), "{:.2f}".format(y))
    return y


def by_a_name(x):
    text = f"{x:.2f}"
    print("at " + text)
    return x * 3


def logged(x):
    log.warning("x %s", x)
    logging.getLogger("fastgrad.test_told").info(f"{x}")
    return x * 2


def shown_array(x):
    v = fg.numpy.ones(3) * x
    print(v, v[0], v > 1)
    return np.sum(v)


def warned(x):
    warnings.warn(f"at {x}", stacklevel=2)
    return x


TOLD = [printed, by_a_name, logged, shown_array, warned, Model().loss]


@pytest.mark.parametrize("f", TOLD)
@pytest.mark.filterwarnings("ignore")
def test_told_once(f, capsys):
    program = fg.compile(f)
    for x in (1.5, 2.5, -3.0):
        assert program(x) == f(x)
    assert program.fast_calls == 2
    capsys.readouterr()
    before = written.getvalue()
    program(7.0)
    assert capsys.readouterr().out == "" and written.getvalue() == before


def test_what_is_told_is_the_value(capsys):
    program = fg.compile(printed, quiet=True)
    program(1.5)
    first = capsys.readouterr().out
    printed(1.5)
    assert first == capsys.readouterr().out


def test_said_once():
    program = fg.compile(printed)
    with pytest.warns(UserWarning, match=r"printed is replayed without what it prints .*test_told"
                      r".py, line \d+; quiet=True"):
        program(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(2.0)
        fg.compile(printed, quiet=True)(1.0)
    assert program.reasons == []


def text_that_counts(x):
    text = f"{x:.3g}"
    print(text)
    return x * len(text)


def text_returned(x):
    text = str(x)
    print(text)
    return text


def number_that_counts(x):
    v = float(x)
    print(v)
    return x * v


def kept_text(x):
    kept.append(f"{x}")
    return x


def helper(x):
    return f"{x}"


def through_a_helper(x):
    print(helper(x))
    return x


def level_asked(x):
    return x * 2 if log.isEnabledFor(logging.INFO) else x


def into_a_file(x):
    print(x, file=io.StringIO())
    return x


def branch_on_text(x):
    if str(x) != "1.0":
        print(x)
        return x * 2
    return x


def error_on_the_way(x):
    try:
        print(1.0 / float(x), [1, 2][int(x) % 2], {1.0: "one"}.get(float(x)))
    except ZeroDivisionError:
        return -1.0
    return x


@pytest.mark.parametrize("f", [error_on_the_way, text_that_counts, text_returned, number_that_counts, kept_text,
                               through_a_helper, level_asked, into_a_file, branch_on_text])
@pytest.mark.filterwarnings("ignore")
def test_not_only_told(f):
    program = fg.compile(f)
    for x in (1.0, 2.5, 0.0, 12.25, 1.0):
        assert program(x) == f(x)
    assert program.fast_calls == 0


def test_logger_whose_level_is_set():
    program = fg.compile(logged, quiet=True)
    program(1.0)
    log.setLevel(logging.ERROR)
    try:
        assert program(2.0) == 4.0
    finally:
        log.setLevel(logging.NOTSET)
