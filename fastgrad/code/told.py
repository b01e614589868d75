"""How objects are told: as something that equals another only if nothing tells them apart."""

import abc
import collections
import datetime
import random
import struct
import types

import numpy as np

from . import known

__all__ = ["CONTAINERS", "GENERATORS", "NUMBERS", "as_base", "base_of", "bits", "entries",
           "entries_of", "exact", "generator_state", "identities", "layout", "members",
           "only_drawn_from", "plain", "random_states", "raw", "registrations"]


def bits(x):
    """A float so that NaN is itself and the zeros are two."""
    return struct.pack("d", x)


def exact(x):
    """Something plain so that it equals another only if it is of the same type, and the same."""
    kind = type(x)
    if kind in (str, bytes, int, bool, type(None)):
        return kind, x
    if kind is float:
        return kind, bits(x)
    if kind is complex:
        return kind, bits(x.real), bits(x.imag)
    if kind is tuple:
        return kind, tuple(map(exact, x))
    if kind is frozenset:
        return kind, frozenset(map(exact, x))
    if kind is slice:
        return kind, exact(x.start), exact(x.stop), exact(x.step)
    if isinstance(x, np.generic) and not isinstance(x, np.void):
        return kind, x.dtype, x.tobytes()
    if kind.__module__ in ("datetime", "decimal", "fractions", "builtins") and (
            known.kind(x) is not None):
        return kind, repr(x)
    return kind, id(x)                  # whoever keeps this must hold x: an id may be used again


def plain(x):
    """Whether `exact` tells all there is: no object is in x that can change."""
    kind = type(x)
    if kind is tuple or kind is frozenset:
        return all(map(plain, x))
    if kind is slice:
        return plain(x.start) and plain(x.stop) and plain(x.step)
    if kind is datetime.datetime or kind is datetime.time:
        return x.tzinfo is None or type(x.tzinfo) is datetime.timezone
    return kind is float or exact(x)[-1] != id(x) or type(x) is int


def members(x):
    """What is in a set."""
    return frozenset(map(exact, base_of(x).__iter__(x)))


def identities(x):
    """Which objects are in a sequence, or are the keys of an ordered dictionary. (Whoever keeps
    these holds the objects as well.)"""
    return tuple(map(id, base_of(x).__iter__(x)))


def entries_of(x):
    """Which objects are in a mapping, as `identities`."""
    return tuple([(id(key), id(value)) for key, value in x.items()])


def layout(x):
    """How an array lies in memory, and whether it may be written to."""
    return x.flags.num, x.strides, x.ctypes.data


def raw(x):
    """What an array of a class derived from ndarray holds."""
    return x.shape, x.dtype.str, x.tobytes()


# Bases whose part in an object is no attribute.
NUMBERS = (int, float, complex, str, bytes)
CONTAINERS = (tuple, list, dict, set, frozenset, collections.deque, types.MappingProxyType)


def registrations(_):
    """How many classes have been registered with abstract ones."""
    return abc.get_cache_token()


def as_base(x):
    """The number or the text in an object of a subclass."""
    for base in NUMBERS:
        if isinstance(x, base):
            return base.__repr__(x)
    return None


def base_of(x):
    """The container that an object is one of, whose methods ask none of a class of the user's."""
    if isinstance(x, collections.OrderedDict):
        return collections.OrderedDict
    return next(base for base in CONTAINERS if isinstance(x, base))


def entries(x):
    """What is in a container: of a mapping its values."""
    base = base_of(x)
    if base in (dict, types.MappingProxyType):
        return base.values(x)
    if base is collections.OrderedDict:
        return [dict.__getitem__(x, key) for key in base.__iter__(x)]
    return base.__iter__(x)


# ---- random numbers -------------------------------------------------------------------------

def generator_state(generator):
    """All that decides what a generator will give: the numbers, and the generators spawned."""
    if isinstance(generator, np.random.Generator):
        return generator_state(generator.bit_generator)
    if isinstance(generator, np.random.RandomState):
        return _frozen(generator.get_state(legacy=False))
    if isinstance(generator, np.random.BitGenerator):
        seeds = getattr(generator, "seed_seq", None)
        return _frozen(generator.state), getattr(seeds, "n_children_spawned", None)
    return generator.getstate()


def _frozen(state):
    if isinstance(state, dict):
        return tuple([(key, _frozen(value)) for key, value in state.items()])
    return state.tobytes() if isinstance(state, np.ndarray) else state


# What may read or set the state of a generator, beside drawing from it. (Of bits all may.)
_BEYOND_DRAWS = {
    np.random.Generator: "spawn bit_generator",
    np.random.RandomState: "get_state set_state seed _bit_generator",
    random.Random: "getstate setstate seed gauss_next"}
_BEYOND_DRAWS = {kind: frozenset([*names.split(), "__reduce__", "__reduce_ex__", "__getstate__",
                                  "__setstate__"]) for kind, names in _BEYOND_DRAWS.items()}


def only_drawn_from(generator, names):
    """Whether nothing that is called by one of these names tells or sets a generator's state."""
    found = _BEYOND_DRAWS.get(type(generator))
    return found is not None and found.isdisjoint(names)


GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
GLOBAL = [(np.random.mtrand._rand, "np.random"), (random._inst, "random")]


def random_states(generators):
    """The states of these generators and of those behind `np.random` and `random`."""
    return [(generator_state(generator), name) for generator, name in generators + GLOBAL]
