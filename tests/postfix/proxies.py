"""The proxy as an administrator installs it, spawned by Postfix as the user nobody.

A launcher in the instance's directory runs a copy of the package, because the unprivileged user may
be unable to read the checkout. The filter command runs a test's script, which is named after the
first recipient. A test calls `box = proxy.box("exit 1")` and sends mail to `box.address`. Each
filter run records its variables.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import postprox

from .instance import Address, Postfix, PostfixError, wait_for

USER, GROUP = "nobody", "nogroup"
DOMAIN = "mail.test"

#: The options of the smtpd(8) services for the test client. `{proxy}` is the proxy's address.
FRONTS = {
    "before": "-o smtpd_proxy_filter={proxy}",
    "adjusted": "-o smtpd_proxy_filter={proxy} -o smtpd_proxy_options=speed_adjust",
    "impatient": "-o smtpd_proxy_filter={proxy} -o smtpd_proxy_timeout=1s",
    "small": "-o smtpd_proxy_filter={proxy} -o message_size_limit=100000",
    "after": "-o content_filter=scan:{proxy}",
    "cached": "-o content_filter=cached:{proxy}",
    "lmtp": "-o content_filter=lmtp:{proxy}",
}

BOTH = ("before", "after")


@dataclass(frozen=True)
class Variant:
    """A spawn(8) service: the proxy's options, its smtpd(8) services and its upstream."""

    options: str
    ways: tuple[str, ...] = BOTH
    upstream: str = "upstream"
    #: The maximum number of proxies that spawn(8) runs at once.
    limit: int = 20
    #: The speed of the proxy's clock, relative to real time.
    speed: int = 1


VARIANTS = {
    "open": Variant("-v", tuple(FRONTS)),
    "strict": Variant("-v -r"),
    "hasty": Variant("-v -t 0.5"),
    "hasty-strict": Variant("-v -r -t 0.5"),
    "spoolless": Variant("-v -d /nonexistent"),
    "cut-off": Variant("-v", upstream="nowhere"),
    "misconfigured": Variant("-v -t never"),
    "narrow": Variant("-v", ("before", "impatient", "after"), limit=1),
    "fast-clock": Variant("-v -t 6000", ("before", "adjusted"), speed=100),
    "ipv6": Variant("-v", ("before", "adjusted", "after"), upstream="ipv6_upstream"),
}

CLIENT_OPTIONS = """
    -o smtp_send_xforward_command=yes
    -o disable_mime_output_conversion=yes
    -o smtp_generic_maps=
"""

#: The manual's smtpd(8) after the proxy, with refusals at every stage. It accepts a bare LF as a
#: line end, as older versions of Postfix do, so that smuggling would be visible.
UPSTREAM_OPTIONS = """
    -o syslog_name=postfix/upstream
    -o smtpd_authorized_xforward_hosts=127.0.0.0/8,[::1]/128
    -o smtpd_client_restrictions=
    -o smtpd_helo_restrictions=
    -o smtpd_sender_restrictions=
    -o { smtpd_recipient_restrictions =
         check_recipient_access inline:{refused@mail.test=REJECT}, permit_mynetworks, reject }
    -o { smtpd_data_restrictions =
         check_sender_access inline:{refused-at-data@mail.test=REJECT} }
    -o { smtpd_end_of_data_restrictions =
         check_sender_access inline:{refused-at-end@mail.test=REJECT} }
    -o smtpd_junk_command_limit=100000
    -o smtpd_soft_error_limit=10000
    -o smtpd_error_sleep_time=0
    -o smtpd_proxy_filter=
    -o smtpd_forbid_bare_newline=no
    -o mynetworks=127.0.0.0/8,[::1]/128
    -o receive_override_options=no_unknown_recipient_checks
"""

NEW_ENOUGH = "import sys; sys.exit(sys.version_info < (3, 11))"

LAUNCHER = """\
#!{python} -IS
import sys

sys.path.insert(0, "{library}")
from postprox.__main__ import main

sys.exit(main())
"""

DISPATCH = """\
#!/bin/sh
name=${{RECIPIENT%@*}}
printf '%s\\n' "$SENDER" "$RECIPIENT" "$REMOTEIP" "$HELO" >"{directory}/runs/$name.$$.new"
mv "{directory}/runs/$name.$$.new" "{directory}/runs/$name.$$"
. "{directory}/filters/$name"
"""


@dataclass(frozen=True)
class Run:
    """The input of a filter run."""

    sender: str
    recipient: str
    remote_ip: str
    helo: str


@dataclass(frozen=True)
class Box:
    """A recipient that only one test uses, with its own filter script."""

    name: str
    runs_directory: Path

    @property
    def address(self) -> str:
        return f"{self.name}@{DOMAIN}"

    @property
    def sender(self) -> str:
        """A unique sender, which identifies bounces."""
        return f"{self.name}-sender@{DOMAIN}"

    def runs(self) -> list[Run]:
        """Return all filter runs so far."""
        records = (p for p in self.runs_directory.glob(f"{self.name}.*") if p.suffix != ".new")
        return [Run(*record.read_text().split("\n")[:4]) for record in records]

    def wait_run(self) -> Run:
        """Wait for the filter to run. Return its only run."""
        (run,) = wait_for(f"the filter of {self.address} to run", self.runs)
        return run


