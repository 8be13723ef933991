"""Try what the README says, and the Debian package, on a clean system: python3 -m tests.debian

Builds the package twice, the second time with a higher version; makes a Debian system with
debootstrap, once; boots a copy of it with systemd-nspawn, with a network of its own that nothing
gets out of; and lets `inside` run there. Root is required.

Rule: nothing of the machine that it runs on is used or changed but `PLACE`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".nox/clean-system"
SUITE = "bookworm"  # from the mirror that debootstrap takes by itself
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "postfix")
TOOLS = ("debootstrap", "systemd-nspawn")
DEBIAN = "debootstrap systemd-container"
LIMIT = 600
#: The last line of a trial without a fault.
DONE = "the package was installed, used, upgraded and purged without a fault\n"

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
    """Return a clean system, made if there is none."""
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
    """Build the package; return where it is."""
    command = ["/bin/sh", str(ROOT / "packaging/deb"), *([version] if version else [])]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return ROOT / printed.split()[-1]


def booted(system: Path) -> str:
    """Boot `system`, which shuts down by itself. Return the output of the trial."""
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
    """Run the trial; return the exit status."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if os.getuid() != 0 or missing:
        print(f"root and {', '.join(TOOLS)} are required: apt-get install {DEBIAN}")
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
        print(f"the trial has failed; the system is still in {system}")
        return 1
    shutil.rmtree(system)
    return 0


if __name__ == "__main__":
    sys.exit(main())
