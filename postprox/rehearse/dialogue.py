"""Records the sequence of commands, replies and messages between client, proxy and upstream.

Rule: this module only records events. No decision in a session depends on the record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

CLIENT, PROXY, UPSTREAM = "client", "proxy", "upstream"
COMMAND, REPLY, CONTENT = "command", "reply", "content"


@dataclass(frozen=True)
class Event:
    """One command, reply or message."""

    source: str
    target: str
    kind: str
    #: A command or reply as it appears on the wire, or a message's content without the stuffed dots
    #: and the final dot.
    data: bytes


class Dialogue:
    """The events that the client and the upstream server observe. Both run in their own threads.

    Outgoing data is recorded before it is sent, and incoming data after it has been received.
    Causes therefore precede their effects.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []

    def note(self, source: str, target: str, kind: str, data: bytes) -> None:
        """Append one event."""
        self._events.append(Event(source, target, kind, data))

    @property
    def events(self) -> list[Event]:
        """All events, in the order defined by `_settled`."""
        return _settled(self._events)

    @property
    def received(self) -> bytes | None:
        """The message that the upstream server has accepted, or None."""
        for event in self._events:
            if event.kind == CONTENT and event.target == UPSTREAM:
                return event.data
        return None


def _settled(events: list[Event]) -> list[Event]:
    """Return `events`, with a fixed order for the two events that a rejection causes.

    The proxy replies to the client and ends the upstream session at the same time, so these events
    can be observed in either order.
    """
    leaving = [
        event for event in events if _is_quit(event) or (event.source == UPSTREAM and _bye(event))
    ]
    answers = [event for event in events if event.source == PROXY and event.target == CLIENT]
    content = [at for at, event in enumerate(events) if event.kind == CONTENT]
    if len(content) != 1 or not leaving or any(_relayed(event, answers) for event in leaving):
        return list(events)
    others = [event for event in events if event not in leaving]
    at = next((n for n, event in enumerate(others) if event.kind == CONTENT), len(others))
    answered = next((n for n in range(at, len(others)) if others[n] in answers), len(others) - 1)
    return others[: answered + 1] + leaving + others[answered + 1 :]


def _is_quit(event: Event) -> bool:
    return event.target == UPSTREAM and event.data == b"QUIT\r\n"


def _bye(event: Event) -> bool:
    return event.data.startswith(b"221")


def _relayed(event: Event, answers: list[Event]) -> bool:
    return any(answer.data == event.data for answer in answers)


def merged(events: list[Event]) -> list[Event]:
    """Return `events`, with each event and its unchanged copy merged into a single event.

    Without pipelining, the proxy replies to a command or relays it before it reads the next
    command. An event that the proxy relays is therefore always the latest one from its sender.
    """
    steps: list[Event] = []
    open_steps: dict[str, int] = {}
    for event in events:
        if event.source != PROXY:
            open_steps[event.source] = len(steps)
            steps.append(event)
            continue
        origin, end = (CLIENT, UPSTREAM) if event.target == UPSTREAM else (UPSTREAM, CLIENT)
        at = open_steps.pop(origin, None)
        open_steps.pop(end, None)
        if at is not None and (steps[at].kind, steps[at].data) == (event.kind, event.data):
            steps[at] = replace(steps[at], target=end)
        else:
            steps.append(event)
    return steps
