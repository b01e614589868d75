"""grad and value_and_grad, with the trees of their arguments."""

@cython.final
@cython.no_gc
cdef class Argument:
    """The leaf that an argument became: the Tensor may be assigned to and go on as another node."""
    cdef uint32_t id
    cdef FgNode *node

    def __dealloc__(self):
        if self.id:
            node_drop(self.id)


# trees.py says what a tree is. What nearly all of them are made of is recognised here by its type.

cdef inline bint is_leaf_type(object x) noexcept:
    return PyFloat_CheckExact(x) or type(x) is np_ndarray or type(x) is Tensor


cdef object children_of(object tree):
    """The children of a branch; None if the tree is a leaf."""
    if is_leaf_type(tree):
        return None
    if type(tree) is tuple or type(tree) is list:
        return tree
    if type(tree) is dict:
        return tree.values()
    branch = _trees.open_branch(tree)
    return None if branch is None else branch.children


cdef bint holds_tensor_deep(object tree) except -1:
    """Whether a Tensor is among the leaves of a tree."""
    children = children_of(tree)
    if children is None:
        return isinstance(tree, Tensor)
    descend()
    try:
        for x in children:
            if holds_tensor_deep(x):
                return True
    finally:
        ascend()
    return False


cdef Tensor floor_node():
    """A node that only tells what was recorded before it."""
    cdef FgTape *tape = tape_of_thread()
    cdef uint32_t id
    cdef FgNode *n = node_append(tape, &id)
    node_set(n, FG_leaf, FG_FLOAT64, 0, 0, FG_NO_ID, FG_NO_ID, FG_NO_ID)
    n.re = n.constant = 0
    return tensor_new(id, n, tape)


cdef Argument argument_of(Tensor t):
    cdef Argument a = Argument.__new__(Argument)
    t.node.refs += 1
    a.id = t.id
    a.node = t.node
    return a


cdef Tensor argument_nested(Tensor outer):
    """The argument of a transformation inside another one: a node of its own, so that the inner
    derivative is with respect to it alone, which hands its own derivative on."""
    cdef Operand x
    cdef Tensor t
    operand_tensor_ready(outer, &x)
    t = push_reshape(&x, outer.node.rank, outer.node.shape.dims if outer.node.rank else NULL)
    if outer.node.rank == 0:
        t.node.flags = <uint16_t>(t.node.flags & ~FG_WEAK
                                  | outer.node.flags & FG_WEAK)
        if is_point(outer):
            point_made(t)
    if not t.node.flags & FG_LEAF:
        t.node.flags |= FG_NEEDS_GRAD       # also of something that a program only takes down
    return t


def taken(Tensor t):
    """A node of its own for what a Tensor is now: it may be assigned to."""
    return argument_nested(t)


