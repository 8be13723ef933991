"""postprox.rehearse: messages, filters and users that work against it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postprox import __version__
from postprox.rehearse import __main__ as command
from postprox.rehearse import ci, mail, options, sources
from postprox.rehearse.errors import CannotRunError
from postprox.rehearse.filterrun import FilterRun, Records
from postprox.rehearse.proxy import User
from tests.unit.rehearsing import MESSAGE, Rehearse

# Each of these is an address field that the email package raises an exception for.
UNPARSABLE = {"comments": b"(" * 2000, "groups": b"x:" * 2000}


def saved(rehearse: Rehearse, *contents: bytes) -> list[str]:
    """Write messages; return their names."""
    return [
        rehearse.save(content, f"{number}.eml") for number, content in enumerate(contents, start=1)
    ]


def verdicts(stdout: str) -> dict[str, str]:
    return {each["message"]: each["verdict"] for each in json.loads(stdout)["messages"]}


# One message and the others.


@pytest.mark.parametrize("name", ["From", "To", "Return-Path"])
@pytest.mark.parametrize("field", UNPARSABLE)
def test_address_field_that_cannot_be_parsed_ends_nothing(
    rehearse: Rehearse, name: str, field: str
) -> None:
    bad = name.encode() + b": " + UNPARSABLE[field] + b"\n\nhi\n"
    result = rehearse("--json", "-c", "true", *saved(rehearse, bad, MESSAGE))
    assert (result.returncode, result.stderr) == (0, "")
    assert verdicts(result.stdout) == {"1.eml": "accept", "2.eml": "accept"}


@pytest.mark.parametrize("error", [RecursionError, MemoryError, IndexError, ValueError])
def test_any_error_of_the_parser_leaves_the_default_envelope(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(_: list[str]) -> list[tuple[str, str]]:
        raise error

    monkeypatch.setattr(mail, "getaddresses", fails)
    message = mail.from_octets("x", MESSAGE)
    assert (message.sender, message.recipients) == (mail.SENDER, (mail.RECIPIENT,))


def test_address_longer_than_smtp_has_is_left_out() -> None:
    message = mail.from_octets("x", b"To: " + b"a" * 250 + b"@b.example\n\nhi\n")
    assert message.recipients == (mail.RECIPIENT,)


def test_message_that_is_gone_at_its_turn_leaves_the_others(rehearse: Rehearse) -> None:
    names = saved(rehearse, MESSAGE, MESSAGE, MESSAGE)
    result = rehearse("--json", "-c", f"rm -f {rehearse.directory / names[1]}", *names)
    assert result.returncode == 1
    assert verdicts(result.stdout) == {"1.eml": "accept", "2.eml": "error", "3.eml": "accept"}
    assert result.stderr == (
        "rehearse: cannot read the message '2.eml': No such file or directory\n"
    )


def test_message_that_is_gone_is_shown_in_the_report(rehearse: Rehearse) -> None:
    names = saved(rehearse, MESSAGE, MESSAGE)
    result = rehearse("-c", f"rm -f {rehearse.directory / names[1]}", *names)
    assert "\n[2/2] 2.eml: NOT HANDLED, refused for now\n" in result.stdout
    assert "\n  Failure: cannot read the message '2.eml': No such file" in result.stdout


def test_message_too_large_for_the_memory_leaves_the_others(
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
    assert printed.err == ("rehearse: cannot read the message '1.eml': too large for the memory\n")


# Empty files.


@pytest.mark.parametrize("arguments", [["1.eml"], ["-"], ["/dev/null"]])
def test_empty_file_is_no_message(rehearse: Rehearse, arguments: list[str]) -> None:
    saved(rehearse, b"")
    result = rehearse("-c", "true", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"rehearse: no message in {arguments[0]!r}: it is empty\n"


def test_empty_file_in_a_directory_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "1.eml").touch()
    (tmp_path / "2.eml").write_bytes(MESSAGE)
    assert [source.name for source in sources.found([tmp_path])] == [str(tmp_path / "2.eml")]


def test_directory_of_empty_files_has_no_message(rehearse: Rehearse) -> None:
    (rehearse.directory / "box").mkdir()
    (rehearse.directory / "box/1.eml").touch()
    result = rehearse("-c", "true", "box")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "rehearse: no message in 'box': it is empty\n"


# The exit status.


@pytest.mark.parametrize("command", ["nosuchcommand", "/nonexistent/filter", "./1.eml", "/tmp"])
@pytest.mark.parametrize("expected", [[], ["--expect", "fail"], ["--expect", "accept"]])
def test_filter_that_cannot_be_started_is_exit_status_1_whatever_is_expected(
    rehearse: Rehearse, command: str, expected: list[str]
) -> None:
    result = rehearse("--brief", "-c", command, *expected, *saved(rehearse, MESSAGE))
    assert result.returncode == 1
    assert ("1 message was not." in result.stdout) == bool(expected)


def test_filter_whose_interpreter_is_missing_is_exit_status_1(rehearse: Rehearse) -> None:
    script = rehearse.directory / "filter"
    script.write_text("#!/nonexistent/interpreter\n")
    script.chmod(0o755)
    assert rehearse("-c", str(script), *saved(rehearse, MESSAGE)).returncode == 1


# What the filter's user puts in the place of the records.


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    """Records of a filter that was run and passed the message."""
    with Records(tmp_path / "records", None) as records:
        (records.path / "environment").write_bytes(b"/email\0/out\0")
        for name, text in [("stderr", "words\n"), ("end", ""), ("outfile", "filled\n")]:
            (records.path / name).write_text(text)
        (records.path / "status").write_text("0\n")
        yield records


def seen(records: Records) -> FilterRun:
    run = records.run()
    assert run is not None
    return run


def test_records_of_a_filter(records: Records) -> None:
    run = seen(records)
    assert run.environment == {"EMAIL": b"/email", "OUTFILE": b"/out"}
    assert (run.status, run.stderr, run.outfile) == (0, b"words\n", "filled")
    assert run.seconds is not None


def symbolic_link(path: Path, secret: Path) -> None:
    path.symlink_to(secret)


def hard_link(path: Path, secret: Path) -> None:
    path.hardlink_to(secret)


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def directory(path: Path, _: Path) -> None:
    path.mkdir()


Plant = Callable[[Path, Path], None]


@pytest.mark.parametrize("plant", [symbolic_link, hard_link, fifo, directory])
@pytest.mark.parametrize("name", ["stderr", "status", "outfile", "end", "environment"])
def test_record_that_is_not_the_filters_own_file_is_not_read(
    tmp_path: Path, records: Records, name: str, plant: Plant
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"1\0secret\0")
    (records.path / name).unlink()
    plant(records.path / name, secret)
    run = records.run()
    assert (run is None) == (name == "environment")
    if run is not None:
        assert b"secret" not in run.stderr
        assert (run.status, run.outfile, run.seconds) != (1, "filled", 0.0)


def test_link_in_the_place_of_the_records_is_not_followed(tmp_path: Path, records: Records) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/stderr").write_text("secret\n")
    records.path.rename(tmp_path / "aside")
    records.path.symlink_to(tmp_path / "other")
    assert seen(records).stderr == b"words\n"


@pytest.mark.parametrize("status", [b"", b"abc", b"-1", b"9" * 5000, b"\xc2\xb2", b"1 2", b"\0"])
def test_status_that_is_no_number_is_that_of_a_killed_filter(
    records: Records, status: bytes
) -> None:
    (records.path / "status").write_bytes(status)
    assert seen(records).status is None


@pytest.mark.parametrize("made", [b"", b"\xff\xfe", b"stolen\n"])
def test_unknown_word_for_the_outfile_is_empty(records: Records, made: bytes) -> None:
    (records.path / "outfile").write_bytes(made)
    assert seen(records).outfile == "empty"


def test_filter_that_closes_its_records_ends_nothing(rehearse: Rehearse) -> None:
    command = 'R=$(dirname "$OUTFILE")/filter; echo x >"$R/status"; chmod 0 "$R"; kill -9 0'
    result = rehearse("--json", "-c", command, *saved(rehearse, MESSAGE, MESSAGE))
    assert (len(verdicts(result.stdout)), result.stderr) == (2, "")


# Messages that belong to the user of --user.

ME = User("me", os.geteuid(), os.getegid())
ANOTHER = User("another", os.geteuid() + 1, os.getegid())


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A directory with a message, and a link to one."""
    (tmp_path / "secret").write_bytes(MESSAGE)
    box = tmp_path / "box"
    box.mkdir()
    (box / "1.eml").write_bytes(MESSAGE)
    (box / "2.eml").symlink_to(tmp_path / "secret")
    return box


