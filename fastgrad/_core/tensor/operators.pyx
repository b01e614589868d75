"""Python's operators, NumPy's ufuncs, and writing into ndarrays."""

cdef inline bint fast_scalar(object o) noexcept:
    """Whether o is a float64 scalar Tensor that is recorded and may be used right here."""
    return (type(o) is Tensor and fg_plain_scalar((<Tensor>o).node)
            and <void *>(<Tensor>o).parent == <void *>None
            and ((<Tensor>o).tape == NULL or (<Tensor>o).tape == get_thread_tape()))


cdef inline bint python_number(object o, double *x) noexcept:
    """Whether o is a Python float or a Python int that a double holds."""
    cdef int overflow = 0
    cdef long whole
    if PyFloat_CheckExact(o):
        x[0] = PyFloat_AS_DOUBLE(o)
        return True
    if PyLong_CheckExact(o):
        whole = PyLong_AsLongAndOverflow(o, &overflow)
        x[0] = <double>whole
        return overflow == 0
    return False


cdef inline object binary(int op, object left, object right):
    """A binary operator of a Tensor and anything; NotImplemented where the other side should try."""
    cdef FgNode *a
    cdef FgNode *b
    cdef double u, v
    if op < FG_ELEMENTWISE_END and op != FG_floor_divide and get_recording():
        # Recorded float64 scalars, and Python floats with them: nothing else need be looked at.
        if fast_scalar(left):
            a = (<Tensor>left).node
            if fast_scalar(right):
                b = (<Tensor>right).node
                return push_scalar(op, FG_FLOAT64, a.flags & b.flags & FG_WEAK, (<Tensor>left).id, a,
                                   (<Tensor>right).id, b, 0,
                                   fg_value(op, FG_FLOAT64, a.re, b.re, 0))
            if python_number(right, &v):
                return push_scalar(op, FG_FLOAT64,
                                   a.flags & FG_WEAK | FG_CONST_B | FG_LITERAL,
                                   (<Tensor>left).id, a, FG_NO_ID, NULL, v,
                                   fg_value(op, FG_FLOAT64, a.re, v, 0))
        elif fast_scalar(right) and python_number(left, &u):
            b = (<Tensor>right).node
            return push_scalar(op, FG_FLOAT64,
                               b.flags & FG_WEAK | FG_CONST_A | FG_LITERAL,
                               FG_NO_ID, NULL, (<Tensor>right).id, b, u,
                               fg_value(op, FG_FLOAT64, u, b.re, 0))
    return binary_any(op, left, right)


cdef inline object multiplied(object left, object right):
    if left is right:
        return raised(binary(FG_multiply, left, right), left, 2)
    return binary(FG_multiply, left, right)


cdef inline object powered(object left, object right):
    if PyLong_CheckExact(right) and right == 2 and (
            is_float((<Tensor>left).node.dtype)
            or (<Tensor>left).node.dtype == FG_BOOL and (<Tensor>left).node.rank):
        return raised(unary(FG_square, left), left, 2)  # as NumPy's operator; a tenth of the price
    return raised_by(FG_power, binary(FG_power, left, right), left, right)


cdef inline object binary_fast_array(int op, object left, object right):
    """Small recorded arrays of one shape, or one and a Python float; None for anything else."""
    cdef FgNode *a
    cdef double number
    if op >= FG_ELEMENTWISE_END or op == FG_floor_divide or not get_recording():
        return None
    if type(left) is Tensor:
        if not fast_array(<Tensor>left):
            return None
        a = (<Tensor>left).node
        if type(right) is Tensor:
            if (fast_array(<Tensor>right) and (<Tensor>right).node.dtype == a.dtype
                    and shape_same(a.shape, (<Tensor>right).node.shape)):
                return push_array_fast(op, (<Tensor>left).id, a, (<Tensor>right).id,
                                       (<Tensor>right).node, 0, 0)
        elif a.shape.size <= FG_BLOCK and python_number(right, &number):
            return push_array_fast(op, (<Tensor>left).id, a, FG_NO_ID, NULL, number,
                                   FG_CONST_B | FG_LITERAL)
    elif (fast_array(<Tensor>right) and (<Tensor>right).node.shape.size <= FG_BLOCK
            and python_number(left, &number)):
        return push_array_fast(op, FG_NO_ID, NULL, (<Tensor>right).id, (<Tensor>right).node, number,
                               FG_CONST_A | FG_LITERAL)
    return None


