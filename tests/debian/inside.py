"""The package from installation to purge, on a system with a real systemd and a real Postfix.

Rule: the program runs as root in a clean, temporary system with the system's Python. The first step
that fails ends the program.
"""

from __future__ import annotations

import re
import smtplib
import threading
import time
from collections import Counter
from pathlib import Path

from . import by_hand, repairs
from .system import (
    MAILBOX,
    PATIENCE,
    TRIAL,
    arrives,
    has_arrived,
    refused,
    run,
    send,
    show,
    wait_until,
)

LIBRARY = Path("/usr/lib/postprox")
SPOOL = Path("/var/spool/postprox")
STATE = Path("/var/lib/postprox")
OPTIONS = Path("/etc/default/postprox")
PROXY, OTHER_PORT = "127.0.0.1:10035", 2525


def installs() -> None:
    """Install the package twice, and check its files and the inactive service."""
    for _ in range(2):
        said = run("dpkg", "-i", str(TRIAL / "postprox.deb"))
        assert "takes precedence" not in said, said
    run("journalctl", "--sync")
    assert "postmaster" not in run("journalctl", "-b", "-t", "postprox", "--no-pager")
    assert run("/usr/sbin/postprox", "--version").startswith("postprox ")
    assert "rejected" in run("postprox-rehearse", "-c", "exit 1")
    assert list(LIBRARY.glob("cpython-*/session")), "no byte code"
    assert f"{SPOOL.owner()} {SPOOL.stat().st_mode & 0o7777:o}" == "postprox 700"
    assert show("ActiveState", "postprox.socket") == "inactive", (
        "the installation must not start the service"
    )


def documented() -> None:
    """Check that every link in the package's documents leads to an installed file."""
    documents = Path("/usr/share/doc/postprox")
    links = [
        page.parent / link
        for page in documents.rglob("*.md")
        for link in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text())
    ]
    assert links, "no links"
    assert [str(link) for link in links if not link.is_file()] == []
    named = re.findall(r"/usr/share/doc/postprox/\S+\w", (documents / "README.Debian").read_text())
    assert named, "README.Debian names no document"
    assert [name for name in named if not Path(name).exists()] == []
    print(f"{len(links)} links")


def spawned() -> None:
    """Run the package's own test with a spawned proxy."""
    print(run("debian/tests/mail", "--spawned"), end="")
    run("postconf", "-MX", "127.0.0.1:10025/inet")
    run("systemctl", "restart", "postfix")


def filters_mail() -> None:
    """Run the package's own test with the service set up as in README.Debian."""
    print(run("debian/tests/mail"), end="")
    assert show("Type") == "notify"
    assert STATE.is_dir(), "no StateDirectory"
    assert show("ActiveState") == "active"


def recipe_is_followed() -> None:
    """Set up the listening service with the commands of --recipe, and check for findings."""
    for name in ("main.cf", "master.cf"):
        path = Path("/etc/postfix", name)
        path.write_text(path.with_name(f"{name}.before").read_text())
    run("postconf", "-e", *by_hand.SETTINGS)
    run("systemctl", "restart", "postfix")
    run("sh", "-e", "-c", "postprox-check --recipe before-queue > /trial/recipe")
    run("sh", "-e", "/trial/recipe")
    wait_until(
        "postprox-check has no findings",
        lambda: run("postprox-check", "--run-filter", status=None) == "",
    )
    send("by the recipe.")
    arrives("by the recipe.")
    assert refused("a virus by the recipe.")[0] == 550
    run("systemctl", "disable", "--now", "postprox.socket", "postprox.service")


def says_how_it_is() -> None:
    """Check the status that the service manager receives."""
    print(f"status: {show('StatusText')}")
    assert re.search(r"\bsession", show("StatusText"))
    assert show("WatchdogUSec") == "1min"
    assert int(show("WatchdogTimestampMonotonic")) > 0


