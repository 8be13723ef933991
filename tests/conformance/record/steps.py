"""Converts the events of a session to the steps of a transcript, in the observed order.

Rule: an event that was observed before octets were relayed precedes them, because they cannot be
its cause. In a replay, the cause of every `<` step therefore precedes it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from ..format.grammar import CRLF
from ..format.nodes import Named, Node, ReplyPattern, Step
from ..format.payload import Part, Payload, Repeat
from ..format.vocabulary import ENVELOPE_VARIABLES
from ..play.filter_stub import FilterRun

#: A read that ends within a line is part of a longer write if it has one of these lengths.
#: Otherwise, it is a fragment. A read that ends with a line is part of a longer write if it is as
#: long as a block.
_PIECE = 1024
_BLOCK = 16384
#: The minimum number of equal lines, or of equal octets in a line, to write as a repeat.
_EQUAL_LINES = 4
_EQUAL_OCTETS = 40
_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)


@dataclass(frozen=True)
class ReplyLine:
    """One line of a reply, without the continuation mark."""

    code: bytes
    text: bytes


Reply = tuple[ReplyLine, ...]


def read_reply(lines: list[bytes]) -> Reply | None:
    """Return the reply in *lines* (without line ends), or None if they are not a reply."""
    found = [_REPLY_LINE.fullmatch(line) for line in lines]
    if not lines or not all(found) or len({one[1] for one in found if one}) != 1:
        return None
    return tuple(ReplyLine(one[1], one[3] or b"") for one in found if one)


def _heading(line: bytes) -> bytes:
    """Return the part of a line that proxies never change."""
    return line.strip().upper()


def _may_go_on(write: bytes) -> bool:
    """Whether the next read from the same peer may be a continuation of *write*."""
    return len(write) >= (_BLOCK if write.endswith(CRLF) else _PIECE)


def _goes_on(line: bytes) -> bool:
    return bool(re.match(rb"[2-5]\d\d-", line))


def _is_shortened(reply: Reply, whole: Reply) -> bool:
    """Whether *reply* equals *whole*, except that lines after the first may be missing."""
    rest = iter(whole)
    return reply[0] == whole[0] and all(line in rest for line in reply)


@dataclass
class _Line:
    """Octets in one direction that are not yet a complete line or reply."""

    partial: bytes = b""
    lines: list[bytes] = field(default_factory=list)


class StepRecorder:
    """Records events and converts them to steps."""

    def __init__(self, filter_said: Iterable[bytes] = ()) -> None:
        self._steps: list[Node] = []
        self._filter_said = filter_said  # lines of the filter's standard error, which may grow
        # Replies to the client's own commands that have not been relayed yet.
        self._upstream_said: list[Reply] = []
        self._client_said: Counter[bytes] = Counter()  # messages not yet received by upstream
        # Upstream connections whose last command did not come from the client.
        self._asks_itself: set[str] = set()
        self._unfinished: dict[str, _Line] = {}
        self._writer = ""  # the actor of the last write
        self._write = b""  # octets that may continue and are not a step yet

    @property
    def steps(self) -> tuple[Node, ...]:
        """Return the script so far."""
        self._end_write()
        return tuple(self._steps)

    # --- events of the real client and the real upstream

    def sent(self, actor: str, octets: bytes) -> None:
        """Record the octets of one read from *actor* as a new or a continued write."""
        if actor == "C":
            self._client_said.update(map(_heading, self._whole_lines("C>", octets)))
        else:
            self._remember_replies(actor, octets)
        if self._writer != actor or not _may_go_on(self._write):
            self._end_write()
        self._writer = actor
        self._write += octets

    def _end_write(self) -> None:
        mark = ">"
        for payload in payload_lines(self._write):
            self._steps.append(Step(self._writer, mark, "", payload))
            mark = "+"
        self._write = b""

    def _remember_replies(self, actor: str, octets: bytes) -> None:
        for lines in self._whole_replies(f"{actor}>", octets):
            reply = read_reply(lines)
            if reply is not None and actor not in self._asks_itself:
                self._upstream_said.append(reply)

    def action(self, actor: str, verb: str) -> None:
        """Record an event of *actor* that has no octets, such as `@eof`."""
        self._add(Step(actor, ">", verb, None))

    # --- observed events of the proxy

    def seen(self, actor: str, octets: bytes) -> None:
        """Record *octets* from the proxy to *actor*."""
        if actor == "C":
            for lines in self._whole_replies("C<", octets):
                self._add_reply(lines)
            return
        lines = []
        for line in self._whole_lines(f"{actor}<", octets):
            self._note_who_asks(actor, _heading(line))
            lines.append(line)
        self._await(actor, b"".join(line + CRLF for line in lines))

    def _note_who_asks(self, actor: str, line: bytes) -> None:
        """Record whether the next reply answers the proxy's own command and is not relayed."""
        if self._client_said[line]:
            self._client_said[line] -= 1
            self._asks_itself.discard(actor)
        else:
            self._asks_itself.add(actor)

    def observed(self, actor: str, verb: str) -> None:
        """Record an event of the proxy that has no octets, such as `@connect` or `@eof`."""
        unfinished = self._unfinished.pop(f"{actor}<", _Line())
        rest = b"".join(line + CRLF for line in unfinished.lines) + unfinished.partial
        self._await(actor, rest)
        self._add(Step(actor, "<", verb, None))

    def _await(self, actor: str, octets: bytes) -> None:
        for payload in payload_lines(octets):
            self._add(Step(actor, "<", "", payload))

    def _whole_lines(self, direction: str, octets: bytes) -> list[bytes]:
        """Yield the lines that are complete with *octets*."""
        unfinished = self._unfinished.setdefault(direction, _Line())
        *lines, unfinished.partial = (unfinished.partial + octets).split(CRLF)
        return lines

    def _whole_replies(self, direction: str, octets: bytes) -> list[list[bytes]]:
        """Yield the replies (or other output) that are complete with *octets*, as lines."""
        unfinished = self._unfinished.setdefault(direction, _Line())
        replies = []
        for line in self._whole_lines(direction, octets):
            unfinished.lines.append(line)
            if not _goes_on(line):
                replies.append(unfinished.lines)
                unfinished.lines = []
        return replies

    def _add_reply(self, lines: list[bytes]) -> None:
        """Add a step that awaits a reply's exact text, or the code of the proxy's own reply."""
        reply = read_reply(lines)
        if reply is None or self._is_passed_on(reply) or self._is_the_filters(lines):
            self._await("C", b"".join(line + CRLF for line in lines))
            return
        self._add(Step("C", "?", "", ReplyPattern((reply[0].code.decode("ascii"),))))

    def _is_passed_on(self, reply: Reply) -> bool:
        """Whether this reply comes from upstream. If so, earlier replies were not relayed."""
        if reply[0].code == b"354":
            return False  # a proxy that stores messages sends its own 354
        for position, said in enumerate(self._upstream_said):
            if _is_shortened(reply, said):
                del self._upstream_said[: position + 1]
                return True
        return False

    def _is_the_filters(self, lines: list[bytes]) -> bool:
        return any(lines in ([said], [b"554 " + said]) for said in self._filter_said)

    # --- events of the filter and the process

    def filter_run(self, run: FilterRun) -> None:
        """Record the filter's start."""
        self._add(Step("F", "<", "run", None))
        for name in ENVELOPE_VARIABLES:
            if name in run.environment:
                value = Payload(_parts(run.environment[name]))
                self._add(Step("F", "<", "env", Named(name, value)))

    def read_email(self, run: FilterRun) -> None:
        """Record the message that the filter received."""
        mark, verb = "<", "email"
        for line in (run.email or b"").splitlines(keepends=True) or [b""]:
            self._add(Step("F", mark, verb, Payload(_parts(line))))
            mark, verb = "+", ""

    def ended(self, status: int) -> None:
        """Record the process's exit."""
        self._add(Step("P", "<", "exit", str(status)))

    def _add(self, step: Step) -> None:
        self._end_write()
        self._steps.append(step)


