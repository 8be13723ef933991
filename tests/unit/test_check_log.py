"""postprox-check and the mail log."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from postprox.check import machine as machine_module
from postprox.check.facts import LogFacts, LoggedError, RunningFacts, SampleRuns, Session
from postprox.check.findings import LEVELS
from postprox.check.log_rules import logged
from postprox.check.machine import Machine
from postprox.check.mail_log import logged_errors
from postprox.check.postconf import parse
from postprox.check.routes import spawned_proxies
from postprox.check.setup import Setup
from tests.unit.checking import FRONT, MAIN, PROXY, SEEN

TIME = "2026-12-03T06:03:45+0000"
SASL = "SASL: Connect to Dovecot auth socket 'private/auth' failed: No such file or directory"
#: Lines of Postfix 3.7.
FATAL = (
    ("postfix/smtpd[448]", f"warning: {SASL}"),
    ("postfix/smtpd[448]", "fatal: no SASL authentication mechanisms"),
    ("postfix/master[79]", "warning: process /usr/lib/postfix/sbin/smtpd pid 448 exit status 1"),
    (
        "postfix/master[79]",
        "warning: /usr/lib/postfix/sbin/smtpd: bad command startup -- throttling",
    ),
)
PROCMAIL = (
    "BD8E03B4723: to=<nobody@mail.test>, relay=local, delay=0.07, delays=0.02/0.01/0/0.04, "
    'dsn=5.3.0, status=bounced (Command died with status 127: "/usr/bin/procmail")'
)
SENT = (
    "BD8E03B4724: to=<nobody@mail.test>, relay=local, delay=0.07, delays=0.02/0.01/0/0.04, "
    "dsn=2.0.0, status=sent (delivered to mailbox)"
)


def log(*lines: tuple[str, str]) -> str:
    return "".join(f"{TIME} mail {program}: {text}\n" for program, text in lines)


def delivery(reason: str, dsn: str, status: str = "deferred", relay: str = "none") -> str:
    """Return the line of a delivery agent."""
    return (
        f"A1: to=<a@example.org>, relay={relay}, delay=1, delays=0/0/0/1, dsn={dsn}, "
        f"status={status} ({reason})"
    )


def setup(*errors: LoggedError, samples: SampleRuns | None = None) -> Setup:
    """Return a system whose log contains errors, and which may have run its filter."""
    configuration = parse(MAIN, FRONT + PROXY, "")
    (proxy,) = spawned_proxies(configuration)
    running = RunningFacts(log=LogFacts(errors, "tail -n 50 /var/log/mail.log"))
    tested = {proxy: samples} if samples else {}
    return Setup(configuration, [proxy], {proxy: SEEN}, running, samples=tested)


def texts(*lines: tuple[str, str]) -> list[str]:
    return [error.text for error in logged_errors(log(*lines))]


def test_fatal_error_is_reported_with_warning_of_same_process() -> None:
    (error,) = logged_errors(log(*FATAL))
    assert error == LoggedError(
        LoggedError.STOPPED, "smtpd", "no SASL authentication mechanisms", SASL, TIME, 1
    )


def test_error_logged_only_by_master_has_no_reason() -> None:
    (error,) = logged_errors(log(*FATAL[2:]))
    assert (error.program, error.text) == ("smtpd", LoggedError.UNEXPLAINED)
    assert error.warning == "process /usr/lib/postfix/sbin/smtpd pid 448 exit status 1"


def test_repeated_error_is_counted() -> None:
    (error,) = logged_errors(log(("postfix/local[1]", PROCMAIL), ("postfix/local[2]", PROCMAIL)))
    assert (error.kind, error.count) == (LoggedError.BOUNCED, 2)


@pytest.mark.parametrize(
    "later",
    [
        ("postfix/local[3]", SENT),
        ("postfix/master[79]", "daemon started -- version 3.7.11, configuration /etc/postfix"),
        ("postfix/master[79]", "reload -- version 3.7.11, configuration /etc/postfix"),
        ("postfix/postfix-script[9]", "stopping the Postfix mail system"),
    ],
)
def test_error_before_success_or_reload_does_not_count(later: tuple[str, str]) -> None:
    assert texts(("postfix/local[1]", PROCMAIL), later) == []
    assert texts(later, ("postfix/local[1]", PROCMAIL)) != []


@pytest.mark.parametrize(
    ("reason", "dsn"),
    [
        ("mail transport unavailable", "4.3.0"),
        ("mail system configuration error", "4.3.5"),
        ("deferred transport", "4.3.2"),
        ("maildir delivery failed: create maildir file /x: Permission denied", "4.2.0"),
        ("too many hops", "5.4.0"),
        ("mail for example.org loops back to myself", "5.4.6"),
        ("connect to 127.0.0.1[127.0.0.1]:10025: Connection refused", "4.4.1"),
        ("connect to ::1[::1]:10025: Connection refused", "4.4.1"),
        ("conversation with 127.0.0.1[127.0.0.1] timed out while sending end of data", "4.4.2"),
        (
            (
                "host 127.0.0.1[127.0.0.1] said: 451 4.3.0 The mail filter has failed (in reply to "
                "end of DATA command)"
            ),
            "4.3.0",
        ),
        (
            (
                "host 127.0.0.1[127.0.0.1] said: 554 5.7.1 Relay access denied (in reply to RCPT "
                "TO command)"
            ),
            "5.7.1",
        ),
    ],
)
def test_delivery_that_fails_because_of_this_mail_system_counts(reason: str, dsn: str) -> None:
    assert texts(("postfix/smtp[1]", delivery(reason, dsn))) == [reason]


@pytest.mark.parametrize(
    ("reason", "dsn"),
    [
        ("Host or domain name not found. Name service error for name=example.com type=MX", "4.4.3"),
        ("connect to mx.example.org[192.0.2.1]:25: Connection refused", "4.4.1"),
        ("host mx.example.org[192.0.2.1] said: 451 4.3.0 Try again later", "4.3.0"),
        ("host mx.example.org[192.0.2.1] said: 554 5.7.1 Denied (in reply to RCPT TO)", "5.7.1"),
        ('unknown user: "info"', "5.1.1"),
        (
            (
                "host 127.0.0.1[127.0.0.1] said: 550 5.7.1 It contains a virus (in reply to "
                "end of DATA command)"
            ),
            "5.7.1",
        ),
        (
            (
                "host 127.0.0.1[127.0.0.1] said: 550 5.1.1 <x@example.org>: Recipient address "
                "rejected: User unknown (in reply to RCPT TO command)"
            ),
            "5.1.1",
        ),
    ],
)
def test_remote_errors_and_rejected_messages_do_not_count(reason: str, dsn: str) -> None:
    assert texts(("postfix/smtp[1]", delivery(reason, dsn, "bounced"))) == []


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (
            "proxy-reject: END-OF-MESSAGE: 451 4.3.0 Error: queue file write error; from=<a@b>",
            "451 4.3.0 Error: queue file write error",
        ),
        (
            (
                "NOQUEUE: reject: MAIL from localhost[127.0.0.1]: 452 4.3.1 Insufficient system "
                "storage; proto=ESMTP helo=<vm>"
            ),
            "452 4.3.1 Insufficient system storage",
        ),
        (
            (
                "A1: milter-reject: END-OF-MESSAGE from a[192.0.2.1]: 4.7.1 Service unavailable - "
                "try again later; from=<a@b>"
            ),
            "4.7.1 Service unavailable - try again later",
        ),
        (
            (
                "NOQUEUE: milter-reject: CONNECT from a[192.0.2.1]: 451 4.7.1 Service unavailable "
                "- try again later; proto=SMTP"
            ),
            "451 4.7.1 Service unavailable - try again later",
        ),
        (
            (
                "NOQUEUE: reject: RCPT from a[192.0.2.1]: 450 4.3.2 Service currently unavailable; "
                "from=<a@b>"
            ),
            "",
        ),
        (
            "NOQUEUE: reject: MAIL from a[192.0.2.1]: 552 5.3.4 Message size exceeds fixed limit;",
            "",
        ),
        (
            (
                "NOQUEUE: reject: RCPT from a[192.0.2.1]: 550 5.1.1 <x>: Recipient address "
                "rejected: User unknown in local recipient table; from=<a@b>"
            ),
            "",
        ),
    ],
)
def test_refusal_counts_only_if_mail_system_fails(text: str, reply: str) -> None:
    assert texts(("postfix/smtpd[1]", text)) == ([reply] if reply else [])


def test_error_of_administrator_command_does_not_count() -> None:
    assert texts(("postfix/postmap[1]", "fatal: open /etc/postfix/x: No such file")) == []


def test_already_running_error_is_not_reported() -> None:
    line = "fatal: the Postfix mail system is already running"
    assert texts(("postfix/postfix-script[1]", line)) == []


def test_failed_filter_counts_until_a_verdict_is_logged() -> None:
    failed = (
        "postprox[5]",
        "filter failed: exit status 2; message passed unfiltered: client=192.0.2.1 helo=a",
    )
    (error,) = logged_errors(log(failed))
    assert (error.kind, error.text) == (
        LoggedError.UNFILTERED,
        "the filter failed: exit status 2",
    )
    assert texts(failed, ("postprox[6]", "verdict=accept result=delivered client=-")) == []
    assert len(texts(failed, ("postprox[6]", "verdict=fail-open result=delivered client=-"))) == 1


def test_postdrop_error_on_full_disk_counts() -> None:
    reason = "create file maildrop/1.2: No space left on device"
    assert texts(("postfix/postdrop[1]", f"warning: mail_queue_enter: {reason}")) == [reason]


def test_worst_error_is_reported_with_time_and_count() -> None:
    errors = logged_errors(log(("postfix/local[1]", PROCMAIL), *FATAL))
    (fault,) = logged(setup(*errors))
    assert LEVELS[fault.name] == 2
    assert fault.problem == (
        f"smtpd ended once, most recently at {TIME}: 'no SASL authentication mechanisms' after "
        f'"{SASL}"; mail is delayed or deferred'
    )


def test_log_without_errors_is_not_reported() -> None:
    assert list(logged(setup(*logged_errors(log(("postfix/local[1]", SENT)))))) == []


def test_failed_filter_does_not_count_after_successful_test_messages() -> None:
    error = LoggedError(LoggedError.REFUSED, "postprox", "the filter failed: exit status 2")
    assert len(list(logged(setup(error)))) == 1
    assert list(logged(setup(error, samples=SampleRuns()))) == []
    assert len(list(logged(setup(error, samples=SampleRuns(unchecked="no"))))) == 1


def test_long_text_of_log_is_limited() -> None:
    (fault,) = logged(setup(LoggedError(LoggedError.STOPPED, "smtpd", "x" * 999)))
    assert len(fault.problem) < 400


@pytest.mark.parametrize("is_traditional", [True, False])
def test_lines_of_log_file_since_a_time_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_traditional: bool
) -> None:
    file = tmp_path / "mail.log"
    now = datetime.now().astimezone().replace(microsecond=0)
    times = [now - timedelta(days=3), now - timedelta(minutes=10), now]
    shown = "%b %e %H:%M:%S" if is_traditional else "%Y-%m-%dT%H:%M:%S%z"
    file.write_text("".join(f"{time.strftime(shown)} mail x[1]: y\n" for time in times))
    monkeypatch.setattr(machine_module, "_LOG_FILES", (str(tmp_path / "no"), str(file)))
    monkeypatch.setenv("PATH", str(tmp_path))
    since = times[2].timestamp() - 60
    last = f"{times[2].strftime(shown)} mail x[1]: y"
    assert Machine().mail_log(since) == (last, f"tail -n 50 {file}")
    assert Machine().mail_log(0)[0].count("\n") == 1


def test_journal_is_read_before_log_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "journalctl"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    text, command = Machine().mail_log(9e9)
    assert text.split()[-1] == "--since=@9000000000"
    assert command == "journalctl --no-pager --facility=mail -n 50"


def test_system_without_log_has_no_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "_LOG_FILES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Machine().mail_log(0) == ("", "")


def test_last_change_is_newest_ctime_in_directory(tmp_path: Path) -> None:
    file = tmp_path / "main.cf"
    file.touch()
    os.utime(file, (0, 0))
    assert Machine().changed([str(tmp_path), "/missing"]) == file.stat().st_ctime


@pytest.mark.parametrize("warning", ["lost connection with proxy 127.0.0.1:10025", ""])
@pytest.mark.parametrize(("greeting", "count"), [("220 a ESMTP", 0), ("421 4.4.1 no", 1)])
def test_lost_connection_to_responding_proxy_is_not_reported(
    warning: str, greeting: str, count: int
) -> None:
    text = "451 4.3.0 Error: queue file write error"
    error = LoggedError(LoggedError.REFUSED, "smtpd", text, warning)
    case = setup(error)
    (place,) = case.proxies[0].endpoints
    assert case.running is not None
    running = replace(case.running, sessions={place: Session(greeting)})
    assert len(list(logged(replace(case, running=running)))) == count
