"""Problems with a unit's settings that prevent systemd from running the proxy as intended.

Rule: each check is a pure function.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ..core.options import Options, UsageError, parse
from . import environment, fixes
from .facts import ProxyFacts
from .findings import Fault
from .routes import Proxy
from .setup import Setup
from .unit import Unit

#: Settings that prevent the service from working, each with the wrong values, the correct value and
#: the effect.
_STOPPING = (
    ("Type", ("forking", "oneshot", "dbus"), "notify", "systemd considers the service failed"),
    ("RemainAfterExit", ("1", "yes", "true", "on"), "no", "systemd does not restart the service"),
    ("RootDirectory", None, "", "the proxy's programs do not exist there"),
    ("NoExecPaths", ("/",), "", "no program can be executed"),
)


def settings(proxy: Proxy) -> Iterator[Fault]:
    """Report settings that prevent the service from working."""
    unit = proxy.unit
    if unit is None:
        return
    for name, wrong, right, effect in _STOPPING:
        value = unit.setting(name)
        if value and (wrong is None or value in wrong):
            yield Fault(
                "unit-setting",
                proxy.where,
                f"{name}={value}: {effect}; all mail is deferred (451)",
                (fixes.set_setting(unit, name, right),),
            )
    families = " ".join(unit.settings.get("RestrictAddressFamilies", ()))
    if families and not families.startswith("~") and "AF_INET" not in families.split():
        yield Fault(
            "unit-setting",
            proxy.where,
            f"RestrictAddressFamilies={families}: the proxy cannot use TCP; all mail is deferred "
            "(451)",
            (fixes.add_path(unit, "RestrictAddressFamilies", "AF_INET AF_INET6"),),
        )
    if unit.socket and (unit.socket.accept or not unit.socket.listen):
        name, right = ("Accept", "no") if unit.socket.accept else ("ListenStream", _stream(proxy))
        yield Fault(
            "unit-setting",
            unit.socket.name,
            f"{name} of the socket is wrong; systemd does not pass a listening TCP socket to the "
            "proxy, so all mail is deferred (451)",
            (fixes.set_setting(unit.socket, name, right),),
        )


def _stream(proxy: Proxy) -> str:
    return str(proxy.endpoint) if proxy.endpoint else "127.0.0.1:10025"


def stop(proxy: Proxy) -> Iterator[Fault]:
    """Report a unit that kills running filters when the unit is stopped."""
    unit = proxy.unit
    if unit and unit.path and unit.setting("KillMode", "control-group") == "control-group":
        yield Fault(
            "unit-stop",
            proxy.where,
            "KillMode=mixed is missing; if the service is stopped, systemd kills the running "
            "filters",
            (fixes.set_setting(unit, "KillMode", "mixed"),),
        )


def background(proxy: Proxy, wanted: Options) -> Iterator[Fault]:
    """Report a unit that runs the proxy in the background."""
    if proxy.unit and proxy.unit.path and not wanted.foreground:
        yield Fault(
            "background",
            proxy.where,
            "--foreground is missing; systemd passes its socket to a process that exits, so all "
            "mail is deferred (451)",
            (fixes.add_arguments(proxy, "--foreground"),),
        )


def network(proxy: Proxy) -> Iterator[Fault]:
    """Report a unit that cannot reach its upstream server."""
    for name, refused, own in (
        ("PrivateNetwork", ("1", "yes", "true", "on"), "no"),
        ("IPAddressDeny", ("any",), ""),
    ):
        if proxy.unit and proxy.unit.setting(name) in refused:
            if name == "IPAddressDeny" and proxy.unit.settings.get("IPAddressAllow"):
                continue
            yield Fault(
                "no-upstream",
                proxy.where,
                f"the unit has no network access ({name}={proxy.unit.setting(name)}) and cannot "
                "reach the upstream server; all mail is deferred (451)",
                (fixes.set_setting(proxy.unit, name, own),),
            )


def missing_files(proxy: Proxy, facts: ProxyFacts) -> Iterator[Fault]:
    """Report missing files and directories that systemd requires to start the unit."""
    for path in facts.missing_paths:
        is_file = proxy.unit is not None and path in proxy.unit.environment_files
        command = "touch" if is_file else "install -d"
        yield Fault(
            "failing",
            proxy.where,
            f"{path} is required by the unit but does not exist, so systemd does not start the "
            "service; all mail is deferred (451)",
            (fixes.run(f"{command} {shlex.quote(path)}"),),
        )


def options_file(setup: Setup, proxy: Proxy) -> Iterator[Fault]:
    """Report a unit's options file that is missing, or that systemd reads only in part."""
    unit = proxy.unit
    if unit is None or not unit.options_file:
        return
    problems = unit.assignments.problems
    if not unit.options_file_exists:
        problems = ["the file does not exist"]
    if problems:
        yield Fault(
            "options-file",
            proxy.where,
            f"{problems[0]}; the proxy does not get its options, so mail is "
            "deferred (451) or passes unfiltered",
            (fixes.write_options(proxy, _meant(setup, proxy, unit)),),
        )


def _meant(setup: Setup, proxy: Proxy, unit: Unit) -> list[str]:
    """Return the arguments that the file probably should contain, or the package's defaults."""
    behind = setup.place_for_filtered(proxy)
    target = behind.name if behind else environment.PACKAGED[environment.UPSTREAM]
    for text in (unit.assignments.likely, environment.PACKAGED):
        words = [*text.get(environment.OPTIONS, "").split(), text.get(environment.UPSTREAM, target)]
        if text is environment.PACKAGED:
            words[-1] = target
        if _is_accepted(words) and "-c" in words:
            return words
    return words


def _is_accepted(words: Sequence[str]) -> bool:
    try:
        return not parse(["-l", "10025", *words]).information
    except UsageError:
        return False


def replaced(proxy: Proxy) -> Iterator[Fault]:
    """Report a part of the filter command that systemd replaces."""
    if proxy.unit and proxy.unit.replaced:
        part = proxy.unit.replaced[0]
        yield Fault(
            "replaced",
            proxy.where,
            f"systemd replaces {part} in ExecStart or does not load the unit; to pass {part} to "
            f"the filter, write {part[0]}{part}",
            (fixes.set_arguments(proxy, lambda words: words),),
        )


def exec_start(proxy: Proxy) -> Iterator[Fault]:
    """Report a unit with more than one ExecStart=."""
    unit = proxy.unit
    if unit and len(unit.settings.get("ExecStart", ())) > 1 and unit.setting("Type") != "oneshot":
        yield Fault(
            "exec-start",
            proxy.where,
            "ExecStart is set twice without an empty ExecStart= in between, so systemd does not "
            "load the unit; all mail is deferred (451)",
            (fixes.set_arguments(proxy, lambda words: words),),
        )
