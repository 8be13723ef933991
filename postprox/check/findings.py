"""What can be wrong: by name, with its level.

Rule: names and levels only; `proxy_rules.py` and `postfix_rules.py` have the conditions.
docs/check.md has the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Mail arrives and is filtered, but something is not as it should be.
WARNING = 1
#: Mail will be refused, or pass unfiltered, or not arrive.
DANGER = 2

#: The level of every finding, which is also the exit status of the command.
LEVELS = {
    "command-line": DANGER,
    "user": DANGER,
    "program": DANGER,
    "no-filter": DANGER,
    "filter": DANGER,
    "interpreter": DANGER,
    "no-reject": WARNING,
    "no-strict": WARNING,
    "spool": DANGER,
    "spool-open": WARNING,
    "spool-full": DANGER,
    "no-proxy": WARNING,
    "no-way": DANGER,
    "no-upstream": DANGER,
    "loop": DANGER,
    "starttls": DANGER,
    "milters": WARNING,
    "mapped-twice": WARNING,
    "mapped-never": DANGER,
    "xforward": WARNING,
    "time-limit": WARNING,
    "process-limit": WARNING,
    "number": DANGER,
    "columns": DANGER,
    "lmtp": DANGER,
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: where, what, and the command to run or the line to write."""

    name: str
    where: str
    problem: str
    remedy: str

    @property
    def level(self) -> int:
        """`WARNING` or `DANGER`."""
        return LEVELS[self.name]
