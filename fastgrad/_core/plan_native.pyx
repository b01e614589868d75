# Operators of small matrices by NumPy's own inner loops: a step of a loop that solves a system of four
# equations is not to go through a Python function, which takes ten times as long as LAPACK.
#
# As that of matmul (blas.pyx), a loop is got by `_resolve_dtypes_and_context` and `_get_strided_loop`,
# which NumPy calls unstable; it is tried against the public function first. Where anything is not as
# expected, and where a result is NaN, which tells of a singular matrix as well, the function serves.


@cython.final
@cython.no_gc_clear
cdef class Native:
    """The loop of a generalized ufunc of one result for float64. (NumPy's functions compute float32 in
    float64, too, and so another result than the loop for float32.)

    Parameters
    ----------
    ufunc : numpy.ufunc

    Raises
    ------
    Exception
        Where NumPy has no such loop, or it needs Python.
    """
    cdef const FgCallInfo *info
    cdef object capsule             # keeps it alive
    cdef int operand_count
    cdef int ranks[4]               # of operands and result: how many core axes
    cdef int lengths[4][2]          # which core length an axis has

    def __cinit__(self, ufunc):
        cdef int k, axis
        names = []
        parts = re.findall(r"\(([^)]*)\)", ufunc.signature)
        if len(parts) > 4 or ufunc.nout != 1:
            raise ValueError
        for k, part in enumerate(parts):
            axes = [name for name in part.replace(" ", "").split(",") if name]
            if len(axes) > 2:
                raise ValueError
            self.ranks[k] = <int>len(axes)
            for axis in range(len(axes)):
                if axes[axis] not in names:
                    names.append(axes[axis])
                self.lengths[k][axis] = names.index(axes[axis])
        self.operand_count = len(parts) - 1
        _, self.capsule = ufunc._resolve_dtypes_and_context((np.dtype(np.float64),) * len(parts))
        ufunc._get_strided_loop(self.capsule)
        self.info = <const FgCallInfo *>PyCapsule_GetPointer(self.capsule, "numpy_1.24_ufunc_call_info")
        if self.info.requires_pyapi:
            raise ValueError

    cdef bint run(self, FgFrame *f, const FgStep *s) noexcept:
        """Whether the loop could do a step, and the result is none of NaN."""
        cdef char *data[4]
        cdef int64_t dims[9]
        cdef int64_t steps[12]
        cdef int k, axis, at = self.operand_count + 1
        cdef const FgOperand *x
        cdef double *out
        if s.count != self.operand_count or s.out.place < 0 or s.out.size == 0:
            return False
        dims[0] = 1
        for k in range(self.operand_count + 1):
            x = &s.out
            if k < self.operand_count:
                x = &s.in_[k]
            if x.place < 0 or x.rank != self.ranks[k] or x.dtype != FG_FLOAT64:
                return False
            data[k] = f.memory[x.place] + x.offset
            steps[k] = 0
            for axis in range(x.rank):
                dims[1 + self.lengths[k][axis]] = x.dims[axis]
                steps[at] = x.strides[axis]
                at += 1
        self.info.loop(self.info.context, data, dims, steps, self.info.auxdata)
        out = <double *>data[self.operand_count]
        return out[0] == out[0]


cdef dict natives = {}              # by name and options: a Native, or None


cdef object native_of(object attribute):
    """The loop of an operator's call, or None."""
    name, _, options, _ = attribute
    try:
        if (name, options) not in natives:
            natives[name, options] = native_tried(name, dict(options))
        return natives[name, options]
    except TypeError:               # options that are not hashable
        return None


cdef object native_tried(str name, dict options):
    """The same, compared with the public function once."""
    from fastgrad._operators import OPERATORS

    row = OPERATORS.get(name)
    if row is None or row.native is None or row.results > 1:
        return None
    try:
        ufunc = row.native(**options)
        found = None if ufunc is None else Native(ufunc)
        operands = next(iter(row.draw(np.random.default_rng(0))))[0]
        if found is not None and not np.allclose(ufunc(*operands), row.value(*operands, **options)):
            return None
        return found
    except Exception:
        return None
