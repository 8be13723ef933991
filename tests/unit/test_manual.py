"""Tests that the manual pages and the help texts match the code and the documents.

Commands and configurations in the pages must be identical to those in the README,
docs/setup.md and docs/opendkim.md, except for the paths of recipe files. tests/postfix runs those
of the documents.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from postprox import help_text
from postprox.check import findings, report
from postprox.check.postconf import parse
from postprox.check.setup import Setup
from postprox.core import log_lines, options, replies, verdict
from postprox.core.envelope import Envelope
from postprox.core.message import Message

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.stem for path in (ROOT / "man").glob("*.1"))
#: The quotation marks of mandoc(1).
OPENING, CLOSING = "\u2018", "\u2019"
MANDOC = shutil.which("mandoc")
#: Warnings that depend on other manual pages installed on the system.
_NOT_OURS = ("referenced manual not found", "outdated mandoc.db", "makewhatis")

pytestmark = pytest.mark.skipif(MANDOC is None, reason="mandoc is not installed")


def source(page: str) -> str:
    return (ROOT / f"man/{page}.1").read_text(encoding="ascii")


def rendered(page: str) -> str:
    """Return the rendered text of a page with single spaces."""
    command = [str(MANDOC), "-T", "utf8", str(ROOT / f"man/{page}.1")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return " ".join(re.sub(r".\x08", "", text).split())


def quoted(text: str) -> str:
    """Return the text as the macro Ql renders it."""
    return f"{OPENING}{text}{CLOSING}"


def options_of(page: str) -> set[str]:
    """Return the long option names that a page documents."""
    entries = [line for line in source(page).splitlines() if line.startswith(".It Fl ")]
    assert entries
    return {name for entry in entries for name in re.findall(r" -([a-z-]+)", entry)}


def options_in_help(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", text))


@pytest.mark.parametrize("page", PAGES)
def test_manual_page_is_valid_mdoc(page: str) -> None:
    command = [str(MANDOC), "-Tlint", str(ROOT / f"man/{page}.1")]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = (linted.stdout + linted.stderr).splitlines()
    assert [line for line in complaints if not any(word in line for word in _NOT_OURS)] == []


#: The mdoc macros in option arguments, with their text.
_MACROS = {"Ar": "", "Cm": "", "Ns": "", "Oo": "[", "Oc": "]"}


def test_manual_options_match_option_table() -> None:
    entries = re.findall(r"^\.It Fl (?:(\w) , )?-([a-z-]+)(.*)$", source("postprox"), re.MULTILINE)
    listed = [
        (letter, name, "".join(_MACROS.get(word, word) for word in argument.split()))
        for letter, name, argument in entries
    ]
    assert listed == [record[:3] for record in options.TABLE]


def test_help_options_match_option_table() -> None:
    named = {name for _, name, *_ in options.TABLE}
    assert options_in_help(help_text.TEXTS["help"]) == named


def test_help_fits_in_40_lines() -> None:
    lines = help_text.TEXTS["help"].splitlines()
    assert len(lines) <= 40
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("command", ["rehearse", "check"])
def test_each_manual_page_lists_its_command_options(command: str) -> None:
    helped = subprocess.run(
        [sys.executable, "-m", f"postprox.{command}", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "PYTHONPATH": str(ROOT)},
    )
    assert options_of(f"postprox-{command}") == options_in_help(helped.stdout)


REPLIES = {name: line for name, line in vars(replies).items() if isinstance(line, bytes)}


@pytest.mark.parametrize("name", REPLIES)
def test_manual_page_lists_every_reply(name: str) -> None:
    assert quoted(REPLIES[name].decode().strip()) in rendered("postprox")


def test_manual_page_lists_no_unknown_replies() -> None:
    text = source("postprox").replace("\\&", "")
    listed = re.findall(r"^\.It Ql (\d.*)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(line.decode().strip() for line in REPLIES.values())


@pytest.mark.parametrize("page", PAGES)
def test_quotation_marks_in_manual_page_are_paired(page: str) -> None:
    quotes = re.sub(f"[^{OPENING}{CLOSING}]", "", rendered(page))
    assert quotes
    assert quotes == (OPENING + CLOSING) * (len(quotes) // 2)


def test_manual_page_of_check_lists_json_keys() -> None:
    found = findings.Finding("filter", "here", "a problem", ("a remedy",))
    result = report.Result(Setup(parse("", "", ""), [], {}), [found], [])
    (finding,) = json.loads(report.as_json(result))["findings"]
    *names, last = map(quoted, finding)
    sentence = f"Each finding has {', '.join(names)} and {last}."
    assert sentence in rendered("postprox-check")


def test_manual_page_lists_every_filter_variable() -> None:
    section = source("postprox").partition(".Ss Environment of the filter")[2].partition(".El")[0]
    listed = re.findall(r"^\.It Ev (\w+)$", section, re.MULTILINE)
    given = {name.decode() for name in Envelope().environment(b"")}
    assert set(listed) == given | {"EMAIL", "OUTFILE"}


def test_manual_page_lists_log_fields_in_order() -> None:
    line = log_lines.message_line(Message(0.0), Envelope(), b"", b"", 0.0)
    section = source("postprox").partition(".Sh LOG")[2].partition(".Sh ")[0]
    entries = re.findall(r"^\.It Li (.*)$", section, re.MULTILINE)
    listed = [name for entry in entries for name in entry.split(" , ")]
    assert listed == re.findall(r"(?:^| )([a-z-]+)=", line)


@pytest.mark.parametrize(
    "word",
    [
        *(verdict.NONE, verdict.ACCEPT, verdict.REWRITE, verdict.REJECT, verdict.DISCARD),
        *(verdict.FAIL_OPEN, verdict.FAIL),
        *(
            log_lines.DELIVERED,
            log_lines.DISCARDED,
            log_lines.REFUSED,
            log_lines.DEFERRED,
            log_lines.LOST,
        ),
        log_lines.UNKNOWN,
    ],
)
def test_manual_page_lists_every_message_result(word: str) -> None:
    section = source("postprox").partition(".Sh LOG")[2].partition(".Sh ")[0]
    assert re.search(rf"^\.Ql {word}( |$)", section, re.MULTILINE)


def literal_displays(page: str) -> list[str]:
    """Return the literal displays of a page."""
    displays = re.findall(r"^\.Bd -literal\n(.*?)^\.Ed$", source(page), re.DOTALL | re.MULTILINE)
    return [text.replace("\\c\n", "").replace("\\&", "").replace("\\e", "\\") for text in displays]


def readme() -> str:
    """Return the pages with the set-up, followed by a copy without indentation."""
    pages = ("README.md", "docs/setup.md", "docs/opendkim.md")
    text = re.sub(r" \\\n *", " ", "".join((ROOT / page).read_text() for page in pages))
    return text + re.sub(r"^    ", "", text, flags=re.MULTILINE)


#: The directory of the recipe after an installation from source or from the package.
INSTALLED, PACKAGED = "/usr/local/share/doc/postprox/", "/usr/share/doc/postprox/"


@pytest.mark.parametrize("display", literal_displays("postprox"))
def test_configuration_in_manual_page_matches_readme(display: str) -> None:
    # The README does not contain the options file of the service.
    shipped = readme() + (ROOT / "packaging/postprox.default").read_text()
    parts = display.strip().replace("POSTPROX_OPTIONS", "\nPOSTPROX_OPTIONS").split("\n\n")
    assert all(part.replace(INSTALLED, "") in shipped for part in parts)


def test_commands_in_debian_readme_match_readme() -> None:
    text = (ROOT / "debian/README.Debian").read_text()
    commands = re.findall(r"^ +(cat .*)$", text, re.MULTILINE)
    assert len(commands) == 5
    assert [line for line in commands if line.replace(PACKAGED, "") not in readme()] == []


def test_manual_page_of_check_lists_findings_with_levels() -> None:
    listed = re.findall(r"^\.It Li (\S+) Ta (\d) Ta", source("postprox-check"), re.MULTILINE)
    assert {name: int(level) for name, level in listed} == findings.LEVELS
