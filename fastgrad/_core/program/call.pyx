"""Calls of programs: the short way from arguments to results.

`Checks` tells whether everything that a function reaches is still what it was. `Entry` holds what
one recorded path takes and returns: if the arguments are of that kind, and the checks hold, its
plan runs at once. `Caller`, the base class of fastgrad.Program, tries the entries it was given, and
leaves every other call to Python.
"""

from cpython.dict cimport PyDict_Size
from cpython.object cimport PyObject_RichCompareBool, Py_EQ
from libc.string cimport memcmp
from numpy cimport PyArray_NBYTES

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object, object) except? NULL
    PyObject *PyCell_GET(object)
    Py_ssize_t PyList_GET_SIZE(object)
    bint PyList_Check(object)
    ctypedef struct PyTypeObject:
        Py_ssize_t tp_vectorcall_offset
        unsigned long tp_flags
        unsigned int tp_version_tag
    PyTypeObject *Py_TYPE(PyObject *)
    object PyObject_GenericGetDict(object, void *)
    unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    void PyType_Modified(PyTypeObject *)
    Py_ssize_t PyVectorcall_NARGS(size_t)
    bint PyDict_Next(object, Py_ssize_t *, PyObject **, PyObject **)
    Py_ssize_t PyTuple_GET_SIZE(object)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    ctypedef struct PyFunctionObject:
        PyObject *func_code
        PyObject *func_defaults
        PyObject *func_kwdefaults

from types import CellType, FunctionType

# Stands for a name that is not there.
ABSENT = object()

# One comparison, of identity but for the last kinds. code/watch.py makes them.
cdef enum:
    CHECK_DICT          # holder[key] is expected
    CHECK_CELL          # so are the contents of a cell,
    CHECK_LIST          # an entry of a list,
    CHECK_LENGTH        # (the length of a list or a dictionary)
    CHECK_ATTR          # and an attribute
    CHECK_BYTES         # an array holds what it held
    CHECK_FUNCTION      # a function's code and defaults
    CHECK_KEYWORDS      # and its defaults of arguments by name
    CHECK_VERSION       # nothing was bound in a class or its bases
    CHECK_INSTANCE      # an object's class, and which dictionary it has, how long; key is both
    CHECK_KEYS          # the keys of a dictionary, in order
    CHECK_CALL          # key(holder) equals what is expected

cdef struct Check:
    int kind
    int slot                # which of the captured arrays this is, or -1
    Py_ssize_t number
    PyObject *holder
    PyObject *key
    PyObject *expected

cdef object EXACT = frozenset([int, str, bytes])


cdef tuple HOLDERS = (dict, CellType, list, (list, dict), object, (np.ndarray, core.Tensor),
                      FunctionType, FunctionType, type, object, dict, object)


def version_of(kind):
    """A number that changes whenever something is bound in a class or in one of its bases; 0 where
    CPython has given none."""
    if not isinstance(kind, type):
        raise TypeError(f"version_of: takes a class, not a {type(kind).__name__}")
    try:                                # a class gets its number when something is looked up in it
        type.__getattribute__(kind, "no such attribute")
    except AttributeError:
        pass
    return (<PyTypeObject *>kind).tp_version_tag


cdef int check_entry(kind, holder, key, expected, slot, Py_ssize_t captured) except -1:
    """What `hold` reads is of the types that it takes for granted."""
    if not 0 <= kind < len(HOLDERS) or not isinstance(holder, HOLDERS[kind]):
        raise TypeError(f"Checks: no check of kind {kind!r} is of a {type(holder).__name__}")
    if (kind == CHECK_LIST or kind == CHECK_LENGTH or kind == CHECK_VERSION) and (
            type(key) is not int or key < 0):
        raise TypeError(f"Checks: the place in a list is {key!r}")
    if kind == CHECK_INSTANCE and not (type(key) is tuple and len(key) == 2 and isinstance(
            key[0], type) and type(key[1]) is int and (expected is None or type(expected) is dict)):
        raise TypeError("Checks: an object is compared with (class, length) and its dictionary")
    if kind == CHECK_BYTES and type(expected) is not np.ndarray:
        raise TypeError("Checks: contents are compared with an array")
    if kind == CHECK_KEYS and type(key) is not tuple:
        raise TypeError("Checks: keys are compared with a tuple")
    if type(slot) is not int or not -1 <= slot < captured:
        raise ValueError(f"Checks: there is no captured array {slot!r}")
    return 0


