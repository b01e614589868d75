# cython: auto_pickle=False
# What Cython makes to pickle a class takes pointers for strings, and any state for a right one.
"""The compiled core of fastgrad: one translation unit, so that gcc can inline across its parts.

A recorded scalar operation is a few dozen instructions spread over tensor/operators.pyx,
tape/elementwise.pyx and memory/segments.pyx; as separate modules each step would be a call through
a pointer table. Read them in this order:

    memory/     pool: buffers; segments: nodes, and how long they live; blocks: element loops over
                strided and broadcast arrays
    tape/       operands; elementwise: recording; recorder: recording for programs; on_values: what
                has no derivative, and a recording as the rows of a graph
    sweeps/     marks, reverse: the reverse sweep; tangent: the tangent sweep; stream: forward mode
                in constant memory; infinite: which zero wins where a result is not finite; colour:
                patterns of sparse derivatives
    rules/      formulas: partial derivatives as recorded operations; emit: both sweeps as recorded
                operations; rules: the table of operators that are not element-wise, each of which
                stands in one of moves, indices, gather, reductions, products, custom; roots: squares
                of roots; blas, linalg: NumPy's matrix product without the call, factors
    tensor/     tensor: the type; making, leaving, views, operators: what is done with it; table,
                functions: the functions behind fastgrad.numpy; rebind: `a += t` of an ndarray;
                decisions: what Python code decided by a value; messages, caller: the user's line
    call/       backward; grad: also value_and_grad; trace: a run that all other transformations hold
    arguments.py, trees.py      what is known of arguments and of trees, in Python
"""

cimport cython
from cpython.object cimport (PyObject, Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE)
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.math cimport INFINITY, NAN, isfinite, log
from libc.stdint cimport (int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t)
from libc.string cimport memcmp, memcpy, memset
from numpy cimport (PyArray_DATA, PyArray_DIMS, PyArray_IS_C_CONTIGUOUS, PyArray_NDIM,
                    PyArray_STRIDES, PyArray_TYPE, import_array, ndarray, npy_intp)
cimport numpy as cnp

from fastgrad._core.fg cimport *

import functools
import linecache
import opcode
import operator
import os
import sys
import warnings
from collections import OrderedDict, UserDict, UserList, deque
from operator import index as index_of, itemgetter
from types import MappingProxyType, MemberDescriptorType, MethodType
from weakref import getweakrefcount

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastgrad._core import arguments as _arguments, trees as _trees

import_array()

cdef extern from *:
    """
    #if defined(__linux__)
    #define FG_TLS __thread __attribute__((tls_model("initial-exec")))
    #else
    #define FG_TLS __thread
    #endif
    /* What goes on in a thread. */
    typedef struct {
        void *recorder;     /* the Recorder (borrowed) that takes down a function for a program, or NULL */
        void *kept;         /* while everything recorded keeps its value and its constants (Trace,
                               keep=True): the list (borrowed) of what is recorded, or the recorder */
        uint32_t serial;    /* the recorder's number, which leaves that are made meanwhile carry */
        int not_recording;
        int depth;          /* of transformations inside one another */
        int scopes;         /* of record() */
        int lanes;          /* blocks of `inside`: a function is called for lanes or steps one by one */
        int outside;        /* depth + scopes when the function of a user's rule was called */
        uint32_t refusals;  /* errors that Tensors have raised so that no derivative is lost */
    } FgMode;
    static FG_TLS FgMode fg_mode;
    #define fg_here() (&fg_mode)
    #define get_recording() (!fg_mode.not_recording)
    #define get_keeping() (__builtin_expect(fg_mode.kept != NULL, 0))

    static FG_TLS FgTape *fg_thread_tape;
    /* How deep the destructors of Tensors are inside one another, and those put off (borrowed). */
    static FG_TLS int fg_dying;
    static FG_TLS void *fg_put_off;
    /* How deep a walk is in a container. */
    static FG_TLS int fg_nested;
    #define get_thread_tape() (fg_thread_tape)
    #define set_thread_tape(t) (fg_thread_tape = (t))
    #define get_dying() (fg_dying)
    #define set_dying(x) (fg_dying = (x))
    #define get_nested() (fg_nested)
    #define set_nested(x) (fg_nested = (x))
    #define get_put_off() (fg_put_off)
    #define set_put_off(x) (fg_put_off = (x))

    #define clz(x) __builtin_clzll((unsigned long long)(x))

    /* Under the address sanitiser nothing is used twice (chunks, shapes, places of nodes, numbers of
       attributes, Tensors), and places without a node are poisoned: it sees every use after free. */
    #if defined(__SANITIZE_ADDRESS__)
    #include <sanitizer/asan_interface.h>
    #define FG_REUSES 0
    #define node_show(n) ASAN_UNPOISON_MEMORY_REGION(n, sizeof(FgNode))
    #define node_hide(n) ASAN_POISON_MEMORY_REGION(n, sizeof(FgNode))
    __attribute__((no_sanitize_address)) static int node_lives(const FgNode *n) { return n->refs != 0; }
    #else
    #define FG_REUSES 1
    #define node_show(n) ((void)(n))
    #define node_hide(n) ((void)(n))
    #define node_lives(n) ((n)->refs != 0)
    #endif
    /* Py_TYPE and Py_SET_REFCNT of objects that Cython must not count. */
    #define object_type(o) ((void *)Py_TYPE((PyObject *)(o)))
    #define object_watched(o) (*(PyObject **)((char *)(o) + Py_TYPE((PyObject *)(o))->tp_weaklistoffset) != NULL)
    #define object_refs(o, n) Py_SET_REFCNT((PyObject *)(o), n)

    /* Whether the core can read the memory as it is: kernels step in whole elements. */
    static int array_fits(PyArrayObject *a) {
        npy_intp item = PyArray_ITEMSIZE(a);
        if (!PyArray_ISALIGNED(a) || !PyArray_ISNOTSWAPPED(a)) return 0;
        for (int i = 0; i < PyArray_NDIM(a); i++)
            if (item == 0 || PyArray_STRIDES(a)[i] % item) return 0;
        return 1;
    }
    """
    ctypedef struct FgMode:
        void *recorder
        void *kept
        uint32_t serial
        int not_recording
        int depth, scopes, lanes, outside
        uint32_t refusals
    FgMode *mode "fg_here" () nogil
    FgTape *get_thread_tape() nogil
    void set_thread_tape(FgTape *) nogil
    bint get_recording() nogil
    int get_dying() nogil
    void set_dying(int) nogil
    int get_nested() nogil
    void set_nested(int) nogil
    void *get_put_off() nogil
    void set_put_off(void *) nogil
    int get_keeping() nogil
    int clz(int64_t) nogil
    bint FG_REUSES
    void node_show(FgNode *) nogil
    void node_hide(FgNode *) nogil
    bint node_lives(const FgNode *) nogil
    void *object_type(void *)
    void object_refs(void *, Py_ssize_t)
    bint object_watched(void *)
    bint array_fits(ndarray)

