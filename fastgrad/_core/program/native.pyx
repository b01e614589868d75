# Operators of matrices by inner loops: a step of a loop that solves a system of four equations is not
# to go through a Python function, which takes ten times as long.
#
# The loop of a generalised ufunc, the core's or NumPy's, is got as that of matmul is (blas.pyx), by
# `_resolve_dtypes_and_context` and `_get_strided_loop`, which NumPy calls unstable; it is tried against
# the public function first. Where anything is not as expected, and where a result is NaN, which tells
# of a singular matrix as well, the function serves.

@cython.final
@cython.no_gc_clear
cdef class Native:
    """The loop of a generalised ufunc for float64. (NumPy's functions compute float32 in float64, too,
    and so another result than the loop for float32.)

    Parameters
    ----------
    ufunc : numpy.ufunc

    Raises
    ------
    Exception
        Where there is no such loop, or it needs Python.
    """
    cdef const FgCallInfo *info
    cdef object capsule             # keeps it alive
    cdef int operands, results
    cdef list axes                  # by operand and result: the number of each core axis' length

    def __cinit__(self, ufunc):
        parts = [[name for name in part.replace(" ", "").split(",") if name]
                 for part in re.findall(r"\(([^)]*)\)", ufunc.signature)]
        if len(parts) > FG_INNER_OPERANDS or any([len(part) > 2 for part in parts]):
            raise ValueError
        names = list(dict.fromkeys([name for part in parts for name in part]))
        self.axes = [[names.index(name) for name in part] for part in parts]
        self.operands, self.results = ufunc.nin, ufunc.nout
        dtypes = (np.dtype(np.float64),) * ufunc.nin + (None,) * ufunc.nout
        found, self.capsule = ufunc._resolve_dtypes_and_context(dtypes)
        ufunc._get_strided_loop(self.capsule)
        self.info = <const FgCallInfo *>PyCapsule_GetPointer(self.capsule, "numpy_1.24_ufunc_call_info")
        if self.info.requires_pyapi or any([dtype != np.float64 for dtype in found]):
            raise ValueError


@cython.final
@cython.no_gc
cdef class NativeStep:
    """A step of a plan that a loop does, with all but the memory told before a run. Of several steps that
    are the same call, one for each of its results, the first computes all (`first` is its number)."""
    cdef Native native              # keeps the loop alive
    cdef FgInner call

    cdef bint prepare(self, FgStep *s, int which, int first) except -1:
        """Whether it can: results are contiguous, and no operand is a number in a register."""
        cdef FgInner *c = &self.call
        cdef list axes = self.native.axes
        cdef int k, axis, own, count = self.native.operands + self.native.results
        cdef int at = count
        cdef int64_t size
        cdef const FgOperand *x
        c.info, c.operands, c.results = self.native.info, self.native.operands, self.native.results
        c.axes = s.out.rank - <int>len(axes[c.operands + which])
        c.first, c.which = first, which
        if s.count != c.operands or s.out.place < 0 or s.out.size == 0 or c.axes > FG_INNER_AXES:
            return False
        for k in range(c.operands):
            x = &s.in_[k]
            own = x.rank - <int>len(axes[k])        # of the axes before its core axes
            if x.place < 0 or own < 0 or own > c.axes or x.dtype != FG_FLOAT64:
                return False
            for axis in range(own, x.rank):
                c.dims[1 + <int>axes[k][axis - own]] = x.dims[axis]
                c.steps[at] = x.strides[axis]
                at += 1
            for axis in range(own):
                if x.dims[axis] != 1:
                    c.strides[k * c.axes + c.axes - own + axis] = x.strides[axis]
        c.lanes, c.room = 1, 64
        for axis in range(c.axes):
            c.lengths[axis] = s.out.dims[axis]
            c.lanes *= s.out.dims[axis]
        for k in range(c.operands, count):
            size = sizeof(double)
            for axis in reversed(range(<int>len(axes[k]))):
                c.steps[at + axis] = size
                size *= c.dims[1 + <int>axes[k][axis]]
            at += <int>len(axes[k])
            if k == c.operands:
                c.lane = size // <int64_t>sizeof(double)
            for axis in reversed(range(c.axes)):
                c.strides[k * c.axes + axis] = size
                size *= c.lengths[axis]
            c.at[k - c.operands] = c.room
            c.room += (size + 63) // 64 * 64
        return True


cdef dict natives = {}              # by name and options: a Native, or None


cdef tuple native_of(object attribute):
    """The loop of an operator's call, or None, and which of its results is wanted."""
    name, _, options, which = attribute
    try:
        if (name, options) not in natives:
            natives[name, options] = native_tried(name, dict(options))
        return natives[name, options], which or 0
    except TypeError:               # options that are not hashable
        return None, 0


cdef object native_tried(str name, dict options):
    """The same, compared with the public function once."""
    row = core.HANDED_DOWN["operators"].get(name)
    if row is None or row.native is None:
        return None
    try:
        ufunc = row.native(**options)
        found = Native(ufunc)
        for operands, _ in list(row.draw(np.random.default_rng(0)))[:1]:
            for results in zip(*[y if isinstance(y, tuple) else (y,)
                                 for y in (ufunc(*operands), row.value(*operands, **options))]):
                if not np.allclose(*results):
                    return None
        return found
    except Exception:
        return None
