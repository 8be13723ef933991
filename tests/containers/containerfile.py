"""Parses the instructions in a Containerfile and the services in compose.yaml.

Rule: an instruction, option or key that the tests cannot run is an error. So everything in these
files is either tested or reported.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "packaging/container"
COMPOSE = CONTAINER / "compose.yaml"

_STEPS = ("RUN", "COPY")
#: The keys of a service that the tests apply, and the keys that require a container runtime.
APPLIED = frozenset(
    {
        *("build", "cap_drop", "command", "entrypoint", "image", "network_mode", "read_only"),
        *("security_opt", "stop_grace_period", "stop_signal", "tmpfs", "volumes"),
    }
)
UNTRIED = frozenset({"depends_on", "mem_limit", "ports", "restart"})


@dataclass(frozen=True)
class Step:
    """An instruction that changes files."""

    kind: str
    #: RUN: the shell command. COPY: the arguments without options.
    words: tuple[str, ...]
    #: COPY: the stage whose files are copied, or "" for the build context.
    source: str = ""


@dataclass
class Stage:
    """One stage of a Containerfile. The last stage is the image."""

    base: str
    steps: list[Step] = field(default_factory=list)
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    #: The options of HEALTHCHECK, such as "interval".
    health_options: dict[str, str] = field(default_factory=dict)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the name and the arguments of each instruction."""
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.split("\n"))]


def parse(text: str) -> dict[str, Stage]:
    """Return the stages by name. An unnamed last stage has the name ""."""
    stages: dict[str, Stage] = {}
    stage = Stage("")
    for name, rest in instructions(text):
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stage = stages[alias] = Stage(base)
        elif name in _STEPS:
            stage.steps.append(_step(name, rest))
        elif name == "USER":
            stage.user = rest
        elif name == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif name == "CMD":
            stage.command = json.loads(rest)
        elif name == "HEALTHCHECK":
            options, _, command = rest.partition(" CMD ")
            stage.health = json.loads(command)
            stage.health_options = dict(re.findall(r"--([\w-]+)=(\S+)", options))
        else:
            raise ValueError(f"unknown instruction {name}")
    return stages


def _step(name: str, rest: str) -> Step:
    if name == "RUN":
        return Step(name, (rest,))
    words = shlex.split(rest)
    source = ""
    if words[0].startswith("--from="):
        source = words.pop(0).removeprefix("--from=")
    if any(word.startswith("--") for word in words):
        raise ValueError(f"unknown option in COPY {rest}")
    return Step(name, tuple(words), source)


@dataclass
class Service:
    """One service in compose.yaml."""

    name: str
    settings: Mapping[str, Any]

    @property
    def containerfile(self) -> Path | None:
        """The Containerfile, or None if the service uses a published image."""
        build = self.settings.get("build")
        if build is None:
            return None
        context: Path = (CONTAINER / build["context"]).resolve()
        if context != ROOT:
            raise ValueError(f"{self.name}: the context is {context}, not the checkout")
        return context / str(build["dockerfile"])

    @property
    def network(self) -> str:
        """The service whose network this service uses, or "" if it has its own network."""
        return str(self.settings.get("network_mode", "")).removeprefix("service:")

    @property
    def tmpfs(self) -> dict[str, str]:
        """The mount options by path."""
        return dict(mount.split(":", 1) for mount in self.settings.get("tmpfs", ()))

    @property
    def volumes(self) -> list[tuple[str, str, bool]]:
        """For each volume, its source, its path, and True if it is read-only."""
        found = []
        for volume in self.settings.get("volumes", ()):
            source, path, *mode = volume.split(":")
            found.append((source, path, mode == ["ro"]))
        return found

    def seconds(self, key: str, default: int) -> int:
        """Convert a duration to seconds."""
        return int(str(self.settings.get(key, default)).removesuffix("s"))


def services(text: str) -> dict[str, Service]:
    """Return the services in compose.yaml."""
    parsed = yaml.safe_load(text)
    if unknown := parsed.keys() - {"name", "services", "volumes"}:
        raise ValueError(f"unknown keys {unknown}")
    for name, settings in parsed["services"].items():
        if unknown := settings.keys() - APPLIED - UNTRIED:
            raise ValueError(f"{name}: unknown keys {unknown}")
    return {name: Service(name, settings) for name, settings in parsed["services"].items()}
