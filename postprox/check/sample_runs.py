"""Runs the filters of the proxies on test messages (--run-filter).

Rule: this module makes no decisions. It only runs postprox-rehearse, which delivers no message. If
systemd starts the proxy, the rehearsal runs in a transient unit with the same restrictions.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.options import Options
from ..core.verdict import FAIL, FAIL_OPEN
from . import sandbox
from .facts import SampleRun, SampleRuns
from .routes import Proxy, without_wrappers
from .scripts import sample_words
from .unit import Unit

_SAMPLES = Path(__file__).resolve().parent / "samples"
_PACKAGE = Path(__file__).resolve().parents[2]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: The time in seconds for a rehearsal in addition to the filter's time limit.
_MARGIN = 30
#: The number of octets at the beginning of a script that are searched for a word.
_LARGEST = 1 << 20
#: The status with which systemd-run(1) ends if the control group of a transient unit could not be
#: set up (systemd.exec(5)). This can happen while the previous unit is being removed.
_BUSY = "exited with status 219"
#: The settings of systemd.exec(5) that restrict what the filter can do.
_RESTRICTION = re.compile(
    r"(User|Group|DynamicUser|SupplementaryGroups|UMask|WorkingDirectory|Root\w+|Private\w+"
    r"|Protect\w+|Restrict\w+|Bind\w*Paths|(ReadWrite|ReadOnly|Inaccessible|NoExec|Exec)Paths"
    r"|TemporaryFileSystem|NoNewPrivileges|\w+Capabilities|CapabilityBoundingSet|SystemCall\w+"
    r"|MemoryDenyWriteExecute|LockPersonality|Limit\w+|StateDirectory\w*|CacheDirectory\w*"
    r"|LogsDirectory\w*|MemoryMax|MemoryHigh|TasksMax|SecureBits|ProcSubset|RemoveIPC)"
)
#: The value that removes the restriction of each setting. Settings that filters rarely need to
#: relax are omitted.
_RELAXED = {
    **dict.fromkeys(("LimitAS", "LimitDATA", "LimitRSS", "LimitSTACK", "LimitFSIZE"), "infinity"),
    **dict.fromkeys(("LimitCPU", "LimitNPROC", "LimitMEMLOCK"), "infinity"),
    **dict.fromkeys(("MemoryMax", "MemoryHigh", "TasksMax"), "infinity"),
    "LimitNOFILE": "65536",
    **dict.fromkeys(("MemoryDenyWriteExecute", "PrivateNetwork", "PrivateDevices"), "no"),
    **dict.fromkeys(("PrivateUsers", "PrivateIPC", "RestrictRealtime", "NoNewPrivileges"), "no"),
    **dict.fromkeys(("RestrictSUIDSGID", "RestrictNamespaces", "LockPersonality"), "no"),
    **dict.fromkeys(("ProtectHome", "ProtectKernelTunables", "ProtectKernelLogs"), "no"),
    **dict.fromkeys(("ProtectClock", "ProtectHostname", "ProtectControlGroups"), "no"),
    "ProtectProc": "default",
    "ProcSubset": "all",
    "UMask": "0022",
    **dict.fromkeys(("SystemCallFilter", "SystemCallArchitectures"), ""),
    **dict.fromkeys(("RestrictAddressFamilies", "RestrictFileSystems"), ""),
    **dict.fromkeys(("InaccessiblePaths", "TemporaryFileSystem", "NoExecPaths"), ""),
    **dict.fromkeys(("ReadOnlyPaths", "WorkingDirectory", "RootDirectory", "RootImage"), ""),
    "PrivateTmp": "no",
}
_KINDS = ("Runtime", "State", "Cache", "Logs")
#: A sender with a shell command. Only a shell that executes the command prints EXECUTED.
_SUBSTITUTION = "$(echo${IFS}$((1234*4321))>&2)"
#: The command appears in single and in double quotes. This ends quotes of either kind around the
#: sender.
_SENDER = f"\"{_SUBSTITUTION}'{_SUBSTITUTION}'\"@example.net"


@dataclass(frozen=True)
class _Sample:
    """A test message."""

    kind: str
    file: str
    #: The sender, or None for the sender in the message.
    sender: str | None = None
    #: The text that replaces @WORD@ in the message, or "".
    word: str = ""

    @property
    def path(self) -> Path:
        """Return the path of the message file, in which @WORD@ is not replaced."""
        return _SAMPLES / self.file

    def content(self) -> bytes:
        """Return the message."""
        return self.path.read_bytes().replace(b"@WORD@", self.word.encode())

    def shown_with(self, command: str) -> str:
        """Return a command that runs `command` with the message."""
        path = shlex.quote(str(self.path))
        if not self.word:
            return f"{command} {path}"
        script = shlex.quote("s/@WORD@/" + self.word.replace("\\", r"\\") + "/")
        return f"sed {script} {path} | {command} -"


_ALL = (
    _Sample(SampleRun.ORDINARY, "ordinary.eml"),
    _Sample(SampleRun.UNUSUAL, "unusual.eml"),
    _Sample(SampleRun.BOUNCE, "ordinary.eml", sender=""),
    _Sample(SampleRun.HOSTILE, "ordinary.eml", sender=_SENDER),
)


def sample_runs(proxy: Proxy, filter_path: str = "") -> SampleRuns:
    """Run the filter of a proxy on all test messages.

    Further messages contain a word or a virus for which the script in `filter_path` searches.
    """
    wanted = proxy.options
    if wanted is None or not (wanted.command or "").strip():
        return SampleRuns()
    if os.geteuid() != 0 and proxy.user not in ("", _own_name()):
        return SampleRuns(unchecked=f"only root can run the filter as user {proxy.user}")
    runs: list[SampleRun] = []
    for sample in (*_ALL, *_samples_for(f"{_text(filter_path)}\n{wanted.command}")):
        run = _run(proxy, wanted, sample)
        if isinstance(run, str) and _BUSY in run:
            run = _run(proxy, wanted, sample)
        if isinstance(run, str):
            return SampleRuns(tuple(runs), run)
        if run.timed_out:
            return SampleRuns((*runs, run))  # the other messages would take as long
        if _has_failed(run) and not any(map(_has_failed, runs)):
            paths = sample_words.absolute_paths(_text(filter_path))
            run = replace(run, relaxed=_relaxed(proxy, wanted, sample, paths))
            run = replace(run, foreign_file=_foreign_file(run, paths), group=_group(run))
            run = replace(run, missing_directory=_missing_directory(run))
        runs.append(run)
    script = _text(filter_path)
    printed = _printed(proxy, wanted, runs[0], script) if script else None
    return SampleRuns(tuple(runs), printed=printed, handles_empty_sender="<>" in script)


#: Shell commands that make standard output the result of the filter.
_PRINTING = 'exec > "$OUTFILE"; '


def _printed(proxy: Proxy, wanted: Options, ordinary: SampleRun, script: str) -> SampleRun | None:
    """Return the result if standard output is the result of a filter that never uses OUTFILE."""
    if "OUTFILE" in f"{script}{wanted.command}" or ordinary.received != ordinary.sent:
        return None
    run = _run(proxy, wanted, _ALL[0], prefix=_PRINTING)
    return None if isinstance(run, str) else run


def _has_failed(run: SampleRun | str) -> bool:
    return isinstance(run, str) or run.verdict in (FAIL, FAIL_OPEN)


def _relaxed(
    proxy: Proxy, wanted: Options, sample: _Sample, paths: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Return the first change to the unit's settings that lets the filter succeed, or ().

    First, run the filter with all settings relaxed, and stop if it still fails. Several settings
    can hide a path in /tmp, and BindPaths= makes it visible again.
    """
    unit = proxy.unit
    if unit is None or not _has_systemd(unit):
        return ()
    found = [(name, _RELAXED[name]) for name in unit.settings if name in _RELAXED]
    found = [(name, value) for name, value in found if unit.setting(name) not in ("", value)]
    shown = [("BindPaths", path) for path in paths if path.startswith("/tmp/")]  # noqa: S108
    shown = [each for each in shown if Path(each[1]).exists()]
    if _has_failed(_run(proxy, wanted, sample, [*found, *shown])):
        return ()
    for each in (*found, *shown):
        if not _has_failed(_run(proxy, wanted, sample, [each])):
            return (each,)
    return ()


