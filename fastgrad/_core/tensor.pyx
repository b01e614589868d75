"""The Tensor: a thin handle on a node, with NumPy's operators, methods and protocols."""

# What the storey above registers: implementations behind NumPy's function protocol, and methods.
ARRAY_FUNCTIONS = {}
METHODS = {}
ACCUMULATED = {}                # by ufunc: what its method accumulate is


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Extra:
    """What few Tensors have: a gradient, or the view they are of another Tensor."""
    cdef object grad
    cdef tuple how              # a view: operation and arguments that derive it from the parent
    cdef int64_t seen           # the parent's version when it was derived
    cdef Tensor root            # the parent's parent's ... that is no view itself
    cdef int64_t root_seen      # its version when the view was last known to be up to date
    cdef bint readonly          # a broadcast Tensor or a diagonal, or a view of one
    cdef bint point             # a 0-d array, which changes in place where a scalar is rebound
    cdef object made            # no derivative: how it was computed (Made)
    cdef object source          # the ndarray it stands for, which would not see what is written


@cython.no_gc
@cython.c_api_binop_methods(True)
@cython.binding(False)          # methods of CPython's own kind, as everywhere: Cython's do not look
                                # at what they are called with as self
cdef class Tensor:
    """An array of float32 or float64 numbers whose history is recorded.

    Tensors are made by `fastgrad.tensor`, by the functions of `fastgrad.numpy`, and by computing
    with other Tensors. They follow NumPy in shapes, dtypes, broadcasting and indexing. Integer
    and boolean Tensors serve as indices, counts and masks and are not differentiated.

    Examples
    --------
    >>> import fastgrad as fg
    >>> w = fg.tensor([1.0, 2.0], requires_grad=True)
    >>> loss = ((w * 3 - 1) ** 2).sum()
    >>> loss.backward()
    >>> w.grad
    tensor([12., 30.])
    """
    cdef uint32_t id
    cdef FgNode *node
    cdef FgTape *tape           # NULL: a leaf
    cdef Tensor parent          # a view: of which Tensor
    cdef Extra extra
    cdef int64_t version        # how often an assignment has changed it
    cdef object __weakref__

    # NumPy's own operators leave the work to ours.
    __array_priority__ = 1000

    def __dealloc__(self):
        if self.id:
            handle_drop(self.id, self.node, self.tape)

    # ---- what it is -------------------------------------------------------------------------

    @property
    def shape(self):
        """Lengths of the axes, a tuple."""
        return tensor_dims(self.node)

    @property
    def ndim(self):
        """Number of axes."""
        return self.node.rank

    @property
    def size(self):
        """Number of entries."""
        return self.node.shape.size if self.node.rank else 1

    @property
    def dtype(self):
        """The NumPy dtype."""
        return dtypes[self.node.dtype]

    @property
    def itemsize(self):
        """Bytes of one entry."""
        return dtype_bytes[self.node.dtype]

    @property
    def nbytes(self):
        """Bytes of all entries."""
        return self.size * dtype_bytes[self.node.dtype]

    @property
    def flat(self):
        """The entries in C order, to be walked over, indexed and assigned to. As ``ndarray.flat``."""
        return flat_of(self)

    @flat.setter
    def flat(self, value):
        flat_of(self)[:] = value

    @property
    def requires_grad(self):
        """Whether a derivative with respect to it, or to what it was computed from, is recorded."""
        return (self.node.flags & FG_NEEDS_GRAD) != 0

    @requires_grad.setter
    def requires_grad(self, bint value):
        if value == self.requires_grad:
            return
        if not self.is_leaf or self.parent is not None:
            raise RuntimeError("requires_grad: can only be changed on a leaf; use .detach()")
        if value and not is_float(self.node.dtype):
            raise TypeError(f"requires_grad: a {self.dtype} Tensor has no derivative; use "
                            ".astype(float)")
        tensor_renew(self, NULL)
        leaf_require(self.node, value)

    @property
    def is_leaf(self):
        """Whether it was made by the user and not by an operation."""
        return (self.node.flags & FG_LEAF) != 0 and not self.node.flags & FG_CONSUMED

    @property
    def op(self):
        """The name of the operator that made it, or None for a leaf."""
        if self.node.flags & FG_LEAF:
            if self.node.flags & FG_CONSUMED:
                return fg_op_info[self.node.index].name.decode()
            return None
        return fg_op_info[self.node.op].name.decode()

    @property
    def grad(self):
        """The gradient that backward() has accumulated, a Tensor, or None."""
        return self.extra.grad if self.extra is not None else None

    @grad.setter
    def grad(self, value):
        if value is not None:
            if not isinstance(value, Tensor):
                value = tensor(value, dtype=self.dtype)
            if value.shape != self.shape:
                raise ValueError(f"grad: the gradient has shape {value.shape}, the Tensor "
                                 f"{self.shape}")
            if value.dtype != self.dtype:
                value = cast(value, self.dtype)
        elif self.extra is None:
            return
        self.extras().grad = value

    cdef Extra extras(self):
        if self.extra is None:
            self.extra = Extra.__new__(Extra)
        return self.extra

    def zero_grad(self):
        """Forget the accumulated gradient (it becomes None)."""
        self.grad = None

    def retain_grad(self):
        """Let backward() write the gradient of this intermediate result to .grad too."""
        if not self.node.flags & FG_NEEDS_GRAD:
            raise RuntimeError("retain_grad: this Tensor does not require a gradient")
        if not self.node.flags & FG_LEAF:
            global roots_retained
            self.node.flags |= FG_RETAINED
            roots_retained += may_be_root(self.node)

    # ---- its value --------------------------------------------------------------------------

    def numpy(self):
        """The value as a read-only ndarray; later changes of the Tensor do not show in it.

        Raises
        ------
        TypeError
            Of a Tensor that depends on an argument of a function being differentiated or mapped:
            the Tensor itself keeps the derivative, ``.detach().numpy()`` is an array to look at.
        """
        if keeps_derivative(self):
            raise refused(
                f"numpy(): this Tensor depends on what is being differentiated or mapped over"
                f"{user_line()}; the Tensor itself keeps the derivative, and functions of NumPy's "
                "take it as it is; .detach().numpy() is an array to look at")
        return tensor_ndarray(self)

    def item(self, *index):
        """The value of a Tensor with one entry (or of the entry at the index) as a Python number.

        Of a floating Tensor that depends on an argument of a function being differentiated or
        mapped it is a 0-d Tensor, which keeps the derivative; ``.detach().item()`` is the number.
        """
        if keeps_derivative(self):
            return item_recorded(self, index)
        return item_number(self, index)

    def tolist(self):
        """The value as nested lists of Python numbers; of 0-d Tensors where `item` returns one."""
        if keeps_derivative(self):
            return list_recorded(self)
        return tensor_ndarray(self).tolist()

    def detach(self):
        """The same value as a new Tensor without history."""
        cdef uint32_t id
        cdef FgNode *n
        cdef Tensor t
        self.fresh()
        if is_traced(self):
            return detached(self)
        if self.node.rank == 0:
            t = scalar_constant(self.node.re, self.node.dtype, self.node.flags & FG_WEAK) \
                if is_float(self.node.dtype) else tensor_constant(node_ndarray(self.node))
        else:
            t = tensor_shaped(self.node.shape, value_ref(value_of(self.node, self.id)),
                              self.node.dtype)
        looked_noted(t, self.node)
        if t.node.attr and made_wanted():
            made_put(t, made_new(MADE_DETACHED, (made_operand(self),)))
        return t

    def clone(self):
        """A copy that is part of the history."""
        cdef Tensor made
        if not is_float(self.node.dtype):
            made = derived("numpy.array", np.array, (self,), {})
        else:
            made = unary(FG_positive, self)
        return point_made(made) if is_point(self) else made

    copy = clone

    def __copy__(self):
        return self.clone()

    def __deepcopy__(self, memo):
        # A parameter of the user's is copied as one; whatever else is recorded goes on.
        self.fresh()
        if is_traced(self) or (self.node.flags & FG_NEEDS_GRAD and (
                not self.is_leaf or self.node.flags & FG_ARGUMENT)):
            return self.clone()
        return tensor_copy(self)

    def __reduce__(self):
        cdef bint needs = self.node.flags & FG_NEEDS_GRAD != 0 and loses(self)
        if needs and (not self.is_leaf or self.node.flags & FG_ARGUMENT):
            if mode().depth == 0 or not of_programs_alone(self):
                raise refused(
                    f"pickle: this Tensor is recorded, and a copy made of bytes would have no "
                    f"derivative{user_line()}; copy.deepcopy keeps the derivative, and .detach() "
                    "can be pickled")
            if self.node.rank or not self.node.flags & FG_WEAK:
                return settled_value(self).__reduce__()     # (floats have none)
            needs = False
        if self.node.rank == 0 and self.node.flags & FG_WEAK and is_float(self.node.dtype):
            return weak, (item_number(self, ()),)
        return _rebuild, (np.array(tensor_ndarray(self)), needs, self.grad)

    def astype(self, dtype, copy=True):
        """The same entries in another dtype; differentiable between float32 and float64."""
        if not copy and dtype == self.dtype and not self.node.flags & FG_WEAK:
            return self
        try:
            result = cast(self, dtype)
        except (TypeError, ValueError, NotImplementedError) as error:
            if not values_serve((self,), {}, error):
                raise
            return called_on_values(np_ndarray.astype, (np.asarray(handed_value(self)), dtype), {})
        return self.clone() if copy and result is self else result

    # ---- differentiation --------------------------------------------------------------------

    def backward(self, seed=None, retain_graph=None, create_graph=False, *, gradient=None):
        """Add the gradient of this Tensor to the .grad of every leaf that it was computed from.

        Parameters
        ----------
        seed : array_like, optional
            The adjoint to start from, of this Tensor's shape (`gradient` is a synonym). May be
            left out where the Tensor has one entry: then it is 1.
        retain_graph : bool, optional
            Keep what the sweep read, so that backward() can run through it again; by default only
            with `create_graph`.
        create_graph : bool
            Record the sweep, so that the gradients can be differentiated again.

        Raises
        ------
        RuntimeError
            If nothing was recorded, or if a part of the graph was differentiated before without
            ``retain_graph=True``.
        ValueError
            If the seed is missing or of another shape.
        """
        if gradient is not None:
            if seed is not None:
                raise TypeError("backward: seed and gradient are the same argument; give one")
            seed = gradient
        backward(self, seed, create_graph if retain_graph is None else retain_graph, create_graph)

    # ---- views ------------------------------------------------------------------------------

    cdef int fresh(self) except -1:
        if self.parent is not None:
            self.refresh()
        return 0

    cdef inline int refresh(self) except -1:
        """A view: follow the assignments that its parent has seen. Whatever changes one of a family
        of views changes the root, so one look tells, however long the chain of parents is."""
        if self.extra.root_seen != self.extra.root.version:
            view_refresh(self)
        return 0

    @property
    def T(self):
        """The axes in reverse order."""
        return transpose(self)

    @property
    def mT(self):
        """The last two axes exchanged."""
        if self.node.rank < 2:
            raise ValueError("mT: matrix transpose needs at least 2 axes, not shape "
                             f"{self.shape}")
        n = self.node.rank
        return transpose(self, [*range(n - 2), n - 1, n - 2])

    @property
    def real(self):
        """The Tensor itself: it is real."""
        return self

    def reshape(self, *shape, order="C"):
        """The same entries in another shape."""
        shape = shape[0] if len(shape) == 1 else shape
        if isinstance(shape, Tensor):
            shape = tuple(map(int, shape)) if shape.ndim else int(shape)
        if order != "C":
            return ARRAY_FUNCTIONS[np.reshape](self, shape, order)
        return reshape(self, shape)

    def sum(self, axis=None, dtype=None, out=None, keepdims=False, initial=None, where=None):
        """The sum over the given axes, as `numpy.sum`."""
        return sum(self, axis, dtype, out, keepdims, initial, where)

    # ---- Python's protocols -----------------------------------------------------------------

    def __len__(self):
        if self.node.rank == 0:
            raise TypeError("len() of a scalar Tensor")
        return self.node.shape.dims[0]

    def __contains__(self, key):
        if self.node.rank == 0 and not is_point(self):
            raise TypeError(f"argument of type {settled_type(self).__name__!r} is not iterable")
        return bool(np.any(self == key))

    def __iter__(self):
        if self.node.rank == 0:
            raise TypeError("iteration over a scalar Tensor")
        return PySeqIter_New(self)      # as arrays have it, which tells where it is

    def __getitem__(self, index):
        if mode().recorder == NULL:
            return item_of(self, index)
        try:
            return item_of(self, index)
        except (TypeError, NotImplementedError) as error:
            if not values_serve((self, index), {}, error):
                raise
        except Exception as error:
            if holds_tensor((index,), 0):       # (else the shape decides: iteration ends so)
                note_raised(error, (self, index))
            raise
        return called_on_values(operator.getitem, (self, index), {})

    def __setitem__(self, index, value):
        if (self.node.rank == 0 and mode().recorder != NULL and not is_point(self)
                and of_programs_alone(self)):       # a number to the plain function
            kind = settled_type(self)
            error = TypeError(f"'{'' if kind is float else 'numpy.'}{kind.__name__}' object does "
                              "not support item assignment")
            error.of_values = True
            raise error
        try:
            assign(self, index, value)
        except Exception as error:
            if holds_tensor((index,), 0):
                note_raised(error, (self, index))
            raise

    def __bool__(self):
        self.fresh()
        if self.node.rank:
            if self.node.shape.size != 1:
                raise ValueError(
                    f"bool: the truth value of a Tensor of shape {self.shape} is ambiguous; use "
                    ".any(), .all(), or fastgrad.numpy.where")
            return decided(self, "bool", bool(tensor_value(self).item()))
        return decided(self, "bool", self.node.re != 0)

    def __float__(self):
        return float(self.number_for("float", "the Tensor itself, the function of fastgrad.numpy "
                                     "(fnp.sin for math.sin), fnp.zeros(n) for an array to be "
                                     "filled with Tensors, or .detach() for the number alone"))

    def __int__(self):
        if self.size == 1 and not loses(self):
            return decided(self, "int", whole_part(self))
        if self.size == 1 and mode().recorder != NULL and handed_out(self):
            return whole_number(self)
        return int(self.number_for("int", "int(t.detach()) for the number alone"))

    def __complex__(self):
        return complex(self.number_for("complex", "the Tensor itself, or complex(t.detach()) for "
                                       "the number alone"))

    def __index__(self):
        if is_truth(self):
            return int(bool(self))
        if is_float(self.node.dtype) or self.node.dtype == FG_BOOL:
            raise TypeError(f"a {self.dtype} Tensor cannot be an index{user_line()}; write "
                            "int(t.detach())")
        if self.node.rank:          # as NumPy's: an array of one index is no index
            raise TypeError("only integer scalar arrays can be converted to a scalar index")
        return decided(self, "int", int(tensor_value(self).item()))

    cdef object number_for(self, str what, str cure):
        if loses(self) and not handed_out(self) and not for_text():
            raise refused(f"{what}(): this Tensor is recorded, and the result would have no "
                          f"derivative{user_line()}; write {cure}")
        return item_number(self, ())

    def __round__(self, ndigits=None):
        if not is_float(self.node.dtype):
            return ARRAY_FUNCTIONS[np.round](self, ndigits or 0)
        if ndigits is None:
            return rounded(FG_rint, self)
        scale = 10.0 ** ndigits
        return unary(FG_rint, self * scale) / scale

    def __hash__(self):
        if mode().depth:
            return hash_inside(self)
        return <Py_ssize_t><void *>self >> 4

    def __repr__(self):
        if mode().recorder != NULL and (
                self.node.flags & FG_NEEDS_GRAD or not is_float(self.node.dtype)) and handed_out(self):
            return repr(settled_value(self))    # (what the plain function writes)
        return tensor_repr(self)

    def __str__(self):
        return str(tensor_ndarray(self))

    def __format__(self, str spec not None):
        if not spec:
            return str(self)
        if self.node.rank == 0 or self.node.shape.size == 1:
            return format(item_number(self, ()), spec)
        raise TypeError(f"format: {spec!r} does not apply to a Tensor of shape {self.shape}")

    def __getattr__(self, name):
        method = METHODS.get(name)
        if method is None and name in NUMBER_METHODS and self.node.rank == 0:
            method = NUMBER_METHODS[name]
        if method is None and not name.startswith("__") and hasattr(settled_type(self), name):
            if handed_out(self):
                note_refusal(f"the attribute {name!r} of a recorded value is used", False)
                if settled_type(self) is np_ndarray and callable(getattr(np_ndarray, name)):
                    return method_of_values(self, name)
                return getattr(settled_value(self), name)
            note_refusal(f"the attribute {name!r} of a recorded value is asked for",
                         compiled_alone())
        if method is None:
            cure = "; .detach().numpy() is an array that has it" * hasattr(np_ndarray, name)
            raise AttributeError(f"Tensor has no attribute {name!r}{cure}")
        return served_method(self, name, method) if mode().recorder != NULL and hasattr(
            np_ndarray, name) else MethodType(method, self)

    def __dir__(self):
        return sorted(set(dir(Tensor)) | set(METHODS)) if type(self) is Tensor \
            else sorted(set(object.__dir__(self)) | set(METHODS))

    # ---- NumPy's protocols ------------------------------------------------------------------

    def __array__(self, dtype=None, copy=None):
        if lost(self) and not handed_out(self):
            raise refused_as(no_array(self))
        a = tensor_ndarray(self)
        if dtype is not None and dtype != a.dtype:
            if copy is False:
                raise ValueError(f"a {a.dtype} Tensor cannot become {np.dtype(dtype)} without a copy")
            return a.astype(dtype)
        return np.array(a) if copy else a

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        cdef dict given = dict(kwargs) if kwargs else kwargs
        try:
            return array_ufunc(ufunc, method, inputs, kwargs)
        except (TypeError, ValueError, NotImplementedError) as error:
            if not values_serve(inputs, given, error):
                raise
        except Exception as error:
            note_raised(error, inputs)
            raise
        return called_on_values(getattr(ufunc, method), inputs, given)

    def __array_function__(self, func, types, args, kwargs):
        implementation = ARRAY_FUNCTIONS.get(func)
        if args and PyArray_Check(args[0]) and func in WRITERS:
            return written_by(func, args, kwargs)
        if implementation is None:
            return unruled(func, None, args, kwargs)
        try:
            return implementation(*args, **kwargs)
        except (TypeError, ValueError, NotImplementedError) as error:
            if not values_serve(args, kwargs, error):
                raise
        except Exception as error:
            note_raised(error, args)
            raise
        return called_on_values(func, args, kwargs)

    # ---- operators --------------------------------------------------------------------------

    # (c_api_binop_methods: one method serves both orders, as in CPython's own slots.)

    def __add__(left, right):
        return binary(FG_add, left, right)

    def __sub__(left, right):
        return binary(FG_subtract, left, right)

    def __mul__(left, right):
        return multiplied(left, right)

    def __truediv__(left, right):
        return binary(FG_divide, left, right)

    def __floordiv__(left, right):
        return binary(FG_floor_divide, left, right)

    def __mod__(left, right):
        return binary(FG_mod, left, right)

    def __divmod__(left, right):
        return binary(FG_floor_divide, left, right), binary(FG_mod, left, right)

    def __pow__(left, right, modulo):
        if modulo is not None:
            return NotImplemented
        return powered(left, right)

    def __matmul__(left, right):
        if isinstance(left, Deferred) or isinstance(right, Deferred):
            return NotImplemented
        if is_sparse(left) or is_sparse(right):
            return sparse_product(left, right)
        if mode().recorder == NULL:
            return push_matmul(left, right)
        try:
            return push_matmul(left, right)
        except (TypeError, ValueError, NotImplementedError) as error:
            if not values_serve((left, right), {}, error):
                raise
        return called_on_values(operator.matmul, (left, right), {})

    def __neg__(self):
        return unary(FG_negative, self)

    def __pos__(self):
        return unary(FG_positive, self)

    def __abs__(self):
        return unary(FG_abs, self)

    def __floor__(self):
        return rounded(FG_floor, self)

    def __ceil__(self):
        return rounded(FG_ceil, self)

    def __trunc__(self):
        return rounded(FG_trunc, self)

    def __iadd__(self, other):
        return in_place(self, binary(FG_add, self, other), "+=")

    def __isub__(self, other):
        return in_place(self, binary(FG_subtract, self, other), "-=")

    def __imul__(self, other):
        return in_place(self, multiplied(self, other), "*=")

    def __itruediv__(self, other):
        return in_place(self, binary(FG_divide, self, other), "/=")

    def __ifloordiv__(self, other):
        return in_place(self, binary(FG_floor_divide, self, other), "//=")

    def __imod__(self, other):
        return in_place(self, binary(FG_mod, self, other), "%=")

    def __ipow__(self, other):
        return in_place(self, raised_by(FG_power, binary(FG_power, self, other), self, other), "**=")

    def __imatmul__(self, other):
        if isinstance(other, Deferred):
            return NotImplemented
        return in_place(self, push_matmul(self, other), "@=")

    def __iand__(self, other):
        return in_place(self, logical(np.bitwise_and, self, other), "&=")

    def __ior__(self, other):
        return in_place(self, logical(np.bitwise_or, self, other), "|=")

    def __ixor__(self, other):
        return in_place(self, logical(np.bitwise_xor, self, other), "^=")

    def __ilshift__(self, other):
        return in_place(self, logical(np.left_shift, self, other), "<<=")

    def __irshift__(self, other):
        return in_place(self, logical(np.right_shift, self, other), ">>=")

    def __richcmp__(self, other, int how):
        if how == Py_LT:
            return binary(FG_less, self, other)
        if how == Py_LE:
            return binary(FG_less_equal, self, other)
        if how == Py_GT:
            return binary(FG_greater, self, other)
        if how == Py_GE:
            return binary(FG_greater_equal, self, other)
        if other is None and self.node.rank:            # entry by entry, as NumPy's
            return vouch(np.full(self.shape, how == Py_NE))
        if how == Py_EQ:
            return binary(FG_equal, self, other)
        return binary(FG_not_equal, self, other)

    def __and__(left, right):
        return logical(np.bitwise_and, left, right)

    def __or__(left, right):
        return logical(np.bitwise_or, left, right)

    def __xor__(left, right):
        return logical(np.bitwise_xor, left, right)

    def __lshift__(left, right):
        return logical(np.left_shift, left, right)

    def __rshift__(left, right):
        return logical(np.right_shift, left, right)

    def __invert__(self):
        return derived("numpy.invert", np.invert, (self,), {})


