"""postprox-check with real configurations: it accepts the README's and reports each mistake."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from postprox.check import __main__ as postprox_check
from postprox.check import proxy_rules, values
from postprox.check.probe import accounts

from . import readme
from .instance import MASTER_CF, PROGRAMS, public_directory
from .proxies import GROUP, USER
from .recipe import AFTER, BEFORE, LISTENING, SPAWNED, master_cf, own_names, renamed, unit_command

pytestmark = pytest.mark.usefixtures("needs_postfix")

PACKAGED_UNIT = readme.README.parent / "packaging/postprox.service"

#: A site without a proxy: it has a signing milter and accepts mail on port 25.
MAIN_CF = """
compatibility_level = 3.6
smtpd_milters = inet:127.0.0.1:8891
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
"""
FRONT = "smtp inet n - n - - smtpd\n"

Edit = Callable[[str], str]


@dataclass(frozen=True)
class Said:
    """The command's exit status and output."""

    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """The output as one line."""
        return " ".join(self.output.split())

    def names(self) -> set[str]:
        """Return the names of the findings."""
        return set(re.findall(r"\[([a-z-]+)\]$", self.output, re.M))

    def remedies(self) -> list[str]:
        """Return the commands that remove the findings. A command can have several lines."""
        return re.findall(r"^    ((?:.+\\\n)*.+)$", self.output, re.M)


class Machine:
    """The files of a mail server that is not running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.launcher = self._program("postprox")
        self.filter = self._program("mail-filter")
        self.spool = directory / "spool"
        self.spool.mkdir(mode=0o700)
        shutil.chown(self.spool, USER, GROUP)
        self.etc = directory / "etc"
        self.etc.mkdir()

    def _program(self, name: str) -> Path:
        path = self.directory / name
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(0o755)
        return path

    def named(self, text: str) -> str:
        """Return the README's text with this machine's paths and user name."""
        return renamed(text, own_names(self.launcher, self.filter, self.spool))

    def write(self, mode: str, proxy: str, main: Edit, master: Edit) -> None:
        """Write the README's configuration with changes to its text."""
        settings = main(readme.main_cf(mode))
        services = master(FRONT + master_cf(mode, proxy))
        (self.etc / "main.cf").write_text(MAIN_CF + self.named(settings))
        (self.etc / "master.cf").write_text(self.named(services) + MASTER_CF)

    def unit(self, line: str) -> Path:
        """Write the packaged unit with the README's drop-in for this machine's user."""
        path = self.directory / "postprox.service"
        shutil.copy(PACKAGED_UNIT, path)
        drop_in = self.directory / "postprox.service.d/local.conf"
        drop_in.parent.mkdir(exist_ok=True)
        drop_in.write_text(f"[Service]\nUser={USER}\nExecStart=\nExecStart={self.named(line)}\n")
        return path

    def check(self, *arguments: str) -> Said:
        """Run postprox-check on this machine's files."""
        main_cf = self.etc / "main.cf"
        if main_cf.exists():
            # postconf(1) waits until main.cf is some seconds old.
            os.utime(main_cf, (0, 0))
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            status = postprox_check.run(["--config", str(self.etc), "--offline", *arguments])
        return Said(status, output.getvalue(), errors.getvalue())

    def run(self, commands: Iterable[str]) -> None:
        """Run the printed commands."""
        for command in commands:
            subprocess.run(["/bin/sh", "-ec", command], env={"PATH": PROGRAMS}, check=True)


@pytest.fixture
def machine(needs_postfix: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    # The spool belongs to this machine's user, as it belongs to postprox in the recipe.
    monkeypatch.setattr(accounts, "OWN_USER", USER)
    monkeypatch.setattr(proxy_rules, "_OWN_USER", USER)
    # A unit with PrivateTmp= cannot see files in /tmp.
    with public_directory("postprox-check-", "/var/lib") as directory:
        yield Machine(directory)


def same(text: str) -> str:
    return text


def replaced(old: str, new: str, count: int = -1) -> Edit:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, count)

    return edit


def added(more: str) -> Edit:
    return lambda text: text + more


@pytest.mark.parametrize("mode", [BEFORE, AFTER])
def test_readme_setup_of_spawned_proxy_has_no_findings(machine: Machine, mode: str) -> None:
    machine.write(mode, SPAWNED, same, same)
    assert machine.check() == Said(0, "", "")


