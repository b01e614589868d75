"""Programs: graphs planned once, and run without Python."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastgrad._core.fg cimport *

# Declared by a header that the build puts before everything else.
cdef extern from *:
    const char FG_SOURCES[]

SOURCES = (<const char *>FG_SOURCES).decode()

include "program_call.pyx"
