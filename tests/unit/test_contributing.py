"""Tests of CONTRIBUTING.md's tables, which list the files for frequent questions and changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TABLE = TEXT.partition("| question or change |")[2].partition("\n\n")[0]
ROWS = re.findall(r"^\| (.+) \| (.+) \|$", TABLE, re.MULTILINE)
FOLDERS = ("", "postprox", "postprox/shell", "tests/conformance")


def files(place: str) -> list[Path]:
    """Return the paths of all files mentioned in a table row, and check that they exist."""
    found = []
    for name in re.findall(r"`([\w/.-]+\.(?:py|md|1))`", place):
        paths = [path for folder in FOLDERS if (path := ROOT / folder / name).exists()]
        assert paths, f"missing file: {name}"
        found += paths
    return found


def test_all_table_rows_are_parsed() -> None:
    assert len(ROWS) == 8


@pytest.mark.parametrize(("question", "place"), ROWS)
def test_every_name_in_table_exists_in_its_file(question: str, place: str) -> None:
    text = "".join(path.read_text("utf-8") for path in files(place))
    for name in re.findall(r"`(?:Session\.)?([A-Za-z_]+)`", place):
        assert re.search(rf"\b{name}\b", text), f"{question}: {name} does not exist"
