"""The documents' commands append the recipe to Debian's own main.cf and master.cf.

Afterwards a real Postfix on port 25 of a private network namespace rejects a virus. The existing
files may end without a newline, or in a line that an indented line would continue.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from . import readme
from .instance import missing, program
from .recipe import AFTER, BEFORE
from .test_setup_commands import run

ROOT = readme.README.parent
STOCK = Path("/usr/share/postfix")

#: The settings that Debian's installation adds to main.cf.debian, and the log file.
SITE = """
myhostname = mail.test
mydestination = mail.test, localhost
alias_maps =
mynetworks = 127.0.0.0/8
inet_protocols = ipv4
smtp_dns_support_level = disabled
maillog_file = /var/spool/mail.log
"""
#: Last lines that an indented line would continue, and no newline after them.
LAST_LINES = {
    "main.cf": "relay_domains = first.test,\n    second.test",
    "master.cf": "own unix - n n - - pipe\n    flags=R user=nobody argv=/bin/true",
}
SHOW_LAST_LINES = "postconf -h relay_domains\npostconf -M own/unix | grep -o 'flags.*'\n"
SHOWN_LAST_LINES = ["first.test, second.test", "flags=R user=nobody argv=/bin/true"]

NAMESPACES = ("--net", "--pid", "--fork", "--kill-child", "--mount-proc")
START = """
python3 - <<'END'
import fcntl, socket, struct
IFREQ, SIOCSIFFLAGS, UP = "16sH14x", 0x8914, 0x49
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, struct.pack(IFREQ, b"lo", UP))
END
mount -t tmpfs none /var/lib/postfix && chown postfix /var/lib/postfix
mount -t tmpfs none /var/mail && chmod 1777 /var/mail
mkdir /var/spool/postfix
cp "$DIR/mail-filter" /usr/local/bin/mail-filter
chmod 755 /usr/local/bin/mail-filter
cp "$DIR/main.cf" "$DIR/master.cf" /etc/postfix/
"""
FILTER = """#!/bin/sh
if grep -q VIRUS "$EMAIL"; then echo '550 5.7.1 The message contains a virus' >&2; exit 1; fi
"""
SEND = """
postfix start 2>/dev/null
postprox-check --run-filter
python3 - <<'END'
import pathlib, smtplib, time

def send(text):
    with smtplib.SMTP("127.0.0.1", 25, timeout=30) as client:
        try:
            client.sendmail("a@mail.test", ["nobody@mail.test"], f"Subject: x\\n\\n{text}\\n")
        except smtplib.SMTPDataError as error:
            print(error.smtp_code, error.smtp_error.decode())

send("harmless")
send("VIRUS")
log, mailbox = pathlib.Path("/var/spool/mail.log"), pathlib.Path("/var/mail/nobody")
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    lines = log.read_text()
    if "status=sent (delivered to mailbox)" in lines and "The message contains a virus" in lines:
        break
    time.sleep(0.1)
arrived = mailbox.read_text() if mailbox.exists() else lines
print("harmless" in arrived, "VIRUS" in arrived)
print(*[line for line in lines.splitlines() if "overriding" in line or "unused" in line], sep="")
END
postfix stop 2>/dev/null
"""


def stock(name: str) -> str:
    """Return a configuration file from Debian's Postfix package."""
    path = STOCK / name
    if not path.exists():
        pytest.skip(f"{path} is missing: Postfix is not Debian's package")
    return path.read_text()


def of_readme(mode: str) -> str:
    """Return the commands of docs/setup.md."""
    return readme.start().spawned + readme.commands(mode)


def of_the_manual(mode: str) -> str:
    """Return the commands as copied from the rendered manual page, with its indentation."""
    mandoc = program("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed")
    command = [mandoc, "-Tutf8", str(ROOT / "man/postprox.1")]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return of_a_page(page, mode)


def of_the_package(mode: str) -> str:
    """Return README.Debian's commands with their indentation."""
    packaged = "mount -t tmpfs none /usr/share/doc\ncp -R /usr/local/share/doc/* /usr/share/doc\n"
    return packaged + of_a_page((ROOT / "debian/README.Debian").read_text(), mode)


