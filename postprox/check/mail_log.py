"""Finds errors of this mail system in the mail log.

Rule: the functions depend only on the text of the log. Errors of other mail servers and errors in
messages do not count. An error no longer counts once the same program has succeeded, or once
Postfix has loaded its configuration again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .facts import LoggedError

#: A line from journald or syslogd, with either of the timestamp formats of rsyslog.
_LINE = re.compile(
    r"(?P<time>\S+|[A-Z][a-z]{2} +\d+ [\d:]+) \S+ (?P<ident>[\w./-]+)\[(?P<pid>\d+)\]: (?P<text>.*)"
)
#: Messages logged when Postfix starts, stops or reloads its configuration.
_LOADED = re.compile(r"daemon started|reload |refreshing |stopping |terminating ")
#: Commands that an administrator runs. Their errors do not affect mail.
_COMMANDS = {
    *("postalias", "postcat", "postconf", "postdrop", "postlog", "postmap", "postmulti"),
    *("postqueue", "sendmail"),
}
_STOPPED = re.compile(
    r"(?:fatal|panic): (?P<reason>(?!the Postfix mail system is (already|not) running).*)"
)
_THROTTLED = re.compile(r"warning: \S+/(?P<program>[\w-]+): bad command startup -- throttling")
_STATUS = re.compile(
    r".*, dsn=(?P<dsn>[\d.]+), status=(?P<status>bounced|deferred) \((?P<text>.*)\)$"
)
_LOCAL = r"(?:127\.\d+\.\d+\.\d+|\[?::1\]?|localhost)"
#: Reasons for a bounce or a deferral that are errors of this mail system.
_OWN = (
    re.compile(r"[45]\.3\.[0135] (?!host \S+ said)"),
    re.compile(r"[45]\.2\.0 "),
    re.compile(r"4\.3\.2 deferred transport"),
    re.compile(r"5\.4\.\d .*(too many hops|loop)"),
    re.compile(rf"4\.4\.[12] (connect to|conversation with|lost connection with) {_LOCAL}\["),
    re.compile(rf"[45]\.3\.[015] host {_LOCAL}\[\S+ said"),
    re.compile(rf"[45]\.[02-9]\.\d host {_LOCAL}\[.* \(in reply to (EHLO|XFORWARD|MAIL|RCPT)\b"),
)
#: A reply with which Postfix refuses mail because of an error of this mail system (RFC 3463,
#: section 3.4). postscreen(8) uses 4.3.2 to make clients connect again.
_REFUSED = re.compile(
    r".*reject: [^;]*?: (?P<reply>([45]\d\d )?([45]\.3\.[015]|4\.7\.1 Service unavailable)[^;]*)"
)
#: postdrop(1) cannot write a message. The pattern excludes wrong permissions, which the finding
#: `postdrop` reports.
_NO_QUEUE_FILE = re.compile(
    r"warning: mail_queue_enter: (?P<reason>create file .*)(?<!Permission denied)$"
)
_FILTER_FAILED = re.compile(r"filter failed: (?P<reason>.*?); message (?P<fate>.*?): client=")
_SUCCESSES = {
    "postprox": re.compile(r"verdict=(accept|rewrite|reject|discard) "),
    # Restrictions often permit this machine, so success for its mail does not prove that other
    # clients can send mail.
    "smtpd": re.compile(r"\w+: client=(?!\S*\[(127\.|::1\]))"),
}
_SENT = re.compile(r".*, status=sent \(")


def logged_errors(log: str) -> tuple[LoggedError, ...]:
    """Return the errors in the log that still count, each with its count and the time of the most
    recent one.
    """
    found: dict[tuple[str, str], LoggedError] = {}
    warnings: dict[str, str] = {}
    for line in filter(None, map(_LINE.match, log.splitlines())):
        program, text = line["ident"].rpartition("/")[2], line["text"]
        if program in ("master", "postfix-script") and _LOADED.match(text):
            found.clear()
        elif _SUCCESSES.get(program, _SENT).match(text):
            for key in [key for key in found if key[0] == program]:
                del found[key]
        for error in _errors(program, text, warnings.get(line["pid"], "")):
            key = (error.program, error.kind)
            if key in found and error.text == LoggedError.UNEXPLAINED:
                continue  # the program itself has logged the reason
            count = found.pop(key).count + 1 if key in found else 1
            found[key] = LoggedError(
                error.kind, error.program, error.text, error.warning, line["time"], count
            )
        if text.startswith("warning: "):
            warnings[line["pid"]] = text.removeprefix("warning: ")
    return tuple(found.values())


def _errors(program: str, text: str, warning: str) -> Iterator[LoggedError]:
    """Yield the error in a line, if there is one.

    warning: the last warning of the same process.
    """
    if (found := _STOPPED.match(text)) and program not in _COMMANDS:
        yield LoggedError(LoggedError.STOPPED, program, found["reason"], warning)
    elif program == "master" and (found := _THROTTLED.match(text)):
        yield LoggedError(LoggedError.STOPPED, found["program"], LoggedError.UNEXPLAINED, warning)
    elif found := _STATUS.match(text):
        if any(own.match(f"{found['dsn']} {found['text']}") for own in _OWN):
            yield LoggedError(found["status"], program, found["text"])
    elif found := _REFUSED.match(text):
        yield LoggedError(LoggedError.REFUSED, program, found["reply"], warning)
    elif found := _NO_QUEUE_FILE.match(text):
        yield LoggedError(LoggedError.REFUSED, program, found["reason"])
    elif program == "postprox" and (found := _FILTER_FAILED.match(text)):
        is_refused = found["fate"].startswith("refused")
        kind = LoggedError.REFUSED if is_refused else LoggedError.UNFILTERED
        yield LoggedError(kind, program, f"the filter failed: {found['reason']}")
