"""What a call of a program looks at before its plan runs: is everything that the function reaches
still what it was?"""

from cpython.dict cimport PyDict_Size
from cpython.object cimport PyObject_RichCompareBool, Py_EQ
from libc.string cimport memcmp
from numpy cimport PyArray_NBYTES

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object, object) except? NULL
    PyObject *PyCell_GET(object)
    PyObject *PyList_GET_ITEM(object, Py_ssize_t)
    Py_ssize_t PyList_GET_SIZE(object)
    bint PyFloat_CheckExact(object)
    double PyFloat_AS_DOUBLE(object)
    bint PyList_Check(object)
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    ctypedef struct PyFunctionObject:
        PyObject *func_code
        PyObject *func_defaults

# Stands for a name that is not there.
ABSENT = object()

# One comparison of identity. What the kinds mean is said in _watch.py, which makes them.
cdef enum:
    CHECK_DICT, CHECK_CELL, CHECK_LIST, CHECK_LENGTH, CHECK_ATTR, CHECK_TYPE, CHECK_EQUAL,
    CHECK_FUNCTION, CHECK_BYTES

cdef struct Check:
    int kind
    int slot                # which of the captured arrays this is, or -1
    Py_ssize_t number
    PyObject *holder
    PyObject *key
    PyObject *expected

cdef object EXACT = frozenset([int, str, bytes])


@cython.final
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
    cdef readonly list captured

    def __cinit__(self, list entries, list captured):
        cdef Check *c
        cdef Py_ssize_t i = 0
        self.kept = []
        self.captured = captured
        self.checks = <Check *>PyMem_Malloc((len(entries) + 1) * sizeof(Check))
        if self.checks == NULL:
            raise MemoryError()
        for kind, holder, key, expected, slot in entries:
            c = &self.checks[i]
            c.kind, c.slot, c.number = kind, slot, 0
            if kind == CHECK_LIST or kind == CHECK_LENGTH:
                c.number = key
            self.kept.append((holder, key))
            self.kept.append(expected)
            c.holder, c.key = <PyObject *>holder, <PyObject *>key
            c.expected = NULL if expected is ABSENT else <PyObject *>expected
            i += 1
        self.count = i

    def __dealloc__(self):
        PyMem_Free(self.checks)

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
        for i in range(self.count):
            c = &self.checks[i]
            if c.kind == CHECK_DICT:
                found = PyDict_GetItemWithError(<object>c.holder, <object>c.key)
            elif c.kind == CHECK_CELL:
                found = PyCell_GET(<object>c.holder)
            elif c.kind == CHECK_LIST:
                if c.number >= PyList_GET_SIZE(<object>c.holder):
                    return False
                found = PyList_GET_ITEM(<object>c.holder, c.number)
            elif c.kind == CHECK_LENGTH:
                if (PyList_GET_SIZE(<object>c.holder) if PyList_Check(<object>c.holder)
                        else PyDict_Size(<object>c.holder)) != c.number:
                    return False
                continue
            elif c.kind == CHECK_TYPE:
                found = PyDict_GetItemWithError(<object>(<PyTypeObject *>c.holder).tp_dict,
                                                <object>c.key)
            elif c.kind == CHECK_ATTR:
                made = getattr(<object>c.holder, <object>c.key, ABSENT)
                found = NULL if made is ABSENT else <PyObject *>made
                if found != c.expected and not self.accept(i, found):
                    return False
                continue
            elif c.kind == CHECK_EQUAL:
                if not PyObject_RichCompareBool(<object>c.holder, <object>c.expected, Py_EQ):
                    return False
                continue
            elif c.kind == CHECK_FUNCTION:
                if ((<PyFunctionObject *>c.holder).func_code != c.key
                        or object_or_none((<PyFunctionObject *>c.holder).func_defaults)
                        != c.expected):
                    return False
                continue
            else:
                if not same_bytes(<object>c.holder, <object>c.expected):
                    return False
                continue
            if found != c.expected and not self.accept(i, found):
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


cdef bint same_bytes(object a, ndarray copy) except -1:
    """Whether an array or a Tensor holds what it held."""
    if type(a) is not np.ndarray:
        a = a.numpy()
    if not same_kind(a, copy):
        return False
    if not PyArray_IS_C_CONTIGUOUS(a):
        a = np.ascontiguousarray(a)
    return memcmp(PyArray_DATA(<ndarray>a), PyArray_DATA(copy), PyArray_NBYTES(copy)) == 0
