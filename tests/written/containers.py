"""Lists, dicts, dataclasses and other containers: reached, given, returned."""

import bisect
import collections
import dataclasses
import fractions
import types

import numpy as np
from worlds import written


@written()
def list_of_arrays():
    parts = [np.ones(3), np.arange(3.0)]

    def f(x):
        return sum(np.dot(part, x) for part in parts)

    yield f
    yield
    parts[0] = np.full(3, 2.0)
    yield
    parts[1][0] = 7.0
    yield
    parts.pop()
    yield


@written()
def list_reversed():
    coefficients = [1.0, 2.0, 3.0]

    def f(s):
        return sum(a * s ** k for k, a in enumerate(coefficients))

    yield f
    while True:
        coefficients.reverse()
        yield


@written()
def tuple_returned():
    def f(x):
        return np.sum(x), x * 2, len(x)

    yield f


@written()
def dict_returned():
    def f(x):
        out = {"value": np.sum(x)}
        if x[0] > 2:
            out["large"] = x[0]
        return out

    yield f


@written()
def nested_returned():
    def f(x):
        return {"a": [x + 1, (x[0], None)], "b": ({"c": np.mean(x)},)}

    yield f


@written()
def string_in_result():
    def f(x):
        return np.sum(x), f"{np.sum(x):.2f}"

    yield f


@written()
def dict_of_parameters():
    def f(p):
        return np.sum(np.tanh(p["w"])) * p["b"]

    yield f


@written()
def dict_ordered():
    scales = {"a": 2.0, "b": 3.0}

    def f(s):
        for scale in scales.values():
            s = s * scale + 1
        return s

    yield f
    for _ in range(5):
        scales["a"] = scales.pop("a")
        yield
        scales["b"] = scales.pop("b")
        yield


@written()
def dict_union():
    standard, user = {"rate": 1.0, "power": 2}, {}

    def f(x):
        options = standard | user
        return options["rate"] * np.sum(x ** options["power"])

    yield f
    yield
    user["power"] = 3
    yield
    standard["rate"] = 2.0
    yield
    user.clear()
    yield


@written()
def dict_items_loop():
    terms = {1: 1.0, 2: 0.5}

    def f(s):
        total = 0.0
        for power, weight in terms.items():
            total = total + weight * s ** power
        return total

    yield f
    yield
    terms[2] = 2.0
    yield
    terms[3] = 1.0
    yield
    del terms[1]
    yield


@written()
def dict_view_kept():
    scales = {"a": 1.0}
    values = scales.values()

    def f(x):
        return np.sum(x) * sum(values)

    yield f
    yield
    scales["b"] = 2.0
    yield
    scales["a"] = 5.0
    yield


@written(kinds=lambda k: (frozenset("ab"), frozenset("ba"), frozenset("a"))[k % 3])
def frozenset_argument():
    def f(x, kinds):
        total = 0.0 * x[0]
        if "a" in kinds:
            total = total + np.sum(x)
        if "b" in kinds:
            total = total + np.max(x)
        return total

    yield f


@written()
def deque_window():
    window = collections.deque([1.0, 2.0], maxlen=2)

    def f(x):
        return np.sum(x) * sum(window)

    yield f
    for value in (2.0, 3.0, 3.0, 3.0, 1.0):
        window.append(value)
        yield


Point = collections.namedtuple("Point", "scale shift")


@written()
def named_tuple():
    point = Point(1.0, 0.0)

    def f(x):
        return np.sum(x) * point.scale + point.shift

    yield f
    for shift in (0.0, 1.0, 2.0, 2.0, -1.0):
        point = point._replace(shift=shift)
        yield


@written()
def dataclass_fields():
    @dataclasses.dataclass
    class Options:
        rate: float = 1.0
        power: int = 2

    options = Options()

    def f(x):
        return options.rate * np.sum(x ** options.power)

    yield f
    yield
    options.rate = 2.0
    yield
    options.power = 3
    yield
    options.rate = 5.0
    yield


@dataclasses.dataclass(frozen=True)
class Config:
    width: float
    order: int = 1


