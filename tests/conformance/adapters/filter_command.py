"""Runs the `-c` filter for a program that has a different filter interface.

Rule: this module follows postprox's contract: EMAIL, OUTFILE, the envelope variables, and the exit
status. The program sees only exit status 0 (accept) or 1 (reject with the last line of standard
error). Line ends and dots remain unchanged.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from .kernel import die_with


@dataclass(frozen=True)
class Message:
    """The message that a program passes to its filter, with the envelope."""

    #: The file with the message.
    email: Path
    sender: str = ""
    recipient: str = ""
    remote_ip: str = ""
    helo: str = ""
    #: The file for a changed message, or None if the program reads it from `email`.
    outfile: Path | None = None

    @property
    def envelope(self) -> dict[str, str]:
        """The filter's environment variables."""
        return {
            "SENDER": self.sender,
            "RECIPIENT": self.recipient,
            "REMOTEIP": self.remote_ip,
            "HELO": self.helo,
        }


@dataclass(frozen=True)
class FilterCommand:
    """The filter of one transcript."""

    command: str
    #: True if a filter failure rejects the message.
    reject: bool
    #: The directory for OUTFILE.
    files: str
    #: The adapter's file, which contains the function `message`.
    adapter: str
    #: True if the control runs instead of the program.
    is_control: bool = False

    def script(self) -> str:
        """Return a shell script that runs the filter."""
        launcher = Path(__file__).with_name("__main__.py")
        words = [sys.executable, "-S", "-E", str(launcher), "--filter", json.dumps(asdict(self))]
        return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'

    def run(self, message: Message) -> int:
        """Run the filter for *message*. Return 0 to accept, or 1 to reject."""
        descriptor, outfile = tempfile.mkstemp(dir=self.files)
        os.close(descriptor)
        values = {"EMAIL": str(message.email), "OUTFILE": outfile, **message.envelope}
        # If the program kills its filter, it kills only this process.
        this = os.getpid()
        shell = subprocess.Popen(
            ["/bin/sh", "-c", self.command],
            env={**os.environ, **values},
            preexec_fn=lambda: die_with(this, signal.SIGKILL),  # noqa: PLW1509 - no threads
        )
        status = shell.wait() or _replaced(Path(outfile), message.outfile or message.email)
        with contextlib.suppress(OSError):
            Path(outfile).unlink()
        if status == 1:
            return 1
        if status and self.reject:
            sys.stderr.write("451 4.3.0 The mail filter failed\n")
            return 1
        return 0


def _replaced(outfile: Path, target: Path) -> int:
    """Replace the message with the filter's output. Return 0, or 2 after an error."""
    try:
        written = outfile.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(written.st_mode):
        return 2
    if written.st_size:
        with contextlib.suppress(shutil.SameFileError):
            shutil.copyfile(outfile, target)
    return 0


def message_of_reference(_arguments: object) -> Message:
    """Return the message that postprox passes to its filter."""
    names = ("SENDER", "RECIPIENT", "REMOTEIP", "HELO")
    sender, recipient, remote_ip, helo = (os.environ.get(name, "") for name in names)
    outfile = Path(os.environ["OUTFILE"])
    return Message(Path(os.environ["EMAIL"]), sender, recipient, remote_ip, helo, outfile)
