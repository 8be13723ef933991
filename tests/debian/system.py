"""Helpers for the steps of the trial, which run commands and send mail.

Rule: every failure ends the trial with a message.
"""

from __future__ import annotations

import smtplib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0
#: The directories with the files of the trial and of the project.
TRIAL = Path("/trial")
CHECKOUT = TRIAL / "checkout"
MAILBOX = Path("/var/mail/nobody")


def run(*command: str, status: int | None = 0, cwd: Path = CHECKOUT) -> str:
    """Run a command and return its output."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    ended = subprocess.run(command, stdout=pipe, stderr=both, text=True, check=False, cwd=cwd)
    if status is not None and ended.returncode != status:
        sys.exit(f"{' '.join(command)} failed with status {ended.returncode}:\n{ended.stdout}")
    return ended.stdout


def show(name: str, unit: str = "postprox.service") -> str:
    """Return a property of a unit."""
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def wait_until(what: str, condition: Callable[[], object]) -> None:
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"timed out after {PATIENCE:g} s: waiting until {what}")
        time.sleep(0.1)


def send(text: str, port: int = 25) -> None:
    """Send a message with `text` as its body, through Postfix and the proxy.

    Raises:
        smtplib.SMTPResponseException: the message was refused.
    """
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.sendmail("someone@example.com", ["nobody@mail.test"], f"Subject: x\n\n{text}\n")


def refused(text: str, port: int = 25) -> tuple[int, str]:
    """Send a message that must be refused. Return the reply's code and text."""
    try:
        send(text, port)
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        return error.smtp_code, said.decode() if isinstance(said, bytes) else said
    sys.exit(f"a message was accepted: {text}")


def has_arrived(text: str) -> bool:
    """Return whether `text` is in the mailbox."""
    return MAILBOX.exists() and text in MAILBOX.read_text()


def arrives(text: str) -> None:
    """Wait until `text` is in the mailbox, and check that it occurs exactly once."""
    wait_until(f"{text!r} is in the mailbox", lambda: has_arrived(text))
    assert MAILBOX.read_text().count(text) == 1, f"{text!r} has arrived more than once"
