"""The chain rule of one function at one point, step by step, for people.

A `Recording` (see symbolic.py) is read twice: with numbers, and with terms, small formulas that
can be printed. `_Reader` computes both, `_sections` says in which order a person wants to read
them, and `Explanation` prints the sections as text, LaTeX or HTML.
"""

import ast
import html
import inspect
import math
import re
from collections import namedtuple

import numpy as np

from fastgrad._operators.shaped import SHAPED
from fastgrad.graphs.walk import Meaning

from . import symbolic
from .symbolic import Recording, evaluate, numbers
from .terms import (
    IDENTITY,
    LONG,
    ONE,
    ONES,
    SHOWN,
    ZERO,
    Term,
    _latex_words,
    _named_number,
    _row_or_call,
    call,
    chain,
    diagonal,
    is_array,
    latex,
    number,
    size_of,
    symbol,
    term_row,
    text,
    times,
    total,
    transpose,
    value_text,
    vector,
)

__all__ = ["Explanation", "explain"]

FEW_PATHS = 6                   # as many are written out one by one
MANY_ROWS = 40                  # of a table; the middle of longer ones is left out
FEW_LINKS = 8                   # of a path
DENSE = 1_000_000               # entries of all Jacobians of the forward sweep together
WIDE = 40                       # a cell; wider ones are not aligned


# ---- the graph in terms and in numbers ------------------------------------------------------

# One local derivative: of node `of` by node `by`.
Link = namedtuple("Link", "of by term rows columns slopes note")