def payload_lines(octets: bytes) -> list[Payload]:
    """Return *octets* as lines of a transcript, with repeats."""
    *lines, rest = octets.split(CRLF)
    payloads = [payload for _, equal in groupby(lines) for payload in _repeated(list(equal))]
    return [*payloads, Payload(_parts(rest))] if rest else payloads


def _repeated(equal: list[bytes]) -> list[Payload]:
    """Return equal lines as a repeat. The last line is separate and has the implied line end."""
    line, count = equal[0], len(equal)
    if count < _EQUAL_LINES:
        return [Payload(_parts(line), CRLF)] * count
    repeat = Repeat(count - 1, _merged((*_parts(line), CRLF)))
    return [Payload((repeat, *_parts(line)), CRLF)]


def _parts(text: bytes) -> tuple[Part, ...]:
    """Return *text* with long runs of the same octet as repeats."""
    parts: list[Part] = []
    at = 0
    for run in re.finditer(rb"(.)\1{%d,}" % (_EQUAL_OCTETS - 1), text, re.DOTALL):
        parts += [text[at : run.start()], Repeat(len(run[0]), (run[1],))]
        at = run.end()
    return _merged((*parts, text[at:]))


def _merged(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return *parts* without empty ones and with adjacent plain octets joined."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        elif part != b"":
            merged.append(part)
    return tuple(merged)
