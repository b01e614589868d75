"""Lookups that no name in the code tells, or that find what no name is bound to: names made at run
time, attributes of functions, special methods, what is asked of classes and arrays beside their
contents. Each function is compiled and runs beside the plain one, in a world of its own, while what
it finds changes."""

import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp


def made(setup, body):
    """The function, and the names it sees."""
    space = {"np": np, "fg": fg, "fnp": fnp, "__name__": "a_users_module"}
    exec(setup, space)
    return eval(f"lambda x: {body}", space), space


def told(setup, body, changes, transform=lambda f: f):
    """What a function gives while its world changes, and the function."""
    f, space = made(setup, body)
    f, found = transform(f), []
    for change in [None, None, *changes, None]:
        if change is not None:
            exec(change, space)
        for x in (2.0, 3.0):
            try:
                found.append(f(x))
            except (AttributeError, TypeError) as error:
                found.append(type(error).__name__)
    return found, f


def cases(groups):
    return [pytest.param(setup, body, changes, *rest, id=f"{name}: {body}")
            for name, (setup, changes, *rest, bodies) in groups.items() for body in bodies]


VIEW = """
import operator, functools
class View:
    K = 2
    def __init__(self):
        self.kind, self.names, self.own = "gain", ["K"], 2
    def do_gain(self, x):
        return x * N[0]
    @property
    def p(self):
        return N[0]
    def run(self, x):
        return getattr(self, "do_" + self.kind)(x)
    @staticmethod
    def static():
        return N[0]
class Derived(View):
    def up(self):
        return getattr(super(), "do_" + self.kind)
    def do_gain(self, x):
        return x
N, view, derived, names = [2], View(), Derived(), ["K"]
views, find, finds = {"v": view}, getattr, [getattr]
attribute = operator.attrgetter("K")
method = operator.methodcaller("__getattribute__", "K")
gain = operator.methodcaller("do_gain", 3.0)
bound = functools.partial(getattr, view)
own = view.__getattribute__
class Pattern:
    __match_args__ = ("a",)
    a, b = 2, 2
pattern = Pattern()
def matched(x):
    match pattern:
        case Pattern(q):
            return x * q
class Slots:
    __slots__ = ("K",)
slots = Slots(); slots.K = 2
"""

FUNCTIONS = """
import functools, operator, types
def g(x):
    return x
g.w = 2; g.table = {"w": 2}
class Holder: pass
holder = Holder(); holder.g = g
fs, table = [g], {"a": g}
class C:
    def m(self):
        return 1
    @staticmethod
    def s():
        return 1
    @property
    def q(self):
        return 1
    @classmethod
    def k(cls):
        return 1
    def run(self, x):
        return x * self.m.w
C.m.w = C.s.w = C.q.fget.w = C.__dict__["k"].__func__.w = 2
c = C()
part = functools.partial(g); part.w = 2; parts = [part]
cached = functools.lru_cache(lambda v: v); cached.w = 2; caches = [cached]
chosen = functools.singledispatch(lambda v: v); chosen.w = 2; choices = [chosen]
@functools.wraps(g)
def around(x):
    return x
arounds = [around]
def given(x, q=g):
    return x * q.w
def passed(q, x):
    return x * q.w
class Called:
    def __init__(self):
        self.g = g
    def __call__(self, x):
        return x * self.g.w
called = Called()
program = fg.compile(lambda x: x); program.w = 2; programs = [program]
slope = fg.grad(lambda x: x * x); slope.w = 2; slopes = [slope]
rule = fg.custom_vjp(lambda x: x); rule.w = 2; rules = [rule]
module = types.ModuleType("module"); module.__file__ = "module.py"; module.g = g
getter = operator.attrgetter("w")
def gained(f):
    @functools.wraps(f)
    def inner(x):
        return f(x) * inner.w
    inner.w = 2
    return inner
layer = gained(g); layers = [layer]
def setter(name):
    return lambda: None
"""

