"""Parses numbers and times in main.cf, master.cf and units.

Rule: the functions depend only on the text. They follow Postfix's rules, except `size` and `span`,
which follow systemd's rules. The result None means that the value is not accepted, or that the
value means "no limit".
"""

from __future__ import annotations

import re

#: Numeric parameters, each with its minimum, or None if it has no minimum.
NUMBERS = {
    "default_destination_concurrency_limit": None,
    "default_process_limit": 1,
    "message_size_limit": None,
}
#: Time parameters, whose minimum is 1 s.
TIMES = ("command_time_limit", "smtp_data_done_timeout", "smtpd_proxy_timeout")
#: The suffix of parameters that begin with the name of a transport.
TRANSPORT_LIMIT = "_destination_concurrency_limit"

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
#: The units of time in systemd.time(7), in seconds.
_SPANS = {
    **dict.fromkeys(("usec", "us"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("", "seconds", "second", "sec", "s"), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), 86400.0),
    **dict.fromkeys(("weeks", "week", "w"), 604800.0),
    **dict.fromkeys(("months", "month", "M"), 2629800.0),
    **dict.fromkeys(("years", "year", "y"), 31557600.0),
}
#: Postfix stores counts and times as an int, and message_size_limit as a long.
_INT, _LONG = 2**31 - 1, 2**63 - 1


def is_refused(name: str, text: str) -> bool:
    """Return whether Postfix refuses a number or time.

    The result is False for any other parameter.
    """
    if name in TIMES:
        return seconds(text) is None
    if name in NUMBERS or name.endswith(TRANSPORT_LIMIT):
        return number(name, text) is None
    return False


def number(name: str, text: str) -> int | None:
    """Parse a parameter listed in `NUMBERS`, or a transport's limit."""
    # A long has at most 19 digits, and int() raises an error for thousands of digits.
    found = re.fullmatch(r"\s*([+-]?)0*([0-9]{1,19})", text, re.ASCII)
    if not found:
        return None
    value = int(found[1] + found[2])
    most = _LONG if name == "message_size_limit" else _INT
    least = NUMBERS.get(name) or -most - 1
    return value if least <= value <= most else None


def seconds(text: str) -> int | None:
    """Parse a time, such as 100s or 2m. Postfix ignores characters after the unit."""
    found = re.match(r"\s*\+?0*([0-9]{1,10})(?:([smhdw])|$)", text, re.ASCII)
    value = int(found[1]) * _SECONDS[found[2] or ""] if found else 0
    return value if 0 < value <= _INT else None


def process_limit(text: str) -> int | None:
    """Parse the maxproc column. Postfix ignores characters after the digits."""
    found = re.match(r"0*([0-9]{1,9})(?![0-9])", text)
    return int(found[1]) if found else None


def whole(text: str) -> int | None:
    """Parse a number of any size."""
    return number("message_size_limit", text)


def size(text: str) -> int | None:
    """Parse a size or count in a unit, such as 16M. A percentage and `infinity` are not parsed."""
    found = re.fullmatch(r"([0-9]{1,18})(?:\.[0-9]*)?([KMGTPE]?)B?", text.strip(), re.ASCII)
    return int(found[1]) << (10 * " KMGTPE".index(found[2] or " ")) if found else None


def span(text: str) -> float | None:
    """Parse a time span in a unit file, such as `1min 30s` (systemd.time(7)).

    Zero turns a timeout off, as `infinity` does.
    """
    parts = re.findall(r"\s*([0-9]{1,15}(?:\.[0-9]*)?)\s*([a-zA-Z]*)", text, re.ASCII)
    if re.sub(r"\s*[0-9]{1,15}(?:\.[0-9]*)?\s*[a-zA-Z]*", "", text, flags=re.ASCII).strip():
        return None
    if not all(unit in _SPANS for _, unit in parts):
        return None
    return sum(float(number) * _SPANS[unit] for number, unit in parts) or None
