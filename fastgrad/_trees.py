"""Trees of tuples, lists, dicts, namedtuples and dataclasses, with anything else as leaves.

None is a tree without leaves. Dicts keep their own order, and dicts that hold the same keys in
another order are matched by key. A tree is taken apart into its leaves and a structure, which
compares with ==, and put together again without running `__init__` or `__post_init__`: leaves may
be of another kind than those the class was written for.
"""

import dataclasses
from collections import namedtuple

__all__ = ["flatten", "flatten_like", "leaves_with_paths", "tree_map", "unflatten"]

# A structure is one of these two.
Branch = namedtuple("Branch", "type keys children")
LEAF = "*"


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


def leaves_with_paths(tree):
    """Pairs of a path such as ``[0]['w'].bias`` and the leaf that is found there."""
    opened = _open(tree)
    if opened is None:
        return [("", tree)]
    return [(_step(tree, key) + path, leaf)
            for key, child in zip(*opened) for path, leaf in leaves_with_paths(child)]


# ---- one level of a tree --------------------------------------------------------------------

def _open(tree):
    """The keys and the children of a branch; None if it is a leaf."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return range(len(tree)), tree
    if kind is dict:
        return tree.keys(), tree.values()
    if tree is None:
        return (), ()
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return kind._fields, tree
    if hasattr(kind, "__dataclass_fields__"):
        # A field with init=False may not have been set.
        names = [field.name for field in dataclasses.fields(tree) if hasattr(tree, field.name)]
        return names, [getattr(tree, name) for name in names]
    return None


def _close(kind, keys, children):
    """The branch that `_open` would open into these."""
    if kind is tuple or kind is list:
        return kind(children)
    if kind is dict:
        return dict(zip(keys, children))
    if kind is type(None):
        return None
    if issubclass(kind, tuple):
        return kind._make(children)
    made = object.__new__(kind)
    for name, child in zip(keys, children):
        object.__setattr__(made, name, child)       # frozen dataclasses refuse setattr
    return made


def _step(branch, key):
    """How the child under that key is written in Python."""
    return f"[{key!r}]" if type(branch) in (tuple, list, dict) else f".{key}"


# ---- all levels -----------------------------------------------------------------------------

def _structure(tree, leaves):
    opened = _open(tree)
    if opened is None:
        leaves.append(tree)
        return LEAF
    keys, children = opened
    return Branch(type(tree), tuple(keys), tuple([_structure(child, leaves) for child in children]))


def _count(structure):
    return 1 if structure == LEAF else sum(map(_count, structure.children))


def _tree(structure, leaves):
    if structure == LEAF:
        return next(leaves)
    kind, keys, children = structure
    return _close(kind, keys, [_tree(child, leaves) for child in children])


def _matching(structure, tree, path):
    """Yield the leaves of the tree in the order of the structure, or say where they part."""
    opened = _open(tree)
    if structure == LEAF and opened is None:
        yield tree
        return
    if (structure == LEAF or opened is None or structure.type is not type(tree)
            or set(structure.keys) != set(opened[0])):
        wanted = "a leaf" if structure == LEAF else _description(structure.type, structure.keys)
        found = f"a leaf ({type(tree).__name__})" if opened is None else _description(
            type(tree), opened[0])
        raise ValueError(
            f"the trees differ{path and f' at {path}'}: expected {wanted}, got {found}")
    children = dict(zip(*opened))
    for key, child in zip(structure.keys, structure.children):
        yield from _matching(child, children[key], path + _step(tree, key))


def _description(kind, keys):
    if kind is type(None):
        return "None"
    if kind is dict:
        return f"a dict with the keys {list(keys)}"
    return f"a {kind.__name__} of {len(keys)}"
