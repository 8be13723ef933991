"""Observers, which are functions that decide whether a step was observed, and failure messages.

Rule: an observer never waits, and checks only its own step. Its verdict is yes, no or not yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..format.nodes import Group, Named, ReplyPattern, Step, TextTest
from ..format.payload import Payload, visible
from ..format.writer import write_step
from .connections import Connection
from .dialogue import shorten
from .filter_stub import FilterRun, group_members
from .harness import Harness
from .matching import (
    WAIT,
    YES,
    MessageAwaited,
    NoSuccessAwaited,
    OctetsAwaited,
    ReplyAwaited,
    State,
    UnfinishedAwaited,
    Verdict,
    describe,
    no,
    text_fits,
)

_SHOWN = 2000
#: A process is idle if it uses no more than _IDLE_USE seconds of processor time in _IDLE_STRETCH
#: seconds.
_IDLE_STRETCH = 0.2
_IDLE_USE = 0.02

Observer = Callable[[], Verdict]
#: The steps that succeed at the end of the connection or of their time, with their conditions.
_UNTIL_END: dict[str, Callable[[], NoSuccessAwaited | UnfinishedAwaited]] = {
    "@no-2yz": NoSuccessAwaited,
    "@unfinished": UnfinishedAwaited,
}
#: The expectations of these steps, for failure reports.
_EXPECTED = {
    "@message": (
        "a complete message without an earlier end of data for servers that end lines at CR or LF"
    ),
    "@no-2yz": "no 2yz reply",
    "@unfinished": "no end of data",
}
Awaited = MessageAwaited | OctetsAwaited | ReplyAwaited


class StepFailedError(Exception):
    """A step has failed. `step` is None for a rule that applies to every transcript.

    `requirement` is the violated requirement, or "" for the subject of the transcript.
    """

    def __init__(self, step: Step | None, expected: str, got: str, requirement: str = "") -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.step = step
        self.expected = expected
        self.got = got
        self.requirement = requirement


class Observers:
    """The observers of one run. *connect* opens a client connection at its first step."""

    def __init__(self, harness: Harness, connect: Callable[[Step, str], None]) -> None:
        self._harness = harness
        self._connect = connect
        self._filter_run: FilterRun | None = None
        self._resident_before: int | None = None
        #: Whether a step has sent a signal to the process.
        self.signalled = False
        #: Steps that must be true both when the engine reaches them and at the end.
        self.lasting: list[tuple[Step, Observer]] = []

    def look(self, group: Group) -> Observer:
        """Return the observer of the step."""
        step = group[0]
        match step.kind:
            case "C" | "U":
                return self._look_at_connection(group)
            case "F":
                return self._look_at_filter(group)
            case _:
                return self._look_at_process(step)

    def with_process(self, look: Observer) -> Verdict:
        """Return the verdict of *look*. Fail if it is pending but the process has exited."""
        verdict = look()
        if (
            verdict.state is State.WAIT
            and self._harness.process is not None
            and not self._harness.process.alive
        ):
            # The process may have performed its last action immediately before its exit.
            self._harness.loop.turn(0)
            self._harness.loop.turn(0)
            verdict = look()
            if verdict.state is State.WAIT:
                return no(f"nothing; {self.process_state()}")
        return verdict

    def _look_at_connection(self, group: Group) -> Observer:
        step = group[0]
        if step.verb == "@connect":
            return lambda: self.with_process(lambda: self.accept(step.actor))
        if step.verb == "@quiet":
            return self._quiet(step)
        if step.verb == "@eof":
            return lambda: self._on_connection(step, _at_end)
        if step.verb in _UNTIL_END:
            return self._until_end(step)
        awaited: Awaited
        if step.verb == "@message":
            awaited = MessageAwaited()
        elif isinstance(step.argument, ReplyPattern):
            awaited = ReplyAwaited(step.argument)
        else:
            awaited = OctetsAwaited(self.octets(group))
        return lambda: self._on_connection(step, lambda at: _take(at, awaited))

    def _on_connection(self, step: Step, look: Callable[[Connection], Verdict]) -> Verdict:
        """Apply *look* to the connection of the step's actor as soon as the connection exists."""
        harness = self._harness
        known = harness.clients if step.kind == "C" else harness.upstreams
        if step.actor in known:
            return look(known[step.actor])
        if step.kind == "C":
            self._connect(step, step.actor)
            return WAIT
        verdict = self.with_process(lambda: self.accept(step.actor))
        return look(known[step.actor]) if verdict.state is State.YES else verdict

    def _quiet(self, step: Step) -> Observer:
        length = self.quiet_time(step)
        begin = time.monotonic()

        def look() -> Verdict:
            known = self._harness.clients if step.kind == "C" else self._harness.upstreams
            connection = known.get(step.actor)
            if connection is None and self._harness.listener.arrived and step.kind == "U":
                return no("a connection")
            if connection is not None and connection.received:
                return no(describe(connection.received))
            # A program that is still reading a large write is not silent yet.
            since = begin if connection is None else max(begin, connection.last_sent)
            return YES if time.monotonic() >= since + length else WAIT

        return look

    def _until_end(self, step: Step) -> Observer:
        """Return an observer that ends with the connection or after the time in *step*."""
        deadline = time.monotonic() + self.quiet_time(step)
        awaited = _UNTIL_END[step.verb]()

        def look(connection: Connection) -> Verdict:
            verdict = awaited.look(connection.received)
            is_over = connection.ended or time.monotonic() >= deadline
            if verdict.state is State.WAIT and is_over:
                verdict = Verdict(State.YES, len(connection.received))
            if verdict.state is State.YES:
                connection.take(verdict.used)
            return verdict

        return lambda: self._on_connection(step, look)

    def quiet_time(self, step: Step) -> float:
        """Return the time that *step* specifies, or 0."""
        if step.verb not in ("@quiet", *_UNTIL_END):
            return 0.0
        assert isinstance(step.argument, float)
        return self._harness.seconds(step.argument)

    # --- the filter

    def _look_at_filter(self, group: Group) -> Observer:
        step, box = group[0], self._harness.filter

        def arrived() -> Verdict:
            if not box.new_runs:
                return WAIT
            self._filter_run = box.new_runs.popleft()
            return YES

        def at_gate() -> Verdict:
            if str(step.argument) not in box.waiting:
                return WAIT
            box.waiting.remove(str(step.argument))
            return YES

        match step.verb:
            case "run":
                return lambda: self.with_process(arrived)
            case "gate":
                return at_gate
            case "none":
                return self._lasting_look(step, lambda: no("a run") if box.new_runs else YES)
        return lambda: self._on_filter_run(group)

    def _on_filter_run(self, group: Group) -> Verdict:
        step, run = group[0], self._filter_run
        if run is None:
            return no("the filter has not been started; F< run must come first")
        verdicts: dict[str, Callable[[], Verdict]] = {
            "env": lambda: self._environment(step, run),
            "unset": lambda: _equal(run.environment.get(str(step.argument)), None),
            "email": lambda: _equal(run.email, self.octets(group)),
            "email-mode": lambda: _private(run.email_mode),
            "outfile": lambda: _equal(run.outfile, b""),
            "exit": lambda: _status_verdict(str(step.argument), run.exit_status),
            "killed": lambda: _killed(run),
        }
        return verdicts[step.verb]()

    def _environment(self, step: Step, run: FilterRun) -> Verdict:
        assert isinstance(step.argument, Named)
        wanted = step.argument.value.octets(self._harness.variables)
        return _equal(run.environment.get(step.argument.name), wanted)

    # --- the process

    def _look_at_process(self, step: Step) -> Observer:
        match step.verb:
            case "exit":
                return lambda: self._exit(step)
            case "syslog":
                look: Observer = lambda: self.with_process(lambda: self._syslog(step))  # noqa: E731
                assert isinstance(step.argument, TextTest)
                return self._lasting_look(step, look) if step.argument.operator == "lacks" else look
            case "tmp":
                return lambda: self._tmp(step)
            case "idle":
                return self._idle()
        looks: dict[str, Callable[[Step], Verdict]] = {
            "memory": self._memory,
            "growth": self._growth,
            "listens": self._listens,
        }
        return lambda: looks.get(step.verb, self._output)(step)

    def _exit(self, step: Step) -> Verdict:
        """Return the verdict on the process's exit, or on the end of a server's sessions."""
        harness = self._harness
        if harness.mode == "listen" and harness.clients and not self.signalled:
            return YES if self.sessions_ended() else WAIT
        in_both = harness.mode == "listen" and "stdio" in harness.header.modes
        wanted = "any" if in_both else str(step.argument)
        return _status_verdict(
            wanted, self._harness.process.status if self._harness.process else None
        )

    def _syslog(self, step: Step) -> Verdict:
        assert isinstance(step.argument, TextTest)
        assert self._harness.syslog is not None
        self._harness.syslog.read()
        messages = self._harness.syslog.messages
        operator, wanted = step.argument.operator, self._wanted(step.argument)
        fitting = [text_fits(operator, wanted, message) for message in messages]
        if operator == "lacks":
            return YES if all(fitting) else no(visible(messages[fitting.index(False)]))
        return YES if any(fitting) else WAIT

    def _wanted(self, test: TextTest) -> bytes:
        if isinstance(test.text, str):
            return test.text.encode()
        return test.text.octets(self._harness.variables)

    def _output(self, step: Step) -> Verdict:
        test = step.argument
        assert isinstance(test, TextTest)
        text = self._harness.output(step.verb)
        over = self._harness.process is not None and not self._harness.process.alive
        if self._harness.mode == "command" and not over:
            return WAIT
        if text_fits(test.operator, self._wanted(test), text):
            return YES
        return no(shorten(visible(text), _SHOWN) or "nothing") if over else WAIT

    def _tmp(self, step: Step) -> Verdict:
        if step.argument == "private":
            return _all_private(self._harness.tmp_seen)
        filled = any(self._harness.tmp_seen.iterdir())
        return YES if filled == (step.argument == "filled") else WAIT

    def _memory(self, step: Step) -> Verdict:
        assert isinstance(step.argument, int)
        assert self._harness.process is not None
        peak = self._harness.process.peak_memory()
        return YES if peak < step.argument else no(f"{peak / (1 << 20):.1f}M")

    def _growth(self, step: Step) -> Verdict:
        """Compare the resident memory with its value at the first step of this type."""
        assert isinstance(step.argument, int)
        assert self._harness.process is not None
        resident = self._harness.process.resident_memory()
        if self._resident_before is None:
            self._resident_before = resident
        grown = resident - self._resident_before
        return YES if grown < step.argument else no(f"{grown / (1 << 20):.1f}M more")

    def _idle(self) -> Observer:
        """Return an observer that waits for a period without use of the processor."""
        process = self._harness.process
        assert process is not None
        began, used = time.monotonic(), process.processor_time()

        def look() -> Verdict:
            nonlocal began, used
            if self._last_sent() > began:  # the process was waiting for the suite
                began, used = time.monotonic(), process.processor_time()
            if time.monotonic() < began + _IDLE_STRETCH:
                return WAIT
            more = process.processor_time() - used
            if more <= _IDLE_USE:  # a process that waits for a processor does not use one
                return YES if process.sleeps() else WAIT
            began, used = time.monotonic(), used + more
            return WAIT

        return look

    def _last_sent(self) -> float:
        """Return the time.monotonic() at which the kernel last accepted octets from the suite."""
        connections = [*self._harness.clients.values(), *self._harness.upstreams.values()]
        return max((one.last_sent for one in connections), default=0.0)

    def _listens(self, step: Step) -> Verdict:
        assert isinstance(step.argument, Payload)
        assert self._harness.process is not None
        wanted = step.argument.octets(self._harness.variables).decode("ascii", "replace")
        found = self._harness.process.listens()
        return YES if found == {wanted} else no(", ".join(sorted(found)) or "nowhere")

    def _lasting_look(self, step: Step, look: Observer) -> Observer:
        """Return *look*, and register it to be checked again at the end."""
        self.lasting.append((step, look))
        return look

    def sessions_ended(self) -> bool:
        """Whether the implementation has closed every connection that the suite has not closed."""
        open_ones = [
            *self._harness.clients.values(),
            *self._harness.upstreams.values(),
            *self._harness.retired,
        ]
        return all(connection.ended or connection.closed for connection in open_ones)

    def accept(self, actor: str) -> Verdict:
        """Assign the next upstream connection to *actor*."""
        harness = self._harness
        if not harness.listener.arrived:
            return WAIT
        if actor in harness.upstreams:
            harness.retired.append(harness.upstreams[actor])
        harness.upstreams[actor] = harness.listener.arrived.popleft()
        return YES

    def octets(self, group: Group) -> bytes:
        variables = self._harness.variables
        return b"".join(
            step.argument.octets(variables) for step in group if isinstance(step.argument, Payload)
        )

    # --- texts of failures --------------------------------------------------------------------

    def expected(self, step: Step) -> str:
        text = step.source or write_step(step)  # a profile's step has no source
        if step.verb == "@quiet":
            return f"{step.actor} to stay silent"
        if step.verb in _EXPECTED:
            return _EXPECTED[step.verb]
        if step.mark == "<" and step.kind in "CU" and not step.verb:
            return shorten(visible(self.octets((step,))), 400)
        if step.verb == "listens":
            return f"listening on {visible(self.octets((step,)))}"
        return text[text.find(" ") + 1 :] if " " in text else text

    def so_far(self, step: Step) -> str:
        """Return the observed part of *step*."""
        connection = {**self._harness.clients, **self._harness.upstreams}.get(step.actor)
        if step.kind in "CU" and connection is not None:
            return describe(connection.received)
        if step.verb == "syslog" and self._harness.syslog is not None:
            return " | ".join(map(visible, self._harness.syslog.messages)) or "nothing in syslog"
        if step.verb == "idle":
            return "constant processor use"
        if step.verb == "tmp":
            return ", ".join(path.name for path in self._harness.tmp_seen.iterdir()) or "no file"
        if step.verb == "exit" and step.kind == "P":
            return self.process_state()
        return "nothing"

    def process_state(self) -> str:
        if self._harness.process is None:
            return "the process has not been started"
        if self._harness.process.alive:
            return "the process is still running"
        return f"the process exited with status {self._harness.process.status}"