# ---- making Tensors -------------------------------------------------------------------------

cdef inline Tensor tensor_new(uint32_t id, FgNode *n, FgTape *tape):
    """The handle of a node that has none; the reference counted in the node is its."""
    cdef Tensor t
    cdef PyObject *o
    global tensors_idle
    if tensors_idle:
        tensors_idle -= 1
        o = tensors[tensors_idle]
        object_refs(<void *>o, 0)
        t = <Tensor>o           # counts it
    else:
        t = tensor_fresh(id, n)
    t.id = id
    t.node = n
    t.tape = tape
    n.handle = <void *>t
    if tape != NULL and get_keeping():
        if mode().recorder != NULL:
            (<Recorder>mode().recorder).note(id, n)
        else:
            (<list>mode().kept).append(t)
    return t


cdef Tensor tensor_fresh(uint32_t id, FgNode *n):
    """One that CPython makes; where it cannot, the node goes."""
    try:
        return Tensor.__new__(Tensor)
    except BaseException:
        n.handle = NULL
        node_drop(id)
        raise


# Tensors that have died, ready for the next: making one through its type costs three times the
# recording of a scalar operation. They keep the fields that a new one starts with.
cdef enum:
    TENSORS = 256
    DYING = 40                  # destructors inside one another, of some 300 bytes of stack each
