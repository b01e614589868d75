"""Operators that are not element-wise, each a record in one place. Start reading in rule.py."""

from . import along, linalg
from .rule import OPERATORS

__all__ = ["OPERATORS", "along", "linalg"]
