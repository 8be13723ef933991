"""Tests of the proxy under runit, s6 and supervisord with the files in docs/containers.md.

Rule: only paths, ports and the user are replaced.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postfix.devlog import may_unshare
from tests.postfix.instance import public_directory
from tests.support.answering import Answering
from tests.support.peers import TIMEOUT, listening
from tests.support.proxies import wait_for_end

from .containerfile import ROOT
from .page import block, commands, section

USER = "nobody"
PYTHON = "/usr/bin/python3"
HEADING = "runit, s6 and supervisord"
SV, S6_SVC, SUPERVISORCTL = commands(HEADING)

#: The supervisor is process 1, so its services are killed when it exits.
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")

FILTER = """#!/bin/sh
case $SENDER in slow*) : > {here}/spool/started; sleep 0.7;; esac
"""
#: Debian's configuration without a log section.
SUPERVISORD = """
[unix_http_server]
file={here}/supervisor.sock

[supervisord]
logfile={here}/supervisord.log
pidfile={here}/supervisord.pid
childlogdir={here}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{here}/supervisor.sock

[include]
files = {here}/conf.d/*.conf
"""


class Supervised:
    """A supervisor and the proxy that it runs.

    service: the text of the documented file.
    """

    def __init__(self, here: Path, upstream: Answering) -> None:
        self.here = here
        with listening() as free:
            self.port = free.getsockname()[1]
        self._places = {
            "/usr/local/sbin/postprox": f"{here}/postprox",
            "/usr/local/bin/mail-filter": f"{here}/filter",
            "/var/spool/postprox": f"{here}/spool",
            "127.0.0.1:10026": upstream.address,
            "-l 10025": f"-l {self.port}",
            "-u postprox": f"-u {USER}",
            "setuidgid postprox": f"setuidgid {USER}",
            "user=postprox": f"user={USER}",
            "/run/service": f"{here}/services",
        }
        self._environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        self.process: subprocess.Popen[bytes] | None = None

    def printed(self, text: str) -> str:
        """Return a documented file or command, adapted to this directory."""
        for printed, here in self._places.items():
            text = text.replace(printed, here)
        return text

    def service(self, text: str) -> None:
        """Write the service's `run` file."""
        run = self.here / "services/postprox/run"
        run.parent.mkdir(parents=True)
        run.write_text(self.printed(text))
        run.chmod(0o755)

    def start(self, *command: str) -> None:
        with (self.here / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*NAMESPACE, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        self.wait_greeting()

    def process_id(self, pid: int) -> int:
        """Return the host's ID of the process that has ID `pid` in the supervisor's namespace."""
        assert self.process
        namespace = Path(f"/proc/{self.process.pid}/ns/pid_for_children").readlink()
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                numbers = re.findall(r"(?m)^NSpid:.*\t(\d+)$", (directory / "status").read_text())
                if numbers == [str(pid)] and (directory / "ns/pid").readlink() == namespace:
                    return int(directory.name)
        pytest.fail(f"there is no process {pid}")

    def stop(self) -> None:
        """Kill all processes in the namespace."""
        if self.process:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
            self.process.wait(TIMEOUT)

    def run(self, command: str, **variables: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-ec", self.printed(command)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=TIMEOUT,
            env={**self._environment, **variables},
        )
        return done.stdout

    def wait_greeting(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not self._greets():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _greets(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), TIMEOUT) as client,
        ):
            return client.recv(100).startswith(b"220")
        return False

    def send(self, sender: str) -> None:
        """Send a message that must be accepted."""
        client = smtplib.SMTP("127.0.0.1", self.port, timeout=TIMEOUT)
        client.sendmail(sender, ["b@example"], "Subject: x\n\nbody\n")
        client.close()  # a proxy that is shutting down would reply 421 to QUIT

    def log(self) -> str:
        return (self.here / "log").read_text()


def wait_for_new(seen: set[int], log: Callable[[], str]) -> int:
    """Wait until another process has logged a message, and return its ID."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found = set(map(int, re.findall(r"postprox\[(\d+)\]: verdict=accept", log()))) - seen
        if found:
            (pid,) = found
            seen.add(pid)
            return pid
        time.sleep(0.05)
    pytest.fail(f"no new process in {log()}")


def exercise(supervised: Supervised, restart: Callable[[], object], log: Callable[[], str]) -> None:
    """Restart the proxy during a filter run, and then kill the proxy. No mail may be lost."""
    seen: set[int] = set()
    slow = threading.Thread(target=supervised.send, args=("slow@example",))
    slow.start()
    deadline = time.monotonic() + TIMEOUT
    while not (supervised.here / "spool/started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    restart()
    slow.join()
    first = wait_for_new(seen, log)  # the slow message was accepted
    assert "verdict=fail" not in log()
    supervised.wait_greeting()
    supervised.send("a@example")
    second = wait_for_new(seen, log)
    assert second != first
    proxy = supervised.process_id(second)
    assert Path(f"/proc/{proxy}").stat().st_uid == pwd.getpwnam(USER).pw_uid
    os.kill(proxy, signal.SIGKILL)
    wait_for_end(proxy)
    supervised.wait_greeting()
    supervised.send("a@example")
    wait_for_new(seen, log)


@pytest.fixture
def supervised(answering: Answering) -> Iterator[Supervised]:
    if os.geteuid() != 0 or not Path(PYTHON).exists() or not may_unshare():
        pytest.skip("root, namespaces and Debian's python3 are required")
    with public_directory("postprox-supervised-") as here:
        shutil.copytree(ROOT / "postprox", here / "lib/postprox")
        (here / "postprox").write_text(
            f'#!/bin/sh\nPYTHONPATH={here}/lib exec {PYTHON} -B -m postprox "$@"\n'
        )
        (here / "filter").write_text(FILTER.format(here=here))
        (here / "spool").mkdir()
        shutil.chown(here / "spool", USER)
        for name in ("postprox", "filter"):
            (here / name).chmod(0o755)
        supervised = Supervised(here, answering)
        try:
            yield supervised
        finally:
            supervised.stop()


def needs(*programs: str) -> None:
    """Skip the test if a program is not installed."""
    if missing := [program for program in programs if not shutil.which(program)]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def test_runit_restarts_proxy_without_loss(supervised: Supervised) -> None:
    needs("runsvdir", "chpst", "sv")
    supervised.service(block("sh", "`/etc/service/postprox/run`:"))
    services = supervised.here / "services"
    supervised.start("runsvdir", str(services))
    exercise(supervised, lambda: supervised.run(SV, SVDIR=str(services)), supervised.log)


def test_s6_restarts_proxy_without_loss(supervised: Supervised) -> None:
    needs("s6-svscan", "s6-setuidgid", "s6-svc")
    supervised.service(block("sh", "`/run/service/postprox/run`:"))
    services = supervised.here / "services"
    supervised.start("s6-svscan", str(services))
    exercise(supervised, lambda: supervised.run(S6_SVC), supervised.log)


def test_supervisord_restarts_proxy_without_loss(supervised: Supervised) -> None:
    needs("supervisord", "supervisorctl")
    here = supervised.here
    (here / "conf.d").mkdir()
    text = block("ini", "`/etc/supervisor/conf.d/postprox.conf`:")
    (here / "conf.d/postprox.conf").write_text(supervised.printed(text))
    configuration = here / "supervisord.conf"
    configuration.write_text(SUPERVISORD.format(here=here))
    supervised.start("supervisord", "-n", "-c", str(configuration))

    def control(command: str) -> str:
        return supervised.run(command.replace("supervisorctl", f"supervisorctl -c {configuration}"))

    (tail,) = re.findall(r"`(supervisorctl tail [^`]+)`", section(HEADING))
    (log,) = here.glob("postprox-stderr---*.log")
    exercise(supervised, lambda: control(SUPERVISORCTL), log.read_text)
    assert control(tail).strip() == log.read_text()[-1600:].strip()
