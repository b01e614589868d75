"""Tables, records and settings [pandas' and JAX's examples; textbooks]."""

import collections
import dataclasses
import functools
import itertools
import types

import numpy as np

import fastgrad.numpy as fnp

from . import labels, positive, static, usual

SETTINGS = {"rate": 0.1, "power": 2, "kind": "square", "scales": [1.0, 2.0, 3.0]}
CONSTANTS = types.SimpleNamespace(boltzmann=1.38, avogadro=6.02)
Point = collections.namedtuple("Point", "x y")
table = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
prices = {"apple": 1.2, "pear": 0.8, "plum": 2.0}


@dataclasses.dataclass
class Config:
    width: float = 0.5
    layers: tuple = (1.0, 2.0)
    name: str = "tanh"


CONFIG = Config()


class Scaler:
    def __init__(self, data):
        self.mean, self.std = data.mean(axis=0), data.std(axis=0)

    def __call__(self, x):
        return (x - self.mean) / self.std


SCALER = Scaler(table)


@functools.lru_cache
def nodes(n):
    return np.cos(np.pi * (np.arange(n) + 0.5) / n)


@usual(x=3)
def settings_in_a_dict(x):
    """Numbers and words from a dict [users: settings]."""
    y = x * SETTINGS["rate"]
    if SETTINGS["kind"] == "square":
        y = y ** SETTINGS["power"]
    return np.sum(y * SETTINGS["scales"])


@usual(x=3)
def settings_in_a_class(x):
    """Fields of a dataclass [users: settings]."""
    f = getattr(np, CONFIG.name)
    for scale in CONFIG.layers:
        x = f(x * scale + CONFIG.width)
    return x


@usual(t=2.0)
def constants_in_a_namespace(t):
    """Constants of nature [users: settings]."""
    return np.exp(-1 / (CONSTANTS.boltzmann * t)) * CONSTANTS.avogadro


@usual(x=3)
def scaled_by_object(x):
    """An object that was fitted before [scikit-learn: StandardScaler]."""
    return np.sum(SCALER(x) ** 2)


@usual(x=3)
def chebyshev_nodes(x):
    """Nodes that are cached [SciPy: quadrature]."""
    t = nodes(8)
    return np.mean(np.sqrt(np.abs(x[0] * t ** 2 + x[1] * t + x[2]) + 1))


@usual(basket={"apple": 1.0, "pear": 2.0, "plum": 0.5})
def basket_price(basket):
    """Prices by names [users: dicts]."""
    return sum(prices[name] * amount for name, amount in basket.items())


@usual(p=3)
def point_of_names(p):
    """A named tuple made inside [users: tuples]."""
    q = Point(p[0] * 2, p[1] + p[2])
    return q.x ** 2 + q.y ** 2


@usual(x=4)
def result_with_names(x):
    """A dict of results [JAX: aux]."""
    mean = np.mean(x)
    return {"mean": mean, "deviation": np.sqrt(np.mean((x - mean) ** 2)), "range": (x[0], x[-1])}


@usual(x=4)
def pairs_by_itertools(x):
    """All pairs [Python: itertools]."""
    return sum(x[i] * x[j] for i, j in itertools.combinations(range(len(x)), 2))


@usual(x=4)
def folded(x):
    """A product by reduce [Python: functools]."""
    return functools.reduce(lambda a, b: a * b + 1, x, 1.0)


@usual(x=3, i=labels(4, 3))
def rows_by_index(x, i):
    """Rows of a constant table that are given [users: lookups]."""
    return np.sum(table[i] @ x)


@usual(x=5)
def bins_by_digitize(x):
    """Weights of the bins in which values fall [NumPy: digitize]."""
    weights = np.array([0.1, 0.5, 1.0, 2.0])
    return np.sum(weights[np.digitize(x, [-1.0, 0.0, 1.0])] * x ** 2)


@usual(x=5)
def quantiles_by_sorting(x):
    """A median of five, and a mean that is trimmed [SciPy: trim_mean]."""
    s = np.sort(x)
    return s[2] + s[1:-1].mean()


@usual(x=5)
def quantile_of_numpy(x):
    """NumPy's median and quantile [NumPy: quantile]."""
    return np.median(x) + np.quantile(x, 0.3)


@usual(x=6, n=static(3))
def split_in_parts(x, n):
    """Parts of equal size [NumPy: split]."""
    return fnp.stack([part.sum() ** 2 for part in np.split(x, n)])


@usual(x=5)
def ranked(x):
    """Weights by ranks [textbooks: statistics]."""
    ranks = np.argsort(np.argsort(x))
    return np.dot(ranks + 1, x)


@usual(x=positive(4))
def told_and_returned(x):
    """A value that is printed on the way [users: debugging]."""
    total = np.sum(np.log(x))
    print("total", total)
    return total ** 2


@usual(x=positive(4))
def asserted(x):
    """Checks on the way [users: debugging]."""
    assert x.ndim == 1 and len(x) == 4, "a vector of four"
    assert np.all(x > 0)
    return np.sum(np.sqrt(x))


@usual(x=4)
def checked_finite(x):
    """A guard against what is not finite [users: debugging]."""
    y = np.exp(x)
    if not np.all(np.isfinite(y)):
        raise FloatingPointError("not finite")
    return y / y.sum()


@usual(x=4, verbose=static(False))
def with_options(x, verbose):
    """Options that steer [users: options]."""
    if verbose:
        print(x)
    return {True: np.max, False: np.min}[verbose](x) * 2
