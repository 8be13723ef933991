"""Tests of the example log line and the expressions in docs/log.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postprox.core.message import Message
from postprox.core.verdict import ACCEPT, Verdict
from tests.unit.test_log_lines import an_envelope, line

BLOCKS = re.findall(r"(?ms)^```(\w*)\n(.*?)\n```$", Path("docs/log.md").read_text())
EXAMPLE, FIELDS, FAIL2BAN, LOGSTASH = [text for language, text in BLOCKS if not language]


def told(reply: bytes = b"250 2.0.0 Ok: queued as 4QxZ\r\n", sender: bytes = b"a@example") -> str:
    message = Message(10.0)
    message.decode(b"Message-ID: <1@example>\r\n\r\n..b\r\n.\r\n")
    message.verdict = Verdict(ACCEPT, said=b"looks fine")
    message.filter_seconds = 0.25
    envelope = an_envelope()
    envelope.sender = sender
    return line(message, envelope, reply)


def test_documented_example_matches_proxy_log() -> None:
    assert told() == EXAMPLE


def test_regular_expression_extracts_fields() -> None:
    fields = dict(re.findall(FIELDS, told()))
    assert list(fields) == [word.partition("=")[0] for word in EXAMPLE.split() if "=" in word]
    assert fields["said"] == '"looks fine"'


@pytest.mark.parametrize("sender", [b'"a result=refused b"@x', b"a\\", b'" client=1.2.3.4 x="'])
def test_documented_expression_ignores_field_forged_by_sender(sender: bytes) -> None:
    fields = re.findall(FIELDS, told(sender=sender))
    assert [name for name, _ in fields] == [name for name, _ in re.findall(FIELDS, EXAMPLE)]


def test_fail2ban_matches_only_rejected_clients() -> None:
    host = FAIL2BAN.replace("<HOST>", r"(?P<host>[0-9a-fA-F.:]+)")
    rejected = told().replace("verdict=accept result=delivered", "verdict=reject result=refused")
    # fail2ban removes the time. A line on standard error has no host name.
    for head in (" mx postprox[1]: ", "mx postprox[1]: ", " postprox[1]: "):
        found = re.search(host, head + rejected)
        assert found is not None
        assert found["host"] == "192.0.2.1"
    forged = "postprox[1]: verdict=reject result=refused client=9.9.9.9 helo="
    assert re.search(host, " mx postprox[1]: " + told(sender=forged.encode())) is None
    for program in ("postfix/cleanup[9]: 4QxY: warning: header Subject: ", "dovecot: auth: "):
        assert re.search(host, f" mx {program}{forged}") is None


def grok(line: str) -> dict[str, str] | None:
    """Return the fields that the grok expression in docs/log.md extracts."""
    (value,) = re.findall(r"\"VALUE\" => '(.*)' \}", LOGSTASH)
    (expression,) = re.findall(r"\"message\" => '(.*)' \}", LOGSTASH)
    kinds = {"VALUE": value, "INT": "[0-9]+", "NUMBER": "[0-9.]+"}
    grouped = re.sub(
        r"%\{(\w+):(\w+)\}", lambda found: f"(?P<{found[2]}>{kinds[found[1]]})", expression
    )
    found = re.search(grouped, line)
    return found and found.groupdict()


def test_logstash_extracts_every_field() -> None:
    fields = grok(told())
    assert fields is not None
    assert [f"{name.replace('_', '-')}={value}" for name, value in fields.items()] == re.findall(
        r'[a-z-]+=(?:"[^"]*"|\S+)', EXAMPLE
    )


@pytest.mark.parametrize("sender", [b'"a result=refused b"@x', b"a\\", b'" client=1.2.3.4 x="'])
def test_sender_cannot_forge_logstash_field(sender: bytes) -> None:
    fields = grok(told(sender=sender))
    assert fields is not None
    assert (fields["result"], fields["client"]) == ("delivered", "192.0.2.1")
