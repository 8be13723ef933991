"""Converts a run to a transcript that can be edited and committed.

Rule: each observation becomes a step that awaits it, in the observed order. For replies with the
implementation's own text, only the code is awaited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..format.grammar import CRLF
from ..format.header import Header
from ..format.nodes import Named, Node, Note, ReplyPattern, Step, Transcript
from ..format.payload import Part, Payload, Repeat
from ..format.vocabulary import ENVELOPE_VARIABLES
from ..format.writer import write_transcript
from ..play.filter_stub import FilterRun
from .model import fates
from .run import Run, Utterance, code

#: The minimum number of equal octets to write as a repeat.
_RUN = re.compile(rb"(.)\1{39,}", re.DOTALL)


def as_transcript(
    run: Run, title: str, requires: tuple[str, ...] = ("relay.order-1",)
) -> Transcript:
    """Return *run* as a transcript."""
    header = Header(
        title,
        requires,
        argv=run.plan.arguments,
        filter=_filter(run) if run.plan.filtering else None,
    )
    return Transcript("found.smtp", header, tuple(_steps(run)))


def written(run: Run, title: str, notes: list[str]) -> str:
    """Return the transcript of *run* as text, with *notes* before the first step."""
    transcript = as_transcript(run, title)
    comments = tuple(Note(f"# {line}".rstrip()) for note in notes for line in note.splitlines())
    return write_transcript(
        Transcript(transcript.name, transcript.header, (*comments, *transcript.steps))
    )


def _filter(run: Run) -> str:
    """Return the verdicts as a shell script. If there are several, a counter selects one."""
    scripts = [
        fate.message.verdict.script for fate in fates(run) if fate.exchange.codes[:1] == [354]
    ] or ["exit 0\n"]
    if len(set(scripts)) == 1:
        return scripts[0]
    branches = "".join(f"{number})\n{script};;\n" for number, script in enumerate(scripts, 1))
    count = 'echo x >>"$suite_tmp/../runs"\ncase $(grep -c x "$suite_tmp/../runs") in\n'
    return f"{count}{branches}esac\n"


def _steps(run: Run) -> Iterator[Node]:
    relayed = {said.octets for said in run.said if said.mark == "U>"}
    first = True
    for said in _one_connection_after_the_other(run.said):
        if said.event == "@connect" and first:
            first = False
        elif said.filter_run is not None:
            yield from _filter_steps(said.filter_run)
        elif said.event:
            yield Step(said.mark[0], said.mark[1], said.event, None)
        elif said.mark == "C<" and said.octets not in relayed:
            yield Step("C", "?", "", ReplyPattern((str(code(said.octets)),)))
        else:
            yield from _octet_steps(said)
    if run.status is not None and not run.trouble:
        yield Step("P", "<", "exit", str(run.status))


def _one_connection_after_the_other(said: list[Utterance]) -> Iterator[Utterance]:
    """Reorder *said* so that each upstream connection ends before the next one begins.

    Observed connections may overlap. In a transcript, the steps of the earlier connection come
    first.
    """
    ahead = list(said)
    while ahead:
        one = ahead.pop(0)
        if one.event == "@connect":
            late = [other for other in ahead if 0 < other.connection < one.connection]
            ahead = [other for other in ahead if other not in late]
            yield from late
        yield one


def _octet_steps(said: Utterance) -> Iterator[Step]:
    actor, mark = said.mark[0], said.mark[1]
    for number, line in enumerate(re.findall(rb".*?\r\n|.+\Z", said.octets, re.DOTALL)):
        joins = number > 0 and mark == ">"
        yield Step(actor, "+" if joins else mark, "", _payload(line))


def _payload(line: bytes) -> Payload:
    end = CRLF if line.endswith(CRLF) else b""
    return Payload(_parts(line.removesuffix(CRLF)), end)


def _parts(octets: bytes) -> tuple[Part, ...]:
    parts: list[Part] = []
    start = 0
    for found in _RUN.finditer(octets):
        parts += [octets[start : found.start()]] if found.start() > start else []
        parts.append(Repeat(len(found[0]), (found[1],)))
        start = found.end()
    return (*parts, octets[start:]) if start < len(octets) else tuple(parts)


def _filter_steps(filter_run: FilterRun) -> Iterator[Step]:
    yield Step("F", "<", "run", None)
    for name in ENVELOPE_VARIABLES:
        value = filter_run.environment.get(name)
        if value is None:
            yield Step("F", "<", "unset", name)
        else:
            yield Step("F", "<", "env", Named(name, Payload(_parts(value))))
    if filter_run.email is not None:
        yield Step("F", "<", "email", Payload(_parts(filter_run.email)))