def test_link_of_the_user_among_messages_is_not_followed(box: Path) -> None:
    message, link = sources.found([box], ME)
    assert message.read() == MESSAGE
    with pytest.raises(PermissionError, match="a link or FIFO of user me"):
        link.read()


def test_link_of_the_user_given_by_name_is_not_followed(box: Path) -> None:
    with pytest.raises(CannotRunError, match=r"2\.eml': a link or FIFO of user me"):
        sources.found([box / "2.eml"], ME)


def test_link_of_somebody_else_is_followed(box: Path) -> None:
    assert [source.read() for source in sources.found([box], ANOTHER)] == [MESSAGE, MESSAGE]


def test_link_that_comes_after_the_look_is_not_followed(box: Path) -> None:
    (source,) = sources.found([box / "1.eml"], ME)
    (box / "1.eml").unlink()
    (box / "1.eml").symlink_to(box.parent / "secret")
    with pytest.raises(OSError, match="link"):
        source.read()


def test_link_that_comes_between_look_and_open_is_not_followed(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    with pytest.raises(CannotRunError, match="Too many levels of symbolic links"):
        sources.found([box / "2.eml"], ME)


def test_fifo_of_the_user_given_by_name_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.eml")
    with pytest.raises(CannotRunError, match="a link or FIFO of user me"):
        sources.found([tmp_path / "1.eml"], ME)


def test_fifo_that_comes_after_the_look_is_refused(box: Path) -> None:
    (source,) = sources.found([box / "1.eml"], ME)
    (box / "1.eml").unlink()
    os.mkfifo(box / "1.eml")
    with pytest.raises(PermissionError, match="a link or FIFO of user me"):
        source.read()


def test_pipe_of_another_user_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, MESSAGE)
    os.close(writer)
    (source,) = sources.found([Path(f"/dev/fd/{reader}")], ANOTHER)
    os.close(reader)
    assert source.read() == MESSAGE


