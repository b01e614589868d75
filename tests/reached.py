"""Functions and what they reach, for test_known.py: objects whose state changes between calls."""

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
    'wrapped closure': ("""import functools
def deco(k):
  def d(g):
    @functools.wraps(g)
    def w(x): return g(x)*k[0]
    return w
  return d
K=[2]
@deco(K)
def h(x): return x""", 'h(x)', ['K[0]=5']),
    'contextmanager': ("""import contextlib
K=[2]
@contextlib.contextmanager
def cm():
  yield K[0]
def f(x):
  with cm() as k: return x*k""", 'f(x)', ['K[0]=5']),
    'with class': ("""class C:
  k=2
  def __enter__(s): return s.k
  def __exit__(s,*a): pass
c=C()
def f(x):
  with c as k: return x*k""", 'f(x)', ['c.k=5']),
    'try except': ("""K={'a':2}
def f(x):
  try: return x*K['b']
  except KeyError: return x*K['a']""", 'f(x)', ["K['b']=5"]),
    'nested default': ("""K=[2]
def f(x):
  def g(y, k=K): return y*k[0]
  return g(x)""", 'f(x)', ['K[0]=5']),
    'lambda default': ('f=lambda x, k=[2]: x*k[0]', 'f(x)', ['f.__defaults__[0][0]=7']),
    'generator expr': ('K=[2,3]', 'sum(x*k for k in K)', ['K[0]=5', 'K.append(1)']),
    'class in list': ("""class A: k=2
L=[A]""", 'x*L[0].k', ['A.k=5']),
    'class in dict called': ("""class A:
  k=2
  def __init__(s): s.q=s.k
L={'a':A}""", "x*L['a']().q", ['A.k=5']),
    'vars(self)': ("""class A: pass
a=A(); a.k=2""", "x*vars(a)['k']", ['a.k=5', "vars(a)['k']=7"]),
    '__dict__ get': ("""class A: pass
a=A(); a.k=2""", "x*a.__dict__['k']", ['a.k=5']),
    'dict from attrs': ("""class A: pass
a=A(); a.k=2""", 'x*sum(vars(a).values())', ['a.j=5']),
    'name mangled': ("""class A:
  def __init__(s): s.__k=2
  def get(s): return s.__k
a=A()""", 'x*a.get()', ['a._A__k=5']),
    'mangled slots': ("""class A:
  __slots__=('__k',)
  def __init__(s): s.__k=2
  def get(s): return s.__k
a=A()""", 'x*a.get()', ['a._A__k=5']),
    'callable global replaced': ("""def h(x): return x*2
f=lambda x: h(x)""", 'f(x)', ['h=lambda x: x*5']),
    'builtins patched': ("""import builtins
def f(x): return x*mything
builtins.mything=2""", 'f(x)', ['builtins.mything=5']),
    'sub module attr': ("""import types
m=types.ModuleType('mm'); m.__file__='mm.py'
n=types.ModuleType('mm.n'); n.__file__='n.py'; m.n=n; n.K=2""",
        'x*m.n.K', ['n.K=5', 'm.n=types.SimpleNamespace(K=9)']),
    'module passed': ("""import types
m=types.ModuleType('mm'); m.__file__='mm.py'; m.K=2
def g(mod): return mod.K""", 'x*g(m)', ['m.K=5']),
    'module in obj': ("""import types
m=types.ModuleType('mm'); m.__file__='mm.py'; m.K=2
class A: pass
a=A(); a.m=m""", 'x*a.m.K', ['m.K=5']),
    'list of modules': ("""import types
m=types.ModuleType('mm'); m.__file__='mm.py'; m.K=2
L=[m]""", 'x*L[0].K', ['m.K=5']),
    'frozen dataclass': ("""import dataclasses
@dataclasses.dataclass(frozen=True)
class A:
  k: float = 2.0
a=A()""", 'x*a.k', ["object.__setattr__(a,'k',5.0)", 'a=A(7.0)']),
    'property setter': ("""class A:
  def __init__(s): s._k=2
  @property
  def k(s): return s._k
  @k.setter
  def k(s,v): s._k=v
a=A()""", 'x*a.k', ['a.k=5']),
    'descriptor': ("""class D:
  def __init__(s): s.v=2
  def __get__(s,o,t): return s.v
class A: k=D()
a=A()""", 'x*a.k', ["A.__dict__['k'].v=5"]),
    'total ordering eq': ("""class A:
  def __init__(s,n): s.n=n
  def __lt__(s,o): return s.n<o.n
a=A(1); b=A(2)""", 'x*(2. if a<b else 3.)', ['a.n=5']),
    'max objs': ("""class A:
  def __init__(s,n): s.n=n
  def __lt__(s,o): return s.n<o.n
  def __gt__(s,o): return s.n>o.n
L=[A(1),A(2)]""", 'x*max(L).n', ['L[0].n=5']),
    'dict of objs key': ("""class K:
  def __init__(s,n): s.n=n
  def __hash__(s): return 1
  def __eq__(s,o): return s.n==o.n
a=K(1)
D={K(1):2., K(2):3.}""", 'x*D.get(a, 9.)', ['a.n=2', 'a.n=7']),
    'bool obj': ("""class A:
  v=True
  def __bool__(s): return s.v
a=A()""", 'x*(2. if a else 3.)', ['a.v=False']),
    'np array iface': ("""class A:
  def __init__(s): s.d=np.ones(3)
  def __array__(s, dtype=None, copy=None): return s.d
a=A()""", 'x*float(np.sum(np.asarray(a)))', ['a.d[0]=5']),
    'range obj': ('r=range(3)', 'x*len(r)', ['r=range(5)']),
    'slice obj': ("""s=slice(0,2)
L=[1.,2.,3.]""", 'x*sum(L[s])', ['s=slice(0,3)', 'L[0]=5.']),
    'complex': ('c=2j', 'x*abs(c)', ['c=5j']),
    'bool/int': ('b=True', 'x*(2. if b is True else 3.)', ['b=1']),
    'int/float': ('b=2', 'x*(2. if isinstance(b,int) else 3.)', ['b=2.0']),
    'np scalar': ('b=np.float64(2)', 'x*b', ['b=np.float64(5)', 'b=np.float32(5)']),
    '0d array': ('b=np.array(2.0)', 'x*float(b)', ['b[...]=5']),
    'nested list arrays': ('L=[[np.ones(2)],[np.ones(2)]]', 'x*float(L[1][0][0])',
        ['L[1][0][0]=5']),
    'tuple arrays': ('L=(np.ones(2),)', 'x*np.sum(x*L[0])*float(L[0][0])', ['L[0][0]=5']),
    'string fmt %': ("""class A:
  def __repr__(s): return str(s.n)
a=A(); a.n=2""", "x*float('%r' % a)", ['a.n=5']),
    'join': ("L=['1','2']", "x*float(''.join(L))", ["L[0]='5'"]),
    'class var counter': ("""class A: k=2
def g(): return A.k""", 'x*g()', ['A.k=5']),
    'closure rebind': ("""def mk():
  k=2
  def f(x): return x*k
  def s(v):
    nonlocal k
    k=v
  return f,s
f,s=mk()""", 'f(x)', ['s(5)', 's(6.5)', 's(7.5)']),
    'del global': ("""K=2
k2=3
def f(x):
  try: return x*K
  except NameError: return x*k2""", 'f(x)', ['del K', 'K=5']),
    'enum flags': ("""import enum
class E(enum.Flag):
  A=1
  B=2
e=E.A""", 'x*(2. if E.B in e else 3.)', ['e=E.A|E.B']),
    'intenum': ("""import enum
class E(enum.IntEnum):
  A=1
  B=2
e=E.A""", 'x*e', ['e=E.B']),
    'ABC method': ("""import abc
class I(abc.ABC):
  @abc.abstractmethod
  def g(self): ...
class A(I):
  k=2
  def g(self): return self.k
a=A()""", 'x*a.g()', ['A.k=5', 'a.k=7']),
    'generic class': ("""import typing
T=typing.TypeVar('T')
class A(typing.Generic[T]):
  k=2
a=A()""", 'x*a.k', ['A.k=5']),
    'protocol': ("""import typing
class P(typing.Protocol):
  def g(self): ...
class A:
  k=2
  def g(self): return self.k
a=A()""", 'x*a.g()', ['A.k=5']),
    'bound in list': ("""class A:
  k=2
  def g(self): return self.k
a=A(); L=[a.g]""", 'x*L[0]()', ['a.k=5']),
    'partial method': ("""import functools
class A:
  k=2
  def g(self, m): return self.k*m
a=A(); p=functools.partial(a.g, 3)""", 'x*p()', ['a.k=5']),
    'map obj': ("""K=[2]
def h(v): return v*K[0]""", 'sum(map(h,[x,x]))', ['K[0]=5']),
    'reduce attr': ("""import functools
class A:
  k=2
a=A()""", "functools.reduce(getattr, ['k'], a)*x", ['a.k=5']),
    'sorted attrgetter': ("""import operator
class A:
  def __init__(s,n): s.n=n
L=[A(3.),A(1.)]""", "x*sorted(L,key=operator.attrgetter('n'))[0].n", ['L[0].n=0.5']),
    'func defaults attr': ('def g(a=2): return a', 'x*g.__defaults__[0]', ['g.__defaults__=(5,)']),
    'doc': ("def g(): 'ab'", 'x*len(g.__doc__)', ["g.__doc__='abc'"]),
    'class doc': ("class A: 'ab'", 'x*len(A.__doc__)', ["A.__doc__='abc'"]),
    'name attr': ('def g(): pass', 'x*len(g.__name__)', ["g.__name__='ggg'"]),
    'list in tuple global': ('T=([1],2)', 'x*T[0][0]', ['T[0][0]=5']),
    'star kwargs': ("""D={'k':2}
def g(x,k): return x*k""", 'g(x,**D)', ["D['k']=5"]),
    'chained cmp': ('lo=1.0; hi=3.0', 'x*(2. if lo<2.0<hi else 3.)', ['hi=1.5']),
    'grad inside': ("""K=[2]
def L(v): return v*v*K[0]""", 'x*fg.grad(L)(x)', ['K[0]=5']),
    'scan arr': ('d=np.ones(3)', 'fg.scan(lambda c, v: (c*float(d[0])+v*d[1], c), x, d)[0]',
        ['d[0]=5', 'd[1]=7']),
    'fori arr': ('d=np.ones(3)', 'fg.fori_loop(0,3,lambda i, c: c*d[0]+np.sum(d), x)',
        ['d[0]=5', 'd[1]=7']),
    'vmap in arr': ('d=np.ones(3)', 'fnp.sum(fg.vmap(lambda v: v*x*float(d.max()))(d))',
        ['d[0]=5', 'd[1]=7']),
    'opt object': ("""class Opt:
  def __init__(s): s.state={'t':1}
  def lr(s): return 0.1*s.state['t']
o=Opt()""", 'x*o.lr()', ["o.state['t']=2", "o.state={'t':5}"]),
}