class _Reader:
    """The names, formulas, local derivatives and both sweeps of a recording."""

    def __init__(self, recording, f, kwargs):
        self.recording = recording
        self.nodes = recording.nodes
        self.values = [np.asarray(v, np.float64) for v in recording.values]
        self.leaves = [i for i, node in enumerate(self.nodes) if node.op == "argument"]
        self.output = recording.output
        depends = symbolic.active(recording)
        self.steps = [i for i in range(len(self.nodes)) if depends[i] and i not in self.leaves]
        self.constants = {}
        self._name(_surroundings(f, kwargs))
        self.symbols = [self._symbol(i) for i in range(len(self.nodes))]
        self.formulas = {i: self._formula(i, self.symbols) for i in self.steps}
        self.links = self._links()          # in the order of the nodes they lead to
        self.into, self.out_of = [[[] for node in self.nodes] for _ in range(2)]
        for link in self.links:
            self.into[link.of].append(link)
            self.out_of[link.by].append(link)
        self.expanded = self._expand()
        self.adjoints = self._reverse()
        self.tangents = {leaf: self._forward(leaf) for leaf in self.leaves}

    # ---- names

    def _name(self, surroundings):
        taken = {re.match(r"\w+", path)[0] for path in self.recording.paths} | set(surroundings)
        self.result = next(name for name in ("y", "z", "r", "result_") if name not in taken)
        letter = next(c for c in ("u", "v", "t", "s_") if not any(
            re.fullmatch(rf"{c}\d+", name) for name in taken))
        self.names = [None] * len(self.nodes)
        for leaf, path in zip(self.leaves, self.recording.paths):
            self.names[leaf] = path
        for count, i in enumerate(self.steps, 1):
            self.names[i] = self.result if i == self.output else f"{letter}{count}"
        for i, node in enumerate(self.nodes):
            if node.op == "constant" and self.values[i].ndim:
                found = [name for name, value in surroundings.items()
                         if np.shape(value) == self.values[i].shape
                         and np.array_equal(value, self.values[i])]
                self.names[i] = found[0] if found else self._constant_name(i, taken)
                self.constants[self.names[i]] = self.values[i]

    def _constant_name(self, i, taken):
        for name, value in self.constants.items():
            if np.array_equal(value, self.values[i]):
                return name
        count = len(self.constants) + 1
        while f"c{count}" in taken:
            count += 1
        return f"c{count}"

    def _symbol(self, i):
        if self.names[i] is None:
            return _named_number(float(self.values[i]))
        return symbol(self.names[i], self.values[i].ndim)

    def _formula(self, i, terms):
        node = self.nodes[i]
        return _Formulas(self._shapes(i)).operation(node, [terms[k] for k in node.operands])

    def _shapes(self, i):
        return [self.values[k].shape for k in self.nodes[i].operands]

    # ---- local derivatives

    def _links(self):
        found = {}
        for i, k in symbolic.edges(self.recording):
            by = self.nodes[i].operands[k]
            operands = [self.values[j] for j in self.nodes[i].operands]
            entries = symbolic.jacobian_entries(self.nodes[i], k, operands, self.values[i],
                                                 numbers)
            term, note = _structure(
                self.nodes[i], k, [self.symbols[j] for j in self.nodes[i].operands],
                self.symbols[i], self._shapes(i), self.names[i])
            link = Link(i, by, term, *entries, note)
            other = found.get((i, by))
            found[i, by] = link if other is None else Link(i, by, total(other.term, term), *[
                np.concatenate(pair) for pair in zip(other[3:6], entries)], other.note or note)
        return list(found.values())

    # ---- formulas with the intermediate variables substituted back

    def _expand(self):
        expanded = list(self.symbols)
        for i in self.steps:
            formula = self._formula(i, expanded)
            if size_of(formula) <= LONG:
                expanded[i] = formula
        return expanded

    def derivative(self, leaf):
        """The derivative of the result by a leaf as one formula; None if it would be long."""
        if self.output is None:
            return ZERO
        adjoints = {self.output: ONE}
        for link in reversed(self.links):
            if link.of not in adjoints:
                continue
            node = self.nodes[link.of]
            term = total(*[_structure(node, k, [self.expanded[j] for j in node.operands],
                                      self.expanded[link.of], self._shapes(link.of),
                                      self.names[link.of])[0]
                           for k, operand in enumerate(node.operands)
                           if operand == link.by and (node.op, k) not in symbolic.NO_PATH])
            multiply = chain if self.has_arrays(link) else times
            term = multiply(adjoints[link.of], term)
            adjoints[link.by] = total(adjoints[link.by], term) if link.by in adjoints else term
            if size_of(adjoints[link.by]) > 2 * LONG:
                return None
        return adjoints.get(leaf, ZERO)

    def has_arrays(self, link):
        return bool(self.values[link.of].ndim or self.values[link.by].ndim)

    # ---- sweeps

    def _reverse(self):
        return symbolic.reverse([(link.of, link.by, link.rows, link.columns, link.slopes)
                                  for link in self.links], self.output, self.values, self._product)

    def _product(self, node, later, earlier):
        """The chain rule's product at a node: of an adjoint and slopes, or slopes and a tangent."""
        finite = self.output is None or bool(np.isfinite(self.values[self.output]).all())
        op = self.nodes[node].op
        # What is not taken has no path to the result, whatever that is.
        if finite or (SHAPED[op].selects if op in SHAPED else
                      op in symbolic.ROWS and symbolic.ROWS[op].mask):
            return numbers("weigh", later, earlier)
        return numbers("chain", later, earlier, False)

    def _forward(self, leaf):
        """The Jacobian of every node by a leaf; None if they are too large together."""
        lanes = self.values[leaf].size
        if lanes * sum(v.size for v in self.values) > DENSE:
            return None
        tangents = [np.zeros((v.size, lanes)) for v in self.values]
        tangents[leaf] = np.eye(lanes)
        for link in self.links:
            np.add.at(tangents[link.of], link.rows,
                      self._product(link.of, link.slopes[:, None], tangents[link.by][link.columns]))
        return tangents

    # ---- paths

    def paths(self, leaf):
        """The ways from the result to a leaf, as lists of links; None if there are many."""
        users = {leaf}
        for link in self.links:
            if link.by in users:
                users.add(link.of)
        done, ways = [], [(self.output, [])] if self.output in users else []
        while ways:
            end, way = ways.pop()
            if end == leaf:
                done.append(way)
            ways += [(link.by, [*way, link]) for link in reversed(self.into[end])
                     if link.by in users]
            if len(done) + len(ways) > FEW_PATHS:
                return None
        return done


