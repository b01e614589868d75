"""What is told by its content, what depends on its operands alone, and what makes a path
unreplayable: every row of the tables, and what is in none, against the plain function over changed
state. Nothing may lie; what can be compared must be replayed."""

import secrets
import sys
import time
import types
import warnings

import numpy as np
import pytest

import fastgrad as fg
import fastgrad.numpy as fnp
from fastgrad import _code, _known, _names
from fastgrad._watch import Watch

# A module that has been installed.
SITE = """import sys, types
m = sys.modules['sitemod'] = types.ModuleType('sitemod')
m.__file__ = '/usr/lib/python3/site-packages/sitemod.py'
m.K = 2"""

# name: (what is executed first, the function's body, what is changed between calls)
COMPARED = {
    'Namespace': ('import argparse; ns=argparse.Namespace(a=2)', 'x*ns.a',
        ['ns.a=3', 'ns.a=4', 'del ns.a; ns.a=7']),
    'SimpleNamespace': ('import types; ns=types.SimpleNamespace(a=2)', 'x*ns.a',
        ['ns.a=3', 'ns.a=5']),
    'ChainMap': ("import collections; c=collections.ChainMap({'a':2},{'a':3})", "x*c['a']",
        ["c['a']=5", "del c.maps[0]['a']", 'c.maps.append(1)']),
    'MappingProxy': ("import types; dd={'a':2}; m=types.MappingProxyType(dd)", "x*m['a']",
        ["dd['a']=5", "dd['a']=5.5"]),
    'UserDict': ('import collections; c=collections.UserDict(a=2)', "x*c['a']",
        ["c['a']=5", "c.data={'a':7}"]),
    'UserList': ('import collections; c=collections.UserList([2,3])', 'x*c[0]*len(c)',
        ['c[0]=5', 'c.append(7)']),
    'array.array': ("import array; a=array.array('d',[2.,3.])", 'x*a[0]', ['a[0]=5.', 'a[0]=6.']),
    'array.array zero': ("import array; a=array.array('d',[0.,3.])", 'x*np.copysign(1.,a[0])',
        ['a[0]=-0.', 'a[0]=0.']),
    'poly1d': ('p=np.poly1d([1.,2.])', 'x*p(3.0)', ['p.coeffs[0]=5.', 'p[0]=7.']),
    'cfg.get': ("cfg={'a':2}; get=cfg.get", "x*get('a')", ["cfg['a']=5", "cfg['a']=6"]),
    'subclass attr': ("""class A: k=2
class B(A): pass
b=B()""", 'x*b.k', ['B.k=5', 'del B.k', 'A.k=7']),
    'subclass attr cls': ("""class A: k=2
class B(A): pass""", 'x*B.k', ['B.k=5', 'del B.k', 'A.k=7']),
    'metaclass': ("""class M(type): k=2
class A(metaclass=M): pass""", 'x*A.k', ['M.k=5', 'A.k=9']),
    'metaclass call': ("""class M(type):
  s=2
  def __call__(cls): return cls.s
class A(metaclass=M): pass""", 'x*A()', ['M.s=5']),
    '__class__': ("""class A: k=2
class B: k=3
a=A()""", 'x*a.k', ['a.__class__=B', 'B.k=4']),
    '__dict__': ("""class A: pass
a=A(); a.k=2""", 'x*a.k', ["a.__dict__={'k':5}"]),
    'function attr': ("""def tick(): return tick.n
tick.n=1""", 'x*tick()', ['tick.n=2', 'tick.n=3']),
    'function attr 2': ("""def tick(): return 1
tick.n=1""", 'x*tick.n', ['tick.n+=1', 'tick.n+=1']),
    'kwdefaults': ('def h(x,*,k=2): return x*k', 'h(x)',
        ["h.__kwdefaults__={'k':5}", "h.__kwdefaults__['k']=6"]),
    'kwdefaults none': ("""def h(x,*,k): return x*k
h.__kwdefaults__={'k':2}""", 'h(x)', ["h.__kwdefaults__={'k':5}"]),
    'singledispatch': ("""import functools
@functools.singledispatch
def g(v): return 2
class K: pass
k=K()""", 'x*g(k)', ['g.register(K)(lambda v: 5)', 'g.register(K)(lambda v: 6)']),
    'getattr mod': ("import types; m=types.ModuleType('mm'); m.__file__='mm.py'; m.K=2",
        "x*getattr(m,'K')", ['m.K=5', 'm.K=6']),
    'attrgetter': ("""import operator
class A: pass
a=A(); a.K=2; get=operator.attrgetter('K')""", 'x*get(a)', ['a.K=5', 'a.K=6']),
    'attrgetter in': ("""import operator
class A: pass
a=A(); a.K=2""", "x*operator.attrgetter('K')(a)", ['a.K=5', 'a.K=6']),
    'attrgetter mod': (
        "import operator,types; m=types.ModuleType('mm'); m.K=2; get=operator.attrgetter('K')",
        'x*get(m)', ['m.K=5', 'm.K=6']),
    'match': ("""class A: pass
a=A(); a.K=2
def f(x):
  match a:
    case A(K=k): return x*k""", 'f(x)', ['a.K=5', 'a.K=6']),
    'match pos': ("""class A: __match_args__=('K',)
a=A(); a.K=2
def f(x):
  match a:
    case A(k): return x*k""", 'f(x)', ['a.K=5', 'a.K=6']),
    'match map': ("""a={'K':2}
def f(x):
  match a:
    case {'K': k}: return x*k""", 'f(x)', ["a['K']=5", "a['K']=6"]),
    'site module': (
        SITE,
        'x*m.K', ['m.K=5', 'm.K=6']),
    'site module import': (SITE + """
def f(x):
  import sitemod
  return x*sitemod.K""", 'f(x)', ['m.K=5', 'm.K=6']),
    'from import': (SITE + """
def f(x):
  from sitemod import K
  return x*K""", 'f(x)', ['m.K=5', 'm.K=6']),
    'argv': ("import sys; sys.argv=['2']", 'x*float(sys.argv[0])',
        ["sys.argv[0]='5'", "sys.argv=['7']"]),
    'dict order': ("dd={'a':2.0,'b':3.0}", '[x*v for v in dd.values()][0]',
        ["v=dd.pop('a'); dd['a']=v"]),
    'OrderedDict': ('import collections; dd=collections.OrderedDict(a=2.0,b=3.0)',
        '[x*v for v in dd.values()][0]', ["dd.move_to_end('a')"]),
    'defaultdict': (
        'import collections; dd=collections.defaultdict(lambda: 2, q=3)', "x*dd['q']",
        ["dd['q']=5", "dd['q']=8"]),
    'Counter': ("import collections; dd=collections.Counter('aab')", "x*dd['a']*dd['c']+x*dd['b']",
        ["dd['c']=5", "dd['a']=7"]),
    'deque': ('import collections; q=collections.deque([2.0])', 'x*q[0]',
        ['q[0]=3.0', 'q.appendleft(7.0)']),
    'deque arrays': ('import collections; q=collections.deque([np.ones(3)])', 'x*float(q[0][0])',
        ['q[0]=np.full(3,3.0)', 'q[0][0]=9']),
    'deque -0': ('import collections; q=collections.deque([0.0])', 'x*np.copysign(1.,q[0])',
        ['q[0]=-0.0', 'q[0]=0.0']),
    'set true': ('s={1}', 'x*(2. if any(v is True for v in s) else 3.)',
        ['s.clear(); s.add(True)']),
    'dict key true': ('s={1: 2.}', 'x*(2. if any(v is True for v in s) else 3.)',
        ['s.clear(); s[True]=2.']),
    'list subclass': ("""class S(list):
  k=2
  pass
s=S([1]); s.q=2""", 'x*s.q*s[0]*s.k', ['s.q=5', 's[0]=7', 'S.k=3', 's.k=9']),
    'enum': ("""import enum
class E(enum.Enum):
  A=2
  B=3
e=E.A""", 'x*e.value', ['e=E.B', 'e=E.A']),
    'enum cls': ("""import enum
class E(enum.Enum):
  A=2
  B=3""", 'x*E.A.value*len(E)', ['E.A._value_=7']),
    'property': ("""class A:
  @property
  def k(self): return 2
a=A()""", 'x*a.k', ['A.k=property(lambda s: 5)']),
    'data descriptor': ("""class A: pass
a=A(); a.k=2""", 'x*a.k', ['A.k=property(lambda s: 5)']),
    'slots': ("""class A: __slots__=('k',)
a=A(); a.k=2""", 'x*a.k', ['a.k=3', 'a.k=4']),
    '__getattr__': ("""class A:
  def __getattr__(self, n): return self.__dict__['d'][n]
a=A(); a.d={'k':2}""", 'x*a.k', ["a.d['k']=3", 'a.k=4']),
    'getattr dyn': ("""class A: pass
a=A(); a.k=2; nm='k'""", 'x*getattr(a, nm)', ['a.k=3', 'a.k=4']),
    'hasattr': ("""class A: pass
a=A()""", "x*(2. if hasattr(a,'k') else 3.)", ['a.k=3']),
    'inst len swap': ("""class A: pass
a=A(); a.zz=1
A.k=2""", 'x*a.k', ['del a.zz; a.k=5']),
    'hasattr swap': ("""class A: pass
a=A(); a.zz=1""", "x*(2. if hasattr(a,'k') else 3.)", ['del a.zz; a.k=5']),
    'partial arr': ("""import functools
d=np.array([2.,3.,4.])
def h(k,x): return np.sum(x*k)*float(k[0])
p=functools.partial(h,d)""", 'p(x)', ['d[0]=9', 'd[1]=5']),
    'exception': ("""class E(Exception): pass
e=E(2)""", 'x*e.args[0]', ['e.args=(5,)']),
    'frozenset': ('s=frozenset([2.0])', 'x*next(iter(s))', ['s=frozenset([3.0])']),
    'bytearray': ("b=bytearray(b'\\x02')", 'x*b[0]', ['b[0]=5', 'b[0]=7']),
    'builtin shadow': ('', 'x*len([1,2])', ['len=lambda v: 7']),
    'dataclass': ("""import dataclasses
@dataclasses.dataclass
class A:
  k: int = 2
a=A()""", "x*dataclasses.asdict(a)['k']", ['a.k=3', 'a.k=4']),
    'dc replace': ("""import dataclasses
@dataclasses.dataclass
class A:
  k: int = 2
  j: int = 3
a=A()""", 'x*dataclasses.replace(a, k=5).j', ['a.j=4']),
    'deepcopy': ("""import copy
class A: pass
a=A(); a.k=2""", 'x*copy.deepcopy(a).k', ['a.k=3']),
    'class instance made inside': ("""class A:
  rate=2
  def __init__(s): s.k=s.rate""", 'x*A().k', ['A.rate=5']),
    'static': ("""class A:
  rate=2
  @staticmethod
  def g(): return A.rate
  @classmethod
  def h(cls): return cls.rate""", 'x*A.g()*A.h()', ['A.rate=5']),
    'super': ("""class A:
  def g(self): return self.k
class B(A):
  k=2
  def g(self): return super().g()*2
b=B()""", 'x*b.g()', ['B.k=5', 'A.g=lambda s: 9']),
    'global in str fmt': ('K=2', "x*float(f'{K}')", ['K=5']),
    'structured': ("d=np.array([(1.,2)],dtype=[('a','f8'),('b','i4')])", "x*float(d['a'][0])",
        ["d['a']=5."]),
    'date.today': ('import datetime; d0=datetime.date(2020,1,1)', 'x*float(d0.year)',
        ['d0=datetime.date(2021,1,1)']),
    'shape change': ('d=np.arange(6.)', 'x*np.sum(d*x*0+1.)*d.shape[0]', ['d.shape=(2,3)']),
    'named tuple': ("""import collections
P=collections.namedtuple('P','a b')
p=P(2,3)""", 'x*p.a*p._replace(b=4).b', ['p=P(5,3)', 'p=p._replace(b=6)']),
    'list nested id': ('a=[[1],[2]]', 'x*a[0][0]', ['a[0]=[5]', 'a[0][0]=7', 'a.reverse()']),
    'cell in nested': ("""k=2
def mk():
  def inner(x): return x*k
  return inner
inner=mk()""", 'inner(x)', ['k=5']),
    'sorted key': ("order={'a':1,'b':2}", "x*float(sorted('ab', key=order.get)[0]=='a')+x",
        ["order['a']=5"]),
    'str method bound': ("s='ab'; u=s.count", "x*u('a')", ["s='aab'; u=s.count"]),
    're': ("import re; r=re.compile('a')", "x*len(r.findall('aab'))", ["r=re.compile('b')"]),
    'Fraction': ('import fractions; q=fractions.Fraction(1,2)', 'x*float(q)',
        ['q=fractions.Fraction(1,3)']),
    'getter loc': ("import operator; g=operator.itemgetter('a'); dd={'a':2}", 'x*g(dd)',
        ["dd['a']=5"]),
    'methodcaller': ("""import operator
class A:
  k=2
  def m(self): return self.k
a=A(); g=operator.methodcaller('m')""", 'x*g(a)', ['a.k=5', 'A.m=lambda s: 9']),
    'reduce': ('import functools; ks=[2,3]', 'x*functools.reduce(lambda a,b: a*b, ks)',
        ['ks.append(5)']),
    'class cell': ("""class A:
  k=2
  def m(self): return __class__.k
a=A()""", 'x*a.m()', ['A.k=5']),
    'type(a)': ("""class A: k=2
class B(A): pass
a=B()""", 'x*type(a).k', ['B.k=5']),
    'mro': ("""class A: k=2
class C: k=3
class B(A): pass
a=B()""", 'x*a.k', ['B.__bases__=(C,)']),
    'abc register': ("""import abc
class I(abc.ABC): pass
class A: pass
a=A()""", 'x*(2. if isinstance(a,I) else 3.)', ['I.register(A)']),
    'instancecheck': ("""class M(type):
  def __instancecheck__(cls, o): return o.k>2
class I(metaclass=M): pass
class A: pass
a=A(); a.k=2""", 'x*(2. if isinstance(a,I) else 3.)', ['a.k=5']),
    'len dunder': ("""class A:
  def __len__(self): return self.n
a=A(); a.n=2""", 'x*len(a)', ['a.n=5']),
    'eq dunder': ("""class A:
  def __eq__(self,o): return self.n==o
a=A(); a.n=2""", 'x*(2. if a==2 else 3.)', ['a.n=5']),
    'str dunder': ("""class A:
  def __str__(self): return str(self.n)
a=A(); a.n=2""", 'x*float(str(a))', ['a.n=5']),
    'fmt dunder': ("""class A:
  def __format__(self,s): return str(self.n)
a=A(); a.n=2""", "x*float(f'{a}')", ['a.n=5']),
    'iter dunder': ("""class A:
  def __iter__(self): return iter([self.n])
a=A(); a.n=2""", 'x*list(a)[0]', ['a.n=5']),
}