cdef bint is_count(object x):
    """Whether a list times it is repeated, as one times an integer of NumPy's is, and no product."""
    return isinstance(x, Tensor) and (<Tensor>x).node.rank == 0 and not is_float((<Tensor>x).node.dtype) \
        and not is_point(<Tensor>x)


cdef inline object listed(object x):
    """An operand of a function, to which a list is an array; to Python's operators it is a list."""
    return operand_settled(x) if isinstance(x, (list, tuple)) else x


cdef object binary_any(int op, object left, object right):
    """The same for operands of every kind."""
    cdef Operand x[3]
    cdef object result
    if type(left) is Tensor or type(right) is Tensor:
        result = binary_fast_array(op, left, right)
        if result is not None:
            return result
    # Other objects get their turn as operands of Python's, unlooked at.
    if isinstance(left, (list, tuple)):
        if op == FG_multiply and is_count(right):
            return NotImplemented
        if is_number(right):
            return called_on_values(OPERATORS[op], (left, right), {})       # a TypeError, mostly
        left = operand_settled(left)
    if isinstance(right, (list, tuple)):
        if op == FG_multiply and is_count(left):
            return NotImplemented
        if is_number(left):
            return called_on_values(OPERATORS[op], (left, right), {})
        right = operand_settled(right)
    if mode().recorder != NULL:
        return binary_recorded(op, left, right)
    return NotImplemented if binary_operands(left, right, x) else push(op, 2, x)


cdef int binary_operands(object left, object right, Operand *x) except -1:
    """Put the operands into x; 1 if one of them is of no kind that is known."""
    operand_clear(&x[1])
    if operand_of(left, &x[0], True):
        return 1
    try:
        if operand_of(right, &x[1], True):
            operand_drop(&x[0])
            return 1
    except BaseException:
        operand_drop(&x[0])
        raise
    return 0


cdef object binary_recorded(int op, object left, object right):
    """The same for a program: what refuses a Tensor in the place of a number (complex numbers and
    fractions, float16, a timedelta) meets its value where that may leave."""
    cdef Operand x[3]
    cdef object other = left if isinstance(right, Tensor) else right
    cdef object plain = OPERATORS.get(op) or getattr(np, fg_op_info[op].name.decode(), None)
    if op in ARITHMETIC and (is_truth(left) or is_truth(right)):
        return plain(bool(left) if is_truth(left) else left, bool(right) if is_truth(right) else right)
    try:
        if not binary_operands(left, right, x):
            return push(op, 2, x)
        if isinstance(other, Tensor) or other is None or takes_turn(other):
            return NotImplemented
    except (TypeError, ValueError, NotImplementedError) as error:
        if plain is None or not values_serve((left, right), {}, error):
            raise
        return called_on_values(plain, (left, right), {})
    if plain is None or not values_serve((left, right), {}):
        return NotImplemented
    return called_on_values(plain, (left, right), {})


cdef bint is_number(object x) except -1:
    """Whether x is a float to the plain function, and no scalar of NumPy's."""
    cdef FgNode *n
    if type(x) is not Tensor or mode().recorder == NULL:
        return False
    n = (<Tensor>x).node
    return (n.rank == 0 and is_float(n.dtype) and n.flags & FG_WEAK == FG_WEAK
            and of_programs_alone(<Tensor>x))


cdef bint is_truth(object x) except -1:
    """Whether x is a bool to it: a comparison of floats, which is a number in arithmetic."""
    cdef FgNode *n
    cdef int k
    if type(x) is not Tensor or mode().recorder == NULL:
        return False
    n = (<Tensor>x).node
    if n.rank or not FG_ELEMENTWISE_END <= n.op < FG_COMPARE_END or not of_programs_alone(<Tensor>x):
        return False
    for k in range(2):          # (what is no node is a number in this one)
        if operand_at(n, k) and node_at(operand_at(n, k)).flags & FG_WEAK != FG_WEAK:
            return False
    return True


