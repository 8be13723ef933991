"""The recorder: its transcripts match the session and can be run again."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import smtplib
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.__main__ import main
from tests.conformance.format.grammar import FENCE
from tests.conformance.format.loader import load_transcript
from tests.conformance.format.nodes import Step, Transcript
from tests.conformance.format.reader import parse_transcript
from tests.conformance.format.requirements import specification
from tests.conformance.format.writer import write_step
from tests.conformance.paths import ROOT
from tests.conformance.play.engine import play
from tests.conformance.play.filter_stub import FilterRun
from tests.conformance.play.harness import Harness, Settings
from tests.conformance.play.host import Host
from tests.conformance.play.implementation import REFERENCE, find_implementation
from tests.conformance.play.process import adopt_orphans
from tests.conformance.record.command import add_record
from tests.conformance.record.steps import StepRecorder

pytestmark = pytest.mark.any_account

SECONDS = 20.0

EHLO_REPLY = b"250-up.example\r\n250-PIPELINING\r\n250-XCLIENT NAME\r\n250 CHUNKING\r\n"
REPLIES = {
    b"EHLO": EHLO_REPLY,
    b"DATA": b"354 go on\r\n",
    b".": b"250 2.0.0 queued as 7C1D\r\n",
    b"QUIT": b"221 2.0.0 up.example says bye\r\n",
}


class Upstream(socketserver.StreamRequestHandler):
    """An SMTP server that accepts every command and message."""

    def handle(self) -> None:
        self.wfile.write(b"220 up.example ESMTP\r\n")
        in_data = False
        for line in self.rfile:
            word = line.split()[0].upper() if line.split() else b""
            if in_data and line != b".\r\n":
                continue
            in_data = word == b"DATA"
            self.wfile.write(REPLIES.get(word, b"250 2.1.0 fine, " + word.lower() + b"\r\n"))
            if word == b"QUIT":
                return


@pytest.fixture
def upstream() -> Iterator[str]:
    """The address of a running SMTP server."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upstream) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        host, port = server.server_address[:2]
        yield f"{host!s}:{port}"
        server.shutdown()
        thread.join()


