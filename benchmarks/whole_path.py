"""Measures the cost of a message in all processes that handle it, behind a real Postfix.

Rule: the processor time of all processes is measured, from the smtpd(8) that receives the message
to the file in a Maildir, and compared with the path without a filter through the same Postfix.
smtp-source(1), which sends the messages, is not included.

Requires root and Postfix. proxsmtpd (Debian's package proxsmtp) is also measured if it is
installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.postfix.instance import (
    Address,
    Postfix,
    missing,
    program,
    public_directory,
    wait_for,
)

from .clock import Spent, family
from .figures import Bench, Comparison, Figure, Measured, Way
from .peers import LIMIT, BrokenDialogueError, NotHereError

RELAY = str(Path(__file__).parent / "relay.py")
USER = "nobody"
#: As in the `master.cf` of the README.
UPSTREAM = """{at} inet n - n - - smtpd
    -o smtpd_authorized_xforward_hosts=127.0.0.0/8
    -o smtpd_proxy_filter=
    -o smtpd_recipient_restrictions=permit_mynetworks,reject
    -o smtpd_junk_command_limit=100000
    -o smtpd_soft_error_limit=10000
    -o smtpd_error_sleep_time=0
    -o receive_override_options=no_unknown_recipient_checks
"""
UNFILTERED = "{at} inet n - n - - smtpd\n"
FILTERED = "{at} inet n - n - - smtpd -o smtpd_proxy_filter={proxy}\n"
SPAWN = "{proxy} inet n n n - 20 spawn user={user} argv={command}\n"
PROXSMTPD = """OutAddress: {upstream}
Listen: {proxy}
FilterType: file
FilterCommand: true
TempDirectory: {spool}
"""


@dataclass(frozen=True)
class Load:
    """The size and number of messages, and the number of concurrent sessions."""

    name: str
    label: str
    size: int
    messages: int
    sessions: int
    #: The limits for some paths, relative to the unfiltered one.
    bars: Mapping[str, float] = field(default_factory=dict)


LOADS = (
    Load(
        "small",
        "4 KB, eight sessions",
        4096,
        200,
        8,
        {"spawned, `-c true`": 6.7, "listening, `-c true`": 2.3, "listening, no filter": 1.65},
    ),
    Load("small-alone", "4 KB, one session", 4096, 60, 1),
    Load("large", "1 MB, four sessions", 1 << 20, 40, 4, {"listening, `-c true`": 1.5}),
)
Template = tuple[str, ...]
WITH_FILTER = ("-d", "{spool}", "-c", "true")


@dataclass(frozen=True)
class Ways:
    """The filtered paths, with the command of the proxy of each path.

    In a command, `{upstream}` is the address to which it sends mail, `{proxy}` is the address on
    which it listens, and `{spool}` is the directory for messages.
    """

    #: Commands that spawn(8) runs for each connection.
    spawned: dict[str, Template]
    #: Commands that run all the time.
    servers: dict[str, Template]

    @property
    def names(self) -> list[str]:
        """Return the names of all paths."""
        return ["unfiltered", *self.servers, *self.spawned]

    def addresses(self) -> list[str]:
        """Return the names of the required addresses."""
        return ["upstream", *self.names, *(f"to {name}" for name in self.names)]

    def services(self, spool: Path) -> Callable[[Mapping[str, Address]], str]:
        """Return a function that writes the lines of master.cf."""

        def lines(addresses: Mapping[str, Address]) -> Iterator[str]:
            yield UPSTREAM.format(at=addresses["upstream"])
            yield UNFILTERED.format(at=addresses["unfiltered"])
            for name in (*self.servers, *self.spawned):
                yield FILTERED.format(at=addresses[name], proxy=addresses[f"to {name}"])
            for name, template in self.spawned.items():
                command = " ".join(filled(template, addresses, name, spool))
                yield SPAWN.format(proxy=addresses[f"to {name}"], user=USER, command=command)

        return lambda addresses: "".join(lines(addresses))


def filled(
    template: Template, addresses: Mapping[str, Address], name: str, spool: Path
) -> list[str]:
    """Return a command with all placeholders replaced."""
    places = {
        "{upstream}": str(addresses["upstream"]),
        "{proxy}": str(addresses[f"to {name}"]),
        "{spool}": str(spool),
    }
    mark = re.compile("|".join(map(re.escape, places)))
    return [mark.sub(lambda found: places[found[0]], word) for word in template]


def ways(bench: Bench, directory: Path) -> Ways:
    """Return the paths that are available on this machine."""
    ours = bench.postprox.template
    listen = (*ours, "-d", "{spool}", "--foreground", "--listen", "{proxy}")
    servers: dict[str, Template] = {
        "a relay that only copies": (bench.python, "-IS", RELAY, "{upstream}", "{proxy}"),
        "listening, no filter": listen,
        "listening, `-c true`": (*listen, "-c", "true"),
    }
    if proxsmtpd := program("proxsmtpd"):
        servers["proxsmtpd, `true`"] = (proxsmtpd, "-d", "1", "-f", str(directory / "proxsmtpd"))
    spawned = {"spawned, `-c true`": (*ours, *WITH_FILTER)}
    for other in bench.beside:
        spawned[f"spawned, `-c true`: {other.name}"] = (*other.template, *WITH_FILTER)
    return Ways(spawned, servers)


@contextmanager
def running(command: list[str], at: Address) -> Iterator[int]:
    """Run a server in the foreground that listens on an address, and yield its PID."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"{command[0]} to listen", lambda: listens(at))
            yield server.pid
        finally:
            server.terminate()


