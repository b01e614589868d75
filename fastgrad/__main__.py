"""From the shell: ``python -m fastgrad info`` tells what this installation runs on."""

import argparse
import platform
import sys

import numpy as np

import fastgrad
from fastgrad._core import core


def info():
    """Version, instruction set, routes and memory, one line each."""
    pool = core.pool_info()
    rows = {
        "fastgrad": fastgrad.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "instruction set": f"{core.isa()} (available: {', '.join(core.available_isas())})",
        "vector functions": core.vector_math(),
        "matrix products": core.matmul_route,
        "threads": f"{fastgrad.get_num_threads()} at most",
        "operators": f"{len(core.operators())} rows",
        "buffer pool": f"{pool['used']} bytes used, {pool['idle']} idle, {pool['peak']} at most",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fastgrad", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="version, instruction set, BLAS route, buffer pool")
    parser.parse_args(arguments)
    print(info())
    return 0


if __name__ == "__main__":
    sys.exit(main())
