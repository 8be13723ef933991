"""Measures what a message costs on its whole path through a real Postfix, for each way to filter.

Rule: the processor time of all processes that handle a message is measured, from the smtpd(8) that
receives it to the file in a Maildir. The sender is not included. All ways with the same filter
run in turn, round by round, in the same Postfix.

Requires root and Postfix. `ways` lists the other programs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

from tests.postfix.devlog import DevLog, may_unshare
from tests.postfix.instance import (
    Address,
    Postfix,
    PostfixError,
    missing,
    public_directory,
    wait_for,
)

from . import ways
from .clock import Spent, descendants, family, memory
from .figures import Bench, Comparison, Figure, Measured
from .figures import Way as Taken
from .peers import LIMIT, BrokenDialogueError, NotHereError
from .sender import BEGINNING, SENDER, number_of, send, submit
from .ways import (
    LISTENING_AFTER,
    LISTENING_BEFORE,
    MARK,
    RELAY_BEFORE,
    SIMPLE_FILTER,
    SPAWNED_AFTER,
    TRUE,
    UNFILTERED,
    USER,
    Places,
    Way,
)

#: As in the recipes for Postfix (examples/postfix).
SERVICES = """{upstream} inet n - n - - smtpd
    -o smtpd_authorized_xforward_hosts=127.0.0.0/8
    -o smtpd_proxy_filter= -o content_filter=
    -o smtpd_recipient_restrictions=permit_mynetworks,reject
    -o smtpd_junk_command_limit=100000
    -o smtpd_soft_error_limit=10000
    -o smtpd_error_sleep_time=0
    -o receive_override_options=no_unknown_recipient_checks
scan unix - - n - 20 smtp
    -o smtp_send_xforward_command=yes -o disable_mime_output_conversion=yes
"""
#: Lets sendmail(1) use the instance, because it accepts only directories that the system's main.cf
#: lists, unless root starts it. The instance's mount namespace has another main.cf.
BIND = ("sh", "-c", 'mount --bind "$0" /etc/postfix/main.cf; exec "$@"')


@dataclass(frozen=True)
class Load:
    """The filter, the size and number of messages, and the number of messages under way."""

    filter: str
    size: int
    sessions: int
    messages: int
    rounds: int

    @property
    def name(self) -> str:
        """Return the name of the plot."""
        return f"path-{self.filter}-{SIZES[self.size].replace(' ', '')}-{self.sessions}".lower()

    @property
    def label(self) -> str:
        """Return the title of the table."""
        sessions = "one session" if self.sessions == 1 else f"{self.sessions} sessions"
        return f"{LABELS[self.filter]}, {SIZES[self.size]}, {sessions}"


SMALL, LARGE = 4096, 1 << 20
SIZES = {SMALL: "4 KB", LARGE: "1 MB"}
LABELS = {
    "script": "a shell script as filter",
    "python": "a Python script as filter",
    "clamdscan": "clamdscan as filter",
    "true": "`true` as filter",
}
LOADS = (
    Load("script", SMALL, 8, 200, 7),
    Load("script", SMALL, 1, 60, 3),
    Load("script", SMALL, 64, 256, 3),
    Load("script", LARGE, 8, 40, 3),
    Load("script", LARGE, 1, 20, 3),
    Load("script", LARGE, 64, 64, 2),
    Load("true", SMALL, 8, 200, 3),
    Load("python", SMALL, 8, 100, 3),
    Load("clamdscan", SMALL, 8, 100, 3),
)
#: Other programs that run any script as filter.
PEERS = ("proxsmtpd", "E-MailRelay", "Haraka")
#: A way that takes longer for one message is not measured. Some wait for a timeout.
TOO_SLOW = 10.0
#: Errors that exclude one way from a run.
BROKEN = (BrokenDialogueError, PostfixError, OSError)


class Site:
    """A running Postfix with all ways, and the programs that they require."""

    def __init__(self, postfix: Postfix, pids: Mapping[str, int], scanner: Sequence[int]) -> None:
        self._postfix = postfix
        self._pids = pids
        self._scanner = scanner
        self._maildir = postfix.directory / "mail/all/new"
        self._maildir.mkdir(parents=True)
        for path in (self._maildir, self._maildir.parent):
            shutil.chown(path, USER)
        master = (postfix.directory / "queue/pid/master.pid").read_text(encoding="ascii")
        self._master = int(master)
        self._next = 1  # the number of the next message

    def send(self, way: str, load: Load) -> tuple[Spent, list[float]]:
        """Return the time for each message on this way in seconds, and all latencies."""
        # A way that was excluded may still deliver messages, so no number is used twice.
        numbers = range(self._next, self._next + load.messages)
        self._next = numbers.stop
        roots = [self._master, *self._scanner, *self._servers(way)]
        began = family(*roots)
        sent = send(self._front(way), self._maildir, load.size, numbers, load.sessions)
        self._wait_quiet()
        used = family(*roots) - began
        delivered = sum(number_of(text) in numbers for text in self._delivered())
        if delivered != load.messages:
            raise BrokenDialogueError(f"{way}: {delivered} of {load.messages} were delivered")
        return Spent(used, sent.wall).times(1 / load.messages), sent.latencies

    def memory(self, way: str, load: Load) -> float:
        """Send messages, and return the largest memory of the filtering processes in MB."""
        peak, done = [0.0], threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peak.append(memory([*self._filtering(), *descendants(*self._servers(way))]))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            self.send(way, load)
        finally:
            done.set()
            watching.join()
        return max(peak)

    def check(self, way: Way) -> None:
        """Check that the way rejects a message with the mark."""
        began = time.perf_counter()
        reply = submit(self._front(way.name), 0, MARK.encode() + b"\r\n.\r\n")
        self._wait_quiet()
        if (seconds := time.perf_counter() - began) > TOO_SLOW:
            raise BrokenDialogueError(f"one message took {seconds:.0f} s")
        passed = [each for each in self._delivered() if SENDER in each.partition(b"\n")[0]]
        if passed:
            raise BrokenDialogueError(f"delivered a message that it must reject ({reply!r})")

    def discard(self) -> None:
        """Remove the mail that a broken way has left in the queue."""
        postsuper = [str(ways.found("postsuper")), "-c", str(self._postfix.directory / "etc")]
        subprocess.run([*postsuper, "-d", "ALL"], capture_output=True, check=False)

    def _front(self, way: str) -> Address:
        return self._postfix.addresses[way]

    def _servers(self, way: str) -> list[int]:
        return [self._pids[way]] if way in self._pids else []

    def _filtering(self) -> list[int]:
        """Return all processes below Postfix's daemons, which are the children of master(8)."""
        parents = descendants(self._master)
        return [pid for pid in parents if parents.get(parents[pid], 0) in parents]

    def _wait_quiet(self) -> None:
        wait_for("the mail to be delivered", lambda: not self._postfix.in_transit(), LIMIT)
        wait_for("the proxies to end", lambda: not self._filtering(), LIMIT)

    def _delivered(self) -> list[bytes]:
        """Remove the delivered messages, and return their beginnings."""
        beginnings = []
        for path in self._maildir.iterdir():
            with path.open("rb") as file:
                beginnings.append(file.read(BEGINNING))
            path.unlink()
        return beginnings