def wrong_command_line() -> None:
    """Check that the service fails quickly with an invalid option, and that mail stays queued."""
    right = OPTIONS.read_text()
    OPTIONS.write_text(right.replace("-t 60", "-t never"))
    began = time.monotonic()
    assert "failed" in run("systemctl", "restart", "postprox.service", status=1)
    assert time.monotonic() - began < 10
    assert "-t 'never'" in (said := _logged())
    assert f"(see {OPTIONS} and postprox --help)" in said
    found = _checked()
    assert f"postprox.service, {OPTIONS}: the command line is invalid" in found, found
    sender = threading.Thread(target=send, args=("has waited",))
    sender.start()
    time.sleep(5)  # in this time the service starts and fails several times
    assert show("ActiveState", "postprox.socket") == "active", "the socket must stay active"
    OPTIONS.write_text(right)
    run("systemctl", "restart", "postprox.service")
    sender.join(PATIENCE)
    wait_until("the waiting message is delivered", lambda: "has waited" in MAILBOX.read_text())


def _logged() -> str:
    run("journalctl", "--sync")
    return run("journalctl", "-u", "postprox.service", "--no-pager", "-n", "20")


def _checked() -> str:
    return " ".join(run("postprox-check", status=2).split())


def options_are_missing() -> None:
    """Check that the journal mentions a missing options file, and postprox-check restores it."""
    away = OPTIONS.rename(OPTIONS.with_suffix(".away"))
    assert "failed" in run("systemctl", "restart", "postprox.service", status=1)
    assert f"postprox: {OPTIONS}: No such file or directory" in _logged()
    said = run("postprox-check", status=2)
    assert "[options-file]" in said, said
    run("sh", "-e", "-c", "\n".join(re.findall(r"^    (?:.+\\\n)*.+$", said, re.MULTILINE)))
    assert show("ActiveState") == "active"
    assert run("postprox-check") == ""
    away.rename(OPTIONS)


def reload_is_refused() -> None:
    """Check that a reload fails, suggests a restart and leaves the service running."""
    before = show("MainPID")
    assert "failed" in run("systemctl", "reload", "postprox.service", status=1)
    line = "postprox cannot reload; run: systemctl restart postprox.service (no message is lost)"
    assert line in _logged()
    run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "postprox.service")
    send("after the reload.")
    arrives("after the reload.")
    assert (show("ActiveState"), show("MainPID")) == ("active", before)


def python_is_upgraded() -> None:
    """Check that an upgrade of /usr/bin/python3 recreates the byte code."""
    [made] = LIBRARY.glob("cpython-*")
    made.rename(made.with_name("cpython-309"))
    run("dpkg-trigger", "--by-package=python3-minimal", "/usr/bin/python3")
    run("dpkg", "--configure", "--pending")
    assert [path.name for path in LIBRARY.glob("cpython-*")] == [made.name]


def upgraded_under_load() -> None:
    """Check that an upgrade under load rejects, loses and duplicates no message."""
    accepted: list[str] = []
    deferred: list[str] = []
    refused: list[str] = []
    stop = threading.Event()

    def send_on(name: str) -> None:
        number = 0
        while not stop.is_set():
            text = f"load-{name}-{number}."
            try:
                send(text)
            except smtplib.SMTPResponseException as error:
                (deferred if error.smtp_code < 500 else refused).append(f"{text} {error}")
            except (OSError, smtplib.SMTPException) as error:
                refused.append(f"{text} {error}")
            else:
                accepted.append(text)
                number += 1

    senders = [threading.Thread(target=send_on, args=(name,)) for name in "abcd"]
    before = show("MainPID")
    edited = f"{OPTIONS.read_text()}# edited\n"
    OPTIONS.write_text(edited)
    for sender in senders:
        sender.start()
    time.sleep(2)
    run("dpkg", "-i", str(TRIAL / "newer.deb"))
    time.sleep(2)
    stop.set()
    for sender in senders:
        sender.join(PATIENCE)
    assert show("MainPID") not in (before, "0"), "the upgrade must restart the service"
    assert OPTIONS.read_text() == edited, "the upgrade must not replace an edited file"
    assert not refused, refused[:5]
    wait_until(
        "all accepted mail is delivered",
        lambda: set(accepted) <= set(re.findall(r"load-\S+", MAILBOX.read_text())),
    )
    seen = Counter(re.findall(r"load-\S+", MAILBOX.read_text()))
    assert {text: seen[text] for text in accepted if seen[text] != 1} == {}
    print(
        f"{len(accepted)} messages during the upgrade, each delivered once; {len(deferred)} resent"
    )


