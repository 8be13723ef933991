#!/usr/bin/python3 -IS
"""Store the messages that another filter rejects, and accept them from the sender.

Needs:  Python 3, and a directory that only the filter's user can read and write.
Use:    --strict -c {/usr/local/bin/quarantine.py /var/spool/quarantine /usr/local/bin/clamav.sh}
        or to store a copy and reject the message:
        --strict -c {/usr/local/bin/quarantine.py --reject /var/spool/quarantine
            /usr/local/bin/clamav.sh}
Down:   a failure of the other filter remains a failure (451). An error while the message is stored
        is a failure as well. The sender tries again later, and no message is lost.

If the other filter rejects a message permanently (5yz), this filter stores it, and the client gets
250. The sender assumes that the message was delivered. All other results of the other filter
remain.

The directory is a Maildir, which mail programs can read. The message begins with the fields
X-Envelope-From, X-Envelope-To and X-Quarantine-Reason. To release a message without those fields
and without another run of the filter:
    sed '1,/^X-Quarantine-Reason: /d' FILE | sendmail -i -f SENDER RECIPIENT
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

PASS, REJECT, FAIL = 0, 1, 2
# The maximum number of octets from the end of standard error.
TAIL = 4096


def run(command: str) -> tuple[int, bytes]:
    """Run the other filter, and return its status and the last line of its standard error."""
    with tempfile.TemporaryFile(dir=Path(os.environ["OUTFILE"]).parent) as stderr:
        status = subprocess.run(["/bin/sh", "-c", command], stderr=stderr, check=False).returncode
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - TAIL))
        said = stderr.read()
    sys.stderr.buffer.write(said)
    sys.stderr.flush()
    lines = [text for text in said.split(b"\n") if text.strip()]
    return status, lines[-1] if lines else b""


def make(folder: Path) -> None:
    """Create a directory if it is missing; refuse one that other users can control."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{folder} is a symbolic link")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
        raise OSError(f"other users can write to {folder}")


def line(octets: bytes) -> bytes:
    """Replace octets that would end a header field."""
    return re.sub(rb"[\0-\x1f\x7f]", b"?", octets)


def keep(directory: Path, reason: bytes) -> str:
    """Store the message durably in a Maildir, and return its name."""
    for folder in (directory, *(directory / name for name in ("tmp", "new", "cur"))):
        make(folder)
    known = os.environb
    recipients = (known.get(b"RECIPIENTS") or known[b"RECIPIENT"]).splitlines()
    name = f"{time.time_ns()}.{os.getpid()}.{socket.gethostname()}".replace("/", "_")
    temporary = directory / "tmp" / name
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            file.write(b"X-Envelope-From: %b\n" % line(known[b"SENDER"]))
            file.writelines(b"X-Envelope-To: %b\n" % line(recipient) for recipient in recipients)
            file.write(b"X-Quarantine-Reason: %b\n" % line(reason))
            file.write(Path(os.environ["EMAIL"]).read_bytes())
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            temporary.unlink()
            raise
    temporary.rename(directory / "new" / name)
    # The new name is durable only after fsync(2) of the directory.
    descriptor = os.open(directory / "new", os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return name


def main(arguments: list[str]) -> int:
    """Run the other filter, and return the exit status."""
    rejecting = arguments[:1] == ["--reject"]
    if rejecting:
        arguments = arguments[1:]
    if len(arguments) < 2:
        print("quarantine.py: give a directory and the command of a filter", file=sys.stderr)
        return FAIL
    directory, *command = arguments
    # A single argument is a command line, several arguments are its words.
    status, last = run(command[0] if len(command) == 1 else shlex.join(command))
    if status != REJECT or not re.match(rb"5\d\d ", last):
        if status not in (PASS, REJECT):
            words = last.decode("utf-8", "backslashreplace") or "not a word"
            failed = f"quarantine.py: the filter failed with status {status}: {words}"
            print(failed, file=sys.stderr)
            return FAIL
        return status
    try:
        name = keep(Path(directory).resolve(), last)
    except OSError as error:
        print(f"quarantine.py: the message cannot be kept: {error}", file=sys.stderr)
        return FAIL
    if not rejecting:
        print(f"250 2.7.1 Quarantined as {name}", file=sys.stderr)
    return REJECT


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except Exception:
        # Python's own status after a traceback is 1, which would reject the message.
        traceback.print_exc()
        STATUS = FAIL
    sys.exit(STATUS)
