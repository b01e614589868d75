"""The reading of code: the same of the same source, on each version of Python."""

import argparse
import dis
import functools
import inspect
import statistics
import textwrap
import types

import pytest

from fastgrad.code import instructions, values
from fastgrad.code.instructions import known_instruction
from fastgrad.code.values import origins, read

# What code reads of which name, in the body of `def f(w, x)` inside a function with a cell `outer`.
# Bytecode says it otherwise in every version of Python.
READS = {
    "return x.mean() + w.sum()": "x.mean w.sum",
    "return w * x.mean()": "x.mean",
    "return w * x[0]": "x[]",
    "return w[x[0]]": "w[] x[]",
    "return w[x:]": "w[]",
    "return w[0] + w[1:2]": "w[]",
    "return w[x:x]": "w[]",
    "return w[x, 0]": "w[]",
    "return w.T[0]": "w.T T[]",
    "return w.a.b[0]": "w.a a.b b[]",
    "return w @ x[0]": "x[]",
    "return x[0] < w[0] < data[0]": "x[] w[] data[]",
    "return super().data[0] + super().other.mean()": "data[] other.mean",
    "return [w[0] for v in x]": "w[] x[]",
    "return [v * w for v in x if v.mean()]": "x[] v.mean",
    "return {v: data[v] for v in x}": "data[] x[]",
    "return [*w, x]": "w[]",
    "return {x, *w}": "w[]",
    "return 1 in data": "data[]",
    "return data.mean() + outer.sum()": "data.mean outer.sum",
    "return data[0] + outer[0]": "data[] outer[]",
    "return np.sum(w, axis=x[0])": "np.sum x[]",
    "return print(w, x[0])": "x[]",
    "return lambda v: v[0] + data[1]": "v[] data[]",
    "return w if x else data[0]": "data[]",
    "return f'{w[0]} {x.y}'": "w[] x.y",
    "y = x; return y.mean()": "y.mean",
    "y = x; return y[0]": "y[]",
    "y = w; return x[0]": "x[]",
    "y, z = w": "w[]",
    "y, *z = x": "x[]",
    "for v in x: v.a": "x[] v.a",
    "for v in data: z = v[0]": "data[] v[]",
    "for y, z in w: y.a": "w[] y.a",
    "w[0] += x": "w[]",
    "w.a += x.b": "w.a x.b",
    "with w.a as y: y.b": "w.a y.b",
    "try: w.a\nexcept x.E as e: e.c\nfinally: data[0]": "w.a x.E e.c data[]",
    "while x[0]: w.a": "x[] w.a",
    "if (y := x)[0]: y.a": "x[] y.a",
    "match x.a:\n case 1: w[0]": "x.a w[]",
    "class C: a = data[0]; b = outer.sum()": "data[] outer.sum",
    "def g(): return data[0], outer[1]": "data[] outer[]",
    "yield from x": "x[]",
    "assert x[0], w[0]": "x[] w[]",
}
STORES = {
    "global data; data = x": "data",
    "global data; data += x": "data",
    "global data; del data": "data",
    "global data\nfor data in x: pass": "data",
    "nonlocal outer; outer = w.a": "outer",
    "class C: nonlocal outer; outer = 1": "outer",
    "x.a = w": "a",
    "del x.a": "a",
    "y = x; x.a = y": "a",
    "x.a, x.b = w": "a b",
    "for w.a in x: pass": "a",
    "with x as w.a: pass": "a",
    "y = w; z = x": "",
}


def code_of(body):
    """The code of f(w, x) with this body."""
    lines = "".join(f"   {line}\n" for line in body.split("\n"))
    code = compile(f"class K:\n def make(outer):\n  def f(w, x):\n{lines}   outer\n  return f\n",
                   "made.py", "exec")
    while code.co_name != "f":
        code = next(inner for inner in code.co_consts if isinstance(inner, types.CodeType))
    return read(code)


def called(value):
    """What a value is known by."""
    return value.name if value.kind in (
        "variable", "global", "attribute") else None


