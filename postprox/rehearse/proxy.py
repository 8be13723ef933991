"""The proxy of a rehearsal: a process of its own, started as Postfix's spawn(8) does.

Rule: one socket is its descriptors 0, 1 and 2; of this process's environment it sees nothing.
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

#: spawn(8) gives a child this PATH and next to nothing else.
PATH = "/usr/bin:/bin"
_PACKAGE = Path(__file__).resolve().parent.parent
#: How long the proxy may take to end of itself, and after SIGTERM; in seconds.
_LEAVE = 10.0
_TERMINATE = 3.0


@dataclass(frozen=True)
class User:
    """Who runs the proxy and its filter."""

    name: str
    uid: int
    gid: int


class Proxy:
    """The proxy with `arguments`, run by `user`, while the context lasts.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, arguments: list[str], user: User | None) -> None:
        self.socket, child = socket.socketpair()
        with child:
            self._process = subprocess.Popen(
                # -P: a user's directory may hold modules of any name. -S: as the launcher does.
                [sys.executable, "-S", "-P", "-m", "postprox", *arguments],
                stdin=child.fileno(),
                stdout=child.fileno(),
                stderr=child.fileno(),
                env={"PATH": PATH, "PYTHONPATH": str(_PACKAGE.parent)},
                umask=0o077,
                start_new_session=True,
                # The user's own group and no other, as spawn(8) has it.
                user=None if user is None else user.uid,
                group=None if user is None else user.gid,
                extra_groups=None if user is None else [user.gid],
                restore_signals=False,  # spawn(8) leaves SIGPIPE ignored
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
        for patience, stop in (
            (_LEAVE, self._process.terminate),
            (_TERMINATE, self._process.kill),
        ):
            try:
                return self._process.wait(patience)
            except subprocess.TimeoutExpired:
                stop()
        return self._process.wait()
