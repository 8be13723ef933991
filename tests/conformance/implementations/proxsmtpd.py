"""An adapter for proxsmtpd(8), of Debian's proxsmtp: `proxsmtpd.py HOST:PORT -l ... -c ...`.

Rule: proxsmtpd itself handles every session and message. The adapter only hides intended
differences that would fail every transcript.

- It translates the command line (HOST:PORT, -c, -d, -t, -l, --foreground) into proxsmtpd.conf(5).
- It translates the filter's contract (`filter_message`, which proxsmtpd runs as FilterCommand). A
  nonempty OUTFILE is copied over EMAIL. Status 2 and more becomes 0 without -r, and 451 with it.
  RECIPIENT, REMOTEIP and HELO are set. Line ends and dots are not changed.
- It restores the greeting and the EHLO reply of upstream, in which proxsmtpd inserts its own name,
and it restores PIPELINING, which proxsmtpd removes. Every transcript contains them. The port for
clients, with its backlog, therefore belongs to this module.

proxsmtpd replaces this process. A child relays the octets and ends with proxsmtpd. The adapter
writes nothing into DIR. Its files are next to DIR, so that they are removed with DIR if this
process is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

Through = Callable[[bytes], bytes]
PROGRAM = "/usr/sbin/proxsmtpd"
#: Variables for `filter_message`, removed from the filter's environment.
COMMAND, REJECT, FILES = "PROXSMTPD_COMMAND", "PROXSMTPD_REJECT", "PROXSMTPD_FILES"
CONFIGURATION = """\
OutAddress: {files}/up
Listen: {files}/in
FilterType: file
FilterTimeout: {timeout}
TempDirectory: {tempdir}
"""
FILTER = "FilterCommand: exec {python} -S -E {module} --as-filter\n"
#: The name that proxsmtpd inserts instead of the text from upstream.
GREETING, HELLO = b"220 smtp.passthru", (b"250 smtp.passthru", b"250-smtp.passthru")
TAKEN_OUT = b"PIPELINING"
_PR_SET_PDEATHSIG = 1
_STARTING = 10.0


def main(arguments: list[str]) -> None:
    """Run proxsmtpd with the command line of postprox."""
    if arguments == ["--as-filter"]:
        sys.exit(filter_message())
    options = parsed(arguments)
    files = tempfile.mkdtemp(prefix="proxsmtpd-", dir=next_to(options.tempdir))
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(options.listen)
    except OSError as error:
        shutil.rmtree(files)
        sys.exit(f"{PROGRAM}: cannot listen on {options.listen}: {error}")
    Path(files, "conf").write_text(configuration(options, files), "utf-8")
    passage = Passage(server, files, options.upstream)
    os.environ.update({COMMAND: options.command or "", FILES: files})
    if options.reject:
        os.environ[REJECT] = "1"
    run = [PROGRAM, "-f", f"{files}/conf", "-p", f"{files}/pid"]
    if options.foreground:
        beside(passage, os.getpid())
        passage.close()
        silence(2)
        os.execvp(PROGRAM, [*run, "-d", "0"])  # noqa: S606 - a shell has nothing to do here
    if status := subprocess.call(run):
        sys.exit(status)
    beside(passage, pid_of(f"{files}/pid"))


def beside(passage: Passage, pid: int) -> None:
    """Start a child that relays the octets as long as the process *pid* exists."""
    if os.fork() == 0:
        os.setsid()
        passage.serve(pid)
        os._exit(0)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line, as far as proxsmtpd has an equivalent."""
    parser = argparse.ArgumentParser(prog="proxsmtpd")
    parser.add_argument("upstream", type=address)
    parser.add_argument("-c", "--command")
    parser.add_argument("-d", "--tempdir", default="/tmp")
    parser.add_argument("-t", "--timeout", type=int, default=30)
    parser.add_argument("-r", "--reject", action="store_true")
    parser.add_argument("-v", "--verbose", action="count")
    parser.add_argument("-l", "--listen", type=address)
    parser.add_argument("--foreground", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    if options.listen is None:
        parser.error("proxsmtpd has no stdio mode: judge it with --modes listen")
    return options


def address(text: str) -> tuple[str, int]:
    """Return HOST and PORT of *text*."""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def configuration(options: argparse.Namespace, files: str) -> str:
    """Return the text of proxsmtpd.conf(5)."""
    text = CONFIGURATION.format(files=files, timeout=options.timeout, tempdir=options.tempdir)
    if options.command is not None:
        text += FILTER.format(python=sys.executable, module=Path(__file__).resolve())
    return text


def next_to(directory: str) -> str | None:
    """Return the directory for files of this module, next to *directory*, or None at the root."""
    parent = Path(directory).parent
    return None if parent == Path("/") else str(parent)


def silence(descriptor: int) -> None:
    """Discard output to *descriptor*."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def pid_of(pidfile: str) -> int:
    """Return the server's pid, once its pid file exists."""
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int(Path(pidfile).read_text("ascii"))
        time.sleep(0.01)
    sys.exit(f"{PROGRAM}: no pid file")


# --- the filter interface


def filter_message() -> int:
    """Run the command like postprox. Return the exit status for proxsmtpd."""
    command, files = os.environ.pop(COMMAND), os.environ.pop(FILES)
    reject = os.environ.pop(REJECT, "")
    descriptor, outfile = tempfile.mkstemp(dir=files)
    os.close(descriptor)
    environment = {
        **os.environ,
        "OUTFILE": outfile,
        "RECIPIENT": os.environ.get("RECIPIENTS", "").partition("\n")[0],
        "REMOTEIP": os.environ.get("REMOTE", ""),
        "HELO": os.environ.get("REMOTE_HELO", ""),
    }
    prctl = ctypes.CDLL(None).prctl
    # proxsmtpd kills its child, which is this process.
    shell = subprocess.Popen(
        ["/bin/sh", "-c", command],
        env=environment,
        preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509 - no threads
    )
    status = shell.wait() or replaced(Path(outfile), os.environ["EMAIL"])
    if status == 1 or (status and reject):
        if status != 1:
            sys.stderr.write("451 4.3.0 The mail filter failed\n")
        return 1
    return 0


def replaced(outfile: Path, email: str) -> int:
    """Replace the message by the filter's output. Return 0, or 2 if that fails."""
    try:
        written = outfile.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(written.st_mode):
        return 2
    if written.st_size:
        with contextlib.suppress(shutil.SameFileError):
            shutil.copyfile(outfile, email)
    return 0


# --- the octets on the wire


class Passage:
    """The port for clients, and the socket that proxsmtpd uses as upstream."""

    def __init__(self, server: socket.socket, files: str, upstream: tuple[str, int]) -> None:
        self._server = server
        self._files = Path(files)
        self._upstream = upstream
        self._up = socket.socket(socket.AF_UNIX)
        self._up.bind(f"{files}/up")
        self._up.listen()

    def close(self) -> None:
        """Close the sockets, which the child keeps."""
        self._server.close()
        self._up.close()

    def serve(self, pid: int) -> None:
        """Relay between clients, proxsmtpd and upstream until the process *pid* has ended."""
        for descriptor in (0, 1, 2):
            silence(descriptor)
        ended = os.pidfd_open(pid)
        try:
            self._await_proxsmtpd()
            self._server.listen(128)
            while ended not in select.select([self._server.fileno(), ended], [], [])[0]:
                client, _ = self._server.accept()
                self._join(client)
        finally:
            shutil.rmtree(self._files)

    def _join(self, client: socket.socket) -> None:
        """Connect one client with its upstream before the next one is accepted."""
        inside = self._inside()
        if inside is None:
            client.close()
            return
        words = Words()
        threading.Thread(target=passed, args=(client, inside, as_it_is), daemon=True).start()
        threading.Thread(target=passed, args=(inside, client, words.told), daemon=True).start()
        self._up.settimeout(_STARTING)
        with contextlib.suppress(TimeoutError):
            outside, _ = self._up.accept()
            threading.Thread(target=self._relay, args=(outside, words), daemon=True).start()

    def _await_proxsmtpd(self) -> None:
        """Wait until proxsmtpd listens. Its socket exists before that, its pid file does not."""
        deadline = time.monotonic() + _STARTING
        while not (self._files / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _inside(self) -> socket.socket | None:
        """Return a connection to proxsmtpd, or None if it no longer accepts any."""
        inside = socket.socket(socket.AF_UNIX)
        try:
            inside.connect(str(self._files / "in"))
        except OSError:
            inside.close()
            return None
        return inside

    def _relay(self, outside: socket.socket, words: Words) -> None:
        try:
            upstream = socket.create_connection(self._upstream)
        except OSError:
            outside.close()
            return
        threading.Thread(target=passed, args=(outside, upstream, as_it_is), daemon=True).start()
        passed(upstream, outside, words.said)


class Words:
    """The last reply from upstream, and its text for the client instead of proxsmtpd's own name."""

    def __init__(self) -> None:
        self._greeting: list[bytes] = []
        self._greeted = False
        self._reply: list[bytes] = []
        self._over = False
        self._unfinished = b""
        self._held = b""
        #: Within a reply to EHLO: the lines of the reply from upstream up to the removed one.
        self._before: list[bytes] = []

    def said(self, octets: bytes) -> bytes:
        """Store the last reply from upstream, which is sent to proxsmtpd unchanged."""
        *lines, self._unfinished = (self._unfinished + octets).split(b"\n")
        for line in lines:
            if self._over:
                self._reply = []
            self._reply.append(line + b"\n")
            self._over = line[3:4] != b"-"
            if not self._greeted:
                self._greeting, self._greeted = self._reply, self._over
        return octets

    def told(self, octets: bytes) -> bytes:
        """Return these octets as sent to the client, and buffer a possible name of proxsmtpd."""
        *lines, self._held = (self._held + octets).split(b"\n")
        told = b"".join(self._line(line + b"\n") for line in lines)
        names = (GREETING, *HELLO)
        if self._before or any(name.startswith(self._held[: len(name)]) for name in names):
            return told
        told, self._held = told + self._held, b""
        return told

    def _line(self, line: bytes) -> bytes:
        if line.startswith(GREETING):
            return b"".join(self._greeting)
        if line.startswith(HELLO) and self._reply:
            first, *rest = self._reply
            places = [one[4:].strip().upper() for one in rest]
            if TAKEN_OUT in places and line[3:4] == b"-":
                self._before = [first, *rest[: places.index(TAKEN_OUT)]]
            return line[:4] + first[4:]
        if self._before and all(line[4:] != one[4:] for one in self._before):
            self._before = []
            return b"250-" + TAKEN_OUT + b"\r\n" + line
        return line


def passed(source: socket.socket, target: socket.socket, through: Through) -> None:
    """Relay everything from *source* to *target*, including the end."""
    try:
        while octets := source.recv(65536):
            target.sendall(through(octets))
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def as_it_is(octets: bytes) -> bytes:
    """Return the octets unchanged."""
    return octets


if __name__ == "__main__":
    main(sys.argv[1:])
