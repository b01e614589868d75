"""Compiled functions: paths that are recorded, found again, replayed, and kept in files; loops."""

from . import persist  # noqa: F401 (which says how they are written to files)
