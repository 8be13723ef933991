"""The invariants, which are rules that apply to the end of every run and to its leftovers.

Rule: docs/transcripts.md describes the invariants ("True of every transcript"). Unexpected output,
or a session that does not end, makes the transcript itself fail. The other rules have their own
requirements and results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..format.nodes import Step
from ..format.payload import visible
from ..format.vocabulary import MODES
from .connections import Connection
from .dialogue import shorten
from .harness import Harness, HarnessError
from .leftovers import AFTERMATH, files, processes, still_left
from .observers import Observers, StepFailedError

_SHOWN = 2000
#: The time limit in seconds for a rule that is known to be violated.
_MOMENT = 0.1


@dataclass(frozen=True)
class Rule:
    """A rule for every run in certain modes. It has one result for each mode."""

    name: str
    title: str
    #: The first requirement is the one that the result tests. The others apply to special
    #: situations. If the rule is violated, a transcript that cites one of them fails.
    requires: tuple[str, ...]
    modes: tuple[str, ...]


_STANDARD_ERROR = Rule(
    "standard-error",
    "During a session, the process writes nothing to file descriptor 2",
    ("cli.stderr-silent-1",),
    ("stdio",),  # a server may log there (log.stderr)
)
_TRACEBACK = Rule(
    "traceback",
    "Errors are reported with a message, not a traceback",
    ("cli.errors-12",),
    MODES,
)
_TEMP_DIRECTORY = Rule(
    "temp-directory",
    "No temporary file is left in DIR",
    ("files.gone-1", "files.gone-2", "files.gone-3", "files.gone-4", "data.client-lost-7"),
    MODES,
)
_PROCESSES = Rule(
    "processes",
    "No child process outlives the process that the suite started",
    ("cli.exit-8", "filter.timeout-4", "files.term-1", "data.client-lost-6", "listen.stop-5"),
    MODES,
)
_DEATH = Rule("death", "Only signals from the suite terminate the process", ("cli.exit-6",), MODES)
_STOP = Rule("stop", "SIGTERM ends a server with exit status 0", ("listen.stop-9",), ("listen",))
#: All rules.
RULES = (_STANDARD_ERROR, _TEMP_DIRECTORY, _PROCESSES, _DEATH, _STOP, _TRACEBACK)


@dataclass(frozen=True)
class Observed:
    """A run's result for a rule, with the expectation and the observation after a violation."""

    rule: Rule
    expected: str = ""
    got: str = ""

    @property
    def kept(self) -> bool:
        """Whether the rule was met."""
        return not self.expected


