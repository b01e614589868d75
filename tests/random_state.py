"""Draws functions with state: attributes, lists, counters, cells, globals, arrays changed in place,
draws, branches and loops over them, and what is changed between the calls.

A program is text, a story as worlds.py tells them, made from a seed. `wrong` runs it plain and
compiled side by side; `shrink` takes lines away as long as the two still differ.

    python tests/random_state.py --seed 1 --count 2000      those that differ, made small
    python tests/random_state.py --seed 1 --only 17         one of them
"""

import argparse
import math
import random
import re
import sys
import warnings

import numpy as np
import worlds

STEPS = worlds.STEPS

# What a story starts with: lines that are dropped where nothing names what they make.
START = """\
global rate, weights, calls
rate, weights, calls = {a}, np.array([{a}, {b}, -{c}]), 0
cell, last = {b}, None
vector, buffer = np.array([{b}, {a}, {c}]), np.zeros(3)
hist, table, mode, count = [{a}, {b}], {{"a": {c}, "b": {a}}}, "up", 2
rng, coin = np.random.default_rng({k}), random.Random({k})
order = np.array([2, 0, 1])
class Model:
    factor = {c}
    def __init__(self):
        self.scale, self.n, self.m, self.parts = {b}, 0, np.zeros(3), [{c}]
    def scaled(self, y):
        return y * self.scale
    def step(self, y):
        self.n += 1
        return y / self.n
model = Model()
def helper(y):
    return y * rate + cell
def tick():
    global calls
    calls += 1
    return calls
""".splitlines()

LOOKED_AT = ("lambda: (rate, weights, calls, cell, last, vector, buffer, hist, table, mode, count, "
             "model, order, rng.bit_generator.state['state'], coin.getstate()[1][:3])")

# {v}: an array of three, {t}: a number, {w} and {u}: new names of such, {c}: a constant.
VECTORS = """
{w} = {v} * {c}
{w} = np.sin({v}) + {t}
{w} = np.tanh({v}) - {v}
{w} = np.maximum({v}, {c})
{w} = np.where({v} > {c}, {v}, -{v})
{w} = np.sort({v})
{w} = {v}[::-1] * {c}
{w} = np.exp(-{v} * {v})
{w} = {v} * rate
{w} = {v} * weights
{w} = helper({v})
{w} = {v} + cell
{w} = {v} * vector - buffer
{w} = model.scaled({v})
{w} = {v} * Model.factor
{w} = {v} + 0.1 * model.m
{w} = {v}[order]
{w} = {v}[np.argsort({v})] * vector
{w} = np.stack([{t}, {v}[0], hist[-1] + 0.0 * {t}])
{w} = {v} * (1.0 if mode == "up" else -1.0)
{w} = {v} * np.sum(weights > 0)
{w} = {v} * float(np.max(weights))
{w} = {v} + rng.normal(size=3)
{w} = {v} * (order == 1)
{w} = {v} * 1.0; {w}[{w} > {c}] = 0.0
{w} = {v} * 1.0; {w}[np.argmax({v})] = {t}
{w} = {v} * 1.0; {w}[order[0]] += {t}
{w} = {v} * 1.0; {w}[1:] += {v}[:-1]
{w} = np.zeros(3) + {v}; {w} += vector
""".strip().splitlines()