cdef extern from "Python.h":
    bint PyFloat_CheckExact(object)
    object PySeqIter_New(object)
    bint PyFloat_Check(object)
    double PyFloat_AS_DOUBLE(object)
    bint PyLong_Check(object)
    bint PyLong_CheckExact(object)
    double PyLong_AsDouble(object) except? -1.0
    long PyLong_AsLongAndOverflow(object, int *)
    bint PyComplex_Check(object)
    bint PySlice_Check(object)
    ctypedef struct PySliceObject:
        PyObject *start
        PyObject *stop
        PyObject *step
    int PySlice_Unpack(object, Py_ssize_t *, Py_ssize_t *, Py_ssize_t *) except -1
    Py_ssize_t PySlice_AdjustIndices(Py_ssize_t, Py_ssize_t *, Py_ssize_t *, Py_ssize_t)
    Py_ssize_t PyNumber_AsSsize_t(object, PyObject *) except? -1
    int PyErr_CheckSignals() except -1
    unsigned long PyThread_get_thread_ident()
    PyObject *PyThreadState_GetDict()
    int PyTraceMalloc_Track(unsigned int, size_t, size_t)
    int PyTraceMalloc_Untrack(unsigned int, size_t)
    void *PyCapsule_GetPointer(object, const char *) except NULL
    object PyCapsule_New(void *, const char *, void *)
    ctypedef struct PyMethodDef:
        const char *ml_name
        void *ml_meth
        int ml_flags
        const char *ml_doc
    int METH_FASTCALL, METH_KEYWORDS
    ctypedef void (*destructor)(PyObject *)
    ctypedef void *newfunc
    ctypedef struct PyMappingMethods:
        void *mp_subscript
        void *mp_ass_subscript
    ctypedef struct PyTypeObject:
        void *tp_setattro
        PyMappingMethods *tp_as_mapping
        destructor tp_dealloc
        newfunc tp_new
        void *tp_vectorcall
        Py_ssize_t tp_vectorcall_offset
        unsigned long tp_flags
    unsigned long Py_TPFLAGS_HAVE_VECTORCALL
    Py_ssize_t Py_REFCNT(object)
    Py_ssize_t refs_of "Py_REFCNT" (PyObject *)
    object PyObject_Call(object, tuple, PyObject *)
    Py_ssize_t PyVectorcall_NARGS(size_t)
    PyObject *PyObject_Vectorcall(object, PyObject *const *, size_t, PyObject *)
    Py_ssize_t PyTuple_GET_SIZE(object)
    PyObject *PyList_GET_ITEM(object, Py_ssize_t)
    PyObject *PyTuple_GET_ITEM(object, Py_ssize_t)
    object PyCFunction_NewEx(PyMethodDef *, object, object)

