"""The findings of postprox-check about a running systemd, and the commands that it prints for them.

Rule: each step puts one mistake into a correct system, runs the printed commands unchanged, and
expects that postprox-check has no findings left.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from .system import arrives, run, send, show, wait_until

SERVICE, SOCKET = "postprox.service", "postprox.socket"
OPTIONS = Path("/etc/default/postprox")
PROGRAM = Path("/usr/sbin/postprox")
MAIN, MASTER = Path("/etc/postfix/main.cf"), Path("/etc/postfix/master.cf")
#: A second unit that runs the proxy.
OTHER = "other.service"
UNITS = Path("/etc/systemd/system")
#: The address of the packaged socket.
ADDRESS = ("127.0.0.1", 10025)


def _drop_in(unit: str, text: str) -> Path:
    path = UNITS / f"{unit}.d/mistake.conf"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def _masked() -> None:
    run("systemctl", "mask", "--now", SOCKET)


def _stopped() -> None:
    run("systemctl", "stop", SOCKET, SERVICE)


def _disabled() -> None:
    run("systemctl", "disable", SOCKET, SERVICE)


def _service_not_reloaded() -> None:
    _drop_in(SERVICE, "[Service]\nNice=5\n")


def _socket_not_reloaded() -> None:
    _drop_in(SOCKET, "[Socket]\nBacklog=64\n")


def _options_not_restarted() -> None:
    OPTIONS.write_text(OPTIONS.read_text().replace("-t 60", "-t 61"))


def _requires_misspelled_unit() -> None:
    _drop_in(SERVICE, "[Unit]\nRequires=postfx.service\n")
    run("systemctl", "daemon-reload")


def _service_failed() -> None:
    """Let a start fail with a cause that is gone afterwards."""
    _drop_in(SERVICE, "[Service]\nRestart=no\n")
    run("systemctl", "daemon-reload")
    away = PROGRAM.rename(PROGRAM.with_name("postprox.away"))
    run("systemctl", "restart", SERVICE, status=1)
    away.rename(PROGRAM)


def _socket_failed() -> None:
    """Let another server have the port while the socket starts."""
    _stopped()
    with socket.create_server(ADDRESS):
        run("systemctl", "start", SOCKET, status=1)


def _listens_everywhere() -> None:
    _drop_in(SOCKET, f"[Socket]\nListenStream=\nListenStream={ADDRESS[1]}\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "stop", SERVICE)
    run("systemctl", "restart", SOCKET)


def _listened_everywhere() -> None:
    """Correct the unit of an open relay, but do not restart it."""
    _listens_everywhere()
    _drop_in(SOCKET, f"[Socket]\nListenStream=\nListenStream={ADDRESS[0]}:{ADDRESS[1]}\n")


def _socket_not_restarted() -> None:
    """Move the proxy and Postfix to another port, but let the socket listen on the old port."""
    other = f"{ADDRESS[0]}:10125"
    _drop_in(SOCKET, f"[Socket]\nListenStream=\nListenStream={other}\n")
    run("systemctl", "daemon-reload")
    run("postconf", "-e", f"smtpd_proxy_filter={other}")
    run("postfix", "reload")


def _upstream_not_loaded() -> None:
    """Let master.cf have the service after the proxy, and Postfix run without it."""
    entries = MASTER.read_text()
    run("postconf", "-MX", "127.0.0.1:10026/inet")
    run("postfix", "reload")
    wait_until("the service after the proxy is gone", lambda: not _listens(10026))
    MASTER.write_text(entries)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _second_proxy() -> None:
    """Enable another unit with the port of the packaged socket."""
    words = f"{PROGRAM} --foreground -l {ADDRESS[1]} $POSTPROX_OPTIONS $POSTPROX_UPSTREAM"
    (UNITS / OTHER).write_text(
        f"[Service]\nUser=postprox\nKillMode=mixed\nEnvironmentFile={OPTIONS}\n"
        f"ExecStart={words}\n[Install]\nWantedBy=multi-user.target\n"
    )
    run("systemctl", "enable", OTHER)


#: Each mistake, and the finding that names it.
MISTAKES: dict[Callable[[], None], str] = {
    _masked: "masked",
    _stopped: "not-running",
    _disabled: "not-enabled",
    _service_not_reloaded: "not-reloaded",
    _socket_not_reloaded: "not-reloaded",
    _options_not_restarted: "not-reloaded",
    _requires_misspelled_unit: "failing",
    _service_failed: "failing",
    _socket_failed: "failing",
    _listens_everywhere: "open-relay",
    _listened_everywhere: "open-relay",
    _socket_not_restarted: "no-greeting",
    _upstream_not_loaded: "no-greeting",
    _second_proxy: "port-twice",
}


def running_system_is_repaired() -> None:
    """Check that the commands of postprox-check repair each mistake in a running system."""
    run("systemctl", "enable", "--now", SOCKET)
    files = {path: path.read_text() for path in (OPTIONS, MAIN, MASTER)}
    for mistake, finding in MISTAKES.items():
        assert (said := run("postprox-check", status=None)) == "", said
        mistake()
        said = run("postprox-check", status=None)
        assert f"[{finding}]" in said, f"{mistake.__name__}: {said}"
        commands = re.findall(r"^    (?:.+\\\n)*.+$", said, re.MULTILINE)
        print(f"{finding}:")
        for command in commands:
            print(f"   {command}")
            run("sh", "-c", command, status=None)
        wait_until(
            f"{mistake.__name__} is repaired", lambda: run("postprox-check", status=None) == ""
        )
        send(f"after {mistake.__name__}.")
        arrives(f"after {mistake.__name__}.")
        _restore(files)


def _restore(files: Mapping[Path, str]) -> None:
    """Restore the configuration, and remove the units and drop-ins of a mistake and its repair."""
    for path, text in files.items():
        path.write_text(text)
    for path in (*UNITS.glob(f"{SERVICE}.d/*"), *UNITS.glob(f"{SOCKET}.d/*"), *UNITS.glob(OTHER)):
        path.unlink()
    run("postfix", "reload")
    run("systemctl", "daemon-reload")
    run("systemctl", "stop", SERVICE)
    run("systemctl", "restart", SOCKET)
    run("systemctl", "start", SERVICE)
    assert show("ActiveState") == "active"
