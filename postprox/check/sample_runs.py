"""Runs the filters of the proxies on test messages (--run-filter).

Rule: this module only runs postprox-rehearse, which delivers no message, and makes no decisions. If
systemd starts the proxy, the rehearsal runs in a transient unit with the same restrictions.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.options import Options
from .facts import SampleRun, SampleRuns
from .routes import Proxy, without_wrappers
from .unit import Unit

_SAMPLES = Path(__file__).resolve().parent / "samples"
_PACKAGE = Path(__file__).resolve().parents[2]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The time in seconds for a rehearsal in addition to the filter's time limit.
_MARGIN = 30
#: The settings of systemd.exec(5) that restrict what the filter can do.
_RESTRICTION = re.compile(
    r"(User|Group|DynamicUser|SupplementaryGroups|UMask|WorkingDirectory|Root\w+|Private\w+"
    r"|Protect\w+|Restrict\w+|Bind\w*Paths|(ReadWrite|ReadOnly|Inaccessible|NoExec|Exec)Paths"
    r"|TemporaryFileSystem|NoNewPrivileges|\w+Capabilities|CapabilityBoundingSet|SystemCall\w+"
    r"|MemoryDenyWriteExecute|LockPersonality|Limit\w+|StateDirectory\w*|CacheDirectory\w*"
    r"|LogsDirectory\w*|MemoryMax|MemoryHigh|TasksMax|SecureBits|ProcSubset|RemoveIPC)"
)
#: A sender with a shell command. Only a shell that executes the command prints EXECUTED.
_SENDER = '"$(echo${IFS}$((1234*4321))>&2)"@example.net'


@dataclass(frozen=True)
class _Sample:
    """A test message and its sender. None for the sender in the message."""

    kind: str
    file: str
    sender: str | None


_ALL = (
    _Sample(SampleRun.ORDINARY, "ordinary.eml", None),
    _Sample(SampleRun.UNUSUAL, "unusual.eml", None),
    _Sample(SampleRun.BOUNCE, "ordinary.eml", ""),
    _Sample(SampleRun.HOSTILE, "ordinary.eml", _SENDER),
)


def sample_runs(proxy: Proxy) -> SampleRuns:
    """Run the filter of a proxy on all test messages."""
    wanted = proxy.options
    if wanted is None or not (wanted.command or "").strip():
        return SampleRuns()
    runs: list[SampleRun] = []
    for sample in _ALL:
        run = _run(proxy, wanted, sample)
        if isinstance(run, str):
            return SampleRuns(tuple(runs), run)
        runs.append(run)
        if run.timed_out:
            break  # the other messages would take as long
    return SampleRuns(tuple(runs))


def _run(proxy: Proxy, wanted: Options, sample: _Sample) -> SampleRun | str:
    """Return the result for one test message, or the reason why there is none."""
    arguments = _arguments(proxy, wanted, sample)
    user = ["--user", proxy.user] if proxy.user else []
    command = [sys.executable, "-P", "-m", "postprox.rehearse", "--json"]
    if proxy.unit and proxy.unit.path and Path("/run/systemd/system").is_dir():
        command = [*restricted(proxy.unit), *command, *arguments]
    else:
        command += [*user, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(_PACKAGE)},
            cwd="/",
            timeout=wanted.timeout + _MARGIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "postprox-rehearse timed out"
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    try:
        message = json.loads(done.stdout)["messages"][0]
    except (ValueError, LookupError):
        lines = done.stderr.decode(errors="backslashreplace").strip().splitlines()
        return lines[-1] if lines else f"{command[0]} exited with status {done.returncode}"
    if message["filter"] is None and not message["timed_out"]:
        return str(message["complaint"] or message["reason"])
    return _result(sample.kind, shlex.join(["postprox-rehearse", *user, *arguments]), message)


def _result(kind: str, command: str, message: dict[str, Any]) -> SampleRun:
    return SampleRun(
        kind,
        command,
        message["verdict"],
        timed_out=message["timed_out"],
        reason=message["reason"],
        reply=message["reply"],
        errors=message["filter"]["stderr"] if message["filter"] else "",
        sent=message["sent"],
        received=message["received"],
    )


def _arguments(proxy: Proxy, wanted: Options, sample: _Sample) -> list[str]:
    """Return the arguments of postprox-rehearse for a test message."""
    strictness = "--strict" if wanted.strict else "-r" if wanted.reject else ""
    sender = [] if sample.sender is None else ["--sender", sample.sender]
    return [
        *([strictness] if strictness else []),
        *("-t", f"{wanted.timeout:g}", "-d", wanted.directory),
        *("-c", _exports(proxy) + (wanted.command or "")),
        *sender,
        str(_SAMPLES / sample.file),
    ]


def _exports(proxy: Proxy) -> str:
    """Return shell commands that set the environment variables of the proxy."""
    words = proxy.words[: len(proxy.words) - len(without_wrappers(proxy.words))]
    values = dict(word.split("=", 1) for word in words if re.match(r"[A-Za-z_]\w*=", word))
    if unit := proxy.unit:
        values = {"PATH": _PATH, **unit.environment, **values}
    return "".join(
        f"export {name}={shlex.quote(value)}; "
        for name, value in values.items()
        if not name.startswith("POSTPROX_")
    )


def restricted(unit: Unit) -> Iterator[str]:
    """Yield the command that runs a program with the restrictions of a unit."""
    yield from (shutil.which("systemd-run", path=_PATH) or "systemd-run",)
    yield from ("--quiet", "--wait", "--pipe", "--collect", "--service-type=exec")
    yield f"--setenv=PYTHONPATH={_PACKAGE}"
    for name, values in unit.settings.items():
        # systemd-run(1) does not expand specifiers.
        if _RESTRICTION.fullmatch(name) and not any("%" in value for value in values):
            yield from (f"--property={name}={value}" for value in values or [""])