@functools.cache
def interpreter() -> str | None:
    """Return a Python interpreter that the unprivileged user may run: this one or the system's."""
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        python = os.path.realpath(candidate)
        with contextlib.suppress(OSError):
            if as_nobody(python, "-IS", "-c", NEW_ENOUGH).returncode == 0:
                return python
    return None


def no_interpreter() -> str:
    """Return the reason why the proxy cannot run as the unprivileged user, or an empty string."""
    if interpreter():
        return ""
    return f"user {USER} may run neither {sys.executable} nor a system Python >= 3.11"


def as_nobody(*command: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command as the proxy's user."""
    return subprocess.run(
        command, user=USER, group=GROUP, extra_groups=[], cwd="/", capture_output=True, check=False
    )


@functools.cache
def compiled_package(python: str) -> dict[Path, bytes]:
    """Return the package's files with byte code that does not depend on modification times."""
    (package,) = postprox.__path__
    with tempfile.TemporaryDirectory(prefix="postprox-compiled-") as name:
        directory = Path(name)
        ignored = shutil.ignore_patterns("__pycache__")
        copy = shutil.copytree(package, directory / "postprox", ignore=ignored)
        mode = "--invalidation-mode=unchecked-hash"
        subprocess.run([python, "-m", "compileall", "-q", mode, copy], check=True)
        files = [path for path in copy.rglob("*") if path.is_file()]
        return {path.relative_to(directory): path.read_bytes() for path in files}


class Installation:
    """A directory with the proxy, its spool and its filters, and the master.cf services for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = directory / "spool"
        self._numbers = itertools.count(1)
        for name in ("lib", "bin", "filters", "runs", "spool"):
            (directory / name).mkdir(mode=0o755)
        for name in ("runs", "spool"):
            shutil.chown(directory / name, USER, GROUP)
        self.spool.chmod(0o700)
        self.launcher = self._install()
        self.dispatch = self.executable("dispatch", DISPATCH.format(directory=directory))

    def _install(self) -> Path:
        python = interpreter()
        assert python is not None, no_interpreter()
        library = self.directory / "lib"
        # As in an installation, the byte code exists already, because the user cannot write it.
        for name, content in compiled_package(python).items():
            (library / name).parent.mkdir(parents=True, exist_ok=True)
            (library / name).write_bytes(content)
        for path in (library / "postprox").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (library / "postprox").chmod(0o755)
        launcher = self.executable("postprox", LAUNCHER.format(python=python, library=library))
        trial = as_nobody(str(launcher), "--version")
        if trial.returncode:
            raise PostfixError(f"the installed proxy does not run: {trial.stderr.decode()}")
        return launcher

    def executable(self, name: str, text: str) -> Path:
        """Write a program that every user may run. Return its path."""
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def names(self) -> list[str]:
        """Return the names of all addresses, including `nowhere` (an address without a server)."""
        names = ["upstream", "ipv6_upstream", "nowhere"]
        for name, variant in VARIANTS.items():
            names += [f"{name}_proxy", *(f"{name}_{way}" for way in variant.ways)]
        return names

    def services(self, addresses: Mapping[str, Address]) -> str:
        """Return the master.cf lines for upstream, the smtp(8) clients and all proxy variants."""
        cache = "    -o smtp_connection_cache_destinations=static:all\n"
        lines = [
            f"{addresses['upstream']} inet n - n - - smtpd{UPSTREAM_OPTIONS}",
            f"{addresses['ipv6_upstream']} inet n - n - - smtpd{UPSTREAM_OPTIONS}",
            f"scan unix - - n - 20 smtp{CLIENT_OPTIONS}",
            f"cached unix - - n - 1 smtp{CLIENT_OPTIONS}{cache}",
            "lmtp unix - - n - - lmtp\n",
        ]
        for name, variant in VARIANTS.items():
            proxy = addresses[f"{name}_proxy"]
            clock = f"/usr/bin/env POSTPROX_CLOCK_SPEED={variant.speed} "
            command = f"{clock if variant.speed > 1 else ''}{self.launcher}"
            lines += [
                f"{proxy} inet n n n - {variant.limit} spawn\n",
                f"    user={USER} argv={command} -d {self.spool} -c {self.dispatch}",
                f" {variant.options} {addresses[variant.upstream]}\n",
            ]
            for way in variant.ways:
                options = FRONTS[way].format(proxy=proxy)
                lines.append(f"{addresses[f'{name}_{way}']} inet n - n - - smtpd {options}\n")
        return "".join(lines)

    def box(self, script: str) -> Box:
        """Return a new recipient whose mail is filtered by the shell script."""
        # Postfix sorts recipients after the queue. These names sort in the order of their numbers.
        box = Box(f"box{next(self._numbers):04}", self.directory / "runs")
        self.rewrite(box, script)
        return box

    def gated_box(self) -> tuple[Box, Path]:
        """Return a recipient and a named pipe. The filter waits for a write to the pipe."""
        gate = self.directory / "runs" / f"gate{next(self._numbers)}"
        os.mkfifo(gate)
        gate.chmod(0o666)
        return self.box(f'read -r go <"{gate}"'), gate

    def rewrite(self, box: Box, script: str) -> None:
        """Replace the filter script for the recipient."""
        (self.directory / "filters" / box.name).write_text(script + "\n")

    def wait_clean(self, postfix: Postfix) -> None:
        """Wait until all proxies and filters have exited, and check that the spool is empty."""
        wait_for("the proxies to end", lambda: not postfix.commands())
        left = list(self.spool.iterdir())
        if left:
            raise PostfixError(f"left in the spool directory: {left}")
