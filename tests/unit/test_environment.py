"""Tests of the environment file parser, and a comparison with systemd's parser."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postprox.check import environment, unit
from postprox.check.environment import OPTIONS, UPSTREAM

#: systemd parses environment.d(5) like environment files, except that it expands $.
SYSTEMD = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=b c  \nB= 'x y'z\n", {"A": "b c", "B": "x yz"}),
        ('A="a\\"b\\c\\$x"\n', {"A": 'a"b\\c$x'}),
        ("A=x'y z'\n", {"A": "x'y z'"}),
        ("A=\\'x\n", {"A": "'x"}),
        ("A=b\\\nc\n", {"A": "bc"}),
        ("# A=1\n;A=2\n A = 3", {"A": "3"}),
        ("A='x'\t\"y\"\n", {"A": "xy"}),
        ("A=\nB=1", {"A": "", "B": "1"}),
        ("A B=1\n", {}),
        ("=A=1\n", {}),
        ("=\\\nA=1\n", {"A": "1"}),
    ],
)
def test_environment_file_is_parsed(text: str, values: dict[str, str]) -> None:
    assert environment.parse(text).values == values


def values_of_systemd(text: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "environment.d").mkdir()
        Path(directory, "environment.d/1.conf").write_text(text)
        printed = subprocess.run(
            [SYSTEMD],
            env={"XDG_CONFIG_HOME": directory, "PATH": os.defpath},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    # Quoted values contain C escape sequences.
    found = {}
    for line in printed.splitlines():
        name, _, shown = line.partition("=")
        bare = shown[1:-1] if shown.startswith('"') else shown
        found[name] = re.sub(r"\\(.)", lambda e: {"n": "\n", "t": "\t"}.get(e[1], e[1]), bare)
    return found


@pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed")
@settings(max_examples=60)
@given(st.text(alphabet="AB=' \"\\\n\tc", max_size=40))
def test_parsed_values_match_systemd(text: str) -> None:
    text = f"A=1\nB={text}\nC=1"
    # If the last value of a variable is empty, the generator prints an earlier value.
    found = {name: value for name, value in environment.parse(text).values.items() if value}
    expected = values_of_systemd(text)
    assert found == {name: expected.get(name) for name in found}


@given(st.lists(st.text(alphabet="a '\"\\$`%#-", min_size=1), max_size=4))
def test_quoting_and_parsing_preserve_words_in_environment_file(words: list[str]) -> None:
    text = environment.assignment(OPTIONS, environment.joined(words)) + "\n"
    read = unit.parse(
        "u", [f"[Service]\nEnvironmentFile=/e\nExecStart=/p ${OPTIONS} ${UPSTREAM}\n"], {"/e": text}
    )
    assert read.words == ("/p", *words)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{OPTIONS}='-v\n", f"unterminated quote in {OPTIONS}"),
        (f"{UPSTREAM}='a\n{OPTIONS}='-v'\n", f"unterminated quote in {UPSTREAM}"),
        (f"{OPTIONS} -v\n", f"'{OPTIONS} -v' has no equals sign, so systemd ignores it"),
        (f"export {OPTIONS}=-v\n", f"'export {OPTIONS}' is not a variable name"),
    ],
)
def test_error_in_environment_file_is_reported(text: str, problem: str) -> None:
    assert environment.parse(text).problems[0].startswith(problem)


def test_error_on_irrelevant_line_is_ignored() -> None:
    assert environment.parse(f"export A=1\nword\n{OPTIONS}=-v\n").problems == []


def test_shell_reads_written_value_unchanged() -> None:
    value = "-c '/f $x `y` \\z'"
    script = f'{environment.assignment(OPTIONS, value)}; printf %s "${OPTIONS}"'
    printed = subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, check=True)
    assert printed.stdout.decode() == value
