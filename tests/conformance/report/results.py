"""The reader of result files (JSON lines, formats 1 to 4).

Rule: a file is read completely, or rejected with an error that contains its name and the line. The
end may be missing, because the results of an interrupted run are useful. `Run.gaps` describes the
missing parts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..format.vocabulary import HARMS, KINDS, LEVELS, OUTCOMES, current_name
from ..run.control import ControlSummary, control_summary
from ..run.results import READABLE_FORMATS, Control, Known, Result
from ..run.verdict import STALE, Verdict, judge


class ResultFileError(ValueError):
    """A result file is invalid. The error message has the form `FILE:LINE: text`."""


@dataclass(frozen=True)
class Run:
    """The contents of one result file, which has the results of one run."""

    source: str
    name: str
    version: str
    argv: tuple[str, ...]
    #: The adapter's control, or "" without an adapter.
    control: str
    suite_version: str
    suite_transcripts: int
    started: datetime
    level: str | None
    modes: tuple[str, ...]
    #: The only source whose requirements were tested, or "" for all.
    by_source: str
    #: The profile whose requirements were tested, or "" in older files.
    profile: str
    #: The machine, Python version, user and time scale, or "" in older files.
    environment: str
    specification_version: str
    results: tuple[Result, ...]
    exit_status: int | None
    gaps: tuple[str, ...]

    @property
    def transcripts(self) -> int:
        """The number of different transcripts with a result."""
        return len({result.transcript for result in self.results if result.is_transcript})

    @property
    def control_summary(self) -> ControlSummary:
        """The outcomes of the adapter's control."""
        return control_summary(self.results)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the results."""
        return judge(self.results, self.suite_transcripts, self.modes, self.by_source, self.profile)


def read_run(path: Path) -> Run:
    """Return the run in the file *path*."""
    try:
        octets = path.read_bytes()
    except OSError as error:
        raise ResultFileError(f"{path}: {error.strerror}") from error
    return parse_run(octets, str(path))


def parse_run(octets: bytes, source: str) -> Run:
    """Parse a result file. Errors contain *source*."""
    records, gaps = _records(octets, source)
    if not records or records[0].text("type") != "header":
        raise ResultFileError(
            f'{source}:1: no header: a result file begins with {{"type": "header", "format": 4, …}}'
        )
    header, body = records[0], records[1:]
    if header.value("format") not in READABLE_FORMATS:
        readable = ", ".join(map(str, READABLE_FORMATS))
        raise header.error(f'"format" must be one of {readable}, not {header.value("format")!r}')
    footer = body.pop() if body and body[-1].text("type") == "footer" else None
    results = _results(body)
    return _run(header, results, footer, (*gaps, *_footer_gaps(footer, results)))


def visible(text: str) -> str:
    """Return *text* with invisible characters (controls, surrogates, direction marks) escaped."""
    return "".join(
        char
        if char.isprintable() or char in "\n\t"
        else char.encode("ascii", "backslashreplace").decode()
        if ord(char) > 0x7F
        else f"\\x{ord(char):02x}"
        for char in text
    )


@dataclass(frozen=True)
class _Record:
    """One line of the file. Each method returns a key's value and checks its type."""

    source: str
    line: int
    fields: dict[str, object]

    def error(self, text: str) -> ResultFileError:
        return ResultFileError(f"{self.source}:{self.line}: {text}")

    def value(self, key: str) -> object:
        if key not in self.fields:
            raise self.error(f'"{key}" is missing')
        return self.fields[key]

    def text(self, key: str) -> str:
        value = self.value(key)
        if not isinstance(value, str):
            raise self.error(f'"{key}" must be a string, not {value!r}')
        return visible(value)

    def text_or_none(self, key: str) -> str | None:
        return None if self.value(key) is None else self.text(key)

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise self.error(f'"{key}" must be one of {", ".join(choices)}, not {value!r}')
        return value

    def count(self, key: str) -> int:
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f'"{key}" must be a non-negative integer, not {value!r}')
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.value(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(f'"{key}" must be a list of strings, not {value!r}')
        return tuple(visible(item) for item in value)

    def record(self, key: str) -> _Record:
        value = self.value(key)
        if not isinstance(value, dict):
            raise self.error(f'"{key}" must be an object, not {value!r}')
        return _Record(self.source, self.line, value)

    def time(self, key: str) -> datetime:
        value = self.text(key)
        try:
            return datetime.fromisoformat(value)
        except ValueError as error:
            raise self.error(f'"{key}" must be an ISO 8601 time, not {value!r}') from error


def _records(octets: bytes, source: str) -> tuple[list[_Record], tuple[str, ...]]:
    """Return a record for every line, and a note if the last line is incomplete."""
    *lines, unfinished = octets.split(b"\n")
    records = [_record(line, source, number) for number, line in enumerate(lines, 1)]
    if not unfinished:
        return records, ()
    try:
        return [*records, _record(unfinished, source, len(lines) + 1)], ()
    except ResultFileError:
        if not records:
            raise
        return records, ("the last line is incomplete",)


def _record(line: bytes, source: str, number: int) -> _Record:
    where = f"{source}:{number}"
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ResultFileError(f"{where}: not UTF-8 (octet {error.start + 1})") from error
    except (ValueError, RecursionError) as error:
        raise ResultFileError(f"{where}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ResultFileError(f"{where}: each line must be a JSON object")
    return _Record(source, number, fields)


def _results(records: Iterable[_Record]) -> tuple[Result, ...]:
    first_seen: dict[tuple[str, str], int] = {}
    results = []
    for record in records:
        if record.text("type") != "result":
            raise record.error(
                f'"type" must be "result" between the header (first line) and the footer '
                f"(last line), not {record.text('type')!r}"
            )
        result = _result(record)
        earlier = first_seen.setdefault((result.transcript, result.mode), record.line)
        if earlier != record.line:
            raise record.error(
                f"duplicate result for {result.transcript} in mode {result.mode}; the "
                f"first is on line {earlier}"
            )
        results.append(result)
    return tuple(results)


def _result(record: _Record) -> Result:
    divergence = None
    if record.value("divergence") is not None:
        known = record.record("divergence")
        divergence = Known(known.one_of("kind", KINDS), known.text("reason"))
    return Result(
        transcript=current_name(record.text("transcript")),
        mode=record.text("mode"),
        title=record.text("title"),
        clauses=record.texts("clauses"),
        level=record.one_of("level", LEVELS),
        outcome=record.one_of("outcome", OUTCOMES),
        message=(record.text_or_none("message") or "").strip("\n"),
        divergence=divergence,
        cause=record.text("cause") if "cause" in record.fields else "",
        text=record.text("text") if "text" in record.fields else "",
        control=_control(record),
        **(_of_format_3(record) if "requirements" in record.fields else {}),
    )


def _control(record: _Record) -> Control | None:
    """Return the control's outcome, or None without an adapter."""
    if record.fields.get("control") is None:
        return None
    control = record.record("control")
    outcome = control.one_of("outcome", ("passed", "failed"))
    return Control(outcome, control.text("message"), control.text("text"))


def _control_name(header: _Record) -> str:
    if header.fields.get("control") is None:
        return ""
    control = header.record("control")
    return f"{control.text('name')} {control.text('version')} behind the same adapter"


def _of_format_3(record: _Record) -> dict[str, Any]:
    return {
        "requirements": record.texts("requirements"),
        "harm": record.one_of("harm", ("", *HARMS)),
        "requirement": record.text("requirement"),
        "sentence": record.text("sentence"),
    }


def _footer_gaps(footer: _Record | None, results: tuple[Result, ...]) -> tuple[str, ...]:
    if footer is None:
        return ("missing footer; the run did not finish",)
    there = Counter(result.outcome for result in results)
    # The footers of older files lack this outcome.
    counted = [one for one in OUTCOMES if one != STALE or one in footer.fields]
    stopped = footer.text("stopped") if "stopped" in footer.fields else ""
    return ((stopped,) if stopped else ()) + tuple(
        f"the footer counts {footer.count(outcome)} {outcome}, but the file has {there[outcome]}"
        for outcome in counted
        if footer.count(outcome) != there[outcome]
    )


def _environment(header: _Record) -> str:
    machine = header.record("machine")
    return ", ".join(
        (
            machine.text("system"),
            f"{machine.count('processors')} processors",
            f"Python {header.text('python')}",
            "root" if header.value("root") else "not root",
            f"time scale {header.value('time_scale')}",
        )
    )


def _run(
    header: _Record, results: tuple[Result, ...], footer: _Record | None, gaps: tuple[str, ...]
) -> Run:
    implementation, suite = header.record("implementation"), header.record("suite")
    return Run(
        source=header.source,
        name=implementation.text("name"),
        version=implementation.text_or_none("version") or "",
        argv=implementation.texts("argv"),
        control=_control_name(header),
        suite_version=suite.text("version"),
        suite_transcripts=suite.count("transcripts"),
        started=header.time("started"),
        level=header.text_or_none("level"),
        modes=header.texts("modes"),
        by_source=header.text("source") if "source" in header.fields else "",
        profile=header.text("profile") if "profile" in header.fields else "",
        environment=_environment(header) if "machine" in header.fields else "",
        specification_version=suite.text("specification")
        if "specification" in suite.fields
        else "",
        results=results,
        exit_status=footer.count("exit_status") if footer else None,
        gaps=gaps,
    )
