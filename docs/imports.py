"""What each module of the proxy imports, and when.

Rule: read from the syntax tree; nothing is run. Used by the pictures and by the test that guards
the rooms, ``tests/unit/test_architecture.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "postprox"
_APART = ("postprox.check", "postprox.rehearse")  # they use the proxy, which knows nothing of them

#: When an import happens, from never to first.
FOR_TYPES = "for types"  # never: only type checkers see it
LATER = "later"  # in a function: with the first message, the first line of the log, ...
AT_ONCE = "at once"  # with the module
_WHENS = [FOR_TYPES, LATER, AT_ONCE]


@dataclass(frozen=True)
class Import:
    """Module `importer` imports module `imported`; both by their full names."""

    importer: str
    imported: str
    when: str


@cache
def modules() -> dict[str, Path]:
    """Return the proxy's modules: name to file."""
    files = {_name(file): file for file in sorted((ROOT / PACKAGE).rglob("*.py"))}
    return {name: file for name, file in files.items() if not name.startswith(_APART)}


@cache
def imports() -> list[Import]:
    """Return all imports of the proxy's modules, each pair once, as early as it happens."""
    known = modules()
    earliest: dict[tuple[str, str], str] = {}
    for importer, file in known.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for statement, when in _statements(tree, AT_ONCE):
            for imported in _named(statement, file, known):
                before = earliest.get((importer, imported), FOR_TYPES)
                earliest[importer, imported] = max(before, when, key=_WHENS.index)
    return [Import(importer, imported, when) for (importer, imported), when in earliest.items()]


def _name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _statements(node: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Yield the import statements below `node`, which itself is run at `when`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, when
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _statements(ast.Module(child.body, []), FOR_TYPES)
            yield from _statements(ast.Module(child.orelse, []), when)
        else:
            yield from _statements(child, LATER if isinstance(child, ast.FunctionDef) else when)


def _named(
    statement: ast.Import | ast.ImportFrom, file: Path, known: dict[str, Path]
) -> Iterator[str]:
    """Yield the modules that a statement of `file` names: `from . import x` may name a module."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    here = file.relative_to(ROOT).parts[: -statement.level] if statement.level else ()
    module = ".".join((*here, statement.module or "")).rstrip(".")
    for alias in statement.names:
        inner = f"{module}.{alias.name}"
        yield inner if inner in known else module