def pairs(code):
    """Which attribute is read of what is called so, and what is looked into: ("x", "[]")."""
    found = set()
    for value in code.everything:
        what = (value.name if value.kind == "attribute" else
                "[]" if value.kind in ("item", "element") else
                "[]" if value.kind == "compare" and value.name == "in" else None)
        part = value.parts[-1 if value.kind == "compare" else 0] if what else None
        if part is not None:
            found |= {(called(x), what) for x in [part, *origins(part)]}
    return found


@pytest.mark.parametrize("body", READS)
def test_what_code_reads_of_names(body):
    code = code_of(body)
    wanted = {tuple(pair.replace("[]", ".[]").split(".")) for pair in READS[body].split()}
    assert wanted <= pairs(code) and not code.unknown


@pytest.mark.parametrize("body", STORES)
def test_what_code_binds(body):
    code = code_of(body)
    bound = {value.name or value.parts[-1].name for value in code.everything if value.kind in (
        "store", "delete", "set attribute", "delete attribute")}
    assert bound & {"data", "outer", "a", "b"} == set(STORES[body].split())
    assert not code.unknown


# What takes the value of `data`, by whatever name: kinds of values.
USES = {
    "return data + 1": "operator",
    "e = data; e.min()": "attribute",
    "e = data\nfor k in x: e = e\nreturn e[0]": "item",
    "e = data if x else w\nreturn -e": "unary",
    "def g(): return data * x\nreturn g()": "operator",
    "return [v * data for v in x]": "operator",
    "return [v * x for v in data]": "element",
    "helper(data)": "call",
    "helper(1, k=data)": "call",
    "helper(*data)": "call",
    "helper(1, *data)": "element",
    "helper(**data)": "element",
    "data.a = 1": "set-attribute",
    "data[0] += 1": "item set-item",
    "x[data:]": "built",
    "y = (data, 1); return y": "built",
    "return f'{data}'": "format",
    "if data: pass": "test",
    "return data is None": "compare",
    "e = data; e += 1; return e": "inplace return",
    "data": "",
}


@pytest.mark.parametrize("body", USES)
def test_what_is_done_with_a_name(body):
    kinds = {value.kind.replace(" ", "-") for value, _ in code_of(body).uses("global", "data")}
    assert kinds - {"other"} == set(USES[body].split())


@pytest.mark.parametrize("body, only", [
    ("return data * x - data / 2", True), ("y = -data; z = data; return z ** x @ data", True),
    ("x += data; return x", True), ("return [v * data for v in x]", True), ("return 1", False),
    ("return x > data", False), ("return data", False), ("return f(data)", False),
    ("return data // 2", False), ("return x if data else 1", False), ("return x[data]", False),
    ("def g(a=data): return a\nreturn g", False), ("def g(): return str(data)\nreturn g", False),
])
def test_a_name_that_is_only_computed_with(body, only):
    assert code_of(body).only_arithmetic("global", "data") is only
    assert code_of(body.replace("data", "outer")).only_arithmetic("cell", "outer") is only
    if "a=" not in body:
        code = code_of(body.replace("data", "w.rate"))
        assert code.only_arithmetic("attribute", "rate") is only


def test_arguments_of_a_function_inside_are_what_it_is_called_with():
    code = code_of("def g(v): return v[0]\nreturn g(data)")
    assert ("data", "[]") in pairs(code)


@pytest.mark.parametrize("name", sorted(dis.opmap))
def test_every_instruction_of_this_python_is_known(name):
    assert known_instruction(name)


def test_an_instruction_that_is_not_known_is_reported(monkeypatch):
    def f(x):
        return x[0] * 2

    opname = "BINARY_SUBSCR" if "BINARY_SUBSCR" in dis.opmap else "BINARY_OP"
    monkeypatch.delitem(instructions._METHODS, opname)
    assert not known_instruction(opname)
    code = values.Code(f.__code__)
    assert code.unknown[0] == (opname, f.__code__.co_firstlineno + 1)
    assert [value.kind for value in code.values][-1] == "return"    # and it goes on


@pytest.mark.parametrize("module", [argparse, inspect, statistics, dis, textwrap, functools])
def test_the_stack_comes_out_even_in_the_standard_library(module):
    with open(module.__file__, encoding="utf-8") as file:
        whole = compile(file.read(), module.__file__, "exec")
    assert [entry for inner in whole.co_consts if isinstance(inner, types.CodeType)
            for entry in read(inner).unknown] == []
