#!/usr/bin/python3 -IS
"""Ask rspamd about each message, and do what it says.

Needs:  a running rspamd with a `normal` worker (Debian: rspamd), and Python 3.
Use:    --strict -c /usr/local/bin/rspamd.py
        or with rspamd elsewhere: --strict -c {/usr/local/bin/rspamd.py 127.0.0.1:11333}
        or on a unix-domain socket: --strict -c {/usr/local/bin/rspamd.py /run/rspamd/mail.sock}
Down:   no answer, or one that is not understood, is a failure: 451, the sender tries again later.

rspamd's action        what happens
no action, greylist    the message passes; the greylist module says `soft reject` when it is time
add header             it passes with `X-Spam: Yes`
rewrite subject        it passes with the subject that rspamd gives
soft reject            451, with rspamd's words
reject                 554, with rspamd's words
discard                250: the sender believes that it is delivered

Header fields that rspamd adds or removes (its milter_headers module), and its DKIM signature, are
added and removed whatever the action is.
"""

from __future__ import annotations

import email.header
import http.client
import json
import os
import re
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Seconds for rspamd's answer; less than the proxy's -t, so that the log can say what was slow.
PATIENCE = 25
PASS, REJECT, FAIL = 0, 1, 2


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a unix-domain socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host and a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(where: str, message: bytes) -> dict[str, Any]:
    """Return rspamd's answer as a dict."""
    connection = (
        UnixConnection(where)
        if where.startswith("/")
        else http.client.HTTPConnection(where, timeout=PATIENCE)
    )
    connection.putrequest("POST", "/checkv2", skip_accept_encoding=True)
    connection.putheader("Content-Length", str(len(message)))
    for name, value in envelope():
        if value:
            connection.putheader(name, value)
    connection.endheaders(message)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise OSError(f"rspamd says {answer.status} {answer.reason}")
    found: dict[str, Any] = json.loads(body)
    return found


def envelope() -> Iterator[tuple[str, bytes]]:
    """Yield rspamd's names for what is known, with values in octets."""
    known = os.environb
    yield "From", known[b"SENDER"]
    # All recipients where the proxy tells them, else the first.
    for recipient in (known.get(b"RECIPIENTS") or known[b"RECIPIENT"]).splitlines():
        yield "Rcpt", recipient
    yield "IP", known[b"REMOTEIP"]
    yield "Helo", known[b"HELO"]
    yield "Hostname", known.get(b"CLIENT_NAME", b"")
    yield "Queue-Id", known.get(b"QUEUE_ID", b"")


def changed(message: bytes, answer: dict[str, Any]) -> bytes:
    """Return the message as rspamd wants it."""
    head, gap, body = message.partition(b"\n\n")
    fields = re.split(rb"\n(?![ \t])", head) if head else []
    wanted = answer.get("milter", {})
    for name, which in wanted.get("remove_headers", {}).items():
        fields = without(fields, name, which)
    added = list(additions(wanted.get("add_headers", {})))
    if answer["action"] == "add header":
        added.append(("X-Spam", "Yes"))
    if answer["action"] == "rewrite subject" and "subject" in answer:
        fields = without(fields, "Subject", 0)
        subject = answer["subject"]
        charset = "us-ascii" if subject.isascii() else "utf-8"
        added.append(("Subject", email.header.Header(subject, charset).encode()))
    if "dkim-signature" in answer:
        added.append(("DKIM-Signature", answer["dkim-signature"]))
    return b"\n".join([*map(field, added), *fields]) + (gap or b"\n\n") + body


def without(fields: list[bytes], name: str, which: int) -> list[bytes]:
    """Leave out the fields of that name: all (0), or one, counted from the first or the last."""
    start = name.lower().encode() + b":"
    found = [at for at, text in enumerate(fields) if text.lower().startswith(start)]
    if which:
        found = found[which - 1 : which] if which > 0 else found[which:][:1]
    return [text for at, text in enumerate(fields) if at not in found]


def additions(headers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and value of each field; rspamd gives a text, a dict, or a list of them."""
    for name, given in headers.items():
        for value in given if isinstance(given, list) else [given]:
            yield name, value["value"] if isinstance(value, dict) else value


def field(addition: tuple[str, str]) -> bytes:
    """Return a field in octets; a line break in its value does not end it."""
    name, value = addition
    folded = re.sub(r"[\r\n]+[ \t]*", "\n\t", value.strip())
    return f"{name}: {folded}".encode()


def reply(code: str, answer: dict[str, Any], otherwise: str) -> None:
    """Say what the sender is told: rspamd's words, in one line."""
    words = answer.get("messages", {}).get("smtp_message") or otherwise
    print(code, " ".join(words.split()), file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    message = Path(os.environ["EMAIL"]).read_bytes()
    where = arguments[0] if arguments else "127.0.0.1:11333"
    try:
        answer = ask(where, message)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"rspamd.py: rspamd at {where} does not answer: {error!r}", file=sys.stderr)
        return FAIL
    action = answer["action"]
    if action == "reject":
        reply("554 5.7.1", answer, "The message looks like spam")
        return REJECT
    if action == "soft reject":
        reply("451 4.7.1", answer, "Try again later")
        return REJECT
    if action == "discard":
        reply("250 2.7.1", answer, "Discarded")
        return REJECT
    if action not in ("no action", "greylist", "add header", "rewrite subject"):
        print(f"rspamd's action {action!r} is not known here", file=sys.stderr)
        return FAIL
    new = changed(message, answer)
    if new != message:
        Path(os.environ["OUTFILE"]).write_bytes(new)
    return PASS


if __name__ == "__main__":
    try:
        STATUS = main(sys.argv[1:])
    except Exception:
        # Python's own status after a traceback is 1, which would reject the message.
        traceback.print_exc()
        STATUS = FAIL
    sys.exit(STATUS)
