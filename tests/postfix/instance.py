"""A private Postfix: its own directory, its own addresses, nothing shared with the system's.

`Postfix(directory, names, services)` is a context manager. The directory holds everything
(configuration, queue, mail log, one Maildir for every recipient there is); it listens
on a loopback address of its own only; the DNS is never asked; the master process ends when this
one does. `services` and `settings` make the lines of master.cf and of main.cf that use the
addresses.

Needs root (master(8) changes users) and the programs of a Postfix >= 3.4 (postlogd(8)).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email import message_from_bytes
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

T = TypeVar("T")

PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: The timeout in seconds for events that normally take milliseconds.
PATIENCE = 20.0
POLL = 0.01

MAIN_CF = """
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
config_directory = {dir}/etc
mail_owner = postfix
setgid_group = postdrop
maillog_file = {dir}/mail.log
maillog_file_prefixes = {dir}
myhostname = mx.mail.test
myorigin = mail.test
mydestination =
inet_interfaces = loopback-only
inet_protocols = all
mynetworks = 127.0.0.0/8 [::1]/128
# Ask no DNS, not even for the client's name.
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_peername_lookup = no
alias_maps =
alias_database =
local_recipient_maps =
# Leave the headers of local clients' mail alone.
local_header_rewrite_clients =
append_dot_mydomain = no
biff = no
message_size_limit = 104857600
mailbox_size_limit = 0
virtual_mailbox_limit = 0
smtpd_relay_restrictions =
smtpd_recipient_restrictions = permit_mynetworks, check_client_access static:OK, reject
smtpd_client_event_limit_exceptions = static:all
smtpd_authorized_xclient_hosts = 127.0.0.0/8 [::1]/128
# The strictest end of data that this Postfix knows (a release that does not know it only warns).
smtpd_forbid_bare_newline = normalize
smtpd_forbid_bare_newline_exclusions =
# Whatever the recipient's domain: into the one Maildir.
default_transport = virtual:
local_transport = virtual:
virtual_transport = virtual:
relay_transport = virtual:
virtual_mailbox_base = {dir}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
"""

MASTER_CF = """
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

#: Postfix's own directories.
OWN_DIRECTORIES = {
    "data": 0o700,
    **{
        f"queue/{name}": 0o700
        for name in (
            *("incoming", "active", "deferred", "hold", "corrupt", "saved"),
            *("bounce", "defer", "trace", "flush", "private"),
        )
    },
    "queue/maildrop": 0o730,
    "queue/public": 0o710,
}

#: Ends the command when it is told to, and when its parent has died: tests that are killed stop
#: nothing. (Not the command's own death signal, for master(8) loses that with its first seteuid.)
GUARD = """
"$@" &
trap 'kill $!' TERM
wait $!
wait $!
"""
GUARDED = ("setpriv", "--pdeathsig", "TERM", "sh", "-c", GUARD, "sh")

#: Header fields that Postfix puts before a message on its way from smtpd(8) into a Maildir.
TRACE_FIELDS = re.compile(
    rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)+"
)


class PostfixError(Exception):
    """The instance could not be started, used or stopped."""


