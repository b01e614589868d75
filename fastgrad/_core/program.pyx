# cython: auto_pickle=False
# What Cython makes to pickle a class takes pointers for strings, and any state for a right one.
"""Programs: graphs planned once, and run without Python.

    nodes, graph    graphs checked, and brought into the planner's numbers
    assume          what a plan takes for granted
    native          loops of operators that need no Python
    plan            Plan: a graph, planned once and run
    threads         how many there are
    scalar          strings of scalar operations, for the tests
    call            programs called from Python

What plans are made of stands in src/vm.h, how they are made in src/plan/, and how they run in
src/run/.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy
from numpy cimport (PyArray_DATA, PyArray_DIMS, PyArray_IS_C_CONTIGUOUS, PyArray_NDIM, PyArray_TYPE,
                    import_array, ndarray, npy_intp)
cimport numpy as cnp

from fastgrad._core.fg cimport *
from fastgrad._core.plan cimport *

import re
from weakref import WeakValueDictionary

import numpy as np

from fastgrad._core import core
from fastgrad._core.core import GuardError

import_array()

# Declared by a header that the build puts before everything else.
cdef extern from *:
    const char FG_SOURCES[]

SOURCES = (<const char *>FG_SOURCES).decode()

include "program/nodes.pyx"
include "program/graph.pyx"
include "program/assume.pyx"
include "program/native.pyx"
include "program/plan.pyx"
include "program/threads.pyx"
include "program/scalar.pyx"
include "program/call.pyx"