NUMBERS = """
{u} = np.sum({v})
{u} = {v}[0] * {c}
{u} = np.max({v}) - {t}
{u} = np.dot({v}, {v})
{u} = np.sin({t}) * rate
{u} = {t} * cell + {c}
{u} = {t} * sum(hist)
{u} = {t} * len(hist)
{u} = {t} + table["a"]
{u} = {t} + table.get("c", {c})
{u} = {t} * model.scale
{u} = {t} * model.step({t})
{u} = {t} + tick()
{u} = {t} / (1 + calls)
{u} = {t} * coin.random()
{u} = {t} + hist[0]
{u} = {t} * weights.max() + vector[1]
{u} = {t} * np.mean(weights)
{u} = {v}[np.argmax({v})]
{u} = {v}[order[0]] * order[1]
{u} = {t} * np.count_nonzero({v} > {c})
{u} = np.sum({v}[{v} > {c}])
{u} = {t} * getattr(model, "scale")
{u} = {t} * globals()["rate"]
{u} = {t} * (2.0 if last is None else 0.5)
{u} = {t} + sum(part * {t} for part in model.parts)
{u} = {t} * max(hist)
{u} = {t} ** count
{u} = float({t}) + {t}
{u} = {t} * (2.0 if any(h > {c} for h in hist) else 1.0)
""".strip().splitlines()

STORES = """
calls += 1
tick()
cell = 0.5 * cell + 1.0
cell = cell + 0.1 * np.tanh({t})
last = {v}
last = {t}
rate = rate * 1.5
hist.append(1.0)
hist.append({t})
hist.append(float(np.tanh({t})))
hist[0] = hist[0] + 1.0
hist.reverse()
table["a"] = table["a"] * 2.0
table["c"] = {t}
table["b"] = table.pop("a"); table["a"] = 1.0
model.n += 1
model.scale = model.scale * 0.5 + 0.1
model.m = 0.9 * model.m + {v}
model.parts.append({c})
buffer[:] = {v}
buffer[1] = {t}
buffer += 1.0
np.multiply({v}, 2.0, out=buffer)
vector[0] += 1.0
weights *= 0.5
mode = "down" if mode == "up" else "up"
order[:] = order[::-1]
rng.normal()
if len(hist) > 3: hist.pop()
if last is not None: last = None
vector[0] += 1.0; {u} = np.sum({v} * vector); vector[0] -= 1.0
""".strip().splitlines()

CONDITIONS = """
{t} > {c}
{v}[0] > {c}
np.sum({v}) > {c}
np.any({v} > 2.0)
calls % 2
len(hist) > 2
mode == "up"
weights[0] > {c}
rate > {c}
model.n > 1
cell > {c}
last is None
hist[-1] > {c}
np.argmax({v}) == order[0]
""".strip().splitlines()

LOOPS = """
for k in range(count):
for k in range(len(hist)):
for k in range(int(np.argmax({v})) + 1):
for h in hist[:3]:
for part in model.parts[:2]:
for k in order[:2]:
for k in range(np.count_nonzero({v} > {c})):
""".strip().splitlines()

IMPURE = re.compile(r"tick|step\(|rng|coin")

CHANGES = """
rate = {c}
rate = {k}
weights[{i}] = {c}
weights = np.array([{c}, -{c}, 1.0])
calls = {k}
cell = {c}
vector[{i}] *= -1.5
vector = vector + 1.0
buffer[:] = {c}
hist.append({c})
hist[0] = {c}
hist.clear(); hist.append({c})
table["a"] = {c}
table["c"] = {c}
mode = "down" if mode == "up" else "up"
count = {k}
model.scale = {c}
model.n = 0
model.m = np.full(3, {c})
model.parts[0] = {c}
Model.factor = {c}
Model.scaled = lambda self, y: y * self.scale + {c}
model.scaled = lambda y: y - {c}
order[:] = np.roll(order, 1)
last = None
rng = np.random.default_rng({k})
coin.seed({k})
helper = lambda y: y * {c}
pass
pass
""".strip().splitlines()


