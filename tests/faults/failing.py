"""Replaces the proxy's system modules so that a selected system call fails.

Rule: the selected call fails once, with a realistic error. The process reads the selection from a
symbolic link, which can be changed while a server is running. If the link `$FAILING` contains
`N.V`, the N-th call after the link's creation fails with the V-th error that `ERRORS` lists for its
name. With `N.V.NAME`, only calls with this name are counted. Without the link, no call fails and
the count is reset. Each failure is written to `$FAILING.log` as one line with the call, the error
and the descriptor's owner. If N is 0, all calls are recorded and none fails. The calls for logging
are included. `$FAILING_SYSLOG` is the path of the syslog socket.

This module runs inside the proxy before the proxy's modules are imported.
"""

from __future__ import annotations

import _socket
import errno
import posix
import select
import stat
from collections.abc import Callable
from typing import Any

#: The errors of each call. The table omits calls that cannot fail on an open descriptor (fcntl(2)),
#: waiting for a child process, reading from a pipe, errors that only a wrong argument causes, and
#: calls that occur only after another failure (ftruncate(2)).
ERRORS: dict[str, tuple[int, ...]] = {
    "open": (errno.EMFILE, errno.ENOSPC, errno.EACCES),
    "read": (errno.ECONNRESET, errno.EIO),
    "write": (errno.EPIPE, errno.ENOSPC, errno.ENOBUFS),
    "pread": (errno.EIO,),
    "fstat": (errno.EIO,),
    "lstat": (errno.EACCES,),
    "close": (errno.EIO, errno.ENOSPC),
    "pipe": (errno.EMFILE, errno.ENFILE),
    "link": (errno.ENOSPC, errno.EPERM),
    "unlink": (errno.EIO, errno.EACCES),
    "rmdir": (errno.EIO,),
    "chmod": (errno.EPERM,),
    "listdir": (errno.EMFILE, errno.EIO),
    "scandir": (errno.EMFILE, errno.EIO),
    "lockf": (errno.ENOLCK,),
    "dup2": (errno.EBUSY,),
    "posix_spawn": (errno.EAGAIN, errno.ENOMEM, errno.E2BIG),
    "killpg": (errno.EPERM, errno.ESRCH),
    "poll": (errno.ENOMEM,),
    "register": (errno.ENOMEM, errno.ENOSPC),
    "modify": (errno.ENOMEM,),
    "unregister": (errno.ENOENT,),
    "socket": (errno.EMFILE, errno.ENOBUFS),
    "connect": (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EADDRNOTAVAIL),
    "accept": (errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED),
    "setsockopt": (errno.ENOPROTOOPT,),
    "getsockopt": (errno.ENOBUFS,),
    "shutdown": (errno.ENOTCONN,),
    "send": (errno.ENOBUFS, errno.ECONNREFUSED, errno.EAGAIN),
}


#: The number by which all calls are recorded and none fails.
EVERY = 0


class _Selection:
    """Counts calls, and makes the selected call fail."""

    def __init__(self, control: str) -> None:
        self._control = control
        self._count = 0

    def may_fail(self, name: str, descriptor: int) -> None:
        """Count a call. If it is the selected call, raise its error."""
        try:
            number, way, *only = posix.readlink(self._control).split(".")
        except OSError:
            self._count = 0
            return
        if only and name not in only:
            return
        self._count += 1
        if int(number) not in (self._count, EVERY):
            return
        # The sequence of calls may differ slightly from the previous session, so this call may
        # have fewer errors.
        ways = ERRORS[name][int(way) :] if int(number) != EVERY else ()
        error = ways[0] if ways else 0
        word = errno.errorcode.get(error, "-")
        _append(f"{self._control}.log", f"{name} {word} {_whose(descriptor)}\n")
        if error:
            raise OSError(error, posix.strerror(error))


def _append(path: str, line: str) -> None:
    log = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o600)
    posix.write(log, line.encode())
    posix.close(log)


def _whose(descriptor: int) -> str:
    """Return a descriptor's owner: "client", "upstream", "log" or "nobody"."""
    try:
        own = _socket.socket(fileno=posix.dup(descriptor))
        family, ours, theirs = own.family, own.getsockname(), own.getpeername()
        own.close()
    except OSError:
        return "nobody"
    if family == _socket.AF_UNIX:
        return "log"
    served = bytes(posix.environ[b"FAILING_UPSTREAM"]).decode()
    return "upstream" if served in (f"{h}:{p}" for h, p in (ours, theirs)) else "client"


