"""Tests of files that a server writes atomically and of stale temporary files."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from postprox.shell import newfile

RANDOM = bytes(8)


def written(path: Path, content: bytes = b"new") -> Path:
    os.close(newfile.replace(str(path), content))
    return path


def error_of(path: Path) -> OSError:
    with pytest.raises(OSError) as raised:  # noqa: PT011 - the tests check errno
        newfile.replace(str(path), b"new")
    assert raised.value.filename == str(path)
    return raised.value


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    victim = tmp_path / "private"
    victim.write_text("precious")
    victim.chmod(0o600)
    return victim


def is_untouched(victim: Path) -> bool:
    return victim.read_text() == "precious" and stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_link_at_file_path_is_replaced(tmp_path: Path, victim: Path) -> None:
    file = tmp_path / "file"
    file.symlink_to(victim)
    assert written(file).read_bytes() == b"new"
    assert not file.is_symlink()
    assert is_untouched(victim)


def test_fifo_at_file_path_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "file"
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    assert written(file).read_bytes() == b"new"
    assert os.read(reader, 1) == b""
    os.close(reader)


def new_name(directory: Path) -> Path:
    return directory / f".postprox-{os.getpid()}-{RANDOM.hex()}"


def plant_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def plant_hard_link(place: Path, victim: Path) -> None:
    place.hardlink_to(victim)


def plant_fifo(place: Path, victim: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("plant", [plant_link, plant_hard_link, plant_fifo])
def test_existing_file_with_temporary_name_is_not_opened(
    tmp_path: Path,
    victim: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[Path, Path], None],
) -> None:
    monkeypatch.setattr(os, "urandom", lambda _: RANDOM)
    plant(new_name(tmp_path), victim)
    assert error_of(tmp_path / "file").errno == errno.EEXIST
    assert is_untouched(victim)
    assert os.path.lexists(new_name(tmp_path))


def test_temporary_names_are_unique(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        names.extend(path.name for path in tmp_path.iterdir() if path.name != "file")
        return len(content)

    monkeypatch.setattr(os, "pwrite", pwrite)
    written(tmp_path / "file")
    written(tmp_path / "file")
    assert len(set(names)) == 2
    assert not [name for name in names if name.endswith(".prom")]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_file_is_world_readable_for_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        file = written(tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_replaced_file_has_mode_0644(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o600)
    assert stat.S_IMODE(written(file).stat().st_mode) == 0o644


def test_directory_at_file_path_raises_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    assert error_of(tmp_path / "file").errno == errno.EISDIR
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_full_disk_preserves_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "file"
    file.write_text("old")
    monkeypatch.setattr(os, "pwrite", full)
    before = os.listdir("/dev/fd")  # noqa: PTH208 - only names are needed
    assert error_of(file).errno == errno.ENOSPC
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_partial_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:1], at))
    assert written(tmp_path / "file", b"in parts").read_bytes() == b"in parts"


def test_file_in_dev_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "devices").symlink_to("/dev")
    file = Path("/dev/postprox-test")
    try:
        for name in (file, tmp_path / "devices/postprox-test"):
            assert error_of(name).strerror == "it would replace a device"
        assert not file.exists()
    finally:
        if file.exists():
            file.unlink()


def test_file_in_dev_shm_is_written() -> None:
    file = Path(f"/dev/shm/postprox-test-{os.getpid()}")
    try:
        assert written(file).read_bytes() == b"new"
    finally:
        file.unlink(missing_ok=True)


def ended_process() -> int:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


def left_behind(directory: Path, pid: int) -> Path:
    return directory / f".postprox-{pid}-{RANDOM.hex()}"


@pytest.mark.parametrize("pid", [ended_process, os.getpid])
def test_temporary_file_of_killed_server_is_removed(tmp_path: Path, pid: Callable[[], int]) -> None:
    left_behind(tmp_path, pid()).touch()
    newfile.remove_stale(f"{tmp_path}/file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pid", [1, os.getppid()])
def test_temporary_file_of_another_running_process_is_not_removed(tmp_path: Path, pid: int) -> None:
    file = left_behind(tmp_path, pid)
    file.touch()
    newfile.remove_stale(f"{tmp_path}/file")
    assert file.exists()


def test_temporary_file_of_another_users_process_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: int) -> NoReturn:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    file = left_behind(tmp_path, 1)
    file.touch()
    monkeypatch.setattr(os, "kill", refused)
    newfile.remove_stale(f"{tmp_path}/file")
    assert file.exists()


def test_stale_file_in_working_directory_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path, ended_process()).touch()
    monkeypatch.chdir(tmp_path)
    newfile.remove_stale("file")
    assert list(tmp_path.iterdir()) == []


def test_unrelated_files_are_not_removed(tmp_path: Path, victim: Path) -> None:
    pid = ended_process()
    left_behind(tmp_path, pid).symlink_to(victim)
    os.mkfifo(f"{left_behind(tmp_path, pid + 1)}")
    (tmp_path / f"postprox-{pid}-{RANDOM.hex()}").touch()
    (tmp_path / f".postprox-{pid}-{RANDOM.hex()}.prom").touch()
    (tmp_path / f".postprox-{'9' * 200}-{RANDOM.hex()}").touch()
    before = sorted(tmp_path.iterdir())
    newfile.remove_stale(f"{tmp_path}/file")
    assert sorted(tmp_path.iterdir()) == before


def test_file_of_another_user_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = left_behind(tmp_path, ended_process())
    file.touch()
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    newfile.remove_stale(f"{tmp_path}/file")
    assert file.exists()


def test_stale_file_removal_ignores_missing_directory(tmp_path: Path) -> None:
    newfile.remove_stale(f"{tmp_path}/missing/file")


def test_already_removed_stale_file_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (left_behind(tmp_path, ended_process()) for _ in range(2))
    second.touch()
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", lambda _: [first.name, second.name])
        newfile.remove_stale(f"{tmp_path}/file")
    assert list(tmp_path.iterdir()) == []
