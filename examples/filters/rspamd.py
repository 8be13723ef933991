#!/usr/bin/python3 -IS
"""Ask rspamd about each message, and do what it says.

Needs:  a running rspamd with a `normal` worker (Debian: rspamd), and Python 3.
Use:    --strict -c /usr/local/bin/rspamd.py
        or with rspamd elsewhere: --strict -c {/usr/local/bin/rspamd.py 127.0.0.1:11333}
        or on a unix-domain socket: --strict -c {/usr/local/bin/rspamd.py /run/rspamd/mail.sock}
Down:   no answer, or one that is not understood, is a failure: 451, the sender tries again later.
        rspamd refuses messages above its max_message (50 MB): keep Postfix's message_size_limit
        below, or put size-limit.sh before this in a chain.

rspamd's action        what happens
no action, greylist    the message passes; the greylist module says `soft reject` when it is time
add header             it passes with `X-Spam: Yes`
rewrite subject        it passes with the subject that rspamd gives
soft reject            451, with rspamd's words
reject, quarantine     554, with rspamd's words; quarantine.py keeps such a message
discard                250: the sender believes that it is delivered
any other              a failure: 451

Header fields that rspamd adds or removes (its milter_headers module), and its DKIM signatures, are
added and removed whatever the action is. A filter cannot change the envelope: an answer with
change_from, add_rcpt or del_rcpt is a failure.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

# Seconds for rspamd's answer; less than the proxy's -t, so that the log can say what was slow.
TIMEOUT = 25
# Octets of the largest answer that is read. Answers of rspamd have a few thousand.
LARGEST = 1_000_000
# Recipients that rspamd gets, and octets of each value: it refuses a request header above 80 KB.
MOST = 200
LONGEST = 300
# Characters of rspamd's words in a reply, whose line may have 512 octets (RFC 5321, 4.5.3.1.5).
WORDS = 400
# Characters in each encoded word of a subject: in UTF-8 and base64 they fit into 75 (RFC 2047, 2).
CHUNK = 10
PASS, REJECT, FAIL = 0, 1, 2

REJECTIONS = {
    "reject": ("554 5.7.1", "The message looks like spam"),
    "quarantine": ("554 5.7.1", "The message looks like spam"),
    "soft reject": ("451 4.7.1", "Try again later"),
    "discard": ("250 2.7.1", "Discarded"),
}
# Control characters that header fields must not have.
HARMLESS = dict.fromkeys({*range(0x20), 0x7F} - {*b"\t\n"}, "?")
PASSING = ("no action", "greylist", "add header", "rewrite subject")


class UnclearError(Exception):
    """An answer that this filter does not understand."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a unix-domain socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host and a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(where: str, message: bytes) -> dict[str, Any]:
    """Return rspamd's answer as a dict."""
    connection = (
        UnixConnection(where) if where.startswith("/") else http.client.HTTPConnection(where)
    )
    connection.putrequest("POST", "/checkv2", skip_accept_encoding=True)
    connection.putheader("Content-Length", str(len(message)))
    for name, value in envelope():
        if value:
            # A control character would end the field. The octets above 127 are rspamd's to judge.
            connection.putheader(name, re.sub(rb"[\0-\x1f\x7f]", b"?", value[:LONGEST]))
    connection.endheaders(message)
    answer = connection.getresponse()
    body = answer.read(LARGEST + 1)
    if answer.status != 200:
        raise OSError(f"HTTP status {answer.status}")
    if len(body) > LARGEST:
        raise OSError(f"the answer has more than {LARGEST} octets")
    try:
        found = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise UnclearError(f"no JSON: {error!s:.200}") from None
    if not isinstance(found, dict):
        raise UnclearError("the answer is no object")
    return found


def envelope() -> Iterator[tuple[str, bytes]]:
    """Yield rspamd's names for what is known, with values in octets."""
    known = os.environb
    yield "From", known[b"SENDER"]
    # All recipients where the proxy tells them, else the first.
    for recipient in (known.get(b"RECIPIENTS") or known[b"RECIPIENT"]).split(b"\n")[:MOST]:
        yield "Rcpt", recipient
    yield "IP", known[b"REMOTEIP"]
    yield "Helo", known[b"HELO"]
    yield "Hostname", known.get(b"CLIENT_NAME", b"")
    yield "Queue-Id", known.get(b"QUEUE_ID", b"")


def changed(message: bytes, answer: dict[str, Any]) -> bytes:
    """Return the message as rspamd wants it."""
    head, rest = split(message)
    fields = re.split(rb"\n(?![ \t])", head) if head else []
    milter = table(answer.get("milter"))
    for name, positions in table(milter.get("remove_headers")).items():
        fields = without(fields, name, [position(given) for given in positions])
    added = [
        (name, text)
        for name, given in table(milter.get("add_headers")).items()
        for text in texts(given)
    ]
    if answer["action"] == "add header":
        fields = without(fields, "X-Spam", [0])
        added.append(("X-Spam", "Yes"))
    if answer["action"] == "rewrite subject":
        subjects = texts(answer.get("subject"))
        if not subjects:
            raise UnclearError("rewrite subject without a subject")
        fields = without(fields, "Subject", [0])
        added.append(("Subject", encoded(subjects[0])))
    added += [("DKIM-Signature", text) for text in texts(answer.get("dkim-signature"))]
    return b"".join(part + b"\n" for part in [*map(field, added), *fields]) + rest