def several_behind_one_port() -> None:
    """Check that two instances of the template share the port, and that both get clients."""
    run("systemctl", "disable", "--now", "postprox.socket", "postprox.service")
    sockets = [f"postprox@{number}.socket" for number in (1, 2)]
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", *sockets)
    for number in range(40):
        send(f"shared {number}")
    pids = {show("MainPID", f"postprox@{number}.service") for number in (1, 2)}
    assert len(pids - {"0"}) == 2, pids
    for pid in pids:
        served = run("journalctl", f"_PID={pid}", "--no-pager", "-g", "verdict=|accept|rewrite")
        print(f"an instance filtered {len(served.splitlines())} of 40 messages")
        assert served.splitlines()


def purged() -> None:
    """Check that a purge loses no mail in transit and leaves no files or processes."""
    spawn = (
        f"{PROXY} inet n n n - 20 spawn user=postprox argv=/usr/sbin/postprox -v --strict -t 90"
        f" -d {SPOOL} -c /usr/local/bin/mail-filter 127.0.0.1:10026"
    )
    front = f"127.0.0.1:{OTHER_PORT} inet n - n - - smtpd -o smtpd_proxy_filter={PROXY}"
    for service in (spawn, front):
        run("postconf", "-M", f"{'/'.join(service.split()[:2])}={service}")
    run("systemctl", "reload", "postfix")
    slow = Path("/usr/local/bin/mail-filter")
    slow.write_text('#!/bin/sh\nsleep "$(grep -o "[0-9]* seconds" "$EMAIL" | cut -d" " -f1)"\n')
    answers: list[tuple[int, str]] = []
    senders = [
        threading.Thread(target=send, args=("listening, 4 seconds.",)),
        threading.Thread(
            target=lambda: answers.append(refused("spawned, 80 seconds.", OTHER_PORT))
        ),
    ]
    for sender in senders:
        sender.start()
    wait_until("both filters run", lambda: len(run("pidof", "sleep", status=None).split()) == 2)
    began = time.monotonic()
    run("dpkg", "--purge", "postprox")
    assert time.monotonic() - began < 30
    for sender in senders:
        sender.join(PATIENCE)
    arrives("listening, 4 seconds.")
    assert answers, "the message to the spawned proxy got no reply"
    print(f"reply to the message to the spawned proxy: {answers[0][0]} {answers[0][1]}")
    assert answers[0][0] // 100 == 4
    assert not has_arrived("spawned, 80 seconds.")
    units = run("systemctl", "list-units", "--plain", "--no-legend", "postprox*")
    assert units == "", units
    assert run("getent", "passwd", "postprox", status=2) == ""
    assert run("pidof", "sleep", status=1) == ""
    places = ("/etc", "/usr", "/var", "/run", "/lib", "/tmp")
    found = run("find", *places, "-xdev", "-name", "*postprox*")
    assert found == "", found


STEPS = (
    *by_hand.STEPS,
    *(
        installs,
        documented,
        spawned,
        recipe_is_followed,
        filters_mail,
        says_how_it_is,
        wrong_command_line,
        options_are_missing,
        reload_is_refused,
        repairs.running_system_is_repaired,
        python_is_upgraded,
    ),
    *(upgraded_under_load, several_behind_one_port, purged),
)


def main() -> None:
    """Run all steps."""
    for step in STEPS:
        began = time.monotonic()
        step()
        print(f"ok  {step.__doc__}  ({time.monotonic() - began:.1f} s)", flush=True)
    print("the package was installed, used, upgraded and purged without an error")


if __name__ == "__main__":
    main()
