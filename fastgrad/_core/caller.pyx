"""What the instruction of the caller's own code is.

Python calls `__float__` for `math.sin(t)` as for `"%.3f" % t`, and NumPy `__array_ufunc__` for
`a += t` as for `np.add(a, t, out=a)`; the bytecode at the caller's f_lasti tells them apart.
"""


cdef object refused(str text):
    """The TypeError of what a Tensor refuses."""
    return refused_as(TypeError(text))


cdef object refused_as(object error):
    """An error of what a Tensor refuses, recognised again where NumPy has put another one around
    it."""
    global last_refused
    error.refused = True
    note_refusal(str(error), True)
    last_refused = type(error), str(error), user_line()     # (the error would hold its frames)
    return error


# Kind, text and line of the newest: what NumPy raises for `a.flat[0] = t` does not tell its cause.
cdef tuple last_refused = None


def raise_refused(error):
    """Raise what a Tensor has refused in place of the error that NumPy made of it, such as
    ValueError("setting an array element with a sequence") of `a[0] = t`."""
    global last_refused
    last, last_refused = last_refused, None
    cause = error.__cause__
    if cause is None and last is not None and last[2] == traceback_line(error.__traceback__):
        cause = refused_as(last[0](last[1]))
    if getattr(cause, "refused", False):
        raise cause.with_traceback(error.__traceback__) from None


cdef str traceback_line(object traceback):
    """Where an error was raised, as user_line tells it."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f" ({traceback.tb_frame.f_code.co_filename}, line {traceback.tb_lineno})"


cdef dict OPCODES = dict(opcode.opmap)


cdef bytes operators_of(tuple lines):
    """What follows BINARY_OP in the code of these lines."""
    cdef bytes code = b"".join([compile(line, "", "exec").co_code for line in lines])
    return bytes([code[k + 1] for k in range(0, len(code), 2) if code[k] == BINARY_OP])


# -1, and nothing is found, in a Python whose code looks different.
BINARY_OP = OPCODES.get("BINARY_OP", -1)
REMAINDERS = operators_of(("a % b", "a %= b"))
IN_PLACE = operators_of(tuple([f"a {sign}= b" for sign in "+ - * / // % ** @ & | ^ << >>".split()]))


cdef bint caller_at(bytes operators):
    """Whether the caller's instruction is one of these binary operators."""
    cdef object frame
    cdef bytes code
    try:
        frame = sys._getframe(0)
    except ValueError:
        return False
    code = frame.f_code.co_code
    return (0 <= frame.f_lasti < len(code) - 1 and code[frame.f_lasti] == BINARY_OP
            and code[frame.f_lasti + 1] in operators)


cdef bint for_text():
    """Whether the caller is at `"%.3f" % t`, also in a tuple, or in logging. Python asks for the
    number as float(t) does, and no left operand but a text does so here: numbers and arrays leave
    % to the Tensor. A text may have the value, as an f-string has; CPython from 3.15 on (for %d
    all) would replace a TypeError by its own, without line and cure."""
    return caller_at(REMAINDERS)


# ---- a += t of an ndarray -----------------------------------------------------------------------

# A Tensor cannot go into an ndarray. Where Python stores what `a += t` returns, and nothing else
# has the array, the name may be bound to a Tensor instead: nobody can tell. How many references
# such an array has here, in an instruction that counts its operand and in one that borrows it
# (LOAD_FAST_BORROW, CPython 3.14), is measured by running such lines.

cdef Py_ssize_t held_once = -1, held_borrowed = -1, held_by_product = -1, held_last = -1
cdef bint BORROWS = "LOAD_FAST_BORROW" in OPCODES

HELD = """
def local(t):
    a = zeros((1, 1))
    a += t

def item(t):
    box = {0: zeros((1, 1))}
    box[0] += t

def product(t):
    box = {0: zeros((1, 1))}
    box[0] @= t
"""


cdef int caller_setup() except -1:
    """Measure."""
    global held_once, held_borrowed, held_by_product
    cdef dict names = {"zeros": np.zeros}
    t = tensor(np.ones((1, 1)))
    exec(HELD, names)
    names["product"](t)
    held_by_product = held_last
    names["item"](t)
    held_once = held_last
    names["local"](t)
    # What a debugger holds besides must not count as nobody.
    held_borrowed = held_once
    if BORROWS:
        held_borrowed = held_last if held_last < held_once else held_once - 1
    held_by_product -= held_once        # NumPy's own
    return 0