cdef Tensor argument_leaf(object value, str where_):
    """The leaf that stands for one number or array inside the function."""
    cdef Tensor t, outer
    cdef Operand x
    if PyFloat_CheckExact(value):
        t = scalar_constant(PyFloat_AS_DOUBLE(value), FG_FLOAT64,
                            FG_WEAK | FG_NEEDS_GRAD | FG_ARGUMENT)
        t.node.attr = reach_new()
        t.node.c = thread_mark()
        return t
    if isinstance(value, Tensor):
        outer = <Tensor>value
        outer.fresh()
        if not is_float(outer.node.dtype):
            raise TypeError(f"{where_} is a Tensor of dtype {outer.dtype}, which has no derivative; "
                            "write .astype(float)")
        if outer.node.flags & FG_NEEDS_GRAD and get_recording() or is_traced(outer):
            t = argument_nested(outer)
            t.node.flags |= FG_INSIDE
            return t
        t = outer.detach()
    elif mode().recorder != NULL and PyArray_Check(value) and is_float(PyArray_TYPE(value)) \
            and array_kind(value) is None:
        # The array may be an input of the program that is recorded.
        t = (<Recorder>mode().recorder).array_operand(value)
        if t is not None:
            t = argument_nested(t)
            t.node.flags |= FG_INSIDE
            return t
        t = tensor(value)
    elif type(value) is np_ndarray and is_float(PyArray_TYPE(value)) and PyArray_NDIM(value):
        operand_clear(&x)
        operand_array(<ndarray>value, &x)
        try:
            t = tensor_shaped(x.shape, value_copy(x.shape, x.value, x.dtype), x.dtype)
        finally:
            operand_drop(&x)
    elif PyArray_Check(value) or isinstance(value, np_generic):
        if array_kind(value) is not None:
            raise TypeError(f"{where_}: {array_kind(value)}")
        a = np.asarray(value)
        if a.dtype.kind in "biu":
            raise TypeError(f"{where_} is an {'array' if PyArray_Check(value) else 'integer'} of dtype "
                            f"{a.dtype}, which has no derivative; write "
                            f"{'.astype(float)' if PyArray_Check(value) else 'float(x)'}")
        if a.dtype.num >= KNOWN_DTYPES or not dtype_known[a.dtype.num]:
            raise TypeError(f"{where_}: {dtype_message(a.dtype).removeprefix('fastgrad: ')}")
        t = tensor(value)
        if PyArray_Check(value):
            point_made(t)
    elif PyLong_Check(value):
        raise TypeError(f"{where_} is the {type(value).__name__} {value!r}, which has no derivative; "
                        "write float(x)")
    elif PyComplex_Check(value):
        raise TypeError(f"{where_}: {dtype_message(np.dtype(complex)).removeprefix('fastgrad: ')}")
    elif _trees.is_constant(value):
        raise TypeError(f"{where_} holds a {type(value).__name__}, which has no derivative; pass "
                        "floats, arrays, or tuples, lists and dicts of them")
    else:
        raise TypeError(f"{where_} holds a {type(value).__name__}, which has no derivative and is "
                        "no known container; pass floats, arrays, or tuples, lists and dicts of "
                        "them, or say how to take it apart: fg.trees.register("
                        f"{type(value).__name__}, flatten, unflatten)")
    t.node.flags |= FG_NEEDS_GRAD | FG_ARGUMENT
    t.node.attr = reach_new()
    if t.node.flags & FG_LEAF:
        t.node.c = thread_mark()
        if mode().recorder != NULL:
            t.node.uses += 1            # a constant of the program: the value has to stay
    return t


cdef object lift(object value, str where_, list leaves, bint inside=False):
    """The argument with a leaf for every number and array in it; what is neither stays as it is
    inside a container."""
    cdef Tensor t
    if not is_leaf_type(value):
        descend()
        try:
            if type(value) is dict:
                return {k: lift(v, f"{where_}[{k!r}]", leaves, True) for k, v in value.items()}
            if type(value) is list or type(value) is tuple:
                items = [lift(v, f"{where_}[{i}]", leaves, True) for i, v in enumerate(value)]
                return items if type(value) is list else tuple(items)
            branch = _trees.open_branch(value)
            if branch is not None:
                return _trees.close_branch(branch, [
                    lift(v, where_ + _trees.step(branch, k), leaves, True)
                    for k, v in zip(branch.keys, branch.children)])
        finally:
            ascend()
        if inside and _trees.is_constant(value):
            return value
    t = argument_leaf(value, where_)
    leaves.append(argument_of(t))
    return t


cdef object lower(object value, Sweep *s, Subgraph g, bint tensors, list leaves):
    """The gradients in the structure of the argument, each of the kind of what it belongs to, or
    all of them Tensors; s or g, whichever there is, has them."""
    cdef Argument t
    cdef Gathered *e
    cdef FgAdjoint zero
    if not is_leaf_type(value):
        descend()
        try:
            if type(value) is dict:
                return {k: lower(x, s, g, tensors, leaves) for k, x in value.items()}
            if type(value) is list or type(value) is tuple:
                items = [lower(x, s, g, tensors, leaves) for x in value]
                return items if type(value) is list else tuple(items)
            branch = _trees.open_branch(value)
            if branch is not None:
                return _trees.close_branch(branch, [lower(x, s, g, tensors, leaves)
                                                    for x in branch.children])
        finally:
            ascend()
        if _trees.is_constant(value):
            return None
    t = <Argument>leaves.pop()
    if g is not None:
        return derivative_object(value, t.node, g.get(t.id), tensors)
    zero.number = 0
    zero.value = NULL
    e = NULL
    if s != NULL:
        e = gathered_at(s, t.id)
        if e.id == 0:
            e = NULL
    if tensors:
        return pointed(value, adjoint_tensor(t.node, &zero if e == NULL else &e.adjoint))
    return adjoint_object(value, t.node, &zero if e == NULL else &e.adjoint)