cdef PyObject *tensors[TENSORS]
cdef int tensors_idle = 0

ctypedef void (*Destructor)(PyObject *) noexcept
cdef Destructor tensor_dealloc_slowly = NULL


cdef void tensor_dealloc(PyObject *o) noexcept:
    global tensors_idle
    if (object_type(<void *>o) == <void *>Tensor
            and <void *>(<Tensor>o).parent == <void *>None
            and <void *>(<Tensor>o).extra == <void *>None
            and not object_watched(<void *>o)):
        # First the node: freeing it may free other Tensors, which come here as well.
        if (<Tensor>o).id:
            handle_drop((<Tensor>o).id, (<Tensor>o).node, (<Tensor>o).tape)
        (<Tensor>o).id = FG_NO_ID
        (<Tensor>o).version = 0
        if FG_REUSES and tensors_idle < TENSORS:
            tensors[tensors_idle] = o
            tensors_idle += 1
        else:
            tensor_dealloc_slowly(o)
        return
    if get_dying() >= DYING:
        # One Tensor owns the next (.grad, views), and so on: the C stack would run out.
        if (<Tensor>o).id:
            handle_drop((<Tensor>o).id, (<Tensor>o).node, (<Tensor>o).tape)
        (<Tensor>o).id = FG_NO_ID
        (<Tensor>o).version = <int64_t>get_put_off()
        set_put_off(<void *>o)
        return
    set_dying(get_dying() + 1)
    tensor_dealloc_slowly(o)
    while get_dying() == 1 and get_put_off() != NULL:
        o = <PyObject *>get_put_off()
        set_put_off(<void *>(<Tensor>o).version)
        tensor_dealloc_slowly(o)
    set_dying(get_dying() - 1)


cdef PyObject *tensor_refuse(PyTypeObject *type_, PyObject *args, PyObject *kwargs) except NULL:
    """What Python code finds as Tensor.__new__: an empty Tensor would have no node."""
    raise TypeError("fastgrad: make Tensors with fastgrad.tensor(data)")


cdef void tensor_setup() noexcept:
    global tensor_dealloc_slowly
    tensor_dealloc_slowly = <Destructor>(<PyTypeObject *>Tensor).tp_dealloc
    (<PyTypeObject *>Tensor).tp_dealloc = <destructor>tensor_dealloc
    (<PyTypeObject *>Tensor).tp_new = <newfunc>tensor_refuse
    (<PyTypeObject *>Tensor).tp_vectorcall = NULL       # Cython's way past tp_new


