"""Relays one session in both directions and records it as steps.

Rule: output of the proxy is recorded before the response to it is relayed to the proxy.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..format.header import Header
from ..format.nodes import Transcript
from ..format.payload import visible
from ..play.connections import Connection
from ..play.dialogue import Dialogue
from ..play.harness import Harness, Settings
from .address import Address, connect
from .steps import StepRecorder

#: The time limit in seconds for the proxy's exit after client and upstream have disconnected.
_TIMEOUT = 30.0
_PAUSE = 0.2
_NAMES = ("U", *(f"U{number}" for number in range(2, 10)))

# The filter runs in its own shell, so that its standard error is recorded before it is relayed. The
# recorded transcript does not contain this shell.
_OVERHEARD = """\
(
{text}
) 2>"$suite_box/$$/stderr"
suite_status=$?
cat "$suite_box/$$/stderr" >&2
exit $suite_status
"""


class RecordError(Exception):
    """No transcript could be recorded. The error message contains the reason."""


@dataclass(frozen=True)
class Plan:
    """The settings of a recording."""

    header: Header
    upstream: Address
    settings: Settings
    email: bool  # whether to record the content of EMAIL


@dataclass
class _Link:
    """The two ends of a relayed connection: the proxy's end and the real peer's end."""

    actor: str
    inner: Connection
    outer: Connection
    inner_ended: bool = False
    outer_ended: bool = False

    @property
    def over(self) -> bool:
        """Whether both sides have closed the connection."""
        return self.inner_ended and self.outer_ended


class _FilterSaid:
    """Return the lines on the filter's standard error from all runs so far."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def __iter__(self) -> Iterator[bytes]:
        for run in self._harness.filter.runs:
            path = self._harness.directory / "filter" / str(run.pid) / "stderr"
            with contextlib.suppress(OSError):
                yield from path.read_bytes().split(b"\n")


class Recording:
    """A proxy between one real client and the real upstream."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        text = plan.header.filter
        overheard = replace(plan.header, filter=text and _OVERHEARD.format(text=text))
        self._harness = Harness(Transcript("recording", overheard, ()), "stdio", plan.settings)
        self._steps = StepRecorder(_FilterSaid(self._harness))
        self._links: list[_Link] = []
        self._moved = time.monotonic()

    def run(self, client: socket.socket, name: str) -> Transcript:
        """Serve *client* until the proxy has exited, and return the session as a transcript."""
        harness = self._harness
        try:
            harness.prepare()
            harness.start_session()
            outer = Connection(harness.loop, client, Dialogue(), "client")
            self._links.append(_Link("C", harness.clients["C"], outer))
            self._relay()
            self._end()
        finally:
            for link in self._links:
                link.outer.close()
            harness.close()
        return Transcript(name, self._plan.header, self._steps.steps)

    # --- relaying

    def _relay(self) -> None:
        process = self._harness.process
        assert process is not None
        while process.alive or not all(link.inner_ended for link in self._links):
            self._harness.loop.turn(_PAUSE)
            self._take_filter_runs()
            self._take_connections()
            for link in self._links:
                self._see(link)
            for link in self._links:
                self._pass_on(link)
            self._check_timeout()

    def _take_filter_runs(self) -> None:
        while self._harness.filter.new_runs:
            run = self._harness.filter.new_runs.popleft()
            self._steps.filter_run(run)
            if self._plan.email:
                self._steps.read_email(run)

    def _take_connections(self) -> None:
        while self._harness.listener.arrived:
            inner = self._harness.listener.arrived.popleft()
            actor = self._free_name()
            if actor != "U" or len(self._links) > 1:
                self._steps.observed(actor, "@connect")
            outer = Connection(self._harness.loop, self._connected(), Dialogue(), "upstream")
            self._links.append(_Link(actor, inner, outer))

    def _connected(self) -> socket.socket:
        try:
            return connect(self._plan.upstream)
        except OSError as error:
            why = error.strerror or error
            raise RecordError(f"upstream {self._plan.upstream}: {why}") from error

    def _free_name(self) -> str:
        taken = {link.actor for link in self._links if not link.over}
        for name in _NAMES:
            if name not in taken:
                return name
        raise RecordError(f"more than {len(_NAMES)} upstream connections at the same time")

    def _see(self, link: _Link) -> None:
        """Handle output of the proxy."""
        octets = bytes(link.inner.received)
        if octets:
            link.inner.take(len(octets))
            self._steps.seen(link.actor, octets)
            link.outer.send(octets)
            self._moved = time.monotonic()
        elif link.inner.ended and not link.inner_ended:
            link.inner_ended = True
            self._steps.observed(link.actor, "@eof")
            link.outer.end_writing()

    def _pass_on(self, link: _Link) -> None:
        """Handle output of the real client or upstream."""
        octets = bytes(link.outer.received)
        if octets:
            link.outer.take(len(octets))
            self._steps.sent(link.actor, octets)
            link.inner.send(octets)
            self._moved = time.monotonic()
        elif link.outer.ended and not link.outer_ended:
            link.outer_ended = True
            self._moved = time.monotonic()
            if not link.inner_ended:
                self._steps.action(link.actor, "@eof")
                link.inner.end_writing()

    def _check_timeout(self) -> None:
        process = self._harness.process
        assert process is not None
        gone = all(link.outer_ended for link in self._links) or not process.alive
        if gone and time.monotonic() - self._moved > _TIMEOUT:
            raise RecordError("the session has ended, but the proxy is still running")

    # --- end of the session

    def _end(self) -> None:
        process = self._harness.process
        assert process is not None
        assert process.status is not None
        complaint = self._harness.output("stderr")
        if complaint:
            raise RecordError(f"the proxy wrote to standard error: {visible(complaint)}")
        if process.status < 0:
            raise RecordError(f"the proxy was killed by signal {-process.status}")
        self._steps.ended(process.status)
