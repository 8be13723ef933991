"""postprox-rehearse: messages and links that belong to the user selected by --user."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postprox.rehearse import sources
from postprox.rehearse.errors import CannotRunError
from postprox.rehearse.proxy import User
from tests.unit.rehearsing import MESSAGE

NOBODY = User("nobody", 65534, 65534)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="acting as another user requires root")


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a directory with root's file secret/1.eml, and the directory u/ for the user nobody."""
    with tempfile.TemporaryDirectory(prefix="postprox-") as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "secret").mkdir(mode=0o700)
        (top / "secret/1.eml").write_bytes(MESSAGE)
        (top / "u/box").mkdir(parents=True)
        yield top


def give(home: Path) -> None:
    subprocess.run(["/bin/chown", "-hR", "nobody", home / "u"], check=True)


@as_root
@pytest.mark.parametrize(
    ("link", "target", "given"),
    [
        ("u/box/new", "secret", "u/box"),
        ("u/box/1.eml", "secret/1.eml", "u/box"),
        ("u/l", "secret", "u/l"),
        ("u/l", "secret", "u/l/1.eml"),
        ("u/l", ".", "u/l/secret/1.eml"),
        ("u/1.eml", "secret/1.eml", "u/1.eml"),
    ],
)
def test_link_created_by_user_does_not_grant_access(
    home: Path, link: str, target: str, given: str
) -> None:
    (home / "u/box/cur").mkdir()
    (home / link).symlink_to(home / target)
    give(home)
    assert readable(home / given) == []


def readable(path: Path) -> list[bytes]:
    """Return the messages that the command reads below a path with --user nobody."""
    texts = []
    with contextlib.suppress(CannotRunError):
        for source in sources.found([path], NOBODY):
            with contextlib.suppress(PermissionError):
                texts.append(source.read())
    return texts


@as_root
def test_hard_link_created_by_user_is_rejected(home: Path) -> None:
    (home / "secret/1.eml").chmod(0o600)
    (home / "u/1.eml").hardlink_to(home / "secret/1.eml")
    os.chown(home / "u", 65534, 65534)
    with pytest.raises(CannotRunError, match="permission denied for the user nobody"):
        sources.found([home / "u/1.eml"], NOBODY)


@as_root
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_hard_link_in_public_directory_is_rejected(home: Path, mode: int) -> None:
    (home / "secret/1.eml").chmod(0o600)
    (home / "u/1.eml").hardlink_to(home / "secret/1.eml")
    (home / "u").chmod(mode)
    with pytest.raises(CannotRunError, match="permission denied for the user nobody"):
        sources.found([home / "u/1.eml"], NOBODY)


@as_root
def test_message_readable_only_by_root_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "link").symlink_to("secret")
    monkeypatch.chdir(home)
    for path in (home / "secret/1.eml", Path("secret"), Path("link/../secret/1.eml")):
        (source,) = sources.found([path], NOBODY)
        assert source.read() == MESSAGE
    assert (os.geteuid(), os.getegid()) == (0, 0)


@as_root
def test_link_to_readable_message_is_followed(home: Path) -> None:
    (home / "public.eml").write_bytes(MESSAGE)
    (home / "u/box/1.eml").symlink_to(home / "public.eml")
    give(home)
    assert [source.read() for source in sources.found([home / "u"], NOBODY)] == [MESSAGE]


@as_root
def test_link_created_after_listing_is_rejected(home: Path) -> None:
    (home / "u/1.eml").write_bytes(MESSAGE)
    give(home)
    (source,) = sources.found([home / "u"], NOBODY)
    (home / "u/1.eml").unlink()
    (home / "u/1.eml").symlink_to(home / "secret/1.eml")
    with pytest.raises(PermissionError):
        source.read()


@as_root
def test_fifo_created_by_user_is_rejected(home: Path) -> None:
    os.mkfifo(home / "u/1.eml")
    give(home)
    with pytest.raises(CannotRunError, match="not a regular file and belongs to the user nobody"):
        sources.found([home / "u/1.eml"], NOBODY)


def test_pipe_opened_by_root_is_read_despite_user_option() -> None:
    reader, writer = os.pipe()
    os.write(writer, MESSAGE)
    os.close(writer)
    (source,) = sources.found([Path(f"/dev/fd/{reader}")], NOBODY)
    os.close(reader)
    assert source.read() == MESSAGE
