"""The report on a rehearsal, as text for a terminal.

Rule: lines fit the width of the terminal. Unprintable characters from a message or filter are
escaped.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from ..core import verdict
from . import dialogue, outcome
from .filterrun import FILLED
from .rehearsal import difference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .filterrun import FilterRun
    from .options import Settings
    from .rehearsal import Rehearsal

#: The maximum number of lines in each part of the report. The JSON document contains the complete
#: texts.
_DIFF_LINES = 60
_STDERR_LINES = 20
_STEP_LINES = 3

BOLD, RED, GREEN, YELLOW, CYAN = "1", "1;31", "1;32", "1;33", "36"
_HEADLINES = {
    verdict.ACCEPT: ("ACCEPTED", GREEN),
    verdict.REJECT: ("REJECTED", RED),
    verdict.REWRITE: ("REWRITTEN", GREEN),
    verdict.DISCARD: ("DISCARDED", RED),
    verdict.FAIL_OPEN: ("FILTER FAILED, passed unfiltered", YELLOW),
    verdict.FAIL: ("FILTER FAILED, refused for now", YELLOW),
    outcome.ERROR: ("NOT HANDLED, refused for now", YELLOW),
}
_FATES = {
    verdict.ACCEPT: "The upstream server received the message unchanged.",
    verdict.REWRITE: "The upstream server received the content of OUTFILE.",
    verdict.REJECT: "The message was not delivered.",
    verdict.DISCARD: (
        "The message was not delivered, but the client got a positive reply. "
        "If the filter's reply starts with 2, the message is discarded."
    ),
    verdict.FAIL_OPEN: (
        "Without -r, as in this run, the upstream server receives the original message. "
        "With -r, the client gets a 451 reply and will send the message again later."
    ),
    verdict.FAIL: (
        "With -r, as in this run, the client gets a 451 reply and will send the message again "
        "later. Without -r, the upstream server receives the original message."
    ),
    outcome.ERROR: "The message was not delivered. The client will send it again later.",
}
# The only change that the proxy itself makes to a message (data.no-smuggling in the
# specification).
_FATES_STUFFED = (
    "The upstream server received the original message with a dot inserted between each bare CR "
    "and the dot that follows it. Without the inserted dot, some mail servers would treat the CR "
    "and the dot as the end of the message."
)
_MEANINGS = ("pass", "reject")
_COLUMNS = "  client   proxy   upstream"
_INDENT = " " * 28
_ARROWS = {
    (dialogue.CLIENT, dialogue.UPSTREAM): "    ------------------->    ",
    (dialogue.UPSTREAM, dialogue.CLIENT): "    <-------------------    ",
    (dialogue.CLIENT, dialogue.PROXY): "    -------->               ",
    (dialogue.PROXY, dialogue.CLIENT): "    <--------               ",
    (dialogue.PROXY, dialogue.UPSTREAM): "              --------->    ",
    (dialogue.UPSTREAM, dialogue.PROXY): "              <---------    ",
}
_FILTER = "          filter            "
#: The beginning of a GitHub workflow command: "::" after whitespace, or "##[" anywhere.
_COMMAND = re.compile(r"^[ \t]*::|##\[", re.MULTILINE)


@dataclass(frozen=True)
class Paper:
    """The width and style of the output."""

    #: The width in columns.
    width: int
    #: True if escape sequences are allowed.
    colour: bool

    def painted(self, colour: str, text: str) -> str:
        """Return `text` with the escape sequences for a colour."""
        return f"\033[{colour}m{text}\033[0m" if self.colour else text

    def paragraph(self, label: str, text: str) -> list[str]:
        """Return a wrapped paragraph with a label."""
        return textwrap.wrap(
            text, self.width, initial_indent=f"  {label + ':':<8} ", subsequent_indent=" " * 11
        )

    def paragraphs(self, label: str, texts: Iterable[str]) -> list[str]:
        """Return the lines of a labelled paragraph for each text."""
        return [line for text in texts for line in self.paragraph(label, text)]

    def folded(self, line: str) -> list[str]:
        """Break a long line at any character, because it may consist of a single path."""
        room = self.width - 6
        rest = line[self.width :]
        pieces = [rest[at : at + room] for at in range(0, len(rest), room)]
        return [line[: self.width], *("      " + piece for piece in pieces[:8])]

    def step(self, arrow: str, text: str) -> list[str]:
        """Return one step of the dialogue."""
        room = self.width - len(_INDENT)
        lines = textwrap.wrap(text, room, subsequent_indent="  ") or [""]
        if len(lines) > _STEP_LINES:
            lines = [*lines[:_STEP_LINES], "  ..."]
        return [arrow + lines[0], *(_INDENT + line for line in lines[1:])]


class Report:
    """The parts of the report.

    total: the number of runs.
    """

    def __init__(self, settings: Settings, total: int, paper: Paper) -> None:
        self._settings = settings
        self._total = total
        self._paper = paper
        self._opening: list[dialogue.Event] = []

    def opening(self) -> str:
        """Return the first lines of the report."""
        settings = self._settings
        count = plural(self._total, "message goes", "messages go")
        made = (
            ["           (sample filter: rejects lottery mail, removes tracking from links)"]
            if settings.bundled_filter
            else []
        )
        why_refused = "--strict" if settings.strict else "-r"
        failing = f"is refused with 451 ({why_refused})" if settings.reject else "passes (no -r)"
        limits = f"Timeout {settings.timeout:g} s. If the filter fails, the message {failing}."
        return "\n".join(
            (
                f"Rehearsal: {count} through the real proxy. Nothing leaves this machine.",
                *_filter_lines(printable(settings.command), self._paper.width),
                *made,
                f"           {limits}",
                "Client:    sends the commands that Postfix sends to a before-queue filter.",
                "Upstream:  a test server on this machine that accepts each message.",
            )
        )

    def message(self, number: int, rehearsal: Rehearsal) -> str:
        """Return the full report on one message."""
        words, colour = _HEADLINES[rehearsal.outcome.verdict]
        name = printable(self._name(rehearsal))
        title = self._paper.painted(BOLD, f"[{number}/{self._total}] {name}:")
        subject = printable(rehearsal.mail.subject)
        parts = [
            "",
            f"{title} {self._paper.painted(colour, words)}",
            *([cut(f"  Subject: {subject}", self._paper.width)] if subject else []),
            *self._paper.paragraphs("Note", rehearsal.mail.notes),
            "",
            *self._ladder(rehearsal),
            "",
            *self._environment(rehearsal),
            *self._stderr(rehearsal.run),
            *self._result(rehearsal),
            *self._paper.paragraphs("Hint", rehearsal.outcome.hints),
        ]
        return "\n".join(parts)

    def _name(self, rehearsal: Rehearsal) -> str:
        bundled = self._settings.bundled_messages
        return PurePath(rehearsal.mail.name).name if bundled else rehearsal.mail.name

    def line(self, number: int, rehearsal: Rehearsal) -> str:
        """Return the one-line report on a message."""
        words, colour = _HEADLINES[rehearsal.outcome.verdict]
        word = self._paper.painted(colour, f"{words.partition(',')[0]:<13}")
        seconds = rehearsal.seconds
        taken = "" if seconds is None else f"{seconds:.2f} s"
        digits = len(str(self._total))
        before = f"[{number:>{digits}}/{self._total}] "
        after = f" {taken:>8}  {printable(self._name(rehearsal))}  {why(rehearsal)}".rstrip()
        return before + word + cut(after, self._paper.width - len(before) - 13)

    def _ladder(self, rehearsal: Rehearsal) -> list[str]:
        """Return the dialogue with an arrow for each step."""
        steps = dialogue.merged(rehearsal.events)
        if not steps:
            return []
        first = next((at for at, step in enumerate(steps) if step.data[:4] == b"MAIL"), 0)
        opening, self._opening = self._opening, steps[:first]
        if not opening:
            lines = [f"{_COLUMNS}    (an arrow across all columns: relayed unchanged)"]
        elif opening == steps[:first]:
            lines = [_COLUMNS, f"{_INDENT}(greeting, EHLO and XFORWARD as before)"]
            steps = steps[first:]
        else:
            lines = [_COLUMNS]
        for step in steps:
            lines += self._paper.step(_ARROWS[step.source, step.target], _said(step))
            if step.kind == dialogue.CONTENT and step.target == dialogue.PROXY:
                lines += self._filter_step(rehearsal)
        return lines

    def _filter_step(self, rehearsal: Rehearsal) -> list[str]:
        if rehearsal.run is None:
            return []
        text = _ended(rehearsal.run, rehearsal.outcome.reason)
        return [self._paper.painted(CYAN, line) for line in self._paper.step(_FILTER, text)]

    def _result(self, rehearsal: Rehearsal) -> list[str]:
        name = rehearsal.outcome.verdict
        reply = shown(rehearsal.reply)
        lines = self._paper.paragraph("Failure", rehearsal.outcome.reason)
        lines += self._paper.paragraph("Reply", reply)
        fate = _FATES[name]
        received, sent = rehearsal.received, rehearsal.mail.content
        if received is None:
            return lines + self._paper.paragraph("Result", fate)
        if received == sent:
            same = " It is identical to the original message." if name == verdict.REWRITE else ""
            return lines + self._paper.paragraph("Result", fate + same)
        if name != verdict.REWRITE:
            fate = _FATES_STUFFED
        return lines + self._paper.paragraph("Result", fate) + self._diff(sent, received)

    def _diff(self, sent: bytes, received: bytes) -> list[str]:
        lines = difference(sent, received)
        if lines is None:
            return ["           (the difference is too large for this report)"]
        more = len(lines) - _DIFF_LINES
        return [
            "",
            *(self._diff_line(line) for line in lines[:_DIFF_LINES]),
            *([f"    ... {more} more lines (use --json to see them)"] if more > 0 else []),
        ]

    def _diff_line(self, line: str) -> str:
        shown = cut(
            "    " + printable(line.encode("latin-1").decode("utf-8", "backslashreplace")),
            self._paper.width,
        )
        colour = {"+": GREEN, "-": RED, "@": CYAN}.get(line[:1], "")
        return self._paper.painted(colour, shown) if colour else shown

    def _environment(self, rehearsal: Rehearsal) -> list[str]:
        if rehearsal.run is None:
            return []
        values = rehearsal.run.environment.items()
        lines = [f"    {name:<14}  {_value(value)}" for name, value in values]
        return [
            "  The filter's environment:",
            *(piece for line in lines for piece in self._paper.folded(line)),
        ]

    def _stderr(self, run: FilterRun | None) -> list[str]:
        if run is None or not run.stderr.strip():
            return []
        output = run.stderr.decode("utf-8", "backslashreplace").rstrip("\n").split("\n")
        before = len(output) - _STDERR_LINES
        lines = [
            f"    | {printable(line.removesuffix(chr(13)))}" for line in output[-_STDERR_LINES:]
        ]
        return [
            "  Its standard error:",
            *([f"    ... {before} earlier lines"] if before > 0 else []),
            *(piece for line in lines for piece in self._paper.folded(line)),
        ]


def _value(octets: bytes) -> str:
    """Return the value of an environment variable. RECIPIENTS contains one address per line."""
    return shown(octets.replace(b"\n", b", ")) or "(blank)"


def why(rehearsal: Rehearsal) -> str:
    """Return the reason for a failure, or the reply that refused the message."""
    if rehearsal.outcome.reason:
        return printable(rehearsal.outcome.reason)
    return "" if rehearsal.received is not None else shown(rehearsal.reply)


def printable(text: str) -> str:
    """Return `text` with each unprintable character escaped."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def without_commands(text: str) -> str:
    """Remove GitHub workflow commands from a text."""
    return _COMMAND.sub(lambda found: f"{found[0][:-1]}\\x{ord(found[0][-1]):02x}", text)


