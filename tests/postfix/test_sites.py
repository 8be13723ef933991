"""Existing sites with a signing milter, a submission service or amavis.

Each site extends Debian's configuration and runs in private namespaces, as in test_appended.py. The
tests append the recipe and run the commands in docs/opendkim.md and docs/amavis.md unchanged.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from . import readme
from .instance import Address, missing, program
from .recipe import AFTER, BEFORE
from .signer import CONFIGURATION
from .test_appended import NAMESPACES, SITE, START, of_readme, stock
from .test_setup_commands import run

DOCS = readme.README.parent / "docs"
OPENDKIM, AMAVIS_PAGE = DOCS / "opendkim.md", DOCS / "amavis.md"
SOCKET = "/run/opendkim/opendkim.sock"
FILTER = """#!/bin/sh
if grep -q VIRUS "$EMAIL"; then echo '550 5.7.1 The message contains a virus' >&2; exit 1; fi
{ echo 'X-Filtered: yes'; cat "$EMAIL"; } > "$OUTFILE"
"""

SIGNER_MAIN = f"smtpd_milters = unix:{SOCKET}\nmilter_default_action = tempfail\n"
SUBMISSION = """
submission inet n - n - - smtpd
    -o syslog_name=postfix/own -o smtpd_recipient_restrictions=permit_mynetworks,reject
"""
START_SIGNER = f"""
mount -t tmpfs none /run && mkdir /run/opendkim
openssl genrsa -out "$DIR/key.pem" 2048 2>/dev/null && chmod 600 "$DIR/key.pem"
opendkim -f -x "$DIR/opendkim.conf" &
while ! test -S {SOCKET}; do sleep 0.1; done
"""

#: A replacement for amavis: a filter on port 10024 that returns mail to port 10025.
AMAVIS_MAIN = "content_filter = amavis:[127.0.0.1]:10024\n"
AMAVIS = """
amavis unix - - n - 2 smtp
    -o smtp_send_xforward_command=yes
127.0.0.1:10024 inet n n n - 5 spawn
    user=postprox argv=/usr/local/sbin/postprox -d /var/spool/postprox -c /usr/local/bin/amavis
    127.0.0.1:10025
127.0.0.1:10025 inet n - n - - smtpd
    -o syslog_name=postfix/amavis -o content_filter= -o mynetworks=127.0.0.0/8
    -o smtpd_recipient_restrictions=permit_mynetworks,reject
"""
START_AMAVIS = """
cat > /usr/local/bin/amavis <<'END'
#!/bin/sh
{ echo 'X-Amavis: yes'; cat "$EMAIL"; } > "$OUTFILE"
END
chmod 755 /usr/local/bin/amavis
"""

#: Sends a message and a virus to the port, and prints the results.
TRY = """
postfix start 2>/dev/null
{python} - {port} <<'END'
import json, pathlib, re, smtplib, sys, time

def send(text):
    message = f"From: a@mail.test\\nTo: nobody@mail.test\\nSubject: x\\n\\n{{text}}\\n"
    with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30) as client:
        try:
            client.sendmail("a@mail.test", ["nobody@mail.test"], message)
        except smtplib.SMTPRecipientsRefused as error:
            return list(error.recipients.values())[0][0]
        except smtplib.SMTPResponseException as error:
            return error.smtp_code
    return 250

codes = [send("harmless"), send("VIRUS")]
log, mailbox = pathlib.Path("/var/spool/mail.log"), pathlib.Path("/var/mail/nobody")
queue = [pathlib.Path("/var/spool/postfix", name) for name in ("maildrop", "incoming", "active")]
while any(path.is_file() for directory in queue for path in directory.rglob("*")):
    time.sleep(0.1)
