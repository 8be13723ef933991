"""Problems in the Postfix configuration that do not depend on a proxy.

Rule: each check is a pure function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import fixes, values
from .findings import Fault
from .fixes import Edit
from .postconf import DEFAULTS, Configuration

_NO_PROCESS_LIMIT = "-"
#: Parameters whose values never contain a number sign, except in a misplaced comment. Other rules
#: check the addresses of filters.
_WORDS = re.compile(
    r"\w+_(restrictions|maps|domains|networks|checks|transport|options|milters|enable|level|file)"
    r"|mynetworks|mydestination|myorigin|relayhost|inet_\w+"
    r"|soft_bounce|disable_vrfy_command|smtpd_helo_required"
)
_COMMENT = re.compile(r"(?P<value>[^#]*?)(^|\s)\s*#.*", re.DOTALL)


def numbers(configuration: Configuration) -> Iterator[Fault]:
    """Report numbers that Postfix does not accept.

    A Postfix program that reads an invalid number does not run.
    """
    for name, value in configuration.main.items():
        if values.is_refused(name, value):
            yield _refused("main.cf", name, value, fixes.set_main(name, _corrected(name, value)))
    for service in configuration.services:
        where = f"master.cf, {service.label}"
        for name, value in service.own.items():
            if values.is_refused(name, value):
                remedy = fixes.set_own(service, name, _default(name))
                yield _refused(where, name, value, remedy)
        limit = service.process_limit
        if limit != _NO_PROCESS_LIMIT and values.process_limit(limit) is None:
            remedy = fixes.set_field(service, "process_limit", _NO_PROCESS_LIMIT)
            yield _refused(where, "process_limit", limit, remedy)


def comments(configuration: Configuration) -> Iterator[Fault]:
    """Report comments after values, which Postfix reads as part of the values."""
    for name, value in configuration.main.items():
        found = _COMMENT.fullmatch(value)
        is_number = found is not None and re.fullmatch("[0-9]+[smhdw]?", found["value"].strip())
        is_word = is_number or _WORDS.fullmatch(name)
        if found and is_word and not values.is_refused(name, value):
            yield Fault(
                "value",
                "main.cf",
                f"the value of {name} contains a comment, but Postfix reads its words as part of "
                f"the value; mail may be refused or deferred: {value}",
                (fixes.set_main(name, found["value"].strip(" \t,")),),
            )


def _refused(where: str, name: str, value: str, remedy: Edit) -> Fault:
    problem = (
        f"Postfix does not accept {name} = {value!r}; programs that read this number cannot run"
    )
    return Fault("number", where, problem, (remedy,))


def _corrected(name: str, value: str) -> str:
    """Return the number before a comment, or else the default value."""
    found = _COMMENT.fullmatch(value)
    number = found["value"].strip() if found else ""
    return number if number and not values.is_refused(name, number) else _default(name)


def _default(name: str) -> str:
    return DEFAULTS.get(name, DEFAULTS["default_destination_concurrency_limit"])
