"""python3 -m tests.product WHEELS: build the suite's wheel and image, and run the action.

WHEELS is a directory with a wheel of the suite and of each package that it requires. The image and
the action's machine are clean Debian systems from debootstrap, in namespaces of their own. pip
takes packages from WHEELS there and uses no network. The program requires root and a Debian mirror.

It does not test a hosted runner, a container runtime, or the download of a published release.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.conformance.format.header import FORMAT
from tests.conformance.format.requirements import specification
from tests.conformance.paths import PACKAGE, ROOT
from tests.conformance.run.results import SUITE_VERSION
from tests.containers.containerfile import Stage, Step, parse
from tests.containers.namespaces import (
    DEVICES,
    MOUNT_SYSTEM,
    Image,
    base,
    build_stages,
)
from tests.suite.workflow import BASH, Executed, Job, run_action

#: Not .nox/product, which is the environment of the nox session.
PLACE = ROOT / ".nox/product-systems"
TOOLS = ("debootstrap", "unshare", "ip")
DEBIAN = "debian:12-slim"
PIP_CONFIGURATION = "[global]\nno-index = true\nfind-links = /wheels\n"
VERSIONS = (
    f"postprox-conformance {SUITE_VERSION} (specification {specification().version}, "
    f"transcript format {FORMAT})"
)
#: The packages of the action's machine, and its ordinary user, who may use sudo(8).
RUNNER = (
    "apt-get update && apt-get install -y --no-install-recommends python3 python3-venv sudo",
    "useradd --create-home runner && echo 'runner ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/runner",
)
#: The checkout's proxy, and a proxy that accepts LF.LF as the end of data.
PROGRAMS = {"proxy": "postprox", "broken": "tests.fixtures data.accept_lf_dot_lf"}
#: These transcripts require a private /dev/log, a private file system, and neither.
CHOSEN = "cli/verbose-errors-always data/spool-full-filter data/not-the-end-lf-dot-lf"
DONE = "the wheel and the image have the same three versions, and the action passed all checks"

ENTER = """
mount -t tmpfs -o mode=0755 none "$SCRATCH"; root=$SCRATCH/root
mkdir "$root" "$SCRATCH/upper" "$SCRATCH/work"
mount -t overlay -o "lowerdir=$LOWER,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" root "$root"
ip link set lo up
"""
#: chroot(1) would not suffice: nsenter(1), which the suite uses, leaves a changed root directory.
PIVOT = """
cd "$root"; mkdir old; pivot_root . old
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    sh -euc 'umount -l /old; rmdir /old; cd /; eval "$1"' sh "$1"
"""
_UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--net", "--fork")


def report(text: str) -> None:
    """Print a result."""
    print(text, flush=True)


def enter(image: Image, script: str, *mounts: tuple[Path, str]) -> subprocess.CompletedProcess[str]:
    """Run a script in a system whose changes are discarded, without a network."""
    scratch = PLACE / "scratch"
    scratch.mkdir(exist_ok=True)
    bound = "".join(
        f'mkdir -p "$root{there}"; mount --bind {shlex.quote(str(here))} "$root{there}"\n'
        for here, there in mounts
    )
    return subprocess.run(
        [
            *_UNSHARE,
            "--kill-child",
            "sh",
            "-euc",
            ENTER + MOUNT_SYSTEM + bound + PIVOT,
            "sh",
            script,
        ],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "SCRATCH": str(scratch),
            "LOWER": image.lower,
            "DEVICES": " ".join(DEVICES),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def check_wheel(wheels: Path) -> Path:
    """Check the versions in the wheel of the suite, and return its path."""
    (wheel,) = wheels.glob("postprox_conformance-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
        table = json.loads(archive.read("postprox_conformance/specification.json"))
        header = archive.read("postprox_conformance/format/header.py").decode()
    assert f"\nVersion: {SUITE_VERSION}\n" in metadata
    assert table["version"] == specification().version
    assert f"\nFORMAT = {FORMAT}\n" in header
    report(f"wheel: {wheel.name}, specification {table['version']}, format {FORMAT}")
    return wheel


def debian(wheels: Path) -> Image:
    """Return a clean Debian system in which pip takes packages from *wheels*."""
    layer = PLACE / "wheels"
    shutil.rmtree(layer, ignore_errors=True)
    shutil.copytree(wheels, layer / "wheels")
    (layer / "etc").mkdir()
    (layer / "etc/pip.conf").write_text(PIP_CONFIGURATION)
    # Container runtimes and hosted runners have this file, but debootstrap does not create it.
    (layer / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return Image(Stage(DEBIAN), [layer, base(DEBIAN, PLACE)])


def check_image(clean: Image) -> None:
    """Build the image from the Containerfile, check its versions, and run it."""
    stages = parse((PACKAGE / "Containerfile").read_text())
    image = build_stages(stages, PLACE, "suite", {DEBIAN: clean})
    command = shlex.join(image.stage.entrypoint)
    done = enter(image, f"{command} --version")
    assert done.stdout == f"{VERSIONS}\n", done.stdout
    report(f"image: {done.stdout.strip()}")
    # The proxy requires only the image's Python.
    judged = f"{command} run /judged/proxy {CHOSEN}"
    done = enter(image, judged, (PLACE / "judged", "/judged"))
    assert "verdict: conformant: all " in done.stdout, done.stdout
    assert "not tested: " not in done.stdout, done.stdout
    report("image: it ran the checkout's proxy, also with /dev/log and file systems of its own")


def write_programs() -> None:
    """Write the programs under test, and copies of their modules."""
    judged = PLACE / "judged"
    shutil.rmtree(judged, ignore_errors=True)
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("postprox", "tests/fixtures"):
        shutil.copytree(ROOT / name, judged / "modules" / name, ignore=unwanted)
    (judged / "modules/tests/__init__.py").touch()
    for name, module in PROGRAMS.items():
        run = f'PYTHONPATH=/judged/modules exec /usr/bin/python3 -B -S -m {module} "$@"'
        (judged / name).write_text(f"#!/bin/sh\n{run}\n")
        (judged / name).chmod(0o755)


def act(runner: Image, account: str, **inputs: str) -> tuple[Job, Mapping[str, object]]:
    """Run the steps of action.yml as *account*. Return the job and the header of its results."""
    shared = PLACE / "runner"
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    variables = {
        "RUNNER_TEMP": "/runner",
        "GITHUB_OUTPUT": "/runner/output",
        "GITHUB_STEP_SUMMARY": "/runner/summary",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",
    }

    def execute(script: str, more: Mapping[str, str]) -> Executed:
        files = [shared / name for name in ("step.sh", "output", "summary")]
        for file, text in zip(files, (script, "", ""), strict=True):
            file.write_text(text)
            file.chmod(0o666)
        given = [f"{name}={value}" for name, value in {**variables, **more}.items()]
        as_user = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups"]
        words = shlex.join([*as_user, "env", "-i", *given, *BASH, "/runner/step.sh"])
        mounts = ((shared, "/runner"), (PLACE / "judged", "/judged"), (PACKAGE, "/action"))
        done = enter(runner, f"cd /judged; exec {words}", *mounts)
        return Executed(done.returncode, done.stdout, *(file.read_text() for file in files[1:]))

    job = run_action(PACKAGE / "action.yml", "/action", inputs, execute)
    results = PLACE / job.outputs["results"].lstrip("/")
    header = json.loads(results.read_text().partition("\n")[0]) if results.exists() else {}
    return job, header


def check_action(clean: Image, wheel: Path) -> None:
    """Run the action's steps on a clean machine, with each exit status and with each account."""
    steps = [Step("RUN", (command,)) for command in RUNNER]
    runner = build_stages({"": Stage(DEBIAN, steps)}, PLACE, "machine", {DEBIAN: clean})
    release = f"/wheels/{wheel.name}"
    versions = {
        "version": SUITE_VERSION,
        "format": FORMAT,
        "specification": specification().version,
    }

    job, header = act(runner, "runner", implementation="./proxy", arguments=CHOSEN, release=release)
    assert (job.status, job.outputs["status"]) == (0, "0"), job.printed
    assert VERSIONS in job.printed
    assert header["root"] is True
    suite = header["suite"]
    assert isinstance(suite, dict)
    assert {name: suite[name] for name in versions} == versions
    assert "not tested: " not in job.printed, job.printed
    owners = {path.stat().st_uid for path in (PLACE / "runner").rglob("*")} - {0}
    assert len(owners) == 1
    report(
        "action: an ordinary user with sudo: status 0, nothing skipped, the files are the user's"
    )

    chosen = {"implementation": "./proxy", "arguments": CHOSEN, "root": "no"}
    job, header = act(runner, "runner", release=release, python="/usr/bin/python3.11", **chosen)
    assert (job.status, header["root"]) == (0, False), job.printed
    assert "a private /dev/log in a mount namespace" in job.printed, job.printed
    report("action: python and root: no: status 0, without root some transcripts are skipped")

    job, _ = act(runner, "root", implementation="./broken", arguments=CHOSEN, release=release)
    assert (job.status, job.outputs["status"]) == (1, "1"), job.printed
    report("action: root, a program that is not conformant: status 1")

    job, _ = act(runner, "runner", implementation="./missing", release=release)
    assert (job.status, job.outputs["status"]) == (2, "2"), job.printed
    report("action: a missing program: status 2")

    job, _ = act(runner, "runner", implementation="./proxy", release="postprox-conformance==0.1")
    assert (job.status, job.outputs["status"]) == (2, "2"), job.printed
    report("action: a release that does not exist: status 2")


def main() -> int:
    """Build and check everything. Return the exit status."""
    wheels = Path(sys.argv[1])
    wheel = check_wheel(wheels)
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if os.getuid() != 0 or missing:
        print("the image and the action require root, debootstrap, util-linux and iproute2")
        return 2
    PLACE.mkdir(parents=True, exist_ok=True)
    write_programs()
    clean = debian(wheels)
    check_image(clean)
    check_action(clean, wheel)
    report(DONE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
