"""What is wrong with Postfix's own configuration, whatever proxies there are.

Rule: one pure function for each thing that can be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import fixes, values
from .findings import Finding
from .postconf import DEFAULTS, Configuration

_NO_PROCESS_LIMIT = "-"


def numbers(configuration: Configuration) -> Iterator[Finding]:
    """Postfix refuses a number; the programs that read it do not run."""
    for name, value in configuration.main.items():
        if values.is_refused(name, value):
            remedy = fixes.set_main(configuration, name, _default(name))
            yield _refused("main.cf", name, value, remedy)
    for service in configuration.services:
        where = f"master.cf, {service.label}"
        for name, value in service.own.items():
            if values.is_refused(name, value):
                remedy = fixes.set_own(configuration, service, name, _default(name))
                yield _refused(where, name, value, remedy)
        limit = service.process_limit
        if limit != _NO_PROCESS_LIMIT and values.process_limit(limit) is None:
            remedy = fixes.set_field(configuration, service, "process_limit", _NO_PROCESS_LIMIT)
            yield _refused(where, "process_limit", limit, remedy)


def _refused(where: str, name: str, value: str, remedy: str) -> Finding:
    problem = f"Postfix does not run with {name} = {value!r}: it is no number that it accepts"
    return Finding("number", where, problem, remedy)


def _default(name: str) -> str:
    return DEFAULTS.get(name, DEFAULTS["default_destination_concurrency_limit"])
