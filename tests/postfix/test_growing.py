"""docs/growing.md: HAProxy with the page's configuration, and two proxies on one port.

Each machine behind HAProxy fails in turn. The tests replace addresses as in recipe.py. All machines
run on this host, so their addresses in Postfix's configuration become 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.client import Reply
from tests.support.peers import connected, listening
from tests.support.proxies import activated
from tests.support.upstream import Upstream, greeted

from . import readme
from .client import connect_from, message
from .devlog import DevLog, may_unshare
from .instance import PATIENCE, Address, Postfix, public_directory, wait_for
from .proxies import GROUP, USER, Box, Installation
from .recipe import BEFORE, own_names, renamed, unit_command

PAGE = (Path(__file__).parents[2] / "docs/growing.md").read_text()
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
((CONFIGURATION),) = re.findall(r"(?ms)^```haproxy\n(.*?)^```$", PAGE)
_, LISTEN = re.findall(r"(?ms)^```systemd\n(.*?)^```$", PAGE)
CHANGED = dict(re.findall(r"(?m)^\| `([\d./:]+)` \| `([\d.,:]+)` \|$", PAGE))
NAMES = ("smtp", "proxy", "filter1", "filter2", "filtered")
OUTSIDE = "192.0.2.1"

pytestmark = pytest.mark.usefixtures("needs_postfix")


@pytest.fixture(scope="module", autouse=True)
def _needs_haproxy() -> None:
    if HAPROXY is None:
        pytest.skip("HAProxy is not installed (Debian: apt-get install haproxy)")


def own_places(addresses: Mapping[str, Address]) -> dict[str, str]:
    """Return the replacements for the page's addresses."""
    return {
        r"192\.0\.2\.21,192\.0\.2\.22": "127.0.0.1",
        r"\b192\.0\.2\.21:10025\b": str(addresses["filter1"]),
        r"\b192\.0\.2\.22:10025\b": str(addresses["filter2"]),
        r"\b192\.0\.2\.10:10026\b": str(addresses["filtered"]),
        r"\b127\.0\.0\.1:10025\b": str(addresses["proxy"]),
    }


def as_the_page_says(text: str) -> str:
    """Return the README's Postfix configuration with the changes that the page describes."""
    for printed, instead in CHANGED.items():
        text = text.replace(printed, instead)
    return text


class Machine:
    """A filtering machine: a proxy whose spool directory identifies the machine."""

    def __init__(self, line: str, address: Address, wrapper: list[str], spool: Path) -> None:
        self.spool = spool
        self._command = [*shlex.split(line), "-d", str(spool)]
        self._address = address
        self._wrapper = wrapper
        spool.mkdir(mode=0o700)
        shutil.chown(spool, USER, GROUP)
        self.start()

    def start(self) -> None:
        """Start the proxy on the machine's port, on which no server listens after a failure."""
        with socket.create_server(self._address) as listener:
            as_user = ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"]
            command = [*self._wrapper, *activated(*as_user, *self._command)]
            self.process = subprocess.Popen(command, stdin=listener.fileno(), cwd="/")

    def fail(self) -> None:
        """Simulate a power failure by killing the proxy and its filters."""
        pid = self.process.pid
        filters = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self.process.kill()
        self.process.wait(PATIENCE)
        for leader in filters:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(leader), signal.SIGKILL)

    def stop(self) -> None:
        """Stop the proxy with SIGTERM."""
        self.process.terminate()
        self.process.wait(PATIENCE)


@dataclass(frozen=True)
class Grown:
    """A site with a load balancer and two filtering machines."""

    postfix: Postfix
    installation: Installation
    machines: tuple[Machine, Machine]
    syslog: DevLog | None

    def send(self, box: Box) -> Reply:
        with connect_from(self.postfix.addresses["smtp"], OUTSIDE) as session:
            return session.transact(box.sender, [box.address], message("grown"))

    def box(self, script: str = "exit 0") -> tuple[Box, Path]:
        """Return a recipient and the file to which its filter writes the spool directories."""
        box = self.installation.box("")
        note = self.installation.directory / "runs" / f"{box.name}-spools"
        self.installation.rewrite(box, f'dirname "$EMAIL" >>{note}\n{script}')
        return box, note


