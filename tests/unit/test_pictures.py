"""Tests that the pictures in docs/ match the code and are legible."""

from __future__ import annotations

import re

import pytest

from docs.draw import DOCS, PICTURES, drawn_from


@pytest.mark.parametrize("name", PICTURES)
def test_picture_source_is_current(name: str) -> None:
    drawn = (DOCS / f"{name}.dot").read_text(encoding="utf-8")
    assert drawn == PICTURES[name](), "outdated picture; run python3 -m docs.draw"


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_generated_from_its_source(name: str) -> None:
    source = (DOCS / f"{name}.dot").read_text(encoding="utf-8")
    drawing = (DOCS / f"{name}.svg").read_text(encoding="utf-8")
    assert drawing.endswith(drawn_from(source)), "outdated picture; run python3 -m docs.draw"


@pytest.mark.parametrize("name", PICTURES)
def test_text_is_legible_in_picture_400_pixels_wide(name: str) -> None:
    drawing = (DOCS / f"{name}.svg").read_text(encoding="utf-8")
    width = re.search(r'viewBox="0\.00 0\.00 ([\d.]+) ', drawing)
    assert width
    sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)"', drawing)]
    assert len(sizes) > 8
    assert min(sizes) * min(1, 400 / float(width[1])) >= 9