cdef bint rebinds(object target, bint product):
    """Whether the caller is at `target op= t` and may bind the name to something else: Python
    stores the result, and nothing but that place has the array, which is no view and no
    parameter (CPython 3.14 lends these without a reference)."""
    global held_last
    cdef Py_ssize_t references = Py_REFCNT(target)
    cdef object frame, code
    cdef bytes text
    cdef int at, op, place, parameters_
    if held_borrowed < 0:
        held_last = references
        return True
    if product:
        references -= held_by_product
    if get_recorder() != NULL:
        references -= (<Recorder>get_recorder()).holds(target)
    if (type(target) is not np_ndarray or target.base is not None or references > held_once
            or not caller_at(IN_PLACE) or getweakrefcount(target)):
        return False
    frame = sys._getframe(0)
    code = frame.f_code
    text = code.co_code
    at = frame.f_lasti + 2
    op, place = instruction_next(text, &at)
    while op == SWAP:
        op, place = instruction_next(text, &at)
    if op == STORE_NAME or op == STORE_GLOBAL:
        names = frame.f_locals if op == STORE_NAME else frame.f_globals
        return references == held_once and names.get(code.co_names[place]) is target
    if op == STORE_ATTR:
        return references == held_once and not of_class(frame, code.co_names[place], target)
    if op == STORE_SUBSCR:
        return references == held_once
    if op == STORE_FAST_LOAD_FAST:
        place >>= 4
    elif op != STORE_FAST and op != STORE_DEREF:
        return False
    parameters_ = parameter_count(code)
    if place < parameters_:
        return False
    if op == STORE_FAST and BORROWS or op == STORE_FAST_LOAD_FAST and BORROWS:
        if references != local_references(frame, code, place, parameters_, target):
            return False
    elif references != held_once:
        return False
    # Last, since C code may be at work in the instruction: `a += map(operator.iadd, ...)`.
    name = (code.co_varnames[place] if place < len(code.co_varnames) else
            (*code.co_varnames, *[n for n in code.co_cellvars if n not in code.co_varnames],
             *code.co_freevars)[place])
    return local_value(frame, name) is target


cdef bint of_class(object frame, str name, object target) except -1:
    """Whether `self.a += t` has its array from the class of something here: the object gets an
    attribute of its own, and the class keeps the array, which does not see it."""
    names = frame.f_locals
    cdef bint found = any([kind.__dict__.get(name) is target for value in names.values()
                           for kind in type(value).__mro__])
    if (type(names) is dict and frame.f_code.co_flags & OPTIMIZED
            and Py_REFCNT(names) <= LOCALS_HELD):
        names.clear()           # as in local_value; that of a module is the module's own
    return found


cdef enum:
    OPTIMIZED = 1               # co_flags: locals without a dictionary
    CODES = 256                 # whose instructions are remembered

cdef object local_value(object frame, str name):
    """The value of a name of a function. Up to CPython 3.12 the dictionary that tells it belongs to
    the frame and would go on counting as a holder."""
    names = frame.f_locals
    value = names.get(name)
    if type(names) is dict and Py_REFCNT(names) <= LOCALS_HELD:
        names.clear()
    return value


cdef enum:
    LOCALS_HELD = 2             # references to that dictionary if nobody else has it

cdef int SWAP = OPCODES.get("SWAP", -1)
cdef int EXTENDED_ARG = OPCODES.get("EXTENDED_ARG", -1)
cdef int STORE_NAME = OPCODES.get("STORE_NAME", -1)
cdef int STORE_GLOBAL = OPCODES.get("STORE_GLOBAL", -1)
cdef int STORE_ATTR = OPCODES.get("STORE_ATTR", -1)
cdef int STORE_SUBSCR = OPCODES.get("STORE_SUBSCR", -1)
cdef int STORE_DEREF = OPCODES.get("STORE_DEREF", -1)
cdef int STORE_FAST = OPCODES.get("STORE_FAST", -1)
cdef int STORE_FAST_LOAD_FAST = OPCODES.get("STORE_FAST_LOAD_FAST", -1)
cdef int STORE_FAST_STORE_FAST = OPCODES.get("STORE_FAST_STORE_FAST", -1)
cdef int UNPACK_SEQUENCE = OPCODES.get("UNPACK_SEQUENCE", -1)
cdef int DELETE_FAST = OPCODES.get("DELETE_FAST", -1)
# What counts a reference of a local for itself, and what makes an object that nobody else has.
LOADS = {OPCODES.get(name): counts for name, counts in (
    ("LOAD_FAST", True), ("LOAD_FAST_CHECK", True), ("LOAD_FAST_LOAD_FAST", True),
    ("LOAD_FAST_BORROW", False), ("LOAD_FAST_BORROW_LOAD_FAST_BORROW", False))}