def _surroundings(f, kwargs):
    """Arrays that f finds around it, by name."""
    try:
        found = inspect.getclosurevars(f)
        found = {**found.globals, **found.nonlocals, **kwargs}
    except (TypeError, ValueError):
        found = dict(kwargs)
    return {name: value for name, value in found.items()
            if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "fiub"}


# ---- operators in matrices ------------------------------------------------------------------

class _Formulas(Meaning):
    """Nodes as terms of their operands, which have those shapes."""

    def __init__(self, shapes):
        self.shapes = shapes

    def elementwise(self, node, x):
        return term_row(node.op, *x)

    def operator(self, node, x):
        row, options, which = node.attribute
        how = [symbol(f"{name}={value}") for name, value in options.items()
               if value is not None and value is not False]
        term = call(row.name, *x, *how, rank=len(node.shape))
        return term if row.returns == 1 else Term("index", (term, str(which), len(node.shape)))

    def product(self, node, x):
        rows, columns = map(len, self.shapes)
        if rows == 1:
            a, b = x if columns == 1 else x[::-1]
            return chain(transpose(a), b)
        return chain(*x)

    def reduces(self, node, x):
        how = ["axis=" + ", ".join(map(str, node.attribute))] if node.shape else []
        return call(node.op, *x, *map(symbol, how), rank=len(node.shape))

    def moves(self, node, x):
        row = SHAPED[node.op]
        if row.option == "order" and node.attribute == (1, 0):
            return transpose(x[0])
        if row.converts:
            return call(node.dtype.name, *x)
        how = [str(getattr(node, row.option))] if row.option in ("shape", "attribute") else []
        if row.index in ("read", "replaced"):
            index = _index_text(node.attribute)
            if len(x) == 1:
                return Term("index", (x[0], index, len(node.shape)))
            how = [f"[{index}]"]
        return call(node.op, x[0], *map(symbol, how), *x[1:], rank=len(node.shape))

    def custom(self, node, x):          # it has no local derivative to show either
        return ZERO

    result = custom


def _index_text(index):
    if isinstance(index, tuple):
        return ", ".join(map(_index_text, index))
    if isinstance(index, slice):
        parts = ["" if x is None else str(x) for x in (index.start, index.stop, index.step)]
        return ":".join(parts[:2] if parts[2] in ("", "1") else parts)
    if index is Ellipsis:
        return "..."
    if isinstance(index, np.ndarray):
        return value_text(index) if index.size <= SHOWN else f"{index.size} places"
    return str(index)


def _holds(term, part):
    """Whether a term stands in another one."""
    return term == part or isinstance(term, Term) and any(_holds(a, part) for a in term.args)


