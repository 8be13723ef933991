"""postprox-check: filters that send notices with sendmail(1) from a restricted unit."""

from __future__ import annotations

import os

import pytest

from postprox.check.probe import proxy_facts, units
from postprox.check.scripts import sending
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
NOTICE = (
    'if grep -q virus "$EMAIL"; then\n'
    "    printf 'Subject: virus\\n\\nx\\n' |\n"
    "        /usr/sbin/sendmail -f '' postmaster\n"
    "    echo '550 5.7.1 a virus' >&2\n"
    "    exit 1\n"
    "fi\n"
)


def test_remedy_lets_filter_queue_notices(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        proxy_facts, "_missing_groups", lambda _: ()
    )  # Postfix may not be installed
    site.filter.write_text(f"#!/bin/sh\n{NOTICE}")
    checked = check(site, capsys)
    assert checked.names() == ["filter"]
    assert "line 4 of the filter" in checked.problem
    assert "because the unit has NoNewPrivileges=yes" in checked.problem
    apply(site, checked)
    assert check(site, capsys).names() == []
    unit = units.read_unit(site.units / "postprox.service")
    assert unit.settings["SupplementaryGroups"] == ["postdrop"]
    assert unit.paths("ReadWritePaths") == ["/var/spool/postfix/maildrop"]


@pytest.mark.parametrize(
    "settings",
    [
        ("NoNewPrivileges=no", "RestrictSUIDSGID=no", "DynamicUser=no"),
        ("SupplementaryGroups=postdrop",),
    ],
)
def test_notice_that_unit_permits_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], settings: tuple[str, ...]
) -> None:
    site.filter.write_text(f"#!/bin/sh\n{NOTICE}")
    site.write(site.arguments, *settings)
    assert "sendmail(1)" not in check(site, capsys).problem


@pytest.mark.parametrize(
    ("script", "is_python", "number"),
    [
        (NOTICE, False, 3),
        ('SM="/usr/lib/sendmail -t"\nif grep x "$EMAIL"; then $SM < notice; fi\n', False, 2),
        ("warn() {\n{ echo 'Subject: x'; } | sendmail postmaster\n}\n", False, 2),
        ('import subprocess\nsubprocess.run(["/usr/sbin/sendmail", "-t"])\n', True, 2),
        ("echo 'x | sendmail y'\n", False, 0),
        ("# x | sendmail y\n", False, 0),
        ("sendmail() { cat > /dev/null; }\nsendmail x\n", False, 0),
        ("echo x | sendmail -C /etc/other y\n", False, 0),
        ("MAIL_CONFIG=/etc/other sendmail y\n", False, 0),
        ('/usr/sbin/sendmail -i "$SENDER" -- "$RECIPIENT" < "$EMAIL"\n', False, 0),
        ("print('sendmail')\n", True, 0),
    ],
)
def test_first_notice_is_found(script: str, is_python: bool, number: int) -> None:
    found = sending.notices(script, is_python=is_python)
    assert [each.number for each in found] == [number] * bool(number)


@pytest.mark.parametrize("target", ["exim4", "msmtp"])
def test_other_program_than_postfix_is_not_reported(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    real = os.path.realpath
    monkeypatch.setattr(
        os.path, "realpath", lambda path: target if "sendmail" in str(path) else real(path)
    )
    site.filter.write_text(f"#!/bin/sh\n{NOTICE}")
    assert check(site, capsys).names() == []