# The same, with what the reason names.
REFUSED = {
    'sparse': ('import scipy.sparse as sp; s=sp.csr_array(np.eye(3))', 'x*s.sum()',
        ['s.data[0]=5.'], 'csr_array'),
    'frozen': ('import scipy.stats as st; s=st.norm(loc=1.0)', 'x*s.mean()', ["s.kwds['loc']=5."],
        'rv_continuous_frozen'),
    'weakref': ("""import weakref
class A: pass
a=A(); a.k=2; r=weakref.ref(a)""", 'x*r().k', ['a.k=3'], 'weakref.ReferenceType'),
    'contextvar': ("import contextvars; v=contextvars.ContextVar('v', default=2)", 'x*v.get()',
        ['v.set(5)'], '_contextvars.ContextVar'),
    'cache_clear': ("""import functools
s=2
@functools.lru_cache
def g(v): return v*s""", 'x*g(3)', ["globals()['s']=5; s=5", 'g.cache_clear()'],
        '`g` keeps results'),
    'getattr mod dyn': (
        "import types; m=types.ModuleType('mm'); m.__file__='mm.py'; m.K=2; nm='K'",
        'x*getattr(m,nm)', ['m.K=5', 'm.K=6'], 'names that are told at run time'),
    'vars mod': ("import types; m=types.ModuleType('mm'); m.__file__='mm.py'; m.K=2",
        "x*vars(m)['K']", ['m.K=5', 'm.K=6'], 'names that are told at run time'),
    'dict mod': ("import types; m=types.ModuleType('mm'); m.__file__='mm.py'; m.K=2",
        "x*m.__dict__['K']", ['m.K=5', 'm.K=6'], 'names that are told at run time'),
    'globals': ('K=2', "x*globals()['K']", ['K=5', 'K=6'], '`globals`'),
    'eval': ('K=2', "x*eval('K')", ['K=5', 'K=6'], '`eval`'),
    'read_text': ("import pathlib; p=pathlib.Path('FOLDER/k.txt'); p.write_text('2')",
        'x*float(p.read_text())', ["p.write_text('5')", "p.write_text('6')"], 'pathlib'),
    'exists': ("import os; open('FOLDER/e.txt','w').close()",
        "x*(2. if os.path.exists('FOLDER/e.txt') else 3.)", ["os.remove('FOLDER/e.txt')"],
        'os.path.exists'),
    'open': ("open('FOLDER/k.txt','w').write('2')", "x*float(open('FOLDER/k.txt').read())",
        ["open('FOLDER/k.txt','w').write('5')"], '`open`'),
    'geterr': ("old=np.seterr(divide='ignore')",
        "x*(2. if np.geterr()['divide']=='ignore' else 3.)", ["np.seterr(divide='warn')"],
        'np.geterr'),
    'getenv': ("import os; os.environ['FK']='2'", "x*float(os.environ['FK'])",
        ["os.environ['FK']='3'"], 'os.environ'),
    'decimal': ("import decimal; d=decimal.Decimal('2')", 'x*float(d)', ["d=decimal.Decimal('3')"],
        'decimal.Decimal'),
    'ctx prec': ('import decimal', 'x*float(decimal.Decimal(1)/decimal.Decimal(3))',
        ['decimal.getcontext().prec=3'], 'decimal.Decimal'),
    'memoryview': ("b=bytearray(b'\\x02'); mv=memoryview(b)", 'x*mv[0]', ['b[0]=5'], 'memoryview'),
    'masked': ('d=np.ma.array([1.,2.,3.],mask=[0,0,0])', 'x*float(d.sum())', ['d.mask=[1,0,0]'],
        'MaskedArray'),
    'object array': ('d=np.array([2.,None],dtype=object)', 'x*d[0]', ['d[0]=5.'],
        'array of objects'),
    'frompyfunc': ("""K=2
u=np.frompyfunc(lambda v: v*K,1,1)""", 'x*float(u(3.0))', ['K=5'], '`u`'),
    'vectorize': ("""K=2
u=np.vectorize(lambda v: v*K)""", 'x*float(u(3.0))', ['K=5'], '`u`'),
    'threading.local': ('import threading; l=threading.local(); l.k=2', 'x*l.k', ['l.k=5'],
        '_thread._local'),
    'ctypes': ('import ctypes; c=ctypes.c_double(2.0)', 'x*c.value', ['c.value=5.0'],
        'ctypes.c_double'),
}