@contextlib.contextmanager
def balancer(configuration: str, directory: Path) -> Iterator[None]:
    """Run HAProxy."""
    file = directory / "haproxy.cfg"
    file.write_text(configuration)
    process = subprocess.Popen(
        [str(HAPROXY), "-db", "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextlib.contextmanager
def running(edit: Callable[[str], str] = lambda text: text) -> Iterator[Grown]:
    """Run the page's setup. `edit` changes HAProxy's configuration."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(public_directory("postprox-growing-"))
        installation = Installation(directory)
        names = own_names(installation.launcher, installation.dispatch, installation.spool)
        syslog = None
        if may_unshare():
            syslog = stack.enter_context(contextlib.closing(DevLog(directory / "dev")))

        def services(addresses: Mapping[str, Address]) -> str:
            text = as_the_page_says(readme.master_cf(BEFORE))
            (back,) = re.findall(r"(?ms)^192\.0\.2\.10:10026 inet .*?(?=^\S(?<!#)|\Z)", text)
            front = f"{addresses['smtp']} inet n - n - - smtpd\n"
            return front + renamed(back, own_places(addresses))

        def settings(addresses: Mapping[str, Address]) -> str:
            return renamed(readme.main_cf(BEFORE), own_places(addresses))

        postfix = stack.enter_context(Postfix(directory, NAMES, services, settings))
        places = own_places(postfix.addresses)
        assert LISTEN.startswith("[Socket]\n")
        (upstream,) = re.findall(r'(?m)^POSTPROX_UPSTREAM="(.+)"$', PAGE)
        line = unit_command().replace("127.0.0.1:10026", upstream)
        wrapper = syslog.private_dev() if syslog else []
        machines = tuple(
            Machine(
                renamed(line, names | places),
                postfix.addresses[name],
                wrapper,
                directory / f"{name}-spool",
            )
            for name in ("filter1", "filter2")
        )
        for machine in machines:
            stack.callback(machine.stop)
        stack.enter_context(balancer(renamed(edit(CONFIGURATION), places), directory))
        wait_for("HAProxy", lambda: answers(postfix.addresses["proxy"]))
        first, second = machines
        yield Grown(postfix, installation, (first, second), syslog)


def answers(address: Address) -> bool:
    """Return whether a server sends a greeting."""
    with contextlib.suppress(OSError), connected(address, 5) as client:
        return client.line().startswith(b"220 ")
    return False


@pytest.fixture
def grown() -> Iterator[Grown]:
    with running() as site:
        yield site


def test_haproxy_accepts_configuration(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(CONFIGURATION)
    checked = subprocess.run(
        [str(HAPROXY), "-dW", "-c", "-f", str(file)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_filters_on_both_machines_receive_remote_address(grown: Grown) -> None:
    box, note = grown.box()
    for _ in range(6):
        assert grown.send(box)[0] == 250
    spools = set(note.read_text().split())
    assert spools == {str(machine.spool) for machine in grown.machines}
    assert {run.remote_ip for run in box.runs()} == {OUTSIDE}
    grown.postfix.wait_quiet()
    assert len(grown.postfix.delivered(box.address)) == 6


@pytest.mark.parametrize("which", [0, 1])
def test_no_message_is_lost_if_machine_fails(grown: Grown, which: int) -> None:
    box, note = grown.box()
    grown.machines[which].fail()
    assert [grown.send(box)[0] for _ in range(6)] == [250] * 6
    assert set(note.read_text().split()) == {str(grown.machines[1 - which].spool)}
    grown.postfix.wait_quiet()
    assert len(grown.postfix.delivered(box.address)) == 6


def test_message_is_delivered_exactly_once_despite_machine_failure(grown: Grown) -> None:
    gate = grown.installation.directory / "runs/gate"
    box, note = grown.box(f"[ -e {gate} ] && exit 0; touch {gate}; sleep 600")
    with ThreadPoolExecutor() as clients:
        reply = clients.submit(grown.send, box)
        wait_for("the filter", gate.exists)
        spool = note.read_text().strip()
        (broken,) = (machine for machine in grown.machines if str(machine.spool) == spool)
        broken.fail()
        assert reply.result()[0] == 451
    assert grown.send(box)[0] == 250
    grown.postfix.wait_quiet()
    assert len(grown.postfix.delivered(box.address)) == 1


def test_no_message_is_delivered_if_all_machines_fail(grown: Grown) -> None:
    box, _ = grown.box()
    for machine in grown.machines:
        machine.fail()
    assert grown.send(box)[0] == 451
    assert grown.postfix.delivered(box.address) == []


def test_recovered_machine_filters_again() -> None:
    with running(lambda text: text.replace("downinter 5s", "downinter 50ms")) as grown:
        box, note = grown.box()
        back = grown.machines[0]
        back.fail()
        grown.send(box)
        back.start()

        def at_work() -> bool:
            assert grown.send(box)[0] == 250
            return str(back.spool) in note.read_text().split()

        wait_for("the recovered machine to filter", at_work)


def test_health_checks_are_not_logged_by_proxy() -> None:
    with running(lambda text: text.replace("inter 60s", "inter 50ms")) as grown:
        if grown.syslog is None:
            pytest.skip("a private /dev/log requires a mount namespace, which is not permitted")
        wait_for("health checks", lambda: grown.postfix.log().count("disconnect from") > 5)
        box, _ = grown.box()
        grown.send(box)
        wait_for("the message's line", lambda: grown.syslog and grown.syslog.lines)
        assert [line for line in grown.syslog.lines if "verdict=" not in line] == []


def test_two_proxies_share_one_port() -> None:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(public_directory("postprox-shared-"))
        upstream = Upstream(stack.enter_context(listening()))
        stack.callback(upstream.closes)
        launcher = Installation(directory).launcher
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=True))
        address = first.getsockname()
        second = stack.enter_context(socket.create_server(address, reuse_port=True))
        proxies = []
        for listener in (first, second):
            command = activated(str(launcher), "-l", "1", "--foreground", upstream.address)
            proxy = subprocess.Popen(command, stdin=listener.fileno(), cwd="/")
            stack.callback(proxy.wait, PATIENCE)
            stack.callback(proxy.terminate)
            proxies.append(proxy.pid)
        served: set[int] = set()

        def both() -> bool:
            peer = greeted(stack.enter_context(connected(address)), upstream)
            _, theirs = peer.socket.getpeername()
            served.update(pid for pid in proxies if theirs in ports(pid))
            return served == set(proxies)

        wait_for("both proxies to receive clients", both)


def ports(pid: int) -> set[int]:
    """Return the local ports of a process's TCP connections."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.update(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
    rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {int(row[1].partition(":")[2], 16) for row in rows if row[9] in inodes}