cdef Tensor pointed(object value, Tensor t):
    """A derivative by `value`; while a program is recorded, that by a 0-d array is one, too."""
    cdef Recorder r = recorder()
    if r is not None and t.node.rank == 0 and isinstance(value, Tensor) \
            and (<Tensor>value).id in r.points:
        t = emit_one(FG_positive, t)
        r.points.add(t.id)
    return t


cdef object derivative_object(object value, FgNode *n, Tensor t, bint tensors):
    """A derivative that is a Tensor (None: zero) as what it belongs to, or as it is."""
    cdef FgAdjoint a
    if t is None:
        t = zeros_like_node(n)
    if tensors and n.flags & FG_WEAK and n.rank == 0 and not t.node.flags & FG_WEAK:
        # The derivative by a Python number gives way in promotion, like the number.
        t = emit_one(FG_positive, t)
        t.node.flags |= FG_WEAK
    if tensors or isinstance(value, Tensor):
        return pointed(value, t)
    if n.rank == 0:
        a.number = t.node.re
    else:
        a.value = value_of(t.node, t.id)
    return adjoint_object(value, n, &a)


cdef object adjoint_object(object value, FgNode *n, FgAdjoint *a):
    """An adjoint as float, NumPy scalar, ndarray or Tensor, as the argument was."""
    cdef FgValue *v
    if n.rank == 0:
        if PyFloat_CheckExact(value):
            return a.number
        if isinstance(value, Tensor):
            return scalar_constant(a.number, n.dtype, 0)
        if PyArray_Check(value):
            return np.array(a.number, dtype=dtypes[n.dtype])
        return dtypes[n.dtype].type(a.number)
    if isinstance(value, Tensor):
        return adjoint_tensor(n, a)
    v = adjoint_array(n, a)
    try:
        return result_ndarray(n.shape, v, n.dtype)
    finally:
        value_release(v)


cdef object result_ndarray(FgShape *shape, FgValue *v, int dtype):
    """An ndarray for the user to keep and to write to: a small one is copied into NumPy's own
    memory, which is cheaper than an owner object."""
    cdef object a
    if shape.size * item_size(dtype) > 4096:
        return value_ndarray(shape, v, dtype, True)
    a = PyArray_New(&PyArray_Type, shape.rank, <npy_intp *>shape.dims, dtype, NULL, NULL, 0, 0, None)
    copy_into(shape, v, dtype, <char *>PyArray_DATA(<ndarray>a))
    return a


cdef object settle(object value):
    """What a function returned beside its gradient, without Tensors: floats stay floats, scalars
    become NumPy scalars, arrays ndarrays, as the plain function would have returned them."""
    cdef Tensor t
    if isinstance(value, Tensor):
        t = <Tensor>value
        t.fresh()
        if t.node.rank == 0:
            if t.node.flags & FG_WEAK:
                return t.node.re
            if t.node.dtype == FG_FLOAT64:
                return PyArray_Scalar(&t.node.re, <cnp.dtype>dtypes[FG_FLOAT64], None)
            return dtypes[t.node.dtype].type(scalar_python(t.node))
        return np.array(tensor_ndarray(t))
    if is_leaf_type(value):
        return value
    if PySlice_Check(value):
        return slice(settle(value.start), settle(value.stop), settle(value.step))
    branch = _trees.open_branch(value)
    if branch is None:
        return value
    descend()
    try:
        children = [settle(x) for x in branch.children]
    finally:
        ascend()
    for x, y in zip(children, branch.children):
        if x is not y:
            return _trees.close_branch(branch, children)
    return value


