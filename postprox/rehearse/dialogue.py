"""Who said what to whom, in order.

Rule: this is a record; nobody acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

CLIENT, PROXY, UPSTREAM = "client", "proxy", "upstream"
COMMAND, REPLY, CONTENT = "command", "reply", "content"


@dataclass(frozen=True)
class Event:
    """One thing said.

    data: a command or a reply as it was on the wire; of a message the content, dots unstuffed
        and without the final dot.
    """

    source: str
    target: str
    kind: str
    data: bytes


class Dialogue:
    """What client and upstream have heard and said, each appending from its own thread.

    What is sent is noted before, what is received after; so causes stand before effects.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []

    def note(self, source: str, target: str, kind: str, data: bytes) -> None:
        """Append one thing said."""
        self._events.append(Event(source, target, kind, data))

    @property
    def events(self) -> list[Event]:
        """All that was said; see `_settled` for the order."""
        return _settled(self._events)

    @property
    def received(self) -> bytes | None:
        """The message that upstream has accepted, None if there is none."""
        for event in self._events:
            if event.kind == CONTENT and event.target == UPSTREAM:
                return event.data
        return None


def _settled(events: list[Event]) -> list[Event]:
    """Return `events` with a rejection's two halves in one order, always.

    The proxy tells the client and leaves upstream in the same instant; which of the two is seen
    first is chance.
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
    """Return `events` with what the proxy relays unchanged as one, from end to end.

    A proxy in lock-step answers or relays a command before it takes the next; so only the last
    thing said on either side can be what it relays.
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
