"""The capabilities of the machine that runs the suite."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.conformance.play.host import TWO_ADDRESSES, Host

pytestmark = pytest.mark.any_account


class FakeNamespace:
    """A mount namespace whose files are in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def inside(self, path: Path) -> Path:
        """Return the path outside the namespace for *path* inside it."""
        return self.root / path.relative_to("/")

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("text", [None, "", f"127.0.0.2 {TWO_ADDRESSES}\n"])
def test_private_hosts_file_is_optional(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/hosts").write_text(text)
    with contextlib.closing(Host()) as host:
        vars(host)["namespace"] = FakeNamespace(tmp_path)
        assert ("hosts" in host.capabilities) == bool(text)
        assert {"syslog", "mounts"} <= host.capabilities
