"""A private Postfix, which shares no files or addresses with the system's Postfix.

`Postfix(directory, names, services)` is a context manager. The directory contains the
configuration, the queue, the mail log and one Maildir for all recipients. The instance listens only
on an unused loopback address and sends no DNS queries. The master process ends with the current
process. `services` and `settings` return the lines of master.cf and main.cf that contain addresses.

It requires root, because master(8) changes users, and Postfix >= 3.4, which has postlogd(8).
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

#: The directories of the instance and their modes.
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

#: Ends the command after SIGTERM or when its parent exits, because killed tests cannot stop it.
#: The command itself cannot use the parent death signal: master(8) loses it with its first seteuid.
GUARD = """
"$@" &
trap 'kill $!' TERM
wait $!
wait $!
"""
GUARDED = ("setpriv", "--pdeathsig", "TERM", "sh", "-c", GUARD, "sh")

#: Header fields that Postfix prepends to a message between smtpd(8) and the Maildir.
TRACE_FIELDS = re.compile(
    rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)+"
)


class PostfixError(Exception):
    """The instance could not be started, used or stopped."""


def wait_for(what: str, probe: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Return the first true result of `probe`. After a timeout, raise PostfixError with `what`."""
    deadline = time.monotonic() + patience
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise PostfixError(f"timed out after {patience} s: waiting for {what}")
        time.sleep(POLL)
    return answer


def program(name: str) -> str | None:
    """Return the program's path. After su, root's PATH may lack the directories in sbin."""
    return shutil.which(name, path=PROGRAMS)


def missing() -> str:
    """Return the reason why a private Postfix cannot run, or an empty string."""
    if os.geteuid() != 0:
        return "a private Postfix requires root, because master(8) changes users"
    if program("postfix") is None:
        return "Postfix is not installed (Debian: apt-get install postfix)"
    return ""


@contextlib.contextmanager
def public_directory(prefix: str, parent: str | None = None) -> Iterator[Path]:
    """Create a temporary directory that every user may enter, unlike pytest's directories."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        directory = Path(name).resolve()
        directory.chmod(0o755)
        yield directory


class Address(NamedTuple):
    """A listening address. Its string has the form that Postfix's configuration requires."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


#: Returns text for a Postfix configuration file, given the address for each name.
ForAddresses = Callable[[Mapping[str, Address]], str]


def own_addresses(names: Sequence[str]) -> dict[str, Address]:
    """Return a free port for each name, on a loopback address that no other process uses.

    Free ports of 127.0.0.1 would not suffice. Postfix listens with SO_REUSEPORT, so two instances
    that choose the same port at the same time both start, and then share the connections. Names
    that begin with `ipv6` use ::1, the only IPv6 loopback address.
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
    """Return a delivered message without the header fields that Postfix prepended."""
    trace = TRACE_FIELDS.match(delivered)
    return delivered[trace.end() :] if trace else delivered


def processes(belongs: Callable[[Path], bool]) -> dict[int, str]:
    """Return the command lines, by pid, of all other processes with an accepted /proc entry."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # the process may have exited
                if belongs(entry):
                    found[int(entry.name)] = command_line(entry)
    return found


def command_line(entry: Path) -> str:
    """Return the command line of a process, given its directory in /proc."""
    return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1")


def connections(listener: Address) -> int:
    """Return the number of clients connected to the IPv4 address, including waiting clients."""
    octets = bytes(reversed(socket.inet_aton(listener.host))).hex().upper()
    peer = f" {octets}:{listener.port:04X} 01 "  # a client's socket in state ESTABLISHED
    return Path("/proc/net/tcp").read_text().count(peer)


