"""postprox-rehearse with several messages, expectations, --user and --watch."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from postprox.rehearse.outcome import EXPECTATIONS, VERDICTS
from tests.unit.rehearsing import COMMAND_LINE, MESSAGE, ROOT, Rehearse

# This filter rejects messages that contain "reject", and fails for messages that contain "fail".
FILTER = """
grep -q reject "$EMAIL" && { echo 550 no >&2; exit 1; }
grep -q fail "$EMAIL" && { echo broken >&2; exit 3; }
exit 0
"""


def save(rehearse: Rehearse, *words: str) -> list[str]:
    """Write one message for each word and return the file names."""
    return [
        rehearse.save(MESSAGE + word.encode() + b"\n", f"{number}-{word}.eml")
        for number, word in enumerate(words)
    ]


def junit(rehearse: Rehearse) -> ElementTree.Element:
    text = (rehearse.directory / "out.xml").read_text()
    return ElementTree.fromstring(text)  # noqa: S314 - the command wrote the file


# Summary


def test_summary_table_has_counts_and_times(rehearse: Rehearse) -> None:
    text = rehearse("-c", FILTER, *save(rehearse, "pass", "reject", "pass", "fail")).stdout
    table = text[text.index("\n  verdict ") :].splitlines()
    assert table[1].split() == ["verdict", "messages", "median", "slowest"]
    assert [line.split()[:2] for line in table[2:6]] == [
        ["accept", "2"],
        ["reject", "1"],
        ["fail-open", "1"],
        ["all", "4"],
    ]
    assert table[3].endswith(" s  1-reject.eml")


def test_report_on_one_message_has_no_summary_table(rehearse: Rehearse) -> None:
    assert "median" not in rehearse("-c", "true", *save(rehearse, "x")).stdout


def test_summary_includes_elapsed_time_of_killed_filter(rehearse: Rehearse) -> None:
    text = rehearse("-c", "sleep 60", "-t", "0.2", *save(rehearse, "a", "b")).stdout
    row = next(line for line in text.splitlines() if line.startswith("  fail-open "))
    assert float(row.split()[2]) >= 0.2


# Several messages


def test_eleven_messages_are_reported_one_per_line(rehearse: Rehearse) -> None:
    text = rehearse("-c", FILTER, *save(rehearse, *["pass"] * 10, "reject")).stdout
    lines = [line for line in text.splitlines() if line.startswith("[")]
    assert len(lines) == 11
    assert lines[0].split()[:3] == ["[", "1/11]", "ACCEPTED"]
    assert lines[-1].split()[:2] == ["[11/11]", "REJECTED"]
    assert lines[-1].endswith("10-reject.eml  550 no")


def test_brief_option_prints_one_line_per_message(rehearse: Rehearse) -> None:
    text = rehearse("--brief", "-c", "true", *save(rehearse, "x")).stdout
    assert "\n[1/1] ACCEPTED" in text
    assert "EHLO" not in text


def test_full_option_prints_every_dialogue(rehearse: Rehearse) -> None:
    text = rehearse("--full", "-c", "true", *save(rehearse, *["x"] * 11)).stdout
    assert text.count("MAIL FROM") == 11


def test_long_line_is_truncated_to_width(rehearse: Rehearse) -> None:
    name = rehearse.save(MESSAGE, "x" * 200)
    command = f"echo 550 {'y' * 200} >&2; exit 1"
    text = rehearse("--brief", "-c", command, name).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("["))
    assert len(line) == 80


def test_temporary_files_are_removed_during_long_run(rehearse: Rehearse) -> None:
    command = f"ls {rehearse.temporary}/rehearse-* | wc -l >&2; exit 1"
    result = rehearse("--json", "-c", command, *save(rehearse, "a", "b", "c"))
    replies = [message["reply"] for message in json.loads(result.stdout)["messages"]]
    assert replies == ["554 1"] * 3


# --repeat


def test_repeat_option_sends_each_message_again(rehearse: Rehearse) -> None:
    result = rehearse("--json", "--repeat", "3", "-c", "true", *save(rehearse, "a", "b"))
    names = [message["message"] for message in json.loads(result.stdout)["messages"]]
    assert names == ["0-a.eml"] * 3 + ["1-b.eml"] * 3


def test_repeat_option_reports_inconsistent_verdict(rehearse: Rehearse) -> None:
    flag = rehearse.directory / "flag"
    command = f"mkdir {flag} 2>/dev/null || {{ echo 550 no >&2; exit 1; }}"
    text = rehearse("--repeat", "3", "-c", command, *save(rehearse, "x")).stdout
    assert "\nDifferent verdicts: 0-x.eml: accept, reject\n" in text


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_repeat_option_requires_whole_number(rehearse: Rehearse, value: str) -> None:
    result = rehearse("--repeat", value)
    assert (result.returncode, f"'{value}': must be a whole number" in result.stderr) == (2, True)


# Expectations


@pytest.mark.parametrize(
    ("command", "expected", "status"),
    [
        ("true", "accept", 0),
        ("true", "reject", 1),
        ("echo 550 no >&2; exit 1", "reject", 0),
        ("echo 250 gone >&2; exit 1", "reject", 1),
        ("echo 250 gone >&2; exit 1", "discard", 0),
        ('echo x >"$OUTFILE"', "rewrite", 0),
        ('echo x >"$OUTFILE"', "accept", 1),
        ("exit 2", "fail", 0),
        ("exit 2", "accept", 1),
        ("exit 1", "fail", 1),
    ],
)
def test_expectation_determines_exit_status(
    rehearse: Rehearse, command: str, expected: str, status: int
) -> None:
    result = rehearse("--expect", expected, "-c", command, *save(rehearse, "x"))
    assert result.returncode == status
    word = "Every message had" if status == 0 else "1 message did not have"
    assert f"\n{word} the expected verdict ({expected})." in result.stdout


def test_filter_failure_with_reject_option_satisfies_expect_fail(rehearse: Rehearse) -> None:
    assert rehearse("-r", "--expect", "fail", "-c", "exit 2", *save(rehearse, "x")).returncode == 0


def test_either_of_two_expected_verdicts_is_accepted(rehearse: Rehearse) -> None:
    names = save(rehearse, "pass", "reject")
    assert (
        rehearse("--expect", "accept", "--expect", "reject", "-c", FILTER, *names).returncode == 0
    )


def test_unexpected_verdicts_are_listed(rehearse: Rehearse) -> None:
    text = rehearse("--expect", "accept", "-c", FILTER, *save(rehearse, "pass", "reject")).stdout
    assert (
        "\n1 message did not have the expected verdict (accept).\n  1-reject.eml: reject: 550 no\n"
        in text
    )


def test_proxy_error_never_meets_expectation(rehearse: Rehearse) -> None:
    names = save(rehearse, "x")
    result = rehearse("-d", "/nonexistent", "--expect", "fail", "-c", "true", *names)
    assert result.returncode == 1


def test_expectations_cover_every_filter_verdict() -> None:
    covered = [each for verdicts in EXPECTATIONS.values() for each in verdicts]
    assert sorted(covered) == sorted(set(VERDICTS) - {"error"})


def test_json_document_contains_unmet_expectation(rehearse: Rehearse) -> None:
    names = save(rehearse, "pass", "reject")
    result = rehearse("--json", "--expect", "reject", "-c", FILTER, *names)
    document = json.loads(result.stdout)
    assert (result.returncode, document["expected"]) == (1, ["reject"])
    complaints = [message["complaint"] for message in document["messages"]]
    assert complaints == ["expected reject, got accept", ""]


def test_json_document_contains_filter_times(rehearse: Rehearse) -> None:
    result = rehearse("--json", "-t", "0.2", "-c", "sleep 60", *save(rehearse, "x"))
    seconds = json.loads(result.stdout)["seconds"]
    assert seconds["median"] == seconds["slowest"] >= 0.2


# Machine-readable output


def test_github_option_reports_unexpected_verdicts(rehearse: Rehearse) -> None:
    names = save(rehearse, "pass", "reject")
    text = rehearse("--github", "--expect", "accept", "-c", FILTER, *names).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("::"))
    where, _, what = line.partition("::1-reject.eml: ")
    assert where == "::error file=1-reject.eml,title=postprox-rehearse"
    assert what == "expected accept, got reject: 550 no"


def test_github_option_without_expectations_reports_failures(rehearse: Rehearse) -> None:
    names = save(rehearse, "pass", "reject", "fail")
    result = rehearse("--github", "-c", FILTER, *names)
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("::"))
    assert "::2-fail.eml: fail-open: exit status 3" in line
    assert result.returncode == 0


def test_github_option_escapes_filter_output(rehearse: Rehearse) -> None:
    command = r"printf '550 a%%0A::set-output\r\n::error::b\n' >&2; exit 1"
    name = rehearse.save(MESSAGE, "a,b:100%\n.eml")
    text = rehearse("--github", "--expect", "accept", "-c", command, name).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("::"))
    assert line.startswith("::error file=a%2Cb%3A100%25%0A.eml,title=")


def test_github_and_json_options_are_mutually_exclusive(rehearse: Rehearse) -> None:
    result = rehearse("--github", "--json")
    assert (result.returncode, "cannot be combined" in result.stderr) == (2, True)


def test_junit_report_contains_unmet_expectations(rehearse: Rehearse) -> None:
    names = save(rehearse, "pass", "reject", "fail")
    rehearse("--junit", "out.xml", "--expect", "accept", "-c", FILTER, *names)
    suite = junit(rehearse)
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == names
    assert [failure.get("type") for failure in suite.iter("failure")] == ["reject", "fail-open"]
    assert cases["2-fail.eml"].findtext("system-err") == "broken"
    assert cases["0-pass.eml"].find("failure") is None


def test_junit_report_escapes_characters_invalid_in_xml(rehearse: Rehearse) -> None:
    command = r"printf '550 \033[31m\000<&>\377\n' >&2; exit 1"
    name = rehearse.save(MESSAGE, "\x01.eml")
    rehearse("--junit", "out.xml", "--expect", "accept", "-c", command, name)
    suite = junit(rehearse)
    assert suite.findtext("testcase/system-err") == "550 \\x1b[31m\\x00<&>\\xff"


@pytest.mark.parametrize("path", ["missing/out.xml", "."])
def test_junit_option_requires_file_path(rehearse: Rehearse, path: str) -> None:
    result = rehearse("--junit", path)
    assert (result.returncode, f"--junit: '{path}': must be a file" in result.stderr) == (2, True)


# --user


@pytest.fixture
def public() -> Iterator[Path]:
    """Yield a world-readable directory with a copy of the package."""
    with tempfile.TemporaryDirectory(prefix="postprox-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        shutil.copytree(ROOT / "postprox", directory / "postprox")
        yield directory


as_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/python3").exists(),
    reason="running as another user requires root and a world-readable Python",
)


def rehearsed_as_nobody(public: Path, command: str, *options: str, user: str = "nobody") -> Any:
    """Run the filter as the user nobody and return the message's JSON entry."""
    message = public / "message.eml"
    message.write_bytes(MESSAGE)
    words = [*options, "--json", "--user", user, "-c", command, str(message)]
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "postprox.rehearse", *words],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(public), "TMPDIR": str(public)},
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
        text=True,
    )
    (found,) = json.loads(done.stdout)["messages"]
    return found


