"""What leaves a compiled function holds no Tensors: what its errors carry, iterators, generators
and context managers that it returns. Each is taken apart beside that of the plain function.
"""

import collections
import contextlib
import functools
import itertools
import types

import numpy as np
import pytest

import fastgrad as fg

pytestmark = pytest.mark.filterwarnings("ignore:compile")

_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
_METHODS = (types.BuiltinMethodType, types.MethodWrapperType)
_OF_ERRORS = "value code errno strerror filename name path obj exceptions".split()


def told(x, seen=()):
    """A text of everything in x. Iterators are used up for it."""
    assert not fg.is_tensor(x), "a Tensor has left"
    if any([x is y for y in seen]):
        return "again"
    seen = (*seen, x)
    inside = functools.partial(told, seen=seen)
    kind = type(x).__name__
    if isinstance(x, BaseException):
        return (kind, inside(x.args), inside(vars(x)), inside(x.__cause__), inside(x.__context__),
                [(name, inside(getattr(x, name))) for name in _OF_ERRORS if hasattr(x, name)])
    if isinstance(x, (list, tuple, *_VIEWS)):
        return kind, [inside(y) for y in x]
    if isinstance(x, (dict, types.MappingProxyType)):
        return kind, [(inside(k), inside(v)) for k, v in x.items()]
    if isinstance(x, contextlib.AbstractContextManager):
        with x as y:
            return kind, inside(y)
    if hasattr(x, "__next__"):
        return kind, [inside(y) for y in itertools.islice(x, 10)]
    if isinstance(x, _METHODS):
        return kind, x.__name__, inside(x.__self__)
    if isinstance(x, types.SimpleNamespace):
        return kind, inside(vars(x))
    return kind, repr(x)


def outcome(f, x):
    try:
        return told(f(x))
    except BaseException as error:
        if isinstance(error, AssertionError):
            raise
        return "raised", told(error)


def same(f):
    compiled = fg.compile(f)
    for x in (np.array([1.0, 2.0]), np.array([3.0, 1.0])):
        assert outcome(compiled, x) == outcome(f, x)


# ---- errors -------------------------------------------------------------------------------------

class Own(Exception):
    __slots__ = ("slot",)

    def __init__(self, value, slot=None):
        super().__init__("own")
        self.value, self.slot = value, slot


def with_attribute(x, y):
    error = ValueError("a")
    error.x, error.parts = x, [y, {"y": y}]
    return error


def of_the_system(x, y):
    error = OSError(1, "a")
    error.strerror, error.filename = y, x
    return error


def with_cause(x, y):
    error = ValueError("a")
    error.__cause__ = KeyError([y])
    return error


ERRORS = {
    "an argument": lambda x, y: ValueError(x), "a list": lambda x, y: ValueError([y]),
    "a dict": lambda x, y: KeyError({"a": (y, [x])}), "a tuple": lambda x, y: ValueError((y, 1)),
    "an error": lambda x, y: ValueError(ValueError([y])), "an attribute": with_attribute,
    "its own": lambda x, y: Own(y, x), "OSError": of_the_system, "a cause": with_cause,
    "ImportError": lambda x, y: ImportError("a", name=y, path=x),
    "AttributeError": lambda x, y: AttributeError("a", name="n", obj=y),
    "SystemExit": lambda x, y: SystemExit(y), "StopIteration": lambda x, y: StopIteration(y),
    "a group": lambda x, y: ExceptionGroup("a", [ValueError(y), Own([x])]),
}


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS)
def test_errors_that_are_raised(make):
    def f(x):
        y = x * 2
        raise make(x, y)

    same(f)


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS)
def test_errors_that_are_returned(make):
    def caught(x):
        try:
            raise make(x, x * 2)
        except BaseException as error:
            return error

    same(caught)
    same(lambda x: [make(x, x.sum()), 1])


