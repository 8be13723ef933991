"""The JSON document of a rehearsal, for scripts.

Rule: the keys are stable. Later versions may add keys.

Text from files, from the wire and from the filter has one character per octet
(latin-1). `text.encode("latin-1")` returns the octets.

    format      1
    postprox    the proxy's version
    command     the filter command
    timeout     the value of -t, in seconds
    reject      true if -r or --strict was given (--strict implies -r)
    strict      true if --strict was given
    expected    a list of the values of --expect
    summary     {"messages": N}, and the number of messages for each verdict
    seconds     {"median", "slowest"} duration of a filter run, each null if the filter did not run
    messages    a list with one object for each message:
        message     the file name as given on the command line
        notes       a list of remarks about the file
        verdict     accept, reject, rewrite, discard, fail-open (the filter failed, and the message
                    passed), fail (the filter failed, and the message got 451) or error (the proxy
                    could not process the message)
        timed_out   true if the proxy killed the filter at its time limit
        reason      the reason for the filter failure, or ""
        hints       a list of remarks for the filter's author
        reply       the reply to the message, without its CRLF
        delivered   true if the upstream server received the message
        sent        the message as the client sent it, without stuffed dots, with CRLF line endings
        received    the message as the upstream server received it, or null
        diff        a unified diff of sent and received, [] if they are equal, or null if one is
                    missing or they are too long to compare
        envelope    {"sender", "recipients", "client_ip", "helo"}
        filter      null if the filter did not run, or else {"environment": {"EMAIL", "OUTFILE",
                    "SENDER", "RECIPIENT", "REMOTEIP", "HELO", "RECIPIENTS", "RECIPIENTCOUNT",
                    "QUEUE_ID", "CLIENT_NAME"}, "status": the shell's exit status (128 + N after
                    signal N), or null if its process group was killed, "signal": the name of
                    the signal, or "", "stderr", "outfile": empty, filled or unusable,
                    "seconds": the duration, or null if the process group was killed}
        dialogue    a list of events in order, each {"from", "to": client, proxy or upstream,
                    "kind": command, reply or content, "text": with line endings}
        proxy_exit_status   the exit status of the proxy
        complaint   the difference from --expect, or "". Without --expect, the failure of the
                    filter or the proxy, or ""
"""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from .. import __version__
from . import outcome
from .rehearsal import difference
from .summary import complaint

if TYPE_CHECKING:
    from .filterrun import FilterRun
    from .options import Settings
    from .rehearsal import Rehearsal
    from .summary import Result

FORMAT = 1


def document(settings: Settings, rehearsals: list[Rehearsal], results: list[Result]) -> str:
    """Return the document for rehearsals and their results."""
    times = [done.seconds for done in results if done.seconds is not None]
    messages = [_message(rehearsal) for rehearsal in rehearsals]
    for message, done in zip(messages, results, strict=True):
        message["complaint"] = complaint(settings, done)
    return json.dumps(
        {
            "format": FORMAT,
            "postprox": __version__,
            "command": settings.command,
            "timeout": settings.timeout,
            "reject": settings.reject,
            "strict": settings.strict,
            "expected": settings.expected,
            "summary": _summary(rehearsals),
            "seconds": {
                "median": statistics.median(times) if times else None,
                "slowest": max(times, default=None),
            },
            "messages": messages,
        },
        indent=2,
    )


def _summary(rehearsals: list[Rehearsal]) -> dict[str, int]:
    verdicts = [rehearsal.outcome.verdict for rehearsal in rehearsals]
    counts = {name: verdicts.count(name) for name in outcome.VERDICTS}
    return {"messages": len(rehearsals), **counts}


def _message(rehearsal: Rehearsal) -> dict[str, Any]:
    received = rehearsal.received
    return {
        "message": rehearsal.mail.name,
        "notes": rehearsal.mail.notes,
        "verdict": rehearsal.outcome.verdict,
        "timed_out": rehearsal.outcome.timed_out,
        "reason": rehearsal.outcome.reason,
        "hints": rehearsal.outcome.hints,
        "reply": _text(rehearsal.reply.removesuffix(b"\r\n")),
        "delivered": received is not None,
        "sent": _text(rehearsal.mail.content),
        "received": None if received is None else _text(received),
        "diff": None if received is None else difference(rehearsal.mail.content, received),
        "envelope": {
            "sender": _text(rehearsal.envelope.sender),
            "recipients": [_text(recipient) for recipient in rehearsal.envelope.recipients],
            "client_ip": _text(rehearsal.envelope.client_ip),
            "helo": _text(rehearsal.envelope.helo),
        },
        "filter": None if rehearsal.run is None else _filter(rehearsal.run),
        "dialogue": [
            {
                "from": event.source,
                "to": event.target,
                "kind": event.kind,
                "text": _text(event.data),
            }
            for event in rehearsal.events
        ],
        "proxy_exit_status": rehearsal.proxy_status,
    }


def _filter(run: FilterRun) -> dict[str, Any]:
    return {
        "environment": {name: _text(value) for name, value in run.environment.items()},
        "status": run.status,
        "signal": outcome.signal_name(run),
        "stderr": _text(run.stderr),
        "outfile": run.outfile,
        "seconds": run.seconds,
    }


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")