cdef frozenset ARITHMETIC = frozenset([FG_add, FG_subtract, FG_multiply, FG_divide, FG_floor_divide,
                                       FG_mod, FG_power])

cdef dict OPERATORS = {
    FG_add: operator.add, FG_subtract: operator.sub, FG_multiply: operator.mul,
    FG_divide: operator.truediv, FG_floor_divide: operator.floordiv, FG_mod: operator.mod,
    FG_power: operator.pow, FG_less: operator.lt, FG_less_equal: operator.le,
    FG_greater: operator.gt, FG_greater_equal: operator.ge, FG_equal: operator.eq,
    FG_not_equal: operator.ne}


cdef bint takes_turn(object x):
    """Whether x may be of a class of the user's, whose own operators meet the Tensor. (Those of C and
    of the standard library take numbers for what they know alone.)"""
    cdef object module = getattr(type(x), "__module__", None)
    return type(x).__flags__ & HEAPTYPE and str(module).partition(".")[0] not in OWN_NUMBERS


HEAPTYPE = 1 << 9           # Py_TPFLAGS_HEAPTYPE: of a class statement, mostly
cdef object OWN_NUMBERS = frozenset(["_decimal", "_pydecimal", "datetime", "decimal", "fractions"])


cdef inline object unary(int op, object o):
    cdef Operand x[3]
    cdef FgNode *a
    if fast_scalar(o) and get_recording() and not fg_op_info[op].props & FG_STEPS:
        a = (<Tensor>o).node
        return push_scalar(op, FG_FLOAT64, a.flags & FG_WEAK, (<Tensor>o).id, a,
                           FG_NO_ID, NULL, 0, fg_value(op, FG_FLOAT64, a.re, 0, 0))
    if (type(o) is Tensor and fast_array(<Tensor>o) and get_recording()
            and not fg_op_info[op].props & FG_STEPS):
        return push_array_fast(op, (<Tensor>o).id, (<Tensor>o).node, FG_NO_ID, NULL, 0, 0)
    operand_of(o, &x[0], False)
    return push(op, 1, x)


cdef object logical(object function, object left, object right):
    """Bitwise operators of masks and integers: values alone."""
    for x in (left, right):
        if not isinstance(x, (Tensor, np.ndarray, np_generic, int)):
            return NotImplemented
    return derived("numpy." + function.__name__, function, (left, right), {})


# ---- NumPy's ufuncs -------------------------------------------------------------------------

