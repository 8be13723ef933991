"""postprox-check: variables of the proxy in a filter script."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from postprox.check.probe import script_files
from postprox.check.scripts import proxy_variables
from postprox.check.scripts.lines import code_lines
from postprox.check.scripts.mistake import Mistake
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
REPLY = "echo '550 5.7.1 A virus' >&2"


def mistakes(script: str) -> list[Mistake]:
    """Return the mistakes in the use of variables."""
    return list(proxy_variables.mistakes(list(code_lines(script))))


def kinds(script: str) -> list[str]:
    return [found.kind for found in mistakes(f"#!/bin/sh\n{script}\n")]


def corrected(script: str) -> str:
    """Return a script after the only correction."""
    (found,) = mistakes(script)
    sed = ["/bin/sed", found.correction]
    new = subprocess.run(sed, input=script, capture_output=True, text=True, check=True).stdout
    assert mistakes(new) == []
    return new


def test_own_variable_named_email_is_renamed() -> None:
    script = (
        '#!/bin/sh\nEMAIL=postmaster@mail.test\nif grep -q virus "$EMAIL"; then\n'
        'echo "550 5.7.1 A virus, ask ${EMAIL} or $EMAIL" >&2\nexit 1\nfi\n'
    )
    assert corrected(script) == (
        '#!/bin/sh\nOWN_EMAIL=postmaster@mail.test\nif grep -q virus "$EMAIL"; then\n'
        'echo "550 5.7.1 A virus, ask ${OWN_EMAIL} or $OWN_EMAIL" >&2\nexit 1\nfi\n'
    )


@pytest.mark.parametrize(
    "script",
    [
        'EMAIL=${EMAIL:-/tmp/test.eml}\ncat "$EMAIL"',
        'EMAIL="$1"\ncat "$EMAIL"',
        "EMAIL=postmaster@mail.test",
        "EMAIL=$(mktemp)\ncat $EMAIL",
        '. /etc/mail-filter.conf\nEMAIL=x\ncat "$EMAIL"',
    ],
)
def test_variable_that_script_may_set_is_accepted(script: str) -> None:
    assert kinds(script) == []


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("REMOTE", "REMOTEIP"),
        ("REMOTE_HELO", "HELO"),
        ("EMIAL", "EMAIL"),
        ("RECIPENT", "RECIPIENT"),
    ],
)
def test_variable_of_another_program_is_replaced(name: str, right: str) -> None:
    script = f'#!/bin/sh\ncase "${name}" in\n"") exit 0;;\nesac\nlogger "${{{name}}}"\n'
    assert corrected(script) == script.replace(name, right)


@pytest.mark.parametrize(
    "script",
    [
        "REMOTE=192.0.2.1\nping $REMOTE",
        "for TO in $RECIPIENTS; do echo $TO; done",
        "while read -r FROM rest; do echo $FROM; done",
        'echo "${CLIENT:-unknown}"',
        "echo '$REMOTE'",
        "echo $RECIPIENTCOUNT $CLIENT_NAME $QUEUE_ID",
        "echo $remote $PATH $HOME $TMPDIR $LIST",
    ],
)
def test_defined_or_unrelated_variables_are_accepted(script: str) -> None:
    assert kinds(script) == []


def test_variable_in_environment_of_unit_is_accepted(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.filter.write_text('#!/bin/sh\n[ "$REMOTE" = x ] || exit 2\n')
    assert check(site, capsys).names() == ["filter"]
    site.write(site.arguments, "Environment=REMOTE=x")
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("value", ["$FOUND", "${FOUND}"])
def test_remedy_quotes_tested_variable(
    site: Site, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    script = (
        f'#!/bin/sh\nFOUND=$(grep virus "$EMAIL")\nif [ -n {value} ]; then {REPLY}; exit 1; fi\n'
    )
    site.filter.write_text(f"#!/bin/sh\n{script}")
    checked = check(site, capsys)
    assert "the test is always true if the variable is empty" in checked.problem
    apply(site, checked)
    assert f'[ -n "{value}" ]' in site.filter.read_text()
    assert check(site, capsys).names() == []


@pytest.mark.parametrize("test", ['[ -n "$x" ]', "[[ -n $x ]]", "[ -z $x ]", "[ -n a ]"])
def test_correct_shell_tests_are_accepted(test: str) -> None:
    assert kinds(f"if {test}; then exit 1; fi") == []


def test_removed_variables_are_restored() -> None:
    script = (
        '#!/bin/sh\nif grep -q virus ""; then\nexit 1\nfi\n'
        '{ echo "X-Filtered: yes"; cat ""; } > ""\n'
    )
    assert corrected(script) == (
        '#!/bin/sh\nif grep -q virus "$EMAIL"; then\nexit 1\nfi\n'
        '{ echo "X-Filtered: yes"; cat "$EMAIL"; } > "$OUTFILE"\n'
    )


def test_empty_file_name_beside_variables_is_accepted() -> None:
    assert kinds('cat "$EMAIL" > "$OUTFILE"\necho > ""') == []


@pytest.mark.any_account
def test_variable_of_the_unit_is_set_for_spawned_proxy(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = tmp_path / "default"
    defaults.write_text("WORDS=/etc/words\nOTHER=x\n")
    monkeypatch.setattr(script_files, "DEFAULTS", str(defaults))
    site.disable()
    site.filter.write_text('#!/bin/sh\ngrep -q -f "$WORDS" "$EMAIL" && exit 2\nexit 0\n')
    site.master += (
        "127.0.0.1:10025 inet n n n - 20 spawn user=nobody "
        f"argv={site.launcher} --strict -t 60 -c {site.filter} 127.0.0.1:10026\n"
    )
    checked = check(site, capsys, "--offline")
    assert "requires the variable WORDS, which spawn(8) does not set" in checked.problem
    assert f"-c {{WORDS=/etc/words {site.filter}}}" in checked.remedy
