"""The implementation under test: a command line, or a file that also lists known divergences.

Rule: every entry of an implementation file is checked. Unknown names are errors.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..format.header import IMPLEMENTATION_CAPABILITIES
from ..format.payload import did_you_mean
from ..format.profiles import POSTPROX, Profile
from ..format.requirements import specification
from ..format.vocabulary import BARE_LF_POLICIES, KINDS, MODES, current_name
from ..paths import ADAPTER_LAUNCHER, IMPLEMENTATIONS, INSTALLED, ROOT

REFERENCE = "reference"


class ImplementationError(Exception):
    """An implementation file or command cannot be used."""


@dataclass(frozen=True)
class Divergence:
    """A transcript that is known to fail. If `mode` is None, it fails in every mode."""

    transcript: str
    mode: str | None
    kind: str
    reason: str
    #: Whether the failure is a race, so that a pass is not an error.
    sometimes: bool = False
    #: The violated requirement, or "" for the requirement that the suite names.
    requirement: str = ""


@dataclass(frozen=True)
class Implementation:
    """The command line of an implementation, and its known properties."""

    name: str
    argv: tuple[str, ...]
    version: str = ""
    #: The commands that install the program, one on each line, or "".
    install: str = ""
    #: The file whose presence shows that the program is installed.
    program: str = ""
    profile: Profile = POSTPROX
    capabilities: frozenset[str] = frozenset(IMPLEMENTATION_CAPABILITIES)
    #: The policy for bare LF, one of BARE_LF_POLICIES. None if the file does not declare it.
    bare_lf: str | None = None
    #: The length in octets of the longest line that the program passes, including CRLF, or None.
    line_max: int | None = None
    clock_env: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    divergences: tuple[Divergence, ...] = ()
    #: Whether the implementation was given as a file instead of a command line.
    described: bool = True
    #: The adapter's file, or None without an adapter.
    adapter: Path | None = None
    #: Whether the adapter's program keeps running across transcripts.
    keeps_running: bool = False

    def divergence(self, transcript: str, mode: str) -> Divergence | None:
        """Return the known divergence for *transcript* in *mode*."""
        for one in self.divergences:
            if one.transcript == transcript and one.mode in (None, mode):
                return one
        return None

    def check_names(self, transcripts: Mapping[str, Iterable[str]]) -> None:
        """Raise an error if a divergence is not in *transcripts*, which maps names to modes."""
        for one in self.divergences:
            if one.transcript not in transcripts:
                raise ImplementationError(
                    f"{self.name}: unknown transcript '{one.transcript}' in a "
                    f"divergence{did_you_mean(one.transcript, list(transcripts))}"
                )
            if one.mode is not None and one.mode not in transcripts[one.transcript]:
                raise ImplementationError(
                    f"{self.name}: a divergence names '{one.transcript}' in mode "
                    f"'{one.mode}', but the transcript's modes are "
                    f"{', '.join(transcripts[one.transcript])}"
                )


def control_of(implementation: Implementation) -> Implementation:
    """Return the reference implementation behind the same adapter."""
    assert implementation.adapter is not None
    reference = _installed_reference() if INSTALLED else find_implementation(REFERENCE)
    command = json.dumps(reference.argv)
    # All other values, such as the capabilities, are the program's.
    return replace(
        implementation,
        name=reference.name,
        version=reference.version,
        argv=(*_LAUNCHER, "--control", command, str(implementation.adapter)),
        env={**implementation.env, **reference.env},
        divergences=(),
    )


def _installed_reference() -> Implementation:
    """Return the postprox command of this environment or in PATH."""
    here = str(Path(sys.executable).parent)
    found = shutil.which("postprox", path=os.pathsep.join((here, os.environ.get("PATH", ""))))
    if found is None:
        raise ImplementationError(
            "an adapter requires the package postprox; install it, for example with pip"
        )
    return Implementation("postprox", (found,))


def default_implementation() -> Implementation:
    """Return the proxy of this checkout. In an installed package, raise an error."""
    if INSTALLED:
        raise ImplementationError("missing --implementation TOML|CMD")
    return find_implementation(REFERENCE)


def find_implementation(text: str) -> Implementation:
    """Return the implementation for `--implementation TEXT`: a file, a known name or a command."""
    for path in (Path(text), IMPLEMENTATIONS / f"{text}.toml"):
        if path.suffix == ".toml" and path.is_file():
            return read_implementation(path)
    if text.endswith(".toml"):
        raise ImplementationError(f"missing file {text}")
    try:
        argv = shlex.split(text)
    except ValueError as error:
        raise ImplementationError(f"--implementation {text}: {error}") from error
    if not argv:
        raise ImplementationError("--implementation requires a command line or a TOML file")
    return Implementation(text, _from_anywhere(argv, Path.cwd()), described=False)


def read_implementation(path: Path) -> Implementation:
    """Return the implementation that the TOML file *path* describes."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return parse_implementation(table, path.absolute().parent)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ImplementationError) as error:
        raise ImplementationError(f"{path.name}: {error}") from error