def of_a_page(text: str, mode: str) -> str:
    """Return the lines with commands for the mode and the spawned proxy."""
    name = mode.lower().replace("before the", "before").replace("after the", "after")
    wanted = rf"^ +cat \S+/(?:spawned|{name.replace(' ', '-')})\.\S+ >> .*\n"
    lines = re.findall(wanted, text, re.MULTILINE)
    assert len(lines) == 3, lines
    return "".join(lines)


def prepared(directory: Path, mode: str) -> list[str]:
    """Write Debian's configuration and a filter. Return the steps that install the proxy."""
    if reason := missing():
        pytest.skip(reason)
    (directory / "main.cf").write_text(stock("main.cf.debian") + SITE)
    (directory / "master.cf").write_text(stock("master.cf.dist"))
    (directory / "mail-filter").write_text(FILTER)
    return [readme.installation(), readme.start().user, START, of_readme(mode)]


#: Waits until no message is in the queue.
ARRIVED = """
for _ in $(seq 100); do grep -q 'status=sent' /var/spool/mail.log && break; sleep 0.1; done
"""


def test_recipe_delivers_harmless_test_message_and_rejects_virus(tmp_path: Path) -> None:
    if program("smtp-source") is None:
        pytest.skip("smtp-source is not installed")
    _, message = readme.trial()
    virus = message.replace("harmless", "VIRUS").rstrip("\n") + " 2>&1 || echo failed\n"
    assert virus != message
    steps = [
        *prepared(tmp_path, BEFORE),
        "postfix start 2>/dev/null\n",
        message,
        ARRIVED,
        "grep -c 'status=sent' /var/spool/mail.log\n",
        virus,
        "postfix stop 2>/dev/null\n",
    ]
    _, sent, refusal, failed = run(tmp_path, "".join(steps), *NAMESPACES).splitlines()
    assert (sent, failed) == ("1", "failed")
    assert "550 5.7.1 The message contains a virus" in refusal


def test_troubleshooting_commands_show_filter_settings(tmp_path: Path) -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    first, settings, units = readme.indented(page)
    check, queue = first.splitlines(keepends=True)
    assert check == "postprox-check --run-filter\n"
    steps = [
        *prepared(tmp_path, BEFORE),
        "postfix start 2>/dev/null\n",
        queue,
        settings,
        units,
        "postfix stop 2>/dev/null\n",
    ]
    printed = run(tmp_path, "".join(steps), *NAMESPACES).splitlines()[1:]
    assert printed == [
        "Mail queue is empty",
        "smtpd_proxy_filter = 127.0.0.1:10025",
        "127.0.0.1:10026/inet/smtpd_proxy_filter =",
    ]
    assert (tmp_path / "told").read_text() == "status postprox.socket postprox.service\n"


@pytest.mark.parametrize("mode", [BEFORE, AFTER])
@pytest.mark.parametrize(
    ("commands", "unfinished"),
    [(of_readme, False), (of_readme, True), (of_the_manual, True), (of_the_package, True)],
)
def test_recipe_appended_to_existing_configuration_rejects_virus(
    tmp_path: Path, mode: str, commands: Callable[[str], str], unfinished: bool
) -> None:
    if reason := missing():
        pytest.skip(reason)
    for name, text in (
        ("main.cf", stock("main.cf.debian") + SITE),
        ("master.cf", stock("master.cf.dist")),
    ):
        (tmp_path / name).write_text(text + LAST_LINES[name] if unfinished else text)
    (tmp_path / "mail-filter").write_text(FILTER)
    user = readme.start().user
    shown = SHOW_LAST_LINES if unfinished else ""
    steps = [readme.installation(), user, START, commands(mode), shown, SEND]
    installed, *printed = run(tmp_path, "".join(steps), *NAMESPACES).splitlines()
    assert installed.startswith("installed ")
    kept = SHOWN_LAST_LINES if unfinished else []
    refused = ["550 5.7.1 The message contains a virus"] if mode == BEFORE else []
    assert printed == [*kept, *refused, "True False", ""]