def split(message: bytes) -> tuple[bytes, bytes]:
    """Return the header without its last line end, and the rest from the empty line on."""
    if message.startswith(b"\n"):
        return b"", message
    head, gap, body = message.partition(b"\n\n")
    return (head, b"\n" + body) if gap else (message.removesuffix(b"\n"), b"")


def without(fields: list[bytes], name: str, positions: list[int]) -> list[bytes]:
    """Leave out fields of that name: all (0), or some, counted from the first or from the last."""
    start = re.compile(re.escape(name.encode()) + rb"[ \t]*:", re.IGNORECASE)
    found = [at for at, text in enumerate(fields) if start.match(text)]
    gone = {found[at - 1 if at > 0 else at] for at in positions if at and abs(at) <= len(found)}
    if 0 in positions:
        gone.update(found)
    return [text for at, text in enumerate(fields) if at not in gone]


def many(given: Any) -> list[Any]:
    """Return a list of values without the empty ones.

    rspamd writes one value without a list, and an empty Lua table as [], even inside a list.
    """
    values = given if isinstance(given, list) else [given]
    return [value for value in values if value not in (None, [], {})]


def table(given: Any) -> dict[str, list[Any]]:
    """Return an object, or the objects of a list as one, with a list of values for each name."""
    found: dict[str, list[Any]] = {}
    for value in many(given):
        if not isinstance(value, dict):
            raise UnclearError(f"no object: {value!r:.100}")
        for name, values in value.items():
            found.setdefault(name, []).extend(many(values))
    return found


def texts(given: Any) -> list[str]:
    """Return texts; rspamd gives a text, a number, an object with the text, or a list of them."""
    values: list[Any] = []
    for value in many(given):
        values += many(value["value"]) if isinstance(value, dict) and "value" in value else [value]
    for value in values:
        if not isinstance(value, str | int | float):
            raise UnclearError(f"no text: {value!r:.100}")
    return [str(value) for value in values]


def position(given: Any) -> int:
    """Return a position; Lua writes 1 as 1.0 after a division, and as "1" after a match."""
    if isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,9}", given):
        return int(given)
    if isinstance(given, int | float) and not isinstance(given, bool) and given % 1 == 0:
        return int(given)
    raise UnclearError(f"no position of a header field: {given!r:.100}")


def field(addition: tuple[str, str]) -> bytes:
    """Return a field in octets; no character in its value ends it."""
    name, value = addition
    if not re.fullmatch(r"[!-9;-~]+", name):
        raise UnclearError(f"{name!r:.100} cannot be the name of a header field")
    lines = (" ".join(line.split()) for line in value.splitlines())
    folded = "\n\t".join(line for line in lines if line)
    return f"{name}: {folded}".translate(HARMLESS).encode(errors="replace")


def encoded(subject: str) -> str:
    """Return a subject in ASCII, as rspamd gives it, or in encoded words."""
    subject = " ".join(re.sub(r"[\0-\x20\x7f]", " ", subject).split())
    if subject.isascii():
        return subject
    chunks = [subject[at : at + CHUNK] for at in range(0, len(subject), CHUNK)]
    words = [base64.b64encode(chunk.encode(errors="replace")).decode() for chunk in chunks]
    return "\n".join(f"=?utf-8?b?{word}?=" for word in words)


def reply(answer: dict[str, Any], code: str, otherwise: str) -> None:
    """Print the reply to the sender: the text of rspamd, in one line of printable ASCII."""
    given = " ".join(texts(table(answer.get("messages")).get("smtp_message")))
    words = re.sub(r"[^ -~]", "?", " ".join(given.split()))[:WORDS]
    print(code, words or otherwise, file=sys.stderr)


def obey(answer: dict[str, Any], message: bytes) -> int:
    """Do what rspamd says; return the exit status."""
    action = answer.get("action")
    if not isinstance(action, str):
        raise UnclearError(f"no action: {action!r:.100}")
    if action in REJECTIONS:
        reply(answer, *REJECTIONS[action])
        return REJECT
    if action not in PASSING:
        raise UnclearError(f"the action {action!r:.100} is unknown")
    milter = table(answer.get("milter"))
    for change in ("change_from", "add_rcpt", "del_rcpt"):
        if milter.get(change):
            raise UnclearError(f"a filter cannot do {change}")
    new = changed(message, answer)
    if new != message:
        Path(os.environ["OUTFILE"]).write_bytes(new)
    return PASS


def too_late(*_: object) -> NoReturn:
    """End the filter, however many octets rspamd has sent."""
    raise TimeoutError(f"no complete answer within {TIMEOUT} s")


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    message = Path(os.environ["EMAIL"]).read_bytes()
    where = arguments[0] if arguments else "127.0.0.1:11333"
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(TIMEOUT)
    try:
        answer = ask(where, message)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"rspamd.py: rspamd at {where} does not answer: {error!r}", file=sys.stderr)
        return FAIL
    return obey(answer, message)


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except UnclearError as unclear:
        print(f"rspamd.py: the answer is not understood: {unclear}", file=sys.stderr)
        STATUS = FAIL
    except Exception as failure:
        # Python's own status after a traceback is 1, which would reject the message.
        traceback.print_exc()
        print(f"rspamd.py: {type(failure).__name__}: {failure!s:.200}", file=sys.stderr)
        STATUS = FAIL
    sys.exit(STATUS)
