"""Keeps slow-starting programs running across transcripts, with fixed addresses.

Rule: a pool ends and removes its files when the suite exits, for any reason. Each slot belongs to
one worker of the suite, so no two transcripts use a program at the same time.

A program in a pool is started without a filter, with its own directory, and without any
transcript's options. A program that exits is restarted.

Each program has its own session. The pool adopts the program's orphaned workers, so that it can
also end workers that have left the program's process group.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .adapter import Adapter, Place
from .command_line import Address, Options
from .direct import Wiring
from .kernel import adopt_orphans, children, die_with, own_addresses
from .loop import Loop

#: The environment variable with the directory of the pools, which the suite sets.
DIRECTORY = "POSTPROX_ADAPTER_POOL"
#: The environment variable with the number of this worker's slot, which the suite sets.
_SLOT = "POSTPROX_ADAPTER_SLOT"
_LOOK_AGAIN = 0.05
_BACKLOG = 128
#: The signals that end the pool. A terminal sends SIGINT and SIGHUP to the suite's process group.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: The time between SIGTERM and SIGKILL, in seconds.
_GRACE = 3.0


@dataclass(frozen=True)
class Slot:
    """The addresses of one program in a pool."""

    entrance: Address
    upstream: Address
    #: A descriptor that is readable when the pool has ended (pidfd_open(2)).
    ended: int


@dataclass(frozen=True)
class Pool:
    """The arguments of the command with which the suite starts a pool."""

    directory: Path
    slots: int
    #: The suite's process ID.
    suite: int


def serve(adapter: Adapter, file: Path, pool: Pool) -> NoReturn:
    """Run the programs of a pool until SIGTERM or the suite's exit."""
    running: dict[int, subprocess.Popen[bytes]] = {}

    def stop(*_: object) -> NoReturn:
        for ending in _ENDING:
            signal.signal(ending, signal.SIG_IGN)
        _end_all()
        shutil.rmtree(pool.directory, ignore_errors=True)
        os._exit(0)

    for ending in _ENDING:
        signal.signal(ending, stop)
    adopt_orphans()
    die_with(pool.suite, signal.SIGTERM)
    directory = pool.directory / _kind(adapter)
    directory.mkdir(parents=True)
    slots = pool.slots
    while True:
        for number in range(slots):
            if number in running and not _is_running(running[number].pid):
                _signal_group(running[number].pid, signal.SIGKILL)
                running.pop(number).wait()
            if number not in running:
                running[number] = _start(adapter, file, directory, number)
        for pid in set(children()) - {one.pid for one in running.values()}:
            os.waitpid(pid, os.WNOHANG)  # an adopted worker
        time.sleep(_LOOK_AGAIN)


def _end_all() -> None:
    """End all programs and their workers, first with SIGTERM and then with SIGKILL."""
    programs = children()
    for pid in programs:
        _signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while any(map(_is_running, programs)) and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN)
    # When a process ends, its workers become children of this process.
    while pids := children():
        for pid in pids:
            _signal_group(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _is_running(pid: int) -> bool:
    """Whether the child *pid* is running. An exited child keeps its process ID."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the child *pid* and its process group."""
    for send in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            send(pid, number)


def _kind(adapter: Adapter) -> str:
    return "control" if adapter.is_control else "program"


def _start(adapter: Adapter, file: Path, directory: Path, number: int) -> subprocess.Popen[bytes]:
    """Start the program in slot *number*, and write its addresses when it listens."""
    files = directory / f"slot-{number}"
    shutil.rmtree(files, ignore_errors=True)
    (files / "spool").mkdir(parents=True)
    entrance, upstream = own_addresses(files, unix=adapter.unix, slot=number)
    options = Options(upstream, entrance, directory=files / "spool", foreground=True)
    options.words = ("-d", str(options.directory), "--foreground")
    program = adapter.program(Place(options, entrance, upstream, files, file, adapter.is_control))
    this = os.getpid()
    process = subprocess.Popen(
        list(map(str, program.argv)),
        env={**os.environ, **program.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        # Before execve(2), a new process still has the SIGTERM handler, which would discard the
        # signal.
        preexec_fn=lambda: die_with(this, signal.SIGKILL),  # noqa: PLW1509 - no threads
    )
    deadline = time.monotonic() + adapter.starting
    while not entrance.is_listening() and time.monotonic() < deadline:
        if process.poll() is not None:
            return process
        time.sleep(_LOOK_AGAIN)
    time.sleep(adapter.settling)
    addresses = [[one.host, one.port] for one in (entrance, upstream)]
    (directory / f"{number}.new").write_text(json.dumps([this, *addresses]))
    (directory / f"{number}.new").rename(directory / f"{number}.json")
    return process


def borrow(adapter: Adapter, file: Path, options: Options, directory: Path) -> NoReturn:
    """Let the suite test the program in this worker's slot until SIGTERM or the end of the pool."""
    try:
        clients = options.listen.bind()
    except OSError as error:
        sys.exit(f"{file.name}: cannot listen on {options.listen}: {error}")
    number = os.environ.get(_SLOT, "0")
    slot = _awaited(directory / _kind(adapter) / f"{number}.json", adapter.starting)
    if not slot.upstream.port:
        with contextlib.suppress(FileNotFoundError):
            Path(slot.upstream.host).unlink()
    upstream_side = slot.upstream.bind()
    clients.listen(_BACKLOG)
    if not options.foreground and os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    loop = Loop()
    adapter.passage.start(loop, Wiring(clients, slot.entrance, upstream_side, options.upstream))
    loop.run(until=slot.ended)
    os._exit(0)


def _awaited(path: Path, seconds: float) -> Slot:
    """Read the slot from the file *path*, which is created when the program listens."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline or not path.parent.parent.exists():
            sys.exit(f"{path.name}: the program in the pool is not listening")
        time.sleep(_LOOK_AGAIN)
    try:
        pool, *addresses = json.loads(path.read_text())
        entrance, upstream = (Address(*one) for one in addresses)
        return Slot(entrance, upstream, os.pidfd_open(pool))
    except (FileNotFoundError, ProcessLookupError):
        sys.exit(f"{path.name}: the pool has exited")
