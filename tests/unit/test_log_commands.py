"""Tests that the commands of docs/log.md, exactly as printed, find the right lines.

The commands run on lines of the proxy, of other programs and of senders that try to forge lines.
journalctl(1) reads a journal that systemd-journal-remote(8) has written. The log files have the two
formats that rsyslogd 8.2302 of Debian 12 wrote for the proxy's datagrams: its default, and
RSYSLOG_TraditionalFileFormat.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from postprox.core.log_lines import failure_line
from postprox.core.message import Message
from postprox.core.verdict import ACCEPT, DISCARD, FAIL, FAIL_OPEN, REJECT, Verdict
from tests.support.proxies import ROOT
from tests.unit.test_log_lines import QUEUED, an_envelope, line

PAGE = (ROOT / "docs/log.md").read_text()
(
    JOURNAL,
    FILE,
    FIELD,
    BECAME,
    QUEUE_ID_IN_JOURNAL,
    QUEUE_ID_IN_FILE,
    REJECTED,
    REASONS,
    RUN_TIMES,
    FAILED,
    CHAIN,
    UNITS,
    VERDICTS,
) = re.findall(r"(?ms)^```sh\n(.*?)^```$", PAGE)

PROGRAMS = "/usr/bin:/bin:/usr/sbin:/sbin:/lib/systemd:/usr/lib/systemd"
JOURNALCTL, JOURNAL_REMOTE, BUSYBOX, PFLOGSUMM, LOGWATCH = (
    shutil.which(name, path=PROGRAMS)
    for name in ("journalctl", "systemd-journal-remote", "busybox", "pflogsumm", "logwatch")
)
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]


def verdict_line(
    verdict: Verdict, reply: bytes = b"", seconds: float = 0.0, sender: bytes = b"a@example"
) -> str:
    message = Message(10.0)
    message.decode(b"Message-ID: <1@example>\r\n\r\nbody\r\n.\r\n")
    message.verdict = verdict
    message.filter_seconds = seconds
    envelope = an_envelope()
    envelope.sender = sender
    return line(message, envelope, reply or verdict.reply or QUEUED)


def rejection(reply: bytes, seconds: float = 0.1) -> str:
    return verdict_line(Verdict(REJECT, reply + b"\r\n", said=reply), seconds=seconds)


def failure(
    reason: str, reply: bytes = b"", said: bytes = b"", sender: bytes = b"a@example"
) -> str:
    message = Message(10.0)
    message.verdict = Verdict(FAIL if reply else FAIL_OPEN, reply, reason, said)
    envelope = an_envelope()
    envelope.sender = sender
    return failure_line(message, envelope, b"own.example")


#: Text by which a sender or a client tries to add a line or a field.
FORGED = "verdict=reject result=refused client=192.0.2.66 helo=x filter=99.000 reply=forged said=x"
CHAIN_FAILED = b"chain.py: clamav.sh failed with status 2 after 0.01 s: no daemon"
CHAIN_TIMED_OUT = b"chain.py: spamassassin.sh, after 0.03 s"


def shell(command: str, text: str) -> str:
    """Run a command with `text` as standard input. Return its output."""
    argv = ["/bin/sh", "-c", command]
    return subprocess.run(argv, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout


class Line(NamedTuple):
    """A log line: its text, its program, its systemd unit, and its age in days."""

    text: str
    program: str = "postprox[100]"
    unit: str = "postprox@1.service"
    days: int = 0


SPAM, VIRUS, TOO_LARGE = (
    rejection(b"550 5.7.1 spam", 0.2),
    rejection(b'550 5.7.1 virus "X"', 0.3),
    verdict_line(Verdict(ACCEPT), b"552 5.3.4 too large\r\n", seconds=0.4),
)
EXIT_STATUS = failure("exit status 2", b"451 4.3.0 failed\r\n", CHAIN_FAILED)
TIMED_OUT = failure("timed out after 30 s", b"", CHAIN_TIMED_OUT)
OTHER_FILTER = failure("signal 9", sender=b'"x said="chain.py: forged.sh failed"@example')
DELIVERED = verdict_line(Verdict(ACCEPT, said=b"fine"), QUEUED, 0.1)
FORGING = verdict_line(
    Verdict(ACCEPT, said=f'x said="chain.py: {FORGED}'.encode()),
    QUEUED,
    1.5,
    f'"postprox[1]: {FORGED}"@example'.encode(),
)
POSTFIX_HEADER = Line(
    f"4QxX: warning: header Subject: postprox[1]: {FORGED} from x[192.0.2.2]; from=<b@example>",
    *("postfix/cleanup[9]", "postfix@-.service"),
)
POSTFIX_SENT = Line(
    "4QxZ: to=<b@example>, relay=mx.example[192.0.2.3]:25, status=sent (250 ok)",
    *("postfix/smtp[9]", "postfix@-.service"),
)
LINES = [
    Line(rejection(b"550 5.7.1 yesterday", 9.0), days=1),
    Line(failure("exit status 9", said=b"chain.py: old.sh failed with status 9"), days=1),
    Line(SPAM),
    Line(SPAM, program="postprox[101]"),
    Line(VIRUS),
    Line(TOO_LARGE),
    Line(DELIVERED),
    Line(FORGING),
    Line(verdict_line(Verdict(DISCARD, b"250 2.0.0 gone\r\n"), seconds=0.5)),
    Line(verdict_line(Verdict("none"))),
    Line(f"client: b'NOOP postprox[1]: {FORGED}'"),
    Line(f"client: b'NOOP [1]: filter failed: x; {FORGED}'"),
    Line(EXIT_STATUS, unit="postprox@2.service"),
    Line(TIMED_OUT),
    Line(OTHER_FILTER),
    Line("filter failed: exit status 3; said=x", program="other[9]"),
    POSTFIX_HEADER,
    POSTFIX_SENT,
]


def texts(output: str) -> list[str]:
    """Return the text after the first process ID of each log line."""
    return [one.split("]: ", 1)[1] for one in output.splitlines()]


def counts(output: str) -> list[tuple[int, str]]:
    """Return the lines of uniq(1)'s output."""
    pairs = [one.split(maxsplit=1) for one in output.splitlines()]
    return [(int(number), text) for number, text in pairs]


