"""A pytest plugin that runs the collected tests for each mutant in a forked process.

Rule: the plugin replaces the code of functions and the values of constants in the loaded module, so
it does not collect tests or import modules again. Processes that a test starts read the mutant from
disk. The plugin first runs all tests without a mutant, and records which tests call each function.
If a function changes, only these tests run. If a constant changes, all tests run. The plugin cannot
record calls in other processes. Tests that start a process therefore run for every mutant, after
the other tests. If they take longer than a second, they run only for the server's module.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import math
import mmap
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from postprox.core import limits

ROOT = Path(__file__).resolve().parents[2]
#: The result for a mutant that no test detects.
SURVIVED = ""
_ALL, _FAILED = "all", "failed"
_PR_SET_CHILD_SUBREAPER = 36

#: The processor time in seconds that a test may use with a mutant, in addition to three times its
#: duration without a mutant. A test that uses more is in an endless loop.
_PROCESSOR = 3

#: The time in seconds that a test may take with a mutant, in addition to ten times its duration
#: without a mutant. A test that takes longer waits forever, as with one in ten shell mutants. Other
#: programs may also slow the test down. If the test of the unchanged proxy now takes more than a
#: third of the time limit, the plugin raises the limit and tests the mutant again.
_CLOCK, _TIMES, _SHARE = 10, 10, 1 / 3
#: The time limit of the unchanged proxy, as a multiple of the time limit with a mutant.
_UNCHANGED = 30

#: The callable objects that a constant tuple may contain, such as `select.epoll` in `loop.EPOLL`.
_CALLABLE = (types.FunctionType, types.BuiltinFunctionType, type)

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
    """Run the tests for every mutant instead of once."""
    _draw_few_examples(session.items)
    _become_subreaper()
    gc.collect()
    gc.freeze()
    callers = _callers(session)
    total = sum(callers[_ALL].values())
    print(f"{len(session.items)} tests take {total:.0f} s without a mutant", flush=True)
    _check_nothing_kills(session, callers[_ALL])
    mutants = Path(os.environ["MUTANTS"]).read_text().splitlines()
    queue = _queue(len(mutants))
    number = int(os.environ["WORKERS"])
    workers = [_fork_worker(session, mutants, queue, callers) for _ in range(number)]
    for worker in workers:
        if os.waitpid(worker, 0)[1]:
            raise pytest.UsageError("a worker failed")
    return True


def _become_subreaper() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _queue(length: int) -> int:
    """Return a descriptor from which each worker reads the next number as four octets."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as numbers:
        numbers.write(b"".join(number.to_bytes(4, "big") for number in range(length)))
    return reader


