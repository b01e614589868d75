"""Tensors of a recording that the function has put somewhere become plain values.

While a program is recorded its function computes with Tensors, and may keep some: in an attribute,
a list, a cell, a cache. The plain function would have kept numbers and arrays, and so does the
compiled one: `settle` goes through what the function reaches, and what it has returned, and puts in
the place of each such Tensor what it stands for. Iterators are made anew, and generators put into
others that yield plain values. Those that it does not find (in the frames of an error, in memory of
another library) stay Tensors, without history (`core.let_go`).
"""

import collections
import contextlib
import contextvars
import functools
import gc
import itertools
import logging
import operator
import types
import weakref

import numpy as np

from fastgrad._core import core
from fastgrad.code import known as _known
from fastgrad.code import told, watch
from fastgrad.code.names import own_attribute

__all__ = ["settle", "settle_records", "settled_generator"]

Tensor = core.Tensor

# More is not gone through: what the function reaches is then no description of anything either.
OBJECTS = 200_000

# In these nothing can be put.
_CLOSED = (int, float, complex, str, bytes, bytearray, type(None), types.CodeType, np.generic,
           np.dtype, np.ufunc, range, property, np.random.Generator)

# These are made anew with what they hold.
_READ_ONLY = (slice, staticmethod, classmethod)
_ITERATORS = (map, filter, zip, enumerate, reversed, *map(type, (
    iter([]), iter(()), reversed([]), iter(set()), iter(collections.deque()), iter(iter, None),
    iter(type("Sequence", (), {"__getitem__": None})()))), *[
    x for x in vars(itertools).values() if isinstance(x, type) and hasattr(x, "__next__")])
_METHODS = (types.BuiltinMethodType, types.MethodWrapperType)

# Of these the parts are changed.
_SHOWING = (types.MappingProxyType, *map(type, [
    way(view) for view in ({}.keys(), {}.values(), {}.items()) for way in (lambda x: x, iter)]))


def settle(recorder, roots, originals):
    """Replace the Tensors of a recording in what can be reached.

    Parameters
    ----------
    recorder : Recorder
    roots : list
        Functions and other objects; in lists, Tensors among them are replaced as well.
    originals : dict
        Id of a Tensor that stands for an argument: that argument.

    Returns
    -------
    bool
        Whether there was one.
    """
    walk = _Settling(recorder, originals)
    walk.go([roots])
    return walk.found


def settle_records(tensors):
    """Replace Tensors in what loggers' handlers keep of what they were told."""
    kept = set(map(id, tensors))
    for x in gc.get_objects() if kept else ():
        if issubclass(type(x), logging.LogRecord) and type(x.args) is tuple and (
                not kept.isdisjoint(map(id, x.args))):
            x.args = tuple(map(core.settled, x.args))


def settled_generator(generator):
    """The generator with plain values in place of the Tensors that it yields and returns."""
    if isinstance(generator, types.CoroutineType):
        async def settled():
            return core.settled(await generator)
    elif isinstance(generator, types.AsyncGeneratorType):
        async def settled():
            async for value in generator:
                yield core.settled(value)
    else:
        def settled():
            move, sent = generator.send, None
            while True:
                try:
                    value = move(sent)
                except StopIteration as stop:
                    return core.settled(stop.value)
                try:
                    move, sent = generator.send, (yield core.settled(value))
                except GeneratorExit:
                    generator.close()
                    raise
                except BaseException as error:
                    move, sent = generator.throw, error
    return settled()


