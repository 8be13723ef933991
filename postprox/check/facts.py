"""The state of this machine that decides whether a proxy can run, and what runs.

Rule: data only. probe.py and machine.py collect it, the rules evaluate it. None means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .routes import Endpoint

UNLIMITED = 1 << 62


@dataclass(frozen=True)
class ProgramFacts:
    """A file that the proxy's user must be able to execute."""

    path: str
    exists: bool
    is_directory: bool = False
    #: Whether the user can execute it. That includes the permissions of its directories.
    executable: bool | None = None
    #: The first directory that the user cannot search; "" if there is none.
    closed_directory: str = ""
    #: Whether the user can read it, if it is a script, and whether its mount forbids programs.
    readable: bool | None = True
    has_noexec: bool = False
    #: The file or the directories of it that every user can write to.
    open_paths: tuple[str, ...] = ()
    #: The interpreter in the first line; "" if there is none.
    interpreter: str = ""
    interpreter_executable: bool | None = True
    #: Whether the file begins with the byte order mark of UTF-8.
    has_mark: bool = False
    #: Whether a line that the kernel or the shell reads ends with CR LF.
    has_crlf: bool = False
    #: The first error of the interpreter's parser; "" if there is none.
    syntax_error: str = ""


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
    #: The first directory on the way that the user cannot search; "" if there is none.
    closed_directory: str = ""


@dataclass(frozen=True)
class ProxyFacts:
    """The facts about one proxy."""

    user_exists: bool
    program: ProgramFacts
    #: The first program of the filter command; None if unknown.
    filter: ProgramFacts | None = None
    #: The reason why the filter was not checked; or "".
    filter_unchecked: str = ""
    #: The shell's syntax error in the filter command; or "".
    command_error: str = ""
    #: Whether the upstream server is on this machine, but neither listens nor is in master.cf.
    upstream_missing: bool = False
    #: None if systemd makes the directory when it starts the proxy.
    spool: SpoolFacts | None = None
    #: The paths in settings of the unit that do not exist, but must.
    missing_paths: tuple[str, ...] = ()
    #: The reason for unknown permissions of the proxy's user.
    unknown_permissions: str = ""

    def has_unknown_permissions(self) -> bool:
        """Return whether a permission of the proxy's user is unknown."""
        programs = [self.program, *([self.filter] if self.filter else [])]
        return any(seen.exists and seen.executable is None for seen in programs) or bool(
            self.spool and self.spool.exists and self.spool.writable is None
        )


@dataclass(frozen=True)
class UnitState:
    """The state of one unit, as `systemctl show` prints it."""

    name: str
    #: LoadState, such as loaded, not-found, masked, bad-setting.
    load: str = "loaded"
    #: ActiveState and SubState, such as active and running, activating and auto-restart.
    active: str = "inactive"
    sub: str = "dead"
    #: UnitFileState, such as enabled, disabled, static.
    file: str = "disabled"
    #: Result, such as success, exit-code.
    result: str = "success"
    #: The exit status of the main process.
    status: int = 0
    #: Whether a file of the unit is newer than the configuration in use.
    needs_reload: bool = False
    #: The command line of the main process; empty if there is none.
    words: tuple[str, ...] = ()

    def is_failing(self) -> bool:
        """Return whether the last starts failed."""
        return self.active == "failed" or (self.sub == "auto-restart" and self.result != "success")


@dataclass(frozen=True)
class Listener:
    """A listening socket of TCP, with the programs that have it; empty if unknown."""

    endpoint: Endpoint
    programs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RunningFacts:
    """The running system."""

    #: Whether the master(8) of this configuration runs.
    postfix: bool | None = None
    #: The units by name, and the reason if they are unknown.
    units: Mapping[str, UnitState] = field(default_factory=dict)
    units_unknown: str = ""
    listeners: tuple[Listener, ...] = ()
    #: The greeting at each address, or the error.
    greetings: Mapping[Endpoint, str] = field(default_factory=dict)
