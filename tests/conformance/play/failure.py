"""Formats a failure report, with the failed step marked in the transcript and all observations.

Rule: this module formats the harness's records as plain text and makes no decisions.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from ..format.nodes import Either, Include, Node, Note, Step, walk
from ..format.payload import visible
from ..format.requirements import Requirement, specification
from ..format.vocabulary import FILTER_VARIABLES
from ..format.writer import write_step
from .dialogue import shorten
from .harness import Harness
from .matching import EARLIER_END
from .observers import StepFailedError

_MARK = ">>> "
_BLANK = "    "
_SHOWN_FILE = 800


#: Matches values that differ in every run: addresses, the directory and waiting times.
_OF_THE_RUN = re.compile(
    r"127\.\d+\.\d+\.\d+:\d+|\[::1\]:\d+|/tmp/postprox-suite-\w+|\(waited [\d.]+ s\)"
)


@dataclass(frozen=True)
class Failure:
    """The report of one failed run."""

    #: One line that contains the transcript, the step, the expectation and the observation.
    summary: str
    #: The full report.
    text: str
    #: The part that is equal for failures with the same cause.
    cause: str
    #: The identifier of the violated requirement.
    requirement: str


def failure_of(harness: Harness, error: StepFailedError) -> Failure:
    """Return the report of *error*."""
    broken = _broken(harness, error)
    sections = [stated(broken), *_sections(harness, error)]
    return Failure(_summary(harness, error), "\n".join(sections), _cause(error), broken.id)


def _broken(harness: Harness, error: StepFailedError) -> Requirement:
    """Return the violated requirement.

    A wrong exit status, a 2yz reply, or content that another server could read as several messages
    violates the cited requirement for that observation. A program that relays STARTTLS or a similar
    command violates the requirement for that command, because everything after it is different.
    An observation violates a requirement only if it can, see `is_observed_by` and `can_violate`.
    Otherwise, the failure violates the next cited requirement that it can violate, if there is one.
    """
    known = specification().requirements
    if error.requirement:
        return known[error.requirement]
    requirements = harness.transcript.requirements
    if (first := requirements[0].id) not in _RECOGNITION:
        relayed = _relayed_command(harness)
        if relayed and any(one.family == _REFUSED for one in requirements):
            return known[relayed]
    about = next((one for one in requirements if _is_about(one, harness, error)), None)
    if about is None and error.step is not None:
        about = next((one for one in requirements if _shows(error.step.kind, one, error.got)), None)
    return about or known[first]


def _shows(kind: str, requirement: Requirement, got: str) -> bool:
    """Whether a failed step of this *kind*, which observed *got*, can violate *requirement*."""
    if not is_observed_by(kind, requirement):
        return False
    return kind != "C" or can_violate(requirement, got)


_REFUSED = "relay.refused"
#: The requirements that prohibit relaying a command, by the command.
_RELAYED = {
    b"STARTTLS": f"{_REFUSED}-1",
    b"BDAT": f"{_REFUSED}-2",
    b"BURL": f"{_REFUSED}-3",
    b"XCLIENT": f"{_REFUSED}-4",
    b"XEXCH50": f"{_REFUSED}-5",
}
#: The requirements that such a command violates in another spelling.
_RECOGNITION = (f"{_REFUSED}-6", f"{_REFUSED}-7")


def _relayed_command(harness: Harness) -> str:
    """Return the requirement that prohibits a command that the program has relayed, or ""."""
    words = [line.split(maxsplit=1) for line in harness.dialogue.octets_of("U<").splitlines()]
    found = (_RELAYED.get(word[0].upper()) for word in words if word)
    return next((requirement for requirement in found if requirement), "")


#: The kinds of steps that observe what a group or family of requirements, or one requirement, is
#: about: the log, the exit status and the spool directory (`P`), or the filter's environment (`F`).
_OBSERVED_BY = {
    "log": "P",
    "cli.exit": "P",
    "files.gone": "P",
    "files.private": "P",
    "filter.env": "F",
    "relay.bad-reply-9": "P",
    "data.spool-error-7": "P",
}


def is_observed_by(kind: str, requirement: Requirement) -> bool:
    """Whether a step of this *kind* (`C`, `U`, `P` or `F`) observes what *requirement* is about."""
    return all(
        kind == only
        for about, only in _OBSERVED_BY.items()
        if requirement.id == about or requirement.id.startswith((f"{about}.", f"{about}-"))
    )


def is_silence(got: str) -> bool:
    """Whether the program sent nothing that the failed step waited for."""
    return got == "@eof" or got.startswith("nothing")


def is_prohibition(requirement: Requirement) -> bool:
    """Whether *requirement* contains MUST NOT or SHOULD NOT."""
    return " NOT " in requirement.sentence


#: The beginning of a prohibited delay, after NOT.
_DELAY = "delay "
#: A reply code, or the class of one, in a requirement.
_CODE = re.compile(r"\b([2-5])(\d\d|yz)\b")


def can_violate(requirement: Requirement, got: str) -> bool:
    """Whether *got*, which the client observed, can violate *requirement*.

    A prohibition can be violated only by octets, and one that names reply codes only by these.
    Only silence can violate the prohibition of a delay.
    """
    _, _, prohibited = requirement.sentence.partition(" NOT ")
    if not is_prohibition(requirement):
        return True
    if prohibited.startswith(_DELAY):
        return is_silence(got) and got != "@eof"
    if is_silence(got):
        return False
    if requirement.family == "relay.bad-reply":  # its codes are those of valid replies
        return True
    codes = [first + ("" if rest == "yz" else rest) for first, rest in _CODE.findall(prohibited)]
    return got.startswith(tuple(codes)) if codes else True


def _is_about(requirement: Requirement, harness: Harness, error: StepFailedError) -> bool:
    """Whether the observation in *error* violates *requirement* itself."""
    step = (error.step.kind, error.step.verb) if error.step is not None else ("", "")
    if step == ("P", "exit"):
        ended = harness.process is not None and harness.process.status is not None
        return ended and states_exit_status(requirement)
    if step == ("C", "@no-2yz"):
        return "2yz" in requirement.sentence
    return EARLIER_END in error.got and requirement.family == "data.no-smuggling"


def states_exit_status(requirement: Requirement) -> bool:
    """Whether *requirement* specifies an exit status."""
    return requirement.family == "cli.exit" or "exit status" in requirement.sentence


def stated(requirement: Requirement) -> str:
    """Return the sentence of *requirement* with its identifier and harm."""
    harm = f"harm: {requirement.harm}" if requirement.harm else "permitted"
    return f"{requirement.sentence} ({requirement.id}, {harm})"


def _cause(error: StepFailedError) -> str:
    step = error.step.source or write_step(error.step) if error.step else "after the last step"
    return " ".join(_OF_THE_RUN.sub("", f"{step}: {error}").split())


def _sections(harness: Harness, error: StepFailedError) -> list[str]:
    header = harness.header
    return [
        _summary(harness, error),
        header.title,
        "",
        *_script(harness, error),
        "",
        *_said(harness),
        *_filter(harness),
        *_files(harness),
        *_syslog(harness),
        *_process(harness),
    ]


def _summary(harness: Harness, error: StepFailedError) -> str:
    line = f":{_line(harness.transcript.steps, error.step)}" if error.step else ""
    return f"{harness.transcript.name}{line} [{harness.mode}] {shorten(str(error), 300)}"


def _line(nodes: tuple[Node, ...], failed: Step) -> int:
    """Return the line of the failed step in the transcript, or of the @include that contains it."""
    for node in nodes:
        match node:
            case Either(branches):
                if line := max(_line(branch, failed) for branch in branches):
                    return line
            case Include() | Step():
                if any(step is failed for step in walk((node,))):
                    return node.line
            case Note():
                pass
    return 0


def _script(harness: Harness, error: StepFailedError) -> list[str]:
    lines: list[str] = []
    for text, step in _shown(harness.transcript.steps, "", error.step):
        marked = error.step is not None and step is error.step
        lines.append((_MARK if marked else _BLANK) + text)
        if marked:
            lines += _difference(error)
    if error.step is None:
        lines += [f"{_MARK}(after the last step)", *_difference(error)]
    return lines


def _difference(error: StepFailedError) -> list[str]:
    return [f"{_BLANK}        expected: {error.expected}", f"{_BLANK}        got:      {error.got}"]


def _shown(
    nodes: tuple[Node, ...], indent: str, failed: Step | None
) -> list[tuple[str, Step | None]]:
    """Yield each line of the script with its step. Expand only the include that has failed."""
    lines: list[tuple[str, Step | None]] = []
    for node in nodes:
        match node:
            case Note(text):
                lines.append((indent + text, None))
            case Step():
                lines.append((indent + shorten(node.source or write_step(node)), node))
            case Include(name):
                lines.append((f"{indent}@include {name}", None))
                if any(step is failed for step in walk(node.steps)):
                    lines += _shown(node.steps, indent + "  | ", failed)
            case Either(branches):
                for number, branch in enumerate(branches):
                    lines.append((indent + ("or" if number else "either"), None))
                    lines += _shown(branch, indent, failed)
                lines.append((indent + "end", None))
    return lines


def _said(harness: Harness) -> list[str]:
    return [
        "dialogue (>: sent by the suite, <: sent by the implementation):",
        *(_BLANK + line for line in harness.dialogue.lines()),
    ]


def _filter(harness: Harness) -> list[str]:
    lines = []
    for number, run in enumerate(harness.filter.runs, 1):
        lines.append(f"filter, run {number} (pid {run.pid}):")
        lines += [_shown_variable(name, run.environment.get(name)) for name in FILTER_VARIABLES]
        lines += [
            f"{_BLANK}in EMAIL: {_shown_file(run.email)}",
            f"{_BLANK}in OUTFILE: {_shown_file(run.outfile)}",
        ]
    return lines


def _shown_variable(name: str, value: bytes | None) -> str:
    text = " is not set" if value is None else f"={shorten(visible(value))}"
    return _BLANK + name + text


def _shown_file(content: bytes | None) -> str:
    if not content:
        return "no file" if content is None else "nothing"
    return shorten(visible(content), _SHOWN_FILE)


def _files(harness: Harness) -> list[str]:
    try:
        paths = sorted(harness.tmp_seen.rglob("*"))
    except OSError:
        return []
    return [f"{{tmp}}: {', '.join(path.name for path in paths) or 'empty'}"]


def _syslog(harness: Harness) -> list[str]:
    if harness.syslog is None:
        return ["syslog: not observed (a private /dev/log requires root)"]
    messages = [f"{_BLANK}{visible(message)}" for message in harness.syslog.messages]
    return ["syslog:", *messages] if messages else ["syslog: nothing"]


def _process(harness: Harness) -> list[str]:
    if harness.process is None:
        return ["process: never started"]
    status = harness.process.status
    state = "still running" if status is None else f"exit status {status}"
    lines = [f"process: {shlex.join(harness.arguments())}", f"{_BLANK}{state}"]
    written = {name: harness.output(name) for name in ("stdout", "stderr")}
    shown = [f"{_BLANK}{name}: {_shown_file(text)}" for name, text in written.items() if text]
    return lines + shown