@cython.final
@cython.binding(False)
cdef class Checks:
    """Whether names and attributes are bound to what they were bound to.

    Parameters
    ----------
    entries : list of tuple
        (kind, holder, key, expected object, slot). The slot is the place of a captured array in
        `captured`: another array of the same dtype and shape is accepted there and takes its place;
        -1 for all else, where only the same object will do, or an equal number or string.
    captured : list
        The arrays that are read again.
    """
    cdef Check *checks
    cdef Py_ssize_t count
    cdef list kept              # what the checks point to
    cdef list shapes            # of what is captured, None for Tensors
    cdef readonly list captured

    def __cinit__(self, list entries, list captured):
        cdef Check *c
        cdef Py_ssize_t i
        self.kept = []
        if entries is None or captured is None:
            raise TypeError("Checks: entries and captured are lists")
        entries = list(entries)
        self.captured = captured
        self.shapes = [x.shape if type(x) is np.ndarray else None for x in captured]
        self.checks = <Check *>fg_malloc((len(entries) + 1) * sizeof(Check))
        if self.checks == NULL:
            raise MemoryError()
        for i, (kind, holder, key, expected, slot) in enumerate(entries):
            check_entry(kind, holder, key, expected, slot, len(captured))
            c = &self.checks[i]
            c.kind, c.slot, c.number = kind, slot, 0
            if kind == CHECK_LIST or kind == CHECK_LENGTH or kind == CHECK_VERSION:
                c.number = key
            self.kept.append((holder, key))
            self.kept.append(expected)
            c.holder, c.key = <PyObject *>holder, <PyObject *>key
            if kind == CHECK_INSTANCE:
                c.key, c.number = <PyObject *>key[0], key[1]
            c.expected = NULL if expected is ABSENT else <PyObject *>expected
        self.count = len(entries)

    def __dealloc__(self):
        fg_free(self.checks)

    def __len__(self):
        return self.count

    def holds(self):
        """Whether everything is as it was."""
        return self.hold()

    cdef bint hold(self) except -1:
        cdef Py_ssize_t i
        cdef Check *c
        cdef PyObject *found
        cdef object made
        cdef bint same
        for i in range(self.count):
            c = &self.checks[i]
            if c.kind <= CHECK_ATTR and c.kind != CHECK_LENGTH:
                if c.kind == CHECK_DICT:
                    found = PyDict_GetItemWithError(<object>c.holder, <object>c.key)
                elif c.kind == CHECK_CELL:
                    found = PyCell_GET(<object>c.holder)
                elif c.kind == CHECK_LIST:
                    if c.number >= PyList_GET_SIZE(<object>c.holder):
                        return False
                    found = PyList_GET_ITEM(<object>c.holder, c.number)
                else:
                    made = getattr(<object>c.holder, <object>c.key, ABSENT)
                    found = NULL if made is ABSENT else <PyObject *>made
                same = found == c.expected or self.accept(i, found)
            elif c.kind == CHECK_LENGTH:
                same = (PyList_GET_SIZE(<object>c.holder) if PyList_Check(<object>c.holder)
                        else PyDict_Size(<object>c.holder)) == c.number
            elif c.kind == CHECK_FUNCTION:
                same = ((<PyFunctionObject *>c.holder).func_code == c.key and object_or_none(
                    (<PyFunctionObject *>c.holder).func_defaults) == c.expected)
            elif c.kind == CHECK_VERSION:
                same = c.number and (
                    (<PyTypeObject *>c.holder).tp_version_tag == <unsigned int>c.number)
            elif c.kind == CHECK_INSTANCE:
                same = <PyObject *>Py_TYPE(c.holder) == c.key
                if same and c.expected != <PyObject *>None:
                    made = PyObject_GenericGetDict(<object>c.holder, NULL)
                    same = <PyObject *>made == c.expected and PyDict_Size(made) == c.number
            elif c.kind == CHECK_KEYS:
                same = same_keys(<object>c.holder, <tuple><object>c.key)
            elif c.kind == CHECK_KEYWORDS:
                same = object_or_none((<PyFunctionObject *>c.holder).func_kwdefaults) == c.expected
            elif c.kind == CHECK_CALL:
                made = (<object>c.key)(<object>c.holder)
                same = PyObject_RichCompareBool(made, <object>c.expected, Py_EQ)
            else:
                same = same_bytes(<object>c.holder, <object>c.expected)
            if not same:
                return False
        for i in range(PyList_GET_SIZE(self.captured)):
            found = PyList_GET_ITEM(self.captured, i)
            if <PyObject *>PyList_GET_ITEM(self.shapes, i) != <PyObject *>None and not same_shape(
                    <ndarray>found, <tuple>PyList_GET_ITEM(self.shapes, i)):
                return False
        return True

    cdef bint accept(self, Py_ssize_t i, PyObject *found) except -1:
        """Whether another object will do as well; it takes the place of the one before."""
        cdef Check *c = &self.checks[i]
        cdef double a, b
        cdef object new, old
        if found == NULL or c.expected == NULL:
            return False
        new, old = <object>found, <object>c.expected
        if type(new) is not type(old):
            return False
        if c.slot >= 0:
            if type(new) is not np.ndarray or not same_kind(new, old):
                return False
            self.captured[c.slot] = new
        elif PyFloat_CheckExact(new):
            a, b = PyFloat_AS_DOUBLE(new), PyFloat_AS_DOUBLE(old)
            if memcmp(&a, &b, sizeof(double)) != 0:
                return False
        elif type(new) not in EXACT or not new == old:
            return False
        self.kept[2 * i + 1] = new
        c.expected = found
        return True


