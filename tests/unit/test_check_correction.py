"""postprox-check: typing errors in the proxy's command line, and their corrections."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from postprox.check import correction
from postprox.core.options import parse
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
TARGET = "127.0.0.1:10026"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # HOST:PORT
        ("--strict -c /f 127.0.0.1 10026", "--strict -c /f 127.0.0.1:10026"),
        ("--strict -c /f 127.0.0.2: 10026", "--strict -c /f 127.0.0.2:10026"),
        ("--strict -c /f 127.0.0.2 :10026", "--strict -c /f 127.0.0.2:10026"),
        ("-c /f 127.0.0.2:l0O26", "-c /f 127.0.0.2:10026"),
        ("-c /f ::1:10026", "-c /f [::1]:10026"),
        ("-c /f inet:127.0.0.2:10030", "-c /f 127.0.0.2:10030"),
        ("-c /f 127.0.0.1:", "-c /f 127.0.0.1:10026"),
        ("-c /f :10026", "-c /f 127.0.0.1:10026"),
        ("-c /f localhost:smtp", "-c /f 127.0.0.1:10026"),
        ("-c /f 127.0.0.1:100260", "-c /f 127.0.0.1:10026"),
        ("-c /f", "-c /f 127.0.0.1:10026"),
        ("-c /f 127.0.0.2:1 127.0.0.1:10026", "-c /f 127.0.0.1:10026"),
        ("-r -c 127.0.0.1:10026", "-r -c /usr/local/bin/mail-filter 127.0.0.1:10026"),
        ("-r -c /f -d 127.0.0.1:10026", "-r -c /f 127.0.0.1:10026"),
        # Options
        ("-v --stirct -c /f up", "-v --strict -c /f up"),
        ("-strict -c /f up", "--strict -c /f up"),
        ("--Strict --tmpdir=/x -c /f up", "--strict --tempdir=/x -c /f up"),
        ("-R -C /f up", "-r -c /f up"),
        ("strict -c /f up", "--strict -c /f up"),
        ("-- strict -c /f up", "--strict -c /f up"),
        ("--strict=yes -c /f up", "--strict -c /f up"),
        # Numbers
        ("-t 60s -c /f up", "-t 60 -c /f up"),
        ("-t 60 s -c /f up", "-t 60 -c /f up"),
        ("-t1min -c /f up", "-t60 -c /f up"),
        ("--timeout=2m -c /f up", "--timeout=120 -c /f up"),
        ("-t 0,5 -c /f up", "-t 0.5 -c /f up"),
        ("-t =30 -c /f up", "-t 30 -c /f up"),
        ("-t never -c /f up", "-t 60 -c /f up"),
        ("-t --strict -c /f up", "-t 60 --strict -c /f up"),
        ("-l 1 --max-sessions 20x -c /f up", "-l 1 --max-sessions 20 -c /f up"),
        # Characters of a word processor
        ("\u201c-v --strict -c /f\u201d up", "-v --strict -c /f up"),
        ("-v \u2013c /f up", "-v -c /f up"),
        ("-v \u2014strict -c /f up", "-v --strict -c /f up"),
        # Several errors
        ("--stirct -t 60s -c /f 127.0.0.2 10026", "--strict -t 60 -c /f 127.0.0.2:10026"),
    ],
)
def test_typing_error_is_corrected(given: str, expected: str) -> None:
    new = correction.corrected(given.split(" "), TARGET)
    assert new == expected.split(" ")
    parse(new)


@pytest.mark.parametrize(
    "given", ["-c /f --fast up", "-c /f fast up", "--fast up", "--strict=no up"]
)
def test_unclear_command_line_is_not_corrected(given: str) -> None:
    assert correction.corrected(given.split(), TARGET) == []


@pytest.mark.parametrize(
    ("given", "error", "expected"),
    [
        ("--fail-closed -c /f up", "unknown option --fail-closed", ["--strict", "-c", "/f", "up"]),
        ("-r --fast -c /f up", "unknown option --fast", ["-r", "-c", "/f", "up"]),
        ("-c /f --foreground up", "--foreground requires --listen", ["-c", "/f", "up"]),
    ],
)
def test_removing_rejected_word_keeps_other_options(
    given: str, error: str, expected: list[str]
) -> None:
    assert next(correction.without_named_word(given.split(), error)) == expected


@pytest.mark.parametrize("given", ["-c up", "--strict=no -c /f up"])
def test_c_and_strict_options_are_never_removed(given: str) -> None:
    error = "option --strict takes no value; got 'no', -c, '--strict'"
    assert list(correction.without_named_word(given.split(), error)) == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("127.0.0.1;10026", TARGET),
        ("127.0.0.1,10026", TARGET),
        ("127.0.0.1.10026", TARGET),
        ("10026", TARGET),
        ("127.0.0.1:10026", ""),
        ("[::1]:10026", ""),
        ("mx_1.example.org:25", ""),
    ],
)
def test_invalid_host_is_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], wrong: str, right: str
) -> None:
    site.write(site.arguments.replace(TARGET, shlex.quote(wrong)))
    checked = check(site, capsys, "--offline")
    assert ("command-line" in checked.names()) == bool(right)
    if right:
        assert checked.names() == ["command-line"]
        apply(site, checked)
        assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    ("old", "new"), [("-c ", "-c="), ("-c ", "-rc="), ("-c ", "-c = "), ("-d ", "-d=")]
)
def test_equals_sign_after_short_option_is_removed(
    site: Site, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    site.write(site.arguments.replace(old, new))
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["command-line"]
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    command = again.document["proxies"][0]["command"]
    assert parse(command[1:]).command == str(site.filter)
    assert parse(command[1:]).strict


class OptionsFile(NamedTuple):
    """The text of an options file, the expected findings, and the words of the options after it."""

    text: str
    names: list[str]
    options: str = "-v --strict -t 60 -d /run/postprox -c {filter}"


OPTIONS_LINE = 'POSTPROX_OPTIONS="-v --strict -t 60 -d /run/postprox -c {filter}"\n'
UPSTREAM_LINE = 'POSTPROX_UPSTREAM="127.0.0.1:10026"\n'
WITH_COMMENTS = [
    UPSTREAM_LINE.replace("\n", '  # Postfix\'s port | \\& "a"\n') + OPTIONS_LINE,
    UPSTREAM_LINE.replace("\n", "; # Postfix\r\n") + OPTIONS_LINE,
    UPSTREAM_LINE.replace("\n", " // Postfix\n") + OPTIONS_LINE,
    UPSTREAM_LINE.replace('"\n', ' # Postfix"\n') + OPTIONS_LINE,
    f"{OPTIONS_LINE}POSTPROX_UPSTREAM=127.0.0.1:10026 ; Postfix\n",
    f"{OPTIONS_LINE}POSTPROX_UPSTREAM=127.0.0.1:10026#Postfix\n",
    f"{UPSTREAM_LINE}POSTPROX_OPTIONS=-v --strict -t 60 -d /run/postprox -c {{filter}} # [a]*\n",
    UPSTREAM_LINE + OPTIONS_LINE.replace("\n", "#the scanner\n"),
    UPSTREAM_LINE + OPTIONS_LINE.replace('"\n', ' # the scanner"\n'),
    "POSTPROX_OPTIONS=a # b\n" + UPSTREAM_LINE + OPTIONS_LINE.replace("\n", " # c\n"),
]


@pytest.mark.parametrize(
    "case",
    [
        OptionsFile(UPSTREAM_LINE + OPTIONS_LINE.replace("OPTIONS", "OPTS"), ["options-file"]),
        OptionsFile(UPSTREAM_LINE + OPTIONS_LINE.replace("POSTPROX_", ""), ["options-file"]),
        OptionsFile(UPSTREAM_LINE + OPTIONS_LINE.replace("TIO", "ITO"), ["options-file"]),
        OptionsFile(
            UPSTREAM_LINE + OPTIONS_LINE.replace("POSTPROX_O", "DAEMON_O"), ["options-file"]
        ),
        OptionsFile(UPSTREAM_LINE.replace("EAM", "AEM") + OPTIONS_LINE, ["options-file"]),
        OptionsFile(UPSTREAM_LINE + OPTIONS_LINE + "QUARANTINE=/srv\nPOSTPROX_USER=a\n", []),
        OptionsFile(
            f'{UPSTREAM_LINE}{OPTIONS_LINE}POSTPROX_OPTIONS="-v -d /run/postprox -t 50"\n',
            ["no-filter"],
            "--strict -c {filter} -v -d /run/postprox -t 50",
        ),
        OptionsFile(
            UPSTREAM_LINE + OPTIONS_LINE.replace('"', "\u201d"),
            ["command-line"],
        ),
        OptionsFile(
            UPSTREAM_LINE + "POSTPROX_OPTIONS='-v --strict -t 60 -d /run/postprox -c {filter}\n",
            ["options-file"],
        ),
        *(OptionsFile(text, ["options-file"]) for text in WITH_COMMENTS),
        OptionsFile(f'{UPSTREAM_LINE}{OPTIONS_LINE}X="a" # b\n; c\n', []),
    ],
    ids=lambda case: f"{case.names} {case.text}",
)
def test_options_file_is_corrected(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path, case: OptionsFile
) -> None:
    file = tmp_path / "default"
    file.write_text(case.text.format(filter=site.filter))
    line = f"{site.launcher} -l 10025 --foreground $POSTPROX_OPTIONS $POSTPROX_UPSTREAM"
    lines = ["User=nobody", "ExecStart=", f"ExecStart={line}", "EnvironmentFile="]
    site.drop_in("postprox.service", "Service", *lines, f"EnvironmentFile={file}")
    checked = check(site, capsys, "--offline")
    assert checked.names() == case.names
    apply(site, checked)
    again = check(site, capsys)
    assert again.names() == []
    words = case.options.format(filter=site.filter).split()
    expected = [str(site.launcher), "-l", "10025", "--foreground", *words, TARGET]
    assert again.document["proxies"][0]["command"] == expected


def test_rewritten_options_file_keeps_comments(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "default"
    comments = '# Ask the postmaster first.\n; $(exit 1) `a` "b"\n'
    options = OPTIONS_LINE.format(filter=site.filter)
    broken = options.replace('"-v', "'-v").replace('"', "")
    file.write_text(f"{comments}# a backslash \\\n# b\n{UPSTREAM_LINE}{broken}")
    line = f"{site.launcher} -l 10025 --foreground $POSTPROX_OPTIONS $POSTPROX_UPSTREAM"
    lines = ["User=nobody", "ExecStart=", f"ExecStart={line}", "EnvironmentFile="]
    site.drop_in("postprox.service", "Service", *lines, f"EnvironmentFile={file}")
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["options-file"]
    apply(site, checked)
    assert file.read_text() == f"{comments}# b\n{UPSTREAM_LINE}{options}"
    assert check(site, capsys).names() == []


def test_comment_after_value_moves_to_own_line(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text('# a\nUP="127.0.0.1:10026"  # Postfix\nB="c" # d\n')
    second.write_text(OPTIONS_LINE.format(filter=site.filter))
    line = f"{site.launcher} -l 10025 --foreground $POSTPROX_OPTIONS ${{UP}}"
    lines = ["User=nobody", "ExecStart=", f"ExecStart={line}", "EnvironmentFile="]
    files = [f"EnvironmentFile={first}", f"EnvironmentFile={second}"]
    site.drop_in("postprox.service", "Service", *lines, *files)
    checked = check(site, capsys)
    assert checked.names() == ["options-file"]
    assert f"{first}" in checked.where
    assert "the comment after the value of UP is part of the value" in checked.problem
    apply(site, checked)
    assert first.read_text() == '# a\n# Postfix\nUP="127.0.0.1:10026"\nB="c" # d\n'
    assert check(site, capsys).names() == []


def test_comment_after_path_of_options_file_is_removed(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "default"
    file.write_text(UPSTREAM_LINE + OPTIONS_LINE.format(filter=site.filter))
    line = f"{site.launcher} -l 10025 --foreground $POSTPROX_OPTIONS $POSTPROX_UPSTREAM"
    lines = ["User=nobody", "ExecStart=", f"ExecStart={line}", "EnvironmentFile="]
    site.drop_in("postprox.service", "Service", *lines, f"EnvironmentFile=-{file} # options")
    checked = check(site, capsys)
    assert checked.names() == ["options-file"]
    apply(site, checked)
    assert check(site, capsys).names() == []


def test_optional_file_after_options_file_may_be_missing(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "default"
    file.write_text(UPSTREAM_LINE + OPTIONS_LINE.format(filter=site.filter))
    line = f"{site.launcher} -l 10025 --foreground $POSTPROX_OPTIONS $POSTPROX_UPSTREAM"
    lines = ["User=nobody", "ExecStart=", f"ExecStart={line}", "EnvironmentFile="]
    files = [f"EnvironmentFile={file}", f"EnvironmentFile=-{tmp_path}/missing"]
    site.drop_in("postprox.service", "Service", *lines, *files)
    assert check(site, capsys).names() == []


def with_options_file(site: Site, arguments: str) -> None:
    """Write an options file, and a drop-in with an ExecStart= that may use it."""
    file = site.directory / "default"
    file.write_text(UPSTREAM_LINE + OPTIONS_LINE.format(filter=site.filter))
    lines = ["User=nobody", "ExecStart=", f"ExecStart={site.launcher} {arguments}"]
    files = ["EnvironmentFile=", f"EnvironmentFile={file}"]
    site.drop_in("postprox.service", "Service", *lines, *files)


@pytest.mark.parametrize(
    ("arguments", "name", "corrected"),
    [
        ("--log stderr $POSTPROX_UPSTREAM", "no-filter", "--log stderr $OPTIONS $UPSTREAM"),
        ("-t 30 $POSTPROX_UPSTREAM", "no-filter", "$OPTIONS -t 30 $UPSTREAM"),
        (TARGET, "no-filter", f"$OPTIONS {TARGET}"),
        ("$POSTPROX_OPTION ${POSTPROX_UPSTREM}", "command-line", "$OPTIONS $UPSTREAM"),
        ("$POSTPROX_OPTIONS", "command-line", "$OPTIONS $UPSTREAM"),
        ("", "command-line", "$OPTIONS $UPSTREAM"),
        (f"${{POSTPROX_OPTIONS}} {TARGET}", "command-line", f"$OPTIONS {TARGET}"),
        (
            f'--log "stderr" -t  30 {TARGET}',
            "no-filter",
            f'$OPTIONS --log "stderr" -t  30 {TARGET}',
        ),
    ],
)
def test_remedy_restores_missing_variable(
    site: Site, capsys: pytest.CaptureFixture[str], arguments: str, name: str, corrected: str
) -> None:
    with_options_file(site, f"-l 10025 --foreground {arguments}".rstrip())
    checked = check(site, capsys, "--offline")
    assert checked.names() == [name]
    assert "ExecStart does not contain $POSTPROX_" in checked.problem
    apply(site, checked)
    written = (site.units / "postprox.service.d/zz-postprox-check.conf").read_text()
    line = written.splitlines()[-1].replace("-l 10025 --foreground ", "")
    assert line.replace("$POSTPROX_", "$") == f"ExecStart={site.launcher} {corrected}"
    assert check(site, capsys).names() == []


@pytest.mark.parametrize(
    "arguments",
    ["$POSTPROX_OPTIONS ${POSTPROX_UPSTREAM}", f"--strict -t 60 -c {{filter}} {TARGET}"],
)
def test_command_line_without_variables_is_accepted_if_complete(
    site: Site, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    arguments = arguments.replace("{filter}", str(site.filter))
    with_options_file(site, f"-l 10025 --foreground -d /run/postprox {arguments}")
    assert check(site, capsys).names() == []


def test_missing_filter_command_is_added_together_with_strict_option(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(site.arguments.replace("--strict", "").replace(f"-c {site.filter}", ""))
    checked = check(site, capsys, "--offline")
    assert checked.names() == ["no-filter"]
    assert "--strict -c /usr/local/bin/mail-filter" in checked.remedy


def test_remedy_joins_lines_that_extend_postprox_options(
    site: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with_options_file(site, "-l 10025 --foreground $POSTPROX_OPTIONS $POSTPROX_UPSTREAM")
    file = tmp_path / "default"
    options = OPTIONS_LINE.format(filter=site.filter)
    more = 'POSTPROX_OPTIONS="$POSTPROX_OPTIONS --max-sessions 20"\n'
    last = "POSTPROX_OPTIONS=${POSTPROX_OPTIONS} -v\n"
    file.write_text(UPSTREAM_LINE + options + more + last)
    checked = check(site, capsys)
    assert checked.names() == ["command-line"]
    assert "systemd does not expand $POSTPROX_OPTIONS" in checked.problem
    apply(site, checked)
    assert file.read_text() == UPSTREAM_LINE + options.replace('"\n', ' --max-sessions 20 -v"\n')
    assert check(site, capsys).names() == []