class Log:
    """A log with `LINES`, and the environment in which the commands read the log."""

    def __init__(self, directory: Path, source: str) -> None:
        self._bin = directory / "bin"
        self._logs = directory / "log"
        self._bin.mkdir()
        self._logs.mkdir()
        self.now = datetime.now().astimezone()
        self.in_journal = source == "journal"
        self.functions = (JOURNAL if self.in_journal else FILE) + FIELD
        if self.in_journal:
            self._write_journal()
        else:
            lines = [f"{self._stamp(one, source)} mx {one.program}: {one.text}" for one in LINES]
            # Today's first rejection was written before the log was rotated.
            (self._logs / "mail.log.1").write_text("".join(f"{one}\n" for one in lines[:3]))
            (self._logs / "mail.log").write_text("".join(f"{one}\n" for one in lines[3:]))

    def _stamp(self, one: Line, source: str) -> str:
        when = self.now - timedelta(days=one.days)
        if source == "rsyslog":
            return when.isoformat(timespec="microseconds")
        return when.strftime("%b %e %H:%M:%S")

    def _write_journal(self) -> None:
        assert JOURNALCTL is not None
        assert JOURNAL_REMOTE is not None
        entries = ""
        for number, one in enumerate(LINES):
            when = self.now - timedelta(days=one.days)
            program, _, pid = one.program.rstrip("]").partition("[")
            fields = {
                "__REALTIME_TIMESTAMP": int(when.timestamp() * 1e6) + number,
                "__MONOTONIC_TIMESTAMP": 1000 + number,
                "_BOOT_ID": f"{1:032x}",
                "_HOSTNAME": "mx",
                "_SYSTEMD_UNIT": one.unit,
                "SYSLOG_IDENTIFIER": program,
                "SYSLOG_PID": pid,
                "_PID": pid,
                "MESSAGE": one.text,
            }
            entries += "".join(f"{key}={value}\n" for key, value in fields.items()) + "\n"
        export, journal = self._logs / "export", self._logs / "mx.journal"
        export.write_text(entries)
        subprocess.run(
            [JOURNAL_REMOTE, "-o", str(journal), str(export)], check=True, capture_output=True
        )
        wrapper = self._bin / "journalctl"
        wrapper.write_text(f'#!/bin/sh\nexec {JOURNALCTL} --file {journal} "$@"\n')
        wrapper.chmod(0o755)

    def use_busybox(self) -> None:
        """Make the commands use busybox's programs."""
        for name in ("awk", "date", "grep", "sed", "sh", "sort", "uniq"):
            (self._bin / name).symlink_to(str(BUSYBOX))

    def run(self, command: str) -> str:
        """Define the page's functions, run one of its commands and return the output."""
        script = self.functions + command
        argv = ["sh", "-c", script]
        if not self.in_journal:
            mounted = f'mount --bind "{self._logs}" /var/log && exec sh -c "$1"'
            argv = [*UNSHARE, "sh", "-c", mounted, "sh", script]
        path = f"{self._bin}:{os.environ['PATH']}"
        done = subprocess.run(
            argv, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        if datetime.now().astimezone().date() != self.now.date():
            pytest.skip("the day has changed during the test")
        return done.stdout


def may_mount() -> bool:
    """Return whether this process can mount a directory in a mount namespace."""
    tried = [*UNSHARE, "sh", "-c", "mount --bind /var/log /var/log"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


NO_JOURNAL = pytest.mark.skipif(
    None in (JOURNALCTL, JOURNAL_REMOTE),
    reason="there is no journal to read (Debian: systemd-journal-remote)",
)
NO_MOUNT = pytest.mark.skipif(not may_mount(), reason="a mount namespace is forbidden here")


@pytest.fixture(
    params=[
        pytest.param("journal", marks=NO_JOURNAL),
        pytest.param("rsyslog", marks=NO_MOUNT),
        pytest.param("traditional", marks=NO_MOUNT),
        pytest.param(
            "busybox",
            marks=[
                NO_MOUNT,
                pytest.mark.skipif(BUSYBOX is None, reason="busybox is not installed"),
            ],
        ),
    ]
)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    source = request.param
    log = Log(tmp_path, "rsyslog" if source == "busybox" else source)
    if source == "busybox":
        log.use_busybox()
    return log


def test_log_lines_about_message_are_found(log: Log) -> None:
    found = texts(log.run(BECAME))
    ours = [one.text for one in LINES if one.program.startswith("postprox")]
    assert found == [text for text in ours if "to=b@example" in text]
    assert len(found) == 13


def test_search_for_queue_id_finds_postfix_delivery(log: Log) -> None:
    found = texts(log.run(QUEUE_ID_IN_JOURNAL if log.in_journal else QUEUE_ID_IN_FILE))
    assert found == [DELIVERED, FORGING, verdict_line(Verdict("none")), POSTFIX_SENT.text]


def test_todays_rejected_messages_are_listed(log: Log) -> None:
    assert texts(log.run(REJECTED)) == [SPAM, SPAM, VIRUS, TOO_LARGE]


def test_rejection_reasons_are_counted(log: Log) -> None:
    found = counts(log.run(REASONS))
    assert found[0] == (2, '"550 5.7.1 spam"')
    assert sorted(found[1:]) == [(1, r'"550 5.7.1 virus \"X\""'), (1, '"552 5.3.4 too large"')]


def test_run_time_median_and_percentile_are_computed(log: Log) -> None:
    # 0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 1.5
    assert log.run(RUN_TIMES) == "7 runs, median 0.300 s, 95 % 1.500 s\n"


def test_todays_failures_are_listed(log: Log) -> None:
    assert texts(log.run(FAILED)) == [EXIT_STATUS, TIMED_OUT, OTHER_FILTER]


def test_failed_filters_in_chain_are_counted(log: Log) -> None:
    assert sorted(counts(log.run(CHAIN))) == [(1, "clamav.sh"), (1, "spamassassin.sh")]


@NO_JOURNAL
def test_journal_identifies_unit_whose_filter_failed(tmp_path: Path) -> None:
    first, second, _ = Log(tmp_path, "journal").run(UNITS).splitlines()
    assert " postprox@2.service[100]: filter failed: exit status 2" in first
    assert " postprox@1.service[100]: filter failed: timed out" in second


def test_messages_are_counted_by_verdict(log: Log) -> None:
    assert counts(log.run(VERDICTS)) == [(3, "accept"), (1, "discard"), (1, "none"), (3, "reject")]


@pytest.mark.parametrize(
    ("number", "median", "high"),
    [(1, 1, 1), (2, 1, 2), (3, 2, 3), (20, 10, 19), (21, 11, 20), (100, 50, 95)],
)
def test_percentiles_use_nearest_rank_method(number: int, median: int, high: int) -> None:
    _, _, command = RUN_TIMES.partition("field filter | ")
    values = "".join(f"{value}.000\n" for value in reversed(range(number + 1)))
    assert shell(command, values) == f"{number} runs, median {median}.000 s, 95 % {high}.000 s\n"


def test_chain_example_writes_documented_log_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.sh"
    broken.write_text("#!/bin/sh\nexit 2\n")
    broken.chmod(0o755)
    (tmp_path / "email").write_text("Subject: x\n\nbody\n")
    done = subprocess.run(
        [sys.executable, "-IS", str(ROOT / "examples/filters/chain.py"), str(broken)],
        env={"EMAIL": str(tmp_path / "email"), "OUTFILE": str(tmp_path / "out"), "PATH": "/bin"},
        capture_output=True,
        check=False,
    )
    slow, failed = done.stderr.splitlines()
    for said in (slow, failed):
        text = f"{datetime.now():%F} mx postprox[1]: {failure('exit status 2', said=said)}\n"
        _, command = re.split(r" \|\s+", CHAIN, maxsplit=1)
        assert counts(shell(command, text)) == [(1, "broken.sh")]


# pflogsumm and logwatch

POSTFIX = [
    "postfix/qmgr[9]: 4F1A2B3C4D: from=<a@example>, size=321, nrcpt=1 (queue active)",
    "postfix/smtp[9]: 4F1A2B3C4D: to=<b@x>, relay=x[192.0.2.3]:25, delay=1, status=sent (ok)",
    "postfix/qmgr[9]: 4F1A2B3C4D: removed",
]
OURS = [f"{one.program}: {one.text}" for one in LINES if one.program.startswith("postprox")]


def written(directory: Path, lines: list[str]) -> Path:
    """Write a log file. Return its directory."""
    directory.mkdir()
    stamp = f"{datetime.now():%b %e %H:%M:%S} mx "
    (directory / "mail.log").write_text("".join(f"{stamp}{one}\n" for one in lines))
    return directory


def pflogsumm(directory: Path) -> str:
    command = [str(PFLOGSUMM), str(directory / "mail.log")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def logwatch(directory: Path) -> str:
    command = [str(LOGWATCH), "--logdir", str(directory), "--service", "postfix"]
    command += ["--range", "all", "--detail", "10", "--output", "stdout"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.sub(r"Processing Initiated: .*", "", done.stdout)


@pytest.mark.parametrize(
    "report",
    [
        pytest.param(pflogsumm, marks=pytest.mark.skipif(PFLOGSUMM is None, reason="no pflogsumm")),
        pytest.param(logwatch, marks=pytest.mark.skipif(LOGWATCH is None, reason="no logwatch")),
    ],
)
def test_log_analysers_ignore_postprox_lines(tmp_path: Path, report: Callable[[Path], str]) -> None:
    nothing = report(written(tmp_path / "nothing", []))
    assert report(written(tmp_path / "ours", OURS)) == nothing
    theirs = report(written(tmp_path / "theirs", POSTFIX))
    assert theirs != nothing
    assert report(written(tmp_path / "both", OURS + POSTFIX)) == theirs
