"""postprox-rehearse: hostile messages, filters and users."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postprox import __version__
from postprox.rehearse import __main__ as command
from postprox.rehearse import mail, options, sources, target, watch
from postprox.rehearse.access import Access
from postprox.rehearse.errors import CannotRunError
from postprox.rehearse.filterrun import FilterRun, Records
from postprox.rehearse.observer import RECORDS, STDERR_KEPT, VARIABLES, Tail
from postprox.rehearse.rehearsal import not_rehearsed
from tests.unit.rehearsing import COMMAND_LINE, MESSAGE, Rehearse

pytestmark = pytest.mark.any_account

# Address fields for which the email package raises an exception.
UNPARSABLE = {"comments": b"(" * 2000, "groups": b"x:" * 2000}


def saved(rehearse: Rehearse, *contents: bytes) -> list[str]:
    """Write messages and return their file names."""
    return [
        rehearse.save(content, f"{number}.eml") for number, content in enumerate(contents, start=1)
    ]


def verdicts(stdout: str) -> dict[str, str]:
    return {each["message"]: each["verdict"] for each in json.loads(stdout)["messages"]}


# Errors in one message


@pytest.mark.parametrize("name", ["From", "To", "Return-Path"])
@pytest.mark.parametrize("field", UNPARSABLE)
def test_unparsable_address_field_is_ignored(rehearse: Rehearse, name: str, field: str) -> None:
    bad = name.encode() + b": " + UNPARSABLE[field] + b"\n\nhi\n"
    result = rehearse("--json", "-c", "true", *saved(rehearse, bad, MESSAGE))
    assert (result.returncode, result.stderr) == (0, "")
    assert verdicts(result.stdout) == {"1.eml": "accept", "2.eml": "accept"}


@pytest.mark.parametrize("error", [RecursionError, MemoryError, IndexError, ValueError])
def test_parser_error_results_in_default_envelope(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(_: list[str]) -> list[tuple[str, str]]:
        raise error

    monkeypatch.setattr(mail, "getaddresses", fails)
    message = mail.from_octets("x", MESSAGE)
    assert (message.sender, message.recipients) == (mail.SENDER, (mail.RECIPIENT,))


def test_address_over_smtp_limit_is_omitted() -> None:
    message = mail.from_octets("x", b"To: " + b"a" * 250 + b"@b.example\n\nhi\n")
    assert message.recipients == (mail.RECIPIENT,)


def test_message_removed_during_run_does_not_affect_other_messages(rehearse: Rehearse) -> None:
    names = saved(rehearse, MESSAGE, MESSAGE, MESSAGE)
    result = rehearse("--json", "-c", f"rm -f {rehearse.directory / names[1]}", *names)
    assert result.returncode == 1
    assert verdicts(result.stdout) == {"1.eml": "accept", "2.eml": "error", "3.eml": "accept"}
    assert result.stderr == (
        "rehearse: cannot read the message '2.eml': No such file or directory\n"
    )


def test_removed_message_is_reported(rehearse: Rehearse) -> None:
    names = saved(rehearse, MESSAGE, MESSAGE)
    result = rehearse("-c", f"rm -f {rehearse.directory / names[1]}", *names)
    assert "\n[2/2] 2.eml: NOT HANDLED, refused for now\n" in result.stdout
    assert "\n  Failure: cannot read the message '2.eml': No such file" in result.stdout


def test_message_too_large_for_memory_does_not_affect_other_messages(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rehearse: Rehearse,
) -> None:
    read = sources.Source.read

    def fails(source: sources.Source) -> bytes:
        if source.name == names[0]:
            raise MemoryError
        return read(source)

    monkeypatch.chdir(rehearse.directory)
    names = saved(rehearse, MESSAGE, MESSAGE)
    monkeypatch.setattr(sources.Source, "read", fails)
    assert command._run(options.parse(["--json", "-c", "true", *names])) == 1
    printed = capsys.readouterr()
    assert verdicts(printed.out) == {"1.eml": "error", "2.eml": "accept"}
    assert printed.err == (
        "rehearse: cannot read the message '1.eml': too large for the available memory\n"
    )


# Empty files


@pytest.mark.parametrize("arguments", [["1.eml"], ["-"], ["/dev/null"]])
def test_empty_file_is_rejected(rehearse: Rehearse, arguments: list[str]) -> None:
    saved(rehearse, b"")
    result = rehearse("-c", "true", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"rehearse: no message in {arguments[0]!r}: it is empty\n"


def test_empty_file_in_directory_is_omitted(tmp_path: Path) -> None:
    (tmp_path / "1.eml").touch()
    (tmp_path / "2.eml").write_bytes(MESSAGE)
    assert [source.name for source in sources.found([tmp_path])] == [str(tmp_path / "2.eml")]


def test_directory_of_empty_files_is_rejected(rehearse: Rehearse) -> None:
    (rehearse.directory / "box").mkdir()
    (rehearse.directory / "box/1.eml").touch()
    result = rehearse("-c", "true", "box")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "rehearse: no message in 'box': it is empty\n"


# Exit status


@pytest.mark.parametrize("command", ["nosuchcommand", "/nonexistent/filter", "./1.eml", "/tmp"])
@pytest.mark.parametrize("expected", [[], ["--expect", "fail"], ["--expect", "accept"]])
def test_expectation_does_not_hide_filter_start_failure(
    rehearse: Rehearse, command: str, expected: list[str]
) -> None:
    result = rehearse("--brief", "-c", command, *expected, *saved(rehearse, MESSAGE))
    assert result.returncode == 1
    assert ("1 message did not have the expected verdict" in result.stdout) == bool(expected)


def test_missing_filter_interpreter_causes_exit_status_1(rehearse: Rehearse) -> None:
    script = rehearse.directory / "filter"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    assert rehearse("-c", str(script), *saved(rehearse, MESSAGE)).returncode == 1


# Records of the observer


def end_with(records: Records, text: bytes) -> FilterRun:
    (records.path / "environment").write_bytes(b"/email\0/out\0")
    (records.path / "stderr").write_bytes(b"words\n")
    (records.path / "end").write_bytes(text)
    run = records.run()
    assert run is not None
    return run


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "records", None) as records:
        yield records


def test_records_of_filter_runs_are_read(records: Records) -> None:
    run = end_with(records, b"0 filled 0.250000\n")
    assert run.environment == {"EMAIL": b"/email", "OUTFILE": b"/out"}
    assert (run.status, run.stderr, run.seconds, run.outfile) == (0, b"words\n", 0.25, "filled")


@pytest.mark.parametrize("end", [b"", b"abc", b"-1", b"9" * 5000, b"0 stolen 1.000000\n", b"\0"])
def test_filter_run_without_exit_record_counts_as_killed(records: Records, end: bytes) -> None:
    run = end_with(records, end)
    assert (run.status, run.seconds, run.outfile) == (None, None, "empty")


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("name", RECORDS)
def test_link_in_place_of_record_is_not_read(
    tmp_path: Path, records: Records, name: str, plant: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "secret").write_bytes(b"secret\0")
    (records.path / "environment").write_bytes(b"/email\0")
    (records.path / name).unlink()
    plant(records.path / name, tmp_path / "secret")
    assert "secret" not in repr(records.run())


CHANGES = {
    "removes": 'rm -rf "$R"',
    "renames": 'mv "$R" "$R.old"',
    "empties": 'truncate -s 0 "$R"/*',
    "links": 'ln -sf /dev/null "$R/end"; ln -sf /dev/null "$R/stderr"',
    "forbids": 'chmod 0 "$R"',
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("end", "verdict"),
    [("exit 0", "accept"), ("exit 1", "reject"), ("exit 3", "fail"), ("kill -9 $$", "fail")],
)
def test_modified_records_do_not_change_verdict(
    rehearse: Rehearse, change: str, end: str, verdict: str
) -> None:
    script = (
        f'R=$(dirname "$OUTFILE")/filter; echo 550 no >&2; {{ {CHANGES[change]}; }} 2>/dev/null'
    )
    message = rehearse.one(f"{script}; {end}", "--strict")
    assert message["verdict"] == verdict
    assert message["filter"]["stderr"] == "550 no\n"


def test_signal_to_process_group_does_not_affect_rehearsal(rehearse: Rehearse) -> None:
    assert rehearse.one("trap '' TERM; kill 0; echo 550 no >&2; exit 1")["reply"] == "550 no"


def test_filter_standard_error_is_pipe(rehearse: Rehearse) -> None:
    command = "echo 1 >/dev/stderr; echo 2 >&2; echo 550 last >/dev/stderr; exit 1"
    message = rehearse.one(command)
    assert message["filter"]["stderr"] == "1\n2\n550 last\n"


def test_observer_does_not_change_environment(rehearse: Rehearse) -> None:
    names = rehearse.one("env >&2")["filter"]["stderr"]
    found = {line.partition("=")[0] for line in names.splitlines()}
    assert found - {*VARIABLES, "PATH", "PWD", "LC_CTYPE"} - {"b@example.org"} == set()


@pytest.mark.parametrize("sizes", [[1, 2, 3], [9, 9, 9, 1], [100], [8, 8, 1] * 50])
def test_record_always_ends_with_last_octets_of_input(tmp_path: Path, sizes: list[int]) -> None:
    whole = b""
    with (tmp_path / "record").open("w+b", 0) as file:
        tail = Tail(file.fileno(), kept=8)
        for number, size in enumerate(sizes):
            data = bytes([number]) * size
            whole += data
            tail.add(data)
            record = (tmp_path / "record").read_bytes()
            assert record.endswith(whole[-8:])
            assert len(record) <= 16


def test_standard_error_over_limit_is_discarded(rehearse: Rehearse) -> None:
    command = (
        f"yes | head -c 20000000 >&2; du -s {rehearse.temporary} | cut -f 1 >&2; "
        "echo 550 last >&2; exit 1"
    )
    message = rehearse.one(command)
    assert message["reply"] == "550 last"
    assert len(message["filter"]["stderr"]) == STDERR_KEPT
    assert int(message["filter"]["stderr"].split("\n")[-3]) < 2000


# Syntax errors in the command


@pytest.mark.parametrize("command", ["exit 0 )", "'", "if"])
@pytest.mark.parametrize("expected", [[], ["--expect", "fail"]])
def test_syntax_error_causes_exit_status_1(
    rehearse: Rehearse, command: str, expected: list[str]
) -> None:
    result = rehearse("-c", command, *expected, *saved(rehearse, MESSAGE))
    assert result.returncode == 1
    assert "the shell cannot parse the command" in result.stdout


def test_syntax_error_after_exit_is_ignored(rehearse: Rehearse) -> None:
    assert rehearse("-c", "exit 0\n)", *saved(rehearse, MESSAGE)).returncode == 0


# Large files, directories and numbers


def test_large_timeout_is_accepted(rehearse: Rehearse) -> None:
    assert rehearse.one("true", "-t", "99999999999")["verdict"] == "accept"


def test_large_repeat_count_does_not_allocate_list(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = options.parse(["--repeat", "999999999", "-c", "true"])
    monkeypatch.setattr(command, "rehearse", lambda mail, *_: not_rehearsed(mail.name, "test"))
    each = command._rehearsals(sources.found(settings.messages), settings, 80)
    assert next(iter(each))[1].outcome.reason == "test"


def test_repeat_count_over_maximum_is_rejected(rehearse: Rehearse) -> None:
    result = rehearse("--repeat", "1000000000")
    assert (result.returncode, "must be a whole number from 1" in result.stderr) == (2, True)


def test_deeply_nested_directories_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        Path("a").mkdir()
        os.chdir("a")
    Path("m.eml").write_bytes(MESSAGE)
    os.chdir(tmp_path)
    assert [source.read() for source in sources.found([Path("a")])] == [MESSAGE]
    subprocess.run(["/bin/rm", "-rf", "a"], cwd=tmp_path, check=True)


def test_unreadable_directory_does_not_affect_other_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = Access.entries

    def fails(access: Access, path: Path) -> dict[str, str]:
        if path.name == "b":
            raise PermissionError
        return entries(access, path)

    monkeypatch.setattr(Access, "entries", fails)
    (tmp_path / "b").mkdir()
    for name in ("a.eml", "c.eml"):
        (tmp_path / name).write_bytes(MESSAGE)
    found = sources.found([tmp_path])
    assert [Path(source.name).name for source in found] == ["a.eml", "b", "c.eml"]
    with pytest.raises(IsADirectoryError):
        found[1].read()


def test_sparse_file_does_not_affect_other_messages(rehearse: Rehearse) -> None:
    names = saved(rehearse, MESSAGE, MESSAGE)
    os.truncate(rehearse.directory / names[1], 3 << 30)
    result = rehearse("--json", "-c", "true", *names)
    assert (result.returncode, verdicts(result.stdout)["1.eml"]) == (1, "accept")
    assert result.stderr == "rehearse: cannot read the message '2.eml': larger than 256 MiB\n"


def test_endless_device_does_not_affect_other_messages(
    rehearse: Rehearse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "LIMIT", 1 << 20)
    good, bad = sources.found(
        [Path(rehearse.directory / rehearse.save(MESSAGE)), Path("/dev/zero")]
    )
    assert good.read() == MESSAGE
    with pytest.raises(OSError, match="larger than"):
        bad.read()


def test_from_line_after_long_line_is_not_a_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LINE", 100)
    separator = b"From ann@example.net Mon Jan  6 12:00:00 2025\n"
    box = tmp_path / "inbox"
    box.write_bytes((separator + MESSAGE + b"x" * 100 + b"\n" + separator + b"\n") * 2)
    assert len(sources.found([box])) == 2


# Long file names

LONG = "a" * 300


def test_long_command_word_is_not_treated_as_file() -> None:
    settings = options.parse(["-c", f"sh -c ': {LONG}'"])
    assert set(watch.state(settings)) == set(settings.messages)


@pytest.mark.parametrize("name", [LONG, f"{LONG}/x"])
def test_long_file_name_causes_usage_error(rehearse: Rehearse, name: str) -> None:
    result = rehearse("--junit", name, "-c", "true")
    assert (result.returncode, "File name too long" in result.stderr) == (2, True)


# Standard streams


def shell(rehearse: Rehearse, words: str) -> subprocess.CompletedProcess[str]:
    line = f"{shlex.join(COMMAND_LINE)} --brief -c true {words}"
    return subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=rehearse.directory,
        env=rehearse.environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "stderr"),
    [
        (">&-", "standard output is closed"),
        (">/dev/full", "cannot write to standard output: No space left on device"),
        ("--json >/dev/full", "cannot write to standard output: No space left on device"),
        ("--help >/dev/full", "cannot write to standard output: No space left on device"),
        ("- <&-", "standard input is closed"),
    ],
)
def test_unusable_standard_stream_causes_exit_status_1(
    rehearse: Rehearse, words: str, stderr: str
) -> None:
    result = shell(rehearse, words)
    assert (result.returncode, result.stderr) == (1, f"rehearse: {stderr}\n")


@pytest.mark.parametrize("words", ["missing 2>/dev/full", "missing 2>&-"])
def test_unusable_standard_error_does_not_change_exit_status(
    rehearse: Rehearse, words: str
) -> None:
    result = shell(rehearse, words)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "")


# Output file of --junit


def test_junit_report_is_written_to_device(rehearse: Rehearse) -> None:
    result = rehearse("--brief", "-c", "true", "--junit", "/dev/null", rehearse.save(MESSAGE))
    assert (result.returncode, Path("/dev/null").is_char_device()) == (0, True)


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_junit_report_is_written_to_standard_output(rehearse: Rehearse, path: str) -> None:
    shell(rehearse, f"--junit {path} {rehearse.save(MESSAGE)} >out")
    text = (rehearse.directory / "out").read_text()
    assert text.startswith("Rehearsal: ")
    assert text.endswith("</testsuite>")


@pytest.mark.parametrize("option", ["--json", "--github"])
def test_junit_report_on_standard_output_excludes_other_formats(
    rehearse: Rehearse, option: str
) -> None:
    result = rehearse("-c", "true", option, "--junit", "/dev/stdout")
    assert (result.returncode, "--junit: must be a file if" in result.stderr) == (2, True)


def test_junit_report_is_written_to_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    target.write(tmp_path / "fifo", b"xml")
    assert os.read(reader, 10) == b"xml"
    os.close(reader)


def test_junit_option_rejects_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious\n")
    (tmp_path / "out.xml").symlink_to(tmp_path / "precious")
    with pytest.raises(CannotRunError, match="not a symbolic link"):
        target.write(tmp_path / "out.xml", b"xml")
    assert (tmp_path / "precious").read_text() == "precious\n"


# Workflow commands on standard error


@pytest.mark.parametrize("words", [["##[error]x"], ["--##[error]x"]])
def test_error_message_contains_no_workflow_command(rehearse: Rehearse, words: list[str]) -> None:
    result = rehearse("--github", "-c", "true", *words)
    assert ("##[" in result.stderr, "##\\x5berror" in result.stderr) == (False, True)


# Output for GitHub


@pytest.mark.parametrize(
    ("name", "path", "shown"),
    [
        ("a:b,c.eml", "a%3Ab%2Cc.eml", "a:b,c.eml"),
        ("100%.eml", "100%25.eml", "100%25.eml"),
        ("a\nb\r.eml", "a%0Ab%0D.eml", "a%0Ab%0D.eml"),
        ("a%0A::error::b.eml", "a%250A%3A%3Aerror%3A%3Ab.eml", "a%250A::error::b.eml"),
        ("a\x1b[31m\x85.eml", "a\\x1b[31m\\x85.eml", "a\\x1b[31m\\x85.eml"),
    ],
)
def test_file_name_is_escaped_for_github(
    rehearse: Rehearse, name: str, path: str, shown: str
) -> None:
    text = rehearse("--github", "--expect", "reject", "-c", "true", rehearse.save(MESSAGE, name))
    (line,) = (line for line in text.stdout.splitlines() if line.lstrip().startswith("::"))
    assert line == (
        f"::error file={path},title=postprox-rehearse::{shown}: expected reject, got accept"
    )


def test_percent_sign_in_reply_is_escaped_for_github(rehearse: Rehearse) -> None:
    command = "printf '550 a%%0Ab\\n' >&2; exit 1"
    text = rehearse("--github", "--expect", "accept", "-c", command, rehearse.save(MESSAGE)).stdout
    assert text.splitlines()[-1].endswith("got reject: 550 a%250Ab")


COMMANDS = ["::set-output name=x::y", " \t::add-mask::x", "##[stop-commands]x", "x ##[error]y"]


@pytest.mark.parametrize("text", COMMANDS)
def test_message_cannot_insert_workflow_command_into_report(rehearse: Rehearse, text: str) -> None:
    content = MESSAGE + f"{text}\nbefore\n{text}\n".encode()
    command = f"""sed s/before/after/ "$EMAIL" >"$OUTFILE"; printf '{"x" * 70} {text}\\n' >&2"""
    name = rehearse.save(content)
    printed = rehearse("--github", "-c", command, name).stdout
    lines = [line.lstrip() for line in printed.splitlines()]
    assert [line for line in lines if line.startswith("::") or "##[" in line] == []
    assert "after" in printed


# Command line


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_option_prints_version(rehearse: Rehearse, option: str) -> None:
    assert rehearse(option).stdout == f"postprox-rehearse {__version__}\n"


def test_invalid_option_is_printed_without_control_characters(rehearse: Rehearse) -> None:
    result = rehearse("--\x1b[31m.eml")
    assert (result.returncode, "\x1b" in result.stderr) == (2, False)
