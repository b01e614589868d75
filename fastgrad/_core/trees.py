"""Trees of tuples, lists, dicts, namedtuples, dataclasses and registered classes, with anything
else as leaves. (trees.py is what people see of it.)

None is a tree without leaves. Subclasses of tuple, list and dict are branches too. Dicts keep their
own order, and dicts that hold the same keys in another order are matched by key. A tree is taken
apart into its leaves and a structure, which compares with ==, and put together again without
running `__init__` or `__post_init__`: leaves may be of another kind than those the class was
written for. What an instance holds besides its children is not copied, since it may have been
computed from them; only a defaultdict keeps its factory, and a dict that is its own `__dict__`
remains so. A registered class says itself how it is taken apart and put together.
"""

import dataclasses
import enum
import functools
import reprlib
import types
from collections import OrderedDict, defaultdict, namedtuple

import numpy as np

__all__ = ["flatten", "flatten_like", "leaves_with_paths", "tree_map", "unflatten"]

# A structure is a Branch, whose children are structures, or LEAF, or (in `numbers`) a Constant.
# `rest` is what it takes beside the children to make the branch again: the factory of a
# defaultdict, OWN, or the Aux of a registered class.
Branch = namedtuple("Branch", "type keys children rest")
LEAF = "*"
OWN = "attributes"

REGISTERED = {}         # class -> (flatten, unflatten)
BUILTIN = (tuple, list, dict, type(None))


class Aux:
    """What a registered class has besides its children: part of the structure."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        if type(other) is not Aux or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or bool(np.all(self.value == other.value))

    def __hash__(self):
        try:
            return hash(self.value)
        except TypeError:               # equal ones have the same class
            return hash(type(self.value))

    def __repr__(self):
        return repr(self.value)


class Constant:
    """Stands in a structure for a leaf that is no number."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def flatten(tree):
    """The leaves of a tree, as a list, and its structure."""
    leaves = []
    return leaves, _structure(tree, leaves)


def unflatten(structure, leaves):
    """The tree of that structure with those leaves."""
    leaves = list(leaves)
    if len(leaves) != _count(structure):
        raise ValueError(f"the tree has {_count(structure)} leaves, not {len(leaves)}")
    return _tree(structure, iter(leaves))


def flatten_like(structure, tree):
    """The leaves of a tree that must have that structure, in its order."""
    leaves, found = flatten(tree)
    return leaves if found == structure else list(_matching(structure, tree, ""))


def tree_map(f, tree, *rest):
    """The tree of f(leaf, leaf of the second tree, ...); all have the structure of the first."""
    leaves, structure = flatten(tree)
    return unflatten(structure, map(f, leaves, *(flatten_like(structure, other) for other in rest)))


def numbers(tree):
    """The leaves of a tree that may be differentiated, and a structure that holds the others. What
    is no container stays a leaf, whatever it is."""
    leaves = []
    return leaves, _structure(tree, leaves, True)


def numbers_of_arguments(args):
    """The same of a tuple of arguments, in which nothing is a constant that is an argument."""
    leaves = []
    children = tuple([_structure(x, leaves, True) for x in args])
    return leaves, Branch(tuple, tuple(range(len(args))), children, None)


def bare(structure):
    """The structure of derivatives: None where there is a constant."""
    if type(structure) is Constant:
        return NONE
    if structure == LEAF or not structure.children:
        return structure
    return structure._replace(children=tuple(map(bare, structure.children)))


NONE = Branch(type(None), (), (), None)


def paths(structure, path=""):
    """The paths of the leaves of a structure, as in `leaves_with_paths`."""
    if structure == LEAF:
        return [path]
    if type(structure) is Constant:
        return []
    return [found for key, child in zip(structure.keys, structure.children)
            for found in paths(child, path + step(structure, key))]


def is_constant(x):
    """Whether a leaf is no number and has nothing in it that could be one: it passes through
    transformations. (An instance of a class with `__call__` may be a model with parameters.)"""
    kind = type(x)
    if kind in _CONSTANTS:
        return True
    if isinstance(x, (str, bytes, enum.Enum, type, np.dtype)):
        return True
    return callable(x) and (
        hasattr(x, "__wrapped__") or hasattr(x, "__name__")
        or not isinstance(getattr(kind, "__call__", None), types.FunctionType))


_CONSTANTS = frozenset([
    str, bytes, bool, np.bool_, type(Ellipsis), slice, range, type, np.ufunc, functools.partial,
    types.FunctionType, types.BuiltinFunctionType, types.MethodType])


def leaves_with_paths(tree):
    """Pairs of a path such as ``[0]['w'].bias`` and the leaf that is found there."""
    branch = open_branch(tree)
    if branch is None:
        return [("", tree)]
    return [(step(branch, key) + path, leaf) for key, child in zip(branch.keys, branch.children)
            for path, leaf in leaves_with_paths(child)]


# ---- one level of a tree: the core uses these, too -------------------------------------------

