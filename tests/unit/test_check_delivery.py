"""postprox-check: delivery to local users, certificates and misspelt restrictions."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check.postconf import parse
from postprox.check.probe import postfix_files
from postprox.check.rules import judge
from postprox.check.setup import Setup
from tests.unit.checking import FRONT

NAME = "smtpd_recipient_restrictions"


def remedies(name: str, main: str, own: str = "", **facts: object) -> list[str]:
    """Return the remedies of the findings with a name."""
    configuration = replace(parse(main, FRONT, own), **facts)  # type: ignore[arg-type]
    findings = judge(Setup(configuration, [], {}))
    return [each.remedy for each in findings if each.name == name]


@pytest.mark.any_account
@pytest.mark.parametrize(
    ("transport", "value"),
    [
        ("mailbox_transport", "mailbox_transport="),
        ("virtual_transport", "virtual_transport=virtual"),
        ("local_transport", "'local_transport=local:$myhostname'"),
    ],
)
def test_transport_to_missing_socket_is_replaced(
    tmp_path: Path, transport: str, value: str
) -> None:
    main = f"queue_directory = {tmp_path}\n{transport} = lmtp:unix:private/dovecot-lmtp\n"
    socket = tmp_path / "private/dovecot-lmtp"
    missing = dict(postfix_files.missing_sockets(parse(main, "", "")))
    assert missing == {transport: str(socket)}
    assert remedies("transport", main, missing_sockets=missing) == [f"postconf -e {value}"]
    stopped = remedies("transport", main, missing_sockets=missing, is_dovecot_stopped=True)
    assert stopped == ["systemctl enable --now dovecot"]
    socket.parent.mkdir()
    socket.touch()
    assert dict(postfix_files.missing_sockets(parse(main, "", ""))) == {}


@pytest.mark.any_account
@pytest.mark.parametrize(
    ("path", "owner", "remedy"),
    [
        ("/var/mail", "mail", "install -d -m 2775 -g mail /var/mail"),
        ("/var/mail/ann", "ann", "chown ann /var/mail/ann && chmod u+rw /var/mail/ann"),
    ],
)
def test_mailbox_not_writable_by_local_is_corrected(path: str, owner: str, remedy: str) -> None:
    assert remedies("queue", "", closed_mailboxes={path: owner}) == [remedy]
    command = "mailbox_command = /bin/true\n"
    assert remedies("queue", command, closed_mailboxes={path: owner}) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="requires root")
def test_mailboxes_local_cannot_write_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = grp.getgrgid(pwd.getpwnam("mail").pw_gid)
    monkeypatch.setattr(postfix_files, "MAILBOXES", str(tmp_path))
    configuration = parse(f"mail_spool_directory = {tmp_path}\n", "", "")
    (tmp_path / "nobody").touch()
    (tmp_path / "no-such-user").touch()
    found = dict(postfix_files.closed_mailboxes(configuration))
    assert found == {str(tmp_path): group.gr_name, str(tmp_path / "nobody"): "nobody"}
    os.chown(tmp_path, -1, group.gr_gid)
    tmp_path.chmod(0o2775)
    os.chown(tmp_path / "nobody", pwd.getpwnam("nobody").pw_uid, -1)
    assert dict(postfix_files.closed_mailboxes(configuration)) == {}
    other = parse(f"mail_spool_directory = {tmp_path}/no\n", "", "")
    assert dict(postfix_files.closed_mailboxes(other)) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="requires root")
@pytest.mark.parametrize(("level", "count"), [("may", 1), ("none", 0)])
def test_remedy_for_missing_certificate_disables_starttls(
    tmp_path: Path, level: str, count: int
) -> None:
    main = f"smtpd_tls_security_level = {level}\nsmtpd_tls_cert_file = {tmp_path}/cert.pem\n"
    missing = dict(postfix_files.missing_certificates(parse(main, "", "")))
    assert len(missing) == count
    found = remedies("starttls", main, missing_certificates=missing)
    assert found == ["postconf -e smtpd_tls_security_level=none"] * count


@pytest.mark.any_account
@pytest.mark.parametrize(
    ("value", "right"),
    [
        (
            "permit_mynetwork, reject_unauth_destinaton",
            "permit_mynetworks, reject_unauth_destination",
        ),
        ("check_client_acess hash:/a, permit", "check_client_access hash:/a, permit"),
        ("reject_rbl_clients b.example permit", "reject_rbl_client b.example permit"),
        ("permit_mynetworks, hash:/reject_x, check_recipient_access static:reject_y", ""),
        ("check_helo_access hash:/h, my_reject_class", ""),
    ],
)
def test_misspelt_restriction_is_corrected(value: str, right: str) -> None:
    found = remedies("value", f"{NAME} = {value}\n")
    assert [each.replace("'", "") for each in found] == [f"postconf -e {NAME}={right}"] * bool(
        right
    )
    found = remedies("value", "", f"smtp/inet/{NAME} = {value}\n")
    assert len(found) == bool(right)
