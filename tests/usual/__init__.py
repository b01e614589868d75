"""Functions of the daily kind, one theme a file: each has the shape of a public example (in
brackets), written as its users write it, over data that are drawn anew for every call.

    @usual(w=3, rate=0.5)
    def ridge(w, rate):
        "Least squares with a penalty [textbooks: ridge regression]."
        return np.sum((X @ w - y) ** 2) + rate * np.sum(w * w)

says what the arguments are: a length or a shape for normal numbers, a float for a number about it,
`positive`, `between`, `whole`, `labels`, `mask` and `static` for others, lists and dicts of these.
`test_usual.py` runs each plain, compiled, differentiated and mapped.
"""

import importlib
import inspect

import numpy as np

USUAL = {}                              # name -> (function, {argument: maker})
THEMES = ("fitting likelihoods regression networks sequences kernels filters mechanics equations "
          "optimisers geometry signals images finance chemistry populations matrices tables "
          "quadrature control").split()


def positive(*shape):
    return lambda rng: rng.uniform(0.5, 2.0, size=shape)


def between(low, high, *shape):
    return lambda rng: rng.uniform(low, high, size=shape) if shape else rng.uniform(low, high)


def labels(count, kinds):
    return lambda rng: rng.integers(kinds, size=count)


def mask(*shape):
    return lambda rng: rng.uniform(size=shape) < 0.6


def whole(*values):
    return lambda rng: int(rng.choice(values))


def static(value):
    return lambda rng: value


def maker(said):
    """What draws an argument as it was said: see the head of the file."""
    if callable(said):
        return said
    if isinstance(said, float):
        return lambda rng: said + float(rng.uniform(-0.2, 0.2))
    if isinstance(said, dict):
        made = {key: maker(value) for key, value in said.items()}
        return lambda rng: {key: draw(rng) for key, draw in made.items()}
    if isinstance(said, list):
        made = [maker(value) for value in said]
        return lambda rng: [draw(rng) for draw in made]
    shape = said if isinstance(said, tuple) else (said,)
    return lambda rng: rng.normal(size=shape)


def usual(**arguments):
    def register(f):
        assert f.__name__ not in USUAL, f.__name__
        assert list(arguments) == list(inspect.signature(f).parameters)[:len(arguments)], f.__name__
        USUAL[f.__name__] = f, {name: maker(said) for name, said in arguments.items()}
        return f
    return register


def draw(name, seed):
    """The arguments of a function for a call."""
    rng = np.random.default_rng(seed)
    return [make(rng) for make in USUAL[name][1].values()]


def load_all():
    for theme in THEMES:
        importlib.import_module(f"{__name__}.{theme}")
    return USUAL