def test_an_error_carries_the_arguments_themselves():
    @fg.compile
    def f(x):
        raise ValueError([x])

    x = np.ones(2)
    with pytest.raises(ValueError) as found:
        f(x)
    assert found.value.args[0][0] is x


# ---- iterators ----------------------------------------------------------------------------------

def begun(x):
    it = iter([x * 2, x, x * 3])
    return next(it), it


def sent(x):
    def own():
        y = x * 2
        while y is not None:
            y = (yield y) or x
    return own()


ITERATORS = {
    "map": lambda x: map(lambda v: v * 2, x), "an array's": lambda x: iter(x * 2),
    "a list's": lambda x: iter([x * 2, x]), "a tuple's": lambda x: iter((x * 2,)),
    "a dict's": lambda x: iter({"a": x * 2}.values()), "values": lambda x: {"a": x * 2}.values(),
    "items": lambda x: {"a": x * 2}.items(),
    "a deque's": lambda x: iter(collections.deque([x * 2])),
    "zip": lambda x: zip(x * 2, x), "enumerate": lambda x: enumerate(x * 2),
    "filter": lambda x: filter(None, x * 2), "reversed": lambda x: reversed(x * 2),
    "a list reversed": lambda x: reversed([x * 2]), "by calls": lambda x: iter(lambda: x * 2, 0),
    "begun": begun, "in a list": lambda x: [map(lambda v: v * 2, [x * 1.0])],
    "in an object": lambda x: types.SimpleNamespace(a=iter([x * 2])),
    "a generator": lambda x: (v * 2 for v in x), "sent": sent,
    "map of a generator": lambda x: map(lambda v: v + 1, (v * 2 for v in x)),
    "a proxy": lambda x: types.MappingProxyType({"a": x * 2}),
    "a method": lambda x: (x * 2).sum, "an operator": lambda x: (x * 2).__add__,
}


@pytest.mark.parametrize("f", ITERATORS.values(), ids=ITERATORS)
def test_iterators(f):
    same(f)


ITERTOOLS = {
    "chain": lambda x: itertools.chain([x * 2], [x]), "cycle": lambda x: itertools.cycle([x * 2]),
    "islice": lambda x: itertools.islice(x * 2, 2), "repeat": lambda x: itertools.repeat(x * 2, 2),
    "starmap": lambda x: itertools.starmap(lambda a, b: a * b, [(x, x)]),
    "accumulate": lambda x: itertools.accumulate(x), "tee": lambda x: itertools.tee(x * 2)[0],
    "product": lambda x: itertools.product([x * 2], [1]), "count": lambda x: itertools.count(x[0]),
    "permutations": lambda x: itertools.permutations([x * 2, x]),
}


@pytest.mark.parametrize("f", ITERTOOLS.values(), ids=ITERTOOLS)
def test_iterators_of_itertools(f):
    """Of another type since Python 3.14, where they do not tell what they hold."""
    compiled = fg.compile(f)
    for x in (np.array([1.0, 2.0]), np.array([3.0, 1.0])):
        assert outcome(compiled, x)[1] == outcome(f, x)[1]


# ---- context managers ---------------------------------------------------------------------------

@contextlib.contextmanager
def doubled(x):
    y = x * 2
    try:
        yield y
    except KeyError:
        pass


def test_context_managers():
    same(doubled)
    same(lambda x: contextlib.nullcontext(x * 2))


def test_errors_reach_a_generator():
    compiled = fg.compile(doubled)
    with compiled(np.ones(2)) as y:
        assert not fg.is_tensor(y)
        raise KeyError("caught by the manager")
    with pytest.raises(ValueError), compiled(np.ones(2)):
        raise ValueError


def test_a_generator_that_is_closed():
    closed = []

    def f(x):
        def own():
            try:
                yield x * 2
            finally:
                closed.append(1)
        return own()

    made = fg.compile(f)(2.0)
    assert next(made) == 4.0
    made.close()
    assert closed == [1]