class InvariantChecker:
    """Ends one run and checks the rules."""

    def __init__(self, harness: Harness, looks: Observers, steps: list[Step]) -> None:
        self._harness = harness
        self._observers = looks
        self._verbs = {step.verb for step in steps}
        self._sent_sigterm = False
        #: The observations of all rules that the transcript itself does not cite.
        self.observed: list[Observed] = []

    def _judge(self, rule: Rule, expected: str, look: Callable[[], str]) -> None:
        """Record the result of *look*, which describes a violation of *rule* or returns ""."""
        got = look()
        if got and (cited := self._cited(rule)):
            raise StepFailedError(None, expected, got, cited)
        if got:
            self._harness.settings.broken.add((rule.name, self._harness.mode))
        self.observed.append(Observed(rule, expected if got else "", got))

    def _cited(self, rule: Rule) -> str:
        """Return the requirement of *rule* that the transcript cites, or ""."""
        cited = self._harness.header.requires
        return next((one for one in cited if one in rule.requires), "")

    def _is_news(self, rule: Rule) -> bool:
        """Whether a violation of *rule* would change a result. If not, do not wait for it."""
        known = (rule.name, self._harness.mode) in self._harness.settings.broken
        return bool(self._cited(rule)) or not known

    def end(self, answer_late: Callable[[], None]) -> None:
        """End the session, and stop the server if there is one."""
        self._end_sessions(answer_late)
        if self._harness.mode == "listen":
            self._end_server()

    def _end_sessions(self, answer_late: Callable[[], None]) -> None:
        harness = self._harness
        for connection in [*harness.clients.values(), *self._upstreams()]:
            connection.resume()
        for client in harness.clients.values():
            if not (client.closed or client.ended or client.half_closed):
                client.end_writing()
        process = harness.process
        if process is None:
            raise HarnessError("the transcript never started the process")

        def over() -> bool:
            answer_late()
            for upstream in self._upstreams():
                _say_goodbye(upstream)
            return (
                self._observers.sessions_ended() if harness.mode == "listen" else not process.alive
            )

        if not harness.wait_until(over):
            what = "the session" if harness.mode == "listen" else "the process"
            raise StepFailedError(None, f"{what} to end after the script", "it is still running")
        # The last output may still be in a kernel buffer.
        harness.loop.turn(0)
        over()

    def _upstreams(self) -> list[Connection]:
        harness = self._harness
        return [*harness.retired, *harness.upstreams.values(), *harness.listener.arrived]

    def _end_server(self) -> None:
        process = self._harness.process
        assert process is not None
        if process.alive:
            self._sent_sigterm = True
            process.send("SIGTERM")
            self._judge(_STOP, "SIGTERM to end the server with exit status 0", self._goes_on)

    def _goes_on(self) -> str:
        process = self._harness.process
        assert process is not None
        seconds = self._harness.full_timeout if self._is_news(_STOP) else _MOMENT
        self._harness.loop.turn_until(lambda: not process.alive, seconds)
        if process.status == 0 or (process.status is not None and self._observers.signalled):
            return ""
        return self._observers.process_state()

    def judge_end(self) -> None:
        """Check the exit status of the process and its leftovers."""
        self._judge(_DEATH, "an exit without a signal (the suite sent no signal)", self._died)
        expected = "no descendants that outlive the process"
        self._judge(_PROCESSES, expected, lambda: self._left(_PROCESSES, processes))
        expected = "an empty temporary directory"
        self._judge(_TEMP_DIRECTORY, expected, lambda: self._left(_TEMP_DIRECTORY, files))

    def _died(self) -> str:
        status = self._harness.process.status if self._harness.process else None
        sent = self._observers.signalled or self._sent_sigterm
        return (
            self._observers.process_state()
            if status is not None and status < 0 and not sent
            else ""
        )

    def _left(self, rule: Rule, look: Callable[[Harness], list[str]]) -> str:
        harness = self._harness
        seconds = AFTERMATH if self._is_news(rule) else _MOMENT
        return ", ".join(still_left(harness, lambda: look(harness), seconds))

    def judge_the_unawaited(self) -> None:
        """Check that steps have consumed all octets, connections and filter runs."""
        harness = self._harness
        for connection in [*harness.clients.values(), *self._upstreams()]:
            if connection.received and not connection.closed:
                got = shorten(visible(bytes(connection.received)), _SHOWN)
                raise StepFailedError(None, f"nothing more from {connection.name}<", got)
        if harness.listener.arrived:
            got = f"{len(harness.listener.arrived)} more"
            raise StepFailedError(None, "no further upstream connections", got)
        if self._verbs & {"run", "none"} and harness.filter.new_runs:
            got = f"{len(harness.filter.new_runs)} more"
            raise StepFailedError(None, "no further filter runs", got)

    def judge_output(self) -> None:
        """Check that nothing was written to descriptor 2 and no traceback was printed."""
        if self._harness.mode in _STANDARD_ERROR.modes and "stderr" not in self._verbs:
            expected = "nothing on file descriptor 2 (it is the SMTP channel)"
            self._judge(_STANDARD_ERROR, expected, self._on_standard_error)
        self._judge(_TRACEBACK, "no traceback in any output", self._traceback)

    def _on_standard_error(self) -> str:
        return shorten(visible(self._harness.output("stderr")), _SHOWN)

    def _traceback(self) -> str:
        harness = self._harness
        said = {name: harness.output(name) for name in ("stdout", "stderr")}
        said["syslog"] = b"\n".join(harness.syslog.messages) if harness.syslog else b""
        for name, text in said.items():
            if b"Traceback" in text:
                return f"on {name}: {visible(text[-_SHOWN:])}"
        return ""


def _say_goodbye(upstream: Connection) -> None:
    """Reply to a late QUIT or EOF, which every transcript permits after its last step."""
    if not upstream.closed and bytes(upstream.received).upper() == b"QUIT\r\n":
        upstream.take(len(upstream.received))
        upstream.send(b"221 2.0.0 bye\r\n")
        upstream.end_writing()
