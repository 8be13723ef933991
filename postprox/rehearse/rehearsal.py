"""Sends one message through the client, the proxy, the filter and the upstream server.

Rule: all processes and threads that this module starts have ended before its functions return or
raise an exception.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import outcome
from .client import Client, Envelope, NoAnswerError
from .dialogue import Dialogue, Event
from .errors import CannotRunError
from .filterrun import Records, observed
from .mail import Mail
from .proxy import Proxy
from .upstream import Upstream

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .filterrun import FilterRun
    from .options import Settings

#: The maximum number of lines between the first and the last difference. Comparing more lines could
#: take minutes.
_COMPARED = 4000
#: The number of context lines around a difference.
_CONTEXT = 2
_HUNK = re.compile(r"@@ -(\d+)(.*) \+(\d+)(.*) @@")


@dataclass(frozen=True)
class Rehearsal:
    """The observations made for one message."""

    mail: Mail
    envelope: Envelope
    events: list[Event]
    #: The final reply, with CRLF.
    reply: bytes
    #: The filter run, or None if the filter was not run.
    run: FilterRun | None
    outcome: outcome.Outcome
    #: The message accepted by the upstream server, or None.
    received: bytes | None
    #: The time until the reply to the message, in seconds.
    waited: float
    #: The proxy's exit status.
    proxy_status: int | None

    @property
    def seconds(self) -> float | None:
        """The duration of the filter run in seconds, or None if the filter was not run."""
        if self.run is None:
            return self.waited if self.outcome.timed_out else None
        return self.waited if self.run.seconds is None else self.run.seconds


def rehearse(
    mail: Mail, settings: Settings, directory: Path, waiting: AbstractContextManager[None]
) -> Rehearsal:
    """Send `mail` through the proxy. All files of the run are in the new directory `directory`.

    waiting: a context manager that is active while the filter is running.

    Raises:
        CannotRunError: the proxy failed.
    """
    dialogue = Dialogue()
    envelope = _envelope(mail, settings)
    try:
        directory.mkdir()
        with (
            Records(directory / "filter", settings.user) as records,
            Upstream(dialogue) as upstream,
        ):
            if settings.user is not None:
                # The owner of the directory can replace the records, so the records are opened
                # before the filter starts.
                os.chown(directory, settings.user.uid, settings.user.gid)
            arguments = [
                *settings.proxy_arguments,
                *("-d", settings.directory or str(directory)),
                *("-c", observed(settings.command, records.path), upstream.address),
            ]
            with Proxy(arguments, settings.user) as proxy:
                client = Client(proxy.socket, dialogue, waiting)
                reply = client.deliver(envelope, mail.content, settings.timeout)
            run = records.run()
    except NoAnswerError as error:
        raise CannotRunError(f"{mail.name}: the proxy failed: {error}") from None
    except OSError as error:
        whose = "" if settings.user is None else f" as the user {settings.user.name}"
        raise CannotRunError(
            f"{mail.name}: the proxy could not be started{whose}: {_named(error)}"
        ) from None
    except MemoryError:
        raise CannotRunError(f"{mail.name}: too large for the available memory") from None
    conditions = outcome.Conditions(
        settings.timeout, settings.reject, client.waited, settings.strict, settings.parses
    )
    delivered = dialogue.received is not None
    return Rehearsal(
        mail=mail,
        envelope=envelope,
        events=dialogue.events,
        reply=reply,
        run=run,
        outcome=outcome.judge(run, conditions, delivered=delivered),
        received=dialogue.received,
        waited=client.waited,
        proxy_status=proxy.exit_status,
    )


def not_rehearsed(name: str, why: str) -> Rehearsal:
    """Return the result for a message that could not be sent."""
    return Rehearsal(
        mail=Mail(name, b"", "", (), b"", ()),
        envelope=Envelope(b"", (), b"", b""),
        events=[],
        reply=b"",
        run=None,
        outcome=outcome.Outcome(outcome.ERROR, why),
        received=None,
        waited=0.0,
        proxy_status=None,
    )


def _named(error: OSError) -> str:
    return f"{error.filename!r}: {error.strerror}" if error.filename else str(error)


def _envelope(mail: Mail, settings: Settings) -> Envelope:
    return Envelope(
        mail.sender if settings.sender is None else settings.sender,
        settings.recipients or mail.recipients,
        settings.client_ip,
        settings.helo,
    )


def difference(sent: bytes, received: bytes) -> list[str] | None:
    """Return a unified diff of two messages, decoded as latin-1, or None if they are too long."""
    try:
        return _difference(sent, received)
    except MemoryError:
        return None


def _difference(sent: bytes, received: bytes) -> list[str] | None:
    old, new = (text.decode("latin-1").split("\r\n")[:-1] for text in (sent, received))
    # The common prefix and suffix may be long, but removing them is fast.
    start = max(0, _common(old, new) - _CONTEXT)
    del old[:start], new[:start]
    end = max(0, _common(old[::-1], new[::-1]) - _CONTEXT)
    old, new = old[: len(old) - end], new[: len(new) - end]
    if max(len(old), len(new)) > _COMPARED:
        return None
    lines = difflib.unified_diff(old, new, "sent", "received", lineterm="", n=_CONTEXT)
    return [_moved(line, start) if number > 1 else line for number, line in enumerate(lines)]


def _common(one: list[str], other: list[str]) -> int:
    """Return the number of equal lines at the beginning of two messages."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _moved(line: str, by: int) -> str:
    """Add `by` to the line numbers of a hunk header. Return other lines of a diff unchanged."""
    found = _HUNK.fullmatch(line)
    if not found:
        return line
    old, old_length, new, new_length = found.groups()
    return f"@@ -{int(old) + by}{old_length} +{int(new) + by}{new_length} @@"
