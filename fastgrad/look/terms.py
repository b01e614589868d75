"""Terms: small formulas that simplify what is obvious, and their text in print and in LaTeX."""

import ast
import math
import re
from collections import namedtuple

import numpy as np

from . import symbolic
from .symbolic import evaluate, meaning

LONG = 60                       # parts of a formula, beyond which it is not written out
SHOWN = 6                       # entries of an array


# ---- terms ----------------------------------------------------------------------------------
#
# ("number", v), ("symbol", name, rank), ("sum", ...), ("product", ...) entry by entry,
# ("power", base, exponent), ("call", name, rank, ...), ("compare", sign, a, b), ("bracket",
# comparison): 1 where it holds, else 0; ("chain", ...): a product of matrices; ("diag", v),
# ("transpose", v), ("index", x, text, rank), ("derivative", of, by, sign), and for display alone
# ("plus", ...), ("dot", ...) and ("array", value). Terms are made by the functions below, which
# simplify what is obvious.

Term = namedtuple("Term", "op args")


def number(v):
    return Term("number", (float(v),))


def symbol(name, rank=0):
    return Term("symbol", (name, rank))


def call(name, *operands, rank=None):
    """A function; of the rank of its operands if none is given."""
    return Term("call", (name, rank, *operands))


ZERO, ONE = number(0), number(1)
IDENTITY, ONES = Term("symbol", ("I", 2, "not an array named I")), symbol("1", 1)


def total(*terms):
    """A sum, like terms collected."""
    found = {}
    for term in terms:
        for part in term.args if term.op == "sum" else (term,):
            coefficient, body = _scaled(part)
            found[body] = found.get(body, 0) + coefficient
    terms = [times(number(c), body) for body, c in found.items() if c]
    return Term("sum", tuple(terms)) if len(terms) > 1 else terms[0] if terms else ZERO


def _scaled(term):
    """The number in front of a term, and the rest."""
    if term.op == "number":
        return term.args[0], ONE
    if term.op in ("product", "chain") and term.args[0].op == "number":
        rest = term.args[1:]
        return term.args[0].args[0], rest[0] if len(rest) == 1 else Term(term.op, rest)
    return 1.0, term


def times(*factors):
    """A product entry by entry, equal bases collected."""
    coefficient, powers = 1.0, {}
    for factor in factors:
        for part in factor.args if factor.op == "product" else (factor,):
            c, part = _scaled(part)
            coefficient *= c
            if part.op == "power" and part.args[1].op == "number":
                powers[part.args[0]] = powers.get(part.args[0], 0) + part.args[1].args[0]
            elif part != ONE:
                powers[part] = powers.get(part, 0) + 1
    parts = [power(base, number(e)) for base, e in powers.items() if e]
    if coefficient == 0 or not parts:
        return number(coefficient)
    if len(parts) == 1 and coefficient == 1:
        return parts[0]
    front = () if coefficient == 1 else (number(coefficient),)
    if len(parts) == 1 and (parts[0].op == "chain" or kind(parts[0])[1]):
        return Term("chain", front + (parts[0].args if parts[0].op == "chain" else (parts[0],)))
    return Term("product", front + tuple(parts))


def power(base, exponent):
    if exponent == ONE:
        return base
    if exponent == ZERO:
        return ONE
    if base.op == "number" and exponent.op == "number" and base.args[0] > 0:
        return number(base.args[0] ** exponent.args[0])
    if base.op == "power" and exponent.op == base.args[1].op == "number" \
            and float(exponent.args[0]).is_integer():
        return power(base.args[0], number(base.args[1].args[0] * exponent.args[0]))
    return Term("power", (base, exponent))


def chain(*factors):
    """A product of matrices: numbers go to the front, and a row times a diagonal is a row."""
    front, matrices = [], []
    for factor in factors:
        for part in factor.args if factor.op == "chain" else (factor,):
            if not is_array(part):
                front.append(part)
                continue
            c, part = _scaled(part)
            if part.op == "diag" and matrices and kind(matrices[-1]) == ROW \
                    and matrices[-1].op == "transpose":
                row, = matrices.pop().args
                entries, = part.args
                c2, entries = _scaled(entries if row == ONES else times(row, entries))
                c, part = c * c2, Term("transpose", (entries,))
            front.append(number(c))
            matrices.append(part)
    if any(m != IDENTITY for m in matrices):
        matrices = [m for m in matrices if m != IDENTITY]
    front = times(*front)
    if not matrices or front == ZERO:
        return front
    parts = ([] if front == ONE else [front]) + matrices[:1 if IDENTITY in matrices else None]
    return Term("chain", tuple(parts)) if len(parts) > 1 else parts[0]


def transpose(term):
    c, body = _scaled(term)
    if body.op == "transpose":
        return times(number(c), body.args[0])
    return chain(number(c), Term("transpose", (body,))) if is_array(body) else term


def vector(term):
    """An array as the column of its entries, row by row."""
    return call("vec", term, rank=1) if kind(term) == MATRIX else term