mail = mailbox.read_text() if mailbox.exists() else ""
lines = log.read_text()
print(json.dumps({{
    "codes": codes,
    "arrived": "harmless" in mail,
    "virus arrived": "VIRUS" in mail,
    "filtered": "X-Filtered: yes" in mail.partition("harmless")[0],
    "amavis": "X-Amavis: yes" in mail.partition("harmless")[0],
    "signed": "DKIM-Signature: " in mail.partition("harmless")[0],
    "own service": "postfix/own/smtpd" in lines,
    "too many hops": "too many hops" in lines,
}}))
END
postfix stop 2>/dev/null
"""


def commands(heading: str, page: Path = OPENDKIM) -> list[str]:
    """Return the command blocks under a heading of a page."""
    return readme.indented(readme.section(heading, page))


def on_site(directory: Path, main: str, master: str, steps: list[str]) -> list[str]:
    """Run the steps on a site with these configuration lines and the proxy. Return their output."""
    if reason := missing():
        pytest.skip(reason)
    (directory / "main.cf").write_text(stock("main.cf.debian") + SITE + main)
    (directory / "master.cf").write_text(stock("master.cf.dist") + master)
    (directory / "mail-filter").write_text(FILTER)
    script = [readme.installation(), readme.start().user, START, *steps]
    return run(directory, "".join(script), *NAMESPACES).splitlines()[1:]


def tried(directory: Path, main: str, master: str, steps: list[str], port: int) -> dict[str, Any]:
    """Run the steps on a site with these configuration lines, and send mail. Return the results."""
    mail = TRY.format(python=sys.executable, port=port)
    report: dict[str, Any] = json.loads(on_site(directory, main, master, [*steps, mail])[-1])
    return report


class Own(NamedTuple):
    """A route after a submission service, and the expected results."""

    mode: str
    #: The index of the command under "A submission service", or None to omit it.
    command: int | None
    filtered: bool
    signed: bool


OWN = {
    "before the queue, unchanged": Own(BEFORE, None, filtered=True, signed=False),
    "before the queue, to the second proxy": Own(BEFORE, 0, filtered=True, signed=True),
    "before the queue, unfiltered": Own(BEFORE, 2, filtered=False, signed=True),
    "after the queue, to the second proxy": Own(AFTER, 1, filtered=True, signed=True),
    "after the queue, unfiltered": Own(AFTER, 3, filtered=False, signed=True),
}


def with_signer(directory: Path) -> list[str]:
    """Return the steps that start OpenDKIM."""
    if program("opendkim") is None:
        pytest.skip("opendkim is not installed (Debian: apt-get install opendkim)")
    text = CONFIGURATION.format(dir=directory, address=Address("127.0.0.1", 8891))
    text = text.replace("Socket inet:8891@127.0.0.1", f"Socket local:{SOCKET}\nUMask 000")
    (directory / "opendkim.conf").write_text(text)
    return [START_SIGNER]


@pytest.mark.parametrize("name", OWN)
def test_submission_service_works_as_documented(tmp_path: Path, name: str) -> None:
    mode, command, filtered, signed = OWN[name]
    steps = [*with_signer(tmp_path), of_readme(mode)]
    if command is not None:
        (both,) = commands("Mail from your own users")
        users = both.splitlines(keepends=True)[0]
        steps.append(users if mode == BEFORE else users.replace("before-queue", "after-queue"))
        steps += commands("A milter that signs")
        steps.append(commands("A submission service")[command])
    seen = tried(tmp_path, SIGNER_MAIN, SUBMISSION, steps, port=587)
    assert seen["arrived"]
    assert seen["own service"]
    assert (seen["filtered"], seen["signed"]) == (filtered, signed)
    assert seen["virus arrived"] == (not filtered)
    assert seen["codes"] == [250, 550 if filtered and mode == BEFORE else 250]


def test_appended_submission_file_replaces_existing_service(tmp_path: Path) -> None:
    steps = [
        of_readme(BEFORE),
        *commands("Mail from your own users"),
        *commands("Existing services", DOCS / "postfix.md"),
        "postconf -P submission/inet/syslog_name 2>/dev/null | sort -u\n",
    ]
    printed = on_site(tmp_path, "", SUBMISSION, steps)
    assert printed == ["submission/inet", "submission/inet/syslog_name = postfix/submission"]


#: The blocks under "Use different ports".
RENUMBERED, NOT_AGAIN, LED_ON = 0, 1, 2


def test_amavis_and_proxy_both_filter_before_queue(tmp_path: Path) -> None:
    printed = commands("Use different ports", AMAVIS_PAGE)
    steps = [START_AMAVIS, printed[RENUMBERED], printed[NOT_AGAIN]]
    seen = tried(tmp_path, AMAVIS_MAIN, AMAVIS, steps, port=25)
    assert (seen["arrived"], seen["filtered"], seen["amavis"]) == (True, True, True)
    assert seen["codes"] == [250, 550]


def test_amavis_and_proxy_both_filter_after_queue(tmp_path: Path) -> None:
    printed = commands("Use different ports", AMAVIS_PAGE)
    renumbered = printed[RENUMBERED].replace("before-queue", "after-queue")
    steps = [START_AMAVIS, renumbered, printed[LED_ON]]
    seen = tried(tmp_path, AMAVIS_MAIN, AMAVIS, steps, port=25)
    assert (seen["arrived"], seen["filtered"], seen["amavis"]) == (True, True, True)


def test_filter_at_reinjection_service_causes_mail_loop(tmp_path: Path) -> None:
    printed = commands("Use different ports", AMAVIS_PAGE)
    steps = [START_AMAVIS, printed[RENUMBERED]]
    seen = tried(tmp_path, AMAVIS_MAIN, AMAVIS, steps, port=25)
    assert (seen["arrived"], seen["too many hops"]) == (False, True)


def test_port_conflict_with_amavis_causes_mail_loop(tmp_path: Path) -> None:
    seen = tried(tmp_path, AMAVIS_MAIN, AMAVIS, [START_AMAVIS, of_readme(BEFORE)], port=25)
    assert (seen["arrived"], seen["too many hops"]) == (False, True)


POSTSCREEN = """
smtp inet n - y - 1 postscreen
smtpd pass - - y - - smtpd
"""


def test_mail_accepted_by_postscreen_is_filtered(tmp_path: Path) -> None:
    seen = tried(tmp_path, "", POSTSCREEN, [of_readme(BEFORE)], port=25)
    assert (seen["arrived"], seen["filtered"]) == (True, True)
    assert seen["codes"] == [250, 550]