@as_another_user
def test_filter_gets_same_ids_as_under_spawn(public: Path) -> None:
    command = 'echo "$(id -un) $(id -G) $(stat -c %U "$EMAIL")" >&2; exit 1'
    assert rehearsed_as_nobody(public, command)["reply"] == "554 nobody 65534 nobody"
    assert sorted(path.name for path in public.iterdir()) == ["message.eml", "postprox"]


@as_another_user
def test_filter_gets_same_group_as_under_spawn(public: Path) -> None:
    found = rehearsed_as_nobody(public, "id -Gn >&2; exit 1", user="nobody:mail")
    assert found["reply"] == "554 mail"


@as_another_user
@pytest.mark.parametrize("name", ["environment", "stderr", "status", "outfile"])
@pytest.mark.parametrize("plant", ["ln -s {}", "mkfifo", "mkdir"])
def test_root_does_not_read_record_replaced_by_filter(public: Path, name: str, plant: str) -> None:
    secret = public / "secret"
    secret.write_text("root's own\0\n")
    secret.chmod(0o600)
    command = f'R=$(dirname "$OUTFILE")/filter; rm "$R/{name}"; {plant.format(secret)} "$R/{name}"'
    # If the record is a FIFO, the filter's shell blocks until the filter timeout.
    assert "root's own" not in json.dumps(rehearsed_as_nobody(public, command, "-t", "1"))