@cython.final
@cython.binding(False)
cdef class Differentiated:
    """The function that `grad` and `value_and_grad` return."""
    cdef void *vectorcall       # CPython calls through it, without tuple and dictionary
    cdef bint simple            # one argument number, 0, and no aux
    cdef readonly object __wrapped__
    cdef object argnums
    cdef bint has_aux, with_value
    cdef str name, first        # of the transformation, and of its first argument, for messages
    cdef object labels          # what to call arguments that were given by name
    cdef int outermost          # the depth of a call by the user
    cdef dict __dict__

    def __repr__(self):
        return f"<{self.name} of {_arguments.name_of(self.__wrapped__)}>"

    def __get__(self, instance, owner):
        import types
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self):
        return by_name(self) or self._parts()

    def _parts(self):
        """What it is made of, as for pickle."""
        return differentiated, (self.__wrapped__, self.argnums, self.has_aux, self.with_value,
                                self.name, self.outermost)

    def __call__(self, *args, **kwargs):
        return self.call(args, kwargs)

    cdef object call(self, tuple args, dict kwargs):
        cdef list leaves, lifted
        cdef object result
        cdef tuple arguments
        cdef int depth = mode().depth
        cdef Py_ssize_t n = len(args)
        cdef int recording = mode().not_recording
        cdef uint32_t refusals = mode().refusals
        cdef Tensor floor = floor_node() if depth or parameters else None

        leaves = []
        if n == 1 and self.simple:
            arguments = (lift(args[0], self.argument_name(0), leaves),)
        else:
            lifted = list(args)
            for i in self.positions(n):
                lifted[i] = lift(args[i], self.argument_name(i), leaves)
            arguments = tuple(lifted)
            lifted = None
        mode().depth = depth + 1
        mode().not_recording = 0
        try:
            result = PyObject_Call(self.__wrapped__, arguments,
                                   NULL if kwargs is None else <PyObject *>kwargs)
        except ValueError as error:
            raise_refused(error)
            raise
        finally:
            mode().depth = depth
            mode().not_recording = recording
        arguments = None
        if mode().refusals != refusals:
            warn_caught(repr(self))
        return self.finish(args, leaves, result, floor)

    cdef object finish(self, tuple args, list leaves, object result, Tensor floor):
        """From what the function returned to value and gradient."""
        cdef Tensor t
        cdef object aux = None, value = None, gradient = None
        cdef int depth = mode().depth
        cdef Sweep s
        cdef bint prune, recorded
        cdef bint tensors = depth > 0       # inside another transformation they stay what they are
        cdef Subgraph g = None
        if self.has_aux:
            if type(result) is not tuple or len(result) != 2:
                raise TypeError(f"{self!r}: with has_aux=True the function must return (value, aux), "
                                f"not {type(result).__name__}")
            result, aux = result
            if depth == 0:
                aux = settle(aux)
        if not isinstance(result, Tensor):
            value = self.plain_value(result, leaves)
            gradient = self.collect(args, NULL, None, tensors, leaves)
            return self.answer(value, aux, gradient)
        t = <Tensor>result
        result = None
        t.fresh()
        if (t.node.shape.size if t.node.rank else 1) != 1:
            raise ValueError(
                f"{self!r}: the function must return one number, not shape {t.shape}; reduce it "
                "(for example with .sum()), " + (
                    "or write fg.jacobian(fg.jacobian(f)), the Hessian of each entry"
                    if self.outermost else "give a seed= to .backward(), or use "
                    "fastgrad.elementwise_grad for an element-wise function"))
        if not is_float(t.node.dtype):
            raise TypeError(f"{self!r}: the function returned a {t.dtype}, which has no derivative")
        if self.with_value:
            value = t if depth else settle(t)
        if t.tape == NULL:
            return self.answer(value, aux, self.leaf_gradient(args, leaves, t, depth, tensors))
        if t.tape != get_thread_tape():
            raise thread_error(t.tape)
        recorded = get_recording() and (depth > 0 or holds_tensor_deep(args))
        prune = parameters > 0 or depth > 0 or recorded or t.tape.duals > 0
        by_steps = self.alone(leaves) and by_steps_alone(t.id)
        sweep_begin(&s, t.tape, depth > 0)
        s.rules = True          # (an error ends the graph, which nobody else has)
        try:
            if prune:
                for leaf in leaves:
                    (<Argument>leaf).node.flags |= FG_WANTED
            g = sweep_from(&s, t, NULL, leaves if prune else None, recorded,
                           floor.id if floor is not None else FG_NO_ID)
            if g is None:
                if by_steps or s.gathered_count == 0 and self.alone(leaves):
                    self.independent()
                gradient = self.collect(args, &s, None, tensors, leaves)
        finally:
            if prune:
                for leaf in leaves:
                    (<Argument>leaf).node.flags &= ~FG_WANTED
            sweep_end(&s)
        if g is not None:
            emit_from(g, t, seed_tensor(t, None, "grad"),
                      recorded and (g.found & (FOUND_OUTER | FOUND_PARAMETER) != 0
                                    or mode().recorder != NULL))
            if by_steps:
                self.independent()
            elif self.alone(leaves):
                for leaf in leaves:
                    if g.get((<Argument>leaf).id) is not None:
                        break
                else:
                    self.independent()
            gradient = self.collect(args, NULL, g, tensors, leaves)
        return self.answer(value, aux, gradient)

    cdef tuple positions(self, Py_ssize_t n):
        """The positions to differentiate, among n positional arguments."""
        cdef tuple numbers = (self.argnums,) if type(self.argnums) is int else self.argnums
        cdef tuple found
        if n == 1 and len(numbers) == 1 and (numbers[0] == 0 or numbers[0] == -1):
            return (0,)
        found = tuple([i + n if i < 0 else i for i in numbers])
        if n == 0 and self.argnums == 0 and _arguments.no_parameters(self.__wrapped__):
            return ()
        for i in found:
            if i < 0 or i >= n:
                raise TypeError(f"{self!r}: argnums={self.argnums!r}, but the call has {n} positional "
                                f"argument{'' if n == 1 else 's'}")
        if len(set(found)) != len(found):
            raise TypeError(f"{self!r}: argnums={self.argnums!r} names an argument twice")
        return found

    cdef str argument_name(self, Py_ssize_t i):
        if self.labels is not None and i in self.labels:
            return f"{self.name}: argument {self.labels[i]}"
        return self.first if i == 0 else f"{self.name}: argument {i}"

    cdef object collect(self, tuple args, Sweep *s, Subgraph g, bint tensors, list leaves):
        cdef object gradients_
        if self.simple and len(leaves) == 1 and len(args) == 1:
            return lower(args[0], s, g, tensors, leaves)
        leaves = leaves[::-1]
        gradients_ = tuple([lower(args[i], s, g, tensors, leaves)
                            for i in self.positions(len(args))])
        return gradients_[0] if type(self.argnums) is int and gradients_ else gradients_

    cdef bint alone(self, list leaves):
        """Whether to say that the result depends on no argument, if it is this call's to say."""
        return len(leaves) > 0 and mode().depth == self.outermost

    cdef object leaf_gradient(self, tuple args, list leaves, Tensor t, int depth, bint tensors):
        """The function returned an argument itself, or something that depends on none."""
        cdef Sweep s
        cdef bint own = False
        for leaf in leaves:
            own = own or (<Argument>leaf).id == t.id
        if not own:
            if self.alone(leaves):
                self.independent()
            return self.collect(args, NULL, None, tensors, leaves)
        sweep_begin(&s, tape_of_thread(), True)
        try:
            if t.node.rank:
                gathered_new(&s, t.id).adjoint.value = number_value(1, t.node.dtype)
            else:
                gathered_new(&s, t.id).adjoint.number = 1
            return self.collect(args, &s, None, tensors, leaves)
        finally:
            sweep_end(&s)

    cdef object plain_value(self, object value, list leaves):
        """A result that is no Tensor: constant, as long as it is a number at all."""
        if array_kind(value) is not None:
            raise TypeError(f"{self!r}: the function returned a {type(value).__name__}; "
                            f"{array_kind(value)}")
        if isinstance(value, (float, int)) or (
                (PyArray_Check(value) or isinstance(value, np_generic)) and value.size == 1
                and value.dtype.kind in "fiub"):
            if self.alone(leaves):
                self.independent()
            return value
        if PyArray_Check(value) and value.dtype.kind in "fiub":
            raise ValueError(f"{self!r}: the function must return one number, not an array of shape "
                             f"{value.shape}; reduce it (for example with .sum())")
        raise TypeError(f"{self!r}: the function must return one number, not "
                        + (f"an array of dtype {value.dtype}" if PyArray_Check(value)
                           else type(value).__name__))

    cdef int independent(self) except -1:
        warn_independent(repr(self))
        return 0

    cdef object answer(self, object value, object aux, object gradient):
        if self.with_value:
            return ((value, aux), gradient) if self.has_aux else (value, gradient)
        return (gradient, aux) if self.has_aux else gradient


