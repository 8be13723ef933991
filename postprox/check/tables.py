"""The Postfix parameters that can route mail to a proxy through a table or transport.

Rule: the functions depend only on the Postfix parameters and on the text of the tables that these
parameters name. The check does not look up keys in a table. Instead, it searches the table's text
for the proxy's port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import xforward
from .postconf import Configuration
from .routes import Endpoint

_ROUTES = (
    *("relayhost", "sender_dependent_relayhost_maps", "transport_maps", "default_transport"),
    *("relay_transport", "local_transport", "virtual_transport", "mailbox_transport"),
    *("sender_dependent_default_transport_maps", "header_checks", "body_checks"),
)
#: Parameters for access tables, whose actions include FILTER.
_RESTRICTIONS = tuple(
    f"smtpd_{stage}_restrictions"
    for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
)
#: The table types for which a parameter contains the path of the text file
#: (hash:/etc/postfix/transport).
_FILES = (
    *("btree", "cdb", "cidr", "dbm", "fail", "hash", "lmdb", "pcre", "regexp", "sdbm", "texthash"),
)
#: The actions of access(5) that do not refuse or change mail.
_HARMLESS = re.compile(r"(OK|DUNNO|[0-9]+$|permit\w*|INFO|WARN)\b", re.IGNORECASE)
#: A line of a table for header_checks that refuses or discards mail.
_CHECK = re.compile(
    r"/(?P<pattern>.*)/[a-z]*[ \t]+(?P<action>REJECT|DISCARD|HOLD)\b", re.IGNORECASE
)
_PERMITTED = re.compile(r"(OK|[0-9]+$|permit)\b", re.IGNORECASE)
#: The keys with which smtpd(8) looks up this machine in an indexed table.
_OWN_KEYS = ("127", "127.0", "127.0.0", "127.0.0.1", "localhost", "localhost.localdomain")
_TABLE = re.compile(r"(?:proxy:)?\b(?P<type>[a-z][a-z0-9]*):(?P<path>/[^\s,{}]+)")


def table_files(configuration: Configuration) -> Iterator[str]:
    """Return the text files of all tables that can route mail."""
    for _, value in _values(configuration):
        yield from (found["path"] for found in _TABLE.finditer(value) if found["type"] in _FILES)


def possible_routes(
    configuration: Configuration, texts: Mapping[str, str], endpoint: Endpoint
) -> list[str]:
    """Return the parameters through which mail can be routed to an address.

    A table that is not in `texts` counts as a possible route.
    """
    return list(
        dict.fromkeys(
            name
            for name, value in _values(configuration)
            if any(text is None or _names(text, endpoint) for text in _texts(value, texts))
        )
    )


def can_refuse(texts: Mapping[str, str], restriction: str, table: str) -> bool:
    """Return whether a table can refuse mail that comes from this machine.

    If the text of the table is unknown, the result is true.
    """
    found = _TABLE.search(table)
    text = texts.get(found["path"]) if found and found["type"] in _FILES else None
    if found is None or text is None:
        return bool(table) and not table.startswith(("static:OK", "static:DUNNO"))
    is_client = restriction in ("check_client_access", "check_reverse_client_hostname_access")
    for line in text.split("\n"):
        key, *actions = line.partition("#")[0].split(maxsplit=1) or [""]
        if not actions or _HARMLESS.match(actions[0]):
            continue
        if not is_client or _matches_own(found["type"], key):
            return True
    return False


def can_permit(texts: Mapping[str, str], table: str) -> bool:
    """Return whether a table is known to have an action that permits mail."""
    found = _TABLE.search(table)
    text = texts.get(found["path"], "") if found else ""
    actions = [line.partition("#")[0].split(maxsplit=1)[1:] for line in text.split("\n")]
    return table.startswith("static:OK") or any(
        _PERMITTED.match(action[0]) for action in actions if action
    )


@dataclass(frozen=True)
class HeaderCheck:
    """A line of header_checks that refuses, discards or holds mail."""

    path: str
    number: int
    line: str
    pattern: re.Pattern[str]
    #: REJECT, DISCARD or HOLD.
    action: str


def refusing_checks(main: Mapping[str, str], texts: Mapping[str, str]) -> Iterator[HeaderCheck]:
    """Yield the lines of header_checks that refuse or discard mail, if Python can compile their
    patterns.
    """
    for found in _TABLE.finditer(main.get("header_checks", "")):
        lines = texts.get(found["path"], "").split("\n")
        for number, line in enumerate(lines, 1):
            check = _CHECK.match(line)
            pattern = _compiled(check["pattern"]) if check else None
            if pattern and found["type"] in ("pcre", "regexp"):
                action = check["action"].upper() if check else ""
                yield HeaderCheck(found["path"], number, line, pattern, action)


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error:
        return None


def _matches_own(kind: str, key: str) -> bool:
    """Return whether the key of a table can match this machine."""
    if kind in ("pcre", "regexp"):
        return True
    if kind != "cidr":
        return key in _OWN_KEYS
    return xforward.permits([key], "127.0.0.1") is not False


def _values(configuration: Configuration) -> Iterator[tuple[str, str]]:
    for name in _ROUTES:
        yield name, configuration.main.get(name, "")
    for service in configuration.services:
        for name in _RESTRICTIONS:
            yield name, service.parameter(name)


def _texts(value: str, texts: Mapping[str, str]) -> Iterator[str | None]:
    """Yield a parameter's value, and then the text of each table that the value names.

    If the text of a table is unknown, yield None instead.
    """
    yield value
    for found in _TABLE.finditer(value):
        yield texts.get(found["path"]) if found["type"] in _FILES else None


def _names(text: str, endpoint: Endpoint) -> bool:
    if endpoint.path:
        return endpoint.path in text
    return bool(re.search(rf":{endpoint.port}\b", text))