cdef Tensor tensor_of_value(FgShape *shape, FgValue *value, int dtype):
    """An unrecorded Tensor of that memory. Takes over shape and value."""
    cdef uint32_t id
    cdef FgNode *n
    try:
        n = leaf_append(&id)
    except BaseException:
        shape_release(shape)
        value_release(value)
        raise
    n.dtype = <uint8_t>dtype
    n.rank = <uint8_t>shape.rank
    n.shape = shape
    n.value = value
    return tensor_new(id, n, NULL)


cdef Tensor tensor_shaped(FgShape *shape, FgValue *value, int dtype):
    """The same with a shape that somebody else holds. Takes over the value."""
    return tensor_of_value(shape_ref(shape), value, dtype)


cdef Tensor whole_constant(const void *data, int dtype):
    """A scalar Tensor of an integer or boolean: it keeps all 64 bits beside the rounded number."""
    cdef Tensor t = scalar_constant(scalar_number(data, dtype), dtype, 0)
    t.node.value = <FgValue *><void *>scalar_whole(data, dtype)
    return t


cdef int64_t scalar_whole(const void *data, int kind) noexcept:
    """The one integer there."""
    if kind >= 7:
        return (<const int64_t *>data)[0]
    return <int64_t>scalar_number(data, kind)


cdef object tensor_constant(object array):
    """An unrecorded Tensor of an ndarray (or NumPy scalar) that nobody else will write to."""
    cdef Operand x
    cdef Tensor t
    operand_clear(&x)
    operand_array(np.asarray(array), &x)
    if x.shape == NULL:
        return operand_scalar(&x, array)
    x.owned = 0
    return tensor_of_value(x.shape, x.value, x.dtype)


cdef Tensor operand_scalar(Operand *x, object array):
    """A scalar Tensor of a 0-d array that was just looked at."""
    if is_float(x.dtype) or x.dtype == FG_BOOL:
        return scalar_constant(x.number, x.dtype, 0)
    a = np.asarray(array).astype(dtypes[x.dtype])
    return whole_constant(PyArray_DATA(<ndarray>a), x.dtype)


cdef Tensor tensor_copy(Tensor t):
    cdef Tensor y = tensor_constant(np.array(tensor_ndarray(t)))
    y.node.flags |= t.node.flags & FG_WEAK
    if t.requires_grad:
        leaf_require(y.node, True)
    return y


cdef int64_t parameters = 0         # leaves of the user's that require a gradient


cdef void leaf_require(FgNode *n, bint value) noexcept:
    global parameters
    if value and not n.flags & FG_NEEDS_GRAD:
        n.flags |= FG_NEEDS_GRAD
        n.attr = reach_new()
        n.constant = births
        parameters += 1
    elif not value and n.flags & FG_NEEDS_GRAD:
        n.flags &= ~FG_NEEDS_GRAD
        parameters -= 1


def _rebuild(array, requires_grad, grad):
    """Unpickle a Tensor."""
    t = tensor(array, requires_grad=requires_grad)
    if grad is not None:
        t.grad = grad
    return t


def tensor(data, dtype=None, requires_grad=False, copy=True):
    """A Tensor of the given data.

    Parameters
    ----------
    data : array_like or Tensor
        Numbers; a nested sequence of Tensors is joined by `fastgrad.numpy.array` instead.
    dtype : dtype, optional
        float64 or float32 (integers and booleans for indices and masks); by default that of the
        data. Integers that require a gradient become float64.
    requires_grad : bool
        Whether backward() accumulates a gradient in ``.grad``.
    copy : bool
        With False an ndarray's memory is shared, and the caller promises not to write to it.

    Returns
    -------
    Tensor
        A leaf.

    Raises
    ------
    TypeError
        For complex, object and other dtypes that are not supported.

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.tensor([1.0, 2.0], requires_grad=True)
    tensor([1., 2.], requires_grad=True)
    """
    cdef Tensor t
    cdef Operand x
    refuse_kind(data)
    if isinstance(data, Tensor):
        if keeps_derivative(<Tensor>data):
            return tensor_again(<Tensor>data, dtype, requires_grad)
        data = tensor_ndarray(data)
    elif isinstance(data, (list, tuple)):
        data = sequence_array(data)
    a = np.asarray(data)
    if a.dtype.kind not in "biuf" or a.dtype == np.float16 or a.dtype.itemsize > 8:
        raise TypeError(dtype_message(a.dtype))
    if dtype is not None:
        a = a.astype(dtype, copy=False)
    if requires_grad and a.dtype.kind in "biu" and dtype is None:
        a = a.astype(np.float64)
    operand_clear(&x)
    if type(a) is not np.ndarray:
        a = np.asarray(a)
    operand_array(a, &x)
    if requires_grad and not is_float(x.dtype):
        operand_drop(&x)
        raise TypeError(f"tensor: a {a.dtype} Tensor has no derivative; use dtype=float")
    if x.shape == NULL:
        t = operand_scalar(&x, a)
    elif copy:
        try:
            t = tensor_shaped(x.shape, value_copy(x.shape, x.value, x.dtype), x.dtype)
        finally:
            operand_drop(&x)
    else:
        x.owned = 0
        t = tensor_of_value(x.shape, x.value, x.dtype)
    if requires_grad:
        leaf_require(t.node, True)
    t.node.c = 0                # the user's own, wherever it is made
    return point_made(t) if x.shape == NULL and not isinstance(data, np_generic) else t


cdef Tensor tensor_again(Tensor t, object dtype, bint requires_grad):
    """`tensor` of a Tensor that keeps its derivative."""
    if requires_grad:
        raise TypeError(
            f"tensor: this Tensor depends on what is being differentiated{user_line()}; it is "
            "recorded already, and fastgrad.tensor(t.detach(), requires_grad=True) is another leaf")
    return t.clone() if dtype is None else t.astype(dtype)


cdef Tensor point_made(Tensor t):
    """A 0-d Tensor that stands for a 0-d array: an alias sees what is done to it in place."""
    if t.node.rank == 0:
        t.extras().point = True
    return t


def as_point(Tensor t):
    """The Tensor itself, if it is 0-d from now on as a 0-d array and not as a scalar."""
    return point_made(t)


cdef inline bint is_point(Tensor t) noexcept:
    return t.node.rank == 0 and t.extra is not None and (t.extra.point or t.parent is not None)


def constant(array):
    """An unrecorded Tensor of an array; the array is copied."""
    cdef Tensor t = tensor(array)
    t.node.c = <uint32_t>mode().depth
    return t


def tensors_of(list items):
    """The items as Tensors, None among them as it is. The memory of an array that nobody but the list
    holds serves; others are copied."""
    cdef list found = []
    cdef PyObject *item
    cdef Py_ssize_t i
    for i in range(len(items)):
        item = PyList_GET_ITEM(items, i)
        if not PyArray_Check(<object>item) or type(<object>item) is not np_ndarray:
            found.append(<object>item if <object>item is None or isinstance(<object>item, Tensor)
                         else constant(np.asarray(<object>item)))
        elif held_by_list(item):
            found.append(tensor_constant(<object>item))
            (<Tensor>found[i]).node.c = <uint32_t>mode().depth
        else:
            found.append(constant(<object>item))
    return found


cdef bint held_by_list(PyObject *array) noexcept:
    """Whether nobody else can write to an array's memory: it has its own, or is the one view of what
    has."""
    cdef PyObject *base
    if refs_of(array) > 1:
        return False
    base = array_base(<ndarray><object>array)
    return base == NULL or type(<object>base) is np_ndarray and (
        refs_of(base) == 1 and array_base(<ndarray><object>base) == NULL)


def is_tensor(x):
    """Whether x is a Tensor.

    Parameters
    ----------
    x : object

    Returns
    -------
    bool

    Examples
    --------
    >>> import fastgrad as fg
    >>> fg.is_tensor(fg.tensor(1.0)), fg.is_tensor(1.0)
    (True, False)
    """
    return isinstance(x, Tensor)


def gives_way(Tensor t):
    """Whether it takes the dtype of what it is computed with, as a Python float does."""
    return t.node.flags & FG_YIELDS != 0


def give_way(Tensor t):
    """Let what stands for a Python float be one that gives way, though a function made it."""
    if t.node.flags & FG_PYTHON:
        t.node.flags |= FG_YIELDS


def is_weak(Tensor t):
    """Whether a Tensor stands for a Python float, which gives way in promotion."""
    return t.node.rank == 0 and is_float(t.node.dtype) and t.node.flags & FG_WEAK != 0


# ---- values as ndarrays ---------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class ValueOwner:
    """The base of an ndarray that shows memory of the pool."""
    cdef FgValue *value

    def __dealloc__(self):
        if self.value != NULL:
            value_release(self.value)