cdef bint same_keys(object d, tuple keys) except -1:
    """Whether a dictionary has these keys, in this order."""
    cdef Py_ssize_t at = 0, k, count = PyTuple_GET_SIZE(keys)
    cdef PyObject *key
    cdef PyObject *value
    cdef PyObject *wanted
    if PyDict_Size(d) != count:
        return False
    for k in range(count):
        if not PyDict_Next(d, &at, &key, &value):
            return False
        wanted = PyTuple_GET_ITEM(keys, k)
        if key != wanted and (type(<object>key) is not type(<object>wanted)
                              or type(<object>key) not in EXACT or <object>key != <object>wanted):
            return False
    return True


cdef inline PyObject *object_or_none(PyObject *o) noexcept:
    return <PyObject *>None if o == NULL else o


cdef bint same_kind(ndarray a, ndarray b) noexcept:
    """Whether two arrays have the same dtype and shape."""
    cdef int k
    if PyArray_TYPE(a) != PyArray_TYPE(b) or PyArray_NDIM(a) != PyArray_NDIM(b):
        return False
    for k in range(PyArray_NDIM(a)):
        if PyArray_DIMS(a)[k] != PyArray_DIMS(b)[k]:
            return False
    return True


cdef bint same_shape(ndarray a, tuple shape) except -1:
    """Whether an array, whose shape may be assigned to, still has the one it had."""
    cdef int k
    if PyArray_NDIM(a) != len(shape):
        return False
    for k in range(PyArray_NDIM(a)):
        if PyArray_DIMS(a)[k] != <Py_ssize_t>shape[k]:
            return False
    return True


cdef bint same_bytes(object a, ndarray copy) except -1:
    """Whether an array or a Tensor holds what it held."""
    if type(a) is not np.ndarray:
        a = a.numpy()
    if not same_kind(a, copy):
        return False
    if not PyArray_IS_C_CONTIGUOUS(a):
        a = np.ascontiguousarray(a)
    return memcmp(PyArray_DATA(<ndarray>a), PyArray_DATA(copy), PyArray_NBYTES(copy)) == 0