# What is dropped leaves its place to what comes next.
_PUSHED = [f"d.append({kind}('{k}.25'))" for k in range(1, 9) for kind in ("float", "np.float64")]
_PUT = [f"dd['a']=float('{k}.25')" for k in range(1, 9)]
COMPARED |= {
    'deque pushed': ("import collections; d=collections.deque([0.0], maxlen=1)", 'x*d[0]', _PUSHED),
    'window': ("import collections; d=collections.deque([0.0]*3, maxlen=3)", 'x*float(np.mean(d))',
        _PUSHED),
    'deque attribute': ("""import collections
class A: pass
a=A(); d=a.q=collections.deque([0.0], maxlen=1)""", 'x*a.q[-1]', _PUSHED),
    'deque subclass': ("""import collections
class D(collections.deque): pass
d=D([0.0], maxlen=1)""", 'x*d[0]', _PUSHED),
    'deque dates': ("""import collections, datetime
d=collections.deque([datetime.timedelta(0)], maxlen=1)""", 'x*d[0].total_seconds()',
        [f"d.append(datetime.timedelta(seconds={k}))" for k in range(1, 9)]),
    'proxy put': ("import types; dd={'a':0.0}; m=types.MappingProxyType(dd)", "x*m['a']", _PUT),
    'proxy in partial': ("""import types, functools
dd={'a':0.0}; m=types.MappingProxyType(dd)
p=functools.partial(lambda m, x: x*m['a'], m)""", 'p(x)', _PUT),
    'class rebound': ("""class A: pass
a=A()
def mk(v): a.__class__=type('B', (A,), {'k': v})
mk(0.0)""", 'x*a.k', [f"mk(float('{k}.25'))" for k in range(1, 9)]),
    'record': ("r=np.zeros((), [('a', float), ('v', float, 2)])[()]", "x*r['a']",
        ["r['a']=2", "r['a']=5"]),
    'record entry': ("r=np.zeros((), [('a', float), ('v', float, 2)])[()]", "x*r['v'][0]",
        ["r['v'][0]=2", "r['v']=5"]),
    'row': ("tab=np.zeros(2, [('a', float)]); row=tab[0]", "x*row['a']",
        ["tab['a']=2", "row['a']=5"]),
    'row of records': ("tab=np.zeros(2, [('a', float)]).view(np.recarray); row=tab[0]", 'x*row.a',
        ["tab['a']=2", 'row.a=5']),
    'rows': ("tab=np.zeros(2, [('a', float)]); rows=list(tab)", "x*rows[1]['a']",
        ["tab['a']=2", "rows[1]['a']=5"]),
    'rows in deque': ("""import collections
tab=np.zeros(2, [('a', float)]); d=collections.deque(tab)""", "x*d[0]['a']",
        ["tab['a']=2", "d[0]['a']=5"]),
    'row default': ("tab=np.zeros(2, [('a', float)])\ndef h(x, p=tab[0]): return x*p['a']", 'h(x)',
        ["tab['a']=2", "tab['a']=5"]),
    'row values': ("tab=np.zeros(2, [('a', float)]); row=tab[0]", 'x*row.item()[0]',
        ["tab['a']=2", "row['a']=5"]),
    'matrix': ('m=np.matrix([[1.,2.]])', 'x*float(m.A[0,0])', ['m[0,0]=5', 'm[0,0]=6']),
    'generator copied': ("import copy; rng=np.random.default_rng(0)",
        'x*copy.deepcopy(rng).normal()', ['rng.normal()', 'rng.normal()']),
    'generator in a copied list': ("import copy; rng=np.random.default_rng(0)",
        'x*copy.deepcopy([rng])[0].normal()', ['rng.normal()']),
    'random copied': ("import copy, random; r=random.Random(0)", 'x*copy.copy(r).random()',
        ['r.random()', 'r.seed(5)']),
    'generator restored': ("""rng=np.random.default_rng(0)
def f(x):
  s=rng.bit_generator.state; v=rng.random(); rng.bit_generator.state=s
  return x*v""", 'f(x)', ['rng.random()', 'rng.normal()']),
    'random restored': ("""import random; r=random.Random(0)
def f(x):
  s=r.getstate(); v=r.random(); r.setstate(s)
  return x*v""", 'f(x)', ['r.random()', 'r.seed(5)']),
    'global restored': ("""np.random.seed(0)
def f(x):
  s=np.random.get_state(); v=np.random.rand(); np.random.set_state(s)
  return x*v""", 'f(x)', ['np.random.rand()']),
    'state': ("rng=np.random.default_rng(0)", "x*(rng.bit_generator.state['state']['state']%97)",
        ['rng.random()']),
    'state of bits': ("bits=np.random.default_rng(0).bit_generator",
        "x*(bits.state['state']['state']%97)", ['bits.random_raw()']),
    'bound state': ("import random; r=random.Random(0); state=r.getstate", "x*(state()[1][0]%97)",
        ['r.seed(3)', 'r.seed(4)']),
    'state by name': ("bits=np.random.default_rng(0).bit_generator; names=['state']",
        "x*(getattr(bits, names[0])['state']['state']%97)", ['bits.random_raw()']),
    'position': ("rs=np.random.RandomState(0)", 'x*rs.get_state()[2]', ['rs.random()']),
}