def listens(at: Address) -> bool:
    """Return whether a server listens on a port, without connecting to it (/proc/net/tcp)."""
    host = "".join(f"{int(part):02X}" for part in reversed(at.host.split(".")))
    sockets = Path("/proc/net/tcp").read_text(encoding="ascii")
    return f"{host}:{at.port:04X} 00000000:0000 0A" in sockets


class Site:
    """A running Postfix with all paths."""

    def __init__(self, postfix: Postfix, pids: Mapping[str, int]) -> None:
        self._postfix = postfix
        self._pids = pids
        master = (postfix.directory / "queue/pid/master.pid").read_text(encoding="ascii")
        self._master = int(master)

    def send(self, way: str, load: Load) -> Spent:
        """Return the time for each message on this path."""
        roots = [self._master, *(self._pids[name] for name in (way,) if name in self._pids)]
        began = family(*roots)
        wall = self._submit(self._postfix.addresses[way], load)
        wait_for("the mail to be delivered", lambda: not self._postfix.in_transit(), LIMIT)
        wait_for("the proxies to end", lambda: not self._postfix.commands(), LIMIT)
        used = family(*roots) - began
        self._clear(load.messages)
        return Spent(used, wall).times(1 / load.messages)

    def _clear(self, messages: int) -> None:
        delivered = list((self._postfix.directory / "mail/all/new").iterdir())
        if len(delivered) != messages:
            raise BrokenDialogueError(f"{len(delivered)} of {messages} messages were delivered")
        for path in delivered:
            path.unlink()

    def _submit(self, front: Address, load: Load) -> float:
        began = time.perf_counter()
        done = subprocess.run(
            [
                str(program("smtp-source")),
                *("-s", str(load.sessions), "-m", str(load.messages), "-l", str(load.size)),
                *("-f", "sender@mail.test", "-t", "recipient@mail.test", str(front)),
            ],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if done.returncode:
            why = [line for line in self._postfix.log().splitlines() if "warning:" in line]
            raise BrokenDialogueError("\n".join([done.stderr, *why[-20:]]))
        return time.perf_counter() - began


@contextmanager
def site(bench: Bench) -> Iterator[tuple[Site, list[str]]]:
    """Start everything, and yield the site with the names of the paths."""
    with ExitStack() as stack:
        directory = stack.enter_context(public_directory("postprox-bench-path-"))
        spools = [directory / "spool", bench.directory / "spool"]
        for spool in spools:
            spool.mkdir(mode=0o700)
            shutil.chown(spool, USER)
        through = ways(bench, bench.directory)
        postfix = stack.enter_context(
            Postfix(directory, through.addresses(), through.services(spools[0]))
        )
        pids = {}
        for name, template in through.servers.items():
            at = postfix.addresses[f"to {name}"]
            (bench.directory / "proxsmtpd").write_text(
                PROXSMTPD.format(upstream=postfix.addresses["upstream"], proxy=at, spool=spools[1])
            )
            command = filled(template, postfix.addresses, name, spools[1])
            pids[name] = stack.enter_context(running(command, at))
        yield Site(postfix, pids), through.names


def not_runnable(command: str) -> str:
    """Return the reason why spawn(8) cannot run the proxy, or ""."""
    trial = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" --version', command],
        user=USER,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return f"user {USER} cannot run {command}; see --python and -d" if trial.returncode else ""


def measure(bench: Bench) -> Iterator[Measured]:
    """Run the benchmark."""
    if reason := missing() or not_runnable(bench.postprox.template[0]):
        raise NotHereError(reason)
    with site(bench) as (running_site, names):
        for load in LOADS:
            label = f"behind Postfix, {load.label}"
            sent = Comparison(f"path-{load.name}", label, ways=[Way(name=name) for name in names])
            part = replace(load, messages=bench.part(load.messages, load.sessions))
            for turn in bench.turns(7):
                for way in sent.ways:
                    taken = running_site.send(way.name, part)
                    if turn:
                        way.add(taken.times(1000))
            for way in sent.ways:
                if way.name in load.bars:
                    figure = Figure(label=f"{label}: {way.name} / unfiltered")
                    figure.at_most = load.bars[way.name]
                    yield figure.compare(way.rounds(), sent.ways[0].rounds())
            yield sent
