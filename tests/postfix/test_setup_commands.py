"""The set-up commands of docs/setup.md and the README, run unchanged in private namespaces.

The commands use a copy of /etc, an empty /var/spool and /usr/local, and a systemctl that only
records its arguments.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from . import readme
from .devlog import UNSHARE, may_unshare
from .instance import MASTER_CF, missing
from .recipe import AFTER, BEFORE, LISTENING, SPAWNED, master_cf

PREPARE = """
cp -a /etc "$DIR/etc"
mount --bind "$DIR/etc" /etc
mount -t tmpfs none /usr/local
mkdir /usr/local/bin
mkdir -p /etc/systemd/system
mount -t tmpfs none /etc/systemd/system
mount -t tmpfs none /var/spool
userdel postprox 2>/dev/null || true
"""

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$DIR/told"
"""


#: Creates the administrator's filter and the site's configuration.
SITE = """
printf '#!/bin/sh\\nexit 0\\n' > /usr/local/bin/mail-filter
chmod 755 /usr/local/bin/mail-filter
cp "$DIR/main.cf" "$DIR/master.cf" /etc/postfix/
"""


def run(directory: Path, commands: str, *namespaces: str) -> str:
    """Run commands as root in private namespaces. Return their output."""
    if not may_unshare():
        pytest.skip("a copy of /etc requires a mount namespace, which is not permitted")
    systemctl = directory / "stand-in/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    done = subprocess.run(
        [*UNSHARE, *namespaces, "sh", "-e"],
        input=PREPARE + commands,
        env={
            "DIR": str(directory),
            "PATH": f"{systemctl.parent}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        },
        cwd=readme.README.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def test_setup_commands_create_user_and_directory(tmp_path: Path) -> None:
    commands = readme.start().user
    seen = "id -un postprox; getent passwd postprox | cut -d: -f7; stat -c '%U %G %a' $SPOOL"
    printed = run(tmp_path, f"{commands}\nSPOOL=/var/spool/postprox\n{seen}\n")
    assert printed == "postprox\n/usr/sbin/nologin\npostprox postprox 700\n"


def test_setup_commands_start_installed_service(tmp_path: Path) -> None:
    commands = readme.start().service
    seen = "ls /usr/local/lib/systemd/system; grep -c ^POSTPROX_ /etc/default/postprox"
    printed = run(tmp_path, f"{readme.installation()}\n{commands}\n{seen}\n").splitlines()
    assert printed[1:] == [
        *("postprox.service", "postprox.socket", "postprox@.service", "postprox@.socket"),
        "2",
    ]
    said = (tmp_path / "told").read_text()
    assert said == "daemon-reload\nenable --now postprox.socket\n"


def test_stale_files_are_removed_after_one_day(tmp_path: Path) -> None:
    user, _, _, line = readme.start()
    file = "/etc/tmpfiles.d/postprox.conf"
    tried = f"systemd-tmpfiles --create --clean {file}; cat {file}"
    printed = run(tmp_path, f"{user}\n{line}\n{tried}\n")
    packaged = readme.README.with_name("debian") / "postprox.tmpfiles"
    assert printed == packaged.read_text().splitlines(keepends=True)[-1]


@pytest.mark.parametrize("mode", [BEFORE, AFTER])
@pytest.mark.parametrize("proxy", [SPAWNED, LISTENING])
def test_complete_setup_has_no_findings(tmp_path: Path, mode: str, proxy: str) -> None:
    if reason := missing():
        pytest.skip(reason)
    main = f"compatibility_level = 3.6\n{readme.main_cf(mode)}"
    (tmp_path / "main.cf").write_text(main)
    front = "smtp inet n - n - - smtpd\n"
    (tmp_path / "master.cf").write_text(front + master_cf(mode, proxy) + MASTER_CF)
    user, unit, *_ = readme.start()
    reload, check = readme.trial().check.splitlines(keepends=True)
    assert (reload, check) == ("systemctl reload postfix\n", "postprox-check --run-filter\n")
    install = readme.installation()
    service = unit if proxy == LISTENING else ""
    # No Postfix runs in the namespace.
    offline = check.replace("\n", " --offline\n")
    printed = run(tmp_path, install + user + service + SITE + offline)
    assert printed.startswith("installed /usr/local/sbin/postprox, ")
    assert printed.count("\n") == 1, printed


def test_readme_has_the_shortest_setup() -> None:
    start = readme.start()
    before = readme.commands(BEFORE)
    assert readme.shortest() == start.user + start.service + before + readme.trial().check
