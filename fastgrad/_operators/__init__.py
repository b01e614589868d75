"""Operators that are not element-wise, each a record in one place: start reading in rule.py. The
graph's own (reshape, sum, matmul) are in shaped.py, which batch.py and index.py serve; NumPy's
functions without derivative are rows of numpy/_plain.py."""

from . import along, linalg  # noqa: F401 (which put their functions into fastgrad.numpy)
from .rule import OPERATORS

__all__ = ["OPERATORS"]