cdef object value_ndarray(FgShape *shape, FgValue *value, int dtype, bint writable):
    """An ndarray that shows the value."""
    cdef int64_t strides[64]
    cdef ValueOwner owner
    cdef object a
    cdef bint plain = value.contiguous and not value.uniform
    if not plain:
        strides_of(shape, value, item_size(dtype), strides)
    a = PyArray_New(&PyArray_Type, shape.rank, <npy_intp *>shape.dims, dtype,
                    NULL if plain else <npy_intp *>strides, value.data, 0,
                    (NPY_ARRAY_WRITEABLE if writable else 0) | NPY_ARRAY_ALIGNED
                    | (NPY_ARRAY_C_CONTIGUOUS if plain else 0), None)
    owner = ValueOwner.__new__(ValueOwner)
    owner.value = value_ref(value)
    Py_INCREF(owner)            # SetBaseObject takes the reference, even where it fails
    PyArray_SetBaseObject(<ndarray>a, owner)
    return a


cdef object node_ndarray(FgNode *n):
    """The present value of a node, not to be written to."""
    if n.rank == 0:
        return np.asarray(scalar_python(n), dtype=dtypes[n.dtype])
    return value_ndarray(n.shape, n.value, n.dtype, False)


cdef object tensor_ndarray(Tensor t):
    """The value, for people and their code to see."""
    t.fresh()
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).escape(t)
    return tensor_value(t)


def let_go(Tensor t):
    """Make a Tensor that has outlived the recording it was made in a plain one, without history:
    where it is kept it is a constant from now on."""
    cdef Unseen unseen = Unseen()
    try:
        point = is_point(t)
        made = t.detach()
        t.parent = None
        tensor_become(t, made)
        t.node.c = 0
        if point:
            point_made(t)
    finally:
        unseen.end()


def value_seen(Tensor t):
    """The value of a Tensor, read-only, whatever it depends on; a recording takes it for one that
    gets out."""
    return tensor_ndarray(t)


cdef object item_number(Tensor t, tuple index):
    """The one entry, or the one at the index, as a Python number, whatever it depends on."""
    if index:
        return tensor_ndarray(t).item(*index)
    t.fresh()
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).escape(t)
    if t.node.rank:
        if t.node.shape.size != 1:
            raise ValueError(f"item: a Tensor of shape {t.shape} is not one number; write "
                             ".item(i) or .tolist()")
        return tensor_value(t).item()
    return scalar_python(t.node)


cdef object tensor_value(Tensor t):
    """The value, for computing what is recorded itself."""
    t.fresh()
    if t.node.rank:
        value_of(t.node, t.id)
    a = node_ndarray(t.node)
    a.flags.writeable = False
    return a


cdef object plain(object x):
    """A Tensor's value as an ndarray; anything else as it is."""
    return tensor_ndarray(<Tensor>x) if isinstance(x, Tensor) else x


cdef object scalar_python(FgNode *n):
    """A scalar node's value as a Python number."""
    if is_float(n.dtype):
        return n.re
    if n.dtype == FG_BOOL:
        return n.re != 0
    if dtypes[n.dtype].kind == "u":
        return <uint64_t><size_t><void *>n.value
    return <int64_t><size_t><void *>n.value


cdef tuple tensor_dims(FgNode *n):
    return dims_tuple(n.rank, n.shape.dims) if n.rank else ()


cdef str tensor_repr(Tensor t):
    cdef str text, extra = ""
    a = tensor_ndarray(t)
    text = np.array2string(a, separator=", ", prefix="tensor(")
    if t.node.dtype != FG_FLOAT64 and t.node.dtype != FG_BOOL and a.dtype != np.int64:
        extra += f", dtype={a.dtype}"
    elif a.size == 0:
        extra += f", shape={a.shape}" if a.shape != (0,) else ""
    if t.is_leaf and t.requires_grad:
        extra += ", requires_grad=True"
    elif t.op is not None:
        extra += f", op={t.op}"
    return f"tensor({text}{extra})"


# ---- what keeps its derivative ----------------------------------------------------------------

cdef bint compiled_alone():
    """Whether all that goes on around this call is recording for programs: nothing is
    differentiated or mapped, and a value that leaves loses no derivative."""
    cdef int depth = mode().depth
    cdef void *r = mode().recorder
    while r != NULL and (<Recorder>r).plain and depth == (<Recorder>r).depth + 1:
        depth -= 1
        r = (<Recorder>r).outer
    return depth == 0


cdef bint of_programs_alone(Tensor t) except -1:
    """Whether the value depends on what a program is given and on no argument of a transformation
    that goes on inside it: an array to the plain function, whose value may leave."""
    cdef Recorder r
    if compiled_alone():
        return True
    r = maker_of(t)
    if r is None or not r.plain or r.known is None:
        return False
    return not (depends(t.id) if t.node.flags & FG_NEEDS_GRAD else comes_of_arguments(t.id))


cdef Recorder maker_of(Tensor t):
    """The innermost recording of those that go on by whose arguments the value varies: to lanes and
    steps inside of that it is always the same. The outermost, where it varies by none."""
    cdef void *r = mode().recorder
    while r != NULL and (<Recorder>r).outer != NULL and not (<Recorder>r).gave(t):
        r = (<Recorder>r).outer
    return None if r == NULL else <Recorder>r


cdef bint comes_of_arguments(uint32_t id) except -1:
    """The same as `depends` of a recorded value without derivative: an index, a comparison, what
    was detached."""
    cdef FgNode *n
    cdef list rest = [id]
    cdef set seen = set()
    while rest:
        id = rest.pop()
        if id in seen or id == FG_NO_ID:
            continue
        seen.add(id)
        n = node_at(id)
        if n.flags & FG_NEEDS_GRAD:
            if depends(id):
                return True
        elif n.op == FG_dual or n.flags & FG_CONSUMED:
            return True
        elif not n.flags & FG_LEAF:
            rest += sources_of(n)
    return False


cdef inline bint keeps_derivative(Tensor t) except -1:
    """Whether a floating value depends on an argument of a function that is being differentiated or
    mapped: as a Python number it would lose a derivative."""
    if not get_recording():
        return False
    if mode().depth == 0:
        # Another thread's may belong to a transformation that runs there.
        if ((t.tape == NULL or t.tape != get_thread_tape()) and t.node.flags & FG_NEEDS_GRAD
                and is_float(t.node.dtype) and depends(t.id)):
            if t.tape != NULL:
                raise thread_error(t.tape)
            if not t.node.flags & FG_CONSUMED and t.node.c not in (0, thread_mark()):
                raise RuntimeError(
                    "fastgrad: an argument of a function that another thread transforms is used in "
                    f"thread {PyThread_get_thread_ident():#x}; pass `.detach()` of it")
        return False
    t.fresh()
    if not t.node.flags & FG_NEEDS_GRAD or not is_float(t.node.dtype) or compiled_alone():
        return False
    return depends(t.id) and not by_steps_alone(t.id)


def number_method(str name):
    """A method of Python's numbers that Tensors answer for: statistics and fractions ask."""
    def method(Tensor t):
        return getattr(t.number_for(name, ".detach() for the number alone"), name)()
    return method


NUMBER_METHODS = {name: number_method(name) for name in ("as_integer_ratio", "hex", "is_integer")}


cdef object item_of(Tensor self, object index):
    """t[index]."""
    cdef Operand x
    cdef Tensor y
    index = index_settled(index)
    operand_clear(&x)
    operand_tensor(self, &x)
    if x.shape != NULL and x.value == NULL:
        x.value = value_of(x.node, x.id)
    y = push_item(&x, index)
    if y.node.rank == 0:
        # NumPy makes a scalar, unless the index has dots: then a 0-d array that is a view.
        if PyLong_CheckExact(index) or not has_dots(index):
            return item_made(y, self, index) if y.node.flags & FG_LEAF else y
    if ((self.node.rank or is_point(self)) and not is_fancy(index) and (
            y.node.op == FG_item or y.node.op == FG_reshape or y.node.op == FG_gather
            or y.node.flags & FG_LEAF)):
        view_of(y, self, ("item", held_index(index)))
        return y
    return item_made(y, self, index) if y.node.flags & FG_LEAF else y


cdef object rounded(int op, Tensor t):
    """round(), math.floor() and their like: Python's give an int, with which one may index, count
    and shift, and so do these where no derivative is lost; else a Tensor of whole numbers."""
    cdef object result = unary(op, t)
    if (mode().recorder != NULL and t.node.rank == 0 and is_float(t.node.dtype)
            and t.node.flags & FG_NEEDS_GRAD and handed_out(t)):
        return whole_number(result)
    return result


cdef object whole_part(Tensor t):
    """int() of the value; infinity and NaN have none."""
    try:
        return int(tensor_value(t).item())
    except Exception as error:
        note_raised(error, t)
        raise


cdef object whole_number(Tensor t):
    """The integer that a value handed out is cut off to: a guard, if programs can compare it."""
    cdef object number = whole_part(t)
    if -9_000_000_000_000_000_000 < number < 9_000_000_000_000_000_000:
        return decided(t, "int", number)
    item_number(t, ())          # (which ends the recording)
    return number


