"""A function's run, held so that it can be differentiated again and again, in both directions.

`Trace` knows nothing of functions and trees: it makes Tensors for flat lists of arguments, is told
the flat list of results, and answers with flat lists. The transformations (_run.py) put trees around
it.
"""


@cython.final
@cython.binding(False)
cdef class Trace:
    """Between some arguments and the results computed from them.

    Parameters
    ----------
    name : str
        Of the transformation, for messages.
    values : list
        Floats, arrays or Tensors.
    places : list of str
        How messages call each of them.
    tangents : list, optional
        Tangents for forward mode in constant memory; the operations are then forgotten as soon as
        they have been differentiated.
    keep : bool
        Keep the values of all operations and all constants, for those who read the graph.
    """
    cdef readonly str name
    cdef list values            # as they were given
    cdef list inputs            # Argument of each
    cdef readonly list arguments    # Tensor of each, to call the function with; then None
    cdef list outputs           # Tensors and, for results that are none, what they are
    cdef list ends              # Argument of each Tensor among them: they may be assigned to
    cdef Tensor floor
    cdef Subgraph graph
    cdef int depth              # at which the results are wanted
    cdef bint tensors           # some value is a Tensor
    cdef bint streaming
    cdef int before             # whether nothing was recorded outside
    cdef readonly bint reached  # in a stream: a tangent has reached a result
    cdef bint keep
    cdef list kept
    cdef FgTape *holds          # inside a stream: the tape, which then leaves operations alone
    cdef uint32_t stream        # ... and which one that is

    def __cinit__(self, str name, list values, list places, list tangents=None, bint keep=False):
        cdef int i
        cdef Tensor t
        if name is None or values is None or places is None or len(places) != len(values) or (
                tangents is not None and len(tangents) != len(values)):
            raise ValueError("Trace: values, places and tangents are lists of one length")
        self.name = name
        self.values = values
        self.inputs = []
        self.arguments = []
        self.depth = mode().depth
        self.before = mode().not_recording
        self.tensors = False
        self.keep = keep
        for v in values:
            self.tensors = self.tensors or isinstance(v, Tensor)
        if self.depth or parameters:
            self.floor = floor_node()
        if tape_of_thread().streaming and tangents is None:
            self.holds = tape_of_thread()
            self.holds.held += 1
            self.stream = self.holds.stream
        for i in range(len(values)):
            t = argument_leaf(values[i], f"{name}: {places[i]}")
            if tangents is not None:
                t = dual_new(t, tangents[i])
                if PyArray_Check(values[i]):
                    point_made(t)
            self.arguments.append(t)
            self.inputs.append(argument_of(t))

    def __dealloc__(self):
        if self.holds != NULL:
            self.holds.held -= 1
            tape_forget(self.holds)

    # ---- running the function ---------------------------------------------------------------

    def begin(self):
        """Before the function is called."""
        if self.keep:
            if get_keeping():
                raise RuntimeError(f"{self.name}: the function reads the graph of another one")
            self.kept = []
            mode().kept = <void *>self.kept
        mode().depth = self.depth + 1
        mode().not_recording = 0

    def end(self):
        """After it, in any case."""
        self.stream_end()
        mode().depth = self.depth
        mode().not_recording = self.before
        self.arguments = None
        if self.kept is not None and mode().kept == <void *>self.kept:
            mode().kept = NULL

    def results(self, list outputs):
        """Tell what the function returned, flat."""
        cdef Tensor t
        if outputs is None:
            raise TypeError("results: give a list")
        self.outputs = []
        self.ends = []
        for y in outputs:
            if isinstance(y, Tensor):
                t = <Tensor>y
                t.fresh()
                if t.tape != NULL and t.tape != get_thread_tape():
                    raise thread_error(t.tape)
            self.outputs.append(y)
            self.ends.append(argument_of(t) if isinstance(y, Tensor) else None)

    def plain(self):
        """The results as the plain function would have returned them; inside another
        transformation as they are."""
        self.ready(None)
        if mode().depth:
            return list(self.outputs)
        return [settle(y) for y in self.outputs]

    @property
    def shapes(self):
        """The shapes of the results."""
        self.ready(None)
        return [np.shape(plain(y)) if not isinstance(y, Tensor) else tensor_dims((<Tensor>y).node)
                for y in self.outputs]

    @property
    def input_shapes(self):
        """The shapes of the arguments."""
        return [tensor_dims((<Argument>x).node) for x in self.inputs]

    @property
    def input_dtypes(self):
        """The dtypes of the arguments."""
        return [dtypes[(<Argument>x).node.dtype] for x in self.inputs]

    cdef int ready(self, list given, bint arguments=False) except -1:
        """Complain unless the function has been run, and there is one value for each of its results
        (or arguments)."""
        if self.outputs is None:
            raise RuntimeError(f"{self.name}: the function has not been run yet")
        if given is not None and len(given) != len(self.values if arguments else self.outputs):
            raise ValueError(f"{self.name}: {len(given)} values for "
                             f"{len(self.values if arguments else self.outputs)}")
        return 0

    cdef Subgraph subgraph(self):
        cdef list roots
        cdef FgTape *tape
        if self.holds != NULL and (not self.holds.streaming or self.holds.stream != self.stream):
            raise RuntimeError(
                f"{self.name}: this function was made inside a function that fg.jvp differentiated, "
                "which forgets its operations at the end; call it inside that function")
        roots = [y for y in self.ends if y is not None
                 and (<Argument>y).node.flags & FG_NEEDS_GRAD]
        for y in roots:
            tape = directory[(<Argument>y).id >> FG_SEGMENT_BITS].tape
            if tape != NULL and tape != get_thread_tape():
                raise thread_error(tape)
        if self.graph is None:
            self.graph = subgraph(roots, self.inputs, self.floor.id if self.floor is not None
                                  else FG_NO_ID)
        return self.graph

    cdef bint recorded(self, Subgraph g, list seeds):
        """Whether a sweep has to be recorded itself."""
        if mode().recorder != NULL:
            return True
        if not get_recording() or not (mode().depth or self.tensors):
            return False
        for x in seeds:
            if isinstance(x, Tensor) and (<Tensor>x).node.flags & FG_NEEDS_GRAD:
                return True
        return g.found & (FOUND_OUTER | FOUND_PARAMETER) != 0

    # ---- reverse ----------------------------------------------------------------------------

    def pull(self, list cotangents, Tensor finite=None):
        """Gradients of the inner product of the results with these: one for each argument. A
        cotangent may be None: zero; the others are of the shape of their result. `finite`: whether
        the result of the sweep is that this is a part of; None: it is none."""
        self.ready(cotangents)
        if cotangents is None:
            raise TypeError("pull: give a list")
        cdef Subgraph g = self.subgraph()
        cdef Sweep s
        cdef Argument x, y
        cdef Tensor c
        cdef list answer = []
        cdef Visited visited
        cdef bint tensors = mode().depth > 0
        cdef Gathered *e
        cdef FgAdjoint zero
        cdef int i
        cdef int before = mode().not_recording
        cotangents = [None if v is None or not self.differentiable(k)
                      else self.seed(v, k) for k, v in enumerate(cotangents)]
        if finite is None:
            finite = finite_from(self.ends, cotangents)
        if g.found & FOUND_CUSTOM or finite is not None or self.recorded(g, cotangents):
            if not self.recorded(g, cotangents):
                mode().not_recording = 1
            try:
                g.clear()
                g.finite = finite
                for i in range(len(cotangents)):
                    if cotangents[i] is not None:
                        g.add((<Argument>self.ends[i]).id, cotangents[i])
                emit_reverse(g)
                for i in range(len(self.inputs)):
                    x = self.inputs[i]
                    answer.append(derivative_object(self.values[i], x.node, g.get(x.id), tensors))
                g.clear()
            finally:
                mode().not_recording = before
            return answer
        visited_begin(&visited)
        zero.number = 0
        zero.value = NULL
        sweep_begin(&s, tape_of_thread(), True)
        s.rules = True
        try:
            for x in self.inputs:
                x.node.flags |= FG_WANTED
            if g.found:
                # There is more to reach than the arguments: only what leads to these counts.
                s.bare = True
                for i in range(len(cotangents)):
                    y = self.ends[i]
                    if cotangents[i] is not None and not y.node.flags & FG_LEAF:
                        mark(&s, y.id)
                sweep_survey(&s, &visited, self.inputs,
                             self.floor.id if self.floor is not None else FG_NO_ID)
            for i in range(len(cotangents)):
                if cotangents[i] is None:
                    continue
                y, c = self.ends[i], cotangents[i]
                if not wanted(&s, y.id):
                    continue
                if y.node.rank:
                    contribute_value(&s, y.id, value_ref(value_of(c.node, c.id)))
                else:
                    contribute_number(&s, y.id, c.node.re)
            sweep_run(&s)
            for i in range(len(self.inputs)):
                x = self.inputs[i]
                e = gathered_at(&s, x.id)
                if tensors:
                    answer.append(adjoint_tensor(x.node, &e.adjoint if e.id else &zero))
                else:
                    answer.append(adjoint_object(self.values[i], x.node,
                                                 &e.adjoint if e.id else &zero))
        finally:
            for x in self.inputs:
                x.node.flags &= ~FG_WANTED
            visited_clear(&visited)
            sweep_end(&s)
        return answer

    def independent(self):
        """Whether no result depends on any argument."""
        cdef Subgraph g
        self.ready(None)
        for y in self.ends:
            if (y is not None and (<Argument>y).node.flags & FG_NEEDS_GRAD
                    and not by_steps_alone((<Argument>y).id)):
                break
        else:
            return True
        g = self.subgraph()
        for x in self.inputs:
            if g.find((<Argument>x).id) != NULL:
                return False
        return True

    def differentiable(self, int k):
        """Whether result k depends on anything that is recorded."""
        if self.ends is None or not 0 <= k < len(self.ends):
            raise IndexError(f"{self.name}: there is no result {k}")
        return (self.ends[k] is not None
                and (<Argument>self.ends[k]).node.flags & FG_NEEDS_GRAD != 0)

    cdef Tensor seed(self, object c, int k):
        """A cotangent as a Tensor of the dtype of its result."""
        cdef Argument y = self.ends[k]
        cdef Tensor t = c if isinstance(c, Tensor) else constant_like(c, y.node)
        t.fresh()
        return t if t.node.dtype == y.node.dtype else cast(t, dtypes[y.node.dtype])

    # ---- forward ----------------------------------------------------------------------------

    def push(self, list tangents, Tensor finite=None):
        """The tangents of the results for tangents of the arguments (None: zero). `finite`: as of
        `pull`."""
        self.ready(tangents, True)
        if tangents is None:
            raise TypeError("push: give a list")
        cdef Subgraph g = self.subgraph()
        cdef Tensor t, y
        cdef list answer = []
        cdef list found, others = None
        cdef int i
        cdef int before = mode().not_recording
        cdef bint tensors = mode().depth > 0
        tangents = [None if v is None else self.tangent(v, k) for k, v in enumerate(tangents)]
        wild = finite is None and (mode().recorder != NULL or not self.results_finite())
        if not self.recorded(g, tangents) and not tensors and finite is None and not wild:
            return self.push_numbers(tangents)
        if not self.recorded(g, tangents):
            mode().not_recording = 1
        try:
            found = self.pushed(g, tangents, finite)
            if wild:
                others = self.pushed(g, tangents, scalar_constant(0, FG_BOOL, 0))
            for i in range(len(self.outputs)):
                if not isinstance(self.outputs[i], Tensor) or not is_float(
                        (<Tensor>self.outputs[i]).node.dtype):
                    answer.append(None)
                    continue
                y, t = self.outputs[i], found[i]
                if wild and others[i] is not None:
                    t = settled_by(y, zeros_like_node(y.node) if t is None else t, others[i])
                if tensors or self.recorded(g, tangents):
                    answer.append(derivative_object(y, y.node, t, True))
                else:
                    answer.append(derivative_object(
                        0.0 if type(settle_kind(y)) is float else settle(y), y.node, t, False))
        finally:
            mode().not_recording = before
        return answer

    cdef list pushed(self, Subgraph g, list tangents, Tensor finite):
        """The tangents of the results as Tensors (None: zero)."""
        cdef list found
        cdef int i
        g.clear()
        g.finite = finite
        for i in range(len(tangents)):
            if tangents[i] is not None:
                g.put((<Argument>self.inputs[i]).id, tangents[i])
        emit_forward(g)
        found = [g.get((<Argument>self.ends[i]).id) if self.differentiable(i) else None
                 for i in range(len(self.outputs))]
        g.clear()
        return found

    def columns(self, list tangents not None):
        """As `push`, of a Jacobian: where a result is not finite, its row comes from a reverse sweep,
        see `rows`."""
        self.ready(tangents, True)
        cdef Subgraph g = self.subgraph()
        cdef int before = mode().not_recording
        tangents = [None if v is None else self.tangent(v, k) for k, v in enumerate(tangents)]
        if not self.recorded(g, tangents):
            mode().not_recording = 1
        try:
            return self.pushed(g, tangents, None)
        finally:
            mode().not_recording = before

    def rows(self, int k, Tensor forward not None, Tensor reverse not None):
        """A block of the Jacobian of result k, ``out.shape + in.shape``, from both modes."""
        self.ready(None)
        if not self.differentiable(k):
            return forward
        cdef Tensor y = self.outputs[k]
        shape = y.shape + (1,) * (forward.ndim - y.ndim)
        return settled_by(reshape_plain(y.detach(), shape), forward, reverse)

    def results_finite(self):
        """Whether all entries of all results are."""
        self.ready(None)
        for y in self.ends:
            if y is not None and not node_finite((<Argument>y).node, (<Argument>y).id, NULL):
                return False
        return True

    cdef Tensor tangent(self, object v, int k):
        """A tangent as a Tensor of the dtype of its argument."""
        cdef Argument x = self.inputs[k]
        cdef Tensor t = v if isinstance(v, Tensor) else constant_like(v, x.node)
        t.fresh()
        return t if t.node.dtype == x.node.dtype else cast(t, dtypes[x.node.dtype])

    cdef list push_numbers(self, list tangents):
        """The same outside of every other transformation: plain numbers and arrays."""
        cdef list lanes = [None if v is None else np.asarray(tensor_ndarray(v))[None] for v in tangents]
        return [None if a is None else a[0] if np.ndim(a) > 1 else a[0].item()
                if type(settle_kind(y)) is float else a[0]
                for a, y in zip(self.push_lanes(lanes, 1), self.outputs)]

    def push_lanes(self, list tangents, int lanes):
        """Several tangents at once, one sweep: arrays with one more axis, in front, for tangents
        and answer (None: zero, or a result without derivative)."""
        self.ready(tangents, True)
        if tangents is None:
            raise TypeError("push_lanes: give a list")
        cdef Subgraph g = self.subgraph()
        cdef Tangents s
        cdef Argument x
        cdef FgAdjoint *a
        cdef FgAdjoint t
        cdef FgValue **bundle
        cdef Operand o
        cdef Argument y
        cdef list answer = []
        cdef int i, l
        cdef int before = mode().not_recording
        cdef object array, out
        unreplayable(f"{self.name} computes several tangents at once")
        if lanes < 1:
            raise ValueError(f"{self.name}: there must be at least one tangent")
        mode().not_recording = 1
        try:
            if get_thread_tape() != NULL and get_thread_tape().waiting:
                run_flush_needed(get_thread_tape())
            g.clear()
            s = Tangents(g, lanes)
            for i in range(len(self.inputs)):
                x = self.inputs[i]
                if tangents[i] is None or g.find(x.id) == NULL:
                    continue
                array = np.ascontiguousarray(tangents[i], dtype=np.float64 if x.node.rank == 0
                                             else dtypes[x.node.dtype])
                lanes_seed(s, x.node, x.id, array)
            for y in self.ends:
                if y is not None:
                    s.keep(y.id)
            tangent_sweep(s)
            for i in range(len(self.outputs)):
                if not isinstance(self.outputs[i], Tensor) or not is_float(
                        (<Tensor>self.outputs[i]).node.dtype):
                    answer.append(None)
                    continue
                y = self.ends[i]
                answer.append(lanes_array(y.node, s.at(y.id), lanes))
            g.clear()
        finally:
            mode().not_recording = before
        return answer

    # ---- forward in constant memory ---------------------------------------------------------

    def stream_begin(self):
        """Before the function is called with arguments that carry tangents."""
        cdef FgTape *tape = tape_of_thread()
        tape.streaming = self.depth + 1
        tape.streamed = tape.last.sequence if tape.last != NULL else 0
        tape.stream_bytes = 0
        tape.stream_reach = FG_REACH_NONE
        self.streaming = True
        for x in self.inputs:
            tape.stream_reach = fg_reach_both(tape.stream_reach, reach_of((<Argument>x).node))
            tape.streamed = min_sequence(tape.streamed,
                                         directory[(<Argument>x).id >> FG_SEGMENT_BITS].sequence)

    def stream_results(self):
        """After it, before `end`: the tangents of the results (None: not differentiable)."""
        cdef FgTape *tape = tape_of_thread()
        cdef Tensor y
        cdef list answer = []
        cdef FgAdjoint *t
        self.ready(None)
        try:
            stream_flush(tape, True)
        finally:
            self.stream_end()
        for o in self.outputs:
            if not isinstance(o, Tensor) or not is_float((<Tensor>o).node.dtype):
                answer.append(None)
                continue
            y = o
            t = stream_tangent(tape, y.id) if y.tape != NULL else NULL
            self.reached = self.reached or t != NULL and not y.node.flags & FG_STEPPED
            array = lanes_array(y.node, t, 1)[0]
            if t != NULL:
                array = second_settled(y.node, array)
            answer.append(float(array) if y.node.rank == 0 and y.node.flags & FG_WEAK else array)
        return answer

    def stream_end(self):
        """Stop streaming, in any case."""
        if self.streaming:
            tape_of_thread().streaming = 0
            self.streaming = False

    # ---- for people -------------------------------------------------------------------------

    def nodes(self):
        """The recorded operations from the arguments to the results, oldest first.

        Returns
        -------
        list of Node
            The first ones stand for the arguments.
        list
            For each result the number of its node, or None where it does not depend on them.
        """
        return graph_nodes(self)