@pytest.mark.parametrize("mode", [BEFORE, AFTER])
def test_readme_setup_of_listening_proxy_has_no_findings(machine: Machine, mode: str) -> None:
    machine.write(mode, LISTENING, same, same)
    assert machine.check("--unit", str(machine.unit(unit_command()))) == Said(0, "", "")


OVERRIDES, UNMAPPED = "receive_override_options=", "no_address_mappings"
XFORWARD_HOSTS = "smtpd_authorized_xforward_hosts"


class Wrong(NamedTuple):
    """The README's recipe with one mistake, and the expected finding."""

    name: str
    level: int
    mode: str
    main: Edit = same
    master: Edit = same


AMAVIS = "127.0.0.1:10025 inet n - n - - smtpd -o content_filter= -o mynetworks=127.0.0.0/8\n"


def service(text: str, name: str) -> str:
    """Return the master.cf entry of a service."""
    found = re.search(rf"^{re.escape(name)} .*\n(?:[ #].*\n)*", text, re.M)
    assert found
    return found[0]


def without(line: str) -> Edit:
    """Remove the recipe's values for a parameter from master.cf."""
    name = line.partition(" ")[0]
    return lambda text: re.sub(rf" *-o {name}=\S*", "", text)


def open_behind(text: str) -> str:
    """Make the service for filtered mail listen on all addresses and accept the site's networks."""
    text = text.replace("127.0.0.1:10026 inet", "0.0.0.0:10026 inet")
    return text.replace("mynetworks=127.0.0.0/8", "mynetworks=10.0.0.0/8,127.0.0.0/8", 1)


KEYWORDS = "smtpd_discard_ehlo_keywords"

