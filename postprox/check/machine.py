"""Reads the state of the running system: systemd, sockets, processes and the filter's files.

Rule: this module only reads the state and makes no decisions. It sends no message, only the
commands of short sessions to the proxies and to the Postfix services in front of them. A connection
to the proxy's port can start a socket-activated service.
"""

from __future__ import annotations

import contextlib
import grp
import io
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from .facts import Session
from .postconf import UnreadableError
from .routes import Endpoint
from .scripts import message_flow, pipelines, replies, shell
from .scripts.mistake import Mistake

#: The timeout in seconds for systemctl(1), for parsing a script and for a greeting.
TIMEOUT = 10.0
#: The maximum size in octets of a script to read.
LARGEST_SCRIPT = 1 << 20
_LARGEST_REPLY = 4096
#: The commands of a session. Every server accepts mail for postmaster (RFC 5321, section 4.5.1).
_COMMANDS = (f"EHLO {socket.gethostname()}", "MAIL FROM:<>", "RCPT TO:<postmaster>", "RSET")
_CLOSED = "connection closed"
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

#: The files to which syslogd writes the mail log, the maximum age of a line in seconds, and the
#: maximum number of lines and octets.
_LOG_FILES = ("/var/log/mail.log", "/var/log/maillog")
_LOG_AGE = 24 * 3600.0
_LOG_LINES = 5000
_LOG_OCTETS = 1 << 20
_A_DAY = timedelta(days=1)

#: The address to which to connect if a server listens on all addresses.
_NEAREST = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

#: Shells that can parse a script without running it (-n).
_SHELLS = ("sh", "dash", "bash", "ksh", "mksh", "zsh")
#: Pairs of ELF machine types: that of a 32-bit program, and that of a 64-bit processor that can run
#: this program.
_COMPATIBLE = ((b"\x03\0", b"\x3e\0"), (b"\x28\0", b"\xb7\0"))
_PARSE_PYTHON = "import ast, sys; ast.parse(sys.stdin.buffer.read())"