# What GitHub and JUnit read.


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
        f"::error file={path},title=postprox-rehearse::{shown}: expected reject, but it was accept"
    )


def test_percent_sign_of_a_reply_is_escaped_for_github(rehearse: Rehearse) -> None:
    command = "printf '550 a%%0Ab\\n' >&2; exit 1"
    text = rehearse("--github", "--expect", "accept", "-c", command, rehearse.save(MESSAGE)).stdout
    assert text.splitlines()[-1].endswith("but it was reject: 550 a%250Ab")


COMMANDS = ["::set-output name=x::y", " \t::add-mask::x", "##[stop-commands]x", "x ##[error]y"]


@pytest.mark.parametrize("text", COMMANDS)
def test_report_holds_no_workflow_command_of_a_message(rehearse: Rehearse, text: str) -> None:
    content = MESSAGE + f"{text}\nbefore\n{text}\n".encode()
    command = f"""sed s/before/after/ "$EMAIL" >"$OUTFILE"; printf '{"x" * 70} {text}\\n' >&2"""
    name = rehearse.save(content)
    printed = rehearse("--github", "-c", command, name).stdout
    lines = [line.lstrip() for line in printed.splitlines()]
    assert [line for line in lines if line.startswith("::") or "##[" in line] == []
    assert "after" in printed


def test_link_in_the_place_of_the_junit_file_is_not_followed(rehearse: Rehearse) -> None:
    settings = options.parse(["-c", "true"])
    target = rehearse.directory / "target"
    target.write_text("precious\n")
    (rehearse.directory / f"out.xml.{os.getpid()}").symlink_to(target)
    (rehearse.directory / "out.xml").symlink_to(target)
    ci.write_junit(rehearse.directory / "out.xml", settings, [])
    assert target.read_text() == "precious\n"


# The command line.


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(rehearse: Rehearse, option: str) -> None:
    assert rehearse(option).stdout == f"postprox-rehearse {__version__}\n"


def test_wrong_option_is_printed_without_control_characters(rehearse: Rehearse) -> None:
    result = rehearse("--\x1b[31m.eml")
    assert (result.returncode, "\x1b" in result.stderr) == (2, False)
