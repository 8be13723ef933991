"""rspamd.py with a running and a stopped rspamd, and with invalid responses."""

from __future__ import annotations

import contextlib
import email
import email.policy
import http.server
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.core import options

from .conftest import FILTERS, MESSAGE, Filter, command, needs

pytestmark = pytest.mark.any_account

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/rspamd.md").read_text()
FILTER_HEAD = (FILTERS / "rspamd.py").read_text()


def test_documented_commands_install_and_rehearse_filter(tmp_path: Path, rspamd: Path) -> None:
    install, rehearse, _ = re.findall(r"(?m)^    (\S.*)$", PAGE.partition("## Attachments")[0])
    filter_ = tmp_path / "rspamd.py"
    (tmp_path / "message.eml").write_bytes(MESSAGE)
    script = f"{install}\ncd {tmp_path}\n{rehearse}\n"
    for printed, own in (
        ("-c /usr/local/bin/rspamd.py", f"-c '{filter_} {rspamd}'"),
        ("/usr/local/bin/rspamd.py", str(filter_)),
        ("postprox-rehearse", f"PYTHONPATH={ROOT} {sys.executable} -m postprox.rehearse"),
    ):
        assert printed in script
        script = script.replace(printed, own)
    done = subprocess.run(
        ["/bin/sh", "-ec", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert "1 message: 1 accepted" in done.stdout
    assert filter_.read_text() == (FILTERS / "rspamd.py").read_text()
    assert filter_.stat().st_mode & 0o777 == 0o755


def test_documented_options_specify_installed_filter() -> None:
    (line,) = re.findall(r"(?ms)^```ini\n(.*?)^```$", PAGE)
    words = shlex.split(shlex.split(line)[0].partition("=")[2])
    parsed = options.parse([*words, "127.0.0.1:10026"])
    assert (parsed.command, parsed.strict) == ("/usr/local/bin/rspamd.py", True)


def test_documented_action_table_matches_filter() -> None:
    rows = dict(re.findall(r"(?m)^\| (`.*`) \| (.*) \|$", PAGE.partition("## What you need")[0]))
    (documented,) = re.findall(r"(?ms)^rspamd's action .*?\n(.*?)^any other", FILTER_HEAD)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    actions = {name for line in documented.splitlines() for name in line[:22].strip().split(", ")}
    assert named == actions


def test_legitimate_mail_is_accepted_unchanged(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd))
    assert (ended.status, ended.written) == (0, b"")


def test_greylist_action_accepts_message(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"perhaps pills\n")
    assert (ended.status, ended.written) == (0, b"")


def test_add_header_action_marks_message(run: Filter, rspamd: Path) -> None:
    message = MESSAGE + b"cheap pills\n"
    ended = run(command("rspamd.py", rspamd), message)
    assert (ended.status, ended.written) == (0, b"X-Spam: Yes\n" + message)


def test_rewrite_subject_action_changes_subject(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"lottery\n")
    assert ended.status == 0
    assert ended.written.startswith(b"Subject: [spam] x\nFrom: ")
    assert ended.written.count(b"Subject:") == 1


def test_non_ascii_subject_is_encoded(run: Filter, rspamd: Path) -> None:
    message = MESSAGE.replace(b"x\n", "Grüße\n".encode()) + b"lottery\n"
    written = run(command("rspamd.py", rspamd), message).written
    assert written.startswith(b"Subject: =?UTF-8?Q?=5Bspam=5D_Gr=C3=BC=C3=9Fe?=\n")
    assert written.isascii()


def test_reject_action_rejects_message(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"cheapest pills of all\n")
    assert (ended.status, ended.reply) == (1, "554 5.7.1 The message looks like spam")


def test_reply_text_from_rspamd_is_one_line(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"own words\n")
    assert (ended.status, ended.said) == (1, "554 5.7.1 We know you 250 too well\n")


def test_soft_reject_action_results_in_451_reply(run: Filter, rspamd: Path) -> None:
    ended = run(command("rspamd.py", rspamd), MESSAGE + b"later\n")
    assert (ended.status, ended.reply) == (1, "451 4.7.1 Come back later")


def test_rspamd_receives_envelope(run: Filter, rspamd: Path) -> None:
    envelope = {"SENDER": "spammer@example.net", "REMOTEIP": "192.0.2.66", "HELO": "evil.example"}
    assert run(command("rspamd.py", rspamd), MESSAGE, **envelope).status == 1


def test_unknown_envelope_values_are_omitted(run: Filter, rspamd: Path) -> None:
    unknown = dict.fromkeys(("SENDER", "RECIPIENT", "REMOTEIP", "HELO"), "")
    assert run(command("rspamd.py", rspamd), MESSAGE, **unknown).status == 0


def test_rspamd_reply_adds_and_removes_header_fields(run: Filter, rspamd: Path) -> None:
    head = b"X-Spam-Level: *\n\t*\nX-Kept: 1\nx-spam-level: ***\nX-Kept: 2\nX-Last: 1\nX-Last: 2\n"
    ended = run(command("rspamd.py", rspamd), head + MESSAGE + b"headers\n")
    assert ended.status == 0
    kept, rest = ended.written.split(b"X-Kept: 1\n")
    assert b"X-Added: one\n\ttwo\n" in kept
    assert b"X-Twice: a\n" in kept
    assert b"X-Twice: b\n" in kept
    assert rest == b"X-Last: 1\n" + MESSAGE + b"headers\n"


def test_header_of_message_without_body_is_preserved(run: Filter, rspamd: Path) -> None:
    written = run(command("rspamd.py", rspamd), b"Subject: x\n\ncheap pills").written
    assert written == b"X-Spam: Yes\nSubject: x\n\ncheap pills"


def test_stopped_rspamd_results_in_status_2(run: Filter, stopped_rspamd: Path) -> None:
    ended = run(command("rspamd.py", stopped_rspamd), MESSAGE + b"cheapest pills of all\n")
    assert ended.status == 2
    assert ended.reply.startswith(f"rspamd.py: no response from rspamd at {stopped_rspamd}: ")


class Answers(http.server.BaseHTTPRequestHandler):
    """Sends responses that rspamd should never send."""

    status = 200
    text = b""

    def do_POST(self) -> None:
        """Send the response that the test has set."""
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Impostor(http.server.HTTPServer):
    """A server that sends the test's response."""

    @property
    def place(self) -> str:
        """The address in the form that rspamd.py expects."""
        return f"127.0.0.1:{self.server_port}"

    def gives(self, answer: object, status: int = 200) -> str:
        """Set the response. Return the address."""
        Answers.status = status
        Answers.text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return self.place


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    with Impostor(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"[" * 100_000),
        (200, b'{"action": ' + b"9" * 10_000 + b"}"),
        (200, b'{"action": "no action", "x": "' + b"x" * 1_000_000 + b'"}'),
        (200, {"error": "out of memory"}),
        (200, {"action": "something new"}),
        (200, {"action": None}),
        (200, {"action": ["reject"]}),
        (200, {"action": {"reject": 1}}),
        (200, {"action": "reject", "messages": ["spam"]}),
        (200, {"action": "reject", "messages": {"smtp_message": {"text": "x"}}}),
        (200, {"action": "add header", "milter": 1}),
        (200, {"action": "no action", "milter": {"add_headers": ["X-A"]}}),
        (200, {"action": "no action", "milter": {"add_headers": {"X-A": {"order": 1}}}}),
        (200, {"action": "no action", "milter": {"remove_headers": {"X-A": "all"}}}),
        (200, {"action": "no action", "milter": {"remove_headers": {"X-A": [[1]]}}}),
        (200, {"action": "no action", "milter": {"remove_headers": {"X-A": 1.5}}}),
        (200, {"action": "no action", "milter": {"remove_headers": {"X-A": float("nan")}}}),
        (200, {"action": "no action", "milter": {"remove_headers": {"X-A": True}}}),
        (200, {"action": "no action", "milter": {"remove_headers": ["X-A"]}}),
        (200, {"action": "no action", "dkim-signature": {"b": "x"}}),
        (200, {"action": "rewrite subject"}),
        (200, {"action": "rewrite subject", "subject": None}),
        (200, {"action": "rewrite subject", "subject": []}),
        (500, {"action": "no action"}),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_invalid_rspamd_reply_results_in_status_2(
    run: Filter, impostor: Impostor, status: int, answer: object
) -> None:
    ended = run(command("rspamd.py", impostor.gives(answer, status)))
    assert (ended.status, ended.written) == (2, b"")
    assert ended.said == f"{ended.reply}\n"
    assert ended.reply.startswith("rspamd.py: ")


EMPTY = pytest.mark.parametrize("empty", [[], {}, None, [[]], [None]], ids=repr)


@EMPTY
@pytest.mark.parametrize("name", ["add_headers", "remove_headers", "change_from", "add_rcpt"])
def test_empty_milter_table_leaves_message_unchanged(
    run: Filter, impostor: Impostor, name: str, empty: object
) -> None:
    for milter in (empty, {name: empty}, {"add_headers": {"X-A": empty}}):
        answer = {"action": "no action", "milter": milter, "dkim-signature": empty}
        ended = run(command("rspamd.py", impostor.gives(answer)))
        assert (ended.status, ended.said, ended.written) == (0, "", b"")


@EMPTY
def test_reject_action_without_reply_text_rejects_message(
    run: Filter, impostor: Impostor, empty: object
) -> None:
    for messages in (empty, {"smtp_message": empty}):
        place = impostor.gives({"action": "reject", "messages": messages})
        ended = run(command("rspamd.py", place))
        assert (ended.status, ended.said) == (1, "554 5.7.1 The message looks like spam\n")


def test_list_of_objects_in_rspamd_reply_is_merged(run: Filter, impostor: Impostor) -> None:
    adding = [{"X-A": "1"}, {"X-A": "2", "X-B": "3"}]
    milter = [{"remove_headers": [{"Subject": 1}]}, {"add_headers": adding}]
    place = impostor.gives({"action": "no action", "milter": milter})
    written = run(command("rspamd.py", place)).written
    assert written == b"X-A: 1\nX-A: 2\nX-B: 3\n" + MESSAGE.replace(b"Subject: x\n", b"")
    messages = [{"smtp_message": "one"}, {"smtp_message": "two"}]
    place = impostor.gives({"action": "reject", "messages": messages})
    assert run(command("rspamd.py", place)).reply == "554 5.7.1 one two"


def test_rspamd_encodes_empty_lua_table_as_list(tmp_path: Path) -> None:
    """rspamd's encoder writes an empty Lua table as a list, so rspamd.py accepts empty lists."""
    needs("rspamadm")
    program = tmp_path / "program.lua"
    program.write_text('print(require("ucl").to_format({milter = {}}, "json-compact"))\n')
    command = ["rspamadm", "lua", str(program)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert printed == '{"milter":[]}\n'


@pytest.mark.parametrize("change", ["change_from", "add_rcpt", "del_rcpt"])
def test_requested_envelope_change_results_in_status_2(
    run: Filter, impostor: Impostor, change: str
) -> None:
    answer = {"action": "no action", "milter": {change: ["x@example.org"]}}
    ended = run(command("rspamd.py", impostor.gives(answer)))
    assert (ended.status, ended.reply.endswith(f"a filter cannot apply {change}")) == (2, True)


@pytest.mark.parametrize(
    ("action", "status", "reply"),
    [
        ("no action", 0, ""),
        ("greylist", 0, ""),
        ("add header", 0, ""),
        ("soft reject", 1, "451 4.7.1 Try again later"),
        ("reject", 1, "554 5.7.1 The message looks like spam"),
        ("quarantine", 1, "554 5.7.1 The message looks like spam"),
        ("discard", 1, "250 2.7.1 Discarded"),
    ],
)
def test_every_rspamd_action_is_handled(
    run: Filter, impostor: Impostor, action: str, status: int, reply: str
) -> None:
    ended = run(command("rspamd.py", impostor.gives({"action": action})))
    assert (ended.status, ended.reply) == (status, reply)


def test_two_signatures_produce_two_header_fields(run: Filter, impostor: Impostor) -> None:
    answer = {"action": "no action", "dkim-signature": ["a=rsa-sha256;\r\n\tb=x", "a=ed25519"]}
    written = run(command("rspamd.py", impostor.gives(answer))).written
    assert written == (
        b"DKIM-Signature: a=rsa-sha256;\n\tb=x\nDKIM-Signature: a=ed25519\n" + MESSAGE
    )


@pytest.mark.parametrize(
    ("positions", "kept"),
    [
        ([1, 2], "3"),
        ([1, -1], "2"),
        ([2, 2], "13"),
        ([0, 1], ""),
        ([9, -9], "123"),
        ([], "123"),
        (-3, "23"),
        ("1", "23"),
        (["-1", 1.0], "2"),
        ([-2.0, "3"], "1"),
    ],
)
def test_index_of_removed_field_refers_to_original_message(
    run: Filter, impostor: Impostor, positions: object, kept: str
) -> None:
    answer = {"action": "add header", "milter": {"remove_headers": {"X-A": positions}}}
    message = b"X-A: 1\nx-a : 2\nX-A:\n\t3\nX-Ab: x\n\nX-A: body\n"
    written = run(command("rspamd.py", impostor.gives(answer)), message).written
    fields = {"1": b"X-A: 1\n", "2": b"x-a : 2\n", "3": b"X-A:\n\t3\n"}
    rest = b"".join(fields[number] for number in kept) + b"X-Ab: x\n\nX-A: body\n"
    assert written == b"X-Spam: Yes\n" + rest


def test_newline_in_rspamd_reply_cannot_add_header_line(run: Filter, impostor: Impostor) -> None:
    hostile = "a\r\n\r\n \n\tb\x00\x1b\u2028c\ud800\r250 ok\n"
    answer = {"action": "no action", "milter": {"add_headers": {"X-A": hostile}}}
    written = run(command("rspamd.py", impostor.gives(answer))).written
    assert written == b"X-A: a\n\tb??\n\tc?\n\t250 ok\n" + MESSAGE
    answer = {"action": "reject", "messages": {"smtp_message": [hostile, "x" * 9000]}}
    ended = run(command("rspamd.py", impostor.gives(answer)))
    assert ended.said.startswith("554 5.7.1 a b?? c? 250 ok xxx")
    assert len(ended.said) < 512


@pytest.mark.parametrize("name", ["", "X A", "X:", "X\nY", "\u00fc"])
def test_invalid_field_name_results_in_status_2(run: Filter, impostor: Impostor, name: str) -> None:
    answer = {"action": "no action", "milter": {"add_headers": {name: "x"}}}
    assert run(command("rspamd.py", impostor.gives(answer))).status == 2


def test_numbers_and_lists_are_valid_field_values(run: Filter, impostor: Impostor) -> None:
    fields = {"X-A": 5, "X-B": [{"value": "1", "order": 1}, "2"]}
    answer = {"action": "no action", "milter": {"add_headers": fields}}
    written = run(command("rspamd.py", impostor.gives(answer))).written
    assert written == b"X-A: 5\nX-B: 1\nX-B: 2\n" + MESSAGE


def test_long_subject_is_split_into_encoded_words(run: Filter, impostor: Impostor) -> None:
    answer = {"action": "rewrite subject", "subject": "\u20ac\n" * 30}
    written = run(command("rspamd.py", impostor.gives(answer))).written
    subject = email.message_from_bytes(written, policy=email.policy.default)["Subject"]
    assert subject == " ".join("\u20ac" * 30)
    assert max(map(len, written.splitlines())) < 78


def test_subject_cannot_add_header_field(run: Filter, impostor: Impostor) -> None:
    answer = {"action": "rewrite subject", "subject": "a\r\nX-Evil: b"}
    written = run(command("rspamd.py", impostor.gives(answer))).written
    assert written.startswith(b"Subject: a X-Evil: b\nFrom: ")


def test_rspamd_reply_with_invalid_utf_8_is_accepted(run: Filter, impostor: Impostor) -> None:
    answer = b'{"action": "no action", "symbols": {"X": "\xe9\xff"}}'
    assert run(command("rspamd.py", impostor.gives(answer))).status == 0


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"\nX-A: text\n\ntext", b"X-B: x", b"X-B: x\n", b"\0\n", b"X-B:\n\n", b"a\r\n"],
)
def test_removing_absent_field_leaves_message_unchanged(
    run: Filter, impostor: Impostor, message: bytes
) -> None:
    answer = {"action": "no action", "milter": {"remove_headers": {"X-A": 0}}}
    ended = run(command("rspamd.py", impostor.gives(answer)), message)
    assert (ended.status, ended.written in (b"", message + b"\n")) == (0, True)


