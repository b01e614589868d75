"""Plan: a graph made ready once, and run again and again.

A run takes a frame from the plan's list, binds inputs and outputs to it, leaves the rest to
fg_run, and hands the frame back; runs in several threads have frames of their own.
"""

cdef extern from *:
    """
    #include <numpy/arrayobject.h>
    static PyObject *array_new(int rank, const int64_t *dims, int dtype) {
        return PyArray_SimpleNew(rank, (npy_intp *)(uintptr_t)dims, dtype);
    }
    static PyObject *array_of(const char *p, int rank, const int64_t *dims, const int64_t *strides,
                              int dtype) {
        return PyArray_NewFromDescr(&PyArray_Type, PyArray_DescrFromType(dtype), rank,
                                    (const npy_intp *)dims, (const npy_intp *)strides,
                                    (void *)(uintptr_t)p, NPY_ARRAY_ALIGNED, NULL);
    }
    static PyObject *array_in(PyObject *owner, char *p, int rank, const int64_t *dims, int dtype) {
        PyObject *a = PyArray_NewFromDescr(&PyArray_Type, PyArray_DescrFromType(dtype), rank,
                                           (const npy_intp *)dims, NULL, p, NPY_ARRAY_CARRAY, NULL);
        if (a == NULL) return NULL;
        Py_INCREF(owner);
        if (PyArray_SetBaseObject((PyArrayObject *)a, owner) < 0) {
            Py_DECREF(a);
            return NULL;
        }
        return a;
    }
    static PyObject *double_scalar(double x) {
        PyArray_Descr *descr = PyArray_DescrFromType(NPY_DOUBLE);
        PyObject *scalar = PyArray_Scalar(&x, descr, NULL);
        Py_DECREF(descr);
        return scalar;
    }
    /* In C order, aligned and of this machine's byte order. */
    static int array_is_plain(PyObject *a) { return PyArray_ISCARRAY_RO((PyArrayObject *)a); }
    static PyObject *array_plain(PyObject *a) { return PyArray_FROM_OF(a, NPY_ARRAY_CARRAY_RO); }
    """
    object array_new(int, const int64_t *, int)
    object array_of(const char *, int, const int64_t *, const int64_t *, int)
    object array_in(object, char *, int, const int64_t *, int)
    object double_scalar(double)
    bint array_is_plain(object)
    object array_plain(object)
    bint PyArray_CheckExact(object)

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef enum:
    UNLOCK = 20000              # the work from which a run lets other Python threads run meanwhile

cdef enum:
    KIND_FLOAT, KIND_SCALAR, KIND_ARRAY


# ---- memory of large results --------------------------------------------------------------------

# Fresh pages cost as much as what is written to them: those of results that nobody holds any more
# are used again. Kept: as many bytes as the largest results of a few runs.
cdef enum:
    LARGE = 1 << 18
    CHUNKS = 16
    CHUNK_BYTES = 1 << 28


cdef struct Chunk:
    char *data
    int64_t nbytes


cdef Chunk chunks[CHUNKS]
cdef int64_t chunk_bytes = 0


@cython.final
@cython.no_gc
cdef class Memory:
    """What a large result lives in; given back with the last array that shows it."""
    cdef char *data
    cdef int64_t nbytes

    def __dealloc__(self):
        global chunk_bytes
        cdef int k
        if self.data == NULL:
            return
        for k in range(CHUNKS):
            if chunks[k].data == NULL and chunk_bytes + self.nbytes <= CHUNK_BYTES:
                chunks[k].data, chunks[k].nbytes = self.data, self.nbytes
                chunk_bytes += self.nbytes
                return
        fg_chunk_free(self.data)


