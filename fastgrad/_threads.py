"""How many threads share large pieces of work."""

import operator

from fastgrad._core import program

__all__ = ["get_num_threads", "set_num_threads"]


def get_num_threads():
    """The number of threads that may share the work of a program, the calling one counted.

    At first as many as there are processors that the process may use (at most 64), or what the
    environment variable FASTGRAD_NUM_THREADS says.

    Returns
    -------
    int

    See Also
    --------
    set_num_threads

    Examples
    --------
    >>> fg.get_num_threads() >= 1
    True
    """
    return program.get_threads()


def set_num_threads(n):
    """Set how many threads may share the work of a program.

    Threads are started when a program first has work for them, and for the whole process: while
    one Python thread uses them, programs of other Python threads run in one thread each. Results of
    fastgrad's own loops do not depend on the number. Matrix products have threads of their own,
    which are the BLAS library's (limit them with threadpoolctl).

    Parameters
    ----------
    n : int
        1 or more, the calling thread counted; more than 64 count as 64. Where the platform has no
        POSIX threads it stays 1.

    Returns
    -------
    None

    Raises
    ------
    TypeError
        If n is no integer.
    ValueError
        If n is less than 1.

    See Also
    --------
    get_num_threads

    Examples
    --------
    >>> before = fg.get_num_threads()
    >>> fg.set_num_threads(1)
    >>> fg.get_num_threads()
    1
    >>> fg.set_num_threads(before)
    """
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"set_num_threads(n): n is {n!r}; give a whole number of threads, 1 or "
                        "more") from None
    if count < 1:
        raise ValueError(f"set_num_threads(n): n is {count}; give 1 or more, where 1 is the "
                         "calling thread alone")
    program.set_threads(min(count, 1 << 20))
