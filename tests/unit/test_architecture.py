"""Tests of the core's imports, of module docstrings, and of the modules that a session loads.

The section `[tool.importlinter]` of pyproject.toml contains the other import rules.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType

import grimp
import pytest

from docs import draw
from tests.support.fixtures import Spawn
from tests.support.upstream import MESSAGE, Upstream, greeted, in_data, quits, takes_message

ROOT = Path(__file__).resolve().parents[2]


def test_core_modules_import_only_core_modules_at_run_time() -> None:
    graph = grimp.build_graph(
        "postprox",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    core = {"postprox.core", *graph.find_descendants("postprox.core")}
    imported = {each for name in core for each in graph.find_modules_directly_imported_by(name)}
    assert imported - core == {"postprox"}  # for TYPE_CHECKING


@pytest.mark.parametrize(
    "file", sorted(str(file.relative_to(ROOT)) for file in (ROOT / "postprox").rglob("*.py"))
)
def test_module_docstring_has_summary_and_rule(file: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8"))) or ""
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


@pytest.mark.parametrize("name", draw.modules())
def test_only_annotations_undefined_at_run_time_are_quoted(name: str) -> None:
    module = importlib.import_module(name)
    annotations = [each.__annotations__.values() for each in functions(module)]
    for quoted in (text for texts in annotations for text in texts if isinstance(text, str)):
        with pytest.raises(NameError):
            eval(quoted, vars(module))  # noqa: S307 - the annotation is project code


# The modules that a session loads, without the interpreter's own modules. Each module increases the
# start time of every session, so adding a module is a deliberate decision (CONTRIBUTING,
# "Conventions").

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


@pytest.fixture
def spawn(spawn: Spawn, tmp_path: Path) -> Spawn:
    """Return a function that starts a proxy which records its loaded modules at exit."""
    (tmp_path / "modules").touch()
    tell = (sys.executable, "-I", "-S", "-c", _TELL, str(tmp_path / "modules"), str(ROOT))
    return partial(spawn, prelude=tell)


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[], set[str]]:
    return lambda: set((tmp_path / "modules").read_text().split())


def test_session_without_message_loads_only_listed_modules(
    spawn: Spawn, upstream: Upstream, loaded: Callable[[], set[str]]
) -> None:
    proxy = spawn("-c", "true", upstream.address)
    quits(proxy.client, greeted(proxy.client, upstream))
    assert proxy.exit_status() == 0
    assert loaded() == FIRST


def test_first_message_loads_only_listed_modules(
    spawn: Spawn, upstream: Upstream, loaded: Callable[[], set[str]], tmp_path: Path
) -> None:
    proxy = spawn("-c", "true", "-d", str(tmp_path), upstream.address)
    peer = in_data(proxy.client, upstream)
    proxy.client.says(*MESSAGE)
    takes_message(proxy.client, peer, *MESSAGE)
    quits(proxy.client, peer)
    assert proxy.exit_status() == 0
    assert loaded() == FIRST | WITH_A_MESSAGE
