"""What errors and warnings say: the user's line, what is called there, what to write instead."""

# Filled from above: the full name of a function without rule -> what to write in its place; the
# functions that programs may call by name (fastgrad/graphs/replay.py); of those computed by value the
# rows of numpy/_plain.py, by name, and the ufuncs that have no derivative.
ALTERNATIVES = {}
CALLED = {}
PLAIN = {}
PLAIN_UFUNCS = set()

LIBRARIES = ("fastgrad.", "numpy.", "scipy.", "pandas.", "matplotlib.")
cdef str STANDARD = os.path.join(os.path.dirname(os.__file__), "")
cdef tuple INSTALLED = tuple([os.sep + part + os.sep
                              for part in ("site-packages", "dist-packages")])


cdef dict known_paths = {}      # a guard of a program remembers its line, at each decision


cdef str module_of(object frame):
    name = frame.f_globals.get("__name__")
    return name if type(name) is str else ""


cdef bint of_library(object frame):
    """Whether the code is installed, and not the user's to change."""
    cdef str path = frame.f_code.co_filename
    found = known_paths.get(path)
    if found is None:
        found = (path.startswith(STANDARD) or path.startswith("<frozen ")
                 or any([part in path for part in INSTALLED]))
        if len(known_paths) < 1000:
            known_paths[path] = found
    return found or module_of(frame).startswith(LIBRARIES)


cdef object user_frame():
    """The frame of the caller's own code: the innermost that is of no library, or, where all of it
    is installed, the innermost that is not fastgrad's or NumPy's. None without a frame."""
    cdef object frame, nearest = None
    try:
        frame = sys._getframe(0)
    except ValueError:
        return None
    while frame is not None:
        if not module_of(frame).startswith(("fastgrad.", "numpy.")):
            if not of_library(frame):
                return frame
            if nearest is None:
                nearest = frame
        frame = frame.f_back
    return nearest


cpdef str user_line():
    """Where the caller's own code stands, for messages."""
    cdef object frame = user_frame()
    return "" if frame is None else f" ({frame.f_code.co_filename}, line {frame.f_lineno})"


def warn(str message):
    """Warn at the user's line."""
    cdef object frame = user_frame()
    if frame is None:
        warnings.warn(message)
        return
    # (A stacklevel would count frames that Python's own count leaves out.)
    warnings.warn_explicit(message, UserWarning, frame.f_code.co_filename, frame.f_lineno,
                           module_of(frame) or "<string>",      # (of None Python warns not at all)
                           frame.f_globals.setdefault("__warningregistry__", {}))
    # (Without the globals: it would ask their loader for the source, and that of a prompt raises.)


# ---- names ----------------------------------------------------------------------------------

cdef str ufunc_name(object ufunc):
    """The full name of a ufunc, which knows the last part alone."""
    cdef str name = ufunc.__name__
    for module in ("numpy", "scipy.special"):
        if getattr(sys.modules.get(module), name, None) is ufunc:
            return f"{module}.{name}"
    return name


cdef str function_name(object function):
    """The full name of a function that NumPy has asked us for."""
    cdef str name = getattr(function, "__name__", "") or repr(function)
    if isinstance(function, np.ufunc):
        return ufunc_name(function)
    if getattr(np, name, None) is function:
        return f"numpy.{name}"
    return f"{getattr(function, '__module__', None) or 'numpy'}.{name}"


cdef object calling():
    """The frames of libraries between here and the user's line, the outermost first."""
    cdef list frames = []
    cdef object frame, last = user_frame()
    frame = sys._getframe(0)
    while frame is not None and frame is not last:
        if not module_of(frame).startswith("fastgrad."):
            frames.append(frame)
        frame = frame.f_back
    frames.reverse()
    return frames


cdef object public_name(object frame):
    """What users call the function of a frame: scipy.stats.norm.pdf. None where it is private."""
    cdef str name = frame.f_code.co_name
    cdef list parts = module_of(frame).split(".")
    owner = (frame.f_locals.get("self")
             if frame.f_code.co_argcount and frame.f_code.co_varnames[0] == "self" else None)
    if name == "__call__" and owner is not None:
        owner, name = None, type(owner).__name__
    if name.startswith("_") or name.startswith("<"):
        return None
    while parts:
        module = sys.modules.get(".".join(parts))
        if module is not None and not any([part.startswith("_") for part in parts]):
            where = ".".join(parts)
            if owner is None:
                if callable(getattr(module, name, None)):
                    return f"{where}.{name}"
            else:
                for known, value in vars(module).items():
                    if value is owner and not known.startswith("_"):
                        return f"{where}.{known}.{name}"
                if getattr(module, type(owner).__name__, None) is type(owner):
                    return f"{where}.{type(owner).__name__}.{name}"
        parts.pop()
    return None


cdef str called_text():
    """The source of what the user's line is about to have computed, or ""."""
    cdef object frame = user_frame()
    try:
        start, end, left, right = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)[start - 1:end]
        if len(lines) != end - start + 1:   # (an index of a list is not checked here)
            return ""
        if start == end:
            return lines[0].encode()[left:right].decode()
        return "".join([lines[0].encode()[left:].decode(), *lines[1:-1],
                        lines[-1].encode()[:right].decode()])
    except Exception:               # no source, no columns
        return ""


# ---- what cannot be done --------------------------------------------------------------------

