"""The last step of the report, with which Postfix loads the changed configuration."""

from __future__ import annotations

import pytest

from postprox.check import loading
from postprox.check.facts import RunningFacts
from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.setup import Setup

pytestmark = pytest.mark.any_account


def last_step(
    *commands: str, name: str = "no-way", directory: str = "", seen: RunningFacts | None = None
) -> str:
    """Return the last step after the commands of one finding, if Postfix is running."""
    setup = Setup(parse("", "", "", directory), [], {}, seen or RunningFacts(postfix=True))
    return loading.command(setup, [Finding(name, "", "", commands)])


@pytest.mark.parametrize(
    ("command", "step"),
    [
        ("postconf -e a=b", "postfix reload"),
        ("postconf -PX smtp/inet/a", "postfix reload"),
        ("sed -i s/a/b/ /etc/postfix/master.cf", "postfix reload"),
        ('cat x >> "$(postconf -h config_directory)"/main.cf', "postfix reload"),
        ("postconf -e inet_interfaces=all", "postfix stop; postfix start"),
        ("chmod a+rx /usr/local/bin/mail-filter", ""),
        ("postconf -n", ""),
    ],
)
def test_changed_configuration_is_loaded(command: str, step: str) -> None:
    assert last_step(command) == step


def test_service_with_same_port_requires_restart() -> None:
    removed = "postconf -MX 0.0.0.0:10026/inet"
    added = "postconf -M '127.0.0.1:10026/inet=127.0.0.1:10026 inet n - n - - smtpd'"
    assert last_step(removed, added) == "postfix stop; postfix start"
    assert last_step(removed, added.replace("10026", "10027")) == "postfix reload"
    unit = RunningFacts(postfix=True, has_postfix_unit=True)
    assert last_step(removed, added, seen=unit) == "systemctl restart postfix"


@pytest.mark.parametrize(
    ("where", "step"),
    [("master.cf, 127.0.0.1:10025/inet", "postfix stop; postfix start"), ("postprox.service", "")],
)
def test_creating_user_of_spawned_proxy_requires_restart(where: str, step: str) -> None:
    setup = Setup(parse("", "", ""), [], {}, RunningFacts(postfix=True))
    finding = Finding("user", where, "", ("useradd --system postprox",))
    assert loading.command(setup, [finding]) == step


def test_stopped_postfix_is_started() -> None:
    seen = RunningFacts(postfix=False)
    assert last_step("postconf -e a=b", seen=seen) == "postfix start"
    assert last_step("postconf -e a=b", seen=seen, name="postfix-stopped") == "postfix reload"


def test_unused_configuration_is_not_loaded() -> None:
    command = "postconf -c /srv/postfix -e a=b"
    assert last_step(command, directory="/srv/postfix") == "postfix -c /srv/postfix reload"
    stopped = RunningFacts(postfix=False)
    assert last_step(command, directory="/srv/postfix", seen=stopped) == ""