# ---- arguments and results ------------------------------------------------------------------

cdef enum:
    PART_ARRAY, PART_SCALAR, PART_STATIC, PART_TUPLE, PART_LIST, PART_DICT, PART_NONE
    PART_OTHER


@cython.final
cdef class Part:
    """A part of a tree: a leaf, or a branch of parts. Of arguments a leaf says what is taken there;
    of results `number` tells which output stands there, or -1 for `value`."""
    cdef int kind
    cdef int dtype
    cdef int number
    cdef bint ordered           # an array: in C's order alone
    cdef tuple shape
    cdef object value           # static; the type of a number; the branch of what is none of these
    cdef tuple keys
    cdef list parts


def leaf_part(kind):
    """What is taken at a leaf: "float", the character of a scalar's dtype, (character, shape, whether
    in C's order alone) of an array, or a list with the one object that will do."""
    cdef Part p = Part.__new__(Part)
    if type(kind) is list or type(kind) is tuple:
        if len(kind) != (1 if type(kind) is list else 3):
            raise ValueError(f"leaf_part: {kind!r} is no part")
    if type(kind) is list:
        p.kind, p.value = PART_STATIC, kind[0]
    elif type(kind) is tuple:
        p.kind, p.dtype, p.shape, p.ordered = PART_ARRAY, np.dtype(kind[0]).num, kind[1], kind[2]
    else:
        p.kind, p.value = PART_SCALAR, float if kind == "float" else np.dtype(kind).type
    return p


def result_part(number, value=None):
    """What is returned at a leaf: an output, or (-1) a value."""
    cdef Part p = Part.__new__(Part)
    p.kind, p.number, p.value = PART_STATIC, number, value
    return p


def branch_part(branch, list parts):
    """A branch (of trees.py) with these parts."""
    cdef Part p = Part.__new__(Part)
    kind = branch.type
    p.kind = (PART_TUPLE if kind is tuple else PART_LIST if kind is list else
              PART_DICT if kind is dict else PART_NONE if kind is type(None) else PART_OTHER)
    p.keys, p.parts, p.value = branch.keys, parts, branch
    if parts is None or len(parts) != len(p.keys) or any([type(x) is not Part for x in parts]):
        raise TypeError("branch_part: there is one Part for each key")
    return p


cdef int most_results(Part p) except -1:
    """So many results at least there must be."""
    cdef int count = p.number + 1 if p.kind == PART_STATIC and p.parts is None else 0
    for x in p.parts or ():
        count = max(count, most_results(x))
    return count


cdef bint taken(Part p, object x, list values) except -1:
    """Whether x is of that kind; its numbers and arrays go to `values`."""
    cdef int i
    cdef Py_ssize_t at = 0, k = 0
    cdef PyObject *key
    cdef PyObject *value
    if p.kind == PART_SCALAR:
        if type(x) is not p.value:
            return False
        values.append(x)
        return True
    if p.kind == PART_ARRAY:
        if type(x) is not ndarray or PyArray_TYPE(<ndarray>x) != p.dtype:
            return False
        if not same_shape(<ndarray>x, p.shape) or (<object>x).dtype.byteorder == SWAPPED or (
                p.ordered and not PyArray_IS_C_CONTIGUOUS(<ndarray>x)):
            return False
        values.append(x)
        return True
    if p.kind == PART_STATIC:
        return x is p.value
    if p.kind == PART_NONE:
        return x is None
    if p.kind == PART_TUPLE:
        if type(x) is not tuple or len(<tuple>x) != len(p.parts):
            return False
        for i in range(len(<tuple>x)):
            if not taken(<Part>PyList_GET_ITEM(p.parts, i), <object>PyTuple_GET_ITEM(x, i), values):
                return False
        return True
    if p.kind == PART_LIST:
        if type(x) is not list or len(<list>x) != len(p.parts):
            return False
        for i in range(len(p.parts)):
            if i >= len(<list>x) or not taken(<Part>PyList_GET_ITEM(p.parts, i), (<list>x)[i],
                                              values):
                return False
        return True
    if p.kind == PART_DICT:
        if type(x) is not dict or PyDict_Size(x) != len(p.parts):
            return False
        while PyDict_Next(x, &at, &key, &value):
            if key != PyTuple_GET_ITEM(p.keys, k) and not (
                    type(<object>key) is str and <object>key == p.keys[k]):
                return False
            if not taken(<Part>PyList_GET_ITEM(p.parts, k), <object>value, values):
                return False
            k += 1
        return True
    return False