#: Error messages about files that the filter may not use.
_DENIED = re.compile(r"permission denied|read-?only|unable to open", re.IGNORECASE)


def _foreign_file(run: SampleRun, paths: Sequence[str]) -> str:
    """Return the file that belongs to root in a directory of the filter's user, if the filter
    probably cannot use it.
    """
    for path in paths if _DENIED.search(run.errors) else ():
        with contextlib.suppress(OSError):
            status, above = Path(path).stat(), Path(path).parent.stat()
            if not status.st_uid and above.st_uid and not status.st_mode & stat.S_IWOTH:
                return path
    return ""


#: Error messages of shells and of Python about a file that they could not open.
_NOT_OPENED = re.compile(
    r"(?:cannot create |FileNotFoundError: .*'|line \d+: )"
    r"(?P<path>/(?:run|var|srv)/[\w./-]+)(?=:|')"
)


def _missing_directory(run: SampleRun) -> str:
    """Return the directory of a file in the error message, if it does not exist, or ""."""
    found = _NOT_OPENED.search(run.errors)
    directory = found["path"].rpartition("/")[0] if found else ""
    return "" if not directory or os.path.lexists(directory) else directory


def _group(run: SampleRun) -> str:
    """Return the group that gives access to the path in the filter's error message, or ""."""
    for line in run.errors.splitlines():
        path = next(iter(sample_words.absolute_paths(f" {line}")), "").rstrip(":")
        if path and "ermission denied" in line:
            with contextlib.suppress(OSError, KeyError):
                status = Path(path).stat()
                if status.st_gid and status.st_mode & (stat.S_IRGRP | stat.S_IWGRP):
                    return grp.getgrgid(status.st_gid).gr_name
    return ""


