"""The public classes of an adapter: what it starts, and what it knows about its program.

Rule: an adapter describes. It starts no process and opens no socket; `launch` does.
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
    """What stands between the suite and the program: `Direct`, `Early` or `Deferred`."""

    def start(self, loop: Loop, wiring: Wiring) -> None:
        """Serve clients in *loop*."""


@dataclass(frozen=True)
class Place:
    """Where the program runs: its addresses, and a directory for its files."""

    #: The options of the transcript, such as `options.command` and `options.directory`.
    options: Options
    #: The address at which the program accepts clients.
    entrance: Address
    #: The address to which the program connects as its upstream server.
    upstream: Address
    #: A directory for configuration, which is removed at the end.
    files: Path
    #: The file of the adapter.
    adapter: Path
    #: Whether the control runs instead of the program.
    is_control: bool = False

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file into `files`, and return its path."""
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(mode)
        return path

    def filter_script(self) -> Path | None:
        """Return a program for the filter of `-c`, or None without `-c`.

        The program calls `Adapter.message`, and runs the filter by the rules of postprox.
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
    #: Whether the command returns and leaves the program in the background.
    detaches: bool = False


@dataclass(frozen=True)
class Adapter:
    """A program, and the passage that lets the suite test it."""

    #: Writes the program's files, and returns its command.
    program: Callable[[Place], Program]
    passage: Passage
    #: Whether the program accepts clients and connects upstream at unix-domain sockets.
    unix: bool = False
    #: Time between the program's listening and the first client (seconds), for a program whose
    #: children are not ready when it listens.
    settling: float = 0.0
    #: Time limit for the program's start (seconds).
    starting: float = 20.0
    #: Returns the message that the program gives to its filter, called with the filter's
    #: arguments. None for a program that supports the contract of `-c` itself or has no filter.
    message: Callable[[Sequence[str]], Message] | None = None
    #: Whether the program is the reference, which runs as the control.
    is_control: bool = False
