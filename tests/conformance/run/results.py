"""Writes result files in JSON lines. `report.results` reads them.

Rule: the header comes first and the footer last, and each line is written immediately. A partial
file can therefore be recognised. `results.schema.json` describes the lines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from ..format.requirements import families_of, specification
from ..format.vocabulary import INVARIANT_PREFIX, OUTCOMES, PROPERTY_PREFIX

FORMAT = 4
#: Format 3 lacks the profile. Formats 1 and 2 also lack requirements and the machine. Format 1 has
#: different names for the results of invariants.
READABLE_FORMATS = (1, 2, 3, FORMAT)
#: The version of the transcripts, which does not depend on the runner.
SUITE_VERSION = "2.0"


@dataclass(frozen=True)
class Known:
    """A known divergence from the implementation file."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Control:
    """The outcome of an adapter's control on the same transcript in the same mode."""

    #: The outcome, "passed" or "failed".
    outcome: str
    message: str = ""
    #: The failure report, which has many lines.
    text: str = ""


@dataclass(frozen=True)
class Result:
    """The result of one transcript, property or invariant in one mode."""

    transcript: str
    mode: str
    title: str
    clauses: tuple[str, ...]
    level: str
    outcome: str
    seconds: float = 0.0
    message: str = ""
    divergence: Known | None = None
    #: The failed step, the expectation and the observation. Failures with the same cause are
    #: printed once.
    cause: str = ""
    #: The failure report, which has many lines.
    text: str = ""
    #: The requirements that the transcript cites. The first one is its subject.
    requirements: tuple[str, ...] = ()
    #: The harm of the violated requirement, or else of the subject.
    harm: str = ""
    #: The violated requirement and its sentence, or "".
    requirement: str = ""
    sentence: str = ""
    #: None without an adapter, or if the control did not run.
    control: Control | None = None

    @property
    def name(self) -> str:
        """The transcript with its mode."""
        return f"{self.transcript}::{self.mode}"

    @property
    def is_property(self) -> bool:
        """Whether this is the result of a property of random sessions."""
        return self.transcript.startswith(PROPERTY_PREFIX)

    @property
    def is_invariant(self) -> bool:
        """Whether this is the result of an invariant."""
        return self.transcript.startswith(INVARIANT_PREFIX)

    @property
    def is_transcript(self) -> bool:
        """Whether this is the result of a transcript."""
        return not (self.is_property or self.is_invariant)


def basis(cited: tuple[str, ...], broken: str = "") -> dict[str, Any]:
    """Return the result fields that follow from the requirements *cited*.

    A miss counts only against the *broken* requirement.
    """
    known = specification().requirements
    decisive = known[broken or cited[0]]
    judged = (decisive,) if broken else tuple(known[one] for one in cited)
    return {
        "clauses": families_of(judged),
        "level": decisive.level,
        "requirements": cited,
        "harm": decisive.harm,
        "requirement": broken,
        "sentence": decisive.sentence if broken else "",
    }


@dataclass
class ResultFile:
    """A result file, which is written line by line."""

    path: Path
    _file: IO[str] | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def begin(self, facts: Mapping[str, object]) -> None:
        """Write the header, with *facts* about the run."""
        self._file = self.path.open("w", encoding="utf-8")
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self._line({"type": "header", "format": FORMAT, "started": started, **facts})

    def add(self, result: Result) -> None:
        """Write one result."""
        self.counts[result.outcome] += 1
        self._line({"type": "result", **asdict(result)})

    def end(self, exit_status: int, stopped: str = "") -> None:
        """Write the footer. *stopped* is the reason if the run ended early."""
        counts = {outcome: self.counts[outcome] for outcome in OUTCOMES}
        end = {"exit_status": exit_status, "stopped": stopped}
        self._line({"type": "footer", **counts, **end})
        if self._file is not None:
            self._file.close()
            self._file = None

    def _line(self, record: dict[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