class Machine:
    """Access to the running system."""

    def show(self, names: Sequence[str], properties: Sequence[str]) -> str:
        """Return the output of `systemctl show` for the given units.

        Raises:
            UnreadableError: systemctl(1) is missing or failed, for example because systemd is not
                in use.
        """
        program = shutil.which("systemctl", path=os.environ.get("PATH", _PATH))
        if program is None:
            raise UnreadableError("systemctl is missing")
        command = [program, "show", "--no-pager", f"--property={','.join(properties)}", *names]
        done = _run(command, b"")
        if done is None or done.returncode:
            lines = done.stderr.decode(errors="backslashreplace").splitlines() if done else []
            raise UnreadableError(f"systemctl show: {lines[0] if lines else 'timed out'}")
        return done.stdout.decode(errors="backslashreplace")

    def boot_time(self) -> float:
        """Return the time at which the monotonic clock began, in seconds since 1970."""
        return time.time() - time.monotonic()

    def command_line(self, pid: int) -> tuple[str, ...]:
        """Return the command line of a process, or () if the process has exited."""
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="backslashreplace")
        except OSError:
            return ()
        return tuple(text.split("\0")[:-1])

    def missing_groups(self, pid: int) -> tuple[str, ...]:
        """Return the groups of a process's user to which the process does not belong.

        A process keeps the groups that its user had when the process was started.
        """
        try:
            text = Path(f"/proc/{pid}/status").read_text()
            user = re.search(r"^Uid:\t(\d+)", text, re.MULTILINE)
            main = re.search(r"^Gid:\t(\d+)", text, re.MULTILINE)
            more = re.search(r"^Groups:\t(.*)", text, re.MULTILINE)
            if not user or user[1] == "0" or not main or not more:
                return ()
            account = pwd.getpwuid(int(user[1]))
            wanted = set(os.getgrouplist(account.pw_name, account.pw_gid))
            own = {int(main[1]), *map(int, more[1].split())}
            return tuple(grp.getgrgid(gid).gr_name for gid in sorted(wanted - own))
        except (OSError, KeyError):
            return ()

    def removed_mounts(self, pid: int) -> tuple[str, ...]:
        """Return the mounts of a process whose directories have been removed."""
        try:
            lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        except OSError:
            return ()
        mounts = (line.split() for line in lines)
        return tuple(words[4] for words in mounts if words[3].endswith("//deleted"))

    def sockets(self) -> str:
        """Return the kernel's TCP socket tables."""
        tables = (Path("/proc/net", name) for name in ("tcp", "tcp6"))
        return "".join(table.read_text() for table in tables if table.exists())

    def owners(self, inodes: Collection[int]) -> dict[int, set[str]]:
        """Map each socket to the programs that have it open, if the caller may inspect them."""
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        found: dict[int, set[str]] = {}
        for process in Path("/proc").glob("[0-9]*") if inodes else ():
            # The process may have exited, or may belong to another user.
            with contextlib.suppress(OSError):
                name = (process / "comm").read_text().strip()
                for link in _links(process / "fd") & wanted.keys():
                    found.setdefault(wanted[link], set()).add(name)
        return found

    def master_runs(self, queue_directory: str) -> bool | None:
        """Return whether master(8) is running for this queue directory, or None if unknown."""
        try:
            pid = int(Path(queue_directory, "pid/master.pid").read_text())
            return Path(f"/proc/{pid}/comm").read_text() == "master\n"
        except PermissionError:
            return None
        except (OSError, ValueError):
            return False

    def has_unit(self, name: str) -> bool:
        """Return whether systemd is running and has a unit file with this name."""
        return Path("/run/systemd/system").is_dir() and any(
            Path(directory, "systemd/system", name).exists()
            for directory in ("/etc", "/usr/lib", "/lib")
        )

    def session(self, endpoint: Endpoint) -> Session:
        """Send EHLO, MAIL, RCPT, RSET and QUIT to a server."""
        host = _NEAREST.get(endpoint.host, endpoint.host)
        try:
            if endpoint.path:
                client = socket.socket(socket.AF_UNIX)
                client.settimeout(TIMEOUT)
                client.connect(endpoint.path)
            else:
                client = socket.create_connection((host, endpoint.port), TIMEOUT)
            with client, client.makefile("rwb") as stream:
                return _session(stream)
        except TimeoutError:
            return Session(f"timed out after {TIMEOUT:g} s")
        except OSError as error:
            return Session((error.strerror or str(error)).lower())

    def changed(self, paths: Iterable[str]) -> float:
        """Return the time at which one of the paths was last changed, in seconds since 1970.

        For a directory, the files in it also count. The time is st_ctime, which also changes if the
        mode changes.
        """
        times = [0.0]
        for path in map(Path, paths):
            with contextlib.suppress(OSError):
                files = [path, *path.iterdir()] if path.is_dir() else [path]
                times += [each.stat().st_ctime for each in files]
        return max(times)

    def mail_log(self, since: float) -> tuple[str, str]:
        """Return the lines in the mail log since a time, and a command that shows the last lines.

        Lines that are older than a day do not count.
        """
        since = max(since, time.time() - _LOG_AGE)
        program = shutil.which("journalctl", path=os.environ.get("PATH", _PATH))
        options = ["--no-pager", "--quiet", "--facility=mail", "--output=short-iso"]
        options += [f"--lines={_LOG_LINES}", f"--since=@{since:.0f}"]
        done = _run([program, *options], b"") if program else None
        if done and done.stdout:
            log = done.stdout.decode(errors="backslashreplace")
            return log, "journalctl --no-pager --facility=mail -n 50"
        for path in _LOG_FILES:
            with contextlib.suppress(OSError):
                log = _tail(Path(path)).decode(errors="backslashreplace")
                lines = [line for line in log.splitlines() if _logged_at(line) >= since]
                return "\n".join(lines), f"tail -n 50 {path}"
        return "", ""


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LOG_OCTETS))
        return file.read()


