"""postprox-check: endless and binary files, and the permissions of the proxy's user."""

from __future__ import annotations

import io
import json
import os
import pty
import pwd
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from postprox.check import access, fixes, unit
from postprox.check.facts import ProgramFacts
from postprox.check.findings import Fault
from postprox.check.postconf import UnreadableError, parse
from postprox.check.probe import accounts, postfix, programs, proxy_facts, system, units
from postprox.check.routes import listening_proxy, spawned_proxies
from postprox.check.rules import judge
from postprox.check.setup import Setup
from tests.unit.checking import FRONT, MAIN, PROXY, SEEN, names, postconf

as_other_user = pytest.mark.skipif(
    os.geteuid() != 0, reason="checking another user's access requires root"
)

# Endless and binary files


def test_fifo_in_place_of_unit_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "postprox.service")
    with pytest.raises(UnreadableError, match="is not a regular file"):
        units.read_unit(tmp_path / "postprox.service")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", ["postprox.service.d/a.conf", "environment"])
def test_endless_drop_in_or_environment_file_is_not_read(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "postprox.service"
    path.write_text(f"[Service]\nExecStart=/p $A up\nEnvironmentFile={tmp_path}/environment\n")
    (tmp_path / "postprox.service.d").mkdir()
    make(tmp_path / name)
    assert units.read_unit(path).words == ("/p", "up")


def test_fifo_in_unit_directory_is_ignored(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "postprox.service")
    assert list(units.installed_units([str(tmp_path)])) == []


def test_link_to_dev_null_masks_unit(tmp_path: Path) -> None:
    for name in ("postprox.service", "postprox.socket"):
        (tmp_path / name).symlink_to(os.devnull)
    (read,) = units.installed_units([str(tmp_path)])
    assert (read.masked, read.words, read.socket) == (True, (), None)


@pytest.mark.parametrize("name", ["main.cf", "master.cf"])
def test_fifo_in_place_of_configuration_file_is_rejected(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UnreadableError, match=rf"{name} is not a regular file"):
        postfix.read_configuration(str(tmp_path))


def test_hanging_postconf_is_terminated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "TIMEOUT", 0.1)
    postconf(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(UnreadableError, match="-nx: timed out after"):
        postfix.read_configuration("")


def test_fifo_in_place_of_filter_is_treated_as_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "filter")
    assert system.read_script(str(tmp_path / "filter")) == b""


@pytest.mark.parametrize(
    "octets",
    [b"[Service]\nExecStart=/p\0\n", b"[Service]\nUser=\xff\n", b"#" * system.LARGEST_FILE + b"\n"],
)
def test_invalid_unit_text_is_reported(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "u.service").write_bytes(octets)
    with pytest.raises(UnreadableError, match=r"u\.service must be a text file of at most"):
        units.read_unit(tmp_path / "u.service")


class BlockingFile(io.BytesIO):
    """A file without available data, such as /proc/kmsg."""

    def read(self, size: int | None = -1, /) -> bytes:
        return None  # type: ignore[return-value]


def test_blocking_unit_file_is_treated_as_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(system, "open_regular", lambda path: BlockingFile())
    assert units.read_unit(Path("u.service")).words == ()


@pytest.mark.parametrize("line", ["ExecStart=/p 'x", "Environment='x", 'ExecStart=/p "\\'])
def test_unit_with_unterminated_quote_is_reported(tmp_path: Path, line: str) -> None:
    (tmp_path / "u.service").write_text(f"[Service]\n{line}\n")
    with pytest.raises(UnreadableError, match=r"u\.service, its drop-ins .*: a quote is "):
        units.read_unit(tmp_path / "u.service")


@pytest.mark.parametrize(
    ("line", "interpreter"),
    [
        (b"#!/bin/sh\0 x\n", "/bin/sh"),
        (b"#!/bin/sh\t-e\n", "/bin/sh"),
        (b"#! \t /bin/sh -e", "/bin/sh"),
        (b"#!/bin/sh\r\n", "/bin/sh\r"),
        (b"#!\n", ""),
        (b"#!/usr/bin/env  sh\n", "/bin/sh"),
    ],
)
def test_shebang_parser_matches_kernel(line: bytes, interpreter: str) -> None:
    assert programs._interpreter(line, "/bin") == interpreter


@pytest.mark.parametrize("words", ["", "/p/postprox", "/p/other", "''", "/p/postprox -l 1 -d '' x"])
def test_invalid_command_line_in_unit_is_reported(words: str) -> None:
    configuration = parse(MAIN, FRONT, "")
    proxy = listening_proxy(unit.parse("u.service", [f"[Service]\nExecStart={words}\n"], {}))
    case = Setup(configuration, [proxy], {proxy: proxy_facts.collect(configuration, proxy)})
    assert "command-line" in names(judge(case))


# Permissions of the proxy's user

