"""Findings about milters on whose port no program listens."""

from __future__ import annotations

import pytest

from postprox.check import fixes, milter_rules
from postprox.check.facts import Listener, RunningFacts
from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.routes import Endpoint
from postprox.check.setup import Setup

pytestmark = pytest.mark.any_account

FILTER = "smtpd_proxy_filter = 127.0.0.1:10025\n"
MASTER = "smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd\n"
MILTERS = "inet:127.0.0.1:11332, inet:127.0.0.1:8891"
SERVED = Listener(Endpoint("127.0.0.1", 8891))


def findings(main: str, seen: RunningFacts, overrides: str = "") -> list[Finding]:
    """Return the findings about missing milters."""
    configuration = parse(FILTER + main, MASTER, overrides)
    setup = Setup(configuration, [], {}, seen)
    return fixes.plan(configuration, list(milter_rules.missing(setup)))


def test_remedy_removes_milter_without_program() -> None:
    main = f"smtpd_milters = {MILTERS}\nnon_smtpd_milters = inet:127.0.0.1:11332\n"
    (found,) = findings(main, RunningFacts(listeners=(SERVED,)))
    assert (found.name, found.where) == ("no-milter", "master.cf, smtp/inet")
    assert "all mail is deferred (451)" in found.problem
    assert found.commands == (
        "postconf -e smtpd_milters=inet:127.0.0.1:8891",
        "postconf -e non_smtpd_milters=",
    )


def test_remedy_removes_milter_from_service() -> None:
    overrides = "smtp/inet/smtpd_milters = inet:127.0.0.1:11332\n"
    (found,) = findings("", RunningFacts(), overrides)
    assert found.commands == ("postconf -P smtp/inet/smtpd_milters=",)


def test_remedy_starts_installed_unit_of_milter() -> None:
    seen = RunningFacts(listeners=(SERVED,), milter_units=("rspamd.service",))
    (found,) = findings(f"smtpd_milters = {MILTERS}\n", seen)
    assert found.commands == ("systemctl enable --now rspamd.service",)


@pytest.mark.parametrize(
    ("action", "effect"), [("reject", "refused"), ("quarantine", "put on hold"), ("accept", "")]
)
def test_effect_depends_on_default_action(action: str, effect: str) -> None:
    main = f"smtpd_milters = inet:127.0.0.1:1\nmilter_default_action = {action}\n"
    found = findings(main, RunningFacts())
    assert [f"all mail is {effect};" in each.problem for each in found] == [True] * bool(effect)


def test_milter_on_another_machine_is_not_reported() -> None:
    assert findings("smtpd_milters = inet:192.0.2.1:11332\n", RunningFacts()) == []