def _filter_lines(command: str, width: int) -> list[str]:
    """Return the filter command, wrapped only between words so that users can copy a path."""
    return textwrap.wrap(
        command or "(an empty command)",
        width,
        initial_indent="Filter:    ",
        subsequent_indent=" " * 11,
        break_long_words=False,
        break_on_hyphens=False,
    )


def shown(octets: bytes) -> str:
    """Return octets as printable characters, without the trailing CRLF."""
    return printable(octets.decode("utf-8", "backslashreplace").removesuffix("\r\n"))


def _said(step: dialogue.Event) -> str:
    if step.kind == dialogue.CONTENT:
        size = len(step.data)
        lines = plural(step.data.count(b"\r\n"), "line", "lines")
        return f"(the message: {lines}, {size} octets) ."
    if step.kind == dialogue.COMMAND:
        return shown(step.data)
    first, *others = step.data.removesuffix(b"\r\n").split(b"\r\n")
    text = b", ".join((first[:3] + b" " + first[4:], *(line[4:] for line in others)))
    return shown(text)


def _ended(run: FilterRun, reason: str) -> str:
    after = "" if run.seconds is None else f" after {time_taken(run.seconds)}"
    if reason:
        return f"failed{after}: {reason}"
    filled = ", OUTFILE is not empty" if run.outfile == FILLED and run.status == 0 else ""
    return f"exit status {run.status} ({_MEANINGS[run.status or 0]}){filled}{after}"


def time_taken(seconds: float) -> str:
    """Format a duration for the report."""
    return f"{seconds:.2f} s" if seconds >= 0.01 else "less than 0.01 s"


def cut(line: str, width: int) -> str:
    """Truncate a line to at most `width` columns."""
    return line if len(line) <= width else line[: width - 3] + "..."


def plural(count: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else many}"
