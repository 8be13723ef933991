"""The filters for the scenarios, which behave correctly or incorrectly.

Rule: a kind of filter has a shell script and one permitted outcome of the message. All kinds share
one command (`COMMAND`), which reads the kind from the sender's address, `KIND.TOKEN@…`. A single
listening server can therefore run all filters. Every filter first copies EMAIL to
`$LEDGER/TOKEN.PID`, which proves that it has read the message, and then waits at the FIFO
`$LEDGER/TOKEN.gate` if it exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: The possible outcomes of a message.
ORIGINAL = "original"  # the original is delivered
REPLACE = "replace"  # the contents of OUTFILE are delivered instead
REFUSE = "refuse"  # nothing is delivered, and the client gets 4yz or 5yz
DISCARD = "discard"  # nothing is delivered, and the client gets 2yz
FAIL = "fail"  # the filter has failed: REFUSE with -r, otherwise ORIGINAL


@dataclass(frozen=True)
class Filter:
    """One kind of filter.

    fate: the outcome of the message.
    text: its shell script.
    late: True if the filter exceeds the proxy's time limit.
    outlives: True if the filter leaves a process that the proxy cannot find.
    """

    fate: str
    text: str
    late: bool = False
    outlives: bool = False


_WRITE = "printf 'Subject: replaced\\n\\n.dot\\nlast\\n'"
REPLACEMENT = b"Subject: replaced\r\n\r\n..dot\r\nlast\r\n"
_LONG_LINE = "0123456789" * 8
LONG_REPLACEMENT = (_LONG_LINE.encode() + b"\r\n") * 12_000

KINDS = {
    # Filters that accept the message.
    "accepts": Filter(ORIGINAL, "exit 0"),
    "talks": Filter(ORIGINAL, "echo 'looks fine'; echo '550 but passes' >&2"),
    "writes-over-email": Filter(ORIGINAL, 'echo other > "$EMAIL"'),
    "adds-to-email": Filter(ORIGINAL, 'echo more >> "$EMAIL"'),
    "removes-email": Filter(ORIGINAL, 'rm "$EMAIL"'),
    "moves-email": Filter(ORIGINAL, 'echo x > "$LEDGER/$token.x"; mv "$LEDGER/$token.x" "$EMAIL"'),
    "removes-outfile": Filter(ORIGINAL, 'rm "$OUTFILE"'),
    "removes-both": Filter(ORIGINAL, 'rm "$OUTFILE" "$EMAIL"'),
    "empties-outfile": Filter(ORIGINAL, 'echo x > "$OUTFILE"; : > "$OUTFILE"'),
    "talks-long": Filter(ORIGINAL, "head -c 2000000 /dev/zero >&2"),
    "closes-its-end": Filter(ORIGINAL, "exec 2>&-; sleep 0.02"),
    "leaves-a-child": Filter(ORIGINAL, "sleep 0.2 & exit 0", outlives=True),
    "leaves-a-daemon": Filter(ORIGINAL, "setsid sleep 0.2 & exit 0", outlives=True),
    # Filters that replace the message.
    "replaces": Filter(REPLACE, f'{_WRITE} > "$OUTFILE"'),
    "replaces-by-name": Filter(
        REPLACE, f'{_WRITE} > "$LEDGER/$token.x"; mv "$LEDGER/$token.x" "$OUTFILE"'
    ),
    "replaces-with-crlf": Filter(
        REPLACE, "printf 'Subject: replaced\\r\\n\\r\\n.dot\\r\\nlast\\r\\n' > \"$OUTFILE\""
    ),
    "replaces-without-end": Filter(
        REPLACE, "printf 'Subject: replaced\\n\\n.dot\\nlast' > \"$OUTFILE\""
    ),
    "replaces-in-pieces": Filter(
        REPLACE,
        "printf 'Subject: replaced\\n' > \"$OUTFILE\"; sleep 0.02;"
        " printf '\\n.dot\\nlast\\n' >> \"$OUTFILE\"",
    ),
    "replaces-and-removes": Filter(REPLACE, f'{_WRITE} > "$OUTFILE"; rm "$EMAIL"'),
    "replaces-long": Filter(REPLACE, f'yes {_LONG_LINE} | head -n 12000 > "$OUTFILE"'),
    # Filters that reject the message.
    "refuses": Filter(REFUSE, "echo '550 5.7.1 spam' >&2; exit 1"),
    "refuses-in-words": Filter(REFUSE, "echo no >&2; exit 1"),
    "refuses-mutely": Filter(REFUSE, "exit 1"),
    "refuses-in-8-bit": Filter(REFUSE, "printf '550 \\377\\001\\r\\n' >&2; exit 1"),
    "refuses-for-now": Filter(REFUSE, "echo '451 later' >&2; exit 1"),
    "refuses-at-length": Filter(REFUSE, "head -c 300000 /dev/zero | tr '\\0' x >&2; exit 1"),
    "refuses-what-it-replaced": Filter(REFUSE, f'{_WRITE} > "$OUTFILE"; exit 1'),
    "refuses-with-a-child": Filter(REFUSE, "sleep 0.2 & exit 1", outlives=True),
    "discards": Filter(DISCARD, "echo '250 2.0.0 thank you' >&2; exit 1"),
    # Filters that fail.
    "fails": Filter(FAIL, "exit 2"),
    "fails-as-not-found": Filter(FAIL, "/nonexistent/filter"),
    "fails-as-not-executable": Filter(FAIL, "exit 126"),
    "fails-with-255": Filter(FAIL, "exit 255"),
    "fails-after-replacing": Filter(FAIL, f'{_WRITE} > "$OUTFILE"; exit 75'),
    "fails-after-words": Filter(FAIL, "echo '550 not a verdict' >&2; exit 3"),
    "is-killed": Filter(FAIL, "kill -9 $$"),
    "is-terminated": Filter(FAIL, "kill -15 $$"),
    "crashes": Filter(FAIL, "kill -11 $$"),
    "kills-its-group": Filter(FAIL, "kill -9 0"),
    "links-outfile": Filter(FAIL, 'ln -sf /etc/passwd "$OUTFILE"'),
    "makes-outfile-a-fifo": Filter(FAIL, 'rm "$OUTFILE"; mkfifo "$OUTFILE"'),
    "makes-outfile-a-directory": Filter(FAIL, 'rm "$OUTFILE"; mkdir "$OUTFILE"'),
    "fills-a-directory": Filter(FAIL, 'rm "$OUTFILE"; mkdir -p "$OUTFILE/a/b"; : > "$OUTFILE/a/c"'),
    # Filters that exceed the time limit.
    "sleeps": Filter(FAIL, "exec sleep 60", late=True),
    "does-not-obey": Filter(FAIL, "trap '' 1 2 3 15; sleep 60; sleep 60", late=True),
    "stops-itself": Filter(FAIL, "kill -STOP $$", late=True),
    "talks-for-ever": Filter(FAIL, "yes >&2", late=True),
    "waits-for-children": Filter(FAIL, "sleep 60 & sleep 60 & wait", late=True),
}

COMMAND = '. "$LEDGER/../filters.sh"'

_SCRIPT = """
address=${SENDER%%@*}
kind=${address%%.*}
token=${address#*.}
cat "$EMAIL" > "$LEDGER/$token.$$"
if [ -p "$LEDGER/$token.gate" ]; then read -r _ < "$LEDGER/$token.gate"; fi
case $kind in
"""


def write_script(directory: Path) -> None:
    """Write the script that `COMMAND` reads. `$LEDGER` is a directory in `directory`."""
    cases = "".join(f"{name})\n{kind.text}\n;;\n" for name, kind in KINDS.items())
    (directory / "filters.sh").write_text(f"{_SCRIPT}{cases}*) exit 99;;\nesac\n")
