"""Tests of a message's files: creation, reading, locks and removal."""

from __future__ import annotations

import _thread
import errno
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postprox.core import limits
from postprox.shell.spool import ChangedError, NotAFileError, Spool, blocks
from postprox.shell.system import posix
from tests.unit.users import as_an_ordinary_user


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(str(tmp_path), filtering=True)
    yield spool
    spool.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def offered(spool: Spool) -> Spool:
    spool.store(b"Subject: x\n\nbody\n", b"Subject: x\r\n\r\nbody\r\n.\r\n")
    spool.create_filter_files()
    return spool


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of descriptors passed to a thread. They are closed immediately."""
    closed: list[int] = []

    def start(close: Callable[[int], None], arguments: tuple[int]) -> None:
        closed.extend(arguments)
        close(*arguments)

    monkeypatch.setattr(_thread, "start_new_thread", start)
    return closed


def content(spool: Spool) -> bytes:
    return b"".join(spool.original_blocks())


def taken(spool: Spool) -> bytes | None:
    descriptor = spool.open_outfile()
    if descriptor is None:
        return None
    content = b"".join(spool.replacement_blocks(descriptor))
    os.close(descriptor)
    return content


def test_stored_message_is_read_back(spool: Spool) -> None:
    spool.store(b"one\n", b"one\r\n")
    spool.store(b"two\0\xff\n", b"two\0\xff\r\n")
    spool.check()
    assert content(spool) == b"one\r\ntwo\0\xff\r\n"


def test_message_can_be_read_twice(spool: Spool) -> None:
    spool.store(b"one\n", b"one\r\n")
    assert [content(spool), content(spool)] == [b"one\r\n", b"one\r\n"]


def test_file_is_not_read_after_short_block(spool: Spool) -> None:
    spool.store(b"", b"x" * (limits.COPY_SIZE + 1))
    descriptor = os.dup(spool.original)
    reading = blocks(descriptor)
    assert len(next(reading)) + len(next(reading)) == limits.COPY_SIZE + 1
    os.close(descriptor)
    assert next(reading, None) is None


def test_message_is_read_in_blocks(spool: Spool) -> None:
    spool.store(b"", b"x" * (limits.COPY_SIZE + 1))
    assert [len(block) for block in spool.original_blocks()] == [limits.COPY_SIZE, 1]


def test_original_is_not_read_after_its_last_block(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.store(b"one\n", b"one\r\n.\r\n")
    blocks = spool.original_blocks()
    assert next(blocks) == b"one\r\n.\r\n"
    monkeypatch.delattr(posix, "pread")
    assert list(blocks) == []


def test_truncated_spool_raises_oserror(spool: Spool) -> None:
    spool.store(b"one\n", b"one\r\n.\r\n")
    os.truncate(spool.original, 3)
    with pytest.raises(OSError, match="truncated"):
        content(spool)


def test_message_is_stored_in_unnamed_file(spool: Spool, tmp_path: Path) -> None:
    spool.store(b"one\n", b"one\r\n")
    assert list(tmp_path.iterdir()) == []
    assert stat.S_IMODE(os.fstat(spool.original).st_mode) == 0o600


def test_email_file_contains_message(offered: Spool) -> None:
    assert Path(offered.email).read_bytes() == b"Subject: x\n\nbody\n"


def test_outfile_is_created_empty(offered: Spool) -> None:
    assert Path(offered.outfile).read_bytes() == b""


def test_filter_files_are_readable_only_by_owner(offered: Spool) -> None:
    modes = [stat.S_IMODE(Path(path).stat().st_mode) for path in (offered.email, offered.outfile)]
    assert modes == [0o600, 0o600]


def test_changing_email_file_does_not_change_message(offered: Spool) -> None:
    Path(offered.email).write_bytes(b"changed\n")
    assert content(offered) == b"Subject: x\r\n\r\nbody\r\n.\r\n"


def test_messages_are_stored_in_separate_files(spool: Spool, tmp_path: Path) -> None:
    other = Spool(str(tmp_path), filtering=True)
    assert spool.email != other.email
    other.remove()


def test_empty_outfile_does_not_replace_message(offered: Spool) -> None:
    assert taken(offered) is None


def test_outfile_replaces_message(offered: Spool) -> None:
    Path(offered.outfile).write_bytes(b"new\n")
    assert taken(offered) == b"new\n"


def test_file_renamed_over_outfile_is_read(offered: Spool, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"new\n")
    (tmp_path / "other").rename(offered.outfile)
    assert taken(offered) == b"new\n"


def test_email_renamed_to_outfile_is_read(offered: Spool) -> None:
    Path(offered.email).rename(offered.outfile)
    assert taken(offered) == b"Subject: x\n\nbody\n"


def test_removed_outfile_counts_as_empty(offered: Spool) -> None:
    Path(offered.outfile).unlink()
    assert taken(offered) is None


def make_directory(path: Path) -> None:
    path.mkdir()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_symbolic_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


ODD_FILES = [make_directory, make_fifo, make_symbolic_link, make_dangling_link, make_socket]


@pytest.mark.parametrize("make", ODD_FILES)
def test_non_regular_outfile_raises_error(offered: Spool, make: type) -> None:
    Path(offered.outfile).unlink()
    make(Path(offered.outfile))
    with pytest.raises((NotAFileError, OSError)):
        offered.open_outfile()


@pytest.mark.parametrize("make", [make_symbolic_link, make_dangling_link, make_socket])
def test_outfile_name_is_resolved_only_once(
    offered: Spool, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    right = posix.open

    def open_once(path: str, flags: int) -> int:
        """Replace the opened file with a regular file."""
        opened.append(path)
        try:
            return right(path, flags)
        finally:
            Path(path).unlink()
            Path(path).touch()

    Path(offered.outfile).unlink()
    make(Path(offered.outfile))
    monkeypatch.setattr(posix, "open", open_once)
    with pytest.raises(NotAFileError):
        offered.open_outfile()
    monkeypatch.undo()
    assert opened == [offered.outfile]


def test_outfile_open_failure_raises_oserror(
    offered: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(posix, "open", refuse)
    with pytest.raises(PermissionError):
        offered.open_outfile()
    monkeypatch.undo()


@pytest.mark.parametrize("make", ODD_FILES)
def test_modified_filter_files_are_removed(offered: Spool, make: type, tmp_path: Path) -> None:
    for path in (Path(offered.email), Path(offered.outfile)):
        path.unlink()
        make(path)
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []


def test_missing_filter_files_are_ignored(offered: Spool, tmp_path: Path) -> None:
    Path(offered.email).unlink()
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []


def test_message_is_readable_after_unlink(offered: Spool) -> None:
    offered.remove_filter_files()
    assert content(offered) == b"Subject: x\r\n\r\nbody\r\n.\r\n"


def test_outfile_is_readable_after_unlink(offered: Spool) -> None:
    Path(offered.outfile).write_bytes(b"new\n")
    descriptor = offered.open_outfile()
    assert descriptor is not None
    offered.remove_filter_files()
    assert b"".join(blocks(descriptor)) == b"new\n"
    os.close(descriptor)


def test_spool_leaves_no_open_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/dev/fd")  # noqa: PTH208 - names are enough
    spool = Spool(str(tmp_path), filtering=True)
    spool.store(b"x", b"x")
    spool.create_filter_files()
    spool.open_outfile()
    spool.remove()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_descriptor_is_not_inherited(spool: Spool) -> None:
    assert not os.get_inheritable(spool.original)


def test_missing_directory_raises_filenotfounderror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Spool(str(tmp_path / "missing"), filtering=True)


def test_regular_file_in_place_of_directory_raises_notadirectoryerror(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Spool(str(tmp_path / "file"), filtering=True)


@pytest.fixture
def small_files() -> Iterator[int]:
    """Set and return the maximum file size of the process in octets."""
    size = 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield size
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_write_error_is_raised_at_end_of_data(spool: Spool, small_files: int) -> None:
    spool.store(b"", b"x" * (small_files + 1))
    with pytest.raises(OSError, match="File too large") as raised:
        spool.check()
    assert raised.value.errno == errno.EFBIG


def test_write_error_is_persistent(spool: Spool, small_files: int) -> None:
    spool.store(b"", b"x" * (small_files + 1))
    spool.store(b"fits again", b"fits again")
    with pytest.raises(OSError, match="File too large"):
        spool.check()


def test_write_error_frees_disk_space(
    spool: Spool, small_files: int, elsewhere: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LARGE_FILE", small_files - 1)
    content = spool.original
    spool.store(b"", b"x" * (small_files + 1))
    assert elsewhere == [content]
    spool.store(b"", b"more")
    with pytest.raises(OSError, match="File too large"):
        spool.check()


def test_write_error_in_email_copy_raises_oserror(spool: Spool, small_files: int) -> None:
    spool.store(b"x" * (small_files + 1), b"shorter")
    with pytest.raises(OSError, match="File too large"):
        spool.check()


def test_spool_without_filter_opens_only_one_file(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    spool = Spool(str(tmp_path), filtering=False)
    assert len(os.listdir("/dev/fd")) == before + 1  # noqa: PTH208
    spool.remove()


@pytest.fixture
def no_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a file system without O_TMPFILE."""
    monkeypatch.setattr("postprox.shell.spool._NAMELESS", os.O_RDWR | os.O_DIRECTORY)


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a system without /proc, which linkat(2) requires for an unnamed file."""
    monkeypatch.setattr("postprox.shell.spool._by_descriptor", "/nonexistent/{}".format)


@pytest.mark.parametrize("missing", ["no_nameless_files", "no_proc"])
def test_email_has_name_without_o_tmpfile_or_proc(
    missing: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue(missing)
    spool = Spool(str(tmp_path), filtering=True)
    assert [path.suffix for path in tmp_path.iterdir()] == [".email"]
    spool.store(b"one\n", b"one\r\n")
    spool.create_filter_files()
    assert Path(spool.email).read_bytes() == b"one\n"
    assert stat.S_IMODE(Path(spool.email).stat().st_mode) == 0o600
    spool.remove()
    assert list(tmp_path.iterdir()) == []


def test_failed_spool_creation_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    before = os.listdir("/dev/fd")  # noqa: PTH208
    monkeypatch.setattr(Spool, "_unnamed_email", fail)
    with pytest.raises(OSError, match="Too many open files"):
        Spool(str(tmp_path), filtering=True)
    assert os.listdir("/dev/fd") == before  # noqa: PTH208
    assert list(tmp_path.iterdir()) == []


def is_locked(path: str) -> bool:
    """Return whether another process cannot lock the file."""
    program = "import os, sys; os.lockf(os.open(sys.argv[1], os.O_RDWR), os.F_TLOCK, 0)"
    command = [sys.executable, "-c", program, path]
    return b"BlockingIOError" in subprocess.run(command, capture_output=True, check=False).stderr


def test_email_file_is_locked(offered: Spool) -> None:
    assert is_locked(offered.email)


@pytest.mark.parametrize("missing", ["no_nameless_files", "no_proc"])
def test_email_is_locked_if_o_tmpfile_or_proc_is_missing(
    missing: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue(missing)
    spool = Spool(str(tmp_path), filtering=True)
    assert is_locked(spool.email)
    spool.remove()


@pytest.fixture
def links_refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make linkat(2) fail, and return the list of requested names."""
    wanted: list[str] = []

    def link(_source: str, name: str, **_: object) -> None:
        wanted.append(name)
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(posix, "link", link)
    monkeypatch.setattr(Spool, "_can_link", True)
    return wanted