cdef PyObject *differentiated_call(PyObject *self, PyObject *const *args, size_t flags,
                                   PyObject *names) except NULL:
    """A call of what `grad` and `value_and_grad` return, arguments as CPython passes them."""
    cdef object result
    cdef Py_ssize_t n = PyVectorcall_NARGS(flags)
    cdef Py_ssize_t i
    if (names == NULL and n == 1 and (<Differentiated>self).simple and mode().depth == 0
            and parameters == 0 and get_recording()
            and (PyFloat_CheckExact(<object>args[0]) or type(<object>args[0]) is np_ndarray)):
        result = differentiated_one(<Differentiated>self, <object>args[0])
    else:
        result = (<Differentiated>self).call(
            tuple([<object>args[i] for i in range(n)]),
            None if names == NULL else {name: <object>args[n + i]
                                      for i, name in enumerate(<object>names)})
    Py_INCREF(result)
    return <PyObject *>result


cdef int pending() except -1:
    """Raise the exception that is set."""
    return -1


cdef int call_failed() except -1:
    """The same, of a function of the user's."""
    try:
        pending()
    except ValueError as error:
        raise_refused(error)
        raise


cdef object differentiated_one(Differentiated d, object x):
    """One Python float or one array in: the commonest calls of all, without lists and trees."""
    cdef Tensor leaf = argument_leaf(x, d.argument_name(0))
    cdef Argument own = argument_of(leaf)
    cdef PyObject *argument = <PyObject *>leaf
    cdef PyObject *returned
    cdef object result, value, gradient
    cdef Tensor t
    cdef Sweep s
    cdef Gathered *e
    cdef uint32_t refusals = mode().refusals
    mode().depth = 1
    returned = PyObject_Vectorcall(d.__wrapped__, &argument, 1, NULL)
    mode().depth = 0
    mode().not_recording = 0
    if returned == NULL:
        call_failed()
    result = <object>returned
    Py_DECREF(result)
    if mode().refusals != refusals:
        warn_caught(repr(d))
    if type(result) is Tensor:
        t = <Tensor>result
        if (t.node.rank == 0 and t.tape != NULL and t.tape == get_thread_tape()
                and t.parent is None and is_float(t.node.dtype)
                and not t.tape.consumed and not t.tape.stale and t.tape.customs == t.tape.rules
                and not t.tape.duals and not t.tape.steps and isfinite(t.node.re)):
            value = settle(t) if d.with_value else None
            sweep_begin(&s, t.tape, False)
            s.rules = True
            try:
                mark(&s, t.id)
                adjoint_slot(&s, t.id).number = 1
                if Py_REFCNT(result) == 2:
                    # Only we have the result: let its node go with the sweep.
                    t.node.handle = NULL
                    t.node.refs -= 1
                    t.id = FG_NO_ID
                sweep_run(&s)
                e = gathered_at(&s, own.id)
                if e.id:
                    gradient = adjoint_object(x, own.node, &e.adjoint)
                    return (value, gradient) if d.with_value else gradient
            finally:
                sweep_end(&s)
            d.independent()
            gradient = d.collect((x,), NULL, None, False, [own])
            return (value, gradient) if d.with_value else gradient
    return d.finish((x,), [own], result, None)


