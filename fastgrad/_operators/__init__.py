"""Operators that are not element-wise, each a record in one place. Start reading in rule.py."""

from .along import cumsum
from .linalg import cholesky, solve
from .rule import OPERATORS

__all__ = ["OPERATORS", "cholesky", "cumsum", "solve"]
