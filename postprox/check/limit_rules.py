"""Limits and timeouts of a unit that cause the proxy or its filters to be killed.

Rule: each check is a pure function. The thresholds are measured values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..core import limits
from ..core.options import Options
from . import fixes, values
from .findings import Fault
from .routes import Proxy
from .setup import Setup
from .unit import Unit

_MB = 1 << 20
#: The memory that the proxy and one sh(1) filter with clamdscan(1) need, and the memory that the
#: proxy and 20 such filters need, in octets. If the limit is below the first value, the kernel
#: kills the proxy.
_MEMORY_FOR_ONE, _MEMORY_FOR_TWENTY = 10 * _MB, 16 * _MB
#: The address space that the proxy needs, in octets.
_ADDRESS_SPACE = 32 * _MB
#: The number of tasks that the proxy needs, and the number that one sh(1) filter that starts
#: another program needs.
_OWN_TASKS, _FILTER_TASKS = 2, 2
#: With fewer descriptors than this number, the proxy cannot relay any message.
_FEWEST_DESCRIPTORS = limits.OWN_DESCRIPTORS
_UNLIMITED = 1 << 62
#: The stop timeout of the packaged unit, in seconds.
_STOP_TIME = 90
#: Signals on which a server finishes the messages in progress and then exits (files.term).
_GENTLE = ("SIGTERM", "SIGINT", "SIGQUIT", "TERM", "INT", "QUIT", "2", "3", "15")


def memory(proxy: Proxy) -> Iterator[Fault]:
    """Report a memory limit at which the kernel kills the proxy or its filters."""
    unit = proxy.unit
    if unit is None:
        return
    for name in ("MemoryMax", "LimitAS"):
        least = _ADDRESS_SPACE if name == "LimitAS" else _MEMORY_FOR_ONE
        value = values.size(_hard(unit.setting(name)))
        if value is None or value >= max(least, _MEMORY_FOR_TWENTY):
            continue
        if value < least:
            problem = "the limit is too low for the proxy and one filter; mail is deferred (451)"
        else:
            problem = (
                "the limit is too low for the proxy and 20 filters that run at the same time; if "
                "the kernel kills a process, systemd stops the service, and mail is deferred (451)"
            )
        yield Fault(
            "unit-setting" if value < least else "unit-limit",
            proxy.where,
            f"{name}={unit.setting(name)}: {problem}",
            (fixes.set_setting(unit, name, "infinity"),),
        )


def tasks(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a process limit that is too low for the filters of all sessions."""
    unit = proxy.unit
    needed = _OWN_TASKS + _FILTER_TASKS * wanted.max_sessions
    for name in ("TasksMax", "LimitNPROC") if unit else ():
        text = unit.setting(name) if unit else ""
        value = values.size(_hard(text))
        if unit is None or value is None or value >= needed:
            continue
        is_stopped = value < _OWN_TASKS + _FILTER_TASKS
        effect = "no filter can run" if is_stopped else "some filters cannot run"
        yield Fault(
            "unit-setting" if is_stopped else "unit-limit",
            proxy.where,
            f"{name}={text}: {effect}, because the filters of {wanted.max_sessions} sessions need "
            f"{needed} processes; {_mail(wanted, is_stopped)}",
            (fixes.set_setting(unit, name, str(needed)),),
        )


def _mail(wanted: Options, is_all: bool) -> str:
    which = "all mail" if is_all else "mail"
    return f"{which} is deferred (451)" + ("" if wanted.reject else " or passes unfiltered")


