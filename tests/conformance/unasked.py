"""What holds for every transcript, though no step asks for it: how a run ends, what is left.

Rule: the list of docs/transcripts.md, "True of every transcript", and nothing else.
"""

from __future__ import annotations

from .connections import Connection
from .dialogue import shorten
from .leftovers import files, processes, still_left
from .looks import Looks, StepFailedError
from .payload import visible
from .script import Step
from .stage import HarnessError, Stage

_SHOWN = 2000


class Unasked:
    """The end of one run, and what is judged then."""

    def __init__(self, stage: Stage, looks: Looks, steps: list[Step]) -> None:
        self._stage = stage
        self._looks = looks
        self._verbs = {step.verb for step in steps}

    def end(self) -> None:
        """Bring the session, and a server, to an end."""
        self._end_sessions()
        if self._stage.mode == "listen":
            self._end_server()

    def _end_sessions(self) -> None:
        stage = self._stage
        for connection in [*stage.clients.values(), *self._upstreams()]:
            connection.resume()
        for client in stage.clients.values():
            if not (client.closed or client.ended or client.half_closed):
                client.end_writing()
        process = stage.process
        if process is None:
            raise HarnessError("the transcript never started the process")

        def over() -> bool:
            for upstream in self._upstreams():
                _say_goodbye(upstream)
            return self._looks.sessions_ended() if stage.mode == "listen" else not process.alive

        if not stage.wait_until(over):
            what = "the session" if stage.mode == "listen" else "the process"
            raise StepFailedError(None, f"{what} to end once the transcript has", "it goes on")
        # What was said last may still be on its way through the kernel.
        stage.loop.turn(0)
        over()

    def _upstreams(self) -> list[Connection]:
        stage = self._stage
        return [*stage.retired, *stage.upstreams.values(), *stage.listener.arrived]

    def _end_server(self) -> None:
        process = self._stage.process
        assert process is not None
        if not process.alive:
            return
        process.send("SIGTERM")
        if not self._stage.wait_until(lambda: not process.alive):
            raise StepFailedError(None, "SIGTERM to end the server", "it goes on")
        if process.status != 0 and not self._looks.signalled:
            state = self._looks.process_state()
            raise StepFailedError(None, "exit status 0 after SIGTERM", state)

    def judge_end(self) -> None:
        """The process: how it died, and what it left."""
        process = self._stage.process
        assert process is not None
        if process.status is not None and process.status < 0 and not self._looks.signalled:
            state = self._looks.process_state()
            raise StepFailedError(None, "no death by a signal nobody sent", state)
        if left := still_left(self._stage, lambda: processes(self._stage)):
            raise StepFailedError(None, "no descendant to survive the process", ", ".join(left))
        if left := still_left(self._stage, lambda: files(self._stage)):
            raise StepFailedError(None, "an empty temp directory in the end", ", ".join(left))

    def judge_the_unawaited(self) -> None:
        """Everything was awaited by a step: octets, connections, runs of the filter."""
        stage = self._stage
        for connection in [*stage.clients.values(), *self._upstreams()]:
            if connection.received and not connection.closed:
                got = shorten(visible(bytes(connection.received)), _SHOWN)
                raise StepFailedError(None, f"nothing more from {connection.name}<", got)
        if stage.listener.arrived:
            got = f"{len(stage.listener.arrived)} more"
            raise StepFailedError(None, "no more connections upstream", got)
        if self._verbs & {"run", "none"} and stage.filter.new_runs:
            got = f"{len(stage.filter.new_runs)} more"
            raise StepFailedError(None, "no more runs of the filter", got)

    def judge_output(self) -> None:
        """Nothing on the SMTP channel's descriptor 2, no traceback anywhere."""
        stage = self._stage
        said = {name: stage.output(name) for name in ("stdout", "stderr")}
        if stage.mode != "command" and "stderr" not in self._verbs and said["stderr"]:
            expected = "nothing on file descriptor 2 (it is the SMTP channel)"
            raise StepFailedError(None, expected, shorten(visible(said["stderr"]), _SHOWN))
        said["syslog"] = b"\n".join(stage.syslog.messages) if stage.syslog else b""
        for name, text in said.items():
            if b"Traceback" in text:
                raise StepFailedError(None, f"no traceback on {name}", visible(text[-_SHOWN:]))


def _say_goodbye(upstream: Connection) -> None:
    """After the script, QUIT is answered and an end is an end: that much is always permitted."""
    if not upstream.closed and bytes(upstream.received).upper() == b"QUIT\r\n":
        upstream.take(len(upstream.received))
        upstream.send(b"221 2.0.0 bye\r\n")
        upstream.end_writing()
