"""The rooms of the proxy: who may import what, and what a session has loaded by when.

`docs/imports.py` reads the syntax tree; the last tests look at a proxy at work.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from docs import imports
from docs.imports import FOR_TYPES, Import
from tests.unit.processes import (
    MESSAGE,
    Spawned,
    Upstream,
    greeted,
    in_data,
    quits,
    starting,
    takes_message,
)

CORE, SHELL, COMMAND = range(3)


def room(module: str) -> int:
    return {"core": CORE, "shell": SHELL}.get(
        module.removeprefix("postprox.").split(".")[0], COMMAND
    )


def outward() -> Iterator[Import]:
    """Yield the imports of what is not the proxy's."""
    return (each for each in imports.imports() if each.imported not in imports.modules())


def inward() -> Iterator[Import]:
    """Yield the imports of the proxy's modules; the package itself is only a name."""
    return (
        each
        for each in imports.imports()
        if each.imported in imports.modules() and each.imported != imports.PACKAGE
    )


def test_the_core_needs_nothing_but_itself() -> None:
    assert not [
        each for each in outward() if room(each.importer) == CORE and each.when != FOR_TYPES
    ]


def test_the_types_that_the_core_names_are_no_io() -> None:
    named = {each.imported for each in outward() if room(each.importer) == CORE}
    assert named <= {"collections.abc", "typing"}


def test_only_one_module_touches_the_interpreters_own_names_of_the_system() -> None:
    own = {"posix", "_socket", "_signal"}
    assert {each.importer for each in outward() if each.imported in own} == {
        "postprox.shell.system"
    }


def test_arrows_only_point_down() -> None:
    assert not [each for each in inward() if room(each.importer) < room(each.imported)]


def test_no_arrows_make_a_circle() -> None:
    graph: TopologicalSorter[str] = TopologicalSorter()
    for each in inward():
        graph.add(each.importer, each.imported)
    graph.prepare()  # raises CycleError


def test_the_proxy_does_not_know_its_rehearsal() -> None:
    assert not [each for each in imports.imports() if "rehearse" in each.imported]


def test_packages_import_nothing() -> None:
    packages = {name for name, file in imports.modules().items() if file.stem == "__init__"}
    assert not [each for each in imports.imports() if each.importer in packages]


@pytest.mark.parametrize(
    "file",
    sorted(
        str(file.relative_to(imports.ROOT)) for file in (imports.ROOT / "postprox").rglob("*.py")
    ),
)
def test_a_module_opens_with_what_it_is_and_its_rule(file: str) -> None:
    text = ast.get_docstring(ast.parse((imports.ROOT / file).read_text(encoding="utf-8"))) or ""
    what, _, rest = text.partition("\n\n")
    assert what.endswith(".")
    assert rest.startswith("Rule: ")


def functions(owner: ModuleType | type) -> Iterator[FunctionType]:
    """Yield the functions and methods of a module."""
    for member in vars(owner).values():
        function = member.fget if isinstance(member, property) else member
        if isinstance(function, FunctionType):
            yield function
        elif isinstance(member, type) and member.__module__ == vars(owner).get("__name__"):
            yield from functions(member)


@pytest.mark.parametrize("name", imports.modules())
def test_an_annotation_is_quoted_only_if_it_names_what_is_there_for_types_alone(name: str) -> None:
    module = importlib.import_module(name)
    annotations = [each.__annotations__.values() for each in functions(module)]
    for quoted in (text for texts in annotations for text in texts if isinstance(text, str)):
        with pytest.raises(NameError):
            eval(quoted, vars(module))  # noqa: S307 - a text of the project's own


# What is loaded, beside what the interpreter itself has loaded. Every module is paid for by every
# mail: a new one here is a decision (CONTRIBUTING, "Conventions").

_TELL = """
import posix, sys
before, end, told = set(sys.modules), posix._exit, posix.open(sys.argv[1], posix.O_WRONLY)
def tell(status):
    posix.write(told, " ".join(set(sys.modules) - before).encode())
    end(status)
posix._exit = tell
sys.path.append(sys.argv[2])
sys.argv = sys.argv[sys.argv.index("postprox"):]
from postprox.__main__ import main
main()
"""

FIRST = {
    "postprox",
    "postprox.__main__",
    "postprox.core",
    "postprox.core.actions",
    "postprox.core.address",
    "postprox.core.log_levels",
    "postprox.core.limits",
    "postprox.core.upstream",
    "postprox.core.options",
    "postprox.core.replies",
    "postprox.core.session",
    "postprox.core.smtp",
    "postprox.core.states",
    "postprox.shell",
    "postprox.shell.connection",
    "postprox.shell.loop",
    "postprox.shell.stream",
    "postprox.shell.system",
    "postprox.shell.connector",
    "_socket",
    "select",
}
WITH_A_MESSAGE = {
    "postprox.core.data",
    "postprox.core.envelope",
    "postprox.core.message",
    "postprox.core.verdict",
    "postprox.shell.filter",
    "postprox.shell.spool",
}

Spawn = Callable[..., Spawned]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start proxies that tell at their end which modules they have loaded."""
    (tmp_path / "modules").touch()
    tell = (sys.executable, "-I", "-S", "-c", _TELL, str(tmp_path / "modules"), str(imports.ROOT))
    for start in starting(Spawned):
        yield partial(start, prelude=tell)


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[], set[str]]:
    return lambda: set((tmp_path / "modules").read_text().split())


def test_what_is_loaded_before_the_first_message(
    spawn: Spawn, upstream: Upstream, loaded: Callable[[], set[str]]
) -> None:
    proxy = spawn("-c", "true", upstream.address)
    quits(proxy.client, greeted(proxy.client, upstream))
    assert proxy.exit_status() == 0
    assert loaded() == FIRST


def test_what_is_loaded_with_a_message(
    spawn: Spawn, upstream: Upstream, loaded: Callable[[], set[str]], tmp_path: Path
) -> None:
    proxy = spawn("-c", "true", "-d", str(tmp_path), upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)
    assert proxy.exit_status() == 0
    assert loaded() == FIRST | WITH_A_MESSAGE