_KEYS = {
    "name": str,
    "version": str,
    "install": str,
    "program": str,
    "profile": str,
    "argv": list,
    "adapter": str,
    "keeps_running": bool,
    "capabilities": list,
    "bare-lf": str,
    "line-max": int,
    "clock_env": str,
    "env": dict,
    "divergence": list,
}
#: The command that runs an adapter. The kit and the reference need no site-packages.
_LAUNCHER = (sys.executable, "-S", str(ADAPTER_LAUNCHER))
_DIVERGENCE_KEYS = {
    "reason": str,
    "kind": str,
    "requirement": str,
    "transcripts": list,
    "sometimes": bool,
}


def parse_implementation(table: Mapping[str, object], directory: Path) -> Implementation:
    """Return the implementation in a parsed TOML table. Relative files are in *directory*."""
    _check_keys(table, _KEYS, required=("name",))
    adapter = _adapter(table, directory)
    capabilities = _texts(table, "capabilities")
    for one in capabilities:
        if one not in IMPLEMENTATION_CAPABILITIES:
            raise ImplementationError(
                f"unknown capability '{one}'{did_you_mean(one, IMPLEMENTATION_CAPABILITIES)}; "
                f"valid capabilities: {', '.join(IMPLEMENTATION_CAPABILITIES)}"
            )
    environment = table.get("env", {})
    divergences = table.get("divergence", [])
    clock = table.get("clock_env")
    assert isinstance(environment, dict)
    assert isinstance(divergences, list)
    return Implementation(
        name=str(table["name"]),
        argv=(*_LAUNCHER, str(adapter))
        if adapter
        else _from_anywhere(_texts(table, "argv"), directory),
        version=str(table.get("version", "")),
        install=str(table.get("install", "")),
        program=str(table.get("program", "")),
        profile=_profile(str(table["profile"])) if "profile" in table else POSTPROX,
        capabilities=frozenset(capabilities),
        bare_lf=_bare_lf(table),
        line_max=_line_max(table),
        clock_env=None if clock is None else str(clock),
        env={name: _filled(str(value)) for name, value in environment.items()},
        divergences=tuple(one for table in divergences for one in _divergences(table)),
        adapter=adapter,
        keeps_running=bool(table.get("keeps_running", False)),
    )


def _profile(text: str) -> Profile:
    try:
        return Profile.of(text)
    except ValueError as error:
        raise ImplementationError(str(error)) from error


def _adapter(table: Mapping[str, object], directory: Path) -> Path | None:
    """Return the adapter's file, or None if the table has the key argv."""
    if bool(table.get("adapter")) == bool(table.get("argv")):
        raise ImplementationError("exactly one of 'argv' and 'adapter' is required")
    if not table.get("adapter"):
        if table.get("keeps_running"):
            raise ImplementationError("'keeps_running' requires 'adapter'")
        return None
    path = directory / str(table["adapter"])
    if not path.is_file():
        raise ImplementationError(f"adapter: missing file {path}")
    return path