cdef object result_array(FgOperand *x):
    """An array for a result, not yet filled."""
    global chunk_bytes
    cdef int64_t nbytes = x.size * fg_item(x.dtype)
    cdef int k, best = -1
    cdef Memory memory
    if nbytes < LARGE:
        return array_new(x.rank, x.dims, x.dtype)
    memory = Memory.__new__(Memory)
    for k in range(CHUNKS):
        if chunks[k].data != NULL and chunks[k].nbytes >= nbytes and \
                chunks[k].nbytes <= nbytes + nbytes // 4 and \
                (best < 0 or chunks[k].nbytes < chunks[best].nbytes):
            best = k
    if best >= 0:
        memory.data, memory.nbytes = chunks[best].data, chunks[best].nbytes
        chunk_bytes -= memory.nbytes
        chunks[best].data = NULL
    else:
        memory.data = <char *>fg_chunk(nbytes)
        memory.nbytes = nbytes
        if memory.data == NULL:
            raise MemoryError(f"not enough memory for a result of {nbytes} bytes")
    return array_in(memory, memory.data, x.rank, x.dims, x.dtype)


@cython.final
@cython.no_gc_clear
@cython.binding(False)
cdef class Plan:
    """A graph, planned: what it computes, in which order and where.

    Parameters
    ----------
    graph : Graph
    assumed : int
        What is taken for granted (assume.pyx). A run that finds it is not so is begun anew with
        a plan that assumes less.

    Raises
    ------
    ValueError
        Where the graph is malformed.
    """
    cdef FgPlan *plan
    cdef FgFrame *frames            # not in use
    cdef readonly object graph
    cdef Checked source             # keeps what the plan points into
    cdef bytes kinds                # of the outputs
    cdef dict prepared              # functions of the nodes that NumPy computes
    cdef list natives               # of these, what an inner loop does
    cdef dict same                  # of these, which are the same call; None: not looked at
    cdef Plan careful               # assumes less; made when needed
    cdef bint left                  # for the careful one, for good
    cdef object __weakref__

    def __cinit__(self, graph, int assumed=ASSUME_PLAIN, int outside=0):
        self.graph = graph
        self.source = checked(graph, assumed, outside)
        self.prepared, self.natives = {}, []
        with nogil:
            self.plan = fg_plan_new(&self.source.source)
        if self.plan == NULL:
            raise MemoryError("not enough memory to plan the graph")
        if self.plan.error != NULL:
            # Of a file its author may be wrong; of a recording, the planner.
            raise ValueError(f"the graph could not be planned: {self.plan.error.decode()}")
        self.find_natives()
        if CHECK_PLANS:
            self.verify()
        self.kinds = bytes([("float", "scalar", "array").index(kind) for kind in graph.kinds])

    def __dealloc__(self):
        cdef FgFrame *frame
        while self.frames != NULL:
            frame = self.frames
            self.frames = frame.next
            fg_frame_free(frame)
        if self.plan != NULL:
            fg_plan_free(self.plan)

    def verify(self):
        """Check the plan: every array is alive where it is used, views stay inside of their arrays,
        and no two arrays share memory while both are alive."""
        cdef const char *fault
        with nogil:
            fault = fg_plan_verify(self.plan)
        if fault == fg_plan_no_memory:
            raise MemoryError("not enough memory to check the plan")
        if fault != NULL:
            raise RuntimeError(f"the plan is wrong: {fault.decode()}\n{self}")

    # ---- running ----------------------------------------------------------------------------

    def run(self, list values):
        """What the graph makes of some values.

        Parameters
        ----------
        values : list of float, NumPy scalar or ndarray
            One for each input, of its dtype and shape.

        Returns
        -------
        list or int
            Floats, NumPy scalars and new arrays, as `graph.kinds` says; or the number of the first
            guard that does not hold.
        """
        values = list(values)           # the caller's may change meanwhile
        if len(values) != self.plan.input_count:
            raise TypeError(f"the program has {self.plan.input_count} inputs, not {len(values)}")
        return self.run_list(values)

    cdef object run_list(self, list values):
        cdef FgFrame *f
        cdef int k, met
        cdef list held = None
        cdef list results
        cdef FgPlan *plan = self.plan
        cdef bint unlock = plan.work >= UNLOCK
        if self.left:
            return self.careful.run_list(values)
        f = self.frames
        if f != NULL:
            self.frames = f.next
        else:
            f = fg_frame_new(plan)
            if f == NULL:
                raise MemoryError("not enough memory to run the program: it needs "
                                  f"{plan.frame_bytes} bytes")
            f.owner = <void *>self
        try:
            for k in range(plan.input_count):
                held = self.bind(f, k, <object>PyList_GET_ITEM(values, k), held)
            results = [None] * plan.output_count
            for k in range(plan.output_count):
                if plan.output_place[k] >= 0:
                    results[k] = result_array(&plan.outputs[k])
                    f.memory[plan.output_place[k]] = <char *>PyArray_DATA(<ndarray>results[k])
            if unlock:
                with nogil:
                    met = fg_run(f)
            else:
                met = fg_run(f)
            if met != FG_RUN_DONE:
                if met == FG_RUN_ERROR and not self.assumed_in_loop(f):
                    self.raise_error(f)
                if 0 <= met < len(self.graph.guards) and not self.source.guards_assume:
                    return met
                return self.carefully(values)
            for k in range(plan.output_count):
                if plan.output_place[k] < 0:
                    results[k] = self.result(f, k)
            return results
        finally:
            frame_clear(f)
            f.next = self.frames
            self.frames = f

    cdef object carefully(self, list values):
        """The same run, where an assumption does not hold. Zeros that meet infinities are no rare
        event of a function that masks some, as results that are not finite are."""
        if self.careful is None:
            self.careful = planned(self.graph, self.source.assumed - 1)
        self.left = self.source.assumed == ASSUME_PLAIN
        return self.careful.run_list(values)

    cdef bint assumed_in_loop(self, FgFrame *f):
        """Whether what ended a run is such a result in the body of a loop."""
        if f.broken < 0 or self.source.assumed == ASSUME_NOTHING:
            return False
        return self.assumes(f.broken_plan, f.broken)

    cdef bint assumes(self, const FgPlan *plan, int guard):
        cdef Plan inner
        for inner in self.source.plans:
            if inner.assumes(plan, guard) if inner.plan != plan else (
                    guard >= len(inner.graph.guards)):
                return True
        return False

    cdef list bind(self, FgFrame *f, int k, object v, list held):
        """Let the frame read input k; `held` gets what has to live as long as the run."""
        cdef FgOperand *x = &self.plan.inputs[k]
        cdef int i
        cdef object given = v
        if x.rank == 0 and x.dtype == FG_FLOAT64 and PyFloat_Check(v):
            if x.reg != <uint32_t>0xffffffff:
                f.registers[x.reg] = PyFloat_AS_DOUBLE(v)
            return held
        if x.rank == 0 and not PyArray_CheckExact(v):
            v = self.scalar_array(k, v)
        elif not PyArray_CheckExact(v):
            if not isinstance(v, np.ndarray):
                raise TypeError(f"input {k} must be an array of shape {self.graph.shape(x.node)}, not "
                                f"{type(v).__name__}")
            v = np.asarray(v)
        if PyArray_TYPE(<ndarray>v) != x.dtype and (<object>v).dtype != dtypes[x.dtype]:
            raise TypeError(f"input {k} has the dtype {v.dtype}, but the program was recorded with "
                            f"{dtypes[x.dtype]}")
        if PyArray_NDIM(<ndarray>v) != x.rank:
            raise self.shape_error(k, v)
        for i in range(x.rank):
            if PyArray_DIMS(<ndarray>v)[i] != x.dims[i]:
                raise self.shape_error(k, v)
        if not array_is_plain(v):
            v = array_plain(v)
        if x.place >= 0:
            f.memory[x.place] = <char *>PyArray_DATA(<ndarray>v)
        elif x.reg != <uint32_t>0xffffffff:
            f.registers[x.reg] = float(v)
        return held if v is given else [v] if held is None else held + [v]

    cdef object scalar_array(self, int k, object v):
        """A scalar that is not a float, as an array of the input's dtype."""
        dtype = dtypes[self.plan.inputs[k].dtype]
        if isinstance(v, np.generic):
            return np.asarray(v)
        if (type(v) is bool and dtype == np.bool_) or (type(v) is int and dtype == np.int64):
            return np.asarray(v, dtype)
        raise TypeError(f"input {k} must be a scalar of dtype {dtype}, not {type(v).__name__}")

    cdef object shape_error(self, int k, object v):
        return ValueError(f"input {k} has the shape {v.shape}, but the program was recorded with "
                          f"{self.graph.shape(self.plan.inputs[k].node)}")

    cdef object result(self, FgFrame *f, int k):
        """Output k, which the run has not written where it belongs."""
        cdef FgOperand *x = &self.plan.outputs[k]
        cdef double number
        if x.rank == 0 and x.place < 0 and self.kinds[k] != KIND_ARRAY:
            number = f.registers[x.reg]
            if self.kinds[k] == KIND_FLOAT:
                return number
            if x.dtype == FG_FLOAT64:
                return double_scalar(number)
            return dtypes[x.dtype].type(number)
        out = result_array(x)
        fg_operand_copy(f, x, <char *>PyArray_DATA(<ndarray>out))
        if self.kinds[k] == KIND_ARRAY:
            return out
        return float(out) if self.kinds[k] == KIND_FLOAT else out[()]

    # ---- what NumPy computes ----------------------------------------------------------------

    cdef object operand(self, FgFrame *f, const FgOperand *x):
        """An operand as NumPy sees it: a view, read-only."""
        cdef char *p
        if x.place < 0 and x.rank == 0:
            number = f.registers[x.reg]
            if self.source.nodes[x.node].flags & FG_GRAPH_WEAK:
                return number
            return dtypes[x.dtype].type(number)
        if x.place < 0:
            return np.broadcast_to(dtypes[x.dtype].type(f.registers[x.reg]),
                                   tuple([x.dims[i] for i in range(x.rank)]))
        p = f.memory[x.place] + x.offset
        array = array_of(p, x.rank, x.dims, x.strides, x.dtype)
        return array if x.rank else array[()]

    cdef object objects(self, FgFrame *f):
        """What lives as long as the run: the results of functions that have several."""
        if f.objects == NULL:
            made = {}
            Py_INCREF(made)
            f.objects = <void *>made
        return <object>f.objects

    cdef int python_step(self, FgFrame *f, const FgStep *s) except -1:
        cdef int k
        cdef FgGraphNode *n = &self.source.nodes[s.node]
        values = [self.operand(f, &s.in_[k]) for k in range(s.count)
                  if self.source.nodes[s.in_[k].node].op != FG_custom]
        if n.op == FG_result:
            y = self.objects(f)[self.graph.nodes["a"][s.node]][<int64_t>n.constant]
        elif n.op == FG_call:
            y = self.called(f, s.node, values)
        else:
            y = self.function(s.node, "prepare")(*values)
            if n.op == FG_custom:
                self.objects(f)[s.node] = y
                return 0
        y = np.asarray(y)
        shape = self.graph.shape(s.node)
        if y.shape != shape or y.dtype != dtypes[s.dtype]:
            line = self.graph.lines[self.graph.nodes["line"][s.node]] \
                if self.graph.nodes["line"][s.node] < len(self.graph.lines) else ""
            what = self.graph.attribute(s.node)[0] if n.op == FG_call else self.graph.name(s.node)
            raise GuardError(f"{line + ': ' if line else ''}{what} had a result of shape {shape} and "
                             f"dtype {dtypes[s.dtype]} when the program was recorded, and one of shape "
                             f"{y.shape} and dtype {y.dtype} now")
        y = np.ascontiguousarray(y)
        if s.out.place < 0:
            f.registers[s.out.reg] = float(y[()]) if y.ndim == 0 else float(y.reshape(-1)[0])
        else:
            memcpy(f.memory[s.out.place], PyArray_DATA(<ndarray>y), y.nbytes)
        return 0

    cdef object function(self, int64_t node, str prepare):
        function = self.prepared.get(node)
        if function is None:
            prepared = getattr(core.HANDED_DOWN["replay"], prepare)
            function = self.prepared[node] = prepared(self.graph, node)
        return function

    cdef int find_natives(self) except -1:
        """Let steps that an inner loop can do be done by it."""
        cdef int k
        cdef int64_t work
        cdef FgStep *s
        cdef NativeStep step
        numbers = {}                    # of the steps, by node
        for k in range(self.plan.step_count):
            s = &self.plan.steps[k]
            if s.kind != FG_STEP_PYTHON or self.source.nodes[s.node].op != FG_call:
                continue
            numbers[s.node] = k
            native, which = native_of(self.graph.attribute(s.node))
            if native is None:
                continue
            step = NativeStep.__new__(NativeStep)
            step.native = native
            first = numbers[self.first_of(s.node)] if step.native.results > 1 else k
            if step.prepare(s, which, first):
                self.natives.append(step)
                s.inner = &step.call
                work = step.call.lanes * max([step.call.dims[1 + i] for i in range(2)]) ** 3
                s.work += work
                self.plan.work += work
        return 0

    cdef object first_of(self, int64_t node):
        """Of several nodes that are the same call, as one node for each of its results is, the one whose
        step comes first."""
        if self.same is None:
            self.same = self.same_calls()
        return self.same.get(node, node)

    cdef object called(self, FgFrame *f, int64_t node, list values):
        """The result of a function without derivative, which is called in the first step of the call."""
        first = self.first_of(node)
        which = self.graph.attribute(node)[3]
        made = self.objects(f)
        if first == node or ("call", first) not in made:
            y = self.function(node, "prepare_call")(*values)
            if node in self.same:       # (copies, should they be views of what the frame uses again)
                made["call", node] = np.array(y) if which is None else [np.array(x) for x in y]
        else:
            y = made["call", first]
        return y if which is None else y[which]

    cdef dict same_calls(self):
        """By node: which one of those that are the same call has the first step."""
        cdef int k
        cdef dict firsts = {}, found = {}
        groups = core.HANDED_DOWN["replay"].same_calls(self.graph)
        for k in range(self.plan.step_count):
            node = self.plan.steps[k].node
            if self.plan.steps[k].kind == FG_STEP_PYTHON and node in groups:
                found[node] = firsts.setdefault(groups[node], node)
        return found

    cdef int raise_error(self, FgFrame *f) except -1:
        error = self.objects(f).pop("error", None)
        if error is not None:
            raise error
        if f.broken >= 0:
            raise self.guard_error(f)
        raise MemoryError("not enough memory to run the program")

    cdef object guard_error(self, FgFrame *f):
        """A guard of a loop's body: the loop has one path."""
        cdef Plan inner
        for inner in self.source.plans:
            if inner.plan == f.broken_plan:
                guard = inner.graph.guards[f.broken]
                return GuardError(f"{guard.line}: inside of a loop, the outcome of a condition or "
                                  f"the integer taken from a value is no longer {guard.outcome}; "
                                  "write the choice with fastgrad.numpy.where")
            error = inner.guard_error(f)
            if error is not None:
                return error
        return None

    # ---- for people -------------------------------------------------------------------------

    def memory(self):
        """What a run needs, in bytes, before anything runs.

        Returns
        -------
        dict
            "frame": arrays between the steps; "bound": what no assignment of memory could do
            without; "blocks": of one thread; "registers", "inputs", "outputs", "constants".
        """
        cdef int k
        sums = {FG_PLACE_INPUT: 0, FG_PLACE_CONSTANT: 0, FG_PLACE_OUTPUT: 0, FG_PLACE_FRAME: 0}
        for k in range(self.plan.place_count):
            sums[self.plan.places[k].kind] += self.plan.places[k].nbytes
        return {"frame": self.plan.frame_bytes, "bound": self.plan.bound,
                "blocks": self.plan.block_bytes, "registers": 8 * self.plan.registers,
                "inputs": sums[FG_PLACE_INPUT], "outputs": sums[FG_PLACE_OUTPUT],
                "constants": sums[FG_PLACE_CONSTANT]}

    cdef str operand_text(self, const FgOperand *x):
        cdef FgPlace *place
        if x.place < 0:
            return f"r{x.reg}"
        place = &self.plan.places[x.place]
        where = {FG_PLACE_INPUT: f"input {place.which}", FG_PLACE_CONSTANT: f"constant {place.node}",
                 FG_PLACE_OUTPUT: f"output {place.which}", FG_PLACE_FRAME: f"@{place.offset}"}
        return f"%{x.node}{[x.dims[i] for i in range(x.rank)]} {where[place.kind]}"

    def __str__(self):
        cdef int k, j
        cdef const FgStep *s
        cdef FgBlockRun *run
        names = {FG_STEP_SCALARS: "scalars", FG_STEP_BLOCKS: "blocks", FG_STEP_LOAD: "load",
                 FG_STEP_COPY: "copy", FG_STEP_PACK: "pack", FG_STEP_FINITE: "finite",
                 FG_STEP_WEIGHTS: "weights"}
        lines = []
        places = {self.plan.places[k].node: k for k in range(self.plan.place_count - 1, -1, -1)}
        for k in range(self.plan.step_count):
            s = &self.plan.steps[k]
            if s.kind == FG_STEP_GUARD and s.node >= len(self.graph.guards):
                lines.append(f"{k}: is {self.operand_text(&s.in_[0])} finite? else a plan that "
                             "assumes less")
            elif s.kind == FG_STEP_GUARD:
                guard = self.graph.guards[s.node]
                lines.append(f"{k}: guard {s.node}: {guard.kind}(%{guard.node}) == {guard.outcome}"
                             f"  # {guard.line}")
            elif s.kind == FG_STEP_BLOCKS:
                run = s.blocks
                lines.append(f"{k}: blocks of {run.length} lanes over {run.size}"
                             f"{', shared by threads' if run.shared else ''}: {run.op_count} operations "
                             f"in {run.registers} block registers")
                for j in range(run.input_count):
                    lines.append("     reads " + self.operand_text(&run.inputs[j].from_)
                                 + ("" if run.inputs[j].direct else ", gathered"))
            else:
                lines.append(f"{k}: {names.get(s.kind) or op_table[s.op].name.decode()}"
                             + (f" of {s.node_count} operations" if s.kind == FG_STEP_SCALARS else ""))
                if s.in_ != NULL and s.kind != FG_STEP_LOAD:
                    for j in range(min(s.count, 10)):
                        lines.append("     reads " + self.operand_text(&s.in_[j]))
            for j in range(min(s.node_count, 2000)):
                lines.append("     " + self.node_text(self.plan.order[s.nodes + j], places))
        for k in range(self.plan.output_count):
            lines.append(f"return {self.operand_text(&self.plan.outputs[k])}")
        return "\n".join(lines)

    cdef str node_text(self, int64_t i, dict places):
        cdef FgPlace *place
        where = ""
        if i in places:
            place = &self.plan.places[<int>places[i]]
            where = (f" -> output {place.which}" if place.kind == FG_PLACE_OUTPUT else
                     f" -> @{place.offset}..{place.offset + place.nbytes}, alive in steps "
                     f"{place.first} to {place.last}")
        shape = self.graph.shape(i)
        return (f"%{i} = {self.graph.name(i)}({', '.join(['%' + str(k) for k in self.graph.operands_of(i)])})"
                f" : {self.graph.dtype(i)}{list(shape) if shape else ''}{where}")

    cdef str step_name(self, const FgStep *s):
        if s.kind == FG_STEP_BLOCKS:
            return "a run over blocks"
        if s.kind == FG_STEP_SCALARS:
            return "scalars"
        if s.kind == FG_STEP_GUARD:
            return f"guard {s.node}" if s.node < len(self.graph.guards) else (
                "it is asked whether the plan may go on")
        return self.graph.name(s.node)

    cdef dict readers(self):
        """The steps that read each place."""
        cdef int k, j
        cdef const FgStep *s
        found = {}
        for k in range(self.plan.step_count):
            s = &self.plan.steps[k]
            if s.kind == FG_STEP_BLOCKS:
                read = [s.blocks.inputs[j].from_.place for j in range(s.blocks.input_count)]
            else:
                read = [s.in_[j].place for j in range(s.count)] if (
                    s.kind != FG_STEP_LOAD and s.in_ != NULL) else []
            for place in read:
                found.setdefault(place, []).append(k)
        return found

    def explain(self):
        """What became of the graph, in words: what was left out, which operations run together, and
        why a run ends: which later steps need its results as a whole."""
        cdef int k, j
        cdef FgPlan *p = self.plan
        cdef const FgStep *s
        lines = [f"{p.node_count} operations in the graph, {p.kept_count} in the plan: "
                 f"{p.folded} simplified or folded, {p.merged} merged with an equal one, "
                 "the rest is needed by no result",
                 f"{p.step_count} steps",
                 f"{p.frame_bytes} bytes for arrays between them (the least possible: {p.bound})"]
        readers = self.readers()
        for k in range(p.step_count):
            s = &p.steps[k]
            if s.kind == FG_STEP_BLOCKS:
                lines.append(f"step {k}: {s.node_count} element-wise operations and sums fused "
                             f"into one run over {s.blocks.size} elements, {s.blocks.op_count} "
                             f"operations of blocks of {s.blocks.length}"
                             + (", shared among threads" if s.blocks.shared else ""))
                for j in range(s.blocks.output_count):
                    place = s.blocks.outputs[j].place
                    later = [f"step {r} ({self.step_name(&p.steps[<int>r])})"
                             for r in dict.fromkeys(readers.get(place, []))][:4]
                    if p.places[<int>place].kind == FG_PLACE_OUTPUT:
                        later.append("the caller")
                    lines.append(f"    keeps %{p.places[<int>place].node} for {', '.join(later)}")
                for j in range(s.blocks.sum_count):
                    lines.append("    a sum, known when the run has ended")
            elif s.kind == FG_STEP_SCALARS:
                lines.append(f"step {k}: a string of {s.node_count} scalar operations")
            elif s.kind == FG_STEP_PYTHON:
                lines.append(f"step {k}: {self.graph.name(s.node)} is left to NumPy")
            else:
                lines.append(f"step {k}: {self.step_name(s)}")
        return "\n".join(lines)