cdef bint handed_out(Tensor t) except -1:
    """Whether the value may leave though the Tensor is recorded: it is what a program is given or
    comes of that alone, so that no derivative is lost; the recording is marked by whoever looks at the
    value. The user's own parameters are Tensors in the plain function as well. A step of a loop has
    no one value: its recording ends here, and it is recorded at each step."""
    cdef Recorder r = recorder()
    if r is None or (t.node.flags & (FG_LEAF | FG_NEEDS_GRAD | FG_ARGUMENT)
                     == FG_LEAF | FG_NEEDS_GRAD) or not of_programs_alone(t):
        return False
    if of_a_step(t):
        r = maker_of(t)
        r.refuse("the value of a Tensor leaves it as a number or an array")
        raise refused_as(Unrecordable("the value of a Tensor leaves a step that is recorded once"))
    return True


cdef int note_refusal(str why, bint refused) except -1:
    """What a Tensor does not do, the plain function may have done: the recording is marked, since
    the function may catch the error. `refused`: nothing has been done in its place."""
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).refuse(why)
        (<Recorder>mode().recorder).refused += refused
    return 0


cdef int note_raised(object error, object operands) except -1:
    """What operands hold has led to an error, which the function may catch: other values may not. Of a
    lane or a step it is that of one among others."""
    if mode().recorder == NULL or isinstance(error, Unrecordable):
        return 0
    (<Recorder>mode().recorder).refuse(f"it meets an error that depends on values: {error}")
    if of_a_step(operands):
        raise refused_as(Unrecordable("one step among others meets an error")) from error
    return 0


def mark_raised(error, operands):
    """`note_raised`, of a function that is written in Python."""
    note_raised(error, operands)


cdef object settled_type(Tensor t):
    """What stands in the plain function in place of the Tensor."""
    return (float if t.node.flags & FG_WEAK and is_float(t.node.dtype) else np_ndarray
            if t.node.rank or is_point(t) else dtypes[t.node.dtype].type)


cdef object settled_value(Tensor t):
    """The value as the plain function has it."""
    cdef object a
    if t.node.flags & FG_WEAK and is_float(t.node.dtype):
        return item_number(t, ())
    a = tensor_ndarray(t)
    return a if t.node.rank or is_point(t) else a[()]


cdef bint values_serve(object args, object kwargs, object error=None) except -1:
    """Whether a function that has refused Tensors may be called with their values: `handed_out`. The
    error that said so is no refusal then."""
    cdef Recorder r = recorder()
    if r is None or not (hold_programs_alone(args) and hold_programs_alone(kwargs)):
        return False
    if of_a_step(tuple(args)) or of_a_step(tuple(kwargs.values())):
        r.refuse("a function is called that does not take Tensors in this way")
        raise refused_as(Unrecordable("a step calls a function that does not take Tensors so"))
    if getattr(error, "refused", False) is True:
        r.refused -= 1
    return True


cdef bint of_a_step(object x) except -1:
    """Whether a value, or one in tuples and lists, is that of one lane or step among others."""
    cdef Recorder r
    if type(x) is list or type(x) is tuple:
        for y in x:
            if of_a_step(y):
                return True
        return False
    if not isinstance(x, Tensor):
        return False
    r = maker_of(<Tensor>x)
    return r is not None and r.known is None and r.traced(<Tensor>x)


cdef bint hold_programs_alone(object tree) except -1:
    """`of_programs_alone` of all Tensors in tuples, lists and dictionaries of arguments."""
    if type(tree) is tuple or type(tree) is list or type(tree) is dict:
        descend()
        try:
            for x in (tree.values() if type(tree) is dict else tree):
                if not hold_programs_alone(x):
                    return False
        finally:
            ascend()
        return True
    return not isinstance(tree, Tensor) or of_programs_alone(<Tensor>tree)


cdef object called_on_values(object function, object args, object kwargs):
    """What it returns, or raises, in the plain function; what it raises marks no recording, but the
    error itself: nobody needs to call the plain function to see whether it raises one. What it has
    written to an array is written to the Tensor."""
    cdef dict given = {}
    cdef object result
    try:
        result = function(*[handed_value(x, given) for x in args],
                          **{key: handed_value(x, given) for key, x in kwargs.items()})
    except Exception as error:
        error.of_values = True
        note_raised(error, args)
        raise
    note_refusal(f"{getattr(function, '__name__', 'a function')} of a recorded value is used", False)
    # (All are compared before one is written: views of each other would look changed.)
    for t, a in [(t, a) for t, a in given.values()
                 if a.tobytes() != tensor_value(<Tensor>t).tobytes()]:
        t[...] = a
    for t, a in given.values():
        if result is a:
            return t
    return result


cdef object method_of_values(Tensor t, str name):
    """A method of arrays that may write to what it is a method of: `t.sort()`."""
    def method(*args, **kwargs):
        if not values_serve((t, *args), kwargs):
            raise refused_as(AttributeError(f"Tensor has no attribute {name!r}"))
        return called_on_values(getattr(np_ndarray, name), (t, *args), kwargs)
    return method


cdef object served_method(Tensor t, str name, object method):
    """A method, and that of arrays where it writes: `t.clip(0, 1, out=t)`."""
    def served(*args, **kwargs):
        try:
            return method(t, *args, **kwargs)
        except (TypeError, ValueError, NotImplementedError) as error:
            if (kwargs.get("out") is None and not holds_array(args)
                    or not values_serve((t, *args), kwargs, error)):
                raise
        return called_on_values(getattr(np_ndarray, name), (t, *args), kwargs)
    return served


cdef bint holds_array(tuple args):
    """Whether one may be what a method writes to: `t.clip(0, 1, out)`."""
    for x in args:
        if PyArray_Check(x) or isinstance(x, Tensor):
            return True
    return False


cdef object handed_value(object x, dict given=None):
    """The value of a Tensor, also in tuples and lists, as the plain function has it; no recording
    is marked. With `given`, arrays are copies that may be written to: id -> Tensor, copy."""
    if isinstance(x, Tensor):
        if settled_type(<Tensor>x) is np_ndarray:
            if given is None:
                return tensor_value(<Tensor>x)
            if id(x) not in given:
                given[id(x)] = x, np.array(tensor_value(<Tensor>x))
            return given[id(x)][1]
        a = tensor_value(<Tensor>x)
        return a.item() if settled_type(<Tensor>x) is float else a[()]
    if type(x) is tuple or type(x) is list:
        descend()
        try:
            return type(x)([handed_value(y, given) for y in x])
        finally:
            ascend()
    return x


cdef struct Visit:
    uint32_t id
    int next                    # the operand to look at next

cdef int64_t depends_visited = 0    # nodes that were looked at (for tests)


cdef inline int dependence(uint32_t id) noexcept:
    """1: on an argument of a transformation; 0: on none; -1: its operands have to be asked."""
    cdef FgNode *n = node_at(id)
    if not n.flags & FG_NEEDS_GRAD:
        return 0
    if n.flags & FG_LEAF or n.flags & FG_CONSUMED:
        return (n.flags & FG_INSIDE != 0 if n.flags & FG_CONSUMED else
                (n.flags & (FG_ARGUMENT | FG_PROGRAM)) == FG_ARGUMENT)
    if n.op == FG_dual or n.flags & FG_INSIDE:
        return 1
    if n.flags & FG_OUTSIDE and not n.flags & FG_PENDING:
        return 0
    return -1


cdef bint depends(uint32_t id) except -1:
    """Whether a recorded node depends on an argument of a transformation. The answer stays with
    every node that was asked on the way, so that a loop that asks for each of its results looks at
    each node once."""
    global depends_visited
    cdef Visit *stack = NULL
    cdef int64_t size = 0, count = 0
    cdef int known = dependence(id)
    cdef FgNode *n
    cdef uint32_t x
    if known >= 0:
        return known
    try:
        visit_push(&stack, &count, &size, id)
        while count:
            n = node_at(stack[count - 1].id)
            if stack[count - 1].next == operand_count(n):
                if not n.flags & FG_PENDING:
                    n.flags |= FG_OUTSIDE
                count -= 1
                continue
            x = operand_at(n, stack[count - 1].next)
            stack[count - 1].next += 1
            known = dependence(x) if x else 0
            if known == 0:
                continue
            if known < 0:
                visit_push(&stack, &count, &size, x)
                continue
            depends_visited += count
            while count:
                node_at(stack[count - 1].id).flags |= FG_INSIDE
                count -= 1
            return True
        return False
    finally:
        fg_free(stack)


