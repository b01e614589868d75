"""How objects are told: as something that equals another only if nothing tells them apart."""

import abc
import collections
import random
import struct
import types

import numpy as np

from . import _known

__all__ = ["CONTAINERS", "GENERATORS", "NUMBERS", "as_base", "base_of", "bits", "entries_of",
           "exact", "identities", "members", "random_states", "registrations"]


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
    if isinstance(x, np.generic):
        return kind, x.dtype, x.tobytes()
    if kind.__module__ in ("datetime", "decimal", "fractions", "builtins") and (
            _known.kind(x) is not None):
        return kind, repr(x)
    return kind, id(x)


def members(x):
    """What is in a set."""
    return frozenset(map(exact, x))


def identities(x):
    """Which objects are in a sequence, or are the keys of an ordered dictionary."""
    return tuple(map(id, x))


def entries_of(x):
    """Which objects are in a mapping."""
    return tuple([(id(key), id(value)) for key, value in x.items()])


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
    """The container that an object is one of."""
    return next(base for base in CONTAINERS if isinstance(x, base))


# ---- random numbers -------------------------------------------------------------------------

def _state(generator):
    if isinstance(generator, np.random.Generator):
        return _frozen(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return _frozen(generator.get_state(legacy=False))
    if isinstance(generator, np.random.BitGenerator):
        return _frozen(generator.state)
    return generator.getstate()


def _frozen(state):
    if isinstance(state, dict):
        return tuple([(key, _frozen(value)) for key, value in state.items()])
    return state.tobytes() if isinstance(state, np.ndarray) else state


GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
GLOBAL = [(np.random.mtrand._rand, "np.random"), (random._inst, "random")]


def random_states(generators):
    """The states of these generators and of those behind `np.random` and `random`."""
    return [(_state(generator), name) for generator, name in generators + GLOBAL]
