"""The README's commands for the administrator, word for word, where they can do no harm.

They see a copy of /etc, an empty /var/spool, and a systemctl that only writes down its arguments.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import readme
from .devlog import UNSHARE, may_unshare

PREPARE = """
cp -a /etc "$DIR/etc"
mount --bind "$DIR/etc" /etc
mkdir -p /etc/systemd/system
mount -t tmpfs none /etc/systemd/system
mount -t tmpfs none /var/spool
userdel postprox 2>/dev/null || true
"""

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$DIR/systemctl"
"""


def run(directory: Path, commands: str) -> str:
    """What the commands print, as root, in a mount namespace of their own."""
    if not may_unshare():
        pytest.skip("a copy of /etc needs a mount namespace, which is forbidden here")
    systemctl = directory / "systemctl.d/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    done = subprocess.run(
        [*UNSHARE, "sh", "-e"],
        input=PREPARE + commands,
        env={
            "DIR": str(directory),
            "PATH": f"{systemctl.parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        },
        cwd=readme.README.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_user_and_his_directory(tmp_path: Path) -> None:
    commands, *_ = readme.indented(readme.section("Set up Postfix"))
    seen = "id -un postprox; getent passwd postprox | cut -d: -f7; stat -c '%U %G %a' $SPOOL"
    printed = run(tmp_path, f"{commands}\nSPOOL=/var/spool/postprox\n{seen}\n")
    assert printed == "postprox\n/usr/sbin/nologin\npostprox postprox 700\n"


def test_the_service_and_its_command_line(tmp_path: Path) -> None:
    _, commands, *_ = readme.indented(readme.section("Set up Postfix"))
    seen = "cd /etc/systemd/system; ls; grep -A1 '^ExecStart=$' postprox.service.d/local.conf"
    printed = run(tmp_path, f"{commands}\n{seen}\n").splitlines()
    assert printed[:3] == ["postprox.service", "postprox.service.d", "postprox.socket"]
    assert printed[3] == "ExecStart="
    assert printed[4].startswith("ExecStart=/usr/local/sbin/postprox -l 10025 --foreground -v -r ")
    said = (tmp_path / "systemctl").read_text()
    assert said == "daemon-reload\nenable --now postprox.socket\n"
