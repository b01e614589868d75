"""Operators that are not element-wise, each a record in one place: start reading in rule.py. NumPy's
functions without derivative are rows of plain.py."""

from .rule import OPERATORS

__all__ = ["OPERATORS"]
