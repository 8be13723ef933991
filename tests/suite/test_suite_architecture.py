"""The layers of the suite: a module imports only modules of its own layer or of a lower one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conformance.paths import PACKAGE

#: From the lowest layer to the highest. Packages on one line do not import each other.
LAYERS = (
    ("paths",),
    ("format",),
    ("play",),
    ("run", "record", "properties"),
    ("report", "plugin"),
    ("cli", "test_properties", "test_comparison"),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
#: Modules that start processes or open sockets.
OUTSIDE = {"os", "socket", "selectors", "subprocess", "signal", "pytest"}


def modules() -> dict[str, Path]:
    """Return the modules of the suite, by dotted name below the package."""
    names = {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
        for file in sorted(PACKAGE.rglob("*.py"))
    }
    apart = ("build", "packing", "implementations")
    return {
        name: file
        for name, file in names.items()
        if layer(name) not in apart and not name.endswith("__init__")
    }


def imports(name: str, file: Path) -> Iterator[str]:
    """Yield the modules of the suite that `name` imports, and as /NAME those of others."""
    package = name.split(".")[:-1]
    known = modules()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (f"/{each.name}" for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield f"/{node.module}"
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for each in node.names:
                inner = ".".join([*base, each.name])
                yield inner if inner in known else ".".join(base)


def layer(name: str) -> str:
    return name.partition(".")[0]


def test_every_module_has_a_layer() -> None:
    assert {layer(name) for name in modules()} == RANK.keys()


@pytest.mark.parametrize("name", modules())
def test_imports_point_only_down(name: str) -> None:
    here = layer(name)
    upward = [
        each
        for each in imports(name, modules()[name])
        if not each.startswith("/") and layer(each) != here and RANK[layer(each)] >= RANK[here]
    ]
    assert not upward


def test_imports_make_no_circle() -> None:
    graph: TopologicalSorter[str] = TopologicalSorter()
    for name, file in modules().items():
        for each in imports(name, file):
            graph.add(name, each)
    graph.prepare()  # raises CycleError


@pytest.mark.parametrize("name", [name for name in modules() if layer(name) == "format"])
def test_the_format_starts_nothing_and_knows_no_pytest(name: str) -> None:
    used = {each[1:] for each in imports(name, modules()[name]) if each.startswith("/")}
    # The grammar takes the names of signals from `signal`; it sends none.
    assert used & OUTSIDE <= ({"signal"} if name == "format.grammar" else set())


@pytest.mark.parametrize("name", modules())
def test_only_the_upper_layers_know_pytest(name: str) -> None:
    used = set(imports(name, modules()[name]))
    assert "/pytest" not in used or layer(name) not in ("format", "play", "record", "report")


def test_the_suite_imports_nothing_of_the_proxy() -> None:
    used = {each for name, file in modules().items() for each in imports(name, file)}
    assert not [each for each in used if each.startswith(("/postprox", "/tests"))]