class Drawn:
    """Draws the text of one story. More than half of the functions change nothing and draw nothing
    themselves, so that there is something to be replayed."""

    def __init__(self, seed):
        self.rng = random.Random(repr(seed))
        self.made = 0
        self.pure = self.rng.random() < 0.6

    def form(self, forms):
        if self.pure:
            forms = [form for form in forms if not IMPURE.search(form)]
        return self.rng.choice(forms)

    def constant(self):
        return round(self.rng.uniform(0.2, 2.5), 2)

    def filled(self, form, names, indent):
        """Lines of a form; the names that it makes are known from then on."""
        made = {}

        def part(place):
            key = place[1]
            if key in "vt":
                return self.rng.choice(names[key][-4:])
            if key in "wu":
                if key not in made:
                    self.made += 1
                    made[key] = f"{key}{self.made}"
                return made[key]
            return str(self.constant() if key == "c" else
                       self.rng.randint(*((1, 3) if key == "k" else (0, 2))))

        text = re.sub(r"\{(\w)\}", part, form)
        for key, name in made.items():
            names["v" if key == "w" else "t"].append(name)
        return [indent + line for line in ([text] if text.startswith("if ") else text.split("; "))]

    def block(self, names, size, depth):
        """Statements; those in branches and loops make no names for others."""
        indent, lines = "    " * depth, []
        for _ in range(size):
            kind = self.rng.random()
            if kind < 0.3:
                lines += self.filled(self.form(VECTORS), names, indent)
            elif kind < 0.6:
                lines += self.filled(self.form(NUMBERS), names, indent)
            elif kind < 0.78 or depth > 2:
                lines += self.filled(self.form(NUMBERS if self.pure else STORES), names, indent)
            elif kind < 0.9:
                lines += self.branch(names, depth)
            elif kind < 0.96:
                head = self.filled(self.rng.choice(LOOPS), names, indent)
                inner = {key: list(found) for key, found in names.items()}
                target = self.rng.choice(names["t"])
                lines += [*head, *self.block(inner, 1, depth + 1),
                          f"{indent}    {target} = 0.5 * {target} + {self.rng.choice(inner['t'])}"]
            else:
                lines += self.careful(names, depth)
        return lines

    def branch(self, names, depth):
        indent = "    " * depth
        head = self.filled("if " + self.rng.choice(CONDITIONS) + ":", names, indent)
        target, lines = self.rng.choice(names["t"]), head
        for k in range(self.rng.randint(1, 2)):
            if k:
                lines.append(indent + "else:")
            inner = {key: list(found) for key, found in names.items()}
            lines += self.block(inner, self.rng.randint(1, 2), depth + 1)
            if self.rng.random() < 0.1:
                lines.append(f"{indent}    return {self.rng.choice(inner['t'])}")
            elif self.rng.random() < 0.05:
                lines.append(f"{indent}    raise ValueError")
            else:
                lines.append(f"{indent}    {target} = {self.rng.choice(inner['t'])} * 0.5")
        return lines

    def careful(self, names, depth):
        indent = "    " * depth
        target, t = self.rng.choice(names["t"]), self.rng.choice(names["t"])
        body = self.rng.choice([f"{target} = {t} + math.log({t})", f"{target} = table['c'] * {t}",
                                f"{target} = {t} + hist[2]", f"{target} = {t} * float({t})"])
        return [f"{indent}try:", f"{indent}    {body}",
                f"{indent}except (TypeError, ValueError, KeyError, IndexError):",
                f"{indent}    {target} = {t} - 1.0"]

    def text(self):
        start = [line.format(a=self.constant(), b=self.constant(), c=self.constant(),
                             k=self.rng.randint(0, 9)) for line in START]
        names = {"v": ["x"], "t": ["s"]}
        body = self.block(names, self.rng.randint(3, 8), 1)
        vectors = " + ".join(f"np.sum({name})" for name in names["v"][-2:])
        body.append(f"    return {names['t'][-1]} + {vectors}")
        changes = []
        for _ in range(STEPS - 1):
            for _ in range(self.rng.randint(0, 2)):
                changes += self.filled(self.rng.choice(CHANGES), {"v": [], "t": []}, "")
            changes.append("yield")
        return "\n".join([*start, "def f(x, s):", "    nonlocal cell, last, mode, buffer, vector",
                          "    global rate, calls, weights", *body, f"yield f, {LOOKED_AT}",
                          *changes])