WRONG = [
    Wrong("no-reject", 1, BEFORE, master=replaced(" --strict ", " ")),
    Wrong("no-strict", 1, BEFORE, master=replaced(" --strict ", " -r ")),
    Wrong("no-strict", 1, AFTER, master=replaced(" --strict ", " -r ")),
    Wrong("no-filter", 2, BEFORE, master=replaced("-c /usr/local/bin/mail-filter ", "")),
    Wrong("user", 2, BEFORE, master=replaced("user=postprox ", "user=root ")),
    Wrong("loop", 2, BEFORE, master=replaced("-o smtpd_proxy_filter=\n", "\n", 1)),
    Wrong("loop", 2, AFTER, master=replaced("-o content_filter= ", "", 1)),
    Wrong("milters", 1, BEFORE, master=replaced(",no_milters", "")),
    Wrong("milters", 1, AFTER, master=replaced(",no_milters", "")),
    Wrong("mapped-twice", 1, AFTER, master=replaced(f"{UNMAPPED},", "")),
    Wrong("mapped-never", 2, BEFORE, master=replaced(OVERRIDES, f"{OVERRIDES}{UNMAPPED},")),
    Wrong("mapped-never", 2, AFTER, main=added(f"{OVERRIDES}{UNMAPPED}\n")),
    Wrong("xforward", 1, BEFORE, master=replaced(f"-o {XFORWARD_HOSTS}=127.0.0.0/8", "")),
    Wrong("xforward", 1, AFTER, master=replaced("-o smtp_send_xforward_command=yes", "")),
    Wrong("time-limit", 2, BEFORE, main=replaced("= 100s", "= 1m")),
    Wrong("time-limit", 2, AFTER, main=added("smtp_data_done_timeout = 60\n")),
    Wrong("process-limit", 1, BEFORE, main=replaced("smtpd_proxy_options = speed_adjust", "")),
    Wrong("process-limit", 1, BEFORE, main=added("default_process_limit = 500\n")),
    Wrong("process-limit", 1, BEFORE, master=replaced(FRONT, "smtp inet n - n - 0 smtpd\n")),
    Wrong("process-limit", 1, AFTER, master=replaced("n n n - 20 spawn", "n n n - 10 spawn")),
    Wrong(
        "starttls",
        2,
        BEFORE,
        main=added("smtpd_tls_security_level = encrypt\n"),
        master=replaced("-o smtpd_tls_security_level=none", ""),
    ),
    Wrong(
        "starttls",
        2,
        AFTER,
        main=added("smtp_tls_security_level = encrypt\n"),
        master=replaced("-o smtp_tls_security_level=none", ""),
    ),
    Wrong("no-way", 2, BEFORE, main=replaced("smtpd_proxy_filter = 127.0.0.1:10025", "")),
    Wrong("columns", 2, BEFORE, master=replaced("n n n - 20 spawn", "n n y - 20 spawn")),
    Wrong("columns", 2, BEFORE, master=replaced("n n n - 20 spawn", "n - n - 20 spawn")),
    Wrong("columns", 2, AFTER, master=replaced("n n n - 20 spawn", "n y y - 20 spawn")),
    Wrong("lmtp", 2, AFTER, master=replaced("- 20 smtp\n", "- 20 lmtp\n")),
    Wrong("number", 2, BEFORE, main=added("message_size_limit = 10MB\n")),
    Wrong("number", 2, BEFORE, main=added("default_process_limit = ${limit}\n")),
    Wrong("number", 2, BEFORE, main=added("smtpd_proxy_timeout = 100x\n")),
    Wrong("number", 2, AFTER, main=added("scan_destination_concurrency_limit = few\n")),
    # Addresses and ports.
    Wrong("open-relay", 2, BEFORE, master=replaced("127.0.0.1:10025 inet", "0.0.0.0:10025 inet")),
    Wrong("open-relay", 2, AFTER, master=replaced("127.0.0.1:10025 inet", "10025 inet")),
    Wrong("wrong-port", 2, BEFORE, main=replaced("127.0.0.1:10025", "127.0.0.1:10035")),
    Wrong("wrong-port", 2, AFTER, main=replaced("[127.0.0.1]:10025", "[127.0.0.1]:10035")),
    Wrong("no-way", 2, BEFORE, main=replaced("127.0.0.1:10025", "127.0.0.1:10026")),
    Wrong("port-twice", 2, BEFORE, master=lambda text: AMAVIS + text),
    Wrong("defined-twice", 1, BEFORE, master=lambda text: text + service(text, "127.0.0.1:10026")),
    Wrong("defined-twice", 1, AFTER, master=lambda text: text + service(text, "127.0.0.1:10025")),
    Wrong("transport", 2, AFTER, master=lambda text: text.replace(service(text, "scan"), "")),
    Wrong("transport", 2, AFTER, master=replaced("scan unix", "sacn unix")),
    Wrong("open-relay", 2, BEFORE, master=open_behind),
    Wrong("wrong-port", 2, BEFORE, main=replaced("127.0.0.1:10025", "127.0.0.1")),
    Wrong("wrong-port", 2, BEFORE, main=replaced("127.0.0.1:10025", "127.0.0.1:10025 # filter")),
    Wrong("wrong-port", 2, BEFORE, main=replaced("127.0.0.1:10025", "smtp:[127.0.0.1]:10025")),
    Wrong("wrong-port", 2, AFTER, main=replaced("scan:[127.0.0.1]:10025", "scan")),
    Wrong(
        "wrong-port",
        2,
        BEFORE,
        main=lambda text: text.replace("127.0.0.1", "[::1]") + "inet_protocols = ipv4\n",
        master=lambda text: text.replace("127.0.0.1:100", "[::1]:100").replace(
            "127.0.0.0/8", "[::1]/128"
        ),
    ),
    Wrong("no-way", 2, AFTER, main=replaced("scan:[127.0.0.1]:10025", "scan:[127.0.0.1]")),
    Wrong("no-way", 2, BEFORE, master=replaced(FRONT, f"{FRONT[:-1]} -o smtpd_proxy_filter=\n")),
    Wrong("loop", 2, BEFORE, master=replaced("filter 127.0.0.1:10026", "filter 127.0.0.1:10025")),
    Wrong(
        "no-upstream",
        2,
        BEFORE,
        master=replaced("0026 inet n - n - - smtpd", "0026 inet n - n - - qmqpd"),
    ),
    Wrong(
        "no-upstream",
        2,
        BEFORE,
        master=lambda text: text.replace(service(text, "127.0.0.1:10026"), ""),
    ),
    Wrong("time-limit", 2, BEFORE, main=added("command_time_limit = 30s\n")),
    Wrong(
        "process-limit", 1, BEFORE, master=replaced("0026 inet n - n - -", "0026 inet n - n - 1")
    ),
    Wrong(
        "xforward",
        1,
        BEFORE,
        main=added(f"{KEYWORDS} = xforward\n"),
        master=without(f"{KEYWORDS} "),
    ),
    # Words that a Postfix program refuses.
    Wrong("value", 2, BEFORE, main=replaced("= speed_adjust", "= speed_adjust # fast")),
    Wrong("value", 2, BEFORE, master=replaced("mynetworks=127.0.0.0/8", "mynetworks=127.0.0.1/8")),
    Wrong("value", 2, AFTER, master=replaced("=127.0.0.0/8", "=127.0.0.0/33", 1)),
    Wrong("value", 2, AFTER, main=added("mynetworks = 10.0.0.0/8, [::1]/64\n")),
    Wrong("arguments", 2, BEFORE, master=replaced("syslog_name=", "syslog_name= # filtered ", 1)),
    Wrong("arguments", 2, BEFORE, master=replaced("-o syslog_name=", "- o syslog_name=")),
    Wrong("arguments", 2, BEFORE, master=replaced("-o mynetworks=", "-o mynetworks =")),
    Wrong(
        "arguments",
        2,
        AFTER,
        master=replaced("scan unix - - n - 20 smtp", "scan unix - - n - 20 smtp #"),
    ),
    Wrong("arguments", 2, BEFORE, master=replaced("argv=/usr", "/usr")),
    Wrong("arguments", 2, BEFORE, master=replaced("20 spawn", "20 pipe flags=Rq")),
    Wrong("arguments", 2, AFTER, master=replaced("20 spawn", "20 spawn flags=Rq")),
    Wrong("background", 2, BEFORE, master=replaced("--strict", "-l 10025 --foreground --strict")),
    Wrong(
        "user",
        2,
        BEFORE,
        master=lambda text: text.replace("user=postprox argv", "argv").replace(
            "mail-filter 127", "mail-filter user=postprox 127"
        ),
    ),
    Wrong("command-line", 2, BEFORE, master=replaced("--strict", "\u2013\u2013strict")),
    Wrong("no-way", 2, AFTER, main=replaced("content_filter =", "content_filer =")),
    # Transports that do not deliver to the proxy.
    Wrong("transport", 2, AFTER, master=replaced("- 20 smtp\n", "- 20 discard\n")),
    Wrong("inherited", 2, AFTER, main=added("defer_transports = hold, scan\n")),
    Wrong("inherited-risk", 1, AFTER, main=added("scan_destination_rate_delay = 60s\n")),
    Wrong("inherited-risk", 1, AFTER, main=added("default_transport_rate_delay = 1s\n")),
    # Filter commands that pass all mail.
    Wrong(
        "exit-status",
        2,
        BEFORE,
        master=replaced("-c /usr/local/bin/mail-filter", "-c {/usr/local/bin/mail-filter || true}"),
    ),
    Wrong("no-filter", 2, AFTER, master=replaced("-c /usr/local/bin/mail-filter", "-c true")),
    # Mistakes in pasted text.
    Wrong("indented", 2, BEFORE, main=lambda text: textwrap.indent(text, "    ")),
    Wrong("indented", 2, AFTER, main=lambda text: textwrap.indent(text, "\t")),
    Wrong("indented", 2, BEFORE, master=replaced("127.0.0.1:10026 inet", " 127.0.0.1:10026 inet")),
    Wrong("indented", 2, AFTER, master=replaced("scan unix", "    scan unix")),
    Wrong("braces", 2, BEFORE, master=replaced("mail-filter ", "mail-filter --fast ", 1)),
    Wrong("braces", 2, AFTER, master=replaced("mail-filter ", "mail-filter fast ", 1)),
    Wrong(
        "braces", 2, BEFORE, master=replaced("-c /usr/local/bin/mail-filter", "-c '/bin/true a'")
    ),
    # Settings in main.cf that affect a service because the recipe's overriding option is missing.
    *(
        Wrong("inherited", 2, mode, main=added(f"{line}\n"), master=without(line))
        for mode, line in (
            (BEFORE, "smtpd_upstream_proxy_protocol = haproxy"),
            (BEFORE, "smtpd_client_restrictions = permit_sasl_authenticated, defer"),
            (AFTER, "smtpd_recipient_restrictions = permit_sasl_authenticated, reject"),
            (AFTER, "smtpd_data_restrictions = reject"),
            (AFTER, "smtp_tls_wrappermode = yes"),
            (AFTER, "smtp_fallback_relay = [127.0.0.1]:10026"),
        )
    ),
    *(
        Wrong("inherited-risk", 1, BEFORE, main=added(f"{line}\n"), master=without(line))
        for line in ("smtpd_timeout = 10s",)
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.name} {wrong.mode}")
def test_each_mistake_is_corrected_by_printed_remedies(machine: Machine, wrong: Wrong) -> None:
    machine.write(wrong.mode, SPAWNED, wrong.main, wrong.master)
    said = machine.check()
    assert (said.status, said.names(), said.errors) == (wrong.level, {wrong.name}, "")
    machine.run([machine.named(command) for command in said.remedies()])
    assert machine.check() == Said(0, "", "")


def test_signing_milter_before_filter_is_reported(machine: Machine) -> None:
    own_proxy = "10027 -o smtpd_milters= -o smtpd_milter_maps="
    machine.write(BEFORE, SPAWNED, same, replaced(own_proxy, "10025", 1))
    said = machine.check()
    assert (said.status, said.names()) == (1, {"unsigned", "unused"})
    machine.run(said.remedies())
    assert "unsigned" not in machine.check().names()


def test_unsigned_mail_is_reported_if_submission_service_is_missing(machine: Machine) -> None:
    first = readme.master_cf(BEFORE)
    machine.write(BEFORE, SPAWNED, same, lambda _: FRONT + readme.spawned() + first)
    said = machine.check()
    assert (said.status, said.names()) == (1, {"unsigned"})
    machine.run([machine.named(command) for command in said.remedies()])
    assert "unsigned" not in machine.check().names()


#: A configuration with four mistakes. Three of them affect one service, and two affect another.
FOUR = (
    lambda text: text.replace(" --strict ", " ", 1).replace("-d /var/spool/postprox", "", 1),
    lambda text: text.replace(",no_milters", "").replace(f"{OVERRIDES}", f"{OVERRIDES}{UNMAPPED},"),
)


@pytest.mark.parametrize("reverse", [False, True])
def test_printed_remedies_work_in_any_order(machine: Machine, reverse: bool) -> None:
    machine.write(BEFORE, SPAWNED, same, lambda text: FOUR[1](FOUR[0](text)))
    said = machine.check()
    assert said.names() == {"no-reject", "spool-open", "milters", "mapped-never"}
    commands = [
        command.replace("/var/spool/postprox", str(machine.spool)) for command in said.remedies()
    ]
    machine.run(reversed(commands) if reverse else commands)
    assert machine.check() == Said(0, "", "")


@pytest.mark.parametrize(
    "line",
    [
        "transport_maps = static:scan:[127.0.0.1]:10025",
        "transport_maps = memcache:/etc/postfix/transport.cf",
        "relayhost = [127.0.0.1]:10025",
        "default_transport = scan:[127.0.0.1]:10025",
        "header_checks = regexp:{table}",
        "smtpd_client_restrictions = check_client_access hash:{table}",
    ],
)
def test_possible_route_to_proxy_is_reported_as_unchecked(machine: Machine, line: str) -> None:
    table = machine.directory / "table"
    line = line.format(table=table)
    machine.write(
        BEFORE,
        SPAWNED,
        replaced("smtpd_proxy_filter = 127.0.0.1:10025", line),
        lambda text: FRONT + readme.spawned() + readme.master_cf(BEFORE),
    )
    table.write_text("a.test FILTER scan:[127.0.0.1]:10025\n")
    (machine.directory / "table.db").touch()
    said = machine.check()
    assert (said.status, said.names()) == (3, set())
    assert f"whether mail is routed to 127.0.0.1:10025 by {line.partition(' ')[0]}" in said.text
    assert "unfiltered" not in said.text
    table.write_text("a.test REJECT\n")
    if str(table) in line:
        assert machine.check().names() == {"no-way"}


def test_route_bypassing_proxy_is_reported(machine: Machine) -> None:
    line = (
        "relayhost = [mail.example]:587\nsmtpd_client_restrictions = check_client_access static:OK"
    )
    machine.write(
        BEFORE,
        SPAWNED,
        replaced("smtpd_proxy_filter = 127.0.0.1:10025", line),
        lambda text: FRONT + readme.spawned() + readme.master_cf(BEFORE),
    )
    assert machine.check().names() == {"no-way"}


RIGHT = {
    "address mapping before the filter": (
        AFTER,
        added(f"{OVERRIDES}{UNMAPPED}\n"),
        replaced(f"{OVERRIDES}{UNMAPPED},", OVERRIDES),
    ),
    "equal process limits": (
        BEFORE,
        replaced("smtpd_proxy_options = speed_adjust\n", "default_process_limit = 20\n"),
        same,
    ),
    "host name": (
        BEFORE,
        replaced("127.0.0.1:10025", "localhost:10025"),
        replaced("mail-filter 127.0.0.1:1002", "mail-filter localhost:1002"),
    ),
    "IPv6": (
        BEFORE,
        replaced("127.0.0.1:100", "[::1]:100"),
        lambda text: text.replace("127.0.0.1:100", "[::1]:100").replace("127.0.0.0/8", "[::1]/128"),
    ),
    "Unix domain socket": (
        BEFORE,
        replaced("127.0.0.1:10025", "unix:private/postprox"),
        replaced("127.0.0.1:10025 inet n n n", "postprox unix - n n"),
    ),
    "port without host": (BEFORE, replaced("127.0.0.1:10025", "10025"), same),
    "port after colon": (BEFORE, replaced("127.0.0.1:10025", ":10025"), same),
    "port after inet:": (BEFORE, replaced("127.0.0.1:10025", "inet:10025"), same),
    "second filter in main.cf": (
        BEFORE,
        added("content_filter = other:[127.0.0.1]:10099\n"),
        added("other unix - - n - 10 smtp\n"),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_correct_configuration_has_no_findings(machine: Machine, name: str) -> None:
    mode, main, master = RIGHT[name]
    machine.write(mode, SPAWNED, main, master)
    said = machine.check()
    assert (said.names(), said.errors) == (set(), "")


def found(machine: Machine, *arguments: str) -> Said:
    """Return the findings for the before-queue configuration on a misconfigured machine."""
    machine.write(BEFORE, SPAWNED, same, same)
    return machine.check(*arguments)


def test_unknown_user_is_reported(machine: Machine) -> None:
    machine.write(BEFORE, SPAWNED, same, replaced("user=postprox", "user=nobody-made-me"))
    said = machine.check()
    assert (said.status, said.names()) == (2, {"user"})
    assert "user nobody-made-me does not exist; the proxy cannot start" in said.text
    assert " useradd --system " in said.text


def test_missing_filter_is_reported(machine: Machine) -> None:
    machine.filter.unlink()
    said = found(machine)
    assert (said.status, said.names()) == (2, {"filter"})
    assert f"{machine.filter} does not exist; the filter cannot run, and all mail is deferred" in (
        said.text
    )


def test_directory_as_filter_is_reported(machine: Machine) -> None:
    machine.filter.unlink()
    machine.filter.mkdir()
    said = found(machine)
    assert (said.status, said.names()) == (2, {"filter"})
    assert f"{machine.filter} is a directory; the filter cannot run, and all mail is deferred" in (
        said.text
    )


def test_filter_not_executable_by_user_is_reported(machine: Machine) -> None:
    machine.filter.chmod(0o700)
    said = found(machine)
    assert (said.status, said.names()) == (2, {"filter"})
    assert f"user nobody cannot execute {machine.filter}" in said.text
    machine.run(said.remedies())
    assert found(machine) == Said(0, "", "")


def test_filter_in_inaccessible_directory_is_reported(machine: Machine) -> None:
    closed = machine.directory / "closed"
    closed.mkdir(mode=0o700)
    machine.filter = Path(shutil.move(machine.filter, closed))
    assert found(machine).names() == {"filter"}


@pytest.mark.parametrize("first_line", ["#!/usr/bin/no-such-sh", "#!/usr/bin/env no-such-python"])
def test_missing_filter_interpreter_is_reported(machine: Machine, first_line: str) -> None:
    machine.filter.write_text(f"{first_line}\n")
    said = found(machine)
    assert (said.status, said.names()) == (2, {"interpreter"})
    assert "no-such-" in said.text


def test_filter_script_with_crlf_is_reported(machine: Machine) -> None:
    machine.filter.write_bytes(b"#!/bin/sh\r\nexit 0\r\n")
    said = found(machine)
    assert said.names() == {"line-ends"}
    machine.run(said.remedies())
    assert found(machine) == Said(0, "", "")


def test_missing_proxy_program_is_reported(machine: Machine) -> None:
    machine.launcher.unlink()
    said = found(machine)
    assert (said.status, said.names()) == (2, {"program"})


def test_invalid_proxy_command_line_is_reported(machine: Machine) -> None:
    machine.write(BEFORE, SPAWNED, same, replaced("-t 60", "-t never"))
    said = machine.check()
    assert (said.status, said.names()) == (2, {"command-line"})
    assert "-t 'never': must be a positive number" in said.text


def test_unreachable_upstream_of_proxy_is_reported(machine: Machine) -> None:
    nobody = f"unix:{machine.directory}/nobody"
    machine.write(
        BEFORE, SPAWNED, same, replaced("mail-filter 127.0.0.1:10026", f"mail-filter {nobody}")
    )
    said = machine.check()
    assert (said.status, said.names()) == (2, {"no-upstream"})
    assert f"no server listens on {nobody}, the proxy's upstream address" in said.text


def test_missing_spool_directory_is_reported(machine: Machine) -> None:
    machine.spool.rmdir()
    said = found(machine)
    assert (said.status, said.names()) == (2, {"spool"})
    machine.run(said.remedies())
    assert found(machine) == Said(0, "", "")


def test_spool_directory_owned_by_another_user_is_reported(machine: Machine) -> None:
    shutil.chown(machine.spool, "root", "root")
    assert found(machine).names() == {"spool"}


def test_world_readable_spool_directory_is_reported(machine: Machine) -> None:
    machine.spool.chmod(0o755)
    said = found(machine)
    assert (said.status, said.names()) == (1, {"spool-open"})
    machine.run(said.remedies())
    assert found(machine) == Said(0, "", "")


def test_tmp_as_spool_directory_is_reported(machine: Machine) -> None:
    machine.write(BEFORE, SPAWNED, same, replaced("-d /var/spool/postprox", ""))
    said = machine.check()
    assert (said.status, said.names()) == (1, {"spool-open"})
    assert "/tmp, the directory for messages, is open to other users" in said.text


def test_full_disk_is_reported(machine: Machine) -> None:
    spool = machine.spool
    mount = f"mount -t tmpfs -o size=64k,uid={USER},mode=0700 none {spool}"
    subprocess.run(["/bin/sh", "-ec", mount], check=True)
    try:
        said = found(machine)
    finally:
        subprocess.run(["/bin/umount", spool], check=True)
    assert (said.status, said.names()) == (2, {"spool-full"})
    assert "free, too few for a message of 10240000 octets" in said.text


def test_unit_without_listen_option_is_reported(machine: Machine) -> None:
    machine.write(BEFORE, LISTENING, same, same)
    said = machine.check(
        "--unit", str(machine.unit(unit_command().replace("-l 10025 --foreground", "")))
    )
    assert (said.status, said.names()) == (2, {"command-line"})
    assert "-l [IP:]PORT is missing; a unit requires this option" in said.text


def test_unit_without_strict_option_is_reported(machine: Machine) -> None:
    machine.write(BEFORE, LISTENING, same, same)
    said = machine.check("--unit", str(machine.unit(unit_command().replace("--strict", "-r"))))
    assert (said.status, said.names()) == (1, {"no-strict"})
    machine.run(said.remedies())
    assert machine.check("--unit", f"{machine.directory}/postprox.service") == Said(0, "", "")


def test_unit_without_reject_option_is_reported(machine: Machine) -> None:
    machine.write(BEFORE, LISTENING, same, same)
    said = machine.check("--unit", str(machine.unit(unit_command().replace(" --strict ", " "))))
    assert (said.status, said.names()) == (1, {"no-reject"})
    machine.run(said.remedies())
    assert machine.check("--unit", f"{machine.directory}/postprox.service") == Said(0, "", "")


def test_listening_proxy_is_checked_only_with_unit_option(machine: Machine) -> None:
    machine.write(BEFORE, LISTENING, same, same)
    said = machine.check()
    assert said.status == 3  # the second proxy is found and is correct
    assert said.output.startswith("not checked: the server that listens on 127.0.0.1:10025 ")


def test_command_line_after_double_dash_is_checked(machine: Machine) -> None:
    machine.write(BEFORE, LISTENING, same, same)
    line = machine.named(unit_command()).replace(" --strict ", f" -d {machine.spool} ")
    said = machine.check("--", *line.split())
    assert said.names() == {"no-reject"}
    assert "not checked: command line after --: the user that the proxy runs as" in said.text


def test_postfix_without_proxy_is_reported(machine: Machine) -> None:
    (machine.etc / "main.cf").write_text(MAIN_CF)
    (machine.etc / "master.cf").write_text(FRONT + MASTER_CF)
    said = machine.check()
    assert (said.status, said.names()) == (2, {"no-proxy"})
    machine.run([machine.named(command) for command in said.remedies()])
    for file in ("main.cf", "master.cf"):
        (machine.etc / file).write_text(machine.named((machine.etc / file).read_text()))
    assert "no-proxy" not in machine.check().names()
    assert machine.check().status == 1


def test_remote_filter_is_reported_as_unchecked(machine: Machine) -> None:
    (machine.etc / "main.cf").write_text(f"{MAIN_CF}smtpd_proxy_filter = 192.0.2.1:10025\n")
    (machine.etc / "master.cf").write_text(FRONT + MASTER_CF)
    said = machine.check()
    assert (said.status, said.names()) == (3, set())
    assert "the server that listens on 192.0.2.1:10025" in said.text


def test_json_report_contains_findings(machine: Machine) -> None:
    machine.write(BEFORE, SPAWNED, same, replaced(" --strict ", " ", 1))
    said = machine.check("--json")
    report = json.loads(said.output)
    assert (said.status, report["status"], report["unseen"]) == (1, 1, [])
    (finding,) = report["findings"]
    assert (finding["name"], finding["level"]) == ("no-reject", 1)
    assert finding["where"] == "master.cf, 127.0.0.1:10025/inet"


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("master.cf", "smtp inet n\n", "master.cf: line 1: bad field count"),
        ("main.cf", None, "main.cf: No such file or directory"),
    ],
)
def test_unreadable_configuration_is_reported_on_one_line(
    machine: Machine, file: str, text: str | None, complaint: str
) -> None:
    machine.write(BEFORE, SPAWNED, same, same)
    if text is None:
        (machine.etc / file).unlink()
    else:
        (machine.etc / file).write_text(text)
    said = machine.check()
    assert (said.status, said.output) == (2, "")
    (line,) = said.errors.splitlines()
    assert line.startswith("postprox-check: ")
    assert complaint in line


def test_unreadable_unit_is_reported_on_one_line(machine: Machine) -> None:
    said = found(machine, "--unit", "/nonexistent/postprox.service")
    assert (said.status, said.output) == (2, "")
    assert len(said.errors.splitlines()) == 1
    assert "/nonexistent/postprox.service" in said.errors


def test_unit_file_that_is_a_fifo_is_reported_on_one_line(machine: Machine) -> None:
    path = machine.directory / "postprox.service"
    os.mkfifo(path)
    said = found(machine, "--unit", str(path))
    assert (said.status, said.output) == (2, "")
    assert said.errors == f"postprox-check: {path} is not a regular file\n"


def test_unit_without_command_is_reported(machine: Machine) -> None:
    path = machine.directory / "postprox.service"
    path.write_text("[Service]\nKillMode=mixed\nExecStart=\n")
    said = found(machine, "--unit", str(path))
    assert (said.status, said.names(), said.errors) == (2, {"command-line"}, "")


@pytest.mark.parametrize(
    "text", ["", "10MB", "0x10", "-1", "-0", "+5", "0", str(2**63 - 1), str(2**63), "0" * 99 + "7"]
)
def test_number_validation_agrees_with_postfix(tmp_path: Path, text: str) -> None:
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\nmessage_size_limit = {text}\n")
    command = ["postmap", "-c", str(tmp_path), "-q", "a", "inline:{a=b}"]
    done = subprocess.run(command, env={"PATH": PROGRAMS}, capture_output=True, check=False)
    assert values.is_refused("message_size_limit", text) == (done.returncode != 0)


def test_command_line_without_proxy_is_rejected(machine: Machine) -> None:
    said = found(machine, "--", "ls", "-l")
    assert (said.status, said.output) == (2, "")
    assert "-- requires a complete command line" in said.errors
