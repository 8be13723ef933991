"""Builds and runs images from Containerfiles with namespaces and overlay file systems.

Rule: this module performs the instructions and the settings that `containerfile` has parsed, and
adds none. It requires root. All files are in one directory, and only RUN uses the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .containerfile import CONTAINER, ROOT, Service, Stage, Step, parse

TIMEOUT = 60.0
#: The suite that debootstrap installs in place of each public image.
SUITES = {"debian:12-slim": "bookworm"}
#: The public image has similar settings, so that apt-get leaves no files in a layer.
APT_WITHOUT_CACHE = """\
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_ROOT_USER = "0:0"

MOUNT_SYSTEM = """
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 none "$root/dev"
for name in $DEVICES; do touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
"""
RUN = """
resolver=$root/etc/resolv.conf
mount --bind /etc/resolv.conf "$resolver" 2>/dev/null || cp /etc/resolv.conf "$resolver"
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    http_proxy="$http_proxy" /bin/sh -c "$1"
"""
_UNSHARE = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")


def base(name: str, place: Path) -> Path:
    """Return the directory that replaces a public image. It is installed only once."""
    root = place / "base"
    if not root.exists():
        made = place / "base.new"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        command = ["debootstrap", "--variant=minbase", SUITES[name], str(made)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (made / "etc/apt/apt.conf.d/docker-clean").write_text(APT_WITHOUT_CACHE)
        made.rename(root)
    return root


@dataclass
class Image:
    """A built image. `layers` begins with the newest one."""

    stage: Stage
    layers: list[Path]

    @property
    def lower(self) -> str:
        """The layers as a mount option."""
        return ":".join(map(str, self.layers))


def build(containerfile: Path, place: Path) -> Image:
    """Execute a Containerfile's instructions in a clean Debian system."""
    stages = parse(containerfile.read_text())
    return build_stages(stages, place, containerfile.name, _bases(stages, place))


def _bases(stages: Mapping[str, Stage], place: Path) -> dict[str, Image]:
    names = {stage.base for stage in stages.values()} - stages.keys()
    return {name: Image(Stage(name), [base(name, place)]) for name in names}


def build_stages(
    stages: Mapping[str, Stage], place: Path, name: str, images: Mapping[str, Image]
) -> Image:
    """Execute the instructions of all stages. Return the last stage's image.

    images: the images that are not built from a Containerfile, by name.
    """
    built = dict(images)
    image = None
    for number, (alias, stage) in enumerate(stages.items()):
        layers = built[stage.base].layers
        layer = place / f"{name}.{number}"
        shutil.rmtree(layer, ignore_errors=True)
        layer.mkdir()
        for step in stage.steps:
            _perform(step, layer, layers, built)
        whole = _with_defaults(stage, built[stage.base].stage)
        image = built[alias] = Image(whole, [layer, *layers])
    assert image
    return image


def _with_defaults(stage: Stage, inherited: Stage) -> Stage:
    """Return a stage with the entry point, command and health check of its base."""
    return dataclasses.replace(
        stage,
        entrypoint=stage.entrypoint or inherited.entrypoint,
        command=stage.command or inherited.command,
        health=stage.health or inherited.health,
    )


def _perform(step: Step, layer: Path, layers: Sequence[Path], built: dict[str, Image]) -> None:
    lower = ":".join(map(str, layers))
    if step.kind == "RUN":
        _in_overlay(f"{MOUNT_SYSTEM}{RUN}", lower, layer, *step.words)
        return
    *sources, target = step.words
    if step.source:
        (files,) = sources
        copied = f'mount -t overlay -o lowerdir="$2" other "$SCRATCH/other"\n{_copy(target)}'
        _in_overlay(copied, lower, layer, f"../other{files}", built[step.source].lower)
    else:
        for source in sources:
            _in_overlay(_copy(target), lower, layer, str(ROOT / source))


def _copy(target: str) -> str:
    """Return a command that copies the file "$1" or the contents of the directory "$1"."""
    quoted = shlex.quote(target)
    return f"""
cd "$root"; to="$root"{quoted}
if [ -d "$1" ]; then mkdir -p "$to"; cp -R --preserve=mode,links "$1/." "$to"
else mkdir -p "$(dirname "$to"x)"; cp --preserve=mode "$1" "$to"; fi
"""


def _in_overlay(script: str, lower: str, upper: Path, *arguments: str) -> None:
    """Run a script. `$root` contains the layers `lower`, and `upper` receives all changes."""
    mount = """
mount -t tmpfs none "$SCRATCH"; mkdir "$SCRATCH/root" "$SCRATCH/other"; mkdir "$WORK"
root=$SCRATCH/root
mount -t overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" root "$root"
"""
    work, scratch = (upper.with_name(f"{upper.name}.{name}") for name in ("work", "scratch"))
    for directory in (work, scratch):
        shutil.rmtree(directory, ignore_errors=True)
    scratch.mkdir()
    variables = {
        "LOWER": lower,
        "UPPER": str(upper),
        "WORK": str(work),
        "SCRATCH": str(scratch),
    }
    command = [*_UNSHARE, "sh", "-euc", mount + script, "sh", *arguments]
    environment = {
        "http_proxy": "",
        **os.environ,
        **variables,
        "DEVICES": " ".join(DEVICES),
    }
    subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    shutil.rmtree(work)
    scratch.rmdir()


@dataclass
class Container:
    """A running container."""

    process: subprocess.Popen[bytes]
    #: The ID of the container's process 1 on this machine.
    pid: int
    log: Path
    image: Image
    privileges: list[str]
    started: float = field(default_factory=time.monotonic)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container with the privileges of process 1."""
        entered = ["nsenter", f"--target={self.pid}", "--all", f"--root=/proc/{self.pid}/root"]
        return subprocess.run(
            [*entered, "--wd=/", *self.privileges, *command],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def status(self, name: str) -> str:
        """Return a line from /proc/PID/status for process 1."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        (value,) = re.findall(rf"(?m)^{name}:\s*(.*)$", text)
        return str(value)

    def stop(self, number: int, grace: float) -> int:
        """Send a signal to process 1 and return the exit status."""
        os.kill(self.pid, number)
        return self.process.wait(grace)


ENTER = """
scratch=$1; root=$scratch/root
mount -t tmpfs -o mode=0755 none "$scratch"; mkdir "$root" "$scratch/upper" "$scratch/work"
mount -t overlay -o "lowerdir=$2,upperdir=$scratch/upper,workdir=$scratch/work" root "$root"
"""
NETWORK = ("--net", "--uts", "--ipc")


@contextlib.contextmanager
def running(
    service: Service, image: Image, place: Path, network: Container | None
) -> Iterator[Container]:
    """Run a service in compose.yaml until the end of the context."""
    scratch = place / f"run-{service.name}"
    scratch.mkdir(exist_ok=True)
    privileges = _privileges(service, image.stage.user)
    script = [ENTER, MOUNT_SYSTEM, *_mounts(service, image, place)]
    if service.settings.get("read_only"):
        script.append('mount -o remount,bind,ro "$root"')
    if network is None:
        script.append("ip link set lo up")
    default = image.stage
    if entrypoint := service.settings.get("entrypoint"):  # this also replaces the image's command
        default = dataclasses.replace(default, entrypoint=entrypoint, command=[])
    command = [*default.entrypoint, *service.settings.get("command", default.command)]
    script.append(f'cd /; exec chroot "$root" {shlex.join([*privileges, *command])}')
    entered = ["nsenter", f"--net=/proc/{network.pid}/ns/net"] if network else []
    namespaces = [*_UNSHARE, *(NETWORK[1:] if network else NETWORK)]
    log = place / f"{service.name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*entered, *namespaces, "sh", "-euc", "\n".join(script), "sh", scratch, image.lower],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEVICES": " ".join(DEVICES)},
        )
    try:
        pid = _first_child(process, [*command])
        yield Container(process, pid, log, image, privileges)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        process.wait(TIMEOUT)
    finally:
        process.kill()  # --kill-child
        process.wait()