# The same, with what the reason names.
REFUSED = {
    'record of objects': ("q=np.array([(2,)], dtype=[('o', object)])[0]", "x*q['o']", ["q['o']=5"],
        'numpy.void'),
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
    'static lookup via type()': ("""class A: k=2
a=A()""", "x*type(a).__dict__['k']", ['A.k=5'], 'names of a class'),
    'arr attr via dict view': ("""D={'a':np.ones(3)}
V=D.values()""", 'x*float(sum([v[0] for v in V]))', ["D['a'][0]=5"], 'dict_values'),
    'dict items view': ("""D={'a':2}
V=D.items()""", 'x*sum([v for k,v in V])', ["D['a']=5"], 'dict_items'),
    'weakdict': ("""import weakref
class A: pass
a=A()
W=weakref.WeakKeyDictionary({a:2})""", 'x*W[a]', ['W[a]=5'], 'WeakKeyDictionary'),
    'eval in helper': ("""K=2
def h(): return eval('K')""", 'x*h()', ['K=5'], '`eval`'),
    'sys.modules': ("""import sys,types
m=types.ModuleType('zz'); m.K=2; sys.modules['zz']=m""", "x*sys.modules['zz'].K", ['m.K=5'],
        'sys.modules'),
    'importlib': ("""import sys,types,importlib
m=types.ModuleType('zz'); m.K=2; sys.modules['zz']=m""", "x*importlib.import_module('zz').K",
        ['m.K=5'], 'importlib.import_module'),
    'frame': ("""import sys
def h(): return sys._getframe(1).f_globals['K']
K=2""", 'x*h()', ['K=5'], 'sys._getframe'),
    'inspect': ("""import inspect
def g(a=2): return a""", "x*inspect.signature(g).parameters['a'].default", ['g.__defaults__=(5,)'],
        'inspect.signature'),
    'func closure attr': ("""def mk():
  k=2
  def g(): return k
  def s(v):
    nonlocal k
    k=v
  return g,s
g,s=mk()""", 'x*g.__closure__[0].cell_contents', ['s(5)'], '`g.__closure__`'),
    'func globals attr': ("""K=2
def g(): return 1""", "x*g.__globals__['K']", ['K=5'], '`g.__globals__`'),
}

# name: (what is executed first, the body): it is different at each call.
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
    "spawned": ("rng = np.random.default_rng(0)", "x * rng.spawn(1)[0].normal()"),
    "bits spawned": ("bits = np.random.PCG64(0)", "x * (bits.spawn(1)[0].random_raw() % 97)"),
    "seeds spawned": ("bits = np.random.PCG64(0)",
                      "x * (int(bits.seed_seq.spawn(1)[0].generate_state(1)[0]) % 97)"),
    "bound spawn": ("spawn = np.random.default_rng(0).spawn", "x * spawn(1)[0].normal()"),
    "draw by name": ("""class A:
    rng = np.random.default_rng(0)
    def do_draw(self):
        return self.rng.normal()
a = A()""", "x * getattr(a, ''.join(['do_draw']))()"),
    "store by name": ("""class A:
    n = [0]
    def do_count(self):
        self.n.append(1)
        return len(self.n)
a = A()""", "x * getattr(a, ''.join(['do_count']))()"),
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
