"""postprox-check and services whose SASL authentication is not available."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check.postconf import parse
from postprox.check.probe import postfix_files
from postprox.check.rules import judge
from postprox.check.setup import Setup
from postprox.check.table_rules import sasl

pytestmark = pytest.mark.any_account

AUTH = "smtpd_sasl_auth_enable = yes\n"
DOVECOT = f"{AUTH}smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/auth\n"
MASTER = "smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd\n"
SOCKET = "/var/spool/postfix/private/auth"


def test_missing_socket_is_reported_once_for_main_cf() -> None:
    missing = {"smtp/inet": SOCKET, "submission/inet": SOCKET}
    configuration = replace(parse(DOVECOT, MASTER, ""), missing_sasl=missing)
    (finding,) = [each for each in judge(Setup(configuration, [], {})) if each.name == "sasl"]
    assert f"the socket {SOCKET} of Dovecot does not exist" in finding.problem
    assert finding.remedy == "postconf -e smtpd_sasl_auth_enable=no"


def test_sasl_setting_in_master_cf_is_corrected() -> None:
    own = "submission/inet/smtpd_sasl_auth_enable = yes\n"
    configuration = replace(parse("", MASTER, own), missing_sasl={"submission/inet": SOCKET})
    (finding,) = [each for each in judge(Setup(configuration, [], {})) if each.name == "sasl"]
    assert finding.remedy == "postconf -P submission/inet/smtpd_sasl_auth_enable=no"


def test_stopped_dovecot_is_started() -> None:
    configuration = parse(DOVECOT, MASTER, "")
    configuration = replace(
        configuration, missing_sasl={"smtp/inet": SOCKET}, is_dovecot_stopped=True
    )
    (fault,) = sasl(configuration)
    assert "Dovecot is not running" in fault.problem


def test_missing_plug_ins_are_installed() -> None:
    (fault,) = sasl(replace(parse(AUTH, MASTER, ""), missing_sasl={"smtp/inet": ""}))
    assert "the Cyrus SASL plug-ins are missing" in fault.problem


@pytest.mark.parametrize(
    ("kind", "path", "is_missing"),
    [
        ("dovecot", "private/auth", True),
        ("dovecot", "unix:private/auth", True),
        ("dovecot", "private/exists", False),
        ("dovecot", "inet:127.0.0.1:12345", False),
        ("cyrus", "smtpd", False),
    ],
)
def test_socket_path_is_relative_to_queue_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, path: str, is_missing: bool
) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/exists").touch()
    monkeypatch.setattr(postfix_files, "_SASL_PLUGINS", (f"{tmp_path}/priv*",))
    main = f"{AUTH}smtpd_sasl_type = {kind}\nsmtpd_sasl_path = {path}\n"
    configuration = parse(f"{main}queue_directory = {tmp_path}\n", MASTER, "")
    expected = {"smtp/inet": f"{tmp_path}/private/auth"} if is_missing else {}
    found = dict(postfix_files.missing_sasl(configuration))
    assert {label: found[label] for label in found if label == "smtp/inet"} == expected


def test_cyrus_without_plug_ins_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postfix_files, "_SASL_PLUGINS", (f"{tmp_path}/libplain.so*",))
    assert dict(postfix_files.missing_sasl(parse(AUTH, "smtp inet n - n - - smtpd\n", ""))) == {
        "smtp/inet": ""
    }


def test_service_without_authentication_needs_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postfix_files, "_SASL_PLUGINS", ())
    assert not dict(postfix_files.missing_sasl(parse("", MASTER, "")))
