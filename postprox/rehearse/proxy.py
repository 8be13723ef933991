"""The proxy under test, run as a child process, as spawn(8) would run it.

Rule: file descriptors 0, 1 and 2 are the same socket. The proxy does not inherit the environment.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

#: The PATH that spawn(8) sets.
PATH = "/usr/bin:/bin"
_PACKAGE = Path(__file__).resolve().parent.parent
#: The timeouts for the proxy's exit, before and after SIGTERM, in seconds.
_LEAVE = 10.0
_TERMINATE = 3.0


@dataclass(frozen=True)
class User:
    """The user that runs the proxy and the filter."""

    name: str
    uid: int
    gid: int


class Proxy:
    """A context manager that runs the proxy with `arguments` as `user`.

    Raises:
        OSError: the proxy cannot be started.
    """

    def __init__(self, arguments: list[str], user: User | None) -> None:
        self.socket, child = socket.socketpair()
        with child:
            self._process = subprocess.Popen(
                # -P is required because the working directory may contain modules. The installed
                # program (packaging/launcher) also uses -S.
                [sys.executable, "-S", "-P", "-m", "postprox", *arguments],
                stdin=child.fileno(),
                stdout=child.fileno(),
                stderr=child.fileno(),
                env={"PATH": PATH, "PYTHONPATH": str(_PACKAGE.parent)},
                umask=0o077,
                start_new_session=True,
                # Like spawn(8), set only the user's primary group.
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else [user.gid],
                restore_signals=False,  # SIGPIPE remains ignored, as under spawn(8).
            )
        self.exit_status: int | None = None

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()
        if error is not None:
            self._process.terminate()
        self.exit_status = self._wait()

    def _wait(self) -> int:
        for timeout, stop in (
            (_LEAVE, self._process.terminate),
            (_TERMINATE, self._process.kill),
        ):
            try:
                return self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                stop()
        return self._process.wait()