def _structure(node, k, x, y, shapes, name):
    """The Jacobian of a node by operand k as a term, and what its letters stand for."""
    op, shape = node.op, shapes[k]
    if op == "operator":
        letter = symbol(f"J_{name}", 2) if len(shapes) == 1 else symbol(f"J{k}_{name}", 2)
        return letter, f"{letter.args[0]}: the slopes of {node.attribute.row.name}"
    if op == "as_written":
        return (IDENTITY if shape else ONE), (
            "an even power of a root is differentiated as what stands under it")
    if symbolic.ROWS[op].kind != "shaped":
        slope = symbolic.partial(op, k, x, y, node.tie, term_row)
        slope = slope if isinstance(slope, Term) else _named_number(slope)
        if shape == node.shape:
            if any(other not in ((), shape) and _holds(slope, term)
                   for term, other in zip(x, shapes)):
                letter = symbol(f"D{k}_{name}", 2)
                return letter, (f"{letter.args[0]}: a diagonal matrix of {text(slope)}, repeated "
                                f"to {shape}")
            return (diagonal(slope) if shape else slope), ""
        if not shape:
            return (vector(slope) if is_array(slope) else chain(slope, ONES)), "a column"
        return chain(diagonal(slope), symbol(f"B_{name}", 2)), f"B_{name} repeats entries"
    row = SHAPED[op]
    if row.bilinear and max(map(len, shapes)) <= 2:
        other, ranks = x[1 - k], tuple(map(len, shapes))
        if ranks == (1, 1):
            return transpose(other), ""
        if ranks == (2, 1) and k == 1:
            return other, ""
        if ranks == (1, 2) and k == 0:
            return transpose(other), ""
        factors = (IDENTITY, transpose(other)) if k == 0 else (
            transpose(other) if ranks[0] == 1 else other, IDENTITY)
        return call("kron", *factors, rank=2), "blocks: kron is the Kronecker product"
    if row.reduces and not node.shape:
        formula, note = row.to_number
        letter = symbol(f"m_{name}", 1)
        entries = evaluate(ast.parse(formula, mode="eval").body,
                           {"a": x[0], "y": y, "m": letter, "ones": ONES}, _row_or_call)
        return transpose(vector(entries)), note.format(m=letter.args[0])
    words = row.words(node, k) if callable(row.words) else row.words
    if words is None:
        return (IDENTITY if node.shape or shape else ONE), ""
    if words[0] == "R" and not node.shape:
        place = row.route(node, k, shapes)[1][0]
        return transpose(symbol(f"e{place}", 1)), f"row {place} of the identity"
    letter = f"{words[0]}_{name}"
    return symbol(letter, 2), f"{letter}: {words[1]}"


# ---- what is told ---------------------------------------------------------------------------

# rows: (cells, note), the cells of a row being equal to each other.
Section = namedtuple("Section", "title words rows")


def _derivative(of, by):
    return Term("derivative", (of, by, "d"))


def _local(of, by):
    """With the other operands held fixed."""
    return Term("derivative", (of, by, "∂"))


def _array(value):
    return number(value) if np.ndim(value) == 0 else Term("array", (np.asarray(value),))


def _sum_of(products):
    """Products that are shown as a sum."""
    return Term("plus", tuple([Term("dot", factors) for factors in products]))


def _matrix(jacobian, of, by):
    """A Jacobian as it is shown: a number, or an array."""
    return _array(jacobian[0, 0] if of.ndim == by.ndim == 0 else jacobian)


def _sections(reader):
    r, name = reader, reader.names
    leaves = ", ".join(name[leaf] for leaf in r.leaves)
    sections = [Section(f"{r.result} = f({leaves})", [], [
        ((r.symbols[leaf], _array(r.values[leaf])), _shape_text(r.values[leaf].shape))
        for leaf in r.leaves] + [
        ((symbol(constant), _array(value)), _shape_text(value.shape) + ", constant")
        for constant, value in r.constants.items()])]
    if r.output is None:
        value = number(np.asarray(r.recording.result).item())
        sections.append(Section("Derivatives", [
            f"{r.result} does not depend on {leaves}; its derivatives are 0."],
            [((symbol(r.result), value), "")] + [
                ((_derivative(r.result, name[leaf]), _array(np.zeros(r.values[leaf].shape))), "")
                for leaf in r.leaves]))
        return sections
    rows = [((r.symbols[i], r.formulas[i], _array(r.values[i])), _shape_text(r.values[i].shape))
            for i in r.steps]
    if not r.steps:
        sections.append(Section("The derivative", [f"f returns {name[r.output]} itself."], []))
        return sections + [_rule_section(r, leaf) for leaf in r.leaves]
    whole = r.expanded[r.output]
    if len(r.steps) > 1 and whole != r.symbols[r.output]:
        rows.append(((r.symbols[r.output], whole), "together"))
    sections.append(Section("Intermediate variables", [], rows))
    sections.append(Section("Local derivatives", [], [_local_row(r, link) for link in r.links]))
    sections += [_forward_section(r, leaf) for leaf in r.leaves]
    sections.append(_reverse_section(r))
    sections += [_rule_section(r, leaf) for leaf in r.leaves]
    return sections