cdef object no_rule(str name):
    """The error for a function without rule."""
    cdef object cure = ALTERNATIVES.get(name)
    cdef str function = name.rpartition(".")[2] if name.count(".") < 3 else name
    return NoDerivativeError(
        f"{name} has no derivative rule{user_line()}; "
        + (f"write {cure} (fnp is fastgrad.numpy)" if cure else
           "compose it from functions of fastgrad.numpy, or give it a rule with fg.custom_vjp")
        + f", or pass t.detach() in place of the Tensor t for the value of {function} alone")


cdef bint lost(object x) except -1:
    """Whether a Tensor whose derivative is recorded is among the arguments, in containers too."""
    if isinstance(x, Tensor):
        return get_recording() and loses(<Tensor>x)
    if isinstance(x, (list, tuple, dict)):
        descend()
        try:
            for y in (x.values() if isinstance(x, dict) else x):
                if lost(y):
                    return True
        finally:
            ascend()
    return False


def unruled(function, name, args, kwargs):
    """What a function that nobody has a rule for gives with Tensors: its value, as a Tensor, where
    no derivative is lost."""
    if name is None:
        name = function_name(function)
    if lost(args) or lost(kwargs):
        if not values_serve(args, kwargs):
            raise refused_as(no_rule(name))
        # (Not as a call of the graph: that would be differentiated to zero where it is loaded.)
        return called_on_values(function, args, kwargs)
    if mode().recorder != NULL:
        return derived(name if CALLED.get(name) is function else None, function, tuple(args),
                       kwargs)
    return looked(values_wrapped(function(*[derived_value(x) for x in args],
                                          **{k: derived_value(x) for k, x in kwargs.items()})),
                  args, kwargs, name, function)


cdef object values_wrapped(object result):
    """Arrays of dtypes that Tensors have as Tensors, also in containers; all else as it is."""
    if type(result) is np_ndarray or isinstance(result, np_generic):
        if result.dtype.kind == "f" or result.dtype.num < KNOWN_DTYPES and dtype_known[
                <int>result.dtype.num]:
            return tensor_constant(result)      # which complains of other floating dtypes
        return result
    if isinstance(result, (list, tuple)):
        results = [values_wrapped(x) for x in result]
        return type(result)(*results) if hasattr(result, "_fields") else type(result)(results)
    return result


cdef object no_array(Tensor t):
    """The error where a recorded Tensor is asked for the array it is not."""
    cdef list frames = calling()
    cdef str text, module
    cdef object name
    for frame in frames:
        module = module_of(frame)
        if module.startswith("scipy.sparse.") and not module.startswith("scipy.sparse.linalg"):
            return TypeError(
                f"scipy.sparse cannot compute with a recorded Tensor{user_line()}; write "
                "fnp.matmul(S, x) (fastgrad.numpy) for the product of a constant sparse matrix S "
                "and a Tensor x, S.toarray() for element-wise operators")
        owner = frame.f_locals.get("self")
        if owner is np.c_:
            return TypeError(f"numpy.c_ cannot hold a recorded Tensor{user_line()}; write "
                             "fnp.column_stack([...]) (fastgrad.numpy)")
        if owner is np.r_:
            return TypeError(f"numpy.r_ cannot hold a recorded Tensor{user_line()}; write "
                             "fnp.hstack([...]) (fastgrad.numpy)")
    for frame in frames:
        name = public_name(frame)
        if name is not None and getattr(np, name.rpartition(".")[2], None) in WRITERS:
            return cannot_hold(name)
        if (name is not None and not name.startswith("numpy.ma.")
                and getattr(np, name.rpartition(".")[2], None) not in ARRAY_FUNCTIONS):
            return no_rule(name)
    text = called_text()
    if ".dot(" in text:
        return TypeError(f"dot: the array cannot be multiplied by a recorded Tensor{user_line()}; "
                         "write w @ x, or fnp.dot(w, x) (fastgrad.numpy), in place of w.dot(x)")
    return TypeError(
        f"numpy cannot hold a recorded Tensor{user_line()}; write fnp.array([...]) to join "
        "Tensors, fnp.zeros(n) (fastgrad.numpy) for an array to be filled with them, "
        "fnp.asarray(t) to convert, or .detach() for the value alone")


cpdef int refuse_others(object o) except -1:
    """Arrays of other tools are named; they would be taken for sequences of numbers."""
    cdef str tool = (type(o).__module__ or "").partition(".")[0]
    if tool == "torch":
        raise TypeError(f"fastgrad: cannot compute with a {type(o).__name__} of "
                        f"PyTorch{user_line()}; write x.detach().numpy()")
    if tool in ("jax", "jaxlib"):
        raise TypeError(f"fastgrad: cannot compute with an array of JAX{user_line()}; write "
                        "np.asarray(x)")
    return 0


# ---- sparse matrices ------------------------------------------------------------------------

cdef object sparse_product = None       # of fastgrad/numpy/_products.py


def use_sparse_product(function):
    global sparse_product
    sparse_product = function


cdef inline bint is_sparse(object x) except -1:
    return not (isinstance(x, Tensor) or PyArray_Check(x)) and (
        getattr(type(x), "__module__", None) or "").startswith("scipy.sparse")


def is_sparse_matrix(x):
    """Whether it is a matrix or an array of scipy.sparse, which need not be there."""
    return is_sparse(x)