cdef bint by_steps_alone(uint32_t id) except -1:
    """Whether each path from a recorded value to what it depends on goes through a step (floor,
    sign): the derivative is zero by statement, and the value may leave as a number."""
    cdef FgTape *tape = directory[id >> FG_SEGMENT_BITS].tape
    cdef FgNode *n
    cdef list rest = [id]
    cdef set seen = set()
    cdef int k
    if tape == NULL or not tape.steps:
        return False
    while rest:
        id = rest.pop()
        n = node_at(id)
        if id == FG_NO_ID or id in seen or not n.flags & FG_NEEDS_GRAD or not is_float(n.dtype):
            continue
        seen.add(id)
        if n.op < FG_ELEMENTWISE_END and fg_op_info[n.op].props & FG_STEPS:
            continue
        if n.flags & (FG_LEAF | FG_CONSUMED) or n.op == FG_dual and not n.flags & FG_STEPPED:
            return False
        for k in range(operand_count(n)):
            rest.append(operand_at(n, k))
    return True


cdef inline bint loses(Tensor t) except -1:
    """Whether the value alone, a number or an array, would lose a derivative."""
    return (t.node.flags & FG_NEEDS_GRAD and is_float(t.node.dtype)
            and not by_steps_alone(t.id))


cdef int visit_push(Visit **stack, int64_t *count, int64_t *size, uint32_t id) except -1:
    global depends_visited
    cdef void *grown
    depends_visited += 1
    if count[0] == size[0]:
        grown = fg_grown(stack[0], size, sizeof(Visit))
        if grown == NULL:
            raise MemoryError()
        stack[0] = <Visit *>grown
    stack[0][count[0]].id = id
    stack[0][count[0]].next = 0
    count[0] += 1
    return 0


def asked():
    """How many nodes were looked at to learn whether they depend on an argument (for tests)."""
    return depends_visited


cdef Tensor as_number(Tensor t):
    """A 0-d Tensor that nobody else has as one that stands for a Python float."""
    if t.node.dtype != FG_FLOAT64:
        t = cast(t, np.float64)
    t.node.flags |= FG_WEAK
    return t


cdef object item_recorded(Tensor t, tuple index):
    """`item` of what keeps its derivative."""
    cdef object i
    if not index:
        if t.node.rank == 0:
            return as_number(unary(FG_positive, t))
        if t.node.shape.size != 1:
            raise ValueError(f"item: a Tensor of shape {t.shape} is not one number; write "
                             ".item(i) or .tolist()")
        return as_number(reshape_tensor(t, ()))
    if len(index) == 1 and type(index[0]) is tuple:
        index = index[0]
    index = tuple([index_of(i) for i in index])
    np.broadcast_to(np.int8(0), t.shape).item(*index)       # complains as NumPy does
    if len(index) == 1 and t.node.rank != 1:
        i = index[0]
        index = tuple([int(k) for k in np.unravel_index(i + t.size if i < 0 else i, t.shape)])
    if not index:
        return as_number(unary(FG_positive, t))
    return as_number(t[index])


cdef object list_recorded(Tensor t):
    """`tolist` of what keeps its derivative."""
    cdef int64_t i
    if t.node.rank == 0:
        return as_number(unary(FG_positive, t))
    if t.node.rank == 1:
        return [as_number(t[i]) for i in range(t.node.shape.dims[0])]
    return [list_recorded(t[i]) for i in range(t.node.shape.dims[0])]


cdef Py_hash_t hash_inside(Tensor t) except? -1:
    """hash() while a function is transformed: Python's numbers and NumPy's are found by their
    value, a Tensor would be found by what it is. The user's own stay what they are, and what is
    computed from them with a derivative."""
    cdef bint inside, plain
    t.fresh()
    plain = not mode().lanes and of_programs_alone(t)
    if not t.node.flags & FG_NEEDS_GRAD:
        inside = not t.node.flags & FG_LEAF or t.node.c != 0
    elif plain:
        inside = t.node.flags & FG_ARGUMENT or (not t.node.flags & FG_LEAF
                                                and recorder().own(t.id, t.node))
    else:
        inside = depends(t.id)
    if not inside:
        return <Py_ssize_t><void *>t >> 4
    if plain and handed_out(t):
        return hash(settled_value(t))
    if of_a_step(t) and maker_of(t).plain:      # which has a number, where steps are taken one by one
        maker_of(t).refuse("the value of a Tensor leaves it as a key")
        raise refused_as(Unrecordable("a step looks something up by a Tensor"))
    raise refused(
        f"hash(): a Tensor that is computed inside a transformation is found by what it is, not by "
        f"its value{user_line()}, so it is no key of a dict, a set, a Counter or a cache; write "
        ".detach().item() for the number, .detach().tolist() for a list of them")


cdef inline Tensor looked_noted(Tensor t, FgNode *n):
    """A value without derivative: it remembers which leaves it depends on."""
    cdef uint32_t reach = reach_looked(n)
    if (reach and reach != FG_REACH_NONE
            and (t.node.flags & (FG_NEEDS_GRAD | FG_LEAF)) == FG_LEAF):
        t.node.attr = reach if t.node.attr == 0 else fg_reach_both(reach, t.node.attr)
    return t


cdef object decided(Tensor t, str kind, object outcome):
    """What Python code does next depends on the value of t."""
    if mode().recorder != NULL:
        (<Recorder>mode().recorder).guard(t, kind, outcome)
    else:
        decision_by(t, kind, outcome)
    return outcome


cdef Tensor item_made(Tensor y, Tensor x, object index):
    """An entry of what has no derivative remembers what it is one of."""
    if y.node.attr and made_wanted():
        made_put(y, made_new(MADE_ITEM, (made_operand(x), made_operand(index))))
    return y


cdef Tensor detached(Tensor t):
    """The same value without derivative, taken down for a program."""
    cdef Operand x
    cdef int flags = t.node.flags & FG_WEAK
    operand_clear(&x)
    operand_tensor(t, &x)
    if x.shape != NULL and x.value == NULL:
        x.value = value_of(x.node, x.id)
    t = push_reshape(&x, t.node.rank, t.node.shape.dims if t.node.rank else NULL)
    t.node.flags = <uint16_t>(t.node.flags & ~(FG_NEEDS_GRAD | FG_WEAK)
                              | (flags if t.node.rank == 0 else 0))
    return t


# ---- versions and views ---------------------------------------------------------------------

cdef int tensor_become(Tensor t, Tensor made) except -1:
    """Let t stand for the node of `made`, a Tensor that nobody else has."""
    cdef uint32_t old = t.id
    cdef FgNode *old_node = t.node
    cdef FgTape *old_tape = t.tape
    if made.parent is not None:
        made.fresh()
    t.id = made.id
    t.node = made.node
    t.tape = made.tape
    t.node.handle = <void *>t
    t.version += 1
    if made.extra is not None and made.extra.made is not None:
        made_put(t, <Made>made.extra.made)
    made.id = FG_NO_ID
    handle_drop(old, old_node, old_tape)
    return 0


cdef int tensor_renew(Tensor t, FgValue *value) except -1:
    """Give a leaf a value of its own to change: a new one (taken over), or, with NULL, the same.
    Recorded consumers keep the old node, whose gradient goes on to t."""
    cdef FgNode *old = t.node
    cdef FgNode *n
    cdef uint32_t id
    cdef uint32_t old_id = t.id
    if old.refs == 1:
        if value != NULL:
            node_replace(old, value)
        t.version += 1
        return 0
    try:
        n = leaf_append(&id)
    except BaseException:
        if value != NULL:
            value_release(value)
        raise
    n.dtype = old.dtype
    n.rank = old.rank
    n.flags = old.flags & ~FG_RETAINED
    n.attr = old.attr
    if old.flags & FG_ARGUMENT:
        n.c = old.c
    if is_parameter(old) and not old.flags & FG_ARGUMENT:
        n.flags &= ~FG_NEEDS_GRAD
        leaf_require(n, True)
    if n.rank:
        n.shape = shape_ref(old.shape)
        n.value = value if value != NULL else value_ref(old.value)
    else:
        n.re = old.re
        n.im = old.im                   # (the whole number of an integer)
    n.handle = <void *>t
    t.id = id
    t.node = n
    t.version += 1
    if old.flags & FG_ARGUMENT:
        # Its adjoint is asked for by its number, not through the Tensor.
        handle_drop(old_id, old, NULL)
        return 0
    # The old version has no handle but holds the Tensor, until its consumers have gone.
    old.flags |= FG_RETAINED
    Py_INCREF(t)
    old.refs -= 1
    return 0


cdef int view_of(Tensor y, Tensor parent, tuple how) except -1:
    """Remember that y is a view of parent, as it would be in NumPy."""
    if y is parent or y.parent is not None:
        return 0
    y.parent = parent
    y.extras().how = how
    y.extra.seen = parent.version
    y.extra.root = parent if parent.parent is None else parent.extra.root
    y.extra.root_seen = y.extra.root.version
    y.extra.readonly = how[0] == "broadcast" or (len(how) == 3 and how[2]) or (
        parent.parent is not None and parent.extra.readonly)
    return 0


