"""The log: one printable line, to syslog."""

from __future__ import annotations

import syslog

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprox.core import levels
from postprox.shell import log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text, %s %n 100%", "plain text, %s %n 100%"),
        ("two\nlines", "two\\nlines"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("nul \0", "nul \\x00"),
        ("escape \x1b[31m", "escape \\x1b[31m"),
        ("delete \x7f", "delete \\x7f"),
        ("café", "caf\\xe9"),
        ("𝄞", "\\U0001d11e"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ('it\'s "quoted"', 'it\'s "quoted"'),
    ],
)
def test_what_is_not_printable_ascii_is_escaped(text: str, shown: str) -> None:
    assert log.printable(text) == shown


@given(st.text())
def test_a_line_is_printable_whatever_is_in_it(text: str) -> None:
    assert all(" " <= character <= "~" for character in log.printable(text))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    written: list[tuple[int, str]] = []

    def note(level: int, text: str) -> None:
        written.append((level, text))

    monkeypatch.setattr(syslog, "syslog", note)
    return written


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (levels.ERROR, syslog.LOG_ERR),
        (levels.WARNING, syslog.LOG_WARNING),
        (levels.INFO, syslog.LOG_INFO),
        (levels.DEBUG, syslog.LOG_DEBUG),
    ],
)
def test_levels_are_those_of_syslog(lines: list[tuple[int, str]], level: int, name: int) -> None:
    log.write(level, "text")
    assert lines == [(name, "text")]


def test_a_line_is_harmless_when_it_is_written(lines: list[tuple[int, str]]) -> None:
    log.write(levels.ERROR, "one\ntwo")
    assert lines == [(syslog.LOG_ERR, "one\\ntwo")]


def test_a_long_line_is_cut(lines: list[tuple[int, str]]) -> None:
    log.write(levels.ERROR, "x" * 100_000)
    assert len(lines[0][1]) == 2000


def test_writing_needs_no_syslog_daemon() -> None:
    log.write(levels.DEBUG, "nobody may be listening")
