"""`a += t` of an ndarray, which cannot hold a Tensor: where the name may be bound to one instead.

Nobody can tell if Python stores the result where the array came from, and nothing else has the
array. The first is read in the bytecode of the caller, the second counted.
"""

cdef int SWAP = OPCODES.get("SWAP", -1)
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
    if mode().recorder != NULL:
        references -= (<Recorder>mode().recorder).holds(target)
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
    if op == STORE_ATTR or op == STORE_SUBSCR:
        return references == held_once and has_target(
            frame, code.co_names[place] if op == STORE_ATTR else None, target)
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
    return local_value(frame, names_of_locals(code)[place]) is target


cdef tuple names_of_locals(object code):
    """The names that instructions number: locals, cells, what comes from outside."""
    return (*code.co_varnames, *[n for n in code.co_cellvars if n not in code.co_varnames],
            *code.co_freevars)


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

cdef dict local_lines = {}


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


# ---- self.a += t, parts[k] += t -----------------------------------------------------------------

# Who has the array, and gets the result, is on the interpreter's stack, where nobody can look. It
# is found again from the names that the instructions before have read, as far as that has no effect
# and cannot answer differently: names, attributes out of plain dictionaries, items of plain
# containers, sums of integers.

cdef class Untold:
    """What would have to be run to be known."""

cdef object UNTOLD = Untold()
cdef dict OPNAMES = {number: name for name, number in OPCODES.items()}
cdef object LOADS_LOCAL = frozenset(["LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"])
cdef object LOADS_TWO = frozenset(["LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"])
cdef bytes SUBSCRIPTS = operators_of(("a[b]",)) if "BINARY_SUBSCR" not in OPCODES else b""
cdef dict WHOLE = {operators_of((f"a {sign} b",)): op for sign, op in (
    ("+", operator.add), ("-", operator.sub), ("*", operator.mul), ("//", operator.floordiv),
    ("%", operator.mod))}
cdef int ATTRIBUTE_SHIFT = sys.version_info >= (3, 12)      # and a bit for calls of methods
cdef object PLAIN_KEYS = frozenset([int, str, float, bool, bytes, type(None)])
cdef object PLAIN_VALUES = frozenset([int, str, float, bool, complex, type(None)])


cdef bint has_target(object frame, str attribute, object target) except -1:
    """Whether the object whose attribute (an item if None) is operated on in place has `target`
    itself, and storing there is no more than that."""
    cdef object names = frame.f_locals, owner, key
    owner, key = target_place(frame, names, attribute is None)
    if type(names) is dict and frame.f_code.co_flags & OPTIMIZED and Py_REFCNT(names) <= LOCALS_HELD:
        names.clear()           # as in local_value; that of a module is the module's own
    if owner is UNTOLD:
        return False
    if attribute is not None:
        return plain_attribute(owner, attribute) is target and stores_plainly(owner)
    return item_held(owner, key, target)