class _Settling:
    """A walk over all that is reached, each object once."""

    def __init__(self, recorder, originals):
        self.recorder, self.originals = recorder, originals
        self.found = False
        self._values = {}               # id of a Tensor -> (the Tensor, what takes its place)
        self._seen, self._open = {}, []
        self._made = {}                 # id of an iterator -> what takes its place

    def go(self, roots):
        self._open += roots
        while self._open and len(self._seen) < OBJECTS:
            self._enter(self._open.pop())

    def _plain(self, x):
        """What is to stand in the place of x: something else for a Tensor of the recording, and for
        a tuple that holds one."""
        if isinstance(x, Tensor):
            return self._value(x) if self.recorder.made_here(x) else x
        if isinstance(x, _CLOSED) or id(x) in self._seen:
            return self._made.get(id(x), x)
        if isinstance(x, _READ_ONLY):
            return self._made_anew(x)
        if type(x) in _ITERATORS or isinstance(x, types.GeneratorType):
            self._seen[id(x)] = x
            made = self._made[id(x)] = self._iterator(x)
            self._seen[id(made)] = made
            return made
        if isinstance(x, _METHODS) and isinstance(x.__self__, Tensor):
            return getattr(self._plain(x.__self__), x.__name__, x)
        if isinstance(x, (tuple, frozenset)):
            parts = [self._plain(part) for part in x]
            if all([new is old for new, old in zip(parts, x)]):
                return x
            if isinstance(x, frozenset) or type(x) is tuple:
                return type(x)(parts)
            return tuple.__new__(type(x), parts)
        self._seen[id(x)] = x           # (held, so that no id is used twice)
        self._open.append(x)
        return x

    def _made_anew(self, x):
        """A slice, or a static method, which can only be replaced as a whole."""
        old = (x.start, x.stop, x.step) if isinstance(x, slice) else (x.__func__,)
        new = [self._plain(part) for part in old]
        return x if all([a is b for a, b in zip(new, old)]) else type(x)(*new)

    def _iterator(self, x):
        """An iterator of C, or a generator, which goes on where it is."""
        if not self._reaches(x):
            return x
        self.found = True
        if isinstance(x, types.GeneratorType):
            return settled_generator(x)
        try:
            make, args, *state = x.__reduce__()
            box = [args, *state[:1]]
            self._enter(box)
            self.go([])                 # (what they hold)
            made = make(*box[0])
            if box[1:] and box[1] is not None:
                made.__setstate__(box[1])
        except (TypeError, AttributeError):     # (itertools tells nothing since Python 3.14)
            return map(core.settled, x)
        return made if not self._reaches(made) else map(core.settled, made)

    def _reaches(self, x):
        """Whether an iterator or a generator holds Tensors of the recording."""
        rest, met = [x], set()
        while rest and len(met) < 1000:
            x = rest.pop()
            if isinstance(x, Tensor):
                if self.recorder.made_here(x):
                    return True
            elif id(x) not in met and isinstance(x, _THROUGH):
                met.add(id(x))
                # (Whatever the globals of a function hold is found elsewhere.)
                rest += gc.get_referents(x) if not isinstance(x, types.FunctionType) else (
                    x.__closure__, x.__defaults__, x.__kwdefaults__)
        return False

    def _value(self, t):
        self.found = True
        known = self._values.get(id(t))
        if known is None:
            value = self.originals.get(id(t))
            known = self._values[id(t)] = t, core.settle_plain(t) if value is None else value
        return known[1]

    def _replace(self, x, put, *where):
        """Put what is to stand in the place of x there, if it is something else."""
        if (new := self._plain(x)) is not x:
            put(*where, new)

    def _enter(self, x):
        """Look at the parts of x."""
        if isinstance(x, list):
            for k, part in enumerate(list.__iter__(x)):
                self._replace(part, list.__setitem__, x, k)
        elif isinstance(x, dict):
            self._dict(x)
        elif isinstance(x, (set, collections.deque)):
            base = told.base_of(x)
            parts = list(base.__iter__(x))
            plain = [self._plain(part) for part in parts]
            if any([new is not old for new, old in zip(plain, parts)]):
                base.clear(x)
                (base.update if base is set else base.extend)(x, plain)
        elif isinstance(x, types.CellType):
            try:
                content = x.cell_contents
            except ValueError:
                return
            self._replace(content, setattr, x, "cell_contents")
        elif isinstance(x, types.FunctionType):
            self._function(x)
        elif isinstance(x, types.MethodType):
            self._plain(x.__func__)
            self._plain(x.__self__)
        elif isinstance(x, types.BuiltinMethodType):
            self._plain(x.__self__)
        elif isinstance(x, functools.partial):
            state = x.func, x.args, x.keywords, vars(x)
            plain = tuple([self._plain(part) for part in state])
            if any([new is not old for new, old in zip(plain, state)]):
                x.__setstate__(plain)
        elif isinstance(x, np.ndarray):
            if x.dtype == object:
                for k, part in enumerate(x.flat):
                    self._replace(part, operator.setitem, x.flat, k)
        elif isinstance(x, (types.ModuleType, type)):
            self._namespace(x)
        elif isinstance(x, weakref.ref):
            self._plain(x())
        elif isinstance(x, BaseException):
            self._error(x)
        elif isinstance(x, _SHOWING):
            for part in gc.get_referents(x):
                self._plain(part)
        elif isinstance(x, contextvars.ContextVar):
            self._replace(x.get(None), x.set)
        else:
            self._instance(x)

    def _error(self, x):
        self._replace(x.args, setattr, x, "args")
        several = x.exceptions if isinstance(x, BaseExceptionGroup) else ()
        for part in (x.__cause__, x.__context__, *several):
            self._plain(part)
        self._instance(x)

    def _dict(self, x):
        base = told.base_of(x)          # (Counter.update counts)
        items = list(base.items(x))
        keys = [self._plain(key) for key, _ in items]
        values = [self._plain(value) for _, value in items]
        if any([new is not old for new, (old, _) in zip(keys, items)]):
            base.clear(x)
            for key, value in zip(keys, values):
                base.__setitem__(x, key, value)
            return
        for value, (key, old) in zip(values, items):
            if value is not old:
                base.__setitem__(x, key, value)

    def _function(self, f):
        for cell in f.__closure__ or ():
            self._plain(cell)
        if watch._known_file(f.__code__.co_filename):
            return
        self._replace(f.__defaults__, setattr, f, "__defaults__")
        self._plain(f.__kwdefaults__)
        self._plain(f.__dict__)
        space = f.__globals__
        for name in _names(f.__code__):
            if name in space:
                self._replace(space[name], operator.setitem, space, name)

    def _namespace(self, x):
        if watch._known_module(
                x.__name__ if isinstance(x, types.ModuleType) else _known.module_of(x)):
            return
        put = type.__setattr__ if isinstance(x, type) else setattr
        for name, value in list(vars(x).items()):
            self._replace(value, put, x, name)

    def _instance(self, x):
        kind = type(x)
        if own_attribute(x, "cache_clear") is not None and any([
                new is not old for old in gc.get_referents(x)
                for new in [self._plain(old)] if not isinstance(old, dict)]):
            x.cache_clear()
        for name in ("__wrapped__", "_rule"):
            self._plain(own_attribute(x, name))
        self._plain(kind)
        space = own_attribute(x, "__dict__")
        if isinstance(space, dict):
            self._plain(space)
        for base in kind.__mro__:
            for name, member in list(vars(base).items()):
                if isinstance(member, types.MemberDescriptorType):
                    value = own_attribute(x, name)
                    if (new := self._plain(value)) is not value:
                        with contextlib.suppress(AttributeError):   # of C: it may be read only
                            member.__set__(x, new)


# What may hold what an iterator gives.
_THROUGH = (*_ITERATORS, *_SHOWING, types.GeneratorType, tuple, list, dict, set, collections.deque,
            types.FunctionType, types.CellType, types.MethodType, functools.partial)


@functools.lru_cache(maxsize=10_000)
def _names(code):
    """The names that a code object and those in it read."""
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names |= _names(inner)
    return frozenset(names)