cdef void call_setup() noexcept:
    cdef Differentiated d = Differentiated.__new__(Differentiated)
    cdef PyTypeObject *type_ = <PyTypeObject *>Differentiated
    type_.tp_vectorcall_offset = <Py_ssize_t>(<char *>&d.vectorcall - <char *><void *>d)
    type_.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL


def by_name(x):
    """The name under which the module of x finds x itself, for its __reduce__; else None."""
    found = sys.modules.get(getattr(x, "__module__", None))
    name = getattr(x, "__qualname__", None)
    if found is None or not isinstance(name, str):
        return None
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is x else None


def warn_independent(str who):
    """Warn, at the user's line, of a derivative that is zero because nothing leads to the result."""
    warn(f"{who}: the result does not depend on the arguments that are differentiated; its "
         "derivative is zero")


def differentiated(f, argnums, has_aux, with_value, str name=None, int outermost=0):
    """Make the function that `grad` and `value_and_grad` return; or another transformation that
    calls it at the depth `outermost`, if it is called by the user."""
    cdef Differentiated d = Differentiated.__new__(Differentiated)
    if name is None:
        name = "value_and_grad" if with_value else "grad"
    if not callable(f):
        raise TypeError(f"{name}: the first argument must be a function, not {type(f).__name__}")
    if type(argnums) is list:
        argnums = tuple(argnums)
    if type(argnums) is not tuple:
        argnums = int(argnums.__index__()) if hasattr(argnums, "__index__") else argnums
    for i in (argnums if type(argnums) is tuple else (argnums,)):
        if type(i) is not int:
            raise TypeError(f"{name}: argnums must be an int or a tuple of ints, not "
                            f"{_trees.shown(argnums)}")
    d.name = name
    d.first = f"{name}: argument 0"
    d.outermost = outermost
    d.labels = getattr(f, "_argument_labels", None)
    d.__wrapped__ = f
    d.argnums = argnums
    d.has_aux = has_aux
    d.with_value = with_value
    d.simple = type(argnums) is int and argnums == 0 and not has_aux
    d.vectorcall = <void *>differentiated_call
    attributes = (<object>d).__dict__
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        if hasattr(f, name):
            attributes[name] = getattr(f, name)
    return d


