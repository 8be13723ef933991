"""postprox-check and policy services that do not run, and comments in main.cf."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check import policy_rules
from postprox.check.facts import Listener, RunningFacts
from postprox.check.parameters import comments
from postprox.check.postconf import parse
from postprox.check.routes import Endpoint
from postprox.check.rules import judge
from postprox.check.setup import Setup
from tests.unit.checking import FRONT, names

pytestmark = pytest.mark.any_account
NAME = "smtpd_recipient_restrictions"
POSTGREY = f"{NAME} = permit_mynetworks, check_policy_service inet:127.0.0.1:10023, reject\n"


def remedies(
    main: str, master: str = FRONT, own: str = "", running: RunningFacts | None = None
) -> list[str]:
    setup = Setup(parse(main, master, own), [], {}, running or RunningFacts(postfix=True))
    return [each.remedy for each in judge(setup) if each.name == "policy"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (
            "permit_mynetworks, check_policy_service inet:127.0.0.1:1, reject",
            "permit_mynetworks, reject",
        ),
        ("permit_mynetworks check_policy_service inet:127.0.0.1:1", "permit_mynetworks"),
        ("check_policy_service { inet:127.0.0.1:1, timeout=9s } permit", "permit"),
        ("check_policy_service unix:private/spf permit", "permit"),
    ],
)
def test_missing_policy_service_is_removed(value: str, kept: str) -> None:
    (remedy,) = remedies(f"{NAME} = {value}\n")
    assert remedy.replace("'", "") == f"postconf -e {NAME}={kept}"


def test_policy_service_in_master_cf_override_is_removed() -> None:
    own = f"smtp/inet/{NAME} = check_policy_service inet:127.0.0.1:10023, permit\n"
    assert remedies("", own=own) == [f"postconf -P smtp/inet/{NAME}=permit"]


def test_installed_policy_service_is_started() -> None:
    running = RunningFacts(postfix=True, policy_units=("postgrey.service",))
    assert remedies(POSTGREY, running=running) == ["systemctl enable --now postgrey.service"]


def test_running_policy_service_is_not_reported() -> None:
    running = RunningFacts(postfix=True, listeners=(Listener(Endpoint("127.0.0.1", 10023)),))
    assert remedies(POSTGREY, running=running) == []
    spf = f"{NAME} = check_policy_service unix:private/spf\n"
    assert remedies(spf, f"{FRONT}spf unix - n n - 0 spawn user=nobody argv=/bin/spf\n") == []
    assert remedies(f"{NAME} = check_policy_service inet:192.0.2.1:10023\n") == []


def test_address_of_each_policy_service_is_found() -> None:
    own = f"smtp/inet/{NAME} = check_policy_service unix:private/spf, reject\n"
    assert policy_rules.places(parse(POSTGREY, FRONT, own)) == [
        "inet:127.0.0.1:10023",
        "unix:private/spf",
    ]


def test_policy_service_is_not_checked_offline() -> None:
    assert "policy" not in names(judge(Setup(parse(POSTGREY, FRONT, ""), [], {})))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (
            "smtpd_relay_restrictions = permit_mynetworks,reject   # ticket 1",
            "permit_mynetworks,reject",
        ),
        ("soft_bounce = no # for tests", "no"),
        ("smtpd_client_connection_count_limit = 10   # per client", "10"),
        ("relayhost = # none", ""),
        ("smtpd_banner = $myhostname # ESMTP", None),
        ("relayhost = [mail.test]", None),
        ("header_checks = regexp:/etc/postfix/#checks", None),
    ],
)
def test_comment_after_value_is_removed(line: str, value: str | None, tmp_path: Path) -> None:
    found = list(comments(parse(f"{line}\n", "", "")))
    assert [each.edits[0].change("") for each in found] == ([] if value is None else [value])


def test_policy_service_that_cannot_run_is_removed() -> None:
    main = f"{NAME} = check_policy_service unix:private/spf, permit\n"
    configuration = parse(main, f"{FRONT}spf unix - n n - 0 spawn user=spf argv=/p/spf\n", "")
    reason = "runs a program as user spf, who does not exist"
    setup = Setup(replace(configuration, unrunnable={"spf/unix": reason}), [], {})
    (finding,) = [each for each in judge(setup) if each.name == "policy"]
    assert reason in finding.problem
    assert finding.remedy == f"postconf -e {NAME}=permit"


def test_number_before_a_comment_is_kept() -> None:
    main = "message_size_limit = 52428800   # 50 MB\nqueue_minfree = x # y\n"
    found = judge(Setup(parse(main, FRONT, ""), [], {}))
    remedies = {each.remedy for each in found if each.name == "number"}
    assert "postconf -e message_size_limit=52428800" in remedies
