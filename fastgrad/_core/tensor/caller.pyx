"""What the instruction of the caller's own code is.

Python calls `__float__` for `math.sin(t)` as for `"%.3f" % t`, and NumPy `__array_ufunc__` for
`a += t` as for `np.add(a, t, out=a)`; the bytecode at the caller's f_lasti tells them apart.
"""


cdef object refused(str text):
    """The TypeError of what a Tensor refuses."""
    return refused_as(TypeError(text))


cdef object refused_as(object error):
    """An error of what a Tensor refuses, recognised again where NumPy has put another one around
    it; "inside" a transformation, which refuses it whether the function is compiled or not, so that
    a function that catches it goes the same way."""
    global last_refused
    cdef bint alone = compiled_alone()
    error.refused = True if alone else "inside"
    mode().refusals += not alone and not isinstance(error, Unrecordable)    # (which we catch)
    note_refusal(str(error), alone)
    last_refused = type(error), str(error), user_line()     # (the error would hold its frames)
    return error


# Kind, text and line of the newest: what NumPy raises for `a.flat[0] = t` does not tell its cause.
cdef tuple last_refused = None


cdef int warn_caught(str who) except -1:
    """Warn of a function that has caught what a Tensor has refused, and has returned all the same: what
    it returns then need not be what it returns for numbers."""
    warn(f"{who}: the function has caught an error that a Tensor raised"
         f"{f' ({last_refused[1]})' if last_refused is not None else ''}; its value and derivative may be "
         "those of another case than that of numbers")
    return 0


def refusals():
    """How many errors Tensors have raised in this thread so that no derivative is lost."""
    return mode().refusals


def check_refusals(int before, str who):
    """`warn_caught`, if there are more."""
    if mode().refusals != <uint32_t>before:
        warn_caught(who)


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


cdef int EXTENDED_ARG = OPCODES.get("EXTENDED_ARG", -1)


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