COPIED = """
import copy, copyreg, types
N = [2]
class A:
    def __copy__(self):
        return N[0]
    def __deepcopy__(self, memo):
        return N[0]
class B:
    def __reduce__(self):
        return float, (N[0],)
class C:
    k = 2
    def __getstate__(self):
        return {"k": N[0]}
class D:
    def __setstate__(self, state):
        self.k = N[0]
class E(tuple):
    def __getnewargs__(self):
        return (N[0],),
class F: pass
copyreg.pickle(F, lambda f: (float, (N[0],)))
a, b, c, d, e, f = A(), B(), C(), D(), E([1]), F()
d.k = 1
"""

SPECIAL = """
import operator, enum
N, table = [2], {"z": 2}
class Item:
    def __class_getitem__(cls, name):
        return N[0]
class Base:
    def __init_subclass__(cls, **named):
        cls.q = N[0]
def subclass(x):
    class Sub(Base): pass
    return x * Sub.q
class Named:
    def __set_name__(self, owner, name):
        owner.q = N[0]
def named(x):
    class Owner:
        d = Named()
    return x * Owner.q
class Entries:
    def __mro_entries__(self, bases):
        return type("Entry", (), {"q": N[0]}),
entries = Entries()
def entered(x):
    class Sub(entries): pass
    return x * Sub.q
class Meta(type):
    @classmethod
    def __prepare__(meta, name, bases, **named):
        return {"q": N[0]}
def prepared(x):
    class Sub(metaclass=Meta): pass
    return x * Sub.q
class Hint:
    def __length_hint__(self):
        return N[0]
    def __bytes__(self):
        return bytes([N[0]])
    def keys(self):
        return ["k"] * N[0]
    def __getitem__(self, key):
        return 1.0
    def write(self, text):
        written[0] = N[0]
hint, written, items = Hint(), [2], [Item]
def printed(x):
    print("", file=hint)
    return x * written[0]
class Letters(enum.Enum):
    A, B, C = 2, 5, 7
    @classmethod
    def _missing_(cls, value):
        return cls(N[0])
letters = [Letters]
class Numbers(enum.Enum):
    def _generate_next_value_(name, start, count, last):
        return N[0]
def numbered(x):
    class E(Numbers):
        A = enum.auto()
    return x * E.A.value
class Waited:
    def __await__(self):
        yield N[0]
waited = Waited()
async def coroutine():
    return await waited
def awaited(x):
    running = coroutine()
    found = running.send(None)
    running.close()
    return x * found
class Bound:
    z = 1
    @property
    def q(self):
        return 1
    @q.setter
    def q(self, value):
        self.z = value * N[0]
    @q.deleter
    def q(self):
        self.z = N[0]
def binding(x):
    b = Bound(); b.q = 1
    return x * b.z
def deleting(x):
    b = Bound(); del b.q
    return x * b.z
data = [np.ones(2)]
class Array:
    @property
    def __array_interface__(self):
        return data[0].__array_interface__
array = Array()
"""

CLASSES = """
import functools, operator
class B:
    v, names = 2, ["K"]
    def m(self):
        return len(type(self).__subclasses__())
    def __index__(self):
        return self.v
class One(B): pass
b, classes = B(), [B]
class Ex(OSError): pass
error = Ex(2, "a")
part = slice(b, None); rest = (part,); numbers = np.arange(5.0)
zero = np.array(2); by_array = slice(zero, None)
def default(x, part=part):
    return x * sum([1.0, 2.0, 3.0, 4.0][part])
partial = functools.partial(lambda k, x: x * k, 2); partials = [partial]
def g(): pass
"""

ARRAYS = """
a = np.arange(4.0).reshape(2, 2); L = [a]; base = np.ones(4); b = base[:2]; other = base[1:]
fields = np.zeros(2, [("a", float)]); kind = fields.dtype
"""