def _has_systemd(unit: Unit) -> bool:
    return bool(unit.path) and Path("/run/systemd/system").is_dir()


def _samples_for(script: str) -> Iterator[_Sample]:
    """Yield messages that a script may reject."""
    refused = sample_words.refused_word(script)
    if word := refused or sample_words.searched_word(script):
        kind = SampleRun.REFUSED if refused else SampleRun.SEARCHED
        yield _Sample(kind, "word.eml", word=word)
    if sample_words.scans_for_viruses(script):
        yield _Sample(SampleRun.VIRUS, "virus.eml", word=sample_words.EICAR)


def _own_name() -> str:
    """Return the name of the user who runs the check, or "" if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_bytes()[:_LARGEST].decode("latin-1") if path else ""
    except OSError:
        return ""


def _run(
    proxy: Proxy,
    wanted: Options,
    sample: _Sample,
    changed: Sequence[tuple[str, str]] = (),
    prefix: str = "",
) -> SampleRun | str:
    """Return the result for one test message, or the reason why there is none.

    changed: settings of the unit and their values for this run.
    prefix: shell commands before the filter command.
    """
    arguments = _arguments(proxy, wanted, sample, prefix)
    # Only root can switch to another user.
    name = f"{proxy.user}:{proxy.group}" if proxy.service and proxy.group else proxy.user
    user = ["--user", name] if proxy.user and os.geteuid() == 0 else []
    command = [sys.executable, "-P", "-m", "postprox.rehearse", "--json"]
    if proxy.unit and _has_systemd(proxy.unit):
        command = [*restricted(proxy.unit, changed), *command, *arguments, "-"]
    else:
        command += [*user, *arguments, "-"]
    try:
        done = subprocess.run(
            command,
            input=sample.content(),
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
    line = shlex.join(["postprox-rehearse", *user, *arguments])
    return _result(sample, sample.shown_with(line), message)


def _result(sample: _Sample, command: str, message: dict[str, Any]) -> SampleRun:
    return SampleRun(
        sample.kind,
        command,
        message["verdict"],
        timed_out=message["timed_out"],
        reason=message["reason"],
        reply=message["reply"],
        errors=message["filter"]["stderr"] if message["filter"] else "",
        sent=message["sent"],
        received=message["received"],
        word=sample.word,
    )


def _arguments(proxy: Proxy, wanted: Options, sample: _Sample, prefix: str) -> list[str]:
    """Return the arguments of postprox-rehearse for a test message."""
    strictness = "--strict" if wanted.strict else "-r" if wanted.reject else ""
    sender = [] if sample.sender is None else ["--sender", sample.sender]
    return [
        *([strictness] if strictness else []),
        *("-t", f"{wanted.timeout:g}", "-d", wanted.directory),
        *("-c", _exports(proxy) + prefix + (wanted.command or "")),
        *sender,
    ]


def _exports(proxy: Proxy) -> str:
    """Return shell commands that set the environment variables of the proxy."""
    words = proxy.words[: len(proxy.words) - len(without_wrappers(proxy.words))]
    values = dict(word.split("=", 1) for word in words if re.match(r"[A-Za-z_]\w*=", word))
    if unit := proxy.unit:
        values = {"PATH": _PATH, **_directories(unit), **unit.environment, **values}
    return "".join(
        f"export {name}={shlex.quote(value)}; "
        for name, value in values.items()
        if not name.startswith("POSTPROX_")
    )


def _directories(unit: Unit) -> dict[str, str]:
    """Return the variables that systemd sets for the directories of a unit (systemd.exec(5))."""
    made = {f"{kind}Directory": sandbox.made_by(unit, f"{kind}Directory") for kind in _KINDS}
    names = {name: name.removesuffix("Directory").upper() for name in made}
    return {f"{names[name]}_DIRECTORY": ":".join(paths) for name, paths in made.items() if paths}


def restricted(unit: Unit, changed: Sequence[tuple[str, str]] = ()) -> Iterator[str]:
    """Yield the words of a command that runs a program under a unit's restrictions."""
    yield from (shutil.which("systemd-run", path=_PATH) or "systemd-run",)
    yield from ("--quiet", "--wait", "--pipe", "--collect", "--service-type=exec")
    yield f"--setenv=PYTHONPATH={_PACKAGE}"
    for name, values in unit.settings.items():
        # Unlike in a unit file, an empty value does not reset a list that systemd-run(1) sets.
        if name in dict(changed) and name != "BindPaths":
            continue
        # systemd-run(1) does not expand specifiers.
        if _RESTRICTION.fullmatch(name) and not any("%" in value for value in values):
            yield from (f"--property={name}={value}" for value in values or [""])
    # A RuntimeDirectory= of a transient unit would remove the directory of the service.
    for path in sandbox.made_by(unit, "RuntimeDirectory"):
        if Path(path).is_dir():
            yield f"--property=ReadWritePaths={path}"
    yield from (f"--property={name}={value}" for name, value in changed if value)