cdef object array_ufunc(object ufunc, str method, tuple inputs, dict kwargs):
    """What np.sin(t), np.add(t, 1), ndarray + t and np.add.reduce(t) come to."""
    cdef object out = kwargs.pop("out", None) if kwargs else None
    cdef object result, function
    if out is not None and type(out) is not tuple:
        out = (out,)
    for x in inputs:
        if method == "__call__" and (type(x) is list or type(x) is tuple):
            inputs = tuple([listed(y) for y in inputs])
            break
    if out is not None and len(out) > 1 and any([isinstance(x, Tensor) for x in out]):
        return results_into(ufunc, out, array_ufunc(ufunc, method, inputs, kwargs))
    if out is not None and into_arrays(out):
        if method != "__call__":
            raise TypeError(f"numpy.{ufunc.__name__}.{method}: out= is not supported with Tensors; "
                            "bind the result to a name instead")
        return ufunc_into(ufunc, inputs, kwargs, out)
    if method == "__call__":
        function = ARRAY_FUNCTIONS.get(ufunc)
        if kwargs and typed(kwargs) and (ufunc.signature is None or ufunc is np.matmul):
            kwargs = ufunc_options(ufunc.__name__, kwargs)
            types = loop_types(ufunc, inputs, kwargs)
            if not floats(types) or not any_float(inputs):
                if not floats(types) and any_float(inputs) and function is None \
                        and ufunc not in UFUNCS and ufunc not in PLAIN_UFUNCS:
                    with np.errstate(all="ignore"):
                        result = unruled(ufunc, None, inputs, loop_named(ufunc, types, kwargs))
                else:
                    with np.errstate(all="ignore"):
                        result = derived("numpy." + ufunc.__name__, ufunc, inputs,
                                         loop_named(ufunc, types, kwargs))
                return result if out is None else ufunc_out(ufunc, inputs, out[0], result)
            inputs = tuple([in_loop(x, dtype) for x, dtype in zip(inputs, types)])
            kwargs = {}
        if function is not None and ufunc not in UFUNCS:
            result = function(*inputs, **kwargs)
            return result if out is None else ufunc_out(ufunc, inputs, out[0], result)
        if kwargs:
            ufunc_options(ufunc.__name__, kwargs)
            kwargs = {}
        function = UFUNCS.get(ufunc)
        if not any([isinstance(x, Tensor) and is_float((<Tensor>x).node.dtype) for x in inputs]):
            # Integers and booleans: NumPy's own results.
            with np.errstate(all="ignore"):
                result = unruled(ufunc, None, inputs, kwargs)
        elif function is not None:
            result = function(*inputs, **kwargs)
        elif ufunc in PLAIN_UFUNCS:
            result = derived("numpy." + ufunc.__name__, ufunc, inputs, {})
        else:
            with np.errstate(all="ignore"):
                result = unruled(ufunc, None, inputs, kwargs)
        if out is not None:
            return ufunc_out(ufunc, inputs, out[0], result)
        return result
    if out is not None and any([o is not None for o in (out if type(out) is tuple else (out,))]):
        raise TypeError(f"numpy.{ufunc.__name__}.{method}: out= is not supported with Tensors; bind "
                        "the result to a name instead")
    if method == "reduce":
        name = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min",
                "logical_or": "any", "logical_and": "all"}.get(ufunc.__name__)
        function = ARRAY_FUNCTIONS.get(getattr(np, name)) if name else None
        if function is not None:
            arguments = dict(zip(("axis", "dtype", "out", "keepdims"), inputs[1:]))
            arguments.update(kwargs)
            arguments.setdefault("axis", 0)
            if name not in ("sum", "prod") and arguments.get("dtype") is not None:
                if name in ("any", "all") or not (
                        any_float(inputs) and is_float(np.dtype(arguments["dtype"]).num)):
                    return unruled(ufunc.reduce, f"{ufunc_name(ufunc)}.reduce", inputs, kwargs)
                inputs = (cast(inputs[0], arguments["dtype"]),)
                del arguments["dtype"]
            return function(inputs[0], **{k: v for k, v in arguments.items() if v is not None
                                          or k == "axis"})
    elif method == "accumulate" and ufunc in ACCUMULATED and kwargs.get("out") is None:
        return ACCUMULATED[ufunc](*inputs, **{"axis": 0, **kwargs})
    elif method == "outer" and not kwargs:
        a, b = [np.asarray(x) if not isinstance(x, Tensor) else x for x in inputs]
        return array_ufunc(ufunc, "__call__", (
            reshape(a, tuple(a.shape) + (1,) * b.ndim), b), {})
    elif method == "at" and PyArray_Check(inputs[0]):
        return at_array(ufunc, inputs)
    elif method == "at" and ufunc is np.add and isinstance(inputs[0], Tensor):
        in_place(inputs[0], inputs[0] + scatter(inputs[2], inputs[1], inputs[0].shape),
                 "np.add.at", False)
        return None
    if method == "at" and isinstance(inputs[0], Tensor):
        raise refused_as(no_rule(f"{ufunc_name(ufunc)}.at"))
    return unruled(getattr(ufunc, method), f"{ufunc_name(ufunc)}.{method}", inputs, kwargs)


cdef object ufunc_out(object ufunc, tuple inputs, object target, object result):
    """out=, a Tensor: it becomes the result."""
    return in_place(target, result, f"numpy.{ufunc.__name__}(..., out=)", False)


# ---- writing into ndarrays ------------------------------------------------------------------

cdef bint into_arrays(object out) except -1:
    """Whether an ndarray is among what out= gives."""
    for target in (out if type(out) is tuple else (out,)):
        if target is not None and not isinstance(target, Tensor):
            return True
    return False


