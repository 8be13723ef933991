"""The observer, a program that runs between the proxy and the filter.

Rule: the observer imports nothing from this package. The observer changes nothing that the proxy or
the filter can notice, except the parent process of the filter's shell.

Usage: observer.py DIRECTORY COMMAND. The observer opens the records in DIRECTORY and then unlinks
    them, so that the filter cannot change them. The observer runs `sh -c COMMAND`, which stays in
    the observer's process group. The filter's standard error is a pipe, as in production.
    The observer forwards all data to the proxy and keeps the last octets in a record.
    Finally, it exits with the filter's exit status, or terminates with the signal that killed the
    filter.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import stat
import sys
import time

VARIABLES = (
    *("EMAIL", "OUTFILE", "SENDER", "RECIPIENT", "REMOTEIP", "HELO"),
    *("RECIPIENTS", "RECIPIENTCOUNT", "QUEUE_ID", "CLIENT_NAME"),
)
#: The names of the records.
RECORDS = ENVIRONMENT, STDERR, END = "environment", "stderr", "end"
#: The maximum number of octets of standard error to keep.
STDERR_KEPT = 1 << 18
#: The states of OUTFILE after the filter has run.
EMPTY, FILLED, UNUSABLE = "empty", "filled", "unusable"
_READ_SIZE = 1 << 16
#: The maximum size of the output to read after the filter has exited. A background process may
#: write forever.
_DRAIN = 1 << 20


class Tail:
    """A record of the last octets of a stream.

    Each call completes the record, because a timeout kills the observer together with the filter.
    """

    def __init__(self, file: int, kept: int = STDERR_KEPT) -> None:
        self._file = file
        self._kept = kept
        self._last = bytearray()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Append octets. If the record would exceed twice the limit, drop its beginning."""
        self._last += data
        del self._last[: -self._kept]
        if self._size + len(data) <= 2 * self._kept:
            _write(self._file, data)
            self._size += len(data)
            return
        self._size = len(self._last)
        try:
            os.lseek(self._file, 0, os.SEEK_SET)
            _write(self._file, bytes(self._last))
            os.ftruncate(self._file, self._size)
        except OSError:
            pass  # The record may be /dev/null, which cannot be truncated.


def main() -> None:
    """Run the command and exit with the same status or signal."""
    directory, command = sys.argv[1:]
    environment = dict(os.environ)
    # The rehearsal sets PYTHONPATH for the proxy, but spawn(8) does not.
    environment.pop("PYTHONPATH", None)
    records = _opened_records(directory)
    values = (environment.get(name, "") for name in VARIABLES)
    _write(records[ENVIRONMENT], b"".join(os.fsencode(value) + b"\0" for value in values))
    # The filter may survive a signal that it sends to its process group. The observer must
    # survive this signal too.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    began = time.monotonic()
    status = _run(command, environment, Tail(records[STDERR]))
    seconds = time.monotonic() - began
    shown = os.waitstatus_to_exitcode(status)
    code = 128 - shown if shown < 0 else shown
    _write(records[END], f"{code} {_outfile(environment)} {seconds:.6f}\n".encode())
    if shown < 0:
        _die_by(-shown)
    os._exit(code)


def _opened_records(directory: str) -> dict[str, int]:
    """Open the records and unlink them. If a record is missing, open /dev/null."""
    opened = {}
    for name in RECORDS:
        path = f"{directory}/{name}"
        try:
            opened[name] = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
            os.unlink(path)  # noqa: PTH108 - pathlib would double the startup time
        except OSError:
            opened.setdefault(name, os.open(os.devnull, os.O_WRONLY))
    try:
        os.rmdir(directory)  # noqa: PTH106
    except OSError:
        pass  # A process that an earlier filter left behind may have moved the file.
    return opened


def _run(command: str, environment: dict[str, str], tail: Tail) -> int:
    """Run the command, forward its standard error, and return its wait status."""
    exited, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reader, writer = os.pipe()
    child = os.posix_spawn(
        "/bin/sh",
        ("sh", "-c", command),
        environment,
        file_actions=((os.POSIX_SPAWN_DUP2, writer, 2),),
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )
    os.close(writer)
    open_ends = [reader, exited]
    while True:
        readable, _, _ = select.select(open_ends, (), ())
        if exited in readable:
            os.read(exited, _READ_SIZE)
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
        if reader in readable and not _forward(reader, tail):
            open_ends.remove(reader)  # The filter has closed its standard error.
    os.set_blocking(reader, False)
    drained = 0
    while drained < _DRAIN and (size := _forward(reader, tail)):
        drained += size
    return status


def _forward(reader: int, tail: Tail) -> int:
    """Read once, forward the data, and return its size, or 0 if no data is available."""
    try:
        data = os.read(reader, _READ_SIZE)
    except BlockingIOError:
        return 0
    tail.add(data)
    _write(2, data)
    return len(data)


def _write(file: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        pass  # The proxy has closed its end, or the disk is full. The filter continues.


def _outfile(environment: dict[str, str]) -> str:
    """Return the state of OUTFILE."""
    path = environment.get("OUTFILE", "")
    try:
        seen = os.lstat(path)
    except OSError:
        return EMPTY
    if not stat.S_ISREG(seen.st_mode) or not os.access(path, os.R_OK):
        return UNUSABLE
    return FILLED if seen.st_size else EMPTY


def _die_by(number: int) -> None:
    """Terminate with the signal that killed the shell, without dumping the observer's core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