def diagonal(term):
    return Term("diag", (vector(term),)) if is_array(term) else chain(term, IDENTITY)


# Whether a term has rows, and columns.
SCALAR, COLUMN, ROW, MATRIX = (False, False), (True, False), (False, True), (True, True)
OF_RANK = (SCALAR, COLUMN, MATRIX)


def kind(term):
    """Whether a term is a number, a column, a row or a matrix (or has more axes)."""
    op, args = term
    if op == "number" or op in ("derivative", "array"):
        return SCALAR
    if op in ("symbol", "index") or op == "call" and args[1] is not None:
        return OF_RANK[min(args[1] if op != "index" else args[2], 2)]
    if op == "diag":
        return MATRIX
    kinds = [kind(x) for x in args if isinstance(x, Term)]
    if op == "transpose":
        return kinds[0][::-1]
    if op == "chain":
        kinds = [k for k in kinds if k != SCALAR]
        return (kinds[0][0], kinds[-1][1])
    return any(rows for rows, columns in kinds), any(columns for rows, columns in kinds)


def is_array(term):
    return kind(term) != SCALAR


def size_of(term):
    return 1 + sum(size_of(x) for x in term.args if isinstance(x, Term))


def term_row(name, *operands):
    """A row of the operator table as a term."""
    operands = [x if isinstance(x, Term) else _named_number(x) for x in operands]
    row = symbolic.ROWS[name]
    if name in TERMS:
        return TERMS[name](*operands)
    if row.kind == "compare":
        return Term("compare", (row.value.split()[1], *operands))
    formula = meaning(name)
    if formula is None or not row.inner and f"fg_{name}" in row.value:
        return call(name, *operands)
    return evaluate(formula, dict(zip("abc", operands)) | {"pi": symbol("pi")}, term_row)


def _row_or_call(name, *operands):
    return (term_row if name in symbolic.ROWS else call)(name, *operands)


def _named_number(v):
    if v in symbolic.NAMED:
        return evaluate(ast.parse(symbolic.NAMED[v], mode="eval").body, {"pi": symbol("pi")},
                        term_row)
    return number(v)


def _choice(yes, no, mask):
    """where(mask, yes, no). In the formulas of the table what follows an `else` with a condition
    of its own excludes the condition before it, so that the two add up."""
    if mask.op == "compare":
        if no == ZERO:
            return times(yes, Term("bracket", (mask,)))
        if yes == ONE and _scaled(no)[1].op == "bracket":
            return total(Term("bracket", (mask,)), no)
    if mask.op == "number":
        return yes if mask.args[0] else no
    return call("where", mask, yes, no)


TERMS = {
    "add": total, "multiply": times, "power": power, "where": _choice,
    "subtract": lambda a, b: total(a, times(number(-1), b)),
    "divide": lambda a, b: times(a, power(b, number(-1))),
    "negative": lambda a: times(number(-1), a),
    "positive": lambda a: a,
    "maximum": lambda a, b: call("max", a, b), "minimum": lambda a, b: call("min", a, b),
}


# ---- terms as text --------------------------------------------------------------------------

def number_text(v):
    return f"{v:.6g}"


def value_text(value):
    """An array in one line; of a long one the beginning, the end and the shape."""
    value = np.asarray(value)
    if value.ndim == 0:
        return number_text(value[()]) if value.dtype != bool else str(value[()])
    if value.size > 3 * SHOWN:
        flat = value.ravel()
        return (f"[{', '.join(map(value_text, flat[:3]))}, ..., {value_text(flat[-1])}] "
                f"{'x'.join(map(str, value.shape))}")
    return f"[{', '.join(map(value_text, value))}]"


def _level(term):
    """How tightly a term holds together."""
    if term.op in ("sum", "plus", "compare"):
        return 1
    if term.op in ("product", "chain", "dot"):
        return 2
    if term.op == "number":
        return 2 if term.args[0] < 0 else 5
    return 3 if term.op == "power" else 5