cdef tuple target_place(object frame, object names, bint item):
    """The object whose attribute or item the statement at f_lasti changes, and the key of the item;
    UNTOLD for each that is not found."""
    cdef object code = frame.f_code, value
    cdef bytes text = code.co_code
    cdef list positions = list(code.co_positions()), stack = []
    cdef int at = 0, begin, start = -1, op, argument, end = frame.f_lasti
    cdef str name
    line, _, column, _ = positions[end // 2]
    while at < end:                     # the statement begins with a name
        begin = at
        op, argument = instruction_next(text, &at)
        name = OPNAMES.get(op, "")
        if (positions[at // 2 - 1][::2] == (line, column) and column is not None
                and name.startswith("LOAD_") or name == "STORE_FAST_LOAD_FAST"
                and positions[at // 2 - 1][0] == line):
            if name not in ("LOAD_ATTR", "LOAD_METHOD"):
                start = begin
    if start < 0:
        return UNTOLD, UNTOLD
    at = start
    while at < end:
        op, argument = instruction_next(text, &at)
        name = OPNAMES.get(op, "")
        value = UNTOLD
        if name in LOADS_LOCAL:
            value = names.get(code.co_varnames[argument], UNTOLD)
        elif name in LOADS_TWO:
            stack.append(names.get(code.co_varnames[argument >> 4], UNTOLD))
            value = names.get(code.co_varnames[argument & 15], UNTOLD)
        elif name == "STORE_FAST_LOAD_FAST" and not stack:
            value = names.get(code.co_varnames[argument & 15], UNTOLD)
        elif name == "LOAD_DEREF":
            value = names.get(names_of_locals(code)[argument], UNTOLD)
        elif name == "LOAD_GLOBAL" and not argument & 1:
            value = frame.f_globals.get(code.co_names[argument >> 1], UNTOLD)
        elif name == "LOAD_NAME":
            value = names.get(code.co_names[argument], UNTOLD)
            if value is UNTOLD:
                value = frame.f_globals.get(code.co_names[argument], UNTOLD)
        elif name == "LOAD_CONST":
            value = code.co_consts[argument]
        elif name == "LOAD_SMALL_INT":
            value = argument
        elif name == "COPY" and argument == (2 if item else 1) and len(stack) >= argument:
            break                       # the place is kept for storing there
        elif name == "LOAD_ATTR" and stack and not (ATTRIBUTE_SHIFT and argument & 1):
            value = plain_attribute(stack.pop(), code.co_names[argument >> ATTRIBUTE_SHIFT])
        elif len(stack) < 2:
            break
        elif name == "BINARY_SUBSCR" or name == "BINARY_OP" and bytes([argument]) == SUBSCRIPTS:
            key = stack.pop()
            value = plain_item(stack.pop(), key)
        elif name == "BINARY_OP" and bytes([argument]) in WHOLE:
            key = stack.pop()
            value = stack.pop()
            if type(value) is not int or type(key) is not int:
                break
            try:
                value = WHOLE[bytes([argument])](value, key)
            except ArithmeticError:
                break
        else:
            break
        if value is UNTOLD and not (item and stack):
            return UNTOLD, UNTOLD
        stack.append(value)
    else:
        return UNTOLD, UNTOLD
    if name != "COPY" or len(stack) != (2 if item else 1):
        return (stack[0] if item and stack else UNTOLD), UNTOLD
    return stack[0], stack[1] if item else UNTOLD


cdef object plain_attribute(object owner, str name):
    """What is in the dictionary or the slot of the object, unless a property has a say."""
    cdef object found = UNTOLD, values
    for kind in type(owner).__mro__:
        if name in kind.__dict__:
            found = kind.__dict__[name]
            break
    if type(found) is MemberDescriptorType:
        try:
            return found.__get__(owner)
        except AttributeError:
            return UNTOLD
    if hasattr(type(found), "__set__"):
        return UNTOLD
    try:
        values = (type.__getattribute__(owner, "__dict__") if isinstance(owner, type) else
                  object.__getattribute__(owner, "__dict__"))
    except AttributeError:
        return UNTOLD
    if type(values) is not dict and type(values) is not MappingProxyType:
        return UNTOLD
    return values.get(name, UNTOLD)


cdef bint stores_plainly(object owner):
    """Whether setting an attribute is what it is of every object, or of every class."""
    cdef object plain = type if isinstance(owner, type) else object
    return type_of(owner).tp_setattro == (<PyTypeObject *>plain).tp_setattro


cdef inline PyTypeObject *type_of(object o) noexcept:
    return <PyTypeObject *>(<PyObject *>o).ob_type


cdef object plain_item(object owner, object key):
    """An item of a plain container."""
    if type(owner) is dict and type(key) in PLAIN_KEYS:
        return owner.get(key, UNTOLD)
    if (type(owner) is list or type(owner) is tuple) and type(key) is int:
        if -len(owner) <= key < len(owner):
            return owner[key]
    return UNTOLD


cdef bint item_held(object owner, object key, object target) except -1:
    """Whether it is an item of `target` that the owner has and stores as dictionaries and lists do.
    Where the key is unknown, no other item may have an operator of its own: C code may be at work
    in it, as in `parts[k] += map(operator.iadd, ...)`."""
    cdef PyTypeObject *kind
    cdef PyTypeObject *plain
    cdef object values
    if type(owner) is UserDict or type(owner) is UserList:
        owner = owner.data
    kind = plain = type_of(owner)
    if isinstance(owner, dict):
        if type(owner) is not OrderedDict:
            plain = <PyTypeObject *>dict
    elif isinstance(owner, list):
        plain = <PyTypeObject *>list
    elif type(owner) is not deque and not (type(owner) is np_ndarray and owner.dtype == object):
        return False
    if (plain.tp_as_mapping != NULL
            and kind.tp_as_mapping.mp_ass_subscript != plain.tp_as_mapping.mp_ass_subscript):
        return False
    if isinstance(owner, dict):
        if type(key) in PLAIN_KEYS:
            return dict.get(owner, key) is target
        values = dict.values(owner)
    elif type(owner) is np_ndarray or type(owner) is deque:
        values = owner if type(owner) is deque else owner.ravel().tolist()
    else:
        if type(key) is int and -len(owner) <= key < len(owner):
            return list.__getitem__(owner, key) is target
        values = list.__iter__(owner)
    if kind.tp_as_mapping != NULL and \
            kind.tp_as_mapping.mp_subscript != plain.tp_as_mapping.mp_subscript:
        return False
    found = False
    for value in values:
        if value is target:
            found = True
        elif not (type(value) in PLAIN_VALUES or isinstance(value, (Tensor, np.generic))
                  or type(value) is np_ndarray and value.dtype != object):
            return False
    return found