def _shape_text(shape):
    return f"shape {shape}" if shape else ""


def _sizes(r, *nodes):
    """The Jacobian shapes along a chain: (1,3) = (1,2)(2,3)."""
    sizes = [r.values[i].size for i in nodes]
    product = "".join(f"({m},{n})" for m, n in zip(sizes, sizes[1:]))
    return f"({sizes[0]},{sizes[-1]})" + (f" = {product}" if len(sizes) > 2 else "")


def _local_row(r, link):
    cells = [_local(r.names[link.of], r.names[link.by]), link.term]
    if not r.has_arrays(link):
        value = number(link.slopes.sum())
        return tuple(cells + [value] if value != link.term else cells), ""
    shapes = _sizes(r, link.of, link.by)
    return tuple(cells), f"{shapes}; {link.note}" if link.note else shapes


def _forward_section(r, leaf):
    tangents = r.tangents[leaf]
    x = r.names[leaf]
    size = r.values[leaf].size
    passes = "one pass" if size == 1 else f"{size} passes, one for each entry of {x}"
    title = f"Forward accumulation by {x}, from {x} to {r.names[r.output]}: {passes}"
    if tangents is None:
        return Section(title, ["Left out: the Jacobians would be large. Reverse accumulation below "
                               "does without them."], [])
    reached = {leaf}
    rows = [((_derivative(x, x), _matrix(tangents[leaf], r.values[leaf], r.values[leaf])), "")]
    for i in r.steps:
        links = [link for link in r.into[i] if link.by in reached]
        if not links:
            continue
        reached.add(i)
        cells = [_derivative(r.names[i], x), _sum_of([
            (_local(r.names[i], r.names[link.by]), _derivative(r.names[link.by], x))
            for link in links])]
        plain = not r.values[leaf].ndim and not any(r.has_arrays(link) for link in links)
        if plain:
            cells.append(_sum_of([(number(link.slopes.sum()), number(tangents[link.by][0, 0]))
                                  for link in links]))
        cells.append(_matrix(tangents[i], r.values[i], r.values[leaf]))
        rows.append((tuple(cells), "" if plain else _sizes(r, i, leaf)))
    words = [] if r.output in reached else [f"{r.names[r.output]} does not depend on {x}."]
    return Section(title, words, rows)


def _reverse_section(r):
    y = r.names[r.output]
    rows = [((_derivative(y, y), ONE), "")]
    for i in reversed(r.leaves + r.steps):
        links = r.out_of[i]
        if i == r.output or not links:
            continue
        cells = [_derivative(y, r.names[i]), _sum_of([
            (_derivative(y, r.names[link.of]), _local(r.names[link.of], r.names[i]))
            for link in links])]
        plain = not any(r.has_arrays(link) for link in links)
        if plain:
            cells.append(_sum_of([(number(r.adjoints[link.of][0]), number(link.slopes.sum()))
                                  for link in links]))
        cells.append(_matrix(r.adjoints[i][None], r.values[r.output], r.values[i]))
        rows.append((tuple(cells), "" if plain else _sizes(r, r.output, i)))
    inputs = ", ".join(r.names[leaf] for leaf in r.leaves)
    return Section(f"Reverse accumulation, from {y} to {inputs}: one pass", [], rows)