def made(setup, body, folder):
    """The function, and the names it sees."""
    space = {"np": np, "fg": fg, "fnp": fnp, "__name__": "a_users_module"}
    exec(setup.replace("FOLDER", str(folder)), space)
    return eval(f"lambda x: {body.replace('FOLDER', str(folder))}", space), space


def agrees(f, plain, changes, space, folder):
    """f does as the plain function does, after each change."""
    for change in [None, None, *changes, None]:
        if change is not None:
            exec(change.replace("FOLDER", str(folder)), space)
        for x in (2.0, 3.0):
            np.testing.assert_array_equal(f(x), plain(x), err_msg=str(change))


@pytest.fixture
def restored():
    """Settings that a case changes."""
    import decimal

    argv, modules = sys.argv, set(sys.modules)
    with np.errstate(), decimal.localcontext():
        yield
    sys.argv = argv
    for name in {"sitemod"} & set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize("way", ["compile", "grad"])
@pytest.mark.parametrize("name", COMPARED)
def test_what_is_compared(name, way, tmp_path, restored):
    setup, body, changes = COMPARED[name]
    plain, space = made(setup, body, tmp_path)
    plain = fg.grad(plain) if way == "grad" else plain
    f = fg.compile(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agrees(f, plain, changes, space, tmp_path)
    assert len(f.paths) > 1 and max([path.calls for path in f.paths]) > 1


@pytest.mark.parametrize("way", ["compile", "grad"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_a_path_unreplayable_and_is_named(name, way, tmp_path, restored):
    setup, body, changes, reason = REFUSED[name]
    plain, space = made(setup, body, tmp_path)
    plain = fg.grad(plain) if way == "grad" else plain
    f = fg.compile(plain)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agrees(f, plain, changes, space, tmp_path)
    assert not f.paths
    assert [reason in str(w.message) for w in caught if "compile:" in str(w.message)] == [True]


MOVES_ON = {
    "pop": ("stack = list(range(1, 20)); pop = stack.pop", "x * pop()"),
    "append": ("hist = []", "x * (hist.append(1) or len(hist))"),
    "__next__": ("import itertools; n = itertools.count().__next__", "x * n()"),
    "generator": ("g = (k for k in range(100))", "x * next(g)"),
    "function attribute": ("""def tick():
    tick.n += 1
    return tick.n
tick.n = 1""", "x * tick()"),
    "bound draw": ("rng = np.random.default_rng(0); draw = rng.normal", "x * draw()"),
    "file": ("import io; s = io.StringIO('2345678')", "x * float(s.read(1))"),
    "iterator of a class": ("""class I:
    n = 0
    def __iter__(self):
        return self
    def __next__(self):
        self.n += 1
        return self.n
i = I()""", "x * next(i)"),
}


@pytest.mark.parametrize("name", MOVES_ON)
def test_what_moves_on_by_itself(name, tmp_path):
    f = fg.compile(made(*MOVES_ON[name], tmp_path)[0])
    plain = made(*MOVES_ON[name], tmp_path)[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [f(2.0) for _ in range(5)] == [plain(2.0) for _ in range(5)]
    assert [w for w in caught if "is not replayed" in str(w.message)]


CLOCKS = [f"time.{name}()" for name in (
    "time time_ns perf_counter perf_counter_ns monotonic monotonic_ns process_time "
    "process_time_ns thread_time thread_time_ns").split()] + [
    "time.localtime().tm_sec", "time.gmtime().tm_sec", "datetime.datetime.now().microsecond",
    "datetime.datetime.utcnow().microsecond", "datetime.date.today().day", "day.today().day",
    "moment.now().microsecond", "now()", "clock()"]
SECRETS = ["secrets.randbelow(1000)", "secrets.token_bytes(1)[0]", "os.urandom(1)[0]",
           "uuid.uuid4().int % 97", "uuid.uuid1().int % 97", "random.SystemRandom().random()",
           "system.random()", "np.random.default_rng().normal()", "np.random.RandomState().rand()",
           "np.random.default_rng(None).normal()", "np.random.default_rng(seed=None).normal()",
           "np.random.Generator(np.random.PCG64()).normal()", "random.Random().random()",
           "np.random.default_rng(*[]).normal()", "make().normal()",
           "float(np.random.SeedSequence().entropy % 97)", "os.getpid()", "id(np)",
           "hash(object())", "len(os.listdir())", "os.path.getmtime(os.curdir)",
           "threading.get_ident()", "sys.getrefcount(x)", "gc.get_count()[0]",
           "len(tempfile.mktemp())", "np.get_printoptions()['precision']"]
STATE = ("import time, datetime, os, secrets, uuid, random, threading, sys, gc, tempfile\n"
         "import functools\n"
         "day = datetime.date(2020, 1, 1); moment = datetime.datetime(2020, 1, 1)\n"
         "now = time.time; clock = functools.partial(time.monotonic)\n"
         "system = random.SystemRandom(); make = np.random.default_rng")


@pytest.mark.parametrize("body", CLOCKS + SECRETS)
def test_what_answers_differently_each_time(body, tmp_path):
    f = fg.compile(made(STATE, f"x * 0 + {body}", tmp_path)[0])
    with pytest.warns(UserWarning, match="is not replayed"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        f(1.0)
    assert not f.paths


def test_a_generator_with_a_seed_is_known():
    seed = 3
    f = fg.compile(lambda x: x * float(np.random.default_rng(seed).normal()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (3, 3, 4, 4):
            assert f(2.0) == 2.0 * np.random.default_rng(seed).normal()
    assert [path.calls for path in f.paths] == [2, 2]


def test_an_instruction_that_is_not_known_makes_the_path_unreplayable(monkeypatch):
    values = {"a": 1.0}

    def plain(x):
        return x * values["a"]

    opname = "BINARY_SUBSCR" if "BINARY_SUBSCR" in _code._METHODS else "BINARY_OP"
    monkeypatch.delitem(_code._METHODS, opname)
    try:
        _code.read.cache_clear()
        _names.names_in.cache_clear()
        f = fg.compile(plain)
        with pytest.warns(UserWarning, match=f"instruction {opname} of Python 3.*test_known.py"):
            for values["a"] in (1.0, 2.0, 3.0):
                assert f(2.0) == plain(2.0)
        assert not f.paths
    finally:
        _code.read.cache_clear()
        _names.names_in.cache_clear()


# ---- the tables themselves ------------------------------------------------------------------

# Names that not all versions of Python and NumPy have.
LATER = frozenset("call batched unstack trapz row_stack trapezoid cumulative_prod cumulative_sum "
                  "unique_all unique_counts unique_inverse unique_values matrix_transpose isdtype "
                  "permute_dims fromstring concat astype vecdot".split())


@pytest.mark.parametrize("module, text", [
    (np, _known._NUMPY), (_known.operator, _known._OPERATOR), (_known.builtins, _known._BUILTINS),
    (_known.itertools, _known._ITERTOOLS)])
def test_no_name_in_the_tables_is_misspelt(module, text):
    assert [name for name in text.split() if not hasattr(module, name) and name not in LATER] == []


@pytest.mark.parametrize("name", "load loadtxt genfromtxt fromfile memmap geterr seterr save "
                                 "get_printoptions getbufsize frompyfunc vectorize".split())
def test_what_is_no_function_of_its_operands(name):
    assert not _known.function(getattr(np, name))


@pytest.mark.parametrize("x", [open, eval, exec, globals, locals, hash, id, input, dir, time.time,
                               secrets.randbelow, np.random.default_rng, np.random.normal,
                               np.frompyfunc(lambda x: x, 1, 1), lambda x: x, print, len])
def test_known_functions(x):
    assert _known.function(x) is (x in (print, len))


def test_constants_of_libraries_cost_nothing():
    # The function itself, and the module.
    assert len(Watch([lambda x: x * np.pi * np.e + np.float64(2)]).entries) == 2


def test_a_class_that_says_it_is_of_a_library_is_not_taken_for_one():
    kind = type("Opaque", (), {"__module__": "math", "__call__": lambda self: 2.0})
    read = kind()
    f = fg.compile(lambda x: x * read())
    with pytest.warns(UserWarning, match="math.Opaque"):
        assert f(2.0) == 4.0
    assert not f.paths


def test_modules_of_functions_may_be_looked_into_at_run_time():
    f = fg.compile(lambda x, name: getattr(np, name)(x))
    assert f(0.5, "sin") == np.sin(0.5) and f(0.5, "cos") == np.cos(0.5)
    assert f(0.25, "sin") == np.sin(0.25) and len(f.paths) == 2
    module = types.ModuleType("mine")
    module.sin = np.cos
    g = fg.compile(lambda x, name: getattr(module, name)(x))
    with pytest.warns(UserWarning, match="names that are told at run time"):
        assert g(0.5, "sin") == np.cos(0.5)
