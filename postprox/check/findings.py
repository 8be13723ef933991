"""The name and the level of each finding.

Rule: names and levels only. `proxy_rules.py`, `postfix_rules.py` and `parameters.py` have the
conditions. To add a finding, add its name to `LEVELS`, its condition to one of these modules and
its description to docs/check.md.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Mail is delivered and filtered, but the configuration has a fault.
WARNING = 1
#: Mail is refused, is not filtered or is not delivered.
DANGER = 2

#: The level of each finding. The highest one is the exit status of the command.
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
    """A fault, its location, and the command to run or the line to write."""

    name: str
    where: str
    problem: str
    remedy: str

    @property
    def level(self) -> int:
        """`WARNING` or `DANGER`."""
        return LEVELS[self.name]
