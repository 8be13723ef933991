"""Plays one transcript against one implementation and says where they differ.

Rule: the script is one totally ordered list; each `<` is a wait-until, so nothing ever sleeps
except where the transcript says @wait or @quiet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from .connections import Connection, unread
from .dialogue import shorten
from .filterbox import FilterRun, group_members
from .format import Either, Include, Named, Node, Note, ReplyPattern, Step, TextTest, walk
from .loader import read_fixture
from .matching import (
    WAIT,
    YES,
    OctetsAwaited,
    ReplyAwaited,
    State,
    Verdict,
    describe,
    no,
    text_fits,
)
from .payload import Payload, visible
from .process import Process, Watchdog, command_line
from .stage import HarnessError, Stage

#: How often something is looked at that cannot announce itself (a file, a process of others).
_LOOK_AGAIN = 0.005
_LOOKED_AT_AGAIN = ("killed", "tmp", "memory", "stdout", "stderr")
#: How long a fragment may take to be read before the next one is sent (see `_keep_apart`).
_FRAGMENT_PATIENCE = 0.1
#: How long descendants and files may outlive the process, for kill and unlink to take effect.
_AFTERMATH = 2.0
_WATCHDOG = 120.0

Look = Callable[[], Verdict]
Group = tuple[Step, ...]


class StepFailedError(Exception):
    """A step (None: something that holds for every transcript) was not as written."""

    def __init__(self, step: Step | None, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.step = step
        self.expected = expected
        self.got = got


def play(stage: Stage) -> None:
    """Run the stage's transcript; StepFailedError says what was not as written."""
    stage.prepare()
    patience = _WATCHDOG * stage.settings.time_scale + stage.patience
    watchdog = Watchdog(stage.kill, patience)
    try:
        engine = Engine(stage)
        engine.start()
        engine.run(stage.transcript.steps)
        engine.finish()
    finally:
        watchdog.close()
        if watchdog.barked:
            raise HarnessError(f"the watchdog had to end the run after {patience:g} s")


def grouped(nodes: tuple[Node, ...]) -> Iterator[Node | Group]:
    """*nodes* without notes, each step together with the `+` lines that go on with it."""
    group: list[Step] = []
    for node in nodes:
        if isinstance(node, Step) and node.mark == "+":
            group.append(node)
            continue
        if group:
            yield tuple(group)
            group = []
        if isinstance(node, Step):
            group = [node]
        elif not isinstance(node, Note):
            yield node
    if group:
        yield tuple(group)