CONSTRUCTED = """
import dataclasses
N = [2]
class Base:
    @classmethod
    def make(cls):
        return cls()
    def again(self):
        return type(self)()
    def other(self):
        kind = self.__class__
        return kind()
class Model(Base):
    def __init__(self, k=1):
        self.k = N[0]
class Made:
    def __new__(cls):
        made = object.__new__(cls)
        made.k = N[0]
        return made
    @classmethod
    def make(cls):
        return cls()
@dataclasses.dataclass
class Data:
    a: int = 1
    def __post_init__(self):
        self.k = N[0]
model, made, data, N[0] = Model(), Made(), Data(), 2
models = [model]
class Bound:
    k = 1
    @property
    def q(self):
        return 1
    @q.setter
    def q(self, value):
        self.k = N[0]
    @q.deleter
    def q(self):
        self.k = N[0]
names = ["q"]
def bound(x, name):
    made = Bound(); setattr(made, name, 1)
    return x * made.k
def bound_by_name(x):
    made = Bound(); setattr(made, "q", 1)
    return x * made.k
def bound_by_object(x):
    made = Bound(); object.__setattr__(made, "q", 1)
    return x * made.k
def deleted(x):
    made = Bound(); delattr(made, "q")
    return x * made.k
class Shown:
    @property
    def k(self):
        return N[0]
shown, texts = Shown(), ["{0.k}"]
"""

INSIDE = """
class Key:
    k = 2
    def __init__(self):
        self.v = 2
def g(): pass
g.v = 2
key = Key()
import types, collections
sets, frozen, deep = {(key,)}, frozenset([key]), {frozenset([key])}
functions, by_function, by_key = {g}, {g: 1}, {(key,): 1}
proxy = types.MappingProxyType({(key,): 1})
ordered = collections.OrderedDict(a=1); ordered.v = 2
counter = collections.Counter(a=1); counter.v = 2; counters = [counter]
"""

