"""Methods, attributes, and what a class may do when it is asked."""

import enum
import weakref

import numpy as np
from worlds import written


@written()
def method_counts():
    class Model:
        calls = 0

        def f(self, x):
            self.calls += 1
            return np.sum(x) + self.calls

    model = Model()
    yield model.f, model


@written()
def method_history():
    class Model:
        def __init__(self):
            self.losses = []

        def loss(self, x):
            value = np.sum((x - 1) ** 2)
            self.losses.append(value)
            return value

    model = Model()
    yield model.loss, model


@written()
def method_momentum():
    class Momentum:
        def __init__(self):
            self.m = np.zeros(3)

        def step(self, x):
            self.m = 0.9 * self.m + x
            return x - 0.1 * self.m

    optimiser = Momentum()
    yield optimiser.step, optimiser


@written()
def method_lazy_attribute():
    class Model:
        def __init__(self):
            self.basis = None

        def f(self, x):
            if self.basis is None:
                self.basis = np.linspace(0.0, 1.0, len(x))
            return np.sum(self.basis * x)

    model = Model()
    yield model.f, model
    yield
    yield
    model.basis = None
    yield


@written()
def method_property():
    class Box:
        width, height = 2.0, 3.0

        @property
        def area(self):
            return self.width * self.height

    box = Box()

    def f(x):
        return np.sum(x) * box.area

    yield f
    for box.width in (2.0, 3.0, 4.0, 1.0, 2.0):
        yield


@written()
def method_calls_method():
    class Model:
        def inner(self, x):
            return x * 2

        def f(self, x):
            return np.sum(self.inner(x))

    model = Model()
    yield model.f
    yield
    model.inner = lambda x: x * 3
    yield
    yield
    del model.inner
    yield


@written()
def class_attribute_set():
    class Model:
        scale = 1.0

        def f(self, x):
            return np.sum(x * self.scale)

    model = Model()
    yield model.f
    for Model.scale in (1.0, 2.0, 3.0, 3.0, 0.5):
        yield


@written()
def class_attribute_array():
    class Model:
        weights = np.ones(3)

        def f(self, x):
            return np.sum(x * self.weights) + self.weights.max()

    model = Model()
    yield model.f
    for k in range(5):
        Model.weights[k % 3] *= 2
        yield


@written()
def subclass_patched():
    class Base:
        scale = 1.0

    class Model(Base):
        pass

    model = Model()

    def f(x):
        return np.sum(x * model.scale)

    yield f
    yield
    Model.scale = 5.0
    yield
    yield
    del Model.scale
    yield


@written()
def metaclass_attribute():
    class Meta(type):
        scale = 1.0

    class Model(metaclass=Meta):
        pass

    def f(x):
        return np.sum(x * Model.scale)

    yield f
    for Meta.scale in (1.0, 2.0, 3.0, 3.0):
        yield
    Model.scale = 7.0
    yield


@written()
def class_changed():
    class Slow:
        def scale(self):
            return 1.0

    class Fast:
        def scale(self):
            return 2.0

    car = Slow()

    def f(x):
        return np.sum(x * car.scale())

    yield f
    for kind in (Slow, Fast, Fast, Slow, Fast):
        car.__class__ = kind
        yield


@written()
def getattr_hook():
    class Settings:
        def __init__(self):
            self.table = {"rate": 1.0}

        def __getattr__(self, name):
            return self.table[name]

    settings = Settings()

    def f(x):
        return np.sum(x * settings.rate)

    yield f
    for value in (1.0, 2.0, 3.0, 3.0, 0.5):
        settings.table["rate"] = value
        yield


@written()
def callable_object():
    class Spring:
        def __init__(self, stiffness):
            self.stiffness = stiffness

        def __call__(self, x):
            return 0.5 * self.stiffness * np.sum(x ** 2)

    spring = Spring(1.0)
    yield spring
    for spring.stiffness in (1.0, 2.0, 4.0, 4.0, 0.5):
        yield


@written()
def descriptor():
    class Doubled:
        factor = 2.0

        def __get__(self, instance, owner):
            return self.factor * instance.raw

    class Model:
        value, raw = Doubled(), 1.0

    model = Model()

    def f(x):
        return np.sum(x) * model.value

    yield f
    yield
    model.raw = 3.0
    yield
    Doubled.factor = 5.0
    yield
    model.raw = 1.0
    yield


@written()
def operator_overload():
    class Gain:
        level = 1.0

        def __rmul__(self, other):
            return other * self.level

    gain = Gain()

    def f(s):
        return s * gain + 1

    yield f
    for gain.level in (1.0, 2.0, 3.0, 3.0, 0.5):
        yield


