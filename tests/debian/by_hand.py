"""The README's installation with a real systemd, and its removal.

Rule: the README's commands run unchanged. Only the scanner is a replacement, because a real scanner
would have to download its signatures.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.postfix import readme

from .system import MAILBOX, arrives, has_arrived, refused, run, send, show, wait_until

ETC = Path("/etc/postfix")
#: Changes to Debian's default Postfix configuration.
SETTINGS = (
    *("inet_interfaces=127.0.0.1", "inet_protocols=ipv4", "myhostname=mail.test"),
    *("mydestination=mail.test", "mailbox_command=", "alias_maps=", "home_mailbox="),
)
FILTER = Path("/usr/local/bin/mail-filter")
SCANNER = Path("/usr/bin/clamdscan")
STAND_IN = "#!/bin/sh\n! grep -q EICAR\n"
VIRUS = (550, "5.7.1 The message contains a virus")
UNITS = Path("/usr/local/lib/systemd/system")
#: The permitted exposure level of `systemd-analyze security --threshold`, from 0 to 100.
EXPOSURE = 19


def installed_by_hand() -> None:
    """Install the proxy, filter, user and unit with the README's commands."""
    shutil.copytree(ETC, ETC.with_name("postfix.before"))
    run("postconf", "-e", *SETTINGS)
    start = readme.start()
    print(run("sh", "-e", "-c", readme.installation()), end="")
    for program, text in ((FILTER, readme.filter_script()), (SCANNER, STAND_IN)):
        program.write_text(text)
        program.chmod(0o755)
    run("sh", "-e", "-c", start.user)
    run("sh", "-e", "-c", start.service)
    shutil.copytree(ETC, ETC.with_name("postfix.site"))


def units_are_strict() -> None:
    """Check that the service is as restricted as documented, and that systemd accepts all units."""
    run("systemctl", "start", "postprox.service")
    judged = run("systemd-analyze", "security", f"--threshold={EXPOSURE}", "postprox.service")
    print(judged.splitlines()[-1].strip())
    units = [str(path) for path in UNITS.glob("postprox*.s*") if path.is_file()]
    assert run("systemd-analyze", "verify", "--man=no", *units) == ""
    assert show("StartLimitIntervalUSec") == "0"
    assert show("TriggerLimitIntervalUSec", "postprox.socket") == "0"
    assert show("RestartUSec") == "1s"


def listening_before() -> None:
    """Filter mail before the queue with a listening proxy, even while the scanner fails."""
    _before("listening", service="")


def listening_after() -> None:
    """Filter mail after the queue with a listening proxy, even while the scanner fails."""
    _after("listening", service="")


def spawned_before() -> None:
    """Filter mail before the queue with a spawned proxy, even while the scanner fails."""
    run("systemctl", "disable", "--now", "postprox.socket", "postprox.service")
    _before("spawned", _spawned())


def spawned_after() -> None:
    """Filter mail after the queue with a spawned proxy, even while the scanner fails."""
    _after("spawned", _spawned())


def _spawned() -> str:
    """Return the command for the service that starts the proxy."""
    return readme.start().spawned


def _set_up(mode: str, service: str) -> None:
    shutil.rmtree(ETC)
    shutil.copytree(ETC.with_name("postfix.site"), ETC)
    run("sh", "-e", "-c", service + readme.commands(mode))
    run("systemctl", "restart", "postfix")
    said = run("postprox-check")
    assert said == "", said


def _before(proxy: str, service: str) -> None:
    _set_up(readme.BEFORE, service)
    send(f"harmless, {proxy} before.")
    arrives(f"harmless, {proxy} before.")
    assert refused("EICAR") == VIRUS
    down = SCANNER.rename(SCANNER.with_suffix(".down"))
    code, words = refused("the scanner is down: EICAR")
    down.rename(SCANNER)
    assert code == 451, (code, words)
    assert not has_arrived("EICAR")
    _logged(
        *("verdict=accept result=delivered", "verdict=reject result=refused", "filter failed: "),
        'said="/usr/local/bin/mail-filter: 3: clamdscan: not found"',
    )


def _after(proxy: str, service: str) -> None:
    _set_up(readme.AFTER, service)
    send(f"harmless, {proxy} after.")
    arrives(f"harmless, {proxy} after.")
    send("EICAR")
    wait_until("the virus has bounced", lambda: VIRUS[1] in _journal("postfix/bounce", "scan"))
    down = SCANNER.rename(SCANNER.with_suffix(".down"))
    send(f"waits for the scanner, {proxy} after.")
    wait_until(
        "the message waits in the queue", lambda: "status=deferred" in _journal("postfix/scan")
    )
    down.rename(SCANNER)
    run("postqueue", "-f")
    arrives(f"waits for the scanner, {proxy} after.")
    assert not has_arrived("EICAR")
    _logged("verdict=accept result=delivered", "verdict=reject result=refused", "filter failed: ")
    run("postsuper", "-d", "ALL")


def _journal(*words: str) -> str:
    lines = run("journalctl", "--no-pager", "-o", "short").splitlines()
    return "\n".join(line for line in lines if any(word in line for word in words))


def _logged(*texts: str) -> None:
    run("journalctl", "--sync")
    said = _journal("postprox[")
    assert [text for text in texts if text not in said] == [], said


def packaged_over_it() -> None:
    """Check that the package reports another installation and is removed completely."""
    said = run("dpkg", "-i", "/trial/postprox.deb")
    for other in ("/usr/local/sbin/postprox", f"{UNITS}/postprox.service"):
        assert f"postprox: {other} takes precedence" in said, said
    refused = run("sh", "packaging/install", "--prefix=/usr", status=1)
    assert "belongs to another installation" in refused
    send("after the package came, too.")
    arrives("after the package came, too.")
    run("dpkg", "--remove", "postprox")
    assert Path("/usr/local/sbin/postprox").exists()


def undone() -> None:
    """Uninstall the proxy with the documented command, and restore the system."""
    run("systemctl", "stop", "postfix")
    print(run("sh", "packaging/install", "--uninstall"), end="")
    run("systemctl", "daemon-reload")
    run("dpkg", "--purge", "postprox")
    shutil.rmtree(ETC)
    ETC.with_name("postfix.before").rename(ETC)
    shutil.rmtree(ETC.with_name("postfix.site"))
    run("systemctl", "start", "postfix")
    for path in (FILTER, SCANNER, MAILBOX):
        path.unlink()
    found = run("find", "/usr", "/etc", "/var", "-xdev", "-name", "*postprox*")
    assert found == "", found


STEPS = (
    *(installed_by_hand, units_are_strict, listening_before, listening_after),
    *(spawned_before, spawned_after, packaged_over_it, undone),
)