SPY = """
import json, os, runpy

def spy(path, right, *, effective_ids):
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        terminal = True
    except OSError:
        terminal = False
    seen = dict(
        ids=os.getresuid(), groups=os.getresgid(), session=os.getsid(0) == os.getpid(),
        environment=sorted(set(os.environ) - {{"LC_CTYPE"}}), terminal=terminal,
        files=sorted(os.readlink(f"/proc/self/fd/{{n}}") for n in range(3, 64)
                     if os.path.lexists(f"/proc/self/fd/{{n}}") and n != report),
        standard=[os.readlink(f"/proc/self/fd/{{n}}") for n in range(3)],
    )
    os.write(report, json.dumps(seen).encode())
    return True

report = os.open({report!r}, os.O_WRONLY)
os.access = spy
runpy.run_path({access!r}, run_name="__main__")
"""


@pytest.fixture
def terminal() -> Iterator[None]:
    """Replace standard input with a terminal."""
    ends = pty.openpty()
    before = os.dup(0)
    os.dup2(ends[1], 0)
    yield
    os.dup2(before, 0)
    for descriptor in (before, *ends):
        os.close(descriptor)


@pytest.mark.usefixtures("terminal")
@as_other_user
def test_user_cannot_send_signals_to_access_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report").touch()
    spy = tmp_path / "spy.py"
    spy.write_text(SPY.format(report=str(tmp_path / "report"), access=access.__file__))
    monkeypatch.setattr(access, "__file__", str(spy))
    assert accounts.may("nobody", os.W_OK, "/") is True
    seen = json.loads((tmp_path / "report").read_text())
    nobody = pwd.getpwnam("nobody")
    assert seen == {
        # kill(2) and ptrace(2) check the real and the saved user id.
        "ids": [0, nobody.pw_uid, 0],
        "groups": [0, nobody.pw_gid, 0],
        "session": True,
        "environment": [],
        "terminal": False,
        "files": [],
        "standard": ["/dev/null"] * 3,
    }


@as_other_user
def test_access_is_probed_as_another_user(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert accounts.may("nobody", os.W_OK, "/tmp") is True
    assert accounts.may("nobody", os.X_OK, "/bin/sh") is True
    assert accounts.may("nobody", os.X_OK, str(closed)) is False
    assert accounts.may("nobody", os.X_OK, "/nonexistent") is False
    assert accounts.may("no-such-user", os.X_OK, "/bin/sh") is None


def test_access_probe_timeout_returns_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(access, "__file__", str(tmp_path / "slow.py"))
    monkeypatch.setattr(system, "TIMEOUT", 0.1)
    assert accounts._ask_as(pwd.getpwnam("nobody"), os.X_OK, "/bin/sh", [65534]) is None


# systemd units


def test_directory_in_place_of_unit_is_rejected(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(UnreadableError, match="is not a regular file"):
        units.read_unit(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (str(pwd.getpwnam("nobody").pw_uid), "nobody"),
        ("0", "root"),
        ("00", "00"),
        ("4242424242", "4242424242"),
        ("9999999999", "9999999999"),
        ("nobody", "nobody"),
    ],
)
def test_numeric_user_is_resolved_to_name(tmp_path: Path, user: str, name: str) -> None:
    (tmp_path / "u.service").write_text(f"[Service]\nUser={user}\n")
    assert units.read_unit(tmp_path / "u.service").user == name


def test_remedy_creates_user_with_numeric_id(tmp_path: Path) -> None:
    (tmp_path / "u.service").write_text(
        "[Service]\nUser=4242424242\nExecStart=/p/postprox -l 1 up\n"
    )
    configuration = parse(MAIN, FRONT, "")
    proxy = listening_proxy(units.read_unit(tmp_path / "u.service"))
    case = Setup(configuration, [proxy], {proxy: proxy_facts.collect(configuration, proxy)})
    (remedy,) = (finding.remedy for finding in judge(case) if finding.name == "user")
    assert remedy.endswith(" --uid 4242424242 postprox")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("-l 1 up", "-d /new -l 1 up"),
        ("-d /tmp -l 1 up", "-d /new -l 1 up"),
        ("-d/tmp -l 1 up", "-d/new -l 1 up"),
        ("-l 1 -rd /tmp up", "-l 1 -rd /new up"),
        ("-l 1 -vd/tmp up", "-l 1 -vd/new up"),
        ("-l 1 up --tempdir /tmp", "-l 1 up --tempdir /new"),
        ("-l 1 --temp=/tmp up", "-l 1 --temp=/new up"),
        ("-d /a -d /tmp -c /tmp -l 1 up", "-d /a -d /new -c /tmp -l 1 up"),
        ("-c 'x -d /tmp' -l 1 unix:/tmp", "-d /new -c 'x -d /tmp' -l 1 unix:/tmp"),
        ("-d 5 -t 5 -l 1 up", "-d /new -d 5 -t 5 -l 1 up"),
    ],
)
def test_remedy_replaces_spool_directory(given: str, expected: str) -> None:
    words = ("/usr/bin/python3", "-m", "postprox", *shlex.split(given))
    proxy = listening_proxy(unit.Unit("u.service", words))
    edits = (fixes.set_directory(proxy, "/new"),)
    (finding,) = fixes.plan(parse(MAIN, FRONT, ""), [Fault("spool-open", "", "", edits)])
    assert finding.remedy == f"/usr/bin/python3 -m postprox {expected}"