def _take(connection: Connection, awaited: Awaited) -> Verdict:
    verdict = awaited.look(connection.received)
    if verdict.state is State.YES:
        connection.take(verdict.used)
    elif verdict.state is State.WAIT and (connection.ended or connection.closed):
        rest = describe(connection.received) if connection.received else ""
        return no(f"{rest} @eof".strip())
    return verdict


def _at_end(connection: Connection) -> Verdict:
    if connection.received:
        return no(describe(connection.received))
    return YES if connection.ended else WAIT


def _equal(got: bytes | None, wanted: bytes | None) -> Verdict:
    if got == wanted:
        return YES
    if got is None:
        return no("missing")
    return no(f"'{shorten(visible(got), _SHOWN)}'")


def _status_verdict(wanted: str, status: int | None) -> Verdict:
    if status is None:
        return WAIT
    fits = wanted == "any" or (status != 0 if wanted == "nonzero" else str(status) == wanted)
    return YES if fits else no(f"exit {status}" if status >= 0 else f"killed by signal {-status}")


def _private(mode: int | None) -> Verdict:
    return YES if mode in (0o600, 0o400) else no("no file" if mode is None else f"mode {mode:04o}")


def _all_private(directory: Path) -> Verdict:
    """Whether only the owner can open the files in *directory*."""
    modes = {path.name: path.lstat().st_mode & 0o777 for path in directory.iterdir()}
    open_ones = [f"{name} has mode {mode:04o}" for name, mode in modes.items() if mode & 0o077]
    return no(", ".join(open_ones)) if open_ones else YES


def _killed(run: FilterRun) -> Verdict:
    if run.exit_status is not None and run.exit_status < 128:
        return no(f"the filter exited by itself with status {run.exit_status}")
    return WAIT if group_members(run) else YES