def _logged_at(line: str) -> float:
    """Return the time of a line in one of rsyslog's two formats, or 0.0 if it is in neither."""
    try:
        return datetime.fromisoformat(line.partition(" ")[0]).timestamp()
    except ValueError:
        pass
    now = datetime.now().astimezone()
    try:
        logged = datetime.strptime(f"{now.year} {line[:15]}", "%Y %b %d %H:%M:%S").astimezone()
    except ValueError:
        return 0.0
    # The format has no year.
    return (logged if logged <= now + _A_DAY else logged.replace(year=now.year - 1)).timestamp()


def _session(stream: io.BufferedRWPair) -> Session:
    greeting = _reply(stream)
    refused: tuple[str, str] = ("", "")
    try:
        for command in _COMMANDS if greeting.startswith("220") else ():
            stream.write(f"{command}\r\n".encode())
            stream.flush()
            reply = _reply(stream)
            if not reply.startswith("2"):
                refused = (command, reply)
                break
    except OSError as error:
        refused = (command, (error.strerror or str(error)).lower())
    if greeting != _CLOSED:
        _quit(stream)
    return Session(greeting, *refused)


def _reply(stream: io.BufferedRWPair) -> str:
    """Return the last line of the next reply."""
    line = stream.readline(_LARGEST_REPLY)
    while line[3:4] == b"-":
        line = stream.readline(_LARGEST_REPLY)
    return line.decode(errors="backslashreplace").strip() or _CLOSED


def _quit(stream: io.BufferedRWPair) -> None:
    """End a session. The server may have closed the connection already."""
    with contextlib.suppress(OSError):
        stream.write(b"QUIT\r\n")
        stream.flush()
        stream.readline(_LARGEST_REPLY)


def _links(directory: Path) -> set[str]:
    """Return the targets of a process's open descriptors."""
    links = set()
    for entry in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor is already closed
            links.add(str(entry.readlink()))
    return links