class _Text:
    """Terms in plain text."""

    dots, star, space = " · ", "*", " "

    def __call__(self, term, level=0):
        written = getattr(self, term.op)(*term.args)
        return self.group(written) if _level(term) < level else written

    def group(self, written):
        return f"({written})"

    def number(self, v):
        return number_text(v)

    def symbol(self, name, rank=0, remark=None):
        return name

    def array(self, value):
        return value_text(value)

    def derivative(self, of, by, sign):
        return f"{sign}{of}/{sign}{by}"

    def sum(self, *terms):
        written = " + ".join(self(term, 2 if _level(term) == 1 else 0) for term in terms)
        return written.replace("+ -", "- ")

    plus = sum

    def dot(self, *factors):
        return self.dots.join(self(factor, 3 if _level(factor) == 2 and (
            factor.op != "chain" or _scaled(factor)[0] < 0) else 2) for factor in factors)

    def product(self, *factors):
        above = [f for f in factors if not _below(f)]
        below = [power(f.args[0], number(-f.args[1].args[0])) for f in factors if _below(f)]
        sign = ""
        if above and above[0].op == "number" and above[0].args[0] < 0:
            sign, above[0] = "-", number(-above[0].args[0])
            if above[0] == ONE and (len(above) > 1 or not below):
                above = above[1:]
        return sign + (self.fraction(above or [ONE], below) if below else self.factors(above))

    def factors(self, factors):
        return self.star.join(self(f, 2 if len(factors) == 1 else 3) for f in factors)

    def fraction(self, above, below):
        return f"{self.factors(above)}/{self(times(*below), 3)}"

    def power(self, base, exponent):
        if _below(Term("power", (base, exponent))):
            return self.product(Term("power", (base, exponent)))
        return f"{self(base, 4)}^{self(exponent, 4)}"

    def chain(self, *factors):
        sign = ""
        if factors[0] == number(-1):
            sign, factors = "-", factors[1:]
        return sign + self.space.join(self(f, 2 if f.op == "chain" or n == 0 else 3)
                               for n, f in enumerate(factors))

    def transpose(self, x):
        return f"{self(x, 4)}'"

    def diag(self, x):
        return f"diag({self(x)})"

    def index(self, x, where, rank):
        return f"{self(x, 4)}[{where}]"

    def call(self, name, rank, *operands):
        if name == "abs":
            return f"|{self(operands[0])}|"
        return f"{name}({', '.join(map(self, operands))})"

    def compare(self, sign, a, b):
        return f"{self(a)} {sign} {self(b)}"

    def bracket(self, comparison):
        return f"[{self(comparison)}]"


def _below(factor):
    return (factor.op == "power" and factor.args[1].op == "number"
            and factor.args[1].args[0] < 0)


class _Latex(_Text):
    """Terms in LaTeX."""

    KNOWN = {"sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "max",
             "min", "exp"}
    SIGNS = {"<=": r"\le", ">=": r"\ge", "==": "=", "!=": r"\ne"}
    dots, star, space = r" \cdot ", r"\,", r" \, "

    def group(self, written):
        return rf"\left({written}\right)"

    def number(self, v):
        if not math.isfinite(v):
            return {"inf": r"\infty", "-inf": r"-\infty"}.get(str(v), r"\mathrm{NaN}")
        mantissa, _, exponent = number_text(v).partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa

    def symbol(self, name, rank=0, remark=None):
        if name == "pi":
            return r"\pi"
        if name == "1" and rank:
            return r"\mathbf{1}"
        if " -> " in name:
            return r" \to ".join(self.symbol(part) for part in name.split(" -> "))
        letter = re.fullmatch(r"([A-Za-z])_?(\d+)", name)
        if letter:
            return f"{letter[1]}_{{{letter[2]}}}"
        letter = re.fullmatch(r"([A-Z]\d*|m)_(\w+)", name)
        if letter:
            return f"{letter[1]}_{{{self.symbol(letter[2])}}}"
        return name if len(name) == 1 else rf"\mathrm{{{_latex_words(name)}}}"

    def array(self, value):
        value = np.asarray(value)
        if value.size > 3 * SHOWN or value.ndim > 2:
            return rf"\text{{{_latex_words(value_text(value))}}}"
        rows = r" \\ ".join(" & ".join(map(self.number, row)) for row in np.atleast_2d(value))
        return rf"\begin{{bmatrix}} {rows} \end{{bmatrix}}"

    def derivative(self, of, by, sign):
        sign = r"\partial" if sign == "∂" else r"\mathrm{d}"
        return rf"\frac{{{sign} {self.symbol(of)}}}{{{sign} {self.symbol(by)}}}"

    def fraction(self, above, below):
        return rf"\frac{{{self.factors(above)}}}{{{self(times(*below))}}}"

    def power(self, base, exponent):
        if _below(Term("power", (base, exponent))):
            return self.product(Term("power", (base, exponent)))
        return f"{{{self(base, 4)}}}^{{{self(exponent)}}}"

    def transpose(self, x):
        return rf"{{{self(x, 4)}}}^{{\top}}"

    def diag(self, x):
        return rf"\operatorname{{diag}}\left({self(x)}\right)"

    def index(self, x, where, rank):
        return rf"{self(x, 4)}_{{[{_latex_words(where)}]}}"

    def call(self, name, rank, *operands):
        if name == "abs":
            return rf"\left|{self(operands[0])}\right|"
        if name == "sqrt":
            return rf"\sqrt{{{self(operands[0])}}}"
        head = (r"\ln" if name == "log" else rf"\{name}" if name in self.KNOWN
                else rf"\operatorname{{{_latex_words(name)}}}")
        return rf"{head}\left({', '.join(map(self, operands))}\right)"

    def compare(self, sign, a, b):
        return f"{self(a)} {self.SIGNS.get(sign, sign)} {self(b)}"


SPELLED = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}


def _latex_words(words):
    return re.sub(r"[\\{}_^#%&$~]", lambda m: SPELLED.get(m[0], "\\" + m[0]), words)


text = _Text()
latex = _Latex()
