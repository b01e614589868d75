# Operators of matrices by inner loops: a step of a loop that solves a system of four equations is not
# to go through a Python function, which takes ten times as long.
#
# The loop of a generalised ufunc, the core's or NumPy's, is got as that of matmul is (blas.pyx), by
# `_resolve_dtypes_and_context` and `_get_strided_loop`, which NumPy calls unstable; it is tried against
# the public function first. Where anything is not as expected, and where a result is NaN, which tells
# of a singular matrix as well, the function serves.

cdef enum: LOOP_OPERANDS = 8         # of a loop, results among them
cdef enum: LOOP_BATCH = 8            # axes in front of the core axes
cdef enum: LOOP_UNLOCKS = 1024       # entries of a result from which on other threads run meanwhile


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
    cdef int operand_count, result_count
    cdef int ranks[LOOP_OPERANDS]   # of operands and results: how many core axes
    cdef int lengths[LOOP_OPERANDS][2]      # which core length an axis has

    def __cinit__(self, ufunc):
        cdef int k, axis
        names = []
        parts = re.findall(r"\(([^)]*)\)", ufunc.signature)
        if len(parts) > LOOP_OPERANDS:
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
        self.operand_count, self.result_count = ufunc.nin, ufunc.nout
        dtypes = (np.dtype(np.float64),) * ufunc.nin + (None,) * ufunc.nout
        found, self.capsule = ufunc._resolve_dtypes_and_context(dtypes)
        ufunc._get_strided_loop(self.capsule)
        self.info = <const FgCallInfo *>PyCapsule_GetPointer(self.capsule, "numpy_1.24_ufunc_call_info")
        if self.info.requires_pyapi or any([dtype != np.float64 for dtype in found]):
            raise ValueError

    cdef list rooms(self, const FgStep *s, int which):
        """Memory for all results, where there are several."""
        cdef int k, axis, batch = s.out.rank - self.ranks[self.operand_count + which]
        cdef dict lengths = {}
        for k in range(self.operand_count):
            for axis in range(self.ranks[k]):
                lengths[self.lengths[k][axis]] = s.in_[k].dims[s.in_[k].rank - self.ranks[k] + axis]
        front = [s.out.dims[axis] for axis in range(batch)]
        return [np.empty(front + [lengths[self.lengths[k][axis]] for axis in range(self.ranks[k])])
                for k in range(self.operand_count, self.operand_count + self.result_count)]

    cdef bint run(self, FgFrame *f, const FgStep *s, int which, list rooms) except -1:
        """Whether the loop could do a step, and the first result is nowhere NaN."""
        cdef char *data[LOOP_OPERANDS]
        cdef int64_t dims[1 + 2 * LOOP_OPERANDS]
        cdef int64_t steps[3 * LOOP_OPERANDS]
        cdef int64_t outer[LOOP_OPERANDS][LOOP_BATCH]
        cdef int64_t index[LOOP_BATCH]
        cdef int64_t size, lane = 0, lanes = 1
        cdef int count = self.operand_count + self.result_count, at = count
        cdef int batch = s.out.rank - self.ranks[self.operand_count + which]
        cdef int k, axis, own
        cdef const FgOperand *x
        cdef double *first
        if s.count != self.operand_count or s.out.place < 0 or s.out.size == 0 or batch > LOOP_BATCH:
            return False
        for k in range(self.operand_count):
            x = &s.in_[k]
            own = x.rank - self.ranks[k]
            if x.place < 0 or own < 0 or own > batch or x.dtype != FG_FLOAT64:
                return False
            data[k] = f.memory[x.place] + x.offset
            for axis in range(own, x.rank):
                dims[1 + self.lengths[k][axis - own]] = x.dims[axis]
                steps[at] = x.strides[axis]
                at += 1
            for axis in range(batch):
                outer[k][axis] = 0
                if axis >= batch - own and x.dims[axis - batch + own] != 1:
                    outer[k][axis] = x.strides[axis - batch + own]
        for k in range(self.operand_count, count):
            data[k] = f.memory[s.out.place]
            if rooms is not None:
                data[k] = <char *>PyArray_DATA(<ndarray>rooms[k - self.operand_count])
            size = sizeof(double)
            for axis in reversed(range(self.ranks[k])):
                steps[at + axis] = size
                size *= dims[1 + self.lengths[k][axis]]
            at += self.ranks[k]
            if k == self.operand_count:
                lane = size
            for axis in reversed(range(batch)):
                outer[k][axis] = size
                size *= s.out.dims[axis]
        for axis in range(batch):
            index[axis] = 0
            lanes *= s.out.dims[axis]
        dims[0] = s.out.dims[batch - 1] if batch else 1
        for k in range(count):
            steps[k] = outer[k][batch - 1] if batch else 0
        first = <double *>data[self.operand_count]
        while True:
            if s.out.size >= LOOP_UNLOCKS:
                with nogil:
                    self.info.loop(self.info.context, data, dims, steps, self.info.auxdata)
            else:
                self.info.loop(self.info.context, data, dims, steps, self.info.auxdata)
            axis = batch - 2
            while axis >= 0:
                for k in range(count):
                    data[k] += outer[k][axis]
                index[axis] += 1
                if index[axis] < s.out.dims[axis]:
                    break
                for k in range(count):
                    data[k] -= index[axis] * outer[k][axis]
                index[axis] = 0
                axis -= 1
            if axis < 0:
                break
        lane //= 8
        for k in range(lanes):
            if first[k * lane] != first[k * lane]:
                return False
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
    from fastgrad._operators import OPERATORS

    row = OPERATORS.get(name)
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
