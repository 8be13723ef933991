#!/usr/bin/python3 -IS
"""Run several filters in sequence, each on the output of the previous filter.

Needs:  Python 3, and the filters.
Use:    --strict -c {/usr/local/bin/chain.py '/usr/local/bin/size-limit.sh 25000000'
            /usr/local/bin/clamav.sh /usr/local/bin/spamassassin.sh}
        Each word is the command of a filter, in quotes if it has arguments.
Down:   if a filter fails, the chain stops and fails (451). The sender tries again later. Status 1
        with a last line that does not begin with a code is a failure as well.

The first rejection ends the chain, and its last line is the reply. The chain's line for the log has
the name and the run time of the filter: "chain.py: clamav.sh failed with status 2 after 0.01 s:
...". After the proxy's timeout, the last line names the slow filter: "chain.py: spamassassin.sh,
after 0.03 s".

The chain uses only the files EMAIL and OUTFILE, so that no file is left if the proxy kills it. The
filters use the two files alternately as EMAIL.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

PASS, REJECT, FAIL = 0, 1, 2
# The maximum number of octets from the end of standard error.
TAIL = 4096
CODE = re.compile(rb"[245][0-9][0-9] ")


def say(*words: str) -> None:
    """Write a line to standard error."""
    print("chain.py:", *words, file=sys.stderr, flush=True)


def run(command: str, email: Path, outfile: Path) -> tuple[int, bytes]:
    """Run one filter, and return its status and the end of its standard error."""
    environment = {**os.environ, "EMAIL": str(email), "OUTFILE": str(outfile)}
    with tempfile.TemporaryFile(dir=outfile.parent) as stderr:
        status = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, stderr=stderr, check=False
        ).returncode
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - TAIL))
        return status, stderr.read().strip()


def empty(path: Path) -> None:
    """Create or empty the OUTFILE of the next filter."""
    if path.exists():
        path.chmod(0o600)  # EMAIL may be read-only
    path.write_bytes(b"")


def normalize(path: Path) -> None:
    """Convert line ends to LF, as in EMAIL, because a filter may write CRLF."""
    text = path.read_bytes()
    if b"\r\n" in text:
        path.write_bytes(text.replace(b"\r\n", b"\n"))


def link(command: str, email: Path, outfile: Path, begun: float) -> int:
    """Run one filter and log it, and return the status for the chain."""
    name = Path(shlex.split(command)[0]).name
    say(f"{name}, after {time.monotonic() - begun:.2f} s")
    started = time.monotonic()
    status, said = run(command, email, outfile)
    last = said.rpartition(b"\n")[2]
    seconds = f"after {time.monotonic() - started:.2f} s"
    if status == PASS:
        say(f"{name} passed {seconds}")
    elif status == REJECT and CODE.match(last):
        say(f"{name} rejected {seconds}")
        # The last line is the reply to the client.
        sys.stderr.buffer.write(last + b"\n")
        sys.stderr.flush()
    else:
        without = " and no code" if status == REJECT else ""
        words = last.decode("utf-8", "backslashreplace")
        say(f"{name} failed with status {status}{without} {seconds}: {words or 'not a word'}")
        return FAIL
    return status


def main(commands: list[str]) -> int:
    """Run the chain, and return the exit status."""
    if not commands:
        say("give the commands of filters")
        return FAIL
    original, final = Path(os.environ["EMAIL"]), Path(os.environ["OUTFILE"])
    email, outfile = original, final
    rewritten = False
    begun = time.monotonic()
    for command in commands:
        empty(outfile)
        status = link(command, email, outfile, begun)
        if status != PASS:
            return status
        if outfile.exists() and outfile.stat().st_size:
            normalize(outfile)
            email, outfile = outfile, email
            rewritten = True
    if rewritten and email == original:
        shutil.copyfile(original, final)
    return PASS


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except Exception:
        # Python's own status after a traceback is 1, which would reject the message.
        traceback.print_exc()
        STATUS = FAIL
    sys.exit(STATUS)
