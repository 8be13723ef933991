"""Findings about other entrances to Postfix: XCLIENT, other instances, unknown recipients."""

from __future__ import annotations

from pathlib import Path

import pytest

from postprox.check.findings import Finding
from postprox.check.postconf import parse
from postprox.check.probe import postconf_command, postfix, programs, units, written_files
from postprox.check.scripts import sending
from postprox.check.scripts.mistake import Kind
from tests.unit.checking import FRONT, PROXY, found
from tests.unit.test_check_running import Site, apply, check, site

__all__ = ["site"]
pytestmark = pytest.mark.any_account


def named(findings: list[Finding], name: str) -> list[Finding]:
    """Return the findings with this name."""
    return [each for each in findings if each.name == name]


@pytest.mark.parametrize("value", ["0.0.0.0/0", "127.0.0.1, 0.0.0.0/0", "static:all", "[::]/0"])
def test_xclient_for_all_clients_is_reported(value: str) -> None:
    (finding,) = named(found(f"smtpd_authorized_xclient_hosts = {value}\n"), "open-relay")
    assert finding.commands == ("postconf -e smtpd_authorized_xclient_hosts=",)


@pytest.mark.parametrize("value", ["", "127.0.0.0/8", "192.0.2.1"])
def test_xclient_for_few_clients_is_not_reported(value: str) -> None:
    assert named(found(f"smtpd_authorized_xclient_hosts = {value}\n"), "open-relay") == []


def test_unknown_recipients_on_port_25_are_reported() -> None:
    name = "receive_override_options"
    findings = found(f"{name} = no_unknown_recipient_checks, no_header_body_checks\n")
    problem = "mail for unknown recipients is accepted"
    (finding,) = [each for each in findings if problem in each.problem]
    assert finding.commands == (f"postconf -e {name}=no_header_body_checks",)
    own = found(
        f"{name} = no_unknown_recipient_checks\n", overrides=f"smtp/inet/{name} = no_milters\n"
    )
    assert [each for each in own if problem in each.problem] == []


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("local_recipient_maps =\n", "postconf -X local_recipient_maps"),
        (
            "smtpd_reject_unlisted_recipient = no\n",
            "postconf -e smtpd_reject_unlisted_recipient=yes",
        ),
        ("local_recipient_maps =\nluser_relay = admin\n", ""),
        ("local_recipient_maps =\nmailbox_transport = lmtp:unix:private/lmtp\n", ""),
        ("local_recipient_maps = hash:/etc/postfix/users\n", ""),
    ],
)
def test_accepting_unknown_local_recipients_is_reported(line: str, remedy: str) -> None:
    problem = "mail for unknown recipients is accepted"
    findings = [each for each in found(line) if problem in each.problem]
    assert [each.remedy for each in findings] == ([remedy] if remedy else [])


EMPTY = "smtpd_proxy_filter =\n"
USERS = "smtpd_client_restrictions = permit_sasl_authenticated,reject\n"


@pytest.mark.parametrize(
    ("label", "own", "expected"),
    [
        ("2525/inet", [EMPTY], {"unfiltered"}),
        ("2525/inet", [EMPTY, "content_filter =\n"], set()),
        ("2525/inet", [EMPTY, USERS], set()),
        ("submission/inet", [EMPTY], set()),
    ],
)
def test_public_service_with_one_empty_parameter_is_reported(
    label: str, own: list[str], expected: set[str]
) -> None:
    master = f"{FRONT}{label.replace('/', ' ')} n - n - - smtpd\n{PROXY}"
    overrides = "".join(f"{label}/{line}" for line in own)
    findings = found("smtpd_proxy_filter = 127.0.0.1:10025\n", master, overrides)
    assert {each.name for each in findings if label in each.where} == expected


