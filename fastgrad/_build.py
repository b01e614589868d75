"""The state of the sources: what the build writes into the binary and the tests compare.

`setup.py` runs this file by path, before anything is built, so it imports nothing of fastgrad.
"""

_PATTERNS = ("setup.py", "src/*.c", "src/*.h", "src/*.inc", "src/*.def", "src/*/*.c", "src/*/*.h",
             "fastgrad/_core/*.pyx", "fastgrad/_core/*/*.pyx", "fastgrad/_core/*.pxd")


def sources_fingerprint(root):
    """SHA-256 over names and contents of the sources below `root`: `fastgrad._core.core.SOURCES`
    when the binary is up to date. None where there are no sources (an installed wheel)."""
    import hashlib
    from pathlib import Path

    root = Path(root)
    files = sorted(path.relative_to(root).as_posix()
                   for pattern in _PATTERNS for path in root.glob(pattern))
    if not any(name.startswith("src/") for name in files):
        return None
    digest = hashlib.sha256()
    for name in files:
        content = (root / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