def draw(seed, k):
    """Program k of a seed: the first that does not fail by itself at once."""
    for attempt in range(100):
        text = Drawn((seed, k, attempt)).text()
        if sound(text):
            return text
    raise AssertionError("nothing that runs is drawn any more")


def story(text):
    """The text as a story."""
    source = "def story():\n" + "\n".join("    " + line for line in text.split("\n"))
    scope = {"np": np, "math": math, "random": random, "__name__": "drawn"}
    exec(compile(source, "<drawn>", "exec"), scope)
    scope["story"].__module__ = "drawn"
    return worlds.story_of()(scope["story"])


def sound(text):
    """Whether it runs by itself, and raises nothing but what it is written to raise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcomes, _ = worlds.play(story(text))
    except Exception:
        return False
    values = [o.result for o in outcomes if o.error is None]
    return all([o.error in (None, "ValueError") for o in outcomes]) and len(values) > 3 and all(
        [np.all(np.abs(value) < 1e6) for value in values])


def wrong(text, mode="compile"):
    """How the compiled function differs from the plain one; "" if it does not."""
    return worlds.check(story(text), mode)[0]


# ---- smaller programs -------------------------------------------------------------------------

def _indent(line):
    return len(line) - len(line.lstrip())


def smaller(lines):
    """The lines without one statement, or with a block in place of its statement."""
    for k, line in enumerate(lines):
        end = k + 1
        while end < len(lines) and _indent(lines[end]) > _indent(line):
            end += 1
        yield lines[:k] + lines[end:]
        if line.rstrip().endswith(":"):
            block = [inner[4:] for inner in lines[k + 1:end]]
            rest = end                              # with what belongs to it: else, except
            while rest < len(lines) and lines[rest].lstrip().startswith(("else", "except")) and (
                    _indent(lines[rest]) == _indent(line)):
                rest += 1
                while rest < len(lines) and _indent(lines[rest]) > _indent(line):
                    rest += 1
            yield lines[:k] + block + lines[rest:]
            yield lines[:k] + lines[rest:]
        if found := re.match(r"\s+([wu]\d+) = (.*)$", line):
            name, value = found[1], found[2]
            simple = "x" if name[0] == "w" else "s"
            if re.fullmatch(r"x|s|[wu]\d+", value):
                yield [re.sub(rf"\b{name}\b", value, other) for n, other in enumerate(lines)
                       if n != k]
            else:
                yield [*lines[:k], line.replace(value, simple), *lines[k + 1:]]
        if found := re.match(r"(\s+return .*) \+ ", line):
            yield [*lines[:k], found[1], *lines[k + 1:]]
        if found := re.match(r"yield f, lambda: \((.*)\)$", line):
            yield [*lines[:k], "yield f", *lines[k + 1:]]
            for name in found[1].split(", "):
                yield [*lines[:k], f"yield f, lambda: {name}", *lines[k + 1:]]


def shrink(text, differs=wrong):
    """A program of fewer lines that is wrong in the same way."""
    word = worlds.kind_of(differs(text))

    def same(candidate):
        text = "\n".join(candidate)
        try:
            if not sound(text):
                return False
            found = differs(text)
        except Exception:
            return False
        return bool(found) and worlds.kind_of(found) == word

    lines, going = text.split("\n"), True
    while going:
        going = False
        for candidate in smaller(lines):
            if candidate != lines and same(candidate):
                lines, going = candidate, True
                break
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--mode", default="compile", choices=["compile", "grad"])
    parser.add_argument("--names", action="store_true", help="numbers alone, nothing made smaller")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.count)
    found = 0
    for k in numbers if options.only is None else [options.only]:
        text = draw(options.seed, k)
        if difference := wrong(text, options.mode):
            found += 1
            if options.names:
                print(k, difference[:150], flush=True)
                continue
            small = shrink(text, lambda text: wrong(text, options.mode))
            print(f"---- {k}: {wrong(small, options.mode)}\n{small}\n", flush=True)
    print(f"{found} differ")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