def test_full_disk_results_in_status_2(run: Filter, impostor: Impostor) -> None:
    place = impostor.gives({"action": "add header"})
    assert run(command("rspamd.py", place), OUTFILE="/dev/full").status == 2


def test_slow_rspamd_reply_is_subject_to_overall_timeout(
    run: Filter, impostor: Impostor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended_it = threading.Event()

    def trickle(answers: Answers) -> None:
        answers.send_response(200)
        answers.end_headers()
        with contextlib.suppress(OSError):
            while not ended_it.wait(0.2):
                answers.wfile.write(b" ")

    monkeypatch.setattr(Answers, "do_POST", trickle)
    text = (FILTERS / "rspamd.py").read_text()
    hasty = tmp_path / "hasty.py"
    hasty.write_text(text.replace("TIMEOUT = 25", "TIMEOUT = 1"))
    hasty.chmod(0o755)
    ended = run(f"{hasty} {impostor.place}")
    ended_it.set()
    assert (ended.status, "no complete response within 1 s" in ended.reply) == (2, True)


HOSTILE = {
    "SENDER": [
        "<>",
        "a@x\r\nPass: all",
        "\x01\x7f@x",
        "\udcff\udce9@example.net",
        "a" * 9000 + "@x",
        '"a\\"<b>" @x',
    ],
    "HELO": ["x\nPass: all", "\udcff", "x" * 100_000],
    "REMOTEIP": ["unknown", "fe80::1%eth0", "999.1.1.1"],
    "RECIPIENTS": ["\n".join(f"user{number}@example.org" for number in range(5000)), "\n\r\n"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in HOSTILE.items() for value in values],
    ids=lambda value: repr(value)[:30],
)
def test_arbitrary_envelope_octets_do_not_affect_verdict(
    run: Filter, rspamd: Path, name: str, value: str
) -> None:
    assert run(command("rspamd.py", rspamd), MESSAGE, **{name: value}).status == 0
    certain = MESSAGE + b"cheapest pills of all\n"
    assert run(command("rspamd.py", rspamd), certain, **{name: value}).status == 1


@pytest.mark.parametrize("missing", ["EMAIL", "OUTFILE", "SENDER", "HELO"])
def test_missing_variable_results_in_status_2(run: Filter, rspamd: Path, missing: str) -> None:
    spam = MESSAGE + b"cheap pills\n"
    ended = run(f"unset {missing}; {command('rspamd.py', rspamd)}", spam)
    assert (ended.status, missing in ended.reply) == (2, True)
