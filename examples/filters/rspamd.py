#!/usr/bin/python3 -IS
"""Send each message to rspamd, and apply rspamd's action.

Needs:  Python 3, and a running rspamd with a `normal` worker (Debian: rspamd).
Use:    --strict -c /usr/local/bin/rspamd.py
        or with another address: --strict -c {/usr/local/bin/rspamd.py 127.0.0.1:11333}
        or on a Unix-domain socket: --strict -c {/usr/local/bin/rspamd.py /run/rspamd/mail.sock}
Down:   if rspamd sends no response or an invalid response, the filter fails (451). The sender tries
        again later. rspamd refuses messages above its max_message (50 MB). Set Postfix's
        message_size_limit to a lower value, or run size-limit.sh before this filter in a chain.

rspamd's action        effect on the message
no action, greylist    it passes. The greylist module requests a delay with `soft reject`.
add header             it passes with `X-Spam: Yes`
rewrite subject        it passes with the subject that rspamd returned
soft reject            the sender gets 451 and rspamd's text
reject, quarantine     the sender gets 554 and rspamd's text. quarantine.py can store the message.
discard                the sender gets 250 and assumes that the message was delivered
any other              the filter fails (451)

If the message passes, the filter also adds and removes the header fields that rspamd requests (in
its milter_headers module), and adds rspamd's DKIM signatures. A filter cannot change the envelope,
so a response with change_from, add_rcpt or del_rcpt is a failure.
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

# Timeout of rspamd's response, in seconds. It is shorter than the proxy's -t, so that the log
# contains the cause.
TIMEOUT = 25
# Maximum size of a response, in octets. Responses of rspamd have a few thousand.
LARGEST = 1_000_000
# Maximum number of recipients in the request, and of octets in each value. rspamd refuses a request
# header above 80 KB.
MOST = 200
LONGEST = 300
# Maximum length of rspamd's text in a reply. A reply line is limited to 512 octets (RFC 5321,
# 4.5.3.1.5).
WORDS = 400
# Number of characters in each encoded word of a subject. In UTF-8 and base64, they fit into the 75
# characters of RFC 2047, 2.
CHUNK = 10
PASS, REJECT, FAIL = 0, 1, 2

REJECTIONS = {
    "reject": ("554 5.7.1", "The message looks like spam"),
    "quarantine": ("554 5.7.1", "The message looks like spam"),
    "soft reject": ("451 4.7.1", "Try again later"),
    "discard": ("250 2.7.1", "Discarded"),
}
# Replacements of the control characters that header fields must not contain.
HARMLESS = dict.fromkeys({*range(0x20), 0x7F} - {*b"\t\n"}, "?")
PASSING = ("no action", "greylist", "add header", "rewrite subject")


class UnclearError(Exception):
    """The response is invalid."""


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection on a Unix-domain socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host and a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(where: str, message: bytes) -> dict[str, Any]:
    """Send the message to rspamd, and return the response."""
    connection = (
        UnixConnection(where) if where.startswith("/") else http.client.HTTPConnection(where)
    )
    connection.putrequest("POST", "/checkv2", skip_accept_encoding=True)
    connection.putheader("Content-Length", str(len(message)))
    for name, value in envelope():
        if value:
            # A control character could end the field. rspamd decodes the octets above 127.
            connection.putheader(name, re.sub(rb"[\0-\x1f\x7f]", b"?", value[:LONGEST]))
    connection.endheaders(message)
    answer = connection.getresponse()
    body = answer.read(LARGEST + 1)
    if answer.status != 200:
        raise OSError(f"HTTP status {answer.status}")
    if len(body) > LARGEST:
        raise OSError(f"the response has more than {LARGEST} octets")
    try:
        found = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise UnclearError(f"not JSON: {error!s:.200}") from None
    if not isinstance(found, dict):
        raise UnclearError("the response is not an object")
    return found


def envelope() -> Iterator[tuple[str, bytes]]:
    """Yield the envelope's values in octets, with rspamd's names."""
    known = os.environb
    yield "From", known[b"SENDER"]
    # Use all recipients if the proxy passes them, or else the first recipient.
    for recipient in (known.get(b"RECIPIENTS") or known[b"RECIPIENT"]).split(b"\n")[:MOST]:
        yield "Rcpt", recipient
    yield "IP", known[b"REMOTEIP"]
    yield "Helo", known[b"HELO"]
    yield "Hostname", known.get(b"CLIENT_NAME", b"")
    yield "Queue-Id", known.get(b"QUEUE_ID", b"")


def changed(message: bytes, answer: dict[str, Any]) -> bytes:
    """Return the message with the changes that rspamd requests."""
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
    """Remove all fields `name` (0), or some, counted from the first or from the last field."""
    start = re.compile(re.escape(name.encode()) + rb"[ \t]*:", re.IGNORECASE)
    found = [at for at, text in enumerate(fields) if start.match(text)]
    gone = {found[at - 1 if at > 0 else at] for at in positions if at and abs(at) <= len(found)}
    if 0 in positions:
        gone.update(found)
    return [text for at, text in enumerate(fields) if at not in gone]


def many(given: Any) -> list[Any]:
    """Return the non-empty values of a list.

    rspamd sends a single value without a list, and an empty Lua table as [], even inside a list.
    """
    values = given if isinstance(given, list) else [given]
    return [value for value in values if value not in (None, [], {})]


def table(given: Any) -> dict[str, list[Any]]:
    """Merge an object or a list of objects into one object, with a list of values for each name."""
    found: dict[str, list[Any]] = {}
    for value in many(given):
        if not isinstance(value, dict):
            raise UnclearError(f"not an object: {value!r:.100}")
        for name, values in value.items():
            found.setdefault(name, []).extend(many(values))
    return found


def texts(given: Any) -> list[str]:
    """Return the texts of a text, a number, an object with a text, or a list of these."""
    values: list[Any] = []
    for value in many(given):
        values += many(value["value"]) if isinstance(value, dict) and "value" in value else [value]
    for value in values:
        if not isinstance(value, str | int | float):
            raise UnclearError(f"not a text: {value!r:.100}")
    return [str(value) for value in values]


def position(given: Any) -> int:
    """Return a position. Lua writes 1 as 1.0 after a division, and as "1" after a match."""
    if isinstance(given, str) and re.fullmatch(r"-?[0-9]{1,9}", given):
        return int(given)
    if isinstance(given, int | float) and not isinstance(given, bool) and given % 1 == 0:
        return int(given)
    raise UnclearError(f"not a position of a header field: {given!r:.100}")


def field(addition: tuple[str, str]) -> bytes:
    """Return a field in octets, without characters that would end it."""
    name, value = addition
    if not re.fullmatch(r"[!-9;-~]+", name):
        raise UnclearError(f"{name!r:.100} cannot be the name of a header field")
    lines = (" ".join(line.split()) for line in value.splitlines())
    folded = "\n\t".join(line for line in lines if line)
    return f"{name}: {folded}".translate(HARMLESS).encode(errors="replace")


def encoded(subject: str) -> str:
    """Return an ASCII subject unchanged, and any other subject in encoded words."""
    subject = " ".join(re.sub(r"[\0-\x20\x7f]", " ", subject).split())
    if subject.isascii():
        return subject
    chunks = [subject[at : at + CHUNK] for at in range(0, len(subject), CHUNK)]
    words = [base64.b64encode(chunk.encode(errors="replace")).decode() for chunk in chunks]
    return "\n".join(f"=?utf-8?b?{word}?=" for word in words)


def reply(answer: dict[str, Any], code: str, otherwise: str) -> None:
    """Print rspamd's text, or else `otherwise`, as one reply line of printable ASCII."""
    given = " ".join(texts(table(answer.get("messages")).get("smtp_message")))
    words = re.sub(r"[^ -~]", "?", " ".join(given.split()))[:WORDS]
    print(code, words or otherwise, file=sys.stderr)


