"""postprox-rehearse: the report for each verdict, the dialogue, messages and errors."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from postprox.rehearse import mail
from postprox.rehearse.client import HELLO
from postprox.rehearse.dialogue import CLIENT, COMMAND, PROXY, REPLY, UPSTREAM, Dialogue, merged
from postprox.rehearse.filterrun import FilterRun
from postprox.rehearse.outcome import Conditions, judge
from postprox.rehearse.rehearsal import difference
from tests.unit.rehearsing import COMMAND_LINE, MESSAGE, ROOT, Rehearse

pytestmark = pytest.mark.any_account

# Demonstration


def test_demonstration_shows_three_verdicts(rehearse: Rehearse) -> None:
    result = rehearse()
    assert "\n3 messages: 1 accepted, 1 rejected, 1 rewritten\n" in result.stdout
    assert (result.returncode, result.stderr) == (0, "")


def test_first_line_describes_rehearsal(rehearse: Rehearse) -> None:
    first = rehearse().stdout.splitlines()[0]
    assert first == "Rehearsal: 3 messages go through the real proxy. Nothing leaves this machine."


def test_last_line_suggests_next_command(rehearse: Rehearse) -> None:
    assert rehearse().stdout.splitlines()[-1].endswith("-c ./your-filter MESSAGE.eml")


def test_demonstration_fits_in_80_columns(rehearse: Rehearse) -> None:
    rehearse.temporary = Path("/tmp")
    rehearse.environment["TMPDIR"] = "/tmp"
    assert [line for line in rehearse().stdout.splitlines() if len(line) > 80] == []


def test_demonstration_removes_temporary_files(rehearse: Rehearse) -> None:
    rehearse()
    assert list(rehearse.temporary.iterdir()) == []


def test_demonstration_rejects_message_with_550_reply(rehearse: Rehearse) -> None:
    messages = json.loads(rehearse("--json").stdout)["messages"]
    assert [message["reply"][:4] for message in messages] == ["250 ", "550 ", "250 "]


# Verdicts in the JSON document and in the report


def test_exit_status_0_accepts_message(rehearse: Rehearse) -> None:
    message = rehearse.one("true")
    assert (message["verdict"], message["delivered"], message["diff"]) == ("accept", True, [])


def test_rejection_contains_filter_reply(rehearse: Rehearse) -> None:
    message = rehearse.one("echo no >&2; exit 1")
    seen = (message["verdict"], message["reply"], message["received"], message["diff"])
    assert seen == ("reject", "554 no", None, None)


def test_written_outfile_replaces_message(rehearse: Rehearse) -> None:
    message = rehearse.one('sed s/hello/bye/ "$EMAIL" >"$OUTFILE"')
    assert message["verdict"] == "rewrite"
    assert message["received"].endswith("\r\n\r\nbye\r\n")
    assert message["diff"][-2:] == ["-hello", "+bye"]


def test_rewrite_with_same_content_has_empty_diff(rehearse: Rehearse) -> None:
    message = rehearse.one('cat "$EMAIL" >"$OUTFILE"')
    assert (message["verdict"], message["diff"]) == ("rewrite", [])


def test_reply_code_250_discards_message(rehearse: Rehearse) -> None:
    message = rehearse.one("echo 250 gone >&2; exit 1")
    seen = (message["verdict"], message["reply"], message["delivered"])
    assert seen == ("discard", "250 gone", False)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 2", "exit status 2"),
        ("kill -9 $$", "killed by signal 9 (SIGKILL)"),
        ("exit 255", "exit status 255"),
        ("kill -9 0", "killed together with its process group"),
        ('rm "$OUTFILE"; mkdir "$OUTFILE"', "OUTFILE is not a readable regular file"),
    ],
)
def test_message_is_delivered_after_filter_failure(
    rehearse: Rehearse, command: str, reason: str
) -> None:
    message = rehearse.one(command)
    assert (message["verdict"], message["delivered"]) == ("fail-open", True)
    assert reason in message["reason"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("nosuchcommand", "exit status 127: the shell did not find the command"),
        ("./message.eml", "exit status 126: the command cannot be executed"),
    ],
)
def test_filter_start_failure_causes_exit_status_1(
    rehearse: Rehearse, command: str, reason: str
) -> None:
    message = rehearse.one(command, status=1)
    assert (message["verdict"], message["delivered"]) == ("fail-open", True)
    assert reason in message["reason"]


def test_filter_failure_with_reject_option_causes_451_reply(rehearse: Rehearse) -> None:
    message = rehearse.one("exit 2", "-r")
    assert (message["verdict"], message["delivered"]) == ("fail", False)
    assert message["reply"].startswith("451 ")


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        ("echo 550 5.7.1 no >&2; exit 1", "reject"),
        ("echo 250 gone >&2; exit 1", "discard"),
        ("echo 354 go on >&2; exit 1", "fail"),
        ("echo no >&2; exit 1", "fail"),
        ("exit 1", "fail"),
        ("exit 2", "fail"),
        ("python3 -c 'raise ValueError'", "fail"),
        ("true", "accept"),
    ],
)
def test_strict_option_requires_reply_code_for_rejection(
    rehearse: Rehearse, command: str, verdict: str
) -> None:
    message = rehearse.one(command, "--strict")
    assert (message["verdict"], message["hints"]) == (verdict, [])


def test_report_explains_effect_of_strict_option(rehearse: Rehearse) -> None:
    text = rehearse("--strict", "-c", "exit 1", rehearse.save(MESSAGE)).stdout
    assert "If the filter fails, the message is refused with 451 (--strict)." in text
    assert "exit status 1 without a reply code (--strict)" in text


def test_filter_timeout_is_reported(rehearse: Rehearse) -> None:
    message = rehearse.one("echo working >&2; sleep 60", "-t", "0.2")
    assert (message["verdict"], message["timed_out"]) == ("fail-open", True)
    assert message["filter"]["status"] is None
    assert message["filter"]["stderr"] == "working\n"


def test_filter_timeout_with_reject_option_causes_451_reply(rehearse: Rehearse) -> None:
    message = rehearse.one("sleep 60", "-rt0.2")
    assert (message["verdict"], message["timed_out"]) == ("fail", True)


def test_timeout_kills_children_of_filter(rehearse: Rehearse) -> None:
    fifo = rehearse.directory / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    rehearse.one(f"exec 3>{fifo}; sleep 60 & sleep 60", "-t", "0.2")
    os.set_blocking(reader, True)
    # The call does not block because no process has opened the FIFO for writing.
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_unusable_spool_directory_is_reported(rehearse: Rehearse) -> None:
    message = rehearse.one("true", "-d", "/nonexistent", status=1)
    assert (message["verdict"], message["filter"]) == ("error", None)
    assert message["reply"].startswith("452 ")


def test_filter_reply_452_counts_as_rejection(rehearse: Rehearse) -> None:
    assert rehearse.one("echo 452 4.3.1 full >&2; exit 1")["verdict"] == "reject"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("true", "ACCEPTED"),
        ("echo 550 5.7.1 no >&2; exit 1", "REJECTED"),
        ('echo x >"$OUTFILE"', "REWRITTEN"),
        ("echo 250 >&2; echo 250 ok >&2; exit 1", "DISCARDED"),
        ("exit 3", "FILTER FAILED, passed unfiltered"),
    ],
)
def test_headline_contains_verdict(rehearse: Rehearse, command: str, words: str) -> None:
    result = rehearse("-c", command, rehearse.save(MESSAGE))
    assert f"\n[1/1] message.eml: {words}\n" in result.stdout


@pytest.mark.parametrize("option", [[], ["-r"]])
def test_failure_report_explains_reject_option(rehearse: Rehearse, option: list[str]) -> None:
    text = rehearse("-c", "exit 2", *option, rehearse.save(MESSAGE)).stdout
    assert "ith -r" in text
    assert "ithout -r" in text


def test_failing_filter_does_not_fail_rehearsal(rehearse: Rehearse) -> None:
    assert rehearse("-c", "exit 2", rehearse.save(MESSAGE)).returncode == 0


def test_report_shows_diff(rehearse: Rehearse) -> None:
    message = rehearse.save(MESSAGE)
    text = rehearse("-c", 'sed s/hello/bye/ "$EMAIL" >"$OUTFILE"', message).stdout
    assert "\n    -hello\n    +bye\n" in text


def test_report_shows_standard_error(rehearse: Rehearse) -> None:
    text = rehearse("-c", "echo one >&2; echo two >&2", rehearse.save(MESSAGE)).stdout
    assert "\n    | one\n    | two\n" in text


def test_crash_of_python_filter_is_reported(rehearse: Rehearse) -> None:
    (hint,) = rehearse.one("python3 -c 'raise ValueError'")["hints"]
    assert "crash" in hint


def test_silent_rejection_is_reported(rehearse: Rehearse) -> None:
    (hint,) = rehearse.one("exit 1")["hints"]
    assert "without output" in hint


def test_relative_command_is_reported(rehearse: Rehearse) -> None:
    text = rehearse("-c", "./message.eml", rehearse.save(MESSAGE)).stdout
    assert "full path" in text.splitlines()[-1]


def test_report_shows_subject(rehearse: Rehearse) -> None:
    message = rehearse.save("Subject: Gr\u00fc\u00dfe\r\n\r\nhello\r\n".encode())
    assert "\n  Subject: Gr\u00fc\u00dfe\n" in rehearse("-c", "true", message).stdout


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("true", "exit status 0 (pass) after"),
        ('echo x >"$OUTFILE"', "exit status 0 (pass), OUTFILE is not empty"),
        ("exit 1", "exit status 1 (reject) after"),
        ("exit 2", "failed after"),
    ],
)
def test_dialogue_shows_filter_exit(rehearse: Rehearse, command: str, text: str) -> None:
    shown = rehearse("-c", command, rehearse.save(MESSAGE)).stdout
    assert f"\n          filter            {text}" in shown


# Filter execution


def test_report_shows_environment(rehearse: Rehearse) -> None:
    text = rehearse("-c", "true", rehearse.save(MESSAGE)).stdout
    for line in (
        "    SENDER          ann@example.net",
        "    RECIPIENT       ben@example.org",
        "    REMOTEIP        192.0.2.1",
        "    HELO            mail.example.net",
    ):
        assert f"\n{line}\n" in text
    assert "\n    EMAIL           /" in text
    assert "\n    OUTFILE         /" in text


def test_all_recipients_are_in_environment(rehearse: Rehearse) -> None:
    more = ("--recipient", "a@example.org", "--recipient", "b@example.org")
    environment = rehearse.one("true", *more)["filter"]["environment"]
    assert environment["RECIPIENTS"] == "a@example.org\nb@example.org"
    assert environment["RECIPIENTCOUNT"] == "2"
    text = rehearse("-c", "true", *more, rehearse.save(MESSAGE)).stdout
    assert "\n    RECIPIENTS      a@example.org, b@example.org\n" in text


def test_filter_environment_is_same_as_under_spawn(rehearse: Rehearse) -> None:
    rehearse.environment["STRANGE"] = "x"
    names = rehearse.one("env >&2")["filter"]["stderr"].split("\n")
    assert "PATH=/usr/bin:/bin" in names
    assert [name for name in names if name.startswith(("STRANGE", "PYTHON", "TMPDIR"))] == []


@pytest.mark.parametrize(
    ("option", "value", "name", "seen"),
    [
        ("--sender", "me@example.com", "SENDER", "me@example.com"),
        ("--sender", "<me@example.com>", "SENDER", "me@example.com"),
        ("--sender", "", "SENDER", "<>"),
        ("--recipient", "you@example.com", "RECIPIENT", "you@example.com"),
        ("--client-ip", "198.51.100.7", "REMOTEIP", "198.51.100.7"),
        ("--client-ip", "2001:db8::1", "REMOTEIP", "2001:db8::1"),
        ("--client-ip", "", "REMOTEIP", ""),
        ("--helo", "a+b=c d$(id)", "HELO", "a+b=c d$(id)"),
    ],
)
def test_envelope_options_set_environment(
    rehearse: Rehearse, option: str, value: str, name: str, seen: str
) -> None:
    assert rehearse.one("true", option, value)["filter"]["environment"][name] == seen


def test_recipient_option_can_be_repeated(rehearse: Rehearse) -> None:
    message = rehearse.one("true", "--recipient", "a@example.org", "--recipient", "b@example.org")
    assert message["envelope"]["recipients"] == ["a@example.org", "b@example.org"]


def test_filter_standard_input_is_empty(rehearse: Rehearse) -> None:
    assert rehearse.one("cat >&2; echo end >&2")["filter"]["stderr"] == "end\n"


def test_command_is_passed_unchanged_to_shell(rehearse: Rehearse) -> None:
    command = "printf '%s\\n' \"it's {0} $((1+1)) \\$x\" >&2; exit 1"
    assert rehearse.one(command)["reply"] == "554 it's {0} 2 $x"


def test_large_standard_error_is_read(rehearse: Rehearse) -> None:
    command = "yes | head -c 3000000 >&2; echo >&2; echo last >&2; exit 1"
    assert rehearse.one(command)["reply"] == "554 last"


def test_background_process_with_open_standard_error_is_not_awaited(rehearse: Rehearse) -> None:
    message = rehearse.one("echo $$ >&2; sleep 3 & exit 0", "-t", "2")
    assert message["verdict"] == "accept"


# Dialogue


def test_client_sends_same_command_sequence_as_postfix(rehearse: Rehearse) -> None:
    said = [
        event["text"].split()[0] if event["kind"] == "command" else event["kind"]
        for event in rehearse.one("true")["dialogue"]
        if event["from"] == "client"
    ]
    assert said == ["EHLO", "XFORWARD", "MAIL", "RCPT", "DATA", "content", "QUIT"]


def test_rejection_sends_quit_upstream_before_client_quits(
    rehearse: Rehearse,
) -> None:
    events = rehearse.one("exit 1")["dialogue"]
    ways = [(event["from"], event["to"]) for event in events]
    assert ways[-5:] == [
        ("proxy", "client"),
        ("proxy", "upstream"),
        ("upstream", "proxy"),
        ("client", "proxy"),
        ("proxy", "client"),
    ]


def test_relayed_command_is_shown_as_one_step() -> None:
    dialogue = Dialogue()
    dialogue.note(CLIENT, PROXY, COMMAND, b"NOOP\r\n")
    dialogue.note(PROXY, UPSTREAM, COMMAND, b"NOOP\r\n")
    dialogue.note(UPSTREAM, PROXY, REPLY, b"250 ok\r\n")
    dialogue.note(PROXY, CLIENT, REPLY, b"250 ok\r\n")
    steps = [(step.source, step.target) for step in merged(dialogue.events)]
    assert steps == [(CLIENT, UPSTREAM), (UPSTREAM, CLIENT)]


def test_proxy_reply_is_shown_as_separate_step() -> None:
    dialogue = Dialogue()
    dialogue.note(CLIENT, PROXY, COMMAND, b"DATA\r\n")
    dialogue.note(PROXY, CLIENT, REPLY, b"354 go\r\n")
    dialogue.note(PROXY, UPSTREAM, COMMAND, b"DATA\r\n")
    steps = [(step.source, step.target) for step in merged(dialogue.events)]
    assert steps == [(CLIENT, PROXY), (PROXY, CLIENT), (PROXY, UPSTREAM)]


def test_common_opening_dialogue_is_shown_only_once(rehearse: Rehearse) -> None:
    assert rehearse().stdout.count(f"EHLO {HELLO.decode()}") == 1


# Messages


@pytest.mark.parametrize(
    "content", [MESSAGE, MESSAGE.replace(b"\n", b"\r\n"), MESSAGE.removesuffix(b"\n")]
)
def test_line_endings_are_converted_to_crlf(rehearse: Rehearse, content: bytes) -> None:
    received = rehearse.one("true", content=content)["received"]
    assert received.encode("latin-1") == MESSAGE.replace(b"\n", b"\r\n")


def test_nul_and_8_bit_octets_are_delivered(rehearse: Rehearse) -> None:
    content = b"Subject: \xe9\n\n\0\xff\x80 \xc3\xa9\n"
    received = rehearse.one("true", content=content)["received"]
    assert received.encode("latin-1") == content.replace(b"\n", b"\r\n")


def test_control_characters_are_escaped_in_report(rehearse: Rehearse) -> None:
    message = rehearse.save(b"Subject: x\n\nhello\n")
    command = r"printf 'Subject: x\n\n\0\033[31m\377\303\251\n' >$OUTFILE"
    text = rehearse("-c", command, message).stdout
    assert "\n    +\\x00\\x1b[31m\\xff\u00e9\n" in text


def test_leading_dots_are_delivered(rehearse: Rehearse) -> None:
    content = b"Subject: x\n\n.\n..\n.x\n"
    received = rehearse.one("true", content=content)["received"]
    assert received.encode("latin-1") == content.replace(b"\n", b"\r\n")


def test_message_with_empty_header_is_delivered(rehearse: Rehearse) -> None:
    assert rehearse.one("true", content=b"\n")["received"] == "\r\n"


def test_dot_after_bare_cr_is_explained(rehearse: Rehearse) -> None:
    text = rehearse("-c", "true", rehearse.save(b"Subject: x\n\na\r.b\n")).stdout
    assert "dot inserted" in text


def test_large_message_is_delivered(rehearse: Rehearse) -> None:
    content = b"Subject: x\n\n" + b"0123456789\n" * 500_000
    message = rehearse.one('{ echo X-A: 1; cat "$EMAIL"; } >"$OUTFILE"', content=content)
    assert message["diff"][2:] == ["@@ -1,2 +1,3 @@", "+X-A: 1", " Subject: x", " "]


def test_omitted_mbox_line_is_noted(rehearse: Rehearse) -> None:
    message = rehearse.one("true", content=b"From ann@example.net Mon Jan  6\n" + MESSAGE)
    assert message["received"].startswith("From: Ann")
    assert "mbox" in message["notes"][0]


@pytest.mark.parametrize("content", [b"\x7fELF\2\1\1", b"hello\n", b"PK\3\4", b" x: y\n"])
def test_file_without_header_field_is_reported(content: bytes) -> None:
    (note,) = mail.from_octets("x", content).notes
    assert "header field" in note


@pytest.mark.parametrize("content", [b"", MESSAGE, b"\nhello\n", b"\r\nhello\r\n"])
def test_valid_message_has_no_note(content: bytes) -> None:
    assert mail.from_octets("x", content).notes == ()


@pytest.mark.parametrize(
    ("header", "sender", "recipients"),
    [
        (b"", b"sender@example.net", (b"recipient@example.org",)),
        (b"From: a@example.com\n", b"a@example.com", (b"recipient@example.org",)),
        (b'From: "x@y, z" <a@example.com>\n', b"a@example.com", (b"recipient@example.org",)),
        (b"Return-Path: <>\nFrom: a@example.com\n", b"", (b"recipient@example.org",)),
        (
            b"return-path: <r@example.com>\nFrom: a@example.com\n",
            b"r@example.com",
            (b"recipient@example.org",),
        ),
        (b"To: A <a@example.com>,\n\tb@example.com\n", b"sender@example.net", None),
        (b"From: \xe9@example.com\n", b"sender@example.net", (b"recipient@example.org",)),
        (b"From: <a b>\0\n", b"sender@example.net", (b"recipient@example.org",)),
        (b"\nFrom: a@example.com\n", b"sender@example.net", (b"recipient@example.org",)),
    ],
)
def test_envelope_is_read_from_header(
    header: bytes, sender: bytes, recipients: tuple[bytes, ...] | None
) -> None:
    message = mail.from_octets("x", header + b"\nhello\n")
    assert message.sender == sender
    assert message.recipients == (recipients or (b"a@example.com", b"b@example.com"))


# Differences


def test_diff_near_end_of_large_message_has_line_number() -> None:
    old = b"".join(b"%d\r\n" % number for number in range(9000))
    lines = difference(old, old.replace(b"\r\n7000\r\n", b"\r\nx\r\n"))
    assert lines is not None
    assert lines[2] == "@@ -6999,5 +6999,5 @@"


def test_very_large_difference_is_not_computed() -> None:
    assert difference(b"a\r\n" * 9000, b"b\r\n" * 9000) is None


# Inconsistent observations


def test_exit_status_that_contradicts_delivery_is_reported_as_error() -> None:
    run = FilterRun({}, 0, b"", 0.1, "empty")
    assert judge(run, Conditions(30, False, 0.1), delivered=False).verdict == "error"


def test_filter_killed_without_exit_record_counts_as_timed_out() -> None:
    assert judge(None, Conditions(0.001, False, 0.002), delivered=True).timed_out


# Errors


def test_missing_message_is_reported(rehearse: Rehearse) -> None:
    result = rehearse("-c", "true", rehearse.save(MESSAGE), "missing.eml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "rehearse: cannot read the message 'missing.eml': No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["-t", "abc"], "-t 'abc': must be"),
        (["-t", "0"], "-t '0': must be"),
        (["--client-ip", "1.2.3"], "--client-ip: '1.2.3' must be an IP address such as"),
        (["--recipient", ""], "--recipient: '' must be an address"),
        (["--sender", "a\nb"], "--sender: 'a\\nb' must not contain control characters"),
        (["--nosuch"], "unrecognized arguments: --nosuch"),
        (["-c"], "-c/--command: expected one argument"),
    ],
)
def test_usage_error_contains_option_and_value(
    rehearse: Rehearse, arguments: list[str], error: str
) -> None:
    result = rehearse(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert error in result.stderr


def test_help_shows_examples(rehearse: Rehearse) -> None:
    result = rehearse("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "-c ./my-filter message.eml" in result.stdout


def test_options_may_follow_messages(rehearse: Rehearse) -> None:
    message = rehearse.save(MESSAGE)
    assert rehearse(message, "-c", "true", message, "-r").returncode == 0


def test_proxy_start_failure_is_reported(rehearse: Rehearse) -> None:
    broken = rehearse.directory / "broken"
    shutil.copytree(ROOT / "postprox", broken / "postprox")
    (broken / "postprox" / "__main__.py").write_text("raise ImportError('half installed')\n")
    rehearse.environment["PYTHONPATH"] = str(broken)
    result = rehearse("-c", "true", rehearse.save(MESSAGE))
    assert result.returncode == 1
    assert result.stderr == (
        "rehearse: message.eml: the proxy failed: unexpected output: ImportError: half installed\n"
    )


# Interrupts and terminal output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_removes_temporary_files(rehearse: Rehearse, number: int) -> None:
    fifo = rehearse.directory / "fifo"
    os.mkfifo(fifo)
    command = f"exec 3>{fifo}; echo started >&3; sleep 60 & sleep 60"
    with (
        subprocess.Popen(
            [*COMMAND_LINE, "-c", command, rehearse.save(MESSAGE)],
            cwd=rehearse.directory,
            env=rehearse.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
        fifo.open("rb") as reader,
    ):
        assert reader.readline() == b"started\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert reader.read() == b""  # All processes of the filter have exited.
    assert (process.returncode, stderr) == (128 + number, b"rehearse: interrupted\n")
    assert list(rehearse.temporary.iterdir()) == []


def test_closed_output_pipe_causes_no_traceback(rehearse: Rehearse) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        COMMAND_LINE, env=rehearse.environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert result.stderr == b""
    assert list(rehearse.temporary.iterdir()) == []


def _on_a_terminal(rehearse: Rehearse, **environment: str) -> bytes:
    terminal, child = pty.openpty()
    with subprocess.Popen(
        [*COMMAND_LINE, "-c", "true", rehearse.save(MESSAGE)],
        cwd=rehearse.directory,
        env=rehearse.environment | {"TERM": "xterm"} | environment,
        stdout=child,
    ):
        os.close(child)
        shown = b""
        try:
            while data := os.read(terminal, 4096):
                shown += data
        except OSError:
            pass  # The command has closed the terminal.
    os.close(terminal)
    return shown


def test_terminal_output_is_coloured(rehearse: Rehearse) -> None:
    assert b"\033[" in _on_a_terminal(rehearse)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_environment_variable_disables_colour_on_terminal(
    rehearse: Rehearse, environment: dict[str, str]
) -> None:
    assert b"\033[" not in _on_a_terminal(rehearse, **environment)


def test_file_output_has_no_colour(rehearse: Rehearse) -> None:
    assert "\033[" not in rehearse().stdout


def test_json_document_contains_verdict_counts(rehearse: Rehearse) -> None:
    document = json.loads(rehearse("--json").stdout)
    assert document["format"] == 1
    assert document["summary"] == {
        "messages": 3,
        "accept": 1,
        "reject": 1,
        "rewrite": 1,
        "discard": 0,
        "fail-open": 0,
        "fail": 0,
        "error": 0,
    }
