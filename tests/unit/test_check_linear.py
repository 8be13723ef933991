"""postprox-check: linear parsing time for hostile text, and limits on the size of units."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postprox.check import postconf, routes, unit, values, xforward
from postprox.check.postconf import UnreadableError
from postprox.check.probe import units

pytestmark = pytest.mark.any_account

#: Processor time in seconds. A quadratic parser takes more than three times as long for each text.
LIMIT = 2.0


def number(text: str) -> object:
    return values.number("message_size_limit", text)


HOSTILE: dict[str, tuple[Callable[[str], object], str]] = {
    "spaces in a setting": (
        lambda text: unit.parse("u", [text], {}),
        f"[Service]\nA=a{' ' * 30_000}b",
    ),
    "spaces before a setting": (
        lambda text: unit.parse("u", [text], {}),
        f"[Service]\n{' ' * 900_000}b",
    ),
    "a long name": (lambda text: unit.parse("u", [text], {}), f"[Service]\n{'a' * 900_000}"),
    "a long header": (lambda text: unit.parse("u", [text], {}), f"[{'a' * 900_000}"),
    "continued lines": (lambda text: unit.parse("u", [text], {}), "\\\n" * 300_000),
    "a long word": (unit.split_words, "a" * 700_000),
    "a long quoted string": (unit.split_words, f"'{'a' * 3_000_000}'"),
    "escaped characters": (unit.split_words, "\\a" * 100_000),
    "quoted strings in a word": (unit.split_words, "''" * 300_000),
    "a long word of master.cf": (postconf.split_words, "a" * 700_000),
    "open braces": (postconf.split_words, "{ " * 300_000),
    "spaces in master.cf": (postconf.split_words, " " * 500_000),
    "zeros before a letter": (number, "0" * 500_000 + "x"),
    "spaces before a letter": (number, " " * 900_000 + "x"),
    "digits": (number, "9" * 900_000),
    "zeros in a time value": (values.seconds, "0" * 500_000 + "x"),
    "zeros in a process limit": (values.process_limit, "0" * 500_000 + "1" * 10),
    "a port": (lambda text: routes.proxy_filter(text, "/"), "1" * 900_000),
    "colons": (lambda text: routes.next_hop(text, "/"), ":" * 900_000),
    "brackets": (lambda text: routes.next_hop(text, "/"), "[" * 900_000),
    "a network": (lambda text: xforward.permits([text], "::1"), "1." * 500_000),
    "an IPv6 network": (lambda text: xforward.permits([text], "::1"), "1:" * 500_000),
    "a command line": (
        lambda text: routes.listening_proxy(unit.Unit("u", ("postprox", text))),
        "-" + "r" * 900_000,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_processed_in_linear_time(name: str) -> None:
    function, text = HOSTILE[name]
    start = time.process_time()
    function(text)
    assert time.process_time() - start < LIMIT


@pytest.mark.parametrize("reference", ["${A}", "$A ", "x${A}"])
def test_variable_expansion_is_bounded(tmp_path: Path, reference: str) -> None:
    (tmp_path / "u.service").write_text(
        f"[Service]\nEnvironment=A={'a' * 30_000}\nExecStart=/p {reference * 5_000}\n"
    )
    with pytest.raises(UnreadableError, match=r"the command line is longer than 32768 characters"):
        units.read_unit(tmp_path / "u.service")


def test_command_line_of_maximum_size_is_parsed() -> None:
    text = f"[Service]\nEnvironment=A={'a' * 15_000}\nExecStart=/p ${{A}} $A\n"
    assert unit.parse("u", [text], {}).words == ("/p", "a" * 15_000, "a" * 15_000)


def test_environment_file_listed_repeatedly_is_parsed_once() -> None:
    text = "[Service]\n" + "EnvironmentFile=/e\nEnvironmentFile=/f\n" * 2_000 + "ExecStart=/p $A"
    files = {"/e": "A=1\n" * 10_000, "/f": "A=2\n" * 10_000}
    start = time.process_time()
    assert unit.parse("u", [text], files).words == ("/p", "2")
    assert time.process_time() - start < LIMIT


@given(st.text(alphabet="ab '\"\\#\n\t=$"))
def test_word_splitter_matches_shlex(text: str) -> None:
    try:
        expected: list[str] | None = shlex.split(text)
    except ValueError:
        expected = None
    try:
        words: list[str] | None = unit.split_words(text)
    except ValueError:
        words = None
    assert words == expected
