"""python3 -m tests.debian: test the README's commands and the Debian package on a clean system.

The program builds the package twice, the second time with a higher version. On its first run it
creates a Debian system with debootstrap. It boots a copy of the system with systemd-nspawn in an
isolated network, and runs `inside` there. It requires root.

Rule: the tests change no files on the host except in `PLACE`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".nox/clean-system"
SUITE = "bookworm"  # from debootstrap's default mirror
PACKAGES = ("systemd", "systemd-sysv", "dbus", "iproute2", "python3", "postfix")
TOOLS = ("debootstrap", "systemd-nspawn")
DEBIAN = "debootstrap systemd-container"
LIMIT = 600
#: The last line of a successful trial.
DONE = "the package was installed, used, upgraded and purged without an error\n"

UNIT = """\
[Unit]
Requires=multi-user.target
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
WorkingDirectory=/trial/checkout
ExecStart=/usr/bin/python3 -m tests.debian.inside
StandardOutput=file:/trial/output
StandardError=inherit
"""


def base() -> Path:
    """Return a clean system. Create the system if it does not exist."""
    system = PLACE / "base"
    if not system.exists():
        made = PLACE / "base.new"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        included = f"--include={','.join(PACKAGES)}"
        command = ["debootstrap", "--variant=minbase", included, SUITE, str(made)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        made.rename(system)
    return system


def build(version: str) -> Path:
    """Build the package. Return its path."""
    command = ["/bin/sh", str(ROOT / "packaging/deb"), *([version] if version else [])]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return ROOT / printed.split()[-1]


def booted(system: Path) -> str:
    """Boot `system` and wait until it shuts down. Return the output of the trial."""
    command = [
        *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"),
        *("--boot", "--directory", str(system), "--", "--unit=trial.service"),
    ]
    with (system / "trial/console").open("w") as console:
        subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            timeout=LIMIT,
        )
    output = system / "trial/output"
    return (output if output.exists() else system / "trial/console").read_text()


def main() -> int:
    """Run the trial. Return the exit status."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if os.getuid() != 0 or missing:
        print(f"the trial requires root and {', '.join(TOOLS)}: apt-get install {DEBIAN}")
        return 2
    system = PLACE / "trial"
    shutil.rmtree(system, ignore_errors=True)
    subprocess.run(["/bin/cp", "-a", str(base()), str(system)], check=True)
    trial = system / "trial"
    trial.mkdir()
    build("").rename(trial / "postprox.deb")
    build("999").rename(trial / "newer.deb")
    listed = ["/usr/bin/git", "ls-files", "-z"]
    files = subprocess.run(listed, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    for name in map(os.fsdecode, files.split(b"\0")[:-1]):
        (trial / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, trial / "checkout" / name, follow_symlinks=False)
    (system / "etc/systemd/system/trial.service").write_text(UNIT)
    printed = booted(system)
    print(printed, end="")
    if not printed.endswith(DONE):
        print(f"the trial failed; its system is in {system}")
        return 1
    shutil.rmtree(system)
    return 0


if __name__ == "__main__":
    sys.exit(main())