def obey(answer: dict[str, Any], message: bytes) -> int:
    """Apply rspamd's action, and return the exit status."""
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
            raise UnclearError(f"a filter cannot apply {change}")
    new = changed(message, answer)
    if new != message:
        Path(os.environ["OUTFILE"]).write_bytes(new)
    return PASS


def too_late(*_: object) -> NoReturn:
    """Raise an error, even if rspamd is still sending octets."""
    raise TimeoutError(f"no complete response within {TIMEOUT} s")


def main(arguments: list[str]) -> int:
    """Run the filter, and return the exit status."""
    message = Path(os.environ["EMAIL"]).read_bytes()
    where = arguments[0] if arguments else "127.0.0.1:11333"
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(TIMEOUT)
    try:
        answer = ask(where, message)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"rspamd.py: no response from rspamd at {where}: {error!r}", file=sys.stderr)
        return FAIL
    return obey(answer, message)


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except UnclearError as unclear:
        print(f"rspamd.py: invalid response: {unclear}", file=sys.stderr)
        STATUS = FAIL
    except Exception as failure:
        # After a traceback, Python exits with status 1, which would reject the message.
        traceback.print_exc()
        print(f"rspamd.py: {type(failure).__name__}: {failure!s:.200}", file=sys.stderr)
        STATUS = FAIL
    sys.exit(STATUS)