class Engine:
    """One transcript being played."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._loop = stage.loop
        self._steps = walk(stage.transcript.steps)
        self._filter_run: FilterRun | None = None
        self._signalled = False
        self._last_write: Connection | None = None
        self._last_was_fragment = False
        self._lasting: list[tuple[Step, Look]] = []

    @property
    def _process(self) -> Process | None:
        return self._stage.process

    # --- the beginning ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process, and the client unless the transcript says when."""
        stage = self._stage
        says_when = any(step.actor == "C" and step.verb == "@connect" for step in self._steps)
        if stage.mode != "stdio":
            stage.start_command()
        if stage.mode == "listen" and not stage.in_foreground and not stage.header.background:
            self._await_background()
        if stage.mode == "command" or says_when or not any(s.kind == "C" for s in self._steps):
            return
        self._connect(None, "C")

    def _connect(self, step: Step | None, actor: str) -> None:
        stage = self._stage
        if stage.mode == "stdio":
            if self._process is not None:
                raise HarnessError("in stdio mode there is one process, one connection")
            stage.start_session()
            return
        if stage.header.background and self._process is not None and not self._process.alive:
            self._process.follow_to_background()
        if not stage.connect(actor):
            listen = f"{stage.listen[0]}:{stage.listen[1]}"
            raise StepFailedError(
                step, f"a connection to {listen}", f"it is refused; {self._process_state()}"
            )

    def _await_background(self) -> None:
        """The command returns once it serves; what it leaves behind is the server."""
        process = self._process
        assert process is not None
        self._loop.turn_until(lambda: not process.alive, self._stage.patience)
        if process.status != 0 or not process.follow_to_background():
            raise StepFailedError(
                None, "-l to go into the background with exit status 0", self._process_state()
            )

    # --- the script -------------------------------------------------------------------------------

    def run(self, nodes: tuple[Node, ...]) -> None:
        """Play *nodes* in their order."""
        for node in grouped(nodes):
            match node:
                case tuple():
                    self._play(node)
                case Include():
                    self.run(node.steps)
                case Either():
                    self._either(node)

    def _play(self, group: Group) -> None:
        step = group[0]
        if step.observes:
            self._last_write = None
            self._await(step, self._look(group))
        elif step.verb:
            self._last_write = None
            self._act(step)
        else:
            self._write(group)

    def _await(self, step: Step, look: Look) -> None:
        """Turn the loop until *look* decides; *step* failed unless it says yes."""
        extra = self._quiet_time(step)
        pause = _LOOK_AGAIN if step.verb in _LOOKED_AT_AGAIN else extra or 1.0
        verdict = WAIT

        def decided() -> bool:
            nonlocal verdict
            verdict = look()
            return verdict.state is not State.WAIT

        if not self._loop.turn_until(decided, self._stage.patience + extra, pause):
            verdict = no(f"{self._so_far(step)} after {self._stage.patience:g} s")
        if verdict.state is State.NO:
            raise StepFailedError(step, self._expected(step), verdict.got)

    def _either(self, either: Either) -> None:
        branches = [tuple(grouped(branch)) for branch in either.branches]
        looks = [
            self._look(branch[0]) for branch in branches if branch and isinstance(branch[0], tuple)
        ]
        verdicts: list[Verdict] = []

        def decided() -> bool:
            verdicts[:] = _until_yes(looks)
            return verdicts[-1].state is State.YES or all(v.state is State.NO for v in verdicts)

        firsts = [branch[0][0] for branch in branches if branch and isinstance(branch[0], tuple)]
        in_time = self._loop.turn_until(
            decided, self._stage.patience + max(map(self._quiet_time, firsts)), _LOOK_AGAIN
        )
        if in_time and verdicts[-1].state is State.YES:
            self._go_on_with(either, len(verdicts) - 1)
        elif not (in_time and () in branches):
            wanted = " or ".join(self._expected(step) for step in firsts)
            got = " and ".join(
                dict.fromkeys(
                    verdict.got or self._so_far(step)
                    for step, verdict in zip(firsts, verdicts, strict=True)
                )
            )
            raise StepFailedError(firsts[0], wanted, got)

    def _go_on_with(self, either: Either, number: int) -> None:
        """The rest of the branch whose first step, the *number*th there is, was observed."""
        branches = [list(grouped(branch)) for branch in either.branches]
        groups = [branch for branch in branches if branch][number][1:]
        for node in groups:
            if isinstance(node, tuple):
                self._play(node)
            else:
                self.run((node,))

    # --- doing (>) --------------------------------------------------------------------------------

    def _write(self, group: Group) -> None:
        connection = self._connection(group[0])
        fragment = any(
            isinstance(step.argument, Payload) and not step.argument.end for step in group
        )
        if connection is self._last_write and (fragment or self._last_was_fragment):
            self._keep_apart(connection)
        connection.send(self._octets(group))
        self._last_write, self._last_was_fragment = connection, fragment

    def _keep_apart(self, connection: Connection) -> None:
        """Let what was sent be read before more follows, so that the split is seen as written.

        An implementation may have reason not to read on (it waits for the other side): then the
        split is lost, nothing else, so this is bounded and never a failure.
        """
        self._loop.turn_until(
            lambda: connection.sent and not unread(connection.sock), _FRAGMENT_PATIENCE, 0.001
        )

    def _act(self, step: Step) -> None:
        match step.kind, step.verb:
            case "C", "@connect":
                self._connect(step, step.actor)
            case _, "@wait":
                assert isinstance(step.argument, float)
                self._loop.turn_until(lambda: False, self._stage.seconds(step.argument))
            case "U", "@refuse":
                self._stage.listener.refuse()
            case "U", "@listen":
                self._stage.listener.listen()
            case "C" | "U", _:
                self._end(step)
            case "F", _:
                self._stage.filter.open_gate(str(step.argument))
            case _:
                assert self._process is not None
                self._signalled = True
                self._process.send(step.verb)

    def _end(self, step: Step) -> None:
        connection = self._connection(step)
        self._loop.turn_until(lambda: connection.sent, self._stage.patience)
        ways = {
            "@eof": connection.end_writing,
            "@close": connection.close,
            "@reset": connection.reset,
        }
        ways[step.verb]()

    def _connection(self, step: Step) -> Connection:
        """The connection of the step's actor, made or awaited if this is its first step."""
        stage = self._stage
        if step.kind == "C":
            if step.actor not in stage.clients:
                self._connect(step, step.actor)
            return stage.clients[step.actor]
        if step.actor not in stage.upstreams:
            self._await(step, lambda: self._with_process(lambda: self._accept(step.actor)))
        return stage.upstreams[step.actor]

    def _accept(self, actor: str) -> Verdict:
        """Take the next connection that arrived upstream as *actor*'s."""
        stage = self._stage
        if not stage.listener.arrived:
            return WAIT
        if actor in stage.upstreams:
            stage.retired.append(stage.upstreams[actor])
        stage.upstreams[actor] = stage.listener.arrived.popleft()
        return YES

    def _octets(self, group: Group) -> bytes:
        variables = self._stage.variables
        return b"".join(
            step.argument.octets(variables, read_fixture)
            for step in group
            if isinstance(step.argument, Payload)
        )

    # --- observing (<) ----------------------------------------------------------------------------

    def _look(self, group: Group) -> Look:
        """What decides whether the step has been observed."""
        step = group[0]
        match step.kind:
            case "C" | "U":
                return self._look_at_connection(group)
            case "F":
                return self._look_at_filter(group)
            case _:
                return self._look_at_process(step)

    def _with_process(self, look: Look) -> Verdict:
        """*look*, which can only wait as long as there is a process to wait for."""
        verdict = look()
        if verdict.state is State.WAIT and self._process is not None and not self._process.alive:
            # What the process did last may have come in the same moment as its end.
            self._loop.turn(0)
            self._loop.turn(0)
            verdict = look()
            if verdict.state is State.WAIT:
                return no(f"nothing; {self._process_state()}")
        return verdict

    def _look_at_connection(self, group: Group) -> Look:
        step = group[0]
        if step.verb == "@connect":
            return lambda: self._with_process(lambda: self._accept(step.actor))
        if step.verb == "@quiet":
            return self._quiet(step)
        if step.verb == "@eof":
            return lambda: self._on_connection(step, _at_end)
        awaited: OctetsAwaited | ReplyAwaited
        if isinstance(step.argument, ReplyPattern):
            awaited = ReplyAwaited(step.argument)
        else:
            awaited = OctetsAwaited(self._octets(group))
        return lambda: self._on_connection(step, lambda at: _take(at, awaited))

    def _on_connection(self, step: Step, look: Callable[[Connection], Verdict]) -> Verdict:
        """*look* at the connection of the step's actor, once there is one."""
        stage = self._stage
        known = stage.clients if step.kind == "C" else stage.upstreams
        if step.actor in known:
            return look(known[step.actor])
        if step.kind == "C":
            self._connect(step, step.actor)
            return WAIT
        verdict = self._with_process(lambda: self._accept(step.actor))
        return look(known[step.actor]) if verdict.state is State.YES else verdict

    def _quiet(self, step: Step) -> Look:
        until = time.monotonic() + self._quiet_time(step)

        def look() -> Verdict:
            known = self._stage.clients if step.kind == "C" else self._stage.upstreams
            connection = known.get(step.actor)
            if connection is None and self._stage.listener.arrived and step.kind == "U":
                return no("a connection")
            if connection is not None and connection.received:
                return no(describe(connection.received))
            return YES if time.monotonic() >= until else WAIT

        return look

    def _quiet_time(self, step: Step) -> float:
        if step.verb != "@quiet":
            return 0.0
        assert isinstance(step.argument, float)
        return self._stage.seconds(step.argument)

    # --- the filter

    def _look_at_filter(self, group: Group) -> Look:
        step, box = group[0], self._stage.filter

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
                return lambda: self._with_process(arrived)
            case "gate":
                return at_gate
            case "none":
                return self._lasting_look(step, lambda: no("a run") if box.new_runs else YES)
        return lambda: self._on_filter_run(group)

    def _on_filter_run(self, group: Group) -> Verdict:
        step, run = group[0], self._filter_run
        if run is None:
            return no("no run of the filter yet: F< run comes first")
        verdicts: dict[str, Callable[[], Verdict]] = {
            "env": lambda: self._environment(step, run),
            "unset": lambda: _equal(run.environment.get(str(step.argument)), None),
            "email": lambda: _equal(run.email, self._octets(group)),
            "email-mode": lambda: _private(run.email_mode),
            "outfile": lambda: _equal(run.outfile, b""),
            "exit": lambda: _status_verdict(str(step.argument), run.exit_status),
            "killed": lambda: _killed(run),
        }
        return verdicts[step.verb]()

    def _environment(self, step: Step, run: FilterRun) -> Verdict:
        assert isinstance(step.argument, Named)
        wanted = step.argument.value.octets(self._stage.variables, read_fixture)
        return _equal(run.environment.get(step.argument.name), wanted)

    # --- the process

    def _look_at_process(self, step: Step) -> Look:
        match step.verb:
            case "exit":
                return lambda: self._exit(step)
            case "syslog":
                look: Look = lambda: self._with_process(lambda: self._syslog(step))  # noqa: E731
                assert isinstance(step.argument, TextTest)
                return self._lasting_look(step, look) if step.argument.operator == "lacks" else look
            case "tmp":
                return lambda: self._tmp(step)
            case "memory":
                return lambda: self._memory(step)
        return lambda: self._output(step)

    def _exit(self, step: Step) -> Verdict:
        """The process's end; for a server that nobody has told to end, its sessions' end."""
        stage = self._stage
        if stage.mode == "listen" and stage.clients and not self._signalled:
            return YES if self._sessions_ended() else WAIT
        in_both = stage.mode == "listen" and "stdio" in stage.header.modes
        wanted = "any" if in_both else str(step.argument)
        return _status_verdict(wanted, self._process.status if self._process else None)

    def _sessions_ended(self) -> bool:
        """Whether the implementation has closed every connection that the suite has not."""
        open_ones = [
            *self._stage.clients.values(),
            *self._stage.upstreams.values(),
            *self._stage.retired,
        ]
        return all(connection.ended or connection.closed for connection in open_ones)

    def _syslog(self, step: Step) -> Verdict:
        assert isinstance(step.argument, TextTest)
        assert self._stage.syslog is not None
        self._stage.syslog.read()
        messages = self._stage.syslog.messages
        operator, wanted = step.argument.operator, self._wanted(step.argument)
        fitting = [text_fits(operator, wanted, message) for message in messages]
        if operator == "lacks":
            return YES if all(fitting) else no(visible(messages[fitting.index(False)]))
        return YES if any(fitting) else WAIT

    def _wanted(self, test: TextTest) -> bytes:
        if isinstance(test.text, str):
            return test.text.encode()
        return test.text.octets(self._stage.variables, read_fixture)

    def _output(self, step: Step) -> Verdict:
        test = step.argument
        assert isinstance(test, TextTest)
        text = self._stage.output(step.verb)
        over = self._process is not None and not self._process.alive
        if self._stage.mode == "command" and not over:
            return WAIT
        if text_fits(test.operator, self._wanted(test), text):
            return YES
        return no(shorten(visible(text), 2000) or "nothing") if over else WAIT

    def _tmp(self, step: Step) -> Verdict:
        filled = any(self._stage.tmp_seen.iterdir())
        return YES if filled == (step.argument == "filled") else WAIT

    def _memory(self, step: Step) -> Verdict:
        assert isinstance(step.argument, int)
        assert self._process is not None
        peak = self._process.peak_memory()
        return YES if peak < step.argument else no(f"{peak / (1 << 20):.1f}M")

    def _lasting_look(self, step: Step, look: Look) -> Look:
        """*look*, which must hold now and still at the end."""
        self._lasting.append((step, look))
        return look

    # --- the end: what holds for every transcript -------------------------------------------------

    def finish(self) -> None:
        """Bring the session to its end and judge what nobody has to ask for."""
        self._end_sessions()
        if self._stage.mode == "listen":
            self._end_server()
        self._judge_exit()
        self._judge_remains()
        for step, look in self._lasting:
            self._await(step, look)
        self._judge_leftovers()
        self._judge_output()

    def _end_sessions(self) -> None:
        for client in self._stage.clients.values():
            if not (client.closed or client.ended or client.half_closed):
                client.end_writing()
        process = self._process
        if process is None:
            raise HarnessError("the transcript never started the process")

        def over() -> bool:
            for upstream in self._upstreams():
                _say_goodbye(upstream)
            return self._sessions_ended() if self._stage.mode == "listen" else not process.alive

        if not self._loop.turn_until(over, self._stage.patience):
            what = "the session" if self._stage.mode == "listen" else "the process"
            raise StepFailedError(None, f"{what} to end once the transcript has", "it goes on")
        # What was said last may still be on its way through the kernel.
        self._loop.turn(0)
        over()

    def _upstreams(self) -> list[Connection]:
        stage = self._stage
        return [*stage.retired, *stage.upstreams.values(), *stage.listener.arrived]

    def _end_server(self) -> None:
        process = self._process
        assert process is not None
        if not process.alive:
            return
        process.send("SIGTERM")
        if not self._loop.turn_until(lambda: not process.alive, self._stage.patience):
            raise StepFailedError(None, "SIGTERM to end the server", "it goes on")
        if process.status != 0 and not self._signalled:
            raise StepFailedError(None, "exit status 0 after SIGTERM", self._process_state())

    def _judge_exit(self) -> None:
        status = self._process.status if self._process else None
        if status is not None and status < 0 and not self._signalled:
            raise StepFailedError(None, "no death by a signal nobody sent", self._process_state())

    def _judge_remains(self) -> None:
        process = self._process
        assert process is not None
        if not self._loop.turn_until(lambda: not process.orphans(), _AFTERMATH, _LOOK_AGAIN):
            names = ", ".join(command_line(pid) for pid in sorted(process.orphans()))
            raise StepFailedError(None, "no descendant to survive the process", names)
        if self._stage.header.tmp in ("file", "missing"):
            return
        seen = self._stage.tmp_seen
        if not self._loop.turn_until(lambda: not any(seen.iterdir()), _AFTERMATH, _LOOK_AGAIN):
            names = ", ".join(sorted(path.name for path in seen.iterdir()))
            raise StepFailedError(None, "an empty temp directory in the end", names)

    def _judge_leftovers(self) -> None:
        stage = self._stage
        for connection in [*stage.clients.values(), *self._upstreams()]:
            if connection.received and not connection.closed:
                raise StepFailedError(
                    None,
                    f"nothing more from {connection.name}<",
                    shorten(visible(bytes(connection.received)), 2000),
                )
        if stage.listener.arrived:
            raise StepFailedError(
                None, "no more connections upstream", f"{len(stage.listener.arrived)} more"
            )
        asked = any(step.verb in ("run", "none") for step in self._steps)
        if asked and stage.filter.new_runs:
            raise StepFailedError(
                None, "no more runs of the filter", f"{len(stage.filter.new_runs)} more"
            )

    def _judge_output(self) -> None:
        stage = self._stage
        said = {name: stage.output(name) for name in ("stdout", "stderr")}
        asked = any(step.verb == "stderr" for step in self._steps)
        if stage.mode != "command" and not asked and said["stderr"]:
            raise StepFailedError(
                None,
                "nothing on file descriptor 2 (it is the SMTP channel)",
                shorten(visible(said["stderr"]), 2000),
            )
        said["syslog"] = b"\n".join(stage.syslog.messages) if stage.syslog else b""
        for name, text in said.items():
            if b"Traceback" in text:
                raise StepFailedError(None, f"no traceback on {name}", visible(text[-2000:]))

    # --- words for the failure --------------------------------------------------------------------

    def _expected(self, step: Step) -> str:
        text = step.source or step.verb
        if step.verb == "@quiet":
            return f"{step.actor} to stay silent"
        if step.mark == "<" and step.kind in "CU" and not step.verb:
            return shorten(visible(self._octets((step,))), 400)
        return text[text.find(" ") + 1 :] if " " in text else text

    def _so_far(self, step: Step) -> str:
        """What there is of what *step* waited for."""
        connection = {**self._stage.clients, **self._stage.upstreams}.get(step.actor)
        if step.kind in "CU" and connection is not None:
            return describe(connection.received)
        if step.verb == "syslog" and self._stage.syslog is not None:
            return " | ".join(map(visible, self._stage.syslog.messages)) or "nothing in syslog"
        if step.verb == "tmp":
            return ", ".join(path.name for path in self._stage.tmp_seen.iterdir()) or "no file"
        if step.verb == "exit" and step.kind == "P":
            return self._process_state()
        return "nothing"

    def _process_state(self) -> str:
        if self._process is None:
            return "no process yet"
        if self._process.alive:
            return "the process still runs"
        return f"the process has ended with status {self._process.status}"