@as_another_user
def test_root_does_not_follow_link_to_private_directory(public: Path) -> None:
    private = public / "private"
    private.mkdir(mode=0o700)
    (private / "stderr").write_text("root's own\n")
    command = f'cd "$(dirname "$OUTFILE")"; mv filter aside; ln -s {private} filter'
    assert "root's own" not in json.dumps(rehearsed_as_nobody(public, command))


@pytest.mark.parametrize(
    ("user", "problem"),
    [("nosuchuser", "'nosuchuser': unknown user"), ("nobody:nosuch", "'nosuch': unknown group")],
)
def test_unknown_user_or_group_is_reported(rehearse: Rehearse, user: str, problem: str) -> None:
    result = rehearse("--user", user)
    assert (result.returncode, problem in result.stderr) == (2, True)


# Terminal


class Terminal:
    """The command with a terminal as standard output and standard error."""

    def __init__(self, rehearse: Rehearse, *arguments: str, columns: int = 80) -> None:
        self._terminal, child = pty.openpty()
        termios.tcsetwinsize(child, (24, columns))
        self.process = subprocess.Popen(
            [*COMMAND_LINE, *arguments],
            cwd=rehearse.directory,
            env=rehearse.environment | {"TERM": "xterm", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=child,
            stderr=child,
        )
        os.close(child)
        self.shown = b""

    def until(self, text: bytes) -> None:
        """Read the output until it contains `text`."""
        while text not in self.shown:
            self.shown += os.read(self._terminal, 65536)

    def rest(self) -> str:
        """Read the output until the command exits, and return the whole output."""
        try:
            while data := os.read(self._terminal, 65536):
                self.shown += data
        except OSError:
            pass  # The command has closed the terminal.
        os.close(self._terminal)
        self.process.wait(30)
        return self.shown.decode().replace("\r\n", "\n")


def test_long_running_filter_shows_progress(rehearse: Rehearse) -> None:
    gate = rehearse.directory / "gate"
    os.mkfifo(gate)
    terminal = Terminal(rehearse, "-c", f"read line <{gate}; true", *save(rehearse, "x"))
    terminal.until(b"[1/1] 0-x.eml: filter has been running for 1 s ...")
    gate.write_bytes(b"go on\n")
    shown = terminal.rest()
    # The progress line is erased before other output.
    assert "s ...\r\033[K" in shown
    assert "ACCEPTED" in shown


def test_progress_is_not_written_to_file(rehearse: Rehearse) -> None:
    assert rehearse("-c", "sleep 1.1", *save(rehearse, "x")).stderr == ""


def test_output_uses_terminal_width(rehearse: Rehearse) -> None:
    command = "true " + "word " * 50
    shown = Terminal(rehearse, "-c", command, *save(rehearse, "x"), columns=100).rest()
    lines = shown[shown.index("Rehearsal:") :].split("\n")
    longest = max(len(line) for line in lines if "\033" not in line)
    assert 90 < longest <= 100


def test_watch_option_repeats_run_after_filter_change(rehearse: Rehearse) -> None:
    script = rehearse.directory / "filter"
    script.write_text("exit 0\n")
    names = save(rehearse, "x")
    with subprocess.Popen(
        [*COMMAND_LINE, "--watch", "-c", "sh ./filter", *names],
        cwd=rehearse.directory,
        # The command finds the relative path because it runs in this directory.
        env=rehearse.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert _until(process, "Waiting for the filter")[-2] == "1 message: 1 accepted"
        script.write_text("echo 550 no >&2; exit 1\n")
        lines = _until(process, "Waiting for the filter")
        assert [line for line in lines if line.endswith("  filter has changed.")]
        assert "1 message: 1 rejected" in lines
        (rehearse.directory / names[0]).write_bytes(MESSAGE + b"more\n")
        assert [
            line
            for line in _until(process, "Waiting for the filter")
            if "0-x.eml has changed" in line
        ]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def _until(process: subprocess.Popen[str], start: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(start):
            return [line for line in lines if line and not line.startswith(("Next,", "In master"))]
    raise AssertionError(lines)


def test_watch_option_tolerates_temporarily_missing_message(rehearse: Rehearse) -> None:
    with subprocess.Popen(
        [*COMMAND_LINE, "--watch", "-c", "true", "later.eml"],
        cwd=rehearse.directory,
        env=rehearse.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _until(process, "Waiting for the filter")
        rehearse.save(MESSAGE, "later.eml")
        assert "1 message: 1 accepted" in _until(process, "Waiting for the filter")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert stderr == (
        "rehearse: cannot read the message 'later.eml': No such file or directory\n"
        "rehearse: interrupted\n"
    )


def test_installed_command_prints_demonstration() -> None:
    script = Path(sys.executable).with_name("postprox-rehearse")
    if not script.exists():
        pytest.skip("the installation does not contain the command")
    done = subprocess.run([script], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.splitlines()[-1] == "  postprox-rehearse -c ./your-filter MESSAGE.eml"
