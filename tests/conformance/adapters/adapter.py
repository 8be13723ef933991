"""The public classes from which an adapter is built.

Rule: an adapter only describes its program. `launch` starts processes and opens sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .command_line import Address, Options
from .direct import Wiring
from .filter_command import FilterCommand, Message
from .loop import Loop


class Passage(Protocol):
    """The delivery mode of a program: `Direct`, `Early` or `Deferred`."""

    def start(self, loop: Loop, wiring: Wiring) -> None:
        """Start relaying between clients, the program and the upstream server."""


@dataclass(frozen=True)
class Place:
    """The program's addresses and options for one transcript, and a directory for its files."""

    #: The transcript's options, such as `options.command` and `options.directory`.
    options: Options
    #: The address at which the program accepts clients.
    entrance: Address
    #: The address to which the program connects as its upstream server.
    upstream: Address
    #: A directory for configuration files, which is removed after the transcript.
    files: Path
    #: The file of the adapter.
    adapter: Path
    #: True if the control runs instead of the program.
    is_control: bool = False

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file in the directory `files`, and return its path."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(mode)
        return path

    def filter_script(self) -> Path | None:
        """Write a script that runs the `-c` filter. Return its path, or None without `-c`.

        The script calls `Adapter.message` and follows postprox's contract for filters.
        """
        if self.options.command is None:
            return None
        call = FilterCommand(
            self.options.command,
            self.options.reject,
            str(self.files),
            str(self.adapter),
            self.is_control,
        )
        return self.write("filter", call.script(), 0o755)


@dataclass(frozen=True)
class Program:
    """A command that runs the program for one transcript."""

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    #: True if the command returns and leaves the program in the background.
    detaches: bool = False


@dataclass(frozen=True)
class Adapter:
    """A program and its delivery mode."""

    #: A function that writes the program's files and returns its command.
    program: Callable[[Place], Program]
    passage: Passage
    #: Whether the program uses Unix-domain sockets for clients and upstream.
    unix: bool = False
    #: The time between the program's first listening and the first client, in seconds, for a
    #: program whose child processes are not ready when it listens.
    settling: float = 0.0
    #: The time limit for the program's start, in seconds.
    starting: float = 20.0
    #: A function that returns the message that the program passes to its filter, called with the
    #: filter's arguments. None if the program itself supports the contract of `-c` or has no
    #: filter.
    message: Callable[[Sequence[str]], Message] | None = None
    #: A command whose output contains the program's version. The suite uses it if the
    #: implementation file has no `version`.
    version: Sequence[str | Path] = ()
    #: True if this adapter runs the reference implementation as the control.
    is_control: bool = False