cdef object returned(Part p, list results):
    """The tree of results."""
    cdef int i
    cdef list made
    if p.kind == PART_STATIC:
        return <object>PyList_GET_ITEM(results, p.number) if p.number >= 0 else p.value
    if p.kind == PART_NONE:
        return None
    made = [returned(<Part>PyList_GET_ITEM(p.parts, i), results) for i in range(len(p.parts))]
    if p.kind == PART_LIST:
        return made
    if p.kind == PART_TUPLE:
        return tuple(made)
    if p.kind == PART_DICT:
        return dict(zip(p.keys, made))
    return CLOSE(p.value, made)


from fastgrad._core.trees import close_branch as CLOSE

cdef str SWAPPED = ">" if np.little_endian else "<"     # in dtype.byteorder


# ---- what threads share ---------------------------------------------------------------------

@cython.final
@cython.binding(False)
cdef class Cell:
    """A value that several threads may replace. It is replaced, never changed, so that who has it
    may go through it; there is no lock, so that nobody waits, nor a child of `fork` for ever."""
    cdef readonly object value

    def __init__(self, value):
        self.value = value

    def swap(self, old, new):
        """Put `new` there, unless there is something else than `old` by now; tells whether."""
        if self.value is not old:
            return False
        self.value = new
        return True


@cython.final
@cython.binding(False)
cdef class Tally:
    """A number that several threads count up."""
    cdef readonly int64_t count

    def add(self):
        """One more; the number before."""
        self.count += 1
        return self.count - 1


# ---- paths ----------------------------------------------------------------------------------

@cython.final
cdef class Entry:
    """A recorded path as calls see it.

    Parameters
    ----------
    arguments : list of Part
        What it takes: by position, then by name.
    names : tuple of str
        Of the last ones.
    result : Part
    plan : Plan
    checks : Checks
    lifted : list of (holder, key)
        Where floats that are inputs are found: dictionaries, and cells with None.
    path : Path
    calls : Tally
        Counts the runs.
    """
    cdef list arguments
    cdef tuple names
    cdef Part result
    cdef Plan plan
    cdef Checks checks
    cdef list lifted
    cdef readonly object path
    cdef Tally calls

    def __cinit__(self, list arguments, tuple names, Part result not None, Plan plan not None,
                  Checks checks not None, list lifted or None, path, Tally calls not None):
        if arguments is None or names is None:
            raise TypeError("Entry: arguments is a list and names a tuple, not None")
        if any([type(part) is not Part for part in arguments]):
            raise TypeError("Entry: arguments is a list of Parts")
        if most_results(result) > plan.plan.output_count:
            raise ValueError("Entry: the result has more parts than the plan has outputs")
        for holder, key in lifted or ():
            if not isinstance(holder, CellType if key is None else dict):
                raise TypeError(f"Entry: no float is found in a {type(holder).__name__}")
        self.names = names
        self.arguments, self.result, self.plan, self.checks = arguments, result, plan, checks
        self.lifted, self.path, self.calls = lifted, path, calls

    cdef object attempt(self, PyObject *const *args, Py_ssize_t n, PyObject *names):
        """The result, or NOTHING where this path does not fit."""
        cdef Py_ssize_t i
        cdef list values
        cdef PyObject *found
        cdef object answer
        if names != NULL:
            if <tuple>names != self.names:
                return NOTHING
            n += len(self.names)
        elif len(self.names):
            return NOTHING
        if n != PyList_GET_SIZE(self.arguments):
            return NOTHING
        values = []
        for i in range(n):
            if not taken(<Part>PyList_GET_ITEM(self.arguments, i), <object>args[i], values):
                return NOTHING
        if not self.checks.hold():
            return NOTHING
        if self.lifted is not None:
            for holder, key in self.lifted:
                found = PyCell_GET(holder) if key is None else PyDict_GetItemWithError(holder, key)
                if found == NULL or not PyFloat_CheckExact(<object>found):
                    return NOTHING
                values.append(<object>found)
        for i in range(PyList_GET_SIZE(self.checks.captured)):
            answer = <object>PyList_GET_ITEM(self.checks.captured, i)
            values.append(answer if type(answer) is ndarray else CAPTURED(answer))
        answer = self.plan.run_list(values)
        if type(answer) is int:
            return NOTHING
        self.calls.count += 1
        return returned(self.result, <list>answer)