REPLAYED = {
    "names": (VIEW, ["N[0] = 5", "N[0] = 7", "View.K = 5", "View.K = 9", "view.own = 3"], [
        "view.run(x)", "x * getattr(view, names[0])", "x * getattr(view, ''.join(['p']))",
        "x * [getattr(view, name) for name in view.names][0]", "derived.up()(x)",
        "x * getattr(views['v'], ''.join(['K']))",
        "operator.methodcaller('do_' + view.kind, x)(view)",
        "x * operator.methodcaller('__getattribute__', 'K')(view)",
        "x * getattr(derived, names[0])",
        "x * operator.attrgetter(*['K', 'p'])(view)[1]", "x * attribute(view)",
        "x * method(view)",
        "x * gain(view)", "x * view.__getattribute__('K')",
        "x * object.__getattribute__(view, 'own')",
        "x * type(view).__mro__[0].__dict__['K']",
        "x * find(view, names[0])", "x * finds[0](view, names[0])",
        "x * list(map(getattr, [view], names))[0]", "x * bound(names[0])", "x * own('K')",
        "x * getattr(view, ''.join(['static']))()",
        "x * getattr(getattr(view, 'do_gain'), 'K', 2)"
        " * getattr(view, names[0])"]),
    "found or not": (VIEW, ["View.zz = 7", "del View.zz", "view.zz = 5", "del view.zz"], [
        "x * getattr(view, ''.join(['zz']), 3)",
        "x * (1 if hasattr(view, ''.join(['zz'])) else 2)"]),
    "match": (VIEW, ["pattern.a = 5", "Pattern.__match_args__ = ('b',)", "Pattern.b = 7"],
              ["matched(x)"]),
    "slots": (VIEW, ["slots.K = 5"], ["x * getattr(slots, names[0])"]),
    "functions": (FUNCTIONS, ["g.w = 5", "g.w = 7", "del g.w", "g.w = 9"], [
        "x * fs[0].w", "x * table['a'].w", "sum([x * f.w for f in fs])", "x * holder.g.w",
        "x * (lambda: g)().w", "x * getattr(fs[0], 'w')", "x * getattr(fs[0], ''.join('w'), 3)",
        "passed(fs[0], x)", "given(x)", "x * part.func.w", "x * vars(g).get('w', 1)",
        "x * fs[0].__dict__.get('w', 1)", "x * vars(fs[0]).get('w', 1)",
        "x * arounds[0].__wrapped__.w",
        "x * (fs[0].w if hasattr(fs[0], 'w') else 3)", "x * next(iter(table.values())).w",
        "fnp.sum(fg.vmap(lambda v: v * fs[0].w)(fnp.ones(2) * x))",
        "x * fg.grad(lambda v: v * fs[0].w)(x)", "x * max(fs, key=lambda f: f.w).w", "called(x)",
        "x * module.g.w", "x * getter(g)", "x * operator.attrgetter('w')(fs[0])"]),
    "in a function": (FUNCTIONS, ["g.table['w'] = 5", "g.table = {'w': 6}"],
                      ["x * holder.g.table['w']"]),
    "methods": (FUNCTIONS, ["C.m.w = 5", "C.m.w = 7"], [
        "x * c.m.w", "x * C.m.w", "x * type(c).m.w", "x * getattr(c, 'm').w",
        "x * c.m.__func__.w",
        "c.run(x)"]),
    "static methods": (FUNCTIONS, ["C.s.w = 5"], ["x * c.s.w", "x * C.s.w", "x * type(c).s.w"]),
    "properties": (FUNCTIONS, ["C.q.fget.w = 5"], ["x * C.q.fget.w"]),
    "class methods": (FUNCTIONS, ["C.__dict__['k'].__func__.w = 5"], ["x * c.k.w", "x * C.k.w"]),
    "partial": (FUNCTIONS, ["part.w = 5", "part.w = 7"], [
        "x * part.w", "x * parts[0].w", "x * vars(part)['w']", "x * part.__dict__['w']"]),
    "cached": (FUNCTIONS, ["cached.w = 5", "cached.w = 7"], [
        "x * cached.w", "x * caches[0].w", "x * vars(caches[0])['w']"]),
    "dispatch": (FUNCTIONS, ["chosen.w = 5", "chosen.w = 7"], ["x * chosen.w",
        "x * choices[0].w"]),
    "of fastgrad": (FUNCTIONS, ["program.w = slope.w = rule.w = 5"], [
        "x * program.w", "x * programs[0].w", "x * slopes[0].w", "x * rules[0].w"]),
    "of itself": (FUNCTIONS, ["layer.w = 5"], ["layers[0](x) * layer(x)"]),
    "texts of functions": (
        FUNCTIONS, ["g.__name__ = 'abc'", "g.__qualname__ = 'abcde'", "g.__doc__ = 'abcdef'"], [
            "x * len(fs[0].__name__)", "x * len(holder.g.__qualname__)",
            "x * len(fs[0].__doc__ or '')",
            "x * len(repr(fs).split(' at ')[0])"]),
    "defaults": (FUNCTIONS, ["g.__kwdefaults__ = {'k': 2}", "g.__annotations__['x'] = 1"],
                 ["x * len(fs[0].__annotations__)"]),
    "copies": (COPIED, ["N[0] = 5", "N[0] = 7"], [
        "x * copy.copy(a)", "x * copy.deepcopy(a)", "x * copy.deepcopy([a])[0]",
        "x * copy.copy(b)",
        "x * copy.deepcopy(b)", "x * copy.copy(c).k", "x * copy.copy(d).k", "x * copy.copy(e)[0]",
        "x * copy.copy(f)"]),
    "special": (SPECIAL, ["N[0] = 5", "N[0] = 7", "data[0][0] = 9"], [
        "x * Item['z']", "x * items[0]['z']", "subclass(x)", "x * type('Sub', (Base,), {}).q",
        "named(x)", "entered(x)", "prepared(x)", "x * operator.length_hint(hint)",
        "x * bytes(hint)[0]", "x * len([*dict(hint)]) + x * len(hint.keys())",
        "x * Letters('q').value", "x * letters[0]('q').value", "numbered(x)", "awaited(x)",
        "binding(x)", "deleting(x)", "x * float(np.asarray(array)[0])"]),
    "slices": (CLASSES, ["b.v = 1", "b.v = 3", "zero[...] = 1"], [
        "x * sum([1.0, 2.0, 3.0, 4.0][part])", "x * sum([1.0, 2.0, 3.0, 4.0][rest[0]])",
        "default(x)",
        "x * float(sum(numbers[part]))", "x * sum([1.0, 2.0, 3.0, 4.0][by_array])"]),
    "subclasses": (CLASSES, ["class Two(B): pass", "class Three(B): pass"], [
        "x * len(B.__subclasses__())", "x * len(classes[0].__subclasses__())", "x * b.m()",
        "x * len(type.__subclasses__(B))"]),
    "names of classes": (CLASSES, ["B.__name__ = 'abc'", "B.__qualname__ = 'abcde'"], [
        "x * len(B.__name__)", "x * len(type(b).__name__)", "x * len(b.__class__.__name__)",
        "x * len(classes[0].__name__)", "x * len(B.__qualname__)", "x * len(f'{B}')",
        "x * len(repr(classes))"]),
    "errors": (CLASSES, ["error.errno = 5", "error.__cause__ = KeyError()"], [
        "x * error.errno"]),
    "parts of partial": (
        CLASSES, ["partial.__setstate__((partial.func, (5,), {}, None))",
                  "partial.__setstate__((lambda k, x: x - k, (5,), {}, None))"],
        ["partial(x)", "partials[0](x)"]),
    "flags": (ARRAYS, ["a.setflags(write=False)", "a.setflags(write=True)",
        "a = np.asfortranarray(a)",
                       "L[0] = a"], [
        "x * (2 if a.flags.writeable else 3)", "np.sum(x * a) * (2 if a.flags.writeable else 3)",
        "x * (2 if L[0].flags['WRITEABLE'] else 3)",
        "np.sum(a * x) * (2 if np.isfortran(a) else 3)",
        "np.sum(a * x) * a.strides[0]", "x * L[0].strides[0]",
        "np.sum(np.ravel(a, order='K') * np.arange(4.0)) * x",
        "np.sum(np.array([float(v) for v in np.nditer(a)]) * np.arange(4.0)) * x"]),
    "memory": (ARRAYS, ["base[3] = 5", "b = np.ones(2)"], [
        "np.sum(b * x) * (2 if np.shares_memory(base, b) else 3)",
        "x * (3 if b.base is None else 2)",
        "np.sum(b * x) * (2 if b.base is None else 3)",
        "x * (1 if b.base is None else b.base[3])"]),
    "fields": (ARRAYS, ["kind.names = ('bbb',)"], [
        "x * len(fields.dtype.names[0])", "x * len(kind.names[0])"]),
    "constructed": (CONSTRUCTED, ["N[0] = 5", "N[0] = 7"], [
        "x * type(model)().k", "x * model.__class__().k", "x * model.make().k",
        "x * model.again().k", "x * model.other().k", "x * models[0].make().k",
        "x * [type(m) for m in models][0]().k", "x * list(map(type, models))[0]().k",
        "x * made.make().k", "x * dataclasses.replace(data, a=3).k"]),
    "bound": (CONSTRUCTED, ["N[0] = 5", "N[0] = 7"], [
        "bound(x, names[0])", "bound_by_name(x)", "bound_by_object(x)", "deleted(x)"]),
    "filled in": (CONSTRUCTED, ["N[0] = 5", "N[0] = 7"], [
        "x * float('{0.k}'.format(shown))", "x * float(texts[0].format(shown))",
        "x * float('{s.k:5d}'.format_map({'s': shown}))"]),
    "in keys": (INSIDE, ["key.v = 5", "g.v = 7", "ordered.v = counter.v = 9"], [
        "x * next(iter(sets))[0].v", "x * next(iter(frozen)).v",
        "x * next(iter(next(iter(deep)))).v",
        "x * next(iter(functions)).v", "x * next(iter(by_function)).v",
        "x * next(iter(by_key))[0].v",
        "x * next(iter(proxy))[0].v", "x * ordered.v", "x * counters[0].v"]),
}

