"""Uses of a value that a transformation has to refuse, and arguments that are equal but differ."""

import copy
import math
import pickle
import warnings

import numpy as np
import scipy.optimize
import scipy.special
from worlds import written


@written()
def float_of_value():
    def f(s):
        return float(s) * 2

    yield f


@written()
def math_sin():
    def f(s):
        return math.sin(s) + s

    yield f


@written()
def numpy_of_tensor():
    def f(x):
        y = np.asarray(x * 2, dtype=float)
        return np.sum(y)

    yield f


@written()
def tolist_of_value():
    def f(x):
        first, second, _ = (x * 2).tolist()
        return first * second

    yield f


@written()
def hash_of_value():
    def f(s):
        return s * (hash(s * 1.0) % 7)

    yield f


@written()
def key_of_dict():
    def f(s):
        seen = {s: 1.0}
        return s + seen[s] + len({s, s * 2})

    yield f


@written()
def format_value():
    def f(s):
        return len(f"{s:.3f}") * s

    yield f


@written()
def parse_text():
    def f(s):
        return float(f"{s:.3f}") * 2

    yield f


@written()
def pickle_value():
    def f(x):
        return np.sum(pickle.loads(pickle.dumps(x)) * 2)

    yield f


@written()
def copy_value():
    def f(x):
        y = copy.deepcopy({"x": x})["x"]
        y[0] = 5.0
        return np.sum(copy.copy(x) * y)

    yield f


@written()
def add_into_array():
    total = np.zeros(3)

    def f(x):
        np.add(total, x, out=total)
        return np.sum(total)

    yield f, total


@written()
def out_into_array():
    def f(x):
        a = np.zeros(3)
        np.add(x, 1.0, out=a)
        return np.sum(a * a)

    yield f


@written()
def entry_into_array():
    def f(x):
        a = np.zeros(3)
        a[0] = x[0] * 2
        a[1:] = x[1:]
        return np.sum(a * a)

    yield f


@written()
def array_of_values():
    def f(x):
        pair = np.array([x[0] * 2, x[1]])
        return np.sum(pair ** 2)

    yield f


@written()
def matrix_of_values():
    def f(x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(np.asarray(np.matrix(x) * np.matrix(x).T)[0, 0])

    yield f


@written()
def scipy_function():
    def f(r):
        return scipy.optimize.brentq(lambda x: x * x - r, 0.0, 10.0)

    yield f


@written()
def scipy_special():
    def f(x):
        return np.sum(scipy.special.erf(x)) + scipy.special.gamma(2.5)

    yield f


@written()
def numpy_without_rule():
    def f(u):
        return np.sum(np.unwrap(u * 4)) + np.sum(u)

    yield f


@written()
def memory_of_value():
    def f(x):
        return memoryview(x).nbytes * np.sum(x)

    yield f


@written()
def round_builtin():
    def f(s):
        return round(s, 1) * 2

    yield f


@written()
def abs_pow_builtin():
    def f(s):
        return abs(s) + pow(abs(s), 1.5) + divmod(s, 0.5)[1]

    yield f


@written(flag=lambda k: (True, 1, 1.0, True, 1, 1.0)[k])
def static_true_and_one():
    def f(x, flag):
        return np.sum(x) * (10.0 if flag is True else 1.0)

    yield f


@written(kinds=lambda k: (frozenset([True]), frozenset([1]), frozenset([1.0]))[k % 3])
def static_frozenset():
    def f(x, kinds):
        return np.sum(x) * (10.0 if True in [kind for kind in kinds if kind is True] else 1.0)

    yield f


@written(part=lambda k: (slice(1, 2), slice(True, 2))[k % 2])
def static_slice():
    def f(x, part):
        return np.sum(x) * (10.0 if part.start is True else 1.0)

    yield f


@written()
def returns_closure():
    def f(x):
        scale = np.sum(x)
        return lambda y: y * scale

    def called(x):
        return f(x)(2.0)

    yield called


@written()
def returns_generator():
    def f(x):
        return (value * 2 for value in x)

    yield f


@written()
def type_of_value():
    def f(s):
        return s * 2 if type(s) is float else s * 3

    yield f


@written()
def id_of_value():
    last = []

    def f(x):
        same = bool(last) and last[0] is x
        last[:] = [x]
        return np.sum(x) * (2.0 if same else 1.0)

    yield f


@written()
def string_key_of_value():
    table = {"0.7": 1.0, "2.4": 2.0}

    def f(s):
        return table.get(str(s), 0.0) * s

    yield f


@written()
def sort_list_of_values():
    def f(x):
        low, middle, high = sorted(x.tolist())
        return low + 2 * middle + 4 * high

    yield f
