"""What every test file shares: a check that the compiled core is up to date, and fixtures."""

import numpy as np
import pytest


def pytest_configure(config):
    """Refuse to test a binary that was built from other sources."""
    import importlib.util
    from pathlib import Path

    package = importlib.util.find_spec("fastgrad")
    if package is None:
        pytest.exit("fastgrad is not installed and not on the path; run: pip install -e '.[test]'",
                    returncode=pytest.ExitCode.USAGE_ERROR)
    try:
        from fastgrad._build import sources_fingerprint
        from fastgrad._core import core
    except ImportError as error:
        pytest.exit(f"the compiled core of fastgrad cannot be imported ({error}); build it: "
                    "python setup.py build_ext --inplace", returncode=pytest.ExitCode.USAGE_ERROR)
    root = Path(package.origin).parents[1]
    fingerprint = sources_fingerprint(root)
    if fingerprint is not None and fingerprint != core.SOURCES:
        pytest.exit(f"{core.__file__} is not built from the sources in {root}; rebuild it: "
                    "python setup.py build_ext --inplace", returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture
def rng():
    """A generator that starts anew in each test."""
    return np.random.default_rng(20240917)