def _rule_section(r, leaf):
    """The rule that applies, with its name, and the result."""
    x, y = r.names[leaf], r.names[r.output]
    left, gradient = _derivative(y, x), _array(r.adjoints[leaf].reshape(r.values[leaf].shape))
    paths = r.paths(leaf)
    if paths == []:
        return Section(f"The derivative by {x}", [f"{y} does not depend on {x}."],
                       [((left, gradient), "")])
    vectors = any(map(r.has_arrays, r.links if paths is None else sum(paths, [])))
    rule, words = _rule(x, y, paths, vectors)
    if paths is None or max(map(len, paths)) > FEW_LINKS:
        words.append(f"Collected where {x} is used:")
        rows = [((left, _sum_of([(_derivative(y, r.names[link.of]), _local(r.names[link.of], x))
                                 for link in r.out_of[leaf]])), "")]
    else:
        rows = [_path_row(r, path, len(paths) > 1, vectors) for path in paths if path]
    for i in r.steps:
        if r.nodes[i].op == "multiply" and len(r.into[i]) == 2 and any(
                link.of == i for path in paths or [] for link in path):
            a, b = [r.names[k] for k in r.nodes[i].operands]
            words.append(f"Product rule at {r.names[i]} = {a}*{b}: "
                         f"d{r.names[i]} = {b}*d{a} + {a}*d{b}")
    formula = r.derivative(leaf)
    cells = (left,) if formula is None else (left, formula)
    cells += (gradient,) if gradient != cells[-1] else ()
    rows.append((cells, _sizes(r, r.output, leaf) if vectors else ""))
    return Section(f"The derivative by {x}: {rule}", words, rows)


def _rule(x, y, paths, vectors):
    """The name of the rule for those ways from x to y, and a sentence that says why."""
    if paths is None or len(paths) > 1:
        many = "many" if paths is None else len(paths)
        words = [f"{x} reaches {y} in {many} ways; their contributions are added."]
        if vectors:
            return "vector chain rule", words
        return "single-variable total-derivative chain rule", words
    if vectors:
        return "vector chain rule", ["Jacobians are multiplied; the inner sizes must agree:"]
    if len(paths[0]) < 2:
        return "a single step", []
    return "single-variable chain rule", [
        f"{x} reaches {y} in one way, so the sum of the total-derivative chain rule collapses to "
        "one product:"]


def _path_row(r, path, one_of_many, vectors):
    """One way from an argument to the result: its local derivatives and their product."""
    nodes = [r.output, *[link.by for link in path]]
    head = symbol(" -> ".join(r.names[i] for i in reversed(nodes))) if one_of_many else \
        _derivative(r.names[nodes[0]], r.names[nodes[-1]])
    cells = [head, Term("dot", tuple([_local(r.names[link.of], r.names[link.by])
                                      for link in path])),
             Term("dot", tuple([link.term for link in path]))]
    if vectors:
        return tuple(cells), _sizes(r, *nodes)
    slopes = [link.slopes.sum() for link in path]
    with np.errstate(all="ignore"):
        product = number(math.prod(slopes))
    cells += [Term("dot", tuple(map(number, slopes))), product]
    written = [text(cell) for cell in cells]
    return tuple([cell for k, cell in enumerate(cells) if written[k] not in written[:k]]), ""


# ---- what is returned -----------------------------------------------------------------------

class Explanation:
    """How a derivative comes about; `print` it, or let a notebook show it.

    Attributes
    ----------
    value : float
        The result of the function.
    forward, reverse : tree of float and ndarray
        The gradient, from forward and from reverse accumulation: built like the argument, a tuple
        where the function was given several. A leaf of `forward` is None where accumulating
        forwards would have needed large Jacobians.
    """

    def __init__(self, reader):
        self._sections = _sections(reader)
        self.value = float(np.asarray(reader.recording.result).item())

        def gradient(flat, leaf):
            shaped = flat.reshape(reader.values[leaf].shape)
            return shaped if shaped.ndim else float(shaped)

        self.reverse = reader.recording.tree([
            gradient(reader.adjoints[leaf], leaf) for leaf in reader.leaves])
        self.forward = self.reverse if reader.output is None else reader.recording.tree([
            None if reader.tangents[leaf] is None
            else gradient(reader.tangents[leaf][reader.output], leaf) for leaf in reader.leaves])

    def __str__(self):
        return "\n\n".join(_text_section(section) for section in self._sections)

    __repr__ = __str__

    def latex(self):
        """The same in LaTeX, one `aligned` block for each section.

        Returns
        -------
        str
        """
        return "\n\n".join(_latex_section(section) for section in self._sections)

    def _repr_latex_(self):
        return "\n\n".join(f"$\\displaystyle {block}$" for block in self.latex().split("\n\n"))

    def _repr_html_(self):
        return "<div>" + "".join(_html_section(section) for section in self._sections) + "</div>"