HIDDEN = """
K = 2
def maker():
    k = 2
    def g():
        return k
    def change(value):
        nonlocal k
        k = value
    return g, change
import builtins, functools, datetime
g, change = maker(); fs = [g]
builtins.found_there = 2
cached = functools.lru_cache(lambda v: v); caches = [cached]
class Liar:
    v = 2
    @property
    def __class__(self):
        return int if self.v > 2 else float
liar = Liar()
class Shown:
    v = 2
    @property
    def __dict__(self):
        return {"q": Shown.v}
shown = Shown()
class Error(Exception): pass
error = Error(1)
"""

# The same, with what the reason names.
REFUSED = {
    "globals": (HIDDEN, ["K = 5"], "__globals__", ["x * fs[0].__globals__['K']"]),
    "closure": (HIDDEN, ["change(5)"], "__closure__", ["x * fs[0].__closure__[0].cell_contents"]),
    "builtins": (HIDDEN, ["builtins.found_there = 5"], "__builtins__",
                 ["x * fs[0].__builtins__['found_there']"]),
    "counts": (HIDDEN, ["cached(1)", "cached(2)"], "how often", [
        "x * cached.cache_info().misses", "x * caches[0].cache_info().misses"]),
    "class": (HIDDEN, ["Liar.v = 5"], "Liar", ["x * (2 if isinstance(liar, int) else 3)"]),
    "dictionary": (HIDDEN, ["Shown.v = 5"], "Shown", ["x * vars(shown)['q']"]),
    "written": (SPECIAL, ["N[0] = 5", "N[0] = 7"], "it changes", ["printed(x)"]),
    "classes": (VIEW, ["View.K = 5"], "told at run time", [
        "(lambda q, n: x * getattr(q, n))(View, 'K')"]),
    "traceback": (HIDDEN, ["\ntry: raise error\nexcept Error: pass"], "__traceback__",
                  ["x * (2 if error.__traceback__ is None else 3)"]),
}


