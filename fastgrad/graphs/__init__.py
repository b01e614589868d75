"""Recordings as graphs: how they are made, checked, and run node by node."""

from . import loop_nodes  # noqa: F401 (which says how loops in them are run)