class Recorder:
    """A running `record` command."""

    def __init__(self, upstream: str, path: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.conformance", "record", "--upstream", upstream]
        command += ["-o", str(path), "--title", "A live session", "--requires", "relay.commands-1"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def address(self) -> tuple[str, int]:
        """The listening address."""
        assert self.process.stdout is not None
        host, _, port = self.process.stdout.readline().split()[-1].rpartition(":")
        return host, int(port)

    def finish(self) -> tuple[int, str]:
        """Return the exit status and the error output."""
        _, complaint = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, complaint

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@contextlib.contextmanager
def recording(upstream: str, path: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run a recorder in front of *upstream*. Yield the address for the client."""
    recorder = Recorder(upstream, path, *arguments)
    try:
        yield recorder.address
        assert recorder.finish() == (0, "")
    finally:
        recorder.kill()


def script(path: Path) -> list[str]:
    """Return the lines after the header."""
    lines = path.read_text("ascii").split("\n")[:-1]
    return lines[lines.index(FENCE, 1) + 1 :]


def replay(path: Path, mode: str) -> None:
    """Run *path* against this checkout. A failed step raises StepFailedError."""
    adopt_orphans()
    host = Host()
    try:
        harness = Harness(
            load_transcript(path), mode, Settings(find_implementation(REFERENCE), host)
        )
        try:
            assert [observed for observed in play(harness) if not observed.kept] == []
        finally:
            harness.close()
    finally:
        host.close()


def deliver(address: tuple[str, int], body: bytes) -> None:
    with smtplib.SMTP(*address, local_hostname="client.example", timeout=SECONDS) as client:
        client.sendmail("a@example", ["b@example", "c@example"], body)


ACCEPTED = r"""
U> 220 up.example ESMTP
C< 220 up.example ESMTP
C> ehlo client.example
U< ehlo client.example
U> 250-up.example
U+ 250-PIPELINING
U+ 250-XCLIENT NAME
U+ 250 CHUNKING
C< 250-up.example
C< 250 PIPELINING
C> mail FROM:<a@example>
U< mail FROM:<a@example>
U> 250 2.1.0 fine, mail
C< 250 2.1.0 fine, mail
C> rcpt TO:<b@example>
U< rcpt TO:<b@example>
U> 250 2.1.0 fine, rcpt
C< 250 2.1.0 fine, rcpt
C> rcpt TO:<c@example>
U< rcpt TO:<c@example>
U> 250 2.1.0 fine, rcpt
C< 250 2.1.0 fine, rcpt
C> data
C? 354
C> Subject: x
C+
C+ ..dot \xe9
C+ .
U< DATA
U> 354 go on
U< Subject: x
U<
U< ..dot \xe9
U< .
U> 250 2.0.0 queued as 7C1D
C< 250 2.0.0 queued as 7C1D
C> QUIT
U< QUIT
U> 221 2.0.0 up.example says bye
""".strip().split("\n")


def test_recorded_session_can_be_replayed(upstream: str, tmp_path: Path) -> None:
    path = tmp_path / "live.smtp"
    with recording(upstream, path) as address:
        deliver(address, b"Subject: x\r\n\r\n.dot \xe9\r\n")
    assert script(path)[: len(ACCEPTED)] == ACCEPTED
    assert script(path)[-1] == "P< exit 0"
    replay(path, "stdio")
    replay(path, "listen")


def test_rejection_is_recorded_with_filter_output(upstream: str, tmp_path: Path) -> None:
    text = tmp_path / "filter"
    text.write_text("echo 'no thanks' >&2\nexit 1\n")
    path = tmp_path / "rejected.smtp"
    arguments = ("--filter", str(text), "--email")
    refused = pytest.raises(smtplib.SMTPDataError)
    with recording(upstream, path, *arguments) as address, refused:
        deliver(address, b"Subject: x\r\n\r\nhello\r\n")
    lines = script(path)
    at = lines.index("F< run")
    assert lines[at : at + 5] == [
        "F< run",
        "F< env SENDER=a@example",
        "F< env RECIPIENT=b@example",
        "F< env REMOTEIP=",
        "F< env HELO=client.example",
    ]
    assert lines[at + 5 : at + 8] == [r"F< email Subject: x\n", r"F+ \n", r"F+ hello\n"]
    assert "C< 554 no thanks" in lines
    assert "U< DATA" not in lines
    assert load_transcript(path).header.filter == text.read_text()
    replay(path, "stdio")


def test_octets_read_together_become_one_write(upstream: str, tmp_path: Path) -> None:
    path = tmp_path / "pipelined.smtp"
    with recording(upstream, path) as address, socket.create_connection(address) as client:
        client.settimeout(SECONDS)
        client.sendall(b"EHLO client.example\r\nNOOP\r\nQUIT\r\n")
        while client.recv(4096):
            pass
    lines = script(path)
    at = lines.index("C> EHLO client.example")
    assert lines[at : at + 3] == ["C> EHLO client.example", "C+ NOOP", "C+ QUIT"]
    replay(path, "stdio")


def test_arguments_after_double_dash_are_recorded(upstream: str, tmp_path: Path) -> None:
    path = tmp_path / "arguments.smtp"
    arguments = ("-v", "-d", "{tmp}", "{upstream}")
    with recording(upstream, path, "--", *arguments) as address:
        deliver(address, b"hello\r\n")
    assert load_transcript(path).header.argv == arguments


def test_each_recorded_session_becomes_a_transcript(upstream: str, tmp_path: Path) -> None:
    with recording(upstream, tmp_path / "one.smtp", "--sessions", "2") as address:
        deliver(address, b"first\r\n")
        deliver(address, b"second\r\n")
    titles = [load_transcript(path).header.title for path in sorted(tmp_path.glob("*.smtp"))]
    assert titles == ["A live session (2)", "A live session"]


def test_comment_precedes_script(upstream: str, tmp_path: Path) -> None:
    path = tmp_path / "commented.smtp"
    with recording(upstream, path, "--comment", "smtplib of Python") as address:
        deliver(address, b"hello\r\n")
    assert script(path)[0] == "# smtplib of Python"


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Return the error that the recorder prints before it listens."""

    def complaint(*arguments: str) -> str:
        common = ["--title", "t", "--requires", "relay.order-1", "-o", str(tmp_path / "x.smtp")]
        status = main(["record", *common, "--upstream", "127.0.0.1:1", *arguments])
        assert status == 2
        return capsys.readouterr().err

    return complaint


def test_existing_file_is_not_overwritten(failure: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "there.smtp"
    path.write_text("precious")
    assert "already exists" in failure("-o", str(path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("--requires", "relay.ordr-1"),
            "unknown requirement 'relay.ordr-1' (did you mean 'relay.order-1'?)",
        ),
        (("--", "127.0.0.1:25"), "missing {upstream}"),
        (("--upstream", "nowhere"), "an address must be"),
        (("--listen", "unix:/tmp/x"), "must be HOST:PORT"),
        (("-o", "x.txt"), "must end with .smtp"),
        (("--sessions", "0"), "must be at least 1"),
        (("--filter", "/nonexistent"), "/nonexistent: No such file"),
        (("--implementation", "x.toml"), "missing file x.toml"),
        (("--implementation", "/no/such"), "cannot start /no/such: the program is missing"),
    ],
)
def test_invalid_arguments_are_reported_before_recording(
    failure: Callable[..., str], arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in failure(*arguments)


def test_no_transcript_is_written_if_upstream_is_unreachable(tmp_path: Path) -> None:
    path = tmp_path / "x.smtp"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        recorder = Recorder(address, path)
        try:
            socket.create_connection(recorder.address).close()
            status, complaint = recorder.finish()
        finally:
            recorder.kill()
    assert (status, path.exists()) == (2, False)
    assert complaint == f"record: upstream {address}: Connection refused\n"


# --- the steps ------------------------------------------------------------------------------------


def written(steps: StepRecorder) -> list[str]:
    """Return the recorded steps as lines."""
    return [write_step(step) for step in steps.steps if isinstance(step, Step)]


def test_relayed_reply_is_recorded_with_text() -> None:
    steps = StepRecorder()
    steps.sent("U", b"250-one\r\n250 two\r\n")
    steps.seen("C", b"250-one\r\n250 two\r\n")
    assert written(steps)[2:] == ["C< 250-one", "C< 250 two"]


def test_relayed_reply_that_lacks_lines_is_recorded_verbatim() -> None:
    steps = StepRecorder()
    steps.sent("U", EHLO_REPLY)
    steps.seen("C", b"250 up.example\r\n")
    assert written(steps)[4:] == ["C< 250 up.example"]


def test_proxy_reply_is_recorded_as_code() -> None:
    steps = StepRecorder()
    steps.seen("C", b"502 5.5.1 not\r\n")
    assert written(steps) == ["C? 502"]


def test_repeated_reply_is_recorded_as_reply_code_only() -> None:
    steps = StepRecorder()
    steps.sent("U", b"250 ok\r\n")
    steps.seen("C", b"250 ok\r\n250 ok\r\n")
    assert written(steps)[1:] == ["C< 250 ok", "C? 250"]


def test_reply_to_proxy_command_is_not_considered_relayed() -> None:
    steps = StepRecorder()
    steps.seen("U", b"QUIT\r\n")
    steps.sent("U", b"221 bye\r\n")
    steps.sent("C", b"QUIT\r\n")
    steps.seen("C", b"221 bye\r\n")
    assert written(steps)[-2:] == ["C> QUIT", "C? 221"]


def test_reply_to_client_command_is_recorded_with_text() -> None:
    steps = StepRecorder()
    steps.sent("C", b"quit \r\n")
    steps.seen("U", b"QUIT\r\n")
    steps.sent("U", b"221 bye\r\n")
    steps.seen("C", b"221 bye\r\n")
    assert written(steps)[-1] == "C< 221 bye"


def test_354_reply_is_attributed_to_proxy() -> None:
    steps = StepRecorder()
    steps.sent("U", b"354 go on\r\n")
    steps.seen("C", b"354 go on\r\n")
    assert written(steps)[1:] == ["C? 354"]


@pytest.mark.parametrize("reply", [b"550 5.7.1 spam", b"554 550 5.7.1 spam"])
def test_filter_output_is_recorded_unchanged(reply: bytes) -> None:
    steps = StepRecorder([b"first", b"550 5.7.1 spam"])
    steps.seen("C", reply + b"\r\n")
    assert written(steps) == [f"C< {reply.decode()}"]


def test_invalid_reply_is_recorded_unchanged() -> None:
    steps = StepRecorder()
    steps.seen("C", b"hello\r\n250-a\r\n550 b\r\n")
    assert written(steps) == ["C< hello", "C< 250-a", "C< 550 b"]


def test_line_split_across_two_reads_is_one_step() -> None:
    steps = StepRecorder()
    steps.seen("U", b"NO")
    steps.sent("U", b"250 a\r\n")
    steps.seen("U", b"OP\r\n")
    assert written(steps) == ["U> 250 a", "U< NOOP"]


def test_line_without_newline_precedes_eof() -> None:
    steps = StepRecorder()
    steps.seen("U", b"half")
    steps.observed("U", "@eof")
    assert written(steps) == ["U< half\\", "U< @eof"]


def test_partial_writes_are_recorded_separately() -> None:
    steps = StepRecorder()
    steps.sent("C", b"NO")
    steps.sent("C", b"OP\r\n")
    assert written(steps) == ["C> NO\\", "C> OP"]


def test_parts_of_long_write_are_joined() -> None:
    steps = StepRecorder()
    lines = b"".join(b"line %d\r\n" % number for number in range(200))
    steps.sent("C", lines + b"the la")
    steps.sent("C", b"st\r\n.\r\n")
    assert written(steps)[-2:] == ["C+ the last", "C+ ."]


def test_long_write_split_after_newline_is_joined() -> None:
    steps = StepRecorder()
    steps.sent("C", b"same line\r\n" * 2000)
    steps.sent("C", b"same line\r\n" * 2000)
    assert written(steps) == [r"C> \{3999*same line\r\n}same line"]


def test_writes_before_and_after_input_are_separate_steps() -> None:
    steps = StepRecorder()
    steps.sent("C", b"x" * 2000)
    steps.seen("U", b"NOOP\r\n")
    steps.sent("C", b"x\r\n")
    assert written(steps) == ["C> \\{2000*x}\\", "U< NOOP", "C> x"]


def test_repeated_text_is_written_as_repeat() -> None:
    steps = StepRecorder()
    steps.sent("C", b"same\r\n" * 5000 + b"x" * 3000 + b"\r\n")
    assert written(steps) == [r"C> \{4999*same\r\n}same", r"C+ \{3000*x}"]


def test_every_octet_is_written_as_readable_text() -> None:
    steps = StepRecorder()
    steps.sent("C", bytes(range(256)) + b"\r\n@eof\r\n  \r\n" + b"}" * 99)
    text = "".join(f"{line}\n" for line in written(steps))
    header = f'{FENCE}\ntitle = "t"\nrequires = ["a.b-1"]\n{FENCE}\n'
    again: Transcript = parse_transcript(header + text, "it")
    assert again.steps == steps.steps


def test_unset_variable_is_not_recorded() -> None:
    steps = StepRecorder()
    steps.filter_run(FilterRun(1, 1, {"SENDER": b"<>", "EMAIL": b"/tmp/x"}, b"", 0o600, b""))
    assert written(steps) == ["F< run", "F< env SENDER=<>"]


def test_empty_message_is_recorded() -> None:
    steps = StepRecorder()
    steps.read_email(FilterRun(1, 1, {}, b"", 0o600, b""))
    assert written(steps) == ["F< email"]


def test_documented_record_command_is_valid() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    start = page.index("postprox-conformance record --")
    command = page[start : page.index("\n```", start)].replace("\\\n", "")
    program, *words = shlex.split(command)
    parser = argparse.ArgumentParser(program)
    add_record(parser.add_subparsers())
    assert set(parser.parse_args(words).requires) <= set(specification().requirements)