def _privileges(service: Service, user: str) -> list[str]:
    """Return the command that drops privileges as specified by the image and the service."""
    uid, _, gid = user.partition(":")
    flags = []
    if user != _ROOT_USER:
        flags += [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    for dropped in service.settings.get("cap_drop", ()):
        flags += [f"--bounding-set=-{dropped.lower()}", f"--inh-caps=-{dropped.lower()}"]
    for option in service.settings.get("security_opt", ()):
        assert option == "no-new-privileges:true", option
        flags.append("--no-new-privs")
    return ["/usr/bin/setpriv", *flags] if flags else []


def _mounts(service: Service, image: Image, place: Path) -> Iterator[str]:
    """Yield the commands that mount a service's file systems."""
    for path, options in service.tmpfs.items():
        yield f'mkdir -p "$root{path}"; mount -t tmpfs -o {options} none "$root{path}"'
    for source, path, read_only in service.volumes:
        if source.startswith("."):
            there = (CONTAINER / source).resolve(strict=True)
            yield f'mkdir -p "$(dirname "$root{path}")"; touch "$root{path}"'
        else:
            there = place / f"volume-{source}"
            # A new volume contains the image's files.
            if not there.exists():
                there.mkdir()
                yield f'cp -a "$root{path}/." {there}'
        yield f'mount --bind {there} "$root{path}"'
        if read_only:
            yield f'mount -o remount,bind,ro "$root{path}"'


def _first_child(process: subprocess.Popen[bytes], command: list[str]) -> int:
    """Wait until process 1 executes the command. Return the process's ID on the host."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def words(pid: str) -> list[bytes]:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]

    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        found = children.read_text().split()
        with contextlib.suppress(OSError):
            if found and words(found[0])[-1:] == [command[-1].encode()]:
                return int(found[0])
        time.sleep(0.02)
    sys.exit(f"{' '.join(command)} did not start")


def signal_number(service: Service) -> int:
    """Return the signal that stops a service."""
    return int(signal.Signals[service.settings.get("stop_signal", "SIGTERM")])