cdef object NOTHING = object()
cdef object CAPTURED = None


def captured_with(function):
    """Set what makes a value of a captured Tensor."""
    global CAPTURED
    CAPTURED = function


cdef int (*busy)() noexcept nogil
busy = <int (*)() noexcept nogil>PyCapsule_GetPointer(core.BUSY, "fastgrad.busy")

cdef enum:
    ENTRIES = 8


@cython.binding(False)
cdef class Caller:
    """What makes calls of a program short: it tries its entries, then the method `_call`."""
    cdef void *vectorcall           # CPython calls through it, without tuple and dictionary
    cdef list entries               # replaced, never changed; the one used last comes first
    cdef readonly int64_t fast_calls

    def __cinit__(self, *args, **kwargs):
        self.vectorcall = <void *>caller_call
        self.entries = []

    def __call__(self, *args, **kwargs):
        return self._call(args, kwargs)

    def _renew(self, path, Entry entry=None):
        """Try this entry of a path first from now on, and none that it had before."""
        cdef list before, after
        while True:
            before = self.entries
            after = [e for e in before if (<Entry>e).path is not path]
            if entry is not None:
                after = [entry] + after[:ENTRIES - 1]
            if self.entries is before:      # making a list may run the garbage collector, and that
                self.entries = after        # another thread
                return

    def _first_path(self):
        """The path that was used last, or None."""
        return (<Entry>self.entries[0]).path if self.entries else None


def use_vectorcall(type kind):
    """Let a subclass of Caller be called without tuple and dictionary."""
    if kind is None or not issubclass(kind, Caller):
        raise TypeError("use_vectorcall: takes a subclass of Caller")
    cdef Caller c = Caller.__new__(Caller)
    cdef PyTypeObject *t = <PyTypeObject *>kind
    t.tp_vectorcall_offset = <Py_ssize_t>(<char *>&c.vectorcall - <char *><void *>c)
    t.tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL
    PyType_Modified(t)


cdef PyObject *caller_call(PyObject *self, PyObject *const *args, size_t flags,
                           PyObject *names) except NULL:
    """A call with positional arguments side by side, keyword arguments after them."""
    cdef Caller c = <Caller>self
    cdef Py_ssize_t i, n = PyVectorcall_NARGS(flags)
    cdef list entries = c.entries
    cdef object result = NOTHING
    if PyList_GET_SIZE(entries) and not busy():
        for i in range(PyList_GET_SIZE(entries)):
            try:
                result = (<Entry>PyList_GET_ITEM(entries, i)).attempt(args, n, names)
            except Exception:           # `_call` sees it again, and what to do about it
                break
            if result is not NOTHING:
                c.fast_calls += 1
                if i:
                    moved = [entries[i]] + entries[:i] + entries[i + 1:]
                    if c.entries is entries:
                        c.entries = moved
                break
    if result is NOTHING:
        result = c._call(tuple([<object>args[i] for i in range(n)]), {} if names == NULL else {
            name: <object>args[n + i] for i, name in enumerate(<tuple>names)})
    Py_INCREF(result)
    return <PyObject *>result
