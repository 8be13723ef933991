"""postprox-check: control characters in the output."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from postprox import __version__
from postprox.check import __main__ as command
from postprox.check import report
from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.report import Result
from postprox.check.setup import Setup
from tests.unit.checking import FRONT, MAIN, PROXY, postconf

HOSTILE = "\x1b]0;x\x07\x1b[2J\x9b31m\r\x7f\u202e"


def has_controls(text: str) -> bool:
    return any(not character.isprintable() for character in text.replace("\n", ""))


def checked(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *arguments: str,
    main: str = MAIN,
    master: str = FRONT + PROXY,
) -> int:
    """Run the command with a fake postconf(1) that prints a configuration."""
    for option, text in [("nx", main), ("M", master), ("Px", "")]:
        (directory / option).write_text(text)
    postconf(directory, monkeypatch, f'for option; do :; done; cat "{directory}/${{option#-}}"')
    monkeypatch.setattr(sys, "argv", ["postprox-check", "--offline", *arguments])
    return command.main()


MAIN_CF = {
    "message_size_limit": f"message_size_limit = 1{HOSTILE}\n",
    "smtpd_proxy_filter": f"smtpd_proxy_filter = unix:{HOSTILE}\n",
    "content_filter": f"content_filter = scan{HOSTILE}:[127.0.0.1]:10025\n",
    "unknown parameter": f"{HOSTILE}_destination_concurrency_limit = x\n",
}
MASTER_CF = {
    "service": FRONT.replace("smtp ", f"a{HOSTILE} ") + PROXY,
    "user=": FRONT + PROXY.replace("nobody", f"nobody{HOSTILE}"),
    "argv=": FRONT + PROXY.replace("/p/", f"/p{HOSTILE}/"),
    "option": FRONT + PROXY.replace("--strict", f"--{HOSTILE}"),
    "filter": FRONT + PROXY.replace("/f", f"{{/f {HOSTILE}}}"),
    "upstream": FRONT + PROXY.replace(" up", f" unix:/{HOSTILE}"),
    "incomplete line": f"too few {HOSTILE}\n",
}


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("name", MAIN_CF)
def test_control_characters_in_main_cf_are_escaped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: list[str],
) -> None:
    checked(tmp_path, monkeypatch, *options, main=MAIN + MAIN_CF[name])
    printed = capsys.readouterr()
    assert not has_controls(printed.out + printed.err)
    assert printed.out


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("name", MASTER_CF)
def test_control_characters_in_master_cf_are_escaped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: list[str],
) -> None:
    checked(tmp_path, monkeypatch, *options, master=MASTER_CF[name])
    printed = capsys.readouterr()
    assert not has_controls(printed.out + printed.err)
    assert printed.out or printed.err


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize(
    "line",
    [
        f"ExecStart=/p/postprox -l 1 -c {HOSTILE} up",
        f"ExecStart=/p/postprox -l {HOSTILE} up",
        f"ExecStart=/{HOSTILE}/postprox -l 1 -d /{HOSTILE} -c /f unix:/{HOSTILE}",
        f"ExecStart=/p/postprox -l 1 up\nUser={HOSTILE}",
        f"ExecStart=/p/postprox '{HOSTILE}",
        f"EnvironmentFile=/{HOSTILE}\nExecStart=$A",
    ],
)
def test_control_characters_in_unit_are_escaped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    options: list[str],
) -> None:
    path = tmp_path / f"u{HOSTILE}.service"
    path.write_text(f"[Service]\n{line}\n")
    checked(tmp_path, monkeypatch, "--unit", str(path), *options, master=FRONT)
    printed = capsys.readouterr()
    assert not has_controls(printed.out + printed.err)
    assert printed.out or printed.err


def test_control_characters_in_postconf_error_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    postconf(tmp_path, monkeypatch, r"printf 'postconf: fatal: a\033[31mb\n' >&2; exit 1")
    monkeypatch.setattr(sys, "argv", ["postprox-check"])
    assert command.main() == 2
    assert capsys.readouterr().err.endswith(": a\\x1b[31mb\n")


@pytest.mark.parametrize(
    ("line", "remedy"),
    [("<<<<<<< HEAD", "resolve the merge conflict"), ("relayhost", "correct or remove this line")],
)
def test_error_of_postconf_names_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    remedy: str,
) -> None:
    fatal = f"postconf: fatal: main.cf, line 2: missing '=' after attribute name: \"{line}\""
    postconf(tmp_path, monkeypatch, f"echo {shlex.quote(fatal)} >&2; exit 1")
    monkeypatch.setattr(sys, "argv", ["postprox-check"])
    assert command.main() == 2
    assert f'"{line}"; {remedy}, because no Postfix program can' in capsys.readouterr().err


def test_control_characters_in_unknown_option_are_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["postprox-check", "--\x1b[31m"])
    assert command.main() == 2
    assert "\x1b" not in capsys.readouterr().err


def test_json_escapes_unprintable_characters() -> None:
    setup = Setup(parse("", "", ""), [], {})
    text = report.as_json(Result(setup, [Finding("user", "\x1b", "\x7f", ("\u202e",))], []))
    assert not has_controls(text)
    (finding,) = json.loads(text)["findings"]
    assert (finding["where"], finding["problem"], finding["remedy"]) == ("\x1b", "\x7f", "\u202e")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_option_prints_version(option: str) -> None:
    words = [sys.executable, "-m", "postprox.check", option]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout == f"postprox-check {__version__}\n"