def _bare_lf(table: Mapping[str, object]) -> str | None:
    policy = table.get("bare-lf")
    if policy is None:
        return None
    if policy not in BARE_LF_POLICIES:
        raise ImplementationError(
            f"bare-lf must be one of {', '.join(BARE_LF_POLICIES)}, not '{policy}'"
            f"{did_you_mean(str(policy), BARE_LF_POLICIES)}"
        )
    return str(policy)


def _line_max(table: Mapping[str, object]) -> int | None:
    octets = table.get("line-max")
    if octets is None:
        return None
    if isinstance(octets, bool) or not isinstance(octets, int) or octets < 1:
        raise ImplementationError(f"line-max must be at least 1, not {octets!r}")
    return octets


def _divergences(table: object) -> Iterator[Divergence]:
    """Yield the divergence for each transcript listed in *table*."""
    if not isinstance(table, dict):
        raise ImplementationError("'divergence' must be a list of tables: [[divergence]]")
    if "transcript" in table:
        raise ImplementationError(
            "'transcript' was replaced by a list; use "
            f'transcripts = ["{table["transcript"]}"], with NAME::MODE for a single mode'
        )
    _check_keys(table, _DIVERGENCE_KEYS, required=("transcripts", "kind", "reason"))
    if table["kind"] not in KINDS:
        raise ImplementationError(
            f"divergence '{table['reason']}': kind must be one of "
            f"{', '.join(KINDS)}, not '{table['kind']}'"
        )
    if not table["reason"].strip():
        raise ImplementationError(f"divergence {table['transcripts']}: the reason is empty")
    requirement = str(table.get("requirement", ""))
    if requirement and requirement not in (known := specification().requirements):
        raise ImplementationError(
            f"divergence '{table['reason']}': unknown requirement '{requirement}'"
            f"{did_you_mean(requirement, list(known))}"
        )
    for text in _texts(table, "transcripts"):
        name, _, mode = text.partition("::")
        if mode and mode not in MODES:
            raise ImplementationError(
                f"divergence {text}: mode must be one of {', '.join(MODES)}, not '{mode}'"
            )
        sometimes = bool(table.get("sometimes", False))
        yield Divergence(
            current_name(name), mode or None, table["kind"], table["reason"], sometimes, requirement
        )


def _check_keys(
    table: Mapping[str, object], keys: Mapping[str, type], *, required: tuple[str, ...]
) -> None:
    for key, value in table.items():
        if key not in keys:
            raise ImplementationError(
                f"unknown key '{key}'{did_you_mean(key, list(keys))}; valid keys: {', '.join(keys)}"
            )
        if not isinstance(value, keys[key]):
            raise ImplementationError(
                f"'{key}' must be of type {keys[key].__name__}, not {value!r}"
            )
    for key in required:
        if not table.get(key):
            raise ImplementationError(f"'{key}' is missing")


def _texts(table: Mapping[str, object], key: str) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ImplementationError(f"'{key}' must be a list of strings, not {value!r}")
    return value


def _filled(text: str) -> str:
    places = {"python": sys.executable, "root": str(ROOT), "implementations": str(IMPLEMENTATIONS)}
    for name, value in places.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _from_anywhere(argv: list[str], directory: Path) -> tuple[str, ...]:
    """Return argv with absolute paths for files in *directory*, because programs run in /."""
    program, *rest = (_filled(word) for word in argv)
    if "/" in program:
        program = str(directory / program)
    found = shutil.which(program)
    program = str(Path(found).absolute()) if found else program
    return (program, *(_existing(word, directory) for word in rest))


def _existing(word: str, directory: Path) -> str:
    """Return the absolute path if *word* is a file in *directory*, or else *word*."""
    path = directory / word
    return str(path) if path.is_file() else word