class _FailingModule:
    """A module whose functions can fail."""

    def __init__(self, module: Any, selection: _Selection) -> None:
        self._module = module
        self._selection = selection

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._module, name)
        if name not in ERRORS or not callable(function):
            return function
        wrapped = self._wrapped(name, function)
        setattr(self, name, wrapped)
        return wrapped

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            descriptor = arguments[0] if arguments and isinstance(arguments[0], int) else -1
            if name == "read" and stat.S_ISFIFO(posix.fstat(descriptor).st_mode):
                return function(*arguments)  # reading from a pipe cannot fail
            try:
                self._selection.may_fail(name, descriptor)
            except OSError:
                if name == "close":  # the descriptor is closed even if close(2) fails
                    function(*arguments)
                raise
            return function(*arguments, **more)

        return call


def _failing_socket(base: type, selection: _Selection) -> type:
    class Failing(base):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            if "fileno" not in more:
                selection.may_fail("socket", -1)
            super().__init__(*arguments, **more)

        def connect(self, address: Any) -> None:
            selection.may_fail("connect", self.fileno())
            log = bytes(posix.environ[b"FAILING_SYSLOG"]).decode()
            super().connect(log if address == "/dev/log" else address)

        def setsockopt(self, *arguments: Any) -> None:
            selection.may_fail("setsockopt", self.fileno())
            super().setsockopt(*arguments)

        def getsockopt(self, *arguments: Any) -> Any:
            selection.may_fail("getsockopt", self.fileno())
            return super().getsockopt(*arguments)

        def shutdown(self, how: int) -> None:
            selection.may_fail("shutdown", self.fileno())
            super().shutdown(how)

        def send(self, *arguments: Any) -> int:
            selection.may_fail("send", self.fileno())
            return int(super().send(*arguments))

        def _accept(self) -> Any:
            selection.may_fail("accept", self.fileno())
            return super()._accept()

    return Failing


def _failing_poll(selection: _Selection) -> Callable[[], object]:
    real = select.poll

    class Failing:
        def __init__(self) -> None:
            poll = real()
            self.register, self.unregister = poll.register, poll.unregister
            self.modify, self._poll = poll.modify, poll.poll

        def poll(self, milliseconds: int | None = None) -> list[tuple[int, int]]:
            selection.may_fail("poll", -1)
            return self._poll(milliseconds)

    return Failing


def _failing_epoll(selection: _Selection) -> Callable[[], object]:
    real = select.epoll

    class Failing:
        def __init__(self) -> None:
            self._epoll = real()

        def poll(self, seconds: float | None = None) -> list[tuple[int, int]]:
            selection.may_fail("poll", -1)
            return self._epoll.poll(seconds)

        def register(self, descriptor: int, events: int) -> None:
            selection.may_fail("register", descriptor)
            self._epoll.register(descriptor, events)

        def modify(self, descriptor: int, events: int) -> None:
            selection.may_fail("modify", descriptor)
            self._epoll.modify(descriptor, events)

        def unregister(self, descriptor: int) -> None:
            self._epoll.unregister(
                descriptor
            )  # the real call fails only if the descriptor is not registered
            selection.may_fail("unregister", descriptor)

    return Failing


def launch() -> None:
    """Silence descriptor 2 first, as the installed launcher does."""
    null = posix.open("/dev/null", posix.O_WRONLY)
    posix.dup2(null, 2)
    posix.close(null)


def install() -> None:
    """Replace the proxy's system modules with wrappers that can fail."""
    selection = _Selection(bytes(posix.environ[b"FAILING"]).decode())
    select.poll = _failing_poll(selection)  # type: ignore[misc, assignment]
    select.epoll = _failing_epoll(selection)  # type: ignore[misc, assignment]
    import postprox.shell.system as own  # noqa: PLC0415

    own.posix = _FailingModule(posix, selection)  # type: ignore[assignment]
    sockets: Any = _FailingModule(_socket, selection)
    sockets.socket = _failing_socket(_socket.socket, selection)
    own.socket = sockets