cdef bint is_lost(object x) except -1:
    """Whether something would be lost if the value of x went into an ndarray."""
    cdef Recorder r
    if not isinstance(x, Tensor):
        return False
    r = maker_of(<Tensor>x)
    if r is not None and r.known is not None and of_programs_alone(<Tensor>x):
        return False                    # an array to the function that is compiled
    if of_a_step(x):
        handed_out(<Tensor>x)           # (which ends the recording of a step)
        return True                     # as a lane of vmap, or a step of a loop, has others
    return lost(x)


cdef bint holds_lost(object tree) except -1:
    """The same of what is in tuples, lists and dictionaries of arguments."""
    if type(tree) is tuple or type(tree) is list or type(tree) is dict:
        descend()
        try:
            for x in (tree.values() if type(tree) is dict else tree):
                if holds_lost(x):
                    return True
        finally:
            ascend()
        return False
    return is_lost(tree)


cdef object cannot_hold(str name):
    return refused(
        f"{name}: an ndarray cannot hold a recorded Tensor{user_line()}; make the array with "
        "fnp.zeros(...) (fastgrad.numpy), or write fg.tensor(a) for its values. (`a += t` binds "
        "the name a to a Tensor where nothing else has the array: a is no parameter, no view, and "
        "no other name's.)")


# Functions that write into their first argument.
WRITERS = frozenset([np.copyto, np.put, np.place, np.putmask, np.put_along_axis,
                     np.fill_diagonal])


cdef object written_by(object function, tuple args, dict kwargs):
    """One of these, of an ndarray."""
    if holds_lost(args) or holds_lost(kwargs):
        raise cannot_hold("numpy." + function.__name__)
    return function(*[number_or_array(x) for x in args],
                    **{key: number_or_array(x) for key, x in kwargs.items()})


cdef object number_or_array(object x):
    """The value of a Tensor as NumPy's functions take it: what stands for a Python float is one."""
    if type(x) is list or type(x) is tuple:
        return type(x)([number_or_array(y) for y in x])
    if not isinstance(x, Tensor):
        return x
    a = tensor_ndarray(<Tensor>x)
    if (<Tensor>x).node.rank == 0 and (<Tensor>x).node.flags & FG_WEAK == FG_WEAK \
            and is_float((<Tensor>x).node.dtype):
        return (<Tensor>x).node.re
    return a


cdef object ufunc_into(object ufunc, tuple inputs, dict kwargs, object out):
    """out=, an ndarray, which `a += t` gives as well: the name is bound to a Tensor where nobody
    can tell, and else the values are written if nothing is lost by it."""
    cdef object target = out[0] if type(out) is tuple else out
    if len(inputs) and target is inputs[0] and rebinds(target, ufunc is np.matmul):
        kwargs.pop("axes", None)        # @= tells NumPy's matmul
        return fitted(ufunc.__name__, target, array_ufunc(ufunc, "__call__", inputs, kwargs))
    for x in (*inputs, *(out if type(out) is tuple else (out,))):
        if is_lost(x):
            raise cannot_hold("numpy." + ufunc.__name__)
    with np.errstate(all="ignore"):
        return ufunc(*[number_or_array(x) for x in inputs], out=out, **kwargs)


cdef object results_into(object ufunc, tuple out, object results):
    """The results of a ufunc that has several, where Tensors are among what they are put into."""
    cdef list found = []
    for target, result in zip(out, results):
        if isinstance(target, Tensor):
            result = ufunc_out(ufunc, (), target, result)
        elif target is not None:
            if is_lost(result):
                raise cannot_hold("numpy." + ufunc.__name__)
            target[...] = number_or_array(result)
            result = target
        found.append(result)
    return tuple(found)


cdef object fitted(str name, object target, object result):
    """What `target op= t` makes, with the shape and dtype of the array whose place it takes."""
    if np.shape(target) != result.shape:
        raise ValueError(f"numpy.{name}: the result has shape {result.shape}, which does not fit "
                         f"into the array of shape {np.shape(target)}")
    if result.dtype == target.dtype:
        return point_made(result)
    if not np.can_cast(result.dtype, target.dtype, "same_kind"):
        raise TypeError(f"numpy.{name}: a {result.dtype} result does not fit into a {target.dtype} "
                        f"array{user_line()}; make it of floats, with fnp.zeros(...)")
    return point_made(cast(result, target.dtype))


