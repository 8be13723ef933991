"""Tests of the removal of files left by a killed proxy (files.stale)."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from postprox.core import limits, log_levels
from postprox.shell import log
from postprox.shell.stale_files import remove_stale_files
from tests.unit.users import as_an_ordinary_user

NAME = "postprox-0123456789abcdef"
OLD, OLDER = limits.STALE + 60, limits.STALE_OUTFILE + 60


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    monkeypatch.setattr(log, "write", lambda level, text: lines.append((level, text)))
    return lines


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that advances the clock, because a ctime cannot be set."""
    now = time.time()
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: now + seconds)


def left(directory: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        (directory / f"{NAME}.{suffix}").write_text("x")


def swept(directory: Path) -> list[str]:
    remove_stale_files(str(directory))
    return sorted(path.name.removeprefix(f"{NAME}.") for path in directory.iterdir())


@pytest.mark.parametrize(
    ("left_and_stay", "seconds"),
    [
        ((("email", "out"), ["email", "out"]), 0),
        ((("email", "out"), ["email", "out"]), limits.STALE - 60),
        ((("email", "out"), []), OLD),
        ((("email",), []), OLD),
        ((("spool",), ["spool"]), limits.STALE - 60),
        ((("spool",), []), OLD),
        ((("out",), ["out"]), OLD),
        ((("out",), []), OLDER),
    ],
)
def test_old_files_are_removed(
    tmp_path: Path,
    passes: Callable[[float], None],
    told: list[tuple[int, str]],
    left_and_stay: tuple[tuple[str, ...], list[str]],
    seconds: float,
) -> None:
    suffixes, stay = left_and_stay
    left(tmp_path, *suffixes)
    passes(seconds)
    assert swept(tmp_path) == stay
    gone = len(suffixes) - len(stay)
    line = f"removed {gone} stale files of a killed proxy from {tmp_path}"
    assert told == ([(log_levels.WARNING, line)] if gone else [])


@pytest.mark.parametrize("changed", ["mtime", "ctime"])
def test_age_is_determined_by_later_timestamp(
    tmp_path: Path, passes: Callable[[float], None], changed: str
) -> None:
    left(tmp_path, "spool")
    now = time.time()
    if changed == "mtime":
        os.utime(tmp_path / f"{NAME}.spool", (now + OLD, now + OLD))
        passes(OLD)
    else:
        os.utime(tmp_path / f"{NAME}.spool", (0, 0))
    assert swept(tmp_path) == ["spool"]


def test_removal_leaves_no_open_descriptor(
    tmp_path: Path, passes: Callable[[float], None], told: list[tuple[int, str]]
) -> None:
    left(tmp_path, "email")
    passes(OLD)
    before = os.listdir("/dev/fd")  # noqa: PTH208
    assert swept(tmp_path) == []
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_file_is_locked_during_removal(
    tmp_path: Path, passes: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    left(tmp_path, "email", "out")
    passes(OLD)
    tried: list[int] = []
    program = "import os, sys; os.lockf(os.open(sys.argv[1], os.O_RDWR), os.F_TLOCK, 0)"
    unlink = os.unlink

    def lock_first(path: str) -> None:
        command = [sys.executable, "-c", program, f"{tmp_path}/{NAME}.email"]
        tried.append(subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode)
        unlink(path)

    monkeypatch.setattr(os, "unlink", lock_first)
    assert swept(tmp_path) == []
    assert tried == [1, 1]


def in_another_process(directory: str) -> None:
    """Remove stale files in a child process, which respects the test process's locks."""
    other = os.fork()
    if not other:
        remove_stale_files(directory)
        os._exit(0)
    os.waitpid(other, 0)


def test_files_of_running_proxy_are_not_removed(
    tmp_path: Path, passes: Callable[[float], None]
) -> None:
    left(tmp_path, "email", "out")
    passes(OLDER)
    with (tmp_path / f"{NAME}.email").open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        in_another_process(str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 2
    assert swept(tmp_path) == []


@pytest.mark.parametrize("mode", [0o400, 0o200, 0])
def test_unwritable_or_unreadable_files_are_removed(
    passes: Callable[[float], None], told: list[tuple[int, str]], mode: int
) -> None:
    with as_an_ordinary_user() as directory:
        left(Path(directory), "email", "out")
        for path in Path(directory).iterdir():
            path.chmod(mode)
        passes(OLD)
        assert swept(Path(directory)) == []
    assert len(told) == 1


@pytest.mark.parametrize("mode", [0o400, 0o200, 0])
def test_unreadable_files_of_running_proxy_are_not_removed(
    passes: Callable[[float], None], mode: int
) -> None:
    with as_an_ordinary_user() as directory:
        left(Path(directory), "email", "out")
        with (Path(directory) / f"{NAME}.email").open("r+b") as held:
            fcntl.lockf(held, fcntl.LOCK_EX)
            (Path(directory) / f"{NAME}.email").chmod(mode)
            passes(OLDER)
            in_another_process(directory)
            assert len(list(Path(directory).iterdir())) == 2


def test_mode_of_link_target_is_unchanged(
    tmp_path: Path, passes: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, email = tmp_path / "kept", tmp_path / f"{NAME}.email"
    kept.touch(0o600)
    left(tmp_path, "email")
    passes(OLD)

    def replace(*_: object) -> int:
        """Fail to open the file, and replace it with a link before the file's mode is changed."""
        email.unlink()
        email.symlink_to(kept)
        raise PermissionError

    monkeypatch.setattr(os, "open", replace)
    remove_stale_files(str(tmp_path))
    assert email.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name",
    [
        "other",
        f"{NAME}.txt",
        f"{NAME}.email.old",
        "postprox-0123.email",
        "postprox-0123456789ABCDEF.email",
    ],
)
def test_file_with_unrelated_name_is_not_removed(
    tmp_path: Path, passes: Callable[[float], None], name: str
) -> None:
    (tmp_path / name).write_text("x")
    passes(OLDER)
    remove_stale_files(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_non_regular_file_is_not_removed(tmp_path: Path, passes: Callable[[float], None]) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x")
    (tmp_path / f"{NAME}.email").symlink_to(kept)
    (tmp_path / f"{NAME}.spool").mkdir()
    os.mkfifo(tmp_path / "postprox-fedcba9876543210.email")
    passes(OLDER)
    remove_stale_files(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4


def test_file_of_another_user_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Callable[[float], None]
) -> None:
    left(tmp_path, "spool")
    passes(OLDER)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert swept(tmp_path) == ["spool"]


def test_failed_removal_is_not_logged(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    passes: Callable[[float], None],
    told: list[tuple[int, str]],
) -> None:
    def refuse(_: str) -> None:
        raise PermissionError

    left(tmp_path, "spool")
    passes(OLDER)
    monkeypatch.setattr(os, "unlink", refuse)
    assert swept(tmp_path) == ["spool"]
    assert told == []


def test_missing_directory_is_not_logged(tmp_path: Path, told: list[tuple[int, str]]) -> None:
    remove_stale_files(str(tmp_path / "absent"))
    assert told == []


HOLDS_A_LOCK = """
import fcntl, sys
held = open(sys.argv[1], "r+b")
fcntl.lockf(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_locked_outfile_is_not_removed_if_email_was_replaced(
    tmp_path: Path, passes: Callable[[float], None]
) -> None:
    left(tmp_path, "email", "out")
    passes(OLDER)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_LOCK, str(tmp_path / f"{NAME}.out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        stay = swept(tmp_path)
        (tmp_path / f"{NAME}.email").unlink()
        stay_alone = swept(tmp_path)
        holder.communicate()
    assert (stay, stay_alone, swept(tmp_path)) == (["email", "out"], ["out"], [])


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_outfile_is_removed_if_email_is_not_a_regular_file(
    tmp_path: Path, passes: Callable[[float], None], kind: str
) -> None:
    left(tmp_path, "out")
    email = tmp_path / f"{NAME}.email"
    if kind == "link":
        email.symlink_to("/nonexistent")
    elif kind == "directory":
        email.mkdir()
    else:
        os.mkfifo(email)
    passes(OLDER)
    assert swept(tmp_path) == ["email"]


def test_unreadable_email_is_removed_if_proc_is_not_mounted(
    tmp_path: Path, passes: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc, the C library cannot change a mode without following symbolic links."""
    left(tmp_path, "email")
    email = tmp_path / f"{NAME}.email"
    email.chmod(0)
    passes(OLD)
    opens, changes = os.open, os.chmod

    def open_readable(path: str, flags: int) -> int:
        if not email.stat().st_mode & 0o400:
            raise PermissionError
        return opens(path, flags)

    def chmod(path: str, mode: int, *, follow_symlinks: bool = True) -> None:
        if not follow_symlinks:
            raise NotImplementedError
        changes(path, mode)

    monkeypatch.setattr(os, "open", open_readable)
    monkeypatch.setattr(os, "chmod", chmod)
    assert swept(tmp_path) == []