cdef extern from "numpy/arrayobject.h":
    object PyArray_New(PyTypeObject *, int, const npy_intp *, int, const npy_intp *, void *, int,
                       int, object)
    int PyArray_SetBaseObject(ndarray, object) except -1
    PyObject *array_base "PyArray_BASE" (ndarray)
    bint PyArray_Check(object)
    object PyArray_Scalar(void *, cnp.dtype, object)
    PyTypeObject PyArray_Type
    enum: NPY_ARRAY_WRITEABLE, NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS

# Declared by a header that the build puts before everything else.
cdef extern from *:
    const char FG_SOURCES[]

SOURCES = (<const char *>FG_SOURCES).decode()
# False where a sanitiser looks on: then what tests say of how much memory is held does not hold.
REUSES = bool(FG_REUSES)

# ---- dtypes: what the core holds, by NumPy's type numbers ---------------------------------------

cdef enum:
    KNOWN_DTYPES = 13
cdef bint dtype_known[32]
cdef int64_t dtype_bytes[32]
cdef list dtypes = [np.dtype(np.void)] * 32

cdef void dtypes_setup():
    for name in "?bBhHiIlLqQfd":
        dtype = np.dtype(name)
        dtype_known[<int>dtype.num] = True
        dtype_bytes[<int>dtype.num] = dtype.itemsize
        dtypes[dtype.num] = dtype

dtypes_setup()

cdef object second = itemgetter(1)

cdef object np_generic = np.generic
cdef object np_ndarray = np.ndarray
cdef object np_integer = np.integer


# What is above the core and needed here, by what it is: who makes it puts it in.
HANDED_DOWN = {}


class GuardError(RuntimeError):
    """Raised where a program without a Python function meets another outcome than its recording.

    Examples
    --------
    >>> import fastgrad as fg
    >>> source = fg.compile(lambda x: x * 2 if x > 0 else -x)
    >>> y = source(1.0)                             # a path, and its graph
    >>> f = fg.Program.of_graph(source.paths[0].graph)
    >>> try:
    ...     f(-1.0)
    ... except fg.GuardError as error:
    ...     print("bool True" in str(error))
    True
    """

    guard = None                    # the one that does not hold, where it is one of a replay's


class NoDerivativeError(TypeError):
    """Raised where a function is asked for that nobody has a derivative rule for.

    Examples
    --------
    >>> import numpy as np
    >>> import fastgrad as fg
    >>> try:
    ...     fg.grad(np.spacing)(1.0)
    ... except fg.NoDerivativeError as error:
    ...     print("spacing" in str(error))
    True
    """


include "memory/pool.pyx"
include "memory/segments.pyx"
include "memory/blocks.pyx"
include "tape/operands.pyx"
include "tape/elementwise.pyx"
include "tape/recorder.pyx"
include "tape/on_values.pyx"
include "sweeps/marks.pyx"
include "sweeps/reverse.pyx"
include "rules/formulas.pyx"
include "rules/emit.pyx"
include "rules/rules.pyx"
include "rules/moves.pyx"
include "rules/indices.pyx"
include "rules/gather.pyx"
include "rules/reductions.pyx"
include "rules/products.pyx"
include "rules/custom.pyx"
include "sweeps/tangent.pyx"
include "sweeps/stream.pyx"
include "sweeps/infinite.pyx"
include "rules/roots.pyx"
include "rules/blas.pyx"
include "rules/linalg.pyx"
include "tensor/messages.pyx"
include "tensor/caller.pyx"
include "tensor/rebind.pyx"
include "tensor/tensor.pyx"
include "tensor/making.pyx"
include "tensor/leaving.pyx"
include "tensor/views.pyx"
include "tensor/operators.pyx"
include "tensor/table.pyx"
include "tensor/functions.pyx"
include "call/backward.pyx"
include "call/grad.pyx"
include "tensor/decisions.pyx"
include "call/trace.pyx"
include "call/trace_graph.pyx"
include "sweeps/colour.pyx"

cdef int isa_setup() except -1:
    """The best instruction set there is, or the one that FASTGRAD_ISA names."""
    cdef bytes name = os.environ.get("FASTGRAD_ISA", "").encode()
    if fg_dispatch(<const char *>name if name else NULL) != 0:
        raise ImportError(f"FASTGRAD_ISA={name.decode()!r}: there is no such instruction set here; "
                          f"there are {', '.join(available_isas())}")
    return 0


isa_setup()
tensor_setup()
call_setup()
arena_setup()
functions_setup()
formulas_setup()
roots_setup()
blas_setup()
linalg_setup()
caller_setup()
