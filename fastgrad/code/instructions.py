"""The instructions of CPython 3.11 to 3.15, as what they do with a stack of values."""

import dis
import heapq
import sys
import types

from .value import Value, origins

__all__ = ["known_instruction"]

# Taken off the stack by instructions that make something of it for the interpreter alone.
_PLAIN = {
    "ASYNC_GEN_WRAP": 1, "BEFORE_ASYNC_WITH": 1, "CHECK_EG_MATCH": 2, "CLEANUP_THROW": 3,
    "END_ASYNC_FOR": 2, "EXIT_INIT_CHECK": 1, "GET_AITER": 1, "GET_ANEXT": 0, "GET_AWAITABLE": 1,
    "INTERPRETER_EXIT": 1, "LOAD_ASSERTION_ERROR": 0, "LOAD_BUILD_CLASS": 0, "LOAD_LOCALS": 0,
    "POP_EXCEPT": 1, "PREP_RERAISE_STAR": 2, "PUSH_EXC_INFO": 0,
    "SETUP_ANNOTATIONS": 0, "WITH_EXCEPT_START": 0,
}
_NOTHING = frozenset((
    "CACHE COPY_FREE_VARS EXTENDED_ARG MAKE_CELL NOP NOT_TAKEN PRECALL RESUME RESERVED "
    "JUMP_FORWARD JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT").split())
_ENDS = frozenset(("RETURN_VALUE RETURN_CONST RAISE_VARARGS RERAISE INTERPRETER_EXIT JUMP_FORWARD "
                   "JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT").split())
_BUILT = {"BUILD_TUPLE": "tuple", "BUILD_LIST": "list", "BUILD_SET": "set", "BUILD_STRING": "str",
          "BUILD_SLICE": "slice"}
_UNARY = {"UNARY_NEGATIVE": "-", "UNARY_POSITIVE": "+", "UNARY_INVERT": "~", "UNARY_NOT": "not"}

# Never in the code of a function: what the compiler and the interpreter write for themselves.
_PSEUDO = frozenset((
    "ANNOTATIONS_PLACEHOLDER ENTER_EXECUTOR JUMP JUMP_IF_FALSE JUMP_IF_TRUE JUMP_NO_INTERRUPT "
    "LOAD_METHOD_PSEUDO LOAD_SUPER_METHOD LOAD_ZERO_SUPER_ATTR LOAD_ZERO_SUPER_METHOD POP_BLOCK "
    "SETUP_CLEANUP SETUP_FINALLY SETUP_WITH STORE_FAST_MAYBE_NULL TRACE_RECORD").split())

_NULL = Value("null")
_NONE = Value("constant")


def known_instruction(opname):
    """Whether an instruction is one that this module reads, or never is in a function's code."""
    return (opname in _PLAIN or opname in _NOTHING or opname in _BUILT or opname in _UNARY
            or opname in _PSEUDO or opname.startswith("INSTRUMENTED_")
            or opname.replace("_BORROW", "") in _METHODS)