def descriptors(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a limit on open files that is too low for the maximum number of sessions."""
    unit = proxy.unit
    text = unit.setting("LimitNOFILE") if unit else ""
    value = values.size(_hard(text))
    needed = limits.OWN_DESCRIPTORS + wanted.max_sessions * limits.SESSION_DESCRIPTORS
    if unit is None or value is None or value >= needed:
        return
    count = max(1, (value - limits.OWN_DESCRIPTORS) // limits.SESSION_DESCRIPTORS)
    is_stopped = value < _FEWEST_DESCRIPTORS
    effect = f"only {count} of {wanted.max_sessions} sessions are possible; further mail waits"
    if is_stopped:
        effect = (
            "the proxy cannot open the files that it needs for a message; all mail is deferred "
            "(451)"
        )
    yield Fault(
        "unit-setting" if is_stopped else "unit-limit",
        proxy.where,
        f"LimitNOFILE={text}: {effect}",
        (fixes.set_setting(unit, "LimitNOFILE", str(needed)),),
    )


def file_size(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a file size limit that is lower than the maximum message size."""
    unit = proxy.unit
    text = unit.setting("LimitFSIZE") if unit else ""
    value = values.size(_hard(text))
    largest = setup.configuration.number("message_size_limit") or _UNLIMITED
    if unit is None or value is None or value >= largest:
        return
    limit = "unlimited" if largest == _UNLIMITED else f"{largest} octets"
    yield Fault(
        "unit-setting",
        proxy.where,
        f"LimitFSIZE={text}: the proxy cannot store larger messages (message_size_limit is "
        f"{limit}); they are deferred (452) and never delivered",
        (fixes.set_setting(unit, "LimitFSIZE", "infinity"),),
    )


def processor(proxy: Proxy) -> Iterator[Fault]:
    """Report a limit on processor time. At this limit, the kernel kills the proxy."""
    unit = proxy.unit
    text = unit.setting("LimitCPU") if unit else ""
    if unit and text and _hard(text) != "infinity":
        yield Fault(
            "unit-limit",
            proxy.where,
            f"LimitCPU={text}: the kernel kills the proxy and each filter after this much "
            "processor time; mail is delayed or deferred (451)",
            (fixes.set_setting(unit, "LimitCPU", "infinity"),),
        )


def _hard(text: str) -> str:
    """Return the hard limit of `SOFT:HARD`. The proxy raises its soft limit."""
    return text.rpartition(":")[2]


def stop(proxy: Proxy) -> Iterator[Fault]:
    """Report stop settings that cut off messages in progress or leave the old proxy running."""
    unit = proxy.unit
    if unit is None or not unit.path:
        return
    mode = unit.setting("KillMode", "control-group")
    if mode == "none":
        yield Fault(
            "unit-stop",
            proxy.where,
            "KillMode=none: if the service is restarted, the old proxy continues to filter mail "
            "with its old options",
            (fixes.set_setting(unit, "KillMode", "mixed"),),
        )
    signal = unit.setting("KillSignal", "SIGTERM")
    if signal not in _GENTLE and mode != "none":
        yield Fault(
            "unit-stop",
            proxy.where,
            f"KillSignal={signal}: if the service is stopped, the proxy does not finish the "
            "messages in progress; some mail is delivered twice",
            (fixes.set_setting(unit, "KillSignal", "SIGTERM"),),
        )
    name, text = _stop_timeout(unit)
    value = values.span(text)
    if value is not None and value <= limits.STOP_GRACE:
        yield Fault(
            "unit-stop",
            proxy.where,
            f"{name}={text}: if the service is stopped, systemd kills the proxy before it has "
            f"finished the messages in progress, which can take {limits.STOP_GRACE:g} s; some mail "
            "is delivered twice",
            (fixes.set_setting(unit, "TimeoutStopSec", f"{_STOP_TIME}"),),
        )


def _stop_timeout(unit: Unit) -> tuple[str, str]:
    """Return the setting that determines the stop timeout, and its value."""
    names = [n for n in unit.settings if n in ("TimeoutSec", "TimeoutStopSec") and unit.setting(n)]
    return (names[-1], unit.setting(names[-1])) if names else ("TimeoutStopSec", f"{_STOP_TIME}")


def restart(proxy: Proxy) -> Iterator[Fault]:
    """Report a unit that systemd does not start again after the proxy has failed."""
    unit = proxy.unit
    if unit is None or not (unit.path and unit.words) or unit.socket:
        return
    mode = unit.setting("Restart", "no")
    if mode in ("no", "on-success", "on-abort", "on-watchdog"):
        cause = "if the proxy fails"
        if values.span(unit.setting("RuntimeMaxSec")) is not None:
            cause = f"after RuntimeMaxSec={unit.setting('RuntimeMaxSec')}, or if the proxy fails"
        yield Fault(
            "unit-restart",
            proxy.where,
            f"Restart={mode}: {cause}, systemd does not start the proxy again; all mail is then "
            "deferred (451)",
            (fixes.set_setting(unit, "Restart", "on-failure"),),
        )


def file_mode(proxy: Proxy) -> Iterator[Fault]:
    """Report a UMask= with which the proxy and the filter cannot use their own files."""
    unit = proxy.unit
    text = unit.setting("UMask") if unit else ""
    if unit and re.fullmatch(r"[0-7]{1,4}", text) and int(text, 8) & 0o600:
        yield Fault(
            "unit-setting",
            proxy.where,
            f"UMask={text}: the proxy and its filter cannot use their own files; the filter fails, "
            "so mail is deferred (451) or passes unfiltered",
            (fixes.set_setting(unit, "UMask", "0077"),),
        )
