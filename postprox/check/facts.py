"""What is so on this machine, as far as it decides whether a proxy can do its work.

Rule: data only. machine.py fills it in, the rules judge it. None is: could not be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

UNLIMITED = 1 << 62


@dataclass(frozen=True)
class ProgramFacts:
    """A file that is to be run by the proxy's user."""

    path: str
    exists: bool
    is_directory: bool = False
    #: Whether the user may run it, in the directories that lead to it too.
    executable: bool | None = None
    #: What the first line names to run it with; "" if it names nothing.
    interpreter: str = ""
    interpreter_executable: bool | None = True


@dataclass(frozen=True)
class SpoolFacts:
    """The directory for messages."""

    exists: bool
    writable: bool | None = None
    #: Permission bits, such as 0o700.
    mode: int = 0o700
    #: What its user may still write there: octets, and files.
    free: int = UNLIMITED
    free_files: int = UNLIMITED


@dataclass(frozen=True)
class ProxyFacts:
    """What was seen for one proxy."""

    user_exists: bool
    program: ProgramFacts
    #: The program that the filter command begins with, if it is one.
    filter: ProgramFacts | None = None
    #: Why the filter was not looked at; or "".
    filter_unchecked: str = ""
    #: Nobody listens where it passes mail on to, on this machine, and no service of Postfix would.
    nobody_upstream: bool = False
    #: None where the proxy has a /tmp of its own, which nobody else sees.
    spool: SpoolFacts | None = None
    #: Why it could not be seen what the proxy's user may do, if so.
    why_guessed: str = ""

    def is_guessed(self) -> bool:
        """Whether something of what the user may do could not be seen."""
        programs = [self.program, *([self.filter] if self.filter else [])]
        return any(seen.exists and seen.executable is None for seen in programs) or bool(
            self.spool and self.spool.exists and self.spool.writable is None
        )
