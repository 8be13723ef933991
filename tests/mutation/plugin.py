"""A pytest plugin: the collected tests run against one mutant after the other, each in a fork.

Rule: a mutant is put in the place of the module that is loaded already, so that nothing is
collected or imported again: the code of every function, and the value of every constant, is
exchanged. Processes that a test starts find the mutant on disk. Which tests call a function is
found out once, before; only those run when it changes, and all when a constant does. What a process
calls is not seen: tests that start one run last, for every mutant; those of them that take longer
than a second are about the server, and run for its module only.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import math
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from postprox.core import limits

ROOT = Path(__file__).resolve().parents[2]
#: Who has killed a mutant that nobody has killed.
SURVIVED = ""
_ALL, _FAILED = "all", "failed"
_PR_SET_CHILD_SUBREAPER = 36

#: Seconds of the processor that a test may take for a mutant, beside three times what it takes
#: without one: more is a loop without end.
_PROCESSOR = 3

#: Seconds of the clock for all tests of a mutant: more is a wait without end, as one in ten of the
#: shell's mutants is. Without one they take a quarter of it, if nothing else runs.
_CLOCK = 60

_SETTINGS = "_hypothesis_internal_use_settings"
_FEW_EXAMPLES = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=15,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=tuple(HealthCheck),
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try every mutant instead of running the tests once."""
    _draw_few_examples(session.items)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    gc.collect()
    gc.freeze()
    callers = _callers(session)
    _check_nothing_kills(session, callers[_ALL])
    lines = Path(os.environ["MUTANTS"]).read_text().splitlines()
    with Path(os.environ["RESULTS"]).open("w", buffering=1) as results:
        for mutant in map(json.loads, lines):
            tests = _tests_of(session, mutant, callers)
            killer = _tried(session, [mutant], tests, callers[_ALL])
            print(json.dumps([mutant["number"], killer]), file=results)
    return True


def _draw_few_examples(items: list[pytest.Item]) -> None:
    """Let random tests be few and always the same: a profile counts only before they are made."""
    for item in items:
        test: Any = getattr(item, "obj", None)
        if hasattr(test, _SETTINGS):
            setattr(test, _SETTINGS, _FEW_EXAMPLES)


def _check_nothing_kills(session: pytest.Session, seconds: dict[str, float]) -> None:
    """Raise if modules in which nothing is changed are killed: so would be every mutant of them."""
    package = ROOT / "postprox"
    unchanged = [
        {"file": str(path.relative_to(package)), "function": "", "source": path.read_text()}
        for room in ("core", "shell")
        for path in sorted((package / room).glob("*.py"))
    ]
    tests = _tests_of(session, {"file": "shell/listen.py", "function": ""}, {_ALL: seconds})
    if (killer := _tried(session, unchanged, tests, seconds)) != SURVIVED:
        raise pytest.UsageError(f"it fails though nothing is changed: {killer}")


def _tests_of(
    session: pytest.Session, mutant: dict[str, Any], callers: dict[str, dict[str, float]]
) -> list[pytest.Item]:
    """The tests to run, the quick ones first."""
    seconds = callers[_ALL]
    # Who needs a constant, or calls what runs in a thread of its own, is not known: all may.
    calling = callers.get(f"{mutant['file']}:{mutant['function']}") or seconds
    slow = 1 if mutant["file"] != "shell/listen.py" else limits.NEVER

    def concerned(test: pytest.Item) -> bool:
        return test.nodeid in calling or (_starts_processes(test) and seconds[test.nodeid] < slow)

    def order(test: pytest.Item) -> tuple[bool, float]:
        return _starts_processes(test), seconds[test.nodeid]

    return sorted(filter(concerned, session.items), key=order)


def _starts_processes(test: pytest.Item) -> bool:
    """Whether a test may call the proxy in a process of its own."""
    return test.path.stem in ("test_main", "test_listen", "test_sd_notify", "test_system")