cdef object plans = WeakValueDictionary()       # by id of a graph, which they hold, and what they assume


def planned(graph, int assumed=ASSUME_PLAIN, int outside=0):
    """The plan of a graph that does not change any more, one for all who ask: see Plan. `outside`: how
    many loops stand around it."""
    key = id(graph), assumed
    plan = plans.get(key)
    if plan is None:
        plan = plans[key] = Plan(graph, assumed, outside)
    return plan


cdef extern from *:
    """
    #if defined(FG_DEBUG)
    #define CHECK_PLANS 1
    #else
    #define CHECK_PLANS 0
    #endif
    """
    bint CHECK_PLANS


cdef void frame_clear(FgFrame *f) noexcept:
    """Let go of what a run has left in its frame."""
    cdef int32_t k
    f.stop = 0
    f.broken = -1
    if f.objects != NULL:
        Py_DECREF(<object>f.objects)
        f.objects = NULL
    for k in range(f.plan.loop_count):
        if f.loops[k].body != NULL:
            frame_clear(f.loops[k].body)
        if f.loops[k].condition != NULL:
            frame_clear(f.loops[k].condition)


cdef int look_at_signals(FgFrame *f) noexcept nogil:
    """Whether the run is to end because of a signal."""
    with gil:
        try:
            PyErr_CheckSignals()
            return 0
        except BaseException as error:
            (<Plan>f.owner).objects(f)["error"] = error
            return 1


cdef int python_step(FgFrame *f, const FgStep *s) noexcept nogil:
    """Called by fg_run for what it cannot do."""
    with gil:
        plan = <Plan>f.owner
        try:
            plan.python_step(f, s)
            return FG_RUN_DONE
        except BaseException as error:
            plan.objects(f.root)["error"] = error
            return FG_RUN_ERROR


fg_vm_python = python_step
fg_vm_signals = look_at_signals