def _until_yes(looks: list[Look]) -> list[Verdict]:
    """Verdicts of *looks*, in order, none behind the first yes (a yes takes what it observes)."""
    verdicts: list[Verdict] = []
    for look in looks:
        verdicts.append(look())
        if verdicts[-1].state is State.YES:
            break
    return verdicts


def _take(connection: Connection, awaited: OctetsAwaited | ReplyAwaited) -> Verdict:
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


def _say_goodbye(upstream: Connection) -> None:
    """After the script, QUIT is answered and an end is an end: that much is always permitted."""
    if not upstream.closed and bytes(upstream.received).upper() == b"QUIT\r\n":
        upstream.take(len(upstream.received))
        upstream.send(b"221 2.0.0 bye\r\n")
        upstream.end_writing()


def _equal(got: bytes | None, wanted: bytes | None) -> Verdict:
    if got == wanted:
        return YES
    if got is None:
        return no("it is not there")
    return no(f"'{shorten(visible(got), 2000)}'")


def _status_verdict(wanted: str, status: int | None) -> Verdict:
    if status is None:
        return WAIT
    fits = wanted == "any" or (status != 0 if wanted == "nonzero" else str(status) == wanted)
    return YES if fits else no(f"exit {status}" if status >= 0 else f"death by signal {-status}")


def _private(mode: int | None) -> Verdict:
    return YES if mode in (0o600, 0o400) else no("no file" if mode is None else f"mode {mode:04o}")


def _killed(run: FilterRun) -> Verdict:
    if run.exit_status is not None and run.exit_status < 128:
        return no(f"the filter ended by itself with {run.exit_status}")
    return WAIT if group_members(run) else YES
