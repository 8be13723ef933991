"""The life of the package on a system with a real systemd and a real Postfix.

Rule: it runs as root inside of a clean system that is thrown away afterwards, with that system's
own Python; the first step that fails ends it.
"""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 60.0
LIBRARY = Path("/usr/lib/postprox")
SPOOL = Path("/var/spool/postprox")
MAILBOX = Path("/var/mail/nobody")
DROP_IN = Path("/etc/systemd/system/postprox.service.d/local.conf")


def run(*command: str, status: int | None = 0) -> str:
    """Run a command; return what it prints."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    ended = subprocess.run(command, stdout=pipe, stderr=both, text=True, check=False)
    if status is not None and ended.returncode != status:
        sys.exit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}")
    return ended.stdout


def show(name: str, unit: str = "postprox.service") -> str:
    """Return a property of a unit."""
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def wait_until(what: str, condition: object) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain until {what}")
        time.sleep(0.1)


def send(text: str) -> None:
    """Send a message with `text` as its body, through Postfix and the proxy."""
    with smtplib.SMTP("127.0.0.1", 25, timeout=PATIENCE) as client:
        client.sendmail("someone@example.com", ["nobody@mail.test"], f"Subject: x\n\n{text}\n")


def installs() -> None:
    """It is there as it should be."""
    run("dpkg", "-i", str(HERE / "postprox.deb"))
    assert run("/usr/sbin/postprox", "--version").startswith("postprox ")
    assert "rejected" in run("postprox-rehearse", "-c", "exit 1")
    assert list(LIBRARY.glob("cpython-*/session")), "no byte code"
    assert f"{SPOOL.owner()} {SPOOL.stat().st_mode & 0o7777:o}" == "postprox 700"
    assert show("ActiveState", "postprox.socket") == "inactive", "nothing is to run by itself"


def filters_mail() -> None:
    """Mail goes through it, set up as README.Debian says."""
    print(run("/usr/bin/python3", str(HERE / "mail")), end="")
    assert show("Type") == "notify"
    assert show("ActiveState") == "active"


def says_how_it_is() -> None:
    """The service manager is told that it serves, and what it does."""
    print(f"status: {show('StatusText')}")
    assert re.search(r"\bsession", show("StatusText"))
    assert show("WatchdogUSec") == "1min"
    assert int(show("WatchdogTimestampMonotonic")) > 0


def wrong_command_line() -> None:
    """It fails at once, with the reason in the journal; mail waits and is not refused."""
    right = DROP_IN.read_text()
    DROP_IN.write_text(right.replace("-t 60", "-t never"))
    run("systemctl", "daemon-reload")
    began = time.monotonic()
    assert "failed" in run("systemctl", "restart", "postprox.service", status=1)
    assert time.monotonic() - began < 10
    assert "-t 'never'" in run("journalctl", "-u", "postprox.service", "--no-pager")
    sender = threading.Thread(target=send, args=("has waited",))
    sender.start()
    time.sleep(5)  # long enough to be started, and to fail, several times
    assert show("ActiveState", "postprox.socket") == "active", "the socket has given up"
    DROP_IN.write_text(right)
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "postprox.service")
    sender.join(PATIENCE)
    wait_until("the mail that waited is there", lambda: "has waited" in MAILBOX.read_text())


def python_is_upgraded() -> None:
    """Byte code is made anew when /usr/bin/python3 is replaced."""
    [made] = LIBRARY.glob("cpython-*")
    made.rename(made.with_name("cpython-309"))
    run("dpkg-trigger", "--by-package=python3-minimal", "/usr/bin/python3")
    run("dpkg", "--configure", "--pending")
    assert [path.name for path in LIBRARY.glob("cpython-*")] == [made.name]


def upgraded_under_load() -> None:
    """No message is refused for good, lost or doubled while the package is upgraded."""
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
    for sender in senders:
        sender.start()
    time.sleep(2)
    run("dpkg", "-i", str(HERE / "newer.deb"))
    time.sleep(2)
    stop.set()
    for sender in senders:
        sender.join(PATIENCE)
    assert show("MainPID") not in (before, "0"), "the service was not restarted"
    assert not refused, refused[:5]
    wait_until(
        "all accepted mail is there",
        lambda: set(accepted) <= set(re.findall(r"load-\S+", MAILBOX.read_text())),
    )
    seen = Counter(re.findall(r"load-\S+", MAILBOX.read_text()))
    assert {text: seen[text] for text in accepted if seen[text] != 1} == {}
    print(f"{len(accepted)} messages meanwhile, each there once; {len(deferred)} had to be resent")


def several_behind_one_port() -> None:
    """Two instances of the template share the port, and both get clients."""
    run("systemctl", "disable", "--now", "postprox.socket", "postprox.service")
    DROP_IN.parent.rename("/etc/systemd/system/postprox@.service.d")
    sockets = [f"postprox@{number}.socket" for number in (1, 2)]
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", *sockets)
    for number in range(40):
        send(f"shared {number}")
    pids = {show("MainPID", f"postprox@{number}.service") for number in (1, 2)}
    assert len(pids - {"0"}) == 2, pids
    for pid in pids:
        served = run("journalctl", f"_PID={pid}", "--no-pager", "-g", "verdict=|accept|rewrite")
        print(f"an instance had {len(served.splitlines())} of 40 messages")
        assert served.splitlines()


def purged() -> None:
    """Nothing is left of it, and nothing runs."""
    run("dpkg", "--purge", "postprox")
    assert run("systemctl", "list-units", "--all", "--plain", "--no-legend", "postprox*") == ""
    assert run("getent", "passwd", "postprox", status=2) == ""
    places = ("/etc", "/usr", "/var", "/run", "/lib", "/tmp")
    found = run("find", *places, "-xdev", "-name", "*postprox*")
    assert found == "", found


STEPS = (
    *(installs, filters_mail, says_how_it_is, wrong_command_line, python_is_upgraded),
    *(upgraded_under_load, several_behind_one_port, purged),
)


def main() -> None:
    """Take all steps in turn."""
    for step in STEPS:
        began = time.monotonic()
        step()
        print(f"ok  {step.__doc__}  ({time.monotonic() - began:.1f} s)", flush=True)
    print("the package was installed, used, upgraded and purged without a fault")


if __name__ == "__main__":
    main()
