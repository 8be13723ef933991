"""The writer of result files, which are JSON lines. `report.results` is the reader.

Rule: header first, footer last, each line as soon as it is known. So a partial file is recognisable
as partial.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ..format.vocabulary import INVARIANT_PREFIX, OUTCOMES, PROPERTY_PREFIX

FORMAT = 2
#: Format 1 has other names for the results of invariants. The rest is equal.
READABLE_FORMATS = (1, FORMAT)
#: Version of the transcripts' requirements. A change of the runner does not change it.
SUITE_VERSION = "1.0"


@dataclass(frozen=True)
class Known:
    """A difference that the implementation's description announces."""

    kind: str
    reason: str


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
    #: The failed step, the expectation and the observation. Failures with an equal cause are
    #: printed once.
    cause: str = ""
    #: The failure report, many lines.
    text: str = ""

    @property
    def is_property(self) -> bool:
        """Whether the result is about a property of random sessions."""
        return self.transcript.startswith(PROPERTY_PREFIX)

    @property
    def is_invariant(self) -> bool:
        """Whether the result is about an invariant of all runs."""
        return self.transcript.startswith(INVARIANT_PREFIX)

    @property
    def is_transcript(self) -> bool:
        """Whether the result is about one transcript."""
        return not (self.is_property or self.is_invariant)


@dataclass
class ResultFile:
    """A result file that is written line by line."""

    path: Path
    _file: IO[str] | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def begin(
        self, implementation: dict[str, object], transcripts: int, level: str, modes: Sequence[str]
    ) -> None:
        """Write the header."""
        self._file = self.path.open("w", encoding="utf-8")
        self._line(
            {
                "type": "header",
                "format": FORMAT,
                "implementation": implementation,
                "suite": {"transcripts": transcripts, "version": SUITE_VERSION},
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "level": level,
                "modes": list(modes),
            }
        )

    def add(self, result: Result) -> None:
        """Write one result."""
        self.counts[result.outcome] += 1
        self._line({"type": "result", **asdict(result)})

    def end(self, exit_status: int) -> None:
        """Write the footer."""
        counts = {outcome: self.counts[outcome] for outcome in OUTCOMES}
        self._line({"type": "footer", **counts, "exit_status": exit_status})
        if self._file is not None:
            self._file.close()
            self._file = None

    def _line(self, record: dict[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