def test_email_is_copied_if_link_fails(links_refused: list[str], tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), filtering=True)
    content = b"x" * limits.COPY_SIZE + b"one\n"
    spool.store(content, content)
    spool.create_filter_files()
    assert links_refused == [spool.email]
    assert is_locked(spool.email)  # Closing the file here would release the lock.
    assert Path(spool.email).read_bytes() == content
    assert stat.S_IMODE(Path(spool.email).stat().st_mode) == 0o600
    spool.remove()
    assert list(tmp_path.iterdir()) == []


def test_failed_link_is_not_retried(links_refused: list[str], tmp_path: Path) -> None:
    first = Spool(str(tmp_path), filtering=True)
    first.create_filter_files()
    second = Spool(str(tmp_path), filtering=True)
    assert Path(second.email).exists()
    second.create_filter_files()
    assert links_refused == [first.email]
    first.remove()
    second.remove()


@pytest.mark.usefixtures("links_refused")
def test_failed_copy_of_email_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = os.listdir("/dev/fd")  # noqa: PTH208
    spool = Spool(str(tmp_path), filtering=True)
    spool.store(b"one\n", b"one\r\n")
    monkeypatch.setattr(posix, "write", fail)
    with pytest.raises(OSError, match="No space left on device"):
        spool.create_filter_files()
    spool.remove()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208
    assert list(tmp_path.iterdir()) == []
    assert Spool._can_link