def _shortened(rows):
    """The rows of a table, the middle of a long one replaced by a remark."""
    if len(rows) <= MANY_ROWS:
        return rows
    half = MANY_ROWS // 2
    return [*rows[:half], ((), f"... {len(rows) - 2 * half} more ..."), *rows[-half:]]


def _text_section(section):
    lines = [section.title, *["  " + words for words in section.words]]
    rows = [([text(cell) for cell in cells], note) for cells, note in _shortened(section.rows)]
    widths = [max((len(cells[k]) for cells, note in rows if k + 1 < len(cells)
                   and len(cells[k]) <= WIDE), default=0)
              for k in range(max((len(cells) for cells, note in rows), default=0))]
    for cells, note in rows:
        last = len(cells) - 1
        line = " = ".join(cell if k == last else cell.ljust(widths[k])
                          for k, cell in enumerate(cells))
        lines.append("  " + line + ("   " if cells and note else "") + note)
    return "\n".join(lines)


def _latex_section(section):
    lines = [rf"&\textbf{{{_latex_words(section.title)}}}"]
    lines += [rf"&\text{{{_latex_words(words)}}}" for words in section.words]
    for cells, note in _shortened(section.rows):
        line = latex(cells[0]) + " &= " + " = ".join(map(latex, cells[1:])) if cells else "&"
        lines.append(line + (rf" \quad \text{{{_latex_words(note)}}}" if note else ""))
    return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _html_section(section):
    words = "".join(f"<p>{html.escape(words)}</p>" for words in section.words)
    rows = "".join("<tr>" + "".join(
        f'<td style="text-align:left"><code>{"" if k == 0 else "= "}{html.escape(text(cell))}'
        "</code></td>" for k, cell in enumerate(cells)) + f"<td>{html.escape(note)}</td></tr>"
        for cells, note in _shortened(section.rows))
    return f"<h4>{html.escape(section.title)}</h4>{words}<table>{rows}</table>"


def explain(f, /, *x, **kwargs):
    """The chain rule of a function at a point, step by step.

    Names the intermediate variables, writes down their formulas, values and local derivatives,
    accumulates derivatives forwards (one input at a time) and in reverse (all inputs at once), and
    puts the product together under the name of the rule that applies, at last with the
    intermediate variables substituted back.

    Parameters
    ----------
    f : callable
        Returns one number.
    *x
        Where: floats, arrays, or trees of them; the derivatives are those by all of them.
    **kwargs
        Keyword arguments of f.

    Returns
    -------
    Explanation
        To be printed, with `latex()`, and shown as HTML in a notebook. Jacobians are in numerator
        layout, arrays flattened row by row; ' is the transpose, 1' a row of ones, I the identity,
        ``[a > 0]`` is 1 where that holds and 0 elsewhere.

    Raises
    ------
    TypeError
        If an argument has no derivative, or f returns no number.
    ValueError
        If f returns an array of more than one entry.
    NotImplementedError
        If f contains derivative rules written in Python.

    References
    ----------
    The names of the rules are those of T. Parr and J. Howard, "The matrix calculus you need for
    deep learning", arXiv:1802.01528.

    Examples
    --------
    >>> print(fg.explain(lambda x: np.log(np.sin(x)), 1.0))
    y = f(x)
      x = 1
    ...
    Local derivatives
      ∂u1/∂x = cos(x) = 0.540302
      ∂y/∂u1 = 1/u1   = 1.1884
    ...
    Reverse accumulation, from y to x: one pass
      dy/dy  = 1
      dy/du1 = dy/dy · ∂y/∂u1  = 1 · 1.1884        = 1.1884
      dy/dx  = dy/du1 · ∂u1/∂x = 1.1884 · 0.540302 = 0.642093
    ...
      dy/dx = cos(x)/sin(x)   = 0.642093
    """
    recording = Recording("explain", f, x, kwargs)
    return Explanation(_Reader(recording, f, kwargs))