MAKERS = frozenset([OPCODES.get(name) for name in (
    "CALL", "CALL_KW", "CALL_FUNCTION_EX", "BINARY_OP", "UNARY_NEGATIVE", "UNARY_INVERT",
    "LOAD_ATTR", "FOR_ITER", "UNPACK_SEQUENCE")])
cdef dict local_lines = {}


cdef tuple instruction_next(bytes code, int *at):
    """Operation and argument of the instruction there; `at` goes on behind it. Caches have number
    0; (-1, 0) at the end."""
    cdef int op, argument = 0
    while 0 <= at[0] < len(code) - 1:
        op = code[at[0]]
        argument |= code[at[0] + 1]
        at[0] += 2
        if op == EXTENDED_ARG:
            argument <<= 8
        elif op != 0:
            return op, argument
        else:
            argument = 0
    return -1, 0


cdef int parameter_count(object code) except -1:
    return code.co_argcount + code.co_kwonlyargcount + (code.co_flags >> 2 & 1) + (
        code.co_flags >> 3 & 1)


cdef Py_ssize_t local_references(object frame, object code, int place, int parameters_,
                                 object target) except -2:
    """How many references to `target`, the value of a local, there are if nothing else has it, in a
    Python that lends; -1: it may be a parameter's."""
    cdef object names = frame.f_locals
    cdef int k
    entry = local_lines.get(id(code))
    if entry is None or entry[0] is not code:
        if len(local_lines) >= CODES:
            local_lines.clear()
        entry = local_lines[id(code)] = (code, {})
    known = entry[1].get(frame.f_lasti)
    if known is None:
        known = entry[1][frame.f_lasti] = (local_counted(code, frame.f_lasti, place),
                                           local_own(code, place, parameters_))
    for k in range(parameters_):
        if names.get(code.co_varnames[k]) is target:
            return -1
    if not known[1]:
        return -1
    return held_once if known[0] else held_borrowed


cdef bint local_counted(object code, int lasti, int place):
    """Whether the instruction that loads the left operand counts a reference: it begins where the
    statement does."""
    cdef bytes text = code.co_code
    cdef list positions = list(code.co_positions())
    cdef int at = 0, begin, op, argument
    cdef bint counted = False, found = False
    line, _, column, _ = positions[lasti // 2]
    while at < lasti:
        op, argument = instruction_next(text, &at)
        begin = at // 2 - 1
        if op == STORE_FAST_LOAD_FAST:
            if argument & 15 == place and positions[begin][0] == line:
                counted = found = True      # told to stand where the store does
        elif op in LOADS and column is not None and positions[begin][::2] == (line, column):
            counted = LOADS[op]
            found = True
    return found and counted


cdef bint local_own(object code, int place, int parameters_):
    """Whether the local certainly has a reference of its own: no parameter is bound to something
    else, having lent it its value, or all that is stored in the local was made for it."""
    cdef bytes text = code.co_code
    cdef int at = 0, op, argument, before = -1, offset
    cdef bint lent = False, own = True
    cdef object targets = None
    while at < len(text):
        offset = at
        op, argument = instruction_next(text, &at)
        stores = ((argument,) if op == STORE_FAST or op == DELETE_FAST else
                  (argument >> 4,) if op == STORE_FAST_LOAD_FAST else
                  (argument >> 4, argument & 15) if op == STORE_FAST_STORE_FAST else ())
        for k in stores:
            lent = lent or k < parameters_
            if k == place and op != DELETE_FAST:
                if targets is None:
                    import dis
                    targets = frozenset(dis.findlabels(text))
                while offset < at - 2 and text[offset] == 0:
                    offset += 2
                # Of two that are stored at once only the first is what was made last.
                own = own and offset not in targets and (
                    before == UNPACK_SEQUENCE or
                    before in MAKERS and (op != STORE_FAST_STORE_FAST or k == argument >> 4))
        before = op
    return own or not lent
