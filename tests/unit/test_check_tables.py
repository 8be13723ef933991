"""Findings about lookup tables, mailbox sizes and the programs for local users."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check import delivery_rules, fixes, table_rules
from postprox.check.findings import Finding
from postprox.check.postconf import BrokenTable, parse
from postprox.check.probe import postconf_command, postfix_files
from postprox.check.setup import Setup

pytestmark = pytest.mark.any_account


def tables_in(main: str) -> list[BrokenTable]:
    """Return the tables that Postfix cannot open."""
    return list(postfix_files.broken_tables(parse(main, "", "")))


def finding(table: BrokenTable) -> Finding:
    """Return the finding for a table that Postfix cannot open."""
    configuration = replace(parse("", "", ""), broken_tables=(table,))
    (found,) = fixes.plan(configuration, list(table_rules.broken(configuration)))
    return found


def test_table_without_index_is_found(tmp_path: Path) -> None:
    text = tmp_path / "virtual"
    main = f"virtual_alias_maps = hash:{text}, texthash:{text}\n"
    assert tables_in(main) == [BrokenTable("virtual_alias_maps", "hash", str(text), has_text=False)]
    text.touch()
    assert tables_in(main) == [BrokenTable("virtual_alias_maps", "hash", str(text))]
    (tmp_path / "virtual.db").touch()
    assert tables_in(main) == []


@pytest.mark.parametrize(
    "line",
    [
        "smtpd_tls_session_cache_database = btree:/no/such/cache",
        "postscreen_cache_map = btree:/no/such/cache",
        "alias_database = hash:/no/such/aliases",
        "smtpd_recipient_restrictions = check_policy_service unix:/no/such/socket",
        "virtual_alias_maps = static:all, cidr:/no/such/table",
    ],
)
def test_table_that_postfix_creates_or_needs_no_index_is_not_reported(line: str) -> None:
    assert tables_in(f"{line}\n") == []


def test_unsupported_table_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postconf_command, "run", lambda *words: "btree\nhash\n")
    (table,) = tables_in("header_checks = pcre:/etc/postfix/header_checks\n")
    assert table.is_unsupported
    found = finding(table)
    assert found.commands == ("apt-get install -y postfix-pcre",)
    assert "this Postfix does not support tables of type pcre" in found.problem


@pytest.mark.parametrize(
    ("table", "command"),
    [
        (BrokenTable("virtual_alias_maps", "hash", "/a b"), "postmap 'hash:/a b'"),
        (BrokenTable("alias_maps", "hash", "/a"), "postalias hash:/a"),
        (BrokenTable("relay_domains", "cdb", "/a", has_text=False), "touch /a && postmap cdb:/a"),
    ],
)
def test_remedy_creates_index(table: BrokenTable, command: str) -> None:
    assert finding(table).commands == (command,)


@pytest.mark.parametrize(
    ("mailbox", "message", "is_reported"),
    [("5000000", "", True), ("0", "", False), ("51200000", "", False), ("20000000", "1000", False)],
)
def test_mailbox_limit_below_message_limit_is_reported(
    mailbox: str, message: str, is_reported: bool
) -> None:
    main = f"mailbox_size_limit = {mailbox}\n"
    main += f"message_size_limit = {message}\n" if message else ""
    found = list(delivery_rules.mailbox_size(parse(main, "", "")))
    assert [each.name for each in found] == ["number"] * is_reported


def test_program_without_group_bit_is_reported(tmp_path: Path) -> None:
    program = tmp_path / "postdrop"
    program.touch()
    main = f"command_directory = {tmp_path}\nsetgid_group = root\n"
    configuration = parse(main, "", "")
    assert list(postfix_files.closed_programs(configuration)) == [str(program)]
    configuration = replace(configuration, closed_programs=(str(program),))
    (found,) = fixes.plan(configuration, list(table_rules.programs(configuration)))
    assert found.commands == (f"chgrp root {program} && chmod 2755 {program}",)
    if os.getuid() == 0:
        program.chmod(0o2755)
        assert list(postfix_files.closed_programs(configuration)) == []


def test_queue_directory_of_another_group_is_reported(tmp_path: Path) -> None:
    for name in ("maildrop", "public"):
        (tmp_path / name).mkdir(mode=0o710)
    own = grp.getgrgid((tmp_path / "public").stat().st_gid).gr_name
    other = next(each.gr_name for each in grp.getgrall() if each.gr_name != own)
    main = f"queue_directory = {tmp_path}\nsetgid_group = "
    assert list(postfix_files.closed_directories(parse(f"{main}{own}\n", "", ""))) == []
    configuration = parse(f"{main}{other}\n", "", "")
    closed = tuple(postfix_files.closed_directories(configuration))
    assert closed == (f"{tmp_path}/maildrop", f"{tmp_path}/public")
    (fault,) = table_rules.programs(replace(configuration, closed_directories=closed))
    assert fault.name == "postdrop"
    assert "mail from local users and programs is not accepted" in fault.problem


def test_queue_directories_of_another_owner_are_reported(tmp_path: Path) -> None:
    for name in ("incoming", "active", "corrupt"):
        (tmp_path / name).mkdir()
    own = pwd.getpwuid((tmp_path / "active").stat().st_uid)
    other = next(each for each in pwd.getpwall() if each.pw_uid != own.pw_uid)
    main = f"queue_directory = {tmp_path}\nmail_owner = "
    assert list(postfix_files.foreign_directories(parse(f"{main}{own.pw_name}\n", "", ""))) == []
    configuration = parse(f"{main}{other.pw_name}\n", "", "")
    foreign = tuple(postfix_files.foreign_directories(configuration))
    assert foreign == ("active", "corrupt", "incoming")
    configuration = replace(configuration, foreign_directories=foreign)
    (found,) = fixes.plan(configuration, list(table_rules.programs(configuration)))
    assert found.name == "queue"
    owner = other.pw_name
    assert found.commands == (f"cd {tmp_path} && chown -R {owner} active corrupt incoming",)


@pytest.mark.parametrize(
    ("line", "fate"),
    [
        ("/^Received:/ HOLD", "stays in the hold queue"),
        ("/^From:.*@/ REJECT", "is refused"),
        ("/./ DISCARD", "is lost"),
        ("/^Subject: lottery/ REJECT", ""),
        ("/^Received:/ IGNORE", ""),
    ],
)
def test_header_check_for_all_messages_is_reported(line: str, fate: str) -> None:
    main = "header_checks = regexp:/etc/postfix/header_checks\n"
    setup = Setup(
        parse(main, "", ""), [], {}, tables={"/etc/postfix/header_checks": f"# all\n{line}\n"}
    )
    found = list(table_rules.checks_for_all(setup))
    assert [fate in each.problem for each in found] == [True] * bool(fate)
    if "HOLD" in line:
        (finding,) = fixes.plan(setup.configuration, found)
        assert finding.commands == (
            "sed -i '2s/^/#/' /etc/postfix/header_checks",
            "postfix reload",
            "postsuper -H ALL",
        )


@pytest.mark.parametrize(
    ("value", "foreign", "remedy"),
    [
        ("203.0.113.25, 127.0.0.1", ("203.0.113.25",), "postconf -e inet_interfaces=all"),
        ("127.0.0.1 [::1]", (), ""),
        ("all", (), ""),
        ("loopback-only", (), ""),
    ],
)
def test_foreign_address_in_inet_interfaces_is_reported(
    value: str, foreign: tuple[str, ...], remedy: str
) -> None:
    configuration = parse(f"inet_interfaces = {value}\n", "", "")
    assert tuple(postfix_files.foreign_interfaces(configuration)) == foreign
    configuration = replace(configuration, foreign_interfaces=foreign)
    found = fixes.plan(configuration, list(table_rules.foreign_interfaces(configuration)))
    assert [each.remedy for each in found] == ([remedy] if remedy else [])


def test_queue_on_tmpfs_is_reported(tmp_path: Path) -> None:
    main = f"queue_directory = {tmp_path}\n"
    configuration = replace(parse(main, "", ""), is_queue_in_memory=True)
    (fault,) = table_rules.programs(configuration)
    assert fault.name == "queue"
    assert "lost at each reboot" in fault.problem
    fstab = tmp_path / "fstab"
    fstab.write_text(f"tmpfs {tmp_path} tmpfs size=1g 0 0\n")
    (finding,) = fixes.plan(configuration, [fault])
    script = finding.commands[-1].partition(";")[0].replace("/etc/fstab", str(fstab))
    subprocess.run(["/bin/sh", "-c", script], check=True)
    assert fstab.read_text() == f"#tmpfs {tmp_path} tmpfs size=1g 0 0\n"