def test_non_empty_outfile_directory_is_removed(offered: Spool, tmp_path: Path) -> None:
    Path(offered.outfile).unlink()
    inner = Path(offered.outfile) / "a/b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_directory_created_by_filter_is_removed() -> None:
    with as_an_ordinary_user() as directory:
        spool = Spool(directory, filtering=True)
        spool.create_filter_files()
        Path(spool.outfile).unlink()
        inner = Path(spool.outfile) / "inner"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        inner.chmod(0o500)
        spool.remove()
        assert os.listdir(directory) == []  # noqa: PTH208


def test_large_unreadable_file_in_directory_is_removed() -> None:
    with as_an_ordinary_user() as directory:
        spool = Spool(directory, filtering=True)
        spool.create_filter_files()
        Path(spool.outfile).unlink()
        Path(spool.outfile).mkdir()
        large = Path(spool.outfile) / "large"
        large.touch()
        os.truncate(large, limits.LARGE_FILE + 1)
        large.chmod(0)
        spool.remove()
        assert os.listdir(directory) == []  # noqa: PTH208


def test_large_file_in_directory_is_closed_by_thread(offered: Spool, elsewhere: list[int]) -> None:
    Path(offered.outfile).unlink()
    Path(offered.outfile).mkdir()
    large = Path(offered.outfile) / "large"
    large.touch()
    os.truncate(large, limits.LARGE_FILE + 1)
    offered.remove_filter_files()
    assert len(elsewhere) == 1