@pytest.mark.parametrize("setup, body, changes", cases(REPLAYED))
def test_what_is_found_is_compared(setup, body, changes, capsys):
    plain, _ = told(setup, body, changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, f = told(setup, body, changes, fg.compile)
    assert found == plain
    assert len(f.paths) > 1 and max([path.calls for path in f.paths]) > 1


@pytest.mark.parametrize("setup, body, changes, reason", cases(REFUSED))
def test_what_cannot_be_compared_is_named(setup, body, changes, reason, capsys):
    plain, _ = told(setup, body, changes)
    with pytest.warns(UserWarning, match=reason):
        found, f = told(setup, body, changes, fg.compile)
    assert found == plain


@pytest.mark.sampled(8)
@pytest.mark.parametrize("setup, body, changes", cases(REPLAYED))
def test_the_same_in_gradients(setup, body, changes, capsys):
    plain, _ = told(setup, body, changes, fg.grad)
    found, _ = told(setup, body, changes, lambda f: fg.compile(fg.grad(f)))
    assert found == plain


# ---- and nothing that need not be looked at ---------------------------------------------------

def test_functions_that_are_called_alone_cost_one_comparison():
    def inner(x):
        return x * 2

    def f(x):
        return inner(x) + inner(2 * x)

    from fastgrad.code.watch import Watch
    assert len(Watch([f]).entries) == 3         # both functions, and the cell


def test_what_is_set_on_an_object_that_is_not_asked_for():
    def inner(x):
        return x * 2

    inner.calls = 0
    fs = [inner]
    f = fg.compile(lambda x: fs[0](x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for inner.calls in range(4):
            assert f(2.0) == 4.0
    assert [path.calls for path in f.paths] == [4]


def test_a_class_whose_methods_are_not_looked_up_is_not_read():
    """`vars` reads what is in an object: what a method does is none of its business."""
    class Settings:
        def __init__(self):
            self.rate = 2.0

        def save(self):
            open("/dev/null", "w").close()

    settings = Settings()
    f = fg.compile(lambda x: x * vars(settings)["rate"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [f(1.0), f(2.0)] == [2.0, 4.0]
    settings.rate = 3.0
    assert f(1.0) == 3.0 and len(f.paths) == 2