class _Walk:
    """One walk over a code object. The methods are called as the instructions are."""

    def __init__(self, made):
        self.made, self.code = made, made.code
        self.stack, self.line = [], self.code.co_firstlineno
        self.names = ()                 # of the next call's last arguments (until Python 3.12)
        self.place, self.tested = 0, (None, None)       # the instruction, and what it tests

    def run(self):
        steps = list(dis.get_instructions(self.code))
        place = {step.offset: k for k, step in enumerate(steps)}
        handlers = _handlers(self.code)
        self.entries, self.waiting = {}, [0]
        labels = {place[h[2]] for h in handlers} | {
            k for k, step in enumerate(steps) if step.is_jump_target}
        done, met = set(), set()
        self.entries[0] = []
        while self.waiting:
            k = heapq.heappop(self.waiting)
            self.stack = list(self.entries[k])
            first = True
            while k not in done and k < len(steps):
                if k in labels and not first:
                    self.arrive(k, self.stack)
                    break
                first = False
                done.add(k)
                step, self.place, self.tested = steps[k], k, (None, None)
                if step.positions is not None and step.positions.lineno is not None:
                    self.line = step.positions.lineno
                for handler in handlers:
                    start, end, target, depth, lasti = handler
                    if start <= step.offset < end:
                        self.way(k, place[target])
                    # (What cannot raise may be in the table with a stack that is too low.)
                    if start <= step.offset < end and depth <= len(self.stack) and (
                            handler not in met or k in labels):
                        met.add(handler)
                        self.arrive(place[target], self.stack[:depth]
                                    + [Value("other", "exception")] * (1 + lasti))
                if not self.step(step, place):
                    break
                tested, when = self.tested
                self.way(k, k + 1, tested, not when)
                k += 1

    def way(self, start, to, tested=None, when=None):
        """One instruction may follow another."""
        self.made.ways.setdefault(start, []).append((to, tested, when))

    def arrive(self, k, stack):
        """Come to a jump's target with this stack."""
        known = self.entries.get(k)
        if known is None:
            self.entries[k] = [x if x is _NULL else Value("join", None, [x], self.line, self.made)
                               for x in stack]
            heapq.heappush(self.waiting, k)
            return
        if len(known) != len(stack):
            self.unknown("the stack at a jump")
        for join, x in zip(known, stack):
            if join.kind == "join" and x is not join and x not in join.parts:
                join.parts.append(x)

    def step(self, step, place):
        """One instruction; tells whether the next one may follow."""
        name = step.opname.replace("_BORROW", "")
        before = len(self.stack)
        try:
            effect = dis.stack_effect(step.opcode, step.arg, jump=False)
        except ValueError:
            effect = None
        if name == "PRECALL":           # Python 3.11 tells a call in two
            effect = 0
        elif name == "CALL":
            effect = -step.arg - 1
        elif name == "RETURN_GENERATOR":
            effect = 1                  # (as it is entered for the first time)
        if name in _PLAIN:
            parts = self.pop(_PLAIN[name])
            pushed = effect + len(parts)
            self.stack += [self.add("other", name, parts) for _ in range(pushed)]
        elif name in _BUILT:
            self.push("built", _BUILT[name], self.pop(step.arg))
        elif name in _UNARY:
            self.push("unary", _UNARY[name], self.pop(1))
        elif name in _NOTHING:
            pass
        elif name in _METHODS:
            _METHODS[name](self, step)
        else:
            self.unknown(step.opname)
            parts = self.pop(before)
            self.fit(before + (effect or 0), parts)
            return name not in _ENDS
        if step.opcode in _JUMPS:
            reached = dis.stack_effect(step.opcode, step.arg, jump=True)
            after, self.stack = self.stack, list(self.jumping if name.startswith("JUMP_IF")
                                                 else self.stack)
            self.fit(before + reached)
            self.way(self.place, place[step.argval], *self.tested)
            self.arrive(place[step.argval], self.stack)
            self.stack = after
        if name in _ENDS:
            return False
        if effect is not None and len(self.stack) != before + effect:
            self.unknown(f"{step.opname} (stack {len(self.stack) - before}, not {effect})")
            self.fit(before + effect)
        return True

    def fit(self, height, parts=()):
        """Make the stack so high, by what nothing is known of."""
        del self.stack[height:]
        while len(self.stack) < height:
            self.stack.append(self.add("other", None, list(parts)))

    def unknown(self, what):
        self.made.unknown.append((what, self.line))

    def pop(self, count):
        if not count:
            return []
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        parts = self.stack[-count:]
        del self.stack[-count:]
        return parts

    def add(self, kind, name, parts):
        value = Value(kind, name, parts, self.line, self.made, self.place)
        self.made.values.append(value)
        return value

    def push(self, kind, name, parts=()):
        value = self.add(kind, name, list(parts))
        self.stack.append(value)
        return value

    # ---- names --------------------------------------------------------------------------

    def load_const(self, step):
        self.stack.append(Value("constant", step.argval, (), self.line, self.made))

    load_small_int = load_common_constant = load_const

    def return_const(self, step):
        self.load_const(step)
        self.return_value(step)

    def load_global(self, step):
        if step.arg & 1 and _NULL_BELOW:
            self.stack.append(_NULL)
        self.push("global", step.argval)
        if step.arg & 1 and not _NULL_BELOW:
            self.stack.append(_NULL)

    def load_name(self, step):
        if step.argval in self.made.variables:
            variable = self.made.variables[step.argval]
            self.push("join", None, [variable, self.add("global", step.argval, ())])
        else:
            self.push("global", step.argval)

    def load_from_dict_or_globals(self, step):
        self.pop(1)
        self.load_name(step)

    def load_variable(self, step):
        if step.argval in self.code.co_freevars + self.code.co_cellvars and (
                step.opname.startswith("LOAD_FAST") and step.argval not in self.code.co_varnames):
            self.stack.append(Value("other", "closure", [], self.line, self.made))
        else:
            self.stack.append(self.made._variable(step.argval))

    load_fast = load_fast_check = load_fast_and_clear = load_deref = load_classderef = load_variable

    def load_from_dict_or_deref(self, step):
        self.pop(1)
        self.load_variable(step)

    def load_closure(self, step):
        self.stack.append(Value("other", "closure", [], self.line, self.made))

    def store_variable(self, step):
        self.bind(step.argval)

    def bind(self, name):
        value, = self.pop(1)
        variable = self.made._variable(name)
        if value is not variable and value not in variable.parts:
            variable.parts.append(value)
        self.add("store", name, [value, variable])

    store_fast = store_deref = store_name = store_variable

    def load_fast_load_fast(self, step):
        self.stack += [self.made._variable(name) for name in step.argval]

    def store_fast_load_fast(self, step):
        self.bind(step.argval[0])
        self.stack.append(self.made._variable(step.argval[1]))

    def store_fast_store_fast(self, step):
        self.bind(step.argval[0])
        self.bind(step.argval[1])

    def store_global(self, step):
        self.add("store", step.argval, self.pop(1))

    def delete_variable(self, step):
        self.add("delete", step.argval, [self.made._variable(step.argval)])

    delete_fast = delete_deref = delete_name = delete_variable

    def delete_global(self, step):
        self.add("delete", step.argval, [])

    def import_name(self, step):
        self.push("import", step.argval, self.pop(2))

    def import_from(self, step):
        self.push("attribute", step.argval, self.stack[-1:])

    def import_star(self, step):
        self.unknown("from ... import *")
        self.pop(1)

    # ---- attributes and items -----------------------------------------------------------

    def load_attr(self, step):
        self.push("attribute", step.argval, self.pop(1))
        if self.stack and step.opname == "LOAD_METHOD" or (_METHODS_IN_ATTR and step.arg & 1):
            self.stack.append(_NULL)

    load_method = load_attr

    def load_super_attr(self, step):
        function, *args = self.pop(3)
        made = self.add("call", (), [function, *args])
        self.push("attribute", step.argval, [made])
        if step.arg & 1:
            self.stack.append(_NULL)

    def load_special(self, step):
        self.push("attribute", str(step.argrepr or step.argval), self.pop(1))
        self.stack.append(_NULL)

    def store_attr(self, step):
        value, owner = self.pop(2)
        self.add("set attribute", step.argval, [owner, value])

    def delete_attr(self, step):
        self.add("delete attribute", step.argval, self.pop(1))

    def binary_subscr(self, step):
        self.push("item", None, self.pop(2))

    def binary_slice(self, step):
        whole, *ends = self.pop(3)
        self.push("item", None, [whole, self.add("built", "slice", ends)])

    def store_subscr(self, step):
        value, owner, key = self.pop(3)
        self.add("set item", None, [owner, key, value])

    def store_slice(self, step):
        value, owner, start, stop = self.pop(4)
        self.add("set item", None, [owner, self.add("built", "slice", [start, stop]), value])

    def delete_subscr(self, step):
        self.add("delete item", None, self.pop(2))

    # ---- operators ----------------------------------------------------------------------

    def binary_op(self, step):
        parts = self.pop(2)
        if step.argrepr.startswith("["):
            self.push("item", None, parts)
        else:
            self.push("inplace" if step.argrepr.endswith("=") else "operator", step.argrepr, parts)

    def compare_op(self, step):
        self.push("compare", str(step.argval), self.pop(2))

    def is_op(self, step):
        self.push("compare", "is", self.pop(2))

    def contains_op(self, step):
        self.push("compare", "in", self.pop(2))

    def check_exc_match(self, step):
        self.push("match", None, self.pop(1))

    def to_bool(self, step):
        self.push("test", None, self.pop(1))

    def pop_jump(self, step):
        tested = self.pop(1)
        self.add("test", step.opname, tested)
        if step.opname.endswith("NONE"):
            tested = [Value("compare", "is", (*tested, _NONE), self.line, self.made)]
        self.tested = tested[0], not step.opname.endswith(("IF_FALSE", "IF_NOT_NONE"))

    (pop_jump_if_false, pop_jump_if_true, pop_jump_if_none, pop_jump_if_not_none,
     pop_jump_forward_if_false, pop_jump_forward_if_true, pop_jump_forward_if_none,
     pop_jump_forward_if_not_none, pop_jump_backward_if_false, pop_jump_backward_if_true,
     pop_jump_backward_if_none, pop_jump_backward_if_not_none) = (pop_jump,) * 12

    def jump_if_or_pop(self, step):
        self.jumping = list(self.stack)
        self.add("test", step.opname, self.pop(1))

    jump_if_false_or_pop = jump_if_true_or_pop = jump_if_or_pop

    # ---- the stack itself ---------------------------------------------------------------

    def pop_top(self, step):
        self.pop(1)

    def push_null(self, step):
        self.stack.append(_NULL)

    def copy(self, step):
        self.stack.append(self.stack[-step.arg])

    def swap(self, step):
        self.stack[-1], self.stack[-step.arg] = self.stack[-step.arg], self.stack[-1]

    # ---- calls --------------------------------------------------------------------------

    def kw_names(self, step):
        self.names = step.argval if isinstance(step.argval, tuple) else (
            self.code.co_consts[step.arg])

    def call(self, step):
        args = self.pop(step.arg)
        first, second = self.pop(2)
        if first is _NULL or second is _NULL:
            function = second if first is _NULL else first
        else:                           # a bound call, as of a decorator: of `first` with `second`
            function, args = first, [second, *args]
        names, self.names = self.names, ()
        self.push("call", tuple(names), [function, *args])

    def call_kw(self, step):
        names, = self.pop(1)
        self.names = names.name
        self.call(step)

    def call_function_ex(self, step):
        above = 1 + (step.arg & 1) if _KEYWORDS_ARE_OPTIONAL else 2
        args = self.pop(above)
        first, second = self.pop(2)
        self.push("call", None, [second if first is _NULL else first,
                                 *[x for x in args if x is not _NULL]])

    def call_intrinsic_1(self, step):
        parts = self.pop(1)
        if "UNARY_POSITIVE" in step.argrepr:
            self.push("unary", "+", parts)
        elif "LIST_TO_TUPLE" in step.argrepr:
            self.stack += parts
        elif "IMPORT_STAR" in step.argrepr:
            self.stack += parts
            self.unknown("from ... import *")
        else:
            self.push("other", step.argrepr, parts)

    def call_intrinsic_2(self, step):
        self.push("other", step.argrepr, self.pop(2))

    def make_function(self, step):
        code, = self.pop(1)
        defaults = []
        if _FLAGS_IN_MAKE_FUNCTION:
            if step.arg & 8:
                self.pop(1)
            if step.arg & 4:
                self.pop(1)
            defaults = self.pop((step.arg & 1) + (step.arg >> 1 & 1))
        if not isinstance(code.name, types.CodeType):
            raise ValueError("a function of unknown code")
        self.made._functions.append(self.push("function", code.name, defaults))

    def set_function_attribute(self, step):
        value, function = self.pop(2)
        if step.arg & 3:
            function.parts.append(value)
        elif step.arg == 16:            # annotations, which nobody evaluates
            for origin in origins(value):
                if origin.kind == "function":
                    origin.name = None
        self.stack.append(function)

    # ---- containers ---------------------------------------------------------------------

    def build_map(self, step):
        self.push("built", "dict", self.pop(2 * step.arg))

    def build_const_key_map(self, step):
        self.push("built", "dict", self.pop(step.arg + 1))

    def build_interpolation(self, step):
        self.push("format", None, self.pop(2 + (step.arg & 1)))

    def build_template(self, step):
        self.push("format", None, self.pop(2))

    def into(self, step, values):
        """Put something into a container that is being built."""
        owners = [x for x in origins(self.stack[-step.arg]) if x.kind == "built"]
        for owner in owners:
            owner.parts += values
        if not owners:
            raise ValueError("a container of unknown origin")

    def list_append(self, step):
        self.into(step, self.pop(1))

    set_add = list_append

    def map_add(self, step):
        self.into(step, self.pop(2))

    def list_extend(self, step):
        self.into(step, [self.add("element", None, self.pop(1))])

    set_update = dict_update = dict_merge = list_extend

    def list_to_tuple(self, step):
        pass

    def get_iter(self, step):
        self.push("element", "iter", self.pop(1))
        self.fit(len(self.stack) + _ITER_PAIR)

    get_yield_from_iter = get_iter

    def for_iter(self, step):
        self.push("element", None, [self.stack[-1 - _ITER_PAIR]])

    def pop_iter(self, step):
        self.pop(1 + _ITER_PAIR)

    def end_for(self, step):
        self.pop(-dis.stack_effect(step.opcode, None))

    def unpack_sequence(self, step):
        whole = self.pop(1)
        self.stack += [self.add("element", None, list(whole)) for _ in range(step.arg)]

    def unpack_ex(self, step):
        whole = self.pop(1)
        count = (step.arg & 0xFF) + (step.arg >> 8)
        self.stack += [self.add("element", None, list(whole)) for _ in range(count + 1)]

    def get_len(self, step):
        self.push("match", "len", self.stack[-1:])

    def match_mapping(self, step):
        self.push("match", "mapping", self.stack[-1:])

    def match_sequence(self, step):
        self.push("match", "sequence", self.stack[-1:])

    def match_keys(self, step):
        made = self.add("element", "keys", self.stack[-2:])
        self.stack.append(made)

    def match_class(self, step):
        subject, kind, names = self.pop(3)
        parts = [self.add("attribute", name, [subject]) for name in names.name]
        self.push("match", step.arg, [subject, kind, *parts])

    # ---- the rest -----------------------------------------------------------------------

    def format_value(self, step):
        self.push("format", None, self.pop(2 if step.arg & 4 else 1))

    def format_simple(self, step):
        self.push("format", None, self.pop(1))

    convert_value = format_simple

    def format_with_spec(self, step):
        self.push("format", None, self.pop(2))

    def before_with(self, step):
        manager = self.pop(1)
        self.push("attribute", "__exit__", manager)
        self.push("enter", None, manager)

    def return_value(self, step):
        self.add("return", None, self.pop(1))

    def return_generator(self, step):
        self.push("other", "generator")

    def yield_value(self, step):
        self.push("yield", None, self.pop(1))

    def send(self, step):
        self.pop(1)
        self.push("element", None, self.stack[-1:])

    def end_send(self, step):
        value, = self.pop(1)
        self.pop(-dis.stack_effect(step.opcode, None))
        self.stack.append(value)

    def raise_varargs(self, step):
        self.add("raise", None, self.pop(step.arg))

    def reraise(self, step):
        self.pop(1)

    def print_expr(self, step):
        self.unknown("PRINT_EXPR")
        self.pop(1)


