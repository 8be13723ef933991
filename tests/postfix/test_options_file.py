"""postprox-check with the packaged unit's options file, /etc/default/postprox.

The tests use the packaged unit and options file with their own paths and user. They run each
printed command, after which the check has no findings.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from . import readme
from .instance import public_directory
from .proxies import USER
from .recipe import BEFORE, LISTENING
from .test_check import Machine, Said, same

pytestmark = pytest.mark.usefixtures("needs_postfix")

PACKAGING = readme.README.parent / "packaging"
NAME = "/etc/default/postprox"


class Site(Machine):
    """A mail server with the recipe's listening proxy."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.write(BEFORE, LISTENING, same, same)
        self.file = directory / "default/postprox"
        self.file.parent.mkdir()
        self.unit_path = directory / "postprox.service"
        unit = (PACKAGING / "postprox.service").read_text().replace("=postprox\n", f"={USER}\n", 1)
        self.unit_path.write_text(self.here(unit).replace("User=postprox", f"User={USER}"))
        shutil.copy(PACKAGING / "postprox.socket", directory)
        self.file.write_text(self.here((PACKAGING / "postprox.default").read_text()))

    def here(self, text: str) -> str:
        """Return the text with this site's paths."""
        return self.named(text.replace(NAME, str(self.file)))

    def edit(self, pattern: str, new: str) -> None:
        """Replace text in the options file."""
        text = self.file.read_text()
        assert re.search(pattern, text, re.M), pattern
        self.file.write_text(re.sub(pattern, lambda _: new, text, flags=re.M))

    def checks(self) -> Said:
        return self.check("--unit", str(self.unit_path))


@pytest.fixture
def site(needs_postfix: None) -> Iterator[Site]:
    with public_directory("postprox-options-", "/var/lib") as directory:
        yield Site(directory)


def test_packaged_options_file_has_no_findings(site: Site) -> None:
    assert site.checks() == Said(0, "", "")


class Wrong(NamedTuple):
    """An edit of the options file, the resulting finding, and a part of its text."""

    name: str
    pattern: str
    new: str
    words: str = ""


WRONG = [
    Wrong("command-line", "-t 60", "-t never", "-t 'never'"),
    Wrong("command-line", "^POSTPROX_UPSTREAM=.*", "", "HOST:PORT is missing"),
    Wrong("command-line", "127.0.0.1:10026", "127.0.0.1:99999", "99999"),
    Wrong("command-line", "-v --strict", "-v --stric --fast", "--fast"),
    Wrong("braces", "(?<=/mail-filter)", " --fast", "contains spaces"),
    Wrong("options-file", "^POSTPROX_OPTIONS=", "export POSTPROX_OPTIONS=", "export POSTPROX"),
    Wrong("options-file", '10026"', "10026", "unterminated quote in POSTPROX_UPSTREAM"),
    Wrong("options-file", '/mail-filter"$', "/mail-filter", "quote in POSTPROX_OPTIONS"),
    Wrong("options-file", "-c (?=/)", "-c '", "in POSTPROX_OPTIONS, a quote"),
    Wrong("options-file", "OPTIONS=", "OPTIONS: ", "no equals sign"),
    Wrong("no-filter", ' -c [^"]*', "", "-c is missing"),
    Wrong("no-reject", "--strict ", ""),
    Wrong("no-strict", "--strict", "-r"),
    Wrong("spool", "--strict", "--strict -d /tmp/other", "DynamicUser"),
    Wrong("no-upstream", "127.0.0.1:10026", "127.0.0.1:10036", "127.0.0.1:10036"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.name} {wrong.new}")
def test_remedy_fixes_wrong_value_in_options_file(site: Site, wrong: Wrong) -> None:
    site.edit(wrong.pattern, wrong.new)
    said = site.checks()
    assert said.names() == {wrong.name}, said.output
    assert wrong.words in said.text
    assert str(site.file) in said.text
    site.run(map(site.here, said.remedies()))
    assert site.checks() == Said(0, "", ""), site.file.read_text()


def test_remedy_writes_missing_options_file(site: Site) -> None:
    shutil.rmtree(site.file.parent)
    said = site.checks()
    assert (said.status, said.names()) == (2, {"options-file"})
    assert f"{site.file}: the file does not exist" in said.text
    site.run(map(site.here, said.remedies()))
    assert site.checks() == Said(0, "", "")


def test_remedy_preserves_comments_and_other_variables(site: Site) -> None:
    site.edit("-t 60", "-t never")
    before = site.file.read_text() + "PATH=/usr/bin:/bin\n"
    site.file.write_text(before)
    site.run(site.checks().remedies())
    lines = site.file.read_text().splitlines()
    assert [line for line in lines if "OPTIONS=" not in line or line.startswith("#")] == [
        line for line in before.splitlines() if "OPTIONS=" not in line or line.startswith("#")
    ]


def test_remedy_replaces_entire_multiline_value(site: Site) -> None:
    site.edit("--strict -t 60", "\\\n  -t never\\\n --strict")
    said = site.checks()
    assert said.names() == {"command-line"}
    site.run(said.remedies())
    assert site.checks() == Said(0, "", "")


def test_options_file_is_ignored_if_drop_in_sets_command(site: Site) -> None:
    drop_in = site.directory / "postprox.service.d/local.conf"
    drop_in.parent.mkdir()
    command = f"{site.launcher} -l 10025 --foreground -c {site.filter} 127.0.0.1:10026"
    drop_in.write_text(f"[Service]\nExecStart=\nExecStart={command}\n")
    site.file.unlink()
    said = site.checks()
    assert said.names() == {"no-reject"}
    assert str(site.file) not in said.text
