"""Operators that are not element-wise, each a record in one place: start reading in rule.py. The
graph's own (reshape, sum, matmul) are in shaped.py, which batch.py and index.py serve; NumPy's
functions without derivative are rows of plain.py."""

from .rule import OPERATORS

__all__ = ["OPERATORS"]