def listens(at: Address) -> bool:
    """Return whether a server listens on a port, without connecting to it (/proc/net/tcp)."""
    host = "".join(f"{int(part):02X}" for part in reversed(at.host.split(".")))
    sockets = Path("/proc/net/tcp").read_text(encoding="ascii")
    return f"{host}:{at.port:04X} 00000000:0000 0A" in sockets


@contextmanager
def running(command: list[str], at: Address | Path) -> Iterator[int]:
    """Run a server in the foreground until it listens on an address, and yield its PID."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:

        def ready() -> bool:
            if server.poll() is not None:
                raise BrokenDialogueError(f"it exited with status {server.returncode}")
            return at.exists() if isinstance(at, Path) else listens(at)

        try:
            wait_for("it to listen", ready, LIMIT)
            yield server.pid
        finally:
            server.terminate()


@contextmanager
def site(
    bench: Bench, filter_name: str, through: Sequence[Way], absent: dict[str, str]
) -> Iterator[Site]:
    """Start everything. Add the ways that do not work to `absent`, with the reasons."""
    with ExitStack() as stack:
        directory = stack.enter_context(public_directory("postprox-bench-path-"))
        files = stack.enter_context(public_directory("postprox-bench-files-", str(bench.directory)))
        for spool in (directory / "spool", files / "spool"):
            spool.mkdir(mode=0o700)
            shutil.chown(spool, USER)
        syslog = stack.enter_context(closing(DevLog(files / "dev")))
        scanner = [stack.enter_context(clamd(files))] if ways.found("clamd") else []
        filter_path = TRUE
        if text := ways.FILTERS[filter_name]:
            path = files / "filter"
            path.write_text(text.replace("{clamd.conf}", f"{files}/clamd.conf"), encoding="utf-8")
            path.chmod(0o755)
            filter_path = str(path)

        def places(addresses: Mapping[str, Address]) -> Places:
            return Places(directory, files, addresses, filter_path)

        def services(addresses: Mapping[str, Address]) -> str:
            lines = map(places(addresses).service, through)
            return SERVICES.format(upstream=addresses["upstream"]) + "".join(lines)

        main = files / "main.cf"
        main.write_text(f"alternate_config_directories = {directory}/etc\n", encoding="ascii")
        names = ["upstream", *(way.name for way in through), *(f"to {way.name}" for way in through)]
        wrapper = (*syslog.private_dev(), *BIND, str(main))
        postfix = stack.enter_context(Postfix(directory, names, services, wrapper=wrapper))
        at = places(postfix.addresses)
        pids = {}
        for way in through:
            at.write(way)
            if way.server:
                command = [*syslog.private_dev(), *at.command(way.server, way.name)]
                is_milter = way.options == ways.MILTER
                socket = at.own(way.name) / "socket"
                proxy = postfix.addresses[f"to {way.name}"]
                server = running(command, socket if is_milter else proxy)
                with excluded(absent, way.name):
                    pids[way.name] = stack.enter_context(server)
        yield Site(postfix, pids, scanner)


@contextmanager
def excluded(absent: dict[str, str], way: str) -> Iterator[None]:
    """Exclude a way that does not work from the run, with the reason."""
    try:
        yield
    except BROKEN as reason:
        absent[way] = f"{type(reason).__name__}: {reason}"


@contextmanager
def clamd(files: Path) -> Iterator[int]:
    """Run clamd(8) with a signature for the mark."""
    (files / "signatures").mkdir()
    (files / "signatures/benchmark.ndb").write_text(ways.SIGNATURE, encoding="ascii")
    conf = files / "clamd.conf"
    conf.write_text(ways.CLAMD_CONF.replace("{files}", str(files)), encoding="utf-8")
    with running([str(ways.found("clamd")), f"--config-file={conf}"], files / "clamd") as pid:
        yield pid


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
    if not may_unshare():
        raise NotHereError("requires unshare(1) with --mount")
    if reason := missing() or not_runnable(bench.postprox.template[0]):
        raise NotHereError(reason)
    loads = LOADS if bench.divisor == 1 else LOADS[:1]
    for filter_name in dict.fromkeys(load.filter for load in loads):
        through = [way for way in ways.ways(bench) if filter_name in way.filters]
        absent = {way.name: way.absent() for way in through if way.absent()}
        through = [way for way in through if way.name not in absent]
        with site(bench, filter_name, through, absent) as running_site:
            for way in through:
                if way.tests and filter_name != "true" and way.name not in absent:
                    with excluded(absent, way.name):
                        running_site.check(way)
            for load in loads:
                if load.filter == filter_name:
                    sent = compared(bench, running_site, load, through, absent)
                    yield from bars(sent) if load is LOADS[0] else ()
                    yield sent


def compared(
    bench: Bench, running_site: Site, load: Load, through: Sequence[Way], absent: dict[str, str]
) -> Comparison:
    """Send messages on all ways in turn. Round 0 measures the memory."""
    part = replace(load, messages=bench.part(load.messages, load.sessions))
    absent = dict(absent)
    taken = [Taken(name=way.name, reference=way.reference) for way in through]
    latencies: dict[str, list[float]] = {way.name: [] for way in taken}
    for turn in bench.turns(load.rounds):
        print(f"measuring {load.label}, round {turn} …", file=sys.stderr, flush=True)
        for way in taken:
            if way.name in absent:
                continue
            with excluded(absent, way.name):
                if turn:
                    spent, late = running_site.send(way.name, part)
                    way.add(spent.times(1000))
                    latencies[way.name] += late
                else:
                    way.memory = running_site.memory(way.name, part)
            if way.name in absent:
                running_site.discard()
    done = [way for way in taken if way.name not in absent]
    for way in done:
        late = latencies[way.name]
        latest = quantiles(late, n=100, method="inclusive")[-1]
        way.latency = [1000 * median(late), 1000 * latest]
    return Comparison(load.name, load.label, ways=done, absent=absent)


def bars(sent: Comparison) -> Iterator[Figure]:
    """Yield the ratios that have a limit, as far as their ways were measured."""
    rounds = {way.name: way.rounds() for way in sent.ways}

    def ratio(way: str, other: str, at_most: float, less: str = "") -> Iterator[Figure]:
        if not {way, other, less or way} <= rounds.keys():
            return
        label, numerator = way, rounds[way]
        if less:
            label = f"({way} - relay)"
            numerator = [one.less(own) for one, own in zip(numerator, rounds[less], strict=True)]
        figure = Figure(label=f"{label} / {other}", at_most=at_most)
        yield figure.compare(numerator, rounds[other])

    yield from ratio(LISTENING_BEFORE, UNFILTERED, 1.0, less=RELAY_BEFORE)
    yield from ratio(LISTENING_BEFORE, SIMPLE_FILTER, 0.36)
    yield from ratio(LISTENING_AFTER, SIMPLE_FILTER, 0.45)
    yield from ratio(SPAWNED_AFTER, SIMPLE_FILTER, 0.5)
    peers = [way for way in sent.ways if way.name.startswith(PEERS)]
    if peers:
        cheapest = min(peers, key=lambda way: median(way.samples)).name
        yield from ratio(LISTENING_BEFORE, cheapest, 0.75)