def _run(command: Sequence[str], content: bytes) -> subprocess.CompletedProcess[bytes] | None:
    """Run a program with a minimal environment.

    Return None if the program times out or cannot be started.
    """
    try:
        return subprocess.run(
            command,
            input=content,
            capture_output=True,
            env={"PATH": _PATH, "LC_ALL": "C"},
            cwd="/",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def shell_error(command: str) -> str:
    """Return the syntax error that the shell finds in a command, or "". The command is not run."""
    return _first_line(_run(["/bin/sh", "-n"], command.encode(errors="surrogateescape") + b"\n"))


def syntax_error(interpreter: str, script: bytes) -> str:
    """Return the syntax error in a shell or Python script, or "" if no error is known.

    The interpreter named in the script is not used, because another user may have written the
    script's first line. Instead, one of the system's interpreters parses the script without running
    it.
    """
    name = PurePosixPath(interpreter or "sh").name
    if name in _SHELLS:
        program = shutil.which(name, path=_PATH)
        return _first_line(_run([program, "-n"], script)) if program else ""
    if interpreter and os.path.realpath(interpreter) == os.path.realpath(sys.executable):
        return _last_line(_run([sys.executable, "-I", "-S", "-c", _PARSE_PYTHON], script))
    return ""


def lost_status(interpreter: str, script: bytes) -> tuple[str, int]:
    """Return the last line of a shell script if this line hides a scanner's exit status."""
    if PurePosixPath(interpreter or "sh").name not in _SHELLS:
        return "", 0
    return pipelines.lost_status(script.decode("latin-1"))


def without_message(interpreter: str, script: bytes) -> tuple[str, int]:
    """Return the line that runs a scanner, if the shell script never reads the message."""
    if PurePosixPath(interpreter or "sh").name not in _SHELLS:
        return "", 0
    return message_flow.without_message(script.decode("latin-1"))


def reply_to_output(interpreter: str, script: str) -> tuple[str, tuple[int, ...]]:
    """Return the first line that prints a reply to standard output, and the numbers of all such
    lines.
    """
    if PurePosixPath(interpreter or "sh").name not in _SHELLS:
        return "", ()
    return replies.reply_to_output(script)


def mistakes(interpreter: str, script: str) -> tuple[Mistake, ...]:
    """Return the lines of a shell script that change the filter's result by mistake."""
    if PurePosixPath(interpreter or "sh").name not in _SHELLS:
        return ()
    program = PurePosixPath(os.path.realpath(interpreter or "/bin/sh")).name
    return tuple(shell.mistakes(script, echo_expands=program == "dash"))


def has_crlf(interpreter: str, script: bytes) -> bool:
    """Return whether the #! line, or any line of a shell script, ends with CR LF."""
    if not script.startswith(b"#!"):
        return False
    is_shell = PurePosixPath(interpreter.rstrip("\r")).name in _SHELLS
    return b"\r\n" in (script if is_shell else script.partition(b"\n")[0] + b"\n")


def joined_arguments(script: bytes) -> str:
    """Return the arguments of a #! line if the interpreter requires separate arguments."""
    line = script[:256].partition(b"\n")[0].decode("latin-1")
    words = line[2:].split() if line.startswith("#!") else []
    name = PurePosixPath(words[0]).name if words else ""
    is_affected = name in _SHELLS or name.startswith("python")
    return " ".join(words[1:]) if is_affected and len(words) > 2 else ""


def is_blank(path: str, script: bytes, interpreter: str) -> bool:
    """Return whether a file is empty, or is a shell or Python script with only comments."""
    if not script:
        with contextlib.suppress(OSError):
            return Path(path).stat().st_size == 0
        return False
    name = PurePosixPath(interpreter.rstrip("\r") or "sh").name
    if name not in _SHELLS and not re.fullmatch(r"python[0-9.]*", name):
        return False
    lines = (line.strip() for line in script.replace(b"\r", b"\n").split(b"\n"))
    return all(not line or line.startswith(b"#") for line in lines)


def is_foreign(path: str) -> bool:
    """Return whether a file is an ELF program for another processor architecture (elf(5))."""
    try:
        with Path(path).open("rb") as file, Path(sys.executable).open("rb") as own:
            head, own_head = file.read(20), own.read(20)
    except OSError:
        return False
    machines = (head[18:20], own_head[18:20])
    is_elf = head.startswith(b"\x7fELF") and own_head.startswith(b"\x7fELF") and len(head) == 20
    # On these processors, a 64-bit kernel can run 32-bit programs.
    return is_elf and machines[0] != machines[1] and machines not in _COMPATIBLE


def _first_line(done: subprocess.CompletedProcess[bytes] | None) -> str:
    lines = done.stderr.decode(errors="backslashreplace").split("\n") if done else [""]
    return lines[0].strip() if done and done.returncode else ""


def _last_line(done: subprocess.CompletedProcess[bytes] | None) -> str:
    lines = done.stderr.decode(errors="backslashreplace").strip().split("\n") if done else [""]
    return lines[-1].strip() if done and done.returncode else ""


def directories(path: str) -> list[str]:
    """Return the parent directories of a file, beginning with the root."""
    return [str(parent) for parent in reversed(PurePosixPath(path).parents)]


def closed_directory(path: str, may_search: Callable[[str], bool | None]) -> str:
    """Return the first parent directory that cannot be searched."""
    for directory in directories(path):
        if may_search(directory) is False:
            return directory
    return ""


def open_paths(path: str) -> tuple[str, ...]:
    """Return the world-writable paths among a file, its real path, and their parent directories.

    A directory with the sticky bit does not count, because a user cannot replace another user's
    file in this directory.
    """
    found = []
    real = os.path.realpath(path)
    paths = [path, *directories(path), real, *directories(real)]
    for each in dict.fromkeys(paths):
        try:
            mode = Path(each).stat().st_mode
        except OSError:
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            found.append(each)
    return tuple(found)
