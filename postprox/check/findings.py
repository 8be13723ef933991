"""The names and levels of all findings.

Rule: this module contains only names and levels. The conditions are in the modules `*_rules.py` and
`parameters.py`. To add a finding, add its name to `LEVELS`, its condition to one of those modules,
and its description to docs/check.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fixes import Edit

#: Mail is delivered and filtered, but the configuration has a problem.
WARNING = 1
#: Mail is refused, is delivered unfiltered or is not delivered at all.
DANGER = 2

#: The level of each finding. The highest level is the exit status of the command.
LEVELS = {
    "command-line": DANGER,
    "options-file": DANGER,
    "braces": DANGER,
    "replaced": DANGER,
    "exec-start": DANGER,
    "background": DANGER,
    "unit-setting": DANGER,
    "unit-ignored": WARNING,
    "unit-stop": WARNING,
    "unit-restart": WARNING,
    "unit-limit": WARNING,
    "user": DANGER,
    "root": WARNING,
    "program": DANGER,
    "no-filter": DANGER,
    "exit-status": DANGER,
    "filter": DANGER,
    "interpreter": DANGER,
    "byte-order-mark": DANGER,
    "line-ends": DANGER,
    "syntax": DANGER,
    "filter-open": WARNING,
    "filter-write": WARNING,
    "filter-command": WARNING,
    "filter-damage": DANGER,
    "filter-run": DANGER,
    "filter-errors": WARNING,
    "injection": DANGER,
    "lost-reply": WARNING,
    "lost-change": WARNING,
    "no-reject": WARNING,
    "no-strict": WARNING,
    "spool": DANGER,
    "spool-open": WARNING,
    "spool-full": DANGER,
    "spool-boot": WARNING,
    "status-file": WARNING,
    "pid-file": DANGER,
    "no-proxy": DANGER,
    "no-way": DANGER,
    "unfiltered": WARNING,
    "unused": WARNING,
    "wrong-port": DANGER,
    "no-upstream": DANGER,
    "open-relay": DANGER,
    "port-twice": DANGER,
    "defined-twice": WARNING,
    "indented": DANGER,
    "transport": DANGER,
    "postscreen": DANGER,
    "loop": DANGER,
    "starttls": DANGER,
    "inherited": DANGER,
    "inherited-risk": WARNING,
    "milters": WARNING,
    "unsigned": WARNING,
    "no-milter": DANGER,
    "policy": DANGER,
    "unscanned": WARNING,
    "mapped-twice": WARNING,
    "mapped-never": DANGER,
    "replaced-filter": WARNING,
    "disabled-checks": WARNING,
    "xforward": WARNING,
    "time-limit": DANGER,
    "process-limit": WARNING,
    "number": DANGER,
    "value": DANGER,
    "arguments": DANGER,
    "columns": DANGER,
    "lmtp": DANGER,
    "table": DANGER,
    "sasl": DANGER,
    "postdrop": DANGER,
    "queue": DANGER,
    "postfix-stopped": DANGER,
    "not-enabled": WARNING,
    "not-running": DANGER,
    "masked": DANGER,
    "failing": DANGER,
    "not-reloaded": WARNING,
    "no-greeting": DANGER,
    "refused": DANGER,
    "log": DANGER,
}


@dataclass(frozen=True)
class Fault:
    """A problem, its location, and the edits that correct it."""

    name: str
    where: str
    problem: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Finding:
    """A problem, its location, and the commands that correct it."""

    name: str
    where: str
    problem: str
    commands: tuple[str, ...]

    @property
    def level(self) -> int:
        """Return `WARNING` or `DANGER`."""
        return LEVELS[self.name]

    @property
    def remedy(self) -> str:
        """Return the commands as one shell command line."""
        return "; ".join(self.commands)