def _callers(session: pytest.Session) -> dict[str, dict[str, float]]:
    """Run all tests once; return for each function which tests call it, and how long they take."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _quietly(writer)
        calls: dict[str, dict[str, float]] = {_ALL: {}, _FAILED: {}}
        for item, following in _in_order(session.items):
            seen: set[types.CodeType] = set()
            began = time.monotonic()
            sys.setprofile(functools.partial(_note, seen))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            sys.setprofile(None)
            failing = {_FAILED} if session.testsfailed > len(calls[_FAILED]) else set()
            for name in {_ALL, *failing, *map(_name, seen)}:
                calls.setdefault(name, {})[item.nodeid] = time.monotonic() - began
        with os.fdopen(writer, "w") as results:
            json.dump(calls, results)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as results:
        calls = json.load(results)
    os.waitpid(child, 0)
    if failed := calls.pop(_FAILED):
        raise pytest.UsageError(f"without any mutant these tests fail: {', '.join(failed)}")
    return calls


def _note(seen: set[types.CodeType], frame: types.FrameType, event: str, _: object) -> None:
    if event == "call" and "/postprox/" in frame.f_code.co_filename:
        seen.add(frame.f_code)


def _name(code: types.CodeType) -> str:
    file = code.co_filename.rpartition("/postprox/")[2]
    return f"{file}:{code.co_qualname.partition('.<locals>')[0]}"


def _in_order(items: list[pytest.Item]) -> list[tuple[pytest.Item, pytest.Item | None]]:
    return list(zip(items, [*items[1:], None], strict=True))


def _tried(
    session: pytest.Session,
    mutated: list[dict[str, Any]],
    tests: list[pytest.Item],
    seconds: dict[str, float],
) -> str:
    """Run *tests* on mutated modules in a child; return the test that failed, SURVIVED if none did.

    This process cleans up, as the child may be killed.
    """
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as tree:
        killer = Path(tree, "killer")
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            _quietly(2)
            killer.write_text(_killer(session, mutated, tests, seconds, Path(tree)))
            os._exit(0)
        well = _ended_well(child)
        _end_those_it_left()
        return killer.read_text() if well else "the time, or what a process may take"


def _ended_well(child: int) -> bool:
    end = time.monotonic() + _CLOCK
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.003)


def _end_those_it_left() -> None:
    """Kill the servers that a mutant has left: they have become children of this process."""
    while left := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for pid in map(int, left):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _killer(
    session: pytest.Session,
    mutated: list[dict[str, Any]],
    tests: list[pytest.Item],
    seconds: dict[str, float],
    tree: Path,
) -> str:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    try:
        if any(map(_starts_processes, tests)):
            _put_on_disk(tree, mutated)
        for mutant in mutated:
            _put_in_place(mutant)
    except BaseException as error:
        return f"{error!r} while it is put in place"
    for item, following in _in_order(tests):
        _allow(_PROCESSOR + 3 * seconds.get(item.nodeid, 0))
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except BaseException as error:
            return f"{item.nodeid}: {error!r}"
        if session.testsfailed:
            return f"{item.nodeid}\n{_failures[-1]}"
    return SURVIVED


#: What was told of the tests that failed; a control that fails is to be understood.
_failures: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep why a test failed: pytest itself is told to be quiet."""
    if report.failed:
        _failures.append(str(report.longrepr))


def _allow(seconds: float) -> None:
    """Let this process be ended after some more seconds of the processor."""
    limit = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _quietly(kept: int) -> None:
    """Write nothing, but for descriptor `kept`."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in {1, 2} - {kept if kept > 2 else 0}:
        os.dup2(null, descriptor)


def _put_on_disk(tree: Path, mutated: list[dict[str, Any]]) -> None:
    """Give processes that a test starts a tree with the mutant in it."""
    ignored = shutil.ignore_patterns("__pycache__", "rehearse")
    shutil.copytree(ROOT / "postprox", tree / "postprox", ignore=ignored)
    for mutant in mutated:
        (tree / "postprox" / mutant["file"]).write_text(mutant["source"])
    importlib.import_module("tests.support.proxies").__dict__["ROOT"] = tree


def _put_in_place(mutant: dict[str, Any]) -> None:
    name = "postprox." + mutant["file"].removesuffix(".py").replace("/", ".")
    module = importlib.import_module(name)
    changed = types.ModuleType(name)
    changed.__dict__.update(__package__=name.rpartition(".")[0], __file__=module.__file__)
    code = compile(mutant["source"], str(module.__file__), "exec", dont_inherit=True)
    exec(code, changed.__dict__)  # noqa: S102
    _exchange(module, changed)


def _exchange(owner: Any, changed: Any) -> None:
    """Let the functions and constants of a module or class be those of another."""
    for name, value in list(vars(changed).items()):
        old, new = vars(owner).get(name), _with_functions_of(owner, value)
        if isinstance(new, property) and isinstance(old, property):
            _exchange_code(old.fget, new.fget)
        elif isinstance(new, types.FunctionType) and isinstance(old, types.FunctionType):
            _exchange_code(old, new)
        elif name.startswith("__") or new is old:
            continue
        elif isinstance(new, dict) and isinstance(old, dict):
            _fill(old, {key: _with_functions_of(owner, value) for key, value in new.items()})
        elif isinstance(new, type) and isinstance(old, type):
            if new.__module__ == changed.__dict__.get("__name__", new.__module__):
                _exchange(old, new)
        elif _is_constant(new) and new != old:
            setattr(owner, name, new)


def _with_functions_of(owner: Any, value: Any) -> Any:
    """Replace the functions in a tuple by those of the same name of a module or class."""
    if isinstance(value, tuple):
        return tuple(_function_of(owner, item) for item in value)
    return value


def _function_of(owner: Any, value: Any) -> Any:
    if isinstance(value, types.FunctionType):
        return vars(owner).get(value.__name__, value)
    return _with_functions_of(owner, value)


def _fill(table: dict[Any, Any], changed: dict[Any, Any]) -> None:
    """Let a table of constants hold what another holds, for all who have imported it."""
    if all(map(_is_constant, changed.values())):
        table.clear()
        table.update(changed)


def _exchange_code(old: Any, new: Any) -> None:
    old.__code__ = new.__code__
    old.__defaults__ = new.__defaults__
    old.__kwdefaults__ = new.__kwdefaults__
    if hasattr(old, "__wrapped__"):  # a context manager: what was written stands within
        _exchange_code(old.__wrapped__, new.__wrapped__)


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(_is_constant(item) or isinstance(item, types.FunctionType) for item in value)
    return isinstance(value, int | float | bytes | str | re.Pattern | type(None))