@written()
def container_class():
    class Table:
        def __init__(self):
            self.rows = [1.0, 2.0]

        def __getitem__(self, k):
            return self.rows[k]

        def __len__(self):
            return len(self.rows)

    table = Table()

    def f(x):
        return np.sum(x) * sum(table[k] for k in range(len(table)))

    yield f
    yield
    table.rows[1] = 5.0
    yield
    table.rows.append(1.0)
    yield


@written()
def bool_of_object():
    class Switch:
        on = True

        def __bool__(self):
            return self.on

    switch = Switch()

    def f(x):
        return np.sum(x) if switch else np.max(x)

    yield f
    for switch.on in (True, False, False, True, False):
        yield


class Coarse:
    """Equal to all that has the same name."""

    def __init__(self, name, scale):
        self.name, self.scale = name, scale

    def __eq__(self, other):
        return self.name == other.name

    def __hash__(self):
        return hash(self.name)


@written(unit=lambda k: Coarse("m", (1.0, 1.0, 1000.0, 0.001, 1.0, 2.0)[k]))
def equal_but_different():
    def f(x, unit):
        return np.sum(x) * unit.scale

    yield f


@written()
def class_in_function():
    def f(x):
        class Sum:
            def __init__(self):
                self.total = 0.0

            def add(self, value):
                self.total = self.total + value

        running = Sum()
        for value in x:
            running.add(value * value)
        return running.total

    yield f


class Accumulator:
    def __init__(self, start):
        self.value, self.parts = start, []

    def add(self, value):
        self.value = self.value + value
        self.parts.append(value)


@written()
def object_in_function():
    def f(x):
        total = Accumulator(0.0)
        total.add(np.sum(x))
        total.add(np.max(x))
        return total.value * len(total.parts)

    yield f


@written()
def linear_layer():
    class Linear:
        def __init__(self):
            self.w, self.b = np.eye(3), np.zeros(3)

        def __call__(self, x):
            return np.tanh(self.w @ x + self.b)

    layer = Linear()
    yield layer
    yield
    layer.b = np.ones(3)
    yield
    layer.w = 2 * np.eye(3)
    yield
    layer.w[0, 1] = 0.5
    yield


@written()
def stack_of_layers():
    class Scale:
        def __init__(self, a):
            self.a = a

        def __call__(self, x):
            return np.tanh(self.a * x)

    layers = [Scale(0.5), Scale(2.0)]

    def f(x):
        for layer in layers:
            x = layer(x)
        return np.sum(x)

    yield f
    yield
    layers[0].a = 1.5
    yield
    layers.append(Scale(-1.0))
    yield
    layers.reverse()
    yield


@written()
def running_statistics():
    class Norm:
        def __init__(self):
            self.mean, self.var, self.training = np.zeros(3), np.ones(3), True

        def __call__(self, X):
            if self.training:
                self.mean = 0.9 * self.mean + 0.1 * X.mean(axis=0)
                self.var = 0.9 * self.var + 0.1 * X.var(axis=0)
            return np.sum((X - self.mean) / np.sqrt(self.var + 1e-5))

    norm = Norm()
    yield norm, norm
    yield
    yield
    norm.training = False
    yield


@written()
def model_with_mode():
    class Model:
        training = True

        def train(self, mode=True):
            self.training = mode

        def forward(self, x):
            return np.sum(x * 0.5) if self.training else np.sum(x)

    model = Model()
    yield model.forward
    for mode in (True, False, False, True, False):
        model.train(mode)
        yield


@written()
def weak_reference():
    class Owner:
        scale = 2.0

    owner = Owner()
    reference = weakref.ref(owner)

    def f(x):
        found = reference()
        return np.sum(x) if found is None else np.sum(x) * found.scale

    yield f
    yield
    owner.scale = 4.0
    yield
    yield
    del owner
    yield


@written()
def method_of_array():
    data = np.array([1.0, 2.0, 3.0])
    total = data.sum

    def f(x):
        return np.sum(x) * total()

    yield f
    for k in range(5):
        data[k % 3] += 2.0
        yield


@written()
def enum_member():
    class Norm(enum.Enum):
        ONE, TWO = 1, 2

    kind = Norm.ONE

    def f(x):
        return np.sum(np.abs(x)) if kind is Norm.ONE else np.sqrt(np.sum(x * x))

    yield f
    for kind in (Norm.ONE, Norm.TWO, Norm.TWO, Norm.ONE, Norm.TWO):
        yield
