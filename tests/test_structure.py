"""How the package is built: folders that import one another in one direction, and files of a size
to be read.

Arrows go one way: what the core needs from above is put into `core.HANDED_DOWN` by who makes it.
"""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import fastgrad as fg

PACKAGE = pathlib.Path(fg.__file__).parent
ROOT = PACKAGE.parent

# Each imports those before it alone. The first file of the package imports them all.
STOREYS = ("_core", "_run", "_threads", "numpy", "special", "_operators", "graphs", "code",
           "transforms", "programs", "look", "trees", "numeric", "optim", "testing")

LONGEST = 800


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(name):
    """The modules of the package that one imports, wherever it does."""
    path = MODULES[name]
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[:len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else ()), *([node.module] if node.module else [])])
            found = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base
                     for alias in node.names]
        else:
            continue
        yield from [other for other in found if other in MODULES and other != name]


IMPORTS = {name: sorted(set(imports_of(name))) for name in MODULES}


def storey(name):
    return name.split(".")[1] if "." in name else None


@pytest.mark.parametrize("name", MODULES)
def test_arrows_go_one_way(name):
    own = storey(name)
    if own in (None, "__main__", "_build"):
        return
    for other in IMPORTS[name]:
        if storey(other) is not None:
            assert STOREYS.index(storey(other)) <= STOREYS.index(own), (
                f"{name} imports {other}, which is above it")


def test_no_circles():
    """Importing inside of functions counts, too."""
    left = {name: {other for other in others if storey(other)} for name, others in IMPORTS.items()
            if storey(name)}
    while left:
        free = [name for name, others in left.items() if not others & set(left)]
        assert free, f"these import one another: {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.build
def test_files_are_of_a_size_to_be_read():
    sources = [path for path in ROOT.glob("src/**/*") if path.is_file()]
    for path in [*sources, *PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")]:
        name = path.relative_to(ROOT).as_posix()
        assert len(path.read_text().splitlines()) <= LONGEST, name


def test_the_core_imports_nothing_from_above():
    for path in PACKAGE.glob("_core/**/*.pyx"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["from"], ["import"]) and words[1].startswith("fastgrad"):
                assert words[1].startswith("fastgrad._core"), f"{path.name}: {line}"


@pytest.mark.build
def test_no_name_is_defined_twice_or_for_nothing():
    """As [tool.ruff] in pyproject.toml says: names that are not defined, not used, defined again."""
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format",
                            "concise", ROOT], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


# ---- docs/architecture.md -------------------------------------------------------------------

@pytest.mark.build
def test_what_the_page_names_exists():
    """Files, and functions and classes of those whose file stands beside them."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    names = re.findall(r"`([^`\n]+)`", text)
    files = [name for name in names if "/" in name and re.fullmatch(r"[\w/.]+\.\w+", name)]
    assert len(files) > 40
    for name in files:
        assert (ROOT / name).exists(), name
    code = "\n".join([path.read_text() for folder in ("fastgrad", "src")
                      for path in sorted((ROOT / folder).rglob("*"))
                      if path.suffix in (".py", ".pyx", ".c", ".h", ".inc", ".def")])
    named = [name for name in names if re.fullmatch(r"[A-Za-z_]+_[a-z_]+|[A-Z][a-z]+(\.\w+)?", name)
             and name not in ("fastgrad",)]
    assert len(named) > 25
    for name in named:
        for part in name.split("."):
            assert re.search(rf"\b{part}\b", code), name


def test_readers_find_the_page():
    assert "docs/architecture.md" in (ROOT / "README.md").read_text()
