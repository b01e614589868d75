"""The compiled core: `core` is built from core.pyx and the C sources in src/."""

try:
    from fastgrad._core import core
except ImportError as error:
    from pathlib import Path

    _here = Path(__file__).parent
    if any(_here.glob("core.*.so")) or any(_here.glob("core.*.pyd")):
        raise                               # it is there, and something else is wrong
    _root = _here.parent.parent
    raise ImportError(
        f"fastgrad's compiled core is missing in {_here}. "
        + (f"This is a source folder: run `pip install -e .` (or `python setup.py build_ext "
           f"--inplace`) in {_root}, or leave the folder to import an installed fastgrad."
           if (_root / "src" / "ops.def").exists() else "Install fastgrad again.")) from error

__all__ = ["core"]
