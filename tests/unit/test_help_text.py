"""Tests of the help text that is built from the option table."""

from __future__ import annotations

import importlib

import pytest

from postprox import help_text
from tests.golden import GOLDEN

FILES = {
    "help": "help-postprox.txt",
    "license": "help-postprox-license.txt",
    "version": "help-postprox-version.txt",
}


@pytest.mark.parametrize("name", FILES)
def test_help_text_matches_golden_file(name: str) -> None:
    # The module builds the texts on import. tests/mutation changes the table after that.
    importlib.reload(help_text)
    assert help_text.TEXTS[name] == (GOLDEN / FILES[name]).read_text(encoding="utf-8")


def test_every_informational_option_has_golden_file() -> None:
    assert set(FILES) == set(help_text.TEXTS)