cdef inline uint64_t min_sequence(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


def stream_new():
    """Begin another forward transformation of this thread."""
    global streams
    streams += 1
    tape_of_thread().stream = streams


cdef Tensor constant_like(object value, FgNode *n):
    """A cotangent or tangent of a node as a Tensor, a copy."""
    cdef Tensor t = tensor_constant(np.array(value))
    if t.node.rank == 0 and is_float(t.node.dtype):
        t.node.flags |= n.flags & FG_WEAK
    return t


cdef object settle_kind(object y):
    """A result's plain kind: 0.0 for a weak scalar."""
    if isinstance(y, Tensor) and (<Tensor>y).node.rank == 0 and (<Tensor>y).node.flags & FG_WEAK:
        return 0.0
    return None


cdef int lanes_seed(Tangents s, FgNode *n, uint32_t id, object array) except -1:
    """Put an array of tangents, one a lane, at a node."""
    cdef int lanes = s.lanes
    cdef int l
    cdef FgAdjoint *t
    cdef FgValue *v
    cdef FgValue *whole
    cdef Operand o
    cdef FgValue **bundle
    cdef int64_t nbytes
    if n.rank == 0:
        v = NULL
        if lanes > 1:
            v = pool_take(lanes * 8)
            memcpy(v.data, PyArray_DATA(<ndarray>array), lanes * 8)
        t = s.place(id)
        if lanes > 1:
            t.value = v
        else:
            t.number = (<double *>PyArray_DATA(<ndarray>array))[0]
        return 0
    nbytes = n.shape.size * item_size(n.dtype)
    whole = pool_take(nbytes * lanes)
    try:
        memcpy(whole.data, PyArray_DATA(<ndarray>array), nbytes * lanes)
        if lanes == 1:
            s.place(id).value = value_ref(whole)
            return 0
        v = bundle_new(lanes)
        bundle = <FgValue **>v.data
        s.place(id).value = v
        for l in range(lanes):
            bundle[l] = value_view(whole, whole.data + l * nbytes, n.rank, NULL, True)
    finally:
        value_release(whole)
    return 0


cdef object lanes_array(FgNode *n, FgAdjoint *t, int lanes):
    """The tangents of a node as one array, lanes in front."""
    cdef object out = np.zeros((lanes,) + tensor_dims(n), dtype=dtypes[n.dtype])
    cdef char *p = <char *>PyArray_DATA(<ndarray>out)
    cdef int l
    cdef FgValue *v
    cdef int64_t nbytes
    if t == NULL:
        return out
    if n.rank == 0:
        for l in range(lanes):
            number_store(p + l * item_size(n.dtype), lane_number(t, l, lanes), n.dtype)
        return out
    nbytes = n.shape.size * item_size(n.dtype)
    for l in range(lanes):
        v = lane_value(t, l, lanes)
        if v != NULL:
            copy_into(n.shape, v, n.dtype, p + l * nbytes)
    return out