def open_branch(tree):
    """A Branch whose children are trees; None if the tree is a leaf."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return Branch(kind, tuple(range(len(tree))), tuple(tree), None)
    if kind is dict:
        return Branch(kind, tuple(tree), tuple(tree.values()), None)
    if tree is None:
        return Branch(kind, (), (), None)
    if kind in REGISTERED:
        return _opened(kind, tree)
    if isinstance(tree, (tuple, list)):
        if hasattr(kind, "n_sequence_fields"):      # os.stat_result and its like
            return None
        named = isinstance(tree, tuple) and hasattr(kind, "_fields")
        return Branch(kind, kind._fields if named else tuple(range(len(tree))), tuple(tree), None)
    if isinstance(tree, dict):
        own = getattr(tree, "__dict__", None) is tree
        rest = tree.default_factory if isinstance(tree, defaultdict) else OWN if own else None
        return Branch(kind, tuple(tree), tuple(tree.values()), rest)
    if hasattr(kind, "__dataclass_fields__"):
        # A field with init=False may not have been set.
        keys = [field.name for field in dataclasses.fields(tree) if hasattr(tree, field.name)]
        return Branch(kind, tuple(keys), tuple([getattr(tree, key) for key in keys]), None)
    return None


def _opened(kind, x):
    try:
        children, aux = REGISTERED[kind][0](x)
        children = tuple(children)
    except (TypeError, ValueError) as error:
        error.add_note(f"trees: the flatten that {kind.__name__} was registered with must return "
                       "(children, aux)")
        raise
    return Branch(kind, tuple(range(len(children))), children, Aux(aux))


def close_branch(branch, children):
    """The tree with these children that `open_branch` would open into such a branch."""
    kind = branch.type
    if kind is tuple or kind is list:
        return kind(children)
    if kind is dict:
        return dict(zip(branch.keys, children))
    if kind is type(None):
        return None
    if type(branch.rest) is Aux:
        return REGISTERED[kind][1](branch.rest.value, tuple(children))
    if issubclass(kind, tuple):
        return tuple.__new__(kind, children)
    if issubclass(kind, list):
        made = list.__new__(kind)
        list.extend(made, children)
        return made
    if issubclass(kind, dict):
        base = next(base for base in (OrderedDict, defaultdict, dict) if issubclass(kind, base))
        made = base.__new__(kind)
        if base is defaultdict:
            made.default_factory = branch.rest
        elif branch.rest == OWN:
            made.__dict__ = made
        for key, child in zip(branch.keys, children):
            base.__setitem__(made, key, child)
        return made
    made = object.__new__(kind)
    for key, child in zip(branch.keys, children):
        object.__setattr__(made, key, child)        # frozen dataclasses refuse setattr
    return made


def step(branch, key):
    """How the child under that key is written in Python."""
    if type(branch.rest) is Aux:
        return f"[{key}]"
    return f".{key}" if branch.keys is getattr(branch.type, "_fields", None) or not issubclass(
        branch.type, (tuple, list, dict)) else f"[{key!r}]"


# ---- all levels -----------------------------------------------------------------------------

def _structure(tree, leaves, apart=False):
    branch = open_branch(tree)
    if branch is None:
        leaves.append(tree)
        return LEAF
    kind, keys, children, rest = branch
    return Branch(kind, keys, tuple([
        Constant(child) if apart and is_constant(child) else _structure(child, leaves, apart)
        for child in children]), rest)


def _count(structure):
    if type(structure) is Constant:
        return 0
    return 1 if structure == LEAF else sum(map(_count, structure.children))


def _tree(structure, leaves):
    if structure == LEAF:
        return next(leaves)
    if type(structure) is Constant:
        return structure.value
    return close_branch(structure, [_tree(child, leaves) for child in structure.children])


def _matching(structure, tree, path):
    """Yield the leaves of the tree in the order of the structure, or say where they part."""
    if type(structure) is Constant:
        if tree is not None and not is_constant(tree):
            raise ValueError(f"the trees differ{path and f' at {path}'}: expected None, since "
                             f"there is no number, got a {type(tree).__name__}")
        return
    branch = open_branch(tree)
    if structure == LEAF and branch is None:
        yield tree
        return
    if structure == LEAF or branch is None or not same_branch(structure, branch):
        wanted = "a leaf" if structure == LEAF else _description(structure)
        found = f"a leaf ({type(tree).__name__})" if branch is None else _description(branch)
        raise ValueError(
            f"the trees differ{path and f' at {path}'}: expected {wanted}, got {found}")
    children = dict(zip(branch.keys, branch.children))
    for key, child in zip(structure.keys, structure.children):
        yield from _matching(child, children[key], path + step(branch, key))


def same_branch(one, other):
    """Whether two branches are of one type and have the same keys, in any order."""
    return one.type is other.type and (
        one.keys == other.keys or set(one.keys) == set(other.keys)) and (
        type(one.rest) is not Aux or one.rest == other.rest)


def _description(branch):
    kind, keys = branch.type, branch.keys
    if kind is type(None):
        return "None"
    article = "an" if kind.__name__[0] in "AEIOUaeiou" else "a"
    if issubclass(kind, dict):
        return f"{article} {kind.__name__} with the keys {list(keys)}"
    return f"{article} {kind.__name__} of {len(keys)}"


def shown(x):
    """What was given, for messages, short: CPython 3.12 dies of the repr of a dict some thousand
    levels deep where the C stack is small."""
    return _SHORT.repr(x)


_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 100
