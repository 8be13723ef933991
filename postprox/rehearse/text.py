"""A rehearsal as text for a terminal.

Rule: a newcomer understands it, in 80 columns; nothing from a message or a filter reaches the
terminal but printable characters.
"""

from __future__ import annotations

import textwrap
from pathlib import PurePath
from typing import TYPE_CHECKING

from ..core import verdict
from . import dialogue, outcome
from .filterrun import FILLED
from .options import PROGRAM
from .rehearsal import difference

if TYPE_CHECKING:
    from .filterrun import FilterRun
    from .options import Settings
    from .rehearsal import Rehearsal

WIDTH = 80
#: Longer texts are cut in the middle of nowhere; the JSON document has them whole.
_DIFF_LINES = 60
_STDERR_LINES = 20
_STEP_LINES = 3

_BOLD, _RED, _GREEN, _YELLOW, _CYAN = "1", "1;31", "1;32", "1;33", "36"
_HEADLINES = {
    verdict.ACCEPT: ("ACCEPTED", _GREEN),
    verdict.REJECT: ("REJECTED", _RED),
    verdict.REWRITE: ("REWRITTEN", _GREEN),
    verdict.DISCARD: ("DISCARDED", _RED),
    verdict.FAIL_OPEN: ("FILTER FAILED, passed unfiltered", _YELLOW),
    verdict.FAIL: ("FILTER FAILED, refused for now", _YELLOW),
    outcome.ERROR: ("NOT HANDLED, refused for now", _YELLOW),
}
_COUNTED = {
    verdict.ACCEPT: "accepted",
    verdict.REJECT: "rejected",
    verdict.REWRITE: "rewritten",
    verdict.DISCARD: "discarded",
    verdict.FAIL_OPEN: "passed unfiltered as the filter failed",
    verdict.FAIL: "refused for now as the filter failed",
    outcome.ERROR: "refused for now by the proxy",
}
_FATES = {
    verdict.ACCEPT: "Upstream received it exactly as it was sent.",
    verdict.REWRITE: "Upstream received what the filter wrote to OUTFILE.",
    verdict.REJECT: "Upstream did not receive it: not delivered.",
    verdict.DISCARD: (
        "Upstream did not receive it, yet the client believes that it was delivered: "
        "a reply that starts with 2 throws the message away."
    ),
    verdict.FAIL_OPEN: (
        "Now, without -r: upstream received the original, as if there were no filter. "
        "With -r: the client would get a 451, keep the message and try again later."
    ),
    verdict.FAIL: (
        "Now, with -r: not delivered; the client keeps the message and tries again later. "
        "Without -r: upstream would receive the original, as if there were no filter."
    ),
    outcome.ERROR: "Not delivered; the client keeps the message and tries again later.",
}
# The one change that the proxy itself makes (data.no-smuggling in the specification).
_FATES_STUFFED = (
    "Upstream received the original, with one more dot where a bare CR stands before a dot: "
    "some mail servers would take that for the end of the message."
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


class Report:
    """Makes the text, piece by piece.

    colour: whether the terminal takes escape sequences.
    """

    def __init__(self, settings: Settings, *, colour: bool) -> None:
        self._settings = settings
        self._colour = colour
        self._opening: list[dialogue.Event] = []

    def opening(self) -> str:
        """Return what comes first."""
        settings = self._settings
        count = _plural(len(settings.messages), "message goes", "messages go")
        made = (
            ["           (comes with postprox: no lotteries, no tracking in links)"]
            if settings.bundled_filter
            else []
        )
        failing = "is refused with 451 (-r)" if settings.reject else "passes (no -r)"
        return "\n".join(
            (
                f"Rehearsal: {count} through the real proxy; nothing leaves this machine.",
                *_filter_lines(printable(settings.command)),
                *made,
                f"           At most {settings.timeout:g} s; if it fails, the message {failing}.",
                "Client:    speaks as Postfix does to a filter before its queue.",
                "Upstream:  a mail server made for this; it takes everything.",
            )
        )

    def message(self, number: int, rehearsal: Rehearsal) -> str:
        """Return what is to be said about one message."""
        words, colour = _HEADLINES[rehearsal.outcome.verdict]
        name = printable(self._name(rehearsal))
        title = self._painted(_BOLD, f"[{number}/{len(self._settings.messages)}] {name}:")
        subject = printable(rehearsal.mail.subject)
        parts = [
            "",
            f"{title} {self._painted(colour, words)}",
            *([_cut(f"  Subject: {subject}")] if subject else []),
            *_paragraphs("Note", rehearsal.mail.notes),
            "",
            *self._ladder(rehearsal),
            "",
            *_environment(rehearsal),
            *_stderr(rehearsal.run),
            *self._result(rehearsal),
            *_paragraphs("Hint", rehearsal.outcome.hints),
        ]
        return "\n".join(parts)

    def _name(self, rehearsal: Rehearsal) -> str:
        bundled = self._settings.bundled_messages
        return PurePath(rehearsal.mail.name).name if bundled else rehearsal.mail.name

    def closing(self, rehearsals: list[Rehearsal]) -> str:
        """Return what comes last."""
        verdicts = [rehearsal.outcome.verdict for rehearsal in rehearsals]
        counts = (
            f"{verdicts.count(name)} {_COUNTED[name]}"
            for name in outcome.VERDICTS
            if name in verdicts
        )
        total = f"{_plural(len(verdicts), 'message', 'messages')}: {', '.join(counts)}"
        return "\n".join(("", self._painted(_BOLD, total), *_next_steps(self._settings)))

    def _ladder(self, rehearsal: Rehearsal) -> list[str]:
        """Return the dialogue: who says what, and how far it goes."""
        steps = dialogue.merged(rehearsal.events)
        first = next((at for at, step in enumerate(steps) if step.data[:4] == b"MAIL"), 0)
        opening, self._opening = self._opening, steps[:first]
        if not opening:
            lines = [f"{_COLUMNS}    (an arrow from end to end: relayed unchanged)"]
        elif opening == steps[:first]:
            lines = [_COLUMNS, f"{_INDENT}(greeting, EHLO and XFORWARD as before)"]
            steps = steps[first:]
        else:
            lines = [_COLUMNS]
        for step in steps:
            lines += _step(_ARROWS[step.source, step.target], _said(step))
            if step.kind == dialogue.CONTENT and step.target == dialogue.PROXY:
                lines += self._filter_step(rehearsal)
        return lines

    def _filter_step(self, rehearsal: Rehearsal) -> list[str]:
        if rehearsal.run is None:
            return []
        text = _ended(rehearsal.run, rehearsal.outcome.reason)
        return [self._painted(_CYAN, line) for line in _step(_FILTER, text)]

    def _result(self, rehearsal: Rehearsal) -> list[str]:
        name = rehearsal.outcome.verdict
        reply = _shown(rehearsal.reply)
        lines = _paragraph("Failure", rehearsal.outcome.reason)
        lines += _paragraph("Reply", reply)
        fate = _FATES[name]
        received, sent = rehearsal.received, rehearsal.mail.content
        if received is None:
            return lines + _paragraph("Result", fate)
        if received == sent:
            same = " It is the same as what was sent." if name == verdict.REWRITE else ""
            return lines + _paragraph("Result", fate + same)
        if name != verdict.REWRITE:
            fate = _FATES_STUFFED
        return lines + _paragraph("Result", fate) + self._diff(sent, received)

    def _diff(self, sent: bytes, received: bytes) -> list[str]:
        lines = difference(sent, received)
        if lines is None:
            return ["           (too much has changed to be shown)"]
        more = len(lines) - _DIFF_LINES
        return [
            "",
            *(self._diff_line(line) for line in lines[:_DIFF_LINES]),
            *([f"    ... {more} more lines (--json has them)"] if more > 0 else []),
        ]

    def _diff_line(self, line: str) -> str:
        shown = _cut("    " + printable(line.encode("latin-1").decode("utf-8", "backslashreplace")))
        colour = {"+": _GREEN, "-": _RED, "@": _CYAN}.get(line[:1], "")
        return self._painted(colour, shown) if colour else shown

    def _painted(self, colour: str, text: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self._colour else text


def printable(text: str) -> str:
    """Return `text` with an escape for each character that is not printable."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def _filter_lines(command: str) -> list[str]:
    """Return the filter's command; a path in it stays whole, to be copied."""
    return textwrap.wrap(
        command or "(an empty command)",
        WIDTH,
        initial_indent="Filter:    ",
        subsequent_indent=" " * 11,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _shown(octets: bytes) -> str:
    return printable(octets.decode("utf-8", "backslashreplace").removesuffix("\r\n"))


def _said(step: dialogue.Event) -> str:
    if step.kind == dialogue.CONTENT:
        size = len(step.data)
        lines = _plural(step.data.count(b"\r\n"), "line", "lines")
        return f"(the message: {lines}, {size} octets) ."
    if step.kind == dialogue.COMMAND:
        return _shown(step.data)
    first, *others = step.data.removesuffix(b"\r\n").split(b"\r\n")
    text = b", ".join((first[:3] + b" " + first[4:], *(line[4:] for line in others)))
    return _shown(text)


def _step(arrow: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH - len(_INDENT), subsequent_indent="  ") or [""]
    if len(lines) > _STEP_LINES:
        lines = [*lines[:_STEP_LINES], "  ..."]
    return [arrow + lines[0], *(_INDENT + line for line in lines[1:])]


def _ended(run: FilterRun, reason: str) -> str:
    after = "" if run.seconds is None else f" after {_time(run.seconds)}"
    if reason:
        return f"failed{after}: {reason}"
    filled = ", OUTFILE is filled" if run.outfile == FILLED and run.status == 0 else ""
    return f"exit status {run.status} ({_MEANINGS[run.status or 0]}){filled}{after}"


def _time(seconds: float) -> str:
    # The clock of the file system ticks no finer.
    return f"{seconds:.2f} s" if seconds >= 0.01 else "less than 0.01 s"


def _environment(rehearsal: Rehearsal) -> list[str]:
    if rehearsal.run is None:
        return []
    values = rehearsal.run.environment.items()
    lines = [f"    {name:<9}  {_shown(value) or '(blank)'}" for name, value in values]
    return ["  The filter's environment:", *(piece for line in lines for piece in _folded(line))]


def _stderr(run: FilterRun | None) -> list[str]:
    if run is None or not run.stderr.strip():
        return []
    said = run.stderr.decode("utf-8", "backslashreplace").rstrip("\n").split("\n")
    before = len(said) - _STDERR_LINES
    lines = [f"    | {printable(line.removesuffix(chr(13)))}" for line in said[-_STDERR_LINES:]]
    return [
        "  Its standard error:",
        *([f"    ... {before} lines before"] if before > 0 else []),
        *(piece for line in lines for piece in _folded(line)),
    ]


def _folded(line: str) -> list[str]:
    """Break a line that is too long, anywhere: it may be a path, or worth copying."""
    room = WIDTH - 6
    rest = line[WIDTH:]
    pieces = [rest[at : at + room] for at in range(0, len(rest), room)]
    return [line[:WIDTH], *("      " + piece for piece in pieces[:8])]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def _paragraph(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"  {label + ':':<8} ", subsequent_indent=" " * 11
    )


def _paragraphs(label: str, texts: tuple[str, ...]) -> list[str]:
    return [line for text in texts for line in _paragraph(label, text)]


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _next_steps(settings: Settings) -> list[str]:
    """Return what a newcomer may want to do now."""
    if settings.bundled_filter:
        return ["Next: your own filter and message,", f"  {PROGRAM} -c ./your-filter MESSAGE.eml"]
    steps = []
    if settings.bundled_messages:
        steps += ["Next: your own message,", f"  {PROGRAM} -c CMD MESSAGE.eml"]
    else:
        steps.append("Next: another -t, -r, --sender '' (a bounce) and more: see --help")
    program = settings.command.split()[:1]
    if program and "/" in program[0] and not program[0].startswith("/"):
        steps.append(
            f"In master.cf give the full path: {printable(program[0])} is not found there."
        )
    return steps