def test_directory_at_removal_limit_is_removed(
    offered: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REMOVALS", 3)
    Path(offered.outfile).unlink()
    inner = Path(offered.outfile) / "inner"
    inner.mkdir(parents=True)
    for name in ("a", "b"):
        (inner / name).touch()
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []


def test_directory_at_depth_limit_is_removed(
    offered: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REMOVAL_DEPTH", 2)
    Path(offered.outfile).unlink()
    (Path(offered.outfile) / "a/b").mkdir(parents=True)
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []


def test_missing_lock_support_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(posix, "lockf", refuse)
    spool = Spool(str(tmp_path), filtering=True)
    spool.create_filter_files()
    assert Path(spool.email).exists()
    spool.remove()


def test_sibling_directories_are_removed(offered: Spool, tmp_path: Path) -> None:
    Path(offered.outfile).unlink()
    for name in ("a", "b", "c"):
        (Path(offered.outfile) / name).mkdir(parents=True)
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []


def test_link_in_removed_directory_is_not_followed(
    offered: Spool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").touch()
    Path(offered.outfile).unlink()
    Path(offered.outfile).mkdir()
    (Path(offered.outfile) / "link").symlink_to(elsewhere)
    offered.remove_filter_files()
    assert (elsewhere / "kept").exists()


def test_directory_that_exceeds_removal_limit_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("postprox.shell.log.write", lambda _level, text: said.append(text))
    monkeypatch.setattr(limits, "REMOVALS", 3)
    spool = Spool(str(tmp_path), filtering=True)
    spool.create_filter_files()
    Path(spool.outfile).unlink()
    Path(spool.outfile).mkdir()
    for number in range(5):
        (Path(spool.outfile) / str(number)).touch()
    spool.remove()
    assert said == [f"cannot remove {spool.outfile}: Directory not empty"]


def test_failed_removal_is_retried(
    offered: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = posix.unlink
    failures = [OSError(errno.EIO, "Input/output error")]

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if failures:
            raise failures.pop()
        right(path, dir_fd=dir_fd)

    monkeypatch.setattr(posix, "unlink", unlink)
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []


def test_large_file_is_closed_by_thread(
    offered: Spool, tmp_path: Path, elsewhere: list[int]
) -> None:
    os.truncate(offered.outfile, limits.LARGE_FILE + 1)
    offered.remove_filter_files()
    assert list(tmp_path.iterdir()) == []
    assert len(elsewhere) == 2  # one for the removal, and one for the lock


def test_outfile_unchanged_since_open_is_read_completely(offered: Spool) -> None:
    Path(offered.outfile).write_bytes(b"new\n")
    assert taken(offered) == b"new\n"


@pytest.mark.parametrize("change", [b"", b"longer than before\n", b"two\n"])
@pytest.mark.parametrize("blocks_before", [0, 1])
def test_outfile_changed_after_open_raises_error(
    offered: Spool, change: bytes, blocks_before: int
) -> None:
    outfile = Path(offered.outfile)
    outfile.write_bytes(b"one\n")
    os.utime(outfile, (1, 1))
    descriptor = offered.open_outfile()
    assert descriptor is not None
    content = offered.replacement_blocks(descriptor)
    for _ in range(blocks_before):
        next(content)
    outfile.write_bytes(change)
    with pytest.raises(ChangedError, match=r"\] OUTFILE changed during delivery$"):
        list(content)
    os.close(descriptor)


def test_outfile_is_locked_at_creation(offered: Spool) -> None:
    program = (
        "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, offered.outfile], stderr=subprocess.PIPE, check=False
    )
    assert b"BlockingIOError" in done.stderr
