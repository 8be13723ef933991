"""The results of a run, and the JSON file in which they are stored.

Rule: the file contains all samples and the conditions of the run. Tables and plots are generated
only from this file.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from .figures import Comparison, Figure, Measured, Point, Series, Way

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Conditions:
    """The place and time of a measurement."""

    python: str
    system: str
    cores: int
    date: str
    commit: str
    #: The load averages over one minute before the run and at its end.
    load: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def here(cls, python: str) -> Self:
        """Return the current conditions on this machine."""
        return cls(
            python=_said([python, "-V"]),
            system=f"{_distribution()}, {platform.system()} {platform.release()}",
            cores=os.cpu_count() or 1,
            date=datetime.now(UTC).strftime("%Y-%m-%d"),
            commit=_said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or "unknown",
            load=(os.getloadavg()[0], 0.0),
        )

    def shown(self) -> str:
        """Return the conditions as a sentence."""
        before, after = self.load
        return (
            f"{self.python}, {self.system}, {self.cores} cores; {self.date}, commit {self.commit}; "
            f"load average {before:.1f} at the beginning, {after:.1f} at the end."
        )


@dataclass
class Results:
    """One run."""

    conditions: Conditions
    figures: list[Figure] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    #: The benchmarks that could not be run here, and the reasons.
    missing: dict[str, str] = field(default_factory=dict)
    #: The benchmarks that failed, and the errors.
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, measured: Measured) -> None:
        """Add the results of a benchmark."""
        match measured:
            case Figure():
                self.figures.append(measured)
            case Series():
                self.series.append(measured)
            case Comparison():
                self.comparisons.append(measured)

    def write(self, path: Path) -> None:
        """Write the results to a file."""
        path.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the results from a file."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        conditions = Conditions(**{**kept["conditions"], "load": tuple(kept["conditions"]["load"])})
        series = [
            Series(**{**each, "points": [Point(**point) for point in each["points"]]})
            for each in kept["series"]
        ]
        comparisons = [
            Comparison(**{**each, "ways": [Way(**way) for way in each["ways"]]})
            for each in kept["comparisons"]
        ]
        figures = [Figure(**each) for each in kept["figures"]]
        return cls(
            conditions, figures, series, comparisons, kept["missing"], kept.get("broken", {})
        )


def _rounded(kept: object) -> object:
    """Round all numbers to five digits, which is the precision of the measurement."""
    if isinstance(kept, dict):
        return {name: _rounded(value) for name, value in kept.items()}
    if isinstance(kept, list | tuple):
        return [_rounded(value) for value in kept]
    return float(f"{kept:.5g}") if isinstance(kept, float) else kept


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _distribution() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "an unknown system")