# The methods that stand for instructions; the others help them.
_METHODS = {name.upper(): method for name, method in vars(_Walk).items()
            if name.upper() in dis.opmap or name.upper() + "_BORROW" in dis.opmap}
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_NULL_BELOW = sys.version_info < (3, 13)
_METHODS_IN_ATTR = "LOAD_METHOD" not in dis.opmap or dis.opmap["LOAD_METHOD"] > 255
_FLAGS_IN_MAKE_FUNCTION = "SET_FUNCTION_ATTRIBUTE" not in dis.opmap
_KEYWORDS_ARE_OPTIONAL = dis.stack_effect(dis.opmap["CALL_FUNCTION_EX"], 0) > -3 if (
    dis.opmap["CALL_FUNCTION_EX"] >= dis.HAVE_ARGUMENT) else False
_ITER_PAIR = dis.stack_effect(dis.opmap["GET_ITER"], 0 if (
    dis.opmap["GET_ITER"] >= dis.HAVE_ARGUMENT) else None)


def _handlers(code):
    """The table of exception handlers: (start, end, target, depth, lasti), as CPython's
    Objects/exception_handling_notes.txt lays it out."""
    table = iter(code.co_exceptiontable)

    def number():
        byte = next(table)
        value = byte & 63
        while byte & 64:
            byte = next(table)
            value = value << 6 | byte & 63
        return value

    found = []
    while True:
        try:
            start = number() * 2
        except StopIteration:
            return found
        end, target, depth = start + number() * 2, number() * 2, number()
        found.append((start, end, target, depth >> 1, depth & 1))