class Postfix:
    """A running instance. It listens on `addresses`. The `wait_*` methods have a timeout."""

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

    # --- start and stop ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._make_directories()
        for _ in range(3):  # another process may bind a free port before Postfix does
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
        # Postfix waits until a new main.cf is some seconds old, in case it is still being written.
        os.utime(path, (0, 0))
        (self.directory / "etc/master.cf").write_text(self._services(self.addresses) + MASTER_CF)

    def start(self) -> bool:
        """Start the instance with its current configuration. Return whether it runs."""
        daemons = self._command("postconf", "-h", "daemon_directory").stdout.decode().strip()
        starts = self._starts()
        guard = self._guard = subprocess.Popen(
            [*GUARDED, *self._wrapper, f"{daemons}/master", "-s"],  # -s: stay in the foreground
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # only the tests receive the terminal's interrupts
        )
        wait_for(
            "Postfix to start or to exit",
            lambda: self._starts() > starts or guard.poll() is not None,
        )
        return guard.poll() is None

    def _starts(self) -> int:
        """Return the number of starts in the instance's log."""
        # Postfix writes the line when every port is bound. Connecting would start a server process.
        return self.log().count("daemon started")

    def stop(self) -> None:
        """Stop the instance, and check that it has left no processes."""
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
        """Make Postfix reread its configuration, as `postfix reload` does."""
        master = int((self.directory / "queue/pid/master.pid").read_text())
        os.kill(master, signal.SIGHUP)
        self.wait_log("reload -- version")

    def _everything(self) -> dict[int, str]:
        """Return all processes of the instance. Postfix's daemons run in the queue directory."""
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

    # --- inspection and mail ----------------------------------------------------------------

    def commands(self) -> list[str]:
        """Return the command lines that contain the instance's directory, without Postfix's own."""
        home = str(self.directory)
        named = processes(lambda entry: home in command_line(entry))
        if self._guard is not None:
            named.pop(self._guard.pid, None)
        return [line for line in named.values() if not line.startswith("spawn ")]

    def log(self) -> str:
        """Return the current contents of the mail log."""
        path = self.directory / "mail.log"
        return path.read_text(errors="backslashreplace") if path.exists() else ""

    def complaints(self) -> list[str]:
        """Return the mail log's warnings and errors."""
        return re.findall(".*(?:warning|error|fatal|panic|garbage).*", self.log())

    def wait_log(self, pattern: str) -> re.Match[str]:
        """Wait until the pattern matches text in the mail log. Return the first match."""
        return wait_for(f"{pattern!r} in the mail log", lambda: re.search(pattern, self.log()))

    def in_transit(self) -> list[Path]:
        """Return the files of messages that are neither delivered nor deferred."""
        # A message passes through the queues in this order, so none is missed while it moves.
        queues = [self.directory / "queue" / name for name in ("maildrop", "incoming", "active")]
        return [path for queue in queues for path in queue.rglob("*") if path.is_file()]

    def wait_quiet(self) -> None:
        """Wait until every accepted message is delivered or deferred."""
        wait_for("the queue to be empty", lambda: not self.in_transit())

    def sendmail(self, sender: str, recipient: str, content: bytes) -> None:
        """Send a message with sendmail(1), as local programs do."""
        done = self._command("sendmail", "-i", "-f", sender, recipient, content=content)
        if done.returncode:
            raise PostfixError(f"sendmail: {done.stderr.decode()}")

    def connections_to(self, name: str) -> int:
        """Return the number of clients connected to the address, including waiting clients."""
        return connections(self.addresses[name])

    def flush(self) -> None:
        """Retry deferred mail immediately."""
        done = self._command("postqueue", "-f")
        if done.returncode:
            raise PostfixError(f"postqueue -f: {done.stderr.decode()}")

    def delivered(self, recipient: str) -> list[bytes]:
        """Return every message delivered to the address, as stored in the Maildir."""
        for path in sorted((self.directory / "mail/all/new").glob("*")):
            if path.name not in self._seen:
                content = path.read_bytes()
                end = content.find(b"\n\n") + 1
                address = message_from_bytes(content[:end])["Delivered-To"]
                self._seen[path.name] = (address, content)
        return [content for address, content in self._seen.values() if address == recipient]

    def wait_delivered(self, recipient: str) -> bytes:
        """Wait for mail to the address. Return the only message."""
        (message,) = wait_for(f"mail for {recipient}", lambda: self.delivered(recipient))
        return message
