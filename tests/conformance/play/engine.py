"""The engine, which runs one transcript against one implementation.

Rule: the script is an ordered list of steps. Each `<` step waits for an event, so the engine sleeps
only for @wait and @quiet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..format.nodes import Either, Group, Include, Node, Step, grouped, walk
from ..format.payload import Payload
from .connections import Connection, Fragment
from .harness import Harness, HarnessError
from .invariants import InvariantChecker, Observed
from .matching import WAIT, State, Verdict, no
from .observers import Observer, Observers, StepFailedError
from .process import Watchdog

#: The interval in seconds between checks of a state that causes no event, such as a file's state.
_LOOK_AGAIN = 0.005
_LOOKED_AT_AGAIN = ("killed", "tmp", "memory", "idle", "listens", "stdout", "stderr")
#: The interval in seconds between checks whether the peer has read a fragment.
_ASK_AGAIN = 0.001
_WATCHDOG = 120.0


def play(harness: Harness) -> list[Observed]:
    """Run the harness's transcript. StepFailedError contains the failed step.

    Return the observations of invariants, which are evaluated independently of the transcript.
    """
    harness.prepare()
    timeout = _WATCHDOG * harness.settings.time_scale + harness.timeout
    watchdog = Watchdog(harness.kill, timeout)
    try:
        engine = Engine(harness)
        engine.start()
        engine.run(harness.transcript.steps)
        return engine.finish()
    finally:
        watchdog.close()
        if watchdog.barked:
            raise HarnessError(f"the watchdog killed the run after {timeout:g} s")


@dataclass(frozen=True)
class LateAnswer:
    """A command that can arrive after @quiet was selected, and the replies to it."""

    command: Step
    look: Observer
    answers: tuple[Group, ...]


class Engine:
    """The state of a running transcript."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._loop = harness.loop
        self._steps = walk(harness.transcript.steps)
        self._observers = Observers(harness, self._connect)
        self._invariants = InvariantChecker(harness, self._observers, self._steps)
        self._last_write: Connection | None = None
        self._last_was_fragment = False
        self._late: list[LateAnswer] = []

    # --- start and end ----------------------------------------------------------------

    def start(self) -> None:
        """Start the process, and connect the client unless the transcript has a step for that."""
        harness = self._harness
        says_when = any(step.actor == "C" and step.verb == "@connect" for step in self._steps)
        if harness.mode == "command":
            harness.start_command()
            return
        first = next(iter(self._steps), None)  # not executed if this fails
        if harness.mode == "listen" and not harness.start_server():
            state = self._observers.process_state()
            raise StepFailedError(first, "-l to go into the background with exit status 0", state)
        if not says_when and any(step.kind == "C" for step in self._steps):
            self._connect(first, "C")

    def _connect(self, step: Step | None, actor: str) -> None:
        """Open the client connection that *step* requires."""
        harness = self._harness
        if harness.mode == "stdio":
            if harness.process is not None:
                raise HarnessError("in stdio mode, a process has only one connection")
            harness.start_session()
            return
        if harness.header.background and harness.process is not None and not harness.process.alive:
            harness.process.follow_to_background()
        if not harness.connect(actor):
            listen = f"{harness.listen[0]}:{harness.listen[1]}"
            state = self._observers.process_state()
            raise StepFailedError(step, f"a connection to {listen}", f"connection refused; {state}")

    def finish(self) -> list[Observed]:
        """End the session and check the rules that apply to every transcript."""
        self._invariants.end(self._answer_late)
        self._invariants.judge_end()
        for step, look in self._observers.lasting:
            self._await(step, look)
        self._invariants.judge_the_unawaited()
        self._invariants.judge_output()
        return self._invariants.observed

    # --- the script -------------------------------------------------------------------------------

    def run(self, nodes: tuple[Node, ...]) -> None:
        """Execute *nodes* in order."""
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
        if not step.observes:
            self._late = []
        if step.observes:
            self._last_write = None
            self._await(step, self._observers.look(group))
        elif step.verb:
            self._last_write = None
            self._act(step)
        else:
            self._write(group)

    def _await(self, step: Step, look: Observer) -> None:
        """Run the loop until *look* returns a verdict. Raise an error if it is negative."""
        extra = self._observers.quiet_time(step)
        pause = _LOOK_AGAIN if step.verb in _LOOKED_AT_AGAIN else extra or 1.0
        verdict = WAIT
        self._keep_late_without((step,))

        def decided() -> bool:
            nonlocal verdict
            self._answer_late()
            verdict = look()
            return verdict.state is not State.WAIT

        waited = f"(waited {self._harness.timeout:g} s)"
        if not self._harness.wait_until(decided, extra, pause):
            verdict = no(f"{self._observers.so_far(step)} {waited}")
        if verdict.state is State.NO:
            raise StepFailedError(step, self._observers.expected(step), verdict.got)

    def _either(self, either: Either) -> None:
        branches = [tuple(grouped(branch)) for branch in either.branches]
        looks = [
            self._observers.look(branch[0])
            for branch in branches
            if branch and isinstance(branch[0], tuple)
        ]
        verdicts: list[Verdict] = []
        firsts = [branch[0][0] for branch in branches if branch and isinstance(branch[0], tuple)]
        self._keep_late_without(firsts)

        def decided() -> bool:
            self._answer_late()
            verdicts[:] = _until_yes(looks)
            return verdicts[-1].state is State.YES or all(v.state is State.NO for v in verdicts)

        extra = max(map(self._observers.quiet_time, firsts))
        in_time = self._harness.wait_until(decided, extra, _LOOK_AGAIN)
        if in_time and verdicts[-1].state is State.YES:
            self._go_on_with(either, len(verdicts) - 1)
        elif not (in_time and () in branches):
            wanted = " or ".join(self._observers.expected(step) for step in firsts)
            got = " and ".join(
                dict.fromkeys(
                    verdict.got or self._observers.so_far(step)
                    for step, verdict in zip(firsts, verdicts, strict=True)
                )
            )
            raise StepFailedError(firsts[0], wanted, got)

    def _go_on_with(self, either: Either, number: int) -> None:
        """Execute the rest of branch *number*, whose first step was observed."""
        branches = [list(grouped(branch)) for branch in either.branches]
        branches = [branch for branch in branches if branch]
        chosen, *groups = branches.pop(number)
        if isinstance(chosen, tuple) and chosen[0].verb == "@quiet":
            self._late = [
                LateAnswer(step, self._observers.look((step, *more)), answers)
                for (step, *more), answers in _answered_commands(branches)
                if step.actor == chosen[0].actor
            ]
        for node in groups:
            if isinstance(node, tuple):
                self._play(node)
            else:
                self.run((node,))

    def _keep_late_without(self, steps: Iterable[Step]) -> None:
        """Stop answering late commands on the connections that *steps* observe."""
        observed = {step.actor for step in steps}
        self._late = [one for one in self._late if one.command.actor not in observed]

    def _answer_late(self) -> None:
        """Answer a command of an alternative that lost to @quiet before the command arrived.

        The program waits for the reply, and the script waits for the program.
        """
        for one in self._late:
            if one.look().state is State.YES:
                self._late = []
                for group in one.answers:
                    self._connection(group[0]).send(self._observers.octets(group))
                return

    # --- actions (>)
    # --------------------------------------------------------------------------------

    def _write(self, group: Group) -> None:
        connection = self._connection(group[0])
        fragment = any(
            isinstance(step.argument, Payload) and not step.argument.end for step in group
        )
        if connection is self._last_write and (fragment or self._last_was_fragment):
            read = Fragment(connection)
            self._loop.turn_until(lambda: read.over, self._harness.timeout, _ASK_AGAIN)
        connection.send(self._observers.octets(group))
        self._last_write, self._last_was_fragment = connection, fragment

    def _act(self, step: Step) -> None:
        match step.kind, step.verb:
            case "C", "@connect":
                self._connect(step, step.actor)
            case _, "@wait":
                assert isinstance(step.argument, float)
                self._loop.turn_until(lambda: False, self._harness.seconds(step.argument))
            case "U", "@refuse":
                self._harness.listener.refuse()
            case "U", "@listen":
                self._harness.listener.listen()
            case "C" | "U", "@pause":
                self._connection(step).pause()
            case "C" | "U", "@resume":
                self._connection(step).resume()
            case "C" | "U", _:
                self._end(step)
            case "F", _:
                self._harness.filter.open_gate(str(step.argument))
            case _:
                assert self._harness.process is not None
                self._observers.signalled = True
                self._harness.process.send(step.verb)

    def _end(self, step: Step) -> None:
        connection = self._connection(step)
        # If the suite does not read from a connection, the implementation may also stop reading.
        # Unsent octets are then lost.
        self._loop.turn_until(lambda: connection.sent or connection.paused, self._harness.timeout)
        ways = {
            "@eof": connection.end_writing,
            "@close": connection.close,
            "@reset": connection.reset,
        }
        ways[step.verb]()

    def _connection(self, step: Step) -> Connection:
        """Return the connection of the step's actor. Its first step opens or awaits it."""
        harness = self._harness
        if step.kind == "C":
            if step.actor not in harness.clients:
                self._connect(step, step.actor)
            return harness.clients[step.actor]
        if step.actor not in harness.upstreams:
            self._await(
                step,
                lambda: self._observers.with_process(lambda: self._observers.accept(step.actor)),
            )
        return harness.upstreams[step.actor]


def _answered_commands(
    branches: Iterable[Sequence[Group | Node]],
) -> Iterator[tuple[Group, tuple[Group, ...]]]:
    """Return the alternatives that consist only of an upstream command and its replies."""
    for first, *rest in branches:
        answers = tuple(one for one in rest if isinstance(one, tuple))
        is_command = isinstance(first, tuple) and first[0].kind == "U" and not first[0].verb
        is_answered = all(not one[0].observes and not one[0].verb for one in answers)
        if isinstance(first, tuple) and is_command and is_answered and len(answers) == len(rest):
            yield first, answers


def _until_yes(looks: list[Observer]) -> list[Verdict]:
    """Return the verdicts of *looks* up to the first positive verdict, which consumes its input."""
    verdicts: list[Verdict] = []
    for look in looks:
        verdicts.append(look())
        if verdicts[-1].state is State.YES:
            break
    return verdicts
