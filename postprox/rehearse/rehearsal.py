"""One message's way: client, proxy, filter, upstream.

Rule: everything that is started here has ended, and its files are gone, when it returns or raises.
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import filterrun, outcome
from .client import Client, Envelope, NoAnswerError
from .dialogue import Dialogue, Event
from .proxy import Proxy
from .upstream import Upstream

if TYPE_CHECKING:
    from pathlib import Path

    from .filterrun import FilterRun
    from .mail import Mail
    from .options import Settings

#: More lines than this on both sides are not compared: it could take minutes.
_COMPARED = 4000


class CannotRunError(Exception):
    """Something of the rehearsal itself could not run."""


@dataclass(frozen=True)
class Rehearsal:
    """What was observed of one message.

    reply: the reply that decided about it, with CRLF.
    run: the filter's run, None if there was none.
    waited: how long the client waited for that reply, in seconds.
    received: what upstream accepted, None if nothing.
    proxy_status: the proxy's exit status.
    """

    mail: Mail
    envelope: Envelope
    events: list[Event]
    reply: bytes
    run: FilterRun | None
    waited: float
    timed_out: bool
    outcome: outcome.Outcome
    received: bytes | None
    proxy_status: int | None


def rehearse(mail: Mail, settings: Settings, directory: Path) -> Rehearsal:
    """Send `mail` through the proxy; `directory` is for files, and empty.

    Raises:
        CannotRunError: the proxy did not do its part.
    """
    records = directory / "filter"
    records.mkdir()
    dialogue = Dialogue()
    envelope = _envelope(mail, settings)
    try:
        with Upstream(dialogue) as upstream:
            arguments = [
                *settings.proxy_arguments,
                *("-d", settings.directory or str(directory)),
                *("-c", filterrun.observed(settings.command, records), upstream.address),
            ]
            with Proxy(arguments) as proxy:
                began = time.monotonic()
                reply = Client(proxy.socket, dialogue).deliver(
                    envelope, mail.content, settings.timeout
                )
                waited = time.monotonic() - began
    except NoAnswerError as error:
        raise CannotRunError(f"the proxy did not do its part: {error}") from None
    except OSError as error:
        raise CannotRunError(f"the proxy could not be started: {error}") from None
    run = filterrun.recorded(records)
    return Rehearsal(
        mail=mail,
        envelope=envelope,
        events=dialogue.events,
        reply=reply,
        run=run,
        waited=waited,
        timed_out=run is not None and outcome.timed_out(run, settings.timeout, waited),
        outcome=outcome.judge(run, outcome.Limits(settings.timeout, settings.reject), waited),
        received=dialogue.received,
        proxy_status=proxy.exit_status,
    )


def _envelope(mail: Mail, settings: Settings) -> Envelope:
    return Envelope(
        mail.sender if settings.sender is None else settings.sender,
        settings.recipients or mail.recipients,
        settings.client_ip,
        settings.helo,
    )


def difference(sent: bytes, received: bytes) -> list[str] | None:
    """Return a unified diff of two messages, octets as latin-1; None if they are too long."""
    old, new = (text.decode("latin-1").split("\r\n") for text in (sent, received))
    if max(len(old), len(new)) > _COMPARED:
        return None
    return list(difflib.unified_diff(old[:-1], new[:-1], "sent", "received", lineterm="", n=2))