def wait_for(what: str, probe: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Return the first true result of `probe`, or raise a PostfixError about `what`."""
    deadline = time.monotonic() + patience
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise PostfixError(f"waited {patience} s in vain for {what}")
        time.sleep(POLL)
    return answer


def program(name: str) -> str | None:
    """Where the program is; administrators' programs may be missing from root's PATH after su."""
    return shutil.which(name, path=PROGRAMS)


def missing() -> str:
    """Why there can be no private Postfix here, or nothing."""
    if os.geteuid() != 0:
        return "a private Postfix needs root: master(8) changes users"
    if program("postfix") is None:
        return "Postfix is not installed (Debian: apt-get install postfix)"
    return ""


@contextlib.contextmanager
def public_directory(prefix: str, parent: str | None = None) -> Iterator[Path]:
    """A new directory every user may enter (those of pytest are root's alone), gone at the end."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        directory = Path(name).resolve()
        directory.chmod(0o755)
        yield directory


class Address(NamedTuple):
    """Where something listens; as text, in the form of Postfix's configuration."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


#: Makes text for a configuration file of Postfix, given the address behind each name.
ForAddresses = Callable[[Mapping[str, Address]], str]


def own_addresses(names: Sequence[str]) -> dict[str, Address]:
    """Return a free port for each name, on a loopback address that is not used elsewhere.

    Free ports of 127.0.0.1 would not do. Postfix listens with SO_REUSEPORT, so two instances that
    pick the same port in the same moment both start, and then share the connections. There is only
    one loopback address of IPv6, which is for names that begin with `ipv6`.
    """
    ipv4 = ".".join(str(part) for part in (127, *(1 + secrets.randbelow(254) for _ in range(3))))
    with contextlib.ExitStack() as held:
        addresses = {}
        for name in names:
            is_ipv6 = name.startswith("ipv6")
            host, family = ("::1", socket.AF_INET6) if is_ipv6 else (ipv4, socket.AF_INET)
            probe = held.enter_context(socket.socket(family))
            probe.bind((host, 0))
            addresses[name] = Address(host, int(probe.getsockname()[1]))
        return addresses


def without_trace(delivered: bytes) -> bytes:
    """A delivered message without the header fields that Postfix put before it."""
    trace = TRACE_FIELDS.match(delivered)
    return delivered[trace.end() :] if trace else delivered


def processes(belongs: Callable[[Path], bool]) -> dict[int, str]:
    """The command line, by pid, of every other process whose entry in /proc passes the test."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has just ended
                if belongs(entry):
                    found[int(entry.name)] = command_line(entry)
    return found


def command_line(entry: Path) -> str:
    """The command line of a process, given by its entry in /proc."""
    return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")


def connections(listener: Address) -> int:
    """How many clients are connected to the IPv4 address, be they served already or not."""
    octets = bytes(reversed(socket.inet_aton(listener.host))).hex().upper()
    peer = f" {octets}:{listener.port:04X} 01 "  # as a client's end, established
    return Path("/proc/net/tcp").read_text().count(peer)


class Postfix:
    """A running instance. `addresses` are those on which it listens. `wait_*` have a timeout."""

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        services: ForAddresses,
        settings: ForAddresses = lambda _: "",
        wrapper: Sequence[str] = (),
    ) -> None:
        self.directory = directory
        self.addresses: Mapping[str, Address] = {}
        self._names = names
        self._services = services
        self._settings = settings
        self._wrapper = wrapper
        self._guard: subprocess.Popen[bytes] | None = None
        self._seen: dict[str, tuple[str, bytes]] = {}

    # --- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._make_directories()
        for _ in range(3):  # between looking for a free port and its use another may take it
            self._configure()
            if self.start():
                return self
        raise PostfixError(f"Postfix does not start:\n{self.log()}")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make_directories(self) -> None:
        for name in ("etc", "queue", "queue/pid", "mail"):
            (self.directory / name).mkdir(mode=0o755)
        shutil.chown(self.directory / "mail", "nobody")
        for name, mode in OWN_DIRECTORIES.items():
            path = self.directory / name
            path.mkdir()
            path.chmod(mode)
            shutil.chown(path, "postfix", "postdrop")

    def _configure(self) -> None:
        self.addresses = own_addresses(self._names)
        user = pwd.getpwnam("nobody")
        main = MAIN_CF.format(dir=self.directory, uid=user.pw_uid, gid=user.pw_gid)
        path = self.directory / "etc/main.cf"
        path.write_text(main + self._settings(self.addresses))
        # Postfix waits until a new main.cf is some seconds old: it might not be complete yet.
        os.utime(path, (0, 0))
        (self.directory / "etc/master.cf").write_text(self._services(self.addresses) + MASTER_CF)

    def start(self) -> bool:
        """Start it with the configuration that it has; return whether it runs."""
        daemons = self._command("postconf", "-h", "daemon_directory").stdout.decode().strip()
        starts = self._starts()
        guard = self._guard = subprocess.Popen(
            [*GUARDED, *self._wrapper, f"{daemons}/master", "-s"],  # -s: stay in the foreground
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the terminal is for the tests to handle
        )
        wait_for(
            "Postfix to start or to give up",
            lambda: self._starts() > starts or guard.poll() is not None,
        )
        return guard.poll() is None

    def _starts(self) -> int:
        """How often it has started."""
        # Written once every port is bound. Trying the ports would start a server behind each.
        return self.log().count("daemon started")

    def stop(self) -> None:
        """End the instance, and see to it that nothing of it is left running."""
        if self._guard is not None:
            self._guard.terminate()
            self._guard.wait(PATIENCE)
            self._guard = None
        try:
            wait_for("the instance's processes to end", lambda: not self._everything())
        except PostfixError as error:
            left = self._everything()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise PostfixError(f"left running after the end of Postfix: {left}") from error

    def reload(self) -> None:
        """Let it read its configuration again, as `postfix reload` does."""
        master = int((self.directory / "queue/pid/master.pid").read_text())
        os.kill(master, signal.SIGHUP)
        self.wait_log("reload -- version")

    def _everything(self) -> dict[int, str]:
        """Every process of the instance; Postfix's daemons work in the queue directory."""
        home = str(self.directory)
        return processes(
            lambda entry: home in command_line(entry) or home in str((entry / "cwd").readlink())
        )

    def _environment(self) -> dict[str, str]:
        return {"PATH": PROGRAMS, "MAIL_CONFIG": f"{self.directory}/etc"}

    def _command(self, *words: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            words, input=content, env=self._environment(), capture_output=True, check=False
        )

    # --- what it does -----------------------------------------------------------------------

    def commands(self) -> list[str]:
        """The command lines that name the instance's directory, but for Postfix's own."""
        home = str(self.directory)
        named = processes(lambda entry: home in command_line(entry))
        if self._guard is not None:
            named.pop(self._guard.pid, None)
        return [line for line in named.values() if not line.startswith("spawn ")]

    def log(self) -> str:
        """The mail log so far."""
        path = self.directory / "mail.log"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def complaints(self) -> list[str]:
        """The lines of the mail log that an administrator would have to look into."""
        return re.findall(".*(?:warning|error|fatal|panic|garbage).*", self.log())

    def wait_log(self, pattern: str) -> re.Match[str]:
        """The first match of the pattern in the mail log."""
        return wait_for(f"{pattern!r} in the mail log", lambda: re.search(pattern, self.log()))

    def in_transit(self) -> list[Path]:
        """The files of messages that are neither delivered nor deferred."""
        # In the order a message goes through them: none is missed while it moves.
        queues = [self.directory / "queue" / name for name in ("maildrop", "incoming", "active")]
        return [path for queue in queues for path in queue.rglob("*") if path.is_file()]

    def wait_quiet(self) -> None:
        """Wait until all that was accepted is delivered or deferred."""
        wait_for("the queue to be empty", lambda: not self.in_transit())

    def sendmail(self, sender: str, recipient: str, content: bytes) -> None:
        """Hand in a message as a local program does, with sendmail(1)."""
        done = self._command("sendmail", "-i", "-f", sender, recipient, content=content)
        if done.returncode:
            raise PostfixError(f"sendmail: {done.stderr.decode()}")

    def connections_to(self, name: str) -> int:
        """How many clients are connected there, be they served already or not."""
        return connections(self.addresses[name])

    def flush(self) -> None:
        """Try deferred mail again now."""
        done = self._command("postqueue", "-f")
        if done.returncode:
            raise PostfixError(f"postqueue -f: {done.stderr.decode()}")

    def delivered(self, recipient: str) -> list[bytes]:
        """Every message delivered to the address, as it lies in the Maildir."""
        for path in sorted((self.directory / "mail/all/new").glob("*")):
            if path.name not in self._seen:
                content = path.read_bytes()
                end = content.find(b"\n\n") + 1
                address = message_from_bytes(content[:end])["Delivered-To"]
                self._seen[path.name] = (address, content)
        return [content for address, content in self._seen.values() if address == recipient]

    def wait_delivered(self, recipient: str) -> bytes:
        """The one message delivered to the address."""
        (message,) = wait_for(f"mail for {recipient}", lambda: self.delivered(recipient))
        return message