def spool_remedy(directory: Path, finding: str) -> str:
    """Return the remedy of `finding` for a proxy that stores messages in `directory`."""
    master = FRONT + PROXY.replace("-c", f"-d {directory} -c")
    configuration = parse(MAIN, master, "")
    (proxy,) = spawned_proxies(configuration)
    case = Setup(configuration, [proxy], {proxy: proxy_facts.collect(configuration, proxy)})
    (remedy,) = (one.remedy for one in judge(case) if one.name == finding)
    return remedy


def moves_spool(remedy: str) -> bool:
    return remedy.count(" -d ") == 2 and remedy.endswith("-d /var/spool/postprox -c /f up'")


@pytest.mark.parametrize(("mode", "file"), [(0o1777, ""), (0o755, "other-program.log")])
def test_remedy_does_not_restrict_access_to_shared_directory(
    tmp_path: Path, mode: int, file: str
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    if file:
        (shared / file).touch()
    assert moves_spool(spool_remedy(shared, "spool-open"))


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the proxy's user enter all directories, but write to none."""
    monkeypatch.setattr(accounts, "may", lambda _user, right, _path: right != os.W_OK)


@pytest.mark.usefixtures("unwritable")
def test_remedy_does_not_take_directory_from_other_programs(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "other-program.log").touch()
    assert moves_spool(spool_remedy(shared, "spool"))


@pytest.mark.usefixtures("unwritable")
@pytest.mark.parametrize("file", ["", "postprox-0123456789abcdef.email"])
def test_remedy_makes_proxy_owner_of_unused_directory(tmp_path: Path, file: str) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    if file:
        (spool / file).touch()
    assert spool_remedy(spool, "spool").endswith(f"-m 0700 {spool}")


@pytest.mark.usefixtures("unwritable")
@pytest.mark.parametrize("home", ["/root", "/home/alice"])
def test_remedy_moves_spool_out_of_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setattr(accounts, "closed_directory", lambda _path, _user: home)
    assert moves_spool(spool_remedy(tmp_path, "spool"))


def test_remedy_grants_access_to_directory_outside_home_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "may", lambda _user, _right, path: path == "/")
    assert spool_remedy(tmp_path, "spool") == f"chmod a+x /{tmp_path.parts[1]}"


def test_remedy_copies_filter_out_of_home_directory() -> None:
    master = FRONT + PROXY.replace("/f", "{/root/f --fast}")
    configuration = parse(MAIN, master, "")
    (proxy,) = spawned_proxies(configuration)
    facts = replace(SEEN, filter=ProgramFacts("/root/f", exists=True, closed_directory="/root"))
    (remedy,) = (
        one.remedy
        for one in judge(Setup(configuration, [proxy], {proxy: facts}))
        if one.name == "filter"
    )
    assert remedy.startswith("install -b -m 0755 /root/f /usr/local/bin/f; ")
    assert remedy.endswith("-c {/usr/local/bin/f --fast} up'")


@pytest.mark.parametrize(
    ("upstreams", "expected"),
    [
        (("127.0.0.1:10028", ""), "$POSTPROX_OPTIONS 127.0.0.1:10028' > /users/zz-"),
        (("127.0.0.1:10028", "127.0.0.1:10028"), 'POSTPROX_UPSTREAM="127.0.0.1:10028"'),
    ],
)
def test_shared_options_file_changes_only_if_units_agree(
    upstreams: tuple[str, str], expected: str
) -> None:
    environment = 'POSTPROX_UPSTREAM="127.0.0.1:10026"\nPOSTPROX_OPTIONS="--strict -c /f"\n'
    text = "[Service]\nEnvironmentFile=/e\nExecStart=/p $POSTPROX_OPTIONS $POSTPROX_UPSTREAM\n"
    units = []
    edits: list[fixes.Edit] = []
    for name, upstream in zip(("users", "postprox"), upstreams, strict=True):
        each = unit.parse(f"{name}.service", [text], {"/e": environment})
        each.path, each.drop_ins = f"/{name}.service", f"/{name}"
        units.append(each)
        if upstream:
            words = ("/p", "--strict", "-c", "/f", upstream)
            edits.append(fixes.set_setting(each, "ExecStart", shlex.join(words)))
    faults = [Fault("unsigned", "", "", (edit,)) for edit in edits]
    findings = fixes.plan(parse(MAIN, FRONT, ""), faults, units)
    assert expected in findings[0].remedy
    assert ("/e" in findings[0].remedy) == bool(upstreams[1])
    assert len({found.remedy for found in findings}) == 1