# ---- the pool and the thread ----------------------------------------------------------------

def pool_info():
    """What the buffer pool holds, in bytes: in use, idle, and the most ever in use; and the number
    of segments of nodes, each of 64 kB. For tests, which count instead of timing: all the bytes it
    ever handed out, and the segments that sweeps passed over because they held no mark."""
    return {"used": pool_used, "idle": pool_cached, "peak": pool_peak, "segments": segments_count,
            "taken": pool_taken, "skipped": sweep_skipped}


def pool_release():
    """Return idle memory of the buffer pool to the system."""
    pool_trim(0)


def tape_info():
    """What the calling thread's tape holds: living nodes, and results waiting for their value."""
    cdef FgTape *tape = get_thread_tape()
    made_prune()
    if tape == NULL:
        return {"nodes": 0, "waiting": 0, "consumed": 0, "queued": 0}
    return {"nodes": tape.live, "waiting": tape.waiting, "consumed": tape.consumed,
            "queued": tape.queued}


def fail_allocations(int64_t first, int64_t count=1):
    """Let allocations fail, in checked builds: of those from now on, counted from 1, the `first` one
    and `count` - 1 more. Returns how many there have been since the last call.
    """
    cdef int64_t asked = fg_asked()
    if not FG_CHECKS:
        raise RuntimeError("fail_allocations: only checked builds can do that; build with "
                           "FASTGRAD_DEBUG=1 or FASTGRAD_SANITIZE=1")
    fg_fail_from(first, count)
    return asked


def checked_build():
    """Whether allocations can be made to fail, and what is alive is counted."""
    return FG_CHECKS != 0


def alive():
    """What the core holds, counted in checked builds, and how the calling thread's recording stands:
    what a call that fails leaves as it was."""
    cdef FgTape *tape = get_thread_tape()
    made_prune()
    return {"values": values_alive, "shapes": shapes_alive, "attributes": attrs_alive,
            "leaves": leaves_alive, "blocks": fg_blocks() - blocks_kept,
            "nodes": tape.live if tape != NULL else 0,
            "queued": tape.queued if tape != NULL else 0,
            "busy": tape.busy if tape != NULL else 0,
            "held": tape.held if tape != NULL else 0,
            "streaming": tape.streaming if tape != NULL else 0,
            "customs": tape.customs if tape != NULL else 0,
            "duals": tape.duals if tape != NULL else 0,
            "consumed": tape.consumed if tape != NULL else 0,
            "parameters": parameters, "streamed": len(STREAMED), "dead": dead != FG_NO_ID,
            "depth": mode().depth, "scopes": mode().scopes,
            "outside": mode().outside, "not recording": mode().not_recording,
            "kept": mode().kept != NULL, "recorder": mode().recorder != NULL, "serial": mode().serial}


def lazy_threshold(size=None):
    """From how many elements on results wait for their value (for tests); returns the setting."""
    global LAZY
    if size is not None:
        LAZY = size
    return LAZY
