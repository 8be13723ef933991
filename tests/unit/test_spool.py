"""The files of a message: stored unreachably, offered by name, read back by name, and gone."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.core import limits
from postprox.shell.spool import NotAFileError, Spool, blocks


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(str(tmp_path))
    yield spool
    spool.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def offered(spool: Spool) -> Spool:
    spool.store(b"Subject: x\n\nbody\n")
    list(spool.offer())
    return spool


def content(spool: Spool) -> bytes:
    return b"".join(blocks(spool.original))


def taken(spool: Spool) -> bytes | None:
    descriptor = spool.replacement()
    if descriptor is None:
        return None
    content = b"".join(blocks(descriptor))
    os.close(descriptor)
    return content


def test_what_is_stored_is_read_back(spool: Spool) -> None:
    spool.store(b"one\n")
    spool.store(b"two\0\xff\n")
    spool.seal()
    assert content(spool) == b"one\ntwo\0\xff\n"


def test_a_message_may_be_read_twice(spool: Spool) -> None:
    spool.store(b"one\n")
    assert [content(spool), content(spool)] == [b"one\n", b"one\n"]


def test_a_message_is_read_in_blocks(spool: Spool) -> None:
    spool.store(b"x" * (limits.COPY_SIZE + 1))
    assert [len(block) for block in blocks(spool.original)] == [limits.COPY_SIZE, 1]


def test_a_message_under_way_has_no_name(spool: Spool, tmp_path: Path) -> None:
    spool.store(b"one\n")
    assert list(tmp_path.iterdir()) == []


def test_email_holds_the_message(offered: Spool) -> None:
    assert Path(offered.email).read_bytes() == b"Subject: x\n\nbody\n"


def test_outfile_is_there_and_empty(offered: Spool) -> None:
    assert Path(offered.outfile).read_bytes() == b""


def test_only_the_owner_may_read(offered: Spool) -> None:
    modes = [stat.S_IMODE(Path(path).stat().st_mode) for path in (offered.email, offered.outfile)]
    assert modes == [0o600, 0o600]


def test_changing_email_does_not_change_the_message(offered: Spool) -> None:
    Path(offered.email).write_bytes(b"changed\n")
    assert content(offered) == b"Subject: x\n\nbody\n"


def test_two_messages_do_not_share_files(spool: Spool, tmp_path: Path) -> None:
    other = Spool(str(tmp_path))
    assert spool.email != other.email
    other.remove()


def test_an_empty_outfile_replaces_nothing(offered: Spool) -> None:
    assert taken(offered) is None


def test_outfile_replaces_the_message(offered: Spool) -> None:
    Path(offered.outfile).write_bytes(b"new\n")
    assert taken(offered) == b"new\n"


def test_a_file_renamed_over_outfile_counts(offered: Spool, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"new\n")
    (tmp_path / "other").rename(offered.outfile)
    assert taken(offered) == b"new\n"


def test_email_renamed_to_outfile_counts(offered: Spool) -> None:
    Path(offered.email).rename(offered.outfile)
    assert taken(offered) == b"Subject: x\n\nbody\n"


def test_a_removed_outfile_counts_as_empty(offered: Spool) -> None:
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
def test_what_is_no_regular_file_is_an_error(offered: Spool, make: type) -> None:
    Path(offered.outfile).unlink()
    make(Path(offered.outfile))
    with pytest.raises((NotAFileError, OSError)):
        offered.replacement()


@pytest.mark.parametrize("make", ODD_FILES)
def test_whatever_became_of_the_files_is_removed(
    offered: Spool, make: type, tmp_path: Path
) -> None:
    for path in (Path(offered.email), Path(offered.outfile)):
        path.unlink()
        make(path)
    offered.withdraw()
    assert list(tmp_path.iterdir()) == []


def test_files_that_the_filter_removed_are_not_missed(offered: Spool, tmp_path: Path) -> None:
    Path(offered.email).unlink()
    offered.withdraw()
    assert list(tmp_path.iterdir()) == []


def test_the_message_outlives_its_names(offered: Spool) -> None:
    offered.withdraw()
    assert content(offered) == b"Subject: x\n\nbody\n"


def test_a_replacement_outlives_its_name(offered: Spool) -> None:
    Path(offered.outfile).write_bytes(b"new\n")
    descriptor = offered.replacement()
    assert descriptor is not None
    offered.withdraw()
    assert b"".join(blocks(descriptor)) == b"new\n"
    os.close(descriptor)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    before = os.listdir("/dev/fd")  # noqa: PTH208 - names are enough
    spool = Spool(str(tmp_path))
    spool.store(b"x")
    list(spool.offer())
    spool.replacement()
    spool.remove()
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_no_descriptor_is_inherited_by_programs(spool: Spool) -> None:
    assert not os.get_inheritable(spool.original)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Spool(str(tmp_path / "missing"))


def test_a_file_instead_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Spool(str(tmp_path / "file"))


@pytest.fixture
def small_files() -> Iterator[int]:
    """Let no file of this process grow beyond so many octets."""
    size = 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    yield size
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_message_cut_short_is_an_error_at_its_end(spool: Spool, small_files: int) -> None:
    spool.store(b"x" * (small_files + 1))
    with pytest.raises(OSError, match="File too large") as raised:
        spool.seal()
    assert raised.value.errno == errno.EFBIG


def test_a_message_cut_short_stays_an_error(spool: Spool, small_files: int) -> None:
    spool.store(b"x" * (small_files + 1))
    spool.store(b"fits again")
    with pytest.raises(OSError, match="File too large"):
        spool.seal()


def test_a_message_cut_short_takes_no_space(spool: Spool, small_files: int) -> None:
    spool.store(b"x" * (small_files + 1))
    assert os.fstat(spool.original).st_size == 0


def test_a_copy_that_cannot_be_made_is_an_error(
    spool: Spool, small_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COPY_SIZE", 1000)
    spool.store(b"x" * small_files)
    resource.setrlimit(resource.RLIMIT_FSIZE, (small_files // 2, resource.RLIM_INFINITY))
    with pytest.raises(OSError, match="File too large"):
        list(spool.offer())
