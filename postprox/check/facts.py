"""The state of this machine that decides whether a proxy can run.

Rule: data only. probe.py collects it, the rules evaluate it. None means unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

UNLIMITED = 1 << 62


@dataclass(frozen=True)
class ProgramFacts:
    """A file that the proxy's user must be able to execute."""

    path: str
    exists: bool
    is_directory: bool = False
    #: Whether the user can execute it. That includes the permissions of its directories.
    executable: bool | None = None
    #: The interpreter in the first line; "" if there is none.
    interpreter: str = ""
    interpreter_executable: bool | None = True


@dataclass(frozen=True)
class SpoolFacts:
    """The directory for messages."""

    exists: bool
    writable: bool | None = None
    #: Permission bits, such as 0o700.
    mode: int = 0o700
    #: Free octets and free files.
    free: int = UNLIMITED
    free_files: int = UNLIMITED


@dataclass(frozen=True)
class ProxyFacts:
    """The facts about one proxy."""

    user_exists: bool
    program: ProgramFacts
    #: The first program of the filter command; None if unknown.
    filter: ProgramFacts | None = None
    #: The reason why the filter was not checked; or "".
    filter_unchecked: str = ""
    #: Whether the upstream server is on this machine, but neither listens nor is in master.cf.
    upstream_missing: bool = False
    #: None if the proxy has a private /tmp.
    spool: SpoolFacts | None = None
    #: The reason for unknown permissions of the proxy's user.
    unknown_permissions: str = ""

    def has_unknown_permissions(self) -> bool:
        """Return whether a permission of the proxy's user is unknown."""
        programs = [self.program, *([self.filter] if self.filter else [])]
        return any(seen.exists and seen.executable is None for seen in programs) or bool(
            self.spool and self.spool.exists and self.spool.writable is None
        )