@pytest.mark.parametrize(("pickup", "is_reported"), [("", True), (None, False)])
def test_pipe_filter_before_unfiltered_pickup_is_reported(
    pickup: str | None, is_reported: bool
) -> None:
    name = "content_filter"
    overrides = f"smtp/inet/{name} = spam\n"
    overrides += "" if pickup is None else f"pickup/unix/{name} = {pickup}\n"
    master = f"{FRONT}{PROXY}pickup unix n - n 60 1 pickup\nspam unix - n n - - pipe argv=/f\n"
    main = "smtpd_proxy_filter =\ncontent_filter = scan:[127.0.0.1]:10025\n"
    findings = named(found(main, master, overrides), "no-way")
    commands = [command for each in findings for command in each.commands]
    assert ("postconf -PX smtp/inet/content_filter" in commands) == is_reported


INSTANCE = "multi_instance_enable = yes\ninet_interfaces = all\n"


@pytest.mark.parametrize(
    ("main", "master", "is_open"),
    [
        (INSTANCE, FRONT, True),
        (INSTANCE + "content_filter = scan:[127.0.0.1]:10025\n", FRONT, False),
        (INSTANCE + "relayhost = [127.0.0.1]:25\n", FRONT, False),
        (INSTANCE.replace("all", "loopback-only"), FRONT, False),
        (INSTANCE + "master_service_disable = inet\n", FRONT, False),
        (INSTANCE.replace("yes", "no"), FRONT, False),
        (INSTANCE, "127.0.0.1:10026 inet n - n - - smtpd\n", False),
    ],
)
def test_other_instance_without_filter_is_reported(
    monkeypatch: pytest.MonkeyPatch, main: str, master: str, is_open: bool
) -> None:
    monkeypatch.setattr(postconf_command, "outputs", lambda directory: (main, master, ""))
    own = "multi_instance_enable = yes\nmulti_instance_directories = /etc/postfix-lan\n"
    instances = list(postfix._open_instances(parse(own, "", "")))
    assert instances == [("/etc/postfix-lan", "smtp/inet")] * is_open


def test_remedy_filters_other_instance(
    monkeypatch: pytest.MonkeyPatch, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        postfix, "_open_instances", lambda configuration: iter([("/etc/p2", "smtp/inet")])
    )
    checked = check(site, capsys)
    assert checked.names() == ["no-way"]
    assert checked.remedy == (
        "postconf -c /etc/p2 -e smtpd_proxy_filter=127.0.0.1:10025; postfix -c /etc/p2 reload"
    )


def test_unit_of_root_is_reported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.write(site.arguments, "User=root", "DynamicUser=no")
    checked = check(site, capsys)
    assert (checked.status, checked.names()) == (1, ["root"])
    apply(site, checked)
    assert units.read_unit(site.units / "postprox.service").user == "postprox"


LOOP = """\
grep -q virus "$EMAIL" && exit 1
sed 1d "$EMAIL" | /usr/sbin/sendmail -i -f "$SENDER" -- $RECIPIENTS || exit 2
echo '250 sent' >&2
exit 1
"""


def test_filter_that_sends_message_and_discards_it_is_found() -> None:
    (mistake,) = sending.mistakes(f"#!/bin/sh\n{LOOP}")
    assert mistake.kind == Kind.LOOPED
    silent = LOOP.replace("echo '250 sent' >&2\n", "")
    assert list(sending.mistakes(f"#!/bin/sh\n{silent}")) == []


def test_message_captured_from_standard_input_is_found() -> None:
    (mistake,) = sending.mistakes('#!/bin/sh\nmessage=$(cat)\necho "$message" > x\n')
    assert (mistake.kind, mistake.number) == (Kind.UNREAD, 2)
    assert mistake.correction


def test_program_in_directory_of_other_software_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "opt/scanner/bin/scan"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "Path", lambda path: tmp_path if path == "/" else Path(path))
    assert programs._elsewhere("scan") == str(program)
    assert programs._elsewhere("*") == ""


def test_writable_file_in_closed_directory_is_target(tmp_path: Path) -> None:
    file = tmp_path / "log"
    script = f"echo x >> {file}\n"
    assert written_files.targets(script, "/bin/sh", "") == (str(tmp_path),)
    file.touch()
    user = file.owner()
    assert written_files.targets(script, "/bin/sh", user) == (str(file),)