cdef object at_array(object ufunc, tuple inputs):
    """ufunc.at(a, indices, values) of an ndarray."""
    for x in inputs:
        if is_lost(x):
            raise cannot_hold(f"numpy.{ufunc.__name__}.at")
    return ufunc.at(*[number_or_array(x) for x in inputs])


cdef inline bint typed(dict kwargs):
    """Whether options of a ufunc choose its types, or how inputs may be cast to them."""
    return (kwargs.get("dtype") is not None or kwargs.get("signature") is not None
            or kwargs.get("sig") is not None or kwargs.get("casting", "same_kind") != "same_kind")


cdef tuple loop_types(object ufunc, tuple inputs, dict kwargs):
    """The dtypes that NumPy's ufunc would compute with: of the inputs, then of the results. Raises
    what NumPy raises."""
    cdef list given = []
    cdef Tensor t
    if len(inputs) != ufunc.nin:
        raise TypeError(f"{ufunc.__name__}() takes {ufunc.nin} positional arguments "
                        f"({len(inputs)} given)")
    for x in inputs:
        if isinstance(x, Tensor):
            t = <Tensor>x
            t.fresh()
            given.append(t.dtype if not t.node.flags & FG_WEAK else
                         float if is_float(t.node.dtype) else t.dtype)
        elif type(x) is float or type(x) is int:
            given.append(type(x))
        else:
            given.append(np.asarray(x).dtype)
    wanted = kwargs.get("signature", kwargs.get("sig"))
    if kwargs.get("dtype") is not None:
        if wanted is not None:
            raise TypeError("cannot specify both 'signature' and 'dtype'")
        wanted = (None,) * ufunc.nin + (np.dtype(kwargs["dtype"]),) * ufunc.nout
    elif wanted is not None:
        if isinstance(wanted, str):
            wanted = tuple(wanted.replace("->", ""))
        elif not isinstance(wanted, tuple):
            wanted = (wanted,)
        wanted = tuple([None if x is None else np.dtype(x) for x in wanted])
        if len(wanted) == 1:
            wanted = (None,) * ufunc.nin + wanted * ufunc.nout
    else:
        wanted = (None,) * (ufunc.nin + ufunc.nout)
    return ufunc.resolve_dtypes((*given, *(None,) * ufunc.nout), signature=wanted,
                                casting=kwargs.get("casting", "same_kind"))


cdef dict loop_named(object ufunc, tuple types, dict kwargs):
    """Options that choose this loop, as files can hold them."""
    characters = "".join([x.char for x in types])
    return {"signature": f"{characters[:ufunc.nin]}->{characters[ufunc.nin:]}",
            "casting": kwargs.get("casting", "same_kind")}


cdef bint floats(tuple types) except -1:
    """Whether a loop computes with float32 or float64 (and may answer with booleans)."""
    for x in types:
        if not is_float(x.num) and x.char != "?":
            return False
    return is_float(types[0].num) and is_float(types[len(types) - 2].num)


cdef bint any_float(tuple inputs) except -1:
    for x in inputs:
        if isinstance(x, Tensor) and is_float((<Tensor>x).node.dtype):
            return True
    return False


cdef object in_loop(object x, object dtype):
    """An input in the dtype of the loop; numbers of Python's give way by themselves."""
    if type(x) is float or type(x) is int:
        return dtype.type(x)
    return cast(x, dtype) if isinstance(x, Tensor) else np.asarray(x).astype(dtype, copy=False)


cdef dict ufunc_options(str name, dict kwargs):
    """The options of ufuncs that choose types; the others must be left at their defaults."""
    cdef dict kept = {}
    for key, value in kwargs.items():
        if key in ("dtype", "signature", "sig", "casting"):
            if value is not None:
                kept[key] = value
        elif key == "where":
            if value is not True:
                raise TypeError(f"{name}: where= is not supported with Tensors; use "
                                "fastgrad.numpy.where on the result")
        elif key == "out":
            if value is not None and not (type(value) is tuple and len(value) == 1
                                          and value[0] is None):
                raise TypeError(f"{name}: out= is not supported with Tensors; bind the result to a "
                                "name instead")
        elif key not in ("order", "subok"):
            raise TypeError(f"{name}: unexpected keyword argument {key!r}")
    return kept
