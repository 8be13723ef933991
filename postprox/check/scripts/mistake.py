"""The mistakes that the check can find in a filter script, and their corrections.

Rule: this module only defines data.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """The kinds of mistakes."""

    PIPE = "pipe"
    STATUS = "status"
    ZERO = "zero"
    EXEC = "exec"
    CHANGE = "change"
    OUTPUT = "output"
    TRACE = "trace"
    LEFT = "left"
    LOGIN = "login"
    UNANSWERED = "unanswered"
    SLEEP = "sleep"
    DIRECTORY = "directory"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    DATA = "data"
    PRIVATE = "private"
    REFUSED = "refused"
    QUOTES = "quotes"
    LOCK = "lock"
    PATTERNS = "patterns"
    HIDDEN = "hidden"
    SOCKET = "socket"
    CLOSED = "closed"
    SUBSHELL = "subshell"
    LOOP_EXIT = "loop-exit"
    READ = "read"
    BLANK = "blank"
    PARTIAL = "partial"
    UNSAVED = "unsaved"
    SHARED = "shared"
    INJECTION = "injection"
    LOGGED = "logged"
    SEARCH = "search"
    SYSEXIT = "sysexit"
    UNFOUND = "unfound"
    UNTESTED = "untested"
    STALE = "stale"
    OVERWRITTEN = "overwritten"
    FOREIGN = "foreign"
    UNQUOTED = "unquoted"
    EMPTY = "empty"
    INPUT = "input"
    UNREAD = "unread"
    LOST = "lost"
    UNSENT = "unsent"
    RESENT = "resent"
    ECHOED = "echoed"
    ANNOUNCED = "announced"
    LOOPED = "looped"
    NOTICE = "notice"
    TEXT = "text"
    MODULE = "module"
    RESULT = "result"
    SHELL = "shell"
    CAUGHT = "caught"
    CUT = "cut"
    SPILLED = "spilled"


@dataclass(frozen=True)
class Mistake:
    """A line of a script that changes the filter's result by mistake."""

    kind: Kind
    line: str
    number: int
    #: A script for sed(1) that corrects the line, or "" if the correction is not certain. For an
    #: unreadable file, a mode for chmod(1).
    correction: str = ""
    #: The path of the file that the line reads, or "".
    path: str = ""


def replaced(number: int, old: str, new: str) -> str:
    """Return a script for sed(1) that replaces text in a line."""
    old = re.sub(r"[][\\.*^$/]", r"\\\g<0>", old)
    new = re.sub(r"[\\&/]", r"\\\g<0>", new)
    return f"{number}s/{old}/{new}/"
