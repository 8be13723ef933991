#!/usr/bin/python3 -IS
"""Run several filters one after another, each on what the last one has written.

Needs:  Python 3, and the filters.
Use:    --strict -c {/usr/local/bin/chain.py '/usr/local/bin/size-limit.sh 25000000'
            /usr/local/bin/clamav.sh /usr/local/bin/spamassassin.sh}
        Each word is the command of a filter, in quotes if it has arguments.
Down:   a filter that has failed ends the chain, which then has failed: 451, the sender tries again
        later. So has one that ends with status 1 and a last line that does not begin with a code.

The first that rejects ends the chain, with its own words. What the chain says for the log names
the filter, and its time: "chain.py: clamav.sh failed with status 2 after 0.01 s: ...". At the
proxy's time limit its last line is "chain.py: spamassassin.sh, after 0.03 s": that one was slow.

No file but EMAIL and OUTFILE is used, so that nothing is left behind when the proxy kills the
chain: the filters have now the one, now the other as their EMAIL.
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
# How much of the end of standard error is looked at.
TAIL = 4096
CODE = re.compile(rb"[245][0-9][0-9] ")


def say(*words: str) -> None:
    """Write a line to standard error."""
    print("chain.py:", *words, file=sys.stderr, flush=True)


def run(command: str, email: Path, outfile: Path) -> tuple[int, bytes]:
    """Run one filter; return its status and the end of its standard error."""
    environment = {**os.environ, "EMAIL": str(email), "OUTFILE": str(outfile)}
    with tempfile.TemporaryFile(dir=outfile.parent) as stderr:
        status = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, stderr=stderr, check=False
        ).returncode
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - TAIL))
        return status, stderr.read().strip()


def empty(path: Path) -> None:
    """Make an empty file for a filter to write to."""
    if path.exists():
        path.chmod(0o600)  # EMAIL may be made for reading only
    path.write_bytes(b"")


def normalize(path: Path) -> None:
    """Make line ends LF, as they are in EMAIL; a filter may write CRLF."""
    text = path.read_bytes()
    if b"\r\n" in text:
        path.write_bytes(text.replace(b"\r\n", b"\n"))


def link(command: str, email: Path, outfile: Path, begun: float) -> int:
    """Run one filter, and say so; return what its status means for the chain."""
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
        # The last line is the reply.
        sys.stderr.buffer.write(last + b"\n")
        sys.stderr.flush()
    else:
        without = " and no code" if status == REJECT else ""
        words = last.decode("utf-8", "backslashreplace")
        say(f"{name} failed with status {status}{without} {seconds}: {words or 'not a word'}")
        return FAIL
    return status


def main(commands: list[str]) -> int:
    """Return the exit status."""
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
