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