cdef int view_refresh(Tensor t) except -1:
    """Derive anew what is out of date between the root and t, without recursion."""
    cdef Tensor root = t.extra.root
    cdef Tensor p
    cdef list stale = []
    while t.parent is not None and t.extra.root_seen != root.version:
        stale.append(t)
        t = t.parent
    while stale:
        t = stale.pop()
        p = t.parent
        if p.version != t.extra.seen:
            tensor_become(t, view_derive(p, t.extra.how))
            t.extra.seen = p.version
        t.extra.root_seen = root.version
    return 0


@cython.final
@cython.no_gc
cdef class Held:
    """A place in the index of a view that depends on an input of a recording."""
    cdef Tensor place
    cdef int64_t version
    cdef object number


cdef object held_index(object index):
    """The index of a view as it is now: Tensors in it may be changed."""
    if type(index) is tuple:
        return tuple([held_item(i) if isinstance(i, Tensor) else i for i in index])
    return held_item(index) if isinstance(index, Tensor) else index


cdef object held_item(Tensor i):
    cdef Held held
    number = scalar_python(i.node)
    if not is_traced(i):
        return number
    held = Held.__new__(Held)
    held.place, held.version, held.number = i, i.version, number
    return held


cdef object released_index(object index):
    """What `held_index` was given."""
    if type(index) is tuple:
        return tuple([held_place(i) if type(i) is Held else i for i in index])
    return held_place(index) if type(index) is Held else index


cdef object held_place(Held held):
    if held.place.version == held.version:
        return held.place
    unreplayable("the index of a view is changed")
    return held.number


cdef Tensor view_derive(Tensor p, tuple how):
    cdef Operand x
    if how[0] == "item":
        operand_clear(&x)
        operand_tensor(p, &x)
        if x.shape != NULL and x.value == NULL:
            x.value = value_of(x.node, x.id)
        return push_item(&x, released_index(how[1]))
    if how[0] == "reshape":
        return reshape_tensor(p, how[1])
    if how[0] == "transpose":
        return transpose_tensor(p, how[1])
    if how[0] == "broadcast":
        return broadcast_to(p.detach() if not p.requires_grad else p, how[1])
    return flip_tensor(p, how[1])


cdef int view_write(Tensor t) except -1:
    """A view has been assigned to: its parent, and the parent's parent, get the new entries."""
    cdef Tensor view = t
    cdef Tensor p
    cdef tuple how
    while t.parent is not None:
        p = t.parent
        how = t.extra.how
        if how[0] == "item":
            push_assign(p, index_settled(released_index(how[1])), t)
        elif how[0] == "reshape":
            push_assign(p, Ellipsis, reshape_tensor(t, p.shape))
        elif how[0] == "transpose":
            push_assign(p, Ellipsis, transpose_tensor(t, tuple(np.argsort(how[1]))))
        else:
            push_assign(p, Ellipsis, flip_tensor(t, how[1]))
        t.extra.seen = p.version
        t = p
    while view.parent is not None:
        view.extra.root_seen = t.version
        view = view.parent
    return 0


cdef bint has_dots(object index) noexcept:
    """Whether an ellipsis is in an index."""
    cdef Py_ssize_t k
    if type(index) is not tuple:
        return index is Ellipsis
    for k in range(PyTuple_GET_SIZE(index)):
        if PyTuple_GET_ITEM(index, k) == <PyObject *>Ellipsis:
            return True
    return False


cdef bint is_fancy(object index) except -1:
    """Whether indexing with it copies in NumPy."""
    if type(index) is not tuple:
        index = (index,)
    for i in index:
        if not (i is None or i is Ellipsis or PySlice_Check(i) or PyLong_CheckExact(i)
                or isinstance(i, np_integer) or is_index_tensor(i)):
            return True
    return False


cdef int change_guard(Tensor t, str what) except -1:
    """What may not be changed, t itself or what it is a view of: nothing has been changed yet."""
    if t.parent is not None:
        if t.extra.readonly:
            raise ValueError(f"{what}: a broadcast Tensor, or a diagonal, is read-only as in NumPy"
                             "; change a copy")
        t = t.extra.root
    if t.extra is not None and t.extra.source is not None:
        source_guard(t, what)
    leaf_guard(t, what)
    return outside_guard(t)


cdef int source_guard(Tensor t, str what) except -1:
    """What asarray(a) has made of an ndarray is a itself in NumPy: nothing is written to it as
    long as somebody else has the array, or what it is a view of."""
    cdef object a = t.extra.source
    cdef Py_ssize_t held
    while a is not None:
        held = 2                                        # by one who has it, and by the name here
        if mode().recorder != NULL:
            held += (<Recorder>mode().recorder).holds(a)
        if not PyArray_Check(a) or Py_REFCNT(a) > held:
            raise ValueError(f"{what}: the Tensor stands for an ndarray{user_line()}, which would "
                             "not see what is written; change a copy, fnp.array(a) "
                             "(fastgrad.numpy)")
        a = a.base
    t.extra.source = None
    return 0


def standing_for(object x, object array):
    """x, a Tensor that asarray has made of an array."""
    if isinstance(x, Tensor):
        (<Tensor>x).extras().source = array
    return x


cdef int leaf_guard(Tensor t, str what) except -1:
    """Parameters may only be changed where nothing is recorded."""
    if (t.node.flags & (FG_LEAF | FG_NEEDS_GRAD)) == (FG_LEAF | FG_NEEDS_GRAD) \
            and not t.node.flags & (FG_ARGUMENT | FG_CONSUMED) and get_recording():
        raise RuntimeError(f"{what}: a leaf that requires a gradient cannot be changed while "
                           "recording; write `with fg.no_grad(): ...` around it")
    return 0


class Unrecordable(RuntimeError):
    """Raised where a step or a lane that is recorded to stand for others must not go on."""


cdef int outside_guard(Tensor t) except -1:
    """A program changes nothing but what it makes."""
    cdef Recorder r = recorder()
    if r is not None and not r.made(t) and r.inputs.get(t.id, len(r.arguments)) >= len(r.arguments):
        r.refuse("a Tensor that was made outside of it is changed")
        if r.known is None:
            # The caller will run the function itself: what it changes must be changed once.
            raise Unrecordable("a Tensor that was made outside of it is changed")
    return 0


cdef int assign(Tensor t, object index, object value) except -1:
    """t[index] = value."""
    cdef Tensor v
    t.fresh()
    change_guard(t, "assign")
    value = operand_settled(value)
    if isinstance(value, Tensor):
        v = value
        v.fresh()
    push_assign(t, index_settled(index), value)
    if t.extra is not None:
        t.extra.made = None
    if isinstance(value, Tensor):
        looked_noted(t, v.node)
    if t.parent is not None:
        view_write(t)
    return 0


cdef object in_place(Tensor t, object result, str what, bint rebinding=True):
    """t op= other: a new version of t, or new contents for a leaf outside recording. With
    `rebinding` the caller binds the name to what is returned, another Tensor for a scalar."""
    cdef Tensor made
    cdef Operand x
    cdef FgValue *v
    cdef double number
    cdef bint scalar
    if not isinstance(result, Tensor):
        if not t.node.rank and not is_point(t) or not isinstance(result, (np_ndarray, np_generic)):
            return result
        if not np.can_cast(result.dtype, t.dtype, "same_kind"):
            raise TypeError(f"{what}: a {result.dtype} result does not fit into a {t.dtype} Tensor")
        result = tensor_constant(np.array(result, t.dtype))
    made = result
    if tensor_dims(made.node) != tensor_dims(t.node):
        raise ValueError(f"{what}: the result has shape {tensor_dims(made.node)}, which does not fit "
                         f"into the Tensor of shape {tensor_dims(t.node)}")
    change_guard(t, what)
    scalar = (rebinding and t.node.rank == 0 and not is_point(t)
              and not (t.node.flags & FG_LEAF and is_parameter(t.node)
                       and not t.node.flags & FG_ARGUMENT))
    if made.node.dtype != t.node.dtype and not scalar:
        if not np.can_cast(made.dtype, t.dtype, "same_kind"):
            raise TypeError(f"{what}: a {made.dtype} result does not fit into a {t.dtype} Tensor")
        made = cast(made, t.dtype)
    if is_parameter(t.node) and not (t.node.flags & FG_ARGUMENT or made.node.flags & FG_NEEDS_GRAD):
        # A parameter of the user's: it stays the leaf it is.
        if t.node.rank:
            tensor_renew(t, value_ref(made.node.value))
        else:
            number = made.node.re
            tensor_renew(t, NULL)
            t.node.re = number
        return t
    if scalar:
        return made             # rebound, as NumPy's scalars and Python's numbers are
    tensor_become(t, made)
    if t.parent is not None:
        view_write(t)
    return t


# ---- operators ------------------------------------------------------------------------------

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
            is_float((<Tensor>left).node.dtype) or (<Tensor>left).node.dtype == FG_BOOL):
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
            return called_on_values(OPERATORS[op], (left, right), {})       # a TypeError
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