@written(config=lambda k: Config((1.0, 1.0, 2.0, 2.0, 1.0, 3.0)[k], 1 + k // 3))
def dataclass_frozen():
    def f(x, config):
        return np.sum(x ** config.order) / config.width

    yield f


@written()
def dataclass_default_factory():
    @dataclasses.dataclass
    class Model:
        weights: list = dataclasses.field(default_factory=lambda: [1.0, 2.0, 3.0])

        def f(self, x):
            return sum(w * v for w, v in zip(self.weights, x))

    model = Model()
    yield model.f
    yield
    model.weights[0] = 4.0
    yield
    model.weights.pop()
    yield


@written()
def dataclass_asdict():
    config = dataclasses.make_dataclass("C", [("a", float), ("b", float)])(1.0, 2.0)

    def f(x):
        return np.sum(x) * sum(dataclasses.asdict(config).values())

    yield f
    for config.b in (2.0, 3.0, 4.0, 4.0, 0.5):
        yield


@written()
def simple_namespace():
    state = types.SimpleNamespace(inner=types.SimpleNamespace(scale=1.0), n=3)

    def f(x):
        return np.sum(x) * state.inner.scale + state.n

    yield f
    for state.inner.scale in (1.0, 2.0, 3.0, 3.0, 0.5):
        yield


@written()
def user_dict():
    class Options(collections.UserDict):
        pass

    options = Options(rate=1.0)

    def f(x):
        return np.sum(x) * options["rate"]

    yield f
    for value in (1.0, 2.0, 3.0, 3.0, 0.5):
        options["rate"] = value
        yield


@written()
def bisect_table():
    edges = [0.0, 1.0]

    def f(x):
        return np.sum(x) * bisect.bisect(edges, 0.75)

    yield f
    for value in (2.0, 0.5, 0.6, 3.0, 0.7):
        bisect.insort(edges, value)
        yield


@written()
def array_of_rows():
    def f(x, y):
        rows = [x, y, x * y]
        return np.stack(rows).sum(axis=0)

    yield f


@written()
def star_unpacking():
    def f(x):
        first, *rest = x
        return first * sum(rest)

    yield f


@written()
def keyword_arguments():
    options = {"scale": 1.0}

    def helper(x, scale=0.0, shift=0.0):
        return np.sum(x * scale) + shift

    def f(x):
        return helper(x, **options)

    yield f
    yield
    options["shift"] = 1.0
    yield
    options["scale"] = 3.0
    yield
    del options["shift"]
    yield


@written()
def sum_of_list():
    def f(pair):
        return sum(pair[0]) + pair[1] * len(pair)

    yield f


@written()
def sorted_entries():
    def f(x):
        ordered = sorted(x)
        return ordered[0] + 2 * ordered[1] + 4 * ordered[2]

    yield f


@written()
def list_as_stack():
    def f(x):
        stack = [abs(x[0])]
        while stack:
            top = stack.pop()
            if len(stack) == 0 and top < 4:
                stack.append(top * 2 + 1)
            else:
                return top * x[1]
        return x[0]

    yield f


@written()
def tree_of_weights():
    tree = {"a": np.ones(3), "b": [np.arange(3.0), {"c": 2.0}]}

    def total(node, x):
        if isinstance(node, dict):
            return sum(total(child, x) for child in node.values())
        if isinstance(node, list):
            return sum(total(child, x) for child in node)
        return np.sum(node * x)

    def f(x):
        return total(tree, x)

    yield f
    yield
    tree["b"][1]["c"] = 5.0
    yield
    tree["b"].append(1.0)
    yield
    tree["a"][0] = 0.0
    yield


@written(flat=lambda k: np.linspace(0.1 * k, 1.0, 9))
def parameters_flattened():
    shapes = [(2, 3), (3,)]

    def f(flat):
        parts, start = [], 0
        for shape in shapes:
            size = int(np.prod(shape))
            parts.append(flat[start:start + size].reshape(shape))
            start += size
        return np.sum(np.tanh(parts[0] @ parts[1]))

    yield f


@written(state=lambda k: {"x": np.array([0.1 * k, 1.0]), "u": 0.5 - k})
def structure_of_symbols():
    names = ["x", "u"]

    def f(state):
        return np.concatenate([np.atleast_1d(state[name]) ** 2 for name in names])

    yield f
    yield
    names.reverse()
    yield


@written()
def fraction_static():
    share = fractions.Fraction(1, 3)

    def f(x):
        return np.sum(x) * float(share)

    yield f
    for share in (fractions.Fraction(1, 3), fractions.Fraction(2, 3), fractions.Fraction(1, 7)):
        yield


@written()
def slice_object():
    part = slice(0, 2)

    def f(x):
        return np.sum(x[part])

    yield f
    for part in (slice(0, 2), slice(1, 3), slice(None, None, 2), slice(0, 2)):
        yield
