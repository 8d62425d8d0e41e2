"""Imports point downwards: no circle and no upward arrow, in functions and under TYPE_CHECKING neither."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the top down: a package imports only from those below it, and from its own modules.
LAYERS = {
    "ringdist": [
        "__init__",
        "estimator",
        "learning",
        "ordering",
        "compare",
        "ring_mixture",
        "ring",
        "interop",
        "queries",
        "engines",
        "network",
        "cores",
        "variables",
        "backend",
    ],
}
PACKAGES = ["benchmarks", "adapters", "ringdist"]  # from the top down


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the same repository that a module imports anywhere in its text."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            # `from package import module` imports the module; `from package import name` the package itself.
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        else:
            continue
        found.update(target for target in names if target in known and target != name)
    return found


def graph(*packages: str) -> dict[str, set[str]]:
    known = {name: path for package in packages for name, path in modules(package).items()}
    return {name: imported(name, path, known) for name, path in known.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_imports_itself_in_a_circle(package):
    try:
        graphlib.TopologicalSorter(graph(package)).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_packages_import_downwards():
    for name, targets in graph(*PACKAGES).items():
        place = PACKAGES.index(name.split(".")[0])
        above = [target for target in targets if PACKAGES.index(target.split(".")[0]) < place]
        assert not above, (name, above)


def test_layers_of_ringdist_import_downwards():
    layers = LAYERS["ringdist"]

    def layer(name: str) -> int:
        parts = name.split(".")
        return layers.index(parts[1] if len(parts) > 1 else "__init__")

    for name, targets in graph("ringdist").items():
        above = [target for target in targets if layer(target) < layer(name)]
        assert not above, (name, above)


def test_every_layer_exists():
    here = {
        path.stem for path in (ROOT / "ringdist").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert here == set(LAYERS["ringdist"])


@pytest.mark.parametrize("package", ["ringdist", "adapters"])
def test_files_are_short_enough_to_find_ones_way_in(package):
    long = {name: n for name, path in modules(package).items() if (n := len(path.read_text().splitlines())) > 350}
    assert not long, long


def test_the_walker_sees_imports_wherever_they_are(tmp_path):
    """In functions, under TYPE_CHECKING, relative, and of names from packages."""
    lines = ["if TYPE_CHECKING:", "    import a.b", "def f():", "    from . import c", "    from a import name"]
    path = tmp_path / "m.py"
    path.write_text("\n".join(lines))
    known = dict.fromkeys(("a", "a.b", "a.c", "a.m"), path)
    assert imported("a.m", path, known) == {"a", "a.b", "a.c"}
