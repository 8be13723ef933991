"""Starts the program and its relay for one transcript, and cleans up after them.

Rule: the process that the suite starts becomes the program. The suite therefore observes the
signals, exit status, memory and child processes of the program itself. The relay is a child process
in its own session. It exits after the program and removes the files.

Neither process outlives the other. The relay detects any exit of the program, and the program
receives SIGTERM if the process that started it is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from .adapter import Adapter, Place, Program
from .command_line import Options
from .direct import Wiring
from .kernel import adopt_orphans, children, die_with, own_addresses
from .loop import Loop

_LOOK_AGAIN = 0.005
_BACKLOG = 128
#: The signals that a supervising process forwards to the program.
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def launch(adapter: Adapter, file: Path, options: Options) -> NoReturn:
    """Run the *adapter*'s program with *options*. *file* is the adapter's file."""
    parent = os.getppid()
    try:
        clients = options.listen.bind()
    except OSError as error:
        sys.exit(f"{file.name}: cannot listen on {options.listen}: {error}")
    files = Path(tempfile.mkdtemp(prefix="adapter-", dir=_next_to(options.directory)))
    files.chmod(0o755)
    entrance, upstream = own_addresses(files, unix=adapter.unix)
    try:
        upstream_side = upstream.bind()
        wiring = Wiring(clients, entrance, upstream_side, options.upstream)
        if wiring.is_upstream_reachable():
            wiring.listen_for_program()
        program = adapter.program(
            Place(options, entrance, upstream, files, file, adapter.is_control)
        )
    except BaseException:
        shutil.rmtree(files, ignore_errors=True)
        raise
    if options.foreground:
        die_with(parent, signal.SIGTERM)
    if program.detaches:
        _leave_in_background(adapter, wiring, program, files, options)
    if options.foreground:
        _start_passage(adapter, wiring, files, os.getpid())
        _become(program, wiring)
    _go_to_background(adapter, wiring, program, files)


def _next_to(directory: Path) -> str | None:
    """Return the directory for the adapter's files. It is next to DIR, which must stay empty."""
    parent = directory.parent
    return str(parent) if parent != Path("/") and parent.is_dir() else None


def _silence(*descriptors: int) -> None:
    """Connect *descriptors* to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for one in descriptors:
        os.dup2(null, one)
    os.close(null)


def _become(program: Program, wiring: Wiring) -> NoReturn:
    """Replace this process with the program."""
    wiring.clients.close()
    wiring.upstream_side.close()
    os.environ.update(program.env)
    argv = list(map(str, program.argv))
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - a shell has nothing to do here
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


def _start_passage(adapter: Adapter, wiring: Wiring, files: Path, pid: int) -> int:
    """Start the relay, which exits after the process *pid*.

    Return a descriptor that reaches EOF when the relay is ready for clients.
    """
    ready, is_ready = os.pipe()
    ended = os.pidfd_open(pid)
    if os.fork():
        os.close(is_ready)
        os.close(ended)
        return ready
    os.setsid()
    os.close(ready)
    _silence(0, 1)
    for number in _PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    try:
        if _has_started(adapter, wiring, ended):
            wiring.clients.listen(_BACKLOG)
            os.close(is_ready)
            loop = Loop()
            adapter.passage.start(loop, wiring)
            loop.run(until=ended)
    finally:
        shutil.rmtree(files, ignore_errors=True)
        # Prevent the cleanup of the parent process from running in this copy.
        sys.stderr.flush()
        os._exit(0)


def _has_started(adapter: Adapter, wiring: Wiring, ended: int) -> bool:
    """Wait until the program listens. Return False if it exits before that."""
    deadline = time.monotonic() + adapter.starting
    while not wiring.entrance.is_listening():
        if _is_readable(ended, _LOOK_AGAIN) or time.monotonic() > deadline:
            return False
    return not _is_readable(ended, adapter.settling)


def _is_readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def _wait_ready(ready: int) -> None:
    with contextlib.suppress(OSError):
        os.read(ready, 1)
    os.close(ready)


# --- programs in the background


def _go_to_background(adapter: Adapter, wiring: Wiring, program: Program, files: Path) -> NoReturn:
    """Put a program into the background that always stays in the foreground itself."""
    pid = os.fork()
    if not pid:
        os.setsid()
        _silence(0, 1, 2)
        _become(program, wiring)
    _wait_ready(_start_passage(adapter, wiring, files, pid))
    os._exit(0)


def _leave_in_background(
    adapter: Adapter, wiring: Wiring, program: Program, files: Path, options: Options
) -> NoReturn:
    """Run a program that itself goes into the background."""
    # The program becomes a child of this process when its own parent exits.
    adopt_orphans()
    argv = list(map(str, program.argv))
    try:
        status = subprocess.call(argv, env={**os.environ, **program.env})
    except OSError as error:
        status = f"{argv[0]}: {error.strerror}"  # type: ignore[assignment]
    pids = children()
    if status or not pids:
        shutil.rmtree(files, ignore_errors=True)
        sys.exit(status or f"{argv[0]}: the command left no process in the background")
    if options.foreground:
        # The relay accepts clients as soon as it runs, and they may send a signal at once.
        _forward_signals(pids[0])
    ready = _start_passage(adapter, wiring, files, pids[0])
    if not options.foreground:
        _wait_ready(ready)
        os._exit(0)
    wiring.clients.close()
    wiring.upstream_side.close()
    status = _exit_status(pids[0])
    if status < 0:  # this process dies from the same signal as the program
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _forward_signals(pid: int) -> None:
    """Forward signals to the process *pid*."""
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _frame: os.kill(pid, number))


def _exit_status(pid: int) -> int:
    """Wait until the process *pid* ends, and return its exit status."""
    while True:
        with contextlib.suppress(InterruptedError):
            ended, status = os.waitpid(-1, 0)
            if ended == pid:
                return os.waitstatus_to_exitcode(status)