def _fork_worker(
    session: pytest.Session,
    mutants: list[str],
    queue: int,
    callers: dict[str, dict[str, float]],
) -> int:
    """Start a child process that tests mutants until the queue is empty. Return its process ID."""
    worker = os.fork()
    if worker:
        return worker
    status = 1
    try:
        _become_subreaper()
        results = os.open(os.environ["RESULTS"], os.O_WRONLY | os.O_APPEND)
        while number := os.read(queue, 4):
            mutant = json.loads(mutants[int.from_bytes(number, "big")])
            tests = _tests_of(session, mutant, callers)
            killer = _killer_of(session, [mutant], tests, callers[_ALL])
            os.write(results, f"{json.dumps([mutant['number'], killer])}\n".encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _draw_few_examples(items: list[pytest.Item]) -> None:
    """Make property tests use few, fixed examples. A profile has no effect on existing tests."""
    for item in items:
        test: Any = getattr(item, "obj", None)
        if hasattr(test, _SETTINGS):
            setattr(test, _SETTINGS, _FEW_EXAMPLES)


def _check_nothing_kills(session: pytest.Session, seconds: dict[str, float]) -> None:
    """Raise an error if a test fails with unchanged copies of all modules."""
    package = ROOT / "postprox"
    unchanged = [
        {"file": str(path.relative_to(package)), "function": "", "source": path.read_text()}
        for part in ("core", "shell")
        for path in sorted((package / part).glob("*.py"))
    ]
    tests = _tests_of(session, {"file": "shell/listen.py", "function": ""}, {_ALL: seconds})
    if (killer := _killer_of(session, unchanged, tests, seconds)) != SURVIVED:
        raise pytest.UsageError(f"a test fails with unchanged modules: {killer}")


def _tests_of(
    session: pytest.Session, mutant: dict[str, Any], callers: dict[str, dict[str, float]]
) -> list[pytest.Item]:
    """Return the tests to run, the fastest first."""
    seconds = callers[_ALL]
    # If no calls of the function are recorded, as for constants and other threads, all tests run.
    calling = callers.get(f"{mutant['file']}:{mutant['function']}") or seconds
    slow = 1 if mutant["file"] != "shell/listen.py" else limits.NEVER

    def concerned(test: pytest.Item) -> bool:
        return test.nodeid in calling or (_starts_processes(test) and seconds[test.nodeid] < slow)

    def order(test: pytest.Item) -> tuple[bool, float]:
        return _starts_processes(test), seconds[test.nodeid]

    return sorted(filter(concerned, session.items), key=order)


def _starts_processes(test: pytest.Item) -> bool:
    """Return whether a test may start the proxy as a process."""
    return test.path.stem in ("test_main", "test_listen", "test_sd_notify", "test_system")


def _callers(session: pytest.Session) -> dict[str, dict[str, float]]:
    """Run all tests once. For each function, return the tests that call it and their durations."""
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
        raise pytest.UsageError(f"these tests fail without a mutant: {', '.join(failed)}")
    return calls


def _note(seen: set[types.CodeType], frame: types.FrameType, event: str, _: object) -> None:
    if event == "call" and "/postprox/" in frame.f_code.co_filename:
        seen.add(frame.f_code)


def _name(code: types.CodeType) -> str:
    file = code.co_filename.rpartition("/postprox/")[2]
    return f"{file}:{code.co_qualname.partition('.<locals>')[0]}"


def _in_order(items: list[pytest.Item]) -> list[tuple[pytest.Item, pytest.Item | None]]:
    return list(zip(items, [*items[1:], None], strict=True))


class _TestTimeoutError(Exception):
    """A test took longer than its time limit. `test` is its index."""

    def __init__(self, test: int) -> None:
        super().__init__(test)
        self.test = test


def _killer_of(
    session: pytest.Session,
    mutated: list[dict[str, Any]],
    tests: list[pytest.Item],
    seconds: dict[str, float],
) -> str:
    """Return the test that fails with the mutated modules and its failure, or SURVIVED."""
    factor = 1.0
    while True:
        try:
            return _tried(session, mutated, tests, seconds, factor)
        except _TestTimeoutError as late:
            test = tests[late.test]
        needed = _slowdown(session, test, seconds)
        if needed <= factor:
            return f"{test.nodeid}: the time"
        factor = 2 * needed


def _slowdown(session: pytest.Session, test: pytest.Item, seconds: dict[str, float]) -> float:
    """Return the factor by which a test's time limit must be raised under the current load."""
    began = time.monotonic()
    try:
        _tried(session, [], [test], seconds, _UNCHANGED)
    except _TestTimeoutError:
        raise pytest.UsageError(f"{test.nodeid} does not end with unchanged modules") from None
    return (time.monotonic() - began) / (_SHARE * _time_limit(test, seconds))


def _time_limit(test: pytest.Item, seconds: dict[str, float]) -> float:
    return _CLOCK + _TIMES * seconds.get(test.nodeid, 0)


class _Progress:
    """The index of the child's current test, in memory shared with the parent.

    limits: the time limit of each test in seconds.
    """

    def __init__(self, limits: list[float]) -> None:
        self._limits = limits
        self._began = time.monotonic()
        self._seen = 0
        self._shared = ctypes.c_int.from_buffer(mmap.mmap(-1, ctypes.sizeof(ctypes.c_int)))

    def begin(self, test: int) -> None:
        """Record the index of a test that begins. The child calls this method."""
        self._shared.value = test

    def check(self) -> None:
        """Raise _TestTimeoutError if the test exceeds its limit. The parent calls this method."""
        test, now = self._shared.value, time.monotonic()
        if test != self._seen:
            self._seen, self._began = test, now
        if now - self._began > self._limits[test]:
            raise _TestTimeoutError(test)


def _tried(
    session: pytest.Session,
    mutated: list[dict[str, Any]],
    tests: list[pytest.Item],
    seconds: dict[str, float],
    factor: float,
) -> str:
    """Run *tests* with mutated modules in a child process. *factor* multiplies the time limits.

    Return the test that failed, or SURVIVED. The parent removes the files, because the child may be
    killed.
    """
    progress = _Progress([factor * _time_limit(test, seconds) for test in tests])
    with tempfile.TemporaryDirectory(prefix="mutant-", ignore_cleanup_errors=True) as tree:
        killer = Path(tree, "killer")
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            _quietly(2)
            killer.write_text(_killer(tests, mutated, seconds, progress, Path(tree)))
            os._exit(0)
        try:
            well = _ended_well(child, progress)
        finally:
            _end_those_it_left()
        return killer.read_text() if well else "the processor time or memory of a process"


def _ended_well(child: int, progress: _Progress) -> bool:
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        try:
            progress.check()
        except _TestTimeoutError:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        time.sleep(0.003)


def _end_those_it_left() -> None:
    """Kill the servers that a mutant has left behind. They are now children of this process."""
    while left := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for pid in map(int, left):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _killer(
    tests: list[pytest.Item],
    mutated: list[dict[str, Any]],
    seconds: dict[str, float],
    progress: _Progress,
    tree: Path,
) -> str:
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    try:
        if any(map(_starts_processes, tests)):
            _put_on_disk(tree, mutated)
        for mutant in mutated:
            _put_in_place(mutant)
    except BaseException as error:
        return f"{error!r} while loading the mutant"
    for index, (item, following) in enumerate(_in_order(tests)):
        progress.begin(index)
        _allow(_PROCESSOR + 3 * seconds.get(item.nodeid, 0))
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        except BaseException as error:
            return f"{item.nodeid}: {error!r}"
        if item.session.testsfailed:
            return f"{item.nodeid}\n{_failures[-1]}"
    return SURVIVED


#: The reports of failed tests.
_failures: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Store the report of a failed test, because pytest prints nothing."""
    if report.failed:
        _failures.append(str(report.longrepr))


def _allow(seconds: float) -> None:
    """Limit the additional processor time that this process may use."""
    limit = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _quietly(kept: int) -> None:
    """Discard standard output and standard error, except descriptor `kept`."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in {1, 2} - {kept if kept > 2 else 0}:
        os.dup2(null, descriptor)


def _put_on_disk(tree: Path, mutated: list[dict[str, Any]]) -> None:
    """Create a source tree with the mutant for processes that a test starts."""
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
    """Replace the functions and constants of a module or class with those of another."""
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
    """Replace the functions and classes in a tuple with those of the same name in *owner*."""
    if isinstance(value, tuple):
        return tuple(_function_of(owner, item) for item in value)
    return value


def _function_of(owner: Any, value: Any) -> Any:
    if isinstance(value, types.FunctionType | type):
        return vars(owner).get(value.__name__, value)
    return _with_functions_of(owner, value)


def _fill(table: dict[Any, Any], changed: dict[Any, Any]) -> None:
    """Replace a constant table's contents in place, which also affects importing modules."""
    if all(map(_is_constant, changed.values())):
        table.clear()
        table.update(changed)


def _exchange_code(old: Any, new: Any) -> None:
    old.__code__ = new.__code__
    old.__defaults__ = new.__defaults__
    old.__kwdefaults__ = new.__kwdefaults__
    if hasattr(old, "__wrapped__"):  # a context manager, whose original function is inside
        _exchange_code(old.__wrapped__, new.__wrapped__)


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(_is_constant(item) or isinstance(item, _CALLABLE) for item in value)
    return isinstance(value, int | float | bytes | str | re.Pattern | type(None))
